//! What becomes of packets: spans of consecutive ids with one outcome each.

use std::ops::Range;
use std::process::ExitStatus;
use std::sync::Arc;

use crate::error::Error;
use crate::record::{Buffer, PacketId, Run};
use crate::window::delimiters::{Delimiters, nth_end};
use crate::window::unwind::Payload;

/// Which session answered, for the errors of `decode`.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    pub(crate) worker: usize,
    pub(crate) pid: Option<u32>,
    /// The machine, where that is another one.
    pub(crate) host: Option<Arc<str>>,
    pub(crate) command: Arc<str>,
}

/// How the consumer finds the replies in the bytes, and how far it has come.
#[derive(Clone, Debug)]
pub(crate) enum Cut {
    /// Each reply ends before the next byte like this, or before the last of so many of them.
    Delimiter { find: Delimiters, per: usize, last: Range<usize> },
    /// The replies one by one, and under each the ranges of its side outputs.
    Parts { ranges: Arc<[Range<usize>]>, next: usize, sides: usize },
}

/// The replies to consecutive packets.
#[derive(Debug)]
pub(crate) struct Replies {
    pub(crate) buffer: Arc<Buffer>,
    pub(crate) at: Range<usize>,
    pub(crate) cut: Cut,
    pub(crate) label: Arc<Label>,
    /// The requests, kept only where `decode` may fail and its error must name them.
    pub(crate) requests: Option<Run>,
}

impl Cut {
    /// Each reply ends with the last of `per` delimiters.
    pub(crate) fn at_each(delimiter: u8, per: usize) -> Self {
        Self::Delimiter { find: Delimiters::new(delimiter), per, last: 0..0 }
    }

    /// Splits the first `n` replies off: where they are among the bytes `at` of the buffer, and how to find
    /// them there. What is left stays.
    pub(crate) fn split_front(
        &mut self,
        buffer: &[u8],
        at: &mut Range<usize>,
        n: u64,
    ) -> (Range<usize>, Self) {
        match self {
            Self::Delimiter { find, per, .. } => {
                let len = nth_end(&buffer[at.clone()], find.delimiter(), n * *per as u64);
                let front = at.start..at.start + len;
                at.start += len;
                (front, self.clone())
            }
            Self::Parts { ranges, next, sides } => {
                let front = Self::Parts { ranges: Arc::clone(ranges), next: *next, sides: *sides };
                *next += n as usize * (1 + *sides);
                // The bytes are shared; each span is charged with what it really refers to.
                let end = ranges.get(*next).map_or(at.end, |range| range.start).max(at.start);
                let taken = at.start..end;
                at.start = end;
                (taken, front)
            }
        }
    }
}

#[derive(Debug)]
pub(crate) enum Outcome<R = Replies> {
    Replies(R),
    /// One packet.
    Failed(Error),
    /// One packet, or the end of the input: the panic resumes on the consumer's thread.
    Panicked(Payload),
    /// Any number of packets that a fatal error left unanswered.
    Halted,
    /// One packet that was no work: its item passes through.
    Passed,
}

/// Consecutive packets and what became of them. `R` holds the replies to all of them: bytes where
/// processes answer, values where threads do.
#[derive(Debug)]
pub(crate) struct Span<R = Replies> {
    pub(crate) first: PacketId,
    pub(crate) count: u64,
    /// Bytes held until the consumer is done with the span.
    pub(crate) weight: usize,
    pub(crate) outcome: Outcome<R>,
}

impl Span {
    /// Splits the first `n` packets off (`0 < n < count`).
    pub(crate) fn split_front(&mut self, n: u64) -> Self {
        debug_assert!(0 < n && n < self.count);
        let (weight, outcome) = match &mut self.outcome {
            Outcome::Replies(replies) => {
                let Replies { buffer, at, cut, label, requests } = replies;
                let (front, front_cut) = cut.split_front(buffer, at, n);
                let requests = requests.as_mut().map(|run| run.split_front(n as usize));
                let weight = front.len() + requests.as_ref().map_or(0, Run::weight);
                let (buffer, label) = (Arc::clone(buffer), Arc::clone(label));
                (
                    weight,
                    Outcome::Replies(Replies {
                        buffer,
                        at: front,
                        cut: front_cut,
                        label,
                        requests,
                    }),
                )
            }
            Outcome::Halted => (0, Outcome::Halted),
            // These are of one packet each.
            _ => (0, Outcome::Passed),
        };
        let front = Self { first: self.first, count: n, weight, outcome };
        self.first = self.first.plus(n);
        self.count -= n;
        self.weight -= weight;
        front
    }
}

impl<R> Span<R> {
    pub(crate) fn one(first: PacketId, outcome: Outcome<R>) -> Self {
        Self { first, count: 1, weight: 0, outcome }
    }
}

/// How a feed ended.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// A fatal error that no packet could carry.
    pub(crate) fatal: Option<Error>,
    /// A panic of the source, resumed after everything that was pulled.
    pub(crate) panic: Option<Payload>,
    /// What belongs to no packet: a trailing extra reply, a bad exit after the last answer.
    pub(crate) remarks: Vec<Error>,
    /// Packets that each worker was handed in full, and how its sessions ended; only where a feed is
    /// drained.
    pub(crate) accepted: Vec<u64>,
    pub(crate) exits: Vec<SessionEnd>,
}

/// How a session of a drained feed ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionEnd {
    pub(crate) worker: usize,
    pub(crate) status: Option<ExitStatus>,
    /// It was not asked to.
    pub(crate) early: bool,
    /// Its status is one that is accepted.
    pub(crate) well: bool,
}
