//! How lives end, and what becomes of the packets they owe.

use std::collections::VecDeque;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, excerpt};
use crate::record::Run;
use crate::stats::Counters;
use crate::swarm::core::{Action, Care, Core, Slot};
use crate::swarm::life::{Life, Now, Output, Phase, Why};
use crate::swarm::reading::pop_front;
use crate::template::policy::{DRAIN_GRACE, DROP_GRACE, OnStall, Signal};

/// How long a worker that has closed one of its pipes may take over what it has read.
const CLOSED_GRACE: Duration = Duration::from_secs(5);
/// How long a side input may stay clogged while nothing is owed before that is an error.
const CLOGGED_GRACE: Duration = Duration::from_secs(2);
/// How long the input may idle before a tool that answers at the end of its input is asked to.
const AT_EOF_IDLE: Duration = Duration::from_millis(10);
/// How soon a worker whose output we do not read for want of room is looked at again.
const LATER: Duration = Duration::from_secs(1);
/// How long a worker that has closed its stdout may take to exit.
const SILENT_GRACE: Duration = Duration::from_millis(500);

impl Core {
    // ---------------------------------------------------------------- asking a life to end

    /// Closes the inputs as soon as everything queued is written: the worker answers and exits.
    pub(crate) fn close_inputs(&mut self, slot: usize, why: Why, now: Now) {
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        if !life.is_open() {
            return;
        }
        life.phase = Phase::Ending;
        // However long it was idle: its time to exit begins now.
        life.moved = now;
        life.why.get_or_insert(why);
        if let Some(farewell) = &self.spec.words.farewell {
            life.inputs[0].push_words(Arc::clone(farewell));
            self.to_write.push(slot);
        }
        for input in &mut life.inputs {
            input.close_when_written();
        }
        self.close_what_is_written(slot);
    }

    /// Lets a life answer what it owes and exit, so that a fresh one can take its place.
    pub(crate) fn recycle_life(&mut self, slot: usize, now: Now) {
        self.close_inputs(slot, Why::Recycled, now);
        self.watch(slot, now);
    }

    /// Nothing more will come: every life that is not needed for what is pending may end.
    ///
    /// One that still owes is left its stdin while it goes on answering. A tool that ends by itself
    /// after so many records would otherwise look just like one that skips records: both would leave
    /// with status 0 after their stdin was closed, short of a reply. If it goes quiet, it is closed
    /// (see [`quiet_until`](Self::quiet_until)).
    pub(crate) fn close_if_done(&mut self, now: Now) {
        if !self.nothing_to_come() || self.stopping.is_some() {
            return;
        }
        for slot in 0..self.slots.len() {
            self.part_from(slot, Why::Done, now);
        }
    }

    /// Nothing more will be given to this life: closes its inputs, now or when it has answered.
    pub(crate) fn part_from(&mut self, slot: usize, why: Why, now: Now) {
        let Slot::Live(life) = &self.slots[slot] else { return };
        let only_then = self.spec.policy.at_eof || self.spec.is_until_eof();
        if life.is_open() && (life.owed() == 0 || only_then) {
            self.close_inputs(slot, why, now);
        }
        self.watch(slot, now);
    }

    fn nothing_to_come(&self) -> bool {
        self.input_has_ended() && self.pending.is_empty()
    }

    /// Why a life will be given nothing more, if so.
    pub(crate) fn is_parting(&self, life: &Life) -> Option<Why> {
        if self.spec.life_records().is_some_and(|most| life.given >= most) {
            Some(Why::Recycled)
        } else if self.nothing_to_come() {
            Some(Why::Done)
        } else {
            None
        }
    }

    /// When a life that owes replies, and has read all that it was given, has been quiet for long
    /// enough to be looked at.
    fn quiet_until(&self, life: &Life) -> Option<Now> {
        let policy = &self.spec.policy;
        if !life.is_open()
            || life.owed() == 0
            || !life.may_be_waiting()
            || life.closed_output_at.is_some()
        {
            return None;
        }
        let delay = if policy.at_eof {
            self.patience().min(AT_EOF_IDLE)
        } else if policy.on_stall == OnStall::Wait && self.is_parting(life).is_none() {
            return None;
        } else {
            self.patience()
        };
        Some(life.moved.saturating_add(delay).max(life.next_probe))
    }

