//! What falls due in a session: its limits and graces, and what is done when they are over.
//!
//! # Invariants
//! 1. [`next_look`](Scheduler::next_look) names the earliest time at which [`look_at`](Scheduler::look_at) would do
//!    something; whatever changes one of the times it looks at calls [`watch`](Scheduler::watch).
//! 2. Time in which we do not read, for want of room, is nobody's fault: it counts for no limit.
//! 3. A look either ends something or sets the next timer.

use std::time::Duration;

use crate::stats::Counters;
use crate::subprocess::protocol::{Now, Operation};
use crate::subprocess::scheduler::{Scheduler, Slot};
use crate::subprocess::session::{Phase, Why};

/// How long a worker that has closed one of its pipes may take over what it has read.
const CLOSED_GRACE: Duration = Duration::from_secs(5);

/// How long a side input may stay clogged while nothing is owed before that is an error.
const CLOGGED_GRACE: Duration = Duration::from_secs(2);

/// How soon a worker whose output we do not read for want of room is looked at again.
const LATER: Duration = Duration::from_secs(1);

/// How long a worker that has closed its stdout may take to exit.
pub(crate) const SILENT_GRACE: Duration = Duration::from_millis(500);

impl Scheduler {
    /// Sets the timer for whatever comes next in a session.
    pub(crate) fn watch(&mut self, slot: usize, now: Now) {
        if let Some(at) = self.next_look(slot, now)
            && !mutated!(ForgottenTimer)
        {
            self.arm(slot, at);
        }
    }

    fn next_look(&self, slot: usize, _now: Now) -> Option<Now> {
        let Slot::Live(session) = &self.slots[slot] else { return None };
        let policy = &self.spec.policy;
        let mut next: Option<Now> = None;
        let mut at = |time: Now| next = Some(next.map_or(time, |next| next.min(time)));
        match session.phase {
            Phase::Open | Phase::Ending => {
                if let Some(quiet) = self.quiet_until(session) {
                    at(quiet);
                }
                if session.owed() > 0 {
                    if let Some(limit) = policy.packet_timeout {
                        at(session.head_since.saturating_add(limit));
                    }
                    if let Some(limit) = policy.start_timeout
                        && session.answered + session.held_count == 0
                    {
                        at(session.head_since.max(session.started).saturating_add(limit));
                    }
                    if session.why == Some(Why::ClosedInput) {
                        at(session.moved.saturating_add(CLOSED_GRACE));
                    }
                }
                if session.in_banner
                    && let Some(limit) = self.spec.words.banner.ready_limit()
                {
                    at(session.started.saturating_add(limit));
                }
                if session.owed() == 0 && session.is_open() && session.clogged().is_some() {
                    at(session.moved.saturating_add(CLOGGED_GRACE));
                }
                if session.owed() > 0 {
                } else if !session.is_open() {
                    let limit = match session.why {
                        Some(Why::ClosedInput) => Some(SILENT_GRACE),
                        _ => policy.end_timeout,
                    };
                    if let Some(limit) = limit {
                        at(session.moved.saturating_add(limit));
                    }
                } else if let Some(age) = policy.recycle_age
                    && session.given > 0
                {
                    at(session.started.saturating_add(age));
                }
                if let Some(closed) = session.closed_output_at {
                    at(closed.saturating_add(SILENT_GRACE));
                }
            }
            Phase::Killing { next, .. } => at(next),
            Phase::Exited { drained_by } => at(drained_by),
            Phase::Finished => {}
        }
        next
    }

