//! The soft end of a feed: no more input, and an answer to what was pulled.

use std::iter::FusedIterator;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends a running feed softly: no more input is pulled, every input that was pulled is answered, and then the feed ends
/// as if its source had ended.
///
/// Every running feed has a method `stopper()` that makes one. Clone it and keep it where the end is decided: in the
/// thread that handles signals (Ctrl-C), or beside a timer for a batch system's time limit. It does not keep the feed
/// alive, and it has no effect on a feed that has ended. To end a feed at once, drop the feed.
///
/// If the source is inside its `next()` when `stop` is called, the feed waits for it, and the item that it returns, if
/// any, is answered too. In a chain of feeds, stop the first one, whose source is the input: the others then end after
/// it, and no item is lost.
///
/// ```
/// use subfeed::{FeedExt, Template};
/// let mut feed = (0u64..)
///     .map(|n| n.to_string())
///     .feed(Template::new("cat"))
///     .workers(2)
///     .buffer(10)
///     .start();
/// let stopper = feed.stopper();
/// assert_eq!(feed.next().unwrap()?, "0");
/// stopper.stop();
/// // What was pulled comes out whole and in order, and nothing is pulled behind it.
/// let rest = feed.collect::<Result<Vec<_>, _>>()?;
/// assert!(rest.len() <= 11);
/// assert!(rest.iter().zip(1..).all(|(reply, n)| *reply == n.to_string()));
/// # Ok::<_, subfeed::Error>(())
/// ```
#[doc(alias = "cancel")]
#[doc(alias = "shutdown")]
#[derive(Clone, Debug, Default)]
pub struct Stopper(Arc<AtomicBool>);

impl Stopper {
    /// Has nothing more pulled. Never blocks; a second call does nothing.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether [`stop`](Stopper::stop) has been called.
    #[inline]
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// The source, as long as it is not stopped.
    pub(crate) fn gates<I>(&self, source: I) -> Gated<I> {
        Gated { source, stopper: self.clone() }
    }
}

/// A source that ends when it is stopped.
#[derive(Debug)]
pub(crate) struct Gated<I> {
    source: I,
    stopper: Stopper,
}

#[cfg(feature = "async")]
impl<I> Gated<I> {
    /// For a source that is not asked by way of an iterator.
    pub(crate) fn into_parts(self) -> (I, Stopper) {
        (self.source, self.stopper)
    }
}

impl<I: Iterator> Iterator for Gated<I> {
    type Item = I::Item;

    #[inline]
    fn next(&mut self) -> Option<I::Item> {
        if self.stopper.is_stopped() { None } else { self.source.next() }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (least, most) = self.source.size_hint();
        (if self.stopper.is_stopped() { 0 } else { least }, most)
    }
}

impl<I: FusedIterator> FusedIterator for Gated<I> {}
