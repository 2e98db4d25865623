//! The table of limits: what limits a session, until when, and what is done then.
//!
//! # Invariants
//! 1. Each limit stands here once: [`next_deadline`](Session::next_deadline) and [`tick`](Session::tick) go
//!    through the same table. Where a session [is plain](Session::is_plain), which most are after nearly every event,
//!    all that stands in it is that it is quiet.
//! 2. All limits run on the patient clock. Time in which we do not read, for want of room, counts for none.
//! 3. A limit is met once: meeting it ends something or moves the deadline.

use std::time::Duration;

use crate::error::Limit;
use crate::stats::Counters;
use crate::subprocess::protocol::Now;
use crate::subprocess::session::{Context, Input, News, Session, Why};
use crate::template::Spec;
use crate::template::policy::Policy;

/// How long a worker that has closed one of its pipes may take over what it has read.
const CLOSED_GRACE: Duration = Duration::from_secs(5);

/// How long a side input may stay clogged while nothing is owed before that is an error.
const CLOGGED_GRACE: Duration = Duration::from_secs(2);

/// How long a worker that has closed its stdout may take to exit.
const SILENT_GRACE: Duration = Duration::from_millis(500);

/// What must have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deadline {
    /// It keeps this limit.
    Limit(Limit),
    /// It reads a side input that it must read.
    Clogged,
    /// It has not served long enough (`recycle_after_age`).
    Age,
    /// It moves; otherwise it is looked at.
    Quiet,
    /// It moves; otherwise its host is asked about it.
    Silent,
    /// More follows what may be the beginning of its goodbye.
    Doubted,
    /// Its output ends behind what may be its last words.
    LastWords,
}

impl Session {
    /// Whether anything of the table but its quiet can concern a session of this template while it is open.
    pub(super) fn may_be_limited(&self, spec: &Spec) -> bool {
        let policy = &spec.policy;
        self.far.is_some()
            || self.inputs.len() > 1
            || policy.recycle_age.is_some()
            || policy.packet_timeout.is_some()
            || policy.start_timeout.is_some()
    }

