//! From the executor to the outlet: spans in bulk, one wake-up for all that gathered.
//!
//! Putting never blocks, so the executor never waits for the consumer; the window bounds what can
//! be in here. The outlet takes everything at once by swapping vectors.

use crate::stream::packet::{End, Replies, Span};
use crate::stream::sync::thread::{self, Thread};
use crate::stream::sync::{Mutex, lock};

#[derive(Debug)]
pub(crate) struct Outbox<R = Replies> {
    state: Mutex<State<R>>,
}

#[derive(Debug)]
struct State<R> {
    spans: Vec<Span<R>>,
    end: Option<End>,
    asleep: Option<Thread>,
}

/// What the outlet found.
#[derive(Debug)]
pub(crate) enum Taken {
    Spans,
    End(End),
    Nothing,
}

impl<R> Default for Outbox<R> {
    fn default() -> Self {
        Self { state: Mutex::new(State { spans: Vec::new(), end: None, asleep: None }) }
    }
}

impl<R> Outbox<R> {
    /// Executor: hands spans over, emptying `spans` but keeping its room.
    pub(crate) fn put(&self, spans: &mut Vec<Span<R>>) {
        if spans.is_empty() {
            return;
        }
        let asleep = {
            let mut state = lock(&self.state);
            if state.spans.is_empty() {
                std::mem::swap(&mut state.spans, spans);
            } else {
                state.spans.append(spans);
            }
            state.asleep.take()
        };
        if let Some(thread) = asleep {
            thread.unpark();
        }
    }

    /// Executor: nothing comes after this. Only the first end counts.
    pub(crate) fn end(&self, end: End) {
        let asleep = {
            let mut state = lock(&self.state);
            if state.end.is_none() {
                state.end = Some(end);
            }
            state.asleep.take()
        };
        if let Some(thread) = asleep {
            thread.unpark();
        }
    }

    /// Outlet: takes what is there, the end only after all spans.
    pub(crate) fn take(&self, into: &mut Vec<Span<R>>) -> Taken {
        Self::take_from(&mut lock(&self.state), into)
    }

    /// Outlet: the same, and if there is nothing, leaves word to unpark this thread.
    pub(crate) fn take_or_sleep(&self, into: &mut Vec<Span<R>>) -> Taken {
        let mut state = lock(&self.state);
        let taken = Self::take_from(&mut state, into);
        state.asleep = match taken {
            Taken::Nothing => Some(thread::current()),
            _ => None,
        };
        taken
    }

    fn take_from(state: &mut State<R>, into: &mut Vec<Span<R>>) -> Taken {
        debug_assert!(into.is_empty());
        if !state.spans.is_empty() {
            std::mem::swap(&mut state.spans, into);
            Taken::Spans
        } else if let Some(end) = state.end.take() {
            Taken::End(end)
        } else {
            Taken::Nothing
        }
    }
}
