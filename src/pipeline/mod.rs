//! Named stages, one behind the other, each with a width and a window of its own.
//!
//! A [`Pipeline`] is a chain of feeds. In addition, every stage has a name, which its errors and its counts carry; an item
//! that fails in one stage passes through the later ones and comes out at its position; markers pass through all stages;
//! and one handle watches and stops the whole. Everything that holds for a feed holds for each stage: its results keep the
//! order of its input, it pulls at most its [`buffer`](Stage::buffer) ahead, and a consumer that pauses stops the source.
//! The pipeline ends when its last stage ends.
//!
//! ```
//! use subfeed::pipeline::{Pipeline, Stage};
//!
//! let lines = ["3", "four", "5"];
//! let run = Pipeline::new(lines)
//!     .try_map("parse", |line| Ok(line.parse::<u64>()?))
//!     .map(Stage::new("square").workers(2).buffer(10), |n| n * n)
//!     .run();
//! let results: Vec<_> = run.items().map(|result| result.map_err(|error| error.to_string())).collect();
//! assert_eq!(results[0], Ok(9));
//! assert_eq!(results[1], Err("stage `parse`: invalid digit found in string".to_owned()));
//! assert_eq!(results[2], Ok(25));
//! ```
//!
//! # Steps
//!
//! | one item becomes | method | runs in |
//! |---|---|---|
//! | one | [`map`](Pipeline::map), [`map_init`](Pipeline::map_init) | threads |
//! | one, or an error | [`try_map`](Pipeline::try_map) | threads |
//! | one or none | [`filter_map`](Pipeline::filter_map) | threads |
//! | any number | [`flat_map`](Pipeline::flat_map) | threads |
//! | one | [`feed`](Pipeline::feed) | subprocesses |
//! | anything: an iterator over the items, with its state | [`iterate`](Pipeline::iterate) | a thread |
//! | its part of a chunk, bounded in size and in time | [`chunk`](Pipeline::chunk) | a thread |
//! | its own items | [`flatten`](Pipeline::flatten) | the next stage's intake |
//!
//! Each stage has its own threads, as many as it has workers. So a stage that waits (for a server, a disk, a lock) does not
//! stop the others.
//!
//! # Failures
//!
//! If a stage's closure returns an error or panics, the item becomes an `Err` with the stage's name at its position, and
//! the worker continues with a new state. [`Run::on_error`] decides about the other items: they are processed, or the
//! source is stopped, or the pipeline ends. A panic of the *source* belongs to no item: the consumer gets it after
//! all items that came before it.
//!
//! # Finite, continuous, in the background
//!
//! The source may be endless; [`Control::stop`] ends it. To push items instead, use the receiving end of a bounded channel
//! as the source; the pipeline ends when the last sender is dropped. To run a pipeline without looking at its results, call
//! [`Run::finish`] on a thread of its own.
//!
//! # One thread
//!
//! A lazy pipeline on one thread is a chain of iterator adaptors and needs nothing of this module. [`Profile`] counts and
//! times its steps.
//!
//! Named stages, markers that keep their order, and the two kinds of pipelines come from Python's paipa.

#[cfg(feature = "threads")]
mod chunk;
mod control;
mod flow;
#[cfg(feature = "threads")]
mod iterate;
mod profile;
mod results;
mod run;
mod stage;
#[cfg(feature = "threads")]
mod work;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
#[cfg(feature = "threads")]
use std::time::Duration;

#[cfg(feature = "threads")]
use rayon::ThreadPool;

#[cfg(feature = "threads")]
use self::chunk::Chunks;
use self::control::Counts;
pub use self::control::{Control, OnError, StageReport};
pub use self::flow::StageError;
use self::flow::{Flow, Pass, Unnamed};
#[cfg(feature = "threads")]
pub use self::iterate::Items;
#[cfg(feature = "threads")]
use self::iterate::Iterate;
pub use self::profile::{Profile, ProfileStep, Step};
use self::results::{Out, Results};
pub use self::run::{Report, Run};
pub use self::stage::Stage;
#[cfg(feature = "threads")]
use self::work::{relay, threads, work};
use crate::error::BoxError;
use crate::ext::FeedExt;
use crate::marker::Marked;
use crate::template::Template;
use crate::template::codec::{Decode, Encode};

