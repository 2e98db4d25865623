//! The world around the event loop: an operating system in which children, pipes and time are simulated,
//! with an intake at one end and a consumer at the other.
//!
//! One thing happens at a time, in an order that the seed decides: a child acts, the source gives an
//! item, the consumer asks for one, a timer runs out. The event loop wakes only for what would really
//! wake it (an event at a descriptor, a call from another thread, a timer), so that a lost wake-up is
//! seen as what it is: nothing can move, and it is not finished.

use std::io::{self, IoSlice};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::subprocess::evidence::{Look, Obstacle};
use crate::subprocess::os::{Event, Os, Port};
use crate::subprocess::protocol::{Now, Spawned, StartError};
use crate::template::policy::{DROP_GRACE, Signal};
use crate::window::gate::Gate;

use super::check::{Failure, MUST_WAIT, Oracle, is_torn, must};
use super::rng::Rng;
use super::schedule::{Family, Schedule};
use super::script::{Script, whole};
use super::sink::Sink;
use super::source::Source;
use super::worker::{Child, Noise};

/// One live child, as the system knows it.
#[derive(Debug)]
struct Ports {
    /// Which of all children it is.
    child: usize,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    /// Its stdin is watched.
    watched: bool,
    exit_is_told: bool,
    /// A signal was sent to it.
    signalled: bool,
    /// What was written of the request that is not yet whole.
    tail: Vec<u8>,
}

pub(super) struct World {
    pub(super) schedule: Arc<Schedule>,
    rng: Rng,
    trace: bool,
    pub(super) now: Now,
    pub(super) steps: u64,
    pub(super) gate: Arc<Gate>,
    pub(super) source: Source,
    pub(super) sink: Sink,
    pub(super) oracle: Oracle,
    /// Every child that ever was; its pid is its place here.
    pub(super) children: Vec<Child>,
    ports: Vec<Option<Ports>>,
    events: Vec<Event>,
    /// Another thread has called the event loop.
    woken: Arc<AtomicBool>,
    /// When the consumer has dropped the outlet, and when the feed was first seen to be stopping.
    pub(super) dropped_at: Option<Now>,
    pub(super) stopped_at: Option<Now>,
    pub(super) start_failures: u64,
    pub(super) abandoned: u64,
    /// What was found to be wrong inside a call.
    failure: Option<Failure>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("now", &self.now).finish_non_exhaustive()
    }
}

pub(super) const MOST_STEPS: u64 = 400_000;

impl World {
    pub(super) fn new(
        schedule: Arc<Schedule>,
        gate: Arc<Gate>,
        source: Source,
        sink: Sink,
        woken: Arc<AtomicBool>,
        rng: Rng,
        trace: bool,
    ) -> Self {
        Self {
            ports: (0..schedule.workers).map(|_| None).collect(),
            source,
            sink,
            oracle: Oracle::default(),
            children: Vec::new(),
            events: Vec::new(),
            woken,
            dropped_at: None,
            stopped_at: None,
            start_failures: 0,
            abandoned: 0,
            failure: None,
            now: Now::ZERO,
            steps: 0,
            gate,
            schedule,
            rng,
            trace,
        }
    }

