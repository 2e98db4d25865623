//! The end of the feed: failures that end it, the drop, and when it is over.
//!
//! # Invariants
//! 1. `stopping` only ever goes from nothing to `Fatal` or `Dropped`, and from `Fatal` to `Dropped`.
//! 2. The cause of a fatal end is carried by exactly one packet, the earliest that is unanswered, or, if
//!    there is none, by the end itself.
//! 3. Every packet that is unanswered then becomes a halted span, wherever it was; after a drop nobody looks.
//! 4. A feed is over only when no session is left: the event loop leaves nobody behind.

use crate::error::{Error, ErrorKind};
use crate::record::Run;
use crate::stats::Counters;
use crate::subprocess::protocol::Operation;
use crate::subprocess::scheduler::{Scheduler, Slot, Stopping};
use crate::subprocess::session::{Phase, Why};
use crate::template::policy::{DROP_GRACE, Halt, Signal};
use crate::window::packet::{End, Outcome, Span};

impl Scheduler {
    /// A fatal error: the feed ends, and says why once.
    pub(crate) fn fail(&mut self, error: Error) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Stopping::Fatal);
        self.cause = Some(error.fatal());
        self.gate.stop();
        self.stop_sessions();
        let mut unanswered: Vec<Run> = self.pending.drain(..).map(|job| job.run).collect();
        self.pending_count = 0;
        self.careful = 0;
        for slot in &mut self.slots {
            if let Slot::Live(session) = slot {
                unanswered.extend(session.in_flight.drain(..));
            }
        }
        unanswered.sort_by_key(|run| run.first().since(self.origin));
        for run in unanswered {
            self.halt_run(run);
        }
    }

    /// The packets of a run end with the feed; the first of all carries the cause.
    pub(crate) fn halt_run(&mut self, mut run: Run) {
        if let Some(cause) = self.cause.take() {
            let head = if run.len() > 1 { run.split_front(1) } else { run.clone() };
            let packet = head.first();
            let error = cause.at(packet.0).asked(head.request());
            let last = head.to == run.to;
            self.gate.release(head.weight());
            drop(head);
            self.emit(Span::one(packet, Outcome::Failed(error)));
            if last {
                self.recycle(run);
                return;
            }
        }
        let span = Span {
            first: run.first(),
            count: run.len() as u64,
            weight: 0,
            outcome: Outcome::Halted,
        };
        self.spend(run);
        self.emit(span);
    }

    /// The outlet was dropped.
    pub(crate) fn cancel(&mut self) {
        if self.stopping == Some(Stopping::Dropped) {
            return;
        }
        let first = self.stopping.is_none();
        self.stopping = Some(Stopping::Dropped);
        self.gate.stop();
        self.pending.clear();
        self.pending_count = 0;
        self.careful = 0;
        if first {
            self.stop_sessions();
        }
    }

    /// Whether everything is over: nothing unanswered, nothing alive.
    pub(crate) fn is_finished(&self) -> bool {
        let settled = match self.stopping {
            Some(Stopping::Dropped) => true,
            Some(Stopping::Fatal) => self.pulled.is_some(),
            None => self.all_resolved(),
        };
        settled && self.is_quiet()
    }

    /// Whether no session is left.
    pub(crate) fn is_quiet(&self) -> bool {
        self.slots.iter().all(|slot| matches!(slot, Slot::Vacant { .. }))
    }

    /// The end, once finished.
    pub(crate) fn take_end(&mut self) -> End {
        let mut end = std::mem::take(&mut self.end);
        if self.halting && self.stopping.is_none() {
            self.cause = Some(self.halted_by_policy().fatal());
        }
        end.fatal = self.cause.take();
        end
    }

    pub(crate) fn count_failure(&mut self) {
        Counters::add(&self.counters().failed, 1);
        self.failures += 1;
        match self.spec.policy.halt {
            Halt::Never => {}
            Halt::Soon(most) => {
                if self.failures >= most.max(1) && !self.halting {
                    self.halting = true;
                    self.gate.stop();
                }
            }
            Halt::Now(most) => {
                if self.failures >= most.max(1) && self.stopping.is_none() {
                    let error = self.halted_by_policy();
                    self.fail(error);
                }
            }
        }
    }

    pub(crate) fn halted_by_policy(&self) -> Error {
        Error::new(
            ErrorKind::Halted,
            format!("the feed was halted: {} items have failed", self.failures),
        )
        .running(&self.command)
    }

    /// Every session must end, now: the outlet was dropped, or the feed has failed.
    pub(crate) fn stop_sessions(&mut self) {
        for slot in 0..self.slots.len() {
            let Slot::Live(session) = &mut self.slots[slot] else { continue };
            if !matches!(session.phase, Phase::Open | Phase::Ending) {
                continue;
            }
            session.why = Some(Why::Stopped);
            tell!(debug, session, "closing", why = Why::Stopped.word());
            if session.is_torn() && !mutated!(TornRequest) {
                // A shell would run the half of a line that it has when its stdin ends: it must be
                // dead before that.
                tell!(debug, session, "signalled", signal = Signal::Kill.name());
                self.actions.push_back(Operation::Signal { slot, signal: Signal::Kill });
                let given_up = self.now.saturating_add(self.spec.policy.kill_grace());
                session.phase = Phase::Killing { step: usize::MAX, next: given_up };
                for (channel, input) in session.inputs.iter_mut().enumerate() {
                    if !input.closed {
                        input.shut(channel);
                        self.actions.push_back(Operation::CloseInput { slot, channel });
                    }
                }
                self.arm(slot, given_up);
                continue;
            }
            for (channel, input) in session.inputs.iter_mut().enumerate() {
                if !input.closed {
                    input.shut(channel);
                    self.actions.push_back(Operation::CloseInput { slot, channel });
                }
            }
            session.stdin_closed = true;
            let grace = self.now.saturating_add(DROP_GRACE);
            session.phase = Phase::Killing { step: 0, next: grace };
            self.arm(slot, grace);
        }
    }
}
