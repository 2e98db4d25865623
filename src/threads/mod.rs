//! The thread executor: the same stream, with rayon jobs in the place of subprocesses.
//!
//! There is no event loop. The intake's wake-up *calls a worker*: a job that takes items, maps them, leaves
//! the values on its shelf in the outbox, and retires when there is nothing to do (see [`worker_set`]). A job
//! never waits for anything, so any number of feeds share a pool, and may be stages of one another.
//!
//! A consumer that waits on a thread of the same pool would take that thread from its own feed: it
//! maps items itself instead of sleeping, and only those of this feed and of the feeds that it waits
//! for by way of it (see [`assist`]; rayon's own `yield_now` may begin a job that
//! waits for something further down the same stack).
//!
//! In a scope the jobs are done by threads of that scope, so that everything may borrow.

mod assist;
mod feed;
mod items;
mod jobs;
mod start;
mod task;
mod worker_set;

use std::fmt;
use std::sync::Arc;
use std::thread::Scope;

use rayon::ThreadPool;

pub use self::feed::FeedThreads;
use self::items::{AsIs, Items, Routed};
use self::start::Plan;
pub use self::start::{InPool, InScope, RunsIn};
use self::task::{Plain, Task, WithState};
use crate::marker::{Marked, Route};
use crate::record::PacketId;
use crate::window::inputs::Passing;
use crate::window::outlet::Order;
use crate::window::packing::Pack;
use crate::window::workers::Workers;

/// A map in threads that is not started yet.
///
/// | option | default |
/// |---|---|
/// | [`workers`](ThreadsBuilder::workers) | the number of processors |
/// | [`buffer`](ThreadsBuilder::buffer) | 1,000 items |
/// | [`order`](ThreadsBuilder::order) | [`Order::Input`] |
/// | [`first_packet`](ThreadsBuilder::first_packet) | 0 |
/// | [`pool`](ThreadsBuilder::pool) or [`scoped`](ThreadsBuilder::scoped) | rayon's global pool |
///
/// Started by [`map`](ThreadsBuilder::map) or [`map_init`](ThreadsBuilder::map_init).
///
/// # Panics
/// The methods that start it panic if there are no workers or there is no buffer. If the source or the closure panics, the
/// feed's `next()` panics with the same payload at the position of the item, and the feed has ended.
#[must_use = "a builder starts nothing by itself: call map"]
pub struct ThreadsBuilder<I, W = InPool> {
    source: I,
    workers: Workers,
    buffer: usize,
    order: Order,
    first_packet: u64,
    runs_in: W,
}

impl<I, W: fmt::Debug> fmt::Debug for ThreadsBuilder<I, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadsBuilder")
            .field("workers", &self.workers)
            .field("buffer", &self.buffer)
            .field("order", &self.order)
            .field("runs_in", &self.runs_in)
            .finish_non_exhaustive()
    }
}

impl<I: Iterator> ThreadsBuilder<I> {
    pub(crate) fn new(source: I) -> Self {
        Self {
            source,
            workers: Workers::default(),
            buffer: 1_000,
            order: Order::Input,
            first_packet: 0,
            runs_in: InPool(None),
        }
    }

    /// Uses the threads of this pool instead of rayon's global one.
    ///
    /// The feed keeps the pool alive until it ends, so a pool cannot be shut down under a running feed. The global pool is
    /// that of [`rayon::spawn`]: it is built on first use, with one thread for each processor unless the program has built
    /// it differently, and is never shut down. If it cannot be built, the feed's `next()` panics with rayon's message.
    pub fn pool(mut self, pool: &Arc<ThreadPool>) -> Self {
        self.runs_in = InPool(Some(Arc::clone(pool)));
        self
    }

