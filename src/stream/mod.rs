//! Feeds in async programs: a feed as a stream, and a stream as the source of a feed.
//!
//! No runtime is named. A feed's threads go on without being polled; the outlet's heart never blocks, and wakes the task that has
//! polled it last. What a drop would wait for, nobody does, or the reaper where [`FeedStream::close`] asks it to.

pub(crate) mod ext;
mod polled;

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use futures_core::stream::FusedStream;

pub use self::polled::Polled;
use self::polled::{Input, let_go};
use crate::policy::Stopper;
use crate::record::Batch;
use crate::stats::{Monitor, Snapshot};
use crate::window::outlet::Outlet;
use crate::window::waiter::{Waiter, Word};

pub(crate) mod sealed {
    use std::task::{Poll, Waker};

    use super::Told;
    use crate::policy::Stopper;
    use crate::stats::Monitor;

    /// A feed that can be polled: an iterator that can be asked whether its `next` would wait.
    #[allow(unreachable_pub, reason = "a sealed trait")]
    pub trait PollFeed: Iterator {
        /// Ready when `next` has something to say, be it the end.
        fn poll_ready(&mut self, waker: &Waker) -> Poll<()>;
        /// It has yielded its end.
        fn is_done(&self) -> bool;
        /// Ends it without waiting for anything. Its drop does nothing any more.
        fn detach(&mut self);
        /// Ends it; ready when there are no processes any more.
        fn poll_close(&mut self, waker: &Waker) -> Poll<()>;
        /// Has its threads waited for, once it is closed.
        fn join(&mut self, told: Told);
    }

    /// One whose workers are processes.
    #[allow(unreachable_pub, reason = "a sealed trait")]
    pub trait Watched: PollFeed {
        /// What `finish` fails with.
        type Failure;
        /// What became of the next packet, without a look at its reply: its failure, if it is one.
        fn take_outcome(&mut self) -> Option<Option<Self::Failure>>;
        /// What belongs to no packet, at the end: the first of it.
        fn take_remark(&mut self) -> Option<Self::Failure>;
        fn monitor(&self) -> Monitor;
        fn stopper(&self) -> Stopper;
    }
}
use sealed::{PollFeed, Watched};

/// What [`PollFeed`] is for a feed with this outlet.
macro_rules! polls_outlet {
    (|$feed:ident| $outlet:expr) => {
        fn poll_ready(&mut self, waker: &std::task::Waker) -> std::task::Poll<()> {
            let $feed = self;
            $outlet.poll_ready(|| $crate::window::waiter::Waiter::Task(waker.clone()))
        }

        fn is_done(&self) -> bool {
            let $feed = self;
            $outlet.is_done()
        }

        fn detach(&mut self) {
            let $feed = self;
            $outlet.detach();
        }

        fn poll_close(&mut self, waker: &std::task::Waker) -> std::task::Poll<()> {
            let $feed = self;
            $outlet.poll_close(&$crate::window::waiter::Waiter::Task(waker.clone()))
        }

        fn join(&mut self, told: $crate::stream::Told) {
            let $feed = self;
            $crate::stream::join(&mut $outlet, told);
        }
    };
}
pub(crate) use polls_outlet;

/// A feed as a [`Stream`] of its results, for async programs. It is `Unpin`, fused, and `Send` if its parts are.
///
/// Made by [`Feed::into_stream`](crate::Feed::into_stream) and the same method of other feeds, and by
/// [`StreamFeedExt`](crate::StreamFeedExt) if the source is a stream. The documentation of the feed says what it yields, in
/// which order, and how far the input is pulled ahead.
///
/// It needs no particular runtime and starts none: use any executor, or move it from one to another. The workers keep
/// working, up to the window, whether it is polled or not.
///
/// ```
/// # use std::future::poll_fn;
/// # use std::pin::Pin;
/// use futures_core::Stream;
/// use subfeed::{FeedExt, Template};
/// # mod executor { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/block_on.rs")); }
/// # use executor::block_on;
/// # block_on(async {
/// let feed = ["a", "b"].into_iter().feed_subprocesses_ordered(Template::new("cat"), 2, 10);
/// let mut stream = feed.into_stream();
/// // `while let Some(reply) = stream.next().await`, with the `StreamExt` of your choice.
/// let mut replies = Vec::new();
/// while let Some(reply) = poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await {
///     replies.push(reply?);
/// }
/// assert_eq!(replies, ["a", "b"]);
/// stream.close().await;
/// # Ok::<_, subfeed::Error>(())
/// # }).unwrap();
/// ```
///
/// # What a poll does
/// It takes the replies that have come, and runs `decode` on them. It never blocks; without `decode` it takes a few
/// microseconds. If the source is a stream, a poll also pulls the source and runs `encode`.
/// If so many replies have gathered that putting them in order would take long, a poll does a part of that, wakes its task at
/// once, and returns `Pending`.
///
/// # Dropping
/// A drop never blocks. The feed stops pulling, and its children are ended and reaped within 500 ms plus the kill sequence,
/// on background threads. A test that looks for leaked children, threads or descriptors must wait that long after a drop,
/// or use [`close`](FeedStream::close).
///
/// A future that waits for the next item may be dropped (in a `select!`). No item is lost: the next poll returns it.
///
/// # Panics
/// If the source, `encode`, `check`, `accept_status`, `on_stderr` or a custom framing panics, a poll panics with the same
/// payload, as the feed's `next` does. If a waker panics, that panic is ignored.
#[must_use = "a stream that is not polled stops as soon as it is dropped"]
pub struct FeedStream<F: PollFeed> {
    feed: F,
    /// The source, if it is a stream and has not ended.
    input: Option<Box<dyn Input>>,
}

