//! Where a map in threads runs, and how it is put together there.
#![allow(private_bounds, private_interfaces, reason = "of a sealed trait only the name is public")]

use std::fmt;
use std::io;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle, Scope};

use crossbeam_channel::{Receiver, Sender, bounded};
use rayon::ThreadPool;

use super::feed::{FeedThreads, Hold};
use super::items::Items;
use super::jobs::{Bell, Call, Jobs};
use super::task::Task;
use super::worker_set::{Ties, Values, WorkerSet};
use crate::error::{Error, ErrorKind};
use crate::feed::Scoped;
use crate::record::PacketId;
use crate::window::gate::Gate;
use crate::window::intake::{Arrival, Handover, Intake, Supply};
use crate::window::joins::{Behind, IntakeThread};
use crate::window::outbox::Outbox;
use crate::window::outlet::{Order, Outlet};
use crate::window::packet::End;
use crate::window::packing::Pack;
use crate::window::unwind;

/// Full batches that may wait for the executor.
const BATCHES_WAITING: usize = 4;

/// Where a map in threads runs, and for how long everything in it has to live: [`InPool`] or
/// [`InScope`]. Sealed.
pub trait Place<'s>: sealed::Place<'s> {}

impl<'s, P: sealed::Place<'s>> Place<'s> for P {}

/// In the threads of a rayon pool: whatever goes in there owns what it needs.
#[derive(Clone, Default)]
pub struct InPool(pub(super) Option<Arc<ThreadPool>>);

impl fmt::Debug for InPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "InPool(given)" } else { "InPool(global)" })
    }
}

/// In threads of a scope: source, items and closures may borrow whatever outlives the scope.
#[derive(Clone, Copy, Debug)]
pub struct InScope<'scope, 'env>(pub(super) &'scope Scope<'scope, 'env>);

/// A map in threads that is about to run.
pub(crate) struct Plan<I, P, K> {
    pub(super) source: I,
    pub(super) pack: P,
    pub(super) task: K,
    pub(super) workers: usize,
    pub(super) buffer: usize,
    pub(super) order: Order,
    pub(super) first: PacketId,
}

/// Sealed: nobody outside can call `start`, whatever it speaks of.
pub(crate) mod sealed {
    use super::{FeedThreads, Items, Pack, Plan, Task};

    pub trait Place<'s> {
        /// What the caller gets: the feed, kept where it must stay.
        type Feed<T: Send + 's, U: 's>;

        fn keep<T: Send + 's, U: 's>(feed: FeedThreads<T, U>) -> Self::Feed<T, U>;

        #[track_caller]
        fn start<I, T, P, K>(self, plan: Plan<I, P, K>) -> FeedThreads<T, K::Value>
        where
            I: Iterator + Send + 's,
            T: Send + 's,
            P: Pack<I::Item, Batch = Items<T>> + Send + 's,
            K: Task<T> + 's;
    }
}

/// What is the same everywhere: the two ends of a feed, and what lies between them and the worker set.
struct Frame<T: Send, U> {
    hands: usize,
    gate: Arc<Gate>,
    outbox: Arc<Outbox<Values<U>>>,
    send: Sender<Arrival<Items<T>, Values<U>>>,
    receive: Option<Receiver<Arrival<Items<T>, Values<U>>>>,
}

impl<T: Send, U> Frame<T, U> {
    #[track_caller]
    fn of<I, P, K>(plan: &Plan<I, P, K>) -> Self {
        assert!(plan.workers > 0, "a feed needs at least one worker, and n is 0");
        assert!(plan.buffer > 0, "a feed needs room for at least one item, and buffer_size is 0");
        // More hands than items in the window never have work.
        let hands = plan.workers.min(plan.buffer);
        let window = u64::try_from(plan.buffer).unwrap_or(u64::MAX);
        let (send, receive) = bounded(BATCHES_WAITING);
        Self {
            hands,
            gate: Arc::new(Gate::new(window, usize::MAX)),
            outbox: Arc::new(Outbox::with_shelves(hands)),
            send,
            receive: Some(receive),
        }
    }

    fn worker_set<K>(
        &mut self,
        task: K,
        jobs: Jobs<WorkerSet<T, K>>,
        wake: Handover<Items<T>>,
    ) -> WorkerSet<T, K>
    where
        K: Task<T, Value = U>,
    {
        let receive = self.receive.take().expect("a feed has one worker_set");
        let (gate, outbox) = (Arc::clone(&self.gate), Arc::clone(&self.outbox));
        let supply = Supply::new(Arc::new(wake), receive, Arc::clone(&gate));
        WorkerSet::new(task, self.hands, jobs, Ties { gate, outbox, supply })
    }

