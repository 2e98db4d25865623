//! The supervisor: the thread that owns one child of a source, its descriptors and its timers.
//!
//! It starts the child, writes what is to be said, reads while somebody wants what comes, and sees the
//! child to its end: the kill kill sequence, the last bytes, the reaping. What the bytes mean is not its
//! business but that of a [`Talk`], which does no I/O. It never blocks but in the poller.
//!
//! Readiness is edge-triggered, as in the swarm's event_loop: a pipe that is not wanted is simply not read,
//! which is all the back-pressure there is.

use std::io::{ErrorKind as IoErrorKind, IoSlice};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, StderrExcerpt};
use crate::signal::Signal;
use crate::source::inbox::Inbox;
use crate::subprocess::exit::ExitWatch;
use crate::subprocess::kill_sequence::KillSequence;
use crate::subprocess::process::{Launcher, Process, block_sigpipe};
use crate::subprocess::protocol::{Now, StartError};
use crate::subprocess::readiness::{Interest, Readiness, Ready};
use crate::template::Spec;
use crate::template::policy::DRAIN_GRACE;
use crate::window::unwind::{self, Payload};

/// Reads in a row before orders, timers and stderr get their turn.
const READS_IN_A_ROW: usize = 4;

/// One side of the conversation with a child, free of I/O: bytes in, bytes and verdicts out.
pub(crate) trait Talk: Send {
    /// The child runs.
    fn started(&mut self, pid: u32, now: Now);
    /// Looks at what the consumer wants and at the clock. Appends what is to be written to the child.
    fn attend(&mut self, now: Now, say: &mut Vec<u8>) -> Stand;
    /// Whether more of the child's output is wanted now. If not, whoever changes that wakes the poller.
    fn wants(&mut self) -> bool;
    /// Takes from the front of what has been read and not been taken, and says how many bytes. At the
    /// end of the output it is asked until it is [through](Talk::is_through).
    fn hear(&mut self, unread: &[u8], eof: bool, now: Now) -> usize;
    /// The output has ended and there is nothing left in it to be taken.
    fn is_through(&self) -> bool;
    /// When to look at the clock again.
    fn deadline(&self) -> Option<Now>;
    /// The child is gone and reaped, or never was.
    fn over(&mut self, ending: Ending);
}

/// What is to become of the child. It never goes back up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stand {
    /// It goes on.
    Go,
    /// It has been told to leave, and gets this long before the kill sequence.
    #[cfg_attr(
        not(feature = "function-source"),
        expect(dead_code, reason = "a command is told nothing")
    )]
    Leave(Duration),
    /// The kill sequence, now.
    Kill,
}

/// How it ended.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// `None` if it never ran, or somebody else reaped it.
    pub(crate) status: Option<ExitStatus>,
    pub(crate) stderr: StderrExcerpt,
    /// The last signal that we sent it.
    pub(crate) signalled: Option<Signal>,
    /// It closed its output and stayed, until its time was up.
    pub(crate) overstayed: bool,
    /// Why it could not be started or watched.
    pub(crate) error: Option<Error>,
    /// Something in here, or a framing of the user's, panicked.
    pub(crate) panic: Option<Payload>,
}

/// Which child, and which of its channels carry the conversation.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) spec: Arc<Spec>,
    pub(crate) command: Arc<str>,
    /// Index among the inputs that are written: 0 is stdin.
    pub(crate) input: usize,
    /// Index among the outputs that are read: 0 is stdout.
    pub(crate) output: usize,
    /// Close the input as soon as the first words are written.
    pub(crate) closes_input: bool,
}

/// The keys of the four things that are waited for.
const EXIT: usize = 0;
const STDERR: usize = 1;
const OUTPUT: usize = 2;
const INPUT: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Phase {
    Alive,
    Leaving {
        by: Option<Now>,
    },
    /// Killed; and at last given up, if nothing kills it: it sleeps in the kernel, or is another user's.
    Killing(KillSequence, Option<Now>),
    /// It has exited; the last time that anything was read from it.
    Gone {
        quiet_since: Now,
    },
}