    /// A session's timer has run out: does what is due.
    pub(crate) fn look_at(&mut self, slot: usize, now: Now) {
        let readable = self.may_read(slot);
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        let policy = &self.spec.policy;
        let readable = readable || session.closed_output_at.is_some();
        if !readable && matches!(session.phase, Phase::Open | Phase::Ending) {
            // It may have answered long ago: it is we who do not read, for want of room. The time
            // that this takes is not its own.
            session.moved = now;
            session.head_since = now;
            session.look_again(now, policy.stall_delay);
            let at = session.next_probe.min(now.saturating_add(LATER));
            return self.arm(slot, at);
        }
        let due = |since: Now, limit: Duration| now >= since.saturating_add(limit);
        match session.phase {
            Phase::Open | Phase::Ending => {
                let owed = session.owed();
                let ready = self.spec.words.banner.ready_limit();
                if session.in_banner && ready.is_some_and(|limit| due(session.started, limit)) {
                    session.why = Some(Why::Timeout);
                    Counters::add(&self.stats.counters.timeouts, 1);
                    return self.kill_session(slot, now);
                }
                if owed == 0 && session.is_open() && due(session.moved, CLOGGED_GRACE) {
                    let Slot::Live(session) = &self.slots[slot] else { return };
                    if let Some(channel) = session.clogged() {
                        return self.fail_clogged(slot, channel);
                    }
                }
                let Slot::Live(session) = &mut self.slots[slot] else { return };
                if session.closed_output_at.is_some_and(|closed| due(closed, SILENT_GRACE)) {
                    // An answer can never come any more.
                    session.lingered = owed == 0;
                    session.why = session
                        .why
                        .filter(|why| why.is_asked() && owed == 0)
                        .or(Some(Why::ClosedOutput));
                    return self.kill_session(slot, now);
                }
                if owed == 0 {
                    let limit = match session.why {
                        Some(Why::ClosedInput) => Some(SILENT_GRACE),
                        _ => policy.end_timeout,
                    };
                    if !session.is_open() && limit.is_some_and(|limit| due(session.moved, limit)) {
                        return self.kill_session(slot, now);
                    }
                    // One that was never given anything is as good as a fresh one.
                    if session.is_open()
                        && session.given > 0
                        && policy.recycle_age.is_some_and(|age| due(session.started, age))
                    {
                        return self.recycle_session(slot, now);
                    }
                    return self.watch(slot, now);
                }
                if session.why == Some(Why::ClosedInput) && due(session.moved, CLOSED_GRACE) {
                    return self.kill_session(slot, now);
                }
                let started = session.head_since.max(session.started);
                let never = session.answered + session.held_count == 0;
                let late =
                    policy.packet_timeout.is_some_and(|limit| due(session.head_since, limit))
                        || (never && policy.start_timeout.is_some_and(|limit| due(started, limit)));
                if late {
                    return self.ran_late(slot, now);
                }
                let Slot::Live(session) = &self.slots[slot] else { return };
                if self.quiet_until(session).is_some_and(|quiet| now >= quiet) {
                    if policy.at_eof() {
                        return self.recycle_session(slot, now);
                    }
                    self.probe(slot, now);
                }
                self.watch(slot, now);
            }
            Phase::Killing { step, next } => {
                if now < next {
                    return self.arm(slot, next);
                }
                let Some(&(signal, wait)) = policy.kill_sequence.get(step) else {
                    return self.abandon(slot);
                };
                let last = step + 1 == policy.kill_sequence.len();
                let next = now.saturating_add(if last { policy.kill_grace() } else { wait });
                session.phase = Phase::Killing { step: step + 1, next };
                Counters::add(&self.stats.counters.signals, 1);
                tell!(debug, session, "signalled", signal = signal.name());
                self.actions.push_back(Operation::Signal { slot, signal });
                if !last || !mutated!(WaitsForEver) {
                    self.arm(slot, next);
                }
            }
            Phase::Exited { drained_by } => {
                if now >= drained_by {
                    self.finish(slot);
                } else {
                    self.arm(slot, drained_by);
                }
            }
            Phase::Finished => {}
        }
    }

    /// A packet has taken too long.
    pub(crate) fn ran_late(&mut self, slot: usize, now: Now) {
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        if session.is_open() && !session.prompt {
            // It may only be buffering: asked to answer, it gets the limit once more.
            session.head_since = now;
            Counters::add(&self.stats.counters.recycles, 1);
            return self.recycle_session(slot, now);
        }
        Counters::add(&self.stats.counters.timeouts, 1);
        session.why = Some(Why::Timeout);
        self.kill_session(slot, now);
    }
}
