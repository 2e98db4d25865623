//! The returned iterator: values one by one.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::Instant;

use super::items::Items;
use super::task::Task;
use super::worker_set::{Values, WorkerSet};
use crate::feed::stopper::Stopper;
use crate::feed::{Stops, remaining};
use crate::window::inputs::Passing;
use crate::window::outlet::{Given, Outlet};
use crate::window::unwind;

/// What maps the items, as long as the values are wanted.
pub(super) trait Keep: Send + Sync {}

impl<T: Send, K: Task<T>> Keep for WorkerSet<T, K> {}

/// Lets go of the worker set without a panic of what is the user's in it. In a scope there is nothing to hold:
/// the threads there keep the worker set themselves.
pub(super) struct Hold(pub(super) Option<Arc<dyn Keep>>);

impl Drop for Hold {
    fn drop(&mut self) {
        let worker_set = self.0.take();
        let _ = unwind::catch(move || drop(worker_set));
    }
}

/// The values of a running map in threads: a lazy, fused iterator.
///
/// Made by [`FeedExt`](crate::FeedExt) and [`ThreadsBuilder`](crate::ThreadsBuilder). Yields exactly one value for
/// each input.
///
/// # Dropping
/// Dropping the feed stops the pulling and discards items on which no work has begun. It does not wait for closures that
/// are running, because nothing can interrupt them; in a scope, the scope waits for them.
///
/// # Panics
/// If the source or the closure panics, `next` panics with the same payload at the position of the item, and the feed has
/// ended.
#[must_use = "a feed that is not iterated stops as soon as it is dropped"]
pub struct FeedThreads<T: Send, U> {
    pub(super) outlet: Outlet<Items<T>, Values<U>>,
    pub(super) _worker_set: Hold,
    pub(super) passing: Option<Arc<Passing<U>>>,
    pub(super) hint: (usize, Option<usize>),
    pub(super) stopper: Stopper,
}

impl<T: Send, U> FeedThreads<T, U> {
    /// A handle that ends the feed softly, from any thread: no more input is pulled, and every input that was pulled is
    /// mapped and yielded.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Whether `next` has something to say, be it the end. Waits for that no longer than until `deadline`.
    pub(crate) fn is_ready_before(&mut self, deadline: Instant) -> bool {
        self.outlet.is_ready_before(deadline)
    }
}

impl<T: Send, U> Stops for FeedThreads<T, U> {
    fn stopper(&self) -> Stopper {
        self.stopper()
    }
}

/// `None` for what was no work, which is elsewhere.
fn value<U>(given: Given<&mut Values<U>>) -> Option<Option<U>> {
    match given {
        Given::Reply(values) => Some(values.pop_front()),
        Given::Failed(error) => panic!("{error}"),
        Given::Passed => None,
    }
}

impl<T: Send, U> Iterator for FeedThreads<T, U> {
    type Item = U;

    fn next(&mut self) -> Option<U> {
        let (packet, given) = self.outlet.next()?;
        value(given).unwrap_or_else(|| self.passing.as_ref()?.take(packet))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        remaining(self.hint, &self.outlet, &self.stopper)
    }
}

impl<T: Send, U> FusedIterator for FeedThreads<T, U> {}

#[cfg(feature = "async")]
impl<T: Send + 'static, U: Send + 'static> FeedThreads<T, U> {
    /// The same feed as a stream, for async programs; see [`FeedStream`](crate::FeedStream).
    ///
    /// Do not block on it in a thread of the pool that does the work: the pool then lacks that thread.
    pub fn into_stream(self) -> crate::FeedStream<Self> {
        crate::FeedStream::new(self)
    }
}

#[cfg(feature = "async")]
impl<T: Send + 'static, U: Send + 'static> crate::stream::sealed::PollFeed for FeedThreads<T, U> {
    crate::stream::polls_outlet!(|feed| feed.outlet);
}

impl<T: Send, U> fmt::Debug for FeedThreads<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedThreads").finish_non_exhaustive()
    }
}
