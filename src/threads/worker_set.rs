//! The worker set of a feed: the workers that map its items, and the mailbox where they meet.
//!
//! # Chunks
//! Tiny tasks travel in chunks: a worker takes as many items at a time as it maps in about 50 µs, but no
//! more than its fair half of what lies ready, so that the others find something too. A chunk binds
//! nobody: its items lie on the worker's *deque*, from where an idle worker takes half, and each value is on
//! the shelf before the next item is begun. So whatever a task waits for (another task, or a consumer
//! that has seen an earlier value) can happen. And it asks for nothing: it is cut from what the gate has
//! let through, so the look-ahead is the same with chunks as without, and no chunk is larger than the
//! window.
//!
//! # Invariants
//! 1. Every item that arrives is in exactly one place: `ready`, one deque, in one worker's task, or
//!    resolved. `mailbox.resolved` counts the last, as told by workers that have retired.
//! 2. `called` counts the jobs that are posted and have not retired, so never more than there are workers;
//!    a job that finds no free worker (a helping consumer has it) retires at once.
//! 3. While something lies ready or on a deque, a worker is at work, or a job is posted. Who leaves
//!    something behind when it retires posts one.
//! 4. While nothing does, the intake knows that somebody is hungry (`listen`), and its wake-up posts one.
//! 5. The end is put once, by the worker that retires with everything resolved: it takes the supply.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use rayon::ThreadPool;

use super::items::Items;
use super::jobs::Jobs;
use super::task::Task;
use crate::record::PacketId;
use crate::tuning::{DEQUE_ITEMS, DEQUE_TIME, POOL_TURN};
use crate::window::gate::Gate;
use crate::window::handover::{Arrival, Supply};
use crate::window::outbox::Outbox;
use crate::window::packet::{End, Outcome, Span};
use crate::window::sync::{Mutex, lock};
use crate::window::unwind::{self, Payload};

pub(super) type Values<U> = VecDeque<U>;

/// A worker `0..n`: the thread that has it may map items.
#[derive(Debug)]
struct Worker<S> {
    number: usize,
    /// Made by the first item, so that a panic of its making has a position.
    state: Option<S>,
    /// Packets resolved since the worker set was told.
    resolved: u64,
    /// How long an item takes, about.
    pace: Duration,
}

/// Items that a worker has taken and not begun; the others may take them from here.
type Deque<T> = CachePadded<Mutex<VecDeque<(PacketId, T)>>>;

struct Mailbox<T: Send, U, S> {
    /// `None` when the feed is over: the intake learns it from its end of the channel.
    supply: Option<Supply<Items<T>, Values<U>>>,
    /// Arrived, and on no deque yet.
    ready: VecDeque<(PacketId, T)>,
    free: Vec<Worker<S>>,
    /// Workers that have been called and have not retired.
    called: usize,
    /// What is known of the input's end.
    pulled: Option<u64>,
    panic: Option<Payload>,
    resolved: u64,
    /// No work, on its way to the outbox.
    settled: Vec<Span<Values<U>>>,
}

pub(super) struct WorkerSet<T: Send, K: Task<T>> {
    task: K,
    jobs: Jobs<Self>,
    mailbox: Mutex<Mailbox<T, K::Value, K::State>>,
    deques: Box<[Deque<T>]>,
    outbox: Arc<Outbox<Values<K::Value>>>,
    gate: Arc<Gate>,
}

/// The jobs of a pool outlive the feed that posts them.
impl<T: Send + 'static, K: Task<T> + 'static> WorkerSet<T, K> {
    /// Posts one turn of one worker to a pool, rayon's global one if there is none.
    pub(super) fn post_to(self: &Arc<Self>, pool: Option<&ThreadPool>) {
        let worker_set = Arc::clone(self);
        let job = move || {
            // What it drops last may be the user's: nothing may unwind out of a job.
            drop(unwind::catch(move || worker_set.work()));
        };
        let posted = unwind::catch(|| match pool {
            Some(pool) => pool.spawn_fifo(job),
            None => rayon::spawn_fifo(job),
        });
        if let Err(why) = posted {
            // The global pool could not be built. Nobody would ever answer.
            self.fail(why);
        }
    }
}

