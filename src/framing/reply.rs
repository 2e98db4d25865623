//! How replies are cut out of a worker's output.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bstr::BStr;

use super::block::Block;
use super::content_length::ContentLength;
use super::custom::Custom;
use super::delimited::Delimited;
use super::end_line::{EndLine, Ends};
use super::fields::Fields;
use super::fixed_size::FixedSize;
use super::invalid::Invalid;
use super::marker::Marker;
use super::netstring::Netstring;
use super::prefixed::Prefixed;
use super::record_separator::RecordSeparator;
use super::sized_header::{self, ReadSize, SizedHeader};
use super::skipping::{IsNoReply, Skipping};
use super::until_eof::UntilEof;
use super::{Framing, Prefix, Sentinel};

/// How replies are cut out of a worker's stdout.
///
/// This is the description, cheap to clone; [`start`](Self::start) makes the scanner that does the
/// work for one session of a worker. The default is [`line`](Self::line).
///
/// # Which one
///
/// | a reply is | framing | what proves that it is this request's |
/// |---|---|---|
/// | one line | [`line`](Self::line) | the count |
/// | the bytes before a byte, such as NUL | [`delimited`](Self::delimited) | the count |
/// | k lines | [`lines`](Self::lines) | the count |
/// | k fields, each ended by a byte (`git check-ignore -z -v`: four) | [`fields`](Self::fields) | the count |
/// | lines up to a blank one, or k such blocks | [`block`](Self::block), [`blocks`](Self::blocks) | the count |
/// | lines through one that ends it (`bestmove ...`, `OK` or `ERR`) | [`end_line`](Self::end_line), [`end_line_where`](Self::end_line_where) | the count |
/// | text up to a fixed marker (`{ready}`) | [`end_marker`](Self::end_marker), [`end_marker_line`](Self::end_marker_line) | the count |
/// | n bytes | [`fixed_size`](Self::fixed_size) | the count |
/// | as many bytes as a length, or a header line, says | [`prefixed`](Self::prefixed), [`netstring`](Self::netstring), [`content_length`](Self::content_length), [`sized_header`](Self::sized_header), [`git_batch`](Self::git_batch) | the count |
/// | a JSON text of a sequence (RFC 7464) | [`record_separator`](Self::record_separator) | the count |
/// | everything before a mark that the tool is told to print | [`sentinel`](Self::sentinel) | the packet's own mark |
/// | everything that one process prints | [`until_eof`](Self::until_eof) | the process has only this request |
/// | any of these, among records that are not replies | [`skipping`](Self::skipping) | as for that framing |
/// | something else | [`custom`](Self::custom) | depends on your framing |
///
/// # What counting asks of the tool
///
/// A framing that counts takes the first reply for that to the first request, the second for that to the second, and so
/// on. If the tool skips a request, answers one twice or prints a line of its own, all later replies are shifted. One
/// reply too many or too few is noticed when the session ends, unless one of each cancel out. If the tool answers *out of
/// order*, with ids in its replies, packets get the replies of others, and nothing shows it: a language server answers an
/// unknown method before an earlier hover. For such tools:
///
/// - Make the tool print a mark after each reply: [`sentinel`](Self::sentinel). This does not help with tools that
///   [read on before they have answered](Sentinel#what-no-mark-can-tell).
/// - Keep one request in flight per worker ([`in_flight(1)`](crate::Template::in_flight)). A reply can then not belong to
///   another request, unless the tool prints too much. This is the sound way for replies with ids.
/// - Compare each reply with its request: [`Template::check`](crate::Template::check).
///
/// # Bad input
///
/// A description that cannot work, such as 0 lines, an empty marker or a size over
/// [`reply_limit`](crate::Template::reply_limit), is a configuration error when the feed starts, and an
/// error of each scan where a scanner is used without a feed.
///
/// # Examples
///
/// The bytes that have arrived, cut into replies:
///
/// ```
/// use subfeed::framing::{Position, ReplyFraming, Scan};
///
/// let framing = ReplyFraming::block();
/// let mut scanner = framing.start();
/// let mut input = &b"*\n\n& teh 1 0: the\n*\n\n& "[..];
/// let mut replies = Vec::new();
/// while let Scan::Complete { body, len } = scanner.scan(input, Position::new(0, 1024, false))? {
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
    Fields { delimiter: u8, count: usize },
    Blocks(usize),
    FixedSize(usize),
    EndLine(Ends),
    Marker { marker: Arc<[u8]>, whole_line: bool },
    RecordSeparator,
    Prefixed(Prefix),
    Netstring,
    ContentLength,
    SizedHeader(Arc<ReadSize>),
    Sentinel(Sentinel),
    UntilEof,
    Skipping { inner: Box<ReplyFraming>, is_no_reply: Arc<IsNoReply> },
    Custom(Arc<dyn Fn() -> Box<dyn Framing> + Send + Sync>),
}

