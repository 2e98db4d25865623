//! The seam: how an executor is attached to a window.
//!
//! An executor makes replies of packets: an event loop with its children, the threads of a pool, or the child
//! of a source, which makes them of nothing. It gives an [`Executor`], and [`attach`] gives the ends of a window: a
//! [`Supply`], out of which packets come, and an [`Outbox`], into which goes what became of them, are the
//! executor's; the other two are the intake's and the consumer's.
//!
//! # What an executor owes
//! 1. Each packet that it takes out of the supply goes into the outbox once, in one span or another.
//! 2. [`Arrival::End`](crate::window::handover::Arrival) says how many there were in all. When they have all gone
//!    into the outbox, the [end](Outbox::end) does, and nothing after it.
//! 3. Before it sleeps, if it has room for packets, it [asks](Supply::ask), and then looks once more.
//! 4. It [releases](Gate::release) the bytes of a batch that it has answered, and [holds](Gate::hold) those of a span
//!    until the consumer is done with it.
//! 5. When the feed [is dropped](Supply::is_dropped) it ends, whatever it owes.
//!
//! A source's executor takes no packets and has no intake. It asks the [gate](Gate::poll_pull) instead, is woken when
//! that opens, and puts spans from the first packet on.
//!
//! The tests have an executor of fifty lines.

use std::sync::Arc;

use crate::record::{Batch, PacketId, Requests};
use crate::window::gate::Gate;
use crate::window::handover::{Handover, Supply};
use crate::window::intake::Intake;
use crate::window::outbox::Outbox;
use crate::window::outlet::{Order, Outlet};
use crate::window::packet::Replies;
use crate::window::sync::channel::{bounded, unbounded};

/// What a window knows of its executor. Called on any thread, also with the executor gone.
pub(crate) trait Executor: Send + Sync {
    /// There may be something to take, room to read, or nobody left who wants anything. Never blocks.
    fn wake(&self);

    /// A consumer is about to sleep on this thread, in this feed or in one that pulls it. Does a piece of the
    /// executor's work here, if that is where it is done. Whether it did.
    fn assist(&self) -> bool {
        false
    }
}

impl<F: Fn() + Send + Sync> Executor for F {
    fn wake(&self) {
        self();
    }
}

impl std::fmt::Debug for dyn Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Executor")
    }
}

/// How large a window is, and how its packets leave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Packets that may be pulled and not yet yielded, one at least.
    pub(crate) packets: usize,
    /// Bytes that may be held before pulling stops.
    pub(crate) max_bytes: usize,
    pub(crate) order: Order,
    /// The first packet id.
    pub(crate) first: PacketId,
    /// Full batches that may wait for the executor. So many that it is the window which holds the intake up, since
    /// that opens in steps, and the channel wakes the intake for every single batch. `usize::MAX` is no bound.
    pub(crate) batches: usize,
    /// Threads of the executor that have a shelf of their own in the outbox.
    pub(crate) shelves: usize,
}

impl Bounds {
    /// From packet 0 on, in the order in which they complete.
    pub(crate) fn new(packets: usize, max_bytes: usize) -> Self {
        let (order, first) = (Order::Completion, PacketId(0));
        Self { packets, max_bytes, order, first, batches: 8, shelves: 0 }
    }

    fn window(&self) -> u64 {
        u64::try_from(self.packets).unwrap_or(u64::MAX).max(1)
    }
}

/// The ends of a window.
#[derive(Debug)]
pub(crate) struct Ends<B: Batch = Requests, R = Replies> {
    pub(crate) intake: Intake<B, R>,
    pub(crate) supply: Supply<B, R>,
    pub(crate) outbox: Arc<Outbox<R>>,
    pub(crate) outlet: Outlet<B, R>,
}

/// Makes a window for an executor.
pub(crate) fn attach<B: Batch, R>(bounds: Bounds, executor: impl Executor + 'static) -> Ends<B, R> {
    let gate = Arc::new(Gate::attached(bounds.window(), bounds.max_bytes, executor));
    let handover = Arc::new(Handover::new(Arc::clone(&gate)));
    let outbox = Arc::new(Outbox::with_shelves(bounds.shelves));
    let (send, receive) = match bounds.batches {
        usize::MAX => unbounded(),
        batches => bounded(batches),
    };
    let Bounds { order, first, .. } = bounds;
    Ends {
        intake: Intake::new(Arc::clone(&handover), send, first),
        supply: Supply::new(Arc::clone(&handover), receive),
        outlet: Outlet::new(handover, Arc::clone(&outbox), order, first),
        outbox,
    }
}
