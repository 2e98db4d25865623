//! The returned iterators: replies one by one, or in batches.

pub(crate) mod builder;
pub(crate) mod drained;
pub(crate) mod through;
mod watched;

use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use bstr::{BStr, ByteSlice};

use crate::error::{BoxError, Error, ErrorKind, excerpt};
use crate::record::{self, PacketId};
use crate::stats::{Monitor, Snapshot, Stats};
use crate::template::codec::{Decode, Reply};
use crate::window::inputs::Inputs;
use crate::window::outlet::{Given, Outlet};
use crate::window::packet::{Cut, Outcome, Replies, Span};
use crate::window::packing::Store;

/// What a feed yields for each packet: the decoded reply alone, or beside its input.
///
/// Sealed: every [`Decode`] is one, and [`KeepInput`] makes another of it.
pub trait Deliver<T>: sealed::Deliver<T> {}

impl<T, D: sealed::Deliver<T>> Deliver<T> for D {}

pub(crate) mod sealed {
    use super::Answer;
    use crate::window::outlet::Given;
    use crate::window::packing::Store;

    pub trait Deliver<T>: Send {
        type Item;
        /// Where the items are kept meanwhile.
        type Store: Store<T> + Clone + Send;
        const FALLIBLE: bool;
        fn store(first: u64) -> Self::Store;
        fn deliver(
            &mut self,
            store: &Self::Store,
            packet: u64,
            given: Given<Answer<'_>>,
        ) -> Self::Item;
    }
}

/// See [`FeedBuilder::keep_input`](crate::FeedBuilder::keep_input).
#[derive(Clone, Debug)]
pub struct KeepInput<D>(pub(crate) D);

/// A reply, and the replies it is one of.
pub(crate) type Answer<'a> = (Reply<'a>, &'a Replies);

#[inline]
pub(crate) fn decoded<D: Decode>(
    decode: &mut D,
    given: Given<Answer<'_>>,
) -> Result<D::Output, Error> {
    match given {
        Given::Reply((reply, replies)) => {
            decode.decode(reply).map_err(|error| refused(reply, replies, error))
        }
        Given::Failed(error) => Err(error),
        Given::Passed => Err(Error::new(ErrorKind::Failed, "the item was not work")),
    }
}

#[cold]
fn refused(reply: Reply<'_>, replies: &Replies, error: BoxError) -> Error {
    let message = format!("decode refused the reply {}", excerpt(reply.bytes));
    let error = Error::new(ErrorKind::Decode, message).because(error).at(reply.packet);
    replies.explain(PacketId(reply.packet), error)
}

impl<T, D: Decode> sealed::Deliver<T> for D {
    type Item = Result<D::Output, Error>;
    type Store = ();
    const FALLIBLE: bool = D::FALLIBLE;
    fn store(_first: u64) {}
    #[inline]
    fn deliver(&mut self, _store: &(), _packet: u64, given: Given<Answer<'_>>) -> Self::Item {
        decoded(self, given)
    }
}

impl<T: Send, D: Decode> sealed::Deliver<T> for KeepInput<D> {
    type Item = (Option<T>, Result<D::Output, Error>);
    type Store = Kept<T>;
    const FALLIBLE: bool = D::FALLIBLE;
    fn store(first: u64) -> Kept<T> {
        Kept(Arc::new(Inputs::new(PacketId(first))))
    }
    fn deliver(&mut self, store: &Kept<T>, packet: u64, given: Given<Answer<'_>>) -> Self::Item {
        (store.0.take(PacketId(packet)), decoded(&mut self.0, given))
    }
}

/// The inputs of packets that are under way.
#[doc(hidden)]
#[derive(Debug)]
pub struct Kept<T>(Arc<Inputs<T>>);

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Nothing is kept.
impl<T> Store<T> for () {
    #[inline]
    fn passes(&self, _item: &T) -> bool {
        false
    }
    #[inline]
    fn put(&self, _item: T) {}
}

impl<T> Store<T> for Kept<T> {
    fn passes(&self, _item: &T) -> bool {
        false
    }
    fn put(&self, item: T) {
        self.0.put(item);
    }
}

