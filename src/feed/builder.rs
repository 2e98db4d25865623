//! The builder: every option of a feed in one value, and the start of its threads.

use std::fmt;
use std::sync::Arc;
use std::thread::{self, Scope};

use crate::error::{Error, ErrorKind};
use crate::feed::drained::{Drained, Exit};
use crate::feed::watched::Watch;
use crate::feed::{Batches, Deliver, Feed, KeepInput, Scoped, sealed};
use crate::record::PacketId;
use crate::stats::Stats;
use crate::subprocess::readiness::Readiness;
use crate::subprocess::scheduler::{Plan, Scheduler};
use crate::subprocess::swarm;
use crate::template::channel::Stream;
use crate::template::codec::{Decode, Encode};
use crate::template::{Spec, Template};
use crate::tuning::BACKLOG_BYTES;
use crate::window::intake::Intake;
use crate::window::joins::{ExecutorThread, IntakeThread};
use crate::window::outlet::Order;
use crate::window::packet::SessionEnd;
use crate::window::packing::{Scribe, Store, Writer};
use crate::window::seam::{Bounds, Ends, attach};
use crate::window::workers::Workers;

/// More workers than any system has descriptors for. There is a slot for each from the start.
const MOST_WORKERS: usize = 1 << 18;

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
///     .map(|(word, reply)| (word.unwrap(), reply.unwrap()))
///     .collect();
/// replies.sort();
/// assert!(replies.iter().all(|(word, reply)| word.as_bytes() == &reply[..]));
/// assert_eq!(replies.len(), 3);
/// ```
#[must_use = "a builder starts nothing by itself: call start"]
pub struct FeedBuilder<I, E, D> {
    source: I,
    template: Template<E, D>,
    workers: Workers,
    buffer: usize,
    max_bytes: usize,
    order: Order,
    first_packet: u64,
    drain: bool,
    pub(super) watch: Watch,
}

impl<I, E, D> fmt::Debug for FeedBuilder<I, E, D> {
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

impl<I, E, D> FeedBuilder<I, E, D> {
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

