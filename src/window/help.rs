//! Help: what a consumer does instead of sleeping where the work would have to be done.
//!
//! A consumer that waits on a thread of a pool takes that thread from the very feed that it waits for,
//! and from every feed which that one pulls. If all the threads of the pool wait like this, nobody is
//! left. So it works itself, one item at a time, until what it waits for has come.
//!
//! It may do the work of its own feed, and of the feeds that it waits for by way of it: while the intake
//! of a feed sleeps in the outlet of an earlier one, the gate of the first knows the gate of the second
//! (its *upstream*), so the chain can be walked from the consumer's end. It never does any other work:
//! a foreign job may wait for something that lies further down on the same stack.
//!
//! # Invariants
//! 1. `upstream` is the feed in whose outlet this feed's intake sleeps, and nothing at other times. An
//!    intake is one thread, which sleeps in one place.
//! 2. The *helper* of a feed is the thread to unpark when there is something new to do. A helper says
//!    that it is one before it looks for work, and looks for work before it looks upstream.
//! 3. Whoever adds work adds it before it looks for a helper; so does an outlet that goes to sleep on an
//!    intake, for which the work is itself. All under one lock: one of the two sees the other.
//! 4. A helper that has found nothing parks, and is unparked by the next work of any feed of the chain.
//!    It is not told that it is no longer needed: a stale unpark finds nothing to do, once.

use std::sync::Arc;

use crate::window::gate::Gate;
use crate::window::sync::atomic::{AtomicBool, Ordering::SeqCst};
use crate::window::sync::thread::{self, Thread};
use crate::window::sync::{Mutex, OnceLock, lock};

/// A gate's part in helping.
#[derive(Default)]
pub(crate) struct Help {
    /// Does a piece of the feed's work on this thread, if this is one of those that would do it. Says
    /// whether it did.
    work: OnceLock<Box<dyn Fn() -> bool + Send + Sync>>,
    /// There is a helper. Whoever adds work need not take the lock to see that there is none.
    wanted: AtomicBool,
    ends: Mutex<Ends>,
}

/// The neighbours in the chain.
#[derive(Default)]
struct Ends {
    helper: Option<Thread>,
    upstream: Option<Arc<Gate>>,
}

impl std::fmt::Debug for Help {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Help").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl Help {
    /// Executor: what a consumer can do for it.
    pub(crate) fn set_work(&self, work: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.work.set(Box::new(work));
    }

    /// Executor: there is something new to do.
    pub(crate) fn call(&self) {
        if self.wanted.load(SeqCst)
            && let Some(helper) = &lock(&self.ends).helper
        {
            helper.unpark();
        }
    }

    /// Outlet, asleep on the intake of the feed whose help this is: what it waits for is done there.
    pub(crate) fn enter(&self, upstream: &Arc<Gate>) {
        let mut ends = lock(&self.ends);
        ends.upstream = Some(Arc::clone(upstream));
        if let Some(helper) = &ends.helper {
            helper.unpark();
        }
    }

    /// Outlet: awake again.
    pub(crate) fn leave(&self) {
        let upstream = lock(&self.ends).upstream.take();
        drop(upstream);
    }

    /// Says that this thread helps from now on.
    fn offer(&self, helper: &Thread) {
        let mut ends = lock(&self.ends);
        ends.helper = Some(helper.clone());
        self.wanted.store(true, SeqCst);
    }
}

/// Outlet, about to sleep: does a piece of the work of this feed or of one that it waits for, if this
/// is a thread of a pool. Says whether it did.
pub(crate) fn help(gate: &Arc<Gate>) -> bool {
    if !is_in_a_pool() {
        return false;
    }
    let helper = thread::current();
    let mut next = Some(Arc::clone(gate));
    while let Some(gate) = next {
        gate.help.offer(&helper);
        if gate.help.work.get().is_some_and(|work| work()) {
            return true;
        }
        next = lock(&gate.help.ends).upstream.clone();
    }
    false
}

/// Whether this thread is one of a pool's.
fn is_in_a_pool() -> bool {
    #[cfg(feature = "threads")]
    return rayon::current_thread_index().is_some();
    #[cfg(not(feature = "threads"))]
    false
}
