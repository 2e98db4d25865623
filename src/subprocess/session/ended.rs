//! How a session ended: whether its last replies are believed, and what becomes of what it owes.
//!
//! # Invariants
//! 1. Replies that waited for the end of their session are delivered only if their number is what was owed.
//! 2. Each packet that the session owed is one obligation, or stays with it because the feed is stopping.
//! 3. Only a packet that was alone in its session and of which a byte was read is charged, or the one that a
//!    prompt worker was at when its time was over.
//! 4. Suspects are halved with every session, so that a culprit is found in a number of sessions that is the
//!    logarithm of how many there were, also where the worker buffers.

use std::collections::VecDeque;
use std::process::ExitStatus;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::record::{PacketId, Run};
use crate::subprocess::protocol::Now;
use crate::subprocess::session::cutting::Problem;
use crate::subprocess::session::flight::pop_front;
use crate::subprocess::session::output::Cutting;
use crate::subprocess::session::{Context, Input, News, Session, Why};
use crate::subprocess::wording;
use crate::window::packet::{Cut, SessionEnd};
use crate::window::unwind;

/// How carefully a run must be given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    /// To any session that is free.
    Free,
    /// Suspects: to a session with nothing in flight, and nothing follows before they are answered.
    Together,
    /// One packet, to a session that has never been given anything, so that its death can be charged.
    Alone,
}

/// What must become of a packet that a session has left unanswered.
#[derive(Debug)]
pub(crate) enum Obligation {
    /// It is sent again.
    Again(Run, Care),
    /// It was alone in a session that failed with this: it is charged with an attempt.
    Charged(Run, Error),
    /// It failed with this and is not sent again: it was skipped, or may have been read where that must not
    /// happen twice.
    Lost(Run, Error),
    /// The connection to its host was lost with this while it was at it. It is sent again, but not for ever.
    BrokenOff(Run, Error),
    /// It was handed over and never read: it is taken back and sent again.
    TakenBack(Run),
    /// It was handed over, and it was read in part: it is taken back and failed with this.
    HalfRead(Run, Error),
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Ended {
    session: Session,
    /// Of the tool, as far as is known.
    status: Option<ExitStatus>,
    /// Of the process that we started, which may be a launcher.
    launcher_status: Option<ExitStatus>,
}

impl Session {
    /// It is over and reaped; `status` is unknown if somebody else reaped it, or if nobody could. Replies
    /// that were held are delivered, or let go.
    pub(crate) fn ended(
        mut self,
        launcher_status: Option<ExitStatus>,
        cx: &Context<'_>,
        news: &mut News,
    ) -> Ended {
        let status = self.true_status(launcher_status);
        if !cx.stopping {
            self.settle_held(status, cx, news);
        }
        let how = status.map_or_else(|| "unknown".to_owned(), |status| status.to_string());
        let why = self.why.map_or("its own will", Why::word);
        let answered = self.flight.replies();
        #[cfg(feature = "tracing")]
        self.span.record("status", &*how).record("why", why).record("answered", answered);
        let owed = self.owed();
        tell!(debug, self, "ended", status = &*how, why = why, answered = answered, owed = owed);
        if self.stall.was_closed_waiting() && self.flight.len() == 0 && !cx.stopping {
            // It has answered when it was asked to: it had withheld that.
            let advice = self.manner(cx).withholds();
            cx.stats.hint(format!("`{}` {advice}", self.label.command));
        }
        if self.stall.was_closed_asleep() {
            // Whether the close has paid: it has brought the replies that were owed. A death says nothing.
            let paid = self.flight.len() == 0;
            let ended_well = status.is_some_and(|status| status.success());
            news.withholds |= paid;
            news.closed_in_vain |= !paid && ended_well && self.why.is_some_and(Why::is_asked);
        }
        news.released += self.flight.held_bytes();
        Ended { session: self, status, launcher_status }
    }

