//! The scheduler's timers: one for the feed, at most one that counts for each session.
//!
//! # Invariants
//! 1. A session's `timer` is the earliest time that is set for it; a later one is never pushed, an entry of
//!    the heap that is not that time (or another session's) is stale and says nothing when it comes.
//! 2. A timer that runs out leads to a look ([`look_at`](Scheduler::look_at)), and the look sets the next.
//! 3. Nothing is judged by the timer itself, only by what is due at the time of the look.

use std::cmp::Reverse;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::stats::Counters;
use crate::subprocess::protocol::Now;
use crate::subprocess::scheduler::{Scheduler, Slot};

/// A timer that would run out in more than a hundred years is not set: a limit of `Duration::MAX` is none.
pub(crate) const NEVER: Now = Duration::from_secs(u32::MAX as u64);

impl Scheduler {
    /// When `tick` must be called at the latest.
    pub(crate) fn next_timer(&self) -> Option<Now> {
        let session = self.timers.peek().map(|Reverse((at, _, _))| *at);
        session.into_iter().chain(self.feed_timer).min()
    }

    pub(crate) fn arm_feed(&mut self, at: Now) {
        if at >= NEVER {
            return;
        }
        self.feed_timer = Some(self.feed_timer.map_or(at, |set| set.min(at)));
    }

    /// Sets a timer for a slot's session, unless an earlier one is set.
    pub(crate) fn arm(&mut self, slot: usize, at: Now) {
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        if at >= NEVER || session.timer.is_some_and(|set| set <= at) {
            return;
        }
        session.timer = Some(at);
        self.timers.push(Reverse((at, slot, session.serial)));
    }

    pub(crate) fn arm_idle(&mut self, now: Now) {
        if let Some(limit) = self.spec.policy.idle_timeout {
            self.arm_feed(now.saturating_add(limit));
        }
    }

    /// What time it is, before anything happens at it: a grace that begins must not begin in the past.
    pub(crate) fn time_is(&mut self, now: Now) {
        self.now = now;
    }

    pub(crate) fn tick(&mut self, now: Now) {
        if self.feed_timer.is_some_and(|at| at <= now) {
            self.feed_timer = None;
            self.look_at_feed(now);
        }
        while let Some(&Reverse((at, slot, serial))) = self.timers.peek() {
            if at > now {
                return;
            }
            self.timers.pop();
            if let Slot::Live(session) = &mut self.slots[slot]
                && session.serial == serial
                && session.timer == Some(at)
            {
                session.timer = None;
                self.look_at(slot, now);
            }
        }
    }

    /// The limits that concern the whole feed.
    fn look_at_feed(&mut self, now: Now) {
        if self.stopping.is_some() {
            return;
        }
        if let Some(limit) = self.spec.policy.run_timeout
            && !self.all_resolved()
        {
            if now < limit {
                self.arm_feed(limit);
            } else {
                Counters::add(&self.counters().timeouts, 1);
                let error = Error::new(
                    ErrorKind::Timeout,
                    format!("the whole run took longer than {limit:?}"),
                );
                return self.fail(error.running(&self.command));
            }
        }
        if let Some(limit) = self.spec.policy.idle_timeout
            && self.resolved < self.accepted
        {
            if self.gate.is_full() {
                // They may have spoken; it is we who do not read.
                self.heard = now;
            }
            let due = self.heard.saturating_add(limit);
            if now >= due {
                Counters::add(&self.counters().timeouts, 1);
                let message =
                    format!("no worker has said anything for {limit:?} although replies are owed");
                let error = Error::new(ErrorKind::Timeout, message).running(&self.command);
                return self.fail(error);
            }
            self.arm_feed(due);
        }
    }
}
