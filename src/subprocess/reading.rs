//! The outputs of a worker as they come: room for the next read, bytes, ends.
//!
//! # Invariants
//! 1. Over the byte bound only the worker that holds what the consumer waits for is read, and one that
//!    has exited: otherwise the bound could stop the very thing that would make room.
//! 2. There is always room for at least one byte; a buffer is taken when the first is needed.
//! 3. Whatever is read counts as movement: nobody is judged quiet who has just spoken.

use std::sync::Arc;

use crate::record::Run;
use crate::stats::Counters;
use crate::subprocess::protocol::Now;
use crate::subprocess::scheduler::{Scheduler, Slot};
use crate::subprocess::session::Phase;
use crate::window::outlet::Order;

/// The room offered to one read. A pipe holds this much by default.
pub(crate) const READ_BYTES: usize = 64 << 10;

impl Scheduler {
    /// Whether the outputs of this slot may be read now. Over the byte bound only the worker that
    /// holds what the consumer waits for may be.
    pub(crate) fn may_read(&self, slot: usize) -> bool {
        if !self.gate.is_full() || self.stopping.is_some() {
            return true;
        }
        let Slot::Live(session) = &self.slots[slot] else { return true };
        // What a worker has left in its pipe when it exits is little, and lost if it is not read in time.
        if session.owed() == 0 || matches!(session.phase, Phase::Exited { .. }) {
            return true;
        }
        let yielded = self.gate.total_yielded();
        match self.order {
            Order::Completion => yielded >= self.resolved,
            Order::Input => {
                // What was sent again may stand behind later packets: those must come out first.
                let head = |run: &Run| {
                    let first = run.first().since(self.origin);
                    (first..first + run.len() as u64).contains(&yielded)
                };
                session.in_flight.iter().any(head)
                    // The head is in nobody's hands: whoever makes room first will get it.
                    || self.pending.front().is_some_and(|job| head(&job.run))
            }
        }
    }

    /// Room for the next read of an output, at least one byte.
    pub(crate) fn read_room(&mut self, slot: usize, output: usize) -> &mut [u8] {
        let pool = Arc::clone(&self.pool);
        let limit = self.spec.policy.reply_limit;
        let Slot::Live(session) = &mut self.slots[slot] else { return &mut [] };
        let output = &mut session.outputs[output];
        if output.bytes.is_empty() {
            output.bytes = pool.take().unwrap_or_else(|| vec![0; READ_BYTES]);
            debug_assert!(output.start == 0 && output.end == 0);
        }
        if output.start > 0 && output.start == output.end {
            output.start = 0;
            output.end = 0;
            output.scanned = 0;
        }
        let room = output.bytes.len() - output.end;
        if room < output.bytes.len() / 4 {
            if output.start > output.bytes.len() / 2 {
                output.bytes.copy_within(output.start..output.end, 0);
                output.end -= output.start;
                output.scanned -= output.start;
                output.start = 0;
            } else if room == 0 || output.end - output.start > READ_BYTES / 2 {
                // By doubling, but for no reply that is longer than may be.
                let len = output.bytes.len();
                let enough = limit.saturating_add(READ_BYTES).max(len + READ_BYTES);
                let len = (len * 2).min(enough);
                // Or the vector would make room for twice as much by itself.
                output.bytes.reserve_exact(len - output.bytes.len());
                output.bytes.resize(len, 0);
            }
        }
        &mut output.bytes[output.end..]
    }

    /// `n` bytes were read into the room.
    pub(crate) fn read(&mut self, slot: usize, output: usize, n: usize, now: Now) {
        Counters::add(&self.counters().read_bytes, n as u64);
        self.heard = now;
        let patience = self.patience();
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        session.moved = now;
        session.patience = patience;
        session.next_probe = now;
        session.outputs[output].end += n;
        self.cut(slot, now);
    }

    /// An output has come to its end.
    pub(crate) fn read_closed(&mut self, slot: usize, output: usize, now: Now) {
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        if std::mem::replace(&mut session.outputs[output].eof, true) {
            return;
        }
        if !self.drain && matches!(session.phase, Phase::Open | Phase::Ending) {
            session.closed_output_at.get_or_insert(now);
        }
        self.cut(slot, now);
        self.watch(slot, now);
        self.check_drained(slot);
    }

    pub(crate) fn heard_stderr(&mut self, slot: usize, bytes: &[u8], now: Now) {
        Counters::add(&self.counters().read_bytes, bytes.len() as u64);
        self.heard = now;
        if let Slot::Live(session) = &mut self.slots[slot] {
            session.stderr.push(bytes);
            session.moved = now;
        }
    }

    pub(crate) fn stderr_closed(&mut self, slot: usize) {
        if let Slot::Live(session) = &mut self.slots[slot] {
            session.stderr_eof = true;
        }
        self.check_drained(slot);
    }
}
