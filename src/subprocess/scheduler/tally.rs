//! What is said of the workers: how much each has done, and what it does now.
//!
//! # Invariants
//! 1. `busy` is the number of live sessions that owed something when they were last looked at, which is after every
//!    event at them.
//! 2. A worker's tally has what its sessions did that are gone; what the live one did is in the session.

use std::time::Duration;

use crate::record::PacketId;
use crate::subprocess::protocol::Now;
use crate::subprocess::scheduler::{Scheduler, Slot};
use crate::subprocess::session::{Session, Turn};
use crate::watch::{Head, Standing, View, Worker, WorkerState};
use crate::window::outlet::Order;

/// What the sessions of one worker did that are gone.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    sessions: u64,
    /// The number of the last one.
    last: u64,
    answered: u64,
    busy: Duration,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Tallies {
    workers: Vec<Tally>,
    busy: usize,
}

impl Tallies {
    pub(super) fn new(workers: usize) -> Self {
        Self { workers: vec![Tally::default(); workers], busy: 0 }
    }

    /// A session with this number has begun.
    pub(super) fn started(&mut self, slot: usize, serial: u64) {
        self.workers[slot].sessions += 1;
        self.workers[slot].last = serial;
    }

    /// Something has happened at a session.
    pub(super) fn turned(&mut self, turn: Option<Turn>) {
        match turn {
            None => {}
            Some(Turn::Busy) => self.busy += 1,
            Some(Turn::Idle) => self.busy -= 1,
        }
    }

    /// A session has ended: so many packets were answered by it, and it was at work for so long.
    pub(super) fn ended(&mut self, slot: usize, answered: u64, busy: Duration) {
        self.workers[slot].answered += answered;
        self.workers[slot].busy += busy;
    }
}

impl Scheduler {
    /// How the feed stands, without what only its ends know.
    pub(crate) fn standing(&self) -> Standing {
        Standing {
            workers: self.slots.len(),
            busy: self.tallies.busy,
            waiting: self.backlog.packets(),
            accepted: self.accepted,
            resolved: self.resolved,
            yielded: self.plan.gate.total_yielded(),
            ordered: self.plan.order == Order::Input,
            ended: self.is_fully_pulled(),
            stopping: self.shutdown.is_stopping(),
            ..Standing::default()
        }
    }

    /// Says what each worker does.
    pub(crate) fn view(&self, view: &mut View) {
        for (id, worker) in view.workers.iter_mut().enumerate() {
            self.view_worker(id, worker);
        }
        let yielded = self.plan.gate.total_yielded();
        view.next = self.plan.origin.plus(yielded).0;
        view.ready = self.resolved.saturating_sub(yielded);
        view.withholding = self.withholding;
        view.head = self.head();
    }

    fn view_worker(&self, id: usize, worker: &mut Worker) {
        let tally = &self.tallies.workers[id];
        *worker = Worker {
            session: (tally.sessions > 0).then_some(tally.last),
            answered: tally.answered,
            busy: tally.busy,
            restarts: tally.sessions.saturating_sub(1),
            ..Worker::new(id)
        };
        match &self.slots[id] {
            Slot::Vacant { not_before } if *not_before > self.now.patient => {
                worker.state = WorkerState::BackingOff;
            }
            Slot::Vacant { .. } => {}
            Slot::Starting => worker.state = WorkerState::Starting,
            Slot::Live { session, .. } => session.view(worker, self.now),
        }
        let run = self.now.real.as_secs_f64();
        if run > 0.0 {
            worker.busy_share = (worker.busy.as_secs_f64() / run).min(1.0);
        }
    }

    /// Which worker has what the consumer waits for: where any reply will do, the packet that a worker has been at
    /// for longest.
    pub(super) fn head(&self) -> Option<Head> {
        let head = |session: &Session, packet: PacketId, since: Now| Head {
            packet: packet.0,
            worker: session.slot(),
            since: self.now.patient.saturating_sub(since),
        };
        let origin = self.plan.origin;
        if self.plan.order == Order::Input {
            let next = origin.plus(self.plan.gate.total_yielded());
            let session = self.sessions().find(|session| session.has(next, origin))?;
            return Some(head(session, next, session.at_work_since()?.1));
        }
        let at_work = |session| Some((session, Session::at_work_since(session)?));
        let (session, (packet, since)) =
            self.sessions().filter_map(at_work).min_by_key(|(_, (_, since))| *since)?;
        Some(head(session, packet, since))
    }
}

#[cfg(test)]
impl Scheduler {
    /// Whether what is said of the workers is so.
    pub(super) fn audit_tallies(&self) -> Result<(), String> {
        let busy = self.sessions().filter(|session| session.owed() > 0).count();
        if busy != self.tallies.busy {
            return Err(format!(
                "{busy} workers are busy, and {} are said to be",
                self.tallies.busy
            ));
        }
        let workers: Vec<_> = (0..self.slots.len()).map(Worker::new).collect();
        let mut view = View { workers, ..View::default() };
        self.view(&mut view);
        let owed: u64 = self.sessions().map(Session::owed).sum();
        let said: u64 = view.workers.iter().map(|worker| worker.owed).sum();
        if owed != said {
            return Err(format!("{owed} replies are owed, and {said} are said to be"));
        }
        let tallied: u64 = self.tallies.workers.iter().map(|tally| tally.sessions).sum();
        if tallied != self.stats().counters.snapshot().starts {
            return Err(format!("{tallied} sessions are in the tallies"));
        }
        Ok(())
    }
}
