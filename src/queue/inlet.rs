//! The inlet: a bounded channel from many producers to one source iterator.
//!
//! Not a std or crossbeam channel, for four reasons: it can be stopped from either side while others
//! still have handles; what nobody took can be had back; its iterator, asleep on the intake of a
//! feed, is woken when that feed is stopped, as an earlier feed's outlet would be; and who waits for room
//! may be that feed's consumer, so that its intake need not wait for more credit than there is.
//!
//! # Invariants
//! 1. Every item put with `Ok` is in the inlet until the iterator yields it, or until somebody takes it
//!    back; every other item is in the error.
//! 2. Nothing enters an inlet that is closed: stopped, or left by its iterator. A thread that waits to put is
//!    told, and has its item back.
//! 3. The iterator leaves word before it parks, under the lock under which everything is put.

use std::collections::VecDeque;
use std::error;
use std::fmt;
use std::iter::FusedIterator;
#[cfg(feature = "async")]
use std::pin::Pin;
use std::sync::{Arc, Condvar, PoisonError, Weak};
#[cfg(feature = "async")]
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

#[cfg(feature = "async")]
use super::line::Line;
use crate::window::gate::Gate;
use crate::window::joins;
use crate::window::sync::thread;
use crate::window::sync::{Mutex, MutexGuard, lock};
use crate::window::waiter::Waiter;

/// A bounded channel from any number of producers to an iterator, which can be the source of any feed.
///
/// At most `capacity` items are in the inlet; items that the feed has pulled count in its own window. The iterator ends
/// when the inlet is empty and has been stopped or has no more producers. A [`Queue`](crate::queue::Queue) is an inlet and
/// a feed in one.
///
/// ```
/// use subfeed::FeedExt;
/// let (producer, items) = subfeed::queue::inlet(10);
/// let squares = items.feed_threads_ordered(|n: u64| n * n, 4, 100);
/// for n in 1..=3 {
///     producer.put(n).unwrap();
/// }
/// producer.stop();
/// assert!(squares.eq([1, 4, 9]));
/// ```
///
/// # Panics
/// If `capacity` is 0.
#[track_caller]
#[must_use]
pub fn inlet<T>(capacity: usize) -> (Producer<T>, Inlet<T>) {
    assert!(capacity > 0, "an inlet needs room for at least one item, and its capacity is 0");
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            items: VecDeque::new(),
            producers: 1,
            stopped: false,
            left: false,
            asleep: None,
            puller: Weak::new(),
            waiting: 0,
            #[cfg(feature = "async")]
            line: Line::default(),
        }),
        room: Condvar::new(),
        capacity,
    });
    (Producer { shared: Arc::clone(&shared) }, Inlet { shared, is_begun: false })
}

struct Shared<T> {
    state: Mutex<State<T>>,
    /// Somebody may put, or nobody any more.
    room: Condvar,
    capacity: usize,
}

struct State<T> {
    items: VecDeque<T>,
    producers: usize,
    stopped: bool,
    /// The iterator is gone.
    left: bool,
    /// The one that takes, while it waits.
    asleep: Option<Waiter>,
    /// The gate of the feed whose intake has the iterator.
    puller: Weak<Gate>,
    /// Producers that wait for room.
    waiting: usize,
    /// Tasks that wait for room.
    #[cfg(feature = "async")]
    line: Line,
}

impl<T> Shared<T> {
    /// Changes something, and wakes the iterator.
    fn change(&self, change: impl FnOnce(&mut State<T>)) {
        let asleep = {
            let mut state = lock(&self.state);
            change(&mut state);
            state.asleep.take()
        };
        if let Some(waiter) = asleep {
            waiter.wake();
        }
    }

    fn stop(&self) {
        self.change(|state| state.stopped = true);
        self.call_all();
    }

    /// All that wait for room are to look again.
    fn call_all(&self) {
        self.room.notify_all();
        #[cfg(feature = "async")]
        {
            let wakers = lock(&self.state).line.call_all();
            wakers.into_iter().for_each(wake);
        }
    }

    fn is_pulled_by(&self, gate: Option<&Arc<Gate>>) {
        lock(&self.state).puller = gate.map(Arc::downgrade).unwrap_or_default();
    }

