//! The builder: every option of a feed in one value, and the start of its threads.

use std::fmt;
use std::marker::PhantomData;
use std::thread::Scope;

use crate::error::Error;
use crate::ext::SendIterator;
use crate::feed::blocks::BlockFeed;
use crate::feed::drained::{Drained, Exit};
use crate::feed::launch::{Launch, Launched, Started, scribe};
use crate::feed::stopper::{Gated, Stopper};
use crate::feed::through::{MarkedFeed, TryFeed};
use crate::feed::watched::Watch;
use crate::feed::with_input::{FeedWithInput, InputError};
use crate::feed::{Answers, Feed, Scoped};
use crate::marker::Marked;
use crate::record::PacketId;
use crate::template::Template;
use crate::template::codec::{Decode, Encode};
use crate::window::intake::Intake;
use crate::window::joins::IntakeThread;
use crate::window::outlet::Order;
use crate::window::packet::SessionEnd;
use crate::window::packing::{Store, Writer};
use crate::window::seam::Bounds;
use crate::window::workers::Workers;

/// A feed that is not started yet: every option, with its default.
///
/// | option | default |
/// |---|---|
/// | [`workers`](FeedBuilder::workers) | the number of processors |
/// | [`buffer`](FeedBuilder::buffer) | 1,000 packets |
/// | [`max_bytes`](FeedBuilder::max_bytes) | 64 MiB |
/// | [`order`](FeedBuilder::order) | [`Order::Input`] |
///
/// ```
/// use subfeed::{FeedExt, Order, Template};
/// let words = ["tic", "tac", "toe"];
/// let mut replies: Vec<_> = words
///     .into_iter()
///     .feed(Template::new("cat"))
///     .workers(3)
///     .buffer(16)
///     .order(Order::Completion)
///     .keep_input()
///     .start()
///     .collect::<Result<_, _>>()?;
/// replies.sort();
/// assert_eq!(replies, [("tac", "tac".into()), ("tic", "tic".into()), ("toe", "toe".into())]);
/// # Ok::<_, subfeed::Error>(())
/// ```
///
/// `F` is what [`start`](FeedBuilder::start) gives: a [`Feed`], unless the builder was made by
/// [`keep_input`](FeedBuilder::keep_input), [`try_feed`](crate::FeedExt::try_feed) or
/// [`feed_marked`](crate::FeedExt::feed_marked). A builder can be iterated as it is: `for reply in builder` starts it.
#[must_use = "a builder starts nothing by itself: call start, or iterate it"]
pub struct FeedBuilder<I, E, D, F = Feed<D>> {
    pub(crate) source: I,
    template: Template<E, D>,
    workers: Workers,
    buffer: usize,
    max_bytes: usize,
    order: Order,
    first_packet: u64,
    drain: bool,
    pub(super) watch: Watch,
    gives: PhantomData<fn() -> F>,
}

impl<I, E, D, F> fmt::Debug for FeedBuilder<I, E, D, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedBuilder")
            .field("template", &self.template)
            .field("workers", &self.workers)
            .field("buffer", &self.buffer)
            .field("max_bytes", &self.max_bytes)
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

impl<I, E, D, F> FeedBuilder<I, E, D, F> {
    pub(crate) fn new(source: I, template: Template<E, D>) -> Self {
        Self {
            source,
            template,
            workers: Workers::default(),
            buffer: 1_000,
            max_bytes: 64 << 20,
            order: Order::Input,
            first_packet: 0,
            drain: false,
            watch: Watch::default(),
            gives: PhantomData,
        }
    }

    /// How many workers. Zero is an error, yielded by the feed, and so is more than 2^18.
    pub fn workers(mut self, n: usize) -> Self {
        self.workers = Workers::Exactly(n);
        self
    }

    /// The window, in packets: ordered, input `k + buffer` is not pulled before output `k` has been
    /// yielded; in completion order at most `buffer` inputs are pulled and not yet yielded. Zero is
    /// an error, yielded by the feed; `usize::MAX` leaves the bound to [`max_bytes`](FeedBuilder::max_bytes).
    pub fn buffer(mut self, packets: usize) -> Self {
        self.buffer = packets;
        self
    }

