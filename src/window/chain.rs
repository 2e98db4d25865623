//! The chain of feeds that a consumer waits for, and the hook by which it can do something better than to sleep.
//!
//! A feed may pull another one: while its intake sleeps in the outlet of that one (its *upstream*), the gate of the
//! first knows the gate of the second. So the chain can be walked from the consumer's end. A consumer that
//! can do an executor's work says so at each gate that it passes, and is unparked when there is news.
//!
//! # Invariants
//! 1. `upstream` is the feed in whose outlet this feed's intake sleeps, and nothing at other times. An
//!    intake is one thread, which sleeps in one place.
//! 2. The *helper* of a feed is the thread to unpark when there is something new to do. A helper says
//!    that it is one before it looks for work, and looks for work before it looks upstream.
//! 3. Work is added before a helper is looked for; so does an outlet that goes to sleep on an
//!    intake, for which the work is itself. All under one lock: one of the two sees the other.
//! 4. A helper that has found nothing parks, and is unparked by the next work of any feed of the chain.
//!    It is not told that it is no longer needed: a stale unpark finds nothing to do, once.

use std::sync::Arc;

use crate::window::gate::Gate;
use crate::window::sync::atomic::{AtomicBool, Ordering::SeqCst};
use crate::window::sync::thread::Thread;
use crate::window::sync::{Mutex, OnceLock, lock};

/// What an outlet does before this thread sleeps for this feed; says whether it is to look again instead.
type Assistance = fn(&Arc<Gate>) -> bool;

static ASSISTANCE: OnceLock<Assistance> = OnceLock::new();

/// The hook: from now on, this is done before a consumer sleeps, in whichever feed.
pub(crate) fn set_assistance(assistance: Assistance) {
    let _ = ASSISTANCE.set(assistance);
}

/// Outlet, about to sleep.
pub(super) fn assist(gate: &Arc<Gate>) -> bool {
    ASSISTANCE.get().is_some_and(|assistance| assistance(gate))
}

/// A gate's part in the chain.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// There is a helper. Adding work need not take the lock to see that there is none.
    wanted: AtomicBool,
    ends: Mutex<Ends>,
}

/// The neighbours.
#[derive(Debug, Default)]
struct Ends {
    helper: Option<Thread>,
    upstream: Option<Arc<Gate>>,
}

impl Link {
    /// Executor: there is something new to do.
    pub(super) fn call(&self) {
        if self.wanted.load(SeqCst)
            && let Some(helper) = &lock(&self.ends).helper
        {
            helper.unpark();
        }
    }

    /// Outlet, asleep on the intake of this feed: what it waits for is done there.
    pub(super) fn enter(&self, upstream: &Arc<Gate>) {
        let mut ends = lock(&self.ends);
        ends.upstream = Some(Arc::clone(upstream));
        if let Some(helper) = &ends.helper {
            helper.unpark();
        }
    }

    /// Outlet: awake again.
    pub(super) fn leave(&self) {
        let upstream = lock(&self.ends).upstream.take();
        drop(upstream);
    }

    pub(super) fn upstream(&self) -> Option<Arc<Gate>> {
        lock(&self.ends).upstream.clone()
    }

    /// This thread helps from now on.
    pub(super) fn offer(&self, helper: &Thread) {
        let mut ends = lock(&self.ends);
        ends.helper = Some(helper.clone());
        self.wanted.store(true, SeqCst);
    }
}
