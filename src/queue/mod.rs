//! The queue: a feed with a put at one end and a get at the other.
//!
//! There is no machinery here: an inlet is the source of a feed, and order, bounds, failures and the end
//! are the feed's. The inlet adds producers and a stop.

mod feeder;
mod inlet;
#[cfg(feature = "async")]
mod line;
mod timed;

use std::collections::VecDeque;
use std::error;
use std::fmt;
use std::time::{Duration, Instant};

pub use self::feeder::Feeder;
pub use self::inlet::{Inlet, Producer, Stopped, TryPutError, inlet};
pub use self::timed::{NotYet, Timed};
use crate::ext::FeedExt;
use crate::feed::Feed;
use crate::template::Template;
use crate::template::codec::{Decode, Encode};
#[cfg(feature = "threads")]
use crate::threads::FeedThreads;
use crate::window::unwind::{self, Payload};

/// A first-in-first-out queue with workers in the middle: what is put at one end comes out at the other
/// as what the workers made of it, in the order in which it was put.
///
/// It is for code that has no iterator to feed: with many producers, or one that looks for results now and then.
/// A slow item delays the results behind it, but not the work on them, until the window is full.
///
/// | | |
/// |---|---|
/// | [`put`](Queue::put), `try_put`, `put_timeout` | in, from here or from any [`producer`](Queue::producer) |
/// | [`get`](Queue::get), `try_get`, `get_timeout` | out |
/// | [`stop`](Queue::stop) | no more puts; what was put is processed |
/// | [`join`](Queue::join), `join_timeout` | stops, and waits until the workers are gone |
///
/// The window bounds what has been pulled and not yet got, the inlet before it what has been put and not
/// yet pulled. So `put` blocks once both are full, until somebody gets: a caller that puts and gets on one
/// thread uses [`try_put`](Queue::try_put), or gets in between. (Do not put from a thread of the pool
/// that does the work: a put that blocks there takes the thread from the workers.)
///
/// ```
/// use subfeed::queue::Queue;
/// let mut queue = Queue::threads(|n: u64| n * n, 4, 100);
/// let producer = queue.producer();
/// std::thread::spawn(move || {
///     for n in 1..=5 {
///         producer.put(n).unwrap();
///     }
///     producer.stop();
/// });
/// let squares: Vec<_> = std::iter::from_fn(|| queue.get()).collect();
/// assert_eq!(squares, [1, 4, 9, 16, 25]);
/// assert!(!queue.is_alive());
/// ```
///
/// Tasks of all kinds, with markers between them that pass in order:
///
/// ```
/// use subfeed::marker::Marked;
/// use subfeed::queue::Queue;
/// use subfeed::FeedExt;
/// type Task = Box<dyn FnOnce() -> usize + Send>;
/// enum Done { Batch(usize) }
/// let mut queue = Queue::new(10, |items: subfeed::queue::Inlet<Marked<Task, Done>>| {
///     items.in_threads().workers(2).map_marked(|task| task())
/// });
/// queue.put(Marked::Item(Box::new(|| "a document".len()))).unwrap();
/// queue.put(Marked::Item(Box::new(|| 6 * 7))).unwrap();
/// queue.put(Marked::Marker(Done::Batch(2))).unwrap();
/// queue.stop();
/// assert!(matches!(queue.get(), Some(Marked::Item(10))));
/// assert!(matches!(queue.get(), Some(Marked::Item(42))));
/// assert!(matches!(queue.get(), Some(Marked::Marker(Done::Batch(2)))));
/// assert!(queue.get().is_none());
/// ```
///
/// # Failures
/// A worker's failure is the result of its item, and the next results follow. A fatal error, or a panic
/// in a closure, comes out of `get` in its place, and ends the queue: then puts are refused, and what was
/// put and never pulled can be [taken back](Producer::take_back).
///
/// # Dropping
/// Dropping it is dropping its feed: nothing more is begun, and what was not got is discarded.
#[must_use = "dropping a queue stops its workers"]
pub struct Queue<T, F: Iterator> {
    producer: Producer<T>,
    feed: F,
    /// Results that `join` has made room by.
    unread: VecDeque<F::Item>,
    /// The panic that came after them.
    panic: Option<Payload>,
    ended: bool,
}

