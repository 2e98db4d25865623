//! From the wish that a session ends to its exit: inputs are closed, in good order or at once.
//!
//! # Invariants
//! 1. An input is closed by us when everything queued is written, or after its reader was killed.
//! 2. The first reason for an end stays (`why`), but that a worker has closed its stdin says more than
//!    that it was asked to end.
//! 3. A session that is not `Open` gets no more packets, and has a timer, unless the template sets no limit.

use std::sync::Arc;

use crate::stats::Counters;
use crate::subprocess::protocol::{Now, Operation};
use crate::subprocess::scheduler::{Scheduler, Slot};
use crate::subprocess::session::{Phase, Session, Why};

impl Scheduler {
    /// Closes the inputs as soon as everything queued is written: the worker answers and exits.
    pub(crate) fn close_inputs(&mut self, slot: usize, why: Why, now: Now) {
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        if !session.is_open() {
            return;
        }
        session.phase = Phase::Ending;
        // However long it was idle: its time to exit begins now.
        session.moved = now;
        let why = *session.why.get_or_insert(why);
        tell!(debug, session, "closing", why = why.word());
        if let Some(farewell) = &self.spec.words.farewell {
            session.inputs[0].push_words(Arc::clone(farewell));
            self.to_write.push(slot);
        }
        for input in &mut session.inputs {
            input.close_when_written();
        }
        self.close_what_is_written(slot);
    }

    /// Lets a session answer what it owes and exit, so that a fresh one can take its place.
    pub(crate) fn recycle_session(&mut self, slot: usize, now: Now) {
        self.close_inputs(slot, Why::Recycled, now);
        self.watch(slot, now);
    }

    /// Nothing more will come: every session that is not needed for what is pending may end.
    ///
    /// One that still owes is left its stdin while it goes on answering. A tool that ends by itself
    /// after so many records would otherwise look just like one that skips records: both would leave
    /// with status 0 after their stdin was closed, short of a reply. If it goes quiet, it is closed
    /// (see [`quiet_until`](Self::quiet_until)).
    pub(crate) fn close_if_done(&mut self, now: Now) {
        if !self.nothing_to_come() || self.stopping.is_some() {
            return;
        }
        for slot in 0..self.slots.len() {
            self.part_from(slot, Why::Done, now);
        }
    }

    /// Nothing more will be given to this session: closes its inputs, now or when it has answered.
    pub(crate) fn part_from(&mut self, slot: usize, why: Why, now: Now) {
        let Slot::Live(session) = &self.slots[slot] else { return };
        let only_then = self.spec.policy.at_eof() || self.spec.is_until_eof();
        if session.is_open() && (session.owed() == 0 || only_then) {
            self.close_inputs(slot, why, now);
        }
        self.watch(slot, now);
    }

    pub(crate) fn nothing_to_come(&self) -> bool {
        self.input_has_ended() && self.pending.is_empty()
    }

    /// Why a session will be given nothing more, if so.
    pub(crate) fn is_closing(&self, session: &Session) -> Option<Why> {
        // One that holds suspects gets nothing else, and others wait for what becomes of them.
        if session.quarantined
            || self.spec.session_records().is_some_and(|most| session.given >= most)
        {
            Some(Why::Recycled)
        } else if self.nothing_to_come() {
            Some(Why::Done)
        } else {
            None
        }
    }

    fn close_what_is_written(&mut self, slot: usize) {
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        // A worker whose stdin does not come from us sees the end of its input on the side.
        let absent = session.inputs[0].absent;
        for (channel, input) in session.inputs.iter_mut().enumerate() {
            if input.take_close() {
                session.stdin_closed |= channel == 0 || absent;
                self.actions.push_back(Operation::CloseInput { slot, channel });
            }
        }
    }

    /// `n` bytes were written to an input channel.
    pub(crate) fn wrote(&mut self, slot: usize, channel: usize, n: usize, now: Now) {
        Counters::add(&self.counters().written_bytes, n as u64);
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        session.moved = now;
        session.inputs[channel].wrote(channel, n);
        let written = session.inputs[channel].is_written();
        if self.drain {
            self.settle_written(slot, now);
        }
        if written {
            self.close_what_is_written(slot);
            self.watch(slot, now);
        }
        // It may have been passed over because so much of this was unwritten.
        if !mutated!(StaysBackedUp) {
            self.offer(slot);
        }
    }

    /// The worker has closed its end of an input channel.
    pub(crate) fn write_closed(&mut self, slot: usize, channel: usize, now: Now) {
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        session.inputs[channel].shut(channel);
        self.actions.push_back(Operation::CloseInput { slot, channel });
        if session.inputs[channel].optional || !matches!(session.phase, Phase::Open | Phase::Ending)
        {
            return;
        }
        // It may go on answering what it has read: that is no error by itself. Whatever it was not
        // given in full goes to others when it ends.
        session.moved = now;
        session.why = Some(Why::ClosedInput);
        tell!(debug, session, "closing", why = Why::ClosedInput.word());
        session.phase = Phase::Ending;
        for input in &mut session.inputs {
            input.close_when_written();
        }
        self.close_what_is_written(slot);
        self.watch(slot, now);
    }

    /// Starts the kill sequence at once.
    pub(crate) fn kill_session(&mut self, slot: usize, now: Now) {
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        if !matches!(session.phase, Phase::Open | Phase::Ending) {
            return;
        }
        session.phase = Phase::Killing { step: 0, next: now };
        self.look_at(slot, now);
    }
}
