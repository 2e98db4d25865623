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
/// What comes out is a [`FeedStream`]. There is no thread that pulls: the source, and `encode`, run in the polls of that
/// stream, on the task that consumes it.
///
/// - Input `k + buffer_size` is not pulled before output `k` has been yielded, in completion order no more than
///   `buffer_size` inputs are pulled and not yet yielded, and while the window is full the source is not polled at all.
/// - A source that has nothing yet holds up no reply, and no worker.
/// - When nobody polls, only the source stops; what has been pulled is dealt with.
/// - One poll pulls 64 items at most, or 64 KiB, and has itself woken again if there may be more.
///
/// The source need not be `Unpin`. It is `Send` and owns what it needs, as the source of an iterator does.
///
/// ```
/// # use std::future::poll_fn;
/// # use std::pin::Pin;
/// # use std::task::{Context, Poll};
/// use futures_core::Stream;
/// use subfeed::{StreamFeedExt, Template};
/// # fn block_on<F: Future>(future: F) -> F::Output {
/// #     struct Unpark(std::thread::Thread);
/// #     impl std::task::Wake for Unpark { fn wake(self: std::sync::Arc<Self>) { self.0.unpark() } }
/// #     let waker = std::task::Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
/// #     let mut future = std::pin::pin!(future);
/// #     loop {
/// #         match future.as_mut().poll(&mut Context::from_waker(&waker)) {
/// #             Poll::Ready(output) => return output,
/// #             Poll::Pending => std::thread::park(),
/// #         }
/// #     }
/// # }
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

    /// A builder with every option at its default. Starts nothing until its
    /// [`start`](crate::FeedBuilder::start), which gives a [`FeedStream`].
    ///
    /// What collects on the spot, [`FeedBuilder::drain`](crate::FeedBuilder::drain) and
    /// [`FeedBuilder::batches`](crate::FeedBuilder::batches), is for iterators.
    fn feed<E, D>(self, template: Template<E, D>) -> FeedBuilder<Polled<Self>, E, D> {
        FeedBuilder::new(Polled(self), template)
    }

    /// The builder for a stream of `Result`s, as most streams of bytes and lines are: what is `Ok` is fed, an `Err` comes
    /// out in its place, as it is. See [`FeedExt::try_feed`](crate::FeedExt::try_feed).
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

    /// The builder for a stream with markers in it: an item is fed, a marker comes out in its place. See
    /// [`FeedExt::feed_marked`](crate::FeedExt::feed_marked).
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
