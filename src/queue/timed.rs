//! Waiting for the next item for a limited time.

use std::error;
use std::fmt;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::feed::through::{MarkedFeed, TryFeed};
use crate::feed::with_input::FeedWithInput;
use crate::feed::{Feed, Running, Scoped};
use crate::template::codec::Decode;
#[cfg(feature = "threads")]
use crate::threads::FeedThreads;

/// Waiting for the next item with a time limit, for [`Feed`] and [`FeedThreads`], scoped or not.
///
/// ```
/// use std::time::Duration;
/// use subfeed::queue::{NotYet, Timed};
/// use subfeed::FeedExt;
/// let (producer, items) = subfeed::queue::inlet(1);
/// let mut feed = items.feed_threads_ordered(|n: u64| n + 1, 2, 10);
/// assert_eq!(feed.next_timeout(Duration::from_millis(1)), Err(NotYet));
/// producer.put(1).unwrap();
/// assert_eq!(feed.next(), Some(2));
/// drop(producer);
/// assert_eq!(feed.next_timeout(Duration::from_secs(10)), Ok(None));
/// ```
pub trait Timed: Iterator {
    /// The next item or the end, if it comes before `deadline`. At the end, as in `next`, the feed waits until its threads
    /// and children have ended, which may take longer.
    ///
    /// # Errors
    /// If nothing has come. A later call may still return the item.
    fn next_before(&mut self, deadline: Instant) -> Result<Option<Self::Item>, NotYet>;

    /// The next item or the end, if it comes within this time.
    ///
    /// # Errors
    /// If nothing has come.
    fn next_timeout(&mut self, limit: Duration) -> Result<Option<Self::Item>, NotYet> {
        match Instant::now().checked_add(limit) {
            Some(deadline) => self.next_before(deadline),
            // Beyond the end of time.
            None => Ok(self.next()),
        }
    }

    /// The next item or the end, if it is available now.
    ///
    /// # Errors
    /// If it is not available.
    fn try_next(&mut self) -> Result<Option<Self::Item>, NotYet> {
        self.next_before(Instant::now())
    }
}

macro_rules! timed {
    ($([$($generic:ident),*] $feed:ty where $bound:ty: $is:path;)+) => {
        $(
            impl<$($generic),*> Timed for $feed
            where
                D: Decode,
                $bound: $is,
            {
                fn next_before(&mut self, deadline: Instant) -> Result<Option<Self::Item>, NotYet> {
                    if self.is_ready_before(deadline) { Ok(self.next()) } else { Err(NotYet) }
                }
            }
        )+
    };
}

timed! {
    [D] Feed<D> where D: Decode;
    [T, D] FeedWithInput<T, D> where D: Decode;
    [D, X] TryFeed<D, X> where X: From<Error>;
    [D, M] MarkedFeed<D, M> where D: Decode;
}

#[cfg(feature = "threads")]
impl<T: Send, U> Timed for FeedThreads<T, U> {
    fn next_before(&mut self, deadline: Instant) -> Result<Option<U>, NotYet> {
        if self.is_ready_before(deadline) { Ok(self.next()) } else { Err(NotYet) }
    }
}

impl<F: Timed> Timed for Scoped<'_, F> {
    fn next_before(&mut self, deadline: Instant) -> Result<Option<F::Item>, NotYet> {
        self.feed.next_before(deadline)
    }
}

/// Nothing has come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NotYet;

impl fmt::Display for NotYet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing has come within the time")
    }
}

impl error::Error for NotYet {}
