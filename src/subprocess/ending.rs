//! How sessions end: the exit, the last bytes, the verdict on what was said and left unsaid.
//!
//! # Invariants
//! 1. The outputs of a session that has exited are read to their end, or until a grace is over; then it is
//!    finished, once.
//! 2. Replies that waited for the end of their session are delivered only if their number is what was owed.
//! 3. A session that was asked to end, ended well and answered too little is a fatal miscount: nobody knows
//!    which of its replies were shifted.
//! 4. Sessions that end without one reply are counted; what breaks the streak is a reply.

use std::process::ExitStatus;

use crate::error::{Error, ErrorKind};
use crate::stats::Counters;
use crate::subprocess::protocol::{Now, Operation};
use crate::subprocess::scheduler::{Care, Scheduler, Slot};
use crate::subprocess::session::{Phase, Session, Why};
use crate::template::policy::DRAIN_GRACE;

/// Remarks beyond these say nothing new.
pub(crate) const MOST_REMARKS: usize = 64;

impl Scheduler {
    /// The process has exited and is not reaped yet: what it wrote is still to be read.
    pub(crate) fn exited(&mut self, slot: usize, now: Now) {
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        if matches!(session.phase, Phase::Exited { .. } | Phase::Finished) {
            return;
        }
        tell!(debug, session, "exited");
        session.phase = Phase::Exited { drained_by: now.saturating_add(DRAIN_GRACE) };
        self.watch(slot, now);
        self.check_drained(slot);
    }

    /// After an exit the outputs end by themselves, unless somebody else holds them open; then the
    /// grace decides.
    pub(crate) fn check_drained(&mut self, slot: usize) {
        if let Slot::Live(session) = &self.slots[slot]
            && matches!(session.phase, Phase::Exited { .. })
            && session.outputs_ended()
        {
            self.finish(slot);
        }
    }

    pub(crate) fn finish(&mut self, slot: usize) {
        if let Slot::Live(session) = &mut self.slots[slot] {
            session.phase = Phase::Finished;
            self.actions.push_back(Operation::Finish { slot });
        }
    }

    /// Every signal of the kill sequence was sent, and it has not ended: the feed goes on without it.
    pub(crate) fn abandon(&mut self, slot: usize) {
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        session.phase = Phase::Finished;
        session.abandoned = true;
        tell!(warn, session, "abandoned");
        self.actions.push_back(Operation::Abandon { slot });
        self.stats.hint(format!(
            "a worker of `{}` did not end although it was killed, and was left behind",
            self.command
        ));
    }

    /// The session is over and reaped; `status` is unknown if somebody else reaped it, or if nobody could.
    pub(crate) fn ended(&mut self, slot: usize, status: Option<ExitStatus>, now: Now) {
        if self.stopping.is_none() {
            self.settle_held(slot, status);
        }
        let vacant = Slot::Vacant { not_before: now };
        let Slot::Live(session) = std::mem::replace(&mut self.slots[slot], vacant) else { return };
        let mut session = session;
        let got = session.answered + session.held_count;
        tell!(
            debug,
            session,
            "ended",
            status = status.map_or_else(|| "unknown".to_owned(), |status| status.to_string()),
            why = session.why.map_or("its own will", Why::word),
            answered = got,
            owed = session.owed()
        );
        self.gate.release(session.take_held());
        let asked = session.why.is_some_and(Why::is_asked);
        if !asked && session.why != Some(Why::Stopped) {
            Counters::add(&self.stats.counters.deaths, 1);
        }
        if self.stopping.is_some() {
            return;
        }
        if self.drain {
            self.settle_ended(*session, status, now);
            return self.close_if_done(now);
        }
        let owed = session.given - session.answered;
        if owed == 0 {
            self.judge_farewell(&session, status);
        } else if asked
            // A mark says which packet it answers, so that a missing one shifts nothing.
            && self.spec.replies.as_sentinel().is_none()
            && !session.abandoned
            && status.is_none_or(|status| status.success())
        {
            return self.miscounted(*session, got, status);
        }
        let blank = !asked && session.answered == 0;
        let counts = blank && (session.given != 1 || !self.ever_answered);
        if counts {
            self.streak += 1;
            if self.streak >= self.spec.policy.give_up {
                return self.give_up(*session, status);
            }
            self.back_off(&session, now);
        }
        if owed > 0 {
            self.redistribute(*session, status);
        }
        self.close_if_done(now);
    }

    /// Replies that waited for the end of their session are delivered if their number is right.
    fn settle_held(&mut self, slot: usize, status: Option<ExitStatus>) {
        let until_eof = self.spec.is_until_eof();
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        if session.held.is_empty() || session.answered + session.held_count != session.given {
            return;
        }
        // What a process wrote before it failed looks just like a whole output.
        let failed =
            session.abandoned || status.is_some_and(|status| !self.spec.accepts_status(status));
        if until_eof && !session.lingered && failed {
            return;
        }
        session.held_count = 0;
        for held in std::mem::take(&mut session.held) {
            self.deliver(slot, held.buffer, held.at, held.cut, held.count);
        }
    }

    /// A session that was asked to end, and ended well, has answered too little: which of its requests
    /// each reply belongs to cannot be known.
    fn miscounted(&mut self, mut session: Session, got: u64, status: Option<ExitStatus>) {
        let owed = session.given;
        let mut message = format!(
            "the worker was sent {owed} request{} and answered {got} before it ended",
            if owed == 1 { "" } else { "s" }
        );
        let before = message.len();
        self.push_half(&mut message, &session);
        let hint = if got == 0 && message.len() > before {
            "does the reply framing fit what the tool prints?"
        } else {
            "a tool that skips or merges records cannot be counted: use a sentinel framing, or check"
        };
        let error = Error::new(ErrorKind::ReplyCount { owed, got }, message).hint(hint);
        let error = self.describe_end(&session, status, error);
        // What it owes is unanswered like everything else.
        for run in std::mem::take(&mut session.in_flight) {
            self.enqueue(run, Care::Free);
        }
        self.fail(error);
    }

    pub(crate) fn give_up(&mut self, mut session: Session, status: Option<ExitStatus>) {
        tell!(warn, session, "gave up", sessions = self.streak);
        let mut message = format!("{} workers in a row ended without one reply", self.streak);
        let mut kind = ErrorKind::Died;
        if session.in_banner
            && session.why == Some(Why::Timeout)
            && let Some(limit) = self.spec.words.banner.ready_limit()
        {
            kind = ErrorKind::Timeout;
            message.push_str(&format!("; the last had not said within {limit:?} that it is ready"));
        }
        self.push_half(&mut message, &session);
        let error = self.describe_end(&session, status, Error::new(kind, message));
        for run in std::mem::take(&mut session.in_flight) {
            self.enqueue(run, Care::Free);
        }
        self.fail(error);
    }

    /// A bad exit after the last answer belongs to no packet; `finish` reports it.
    fn judge_farewell(&mut self, session: &Session, status: Option<ExitStatus>) {
        let bad = session.abandoned || status.is_some_and(|status| !status.success());
        if bad && session.why.is_some_and(Why::is_asked) && self.end.remarks.len() < MOST_REMARKS {
            let error = Error::new(ErrorKind::Died, "a worker ended badly after its last answer");
            let error = self.describe_end(session, status, error);
            self.end.remarks.push(error);
        }
    }
}
