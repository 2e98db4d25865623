//! The world around one core: the driver's role, played as `swarm::driver` plays it, and the time.
//!
//! One thing happens at a time, in an order that the seed decides: a child acts, the source gives an
//! item, the consumer asks for one, a timer runs out. The driver wakes only for what would really
//! wake it (an edge at a descriptor, a call from the other side, a timer), so that a lost wake-up is
//! seen as what it is: nothing can move, and it is not finished.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::record::Batch;
use crate::stats::{Counters, Stats};
use crate::stream::gate::Gate;
use crate::stream::intake::Arrival;
use crate::swarm::core::{Action, Core, Plan, Slot, StartError, Stopping, Verdict};
use crate::swarm::life::Now;

use super::check::{Failure, Oracle, conserved, is_torn, must};
use super::rng::Rng;
use super::schedule::{Family, Schedule};
use super::script::{Script, whole};
use super::sink::Sink;
use super::source::Source;
use super::worker::Child;

/// One live child, as the driver sees it.
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

/// What came of a seed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Report {
    pub(super) steps: u64,
    pub(super) lives: u64,
    pub(super) replies: u64,
    pub(super) failed: u64,
    pub(super) fatal: u64,
    pub(super) dropped: u64,
    pub(super) recycles: u64,
    pub(super) redeliveries: u64,
    pub(super) signals: u64,
}

