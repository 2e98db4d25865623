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
use crate::subprocess::protocol::{Now, Sighting, Spawned, StartError};
use crate::template::policy::{DROP_GRACE, Signal};
use crate::window::gate::Gate;

use super::check::{Failure, MUST_WAIT, Oracle, is_torn, must};
use super::disk::Disk;
use super::link::Link;
use super::rng::Rng;
use super::schedule::{Family, Schedule};
use super::script::{Script, SideInput, Talk, body, whole};
use super::sink::Sink;
use super::source::Source;
use super::worker::{Child, Noise};

/// One live child, as the system knows it.
#[derive(Debug)]
struct Ports {
    /// Which of all children it is.
    child: usize,
    /// Our ends that are open.
    inputs: Vec<bool>,
    outputs: Vec<bool>,
    stderr: bool,
    /// The inputs that are watched.
    watched: Vec<bool>,
    exit_is_told: bool,
    /// It is on another machine.
    link: Option<Link>,
    /// A signal was sent to it.
    signalled: bool,
    /// What was written on each input of the request that is not yet whole.
    tails: Vec<Tail>,
}

/// What was written to an input, as far as it matters to whether a request is torn.
#[derive(Clone, Debug, Default)]
struct Tail {
    /// Bytes of the preamble that are still to come.
    preamble: usize,
    bytes: Vec<u8>,
    /// Whole requests, or their second parts, before these.
    whole: u64,
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
    pub(super) disk: Option<Disk>,
    pub(super) oracle: Oracle,
    /// Every child that ever was; its pid is its place here.
    pub(super) children: Vec<Child>,
    ports: Vec<Option<Ports>>,
    events: Vec<Event>,
    /// What looks at far processes will have shown, and when.
    sightings: Vec<(Now, usize, u32, Sighting)>,
    /// Another thread has called the event loop.
    woken: Arc<AtomicBool>,
    /// When the consumer has dropped the outlet, and when the feed was first seen to be stopping.
    pub(super) dropped_at: Option<Now>,
    pub(super) stopped_at: Option<Now>,
    /// When that turn was over, which may have been held up.
    pub(super) stop_was_seen_at: Option<Now>,
    pub(super) start_failures: u64,
    /// How much later than it had to the loop was let run, since the end began.
    pub(super) lateness: Duration,
    /// Calls of the system so far, and the one that fails.
    pub(super) calls: u64,
    pub(super) fails: Option<u64>,
    pub(super) faulted: Option<&'static str>,
    pub(super) abandoned: u64,
    /// What was found to be wrong inside a call.
    failure: Option<Failure>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("now", &self.now).finish_non_exhaustive()
    }
}

