//! One child, what is said to it and what is heard of it: the machine of an event loop with one slot. Pure.
//!
//! What the bytes mean is the business of a [`Talk`]. How the child is brought to its end is that of
//! [`Child`], as for the workers of a feed.
//!
//! # Invariants
//! 1. The talk is offered the output in order, each byte until it is taken, and its end behind the last one.
//! 2. As long as `offer` is set, something is unread that the talk has not been offered since it had no room.
//!    The loop sleeps only if there is no such thing, or if the talk has just said that it wants nothing, and
//!    so has it called out when that changes.
//! 3. An output that is not wanted is not read, which is all the back-pressure there is. The grace of a child
//!    that has exited does not run meanwhile.
//! 4. `stand` never goes back. Once the child is to be killed nothing more is written to it, and its output is
//!    closed at once, so that it cannot go on writing; its input only when it is dead: a shell would run the
//!    half of a line that it has.

mod far;
#[cfg(test)]
pub(in crate::source) mod sim;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::process::ExitStatus;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::source::limit::Moment;
use crate::source::talk::{Exit, Stand, Talk};
use crate::subprocess::child::{Child, Step};
use crate::subprocess::event_loop::{EventLoop, Machine, Rest};
use crate::subprocess::evidence::Look;
use crate::subprocess::exit::announce_lost_statuses;
use crate::subprocess::os::{Port, Setup, Unix};
use crate::subprocess::protocol::{Operation, Sighting, Spawned, StartError, Time};
use crate::subprocess::readiness::Readiness;
use crate::subprocess::remote::greetings::LAUNCHER_GRACE;
use crate::subprocess::unread::Unread;
use crate::template::Spec;
use crate::window::joins::ExecutorThread;
use crate::window::unwind::{self, Payload};

use far::Far;

/// The slot of the only child.
const SLOT: usize = 0;

/// Which child, and which of its channels carry the conversation.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) spec: Arc<Spec>,
    pub(super) command: Arc<str>,
    /// Index among the inputs that are written: 0 is stdin. The others are closed at once.
    pub(super) input: usize,
    /// Index among the outputs that are read: 0 is stdout. The others are closed at once.
    pub(super) output: usize,
    /// Close the input as soon as the first words are written.
    pub(super) closes_input: bool,
}

/// Runs a child on a thread of its own, from its start to its end. A thread that has something for the talk
/// wakes the poller.
pub(super) fn spawn(
    plan: Plan,
    talk: impl Talk + 'static,
    poller: Arc<Readiness>,
) -> Result<ExecutorThread, Error> {
    ExecutorThread::spawn("subfeed-source", move || run(plan, talk, poller))
        .map_err(|error| Error::no_thread("a thread of the source cannot be started", error))
}

/// What the thread of a source waits in.
pub(super) fn poller() -> Result<Arc<Readiness>, Error> {
    let poller = Readiness::new();
    Ok(Arc::new(
        poller.map_err(|error| Error::no_thread("the source's poller cannot be made", error))?,
    ))
}

/// The same on this thread.
fn run(plan: Plan, talk: impl Talk, poller: Arc<Readiness>) {
    // A source has nobody to leave a hint with; what it gives for want of a status is an error.
    let _ = announce_lost_statuses();
    let (spec, command) = (Arc::clone(&plan.spec), Arc::clone(&plan.command));
    // What lies in a pipe is ahead of the consumer, and not counted: it stays as small as it is.
    let os = Unix::new(
        Setup { spec, command, slots: 1, enlarges: false, counts_leftovers: false, stats: None },
        poller,
    );
    let mut event_loop = EventLoop::new(Solo::new(plan, talk), os, 1);
    // A panic here is a bug of ours: the consumer gets it rather than waiting for ever.
    let panic = unwind::catch(|| event_loop.run()).err();
    // The child first: a consumer that has seen the end finds nothing left of it.
    event_loop.into_machine().reaped(panic);
}

/// See the [module](self).
#[derive(Debug)]
struct Solo<T> {
    plan: Plan,
    talk: T,
    now: Time,
    state: State,
    stand: Stand,
    /// To be written, and how much of it is.
    say: Vec<u8>,
    said: usize,
    /// There is something in `say` that the loop does not know of.
    writes: bool,
    /// It runs behind a launcher.
    far: Option<Far>,
    /// Our end of its input is open.
    input_open: bool,
    unread: Unread,
    /// Its output has come to its end, or is not wanted any more.
    eof: bool,
    /// See invariant 2.
    offer: bool,
    /// Since when it is to exit: it has been told to leave, or has closed its output.
    leaving: Option<Time>,
    overstayed: bool,
    /// Why nothing can go on.
    broken: Option<Error>,
    operations: VecDeque<Operation>,
}