    pub(super) fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>12.6} {}", self.now.as_secs_f64(), what());
        }
    }

    /// The first thing that was found to be wrong inside a call.
    pub(super) fn verdict(&mut self) -> Result<(), Failure> {
        self.failure.take().map_or(Ok(()), Err)
    }

    fn note(&mut self, found: Result<(), Failure>) {
        if let Err(failure) = found {
            self.failure.get_or_insert(failure);
        }
    }

    // ---------------------------------------------------------------- time

    /// Time passes until something calls the event loop, or until `timer`.
    fn pass(&mut self, timer: Option<Now>) -> Result<(), Failure> {
        let asleep = timer.is_none_or(|at| at > self.now);
        loop {
            self.happen()?;
            if self.woken.swap(false, SeqCst) || !self.events.is_empty() {
                break;
            }
            let next = self.next_event();
            let at = match (next, timer) {
                (Some(next), Some(timer)) => next.min(timer),
                (Some(at), None) | (None, Some(at)) => at,
                (None, None) => {
                    self.stuck()?;
                    break;
                }
            };
            self.steps += 1;
            must!(self.steps < MOST_STEPS, "no end");
            must!(at < Duration::from_secs(1_000_000), "nothing moves before {at:?}");
            self.now = self.now.max(at);
            if timer.is_some_and(|timer| timer <= self.now) {
                break;
            }
        }
        // It takes a moment to wake up, in which other things happen too.
        let late = if asleep { 40 } else { 4 };
        self.now += Duration::from_micros(self.rng.below(late));
        self.happen()?;
        self.woken.store(false, SeqCst);
        Ok(())
    }

    /// Nothing can move any more: fine only if the source blocks for ever and has got everything back.
    fn stuck(&mut self) -> Result<(), Failure> {
        let waits = self.source.is_blocked_for_ever() && self.sink.yielded == self.source.pulled;
        must!(
            waits && self.dropped_at.is_none(),
            "stuck: {} pulled, {} yielded, children {:#?}",
            self.source.pulled,
            self.sink.yielded,
            self.ports
                .iter()
                .flatten()
                .map(|ports| &self.children[ports.child])
                .collect::<Vec<_>>()
        );
        self.say(|| "the consumer is dropped".to_owned());
        self.sink.drop_outlet();
        self.dropped_at = Some(self.now);
        Ok(())
    }

    fn next_event(&self) -> Option<Now> {
        let live = self.ports.iter().flatten().map(|ports| &self.children[ports.child]);
        let children = live.filter_map(|child| child.wake);
        children.chain(self.source.wake()).chain(self.sink.wake).min()
    }

    /// Everything that is due happens, in any order.
    pub(super) fn happen(&mut self) -> Result<(), Failure> {
        self.sink.hear(self.now);
        let n = self.ports.len();
        let from = if n > 1 { self.rng.below(n as u64) as usize } else { 0 };
        for i in 0..n {
            if let Some(ports) = &self.ports[(from + i) % n] {
                self.act(ports.child, (from + i) % n);
            }
        }
        if self.sink.wake.is_some_and(|at| at <= self.now) {
            self.consume()?;
        }
        self.source.go(&self.schedule, &self.gate, self.now)?;
        if self.sink.follows && self.source.has_caught_up(&self.schedule, &self.gate) {
            self.sink.follows = false;
            self.sink.wake = Some(self.now);
        }
        Ok(())
    }

    fn act(&mut self, pid: usize, slot: usize) {
        let child = &mut self.children[pid];
        if child.wake.is_none_or(|at| at > self.now) {
            return;
        }
        let schedule = &self.schedule;
        let noise = child.act(self.now, &|k| schedule.is_poison(k));
        if noise.exit {
            self.say(|| format!("session {pid} exits: {:?}", self.children[pid].status));
        }
        self.hear(slot, noise);
    }

    /// Events at the event loop's descriptors.
    fn hear(&mut self, slot: usize, noise: Noise) {
        let Some(ports) = &mut self.ports[slot] else { return };
        let child = &self.children[ports.child];
        if noise.output && ports.stdout {
            let hung_up = !child.stdout.writer;
            self.events.push(Event { slot, port: Port::Output(0), hung_up });
        }
        if noise.stderr && ports.stderr {
            self.events.push(Event { slot, port: Port::Stderr, hung_up: !child.stderr.writer });
        }
        if noise.input && ports.watched && ports.stdin {
            self.events.push(Event { slot, port: Port::Input(0), hung_up: false });
        }
        if noise.exit && !ports.exit_is_told {
            ports.exit_is_told = true;
            self.events.push(Event { slot, port: Port::Exit, hung_up: false });
        }
    }

    pub(super) fn consume(&mut self) -> Result<(), Failure> {
        let before = self.sink.yielded;
        self.sink.step(&self.schedule, &mut self.oracle, &self.children, self.now)?;
        if self.sink.yielded > before {
            self.say(|| format!("yielded {before}..{}", self.sink.yielded));
        }
        if self.sink.is_dropped() && self.dropped_at.is_none() {
            self.say(|| "dropped".to_owned());
            self.dropped_at = Some(self.now);
        }
        Ok(())
    }

    // ---------------------------------------------------------------- checks inside calls

    /// Nobody is signalled by a feed that ends before the grace is over, but for one whose request is torn.
    fn is_spared(&self, slot: usize, signal: Signal) -> Result<(), Failure> {
        let Some(ports) = &self.ports[slot] else { return Ok(()) };
        let since = self.dropped_at.into_iter().chain(self.stopped_at).min();
        let Some(since) = since else { return Ok(()) };
        let child = &self.children[ports.child];
        let fine = ports.signalled
            || !child.is_alive()
            || is_torn(&self.schedule, &ports.tail)
            // Decided in the turn in which the feed came to its end, for a reason of its own.
            || self.now <= since.saturating_add(Duration::from_millis(1))
            || self.now >= since.saturating_add(DROP_GRACE);
        must!(fine, "{signal:?} to session {} before the grace is over", child.pid);
        Ok(())
    }

    fn may_close_input(&self, slot: usize) -> Result<(), Failure> {
        let Some(ports) = &self.ports[slot] else { return Ok(()) };
        let child = &self.children[ports.child];
        let spared = child.is_alive() && child.stdin.reader && !child.killed;
        must!(
            !spared || !is_torn(&self.schedule, &ports.tail),
            "stdin of session {} was closed after half a request {:?}",
            child.pid,
            String::from_utf8_lossy(&ports.tail)
        );
        Ok(())
    }
}