    fn close_what_is_written(&mut self, slot: usize) {
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        // A worker whose stdin does not come from us sees the end of its input on the side.
        let absent = life.inputs[0].absent;
        for (channel, input) in life.inputs.iter_mut().enumerate() {
            if input.take_close() {
                life.stdin_closed |= channel == 0 || absent;
                self.actions.push_back(Action::CloseInput { slot, channel });
            }
        }
    }

    /// `n` bytes were written to an input channel.
    pub(crate) fn wrote(&mut self, slot: usize, channel: usize, n: usize, now: Now) {
        Counters::add(&self.counters().written_bytes, n as u64);
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        life.moved = now;
        life.inputs[channel].wrote(channel, n);
        let written = life.inputs[channel].is_written();
        if self.drain {
            self.settle_written(slot, now);
        }
        if written {
            self.close_what_is_written(slot);
            self.watch(slot, now);
        }
        if channel > 0 {
            // It may have been passed over because it left too much of this unread.
            self.offer(slot);
        }
    }

    /// The worker has closed its end of an input channel.
    pub(crate) fn write_closed(&mut self, slot: usize, channel: usize, now: Now) {
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        life.inputs[channel].shut(channel);
        self.actions.push_back(Action::CloseInput { slot, channel });
        if life.inputs[channel].optional || !matches!(life.phase, Phase::Open | Phase::Ending) {
            return;
        }
        // It may go on answering what it has read: that is no error by itself. Whatever it was not
        // given in full goes to others when it ends.
        life.moved = now;
        life.why = Some(Why::ClosedInput);
        life.phase = Phase::Ending;
        for input in &mut life.inputs {
            input.close_when_written();
        }
        self.close_what_is_written(slot);
        self.watch(slot, now);
    }

    /// Every life must end, now: the outlet was dropped, or the feed has failed.
    pub(crate) fn stop_lives(&mut self) {
        for slot in 0..self.slots.len() {
            let Slot::Live(life) = &mut self.slots[slot] else { continue };
            if !matches!(life.phase, Phase::Open | Phase::Ending) {
                continue;
            }
            life.why = Some(Why::Stopped);
            if life.is_torn() && !mutated!(TornRequest) {
                // A shell would run the half of a line that it has when its stdin ends: it must be
                // dead before that.
                self.actions.push_back(Action::Signal { slot, signal: Signal::Kill });
                life.phase = Phase::Killing { step: usize::MAX, next: Now::MAX };
                for (channel, input) in life.inputs.iter_mut().enumerate() {
                    if !input.closed {
                        input.shut(channel);
                        self.actions.push_back(Action::CloseInput { slot, channel });
                    }
                }
                continue;
            }
            for (channel, input) in life.inputs.iter_mut().enumerate() {
                if !input.closed {
                    input.shut(channel);
                    self.actions.push_back(Action::CloseInput { slot, channel });
                }
            }
            life.stdin_closed = true;
            let grace = self.now.saturating_add(DROP_GRACE);
            life.phase = Phase::Killing { step: 0, next: grace };
            self.arm(slot, grace);
        }
    }

    /// Starts the kill ladder at once.
    pub(crate) fn kill_life(&mut self, slot: usize, now: Now) {
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        if !matches!(life.phase, Phase::Open | Phase::Ending) {
            return;
        }
        life.phase = Phase::Killing { step: 0, next: now };
        self.look_at(slot, now);
    }

    // ---------------------------------------------------------------- time

    /// Sets the timer for whatever comes next in a life.
    pub(crate) fn watch(&mut self, slot: usize, now: Now) {
        if let Some(at) = self.next_look(slot, now)
            && !mutated!(ForgottenTimer)
        {
            self.arm(slot, at);
        }
    }

