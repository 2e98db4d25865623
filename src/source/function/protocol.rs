//! What the two processes say to each other.
//!
//! A message is a head of 13 bytes (the length of the body, what it is, the generation) and a body. The
//! *generation* numbers the passes of one source, from 1 on; a message about another pass than the one that
//! is under way is not mixed into it but dropped, whatever the timing. Both ends are the same program, so
//! there are no versions.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Told};

/// What the parent orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Command {
    /// The first word: an [`Opening`]. Generation 0.
    Open = 0,
    /// Leave: whatever is going on, drop it and exit.
    Abort = 1,
    /// Start a pass. The body is how many items of it may be made, until more are allowed.
    Start = 2,
    /// Stop the passes up to this generation. Ignored in stand-by.
    Stop = 3,
    /// The body is how many items of the pass may be made in all.
    More = 4,
}

/// What the child reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Status {
    /// An order that makes no sense in this state. The child exits.
    UnexpectedCommand = 1,
    /// With the [`Failure`]. The child exits.
    InitializationFailed = 2,
    /// From here on the child stands by.
    InitializationSucceeded = 3,
    IterationStarted = 4,
    /// The pass is at its end, or was stopped. The child stands by.
    IterationFinished = 5,
    /// With the item.
    IteratorSuccess = 6,
    /// With the [`Failure`]: of one item, or of the pass, after which the child stands by.
    IteratorFailed = 7,
}

impl Command {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Open, Self::Abort, Self::Start, Self::Stop, Self::More]
            .into_iter()
            .find(|&command| command as u8 == byte)
    }
}

impl Status {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::UnexpectedCommand,
            Self::InitializationFailed,
            Self::InitializationSucceeded,
            Self::IterationStarted,
            Self::IterationFinished,
            Self::IteratorSuccess,
            Self::IteratorFailed,
        ]
        .into_iter()
        .find(|&status| status as u8 == byte)
    }
}

/// The length of a message's head.
pub(crate) const HEAD: usize = 13;

/// Appends a message.
pub(crate) fn put(out: &mut Vec<u8>, what: u8, generation: u64, body: &[u8]) {
    let start = open(out);
    out.extend_from_slice(body);
    close(out, start, what, generation);
}

/// Leaves room for the head of a message whose body comes now; [`close`] completes it.
pub(crate) fn open(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.resize(start + HEAD, 0);
    start
}

/// Completes the message that was opened at `start`. Its body is shorter than 4 GiB.
pub(crate) fn close(out: &mut [u8], start: usize, what: u8, generation: u64) {
    let len = u32::try_from(out.len() - start - HEAD).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4] = what;
    out[start + 5..start + HEAD].copy_from_slice(&generation.to_le_bytes());
}

/// A head: what it is, the generation, and where the body is, counted from the head's first byte.
pub(crate) fn head(bytes: &[u8; HEAD]) -> (u8, u64, Range<usize>) {
    let [l0, l1, l2, l3, what, generation @ ..] = *bytes;
    let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    (what, u64::from_le_bytes(generation), HEAD..HEAD + len)
}

/// The number that is the body of [`Command::Start`] and [`Command::More`].
pub(crate) fn number(body: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(body.try_into().ok()?))
}

/// The first word to the child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    pub(crate) function: String,
    /// The function's argument, serialized.
    pub(crate) argument: Vec<u8>,
    /// The largest item in bytes.
    pub(crate) item_limit: u64,
    /// How long the child may take to drop what it has when it is told to leave.
    pub(crate) leave_ms: u64,
}

impl Opening {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let [item_limit, leave_ms] = [self.item_limit, self.leave_ms].map(u64::to_le_bytes);
        let len = (self.function.len() as u64).to_le_bytes();
        [&item_limit, &leave_ms, &len, self.function.as_bytes(), &self.argument].concat()
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let (item_limit, body) = body.split_at_checked(8)?;
        let (leave_ms, body) = body.split_at_checked(8)?;
        let (len, body) = body.split_at_checked(8)?;
        let (function, argument) = body.split_at_checked(usize::try_from(number(len)?).ok()?)?;
        Some(Self {
            function: String::from_utf8(function.to_vec()).ok()?,
            argument: argument.to_vec(),
            item_limit: number(item_limit)?,
            leave_ms: number(leave_ms)?,
        })
    }
}

/// What failed in the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fault {
    /// An initializer, the function itself, or the beginning of a pass gave an error.
    Begin = 0,
    /// An item is an error.
    Item = 1,
    /// An item cannot be serialized, or is too large.
    Encode = 2,
    /// Code of the user's panicked.
    Panic = 3,
    /// A source that can be iterated once was iterated again.
    Spent = 4,
}

/// How much of an error crosses.
const MOST_CAUSES: usize = 64;
const LONGEST_MESSAGE: usize = 32 << 10;
/// Longer than any report but an item.
pub(crate) const LONGEST_REPORT: usize = 4 << 20;

