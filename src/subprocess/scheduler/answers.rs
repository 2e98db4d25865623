//! How long an answer usually takes: the median of the last ones, where workers are far away.

use std::time::Duration;

/// How many are remembered.
const REMEMBERED: usize = 63;

/// After how many the median is worked out again.
const AGAIN: usize = 16;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Answers {
    took: Vec<Duration>,
    next: usize,
    usual: Option<Duration>,
}

impl Answers {
    /// One took so long.
    pub(super) fn took(&mut self, time: Duration) {
        if self.took.len() < REMEMBERED {
            self.took.push(time);
        } else {
            self.took[self.next] = time;
            self.next = (self.next + 1) % REMEMBERED;
        }
        if self.took.len() < AGAIN || self.next.is_multiple_of(AGAIN) {
            let mut sorted = self.took.clone();
            let middle = sorted.len() / 2;
            self.usual = Some(*sorted.select_nth_unstable(middle).1);
        }
    }

    /// The median.
    pub(super) fn usual(&self) -> Option<Duration> {
        self.usual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_median_of_the_last_ones() {
        let mut answers = Answers::default();
        assert_eq!(answers.usual(), None);
        for ms in [1, 1_000, 2] {
            answers.took(Duration::from_millis(ms));
        }
        assert_eq!(answers.usual(), Some(Duration::from_millis(2)));
        for _ in 0..100 {
            answers.took(Duration::from_millis(7));
        }
        assert_eq!(answers.usual(), Some(Duration::from_millis(7)));
    }
}