#[derive(Debug)]
enum State {
    Unstarted,
    Started(Child),
    /// There may still be something unread.
    Reaped(Exit),
}

impl<T: Talk> Solo<T> {
    fn new(plan: Plan, talk: T) -> Self {
        Self {
            plan,
            talk,
            now: Time::default(),
            state: State::Unstarted,
            stand: Stand::Go,
            say: Vec::new(),
            said: 0,
            writes: false,
            far: None,
            input_open: false,
            unread: Unread::default(),
            eof: false,
            offer: false,
            leaving: None,
            overstayed: false,
            broken: None,
            operations: VecDeque::new(),
        }
    }

    /// Everything is over. `panic` is what the loop ended with, if it did not come to an end.
    fn reaped(self, panic: Option<Payload>) {
        let exit = match self.state {
            State::Reaped(exit) => exit,
            State::Unstarted | State::Started(_) => Exit::default(),
        };
        let error = exit.error.or(self.broken);
        self.talk.reaped(Exit { error, panic, ..exit });
    }

    /// Nothing can go on.
    fn broken(&mut self, error: Error) {
        self.broken.get_or_insert(error.running(&self.plan.command).fatal());
        self.stand = Stand::Kill;
        self.leaving = Some(self.now);
    }

    fn is_finished(&self) -> bool {
        match &self.state {
            State::Reaped(exit) => {
                exit.error.is_some() || self.stand != Stand::Go || self.talk.is_through()
            }
            State::Unstarted | State::Started(_) => false,
        }
    }

    // ---------------------------------------------------------------- the conversation

    fn hear(&mut self) {
        let heard = self.talk.hear(self.unread.bytes(), self.eof, self.now);
        self.unread.skip(heard.taken);
        self.offer = heard.held_up;
    }

    /// Offers what is unread, if it is wanted now.
    fn offer(&mut self) {
        if self.offer && self.talk.wants(self.now) {
            self.hear();
        }
    }

    /// Learns what the consumer wants, and whether the child is late with it.
    fn attend(&mut self, reported: Time) {
        self.talk.attend(self.now, &mut self.say);
        if self.talk.stand() == Stand::Go {
            let late = self.talk.limits().find(|limit| limit.deadline().has_passed(reported));
            if let Some(late) = late {
                self.talk.is_late(&late);
            }
        }
        let stand = self.talk.stand();
        if stand > self.stand {
            self.stand = stand;
            self.leaving = Some(self.now);
        }
        self.writes = true;
        self.close_what_is_said();
    }

    fn close_what_is_said(&mut self) {
        if !self.input_open {
            self.say.clear();
            self.said = 0;
        }
        if self.said < self.say.len() {
            return;
        }
        self.say.clear();
        self.said = 0;
        let is_all = self.plan.closes_input || matches!(self.stand, Stand::Leave(_));
        if self.input_open && is_all {
            self.close_input(self.plan.input);
        }
    }

    fn close_input(&mut self, channel: usize) {
        self.input_open &= channel != self.plan.input;
        self.operations.push_back(Operation::CloseInput { slot: SLOT, channel });
    }

    // ---------------------------------------------------------------- the child

    /// Until when it may go on running, where that is limited.
    fn leaves_by(&self) -> Option<Moment> {
        let since = self.leaving?;
        match self.stand {
            // Nothing more can come of it: it is on its way out, or stuck.
            Stand::Go => {
                let limit = self.plan.spec.policy.end_timeout;
                let limit = if self.has_said_goodbye() { Some(LAUNCHER_GRACE) } else { limit };
                Some(Moment::Patient(since.patient).plus(limit?))
            }
            Stand::Leave(grace) => Some(Moment::Real(since.real).plus(grace)),
            Stand::Kill => Some(Moment::Real(since.real)),
        }
    }

    /// Does what is to be done of the child's end.
    fn step(&mut self, reported: Time) {
        // How long our own wait for its end may take is no matter of what it did in time.
        let known = if self.stand == Stand::Go { reported } else { self.now };
        let late = self.leaves_by().is_some_and(|at| at.has_passed(known));
        // Behind a launcher that stays it has ended all the same.
        let overstays = self.stand == Stand::Go && !self.has_said_goodbye();
        let wants = self.talk.wants(self.now);
        let State::Started(child) = &mut self.state else { return };
        if late && child.is_running() {
            self.overstayed = overstays;
            child.kill(self.now);
        }
        if self.stand == Stand::Kill && !std::mem::replace(&mut self.eof, true) {
            child.output_closed();
            let output = self.plan.output;
            self.operations.push_back(Operation::CloseOutput { slot: SLOT, output });
        }
        if self.stand != Stand::Go && child.has_exited() {
            child.is_not_awaited();
        }
        child.is_read(wants, self.now);
        let step = child.step(&self.plan.spec.policy, self.now);
        if matches!(step, Step::Finish | Step::Abandon) {
            let far = self.far.as_ref().and_then(|far| far.may_survive(SLOT));
            self.operations.extend(far);
        }
        let operation = match step {
            Step::Nothing => return,
            Step::Signal(signal) => Operation::Signal { slot: SLOT, signal },
            Step::Finish => Operation::Finish { slot: SLOT },
            Step::Abandon => Operation::Abandon { slot: SLOT },
        };
        self.operations.push_back(operation);
    }

