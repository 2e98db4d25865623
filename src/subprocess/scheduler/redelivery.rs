//! What becomes of packets whose session has ended without answering them.
//!
//! # Invariants
//! 1. Each obligation of a session is met once: its packet is in the backlog again, or emitted.
//! 2. A packet has as many attempts as it was charged with; what became of it ends the count.

use std::collections::HashMap;

use crate::error::Error;
use crate::record::{PacketId, Run};
use crate::stats::Counters;
use crate::subprocess::scheduler::Scheduler;
use crate::subprocess::session::{Care, Ended, Loss, Obligation, Session};

/// How often packets have been charged.
#[derive(Debug, Default)]
pub(super) struct Attempts(HashMap<u64, u32>);

impl Attempts {
    /// Whether nothing has been charged, as a rule.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// It is known what became of these packets.
    pub(super) fn forget(&mut self, first: PacketId, count: u64) {
        if self.0.is_empty() {
            return;
        }
        for i in 0..count {
            self.0.remove(&first.plus(i).0);
        }
    }

    /// How often a packet has been charged.
    pub(super) fn of(&self, packet: PacketId) -> u32 {
        self.0.get(&packet.0).copied().unwrap_or(0)
    }

    /// A packet is charged. How often it has been by now.
    fn charge(&mut self, packet: PacketId) -> u32 {
        let attempts = self.0.entry(packet.0).or_default();
        *attempts += 1;
        *attempts
    }
}

/// How often the connection was lost under a packet that was next to be answered.
#[derive(Debug, Default)]
pub(super) struct Losses(Attempts);

/// A packet may be lost so often with the connection of its session.
const MOST_LOSSES: u32 = 3;

impl Losses {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn forget(&mut self, first: PacketId, count: u64) {
        self.0.forget(first, count);
    }
}

impl Scheduler {
    /// A session is over: what is said of it, and what becomes of what it has left.
    pub(super) fn settle(&mut self, slot: usize, mut ended: Ended) {
        if self.plan.drain {
            return self.settle_drained(slot, ended);
        }
        match ended.remark(&self.context()) {
            Some(error) if self.plan.spec.policy.require_clean_exit => return self.fail(error),
            Some(remark) => self.shutdown.remark(remark),
            None => {}
        }
        if let Some(error) = ended.miscounted(&self.context()) {
            return self.fail_with(&mut ended, error);
        }
        if let Some(error) = self.count_end(slot, &ended) {
            return self.fail_with(&mut ended, error);
        }
        let obligations = ended.obligations(&self.context());
        self.meet(slot, obligations);
    }

    /// What the end of a session says about its host, or about its tool.
    fn count_end(&mut self, slot: usize, ended: &Ended) -> Option<Error> {
        if ended.loss() == Some(Loss::Unreached) {
            return self.host_has_failed(slot, ended);
        }
        self.all_hosts_are_out().or_else(|| self.count_progress(slot, ended))
    }

    fn settle_drained(&mut self, slot: usize, mut ended: Ended) {
        let (end, remark) = ended.report(&self.context());
        self.shutdown.session_ended(end);
        if let Some(remark) = remark {
            self.shutdown.remark(remark);
        }
        let obligations = ended.drained(&self.context());
        self.meet(slot, obligations);
        if let Some(error) = self.count_end(slot, &ended) {
            self.fail(error);
        }
    }

    /// A session that came to nothing delays the next one in its slot, however cleanly it ended. Too many
    /// in a row are an error, unless a session that has answered is alive.
    fn count_progress(&mut self, slot: usize, ended: &Ended) -> Option<Error> {
        let blank = ended.is_blank() && !self.plan.drain && !self.starts.has_ever_answered();
        // One that was asked nothing and closed has done what it was there for.
        let counts = ended.was_of_use() && (blank || ended.has_read_nothing());
        if !counts {
            return None;
        }
        let streak = self.starts.came_to_nothing(slot);
        let answers = self.sessions().any(Session::has_answered);
        if streak >= self.plan.spec.policy.give_up && !answers {
            return Some(ended.give_up(streak, &self.context()));
        }
        let wait = self.back_off(slot);
        ended.tell_backed_off(wait);
        let here = self.starts.streak_of(slot);
        // One that leaves cleanly, once, may have had enough.
        if here > 1 || ended.ended_badly() {
            let what = ended.describe_blank();
            let times =
                if here == 1 { "once".to_owned() } else { format!("{here} times in a row") };
            self.plan.stats.hint_about(
                slot,
                format!(
                    "worker {slot} of `{}` has come to nothing {times}: {what}; its packets go to the others, and it is started ever later",
                    self.command
                ),
            );
        }
        None
    }

    /// The feed fails with a session; what it owes is unanswered like everything else.
    fn fail_with(&mut self, ended: &mut Ended, error: Error) {
        for run in ended.take_unanswered() {
            self.backlog.put(run, Care::Free);
        }
        self.fail(error);
    }

    fn meet(&mut self, slot: usize, obligations: Vec<Obligation>) {
        for obligation in obligations {
            match obligation {
                Obligation::Again(run, care) => self.send_again(run, care),
                Obligation::Charged(run, error) => {
                    let attempts = self.attempts.charge(run.first());
                    let policy = &self.plan.spec.policy;
                    if attempts > policy.retries || policy.at_most_once {
                        self.emit_failure(run, error.tried(attempts));
                    } else {
                        Counters::add(&self.counters().retries, 1);
                        self.send_again(run, Care::Alone);
                    }
                }
                Obligation::Lost(run, error) => self.emit_failure(run, error),
                Obligation::BrokenOff(run, error) => {
                    let losses = self.losses.0.charge(run.first());
                    match losses {
                        MOST_LOSSES.. => self.emit_failure(
                            run,
                            error.hint(
                                "it was sent three times, and the connection was lost each time",
                            ),
                        ),
                        // If it is the cause, it is to take no other packet with it.
                        2 => self.send_again(run, Care::Alone),
                        _ => self.send_again(run, Care::Free),
                    }
                }
                Obligation::TakenBack(run) => {
                    self.take_back(slot, &run);
                    self.send_again(run, Care::Free);
                }
                Obligation::HalfRead(run, error) => {
                    self.take_back(slot, &run);
                    self.emit_failure(run, error);
                }
            }
        }
    }

    /// Packets that counted as handed over do not any more.
    fn take_back(&mut self, slot: usize, run: &Run) {
        let count = run.len() as u64;
        self.resolved -= count;
        self.shutdown.taken_back(slot, count);
        self.plan.gate.hold(run.weight());
        Counters::take(&self.counters().replies, count);
    }

    fn send_again(&mut self, run: Run, care: Care) {
        Counters::add(&self.counters().redeliveries, run.len() as u64);
        self.enqueue(run, care);
    }
}
