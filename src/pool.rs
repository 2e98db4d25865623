//! The thread executor: the same stream, with rayon jobs in the place of subprocesses.
//!
//! There is no driver. The intake's wake-up *calls a hand*: a rayon job that takes items, maps them,
//! leaves the values on its shelf in the outbox, and retires when there is nothing to do. A job never
//! waits for anything, so any number of feeds share a pool, and may be stages of one another.
//!
//! Tiny tasks travel in chunks, but a chunk binds nobody: its items lie on the hand's *bench*, from
//! where an idle hand takes half, and each value is on the shelf before the next item is begun. So
//! whatever a task waits for (another task, or a consumer that has seen an earlier value) can happen.
//!
//! A consumer that waits on a thread of the same pool would take that thread from its own feed: it
//! maps items itself instead of sleeping, and only this feed's (rayon's own `yield_now` may begin a job
//! that waits for something further down the same stack).

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use crossbeam_utils::CachePadded;
use rayon::ThreadPool;

use crate::error::{Error, ErrorKind};
use crate::feed::remaining;
use crate::record::{Batch, PacketId};
use crate::stream::gate::Gate;
use crate::stream::intake::{Arrival, Handover, Intake, Pack, Supply};
use crate::stream::outbox::Outbox;
use crate::stream::outlet::{Given, Order, Outlet, Threads as Behind};
use crate::stream::packet::{End, Outcome};
use crate::stream::sync::atomic::{AtomicBool, Ordering::SeqCst};
use crate::stream::sync::{Mutex, lock};
use crate::stream::unwind::{self, Payload};

/// Full batches that may wait for the executor.
const BATCHES_WAITING: usize = 4;
/// Items on a bench are to take about this long together.
const CHUNK: Duration = Duration::from_micros(50);
/// The most items on a bench.
const CHUNK_ITEMS: usize = 256;
/// After this long a hand lets the pool's other jobs have a turn.
const TURN: Duration = Duration::from_millis(1);

/// A batch for threads: the items themselves.
#[derive(Debug)]
struct Items<T> {
    first: PacketId,
    items: Vec<T>,
}

impl<T: Send> Batch for Items<T> {
    fn begin(&mut self, first: PacketId) {
        self.first = first;
    }
    fn len(&self) -> usize {
        self.items.len()
    }
    fn bytes(&self) -> usize {
        0
    }
    fn append(&mut self, next: &mut Self) {
        self.items.append(&mut next.items);
    }
    fn clear(&mut self) {
        self.items.clear();
    }
}

/// Packs items as they are.
struct AsIs;

impl<T: Send> Pack<T> for AsIs {
    type Batch = Items<T>;

    fn empty(&self) -> Items<T> {
        Items { first: PacketId(0), items: Vec::new() }
    }

    fn passes(&self, _item: &T) -> bool {
        false
    }

    fn pass(&mut self, _item: T) {}

    fn pack(
        &mut self,
        item: T,
        _packet: PacketId,
        batch: &mut Items<T>,
    ) -> Result<Result<(), Error>, Payload> {
        batch.items.push(item);
        Ok(Ok(()))
    }
}

type Values<U> = VecDeque<U>;

/// What is done with an item, and with what state of the worker's own.
trait Task<T>: Send + Sync {
    type State: Send;
    type Value: Send;
    fn state(&self) -> Self::State;
    fn run(&self, state: &mut Self::State, item: T) -> Self::Value;
}

struct Plain<F>(F);

impl<T, U: Send, F: Fn(T) -> U + Send + Sync> Task<T> for Plain<F> {
    type State = ();
    type Value = U;
    fn state(&self) {}
    fn run(&self, (): &mut (), item: T) -> U {
        (self.0)(item)
    }
}

struct WithState<N, F>(N, F);

impl<T, S, U, N, F> Task<T> for WithState<N, F>
where
    S: Send,
    U: Send,
    N: Fn() -> S + Send + Sync,
    F: Fn(&mut S, T) -> U + Send + Sync,
{
    type State = S;
    type Value = U;
    fn state(&self) -> S {
        (self.0)()
    }
    fn run(&self, state: &mut S, item: T) -> U {
        (self.1)(state, item)
    }
}

/// A worker `0..n`: whoever has it may map items.
#[derive(Debug)]
struct Hand<S> {
    number: usize,
    /// Made by the first item, so that a panic of its making has a position.
    state: Option<S>,
    /// Packets resolved since the crew was told.
    resolved: u64,
    /// How long an item takes, about.
    pace: Duration,
}

