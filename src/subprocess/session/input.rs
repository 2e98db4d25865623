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
pub(super) struct Input {
    /// Its place among the inputs, and so the column of a batch that it is given.
    channel: usize,
    queue: VecDeque<Chunk>,
    /// How much of the front chunk is written.
    at: usize,
    /// No more is queued; close when everything is written.
    closing: bool,
    /// Our end is closed, or the worker closed its own.
    closed: bool,
    optional: bool,
    /// It does not come from us: what is pushed to it goes nowhere.
    absent: bool,
    /// Packets given so far.
    pushed: u64,
    /// How many of these had been begun, and how many written in full, when the worker closed its end.
    shut_at: Option<(u64, u64)>,
    /// Bytes queued so far, and bytes written.
    queued: u64,
    written: u64,
    /// Bytes of words behind the newest packet.
    last_words: u64,
    /// Bytes of the packet that was answered last.
    last_answered: u64,
    /// Bytes that lay in the pipe when nobody could read them any more.
    left: Option<u64>,
    /// Bytes that may wait on a side input before the session gets no more packets.
    cap: usize,
}

/// See [`Input::cap`]: a worker that has answered and left that much unread will not come back to it.
const CLOGGED: usize = 1 << 20;

/// What a pipe holds, unless somebody changes it.
pub(super) const PIPE: u64 = 64 << 10;

impl Input {
    /// A side input, the `channel`th of all inputs. `optional`: the worker may leave that many bytes unread.
    pub(super) fn side(channel: usize, optional: Option<usize>) -> Self {
        let cap = optional.unwrap_or(CLOGGED);
        Self { channel, optional: optional.is_some(), cap, ..Self::default() }
    }