    /// How many bytes of requests and replies may be held before no more input is pulled, and before
    /// only the worker that holds what the consumer waits for is read. A record that is larger than
    /// this travels alone.
    ///
    /// Only their bytes are counted. Beside them each packet takes a few words, which matters where
    /// records of a few bytes meet a window of millions (16 MiB of empty lines are 17 million packets, and
    /// take six times as much), and what [`keep_input`](FeedBuilder::keep_input) keeps is not looked into.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// In which order replies are yielded.
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// The packet id of the first input, 0 by default; ids wrap at `u64::MAX`.
    pub fn first_packet(mut self, id: u64) -> Self {
        self.first_packet = id;
        self
    }

    /// Starts event loop and intake; `spawn_intake` decides where the intake runs.
    fn launch(
        self,
        keep_requests: bool,
        spawn_intake: impl FnOnce(Intake, Gated<I>, Writer<F::Encode, F::Store>) -> Started,
    ) -> (Answers<D>, F::Store)
    where
        I: Iterator,
        F: Shape<I::Item, E, D>,
    {
        let pulling = Pulling { hint: self.source.size_hint(), waits: true, keep_requests };
        self.launch_as(pulling, spawn_intake)
    }

    /// The same for a source of whatever kind.
    pub(crate) fn launch_as<T>(
        self,
        Pulling { mut hint, waits, keep_requests }: Pulling,
        spawn_intake: impl FnOnce(Intake, Gated<I>, Writer<F::Encode, F::Store>) -> Started,
    ) -> (Answers<D>, F::Store)
    where
        F: Shape<T, E, D>,
    {
        if hint.0 == usize::MAX {
            // No feed is known to be endless: a fatal error may end any. `collect` would believe it, and
            // fail to set aside that much memory rather than show the error.
            hint.0 = 0;
        }
        let Template { spec, encode, decode } = self.template;
        let first = PacketId(self.first_packet);
        let store = F::store(first);
        let stopper = Stopper::default();
        let mut bounds =
            Bounds { order: self.order, first, ..Bounds::new(self.buffer, self.max_bytes) };
        if !waits {
            bounds.batches = usize::MAX;
        }
        let launch = Launch {
            spec,
            workers: self.workers,
            bounds,
            drain: self.drain,
            watch: self.watch,
            keep_requests,
            most: hint.1.and_then(|most| u64::try_from(most).ok()),
        };
        let Launched { outlet, stats, spec, failed } = launch.start(None, |intake, spec| {
            let encode = F::encode(encode);
            let writer = Writer { scribe: scribe(spec), encode, store: store.clone() };
            spawn_intake(intake, stopper.gates(self.source), writer)
        });
        if failed {
            // What cannot run yields its one error, whatever the source would have yielded.
            hint = (1, Some(1));
        }
        let sides = spec.channels.side_outputs.iter().filter(|side| side.framing.is_some());
        let names = sides.map(|side| side.name.clone()).collect();
        (Answers { outlet, decode, stats, names, hint, stopper }, store)
    }

    fn start_anywhere(self) -> F
    where
        I: SendIterator + 'static,
        D: Decode,
        F: Shape<I::Item, E, D>,
        F::Encode: 'static,
        F::Store: 'static,
    {
        let (answers, store) = self.launch(D::FALLIBLE, spawn);
        F::of(answers.keeping_to_its_hint(), store)
    }

    fn start_in<'scope>(self, scope: &'scope Scope<'scope, '_>) -> Scoped<'scope, F>
    where
        I: SendIterator + 'scope,
        D: Decode,
        F: Shape<I::Item, E, D>,
        F::Encode: 'scope,
        F::Store: 'scope,
    {
        let (answers, store) = self.launch(D::FALLIBLE, |intake, source, writer| {
            IntakeThread::spawn(
                move || intake.run(source, writer),
                |run| IntakeThread::builder().spawn_scoped(scope, run).map(|_| None),
            )
        });
        Scoped::new(F::of(answers.keeping_to_its_hint(), store))
    }

    /// The same options, for another kind of feed.
    pub(crate) fn giving<G>(self) -> FeedBuilder<I, E, D, G> {
        let Self {
            source,
            template,
            workers,
            buffer,
            max_bytes,
            order,
            first_packet,
            drain,
            watch,
            ..
        } = self;
        let gives = PhantomData;
        FeedBuilder {
            source,
            template,
            workers,
            buffer,
            max_bytes,
            order,
            first_packet,
            drain,
            watch,
            gives,
        }
    }
}