    /// Uses threads of a scope, as many as there are workers, instead of a pool. The source, its items and the closures may
    /// then borrow anything that outlives the scope.
    ///
    /// The threads start with the feed and end with it, and the feed cannot leave the scope: see
    /// [`Scoped`](crate::scope::Scoped).
    ///
    /// ```
    /// use subfeed::FeedExt;
    /// let words = vec!["one".to_owned(), "three".to_owned()];
    /// let longest = 3;
    /// let short: Vec<(&str, bool)> = std::thread::scope(|scope| {
    ///     let feed = words.iter().in_threads().workers(2).scoped(scope);
    ///     feed.map(|word| (word.as_str(), word.len() <= longest)).collect()
    /// });
    /// assert_eq!(short, [("one", true), ("three", false)]);
    /// ```
    ///
    /// # Panics
    /// If a [`pool`](ThreadsBuilder::pool) was set, because the work is done either in a pool or in a scope.
    #[track_caller]
    pub fn scoped<'scope, 'env>(
        self,
        scope: &'scope Scope<'scope, 'env>,
    ) -> ThreadsBuilder<I, InScope<'scope, 'env>> {
        let Self { source, workers, buffer, order, first_packet, runs_in } = self;
        assert!(runs_in.0.is_none(), "a map runs in a pool or in a scope, and both were set");
        ThreadsBuilder { source, workers, buffer, order, first_packet, runs_in: InScope(scope) }
    }
}

impl<I: Iterator, W> ThreadsBuilder<I, W> {
    /// How many items may be mapped at a time. Default: the number of processors. The size of the pool is a limit too.
    pub fn workers(mut self, n: usize) -> Self {
        self.workers = Workers::Exactly(n);
        self
    }

    /// The size of the window, in items. Default: 1,000. In input order, input `k + buffer` is not pulled before output `k`
    /// has been yielded. In completion order, at most `buffer` inputs are pulled and not yet yielded.
    ///
    /// Very short tasks are given to the workers several at a time. That does not change the window: such a group is made
    /// of items that have already been pulled, and never waits for more.
    pub fn buffer(mut self, items: usize) -> Self {
        self.buffer = items;
        self
    }

    /// The order in which values are yielded. Default: [`Order::Input`].
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// The packet id of the first input. Default: 0. Ids wrap at `u64::MAX`.
    pub fn first_packet(mut self, id: u64) -> Self {
        self.first_packet = id;
        self
    }

    /// Starts now: maps each item with `f`.
    #[track_caller]
    pub fn map<'s, U, F>(self, f: F) -> W::Feed<I::Item, U>
    where
        W: RunsIn<'s>,
        I: Send + 's,
        I::Item: Send + 's,
        U: Send + 's,
        F: Fn(I::Item) -> U + Send + Sync + 's,
    {
        W::keep(self.start(AsIs, Plain(f)))
    }

    /// Starts now: maps each item with `f`, which also gets a state that `init` has made for its worker.
    ///
    /// `init` is called when a worker gets its first item, and again after the closure has panicked there.
    ///
    /// ```
    /// use subfeed::FeedExt;
    /// let lengths: Vec<_> = ["a", "bb", "ccc"]
    ///     .into_iter()
    ///     .in_threads()
    ///     .workers(2)
    ///     .map_init(String::new, |scratch, word| {
    ///         scratch.clear();
    ///         scratch.push_str(word);
    ///         scratch.len()
    ///     })
    ///     .collect();
    /// assert_eq!(lengths, [1, 2, 3]);
    /// ```
    #[track_caller]
    pub fn map_init<'s, S, U, N, F>(self, init: N, f: F) -> W::Feed<I::Item, U>
    where
        W: RunsIn<'s>,
        I: Send + 's,
        I::Item: Send + 's,
        S: Send + 's,
        U: Send + 's,
        N: Fn() -> S + Send + Sync + 's,
        F: Fn(&mut S, I::Item) -> U + Send + Sync + 's,
    {
        W::keep(self.start(AsIs, WithState(init, f)))
    }

    /// Starts now: maps each `Ok` with `f`, which may fail itself. An `Err` of the source goes to no worker and is yielded
    /// at its position, unchanged.
    ///
    /// ```
    /// use subfeed::{BoxError, FeedExt};
    /// let numbers = ["1", "two", "3"].into_iter().map(|text| text.parse::<u32>().map_err(BoxError::from));
    /// let halves = numbers.in_threads().workers(2).try_map(|n| {
    ///     if n % 2 == 0 { Ok(n / 2) } else { Err(BoxError::from(format!("{n} is odd"))) }
    /// });
    /// let said: Vec<_> = halves.map(|half| half.unwrap_err().to_string()).collect();
    /// assert_eq!(said, ["1 is odd", "invalid digit found in string", "3 is odd"]);
    /// ```
    #[track_caller]
    pub fn try_map<'s, T, U, X, F>(self, f: F) -> W::Feed<T, Result<U, X>>
    where
        W: RunsIn<'s>,
        I: Iterator<Item = Result<T, X>> + Send + 's,
        T: Send + 's,
        U: Send + 's,
        X: Send + 's,
        F: Fn(T) -> Result<U, X> + Send + Sync + 's,
    {
        W::keep(self.routed(Plain(f), Err))
    }

