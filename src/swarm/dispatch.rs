//! Who gets what: pending runs to lives with room.
//!
//! The earliest packets go first. A cold life (one that has not answered yet) gets a single packet to
//! show itself with, and gets it at once, but never the one that the consumer waits for while a warm life has
//! room. How much a life may hold is its [`Depth`]'s business, and nobody is given more than the next writes
//! take as long as that is unwritten; here it is only made sure that a small backlog is shared out instead
//! of going to whoever asks first.
//!
//! [`Depth`]: crate::swarm::depth::Depth

use crate::record::Run;
use crate::stream::outlet::Order;
use crate::swarm::core::{Care, Core, Job, Slot};
use crate::swarm::life::{Life, Now, Why};
use crate::template::Spec;

/// The most requests' bytes that are handed to a life in one go: a pipe's worth.
const CHUNK_BYTES: usize = 128 << 10;

impl Core {
    /// A life has room, or may have: it asks for work once.
    pub(crate) fn offer(&mut self, slot: usize) {
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        if life.queued || !takes_more(life, &self.spec, self.backlog) {
            return;
        }
        life.queued = true;
        if life.depth.is_warm() || self.withholding {
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
            let Slot::Live(life) = &mut self.slots[slot] else { continue };
            life.queued = false;
            if !takes_more(life, &self.spec, self.backlog) {
                continue;
            }
            let in_flight = life.given - life.answered;
            let mut room = life.depth.limit().saturating_sub(in_flight);
            if let Some(most) = self.spec.life_records() {
                room = room.min(most.saturating_sub(life.given));
            }
            if share > room {
                life.depth.was_bound();
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
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        if life.owed() == 0 {
            life.head_since = now;
            life.depth.resumed(now);
        }
        life.moved = now;
        life.patience = patience;
        life.next_probe = now;
        life.given += run.len() as u64;
        for (channel, input) in life.inputs.iter_mut().enumerate() {
            debug_assert!(channel < run.batch.columns.len());
            input.push(channel, run.clone());
        }
        life.in_flight.push_back(run);
        let given = life.given;
        self.to_write.push(slot);
        if self.drain {
            // Where every channel is optional, it has been handed all that it must.
            self.settle_written(slot, now);
        }
        if self.spec.life_records().is_some_and(|most| given >= most) {
            // That is all that a life of this template is for.
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
            let fits = |life: &Life| {
                takes_more(life, &self.spec, self.backlog)
                    && life.owed() == 0
                    && (care == Care::Together || life.given == 0)
            };
            if care == Care::Free {
                at += 1;
                continue;
            }
            let found =
                self.slots.iter().position(|slot| matches!(slot, Slot::Live(life) if fits(life)));
            let Some(slot) = found else {
                starved += 1;
                at += 1;
                continue;
            };
            let Some(Job { run, .. }) = self.pending.remove(at) else { return };
            self.careful -= 1;
            self.pending_count -= run.len() as u64;
            if let Slot::Live(life) = &mut self.slots[slot] {
                life.quarantined = true;
            }
            self.give(slot, run, now);
        }
        self.make_room_for(starved, now);
    }

    /// `jobs` careful runs found no life: as many lives as are not on their way are asked to become
    /// empty, or fresh. Without this they would wait for ever while the others go on.
    fn make_room_for(&mut self, jobs: usize, now: Now) {
        let alone = self.pending.iter().any(|job| job.care == Care::Alone);
        let coming = |slot: &Slot| match slot {
            Slot::Vacant { .. } | Slot::Starting => true,
            Slot::Live(life) => !life.is_open() || life.quarantined,
        };
        let mut missing =
            jobs.saturating_sub(self.slots.iter().filter(|slot| coming(slot)).count());
        while missing > 0 {
            missing -= 1;
            let emptiest = self.slots.iter().enumerate().filter_map(|(i, slot)| match slot {
                Slot::Live(life) if life.is_open() && !life.quarantined => Some((life.owed(), i)),
                _ => None,
            });
            let Some((owed, slot)) = emptiest.min() else { return };
            if owed == 0 && alone {
                self.recycle_life(slot, now);
            } else if let Slot::Live(life) = &mut self.slots[slot] {
                // It gets nothing more until it is empty.
                life.quarantined = true;
            }
        }
    }
}

/// Whether a life may be given anything at all. Whenever one comes to that it must be
/// [offered](Core::offer): nobody asks it again.
pub(crate) fn takes_more(life: &Life, spec: &Spec, backlog: u64) -> bool {
    life.is_open()
        && !life.quarantined
        && life.given - life.answered < life.depth.limit()
        && spec.life_records().is_none_or(|most| life.given < most)
        && life.closed_output_at.is_none()
        && !(life.in_banner && spec.words.banner.holds_requests())
        && life.clogged().is_none()
        && !life.is_backed_up(backlog)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::record::{Batch, PacketId, Requests};
    use crate::stats::Stats;
    use crate::stream::gate::Gate;
    use crate::stream::intake::Arrival;
    use crate::swarm::core::Plan;
    use crate::template::Template;

    fn core(workers: usize) -> Core {
        let gate = Arc::new(Gate::new(100, usize::MAX));
        Core::new(Plan {
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

    fn arrive(core: &mut Core, first: u64, count: usize, now: Now) {
        let mut batch = Requests::new(1);
        batch.begin(PacketId(first));
        for n in 1..=count {
            batch.columns[0].bytes.extend_from_slice(b"x\n");
            batch.columns[0].ends.push(2 * n);
        }
        core.gate.hold(batch.bytes());
        core.arrived(Arrival::Batch(Box::new(batch)), now);
        core.dispatch(now);
    }

    fn answer(core: &mut Core, slot: usize, count: usize, now: Now) {
        let reply = b"x\n".repeat(count);
        core.read_room(slot, 0)[..reply.len()].copy_from_slice(&reply);
        core.read(slot, 0, reply.len(), now);
    }

    fn given(core: &Core) -> Vec<u64> {
        let given = |slot: &Slot| match slot {
            Slot::Live(life) => life.given,
            _ => 0,
        };
        core.slots.iter().map(given).collect()
    }

    #[test]
    fn who_has_not_answered_yet_gets_one_packet_but_not_the_head() {
        let mut core = core(3);
        let now = Duration::from_millis(1);
        assert_eq!(core.next_start(now), Some(0));
        core.started(0, None, now);
        arrive(&mut core, 0, 1, now);
        answer(&mut core, 0, 1, now);
        for slot in [1, 2] {
            core.slots[slot] = Slot::Starting;
            core.started(slot, None, now);
        }
        // The consumer has had the first and waits for this one.
        core.gate.yielded(1);
        arrive(&mut core, 1, 1, now);
        assert_eq!(given(&core), [2, 0, 0]);
        // As few as one at a time, and still everybody comes up.
        arrive(&mut core, 2, 1, now);
        arrive(&mut core, 3, 1, now);
        assert_eq!(given(&core), [2, 1, 1]);
        arrive(&mut core, 4, 1, now);
        assert_eq!(given(&core), [3, 1, 1]);
    }
}