/// Stages in a row, of which the last yields `T`; see the [module](self).
///
/// Each method that adds a stage starts that stage at once, not at `run`. `M` is the type of the markers, if there are
/// any.
///
/// # Errors
/// No method fails at the call. If a stage has no workers or no buffer, or cannot be started, the pipeline's only item is
/// a [`StageError`] with the name of that stage.
#[must_use = "a pipeline that is not run stops as soon as it is dropped"]
pub struct Pipeline<T, M = Infallible> {
    flow: Box<dyn Iterator<Item = Flow<T, M>> + Send>,
    control: Control,
}

impl<T: Send + 'static> Pipeline<T> {
    /// A pipeline over a source of items.
    pub fn new<I>(source: I) -> Self
    where
        I: IntoIterator<Item = T>,
        I::IntoIter: Send + 'static,
    {
        Self::from_flow(source.into_iter().map(Ok))
    }

    /// A pipeline over a source of `Result`s, such as a reader or a feed. An `Err` passes through every stage and comes out
    /// at its position, as a [`StageError`] of the stage `source`.
    ///
    /// ```
    /// use std::io::BufRead;
    /// use subfeed::pipeline::Pipeline;
    /// let text: &[u8] = b"one\n\xff\nthree";
    /// let lengths = Pipeline::try_new(text.lines()).map("length", |line| line.len());
    /// let lengths: Vec<_> = lengths.run().items().collect();
    /// assert_eq!(*lengths[0].as_ref().unwrap(), 3);
    /// assert_eq!(lengths[1].as_ref().unwrap_err().stage(), "source");
    /// assert_eq!(*lengths[2].as_ref().unwrap(), 5);
    /// ```
    pub fn try_new<I, X>(source: I) -> Self
    where
        I: IntoIterator<Item = Result<T, X>>,
        I::IntoIter: Send + 'static,
        X: Into<BoxError>,
    {
        let name: Arc<str> = Arc::from("source");
        Self::from_flow(source.into_iter().map(move |item| {
            item.map_err(|error| Pass::Failed(StageError::refused(&name, 1, error.into())))
        }))
    }
}

impl<T: Send + 'static, M: Send + 'static> Pipeline<T, M> {
    /// A pipeline over a source of items and markers. A marker passes through every stage unchanged. It comes out after
    /// everything that went in before it, and before everything that went in after it.
    ///
    /// ```
    /// use subfeed::marker::Marked;
    /// use subfeed::pipeline::Pipeline;
    /// let documents = [Marked::Item(1), Marked::Item(2), Marked::Marker("batch 1"), Marked::Item(3)];
    /// let out: Vec<_> = Pipeline::with_markers(documents).map("double", |n| 2 * n).run().collect::<Result<_, _>>()?;
    /// assert_eq!(out, [Marked::Item(2), Marked::Item(4), Marked::Marker("batch 1"), Marked::Item(6)]);
    /// # Ok::<(), subfeed::pipeline::StageError>(())
    /// ```
    pub fn with_markers<I>(source: I) -> Self
    where
        I: IntoIterator<Item = Marked<T, M>>,
        I::IntoIter: Send + 'static,
    {
        Self::from_flow(source.into_iter().map(|entry| match entry {
            Marked::Item(item) => Ok(item),
            Marked::Marker(marker) => Err(Pass::Marker(marker)),
        }))
    }

    fn from_flow(source: impl Iterator<Item = Flow<T, M>> + Send + 'static) -> Self {
        let control = Control::new();
        let stop = control.clone();
        let mut source = source.fuse();
        let until_stopped =
            std::iter::from_fn(move || if stop.is_stopped() { None } else { source.next() });
        Self { flow: Box::new(until_stopped), control }
    }

