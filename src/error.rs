//! One opaque error that carries its whole context and prints as one line.

use std::borrow::Cow;
use std::fmt;
use std::process::ExitStatus;
use std::sync::Arc;

use bstr::{BStr, BString, ByteSlice};

/// Any error that a closure of the user's may return.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What went wrong, without its circumstances.
///
/// The circumstances (which packet, which worker, what it wrote on stderr) are on [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The feed was asked for something impossible: zero workers, an undeclared channel, a NUL byte in an argument.
    Config,
    /// The command could not be started.
    Spawn,
    /// A thread of the feed could not be started, or its poller could not be made.
    Thread,
    /// `encode` refused the item, or what it wrote cannot be framed.
    Encode,
    /// `decode` refused the reply.
    Decode,
    /// A reply could not be cut out of the worker's output, or is over the reply limit.
    Reply,
    /// `check` refused the reply.
    Check,
    /// The worker ended before it answered this packet, which was alone in that session.
    Died,
    /// The time limit ran out.
    Timeout,
    /// A session ended with more or fewer replies than requests, so that no reply of it can be trusted.
    ReplyCount {
        /// How many requests the session was given.
        owed: u64,
        /// How many replies it gave.
        got: u64,
    },
    /// A worker withholds its replies and the policy is [`OnStall::Fail`](crate::OnStall::Fail).
    Stalled,
    /// The worker may have read this packet and died; under `at_most_once` it is not sent again.
    NotRedelivered,
    /// A named side channel failed: written to without being declared, or left unread past its cap.
    Channel,
    /// The feed was ended by a fatal error before this packet was answered.
    Halted,
    /// An item failed in an earlier stage, or a function of the user's did.
    Failed,
}

/// Why a packet, or the whole feed, failed.
///
/// An *item* error concerns its packet alone and iteration goes on. A *fatal* one
/// ([`is_fatal`](Error::is_fatal)) has ended the feed: the items after it are `Err` of kind
/// [`ErrorKind::Halted`] for what had been pulled, then `None` for ever.
///
/// `Display` is one line that names the fix where there is one; `Debug` is the same line, so that
/// `unwrap()` prints well.
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
    pid: Option<u32>,
    command: Option<Arc<str>>,
    attempts: u32,
    exit: Option<ExitStatus>,
    stderr: BString,
    message: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    source: Option<BoxError>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            fatal: false,
            packet: None,
            request: None,
            worker: None,
            pid: None,
            command: None,
            attempts: 0,
            exit: None,
            stderr: BString::default(),
            message: message.into(),
            hint: None,
            source: None,
        }))
    }

    pub(crate) fn config(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Config, message).fatal()
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

    pub(crate) fn exited(mut self, status: Option<ExitStatus>) -> Self {
        self.0.exit = status;
        self
    }

    pub(crate) fn said(mut self, stderr: Vec<u8>) -> Self {
        self.0.stderr = BString::from(stderr);
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    pub(crate) fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The bytes that it keeps of a packet and of its worker's stderr.
    pub(crate) fn weight(&self) -> usize {
        self.0.request.as_ref().map_or(0, |request| request.len()) + self.0.stderr.len()
    }

    /// The same error once more, for somebody else who is to learn of it. Its cause becomes text.
    #[cfg(feature = "function-source")]
    pub(crate) fn again(&self) -> Self {
        let Inner { message, hint, command, request, stderr, .. } = &*self.0;
        Self(Box::new(Inner {
            request: request.clone(),
            command: command.clone(),
            stderr: stderr.clone(),
            message: message.clone(),
            hint: hint.clone(),
            source: self.0.source.as_deref().map(|source| Told::of(source).into()),
            ..*self.0
        }))
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether this error has ended the feed.
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
    /// Kept for errors of one packet; `None` where the item never became a request.
    #[must_use]
    pub fn request(&self) -> Option<&BStr> {
        self.0.request.as_ref().map(|request| request.as_bstr())
    }

    /// Takes the request out, for sending it somewhere else.
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

    /// How many sessions this packet was charged with: 0 if it was never the only suspect.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// The exit status, or the signal, that ended the worker's session; `None` if it did not end or
    /// somebody else has reaped it.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.0.exit
    }

    /// The last bytes (8 KiB at most) that this session wrote on stderr; not necessarily UTF-8.
    #[must_use]
    pub fn stderr(&self) -> &BStr {
        self.0.stderr.as_bstr()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if let Some(packet) = inner.packet {
            write!(f, "packet {packet}: ")?;
        }
        f.write_str(&inner.message)?;
        if let Some(status) = inner.exit {
            write!(f, " ({status})")?;
        }
        if let Some(source) = &inner.source {
            write!(f, ": {source}")?;
        }
        if let Some(command) = &inner.command {
            write!(f, "; command `{command}`")?;
        }
        if let Some(worker) = inner.worker {
            write!(f, ", worker {worker}")?;
        }
        if let Some(pid) = inner.pid {
            write!(f, ", pid {pid}")?;
        }
        if inner.attempts > 1 {
            write!(f, ", {} attempts", inner.attempts)?;
        }
        let last = inner.stderr.trim_ascii_end();
        if !last.is_empty() {
            let line = last.rsplit_str("\n").next().unwrap_or(last);
            write!(f, "; stderr ends: {}", excerpt(line))?;
        }
        if let Some(hint) = &inner.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:?}] {self}", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
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
        f.write_str(&self.message)?;
        match &self.cause {
            // Many errors say what caused them.
            Some(cause) if !self.message.contains(&cause.message) => write!(f, ": {cause}"),
            _ => Ok(()),
        }
    }
}

#[cfg(feature = "function-source")]
impl std::error::Error for Told {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

/// The beginning of some bytes, readable and on one line: what a message quotes of what was read.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    const LONGEST: usize = 160;
    let cut = &bytes[..bytes.len().min(LONGEST)];
    let dots = if cut.len() < bytes.len() { "..." } else { "" };
    format!("{:?}{dots}", cut.as_bstr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_line_even_when_stderr_is_not() {
        let error = Error::new(ErrorKind::Died, "the worker ended before it answered")
            .at(7)
            .by(2, Some(99), &Arc::from("tool -x"))
            .tried(2)
            .said(b"first\nsecond \xff\n".to_vec())
            .hint("use retries(1)");
        let line = error.to_string();
        assert!(!line.contains('\n'), "{line}");
        assert!(line.starts_with("packet 7: the worker ended"), "{line}");
        assert!(line.contains("worker 2") && line.contains("2 attempts"), "{line}");
        assert!(line.contains(r#""second \xff""#) && line.ends_with("use retries(1)"), "{line}");
    }

    #[test]
    fn an_error_is_one_pointer_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