impl<T, F: Iterator> Queue<T, F> {
    /// A queue over any feed, or chain of feeds: `feed` is given what is put as an iterator.
    ///
    /// `capacity` items may have been put and not yet been pulled by the feed.
    ///
    /// ```
    /// use subfeed::queue::Queue;
    /// use subfeed::{FeedExt, Template};
    /// let mut queue = Queue::new(1_000, |lines| {
    ///     lines.feed(Template::new("cat")).workers(2).buffer(50).keep_input().start()
    /// });
    /// queue.put("hello").unwrap();
    /// assert_eq!(queue.get().unwrap()?, ("hello", "hello".into()));
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    ///
    /// # Panics
    /// If the capacity is 0, and as `feed` does.
    #[track_caller]
    pub fn new(capacity: usize, feed: impl FnOnce(Inlet<T>) -> F) -> Self {
        let (producer, items) = inlet(capacity);
        let feed = feed(items);
        Self { producer, feed, unread: VecDeque::new(), panic: None, ended: false }
    }

    /// Puts an item; see [`Producer::put`].
    ///
    /// # Errors
    /// The item, after [`stop`](Queue::stop) or the end.
    pub fn put(&self, item: T) -> Result<(), Stopped<T>> {
        self.producer.put(item)
    }

    /// Puts an item if there is room; see [`Producer::try_put`].
    ///
    /// # Errors
    /// The item, if there is no room, or after [`stop`](Queue::stop) or the end.
    pub fn try_put(&self, item: T) -> Result<(), TryPutError<T>> {
        self.producer.try_put(item)
    }

    /// Puts an item if there is room within this time; see [`Producer::put_timeout`].
    ///
    /// # Errors
    /// The item, if there is no room, or after [`stop`](Queue::stop) or the end.
    pub fn put_timeout(&self, item: T, limit: Duration) -> Result<(), TryPutError<T>> {
        self.producer.put_timeout(item, limit)
    }

    /// A handle to put with, from any thread. The queue ends by [`stop`](Queue::stop), not by the loss of
    /// its producers.
    pub fn producer(&self) -> Producer<T> {
        self.producer.clone()
    }

    /// From now on nothing can be put. What was put before is processed and can be got.
    /// Never blocks; a second call does nothing.
    pub fn stop(&self) {
        self.producer.stop();
    }

    /// The next result, in the order of the puts. Blocks until it is there; `None` once everything has
    /// been got from a queue that is stopped, and for ever after.
    ///
    /// # Panics
    /// Resumes what panicked in the feed, in its place.
    pub fn get(&mut self) -> Option<F::Item> {
        if let Some(kept) = self.kept() {
            return kept;
        }
        let result = self.feed.next();
        self.ended = result.is_none();
        result
    }

    /// What need not be waited for: results that `join` has kept, and the end.
    fn kept(&mut self) -> Option<Option<F::Item>> {
        if let Some(result) = self.unread.pop_front() {
            return Some(Some(result));
        }
        if let Some(payload) = self.panic.take() {
            unwind::resume(payload);
        }
        self.ended.then_some(None)
    }

    /// Stops the queue, and waits until everything that was put has been processed and the workers have exited.
    ///
    /// The results that have not been got are kept, and can be got afterwards: at most as many as the window and the
    /// inlet hold together.
    pub fn join(&mut self) {
        self.stop();
        while !self.ended {
            let next = unwind::catch(|| self.feed.next());
            self.keep(next);
        }
    }

    fn keep(&mut self, next: Result<Option<F::Item>, Payload>) {
        match next {
            Ok(Some(result)) => self.unread.push_back(result),
            Ok(None) => self.ended = true,
            Err(payload) => {
                self.ended = true;
                self.panic = Some(payload);
            }
        }
    }

