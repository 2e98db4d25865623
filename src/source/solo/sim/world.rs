//! A system that is simulated, with one child: its pipes of limited room, its exit, the signals that it gets, and the time.
//!
//! What the child does is a [`Program`]; who takes what it gives is a [`Consumer`], which has a thread of its own in
//! reality, and here its turn whenever the loop waits.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Wake, Waker};
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::signal::Signal;
use crate::source::solo::{Plan, SLOT, Solo};
use crate::source::talk::Talk;
use crate::subprocess::event_loop::EventLoop;
use crate::subprocess::evidence::Look;
use crate::subprocess::os::{Event, Os, Port};
use crate::subprocess::protocol::{Now, Sighting, Spawned, StartError};
use crate::subprocess::sim::Rng;
use crate::template::policy::{DRAIN_GRACE, DROP_GRACE, Policy};
use crate::window::waiter::Waiter;

pub(in crate::source) const MS: Duration = Duration::from_millis(1);
/// The longest seen took three million: a slow pipe, and a consumer that rests.
const MOST_STEPS: u64 = 20_000_000;

/// How long a step takes that takes no time.
const AT_ONCE: Duration = Duration::from_micros(2);

/// What was found to be wrong.
pub(in crate::source) type Found = Result<(), String>;

macro_rules! must {
    ($what:expr, $($message:tt)+) => {
        if !$what {
            return Err(format!($($message)+));
        }
    };
}
pub(in crate::source) use must;

/// What the child does.
pub(in crate::source) trait Program {
    /// Its time has come, or something has changed at its pipes: it goes on, and says when it does so again.
    fn act(&mut self, child: &mut Process);
    /// Whether it may be waited for without an end.
    fn is_hung(&self) -> bool;
}

/// Who takes what the child gives.
pub(in crate::source) trait Consumer {
    /// When it acts by itself.
    fn wake(&self) -> Option<Now>;
    /// Wakes up, if it has been called.
    fn hear(&mut self, now: Now);
    /// Its time has come.
    fn step(&mut self, now: Now) -> Found;
    /// Wants nothing more of this child.
    fn leave(&mut self);
    fn has_left(&self) -> bool;
}

/// What an outlet wakes.
#[derive(Debug, Default)]
pub(in crate::source) struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

impl Bell {
    /// Whether it was rung since this was asked last.
    pub(in crate::source) fn has_rung(&self) -> bool {
        self.0.swap(false, SeqCst)
    }

    pub(in crate::source) fn waiter(self: &Arc<Self>) -> Waiter {
        Waiter::Task(Waker::from(Arc::clone(self)))
    }
}

/// What is drawn of the system.
#[derive(Clone, Debug)]
pub(in crate::source) struct Nature {
    /// The channel on which is spoken, each way.
    pub(in crate::source) channel: usize,
    /// Room in the pipe to us, and in the one to the child.
    pub(in crate::source) room: usize,
    pub(in crate::source) input_room: usize,
    pub(in crate::source) ignores_term: bool,
    /// Somebody who outlives the child holds its outputs for so long.
    pub(in crate::source) heir: Option<Duration>,
    pub(in crate::source) unknown_status: bool,
    /// Now and then our loop is held up for so long.
    pub(in crate::source) late: Option<Duration>,
    /// It notices what changes at its pipes whatever else it does.
    pub(in crate::source) is_attentive: bool,
}

/// One pipe out of the child.
#[derive(Debug, Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    writer: bool,
    reader: bool,
}

/// The child, as the system sees it.
#[derive(Debug)]
pub(in crate::source) struct Process {
    pub(in crate::source) now: Now,
    pub(in crate::source) rng: Rng,
    nature: Nature,
    spawned: bool,
    /// Its wait status, once it has exited.
    pub(in crate::source) status: Option<i32>,
    wake: Option<Now>,
    doomed: Option<(Now, i32)>,
    out: Pipe,
    stderr: Pipe,
    input: VecDeque<u8>,
    input_open: bool,
    heir_until: Option<Now>,
    events: Vec<Event>,
    /// What we have written to it, and how much of what it has written we have read.
    pub(in crate::source) written: Vec<u8>,
    pub(in crate::source) read: usize,
    trace: bool,
}

