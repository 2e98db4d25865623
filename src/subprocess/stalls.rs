//! Stalls: when a quiet worker is looked at, and what the evidence leads to.
//!
//! # Invariants
//! 1. Nobody is judged but on evidence that was taken after its last movement (`suspected == moved`).
//! 2. Without certainty nothing is done to a worker, unless it is to be given nothing more: to be asked
//!    to end costs that one nothing.
//! 3. A look that decides nothing is followed by another, ever later.
//! 4. Whoever may be waiting, and is not recycled, is given ever more, until there is nothing left to give.

use std::time::Duration;

use crate::error::ErrorKind;
use crate::stats::Counters;
use crate::subprocess::protocol::{Now, Operation, Verdict};
use crate::subprocess::scheduler::{Scheduler, Slot};
use crate::subprocess::session::Session;
use crate::template::policy::OnStall;

/// The advice for a tool that buffers.
const WITHHOLDS: &str = "withholds its replies until its buffer is full: use its unbuffered or \
                         line-buffered flag (sed -u, grep --line-buffered, jq --unbuffered, python3 -u, \
                         mawk -W interactive), or Template::line_buffered";

/// How long the input may idle before a tool that answers at the end of its input is asked to.
const AT_EOF_IDLE: Duration = Duration::from_millis(10);

impl Scheduler {
    /// How long nothing must have moved before a stall is looked for. The evidence is the same, however
    /// soon; for a tool that is known to withhold it is worth looking early.
    pub(crate) fn patience(&self) -> Duration {
        let delay = self.spec.policy.stall_delay;
        if self.withholding { delay / 8 } else { delay }
    }

    /// The evidence about a worker that has gone quiet.
    pub(crate) fn probed(&mut self, slot: usize, verdict: Verdict, now: Now) {
        let Slot::Live(session) = &self.slots[slot] else { return };
        if !session.is_open() || session.owed() == 0 {
            return;
        }
        if session.moved != session.suspected {
            // It has answered since it was suspected, and perhaps been given more that it has had no
            // time to read: what was seen says nothing of that.
            return self.watch(slot, now);
        }
        if verdict != Verdict::Busy
            && let Some(why) = self.is_closing(session)
        {
            // It will be given nothing more: asking costs nothing.
            self.close_inputs(slot, why, now);
            return self.watch(slot, now);
        }
        match verdict {
            Verdict::Waiting => match self.spec.policy.on_stall {
                OnStall::Wait => self.widen(slot),
                OnStall::Recycle => {
                    tell!(warn, session, "stalled", owed = session.owed(), hint = WITHHOLDS);
                    self.withholding = true;
                    Counters::add(&self.stats.counters.recycles, 1);
                    self.stats.hint(format!("`{}` {WITHHOLDS}", self.command));
                    self.recycle_session(slot, now);
                }
                OnStall::Fail => {
                    tell!(warn, session, "stalled", owed = session.owed(), hint = WITHHOLDS);
                    let error =
                        self.describe(slot, ErrorKind::Stalled, "the worker withholds its replies");
                    self.fail(error.hint(WITHHOLDS));
                }
            },
            // There is another look later.
            Verdict::Busy => {}
            Verdict::Unclear(why) => {
                self.stats.hint(format!(
                    "`{}` owes replies and is quiet, but it cannot be told whether it waits for us ({why}); \
                     if it buffers its output, use its unbuffered flag or Template::line_buffered",
                    self.command
                ));
                self.widen(slot);
            }
        }
    }

    /// It may wait for us, and nothing is done about that: at least it is given more, look by look, so
    /// that it gets to where its buffer is full, or to the end of its input. Otherwise a worker that has
    /// never answered would be left with one packet for ever, and the rest with nobody.
    fn widen(&mut self, slot: usize) {
        if let Slot::Live(session) = &mut self.slots[slot] {
            session.depth.widen();
        }
        self.offer(slot);
    }

    /// When a session that owes replies, and has read all that it was given, has been quiet for long
    /// enough to be looked at.
    pub(crate) fn quiet_until(&self, session: &Session) -> Option<Now> {
        let policy = &self.spec.policy;
        if !session.is_open()
            || session.owed() == 0
            || !session.may_be_waiting()
            || session.closed_output_at.is_some()
        {
            return None;
        }
        let delay =
            if policy.at_eof() { self.patience().min(AT_EOF_IDLE) } else { self.patience() };
        Some(session.moved.saturating_add(delay).max(session.next_probe))
    }

    /// Asks for the evidence; if that decides nothing there is another look, ever later.
    pub(crate) fn probe(&mut self, slot: usize, now: Now) {
        let delay = self.spec.policy.stall_delay;
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        Counters::add(&self.stats.counters.probes, 1);
        self.actions.push_back(Operation::Look { slot });
        session.suspected = session.moved;
        session.look_again(now, delay);
    }
}
