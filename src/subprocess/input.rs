//! One input channel of a session, as it is being written: what waits, how far it has come, what was not read.
//!
//! # Invariants
//! 1. `at` bytes of the front chunk are written, and it is shorter than that chunk.
//! 2. The newest packets are at the back: what is untouched, or unfinished, is a number counted from there.
//! 3. When a channel is shut, how far it had come is remembered; nothing is queued any more.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use crate::record::Run;

/// What waits to be written to one input channel.
#[derive(Debug)]
enum Chunk {
    Run(Run),
    /// Words that answer to no packet: a preamble, a farewell.
    Words(Arc<[u8]>),
}

/// One input channel: stdin (0) or a side input.
#[derive(Debug, Default)]
pub(crate) struct Input {
    queue: VecDeque<Chunk>,
    /// How much of the front chunk is written.
    at: usize,
    /// No more is queued; close when everything is written.
    closing: bool,
    /// Our end is closed, or the worker closed its own.
    pub(crate) closed: bool,
    pub(crate) optional: bool,
    /// It does not come from us: what is pushed to it goes nowhere.
    pub(crate) absent: bool,
    /// Packets given so far.
    pushed: u64,
    /// How many of these had been begun, and how many written in full, when the worker closed its end.
    pub(crate) shut_at: Option<(u64, u64)>,
    /// Bytes queued so far, and bytes written.
    pub(crate) queued: u64,
    written: u64,
    /// Bytes that lay in the pipe when nobody could read them any more.
    pub(crate) left: Option<u64>,
    /// Bytes that may wait on a side input before the session gets no more packets.
    pub(crate) cap: usize,
}

/// See [`Input::cap`]: a worker that has answered and left that much unread will not come back to it.
const CLOGGED: usize = 1 << 20;

/// What a pipe holds, unless somebody changes it.
pub(crate) const PIPE: u64 = 64 << 10;

impl Input {
    /// A side input. `optional`: the worker may leave that many bytes unread.
    pub(crate) fn side(optional: Option<usize>) -> Self {
        Self { optional: optional.is_some(), cap: optional.unwrap_or(CLOGGED), ..Self::default() }
    }

    pub(crate) fn push(&mut self, channel: usize, run: Run) {
        self.pushed += run.len() as u64;
        if !self.closed {
            self.queued += run.bytes(channel).len() as u64;
            self.queue.push_back(Chunk::Run(run));
        }
    }

    pub(crate) fn push_words(&mut self, words: Arc<[u8]>) {
        if !self.closed && !words.is_empty() {
            self.queued += words.len() as u64;
            self.queue.push_back(Chunk::Words(words));
        }
    }

    pub(crate) fn is_written(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether a request has been written in part.
    pub(crate) fn is_torn(&self, channel: usize) -> bool {
        let Some(Chunk::Run(run)) = self.queue.front() else { return false };
        if self.at == 0 {
            return false;
        }
        let column = &run.batch.columns[channel];
        let written = column.start(run.from) + self.at;
        column.ends[run.from..run.to].binary_search(&written).is_err()
    }

    /// The number of packets, counted from the newest given, of which nothing has been written.
    pub(crate) fn untouched(&self, channel: usize) -> u64 {
        if self.absent {
            return self.pushed;
        }
        if let Some((begun, _)) = self.shut_at {
            return self.pushed - begun;
        }
        let mut untouched = 0;
        for (i, chunk) in self.queue.iter().enumerate() {
            let Chunk::Run(run) = chunk else { continue };
            let column = &run.batch.columns[channel];
            let written =
                if i == 0 { column.start(run.from) + self.at } else { column.start(run.from) };
            let begun =
                (run.from..run.to).take_while(|&packet| column.start(packet) < written).count();
            untouched += (run.len() - begun) as u64;
        }
        untouched
    }

    /// The number of packets, counted from the newest given, that have not been written in full.
    pub(crate) fn unfinished(&self, channel: usize) -> u64 {
        if self.absent {
            return 0;
        }
        if let Some((_, done)) = self.shut_at {
            return self.pushed - done;
        }
        let mut unfinished = 0;
        for (i, chunk) in self.queue.iter().enumerate() {
            let Chunk::Run(run) = chunk else { continue };
            let column = &run.batch.columns[channel];
            let written = column.start(run.from) + if i == 0 { self.at } else { 0 };
            let done = column.ends[run.from..run.to].partition_point(|&end| end <= written);
            unfinished += (run.len() - done) as u64;
        }
        unfinished
    }

    /// Whether more has been written than a pipe holds, so that some of it has been read.
    pub(crate) fn has_been_read(&self) -> bool {
        self.written > PIPE
    }

    /// How many bytes the worker can have read, if that is known.
    pub(crate) fn read(&self) -> Option<u64> {
        Some(self.written.saturating_sub(self.left?))
    }

    /// How many bytes wait to be written.
    pub(crate) fn unwritten(&self) -> u64 {
        if self.closed { 0 } else { self.queued - self.written }
    }

    pub(crate) fn close_when_written(&mut self) {
        self.closing = true;
    }

    /// Whether it is time to close our end.
    pub(crate) fn take_close(&mut self) -> bool {
        let written = self.queue.is_empty() || mutated!(ClosedEarly);
        let now = self.closing && !self.closed && written;
        self.closed |= now;
        now
    }

    /// Drops what was not written: nobody will read it. How far it had come is remembered.
    pub(crate) fn shut(&mut self, channel: usize) {
        if self.closed {
            return;
        }
        let begun = self.pushed - self.untouched(channel);
        let done = self.pushed - self.unfinished(channel);
        self.shut_at = Some((begun, done));
        self.queue.clear();
        self.at = 0;
        self.closed = true;
    }

    /// This channel does not come from us.
    pub(crate) fn is_elsewhere(&mut self) {
        self.queue.clear();
        self.absent = true;
        self.closed = true;
    }

    /// The bytes to write next, for one vectored write; how many of the slices they fill.
    pub(crate) fn slices<'a>(&'a self, channel: usize, slices: &mut [IoSlice<'a>]) -> usize {
        let mut at = self.at;
        let most = slices.len();
        for (slice, chunk) in slices.iter_mut().zip(&self.queue) {
            let bytes = match chunk {
                Chunk::Run(run) => run.bytes(channel),
                Chunk::Words(words) => words,
            };
            *slice = IoSlice::new(&bytes[at..]);
            at = 0;
        }
        most.min(self.queue.len())
    }

    pub(crate) fn wrote(&mut self, channel: usize, mut n: usize) {
        self.written += n as u64;
        while let Some(chunk) = self.queue.front() {
            let len = match chunk {
                Chunk::Run(run) => run.bytes(channel).len(),
                Chunk::Words(words) => words.len(),
            };
            if n < len - self.at {
                self.at += n;
                return;
            }
            n -= len - self.at;
            self.at = 0;
            self.queue.pop_front();
        }
        debug_assert_eq!(n, 0, "wrote more than there was");
    }
}