impl Process {
    pub(in crate::source) fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>12.6} {}", self.now.as_secs_f64(), what());
        }
    }

    fn event(&mut self, port: Port, hung_up: bool) {
        self.events.push(Event { slot: SLOT, port, hung_up });
    }

    pub(in crate::source) fn is_alive(&self) -> bool {
        self.spawned && self.status.is_none()
    }

    /// It goes on so much later.
    pub(in crate::source) fn goes_on_in(&mut self, wait: Duration) {
        self.wake = Some(self.now.saturating_add(wait.max(AT_ONCE)));
    }

    fn nudge(&mut self) {
        let soon = self.now.saturating_add(AT_ONCE);
        let free = self.wake.is_none_or(|at| self.nature.is_attentive && at > soon);
        if self.is_alive() && free {
            self.wake = Some(soon);
        }
    }

    /// It exits, with this wait status.
    pub(in crate::source) fn exit(&mut self, status: i32) {
        self.say(|| format!("the child exits: {status}"));
        (self.status, self.wake) = (Some(status), None);
        match self.nature.heir {
            Some(time) => self.heir_until = Some(self.now.saturating_add(time)),
            None => self.hush(),
        }
        if self.input_open {
            self.event(Port::Input(self.nature.channel), true);
        }
        self.event(Port::Exit, false);
    }

    /// It closes its outputs.
    pub(in crate::source) fn hush(&mut self) {
        let channel = Port::Output(self.nature.channel);
        for (pipe, port) in [(&mut self.out, channel), (&mut self.stderr, Port::Stderr)] {
            if std::mem::take(&mut pipe.writer) && pipe.reader {
                self.events.push(Event { slot: SLOT, port, hung_up: true });
            }
        }
    }

    /// Whether somebody reads what it writes.
    pub(in crate::source) fn is_heard(&self) -> bool {
        self.out.reader
    }

    /// Writes at most so many bytes of the text, as far as there is room.
    pub(in crate::source) fn print(&mut self, text: &mut VecDeque<u8>, most: usize) -> usize {
        let n = most.min(text.len()).min(self.nature.room - self.out.bytes.len());
        if n > 0 {
            self.out.bytes.extend(text.drain(..n));
            self.event(Port::Output(self.nature.channel), false);
        }
        n
    }

    pub(in crate::source) fn complain(&mut self, text: &[u8]) {
        if self.stderr.reader {
            self.stderr.bytes.extend(text);
            self.event(Port::Stderr, false);
        }
    }

    /// Reads at most so many bytes of its input.
    pub(in crate::source) fn listen(&mut self, most: usize) -> Vec<u8> {
        let bytes: Vec<u8> = self.input.drain(..most.min(self.input.len())).collect();
        if !bytes.is_empty() && self.input_open {
            self.event(Port::Input(self.nature.channel), false);
        }
        bytes
    }

    #[cfg(feature = "function-source")]
    pub(in crate::source) fn has_room(&self) -> bool {
        self.out.reader && self.out.bytes.len() < self.nature.room
    }

    /// Whether there is something to listen to.
    #[cfg(feature = "function-source")]
    pub(in crate::source) fn has_words(&self) -> bool {
        !self.input.is_empty()
    }

    /// Whether its input has come to its end.
    #[cfg(feature = "function-source")]
    pub(in crate::source) fn is_told_all(&self) -> bool {
        self.input.is_empty() && !self.input_open
    }
}

/// The system, with one child.
pub(in crate::source) struct World<P, C> {
    pub(in crate::source) child: Process,
    pub(in crate::source) program: P,
    consumer: Rc<RefCell<C>>,
    woken: Arc<AtomicBool>,
    steps: u64,
    released: u32,
    /// The far processes that were to be killed.
    pub(in crate::source) killed_far: Vec<Option<u32>>,
    /// When the consumer has left, and for how long the loop was held up since.
    pub(in crate::source) left_at: Option<Now>,
    lateness: Duration,
    calls: u64,
    fails: Option<u64>,
    pub(in crate::source) faulted: bool,
    wrong: Option<String>,
}

