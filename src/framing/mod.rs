//! How one request is written to a worker, and where its reply ends in what comes back.
//!
//! A pipe carries bytes, not records. So requests and replies need a rule for where one ends and the next begins, and many
//! tools use different rules for the two: `git cat-file --batch` reads lines and answers with a header that holds a size;
//! `hunspell -a` reads lines and answers with blocks that end with a blank line; `sqlite3` reads statements and answers
//! with no row, one row or a thousand. Here requests and replies are framed separately, with [`RequestFraming`] and
//! [`ReplyFraming`], in any combination.
//!
//! | the tool speaks | requests | replies |
//! |---|---|---|
//! | line in, line out (`bc -q`, `sed -u`, `git cat-file --batch-check`) | [`RequestFraming::line`] | [`ReplyFraming::line`] |
//! | NUL in, NUL out (`sed -z -u`, `grep -z --line-buffered`) | [`RequestFraming::delimited`] | [`ReplyFraming::delimited`] |
//! | a fixed number of lines, or of fields (`git check-ignore -z -v`) | any | [`ReplyFraming::lines`], [`ReplyFraming::fields`] |
//! | lines up to a blank line (`hunspell -a`, `aspell -a`), or k such blocks | line | [`ReplyFraming::block`], [`ReplyFraming::blocks`] |
//! | lines through one that ends them (UCI's `bestmove`, `OK` or `ERR`) | line or raw | [`ReplyFraming::end_line`] |
//! | text up to a fixed marker (`exiftool -stay_open`) | raw | [`ReplyFraming::end_marker`], [`ReplyFraming::end_marker_line`] |
//! | a size in a header line (`git cat-file --batch`) | line | [`ReplyFraming::git_batch`], [`ReplyFraming::sized_header`] |
//! | records of a fixed size (raw video frames) | raw | [`ReplyFraming::fixed_size`] |
//! | JSON text sequences (`jq --seq -c`) | [`RequestFraming::record_separator`] | [`ReplyFraming::record_separator`] |
//! | binary records with a length in front | [`RequestFraming::prefixed`] | [`ReplyFraming::prefixed`] |
//! | netstrings | [`RequestFraming::netstring`] | [`ReplyFraming::netstring`] |
//! | `Content-Length` headers | [`RequestFraming::content_length`] | [`ReplyFraming::content_length`] |
//! | any of these, with log lines or notifications in between | as there | as there, and [`ReplyFraming::skipping`] |
//! | none of these: a read-eval-print loop (`sqlite3`, `psql`, `z3 -in`, `python3 -i`) | line | [`ReplyFraming::sentinel`] |
//! | the same with prompts, or with requests that may leave something open (`node -i`) | line | [`Sentinel::paired`] |
//! | one answer per process (`sort`, `gzip`) | raw | [`ReplyFraming::until_eof`] |
//! | something else | [`RequestFraming::raw`] | [`ReplyFraming::custom`] |
//!
//! # Which replies are proven
//!
//! Only two framings prove which request a reply belongs to: a sentinel, because its mark names the packet, and until EOF,
//! because the process gets no other request. All others count replies, and are [as sound as the
//! tool](ReplyFraming#what-counting-asks-of-the-tool). No framing can detect two kinds of tools:
//!
//! - A tool that works in the background, and executes the sync command *before* the request is finished (UCI's `go`, a
//!   shell's `&`): [do not use a sentinel](Sentinel#what-no-mark-can-tell).
//! - A tool that answers out of order, with ids (language servers): do not count its replies, even if notifications are
//!   [skipped](ReplyFraming::skipping). One request in flight per worker ([`in_flight(1)`](crate::Template::in_flight)) is
//!   sound.
//!
//! # What holds for every reply framing
//!
//! - **The sizes of reads do not matter.** However the bytes are split into reads, the replies are the same.
//! - **An incomplete reply is an error**, never a reply ([`FramingErrorKind::Truncated`]), even if only one line feed is
//!   missing: a worker that was killed while it wrote looks the same as one that forgot the last byte.
//! - **A size that a worker announces is only compared, never allocated.** If it exceeds the limit
//!   ([`Position::limit`]), the error comes as soon as the size is known.
//! - **Bytes are bytes.** Nothing is decoded, trimmed or converted; a carriage return before a line feed stays in the
//!   reply.
//! - **The work is linear.** A reply that arrives byte by byte costs as much as one that arrives in one piece.
//!
//! Everything here is free of I/O: bytes in, ranges out.

