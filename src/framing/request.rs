//! How requests are written.

use super::{FramingError, Prefix, content_length, delimited, netstring, record_separator};

/// How one request is written to a worker's stdin, so that the worker can tell where it ends.
///
/// A request is framed in the buffer that goes to the pipe: [`open`](Self::open), then the body, then
/// [`close`](Self::close). Only for a [netstring](Self::netstring) and for [`content_length`](Self::content_length) is the
/// body moved, by the length of a header.
///
/// The default is [`line`](Self::line).
///
/// # Which one
///
/// | a request is | framing | it cannot hold |
/// |---|---|---|
/// | a line | [`line`](Self::line) | a line feed |
/// | the bytes before a byte, such as NUL | [`delimited`](Self::delimited) | that byte |
/// | a JSON text of a sequence (RFC 7464) | [`record_separator`](Self::record_separator) | 0x1e |
/// | any bytes, with their length in front | [`prefixed`](Self::prefixed), [`netstring`](Self::netstring), [`content_length`](Self::content_length) | more bytes than its prefix can say |
/// | several lines, a command with its data, all of stdin | [`raw`](Self::raw) | |
///
/// If a request contains what it cannot hold, it is an error of its packet
/// ([`ContainsDelimiter`](super::FramingErrorKind::ContainsDelimiter), [`TooLong`](super::FramingErrorKind::TooLong)) and is
/// not written. If the worker can see from the request itself where it ends, as with SQL statements of several lines,
/// use [`raw`](Self::raw), which writes it unchanged; end it with a line feed if a [sync command](super::Sentinel)
/// follows.
///
/// # Examples
///
/// ```
/// use subfeed::framing::RequestFraming;
///
/// let framing = RequestFraming::netstring();
/// let mut out = Vec::new();
/// for body in ["hello", "two\nlines"] {
///     let start = out.len();
///     framing.open(&mut out);
///     out.extend_from_slice(body.as_bytes());
///     framing.close(&mut out, start)?;
/// }
/// assert_eq!(out, b"5:hello,9:two\nlines,");
/// # Ok::<(), subfeed::framing::FramingError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RequestFraming(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Delimited(u8),
    RecordSeparator,
    Prefixed(Prefix),
    Netstring,
    ContentLength,
    Raw,
}

impl Default for RequestFraming {
    fn default() -> Self {
        Self::line()
    }
}

impl RequestFraming {
    /// A line: the request, then a line feed. The default.
    ///
    /// A request that contains a line feed is refused: the worker would take it for two requests, and every later reply
    /// would belong to the wrong packet.
    #[must_use]
    pub const fn line() -> Self {
        Self::delimited(b'\n')
    }

    /// The request, then the byte `delimiter`, such as NUL for `sed -z` or `xargs -0`.
    ///
    /// A request that contains the delimiter is refused.
    #[must_use]
    pub const fn delimited(delimiter: u8) -> Self {
        Self(Kind::Delimited(delimiter))
    }

    /// A record separator (0x1e), the request, then a line feed: JSON text sequences, RFC 7464, which
    /// `jq --seq` reads.
    ///
    /// A request that contains a record separator is refused; valid JSON never contains one. Line feeds are allowed,
    /// because in this format a text ends at the next separator.
    #[must_use]
    pub const fn record_separator() -> Self {
        Self(Kind::RecordSeparator)
    }

    /// The length of the request, then the request, which may hold any bytes.
    ///
    /// A request whose length does not fit the prefix is refused.
    #[must_use]
    pub const fn prefixed(prefix: Prefix) -> Self {
        Self(Kind::Prefixed(prefix))
    }

    /// A netstring: the length in decimal digits, a colon, the request, a comma.
    #[must_use]
    pub const fn netstring() -> Self {
        Self(Kind::Netstring)
    }

    /// `Content-Length: N`, CRLF, CRLF, then the request, as for messages to language servers. Their replies
    /// [need more](super::ReplyFraming::content_length).
    #[must_use]
    pub const fn content_length() -> Self {
        Self(Kind::ContentLength)
    }

    /// The request unchanged: the worker must see from its bytes where it ends.
    ///
    /// For requests of several lines (`exiftool -stay_open`), for your own format, or if the end of stdin ends the only
    /// request.
    #[must_use]
    pub const fn raw() -> Self {
        Self(Kind::Raw)
    }

