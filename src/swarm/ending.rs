//! How lives end: the exit, the last bytes, the verdict on what was said and left unsaid.
//!
//! # Invariants
//! 1. The outputs of a life that has exited are read to their end, or until a grace is over; then it is
//!    finished, once.
//! 2. Replies that waited for the end of their life are delivered only if their number is what was owed.
//! 3. A life that was asked to end, ended well and answered too little is a fatal miscount: nobody knows
//!    which of its replies were shifted.
//! 4. Lives that end without one reply are counted; what breaks the streak is a reply.

use std::process::ExitStatus;

use crate::error::{Error, ErrorKind};
use crate::stats::Counters;
use crate::swarm::core::{Action, Care, Core, Slot};
use crate::swarm::life::{Life, Now, Phase, Why};
use crate::template::policy::DRAIN_GRACE;

/// Remarks beyond these say nothing new.
pub(crate) const MOST_REMARKS: usize = 64;

impl Core {
    /// The process has exited and is not reaped yet: what it wrote is still to be read.
    pub(crate) fn exited(&mut self, slot: usize, now: Now) {
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        if matches!(life.phase, Phase::Exited { .. } | Phase::Finished) {
            return;
        }
        tell!(debug, life, "exited");
        life.phase = Phase::Exited { drained_by: now.saturating_add(DRAIN_GRACE) };
        self.watch(slot, now);
        self.check_drained(slot);
    }

    /// After an exit the outputs end by themselves, unless somebody else holds them open; then the
    /// grace decides.
    pub(crate) fn check_drained(&mut self, slot: usize) {
        if let Slot::Live(life) = &self.slots[slot]
            && matches!(life.phase, Phase::Exited { .. })
            && life.outputs_ended()
        {
            self.finish(slot);
        }
    }

    pub(crate) fn finish(&mut self, slot: usize) {
        if let Slot::Live(life) = &mut self.slots[slot] {
            life.phase = Phase::Finished;
            self.actions.push_back(Action::Finish { slot });
        }
    }

    /// Every signal of the ladder was sent, and it has not ended: the feed goes on without it.
    pub(crate) fn abandon(&mut self, slot: usize) {
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        life.phase = Phase::Finished;
        life.abandoned = true;
        tell!(warn, life, "abandoned");
        self.actions.push_back(Action::Abandon { slot });
        self.stats.hint(format!(
            "a worker of `{}` did not end although it was killed, and was left behind",
            self.command
        ));
    }

    /// The life is over and reaped; `status` is unknown if somebody else reaped it, or if nobody could.
    pub(crate) fn ended(&mut self, slot: usize, status: Option<ExitStatus>, now: Now) {
        if self.stopping.is_none() {
            self.settle_held(slot, status);
        }
        let vacant = Slot::Vacant { not_before: now };
        let Slot::Live(life) = std::mem::replace(&mut self.slots[slot], vacant) else { return };
        let mut life = life;
        let got = life.answered + life.held_count;
        tell!(
            debug,
            life,
            "ended",
            status = status.map_or_else(|| "unknown".to_owned(), |status| status.to_string()),
            why = life.why.map_or("its own will", Why::word),
            answered = got,
            owed = life.owed()
        );
        self.gate.release(life.take_held());
        let asked = life.why.is_some_and(Why::is_asked);
        if !asked && life.why != Some(Why::Stopped) {
            Counters::add(&self.stats.counters.deaths, 1);
        }
        if self.stopping.is_some() {
            return;
        }
        if self.drain {
            self.settle_ended(*life, status, now);
            return self.close_if_done(now);
        }
        let owed = life.given - life.answered;
        if owed == 0 {
            self.judge_farewell(&life, status);
        } else if asked
            // A mark says which packet it answers, so that a missing one shifts nothing.
            && self.spec.replies.as_sentinel().is_none()
            && !life.abandoned
            && status.is_none_or(|status| status.success())
        {
            return self.miscounted(*life, got, status);
        }
        let blank = !asked && life.answered == 0;
        let counts = blank && (life.given != 1 || !self.ever_answered);
        if counts {
            self.streak += 1;
            if self.streak >= self.spec.policy.give_up {
                return self.give_up(*life, status);
            }
            self.back_off(&life, now);
        }
        if owed > 0 {
            self.redistribute(*life, status);
        }
        self.close_if_done(now);
    }

    /// Replies that waited for the end of their life are delivered if their number is right.
    fn settle_held(&mut self, slot: usize, status: Option<ExitStatus>) {
        let until_eof = self.spec.is_until_eof();
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        if life.held.is_empty() || life.answered + life.held_count != life.given {
            return;
        }
        // What a process wrote before it failed looks just like a whole output.
        let failed = life.abandoned || status.is_some_and(|status| !status.success());
        if until_eof && !life.lingered && failed {
            return;
        }
        life.held_count = 0;
        for held in std::mem::take(&mut life.held) {
            self.deliver(slot, held.buffer, held.at, held.cut, held.count);
        }
    }

    /// A life that was asked to end, and ended well, has answered too little: which of its requests
    /// each reply belongs to cannot be known.
    fn miscounted(&mut self, mut life: Life, got: u64, status: Option<ExitStatus>) {
        let owed = life.given;
        let mut message = format!(
            "the worker was sent {owed} request{} and answered {got} before it ended",
            if owed == 1 { "" } else { "s" }
        );
        let before = message.len();
        self.push_half(&mut message, &life);
        let hint = if got == 0 && message.len() > before {
            "does the reply framing fit what the tool prints?"
        } else {
            "a tool that skips or merges records cannot be counted: use a sentinel framing, or check"
        };
        let error = Error::new(ErrorKind::ReplyCount { owed, got }, message).hint(hint);
        let error = self.describe_end(&life, status, error);
        // What it owes is unanswered like everything else.
        for run in std::mem::take(&mut life.in_flight) {
            self.enqueue(run, Care::Free);
        }
        self.fail(error);
    }

    pub(crate) fn give_up(&mut self, mut life: Life, status: Option<ExitStatus>) {
        tell!(warn, life, "gave up", lives = self.streak);
        let mut message = format!("{} workers in a row ended without one reply", self.streak);
        let mut kind = ErrorKind::Died;
        if life.in_banner
            && life.why == Some(Why::Timeout)
            && let Some(limit) = self.spec.policy.ready_timeout
        {
            kind = ErrorKind::Timeout;
            message.push_str(&format!("; the last had not said within {limit:?} that it is ready"));
        }
        self.push_half(&mut message, &life);
        let error = self.describe_end(&life, status, Error::new(kind, message));
        for run in std::mem::take(&mut life.in_flight) {
            self.enqueue(run, Care::Free);
        }
        self.fail(error);
    }

    /// A bad exit after the last answer belongs to no packet; `finish` reports it.
    fn judge_farewell(&mut self, life: &Life, status: Option<ExitStatus>) {
        let bad = life.abandoned || status.is_some_and(|status| !status.success());
        if bad && life.why.is_some_and(Why::is_asked) && self.end.remarks.len() < MOST_REMARKS {
            let error = Error::new(ErrorKind::Died, "a worker ended badly after its last answer");
            let error = self.describe_end(life, status, error);
            self.end.remarks.push(error);
        }
    }
}
