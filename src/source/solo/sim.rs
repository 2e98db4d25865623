//! A command as a source, under schedules from seeds: the loop that ships with one child, the words of a command, the
//! gate and the outlet, on a system that is simulated, in which each call fails once.
//!
//! The child prints records into a pipe of limited room, in pieces and with pauses, and ends as the seed has it: well,
//! with a bad status, by a signal, inside a record, not at all, with its output closed, leaving somebody behind who holds
//! its outputs, or deaf to all but SIGKILL. The consumer is fast, slow, rests, stops early or is dropped.
//!
//! # What is checked
//! - each item is the next record, or an error that the schedule justifies; the fatal one is the last;
//! - no more records are made than the window has room for, and no more bytes are held than may be, but for one record;
//! - nothing sleeps for ever but behind a child that does; a drop ends it within the kill sequence;
//! - the child is reaped, once.
//!
//! ```text
//! SUBFEED_SEED=123 cargo test --lib solo::sim::replay -- --nocapture
//! SUBFEED_SCHEDULES=1000000 cargo test --release --lib solo::sim::schedules
//! ```

use std::cell::RefCell;
use std::os::unix::process::ExitStatusExt;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use super::*;
use crate::framing::{Prefix, ReplyFraming};
use crate::signal::Signal;
use crate::source::delivery::Delivery;
use crate::source::emission::Emission;
use crate::subprocess::os::{Event, Os};
use crate::subprocess::protocol::Now;
use crate::subprocess::sim::{Rng, from_env, stir};
use crate::template::Template;
use crate::template::policy::{DRAIN_GRACE, DROP_GRACE};
use crate::window::outlet::{Given, Outlet};
use crate::window::seam::{Bounds, Ends, attach};
use crate::window::waiter::Waiter;

const MS: Duration = Duration::from_millis(1);
const MOST_STEPS: u64 = 2_000_000;

/// What was found to be wrong.
type Found = Result<(), String>;

macro_rules! must {
    ($what:expr, $($message:tt)+) => {
        if !$what {
            return Err(format!($($message)+));
        }
    };
}

/// How the child goes on when it has printed so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    Exit(i32),
    Signal,
    /// It does nothing more, ever.
    Hang,
    /// It closes its outputs, and exits later.
    Hush,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Lines,
    Prefixed,
    Whole,
}

