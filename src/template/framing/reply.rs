//! How replies are cut out of a worker's output.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bstr::BStr;

use super::block::Block;
use super::content_length::ContentLength;
use super::custom::Custom;
use super::delimited::Delimited;
use super::lines::Lines;
use super::marker::Marker;
use super::marks::Marks;
use super::netstring::Netstring;
use super::prefixed::Prefixed;
use super::record_separator::RecordSeparator;
use super::sized_header::{self, ReadSize, SizedHeader};
use super::until_eof::UntilEof;
use super::{Framing, Prefix, Sentinel};

/// How replies are cut out of a worker's stdout.
///
/// This is the description, cheap to clone; [`start`](Self::start) makes the scanner that does the
/// work for one session of a worker. The default is [`line`](Self::line).
///
/// Framings that count ([`line`](Self::line), [`delimited`](Self::delimited),
/// [`lines`](Self::lines), [`block`](Self::block) and the others that know nothing of packets) are as
/// sound as the tool: the first reply is taken for that to the first request. A tool that skips a
/// request, or answers one twice, shifts all that follows. Where a tool may do that,
/// [`sentinel`](Self::sentinel) is the way out.
///
/// # Examples
///
/// The bytes that have arrived, cut into replies:
///
/// ```
/// use subfeed::framing::{Place, ReplyFraming, Scan};
///
/// let framing = ReplyFraming::block();
/// let mut scanner = framing.start();
/// let mut input = &b"*\n\n& teh 1 0: the\n*\n\n& "[..];
/// let mut replies = Vec::new();
/// while let Scan::Complete { body, len } = scanner.scan(input, Place::new(0, 1024, false))? {
///     replies.push(&input[body]);
///     input = &input[len..];
/// }
/// assert_eq!(replies, [&b"*"[..], b"& teh 1 0: the\n*"]);
/// assert_eq!(input, b"& ");
/// # Ok::<(), subfeed::framing::FramingError>(())
/// ```
#[derive(Clone)]
pub struct ReplyFraming(Kind);

#[derive(Clone)]
enum Kind {
    Delimited(u8),
    Lines(usize),
    Block,
    Marker { marker: Arc<[u8]>, whole_line: bool },
    RecordSeparator,
    Prefixed(Prefix),
    Netstring,
    ContentLength,
    SizedHeader(Arc<ReadSize>),
    Sentinel(Sentinel),
    UntilEof,
    Custom(Arc<dyn Fn() -> Box<dyn Framing> + Send + Sync>),
}

impl Default for ReplyFraming {
    fn default() -> Self {
        Self::line()
    }
}

impl ReplyFraming {
    /// One line. The default.
    ///
    /// The line feed is taken off. A carriage return before it is part of the reply, as everything
    /// is that the tool says: take it off in `decode` if it is in the way. A last line without its
    /// line feed is half a reply, hence an error: nobody can tell it from one that was cut off.
    #[must_use]
    pub const fn line() -> Self {
        Self::delimited(b'\n')
    }

    /// The bytes before the next `delimiter`, such as NUL for `sed -z` and `grep -z`.
    #[must_use]
    pub const fn delimited(delimiter: u8) -> Self {
        Self(Kind::Delimited(delimiter))
    }

    /// A fixed number of lines.
    ///
    /// The body runs from the first line to the last: the line feeds between them are part of it, the
    /// last one is taken off. `lines(1)` is [`line`](Self::line).
    ///
    /// # Panics
    ///
    /// When `count` is 0. A tool that answers nothing has no replies to wait for; one that answers
    /// nothing *at times* needs a [`sentinel`](Self::sentinel).
    #[must_use]
    #[track_caller]
    pub const fn lines(count: usize) -> Self {
        assert!(count > 0, "a reply of 0 lines never arrives; see ReplyFraming::sentinel");
        Self(Kind::Lines(count))
    }

    /// Lines up to a blank one, as `hunspell -a` and `aspell -a` answer.
    ///
    /// A line is blank if it is empty or holds only a carriage return. It is taken off, and so is the
    /// line feed of the last line before it: the body is as in [`lines`](Self::lines). A blank line
    /// alone is an empty reply. A last block without its blank line is half a reply: tools that print
    /// blank lines *between* their blocks need another framing.
    #[must_use]
    pub const fn block() -> Self {
        Self(Kind::Block)
    }

    /// Everything before the next occurrence of `marker`, wherever it stands.
    ///
    /// The reply ends with exactly these bytes and the next one begins behind them. A marker on a
    /// line of its own therefore includes its line feed, as in `end_marker("{ready}\n")`, or that
    /// line feed begins the next reply. The line feed *before* the marker is part of the body, because
    /// a tool may end its reply without one.
    ///
    /// The marker must be something that no reply contains. Where that cannot be known, and the tool
    /// prints what it is told to, a [`sentinel`](Self::sentinel) is safer.
    ///
    /// # Panics
    ///
    /// When the marker is empty.
    #[must_use]
    #[track_caller]
    pub fn end_marker(marker: impl AsRef<[u8]>) -> Self {
        Self::marker(marker.as_ref(), false)
    }

