//! The kill kill_sequence: which signal is due, and when the next one is.

use std::time::Duration;

use crate::subprocess::protocol::Now;
use crate::template::policy::Signal;

/// How far the kill sequence of one child has been climbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KillSequence {
    step: usize,
    next: Now,
}

impl KillSequence {
    /// The first rung is due at `first`.
    pub(crate) fn new(first: Now) -> Self {
        Self { step: 0, next: first }
    }

    /// The signal to send now, if one is due.
    pub(crate) fn climb(&mut self, rungs: &[(Signal, Duration)], now: Now) -> Option<Signal> {
        if now < self.next {
            return None;
        }
        let &(signal, wait) = rungs.get(self.step)?;
        self.step += 1;
        self.next = now.saturating_add(wait);
        Some(signal)
    }

    /// When the next signal is due; never, after the last.
    pub(crate) fn next(&self, rungs: &[(Signal, Duration)]) -> Option<Now> {
        (self.step < rungs.len()).then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rung_is_climbed_once_when_its_wait_is_over() {
        let ms = Duration::from_millis;
        let rungs =
            [(Signal::Interrupt, ms(10)), (Signal::Terminate, ms(20)), (Signal::Kill, ms(0))];
        let mut kill_sequence = KillSequence::new(ms(5));
        assert_eq!(
            (kill_sequence.climb(&rungs, ms(4)), kill_sequence.next(&rungs)),
            (None, Some(ms(5)))
        );
        assert_eq!(kill_sequence.climb(&rungs, ms(5)), Some(Signal::Interrupt));
        assert_eq!(
            (kill_sequence.climb(&rungs, ms(14)), kill_sequence.next(&rungs)),
            (None, Some(ms(15)))
        );
        assert_eq!(kill_sequence.climb(&rungs, ms(100)), Some(Signal::Terminate));
        assert_eq!(kill_sequence.climb(&rungs, ms(120)), Some(Signal::Kill));
        assert_eq!(
            (kill_sequence.climb(&rungs, ms(999)), kill_sequence.next(&rungs)),
            (None, None)
        );
    }
}