fn closed() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl Os for World {
    fn now(&self) -> Now {
        self.now
    }

    fn yield_now(&mut self) {
        self.now += Duration::from_micros(self.rng.below(3));
        let found = self.happen();
        self.note(found);
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        if self.failure.is_none() {
            if self.steps > 390_000 {
                self.say(|| format!("waits {timeout:?}"));
            }
            let found = self.pass(timeout.map(|timeout| self.now.saturating_add(timeout)));
            self.note(found);
        }
        events.clear();
        events.append(&mut self.events);
        Ok(())
    }

    fn spawn(&mut self, slot: usize) -> Result<Spawned, StartError> {
        let seed = self.rng.next();
        let mut rng = Rng::new(seed);
        self.now += Duration::from_micros(self.rng.below(300));
        let never = self.schedule.family == Family::Starts && rng.one_in(40);
        let starts = matches!(self.schedule.family, Family::Starts | Family::Mixed);
        if never || (starts && rng.one_in(4)) {
            self.start_failures += 1;
            self.say(|| format!("slot {slot}: cannot be started, never: {never}"));
            let error = |message: &'static str| Error::new(ErrorKind::Spawn, message);
            let alive = self.ports.iter().any(Option::is_some);
            return Err(match (never, alive) {
                (true, _) => StartError::Never(error("simulated")),
                (false, true) => StartError::NotNow(error(MUST_WAIT)),
                (false, false) => StartError::NotNow(error("simulated")),
            });
        }
        let pid = self.children.len();
        let script = Script::new(&mut rng, &self.schedule.manners);
        self.say(|| format!("slot {slot}: session {pid} starts: {script:?}"));
        let rooms = (self.schedule.manners.stdin_room, self.schedule.manners.stdout_room);
        self.children.push(Child::new(pid as u32, script, rooms, rng, self.now));
        let before = self.ports[slot].replace(Ports {
            child: pid,
            stdin: true,
            stdout: true,
            stderr: true,
            watched: false,
            exit_is_told: false,
            signalled: false,
            tail: Vec::new(),
        });
        if before.is_some() {
            self.note(Err(Failure::new(format!("slot {slot} is taken"))));
        }
        Ok(Spawned {
            pid: pid as u32,
            inputs: vec![true],
            outputs: vec![true],
            stderr: true,
            terminal: false,
        })
    }

    fn read(&mut self, slot: usize, port: Port, room: &mut [u8]) -> io::Result<usize> {
        let Some(ports) = &mut self.ports[slot] else { return Err(closed()) };
        let child = &mut self.children[ports.child];
        let (pipe, open) = match port {
            Port::Output(_) => (&mut child.stdout, ports.stdout),
            _ => (&mut child.stderr, ports.stderr),
        };
        if !open {
            self.note(Err(Failure::new(format!("slot {slot}: {port:?} is read and closed"))));
            return Err(closed());
        }
        let n = pipe.bytes.len().min(room.len());
        if n == 0 {
            return if pipe.writer { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(0) };
        }
        for (to, byte) in room.iter_mut().zip(pipe.bytes.drain(..n)) {
            *to = byte;
        }
        child.nudge(self.now);
        Ok(n)
    }

    fn write(&mut self, slot: usize, _channel: usize, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(ports) = &mut self.ports[slot] else { return Err(closed()) };
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        if !ports.stdin || wanted == 0 {
            let what = format!("slot {slot}: {wanted} bytes for a stdin, open: {}", ports.stdin);
            self.note(Err(Failure::new(what)));
            return Err(closed());
        }
        let child = &mut self.children[ports.child];
        if !child.stdin.reader {
            return Err(closed());
        }
        let n = wanted.min(child.stdin.free());
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes: Vec<u8> =
            slices.iter().flat_map(|slice| slice.iter().copied()).take(n).collect();
        child.stdin.bytes.extend(&bytes);
        child.nudge(self.now);
        unfinished(&self.schedule, &mut ports.tail, &bytes);
        Ok(n)
    }

    fn watch_input(&mut self, slot: usize, _channel: usize) -> io::Result<bool> {
        let Some(ports) = &mut self.ports[slot] else { return Err(closed()) };
        ports.watched = true;
        let child = &self.children[ports.child];
        if child.stdin.free() > 0 || !child.stdin.reader {
            // As the kernel tells of what is so already.
            self.events.push(Event { slot, port: Port::Input(0), hung_up: false });
        }
        Ok(false)
    }

    fn close(&mut self, slot: usize, port: Port) {
        if matches!(port, Port::Input(_)) {
            let found = self.may_close_input(slot);
            self.note(found);
        }
        let Some(ports) = &mut self.ports[slot] else { return };
        let child = &mut self.children[ports.child];
        match port {
            Port::Input(_) => {
                ports.stdin = false;
                child.stdin.writer = false;
            }
            Port::Output(_) => {
                ports.stdout = false;
                child.stdout.reader = false;
            }
            _ => ports.stderr = false,
        }
        child.nudge(self.now);
    }

    fn signal(&mut self, slot: usize, signal: Signal) {
        self.say(|| format!("slot {slot}: {signal:?}"));
        let found = self.is_spared(slot, signal);
        self.note(found);
        if let Some(ports) = &mut self.ports[slot] {
            ports.signalled = true;
            self.children[ports.child].signal(signal, self.now);
        }
    }

    fn unread(&mut self, slot: usize, _channel: usize) -> Option<u64> {
        let ports = self.ports[slot].as_ref()?;
        Some(self.children[ports.child].stdin.bytes.len() as u64)
    }

    fn has_no_reader(&mut self, slot: usize, _channel: usize) -> bool {
        let ports = self.ports[slot].as_ref();
        ports.is_some_and(|ports| ports.stdin && !self.children[ports.child].stdin.reader)
    }

    fn look(&mut self, slots: &[usize], at: Now) -> Vec<Look> {
        let look = |&slot: &usize| {
            let child = self.ports[slot].as_ref().map(|ports| &self.children[ports.child]);
            match child {
                Some(child) if !self.schedule.manners.opaque => child.look(at),
                _ => Look::obstructed(at, vec![0], Obstacle::Hidden),
            }
        };
        let looks: Vec<Look> = slots.iter().map(look).collect();
        let alone: Vec<_> = looks.iter().map(Look::alone).collect();
        self.say(|| format!("looks at {slots:?}: {alone:?}"));
        looks
    }

    fn release(&mut self, slot: usize) -> Option<ExitStatus> {
        let Some(ports) = self.ports[slot].take() else {
            self.note(Err(Failure::new(format!("slot {slot}: nobody is released"))));
            return None;
        };
        let child = &mut self.children[ports.child];
        child.signal(Signal::Kill, self.now);
        child.stdin.writer = false;
        child.stdout.reader = false;
        if child.is_alive() {
            self.abandoned += 1;
            if !child.is_stuck() {
                let what = format!("session {} is let go alive", child.pid);
                self.note(Err(Failure::new(what)));
            }
            return None;
        }
        child.status.map(ExitStatus::from_raw)
    }
}

/// What follows the last whole request in `tail` and `bytes`.
fn unfinished(schedule: &Schedule, tail: &mut Vec<u8>, bytes: &[u8]) {
    tail.extend_from_slice(bytes);
    while let Some(len) = whole(schedule.manners.talk, tail) {
        tail.drain(..len);
    }
}