    /// Whether there may still be workers: the end has been reached by neither `get` nor `join`. Results
    /// may be waiting to be got after that.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.ended
    }

    /// The feed in the middle, for a look at its [`monitor`](Feed::monitor).
    pub fn feed(&self) -> &F {
        &self.feed
    }
}

impl<T, F: Timed> Queue<T, F> {
    /// The next result if it is here. Never waits for one.
    ///
    /// # Errors
    /// It is not here, or there will be none.
    ///
    /// # Panics
    /// As [`get`](Queue::get).
    pub fn try_get(&mut self) -> Result<F::Item, GetError> {
        self.get_before(Instant::now())
    }

    /// The next result if it comes within this time.
    ///
    /// # Errors
    /// It has not come, or there will be none.
    ///
    /// # Panics
    /// As [`get`](Queue::get).
    pub fn get_timeout(&mut self, limit: Duration) -> Result<F::Item, GetError> {
        match Instant::now().checked_add(limit) {
            Some(deadline) => self.get_before(deadline),
            None => self.get().ok_or(GetError::Ended),
        }
    }

    fn get_before(&mut self, deadline: Instant) -> Result<F::Item, GetError> {
        let result = match self.kept() {
            Some(kept) => kept,
            None => match self.feed.next_before(deadline) {
                Ok(next) => {
                    self.ended = next.is_none();
                    next
                }
                Err(NotYet) => return Err(GetError::NotYet),
            },
        };
        result.ok_or(GetError::Ended)
    }

    /// [`join`](Queue::join) with a limit. Says whether the workers are gone; if not, it is stopped all
    /// the same, and can be joined again.
    pub fn join_timeout(&mut self, limit: Duration) -> bool {
        let Some(deadline) = Instant::now().checked_add(limit) else {
            self.join();
            return true;
        };
        self.stop();
        while !self.ended {
            let next = match unwind::catch(|| self.feed.next_before(deadline)) {
                Ok(Err(NotYet)) => return false,
                Ok(Ok(next)) => Ok(next),
                Err(payload) => Err(payload),
            };
            self.keep(next);
        }
        true
    }
}

#[cfg(feature = "threads")]
impl<T: Send + 'static, U: Send + 'static> Queue<T, FeedThreads<T, U>> {
    /// A queue for a closure in `n` threads of rayon's global pool. `buffer_size` items may have been
    /// pulled and not yet been got, and as many wait in the inlet.
    ///
    /// # Panics
    /// If there are no workers or there is no buffer.
    #[track_caller]
    pub fn threads<F>(f: F, n: usize, buffer_size: usize) -> Self
    where
        F: Fn(T) -> U + Send + Sync + 'static,
    {
        Self::new(buffer_size, |items| items.feed_threads_ordered(f, n, buffer_size))
    }
}

impl<T: Send + 'static, D: Decode> Queue<T, Feed<D>> {
    /// A queue for requests to `n` subprocesses. `buffer_size` requests may be under way or answered and
    /// not yet got, and as many wait in the inlet.
    ///
    /// ```
    /// use subfeed::queue::Queue;
    /// use subfeed::Template;
    /// let mut queue = Queue::subprocesses(Template::new("cat"), 2, 100);
    /// queue.put("hello").unwrap();
    /// assert_eq!(queue.get().unwrap().unwrap(), "hello");
    /// ```
    ///
    /// # Panics
    /// If there is no buffer. What else is wrong is the first result, a fatal `Err`.
    #[track_caller]
    pub fn subprocesses<E>(template: Template<E, D>, n: usize, buffer_size: usize) -> Self
    where
        E: Encode<T> + 'static,
    {
        Self::new(buffer_size, |items| items.feed_subprocesses_ordered(template, n, buffer_size))
    }
}

impl<T, F: Iterator> fmt::Debug for Queue<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("producer", &self.producer)
            .field("alive", &self.is_alive())
            .finish_non_exhaustive()
    }
}

/// Why there was nothing to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GetError {
    /// It has not come yet.
    NotYet,
    /// There is nothing left, and never will be.
    Ended,
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotYet => "the next result has not come yet",
            Self::Ended => "the queue has ended",
        })
    }
}

impl error::Error for GetError {}
