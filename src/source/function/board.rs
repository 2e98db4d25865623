//! What consumer and session tell each other.
//!
//! Each pass has a gate, an outbox and an outlet of its own, as every stream of this crate; here they are called a lane.
//! The consumer hangs a new lane on the board and wakes the event loop; the session takes it from there.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::error::Error;
use crate::window::handover::Supply;
use crate::window::outbox::Outbox;
use crate::window::outlet::Outlet;
use crate::window::packet::End;
use crate::window::seam::{Bounds, Ends, attach};
use crate::window::sync::lock;

/// One pass, as the session has to know it.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) generation: u64,
    pub(super) supply: Supply,
    pub(super) outbox: Arc<Outbox>,
}

impl Lane {
    /// The pass ends before it has begun.
    fn refuse(self, error: Error) {
        self.outbox.end(End { fatal: Some(error), ..End::default() });
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Board {
    notes: Mutex<Notes>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Notes {
    /// Passes that the session has not seen yet. Even one that was left meanwhile is started, since it
    /// counts where passes differ.
    next: VecDeque<Lane>,
    /// Nobody wants anything any more.
    closing: bool,
    ready: bool,
    /// Why there is no child any more.
    fate: Option<Error>,
}

impl Board {
    /// Hangs up the next pass. The event loop is to be woken.
    fn hang(&self, lane: Lane) {
        let mut notes = lock(&self.notes);
        match &notes.fate {
            Some(fate) => lane.refuse(fate.again()),
            None => notes.next.push_back(lane),
        }
    }

    /// The child is to go. The event loop is to be woken.
    fn close(&self) {
        lock(&self.notes).closing = true;
    }

    /// Waits until the child stands by, or never will.
    fn wait_until_ready(&self) -> Result<(), Error> {
        let waiting = |notes: &mut Notes| !notes.ready && notes.fate.is_none();
        let notes = self.changed.wait_while(lock(&self.notes), waiting);
        match &notes.unwrap_or_else(PoisonError::into_inner).fate {
            Some(fate) => Err(fate.again()),
            None => Ok(()),
        }
    }

    /// Session: the passes that are new. `None`: the child is to go.
    pub(super) fn take(&self) -> Option<VecDeque<Lane>> {
        let mut notes = lock(&self.notes);
        (!notes.closing).then(|| std::mem::take(&mut notes.next))
    }

    /// Session: the child stands by.
    pub(super) fn is_ready(&self) {
        lock(&self.notes).ready = true;
        self.changed.notify_all();
    }

    /// There is no child, and never will be.
    pub(super) fn seal(&self, fate: Error) {
        let mut notes = lock(&self.notes);
        for lane in notes.next.drain(..) {
            lane.refuse(fate.again());
        }
        notes.fate = Some(fate);
        self.changed.notify_all();
    }
}

/// The consumer's side of it. Dropping it tells the child to go.
pub(super) struct Caller {
    board: Arc<Board>,
    /// Wakes the event loop.
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Caller {
    pub(super) fn new(board: Arc<Board>, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { board, wake: Arc::new(wake) }
    }

    /// Begins a pass.
    pub(super) fn begin(&self, generation: u64, bounds: Bounds) -> Outlet {
        let wake = Arc::clone(&self.wake);
        let Ends { supply, outbox, outlet, .. } = attach(bounds, move || wake());
        self.board.hang(Lane { generation, supply, outbox });
        (self.wake)();
        outlet
    }

    /// Waits until the child stands by, or never will.
    pub(super) fn wait_until_ready(&self) -> Result<(), Error> {
        self.board.wait_until_ready()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.board.close();
        (self.wake)();
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("board", &self.board).finish_non_exhaustive()
    }
}