struct Supervisor {
    plan: Plan,
    poller: Arc<Readiness>,
    start: Instant,
    process: Option<Process>,
    exit: Option<ExitWatch>,
    phase: Phase,
    stand: Stand,
    /// To be written, and how much of it is.
    say: Vec<u8>,
    said: usize,
    writable: bool,
    readable: bool,
    eof: bool,
    stderr_readable: bool,
    signalled: Option<Signal>,
    overstayed: bool,
    inbox: Inbox,
    tail: StderrExcerpt,
}

/// Keeps one child from its start to its end, on the thread that is to be the supervisor's.
pub(crate) fn run(plan: Plan, talk: &mut dyn Talk, poller: Arc<Readiness>) {
    let mut supervisor = Supervisor {
        plan,
        poller,
        start: Instant::now(),
        process: None,
        exit: None,
        phase: Phase::Alive,
        stand: Stand::Go,
        say: Vec::new(),
        said: 0,
        writable: true,
        readable: true,
        eof: false,
        stderr_readable: true,
        signalled: None,
        overstayed: false,
        inbox: Inbox::default(),
        tail: StderrExcerpt::default(),
    };
    let ending = match unwind::catch(|| supervisor.run(talk)) {
        Ok(ending) => ending,
        Err(payload) => {
            supervisor.reap();
            Ending { panic: Some(payload), ..Ending::default() }
        }
    };
    talk.over(ending);
}

impl Supervisor {
    fn run(&mut self, talk: &mut dyn Talk) -> Ending {
        if let Err(error) = self.launch() {
            return Ending { error: Some(error.fatal()), ..Ending::default() };
        }
        block_sigpipe(true);
        let pid = self.process.as_ref().map(Process::pid);
        talk.started(pid.unwrap_or_default(), self.start.elapsed());
        let mut events = Ready::new();
        while !self.turn(talk) {
            self.wait(talk, &mut events);
        }
        let status = self.reap();
        Ending {
            status,
            stderr: self.tail.clone(),
            signalled: self.signalled,
            overstayed: self.overstayed,
            ..Ending::default()
        }
    }

    fn launch(&mut self) -> Result<(), Error> {
        let mut launcher =
            Launcher::new(Arc::clone(&self.plan.spec), Arc::clone(&self.plan.command));
        let mut process = launcher.start(0).map_err(|error| match error {
            StartError::Never(error) | StartError::NotNow(error) => error,
        })?;
        // Nothing is ever written to the others: their readers see the end at once.
        for (i, input) in process.inputs.iter_mut().enumerate() {
            if i != self.plan.input {
                *input = None;
            }
        }
        let process = self.process.insert(process);
        let watched = (|| {
            let exit = ExitWatch::new(process.pid(), &self.poller)?;
            if let ExitWatch::Pidfd(fd) = &exit {
                self.poller.add(fd, EXIT, Interest::Readable)?;
            }
            self.exit = Some(exit);
            if let Some(stderr) = &process.stderr {
                self.poller.add(stderr, STDERR, Interest::Readable)?;
            }
            if let Some(output) = &process.outputs[self.plan.output] {
                self.poller.add(output, OUTPUT, Interest::Readable)?;
            }
            if let Some(input) = &process.inputs[self.plan.input] {
                self.poller.add(input, INPUT, Interest::Writable)?;
            }
            Ok(())
        })();
        watched.map_err(|error: std::io::Error| {
            self.reap();
            Error::new(ErrorKind::Spawn, "the child's pipes cannot be watched")
                .because(error)
                .running(&self.plan.command)
        })
    }

    /// Everything that can be done now. Whether the child is over.
    fn turn(&mut self, talk: &mut dyn Talk) -> bool {
        let now = self.start.elapsed();
        self.stand = self.stand.max(talk.attend(now, &mut self.say));
        self.write();
        self.read(talk, now);
        self.read_stderr();
        if self.exit.as_ref().is_some_and(ExitWatch::is_known) {
            self.exited(now);
        }
        // What was heard may have changed the verdict.
        self.stand = self.stand.max(talk.attend(now, &mut self.say));
        self.write();
        self.advance(talk, now)
    }

