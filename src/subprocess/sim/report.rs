//! What seeds have come to, to be summed up: a simulation in which nothing happens shows nothing.

use std::time::Duration;

/// What came of a seed.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub(super) steps: u64,
    pub(super) sessions: u64,
    pub(super) replies: u64,
    pub(super) failed: u64,
    pub(super) fatal: u64,
    pub(super) dropped: u64,
    pub(super) recycles: u64,
    pub(super) redeliveries: u64,
    pub(super) signals: u64,
    pub(super) abandoned: u64,
    /// Calls of the operating system that can be made to fail.
    pub(super) calls: u64,
    /// Of one seed: when the loop was over, the fatal error, and the last hint.
    pub(super) ended_at: Duration,
    pub(super) cause: Option<String>,
    pub(super) hint: Option<String>,
}

impl Report {
    pub(super) fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.sessions += other.sessions;
        self.replies += other.replies;
        self.failed += other.failed;
        self.fatal += other.fatal;
        self.dropped += other.dropped;
        self.recycles += other.recycles;
        self.redeliveries += other.redeliveries;
        self.signals += other.signals;
        self.abandoned += other.abandoned;
        self.calls += other.calls;
    }
}
