//! Who gets what: the backlog, to sessions with room.
//!
//! The earliest packets go first. A cold session (one that has not answered yet) gets a single packet to
//! show itself with, and gets it at once, but never the one that the consumer waits for while a warm session has
//! room. How much a session may hold is its own business, and none is given more than the next writes
//! take as long as that is unwritten; here it is only made sure that a small backlog is shared out instead
//! of going to the session that asks first.

use std::collections::VecDeque;

use crate::subprocess::scheduler::{Scheduler, Slot};
use crate::subprocess::session::{Care, Session};
use crate::tuning::DISPATCH_BYTES;
use crate::window::outlet::Order;

/// Slots of sessions with room, warm and cold, in the order in which they asked.
#[derive(Debug, Default)]
pub(super) struct Lines {
    warm: VecDeque<usize>,
    cold: VecDeque<usize>,
    /// Those that get only what no other session takes.
    last: VecDeque<usize>,
}

impl Lines {
    fn is_empty(&self) -> bool {
        self.warm.is_empty() && self.cold.is_empty()
    }

    fn has_last(&self) -> bool {
        !self.last.is_empty()
    }

    fn enter(&mut self, slot: usize, session: &Session, withholding: bool) {
        let line = if session.is_served_last() {
            &mut self.last
        } else if session.is_warm() || withholding {
            &mut self.warm
        } else {
            &mut self.cold
        };
        line.push_back(slot);
    }

    /// The session in this slot is over.
    pub(super) fn leave(&mut self, slot: usize) {
        self.warm.retain(|&waiting| waiting != slot);
        self.cold.retain(|&waiting| waiting != slot);
        self.last.retain(|&waiting| waiting != slot);
    }
}

impl Scheduler {
    /// A session has room, or may have: it asks for work once.
    pub(super) fn offer(&mut self, slot: usize) {
        let Slot::Live { session, queued } = &mut self.slots[slot] else { return };
        let careful = self.backlog.has_careful();
        if (*queued && !careful) || !session.takes_more(&self.plan.spec, self.plan.backlog) {
            return;
        }
        // A careful run looks for a session among all, not in the lines.
        self.careful_may_go |= careful;
        if std::mem::replace(queued, true) {
            return;
        }
        self.lines.enter(slot, session, self.withholding);
    }

    /// Gives out what can be given out.
    pub(crate) fn dispatch(&mut self) {
        if self.shutdown.is_stopping() {
            return;
        }
        if self.backlog.has_careful() {
            self.dispatch_carefully();
        }
        self.careful_may_go = false;
        // In rounds, so that a backlog is cut once for each session that shares it, not halved again and
        // again, and that all in line have a turn.
        let (mut warm, mut cold, mut share, mut warm_first) = (0, 0, 0, true);
        while self.backlog.has_free() {
            if warm + cold == 0 {
                if self.lines.warm.is_empty() && self.lines.cold.is_empty() {
                    // A session that is about to start comes before them.
                    if self.is_starting() {
                        return;
                    }
                    let Some(slot) = self.lines.last.pop_front() else { return };
                    self.lines.cold.push_back(slot);
                }
                (warm, cold) = (self.lines.warm.len(), self.lines.cold.len());
                share = self.backlog.packets().div_ceil((warm + cold) as u64);
                warm_first = self.head_waits();
            }
            let line = if warm > 0 && (warm_first || cold == 0) {
                warm -= 1;
                &mut self.lines.warm
            } else {
                cold -= 1;
                &mut self.lines.cold
            };
            let Some(slot) = line.pop_front() else { return };
            let Slot::Live { session, queued } = &mut self.slots[slot] else { continue };
            *queued = false;
            if !session.takes_more(&self.plan.spec, self.plan.backlog) {
                continue;
            }
            let room = session.room(&self.plan.spec);
            if share > room {
                session.was_bound();
            }
            self.give_free(slot, share, room);
            self.offer(slot);
        }
    }

    /// Whether a session is on its way, or could be started now.
    #[inline(never)]
    fn is_starting(&self) -> bool {
        let now = self.now.patient;
        self.slots.iter().enumerate().any(|(number, slot)| match slot {
            Slot::Vacant { not_before } => *not_before <= now && self.has_host(number),
            Slot::Starting => true,
            Slot::Live { .. } => false,
        })
    }

    /// Whether the host of a slot lets a session start there now.
    fn has_host(&self, slot: usize) -> bool {
        self.hosts.may_start(slot).is_some_and(|at| at <= self.now.patient)
    }

    /// Whether room has turned up since the last dispatch, and there is something to put there.
    pub(crate) fn can_dispatch(&self) -> bool {
        let has_line = || !self.lines.is_empty() || (self.lines.has_last() && !self.is_starting());
        let any = self.careful_may_go || (self.backlog.has_free() && has_line());
        any && !self.shutdown.is_stopping()
    }

    /// Whether what waits to be given out begins with the packet that the consumer waits for.
    fn head_waits(&self) -> bool {
        let nothing_in_flight = self.accepted - self.resolved == self.backlog.packets();
        let yielded = self.plan.origin.plus(self.plan.gate.total_yielded());
        nothing_in_flight
            || (self.plan.order == Order::Input
                && self.backlog.head().is_some_and(|(first, _)| first == yielded))
    }

    /// Gives about `share` packets of the earliest runs that need no care, and no more than `room`.
    fn give_free(&mut self, slot: usize, share: u64, mut room: u64) {
        let (mut share, mut bytes) = (share.min(room), 0);
        while share > 0
            && bytes < DISPATCH_BYTES
            && let Some(run) = self.backlog.take_free(share, room, bytes > 0)
        {
            let len = run.len() as u64;
            share = share.saturating_sub(len);
            room -= len;
            bytes += run.weight();
            self.at(slot, |session, cx, news| session.give(run, cx, news));
        }
    }

