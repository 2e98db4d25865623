//! The end of the feed: failures that end it, the drop, and when it is over.
//!
//! # Invariants
//! 1. `stopping` only ever goes from nothing to `Fatal` or `Dropped`, and from `Fatal` to `Dropped`.
//! 2. The cause of a fatal end is carried by exactly one packet, the earliest that is unanswered, or, if
//!    there is none, by the end itself.
//! 3. Every packet that is unanswered then becomes a halted span, wherever it was; after a drop nobody looks.
//! 4. A feed is over only when no session is left.

use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::record::Run;
use crate::stats::Counters;
use crate::subprocess::scheduler::{Scheduler, Slot};
use crate::subprocess::session::Session;
use crate::template::policy::Halt;
use crate::window::packet::{End, Outcome, SessionEnd, Span};
use crate::window::unwind::Payload;

/// Remarks beyond these say nothing new.
const MOST_REMARKS: usize = 64;

/// Why the feed ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopping {
    /// The outlet was dropped: nobody looks at spans any more.
    Dropped,
    /// A fatal error: what is unanswered becomes `Halted`.
    Fatal,
}

/// What is known of the end.
#[derive(Debug)]
pub(super) struct Shutdown {
    stopping: Option<Stopping>,
    /// Nothing more is pulled, because too many items have failed.
    halting: bool,
    failures: u64,
    /// A fatal error, until a packet carries it.
    cause: Option<Error>,
    /// What a reader has failed with.
    source: Option<Error>,
    end: End,
}

impl Shutdown {
    pub(super) fn new(slots: usize) -> Self {
        let end = End { accepted: vec![0; slots], ..End::default() };
        Self { stopping: None, halting: false, failures: 0, cause: None, source: None, end }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    pub(super) fn is_dropped(&self) -> bool {
        self.stopping == Some(Stopping::Dropped)
    }

    /// What belongs to no packet.
    pub(super) fn remark(&mut self, remark: Error) {
        if self.end.remarks.len() < MOST_REMARKS {
            self.end.remarks.push(remark);
        }
    }

    /// The same of what must not be lost among many others: it comes first.
    pub(super) fn remark_first(&mut self, remark: Error) {
        self.end.remarks.truncate(MOST_REMARKS - 1);
        self.end.remarks.insert(0, remark);
    }

    /// A worker of a drained feed was handed so many packets.
    pub(super) fn accepted(&mut self, slot: usize, count: u64) {
        self.end.accepted[slot] += count;
    }

    /// So many of them are taken back from it.
    pub(super) fn taken_back(&mut self, slot: usize, count: u64) {
        self.end.accepted[slot] -= count;
    }

    pub(super) fn session_ended(&mut self, end: SessionEnd) {
        self.end.exits.push(end);
    }

    /// The source's end, and what it ended with if that was not well.
    pub(super) fn source_ended(&mut self, panic: Option<Payload>, error: Option<Error>) {
        self.end.panic = panic;
        self.source = error;
    }

    pub(super) fn take_end(&mut self, command: &Arc<str>) -> End {
        let mut end = std::mem::take(&mut self.end);
        if self.halting && self.stopping.is_none() {
            self.cause = Some(self.halted_by_policy(command).fatal());
        }
        // What was pulled comes first, and so does what became of it. A feed ends of one thing.
        let ended = self.cause.is_some() || self.stopping.is_some();
        end.fatal = self.cause.take();
        match self.source.take() {
            Some(error) if ended => end.remarks.push(error),
            Some(error) => end.fatal = Some(error.fatal()),
            None => {}
        }
        end
    }

    fn halted_by_policy(&self, command: &Arc<str>) -> Error {
        let message = match self.failures {
            1 => "the feed was halted: one item has failed".to_owned(),
            failures => format!("the feed was halted: {failures} items have failed"),
        };
        Error::new(ErrorKind::Halted, message).running(command)
    }
}

impl Scheduler {
    /// A fatal error: the feed ends, and says why once.
    pub(crate) fn fail(&mut self, error: Error) {
        if self.shutdown.is_stopping() {
            return;
        }
        self.shutdown.stopping = Some(Stopping::Fatal);
        self.shutdown.cause = Some(error.fatal());
        self.plan.gate.stop();
        let last = self.last.give_up();
        let mut unanswered: Vec<Run> = self.backlog.take_all().collect();
        for slot in 0..self.slots.len() {
            self.at(slot, Session::stop);
            if let Slot::Live { session, .. } = &mut self.slots[slot] {
                unanswered.extend(session.take_unanswered());
            }
        }
        let origin = self.plan.origin;
        unanswered.sort_by_key(|run| run.first().since(origin));
        for run in unanswered {
            self.halt_run(run);
        }
        if let Some(last) = last {
            // It counts as resolved already.
            self.plan.gate.release(last.weight);
            let packet = last.first;
            let outcome = match self.shutdown.cause.take() {
                Some(cause) => Outcome::Failed(cause.at(packet.0)),
                None => Outcome::Halted,
            };
            self.effects.spans.push(Span::one(packet, outcome));
        }
    }

