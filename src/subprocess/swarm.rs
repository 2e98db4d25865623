//! The swarm: the scheduler between the two ends of the window, as the machine of an event loop.

use std::io::{self, IoSlice};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
#[cfg(test)]
use crate::record::Batch;
use crate::subprocess::event_loop::{EventLoop, Machine, Rest};
use crate::subprocess::evidence::Look;
use crate::subprocess::exit::announce_lost_statuses;
use crate::subprocess::os::{Os, Port, Setup, Unix};
use crate::subprocess::protocol::{Now, Operation, Sighting, Spawned, StartError, Time};
use crate::subprocess::readiness::Readiness;
use crate::subprocess::scheduler::Scheduler;
use crate::tuning::BATCHES_A_TURN;
use crate::watch::{Share, Standing};
use crate::window::handover::{Arrival, Supply};
use crate::window::outbox::Outbox;
use crate::window::packet::End;
use crate::window::unwind;

/// How long a stopped intake may take to come out of the source, with an input that was on its way
/// and has a right to its item, before the feed ends without it.
const COME_OUT_WITHIN: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct Swarm {
    scheduler: Scheduler,
    supply: Supply,
    outbox: Arc<Outbox>,
    now: Now,
    /// Since when nothing is left to do but to wait for an intake that is inside the user's `next()`.
    lost_since: Option<Now>,
    /// The intake is asked to wake us.
    asking: bool,
    /// The last question about the workers that was answered.
    told: u64,
    pause: Pause,
    /// Packets, and bytes held for them, that have ever come.
    #[cfg(test)]
    pub(crate) arrived: (u64, usize),
    /// Bytes held for what has ever been handed on, and for the failures among that.
    #[cfg(test)]
    pub(crate) handed: (usize, usize),
    #[cfg(test)]
    gave_up: bool,
}

/// What the loop spends without doing anything.
#[derive(Debug, Default)]
struct Pause {
    /// When it began, if it lets others run or sleeps; which of the two.
    since: Option<Now>,
    briefly: bool,
    /// How long others were let run since that was put down.
    idled: Duration,
}

/// After so long without a sleep it is put down all the same.
const PUT_DOWN_AFTER: Duration = Duration::from_millis(100);

/// Runs a feed to its end, on the thread that is to be the event loop's.
pub(crate) fn run(
    scheduler: Scheduler,
    supply: Supply,
    outbox: Arc<Outbox>,
    poller: Arc<Readiness>,
) {
    if let Some(hint) = announce_lost_statuses() {
        scheduler.hint(hint);
    }
    let (spec, command, slots) = scheduler.setup();
    // Where nothing is sent twice, what lies in a pipe is what may be lost with its reader.
    let enlarges = !scheduler.is_drain() && !spec.policy.at_most_once;
    let gate = Arc::clone(supply.gate());
    let stats = Some(Arc::clone(scheduler.stats()));
    let setup = Setup { spec, command, slots, enlarges, counts_leftovers: true, stats };
    let os = Unix::new(setup, poller);
    scheduler.stats().begin();
    let swarm = Swarm::new(scheduler, supply, Arc::clone(&outbox));
    let mut event_loop = EventLoop::new(swarm, os, slots);
    let end = finish(&mut event_loop);
    gate.stop();
    // The children first: a consumer that has seen the end finds nothing left of them.
    drop(event_loop);
    outbox.end(end);
}

/// Runs an event loop to its end.
fn finish<O: Os>(event_loop: &mut EventLoop<Swarm, O>) -> End {
    // A panic here is a bug of ours, or of a framing: the consumer gets it rather than waiting for ever.
    let panicked = unwind::catch(|| event_loop.run());
    let swarm = event_loop.machine();
    swarm.tell_last();
    match panicked {
        Ok(()) => swarm.take_end(),
        Err(payload) => {
            swarm.put();
            End { panic: Some(payload), ..End::default() }
        }
    }
}

impl Swarm {
    pub(crate) fn new(scheduler: Scheduler, supply: Supply, outbox: Arc<Outbox>) -> Self {
        Self {
            scheduler,
            supply,
            outbox,
            now: Now::ZERO,
            lost_since: None,
            asking: false,
            told: 0,
            pause: Pause::default(),
            #[cfg(test)]
            arrived: (0, 0),
            #[cfg(test)]
            handed: (0, 0),
            #[cfg(test)]
            gave_up: false,
        }
    }