impl<P, C> std::fmt::Debug for World<P, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("child", &self.child).finish_non_exhaustive()
    }
}

/// How one child came to its end.
pub(in crate::source) struct Played<P> {
    pub(in crate::source) child: Process,
    pub(in crate::source) program: P,
    pub(in crate::source) killed_far: Vec<Option<u32>>,
    pub(in crate::source) faulted: bool,
    pub(in crate::source) calls: u64,
}

impl<P: Program, C: Consumer> World<P, C> {
    /// From this time on, with calls counted from so many on.
    pub(in crate::source) fn new(
        program: P,
        nature: Nature,
        consumer: Rc<RefCell<C>>,
        woken: Arc<AtomicBool>,
        rng: Rng,
        now: Now,
    ) -> Self {
        let child = Process {
            now,
            rng,
            nature,
            spawned: false,
            status: None,
            wake: None,
            doomed: None,
            out: Pipe::default(),
            stderr: Pipe::default(),
            input: VecDeque::new(),
            input_open: false,
            heir_until: None,
            events: Vec::new(),
            written: Vec::new(),
            read: 0,
            trace: false,
        };
        Self {
            child,
            program,
            consumer,
            woken,
            steps: 0,
            released: 0,
            killed_far: Vec::new(),
            left_at: None,
            lateness: Duration::ZERO,
            calls: 0,
            fails: None,
            faulted: false,
            wrong: None,
        }
    }

    /// This call fails, the first being the one after `calls`.
    pub(in crate::source) fn failing(mut self, fails: Option<u64>, calls: u64) -> Self {
        (self.fails, self.calls) = (fails, calls);
        self
    }

    pub(in crate::source) fn traced(mut self, trace: bool) -> Self {
        self.child.trace = trace;
        self
    }

    /// Runs a child from its start to its end, which comes within this `grace` and the kill sequence once the consumer has
    /// left. After every turn of the loop this is checked.
    pub(in crate::source) fn play<T: Talk>(
        self,
        plan: Plan,
        talk: T,
        grace: Duration,
        mut check: impl FnMut(&T, &mut Self) -> Found,
    ) -> Result<Played<P>, String> {
        let spec = Arc::clone(&plan.spec);
        let mut event_loop = EventLoop::new(Solo::new(plan, talk), self, 1);
        loop {
            let ended = event_loop.step();
            let (solo, world) = event_loop.parts();
            if let Some(wrong) = world.wrong.take() {
                return Err(wrong);
            }
            world.steps += 1;
            must!(world.steps < MOST_STEPS, "no end");
            check(&solo.talk, world)?;
            if ended {
                break;
            }
        }
        let (solo, world) = event_loop.into_parts();
        let Self { child, program, killed_far, faulted, calls, .. } = world;
        let released = world.released;
        must!(released == u32::from(child.spawned), "it is reaped {released} times");
        if let Some(left) = world.left_at {
            let took = child.now.saturating_sub(left);
            let longest = longest_end(&spec.policy, grace).saturating_add(world.lateness);
            must!(took <= longest, "its end took {took:?}, and {longest:?} is the bound");
        }
        solo.reaped(None);
        Ok(Played { child, program, killed_far, faulted, calls })
    }

    fn note(&mut self, found: Found) {
        if let Err(wrong) = found {
            self.wrong.get_or_insert(wrong);
        }
    }

    fn fails(&mut self, what: &str) -> bool {
        self.calls += 1;
        let fails = self.fails == Some(self.calls);
        if fails {
            self.child.say(|| format!("call {}, {what}, fails", self.calls));
            self.faulted = true;
        }
        fails
    }

