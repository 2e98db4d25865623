//! Who gets what: pending runs to sessions with room.
//!
//! The earliest packets go first. A cold session (one that has not answered yet) gets a single packet to
//! show itself with, and gets it at once, but never the one that the consumer waits for while a warm session has
//! room. How much a session may hold is its [`Depth`]'s business, and nobody is given more than the next writes
//! take as long as that is unwritten; here it is only made sure that a small backlog is shared out instead
//! of going to whoever asks first.
//!
//! [`Depth`]: crate::subprocess::depth::Depth

use crate::record::Run;
use crate::subprocess::protocol::Now;
use crate::subprocess::scheduler::{Care, Job, Scheduler, Slot};
use crate::subprocess::session::{Session, Why};
use crate::template::Spec;
use crate::window::outlet::Order;

/// The most requests' bytes that are handed to a session in one go: a pipe's worth.
const CHUNK_BYTES: usize = 128 << 10;

impl Scheduler {
    /// A session has room, or may have: it asks for work once.
    pub(crate) fn offer(&mut self, slot: usize) {
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        if session.queued || !takes_more(session, &self.spec, self.backlog) {
            return;
        }
        session.queued = true;
        if session.depth.is_warm() || self.withholding {
            self.warm.push_back(slot);
        } else {
            self.cold.push_back(slot);
        }
    }

    /// Gives out what can be given out.
    pub(crate) fn dispatch(&mut self, now: Now) {
        if self.stopping.is_some() {
            return;
        }
        if self.careful > 0 {
            self.dispatch_carefully(now);
        }
        // In rounds, so that a backlog is cut once for each who shares it, not halved again and again, and
        // that everybody in line has a turn.
        let (mut warm, mut cold, mut share, mut warm_first) = (0, 0, 0, true);
        while self.free_pending() {
            if warm + cold == 0 {
                (warm, cold) = (self.warm.len(), self.cold.len());
                if warm + cold == 0 {
                    return;
                }
                share = self.pending_count.div_ceil((warm + cold) as u64);
                warm_first = self.head_is_pending();
            }
            let line = if warm > 0 && (warm_first || cold == 0) {
                warm -= 1;
                &mut self.warm
            } else {
                cold -= 1;
                &mut self.cold
            };
            let Some(slot) = line.pop_front() else { return };
            let Slot::Live(session) = &mut self.slots[slot] else { continue };
            session.queued = false;
            if !takes_more(session, &self.spec, self.backlog) {
                continue;
            }
            let in_flight = session.given - session.answered;
            let mut room = session.depth.limit().saturating_sub(in_flight);
            if let Some(most) = self.spec.session_records() {
                room = room.min(most.saturating_sub(session.given));
            }
            if share > room {
                session.depth.was_bound();
            }
            self.give_free(slot, room.min(share), now);
            self.offer(slot);
        }
    }

    /// Whether room has turned up since the last dispatch, and there is something to put there.
    pub(crate) fn can_dispatch(&self) -> bool {
        self.stopping.is_none()
            && self.free_pending()
            && !(self.warm.is_empty() && self.cold.is_empty())
    }

    /// Whether what waits to be given out begins with the packet that the consumer waits for.
    fn head_is_pending(&self) -> bool {
        let nothing_in_flight = self.accepted - self.resolved == self.pending_count;
        let is_head = |job: &Job| job.run.first().since(self.origin) == self.gate.total_yielded();
        nothing_in_flight
            || (self.order == Order::Input && self.pending.front().is_some_and(is_head))
    }

    fn free_pending(&self) -> bool {
        self.pending.len() > self.careful
    }

    /// Gives up to `room` packets of the earliest runs that need no care.
    fn give_free(&mut self, slot: usize, mut room: u64, now: Now) {
        let mut bytes = 0;
        let mut at = 0;
        while room > 0 && at < self.pending.len() && bytes < CHUNK_BYTES {
            if self.pending[at].care != Care::Free {
                at += 1;
                continue;
            }
            let most = usize::try_from(room).unwrap_or(usize::MAX);
            let run = if self.pending[at].run.len() > most {
                self.pending[at].run.split_front(most)
            } else {
                // Nearly always the front; after a redelivery a few careful ones may stand before it.
                match self.pending.remove(at) {
                    Some(job) => job.run,
                    None => return,
                }
            };
            room -= run.len() as u64;
            bytes += run.weight();
            self.pending_count -= run.len() as u64;
            self.give(slot, run, now);
        }
    }

    pub(crate) fn give(&mut self, slot: usize, run: Run, now: Now) {
        let patience = self.patience();
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        if session.owed() == 0 {
            session.head_since = now;
            session.depth.resumed(now);
        }
        session.moved = now;
        session.patience = patience;
        session.next_probe = now;
        session.given += run.len() as u64;
        for (channel, input) in session.inputs.iter_mut().enumerate() {
            debug_assert!(channel < run.batch.columns.len());
            input.push(channel, run.clone());
        }
        session.in_flight.push_back(run);
        let given = session.given;
        self.to_write.push(slot);
        if self.drain {
            // Where every channel is optional, it has been handed all that it must.
            self.settle_written(slot, now);
        }
        if self.spec.session_records().is_some_and(|most| given >= most) {
            // That is all that a session of this template is for.
            return self.part_from(slot, Why::Recycled, now);
        }
        self.watch(slot, now);
    }

