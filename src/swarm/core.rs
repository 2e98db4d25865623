//! The core of the swarm: a state machine without I/O.
//!
//! Events come in as method calls (`read`, `wrote`, `exited`, `tick`, ...), each with the time; what
//! is to be done goes out as [`Action`]s and [`Span`]s. The driver performs and reports; a simulation
//! does the same with simulated workers and a simulated clock.
//!
//! # Invariants
//! 1. Conservation: every packet that arrived is in exactly one place: `pending`, one life's
//!    `in_flight`, or emitted in one span. `accepted == pending + in flight + resolved`.
//! 2. `pending` is sorted by packet id, so whoever is free gets the earliest.
//! 3. A life answers in the order in which it was given; its replies belong to the front of `in_flight`.
//! 4. Whatever can end has a timer, or is ended by an event that the operating system owes us.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::record::{PacketId, Pool, Requests, Run};
use crate::stats::{Counters, Stats};
use crate::stream::gate::Gate;
use crate::stream::intake::Arrival;
use crate::stream::outlet::Order;
use crate::stream::packet::{End, Label, Outcome, Span};
use crate::stream::unwind::Payload;
use crate::swarm::depth::Depth;
use crate::swarm::life::{Input, Life, Now, Output, Phase, Tail};
use crate::template::Spec;
use crate::template::policy::{Halt, OnStall, Signal};
use crate::template::words::Banner;

/// What the driver must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Close our end of an input channel.
    CloseInput { slot: usize, channel: usize },
    /// Send a signal to the process group.
    Signal { slot: usize, signal: Signal },
    /// Look for the evidence of a stall; report `probed`.
    Probe { slot: usize },
    /// Kill what is left of the group, close every pipe, reap; report `ended`.
    Finish { slot: usize },
}

/// How carefully a pending run must be dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    /// To whoever is free.
    Free,
    /// Suspects: to a life with nothing in flight, and nothing follows before they are answered.
    Together,
    /// One packet, to a life that has never been given anything, so that its death can be charged.
    Alone,
}

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) run: Run,
    pub(crate) care: Care,
}

#[derive(Debug)]
pub(crate) enum Slot {
    /// Empty. Started when there is need, but not before `not_before`.
    Vacant {
        not_before: Now,
    },
    /// A start was asked for.
    Starting,
    Live(Box<Life>),
}

/// Why a worker could not be started.
#[derive(Debug)]
pub(crate) enum StartError {
    /// It never will: no such program, no such directory.
    Never(Error),
    /// Not now: out of file descriptors, processes or memory.
    NotNow(Error),
}

/// What the evidence says about a worker that has gone quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every thread of its group waits for us.
    Waiting,
    /// It is at work, or asleep of its own will.
    Busy,
    /// It cannot be told, for a reason that a user can do something about.
    Unclear(&'static str),
}

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) spec: Arc<Spec>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) order: Order,
    pub(crate) origin: PacketId,
    /// Nothing comes back: a packet is done when it is written.
    pub(crate) drain: bool,
    /// Requests are kept beside replies, for the errors of `decode`.
    pub(crate) keep_requests: bool,
    pub(crate) command: Arc<str>,

    pub(crate) slots: Vec<Slot>,
    pub(crate) pending: VecDeque<Job>,
    pub(crate) pending_count: u64,
    /// How many of the pending jobs are not `Care::Free`.
    pub(crate) careful: usize,
    /// Lives with room, warm and cold, in the order in which they asked.
    pub(crate) warm: VecDeque<usize>,
    pub(crate) cold: VecDeque<usize>,
    /// How often a packet has been charged.
    pub(crate) attempts: HashMap<u64, u32>,

    accepted: u64,
    pub(crate) resolved: u64,
    /// How many packets there are, once known.
    pulled: Option<u64>,
    timers: BinaryHeap<Reverse<(Now, usize, u64)>>,
    /// When the feed as a whole must be looked at.
    feed_timer: Option<Now>,
    next_serial: u64,
    next_to_start: usize,
    pub(crate) streak: u32,
    pub(crate) ever_answered: bool,
    pub(crate) withholding: bool,
    pub(crate) failures: u64,
    /// The time of the last tick.
    pub(crate) now: Now,
    /// When any worker last said anything, or was first asked.
    pub(crate) heard: Now,
    pub(crate) stopping: Option<Stopping>,
    halting: bool,

    /// Set by a fatal error until a packet carries it.
    pub(crate) cause: Option<Error>,
    pub(crate) end: End,
    pub(crate) actions: VecDeque<Action>,
    pub(crate) out: Vec<Span>,
    /// Slots that have got something to write.
    pub(crate) to_write: Vec<usize>,
    pub(crate) spent: Vec<Requests>,
}

