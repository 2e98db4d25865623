//! The scanner behind a [`Sentinel`]: finds the marks in a worker's output.
//!
//! All marks of a feed begin with the same bytes, so one `memmem` finds any of them; the packet's id
//! stands behind, at a fixed width. The search is resumed where the last one left off.

use memchr::memmem::Finder;

use super::marker::rest_of_line;
use super::parts::{complete, unfinished};
use super::{Framing, FramingError, FramingErrorKind, Place, Scan, Sentinel};

/// Hexadecimal digits of a packet id in a mark.
const ID: usize = 16;

/// The scanner.
#[derive(Debug)]
pub(super) struct Marks {
    head: Finder<'static>,
    echo: Vec<u8>,
    /// The packet whose mark was taken last in this session.
    last: Option<u64>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// No mark begins in the first so many bytes; or, once it is found, where it begins.
    seen: usize,
    /// How far the rest of the mark's line was searched, once the mark is found.
    rest: Option<usize>,
}

/// The packet id of a mark, from the bytes behind its head.
fn id(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |id, &digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(id << 4 | u64::from(value))
    })
}

impl Marks {
    pub(super) fn new(sentinel: &Sentinel) -> Self {
        Self {
            head: Finder::new(sentinel.head().as_bytes()).into_owned(),
            echo: sentinel.echo().to_vec(),
            last: None,
            state: State::default(),
        }
    }

    /// Where the first mark begins, and its id; or else how many bytes cannot begin one.
    fn find(&self, input: &[u8], mut seen: usize) -> Result<(usize, u64), usize> {
        let head = self.head.needle().len();
        while let Some(at) = self.head.find(&input[seen..]) {
            let at = seen + at;
            let digits = at + head;
            match input.get(digits..digits + ID) {
                None => return Err(at),
                Some(digits) => match id(digits) {
                    Some(id) => return Ok((at, id)),
                    None => seen = at + head,
                },
            }
        }
        Err(seen.max((input.len() + 1).saturating_sub(head)))
    }
}

impl Framing for Marks {
    fn scan(&mut self, input: &[u8], place: Place) -> Result<Scan, FramingError> {
        let State { seen, rest } = std::mem::take(&mut self.state);
        let (at, found) = match rest {
            Some(_) => (seen, place.packet),
            None => match self.find(input, seen) {
                Ok(mark) => mark,
                Err(seen) => {
                    let partial = unfinished(seen, place)?;
                    self.state.seen = seen;
                    return Ok(partial);
                }
            },
        };
        complete(0..at, at, at, place)?;
        if found != place.packet && self.last != Some(found) {
            return Err(FramingErrorKind::MarkSkipped { expected: place.packet, found }.into());
        }
        let echoed = !self.echo.is_empty() && input[..at].ends_with(&self.echo);
        if found != place.packet || echoed {
            return Err(FramingErrorKind::MarkEchoed { packet: found }.into());
        }
        let end = at + self.head.needle().len() + ID;
        let Some(len) = rest_of_line(input, end, rest.unwrap_or(end), place.eof)? else {
            self.state = State { seen: at, rest: Some(input.len()) };
            return Ok(Scan::Partial);
        };
        // Dropped with the line, it would be missed by the packet that it belongs to.
        if self.head.find(&input[end..len]).is_some() {
            return Err(FramingError::new(
                FramingErrorKind::ReplyMalformed,
                "two marks are on one line: let the sync command print the mark once, and a line \
                 feed behind it",
            ));
        }
        self.last = Some(place.packet);
        Ok(Scan::Complete { body: 0..at, len })
    }
}

#[cfg(test)]
#[path = "marks_tests.rs"]
mod tests;
