//! Replies out of their bytes, one at a time, on the consumer's thread.

use std::ops::Range;

use crate::error::Error;
use crate::record::PacketId;
use crate::template::codec::Reply;
use crate::window::packet::{Cut, Replies};

impl Replies {
    /// Finds the next reply; [`last`](Replies::last) then gives it.
    #[inline]
    pub(crate) fn skip(&mut self) {
        match &mut self.cut {
            Cut::Delimiter { find, per, last } => {
                let Range { start, end } = self.at;
                let found = find.nth(*per, &self.buffer, start, end).unwrap_or(end);
                *last = start..found;
                self.at.start = (found + 1).min(end);
            }
            Cut::Parts { next, sides, .. } => *next += 1 + *sides,
        }
    }

    /// The reply that was found last.
    #[inline]
    pub(crate) fn last<'a>(&'a self, packet: PacketId, names: &'a [String]) -> Reply<'a> {
        let bytes: &[u8] = &self.buffer;
        let (body, sides) = match &self.cut {
            Cut::Delimiter { last, .. } => (last, &[][..]),
            Cut::Parts { ranges, next, sides } => {
                let at = *next - 1 - *sides;
                (&ranges[at], &ranges[at + 1..*next])
            }
        };
        Reply {
            bytes: &bytes[body.clone()],
            packet: packet.0,
            worker: self.label.worker,
            names,
            sides: (bytes, sides),
        }
    }

    /// The bytes of each of the next `n` replies, its side outputs among them; its framing is not, nor are the last
    /// `beside` of its parts.
    pub(crate) fn lengths(&self, n: usize, beside: usize) -> Vec<usize> {
        let mut lengths = Vec::with_capacity(n);
        match &self.cut {
            Cut::Delimiter { find, per, .. } => {
                let (mut find, Range { mut start, end }) = (find.clone(), self.at.clone());
                for _ in 0..n {
                    let found = find.nth(*per, &self.buffer, start, end).unwrap_or(end);
                    lengths.push(found.saturating_sub(start));
                    start = (found + 1).min(end);
                }
            }
            Cut::Parts { ranges, next, sides } => {
                let parts = ranges[*next..].chunks(1 + *sides).take(n);
                let own = 1 + *sides - beside;
                lengths
                    .extend(parts.map(|parts| parts[..own].iter().map(Range::len).sum::<usize>()));
            }
        }
        lengths
    }

    /// Says of an error of `decode` whom it concerns.
    pub(crate) fn explain(&self, packet: PacketId, error: Error) -> Error {
        let error = error.by(self.label.worker, self.label.pid, &self.label.command);
        let error = error.on(self.label.host.clone());
        let asked = self.requests.as_ref().and_then(|run| {
            let at = usize::try_from(packet.since(run.first())).ok()?;
            (at < run.len()).then(|| run.batch.request(run.from + at))
        });
        match asked {
            Some(request) => error.asked(request),
            None => error,
        }
    }
}