/// Why the feed ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopping {
    /// The outlet was dropped: nobody looks at spans any more.
    Dropped,
    /// A fatal error: what is unanswered becomes `Halted`.
    Fatal,
}

/// What a core is made from.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) spec: Arc<Spec>,
    pub(crate) workers: usize,
    pub(crate) order: Order,
    pub(crate) origin: PacketId,
    pub(crate) keep_requests: bool,
    pub(crate) drain: bool,
    pub(crate) gate: Arc<Gate>,
    pub(crate) stats: Arc<Stats>,
}

impl Core {
    pub(crate) fn new(plan: Plan) -> Self {
        let command = Arc::from(plan.spec.command.display());
        let mut core = Self {
            pool: Arc::new(Pool::new(64, 1 << 20)),
            command,
            order: plan.order,
            origin: plan.origin,
            drain: plan.drain,
            keep_requests: plan.keep_requests,
            slots: (0..plan.workers).map(|_| Slot::Vacant { not_before: Now::ZERO }).collect(),
            pending: VecDeque::new(),
            pending_count: 0,
            careful: 0,
            warm: VecDeque::new(),
            cold: VecDeque::new(),
            attempts: HashMap::new(),
            accepted: 0,
            resolved: 0,
            pulled: None,
            timers: BinaryHeap::new(),
            feed_timer: None,
            next_serial: 0,
            next_to_start: 0,
            streak: 0,
            ever_answered: false,
            withholding: false,
            failures: 0,
            now: Now::ZERO,
            heard: Now::ZERO,
            stopping: None,
            halting: false,
            cause: None,
            end: End { accepted: vec![0; plan.workers], ..End::default() },
            actions: VecDeque::new(),
            out: Vec::new(),
            to_write: Vec::new(),
            spent: Vec::new(),
            spec: plan.spec,
            gate: plan.gate,
            stats: plan.stats,
        };
        core.feed_timer = core.spec.policy.run_timeout.filter(|&limit| limit < NEVER);
        core
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.stats.counters
    }

    // ---------------------------------------------------------------- the input

    /// Something came from the intake.
    pub(crate) fn arrived(&mut self, arrival: Arrival, now: Now) {
        match arrival {
            Arrival::Batch(batch) => {
                let run = Run::whole(Arc::new(*batch));
                self.accepted += run.len() as u64;
                Counters::add(&self.counters().accepted, run.len() as u64);
                if self.pending.is_empty() && self.resolved + run.len() as u64 == self.accepted {
                    // Nothing was under way: silence is counted from here.
                    self.heard = now;
                    self.arm_idle(now);
                }
                if self.stopping.is_some() {
                    self.halt_run(run);
                } else {
                    self.enqueue(run, Care::Free);
                }
            }
            Arrival::Settled(span) => {
                self.accepted += span.count;
                let failed = matches!(span.outcome, Outcome::Failed(_));
                self.emit(span);
                if failed {
                    self.count_failure();
                }
            }
            Arrival::End { pulled, panic } => {
                self.pulled = Some(pulled);
                self.end.panic = panic;
            }
        }
    }

    pub(crate) fn input_has_ended(&self) -> bool {
        self.pulled.is_some()
    }