    /// Yields `(input, result)` pairs. The input is `None` only beside a fatal error that concerns no
    /// packet.
    pub fn keep_input(self) -> FeedBuilder<I, E, KeepInput<D>> {
        let Template { spec, encode, decode } = self.template;
        FeedBuilder {
            source: self.source,
            template: Template { spec, encode, decode: KeepInput(decode) },
            workers: self.workers,
            buffer: self.buffer,
            max_bytes: self.max_bytes,
            order: self.order,
            first_packet: self.first_packet,
            drain: self.drain,
            watch: self.watch,
        }
    }
}

impl<I, E, D> FeedBuilder<I, E, D>
where
    I: Iterator,
    D: Deliver<I::Item>,
{
    fn validate(&self, workers: usize) -> Result<(), Error> {
        if workers == 0 {
            return Err(Error::config("a feed needs at least one worker, and n is 0"));
        }
        if workers > MOST_WORKERS {
            return Err(Error::config(format!(
                "a feed cannot have {workers} workers: {MOST_WORKERS} at most"
            )));
        }
        if self.buffer == 0 {
            return Err(Error::config(
                "a feed needs room for at least one packet, and buffer_size is 0",
            ));
        }
        if !self.drain && matches!(self.template.spec.channels.stdout, Stream::To(_)) {
            return Err(Error::config(
                "the worker's stdout leads elsewhere, so no reply can come back",
            )
            .hint("feed it with FeedBuilder::drain"));
        }
        self.watch.validate(self.drain)?;
        self.template.spec.validate()
    }

    /// Starts event loop and intake; `spawn_intake` decides where the intake runs.
    fn launch(
        self,
        keep_requests: bool,
        spawn_intake: impl FnOnce(Intake, I, Writer<E, D::Store>) -> Started,
    ) -> Feed<I::Item, D> {
        let mut hint = self.source.size_hint();
        if hint.0 == usize::MAX {
            // No feed is known to be endless: a fatal error may end any. `collect` would believe it, and
            // fail to set aside that much memory rather than show the error.
            hint.0 = 0;
        }
        let workers = self.workers.number();
        let poller = self.validate(workers).and_then(|()| {
            Readiness::new().map(Arc::new).map_err(|error| {
                Error::new(ErrorKind::Thread, "the feed's poller cannot be made")
                    .because(error)
                    .fatal()
            })
        });
        // The event loop's alone: its descriptors are closed with it, even while the window lives on.
        let to_wake = poller.as_ref().map(Arc::downgrade).unwrap_or_default();
        let bounds = Bounds {
            order: self.order,
            first: PacketId(self.first_packet),
            ..Bounds::new(self.buffer, self.max_bytes)
        };
        let Ends { intake, supply, outbox, mut outlet } = attach(bounds, move || {
            if let Some(poller) = to_wake.upgrade() {
                poller.wake();
            }
        });
        outlet.panics_come_last();
        let Template { mut spec, encode, decode } = self.template;
        spec.begin();
        let spec = Arc::new(spec);
        let stats = Arc::new(Stats::new(Arc::clone(outlet.gate()), workers));
        let store = D::store(self.first_packet);
        let started = poller.and_then(|poller| {
            let log = self.watch.open_log(outlet.gate())?;
            let scheduler = Scheduler::new(Plan {
                spec: Arc::clone(&spec),
                workers,
                order: self.order,
                origin: bounds.first,
                keep_requests,
                drain: self.drain,
                backlog: BACKLOG_BYTES,
                most: hint.1.and_then(|most| u64::try_from(most).ok()),
                gate: Arc::clone(outlet.gate()),
                stats: Arc::clone(&stats),
                log,
            });
            let not_started = |error: std::io::Error| {
                Error::new(ErrorKind::Thread, "a thread of the feed cannot be started")
                    .because(error)
                    .fatal()
            };
            let event_loop = ExecutorThread::spawn("subfeed-loop", move || {
                swarm::run(scheduler, supply, outbox, poller);
            });
            outlet.keep_executor(event_loop.map_err(not_started)?);
            let writer = Writer { scribe: scribe(&spec), encode, store: store.clone() };
            outlet.keep_intake(spawn_intake(intake, self.source, writer).map_err(not_started)?);
            Ok(())
        });
        if let Err(error) = started {
            // What cannot run yields its one error, whatever the source would have yielded.
            hint = (1, Some(1));
            outlet.fail(error);
        }
        let sides = spec.channels.side_outputs.iter().filter(|side| side.framing.is_some());
        let names = sides.map(|side| side.name.clone()).collect();
        Feed { outlet, decode, store, stats, names, hint }
    }
}

impl<I, E, D> FeedBuilder<I, E, D>
where
    I: Iterator + Send + 'static,
    E: Encode<I::Item> + 'static,
    D: Deliver<I::Item>,
    D::Store: 'static,
{
    /// Starts the feed and returns at once: the intake begins to pull while the workers start.
    ///
    /// Nothing is thrown here. What is wrong with the configuration is the feed's only item, a fatal
    /// `Err`.
    pub fn start(self) -> Feed<I::Item, D> {
        self.launch(<D as sealed::Deliver<_>>::FALLIBLE, spawn).keeping_to_its_hint()
    }

    /// Feeds everything and collects nothing, for workers whose output goes to files: blocks until the
    /// input has ended and every worker has exited, and says what each was given and how it ended.
    ///
    /// An item counts as accepted when it has been written to its worker in full. Nothing that a worker
    /// may have read is sent again, since its lines would be written twice: if the worker dies in the
    /// middle of it, the item is among the failed ones. What lies unread in the pipe of a worker that
    /// dies before its input has ended is taken back and goes to another one. What workers print to a
    /// stdout that leads here is read and dropped.
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
        D: Decode,
    {
        self.drain = true;
        self.order = Order::Completion;
        let policy = &mut self.template.spec.policy;
        policy.at_most_once = true;
        policy.retries = 0;
        if !policy.end_timeout_is_set {
            policy.end_timeout = None;
        }
        let Feed { mut outlet, .. } = self.launch(false, spawn);
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
        let exit =
            |end: SessionEnd| Exit { worker: end.worker, status: end.status, early: end.early };
        Ok(Drained { accepted, exits: ends.into_iter().map(exit).collect(), failed, bad_ends })
    }

    /// Starts the feed, to be taken in batches of borrowed replies; `decode` is not used.
    pub fn batches(self) -> Batches
    where
        D: Decode,
    {
        let Feed { outlet, stats, .. } = self.launch(false, spawn);
        Batches { outlet, stats }
    }
}

impl<I, E, D> FeedBuilder<I, E, D>
where
    I: Iterator + Send,
    E: Encode<I::Item>,
    D: Deliver<I::Item>,
{
    /// Starts the feed with its intake in a scope, so that the source and `encode` may borrow.
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
    pub fn start_scoped<'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
    ) -> Scoped<'scope, Feed<I::Item, D>>
    where
        I: 'scope,
        E: 'scope,
        D::Store: 'scope,
    {
        let keep = <D as sealed::Deliver<_>>::FALLIBLE;
        let feed = self.launch(keep, |intake, source, writer| {
            IntakeThread::spawn(
                move || intake.run(source, writer),
                |run| named_intake().spawn_scoped(scope, run).map(|_| None),
            )
        });
        Scoped::new(feed.keeping_to_its_hint())
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
    I: Iterator + Send + 'static,
    E: Encode<I::Item> + 'static,
    D: Deliver<I::Item>,
    D::Store: 'static,
{
    type Item = D::Item;
    type IntoIter = Feed<I::Item, D>;

    fn into_iter(self) -> Feed<I::Item, D> {
        self.start()
    }
}

/// The intake's thread, unless a scope keeps it.
type Started = std::io::Result<Option<IntakeThread>>;

fn spawn<I, E, S>(intake: Intake, source: I, writer: Writer<E, S>) -> Started
where
    I: Iterator + Send + 'static,
    E: Encode<I::Item> + 'static,
    S: Store<I::Item> + Send + 'static,
{
    IntakeThread::spawn(
        move || intake.run(source, writer),
        |run| named_intake().spawn(run).map(Some),
    )
}

fn named_intake() -> thread::Builder {
    thread::Builder::new().name("subfeed-intake".to_owned())
}

fn scribe(spec: &Spec) -> Scribe {
    let sides = spec.channels.side_inputs.iter().filter(|side| side.file.is_none());
    let framings = std::iter::once(&spec.requests).chain(sides.map(|side| &side.framing));
    Scribe {
        framings: framings.cloned().collect(),
        names: spec.side_input_names(),
        sentinel: spec.replies.as_sentinel().cloned(),
    }
}
