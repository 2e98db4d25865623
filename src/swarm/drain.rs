//! Feeding without collecting: a packet is done when it has been written in full.
//!
//! Nothing of it is sent again, whatever becomes of the worker: that would write its lines twice.

use crate::stats::Counters;
use crate::stream::packet::{Outcome, Span};
use crate::swarm::core::{Core, Slot};
use crate::swarm::life::{Now, Why};

impl Core {
    /// Counts what a life has been handed in full.
    pub(crate) fn settle_written(&mut self, slot: usize, now: Now) {
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        let in_flight: u64 = life.in_flight.iter().map(|run| run.len() as u64).sum();
        let mut written = in_flight - life.unfinished().min(in_flight);
        if written == 0 {
            return;
        }
        life.head_since = now;
        life.depth.answered(written, in_flight - written, now);
        self.end.accepted[slot] += written;
        self.ever_answered = true;
        self.streak = 0;
        Counters::add(&self.stats.counters.replies, written);
        while written > 0 {
            let Slot::Live(life) = &mut self.slots[slot] else { return };
            let Some(front) = life.in_flight.front_mut() else { return };
            let run = if (front.len() as u64) > written {
                front.split_front(written as usize)
            } else {
                match life.in_flight.pop_front() {
                    Some(run) => run,
                    None => return,
                }
            };
            let count = run.len() as u64;
            written -= count;
            life.answered += count;
            let span = Span { first: run.first(), count, weight: 0, outcome: Outcome::Passed };
            self.spend(run);
            self.emit(span);
        }
        if let Slot::Live(life) = &mut self.slots[slot]
            && life.owed() == 0
        {
            life.quarantined = false;
            if self.spec.life_records().is_some_and(|most| life.given >= most) {
                return self.part_from(slot, Why::Recycled, now);
            }
        }
        self.offer(slot);
        self.watch(slot, now);
    }
}
