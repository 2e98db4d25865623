//! Feeding a source of which not everything is work: the rest passes by the workers, in its place.

use std::sync::Arc;

use crate::error::{BoxError, Error};
use crate::feed::answers::{Answer, Answers, lost};
use crate::feed::builder::Shape;
use crate::feed::running;
use crate::marker::{Marked, Route};
use crate::record::PacketId;
use crate::template::codec::sealed::Sealed;
use crate::template::codec::{Decode, Encode, Request};
use crate::window::inputs::Passing;
use crate::window::packing::Store;

/// A running feed over a source of `Result<T, X>`: it yields `Result<D::Output, X>`, where `X: From<Error>`.
///
/// Made by [`FeedExt::try_feed`](crate::FeedExt::try_feed). An `Err` of the source is yielded at its position, unchanged;
/// an error of a worker is converted into `X`. Everything else is as in [`Feed`](crate::Feed).
#[must_use = "a feed that is not iterated stops as soon as it is dropped"]
pub struct TryFeed<D, X> {
    answers: Answers<D>,
    store: Aside<X>,
}

impl<D: Decode, X: From<Error>> Iterator for TryFeed<D, X> {
    type Item = Result<D::Output, X>;

    fn next(&mut self) -> Option<Self::Item> {
        let (packet, answer) = self.answers.next()?;
        Some(match answer {
            Answer::Given(answer) => answer.map_err(X::from),
            Answer::Passed => {
                Err(self.store.0.take(packet).unwrap_or_else(|| X::from(lost(packet))))
            }
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.answers.size_hint()
    }
}

running!([D, X] TryFeed<D, X>, "TryFeed", X, {X: From<Error>}, |store, packet| store.0.take(packet));

/// A running feed over a source that contains markers: it yields `Marked<Result<D::Output, Error>, M>`.
///
/// Made by [`FeedExt::feed_marked`](crate::FeedExt::feed_marked). A marker goes to no worker and is yielded at its
/// position. Everything else is as in [`Feed`](crate::Feed).
#[must_use = "a feed that is not iterated stops as soon as it is dropped"]
pub struct MarkedFeed<D, M> {
    answers: Answers<D>,
    store: Aside<M>,
}

impl<D: Decode, M> Iterator for MarkedFeed<D, M> {
    type Item = Marked<Result<D::Output, Error>, M>;

    fn next(&mut self) -> Option<Self::Item> {
        let (packet, answer) = self.answers.next()?;
        Some(match answer {
            Answer::Given(answer) => Marked::Item(answer),
            Answer::Passed => match self.store.0.take(packet) {
                Some(marker) => Marked::Marker(marker),
                None => Marked::Item(Err(lost(packet))),
            },
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.answers.size_hint()
    }
}

running!([D, M] MarkedFeed<D, M>, "MarkedFeed", Error, {}, |_store, _packet| None);

/// An `encode` that concerns only what is work.
#[derive(Clone, Debug)]
pub(crate) struct Through<E>(E);

impl<E> Sealed for Through<E> {}

impl<R: Route, E: Encode<R::Work>> Encode<R> for Through<E> {
    const QUICK: bool = E::QUICK;

    fn encode(&mut self, item: &R, request: &mut Request<'_>) -> Result<(), BoxError> {
        match item.work() {
            Some(work) => self.0.encode(work, request),
            // The intake has asked before.
            None => Err(BoxError::from("what passes is not encoded")),
        }
    }
}

/// What passes, on its way from the intake to the outlet.
#[derive(Debug)]
pub(crate) struct Aside<P>(Arc<Passing<P>>);

impl<P> Clone for Aside<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: Route> Store<R> for Aside<R::Passed> {
    fn passes(&self, item: &R) -> bool {
        item.work().is_none()
    }

    fn put(&self, item: R) {
        match item.split() {
            Marked::Item(work) => {
                self.0.skip();
                drop(work);
            }
            Marked::Marker(passed) => self.0.put(passed),
        }
    }
}

impl<P> Aside<P> {
    fn new(first: PacketId) -> Self {
        Self(Arc::new(Passing::new(first)))
    }
}

impl<T, X, E, D> Shape<Result<T, X>, E, D> for TryFeed<D, X>
where
    X: From<Error> + Send,
    E: Encode<T>,
    D: Decode,
{
    type Encode = Through<E>;
    type Store = Aside<X>;
    fn encode(encode: E) -> Through<E> {
        Through(encode)
    }
    fn store(first: PacketId) -> Aside<X> {
        Aside::new(first)
    }
    fn of(answers: Answers<D>, store: Aside<X>) -> Self {
        Self { answers, store }
    }
}

impl<T, M, E, D> Shape<Marked<T, M>, E, D> for MarkedFeed<D, M>
where
    M: Send,
    E: Encode<T>,
    D: Decode,
{
    type Encode = Through<E>;
    type Store = Aside<M>;
    fn encode(encode: E) -> Through<E> {
        Through(encode)
    }
    fn store(first: PacketId) -> Aside<M> {
        Aside::new(first)
    }
    fn of(answers: Answers<D>, store: Aside<M>) -> Self {
        Self { answers, store }
    }
}
