//! The scheduler of the swarm: a state machine without I/O.
//!
//! Events come in as method calls (`read`, `wrote`, `exited`, `tick`, ...), each with the time; what
//! is to be done goes out as [`Action`]s and [`Span`]s. The event loop performs and reports; a simulation
//! does the same with simulated workers and a simulated clock.
//!
//! # Invariants
//! 1. Conservation: every packet that arrived is in exactly one place: `pending`, one session's
//!    `in_flight`, or emitted in one span. `accepted == pending + in flight + resolved`.
//! 2. `pending` is sorted by packet id, so whoever is free gets the earliest.
//! 3. A session answers in the order in which it was given; its replies belong to the front of `in_flight`.
//! 4. Whatever can end has a timer, or is ended by an event that the operating system owes us.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::record::{Batch, PacketId, Pool, Requests, Run};
use crate::stats::{Counters, Stats};
use crate::subprocess::protocol::{Now, Operation};
use crate::subprocess::reading::READ_BYTES;
use crate::subprocess::session::Session;
use crate::subprocess::timers::NEVER;
use crate::template::Spec;
use crate::window::gate::Gate;
use crate::window::intake::LARGEST_SPARE;
use crate::window::outlet::Order;
use crate::window::packet::{End, Outcome, Span};
use crate::window::unwind::Payload;

/// How carefully a pending run must be dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    /// To whoever is free.
    Free,
    /// Suspects: to a session with nothing in flight, and nothing follows before they are answered.
    Together,
    /// One packet, to a session that has never been given anything, so that its death can be charged.
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
    Live(Box<Session>),
}

#[derive(Debug)]
pub(crate) struct Scheduler {
    pub(crate) spec: Arc<Spec>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) order: Order,
    pub(crate) origin: PacketId,
    /// Nothing comes back: a packet is done when it is written.
    pub(crate) drain: bool,
    /// Bytes that may wait to be written to every input of a session before it gets no more packets.
    pub(crate) backlog: u64,
    /// Requests are kept beside replies, for the errors of `decode`.
    pub(crate) keep_requests: bool,
    pub(crate) command: Arc<str>,

    pub(crate) slots: Vec<Slot>,
    pub(crate) pending: VecDeque<Job>,
    pub(crate) pending_count: u64,
    /// How many of the pending jobs are not `Care::Free`.
    pub(crate) careful: usize,
    /// Sessions with room, warm and cold, in the order in which they asked.
    pub(crate) warm: VecDeque<usize>,
    pub(crate) cold: VecDeque<usize>,
    /// How often a packet has been charged.
    pub(crate) attempts: HashMap<u64, u32>,

    pub(crate) accepted: u64,
    pub(crate) resolved: u64,
    /// How many packets there are, once known.
    pub(crate) pulled: Option<u64>,
    pub(crate) timers: BinaryHeap<Reverse<(Now, usize, u64)>>,
    /// When the feed as a whole must be looked at.
    pub(crate) feed_timer: Option<Now>,
    pub(crate) next_serial: u64,
    pub(crate) next_to_start: usize,
    pub(crate) streak: u32,
    pub(crate) ever_answered: bool,
    pub(crate) withholding: bool,
    pub(crate) failures: u64,
    /// The time of what is happening.
    pub(crate) now: Now,
    /// When any worker last said anything, or was first asked.
    pub(crate) heard: Now,
    pub(crate) stopping: Option<Stopping>,
    pub(crate) halting: bool,

    /// Set by a fatal error until a packet carries it.
    pub(crate) cause: Option<Error>,
    pub(crate) end: End,
    pub(crate) actions: VecDeque<Operation>,
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

/// What a scheduler is made from.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) spec: Arc<Spec>,
    pub(crate) workers: usize,
    pub(crate) order: Order,
    pub(crate) origin: PacketId,
    pub(crate) keep_requests: bool,
    pub(crate) drain: bool,
    /// See [`Scheduler::backlog`].
    pub(crate) backlog: u64,
    pub(crate) gate: Arc<Gate>,
    pub(crate) stats: Arc<Stats>,
}

impl Scheduler {
    pub(crate) fn new(plan: Plan) -> Self {
        let command = Arc::from(plan.spec.command.display());
        let mut scheduler = Self {
            pool: Arc::new(Pool::new(64, 2 * READ_BYTES)),
            command,
            order: plan.order,
            origin: plan.origin,
            drain: plan.drain,
            backlog: plan.backlog,
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
        scheduler.feed_timer = scheduler.spec.policy.run_timeout.filter(|&limit| limit < NEVER);
        scheduler
    }

    /// What it takes to start its sessions: the template, the command as it is shown, the number of slots.
    pub(crate) fn setup(&self) -> (Arc<Spec>, Arc<str>, usize) {
        (Arc::clone(&self.spec), Arc::clone(&self.command), self.slots.len())
    }

    /// The bytes to write next to an input of a slot.
    pub(crate) fn slices<'a>(
        &'a self,
        slot: usize,
        channel: usize,
        slices: &mut [std::io::IoSlice<'a>],
    ) -> usize {
        match &self.slots[slot] {
            Slot::Live(session) => session.inputs[channel].slices(channel, slices),
            _ => 0,
        }
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.stats.counters
    }

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
        // What it has of the packet is held until it is yielded.
        let weight = error.weight();
        self.gate.hold(weight);
        self.spend(run);
        self.emit(Span { weight, ..Span::one(packet, Outcome::Failed(error)) });
        self.count_failure();
    }

    pub(crate) fn emit_panic(&mut self, run: Run, payload: Payload) {
        let packet = run.first();
        self.spend(run);
        self.emit(Span::one(packet, Outcome::Panicked(payload)));
    }

    /// The requests of a run are needed no more.
    pub(crate) fn spend(&mut self, run: Run) {
        if !mutated!(LeakedBytes) {
            self.gate.release(run.weight());
        }
        self.recycle(run);
    }

    /// Gives the batch of a run back if this was its last run. A large one goes at once, as its bytes are
    /// not counted any more.
    pub(crate) fn recycle(&mut self, run: Run) {
        if let Some(batch) = Arc::into_inner(run.batch)
            && batch.bytes() <= LARGEST_SPARE
        {
            self.spent.push(batch);
        }
    }
}
