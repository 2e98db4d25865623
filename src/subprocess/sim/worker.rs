//! One simulated child: three pipes of limited room, and a small program that a [`Script`] varies.
//!
//! It does one thing at a time (read some bytes, work on a request, write some bytes, exit), each
//! at the simulated time at which it is due, and sleeps where a real one would block.

use std::collections::VecDeque;
use std::time::Duration;

use crate::subprocess::evidence::{Coverage, Look, Outside, Thread, ThreadView};
use crate::subprocess::protocol::Now;
use crate::template::policy::Signal;

use super::rng::Rng;
use super::script::{Fault, Helper, Script, Talk, answer, body, framed, whole};

/// One pipe. `writer` and `reader` say whether that end is open.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) bytes: VecDeque<u8>,
    room: usize,
    pub(super) writer: bool,
    pub(super) reader: bool,
}

impl Pipe {
    fn new(room: usize) -> Self {
        Self { bytes: VecDeque::new(), room, writer: true, reader: true }
    }

    pub(super) fn free(&self) -> usize {
        self.room - self.bytes.len()
    }
}

/// What others can notice of an action.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Noise {
    /// Something, or the end, on stdout or stderr.
    pub(super) output: bool,
    pub(super) stderr: bool,
    /// There is room on stdin again, or nobody reads it any more.
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
    pub(super) script: Script,
    pub(super) stdin: Pipe,
    pub(super) stdout: Pipe,
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
    /// Every request that it has read a byte of and looked at, by position in the input.
    pub(super) looked_at: Vec<u64>,
    rng: Rng,
    doomed: Option<(Now, i32)>,
    state: State,
    /// When it may hear of signals, if it is stuck.
    wakes_up: Now,
    /// Blocked in a read of its stdin.
    reading: bool,
    inbox: Vec<u8>,
    outbox: VecDeque<u8>,
    /// So much of the outbox must be written before anything else.
    flush: usize,
    /// What is done when that is written.
    after_flush: Option<i32>,
    /// It has seen the end of its stdin.
    pub(super) eof: bool,
    records: u64,
}

const TICK: Duration = Duration::from_micros(2);
/// Longer than anybody is ready to wait.
const STUCK: Duration = Duration::from_secs(60);
const SIGNAL_DELAY: Duration = Duration::from_micros(300);

