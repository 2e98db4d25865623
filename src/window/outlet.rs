//! The outlet: the consumer's end of a feed, under every iterator and batch type.
//!
//! It takes spans from the outbox, puts them in order if the feed is ordered, and gives credit back to the
//! gate: in bulk while the consumer runs, at once when it is about to sleep.
//!
//! # Invariants
//! 1. More is taken from the outbox, and the end with it, only when everything that was taken before has been put where it is
//!    taken from: [`unsorted`](Outlet::unsorted) is empty.
//! 2. A task's poll puts so many spans there and no more; if what the task waits for is not among them, it is woken at once, to
//!    go on. So a poll is short however much has gathered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::record::{Batch, PacketId, Requests};
#[cfg(any(test, feature = "async"))]
use crate::tuning::SPANS_A_POLL;
use crate::tuning::YIELDS;
use crate::window::chain;
use crate::window::gate::Gate;
use crate::window::handover::Handover;
use crate::window::joins::{self, Behind, ExecutorThread, IntakeThread};
use crate::window::outbox::{Outbox, Taken};
use crate::window::packet::{End, Outcome, Replies, SessionEnd, Span};
use crate::window::reorder::Window;
use crate::window::sync::thread;
use crate::window::unwind::{self, Payload};
use crate::window::waiter::Waiter;

/// The order in which replies are yielded.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Order {
    /// In the order of the input.
    #[default]
    Input,
    /// In the order in which they complete.
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

    /// How many spans there are.
    #[cfg(any(test, feature = "async"))]
    fn len(&self) -> usize {
        match self {
            Self::Ordered(window) => window.len(),
            Self::Unordered(queue) => queue.len(),
        }
    }
}

/// What the outlet gives for one packet.
#[derive(Debug)]
pub(crate) enum Given<A> {
    Reply(A),
    Failed(Error),
    Passed,
}

#[derive(Debug)]
pub(crate) struct Outlet<B: Batch = Requests, R = Replies> {
    gate: Arc<Gate>,
    handover: Arc<Handover<B>>,
    outbox: Arc<Outbox<R>>,
    behind: Behind,
    queue: Queue<R>,
    /// What has come from the outbox, whose room is used again.
    fresh: Vec<Span<R>>,
    /// The same while it is put where it is taken from, the first of it first.
    unsorted: VecDeque<Span<R>>,
    current: Option<Span<R>>,
    /// Packets yielded, and the bytes that were held for them.
    yielded: u64,
    spent: usize,
    /// What of that has been looked at for the executor's sake.
    spent_before: usize,
    /// The bytes of one packet of the current span, and what the last one has more.
    each: usize,
    rest: usize,
    end: Option<End>,
    done: bool,
    /// The threads behind it are waited for at the end.
    waits: bool,
    /// A fatal error has been given: what is left is what had been pulled before it.
    cut_short: bool,
    /// How many items may be yielded at most: the upper bound of a `size_hint`.
    most: Option<usize>,
    /// In completion order a panic waits for everything else that was pulled, as one of the source does.
    panics_last: bool,
    /// The panic that waits.
    panic: Option<Payload>,
}

/// It was time before anything had come.
struct Late;

/// How closely an outlet looks for what has come.
#[derive(Clone, Copy)]
enum Look<'a> {
    /// Not at the shelves, which may have more the next time.
    Briefly,
    Closely,
    /// And if there is nothing, this one is to be woken when there is.
    OrWait(&'a Waiter),
}

impl Look<'_> {
    /// How many spans are put where they are taken from before it is enough. A thread has nothing else to do.
    fn spans(self) -> usize {
        match self {
            #[cfg(any(test, feature = "async"))]
            Self::OrWait(Waiter::Task(_)) => SPANS_A_POLL,
            _ => usize::MAX,
        }
    }
}

