//! What the parent has ordered, and what the child may do by that. Pure.
//!
//! # Invariants
//! 1. Item `k` of pass `g` may be made only while `granted` is `(g, limit)` with `k < limit`, so that the child is never
//!    ahead of the consumer by more than the parent allowed.
//! 2. Once `stopped >= g` or `leaving`, no further item of pass `g` may be made. Neither goes back.
//! 3. A pass that was ordered is begun even if it is stopped by then, unless it is time to leave: what the next one gives
//!    must not depend on the timing.

use std::collections::VecDeque;

use crate::source::function::protocol::{self, Command, Opening};

/// What the worker is to do next, when it is in none of its passes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Order {
    Open(Opening),
    Start(u64),
    Leave,
    /// Not an order at all.
    Unexpected,
}

/// Whether the next item is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Go,
    Stopped,
    Leave,
    Unexpected,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Orders {
    queue: VecDeque<Order>,
    /// How many items of which pass may be made.
    granted: (u64, u64),
    /// Passes up to this one are not wanted any more.
    stopped: u64,
    leaving: bool,
}

impl Orders {
    /// This message has come.
    pub(super) fn hear(&mut self, command: Option<Command>, generation: u64, body: &[u8]) {
        match (command, protocol::number(body)) {
            (Some(Command::Abort), _) => self.leave(),
            (Some(Command::Start), Some(limit)) => {
                self.granted = (generation, limit);
                self.queue.push_back(Order::Start(generation));
            }
            (Some(Command::More), Some(limit)) if self.granted.0 == generation => {
                self.granted.1 = self.granted.1.max(limit);
            }
            // Of a pass that is over.
            (Some(Command::More), Some(_)) => {}
            (Some(Command::Stop), _) => self.stopped = self.stopped.max(generation),
            (Some(Command::Open), _) => {
                let order = Opening::decode(body).map_or(Order::Unexpected, Order::Open);
                self.queue.push_back(order);
            }
            _ => self.queue.push_back(Order::Unexpected),
        }
    }

    /// There is nobody any more who could order anything, or who would read what comes of it.
    pub(super) fn leave(&mut self) {
        self.leaving = true;
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Whether nothing more of this pass is wanted.
    pub(super) fn is_stopped(&self, generation: u64) -> bool {
        self.leaving || self.stopped >= generation
    }

    /// The next order, if one has come. An opening is taken even if it is time to leave.
    pub(super) fn next(&mut self) -> Option<Order> {
        match self.queue.pop_front() {
            Some(opening @ Order::Open(_)) => Some(opening),
            _ if self.leaving => Some(Order::Leave),
            order => order,
        }
    }

    /// Whether item `index` of the pass may be made. `None`: not yet.
    pub(super) fn may_make(&self, generation: u64, index: u64) -> Option<Verdict> {
        if self.leaving {
            return Some(Verdict::Leave);
        }
        if self.stopped >= generation {
            return Some(Verdict::Stopped);
        }
        if !self.queue.is_empty() {
            return Some(Verdict::Unexpected);
        }
        let granted = self.granted.0 == generation && index < self.granted.1;
        granted.then_some(Verdict::Go)
    }
}
