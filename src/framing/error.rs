//! What can go wrong between a request, a reply and the bytes that stand for them.

use std::error::Error;
use std::fmt;

type Cause = Box<dyn Error + Send + Sync + 'static>;

/// A request that cannot be written in its framing, or output that does not match the framing of replies.
///
/// [`kind`](Self::kind) is for programs. `Display` is for people: one line that says what was seen and names the fix if
/// there is one. As with [`std::io::Error`], that line includes the cause, so [`source`](Error::source) continues with the
/// cause's own cause. [`cause`](Self::cause) returns the cause.
///
/// # Examples
///
/// ```
/// use subfeed::framing::{FramingErrorKind, RequestFraming};
///
/// let framing = RequestFraming::line();
/// let mut out = Vec::new();
/// framing.open(&mut out);
/// out.extend_from_slice(b"two\nlines");
/// let error = framing.close(&mut out, 0).unwrap_err();
///
/// assert_eq!(error.kind(), FramingErrorKind::ContainsDelimiter { byte: b'\n', at: 3 });
/// assert_eq!(
///     error.to_string(),
///     "the request contains its own delimiter, byte 0x0a, at byte 3: write it with \
///      RequestFraming::raw if the worker knows where it ends, choose another framing, such as a \
///      length prefix, or encode the request",
/// );
/// ```
#[derive(Debug)]
pub struct FramingError(Box<Inner>);

// Boxed, because the error travels in the `Result` of every single scan.
#[derive(Debug)]
struct Inner {
    kind: FramingErrorKind,
    cause: Option<Cause>,
    /// What the output has ended with was passed over: it is not the half of a reply.
    nothing: bool,
}

/// What is wrong with a request or with a reply.
///
/// A request can be wrong in two ways, [`ContainsDelimiter`](Self::ContainsDelimiter) and [`TooLong`](Self::TooLong), and is
/// then not written. A reply can be wrong in all ways but the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FramingErrorKind {
    /// The request contains the byte that ends it, so the worker would take it for two requests.
    ContainsDelimiter {
        /// That byte.
        byte: u8,
        /// Its first position in the request, counted from 0.
        at: usize,
    },
    /// The reply is larger than allowed, or the request larger than its length prefix can say.
    TooLong {
        /// Its size in bytes: the announced size, or the limit plus one if the size was not announced. `u64::MAX` stands
        /// for anything larger.
        size: u64,
        /// The largest size that is allowed.
        limit: u64,
    },
    /// The header of the reply does not give a valid size.
    BadHeader,
    /// The mark of another packet came before this reply's own mark: the worker skipped a sync command.
    MarkSkipped {
        /// The packet whose mark was expected.
        expected: u64,
        /// The packet whose mark came.
        found: u64,
    },
    /// The sync command came back as text, in front of the mark or instead of it: the worker echoes or
    /// quotes what it reads.
    MarkEchoed {
        /// The packet whose mark it was.
        packet: u64,
    },
    /// A mark that had already ended a reply came again. That reply may have been incomplete. So the error concerns two
    /// packets: that one, and the one whose reply was expected now.
    MarkRepeated {
        /// The packet whose mark it was.
        packet: u64,
    },
    /// There is other text on the line of the mark, although the [sentinel](super::Sentinel::alone) promises that the mark
    /// is alone on its line.
    MarkNotAlone {
        /// The packet whose mark it was.
        packet: u64,
    },
    /// The text beside a mark of a [pair](super::Sentinel::paired) is not the usual output of the sync command: the request
    /// left something open, or the tool printed something else.
    NoiseChanged {
        /// The packet whose reply was expected.
        packet: u64,
    },
    /// The worker's output ended inside the reply.
    Truncated,
    /// The reply violates its framing in another way.
    ReplyMalformed,
}

impl FramingError {
    /// An error of the given kind with a cause: text, or another error.
    ///
    /// For implementations of [`Framing`](super::Framing). Without a cause, write `FramingErrorKind::Truncated.into()`.
    ///
    /// # Examples
    ///
    /// ```
    /// use subfeed::framing::{FramingError, FramingErrorKind};
    ///
    /// let error = FramingError::new(FramingErrorKind::BadHeader, "the first byte is no version");
    /// assert_eq!(
    ///     error.to_string(),
    ///     "the header of the reply gives no size: the first byte is no version",
    /// );
    /// ```
    pub fn new(kind: FramingErrorKind, cause: impl Into<Cause>) -> Self {
        Self(Box::new(Inner { kind, cause: Some(cause.into()), nothing: false }))
    }

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> FramingErrorKind {
        self.0.kind
    }

    /// Whether the output ended inside a reply.
    pub(crate) fn is_truncated(&self) -> bool {
        matches!(self.0.kind, FramingErrorKind::Truncated)
    }

    /// Whether it ended with the half of a reply, and not only with what is passed over.
    pub(crate) fn is_half(&self) -> bool {
        self.is_truncated() && !self.0.nothing
    }

    /// The output ended before a reply began: all that came was passed over.
    pub(super) fn nothing_but_skipped() -> Self {
        let kind = FramingErrorKind::Truncated;
        Self(Box::new(Inner { kind, cause: None, nothing: true }))
    }

