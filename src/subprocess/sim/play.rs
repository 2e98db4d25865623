//! One seed, played from its start to its end: the real event loop, and the checks after each of its turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use crate::stats::{Monitor, Stats};
use crate::subprocess::event_loop::EventLoop;
use crate::subprocess::scheduler::{Audit, Plan, Scheduler};
use crate::subprocess::swarm::Swarm;
use crate::template::policy::{DRAIN_GRACE, DROP_GRACE, Halt};
use crate::watch::JobLog;
use crate::window::gate::Gate;
use crate::window::outbox::Outbox;
use crate::window::seam::{Bounds, Ends, attach};

use super::check::{Failure, conserved, must};
use super::disk::Disk;
use super::report::Report;
use super::rng::{Rng, stir};
use super::schedule::Schedule;
use super::sink::Sink;
use super::source::Source;
use super::world::{MOST_STEPS, World};

pub(super) struct Play {
    schedule: Arc<Schedule>,
    gate: Arc<Gate>,
    outbox: Arc<Outbox>,
    event_loop: EventLoop<Swarm, World>,
    monitor: Monitor,
    /// The most bytes of replies that were ever held because their session was not proven.
    unproven: usize,
}

pub(super) fn bounds(schedule: &Schedule) -> Bounds {
    Bounds {
        // The reading intake hands over by itself, and cannot wait here.
        batches: if schedule.bytes.is_some() { usize::MAX } else { schedule.input.waiting },
        order: schedule.order,
        first: schedule.origin,
        ..Bounds::new(schedule.window as usize, schedule.max_bytes)
    }
}

pub(super) fn plan(
    schedule: &Schedule,
    gate: &Arc<Gate>,
    stats: &Arc<Stats>,
    log: Option<JobLog>,
) -> Plan {
    Plan {
        spec: Arc::clone(&schedule.spec),
        workers: schedule.workers,
        order: schedule.order,
        origin: schedule.origin,
        keep_requests: schedule.keep_requests,
        drain: schedule.drain,
        backlog: schedule.backlog,
        most: schedule.most,
        gate: Arc::clone(gate),
        stats: Arc::clone(stats),
        log,
    }
}

impl Play {
    pub(super) fn new(seed: u64, trace: bool) -> Self {
        Self::of(Schedule::new(seed), seed, trace)
    }

    /// The same, with this call of the system failing.
    pub(super) fn failing(mut self, call: u64) -> Self {
        self.event_loop.os().fails = Some(call);
        self
    }

    /// This schedule, with chance from this seed.
    pub(super) fn of(schedule: Schedule, seed: u64, trace: bool) -> Self {
        let schedule = Arc::new(schedule);
        if trace {
            eprintln!("{schedule:#?} {:#?}", schedule.spec.policy);
        }
        let woken = Arc::new(AtomicBool::new(false));
        let call = Arc::clone(&woken);
        let Ends { intake, supply, outbox, mut outlet } =
            attach(bounds(&schedule), move || call.store(true, SeqCst));
        outlet.at_most(schedule.most.map(|most| most as usize));
        let gate = Arc::clone(supply.gate());
        gate.is_pulled_without_a_thread();
        let stats = Arc::new(Stats::new(Arc::clone(&gate), schedule.workers));
        let monitor = Monitor(Arc::clone(&stats));
        let (log, disk) = schedule
            .log
            .map(|log| {
                let (ours, theirs) = JobLog::without_thread(log.room);
                (ours, Disk::new(log, theirs, Rng::new(stir(seed))))
            })
            .unzip();
        let scheduler = Scheduler::new(plan(&schedule, &gate, &stats, log));
        let mut rng = Rng::new(!seed);
        let source = Source::new(&schedule, intake, Rng::new(rng.next()));
        let sink = Sink::new(outlet, Rng::new(rng.next()));
        let mut world =
            World::new(Arc::clone(&schedule), Arc::clone(&gate), source, sink, woken, rng, trace);
        world.disk = disk;
        let swarm = Swarm::new(scheduler, supply, Arc::clone(&outbox));
        let event_loop = EventLoop::new(swarm, world, schedule.workers);
        Self { schedule, gate, outbox, event_loop, monitor, unproven: 0 }
    }

