//! From the executor to the outlet: spans in bulk, one wake-up for all that gathered.
//!
//! Putting never blocks, so the executor never waits for the consumer; the window bounds what can
//! be in here. The outlet takes everything at once by swapping vectors.
//!
//! Where many threads answer, each has a *shelf* of its own here, so that they do not meet at one
//! lock: what lies there is fetched by the outlet when it finds nothing else, and brought by the
//! thread itself only while the outlet waits for just that: for the next packet in order, or
//! in completion order for any. So nothing is ever withheld from a waiting consumer, even if the thread
//! that put it there goes on computing for ever, and the consumer is not woken for what it cannot yield.
//!
//! # Invariants
//! 1. The waiter is registered under the lock under which spans and the end are put, having looked there; who puts
//!    something takes it and wakes it. So either the outlet saw what was put, or its waiter is woken for it.
//! 2. For the shelves, the outlet says what it awaits, then looks at every shelf, then registers; a thread leaves
//!    something on its shelf, then looks at what is awaited, and brings it if it is that (see 1). All are
//!    `SeqCst`: one of the two sees the other.
//! 3. There is one waiter: who registers another replaces it. One that is woken may find nothing, and registers again.

use std::collections::VecDeque;

use crossbeam_utils::CachePadded;

use crate::record::PacketId;
use crate::window::packet::{End, Outcome, Replies, Span};
use crate::window::sync::atomic::{AtomicU8, AtomicU64, Ordering::SeqCst};
use crate::window::sync::{Mutex, lock};
use crate::window::waiter::Waiter;

/// What one thread has answered and nobody has fetched.
type Shelf<R> = CachePadded<Mutex<Vec<Span<R>>>>;

#[derive(Debug)]
pub(crate) struct Outbox<R = Replies> {
    state: Mutex<State<R>>,
    shelves: Box<[Shelf<R>]>,
    /// The outlet waits, or is about to: it has looked, or will yet look, at every shelf. What it waits
    /// for: one of the three constants below.
    awaited: AtomicU8,
    /// The packet that it waits for, if it is one.
    head: AtomicU64,
}

/// So many spans of one shelf are moved behind those of another.
const MOVED: usize = 1_000;

const NOTHING: u8 = 0;
const ANY: u8 = 1;
const HEAD: u8 = 2;

#[derive(Debug)]
struct State<R> {
    spans: Vec<Span<R>>,
    end: Option<End>,
    /// Who waits for more: nobody who has taken something since.
    waiter: Option<Waiter>,
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
        Self::with_shelves(0)
    }
}

impl<R> Outbox<R> {
    /// An outbox with a shelf for each of `n` threads that answer.
    pub(crate) fn with_shelves(n: usize) -> Self {
        Self {
            state: Mutex::new(State { spans: Vec::new(), end: None, waiter: None }),
            shelves: (0..n).map(|_| CachePadded::new(Mutex::new(Vec::new()))).collect(),
            awaited: AtomicU8::new(NOTHING),
            head: AtomicU64::new(0),
        }
    }

    /// For so many threads there is a shelf.
    pub(crate) fn shelves(&self) -> usize {
        self.shelves.len()
    }

    /// Executor: leaves what became of a packet on a shelf.
    ///
    /// If the outlet's look at this shelf came before, its flag was up before that and is seen here.
    /// If it comes after, it finds this.
    fn leave(&self, shelf: usize, packet: PacketId, put: impl FnOnce(&mut Vec<Span<R>>)) {
        let shelf = &self.shelves[shelf];
        put(&mut lock(shelf));
        let awaited = match self.awaited.load(SeqCst) {
            NOTHING => false,
            HEAD => self.head.load(SeqCst) == packet.0,
            _ => true,
        };
        if awaited {
            let mut spans = std::mem::take(&mut *lock(shelf));
            self.put(&mut spans);
        }
    }

    /// Executor: leaves the outcome of one packet on a shelf.
    pub(crate) fn leave_outcome(&self, shelf: usize, packet: PacketId, outcome: Outcome<R>) {
        self.leave(shelf, packet, |spans| spans.push(Span::one(packet, outcome)));
    }