    /// A packet whose reply has been cut before and is not to be believed any more: the mark that ended it
    /// came again.
    ///
    /// It differs from the packet that the error is about, unless the mark came twice on one line. `None`
    /// for every other kind of error.
    #[must_use]
    pub(crate) fn disproves(&self) -> Option<u64> {
        match self.0.kind {
            FramingErrorKind::MarkRepeated { packet } => Some(packet),
            _ => None,
        }
    }

    /// The cause that was given, if any.
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.0.cause.as_deref()
    }

    pub(super) fn reply_too_long(size: u64, limit: usize) -> Self {
        FramingErrorKind::TooLong { size, limit: limit as u64 }.into()
    }
}

impl From<FramingErrorKind> for FramingError {
    fn from(kind: FramingErrorKind) -> Self {
        Self(Box::new(Inner { kind, cause: None, nothing: false }))
    }
}

impl fmt::Display for FramingErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ContainsDelimiter { byte, at } => {
                write!(f, "the request contains its own delimiter, byte 0x{byte:02x}, at byte {at}")
            }
            Self::TooLong { size, limit } => {
                write!(f, "{size} bytes or more pass the limit of {limit}")
            }
            Self::BadHeader => f.write_str("the header of the reply gives no size"),
            Self::MarkSkipped { expected, found } => {
                write!(f, "the mark of packet {found} came before that of packet {expected}")
            }
            Self::MarkEchoed { packet } => write!(
                f,
                "the worker gave back the sync command of packet {packet} instead of its mark alone"
            ),
            Self::MarkRepeated { packet } => {
                write!(
                    f,
                    "the mark of packet {packet} came twice, so that its reply may be wrong too"
                )
            }
            Self::MarkNotAlone { packet } => {
                write!(f, "the mark of packet {packet} is not alone on its line")
            }
            Self::NoiseChanged { packet } => {
                write!(f, "what stands beside the marks of packet {packet} is not as it always was")
            }
            Self::Truncated => f.write_str("the worker's output ended inside a reply"),
            Self::ReplyMalformed => f.write_str("the reply breaks the rules of its framing"),
        }
    }
}

impl FramingErrorKind {
    /// The fix that is most likely, for an error that says no more than its kind.
    fn advice(self) -> &'static str {
        match self {
            Self::ContainsDelimiter { .. } => {
                "write it with RequestFraming::raw if the worker knows where it ends, choose another \
                 framing, such as a length prefix, or encode the request"
            }
            Self::TooLong { .. } => {
                "raise the reply limit, or check that the tool prints what its framing expects"
            }
            Self::BadHeader | Self::ReplyMalformed => {
                "check that the tool prints what its framing expects, and nothing else on stdout"
            }
            Self::MarkSkipped { .. } => {
                "the worker dropped a sync command; a request that leaves something open, such as a \
                 quote or a bracket, swallows what follows it"
            }
            Self::MarkEchoed { .. } => {
                "turn off the tool's echo, or look in the request for something left open, such as \
                 a quote or a bracket, that swallowed the command"
            }
            Self::MarkRepeated { .. } => {
                "let only the tool's own evaluation join the mark, with {mark1} and {mark2} in the sync \
                 command, and turn off its echo"
            }
            Self::MarkNotAlone { .. } => {
                "the tool complains about the sync command, or prints a prompt, or a reply without its last \
                 line feed; where that is its way, leave out Sentinel::alone"
            }
            Self::NoiseChanged { .. } => {
                "look in the request for something left open, such as an operator or a bracket, that took \
                 the sync command for a part of itself"
            }
            Self::Truncated => {
                "it exited, crashed or was ended there, or its framing is another one"
            }
        }
    }
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.cause {
            Some(cause) => write!(f, "{}: {cause}", self.0.kind),
            None => write!(f, "{}: {}", self.0.kind, self.0.kind.advice()),
        }
    }
}

impl Error for FramingError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The cause itself is already part of `Display`; a report that walks the chain would print
        // it twice.
        self.0.cause.as_ref().and_then(|cause| cause.source())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_prints_one_line_that_goes_on_after_a_colon() {
        for kind in [
            FramingErrorKind::ContainsDelimiter { byte: 10, at: 17 },
            FramingErrorKind::TooLong { size: 2, limit: 1 },
            FramingErrorKind::BadHeader,
            FramingErrorKind::MarkSkipped { expected: 1, found: 2 },
            FramingErrorKind::MarkEchoed { packet: 3 },
            FramingErrorKind::MarkRepeated { packet: 3 },
            FramingErrorKind::MarkNotAlone { packet: 3 },
            FramingErrorKind::NoiseChanged { packet: 3 },
            FramingErrorKind::Truncated,
            FramingErrorKind::ReplyMalformed,
        ] {
            let line = FramingError::from(kind).to_string();
            assert!(!line.contains('\n'), "{line}");
            assert!(line.contains(": "), "{line}");
        }
    }

    #[test]
    fn the_cause_is_printed_once_along_the_chain() {
        let inner = std::io::Error::other("the deepest");
        let error = FramingError::new(FramingErrorKind::BadHeader, inner);
        assert!(error.to_string().ends_with(": the deepest"));
        assert!(error.cause().is_some());
        assert!(error.source().is_none());
    }

    #[test]
    fn an_error_is_one_word_wide_and_crosses_threads() {
        fn crosses<T: Send + Sync + 'static>() {}
        crosses::<FramingError>();
        assert_eq!(size_of::<FramingError>(), size_of::<usize>());
    }
}