    /// Delivers the replies that were held, if they are believed.
    fn settle_held(&mut self, status: Option<ExitStatus>, cx: &Context<'_>, news: &mut News) {
        // The user's code may be asked, and may panic.
        match unwind::catch(|| self.are_held_replies_believed(status, cx)) {
            Ok(false) => {}
            Ok(true) => {
                news.progress = true;
                for cutting in self.flight.take_held() {
                    let problem = self.refuses(&cutting, cx);
                    if let Some(problem) = problem {
                        news.released += cutting.at.len();
                        news.failed = self.flight.fail_next().map(|packet| (packet, problem));
                    } else {
                        self.deliver(cutting, cx, news);
                    }
                }
            }
            Err(payload) => {
                news.released += self.flight.held_bytes();
                self.flight.take_held();
                news.failed = self.flight.fail_next().map(|packet| (packet, Err(payload)));
            }
        }
    }

    /// What `check` has against a whole output, which it was not asked about before.
    fn refuses(&self, cutting: &Cutting, cx: &Context<'_>) -> Option<Problem> {
        if !cx.spec.is_until_eof() {
            return None;
        }
        let Cut::Parts { ranges, next, .. } = &cutting.cut else { return None };
        match self.check(0, &cutting.buffer[ranges[*next].clone()], cx) {
            Ok(refused) => refused.map(Ok),
            Err(payload) => Some(Err(payload)),
        }
    }

    fn are_held_replies_believed(&self, status: Option<ExitStatus>, cx: &Context<'_>) -> bool {
        // What a process wrote before it failed looks just like a whole output.
        let refused = status.is_none_or(|status| !cx.spec.accepts_status(status));
        let failed = self.child.is_abandoned() || (cx.spec.is_until_eof() && refused);
        let half = cx.spec.is_until_eof() && !self.lingered && failed;
        // One that has read nothing of its request, and said nothing, has not answered it, however cleanly it left.
        let nothing = cx.spec.is_until_eof()
            && self.flight.held_bytes() == 0
            && self.inputs.iter().any(Input::was_used)
            && self.has_read_nothing();
        self.flight.is_held_in_full() && !half && !nothing
    }
}

impl Ended {
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn launcher_status(&self) -> Option<ExitStatus> {
        self.launcher_status
    }

    fn is_asked(&self) -> bool {
        self.session.why.is_some_and(Why::is_asked)
    }

    /// How many packets it has answered, and how long it was at work.
    pub(crate) fn tally(&self, now: Now) -> (u64, Duration) {
        (self.session.flight.answered(), self.session.at_work(now))
    }

    /// Whether it ended without having been asked to.
    pub(crate) fn has_died(&self) -> bool {
        !self.is_asked() && self.session.why != Some(Why::Stopped)
    }

    /// Whether it ended without one reply.
    pub(crate) fn is_blank(&self) -> bool {
        self.session.flight.answered() == 0 && self.session.why != Some(Why::Stopped)
    }

    /// Whether it ended without having read a byte, as far as is known.
    pub(crate) fn has_read_nothing(&self) -> bool {
        // Nobody reads requests without a byte.
        let to_read = self.given() == 0 || self.session.inputs.iter().any(Input::was_used);
        to_read && self.session.has_read_nothing()
    }

    /// Whether its exit was no good one, or is not known.
    pub(crate) fn ended_badly(&self) -> bool {
        self.status.is_none_or(|status| !status.success())
    }

    /// How many packets it was given.
    fn given(&self) -> u64 {
        self.session.flight.given()
    }

    /// The next session in its slot waits so long.
    pub(crate) fn tell_backed_off(&self, wait: Duration) {
        let session = &self.session;
        tell!(debug, session, "backed off", wait_ms = wait.as_secs_f64() * 1e3);
    }

    /// How it came to nothing, in words.
    pub(crate) fn describe_blank(&self) -> String {
        let status = match self.status {
            Some(status) => status.to_string(),
            None => "its exit status is unknown".to_owned(),
        };
        let said = self.session.child.stderr();
        let said = String::from_utf8_lossy(said.head());
        match said.lines().next() {
            Some(line) => format!("{status}, and it said {line:?}"),
            None => status,
        }
    }

    /// Whether it was there for something: it was given packets, or it ended of its own will.
    pub(crate) fn was_of_use(&self) -> bool {
        self.given() > 0 || self.has_died()
    }

