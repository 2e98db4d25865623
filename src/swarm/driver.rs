//! The driver: the thread that owns every child, descriptor and timer.
//!
//! It performs what the core asks for and reports what happens; all judgement is the core's. It
//! never blocks but in the poller, and is not generic over items.
//!
//! Readiness is edge-triggered: a descriptor is registered once, and a flag remembers that it is
//! readable or writable until a call says otherwise. So back-pressure costs no system call (a paused
//! output is simply not read), and an end that has been closed cannot spin.

use std::io::{ErrorKind as IoErrorKind, IoSlice, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::error::{Error, ErrorKind};
use crate::stream::intake::Supply;
use crate::stream::outbox::Outbox;
use crate::stream::packet::End;
use crate::stream::unwind;
use crate::swarm::core::{Action, Core, Slot, StartError, Verdict};
use crate::swarm::exit::ExitWatch;
use crate::swarm::probe::{ChannelId, Doubt, Evidence, Suspect, evidence_of_all};
use crate::swarm::process::{Launcher, Process, block_sigpipe, unread};
use crate::swarm::readiness::{Interest, Readiness, Ready};
use crate::template::channel::Stream;
use crate::template::policy::Signal;

/// Reads of one output in a row before the others get their turn.
const READS_IN_A_ROW: usize = 4;
/// Workers whose evidence is taken together, so that the driver is not away for long.
const SUSPECTS_AT_ONCE: usize = 64;
/// How long a stopped intake may take to come out of the source, with an input that was on its way
/// and has a right to its item, before the feed ends without it.
const COME_OUT_WITHIN: Duration = Duration::from_millis(50);
/// Slices in one vectored write.
const SLICES: usize = 16;

/// One live child, as the driver sees it.
#[derive(Debug)]
struct Ports {
    process: Process,
    exit: ExitWatch,
    /// Which pipes the inputs are, for the evidence of a stall.
    input_ids: Vec<Option<ChannelId>>,
    /// Registered with the poller; until the first short write nobody needs to know.
    input_watched: Vec<bool>,
    writable: Vec<bool>,
    readable: Vec<bool>,
    stderr_readable: bool,
    /// The process has exited.
    exited: bool,
    /// Read until there is nothing, whatever a short read says: the process has exited or hung up.
    draining: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Exit,
    Stderr,
    Input(usize),
    Output(usize),
}

/// Keys of the poller: slots times ports.
#[derive(Clone, Copy, Debug)]
struct Keys {
    inputs: usize,
    outputs: usize,
}

impl Keys {
    fn stride(self) -> usize {
        2 + self.inputs + self.outputs
    }

    fn key(self, slot: usize, port: Port) -> usize {
        let port = match port {
            Port::Exit => 0,
            Port::Stderr => 1,
            Port::Input(i) => 2 + i,
            Port::Output(i) => 2 + self.inputs + i,
        };
        slot * self.stride() + port
    }

    fn port(self, key: usize) -> (usize, Port) {
        let port = match key % self.stride() {
            0 => Port::Exit,
            1 => Port::Stderr,
            i if i < 2 + self.inputs => Port::Input(i - 2),
            i => Port::Output(i - 2 - self.inputs),
        };
        (key / self.stride(), port)
    }
}

pub(crate) struct Driver {
    core: Core,
    supply: Supply,
    outbox: Arc<Outbox>,
    launcher: Launcher,
    poller: Arc<Readiness>,
    keys: Keys,
    ports: Vec<Option<Ports>>,
    start: Instant,
    /// Slots with something to write, or to read, that is not waiting for the poller.
    to_write: Vec<usize>,
    to_read: Vec<usize>,
    /// Since when nothing is left to do but to wait for an intake that is inside the user's `next()`.
    lost_since: Option<Duration>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("core", &self.core).finish_non_exhaustive()
    }
}

/// Runs a driver to its end, on the thread that is to be the driver's.
pub(crate) fn run(core: Core, supply: Supply, outbox: Arc<Outbox>, poller: Arc<Readiness>) {
    let spec = Arc::clone(&core.spec);
    let workers = core.slots.len();
    let keys = Keys {
        inputs: 1 + spec.side_input_names().len(),
        outputs: 1 + spec.channels.side_outputs.iter().filter(|side| side.file.is_none()).count(),
    };
    let launcher = Launcher::new(spec, Arc::clone(&core.command));
    let for_end = Arc::clone(&outbox);
    let gate = Arc::clone(&core.gate);
    let mut driver = Driver {
        core,
        supply,
        outbox,
        launcher,
        poller,
        keys,
        ports: (0..workers).map(|_| None).collect(),
        start: Instant::now(),
        to_write: Vec::new(),
        to_read: Vec::new(),
        lost_since: None,
    };
    // A panic here is a bug of ours, or of a framing: the consumer gets it rather than waiting for ever.
    let end = match unwind::catch(|| driver.run()) {
        Ok(end) => end,
        Err(payload) => {
            driver.outbox.put(&mut driver.core.out);
            End { panic: Some(payload), ..End::default() }
        }
    };
    gate.stop();
    // The children first: a consumer that has seen the end finds nothing left of them.
    drop(driver);
    for_end.end(end);
}