impl<I: Iterator, E, D> FeedBuilder<I, E, D> {
    /// Keeps each input, and yields it beside its reply, or beside the error that came instead: see
    /// [`FeedWithInput`].
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let mut feed = ["three"].into_iter().feed(Template::new("cat").decode(|reply| reply.len())).keep_input().start();
    /// assert_eq!(feed.next().unwrap().unwrap(), ("three", 5));
    /// ```
    pub fn keep_input(self) -> FeedBuilder<I, E, D, FeedWithInput<I::Item, D>> {
        self.giving()
    }

    /// Starts now, and returns at once: the intake begins to pull while the workers start.
    ///
    /// It neither panics nor returns an error. If the configuration is wrong, the feed has one item, a fatal `Err`
    /// that names the setting.
    pub fn start(self) -> Feed<D>
    where
        I: SendIterator + 'static,
        E: Encode<I::Item> + 'static,
        D: Decode,
    {
        self.start_anywhere()
    }

    /// Starts now, with the intake in a scope, so that the source and `encode` may borrow.
    ///
    /// The feed stays inside the scope: see [`Scoped`].
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let words = vec!["one".to_owned(), "two".to_owned()];
    /// let lengths: Vec<usize> = std::thread::scope(|scope| {
    ///     let feed = words.iter().feed(Template::new("cat")).workers(2).start_scoped(scope);
    ///     feed.map(|reply| reply.unwrap().len()).collect()
    /// });
    /// assert_eq!(lengths, [3, 3]);
    /// ```
    pub fn start_scoped<'scope>(self, scope: &'scope Scope<'scope, '_>) -> Scoped<'scope, Feed<D>>
    where
        I: SendIterator + 'scope,
        E: Encode<I::Item> + 'scope,
        D: Decode,
    {
        self.start_in(scope)
    }

    /// Starts now, feeds everything and collects nothing, for workers whose output goes to files: blocks until the
    /// input has ended and every worker has exited, and says what each was given and how it ended.
    ///
    /// An item counts as accepted when it has been written to its worker in full. Nothing that a worker
    /// may have read is sent again, since its lines would be written twice: if the worker dies in the
    /// middle of it, the item is among the failed ones. What lies unread in the pipe of a worker that
    /// dies before its input has ended is taken back and goes to another one. What a worker has read into a
    /// buffer of its own and not used, as `head -n 1` does, cannot be told from what it has used. What workers
    /// print to a stdout that leads here is read and dropped.
    ///
    /// The end waits for the workers as long as they need, unless
    /// [`Template::end_timeout`] is set.
    ///
    /// ```
    /// use subfeed::channel::Redirect;
    /// use subfeed::{FeedExt, Template};
    /// let dir = std::env::temp_dir().join(format!("subfeed-drain-{}", std::process::id()));
    /// std::fs::create_dir_all(&dir).unwrap();
    /// let template = Template::new("cat").stdout(Redirect::file(dir.join("{id}.out")));
    /// let drained = (0..100).map(|n| n.to_string()).feed(template).workers(2).drain().unwrap();
    /// assert_eq!(drained.accepted.iter().sum::<u64>(), 100);
    /// assert!(drained.all_ended_well());
    /// let lines = |id| std::fs::read_to_string(dir.join(format!("{id}.out"))).unwrap().lines().count();
    /// assert_eq!(lines(0) + lines(1), 100);
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// ```
    ///
    /// # Errors
    /// What ends a feed: a fatal error.
    ///
    /// # Panics
    /// Resumes a panic of the source or of `encode`.
    pub fn drain(mut self) -> Result<Drained, Error>
    where
        I: SendIterator + 'static,
        E: Encode<I::Item> + 'static,
        D: Decode,
    {
        self.drain = true;
        self.order = Order::Completion;
        let policy = &mut self.template.spec.policy;
        policy.drains = true;
        policy.at_most_once = true;
        policy.retries = 0;
        if !policy.end_timeout_is_set {
            policy.end_timeout = None;
        }
        let (Answers { mut outlet, .. }, ()) = self.launch(false, spawn);
        let mut failed = Vec::new();
        while outlet.next_span().is_some() {
            if let Some(error) = outlet.take_failure() {
                // The first fatal error is the cause; the others only say that it came before them.
                if error.is_fatal() {
                    return Err(error);
                }
                failed.push(error);
            }
            outlet.release_span();
        }
        let bad_ends = outlet.take_remarks();
        let (accepted, ends) = outlet.take_report();
        let exit = |SessionEnd { worker, status, early, well }: SessionEnd| Exit {
            worker,
            status,
            early,
            well,
        };
        Ok(Drained { accepted, exits: ends.into_iter().map(exit).collect(), failed, bad_ends })
    }

    /// Starts now, to be taken in [`Block`](crate::block::Block)s of replies, for the last drop of speed: a reply costs no call
    /// and no allocation. `decode` is not used.
    ///
    /// Where the input is a file, a pipe or anything else that reads, [`blocks`](crate::blocks()) saves the call for each record, too.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let feed = (0..1000).map(|n| n.to_string()).feed(Template::new("cat")).workers(2).blocks();
    /// let mut sum = 0;
    /// for block in feed {
    ///     for reply in block?.records() {
    ///         sum += std::str::from_utf8(reply).unwrap().parse::<u32>().unwrap();
    ///     }
    /// }
    /// assert_eq!(sum, 499_500);
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    pub fn blocks(self) -> BlockFeed
    where
        I: SendIterator + 'static,
        E: Encode<I::Item> + 'static,
        D: Decode,
    {
        let spec = &self.template.spec;
        let end = spec.replies.written_end(spec.requests.delimiter().unwrap_or(b'\n')).into();
        let (Answers { outlet, stats, .. }, ()) = self.launch(false, spawn);
        BlockFeed::new(outlet, stats, end)
    }
}

