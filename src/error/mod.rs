//! One opaque error that carries its whole context and prints as one line.
//!
//! # One cause, printed once
//! `Display` prints an error with all its causes, each once, on one line of at most 4 KiB. So
//! [`source`](std::error::Error::source) is `None`, and whatever walks along it (anyhow's `{:#}`, a logger) adds
//! nothing that has been said. The cause itself, to look at or to downcast, is [`Error::cause`].

mod limit;
mod line;
mod stderr;

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;

use bstr::{BStr, BString, ByteSlice};
use nix::errno::Errno;
use nix::libc;

pub use self::limit::Limit;
pub(crate) use self::line::excerpt;
use self::line::{AROUND, one_line, quoted};
pub(crate) use self::stderr::StderrExcerpt;
use crate::signal::Signal;

/// Any error that a closure of yours may return.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What went wrong.
///
/// The details (which packet, which worker, what it wrote on stderr) are in [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The feed was asked for something impossible: zero workers, an undeclared channel, a NUL byte in an argument.
    Config,
    /// The command could not be started.
    Spawn,
    /// A thread of the feed, or the poller of its event loop, could not be created.
    Thread,
    /// `encode` failed, or its request cannot be framed.
    Encode,
    /// `decode` failed.
    Decode,
    /// The worker's output does not match the framing, or the reply is larger than the reply limit.
    Reply,
    /// `check` refused the reply.
    Check,
    /// The worker ended before it answered this packet, which was the only one in that session.
    Died,
    /// A time limit was exceeded.
    Timeout,
    /// A session gave more or fewer replies than it got requests, so its replies may belong to other requests.
    ReplyCount {
        /// How many requests the session got.
        owed: u64,
        /// How many replies it gave.
        got: u64,
    },
    /// A worker keeps its replies in a buffer, and the policy is [`OnStall::Fail`](crate::policy::OnStall::Fail).
    Stalled,
    /// The worker died and may have read this packet; under `at_most_once` it is not sent again.
    NotRedelivered,
    /// `encode` wrote to a side channel that was not declared; or a side channel was left unread beyond its cap; or the
    /// output of a worker could not be read.
    Channel,
    /// A fatal error ended the feed before this packet was answered.
    Halted,
    /// The reader of a feed of [`blocks`](crate::blocks) failed.
    Source,
    /// The connection to the worker's machine was lost, or no machine can be reached.
    Transport,
    /// An item failed in an earlier stage, or in a function of yours.
    Failed,
    /// A file of the feed could not be opened, read or written: its [job log](crate::FeedBuilder::job_log), or its
    /// [checkpoint](crate::checkpoint).
    File,
}

/// Why a packet, or the whole feed, failed.
///
/// An *item* error concerns its packet alone, and iteration goes on. A *fatal* error
/// ([`is_fatal`](Error::is_fatal)) has ended the feed. Packets that were pulled and not answered then become errors of kind
/// [`ErrorKind::Halted`] at their positions, except that the first of them carries the cause; after them `next` returns
/// `None`. Packets that were answered keep their replies; in input order some may come after the cause.
///
/// `Display` is one line of at most 4 KiB that names the fix if there is one. `Debug` is the same line, so that `unwrap()`
/// prints it. The line contains the command line, the request and the worker's stderr, each shortened in the middle.
/// Arguments given with [`Template::secret_arg`](crate::Template::secret_arg) are not shown.
///
/// The causes are part of that line. So `source()` is `None`, and a report that follows the chain prints nothing twice.
/// [`cause`](Error::cause) returns the cause as a value. `?` converts an `Error` into an [`io::Error`], from which
/// [`io::Error::get_ref`] returns it.
///
/// ```
/// use subfeed::{ErrorKind, FeedExt, Template};
/// let mut feed = ["x"].into_iter().feed_subprocesses_ordered(Template::new("no-such-program"), 1, 8);
/// let error = feed.next().unwrap().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Spawn);
/// assert!(error.is_fatal());
/// assert!(error.to_string().contains("no-such-program"));
/// assert!(feed.next().is_none());
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    fatal: bool,
    packet: Option<u64>,
    request: Option<BString>,
    worker: Option<usize>,
    host: Option<Arc<str>>,
    pid: Option<u32>,
    command: Option<Arc<str>>,
    attempts: u32,
    exit: Option<ExitStatus>,
    sent: Sent,
    limit: Option<Limit>,
    stderr: StderrExcerpt,
    message: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    cause: Option<BoxError>,
}

