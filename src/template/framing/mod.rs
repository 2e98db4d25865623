//! How one request is written to a worker, and where its reply ends in what comes back.
//!
//! A pipe carries bytes, not records. Somebody must say where one record ends and the next begins,
//! and real tools say it differently on their two sides: `git cat-file --batch` reads lines and
//! answers with a header that holds a size; `hunspell -a` reads lines and answers with blocks that
//! a blank line ends; `sqlite3` reads statements and answers with nothing, one row or a thousand.
//! So requests and replies are framed apart, [`RequestFraming`] on the way down and
//! [`ReplyFraming`] on the way back, and any pair may be combined.
//!
//! | the tool speaks | requests | replies |
//! |---|---|---|
//! | line in, line out (`bc -q`, `sed -u`, `git cat-file --batch-check`) | [`RequestFraming::line`] | [`ReplyFraming::line`] |
//! | NUL in, NUL out (`sed -z -u`, `grep -z --line-buffered`) | [`RequestFraming::delimited`] | [`ReplyFraming::delimited`] |
//! | a fixed number of lines | any | [`ReplyFraming::lines`] |
//! | lines up to a blank line (`hunspell -a`, `aspell -a`) | line | [`ReplyFraming::block`] |
//! | text up to a fixed marker (`exiftool -stay_open`) | raw | [`ReplyFraming::end_marker`], [`ReplyFraming::end_marker_line`] |
//! | a size in a header line (`git cat-file --batch`) | line | [`ReplyFraming::git_batch`], [`ReplyFraming::sized_header`] |
//! | JSON text sequences (`jq --seq -c`) | [`RequestFraming::record_separator`] | [`ReplyFraming::record_separator`] |
//! | binary records with a length in front | [`RequestFraming::prefixed`] | [`ReplyFraming::prefixed`] |
//! | netstrings | [`RequestFraming::netstring`] | [`ReplyFraming::netstring`] |
//! | `Content-Length` headers (language servers) | [`RequestFraming::content_length`] | [`ReplyFraming::content_length`] |
//! | nothing of the kind: a read-eval-print loop (`sqlite3`, `psql`, `z3 -in`, `python3 -i`) | line | [`ReplyFraming::sentinel`] |
//! | one answer per process (`sort`, `gzip`) | raw | [`ReplyFraming::until_eof`] |
//! | something else | [`RequestFraming::raw`] | [`ReplyFraming::custom`] |
//!
//! # What holds for every reply framing
//!
//! - **Reads do not matter.** However the bytes are split into reads, the replies are the same.
//! - **Half a reply is never a reply.** Output that ends inside one is an error
//!   ([`FramingErrorKind::Truncated`]), even where the missing part is a single line feed: a worker
//!   that was killed while it wrote looks just like one that forgot the last byte.
//! - **A size that a worker announces is only compared, never allocated.** What passes the limit
//!   ([`Place::limit`]) is an error as soon as it is known.
//! - **Bytes are bytes.** Nothing is decoded, trimmed or converted; a carriage return before a line
//!   feed stays in the reply.
//! - **The work is linear.** A reply that trickles in byte by byte costs what it costs in one piece.
//!
//! Everything here is free of I/O: bytes in, ranges out.

mod block;
mod content_length;
mod delimited;
mod error;
mod lines;
mod marker;
mod netstring;
mod prefixed;
mod record_separator;
mod reply;
mod request;
mod sentinel;
mod sized_header;
mod until_eof;

use std::ops::Range;

pub use self::error::{FramingError, FramingErrorKind};
pub use self::prefixed::Prefix;
pub use self::reply::ReplyFraming;
pub use self::request::RequestFraming;
pub use self::sentinel::Sentinel;

