//! How many packets may be in flight in one session: enough to keep it busy, set by time, not by count.
//!
//! A fast filter needs thousands in its pipe, a slow tool one or two, a far one (50 ms of network) what
//! its delay asks for. So the limit is what the session answers in [`DEPTH_TIME`], measured over *turns* (as
//! many answers as the limit), or whatever was found by doubling while that still raised the rate,
//! whichever is more. The first reply of a session is start-up, not rate.

use crate::tuning::{DEPTH_GAIN, DEPTH_TIME, SHORTEST_TURN};
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Depth {
    limit: u64,
    /// So much is in flight once it has answered, however fast it is.
    least: u64,
    /// How much work, in time, may wait.
    target: Duration,
    /// The limit found by doubling.
    grown: u64,
    /// The rate before the last doubling.
    rate_before: f64,
    turn_start: Option<Duration>,
    turn_answers: u64,
    /// Whether the limit has held anything back in this turn.
    bound: bool,
    warm: bool,
}

impl Depth {
    /// So much is in flight at least once it has answered, and as much as it answers in `target`.
    pub(crate) fn new(least: u64, target: Duration) -> Self {
        Self {
            limit: 1,
            least,
            target: target.max(DEPTH_TIME),
            grown: 2,
            rate_before: 0.0,
            turn_start: None,
            turn_answers: 0,
            bound: false,
            warm: false,
        }
    }

    /// For a tool known to withhold its replies: as much as the window allows.
    pub(crate) fn unlimited() -> Self {
        Self { limit: u64::MAX, ..Self::new(1, DEPTH_TIME) }
    }

    pub(crate) fn limit(&self) -> u64 {
        if self.warm { self.limit.max(self.least) } else { self.limit }
    }

    /// Whether this session has answered before.
    pub(crate) fn is_warm(&self) -> bool {
        self.warm
    }

    /// There was more to give than the limit let through.
    pub(crate) fn was_bound(&mut self) {
        self.bound = true;
    }

    /// `n` answers came; `left` packets are still in flight.
    pub(crate) fn answered(&mut self, n: u64, left: u64, now: Duration) {
        if self.limit == u64::MAX {
            self.warm = true;
            return;
        }
        if !self.warm {
            self.warm = true;
            self.limit = 2;
            self.new_turn(left, now);
            return;
        }
        self.turn_answers += n;
        let Some(start) = self.turn_start else {
            self.new_turn(left, now);
            return;
        };
        let elapsed = now.saturating_sub(start);
        if self.turn_answers >= self.limit.min(4096) && elapsed >= SHORTEST_TURN {
            self.judge(elapsed);
            self.new_turn(left, now);
        } else if left == 0 {
            // It ran dry: time from here on is ours, not its own. A turn that was cut short still
            // says how fast it is, if it is long enough to say anything.
            if self.turn_answers > 1 && elapsed >= SHORTEST_TURN {
                self.judge(elapsed);
            } else if self.turn_answers >= self.limit && elapsed < SHORTEST_TURN {
                // Answered a whole turn faster than the clock can tell.
                self.limit = self.limit.saturating_mul(2);
            }
            self.new_turn(0, now);
        }
    }

    /// It is quiet and may be waiting for more than the limit lets through.
    pub(crate) fn widen(&mut self) {
        self.limit = self.limit.saturating_mul(2);
    }

    /// Something was given to a session that had nothing to do.
    pub(crate) fn resumed(&mut self, now: Duration) {
        if self.warm {
            self.new_turn(1, now);
        }
    }

    fn new_turn(&mut self, left: u64, now: Duration) {
        self.turn_start = (left > 0).then_some(now);
        self.turn_answers = 0;
        self.bound = false;
    }

    fn judge(&mut self, elapsed: Duration) {
        let rate = self.turn_answers as f64 / elapsed.as_secs_f64();
        let by_time = (rate * self.target.as_secs_f64()).ceil() as u64;
        if self.bound && self.limit <= self.grown && rate > self.rate_before * DEPTH_GAIN {
            self.grown = self.limit.saturating_mul(2);
            self.rate_before = rate;
        }
        let wanted = by_time.max(self.grown).max(2);
        // One turn may have been unlucky; coming down takes several.
        self.limit = wanted.max(self.limit / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a simulated worker that takes `service` a packet and answers after `delay` more.
    fn settle(service: Duration, delay: Duration) -> u64 {
        let mut depth = Depth::new(1, DEPTH_TIME);
        let mut now = Duration::ZERO;
        let mut in_flight: std::collections::VecDeque<Duration> = Default::default();
        let mut free = Duration::ZERO;
        for _ in 0..200_000 {
            if in_flight.is_empty() {
                depth.resumed(now);
            }
            while (in_flight.len() as u64) < depth.limit().min(1 << 16) {
                free = free.max(now) + service;
                in_flight.push_back(free + delay);
            }
            depth.was_bound();
            now = in_flight.pop_front().unwrap();
            depth.answered(1, in_flight.len() as u64, now);
        }
        depth.limit()
    }

    #[test]
    fn a_slow_tool_gets_a_few_and_a_fast_one_thousands() {
        let slow = settle(Duration::from_millis(20), Duration::ZERO);
        assert!((2..=4).contains(&slow), "{slow}");
        let fast = settle(Duration::from_nanos(500), Duration::ZERO);
        assert!(fast >= 5_000, "{fast}");
    }

    #[test]
    fn a_far_tool_gets_what_its_delay_needs() {
        let far = settle(Duration::from_millis(1), Duration::from_millis(50));
        assert!((40..=400).contains(&far), "{far}");
    }
}