    /// Waits for room until then, for ever if there is no end to it.
    fn put(&self, item: T, until: Option<Instant>) -> Result<(), TryPutError<T>> {
        let mut state = lock(&self.state);
        let mut waits = false;
        loop {
            if state.stopped || state.left {
                return Err(TryPutError::Stopped(item));
            }
            if state.items.len() < self.capacity {
                state.items.push_back(item);
                let asleep = state.asleep.take();
                drop(state);
                if let Some(waiter) = asleep {
                    waiter.wake();
                }
                return Ok(());
            }
            let limit = match until {
                None => None,
                Some(until) => match until.checked_duration_since(Instant::now()) {
                    Some(rest) if !rest.is_zero() => Some(rest),
                    _ => return Err(TryPutError::Full(item)),
                },
            };
            if !std::mem::replace(&mut waits, true)
                && let Some(puller) = state.puller.upgrade()
            {
                // About to sleep, on what may be the thread of the consumer.
                drop(state);
                puller.settle();
                drop(puller);
                state = lock(&self.state);
                continue;
            }
            state.waiting += 1;
            state = self.wait(state, limit);
            state.waiting -= 1;
        }
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State<T>>,
        limit: Option<Duration>,
    ) -> MutexGuard<'a, State<T>> {
        match limit {
            None => self.room.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(limit) => {
                self.room.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }
}

/// Puts items into an inlet, or into a [`Queue`](crate::queue::Queue). Clone it for more producers.
///
/// The inlet ends when it is stopped, or when every producer has been dropped.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Producer<T> {
    /// Puts an item in, and waits for room as long as it takes.
    ///
    /// # Errors
    /// If the inlet was stopped, before the call or during it, or if the feed has ended. The error holds the item.
    pub fn put(&self, item: T) -> Result<(), Stopped<T>> {
        self.shared.put(item, None).map_err(|error| Stopped(error.into_inner()))
    }

    /// Puts an item in if there is room now. Never blocks.
    ///
    /// # Errors
    /// If there is no room now, or if the inlet has been stopped. The error holds the item.
    pub fn try_put(&self, item: T) -> Result<(), TryPutError<T>> {
        self.shared.put(item, Some(Instant::now()))
    }

    /// Puts an item in, and waits for room at most this long.
    ///
    /// # Errors
    /// As [`try_put`](Producer::try_put).
    pub fn put_timeout(&self, item: T, limit: Duration) -> Result<(), TryPutError<T>> {
        // A limit beyond the end of time is none.
        self.shared.put(item, Instant::now().checked_add(limit))
    }

    /// Puts an item in, and waits for room without blocking, for async programs.
    ///
    /// Waiting calls get room in the order in which they were made. A future that is dropped before it is ready has put
    /// nothing, and delays no other.
    ///
    /// ```
    /// # mod executor { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/block_on.rs")); }
    /// # use executor::block_on;
    /// use subfeed::{FeedExt, Template};
    /// let (producer, items) = subfeed::queue::inlet(1);
    /// let mut feed = items.feed_subprocesses_ordered(Template::new("cat"), 1, 10);
    /// block_on(async {
    ///     producer.put_async("one").await.unwrap();
    ///     producer.put_async("two").await.unwrap();
    /// });
    /// producer.stop();
    /// assert_eq!(feed.collect::<Result<Vec<_>, _>>()?, ["one", "two"]);
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Producer::put).
    #[cfg(feature = "async")]
    pub fn put_async(&self, item: T) -> impl Future<Output = Result<(), Stopped<T>>> + use<'_, T> {
        Put { shared: &self.shared, item: Some(item), ticket: None }
    }

    /// Whether both put in the same inlet.
    #[cfg(feature = "async")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Refuses further puts from all producers. Items that were put are still processed. Never blocks; a second call does
    /// nothing.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Whether further puts are refused, because the inlet was stopped or the feed has ended.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        let state = lock(&self.shared.state);
        state.stopped || state.left
    }

    /// Takes back the items that the feed has not pulled, the oldest first. After a feed has ended early, these are items
    /// that it has not processed.
    #[must_use]
    pub fn take_back(&self) -> Vec<T> {
        let mut items = VecDeque::new();
        self.shared.change(|state| items = std::mem::take(&mut state.items));
        self.shared.call_all();
        items.into()
    }
}

/// Puts an item when there is room and its turn has come.
#[cfg(feature = "async")]
struct Put<'a, T> {
    shared: &'a Shared<T>,
    item: Option<T>,
    /// Its turn, while it stands in line.
    ticket: Option<u64>,
}

/// The item is moved in and out, and never pinned.
#[cfg(feature = "async")]
impl<T> Unpin for Put<'_, T> {}

#[cfg(feature = "async")]
impl<T> Future for Put<'_, T> {
    type Output = Result<(), Stopped<T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let waker = context.waker().clone();
        let shared = self.shared;
        let mut state = lock(&shared.state);
        let item = self.item.take().expect("a future is not polled after it was ready");
        let is_closed = state.stopped || state.left;
        let ahead = state.line.ahead_of(self.ticket);
        if is_closed || state.items.len() + ahead < shared.capacity {
            if let Some(ticket) = self.ticket.take() {
                state.line.leave(ticket);
            }
            if is_closed {
                return Poll::Ready(Err(Stopped(item)));
            }
            state.items.push_back(item);
            let asleep = state.asleep.take();
            drop(state);
            asleep.into_iter().for_each(Waiter::wake);
            return Poll::Ready(Ok(()));
        }
        self.item = Some(item);
        let first = self.ticket.is_none();
        let other = state.line.wait(&mut self.ticket, waker);
        let puller = state.puller.upgrade().filter(|_| first);
        drop(state);
        drop(other);
        if let Some(puller) = puller {
            // This may be the task of the consumer, which takes nothing meanwhile.
            puller.settle();
        }
        Poll::Pending
    }
}

