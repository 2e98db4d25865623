//! What seeds have come to, to be summed up: a simulation in which nothing happens shows nothing.

/// What came of a seed.
#[derive(Clone, Copy, Debug, Default)]
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
    }
}