impl Driver {
    fn run(&mut self) -> End {
        block_sigpipe(true);
        let mut events = Ready::new();
        loop {
            let now = self.start.elapsed();
            self.turn(now);
            self.outbox.put(&mut self.core.out);
            for batch in self.core.spent.drain(..) {
                self.supply.handover.give_back(batch);
            }
            if self.core.is_finished() {
                return self.core.take_end();
            }
            if let Some(slot) = self.core.next_start(now) {
                self.launch(slot);
                self.wait(&mut events, Some(Duration::ZERO));
                continue;
            }
            if self.has_work() {
                self.wait(&mut events, Some(Duration::ZERO));
                continue;
            }
            let asking = self.core.wants_input();
            if asking {
                self.supply.ask();
                if self.take_input(now) {
                    self.supply.stop_asking();
                    continue;
                }
                if !self.core.intake_is_lost() || !self.supply.handover.is_empty_handed() {
                    self.lost_since = None;
                } else if now - *self.lost_since.get_or_insert(now) >= COME_OUT_WITHIN {
                    // It stays inside the user's `next()` and will never be listened to again.
                    self.supply.stop_asking();
                    self.core.give_up_intake();
                    continue;
                }
            }
            let timer = self.core.next_timer();
            if !asking {
                // It came out; a date that is past would keep the driver awake.
                self.lost_since = None;
            }
            let given_up = self.lost_since.map(|since| since + COME_OUT_WITHIN);
            let next = timer.into_iter().chain(given_up).min();
            let timeout = next.map(|at| at.saturating_sub(self.start.elapsed()));
            self.wait(&mut events, timeout);
            if asking {
                self.supply.stop_asking();
            }
        }
    }

    /// Whether something can be done without waiting.
    fn has_work(&mut self) -> bool {
        self.core.can_dispatch()
            || !self.core.actions.is_empty()
            || self.to_read.iter().any(|&slot| self.core.may_read(slot))
    }

    /// Everything that can be done now.
    fn turn(&mut self, now: Duration) {
        if self.supply.handover.is_dropped() {
            self.core.cancel();
        }
        // What has come is read before anybody is judged for being late with it.
        self.read(now);
        self.core.tick(now);
        for slot in 0..self.ports.len() {
            // Only where there is no pidfd; otherwise the flag is never set.
            if self.ports[slot].as_ref().is_some_and(|ports| !ports.exited && ports.exit.is_known())
            {
                self.exited(slot, now);
            }
        }
        while self.core.wants_input() && self.take_input(now) {}
        self.core.dispatch(now);
        self.core.close_if_done(now);
        self.perform(now);
        self.to_write.append(&mut self.core.to_write);
        self.write(now);
        self.perform(now);
    }

    fn take_input(&mut self, now: Duration) -> bool {
        match self.supply.take() {
            Some(arrival) => {
                self.core.arrived(arrival, now);
                true
            }
            None => false,
        }
    }

    // ---------------------------------------------------------------- lives

    fn launch(&mut self, slot: usize) {
        block_sigpipe(false);
        let started = self.launcher.start(slot);
        block_sigpipe(true);
        let now = self.start.elapsed();
        let process = match started {
            Ok(process) => process,
            Err(error) => return self.core.start_failed(slot, error, now),
        };
        let pid = process.pid();
        match self.watch(slot, process) {
            Ok(ports) => {
                let outputs: Vec<bool> =
                    ports.process.outputs.iter().map(Option::is_some).collect();
                let stderr = ports.process.stderr.is_some();
                let stdin = ports.process.inputs[0].is_some();
                self.ports[slot] = Some(ports);
                self.core.started(slot, Some(pid), now);
                for (output, piped) in outputs.into_iter().enumerate() {
                    if !piped {
                        self.core.not_piped(slot, output);
                    }
                }
                if !stderr {
                    self.core.stderr_closed(slot);
                }
                if !stdin {
                    self.core.no_stdin(slot);
                }
            }
            Err(error) => {
                let error = Error::new(ErrorKind::Spawn, "the worker's pipes cannot be watched")
                    .because(error)
                    .running(&self.core.command);
                self.core.start_failed(slot, StartError::NotNow(error), now);
            }
        }
    }