impl<F: PollFeed> FeedStream<F> {
    pub(crate) fn new(feed: F) -> Self {
        Self { feed, input: None }
    }

    pub(crate) fn feed_mut(&mut self) -> &mut F {
        &mut self.feed
    }

    fn of_stream(feed: F, input: Option<Box<dyn Input>>) -> Self {
        Self { feed, input }
    }

    /// Ready when the feed's `next` has something to say.
    fn poll_ready(&mut self, waker: &Waker) -> Poll<()> {
        let Self { feed, input } = self;
        let Some(pulled) = input else { return feed.poll_ready(waker) };
        let ready = pulled.poll(waker, &mut || feed.poll_ready(waker));
        if pulled.is_ended() {
            let_go(input.take());
        }
        ready
    }

    /// Ends the feed, as a drop does, and waits until nothing is left of it: children are reaped, threads are joined.
    ///
    /// It takes at most 500 ms plus the kill sequence, whatever the children do, and usually a few milliseconds. It does not
    /// wait for a thread that is inside code of yours (the `next()` of a source that is an iterator, `encode`, a closure of
    /// a map in threads), which cannot be interrupted; such a thread ends when that code returns. It also does not wait for
    /// what the source owns, such as another `FeedStream`, which is dropped.
    ///
    /// To let the feed process its whole input instead, poll it to its end first, or use
    /// [`finish`](FeedStream::finish).
    ///
    /// Dropping this future drops the stream.
    pub async fn close(mut self) {
        let_go(self.input.take());
        poll_fn(|context| self.feed.poll_close(context.waker())).await;
        let joined = Arc::new(Joined::default());
        self.feed.join(Told(Arc::clone(&joined)));
        poll_fn(|context| joined.poll(context)).await;
    }
}

impl<F: Watched> FeedStream<F> {
    /// Discards the remaining items, waits until every child has exited, and returns the counters of the run.
    ///
    /// With an endless source this never ends. [Stop](FeedStream::stopper) it first, or [`close`](FeedStream::close) the
    /// feed.
    ///
    /// # Errors
    /// As the feed's own `finish`: the first error among the remaining items, or else an error that belongs to no packet.
    pub async fn finish(mut self) -> Result<Snapshot, F::Failure> {
        let mut first = None;
        loop {
            poll_fn(|context| self.poll_ready(context.waker())).await;
            match self.feed.take_outcome() {
                Some(failure) => first = first.or(failure),
                None => break,
            }
        }
        let first = first.or_else(|| self.feed.take_remark());
        let monitor = self.feed.monitor();
        self.close().await;
        match first {
            Some(failure) => Err(failure),
            None => Ok(monitor.snapshot()),
        }
    }

    /// A handle that reports, from any thread and at any time, how the feed is doing.
    pub fn monitor(&self) -> Monitor {
        self.feed.monitor()
    }

    /// A handle that ends the feed softly: no more input is pulled, and every input that was pulled is answered.
    ///
    /// If the source is a stream that has no item now, the feed notices the stop when that stream wakes its task.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.feed.stopper()
    }
}

/// Nothing in it is pinned: what has to be is in a box.
impl<F: PollFeed> Unpin for FeedStream<F> {}

impl<F: PollFeed> Stream for FeedStream<F> {
    type Item = F::Item;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<F::Item>> {
        let this = self.get_mut();
        this.poll_ready(context.waker()).map(|()| this.feed.next())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.feed.size_hint()
    }
}

impl<F: PollFeed> FusedStream for FeedStream<F> {
    fn is_terminated(&self) -> bool {
        self.feed.is_done()
    }
}

impl<F: PollFeed> Drop for FeedStream<F> {
    fn drop(&mut self) {
        self.feed.detach();
        let_go(self.input.take());
    }
}

impl<F: PollFeed> fmt::Debug for FeedStream<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedStream").field("ended", &self.feed.is_done()).finish_non_exhaustive()
    }
}

/// Whether the reaper has joined the threads of a feed.
#[derive(Debug, Default)]
struct Joined {
    done: AtomicBool,
    word: Word,
}

impl Joined {
    /// Leaves word, then looks; the one that tells stores first and then looks for word.
    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        self.word.leave(Waiter::Task(context.waker().clone()));
        if self.done.load(SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Says so when it goes.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "a sealed trait names it")]
pub struct Told(Arc<Joined>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.done.store(true, SeqCst);
        self.0.word.wake();
    }
}

/// Has the threads behind an outlet waited for.
pub(crate) fn join<B: Batch + 'static, R: Send + 'static>(outlet: &mut Outlet<B, R>, told: Told) {
    let (behind, is_parked) = outlet.take_behind();
    behind.join_elsewhere(Arc::clone(outlet.gate()), is_parked, told);
}
