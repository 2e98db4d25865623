//! The intake: the thread that pulls the source, lazily, and packs its items in batches: as requests
//! for subprocesses, as they are for threads.
//!
//! It runs the user's `next()` and `encode`, catches their panics, and never pulls an input that the
//! gate does not allow. What it makes goes out by three ways: the open batch through the slot (see
//! there), full batches through a bounded channel, and what never becomes a request (an item that
//! `encode` refused, a record with its own delimiter) as an outcome through the same channel.

use std::sync::Arc;

use crate::record::{Batch, PacketId, Requests};
use crate::window::gate::{Gate, Pace};
use crate::window::packet::{Outcome, Replies, Span};
use crate::window::packing::Pack;
use crate::window::slot::Slot;
use crate::window::sync::atomic::{AtomicBool, Ordering::SeqCst};
use crate::window::sync::channel::{Receiver, SendError, Sender, TryRecvError};
use crate::window::sync::{Mutex, lock};
use crate::window::unwind::{self, Payload};

/// A batch this large is handed over even if nobody asks for it.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_RECORDS: usize = 8 << 10;
/// A batch that holds more is not filled again: one huge record would stay in memory for ever.
pub(crate) const LARGEST_SPARE: usize = 2 * BATCH_BYTES;

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
    },
}

/// The hand-over between one intake and one executor.
pub(crate) struct Handover<B: Batch = Requests> {
    pub(crate) slot: Slot<B>,
    /// The executor is about to sleep and has room: whoever has something wakes it.
    pub(crate) hungry: AtomicBool,
    /// The intake has pulled an item and makes a request of it, which may take its time.
    packing: AtomicBool,
    /// The outlet was dropped.
    dropped: AtomicBool,
    /// Answered batches on their way back.
    spares: Mutex<Vec<B>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl<B: Batch> std::fmt::Debug for Handover<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handover")
            .field("slot", &self.slot)
            .field("hungry", &self.hungry)
            .finish_non_exhaustive()
    }
}

impl<B: Batch> Handover<B> {
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            slot: Slot::new(),
            hungry: AtomicBool::new(false),
            packing: AtomicBool::new(false),
            dropped: AtomicBool::new(false),
            spares: Mutex::new(Vec::new()),
            wake: Box::new(wake),
        }
    }

    /// Wakes the executor if it waits for input.
    pub(crate) fn feed(&self) {
        if self.hungry.load(SeqCst) && self.hungry.swap(false, SeqCst) {
            (self.wake)();
        }
    }

    /// Executor: whether nothing that was pulled is still in the intake's hands: it waits at the gate
    /// or inside the source.
    pub(crate) fn is_empty_handed(&self) -> bool {
        self.slot.is_parked() && !self.packing.load(SeqCst)
    }

    /// Executor: gives an answered batch back to be filled again.
    pub(crate) fn give_back(&self, mut batch: B) {
        const KEEP: usize = 16;
        batch.clear();
        let mut spares = lock(&self.spares);
        if spares.len() < KEEP {
            spares.push(batch);
        }
    }

    fn spare(&self, empty: impl FnOnce() -> B) -> Box<B> {
        Box::new(lock(&self.spares).pop().unwrap_or_else(empty))
    }

    /// Outlet: nobody wants anything any more.
    pub(crate) fn drop_all(&self) {
        self.dropped.store(true, SeqCst);
        (self.wake)();
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(SeqCst)
    }

    /// Wakes the executor whatever it waits for.
    pub(crate) fn wake(&self) {
        (self.wake)();
    }
}

/// The executor's end of the hand-over.
#[derive(Debug)]
pub(crate) struct Supply<B: Batch = Requests, R = Replies> {
    pub(crate) handover: Arc<Handover<B>>,
    pub(crate) batches: Receiver<Arrival<B, R>>,
    pub(crate) gate: Arc<Gate>,
    ended: bool,
}

