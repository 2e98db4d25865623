//! The two clocks of a loop: the real one, and the patient one.
//!
//! # Invariants
//! 1. Both never go back, and the patient one is never ahead.
//! 2. In each turn the patient clock gains at most what the loop meant to wait in it, and [`SLACK`].
//! 3. A wait that something may have ended early, and from which the loop came back too late, gains no more than [`SLACK`]: nobody
//!    knows when it was over.
//! 4. Of a wait that nothing has ended, and from which the loop came back late, twice as much as it was late is not counted: the
//!    machine has stood still, perhaps from long before the time was over. So a child that is waited for has more time when it runs
//!    again.

use std::time::Duration;

use crate::subprocess::protocol::{Now, Time};

/// What a turn may take beside what it waits: more, and the process was stopped, or a closure of the user's
/// took its time.
const SLACK: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
pub(super) struct Clock {
    now: Time,
    /// How much the patient clock may still gain in this turn.
    budget: Duration,
}

impl Clock {
    /// A turn begins.
    pub(super) fn turn(&mut self) {
        self.budget = SLACK;
    }

    /// The loop is about to wait so long at most.
    pub(super) fn waits(&mut self, timeout: Option<Duration>) {
        self.budget = self.budget.saturating_add(timeout.unwrap_or(Duration::MAX));
    }

    /// What was read last.
    pub(super) fn now(&self) -> Time {
        self.now
    }

    /// The wait is over, and it is this late really. `early` says that something has happened, which may have ended it
    /// long before its time.
    pub(super) fn waited(&mut self, real: Now, early: bool) -> Time {
        let late = real.saturating_sub(self.now.real).saturating_sub(self.budget);
        if !late.is_zero() {
            let counted = if early { Duration::ZERO } else { self.budget.saturating_sub(2 * late) };
            self.budget = counted.max(SLACK.min(self.budget));
        }
        self.read(real)
    }

    /// It is this late really.
    pub(super) fn read(&mut self, real: Now) -> Time {
        // It never goes back.
        if let Some(passed) = real.checked_sub(self.now.real) {
            let gain = passed.min(self.budget);
            self.budget -= gain;
            self.now = Time { real, patient: self.now.patient + gain };
        }
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Now {
        Duration::from_millis(n)
    }

    #[test]
    fn what_a_turn_did_not_mean_to_take_is_not_counted() {
        let mut clock = Clock::default();
        clock.turn();
        assert_eq!(clock.read(ms(5)), Time::at(ms(5)));
        clock.waits(Some(ms(100)));
        assert_eq!(clock.read(ms(105)), Time::at(ms(105)));
        // The process was stopped, or a closure took two seconds.
        assert_eq!(clock.read(ms(2_105)), Time { real: ms(2_105), patient: ms(110) });
        clock.turn();
        clock.waits(Some(ms(50)));
        assert_eq!(clock.read(ms(4_000)), Time { real: ms(4_000), patient: ms(170) });
        clock.turn();
        clock.waits(None);
        assert_eq!(clock.read(ms(9_000)), Time { real: ms(9_000), patient: ms(5_170) });
        assert_eq!(clock.read(ms(8_000)), Time { real: ms(9_000), patient: ms(5_170) });
    }

    #[test]
    fn a_wait_that_ended_at_an_unknown_time_counts_little() {
        let mut clock = Clock::default();
        clock.turn();
        clock.waits(Some(ms(3_000)));
        // A child spoke at once, and then the process was stopped for seven seconds.
        assert_eq!(clock.waited(ms(7_000), true), Time { real: ms(7_000), patient: ms(10) });
        clock.turn();
        clock.waits(Some(ms(3_000)));
        assert_eq!(clock.waited(ms(9_000), true), Time { real: ms(9_000), patient: ms(2_010) });
        clock.turn();
        clock.waits(Some(ms(100)));
        assert_eq!(clock.waited(ms(9_105), false), Time { real: ms(9_105), patient: ms(2_115) });
    }

    #[test]
    fn of_a_wait_that_ended_late_twice_the_delay_is_not_counted() {
        let mut clock = Clock::default();
        clock.turn();
        clock.waits(Some(ms(4_990)));
        // The machine stood still for seven seconds, from the first moment on.
        assert_eq!(clock.waited(ms(7_000), false), Time { real: ms(7_000), patient: ms(1_000) });
        clock.turn();
        clock.waits(Some(ms(1_000)));
        assert_eq!(clock.waited(ms(8_030), false), Time { real: ms(8_030), patient: ms(1_970) });
        // However late it is, there is some progress.
        clock.turn();
        clock.waits(Some(ms(1_000)));
        assert_eq!(clock.waited(ms(90_000), false), Time { real: ms(90_000), patient: ms(1_980) });
    }
}
