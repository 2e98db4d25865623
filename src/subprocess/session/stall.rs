//! Stalls: when a quiet session is looked at, and what the evidence leads to.
//!
//! # Invariants
//! 1. Nobody is judged but on evidence that was taken after its last movement.
//! 2. Without certainty nothing is done to a worker, unless it is to be given nothing more: to be asked
//!    to end costs that one nothing.
//! 3. A look that decides nothing is followed by another, ever later.
//! 4. One that may be waiting, and is not recycled, is given ever more, until there is nothing left to give.

use std::time::Duration;

use crate::error::ErrorKind;
use crate::stats::Counters;
use crate::subprocess::protocol::{Now, Operation, Verdict};
use crate::subprocess::session::{Context, Input, News, Session};
use crate::template::policy::OnStall;

/// The advice for a tool that buffers.
const WITHHOLDS: &str = "withholds its replies until its buffer is full: use its unbuffered or \
                         line-buffered flag (sed -u, grep --line-buffered, jq --unbuffered, python3 -u, \
                         mawk -W interactive), or Template::line_buffered";

/// How long the input may idle before a tool that answers at the end of its input is asked to.
const AT_EOF_IDLE: Duration = Duration::from_millis(10);

/// A quiet session is looked at again after so many stall delays at most.
const LONGEST_PATIENCE: u32 = 64;

/// When a session is looked at next.
#[derive(Debug)]
pub(super) struct Stall {
    /// How long after a look there is another, and when that is.
    patience: Duration,
    next_look: Now,
    /// When it had last moved as the evidence was asked for.
    asked: Option<Now>,
}

impl Stall {
    pub(super) fn new(cx: &Context<'_>) -> Self {
        Self { patience: patience(cx), next_look: Now::ZERO, asked: None }
    }

    /// It has moved: patience begins anew.
    pub(super) fn moved(&mut self, cx: &Context<'_>) {
        self.patience = patience(cx);
        self.next_look = cx.now.patient;
    }

    /// This look has decided nothing: the next one comes after twice the time.
    pub(super) fn look_again(&mut self, cx: &Context<'_>) {
        self.next_look = cx.now.patient.saturating_add(self.patience);
        let longest = cx.spec.policy.stall_delay.saturating_mul(LONGEST_PATIENCE);
        self.patience = self.patience.saturating_mul(2).min(longest);
    }
}

/// How long nothing must have moved before a stall is looked for. The evidence is the same, however
/// soon; for a tool that is known to withhold it is worth looking early.
fn patience(cx: &Context<'_>) -> Duration {
    let delay = cx.spec.policy.stall_delay;
    if cx.withholding { delay / 8 } else { delay }
}

impl Session {
    /// When a session that owes replies, and has read all that it was given, has been quiet for long
    /// enough to be looked at.
    pub(super) fn quiet_until(&self, cx: &Context<'_>) -> Option<Now> {
        if !self.is_open()
            || self.owed() == 0
            || !self.may_be_waiting()
            || self.closed_output_at.is_some()
        {
            return None;
        }
        let patience = patience(cx);
        let delay = if cx.spec.policy.at_eof() { patience.min(AT_EOF_IDLE) } else { patience };
        Some(self.moved.saturating_add(delay).max(self.stall.next_look))
    }

    /// Whether there is a channel on which it has been handed everything, so that it may be waiting
    /// there for more. What it leaves unread on another says nothing: it may read one to its end
    /// before it turns to the next, or never read an optional one.
    fn may_be_waiting(&self) -> bool {
        let mut open = self.inputs.iter().filter(|input| !input.is_closed()).peekable();
        open.peek().is_none() || open.any(Input::is_written)
    }

    /// It has been quiet for long enough: asks for the evidence, or does without where it is known what it
    /// would show.
    pub(super) fn look(&mut self, cx: &Context<'_>, news: &mut News) {
        if cx.spec.policy.at_eof() {
            return self.recycle(cx, news);
        }
        Counters::add(&cx.stats.counters.probes, 1);
        news.operations.push(Operation::Look { slot: self.slot });
        self.stall.asked = Some(self.moved);
        self.stall.look_again(cx);
    }

    /// The evidence about a session that has gone quiet.
    pub(crate) fn looked(&mut self, verdict: Verdict, cx: &Context<'_>, news: &mut News) {
        // If it has answered since it was asked for, and perhaps been given more that it has had no time to
        // read, what was seen says nothing of that.
        if !self.is_open() || self.owed() == 0 || self.stall.asked != Some(self.moved) {
            return;
        }
        if verdict != Verdict::Busy
            && let Some(why) = self.parting(cx)
        {
            // It will be given nothing more: asking costs nothing.
            return self.close(why, cx, news);
        }
        match verdict {
            Verdict::Waiting => match cx.spec.policy.on_stall {
                OnStall::Wait => self.depth.widen(),
                OnStall::Recycle => {
                    tell!(warn, self, "stalled", owed = self.owed(), hint = WITHHOLDS);
                    news.withholds = true;
                    Counters::add(&cx.stats.counters.recycles, 1);
                    cx.stats.hint(format!("`{}` {WITHHOLDS}", self.label.command));
                    self.recycle(cx, news);
                }
                OnStall::Fail => {
                    tell!(warn, self, "stalled", owed = self.owed(), hint = WITHHOLDS);
                    let error =
                        self.describe(ErrorKind::Stalled, "the worker withholds its replies");
                    news.fatal = Some(error.hint(WITHHOLDS));
                }
            },
            // There is another look later.
            Verdict::Busy => {}
            Verdict::Unclear(why) => {
                cx.stats.hint(format!(
                    "`{}` owes replies and is quiet, but it cannot be told whether it waits for us ({why}); \
                     if it buffers its output, use its unbuffered flag or Template::line_buffered",
                    self.label.command
                ));
                // It may wait for us, and nothing is done about that: at least it is given more, look by
                // look, so that it gets to where its buffer is full, or to the end of its input.
                self.depth.widen();
            }
        }
    }
}
