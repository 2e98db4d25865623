//! Who is to blame for a death, and who gets what is unanswered.
//!
//! # Invariants
//! 1. Only a packet that was alone in its session is charged, or the one that a prompt worker was at when its
//!    time was over.
//! 2. Every packet that a session owed is emitted once or pending once afterwards.
//! 3. Suspects are halved with every session, so that a culprit is found in a number of sessions that is the
//!    logarithm of how many there were, also where the worker buffers.

use std::collections::VecDeque;
use std::process::ExitStatus;

use crate::error::{Error, ErrorKind};
use crate::record::Run;
use crate::stats::Counters;
use crate::subprocess::answers::pop_front;
use crate::subprocess::scheduler::{Care, Scheduler};
use crate::subprocess::session::{Session, Why};

impl Scheduler {
    /// Who is to blame, and who gets what is unanswered.
    pub(crate) fn redistribute(&mut self, mut session: Session, status: Option<ExitStatus>) {
        let alone = session.given == 1 || mutated!(BlamedInnocent);
        let untouched = session.untouched();
        let mut in_flight = std::mem::take(&mut session.in_flight);
        if session.why == Some(Why::Distrusted) {
            // The packet concerned has its error already.
            return self.resend(in_flight, untouched, &session, status);
        }
        if alone || (session.why == Some(Why::Timeout) && session.prompt) {
            let Some(head) = pop_front(&mut in_flight) else { return };
            let error = self.describe_end(&session, status, self.unanswered(&session));
            self.charge(head, error);
            return self.resend(in_flight, untouched, &session, status);
        }
        let left_well = status.is_some_and(|status| status.success()) && session.why.is_none();
        let had_enough =
            session.answered > 0 && (left_well || session.why == Some(Why::ClosedInput));
        if had_enough || self.spec.policy.at_most_once {
            return self.resend(in_flight, untouched, &session, status);
        }
        self.isolate(in_flight, untouched);
    }

    /// Nobody can be charged. The head is sent again alone; the rest in two halves, each by itself, so
    /// that whoever did it is found after a few sessions even if the tool buffers. What the worker cannot
    /// have read is free of suspicion.
    fn isolate(&mut self, mut in_flight: VecDeque<Run>, untouched: u64) {
        let Some(head) = pop_front(&mut in_flight) else { return };
        if mutated!(SentTwice) {
            self.send_again(head.clone(), Care::Free);
        }
        self.send_again(head, Care::Alone);
        let rest: u64 = in_flight.iter().map(|run| run.len() as u64).sum();
        let suspects = rest - untouched.min(rest);
        let first_half = suspects.div_ceil(2);
        let mut at = 0;
        for mut run in in_flight {
            loop {
                let (care, border) = match at {
                    at if at < first_half => (Care::Together, first_half),
                    at if at < suspects => (Care::Together, suspects),
                    _ => (Care::Free, u64::MAX),
                };
                let most = usize::try_from(border - at).unwrap_or(usize::MAX);
                if run.len() <= most {
                    at += run.len() as u64;
                    self.send_again(run, care);
                    break;
                }
                at += most as u64;
                let front = run.split_front(most);
                self.send_again(front, care);
            }
        }
    }

    pub(crate) fn send_again(&mut self, run: Run, care: Care) {
        if mutated!(SkippedRedelivery) {
            return;
        }
        Counters::add(&self.counters().redeliveries, run.len() as u64);
        self.enqueue(run, care);
    }

    /// Sends unanswered packets again, or fails those that may have been read under `at_most_once`.
    pub(crate) fn resend(
        &mut self,
        runs: VecDeque<Run>,
        untouched: u64,
        session: &Session,
        status: Option<ExitStatus>,
    ) {
        let all: u64 = runs.iter().map(|run| run.len() as u64).sum();
        let mut touched =
            if self.spec.policy.at_most_once { all.saturating_sub(untouched) } else { 0 };
        for run in runs {
            let mut rest = Some(run);
            while touched > 0
                && let Some(mut run) = rest.take()
            {
                touched -= 1;
                let head = if run.len() > 1 {
                    let head = run.split_front(1);
                    rest = Some(run);
                    head
                } else {
                    run
                };
                let error = Error::new(
                    ErrorKind::NotRedelivered,
                    "the worker ended, and may have read this packet",
                )
                .hint("at_most_once keeps it from being sent again");
                let error = self.describe_end(session, status, error);
                self.emit_failure(head, error);
            }
            if let Some(run) = rest {
                self.send_again(run, Care::Free);
            }
        }
    }

    /// A packet was alone in a session that failed.
    pub(crate) fn charge(&mut self, run: Run, error: Error) {
        let packet = run.first().0;
        let attempts = self.attempts.get(&packet).copied().unwrap_or(0) + 1;
        if attempts > self.spec.policy.retries || self.spec.policy.at_most_once {
            return self.emit_failure(run, error.tried(attempts));
        }
        self.attempts.insert(packet, attempts);
        Counters::add(&self.counters().retries, 1);
        self.send_again(run, Care::Alone);
    }
}