/// Items that a hand has taken and not begun; the others may take them from here.
type Bench<T> = CachePadded<Mutex<VecDeque<(PacketId, T)>>>;

struct Desk<T: Send, U, S> {
    /// `None` when the feed is over: the intake learns it from its end of the channel.
    supply: Option<Supply<Items<T>, Values<U>>>,
    /// Arrived, and on no bench yet.
    ready: VecDeque<(PacketId, T)>,
    free: Vec<Hand<S>>,
    /// Hands that have been called and have not retired.
    called: usize,
    /// What is known of the input's end.
    pulled: Option<u64>,
    panic: Option<Payload>,
    resolved: u64,
}

struct Crew<T: Send, K: Task<T>> {
    task: K,
    pool: Option<Arc<ThreadPool>>,
    desk: Mutex<Desk<T, K::Value, K::State>>,
    benches: Box<[Bench<T>]>,
    outbox: Arc<Outbox<Values<K::Value>>>,
    gate: Arc<Gate>,
    handover: Arc<Handover<Items<T>>>,
    /// The consumer sleeps on a thread of the pool, or has done so.
    helped: AtomicBool,
}

impl<T: Send, K: Task<T>> Crew<T, K> {
    fn hands(&self) -> usize {
        self.benches.len()
    }

    /// Maps one item after another until there is none, or the time is over.
    fn map(self: &Arc<Self>, hand: &mut Hand<K::State>, turn: Duration) -> Pause
    where
        T: 'static,
        K: 'static,
    {
        let begun = Instant::now();
        let mut before = begun;
        let mut mapped = 0u32;
        loop {
            if self.handover.is_dropped() {
                return Pause::Idle;
            }
            let next = lock(&self.benches[hand.number]).pop_front();
            let (packet, item) = match next {
                Some(next) => next,
                None => {
                    // The clock is read once a chunk: for a tiny task it costs more than the task.
                    let now = Instant::now();
                    if let Some(pace) = (now - before).checked_div(mapped) {
                        hand.pace = pace;
                    }
                    if mapped > 0 && now - begun >= turn {
                        return Pause::Turn;
                    }
                    (before, mapped) = (now, 0);
                    match self.refill(hand) {
                        Some(next) => next,
                        None => return Pause::Idle,
                    }
                }
            };
            mapped += 1;
            let Hand { number, state, .. } = hand;
            let value = unwind::catch(|| {
                self.task.run(state.get_or_insert_with(|| self.task.state()), item)
            });
            match value {
                Ok(value) => self.outbox.leave_value(*number, packet, value),
                Err(payload) => {
                    // What the panic left of the state is not used again.
                    let _ = unwind::catch(|| state.take());
                    self.outbox.leave_outcome(*number, packet, Outcome::Panicked(payload));
                }
            }
            hand.resolved += 1;
        }
    }

    /// The next item for a hand with an empty bench: from the input, or from another's bench.
    fn refill(self: &Arc<Self>, hand: &Hand<K::State>) -> Option<(PacketId, T)>
    where
        T: 'static,
        K: 'static,
    {
        {
            let mut desk = lock(&self.desk);
            desk.receive();
            let fair = desk.ready.len() / (2 * self.hands());
            let quick = match hand.pace {
                Duration::ZERO => 1,
                pace => CHUNK.as_nanos() / pace.as_nanos(),
            };
            let most = usize::try_from(quick).unwrap_or(usize::MAX).min(CHUNK_ITEMS).min(fair);
            if let Some(next) = desk.ready.pop_front() {
                if most > 1 {
                    lock(&self.benches[hand.number]).extend(desk.ready.drain(..most - 1));
                }
                if most > 1 || !desk.ready.is_empty() {
                    self.call(&mut desk);
                } else {
                    self.listen(&mut desk, false);
                }
                return Some(next);
            }
        }
        (1..self.hands()).find_map(|i| {
            let mut from = lock(&self.benches[(hand.number + i) % self.hands()]);
            let keep = from.len() / 2;
            let mut stolen = from.split_off(keep);
            drop(from);
            let next = stolen.pop_front()?;
            if !stolen.is_empty() {
                lock(&self.benches[hand.number]).append(&mut stolen);
                self.call(&mut lock(&self.desk));
            }
            Some(next)
        })
    }