    fn act(&mut self) {
        let child = &mut self.child;
        if child.heir_until.is_some_and(|until| until <= child.now) {
            child.heir_until = None;
            child.hush();
        }
        if !child.is_alive() {
            return;
        }
        if let Some((at, signal)) = child.doomed
            && at <= child.now
        {
            return child.exit(signal);
        }
        if child.wake.is_some_and(|at| at <= child.now) {
            child.wake = None;
            self.program.act(child);
        }
    }

    fn next_event(&self) -> Option<Now> {
        let child = &self.child;
        let wake = child.wake.filter(|_| child.is_alive());
        let doom = child.doomed.filter(|_| child.is_alive()).map(|(at, _)| at);
        let consumer = self.consumer.borrow().wake();
        [wake, doom, child.heir_until, consumer].into_iter().flatten().min()
    }

    fn happen(&mut self) -> Found {
        self.act();
        let now = self.child.now;
        let consumer = Rc::clone(&self.consumer);
        let mut consumer = consumer.borrow_mut();
        consumer.hear(now);
        if consumer.wake().is_some_and(|at| at <= now) {
            consumer.step(now)?;
        }
        if consumer.has_left() && self.left_at.is_none() {
            self.child.say(|| "nothing more is wanted".to_owned());
            self.left_at = Some(now);
        }
        Ok(())
    }

    fn counts(&mut self) -> Found {
        self.steps += 1;
        must!(self.steps < MOST_STEPS, "no end");
        Ok(())
    }

    fn pass(&mut self, timer: Option<Now>) -> Found {
        loop {
            self.happen()?;
            if self.woken.swap(false, SeqCst) || !self.child.events.is_empty() {
                break;
            }
            let next = self.next_event().into_iter().chain(timer).min();
            let Some(at) = next else {
                let hung = self.program.is_hung() && self.left_at.is_none();
                must!(hung, "it sleeps for ever: {:?}", self.child);
                self.consumer.borrow_mut().leave();
                self.left_at = Some(self.child.now);
                continue;
            };
            self.counts()?;
            self.child.now = self.child.now.max(at);
            if timer.is_some_and(|timer| timer <= self.child.now) {
                break;
            }
        }
        self.child.now += Duration::from_micros(self.child.rng.below(20));
        if let Some(stop) = self.child.nature.late
            && self.child.rng.one_in(30)
        {
            self.child.say(|| format!("the loop is held up for {stop:?}"));
            let until = self.child.now + stop;
            while let Some(at) = self.next_event().filter(|&at| at < until) {
                self.counts()?;
                self.child.now = self.child.now.max(at);
                self.happen()?;
            }
            let since = self.left_at.unwrap_or(until);
            self.child.now = until;
            self.lateness += until - since.min(until);
        }
        self.happen()?;
        self.woken.store(false, SeqCst);
        Ok(())
    }
}

impl<P: Program, C: Consumer> Os for World<P, C> {
    fn now(&self) -> Now {
        self.child.now
    }

