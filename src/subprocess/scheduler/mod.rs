//! The scheduler of a feed: which session gets which packets, what is sent again, what is started, and how
//! everything ends. Pure.
//!
//! Events come in as method calls, each with the time; what is to be done goes out as one value, the
//! [`Effects`]. The event loop performs and reports; a simulation does the same with simulated children and
//! a simulated clock.
//!
//! # Invariants
//! 1. Conservation: every packet that arrived is in exactly one place: the backlog, one session, or emitted
//!    in one span. `accepted == backlog + in sessions + resolved`.
//! 2. After each event at a session its news is taken in, it is offered to the dispatcher if it has room,
//!    and its next deadline is armed.
//! 3. Once the feed stops nothing waits to be given out any more: what still comes is halted at once.

/// What sessions must know of the feed, borrowed of those fields that say it.
macro_rules! context {
    ($self:ident) => {
        Context {
            spec: &$self.plan.spec,
            stats: &$self.plan.stats,
            pool: &$self.pool,
            now: $self.now,
            drain: $self.plan.drain,
            keep_requests: $self.plan.keep_requests,
            input_has_ended: $self.is_fully_pulled(),
            nothing_to_come: $self.is_fully_pulled() && $self.backlog.is_empty(),
            withholding: $self.withholding,
            waits: $self.backlog.has_free(),
            closes_sleepers: $self.closes_sleepers,
            stopping: $self.shutdown.is_stopping(),
            #[cfg(feature = "tracing")]
            span: &$self.span,
            usual_answer: $self.answers.usual(),
        }
    };
}

mod answers;
mod backlog;
mod dispatch;
mod hosts;
mod journal;
mod last;
mod recording;
mod redelivery;
mod shutdown;
mod starts;
mod tally;
mod timers;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::process::ExitStatus;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Limit};
use crate::record::{Batch, PacketId, Pool, Requests, Run};
use crate::stats::{Counters, Stats};
use crate::subprocess::evidence::Look;
use crate::subprocess::protocol::{Now, Operation, Sighting, Time};
use crate::subprocess::session::{Care, Context, News, Session};
use crate::template::Spec;
use crate::tuning::{LARGEST_SPARE_BATCH, READ_BYTES};
use crate::watch::JobLog;
use crate::window::gate::Gate;
use crate::window::handover::Arrival;
use crate::window::outlet::Order;
use crate::window::packet::{End, Outcome, Span};
use crate::window::unwind::Payload;

use answers::Answers;
use backlog::Backlog;
use dispatch::Lines;
use hosts::Hosts;
use journal::Journal;
use last::LastItem;
use recording::Before;
use redelivery::{Attempts, Losses};
use shutdown::Shutdown;
use starts::Starts;
use tally::Tallies;
use timers::Timers;

/// What is to be done, and what has come of it.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// To be performed and reported, in this order.
    pub(crate) operations: VecDeque<Operation>,
    /// What became of packets: for the outlet.
    pub(crate) spans: Vec<Span>,
    /// Slots that have got something to write.
    pub(crate) writers: Vec<usize>,
    /// Batches that are needed no more.
    pub(crate) spent: Vec<Requests>,
}

/// A place for a worker.
#[derive(Debug)]
enum Slot {
    /// Empty. Started when there is need, but not before `not_before`.
    Vacant { not_before: Now },
    /// A start was asked for.
    Starting,
    /// A session; whether it stands in one of the dispatcher's lines.
    Live { session: Box<Session>, queued: bool },
}