    /// Moves the phase on. Whether the child is over.
    fn advance(&mut self, talk: &dyn Talk, now: Now) -> bool {
        let rungs = &self.plan.spec.policy.kill_sequence;
        if let Phase::Alive = self.phase {
            match self.stand {
                Stand::Leave(grace) => {
                    self.phase = Phase::Leaving { by: Some(now.saturating_add(grace)) };
                }
                Stand::Go if self.eof => {
                    // Nothing more can come of it: it is on its way out, or stuck.
                    let limit = self.plan.spec.policy.end_timeout;
                    let by = limit.map(|limit| now.saturating_add(limit));
                    self.phase = Phase::Leaving { by };
                }
                _ => {}
            }
        }
        if let Phase::Leaving { by } = self.phase
            && by.is_some_and(|by| now >= by)
        {
            self.overstayed = self.stand == Stand::Go;
            self.phase = Phase::Killing(KillSequence::new(now), None);
        }
        if self.stand == Stand::Kill && matches!(self.phase, Phase::Alive | Phase::Leaving { .. }) {
            self.phase = Phase::Killing(KillSequence::new(now), None);
        }
        match &mut self.phase {
            Phase::Killing(kill_sequence, given_up) => {
                if let Some(signal) = kill_sequence.climb(rungs, now)
                    && let Some(process) = &self.process
                {
                    process.signal(signal);
                    self.signalled = Some(signal);
                    if kill_sequence.next(rungs).is_none() {
                        *given_up = Some(now.saturating_add(self.plan.spec.policy.kill_grace()));
                    }
                }
                given_up.is_some_and(|at| now >= at)
            }
            Phase::Gone { quiet_since } => {
                // What nobody wants need not be awaited from whoever else holds the pipe.
                self.stand > Stand::Go
                    || talk.is_through()
                    || (!self.eof && !self.readable && now >= *quiet_since + DRAIN_GRACE)
                        && self.end_output()
                        && talk.is_through()
            }
            _ => false,
        }
    }

    /// The output counts as ended, though somebody who outlived the child still holds it. Always true.
    fn end_output(&mut self) -> bool {
        self.eof = true;
        self.close_output();
        true
    }

    fn exited(&mut self, now: Now) {
        if !matches!(self.phase, Phase::Gone { .. }) {
            self.phase = Phase::Gone { quiet_since: now };
            self.readable = !self.eof;
            self.stderr_readable = true;
            self.read_stderr();
        }
    }

    // ---------------------------------------------------------------- bytes

    fn write(&mut self) {
        let Some(process) = &mut self.process else { return };
        let Some(input) = &process.inputs[self.plan.input] else {
            self.say.clear();
            self.said = 0;
            return;
        };
        while self.writable && self.said < self.say.len() {
            match self.poller.write(input, &[IoSlice::new(&self.say[self.said..])]) {
                Ok(n) => self.said += n,
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(error) if error.kind() == IoErrorKind::WouldBlock => self.writable = false,
                // EPIPE, or anything else that a pipe can say: nobody reads it any more.
                Err(_) => return self.close_input(),
            }
        }
        if self.said == self.say.len() {
            self.say.clear();
            self.said = 0;
            if self.plan.closes_input || matches!(self.stand, Stand::Leave(_)) {
                self.close_input();
            }
        }
    }

    fn close_input(&mut self) {
        self.say.clear();
        self.said = 0;
        if let Some(process) = &mut self.process
            && let Some(input) = process.inputs[self.plan.input].take()
        {
            self.poller.remove(&input);
        }
    }

    fn close_output(&mut self) {
        if let Some(process) = &mut self.process
            && let Some(output) = process.outputs[self.plan.output].take()
        {
            self.poller.remove(&output);
        }
    }

