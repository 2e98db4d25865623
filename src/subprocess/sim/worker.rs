//! One simulated child: pipes of limited room, and a small program that a [`Script`] varies.
//!
//! It does one thing at a time (read some bytes, work on a request, write some bytes, exit), each
//! at the simulated time at which it is due, and sleeps where a real one would block.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::subprocess::evidence::{Coverage, Look, Outside, Thread, ThreadView};
use crate::subprocess::protocol::Now;
use crate::template::policy::Signal;

use super::check::{Failure, must};
use super::rng::Rng;
use super::schedule::Schedule;
use super::script::{Fault, Helper, Script, Talk, answer, body, framed, second_body, whole};

/// One pipe. `writer` and `reader` say whether that end is open.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) bytes: VecDeque<u8>,
    room: usize,
    pub(super) writer: bool,
    pub(super) reader: bool,
}

impl Pipe {
    fn new(room: usize, open: bool) -> Self {
        Self { bytes: VecDeque::new(), room, writer: open, reader: open }
    }

    pub(super) fn free(&self) -> usize {
        self.room - self.bytes.len()
    }
}

/// What others can notice of an action.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Noise {
    /// Something, or the end, on an output or on stderr.
    pub(super) output: bool,
    pub(super) stderr: bool,
    /// There is room on an input again, or nobody reads it any more.
    pub(super) input: bool,
    pub(super) exit: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Serving,
    Hung,
    /// Hears of no signal until it wakes up.
    Stuck,
    /// Exits with this wait status when it wakes.
    Leaving(i32),
}

#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: u32,
    pub(super) slot: usize,
    pub(super) script: Script,
    /// Where requests come, and their second parts.
    pub(super) stdin: Pipe,
    pub(super) second: Pipe,
    /// Stdout, and where the second parts of replies go.
    pub(super) stdout: Pipe,
    pub(super) side: Pipe,
    pub(super) stderr: Pipe,
    /// When it does the next thing; `None`: when a pipe lets it, or never.
    pub(super) wake: Option<Now>,
    /// Its wait status, once it has exited.
    pub(super) status: Option<i32>,
    /// SIGKILL has been sent.
    pub(super) killed: bool,
    /// What it has written cannot be told from replies to other requests.
    pub(super) tainted: bool,
    /// It has written more or fewer replies than it was asked for.
    pub(super) miscounts: bool,
    /// One of them was said for a request of which it has not read a byte.
    pub(super) answers_unread: bool,
    /// Every request that it has read a byte of and looked at, by position in the input.
    pub(super) looked_at: Vec<u64>,
    /// It has read a byte of what was written to it.
    pub(super) has_read: bool,
    /// How many bytes of its main input were written and it has read, and where in these each whole request ended.
    pub(super) written: u64,
    read: u64,
    pub(super) requests: Vec<(u64, u64)>,
    /// What it has written on stderr about each request.
    complaints: HashMap<u64, Vec<u8>>,
    rng: Rng,
    doomed: Option<(Now, i32)>,
    state: State,
    /// When it may hear of signals, if it is stuck.
    wakes_up: Now,
    /// Blocked in a read of this input.
    reading: Option<Port>,
    /// So much of the preamble is still to come.
    preamble: usize,
    greeted: bool,
    inbox: Vec<u8>,
    second_inbox: Vec<u8>,
    outbox: VecDeque<u8>,
    side_outbox: VecDeque<u8>,
    /// So much of the outboxes must be written before anything else.
    flush: usize,
    side_flush: usize,
    /// What is done when that is written.
    after_flush: Option<i32>,
    /// It has seen the end of its stdin.
    pub(super) eof: bool,
    records: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Main,
    Second,
}

const TICK: Duration = Duration::from_micros(2);
/// Longer than anybody is ready to wait.
const STUCK: Duration = Duration::from_secs(60);
const SIGNAL_DELAY: Duration = Duration::from_micros(300);