/// Which signal of ours a process had been sent before it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Not told.
    #[default]
    Unknown,
    Nothing,
    /// The last one.
    Signal(Signal),
}

impl From<Option<Signal>> for Sent {
    fn from(last: Option<Signal>) -> Self {
        last.map_or(Self::Nothing, Self::Signal)
    }
}

/// Of a process or a thread that the system does not give. Threads count as processes.
pub(crate) const PROCESS_LIMIT: &str = "raise the limit of processes and threads (ulimit -u)";

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            fatal: false,
            packet: None,
            request: None,
            worker: None,
            host: None,
            pid: None,
            command: None,
            attempts: 0,
            exit: None,
            sent: Sent::default(),
            limit: None,
            stderr: StderrExcerpt::default(),
            message: message.into(),
            hint: None,
            cause: None,
        }))
    }

    /// A limit of ours has run out.
    pub(crate) fn timeout(limit: Limit) -> Self {
        Self::new(ErrorKind::Timeout, limit.to_string()).limited(limit)
    }

    pub(crate) fn config(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Config, message).fatal()
    }

    /// A thread, or what one waits in, could not be had.
    pub(crate) fn no_thread(message: &'static str, cause: io::Error) -> Self {
        let errno = cause.raw_os_error().map(Errno::from_raw);
        let error = Self::new(ErrorKind::Thread, message).because(cause).fatal();
        match errno {
            Some(Errno::EMFILE) => error.hint("raise the limit of open files (ulimit -n)"),
            Some(Errno::EAGAIN) => error.hint(PROCESS_LIMIT),
            _ => error,
        }
    }

    pub(crate) fn halted() -> Self {
        Self::new(ErrorKind::Halted, "the feed was ended before this packet was answered").fatal()
    }

    pub(crate) fn fatal(mut self) -> Self {
        self.0.fatal = true;
        self
    }

    pub(crate) fn at(mut self, packet: u64) -> Self {
        self.0.packet = Some(packet);
        self
    }

    pub(crate) fn asked(mut self, request: impl Into<Vec<u8>>) -> Self {
        self.0.request = Some(BString::from(request.into()));
        self
    }

    pub(crate) fn by(mut self, worker: usize, pid: Option<u32>, command: &Arc<str>) -> Self {
        self.0.worker = Some(worker);
        self.0.pid = pid;
        self.0.command = Some(Arc::clone(command));
        self
    }

    pub(crate) fn on(mut self, host: Option<Arc<str>>) -> Self {
        self.0.host = host;
        self
    }

    pub(crate) fn of(mut self, pid: Option<u32>) -> Self {
        self.0.pid = pid;
        self
    }

    pub(crate) fn running(mut self, command: &Arc<str>) -> Self {
        self.0.command = Some(Arc::clone(command));
        self
    }

    pub(crate) fn tried(mut self, attempts: u32) -> Self {
        self.0.attempts = attempts;
        self
    }

    pub(crate) fn exited(mut self, status: Option<ExitStatus>, sent: impl Into<Sent>) -> Self {
        self.0.exit = status;
        self.0.sent = sent.into();
        self
    }

    /// The limit of ours that was at work.
    pub(crate) fn limited(mut self, limit: Limit) -> Self {
        self.0.limit = Some(limit);
        self
    }

    pub(crate) fn said(mut self, stderr: &StderrExcerpt) -> Self {
        self.0.stderr = stderr.clone();
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    pub(crate) fn because(mut self, cause: impl Into<BoxError>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// The bytes that it keeps of a packet and of its worker's stderr.
    pub(crate) fn weight(&self) -> usize {
        self.0.request.as_ref().map_or(0, |request| request.len()) + self.0.stderr.len()
    }

    /// The same error once more, for somebody else who is to learn of it. Its cause becomes text.
    #[cfg(feature = "function-source")]
    pub(crate) fn again(&self) -> Self {
        let Inner { message, hint, command, host, request, stderr, .. } = &*self.0;
        Self(Box::new(Inner {
            request: request.clone(),
            command: command.clone(),
            host: host.clone(),
            stderr: stderr.clone(),
            message: message.clone(),
            hint: hint.clone(),
            cause: self.0.cause.as_deref().map(|cause| Told::of(cause).into()),
            ..*self.0
        }))
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether this error ended the feed.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.0.fatal
    }

    /// The packet id, which is the position of the item in the input, if the error concerns one.
    #[must_use]
    pub fn packet(&self) -> Option<u64> {
        self.0.packet
    }

    /// The request as it was written to the worker's stdin, its framing included.
    ///
    /// For errors of one packet; `None` if the item did not become a request.
    #[must_use]
    pub fn request(&self) -> Option<&BStr> {
        self.0.request.as_ref().map(|request| request.as_bstr())
    }

    /// The request as a value, for example to send it somewhere else.
    #[must_use]
    pub fn into_request(self) -> Option<BString> {
        self.0.request
    }

    /// The worker's number, `0..n`.
    #[must_use]
    pub fn worker(&self) -> Option<usize> {
        self.0.worker
    }

    /// The process id of the session that failed.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.0.pid
    }

    /// The command line, quoted for reading (not for a shell).
    #[must_use]
    pub fn command(&self) -> Option<&str> {
        self.0.command.as_deref()
    }

    /// How many attempts this packet has used: the failed sessions in which it was the only packet.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// How the worker's session ended: its exit status, or the signal. `None` if it did not end, or if another part of
    /// the program reaped it.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.0.exit
    }

    /// The limit of this crate that was exceeded, if one was: a setting of the template, or a fixed one.
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        self.0.limit
    }

    /// The last signal that this crate sent to the worker before it ended, if any.
    ///
    /// If [`exit_status`](Error::exit_status) shows a signal and this is `None`, another process sent it. In the case of
    /// SIGKILL that is usually the kernel, because memory ran out.
    #[must_use]
    pub fn signal_sent(&self) -> Option<Signal> {
        match self.0.sent {
            Sent::Signal(signal) => Some(signal),
            Sent::Unknown | Sent::Nothing => None,
        }
    }

    /// The machine on which the worker ran, if a launcher started it there; `None` for this machine.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.0.host.as_deref()
    }

    /// What this session wrote on stderr, which need not be UTF-8. Up to 8 KiB are complete. Above that, it is the
    /// [head](Error::stderr_head), a line that says how many bytes are left out, and the
    /// [tail](Error::stderr_tail).
    #[must_use]
    pub fn stderr(&self) -> BString {
        self.0.stderr.text()
    }

    /// The first bytes that this session wrote on stderr, at most 4 KiB. The first line usually names the cause.
    #[must_use]
    pub fn stderr_head(&self) -> &BStr {
        self.0.stderr.head().as_bstr()
    }

    /// The last bytes that this session wrote on stderr, at most 4 KiB, without those in the
    /// [head](Error::stderr_head).
    #[must_use]
    pub fn stderr_tail(&self) -> &BStr {
        self.0.stderr.tail().as_bstr()
    }

    /// The error that caused this one: what `encode`, `decode` or `check` returned, or an error of the system. Use it to
    /// downcast.
    ///
    /// `Display` prints it, so it is not the [`source`](std::error::Error::source). Its own causes follow in its own
    /// `source()`.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let mut feed = ["x"].into_iter().feed_subprocesses_ordered(Template::new("no-such-program"), 1, 8);
    /// let error = feed.next().unwrap().unwrap_err();
    /// let cause = error.cause().unwrap().downcast_ref::<std::io::Error>().unwrap();
    /// assert_eq!(cause.kind(), std::io::ErrorKind::NotFound);
    /// assert_eq!(error.to_string().matches("No such file or directory").count(), 1);
    /// ```
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        self.0.cause.as_deref()
    }
}