    /// Starts now. A stage that turns each item into one result.
    #[cfg(feature = "threads")]
    pub fn map<U, F>(self, stage: impl Into<Stage>, f: F) -> Pipeline<U, M>
    where
        U: Send + 'static,
        F: Fn(T) -> U + Send + Sync + 'static,
    {
        self.map_init(stage, || (), move |(), item| f(item))
    }

    /// Starts now. [`map`](Pipeline::map) with a state for each worker.
    ///
    /// `init` makes the state when a worker gets its first item, and again after a panic. The state is dropped when the
    /// stage ends. So `init` and the state's `Drop` are the hooks for the start and the end of a worker. If `init` panics,
    /// the item that the worker was to process fails.
    #[cfg(feature = "threads")]
    pub fn map_init<U, S, N, F>(self, stage: impl Into<Stage>, init: N, f: F) -> Pipeline<U, M>
    where
        U: Send + 'static,
        S: Send + 'static,
        N: Fn() -> S + Send + Sync + 'static,
        F: Fn(&mut S, T) -> U + Send + Sync + 'static,
    {
        self.in_threads(stage.into(), init, move |state, item, _| Ok(Out::One(f(state, item))))
    }

    /// Starts now. A stage that turns each item into one result or an error. `?` and `.into()` convert any error, and any
    /// text, into a [`BoxError`].
    ///
    /// The closure gets the item by reference, because it may be called again with it ([`Stage::retries`]).
    ///
    /// ```
    /// use subfeed::pipeline::Pipeline;
    /// let numbers = Pipeline::new(["1", "two"]).try_map("parse", |text| {
    ///     let n: u32 = text.parse()?;
    ///     if n > 9 { return Err("too large".into()) }
    ///     Ok(n)
    /// });
    /// let results: Vec<_> = numbers.run().items().collect();
    /// assert_eq!(*results[0].as_ref().unwrap(), 1);
    /// assert!(results[1].is_err());
    /// ```
    #[cfg(feature = "threads")]
    pub fn try_map<U, F>(self, stage: impl Into<Stage>, f: F) -> Pipeline<U, M>
    where
        U: Send + 'static,
        F: Fn(&T) -> Result<U, BoxError> + Send + Sync + 'static,
    {
        let stage = stage.into();
        let retries = stage.retries;
        let step = move |(): &mut (), item: T, counts: &Counts| {
            let mut attempts = 1;
            loop {
                match f(&item) {
                    Ok(made) => return Ok(Out::One(made)),
                    Err(_) if attempts <= retries => {
                        attempts += 1;
                        Counts::add(&counts.retried, 1);
                    }
                    Err(error) => {
                        return Err(StageError::refused(&counts.name, attempts, error));
                    }
                }
            }
        };
        self.in_threads(stage, || (), step)
    }

    /// Starts now. A stage that turns each item into one result or none.
    #[cfg(feature = "threads")]
    pub fn filter_map<U, F>(self, stage: impl Into<Stage>, f: F) -> Pipeline<U, M>
    where
        U: Send + 'static,
        F: Fn(T) -> Option<U> + Send + Sync + 'static,
    {
        let step = move |(): &mut (), item: T, _: &Counts| Ok(f(item).map_or(Out::None, Out::One));
        self.in_threads(stage.into(), || (), step)
    }

    /// Starts now. A stage that turns each item into any number of results. All results of an item are made, and held in
    /// memory, before the first is passed on; for an endless number use [`iterate`](Pipeline::iterate).
    #[cfg(feature = "threads")]
    pub fn flat_map<V, F>(self, stage: impl Into<Stage>, f: F) -> Pipeline<V::Item, M>
    where
        V: IntoIterator,
        V::Item: Send + 'static,
        F: Fn(T) -> V + Send + Sync + 'static,
    {
        let step = move |(): &mut (), item: T, _: &Counts| {
            Ok(Out::Many(f(item).into_iter().collect::<Vec<_>>().into_iter()))
        };
        self.in_threads(stage.into(), || (), step)
    }