    /// Whether no limit runs but that of its quiet.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        !self.is_limited
            && !self.in_banner
            && !self.closing
            && self.why.is_none()
            && self.closed_output_at.is_none()
            && self.last_words_since.is_none()
            && self.child.is_running()
    }

    /// The limits that run now, the most urgent first.
    fn deadlines(&self, cx: &Context<'_>) -> impl Iterator<Item = (Now, Deadline)> {
        let policy = &cx.spec.policy;
        // What it owes may lie here, kept back for a while.
        let (owes, open) = (self.owed() > 0 && !self.may_have_answered(), self.is_open());
        let nothing_owed = self.owed() == 0;
        let (idle, closing) = (nothing_owed && open, nothing_owed && self.closing);
        let closed_input = self.why == Some(Why::ClosedInput);
        let limit =
            |applies: bool, since: Now, limit: Option<Duration>, what: fn(Duration) -> Limit| {
                let limit = limit.filter(|_| applies)?;
                Some((since.saturating_add(limit), Deadline::Limit(what(limit))))
            };
        let ready = cx.spec.words.banner.ready_limit();
        let closed_output = self.closed_output_at;
        let clogged = idle && self.inputs.iter().any(Input::is_clogged);
        // One that was never given anything is as good as a fresh one.
        let age = policy.recycle_age.filter(|_| idle && self.flight.given() > 0);
        let (first, first_since, what) = self.first_reply(policy);
        let never = owes && self.flight.replies() == 0;
        let connect = self.connect_limit();
        let began = self.started.max(self.unheard_until);
        [
            limit(connect.is_some(), began, connect, Limit::Connect),
            limit(self.in_banner, began, ready, Limit::Ready),
            clogged.then(|| (self.moved.saturating_add(CLOGGED_GRACE), Deadline::Clogged)),
            limit(
                closed_output.is_some(),
                closed_output.unwrap_or_default(),
                Some(SILENT_GRACE),
                Limit::ClosedStdout,
            ),
            limit(closing && closed_input, self.moved, Some(SILENT_GRACE), Limit::ClosedStdin),
            limit(closing && !closed_input, self.moved, policy.end_timeout, Limit::EndTimeout),
            limit(
                owes && self.closing && self.why == Some(Why::Done) && policy.end_timeout_is_set,
                self.moved,
                policy.end_timeout,
                Limit::EndTimeout,
            ),
            age.map(|age| (self.started.saturating_add(age), Deadline::Age)),
            limit(owes && closed_input, self.moved, Some(CLOSED_GRACE), Limit::ClosedStdin),
            limit(owes && !never, self.head_since, policy.packet_timeout, Limit::PacketTimeout),
            limit(never, first_since, first, what),
            self.doubted_until().map(|at| (at, Deadline::Doubted)),
            self.last_words_until().map(|at| (at, Deadline::LastWords)),
            self.silent_until(cx).map(|at| (at, Deadline::Silent)),
            self.quiet_until(cx).map(|at| (at, Deadline::Quiet)),
        ]
        .into_iter()
        .flatten()
        .filter(|_| self.child.is_running())
    }

    /// How long its first reply may take, since when, and which limit that is.
    ///
    /// It has the time to start and the time for a packet; but who has said that it is ready has
    /// started.
    fn first_reply(&self, policy: &Policy) -> (Option<Duration>, Now, fn(Duration) -> Limit) {
        let since = self.head_since.max(self.started);
        let start = policy.start_timeout.filter(|_| !self.was_ready);
        match (start, policy.packet_timeout) {
            (Some(start), Some(packet)) => {
                (Some(start.saturating_add(packet)), since, Limit::FirstReply)
            }
            (Some(start), None) => (Some(start), since, Limit::StartTimeout),
            (None, packet) => (packet, since, Limit::PacketTimeout),
        }
    }

    #[inline(never)]
    pub(super) fn next_deadline(&self, cx: &Context<'_>) -> Option<Now> {
        self.deadlines(cx).map(|(at, _)| at).min()
    }

    /// Time has passed. `readable` says whether its outputs were read; what it did until `reported` is known.
    pub(crate) fn tick(
        &mut self,
        readable: bool,
        reported: Now,
        cx: &Context<'_>,
        news: &mut News,
    ) {
        self.step(cx, news);
        let now = cx.now.patient;
        let limit = self.deadlines(cx).find(|(at, _)| *at <= reported);
        let Some((_, limit)) = limit else { return };
        if !readable && self.closed_output_at.is_none() {
            // It may have answered long ago: it is we who do not read, for want of room. The time
            // that this takes is not its own.
            self.moved = now;
            self.head_since = now;
            self.unheard_until = now;
            self.keep_last_words_longer(now);
            self.look_later(cx);
            return;
        }
        match limit {
            // The tool behind a launcher has ended, if it has said goodbye, or is lost.
            Deadline::Limit(Limit::ClosedStdout(_)) if self.has_said_goodbye() => {
                self.lingered = self.owed() == 0;
                self.kill(cx, news);
            }
            Deadline::Limit(Limit::ClosedStdout(_) | Limit::Connect(_)) if self.breaks_off() => {
                self.exceeds(limit, cx, news);
            }
            Deadline::Limit(Limit::ClosedStdout(_)) => {
                // An answer can never come any more.
                let owed = self.owed();
                self.lingered = owed == 0;
                self.why =
                    self.why.filter(|why| why.is_asked() && owed == 0).or(Some(Why::ClosedOutput));
                self.exceeds(limit, cx, news);
            }
            Deadline::Limit(Limit::EndTimeout(_) | Limit::ClosedStdin(_)) => {
                if self.owed() > 0 && self.why == Some(Why::Done) {
                    Counters::add(&cx.stats.counters.timeouts, 1);
                    self.why = Some(Why::Timeout);
                }
                self.exceeds(limit, cx, news);
            }
            Deadline::Limit(limit) => self.is_late(limit, cx, news),
            Deadline::Clogged => {
                if let Some(channel) = self.inputs.iter().position(Input::is_clogged) {
                    news.fatal = Some(self.clogged(channel, cx));
                }
            }
            Deadline::Age => self.recycle(cx, news),
            Deadline::Quiet => self.look(cx, news),
            Deadline::Silent => self.look_far(cx, news),
            Deadline::Doubted => self.show_doubted(cx, news),
            Deadline::LastWords => self.were_no_last_words(cx, news),
        }
    }

    /// It gives no sign in time.
    fn is_late(&mut self, limit: Limit, cx: &Context<'_>, news: &mut News) {
        if !matches!(limit, Limit::Ready(_)) && self.is_open() && !self.prompt {
            // It may only be buffering: asked to answer, it gets the limit once more.
            if cx
                .spec
                .policy
                .packet_timeout
                .is_some_and(|limit| limit <= cx.spec.policy.stall_delay)
            {
                cx.stats.hint(format!(
                    "packet_timeout is not longer than it takes until a quiet worker is examined (on_stall): when it runs out, stdin of `{}` is closed, in case it withholds its replies, so each packet may cost a process",
                    self.label.command
                ));
            }
            self.head_since = cx.now.patient;
            Counters::add(&cx.stats.counters.recycles, 1);
            return self.recycle(cx, news);
        }
        Counters::add(&cx.stats.counters.timeouts, 1);
        self.why = Some(Why::Timeout);
        self.exceeds(Deadline::Limit(limit), cx, news);
    }

    fn exceeds(&mut self, deadline: Deadline, cx: &Context<'_>, news: &mut News) {
        if let Deadline::Limit(limit) = deadline {
            self.limit = Some(limit);
        }
        self.kill(cx, news);
    }
}