/// The replies of a running feed: a lazy, fused iterator.
///
/// Made by [`FeedExt`](crate::FeedExt) and [`FeedBuilder::start`](crate::FeedBuilder::start). Yields exactly
/// one item for each input, `Ok` or `Err`; see [`Error`] for the two kinds of errors.
///
/// # Look-ahead
/// The window moves inside `next()`: ordered, input `k + buffer_size` is not pulled before the `next()`
/// that yields output `k` has been called; in completion order no more inputs are pulled than `buffer_size`
/// and one for each `next()` that has found its item. `decode` runs after that, on the caller's thread,
/// while the source is already pulled for the room it has made.
///
/// # Size hint
/// `size_hint` is the source's own at the call, less what was yielded, so that `collect` sets aside what
/// it needs and a progress bar knows how far it is (`try_progress()` of indicatif). A fatal error yields
/// fewer; from the first one on, nothing is promised but an upper bound. An endless source
/// (`usize::MAX` at least) promises nothing from the start, because a fatal error may end any feed:
/// `collect::<Vec<_>>()` is then an endless loop that fills the memory, as it would be by hand, until it is
/// cut short by `take`, by the first error (`collect::<Result<Vec<_>, _>>()`) or by a policy.
///
/// # Dropping
/// Dropping it stops the pulling, ends the children and reaps them, whatever they are doing: within
/// 500 ms plus the kill sequence. It never panics. The thread that pulls the source is joined too,
/// unless it stays inside the source's own `next()` (or `encode`, or the source's `Drop`), which
/// nothing can interrupt: then it ends after it.
///
/// It may be dropped anywhere, also by its own source, by `encode` or by `check`. In `check`, of whichever feed, and
/// inside of its own source the drop returns at once, because it would wait for the thread that it runs on, or hold
/// up every other worker; everything ends all the same, within the same time.
///
/// # Panics
/// `next` resumes a panic of the source, of `encode`, of `check` or of a custom framing at the
/// position of the item concerned, with its own payload; afterwards the feed has ended. (In completion
/// order that is after everything else that was pulled.) A panic of `decode` passes through and costs
/// only its item.
#[must_use = "a feed that is not iterated stops as soon as it is dropped"]
pub struct Feed<T, D: Deliver<T>> {
    pub(crate) outlet: Outlet,
    pub(crate) decode: D,
    pub(crate) store: D::Store,
    pub(crate) stats: Arc<Stats>,
    /// The names of the side outputs that are read.
    pub(crate) names: Arc<[String]>,
    /// The source's `size_hint` when the feed was started.
    pub(crate) hint: (usize, Option<usize>),
}

impl<T, D: Deliver<T>> Feed<T, D> {
    /// Never more items than the upper bound of `size_hint`.
    pub(crate) fn keeping_to_its_hint(mut self) -> Self {
        self.outlet.at_most(self.hint.1);
        self
    }

    /// A handle that tells, from any thread and at any time, how the feed is doing.
    pub fn monitor(&self) -> Monitor {
        Monitor(Arc::clone(&self.stats))
    }

    /// Takes what is left to its end and returns what was done, once every child has been reaped.
    ///
    /// An endless source has no end: to be rid of such a feed, drop it.
    ///
    /// # Errors
    /// The first failure among what was left, or what belongs to no packet: a trailing extra reply, a
    /// bad exit after the last answer.
    pub fn finish(mut self) -> Result<Snapshot, Error> {
        take_rest(&mut self.outlet)?;
        Ok(self.monitor().snapshot())
    }
}