    /// Starts now. A stage whose worker processes turn each item into one reply. Failures are [`StageError`]s; a fatal one
    /// ends the pipeline after it.
    ///
    /// ```
    /// use subfeed::Template;
    /// use subfeed::pipeline::{Pipeline, Stage};
    /// let lines = Pipeline::new(["a", "b"])
    ///     .feed(Stage::new("cat").workers(2), Template::new("cat"))
    ///     .map("len", |line| line.len());
    /// let lens: Vec<_> = lines.run().items().collect::<Result<_, _>>()?;
    /// assert_eq!(lens, [1, 1]);
    /// # Ok::<(), subfeed::pipeline::StageError>(())
    /// ```
    pub fn feed<E, D>(
        self,
        stage: impl Into<Stage>,
        template: Template<E, D>,
    ) -> Pipeline<D::Output, M>
    where
        E: Encode<T> + 'static,
        D: Decode + Send + 'static,
        D::Output: Send + 'static,
    {
        let stage = stage.into();
        let counts = self.control.counts(&stage.name);
        let taken = Arc::clone(&counts);
        let source = self.flow.map(move |item| {
            if item.is_ok() {
                Counts::add(&taken.taken, 1);
            }
            item.map_err(Unnamed::Pass)
        });
        let feed = source.try_feed(template).workers(stage.workers).buffer(stage.buffer).start();
        let failing = Arc::clone(&counts);
        let named = feed.map(move |reply| match reply {
            Ok(reply) => Ok(Out::One(reply)),
            Err(Unnamed::Pass(pass)) => Err(pass),
            Err(Unnamed::Worker(error)) => {
                Counts::add(&failing.failed, 1);
                Err(Pass::Failed(StageError::worker(&failing.name, error)))
            }
        });
        let flow = Box::new(Results::new(named, counts, stage.on_end));
        Pipeline { flow, control: self.control }
    }

    /// Starts now. A stage that is any iterator over the items: it may keep state, look ahead, and yield any number of
    /// results. It runs on one thread of its own, whatever the stage's number of workers.
    ///
    /// The closure's iterator does not see markers. A marker that arrives while it pulls comes out before the result that it
    /// is making. So a marker behind the last item that it has taken waits until it pulls again, or ends. If it ends
    /// before its items do, the pipeline ends there, and all stages before it are stopped. If it panics, that is a failure,
    /// and the stage ends.
    ///
    /// ```
    /// use subfeed::pipeline::Pipeline;
    /// let sums = Pipeline::new(1..=4).iterate("sums", |items| {
    ///     items.scan(0, |sum, n| { *sum += n; Some(*sum) })
    /// });
    /// let sums: Vec<_> = sums.run().items().collect::<Result<_, _>>()?;
    /// assert_eq!(sums, [1, 3, 6, 10]);
    /// # Ok::<(), subfeed::pipeline::StageError>(())
    /// ```
    #[cfg(feature = "threads")]
    pub fn iterate<U, I, F>(self, stage: impl Into<Stage>, f: F) -> Pipeline<U, M>
    where
        U: Send + 'static,
        I: Iterator<Item = U> + Send + 'static,
        F: FnOnce(Items<T, M>) -> I + Send + 'static,
    {
        self.stage(stage.into(), 1, |flow, stage, pool, counts| {
            let iterate = Iterate::new(flow, f, Arc::clone(counts));
            relay(iterate, stage, pool)
        })
    }