#[derive(Clone, Debug)]
struct Schedule {
    seed: u64,
    spec: Arc<Spec>,
    format: Format,
    banner: &'static [u8],
    /// `None`: endless.
    records: Option<u64>,
    record: u64,
    /// One in so many is refused by `check`; 0: there is none.
    refused: u64,
    /// It ends after so many bytes, or with its records.
    ends_at: Option<usize>,
    finish: Finish,
    startup: Duration,
    pause: Duration,
    farewell: Duration,
    piece: usize,
    room: usize,
    ignores_term: bool,
    /// Somebody who outlives it holds its outputs for so long.
    heir: Option<Duration>,
    reads_input: bool,
    unknown_status: bool,
    late: Option<Duration>,
    window: usize,
    max_bytes: usize,
    consumer_pause: Duration,
    rest_every: u64,
    rest: Duration,
    take: Option<u64>,
    drop_at: Option<Now>,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let rng = &mut Rng::new(seed);
        let format = rng.pick(&[Format::Lines, Format::Lines, Format::Prefixed, Format::Whole]);
        let mut template = Template::new("simulated");
        let record = rng.pick(&[0, 3, 40, 900]);
        let mut refused = 0;
        template = match format {
            Format::Lines => template,
            Format::Prefixed => template.replies(ReplyFraming::prefixed(Prefix::u16_be())),
            Format::Whole => template.replies(ReplyFraming::until_eof()),
        };
        let banner: &[u8] = if rng.one_in(4) { b"Tool 1.0\n" } else { b"" };
        if !banner.is_empty() {
            template = if rng.one_in(2) {
                template.skip_lines(1)
            } else {
                template.ready("Tool 1.0\n", rng.pick(&[None, Some(20_000 * MS)]))
            };
        }
        if rng.one_in(4) {
            template = template.reply_limit(rng.pick(&[30, 2_000]));
        }
        if format != Format::Whole && rng.one_in(4) {
            refused = rng.range(1, 5);
            template = template.check(move |_, record| {
                if is_refused(seed, refused, number(record)) {
                    Err("refused".into())
                } else {
                    Ok(())
                }
            });
        }
        if rng.one_in(4) {
            template = template.preamble("set quiet on\n").farewell("quit\n");
        }
        template = template.end_timeout(rng.pick(&[None, Some(150 * MS), Some(5_000 * MS)]));
        if rng.one_in(3) {
            template = template.idle_timeout(rng.pick(&[3_000 * MS, 60_000 * MS]));
        }
        if rng.one_in(4) {
            template = template.start_timeout(rng.pick(&[3_000 * MS, 60_000 * MS]));
        }
        if rng.one_in(6) {
            template = template.run_timeout(rng.pick(&[4_000 * MS, 90_000 * MS]));
        }
        if rng.one_in(3) {
            let hard = vec![(Signal::Kill, Duration::ZERO)];
            let long = [(Signal::Interrupt, 50 * MS), (Signal::Terminate, 50 * MS)];
            let sequence = if rng.one_in(2) { hard } else { [&long[..], &hard].concat() };
            template = template.kill_sequence(sequence);
        }
        let records = match rng.below(6) {
            0 if format != Format::Whole => None,
            1 => Some(0),
            _ => Some(rng.skewed(60)),
        };
        let finish = rng.pick(&[
            Finish::Exit(0),
            Finish::Exit(0),
            Finish::Exit(0),
            Finish::Exit(3),
            Finish::Signal,
            Finish::Hang,
            Finish::Hush,
        ]);
        Self {
            seed,
            spec: Arc::new(template.spec),
            format,
            banner,
            records,
            record,
            refused,
            ends_at: rng.one_in(4).then(|| rng.skewed(4_000) as usize - 1),
            finish,
            startup: rng.pick(&[Duration::ZERO, MS, 400 * MS]),
            pause: rng.pick(&[Duration::ZERO, MS / 100, 7 * MS, 900 * MS]),
            farewell: rng.pick(&[Duration::ZERO, MS, 90 * MS]),
            piece: rng.pick(&[3, 50, 4_096]).max(record as usize / 10),
            room: rng.pick(&[16, 300, 4_096]),
            ignores_term: rng.one_in(3),
            heir: rng.one_in(5).then(|| rng.pick(&[10 * MS, 90_000 * MS])),
            reads_input: rng.one_in(2),
            unknown_status: rng.one_in(10),
            late: rng.one_in(8).then(|| MS * rng.pick(&[50, 7_000])),
            window: rng.pick(&[1, 2, 16, 1_000]),
            max_bytes: rng.pick(&[1, 100, 5_000, 64 << 20, 64 << 20]),
            consumer_pause: rng.pick(&[Duration::ZERO, MS / 100, MS, 50 * MS]),
            rest_every: rng.pick(&[u64::MAX, u64::MAX, 2, 7]),
            rest: rng.pick(&[10 * MS, 700 * MS, 70_000 * MS]),
            take: (records.is_none() || rng.one_in(8)).then(|| rng.below(50)),
            drop_at: rng.one_in(8).then(|| MS * rng.skewed(4_000) as u32),
        }
    }

    /// Record `k`, without what frames it. Where the whole output is the record, a piece of it.
    fn body(&self, k: u64) -> Vec<u8> {
        let word = stir(self.seed ^ k.wrapping_mul(0x1000_0001));
        let pad = (word % (self.record + 1)) as usize;
        format!("{k}:{:0>pad$}", word % 10).into_bytes()
    }

    fn framed(&self, k: u64) -> Vec<u8> {
        let body = self.body(k);
        match self.format {
            Format::Lines => [&body[..], b"\n"].concat(),
            Format::Prefixed => [&(body.len() as u16).to_be_bytes()[..], &body].concat(),
            Format::Whole => body,
        }
    }

    fn is_refused(&self, k: u64) -> bool {
        is_refused(self.seed, self.refused, k)
    }

    /// Whether a record may be taken to be too long: what frames it counts, or not.
    fn is_too_long(&self, body: &[u8]) -> bool {
        body.len() + 2 > self.spec.policy.reply_limit
    }

    fn is_surely_too_long(&self, body: &[u8]) -> bool {
        body.len() > self.spec.policy.reply_limit
    }

    /// Whether a time limit may run out.
    fn may_be_late(&self) -> bool {
        let policy = &self.spec.policy;
        let stays = self.finish == Finish::Hang || self.pause > 500 * MS;
        policy.run_timeout.is_some()
            || (stays && (policy.idle_timeout.is_some() || policy.start_timeout.is_some()))
            || (self.finish == Finish::Hang && self.spec.words.banner.ready_limit().is_some())
            || (self.finish == Finish::Hush && policy.end_timeout.is_some())
            // One that says nothing and ends late emits no record either.
            || (self.format == Format::Whole && policy.start_timeout.is_some())
            || (self.format == Format::Whole && policy.idle_timeout.is_some())
    }
}