    fn next_look(&self, slot: usize, _now: Now) -> Option<Now> {
        let Slot::Live(life) = &self.slots[slot] else { return None };
        let policy = &self.spec.policy;
        let mut next: Option<Now> = None;
        let mut at = |time: Now| next = Some(next.map_or(time, |next| next.min(time)));
        match life.phase {
            Phase::Open | Phase::Ending => {
                if let Some(quiet) = self.quiet_until(life) {
                    at(quiet);
                }
                if life.owed() > 0 {
                    if let Some(limit) = policy.packet_timeout {
                        at(life.head_since.saturating_add(limit));
                    }
                    if let Some(limit) = policy.start_timeout
                        && life.answered + life.held_count == 0
                    {
                        at(life.head_since.max(life.started).saturating_add(limit));
                    }
                    if life.why == Some(Why::ClosedInput) {
                        at(life.moved.saturating_add(CLOSED_GRACE));
                    }
                }
                if life.in_banner
                    && let Some(limit) = policy.ready_timeout
                {
                    at(life.started.saturating_add(limit));
                }
                if life.owed() == 0 && life.is_open() && life.clogged().is_some() {
                    at(life.moved.saturating_add(CLOGGED_GRACE));
                }
                if life.owed() > 0 {
                } else if !life.is_open() {
                    let limit = match life.why {
                        Some(Why::ClosedInput) => Some(SILENT_GRACE),
                        _ => policy.end_timeout,
                    };
                    if let Some(limit) = limit {
                        at(life.moved.saturating_add(limit));
                    }
                } else if let Some(age) = policy.recycle_age
                    && life.given > 0
                {
                    at(life.started.saturating_add(age));
                }
                if let Some(closed) = life.closed_output_at {
                    at(closed.saturating_add(SILENT_GRACE));
                }
            }
            Phase::Killing { next, .. } => at(next),
            Phase::Exited { drained_by } => at(drained_by),
            Phase::Finished => {}
        }
        next
    }

    /// A life's timer has run out: does what is due.
    pub(crate) fn look_at(&mut self, slot: usize, now: Now) {
        let readable = self.may_read(slot);
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        let policy = &self.spec.policy;
        let readable = readable || life.closed_output_at.is_some();
        if !readable && matches!(life.phase, Phase::Open | Phase::Ending) {
            // It may have answered long ago: it is we who do not read, for want of room. The time
            // that this takes is not its own.
            life.moved = now;
            life.head_since = now;
            life.look_again(now, policy.stall_delay);
            let at = life.next_probe.min(now.saturating_add(LATER));
            return self.arm(slot, at);
        }
        let due = |since: Now, limit: Duration| now >= since.saturating_add(limit);
        match life.phase {
            Phase::Open | Phase::Ending => {
                let owed = life.owed();
                if life.in_banner
                    && policy.ready_timeout.is_some_and(|limit| due(life.started, limit))
                {
                    life.why = Some(Why::Timeout);
                    Counters::add(&self.stats.counters.timeouts, 1);
                    return self.kill_life(slot, now);
                }
                if owed == 0 && life.is_open() && due(life.moved, CLOGGED_GRACE) {
                    let Slot::Live(life) = &self.slots[slot] else { return };
                    if let Some(channel) = life.clogged() {
                        return self.fail_clogged(slot, channel);
                    }
                }
                let Slot::Live(life) = &mut self.slots[slot] else { return };
                if life.closed_output_at.is_some_and(|closed| due(closed, SILENT_GRACE)) {
                    // An answer can never come any more.
                    life.lingered = owed == 0;
                    life.why = life
                        .why
                        .filter(|why| why.is_asked() && owed == 0)
                        .or(Some(Why::ClosedOutput));
                    return self.kill_life(slot, now);
                }
                if owed == 0 {
                    let limit = match life.why {
                        Some(Why::ClosedInput) => Some(SILENT_GRACE),
                        _ => policy.end_timeout,
                    };
                    if !life.is_open() && limit.is_some_and(|limit| due(life.moved, limit)) {
                        return self.kill_life(slot, now);
                    }
                    // One that was never given anything is as good as a fresh one.
                    if life.is_open()
                        && life.given > 0
                        && policy.recycle_age.is_some_and(|age| due(life.started, age))
                    {
                        return self.recycle_life(slot, now);
                    }
                    return self.watch(slot, now);
                }
                if life.why == Some(Why::ClosedInput) && due(life.moved, CLOSED_GRACE) {
                    return self.kill_life(slot, now);
                }
                let started = life.head_since.max(life.started);
                let never = life.answered + life.held_count == 0;
                let late = policy.packet_timeout.is_some_and(|limit| due(life.head_since, limit))
                    || (never && policy.start_timeout.is_some_and(|limit| due(started, limit)));
                if late {
                    return self.ran_late(slot, now);
                }
                let Slot::Live(life) = &self.slots[slot] else { return };
                if self.quiet_until(life).is_some_and(|quiet| now >= quiet) {
                    if policy.at_eof {
                        return self.recycle_life(slot, now);
                    }
                    self.probe(slot, now);
                }
                self.watch(slot, now);
            }
            Phase::Killing { step, next } => {
                if now < next {
                    return self.arm(slot, next);
                }
                if let Some(&(signal, wait)) = policy.ladder.get(step) {
                    let next = now.saturating_add(wait);
                    life.phase = Phase::Killing { step: step + 1, next };
                    Counters::add(&self.stats.counters.signals, 1);
                    self.actions.push_back(Action::Signal { slot, signal });
                    if step + 1 < policy.ladder.len() {
                        self.arm(slot, next);
                    }
                }
            }
            Phase::Exited { drained_by } => {
                if now >= drained_by {
                    self.finish(slot);
                } else {
                    self.arm(slot, drained_by);
                }
            }
            Phase::Finished => {}
        }
    }

