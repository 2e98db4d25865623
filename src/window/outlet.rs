//! The outlet: the consumer's end of a feed, under every iterator and batch type.
//!
//! It takes spans from the outbox, puts them in order if the feed is ordered, and gives credit back to the
//! gate: in bulk while the consumer runs, at once when it is about to sleep.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::record::{Batch, PacketId, Requests};
use crate::window::gate::Gate;
use crate::window::help::help;
use crate::window::intake::Handover;
use crate::window::joins::{self, Behind};
use crate::window::outbox::{Outbox, Taken};
use crate::window::packet::{End, Outcome, Replies, SessionEnd, Span};
use crate::window::reorder::Window;
use crate::window::sync::thread;
use crate::window::unwind::{self, Payload};

/// In which order replies are yielded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Order {
    /// In the order of the input.
    #[default]
    Input,
    /// As they complete.
    Completion,
}

#[derive(Debug)]
enum Queue<R> {
    Ordered(Window<Span<R>>),
    Unordered(VecDeque<Span<R>>),
}

impl<R> Queue<R> {
    fn put(&mut self, span: Span<R>) {
        match self {
            Self::Ordered(window) => window.put(span.first, span.count, span),
            Self::Unordered(queue) => queue.push_back(span),
        }
    }

    /// The only packet that can be taken next, if it has to be a certain one.
    fn head(&self) -> Option<PacketId> {
        match self {
            Self::Ordered(window) => Some(window.head()),
            Self::Unordered(_) => None,
        }
    }

    fn take(&mut self) -> Option<Span<R>> {
        match self {
            Self::Ordered(window) => window.take(),
            Self::Unordered(queue) => queue.pop_front(),
        }
    }
}

/// What the outlet gives for one packet.
#[derive(Debug)]
pub enum Given<A> {
    Reply(A),
    Failed(Error),
    Passed,
}