/// Finds where replies end in the output of one life of a worker.
///
/// This is the trait behind every [`ReplyFraming`], and the one to implement for a format that none
/// of them covers; [`ReplyFraming::custom`] takes it. One value serves one life of a worker: it sees
/// that life's output in order and may carry state from one reply to the next.
///
/// # The contract
///
/// The caller keeps the bytes that have arrived and not been taken, and calls [`scan`](Self::scan)
/// with all of them:
///
/// - `input[0]` is the first byte of a reply. After [`Scan::Partial`] the next call passes the same
///   bytes, followed by those that have arrived since (none, when only [`Place::eof`] has changed).
/// - After [`Scan::Complete`] the caller drops `len` bytes and the next call begins a fresh reply.
///   So it does after an error, although a worker is seldom used any further then.
/// - With `eof` set no more bytes will follow, so that `Partial` makes no sense any more; a caller
///   takes it for a truncated reply. At the end of the output a caller asks only while bytes are left
///   (until-EOF framing excepted, where no bytes at all are an empty reply).
///
/// A scanner should remember how far it has looked. One that starts again at `input[0]` takes
/// quadratic time on a large reply that arrives in small reads.
///
/// # Panics
///
/// A panic inside `scan` is caught by the feed and resumed on the thread that consumes the replies.
///
/// # Examples
///
/// Replies that end in a semicolon outside double quotes:
///
/// ```
/// use subfeed::framing::{Framing, FramingError, FramingErrorKind, Place, ReplyFraming, Scan};
///
/// #[derive(Default)]
/// struct Statements {
///     seen: usize,
///     quoted: bool,
/// }
///
/// impl Framing for Statements {
///     fn scan(&mut self, input: &[u8], place: Place) -> Result<Scan, FramingError> {
///         for (at, &byte) in input.iter().enumerate().skip(self.seen) {
///             match byte {
///                 b'"' => self.quoted = !self.quoted,
///                 b';' if !self.quoted => {
///                     *self = Self::default();
///                     return Ok(Scan::Complete { body: 0..at, len: at + 1 });
///                 }
///                 _ => {}
///             }
///         }
///         self.seen = input.len();
///         if place.eof {
///             return Err(FramingErrorKind::Truncated.into());
///         }
///         Ok(Scan::Partial)
///     }
/// }
///
/// let framing = ReplyFraming::custom(|| Box::new(Statements::default()));
/// let mut scanner = framing.start();
/// let input = br#"a ";" b; c"#;
/// let scan = scanner.scan(input, Place::new(0, 1024, false))?;
/// assert_eq!(scan, Scan::Complete { body: 0..7, len: 8 });
/// # Ok::<(), FramingError>(())
/// ```
pub trait Framing: Send {
    /// Looks for the end of the reply that begins at `input[0]`.
    ///
    /// [The contract](Self#the-contract) says how calls follow each other.
    ///
    /// # Errors
    ///
    /// When the bytes cannot be a reply, when the reply passes [`Place::limit`], or when the output
    /// ends inside it. The packet that the reply was for fails with that error, and the worker's life
    /// ends, because nobody can tell where its next reply would begin.
    fn scan(&mut self, input: &[u8], place: Place) -> Result<Scan, FramingError>;

    /// `Some(d)` if a reply is exactly the bytes before the next byte `d`.
    ///
    /// This lets the caller cut a whole buffer of replies in one pass instead of calling
    /// [`scan`](Self::scan) for each. Such a caller applies [`Place::limit`] itself. The answer must
    /// not change during a life, and a scanner that gives one must carry no state from one reply to
    /// the next. The default is `None`.
    fn delimiter(&self) -> Option<u8> {
        None
    }
}

/// Where a scan stands: what [`Framing::scan`] must know beyond the bytes.
///
/// # Examples
///
/// ```
/// use subfeed::framing::Place;
///
/// let place = Place::new(7, 64 << 20, false);
/// assert_eq!((place.packet, place.limit, place.eof), (7, 64 << 20, false));
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Place {
    /// The id of the packet that this reply answers.
    pub packet: u64,
    /// The largest body that is allowed, in bytes. A body of exactly this size is still good.
    pub limit: usize,
    /// No more bytes will follow: the worker has closed its output.
    pub eof: bool,
}

impl Place {
    /// A place in the output, for those who call a scanner themselves, such as tests.
    #[must_use]
    pub const fn new(packet: u64, limit: usize, eof: bool) -> Self {
        Self { packet, limit, eof }
    }
}

/// What a scan has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The reply has not ended yet: more bytes are needed.
    Partial,
    /// The reply is complete.
    Complete {
        /// Where the reply itself lies in the input, without its framing.
        body: Range<usize>,
        /// How many bytes of input it takes, framing included; never less than `body.end`.
        len: usize,
    },
}

/// What a scanner says that has found no end: `least` is the smallest body that is still possible.
///
/// A scanner calls this only after it has looked at every byte, so that the answer depends on what
/// has arrived and not on the reads in which it came.
fn unfinished(least: usize, place: Place) -> Result<Scan, FramingError> {
    if least > place.limit {
        Err(FramingError::reply_too_long(place.limit as u64 + 1, place.limit))
    } else if place.eof {
        Err(FramingErrorKind::Truncated.into())
    } else {
        Ok(Scan::Partial)
    }
}