    /// Starts the intake, and gives the consumer its end.
    fn feed<'s, I, P>(
        self,
        handover: Arc<Handover<Items<T>>>,
        input: Input<I, P>,
        worker_set: Hold,
        spawn: impl FnOnce(thread::Builder, Pull<'s>) -> io::Result<Option<JoinHandle<()>>>,
    ) -> FeedThreads<T, U>
    where
        I: Iterator + Send + 's,
        P: Pack<I::Item, Batch = Items<T>> + Send + 's,
        T: 's,
        U: Send + 's,
    {
        let Self { gate, outbox, send, .. } = self;
        let Input { source, pack, order, first } = input;
        let hint = source.size_hint();
        let intake = Intake {
            gate: Arc::clone(&gate),
            handover: Arc::clone(&handover),
            batches: send,
            first,
        };
        let builder = thread::Builder::new().name("subfeed-intake".to_owned());
        let pull = move || intake.run(source, pack);
        let intake =
            IntakeThread::spawn(pull, |pull| spawn(builder, pull)).unwrap_or_else(|error| {
                not_started(&gate, &outbox, error);
                None
            });
        let behind = Behind { executor: None, intake };
        let outlet = Outlet::new(gate, handover, outbox, behind, order, first);
        FeedThreads { outlet, _worker_set: worker_set, passing: None, hint }
    }
}

/// The consumer's end of what is asked for.
struct Input<I, P> {
    source: I,
    pack: P,
    order: Order,
    first: PacketId,
}

/// What the intake's thread does.
type Pull<'s> = Box<dyn FnOnce() + Send + 's>;

impl sealed::Place<'static> for InPool {
    type Feed<T: Send + 'static, U: 'static> = FeedThreads<T, U>;

    fn keep<T: Send + 'static, U: 'static>(feed: FeedThreads<T, U>) -> FeedThreads<T, U> {
        feed
    }

    #[track_caller]
    fn start<I, T, P, K>(self, plan: Plan<I, P, K>) -> FeedThreads<T, K::Value>
    where
        I: Iterator + Send + 'static,
        T: Send + 'static,
        P: Pack<I::Item, Batch = Items<T>> + Send + 'static,
        K: Task<T> + 'static,
    {
        let mut frame = Frame::of(&plan);
        let Plan { source, pack, task, order, first, .. } = plan;
        let worker_set = Arc::new_cyclic(|worker_set: &Weak<WorkerSet<T, K>>| {
            let to_wake = Weak::clone(worker_set);
            let wake = Handover::new(move || {
                if let Some(worker_set) = to_wake.upgrade() {
                    worker_set.woken();
                }
            });
            frame.worker_set(task, Jobs::Pool(self.0, WorkerSet::post_to), wake)
        });
        let to_help = Arc::downgrade(&worker_set);
        frame
            .gate
            .help
            .set_work(move || to_help.upgrade().is_some_and(|worker_set| worker_set.help()));
        let handover = worker_set.handover();
        let input = Input { source, pack, order, first };
        frame.feed(handover, input, Hold(Some(worker_set)), |thread, pull| {
            thread.spawn(pull).map(Some)
        })
    }
}

impl<'scope> sealed::Place<'scope> for InScope<'scope, '_> {
    type Feed<T: Send + 'scope, U: 'scope> = Scoped<'scope, FeedThreads<T, U>>;

    fn keep<T: Send + 'scope, U: 'scope>(feed: FeedThreads<T, U>) -> Self::Feed<T, U> {
        Scoped::new(feed)
    }

    #[track_caller]
    fn start<I, T, P, K>(self, plan: Plan<I, P, K>) -> FeedThreads<T, K::Value>
    where
        I: Iterator + Send + 'scope,
        T: Send + 'scope,
        P: Pack<I::Item, Batch = Items<T>> + Send + 'scope,
        K: Task<T> + 'scope,
    {
        let mut frame = Frame::of(&plan);
        let Plan { source, pack, task, order, first, .. } = plan;
        let bell = Arc::new(Bell::default());
        let to_ring = Arc::clone(&bell);
        let wake = Handover::new(move || to_ring.wake());
        let worker_set = Arc::new(frame.worker_set(task, Jobs::Scope(Arc::clone(&bell)), wake));
        let handover = worker_set.handover();
        let mut missing = None;
        for _ in 0..frame.hands {
            let (worker_set, bell) = (Arc::clone(&worker_set), Arc::clone(&bell));
            let thread = thread::Builder::new().name("subfeed-hand".to_owned());
            let hand = thread.spawn_scoped(self.0, move || {
                while let Some(call) = bell.wait() {
                    match call {
                        Call::Job => worker_set.work(),
                        Call::Woken => worker_set.woken(),
                    }
                }
                // What it drops last may be the user's, and a panic there would be the scope's.
                let _ = unwind::catch(move || drop(worker_set));
            });
            if let Err(error) = hand {
                missing = Some(error);
                break;
            }
        }
        drop(worker_set);
        let input = Input { source, pack, order, first };
        let scope = self.0;
        frame.feed(handover, input, Hold(None), |thread, pull| {
            let started = match missing {
                Some(error) => Err(error),
                None => thread.spawn_scoped(scope, pull).map(|_| None),
            };
            if started.is_err() {
                // Nobody else would tell the hands that are there, and the scope waits for them.
                bell.close();
            }
            started
        })
    }
}

/// The feed's only item is that one of its threads cannot be had.
fn not_started<U>(gate: &Gate, outbox: &Outbox<Values<U>>, error: io::Error) {
    let error = Error::new(ErrorKind::Thread, "a thread of the feed cannot be started")
        .because(error)
        .fatal();
    gate.stop();
    outbox.end(End { fatal: Some(error), ..End::default() });
}
