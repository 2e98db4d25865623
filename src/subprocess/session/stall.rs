//! Stalls: when a quiet session is looked at, and what the evidence leads to.
//!
//! The answers are graded by what they cost if the judgement is wrong. What is certain ([`Evidence::Waiting`])
//! is acted on at the first look after the delay, or after a part of it where nothing else can come; a sleeper beside
//! a tool costs patience; what computes, or waits for something else, is left alone; and what cannot be seen is closed
//! only when the input has ended, as a pipeline in a shell would do. A wait that lasts is named in a hint.
//!
//! # Invariants
//! 1. Nothing is judged but on a look that was asked for after the session's last movement.
//! 2. Looks come at one stall delay of quiet, at two, four, and so on up to [`HINT_AFTER`], then at doubling
//!    intervals of [`LONGEST_INTERVAL`] at most, whatever `on_stall` says. A session that is closed as soon as
//!    it certainly waits is looked at before as well; other evidence of these looks is kept and not acted on.
//! 3. A session that may be waiting, and is not recycled, is given ever more, until there is nothing left to
//!    give.

use std::time::Duration;

use crate::error::{ErrorKind, Limit};
use crate::stats::Counters;
use crate::subprocess::evidence::{Evidence, Look, Looks};
use crate::subprocess::protocol::{Now, Operation};
use crate::subprocess::session::{Context, Input, News, Session, Why};
use crate::subprocess::wording::{Bound, Manner, Wait};
use crate::template::Spec;
use crate::template::policy::OnStall;
use crate::tuning::FIRST_LOOK;

/// How long the input may idle before a tool that answers at the end of its input is asked to.
const AT_EOF_IDLE: Duration = Duration::from_millis(10);

/// After how much quiet a wait is named, and a session that is known not to buffer is doubted.
const HINT_AFTER: Duration = Duration::from_secs(5);

/// How soon a session whose output we do not read, for want of room, is looked at again.
const LATER: Duration = Duration::from_secs(1);

/// The longest time between two looks.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);

/// What is known of a session that is quiet.
#[derive(Debug, Default)]
pub(super) struct Stall {
    looks: Looks,
    evidence: Option<Evidence>,
    /// When it is looked at next, if it was looked at since it has moved.
    next_look: Option<Now>,
    /// A look was asked for.
    asked: bool,
    /// What was said of the wait.
    hint: Option<String>,
    /// It was closed before the input has ended, because it seemed to wait.
    guessed: bool,
    /// It was closed because it slept.
    closed_asleep: bool,
    /// It was closed because it certainly waited for us.
    closed_waiting: bool,
}

impl Stall {
    /// It has moved: what was seen before says nothing now.
    pub(super) fn moved(&mut self) {
        self.asked = false;
        if self.evidence.take().is_some() || self.next_look.take().is_some() {
            self.looks.forget();
        }
    }

    /// Whether it seems to wait for more, without certainty.
    pub(super) fn is_doubtful(&self) -> bool {
        matches!(self.evidence, Some(Evidence::Asleep | Evidence::EventLoop | Evidence::Opaque(_)))
    }

    /// Whether it was looked at since it has moved.
    pub(super) fn was_quiet(&self) -> bool {
        self.evidence.is_some()
    }

    /// What was said of the wait that is going on.
    pub(super) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Whether it was closed because it certainly waited for us.
    pub(super) fn was_closed_waiting(&self) -> bool {
        self.closed_waiting
    }

    /// Whether it was closed because it slept.
    pub(super) fn was_closed_asleep(&self) -> bool {
        self.closed_asleep
    }
}

/// How long a session must have been quiet before it is recycled because it certainly waits. The evidence is the
/// same, however soon; for a tool that is known to withhold it is worth looking early.
fn delay(spec: &Spec, withholding: bool) -> Duration {
    let delay = spec.policy.stall_delay;
    if withholding { delay / 8 } else { delay }
}