#[cfg(feature = "async")]
impl<T> Drop for Put<'_, T> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let next = {
            let mut state = lock(&self.shared.state);
            // It was its turn: now it is the next one's.
            if state.line.leave(ticket) { state.line.call() } else { None }
        };
        next.into_iter().for_each(wake);
    }
}

/// Calls a task that waited for room. Its panic is nobody's here.
#[cfg(feature = "async")]
fn wake(waker: Waker) {
    Waiter::Task(waker).wake();
}

impl<T> Clone for Producer<T> {
    fn clone(&self) -> Self {
        lock(&self.shared.state).producers += 1;
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.shared.change(|state| state.producers -= 1);
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("stopped", &self.is_stopped()).finish_non_exhaustive()
    }
}

/// The items that are put into an inlet, as a source for a feed. From [`inlet`].
pub struct Inlet<T> {
    shared: Arc<Shared<T>>,
    /// It has been asked for an item.
    is_begun: bool,
}

impl<T> Iterator for Inlet<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let shared = &*self.shared;
        if !std::mem::replace(&mut self.is_begun, true) {
            shared.is_pulled_by(joins::puller().as_ref());
        }
        if let Some(item) = take(shared, None) {
            return item;
        }
        // About to sleep: on the intake of a feed, so that a stop of that feed wakes it.
        let gate = joins::puller();
        shared.is_pulled_by(gate.as_ref());
        let _inside = gate.as_ref().map(|gate| gate.inside_feed());
        loop {
            if let Some(item) = take(shared, Some(Waiter::this_thread())) {
                return item;
            }
            if gate.as_ref().is_some_and(|gate| gate.is_stopped()) {
                return None;
            }
            thread::park();
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let state = lock(&self.shared.state);
        let ended = state.stopped || state.producers == 0;
        (state.items.len(), ended.then_some(state.items.len()))
    }
}

/// The next item, or the end; `None` if it has to be waited for, then having left word if asked to.
fn take<T>(shared: &Shared<T>, waiter: Option<Waiter>) -> Option<Option<T>> {
    let mut state = lock(&shared.state);
    if let Some(item) = state.items.pop_front() {
        if state.waiting > 0 {
            shared.room.notify_one();
        }
        #[cfg(feature = "async")]
        {
            let next = state.line.call();
            drop(state);
            next.into_iter().for_each(wake);
        }
        return Some(Some(item));
    }
    if state.stopped || state.producers == 0 {
        return Some(None);
    }
    let other = std::mem::replace(&mut state.asleep, waiter);
    drop(state);
    drop(other);
    None
}

#[cfg(feature = "async")]
impl<T> Inlet<T> {
    /// The next item, or the end, for a task.
    pub(crate) fn poll_next(&mut self, waker: &Waker) -> Poll<Option<T>> {
        if let Some(item) = take(&self.shared, None) {
            return Poll::Ready(item);
        }
        match take(&self.shared, Some(Waiter::Task(waker.clone()))) {
            Some(item) => Poll::Ready(item),
            None => Poll::Pending,
        }
    }
}

impl<T> FusedIterator for Inlet<T> {}

impl<T> Drop for Inlet<T> {
    fn drop(&mut self) {
        lock(&self.shared.state).left = true;
        self.shared.call_all();
    }
}

impl<T> fmt::Debug for Inlet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inlet").finish_non_exhaustive()
    }
}

/// The item that could not be put, because the queue has been stopped or has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stopped<T>(pub T);

impl<T> fmt::Debug for Stopped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stopped(..)")
    }
}

impl<T> fmt::Display for Stopped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue has been stopped")
    }
}

impl<T> error::Error for Stopped<T> {}

/// Why an item could not be put, and the item.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TryPutError<T> {
    /// There is no room now.
    Full(T),
    /// The queue has been stopped, or has ended.
    Stopped(T),
}

impl<T> TryPutError<T> {
    /// The item that was not put.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(item) | Self::Stopped(item) => item,
        }
    }

    /// Whether there was no room, so that a later attempt may succeed.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }
}

impl<T> fmt::Debug for TryPutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_full() { "Full(..)" } else { "Stopped(..)" })
    }
}

impl<T> fmt::Display for TryPutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_full() {
            "the queue has no room"
        } else {
            "the queue has been stopped"
        })
    }
}

impl<T> error::Error for TryPutError<T> {}
