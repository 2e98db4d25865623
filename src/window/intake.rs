//! The intake: the thread that pulls the source, lazily, and packs its items in batches: as requests
//! for processes, as they are for threads.
//!
//! It runs the user's `next()` and `encode`, catches their panics, and never pulls an input that the
//! gate does not allow. What it makes goes out by three ways: the open batch through the slot (see
//! there), full batches through a bounded channel, and what never becomes a request (an item that
//! `encode` refused, a record with its own delimiter) as an outcome through the same channel.

use std::sync::Arc;
use std::task::Poll;

use crate::record::{Batch, PacketId, Requests};
use crate::tuning::{BATCH_BYTES, BATCH_RECORDS};
use crate::window::gate::{Gate, Pace};
use crate::window::handover::{Arrival, Handover};
use crate::window::packet::{Outcome, Replies, Span};
use crate::window::packing::Pack;
#[cfg(test)]
use crate::window::sync::channel::TrySendError;
use crate::window::sync::channel::{SendError, Sender};
use crate::window::unwind::{self, Payload};

/// The intake's side of everything.
pub(crate) struct Intake<B: Batch = Requests, R = Replies> {
    pub(super) handover: Arc<Handover<B>>,
    batches: Sender<Arrival<B, R>>,
    pub(super) first: PacketId,
}

impl<B: Batch, R> std::fmt::Debug for Intake<B, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("first", &self.first).finish_non_exhaustive()
    }
}

impl<B: Batch, R> Intake<B, R> {
    pub(super) fn new(
        handover: Arc<Handover<B>>,
        batches: Sender<Arrival<B, R>>,
        first: PacketId,
    ) -> Self {
        Self { handover, batches, first }
    }

    pub(super) fn gate(&self) -> &Arc<Gate> {
        self.handover.gate()
    }

    /// Pulls the source to its end, or until the gate stops it. Runs on a thread of its own.
    pub(crate) fn run<I, P>(self, source: I, mut packer: P)
    where
        I: Iterator,
        P: Pack<I::Item, Batch = B>,
    {
        self.gate().enter();
        let mut at = Progress::new();
        let mut source = OnThread(source);
        // It goes on until there is an end.
        while !self.pull_guarded(&mut source, &mut packer, &mut at) {}
        // A panic in the source's own `Drop` has nowhere to go; it must not take the process down.
        let _ = unwind::catch(move || drop(source));
        let _ = unwind::catch(move || drop(packer));
    }

    /// Pulls for as long as the source goes on, and says whether the input has ended.
    ///
    /// The end is announced before the source is dropped: a slow `Drop` of the user's holds up only the one that joins
    /// this thread.
    pub(super) fn pull_guarded<S, P>(
        &self,
        source: &mut S,
        packer: &mut P,
        at: &mut Progress<S::Item, B>,
    ) -> bool
    where
        S: Pull,
        P: Pack<S::Item, Batch = B>,
    {
        // One guard around all of it, which costs nothing until somebody panics; who it was, and what
        // was in the intake's hands, is in `at`.
        let ended = unwind::catch(|| self.pull(source, packer, at))
            .unwrap_or_else(|payload| self.panicked(payload, at).map(|()| Stop::End));
        if matches!(ended, Ok(Stop::Pause)) {
            return false;
        }
        let panic = ended.err().and_then(|End(payload)| payload);
        let _ = self.batches.send(Arrival::End { pulled: at.pulled, panic, error: None });
        self.gate().wake_executor();
        true
    }

