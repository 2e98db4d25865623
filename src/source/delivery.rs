//! Records on their way to the consumer: numbered, counted at the gate, put in the outbox.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Error;
use crate::record::{Buffer, PacketId, Pool};
use crate::subprocess::session::READ_BYTES;
use crate::window::gate::Gate;
use crate::window::outbox::Outbox;
use crate::window::packet::{Cut, Label, Outcome, Replies, Span};

/// Makes spans of what one pass over a source gives.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) gate: Arc<Gate>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) label: Arc<Label>,
    pool: Arc<Pool>,
    spans: Vec<Span>,
    made: u64,
}

impl Delivery {
    pub(crate) fn new(gate: Arc<Gate>, outbox: Arc<Outbox>, label: Label) -> Self {
        Self {
            gate,
            outbox,
            label: Arc::new(label),
            pool: Arc::new(Pool::new(4, 4 * READ_BYTES)),
            spans: Vec::new(),
            made: 0,
        }
    }

    /// The child runs under this number.
    pub(crate) fn made_by(&mut self, pid: u32) {
        let command = Arc::clone(&self.label.command);
        self.label = Arc::new(Label { worker: 0, pid: Some(pid), command });
    }

    /// Records put so far.
    pub(crate) fn made(&self) -> u64 {
        self.made
    }

    /// Puts the records that these ranges of `bytes` are, and leaves no range.
    pub(crate) fn put_parts(&mut self, bytes: &[u8], ranges: &mut Vec<Range<usize>>) {
        let count = ranges.len() as u64;
        let cut = Cut::Parts { ranges: std::mem::take(ranges).into(), next: 0, sides: 0 };
        self.put_replies(bytes, cut, count);
    }

    pub(crate) fn put_replies(&mut self, bytes: &[u8], cut: Cut, count: u64) {
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
    pub(crate) fn put_failure(&mut self, error: Error) {
        self.put(1, error.weight(), Outcome::Failed(error));
    }

    fn put(&mut self, count: u64, weight: usize, outcome: Outcome) {
        self.gate.hold(weight);
        self.spans.push(Span { first: PacketId(self.made), count, weight, outcome });
        self.outbox.put(&mut self.spans);
        self.made += count;
    }
}