impl<A> Given<A> {
    #[inline]
    pub(crate) fn map<C>(self, f: impl FnOnce(A) -> C) -> Given<C> {
        match self {
            Self::Reply(reply) => Given::Reply(f(reply)),
            Self::Failed(error) => Given::Failed(error),
            Self::Passed => Given::Passed,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Outlet<B: Batch = Requests, R = Replies> {
    gate: Arc<Gate>,
    handover: Arc<Handover<B>>,
    outbox: Arc<Outbox<R>>,
    behind: Behind,
    queue: Queue<R>,
    fresh: Vec<Span<R>>,
    current: Option<Span<R>>,
    /// Packets yielded, and the bytes that were held for them.
    yielded: u64,
    spent: usize,
    /// What of that has been looked at for the executor's sake.
    spent_before: usize,
    /// The bytes of one packet of the current span.
    each: usize,
    end: Option<End>,
    done: bool,
    /// A fatal error has been given: what is left is what had been pulled before it.
    cut_short: bool,
    /// How many items may be yielded at most: the upper bound of a `size_hint`.
    pub(crate) most: Option<usize>,
    /// In completion order a panic waits for everything else that was pulled, as one of the source does.
    pub(crate) panics_last: bool,
    /// The panic that waits.
    panic: Option<Payload>,
}

/// It was time before anything had come.
struct Late;

impl<B: Batch, R> Outlet<B, R> {
    pub(crate) fn new(
        gate: Arc<Gate>,
        handover: Arc<Handover<B>>,
        outbox: Arc<Outbox<R>>,
        behind: Behind,
        order: Order,
        first: PacketId,
    ) -> Self {
        Self {
            gate,
            handover,
            outbox,
            behind,
            queue: match order {
                Order::Input => Queue::Ordered(Window::new(first)),
                Order::Completion => Queue::Unordered(VecDeque::new()),
            },
            fresh: Vec::new(),
            current: None,
            yielded: 0,
            spent: 0,
            spent_before: 0,
            each: 0,
            end: None,
            done: false,
            cut_short: false,
            most: None,
            panics_last: false,
            panic: None,
        }
    }

    /// The next packet and what became of it; blocks; `None` at the end, and for ever after.
    ///
    /// A reply is the caller's to take out of the replies it is given, one for each time.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<(PacketId, Given<&mut R>)> {
        if self.current.as_ref().is_none_or(|span| span.count == 0) && !self.advance() {
            return None;
        }
        let span = self.current.as_mut()?;
        let packet = span.first;
        span.first = packet.plus(1);
        span.count -= 1;
        let bytes = if span.count == 0 { span.weight } else { self.each };
        span.weight -= bytes;
        self.yielded += 1;
        self.spent = self.spent.wrapping_add(bytes);
        self.gate.publish(self.yielded, self.spent);
        if !matches!(span.outcome, Outcome::Replies(_) | Outcome::Halted) {
            let given = match std::mem::replace(&mut span.outcome, Outcome::Passed) {
                Outcome::Failed(error) => {
                    self.cut_short |= error.is_fatal();
                    Given::Failed(error)
                }
                Outcome::Panicked(payload) => self.panicked(payload),
                _ => Given::Passed,
            };
            return Some((packet, given));
        }
        let given = match &mut self.current.as_mut()?.outcome {
            Outcome::Replies(replies) => Given::Reply(replies),
            _ => {
                self.cut_short = true;
                Given::Failed(Error::halted().at(packet.0))
            }
        };
        Some((packet, given))
    }

    /// Whether there is something for [`next`](Outlet::next) to say, be it the end. Waits for that no
    /// longer than until `deadline`.
    pub(crate) fn is_ready_before(&mut self, deadline: Instant) -> bool {
        self.current.as_ref().is_some_and(|span| span.count > 0)
            || self.advance_before(Some(deadline)).is_ok()
    }

    /// The next span whole; the previous one is released.
    pub(crate) fn next_span(&mut self) -> Option<&mut Span<R>> {
        if !self.advance() {
            return None;
        }
        let span = self.current.as_mut()?;
        if let Outcome::Panicked(_) = &span.outcome {
            let Outcome::Panicked(payload) = std::mem::replace(&mut span.outcome, Outcome::Passed)
            else {
                unreachable!("matched above")
            };
            self.panicked(payload)
        }
        self.current.as_mut()
    }

    /// Gives back the credit for a span taken whole.
    pub(crate) fn release_span(&mut self) {
        self.drop_current();
    }

    fn panicked(&mut self, payload: Payload) -> ! {
        self.stop();
        self.done = true;
        unwind::resume(payload)
    }

    /// Lets go of the current span. What was not taken out of it, because the consumer took it whole (and may
    /// have forgotten it), counts as yielded.
    fn drop_current(&mut self) {
        let Some(span) = self.current.take() else { return };
        if span.count > 0 {
            self.yielded += span.count;
            self.spent = self.spent.wrapping_add(span.weight);
            self.gate.publish(self.yielded, self.spent);
        }
        let before = std::mem::replace(&mut self.spent_before, self.spent);
        if self.gate.span_is_done(before) {
            self.handover.wake();
        }
    }

    fn set_current(&mut self, span: Span<R>) {
        self.each = if span.count > 1 { (span.weight as u64 / span.count) as usize } else { 0 };
        self.current = Some(span);
    }

    /// Makes the next span current. `false` at the end.
    fn advance(&mut self) -> bool {
        self.advance_before(None).unwrap_or(false)
    }

    /// The same, but waits no longer than until the deadline, if there is one.
    fn advance_before(&mut self, deadline: Option<Instant>) -> Result<bool, Late> {
        self.drop_current();
        if self.done {
            return Ok(false);
        }
        loop {
            if let Some(span) = self.queue.take() {
                self.set_current(span);
                return Ok(true);
            }
            if !self.fetch(deadline)? {
                return Ok(self.finished());
            }
        }
    }

    /// Waits until something has come. `false` at the end.
    fn fetch(&mut self, deadline: Option<Instant>) -> Result<bool, Late> {
        if self.end.is_some() {
            return Ok(false);
        }
        let mut taken = self.outbox.take(&mut self.fresh);
        if matches!(taken, Taken::Nothing) {
            // About to sleep: everybody gets what they are due.
            self.gate.settle();
            if self.gate.is_full() {
                // The executor may have stopped reading for want of room; only it knows who holds
                // the head, and it asks the gate how far we are.
                self.handover.wake();
            }
            for _ in 0..YIELDS {
                thread::yield_now();
                taken = self.outbox.look(&mut self.fresh);
                if !matches!(taken, Taken::Nothing) {
                    break;
                }
            }
        }
        if matches!(taken, Taken::Nothing) {
            let upstream_of = joins::puller();
            let _inside = upstream_of.as_ref().map(|gate| gate.inside_outlet(&self.gate));
            loop {
                taken = self.outbox.take_or_sleep(self.queue.head(), &mut self.fresh);
                if !matches!(taken, Taken::Nothing) {
                    break;
                }
                if upstream_of.as_ref().is_some_and(|gate| gate.is_stopped()) {
                    // The feed that pulls this one has been stopped: it wants nothing more.
                    self.done = true;
                    return Ok(false);
                }
                // Whoever was told to unpark this thread may still do so: a park that ends early is
                // followed by another look, here as everywhere.
                let left = match deadline {
                    None => None,
                    Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                        None | Some(Duration::ZERO) => return Err(Late),
                        left => left,
                    },
                };
                if !help(&self.gate) {
                    match left {
                        None => thread::park(),
                        Some(left) => thread::park_timeout(left),
                    }
                }
            }
        }
        match taken {
            Taken::Spans => {
                let panics_last = self.panics_last && matches!(self.queue, Queue::Unordered(_));
                for span in self.fresh.drain(..) {
                    match span.outcome {
                        Outcome::Panicked(payload) if panics_last => {
                            self.gate.stop();
                            self.panic.get_or_insert(payload);
                        }
                        outcome => self.queue.put(Span { outcome, ..span }),
                    }
                }
                Ok(true)
            }
            Taken::End(end) => {
                self.end = Some(end);
                Ok(false)
            }
            Taken::Nothing => Ok(false),
        }
    }

    /// The stream has ended; a last error or panic may still be owed.
    fn finished(&mut self) -> bool {
        let Some(end) = &mut self.end else { return false };
        // Conservation is the executor's duty; should it ever break it, what is here still comes out,
        // but not before the panic that broke it.
        if let Queue::Ordered(window) = &mut self.queue
            && end.panic.is_none()
            && let Some(span) = window.take_any()
        {
            self.set_current(span);
            return true;
        }
        if let Some(error) = end.fatal.take() {
            if self.most.is_none_or(|most| self.yielded < most as u64) {
                self.current = Some(Span::one(PacketId(0), Outcome::Failed(error)));
                return true;
            }
            // Every item that the source can have had is out, so it concerns none: one item more would
            // break the upper bound of `size_hint`, on which collectors rely. `finish` reports it.
            end.remarks.insert(0, error);
        }
        if let Some(payload) = self.panic.take().or_else(|| end.panic.take()) {
            self.panicked(payload);
        }
        self.done = true;
        self.join();
        false
    }

    /// What belongs to no packet. Empty before the end.
    pub(crate) fn take_remarks(&mut self) -> Vec<Error> {
        self.end.as_mut().map(|end| std::mem::take(&mut end.remarks)).unwrap_or_default()
    }

    pub(crate) fn current(&self) -> Option<&Span<R>> {
        self.current.as_ref()
    }

    pub(crate) fn current_mut(&mut self) -> Option<&mut Span<R>> {
        self.current.as_mut()
    }

    /// The failure of the current span, if it is one.
    pub(crate) fn take_failure(&mut self) -> Option<Error> {
        let span = self.current.as_mut()?;
        match std::mem::replace(&mut span.outcome, Outcome::Passed) {
            Outcome::Failed(error) => Some(error),
            Outcome::Halted => Some(Error::halted().at(span.first.0)),
            _ => None,
        }
    }

    /// What each worker was handed, and how its sessions ended; after the end, of a drained feed.
    pub(crate) fn take_report(&mut self) -> (Vec<u64>, Vec<SessionEnd>) {
        let Some(end) = &mut self.end else { return Default::default() };
        (std::mem::take(&mut end.accepted), std::mem::take(&mut end.exits))
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    pub(crate) fn is_cut_short(&self) -> bool {
        self.cut_short
    }

    pub(crate) fn total_yielded(&self) -> u64 {
        self.yielded
    }

    fn stop(&self) {
        // In this order: an executor that saw the intake stop first would take it for the input's end.
        self.handover.drop_all();
        self.gate.stop();
    }

    fn join(&mut self) {
        let Self { handover, gate, behind, .. } = self;
        behind.join(gate, || handover.slot.is_parked());
    }
}

/// How often the consumer lets others run before it sleeps. Where all processors are busy, whoever answers then
/// goes on for a time slice, and the consumer finds what has gathered meanwhile; asleep, it would be
/// woken, at the cost of two switches, for the first of it. Where one is idle, it costs a microsecond.
const YIELDS: u32 = 4;

impl<B: Batch, R> Drop for Outlet<B, R> {
    fn drop(&mut self) {
        if !self.done || !self.behind.is_empty() {
            self.stop();
            self.join();
        }
    }
}
