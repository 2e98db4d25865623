//! The soft end of a feed: no more input, and an answer to what was pulled.

use std::iter::FusedIterator;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends a running feed softly: its source is pulled no more, what was pulled is answered, and then the feed ends as
/// if the source had.
///
/// Made by `stopper()` of every running feed. It is a handle: clone it, and keep it in a signal handler's thread or
/// beside a clock, for a Ctrl-C or for a batch system's warning before its time limit. It does not keep the feed
/// alive, and a feed that has ended does not mind. To be rid of a feed at once, drop it instead.
///
/// A source that is inside its `next()` at that moment is waited for, and the item that it gives, if any, is
/// answered too. In a chain of feeds stop the first one, whose source is the input: the others end behind
/// it, and nothing is lost.
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