    /// Starts now. A stage that gathers items into chunks of `size`.
    ///
    /// A chunk is smaller if its oldest item has waited for `within` (`None`: no limit), before a marker, and at the end. A
    /// failure does not wait for the chunk that is being gathered. The stage runs on one thread of its own, whatever its
    /// number of workers. A chunk may be larger than any window. A `size` of 0 is an error of the stage.
    ///
    /// ```
    /// use subfeed::pipeline::Pipeline;
    /// let chunks = Pipeline::new(0..5).chunk("pairs", 2, None);
    /// let chunks: Vec<_> = chunks.run().items().collect::<Result<_, _>>()?;
    /// assert_eq!(chunks, [vec![0, 1], vec![2, 3], vec![4]]);
    /// # Ok::<(), subfeed::pipeline::StageError>(())
    /// ```
    #[cfg(feature = "threads")]
    pub fn chunk(
        self,
        stage: impl Into<Stage>,
        size: usize,
        within: impl Into<Option<Duration>>,
    ) -> Pipeline<Vec<T>, M> {
        let (mut stage, within) = (stage.into(), within.into());
        if size == 0 {
            stage.refuse("a chunk needs room for at least one item, and its size is 0");
        }
        self.stage(stage, 1, |flow, stage, pool, counts| {
            Chunks::new(relay(flow, stage, pool), size, within, Arc::clone(counts))
        })
    }

    /// Turns each item, which must be iterable, into its own items. It needs no thread and has no name.
    pub fn flatten(self) -> Pipeline<T::Item, M>
    where
        T: IntoIterator,
        T::IntoIter: Send,
        T::Item: Send + 'static,
    {
        let mut flow = self.flow;
        let mut open: Option<T::IntoIter> = None;
        let flat = std::iter::from_fn(move || {
            loop {
                if let Some(item) = open.as_mut().and_then(Iterator::next) {
                    return Some(Ok(item));
                }
                match flow.next()? {
                    Ok(items) => open = Some(items.into_iter()),
                    Err(pass) => return Some(Err(pass)),
                }
            }
        });
        Pipeline { flow: Box::new(flat.fuse()), control: self.control }
    }

    /// Calls `f` with each marker at this point between the stages, after everything that the stages before it have made
    /// of earlier items. It needs no thread; `f` runs where the next stage pulls.
    pub fn inspect_markers(self, mut f: impl FnMut(&M) + Send + 'static) -> Self {
        let flow = self.flow.inspect(move |flow| {
            if let Err(Pass::Marker(marker)) = flow {
                f(marker);
            }
        });
        Self { flow: Box::new(flow), control: self.control }
    }

    /// A handle that watches the pipeline and stops it, from any thread.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// The results.
    pub fn run(self) -> Run<T, M> {
        Run::new(self.flow, self.control)
    }

    #[cfg(feature = "threads")]
    fn in_threads<U, S, N, F>(self, stage: Stage, init: N, f: F) -> Pipeline<U, M>
    where
        U: Send + 'static,
        S: Send + 'static,
        N: Fn() -> S + Send + Sync + 'static,
        F: Fn(&mut S, T, &Counts) -> Result<Out<U>, StageError> + Send + Sync + 'static,
    {
        let workers = stage.workers;
        self.stage(stage, workers, |flow, stage, pool, counts| {
            work(flow, stage, pool, counts, init, f)
        })
    }

    /// Adds a stage that runs in `n` threads.
    #[cfg(feature = "threads")]
    fn stage<U, I>(
        self,
        mut stage: Stage,
        n: usize,
        start: impl FnOnce(
            Box<dyn Iterator<Item = Flow<T, M>> + Send>,
            &Stage,
            &Arc<ThreadPool>,
            &Arc<Counts>,
        ) -> I,
    ) -> Pipeline<U, M>
    where
        U: Send + 'static,
        I: Iterator<Item = Flow<Out<U>, M>> + Send + 'static,
    {
        let counts = self.control.counts(&stage.name);
        let hook = stage.on_end.take();
        let pool = stage.validate().and_then(|()| threads(&stage, n));
        let flow: Box<dyn Iterator<Item = Flow<U, M>> + Send> = match pool {
            Ok(pool) => {
                let results = start(self.flow, &stage, &pool, &counts);
                Box::new(Results::new(results, counts, hook))
            }
            // Without numbers that make sense, or without threads, there is no stage: the pipeline is this failure.
            Err(error) => Box::new(std::iter::once(Err(Pass::Failed(error)))),
        };
        Pipeline { flow, control: self.control }
    }
}

impl<T, M> fmt::Debug for Pipeline<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("stages", &self.control.stages()).finish_non_exhaustive()
    }
}