/// A failure in the child, as it crosses: the messages of an error and of what caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) fault: Fault,
    pub(crate) chain: Vec<String>,
}

impl Failure {
    pub(crate) fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self { fault, chain: vec![message.into()] }
    }

    /// Of an error, with everything that caused it.
    pub(crate) fn of(fault: Fault, error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = std::iter::successors(Some(error), |error| error.source());
        Self { fault, chain: causes.take(MOST_CAUSES).map(ToString::to_string).collect() }
    }

    /// Whether the pass is over with it; otherwise it concerns one item.
    pub(crate) fn ends_the_pass(&self) -> bool {
        !matches!(self.fault, Fault::Item | Fault::Encode)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = vec![self.fault as u8];
        for message in &self.chain {
            let message = beginning(message);
            body.extend_from_slice(&(message.len() as u64).to_le_bytes());
            body.extend_from_slice(message.as_bytes());
        }
        body
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let (&fault, mut body) = body.split_first()?;
        let fault = [Fault::Begin, Fault::Item, Fault::Encode, Fault::Panic, Fault::Spent]
            .into_iter()
            .find(|&known| known as u8 == fault)?;
        let mut chain = Vec::new();
        while !body.is_empty() {
            let (len, rest) = body.split_at_checked(8)?;
            let (message, rest) = rest.split_at_checked(usize::try_from(number(len)?).ok()?)?;
            chain.push(String::from_utf8(message.to_vec()).ok()?);
            body = rest;
        }
        Some(Self { fault, chain })
    }

    /// The error that the consumer gets. Fatal if it ends the pass.
    pub(crate) fn into_error(self, what_began: &'static str) -> Error {
        let (kind, message) = match self.fault {
            Fault::Begin => (ErrorKind::Failed, what_began),
            Fault::Item => (ErrorKind::Failed, "the function gave an error for this item"),
            Fault::Encode => (ErrorKind::Encode, "the item cannot be sent"),
            Fault::Panic => (ErrorKind::Failed, "the function panicked"),
            Fault::Spent => (ErrorKind::Config, "the source cannot be iterated again"),
        };
        let ends = self.ends_the_pass();
        let mut error = Error::new(kind, message);
        if let Some(told) = Told::chain(self.chain) {
            error = error.because(told);
        }
        if ends { error.fatal() } else { error }
    }
}

/// As much of a message as crosses.
fn beginning(message: &str) -> &str {
    let mut end = message.len().min(LONGEST_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_what_is_read() {
        let mut out = b"before".to_vec();
        put(&mut out, Status::IteratorSuccess as u8, 7, b"item");
        let (what, generation, body) = head(out[6..6 + HEAD].try_into().unwrap());
        assert_eq!(Status::from_byte(what), Some(Status::IteratorSuccess));
        assert_eq!((generation, &out[6..][body]), (7, &b"item"[..]));
        assert_eq!((Status::from_byte(0), Status::from_byte(8)), (None, None));
        assert_eq!((Command::from_byte(0), Command::from_byte(5)), (Some(Command::Open), None));
    }

    #[test]
    fn openings_and_failures_come_through_whole_and_nothing_else_does() {
        let opening = Opening {
            function: "f".to_owned(),
            argument: vec![0, 255, 7],
            item_limit: 9,
            leave_ms: 500,
        };
        assert_eq!(Opening::decode(&opening.encode()).as_ref(), Some(&opening));
        assert_eq!(Opening::decode(&opening.encode()[..20]), None);
        let chain = vec!["it failed".to_owned(), String::new(), "because".to_owned()];
        let failure = Failure { fault: Fault::Spent, chain };
        assert_eq!(Failure::decode(&failure.encode()).as_ref(), Some(&failure));
        let bytes = failure.encode();
        assert_eq!(Failure::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Failure::decode(&[]), None);
    }

    #[test]
    fn of_an_endless_error_there_is_a_beginning() {
        let long = Failure::new(Fault::Item, "\u{20ac}".repeat(LONGEST_MESSAGE));
        let short = Failure::decode(&long.encode()).unwrap();
        assert!(
            short.chain[0].len() > LONGEST_MESSAGE - 3
                && long.chain[0].starts_with(&short.chain[0])
        );
        assert!(long.encode().len() * MOST_CAUSES < LONGEST_REPORT);
    }

    #[test]
    fn an_error_keeps_what_caused_it() {
        let chain = ["no dinner", "no fire", "wet wood"].map(String::from).to_vec();
        let error = Failure { fault: Fault::Item, chain }.into_error("");
        let first = error.cause().map(|cause| cause as &dyn std::error::Error);
        let causes = std::iter::successors(first, |e| e.source());
        let causes: Vec<_> = causes.map(ToString::to_string).collect();
        assert_eq!(causes, ["no dinner", "no fire", "wet wood"]);
        assert!(
            !error.is_fatal() && error.to_string().ends_with(": no dinner: no fire: wet wood"),
            "{error}"
        );
    }
}