    /// Runs that must not be mixed with others.
    fn dispatch_carefully(&mut self, now: Now) {
        let mut at = 0;
        let mut starved = 0;
        while at < self.pending.len() && self.careful > 0 {
            let care = self.pending[at].care;
            let fits = |session: &Session| {
                takes_more(session, &self.spec, self.backlog)
                    && session.owed() == 0
                    && (care == Care::Together || session.given == 0)
            };
            if care == Care::Free {
                at += 1;
                continue;
            }
            let found = self
                .slots
                .iter()
                .position(|slot| matches!(slot, Slot::Live(session) if fits(session)));
            let Some(slot) = found else {
                starved += 1;
                at += 1;
                continue;
            };
            let Some(Job { run, .. }) = self.pending.remove(at) else { return };
            self.careful -= 1;
            self.pending_count -= run.len() as u64;
            if let Slot::Live(session) = &mut self.slots[slot] {
                session.quarantined = true;
            }
            self.give(slot, run, now);
        }
        self.make_room_for(starved, now);
    }

    /// `jobs` careful runs found no session: as many sessions as are not on their way are asked to become
    /// empty, or fresh. Without this they would wait for ever while the others go on.
    fn make_room_for(&mut self, jobs: usize, now: Now) {
        let alone = self.pending.iter().any(|job| job.care == Care::Alone);
        let coming = |slot: &Slot| match slot {
            Slot::Vacant { .. } | Slot::Starting => true,
            Slot::Live(session) => !session.is_open() || session.quarantined,
        };
        let mut missing =
            jobs.saturating_sub(self.slots.iter().filter(|slot| coming(slot)).count());
        while missing > 0 {
            missing -= 1;
            let emptiest = self.slots.iter().enumerate().filter_map(|(i, slot)| match slot {
                Slot::Live(session) if session.is_open() && !session.quarantined => {
                    Some((session.owed(), i))
                }
                _ => None,
            });
            let Some((owed, slot)) = emptiest.min() else { return };
            if owed == 0 && alone {
                self.recycle_session(slot, now);
            } else if let Slot::Live(session) = &mut self.slots[slot] {
                // It gets nothing more until it is empty.
                session.quarantined = true;
            }
        }
    }
}

/// Whether a session may be given anything at all. Whenever one comes to that it must be
/// [offered](Scheduler::offer): nobody asks it again.
pub(crate) fn takes_more(session: &Session, spec: &Spec, backlog: u64) -> bool {
    session.is_open()
        && !session.quarantined
        && session.given - session.answered < session.depth.limit()
        && spec.session_records().is_none_or(|most| session.given < most)
        && session.closed_output_at.is_none()
        && !(session.in_banner && spec.words.banner.holds_requests())
        && session.clogged().is_none()
        && !session.is_backed_up(backlog)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::record::{Batch, PacketId, Requests};
    use crate::stats::Stats;
    use crate::subprocess::scheduler::Plan;
    use crate::template::Template;
    use crate::window::gate::Gate;
    use crate::window::intake::Arrival;

    fn scheduler(workers: usize) -> Scheduler {
        let gate = Arc::new(Gate::new(100, usize::MAX));
        Scheduler::new(Plan {
            spec: Arc::new(Template::new("cat").spec),
            workers,
            order: Order::Input,
            origin: PacketId(0),
            keep_requests: false,
            drain: false,
            backlog: u64::MAX,
            gate: Arc::clone(&gate),
            stats: Arc::new(Stats::new(gate)),
        })
    }

    fn arrive(scheduler: &mut Scheduler, first: u64, count: usize, now: Now) {
        let mut batch = Requests::new(1);
        batch.begin(PacketId(first));
        for n in 1..=count {
            batch.columns[0].bytes.extend_from_slice(b"x\n");
            batch.columns[0].ends.push(2 * n);
        }
        scheduler.gate.hold(batch.bytes());
        scheduler.arrived(Arrival::Batch(Box::new(batch)), now);
        scheduler.dispatch(now);
    }

    fn answer(scheduler: &mut Scheduler, slot: usize, count: usize, now: Now) {
        let reply = b"x\n".repeat(count);
        scheduler.read_room(slot, 0)[..reply.len()].copy_from_slice(&reply);
        scheduler.read(slot, 0, reply.len(), now);
    }

    fn given(scheduler: &Scheduler) -> Vec<u64> {
        let given = |slot: &Slot| match slot {
            Slot::Live(session) => session.given,
            _ => 0,
        };
        scheduler.slots.iter().map(given).collect()
    }

    #[test]
    fn who_has_not_answered_yet_gets_one_packet_but_not_the_head() {
        let mut scheduler = scheduler(3);
        let now = Duration::from_millis(1);
        assert_eq!(scheduler.next_start(now), Some(0));
        scheduler.started(0, None, now);
        arrive(&mut scheduler, 0, 1, now);
        answer(&mut scheduler, 0, 1, now);
        for slot in [1, 2] {
            scheduler.slots[slot] = Slot::Starting;
            scheduler.started(slot, None, now);
        }
        // The consumer has had the first and waits for this one.
        scheduler.gate.yielded(1);
        arrive(&mut scheduler, 1, 1, now);
        assert_eq!(given(&scheduler), [2, 0, 0]);
        // As few as one at a time, and still everybody comes up.
        arrive(&mut scheduler, 2, 1, now);
        arrive(&mut scheduler, 3, 1, now);
        assert_eq!(given(&scheduler), [2, 1, 1]);
        arrive(&mut scheduler, 4, 1, now);
        assert_eq!(given(&scheduler), [3, 1, 1]);
    }
}
