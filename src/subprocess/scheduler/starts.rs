//! Starting sessions: which slot, and when.
//!
//! # Invariants
//! 1. A slot is `Vacant`, then `Starting` while the event loop is at it, then `Live`; `started` or
//!    `start_failed` answers each `next_start`.
//! 2. No start before the slot's `not_before`; then a timer of the feed's is set, so that it is not forgotten.
//! 3. Nothing is started for nobody: not after the feed has stopped, nor when all there is has been given out.
//! 4. A start that fails for want of something the system may have again is tried again later. It is fatal
//!    only if no session is alive and none could be started for a long time.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Limit};
use crate::stats::Counters;
use crate::subprocess::protocol::{Now, Spawned, StartError};
use crate::subprocess::scheduler::hosts::Verdict;
use crate::subprocess::scheduler::{Scheduler, Slot};
use crate::subprocess::session::{Ended, Session};
use crate::template::policy::backed_off;

/// How long no session may be startable for want of something, with none alive, before that is fatal.
const LONGEST_FAILING: Duration = Duration::from_secs(30);

/// How long it is at least, and at most, until such a start is tried again.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// A host is out, or in again.
fn tell_of_host(host: &str, state: &str) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: "subfeed", host, state);
    #[cfg(not(feature = "tracing"))]
    let _ = (host, state);
}

/// What is known of the starts so far.
#[derive(Debug, Default)]
pub(super) struct Starts {
    /// How many sessions were started.
    count: u64,
    /// The slot to look at first.
    next: usize,
    /// How many sessions in a row have come to nothing, in all slots and in each.
    streak: u32,
    streaks: Vec<u32>,
    ever_answered: bool,
    /// Since when no session could be started, although none is alive.
    failing_since: Option<Now>,
}

impl Starts {
    pub(super) fn new(slots: usize) -> Self {
        Self { streaks: vec![0; slots], ..Self::default() }
    }

    /// A session has answered. Says whether those before it in its slot had come to nothing.
    pub(super) fn progress(&mut self, slot: usize) -> bool {
        self.ever_answered = true;
        self.streak = 0;
        std::mem::take(&mut self.streaks[slot]) > 0
    }

    /// A session has come to nothing: how many in a row.
    pub(super) fn came_to_nothing(&mut self, slot: usize) -> u32 {
        self.streak += 1;
        self.streaks[slot] += 1;
        self.streak
    }

    /// How many sessions in a row have come to nothing in this slot.
    pub(super) fn streak_of(&self, slot: usize) -> u32 {
        self.streaks[slot]
    }

    /// Whether any session has ever answered.
    pub(super) fn has_ever_answered(&self) -> bool {
        self.ever_answered
    }
}

impl Scheduler {
    /// Whether a session was ever started.
    pub(crate) fn has_started(&self) -> bool {
        self.starts.count > 0
    }

    /// The next slot to start a session in, if one is wanted now. One at a time: between two starts the
    /// event loop looks after the sessions that are already there.
    pub(crate) fn next_start(&mut self) -> Option<usize> {
        if self.shutdown.is_stopping() || self.all_resolved() || self.nothing_to_come() {
            return None;
        }
        let (first, n) = (self.starts.next, self.slots.len());
        for slot in (first..n).chain(0..first) {
            let Slot::Vacant { not_before } = self.slots[slot] else { continue };
            let Some(at) = self.hosts.may_start(slot) else { continue };
            let not_before = not_before.max(at);
            if not_before > self.now.patient {
                self.timers.arm_feed(not_before);
                continue;
            }
            // Once the feed is running, a slot is refilled when there is work for it, or at once
            // while its tool has shown that it answers.
            let has_failed = self.starts.streaks[slot] > 0 || self.hosts.has_failed(slot);
            if self.backlog.is_empty() && has_failed {
                continue;
            }
            self.starts.next = (slot + 1) % n;
            self.slots[slot] = Slot::Starting;
            return Some(slot);
        }
        None
    }

    /// A child runs in the slot.
    pub(crate) fn started(&mut self, slot: usize, spawned: &Spawned) {
        let serial = self.starts.count;
        self.starts.count += 1;
        self.tallies.started(slot, serial);
        self.starts.failing_since = None;
        self.hosts.started(slot, self.now.patient);
        let counters = self.counters();
        Counters::add(&counters.starts, 1);
        let restart = serial >= self.slots.len() as u64;
        Counters::add(&counters.restarts, u64::from(restart));
        let mut news = std::mem::take(&mut self.news);
        let session =
            Session::new(slot, serial, restart, &self.command, spawned, &self.context(), &mut news);
        self.news = news;
        if session.is_greeted() {
            self.hosts.greeted(slot);
        }
        self.slots[slot] = Slot::Live { session: Box::new(session), queued: false };
        self.record_start(slot, serial, spawned.pid);
        let stopping = self.shutdown.is_stopping();
        self.at(slot, |session, cx, news| {
            if stopping {
                session.stop(cx, news);
            }
        });
    }

    /// No child could be started there.
    pub(crate) fn start_failed(&mut self, slot: usize, error: StartError) {
        let now = self.now.patient;
        self.slots[slot] = Slot::Vacant { not_before: now };
        let alive = self.sessions().next().is_some();
        match error {
            StartError::NotNow(error) => {
                let since = *self.starts.failing_since.get_or_insert(now);
                if alive {
                    self.starts.failing_since = None;
                } else if now.saturating_sub(since) >= LONGEST_FAILING {
                    return self.fail(error.limited(Limit::NoWorker(LONGEST_FAILING)));
                }
                self.plan.stats.hint(format!("a worker could not be started and waits: {error}"));
                let wait = self.plan.spec.policy.backoff_cap.max(SHORTEST_WAIT);
                let not_before = now.saturating_add(wait.min(LONGEST_WAIT));
                self.slots[slot] = Slot::Vacant { not_before };
            }
            StartError::Never(error) => self.fail(error),
        }
    }

    /// The session in a slot has said hello.
    pub(super) fn host_is_reached(&mut self, slot: usize) {
        if let Some((number, name)) = self.hosts.greeted(slot) {
            self.plan.stats.withdraw_hint_about_host(number);
            tell_of_host(&name, "in again");
        }
    }

    /// The session in a slot has ended without a hello: its host has failed. Says whether that is fatal.
    pub(super) fn host_has_failed(&mut self, slot: usize, ended: &Ended) -> Option<Error> {
        let (now, said) = (self.now.patient, ended.describe_loss());
        let policy = &self.plan.spec.policy;
        let verdict = self.hosts.failed(slot, ended.started(), now, policy, said);
        if let (Verdict::Out(words), Some(number)) = (verdict, self.hosts.number(slot)) {
            tell_of_host(&words, "out");
            self.plan.stats.hint_about_host(number, words);
        }
        self.all_hosts_are_out()
    }

    /// The error of a feed that has no host left.
    pub(super) fn all_hosts_are_out(&self) -> Option<Error> {
        let said = self.hosts.all_out()?;
        let error = Error::new(ErrorKind::Transport, format!("no host can be reached: {said}"));
        Some(error.running(&self.command))
    }

    /// After a session that came to nothing the next one waits a while.
    pub(super) fn back_off(&mut self, slot: usize) -> Duration {
        let policy = &self.plan.spec.policy;
        let wait = backed_off(policy.backoff, policy.backoff_cap, self.starts.streaks[slot]);
        let not_before = self.now.patient.saturating_add(wait);
        self.slots[slot] = Slot::Vacant { not_before };
        wait
    }
}
