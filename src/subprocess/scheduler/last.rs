//! The last item of a source whose length is known: held until it is certain that no worker has said too much.
//!
//! A worker that answers once too often has perhaps shifted its replies, and one that prints a mark twice has perhaps
//! quoted it the first time. Either may show only at its very end, when all items are out and an error would be one item
//! too many. So the last one waits for those sessions that have answered to end: only then it is known what they had
//! read. One that is far away is waited for until it has closed its stdout, unless a bad exit is such an error. An error
//! takes the item's place.
//!
//! # Invariants
//! 1. One item is held at most, once; it is the last in order, or, in completion order, the last of all.
//! 2. It is let go, or replaced; how long it may be held is bounded.

use std::time::Duration;

use crate::record::PacketId;
use crate::subprocess::protocol::Now;
use crate::subprocess::scheduler::Plan;
use crate::window::outlet::Order;
use crate::window::packet::{Outcome, Span};

/// The longest that the last item is held.
const LONGEST: Duration = Duration::from_secs(5);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct LastItem {
    /// How many items there are, where the last is to be held.
    count: Option<u64>,
    order: Order,
    origin: PacketId,
    limit: Duration,
    /// It, and until when it is held.
    held: Option<(Span, Now)>,
}

impl LastItem {
    pub(super) fn new(plan: &Plan) -> Self {
        let limit = plan.spec.policy.end_timeout.unwrap_or(LONGEST).min(LONGEST);
        let doubtful = !plan.drain
            && (plan.spec.may_disprove_replies() || plan.spec.policy.require_clean_exit);
        Self {
            count: plan.most.filter(|&most| doubtful && most > 0),
            order: plan.order,
            origin: plan.origin,
            limit,
            held: None,
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Until when it is held.
    pub(super) fn held_until(&self) -> Option<Now> {
        self.held.as_ref().map(|(_, until)| *until)
    }

    /// Whether a span has in it what is to be held. Before it `resolved` packets were.
    pub(super) fn is_in(&self, span: &Span, resolved: u64) -> bool {
        let Some(count) = self.count else { return false };
        let last = match self.order {
            Order::Input => span.first.since(self.origin).checked_add(span.count) == Some(count),
            Order::Completion => resolved + span.count == count,
        };
        last && !matches!(span.outcome, Outcome::Panicked(_) | Outcome::Halted)
    }

    /// Takes it out of that span, and gives back the rest.
    #[cold]
    pub(super) fn keep(&mut self, mut span: Span, now: Now) -> Option<Span> {
        self.count = None;
        let front = (span.count > 1).then(|| span.split_front(span.count - 1));
        self.held = Some((span, now.saturating_add(self.limit)));
        front
    }

    /// Takes it.
    pub(super) fn take(&mut self) -> Option<Span> {
        self.held.take().map(|(span, _)| span)
    }

    /// Takes it, and holds none from now on: the feed ends before its time.
    pub(super) fn give_up(&mut self) -> Option<Span> {
        self.count = None;
        self.take()
    }

    #[cfg(test)]
    pub(super) fn weight(&self) -> usize {
        self.held.as_ref().map_or(0, |(span, _)| span.weight)
    }
}