impl Default for ReplyFraming {
    fn default() -> Self {
        Self::line()
    }
}

/// [`ReplyFraming::sentinel`], so that `Template::replies(Sentinel::new(...))` will do.
impl From<Sentinel> for ReplyFraming {
    fn from(sentinel: Sentinel) -> Self {
        Self::sentinel(sentinel)
    }
}

impl ReplyFraming {
    /// One line. The default.
    ///
    /// The line feed is removed. A carriage return before it is part of the reply; remove it in `decode` if necessary. A
    /// last line without a line feed is an incomplete reply, and so an error, because it could be truncated.
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
    /// # Errors
    ///
    /// A `count` of 0, or of more lines than fit into the reply limit even if they are empty, is a
    /// configuration error when the feed starts. For a tool that *sometimes* answers nothing, use a
    /// [`sentinel`](Self::sentinel).
    #[must_use]
    pub const fn lines(count: usize) -> Self {
        Self::fields(b'\n', count)
    }

    /// A fixed number of fields, each ended by the byte `delimiter`.
    ///
    /// The body runs from the first field to the last: the delimiters between them are part of it, the
    /// last one is taken off. Split it at the delimiter and there are `count` pieces, of which any may be
    /// empty. `fields(b'\n', k)` is [`lines(k)`](Self::lines).
    ///
    /// # Errors
    ///
    /// A `count` of 0, or of more fields than fit into the reply limit even if they are empty, is a
    /// configuration error when the feed starts. Output that ends within a reply is
    /// [`Truncated`](super::FramingErrorKind::Truncated).
    ///
    /// # Examples
    ///
    /// `git check-ignore -z -v -n --stdin` answers each path with source, line number, pattern and path:
    ///
    /// ```
    /// use subfeed::framing::{Position, ReplyFraming, Scan};
    ///
    /// let mut scanner = ReplyFraming::fields(0, 4).start();
    /// let input = b".gitignore\x001\0*.o\0main.o\0\0\0\0main.c\0";
    /// let Scan::Complete { body, len } = scanner.scan(input, Position::new(0, 1024, false))? else {
    ///     panic!("the reply is whole");
    /// };
    /// let fields: Vec<&[u8]> = input[body].split(|&byte| byte == 0).collect();
    /// assert_eq!(fields, [&b".gitignore"[..], b"1", b"*.o", b"main.o"]);
    /// assert_eq!(scanner.scan(&input[len..], Position::new(1, 1024, false))?, Scan::Complete { body: 0..9, len: 10 });
    /// # Ok::<(), subfeed::framing::FramingError>(())
    /// ```
    #[must_use]
    pub const fn fields(delimiter: u8, count: usize) -> Self {
        Self(Kind::Fields { delimiter, count })
    }

    /// A fixed number of bytes, such as the frames of a raw video.
    ///
    /// All of them are the body; they may be any bytes. Only the size marks the end of a reply, so one byte too many, such
    /// as the line feed of a warning on stdout, shifts every reply after it.
    ///
    /// # Errors
    ///
    /// A `size` of 0, or over the reply limit (64 MiB unless
    /// [`reply_limit`](crate::Template::reply_limit) says otherwise), is a configuration error when the
    /// feed starts. Output that ends within a reply is
    /// [`Truncated`](super::FramingErrorKind::Truncated).
    ///
    /// # Examples
    ///
    /// ```
    /// use subfeed::framing::{Position, ReplyFraming, Scan};
    ///
    /// let (width, height) = (2, 3);
    /// let mut scanner = ReplyFraming::fixed_size(width * height).start();
    /// let scan = scanner.scan(b"ab\ncd\nef", Position::new(0, 1024, false))?;
    /// assert_eq!(scan, Scan::Complete { body: 0..6, len: 6 });
    /// # Ok::<(), subfeed::framing::FramingError>(())
    /// ```
    #[must_use]
    pub const fn fixed_size(size: usize) -> Self {
        Self(Kind::FixedSize(size))
    }