    pub(super) fn run(&mut self) -> Result<Report, Failure> {
        let report = self.play().and_then(|()| self.finish());
        if report.is_err() {
            let text = format!("{:#?}", self.event_loop.machine().scheduler().audit());
            self.event_loop.os().say(|| text);
        }
        report
    }

    /// What has become of each record that was yielded, by position in the input.
    pub(super) fn outcomes(&mut self) -> Vec<(u64, &'static str)> {
        let became = self.event_loop.os().oracle.became.iter();
        let mut all: Vec<_> = became.map(|(k, became)| (*k, became.name())).collect();
        all.sort_unstable();
        all
    }

    fn play(&mut self) -> Result<(), Failure> {
        loop {
            let began = self.event_loop.os().now;
            let ended = self.event_loop.step();
            let world = self.event_loop.os();
            world.verdict()?;
            world.steps += 1;
            must!(world.steps < MOST_STEPS, "no end after {MOST_STEPS} steps");
            let now = world.now;
            world.sink.hear(now);
            let audit = self.event_loop.machine().scheduler().audit().map_err(Failure::new)?;
            if audit.stopping && self.event_loop.os().stopped_at.is_none() {
                let world = self.event_loop.os();
                world.stopped_at = Some(began);
                world.stop_was_seen_at = Some(now);
                if world.faulted.is_none() {
                    world.all_whole()?;
                }
            }
            self.check(&audit)?;
            if ended {
                return Ok(());
            }
        }
    }

    fn check(&mut self, audit: &Audit) -> Result<(), Failure> {
        let (swarm, world) = self.event_loop.parts();
        conserved(audit, &self.gate, &world.source, &world.sink, swarm.arrived, swarm.handed.0)?;
        if world.dropped_at.is_none() {
            let (held, most) = (self.gate.held(), self.schedule.max_bytes);
            // One read of each worker, and one reply, may come on top.
            let outputs = 1 + usize::from(self.schedule.manners.ends.side_output);
            let room = outputs * self.schedule.manners.stdout_room + 1500;
            // Replies that are not believed before their session has ended cannot make room before that.
            let unproven = audit.sessions.iter().map(|session| session.held).sum();
            // Once believed they are still there until the consumer takes them.
            self.unproven = self.unproven.max(unproven);
            // What is taken back from a pipe is held again.
            let back = if self.schedule.drain { self.schedule.workers << 16 } else { 0 };
            let excused = back
                + self.schedule.workers * room
                + world.source.heaviest
                + self.unproven
                + swarm.handed.1;
            let bound = most.saturating_add(excused);
            must!(held <= bound, "{held} bytes are held, {most} allowed and {bound} excused");
        }
        Ok(())
    }

    /// How long a drop may take: as the documentation of `Feed` says, and the time to do it.
    fn longest_drop(&self) -> Duration {
        let policy = &self.schedule.spec.policy;
        let rungs = policy.kill_sequence.len().saturating_sub(1);
        let waits = policy.kill_sequence[..rungs].iter().map(|(_, wait)| *wait);
        // What is left of a job log is waited for.
        let log = if self.schedule.log.is_some() { 100 } else { 0 };
        let at_work = Duration::from_millis(50 + log);
        let sum = waits.fold(DROP_GRACE + DRAIN_GRACE + at_work, Duration::saturating_add);
        sum.saturating_add(policy.kill_grace())
    }

    /// How many sessions may be started in all (DESIGN: never stuck). What was asked for by settings, a process
    /// for so many records, is covered by the packets; where a start may come to nothing without end there is
    /// a backoff.
    fn most_sessions(&self, pulled: u64, time: Duration) -> u64 {
        let policy = &self.schedule.spec.policy;
        let workers = self.schedule.workers as u64;
        let give_up = u64::from(policy.give_up.min(64));
        let window = self.schedule.window.min(pulled.max(1));
        // Each reply resets the backoff, which then doubles up to its cap again.
        let ramp =
            (policy.backoff_cap.as_micros() / policy.backoff.as_micros().max(1)).max(1).ilog2();
        let by_packets = pulled
            * (1 + u64::from(policy.retries))
            * (3 + u64::from(window.ilog2()) + u64::from(ramp));
        let backoff = policy.backoff_cap.max(Duration::from_micros(1));
        let by_time = (time.as_nanos() / backoff.as_nanos()).min(1 << 40) as u64;
        workers * (give_up + 1) + by_packets + workers * by_time
    }