impl<T: Send, K: Task<T>> WorkerSet<T, K> {
    /// A worker set of as many workers as the outbox has shelves.
    pub(super) fn new(
        task: K,
        jobs: Jobs<Self>,
        supply: Supply<Items<T>, Values<K::Value>>,
        outbox: Arc<Outbox<Values<K::Value>>>,
    ) -> Self {
        let workers = outbox.shelves();
        let worker = |number| Worker { number, state: None, resolved: 0, pace: Duration::ZERO };
        // The first item calls the first worker.
        supply.ask();
        Self {
            task,
            jobs,
            deques: (0..workers).map(|_| CachePadded::new(Mutex::default())).collect(),
            outbox,
            gate: Arc::clone(supply.gate()),
            mailbox: Mutex::new(Mailbox {
                supply: Some(supply),
                ready: VecDeque::new(),
                free: (0..workers).rev().map(worker).collect(),
                called: 0,
                pulled: None,
                panic: None,
                resolved: 0,
                settled: Vec::new(),
            }),
        }
    }

    fn workers(&self) -> usize {
        self.deques.len()
    }

    /// Maps one item after another until there is none, or the time is over.
    fn map(self: &Arc<Self>, worker: &mut Worker<K::State>, turn: Duration) -> Pause {
        let begun = Instant::now();
        let mut before = begun;
        let mut mapped = 0u32;
        loop {
            if self.gate.is_dropped() {
                return Pause::Idle;
            }
            let next = lock(&self.deques[worker.number]).pop_front();
            let (packet, item) = match next {
                Some(next) => next,
                None => {
                    // The clock is read once a chunk: for a tiny task it costs more than the task.
                    let now = Instant::now();
                    if let Some(pace) = (now - before).checked_div(mapped) {
                        worker.pace = pace;
                    }
                    if mapped > 0 && now - begun >= turn {
                        return Pause::Turn;
                    }
                    (before, mapped) = (now, 0);
                    match self.refill(worker) {
                        Some(next) => next,
                        None => return Pause::Idle,
                    }
                }
            };
            mapped += 1;
            let Worker { number, state, .. } = worker;
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
            worker.resolved += 1;
        }
    }

    /// The next item for a worker with an empty deque: from the input, or from another's deque.
    fn refill(self: &Arc<Self>, worker: &Worker<K::State>) -> Option<(PacketId, T)> {
        {
            let mut mailbox = lock(&self.mailbox);
            self.receive(&mut mailbox);
            let fair = mailbox.ready.len() / (2 * self.workers());
            let quick = match worker.pace {
                Duration::ZERO => 1,
                pace => DEQUE_TIME.as_nanos() / pace.as_nanos(),
            };
            let most = usize::try_from(quick).unwrap_or(usize::MAX).min(DEQUE_ITEMS).min(fair);
            if let Some(next) = mailbox.ready.pop_front() {
                if most > 1 {
                    lock(&self.deques[worker.number]).extend(mailbox.ready.drain(..most - 1));
                }
                if most > 1 || !mailbox.ready.is_empty() {
                    self.call(&mut mailbox);
                } else {
                    self.listen(&mut mailbox, false);
                }
                return Some(next);
            }
        }
        (1..self.workers()).find_map(|i| {
            let mut from = lock(&self.deques[(worker.number + i) % self.workers()]);
            let keep = from.len() / 2;
            let mut stolen = from.split_off(keep);
            drop(from);
            let next = stolen.pop_front()?;
            if !stolen.is_empty() {
                lock(&self.deques[worker.number]).append(&mut stolen);
                self.call(&mut lock(&self.mailbox));
            }
            Some(next)
        })
    }

    /// Takes over what has arrived. What is no work is answered.
    fn receive(&self, mailbox: &mut Mailbox<T, K::Value, K::State>) {
        mailbox.receive();
        self.outbox.put(&mut mailbox.settled);
    }

    /// Asks to be woken for input, if there is somebody to call or the consumer will do it.
    fn listen(self: &Arc<Self>, mailbox: &mut Mailbox<T, K::Value, K::State>, consumer: bool) {
        if mailbox.called == self.workers() && !consumer {
            return;
        }
        if let Some(supply) = &mailbox.supply
            && mailbox.pulled.is_none()
        {
            supply.ask();
            // What arrived before the flag was up wakes nobody.
            self.receive(mailbox);
            if !mailbox.ready.is_empty() {
                self.call(mailbox);
            }
        }
    }

    /// Calls one more worker, if there is one.
    fn call(self: &Arc<Self>, mailbox: &mut Mailbox<T, K::Value, K::State>) {
        if mailbox.called < self.workers() {
            mailbox.called += 1;
            self.post();
        }
    }

