//! The open batch, where the executor can take it while the source blocks.
//!
//! The intake fills one batch at a time. Before it calls the user's `next()`, which may block for
//! ever, it *parks* the batch in the slot; afterwards (and after a user's `encode`, which may take its
//! time) it takes it back. While the batch is parked the executor may steal it. So a record never sits
//! unpublished while the source blocks, and publishing costs two atomic swaps a record and no lock.
//!
//! ```text
//!            park(batch)                 steal
//!   HELD ------------------> PARKED --------------> EMPTY
//!    ^  \-------------------------------------------^ |
//!    |       park(nothing)      |                     |
//!    +------- unpark -----------+------- unpark ------+
//! ```
//!
//! Only the intake enters and leaves `HELD`; only the executor goes from `PARKED` to `EMPTY`, with a
//! compare-and-swap, so it can never overwrite what the intake parked meanwhile. All operations are
//! `SeqCst`: `park` then "is the executor hungry?" here, and "I am hungry" then `steal` there, are a
//! store and a load on each side that must not pass one another.

use std::ptr;

use crate::record::Requests;
use crate::window::sync::atomic::{AtomicPtr, Ordering::SeqCst};

/// `B: Send`, because the batch goes from thread to thread, which `AtomicPtr` does not ask for.
pub(crate) struct Slot<B: Send = Requests> {
    batch: AtomicPtr<B>,
}

impl<B: Send> std::fmt::Debug for Slot<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("parked", &self.is_parked()).finish_non_exhaustive()
    }
}

impl<B: Send> Slot<B> {
    /// The intake holds the batch, it is not inside the source.
    const HELD: *mut B = ptr::null_mut();
    /// The intake is inside the source and there is nothing to steal. No box ever has this address
    /// but one of a batch without size, which [`new`](Self::new) refuses.
    const EMPTY: *mut B = ptr::dangling_mut();

    pub(crate) fn new() -> Self {
        const { assert!(size_of::<B>() > 0, "an empty type's box has no address of its own") };
        Self { batch: AtomicPtr::new(Self::HELD) }
    }

    /// Intake: about to wait or to enter the source; makes the batch, if there is one, stealable.
    #[inline]
    pub(crate) fn park(&self, batch: Option<Box<B>>) {
        let parked = batch.map_or(Self::EMPTY, Box::into_raw);
        let before = self.batch.swap(parked, SeqCst);
        debug_assert!(before == Self::HELD, "parked twice");
    }

    /// Intake: takes the batch back, unless it was stolen or there was none.
    #[inline]
    pub(crate) fn unpark(&self) -> Option<Box<B>> {
        Self::own(self.batch.swap(Self::HELD, SeqCst))
    }

    /// Executor: takes the parked batch.
    pub(crate) fn steal(&self) -> Option<Box<B>> {
        let parked = self.batch.load(SeqCst);
        if parked == Self::HELD || parked == Self::EMPTY {
            return None;
        }
        // If the intake took it back meanwhile, it will see that the executor is hungry when it
        // parks again. If it parked again at the same address, what is stolen is simply newer.
        match self.batch.compare_exchange(parked, Self::EMPTY, SeqCst, SeqCst) {
            Ok(stolen) => Self::own(stolen),
            Err(_) => None,
        }
    }

    /// Whether there is something to steal.
    pub(crate) fn has_batch(&self) -> bool {
        let parked = self.batch.load(SeqCst);
        parked != Self::HELD && parked != Self::EMPTY
    }

    /// Whether the intake is inside the source or `encode`, or about to look at the stop flag before it
    /// enters.
    pub(crate) fn is_parked(&self) -> bool {
        self.batch.load(SeqCst) != Self::HELD
    }

    #[inline]
    fn own(batch: *mut B) -> Option<Box<B>> {
        if batch == Self::HELD || batch == Self::EMPTY {
            return None;
        }
        // SAFETY: every pointer but the two marks came from `Box::into_raw` in `park`, and each
        // caller has just removed it from the cell by an atomic exchange, so it is owned once.
        Some(unsafe { Box::from_raw(batch) })
    }
}

impl<B: Send> Drop for Slot<B> {
    fn drop(&mut self) {
        drop(self.unpark());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Batch;

    fn batch() -> Box<Requests> {
        let mut batch = Requests::new(1);
        batch.columns[0].bytes.push(b'\n');
        batch.columns[0].push_end();
        Box::new(batch)
    }

    #[test]
    fn a_parked_batch_is_had_once() {
        let slot = Slot::new();
        assert!(slot.steal().is_none());
        slot.park(Some(batch()));
        assert!(slot.is_parked());
        assert_eq!(slot.steal().map(|batch| batch.len()), Some(1));
        assert!(slot.steal().is_none() && slot.is_parked());
        assert!(slot.unpark().is_none());
        slot.park(Some(batch()));
        assert!(slot.unpark().is_some() && slot.steal().is_none() && !slot.is_parked());
        slot.park(Some(batch()));
    }

    #[test]
    fn a_batch_that_nobody_takes_goes_with_the_slot() {
        let item = std::sync::Arc::new(());
        let slot = Slot::new();
        slot.park(Some(Box::new(vec![item.clone()])));
        drop(slot);
        assert_eq!(std::sync::Arc::strong_count(&item), 1);
    }
}