/// The same, before anything is done on evidence that is not certain. A delay that is long, so that nothing is
/// recycled, does not hold up the end of the input.
fn patience(spec: &Spec, withholding: bool) -> Duration {
    delay(spec, withholding).min(HINT_AFTER)
}

impl Session {
    /// It has said something: a hint about its silence is disproved.
    pub(super) fn has_spoken(&mut self, cx: &Context<'_>) {
        self.stall.moved();
        if self.stall.hint.take().is_some() {
            cx.stats.withdraw_hint(self.slot);
        }
    }

    /// How it talks, as far as it matters to advice.
    pub(super) fn manner(&self, cx: &Context<'_>) -> Manner {
        let next = self.flight.next_after(0);
        Manner::of(cx.spec, next, self.child.stderr(), self.prompt)
    }

    /// When it is looked at, if it stays quiet.
    pub(crate) fn quiet_until(&self, cx: &Context<'_>) -> Option<Now> {
        let spec = cx.spec;
        let unready = !self.is_greeted() || (self.in_banner && spec.words.banner.holds_requests());
        let owes = self.owed() > 0 && !self.may_have_answered();
        if !(owes || unready) || self.closed_output_at.is_some() {
            return None;
        }
        if let Some(next) = self.stall.next_look {
            return Some(next);
        }
        let patience = patience(spec, cx.withholding);
        let quiet = if !self.is_open() || !self.may_be_waiting() || !self.is_greeted() {
            HINT_AFTER
        } else if spec.policy.at_eof() {
            patience.min(AT_EOF_IDLE)
        } else if unready {
            patience
        } else {
            patience.min(self.recycle_delay(cx))
        };
        Some(self.moved.saturating_add(quiet))
    }

    /// How long it must have been quiet before it is recycled because it certainly waits.
    fn recycle_delay(&self, cx: &Context<'_>) -> Duration {
        let delay = delay(cx.spec, cx.withholding);
        if self.may_be_closed_at_once(cx) { delay / FIRST_LOOK } else { delay }
    }

    /// When the look after one now comes.
    fn next_look(&self, cx: &Context<'_>) -> Now {
        let quiet = cx.now.patient.saturating_sub(self.moved);
        let next = if quiet < HINT_AFTER {
            (quiet * 2).max(Duration::from_millis(1)).min(HINT_AFTER)
        } else {
            quiet + quiet.min(LONGEST_INTERVAL)
        };
        let delays = [self.recycle_delay(cx), cx.spec.policy.stall_delay];
        let next = delays.into_iter().filter(|delay| quiet < *delay).fold(next, Duration::min);
        self.moved.saturating_add(next)
    }

    /// It is we who do not read: the next look comes later.
    pub(super) fn look_later(&mut self, cx: &Context<'_>) {
        self.stall.moved();
        self.stall.next_look = Some(cx.now.patient.saturating_add(LATER));
    }

    /// Whether there is a channel on which it has been handed everything, so that it may be waiting
    /// there for more. What it leaves unread on another says nothing: it may read one to its end
    /// before it turns to the next, or never read an optional one.
    fn may_be_waiting(&self) -> bool {
        let mut open = self.inputs.iter().filter(|input| !input.is_closed()).peekable();
        open.peek().is_none() || open.any(Input::is_written)
    }

    /// It has been quiet for long enough: asks for a look, or does without where it is known what that
    /// would show.
    pub(super) fn look(&mut self, cx: &Context<'_>, news: &mut News) {
        if cx.spec.policy.at_eof() && self.is_open() && self.may_be_waiting() && self.owed() > 0 {
            return self.recycle(cx, news);
        }
        Counters::add(&cx.stats.counters.probes, 1);
        news.operations.push(Operation::Look { slot: self.slot });
        self.stall.asked = true;
        self.stall.next_look = Some(self.next_look(cx));
    }

