//! A time limit of a source that runs.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Limit};
use crate::subprocess::protocol::{Now, Time};

/// A moment on one of the two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    Patient(Now),
    Real(Now),
}

impl Moment {
    /// So long after it.
    pub(super) fn plus(self, wait: Duration) -> Self {
        match self {
            Self::Patient(at) => Self::Patient(at.saturating_add(wait)),
            Self::Real(at) => Self::Real(at.saturating_add(wait)),
        }
    }

    /// How long it is until then.
    pub(super) fn left(self, now: Time) -> Duration {
        match self {
            Self::Patient(at) => at.saturating_sub(now.patient),
            Self::Real(at) => at.saturating_sub(now.real),
        }
    }

    pub(super) fn has_passed(self, now: Time) -> bool {
        self.left(now).is_zero()
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct TimeLimit {
    deadline: Moment,
    /// What the child has not done by then.
    what: &'static str,
    wait: Duration,
    limit: Limit,
}

impl TimeLimit {
    /// The limit that runs since then, if one is set.
    pub(super) fn since(
        start: Moment,
        wait: Option<Duration>,
        kind: fn(Duration) -> Limit,
        what: &'static str,
    ) -> Option<Self> {
        let wait = wait?;
        Some(Self { deadline: start.plus(wait), what, wait, limit: kind(wait) })
    }

    /// When it is over.
    pub(super) fn deadline(&self) -> Moment {
        self.deadline
    }

    /// What is said when it is over.
    pub(super) fn error(&self, who: &str) -> Error {
        let Self { what, wait, limit, .. } = self;
        let setting = limit.setting().unwrap_or_default();
        let message = format!("the {who} {what} within {wait:?} ({setting})");
        Error::new(ErrorKind::Timeout, message).limited(*limit)
    }
}

/// How long a child has said nothing although there was room for it: the time in which the consumer takes nothing is not
/// the child's. On the patient clock.
#[derive(Debug)]
pub(super) struct Silence {
    since: Now,
    had_room: bool,
}

impl Silence {
    pub(super) fn new() -> Self {
        Self { since: Now::ZERO, had_room: true }
    }

    /// It begins now: something has come, or only now may something come.
    pub(super) fn begins(&mut self, now: Time) {
        self.since = now.patient;
    }

    /// Whether there is room now. To be told whenever it was asked.
    pub(super) fn has_room(&mut self, room: bool, now: Time) {
        if room && !self.had_room {
            self.begins(now);
        }
        self.had_room = room;
    }

    /// Whether something could have come.
    pub(super) fn counts(&self) -> bool {
        self.had_room
    }

    pub(super) fn since(&self) -> Moment {
        Moment::Patient(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_was_not_done_in_time_and_names_the_setting_once() {
        let second = Duration::from_secs(1);
        let start = Moment::Patient(second);
        let set = |wait| TimeLimit::since(start, wait, Limit::StartTimeout, "was not ready");
        assert!(set(None).is_none());
        assert_eq!(set(Some(Duration::MAX)).unwrap().deadline(), Moment::Patient(Duration::MAX));
        let limit = set(Some(second)).unwrap();
        assert_eq!(limit.deadline(), Moment::Patient(2 * second));
        let error = limit.error("child");
        assert_eq!(error.to_string(), "the child was not ready within 1s (start_timeout)");
        assert_eq!(error.limit(), Some(Limit::StartTimeout(second)));
    }

    #[test]
    fn silence_counts_from_when_there_is_room_again() {
        let at = |patient| Time { real: patient, patient };
        let [start, full, free, later] = [1, 2, 90, 91].map(Duration::from_secs);
        let mut silence = Silence::new();
        silence.begins(at(start));
        silence.has_room(true, at(full));
        assert_eq!((silence.since(), silence.counts()), (Moment::Patient(start), true));
        silence.has_room(false, at(full));
        assert!(!silence.counts());
        silence.has_room(true, at(free));
        silence.has_room(true, at(later));
        assert_eq!((silence.since(), silence.counts()), (Moment::Patient(free), true));
    }

    #[test]
    fn the_time_that_we_were_away_counts_on_the_real_clock_only() {
        let second = Duration::from_secs(1);
        let now = Time { real: 5 * second, patient: second };
        assert!(Moment::Real(5 * second).has_passed(now));
        assert!(!Moment::Patient(5 * second).has_passed(now));
        assert_eq!(Moment::Patient(5 * second).left(now), 4 * second);
        assert_eq!(Moment::Real(second).plus(Duration::MAX), Moment::Real(Duration::MAX));
    }
}