    /// Begins a request at the end of `out`. Append the body next.
    #[inline]
    pub fn open(&self, out: &mut Vec<u8>) {
        match self.0 {
            Kind::Delimited(_) | Kind::Netstring | Kind::ContentLength | Kind::Raw => {}
            Kind::RecordSeparator => record_separator::open(out),
            Kind::Prefixed(prefix) => prefix.open(out),
        }
    }

    /// Ends the request that was begun when `out` was `start` bytes long.
    ///
    /// # Errors
    ///
    /// If the body contains its own delimiter, or is too large for its length prefix. Then truncate `out` to `start`;
    /// everything before it is unchanged.
    ///
    /// # Panics
    ///
    /// If [`open`](Self::open) was not called when `out` was `start` bytes long.
    #[inline]
    pub fn close(&self, out: &mut Vec<u8>, start: usize) -> Result<(), FramingError> {
        match self.0 {
            Kind::Delimited(delimiter) => delimited::close(delimiter, out, start)?,
            Kind::RecordSeparator => record_separator::close(out, start)?,
            Kind::Prefixed(prefix) => prefix.close(out, start)?,
            Kind::Netstring => netstring::close(out, start),
            Kind::ContentLength => content_length::close(out, start),
            Kind::Raw => {}
        }
        Ok(())
    }

    /// The byte that ends each request and stands nowhere else in it, if that is all there is to it.
    pub(crate) const fn delimiter(&self) -> Option<u8> {
        match self.0 {
            Kind::Delimited(delimiter) => Some(delimiter),
            _ => None,
        }
    }

    /// Appends the request with this body: [`open`](Self::open), the body, [`close`](Self::close).
    #[inline]
    pub(crate) fn append(&self, body: &[u8], out: &mut Vec<u8>) -> Result<(), FramingError> {
        if let Kind::Delimited(delimiter) = self.0 {
            return delimited::append(delimiter, body, out);
        }
        let start = out.len();
        self.open(out);
        out.extend_from_slice(body);
        self.close(out, start)
    }
}

#[cfg(test)]
mod tests {
    use super::super::FramingErrorKind;
    use super::*;

    fn framed(framing: &RequestFraming, body: &[u8]) -> Result<Vec<u8>, FramingErrorKind> {
        let mut out = b"earlier\n".to_vec();
        let start = out.len();
        framing.open(&mut out);
        out.extend_from_slice(body);
        framing.close(&mut out, start).map_err(|e| e.kind())?;
        assert_eq!(&out[..start], b"earlier\n");
        Ok(out.split_off(start))
    }

    #[test]
    fn each_framing_writes_what_its_readers_expect() {
        for (framing, expected) in [
            (RequestFraming::default(), &b"a b\n"[..]),
            (RequestFraming::line(), b"a b\n"),
            (RequestFraming::delimited(0), b"a b\0"),
            (RequestFraming::record_separator(), b"\x1ea b\n"),
            (RequestFraming::prefixed(Prefix::u16_be()), b"\0\x03a b"),
            (RequestFraming::netstring(), b"3:a b,"),
            (RequestFraming::content_length(), b"Content-Length: 3\r\n\r\na b"),
            (RequestFraming::raw(), b"a b"),
        ] {
            assert_eq!(framed(&framing, b"a b"), Ok(expected.to_vec()), "{framing:?}");
        }
    }

    #[test]
    fn a_request_that_contains_its_delimiter_is_refused_where_it_stands() {
        let contains = |byte, at| Err(FramingErrorKind::ContainsDelimiter { byte, at });
        let line = RequestFraming::line();
        assert_eq!(framed(&line, b"\n"), contains(b'\n', 0));
        assert_eq!(framed(&line, b"abc\n"), contains(b'\n', 3));
        assert_eq!(framed(&line, b"a\0\r"), Ok(b"a\0\r\n".to_vec()));
        assert_eq!(framed(&RequestFraming::delimited(0), b"a\0"), contains(0, 1));
        let separator = RequestFraming::record_separator();
        assert_eq!(framed(&separator, b"[\x1e]"), contains(0x1e, 1));
        assert_eq!(framed(&separator, b"[\n]"), Ok(b"\x1e[\n]\n".to_vec()));
    }
}