impl<B: Batch, R> Supply<B, R> {
    pub(crate) fn new(
        handover: Arc<Handover<B>>,
        batches: Receiver<Arrival<B, R>>,
        gate: Arc<Gate>,
    ) -> Self {
        Self { handover, batches, gate, ended: false }
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
                self.gate.hold(batch.bytes());
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

    /// The executor is about to sleep: asks to be woken for input. Says whether there is some already.
    pub(crate) fn ask(&self) {
        self.handover.hungry.store(true, SeqCst);
    }

    pub(crate) fn stop_asking(&self) {
        self.handover.hungry.store(false, SeqCst);
    }
}

/// The intake's side of everything.
pub(crate) struct Intake<B: Batch = Requests, R = Replies> {
    pub(crate) gate: Arc<Gate>,
    pub(crate) handover: Arc<Handover<B>>,
    pub(crate) batches: Sender<Arrival<B, R>>,
    pub(crate) first: PacketId,
}

impl<B: Batch, R> std::fmt::Debug for Intake<B, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("first", &self.first).finish_non_exhaustive()
    }
}

impl<B: Batch, R> Intake<B, R> {
    /// Pulls the source to its end, or until the gate stops it. Runs on a thread of its own.
    pub(crate) fn run<I, P>(self, mut source: I, mut packer: P)
    where
        I: Iterator,
        P: Pack<I::Item, Batch = B>,
    {
        self.gate.enter();
        let mut at = Progress::new();
        // One guard around all of it, which costs nothing until somebody panics; who it was, and what
        // was in the intake's hands, is in `at`.
        let ended = unwind::catch(|| self.pull(&mut source, &mut packer, &mut at))
            .unwrap_or_else(|payload| self.panicked(payload, &mut at));
        let Progress { pulled, .. } = at;
        let panic = ended.err().and_then(|End(payload)| payload);
        // The end is announced before the source is dropped: a slow `Drop` of the user's holds up
        // nobody but whoever joins this thread.
        let _ = self.batches.send(Arrival::End { pulled, panic });
        self.handover.wake();
        // A panic in the source's own `Drop` has nowhere to go; it must not take the process down.
        let _ = unwind::catch(move || drop(source));
        let _ = unwind::catch(move || drop(packer));
    }

    fn pull<I, P>(
        &self,
        source: &mut I,
        packer: &mut P,
        at: &mut Progress<I::Item, B>,
    ) -> Result<(), End>
    where
        I: Iterator,
        P: Pack<I::Item, Batch = B>,
    {
        let slot = &self.handover.slot;
        let mut aside: Option<Box<B>> = None;
        let mut pace = Pace::new();
        // Of the open batch. Its number too: a request may have no bytes at all.
        let (mut weight, mut count) = (0, 0);
        loop {
            // The batch, if any, is parked here from the moment this iteration begins.
            slot.park(at.open.take());
            if count > 0 {
                self.handover.feed();
            }
            if !self.gate.may_pull_at(&pace, at.pulled, weight) {
                let open = || if slot.has_batch() { weight } else { 0 };
                self.gate.wait_to_pull(&mut pace, at.pulled, open);
            }
            if self.gate.is_stopped() {
                return self.flush(slot.unpark());
            }
            at.within = Within::Source;
            let item = source.next();
            at.within = Within::Ours;
            let Some(item) = item else { return self.flush(slot.unpark()) };
            let packet = self.first.plus(at.pulled);
            at.pulled += 1;
            if packer.passes(&item) {
                packer.pass(item);
                self.flush(slot.unpark())?;
                (weight, count) = (0, 0);
                self.settle(Span::one(packet, Outcome::Passed))?;
                continue;
            }
            at.item = Some(item);
            let packed;
            if P::QUICK {
                at.open = slot.unpark();
                let open = at.open.get_or_insert_with(|| self.handover.spare(|| packer.empty()));
                if open.len() == 0 {
                    open.begin(packet);
                }
                at.within = Within::Packing(packet);
                packed = packer.pack(&mut at.item, packet, open);
            } else {
                // The batch stays parked while the user's code takes its time with this item; otherwise
                // the executor, woken for the items before, would find nothing to steal.
                let mut one =
                    aside.take().unwrap_or_else(|| self.handover.spare(|| packer.empty()));
                one.begin(packet);
                self.handover.packing.store(true, SeqCst);
                at.within = Within::PackingAside(packet);
                packed = packer.pack(&mut at.item, packet, &mut one);
                at.open = slot.unpark();
                self.handover.packing.store(false, SeqCst);
                match &mut at.open {
                    None => at.open = Some(one),
                    Some(open) => {
                        open.append(&mut one);
                        aside = Some(one);
                    }
                }
            }
            at.within = Within::Ours;
            if let Err(error) = packed {
                self.flush(at.open.take())?;
                // What it has of the item is held like anything else, until it is yielded.
                let weight = error.weight();
                self.gate.hold(weight);
                self.settle(Span { weight, ..Span::one(packet, Outcome::Failed(error)) })?;
            }
            (weight, count) = match &at.open {
                Some(batch) => (batch.bytes(), batch.len()),
                None => (0, 0),
            };
            if weight >= BATCH_BYTES || count >= BATCH_RECORDS {
                self.flush(at.open.take())?;
                (weight, count) = (0, 0);
            }
        }
    }

