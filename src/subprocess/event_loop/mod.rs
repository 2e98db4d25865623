//! The event_loop: the thread that owns every child, descriptor and timer.
//!
//! It performs what the scheduler asks for and reports what happens; all judgement is the scheduler's. It
//! never blocks but in the poller, and is not generic over items.
//!
//! Readiness is edge-triggered: a descriptor is registered once, and a flag remembers that it is
//! readable or writable until a call says otherwise. So back-pressure costs no system call (a paused
//! output is simply not read), and an end that has been closed cannot spin.

mod bytes;
mod effects;
mod ports;

use std::io::ErrorKind as IoErrorKind;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};
use crate::subprocess::process::{Launcher, MOST_ROOMY, block_sigpipe};
use crate::subprocess::readiness::{Readiness, Ready};
use crate::subprocess::scheduler::Scheduler;
use crate::template::policy::Signal;
use crate::window::intake::Supply;
use crate::window::outbox::Outbox;
use crate::window::packet::End;
use crate::window::unwind;

use ports::{Keys, Port, Ports};

/// How long a stopped intake may take to come out of the source, with an input that was on its way
/// and has a right to its item, before the feed ends without it.
const COME_OUT_WITHIN: Duration = Duration::from_millis(50);

pub(crate) struct EventLoop {
    scheduler: Scheduler,
    supply: Supply,
    outbox: Arc<Outbox>,
    launcher: Launcher,
    poller: Arc<Readiness>,
    keys: Keys,
    ports: Vec<Option<Ports>>,
    start: Instant,
    /// Slots with something to write, or to read, that is not waiting for the poller.
    to_write: Vec<usize>,
    to_read: Vec<usize>,
    /// Pipes are enlarged once they are full.
    roomy: bool,
    /// Since when nothing is left to do but to wait for an intake that is inside the user's `next()`.
    lost_since: Option<Duration>,
    /// How often the others were let run since something happened.
    yields: u32,
}

impl std::fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLoop").field("scheduler", &self.scheduler).finish_non_exhaustive()
    }
}

/// Batches that may wait to be given out: what stands in line already shares the turn's system calls.
const BATCHES_A_TURN: usize = 4;

/// How often the event loop lets others run before it sleeps, for the same reason as the consumer does; and
/// where the source is fast, the open batch grows meanwhile, and is not written in crumbs.
const YIELDS: u32 = 4;

/// How often it does so between two starts, as long as the consumer waits for its first item: once for the
/// worker, which may have an answer by then, and once for the consumer. Where processors are few, the
/// starts of all would otherwise come before the first reply.
const YIELDS_A_START: u32 = 2;

/// Runs a event loop to its end, on the thread that is to be the event loop's.
pub(crate) fn run(
    scheduler: Scheduler,
    supply: Supply,
    outbox: Arc<Outbox>,
    poller: Arc<Readiness>,
) {
    let spec = Arc::clone(&scheduler.spec);
    let workers = scheduler.slots.len();
    let keys = Keys {
        inputs: 1 + spec.side_input_names().len(),
        outputs: 1 + spec.channels.side_outputs.iter().filter(|side| side.file.is_none()).count(),
    };
    // Where nothing is sent twice, what lies in a pipe is what may be lost with its reader.
    let exact = scheduler.drain || spec.policy.at_most_once;
    let roomy = !exact && workers <= MOST_ROOMY;
    let launcher = Launcher::new(spec, Arc::clone(&scheduler.command));
    let for_end = Arc::clone(&outbox);
    let gate = Arc::clone(&scheduler.gate);
    let mut event_loop = EventLoop {
        scheduler,
        supply,
        outbox,
        launcher,
        poller,
        keys,
        ports: (0..workers).map(|_| None).collect(),
        start: Instant::now(),
        to_write: Vec::new(),
        to_read: Vec::new(),
        roomy,
        lost_since: None,
        yields: 0,
    };
    // A panic here is a bug of ours, or of a framing: the consumer gets it rather than waiting for ever.
    let end = match unwind::catch(|| event_loop.run()) {
        Ok(end) => end,
        Err(payload) => {
            event_loop.outbox.put(&mut event_loop.scheduler.out);
            End { panic: Some(payload), ..End::default() }
        }
    };
    gate.stop();
    // The children first: a consumer that has seen the end finds nothing left of them.
    drop(event_loop);
    for_end.end(end);
}