    /// The event loop is over; the consumer takes what is left.
    fn finish(&mut self) -> Result<Report, Failure> {
        let longest_drop = self.longest_drop();
        let world = self.event_loop.os();
        let (pulled, ended_at, started) =
            (world.source.pulled, world.now, world.children.len() as u64);
        let most = self.most_sessions(pulled, ended_at);
        must!(started <= most, "{started} sessions were started, and {most} is the bound");
        let hint = self.monitor.snapshot().hint;
        let end = self.event_loop.machine().take_end();
        self.gate.stop();
        self.outbox.end(end);
        let (swarm, world) = self.event_loop.parts();
        world.say(|| "the event loop is done".to_owned());
        let audit = swarm.scheduler().audit().map_err(Failure::new)?;
        must!(audit.all_vacant, "a session is left: {audit:?}");
        for child in &world.children {
            must!(!child.is_alive() || child.killed, "child {} is left", child.pid);
        }
        if let Some(dropped) = world.dropped_at {
            let took = world.now - dropped;
            let longest_drop = longest_drop.saturating_add(world.lateness);
            must!(took <= longest_drop, "a drop took {took:?}, and {longest_drop:?} is the bound");
        }
        world.sink.hear(world.now);
        while !world.sink.done && !world.sink.is_dropped() {
            if world.sink.follows {
                world.sink.wake = Some(world.now);
            }
            let Some(at) = world.sink.wake else {
                return Err(Failure::new("the consumer sleeps after the end"));
            };
            world.now = world.now.max(at);
            world.steps += 1;
            world.consume()?;
        }
        if world.sink.done {
            let pulled = world.source.pulled;
            let yielded = world.sink.yielded;
            // A source that was inside `next` when the feed had failed may come out with one more, a reader with what it
            // has read.
            let most = if self.schedule.bytes.is_some() { u64::MAX } else { 1 };
            let late = if swarm.gave_up() { pulled.saturating_sub(yielded).min(most) } else { 0 };
            if !self.schedule.drain {
                must!(pulled == yielded + late, "{pulled} inputs were pulled, {yielded} yielded");
            }
            let held = self.gate.held() + swarm.arrived.1 - world.source.given();
            must!(held == 0, "{held} bytes are held at the end");
            if world.source.has_failed() {
                must!(world.oracle.fatal.is_some(), "nobody says that the reader has failed");
            }
            if world.faulted.is_some() {
                // Whom it has cost what depends on the call.
            } else if self.schedule.drain {
                if world.oracle.fatal.is_none() {
                    world.oracle.all_read(&self.schedule, &world.children)?;
                }
            } else if self.schedule.spec.check.is_none() {
                for child in &world.children {
                    world.oracle.noticed(&self.schedule, child)?;
                }
            }
            if let Halt::Soon(most) | Halt::Now(most) = self.schedule.spec.policy.halt {
                let (failed, halted) = (world.oracle.failed, world.oracle.fatal.is_some());
                must!(failed < most.max(1) || halted, "{failed} failures end nothing");
            }
            if world.oracle.fatal.is_none() {
                let total = self.schedule.input.total;
                must!(total == Some(pulled), "{pulled} inputs of {total:?} were pulled");
            }
        }
        let counters = &swarm.scheduler().stats().counters;
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        if let Some(disk) = &world.disk {
            let whole = world.sink.done && !swarm.gave_up();
            disk.check(&self.schedule, &world.oracle, &world.children, whole, world.now)?;
            let told = world.oracle.log_failures;
            must!(!whole || told == usize::from(disk.has_failed()), "told {told} times of the log");
        }
        Ok(Report {
            steps: world.steps,
            sessions: world.children.len() as u64,
            replies: world.oracle.replies,
            failed: world.oracle.failed,
            fatal: world.oracle.fatal.is_some().into(),
            dropped: world.sink.is_dropped().into(),
            recycles: count(&counters.recycles),
            redeliveries: count(&counters.redeliveries),
            signals: count(&counters.signals),
            abandoned: world.abandoned,
            calls: world.calls,
            ended_at,
            cause: world.oracle.fatal.clone(),
            hint,
        })
    }
}
