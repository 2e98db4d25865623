//! Who is woken when something has come: a thread that parks, or a task of an async runtime.

use std::task::Waker;

use crate::window::sync::thread::{self, Thread};
#[cfg(any(test, feature = "async"))]
use crate::window::sync::{Mutex, lock};
use crate::window::unwind;

/// A wake handle. To be woken is no promise that there is something: the one that is woken looks again.
///
/// A task's is code of the user's: it is never cloned, woken or dropped under a lock of ours, since the last handle
/// of a task may take the task along, and that a feed.
#[derive(Clone, Debug)]
pub(crate) enum Waiter {
    Thread(Thread),
    #[cfg_attr(not(any(test, feature = "async")), expect(dead_code, reason = "a task's, if any"))]
    Task(Waker),
}

impl Waiter {
    /// This thread, which parks.
    pub(crate) fn this_thread() -> Self {
        Self::Thread(thread::current())
    }

    pub(crate) fn wake(self) {
        match self {
            Self::Thread(thread) => thread.unpark(),
            // On a thread of ours, which has others to look after than the one whose waker panics.
            Self::Task(waker) => drop(unwind::catch(|| waker.wake())),
        }
    }

    /// Whether to wake the one is to wake the other.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Thread(this), Self::Thread(that)) => this.id() == that.id(),
            (Self::Task(this), Self::Task(that)) => this.will_wake(that),
            _ => false,
        }
    }

    /// Leaves word to wake this one, in the place of the one that was. What comes back is to be dropped when no
    /// lock is held.
    #[must_use]
    pub(crate) fn register(self, at: &mut Option<Self>) -> Option<Self> {
        if at.as_ref().is_some_and(|registered| registered.is(&self)) {
            Some(self)
        } else {
            at.replace(self)
        }
    }
}

/// Where the one who waits leaves word.
#[cfg(any(test, feature = "async"))]
#[derive(Debug, Default)]
pub(crate) struct Word(Mutex<Option<Waiter>>);

#[cfg(any(test, feature = "async"))]
impl Word {
    /// This one is to be woken from now on, and nobody else.
    pub(crate) fn leave(&self, waiter: Waiter) {
        let other = waiter.register(&mut lock(&self.0));
        drop(other);
    }

    /// Nobody is.
    pub(crate) fn take(&self) -> Option<Waiter> {
        lock(&self.0).take()
    }

    /// Wakes the one that has left word, once.
    pub(crate) fn wake(&self) {
        if let Some(waiter) = self.take() {
            waiter.wake();
        }
    }
}
