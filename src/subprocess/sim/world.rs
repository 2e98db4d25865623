//! The world around one scheduler: the event loop's role, played as `subprocess::event_loop` plays it, and the time.
//!
//! One thing happens at a time, in an order that the seed decides: a child acts, the source gives an
//! item, the consumer asks for one, a timer runs out. The event loop wakes only for what would really
//! wake it (an edge at a descriptor, a call from the other side, a timer), so that a lost wake-up is
//! seen as what it is: nothing can move, and it is not finished.

use std::sync::Arc;
use std::time::Duration;

use crate::record::Batch;
use crate::stats::{Counters, Stats};
use crate::subprocess::scheduler::{Plan, Scheduler, Slot, Stopping};
use crate::subprocess::session::Now;
use crate::template::policy::{DRAIN_GRACE, DROP_GRACE};
use crate::window::gate::Gate;
use crate::window::intake::Arrival;
use crate::window::packet::{Outcome, Span};

use super::check::{Failure, Oracle, conserved, must, offered};
use super::report::Report;
use super::rng::Rng;
use super::schedule::Schedule;
use super::script::whole;
use super::sink::Sink;
use super::source::Source;
use super::worker::Child;

/// One live child, as the event loop sees it.
#[derive(Debug)]
struct Ports {
    /// Which of all children it is.
    child: usize,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    watched: bool,
    writable: bool,
    readable: bool,
    stderr_readable: bool,
    exited: bool,
    /// What was written of the request that is not yet whole.
    tail: Vec<u8>,
}

pub(super) struct World {
    schedule: Schedule,
    rng: Rng,
    trace: bool,
    now: Now,
    steps: u64,
    gate: Arc<Gate>,
    scheduler: Scheduler,
    source: Source,
    sink: Sink,
    oracle: Oracle,
    /// Every child that ever was; its pid is its place here.
    children: Vec<Child>,
    ports: Vec<Option<Ports>>,
    to_write: Vec<usize>,
    to_read: Vec<usize>,
    hungry: bool,
    /// Something has called the event loop.
    woken: bool,
    dropped: bool,
    /// When the event loop heard of the drop.
    dropped_at: Option<Now>,
    /// Until when nobody may be signalled who was in good order then.
    spared_until: Option<Now>,
    arrived: u64,
    start_failures: u64,
    abandoned: u64,
    /// The most bytes of replies that were ever held because their session was not proven.
    unproven: usize,
    /// The bytes that errors have kept of their packets and of stderr.
    errors: usize,
    gave_up: bool,
    lost_since: Option<Now>,
}

const MOST_STEPS: u64 = 50_000;
const COME_OUT_WITHIN: Duration = Duration::from_millis(50);
const READS_IN_A_ROW: usize = 4;
const SLICES: usize = 16;