/// How many bytes each part of a line may take. All of them together, and what stands between them, are no
/// more than [`LONGEST`](most::LONGEST).
#[allow(dead_code, reason = "Rust 1.88 does not see what a constant without a name uses")]
mod most {
    use super::AROUND;

    /// The longest line, `Debug`'s included.
    pub(super) const LONGEST: usize = 4 << 10;

    pub(super) const MESSAGE: usize = 640;
    pub(super) const CAUSES: usize = 640;
    pub(super) const HINT: usize = 640;
    pub(super) const COMMAND: usize = 400;
    pub(super) const REQUEST: usize = 200;
    pub(super) const HOST: usize = 80;
    pub(super) const STDERR: usize = 240;
    /// Numbers, the limit, the exit status, the kind, and the words around everything.
    const REST: usize = 640;

    const TEXTS: [usize; 8] = [MESSAGE, CAUSES, HINT, COMMAND, REQUEST, HOST, STDERR, STDERR];
    const _: () = {
        let (mut sum, mut i) = (REST, 0);
        while i < TEXTS.len() {
            sum += TEXTS[i] + AROUND;
            i += 1;
        }
        assert!(sum <= LONGEST);
    };
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if let Some(packet) = inner.packet {
            write!(f, "packet {packet}: ")?;
        }
        f.write_str(&one_line(&inner.message, most::MESSAGE))?;
        if let Some(limit) = inner.limit.filter(|limit| !limit.is_named_in(&inner.message)) {
            write!(f, "; {limit}")?;
        }
        inner.write_end(f)?;
        if let Some(cause) = &inner.cause {
            write!(f, ": {}", causes(&**cause))?;
        }
        if let Some(request) = &inner.request {
            write!(f, "; request {}", quoted(request, most::REQUEST))?;
        }
        if let Some(command) = &inner.command {
            write!(f, "; command `{}`", one_line(command, most::COMMAND))?;
        }
        if let Some(worker) = inner.worker {
            write!(f, ", worker {worker}")?;
        }
        if let Some(host) = &inner.host {
            write!(f, ", host {}", one_line(host, most::HOST))?;
        }
        if let Some(pid) = inner.pid {
            write!(f, ", pid {pid}")?;
        }
        if inner.attempts > 1 {
            write!(f, ", {} attempts", inner.attempts)?;
        }
        if let Some((first, last)) = inner.stderr.lines() {
            write!(f, "; stderr: {}", quoted(first, most::STDERR))?;
            if let Some(last) = last {
                write!(f, " ... {}", quoted(last, most::STDERR))?;
            }
        }
        if let Some(hint) = &inner.hint {
            write!(f, "; {}", one_line(hint, most::HINT))?;
        }
        Ok(())
    }
}