    /// Looks after a launcher's time.
    fn tick(&mut self, reported: Time) {
        let Some(far) = &mut self.far else { return };
        let wanted = self.talk.wants(self.now);
        match far.tick(&mut self.unread, wanted, reported.patient, self.now) {
            Ok(false) => {}
            Ok(true) => self.hear(),
            Err(error) => self.talk.broke_off(error),
        }
    }

    /// Whether it runs behind a launcher, and has told how it ended.
    fn has_said_goodbye(&self) -> bool {
        self.far.as_ref().is_some_and(Far::has_said_goodbye)
    }

    fn child(&mut self) -> Option<&mut Child> {
        match &mut self.state {
            State::Started(child) => Some(child),
            State::Unstarted | State::Reaped(_) => None,
        }
    }
}

impl<T: Talk> Machine for Solo<T> {
    fn time_is(&mut self, now: Time) {
        self.now = now;
    }

    fn begin(&mut self) {}

    fn advance(&mut self, reported: Time) {
        if matches!(self.state, State::Unstarted) {
            // What it would say is for a child that runs.
            if self.stand != Stand::Go || self.talk.stand() != Stand::Go {
                self.state = State::Reaped(Exit::default());
            }
            return;
        }
        self.tick(reported);
        self.offer();
        self.attend(reported);
        self.step(reported);
    }

    fn deliver(&mut self) -> bool {
        self.is_finished()
    }

    fn next_operation(&mut self) -> Option<Operation> {
        self.operations.pop_front()
    }

    fn has_operations(&self) -> bool {
        !self.operations.is_empty()
    }

    fn take_writers(&mut self, slots: &mut Vec<usize>) {
        if std::mem::take(&mut self.writes) {
            slots.push(SLOT);
        }
    }

    fn next_start(&mut self) -> Option<usize> {
        matches!(self.state, State::Unstarted).then_some(SLOT)
    }

    fn started(&mut self, _: usize, spawned: &Spawned) {
        self.input_open = spawned.inputs[self.plan.input];
        for channel in 0..spawned.inputs.len() {
            if spawned.inputs[channel] && channel != self.plan.input {
                self.close_input(channel);
            }
        }
        for output in 0..spawned.outputs.len() {
            if spawned.outputs[output] && output != self.plan.output {
                self.operations.push_back(Operation::CloseOutput { slot: SLOT, output });
            }
        }
        self.eof = !spawned.outputs[self.plan.output];
        self.offer = self.eof;
        self.state = State::Started(Child::new(usize::from(!self.eof), spawned.stderr));
        let seat = self.plan.spec.seat_of(SLOT);
        self.far = self.plan.spec.link(&seat).map(|link| Far::new(link, self.now));
        if let Some(line) = self.far.as_ref().and_then(Far::first_line) {
            self.say.extend_from_slice(&line);
        }
        self.talk.started(spawned.pid, self.now);
    }

    fn start_failed(&mut self, _: usize, error: StartError) {
        let (StartError::Never(error) | StartError::NotNow(error)) = error;
        self.state = State::Reaped(Exit { error: Some(error.fatal()), ..Exit::default() });
    }

    fn may_read(&mut self, _: usize) -> bool {
        // What comes behind a goodbye is dropped: it must not hold its launcher up.
        self.has_said_goodbye() || self.talk.wants(self.now)
    }

    fn read_room(&mut self, _: usize, output: usize) -> &mut [u8] {
        // The others are about to be closed.
        if output != self.plan.output {
            return &mut [];
        }
        self.unread.room(usize::MAX, || None)
    }

    fn read(&mut self, _: usize, _: usize, n: usize) {
        let now = self.now;
        if let Some(child) = self.child() {
            child.heard(now);
        }
        self.unread.filled(n);
        if let Some(far) = &mut self.far {
            if let Err(error) = far.pass(n, &mut self.unread, now) {
                self.talk.broke_off(error);
            }
            if far.has_said_goodbye() && !self.eof {
                // What its launcher still says is of no interest.
                return self.read_closed(SLOT, self.plan.output);
            }
        }
        self.hear();
    }

