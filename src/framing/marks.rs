//! The scanner behind a [`Sentinel`] that prints one mark: finds the marks in a worker's output.
//!
//! All marks of a feed begin with the same bytes, so one `memmem` finds any of them; the packet's id
//! stands behind, at a fixed width. The search is resumed where the last one left off.

use super::mark::{Finder, Found, LENGTH, Mark, Role, Taken};
use super::marker::rest_of_line;
use super::parts::{complete, unfinished};
use super::{Framing, FramingError, FramingErrorKind, Position, Scan, Sentinel};

/// What can be told from one mark and the text before it, whichever scanner has found it.
#[derive(Debug)]
pub(super) struct Witness {
    finder: Finder,
    echo: Vec<u8>,
    /// Half a mark is no text.
    halved: bool,
    taken: Taken,
}

impl Witness {
    pub(super) fn new(sentinel: &Sentinel) -> Self {
        Self {
            finder: Finder::new(sentinel.nonce()),
            echo: sentinel.echo().to_vec(),
            halved: sentinel.is_halved(),
            taken: Taken::default(),
        }
    }

    pub(super) fn find(&self, input: &[u8], from: usize) -> Found {
        if self.halved {
            self.finder.find(input, from)
        } else {
            self.finder.find_whole(input, from)
        }
    }

    /// Whether this is the mark of the packet that is awaited, and was executed rather than quoted.
    pub(super) fn judge(
        &self,
        mark: Mark,
        before: &[u8],
        position: Position,
    ) -> Result<(), FramingError> {
        let Mark { packet, .. } = mark;
        if packet != position.packet {
            return Err(match self.taken.has(packet) {
                true => FramingErrorKind::MarkRepeated { packet },
                false => FramingErrorKind::MarkSkipped { expected: position.packet, found: packet },
            }
            .into());
        }
        if !self.echo.is_empty() && before.ends_with(&self.echo) {
            return Err(FramingErrorKind::MarkEchoed { packet }.into());
        }
        Ok(())
    }

    /// Remembers that the reply of this packet was taken.
    pub(super) fn take(&mut self, packet: u64) {
        self.taken.put(packet);
    }
}

/// The scanner.
#[derive(Debug)]
pub(super) struct Marks {
    witness: Witness,
    /// The mark was promised to be alone on its line.
    alone: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// No mark begins in the first so many bytes; or, once it is found, where it begins.
    seen: usize,
    /// How far the rest of the mark's line was searched, once the mark is found.
    rest: Option<usize>,
}

impl Marks {
    pub(super) fn new(sentinel: &Sentinel) -> Self {
        Self {
            witness: Witness::new(sentinel),
            alone: sentinel.is_alone(),
            state: State::default(),
        }
    }

    /// Whether the rest of the mark's line may be dropped, as it always is.
    fn judge_rest(&self, rest: &[u8], packet: u64) -> Result<(), FramingError> {
        // Dropped with the line, a mark would be missed by the packet that it belongs to.
        match self.witness.find(rest, 0) {
            Found::Mark { mark, .. } if mark.packet == packet => {
                return Err(FramingErrorKind::MarkRepeated { packet }.into());
            }
            Found::Half { .. } => return Err(FramingErrorKind::MarkEchoed { packet }.into()),
            Found::None { .. } if !self.alone => return Ok(()),
            Found::None { .. } => {}
            Found::Mark { .. } => {
                return Err(FramingError::new(
                    FramingErrorKind::ReplyMalformed,
                    "two marks are on one line: let the sync command print the mark once, and a line \
                     feed behind it",
                ));
            }
        }
        match rest.trim_ascii().is_empty() {
            true => Ok(()),
            false => Err(FramingErrorKind::MarkNotAlone { packet }.into()),
        }
    }
}

impl Framing for Marks {
    fn scan(&mut self, input: &[u8], position: Position) -> Result<Scan, FramingError> {
        let State { seen, rest } = std::mem::take(&mut self.state);
        let Position { packet, .. } = position;
        let found = match rest {
            Some(_) => Found::Mark { at: seen, mark: Mark { role: Role::Last, packet } },
            None => self.witness.find(input, seen),
        };
        let (at, mark) = match found {
            Found::Mark { at, mark } => (at, mark),
            Found::Half { at } => {
                complete(0..at, at, at, position)?;
                return Err(FramingErrorKind::MarkEchoed { packet }.into());
            }
            Found::None { before } => {
                let partial = unfinished(before, position)?;
                self.state.seen = before;
                return Ok(partial);
            }
        };
        complete(0..at, at, at, position)?;
        self.witness.judge(mark, &input[..at], position)?;
        if self.alone && at > 0 && input[at - 1] != b'\n' {
            return Err(FramingErrorKind::MarkNotAlone { packet }.into());
        }
        let end = at + LENGTH;
        let Some(len) = rest_of_line(input, end, rest.unwrap_or(end), position.eof)? else {
            self.state = State { seen: at, rest: Some(input.len()) };
            return Ok(Scan::Partial);
        };
        self.judge_rest(&input[end..len], packet)?;
        self.witness.take(packet);
        Ok(Scan::Complete { body: 0..at, len })
    }
}

#[cfg(test)]
#[path = "marks_tests.rs"]
mod tests;
