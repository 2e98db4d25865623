//! The open batch, where the executor can take it while the source blocks.
//!
//! The intake fills one batch at a time. Before it calls the user's `next()`, which may block for
//! ever, it *parks* the batch in the slot; afterwards it takes it back. While the batch is parked the
//! executor may steal it. So a record never sits unpublished while the source blocks, and publishing
//! costs two atomic swaps a record and no lock.
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
use crate::stream::sync::atomic::{AtomicPtr, Ordering::SeqCst};

/// `HELD`: the intake holds the batch, it is not inside the source.
const HELD: *mut Requests = ptr::null_mut();
/// `EMPTY`: the intake is inside the source and there is nothing to steal.
const EMPTY: *mut Requests = ptr::dangling_mut();

#[derive(Debug)]
pub(crate) struct Slot {
    batch: AtomicPtr<Requests>,
}

impl Slot {
    pub(crate) fn new() -> Self {
        Self { batch: AtomicPtr::new(HELD) }
    }

    /// Intake: about to wait or to enter the source; makes the batch, if there is one, stealable.
    pub(crate) fn park(&self, batch: Option<Box<Requests>>) {
        let parked = batch.map_or(EMPTY, Box::into_raw);
        let before = self.batch.swap(parked, SeqCst);
        debug_assert!(before == HELD, "parked twice");
    }

    /// Intake: takes the batch back, unless it was stolen or there was none.
    pub(crate) fn unpark(&self) -> Option<Box<Requests>> {
        Self::own(self.batch.swap(HELD, SeqCst))
    }

    /// Executor: takes the parked batch.
    pub(crate) fn steal(&self) -> Option<Box<Requests>> {
        let parked = self.batch.load(SeqCst);
        if parked == HELD || parked == EMPTY {
            return None;
        }
        // If the intake took it back meanwhile, it will see that the executor is hungry when it
        // parks again. If it parked again at the same address, what is stolen is simply newer.
        match self.batch.compare_exchange(parked, EMPTY, SeqCst, SeqCst) {
            Ok(stolen) => Self::own(stolen),
            Err(_) => None,
        }
    }

    /// Whether the intake is inside the source, or about to look at the stop flag before it enters.
    pub(crate) fn is_parked(&self) -> bool {
        self.batch.load(SeqCst) != HELD
    }

    fn own(batch: *mut Requests) -> Option<Box<Requests>> {
        if batch == HELD || batch == EMPTY {
            return None;
        }
        // SAFETY: every pointer but the two marks came from `Box::into_raw` in `park`, and each
        // caller has just removed it from the cell by an atomic exchange, so it is owned once.
        Some(unsafe { Box::from_raw(batch) })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        drop(self.unpark());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Box<Requests> {
        let mut batch = Requests::new(1);
        batch.columns[0].bytes.push(b'\n');
        batch.columns[0].ends.push(1);
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
}