    fn read(&mut self, talk: &mut dyn Talk, now: Now) {
        if self.stand == Stand::Kill {
            // It gets SIGPIPE for whatever it still has to say.
            self.eof = true;
            self.close_output();
            return;
        }
        for _ in 0..READS_IN_A_ROW {
            if !talk.wants() {
                return;
            }
            // What was left for want of room comes first.
            if !self.inbox.unread().is_empty() || self.eof {
                self.inbox.take(talk.hear(self.inbox.unread(), self.eof, now));
            }
            if self.eof || !self.readable || !talk.wants() {
                return;
            }
            let Some(process) = &mut self.process else { return };
            let Some(output) = &process.outputs[self.plan.output] else {
                self.eof = true;
                continue;
            };
            let room = self.inbox.room();
            let wanted = room.len();
            match self.poller.read(output, room) {
                Ok(0) => {
                    self.eof = true;
                    self.close_output();
                }
                Ok(n) => {
                    self.inbox.filled(n);
                    if let Phase::Gone { quiet_since } = &mut self.phase {
                        *quiet_since = now;
                    } else {
                        // A pipe that gives less than was asked for is empty: the next byte is an edge.
                        self.readable = n == wanted;
                    }
                }
                Err(error) if error.kind() == IoErrorKind::Interrupted => continue,
                Err(error) if error.kind() == IoErrorKind::WouldBlock => self.readable = false,
                // A pseudo-terminal ends with an error of its own.
                Err(_) => {
                    self.eof = true;
                    self.close_output();
                }
            }
            self.inbox.take(talk.hear(self.inbox.unread(), self.eof, now));
        }
    }

    fn read_stderr(&mut self) {
        let mut room = [0; 8 << 10];
        for _ in 0..READS_IN_A_ROW {
            if !self.stderr_readable {
                return;
            }
            let Some(process) = &mut self.process else { return };
            let Some(stderr) = &process.stderr else {
                self.stderr_readable = false;
                return;
            };
            match self.poller.read(stderr, &mut room) {
                Ok(0) => {
                    self.poller.remove(stderr);
                    process.stderr = None;
                }
                Ok(n) => self.tail.push(&room[..n]),
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(_) => self.stderr_readable = false,
            }
        }
    }

    // ---------------------------------------------------------------- waiting

    fn wait(&mut self, talk: &mut dyn Talk, events: &mut Ready) {
        let rungs = &self.plan.spec.policy.kill_sequence;
        let mut next = talk.deadline();
        let phase = match self.phase {
            Phase::Alive => None,
            Phase::Leaving { by } => by,
            Phase::Killing(kill_sequence, given_up) => kill_sequence.next(rungs).or(given_up),
            Phase::Gone { quiet_since } => {
                (!self.eof && !self.readable).then(|| quiet_since + DRAIN_GRACE)
            }
        };
        if let Some(at) = phase {
            next = Some(next.map_or(at, |next| next.min(at)));
        }
        let busy = self.stderr_readable
            || (talk.wants() && (self.readable || (self.eof && !talk.is_through())));
        let timeout = if busy {
            Some(Duration::ZERO)
        } else {
            // Rounded up, so that a timer is due when it fires instead of firing twice.
            next.map(|at| at.saturating_sub(self.start.elapsed()) + Duration::from_micros(100))
        };
        // An error other than an interruption leaves the timers, at least, working.
        if self.poller.wait(events, timeout).is_err() {
            return;
        }
        let now = self.start.elapsed();
        for event in events.iter() {
            match event.key {
                EXIT => self.exited(now),
                STDERR => self.stderr_readable = true,
                OUTPUT => self.readable = true,
                _ => self.writable = true,
            }
        }
    }

    /// Kills what is left of the child's group, reaps it and closes every pipe. What cannot be reaped is
    /// left to somebody who waits.
    fn reap(&mut self) -> Option<ExitStatus> {
        self.close_output();
        let process = self.process.take()?;
        // Its input is closed after it is dead: a shell would run the half of a line that it has.
        for input in process.inputs.iter().chain([&process.stderr]).flatten() {
            self.poller.remove(input);
        }
        if let Some(ExitWatch::Pidfd(fd)) = &self.exit {
            self.poller.remove(fd);
        }
        match self.phase {
            Phase::Killing(_, Some(_)) | Phase::Gone { .. } => process.reap(),
            _ => process.finish(),
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.reap();
    }
}
