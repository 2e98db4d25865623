//! A time limit of a source that runs.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Limit};
use crate::subprocess::protocol::Now;

pub(super) struct Running {
    /// When it is over.
    pub(super) at: Now,
    /// What the child has not done by then.
    what: &'static str,
    wait: Duration,
    limit: Limit,
}

impl Running {
    /// The limit that runs since then, if one is set.
    pub(super) fn since(
        start: Now,
        wait: Option<Duration>,
        kind: fn(Duration) -> Limit,
        what: &'static str,
    ) -> Option<Self> {
        let wait = wait?;
        Some(Self { at: start.saturating_add(wait), what, wait, limit: kind(wait) })
    }

    /// What is said when it is over.
    pub(super) fn error(&self, who: &str) -> Error {
        let Self { what, wait, limit, .. } = self;
        let setting = limit.setting().unwrap_or_default();
        let message = format!("the {who} {what} within {wait:?} ({setting})");
        Error::new(ErrorKind::Timeout, message).limited(*limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_was_not_done_in_time_and_names_the_setting_once() {
        let second = Duration::from_secs(1);
        let set = |wait| Running::since(second, wait, Limit::StartTimeout, "was not ready");
        assert!(set(None).is_none());
        assert_eq!(set(Some(Duration::MAX)).unwrap().at, Duration::MAX);
        let running = set(Some(second)).unwrap();
        assert_eq!(running.at, 2 * second);
        let error = running.error("child");
        assert_eq!(error.to_string(), "the child was not ready within 1s (start_timeout)");
        assert_eq!(error.limit(), Some(Limit::StartTimeout(second)));
    }
}