    /// As [`end_marker`](Self::end_marker), and the rest of the marker's line is dropped with it.
    ///
    /// For markers whose end varies: after `-execute12` exiftool prints `{ready12}`, on Windows with a
    /// carriage return behind it, and `end_marker_line("{ready")` takes them all. The reply is
    /// complete when that line's line feed has arrived, or the output ends.
    ///
    /// # Panics
    ///
    /// When the marker is empty.
    #[must_use]
    #[track_caller]
    pub fn end_marker_line(marker: impl AsRef<[u8]>) -> Self {
        Self::marker(marker.as_ref(), true)
    }

    #[track_caller]
    fn marker(marker: &[u8], whole_line: bool) -> Self {
        assert!(!marker.is_empty(), "an empty end marker ends every reply before its first byte");
        Self(Kind::Marker { marker: marker.into(), whole_line })
    }

    /// A record separator (0x1e), a text on one line, a line feed: `jq --seq -c`, RFC 7464.
    ///
    /// Separator and line feed are taken off. A reply that begins with another byte, or in which the
    /// next separator comes before the line feed, is malformed. Pretty-printed texts, which span
    /// lines, cannot be told from their first line before the next reply arrives: have the tool print
    /// them on one line.
    #[must_use]
    pub const fn record_separator() -> Self {
        Self(Kind::RecordSeparator)
    }

    /// A length prefix, then as many bytes.
    #[must_use]
    pub const fn prefixed(prefix: Prefix) -> Self {
        Self(Kind::Prefixed(prefix))
    }

    /// A netstring: the length in decimal digits, a colon, the bytes, a comma.
    #[must_use]
    pub const fn netstring() -> Self {
        Self(Kind::Netstring)
    }

    /// Header lines, an empty line, then as many bytes as the header `Content-Length` says.
    ///
    /// Names of headers may be of any case, lines may end in CRLF or LF, other headers are ignored.
    /// The header section may be 16 KiB long.
    #[must_use]
    pub const fn content_length() -> Self {
        Self(Kind::ContentLength)
    }

    /// A header line that says how many bytes follow; those bytes; a line feed.
    ///
    /// `read_size` gets the header line without its line feed and says what follows: `Some(size)`
    /// bytes, even if 0, and a line feed behind them, or `None` for a header that stands alone. It is
    /// called once per reply, on the thread that drives the workers.
    ///
    /// The body is the header line and, where content follows, a line feed and that content, so that
    /// the consumer sees what it is; the last line feed is taken off. All of it counts against the
    /// reply limit.
    ///
    /// # Errors
    ///
    /// An error of `read_size` fails the reply with
    /// [`BadHeader`](super::FramingErrorKind::BadHeader).
    ///
    /// # Examples
    ///
    /// A tool that prints `ok 5` and five bytes, or `error` and a reason:
    ///
    /// ```
    /// use subfeed::framing::{Place, ReplyFraming, Scan};
    ///
    /// let framing = ReplyFraming::sized_header(|line| {
    ///     let line = std::str::from_utf8(line)?;
    ///     match line.split_once(' ') {
    ///         Some(("ok", size)) => Ok(Some(size.parse()?)),
    ///         Some(("error", _)) => Ok(None),
    ///         _ => Err(format!("what is {line:?}?").into()),
    ///     }
    /// });
    /// let mut scanner = framing.start();
    /// let input = b"ok 5\na\nb\nc\nerror no such key\n";
    /// let scan = scanner.scan(input, Place::new(0, 1024, false))?;
    /// assert_eq!(scan, Scan::Complete { body: 0..10, len: 11 });
    /// let scan = scanner.scan(&input[11..], Place::new(1, 1024, false))?;
    /// assert_eq!(scan, Scan::Complete { body: 0..17, len: 18 });
    /// # Ok::<(), subfeed::framing::FramingError>(())
    /// ```
    pub fn sized_header(
        read_size: impl Fn(&[u8]) -> Result<Option<usize>, Box<dyn Error + Send + Sync>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self(Kind::SizedHeader(Arc::new(read_size)))
    }

