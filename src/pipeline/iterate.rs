//! A stage that is an iterator over an iterator: state, look-ahead, any number of results for any number
//! of items.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::control::Counts;
use super::flow::{Flow, Pass, StageError};
use super::results::Out;
use crate::window::unwind;

/// The items that come to an [`iterate`](super::Pipeline::iterate) stage.
pub struct Items<T, M> {
    flow: Box<dyn Iterator<Item = Flow<T, M>> + Send>,
    passing: Passing<M>,
    counts: Arc<Counts>,
}

impl<T, M> Iterator for Items<T, M> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        loop {
            match self.flow.next()? {
                Ok(item) => {
                    Counts::add(&self.counts.taken, 1);
                    return Some(item);
                }
                Err(pass) => self.passing.lock().push_back(pass),
            }
        }
    }
}

impl<T, M> fmt::Debug for Items<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").finish_non_exhaustive()
    }
}

/// What came by while the stage pulled, and is no work.
struct Passing<M>(Arc<Mutex<VecDeque<Pass<M>>>>);

impl<M> Passing<M> {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Pass<M>>> {
        // Nobody panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the stage: what has come by goes in front of the result that the stage made meanwhile.
pub(super) struct Iterate<F, I, T, M, U> {
    stage: State<F, I, T, M>,
    passing: Passing<M>,
    /// A result that lets others go first.
    next: Option<U>,
    counts: Arc<Counts>,
}

enum State<F, I, T, M> {
    New(F, Items<T, M>),
    Running(I),
    Ended,
}

impl<F, I, T, M, U> Iterate<F, I, T, M, U> {
    pub(super) fn new(
        flow: Box<dyn Iterator<Item = Flow<T, M>> + Send>,
        f: F,
        counts: Arc<Counts>,
    ) -> Self {
        let passing = Arc::default();
        let items =
            Items { flow, passing: Passing(Arc::clone(&passing)), counts: Arc::clone(&counts) };
        Self { stage: State::New(f, items), passing: Passing(passing), next: None, counts }
    }
}

impl<F, I, T, M, U> Iterate<F, I, T, M, U>
where
    F: FnOnce(Items<T, M>) -> I,
    I: Iterator<Item = U>,
{
    /// The stage's next result; its panic is a failure, and its end.
    fn pull(&mut self) -> Option<Flow<U, M>> {
        let stage = &mut self.stage;
        let pulled = unwind::catch(|| {
            if let State::New(..) = stage
                && let State::New(f, items) = std::mem::replace(stage, State::Ended)
            {
                *stage = State::Running(f(items));
            }
            match stage {
                State::Running(running) => running.next(),
                _ => None,
            }
        });
        match pulled {
            Ok(Some(next)) => return Some(Ok(next)),
            Ok(None) => self.end(),
            Err(payload) => {
                self.end();
                Counts::add(&self.counts.failed, 1);
                return Some(Err(Pass::Failed(StageError::panicked(&self.counts.name, &*payload))));
            }
        }
        None
    }

    /// Lets go of the stage and of everything before it: a stage that ends early stops what feeds it.
    fn end(&mut self) {
        let ended = std::mem::replace(&mut self.stage, State::Ended);
        // A panic here comes after the last result and concerns none.
        let _ = unwind::catch(|| drop(ended));
    }
}

impl<F, I, T, M, U> Iterator for Iterate<F, I, T, M, U>
where
    F: FnOnce(Items<T, M>) -> I,
    I: Iterator<Item = U>,
{
    type Item = Flow<Out<U>, M>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(pass) = self.passing.lock().pop_front() {
                return Some(Err(pass));
            }
            if let Some(next) = self.next.take() {
                return Some(Ok(Out::One(next)));
            }
            match self.pull() {
                Some(Ok(next)) => self.next = Some(next),
                Some(Err(failed)) => {
                    self.passing.lock().push_back(failed);
                }
                None if self.passing.lock().is_empty() => return None,
                None => {}
            }
        }
    }
}