fn is_refused(seed: u64, refused: u64, k: u64) -> bool {
    refused != 0 && stir(seed ^ !k).is_multiple_of(refused)
}

fn number(record: &[u8]) -> u64 {
    let digits = record.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |n, byte| n * 10 + u64::from(byte - b'0'))
}

/// What the outlet wakes.
#[derive(Debug, Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

/// The consumer, and what it has been given.
struct Consumer {
    outlet: Option<Outlet>,
    bell: Arc<Bell>,
    waiter: Waiter,
    wake: Option<Now>,
    asleep: bool,
    items: u64,
    answered: u64,
    /// The records where the whole output is one.
    whole: Option<Vec<u8>>,
    fatal: Option<Error>,
    done: bool,
    rng: Rng,
}

impl Consumer {
    fn new(outlet: Outlet, rng: Rng) -> Self {
        let bell = Arc::new(Bell::default());
        Self {
            outlet: Some(outlet),
            waiter: Waiter::Task(Waker::from(Arc::clone(&bell))),
            bell,
            wake: Some(Now::ZERO),
            asleep: false,
            items: 0,
            answered: 0,
            whole: None,
            fatal: None,
            done: false,
            rng,
        }
    }

    fn hear(&mut self, now: Now) {
        if self.bell.0.swap(false, SeqCst) && self.asleep {
            self.wake = Some(now);
        }
    }

    fn drop_outlet(&mut self) {
        self.outlet = None;
        self.wake = None;
    }

    fn step(&mut self, schedule: &Schedule, now: Now) -> Found {
        (self.wake, self.asleep) = (None, false);
        let enough = schedule.take.is_some_and(|most| self.items >= most);
        if enough || schedule.drop_at.is_some_and(|at| now >= at) {
            self.drop_outlet();
            return Ok(());
        }
        let Some(outlet) = self.outlet.as_mut().filter(|_| !self.done) else { return Ok(()) };
        let (packet, item) = match outlet.poll_next(|| self.waiter.clone()) {
            Poll::Pending => {
                self.asleep = true;
                self.wake = schedule.drop_at;
                return Ok(());
            }
            Poll::Ready(None) => {
                self.done = true;
                return Ok(());
            }
            Poll::Ready(Some((packet, given))) => {
                let item = match given {
                    Given::Reply(replies) => {
                        replies.skip();
                        Ok(replies.last(packet, &[]).bytes().to_vec())
                    }
                    Given::Failed(error) => Err(error),
                    Given::Passed => return Err("an item has passed".to_owned()),
                };
                (packet.0, item)
            }
        };
        self.item(schedule, packet, item)?;
        let mut at = now + schedule.consumer_pause * self.rng.below(3) as u32;
        if self.rng.one_in(schedule.rest_every) {
            at += schedule.rest;
        }
        self.wake = Some(schedule.drop_at.map_or(at, |drop_at| at.min(drop_at.max(now))));
        Ok(())
    }

    fn item(&mut self, schedule: &Schedule, packet: u64, item: Result<Vec<u8>, Error>) -> Found {
        must!(self.fatal.is_none(), "{item:?} comes behind a fatal error");
        let k = self.items;
        match item {
            Ok(record) => {
                must!(packet == k, "record {packet} came when {k} was next");
                self.items += 1;
                self.answered += 1;
                if schedule.format == Format::Whole {
                    must!(self.whole.replace(record).is_none(), "two whole outputs");
                    return Ok(());
                }
                must!(
                    record == schedule.body(k) && !schedule.is_refused(k),
                    "record {k} is {:?}",
                    String::from_utf8_lossy(&record)
                );
            }
            Err(error) if error.is_fatal() => self.fatal = Some(error),
            Err(error) => {
                must!(
                    packet == k
                        && error.packet() == Some(k)
                        && error.kind() == ErrorKind::Check
                        && schedule.is_refused(k),
                    "record {k}: {error:?}"
                );
                self.items += 1;
            }
        }
        Ok(())
    }
}