impl Child {
    pub(super) fn new(pid: u32, script: Script, rooms: (usize, usize), rng: Rng, now: Now) -> Self {
        Self {
            pid,
            stdin: Pipe::new(rooms.0),
            stdout: Pipe::new(rooms.1),
            stderr: Pipe::new(65_536),
            wake: Some(now + script.startup),
            status: None,
            killed: false,
            tainted: false,
            miscounts: false,
            looked_at: Vec::new(),
            rng,
            doomed: None,
            state: State::Running,
            wakes_up: Now::ZERO,
            reading: false,
            inbox: Vec::new(),
            outbox: VecDeque::new(),
            flush: 0,
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

    /// What a look finds out.
    pub(super) fn look(&self, at: Now) -> Look {
        let sleeps = self.is_alive() && self.wake.is_none();
        let main = match self.state {
            _ if !self.is_alive() => ThreadView::Running,
            State::Running if self.reading => ThreadView::ReadOf(0),
            State::Running if sleeps => ThreadView::Outside(Outside::Writing),
            State::Hung => ThreadView::Timed,
            State::Stuck => ThreadView::DiskWait,
            _ => ThreadView::Running,
        };
        let pid = self.pid.cast_signed() * 10;
        let mut threads = vec![Thread::new(pid, 1, true, main, Duration::ZERO)];
        match self.script.helper {
            Helper::None => {}
            Helper::Sleeper => {
                threads.push(Thread::new(pid + 1, 1, true, ThreadView::Timed, Duration::ZERO));
            }
            Helper::Poller => {
                threads.push(Thread::new(pid + 1, 1, true, ThreadView::Poll, Duration::ZERO));
            }
        }
        let unread =
            if self.stdin.writer { vec![self.stdin.bytes.len() as u64] } else { Vec::new() };
        let coverage = if sleeps { Coverage::Still } else { Coverage::Once };
        Look::new(at, unread, threads, coverage)
    }

    /// Something has changed at one of its pipes.
    pub(super) fn nudge(&mut self, now: Now) {
        if self.wake.is_none() && self.is_alive() && self.state == State::Running {
            self.reading = false;
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
        if self.flush > 0 {
            return self.write(now, noise);
        }
        if let Some(status) = self.after_flush.take() {
            return self.leave(now, status);
        }
        if self.misbehaves(now, noise) {
            return;
        }
        if self.script.leaves_after.is_some_and(|most| self.records >= most) {
            self.flush = self.outbox.len();
            self.after_flush = Some(0);
            self.wake = Some(now + TICK);
            return;
        }
        let ended = self.eof || !self.stdin.reader;
        let may_look = ended || self.inbox.len() >= self.script.in_block;
        let at_end = self.script.talk == Talk::UntilEof && ended && !self.inbox.is_empty();
        if may_look && (at_end || whole(self.script.talk, &self.inbox).is_some()) {
            self.state = State::Serving;
            self.wake = Some(now + self.script.service);
            return;
        }
        if ended {
            if matches!(self.script.fault, Some((Fault::IgnoreEnd, _))) && self.outbox.is_empty() {
                self.state = State::Hung;
                return;
            }
            self.flush = self.outbox.len();
            if !matches!(self.script.fault, Some((Fault::IgnoreEnd, _))) {
                self.after_flush = Some(self.script.exit_code << 8);
            }
            self.wake = Some(now + TICK);
            return;
        }
        self.read(now, noise);
    }

    fn read(&mut self, now: Now, noise: &mut Noise) {
        let there = self.stdin.bytes.len();
        if there == 0 {
            if self.stdin.writer {
                self.reading = true;
            } else {
                self.eof = true;
                self.wake = Some(now + TICK);
            }
            return;
        }
        let was_full = self.stdin.free() == 0;
        let mut n = self.rng.range(1, self.script.read_most as u64) as usize;
        if self.script.leaves_after.is_some() {
            // Like a shell: not a byte beyond the request.
            n = 1;
        }
        for byte in self.stdin.bytes.drain(..n.min(there)) {
            self.inbox.push(byte);
        }
        noise.input |= was_full;
        self.wake = Some(now + TICK);
    }

    fn write(&mut self, now: Now, noise: &mut Noise) {
        if !self.stdout.reader {
            return self.exit(13, noise);
        }
        let most = self.rng.range(1, self.script.write_most as u64) as usize;
        let n = most.min(self.flush).min(self.stdout.free());
        if n == 0 {
            return;
        }
        self.stdout.bytes.extend(self.outbox.drain(..n));
        self.flush -= n;
        noise.output = true;
        self.wake = Some(now + TICK);
    }

    /// Faults that come between two requests.
    fn misbehaves(&mut self, now: Now, noise: &mut Noise) -> bool {
        let Some((fault, after)) = self.script.fault else { return false };
        if self.records < after {
            return false;
        }
        match fault {
            Fault::DieUnread => self.die(now),
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
                self.tainted |= self.script.talk == Talk::UntilEof;
                noise.output = true;
                self.outbox.clear();
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
        if poison(position) {
            return self.die(now);
        }
        if self.script.noisy {
            let room = self.stderr.free().min(30);
            self.stderr.bytes.extend(std::iter::repeat_n(b'!', room));
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
                self.flush = self.outbox.len();
                self.after_flush = Some(self.death());
                return;
            }
            Some(Fault::SkipReply) => {}
            Some(Fault::ExtraReply) => {
                self.outbox.extend(&bytes);
                self.outbox.extend(&bytes);
            }
            _ => self.outbox.extend(bytes),
        }
        if !self.stdout.writer {
            self.outbox.clear();
        }
        let block = self.script.out_block;
        if block == 0 {
            self.flush = self.outbox.len();
        } else if self.outbox.len() >= block {
            self.flush = self.outbox.len() - self.outbox.len() % block;
        }
    }

    fn death(&mut self) -> i32 {
        if self.script.by_signal { 11 } else { 1 << 8 }
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
        self.stdin.reader = false;
        if !matches!(self.script.fault, Some((Fault::Grandchild, _))) {
            self.stdout.writer = false;
            self.stderr.writer = false;
        }
        *noise = Noise { output: true, stderr: true, input: true, exit: true };
    }
}
