//! Feeds that stay in a scope.

use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::time::Instant;

use crate::feed::stopper::Stopper;
use crate::stats::{Monitor, Snapshot};

/// What can be stopped softly. Sealed: nobody else can name it.
pub trait Stops {
    #[doc(hidden)]
    fn stopper(&self) -> Stopper;
}

/// A running feed of subprocesses. Sealed: nobody else can name it.
pub trait Running {
    /// What `finish` may end with.
    type Failure;
    #[doc(hidden)]
    fn monitor(&self) -> Monitor;
    #[doc(hidden)]
    fn finish(self) -> Result<Snapshot, Self::Failure>;
    #[doc(hidden)]
    fn is_ready_before(&mut self, deadline: Instant) -> bool;
}

/// A feed whose source borrows: its intake is a thread of a scope, and it stays inside that scope.
///
/// Made by [`FeedBuilder::start_scoped`](crate::FeedBuilder::start_scoped) and
/// [`ThreadsBuilder::scoped`](crate::ThreadsBuilder::scoped); `F` is the [`Feed`](crate::Feed) or the
/// [`FeedThreads`](crate::FeedThreads). A scope waits for its threads, and an intake whose window is full waits until a
/// reply is taken. If the feed could leave its scope, both would wait for ever. So that does not compile:
///
/// ```compile_fail
/// use subfeed::{FeedExt, Template};
/// let words = vec!["one".to_owned(); 100];
/// let feed = std::thread::scope(|scope| {
///     words.iter().feed(Template::new("cat")).buffer(10).start_scoped(scope)
/// });
/// assert_eq!(feed.count(), 100);
/// ```
///
/// Once it is consumed to its end, or dropped, anywhere inside the scope, the scope can end:
///
/// ```
/// use subfeed::{FeedExt, Template};
/// let words = vec!["one".to_owned(); 100];
/// let count = std::thread::scope(|scope| {
///     let feed = words.iter().feed(Template::new("cat")).buffer(10).start_scoped(scope);
///     scope.spawn(move || feed.count()).join().unwrap()
/// });
/// assert_eq!(count, 100);
/// ```
///
/// Leaking it (`std::mem::forget`, a cycle of `Rc`) cannot be prevented. The scope then does not end, as with any
/// thread of a scope that waits for a leaked value.
#[must_use = "a feed that is not iterated stops as soon as it is dropped"]
pub struct Scoped<'scope, F> {
    pub(crate) feed: F,
    scope: PhantomData<&'scope ()>,
}

impl<F> Scoped<'_, F> {
    pub(crate) fn new(feed: F) -> Self {
        Self { feed, scope: PhantomData }
    }
}

impl<F: Running> Scoped<'_, F> {
    /// See [`Feed::monitor`](crate::Feed::monitor).
    pub fn monitor(&self) -> Monitor {
        self.feed.monitor()
    }

    /// See [`Feed::finish`](crate::Feed::finish).
    ///
    /// # Errors
    /// See there.
    pub fn finish(self) -> Result<Snapshot, F::Failure> {
        self.feed.finish()
    }
}

impl<F: Stops> Scoped<'_, F> {
    /// See [`Feed::stopper`](crate::Feed::stopper).
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.feed.stopper()
    }
}

impl<F: Iterator> Iterator for Scoped<'_, F> {
    type Item = F::Item;

    fn next(&mut self) -> Option<F::Item> {
        self.feed.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.feed.size_hint()
    }
}

impl<F: FusedIterator> FusedIterator for Scoped<'_, F> {}

impl<F: fmt::Debug> fmt::Debug for Scoped<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scoped").field(&self.feed).finish()
    }
}
