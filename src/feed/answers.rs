//! What the iterators of a feed have in common: the outlet, and what makes values of replies.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::error::{BoxError, Error, ErrorKind, excerpt};
use crate::feed::stopper::Stopper;
use crate::record::{self, PacketId};
use crate::stats::{Monitor, Snapshot, Stats};
use crate::template::codec::{Decode, Reply};
use crate::window::outlet::{Given, Outlet};
use crate::window::packet::Replies;

/// The consumer's end of a running feed, before anything is said about its items.
pub(crate) struct Answers<D> {
    pub(crate) outlet: Outlet,
    pub(crate) decode: D,
    pub(crate) stats: Arc<Stats>,
    /// The names of the side outputs that are read.
    pub(crate) names: Arc<[String]>,
    /// The source's `size_hint` when the feed was started.
    pub(crate) hint: (usize, Option<usize>),
    pub(crate) stopper: Stopper,
}

/// What came for one packet.
pub(crate) enum Answer<O> {
    /// From a worker, or instead of it.
    Given(Result<O, Error>),
    /// The item was no work, and is elsewhere.
    Passed,
}

impl<O> Answer<O> {
    /// The answer, where every item is work.
    #[inline]
    pub(crate) fn of_work(self, packet: PacketId) -> Result<O, Error> {
        match self {
            Self::Given(answer) => answer,
            Self::Passed => Err(lost(packet)),
        }
    }
}

impl<D: Decode> Answers<D> {
    #[inline]
    pub(super) fn next(&mut self) -> Option<(PacketId, Answer<D::Output>)> {
        let Self { outlet, decode, names, .. } = self;
        let (packet, given) = outlet.next()?;
        Some((packet, decoded(decode, names, packet, given)))
    }
}

/// The reply that is next among those given, as a value.
#[inline]
pub(crate) fn decoded<D: Decode>(
    decode: &mut D,
    names: &[String],
    packet: PacketId,
    given: Given<&mut Replies>,
) -> Answer<D::Output> {
    match given {
        Given::Reply(replies) => {
            replies.skip();
            let replies = &*replies;
            let reply = replies.last(packet, names);
            Answer::Given(decode.decode(reply).map_err(|error| refused(reply, replies, error)))
        }
        Given::Failed(error) => Answer::Given(Err(error)),
        Given::Passed => Answer::Passed,
    }
}

impl<D> Answers<D> {
    /// Never more items than the upper bound of `size_hint`.
    pub(crate) fn keeping_to_its_hint(mut self) -> Self {
        self.outlet.at_most(self.hint.1);
        self
    }

    pub(crate) fn size_hint(&self) -> (usize, Option<usize>) {
        remaining(self.hint, &self.outlet, &self.stopper)
    }

    pub(crate) fn is_ready_before(&mut self, deadline: Instant) -> bool {
        self.outlet.is_ready_before(deadline)
    }

    pub(crate) fn monitor(&self) -> Monitor {
        Monitor(Arc::clone(&self.stats))
    }

    /// Takes what is left. `passed` says whether an item that was no work is a failure too.
    ///
    /// The first failure among it, or else the first remark that belongs to no packet.
    pub(super) fn finish<X: From<Error>>(
        mut self,
        mut passed: impl FnMut(PacketId) -> Option<X>,
    ) -> Result<Snapshot, X> {
        take_rest(&mut self.outlet, &mut passed)?;
        Ok(self.monitor().snapshot())
    }

    /// The `Debug` of an iterator of this name.
    pub(super) fn fmt(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name).field("monitor", &self.monitor()).finish_non_exhaustive()
    }
}

/// Takes what is left; the first failure among it, or else the first thing that belongs to no packet.
pub(super) fn take_rest<X: From<Error>>(
    outlet: &mut Outlet,
    mut passed: impl FnMut(PacketId) -> Option<X>,
) -> Result<(), X> {
    let mut first = None;
    while let Some((packet, given)) = outlet.next() {
        let failure = match given {
            Given::Failed(error) => Some(X::from(error)),
            Given::Passed => passed(packet),
            Given::Reply(_) => None,
        };
        first = first.or(failure);
    }
    match first.or_else(|| outlet.take_remarks().into_iter().next().map(X::from)) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The source's hint less what was yielded. Only a fatal end and a stop yield fewer; from then on no least number
/// is promised.
pub(crate) fn remaining<B: record::Batch, R>(
    hint: (usize, Option<usize>),
    outlet: &Outlet<B, R>,
    stopper: &Stopper,
) -> (usize, Option<usize>) {
    if outlet.is_done() {
        return (0, Some(0));
    }
    let yielded = usize::try_from(outlet.total_yielded()).unwrap_or(usize::MAX);
    let is_cut_short = outlet.is_cut_short() || stopper.is_stopped();
    let least = if is_cut_short { 0 } else { hint.0.saturating_sub(yielded) };
    (least, hint.1.map(|most| most.saturating_sub(yielded)))
}

#[cold]
fn refused(reply: Reply<'_>, replies: &Replies, error: BoxError) -> Error {
    let message = format!("decode refused the reply {}", excerpt(reply.bytes));
    let error = Error::new(ErrorKind::Decode, message).because(error).at(reply.packet);
    replies.explain(PacketId(reply.packet), error)
}

/// Conservation even where a bug of ours would have broken it.
#[cold]
pub(super) fn lost(packet: PacketId) -> Error {
    Error::new(ErrorKind::Failed, "the item was not found beside its reply").at(packet.0)
}