    /// Asks to be woken for input, if there is somebody to call or the consumer will do it.
    fn listen(self: &Arc<Self>, desk: &mut Desk<T, K::Value, K::State>, consumer: bool)
    where
        T: 'static,
        K: 'static,
    {
        if desk.called == self.hands() && !consumer {
            return;
        }
        if let Some(supply) = &desk.supply
            && desk.pulled.is_none()
        {
            supply.ask();
            // What arrived before the flag was up wakes nobody.
            desk.receive();
            if !desk.ready.is_empty() {
                self.call(desk);
            }
        }
    }

    /// Calls one more hand, if there is one.
    fn call(self: &Arc<Self>, desk: &mut Desk<T, K::Value, K::State>)
    where
        T: 'static,
        K: 'static,
    {
        if desk.called < self.hands() {
            desk.called += 1;
            self.post();
        }
    }

    fn post(self: &Arc<Self>)
    where
        T: 'static,
        K: 'static,
    {
        let crew = Arc::clone(self);
        // What it drops last may be the user's: nothing may unwind out of a job.
        let job = move || drop(unwind::catch(move || crew.work()));
        match &self.pool {
            Some(pool) => pool.spawn_fifo(job),
            None => rayon::spawn_fifo(job),
        }
        if self.helped.load(SeqCst) {
            // It may sleep on the only thread that could do the job.
            self.outbox.nudge();
        }
    }

    /// A job: one turn of one hand.
    fn work(self: Arc<Self>)
    where
        T: 'static,
        K: 'static,
    {
        let hand = lock(&self.desk).free.pop();
        // The consumer may have the hand that this job was to be.
        let Some(mut hand) = hand else {
            lock(&self.desk).called -= 1;
            return;
        };
        // A panic of the closure does not come here: this would be a bug of ours.
        let pause = unwind::catch(|| self.map(&mut hand, TURN));
        self.retire(hand, pause, true);
    }

    /// Takes a hand back, from a job or from the consumer. Says whether there is something to do.
    fn retire(
        self: &Arc<Self>,
        mut hand: Hand<K::State>,
        pause: Result<Pause, Payload>,
        job: bool,
    ) -> bool
    where
        T: 'static,
        K: 'static,
    {
        let mut desk = lock(&self.desk);
        desk.resolved += std::mem::take(&mut hand.resolved);
        let number = hand.number;
        desk.free.push(hand);
        desk.called -= usize::from(job);
        match pause {
            Ok(Pause::Turn) if job => self.call(&mut desk),
            Ok(_) => {}
            Err(payload) => {
                self.outbox.end(End { panic: Some(payload), ..End::default() });
                return false;
            }
        }
        if desk.ready.is_empty() && lock(&self.benches[number]).is_empty() {
            self.listen(&mut desk, !job);
        } else {
            self.call(&mut desk);
        }
        if desk.pulled == Some(desk.resolved) && desk.supply.take().is_some() {
            self.outbox.end(End { panic: desk.panic.take(), ..End::default() });
        }
        !desk.ready.is_empty()
    }

    /// Something has arrived, or has changed.
    fn woken(self: &Arc<Self>)
    where
        T: 'static,
        K: 'static,
    {
        if self.handover.is_dropped() {
            return self.discard();
        }
        self.call(&mut lock(&self.desk));
        if self.helped.load(SeqCst) {
            self.outbox.nudge();
        }
    }

    /// The outlet was dropped: nothing is begun any more.
    fn discard(&self) {
        let (supply, ready) = {
            let mut desk = lock(&self.desk);
            (desk.supply.take(), std::mem::take(&mut desk.ready))
        };
        let benches = self.benches.iter().map(|bench| std::mem::take(&mut *lock(bench)));
        let benches: Vec<_> = benches.collect();
        // Items are the user's, and so are their `Drop`s.
        let _ = unwind::catch(move || drop(supply));
        let _ = unwind::catch(move || drop(ready));
        let _ = unwind::catch(move || drop(benches));
    }

    /// Consumer, about to sleep: maps one item here if this is a thread of the pool.
    fn help(self: &Arc<Self>) -> bool
    where
        T: 'static,
        K: 'static,
    {
        let ours = match &self.pool {
            Some(pool) => pool.current_thread_index().is_some(),
            None => rayon::current_thread_index().is_some(),
        };
        if !ours {
            return false;
        }
        self.helped.store(true, SeqCst);
        let Some(mut hand) = lock(&self.desk).free.pop() else { return false };
        let before = hand.resolved;
        hand.pace = Duration::ZERO;
        let pause = unwind::catch(|| self.map(&mut hand, Duration::ZERO));
        let helped = hand.resolved != before || pause.is_err();
        self.retire(hand, pause, false) || helped
    }
}