pub(super) struct World {
    schedule: Schedule,
    rng: Rng,
    trace: bool,
    now: Now,
    steps: u64,
    gate: Arc<Gate>,
    core: Core,
    source: Source,
    sink: Sink,
    oracle: Oracle,
    /// Every child that ever was; its pid is its place here.
    children: Vec<Child>,
    ports: Vec<Option<Ports>>,
    to_write: Vec<usize>,
    to_read: Vec<usize>,
    hungry: bool,
    /// Something has called the driver.
    woken: bool,
    dropped: bool,
    arrived: u64,
    start_failures: u64,
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
        let core = Core::new(Plan {
            spec: Arc::clone(&schedule.spec),
            workers: schedule.workers,
            order: schedule.order,
            origin: schedule.origin,
            keep_requests: schedule.keep_requests,
            drain: false,
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
            arrived: 0,
            start_failures: 0,
            gave_up: false,
            lost_since: None,
            now: Now::ZERO,
            steps: 0,
            gate,
            core,
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
        let core = &self.core;
        eprintln!(
            "{} pulled, {} yielded, {} resolved, {} of {} bytes are held",
            self.source.pulled,
            self.sink.yielded,
            core.resolved,
            self.gate.held(),
            self.schedule.max_bytes
        );
        let place = |run: &crate::record::Run| {
            let first = run.first().since(self.schedule.origin);
            format!("{first}..{}", first + run.len() as u64)
        };
        for job in &core.pending {
            eprintln!("pending {} {:?}", place(&job.run), job.care);
        }
        for (slot, life) in core.slots.iter().enumerate() {
            let Slot::Live(life) = life else {
                eprintln!("slot {slot}: {life:?}");
                continue;
            };
            let in_flight: Vec<_> = life.in_flight.iter().map(place).collect();
            eprintln!(
                "slot {slot}: life {}, {:?}, {:?}, in flight {in_flight:?}, owes {}, holds {}, \
                 proven {}, prompt {}, quarantined {}, depth {}, timer {:?}, may be read {}",
                life.serial,
                life.phase,
                life.why,
                life.owed(),
                life.held_count,
                life.proven,
                life.prompt,
                life.quarantined,
                life.depth.limit(),
                life.timer,
                core.may_read(slot)
            );
        }
    }

    /// The driver's loop.
    fn drive(&mut self) -> Result<(), Failure> {
        loop {
            self.steps += 1;
            must!(self.steps < MOST_STEPS, "no end after {MOST_STEPS} steps");
            self.turn()?;
            self.sink.put(&mut self.core.out, self.now);
            self.core.spent.clear();
            self.check()?;
            if self.core.is_finished() {
                return Ok(());
            }
            if let Some(slot) = self.core.next_start(self.now) {
                self.launch(slot)?;
                self.wait(Some(self.now))?;
                continue;
            }
            let reading = self.to_read.iter().any(|&slot| self.core.may_read(slot));
            if reading || self.core.can_dispatch() || !self.core.actions.is_empty() {
                self.wait(Some(self.now))?;
                continue;
            }
            let asking = self.core.wants_input();
            if asking {
                self.hungry = true;
                if self.take_input() {
                    self.hungry = false;
                    continue;
                }
                if !self.core.intake_is_lost() || !self.source.is_parked() {
                    self.lost_since = None;
                } else if self.now - *self.lost_since.get_or_insert(self.now) >= COME_OUT_WITHIN {
                    self.hungry = false;
                    self.core.give_up_intake();
                    self.gave_up = true;
                    continue;
                }
            }
            if !asking {
                self.lost_since = None;
            }
            let given_up = self.lost_since.map(|since| since + COME_OUT_WITHIN);
            let timer = self.core.next_timer().into_iter().chain(given_up).min();
            self.wait(timer)?;
            self.hungry = false;
        }
    }

    /// The driver's thread is over; the consumer takes what is left.
    fn finish(&mut self) -> Result<Report, Failure> {
        self.say(|| "the driver is done".to_owned());
        for slot in &self.core.slots {
            must!(matches!(slot, Slot::Vacant { .. }), "a slot is left: {slot:?}");
        }
        for child in &self.children {
            must!(!child.is_alive() || child.killed, "child {} is left", child.pid);
        }
        let end = self.core.take_end();
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
        let counters = &self.core.stats.counters;
        let count = |counter: &std::sync::atomic::AtomicU64| {
            counter.load(std::sync::atomic::Ordering::Relaxed)
        };
        Ok(Report {
            steps: self.steps,
            lives: self.children.len() as u64,
            replies: self.oracle.replies,
            failed: self.oracle.failed,
            fatal: self.oracle.fatal.is_some().into(),
            dropped: self.sink.dropped.into(),
            recycles: count(&counters.recycles),
            redeliveries: count(&counters.redeliveries),
            signals: count(&counters.signals),
        })
    }

    fn check(&mut self) -> Result<(), Failure> {
        conserved(&self.core, &self.source, &self.sink, self.arrived)?;
        if !self.dropped {
            let (held, most) = (self.gate.held(), self.schedule.max_bytes);
            // One read of each worker, and one reply, may come on top.
            let room = self.schedule.manners.stdout_room + 1500;
            let bound = most.saturating_add(self.schedule.workers * room + self.source.heaviest);
            must!(held <= bound, "{held} bytes are held, {most} allowed and {bound} excused");
        }
        Ok(())
    }

    /// Everything that the driver can do now.
    fn turn(&mut self) -> Result<(), Failure> {
        let now = self.now;
        if self.dropped {
            self.core.cancel();
        }
        self.read()?;
        self.core.tick(now);
        while self.core.wants_input() && self.take_input() {}
        self.core.dispatch(now);
        self.core.close_if_done(now);
        self.perform()?;
        self.to_write.append(&mut self.core.to_write);
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
        self.core.arrived(arrival, self.now);
        true
    }

    fn launch(&mut self, slot: usize) -> Result<(), Failure> {
        let seed = self.rng.next();
        let mut rng = Rng::new(seed);
        self.now += Duration::from_micros(self.rng.below(300));
        let never = self.schedule.family == Family::Starts && rng.one_in(40);
        let starts = matches!(self.schedule.family, Family::Starts | Family::Mixed);
        if never || (starts && rng.one_in(4)) {
            self.start_failures += 1;
            self.say(|| format!("slot {slot}: cannot be started, never: {never}"));
            let error = Error::new(ErrorKind::Spawn, "simulated");
            let alive = self.core.slots.iter().any(|slot| matches!(slot, Slot::Live(_)));
            let before = self.core.stopping;
            let error = if never { StartError::Never(error) } else { StartError::NotNow(error) };
            self.core.start_failed(slot, error, self.now);
            must!(
                never || !alive || self.core.stopping == before,
                "a start that must wait was fatal although workers are alive"
            );
            return Ok(());
        }
        let pid = self.children.len();
        let script = Script::new(&mut rng, &self.schedule.manners);
        self.say(|| format!("slot {slot}: life {pid} starts: {script:?}"));
        let rooms = (self.schedule.manners.stdin_room, self.schedule.manners.stdout_room);
        self.children.push(Child::new(pid as u32, script, rooms, rng, self.now));
        self.ports[slot] = Some(Ports {
            child: pid,
            stdin: true,
            stdout: true,
            stderr: true,
            watched: false,
            writable: true,
            readable: false,
            stderr_readable: false,
            exited: false,
            tail: Vec::new(),
        });
        self.core.started(slot, Some(pid as u32), self.now);
        Ok(())
    }

    fn perform(&mut self) -> Result<(), Failure> {
        let now = self.now;
        let mut suspects = Vec::new();
        while let Some(action) = self.core.actions.pop_front() {
            self.say(|| format!("{action:?}"));
            match action {
                Action::CloseInput { slot, .. } => self.close_input(slot)?,
                Action::Signal { slot, signal } => {
                    if let Some(ports) = &self.ports[slot] {
                        self.children[ports.child].signal(signal, now);
                    }
                }
                Action::Probe { slot } => suspects.push(slot),
                Action::Finish { slot } => {
                    let Some(ports) = self.ports[slot].take() else {
                        return Err(Failure::new("a life is finished twice"));
                    };
                    let child = &mut self.children[ports.child];
                    child.signal(crate::template::policy::Signal::Kill, now);
                    child.stdin.writer = false;
                    child.stdout.reader = false;
                    must!(!child.is_alive(), "a live child is finished");
                    let status = child.status.map(ExitStatus::from_raw);
                    self.core.ended(slot, status, now);
                }
            }
        }
        for slot in suspects {
            self.probe(slot)?;
        }
        Ok(())
    }

    fn close_input(&mut self, slot: usize) -> Result<(), Failure> {
        let Some(ports) = &mut self.ports[slot] else { return Ok(()) };
        if !std::mem::replace(&mut ports.stdin, false) {
            return Ok(());
        }
        let child = &mut self.children[ports.child];
        child.stdin.writer = false;
        child.nudge(self.now);
        let spared = child.is_alive() && child.stdin.reader && !child.killed;
        must!(
            !spared || !is_torn(&self.schedule, &ports.tail),
            "stdin of life {} was closed after half a request {:?}",
            child.pid,
            String::from_utf8_lossy(&ports.tail)
        );
        Ok(())
    }

    fn probe(&mut self, slot: usize) -> Result<(), Failure> {
        let Some(ports) = &self.ports[slot] else { return Ok(()) };
        let child = &self.children[ports.child];
        let verdict = if self.schedule.manners.opaque {
            Verdict::Unclear("it is opaque")
        } else if child.waits() {
            Verdict::Waiting
        } else {
            Verdict::Busy
        };
        self.say(|| format!("slot {slot}: {verdict:?}"));
        if verdict == Verdict::Waiting {
            let before = self.read_bytes();
            if let Some(ports) = &mut self.ports[slot] {
                ports.readable = true;
            }
            if self.read_output(slot)? {
                self.to_read.push(slot);
            }
            if self.read_bytes() != before {
                return Ok(());
            }
        }
        self.core.probed(slot, verdict, self.now);
        Ok(())
    }

    fn read_bytes(&self) -> u64 {
        let counters: &Counters = self.core.counters();
        counters.read_bytes.load(std::sync::atomic::Ordering::Relaxed)
    }
}

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

fn is_dropped(core: &Core) -> bool {
    core.stopping == Some(Stopping::Dropped)
}

impl Report {
    pub(super) fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.lives += other.lives;
        self.replies += other.replies;
        self.failed += other.failed;
        self.fatal += other.fatal;
        self.dropped += other.dropped;
        self.recycles += other.recycles;
        self.redeliveries += other.redeliveries;
        self.signals += other.signals;
    }
}