/// What a scheduler is made from.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) spec: Arc<Spec>,
    pub(crate) workers: usize,
    pub(crate) order: Order,
    pub(crate) origin: PacketId,
    /// Requests are kept beside replies, for the errors of `decode`.
    pub(crate) keep_requests: bool,
    /// Nothing comes back: a packet is done when it is written.
    pub(crate) drain: bool,
    /// Bytes that may wait to be written to every input of a session before it gets no more packets.
    pub(crate) backlog: u64,
    /// How many items there are at most, where the source says so.
    pub(crate) most: Option<u64>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) stats: Arc<Stats>,
    /// Where it is written down what became of each packet.
    pub(crate) log: Option<JobLog>,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Scheduler {
    plan: Plan,
    command: Arc<str>,
    pool: Arc<Pool>,
    slots: Vec<Slot>,
    backlog: Backlog,
    lines: Lines,
    /// Whether room has turned up since the last dispatch that a careful run may use.
    careful_may_go: bool,
    attempts: Attempts,
    losses: Losses,
    hosts: Hosts,
    answers: Answers,
    timers: Timers,
    starts: Starts,
    shutdown: Shutdown,
    last: LastItem,
    tallies: Tallies,
    journal: Option<Journal>,
    /// Packets that have come, and packets of which it is known what became.
    accepted: u64,
    resolved: u64,
    /// How many packets there are, once known.
    pulled: Option<u64>,
    withholding: bool,
    /// A session that sleeps may be closed: no such close was in vain.
    closes_sleepers: bool,
    /// A session may be waiting for the end of its input.
    awaits_end: bool,
    /// The time of what is happening.
    now: Time,
    /// When any worker last said anything, or was first asked.
    heard: Now,
    effects: Effects,
    news: News,
    /// The span in which the feed was started: those of its sessions are in it.
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

impl Scheduler {
    pub(crate) fn new(mut plan: Plan) -> Self {
        let workers = plan.workers;
        let mut timers = Timers::new(workers);
        if let Some(launch) = &plan.spec.launch
            && let Some(idle) = launch.idle()
        {
            plan.stats.hint(format!(
                "{workers} workers are fewer than there are hosts, so that {idle} has none: Launcher::slots() is the sum of the weights"
            ));
        }
        if let Some(limit) = plan.spec.policy.run_timeout {
            timers.arm_feed_really(limit);
        }
        Self {
            command: Arc::from(plan.spec.display()),
            pool: Arc::new(Pool::new(64, 2 * READ_BYTES)),
            slots: (0..workers).map(|_| Slot::Vacant { not_before: Now::ZERO }).collect(),
            backlog: Backlog::new(plan.origin),
            lines: Lines::default(),
            careful_may_go: false,
            attempts: Attempts::default(),
            losses: Losses::default(),
            hosts: Hosts::new(&plan.spec, workers),
            answers: Answers::default(),
            timers,
            starts: Starts::new(workers),
            shutdown: Shutdown::new(workers),
            last: LastItem::new(&plan),
            tallies: Tallies::new(workers),
            journal: plan.log.take().map(|log| Journal::new(log, workers)),
            accepted: 0,
            resolved: 0,
            pulled: None,
            withholding: false,
            closes_sleepers: true,
            awaits_end: false,
            now: Time::default(),
            heard: Now::ZERO,
            effects: Effects::default(),
            news: News::default(),
            #[cfg(feature = "tracing")]
            span: tracing::Span::current(),
            plan,
        }
    }

    /// What it takes to start its sessions: the template, the command as it is shown, the number of slots.
    pub(crate) fn setup(&self) -> (Arc<Spec>, Arc<str>, usize) {
        (Arc::clone(&self.plan.spec), Arc::clone(&self.command), self.slots.len())
    }

    /// Leaves a hint about the feed as a whole.
    pub(crate) fn hint(&self, hint: &str) {
        self.plan.stats.hint(hint.to_owned());
    }

    /// What is to be done.
    pub(crate) fn effects(&mut self) -> &mut Effects {
        &mut self.effects
    }

    pub(crate) fn has_operations(&self) -> bool {
        !self.effects.operations.is_empty()
    }

    /// Whether nothing comes back, so that it must be known what a session leaves unread.
    pub(crate) fn is_drain(&self) -> bool {
        self.plan.drain
    }

    /// Whether what a worker says on stderr belongs to its replies.
    pub(crate) fn keeps_stderr(&self) -> bool {
        self.plan.spec.policy.keep_stderr
    }

    /// What time it is, before anything happens at it: a grace that begins must not begin in the past.
    pub(crate) fn time_is(&mut self, now: Time) {
        self.now = now;
        self.tell_log_the_time();
    }

    /// How long it is until the next deadline.
    pub(crate) fn next_timer(&self) -> Option<Now> {
        self.timers.next(self.now)
    }

    /// Where a monitor learns what it has done.
    pub(crate) fn stats(&self) -> &Arc<Stats> {
        &self.plan.stats
    }

    fn counters(&self) -> &Counters {
        &self.plan.stats.counters
    }

    // ---------------------------------------------------------------- input

    /// Something came from the intake.
    pub(crate) fn arrived(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Batch(batch) => {
                let run = Run::whole(Arc::new(*batch));
                let count = run.len() as u64;
                if self.resolved == self.accepted {
                    // Nothing was under way: silence is counted from here.
                    self.heard = self.now.patient;
                    self.arm_idle();
                }
                self.accepted += count;
                Counters::add(&self.counters().accepted, count);
                self.enqueue(run, Care::Free);
            }
            Arrival::Settled(span) => {
                self.accepted += span.count;
                let failed = matches!(span.outcome, Outcome::Failed(_));
                if let Outcome::Failed(error) = &span.outcome {
                    self.log_failure(span.first, 0, error);
                }
                self.emit(span);
                if failed {
                    self.count_failure();
                }
            }
            Arrival::End { pulled, panic, error } => {
                self.pulled = Some(pulled);
                self.shutdown.source_ended(panic, error);
            }
        }
    }

    /// Whether input would be of use now: there is nothing to give out, so that what is pulled is what
    /// is needed; or it matters whether it has ended.
    pub(crate) fn wants_input(&self) -> bool {
        let asked = self.shutdown.is_stopping() || self.backlog.is_empty() || self.awaits_end;
        self.pulled.is_none() && asked
    }

    /// Whether more may come: the end of the input has not, and the intake was not given up.
    pub(crate) fn awaits_input(&self) -> bool {
        self.pulled.is_none()
    }

    /// How many runs wait to be given out.
    pub(crate) fn waiting_runs(&self) -> usize {
        self.backlog.runs()
    }

    /// Whether it is known what became of everything that came, and what may still come out of the source
    /// is not wanted.
    pub(crate) fn intake_is_lost(&self) -> bool {
        self.plan.gate.is_stopped() && self.pulled.is_none() && self.resolved == self.accepted
    }

    /// The intake will not be heard of again: there are no more packets than those that came.
    pub(crate) fn give_up_intake(&mut self) {
        self.pulled = Some(self.accepted);
    }

    fn nothing_to_come(&self) -> bool {
        self.is_fully_pulled() && self.backlog.is_empty()
    }

    /// Whether the input has ended, or has given as many items as it may.
    fn is_fully_pulled(&self) -> bool {
        self.pulled.is_some() || self.plan.most == Some(self.accepted)
    }

    fn all_resolved(&self) -> bool {
        self.pulled == Some(self.resolved)
    }

    fn enqueue(&mut self, run: Run, care: Care) {
        if self.shutdown.is_stopping() {
            // It was on its way when a failure ended the feed.
            self.halt_run(run);
        } else {
            self.backlog.put(run, care);
        }
    }

    // ---------------------------------------------------------------- events at sessions

    /// Lets something happen at a session, and takes in what follows from it.
    fn at(&mut self, slot: usize, event: impl FnOnce(&mut Session, &Context<'_>, &mut News)) {
        let before = self.before();
        let cx = context!(self);
        let Slot::Live { session, .. } = &mut self.slots[slot] else { return };
        event(session, &cx, &mut self.news);
        self.follow(slot, before);
    }

    /// What follows from an event at a session, whichever it was.
    #[inline(never)]
    fn follow(&mut self, slot: usize, before: Before) {
        if let Slot::Live { session, .. } = &mut self.slots[slot] {
            self.tallies.turned(session.turn(self.now.real));
        }
        self.take_in(slot);
        if let (Some(journal), Slot::Live { session, .. }) = (&mut self.journal, &self.slots[slot])
        {
            journal.turned(slot, session, self.now.real);
        }
        self.record(slot, before);
        self.look_at_last();
        self.offer(slot);
        self.arm(slot);
    }

    /// The session in a slot, if there is one.
    fn session(&self, slot: usize) -> Option<&Session> {
        match &self.slots[slot] {
            Slot::Live { session, .. } => Some(session),
            _ => None,
        }
    }

    fn sessions(&self) -> impl Iterator<Item = &Session> {
        (0..self.slots.len()).filter_map(|slot| self.session(slot))
    }

    fn context(&self) -> Context<'_> {
        context!(self)
    }

    /// Takes in what has come of an event at a session.
    fn take_in(&mut self, slot: usize) {
        let gate = &self.plan.gate;
        if self.news.held > 0 {
            gate.hold(std::mem::take(&mut self.news.held));
        }
        if self.news.released > 0 {
            gate.release(std::mem::take(&mut self.news.released));
        }
        if std::mem::take(&mut self.news.progress) {
            if self.starts.progress(slot) {
                self.plan.stats.withdraw_hint(slot);
            }
            self.awaits_end = false;
        }
        if self.news.is_about_tool() {
            self.learn_about_tool(slot);
        }
        if std::mem::take(&mut self.news.writes) {
            self.effects.writers.push(slot);
        }
        if !self.news.operations.is_empty() {
            self.effects.operations.extend(self.news.operations.drain(..));
        }
        if self.news.accepted > 0 {
            self.shutdown.accepted(slot, std::mem::take(&mut self.news.accepted));
        }
        if !self.news.spans.is_empty() && !self.take_in_plain_replies() {
            self.take_in_replies(slot);
        }
        while let Some(run) = self.news.answered.pop() {
            self.spend(run);
        }
        if self.news.is_bad() {
            self.take_in_bad_news();
        }
    }

    /// What an event has shown of the tool or of its host.
    #[cold]
    fn learn_about_tool(&mut self, slot: usize) {
        self.awaits_end |= std::mem::take(&mut self.news.awaits_end);
        self.withholding |= std::mem::take(&mut self.news.withholds);
        self.closes_sleepers &= !std::mem::take(&mut self.news.closed_in_vain);
        if let Some(took) = self.news.answer_took.take() {
            self.answers.took(took);
        }
        if std::mem::take(&mut self.news.greeted) {
            self.host_is_reached(slot);
        }
    }

    /// Takes in replies if nothing is to be looked up or written down for one of them, as a rule. Says whether it has.
    fn take_in_plain_replies(&mut self) -> bool {
        let mut resolved = self.resolved;
        let mut plain = self.journal.is_none()
            && self.attempts.is_empty()
            && self.losses.is_empty()
            && !self.plan.drain
            && !self.shutdown.is_dropped();
        for span in &self.news.spans {
            plain &= !self.last.is_in(span, resolved);
            resolved += span.count;
        }
        if plain {
            Counters::add(&self.counters().replies, resolved - self.resolved);
            self.resolved = resolved;
            self.effects.spans.append(&mut self.news.spans);
        }
        plain
    }

    #[cold]
    fn take_in_replies(&mut self, slot: usize) {
        let mut spans = std::mem::take(&mut self.news.spans);
        if !self.plan.drain {
            let count = spans.iter().map(|span| span.count).sum();
            Counters::add(&self.counters().replies, count);
        }
        if self.journal.is_some() {
            for (i, span) in spans.iter().enumerate() {
                let run = self.news.answered.get(i).cloned();
                self.log_replies(slot, span, run.as_ref());
            }
        }
        for span in spans.drain(..) {
            self.attempts.forget(span.first, span.count);
            self.losses.forget(span.first, span.count);
            self.emit(span);
        }
        self.news.spans = spans;
    }

    #[cold]
    fn take_in_bad_news(&mut self) {
        if let Some((run, problem)) = self.news.failed.take() {
            match problem {
                Ok(error) => self.emit_failure(run, error),
                Err(payload) => self.emit_panic(run, payload),
            }
        }
        if let Some(remark) = self.news.remark.take() {
            self.shutdown.remark(remark);
        }
        if let Some(error) = self.news.fatal.take() {
            self.fail(error);
        }
    }

    fn arm(&mut self, slot: usize) {
        let Slot::Live { session, .. } = &self.slots[slot] else { return };
        let deadline = match session.is_plain() {
            true => (session.quiet_until(&self.context()), None),
            false => session.wakes_at(&self.context()),
        };
        #[cfg(test)]
        assert_eq!(deadline, session.wakes_at(&self.context()));
        self.timers.arm(slot, deadline);
    }

    /// Whether the outputs of this slot may be read now. While the job log is full no replies are read. Over the byte
    /// bound only the worker that holds what the consumer waits for may be. A worker that owes nothing, or that has
    /// exited, always is: otherwise the bound could stop the very thing that would make room, and what an exited one has
    /// left would be lost.
    pub(crate) fn may_read(&self, slot: usize) -> bool {
        let gate = &self.plan.gate;
        let log_is_full = self.is_log_full();
        if self.shutdown.is_stopping() || !(log_is_full || gate.is_full()) {
            return true;
        }
        let Some(session) = self.session(slot) else { return true };
        if session.is_always_read() {
            return true;
        }
        if log_is_full {
            return false;
        }
        let yielded = gate.total_yielded();
        match self.plan.order {
            Order::Completion => yielded >= self.resolved,
            Order::Input => {
                let origin = self.plan.origin;
                // What was sent again may stand behind later packets: those must come out first.
                session.has(origin.plus(yielded), origin)
                    // The head is in nobody's hands: what makes room first will get it.
                    || self.backlog.head().is_some_and(|(first, count)| {
                        (first.since(origin)..first.since(origin) + count).contains(&yielded)
                    })
            }
        }
    }

    /// Room for the next read of an output.
    pub(crate) fn read_room(&mut self, slot: usize, output: usize) -> &mut [u8] {
        let cx = context!(self);
        match &mut self.slots[slot] {
            Slot::Live { session, .. } => session.read_room(output, &cx),
            _ => &mut [],
        }
    }

    /// So many bytes were read into the room.
    pub(crate) fn read(&mut self, slot: usize, output: usize, n: usize) {
        self.heard = self.now.patient;
        self.at(slot, |session, cx, news| session.read(output, n, cx, news));
    }

    /// An output has come to its end.
    pub(crate) fn read_closed(&mut self, slot: usize, output: usize) {
        self.at(slot, |session, cx, news| session.read_closed(output, cx, news));
    }

    /// An output, or stderr (`None`), cannot be read.
    pub(crate) fn read_failed(&mut self, slot: usize, output: Option<usize>, error: io::Error) {
        self.at(slot, |session, cx, news| session.read_failed(output, error, cx, news));
    }

    /// An input cannot be written.
    pub(crate) fn write_failed(&mut self, slot: usize, channel: usize, error: io::Error) {
        self.at(slot, |session, cx, news| session.write_failed(channel, error, cx, news));
    }

    /// A worker has written this on stderr.
    pub(crate) fn heard_stderr(&mut self, slot: usize, bytes: &[u8]) {
        self.heard = self.now.patient;
        self.at(slot, |session, cx, news| session.heard_stderr(bytes, cx, news));
    }

    /// Its stderr has come to its end.
    pub(crate) fn stderr_closed(&mut self, slot: usize) {
        self.at(slot, |session, _, _| session.stderr_closed());
    }

    /// The bytes to write next to an input of a slot.
    pub(crate) fn slices<'a>(
        &'a self,
        slot: usize,
        channel: usize,
        slices: &mut [IoSlice<'a>],
    ) -> usize {
        self.session(slot).map_or(0, |session| session.slices(channel, slices))
    }

    /// So many of them were written.
    pub(crate) fn wrote(&mut self, slot: usize, channel: usize, n: usize) {
        self.at(slot, |session, cx, news| session.wrote(channel, n, cx, news));
    }

    /// Nobody reads an input any more.
    pub(crate) fn write_closed(&mut self, slot: usize, channel: usize) {
        self.at(slot, |session, cx, news| session.write_closed(channel, cx, news));
    }

    /// So many bytes of an input will never be read.
    pub(crate) fn left_unread(&mut self, slot: usize, channel: usize, bytes: u64) {
        self.at(slot, |session, _, _| session.left_unread(channel, bytes));
    }

    /// What a look at a quiet worker has shown.
    pub(crate) fn looked(&mut self, slot: usize, look: Look) {
        self.at(slot, |session, cx, news| session.looked(look, cx, news));
    }

    /// What a look at the far process of a session has shown.
    pub(crate) fn sighted(&mut self, slot: usize, pid: u32, sighting: Sighting) {
        self.at(slot, |session, cx, news| session.sighted(pid, sighting, cx, news));
    }

    /// A process has exited. What it wrote may still be on its way.
    pub(crate) fn exited(&mut self, slot: usize) {
        self.at(slot, |session, cx, _| session.exited(cx));
    }

    /// A session is over, its process reaped and its slot empty.
    pub(crate) fn ended(&mut self, slot: usize, status: Option<ExitStatus>) {
        let vacant = Slot::Vacant { not_before: self.now.patient };
        let Slot::Live { mut session, queued } = std::mem::replace(&mut self.slots[slot], vacant)
        else {
            return;
        };
        let before = self.before();
        if queued {
            self.lines.leave(slot);
        }
        self.timers.disarm(slot);
        self.tallies.turned(session.rest(self.now.real));
        self.hosts.ended(slot);
        let mut news = std::mem::take(&mut self.news);
        let ended = session.ended(status, &self.context(), &mut news);
        let (answered, busy) = ended.tally(self.now.real);
        self.tallies.ended(slot, answered, busy);
        self.news = news;
        self.take_in(slot);
        if ended.has_died() {
            Counters::add(&self.counters().deaths, 1);
        }
        if !self.shutdown.is_stopping() {
            self.settle(slot, ended);
            self.record_end(slot, status, before);
            self.close_if_done();
            self.look_at_last();
        } else {
            self.record_end(slot, status, before);
        }
    }

    // ---------------------------------------------------------------- time

    /// Time has passed. What happened until `reported` is known.
    pub(crate) fn tick(&mut self, reported: Time) {
        while let Some(slot) = self.timers.pop(reported) {
            let readable = self.may_read(slot);
            self.at(slot, |session, cx, news| session.tick(readable, reported.patient, cx, news));
        }
        // What a session's own limit has ended by now needs no limit of the feed's.
        if self.timers.take_feed(reported) {
            self.look_at_feed(reported);
        }
    }

    fn arm_idle(&mut self) {
        if let Some(limit) = self.plan.spec.policy.idle_timeout {
            self.timers.arm_feed(self.now.patient.saturating_add(limit));
        }
    }

    /// The limits that concern the whole feed.
    fn look_at_feed(&mut self, reported: Time) {
        self.look_at_last();
        self.give_last_up(reported.patient);
        if self.shutdown.is_stopping() {
            return;
        }
        let policy = &self.plan.spec.policy;
        if let Some(limit) = policy.run_timeout
            && !self.all_resolved()
        {
            if reported.real < limit {
                self.timers.arm_feed_really(limit);
            } else {
                return self.run_out(Limit::RunTimeout(limit));
            }
        }
        if let Some(limit) = policy.idle_timeout
            && self.resolved < self.accepted
        {
            if self.plan.gate.is_full() || self.is_log_full() {
                // They may have spoken; it is we who do not read.
                self.heard = self.now.patient;
            }
            let deadline = self.heard.saturating_add(limit);
            if reported.patient >= deadline {
                return self.run_out(Limit::IdleTimeout(limit));
            }
            self.timers.arm_feed(deadline);
        }
    }

    fn run_out(&mut self, limit: Limit) {
        Counters::add(&self.counters().timeouts, 1);
        self.fail(Error::timeout(limit).running(&self.command));
    }

    // ---------------------------------------------------------------- what became of packets

    /// Emits what became of some packets.
    #[inline]
    fn emit(&mut self, span: Span) {
        let before = self.resolved;
        self.resolved += span.count;
        if self.shutdown.is_dropped() {
            self.plan.gate.release(span.weight);
        } else if self.last.is_in(&span, before) {
            self.effects.spans.extend(self.last.keep(span, self.now.patient));
            self.look_at_last();
        } else {
            self.effects.spans.push(span);
        }
    }

    /// Lets the last item go if no session can turn out any more to have said too much.
    fn look_at_last(&mut self) {
        let Some(until) = self.last.held_until() else { return };
        let open = if self.plan.spec.policy.require_clean_exit {
            self.sessions().any(Session::may_end_badly)
        } else {
            self.sessions().any(Session::may_say_more)
        };
        match open {
            true => self.timers.arm_feed(until),
            false => self.effects.spans.extend(self.last.take()),
        }
    }

    /// The same if that has taken too long.
    fn give_last_up(&mut self, reported: Now) {
        if self.last.held_until().is_none_or(|until| reported < until) {
            return;
        }
        let clean = self.plan.spec.policy.require_clean_exit;
        let awaited =
            |session: &Session| session.may_end_badly() && (clean || !session.is_heard_out());
        if self.sessions().any(awaited) {
            let message = "a worker that has answered did not close its stdout in time, so that it is not \
                           known whether it says more than it was asked";
            let remark = Error::new(
                ErrorKind::ReplyCount { owed: self.resolved, got: self.resolved },
                message,
            );
            self.shutdown.remark(remark.running(&self.command));
        }
        self.effects.spans.extend(self.last.take());
    }

    /// Emits the failure of the one packet in `run`, and lets go of its request.
    fn emit_failure(&mut self, run: Run, error: Error) {
        debug_assert_eq!(run.len(), 1);
        let counters = self.counters();
        let kind = match error.kind() {
            ErrorKind::Died | ErrorKind::NotRedelivered => Some(&counters.failed_died),
            ErrorKind::Timeout => Some(&counters.failed_timeout),
            ErrorKind::Reply | ErrorKind::Check => Some(&counters.failed_reply),
            _ => None,
        };
        if let Some(counter) = kind {
            Counters::add(counter, 1);
        }
        let packet = run.first();
        let error = error.at(packet.0).asked(run.request());
        self.log_failure(packet, run.sent(0), &error);
        self.attempts.forget(packet, 1);
        self.losses.forget(packet, 1);
        // What it has of the packet is held until it is yielded.
        let weight = error.weight();
        self.plan.gate.hold(weight);
        self.spend(run);
        self.emit(Span { weight, ..Span::one(packet, Outcome::Failed(error)) });
        self.count_failure();
    }

    fn emit_panic(&mut self, run: Run, payload: Payload) {
        let packet = run.first();
        self.spend(run);
        self.emit(Span::one(packet, Outcome::Panicked(payload)));
    }

    /// The requests of a run are needed no more.
    fn spend(&mut self, run: Run) {
        self.plan.gate.release(run.weight());
        self.recycle(run);
    }

    /// Gives the batch of a run back if this was its last run. A large one goes at once, as its bytes are
    /// not counted any more.
    fn recycle(&mut self, run: Run) {
        if let Some(batch) = Arc::into_inner(run.batch)
            && batch.bytes() <= LARGEST_SPARE_BATCH
        {
            self.effects.spent.push(batch);
        }
    }

    /// The end, once everything is over.
    pub(crate) fn take_end(&mut self) -> End {
        self.shutdown.take_end(&self.command)
    }
}

