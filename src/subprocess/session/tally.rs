//! What is said of a session while it runs: how long it was at work, and what it does.

use std::time::Duration;

use crate::record::PacketId;
use crate::subprocess::protocol::{Now, Time};
use crate::subprocess::session::Session;
use crate::watch::{Worker, WorkerState};

/// How long a session owed something, in real time.
#[derive(Debug, Default)]
pub(super) struct AtWork {
    /// It has owed something since then.
    since: Option<Now>,
    before: Duration,
}

impl AtWork {
    fn total(&self, now: Now) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

/// A session that owed nothing owes something, or the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Busy,
    Idle,
}

impl Session {
    /// Looks, after an event, whether it has come to owe something, or nothing any more.
    #[inline]
    pub(crate) fn turn(&mut self, now: Now) -> Option<Turn> {
        match (self.owed() > 0, self.at_work.since) {
            (true, None) => {
                self.at_work.since = Some(now);
                Some(Turn::Busy)
            }
            (false, Some(_)) => self.rest(now),
            _ => None,
        }
    }

    /// It is at work no more, whatever it owes.
    pub(crate) fn rest(&mut self, now: Now) -> Option<Turn> {
        self.at_work.before = self.at_work.total(now);
        self.at_work.since.take().map(|_| Turn::Idle)
    }

    /// How long it was at work, in all.
    pub(crate) fn at_work(&self, now: Now) -> Duration {
        self.at_work.total(now)
    }

    /// How many packets it has answered, and how many it was given and has not.
    pub(crate) fn answered_and_left(&self) -> (u64, u64) {
        (self.flight.answered(), self.flight.len())
    }

    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    /// The packet that it must answer next, and since when it is that.
    pub(crate) fn at_work_since(&self) -> Option<(PacketId, Now)> {
        Some((self.flight.next_after(0)?, self.head_since))
    }

    /// Says what it does, beside what the sessions before it did.
    pub(crate) fn view(&self, worker: &mut Worker, now: Time) {
        worker.host.clone_from(&self.label.host);
        worker.pid = self.label.pid;
        worker.session = Some(self.serial);
        worker.owed = self.owed();
        worker.answered += self.flight.answered();
        worker.busy += self.at_work(now.real);
        let since = (worker.owed > 0).then_some(self.head_since);
        worker.oldest = since.map(|since| now.patient.saturating_sub(since));
        worker.state = self.state();
    }

    /// What it does.
    pub(crate) fn state(&self) -> WorkerState {
        if self.child.has_exited() {
            WorkerState::Exited
        } else if self.child.is_killed() {
            WorkerState::Killing
        } else if !self.is_open() {
            WorkerState::Closing
        } else if self.in_banner || !self.is_greeted() {
            WorkerState::Starting
        } else if self.owed() == 0 {
            WorkerState::Idle
        } else if self.stall.was_quiet() {
            WorkerState::Quiet
        } else {
            WorkerState::Busy
        }
    }
}