/// Why a hand stopped.
#[derive(Clone, Copy, Debug)]
enum Pause {
    /// Nothing to do.
    Idle,
    /// Others are to have a turn.
    Turn,
}

impl<T: Send, U, S> Desk<T, U, S> {
    /// Takes over what has arrived.
    fn receive(&mut self) {
        let Some(supply) = &mut self.supply else { return };
        while let Some(arrival) = supply.take() {
            match arrival {
                Arrival::Batch(mut batch) => {
                    let first = batch.first;
                    let ids = (0..).map(|i| first.plus(i));
                    self.ready.extend(ids.zip(batch.items.drain(..)));
                    supply.handover.give_back(*batch);
                }
                // `AsIs` packs everything.
                Arrival::Settled(span) => self.resolved += span.count,
                Arrival::End { pulled, panic } => {
                    self.pulled = Some(pulled);
                    self.panic = panic;
                }
            }
        }
    }
}

/// A map in threads that is not started yet.
///
/// | option | default |
/// |---|---|
/// | [`workers`](Threads::workers) | the number of processors |
/// | [`buffer`](Threads::buffer) | 1,000 items |
/// | [`order`](Threads::order) | [`Order::Input`] |
/// | [`pool`](Threads::pool) | rayon's global pool |
///
/// Started by [`map`](Threads::map) or [`map_init`](Threads::map_init).
///
/// # Panics
/// Both panic if there are no workers or there is no buffer. A panic of the source or of the closure
/// comes out of the feed's `next()`, with its payload, at its position; then the feed has ended.
#[must_use = "a builder starts nothing by itself: call map"]
pub struct Threads<I> {
    source: I,
    workers: usize,
    buffer: usize,
    order: Order,
    pool: Option<Arc<ThreadPool>>,
}

impl<I> fmt::Debug for Threads<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads")
            .field("workers", &self.workers)
            .field("buffer", &self.buffer)
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

impl<I: Iterator> Threads<I> {
    pub(crate) fn new(source: I) -> Self {
        Self {
            source,
            workers: thread::available_parallelism().map_or(1, usize::from),
            buffer: 1_000,
            order: Order::Input,
            pool: None,
        }
    }

    /// How many items may be mapped at a time; the pool's size is a bound too.
    pub fn workers(mut self, n: usize) -> Self {
        self.workers = n;
        self
    }

    /// The window, in items: ordered, input `k + buffer` is not pulled before output `k` has been
    /// yielded; in completion order at most `buffer` inputs are pulled and not yet yielded.
    pub fn buffer(mut self, items: usize) -> Self {
        self.buffer = items;
        self
    }

    /// In which order values are yielded.
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// The pool whose threads do the work, rather than rayon's global one.
    pub fn pool(mut self, pool: &Arc<ThreadPool>) -> Self {
        self.pool = Some(Arc::clone(pool));
        self
    }

    /// Starts at once: maps each item with `f`.
    #[track_caller]
    pub fn map<U, F>(self, f: F) -> FeedThreads<I::Item, U>
    where
        I: Send + 'static,
        I::Item: Send + 'static,
        U: Send + 'static,
        F: Fn(I::Item) -> U + Send + Sync + 'static,
    {
        self.start(Plain(f))
    }

    /// Starts at once: maps each item with `f`, which also gets what `init` made for its worker.
    ///
    /// `init` is called at most once for each of the workers, when it gets its first item, and again
    /// if the closure has panicked there.
    ///
    /// ```
    /// use subfeed::FeedExt;
    /// let lengths: Vec<_> = ["a", "bb", "ccc"]
    ///     .into_iter()
    ///     .feed_in_threads()
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
    pub fn map_init<S, U, N, F>(self, init: N, f: F) -> FeedThreads<I::Item, U>
    where
        I: Send + 'static,
        I::Item: Send + 'static,
        S: Send + 'static,
        U: Send + 'static,
        N: Fn() -> S + Send + Sync + 'static,
        F: Fn(&mut S, I::Item) -> U + Send + Sync + 'static,
    {
        self.start(WithState(init, f))
    }

