//! The feed of a pool: its items are calls, and its consumer hands each answer to its call.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::call::Caller;
use crate::error::{BoxError, Error};
use crate::feed::builder::Shape;
use crate::feed::{Answers, decoded};
use crate::policy::Stopper;
use crate::record::PacketId;
use crate::stats::Monitor;
use crate::stream::sealed::{PollFeed, Watched};
use crate::stream::{FeedStream, polls_outlet};
use crate::template::codec::sealed::Sealed;
use crate::template::codec::{Decode, Encode, Request};
use crate::window::inputs::Inputs;
use crate::window::packing::Store;
use crate::window::sync::{Mutex, lock};
use crate::window::unwind;

/// An item, and who asks.
pub(super) struct Ask<T, O> {
    item: T,
    pub(super) caller: Caller<O>,
    /// What `encode` has done, which has only a look at the item.
    panicked: Mutex<Option<unwind::Payload>>,
}

impl<T, O> Ask<T, O> {
    pub(super) fn new(item: T, caller: Caller<O>) -> Self {
        Self { item, caller, panicked: Mutex::new(None) }
    }
}

/// An `encode` of which a panic is told to the call alone.
pub(super) struct Asks<E>(pub(super) E);

impl<E> Sealed for Asks<E> {}

impl<T, O, E: Encode<T>> Encode<Ask<T, O>> for Asks<E> {
    const QUICK: bool = E::QUICK;

    fn encode(&mut self, ask: &Ask<T, O>, request: &mut Request<'_>) -> Result<(), BoxError> {
        match unwind::catch(|| self.0.encode(&ask.item, request)) {
            Ok(encoded) => encoded,
            Err(payload) => {
                *lock(&ask.panicked) = Some(payload);
                Err(BoxError::from("encode panicked over the item"))
            }
        }
    }
}

/// Those who have asked, while a worker has their item.
pub(super) struct Askers<O>(Arc<Inputs<Caller<O>>>);

impl<O> Clone for Askers<O> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T, O> Store<Ask<T, O>> for Askers<O> {
    fn passes(&self, _ask: &Ask<T, O>) -> bool {
        false
    }

    fn put(&self, ask: Ask<T, O>) {
        let Ask { item, mut caller, panicked } = ask;
        if let Some(payload) = lock(&panicked).take() {
            caller.answer(Err(payload));
        }
        self.0.put(caller);
        // What is the user's may panic when it goes. The feed of all the others goes on.
        let _ = unwind::catch(move || drop(item));
    }
}

/// A running feed of calls. It yields whether one was answered, and not a health request.
pub(crate) struct Answering<T, D: Decode> {
    answers: Answers<D>,
    store: Askers<D::Output>,
    /// A fatal error that concerns no call.
    untold: Option<Error>,
    items: std::marker::PhantomData<fn(T)>,
}

impl<T, D: Decode> Iterator for Answering<T, D> {
    type Item = bool;

    fn next(&mut self) -> Option<bool> {
        let Answers { outlet, decode, names, .. } = &mut self.answers;
        let (packet, given) = outlet.next()?;
        let answer = unwind::catch(|| decoded(decode, names, packet, given).of_work(packet));
        let Some(mut caller) = self.store.0.take(packet) else {
            self.untold = self.untold.take().or(answer.ok().and_then(Result::err));
            return Some(false);
        };
        let is_call = caller.is_waited_for();
        caller.answer(answer);
        Some(is_call)
    }
}

impl<T: Send, D: Decode> PollFeed for Answering<T, D> {
    polls_outlet!(|feed| feed.answers.outlet);
}

impl<T: Send, D: Decode> Watched for Answering<T, D> {
    type Failure = Error;

    fn take_outcome(&mut self) -> Option<Option<Error>> {
        self.next().map(|_| None)
    }

    fn take_remark(&mut self) -> Option<Error> {
        self.answers.outlet.take_remarks().into_iter().next()
    }

    fn monitor(&self) -> Monitor {
        self.answers.monitor()
    }

    fn stopper(&self) -> Stopper {
        self.answers.stopper.clone()
    }
}

impl<T, D: Decode> FeedStream<Answering<T, D>>
where
    T: Send,
{
    /// What nobody was told: a fatal error, or what belongs to no packet.
    pub(super) fn take_untold(&mut self) -> Option<Error> {
        let feed = self.feed_mut();
        feed.untold.take().or_else(|| feed.take_remark())
    }

    /// Ends it, and is ready when the children are reaped.
    pub(super) fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.feed_mut().poll_close(context.waker())
    }

    /// Waits for its threads, once it is closed.
    pub(super) fn wait_for_threads(&mut self) {
        let outlet = &mut self.feed_mut().answers.outlet;
        let (mut behind, is_parked) = outlet.take_behind();
        behind.join(outlet.gate(), is_parked);
    }
}

impl<T, O, E, D> Shape<Ask<T, O>, Asks<E>, D> for Answering<T, D>
where
    T: Send,
    O: Send,
    E: Encode<T>,
    D: Decode<Output = O>,
{
    type Encode = Asks<E>;
    type Store = Askers<O>;
    fn encode(encode: Asks<E>) -> Asks<E> {
        encode
    }
    fn store(first: PacketId) -> Askers<O> {
        Askers(Arc::new(Inputs::new(first)))
    }
    fn of(answers: Answers<D>, store: Askers<O>) -> Self {
        Self { answers, store, untold: None, items: std::marker::PhantomData }
    }
}