    /// It was looked at.
    pub(crate) fn looked(&mut self, look: Look, cx: &Context<'_>, news: &mut News) {
        // If it has moved since the look was asked for, and perhaps been given more that it has had no
        // time to read, what was seen says nothing of that.
        if !self.child.is_running() || !std::mem::take(&mut self.stall.asked) {
            return;
        }
        let quiet = cx.now.patient.saturating_sub(self.moved);
        let evidence = self.stall.looks.judge(look, 3 * patience(cx.spec, cx.withholding));
        self.stall.evidence = Some(evidence);
        if self.owed() > 0 && self.is_open() && self.may_be_waiting() {
            self.act_on(evidence, quiet, cx, news);
        } else if self.owed() > 0 && !self.is_open() {
            self.doubt_end(evidence, quiet, cx, news);
        }
        if quiet >= HINT_AFTER && self.child.is_running() && !self.child.is_killed() {
            self.name_the_wait(evidence, quiet, cx);
        }
    }

    /// It owes replies, has read what it was given, and is quiet.
    fn act_on(&mut self, evidence: Evidence, quiet: Duration, cx: &Context<'_>, news: &mut News) {
        let closing_reason = self.closing_reason(cx);
        let early = quiet < patience(cx.spec, cx.withholding);
        let is_deaf = matches!(evidence, Evidence::Deaf { .. });
        news.awaits_end |= !early && (self.stall.is_doubtful() || is_deaf);
        let late = quiet >= HINT_AFTER;
        match (evidence, closing_reason) {
            // It will be given nothing more: asking costs nothing.
            (Evidence::Waiting, Some(why)) => self.guess(why, cx, news),
            (Evidence::Waiting, None)
                if quiet >= self.recycle_delay(cx) && cx.spec.policy.on_stall != OnStall::Wait =>
            {
                self.is_withholding(cx, news);
            }
            // Only what is certain is acted on early.
            _ if early => {}
            // It is not recycled, or not yet: it may answer once it has more.
            (Evidence::Waiting, None) => self.depth.widen(),
            (Evidence::Asleep, None) if self.may_be_given_more(cx) => {
                self.depth.widen();
            }
            (Evidence::Asleep, _) => {
                let allowed = cx.input_has_ended
                    || (cx.closes_sleepers && cx.spec.policy.on_stall == OnStall::Recycle);
                if allowed && (late || !self.prompt) {
                    self.stall.closed_asleep = closing_reason != Some(Why::Done);
                    let why = closing_reason.unwrap_or(Why::Recycled);
                    if why == Why::Recycled {
                        Counters::add(&cx.stats.counters.recycles, 1);
                    }
                    self.guess(why, cx, news);
                }
            }
            // It may still be loading, and then has no use for more; closed now, it would load once for each
            // record.
            (Evidence::Deaf { .. }, None) => {}
            // What cannot be seen is treated as a pipeline in a shell would: its input ends when there is
            // no more.
            (Evidence::EventLoop | Evidence::Opaque(_) | Evidence::Deaf { .. }, _) => {
                let never = self.flight.replies() == 0;
                if closing_reason.is_none() && self.may_be_given_more(cx) {
                    self.depth.widen();
                } else if cx.input_has_ended && (never || late) {
                    self.guess(closing_reason.unwrap_or(Why::Recycled), cx, news);
                }
            }
            // There is another look later.
            (
                Evidence::Unsettled
                | Evidence::Working(_)
                | Evidence::Outside(_)
                | Evidence::Stopped(_),
                _,
            ) => {}
        }
    }

    /// Closes its inputs because of what was seen of it, not because it has answered.
    fn guess(&mut self, why: Why, cx: &Context<'_>, news: &mut News) {
        self.stall.guessed = why == Why::Recycled;
        self.close(why, cx, news);
    }

    /// Whether there is more that it may be given on the guess that it waits for it: not where each packet that
    /// it has may cost something, nor beyond what it may hold.
    fn may_be_given_more(&self, cx: &Context<'_>) -> bool {
        let policy = &cx.spec.policy;
        cx.waits
            && !policy.at_most_once
            && cx.spec.replies.as_sentinel().is_none()
            && policy.in_flight.is_none_or(|most| self.flight.len() < most)
    }

