//! The system itself.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::error::{Error, ErrorKind};
use crate::stats::Stats;
use crate::subprocess::evidence::{Look, Obstacle};
use crate::subprocess::exit::{ExitWatch, has_exited};
use crate::subprocess::os::{Event, Os, Port};
use crate::subprocess::probe::{ChannelId, Suspect, look_at_all};
use crate::subprocess::process::{
    Process, Starter, block_sigpipe, enlarge, has_no_reader, reading_end, unread,
};
use crate::subprocess::protocol::{Now, Sighting, Spawned, StartError};
use crate::subprocess::readiness::{Interest, Readiness, Ready};
use crate::subprocess::remote::errand;
use crate::template::Spec;
use crate::template::policy::Signal;
use crate::tuning::ENLARGED_WORKERS;

/// Children that are looked at together, so that the loop is not away for long.
const SUSPECTS_AT_ONCE: usize = 64;

/// What is needed to start children.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) spec: Arc<Spec>,
    pub(crate) command: Arc<str>,
    /// How many children there may be at once.
    pub(crate) slots: usize,
    /// Pipes may be enlarged once they are full: not where what lies in one is lost with its reader.
    pub(crate) enlarges: bool,
    /// What a child leaves unread of an input must be known also after that was closed.
    pub(crate) counts_leftovers: bool,
    /// Where to leave a word about what could not be killed.
    pub(crate) stats: Option<Arc<Stats>>,
}

/// Processes, pipes and the poller.
#[derive(Debug)]
pub(crate) struct Unix {
    start: Instant,
    starter: Starter,
    command: Arc<str>,
    poller: Arc<Readiness>,
    ready: Ready,
    keys: Keys,
    children: Vec<Option<Child>>,
    enlarges: bool,
    counts_leftovers: bool,
    stats: Option<Arc<Stats>>,
    /// What looks at far processes have shown.
    sightings: (Sender<Sighted>, Receiver<Sighted>),
    /// Looks at far processes that nothing has come of yet.
    looks: usize,
    terminal: bool,
    /// Children whose exit no descriptor tells of.
    unwatched: usize,
}

/// The slot and the pid of a far process, and what a look at it has shown.
type Sighted = (usize, u32, Sighting);

/// One live child.
#[derive(Debug)]
struct Child {
    process: Process,
    exit: ExitWatch,
    exit_is_told: bool,
    /// Which pipes the inputs are, for the evidence of a stall.
    input_ids: Vec<Option<ChannelId>>,
    /// The other ends of inputs that were closed, which tell what was left in them.
    leftovers: Vec<Option<File>>,
}

impl Unix {
    /// To be called on the thread that is to be the loop's.
    pub(crate) fn new(setup: Setup, poller: Arc<Readiness>) -> Self {
        block_sigpipe(true);
        let spec = setup.spec;
        let sides = &spec.channels.side_outputs;
        let keys = Keys {
            inputs: 1 + spec.side_input_names().len(),
            outputs: 1 + sides.iter().filter(|side| side.file.is_none()).count(),
        };
        Self {
            start: Instant::now(),
            terminal: spec.channels.pty,
            starter: Starter::new(spec, Arc::clone(&setup.command)),
            command: setup.command,
            poller,
            ready: Ready::new(),
            keys,
            children: (0..setup.slots).map(|_| None).collect(),
            counts_leftovers: setup.counts_leftovers,
            stats: setup.stats,
            sightings: channel(),
            looks: 0,
            enlarges: setup.enlarges && setup.slots <= ENLARGED_WORKERS,
            unwatched: 0,
        }
    }

    /// Registers a new child with the poller.
    fn watch(&self, slot: usize, process: &Process) -> io::Result<ExitWatch> {
        let exit = ExitWatch::new(process.pid(), &self.poller)?;
        if let ExitWatch::Pidfd(fd) = &exit {
            self.poller.add(fd, self.keys.key(slot, Port::Exit), Interest::Readable)?;
        }
        for (i, output) in process.outputs.iter().enumerate() {
            if let Some(output) = output {
                let key = self.keys.key(slot, Port::Output(i));
                self.poller.add(output, key, Interest::Readable)?;
            }
        }
        if let Some(stderr) = &process.stderr {
            self.poller.add(stderr, self.keys.key(slot, Port::Stderr), Interest::Readable)?;
        }
        Ok(exit)
    }

    /// Hands on what the poller has found.
    fn tell(&mut self, events: &mut Vec<Event>) {
        for event in self.ready.iter() {
            let (slot, port) = self.keys.port(event.key);
            let Some(Some(child)) = self.children.get_mut(slot) else { continue };
            if port == Port::Exit && std::mem::replace(&mut child.exit_is_told, true) {
                continue;
            }
            events.push(Event { slot, port, hung_up: event.hung_up });
        }
    }