impl<I, T, E, D> FeedBuilder<I, E, D, FeedWithInput<T, D>>
where
    I: Iterator<Item = T>,
{
    /// Starts now: see [`start`](FeedBuilder::start).
    pub fn start(self) -> FeedWithInput<T, D>
    where
        I: SendIterator + 'static,
        T: Send + 'static,
        E: Encode<T> + 'static,
        D: Decode,
    {
        self.start_anywhere()
    }

    /// Starts now, in a scope: see [`start_scoped`](FeedBuilder::start_scoped).
    pub fn start_scoped<'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
    ) -> Scoped<'scope, FeedWithInput<T, D>>
    where
        I: SendIterator + 'scope,
        T: Send + 'scope,
        E: Encode<T> + 'scope,
        D: Decode,
    {
        self.start_in(scope)
    }
}

impl<I, T, X, E, D> FeedBuilder<I, E, D, TryFeed<D, X>>
where
    I: Iterator<Item = Result<T, X>>,
{
    /// Starts now: see [`start`](FeedBuilder::start).
    pub fn start(self) -> TryFeed<D, X>
    where
        I: SendIterator + 'static,
        X: From<Error> + Send + 'static,
        E: Encode<T> + 'static,
        D: Decode,
    {
        self.start_anywhere()
    }

    /// Starts now, in a scope: see [`start_scoped`](FeedBuilder::start_scoped).
    pub fn start_scoped<'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
    ) -> Scoped<'scope, TryFeed<D, X>>
    where
        I: SendIterator + 'scope,
        X: From<Error> + Send + 'scope,
        E: Encode<T> + 'scope,
        D: Decode,
    {
        self.start_in(scope)
    }
}

