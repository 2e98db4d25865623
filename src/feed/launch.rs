//! The start of a feed of processes: its window, its event loop, its intake.

use std::sync::Arc;

use crate::error::Error;
use crate::feed::watched::Watch;
use crate::stats::Stats;
use crate::subprocess::readiness::Readiness;
use crate::subprocess::scheduler::{Plan, Scheduler};
use crate::subprocess::swarm;
use crate::template::Spec;
use crate::template::channel::Stream;
use crate::tuning::BACKLOG_BYTES;
use crate::window::intake::Intake;
use crate::window::joins::{ExecutorThread, IntakeThread};
use crate::window::outlet::Outlet;
use crate::window::packing::Scribe;
use crate::window::seam::{Bounds, Ends, attach};
use crate::window::workers::Workers;

/// More workers than any system has descriptors for. There is a slot for each from the start.
const MOST_WORKERS: usize = 1 << 18;

/// The intake's thread, unless a scope keeps it.
pub(super) type Started = std::io::Result<Option<IntakeThread>>;

/// How the template writes requests.
pub(super) fn scribe(spec: &Spec) -> Scribe {
    let sides = spec.channels.side_inputs.iter().filter(|side| side.file.is_none());
    let framings = std::iter::once(&spec.requests).chain(sides.map(|side| &side.framing));
    Scribe {
        framings: framings.cloned().collect(),
        names: spec.side_input_names(),
        sentinel: spec.replies.as_sentinel().cloned(),
    }
}

/// What a feed is started from.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) spec: Spec,
    pub(crate) workers: Workers,
    pub(crate) bounds: Bounds,
    pub(crate) drain: bool,
    pub(super) watch: Watch,
    /// Requests are kept beside replies, for the errors of `decode`.
    pub(crate) keep_requests: bool,
    /// How many items there are at most, where the source says so.
    pub(crate) most: Option<u64>,
}

/// A feed that runs, or cannot.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) outlet: Outlet,
    pub(crate) stats: Arc<Stats>,
    pub(crate) spec: Arc<Spec>,
    /// It yields one error and nothing else.
    pub(crate) failed: bool,
}

impl Launch {
    fn validate(&self, workers: usize) -> Result<(), Error> {
        if workers == 0 {
            return Err(Error::config("a feed needs at least one worker, and n is 0"));
        }
        if workers > MOST_WORKERS {
            return Err(Error::config(format!(
                "a feed cannot have {workers} workers: {MOST_WORKERS} at most"
            )));
        }
        if self.bounds.packets == 0 {
            return Err(Error::config(
                "a feed needs room for at least one packet, and buffer_size is 0",
            ));
        }
        if !self.drain && matches!(self.spec.channels.stdout, Stream::To(_)) {
            return Err(Error::config(
                "the worker's stdout is redirected, so no reply can come back",
            )
            .hint("feed it with FeedBuilder::drain"));
        }
        self.watch.validate(self.drain)?;
        self.spec.validate()?;
        if matches!(self.spec.channels.stdin, Stream::Pipe) {
            return Ok(());
        }
        if self.spec.side_input_names().is_empty() {
            return Err(Error::config(
                "the worker's stdin is redirected and there is no side input that the feed writes, so no request can reach it",
            )
            .hint("declare one with Template::side_input"));
        }
        if !self.spec.is_encoded {
            return Err(Error::config(
                "the worker's stdin is redirected, and without Template::encode each item is written to stdin, so none would reach the worker",
            )
            .hint("write each to a side input with Template::encode"));
        }
        Ok(())
    }

    /// Starts it, unless `problem` says why not; `spawn_intake` decides where the intake runs.
    pub(crate) fn start(
        self,
        problem: Option<Error>,
        spawn_intake: impl FnOnce(Intake, &Spec) -> Started,
    ) -> Launched {
        let workers = self.workers.number();
        let valid = problem.map_or_else(|| self.validate(workers), Err);
        let poller = valid.and_then(|()| {
            Readiness::new()
                .map(Arc::new)
                .map_err(|error| Error::no_thread("the feed's poller could not be created", error))
        });
        // The event loop's alone: its descriptors are closed with it, even while the window lives on.
        let to_wake = poller.as_ref().map(Arc::downgrade).unwrap_or_default();
        let bounds = self.bounds;
        let Ends { intake, supply, outbox, mut outlet } = attach(bounds, move || {
            if let Some(poller) = to_wake.upgrade() {
                poller.wake();
            }
        });
        outlet.panics_come_last();
        let mut spec = self.spec;
        let poller = poller.and_then(|poller| spec.begin(workers).map(|()| poller));
        let spec = Arc::new(spec);
        // A number of workers that is refused has no place here.
        let stats = Stats::new(Arc::clone(outlet.gate()), workers.min(MOST_WORKERS));
        let stats = Arc::new(self.watch.recording(stats, &spec));
        let started = poller.and_then(|poller| {
            let log = self.watch.open_log(outlet.gate())?;
            let scheduler = Scheduler::new(Plan {
                spec: Arc::clone(&spec),
                workers,
                order: bounds.order,
                origin: bounds.first,
                keep_requests: self.keep_requests,
                drain: self.drain,
                backlog: BACKLOG_BYTES,
                most: self.most,
                gate: Arc::clone(outlet.gate()),
                stats: Arc::clone(&stats),
                log,
            });
            let not_started =
                |error| Error::no_thread("a thread of the feed could not be started", error);
            let event_loop = ExecutorThread::spawn("subfeed-loop", move || {
                swarm::run(scheduler, supply, outbox, poller);
            });
            outlet.keep_executor(event_loop.map_err(not_started)?);
            outlet.keep_intake(spawn_intake(intake, &spec).map_err(not_started)?);
            Ok(())
        });
        let failed = started.is_err();
        if let Err(error) = started {
            outlet.fail(error);
        }
        Launched { outlet, stats, spec, failed }
    }
}