    /// Whether it does not come from us.
    pub(super) fn is_absent(&self) -> bool {
        self.absent
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether the worker may leave it unread.
    pub(super) fn is_optional(&self) -> bool {
        self.optional
    }

    /// Whether more is left unwritten than may be, which only a side input can come to.
    pub(super) fn is_clogged(&self) -> bool {
        self.channel > 0 && self.unwritten() > self.cap as u64
    }

    /// Whether so many bytes wait: more would only lie here.
    pub(super) fn is_backed_up(&self, most: u64) -> bool {
        self.unwritten() >= most
    }

    /// So many bytes lay in the pipe when nobody could read them any more.
    pub(super) fn left_unread(&mut self, bytes: u64) {
        self.left.get_or_insert(bytes);
    }

    /// How many of these packets, the newest given, the worker cannot have read a byte of.
    pub(super) fn unread<'a, I>(&self, newest_first: I) -> u64
    where
        I: Iterator<Item = (&'a Run, usize)>,
    {
        let Some(read) = self.read() else { return self.untouched() };
        if self.shut_at.is_some() && self.optional {
            // It went on without this channel; what was given since is not in these numbers.
            return self.untouched();
        }
        let mut unread = 0;
        for (start, _) in self.ranges(newest_first) {
            if start < read {
                break;
            }
            unread += 1;
        }
        unread
    }

    /// These packets were answered.
    pub(super) fn answered(&mut self, run: &Run) {
        let last = run.batch.columns[self.channel].range(run.to - 1, run.to);
        self.last_answered = last.len() as u64;
    }

    /// Whether not a byte was read of the packet that was answered last, before these, which are all that were given
    /// since.
    pub(super) fn has_answer_to_nothing<'a, I>(&self, newest_first: I) -> bool
    where
        I: Iterator<Item = (&'a Run, usize)>,
    {
        let Some(read) = self.read() else { return false };
        let end = self.queued - self.last_words;
        let end = self.ranges(newest_first).last().map_or(end, |(start, _)| start);
        self.last_answered > 0 && read <= end.saturating_sub(self.last_answered)
    }

    /// How many of these packets, the newest given, the worker has not read in full, as far as is known. A side
    /// channel that it does not read at all says nothing.
    pub(super) fn not_read_in_full<'a, I>(&self, newest_first: I) -> u64
    where
        I: Iterator<Item = (&'a Run, usize)>,
    {
        let Some(read) = self.read().filter(|&read| read > 0 || self.channel == 0) else {
            return 0;
        };
        let mut count = 0;
        for (_, end) in self.ranges(newest_first) {
            if end <= read {
                break;
            }
            count += 1;
        }
        count
    }

    /// Where each of these packets, the newest given, begins and ends among the bytes that were queued.
    fn ranges<'a, I>(&self, newest_first: I) -> impl Iterator<Item = (u64, u64)>
    where
        I: Iterator<Item = (&'a Run, usize)>,
    {
        let channel = self.channel;
        let mut start = self.queued - self.last_words;
        newest_first.map(move |(run, packet)| {
            let end = start;
            start -= run.batch.columns[channel].range(packet, packet + 1).len() as u64;
            (start, end)
        })
    }

    pub(super) fn push(&mut self, run: Run) {
        self.pushed += run.len() as u64;
        if !self.closed {
            self.queued += run.bytes(self.channel).len() as u64;
            self.last_words = 0;
            self.queue.push_back(Chunk::Run(run));
        }
    }

    pub(super) fn push_words(&mut self, words: Arc<[u8]>) {
        if !self.closed && !words.is_empty() {
            self.queued += words.len() as u64;
            self.last_words += words.len() as u64;
            self.queue.push_back(Chunk::Words(words));
        }
    }

    pub(super) fn is_written(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether a request has been written in part.
    pub(super) fn is_torn(&self) -> bool {
        let Some(Chunk::Run(run)) = self.queue.front() else { return false };
        if self.at == 0 {
            return false;
        }
        let column = &run.batch.columns[self.channel];
        let written = column.start(run.from) + self.at;
        !column.is_end(run.from, run.to, written)
    }

    /// The number of packets, counted from the newest given, of which nothing has been written.
    pub(super) fn untouched(&self) -> u64 {
        if self.absent {
            return self.pushed;
        }
        if let Some((begun, _)) = self.shut_at {
            return self.pushed - begun;
        }
        let mut untouched = 0;
        for (i, chunk) in self.queue.iter().enumerate() {
            let Chunk::Run(run) = chunk else { continue };
            let column = &run.batch.columns[self.channel];
            let written =
                if i == 0 { column.start(run.from) + self.at } else { column.start(run.from) };
            untouched += (run.len() - column.begun_by(run.from, run.to, written)) as u64;
        }
        untouched
    }

    /// The number of packets, counted from the newest given, that have not been written in full.
    pub(super) fn unfinished(&self) -> u64 {
        if self.absent {
            return 0;
        }
        if let Some((_, done)) = self.shut_at {
            return self.pushed - done;
        }
        let mut unfinished = 0;
        for (i, chunk) in self.queue.iter().enumerate() {
            let Chunk::Run(run) = chunk else { continue };
            let column = &run.batch.columns[self.channel];
            let written = column.start(run.from) + if i == 0 { self.at } else { 0 };
            let done = column.ended_by(run.from, run.to, written);
            unfinished += (run.len() - done) as u64;
        }
        unfinished
    }

    /// Whether more has been written than a pipe holds, so that some of it has been read.
    pub(super) fn has_been_read(&self) -> bool {
        self.written > PIPE
    }

    /// Whether there ever was anything to write to it.
    pub(super) fn was_used(&self) -> bool {
        self.queued > 0
    }

    /// How many bytes the worker can have read, if that is known.
    pub(super) fn read(&self) -> Option<u64> {
        Some(self.written.saturating_sub(self.left?))
    }

    /// How many bytes wait to be written.
    pub(super) fn unwritten(&self) -> u64 {
        if self.closed { 0 } else { self.queued - self.written }
    }

    pub(super) fn close_when_written(&mut self) {
        self.closing = true;
    }

    /// Whether it is time to close our end.
    pub(super) fn take_close(&mut self) -> bool {
        let now = self.closing && !self.closed && self.queue.is_empty();
        self.closed |= now;
        now
    }

    /// Drops what was not written: nobody will read it. How far it had come is remembered.
    pub(super) fn shut(&mut self) {
        if self.closed {
            return;
        }
        let begun = self.pushed - self.untouched();
        let done = self.pushed - self.unfinished();
        self.shut_at = Some((begun, done));
        self.queue.clear();
        self.at = 0;
        self.closed = true;
    }

    /// This channel does not come from us.
    pub(super) fn is_elsewhere(&mut self) {
        self.queue.clear();
        self.absent = true;
        self.closed = true;
    }

    /// The bytes to write next, for one vectored write; how many of the slices they fill.
    pub(super) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut at = self.at;
        let most = slices.len();
        for (slice, chunk) in slices.iter_mut().zip(&self.queue) {
            let bytes = match chunk {
                Chunk::Run(run) => run.bytes(self.channel),
                Chunk::Words(words) => words,
            };
            *slice = IoSlice::new(&bytes[at..]);
            at = 0;
        }
        most.min(self.queue.len())
    }

    pub(super) fn wrote(&mut self, mut n: usize) {
        self.written += n as u64;
        while let Some(chunk) = self.queue.front() {
            let len = match chunk {
                Chunk::Run(run) => run.bytes(self.channel).len(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Requests;

    /// Two packets: of three bytes each on stdin, and of these on a side input.
    fn two(first: usize, second: usize) -> Run {
        let mut batch = Requests::new(2);
        for side in [first, second] {
            batch.columns[0].bytes.extend_from_slice(b"ab\n");
            batch.columns[1].bytes.extend_from_slice(&vec![b'x'; side]);
            batch.columns.iter_mut().for_each(|column| column.push_end());
        }
        Run::whole(Arc::new(batch))
    }

    #[test]
    fn a_side_input_is_clogged_when_more_waits_than_may_and_stdin_never_is() {
        let (mut stdin, mut side) = (Input::default(), Input::side(1, Some(10)));
        for input in [&mut stdin, &mut side] {
            input.push(two(4, 6));
            assert!(!input.is_clogged());
            input.push(two(1, 1));
        }
        assert!(side.is_clogged() && !stdin.is_clogged());
        side.wrote(2);
        assert!(!side.is_clogged());
        side.shut();
        side.push(two(100, 100));
        assert!(!side.is_clogged());
        let mut required = Input::side(1, None);
        required.push(two(CLOGGED, 0));
        assert!(!required.is_clogged());
        required.push(two(1, 0));
        assert!(required.is_clogged());
    }

    #[test]
    fn a_request_is_torn_between_its_first_byte_and_its_last() {
        let mut input = Input::default();
        input.push(two(0, 0));
        let torn = [false, true, true, false, true, true, false];
        for (written, torn) in torn.into_iter().enumerate() {
            assert_eq!(input.is_torn(), torn, "{written}");
            if written < 6 {
                input.wrote(1);
            }
        }
        assert!(input.is_written());
    }
}