    fn fail_clogged(&mut self, slot: usize, channel: usize) {
        let name = self.spec.side_input_names().swap_remove(channel - 1);
        let message = format!("the worker leaves the side input `{name}` unread");
        let error = self.describe(slot, ErrorKind::Channel, message);
        self.fail(error.hint("if it need not read everything, declare it with Template::optional_side_input and a cap"));
    }

    /// Asks for the evidence; if that decides nothing there is another look, ever later.
    fn probe(&mut self, slot: usize, now: Now) {
        let delay = self.spec.policy.stall_delay;
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        Counters::add(&self.stats.counters.probes, 1);
        self.actions.push_back(Action::Probe { slot });
        life.suspected = life.moved;
        life.look_again(now, delay);
    }

    /// A packet has taken too long.
    fn ran_late(&mut self, slot: usize, now: Now) {
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        if life.is_open() && !life.prompt {
            // It may only be buffering: asked to answer, it gets the limit once more.
            life.head_since = now;
            Counters::add(&self.stats.counters.recycles, 1);
            return self.recycle_life(slot, now);
        }
        Counters::add(&self.stats.counters.timeouts, 1);
        life.why = Some(Why::Timeout);
        self.kill_life(slot, now);
    }

    // ---------------------------------------------------------------- the end of a life

    /// The process has exited and is not reaped yet: what it wrote is still to be read.
    pub(crate) fn exited(&mut self, slot: usize, now: Now) {
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        if matches!(life.phase, Phase::Exited { .. } | Phase::Finished) {
            return;
        }
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

    fn finish(&mut self, slot: usize) {
        if let Slot::Live(life) = &mut self.slots[slot] {
            life.phase = Phase::Finished;
            self.actions.push_back(Action::Finish { slot });
        }
    }

    /// The life is over and reaped; `status` is unknown if somebody else reaped it.
    pub(crate) fn ended(&mut self, slot: usize, status: Option<ExitStatus>, now: Now) {
        if self.stopping.is_none() {
            self.settle_held(slot, status);
        }
        let vacant = Slot::Vacant { not_before: now };
        let Slot::Live(life) = std::mem::replace(&mut self.slots[slot], vacant) else { return };
        let mut life = life;
        let got = life.answered + life.held_count;
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
            self.back_off(slot, now);
        }
        if owed > 0 {
            self.redistribute(*life, status);
        }
        self.close_if_done(now);
    }