impl EventLoop {
    fn run(&mut self) -> End {
        block_sigpipe(true);
        let mut events = Ready::new();
        loop {
            let now = self.start.elapsed();
            self.turn(now);
            self.outbox.put(&mut self.scheduler.out);
            for batch in self.scheduler.spent.drain(..) {
                self.supply.handover.give_back(batch);
            }
            if self.scheduler.is_finished() {
                return self.scheduler.take_end();
            }
            if self.nobody_served() && self.yields < YIELDS_A_START {
                self.let_others_run(&mut events);
                continue;
            }
            if let Some(slot) = self.scheduler.next_start(now) {
                self.yields = 0;
                self.launch(slot);
                self.wait(&mut events, Some(Duration::ZERO));
                continue;
            }
            if self.has_work() {
                self.wait(&mut events, Some(Duration::ZERO));
                continue;
            }
            if self.yields < YIELDS {
                if self.let_others_run(&mut events) {
                    self.yields = 0;
                }
                continue;
            }
            self.yields = 0;
            let asking = self.scheduler.wants_input();
            if asking {
                self.supply.ask();
                if self.take_input(now) {
                    self.supply.stop_asking();
                    continue;
                }
                if !self.scheduler.intake_is_lost() || !self.supply.handover.is_empty_handed() {
                    self.lost_since = None;
                } else if now - *self.lost_since.get_or_insert(now) >= COME_OUT_WITHIN {
                    // It stays inside the user's `next()` and will never be listened to again.
                    self.supply.stop_asking();
                    self.scheduler.give_up_intake();
                    continue;
                }
            }
            let timer = self.scheduler.next_timer();
            if !asking {
                // It came out; a date that is past would keep the event loop awake.
                self.lost_since = None;
            }
            let given_up = self.lost_since.map(|since| since + COME_OUT_WITHIN);
            let next = timer.into_iter().chain(given_up).min();
            let timeout = next.map(|at| at.saturating_sub(self.start.elapsed()));
            self.wait(&mut events, timeout);
            if asking {
                self.supply.stop_asking();
            }
        }
    }

    /// Lets others run, and looks what came of it. Says whether a child had something to say.
    fn let_others_run(&mut self, events: &mut Ready) -> bool {
        self.yields += 1;
        thread::yield_now();
        self.wait(events, Some(Duration::ZERO))
    }

    /// Whether there are workers and the consumer has had nothing yet.
    fn nobody_served(&self) -> bool {
        self.scheduler.next_serial > 0 && self.scheduler.gate.total_yielded() == 0
    }

    /// Whether something can be done without waiting.
    fn has_work(&mut self) -> bool {
        self.scheduler.can_dispatch()
            || !self.scheduler.actions.is_empty()
            || self.to_read.iter().any(|&slot| self.scheduler.may_read(slot))
    }

    /// Everything that can be done now.
    fn turn(&mut self, now: Duration) {
        self.scheduler.time_is(now);
        if self.supply.handover.is_dropped() {
            self.scheduler.cancel();
        }
        // What has come is read before anybody is judged for being late with it.
        self.read(now);
        self.scheduler.tick(now);
        for slot in 0..self.ports.len() {
            // Only where there is no pidfd; otherwise the flag is never set.
            if self.ports[slot].as_ref().is_some_and(|ports| !ports.exited && ports.exit.is_known())
            {
                self.exited(slot, now);
            }
        }
        while self.scheduler.wants_input() && self.take_input(now) {}
        while self.scheduler.can_dispatch() && self.scheduler.pending.len() < BATCHES_A_TURN {
            let Some(arrival) = self.supply.take_full() else { break };
            self.scheduler.arrived(arrival, now);
        }
        self.scheduler.dispatch(now);
        self.scheduler.close_if_done(now);
        self.perform(now);
        self.to_write.append(&mut self.scheduler.to_write);
        self.write(now);
        self.perform(now);
    }

    fn take_input(&mut self, now: Duration) -> bool {
        match self.supply.take() {
            Some(arrival) => {
                self.scheduler.arrived(arrival, now);
                true
            }
            None => false,
        }
    }

    /// Waits for the children, the intake or the time. Says whether a child had something to say.
    fn wait(&mut self, events: &mut Ready, timeout: Option<Duration>) -> bool {
        if let Err(error) = self.poller.wait(events, timeout) {
            if error.kind() != IoErrorKind::Interrupted {
                let error = Error::new(ErrorKind::Thread, "the poller failed").because(error);
                self.scheduler.fail(error);
            }
            return false;
        }
        let now = self.start.elapsed();
        self.scheduler.time_is(now);
        let mut gone = Vec::new();
        for event in events.iter() {
            let (slot, port) = self.keys.port(event.key);
            let Some(ports) = self.ports.get_mut(slot).and_then(Option::as_mut) else { continue };
            match port {
                Port::Exit => gone.push(slot),
                Port::Stderr => {
                    ports.stderr_readable = true;
                    ports.draining |= event.hung_up;
                    self.to_read.push(slot);
                }
                Port::Output(output) => {
                    ports.readable[output] = true;
                    ports.draining |= event.hung_up;
                    self.to_read.push(slot);
                }
                Port::Input(channel) => {
                    ports.writable[channel] = true;
                    self.to_write.push(slot);
                }
            }
        }
        if !gone.is_empty() {
            // What it said before it went comes first.
            self.read(now);
        }
        for slot in gone {
            if self.ports[slot].as_ref().is_some_and(|ports| !ports.exited) {
                self.exited(slot, now);
            }
        }
        events.iter().next().is_some()
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        // Only after a panic: the usual way out leaves nobody behind. All at once, so that those who
        // die slowly do so side by side.
        for ports in self.ports.iter().flatten() {
            ports.process.signal(Signal::Kill);
        }
        for ports in self.ports.iter_mut().filter_map(Option::take) {
            ports.process.finish();
        }
    }
}