impl<B: Batch, R> Outlet<B, R> {
    pub(super) fn new(
        handover: Arc<Handover<B>>,
        outbox: Arc<Outbox<R>>,
        order: Order,
        first: PacketId,
    ) -> Self {
        Self {
            gate: Arc::clone(handover.gate()),
            handover,
            outbox,
            behind: Behind::default(),
            queue: match order {
                Order::Input => Queue::Ordered(Window::new(first)),
                Order::Completion => Queue::Unordered(VecDeque::new()),
            },
            fresh: Vec::new(),
            unsorted: VecDeque::new(),
            current: None,
            yielded: 0,
            spent: 0,
            spent_before: 0,
            each: 0,
            rest: 0,
            end: None,
            done: false,
            waits: true,
            cut_short: false,
            most: None,
            panics_last: false,
            panic: None,
        }
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// The packet that comes next, where the order is the input's.
    pub(crate) fn next_in_order(&self) -> Option<PacketId> {
        match &self.queue {
            Queue::Ordered(window) => Some(window.origin().plus(self.yielded)),
            Queue::Unordered(_) => None,
        }
    }

    /// The executor runs on this thread, which ends with the feed.
    pub(crate) fn keep_executor(&mut self, executor: ExecutorThread) {
        self.behind.executor = Some(executor);
    }

    /// The intake runs on this thread.
    pub(crate) fn keep_intake(&mut self, intake: Option<IntakeThread>) {
        self.behind.intake = intake;
    }

    /// Nothing comes but this error: something that the feed needs is not to be had.
    pub(crate) fn fail(&self, error: Error) {
        self.outbox.end(End { fatal: Some(error), ..End::default() });
        self.gate.drop_feed();
    }

    /// Never yields more items than this, be it a fatal error.
    pub(crate) fn at_most(&mut self, most: Option<usize>) {
        self.most = most;
    }

    /// In completion order a panic waits for everything else that was pulled.
    pub(crate) fn panics_come_last(&mut self) {
        self.panics_last = true;
    }

    /// The next packet and what became of it; blocks; `None` at the end, and for ever after.
    ///
    /// A reply is the caller's to take out of the replies it is given, one for each time.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<(PacketId, Given<&mut R>)> {
        if self.is_dry() && !self.wait() {
            return None;
        }
        self.take()
    }

