//! A command as a source: the words of a command, and what is heard of one behind a launcher.
//!
//! The child prints records into its pipe, in pieces and with pauses, and ends as the seed has it: well, with a bad status,
//! by a signal, inside a record, not at all, with its output closed, leaving somebody behind who holds its outputs, or
//! deaf to all but SIGKILL. Behind a launcher there is noise before its hello, and its connection is refused, breaks off or
//! freezes anywhere, also in the hello or in the goodbye; its launcher ends with a status of its own. The consumer is
//! fast, slow, rests, stops early or is dropped.
//!
//! # What is checked
//! - each item is the next record, or an error that the schedule justifies; the fatal one is the last;
//! - nothing of the noise, the hello, the goodbye or of what comes behind it is a record, and what breaks off is an error;
//! - no more records are made than the window has room for, and no more bytes are held than may be, but for one record;
//! - nothing sleeps for ever but behind a child that does; a drop ends it within the kill sequence;
//! - the child is reaped, once, and the far process is killed if its launcher has ended before it has.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Poll;
use std::time::Duration;

use super::world::{Bell, Consumer, Found, MS, Nature, Process, Program, World, must};
use super::{Report, replay as played, schedules, sweep};
use crate::error::{Error, ErrorKind, Limit};
use crate::framing::{Prefix, ReplyFraming};
use crate::signal::Signal;
use crate::source::delivery::Delivery;
use crate::source::emission::Emission;
use crate::source::solo::Plan;
use crate::subprocess::protocol::Now;
use crate::subprocess::sim::{Rng, stir};
use crate::template::launcher::script::GS;
use crate::template::launcher::{Launcher, Link};
use crate::template::policy::Halt;
use crate::template::{Spec, Template};
use crate::window::outlet::{Given, Outlet};
use crate::window::seam::{Bounds, Ends, attach};

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

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Well,
    /// No hello: the launcher ends.
    Refused,
    /// It breaks off after so many bytes of any kind, and the launcher ends.
    Breaks(usize),
    /// Nothing comes after so many bytes, and nobody ends.
    Freezes(usize),
}