/// Takes what is left; the first failure among it, or else the first thing that belongs to no packet.
fn take_rest(outlet: &mut Outlet) -> Result<(), Error> {
    let mut first = None;
    while let Some((_, given)) = outlet.next() {
        if let Given::Failed(error) = given {
            first.get_or_insert(error);
        }
    }
    match first.or_else(|| outlet.take_remarks().into_iter().next()) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

impl<T, D: Deliver<T>> Iterator for Feed<T, D> {
    type Item = D::Item;

    #[inline]
    fn next(&mut self) -> Option<D::Item> {
        let Self { outlet, decode, store, names, .. } = self;
        let (packet, given) = outlet.next()?;
        let given = given.map(|replies| {
            replies.skip();
            let replies = &*replies;
            (replies.last(packet, names), replies)
        });
        Some(decode.deliver(store, packet.0, given))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        remaining(self.hint, &self.outlet)
    }
}

/// The source's hint less what was yielded. Only a fatal end yields fewer, and once it shows nothing is
/// promised any more.
pub(crate) fn remaining<B: record::Batch, R>(
    hint: (usize, Option<usize>),
    outlet: &Outlet<B, R>,
) -> (usize, Option<usize>) {
    if outlet.is_done() {
        return (0, Some(0));
    }
    let yielded = usize::try_from(outlet.total_yielded()).unwrap_or(usize::MAX);
    let least = if outlet.is_cut_short() { 0 } else { hint.0.saturating_sub(yielded) };
    (least, hint.1.map(|most| most.saturating_sub(yielded)))
}

impl<T, D: Deliver<T>> FusedIterator for Feed<T, D> {}

impl<T, D: Deliver<T>> fmt::Debug for Feed<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("monitor", &self.monitor()).finish_non_exhaustive()
    }
}

/// A feed whose source borrows: its intake is a thread of a scope, and it stays inside that scope.
///
/// Made by [`FeedBuilder::start_scoped`](crate::FeedBuilder::start_scoped) and
/// [`ThreadsBuilder::scoped`](crate::ThreadsBuilder::scoped); `F` is the [`Feed`] or the
/// [`FeedThreads`](crate::FeedThreads). A scope waits for
/// its threads, and an intake with a full window waits for somebody to take a reply. So a feed that got
/// out of its scope would have both wait for ever; that does not compile:
///
/// ```compile_fail
/// use subfeed::{FeedExt, Template};
/// let words = vec!["one".to_owned(); 100];
/// let feed = std::thread::scope(|scope| {
///     words.iter().feed(Template::new("cat")).buffer(10).start_scoped(scope)
/// });
/// assert_eq!(feed.count(), 100);
/// ```
///
/// Taken to its end or dropped, wherever inside the scope, it lets the scope end:
///
/// ```
/// use subfeed::{FeedExt, Template};
/// let words = vec!["one".to_owned(); 100];
/// let count = std::thread::scope(|scope| {
///     let feed = words.iter().feed(Template::new("cat")).buffer(10).start_scoped(scope);
///     scope.spawn(move || feed.count()).join().unwrap()
/// });
/// assert_eq!(count, 100);
/// ```
///
/// What nothing can prevent is leaking it (`std::mem::forget`, a cycle of `Rc`): then the scope does not
/// end, as with any thread in it that waits for what has been leaked.
#[must_use = "a feed that is not iterated stops as soon as it is dropped"]
pub struct Scoped<'scope, F> {
    pub(crate) feed: F,
    scope: PhantomData<&'scope ()>,
}

impl<F> Scoped<'_, F> {
    pub(crate) fn new(feed: F) -> Self {
        Self { feed, scope: PhantomData }
    }
}

impl<T, D: Deliver<T>> Scoped<'_, Feed<T, D>> {
    /// See [`Feed::monitor`].
    pub fn monitor(&self) -> Monitor {
        self.feed.monitor()
    }

    /// See [`Feed::finish`].
    ///
    /// # Errors
    /// As there.
    pub fn finish(self) -> Result<Snapshot, Error> {
        self.feed.finish()
    }
}

impl<F: Iterator> Iterator for Scoped<'_, F> {
    type Item = F::Item;

    fn next(&mut self) -> Option<F::Item> {
        self.feed.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.feed.size_hint()
    }
}

impl<F: FusedIterator> FusedIterator for Scoped<'_, F> {}

impl<F: fmt::Debug> fmt::Debug for Scoped<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scoped").field(&self.feed).finish()
    }
}