impl Inner {
    /// How the process ended, and whether that was our doing.
    fn write_end(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Sent::Signal(signal) = self.sent {
            write!(f, "; we sent {}", signal.name())?;
        }
        let Some(status) = self.exit else { return Ok(()) };
        match (self.sent, status.signal()) {
            (Sent::Nothing, Some(libc::SIGKILL)) => {
                write!(f, " ({status}; killed from outside; out of memory?)")
            }
            (Sent::Nothing, Some(libc::SIGTERM | libc::SIGHUP | libc::SIGINT | libc::SIGQUIT)) => {
                write!(f, " ({status}, not sent by us)")
            }
            _ => write!(f, " ({status})"),
        }
    }
}

/// An error and what caused it, each said once, on one line of bounded length.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        // Many errors say themselves what caused them.
        if !said.contains(&words) {
            let _ = write!(said, ": {words}");
        }
        next = cause.source();
    }
    one_line(&said, most::CAUSES)
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:?}] {self}", self.0.kind)
    }
}

/// There is no [`source`](std::error::Error::source), because `Display` prints the cause.
impl std::error::Error for Error {}

/// For code that uses [`io::Result`]. The error itself is inside; [`io::Error::get_ref`] returns it.
///
/// The kind is that of the system's error if there is one, and otherwise the nearest: `TimedOut`, `InvalidInput` (the
/// configuration or an item), `InvalidData` (a reply), `UnexpectedEof` (a worker ended).
///
/// ```
/// use std::io;
/// use subfeed::{FeedExt, Template};
///
/// fn longest(lines: impl Iterator<Item = io::Result<String>> + Send + 'static) -> io::Result<usize> {
///     let mut longest = 0;
///     for reply in lines.try_feed(Template::new("cat")).workers(2).start() {
///         longest = longest.max(reply?.len());
///     }
///     Ok(longest)
/// }
/// assert_eq!(longest(["one", "three"].map(|line| Ok(line.to_owned())).into_iter()).unwrap(), 5);
/// ```
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let system = error.cause().and_then(|cause| cause.downcast_ref::<io::Error>());
        let kind = match error.kind() {
            ErrorKind::Spawn | ErrorKind::Thread | ErrorKind::Source | ErrorKind::File => {
                system.map_or(io::ErrorKind::Other, io::Error::kind)
            }
            ErrorKind::Timeout => io::ErrorKind::TimedOut,
            ErrorKind::Transport => io::ErrorKind::ConnectionAborted,
            ErrorKind::Config | ErrorKind::Encode => io::ErrorKind::InvalidInput,
            ErrorKind::Decode
            | ErrorKind::Reply
            | ErrorKind::Check
            | ErrorKind::ReplyCount { .. } => io::ErrorKind::InvalidData,
            ErrorKind::Died | ErrorKind::NotRedelivered => io::ErrorKind::UnexpectedEof,
            ErrorKind::Stalled | ErrorKind::Channel | ErrorKind::Halted | ErrorKind::Failed => {
                io::ErrorKind::Other
            }
        };
        Self::new(kind, error)
    }
}