/// One pipe out of the child.
#[derive(Debug, Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    writer: bool,
    reader: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Starting,
    Printing,
    /// It exits with this wait status.
    Leaving(i32),
    Hung,
    Dead,
}

/// The system, with one child.
struct World {
    schedule: Arc<Schedule>,
    now: Now,
    steps: u64,
    rng: Rng,
    consumer: Rc<RefCell<Consumer>>,
    woken: Arc<AtomicBool>,
    // The child.
    doing: Doing,
    status: Option<i32>,
    child_wake: Option<Now>,
    doomed: Option<(Now, i32)>,
    stdout: Pipe,
    stderr: Pipe,
    input: usize,
    input_open: bool,
    next_record: u64,
    /// What it is about to print, and how much it has.
    text: VecDeque<u8>,
    printed: usize,
    heir_until: Option<Now>,
    // What we do.
    events: Vec<Event>,
    spawned: bool,
    released: u32,
    written: Vec<u8>,
    dropped_at: Option<Now>,
    lateness: Duration,
    calls: u64,
    fails: Option<u64>,
    faulted: bool,
    wrong: Option<String>,
    trace: bool,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("now", &self.now).finish_non_exhaustive()
    }
}

impl World {
    fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>12.6} {}", self.now.as_secs_f64(), what());
        }
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
            self.say(|| format!("call {}, {what}, fails", self.calls));
            self.faulted = true;
        }
        fails
    }

    fn event(&mut self, port: Port, hung_up: bool) {
        self.events.push(Event { slot: SLOT, port, hung_up });
    }

    // ---------------------------------------------------------------- the child

    fn is_alive(&self) -> bool {
        self.spawned && self.doing != Doing::Dead
    }

    fn exit(&mut self, status: i32) {
        self.say(|| format!("the child exits: {status}"));
        (self.doing, self.status, self.child_wake) = (Doing::Dead, Some(status), None);
        match self.schedule.heir {
            Some(time) => self.heir_until = Some(self.now + time),
            None => self.hush(),
        }
        self.event(Port::Exit, false);
    }

    fn hush(&mut self) {
        for (pipe, port) in [(&mut self.stdout, Port::Output(0)), (&mut self.stderr, Port::Stderr)]
        {
            if std::mem::take(&mut pipe.writer) && pipe.reader {
                self.events.push(Event { slot: SLOT, port, hung_up: true });
            }
        }
    }

    fn act(&mut self) {
        if self.heir_until.is_some_and(|until| until <= self.now) {
            self.heir_until = None;
            self.hush();
        }
        if !self.is_alive() {
            return;
        }
        if let Some((at, signal)) = self.doomed
            && at <= self.now
        {
            return self.exit(signal);
        }
        if self.child_wake.is_none_or(|at| at > self.now) {
            return;
        }
        self.child_wake = None;
        match self.doing {
            Doing::Starting => {
                self.doing = Doing::Printing;
                self.text.extend(self.schedule.banner);
                if self.stderr.reader {
                    self.stderr.bytes.extend(b"hello");
                    self.event(Port::Stderr, false);
                }
                if self.schedule.reads_input {
                    self.input = 0;
                    self.event(Port::Input(0), false);
                }
                self.child_wake = Some(self.now);
            }
            Doing::Printing => self.print(),
            Doing::Leaving(status) => self.exit(status),
            Doing::Hung | Doing::Dead => {}
        }
    }

    fn print(&mut self) {
        let schedule = Arc::clone(&self.schedule);
        let left = schedule.ends_at.map_or(usize::MAX, |at| at.saturating_sub(self.printed));
        let mut pause = Duration::ZERO;
        if self.text.is_empty() && schedule.records != Some(self.next_record) {
            self.text.extend(schedule.framed(self.next_record));
            self.next_record += 1;
            pause = schedule.pause * self.rng.below(3) as u32;
        }
        if left == 0 || self.text.is_empty() {
            return self.end();
        }
        if !self.stdout.reader {
            return self.exit(13);
        }
        if pause > Duration::ZERO {
            self.child_wake = Some(self.now + pause);
            return;
        }
        let free = schedule.room - self.stdout.bytes.len();
        let n = (self.rng.range(1, schedule.piece as u64) as usize).min(free).min(left);
        let n = n.min(self.text.len());
        if n == 0 {
            return;
        }
        self.stdout.bytes.extend(self.text.drain(..n));
        self.printed += n;
        self.event(Port::Output(0), false);
        self.child_wake = Some(self.now + Duration::from_micros(2));
    }

    /// It has printed what it was to print.
    fn end(&mut self) {
        let wait = |doing| (doing, Some(self.now + self.schedule.farewell));
        (self.doing, self.child_wake) = match self.schedule.finish {
            Finish::Exit(code) => wait(Doing::Leaving(code << 8)),
            Finish::Signal => wait(Doing::Leaving(11)),
            Finish::Hang => (Doing::Hung, None),
            Finish::Hush => {
                let later = self.now + 9_000 * MS;
                self.hush();
                (Doing::Leaving(0), Some(later))
            }
        };
    }

    fn nudge(&mut self) {
        if self.is_alive() && self.doing == Doing::Printing && self.child_wake.is_none() {
            self.child_wake = Some(self.now + Duration::from_micros(2));
        }
    }

    // ---------------------------------------------------------------- time

    fn next_event(&self) -> Option<Now> {
        let child = self.is_alive().then_some(self.child_wake).flatten();
        let doom = self.is_alive().then_some(self.doomed).flatten().map(|(at, _)| at);
        let consumer = self.consumer.borrow().wake;
        [child, doom, self.heir_until, consumer].into_iter().flatten().min()
    }

    fn happen(&mut self) -> Found {
        self.act();
        let consumer = Rc::clone(&self.consumer);
        let mut consumer = consumer.borrow_mut();
        consumer.hear(self.now);
        if consumer.wake.is_some_and(|at| at <= self.now) {
            consumer.step(&self.schedule, self.now)?;
            let items = consumer.items;
            self.say(|| format!("{items} items"));
            if consumer.outlet.is_none() && self.dropped_at.is_none() {
                self.say(|| "dropped".to_owned());
                self.dropped_at = Some(self.now);
            }
        }
        Ok(())
    }

    fn pass(&mut self, timer: Option<Now>) -> Found {
        loop {
            self.happen()?;
            if self.woken.swap(false, SeqCst) || !self.events.is_empty() {
                break;
            }
            let next = self.next_event().into_iter().chain(timer).min();
            let Some(at) = next else {
                let hung = self.doing == Doing::Hung;
                must!(hung && self.dropped_at.is_none(), "it sleeps for ever: {:?}", self.doing);
                self.consumer.borrow_mut().drop_outlet();
                self.dropped_at = Some(self.now);
                continue;
            };
            self.steps += 1;
            must!(self.steps < MOST_STEPS, "no end");
            self.now = self.now.max(at);
            if timer.is_some_and(|timer| timer <= self.now) {
                break;
            }
        }
        self.now += Duration::from_micros(self.rng.below(20));
        if let Some(stop) = self.schedule.late
            && self.rng.one_in(30)
        {
            self.say(|| format!("the loop is held up for {stop:?}"));
            let until = self.now + stop;
            while let Some(at) = self.next_event().filter(|&at| at < until) {
                self.steps += 1;
                must!(self.steps < MOST_STEPS, "no end");
                self.now = self.now.max(at);
                self.happen()?;
            }
            let since = self.dropped_at.unwrap_or(until);
            self.now = until;
            self.lateness += until - since.min(until);
        }
        self.happen()?;
        self.woken.store(false, SeqCst);
        Ok(())
    }
}