    /// Runs that must not be mixed with others.
    #[cold]
    fn dispatch_carefully(&mut self) {
        let mut at = 0;
        let mut starved = 0;
        while let Some(care) = self.backlog.care(at) {
            let fits = |session: &Session| {
                session.takes_more(&self.plan.spec, self.plan.backlog)
                    && session.owed() == 0
                    && (care == Care::Together || session.is_fresh())
            };
            if care == Care::Free {
                at += 1;
                continue;
            }
            let found = (0..self.slots.len()).find(|&slot| self.session(slot).is_some_and(fits));
            let Some(slot) = found else {
                starved += 1;
                at += 1;
                continue;
            };
            let Some(run) = self.backlog.take(at) else { break };
            self.at(slot, |session, cx, news| {
                session.quarantine();
                session.give(run, cx, news);
            });
        }
        self.make_room_for(starved);
    }

    /// `jobs` careful runs found no session: as many sessions as are not on their way are asked to become
    /// empty, or fresh. Without this they would wait for ever while the others go on.
    ///
    /// A session that was never given anything is on its way, even if it is not ready yet: to close it
    /// would make room for another one like it. So is one that is empty already, and takes nothing for some other
    /// reason: kept empty it would stay so for ever.
    fn make_room_for(&mut self, jobs: usize) {
        let alone = self.backlog.has_alone();
        let slots = 0..self.slots.len();
        let coming = slots.clone().filter(|&slot| self.makes_room(slot, alone)).count();
        for _ in coming..jobs {
            let others = slots.clone().filter(|&slot| !self.makes_room(slot, alone));
            let emptiest = others.filter_map(|slot| Some((self.session(slot)?.owed(), slot)));
            let Some((owed, slot)) = emptiest.min() else { return };
            self.at(slot, |session, cx, news| {
                if owed == 0 {
                    session.recycle(cx, news);
                } else {
                    // It gets nothing more until it is empty.
                    session.quarantine();
                }
            });
        }
    }

    /// Whether a careful run will find this slot, as it is, or what follows there: empty, or fresh if one must be `alone`.
    fn makes_room(&self, slot: usize, alone: bool) -> bool {
        match &self.slots[slot] {
            Slot::Vacant { .. } => !self.hosts.has_failed(slot),
            Slot::Starting => true,
            Slot::Live { session, .. } => {
                !session.is_open()
                    || session.is_quarantined()
                    || session.is_fresh()
                    || (session.owed() == 0 && !alone)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::record::{Batch, PacketId, Requests};
    use crate::stats::Stats;
    use crate::subprocess::protocol::{Spawned, Time};
    use crate::subprocess::scheduler::Plan;
    use crate::template::Template;
    use crate::window::gate::Gate;
    use crate::window::handover::Arrival;

    fn scheduler(workers: usize) -> Scheduler {
        let gate = Arc::new(Gate::new(100, usize::MAX));
        let mut scheduler = Scheduler::new(Plan {
            spec: Arc::new(Template::new("cat").spec),
            workers,
            order: Order::Input,
            origin: PacketId(0),
            keep_requests: false,
            drain: false,
            backlog: u64::MAX,
            most: None,
            gate: Arc::clone(&gate),
            stats: Arc::new(Stats::new(gate, workers)),
            log: None,
        });
        scheduler.time_is(Time::at(Duration::from_millis(1)));
        scheduler
    }

    fn start(scheduler: &mut Scheduler) {
        let slot = scheduler.next_start().unwrap();
        let spawned = Spawned {
            pid: 1,
            inputs: vec![true],
            outputs: vec![true],
            stderr: true,
            terminal: false,
        };
        scheduler.started(slot, &spawned);
    }

    fn arrive(scheduler: &mut Scheduler, first: u64, count: usize) {
        let mut batch = Requests::new(1);
        batch.begin(PacketId(first));
        for _ in 0..count {
            batch.columns[0].bytes.extend_from_slice(b"x\n");
            batch.columns[0].push_end();
        }
        scheduler.plan.gate.hold(batch.bytes());
        scheduler.arrived(Arrival::Batch(Box::new(batch)));
        scheduler.dispatch();
    }

    fn answer(scheduler: &mut Scheduler, slot: usize, count: usize) {
        let reply = b"x\n".repeat(count);
        scheduler.read_room(slot, 0)[..reply.len()].copy_from_slice(&reply);
        scheduler.read(slot, 0, reply.len());
    }

    fn given(scheduler: &Scheduler) -> Vec<u64> {
        scheduler.audit().unwrap().sessions.iter().map(|session| session.given).collect()
    }

    #[test]
    fn who_has_not_answered_yet_gets_one_packet_but_not_the_head() {
        let mut scheduler = scheduler(3);
        start(&mut scheduler);
        arrive(&mut scheduler, 0, 1);
        answer(&mut scheduler, 0, 1);
        start(&mut scheduler);
        start(&mut scheduler);
        // The consumer has had the first and waits for this one.
        scheduler.plan.gate.yielded(1);
        arrive(&mut scheduler, 1, 1);
        assert_eq!(given(&scheduler), [2, 0, 0]);
        // As few as one at a time, and still all come up.
        arrive(&mut scheduler, 2, 1);
        arrive(&mut scheduler, 3, 1);
        assert_eq!(given(&scheduler), [2, 1, 1]);
        arrive(&mut scheduler, 4, 1);
        assert_eq!(given(&scheduler), [3, 1, 1]);
    }
}
