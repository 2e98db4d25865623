//! Who is woken when something has come: a thread that parks, or a task of an async runtime.

use std::task::Waker;

use crate::window::sync::thread::{self, Thread};

/// A wake handle. To be woken is no promise that there is something: the one that is woken looks again.
#[derive(Clone, Debug)]
pub(crate) enum Waiter {
    Thread(Thread),
    #[cfg_attr(not(test), expect(dead_code, reason = "what an async outlet registers"))]
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
            Self::Task(waker) => waker.wake(),
        }
    }

    /// Whether to wake the one is to wake the other.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Thread(this), Self::Thread(that)) => this.id() == that.id(),
            (Self::Task(this), Self::Task(that)) => this.will_wake(that),
            _ => false,
        }
    }

    /// Leaves word to wake this one, in the place of the one that was to be woken. Costs nothing if that was the same.
    pub(crate) fn register(&self, at: &mut Option<Self>) {
        if !at.as_ref().is_some_and(|registered| registered.is(self)) {
            *at = Some(self.clone());
        }
    }
}
