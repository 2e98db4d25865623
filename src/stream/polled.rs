//! The source of a feed that is a stream: it is pulled in the feed's own polls.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

use super::FeedStream;
use super::sealed::PollFeed;
use crate::error::Error;
use crate::feed::builder::{FeedBuilder, Pulling, Shape};
use crate::feed::through::{MarkedFeed, TryFeed};
use crate::feed::with_input::FeedWithInput;
use crate::feed::{Answers, Feed};
use crate::marker::Marked;
use crate::policy::Stopper;
use crate::record::Requests;
use crate::template::codec::{Decode, Encode};
use crate::window::packing::Pack;
use crate::window::polled::PolledIntake;
use crate::window::unwind;

/// The source of a builder if it is a stream and not an iterator; see [`StreamFeedExt`](crate::StreamFeedExt).
#[derive(Clone, Copy, Debug)]
pub struct Polled<S>(pub(crate) S);

/// Who pulls a stream, whatever it is.
pub(super) trait Input: Send {
    /// Pulls what may be pulled, then takes what has come.
    fn poll(&mut self, waker: &Waker, take: &mut dyn FnMut() -> Poll<()>) -> Poll<()>;
    /// The source is not asked any more.
    fn is_ended(&self) -> bool;
}

struct Pulled<S, P> {
    source: Pin<Box<S>>,
    stopper: Stopper,
    intake: PolledIntake<P>,
}

impl<S, P> Input for Pulled<S, P>
where
    S: Stream + Send,
    P: Pack<S::Item, Batch = Requests> + Send,
{
    fn poll(&mut self, waker: &Waker, take: &mut dyn FnMut() -> Poll<()>) -> Poll<()> {
        let Self { source, stopper, intake } = self;
        let next = || {
            if stopper.is_stopped() {
                return Poll::Ready(None);
            }
            source.as_mut().poll_next(&mut Context::from_waker(waker))
        };
        intake.poll(waker, next, take)
    }

    fn is_ended(&self) -> bool {
        self.intake.is_ended()
    }
}

/// Lets go of a source. As everywhere, a panic in its `Drop` has nowhere to go.
pub(super) fn let_go(input: Option<Box<dyn Input>>) {
    let _ = unwind::catch(move || drop(input));
}

impl<S: Stream, E, D, F> FeedBuilder<Polled<S>, E, D, F> {
    pub(crate) fn start_polled(self) -> FeedStream<F>
    where
        S: Send + 'static,
        D: Decode,
        F: Shape<S::Item, E, D> + PollFeed,
        F::Encode: 'static,
        F::Store: 'static,
    {
        let hint = self.source.0.size_hint();
        let pulling = Pulling { hint, waits: false, keep_requests: D::FALLIBLE };
        let mut input: Option<Box<dyn Input>> = None;
        let (answers, store): (Answers<D>, _) =
            self.launch_as(pulling, |intake, source, writer| {
                let (Polled(source), stopper) = source.into_parts();
                let (source, intake) = (Box::pin(source), PolledIntake::new(intake, writer));
                input = Some(Box::new(Pulled { source, stopper, intake }));
                Ok(None)
            });
        FeedStream::of_stream(F::of(answers.keeping_to_its_hint(), store), input)
    }
}

impl<S: Stream, E, D> FeedBuilder<Polled<S>, E, D> {
    /// Yields each input beside its reply; see [`FeedWithInput`].
    pub fn keep_input(self) -> FeedBuilder<Polled<S>, E, D, FeedWithInput<S::Item, D>> {
        self.giving()
    }

    /// Starts now, and returns at once. The source is pulled in the polls of the stream that this returns.
    ///
    /// Returns no error. If the configuration is wrong, the stream's only item is a fatal `Err`.
    ///
    /// It takes the time to start a thread, about a tenth of a millisecond. That thread starts the children.
    ///
    /// # Panics
    /// If the source's `size_hint`, which is asked here, panics. Nothing else panics here.
    pub fn start(self) -> FeedStream<Feed<D>>
    where
        S: Send + 'static,
        E: Encode<S::Item> + 'static,
        D: Decode,
    {
        self.start_polled()
    }
}

impl<S, T, E, D> FeedBuilder<Polled<S>, E, D, FeedWithInput<T, D>>
where
    S: Stream<Item = T> + Send + 'static,
    T: Send + 'static,
    E: Encode<T> + 'static,
    D: Decode,
{
    /// Starts now, as for a stream of replies alone.
    pub fn start(self) -> FeedStream<FeedWithInput<T, D>> {
        self.start_polled()
    }
}

impl<S, T, X, E, D> FeedBuilder<Polled<S>, E, D, TryFeed<D, X>>
where
    S: Stream<Item = Result<T, X>> + Send + 'static,
    X: From<Error> + Send + 'static,
    E: Encode<T> + 'static,
    D: Decode,
{
    /// Starts now, as for a stream of replies alone.
    pub fn start(self) -> FeedStream<TryFeed<D, X>> {
        self.start_polled()
    }
}

impl<S, T, M, E, D> FeedBuilder<Polled<S>, E, D, MarkedFeed<D, M>>
where
    S: Stream<Item = Marked<T, M>> + Send + 'static,
    M: Send + 'static,
    E: Encode<T> + 'static,
    D: Decode,
{
    /// Starts now, as for a stream of replies alone.
    pub fn start(self) -> FeedStream<MarkedFeed<D, M>> {
        self.start_polled()
    }
}
