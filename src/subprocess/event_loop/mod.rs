//! The event loop: the thread that owns every child, descriptor and timer.
//!
//! It performs what a [`Machine`] asks for and reports what happens; all judgement is the machine's, and all
//! system calls are [`Os`]'s. It never blocks but in [`Os::wait`].
//!
//! Readiness is edge-triggered: a descriptor is watched once, and a flag of its [`Connection`] remembers
//! that it is readable or writable until a call says otherwise. So back-pressure costs no system call (a
//! paused output is simply not read), and an end that has been closed cannot spin.
//!
//! # Invariants
//! 1. Each operation is reported back with the event that the machine waits for, also where it failed.
//! 2. What has come is read before anybody is judged for being late with it, and what a child wrote before
//!    it exited is read before its exit is told.
//! 3. No output is read more than a few times in a row, so that all get their turn. One that has not been
//!    read to its end stays in `to_read`.
//! 4. An error of a write is the reader's end: no error of the machine's. An error of a read is none of a child's: it is
//!    told, or what a child has said would end there without a word.

mod clock;
mod connection;

use std::io::{self, ErrorKind as IoErrorKind, IoSlice};
use std::process::ExitStatus;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::subprocess::evidence::Look;
use crate::subprocess::os::{Event, Os, Port};
use crate::subprocess::protocol::{Now, Operation, Sighting, Spawned, StartError, Time};
use crate::tuning::{READS_IN_A_ROW, SLICES, YIELDS, YIELDS_A_START};

use clock::Clock;
use connection::Connection;

/// What decides. It makes no system call and has no clock; each event comes with its time.
pub(crate) trait Machine {
    /// What time it is, before anything happens at it.
    fn time_is(&mut self, now: Time);
    /// A turn begins.
    fn begin(&mut self);
    /// What was read is handed on before anything else is done: somebody may wait for it.
    fn pass_on(&mut self) {}
    /// Takes input if there is some and it is of use now. Says whether there was.
    fn takes_input(&mut self) -> bool {
        false
    }
    /// Everything that has come is read: timers run, input is taken and given out.
    ///
    /// What happened until `reported` has been told. A limit that runs out later is not judged yet: where this
    /// process was stopped, a child may have done in time what was asked of it.
    fn advance(&mut self, reported: Time);
    /// A turn is over: what has come of it is handed on. Says whether everything is over.
    fn deliver(&mut self) -> bool;

    /// What is to be done next.
    fn next_operation(&mut self) -> Option<Operation>;
    /// Whether an operation waits to be done.
    fn has_operations(&self) -> bool;
    /// Moves the slots that have got something to write to the end of `slots`.
    fn take_writers(&mut self, slots: &mut Vec<usize>);

    /// The next slot to start a child in, if one is wanted now.
    fn next_start(&mut self) -> Option<usize>;
    /// A child runs in the slot.
    fn started(&mut self, slot: usize, spawned: &Spawned);
    /// No child could be started there.
    fn start_failed(&mut self, slot: usize, error: StartError);

    /// Whether the outputs of a child may be read now.
    fn may_read(&mut self, slot: usize) -> bool;
    /// Room for the next read of an output.
    fn read_room(&mut self, slot: usize, output: usize) -> &mut [u8];
    /// So many bytes were read into the room.
    fn read(&mut self, slot: usize, output: usize, n: usize);
    /// An output has come to its end.
    fn read_closed(&mut self, slot: usize, output: usize);
    /// The system does not let us read an output or stderr, which says nothing of its end. That it has ended
    /// is told as well, after this.
    fn read_failed(&mut self, slot: usize, port: Port, error: io::Error);
    /// A child has written this on stderr.
    fn heard_stderr(&mut self, slot: usize, bytes: &[u8]);
    /// Its stderr has come to its end.
    fn stderr_closed(&mut self, slot: usize);