    /// Hands on the exits that the poller does not tell of. `ask` the system where the thread that waits for one may
    /// not have run since.
    fn tell_exits(&mut self, ask: bool, events: &mut Vec<Event>) {
        if self.unwatched == 0 {
            return;
        }
        for (slot, child) in self.children.iter_mut().enumerate() {
            let Some(child) = child else { continue };
            let unwatched = !matches!(child.exit, ExitWatch::Pidfd(_));
            if child.exit_is_told || !unwatched {
                continue;
            }
            if child.exit.is_known() || (ask && has_exited(child.process.pid())) {
                child.exit_is_told = true;
                events.push(Event { slot, port: Port::Exit, hung_up: false });
            }
        }
    }

    /// Looks at children that are the workers themselves.
    fn look_here(&self, slots: &[usize], at: Now) -> Vec<Look> {
        let mut looks = Vec::with_capacity(slots.len());
        for slots in slots.chunks(SUSPECTS_AT_ONCE) {
            let children: Vec<_> = slots
                .iter()
                .map(|&slot| {
                    let child = self.children[slot].as_ref();
                    let open = child
                        .into_iter()
                        .flat_map(|child| child.process.inputs.iter().zip(&child.input_ids));
                    let known =
                        open.filter_map(|(file, id)| Some((file.as_ref()?.as_fd(), (*id)?)));
                    (child.map(|child| child.process.pid()), known.collect::<Vec<_>>())
                })
                .collect();
            let suspects: Vec<_> = children
                .iter()
                .filter_map(|(pid, inputs)| {
                    Some(Suspect::new(Pid::from_raw((*pid)?.cast_signed()), inputs))
                })
                .collect();
            looks.extend(look_at_all(&suspects, at));
        }
        looks
    }

    /// Removes from the poller whatever is registered, which must come before it is closed.
    fn unwatch(&self, process: &Process, exit: Option<&ExitWatch>) {
        if let Some(ExitWatch::Pidfd(fd)) = exit {
            self.poller.remove(fd);
        }
        let files = process.inputs.iter().chain(&process.outputs).flatten();
        for file in files.chain(&process.stderr) {
            self.poller.remove(file);
        }
    }
}