    fn pull<S, P>(
        &self,
        source: &mut S,
        packer: &mut P,
        at: &mut Progress<S::Item, B>,
    ) -> Result<Stop, End>
    where
        S: Pull,
        P: Pack<S::Item, Batch = B>,
    {
        let handover = &*self.handover;
        let (gate, slot) = (&**handover.gate(), handover.slot());
        let mut aside: Option<Box<B>> = None;
        let mut pace = Pace::new();
        // Of the open batch. Its number too: a request may have no bytes at all.
        let (mut weight, mut count) = size(&at.open);
        loop {
            // The batch, if any, is parked here from the moment this iteration begins.
            slot.park(at.open.take());
            if count > 0 {
                handover.feed();
            }
            if !gate.may_pull_at(&pace, at.pulled, weight) {
                let open = || if slot.has_batch() { weight } else { 0 };
                if !source.wait(gate, &mut pace, at.pulled, open) && !gate.is_stopped() {
                    return Ok(Stop::Pause);
                }
            }
            if gate.is_stopped() {
                return self.flush(slot.unpark()).map(|()| Stop::End);
            }
            at.within = Within::Source;
            let item = source.next();
            at.within = Within::Ours;
            let Poll::Ready(item) = item else { return Ok(Stop::Pause) };
            let Some(item) = item else { return self.flush(slot.unpark()).map(|()| Stop::End) };
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
                let open = at.open.get_or_insert_with(|| handover.spare(|| packer.empty()));
                if open.len() == 0 {
                    open.begin(packet);
                }
                at.within = Within::Packing(packet);
                packed = packer.pack(&mut at.item, packet, open);
            } else {
                // The batch stays parked while the user's code takes its time with this item; otherwise
                // the executor, woken for the items before, would find nothing to steal.
                let mut one = aside.take().unwrap_or_else(|| handover.spare(|| packer.empty()));
                one.begin(packet);
                handover.packs(true);
                at.within = Within::PackingAside(packet);
                packed = packer.pack(&mut at.item, packet, &mut one);
                at.open = slot.unpark();
                handover.packs(false);
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
                gate.hold(weight);
                self.settle(Span { weight, ..Span::one(packet, Outcome::Failed(error)) })?;
            }
            (weight, count) = size(&at.open);
            source.packed(weight);
            if weight >= BATCH_BYTES || count >= BATCH_RECORDS {
                self.flush(at.open.take())?;
                (weight, count) = (0, 0);
            }
        }
    }

    /// The user's code has panicked, or ours: what was pulled before goes out, and the panic after it.
    #[cold]
    fn panicked<T>(&self, payload: Payload, at: &mut Progress<T, B>) -> Result<(), End> {
        let slot = self.handover.slot();
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
                self.handover.packs(false);
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

    pub(super) fn flush(&self, batch: Option<Box<B>>) -> Result<(), End> {
        match batch {
            Some(batch) if batch.len() > 0 => {
                self.gate().hold(batch.bytes());
                self.send(Arrival::Batch(batch))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn settle(&self, span: Span<R>) -> Result<(), End> {
        self.send(Arrival::Settled(span))
    }

    pub(super) fn send(&self, arrival: Arrival<B, R>) -> Result<(), End> {
        // A full channel means that the executor has plenty; it looks here before it sleeps.
        if let Err(SendError(_)) = self.batches.send(arrival) {
            return Err(End(None));
        }
        self.handover.feed();
        Ok(())
    }
}

/// The steps of [`run`](Intake::run), for an intake that has no thread and waits for nothing.
#[cfg(test)]
impl<B: Batch, R> Intake<B, R> {
    /// About to wait or to enter the source.
    pub(crate) fn park(&self, open: Option<Box<B>>) {
        let some = open.is_some();
        self.handover.slot().park(open);
        if some {
            self.handover.feed();
        }
    }

    pub(crate) fn unpark(&self) -> Option<Box<B>> {
        self.handover.slot().unpark()
    }

    /// Whether one more may be pulled; if not, it sleeps until the gate calls it or its deadline has come.
    pub(crate) fn poll_pull(
        &self,
        pace: &mut Pace,
        pulled: u64,
        open: impl Fn() -> usize,
        now: std::time::Duration,
    ) -> bool {
        let gate = self.gate();
        gate.may_pull_at(pace, pulled, open()) || gate.poll_pull(pace, pulled, open, || now)
    }

    /// Whether the batch that was parked has not been taken.
    pub(crate) fn has_batch(&self) -> bool {
        self.handover.slot().has_batch()
    }

    pub(crate) fn try_send(
        &self,
        arrival: Arrival<B, R>,
    ) -> Result<(), TrySendError<Arrival<B, R>>> {
        self.batches.try_send(arrival)?;
        self.handover.feed();
        Ok(())
    }

    /// Nothing comes any more.
    pub(crate) fn close(self) {
        let gate = Arc::clone(self.gate());
        drop(self);
        gate.wake_executor();
    }
}

/// Bytes and packets of the open batch, if there is one.
#[inline]
fn size<B: Batch>(open: &Option<Box<B>>) -> (usize, usize) {
    match open {
        Some(batch) => (batch.bytes(), batch.len()),
        None => (0, 0),
    }
}

/// What an intake pulls, and how it waits.
pub(super) trait Pull {
    type Item;

    /// Waits until one more may be pulled after `pulled`, or the feed is stopped; says whether it has.
    fn wait(&mut self, gate: &Gate, pace: &mut Pace, pulled: u64, open: impl Fn() -> usize)
    -> bool;

    /// The next item, if it is here.
    fn next(&mut self) -> Poll<Option<Self::Item>>;

    /// The open batch now has so many bytes.
    fn packed(&mut self, _weight: usize) {}
}

/// An iterator, on a thread that waits.
struct OnThread<I>(I);

impl<I: Iterator> Pull for OnThread<I> {
    type Item = I::Item;

    #[inline]
    fn wait(
        &mut self,
        gate: &Gate,
        pace: &mut Pace,
        pulled: u64,
        open: impl Fn() -> usize,
    ) -> bool {
        gate.wait_to_pull(pace, pulled, open);
        true
    }

    #[inline]
    fn next(&mut self) -> Poll<Option<I::Item>> {
        Poll::Ready(self.0.next())
    }
}

/// Why an intake pulls no more for now.
enum Stop {
    /// The input has ended.
    End,
    /// The source has nothing yet, or it may not be asked. The open batch is parked.
    Pause,
}

/// The executor is gone, or a panic ends the input.
pub(super) struct End(pub(super) Option<Payload>);

/// How far the pulling has come, and what is in the intake's hands: a panic leaves it as it was.
pub(super) struct Progress<T, B> {
    pub(super) pulled: u64,
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

#[cfg(any(test, feature = "async"))]
impl<B: Batch, R> Intake<B, R> {
    /// After a pause with so many packets pulled: takes the open batch back, unless the executor has it. Says how many
    /// bytes it has.
    pub(super) fn resume<T>(&self, pulled: u64) -> (Progress<T, B>, usize) {
        let open = self.handover.slot().unpark();
        let weight = size(&open).0;
        (Progress { pulled, open, ..Progress::new() }, weight)
    }

    /// During a pause for want of room: hands the open batch over, so that its bytes are counted where the gate looks.
    pub(super) fn flush_parked(&self) {
        let slot = self.handover.slot();
        // If nobody is there to take it, the feed has ended, which the gate says.
        let _ = self.flush(slot.unpark());
        slot.park(None);
    }

    /// During such a pause: whether there is room for one more. If not, the puller is called when there is.
    pub(super) fn has_room(&self, pulled: u64) -> bool {
        self.gate().poll_room(&mut Pace::new(), pulled, || 0) == Some(true)
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