    /// Whether input would be of use now: there is little to give and somebody to give it to.
    pub(crate) fn wants_input(&self) -> bool {
        if self.pulled.is_some() {
            return false;
        }
        if self.stopping.is_some() {
            return true;
        }
        self.pending.is_empty()
    }

    pub(crate) fn enqueue(&mut self, run: Run, care: Care) {
        if self.stopping.is_some() {
            // It was on its way from a life that has ended when a failure ended the feed.
            return self.halt_run(run);
        }
        self.pending_count += run.len() as u64;
        self.careful += usize::from(care != Care::Free);
        let at = run.first().since(self.origin);
        let after = |job: &Job| job.run.first().since(self.origin) < at;
        let place = match self.pending.back() {
            None => 0,
            Some(last) if after(last) || mutated!(OutOfOrder) => self.pending.len(),
            Some(_) => self.pending.partition_point(after),
        };
        self.pending.insert(place, Job { run, care });
    }

    // ---------------------------------------------------------------- what goes out

    /// Emits what became of some packets.
    pub(crate) fn emit(&mut self, span: Span) {
        self.resolved += span.count;
        if self.stopping != Some(Stopping::Dropped) {
            self.out.push(span);
        } else {
            self.gate.release(span.weight);
        }
    }

    /// Emits the failure of the one packet in `run`, and lets go of its request.
    pub(crate) fn emit_failure(&mut self, run: Run, error: Error) {
        debug_assert_eq!(run.len(), 1);
        let counters = &self.stats.counters;
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
        self.attempts.remove(&packet.0);
        self.spend(run);
        self.emit(Span::one(packet, Outcome::Failed(error)));
        self.count_failure();
    }

    pub(crate) fn emit_panic(&mut self, run: Run, payload: Payload) {
        let packet = run.first();
        self.spend(run);
        self.emit(Span::one(packet, Outcome::Panicked(payload)));
    }

    fn count_failure(&mut self) {
        Counters::add(&self.counters().failed, 1);
        self.failures += 1;
        match self.spec.policy.halt {
            Halt::Never => {}
            Halt::Soon(most) => {
                if self.failures >= most.max(1) && !self.halting {
                    self.halting = true;
                    self.gate.stop();
                }
            }
            Halt::Now(most) => {
                if self.failures >= most.max(1) && self.stopping.is_none() {
                    let error = self.halted_by_policy();
                    self.fail(error);
                }
            }
        }
    }

    fn halted_by_policy(&self) -> Error {
        Error::new(
            ErrorKind::Halted,
            format!("the feed was halted: {} items have failed", self.failures),
        )
        .running(&self.command)
    }

    /// The requests of a run are needed no more.
    pub(crate) fn spend(&mut self, run: Run) {
        if !mutated!(LeakedBytes) {
            self.gate.release(run.weight());
        }
        self.recycle(run);
    }

    /// Gives the batch of a run back if this was its last run.
    pub(crate) fn recycle(&mut self, run: Run) {
        if let Some(batch) = Arc::into_inner(run.batch) {
            self.spent.push(batch);
        }
    }

    // ---------------------------------------------------------------- ends