    /// Lines up to a blank one, as `hunspell -a` and `aspell -a` answer.
    ///
    /// A line is blank if it is empty or holds only a carriage return. It is taken off, and so is the
    /// line feed of the last line before it: the body is as in [`lines`](Self::lines). A blank line
    /// alone is an empty reply. A last block without its blank line is half a reply: tools that print
    /// blank lines *between* their blocks need another framing.
    #[must_use]
    pub const fn block() -> Self {
        Self::blocks(1)
    }

    /// A fixed number of [blocks](Self::block), each of them lines up to a blank one.
    ///
    /// The body runs from the first line of the first block to the last line of the last: the blank lines
    /// between them are part of it, the last one is taken off, with the line feed before it.
    /// `blocks(1)` is [`block`](Self::block).
    ///
    /// # Errors
    ///
    /// A `count` of 0, or of more blocks than fit into the reply limit even if they are empty, is a
    /// configuration error when the feed starts. Output that ends within a reply is
    /// [`Truncated`](super::FramingErrorKind::Truncated).
    ///
    /// # Examples
    ///
    /// ```
    /// use subfeed::framing::{Position, ReplyFraming, Scan};
    ///
    /// let mut scanner = ReplyFraming::blocks(2).start();
    /// let input = b"head\n\nbody\nmore\n\nnext";
    /// let Scan::Complete { body, len } = scanner.scan(input, Position::new(0, 1024, false))? else {
    ///     panic!("the reply is whole");
    /// };
    /// assert_eq!((&input[body], &input[len..]), (&b"head\n\nbody\nmore"[..], &b"next"[..]));
    /// # Ok::<(), subfeed::framing::FramingError>(())
    /// ```
    #[must_use]
    pub const fn blocks(count: usize) -> Self {
        Self(Kind::Blocks(count))
    }

    /// Lines through one that begins with one of these words, which ends the reply and belongs to it.
    ///
    /// A UCI engine prints any number of `info ...` lines and then `bestmove e2e4`:
    /// `end_line(["bestmove"])`. Where there is a good end and a bad one, give both:
    /// `end_line(["completed", "error"])`.
    ///
    /// The body runs from the first line to the end line; the line feeds between them are part of it, the
    /// last one is removed. A reply may be the end line alone. Only the beginning of a line counts: a word in its middle, or
    /// after a space, ends nothing. `OK` also ends a reply at the line `OKAY`; if that may occur, use
    /// [`end_line_where`](Self::end_line_where). No other line of a reply may begin like this. If the tool can print a text
    /// that it is told to print, a [`sentinel`](Self::sentinel) is safer.
    ///
    /// # Errors
    ///
    /// No word at all, an empty one, one with a line feed in it, and one that is longer than the reply limit
    /// are configuration errors when the feed starts. A reply whose lines, the end line included, pass the
    /// limit is [`TooLong`](super::FramingErrorKind::TooLong), and output that ends before the end line's
    /// line feed is [`Truncated`](super::FramingErrorKind::Truncated).
    ///
    /// # Examples
    ///
    /// ```
    /// use subfeed::framing::{Position, ReplyFraming, Scan};
    ///
    /// let mut scanner = ReplyFraming::end_line(["bestmove"]).start();
    /// let input = b"info depth 1 score cp 13\nbestmove e2e4 ponder e7e5\n";
    /// let scan = scanner.scan(input, Position::new(0, 1024, false))?;
    /// assert_eq!(scan, Scan::Complete { body: 0..50, len: 51 });
    /// # Ok::<(), subfeed::framing::FramingError>(())
    /// ```
    #[must_use]
    pub fn end_line<W: AsRef<[u8]>>(words: impl IntoIterator<Item = W>) -> Self {
        let words = words.into_iter().map(|word| word.as_ref().into());
        Self(Kind::EndLine(Ends::Begin(words.collect())))
    }