    fn yield_now(&mut self) {
        let found = self.happen();
        self.note(found);
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        events.clear();
        if self.fails("wait") {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.wrong.is_none() {
            self.child.say(|| format!("waits {timeout:?}"));
            let found = self.pass(timeout.map(|timeout| self.child.now.saturating_add(timeout)));
            self.note(found);
        }
        events.append(&mut self.child.events);
        Ok(())
    }

    fn spawn(&mut self, _: usize) -> Result<Spawned, StartError> {
        if self.fails("spawn") {
            return Err(StartError::NotNow(Error::new(ErrorKind::Spawn, "simulated")));
        }
        let found = if self.child.spawned { Err("it is started twice".to_owned()) } else { Ok(()) };
        self.note(found);
        let child = &mut self.child;
        (child.spawned, child.input_open) = (true, true);
        child.goes_on_in(Duration::ZERO);
        for pipe in [&mut child.out, &mut child.stderr] {
            (pipe.writer, pipe.reader) = (true, true);
        }
        let mut channels = vec![false; child.nature.channel];
        channels.push(true);
        Ok(Spawned {
            pid: 7,
            inputs: channels.clone(),
            outputs: channels,
            stderr: true,
            terminal: false,
        })
    }

    fn read(&mut self, _: usize, port: Port, room: &mut [u8]) -> io::Result<usize> {
        if self.fails("read") {
            return Err(match self.calls % 2 {
                0 => io::ErrorKind::Interrupted.into(),
                _ => io::Error::from_raw_os_error(5),
            });
        }
        let child = &mut self.child;
        let pipe = if port == Port::Stderr { &mut child.stderr } else { &mut child.out };
        if !pipe.reader {
            self.note(Err(format!("{port:?} is read and closed")));
            return Ok(0);
        }
        let n = pipe.bytes.len().min(room.len());
        if n == 0 {
            return if pipe.writer { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(0) };
        }
        for (to, byte) in room.iter_mut().zip(pipe.bytes.drain(..n)) {
            *to = byte;
        }
        if port != Port::Stderr {
            child.read += n;
        }
        child.nudge();
        Ok(n)
    }

    fn write(&mut self, _: usize, _: usize, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.fails("write") {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let child = &mut self.child;
        if !child.is_alive() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let n = slices[0].len().min(child.nature.input_room - child.input.len());
        child.input.extend(&slices[0][..n]);
        child.written.extend_from_slice(&slices[0][..n]);
        child.nudge();
        let open = child.input_open;
        if !open {
            self.note(Err("its input is written and closed".to_owned()));
        }
        if n == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
    }

    fn watch_input(&mut self, _: usize, _: usize) -> io::Result<bool> {
        if self.fails("watch_input") {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(false)
    }

    fn close(&mut self, _: usize, port: Port) {
        match port {
            Port::Output(_) => self.child.out.reader = false,
            Port::Stderr => self.child.stderr.reader = false,
            _ => self.child.input_open = false,
        }
        self.child.nudge();
    }

    fn signal(&mut self, _: usize, signal: Signal) {
        let child = &mut self.child;
        child.say(|| format!("{signal:?}"));
        let number = match signal {
            Signal::Kill => 9,
            Signal::Interrupt => 2,
            _ => 15,
        };
        if child.is_alive() && (number == 9 || !child.nature.ignores_term) {
            let at = child.now + Duration::from_micros(300);
            if child.doomed.is_none_or(|(doom, _)| at < doom) {
                child.doomed = Some((at, number));
            }
        }
    }

    fn unread(&mut self, _: usize, _: usize) -> Option<u64> {
        if self.fails("unread") { None } else { Some(0) }
    }

    fn has_no_reader(&mut self, _: usize, _: usize) -> io::Result<bool> {
        Ok(false)
    }

    fn look(&mut self, _: &[usize], _: Now) -> Vec<Look> {
        Vec::new()
    }

    fn look_far(&mut self, _: usize, _: u32) {}

    fn sighting(&mut self) -> Option<(usize, u32, Sighting)> {
        None
    }

    fn kill_far(&mut self, _: usize, pid: Option<u32>) {
        self.child.say(|| format!("kill {pid:?} there"));
        self.killed_far.push(pid);
    }

    fn release(&mut self, _: usize) -> Option<ExitStatus> {
        let unknown = self.fails("release") || self.child.nature.unknown_status;
        self.released += 1;
        if self.child.is_alive() {
            self.note(Err("it is let go alive".to_owned()));
        }
        let child = &mut self.child;
        (child.out.reader, child.stderr.reader, child.heir_until) = (false, false, None);
        child.status.map(ExitStatus::from_raw).filter(|_| !unknown)
    }
}

/// How long the end of a child may take that nobody wants anything of any more, where it is given this grace first.
fn longest_end(policy: &Policy, grace: Duration) -> Duration {
    let waits = policy.kill_sequence.iter().map(|(_, wait)| *wait);
    let at_work = 50 * MS + policy.kill_grace();
    let first = (DROP_GRACE + DRAIN_GRACE + at_work).saturating_add(grace);
    waits.fold(first, Duration::saturating_add)
}