    /// After a life that came to nothing the next one waits a while.
    pub(crate) fn back_off(&mut self, slot: usize, now: Now) {
        let policy = &self.spec.policy;
        let doublings = self.streak.saturating_sub(1).min(20);
        let wait = policy.backoff.saturating_mul(1 << doublings).min(policy.backoff_cap);
        self.slots[slot] = Slot::Vacant { not_before: now.saturating_add(wait) };
    }

    /// Replies that waited for the end of their life are delivered if their number is right.
    fn settle_held(&mut self, slot: usize, status: Option<ExitStatus>) {
        let until_eof = self.spec.is_until_eof();
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        if life.held.is_empty() || life.answered + life.held_count != life.given {
            return;
        }
        // What a process wrote before it failed looks just like a whole output.
        if until_eof && !life.lingered && status.is_some_and(|status| !status.success()) {
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
            "the worker was sent {owed} requests and answered {got} of them before it ended"
        );
        self.push_half(&mut message, &life);
        let error = Error::new(ErrorKind::ReplyCount { owed, got }, message)
            .hint("a tool that skips or merges records cannot be counted: use a sentinel framing, or check");
        let error = self.describe_end(&life, status, error);
        // What it owes is unanswered like everything else.
        for run in std::mem::take(&mut life.in_flight) {
            self.enqueue(run, Care::Free);
        }
        self.fail(error);
    }

    pub(crate) fn give_up(&mut self, mut life: Life, status: Option<ExitStatus>) {
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
        let bad = status.is_some_and(|status| !status.success());
        if bad && life.why.is_some_and(Why::is_asked) && self.end.remarks.len() < MOST_REMARKS {
            let error = Error::new(ErrorKind::Died, "a worker ended badly after its last answer");
            let error = self.describe_end(life, status, error);
            self.end.remarks.push(error);
        }
    }

    /// Who is to blame, and who gets what is unanswered.
    fn redistribute(&mut self, mut life: Life, status: Option<ExitStatus>) {
        let alone = life.given == 1 || mutated!(BlamedInnocent);
        let untouched = life.untouched();
        let mut in_flight = std::mem::take(&mut life.in_flight);
        if life.why == Some(Why::Distrusted) {
            // The packet concerned has its error already.
            return self.resend(in_flight, untouched, &life, status);
        }
        if alone || (life.why == Some(Why::Timeout) && life.prompt) {
            let Some(head) = pop_front(&mut in_flight) else { return };
            let error = self.describe_end(&life, status, self.unanswered(&life));
            self.charge(head, error);
            return self.resend(in_flight, untouched, &life, status);
        }
        let left_well = status.is_some_and(|status| status.success()) && life.why.is_none();
        let had_enough = life.answered > 0 && (left_well || life.why == Some(Why::ClosedInput));
        if had_enough || self.spec.policy.at_most_once {
            return self.resend(in_flight, untouched, &life, status);
        }
        self.isolate(in_flight, untouched);
    }

    /// The error of a packet that was alone in a life that failed.
    fn unanswered(&self, life: &Life) -> Error {
        let policy = &self.spec.policy;
        let (kind, mut message) = match life.why {
            Some(Why::Timeout) => {
                let limit = policy.packet_timeout.or(policy.start_timeout).unwrap_or_default();
                (ErrorKind::Timeout, format!("no reply within {limit:?}"))
            }
            Some(Why::ClosedOutput) => {
                let closed = life.outputs.iter().position(|output| output.eof).unwrap_or(0);
                let name =
                    if closed == 0 { "its stdout".to_owned() } else { self.output_name(closed) };
                (ErrorKind::Died, format!("the worker closed {name} before it answered"))
            }
            Some(Why::ClosedInput) => {
                (ErrorKind::Died, "the worker closed its stdin and did not answer".to_owned())
            }
            _ => (ErrorKind::Died, "the worker ended before it answered".to_owned()),
        };
        self.push_half(&mut message, life);
        let error = Error::new(kind, message);
        if life.why.is_some_and(Why::is_asked) && self.spec.replies.as_sentinel().is_some() {
            // It went on reading, or it would not have been asked to end.
            return error.hint("it never printed the mark: look in the request for something left open, such as a quote or a bracket, that swallowed the sync command");
        }
        error
    }

