//! One call: who waits for an answer, and who owes it.
//!
//! # Invariant
//! A call is answered once. The caller's end that goes without an answer gives an error instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};

use crate::error::{Error, ErrorKind};
use crate::window::sync::{Mutex, lock};
use crate::window::unwind::Payload;
use crate::window::waiter::Waiter;

/// What a call comes to: a result, or a panic of a closure over its item.
pub(super) type Answer<O> = Result<Result<O, Error>, Payload>;

/// The end that waits.
pub(super) struct Call<O>(Arc<Mutex<State<O>>>);

struct State<O> {
    answer: Option<Answer<O>>,
    waiter: Option<Waiter>,
}

impl<O> Call<O> {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State { answer: None, waiter: None })))
    }

    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<Answer<O>> {
        let waiter = Waiter::Task(context.waker().clone());
        let mut state = lock(&self.0);
        if let Some(answer) = state.answer.take() {
            return Poll::Ready(answer);
        }
        let other = waiter.register(&mut state.waiter);
        drop(state);
        drop(other);
        Poll::Pending
    }
}

/// The end that owes an answer: it travels with the item, and stays while a worker has that.
pub(super) struct Caller<O> {
    call: Option<Arc<Mutex<State<O>>>>,
    counted: Option<Arc<AtomicUsize>>,
}

impl<O> Caller<O> {
    pub(super) fn new(call: &Call<O>) -> Self {
        Self { call: Some(Arc::clone(&call.0)), counted: None }
    }

    /// Nobody wants the answer.
    pub(super) fn nobody() -> Self {
        Self { call: None, counted: None }
    }

    /// It is one of these until it is answered.
    pub(super) fn is_counted(&mut self, calls: &Arc<AtomicUsize>) {
        if self.counted.is_none() {
            calls.fetch_add(1, SeqCst);
            self.counted = Some(Arc::clone(calls));
        }
    }

    /// It is a call's, and not answered yet.
    pub(super) fn is_waited_for(&self) -> bool {
        self.counted.is_some()
    }

    /// Answers, once.
    pub(super) fn answer(&mut self, answer: Answer<O>) {
        if let Some(calls) = self.counted.take() {
            calls.fetch_sub(1, SeqCst);
        }
        let Some(call) = self.call.take() else { return };
        let waiter = {
            let mut state = lock(&call);
            state.answer = Some(answer);
            state.waiter.take()
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

impl<O> Drop for Caller<O> {
    fn drop(&mut self) {
        if self.call.is_some() || self.counted.is_some() {
            let why = "the pool's workers have ended before this call was answered";
            self.answer(Ok(Err(Error::new(ErrorKind::Halted, why))));
        }
    }
}