    /// A fatal error: the feed ends, and says why once.
    pub(crate) fn fail(&mut self, error: Error) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Stopping::Fatal);
        self.cause = Some(error.fatal());
        self.gate.stop();
        self.stop_lives();
        let mut unanswered: Vec<Run> = self.pending.drain(..).map(|job| job.run).collect();
        self.pending_count = 0;
        self.careful = 0;
        for slot in &mut self.slots {
            if let Slot::Live(life) = slot {
                unanswered.extend(life.in_flight.drain(..));
            }
        }
        unanswered.sort_by_key(|run| run.first().since(self.origin));
        for run in unanswered {
            self.halt_run(run);
        }
    }

    /// The packets of a run end with the feed; the first of all carries the cause.
    fn halt_run(&mut self, mut run: Run) {
        if let Some(cause) = self.cause.take() {
            let head = if run.len() > 1 { run.split_front(1) } else { run.clone() };
            let packet = head.first();
            let error = cause.at(packet.0).asked(head.request());
            let last = head.to == run.to;
            self.gate.release(head.weight());
            drop(head);
            self.emit(Span::one(packet, Outcome::Failed(error)));
            if last {
                self.recycle(run);
                return;
            }
        }
        let span = Span {
            first: run.first(),
            count: run.len() as u64,
            weight: 0,
            outcome: Outcome::Halted,
        };
        self.spend(run);
        self.emit(span);
    }

    /// The outlet was dropped.
    pub(crate) fn cancel(&mut self) {
        if self.stopping == Some(Stopping::Dropped) {
            return;
        }
        let first = self.stopping.is_none();
        self.stopping = Some(Stopping::Dropped);
        self.gate.stop();
        self.pending.clear();
        self.pending_count = 0;
        self.careful = 0;
        if first {
            self.stop_lives();
        }
    }

    /// Whether everything is over: nothing unanswered, nothing alive.
    pub(crate) fn is_finished(&self) -> bool {
        let settled = match self.stopping {
            Some(Stopping::Dropped) => true,
            Some(Stopping::Fatal) => self.pulled.is_some(),
            None => self.all_resolved(),
        };
        settled && self.is_quiet()
    }

    /// Whether no life is left.
    pub(crate) fn is_quiet(&self) -> bool {
        self.slots.iter().all(|slot| matches!(slot, Slot::Vacant { .. }))
    }

    /// Whether everything that came has been dealt with, and whatever may still come out of the source
    /// is not wanted.
    pub(crate) fn intake_is_lost(&self) -> bool {
        self.gate.is_stopped() && self.pulled.is_none() && self.resolved == self.accepted
    }

    /// The intake will not be heard of again: there are no more packets than those that came.
    pub(crate) fn give_up_intake(&mut self) {
        self.pulled = Some(self.accepted);
    }

    pub(crate) fn all_resolved(&self) -> bool {
        self.pulled == Some(self.resolved)
    }

    /// The end, once finished.
    pub(crate) fn take_end(&mut self) -> End {
        let mut end = std::mem::take(&mut self.end);
        if self.halting && self.stopping.is_none() {
            self.cause = Some(self.halted_by_policy().fatal());
        }
        end.fatal = self.cause.take();
        end
    }

    // ---------------------------------------------------------------- starting

    /// The next slot to start a life in, if one is wanted now. One at a time: between two starts the
    /// driver looks after the lives that are already there.
    pub(crate) fn next_start(&mut self, now: Now) -> Option<usize> {
        if self.stopping.is_some()
            || self.all_resolved()
            || (self.pulled.is_some() && self.pending.is_empty())
        {
            return None;
        }
        let n = self.slots.len();
        for i in 0..n {
            let slot = (self.next_to_start + i) % n;
            let Slot::Vacant { not_before } = self.slots[slot] else { continue };
            if not_before > now {
                self.arm_feed(not_before);
                continue;
            }
            // Once the feed is running, a slot is refilled when there is work for it, or at once
            // while its tool has shown that it answers.
            if self.pending.is_empty() && self.streak > 0 {
                return None;
            }
            self.next_to_start = slot + 1;
            self.slots[slot] = Slot::Starting;
            return Some(slot);
        }
        None
    }

    pub(crate) fn started(&mut self, slot: usize, pid: Option<u32>, now: Now) {
        let spec = Arc::clone(&self.spec);
        let mut inputs = vec![Input::default()];
        for side in spec.channels.side_inputs.iter().filter(|side| side.file.is_none()) {
            inputs.push(Input::side(side.optional));
        }
        let mut outputs = vec![Output::new(&spec.replies)];
        for side in &spec.channels.side_outputs {
            if let Some(framing) = &side.framing {
                outputs.push(Output::new(framing));
            }
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        let counters = self.counters();
        Counters::add(&counters.starts, 1);
        if serial >= self.slots.len() as u64 {
            Counters::add(&counters.restarts, 1);
        }
        let life = Life {
            serial,
            label: Arc::new(Label { worker: slot, pid, command: Arc::clone(&self.command) }),
            phase: Phase::Open,
            why: None,
            inputs,
            outputs,
            stderr: Tail::default(),
            stderr_eof: false,
            depth: if self.withholding || spec.policy.at_eof {
                Depth::unlimited()
            } else {
                Depth::new()
            },
            started: now,
            given: 0,
            answered: 0,
            in_flight: VecDeque::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            held: Vec::new(),
            held_count: 0,
            in_banner: !matches!(spec.words.banner, Banner::None),
            proven: false,
            prompt: false,
            stdin_closed: false,
            quarantined: false,
            queued: false,
            head_since: now,
            moved: now,
            patience: self.patience(),
            next_probe: Now::ZERO,
            suspected: now,
            closed_output_at: None,
            lingered: false,
            timer: None,
        };
        let mut life = Box::new(life);
        if let Some(preamble) = &spec.words.preamble {
            life.inputs[0].push_words(Arc::clone(preamble));
            self.to_write.push(slot);
        }
        self.slots[slot] = Slot::Live(life);
        if let Some(limit) = self.spec.policy.ready_timeout {
            self.arm(slot, now.saturating_add(limit));
        }
        self.offer(slot);
        if let Some(age) = self.spec.policy.recycle_age {
            self.arm(slot, now.saturating_add(age));
        }
        if self.stopping.is_some() {
            self.stop_lives();
        }
    }

    /// The worker's stdin does not come from us.
    pub(crate) fn no_stdin(&mut self, slot: usize) {
        if let Slot::Live(life) = &mut self.slots[slot] {
            life.inputs[0].is_elsewhere();
        }
    }

    /// An output of the worker does not lead to us.
    pub(crate) fn not_piped(&mut self, slot: usize, output: usize) {
        if let Slot::Live(life) = &mut self.slots[slot] {
            life.outputs[output].eof = true;
        }
    }

    pub(crate) fn start_failed(&mut self, slot: usize, error: StartError, now: Now) {
        self.slots[slot] = Slot::Vacant { not_before: now };
        let alive = self.slots.iter().any(|slot| matches!(slot, Slot::Live(_)));
        match error {
            StartError::NotNow(error) if alive => {
                self.stats.hint(format!("a worker could not be started and waits: {error}"));
                let wait = self.spec.policy.backoff_cap.max(Duration::from_millis(10));
                self.slots[slot] = Slot::Vacant { not_before: now.saturating_add(wait) };
            }
            StartError::NotNow(error) | StartError::Never(error) => self.fail(error),
        }
    }

    // ---------------------------------------------------------------- timers

    /// When `tick` must be called at the latest.
    pub(crate) fn next_timer(&self) -> Option<Now> {
        let life = self.timers.peek().map(|Reverse((at, _, _))| *at);
        life.into_iter().chain(self.feed_timer).min()
    }

    fn arm_feed(&mut self, at: Now) {
        if at >= NEVER {
            return;
        }
        self.feed_timer = Some(self.feed_timer.map_or(at, |set| set.min(at)));
    }

    /// Sets a timer for a slot's life, unless an earlier one is set.
    pub(crate) fn arm(&mut self, slot: usize, at: Now) {
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        if at >= NEVER || life.timer.is_some_and(|set| set <= at) {
            return;
        }
        life.timer = Some(at);
        self.timers.push(Reverse((at, slot, life.serial)));
    }

    fn arm_idle(&mut self, now: Now) {
        if let Some(limit) = self.spec.policy.idle_timeout {
            self.arm_feed(now.saturating_add(limit));
        }
    }

    pub(crate) fn tick(&mut self, now: Now) {
        self.now = now;
        if self.feed_timer.is_some_and(|at| at <= now) {
            self.feed_timer = None;
            self.look_at_feed(now);
        }
        while let Some(&Reverse((at, slot, serial))) = self.timers.peek() {
            if at > now {
                return;
            }
            self.timers.pop();
            if let Slot::Live(life) = &mut self.slots[slot]
                && life.serial == serial
                && life.timer == Some(at)
            {
                life.timer = None;
                self.look_at(slot, now);
            }
        }
    }

    /// The limits that concern the whole feed.
    fn look_at_feed(&mut self, now: Now) {
        if self.stopping.is_some() {
            return;
        }
        if let Some(limit) = self.spec.policy.run_timeout
            && !self.all_resolved()
        {
            if now < limit {
                self.arm_feed(limit);
            } else {
                Counters::add(&self.counters().timeouts, 1);
                let error = Error::new(
                    ErrorKind::Timeout,
                    format!("the whole run took longer than {limit:?}"),
                );
                return self.fail(error.running(&self.command));
            }
        }
        if let Some(limit) = self.spec.policy.idle_timeout
            && self.resolved < self.accepted
        {
            if self.gate.is_full() {
                // They may have spoken; it is we who do not read.
                self.heard = now;
            }
            let due = self.heard.saturating_add(limit);
            if now >= due {
                Counters::add(&self.counters().timeouts, 1);
                let message =
                    format!("no worker has said anything for {limit:?} although replies are owed");
                let error = Error::new(ErrorKind::Timeout, message).running(&self.command);
                return self.fail(error);
            }
            self.arm_feed(due);
        }
    }

    // ---------------------------------------------------------------- stalls

    /// How long nothing must have moved before a stall is looked for. The evidence is the same, however
    /// soon; for a tool that is known to withhold it is worth looking early.
    pub(crate) fn patience(&self) -> Duration {
        let delay = self.spec.policy.stall_delay;
        if self.withholding { delay / 8 } else { delay }
    }

    /// The evidence about a worker that has gone quiet.
    pub(crate) fn probed(&mut self, slot: usize, verdict: Verdict, now: Now) {
        let Slot::Live(life) = &self.slots[slot] else { return };
        if !life.is_open() || life.owed() == 0 {
            return;
        }
        if life.moved != life.suspected {
            // It has answered since it was suspected, and perhaps been given more that it has had no
            // time to read: what was seen says nothing of that.
            return self.watch(slot, now);
        }
        if verdict != Verdict::Busy
            && let Some(why) = self.is_parting(life)
        {
            // It will be given nothing more: asking costs nothing.
            self.close_inputs(slot, why, now);
            return self.watch(slot, now);
        }
        match verdict {
            Verdict::Waiting => match self.spec.policy.on_stall {
                OnStall::Wait => {}
                OnStall::Recycle => {
                    self.withholding = true;
                    Counters::add(&self.stats.counters.recycles, 1);
                    self.stats.hint(format!("`{}` {WITHHOLDS}", self.command));
                    self.recycle_life(slot, now);
                }
                OnStall::Fail => {
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
            }
        }
    }

    /// An error about a slot's life, with all that is known.
    pub(crate) fn describe(
        &self,
        slot: usize,
        kind: ErrorKind,
        message: impl Into<String>,
    ) -> Error {
        let error = Error::new(kind, message.into());
        match &self.slots[slot] {
            Slot::Live(life) => {
                error.by(slot, life.label.pid, &self.command).said(life.stderr.to_vec())
            }
            _ => error.running(&self.command),
        }
    }

    pub(crate) fn describe_end(
        &self,
        life: &Life,
        status: Option<ExitStatus>,
        error: Error,
    ) -> Error {
        error
            .by(life.label.worker, life.label.pid, &self.command)
            .said(life.stderr.to_vec())
            .exited(status)
    }
}

/// A timer that would run out in more than a hundred years is not set: a limit of `Duration::MAX` is none.
const NEVER: Now = Duration::from_secs(u32::MAX as u64);

/// The advice for a tool that buffers.
const WITHHOLDS: &str = "withholds its replies until its buffer is full: use its unbuffered or \
                         line-buffered flag (sed -u, grep --line-buffered, jq --unbuffered, python3 -u, \
                         mawk -W interactive), or Template::line_buffered";
