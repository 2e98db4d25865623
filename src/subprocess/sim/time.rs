//! The time: what happens next, and who hears of it.

use std::time::Duration;

use crate::subprocess::session::Now;
use crate::subprocess::sim::check::{Failure, must};
use crate::subprocess::sim::worker::Noise;

use super::{World, is_dropped};

impl World {
    /// The event loop waits until something calls it, or until `timer`.
    pub(super) fn wait(&mut self, timer: Option<Now>) -> Result<(), Failure> {
        let asleep = timer.is_none_or(|at| at > self.now);
        loop {
            self.happen()?;
            if std::mem::take(&mut self.woken) {
                break;
            }
            let next = self.next_event();
            let at = match (next, timer) {
                (Some(next), Some(timer)) => next.min(timer),
                (Some(at), None) | (None, Some(at)) => at,
                (None, None) => {
                    self.stuck()?;
                    break;
                }
            };
            self.steps += 1;
            must!(self.steps < super::MOST_STEPS, "no end");
            must!(at < Duration::from_secs(1_000_000), "nothing moves before {at:?}");
            self.now = self.now.max(at);
            if timer.is_some_and(|timer| timer <= self.now) {
                break;
            }
        }
        // It takes a moment to wake up, in which other things happen too.
        let late = if asleep { 40 } else { 4 };
        self.now += Duration::from_micros(self.rng.below(late));
        self.happen()?;
        self.woken = false;
        Ok(())
    }

    /// Nothing can move any more: fine only if the source blocks for ever and has got everything back.
    fn stuck(&mut self) -> Result<(), Failure> {
        let waits = self.source.is_blocked_for_ever() && self.sink.yielded == self.source.pulled;
        must!(
            waits && !self.dropped,
            "stuck: {} pulled, {} yielded, {} pending, slots {:#?}",
            self.source.pulled,
            self.sink.yielded,
            self.scheduler.pending_count,
            self.scheduler.slots
        );
        self.say(|| "the consumer is dropped".to_owned());
        self.sink.give_up(&self.gate);
        self.dropped = true;
        Ok(())
    }

    fn next_event(&self) -> Option<Now> {
        let live = self.ports.iter().flatten().map(|ports| &self.children[ports.child]);
        let children = live.filter_map(|child| child.wake);
        children.chain(self.source.wake()).chain(self.sink.wake).min()
    }

    /// Everything that is due happens, in any order.
    fn happen(&mut self) -> Result<(), Failure> {
        let n = self.ports.len();
        let from = if n > 1 { self.rng.below(n as u64) as usize } else { 0 };
        for i in 0..n {
            if let Some(ports) = &self.ports[(from + i) % n] {
                self.act(ports.child);
            }
        }
        if self.sink.wake.is_some_and(|at| at <= self.now) {
            self.consume()?;
        }
        if self.source.go(&self.schedule, &self.gate, self.now)? && self.hungry {
            self.woken = true;
        }
        Ok(())
    }

    fn act(&mut self, pid: usize) {
        let child = &mut self.children[pid];
        if child.wake.is_none_or(|at| at > self.now) {
            return;
        }
        let schedule = &self.schedule;
        let noise = child.act(self.now, &|k| schedule.is_poison(k));
        if noise.exit {
            self.say(|| format!("session {pid} exits: {:?}", self.children[pid].status));
        }
        self.hear(pid, noise);
    }

    /// Edges at the event loop's descriptors.
    fn hear(&mut self, pid: usize, noise: Noise) {
        let slots = self.ports.iter_mut().enumerate();
        let mut found = slots.filter_map(|(slot, ports)| Some((slot, ports.as_mut()?)));
        let Some((slot, ports)) = found.find(|(_, ports)| ports.child == pid) else { return };
        if noise.output && ports.stdout {
            ports.readable = true;
            self.to_read.push(slot);
            self.woken = true;
        }
        if noise.stderr && ports.stderr {
            ports.stderr_readable = true;
            self.to_read.push(slot);
            self.woken = true;
        }
        if noise.input && ports.watched && ports.stdin {
            ports.writable = true;
            self.to_write.push(slot);
            self.woken = true;
        }
        if noise.exit && !ports.exited {
            ports.exited = true;
            ports.readable = true;
            ports.stderr_readable = true;
            self.to_read.push(slot);
            self.woken = true;
            self.scheduler.exited(slot, self.now);
        }
    }

    pub(super) fn consume(&mut self) -> Result<(), Failure> {
        let before = self.sink.yielded;
        let called = self.sink.step(
            &self.schedule,
            &self.gate,
            &mut self.oracle,
            &self.children,
            self.now,
        )?;
        if self.sink.yielded > before {
            self.say(|| format!("yielded {before}..{}", self.sink.yielded));
        }
        self.dropped |= called.dropped && !is_dropped(&self.scheduler);
        self.woken |= called.woken;
        Ok(())
    }
}