    /// Registers a new child with the poller.
    fn watch(&self, slot: usize, process: Process) -> std::io::Result<Ports> {
        let exit = match ExitWatch::new(process.pid(), &self.poller) {
            Ok(exit) => exit,
            Err(error) => {
                process.finish();
                return Err(error);
            }
        };
        let inputs = process.inputs.len();
        let id = |input: &std::fs::File| ChannelId::of(input.as_fd()).ok();
        let ports = Ports {
            input_ids: process.inputs.iter().map(|input| input.as_ref().and_then(id)).collect(),
            input_watched: vec![false; inputs],
            writable: vec![true; inputs],
            readable: vec![false; process.outputs.len()],
            stderr_readable: false,
            exited: false,
            // A pseudo-terminal gives less than was asked for even when there is more.
            draining: matches!(self.core.spec.channels.stdout, Stream::Pty),
            exit,
            process,
        };
        let registered = (|| {
            if let ExitWatch::Pidfd(fd) = &ports.exit {
                self.poller.add(fd, self.keys.key(slot, Port::Exit), Interest::Readable)?;
            }
            for (i, output) in ports.process.outputs.iter().enumerate() {
                if let Some(output) = output {
                    self.poller.add(
                        output,
                        self.keys.key(slot, Port::Output(i)),
                        Interest::Readable,
                    )?;
                }
            }
            if let Some(stderr) = &ports.process.stderr {
                self.poller.add(stderr, self.keys.key(slot, Port::Stderr), Interest::Readable)?;
            }
            Ok(())
        })();
        match registered {
            Ok(()) => Ok(ports),
            Err(error) => {
                self.unwatch(&ports);
                ports.process.finish();
                Err(error)
            }
        }
    }

    fn unwatch(&self, ports: &Ports) {
        // Not registered, or registered and open: either is fine to delete.
        if let ExitWatch::Pidfd(fd) = &ports.exit {
            self.poller.remove(fd);
        }
        let files = ports.process.inputs.iter().chain(&ports.process.outputs).flatten();
        for file in files.chain(&ports.process.stderr) {
            self.poller.remove(file);
        }
    }

    fn exited(&mut self, slot: usize, now: Duration) {
        let Some(ports) = &mut self.ports[slot] else { return };
        ports.exited = true;
        ports.draining = true;
        ports.readable.fill(true);
        ports.stderr_readable = true;
        self.to_read.push(slot);
        self.core.exited(slot, now);
    }

    fn perform(&mut self, now: Duration) {
        let mut suspects = Vec::new();
        while let Some(action) = self.core.actions.pop_front() {
            match action {
                Action::CloseInput { slot, channel } => {
                    if let Some(ports) = &mut self.ports[slot]
                        && let Some(input) = ports.process.inputs[channel].take()
                        && ports.input_watched[channel]
                    {
                        self.poller.remove(&input);
                    }
                }
                Action::Signal { slot, signal } => {
                    if let Some(ports) = &self.ports[slot] {
                        ports.process.signal(signal);
                    }
                }
                // Workers stall together: one look at the system serves them all.
                Action::Probe { slot } => suspects.push(slot),
                Action::Finish { slot } => {
                    self.look_for_leftovers(slot);
                    let status = self.ports[slot].take().and_then(|ports| {
                        self.unwatch(&ports);
                        ports.process.finish()
                    });
                    self.core.ended(slot, status, self.start.elapsed());
                }
            }
        }
        for suspects in suspects.chunks(SUSPECTS_AT_ONCE) {
            self.probe(suspects, now);
        }
    }

    /// What a worker that nobody collects from has not read goes to others: counts it, once nobody can
    /// read it any more.
    fn look_for_leftovers(&mut self, slot: usize) {
        let Some(ports) = &self.ports[slot] else { return };
        if !self.core.drain {
            return;
        }
        ports.process.signal(Signal::Kill);
        for (channel, input) in ports.process.inputs.iter().enumerate() {
            if let Some(bytes) = input.as_ref().and_then(unread) {
                self.core.left_unread(slot, channel, bytes);
            }
        }
    }

