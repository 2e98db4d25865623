//! One session: one child process in a worker's slot, seen from the outside. Pure.
//!
//! Events come in as method calls; what follows from them goes out as [`News`], and at its end as
//! [`Ended`]. What a session must know of the feed comes in as a [`Context`].
//!
//! ```text
//!                close inputs                 kill                       (see child)
//!   open ----------------------> closing -----------> killing ---> exited ---> over
//! ```
//!
//! # Invariants
//! 1. A session answers in the order in which it was given; see [`flight`].
//! 2. A session that has not answered while its stdin was open is not proven: its replies are held until it
//!    has ended well with the number it owes.
//! 3. An input is closed by us when everything queued is written, or after its reader was killed.
//! 4. The first reason for an end stays (`why`), but that a worker has closed its stdin says more than
//!    that it was asked to end.
//! 5. Whatever can end has a [deadline](deadlines), or is ended by an event that the operating system owes us.

macro_rules! tell {
    ($level:ident, $session:expr, $state:literal $(, $name:ident = $value:expr)*) => {{
        #[cfg(feature = "tracing")]
        tracing::$level!(
            target: "subfeed",
            parent: &$session.span,
            worker = $session.label.worker,
            pid = $session.label.pid,
            session = $session.serial,
            state = $state,
            $($name = $value,)*
        );
        #[cfg(not(feature = "tracing"))]
        if false {
            let _ = (&$session, $(&$value,)*);
        }
    }};
}

mod closing;
mod cutting;
mod deadlines;
mod depth;
mod diagnostics;
mod drain;
mod ended;
mod far;
mod flight;
mod input;
mod last_words;
mod output;
mod stall;
mod tally;
mod together;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Limit, StderrExcerpt, excerpt};
use crate::record::{PacketId, Pool, Run};
use crate::stats::{Counters, Stats};
use crate::subprocess::child::Child;
use crate::subprocess::protocol::{Now, Operation, Spawned, Time};
use crate::template::Spec;
use crate::window::packet::{Label, Span};
use crate::window::unwind::Payload;

use depth::Depth;
use far::Far;
use flight::Flight;
use input::Input;
use output::Output;
use stall::Stall;
use tally::AtWork;
use together::output_name;

pub(crate) use ended::{Care, Ended, Obligation};
pub(crate) use far::Loss;
pub(crate) use tally::Turn;

/// What a session must know of its feed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) stats: &'a Stats,
    /// Spare buffers for what is read.
    pub(crate) pool: &'a Arc<Pool>,
    pub(crate) now: Time,
    /// Nothing comes back: a packet is done when it is written.
    pub(crate) drain: bool,
    /// Requests are kept beside replies, for the errors of `decode`.
    pub(crate) keep_requests: bool,
    /// The input has ended.
    pub(crate) input_has_ended: bool,
    /// The input has ended, and nothing waits to be given out.
    pub(crate) nothing_to_come: bool,
    /// The tool was seen to withhold its replies.
    pub(crate) withholding: bool,
    /// Something waits to be given out, and may go to any session.
    pub(crate) waits: bool,
    /// A session that only sleeps may be closed before the input has ended.
    pub(crate) closes_sleepers: bool,
    /// The feed ends before its time: nothing is cut any more.
    pub(crate) stopping: bool,
    /// The span in which the feed was started.
    #[cfg(feature = "tracing")]
    pub(crate) span: &'a tracing::Span,
    /// How long an answer usually takes, as far as is known.
    pub(crate) usual_answer: Option<Duration>,
}

/// Why a session does not go on. The first reason counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The input has ended: nothing more will be given.
    Done,
    /// It withholds replies, or has served long enough.
    Recycled,
    /// It closed its stdin (or a side input that is not optional).
    ClosedInput,
    /// It closed its stdout and went on running.
    ClosedOutput,
    /// A time limit ran out.
    Timeout,
    /// What it wrote cannot be trusted any more; the packet concerned has its `Err`.
    Distrusted,
    /// The feed has ended before its time: dropped, or a fatal error.
    Stopped,
}

impl Why {
    /// The same in a log.
    fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Recycled => "recycled",
            Self::ClosedInput => "closed its stdin",
            Self::ClosedOutput => "closed its stdout",
            Self::Timeout => "timeout",
            Self::Distrusted => "distrusted",
            Self::Stopped => "stopped",
        }
    }

    /// Whether we closed its inputs in good order, so that it owes a reply for every request.
    fn is_asked(self) -> bool {
        matches!(self, Self::Done | Self::Recycled)
    }
}

