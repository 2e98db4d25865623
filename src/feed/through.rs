//! Feeding a source of which not everything is work: the rest passes by the workers, in its place.

use std::sync::Arc;

use crate::error::{BoxError, Error, ErrorKind};
use crate::feed::{Answer, decoded, sealed};
use crate::marker::{Marked, Route};
use crate::record::PacketId;
use crate::template::codec::sealed::Sealed;
use crate::template::codec::{Decode, Encode, Request};
use crate::window::inputs::Passing;
use crate::window::outlet::Given;
use crate::window::packing::Store;

/// An `encode` or a `decode` that concerns only what is work; see
/// [`FeedExt::try_feed`](crate::FeedExt::try_feed) and
/// [`FeedExt::feed_marked`](crate::FeedExt::feed_marked).
#[derive(Clone, Debug)]
pub struct Through<C>(pub(crate) C);

/// How what was split comes together again. Sealed.
pub trait Join: Route {
    /// What a feed yields.
    type Joined<O>;
    /// A worker has answered, or has not.
    fn answered<O>(answer: Result<O, Error>) -> Self::Joined<O>;
    /// It was no work.
    fn passed<O>(passed: Self::Passed) -> Self::Joined<O>;
}

impl<T, X: From<Error>> Join for Result<T, X> {
    type Joined<O> = Result<O, X>;
    fn answered<O>(answer: Result<O, Error>) -> Result<O, X> {
        answer.map_err(X::from)
    }
    fn passed<O>(error: X) -> Result<O, X> {
        Err(error)
    }
}

impl<T, M> Join for Marked<T, M> {
    type Joined<O> = Marked<Result<O, Error>, M>;
    fn answered<O>(answer: Result<O, Error>) -> Self::Joined<O> {
        Marked::Item(answer)
    }
    fn passed<O>(marker: M) -> Self::Joined<O> {
        Marked::Marker(marker)
    }
}

impl<C> Sealed for Through<C> {}

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
#[doc(hidden)]
#[derive(Debug)]
pub struct Aside<P>(Arc<Passing<P>>);

impl<P> Clone for Aside<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: Join> Store<R> for Aside<R::Passed> {
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

impl<R: Join, D: Decode> sealed::Deliver<R> for Through<D>
where
    R::Passed: Send,
{
    type Item = R::Joined<D::Output>;
    type Store = Aside<R::Passed>;
    const FALLIBLE: bool = D::FALLIBLE;

    fn store(first: u64) -> Aside<R::Passed> {
        Aside(Arc::new(Passing::new(PacketId(first))))
    }

    fn deliver(
        &mut self,
        store: &Aside<R::Passed>,
        packet: u64,
        given: Given<Answer<'_>>,
    ) -> Self::Item {
        match given {
            Given::Passed => match store.0.take(PacketId(packet)) {
                Some(passed) => R::passed(passed),
                None => R::answered(Err(lost(packet))),
            },
            given => R::answered(decoded(&mut self.0, given)),
        }
    }
}

/// Conservation even where a bug of ours would have broken it.
fn lost(packet: u64) -> Error {
    Error::new(ErrorKind::Failed, "what passes was not found").at(packet)
}