    /// The bytes to write next to an input; how many of the slices they fill.
    fn slices<'a>(&'a self, slot: usize, channel: usize, slices: &mut [IoSlice<'a>]) -> usize;
    /// So many of them were written.
    fn wrote(&mut self, slot: usize, channel: usize, n: usize);
    /// Nobody reads an input any more.
    fn write_closed(&mut self, slot: usize, channel: usize);
    /// The system does not let us write an input, or wait for room in it, which says nothing of its reader. A request
    /// may be written in part. That the input is closed is told as well, after this.
    fn write_failed(&mut self, slot: usize, channel: usize, error: io::Error);
    /// So many bytes of an input will never be read.
    fn left_unread(&mut self, slot: usize, channel: usize, bytes: u64);

    /// What a look at a quiet child has shown.
    fn looked(&mut self, slot: usize, look: Look);
    /// What a look at the far process with this pid, of a child that is a launcher, has shown.
    fn sighted(&mut self, slot: usize, pid: u32, sighting: Sighting);
    /// A child has exited. What it wrote may still be on its way.
    fn exited(&mut self, slot: usize);
    /// A child is over and its slot empty.
    fn ended(&mut self, slot: usize, status: Option<ExitStatus>);

    /// About to let others run (`briefly`), or to sleep until something happens, at the time that was told last.
    fn pauses(&mut self, _briefly: bool) {}
    /// That is past, if it was so.
    fn resumes(&mut self) {}

    /// Whether what a child says on stderr before a reply belongs to that one: it is read first, and all of it.
    fn keeps_stderr(&self) -> bool {
        false
    }

    /// Whether the first reply is still awaited, so that those who can give it come first.
    fn awaits_first_reply(&self) -> bool;
    /// Whether something can be done without waiting.
    fn has_work(&self) -> bool;
    /// About to sleep: how long at most, or not at all.
    fn rest(&mut self) -> Rest;
    /// Awake again.
    fn wake(&mut self);
    /// The system does not let us wait: nothing can go on.
    fn wait_failed(&mut self, error: Error);
}

/// See [`Machine::rest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// There is more to do.
    Not,
    /// Until something happens, or so long.
    Until(Option<Duration>),
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct EventLoop<M, O> {
    machine: M,
    os: O,
    connections: Vec<Option<Connection>>,
    events: Vec<Event>,
    /// Slots with something to write, or to read, that is not waiting for an event.
    to_write: Vec<usize>,
    to_read: Vec<usize>,
    clock: Clock,
    /// By the patient clock.
    now: Now,
    /// The children were asked since input was last taken instead.
    has_waited: bool,
    /// Nothing was done since the machine was told what time it is: it need not be told again.
    is_told: bool,
    /// When the last look for events began: what happened before has been told.
    reported: Time,
    /// How often the others were let run since something happened.
    yields: u32,
}

impl<M: Machine, O: Os> EventLoop<M, O> {
    pub(crate) fn new(machine: M, os: O, slots: usize) -> Self {
        Self {
            machine,
            os,
            connections: (0..slots).map(|_| None).collect(),
            events: Vec::new(),
            to_write: Vec::new(),
            to_read: Vec::new(),
            clock: Clock::default(),
            now: Now::ZERO,
            has_waited: false,
            is_told: false,
            reported: Time::default(),
            yields: 0,
        }
    }

    /// Runs to the end.
    pub(crate) fn run(&mut self) {
        while !self.step() {}
    }

    pub(crate) fn machine(&mut self) -> &mut M {
        &mut self.machine
    }

    /// The machine alone: nothing is left of the children.
    pub(crate) fn into_machine(self) -> M {
        self.machine
    }

    #[cfg(test)]
    pub(crate) fn into_parts(self) -> (M, O) {
        (self.machine, self.os)
    }

    #[cfg(test)]
    pub(crate) fn os(&mut self) -> &mut O {
        &mut self.os
    }

    #[cfg(test)]
    pub(crate) fn parts(&mut self) -> (&M, &mut O) {
        (&self.machine, &mut self.os)
    }

    /// One turn, and the wait for the next. Says whether everything is over.
    pub(crate) fn step(&mut self) -> bool {
        self.clock.turn();
        self.tell_time();
        self.turn();
        if self.machine.deliver() {
            return true;
        }
        if self.machine.awaits_first_reply() && self.yields < YIELDS_A_START {
            self.let_others_run();
            return false;
        }
        if let Some(slot) = self.machine.next_start() {
            self.yields = 0;
            self.start(slot);
            // It is given something before its end can be noticed: on a busy machine a short tool has ended by now.
            self.turn();
            self.wait(Some(Duration::ZERO));
            return false;
        }
        if self.has_work() {
            self.wait(Some(Duration::ZERO));
            return false;
        }
        if self.yields < YIELDS {
            if self.let_others_run() {
                self.yields = 0;
            }
            return false;
        }
        self.yields = 0;
        if let Rest::Until(timeout) = self.machine.rest() {
            self.tell_time();
            self.machine.pauses(false);
            self.wait(timeout);
            self.machine.wake();
        }
        false
    }