/// What an event at a session has led to, for the scheduler to take in. It is filled by the session and
/// emptied by the scheduler, so that the room in it is used again.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// What became of packets, and the requests that were answered.
    pub(crate) spans: Vec<Span>,
    pub(crate) answered: Vec<Run>,
    /// One packet that failed.
    pub(crate) failed: Option<(Run, Result<Error, Payload>)>,
    /// What ends the feed.
    pub(crate) fatal: Option<Error>,
    /// What belongs to no packet.
    pub(crate) remark: Option<Error>,
    /// What is to be done, in this order.
    pub(crate) operations: Vec<Operation>,
    /// Bytes of replies that are held from now on, or no longer.
    pub(crate) held: usize,
    pub(crate) released: usize,
    /// Packets that count as handed over, where a feed is drained.
    pub(crate) accepted: u64,
    /// A reply came, or a byte was certainly read.
    pub(crate) progress: bool,
    /// There is something to write.
    pub(crate) writes: bool,
    /// The tool was seen to withhold its replies.
    pub(crate) withholds: bool,
    /// It may be waiting for the end of its input.
    pub(crate) awaits_end: bool,
    /// A session that slept was closed, and did not answer for that.
    pub(crate) closed_in_vain: bool,
    /// It has said hello.
    pub(crate) greeted: bool,
    /// A reply from afar took so long.
    pub(crate) answer_took: Option<Duration>,
}

impl News {
    /// Whether it says something of the tool or of its host, which is rare.
    #[inline]
    pub(crate) fn is_about_tool(&self) -> bool {
        (self.awaits_end | self.withholds | self.closed_in_vain | self.greeted)
            || self.answer_took.is_some()
    }

