//! Watching a pipeline and stopping it, from any thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a pipeline does when an item has failed; see [`Run::on_error`](super::Run::on_error).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnError {
    /// Yields the failure at its position and processes all other items.
    #[default]
    GoOn,
    /// Pulls no more from the source, and processes the items that were pulled.
    Stop,
    /// Ends with the failure, and discards the items that were pulled.
    Abort,
}

/// The counts of one stage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StageReport {
    /// Its name.
    pub name: Arc<str>,
    /// Items on which it has started to work.
    pub taken: u64,
    /// Items that it has passed on.
    pub given: u64,
    /// Items that have failed in it.
    pub failed: u64,
    /// Second and later attempts.
    pub retried: u64,
    /// The time that its closure took, summed over its workers; zero for a stage in subprocesses.
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

    /// Stops pulling from the source, even if that is endless. Items that were pulled are processed, and then the pipeline
    /// ends. If the source is inside its own `next()` at that moment, the item that it returns is the last. To discard the
    /// items that were pulled, drop the run instead.
    ///
    /// A second call does nothing.
    pub fn stop(&self) {
        self.0.stopped.store(true, Relaxed);
    }

    /// Whether it was stopped, by [`stop`](Control::stop) or by [`OnError::Stop`].
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Relaxed)
    }

    /// The counts of every stage at this moment, in the order of the stages.
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