    /// The packets of a run end with the feed; the first of all carries the cause.
    pub(super) fn halt_run(&mut self, mut run: Run) {
        Counters::add(&self.counters().failed, run.len() as u64);
        if let Some(cause) = self.shutdown.cause.take() {
            let head = if run.len() > 1 { run.split_front(1) } else { run.clone() };
            let packet = head.first();
            let error = cause.at(packet.0).asked(head.request());
            let last = head.to == run.to;
            self.plan.gate.release(head.weight());
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
        if self.shutdown.is_dropped() {
            return;
        }
        let first = !self.shutdown.is_stopping();
        self.shutdown.stopping = Some(Stopping::Dropped);
        self.plan.gate.stop();
        drop(self.backlog.take_all());
        if let Some(last) = self.last.give_up() {
            self.plan.gate.release(last.weight);
        }
        if first {
            for slot in 0..self.slots.len() {
                self.at(slot, Session::stop);
            }
        }
    }

    /// Nothing more will come: every session that is not needed for what waits may end.
    pub(crate) fn close_if_done(&mut self) {
        if !self.nothing_to_come() || self.shutdown.is_stopping() {
            return;
        }
        for slot in 0..self.slots.len() {
            self.at(slot, Session::finish);
        }
    }

    /// Whether everything is over: nothing unanswered, nothing alive.
    pub(crate) fn is_finished(&self) -> bool {
        let settled = match self.shutdown.stopping {
            Some(Stopping::Dropped) => true,
            Some(Stopping::Fatal) => self.pulled.is_some(),
            None => self.all_resolved(),
        };
        settled
            && !self.last.is_held()
            && self.slots.iter().all(|slot| matches!(slot, Slot::Vacant { .. }))
    }

    /// An item has failed.
    pub(super) fn count_failure(&mut self) {
        Counters::add(&self.counters().failed, 1);
        self.shutdown.failures += 1;
        match self.plan.spec.policy.halt {
            Halt::Never => {}
            Halt::Soon(most) => {
                if self.shutdown.failures >= most.max(1) && !self.shutdown.halting {
                    self.shutdown.halting = true;
                    self.plan.gate.stop();
                }
            }
            Halt::Now(most) => {
                if self.shutdown.failures >= most.max(1) && !self.shutdown.is_stopping() {
                    let error = self.shutdown.halted_by_policy(&self.command);
                    self.fail(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_be_lost_comes_before_any_number_of_other_remarks() {
        let remark = |message: &'static str| Error::new(ErrorKind::Died, message);
        let mut shutdown = Shutdown::new(1);
        for _ in 0..2 * MOST_REMARKS {
            shutdown.remark(remark("a bad exit"));
        }
        shutdown.remark_first(remark("the log has failed"));
        shutdown.remark(remark("a bad exit"));
        assert_eq!(shutdown.end.remarks.len(), MOST_REMARKS);
        assert!(shutdown.end.remarks[0].to_string().contains("the log has failed"));
    }
}