    /// The end, once everything is over.
    pub(crate) fn take_end(&mut self) -> End {
        self.scheduler.take_end()
    }

    #[cfg(test)]
    pub(crate) fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Whether the intake was given up: it stays inside the user's `next()`.
    #[cfg(test)]
    pub(crate) fn gave_up(&self) -> bool {
        self.gave_up
    }

    /// Answers a monitor that has asked about the workers.
    fn tell(&mut self) {
        let stats = self.scheduler.stats();
        if let Some(question) = stats.board().question(self.told) {
            stats.board().tell(question, |view| self.scheduler.view(view));
            self.told = question;
        }
    }

    /// Nobody will be answered any more.
    fn tell_last(&mut self) {
        self.put_down();
        let stats = self.scheduler.stats();
        // What the consumer has not taken yet is nobody's but its own.
        stats.ledger().rests(self.now, Duration::ZERO, Share::Nothing, stats.counts(), 0);
        self.scheduler.stats().board().close(|view| self.scheduler.view(view));
    }

    /// Puts down where the time went since that was done last, and for whom what comes is spent.
    fn put_down(&mut self) {
        let standing = Standing {
            consumer_waits: self.outbox.has_waiter(),
            full: self.supply.gate().holds_puller(),
            ..self.scheduler.standing()
        };
        self.scheduler.record_window(&standing);
        let stats = self.scheduler.stats();
        let idled = std::mem::take(&mut self.pause.idled);
        let busy = u32::try_from(standing.busy).unwrap_or(u32::MAX);
        stats.ledger().rests(self.now, idled, standing.share(), stats.counts(), busy);
    }

    fn put(&mut self) {
        #[cfg(test)]
        for span in &self.scheduler.effects().spans {
            self.handed.0 += span.weight;
            if matches!(span.outcome, crate::window::packet::Outcome::Failed(_)) {
                self.handed.1 += span.weight;
            }
        }
        self.outbox.put(&mut self.scheduler.effects().spans);
    }

    fn take_input(&mut self) -> bool {
        match self.supply.take() {
            Some(arrival) => {
                self.arrive(arrival);
                true
            }
            None => false,
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        #[cfg(test)]
        match &arrival {
            Arrival::Batch(batch) => {
                self.arrived.0 += batch.len() as u64;
                self.arrived.1 += batch.bytes();
            }
            Arrival::Settled(span) => {
                self.arrived.0 += span.count;
                self.arrived.1 += span.weight;
            }
            Arrival::End { .. } => {}
        }
        self.scheduler.arrived(arrival);
    }
}

impl Machine for Swarm {
    fn time_is(&mut self, now: Time) {
        self.now = now.real;
        self.scheduler.time_is(now);
    }

    fn begin(&mut self) {
        if self.supply.is_dropped() {
            self.scheduler.cancel();
        }
    }

    fn pass_on(&mut self) {
        self.put();
    }

    fn takes_input(&mut self) -> bool {
        self.scheduler.wants_input() && self.take_input()
    }

    fn advance(&mut self, reported: Time) {
        self.scheduler.tick(reported);
        while self.scheduler.wants_input() && self.take_input() {}
        // An intake that was given up is not listened to, whatever comes.
        while self.scheduler.awaits_input()
            && self.scheduler.can_dispatch()
            && self.scheduler.waiting_runs() < BATCHES_A_TURN
        {
            let Some(arrival) = self.supply.take_full() else { break };
            self.arrive(arrival);
        }
        self.scheduler.dispatch();
        self.scheduler.close_if_done();
    }

    fn deliver(&mut self) -> bool {
        self.put();
        for batch in self.scheduler.effects().spent.drain(..) {
            self.supply.give_back(batch);
        }
        self.tell();
        self.scheduler.pass_log_on();
        self.scheduler.is_finished() && self.scheduler.has_log_ended()
    }

    fn next_operation(&mut self) -> Option<Operation> {
        self.scheduler.effects().operations.pop_front()
    }

    fn has_operations(&self) -> bool {
        self.scheduler.has_operations()
    }

    fn take_writers(&mut self, slots: &mut Vec<usize>) {
        slots.append(&mut self.scheduler.effects().writers);
    }

    fn next_start(&mut self) -> Option<usize> {
        self.scheduler.next_start()
    }

    fn started(&mut self, slot: usize, spawned: &Spawned) {
        self.scheduler.started(slot, spawned);
    }