    /// The user's code has panicked, or ours: what was pulled before goes out, and the panic after it.
    #[cold]
    fn panicked<T>(&self, payload: Payload, at: &mut Progress<T, B>) -> Result<(), End> {
        let slot = &self.handover.slot;
        let packet = match at.within {
            // A bug of ours: never a consumer that waits for ever.
            Within::Ours => return Err(End(Some(payload))),
            Within::Source => {
                self.flush(slot.unpark())?;
                return Err(End(Some(payload)));
            }
            Within::Packing(packet) => {
                if let Some(open) = &mut at.open {
                    let before = open.len();
                    open.truncate(before.min(packet.since(open.first()) as usize));
                }
                packet
            }
            Within::PackingAside(packet) => {
                at.open = slot.unpark();
                self.handover.packing.store(false, SeqCst);
                packet
            }
        };
        // The item's own `Drop` may panic too; there is one panic already to be told of.
        let item = at.item.take();
        let _ = unwind::catch(move || drop(item));
        self.flush(at.open.take())?;
        self.settle(Span::one(packet, Outcome::Panicked(payload)))?;
        Err(End(None))
    }

    fn flush(&self, batch: Option<Box<B>>) -> Result<(), End> {
        match batch {
            Some(batch) if batch.len() > 0 => {
                self.gate.hold(batch.bytes());
                self.send(Arrival::Batch(batch))
            }
            _ => Ok(()),
        }
    }

    fn settle(&self, span: Span<R>) -> Result<(), End> {
        self.send(Arrival::Settled(span))
    }

    fn send(&self, arrival: Arrival<B, R>) -> Result<(), End> {
        // A full channel means that the executor has plenty; it looks here before it sleeps.
        if let Err(SendError(_)) = self.batches.send(arrival) {
            return Err(End(None));
        }
        self.handover.feed();
        Ok(())
    }
}

/// The executor is gone, or a panic ends the input.
struct End(Option<Payload>);

/// How far the pulling has come, and what is in the intake's hands: a panic leaves it as it was.
struct Progress<T, B> {
    pulled: u64,
    /// The open batch, while it is not parked in the slot.
    open: Option<Box<B>>,
    item: Option<T>,
    within: Within,
}

impl<T, B> Progress<T, B> {
    fn new() -> Self {
        Self { pulled: 0, open: None, item: None, within: Within::Ours }
    }
}

/// Whose code is running.
#[derive(Clone, Copy)]
enum Within {
    Ours,
    /// The source's `next()`; the open batch is in the slot.
    Source,
    /// `encode`, and the `Drop` of an item that nobody keeps; the open batch is in the intake's hands.
    Packing(PacketId),
    /// The same, with the open batch in the slot.
    PackingAside(PacketId),
}