/// What the simulation's oracle is shown.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Audit {
    pub(crate) accepted: u64,
    pub(crate) resolved: u64,
    pub(crate) waiting: u64,
    /// Bytes that it holds: of requests, of replies that are held, of spans that are not handed over.
    pub(crate) weight: usize,
    pub(crate) sessions: Vec<crate::subprocess::session::Audit>,
    /// A slot that has room and does not stand in line, or is kept empty for nothing, if there is one.
    pub(crate) neglected: Option<usize>,
    pub(crate) stopping: bool,
    pub(crate) dropped: bool,
    pub(crate) all_vacant: bool,
}

#[cfg(test)]
impl Scheduler {
    pub(crate) fn audit(&self) -> Result<Audit, String> {
        let sessions: Vec<_> = self.sessions().map(Session::audit).collect();
        let waiting = self.backlog.audit()?;
        self.audit_tallies()?;
        let held: usize = sessions.iter().map(|session| session.weight + session.held).sum();
        let spans: usize = self.effects.spans.iter().map(|span| span.weight).sum();
        let spans = spans + self.last.weight();
        let neglected = |slot: &Slot| match slot {
            Slot::Live { session, queued } => {
                let stays_empty =
                    session.is_quarantined() && session.is_open() && session.owed() == 0;
                stays_empty || (!queued && session.takes_more(&self.plan.spec, self.plan.backlog))
            }
            _ => false,
        };
        Ok(Audit {
            accepted: self.accepted,
            resolved: self.resolved,
            waiting: self.backlog.packets(),
            weight: waiting + held + spans,
            neglected: self.slots.iter().position(neglected),
            stopping: self.shutdown.is_stopping(),
            dropped: self.shutdown.is_dropped(),
            all_vacant: self.slots.iter().all(|slot| matches!(slot, Slot::Vacant { .. })),
            sessions,
        })
    }
}