    /// Time has passed, or may have: something was done meanwhile.
    fn tell_time(&mut self) {
        if !self.is_told {
            let now = self.clock.read(self.os.now());
            self.time_is(now);
        }
    }

    fn time_is(&mut self, now: Time) {
        self.is_told = true;
        self.now = now.patient;
        self.machine.time_is(now);
    }

    /// Lets others run, and looks what came of it. Says whether a child had something to say.
    fn let_others_run(&mut self) -> bool {
        self.yields += 1;
        self.tell_time();
        self.machine.pauses(true);
        self.os.yield_now();
        // What they have brought is seen to first, and the children after it.
        if std::mem::take(&mut self.has_waited) && self.machine.takes_input() {
            self.is_told = false;
            self.tell_time();
            self.machine.resumes();
            return false;
        }
        self.wait(Some(Duration::ZERO))
    }

    /// Whether something can be done without waiting.
    fn has_work(&mut self) -> bool {
        let Self { machine, to_read, .. } = self;
        machine.has_work()
            || machine.has_operations()
            || to_read.iter().any(|&slot| machine.may_read(slot))
    }

    /// Everything that can be done now.
    fn turn(&mut self) {
        self.machine.begin();
        self.read();
        self.machine.pass_on();
        self.machine.advance(self.reported);
        self.perform();
        self.machine.take_writers(&mut self.to_write);
        self.write();
        self.perform();
    }

    /// Waits for the children, another thread or the time. Says whether a child had something to say.
    fn wait(&mut self, timeout: Option<Duration>) -> bool {
        self.has_waited = true;
        let mut events = std::mem::take(&mut self.events);
        self.reported = self.clock.now();
        self.clock.waits(timeout);
        let waited = self.os.wait(timeout, &mut events);
        let now = self.clock.waited(self.os.now(), !events.is_empty());
        self.time_is(now);
        self.machine.resumes();
        if let Err(error) = waited {
            let error = Error::new(ErrorKind::Thread, "the poller failed").because(error);
            self.machine.wait_failed(error);
            events.clear();
        }
        while let Some((slot, pid, sighting)) = self.os.sighting() {
            self.machine.sighted(slot, pid, sighting);
        }
        let some = !events.is_empty();
        let mut exits = false;
        for event in &events {
            let Some(connection) = &mut self.connections[event.slot] else { continue };
            match event.port {
                Port::Exit => exits = true,
                Port::Input(channel) => {
                    connection.is_writable(channel);
                    self.to_write.push(event.slot);
                }
                port => {
                    connection.is_readable(port, event.hung_up);
                    self.to_read.push(event.slot);
                }
            }
        }
        if exits {
            // What it said before it went comes first.
            self.is_told = false;
            self.read();
            for event in events.iter().filter(|event| event.port == Port::Exit) {
                self.exited(event.slot);
            }
        }
        self.events = events;
        some
    }

    // ---------------------------------------------------------------- children

    fn start(&mut self, slot: usize) {
        self.is_told = false;
        let spawned = self.os.spawn(slot);
        self.tell_time();
        match spawned {
            Ok(spawned) => {
                self.connections[slot] = Some(Connection::new(&spawned));
                self.machine.started(slot, &spawned);
            }
            Err(error) => self.machine.start_failed(slot, error),
        }
    }

    fn exited(&mut self, slot: usize) {
        let Some(connection) = &mut self.connections[slot] else { return };
        if connection.exited() {
            self.to_read.push(slot);
            self.machine.exited(slot);
        }
    }

    fn perform(&mut self) {
        if self.machine.has_operations() {
            self.perform_all();
        }
    }

    #[inline(never)]
    fn perform_all(&mut self) {
        let mut suspects = Vec::new();
        while let Some(operation) = self.machine.next_operation() {
            match operation {
                Operation::CloseInput { slot, channel } => {
                    self.close(slot, Port::Input(channel));
                }
                Operation::CloseOutput { slot, output } => self.close(slot, Port::Output(output)),
                Operation::Signal { slot, signal } => self.os.signal(slot, signal),
                // Workers stall together: one look at the system serves them all.
                Operation::Look { slot } => suspects.push(slot),
                Operation::LookFar { slot, pid } => self.os.look_far(slot, pid),
                Operation::KillFar { slot, pid } => self.os.kill_far(slot, pid),
                Operation::Finish { slot } => {
                    self.count_unread(slot);
                    self.release(slot);
                }
                // Whether it will read what lies in its pipes is not known, unlike above.
                Operation::Abandon { slot } => self.release(slot),
            }
        }
        if !suspects.is_empty() {
            self.look(suspects);
        }
        self.is_told = false;
    }

