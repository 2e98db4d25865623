//! The door: methods on every iterator.

use crate::builder::Builder;
use crate::feed::{Deliver, Feed};
use crate::stream::outlet::Order;
use crate::template::Template;
use crate::template::codec::Encode;

/// Adds the feeding methods to every iterator.
///
/// The two three-argument methods are the common case; [`feed`](FeedExt::feed) gives the
/// [`Builder`] that they are short for.
pub trait FeedExt: Iterator + Sized {
    /// Streams the items through `n` persistent workers and yields the replies as they complete.
    ///
    /// Starts at once and returns at once. At most `buffer_size` inputs are pulled and not yet
    /// yielded.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let mut replies: Vec<_> = ["b", "a", "c"]
    ///     .into_iter()
    ///     .feed_subprocesses(Template::new("cat"), 3, 10)
    ///     .collect::<Result<_, _>>()?;
    /// replies.sort();
    /// assert_eq!(replies, ["a", "b", "c"]);
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    fn feed_subprocesses<E, D>(
        self,
        template: Template<E, D>,
        n: usize,
        buffer_size: usize,
    ) -> Feed<Self::Item, D>
    where
        Self: Send + 'static,
        E: Encode<Self::Item> + 'static,
        D: Deliver<Self::Item>,
        D::Store: 'static,
    {
        self.feed(template).workers(n).buffer(buffer_size).order(Order::Completion).start()
    }

    /// Streams the items through `n` persistent workers and yields the replies in input order.
    ///
    /// Starts at once and returns at once. Input `k + buffer_size` is not pulled before output `k`
    /// has been yielded, so this works on infinite inputs, and a paused consumer stops the input.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let squares = (1u64..)
    ///     .map(|n| n.to_string())
    ///     .feed_subprocesses_ordered(Template::shell("while read n; do echo $((n * n)); done"), 4, 1_000)
    ///     .take(5)
    ///     .collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(squares, ["1", "4", "9", "16", "25"]);
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    fn feed_subprocesses_ordered<E, D>(
        self,
        template: Template<E, D>,
        n: usize,
        buffer_size: usize,
    ) -> Feed<Self::Item, D>
    where
        Self: Send + 'static,
        E: Encode<Self::Item> + 'static,
        D: Deliver<Self::Item>,
        D::Store: 'static,
    {
        self.feed(template).workers(n).buffer(buffer_size).order(Order::Input).start()
    }

    /// A builder with every option at its default. Starts nothing.
    fn feed<E, D>(self, template: Template<E, D>) -> Builder<Self, E, D> {
        Builder::new(self, template)
    }
}

impl<I: Iterator> FeedExt for I {}