    fn read_closed(&mut self, _: usize, _: usize) {
        if std::mem::replace(&mut self.eof, true) {
            return;
        }
        if let Some(child) = self.child() {
            child.output_closed();
        }
        if let Some(error) = self.far.as_ref().and_then(Far::broke_off) {
            self.talk.broke_off(error);
        }
        if self.stand == Stand::Go {
            self.leaving.get_or_insert(self.now);
        }
        self.hear();
    }

    fn read_failed(&mut self, _: usize, port: Port, error: io::Error) {
        let message = match port.output() {
            Some(_) => "the output of the source's command cannot be read",
            None => "stderr of the source's command cannot be read",
        };
        self.broken(Error::new(ErrorKind::Channel, message).because(error));
    }

    fn heard_stderr(&mut self, _: usize, bytes: &[u8]) {
        // No reason to wait longer for a child that has exited: the records are what it is for.
        if let Some(child) = self.child() {
            child.heard_stderr(bytes);
            self.plan.spec.channels.tell_stderr(SLOT, bytes);
        }
    }

    fn stderr_closed(&mut self, _: usize) {
        if let Some(child) = self.child() {
            child.stderr_closed();
        }
    }

    fn slices<'a>(&'a self, _: usize, channel: usize, slices: &mut [IoSlice<'a>]) -> usize {
        let unsaid = &self.say[self.said..];
        if channel != self.plan.input || self.stand == Stand::Kill || unsaid.is_empty() {
            return 0;
        }
        slices[0] = IoSlice::new(unsaid);
        1
    }

    fn wrote(&mut self, _: usize, _: usize, n: usize) {
        self.said += n;
        self.close_what_is_said();
    }

    fn write_closed(&mut self, _: usize, channel: usize) {
        self.close_input(channel);
        self.close_what_is_said();
    }

    fn write_failed(&mut self, _: usize, _: usize, error: io::Error) {
        let message = "the input of the source's command cannot be written";
        self.broken(Error::new(ErrorKind::Channel, message).because(error));
    }

    fn left_unread(&mut self, _: usize, _: usize, _: u64) {}

    fn looked(&mut self, _: usize, _: Look) {}

    fn sighted(&mut self, _: usize, _: u32, _: Sighting) {}

    fn exited(&mut self, _: usize) {
        let now = self.now;
        if let Some(child) = self.child() {
            child.exited(now);
        }
    }

    fn ended(&mut self, _: usize, status: Option<ExitStatus>) {
        let status = match &self.far {
            Some(far) => far.true_status(status),
            None => status,
        };
        if !self.eof
            && let Some(error) = self.far.as_ref().and_then(Far::broke_off)
        {
            self.talk.broke_off(error);
        }
        let Some(child) = self.child() else { return };
        let (stderr, signalled) = (child.stderr().clone(), child.signalled());
        let overstayed = self.overstayed;
        self.state =
            State::Reaped(Exit { status, stderr, signalled, overstayed, ..Exit::default() });
        self.input_open = false;
        self.close_what_is_said();
        if !std::mem::replace(&mut self.eof, true) {
            // A process that outlived the child still held its output.
            self.offer = true;
        }
        self.offer();
    }

    fn awaits_first_reply(&self) -> bool {
        false
    }

    fn has_work(&self) -> bool {
        false
    }

    fn rest(&mut self) -> Rest {
        // Asked even if nothing is to be read, and first: what it waits for depends on the answer.
        let wants = self.talk.wants(self.now);
        if wants && self.offer {
            return Rest::Not;
        }
        let now = self.now;
        let limits = self.talk.limits().filter(|_| self.talk.stand() == Stand::Go);
        let limits = limits.map(|limit| limit.deadline().left(now)).min();
        let leaves_by = self.leaves_by().map(|at| at.left(now));
        let runs = self.talk.stand() == Stand::Go && !self.eof && wants;
        let far = self.far.as_ref().filter(|_| runs);
        let far = far.and_then(|far| far.deadline(&self.unread));
        let far = far.map(|at| at.saturating_sub(now.patient));
        let (leaves_by, child) = match &self.state {
            State::Started(child) => {
                let deadline = child.deadline().map(|at| at.saturating_sub(now.real));
                (leaves_by.filter(|_| child.is_running()), deadline)
            }
            State::Unstarted | State::Reaped(_) => (None, None),
        };
        let again = self.talk.asks_again().map(|at| at.saturating_sub(now.real));
        Rest::Until(limits.into_iter().chain(far).chain(leaves_by).chain(child).chain(again).min())
    }

    fn wake(&mut self) {}

    fn wait_failed(&mut self, error: Error) {
        self.broken(error);
    }
}
