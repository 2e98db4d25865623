//! The table of limits: what is due in a session, when, and what is done then.
//!
//! # Invariants
//! 1. Each limit stands here once: [`next_deadline`](Session::next_deadline) and [`tick`](Session::tick) go
//!    through the same table.
//! 2. All limits run on the patient clock. Time in which we do not read, for want of room, counts for none.
//! 3. What is due is met once: meeting it ends something or moves the deadline.

use std::time::Duration;

use crate::stats::Counters;
use crate::subprocess::protocol::Now;
use crate::subprocess::session::{Context, Input, News, Session, Why};

/// How long a worker that has closed one of its pipes may take over what it has read.
const CLOSED_GRACE: Duration = Duration::from_secs(5);

/// How long a side input may stay clogged while nothing is owed before that is an error.
const CLOGGED_GRACE: Duration = Duration::from_secs(2);

/// How long a worker that has closed its stdout may take to exit.
const SILENT_GRACE: Duration = Duration::from_millis(500);

/// A limit of a session, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// Its banner is over (`ready`).
    Ready(Duration),
    /// It reads a side input that it must read.
    Clogged,
    /// It exits after it has closed its stdout.
    ClosedOutput,
    /// It exits after its last answer (`end_timeout`).
    End(Duration),
    /// It has served long enough (`recycle_after_age`).
    Age,
    /// It answers what it has read before it closed its stdin.
    ClosedInput,
    /// It gives its first reply (`start_timeout`).
    FirstReply(Duration),
    /// It answers the packet that is next (`packet_timeout`).
    Packet(Duration),
    /// It moves; otherwise it is looked at.
    Quiet,
}

impl Session {
    /// The limits that run now, the most urgent first.
    fn deadlines(&self, cx: &Context<'_>) -> impl Iterator<Item = (Now, Deadline)> {
        let policy = &cx.spec.policy;
        let running = self.child.is_running();
        let (owes, open) = (self.owed() > 0, self.is_open());
        let after = |condition: bool, since: Now, limit: Duration, what: Deadline| {
            (running && condition).then(|| (since.saturating_add(limit), what))
        };
        let limited = |condition: bool,
                       since: Now,
                       limit: Option<Duration>,
                       what: fn(Duration) -> Deadline| {
            limit.and_then(|limit| after(condition, since, limit, what(limit)))
        };
        let never = self.flight.replies() == 0;
        let closed_input = self.why == Some(Why::ClosedInput);
        let clogged = !owes && open && self.inputs.iter().any(Input::is_clogged);
        [
            limited(
                self.in_banner,
                self.started,
                cx.spec.words.banner.ready_limit(),
                Deadline::Ready,
            ),
            after(clogged, self.moved, CLOGGED_GRACE, Deadline::Clogged),
            self.closed_output_at
                .and_then(|at| after(true, at, SILENT_GRACE, Deadline::ClosedOutput)),
            after(
                !owes && self.closing && closed_input,
                self.moved,
                SILENT_GRACE,
                Deadline::End(SILENT_GRACE),
            ),
            limited(
                !owes && self.closing && !closed_input,
                self.moved,
                policy.end_timeout,
                Deadline::End,
            ),
            // One that was never given anything is as good as a fresh one.
            limited(
                !owes && open && self.flight.given() > 0,
                self.started,
                policy.recycle_age,
                |_| Deadline::Age,
            ),
            after(owes && closed_input, self.moved, CLOSED_GRACE, Deadline::ClosedInput),
            limited(owes, self.head_since, policy.packet_timeout, Deadline::Packet),
            limited(
                owes && never,
                self.head_since.max(self.started),
                policy.start_timeout,
                Deadline::FirstReply,
            ),
            self.quiet_until(cx).map(|at| (at, Deadline::Quiet)),
        ]
        .into_iter()
        .flatten()
    }

    pub(super) fn next_deadline(&self, cx: &Context<'_>) -> Option<Now> {
        self.deadlines(cx).map(|(at, _)| at).min()
    }

    /// Time has passed. `readable` says whether its outputs were read.
    pub(crate) fn tick(&mut self, readable: bool, cx: &Context<'_>, news: &mut News) {
        self.step(cx, news);
        let now = cx.now.patient;
        let due = self.deadlines(cx).find(|(at, _)| *at <= now);
        let Some((_, due)) = due else { return };
        if !readable && self.closed_output_at.is_none() {
            // It may have answered long ago: it is we who do not read, for want of room. The time
            // that this takes is not its own.
            self.moved = now;
            self.head_since = now;
            self.stall.look_again(cx);
            return;
        }
        match due {
            Deadline::Ready(_) => self.is_late(due, cx, news),
            Deadline::Clogged => {
                if let Some(channel) = self.inputs.iter().position(Input::is_clogged) {
                    news.fatal = Some(self.clogged(channel, cx));
                }
            }
            Deadline::ClosedOutput => {
                // An answer can never come any more.
                let owed = self.owed();
                self.lingered = owed == 0;
                self.why =
                    self.why.filter(|why| why.is_asked() && owed == 0).or(Some(Why::ClosedOutput));
                self.kill(cx, news);
            }
            Deadline::End(_) | Deadline::ClosedInput => self.kill(cx, news),
            Deadline::Age => self.recycle(cx, news),
            Deadline::FirstReply(_) | Deadline::Packet(_) if self.is_open() && !self.prompt => {
                // It may only be buffering: asked to answer, it gets the limit once more.
                self.head_since = now;
                Counters::add(&cx.stats.counters.recycles, 1);
                self.recycle(cx, news);
            }
            Deadline::FirstReply(_) | Deadline::Packet(_) => self.is_late(due, cx, news),
            Deadline::Quiet => self.look(cx, news),
        }
    }

    /// A limit has run out that it should have kept.
    fn is_late(&mut self, limit: Deadline, cx: &Context<'_>, news: &mut News) {
        Counters::add(&cx.stats.counters.timeouts, 1);
        self.why = Some(Why::Timeout(limit));
        self.kill(cx, news);
    }
}