    fn close(&mut self, slot: usize, port: Port) {
        if let Some(connection) = &mut self.connections[slot] {
            connection.close(port);
            self.os.close(slot, port);
        }
    }

    fn release(&mut self, slot: usize) {
        if self.connections[slot].take().is_some() {
            let status = self.os.release(slot);
            self.is_told = false;
            self.tell_time();
            self.machine.ended(slot, status);
        }
    }

    /// Counts what a child has left unread, once nobody can read it any more.
    fn count_unread(&mut self, slot: usize) {
        let Some(connection) = &self.connections[slot] else { return };
        self.os.signal(slot, crate::template::policy::Signal::Kill);
        for channel in 0..connection.inputs() {
            if let Some(bytes) = self.os.unread(slot, channel) {
                self.machine.left_unread(slot, channel, bytes);
            }
        }
    }

    /// Looks at children that have gone quiet.
    fn look(&mut self, mut slots: Vec<usize>) {
        slots.retain(|&slot| self.may_still_read(slot));
        let looks = self.os.look(&slots, self.now);
        for (slot, look) in slots.into_iter().zip(looks) {
            if !self.has_spoken(slot) {
                self.machine.looked(slot, look);
            }
        }
    }

    /// Whether a child is to be looked at: it may still read. One that closes its stdin is found out by the next write, and
    /// where there is none, by this. If that cannot be known now, there is another look later: what has closed its
    /// stdin looks like what will never read, and once that is answered by a close nobody can ask any more.
    fn may_still_read(&mut self, slot: usize) -> bool {
        let Some(connection) = &self.connections[slot] else { return false };
        for channel in 0..connection.inputs() {
            match self.os.has_no_reader(slot, channel) {
                Ok(false) => {}
                Ok(true) => {
                    self.input_closed(slot, channel);
                    return false;
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// A reply may have been written just before the evidence was taken: it is in the pipe then, and
    /// the worker does not withhold anything.
    fn has_spoken(&mut self, slot: usize) -> bool {
        let Some(connection) = &mut self.connections[slot] else { return false };
        let outputs = connection.outputs();
        if self.machine.keeps_stderr() {
            connection.is_readable(Port::Stderr, false);
            if self.read_stderr(slot) {
                self.to_read.push(slot);
                return true;
            }
        }
        let mut spoken = false;
        for output in 0..outputs {
            if let Some(connection) = &mut self.connections[slot] {
                connection.is_readable(Port::Output(output), false);
            }
            let read = self.read_output(slot, output);
            spoken |= read.something;
            if read.more {
                self.to_read.push(slot);
            }
        }
        spoken
    }

    // ---------------------------------------------------------------- bytes

    fn write(&mut self) {
        let mut slots = std::mem::take(&mut self.to_write);
        for slot in slots.drain(..) {
            let inputs = self.connections[slot].as_ref().map_or(0, Connection::inputs);
            for channel in 0..inputs {
                self.write_channel(slot, channel);
            }
        }
        // The room is kept.
        slots.append(&mut self.to_write);
        self.to_write = slots;
    }

    fn write_channel(&mut self, slot: usize, channel: usize) {
        loop {
            let Some(connection) = &mut self.connections[slot] else { return };
            if !connection.may_write(channel) {
                return;
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            let used = self.machine.slices(slot, channel, &mut slices);
            if used == 0 {
                return;
            }
            self.is_told = false;
            let slices = &slices[..used];
            let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
            match self.os.write(slot, channel, slices) {
                Ok(n) => {
                    if n < wanted {
                        connection.is_full(channel);
                    }
                    self.machine.wrote(slot, channel, n);
                    if n < wanted {
                        self.filled(slot, channel);
                    }
                }
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(error) if error.kind() == IoErrorKind::WouldBlock => {
                    connection.is_full(channel);
                    self.filled(slot, channel);
                }
                // EPIPE, or anything else that a pipe can say: nobody reads it any more.
                Err(_) => return self.input_closed(slot, channel),
            }
        }
    }

    fn input_closed(&mut self, slot: usize, channel: usize) {
        if let Some(bytes) = self.os.unread(slot, channel) {
            self.machine.left_unread(slot, channel, bytes);
        }
        self.machine.write_closed(slot, channel);
    }

    /// A pipe to a child is full. The first time, room is made, and from then on an event tells when there
    /// is room again.
    fn filled(&mut self, slot: usize, channel: usize) {
        let Some(connection) = &mut self.connections[slot] else { return };
        if !connection.must_be_watched(channel) {
            return;
        }
        match self.os.watch_input(slot, channel) {
            // If it was enlarged there is room now, and no event will tell of that.
            Ok(true) => connection.is_writable(channel),
            Ok(false) => {}
            // Out of memory for one more registration: nothing would ever tell when there is room, and half a
            // request is written, which must not be taken for a whole one.
            Err(error) => {
                self.machine.write_failed(slot, channel, error);
                self.machine.write_closed(slot, channel);
            }
        }
    }

    fn read(&mut self) {
        let mut slots = std::mem::take(&mut self.to_read);
        for slot in slots.drain(..) {
            let Some(connection) = &self.connections[slot] else { continue };
            let outputs = connection.outputs();
            let mut more = self.read_stderr(slot);
            // What it has said there before a reply comes with that reply, however much it is.
            let first = more && self.machine.keeps_stderr();
            for output in 0..if first { 0 } else { outputs } {
                more |= self.read_output(slot, output).more;
            }
            if more && !self.to_read.contains(&slot) {
                self.to_read.push(slot);
            }
        }
        slots.append(&mut self.to_read);
        self.to_read = slots;
    }

    /// Reads what there is.
    fn read_output(&mut self, slot: usize, output: usize) -> Read {
        let port = Port::Output(output);
        let mut read = Read::default();
        for _ in 0..READS_IN_A_ROW {
            let Some(connection) = &mut self.connections[slot] else { return read };
            if !connection.may_read(port) {
                return read;
            }
            if !self.machine.may_read(slot) {
                read.more = true;
                return read;
            }
            let room = self.machine.read_room(slot, output);
            if room.is_empty() {
                return read;
            }
            let wanted = room.len();
            self.is_told = false;
            match self.os.read(slot, port, room) {
                Ok(n) if n > 0 => {
                    read.something = true;
                    connection.has_read(port, n == wanted);
                    self.machine.read(slot, output, n);
                }
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(error) if error.kind() == IoErrorKind::WouldBlock => {
                    connection.is_empty(port);
                    return read;
                }
                ended => {
                    connection.close(port);
                    self.os.close(slot, port);
                    if let Err(error) = ended {
                        self.machine.read_failed(slot, port, error);
                    }
                    self.machine.read_closed(slot, output);
                    return read;
                }
            }
        }
        read.more = true;
        read
    }

    /// Says whether it must be tried again without waiting for an event.
    fn read_stderr(&mut self, slot: usize) -> bool {
        let Some(connection) = &mut self.connections[slot] else { return false };
        connection.may_read(Port::Stderr) && self.read_what_stderr_has(slot)
    }

    /// The same where an event says that there is something. Most turns have nothing there, and want no room for it.
    #[inline(never)]
    fn read_what_stderr_has(&mut self, slot: usize) -> bool {
        self.is_told = false;
        let mut room = [0; 8 << 10];
        for _ in 0..READS_IN_A_ROW {
            let Some(connection) = &mut self.connections[slot] else { return false };
            if !connection.may_read(Port::Stderr) {
                return false;
            }
            match self.os.read(slot, Port::Stderr, &mut room) {
                Ok(n) if n > 0 => {
                    connection.has_read(Port::Stderr, n == room.len());
                    self.machine.heard_stderr(slot, &room[..n]);
                }
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(error) if error.kind() == IoErrorKind::WouldBlock => {
                    connection.is_empty(Port::Stderr);
                    return false;
                }
                ended => {
                    connection.close(Port::Stderr);
                    self.os.close(slot, Port::Stderr);
                    if let Err(error) = ended {
                        self.machine.read_failed(slot, Port::Stderr, error);
                    }
                    self.machine.stderr_closed(slot);
                    return false;
                }
            }
        }
        true
    }
}

/// What came of reading.
#[derive(Clone, Copy, Debug, Default)]
struct Read {
    /// Something was read.
    something: bool,
    /// It must be tried again without waiting for an event.
    more: bool,
}