/// Replies in batches, lent as slices: for the last drop of speed.
///
/// Made by [`FeedBuilder::batches`](crate::FeedBuilder::batches). A batch is whatever came together; only the
/// order of the replies means anything.
///
/// ```
/// use subfeed::{FeedExt, Template};
/// let mut batches = (0..1000).map(|n| n.to_string()).feed(Template::new("cat")).workers(2).batches();
/// let mut sum = 0;
/// while let Some(mut batch) = batches.next_batch() {
///     while let Some(reply) = batch.next() {
///         sum += std::str::from_utf8(reply.unwrap()).unwrap().parse::<u32>().unwrap();
///     }
/// }
/// assert_eq!(sum, 499_500);
/// ```
#[must_use = "batches that are not taken stop the feed as soon as they are dropped"]
pub struct Batches {
    pub(crate) outlet: Outlet,
    pub(crate) stats: Arc<Stats>,
}

impl Batches {
    /// The next batch; `None` at the end, and for ever after.
    ///
    /// # Panics
    /// Resumes panics as [`Feed`] does.
    pub fn next_batch(&mut self) -> Option<Batch<'_>> {
        self.outlet.next_span()?;
        Some(Batch { outlet: &mut self.outlet, taken: 0 })
    }

    /// See [`Feed::finish`].
    ///
    /// # Errors
    /// As there.
    pub fn finish(mut self) -> Result<Snapshot, Error> {
        // A batch that was forgotten is out.
        self.outlet.release_span();
        take_rest(&mut self.outlet)?;
        Ok(self.monitor().snapshot())
    }

    /// See [`Feed::monitor`].
    #[must_use]
    pub fn monitor(&self) -> Monitor {
        Monitor(Arc::clone(&self.stats))
    }
}

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches").field("monitor", &self.monitor()).finish_non_exhaustive()
    }
}

/// Replies to consecutive packets, lent. The credit for them goes back when this is dropped, and with it
/// whatever was not taken, errors included. Where it is forgotten (`mem::forget`), that is so at the next call.
pub struct Batch<'a> {
    outlet: &'a mut Outlet,
    taken: u64,
}

impl Batch<'_> {
    fn span(&self) -> Option<&Span> {
        self.outlet.current()
    }

    /// How many packets are in it.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.span().map_or(0, |span| span.count)
    }

    /// Never: there is no empty batch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The packet id of the first.
    #[must_use]
    pub fn first_packet(&self) -> u64 {
        self.span().map_or(0, |span| span.first.0)
    }

    /// The next reply of the batch, or its error. Not an `Iterator`, because it lends.
    #[allow(clippy::should_implement_trait, reason = "an iterator cannot lend from itself")]
    pub fn next(&mut self) -> Option<Result<&BStr, Error>> {
        let span = self.outlet.current_mut()?;
        if self.taken == span.count {
            return None;
        }
        let packet = span.first.plus(self.taken);
        self.taken += 1;
        if let Outcome::Failed(_) = &span.outcome
            && let Outcome::Failed(error) = std::mem::replace(&mut span.outcome, Outcome::Halted)
        {
            return Some(Err(error));
        }
        match &mut span.outcome {
            Outcome::Replies(replies) => {
                replies.skip();
                Some(Ok(replies.last(packet, &[]).bytes().as_bstr()))
            }
            _ => Some(Err(Error::halted().at(packet.0))),
        }
    }

    /// Calls `f` with every reply that is left: the fastest way through a batch.
    ///
    /// # Errors
    /// The first error of the batch. No reply is lost by that: a packet that failed is a batch of its own.
    pub fn for_each(mut self, mut f: impl FnMut(&[u8])) -> Result<(), Error> {
        let taken = self.taken;
        let span = self.outlet.current_mut();
        if let Some(span) = span
            && taken == 0
            && let Outcome::Replies(replies) = &span.outcome
            && let Cut::Delimiter { find, .. } = &replies.cut
        {
            let (mut find, Range { mut start, end }) = (find.clone(), replies.at.clone());
            while let Some(at) = find.next(&replies.buffer, start, end) {
                f(&replies.buffer[start..at]);
                start = at + 1;
            }
            return Ok(());
        }
        while let Some(reply) = self.next() {
            f(reply?);
        }
        Ok(())
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("first", &self.first_packet())
            .field("len", &self.len())
            .finish()
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.outlet.release_span();
    }
}
