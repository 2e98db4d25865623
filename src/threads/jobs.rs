//! Who does the jobs of a worker_set: the threads of a pool, or of a scope.

use std::sync::{Arc, Condvar, PoisonError};

use rayon::ThreadPool;

use crate::window::sync::{Mutex, lock};

pub(super) enum Jobs<C> {
    /// The second posts a job to the first: only where the worker set may outlive everything does it exist.
    Pool(Option<Arc<ThreadPool>>, fn(&Arc<C>, Option<&ThreadPool>)),
    /// Threads of a scope, which borrow: they wait at a bell.
    Scope(Arc<Bell>),
}

impl<C> Jobs<C> {
    pub(super) fn post(&self, worker_set: &Arc<C>) {
        match self {
            Self::Pool(pool, post) => post(worker_set, pool.as_deref()),
            Self::Scope(bell) => bell.ring(),
        }
    }

    /// Whether this thread is one of those that would do a job.
    pub(super) fn are_done_here(&self) -> bool {
        match self {
            Self::Pool(Some(pool), _) => pool.current_thread_index().is_some(),
            Self::Pool(None, _) => rayon::current_thread_index().is_some(),
            // It is a thread of the scope's, and nobody else's.
            Self::Scope(_) => false,
        }
    }

    /// There will be no more.
    pub(super) fn close(&self) {
        if let Self::Scope(bell) = self {
            bell.close();
        }
    }
}

/// Where the threads of a scope wait. It knows nothing of the worker set, so that a thread that rings it, as the
/// intake and the outlet do, need not either.
#[derive(Debug, Default)]
pub(super) struct Bell {
    calls: Mutex<Calls>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct Calls {
    jobs: usize,
    woken: bool,
    closed: bool,
}

/// What a thread of the scope is to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    Job,
    /// Something has arrived, or has changed.
    Woken,
}

impl Bell {
    /// One job more.
    fn ring(&self) {
        lock(&self.calls).jobs += 1;
        self.rung.notify_one();
    }

    /// Something has arrived, or has changed.
    pub(super) fn wake(&self) {
        lock(&self.calls).woken = true;
        self.rung.notify_one();
    }

    pub(super) fn close(&self) {
        lock(&self.calls).closed = true;
        self.rung.notify_all();
    }

    /// Waits for something to do; `None` once it is closed, when nothing is left to be done.
    pub(super) fn wait(&self) -> Option<Call> {
        let mut calls = lock(&self.calls);
        loop {
            if calls.closed {
                return None;
            }
            if std::mem::take(&mut calls.woken) {
                return Some(Call::Woken);
            }
            if calls.jobs > 0 {
                calls.jobs -= 1;
                return Some(Call::Job);
            }
            calls = self.rung.wait(calls).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