mod block;
mod content_length;
mod custom;
mod delimited;
mod end_line;
mod error;
mod fields;
mod fixed_size;
mod invalid;
mod mark;
mod marker;
mod marks;
mod netstring;
mod pair;
mod parts;
mod prefixed;
mod record_separator;
mod reply;
mod request;
mod sentinel;
mod sized_header;
mod skipping;
#[cfg(test)]
mod testing;
mod until_eof;

use std::ops::Range;

pub use self::error::{FramingError, FramingErrorKind};
pub use self::prefixed::Prefix;
pub use self::reply::ReplyFraming;
pub(crate) use self::reply::WrittenEnd;
pub use self::request::RequestFraming;
pub use self::sentinel::Sentinel;

/// Finds where replies end in the output of one session of a worker.
///
/// Every [`ReplyFraming`] uses this trait. Implement it for a format that none of them covers, and give it to
/// [`ReplyFraming::custom`]. One value serves one session of a worker: it sees that session's output in order and may
/// carry state from one reply to the next.
///
/// # The contract
///
/// The caller keeps the bytes that have arrived and not been taken, and calls [`scan`](Self::scan)
/// with all of them:
///
/// - `input[0]` is the first byte of a reply. After [`Scan::Partial`] the next call passes the same
///   bytes, followed by those that have arrived since (none, when only [`Position::eof`] has changed).
/// - After [`Scan::Complete`] the caller removes `len` bytes, and the next call begins a new reply. The same is true after
///   an error, although a worker is rarely used after one.
/// - With `eof` set no more bytes will follow, so `Partial` means a truncated reply. At the end of the output the caller
///   scans only while bytes are left (except for until-EOF framing, where no bytes at all are an empty reply).
///
/// A feed checks this: a range outside the input, a reply of zero bytes and a body above the limit are errors of their
/// packet, and so is a reply that has not ended 64 KiB after the limit.
///
/// A scanner should remember how far it has looked. If it starts at `input[0]` again, a large reply that arrives in small
/// reads takes quadratic time.
///
/// # Panics
///
/// If `scan` panics, the feed's `next()` panics with the same payload.
///
/// # Examples
///
/// Replies that end in a semicolon outside double quotes:
///
/// ```
/// use subfeed::framing::{Framing, FramingError, FramingErrorKind, Position, ReplyFraming, Scan};
///
/// #[derive(Default)]
/// struct Statements {
///     seen: usize,
///     quoted: bool,
/// }
///
/// impl Framing for Statements {
///     fn scan(&mut self, input: &[u8], position: Position) -> Result<Scan, FramingError> {
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
///         if position.eof {
///             return Err(FramingErrorKind::Truncated.into());
///         }
///         Ok(Scan::Partial)
///     }
/// }
///
/// let framing = ReplyFraming::custom(|| Box::new(Statements::default()));
/// let mut scanner = framing.start();
/// let input = br#"a ";" b; c"#;
/// let scan = scanner.scan(input, Position::new(0, 1024, false))?;
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
    /// If the bytes cannot be a reply, if the reply exceeds [`Position::limit`], or if the output ends inside it. The packet
    /// then fails with this error, and the session ends, because the beginning of its next reply is not known.
    fn scan(&mut self, input: &[u8], position: Position) -> Result<Scan, FramingError>;

    /// `Some(d)` if a reply is exactly the bytes before the next byte `d`.
    ///
    /// This lets the caller cut a whole buffer of replies in one pass instead of calling
    /// [`scan`](Self::scan) for each. Such a caller applies [`Position::limit`] itself. The answer must
    /// not change during a session, and a scanner that gives one must carry no state from one reply to
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
/// use subfeed::framing::Position;
///
/// let position = Position::new(7, 64 << 20, false);
/// assert_eq!((position.packet, position.limit, position.eof), (7, 64 << 20, false));
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Position {
    /// The id of the packet that this reply answers.
    pub packet: u64,
    /// The largest body that is allowed, in bytes. A body of exactly this size is still good.
    pub limit: usize,
    /// No more bytes will follow: the worker has closed its output.
    pub eof: bool,
}

impl Position {
    /// A position, for code that calls a scanner itself, such as the tests of a custom framing.
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