fn closed() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl Os for Unix {
    fn now(&self) -> Now {
        self.start.elapsed()
    }

    fn yield_now(&mut self) {
        thread::yield_now();
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        events.clear();
        let (mut timeout, mut interrupted) = (timeout, false);
        loop {
            match self.poller.wait(&mut self.ready, timeout) {
                // This process was stopped, or has got a signal: what has happened meanwhile is to be read
                // before anybody is judged for being late, so it is asked for at once.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => interrupted = true,
                waited => {
                    waited?;
                    self.tell(events);
                    if !self.ready.is_full() {
                        break;
                    }
                }
            }
            timeout = Some(Duration::ZERO);
        }
        self.tell_exits(interrupted, events);
        Ok(())
    }

    fn spawn(&mut self, slot: usize) -> Result<Spawned, StartError> {
        block_sigpipe(false);
        let started = self.starter.start(slot);
        block_sigpipe(true);
        let process = started?;
        let exit = match self.watch(slot, &process) {
            Ok(exit) => exit,
            Err(error) => {
                self.unwatch(&process, None);
                process.finish();
                let error = Error::new(ErrorKind::Spawn, "the worker's pipes cannot be watched")
                    .because(error)
                    .running(&self.command);
                return Err(StartError::NotNow(error));
            }
        };
        if !matches!(exit, ExitWatch::Pidfd(_)) {
            self.unwatched += 1;
            if exit.is_known() {
                self.poller.wake();
            }
        }
        let id = |input: &File| ChannelId::of(input.as_fd()).ok();
        let spawned = Spawned {
            pid: process.pid(),
            inputs: process.inputs.iter().map(Option::is_some).collect(),
            outputs: process.outputs.iter().map(Option::is_some).collect(),
            stderr: process.stderr.is_some(),
            terminal: self.terminal,
        };
        self.children[slot] = Some(Child {
            input_ids: process.inputs.iter().map(|input| input.as_ref().and_then(id)).collect(),
            leftovers: process.inputs.iter().map(|_| None).collect(),
            process,
            exit,
            exit_is_told: false,
        });
        Ok(spawned)
    }

    fn read(&mut self, slot: usize, port: Port, room: &mut [u8]) -> io::Result<usize> {
        let process = &self.children[slot].as_ref().ok_or_else(closed)?.process;
        let file = match port {
            Port::Output(output) => &process.outputs[output],
            _ => &process.stderr,
        };
        match self.poller.read(file.as_ref().ok_or_else(closed)?, room) {
            // So a pseudo-terminal ends.
            Err(error) if self.terminal && error.raw_os_error() == Some(nix::libc::EIO) => Ok(0),
            read => read,
        }
    }

    fn write(&mut self, slot: usize, channel: usize, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let child = self.children[slot].as_ref().ok_or_else(closed)?;
        self.poller.write(child.process.inputs[channel].as_ref().ok_or_else(closed)?, slices)
    }

    fn watch_input(&mut self, slot: usize, channel: usize) -> io::Result<bool> {
        let child = self.children[slot].as_ref().ok_or_else(closed)?;
        let file = child.process.inputs[channel].as_ref().ok_or_else(closed)?;
        if self.enlarges {
            for pipe in child.process.outputs.iter().flatten().chain([file]) {
                enlarge(pipe);
            }
        }
        self.poller.add(file, self.keys.key(slot, Port::Input(channel)), Interest::Writable)?;
        Ok(self.enlarges)
    }

    fn close(&mut self, slot: usize, port: Port) {
        let Some(child) = &mut self.children[slot] else { return };
        let file = match port {
            Port::Input(channel) => {
                let file = child.process.inputs[channel].take();
                if self.counts_leftovers {
                    child.leftovers[channel] = file.as_ref().and_then(reading_end);
                }
                file
            }
            Port::Output(output) => child.process.outputs[output].take(),
            Port::Stderr => child.process.stderr.take(),
            Port::Exit => None,
        };
        if let Some(file) = file {
            self.poller.remove(&file);
        }
    }

    fn signal(&mut self, slot: usize, signal: Signal) {
        if let Some(child) = &self.children[slot] {
            child.process.signal(signal);
        }
    }

    fn unread(&mut self, slot: usize, channel: usize) -> Option<u64> {
        let child = self.children[slot].as_ref()?;
        unread(child.process.inputs[channel].as_ref().or(child.leftovers[channel].as_ref())?)
    }

    fn has_no_reader(&mut self, slot: usize, channel: usize) -> io::Result<bool> {
        match self.children[slot].as_ref().map(|child| &child.process.inputs[channel]) {
            Some(Some(input)) => has_no_reader(input),
            _ => Ok(false),
        }
    }

    fn look_far(&mut self, slot: usize, pid: u32) {
        self.looks += 1;
        let (tell, poller) = (self.sightings.0.clone(), Arc::clone(&self.poller));
        let answer = move |sighting| {
            // Nobody may be left to hear it.
            let _ = tell.send((slot, pid, sighting));
            poller.wake();
        };
        match self.starter.look_words(slot, pid) {
            Some((words, mark)) => {
                let told = answer.clone();
                let sockets = self.starter.sockets();
                let sent = errand::start(&words, sockets, move |said| {
                    told(errand::sighting(said, &mark));
                });
                if sent.is_err() {
                    answer(Sighting::There);
                }
            }
            None => answer(Sighting::There),
        }
    }

    fn sighting(&mut self) -> Option<(usize, u32, Sighting)> {
        if self.looks == 0 {
            return None;
        }
        let sighting = self.sightings.1.try_recv().ok()?;
        self.looks -= 1;
        Some(sighting)
    }

    fn kill_far(&mut self, slot: usize, pid: Option<u32>) {
        let Some(kill) = self.starter.kill_words(slot, pid) else { return };
        let stats = self.stats.clone();
        let survives = move |host: &str, what: &str| {
            let pid = pid.map_or_else(String::new, |pid| format!(" {pid}"));
            let hint = format!("a process{pid} on {host} may have survived: {what}");
            #[cfg(feature = "tracing")]
            tracing::warn!(target: "subfeed", host, state = "left behind", hint);
            if let Some(stats) = &stats {
                stats.hint(hint);
            }
        };
        let (host, told) = (Arc::clone(&kill.host), survives.clone());
        let sent = errand::start(&kill.words, self.starter.sockets(), move |said| {
            if kill.mark.is_some_and(|mark| !errand::has_killed(said, &mark)) {
                told(&host, "the host did not answer when it was to be killed");
            }
        });
        if let Err(error) = sent {
            survives(&kill.host, &format!("the command that kills it cannot be started: {error}"));
        }
    }

    fn look(&mut self, slots: &[usize], at: Now) -> Vec<Look> {
        if self.starter.is_remote() {
            // A launcher shows nothing of its tool; a worker beside it that runs here is looked at alone.
            let look = |&slot: &usize| match self.starter.is_far(slot) {
                true => vec![Look::obstructed(at, vec![0], Obstacle::Launcher)],
                false => self.look_here(&[slot], at),
            };
            return slots.iter().flat_map(look).collect();
        }
        self.look_here(slots, at)
    }

    fn release(&mut self, slot: usize) -> Option<ExitStatus> {
        let child = self.children[slot].take()?;
        if !matches!(child.exit, ExitWatch::Pidfd(_)) {
            self.unwatched -= 1;
        }
        self.unwatch(&child.process, Some(&child.exit));
        // Where somebody else has reaped it, the pidfd still knows.
        child.process.reap().or_else(|| child.exit.status())
    }
}

impl Drop for Unix {
    fn drop(&mut self) {
        // Only after a panic: the usual way out leaves nobody behind. All at once, so that those who
        // die slowly do so side by side.
        for child in self.children.iter().flatten() {
            child.process.signal(Signal::Kill);
        }
        for child in self.children.iter_mut().filter_map(Option::take) {
            child.process.finish();
        }
    }
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