impl World {
    pub(super) fn new(seed: u64, trace: bool) -> Self {
        let schedule = Schedule::new(seed);
        if trace {
            eprintln!("{schedule:#?}");
        }
        let gate = Arc::new(Gate::new(schedule.window, schedule.max_bytes));
        let scheduler = Scheduler::new(Plan {
            spec: Arc::clone(&schedule.spec),
            workers: schedule.workers,
            order: schedule.order,
            origin: schedule.origin,
            keep_requests: schedule.keep_requests,
            drain: false,
            backlog: schedule.backlog,
            gate: Arc::clone(&gate),
            stats: Arc::new(Stats::new(Arc::clone(&gate))),
        });
        let mut rng = Rng::new(!seed);
        Self {
            source: Source::new(Rng::new(rng.next())),
            sink: Sink::new(&schedule, Rng::new(rng.next())),
            oracle: Oracle::default(),
            children: Vec::new(),
            ports: (0..schedule.workers).map(|_| None).collect(),
            to_write: Vec::new(),
            to_read: Vec::new(),
            hungry: false,
            woken: false,
            dropped: false,
            dropped_at: None,
            spared_until: None,
            abandoned: 0,
            unproven: 0,
            errors: 0,
            arrived: 0,
            start_failures: 0,
            gave_up: false,
            lost_since: None,
            now: Now::ZERO,
            steps: 0,
            gate,
            scheduler,
            schedule,
            rng,
            trace,
        }
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>12.6} {}", self.now.as_secs_f64(), what());
        }
    }

    /// Plays the schedule to its end.
    pub(super) fn run(&mut self) -> Result<Report, Failure> {
        let report = self.drive().and_then(|()| self.finish());
        if self.trace && report.is_err() {
            self.dump();
        }
        report
    }

    /// Where everything is, for whoever reads a trace.
    fn dump(&self) {
        let scheduler = &self.scheduler;
        eprintln!(
            "{} pulled, {} yielded, {} resolved, {} of {} bytes are held",
            self.source.pulled,
            self.sink.yielded,
            scheduler.resolved,
            self.gate.held(),
            self.schedule.max_bytes
        );
        let place = |run: &crate::record::Run| {
            let first = run.first().since(self.schedule.origin);
            format!("{first}..{}", first + run.len() as u64)
        };
        for job in &scheduler.pending {
            eprintln!("pending {} {:?}", place(&job.run), job.care);
        }
        for (slot, session) in scheduler.slots.iter().enumerate() {
            let Slot::Live(session) = session else {
                eprintln!("slot {slot}: {session:?}");
                continue;
            };
            let in_flight: Vec<_> = session.in_flight.iter().map(place).collect();
            eprintln!(
                "slot {slot}: session {}, {:?}, {:?}, in flight {in_flight:?}, owes {}, holds {}, \
                 proven {}, prompt {}, quarantined {}, depth {}, timer {:?}, may be read {}",
                session.serial,
                session.phase,
                session.why,
                session.owed(),
                session.held_count,
                session.proven,
                session.prompt,
                session.quarantined,
                session.depth.limit(),
                session.timer,
                scheduler.may_read(slot)
            );
        }
    }

    /// The event loop's loop.
    fn drive(&mut self) -> Result<(), Failure> {
        loop {
            self.steps += 1;
            must!(self.steps < MOST_STEPS, "no end after {MOST_STEPS} steps");
            self.turn()?;
            // One death may fail a window of packets, each of which says what it knows.
            let failed = |span: &&Span| matches!(span.outcome, Outcome::Failed(_));
            let errors = self.scheduler.out.iter().filter(failed);
            self.errors += errors.map(|span| span.weight).sum::<usize>();
            self.sink.put(&mut self.scheduler.out, self.now);
            self.scheduler.spent.clear();
            self.check()?;
            if self.scheduler.is_finished() {
                return Ok(());
            }
            if let Some(slot) = self.scheduler.next_start(self.now) {
                self.launch(slot)?;
                self.wait(Some(self.now))?;
                continue;
            }
            let reading = self.to_read.iter().any(|&slot| self.scheduler.may_read(slot));
            if reading || self.scheduler.can_dispatch() || !self.scheduler.actions.is_empty() {
                self.wait(Some(self.now))?;
                continue;
            }
            let asking = self.scheduler.wants_input();
            if asking {
                self.hungry = true;
                if self.take_input() {
                    self.hungry = false;
                    continue;
                }
                if !self.scheduler.intake_is_lost() || !self.source.is_parked() {
                    self.lost_since = None;
                } else if self.now - *self.lost_since.get_or_insert(self.now) >= COME_OUT_WITHIN {
                    self.hungry = false;
                    self.scheduler.give_up_intake();
                    self.gave_up = true;
                    continue;
                }
            }
            if !asking {
                self.lost_since = None;
            }
            let given_up = self.lost_since.map(|since| since + COME_OUT_WITHIN);
            let timer = self.scheduler.next_timer().into_iter().chain(given_up).min();
            self.wait(timer)?;
            self.hungry = false;
        }
    }

    /// The event loop's thread is over; the consumer takes what is left.
    fn finish(&mut self) -> Result<Report, Failure> {
        self.say(|| "the event_loop is done".to_owned());
        for slot in &self.scheduler.slots {
            must!(matches!(slot, Slot::Vacant { .. }), "a slot is left: {slot:?}");
        }
        for child in &self.children {
            must!(!child.is_alive() || child.killed, "child {} is left", child.pid);
        }
        if let Some(dropped) = self.dropped_at {
            let (took, most) = (self.now - dropped, self.longest_drop());
            must!(took <= most, "a drop took {took:?}, and {most:?} is the bound");
        }
        let end = self.scheduler.take_end();
        self.gate.stop();
        self.sink.put_end(end, self.now);
        while !self.sink.done && !self.sink.dropped {
            let Some(at) = self.sink.wake else {
                return Err(Failure::new("the consumer sleeps after the end"));
            };
            self.now = self.now.max(at);
            self.steps += 1;
            self.consume()?;
        }
        if self.sink.done {
            let pulled = self.source.pulled;
            let yielded = self.sink.yielded;
            // A source that was inside `next` when the feed had failed may come out with one more.
            let late = u64::from(self.gave_up && pulled > yielded);
            must!(pulled == yielded + late, "{pulled} inputs were pulled, {yielded} yielded");
            let held = self.gate.held() - self.source.weight();
            must!(held == 0, "{held} bytes are held at the end");
            if self.schedule.spec.check.is_none() {
                for child in &self.children {
                    self.oracle.noticed(&self.schedule, child)?;
                }
            }
            if self.oracle.fatal.is_none() {
                let total = self.schedule.input.total;
                must!(total == Some(pulled), "{pulled} inputs of {total:?} were pulled");
            }
        }
        let counters = &self.scheduler.stats.counters;
        let count = |counter: &std::sync::atomic::AtomicU64| {
            counter.load(std::sync::atomic::Ordering::Relaxed)
        };
        Ok(Report {
            steps: self.steps,
            sessions: self.children.len() as u64,
            replies: self.oracle.replies,
            failed: self.oracle.failed,
            fatal: self.oracle.fatal.is_some().into(),
            dropped: self.sink.dropped.into(),
            recycles: count(&counters.recycles),
            redeliveries: count(&counters.redeliveries),
            signals: count(&counters.signals),
            abandoned: self.abandoned,
        })
    }

    /// What a drop may take: the grace, the kill sequence, what cannot be killed; and some time to do it in.
    fn longest_drop(&self) -> Duration {
        let policy = &self.schedule.spec.policy;
        let rungs = policy.kill_sequence.len().saturating_sub(1);
        let waits = policy.kill_sequence[..rungs].iter().map(|(_, wait)| *wait);
        let at_work = Duration::from_millis(50);
        let sum = waits.fold(DROP_GRACE + DRAIN_GRACE + at_work, Duration::saturating_add);
        sum.saturating_add(policy.kill_grace())
    }

    fn check(&mut self) -> Result<(), Failure> {
        conserved(&self.scheduler, &self.source, &self.sink, self.arrived)?;
        offered(&self.scheduler)?;
        if !self.dropped {
            let (held, most) = (self.gate.held(), self.schedule.max_bytes);
            // One read of each worker, and one reply, may come on top.
            let room = self.schedule.manners.stdout_room + 1500;
            // Replies that are not believed before their session has ended cannot make room before that.
            let sessions = self.scheduler.slots.iter().filter_map(|slot| match slot {
                Slot::Live(session) => Some(session),
                _ => None,
            });
            let unproven: usize =
                sessions.flat_map(|session| &session.held).map(|held| held.at.len()).sum();
            // Once believed they are still there until the consumer takes them.
            self.unproven = self.unproven.max(unproven);
            let excused =
                self.schedule.workers * room + self.source.heaviest + self.unproven + self.errors;
            let bound = most.saturating_add(excused);
            must!(held <= bound, "{held} bytes are held, {most} allowed and {bound} excused");
        }
        Ok(())
    }

    /// Everything that the event loop can do now.
    fn turn(&mut self) -> Result<(), Failure> {
        let now = self.now;
        self.scheduler.time_is(now);
        if self.dropped {
            self.spared_until.get_or_insert(match self.scheduler.stopping {
                None => now + DROP_GRACE,
                Some(_) => Now::ZERO,
            });
            self.dropped_at.get_or_insert(now);
            self.scheduler.cancel();
        }
        self.read()?;
        self.scheduler.tick(now);
        while self.scheduler.wants_input() && self.take_input() {}
        self.scheduler.dispatch(now);
        self.scheduler.close_if_done(now);
        self.perform()?;
        self.to_write.append(&mut self.scheduler.to_write);
        self.write()?;
        self.perform()
    }

    fn take_input(&mut self) -> bool {
        let Some(arrival) = self.source.take(&self.gate) else { return false };
        match &arrival {
            Arrival::Batch(batch) => {
                self.say(|| format!("arrived {:?} + {}", batch.first, batch.len()));
                self.arrived += batch.len() as u64;
            }
            Arrival::Settled(span) => self.arrived += span.count,
            Arrival::End { pulled, .. } => self.say(|| format!("the input ends after {pulled}")),
        }
        self.scheduler.arrived(arrival, self.now);
        true
    }

    fn read_bytes(&self) -> u64 {
        let counters: &Counters = self.scheduler.counters();
        counters.read_bytes.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[path = "effects.rs"]
mod effects;

#[path = "pipes.rs"]
mod pipes;

#[path = "time.rs"]
mod time;

/// What follows the last whole request in `tail` and `bytes`.
fn unfinished(schedule: &Schedule, tail: &mut Vec<u8>, bytes: &[u8]) {
    tail.extend_from_slice(bytes);
    while let Some(len) = whole(schedule.manners.talk, tail) {
        tail.drain(..len);
    }
}

fn is_dropped(scheduler: &Scheduler) -> bool {
    scheduler.stopping == Some(Stopping::Dropped)
}