    fn start_failed(&mut self, slot: usize, error: StartError) {
        self.scheduler.start_failed(slot, error);
    }

    fn may_read(&mut self, slot: usize) -> bool {
        self.scheduler.may_read(slot)
    }

    fn read_room(&mut self, slot: usize, output: usize) -> &mut [u8] {
        self.scheduler.read_room(slot, output)
    }

    fn read(&mut self, slot: usize, output: usize, n: usize) {
        self.scheduler.read(slot, output, n);
    }

    fn read_closed(&mut self, slot: usize, output: usize) {
        self.scheduler.read_closed(slot, output);
    }

    fn read_failed(&mut self, slot: usize, port: Port, error: io::Error) {
        self.scheduler.read_failed(slot, port.output(), error);
    }

    fn heard_stderr(&mut self, slot: usize, bytes: &[u8]) {
        self.scheduler.heard_stderr(slot, bytes);
    }

    fn stderr_closed(&mut self, slot: usize) {
        self.scheduler.stderr_closed(slot);
    }

    fn slices<'a>(&'a self, slot: usize, channel: usize, slices: &mut [IoSlice<'a>]) -> usize {
        self.scheduler.slices(slot, channel, slices)
    }

    fn wrote(&mut self, slot: usize, channel: usize, n: usize) {
        self.scheduler.wrote(slot, channel, n);
    }

    fn write_closed(&mut self, slot: usize, channel: usize) {
        self.scheduler.write_closed(slot, channel);
    }

    fn write_failed(&mut self, slot: usize, channel: usize, error: io::Error) {
        self.scheduler.write_failed(slot, channel, error);
    }

    fn left_unread(&mut self, slot: usize, channel: usize, bytes: u64) {
        self.scheduler.left_unread(slot, channel, bytes);
    }

    fn looked(&mut self, slot: usize, look: Look) {
        self.scheduler.looked(slot, look);
    }

    fn sighted(&mut self, slot: usize, pid: u32, sighting: Sighting) {
        self.scheduler.sighted(slot, pid, sighting);
    }

    fn exited(&mut self, slot: usize) {
        self.scheduler.exited(slot);
    }

    fn ended(&mut self, slot: usize, status: Option<ExitStatus>) {
        self.scheduler.ended(slot, status);
    }

    fn pauses(&mut self, briefly: bool) {
        if !briefly {
            self.put_down();
        } else if self.pause.idled >= PUT_DOWN_AFTER {
            self.put_down();
            self.scheduler.stats().wakes(self.now);
        }
        self.pause.since = Some(self.now);
        self.pause.briefly = briefly;
    }

    fn resumes(&mut self) {
        let Some(since) = self.pause.since.take() else { return };
        if self.pause.briefly {
            self.pause.idled += self.now.saturating_sub(since);
        } else {
            self.scheduler.stats().wakes(self.now);
        }
    }

    fn keeps_stderr(&self) -> bool {
        self.scheduler.keeps_stderr()
    }

    fn awaits_first_reply(&self) -> bool {
        self.scheduler.has_started() && self.supply.gate().total_yielded() == 0
    }

    fn has_work(&self) -> bool {
        self.scheduler.can_dispatch()
    }

    fn rest(&mut self) -> Rest {
        self.asking = self.scheduler.wants_input();
        if self.asking {
            self.supply.ask();
            if self.take_input() {
                self.wake();
                return Rest::Not;
            }
            if !self.scheduler.intake_is_lost() || !self.supply.is_all_here() {
                self.lost_since = None;
            } else if self.now - *self.lost_since.get_or_insert(self.now) >= COME_OUT_WITHIN {
                // It stays inside the user's `next()` and will never be listened to again.
                self.wake();
                self.scheduler.give_up_intake();
                #[cfg(test)]
                {
                    self.gave_up = true;
                }
                return Rest::Not;
            }
        } else {
            // It came out; a date that is past would keep us awake.
            self.lost_since = None;
        }
        let given_up = self.lost_since.map(|since| since + COME_OUT_WITHIN - self.now);
        Rest::Until(self.scheduler.next_timer().into_iter().chain(given_up).min())
    }

    fn wake(&mut self) {
        if std::mem::take(&mut self.asking) {
            self.supply.stop_asking();
        }
    }

    fn wait_failed(&mut self, error: Error) {
        self.scheduler.fail(error);
    }
}