    /// The replies of `git cat-file --batch`, and of `contents` in `--batch-command`.
    ///
    /// The header's last word is the size (`<oid> <type> <size>`, and with `--follow-symlinks` also
    /// `dangling <size>` and the like), or says that there is nothing: `missing`, `ambiguous`,
    /// `submodule`, `excluded`. The body is as in [`sized_header`](Self::sized_header). For
    /// `--batch-check` and for `info`, which print the header alone, take [`line`](Self::line). Leave
    /// `--buffer` out: with it, git answers one request late.
    ///
    /// # Examples
    ///
    /// ```
    /// use subfeed::framing::{Place, ReplyFraming, Scan};
    ///
    /// let mut scanner = ReplyFraming::git_batch().start();
    /// let input = b"45b983be36b73c0788dc9cbcb76cbb80fc7bb057 blob 3\nhi\n\n";
    /// let Scan::Complete { body, .. } = scanner.scan(input, Place::new(0, 1024, false))? else {
    ///     panic!("the object is whole");
    /// };
    /// let reply = &input[body];
    /// let header = reply.iter().position(|&byte| byte == b'\n').unwrap();
    /// assert_eq!(&reply[header + 1..], b"hi\n");
    /// # Ok::<(), subfeed::framing::FramingError>(())
    /// ```
    #[must_use]
    pub fn git_batch() -> Self {
        Self::sized_header(sized_header::git_batch)
    }

    /// Everything before a mark that a sync command, written after each request, makes the tool
    /// print.
    ///
    /// [`Sentinel`] says how that works and what it asks of the tool.
    #[must_use]
    pub const fn sentinel(sentinel: Sentinel) -> Self {
        Self(Kind::Sentinel(sentinel))
    }

    /// The whole output of the process, which therefore serves one packet: `sort`, `gzip`.
    ///
    /// No output at all is an empty reply. A process that is killed or exits with another status than
    /// 0 has not answered, whatever it wrote: half an output looks just like a whole one.
    #[must_use]
    pub const fn until_eof() -> Self {
        Self(Kind::UntilEof)
    }

    /// A framing of one's own: `start` makes a fresh scanner for each session of a worker.
    ///
    /// See [`Framing`] for the contract and an example.
    pub fn custom(start: impl Fn() -> Box<dyn Framing> + Send + Sync + 'static) -> Self {
        Self(Kind::Custom(Arc::new(start)))
    }

    /// A fresh scanner, for one session of a worker.
    #[must_use]
    pub fn start(&self) -> Box<dyn Framing> {
        match &self.0 {
            Kind::Delimited(delimiter) => Box::new(Delimited::new(*delimiter)),
            Kind::Lines(count) => Box::new(Lines::new(*count)),
            Kind::Block => Box::new(Block::default()),
            Kind::Marker { marker, whole_line } => Box::new(Marker::new(marker, *whole_line)),
            Kind::RecordSeparator => Box::new(RecordSeparator::default()),
            Kind::Prefixed(prefix) => Box::new(Prefixed(*prefix)),
            Kind::Netstring => Box::new(Netstring),
            Kind::ContentLength => Box::new(ContentLength::default()),
            Kind::SizedHeader(read_size) => Box::new(SizedHeader::new(Arc::clone(read_size))),
            Kind::Sentinel(sentinel) => Box::new(Marks::new(sentinel)),
            Kind::UntilEof => Box::new(UntilEof),
            Kind::Custom(start) => Box::new(Custom(start())),
        }
    }

    /// Whether a reply is the whole output of one process.
    #[must_use]
    pub const fn is_until_eof(&self) -> bool {
        matches!(self.0, Kind::UntilEof)
    }

    /// The sentinel whose sync command must follow each request, if there is one.
    #[must_use]
    pub const fn as_sentinel(&self) -> Option<&Sentinel> {
        match &self.0 {
            Kind::Sentinel(sentinel) => Some(sentinel),
            _ => None,
        }
    }

    /// The same, to [renew](Sentinel::renew) it when a feed starts.
    pub const fn as_sentinel_mut(&mut self) -> Option<&mut Sentinel> {
        match &mut self.0 {
            Kind::Sentinel(sentinel) => Some(sentinel),
            _ => None,
        }
    }
}

impl fmt::Debug for ReplyFraming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Delimited(delimiter) => write!(f, "Delimited(0x{delimiter:02x})"),
            Kind::Lines(count) => f.debug_tuple("Lines").field(count).finish(),
            Kind::Block => f.write_str("Block"),
            Kind::Marker { marker, whole_line } => f
                .debug_struct("Marker")
                .field("marker", &BStr::new(marker))
                .field("whole_line", whole_line)
                .finish(),
            Kind::RecordSeparator => f.write_str("RecordSeparator"),
            Kind::Prefixed(prefix) => f.debug_tuple("Prefixed").field(prefix).finish(),
            Kind::Netstring => f.write_str("Netstring"),
            Kind::ContentLength => f.write_str("ContentLength"),
            Kind::SizedHeader(_) => f.write_str("SizedHeader(..)"),
            Kind::Sentinel(sentinel) => sentinel.fmt(f),
            Kind::UntilEof => f.write_str("UntilEof"),
            Kind::Custom(_) => f.write_str("Custom(..)"),
        }
    }
}