    /// Ready when [`next`](Outlet::next) has something to say, be it the end, and need not wait for it. If not, leaves word to
    /// wake the waiter when it may have, and nobody else any more. Never blocks. At the end, `next` waits for nobody either.
    #[cfg(any(test, feature = "async"))]
    pub(crate) fn poll_ready(&mut self, waiter: impl FnOnce() -> Waiter) -> Poll<()> {
        if self.is_dry() {
            self.waits = false;
            if self.poll(&waiter()).is_pending() {
                self.pause();
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// Both in one.
    #[cfg(test)]
    pub(crate) fn poll_next(
        &mut self,
        waiter: impl FnOnce() -> Waiter,
    ) -> Poll<Option<(PacketId, Given<&mut R>)>> {
        self.poll_ready(waiter).map(|()| self.next())
    }

    #[inline]
    fn is_dry(&self) -> bool {
        self.current.as_ref().is_none_or(|span| span.count == 0)
    }

    /// The next packet of the current span.
    #[inline]
    fn take(&mut self) -> Option<(PacketId, Given<&mut R>)> {
        let span = self.current.as_mut()?;
        let packet = span.first;
        span.first = packet.plus(1);
        span.count -= 1;
        self.yielded += 1;
        self.spent = self.spent.wrapping_add(self.each);
        if span.count == 0 {
            self.spent = self.spent.wrapping_add(self.rest);
        }
        self.gate.publish(self.yielded, self.spent);
        if !matches!(span.outcome, Outcome::Replies(_)) {
            return Some((packet, self.take_no_reply(packet)?));
        }
        match &mut self.current.as_mut()?.outcome {
            Outcome::Replies(replies) => Some((packet, Given::Reply(replies))),
            _ => None,
        }
    }

    /// What became of a packet of the current span that has no replies.
    #[cold]
    fn take_no_reply<A>(&mut self, packet: PacketId) -> Option<Given<A>> {
        let outcome = &mut self.current.as_mut()?.outcome;
        if matches!(outcome, Outcome::Halted) {
            // Of each packet of the span.
            self.cut_short = true;
            return Some(Given::Failed(Error::halted().at(packet.0)));
        }
        Some(match std::mem::replace(outcome, Outcome::Passed) {
            Outcome::Failed(error) => {
                self.cut_short |= error.is_fatal();
                Given::Failed(error)
            }
            Outcome::Panicked(payload) => self.panicked(payload),
            _ => Given::Passed,
        })
    }

    /// The same, but consecutive packets together, with their number, where they were answered or have passed.
    pub(crate) fn next_whole(&mut self) -> Option<(PacketId, u64, Given<R>)> {
        if self.is_dry() && !self.wait() {
            return None;
        }
        let span = self.current.as_mut()?;
        if !matches!(span.outcome, Outcome::Replies(_) | Outcome::Passed) {
            return self.take().map(|(packet, given)| match given {
                Given::Failed(error) => (packet, 1, Given::Failed(error)),
                Given::Passed | Given::Reply(_) => (packet, 1, Given::Passed),
            });
        }
        let (first, count) = (span.first, span.count);
        let outcome = std::mem::replace(&mut span.outcome, Outcome::Passed);
        // It is the consumer's now, and counts as yielded.
        self.drop_current();
        let given = match outcome {
            Outcome::Replies(replies) => Given::Reply(replies),
            _ => Given::Passed,
        };
        Some((first, count, given))
    }

    /// Whether there is something for [`next`](Outlet::next) to say, be it the end. Waits for that no
    /// longer than until `deadline`.
    pub(crate) fn is_ready_before(&mut self, deadline: Instant) -> bool {
        !self.is_dry() || self.wait_until(Some(deadline)).is_ok()
    }

    fn panicked(&mut self, payload: Payload) -> ! {
        self.gate.drop_feed();
        self.done = true;
        unwind::resume(payload)
    }

    /// Lets go of the current span. What was not taken out of it, because the consumer took it whole (and may
    /// have forgotten it), counts as yielded.
    fn drop_current(&mut self) {
        let Some(span) = self.current.take() else { return };
        if span.count > 0 {
            self.yielded += span.count;
            let bytes = self.each.wrapping_mul(span.count as usize).wrapping_add(self.rest);
            self.spent = self.spent.wrapping_add(bytes);
            self.gate.publish(self.yielded, self.spent);
        }
        let before = std::mem::replace(&mut self.spent_before, self.spent);
        if self.gate.span_is_done(before) {
            self.gate.wake_executor();
        }
    }

    fn set_current(&mut self, span: Span<R>) {
        (self.each, self.rest) = match span.count {
            0 | 1 => (span.weight, 0),
            n => ((span.weight as u64 / n) as usize, (span.weight as u64 % n) as usize),
        };
        self.current = Some(span);
    }

    /// Makes the next span current. `Ready(false)` is the end. If neither is here, leaves word to wake the waiter, and
    /// nobody else any more. Never blocks.
    pub(crate) fn poll(&mut self, waiter: &Waiter) -> Poll<bool> {
        self.advance(Look::OrWait(waiter))
    }

    /// The same, of what there is to see.
    fn advance(&mut self, look: Look<'_>) -> Poll<bool> {
        self.drop_current();
        let mut spans = look.spans();
        while !self.done {
            if let Some(span) = self.queue.take() {
                self.set_current(span);
                return Poll::Ready(true);
            }
            if !self.unsorted.is_empty() {
                if spans > 0 {
                    self.sort(&mut spans);
                    continue;
                }
                if let Look::OrWait(waiter) = look {
                    waiter.clone().wake();
                }
                return Poll::Pending;
            }
            if self.end.is_some() {
                return Poll::Ready(self.take_end());
            }
            let taken = match look {
                Look::Briefly => self.outbox.take(&mut self.fresh),
                Look::Closely => self.outbox.look(&mut self.fresh),
                Look::OrWait(waiter) => {
                    let waiter = waiter.clone();
                    self.outbox.take_or_wait(self.queue.head(), waiter, &mut self.fresh)
                }
            };
            match taken {
                Taken::Spans if spans == usize::MAX => self.sort_all(),
                Taken::Spans => self.unsorted = VecDeque::from(std::mem::take(&mut self.fresh)),
                Taken::End(end) => self.end = Some(end),
                Taken::Nothing => return Poll::Pending,
            }
        }
        Poll::Ready(false)
    }

    /// Puts what has come where it is taken from.
    fn sort_all(&mut self) {
        let mut fresh = std::mem::take(&mut self.fresh);
        for span in fresh.drain(..) {
            self.put(span);
        }
        self.fresh = fresh;
    }

    /// The same with what is unsorted: `most` of it, of which it takes off what it has done.
    fn sort(&mut self, most: &mut usize) {
        let now = self.unsorted.len().min(*most);
        *most -= now;
        let mut unsorted = std::mem::take(&mut self.unsorted);
        for span in unsorted.drain(..now) {
            self.put(span);
        }
        if unsorted.is_empty() {
            self.fresh = Vec::from(unsorted);
        } else {
            self.unsorted = unsorted;
        }
    }

    #[inline]
    fn put(&mut self, span: Span<R>) {
        if self.panics_last && matches!(span.outcome, Outcome::Panicked(_)) {
            self.put_panic(span);
        } else {
            self.queue.put(span);
        }
    }

    #[cold]
    fn put_panic(&mut self, span: Span<R>) {
        match span.outcome {
            Outcome::Panicked(payload) if matches!(self.queue, Queue::Unordered(_)) => {
                self.gate.stop();
                self.panic.get_or_insert(payload);
            }
            outcome => self.queue.put(Span { outcome, ..span }),
        }
    }

    /// Waits for the next span, and makes it current. `false` at the end, when the threads have ended too.
    #[inline(never)]
    fn wait(&mut self) -> bool {
        self.wait_until(None).unwrap_or(false)
    }

    /// The same, but for a span, or for the beginning of the end, no longer than until the deadline, if there is
    /// one.
    fn wait_until(&mut self, deadline: Option<Instant>) -> Result<bool, Late> {
        let has_come = match self.advance(Look::Briefly) {
            Poll::Ready(has_come) => has_come,
            Poll::Pending => self.sleep_until(deadline)?,
        };
        if !has_come && self.end.is_some() && self.waits {
            self.join();
        }
        Ok(has_come)
    }

    fn sleep_until(&mut self, deadline: Option<Instant>) -> Result<bool, Late> {
        self.pause();
        for _ in 0..YIELDS {
            thread::yield_now();
            if let Poll::Ready(has_come) = self.advance(Look::Closely) {
                return Ok(has_come);
            }
        }
        let waiter = Waiter::this_thread();
        let puller = joins::puller();
        let _inside = puller.as_ref().map(|gate| gate.inside_outlet(&self.gate));
        loop {
            if let Poll::Ready(has_come) = self.poll(&waiter) {
                return Ok(has_come);
            }
            if puller.as_ref().is_some_and(|gate| gate.is_stopped()) {
                // The feed that pulls this one has been stopped: it wants nothing more. Another consumer may.
                return Ok(false);
            }
            // A thread that was told to unpark this one may still do so: a park that ends early is
            // followed by another look, here as everywhere.
            let left = match deadline {
                None => None,
                Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                    None | Some(Duration::ZERO) => return Err(Late),
                    left => left,
                },
            };
            if !chain::assist(&self.gate) {
                match left {
                    None => thread::park(),
                    Some(left) => thread::park_timeout(left),
                }
            }
        }
    }

    /// There is nothing here, and the consumer is about to wait: everybody gets what they are due.
    fn pause(&self) {
        self.gate.settle();
        if self.gate.is_full() {
            // The executor may have stopped reading for want of room; only it knows who holds
            // the head, and it asks the gate how far we are.
            self.gate.wake_executor();
        }
    }

    /// Everything has come; a last error or panic may still be owed.
    fn take_end(&mut self) -> bool {
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
                self.set_current(Span::one(PacketId(0), Outcome::Failed(error)));
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
        false
    }

    /// What belongs to no packet. Empty before the end.
    pub(crate) fn take_remarks(&mut self) -> Vec<Error> {
        self.end.as_mut().map(|end| std::mem::take(&mut end.remarks)).unwrap_or_default()
    }

    /// What each worker was handed, and how its sessions ended; after the end, of a drained feed.
    pub(crate) fn take_report(&mut self) -> (Vec<u64>, Vec<SessionEnd>) {
        let Some(end) = &mut self.end else { return Default::default() };
        (std::mem::take(&mut end.accepted), std::mem::take(&mut end.exits))
    }

    /// Bytes that were held for what was yielded.
    #[cfg(test)]
    pub(crate) fn spent(&self) -> usize {
        self.spent
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

    fn join(&mut self) {
        let Self { gate, handover, behind, .. } = self;
        if !behind.is_empty() {
            behind.join(gate, || handover.slot().is_parked());
        }
    }
}

/// What a drop frees by itself where nothing may block: so many bytes, and so many spans. More would take a millisecond, the
/// start of a thread takes a tenth of that.
#[cfg(any(test, feature = "async"))]
const FREED_HERE: (usize, usize) = (1 << 20, 1_000);

/// For where nothing may block.
#[cfg(any(test, feature = "async"))]
impl<B: Batch, R: Send + 'static> Outlet<B, R> {
    /// Ends the feed without waiting for anything. Nothing is left for the drop.
    pub(crate) fn detach(&mut self) {
        self.stop_waiting();
        if self.done && self.behind.is_empty() {
            return;
        }
        let held = self.gate.held();
        self.gate.drop_feed();
        self.behind.let_go();
        self.done = true;
        self.let_go(held);
    }

    /// Lets go of everything that has come, with so many bytes in it.
    fn let_go(&mut self, held: usize) {
        let mut all = self.outbox.take_all();
        all.push(std::mem::take(&mut self.fresh));
        let unsorted = std::mem::take(&mut self.unsorted);
        let queue = std::mem::replace(&mut self.queue, Queue::Unordered(VecDeque::new()));
        let (bytes, spans) = FREED_HERE;
        // An empty one may have much room, which takes time to free as well.
        let room = all.iter().map(Vec::capacity).sum::<usize>() + unsorted.capacity();
        let left = (all, unsorted, queue, self.current.take());
        if held > bytes || room + left.2.len() > spans {
            joins::drop_elsewhere(left);
        }
    }

    /// Nobody is woken any more.
    fn stop_waiting(&self) {
        self.outbox.forget_waiter();
        self.gate.forget_task();
    }

    /// Ends the feed, as its drop would, in steps that do not block: what is left is let go. Ready when the executor has
    /// come to its end, and a process with it; then the threads are to be [waited for](Outlet::take_behind).
    #[cfg(feature = "async")]
    pub(crate) fn poll_close(&mut self, waiter: &Waiter) -> Poll<()> {
        if !self.gate.is_dropped() {
            self.stop_waiting();
            let held = self.gate.held();
            self.gate.drop_feed();
            self.let_go(held);
        }
        // Where there is no thread of the executor's, nobody says when it has ended.
        while !self.done && self.end.is_none() && self.behind.executor.is_some() {
            match self.outbox.take_or_wait(None, waiter.clone(), &mut self.fresh) {
                Taken::Spans => self.let_go(self.gate.held()),
                Taken::End(end) => self.end = Some(end),
                Taken::Nothing => return Poll::Pending,
            }
        }
        self.done = true;
        Poll::Ready(())
    }

    /// The threads behind it, which have been told to end, for somebody who waits for them.
    #[cfg(feature = "async")]
    pub(crate) fn take_behind(&mut self) -> (Behind, impl Fn() -> bool + use<B, R>) {
        let handover = Arc::clone(&self.handover);
        (std::mem::take(&mut self.behind), move || handover.slot().is_parked())
    }
}

impl<B: Batch, R> Drop for Outlet<B, R> {
    fn drop(&mut self) {
        if !self.done || !self.behind.is_empty() {
            self.gate.drop_feed();
            self.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::task::{Wake, Waker};

    use super::*;
    use crate::record::Requests;
    use crate::window::gate::Pace;
    use crate::window::seam::{Bounds, Ends, attach};

    type Values = VecDeque<u32>;

    fn put(outbox: &Outbox<Values>, first: u64, values: &[u32]) {
        let (count, values) = (values.len() as u64, values.iter().copied().collect());
        let outcome = Outcome::Replies(values);
        outbox.put(&mut vec![Span { first: PacketId(first), count, weight: 0, outcome }]);
    }

    /// An outlet of values, and the executor's side of it.
    fn outlet(order: Order, shelves: usize) -> (Outlet<Requests, Values>, Arc<Outbox<Values>>) {
        let bounds = Bounds { order, shelves, ..Bounds::new(8, usize::MAX) };
        let Ends { outlet, outbox, .. } = attach(bounds, || {});
        (outlet, outbox)
    }

    /// A task, and how often it was woken.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn task() -> (Arc<Task>, Waiter) {
        let task = Arc::new(Task::default());
        (Arc::clone(&task), Waiter::Task(Waker::from(task)))
    }

    fn woken(task: &Task) -> usize {
        task.0.load(SeqCst)
    }

    /// `Some(None)` is the end.
    fn polled(outlet: &mut Outlet<Requests, Values>, waiter: &Waiter) -> Option<Option<u32>> {
        match outlet.poll_next(|| waiter.clone()) {
            Poll::Pending => None,
            Poll::Ready(None) => Some(None),
            Poll::Ready(Some((_, Given::Reply(values)))) => Some(values.pop_front()),
            Poll::Ready(Some((packet, given))) => panic!("{packet:?}: {given:?}"),
        }
    }

    #[test]
    fn who_polls_in_vain_is_woken_once_when_something_comes() {
        for order in [Order::Input, Order::Completion] {
            let (mut outlet, other) = outlet(order, 0);
            let (task, waiter) = task();
            assert_eq!(polled(&mut outlet, &waiter), None);
            assert_eq!(woken(&task), 0);
            put(&other, 0, &[10, 11]);
            put(&other, 2, &[12]);
            assert_eq!(woken(&task), 1);
            let all: Vec<_> = (0..4).map(|_| polled(&mut outlet, &waiter)).collect();
            assert_eq!(all, [Some(Some(10)), Some(Some(11)), Some(Some(12)), None]);
            other.end(End::default());
            assert_eq!(woken(&task), 2);
            assert_eq!(polled(&mut outlet, &waiter), Some(None));
            assert_eq!(polled(&mut outlet, &waiter), Some(None));
            assert!(outlet.next().is_none(), "for a caller that asks in the other way, too");
        }
    }

    #[test]
    fn the_last_waiter_is_the_one_that_is_woken_and_to_register_again_costs_nothing() {
        let (mut outlet, other) = outlet(Order::Input, 0);
        let ((first, one), (second, two)) = (task(), task());
        assert_eq!(polled(&mut outlet, &one), None);
        let count = Arc::strong_count(&first);
        assert_eq!(polled(&mut outlet, &one), None);
        assert_eq!(Arc::strong_count(&first), count);
        assert_eq!(polled(&mut outlet, &two), None);
        assert_eq!(Arc::strong_count(&first), count - 1, "it is not kept");
        put(&other, 0, &[7]);
        assert_eq!((woken(&first), woken(&second)), (0, 1));
    }

    #[test]
    fn what_lies_on_a_shelf_is_found_and_only_the_head_wakes() {
        let (mut outlet, other) = outlet(Order::Input, 2);
        let (task, waiter) = task();
        other.leave_value(0, PacketId(0), 10);
        assert_eq!(polled(&mut outlet, &waiter), Some(Some(10)));
        assert_eq!(polled(&mut outlet, &waiter), None);
        other.leave_value(1, PacketId(2), 12);
        assert_eq!((woken(&task), polled(&mut outlet, &waiter)), (0, None));
        other.leave_value(0, PacketId(1), 11);
        assert_eq!(woken(&task), 1);
        assert_eq!(polled(&mut outlet, &waiter), Some(Some(11)));
        assert_eq!(polled(&mut outlet, &waiter), Some(Some(12)));
    }

    #[test]
    fn who_polls_in_vain_ends_the_gathering_of_credits() {
        let (mut outlet, other) = outlet(Order::Input, 0);
        let (_, waiter) = task();
        put(&other, 0, &[10]);
        let mut pace = Pace::new();
        let gate = Arc::clone(outlet.gate());
        let mut may_pull = || gate.poll_pull(&mut pace, 8, || 0, || Duration::ZERO);
        assert!(!may_pull());
        assert_eq!(polled(&mut outlet, &waiter), Some(Some(10)));
        assert!(!may_pull(), "it lingers for a second one");
        assert_eq!(polled(&mut outlet, &waiter), None);
        assert!(may_pull());
    }

    /// The thread of an executor that does not end.
    fn stuck() -> Behind {
        let executor = ExecutorThread::spawn("stuck", || {
            loop {
                thread::park();
            }
        });
        Behind { executor: executor.ok(), intake: None }
    }

    #[test]
    fn neither_the_end_nor_a_detached_outlet_waits_for_a_thread() {
        let (mut ended, other) = outlet(Order::Input, 0);
        let (_, waiter) = task();
        ended.behind = stuck();
        other.end(End::default());
        assert_eq!(polled(&mut ended, &waiter), Some(None));
        ended.detach();
        drop(ended);

        let (mut detached, _other) = outlet(Order::Input, 0);
        let gate = Arc::clone(detached.gate());
        let (task, waiter) = task();
        detached.behind = stuck();
        assert_eq!(polled(&mut detached, &waiter), None);
        detached.detach();
        assert!(gate.is_stopped() && gate.is_dropped());
        assert_eq!(Arc::strong_count(&task), 2, "the waiter is not kept");
        assert!(detached.next().is_none());
        drop(detached);
    }

    #[test]
    fn a_panic_comes_out_of_a_poll_and_is_the_end() {
        let (mut outlet, other) = outlet(Order::Completion, 0);
        let (_, waiter) = task();
        other.end(End { panic: Some(Box::new("told")), ..End::default() });
        let payload = unwind::catch(|| polled(&mut outlet, &waiter)).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"told"));
        assert_eq!(polled(&mut outlet, &waiter), Some(None));
    }
}
