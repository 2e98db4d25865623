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

/// A first-in-first-out queue with workers in the middle. Each item that is put in comes out as the worker's result, in
/// the order in which the items were put in.
///
/// It is for code that has no iterator to feed, for example with many producers, or with a consumer that looks for results
/// now and then. A slow item delays the results behind it. The work on later items goes on until the window is full.
///
/// | method | does |
/// |---|---|
/// | [`put`](Queue::put), `try_put`, `put_timeout` | puts an item in, here or through any [`producer`](Queue::producer) |
/// | [`get`](Queue::get), `try_get`, `get_timeout` | takes the next result |
/// | [`stop`](Queue::stop) | refuses further puts; items that were put are processed |
/// | [`join`](Queue::join), `join_timeout` | stops, and waits until the workers have exited |
///
/// The window bounds the items that have been pulled and not yet got. The inlet in front of it bounds the items that have
/// been put and not yet pulled. When both are full, `put` blocks until a result is taken. If one thread does both, use
/// [`try_put`](Queue::try_put), or get results in between. (Do not call `put` on a thread of the pool that does the work:
/// while it blocks, the workers lack that thread.)
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
/// Tasks of different kinds, with markers between them that keep their order:
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
/// If a worker fails, the result of its item is an error, and the next results follow. A fatal error, or a panic in a
/// closure, comes out of `get` at its position and ends the queue. Further puts are then refused, and items that were put
/// and never pulled can be [taken back](Producer::take_back).
///
/// # Dropping
/// Dropping the queue drops its feed: no more items are started, and results that were not got are discarded.
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
    /// A queue over any feed, or chain of feeds. The closure gets the items that are put, as an iterator, and returns the
    /// feed.
    ///
    /// Up to `capacity` items may have been put and not yet been pulled by the feed.
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
    /// If `capacity` is 0, or if the closure panics.
    #[track_caller]
    pub fn new(capacity: usize, feed: impl FnOnce(Inlet<T>) -> F) -> Self {
        let (producer, items) = inlet(capacity);
        let feed = feed(items);
        Self { producer, feed, unread: VecDeque::new(), panic: None, ended: false }
    }

    /// Puts an item in, and waits for room as long as it takes; see [`Producer::put`].
    ///
    /// # Errors
    /// After [`stop`](Queue::stop) or the end of the queue; the error holds the item.
    pub fn put(&self, item: T) -> Result<(), Stopped<T>> {
        self.producer.put(item)
    }

    /// Puts an item in if there is room now; see [`Producer::try_put`].
    ///
    /// # Errors
    /// If there is no room, or after [`stop`](Queue::stop) or the end; the error holds the item.
    pub fn try_put(&self, item: T) -> Result<(), TryPutError<T>> {
        self.producer.try_put(item)
    }

    /// Puts an item in, and waits for room at most this long; see [`Producer::put_timeout`].
    ///
    /// # Errors
    /// If there was no room in time, or after [`stop`](Queue::stop) or the end; the error holds the item.
    pub fn put_timeout(&self, item: T, limit: Duration) -> Result<(), TryPutError<T>> {
        self.producer.put_timeout(item, limit)
    }

    /// A handle for putting items in from any thread. Dropping all producers does not end the queue;
    /// [`stop`](Queue::stop) does.
    pub fn producer(&self) -> Producer<T> {
        self.producer.clone()
    }

    /// Refuses further puts. Items that were put are processed, and their results can be got. Never blocks; a second
    /// call does nothing.
    pub fn stop(&self) {
        self.producer.stop();
    }

    /// The next result, in the order of the puts. Blocks until it is available. `None` when the queue is stopped and all
    /// results have been got, and on every later call.
    ///
    /// # Panics
    /// If the source, a closure or a framing of the feed panicked, with the same payload, at the position of its item.
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

    /// Stops the queue, and waits until all items have been processed and the workers have exited.
    ///
    /// Results that have not been got are kept, at most as many as the window and the inlet hold together, and can be got
    /// afterwards.
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

    /// Whether there may still be workers, because neither `get` nor `join` has reached the end. After the end there may
    /// still be results to get.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.ended
    }

    /// The feed in the middle, for example for its [`monitor`](Feed::monitor).
    pub fn feed(&self) -> &F {
        &self.feed
    }
}

impl<T, F: Timed> Queue<T, F> {
    /// The next result if it is available now. Never waits for a worker.
    ///
    /// # Errors
    /// If it is not available yet, or if there are no more results.
    ///
    /// # Panics
    /// As [`get`](Queue::get).
    pub fn try_get(&mut self) -> Result<F::Item, GetError> {
        self.get_before(Instant::now())
    }

    /// The next result, if it comes within this time.
    ///
    /// # Errors
    /// If it did not come in time, or if there are no more results.
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

    /// [`join`](Queue::join) with a time limit. Returns whether the workers have exited. If not, the queue is stopped
    /// nevertheless, and can be joined again.
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
    /// A queue for a closure in `n` threads of rayon's global pool. Up to `buffer_size` items may have been pulled and not
    /// yet been got, and as many again may wait in the inlet.
    ///
    /// # Panics
    /// If `n` or `buffer_size` is 0.
    #[track_caller]
    pub fn threads<F>(f: F, n: usize, buffer_size: usize) -> Self
    where
        F: Fn(T) -> U + Send + Sync + 'static,
    {
        Self::new(buffer_size, |items| items.feed_threads_ordered(f, n, buffer_size))
    }
}

impl<T: Send + 'static, D: Decode> Queue<T, Feed<D>> {
    /// A queue for requests to `n` subprocesses. Up to `buffer_size` requests may have been pulled and their results not
    /// yet been got, and as many again may wait in the inlet.
    ///
    /// If the template, `n` or `buffer_size` is wrong, the first result is a fatal `Err` that names the setting.
    ///
    /// ```
    /// use subfeed::queue::Queue;
    /// use subfeed::Template;
    /// let mut queue = Queue::subprocesses(Template::new("cat"), 2, 100);
    /// queue.put("hello").unwrap();
    /// assert_eq!(queue.get().unwrap().unwrap(), "hello");
    /// ```
    pub fn subprocesses<E>(template: Template<E, D>, n: usize, buffer_size: usize) -> Self
    where
        E: Encode<T> + 'static,
    {
        // No room at all is an error of the feed, so the inlet has room for the item that is to be refused.
        Self::new(buffer_size.max(1), |items| {
            items.feed_subprocesses_ordered(template, n, buffer_size)
        })
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
    /// There are no more results.
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