    /// Quotes what a life wrote and never ended.
    fn push_half(&self, message: &mut String, life: &Life) {
        let halves =
            life.outputs.iter().enumerate().filter(|(_, output)| !output.unread().is_empty());
        for (channel, output) in halves {
            let said = excerpt(output.unread());
            message.push_str(&match channel {
                0 if life.in_banner => format!(", with {said}, which is not all of its banner"),
                0 => format!(", with half a reply {said}"),
                _ => format!(", with half a reply {said} on {}", self.output_name(channel)),
            });
        }
        let started = life.outputs.iter().any(|output| !output.whole.is_empty());
        let missing = |output: &Output| output.whole.is_empty() && output.unread().is_empty();
        if started && let Some(channel) = life.outputs.iter().position(missing) {
            message.push_str(&format!(", with nothing on {}", self.output_name(channel)));
        }
    }

    /// Nobody can be charged. The head is sent again alone; the rest in two halves, each by itself, so
    /// that whoever did it is found after a few lives even if the tool buffers. What the worker cannot
    /// have read is free of suspicion.
    fn isolate(&mut self, mut in_flight: VecDeque<Run>, untouched: u64) {
        let Some(head) = pop_front(&mut in_flight) else { return };
        if mutated!(SentTwice) {
            self.send_again(head.clone(), Care::Free);
        }
        self.send_again(head, Care::Alone);
        let rest: u64 = in_flight.iter().map(|run| run.len() as u64).sum();
        let suspects = rest - untouched.min(rest);
        let first_half = suspects.div_ceil(2);
        let mut at = 0;
        for mut run in in_flight {
            loop {
                let (care, border) = match at {
                    at if at < first_half => (Care::Together, first_half),
                    at if at < suspects => (Care::Together, suspects),
                    _ => (Care::Free, u64::MAX),
                };
                let most = usize::try_from(border - at).unwrap_or(usize::MAX);
                if run.len() <= most {
                    at += run.len() as u64;
                    self.send_again(run, care);
                    break;
                }
                at += most as u64;
                let front = run.split_front(most);
                self.send_again(front, care);
            }
        }
    }

    pub(crate) fn send_again(&mut self, run: Run, care: Care) {
        if mutated!(SkippedRedelivery) {
            return;
        }
        Counters::add(&self.counters().redeliveries, run.len() as u64);
        self.enqueue(run, care);
    }

    /// Sends unanswered packets again, or fails those that may have been read under `at_most_once`.
    pub(crate) fn resend(
        &mut self,
        runs: VecDeque<Run>,
        untouched: u64,
        life: &Life,
        status: Option<ExitStatus>,
    ) {
        let all: u64 = runs.iter().map(|run| run.len() as u64).sum();
        let mut touched =
            if self.spec.policy.at_most_once { all.saturating_sub(untouched) } else { 0 };
        for run in runs {
            let mut rest = Some(run);
            while touched > 0
                && let Some(mut run) = rest.take()
            {
                touched -= 1;
                let head = if run.len() > 1 {
                    let head = run.split_front(1);
                    rest = Some(run);
                    head
                } else {
                    run
                };
                let error = Error::new(
                    ErrorKind::NotRedelivered,
                    "the worker ended, and may have read this packet",
                )
                .hint("at_most_once keeps it from being sent again");
                let error = self.describe_end(life, status, error);
                self.emit_failure(head, error);
            }
            if let Some(run) = rest {
                self.send_again(run, Care::Free);
            }
        }
    }

    /// A packet was alone in a life that failed.
    fn charge(&mut self, run: Run, error: Error) {
        let packet = run.first().0;
        let attempts = self.attempts.get(&packet).copied().unwrap_or(0) + 1;
        if attempts > self.spec.policy.retries || self.spec.policy.at_most_once {
            return self.emit_failure(run, error.tried(attempts));
        }
        self.attempts.insert(packet, attempts);
        Counters::add(&self.counters().retries, 1);
        self.send_again(run, Care::Alone);
    }
}

/// Remarks beyond these say nothing new.
pub(crate) const MOST_REMARKS: usize = 64;
