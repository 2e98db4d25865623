//! The scanner behind a [`Sentinel`] that prints a pair of marks: what a tool says of its own beside a mark
//! is learned from the pair at the session's start, and must be the same ever after.
//!
//! ```text
//! banner OPENING noise OPENED noise reply FIRST noise LAST noise reply FIRST noise LAST ...
//!                             [ taken off ]     [ same ]   [ taken off ]
//! ```
//!
//! A reply is complete with the last byte of its second mark, so that nothing is waited for that a tool
//! may say only when it reads on. The noise behind that mark stands in front of the next reply.
//!
//! # Invariants
//! 1. The search goes on where it left off; of a mark that was found it is remembered where it ends.
//! 2. Nothing but their number is said of the bytes before a mark until that mark has come: while no reply
//!    is owed, whatever a tool says is only kept.
//! 3. How much is too much depends on the bytes up to the next mark, and not on the reads in which they
//!    came: it is asked of every place up to which there is no mark, and then of the mark's.

use std::ops::Range;

use bstr::{BStr, ByteSlice};

use super::mark::{Found, LENGTH, Mark, Role};
use super::marks::Witness;
use super::parts::unfinished;
use super::{Framing, FramingError, FramingErrorKind, Position, Scan, Sentinel};

/// What may stand in front of the pair at the start.
const LONGEST_BEGINNING: usize = 1 << 20;

/// What may stand between the marks of a pair, and how much longer digits may make it.
const LONGEST_NOISE: usize = 16 << 10;

/// What the tool says of its own after a sync command.
#[derive(Debug)]
struct Noise(Vec<u8>);

impl Noise {
    /// How many bytes at the beginning of `text` are this noise, but for digits.
    ///
    /// It does not end with a digit, so that more text changes nothing about the answer.
    fn at_start(&self, text: &[u8]) -> Option<usize> {
        let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (mut ours, mut theirs) = (0, 0);
        while ours < self.0.len() {
            match (digits(&self.0[ours..]), digits(&text[theirs..])) {
                (0, _) if text.get(theirs) == Some(&self.0[ours]) => {
                    (ours, theirs) = (ours + 1, theirs + 1);
                }
                (own @ 1.., their @ 1..) => (ours, theirs) = (ours + own, theirs + their),
                _ => return None,
            }
        }
        (theirs <= self.0.len() + LONGEST_NOISE).then_some(theirs)
    }
}

/// What the pair at the session's start has shown.
#[derive(Debug)]
enum Learned {
    Nothing,
    Noise(Noise),
    /// It cannot be used, for this reason. Said when there is a packet that it can be said to.
    Unusable(String),
}

#[derive(Debug)]
pub(super) struct Pair {
    witness: Witness,
    learned: Learned,
    state: State,
}

/// How far the scan of one reply has come.
#[derive(Debug, Default)]
struct State {
    /// No mark begins between the last one found and here.
    seen: usize,
    stage: Stage,
}

/// The marks in front of and behind this reply that have come, and where the last of them ends.
#[derive(Clone, Debug, Default)]
enum Stage {
    #[default]
    Start,
    Opening(usize),
    Opened(usize),
    First {
        body: Range<usize>,
        end: usize,
    },
}

fn changed(position: Position, cause: impl Into<String>) -> FramingError {
    FramingError::new(FramingErrorKind::NoiseChanged { packet: position.packet }, cause.into())
}

/// As much of these bytes as is shown in an error.
fn excerpt(bytes: &[u8]) -> &BStr {
    bytes[..bytes.len().min(80)].as_bstr()
}

impl Pair {
    pub(super) fn new(sentinel: &Sentinel) -> Self {
        Self { witness: Witness::new(sentinel), learned: Learned::Nothing, state: State::default() }
    }

    /// Whether too much has come, when no mark begins before `upto`.
    fn bound(&self, input: &[u8], upto: usize, position: Position) -> Result<(), FramingError> {
        let from = match (&self.state.stage, &self.learned) {
            (Stage::Start, Learned::Nothing) => {
                return match upto > LONGEST_BEGINNING.max(position.limit) {
                    true => Err(changed(
                        position,
                        "the pair of marks at the session's start is not among the first MiB",
                    )),
                    false => Ok(()),
                };
            }
            (Stage::Opening(end) | Stage::First { end, .. }, _) => {
                return match upto - end > LONGEST_NOISE {
                    true => {
                        Err(changed(position, "16 KiB and more stand between the marks of a pair"))
                    }
                    false => Ok(()),
                };
            }
            (Stage::Start, _) => 0,
            (Stage::Opened(end), _) => *end,
        };
        let text = &input[from..upto];
        let body = match self.noise_at_start(text) {
            Some(noise) => text.len() - noise,
            // It has not come in full, or never will.
            None => text.len().saturating_sub(2 * LONGEST_NOISE),
        };
        match body > position.limit {
            true => Err(FramingError::reply_too_long(position.limit as u64 + 1, position.limit)),
            false => Ok(()),
        }
    }