    /// Outlet: takes what lies on the shelves. Nothing is there if it finds nothing; of much it leaves a part for the next
    /// look, since to move it takes its time.
    fn look_at_shelves(&self, into: &mut Vec<Span<R>>) {
        for shelf in &self.shelves {
            let mut shelf = lock(shelf);
            if into.is_empty() {
                std::mem::swap(&mut *shelf, into);
            } else if shelf.len() <= MOVED {
                into.append(&mut shelf);
            }
        }
    }

    /// Executor: hands spans over, emptying `spans` but keeping its room.
    pub(crate) fn put(&self, spans: &mut Vec<Span<R>>) {
        if spans.is_empty() {
            return;
        }
        let waiter = {
            let mut state = lock(&self.state);
            if state.spans.is_empty() {
                std::mem::swap(&mut state.spans, spans);
            } else {
                state.spans.append(spans);
            }
            state.waiter.take()
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// Executor: nothing comes after this. Only the first end counts.
    pub(crate) fn end(&self, end: End) {
        let waiter = {
            let mut state = lock(&self.state);
            for shelf in &self.shelves {
                state.spans.append(&mut lock(shelf));
            }
            if state.end.is_none() {
                state.end = Some(end);
            }
            state.waiter.take()
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// Outlet: takes what is there, the end only after all spans.
    pub(crate) fn take(&self, into: &mut Vec<Span<R>>) -> Taken {
        let taken = Self::take_from(&mut lock(&self.state), into);
        if !self.shelves.is_empty() {
            self.awaited.store(NOTHING, SeqCst);
        }
        taken
    }

    /// Outlet: the same, and what lies on the shelves.
    pub(crate) fn look(&self, into: &mut Vec<Span<R>>) -> Taken {
        self.look_at_shelves(into);
        if into.is_empty() { self.take(into) } else { Taken::Spans }
    }

    /// Outlet: the same, and if there is nothing, leaves word to wake the waiter, and nobody else any more; from
    /// the shelves, only for the packet `head` if there is one.
    pub(crate) fn take_or_wait(
        &self,
        head: Option<PacketId>,
        waiter: Waiter,
        into: &mut Vec<Span<R>>,
    ) -> Taken {
        if !self.shelves.is_empty() {
            if let Some(head) = head {
                self.head.store(head.0, SeqCst);
            }
            self.awaited.store(if head.is_some() { HEAD } else { ANY }, SeqCst);
            self.look_at_shelves(into);
            if !into.is_empty() {
                return Taken::Spans;
            }
        }
        let mut state = lock(&self.state);
        let taken = Self::take_from(&mut state, into);
        let other = match taken {
            Taken::Nothing => waiter.register(&mut state.waiter),
            _ => state.waiter.take(),
        };
        drop(state);
        drop(other);
        taken
    }

    /// Executor: whether the outlet waits for something to come.
    pub(crate) fn has_waiter(&self) -> bool {
        lock(&self.state).waiter.is_some()
    }

    /// Outlet: nobody waits any more.
    #[cfg(any(test, feature = "async"))]
    pub(crate) fn forget_waiter(&self) {
        let waiter = lock(&self.state).waiter.take();
        drop(waiter);
    }

    /// Outlet: everything but the end, whatever it waits for.
    #[cfg(any(test, feature = "async"))]
    pub(crate) fn take_all(&self) -> Vec<Vec<Span<R>>> {
        let shelves = self.shelves.iter().map(|shelf| std::mem::take(&mut *lock(shelf)));
        let mut all: Vec<_> = shelves.collect();
        all.push(std::mem::take(&mut lock(&self.state).spans));
        all
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

impl<U> Outbox<VecDeque<U>> {
    /// Executor: leaves the value for one packet on a shelf.
    pub(crate) fn leave_value(&self, shelf: usize, packet: PacketId, value: U) {
        self.leave(shelf, packet, |spans| {
            if let Some(last) = spans.last_mut()
                && last.first.plus(last.count) == packet
                && let Outcome::Replies(values) = &mut last.outcome
            {
                values.push_back(value);
                last.count += 1;
            } else {
                spans.push(Span::one(packet, Outcome::Replies(VecDeque::from([value]))));
            }
        });
    }
}