/// An error that is only known by what it said, and what caused it.
#[cfg(feature = "function-source")]
#[derive(Debug)]
pub(crate) struct Told {
    message: String,
    cause: Option<Box<Told>>,
}

#[cfg(feature = "function-source")]
impl Told {
    /// From the messages of an error and its causes; `None` if there is none.
    pub(crate) fn chain(messages: Vec<String>) -> Option<Self> {
        let causes = messages.into_iter().rev();
        causes.fold(None, |cause, message| Some(Self { message, cause: cause.map(Box::new) }))
    }

    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let cause = error.source().map(|cause| Box::new(Self::of(cause)));
        Self { message: error.to_string(), cause }
    }
}

#[cfg(feature = "function-source")]
impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(feature = "function-source")]
impl std::error::Error for Told {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    fn stderr(bytes: &[u8]) -> StderrExcerpt {
        let mut excerpt = StderrExcerpt::default();
        excerpt.push(bytes);
        excerpt
    }

    /// An error that says what it says, and what caused it.
    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl std::error::Error for Layer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    /// As anyhow's `{:#}` prints an error, and whatever else walks along `source()`.
    fn walked(error: &dyn std::error::Error) -> String {
        let mut line = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            line += &format!(": {cause}");
            next = cause.source();
        }
        line
    }

    #[test]
    fn display_is_one_line_even_when_stderr_is_not() {
        let error = Error::new(ErrorKind::Died, "the worker ended\nbefore it answered")
            .at(7)
            .by(2, Some(99), &Arc::from("tool -x"))
            .tried(2)
            .said(&stderr(b"first\nsecond\nthird \xff\n"))
            .hint("use retries(1)");
        let line = error.to_string();
        assert!(!line.contains('\n'), "{line}");
        assert!(line.starts_with("packet 7: the worker ended\\nbefore"), "{line}");
        assert!(line.contains("worker 2") && line.contains("2 attempts"), "{line}");
        assert!(line.contains(r#"; stderr: "first" ... "third \xFF"; use retries(1)"#), "{line}");
    }

    #[test]
    fn a_cause_is_printed_once_whoever_prints_it() {
        let deep = || Layer("middle", Some(Box::new(Layer("deepest", None))));
        let talkative = Layer("middle: deepest", Some(Box::new(Layer("deepest", None))));
        for cause in [BoxError::from(deep()), talkative.into(), io::Error::other(deep()).into()] {
            let error = Error::new(ErrorKind::Decode, "decode refused the reply").because(cause);
            let as_io =
                io::Error::from(Error::new(ErrorKind::Decode, "decode refused").because(deep()));
            let outer = Error::new(ErrorKind::Encode, "outer")
                .because(Error::new(ErrorKind::Decode, "inner").because(deep()));
            for line in [error.to_string(), walked(&error), walked(&as_io), walked(&outer)] {
                assert_eq!(line.matches("middle").count(), 1, "{line}");
                assert_eq!(line.matches("deepest").count(), 1, "{line}");
            }
            assert!(error.cause().is_some());
        }
    }

    #[test]
    fn the_cause_can_be_downcast() {
        let error = Error::new(ErrorKind::Decode, "x").because(Layer("why", None));
        assert_eq!(error.cause().unwrap().downcast_ref::<Layer>().unwrap().0, "why");
        assert!(Error::new(ErrorKind::Died, "x").cause().is_none());
    }

    #[test]
    fn a_line_is_no_longer_than_4_kib_whatever_is_in_it() {
        for text in ["x", "\n", "\u{1}", "\u{1F600}", "\\\""] {
            let long = text.repeat(1 << 20);
            let cause = io::Error::other(Error::new(ErrorKind::Died, long.clone()));
            let mut error =
                Error::new(ErrorKind::ReplyCount { owed: u64::MAX, got: u64::MAX }, long.clone())
                    .at(u64::MAX)
                    .asked(long.clone())
                    .by(usize::MAX, Some(u32::MAX), &Arc::from(&*long))
                    .tried(u32::MAX)
                    .exited(Some(ExitStatus::from_raw(0x8b)), Some(Signal::Interrupt))
                    .limited(Limit::Recycled(Duration::MAX))
                    .said(&stderr(long.as_bytes()))
                    .because(cause)
                    .hint(long.clone());
            error.0.host = Some(Arc::from(&*long));
            error.0.stderr =
                stderr(format!("{}\n{long}", &long[..2_000 / text.len() * text.len()]).as_bytes());
            let (line, debug) = (error.to_string(), format!("{error:?}"));
            assert!(!line.contains('\n') && line.contains(", host "), "{line}");
            assert!(debug.len() <= most::LONGEST, "{}: {debug}", debug.len());
            // Lines that are blank are no lines.
            let parts = if text == "\n" { 6 } else { 8 };
            assert!(line.matches("[... ").count() >= parts, "{line}");
        }
    }

    #[test]
    fn both_ends_of_a_long_command_and_of_a_long_request_are_shown() {
        let long = format!("tool --first {} --last", "x".repeat(100_000));
        let request = [&b"begin"[..], &[0; 3 << 20], b"end\n"].concat();
        let error =
            Error::new(ErrorKind::Died, "it ended").by(0, None, &Arc::from(&*long)).asked(request);
        let line = error.to_string();
        assert!(
            line.contains("; command `tool --first xxx") && line.contains("xxx --last`"),
            "{line}"
        );
        assert!(line.contains(r#"; request "begin\0"#) && line.contains(r#"\0end\n""#), "{line}");
        // Only the line is shortened.
        assert_eq!(error.command().unwrap().len(), long.len());
        assert_eq!(error.request().unwrap().len(), 8 + (3 << 20) + 1);
    }

    #[test]
    fn our_own_limit_and_our_own_signal_are_named() {
        let half = Duration::from_millis(500);
        let term = || Some(ExitStatus::from_raw(15));
        let error =
            Error::timeout(Limit::PacketTimeout(half)).exited(term(), Some(Signal::Terminate));
        assert_eq!(
            error.to_string(),
            "no reply within 500ms (packet_timeout); we sent SIGTERM (signal: 15 (SIGTERM))"
        );
        assert_eq!(error.limit(), Some(Limit::PacketTimeout(half)));
        assert_eq!(error.signal_sent(), Some(Signal::Terminate));
        let error = Error::new(ErrorKind::Died, "8 workers in a row ended without one reply")
            .limited(Limit::Ready(half));
        assert_eq!(
            error.to_string(),
            "8 workers in a row ended without one reply; not ready within 500ms (ready)"
        );
        let named =
            Error::new(ErrorKind::Timeout, "the command was not ready within 500ms (ready)");
        assert_eq!(named.limited(Limit::Ready(half)).to_string().matches("(ready)").count(), 1);
    }

    #[test]
    fn a_signal_that_was_not_ours_is_said_to_be_somebody_elses() {
        let end = |raw, sent: Sent| {
            Error::new(ErrorKind::Died, "it ended")
                .exited(Some(ExitStatus::from_raw(raw)), sent)
                .to_string()
        };
        let theirs = Sent::Nothing;
        assert_eq!(
            end(9, theirs),
            "it ended (signal: 9 (SIGKILL); killed from outside; out of memory?)"
        );
        assert_eq!(end(15, theirs), "it ended (signal: 15 (SIGTERM), not sent by us)");
        assert_eq!(end(11, theirs), "it ended (signal: 11 (SIGSEGV))");
        assert_eq!(end(3 << 8, theirs), "it ended (exit status: 3)");
        assert_eq!(end(9, Sent::Unknown), "it ended (signal: 9 (SIGKILL))");
        let ours = Sent::Signal(Signal::Kill);
        assert_eq!(end(9, ours), "it ended; we sent SIGKILL (signal: 9 (SIGKILL))");
    }

    #[test]
    fn as_an_io_error_it_keeps_itself_and_has_the_nearest_kind() {
        let missing = io::Error::from(io::ErrorKind::NotFound);
        let spawn = Error::new(ErrorKind::Spawn, "cannot start").because(missing);
        for (error, kind) in [
            (spawn, io::ErrorKind::NotFound),
            (Error::new(ErrorKind::Spawn, "cannot start"), io::ErrorKind::Other),
            (Error::timeout(Limit::RunTimeout(Duration::ZERO)), io::ErrorKind::TimedOut),
            (Error::config("n is 0"), io::ErrorKind::InvalidInput),
            (Error::new(ErrorKind::Check, "no"), io::ErrorKind::InvalidData),
            (Error::new(ErrorKind::Died, "gone"), io::ErrorKind::UnexpectedEof),
            // Not `Interrupted`, which readers try again.
            (Error::halted(), io::ErrorKind::Other),
        ] {
            let (line, was) = (error.to_string(), error.kind());
            let io = io::Error::from(error);
            assert_eq!((io.kind(), io.to_string()), (kind, line));
            let kept = io.get_ref().unwrap().downcast_ref::<Error>().unwrap();
            assert_eq!(kept.kind(), was);
        }
    }

    #[test]
    fn both_ends_of_stderr_are_there() {
        let bytes = [&b"cause\n"[..], &[b'.'; 20_000], b"\nhelp\n"].concat();
        let error = Error::new(ErrorKind::Died, "x").said(&stderr(&bytes));
        assert_eq!(error.stderr_head(), &bytes[..4 << 10]);
        assert_eq!(error.stderr_tail(), &bytes[bytes.len() - (4 << 10)..]);
        assert!(error.stderr().contains_str("bytes left out"));
        assert_eq!(error.weight(), 8 << 10);
        assert!(error.to_string().contains(r#"stderr: "cause" ... "help""#), "{error}");
    }

    #[test]
    fn an_error_is_one_pointer_wide_and_crosses_threads() {
        fn crosses<T: Send + Sync + 'static>() {}
        crosses::<Error>();
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