    fn post(self: &Arc<Self>) {
        self.jobs.post(self);
        // It may sleep on the only thread that could do the job.
        self.gate.call_helper();
    }

    /// A job: one turn of one worker.
    pub(super) fn work(self: &Arc<Self>) {
        let worker = lock(&self.mailbox).free.pop();
        // The consumer may have the worker that this job was to be.
        let Some(mut worker) = worker else {
            lock(&self.mailbox).called -= 1;
            return;
        };
        // A panic of the closure does not come here: this would be a bug of ours.
        let pause = unwind::catch(|| self.map(&mut worker, POOL_TURN));
        self.retire(worker, pause, true);
    }

    /// Takes a worker back, from a job or from the consumer. Says whether there is something to do.
    fn retire(
        self: &Arc<Self>,
        mut worker: Worker<K::State>,
        pause: Result<Pause, Payload>,
        job: bool,
    ) -> bool {
        let mut mailbox = lock(&self.mailbox);
        mailbox.resolved += std::mem::take(&mut worker.resolved);
        let number = worker.number;
        mailbox.free.push(worker);
        mailbox.called -= usize::from(job);
        match pause {
            Ok(Pause::Turn) if job => self.call(&mut mailbox),
            Ok(_) => {}
            Err(payload) => {
                self.end(Some(payload));
                return false;
            }
        }
        if mailbox.ready.is_empty() && lock(&self.deques[number]).is_empty() {
            self.listen(&mut mailbox, !job);
        } else {
            self.call(&mut mailbox);
        }
        if mailbox.pulled == Some(mailbox.resolved) && mailbox.supply.take().is_some() {
            self.end(mailbox.panic.take());
        }
        !mailbox.ready.is_empty()
    }

    /// Nothing comes after this.
    fn end(&self, panic: Option<Payload>) {
        self.outbox.end(End { panic, ..End::default() });
        self.jobs.close();
    }

    /// Nobody can be called any more, and why.
    pub(super) fn fail(&self, why: Payload) {
        self.gate.stop();
        self.end(Some(why));
    }

    /// Something has arrived, or has changed.
    pub(super) fn woken(self: &Arc<Self>) {
        if self.gate.is_dropped() {
            return self.discard();
        }
        self.call(&mut lock(&self.mailbox));
        self.gate.call_helper();
    }

    /// The outlet was dropped: nothing is begun any more.
    fn discard(&self) {
        let (supply, ready) = {
            let mut mailbox = lock(&self.mailbox);
            (mailbox.supply.take(), std::mem::take(&mut mailbox.ready))
        };
        let deques = self.deques.iter().map(|deque| std::mem::take(&mut *lock(deque)));
        let deques: Vec<_> = deques.collect();
        // Items are the user's, and so are their `Drop`s.
        let _ = unwind::catch(move || drop(supply));
        let _ = unwind::catch(move || drop(ready));
        let _ = unwind::catch(move || drop(deques));
        self.jobs.close();
    }

    /// Consumer, about to sleep: maps one item here if this is a thread that would do it.
    pub(super) fn help(self: &Arc<Self>) -> bool {
        if !self.jobs.are_done_here() {
            return false;
        }
        let Some(mut worker) = lock(&self.mailbox).free.pop() else { return false };
        let before = worker.resolved;
        worker.pace = Duration::ZERO;
        let pause = unwind::catch(|| self.map(&mut worker, Duration::ZERO));
        let helped = worker.resolved != before || pause.is_err();
        self.retire(worker, pause, false) || helped
    }
}

/// Why a worker stopped.
#[derive(Clone, Copy, Debug)]
enum Pause {
    /// Nothing to do.
    Idle,
    /// Others are to have a turn.
    Turn,
}

impl<T: Send, U, S> Mailbox<T, U, S> {
    /// Takes over what has arrived.
    fn receive(&mut self) {
        let Some(supply) = &mut self.supply else { return };
        while let Some(arrival) = supply.take() {
            match arrival {
                Arrival::Batch(mut batch) => {
                    let first = batch.first;
                    let ids = (0..).map(|i| first.plus(i));
                    self.ready.extend(ids.zip(batch.items.drain(..)));
                    supply.give_back(*batch);
                }
                // What is no work keeps its place.
                Arrival::Settled(span) => {
                    self.resolved += span.count;
                    self.settled.push(span);
                }
                Arrival::End { pulled, panic, .. } => {
                    self.pulled = Some(pulled);
                    self.panic = panic;
                }
            }
        }
    }
}