    /// Starts now: [`try_map`](ThreadsBuilder::try_map) with a state for each worker, as in
    /// [`map_init`](ThreadsBuilder::map_init).
    #[track_caller]
    pub fn try_map_init<'s, S, T, U, X, N, F>(self, init: N, f: F) -> W::Feed<T, Result<U, X>>
    where
        W: RunsIn<'s>,
        I: Iterator<Item = Result<T, X>> + Send + 's,
        S: Send + 's,
        T: Send + 's,
        U: Send + 's,
        X: Send + 's,
        N: Fn() -> S + Send + Sync + 's,
        F: Fn(&mut S, T) -> Result<U, X> + Send + Sync + 's,
    {
        W::keep(self.routed(WithState(init, f), Err))
    }

    /// Starts now: maps each item with `f`. A marker goes to no worker and is yielded at its position; [`Marked`] has an
    /// example.
    #[track_caller]
    pub fn map_marked<'s, T, U, M, F>(self, f: F) -> W::Feed<T, Marked<U, M>>
    where
        W: RunsIn<'s>,
        I: Iterator<Item = Marked<T, M>> + Send + 's,
        T: Send + 's,
        U: Send + 's,
        M: Send + 's,
        F: Fn(T) -> U + Send + Sync + 's,
    {
        W::keep(self.routed(Plain(move |item| Marked::Item(f(item))), Marked::Marker))
    }

    /// Starts now: [`map_marked`](ThreadsBuilder::map_marked) with a state for each worker, as in
    /// [`map_init`](ThreadsBuilder::map_init).
    #[track_caller]
    pub fn map_marked_init<'s, S, T, U, M, N, F>(self, init: N, f: F) -> W::Feed<T, Marked<U, M>>
    where
        W: RunsIn<'s>,
        I: Iterator<Item = Marked<T, M>> + Send + 's,
        S: Send + 's,
        T: Send + 's,
        U: Send + 's,
        M: Send + 's,
        N: Fn() -> S + Send + Sync + 's,
        F: Fn(&mut S, T) -> U + Send + Sync + 's,
    {
        let f = move |state: &mut S, item| Marked::Item(f(state, item));
        W::keep(self.routed(WithState(init, f), Marked::Marker))
    }

    /// Starts now, with a source of which not everything is work: `task` makes of the work what the
    /// feed yields, and `wrap` of the rest, which passes in its place.
    #[track_caller]
    pub(crate) fn routed<'s, R, U, K>(
        self,
        task: K,
        wrap: fn(R::Passed) -> U,
    ) -> FeedThreads<R::Work, U>
    where
        W: RunsIn<'s>,
        I: Iterator<Item = R> + Send + 's,
        R: Route + 's,
        R::Work: Send + 's,
        R::Passed: 's,
        U: Send + 's,
        K: Task<R::Work, Value = U> + 's,
    {
        let passing = Arc::new(Passing::new(PacketId(self.first_packet)));
        let pack = Routed { passing: Arc::clone(&passing), wrap };
        FeedThreads { passing: Some(passing), ..self.start(pack, task) }
    }

    #[track_caller]
    fn start<'s, T, P, K>(self, pack: P, task: K) -> FeedThreads<T, K::Value>
    where
        W: RunsIn<'s>,
        I: Send + 's,
        T: Send + 's,
        P: Pack<I::Item, Batch = Items<T>> + Send + 's,
        K: Task<T> + 's,
    {
        let Self { source, workers, buffer, order, first_packet, runs_in } = self;
        let workers = workers.number();
        let first = PacketId(first_packet);
        runs_in.start(Plan { source, pack, task, workers, buffer, order, first })
    }
}