impl<I, T, M, E, D> FeedBuilder<I, E, D, MarkedFeed<D, M>>
where
    I: Iterator<Item = Marked<T, M>>,
{
    /// Starts now: see [`start`](FeedBuilder::start).
    pub fn start(self) -> MarkedFeed<D, M>
    where
        I: SendIterator + 'static,
        M: Send + 'static,
        E: Encode<T> + 'static,
        D: Decode,
    {
        self.start_anywhere()
    }

    /// Starts now, in a scope: see [`start_scoped`](FeedBuilder::start_scoped).
    pub fn start_scoped<'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
    ) -> Scoped<'scope, MarkedFeed<D, M>>
    where
        I: SendIterator + 'scope,
        M: Send + 'scope,
        E: Encode<T> + 'scope,
        D: Decode,
    {
        self.start_in(scope)
    }
}

/// Starts the feed, as [`start`](FeedBuilder::start) does.
///
/// ```
/// use subfeed::{FeedExt, Template};
/// for reply in ["a", "b"].into_iter().feed(Template::new("cat")).workers(2) {
///     println!("{}", reply?);
/// }
/// # Ok::<_, subfeed::Error>(())
/// ```
impl<I, E, D> IntoIterator for FeedBuilder<I, E, D>
where
    I: SendIterator + 'static,
    E: Encode<I::Item> + 'static,
    D: Decode,
{
    type Item = Result<D::Output, Error>;
    type IntoIter = Feed<D>;

    fn into_iter(self) -> Feed<D> {
        self.start()
    }
}

/// Starts the feed, as [`start`](FeedBuilder::start) does.
impl<I, T, E, D> IntoIterator for FeedBuilder<I, E, D, FeedWithInput<T, D>>
where
    I: SendIterator<Item = T> + 'static,
    T: Send + 'static,
    E: Encode<T> + 'static,
    D: Decode,
{
    type Item = Result<(T, D::Output), InputError<T>>;
    type IntoIter = FeedWithInput<T, D>;

    fn into_iter(self) -> FeedWithInput<T, D> {
        self.start()
    }
}

/// Starts the feed, as [`start`](FeedBuilder::start) does.
impl<I, T, X, E, D> IntoIterator for FeedBuilder<I, E, D, TryFeed<D, X>>
where
    I: SendIterator<Item = Result<T, X>> + 'static,
    X: From<Error> + Send + 'static,
    E: Encode<T> + 'static,
    D: Decode,
{
    type Item = Result<D::Output, X>;
    type IntoIter = TryFeed<D, X>;

    fn into_iter(self) -> TryFeed<D, X> {
        self.start()
    }
}

/// Starts the feed, as [`start`](FeedBuilder::start) does.
impl<I, T, M, E, D> IntoIterator for FeedBuilder<I, E, D, MarkedFeed<D, M>>
where
    I: SendIterator<Item = Marked<T, M>> + 'static,
    M: Send + 'static,
    E: Encode<T> + 'static,
    D: Decode,
{
    type Item = Marked<Result<D::Output, Error>, M>;
    type IntoIter = MarkedFeed<D, M>;

    fn into_iter(self) -> MarkedFeed<D, M> {
        self.start()
    }
}

/// A kind of feed: what becomes of an item beside its request.
pub(crate) trait Shape<T, E, D>: Sized {
    /// How an item becomes a request, if it is work.
    type Encode: Encode<T>;
    /// Where the items are kept meanwhile.
    type Store: Store<T> + Clone + Send;
    fn encode(encode: E) -> Self::Encode;
    fn store(first: PacketId) -> Self::Store;
    fn of(answers: Answers<D>, store: Self::Store) -> Self;
}

/// How a feed is pulled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pulling {
    /// The source's `size_hint`.
    pub(crate) hint: (usize, Option<usize>),
    /// Whether the puller may wait.
    pub(crate) waits: bool,
    /// Whether requests are kept until they are answered.
    pub(crate) keep_requests: bool,
}

fn spawn<I, E, S>(intake: Intake, source: I, writer: Writer<E, S>) -> Started
where
    I: Iterator + Send + 'static,
    E: Encode<I::Item> + 'static,
    S: Store<I::Item> + Send + 'static,
{
    IntakeThread::spawn(
        move || intake.run(source, writer),
        |run| IntakeThread::builder().spawn(run).map(Some),
    )
}
