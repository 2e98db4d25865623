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
use crate::window::outlet::{Given, Order};
use crate::window::packet::SessionEnd;
use crate::window::packing::{Store, Writer};
use crate::window::seam::Bounds;
use crate::window::workers::Workers;

/// All options of a feed that has not started yet.
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
/// `F` is the type of feed that [`start`](FeedBuilder::start) returns. It is [`Feed`], unless the builder came from
/// [`keep_input`](FeedBuilder::keep_input), [`try_feed`](crate::FeedExt::try_feed) or
/// [`feed_marked`](crate::FeedExt::feed_marked). A `for` loop takes the builder itself: `for reply in builder` starts it.
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

    /// The number of workers. Default: the number of processors. Zero, or more than 2^18, is a fatal error, which the
    /// feed yields.
    pub fn workers(mut self, n: usize) -> Self {
        self.workers = Workers::Exactly(n);
        self
    }

    /// The size of the window, in packets. Default: 1,000.
    ///
    /// In input order, input `k + buffer` is not pulled before output `k` has been yielded. In completion order, at
    /// most `buffer` inputs are pulled and not yet yielded. Zero is a fatal error, which the feed yields. With
    /// `usize::MAX` only [`max_bytes`](FeedBuilder::max_bytes) bounds the window.
    pub fn buffer(mut self, packets: usize) -> Self {
        self.buffer = packets;
        self
    }

    /// The size of the window, in bytes of requests and replies. Default: 64 MiB.
    ///
    /// When the feed holds this much, it pulls no more input, and reads only the worker that owes the reply that the
    /// consumer waits for. A record larger than this is handled alone; with zero, every record is.
    ///
    /// Only the bytes of requests and replies are counted. Each packet takes a few words besides; this matters only for
    /// very short records in a very large window (16 MiB of empty lines are 17 million packets, and take six times as
    /// much memory). Inputs kept by [`keep_input`](FeedBuilder::keep_input) are not counted either.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// The order in which replies are yielded. Default: [`Order::Input`].
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// The packet id of the first input. Default: 0. Ids wrap at `u64::MAX`.
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
    /// Keeps each input and yields it beside its reply, or beside its error: see [`FeedWithInput`].
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
    /// Returns no error. If the configuration is wrong, the feed's only item is a fatal `Err` that names the setting.
    ///
    /// # Panics
    /// If the source's `size_hint`, which is asked here, panics. Nothing else panics here.
    pub fn start(self) -> Feed<D>
    where
        I: SendIterator + 'static,
        E: Encode<I::Item> + 'static,
        D: Decode,
    {
        self.start_anywhere()
    }

    /// Starts now, with the intake as a thread of a scope, so that the source and `encode` may borrow.
    ///
    /// The feed cannot leave the scope: see [`Scoped`]. It panics as [`start`](FeedBuilder::start) does.
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

    /// Starts now, feeds the whole input and collects no replies: for workers that write their output to files.
    ///
    /// Blocks until the input has ended and every worker has exited. The report says how many items each worker
    /// accepted and how each session ended.
    ///
    /// An item is accepted when it has been written to its worker in full and the worker is not known to have left it
    /// unread. An item that a worker may have read is never sent again, because its output could then be written twice:
    /// if that worker dies, the item is among the failed ones. Items that are still unread in the pipe of a worker that
    /// dies go to another worker. If a worker reads more than it uses, as `head -n 1` does, the unused items
    /// count as accepted; this cannot be detected. Output of the workers on a stdout that is not redirected is read
    /// and discarded.
    ///
    /// There is no time limit for the workers to exit, unless [`Template::end_timeout`] sets one.
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
    /// The fatal error that ended the feed.
    ///
    /// # Panics
    /// If the source, `encode`, [`accept_status`](Template::accept_status) or [`on_stderr`](Template::on_stderr) panics, with
    /// the same payload. `check` and `decode` do not run.
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
        while let Some((_, _, given)) = outlet.next_whole() {
            let Given::Failed(error) = given else { continue };
            // The first fatal error is the cause; the others only say that it came before them.
            if error.is_fatal() {
                return Err(error);
            }
            failed.push(error);
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

    /// Starts now, and yields the replies in [`Block`](crate::Block)s. This is the fastest: a reply costs no call and no
    /// allocation. `decode` is not used.
    ///
    /// If the input is a file, a pipe or anything else that implements `Read`, use [`blocks`](crate::blocks()), which also saves
    /// the call for each record.
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
        let end = spec.replies.written_end(spec.requests.delimiter().unwrap_or(b'\n'));
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
