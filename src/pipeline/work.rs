//! Stages that work on items in threads.

use std::sync::Arc;
use std::time::Instant;

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::control::Counts;
use super::flow::{Flow, Pass, StageError};
use super::results::Out;
use super::stage::Stage;
use crate::ext::FeedExt;
use crate::threads::FeedThreads;
use crate::window::unwind;

/// Threads of the stage's own: what one stage waits for must not keep another from working.
pub(super) fn threads(stage: &Stage, n: usize) -> Result<Arc<ThreadPool>, StageError> {
    let name = Arc::clone(&stage.name);
    ThreadPoolBuilder::new()
        .num_threads(n)
        .thread_name(move |number| format!("{name}-{number}"))
        .build()
        .map(Arc::new)
        .map_err(|error| StageError::refused(&stage.name, 1, error.into()))
}

/// Works on the items of a flow in threads, each with a state of its own, and lets the rest pass.
///
/// After a panic of the closure the worker's state is made afresh: a failed worker is replaced.
pub(super) fn work<T, U, M, S, N, F>(
    flow: impl Iterator<Item = Flow<T, M>> + Send + 'static,
    stage: &Stage,
    pool: &Arc<ThreadPool>,
    counts: &Arc<Counts>,
    init: N,
    f: F,
) -> FeedThreads<T, Flow<Out<U>, M>>
where
    T: Send + 'static,
    U: Send + 'static,
    M: Send + 'static,
    S: Send + 'static,
    N: Fn() -> S + Send + Sync + 'static,
    F: Fn(&mut S, T, &Counts) -> Result<Out<U>, StageError> + Send + Sync + 'static,
{
    let counts = Arc::clone(counts);
    let step = move |state: &mut Option<S>, item: T| {
        Counts::add(&counts.taken, 1);
        let begun = Instant::now();
        let made = unwind::catch(|| f(state.get_or_insert_with(&init), item, &counts));
        counts.worked(begun.elapsed());
        let error = match made {
            Ok(Ok(out)) => return Ok(out),
            Ok(Err(error)) => error,
            Err(payload) => {
                let broken = state.take();
                // It is broken already: a second panic says nothing new.
                let _ = unwind::catch(|| drop(broken));
                StageError::panicked(&counts.name, &*payload)
            }
        };
        Counts::add(&counts.failed, 1);
        Err(Pass::Failed(error))
    };
    flow.in_threads()
        .workers(stage.workers)
        .buffer(stage.buffer)
        .pool(pool)
        .try_map_init(|| None, step)
}

/// Has a flow pulled by a thread of its own, at most the stage's window ahead.
pub(super) fn relay<T, M>(
    flow: impl Iterator<Item = Flow<T, M>> + Send + 'static,
    stage: &Stage,
    pool: &Arc<ThreadPool>,
) -> FeedThreads<T, Flow<T, M>>
where
    T: Send + 'static,
    M: Send + 'static,
{
    flow.in_threads().workers(1).buffer(stage.buffer).pool(pool).try_map(Ok)
}