impl Child {
    pub(super) fn new(pid: u32, script: Script, rooms: (usize, usize), rng: Rng, now: Now) -> Self {
        let ends = script.ends;
        Self {
            pid,
            slot: 0,
            stdin: Pipe::new(rooms.0, true),
            second: Pipe::new(rooms.0, ends.second().is_some()),
            stdout: Pipe::new(rooms.1, true),
            side: Pipe::new(rooms.1, ends.side_output),
            stderr: Pipe::new(65_536, ends.stderr),
            wake: Some(now + script.startup),
            status: None,
            killed: false,
            tainted: false,
            miscounts: false,
            answers_unread: false,
            looked_at: Vec::new(),
            has_read: false,
            read: 0,
            written: 0,
            requests: Vec::new(),
            complaints: HashMap::new(),
            rng,
            doomed: None,
            state: State::Running,
            wakes_up: Now::ZERO,
            reading: None,
            preamble: script.words.preamble.len(),
            greeted: false,
            inbox: Vec::new(),
            second_inbox: Vec::new(),
            outbox: VecDeque::new(),
            side_outbox: VecDeque::new(),
            flush: 0,
            side_flush: 0,
            after_flush: None,
            eof: false,
            records: 0,
            script,
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.status.is_none()
    }

    /// Whether no signal reaches it.
    pub(super) fn is_stuck(&self) -> bool {
        self.is_alive() && self.state == State::Stuck
    }

    /// The requests of which it has read every byte, by position in the input.
    pub(super) fn has_read_whole(&self) -> impl Iterator<Item = u64> {
        let read = self.read;
        self.requests.iter().filter(move |(_, end)| *end <= read).map(|(k, _)| *k)
    }

    /// Whether the request at this position of the input was written to it.
    pub(super) fn was_sent(&self, k: u64) -> bool {
        self.requests.iter().any(|(sent, _)| *sent == k)
    }

    /// Whether the reply to this request came with what it has said on its side output and on stderr.
    pub(super) fn said_with(
        &self,
        schedule: &Schedule,
        k: u64,
        side: Option<&[u8]>,
        stderr: Option<&[u8]>,
    ) -> Result<(), Failure> {
        let expected = self.script.ends.side_output.then(|| answer(&schedule.body(k)));
        must!(side == expected.as_deref(), "item {k} has {side:?} on its side output");
        let complaint = self.complaints.get(&k).map_or(&[][..], Vec::as_slice);
        let expected = schedule.spec.policy.keep_stderr.then_some(complaint);
        must!(stderr == expected, "item {k} has {stderr:?} on stderr, and not {expected:?}");
        Ok(())
    }

    /// The input of this number, as we count them.
    pub(super) fn input(&mut self, channel: usize) -> &mut Pipe {
        if channel == self.script.ends.main() { &mut self.stdin } else { &mut self.second }
    }

    /// The output of this number.
    pub(super) fn output(&mut self, output: usize) -> &mut Pipe {
        if output == 0 { &mut self.stdout } else { &mut self.side }
    }

    /// What a look finds out.
    pub(super) fn look(&self, at: Now) -> Look {
        let sleeps = self.is_alive() && self.wake.is_none();
        let open = [(Port::Main, &self.stdin), (Port::Second, &self.second)];
        let open = open.into_iter().filter(|(_, pipe)| pipe.writer);
        let read_of = |port: Port| {
            let channel = open.clone().position(|(other, _)| other == port);
            channel.map_or(ThreadView::Running, ThreadView::ReadOf)
        };
        let idle = self.state == State::Running && self.reading.is_some();
        let main = match self.state {
            _ if !self.is_alive() => ThreadView::Running,
            State::Running => match self.reading {
                Some(port) => read_of(port),
                None if sleeps => ThreadView::Outside(Outside::Writing),
                None => ThreadView::Running,
            },
            State::Serving if self.script.helper == Helper::Dropper => ThreadView::Timed,
            State::Hung => ThreadView::Timed,
            State::Stuck => ThreadView::DiskWait,
            _ => ThreadView::Running,
        };
        let pid = self.pid.cast_signed() * 10;
        let thread = |id: i32, view| Thread::new(id, 1, true, view, Duration::ZERO);
        let reader = read_of(Port::Main);
        let (views, sleeps): (Vec<ThreadView>, bool) = match self.script.helper {
            Helper::None => (vec![main], sleeps),
            Helper::Sleeper => (vec![main, ThreadView::Timed], sleeps),
            Helper::Poller => (vec![main, ThreadView::Poll], sleeps),
            // Whoever works waits for whoever reads.
            Helper::Reader if idle => (vec![ThreadView::FutexForever, main], sleeps),
            Helper::Reader => (vec![main], sleeps),
            Helper::Dropper if self.state == State::Serving => (vec![main, reader], true),
            Helper::Dropper => (vec![main, ThreadView::Timed], sleeps),
        };
        let ids = 0..;
        let threads = ids.zip(views).map(|(n, view)| thread(pid + n, view)).collect();
        let unread = open.map(|(_, pipe)| pipe.bytes.len() as u64).collect();
        let coverage = if sleeps { Coverage::Still } else { Coverage::Once };
        Look::new(at, unread, threads, coverage)
    }

    /// Something has changed at one of its pipes.
    pub(super) fn nudge(&mut self, now: Now) {
        if !self.is_alive() {
            return;
        }
        if self.state == State::Serving
            && self.script.helper == Helper::Dropper
            && !self.stdin.writer
        {
            // Its input has ended: whatever it had is not waited for.
            self.state = State::Leaving(0);
            self.wake = Some(now + TICK);
            return;
        }
        if self.wake.is_none() && self.state == State::Running {
            self.reading = None;
            self.wake = Some(now + TICK);
        }
    }

    pub(super) fn signal(&mut self, signal: Signal, now: Now) {
        let number = match signal {
            Signal::Kill => 9,
            Signal::Interrupt => 2,
            _ => 15,
        };
        self.killed |= signal == Signal::Kill;
        if !self.is_alive() || (signal != Signal::Kill && self.script.ignores_term) {
            return;
        }
        if self.state == State::Stuck {
            // A signal that would end it waits for it.
            self.doomed = Some((self.wakes_up, number));
            self.wake = (self.wakes_up < Now::MAX).then_some(self.wakes_up);
            return;
        }
        let at = now + SIGNAL_DELAY;
        if self.doomed.is_none_or(|(doom, _)| at < doom) {
            self.doomed = Some((at, number));
        }
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Does what is due.
    pub(super) fn act(&mut self, now: Now, poison: &dyn Fn(u64) -> bool) -> Noise {
        let mut noise = Noise::default();
        self.wake = None;
        if !self.is_alive() {
            return noise;
        }
        match self.doomed {
            Some((at, signal)) if at <= now => self.exit(signal, &mut noise),
            _ => match self.state {
                State::Hung | State::Stuck => {}
                State::Leaving(status) => self.exit(status, &mut noise),
                State::Serving => {
                    self.state = State::Running;
                    self.serve(now, &mut noise, poison);
                }
                State::Running => self.run(now, &mut noise),
            },
        }
        if self.is_alive()
            && let Some((at, _)) = self.doomed
            && at < Now::MAX
        {
            self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
        }
        noise
    }

    fn run(&mut self, now: Now, noise: &mut Noise) {
        if self.flush > 0 || self.side_flush > 0 {
            return self.write(now, noise);
        }
        if let Some(status) = self.after_flush.take() {
            return self.leave(now, status);
        }
        if !std::mem::replace(&mut self.greeted, true) {
            return self.greet(now);
        }
        if self.misbehaves(now, noise) {
            return;
        }
        if self.script.leaves_after.is_some_and(|most| self.records >= most) {
            self.outbox.extend(&self.script.words.bye);
            self.flush_all();
            self.after_flush = Some(0);
            self.wake = Some(now + TICK);
            return;
        }
        let ended = self.eof || !self.stdin.reader;
        if ended {
            self.strip_farewell();
        }
        let may_look = ended || self.inbox.len() >= self.script.in_block;
        let at_end = self.script.talk == Talk::UntilEof && ended && !self.inbox.is_empty();
        if may_look && let Some(len) = whole(self.script.talk, &self.inbox) {
            if self.is_farewell(&self.inbox[..len]) {
                self.inbox.drain(..len);
                self.wake = Some(now + TICK);
                return;
            }
            if self.needs_second() {
                return self.read(Port::Second, now, noise);
            }
            return self.begin(now);
        }
        if may_look && at_end {
            return self.begin(now);
        }
        if ended {
            return self.end(now);
        }
        self.read(Port::Main, now, noise);
    }

    /// It starts to work on the next request.
    fn begin(&mut self, now: Now) {
        self.state = State::Serving;
        self.wake = Some(now + self.script.service);
    }

    /// Its input has ended, and everything in it is answered.
    fn end(&mut self, now: Now) {
        let ignores = matches!(self.script.fault, Some((Fault::IgnoreEnd, _)));
        if ignores && self.outbox.is_empty() && self.side_outbox.is_empty() {
            self.state = State::Hung;
            return;
        }
        if self
            .script
            .fault
            .is_some_and(|(fault, after)| fault == Fault::ExtraAtEnd && self.records >= after)
        {
            self.says_too_much();
        }
        if !ignores {
            if self.eof {
                self.outbox.extend(&self.script.words.bye);
            }
            self.after_flush = Some(self.script.exit_code << 8);
        }
        self.flush_all();
        if !self.stdout.writer {
            self.drop_outboxes();
        }
        self.wake = Some(now + TICK);
    }

    fn greet(&mut self, now: Now) {
        self.wake = Some(now + TICK);
        let mut banner = self.script.words.banner.clone();
        match self.script.fault {
            Some((Fault::HangStarting, _)) => {
                self.state = State::Hung;
                self.wake = None;
                return;
            }
            Some((Fault::DieStarting, after)) => {
                banner.truncate(if after % 2 == 0 { 0 } else { banner.len() / 2 });
                self.after_flush = Some(self.death());
            }
            _ => {}
        }
        self.outbox.extend(banner);
        self.flush = self.outbox.len();
    }

    fn flush_all(&mut self) {
        self.flush = self.outbox.len();
        self.side_flush = self.side_outbox.len();
    }

    fn drop_outboxes(&mut self) {
        self.outbox.clear();
        self.side_outbox.clear();
        (self.flush, self.side_flush) = (0, 0);
    }

    /// Whether this, a whole request, is what is said to it at the end.
    fn is_farewell(&self, request: &[u8]) -> bool {
        !self.script.words.farewell.is_empty() && request == self.script.words.farewell
    }

    /// Where requests have no end of their own, the last words stand behind the only one.
    fn strip_farewell(&mut self) {
        let farewell = &self.script.words.farewell;
        if self.script.talk == Talk::UntilEof
            && !farewell.is_empty()
            && self.inbox.ends_with(farewell)
        {
            self.inbox.truncate(self.inbox.len() - farewell.len());
        }
    }

    /// Whether the second part of the next request is still to be read.
    fn needs_second(&self) -> bool {
        self.script.ends.second().is_some()
            && self.script.reads_second
            && self.second.reader
            && !self.second_inbox.contains(&b'\n')
    }

    fn read(&mut self, port: Port, now: Now, noise: &mut Noise) {
        let most = match self.script.leaves_after {
            // Like a shell: not a byte beyond the request.
            Some(_) => 1,
            None => self.rng.range(1, self.script.read_most as u64) as usize,
        };
        let (pipe, inbox) = match port {
            Port::Main => (&mut self.stdin, &mut self.inbox),
            Port::Second => (&mut self.second, &mut self.second_inbox),
        };
        let there = pipe.bytes.len();
        if there == 0 {
            if pipe.writer {
                self.reading = Some(port);
                return;
            }
            match port {
                Port::Main => self.eof = true,
                // The other half of the request will never come.
                Port::Second => {
                    pipe.reader = false;
                    self.tainted = true;
                }
            }
            self.wake = Some(now + TICK);
            return;
        }
        noise.input |= pipe.free() == 0;
        inbox.extend(pipe.bytes.drain(..most.min(there)));
        self.has_read = true;
        if port == Port::Main {
            self.read += most.min(there) as u64;
        }
        if port == Port::Main && self.preamble > 0 {
            let n = self.preamble.min(self.inbox.len());
            self.inbox.drain(..n);
            self.preamble -= n;
        }
        self.wake = Some(now + TICK);
    }

    fn write(&mut self, now: Now, noise: &mut Noise) {
        // Stdout may lead into a file.
        let piped = self.script.ends.stdout || self.flush == 0;
        let (pipe, outbox, flush) = if self.flush > 0 {
            (&mut self.stdout, &mut self.outbox, &mut self.flush)
        } else {
            (&mut self.side, &mut self.side_outbox, &mut self.side_flush)
        };
        if piped && !pipe.reader {
            return self.exit(13, noise);
        }
        let most = self.rng.range(1, self.script.write_most as u64) as usize;
        let mut n = most.min(*flush);
        if !piped {
            outbox.drain(..n);
        } else {
            n = n.min(pipe.free());
            if n == 0 {
                return;
            }
            pipe.bytes.extend(outbox.drain(..n));
            noise.output = true;
        }
        *flush -= n;
        self.wake = Some(now + TICK);
    }

    fn says_too_much(&mut self) {
        let talk = self.script.talk;
        self.outbox.extend(framed(talk, b"", b"DEBUG"));
        if self.script.ends.side_output {
            self.side_outbox.extend(b"DEBUG\n");
        }
        self.tainted = true;
        self.miscounts = true;
        if self.script.out_block == 0 {
            self.flush_all();
        }
        self.script.fault = None;
    }

    /// Faults that come between two requests.
    fn misbehaves(&mut self, now: Now, noise: &mut Noise) -> bool {
        let Some((fault, after)) = self.script.fault else { return false };
        let early = fault == Fault::ExtraEarly;
        if self.records < after && !early {
            return false;
        }
        match fault {
            Fault::DieUnread => self.die(now),
            Fault::LeaveUnread if !self.has_read => self.leave(now, 0),
            Fault::ExtraEarly | Fault::ExtraIdle => {
                self.says_too_much();
                self.wake = Some(now + TICK);
            }
            Fault::ExtraLeaving if self.inbox.is_empty() && self.second_inbox.is_empty() => {
                self.says_too_much();
                self.answers_unread = true;
                self.flush_all();
                self.after_flush = Some(0);
                self.wake = Some(now + TICK);
            }
            Fault::Hang => self.state = State::Hung,
            Fault::Stuck => {
                self.state = State::Stuck;
                self.wakes_up = if self.rng.one_in(2) { Now::MAX } else { now + STUCK };
            }
            Fault::CloseInput if self.stdin.reader => {
                // Whatever it says and however little it has read, that is a whole output.
                self.tainted |= self.script.talk == Talk::UntilEof;
                self.stdin.reader = false;
                noise.input = true;
                self.wake = Some(now + TICK);
            }
            // Where its stdin has ended before, that would be a hang like any other: for a time limit.
            Fault::Retire if self.stdin.writer => {
                self.stdin.reader = false;
                noise.input = true;
                self.state = State::Hung;
            }
            Fault::CloseOutput if self.stdout.writer => {
                self.stdout.writer = false;
                self.side.writer = false;
                self.tainted |= self.script.talk == Talk::UntilEof;
                noise.output = true;
                self.drop_outboxes();
                self.script.fault = Some((Fault::CloseOutput, u64::MAX));
                self.wake = Some(now + TICK);
            }
            _ => return false,
        }
        true
    }

    /// The work on the first request in the inbox is done.
    fn serve(&mut self, now: Now, noise: &mut Noise, poison: &dyn Fn(u64) -> bool) {
        let talk = self.script.talk;
        let len = whole(talk, &self.inbox).unwrap_or(self.inbox.len());
        let request: Vec<u8> = self.inbox.drain(..len).collect();
        let body = body(talk, &request);
        let number = body.iter().take_while(|byte| byte.is_ascii_digit());
        let position = number.fold(0, |n: u64, byte| n * 10 + u64::from(byte - b'0'));
        self.looked_at.push(position);
        if let Some(end) = self.second_inbox.iter().position(|&byte| byte == b'\n') {
            let part: Vec<u8> = self.second_inbox.drain(..=end).collect();
            // The parts of one request belong together.
            self.tainted |= part[..end] != second_body(position);
        }
        if poison(position) {
            return self.die(now);
        }
        if self.script.noisy {
            let room = self.stderr.free().min(30);
            let complaint = &format!("{position:!<30}").into_bytes()[..room];
            self.stderr.bytes.extend(complaint);
            self.complaints.insert(position, complaint.to_vec());
            noise.stderr = true;
        }
        let fault = match self.script.fault {
            Some((fault, after)) if after == self.records => Some(fault),
            _ => None,
        };
        self.records += 1;
        self.wake = Some(now + TICK);
        let mut reply = answer(body);
        match fault {
            Some(Fault::LongReply) => reply.extend_from_slice(&[b'y'; 1000]),
            Some(Fault::WrongReply) => reply.push(b'?'),
            _ => {}
        }
        let bytes = framed(talk, &request, &reply);
        let mut side = Vec::new();
        if self.script.ends.side_output {
            side = [&answer(body)[..], b"\n"].concat();
        }
        self.tainted |= matches!(
            fault,
            Some(Fault::LongReply | Fault::WrongReply | Fault::ExtraReply | Fault::SkipReply)
        );
        self.miscounts |= matches!(fault, Some(Fault::ExtraReply | Fault::SkipReply));
        match fault {
            Some(Fault::DieRead) => return self.die(now),
            Some(Fault::DieHalf) => {
                self.outbox.extend(&bytes[..bytes.len() / 2]);
                self.flush = self.outbox.len();
                self.after_flush = Some(self.death());
                return;
            }
            Some(Fault::DieAnswered) => {
                self.outbox.extend(bytes);
                self.side_outbox.extend(side);
                self.flush_all();
                self.after_flush = Some(self.death());
                return;
            }
            Some(Fault::SkipReply) => {}
            Some(Fault::ExtraReply) => {
                for _ in 0..2 {
                    self.outbox.extend(&bytes);
                    self.side_outbox.extend(&side);
                }
            }
            _ => {
                self.outbox.extend(bytes);
                self.side_outbox.extend(side);
            }
        }
        if !self.stdout.writer {
            self.drop_outboxes();
        }
        let block = self.script.out_block;
        if block == 0 {
            self.flush_all();
        } else if self.outbox.len() >= block {
            self.flush = self.outbox.len() - self.outbox.len() % block;
        }
    }

    fn death(&mut self) -> i32 {
        if self.script.by_signal { 11 } else { 3 << 8 }
    }

    fn die(&mut self, now: Now) {
        let status = self.death();
        self.state = State::Leaving(status);
        self.wake = Some(now + TICK);
    }

    fn leave(&mut self, now: Now, status: i32) {
        self.state = State::Leaving(status);
        self.wake = Some(now + self.script.farewell);
    }

    fn exit(&mut self, status: i32, noise: &mut Noise) {
        self.status = Some(status);
        self.wake = None;
        // Who was given no request has shifted nothing.
        let words = self.script.words.preamble.len() + self.script.words.farewell.len();
        self.answers_unread &= self.stdin.bytes.len() > words;
        self.stdin.reader = false;
        self.second.reader = false;
        if !self.script.leaves_behind {
            self.stdout.writer = false;
            self.side.writer = false;
            self.stderr.writer = false;
        }
        *noise = Noise { output: true, stderr: true, input: true, exit: true };
    }
}
