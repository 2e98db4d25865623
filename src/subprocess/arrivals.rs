//! The input's side of the scheduler: what comes from the intake, and what waits to be given out.
//!
//! # Invariants
//! 1. `accepted` counts every packet that ever came, and nothing else does.
//! 2. `pending` is sorted by packet id, also after a redelivery, so that whoever is free gets the earliest.
//! 3. Once the feed stops nothing is pending any more: what still comes is halted at once.
//! 4. Input is asked for only when nothing is pending, so that what is pulled is what is needed.

use std::sync::Arc;

use crate::record::Run;
use crate::stats::Counters;
use crate::subprocess::protocol::Now;
use crate::subprocess::scheduler::{Care, Job, Scheduler};
use crate::window::intake::Arrival;
use crate::window::packet::Outcome;

impl Scheduler {
    /// Something came from the intake.
    pub(crate) fn arrived(&mut self, arrival: Arrival, now: Now) {
        match arrival {
            Arrival::Batch(batch) => {
                let run = Run::whole(Arc::new(*batch));
                self.accepted += run.len() as u64;
                Counters::add(&self.counters().accepted, run.len() as u64);
                if self.pending.is_empty() && self.resolved + run.len() as u64 == self.accepted {
                    // Nothing was under way: silence is counted from here.
                    self.heard = now;
                    self.arm_idle(now);
                }
                if self.stopping.is_some() {
                    self.halt_run(run);
                } else {
                    self.enqueue(run, Care::Free);
                }
            }
            Arrival::Settled(span) => {
                self.accepted += span.count;
                let failed = matches!(span.outcome, Outcome::Failed(_));
                self.emit(span);
                if failed {
                    self.count_failure();
                }
            }
            Arrival::End { pulled, panic } => {
                self.pulled = Some(pulled);
                self.end.panic = panic;
            }
        }
    }

    pub(crate) fn input_has_ended(&self) -> bool {
        self.pulled.is_some()
    }

    /// Whether input would be of use now: there is little to give and somebody to give it to.
    pub(crate) fn wants_input(&self) -> bool {
        if self.pulled.is_some() {
            return false;
        }
        if self.stopping.is_some() {
            return true;
        }
        self.pending.is_empty()
    }

    pub(crate) fn enqueue(&mut self, run: Run, care: Care) {
        if self.stopping.is_some() {
            // It was on its way from a session that has ended when a failure ended the feed.
            return self.halt_run(run);
        }
        self.pending_count += run.len() as u64;
        self.careful += usize::from(care != Care::Free);
        let at = run.first().since(self.origin);
        let after = |job: &Job| job.run.first().since(self.origin) < at;
        let place = match self.pending.back() {
            None => 0,
            Some(last) if after(last) || mutated!(OutOfOrder) => self.pending.len(),
            Some(_) => self.pending.partition_point(after),
        };
        self.pending.insert(place, Job { run, care });
    }

    /// Whether everything that came has been dealt with, and whatever may still come out of the source
    /// is not wanted.
    pub(crate) fn intake_is_lost(&self) -> bool {
        self.gate.is_stopped() && self.pulled.is_none() && self.resolved == self.accepted
    }

    /// The intake will not be heard of again: there are no more packets than those that came.
    pub(crate) fn give_up_intake(&mut self) {
        self.pulled = Some(self.accepted);
    }

    pub(crate) fn all_resolved(&self) -> bool {
        self.pulled == Some(self.resolved)
    }
}