    /// Looks for the evidence that workers which have gone quiet wait for us.
    fn probe(&mut self, slots: &[usize], now: Duration) {
        let mut inputs = Vec::new();
        for &slot in slots {
            let Some(ports) = &self.ports[slot] else { continue };
            let open = ports.process.inputs.iter().zip(&ports.input_ids);
            let known = open.filter_map(|(file, id)| Some((file.as_ref()?.as_fd(), (*id)?)));
            let pgid = Pid::from_raw(ports.process.pid().cast_signed());
            inputs.push((slot, pgid, known.collect::<Vec<_>>()));
        }
        let suspects: Vec<_> =
            inputs.iter().map(|(_, pgid, inputs)| Suspect { pgid: *pgid, inputs }).collect();
        let verdicts: Vec<_> = evidence_of_all(&suspects).into_iter().map(verdict).collect();
        let slots: Vec<usize> = inputs.iter().map(|(slot, ..)| *slot).collect();
        for (slot, verdict) in slots.into_iter().zip(verdicts) {
            if verdict == Verdict::Waiting && self.has_spoken(slot, now) {
                continue;
            }
            self.core.probed(slot, verdict, now);
        }
    }

    /// A reply may have been written just before the evidence was taken: it is in the pipe then, and
    /// the worker does not withhold anything.
    fn has_spoken(&mut self, slot: usize, now: Duration) -> bool {
        let before = self.core.counters().read_bytes.load(std::sync::atomic::Ordering::Relaxed);
        if let Some(ports) = &mut self.ports[slot] {
            ports.readable.fill(true);
        }
        for output in 0..self.keys.outputs {
            if self.read_output(slot, output, now) {
                self.to_read.push(slot);
            }
        }
        self.core.counters().read_bytes.load(std::sync::atomic::Ordering::Relaxed) != before
    }

    // ---------------------------------------------------------------- bytes

    fn write(&mut self, now: Duration) {
        for slot in std::mem::take(&mut self.to_write) {
            for channel in 0..self.keys.inputs {
                self.write_channel(slot, channel, now);
            }
        }
    }

    fn write_channel(&mut self, slot: usize, channel: usize, now: Duration) {
        loop {
            let Some(ports) = &mut self.ports[slot] else { return };
            let Slot::Live(life) = &self.core.slots[slot] else { return };
            if !ports.writable[channel] || life.inputs[channel].is_written() {
                return;
            }
            let Some(file) = &mut ports.process.inputs[channel] else { return };
            let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(SLICES);
            life.inputs[channel].slices(channel, &mut slices, SLICES);
            let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
            match file.write_vectored(&slices) {
                Ok(n) => {
                    if n < wanted {
                        ports.writable[channel] = false;
                    }
                    if n < wanted && !ports.input_watched[channel] {
                        // The first time that anybody must be told when there is room again.
                        ports.input_watched[channel] = true;
                        let key = self.keys.key(slot, Port::Input(channel));
                        self.watch_input(slot, channel, key);
                    }
                    self.core.wrote(slot, channel, n, now);
                }
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(error) if error.kind() == IoErrorKind::WouldBlock => {
                    ports.writable[channel] = false;
                    if !ports.input_watched[channel] {
                        ports.input_watched[channel] = true;
                        let key = self.keys.key(slot, Port::Input(channel));
                        self.watch_input(slot, channel, key);
                    }
                    return;
                }
                // EPIPE, or anything else that a pipe can say: nobody reads it any more.
                Err(_) => {
                    if let Some(bytes) = unread(file)
                        && self.core.drain
                    {
                        self.core.left_unread(slot, channel, bytes);
                    }
                    return self.core.write_closed(slot, channel, now);
                }
            }
        }
    }

    fn watch_input(&mut self, slot: usize, channel: usize, key: usize) {
        let Some(ports) = &self.ports[slot] else { return };
        let Some(file) = &ports.process.inputs[channel] else { return };
        if self.poller.add(file, key, Interest::Writable).is_err() {
            // Out of memory for one more registration: nothing would ever tell when there is room, so
            // this life cannot be fed any more.
            let now = self.start.elapsed();
            self.core.write_closed(slot, channel, now);
        }
    }

    fn read(&mut self, now: Duration) {
        for slot in std::mem::take(&mut self.to_read) {
            if self.ports[slot].is_none() {
                continue;
            }
            let mut more = self.read_stderr(slot, now);
            for output in 0..self.keys.outputs {
                more |= self.read_output(slot, output, now);
            }
            if more && !self.to_read.contains(&slot) {
                self.to_read.push(slot);
            }
        }
    }

