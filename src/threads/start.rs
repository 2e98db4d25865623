//! Where a map in threads runs, and how it is started there.
#![allow(private_bounds, private_interfaces, reason = "of a sealed trait only the name is public")]

use std::fmt;
use std::io;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle, Scope};

use rayon::ThreadPool;

use super::assist::assist;
use super::feed::{FeedThreads, Hold};
use super::items::Items;
use super::jobs::{Bell, Call, Jobs};
use super::task::Task;
use super::worker_set::{Values, WorkerSet};
use crate::error::Error;
use crate::feed::Scoped;
use crate::feed::stopper::Stopper;
use crate::record::PacketId;
use crate::tuning::BATCHES_WAITING;
use crate::window::chain::set_assistance;
use crate::window::intake::Intake;
use crate::window::joins::IntakeThread;
use crate::window::outlet::{Order, Outlet};
use crate::window::packing::Pack;
use crate::window::seam::{Bounds, Ends, Executor, attach};
use crate::window::unwind;

/// Where a map in threads runs, and how long its closures must live: [`InPool`] or [`InScope`]. Sealed.
pub trait RunsIn<'s>: sealed::RunsIn<'s> {}

impl<'s, P: sealed::RunsIn<'s>> RunsIn<'s> for P {}

/// In the threads of a rayon pool: source, items and closures must own what they use.
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

    pub trait RunsIn<'s> {
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

impl<I, P, K> Plan<I, P, K> {
    /// Of the window: with a shelf for each worker.
    #[track_caller]
    fn bounds(&self) -> Bounds {
        assert!(self.workers > 0, "a feed needs at least one worker, and n is 0");
        assert!(self.buffer > 0, "a feed needs room for at least one item, and buffer_size is 0");
        Bounds {
            order: self.order,
            first: self.first,
            batches: BATCHES_WAITING,
            // More workers than items in the window never have work.
            shelves: self.workers.min(self.buffer),
            ..Bounds::new(self.buffer, usize::MAX)
        }
    }
}

/// Starts the intake, and gives the consumer its end.
fn feed<'s, I, P, T, U>(
    mut outlet: Outlet<Items<T>, Values<U>>,
    intake: Intake<Items<T>, Values<U>>,
    (source, pack): (I, P),
    worker_set: Hold,
    spawn: impl FnOnce(thread::Builder, Pull<'s>) -> io::Result<Option<JoinHandle<()>>>,
) -> FeedThreads<T, U>
where
    I: Iterator + Send + 's,
    P: Pack<I::Item, Batch = Items<T>> + Send + 's,
    T: Send + 's,
    U: Send + 's,
{
    let hint = source.size_hint();
    let stopper = Stopper::default();
    let source = stopper.gates(source);
    let builder = IntakeThread::builder();
    let pull = move || intake.run(source, pack);
    match IntakeThread::spawn(pull, |pull| spawn(builder, pull)) {
        Ok(intake) => outlet.keep_intake(intake),
        // The feed's only item.
        Err(error) => {
            outlet.fail(Error::no_thread("a thread of the feed cannot be started", error));
        }
    }
    FeedThreads { outlet, _worker_set: worker_set, passing: None, hint, stopper }
}

/// What the intake's thread does.
type Pull<'s> = Box<dyn FnOnce() + Send + 's>;

/// The workers as the window knows them, which does not keep them.
struct Away<T: Send, K: Task<T>>(Weak<WorkerSet<T, K>>);

impl<T: Send, K: Task<T>> Executor for Away<T, K> {
    fn wake(&self) {
        if let Some(worker_set) = self.0.upgrade() {
            worker_set.woken();
        }
    }

    fn assist(&self) -> bool {
        self.0.upgrade().is_some_and(|worker_set| worker_set.help())
    }
}

impl sealed::RunsIn<'static> for InPool {
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
        set_assistance(assist);
        let bounds = plan.bounds();
        let Plan { source, pack, task, .. } = plan;
        let mut others = None;
        let worker_set = Arc::new_cyclic(|worker_set| {
            let executor = Away(Weak::clone(worker_set));
            let Ends { intake, supply, outbox, outlet } = attach(bounds, executor);
            others = Some((intake, outlet));
            WorkerSet::new(task, Jobs::Pool(self.0, WorkerSet::post_to), supply, outbox)
        });
        let (intake, outlet) = others.expect("the closure was called");
        let input = (source, pack);
        feed(outlet, intake, input, Hold(Some(worker_set)), |thread, pull| {
            thread.spawn(pull).map(Some)
        })
    }
}

impl<'scope> sealed::RunsIn<'scope> for InScope<'scope, '_> {
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
        let bell = Arc::new(Bell::default());
        let to_ring = Arc::clone(&bell);
        let Ends { intake, supply, outbox, outlet } = attach(plan.bounds(), move || to_ring.wake());
        let workers = outbox.shelves();
        let jobs = Jobs::Scope(Arc::clone(&bell));
        let worker_set = Arc::new(WorkerSet::new(plan.task, jobs, supply, outbox));
        let mut missing = None;
        for _ in 0..workers {
            let (worker_set, bell) = (Arc::clone(&worker_set), Arc::clone(&bell));
            let thread = thread::Builder::new().name("subfeed-worker".to_owned());
            let spawned = thread.spawn_scoped(self.0, move || {
                while let Some(call) = bell.wait() {
                    match call {
                        Call::Job => worker_set.work(),
                        Call::Woken => worker_set.woken(),
                    }
                }
                // What it drops last may be the user's, and a panic there would be the scope's.
                let _ = unwind::catch(move || drop(worker_set));
            });
            if let Err(error) = spawned {
                missing = Some(error);
                break;
            }
        }
        drop(worker_set);
        let scope = self.0;
        feed(outlet, intake, (plan.source, plan.pack), Hold(None), |thread, pull| match missing {
            Some(error) => Err(error),
            None => thread.spawn_scoped(scope, pull).map(|_| None),
        })
    }
}
