//! What the scheduler asks for, done: as `subprocess::event_loop::effects` does it.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::subprocess::scheduler::{Action, Slot, StartError, Verdict};
use crate::subprocess::session::{Phase, Why};
use crate::subprocess::sim::check::{Failure, is_torn, must};
use crate::subprocess::sim::rng::Rng;
use crate::subprocess::sim::schedule::Family;
use crate::subprocess::sim::script::Script;
use crate::subprocess::sim::worker::Child;

use super::{Ports, World};

impl World {
    pub(super) fn launch(&mut self, slot: usize) -> Result<(), Failure> {
        let seed = self.rng.next();
        let mut rng = Rng::new(seed);
        self.now += Duration::from_micros(self.rng.below(300));
        let never = self.schedule.family == Family::Starts && rng.one_in(40);
        let starts = matches!(self.schedule.family, Family::Starts | Family::Mixed);
        if never || (starts && rng.one_in(4)) {
            self.start_failures += 1;
            self.say(|| format!("slot {slot}: cannot be started, never: {never}"));
            let error = Error::new(ErrorKind::Spawn, "simulated");
            let alive = self.scheduler.slots.iter().any(|slot| matches!(slot, Slot::Live(_)));
            let before = self.scheduler.stopping;
            let error = if never { StartError::Never(error) } else { StartError::NotNow(error) };
            self.scheduler.start_failed(slot, error, self.now);
            must!(
                never || !alive || self.scheduler.stopping == before,
                "a start that must wait was fatal although workers are alive"
            );
            return Ok(());
        }
        let pid = self.children.len();
        let script = Script::new(&mut rng, &self.schedule.manners);
        self.say(|| format!("slot {slot}: session {pid} starts: {script:?}"));
        let rooms = (self.schedule.manners.stdin_room, self.schedule.manners.stdout_room);
        self.children.push(Child::new(pid as u32, script, rooms, rng, self.now));
        self.ports[slot] = Some(Ports {
            child: pid,
            stdin: true,
            stdout: true,
            stderr: true,
            watched: false,
            writable: true,
            readable: false,
            stderr_readable: false,
            exited: false,
            tail: Vec::new(),
        });
        self.scheduler.started(slot, Some(pid as u32), self.now);
        Ok(())
    }

    pub(super) fn perform(&mut self) -> Result<(), Failure> {
        let now = self.now;
        let mut suspects = Vec::new();
        while let Some(action) = self.scheduler.actions.pop_front() {
            self.say(|| format!("{action:?}"));
            match action {
                Action::CloseInput { slot, .. } => self.close_input(slot)?,
                Action::Signal { slot, signal } => {
                    if let Slot::Live(session) = &self.scheduler.slots[slot]
                        && session.why == Some(Why::Stopped)
                        && matches!(session.phase, Phase::Killing { step: 1, .. })
                    {
                        let spared = self.spared_until.is_none_or(|until| until <= now);
                        must!(spared, "{signal:?} before the grace is over");
                    }
                    if let Some(ports) = &self.ports[slot] {
                        self.children[ports.child].signal(signal, now);
                    }
                }
                Action::Probe { slot } => suspects.push(slot),
                Action::Finish { slot } => {
                    let Some(ports) = self.ports[slot].take() else {
                        return Err(Failure::new("a session is finished twice"));
                    };
                    let child = &mut self.children[ports.child];
                    child.signal(crate::template::policy::Signal::Kill, now);
                    child.stdin.writer = false;
                    child.stdout.reader = false;
                    must!(!child.is_alive(), "a live child is finished");
                    let status = child.status.map(ExitStatus::from_raw);
                    self.scheduler.ended(slot, status, now);
                }
                Action::Abandon { slot } => {
                    let Some(ports) = self.ports[slot].take() else {
                        return Err(Failure::new("a session is abandoned twice"));
                    };
                    let child = &mut self.children[ports.child];
                    must!(child.is_stuck() && child.killed, "a child is abandoned for nothing");
                    child.stdin.writer = false;
                    child.stdout.reader = false;
                    self.abandoned += 1;
                    self.scheduler.ended(slot, None, now);
                }
            }
        }
        for slot in suspects {
            self.probe(slot)?;
        }
        Ok(())
    }

    fn close_input(&mut self, slot: usize) -> Result<(), Failure> {
        let Some(ports) = &mut self.ports[slot] else { return Ok(()) };
        if !std::mem::replace(&mut ports.stdin, false) {
            return Ok(());
        }
        let child = &mut self.children[ports.child];
        child.stdin.writer = false;
        child.nudge(self.now);
        let spared = child.is_alive() && child.stdin.reader && !child.killed;
        must!(
            !spared || !is_torn(&self.schedule, &ports.tail),
            "stdin of session {} was closed after half a request {:?}",
            child.pid,
            String::from_utf8_lossy(&ports.tail)
        );
        Ok(())
    }

    fn probe(&mut self, slot: usize) -> Result<(), Failure> {
        let Some(ports) = &self.ports[slot] else { return Ok(()) };
        let child = &self.children[ports.child];
        if ports.stdin && !child.stdin.reader {
            self.scheduler.write_closed(slot, 0, self.now);
            return Ok(());
        }
        let verdict = if self.schedule.manners.opaque {
            Verdict::Unclear("it is opaque")
        } else if child.waits() {
            Verdict::Waiting
        } else {
            Verdict::Busy
        };
        self.say(|| format!("slot {slot}: {verdict:?}"));
        if verdict == Verdict::Waiting {
            let before = self.read_bytes();
            if let Some(ports) = &mut self.ports[slot] {
                ports.readable = true;
            }
            if self.read_output(slot)? {
                self.to_read.push(slot);
            }
            if self.read_bytes() != before {
                return Ok(());
            }
        }
        self.scheduler.probed(slot, verdict, self.now);
        Ok(())
    }
}