    /// Whether its inputs are closed as soon as it certainly waits, because nothing else can come of that: it gets
    /// nothing more, or it has never answered, so that it gets nothing more before it has. Where nothing waits for it, the
    /// next record may come within the delay, and a process is saved.
    fn may_be_closed_at_once(&self, cx: &Context<'_>) -> bool {
        let policy = &cx.spec.policy;
        let is_tried = || cx.waits && !cx.withholding && !self.is_warm() && !policy.at_eof();
        policy.on_stall == OnStall::Recycle
            && self.far.is_none()
            && (self.closing_reason(cx).is_some() || is_tried())
    }

    /// It certainly waits for us, and owes replies. It is recycled, or the feed fails.
    fn is_withholding(&mut self, cx: &Context<'_>, news: &mut News) {
        let advice = self.manner(cx).withholds();
        tell!(warn, self, "stalled", owed = self.owed(), hint = &*advice);
        if cx.spec.policy.on_stall == OnStall::Fail {
            let error = self.describe(ErrorKind::Stalled, "the worker withholds its replies");
            news.fatal = Some(error.hint(format!("it {advice}")));
        } else {
            news.withholds = true;
            Counters::add(&cx.stats.counters.recycles, 1);
            self.stall.closed_waiting = true;
            self.guess(Why::Recycled, cx, news);
        }
    }

    /// Its inputs are closed, and it neither answers nor exits. If that was our own guess, it ends after a
    /// while, unless it works; if the input has ended, only `end_timeout` is a limit.
    fn doubt_end(
        &mut self,
        evidence: Evidence,
        quiet: Duration,
        cx: &Context<'_>,
        news: &mut News,
    ) {
        let works = matches!(evidence, Evidence::Working(_));
        if self.stall.guessed && self.why == Some(Why::Recycled) && !works && quiet >= HINT_AFTER {
            Counters::add(&cx.stats.counters.timeouts, 1);
            self.why = Some(Why::Timeout);
            self.limit = Some(Limit::Recycled(HINT_AFTER));
            self.kill(cx, news);
        }
    }

    /// A wait has lasted: says which worker is waited for, what it seems to be doing, and which setting would
    /// bound the wait.
    fn name_the_wait(&mut self, evidence: Evidence, quiet: Duration, cx: &Context<'_>) {
        let unready = self.owed() == 0;
        if unready && !cx.waits {
            return;
        }
        let may_be_waiting = matches!(
            evidence,
            Evidence::Waiting | Evidence::Asleep | Evidence::EventLoop | Evidence::Opaque(_)
        );
        let wait = Wait {
            worker: self.slot,
            pid: self.label.pid,
            command: &self.label.command,
            unreached: self.far_host(),
            owed: self.owed(),
            quiet,
            seen: evidence.sentence(),
            may_be_waiting: may_be_waiting && self.is_open(),
            manner: self.manner(cx),
            bound: self.bound(cx),
        };
        let hint = wait.to_string();
        if self.stall.hint.is_none() {
            #[allow(
                clippy::if_same_then_else,
                reason = "without tracing there is nothing in either"
            )]
            if matches!(evidence, Evidence::Working(_)) {
                tell!(debug, self, "waited for", hint = hint.as_str());
            } else {
                tell!(warn, self, "waited for", hint = hint.as_str());
            }
        }
        cx.stats.hint_about(self.slot, hint.clone());
        self.stall.hint = Some(hint);
    }

    /// What bounds the wait for it, or would.
    fn bound(&self, cx: &Context<'_>) -> Bound {
        let policy = &cx.spec.policy;
        match self.why {
            _ if !self.is_greeted() => Bound::of_connection(self.connect_limit()),
            _ if self.owed() == 0 => Bound::of("ready", cx.spec.words.banner.ready_limit()),
            Some(Why::Done) => {
                let limit = policy.end_timeout.filter(|_| policy.end_timeout_is_set);
                Bound::of("end_timeout", limit)
            }
            _ => Bound::of("packet_timeout", policy.packet_timeout),
        }
    }
}