impl Os for World {
    fn now(&self) -> Now {
        self.now
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
            self.say(|| format!("waits {timeout:?}"));
            let found = self.pass(timeout.map(|timeout| self.now.saturating_add(timeout)));
            self.note(found);
        }
        events.append(&mut self.events);
        Ok(())
    }

    fn spawn(&mut self, _: usize) -> Result<Spawned, StartError> {
        if self.fails("spawn") {
            return Err(StartError::NotNow(Error::new(ErrorKind::Spawn, "simulated")));
        }
        let found = if self.spawned { Err("it is started twice".to_owned()) } else { Ok(()) };
        self.note(found);
        (self.spawned, self.input_open) = (true, true);
        self.child_wake = Some(self.now + self.schedule.startup);
        for pipe in [&mut self.stdout, &mut self.stderr] {
            (pipe.writer, pipe.reader) = (true, true);
        }
        Ok(Spawned {
            pid: 7,
            inputs: vec![true],
            outputs: vec![true],
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
        let pipe = if port == Port::Stderr { &mut self.stderr } else { &mut self.stdout };
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
        self.nudge();
        Ok(n)
    }

    fn write(&mut self, _: usize, _: usize, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.fails("write") {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if !self.input_open {
            self.note(Err("its input is written and closed".to_owned()));
        }
        let n = slices[0].len().min(8 - self.input);
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input += if self.schedule.reads_input { 0 } else { n };
        self.written.extend_from_slice(&slices[0][..n]);
        Ok(n)
    }

    fn watch_input(&mut self, _: usize, _: usize) -> io::Result<bool> {
        if self.fails("watch_input") {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(false)
    }

    fn close(&mut self, _: usize, port: Port) {
        match port {
            Port::Output(_) => self.stdout.reader = false,
            Port::Stderr => self.stderr.reader = false,
            _ => self.input_open = false,
        }
        self.nudge();
    }

    fn signal(&mut self, _: usize, signal: Signal) {
        self.say(|| format!("{signal:?}"));
        let number = match signal {
            Signal::Kill => 9,
            Signal::Interrupt => 2,
            _ => 15,
        };
        if self.is_alive() && (number == 9 || !self.schedule.ignores_term) {
            let at = self.now + Duration::from_micros(300);
            if self.doomed.is_none_or(|(doom, _)| at < doom) {
                self.doomed = Some((at, number));
            }
        }
    }

    fn unread(&mut self, _: usize, _: usize) -> Option<u64> {
        if self.fails("unread") { None } else { Some(0) }
    }

    fn has_no_reader(&mut self, _: usize, _: usize) -> bool {
        false
    }

    fn look(&mut self, _: &[usize], _: Now) -> Vec<Look> {
        Vec::new()
    }

    fn look_far(&mut self, _: usize, _: u32) {}

    fn sighting(&mut self) -> Option<(usize, u32, Sighting)> {
        None
    }

    fn kill_far(&mut self, _: usize, _: Option<u32>) {}

    fn release(&mut self, _: usize) -> Option<ExitStatus> {
        let unknown = self.fails("release") || self.schedule.unknown_status;
        self.released += 1;
        if self.is_alive() {
            self.note(Err("it is let go alive".to_owned()));
        }
        (self.stdout.reader, self.stderr.reader, self.heir_until) = (false, false, None);
        self.status.map(ExitStatus::from_raw).filter(|_| !unknown)
    }
}

/// What came of a seed.
#[derive(Clone, Copy, Debug, Default)]
struct Report {
    records: u64,
    fatal: u64,
    dropped: u64,
    calls: u64,
}

impl Report {
    fn add(&mut self, other: Self) {
        self.records += other.records;
        self.fatal += other.fatal;
        self.dropped += other.dropped;
        self.calls += other.calls;
    }
}

/// How long a drop may take.
fn longest_drop(schedule: &Schedule) -> Duration {
    let policy = &schedule.spec.policy;
    let waits = policy.kill_sequence.iter().map(|(_, wait)| *wait);
    let at_work = 50 * MS + policy.kill_grace();
    waits.fold(DROP_GRACE + DRAIN_GRACE + at_work, Duration::saturating_add)
}

fn play(seed: u64, fails: Option<u64>, trace: bool) -> Result<Report, String> {
    let schedule = Arc::new(Schedule::new(seed));
    schedule.spec.validate().map_err(|error| error.to_string())?;
    if trace {
        eprintln!("{schedule:#?} {:#?}", schedule.spec.policy);
    }
    let woken = Arc::new(AtomicBool::new(false));
    let call = Arc::clone(&woken);
    let bounds = Bounds::new(schedule.window, schedule.max_bytes);
    let Ends { supply, outbox, outlet, .. } = attach(bounds, move || call.store(true, SeqCst));
    let gate = Arc::clone(supply.gate());
    let mut rng = Rng::new(!seed);
    let consumer = Rc::new(RefCell::new(Consumer::new(outlet, Rng::new(rng.next()))));
    let talk = Emission::new(
        Arc::clone(&schedule.spec),
        Delivery::new(supply, outbox, "simulated".into()),
    );
    let world = World {
        now: Now::ZERO,
        steps: 0,
        rng,
        consumer: Rc::clone(&consumer),
        woken,
        doing: Doing::Starting,
        status: None,
        child_wake: None,
        doomed: None,
        stdout: Pipe::default(),
        stderr: Pipe::default(),
        input: 0,
        input_open: false,
        next_record: 0,
        text: VecDeque::new(),
        printed: 0,
        heir_until: None,
        events: Vec::new(),
        spawned: false,
        released: 0,
        written: Vec::new(),
        dropped_at: None,
        lateness: Duration::ZERO,
        calls: 0,
        fails,
        faulted: false,
        wrong: None,
        trace,
        schedule: Arc::clone(&schedule),
    };
    let plan = Plan {
        spec: Arc::clone(&schedule.spec),
        command: "simulated".into(),
        input: 0,
        output: 0,
        closes_input: true,
    };
    let mut event_loop = EventLoop::new(Solo::new(plan, talk), world, 1);
    loop {
        let ended = event_loop.step();
        let (solo, world) = event_loop.parts();
        let world: &mut World = world;
        if let Some(wrong) = world.wrong.take() {
            return Err(wrong);
        }
        world.steps += 1;
        must!(world.steps < MOST_STEPS, "no end");
        let made = solo.talk.made();
        let yielded = gate.total_yielded();
        must!(
            made <= yielded.saturating_add(schedule.window as u64),
            "{made} records are made, {yielded} yielded"
        );
        // One that is longer travels alone; and one read, which the pipe bounds here, comes on top.
        let longest = schedule.record as usize + 24;
        let whole = if schedule.format == Format::Whole { world.printed } else { 0 };
        let most = schedule.max_bytes.saturating_add(longest + whole + 2 * schedule.room + 1_500);
        must!(gate.held() <= most || world.dropped_at.is_some(), "{} held", gate.held());
        if ended {
            break;
        }
    }
    let world = event_loop.os();
    let (ended_at, released) = (world.now, world.released);
    let (spawned, faulted, calls) = (world.spawned, world.faulted, world.calls);
    let (dropped_at, lateness, status) = (world.dropped_at, world.lateness, world.status);
    must!(released == u32::from(spawned), "it is reaped {released} times");
    must!(b"set quiet on\nquit\n".starts_with(&world.written), "{:?} was said", world.written);
    event_loop.into_machine().reaped(None);
    let mut consumer = consumer.borrow_mut();
    let mut now = ended_at;
    consumer.hear(now);
    while !consumer.done && consumer.outlet.is_some() {
        let Some(at) = consumer.wake else { return Err("it sleeps after the end".to_owned()) };
        now = now.max(at);
        consumer.step(&schedule, now)?;
        consumer.hear(now);
    }
    if let Some(dropped) = dropped_at {
        let took = ended_at.saturating_sub(dropped);
        let longest = longest_drop(&schedule).saturating_add(lateness);
        must!(took <= longest, "a drop took {took:?}, and {longest:?} is the bound");
    }
    if consumer.done {
        ended_rightly(&schedule, &consumer, faulted, status)?;
    }
    Ok(Report {
        records: consumer.answered,
        fatal: consumer.fatal.is_some().into(),
        dropped: consumer.outlet.is_none().into(),
        calls,
    })
}

/// The records that the child has printed whole before its end, and whether something follows them.
fn printed_whole(schedule: &Schedule) -> Option<(u64, bool)> {
    let mut left = schedule.ends_at.unwrap_or(usize::MAX).checked_sub(schedule.banner.len())?;
    let mut k = 0;
    // An endless one that ends does so early.
    while schedule.records != Some(k) && k < 10_000 {
        let len = schedule.framed(k).len();
        if left < len {
            return Some((k, left > 0));
        }
        left -= len;
        k += 1;
    }
    Some((k, false))
}

/// The end is the one that the schedule has.
fn ended_rightly(
    schedule: &Schedule,
    consumer: &Consumer,
    faulted: bool,
    status: Option<i32>,
) -> Found {
    let fatal = consumer.fatal.as_ref();
    if faulted {
        return Ok(());
    }
    let kind = fatal.map(Error::kind);
    if kind == Some(ErrorKind::Timeout) {
        must!(schedule.may_be_late(), "it was late: {fatal:?}");
        return Ok(());
    }
    let Some((whole, half)) = printed_whole(schedule) else {
        must!(fatal.is_some(), "half a banner is no error");
        return Ok(());
    };
    if schedule.format == Format::Whole {
        let mut all: Vec<u8> =
            (0..schedule.records.unwrap_or(0)).flat_map(|k| schedule.body(k)).collect();
        all.truncate(schedule.ends_at.map_or(usize::MAX, |at| at - schedule.banner.len()));
        if schedule.is_too_long(&all) {
            return Ok(());
        }
        must!(consumer.whole.as_ref().is_none_or(|whole| *whole == all), "it is not all");
        let well = schedule.finish == Finish::Exit(0) || schedule.finish == Finish::Hush;
        let well = well && !schedule.unknown_status && status == Some(0);
        must!(well == fatal.is_none(), "{fatal:?} after a whole output");
        return Ok(());
    }
    let too_long = (0..whole + u64::from(half)).find(|k| schedule.is_too_long(&schedule.body(*k)));
    if let Some(first) = too_long {
        let surely = schedule.is_surely_too_long(&schedule.body(first));
        must!(
            !surely || (consumer.items == first && fatal.is_some()),
            "a record that is too long is no error"
        );
        must!(consumer.items >= first, "{} records before {first}: {fatal:?}", consumer.items);
        return Ok(());
    }
    must!(consumer.items == whole, "{} of {whole} records: {fatal:?}", consumer.items);
    let well = !half && !schedule.unknown_status && status == Some(0);
    must!(well == fatal.is_none(), "{fatal:?} after {whole} records, status {status:?}");
    Ok(())
}

fn run(seed: u64, fails: Option<u64>, trace: bool) -> Result<Report, String> {
    let played = std::panic::catch_unwind(|| play(seed, fails, trace));
    played.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

/// Plays on all processors what this makes of each seed below `many`, and says what has failed.
fn on_all_processors(
    many: u64,
    one: impl Fn(u64) -> Result<Report, String> + Sync,
) -> (Report, Vec<String>) {
    let next = AtomicU64::new(0);
    let work = || {
        let (mut total, mut failures) = (Report::default(), Vec::new());
        loop {
            let seed = next.fetch_add(1, SeqCst);
            if seed >= many {
                return (total, failures);
            }
            match one(seed) {
                Ok(report) => total.add(report),
                Err(failure) => failures.push(format!("seed {seed}: {failure}")),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let (mut total, mut failures) = (Report::default(), Vec::new());
        for thread in threads {
            let (some, failed) = thread.join().expect("panics are caught");
            total.add(some);
            failures.extend(failed);
        }
        (total, failures)
    })
}

#[test]
fn schedules_end_and_lose_no_record() {
    let many = from_env("SUBFEED_SCHEDULES").unwrap_or(4_000);
    let (total, failures) = on_all_processors(many, |seed| run(seed, None, false));
    println!("{many} schedules: {total:?}");
    let shown: Vec<_> = failures.iter().take(20).collect();
    assert!(failures.is_empty(), "{} failures: {shown:#?}", failures.len());
    assert!(total.records > 4 * many && total.fatal > many / 8, "{total:?}");
}

#[test]
fn whatever_call_fails_what_was_given_before_is_right_and_the_child_is_reaped() {
    let most = from_env("SUBFEED_SWEEP").unwrap_or(if cfg!(debug_assertions) { 20 } else { 200 });
    let sweep = |seed| {
        let all = run(seed, None, false)?.calls;
        // A seed that waits for long makes many calls that are all alike.
        let step = all.div_ceil(400).max(1) as usize;
        let mut total = Report::default();
        for call in (1..=all).step_by(step) {
            total.calls += 1;
            run(seed, Some(call), false).map_err(|failure| format!("call {call}: {failure}"))?;
        }
        Ok(total)
    };
    let (total, failures) = on_all_processors(most, sweep);
    println!("{most} seeds, {} calls that failed", total.calls);
    let shown: Vec<_> = failures.iter().take(20).collect();
    assert!(failures.is_empty(), "{} failures: {shown:#?}", failures.len());
}

#[test]
fn replay() {
    if let Some(seed) = from_env("SUBFEED_SEED") {
        match run(seed, from_env("SUBFEED_CALL"), true) {
            Ok(report) => println!("{report:?}"),
            Err(failure) => panic!("seed {seed}: {failure}"),
        }
    }
}
