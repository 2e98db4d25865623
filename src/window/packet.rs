//! What becomes of packets: spans of consecutive ids with one outcome each.

use std::ops::Range;
use std::process::ExitStatus;
use std::sync::Arc;

use crate::error::Error;
use crate::record::{Buffer, PacketId, Run};
use crate::window::delimiters::Delimiters;
use crate::window::unwind::Payload;

/// Which session answered, for the errors of `decode`.
#[derive(Debug)]
pub(crate) struct Label {
    pub(crate) worker: usize,
    pub(crate) pid: Option<u32>,
    pub(crate) command: Arc<str>,
}

/// How the consumer finds the replies in the bytes, and how far it has come.
#[derive(Clone, Debug)]
pub(crate) enum Cut {
    /// Each reply ends before the next byte like this.
    Delimiter { find: Delimiters, last: Range<usize> },
    /// The replies one by one, and under each the ranges of its side outputs.
    Parts { ranges: Arc<[Range<usize>]>, next: usize, sides: usize },
}

/// The replies to consecutive packets.
#[derive(Debug)]
pub struct Replies {
    pub(crate) buffer: Arc<Buffer>,
    pub(crate) at: Range<usize>,
    pub(crate) cut: Cut,
    pub(crate) label: Arc<Label>,
    /// The requests, kept only where `decode` may fail and its error must name them.
    pub(crate) requests: Option<Run>,
}

impl Cut {
    pub(crate) fn at_each(delimiter: u8) -> Self {
        Self::Delimiter { find: Delimiters::new(delimiter), last: 0..0 }
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
/// subprocesses answer, values where threads do.
#[derive(Debug)]
pub(crate) struct Span<R = Replies> {
    pub(crate) first: PacketId,
    pub(crate) count: u64,
    /// Bytes held until the consumer is done with the span.
    pub(crate) weight: usize,
    pub(crate) outcome: Outcome<R>,
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
}