    /// A bad exit after the last answer belongs to no packet. One that nobody knows is not good.
    pub(crate) fn remark(&self, cx: &Context<'_>) -> Option<Error> {
        let session = &self.session;
        let failed = self.status.is_none_or(|status| !cx.spec.accepts_status(status));
        let bad = session.child.is_abandoned() || failed;
        (session.flight.len() == 0 && bad && self.is_asked()).then(|| {
            if self.loss().is_some() {
                return self.lost_connection().hint("it had answered everything that it was asked");
            }
            let message = "a worker ended badly after its last answer";
            let error = session.describe_end(ErrorKind::Died, message, self.status);
            error.hint(wording::bad_exit(session.child.signalled().is_some()))
        })
    }

    /// Whether it was asked to end, ended well, and has answered too little of what it has read all the same.
    fn has_skipped(&self) -> bool {
        let session = &self.session;
        let ended_well = self.status.is_some_and(|status| status.success());
        let owed = session.owed();
        session.flight.len() > 0
            // What it has not read in full on each input that it must read, it could not answer.
            && (owed == 0 || session.not_read_in_full() < owed)
            && self.is_asked()
            && ended_well
            && !session.child.is_abandoned()
            // It was not heard to the end of what it has to say.
            && session.limit.is_none()
    }

    /// The error of a session that has answered more than it has read, or that was asked to end, ended well, and has
    /// answered only some of its requests: to which of them each reply belongs cannot be known. But where each reply
    /// is proven, or was accepted by `check`, a missing one shifts nothing.
    pub(crate) fn miscounted(&self, cx: &Context<'_>) -> Option<Error> {
        if self.session.has_answered_unread(cx) {
            return Some(self.answered_unread());
        }
        let proven = cx.spec.proves_replies() || cx.spec.check.is_some();
        if !self.has_skipped() || self.session.flight.replies() == 0 || proven {
            return None;
        }
        Some(self.too_few(None, cx))
    }

    fn answered_unread(&self) -> Error {
        let got = self.session.flight.answered();
        let kind = ErrorKind::ReplyCount { owed: got - 1, got };
        let message = "the worker wrote more replies than it has read requests";
        self.session.describe_end(kind, message, self.status).hint(wording::ANSWERED_UNREAD)
    }

    fn too_few(&self, packet: Option<PacketId>, cx: &Context<'_>) -> Error {
        let session = &self.session;
        let (owed, got) = (session.flight.given(), session.flight.replies());
        let mut message = format!(
            "the worker was sent {owed} request{} and answered {got} before it ended",
            if owed == 1 { "" } else { "s" }
        );
        let before = message.len();
        session.push_half(&mut message, cx);
        let half = message.len() > before;
        let error = session.describe_end(ErrorKind::ReplyCount { owed, got }, message, self.status);
        match packet {
            // It went on reading, or it would not have been asked to end.
            Some(packet) if cx.spec.replies.as_sentinel().is_some() => {
                error.hint(wording::no_mark(session.has_mark_on_stderr(packet, cx)))
            }
            _ => error.hint(wording::too_few(owed, got, half)),
        }
    }

    /// The error of a feed of which so many sessions in a row have come to nothing.
    pub(crate) fn give_up(&self, streak: u32, cx: &Context<'_>) -> Error {
        let session = &self.session;
        tell!(warn, session, "gave up", sessions = streak);
        let mut message = match streak {
            1 => "a worker ended without one reply".to_owned(),
            streak => format!("{streak} workers in a row ended without one reply"),
        };
        let kind = match (session.why, session.limit) {
            (Some(Why::Timeout), Some(limit)) => {
                message.push_str(&format!("; the last: {limit}"));
                ErrorKind::Timeout
            }
            _ => ErrorKind::Died,
        };
        session.push_half(&mut message, cx);
        session.describe_end(kind, message, self.status)
    }

    /// The rest of what it was given, unanswered and nobody's.
    pub(crate) fn take_unanswered(&mut self) -> VecDeque<Run> {
        self.session.flight.take_all()
    }