/// The way to a child behind a launcher.
#[derive(Clone, Debug)]
struct Way {
    fate: Fate,
    /// Bytes before the hello.
    noise: usize,
    connects: Duration,
    /// So many bytes of the goodbye come, and the rest so much later.
    hiccup: Option<(usize, Duration)>,
    /// How the launcher ends, whatever the tool has.
    status: i32,
    /// It stays behind the goodbye.
    stays: bool,
    /// What it says behind the goodbye.
    last_words: usize,
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
    reads_input: bool,
    nature: Nature,
    /// It is behind a launcher.
    way: Option<Way>,
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
        // Drawn apart, so that a seed stays what it was.
        if stir(!seed).is_multiple_of(3) {
            template = template.require_clean_exit();
        }
        let most = stir(!seed ^ 1) % 8;
        if most > 0 {
            template = template.halt(if most.is_multiple_of(2) {
                Halt::Soon(most)
            } else {
                Halt::Now(most)
            });
        }
        let spec = Arc::new(template.spec.clone());
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
        let mut schedule = Self {
            seed,
            spec: Arc::clone(&spec),
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
            nature: Nature {
                channel: 0,
                room: rng.pick(&[16, 300, 4_096]),
                input_room: 8,
                ignores_term: rng.one_in(3),
                heir: rng.one_in(5).then(|| rng.pick(&[10 * MS, 90_000 * MS])),
                unknown_status: rng.one_in(10),
                late: rng.one_in(8).then(|| MS * rng.pick(&[50, 7_000])),
                is_attentive: false,
            },
            reads_input: rng.one_in(2),
            way: None,
            window: rng.pick(&[1, 2, 16, 1_000]),
            max_bytes: rng.pick(&[1, 100, 5_000, 64 << 20, 64 << 20]),
            consumer_pause: rng.pick(&[Duration::ZERO, MS / 100, MS, 50 * MS]),
            rest_every: rng.pick(&[u64::MAX, u64::MAX, 2, 7]),
            rest: rng.pick(&[10 * MS, 700 * MS, 70_000 * MS]),
            take: (records.is_none() || rng.one_in(8)).then(|| rng.below(50)),
            drop_at: rng.one_in(8).then(|| MS * rng.skewed(4_000) as u32),
        };
        if rng.one_in(3) {
            schedule.is_launched(template, rng);
        }
        schedule
    }

    /// It runs behind a launcher.
    fn is_launched(&mut self, mut template: Template, rng: &mut Rng) {
        let mut launcher = Launcher::remote(["launcher"]).hosts(["there"]);
        let connect = rng.pick(&[None, Some(300 * MS), Some(20_000 * MS)]);
        launcher = launcher.connect_within(connect);
        if rng.one_in(6) {
            launcher = launcher.bare();
        } else if rng.one_in(3) {
            // Goes over in the first line of its input.
            template = template.env("SIMULATED", "yes");
        }
        let mut spec = template.via(launcher).spec;
        spec.begin(1).expect("hosts are named");
        self.spec = Arc::new(spec);
        let many = rng.pick(&[20, 200, 4_000]);
        let fate = match rng.below(6) {
            0 => Fate::Breaks(rng.skewed(many) as usize - 1),
            1 => Fate::Freezes(rng.skewed(many) as usize - 1),
            2 => Fate::Refused,
            _ => Fate::Well,
        };
        self.way = Some(Way {
            fate,
            noise: if rng.one_in(3) { rng.skewed(300) as usize } else { 0 },
            connects: rng.pick(&[Duration::ZERO, 5 * MS, 200 * MS, 2_000 * MS]),
            hiccup: rng
                .one_in(4)
                .then(|| (rng.range(1, 12) as usize, rng.pick(&[5 * MS, 60 * MS]))),
            status: rng.pick(&[0, 0, 255 << 8, 1 << 8, 15]),
            stays: rng.one_in(6),
            last_words: rng.pick(&[0, 7, 500]),
        });
    }

    /// Whether the first bytes of its goodbye may come so long before the others that they are taken for the tool's.
    fn may_be_mistaken(&self) -> bool {
        self.way.as_ref().and_then(|way| way.hiccup).is_some_and(|(n, _)| n < 8)
    }

    fn link(&self) -> Option<Link> {
        self.spec.link(&self.spec.seat_of(0))
    }

    /// The mark of what says hello and goodbye.
    fn mark(&self) -> Option<Vec<u8>> {
        Some([&[GS], self.link()?.mark?.as_bytes(), b" "].concat())
    }

    /// Record `k`, without what frames it. Where the whole output is the record, a piece of it.
    fn body(&self, k: u64) -> Vec<u8> {
        let word = stir(self.seed ^ k.wrapping_mul(0x1000_0001));
        let pad = (word % (self.record + 1)) as usize;
        let mut body = format!("{k}:{:0>pad$}", word % 10).into_bytes();
        if self.way.is_some() && word.is_multiple_of(3) {
            // What may be the beginning of a goodbye, or of its mark with something else behind it.
            body.extend_from_slice(&b"\x1dsubf"[..1 + (word / 3 % 5) as usize]);
        }
        body
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

    /// Behind which record, of so many, too many were refused.
    fn is_halted_at(&self, records: u64) -> Option<u64> {
        let most = match self.spec.policy.halt {
            Halt::Soon(most) | Halt::Now(most) => usize::try_from(most).ok()?,
            Halt::Never => return None,
        };
        (0..records).filter(|&k| self.is_refused(k)).nth(most - 1)
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
            || self.way.as_ref().is_some_and(|way| {
                let hushes = self.finish == Finish::Hush;
                (matches!(way.fate, Fate::Freezes(_)) || way.connects > MS || hushes)
                    && (policy.idle_timeout.is_some()
                        || policy.start_timeout.is_some()
                        || self.spec.words.banner.ready_limit().is_some())
            })
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

/// The consumer, and what it has been given.
struct Taker {
    schedule: Arc<Schedule>,
    outlet: Option<Outlet>,
    bell: Arc<Bell>,
    wake: Option<Now>,
    asleep: bool,
    items: u64,
    answered: u64,
    /// The records where the whole output is one.
    whole: Option<Vec<u8>>,
    fatal: Option<Error>,
    /// What the first bytes of a goodbye were taken for the end of.
    mistaken: Option<String>,
    done: bool,
    rng: Rng,
}

impl Taker {
    fn new(schedule: Arc<Schedule>, outlet: Outlet, rng: Rng) -> Self {
        Self {
            schedule,
            outlet: Some(outlet),
            bell: Arc::default(),
            wake: Some(Now::ZERO),
            asleep: false,
            items: 0,
            answered: 0,
            whole: None,
            fatal: None,
            mistaken: None,
            done: false,
            rng,
        }
    }

    fn item(&mut self, packet: u64, item: Result<Vec<u8>, Error>) -> Found {
        let schedule = &self.schedule;
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
                let is_right = record == schedule.body(k) && !schedule.is_refused(k);
                let record = String::from_utf8_lossy(&record).into_owned();
                // It may be wrong once, where the error follows that says so.
                must!(
                    is_right || (schedule.may_be_mistaken() && self.mistaken.is_none()),
                    "record {k} is {record:?}"
                );
                if !is_right {
                    self.mistaken = Some(record);
                }
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

impl Consumer for Taker {
    fn wake(&self) -> Option<Now> {
        self.wake
    }

    fn hear(&mut self, now: Now) {
        if self.bell.has_rung() && self.asleep {
            self.wake = Some(now);
        }
    }

    fn leave(&mut self) {
        self.outlet = None;
        self.wake = None;
    }

    fn has_left(&self) -> bool {
        self.outlet.is_none()
    }

    fn step(&mut self, now: Now) -> Found {
        (self.wake, self.asleep) = (None, false);
        let schedule = Arc::clone(&self.schedule);
        let enough = schedule.take.is_some_and(|most| self.items >= most);
        if enough || schedule.drop_at.is_some_and(|at| now >= at) {
            self.leave();
            return Ok(());
        }
        let Some(outlet) = self.outlet.as_mut().filter(|_| !self.done) else { return Ok(()) };
        let bell = &self.bell;
        let (packet, item) = match outlet.poll_next(|| bell.waiter()) {
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
        self.item(packet, item)?;
        let mut at = now + schedule.consumer_pause * self.rng.below(3) as u32;
        if self.rng.one_in(schedule.rest_every) {
            at += schedule.rest;
        }
        self.wake = Some(schedule.drop_at.map_or(at, |drop_at| at.min(drop_at.max(now))));
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Connecting,
    Greeting,
    Starting,
    Printing,
    /// The tool ends with this wait status.
    Leaving(i32),
    /// Its launcher says goodbye, and ends.
    Departing,
    Hung,
}

/// The child.
struct Tool {
    schedule: Arc<Schedule>,
    doing: Doing,
    next_record: u64,
    /// What it is about to print.
    text: VecDeque<u8>,
    /// So much of its own it has printed.
    printed: usize,
    /// What its launcher says before it, and behind it; and how much still gets through.
    hello: VecDeque<u8>,
    goodbye: VecDeque<u8>,
    hiccup: Option<(usize, Duration)>,
    left: usize,
    /// Bytes up to the end of the hello, and in all with the goodbye, where there is one.
    hello_ends: usize,
    goodbye_ends: Option<usize>,
    /// How the tool ended.
    status: Option<i32>,
}

/// Of the `sh` on the far side.
const FAR_PID: u32 = 77;

impl Tool {
    fn new(schedule: Arc<Schedule>, rng: &mut Rng) -> Self {
        let (mut hello, mut left) = (Vec::new(), usize::MAX);
        let mut hiccup = None;
        if let Some((way, mark)) = schedule.way.as_ref().zip(schedule.mark()) {
            hello.extend((0..way.noise).map(|_| rng.pick(b"\x1d\x1dsubfe\n\0 ")));
            if way.fate != Fate::Refused {
                hello.extend_from_slice(&mark);
                hello.extend_from_slice(format!("{FAR_PID}\n").as_bytes());
            }
            left = match way.fate {
                Fate::Well | Fate::Refused => usize::MAX,
                Fate::Breaks(most) | Fate::Freezes(most) => most,
            };
            hiccup = way.hiccup;
        }
        Self {
            doing: Doing::Connecting,
            next_record: 0,
            text: VecDeque::new(),
            printed: 0,
            hello_ends: hello.len(),
            hello: hello.into(),
            goodbye: VecDeque::new(),
            goodbye_ends: None,
            hiccup,
            left,
            status: None,
            schedule,
        }
    }

    /// Whether its output is told from what its launcher says.
    fn greets(&self) -> bool {
        self.hello_ends > 0 || self.schedule.mark().is_some()
    }

    fn is_refused(&self) -> bool {
        self.greets() && self.schedule.way.as_ref().is_some_and(|way| way.fate == Fate::Refused)
    }

    /// The tool has ended; what is left is its launcher.
    fn ends(&mut self, child: &mut Process, status: i32) {
        self.status = Some(status);
        let Some((way, mark)) = self.schedule.way.as_ref().zip(self.schedule.mark()) else {
            return child.exit(status);
        };
        let told = if status & 0x7f == 0 { status >> 8 } else { 128 + (status & 0x7f) };
        self.goodbye.extend(mark);
        self.goodbye.extend(format!("end {told}\n").as_bytes());
        self.goodbye_ends = Some(self.hello_ends + self.printed + self.goodbye.len());
        self.goodbye.extend(vec![b'!'; way.last_words]);
        self.doing = Doing::Departing;
        child.goes_on_in(Duration::ZERO);
    }

    /// Prints so much of this, as far as the connection is there. Says how much; `None` if it is not any more.
    fn print(
        child: &mut Process,
        text: &mut VecDeque<u8>,
        most: usize,
        left: &mut usize,
    ) -> Option<usize> {
        if *left == 0 {
            return None;
        }
        let n = child.print(text, most.min(*left));
        if *left != usize::MAX {
            *left -= n;
        }
        Some(n)
    }

    /// The connection is lost.
    fn is_cut_off(&mut self, child: &mut Process) {
        match self.schedule.way.as_ref().map(|way| way.fate) {
            Some(Fate::Freezes(_)) => self.doing = Doing::Hung,
            _ => child.exit(255 << 8),
        }
    }

    fn prints(&mut self, child: &mut Process) {
        let schedule = Arc::clone(&self.schedule);
        let left = schedule.ends_at.map_or(usize::MAX, |at| at.saturating_sub(self.printed));
        let mut pause = Duration::ZERO;
        if self.text.is_empty() && schedule.records != Some(self.next_record) {
            self.text.extend(schedule.framed(self.next_record));
            self.next_record += 1;
            pause = schedule.pause * child.rng.below(3) as u32;
        }
        if left == 0 || self.text.is_empty() {
            return self.is_done(child);
        }
        if !child.is_heard() {
            return child.exit(13);
        }
        if pause > Duration::ZERO {
            return child.goes_on_in(pause);
        }
        let most = (child.rng.range(1, schedule.piece as u64) as usize).min(left);
        match Self::print(child, &mut self.text, most, &mut self.left) {
            None => self.is_cut_off(child),
            Some(0) => {}
            Some(n) => {
                self.printed += n;
                child.goes_on_in(Duration::ZERO);
            }
        }
    }

    /// It has printed what it was to print.
    fn is_done(&mut self, child: &mut Process) {
        let farewell = self.schedule.farewell;
        let (doing, wait) = match self.schedule.finish {
            Finish::Exit(code) => (Doing::Leaving(code << 8), farewell),
            Finish::Signal => (Doing::Leaving(11), farewell),
            Finish::Hang => {
                self.doing = Doing::Hung;
                return;
            }
            Finish::Hush => {
                // Behind a launcher it is that which holds our end.
                if !self.greets() {
                    child.hush();
                }
                (Doing::Leaving(0), 9_000 * MS)
            }
        };
        self.doing = doing;
        child.goes_on_in(wait);
    }

    fn departs(&mut self, child: &mut Process) {
        let Some(way) = &self.schedule.way else { return };
        if self.goodbye.is_empty() || !child.is_heard() {
            if way.stays {
                return;
            }
            return child.exit(way.status);
        }
        let mut most = child.rng.range(1, 40) as usize;
        if let Some((before, wait)) = &mut self.hiccup {
            if *before == 0 {
                let wait = *wait;
                self.hiccup = None;
                return child.goes_on_in(wait);
            }
            most = most.min(*before);
        }
        match Self::print(child, &mut self.goodbye, most, &mut self.left) {
            None => self.is_cut_off(child),
            Some(0) => {}
            Some(n) => {
                if let Some((before, _)) = &mut self.hiccup {
                    *before -= n;
                }
                child.goes_on_in(Duration::ZERO);
            }
        }
    }
}

impl Program for Tool {
    fn is_hung(&self) -> bool {
        self.doing == Doing::Hung
    }

    fn act(&mut self, child: &mut Process) {
        match self.doing {
            Doing::Connecting => {
                self.doing = Doing::Greeting;
                let way = self.schedule.way.as_ref();
                child.goes_on_in(way.map_or(Duration::ZERO, |way| way.connects));
            }
            Doing::Greeting if !self.hello.is_empty() => {
                if !child.is_heard() {
                    return child.exit(255 << 8);
                }
                let most = child.rng.range(1, 40) as usize;
                match Self::print(child, &mut self.hello, most, &mut self.left) {
                    None => self.is_cut_off(child),
                    Some(0) => {}
                    Some(_) => child.goes_on_in(Duration::ZERO),
                }
            }
            Doing::Greeting if self.is_refused() => child.exit(255 << 8),
            Doing::Greeting => {
                self.doing = Doing::Starting;
                child.goes_on_in(self.schedule.startup);
            }
            Doing::Starting => {
                self.doing = Doing::Printing;
                self.text.extend(self.schedule.banner);
                child.complain(b"hello");
                child.goes_on_in(Duration::ZERO);
            }
            Doing::Printing => self.prints(child),
            Doing::Leaving(status) => self.ends(child, status),
            Doing::Departing => self.departs(child),
            Doing::Hung => {}
        }
        if self.schedule.reads_input && child.is_alive() {
            child.listen(usize::MAX);
        }
    }
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
    let taker = Taker::new(Arc::clone(&schedule), outlet, Rng::new(rng.next()));
    let taker = Rc::new(RefCell::new(taker));
    let talk = Emission::new(
        Arc::clone(&schedule.spec),
        Delivery::new(supply, outbox, "simulated".into()),
    );
    let tool = Tool::new(Arc::clone(&schedule), &mut rng);
    let nature = schedule.nature.clone();
    let world = World::new(tool, nature, Rc::clone(&taker), woken, rng, Now::ZERO);
    let plan = Plan {
        spec: Arc::clone(&schedule.spec),
        command: "simulated".into(),
        input: 0,
        output: 0,
        closes_input: true,
    };
    let played =
        world.failing(fails, 0).traced(trace).play(plan, talk, Duration::ZERO, |talk, world| {
            let made = talk.made();
            let yielded = gate.total_yielded();
            must!(
                made <= yielded.saturating_add(schedule.window as u64),
                "{made} records are made, {yielded} yielded"
            );
            // One that is longer travels alone; and one read, which the pipe bounds here, comes on top.
            let longest = schedule.record as usize + 30;
            let whole = if schedule.format == Format::Whole { world.program.printed } else { 0 };
            let pipe = 2 * schedule.nature.room + 1_500;
            let most = schedule.max_bytes.saturating_add(longest + whole + pipe);
            must!(gate.held() <= most || world.left_at.is_some(), "{} held", gate.held());
            Ok(())
        })?;
    let line = schedule.link().and_then(|link| link.line).unwrap_or_default();
    let said = [&line[..], b"set quiet on\nquit\n"].concat();
    let written = &played.child.written;
    must!(said.starts_with(written), "{written:?} was said");
    let (read, tool) = (played.child.read, &played.program);
    if tool.greets() {
        let greeted = !tool.is_refused() && read >= tool.hello_ends;
        let parted = tool.goodbye_ends.is_some_and(|ends| read >= ends);
        // Whether what was read last was listened to is another matter once nobody wants anything.
        let expected = if greeted && !parted { vec![Some(FAR_PID)] } else { Vec::new() };
        must!(
            played.killed_far == expected || played.faulted || schedule.may_be_mistaken(),
            "{:?} was killed there, and {expected:?} should have been",
            played.killed_far
        );
    } else {
        must!(played.killed_far.is_empty(), "{:?} was killed there", played.killed_far);
    }
    let mut taker = taker.borrow_mut();
    let mut now = played.child.now;
    taker.hear(now);
    while !taker.done && taker.outlet.is_some() {
        let Some(at) = taker.wake else { return Err("it sleeps after the end".to_owned()) };
        now = now.max(at);
        taker.step(now)?;
        taker.hear(now);
    }
    if taker.done && !played.faulted {
        ended_rightly(&schedule, &taker, &played.program, &played.child)?;
    }
    Ok(Report {
        records: taker.answered,
        passes: 1,
        fatal: taker.fatal.is_some().into(),
        dropped: taker.outlet.is_none().into(),
        calls: played.calls,
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
fn ended_rightly(schedule: &Schedule, consumer: &Taker, tool: &Tool, child: &Process) -> Found {
    let fatal = consumer.fatal.as_ref();
    let kind = fatal.map(Error::kind);
    // As a rule it says that it was mistaken; where the framing makes nothing of what follows, that comes first.
    must!(
        consumer.mistaken.is_none() || fatal.is_some(),
        "{:?} is no record, and no error says so: {fatal:?}",
        consumer.mistaken
    );
    if kind == Some(ErrorKind::Timeout) {
        must!(schedule.may_be_late(), "it was late: {fatal:?}");
        return Ok(());
    }
    let (status, unknown) = if tool.greets() {
        let heard = tool.goodbye_ends.is_some_and(|ends| child.read >= ends);
        let way = schedule.way.as_ref();
        let limit = fatal.and_then(Error::limit);
        let late = matches!(limit, Some(Limit::Connect(_)));
        must!(
            !late || way.is_some_and(|way| way.connects > 100 * MS || way.fate != Fate::Well),
            "its hello was late: {fatal:?}"
        );
        let doubted = schedule.may_be_mistaken();
        if kind == Some(ErrorKind::Transport) {
            must!(late || !heard || doubted, "{fatal:?} though its goodbye was heard");
            must!(consumer.whole.is_none() || doubted, "a record of what has broken off");
            return Ok(());
        }
        let kinds = [ErrorKind::Reply, ErrorKind::Died, ErrorKind::Halted];
        let surely = kind.is_some_and(|kind| kinds.contains(&kind));
        must!(heard || surely, "{fatal:?} of a connection that broke off");
        if !heard {
            // It was found to be wrong before.
            must!(consumer.whole.is_none(), "a record of what has broken off");
            return Ok(());
        }
        (tool.status, false)
    } else {
        (child.status, schedule.nature.unknown_status)
    };
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
        let well = well && !unknown && status == Some(0);
        must!(well == fatal.is_none(), "{fatal:?} after a whole output");
        return Ok(());
    }
    let halted = schedule.is_halted_at(whole);
    let too_long = (0..whole + u64::from(half)).find(|k| schedule.is_too_long(&schedule.body(*k)));
    let is_halted = kind == Some(ErrorKind::Halted);
    if let Some(last) = halted.filter(|&last| is_halted || too_long.is_none_or(|k| last < k)) {
        must!(is_halted && consumer.items == last + 1, "not halted behind {last}: {fatal:?}");
        return Ok(());
    }
    must!(!is_halted, "{fatal:?} although not so many were refused");
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
    let believed = !unknown && status == Some(0);
    let well = !half && believed;
    must!(well == fatal.is_none(), "{fatal:?} after {whole} records, status {status:?}");
    let told = fatal.is_some_and(|error| error.to_string().contains("exit status is unknown"));
    must!(told == (!half && unknown && !well), "{fatal:?}, unknown: {unknown}");
    Ok(())
}

#[test]
fn schedules_end_and_lose_no_record() {
    let (many, total) = schedules(play, 4_000);
    assert!(total.records > 3 * many && total.fatal > many / 8, "{total:?}");
}

#[test]
fn a_launcher_that_stays_behind_the_goodbye_or_has_more_to_say_is_neither_an_error_nor_waited_for()
{
    for seed in [104, 273, 412, 1_178, 1_299] {
        let played = play(seed, None, false);
        assert!(played.is_ok(), "seed {seed}: {played:?}");
    }
}

#[test]
fn the_time_in_which_the_consumer_rests_is_no_silence_of_the_command() {
    let played = play(199, None, false);
    assert!(played.is_ok(), "{played:?}");
}

#[test]
fn whatever_call_fails_what_was_given_before_is_right_and_the_child_is_reaped() {
    sweep(play);
}

#[test]
fn replay() {
    played(play);
}