    /// Whether something has failed.
    #[inline]
    pub(crate) fn is_bad(&self) -> bool {
        self.failed.is_some() || self.remark.is_some() || self.fatal.is_some()
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Session {
    slot: usize,
    /// It runs behind a launcher.
    far: Option<Box<Far>>,
    serial: u64,
    label: Arc<Label>,
    /// Open as long as this is there.
    #[cfg(feature = "tracing")]
    span: tracing::Span,
    child: Child,
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    flight: Flight,
    depth: Depth,
    stall: Stall,
    why: Option<Why>,
    /// The limit of ours that it ran into.
    limit: Option<Limit>,
    /// Its inputs are to be closed, or are.
    closing: bool,
    /// Its banner is still to come, or to be skipped.
    in_banner: bool,
    /// It has said that it is ready, as it was to.
    was_ready: bool,
    /// It answered while its stdin was open.
    proven: bool,
    /// It was seen owing nothing while its stdin was open: it does not buffer.
    prompt: bool,
    stdin_closed: bool,
    /// It holds suspects: nothing else joins them.
    quarantined: bool,
    started: Now,
    /// Until then it was not read, for want of room, although a limit ran out.
    unheard_until: Now,
    at_work: AtWork,
    /// When the packet it must answer next became that.
    head_since: Now,
    /// When anything last moved in or out.
    moved: Now,
    closed_output_at: Option<Now>,
    /// A limit of the template's may concern it, or something else than its quiet from its start on.
    is_limited: bool,
    /// Since when something is kept that may be its last words.
    last_words_since: Option<Now>,
    /// What it has written on stderr since its last reply, where that is kept.
    stderr_since: StderrExcerpt,
    /// What it had said before it was asked anything.
    said_unasked: Option<String>,
    /// It had answered everything and closed its stdout, but went on running until it was killed.
    lingered: bool,
}

impl Session {
    /// A session whose child has just been started in `slot`. `serial` is a number of its own; `restart` says
    /// whether it takes the place of one that has ended.
    pub(crate) fn new(
        slot: usize,
        serial: u64,
        restart: bool,
        command: &Arc<str>,
        spawned: &Spawned,
        cx: &Context<'_>,
        news: &mut News,
    ) -> Self {
        let spec = cx.spec;
        let mut inputs = vec![Input::default()];
        for side in spec.channels.side_inputs.iter().filter(|side| side.file.is_none()) {
            inputs.push(Input::side(inputs.len(), side.optional));
        }
        if !spawned.inputs[0] {
            inputs[0].is_elsewhere();
        }
        let sides = spec.channels.side_outputs.iter().filter_map(|side| side.framing.as_ref());
        let outputs = std::iter::once(&spec.replies).chain(sides);
        let outputs: Vec<Output> = outputs
            .zip(&spawned.outputs)
            .map(|(framing, &piped)| Output::new(framing, piped))
            .collect();
        let piped = spawned.outputs.iter().filter(|&&piped| piped).count();
        let seat = spec.seat_of(slot);
        let far = spec.link(&seat).map(|link| Box::new(Far::new(link)));
        let label = Label {
            worker: slot,
            pid: Some(spawned.pid),
            host: far.as_ref().map(|far| Arc::clone(far.host())),
            command: Arc::clone(command),
        };
        let depth = if cx.withholding || spec.policy.at_eof() {
            Depth::unlimited()
        } else {
            let (least, target) = far.as_ref().map_or((1, Duration::ZERO), |far| far.depth());
            Depth::new(least, target)
        };
        let now = cx.now.patient;
        let mut session = Self {
            slot,
            far,
            serial,
            #[cfg(feature = "tracing")]
            span: tracing::debug_span!(
                target: "subfeed",
                parent: cx.span,
                "session",
                worker = slot,
                pid = spawned.pid,
                session = serial,
                command = &**command,
                status = tracing::field::Empty,
                why = tracing::field::Empty,
                answered = tracing::field::Empty,
            ),
            label: Arc::new(label),
            child: Child::new(piped, spawned.stderr),
            inputs,
            outputs,
            flight: Flight::default(),
            depth,
            stall: Stall::default(),
            why: None,
            limit: None,
            closing: false,
            in_banner: !spec.words.banner.is_empty(),
            was_ready: false,
            proven: false,
            prompt: false,
            stdin_closed: false,
            quarantined: false,
            started: now,
            unheard_until: Now::ZERO,
            at_work: AtWork::default(),
            head_since: now,
            moved: now,
            closed_output_at: None,
            is_limited: false,
            last_words_since: None,
            stderr_since: StderrExcerpt::default(),
            said_unasked: None,
            lingered: false,
        };
        session.is_limited = session.may_be_limited(spec);
        tell!(debug, session, "started", restart = restart);
        if let Some(line) = session.first_line() {
            session.inputs[0].push_words(line);
            news.writes = true;
        }
        if let Some(preamble) = &spec.words.preamble {
            session.inputs[0].push_words(Arc::clone(preamble));
            news.writes = true;
        }
        session
    }

    // ---------------------------------------------------------------- what can be asked of it

    /// Replies that are still to come.
    pub(crate) fn owed(&self) -> u64 {
        self.flight.owed()
    }

    /// Whether it was ever given a packet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.flight.given() == 0
    }

    /// Whether it has answered.
    pub(crate) fn has_answered(&self) -> bool {
        self.flight.answered() > 0
    }

    /// Whether it has answered and may say more, so that it may turn out to have said too much.
    ///
    /// What it has left unread, and answered all the same, is known when it is over, if it is not far away.
    pub(crate) fn may_say_more(&self) -> bool {
        self.may_end_badly() && !(self.far.is_some() && self.is_heard_out())
    }

    /// Whether it has closed all its outputs.
    pub(crate) fn is_heard_out(&self) -> bool {
        self.outputs.iter().all(Output::is_closed)
    }

    /// Whether it has answered, and how it ends is not known yet.
    pub(crate) fn may_end_badly(&self) -> bool {
        self.has_answered() && !self.child.is_killed()
    }

    /// Whether it has answered while its stdin was open.
    pub(crate) fn is_warm(&self) -> bool {
        self.depth.is_warm()
    }

    /// Whether its inputs are open and stay so.
    pub(crate) fn is_open(&self) -> bool {
        self.child.is_running() && !self.closing
    }

    /// Whether it holds suspects, or is kept empty for some.
    pub(crate) fn is_quarantined(&self) -> bool {
        self.quarantined
    }

    /// Whether its outputs are read even where there is no room: it owes nothing, or has exited, and what
    /// it has left in its pipe is little, and lost if it is not read in time.
    pub(crate) fn is_always_read(&self) -> bool {
        self.owed() == 0 || self.child.has_exited()
    }

    /// Whether this packet is in its hands.
    pub(crate) fn has(&self, packet: PacketId, origin: PacketId) -> bool {
        let at = packet.since(origin);
        self.flight.runs().any(|run| {
            let first = run.first().since(origin);
            (first..first + run.len() as u64).contains(&at)
        })
    }

    /// Whether it may be given anything at all. Whenever a session comes to that it must be offered to the
    /// dispatcher: nobody asks it again.
    pub(crate) fn takes_more(&self, spec: &Spec, backlog: u64) -> bool {
        self.is_open()
            && self.is_greeted()
            && !self.quarantined
            && self.flight.len() < self.most_in_flight(spec)
            && spec.session_records().is_none_or(|most| self.flight.given() < most)
            && self.closed_output_at.is_none()
            && !self.may_be_leaving()
            && !(self.in_banner && spec.words.banner.holds_requests())
            && !self.inputs.iter().any(Input::is_clogged)
            && !self.is_backed_up(backlog)
    }

    /// How many packets it may be given.
    pub(crate) fn room(&self, spec: &Spec) -> u64 {
        let room = self.most_in_flight(spec).saturating_sub(self.flight.len());
        match spec.session_records() {
            Some(most) => room.min(most.saturating_sub(self.flight.given())),
            None => room,
        }
    }

    fn most_in_flight(&self, spec: &Spec) -> u64 {
        self.depth.limit().min(spec.policy.in_flight.unwrap_or(u64::MAX))
    }

    /// Whether it gets only what no other session takes: it may be waiting for more, but that is not sure.
    pub(crate) fn is_served_last(&self) -> bool {
        self.stall.is_doubtful()
    }

    /// Whether so many bytes wait on every input: more would only lie here. While one has less the worker
    /// may be waiting for just that.
    fn is_backed_up(&self, backlog: u64) -> bool {
        let mut open = self.inputs.iter().filter(|input| !input.is_closed()).peekable();
        open.peek().is_some() && open.all(|input| input.is_backed_up(backlog))
    }

    /// When something is due: by the patient clock, and in real time.
    pub(crate) fn wakes_at(&self, cx: &Context<'_>) -> (Option<Now>, Option<Now>) {
        (self.next_deadline(cx), self.child.deadline())
    }

    // ---------------------------------------------------------------- requests

    /// There was more to give than it had room for.
    pub(crate) fn was_bound(&mut self) {
        self.depth.was_bound();
    }

    /// It gets nothing more until it is empty.
    pub(crate) fn quarantine(&mut self) {
        self.quarantined = true;
    }

    /// Gives it packets.
    pub(crate) fn give(&mut self, run: Run, cx: &Context<'_>, news: &mut News) {
        let now = cx.now.patient;
        if self.is_fresh() {
            self.remember_what_it_said_unasked();
        }
        if self.owed() == 0 {
            self.head_since = now;
            self.depth.resumed(now);
        }
        self.moved = now;
        self.stall.moved();
        for input in &mut self.inputs {
            input.push(run.clone());
        }
        self.flight.give(run);
        news.writes = true;
        if cx.drain {
            // Where every channel is optional, it has been handed all that it must.
            self.settle_written(cx, news);
        }
        if self.outputs.iter().any(|output| !output.uncut().is_empty()) {
            // It spoke before it was asked: what it said counts from now.
            self.cut(cx, news);
        }
        if cx.spec.session_records().is_some_and(|most| self.flight.given() >= most) {
            // That is all that a session of this template is for.
            self.part(Why::Recycled, cx, news);
        }
    }

    #[cold]
    fn remember_what_it_said_unasked(&mut self) {
        let said = self.outputs[0].uncut();
        self.said_unasked = (!said.is_empty()).then(|| excerpt(said));
    }

    /// Takes back everything that it has not answered: the feed has failed.
    pub(crate) fn take_unanswered(&mut self) -> VecDeque<Run> {
        self.flight.take_all()
    }

    /// The bytes to write next to an input; how many of the slices they fill.
    pub(crate) fn slices<'a>(&'a self, channel: usize, slices: &mut [IoSlice<'a>]) -> usize {
        self.inputs[channel].slices(slices)
    }

    /// `n` bytes were written to an input.
    pub(crate) fn wrote(&mut self, channel: usize, n: usize, cx: &Context<'_>, news: &mut News) {
        Counters::add(&cx.stats.counters.written_bytes, n as u64);
        self.moved = cx.now.patient;
        self.stall.moved();
        self.inputs[channel].wrote(n);
        if cx.drain {
            self.settle_written(cx, news);
        }
        if self.inputs[channel].is_written() {
            self.close_what_is_written(news);
        }
    }

    /// So many bytes of an input lay in the pipe when nobody could read them any more.
    pub(crate) fn left_unread(&mut self, channel: usize, bytes: u64) {
        if self.far.is_some() {
            // The pipe leads to the launcher, who has sent on what it took.
            return;
        }
        self.inputs[channel].left_unread(bytes);
    }

    // ---------------------------------------------------------------- outputs

    /// Room for the next read of an output, at least one byte.
    pub(crate) fn read_room(&mut self, output: usize, cx: &Context<'_>) -> &mut [u8] {
        self.outputs[output].room(cx.spec.policy.reply_limit, cx.pool)
    }

    /// `n` bytes were read into the room. Whatever is read counts as movement.
    pub(crate) fn read(&mut self, output: usize, n: usize, cx: &Context<'_>, news: &mut News) {
        Counters::add(&cx.stats.counters.read_bytes, n as u64);
        self.moved = cx.now.patient;
        self.has_spoken(cx);
        self.child.heard(cx.now);
        self.outputs[output].filled(n);
        self.outputs[output].keep_nothing();
        if self.far.is_some() {
            self.pass_output(output, n, cx, news);
        }
        self.cut(cx, news);
    }

    /// An output has come to its end.
    pub(crate) fn read_closed(&mut self, output: usize, cx: &Context<'_>, news: &mut News) {
        if self.breaks_off() {
            self.outputs[output].breaks_off();
        }
        if !self.outputs[output].close() {
            return;
        }
        self.child.output_closed();
        if !cx.drain && self.child.is_running() {
            self.closed_output_at.get_or_insert(cx.now.patient);
        }
        self.cut(cx, news);
    }

    /// The system does not let us read an output, or stderr (`None`). What it says there is lost, and nobody can
    /// say what that was.
    pub(crate) fn read_failed(
        &mut self,
        output: Option<usize>,
        error: io::Error,
        cx: &Context<'_>,
        news: &mut News,
    ) {
        let name = output.map_or_else(|| "stderr".to_owned(), |output| output_name(output, cx));
        let message = format!("the worker's {} cannot be read", name.trim_start_matches("the "));
        news.fatal = Some(self.describe(ErrorKind::Channel, message).because(error));
    }

    /// The system does not let us write an input. Fatal like a read that fails: another session would fare no better.
    pub(crate) fn write_failed(
        &mut self,
        channel: usize,
        error: io::Error,
        cx: &Context<'_>,
        news: &mut News,
    ) {
        let name = match channel {
            0 => "stdin".to_owned(),
            side => format!("side input `{}`", cx.spec.side_input_names()[side - 1]),
        };
        let message = format!("the worker's {name} cannot be written");
        news.fatal = Some(self.describe(ErrorKind::Channel, message).because(error));
    }

    /// It has written this on stderr.
    pub(crate) fn heard_stderr(&mut self, bytes: &[u8], cx: &Context<'_>, news: &mut News) {
        Counters::add(&cx.stats.counters.read_bytes, bytes.len() as u64);
        let passed = if self.far.is_some() { self.pass_stderr(bytes, cx, news) } else { None };
        let bytes = passed.as_deref().unwrap_or(bytes);
        self.child.heard_stderr(bytes);
        cx.spec.channels.tell_stderr(self.label.worker, bytes);
        if cx.spec.policy.keep_stderr {
            self.stderr_since.push(bytes);
        }
        self.child.heard(cx.now);
        self.moved = cx.now.patient;
        self.has_spoken(cx);
    }

    /// Its stderr has come to its end.
    pub(crate) fn stderr_closed(&mut self) {
        self.child.stderr_closed();
    }

    /// The process has exited and is not reaped yet: what it wrote is still to be read.
    pub(crate) fn exited(&mut self, cx: &Context<'_>) {
        if self.child.exited(cx.now) {
            tell!(debug, self, "exited");
        }
    }
}

/// What the simulation's oracle is shown of a session.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Audit {
    pub(crate) in_flight: u64,
    pub(crate) given: u64,
    pub(crate) answered: u64,
    /// Bytes of requests in flight, and of replies that are held.
    pub(crate) weight: usize,
    pub(crate) held: usize,
}

#[cfg(test)]
impl Session {
    pub(crate) fn audit(&self) -> Audit {
        Audit {
            in_flight: self.flight.runs().map(|run| run.len() as u64).sum(),
            given: self.flight.given(),
            answered: self.flight.answered(),
            weight: self.flight.runs().map(Run::weight).sum(),
            held: self.flight.held_bytes(),
        }
    }
}
