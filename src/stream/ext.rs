//! The door for streams: the feeding methods on every stream.

use futures_core::Stream;

use super::{FeedStream, Polled};
use crate::error::Error;
use crate::feed::Feed;
use crate::feed::builder::FeedBuilder;
use crate::feed::through::{MarkedFeed, TryFeed};
use crate::marker::Marked;
use crate::template::Template;
use crate::template::codec::{Decode, Encode};
use crate::window::outlet::Order;

/// Adds the feeding methods to every [`Stream`], as [`FeedExt`](crate::FeedExt) does to every iterator.
///
/// The result is a [`FeedStream`]. No thread pulls the source: the source, and `encode`, run in the polls of that stream,
/// on the task that consumes it.
///
/// - In input order, input `k + buffer_size` is not pulled before output `k` has been yielded. In completion order, at most
///   `buffer_size` inputs are pulled and not yet yielded. While the window is full, the source is not polled.
/// - A source that has no item yet delays neither replies nor workers.
/// - If the stream is not polled, only the source stops. Inputs that were pulled are still answered.
/// - One poll pulls at most 64 items or 64 KiB. If there may be more, it wakes its task again.
///
/// The source need not be `Unpin`. It must be `Send` and `'static`, as the source of an iterator feed.
///
/// ```
/// # use std::future::poll_fn;
/// # use std::pin::Pin;
/// # use std::task::{Context, Poll};
/// use futures_core::Stream;
/// use subfeed::{StreamFeedExt, Template};
/// # mod executor { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/block_on.rs")); }
/// # use executor::block_on;
/// # struct Words(std::vec::IntoIter<&'static str>);
/// # impl Stream for Words {
/// #     type Item = &'static str;
/// #     fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<&'static str>> { Poll::Ready(self.0.next()) }
/// # }
/// # block_on(async {
/// # let words = Words(vec!["one", "two"].into_iter());
/// // `words` is any stream: of a channel, of a socket, of another feed.
/// let mut replies = words.feed_subprocesses_ordered(Template::new("cat"), 2, 100);
/// let mut next = async || poll_fn(|context| Pin::new(&mut replies).poll_next(context)).await;
/// assert_eq!(next().await.unwrap()?, "one");
/// assert_eq!(next().await.unwrap()?, "two");
/// assert!(next().await.is_none());
/// # Ok::<_, subfeed::Error>(())
/// # }).unwrap();
/// ```
pub trait StreamFeedExt: Stream + Sized {
    /// Streams the items through `n` persistent workers and yields the replies as they complete.
    ///
    /// The workers start at once. At most `buffer_size` inputs are pulled and not yet yielded.
    fn feed_subprocesses<E, D>(
        self,
        template: Template<E, D>,
        n: usize,
        buffer_size: usize,
    ) -> FeedStream<Feed<D>>
    where
        Self: Send + 'static,
        E: Encode<Self::Item> + 'static,
        D: Decode,
    {
        self.feed(template).workers(n).buffer(buffer_size).order(Order::Completion).start()
    }

    /// Streams the items through `n` persistent workers and yields the replies in input order.
    ///
    /// The workers start at once. Input `k + buffer_size` is not pulled before output `k` has been yielded.
    fn feed_subprocesses_ordered<E, D>(
        self,
        template: Template<E, D>,
        n: usize,
        buffer_size: usize,
    ) -> FeedStream<Feed<D>>
    where
        Self: Send + 'static,
        E: Encode<Self::Item> + 'static,
        D: Decode,
    {
        self.feed(template).workers(n).buffer(buffer_size).order(Order::Input).start()
    }

    /// A builder for a feed, with every option at its default. Starts nothing. Its [`start`](crate::FeedBuilder::start)
    /// returns a [`FeedStream`].
    ///
    /// [`FeedBuilder::drain`](crate::FeedBuilder::drain) and [`FeedBuilder::blocks`](crate::FeedBuilder::blocks) block, so
    /// they are for iterators only.
    fn feed<E, D>(self, template: Template<E, D>) -> FeedBuilder<Polled<Self>, E, D> {
        FeedBuilder::new(Polled(self), template)
    }

    /// A builder for a stream of `Result`s, such as a stream of lines: each `Ok` is fed, and each `Err` is yielded at its
    /// position, unchanged. Starts nothing. See [`FeedExt::try_feed`](crate::FeedExt::try_feed).
    fn try_feed<T, X, E, D>(
        self,
        template: Template<E, D>,
    ) -> FeedBuilder<Polled<Self>, E, D, TryFeed<D, X>>
    where
        Self: Stream<Item = Result<T, X>>,
        X: From<Error>,
    {
        FeedBuilder::new(Polled(self), template)
    }

    /// A builder for a stream that contains markers: each item is fed, and each marker is yielded at its position. Starts
    /// nothing. See [`FeedExt::feed_marked`](crate::FeedExt::feed_marked).
    fn feed_marked<T, M, E, D>(
        self,
        template: Template<E, D>,
    ) -> FeedBuilder<Polled<Self>, E, D, MarkedFeed<D, M>>
    where
        Self: Stream<Item = Marked<T, M>>,
    {
        FeedBuilder::new(Polled(self), template)
    }
}

impl<S: Stream> StreamFeedExt for S {}