/// The complete reply `body`, which takes `len` bytes, unless it is longer than allowed.
///
/// `size` is what counts against the limit, in most framings the length of the body.
fn complete(
    body: Range<usize>,
    len: usize,
    size: usize,
    place: Place,
) -> Result<Scan, FramingError> {
    if size > place.limit {
        // The same words as in `unfinished`: whether the end has come yet is an accident of reads.
        return Err(FramingError::reply_too_long(place.limit as u64 + 1, place.limit));
    }
    Ok(Scan::Complete { body, len })
}

/// A reply whose size was announced: `head` bytes in front, `size` bytes of body, then `tail` bytes.
///
/// Nothing is ever allocated by `size`; it may be any number a worker cares to print.
fn announced(
    input: &[u8],
    head: usize,
    size: u64,
    tail: &[u8],
    place: Place,
) -> Result<Scan, FramingError> {
    let fits = usize::try_from(size).ok().filter(|&size| size <= place.limit);
    let ends = fits.and_then(|size| {
        let body_end = head.checked_add(size)?;
        Some((body_end, body_end.checked_add(tail.len())?))
    });
    let Some((body_end, len)) = ends else {
        return Err(FramingError::reply_too_long(size, place.limit));
    };
    match input.get(body_end..len) {
        Some(found) if found == tail => Ok(Scan::Complete { body: head..body_end, len }),
        Some(found) => Err(FramingError::new(
            FramingErrorKind::ReplyMalformed,
            format!(
                "the {size} bytes that were announced are followed by {:?} instead of {:?}",
                bstr::BStr::new(found),
                bstr::BStr::new(tail),
            ),
        )),
        None => unfinished(0, place),
    }
}

/// A decimal number of one digit or more, and nothing else. What does not fit is `u64::MAX`, which
/// passes every limit.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let value = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(value))
    })
}

/// Puts `head` in front of the body that begins at `start`, for framings whose header depends on it.
fn insert(out: &mut Vec<u8>, start: usize, head: &[u8]) {
    let end = out.len();
    out.resize(end + head.len(), 0);
    out.copy_within(start..end, start + head.len());
    out[start..start + head.len()].copy_from_slice(head);
}

#[cfg(test)]
pub(crate) mod testing {
    use super::{Framing, FramingErrorKind, Place, Scan};

    /// One scan of `input`, as body and length, or the kind of error.
    pub(crate) fn scan(
        framing: &mut dyn Framing,
        input: &[u8],
        limit: usize,
        eof: bool,
    ) -> Result<Option<(Vec<u8>, usize)>, FramingErrorKind> {
        match framing.scan(input, Place::new(0, limit, eof)) {
            Ok(Scan::Partial) => Ok(None),
            Ok(Scan::Complete { body, len }) => Ok(Some((input[body].to_vec(), len))),
            Err(error) => Err(error.kind()),
        }
    }

    /// The reply at the start of `input` when its bytes come one by one, and how many it took.
    pub(crate) fn trickle(
        framing: &mut dyn Framing,
        input: &[u8],
        limit: usize,
    ) -> Result<Option<(Vec<u8>, usize)>, FramingErrorKind> {
        for end in 1..=input.len() {
            let found = scan(framing, &input[..end], limit, false)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_takes_digits_only_and_saturates() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"0042"), Some(42));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(decimal(b"18446744073709551616"), Some(u64::MAX));
        assert_eq!(decimal(b"99999999999999999999999999"), Some(u64::MAX));
        for bad in [&b""[..], b"+5", b"-1", b" 1", b"1 ", b"1_0", b"0x1"] {
            assert_eq!(decimal(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn insert_moves_the_body_up() {
        let mut out = b"before|body".to_vec();
        insert(&mut out, 7, b"4:");
        assert_eq!(out, b"before|4:body");
        insert(&mut out, 13, b"!");
        assert_eq!(out, b"before|4:body!");
    }

    #[test]
    fn an_announced_size_that_overflows_an_address_is_too_long_even_without_a_limit() {
        let error = announced(b"", 8, usize::MAX as u64, b"", Place::new(0, usize::MAX, false));
        assert!(matches!(error.unwrap_err().kind(), FramingErrorKind::TooLong { .. }));
    }
}
