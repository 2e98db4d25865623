//! When something is due: one time for the feed and at most one that counts for each slot, by each of the
//! two clocks.
//!
//! # Invariants
//! 1. What is armed for a slot is the earliest time that was asked for since it was last due; a later one is
//!    never pushed. An entry of the heap that is not armed any more is stale, and says nothing when its time
//!    comes.
//! 2. Nothing is judged here: a slot that is due is looked at, and the look arms the next time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::subprocess::protocol::{Now, Time};

/// A time in more than a hundred years never comes: a limit of `Duration::MAX` is none.
const NEVER: Now = Duration::from_secs(u32::MAX as u64);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Timers {
    patient: Clock,
    real: Clock,
}

/// The times by one clock.
#[derive(Debug)]
struct Clock {
    heap: BinaryHeap<Reverse<(Now, usize)>>,
    armed: Vec<Option<Now>>,
    feed: Option<Now>,
}

impl Clock {
    fn new(slots: usize) -> Self {
        Self { heap: BinaryHeap::new(), armed: vec![None; slots], feed: None }
    }

    fn arm(&mut self, slot: usize, at: Option<Now>) {
        let Some(at) = at.filter(|&at| at < NEVER) else { return };
        if self.armed[slot].is_none_or(|armed| at < armed) {
            self.armed[slot] = Some(at);
            self.heap.push(Reverse((at, slot)));
        }
    }

    fn arm_feed(&mut self, at: Now) {
        if at < NEVER {
            self.feed = Some(self.feed.map_or(at, |set| set.min(at)));
        }
    }

    fn next(&self) -> Option<Now> {
        self.heap.peek().map(|Reverse((at, _))| *at).into_iter().chain(self.feed).min()
    }

    fn pop(&mut self, now: Now) -> Option<usize> {
        while let Some(&Reverse((at, slot))) = self.heap.peek()
            && at <= now
        {
            self.heap.pop();
            if self.armed[slot] == Some(at) {
                self.armed[slot] = None;
                return Some(slot);
            }
        }
        None
    }

    fn take_feed(&mut self, now: Now) -> bool {
        self.feed.take_if(|at| *at <= now).is_some()
    }
}

impl Timers {
    pub(super) fn new(slots: usize) -> Self {
        Self { patient: Clock::new(slots), real: Clock::new(slots) }
    }

    /// A slot is to be looked at then, by the patient clock and in real time, unless it is earlier.
    pub(super) fn arm(&mut self, slot: usize, (patient, real): (Option<Now>, Option<Now>)) {
        self.patient.arm(slot, patient);
        self.real.arm(slot, real);
    }

    /// What was armed for a slot is forgotten.
    pub(super) fn disarm(&mut self, slot: usize) {
        self.patient.armed[slot] = None;
        self.real.armed[slot] = None;
    }

    /// The feed as a whole is to be looked at then, by the patient clock.
    pub(super) fn arm_feed(&mut self, at: Now) {
        self.patient.arm_feed(at);
    }

    /// The same, in real time.
    pub(super) fn arm_feed_really(&mut self, at: Now) {
        self.real.arm_feed(at);
    }

    /// How long it is until something is due.
    pub(super) fn next(&self, now: Time) -> Option<Duration> {
        let patient = self.patient.next().map(|at| at.saturating_sub(now.patient));
        let real = self.real.next().map(|at| at.saturating_sub(now.real));
        patient.into_iter().chain(real).min()
    }

    /// Whether the feed is due.
    pub(super) fn take_feed(&mut self, now: Time) -> bool {
        self.patient.take_feed(now.patient) | self.real.take_feed(now.real)
    }

    /// A slot that is due.
    pub(super) fn pop(&mut self, now: Time) -> Option<usize> {
        self.patient.pop(now.patient).or_else(|| self.real.pop(now.real))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Now {
        Duration::from_millis(n)
    }

    #[test]
    fn a_slot_is_due_once_at_the_earliest_time_that_was_asked_for() {
        let mut timers = Timers::new(2);
        timers.arm(0, (Some(ms(20)), None));
        timers.arm(0, (Some(ms(10)), None));
        timers.arm(0, (Some(ms(15)), Some(Duration::MAX)));
        assert_eq!(timers.next(Time::at(ms(4))), Some(ms(6)));
        assert_eq!(timers.pop(Time::at(ms(9))), None);
        assert_eq!(timers.pop(Time::at(ms(30))), Some(0));
        assert_eq!(timers.pop(Time::at(ms(30))), None);
        timers.arm(1, (Some(ms(40)), None));
        timers.disarm(1);
        assert_eq!(timers.pop(Time::at(ms(50))), None);
    }

    #[test]
    fn the_two_clocks_are_kept_apart() {
        let mut timers = Timers::new(1);
        let late = Time { real: ms(100), patient: ms(10) };
        timers.arm(0, (Some(ms(50)), None));
        assert_eq!((timers.pop(late), timers.next(late)), (None, Some(ms(40))));
        timers.arm(0, (None, Some(ms(90))));
        assert_eq!(timers.pop(late), Some(0));
        timers.arm_feed_really(ms(95));
        assert!(timers.take_feed(late) && !timers.take_feed(late));
    }
}