pub(super) const MOST_STEPS: u64 = 2_000_000;

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
            disk: None,
            oracle: Oracle::default(),
            children: Vec::new(),
            events: Vec::new(),
            sightings: Vec::new(),
            woken,
            dropped_at: None,
            stopped_at: None,
            stop_was_seen_at: None,
            start_failures: 0,
            lateness: Duration::ZERO,
            calls: 0,
            fails: None,
            faulted: None,
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
        if let Some(stop) = self.schedule.late
            && self.rng.one_in(if self.schedule.manners.alike { 6 } else { 60 })
        {
            self.say(|| format!("the loop is held up for {stop:?}"));
            let from = self.now;
            if self.rng.one_in(2) {
                // The machine was stopped, and everybody on it.
                self.now += stop;
            } else {
                self.elapse(stop)?;
            }
            if let Some(since) = self.dropped_at.into_iter().chain(self.stopped_at).min() {
                self.lateness += self.now - from.max(since);
            }
        }
        self.happen()?;
        self.woken.store(false, SeqCst);
        Ok(())
    }

    /// So much time passes in which the event loop is not let run, and everybody else is.
    fn elapse(&mut self, time: Duration) -> Result<(), Failure> {
        let until = self.now + time;
        while let Some(at) = self.next_event().filter(|&at| at < until) {
            self.steps += 1;
            must!(self.steps < MOST_STEPS, "no end");
            self.now = self.now.max(at);
            self.happen()?;
        }
        self.now = until;
        Ok(())
    }

    /// Nothing can move any more: fine only if the source blocks for ever and has got everything back.
    fn stuck(&mut self) -> Result<(), Failure> {
        let waits = self.source.is_blocked_for_ever() && self.sink.yielded == self.source.pulled;
        must!(
            waits && self.dropped_at.is_none(),
            "stuck: {} pulled, {} yielded, the source is {}, children {:#?}",
            self.source.pulled,
            self.sink.yielded,
            self.source.describe(),
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
        let sightings = self.sightings.iter().map(|(at, ..)| *at);
        let disk = self.disk.as_ref().and_then(Disk::wake);
        let ends = self.source.wake().into_iter().chain(self.sink.wake);
        children.chain(sightings).chain(ends).chain(disk).min()
    }

    /// Everything that is due happens, in any order.
    pub(super) fn happen(&mut self) -> Result<(), Failure> {
        self.sink.hear(self.now);
        if self.sightings.iter().any(|(at, ..)| *at <= self.now) {
            self.woken.store(true, SeqCst);
        }
        let now = self.now;
        if self.disk.as_mut().is_some_and(|disk| disk.act(now)) {
            self.woken.store(true, SeqCst);
        }
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
        let child = &mut self.children[ports.child];
        if noise.output {
            for output in 0..ports.outputs.len() {
                if ports.outputs[output] {
                    let hung_up = !child.output(output).writer;
                    self.events.push(Event { slot, port: Port::Output(output), hung_up });
                }
            }
        }
        if noise.stderr && ports.stderr {
            self.events.push(Event { slot, port: Port::Stderr, hung_up: !child.stderr.writer });
        }
        if noise.input {
            for channel in 0..ports.inputs.len() {
                if ports.watched[channel] && ports.inputs[channel] {
                    self.events.push(Event { slot, port: Port::Input(channel), hung_up: false });
                }
            }
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
        let seen = self.stop_was_seen_at.map_or(since, |seen| seen.max(since));
        let fine = ports.signalled
            || !child.is_alive()
            || self.is_half_written(ports)
            // Decided in the turn in which the feed came to its end, for a reason of its own.
            || self.now <= seen.saturating_add(Duration::from_millis(1) + self.lateness)
            || self.now >= since.saturating_add(DROP_GRACE);
        must!(fine, "{signal:?} to session {} before the grace is over", child.pid);
        Ok(())
    }

    /// Whether a request was written in part: a piece of it, or on one input and not yet on another.
    fn is_half_written(&self, ports: &Ports) -> bool {
        let main = self.schedule.manners.ends.main();
        is_torn(&self.schedule, &ports.tails[main].bytes) || self.is_half_on_the_side(ports)
    }

    /// Whether a second part was written in part; or a request was begun on one of two inputs, both of which must be
    /// read, and is not whole on the other.
    fn is_half_on_the_side(&self, ports: &Ports) -> bool {
        let [main, second] = &ports.tails[..] else { return false };
        match self.schedule.manners.ends.side_input {
            SideInput::Optional => !second.bytes.is_empty(),
            SideInput::Required => {
                let begun = u64::from(is_torn(&self.schedule, &main.bytes));
                !second.bytes.is_empty() || main.whole + begun != second.whole
            }
            SideInput::None | SideInput::Alone => false,
        }
    }

    /// When a feed ends before its time, no worker that lives is left with half a request on the side.
    pub(super) fn all_whole(&self) -> Result<(), Failure> {
        for ports in self.ports.iter().flatten() {
            let child = &self.children[ports.child];
            let told = ports.inputs.iter().all(|open| !open);
            let reads = child.stdin.reader && child.second.reader;
            must!(
                !told
                    || !reads
                    || !child.is_alive()
                    || child.killed
                    || !self.is_half_on_the_side(ports),
                "the inputs of session {} were closed after {} requests on one and {} on the other",
                child.pid,
                ports.tails[0].whole,
                ports.tails[1].whole
            );
        }
        Ok(())
    }

    fn may_close_input(&self, slot: usize, channel: usize) -> Result<(), Failure> {
        let Some(ports) = &self.ports[slot] else { return Ok(()) };
        let child = &self.children[ports.child];
        let spared = child.is_alive() && child.stdin.reader && !child.killed;
        let tail = &ports.tails[channel].bytes;
        must!(
            !spared
                || channel != self.schedule.manners.ends.main()
                || !is_torn(&self.schedule, tail),
            "stdin of session {} was closed after half a request {:?}",
            child.pid,
            String::from_utf8_lossy(tail)
        );
        Ok(())
    }

    /// The system is called. Whether this is the call that fails.
    fn fails(&mut self, what: &'static str) -> bool {
        self.calls += 1;
        let fails = self.fails == Some(self.calls);
        if fails {
            self.say(|| format!("call {}, {what}, fails", self.calls));
            self.faulted = Some(what);
            self.oracle.faulted = true;
        }
        fails
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
        events.clear();
        if self.fails("wait") {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.failure.is_none() {
            if self.steps > MOST_STEPS - 10_000 {
                self.say(|| format!("waits {timeout:?}"));
            }
            let found = self.pass(timeout.map(|timeout| self.now.saturating_add(timeout)));
            self.note(found);
        }
        events.append(&mut self.events);
        Ok(())
    }

    fn spawn(&mut self, slot: usize) -> Result<Spawned, StartError> {
        let seed = self.rng.next();
        let mut rng = Rng::new(seed);
        self.now += Duration::from_micros(self.rng.below(300));
        let may_never = self.schedule.family == Family::Starts && !self.schedule.manners.alike;
        let never = may_never && rng.one_in(40);
        let fails = self.fails("spawn");
        if never || fails || rng.one_in(self.schedule.start_fails) {
            self.start_failures += 1;
            self.say(|| format!("slot {slot}: cannot be started, never: {never}"));
            let error = |message: &'static str| Error::new(ErrorKind::Spawn, message);
            return Err(if never {
                StartError::Never(error("simulated"))
            } else {
                StartError::NotNow(error(MUST_WAIT))
            });
        }
        let pid = self.children.len();
        let manners = &self.schedule.manners;
        let script = Script::new(&mut rng, manners, slot);
        self.say(|| format!("slot {slot}: session {pid} starts: {script:?}"));
        let rooms = (manners.stdin_room, manners.stdout_room);
        let ends = manners.ends;
        let mut inputs = vec![ends.side_input != SideInput::Alone];
        if ends.side_input != SideInput::None {
            inputs.push(true);
        }
        let mut outputs = vec![ends.stdout];
        if ends.side_output {
            outputs.push(true);
        }
        let tail = |channel| Tail {
            preamble: if channel == 0 { manners.words.preamble.len() } else { 0 },
            ..Tail::default()
        };
        let template = self.schedule.spec.link(&self.schedule.spec.seat_of(slot));
        let faults = &self.schedule.faults;
        let link = template.and_then(|link| Link::new(&link, pid as u32, faults, &mut self.rng));
        let is_refused = link.as_ref().is_some_and(Link::is_refused);
        if link.is_some() {
            // Its hello is there to be read.
            self.events.push(Event { slot, port: Port::Output(0), hung_up: false });
        }
        let ports = Ports {
            link,
            child: pid,
            inputs: inputs.clone(),
            outputs: outputs.clone(),
            stderr: ends.stderr,
            watched: vec![false; inputs.len()],
            exit_is_told: false,
            signalled: false,
            tails: (0..inputs.len()).map(tail).collect(),
        };
        let mut child = Child::new(pid as u32, script, rooms, rng, self.now);
        child.slot = slot;
        self.children.push(child);
        if is_refused {
            self.children[pid].signal(Signal::Kill, self.now);
        }
        if self.ports[slot].replace(ports).is_some() {
            self.note(Err(Failure::new(format!("slot {slot} is taken"))));
        }
        let (stderr, terminal) = (ends.stderr, ends.terminal);
        Ok(Spawned { pid: pid as u32, inputs, outputs, stderr, terminal })
    }

    fn read(&mut self, slot: usize, port: Port, room: &mut [u8]) -> io::Result<usize> {
        let fails = self.fails("read");
        let terminal = self.schedule.manners.ends.terminal;
        let Some(ports) = &mut self.ports[slot] else { return Err(closed()) };
        let child = &mut self.children[ports.child];
        let open = match port {
            Port::Output(output) => ports.outputs[output],
            _ => ports.stderr,
        };
        if !open {
            self.note(Err(Failure::new(format!("slot {slot}: {port:?} is read and closed"))));
            return Err(closed());
        }
        if fails {
            return Err(match self.calls % 2 {
                0 => io::ErrorKind::Interrupted.into(),
                _ => io::Error::from_raw_os_error(5),
            });
        }
        if let (Port::Output(_), Some(link)) = (port, &mut ports.link) {
            let n = link.read(child, room);
            if link.broken {
                child.signal(Signal::Kill, self.now);
            }
            child.nudge(self.now);
            return match n {
                None => Ok(0),
                Some(0) => Err(io::ErrorKind::WouldBlock.into()),
                Some(n) => Ok(n),
            };
        }
        let pipe = match port {
            Port::Output(output) => child.output(output),
            _ => &mut child.stderr,
        };
        let n = pipe.bytes.len().min(room.len());
        if n == 0 {
            return if pipe.writer { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(0) };
        }
        // A pseudo-terminal gives less than there is.
        let n = if terminal { n.min(self.rng.range(1, 40) as usize) } else { n };
        for (to, byte) in room.iter_mut().zip(pipe.bytes.drain(..n)) {
            *to = byte;
        }
        child.nudge(self.now);
        Ok(n)
    }

    fn write(&mut self, slot: usize, channel: usize, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let fails = self.fails("write");
        let Some(ports) = &mut self.ports[slot] else { return Err(closed()) };
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        if !ports.inputs[channel] || wanted == 0 {
            let what = format!("slot {slot}: {wanted} bytes for input {channel}");
            self.note(Err(Failure::new(what)));
            return Err(closed());
        }
        let child = &mut self.children[ports.child];
        let pipe = child.input(channel);
        if !pipe.reader {
            return Err(closed());
        }
        if fails {
            // A signal of the user's; or what says that nobody reads. A process that is to be asked one thing, or
            // says something at the end of its input, would take the close that follows for that end.
            let manners = &self.schedule.manners;
            let speaks_at_end =
                manners.talk == Talk::UntilEof || self.schedule.spec.words.skip_at_end.is_some();
            if self.calls.is_multiple_of(2) || speaks_at_end {
                return Err(io::ErrorKind::Interrupted.into());
            }
            // It is true then: the worker has closed its end.
            pipe.reader = false;
            return Err(closed());
        }
        let n = wanted.min(pipe.free());
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes: Vec<u8> =
            slices.iter().flat_map(|slice| slice.iter().copied()).take(n).collect();
        pipe.bytes.extend(&bytes);
        child.nudge(self.now);
        if channel == self.schedule.manners.ends.main() {
            ports.tails[channel].push(&self.schedule, &bytes, child);
        } else {
            ports.tails[channel].push_second(&bytes);
        }
        Ok(n)
    }

    fn watch_input(&mut self, slot: usize, channel: usize) -> io::Result<bool> {
        let fails = self.fails("watch_input");
        let Some(ports) = &mut self.ports[slot] else { return Err(closed()) };
        if fails {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        ports.watched[channel] = true;
        let pipe = self.children[ports.child].input(channel);
        if pipe.free() > 0 || !pipe.reader {
            // As the kernel tells of what is so already.
            self.events.push(Event { slot, port: Port::Input(channel), hung_up: false });
        }
        Ok(false)
    }

    fn close(&mut self, slot: usize, port: Port) {
        if let Port::Input(channel) = port {
            let found = self.may_close_input(slot, channel);
            self.note(found);
        }
        let Some(ports) = &mut self.ports[slot] else { return };
        let child = &mut self.children[ports.child];
        match port {
            Port::Input(channel) => {
                ports.inputs[channel] = false;
                child.input(channel).writer = false;
            }
            Port::Output(output) => {
                ports.outputs[output] = false;
                child.output(output).reader = false;
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

    fn unread(&mut self, slot: usize, channel: usize) -> Option<u64> {
        if self.fails("unread") {
            return None;
        }
        let ports = self.ports[slot].as_ref()?;
        Some(self.children[ports.child].input(channel).bytes.len() as u64)
    }

    fn has_no_reader(&mut self, slot: usize, channel: usize) -> io::Result<bool> {
        if self.fails("has_no_reader") {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let Some(ports) = &self.ports[slot] else { return Ok(false) };
        Ok(ports.inputs[channel] && !self.children[ports.child].input(channel).reader)
    }

    fn look(&mut self, slots: &[usize], at: Now) -> Vec<Look> {
        let fails = self.fails("look");
        let look = |&slot: &usize| {
            if self.ports[slot].as_ref().is_some_and(|ports| ports.link.is_some()) {
                return Look::obstructed(at, vec![0], Obstacle::Launcher);
            }
            let child = self.ports[slot].as_ref().map(|ports| &self.children[ports.child]);
            match child {
                Some(child) if !self.schedule.manners.opaque && !fails => child.look(at),
                _ => Look::obstructed(at, vec![0], Obstacle::Hidden),
            }
        };
        let looks: Vec<Look> = slots.iter().map(look).collect();
        self.say(|| {
            let alone: Vec<_> = looks.iter().map(Look::alone).collect();
            format!("looks at {slots:?}: {alone:?}")
        });
        looks
    }

    fn look_far(&mut self, slot: usize, pid: u32) {
        let Some(ports) = &self.ports[slot] else { return };
        let Some(link) = &ports.link else { return };
        let (at, sighting) = link.look(&self.children[ports.child], self.now);
        self.say(|| format!("slot {slot}: will be {sighting:?} at {at:?}"));
        self.sightings.push((at, slot, pid, sighting));
    }

    fn sighting(&mut self) -> Option<(usize, u32, Sighting)> {
        let at = self.sightings.iter().position(|(at, ..)| *at <= self.now)?;
        let (_, slot, pid, sighting) = self.sightings.swap_remove(at);
        Some((slot, pid, sighting))
    }

    fn kill_far(&mut self, _slot: usize, _pid: Option<u32>) {}

    fn release(&mut self, slot: usize) -> Option<ExitStatus> {
        let unknown = self.fails("release") || self.rng.one_in(self.schedule.unknown_status);
        let Some(ports) = self.ports[slot].take() else {
            self.note(Err(Failure::new(format!("slot {slot}: nobody is released"))));
            return None;
        };
        let child = &mut self.children[ports.child];
        child.signal(Signal::Kill, self.now);
        child.stdin.writer = false;
        child.second.writer = false;
        child.stdout.reader = false;
        child.side.reader = false;
        if child.is_alive() {
            self.abandoned += 1;
            if !child.is_stuck() {
                let what = format!("session {} is let go alive", child.pid);
                self.note(Err(Failure::new(what)));
            }
            return None;
        }
        child.status.map(ExitStatus::from_raw).filter(|_| !unknown)
    }
}

impl Tail {
    /// This was written, too, to that child: what follows the last whole request is kept.
    fn push(&mut self, schedule: &Schedule, bytes: &[u8], child: &mut Child) {
        child.written += bytes.len() as u64;
        let n = self.preamble.min(bytes.len());
        self.preamble -= n;
        self.bytes.extend_from_slice(&bytes[n..]);
        while let Some(len) = whole(schedule.manners.talk, &self.bytes) {
            let body = body(schedule.manners.talk, &self.bytes[..len]);
            let number = body.iter().take_while(|byte| byte.is_ascii_digit());
            let k = number.fold(0, |n: u64, byte| n * 10 + u64::from(byte - b'0'));
            if body.first().is_some_and(u8::is_ascii_digit) {
                self.whole += 1;
                let left = (self.bytes.len() - len) as u64;
                child.requests.push((k, child.written - left));
            }
            self.bytes.drain(..len);
        }
    }

    /// The same, of second parts: each is a line.
    fn push_second(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        while let Some(end) = self.bytes.iter().position(|&byte| byte == b'\n') {
            self.bytes.drain(..=end);
            self.whole += 1;
        }
    }
}
