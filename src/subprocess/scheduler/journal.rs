//! What the job log is told: one row for each packet of which it is known what became.
//!
//! A packet's time begins when its worker comes to it: when it was given to a worker that owed nothing, or when the
//! reply before it was read. So the times of a worker's packets do not overlap, and their sum is no more than the time
//! for which it was busy.
//!
//! # Invariants
//! 1. A packet that a worker has answered, or that has failed by itself, has one row. One that a fatal error has left
//!    unanswered has none, nor has one that passed by.

use std::os::unix::process::ExitStatusExt;

use crate::error::Error;
use crate::record::{PacketId, Run};
use crate::subprocess::protocol::Now;
use crate::subprocess::scheduler::Scheduler;
use crate::subprocess::session::Session;
use crate::watch::{JobLog, Row};
use crate::window::packet::{Outcome, Replies, Span};

/// How long a drop waits for what is left of the log to be written.
const LEAVE_AFTER: Now = Now::from_millis(100);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Journal {
    log: JobLog,
    slots: Vec<At>,
    /// It was closed then.
    closed: Option<Now>,
}

/// How far the session in a slot was after the last event.
#[derive(Clone, Copy, Debug, Default)]
struct At {
    /// Since when the packet that is next has been that.
    since: Now,
    answered: u64,
    /// It has been given something that is not answered.
    has_some: bool,
}

impl Journal {
    pub(super) fn new(log: JobLog, slots: usize) -> Self {
        Self { log, slots: vec![At::default(); slots], closed: None }
    }

    /// Something has happened at a session, and what came of it is written down.
    pub(super) fn turned(&mut self, slot: usize, session: &Session, now: Now) {
        let (answered, left) = session.answered_and_left();
        let at = &mut self.slots[slot];
        if answered != at.answered || !at.has_some {
            at.since = now;
        }
        (at.answered, at.has_some) = (answered, left > 0);
    }

    pub(super) fn is_full(&self) -> bool {
        self.log.is_full()
    }

    fn answered(
        &mut self,
        slot: usize,
        (replies, beside): (&Replies, usize),
        run: &Run,
        now: Now,
        attempts: impl Fn(PacketId) -> u32,
    ) {
        let mut start = self.slots[slot].since;
        let received = replies.lengths(run.len(), beside);
        for (i, received) in received.into_iter().enumerate() {
            let packet = run.first().plus(i as u64);
            self.log.put(&Row {
                packet: packet.0,
                host: replies.label.host.as_deref(),
                start,
                lasted: now.saturating_sub(start),
                sent: run.sent(i),
                received,
                exit: 0,
                signal: 0,
                worker: Some(slot),
                attempts: attempts(packet) + 1,
            });
            // What was read together came together, as far as anybody can tell.
            start = now;
        }
        self.slots[slot].since = start;
    }

    fn failed(&mut self, packet: PacketId, sent: usize, error: &Error, now: Now) {
        let status = error.exit_status();
        let signal = status.and_then(|status| status.signal()).unwrap_or(0);
        // As a shell has it; what failed without any status is told from what went well.
        let exit = match status.and_then(|status| status.code()) {
            Some(code) if code != 0 => code,
            _ if signal != 0 => 0,
            _ => -1,
        };
        let worker = error.worker();
        let start = worker.map_or(now, |worker| self.slots[worker].since);
        self.log.put(&Row {
            packet: packet.0,
            host: error.host(),
            start,
            lasted: now.saturating_sub(start),
            sent,
            received: 0,
            exit,
            signal,
            worker,
            attempts: error.attempts().max(1),
        });
    }
}

impl Scheduler {
    /// Whether nothing is to be read for now, because of the log.
    pub(super) fn is_log_full(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.is_full())
    }

    /// Writes down the replies in a span of the session in a slot, and the packets that they answer.
    pub(super) fn log_replies(&mut self, slot: usize, span: &Span, run: Option<&Run>) {
        let Some(journal) = &mut self.journal else { return };
        let Outcome::Replies(replies) = &span.outcome else { return };
        let Some(run) = replies.requests.as_ref().or(run) else { return };
        let attempts = &self.attempts;
        // What came on stderr is kept behind its parts.
        let beside = usize::from(self.plan.spec.policy.keep_stderr);
        let replies = (replies, beside);
        journal.answered(slot, replies, run, self.now.real, |packet| attempts.of(packet));
    }

    /// Writes down a packet that has failed by itself.
    pub(super) fn log_failure(&mut self, packet: PacketId, sent: usize, error: &Error) {
        if let Some(journal) = &mut self.journal {
            journal.failed(packet, sent, error, self.now.real);
        }
    }

    /// A turn of the event loop ends: what was written down is handed on, and a failure is told once.
    pub(crate) fn pass_log_on(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        journal.log.pass_on();
        if let Some(failure) = journal.log.take_failure() {
            self.plan.stats.hint(failure.to_string());
            #[cfg(feature = "tracing")]
            tracing::warn!(
                target: "subfeed",
                parent: &self.span,
                state = "job log failed",
                error = %failure
            );
            self.shutdown.remark_first(failure);
        }
    }

    /// Everything else has ended. Whether the log has, or is left to its thread because nobody waits for the feed.
    pub(crate) fn has_log_ended(&mut self) -> bool {
        let now = self.now.real;
        let dropped = self.shutdown.is_dropped();
        let Some(journal) = &mut self.journal else { return true };
        let closed = *journal.closed.get_or_insert_with(|| {
            journal.log.close();
            now
        });
        let until = closed.saturating_add(LEAVE_AFTER);
        let ended = journal.log.has_ended() || (dropped && now >= until);
        if dropped && !ended {
            self.timers.arm_feed_really(until);
        }
        if ended {
            self.pass_log_on();
        }
        ended
    }

    /// What time it is, for the log.
    pub(super) fn tell_log_the_time(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.log.time_is(self.now.real);
        }
    }
}