    /// Lines through one for which `is_end` is true, which ends the reply and belongs to it.
    ///
    /// `is_end` is called once for each line, without its line feed but with a carriage return if there is one. It runs on
    /// the event loop's thread; if it panics, the feed's `next()` panics. The body is as in [`end_line`](Self::end_line),
    /// and so are limit and errors.
    ///
    /// # Examples
    ///
    /// A tool that ends each reply with a line that is just `OK`, or `ERR` and a number:
    ///
    /// ```
    /// use subfeed::framing::{Position, ReplyFraming, Scan};
    ///
    /// let framing = ReplyFraming::end_line_where(|line| line == b"OK" || line.starts_with(b"ERR "));
    /// let mut scanner = framing.start();
    /// let input = b"OKAY, that is\nOK\n";
    /// let scan = scanner.scan(input, Position::new(0, 1024, false))?;
    /// assert_eq!(scan, Scan::Complete { body: 0..16, len: 17 });
    /// # Ok::<(), subfeed::framing::FramingError>(())
    /// ```
    pub fn end_line_where(is_end: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> Self {
        Self(Kind::EndLine(Ends::Where(Arc::new(is_end))))
    }

    /// Everything before the next occurrence of `marker`, wherever it stands.
    ///
    /// The reply ends with exactly these bytes and the next one begins behind them. A marker on a
    /// line of its own therefore includes its line feed, as in `end_marker("{ready}\n")`, or that
    /// line feed begins the next reply. The line feed *before* the marker is part of the body, because
    /// a tool may end its reply without one.
    ///
    /// No reply may contain the marker. If that is not certain, and the tool can print a text that it is told to print, a
    /// [`sentinel`](Self::sentinel) is safer.
    ///
    /// # Errors
    ///
    /// An empty marker is a configuration error when the feed starts.
    #[must_use]
    pub fn end_marker(marker: impl AsRef<[u8]>) -> Self {
        Self::marker(marker.as_ref(), false)
    }

    /// As [`end_marker`](Self::end_marker), and the rest of the marker's line is dropped with it.
    ///
    /// For markers whose end varies: after `-execute12` exiftool prints `{ready12}`, on Windows with a
    /// carriage return behind it, and `end_marker_line("{ready")` takes them all. The reply is
    /// complete when that line's line feed has arrived, or the output ends.
    ///
    /// # Errors
    ///
    /// A marker that is empty, or ends with a line feed, is a configuration error when the feed starts.
    #[must_use]
    pub fn end_marker_line(marker: impl AsRef<[u8]>) -> Self {
        Self::marker(marker.as_ref(), true)
    }

    fn marker(marker: &[u8], whole_line: bool) -> Self {
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
    ///
    /// This frames the messages of language servers and debug adapters. It does not make them replies: such a server also
    /// sends notifications and requests, which must be [skipped](Self::skipping), and may answer out of order, with ids, so
    /// that one request at a time ([`in_flight(1)`](crate::Template::in_flight)) is the sound way to feed it.
    #[must_use]
    pub const fn content_length() -> Self {
        Self(Kind::ContentLength)
    }

    /// A header line that says how many bytes follow; those bytes; a line feed.
    ///
    /// `read_size` gets the header line without its line feed and says what follows: `Some(size)` for that many bytes
    /// (even 0) and a line feed after them, or `None` for a header that stands alone. It is called once per reply, on the
    /// event loop's thread.
    ///
    /// The body is the header line and, where content follows, a line feed and that content, so that
    /// the consumer sees what it is; the last line feed is taken off.
    /// [`Reply::split_header`](crate::Reply::split_header) takes the two apart. All of it counts against the
    /// reply limit.
    ///
    /// # Errors
    ///
    /// If `read_size` fails, the reply is an error of kind [`BadHeader`](super::FramingErrorKind::BadHeader), with its error
    /// as the cause.
    ///
    /// # Examples
    ///
    /// A tool that prints `ok 5` and five bytes, or `error` and a reason:
    ///
    /// ```
    /// use subfeed::framing::{Position, ReplyFraming, Scan};
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
    /// let scan = scanner.scan(input, Position::new(0, 1024, false))?;
    /// assert_eq!(scan, Scan::Complete { body: 0..10, len: 11 });
    /// let scan = scanner.scan(&input[11..], Position::new(1, 1024, false))?;
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
    /// The header's last word is the size (`<oid> <type> <size>`, and with `--follow-symlinks` also `dangling <size>` and
    /// the like), or says that there is no content: `missing`, `ambiguous`, `submodule`, `excluded`. The body is as in
    /// [`sized_header`](Self::sized_header). For `--batch-check` and for `info`, which print only the header, use
    /// [`line`](Self::line). Do not use `--buffer`: with it, git answers one request late.
    ///
    /// # Examples
    ///
    /// ```
    /// use subfeed::framing::{Position, ReplyFraming, Scan};
    ///
    /// let mut scanner = ReplyFraming::git_batch().start();
    /// let input = b"45b983be36b73c0788dc9cbcb76cbb80fc7bb057 blob 3\nhi\n\n";
    /// let Scan::Complete { body, .. } = scanner.scan(input, Position::new(0, 1024, false))? else {
    ///     panic!("the object is whole");
    /// };
    /// assert!(input[body].ends_with(b" blob 3\nhi\n"));
    /// # Ok::<(), subfeed::framing::FramingError>(())
    /// ```
    #[must_use]
    pub fn git_batch() -> Self {
        Self::sized_header(sized_header::git_batch)
    }

    /// Everything before a mark. A sync command, which is written after each request, makes the tool print the mark.
    ///
    /// [`Sentinel`] says how that works, what the tool must do, and
    /// [what a sentinel cannot detect](Sentinel#what-no-mark-can-tell).
    #[must_use]
    pub const fn sentinel(sentinel: Sentinel) -> Self {
        Self(Kind::Sentinel(sentinel))
    }

    /// The whole output of the process, which then serves only one packet: `sort`, `gzip`.
    ///
    /// No output at all is an empty reply. If the process is killed or exits with a status other than 0, its output is not a
    /// reply, because it may be incomplete; see [`Template::accept_status`](crate::Template::accept_status).
    #[must_use]
    pub const fn until_eof() -> Self {
        Self(Kind::UntilEof)
    }

    /// The same framing for output that also contains records that are not replies, such as log lines, notifications or
    /// progress. These are skipped.
    ///
    /// `is_no_reply` gets each record without its framing, on the event loop's thread, and returns whether to skip it. It
    /// must be able to decide from the record alone. It does not help with replies that come out of order.
    ///
    /// # Limits
    ///
    /// Each record may have as many bytes as a reply. Skipped records are kept until the next reply has come, even while
    /// none is expected; together with that reply they may have 64 KiB more than the limit.
    ///
    /// # Errors
    ///
    /// More than that is [`TooLong`](super::FramingErrorKind::TooLong). With a [`sentinel`](Self::sentinel) or
    /// [`until_eof`](Self::until_eof) there are no records to skip; that is a configuration error when the feed starts. If
    /// `is_no_reply` panics, the feed's `next()` panics.
    ///
    /// # Examples
    ///
    /// A language server's notifications have a method and no id, its requests have both, its replies have
    /// an id alone. (With `in_flight(1)`: it may answer out of order.)
    ///
    /// ```
    /// use bstr::ByteSlice;
    /// use subfeed::framing::{Position, ReplyFraming, Scan};
    ///
    /// let framing =
    ///     ReplyFraming::content_length().skipping(|message| message.contains_str("\"method\":"));
    /// let mut scanner = framing.start();
    /// let input = b"Content-Length: 16\r\n\r\n{\"method\":\"log\"}Content-Length: 8\r\n\r\n{\"id\":1}";
    /// let Scan::Complete { body, .. } = scanner.scan(input, Position::new(0, 1024, false))? else {
    ///     panic!("the reply is whole");
    /// };
    /// assert_eq!(&input[body], b"{\"id\":1}");
    /// # Ok::<(), subfeed::framing::FramingError>(())
    /// ```
    #[must_use]
    pub fn skipping(self, is_no_reply: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> Self {
        Self(Kind::Skipping { inner: Box::new(self), is_no_reply: Arc::new(is_no_reply) })
    }

    /// Your own framing: `start` makes a new scanner for each session of a worker.
    ///
    /// See [`Framing`] for the contract and an example.
    pub fn custom(start: impl Fn() -> Box<dyn Framing> + Send + Sync + 'static) -> Self {
        Self(Kind::Custom(Arc::new(start)))
    }

    /// A new scanner, for one session of a worker.
    #[must_use]
    pub fn start(&self) -> Box<dyn Framing> {
        // The limit comes with each scan.
        if let Some(problem) = self.problem(usize::MAX) {
            return Box::new(Invalid(problem));
        }
        match &self.0 {
            Kind::Delimited(delimiter) => Box::new(Delimited::new(*delimiter)),
            Kind::Fields { delimiter, count } => Box::new(Fields::new(*delimiter, *count)),
            Kind::Blocks(count) => Box::new(Block::new(*count)),
            Kind::FixedSize(size) => Box::new(FixedSize(*size)),
            Kind::EndLine(ends) => Box::new(EndLine::new(ends.clone())),
            Kind::Marker { marker, whole_line } => Box::new(Marker::new(marker, *whole_line)),
            Kind::RecordSeparator => Box::new(RecordSeparator::default()),
            Kind::Prefixed(prefix) => Box::new(Prefixed(*prefix)),
            Kind::Netstring => Box::new(Netstring),
            Kind::ContentLength => Box::new(ContentLength::default()),
            Kind::SizedHeader(read_size) => Box::new(SizedHeader::new(Arc::clone(read_size))),
            Kind::Sentinel(sentinel) => sentinel.start(),
            Kind::UntilEof => Box::new(UntilEof),
            Kind::Skipping { inner, is_no_reply } => {
                Box::new(Skipping::new(inner.start(), Arc::clone(is_no_reply)))
            }
            Kind::Custom(start) => Box::new(Custom(start())),
        }
    }

    /// What is wrong with this description, if no reply of at most `limit` bytes can come of it.
    pub(crate) fn problem(&self, limit: usize) -> Option<String> {
        // The pieces are empty at best, and the last delimiter is not counted.
        let too_many = |count: usize, what: &str| match count {
            0 => Some(format!(
                "a reply of 0 {what} never arrives: a tool that answers nothing at times needs \
                 ReplyFraming::sentinel"
            )),
            count if count - 1 > limit => Some(format!(
                "a reply of {count} {what} does not fit into the reply limit of {limit} bytes: raise it \
                 with Template::reply_limit"
            )),
            _ => None,
        };
        match &self.0 {
            Kind::Fields { delimiter: b'\n', count } => too_many(*count, "lines"),
            Kind::Fields { count, .. } => too_many(*count, "fields"),
            Kind::Blocks(count) => too_many(*count, "blocks"),
            Kind::FixedSize(size) => too_many(*size, "bytes").or_else(|| {
                let size = *size;
                (size > limit).then(|| {
                    format!(
                        "a reply of {size} bytes does not fit into the reply limit of {limit} bytes: raise \
                         it with Template::reply_limit"
                    )
                })
            }),
            Kind::EndLine(Ends::Begin(words)) => {
                let shown = |word: &[u8]| format!("{:?}", BStr::new(&word[..word.len().min(80)]));
                if words.is_empty() {
                    return Some("no line ends a reply: name what an end line begins with".to_owned());
                }
                words.iter().find_map(|word| {
                    if word.is_empty() {
                        Some("an empty end line ends every reply at its first line".to_owned())
                    } else if word.contains(&b'\n') {
                        let shown = shown(word);
                        Some(format!("the end line {shown} has a line feed in it, so that no line begins so"))
                    } else if word.len() > limit {
                        let (shown, length) = (shown(word), word.len());
                        Some(format!(
                            "the end line {shown} has {length} bytes, more than the reply limit of {limit}"
                        ))
                    } else {
                        None
                    }
                })
            }
            Kind::Marker { marker, .. } if marker.is_empty() => {
                Some("an empty end marker ends every reply before its first byte".to_owned())
            }
            Kind::Marker { marker, whole_line: true } if marker.ends_with(b"\n") => Some(
                "an end marker whose line is dropped ends with a line feed, so that the next line would be dropped"
                    .to_owned(),
            ),
            Kind::Sentinel(sentinel) => sentinel.problem(),
            Kind::Skipping { inner, .. } => match inner.0 {
                Kind::Sentinel(_) => Some(
                    "a sentinel takes all that comes before its mark for the reply, so that nothing can be \
                     passed over: look through the reply in `decode`"
                        .to_owned(),
                ),
                Kind::UntilEof => Some(
                    "the whole output of a process is one reply, so that nothing can be passed over: look \
                     through the reply in `decode`"
                        .to_owned(),
                ),
                _ => inner.problem(limit),
            },
            _ => None,
        }
    }

    /// Whether a reply is the whole output of a process.
    pub(crate) const fn is_until_eof(&self) -> bool {
        matches!(self.0, Kind::UntilEof)
    }

    /// Where replies end that can be counted by a byte alone: the byte, and how many of it each reply has.
    pub(crate) const fn counted(&self) -> Option<(u8, usize)> {
        match self.0 {
            Kind::Delimited(delimiter) => Some((delimiter, 1)),
            Kind::Fields { delimiter, count } => Some((delimiter, count)),
            _ => None,
        }
    }

    /// What stands behind the body of a reply where replies are written to a file one after the other: what the
    /// tool wrote there if that was text, and this delimiter behind what had its length in front.
    pub(crate) fn written_end(&self, delimiter: u8) -> WrittenEnd {
        let bytes: &[u8] = match &self.0 {
            Kind::Delimited(delimiter) | Kind::Fields { delimiter, .. } => &[*delimiter],
            Kind::Blocks(_) => b"\n\n",
            Kind::EndLine(_) | Kind::SizedHeader(_) | Kind::RecordSeparator => b"\n",
            Kind::Sentinel(_) | Kind::UntilEof | Kind::FixedSize(_) => &[],
            Kind::Skipping { inner, .. } => return inner.written_end(delimiter),
            Kind::Marker { .. }
            | Kind::Prefixed(_)
            | Kind::Netstring
            | Kind::ContentLength
            | Kind::Custom(_) => &[delimiter],
        };
        // A line feed before a marker is part of the body, and may be missing.
        WrittenEnd { bytes: bytes.into(), unless_there: matches!(self.0, Kind::Marker { .. }) }
    }

    /// The sentinel whose sync command must follow each request, if there is one.
    #[must_use]
    pub(crate) const fn as_sentinel(&self) -> Option<&Sentinel> {
        match &self.0 {
            Kind::Sentinel(sentinel) => Some(sentinel),
            _ => None,
        }
    }

    /// The same, to [renew](Sentinel::renew) it when a feed starts.
    pub(crate) const fn as_sentinel_mut(&mut self) -> Option<&mut Sentinel> {
        match &mut self.0 {
            Kind::Sentinel(sentinel) => Some(sentinel),
            _ => None,
        }
    }
}

/// What is written behind each reply.
#[derive(Clone, Debug)]
pub(crate) struct WrittenEnd {
    bytes: Arc<[u8]>,
    /// Not where the reply ends so by itself.
    unless_there: bool,
}

impl WrittenEnd {
    /// What is written behind this reply.
    pub(crate) fn behind(&self, reply: &[u8]) -> &[u8] {
        if self.unless_there && reply.ends_with(&self.bytes) { &[] } else { &self.bytes }
    }
}

impl fmt::Debug for ReplyFraming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Delimited(delimiter) => write!(f, "Delimited(0x{delimiter:02x})"),
            Kind::Fields { delimiter, count } => write!(f, "Fields(0x{delimiter:02x}, {count})"),
            Kind::Blocks(count) => f.debug_tuple("Blocks").field(count).finish(),
            Kind::FixedSize(size) => f.debug_tuple("FixedSize").field(size).finish(),
            Kind::EndLine(ends) => f.debug_tuple("EndLine").field(ends).finish(),
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
            Kind::Skipping { inner, .. } => f.debug_tuple("Skipping").field(inner).finish(),
            Kind::Custom(_) => f.write_str("Custom(..)"),
        }
    }
}
