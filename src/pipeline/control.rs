//! Watching a pipeline and stopping it, from any thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a pipeline does when an item has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnError {
    /// Nothing: the failure is yielded in its place and everything else is finished.
    #[default]
    GoOn,
    /// Pulls no more from the source, and finishes what is in flight.
    Stop,
    /// Ends with the failure: what is in flight is thrown away.
    Abort,
}

/// The counts of one stage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StageReport {
    /// Its name.
    pub name: Arc<str>,
    /// Items that it has begun to work on.
    pub taken: u64,
    /// Items that it has passed on.
    pub given: u64,
    /// Items that have failed in it.
    pub failed: u64,
    /// Attempts beyond the first.
    pub retried: u64,
    /// Time that its closure took, summed over its workers; zero where subprocesses work.
    pub busy: Duration,
}

/// The counters behind a [`StageReport`].
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) name: Arc<str>,
    pub(super) taken: AtomicU64,
    pub(super) given: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) nanos: AtomicU64,
}

impl Counts {
    pub(super) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Relaxed);
    }

    pub(super) fn worked(&self, time: Duration) {
        Self::add(&self.nanos, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    fn report(&self) -> StageReport {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        StageReport {
            name: Arc::clone(&self.name),
            taken: read(&self.taken),
            given: read(&self.given),
            failed: read(&self.failed),
            retried: read(&self.retried),
            busy: Duration::from_nanos(read(&self.nanos)),
        }
    }
}

/// Watches a pipeline and stops it, from any thread; see [`Pipeline::control`](super::Pipeline::control).
#[derive(Clone, Debug)]
pub struct Control(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    stopped: AtomicBool,
    stages: Mutex<Vec<Arc<Counts>>>,
}

impl Control {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared { stopped: AtomicBool::new(false), stages: Mutex::default() }))
    }

    /// Pulls no more from the source, however endless that is; what was pulled is finished, and then the
    /// pipeline ends. A source that is inside its own `next()` comes out of it first, and what it gives
    /// is the last. To throw away what is in flight, drop the run instead.
    ///
    /// Stopping twice is stopping once.
    pub fn stop(&self) {
        self.0.stopped.store(true, Relaxed);
    }

    /// Whether it was stopped, by [`stop`](Control::stop) or by [`OnError::Stop`].
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Relaxed)
    }

    /// The counts of every stage as of now, in the order of the stages.
    #[must_use]
    pub fn stages(&self) -> Vec<StageReport> {
        self.list().iter().map(|counts| counts.report()).collect()
    }

    pub(super) fn counts(&self, name: &Arc<str>) -> Arc<Counts> {
        let counts = Arc::new(Counts {
            name: Arc::clone(name),
            taken: AtomicU64::new(0),
            given: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
        });
        self.list().push(Arc::clone(&counts));
        counts
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Counts>>> {
        // Nobody panics while holding it.
        self.0.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