    /// Reads what there is. Says whether it must be tried again without waiting for the poller.
    fn read_output(&mut self, slot: usize, output: usize, now: Duration) -> bool {
        for _ in 0..READS_IN_A_ROW {
            if !self.core.may_read(slot) {
                return self.ports[slot].as_ref().is_some_and(|ports| ports.readable[output]);
            }
            let Some(ports) = &mut self.ports[slot] else { return false };
            if !ports.readable[output] {
                return false;
            }
            let Some(file) = &mut ports.process.outputs[output] else { return false };
            let room = self.core.read_room(slot, output);
            if room.is_empty() {
                return false;
            }
            let wanted = room.len();
            match file.read(room) {
                Ok(0) => {
                    ports.readable[output] = false;
                    self.poller.remove(&*file);
                    ports.process.outputs[output] = None;
                    self.core.read_closed(slot, output, now);
                    return false;
                }
                Ok(n) => {
                    // A pipe that gives less than was asked for is empty; the next byte is an edge.
                    ports.readable[output] = n == wanted || ports.draining;
                    self.core.read(slot, output, n, now);
                }
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(error) if error.kind() == IoErrorKind::WouldBlock => {
                    ports.readable[output] = false;
                    return false;
                }
                // A pseudo-terminal ends with an error of its own.
                Err(_) => {
                    ports.readable[output] = false;
                    self.poller.remove(&*file);
                    ports.process.outputs[output] = None;
                    self.core.read_closed(slot, output, now);
                    return false;
                }
            }
        }
        true
    }

    fn read_stderr(&mut self, slot: usize, now: Duration) -> bool {
        let mut room = [0; 8 << 10];
        for _ in 0..READS_IN_A_ROW {
            let Some(ports) = &mut self.ports[slot] else { return false };
            if !ports.stderr_readable {
                return false;
            }
            let Some(file) = &mut ports.process.stderr else { return false };
            match file.read(&mut room) {
                Ok(0) => {
                    ports.stderr_readable = false;
                    self.poller.remove(&*file);
                    ports.process.stderr = None;
                    self.core.stderr_closed(slot);
                    return false;
                }
                Ok(n) => {
                    ports.stderr_readable = n == room.len() || ports.draining;
                    self.core.heard_stderr(slot, &room[..n], now);
                }
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(_) => {
                    ports.stderr_readable = false;
                    return false;
                }
            }
        }
        true
    }

    // ---------------------------------------------------------------- waiting

    fn wait(&mut self, events: &mut Ready, timeout: Option<Duration>) {
        if let Err(error) = self.poller.wait(events, timeout) {
            if error.kind() != IoErrorKind::Interrupted {
                let error = Error::new(ErrorKind::Thread, "the poller failed").because(error);
                self.core.fail(error);
            }
            return;
        }
        let now = self.start.elapsed();
        for event in events.iter() {
            let (slot, port) = self.keys.port(event.key);
            let Some(ports) = self.ports.get_mut(slot).and_then(Option::as_mut) else { continue };
            match port {
                Port::Exit => {
                    if !ports.exited {
                        self.exited(slot, now);
                    }
                }
                Port::Stderr => {
                    ports.stderr_readable = true;
                    ports.draining |= event.hung_up;
                    self.to_read.push(slot);
                }
                Port::Output(output) => {
                    ports.readable[output] = true;
                    ports.draining |= event.hung_up;
                    self.to_read.push(slot);
                }
                Port::Input(channel) => {
                    ports.writable[channel] = true;
                    self.to_write.push(slot);
                }
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        for ports in &mut self.ports {
            if let Some(ports) = ports.take() {
                // Only after a panic: the usual way out leaves nobody behind.
                ports.process.finish();
            }
        }
    }
}

/// What the core needs to know of the evidence.
fn verdict(evidence: Evidence) -> Verdict {
    match evidence {
        Evidence::Waiting => Verdict::Waiting,
        Evidence::NotCertain(doubt) => match doubt {
            Doubt::EventLoop => Verdict::Unclear("it runs an event loop"),
            Doubt::OtherRead => Verdict::Unclear("it reads something that does not come from us"),
            Doubt::NoReader => Verdict::Unclear("nobody in its process group reads what we write"),
            Doubt::Unreadable => Verdict::Unclear("/proc does not tell"),
            Doubt::Stopped => Verdict::Unclear("it is stopped"),
            Doubt::Unread | Doubt::Busy | Doubt::Sleeping | Doubt::Writing | Doubt::Changed => {
                Verdict::Busy
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_ports_are_one_to_one() {
        let keys = Keys { inputs: 3, outputs: 2 };
        let ports = [
            Port::Exit,
            Port::Stderr,
            Port::Input(0),
            Port::Input(2),
            Port::Output(0),
            Port::Output(1),
        ];
        for slot in [0, 1, 999] {
            for port in ports {
                assert_eq!(keys.port(keys.key(slot, port)), (slot, port));
            }
        }
    }
}