    #[track_caller]
    fn start<K>(self, task: K) -> FeedThreads<I::Item, K::Value>
    where
        I: Send + 'static,
        I::Item: Send + 'static,
        K: Task<I::Item> + 'static,
    {
        assert!(self.workers > 0, "a feed needs at least one worker, and n is 0");
        assert!(self.buffer > 0, "a feed needs room for at least one item, and buffer_size is 0");
        let hint = self.source.size_hint();
        // More hands than items in the window never have work.
        let hands = self.workers.min(self.buffer);
        let first = PacketId(0);
        let gate = Arc::new(Gate::new(u64::try_from(self.buffer).unwrap_or(u64::MAX), usize::MAX));
        let outbox = Arc::new(Outbox::with_shelves(hands));
        let (send, receive) = bounded(BATCHES_WAITING);
        let crew = Arc::new_cyclic(|crew: &Weak<Crew<I::Item, K>>| {
            let (to_wake, to_help) = (Weak::clone(crew), Weak::clone(crew));
            let handover = Handover::new(move || {
                if let Some(crew) = to_wake.upgrade() {
                    crew.woken();
                }
            });
            let handover =
                handover.helped(move || to_help.upgrade().is_some_and(|crew| crew.help()));
            let handover = Arc::new(handover);
            let supply = Supply::new(Arc::clone(&handover), receive, Arc::clone(&gate));
            // The first item calls the first hand.
            supply.ask();
            let hand = |number| Hand { number, state: None, resolved: 0, pace: Duration::ZERO };
            Crew {
                task,
                pool: self.pool,
                desk: Mutex::new(Desk {
                    supply: Some(supply),
                    ready: VecDeque::new(),
                    free: (0..hands).rev().map(hand).collect(),
                    called: 0,
                    pulled: None,
                    panic: None,
                    resolved: 0,
                }),
                benches: (0..hands).map(|_| CachePadded::new(Mutex::default())).collect(),
                outbox: Arc::clone(&outbox),
                gate: Arc::clone(&gate),
                handover,
                helped: AtomicBool::new(false),
            }
        });
        let intake = Intake {
            gate: Arc::clone(&gate),
            handover: Arc::clone(&crew.handover),
            batches: send,
            first,
        };
        let (done, intake_done) = bounded(0);
        let source = self.source;
        let run = move || {
            let _done = done;
            intake.run(source, AsIs);
        };
        let started = thread::Builder::new().name("subfeed-intake".to_owned()).spawn(run);
        let intake = match started {
            Ok(intake) => Some(intake),
            Err(error) => {
                let error = Error::new(ErrorKind::Thread, "a thread of the feed cannot be started")
                    .because(error)
                    .fatal();
                crew.gate.stop();
                outbox.end(End { fatal: Some(error), ..End::default() });
                None
            }
        };
        let behind = Behind { executor: None, intake, intake_done };
        let handover = Arc::clone(&crew.handover);
        FeedThreads {
            outlet: Outlet::new(gate, handover, outbox, behind, self.order, first),
            _crew: Hold(Some(crew)),
            hint,
        }
    }
}

/// Whoever maps the items, as long as somebody wants the values.
trait Keep: Send + Sync {}

impl<T: Send, K: Task<T>> Keep for Crew<T, K> {}

/// Lets go of the crew without a panic of what is the user's in it.
struct Hold(Option<Arc<dyn Keep>>);

impl Drop for Hold {
    fn drop(&mut self) {
        let crew = self.0.take();
        let _ = unwind::catch(move || drop(crew));
    }
}

/// The values of a running map in threads: a lazy, fused iterator.
///
/// Made by [`FeedExt`](crate::FeedExt) and [`Threads`]. Yields exactly one value for each input.
///
/// # Dropping
/// Dropping it stops the pulling and forgets what is not begun. It does not wait for the closures that
/// are running, which nothing can interrupt.
///
/// # Panics
/// `next` resumes a panic of the source or of the closure, at the position of the item concerned, with
/// its own payload; afterwards the feed has ended.
#[must_use = "a feed that is not iterated stops as soon as it is dropped"]
pub struct FeedThreads<T: Send, U> {
    outlet: Outlet<Items<T>, Values<U>>,
    _crew: Hold,
    hint: (usize, Option<usize>),
}

impl<T: Send, U> Iterator for FeedThreads<T, U> {
    type Item = U;

    fn next(&mut self) -> Option<U> {
        match self.outlet.next()?.1 {
            Given::Reply(values) => values.pop_front(),
            Given::Failed(error) => panic!("{error}"),
            Given::Passed => None,
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        remaining(self.hint, &self.outlet)
    }
}

impl<T: Send, U> FusedIterator for FeedThreads<T, U> {}

impl<T: Send, U> fmt::Debug for FeedThreads<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedThreads").finish_non_exhaustive()
    }
}