    fn noise_at_start(&self, text: &[u8]) -> Option<usize> {
        match &self.learned {
            Learned::Noise(noise) => noise.at_start(text),
            _ => None,
        }
    }

    /// Takes in what stands between the marks at the start.
    fn learn(&mut self, noise: &[u8]) {
        self.learned = match noise.last().is_some_and(u8::is_ascii_digit) {
            false => Learned::Noise(Noise(noise.to_vec())),
            true => Learned::Unusable(format!(
                "what the sync command prints of its own is {:?}, which ends with a digit that could not \
                 be told from those of a reply",
                excerpt(noise)
            )),
        };
    }

    /// What stands where noise is expected, if it does not begin with that.
    fn expect(&self, text: &[u8], where_: &str, position: Position) -> Result<usize, FramingError> {
        let noise = match &self.learned {
            Learned::Noise(noise) => noise,
            Learned::Nothing => {
                return Err(changed(
                    position,
                    "the pair of marks at the session's start never came",
                ));
            }
            Learned::Unusable(problem) => return Err(changed(position, problem.clone())),
        };
        noise.at_start(text).ok_or_else(|| {
            let (found, expected) = (excerpt(text), excerpt(&noise.0));
            changed(
                position,
                format!(
                    "{where_} stands {found:?}, where {expected:?} was expected; look in the request for \
                     something left open, such as an operator or a bracket"
                ),
            )
        })
    }

    /// Takes in a mark; the reply, if it was its last.
    fn step(
        &mut self,
        input: &[u8],
        at: usize,
        mark: Mark,
        position: Position,
    ) -> Result<Option<Scan>, FramingError> {
        let end = at + LENGTH;
        let stage = match (self.state.stage.clone(), mark.role) {
            (Stage::Start, Role::Opening) if matches!(self.learned, Learned::Nothing) => {
                Stage::Opening(end)
            }
            (Stage::Opening(from), Role::Opened) => {
                self.learn(&input[from..at]);
                Stage::Opened(end)
            }
            (_, Role::Opening | Role::Opened) => {
                return Err(changed(
                    position,
                    "a mark of the pair at the session's start came out of its turn",
                ));
            }
            (stage @ (Stage::Start | Stage::Opened(_)), Role::First) => {
                let from = if let Stage::Opened(end) = stage { end } else { 0 };
                let text = &input[from..at];
                self.witness.judge(mark, text, position)?;
                let noise = self.expect(text, "behind the mark before it", position)?;
                Stage::First { body: from + noise..at, end }
            }
            (Stage::First { body, end: from }, Role::Last) => {
                let between = &input[from..at];
                self.witness.judge(mark, between, position)?;
                let where_ = "between its two marks";
                if self.expect(between, where_, position)? < between.len() {
                    let found = excerpt(between);
                    return Err(changed(
                        position,
                        format!("{where_} stands {found:?}, more than usual"),
                    ));
                }
                self.witness.take(position.packet);
                return Ok(Some(Scan::Complete { body, len: end }));
            }
            (stage, Role::First | Role::Last) => {
                self.witness.judge(mark, b"", position)?;
                if let Stage::First { .. } = stage {
                    return Err(FramingErrorKind::MarkRepeated { packet: mark.packet }.into());
                }
                return Err(changed(
                    position,
                    "the first of its two marks did not come, so that the request took the sync command \
                     for a part of itself",
                ));
            }
        };
        self.state = State { seen: end, stage };
        Ok(None)
    }

    fn find(&mut self, input: &[u8], position: Position) -> Result<Scan, FramingError> {
        loop {
            let found = self.witness.find(input, self.state.seen);
            let (Found::Mark { at, .. } | Found::Half { at } | Found::None { before: at }) = found;
            self.bound(input, at, position)?;
            match found {
                Found::Mark { mark, .. } => {
                    if let Some(scan) = self.step(input, at, mark, position)? {
                        return Ok(scan);
                    }
                }
                Found::Half { .. } => {
                    return Err(FramingErrorKind::MarkEchoed { packet: position.packet }.into());
                }
                Found::None { before } => {
                    let partial = unfinished(0, position)?;
                    self.state.seen = before;
                    return Ok(partial);
                }
            }
        }
    }
}

impl Framing for Pair {
    fn scan(&mut self, input: &[u8], position: Position) -> Result<Scan, FramingError> {
        let scan = self.find(input, position);
        if !matches!(scan, Ok(Scan::Partial)) {
            self.state = State::default();
        }
        scan
    }
}

#[cfg(test)]
#[path = "pair_tests.rs"]
mod tests;