    /// What must become of what it has left unanswered.
    pub(crate) fn obligations(&mut self, cx: &Context<'_>) -> Vec<Obligation> {
        let mut obligations = Vec::new();
        let unread = self.session.unread();
        let mut runs = self.session.flight.take_all();
        let why = self.session.why;
        if self.loss().is_some() {
            return self.broken_off(runs, unread, cx);
        }
        if why == Some(Why::Distrusted) {
            // The packet concerned has its error already.
            self.resend(runs, unread, cx, &mut obligations);
            return obligations;
        }
        if self.has_skipped() && unread == 0 {
            return self.skipped(runs, cx);
        }
        let alone = self.given() == 1 && unread == 0;
        if alone || (why == Some(Why::Timeout) && self.session.prompt) {
            if let Some(head) = pop_front(&mut runs) {
                let error = self.session.unanswered(head.first(), self.status, cx);
                obligations.push(Obligation::Charged(head, error));
            }
            self.resend(runs, unread, cx, &mut obligations);
            return obligations;
        }
        let left_well = self.status.is_some_and(|status| status.success()) && why.is_none();
        let had_enough =
            self.session.flight.answered() > 0 && (left_well || why == Some(Why::ClosedInput));
        if had_enough || cx.spec.policy.at_most_once {
            self.resend(runs, unread, cx, &mut obligations);
        } else {
            isolate(runs, unread, &mut obligations);
        }
        obligations
    }

    /// It has ended well and left these unanswered: one that was alone has been skipped; of several, each is
    /// sent again alone, so that it is known which.
    fn skipped(&self, mut runs: VecDeque<Run>, cx: &Context<'_>) -> Vec<Obligation> {
        let alone = self.given() == 1;
        let mut obligations = Vec::new();
        while let Some(packet) = pop_front(&mut runs) {
            let once = cx.spec.policy.at_most_once;
            obligations.push(if alone {
                let first = packet.first();
                let error = if cx.spec.is_until_eof() {
                    self.session.unanswered(first, self.status, cx)
                } else {
                    self.too_few(Some(first), cx)
                };
                Obligation::Lost(packet, error)
            } else if once {
                Obligation::Lost(packet, self.not_again())
            } else {
                Obligation::Again(packet, Care::Alone)
            });
        }
        obligations
    }

    /// Sends unanswered packets again, or fails those that may have been read under `at_most_once`.
    fn resend(
        &self,
        runs: VecDeque<Run>,
        unread: u64,
        cx: &Context<'_>,
        obligations: &mut Vec<Obligation>,
    ) {
        let all: u64 = runs.iter().map(|run| run.len() as u64).sum();
        let once = cx.spec.policy.at_most_once;
        let mut touched = if once { all.saturating_sub(unread) } else { 0 };
        for mut run in runs {
            while touched > 0 && run.len() > 1 {
                touched -= 1;
                let head = run.split_front(1);
                obligations.push(Obligation::Lost(head, self.not_again()));
            }
            if touched > 0 {
                touched -= 1;
                obligations.push(Obligation::Lost(run, self.not_again()));
            } else {
                obligations.push(Obligation::Again(run, Care::Free));
            }
        }
    }

    fn not_again(&self) -> Error {
        let message = "the worker ended, and may have read this packet";
        self.session
            .describe_end(ErrorKind::NotRedelivered, message, self.status)
            .hint("at_most_once keeps it from being sent again")
    }

    // ---------------------------------------------------------------- drained feeds

    /// How a session of a drained feed ended, and what is bad about that.
    pub(crate) fn report(&self, cx: &Context<'_>) -> (SessionEnd, Option<Error>) {
        let early = !self.is_asked() || self.session.unread() > 0;
        let well = self.status.is_some_and(|status| cx.spec.accepts_status(status));
        let end = SessionEnd { worker: self.session.slot, status: self.status, early, well };
        let remark = (early || !well).then(|| {
            let message = match early {
                true => "a worker ended before its input did",
                false => "a worker ended badly",
            };
            self.session.describe_end(ErrorKind::Died, message, self.status)
        });
        (end, remark)
    }

