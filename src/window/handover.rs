//! From the intake to the executor: what arrives, and the executor's end.

use std::sync::Arc;

use crate::error::Error;
use crate::record::{Batch, Requests};
use crate::tuning::SPARE_BATCHES;
use crate::window::gate::Gate;
use crate::window::packet::{Replies, Span};
use crate::window::slot::Slot;
use crate::window::sync::atomic::{AtomicBool, Ordering::SeqCst};
use crate::window::sync::channel::{Receiver, TryRecvError};
use crate::window::sync::{Mutex, lock};
use crate::window::unwind::Payload;

/// What the executor receives.
#[derive(Debug)]
pub(crate) enum Arrival<B = Requests, R = Replies> {
    Batch(Box<B>),
    /// Packets that are no work.
    Settled(Span<R>),
    /// The end of the input: how many packets were pulled in all.
    End {
        pulled: u64,
        panic: Option<Payload>,
        /// What a reader failed with, where records are read.
        error: Option<Error>,
    },
}

/// The hand-over between one intake and one executor.
#[derive(Debug)]
pub(super) struct Handover<B: Batch = Requests> {
    gate: Arc<Gate>,
    slot: Slot<B>,
    /// The executor is about to sleep and has room: the intake wakes it when it has something.
    hungry: AtomicBool,
    /// The intake has pulled an item and makes a request of it, which may take its time.
    packing: AtomicBool,
    /// Answered batches on their way back.
    spares: Mutex<Vec<B>>,
}

impl<B: Batch> Handover<B> {
    pub(super) fn new(gate: Arc<Gate>) -> Self {
        Self {
            gate,
            slot: Slot::new(),
            hungry: AtomicBool::new(false),
            packing: AtomicBool::new(false),
            spares: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    pub(super) fn slot(&self) -> &Slot<B> {
        &self.slot
    }

    /// Intake: wakes the executor if it waits for input.
    pub(super) fn feed(&self) {
        if self.hungry.load(SeqCst) && self.hungry.swap(false, SeqCst) {
            self.gate.wake_executor();
        }
    }

    /// Intake: it has an item of which nobody else knows, or none any more.
    pub(super) fn packs(&self, packing: bool) {
        self.packing.store(packing, SeqCst);
    }

    /// Intake: a batch to fill.
    pub(super) fn spare(&self, empty: impl FnOnce() -> B) -> Box<B> {
        Box::new(lock(&self.spares).pop().unwrap_or_else(empty))
    }
}

/// Out of which an executor takes packets.
#[derive(Debug)]
pub(crate) struct Supply<B: Batch = Requests, R = Replies> {
    handover: Arc<Handover<B>>,
    batches: Receiver<Arrival<B, R>>,
    ended: bool,
}

impl<B: Batch, R> Supply<B, R> {
    pub(super) fn new(handover: Arc<Handover<B>>, batches: Receiver<Arrival<B, R>>) -> Self {
        Self { handover, batches, ended: false }
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.handover.gate
    }

    /// Takes what is there: full batches first, since they are older, then the open one.
    pub(crate) fn take(&mut self) -> Option<Arrival<B, R>> {
        if self.ended {
            return None;
        }
        match self.batches.try_recv() {
            Ok(arrival) => {
                self.ended = matches!(arrival, Arrival::End { .. });
                Some(arrival)
            }
            Err(TryRecvError::Empty) => {
                let batch = self.handover.slot.steal()?;
                // The intake may have sent a full batch between the look at the channel and the
                // steal. Then the stolen one is newer, which is no harm: packets carry their ids.
                self.gate().hold(batch.bytes());
                Some(Arrival::Batch(batch))
            }
            Err(TryRecvError::Disconnected) => None,
        }
    }

    /// Takes a full batch, or what else stands in line, if there is one; the open batch is left to grow.
    pub(crate) fn take_full(&mut self) -> Option<Arrival<B, R>> {
        let arrival = (!self.ended).then(|| self.batches.try_recv().ok()).flatten()?;
        self.ended = matches!(arrival, Arrival::End { .. });
        Some(arrival)
    }

    /// About to sleep: asks to be woken for packets, of which there may be some already.
    pub(crate) fn ask(&self) {
        self.handover.hungry.store(true, SeqCst);
    }

    pub(crate) fn stop_asking(&self) {
        self.handover.hungry.store(false, SeqCst);
    }

    /// Gives an answered batch back to be filled again.
    pub(crate) fn give_back(&self, mut batch: B) {
        batch.clear();
        let mut spares = lock(&self.handover.spares);
        if spares.len() < SPARE_BATCHES {
            spares.push(batch);
        }
    }

    /// Whether the intake has nothing that was pulled and is not here: it waits at the gate or inside the source.
    pub(crate) fn is_all_here(&self) -> bool {
        self.handover.slot.is_parked() && !self.handover.packing.load(SeqCst)
    }

    /// Nobody wants anything any more.
    pub(crate) fn is_dropped(&self) -> bool {
        self.gate().is_dropped()
    }
}
