//! What the scheduler asks for, done: starting, closing, signalling, looking for evidence, reaping.
//!
//! # Invariants
//! 1. Each deed is reported back with the event that the scheduler waits for, also where it failed.
//! 2. Suspects are looked at together: one walk over `/proc` serves them all.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::unistd::Pid;

use crate::error::{Error, ErrorKind};
use crate::subprocess::event_loop::EventLoop;
use crate::subprocess::probe::{Doubt, Evidence, Suspect, evidence_of_all};
use crate::subprocess::process::{block_sigpipe, has_no_reader, unread};
use crate::subprocess::scheduler::{Action, StartError, Verdict};
use crate::template::policy::Signal;

/// Workers whose evidence is taken together, so that the event loop is not away for long.
const SUSPECTS_AT_ONCE: usize = 64;

impl EventLoop {
    pub(super) fn launch(&mut self, slot: usize) {
        block_sigpipe(false);
        let started = self.launcher.start(slot);
        block_sigpipe(true);
        let now = self.start.elapsed();
        let process = match started {
            Ok(process) => process,
            Err(error) => return self.scheduler.start_failed(slot, error, now),
        };
        let pid = process.pid();
        match self.watch(slot, process) {
            Ok(ports) => {
                let outputs: Vec<bool> =
                    ports.process.outputs.iter().map(Option::is_some).collect();
                let stderr = ports.process.stderr.is_some();
                let stdin = ports.process.inputs[0].is_some();
                self.ports[slot] = Some(ports);
                self.scheduler.started(slot, Some(pid), now);
                for (output, piped) in outputs.into_iter().enumerate() {
                    if !piped {
                        self.scheduler.not_piped(slot, output);
                    }
                }
                if !stderr {
                    self.scheduler.stderr_closed(slot);
                }
                if !stdin {
                    self.scheduler.no_stdin(slot);
                }
            }
            Err(error) => {
                let error = Error::new(ErrorKind::Spawn, "the worker's pipes cannot be watched")
                    .because(error)
                    .running(&self.scheduler.command);
                self.scheduler.start_failed(slot, StartError::NotNow(error), now);
            }
        }
    }

    pub(super) fn exited(&mut self, slot: usize, now: Duration) {
        let Some(ports) = &mut self.ports[slot] else { return };
        ports.exited = true;
        ports.draining = true;
        ports.readable.fill(true);
        ports.stderr_readable = true;
        self.to_read.push(slot);
        self.scheduler.exited(slot, now);
    }

    pub(super) fn perform(&mut self, now: Duration) {
        let mut suspects = Vec::new();
        while let Some(action) = self.scheduler.actions.pop_front() {
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
                    self.let_go(slot);
                }
                // Whether it will read what lies in its pipes is not known, unlike above.
                Action::Abandon { slot } => self.let_go(slot),
            }
        }
        for suspects in suspects.chunks(SUSPECTS_AT_ONCE) {
            self.probe(suspects, now);
        }
    }

    /// Closes every pipe of a session that is over, and reaps it if that can be done without waiting.
    fn let_go(&mut self, slot: usize) {
        let status = self.ports[slot].take().and_then(|ports| {
            self.unwatch(&ports);
            ports.process.reap()
        });
        self.scheduler.ended(slot, status, self.start.elapsed());
    }

    /// What a worker that nobody collects from has not read goes to others: counts it, once nobody can
    /// read it any more.
    fn look_for_leftovers(&mut self, slot: usize) {
        let Some(ports) = &self.ports[slot] else { return };
        if !self.scheduler.drain {
            return;
        }
        ports.process.signal(Signal::Kill);
        for (channel, input) in ports.process.inputs.iter().enumerate() {
            if let Some(bytes) = input.as_ref().and_then(unread) {
                self.scheduler.left_unread(slot, channel, bytes);
            }
        }
    }

    /// Looks for the evidence that workers which have gone quiet wait for us.
    fn probe(&mut self, slots: &[usize], now: Duration) {
        let mut inputs = Vec::new();
        let mut slots = slots.to_vec();
        slots.retain(|&slot| !self.has_stopped_reading(slot, now));
        for &slot in &slots {
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
            self.scheduler.probed(slot, verdict, now);
        }
    }

    /// A worker that closes its stdin is found out by the next write; where there is none, by this.
    fn has_stopped_reading(&mut self, slot: usize, now: Duration) -> bool {
        let Some(ports) = &self.ports[slot] else { return false };
        let mut inputs = ports.process.inputs.iter().enumerate();
        let closed = inputs.find(|(_, input)| input.as_ref().is_some_and(has_no_reader));
        let Some((channel, Some(input))) = closed else { return false };
        if let Some(bytes) = unread(input)
            && self.scheduler.drain
        {
            self.scheduler.left_unread(slot, channel, bytes);
        }
        self.scheduler.write_closed(slot, channel, now);
        true
    }

    /// A reply may have been written just before the evidence was taken: it is in the pipe then, and
    /// the worker does not withhold anything.
    fn has_spoken(&mut self, slot: usize, now: Duration) -> bool {
        let before =
            self.scheduler.counters().read_bytes.load(std::sync::atomic::Ordering::Relaxed);
        if let Some(ports) = &mut self.ports[slot] {
            ports.readable.fill(true);
        }
        for output in 0..self.keys.outputs {
            if self.read_output(slot, output, now) {
                self.to_read.push(slot);
            }
        }
        self.scheduler.counters().read_bytes.load(std::sync::atomic::Ordering::Relaxed) != before
    }
}

/// What the scheduler needs to know of the evidence.
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
