//! Records on their way to the consumer: numbered, counted at the gate, put in the outbox.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Error;
use crate::record::{Buffer, PacketId, Pool};
use crate::subprocess::protocol::Now;
use crate::tuning::READ_BYTES;
use crate::window::gate::Pace;
use crate::window::handover::Supply;
use crate::window::outbox::Outbox;
use crate::window::packet::{Cut, End, Label, Outcome, Replies, Span};

/// Makes spans of what one pass over a source gives. It alone asks the gate.
#[derive(Debug)]
pub(super) struct Delivery {
    supply: Supply,
    outbox: Arc<Outbox>,
    label: Arc<Label>,
    pool: Arc<Pool>,
    spans: Vec<Span>,
    /// How it waits for room, and for room for what a child may be granted to make; and which of the two was
    /// asked for last.
    pace: Pace,
    grant_pace: Pace,
    asks_for_grant: bool,
    made: u64,
}

impl Delivery {
    pub(super) fn new(supply: Supply, outbox: Arc<Outbox>, command: Arc<str>) -> Self {
        Self {
            supply,
            outbox,
            label: Arc::new(Label { worker: 0, pid: None, host: None, command }),
            pool: Arc::new(Pool::new(4, 4 * READ_BYTES)),
            spans: Vec::new(),
            pace: Pace::new(),
            grant_pace: Pace::new(),
            asks_for_grant: false,
            made: 0,
        }
    }

    /// The child runs under this number.
    pub(super) fn made_by(&mut self, pid: Option<u32>) {
        let command = Arc::clone(&self.label.command);
        self.label = Arc::new(Label { worker: 0, pid, host: None, command });
    }

    /// An error that the child is concerned in.
    pub(super) fn describe(&self, error: Error) -> Error {
        error.running(&self.label.command).of(self.label.pid)
    }

    /// Records put so far.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    /// Bytes that are held for the consumer.
    #[cfg(all(test, feature = "function-source"))]
    pub(super) fn held(&self) -> usize {
        self.supply.gate().held()
    }

    // ---------------------------------------------------------------- the gate

    /// Nobody wants what is still to come.
    pub(super) fn is_dropped(&self) -> bool {
        self.supply.is_dropped()
    }

    /// The loop has another turn before it sleeps.
    #[cfg(feature = "function-source")]
    pub(super) fn wake(&self) {
        self.supply.gate().wake_executor();
    }

    /// For how many records there is room after so many others, of so many bytes, that are not put yet.
    pub(super) fn room(&self, others: u64, bytes: usize) -> u64 {
        let made = self.made + others;
        if !self.supply.gate().may_pull(made, bytes) {
            return 0;
        }
        // One at least: the gate lets a first one through whatever is held.
        self.window_end().saturating_sub(made).max(1)
    }

    /// Whether there is room for one more record. If not, the loop is woken when there is, and asks again at
    /// the [deadline](Delivery::deadline).
    pub(super) fn has_room_or_calls(&mut self, now: Now) -> bool {
        self.asks_for_grant = false;
        self.supply.gate().poll_pull(&mut self.pace, self.made, || 0, || now)
    }

    /// When to ask again what was asked last, whatever happens.
    pub(super) fn deadline(&self) -> Option<Now> {
        if self.asks_for_grant { self.grant_pace.deadline() } else { self.pace.deadline() }
    }

    /// How many records may be made in all, so far.
    pub(super) fn window_end(&self) -> u64 {
        self.supply.gate().total_yielded().saturating_add(self.supply.gate().window())
    }

    /// Whether somebody who may make `granted` records may make more.
    #[cfg(feature = "function-source")]
    pub(super) fn may_grant(&self, granted: u64) -> bool {
        self.supply.gate().may_pull(granted, 0)
    }

    /// The same. If not, the loop is woken when that changes.
    #[cfg(feature = "function-source")]
    pub(super) fn may_grant_or_calls(&mut self, granted: u64, now: Now) -> bool {
        self.asks_for_grant = true;
        self.supply.gate().poll_pull(&mut self.grant_pace, granted, || 0, || now)
    }

    // ---------------------------------------------------------------- the outbox

    /// Puts the records that these ranges of `bytes` are, and leaves no range.
    pub(super) fn put_parts(&mut self, bytes: &[u8], ranges: &mut Vec<Range<usize>>) {
        let count = ranges.len() as u64;
        let cut = Cut::Parts { ranges: std::mem::take(ranges).into(), next: 0, sides: 0 };
        self.put_replies(bytes, cut, count);
    }

    pub(super) fn put_replies(&mut self, bytes: &[u8], cut: Cut, count: u64) {
        if count == 0 {
            return;
        }
        let mut copy = self.pool.take().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(bytes);
        let at = 0..copy.len();
        self.put(
            count,
            at.len(),
            Outcome::Replies(Replies {
                buffer: Arc::new(Buffer::new(copy, Some(Arc::clone(&self.pool)))),
                at,
                cut,
                label: Arc::clone(&self.label),
                requests: None,
            }),
        );
    }

    /// Puts the failure of one record in its place.
    pub(super) fn put_failure(&mut self, error: Error) {
        self.put(1, error.weight(), Outcome::Failed(error));
    }

    fn put(&mut self, count: u64, weight: usize, outcome: Outcome) {
        self.supply.gate().hold(weight);
        self.spans.push(Span { first: PacketId(self.made), count, weight, outcome });
        self.outbox.put(&mut self.spans);
        self.made += count;
    }

    /// Nothing comes after this.
    pub(super) fn end(self, end: End) {
        self.outbox.end(end);
    }
}