    /// What a session of a drained feed has not read goes to others, what it may have read in part has
    /// failed.
    pub(crate) fn drained(&mut self, cx: &Context<'_>) -> Vec<Obligation> {
        let in_flight = self.session.flight.len();
        let unread = self.session.unread();
        let half = self.session.not_read_in_full().saturating_sub(unread.max(in_flight));
        let back = self.session.flight.take_back(unread.saturating_sub(in_flight));
        let mut obligations: Vec<_> = back.into_iter().map(Obligation::TakenBack).collect();
        for mut run in self.session.flight.take_back(half) {
            while run.len() > 1 {
                let head = run.split_front(1);
                obligations.push(Obligation::HalfRead(head, self.not_again()));
            }
            obligations.push(Obligation::HalfRead(run, self.not_again()));
        }
        let runs = self.session.flight.take_all();
        self.resend(runs, unread.min(in_flight), cx, &mut obligations);
        obligations
    }
}

impl Session {
    /// Whether it has answered a packet of which it has not read a byte, so that one of its replies is none. Where each
    /// is proven, or accepted by `check`, nothing is known to be wrong.
    fn has_answered_unread(&self, cx: &Context<'_>) -> bool {
        let proven = cx.spec.proves_replies() || cx.spec.check.is_some();
        let counts = !cx.drain && !cx.stopping && !proven && self.flight.answered() > 0;
        let mut ours = self
            .inputs
            .iter()
            .filter(|input| !input.is_absent() && !input.is_optional())
            .peekable();
        counts
            && self.why != Some(Why::Distrusted)
            && ours.peek().is_some()
            && ours.all(|input| input.has_answer_to_nothing(self.flight.newest_first()))
    }

    /// Whether it has not read a byte, as far as is known.
    fn has_read_nothing(&self) -> bool {
        let mut ours = self.inputs.iter().filter(|input| !input.is_absent());
        ours.all(|input| input.read() == Some(0))
    }

    /// How many of the newest packets, recent ones and those in flight, it cannot have read a byte of.
    fn unread(&self) -> u64 {
        let ours = self.inputs.iter().filter(|input| !input.is_absent());
        ours.map(|input| Input::unread(input, self.flight.newest_first())).min().unwrap_or(0)
    }
}

impl Session {
    /// How many of the newest packets, recent ones and those in flight, it is known not to have read in full.
    fn not_read_in_full(&self) -> u64 {
        let required =
            self.inputs.iter().filter(|input| !input.is_absent() && !input.is_optional());
        required.map(|input| input.not_read_in_full(self.flight.newest_first())).max().unwrap_or(0)
    }
}

/// Nobody can be charged. The head is sent again alone; the rest in two halves, each by itself, so
/// that the culprit is found after a few sessions even if the tool buffers. What the worker cannot
/// have read is free of suspicion.
fn isolate(mut runs: VecDeque<Run>, unread: u64, obligations: &mut Vec<Obligation>) {
    let all: u64 = runs.iter().map(|run| run.len() as u64).sum();
    if unread >= all {
        // It has read nothing of what is left.
        let free = |run| Obligation::Again(run, Care::Free);
        return obligations.extend(runs.into_iter().map(free));
    }
    let Some(head) = pop_front(&mut runs) else { return };
    obligations.push(Obligation::Again(head, Care::Alone));
    let rest: u64 = runs.iter().map(|run| run.len() as u64).sum();
    let suspects = rest - unread.min(rest);
    let first_half = suspects.div_ceil(2);
    let mut at = 0;
    for mut run in runs {
        loop {
            let (care, border) = match at {
                at if at < first_half => (Care::Together, first_half),
                at if at < suspects => (Care::Together, suspects),
                _ => (Care::Free, u64::MAX),
            };
            let most = usize::try_from(border - at).unwrap_or(usize::MAX);
            if run.len() <= most {
                at += run.len() as u64;
                obligations.push(Obligation::Again(run, care));
                break;
            }
            at += most as u64;
            let front = run.split_front(most);
            obligations.push(Obligation::Again(front, care));
        }
    }
}
