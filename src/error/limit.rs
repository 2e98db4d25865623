//! The limits that a feed can run into, and what is said of each.

use std::fmt;
use std::time::Duration;

/// Which limit of this crate was exceeded: a setting of the template, or a fixed time.
///
/// From [`Error::limit`](crate::Error::limit). `Display` says what did not happen in time, and names the setting.
///
/// ```
/// use std::time::Duration;
/// use subfeed::policy::Limit;
/// use subfeed::{ErrorKind, FeedExt, Template};
///
/// let template = Template::shell("exec sleep 100").packet_timeout(Duration::from_millis(50));
/// let error = ["x"].into_iter().feed_subprocesses_ordered(template, 1, 8).next().unwrap().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Timeout);
/// assert_eq!(error.limit(), Some(Limit::PacketTimeout(Duration::from_millis(50))));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// [`Template::packet_timeout`](crate::Template::packet_timeout): a packet was not answered in time.
    PacketTimeout(Duration),
    /// [`Template::start_timeout`](crate::Template::start_timeout): a session gave no first reply in time.
    StartTimeout(Duration),
    /// The sum of `start_timeout` and `packet_timeout`, which is the limit for a session's first reply if both are set.
    FirstReply(Duration),
    /// [`Template::ready`](crate::Template::ready): the marker, or the rest of the banner, did not come in time.
    Ready(Duration),
    /// [`Template::idle_timeout`](crate::Template::idle_timeout): no worker wrote anything for this long.
    IdleTimeout(Duration),
    /// [`Template::run_timeout`](crate::Template::run_timeout): the whole feed took too long.
    RunTimeout(Duration),
    /// [`Template::end_timeout`](crate::Template::end_timeout): a worker that had nothing more to do did not exit in
    /// time.
    EndTimeout(Duration),
    /// [`Template::reply_limit`](crate::Template::reply_limit), in bytes: a reply was larger.
    ReplyLimit(usize),
    /// [`Launcher::connect_within`](crate::Launcher::connect_within): a host did not start a worker in time.
    Connect(Duration),
    /// Fixed: a worker closed its stdin and did not answer in time what it had read.
    ClosedStdin(Duration),
    /// Fixed: a worker closed its stdout and did not exit in time.
    ClosedStdout(Duration),
    /// Fixed: the feed closed a worker's stdin so that it answers what it keeps in a buffer, and it was silent for this
    /// long.
    Recycled(Duration),
    /// Fixed: no worker could be started for this long, and none was running.
    NoWorker(Duration),
}

impl Limit {
    /// The method of [`Template`](crate::Template) that sets this limit, such as `packet_timeout`; `None` if the limit is
    /// fixed.
    #[must_use]
    pub fn setting(&self) -> Option<&'static str> {
        match self {
            Self::PacketTimeout(_) => Some("packet_timeout"),
            Self::StartTimeout(_) => Some("start_timeout"),
            Self::FirstReply(_) => Some("start_timeout + packet_timeout"),
            Self::Ready(_) => Some("ready"),
            Self::IdleTimeout(_) => Some("idle_timeout"),
            Self::RunTimeout(_) => Some("run_timeout"),
            Self::EndTimeout(_) => Some("end_timeout"),
            Self::ReplyLimit(_) => Some("reply_limit"),
            Self::Connect(_) => Some("connect_within"),
            Self::ClosedStdin(_)
            | Self::ClosedStdout(_)
            | Self::Recycled(_)
            | Self::NoWorker(_) => None,
        }
    }

    /// Whether a text says already that this limit was at work.
    pub(super) fn is_named_in(&self, text: &str) -> bool {
        match self.setting() {
            Some(setting) => text.contains(&format!("({setting})")),
            None => text.contains(&self.to_string()),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PacketTimeout(limit) => write!(f, "no reply within {limit:?}"),
            Self::StartTimeout(limit) | Self::FirstReply(limit) => {
                write!(f, "no first reply within {limit:?}")
            }
            Self::Ready(limit) => write!(f, "not ready within {limit:?}"),
            Self::IdleTimeout(limit) => write!(f, "no worker said anything for {limit:?}"),
            Self::RunTimeout(limit) => write!(f, "the whole run was not done within {limit:?}"),
            Self::EndTimeout(limit) => {
                write!(f, "no exit within {limit:?} of the end of its input")
            }
            Self::ReplyLimit(bytes) => write!(f, "a reply of more than {bytes} bytes"),
            Self::Connect(limit) => write!(f, "no connection within {limit:?}"),
            Self::ClosedStdin(grace) => {
                write!(f, "no reply within {grace:?} after the worker closed its stdin")
            }
            Self::ClosedStdout(grace) => {
                write!(f, "no exit within {grace:?} after the worker closed its stdout")
            }
            Self::Recycled(grace) => write!(
                f,
                "neither a reply nor an exit for {grace:?} after its stdin was closed so that it answers"
            ),
            Self::NoWorker(grace) => write!(f, "no worker could be started for {grace:?}"),
        }?;
        match self.setting() {
            Some(setting) => write!(f, " ({setting})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_names_its_setting_or_says_what_it_is() {
        let half = Duration::from_millis(500);
        for (limit, words) in [
            (Limit::PacketTimeout(half), "no reply within 500ms (packet_timeout)"),
            (Limit::StartTimeout(half), "no first reply within 500ms (start_timeout)"),
            (
                Limit::FirstReply(half),
                "no first reply within 500ms (start_timeout + packet_timeout)",
            ),
            (Limit::Ready(half), "not ready within 500ms (ready)"),
            (Limit::IdleTimeout(half), "no worker said anything for 500ms (idle_timeout)"),
            (Limit::RunTimeout(half), "the whole run was not done within 500ms (run_timeout)"),
            (Limit::EndTimeout(half), "no exit within 500ms of the end of its input (end_timeout)"),
            (Limit::ReplyLimit(9), "a reply of more than 9 bytes (reply_limit)"),
            (Limit::ClosedStdin(half), "no reply within 500ms after the worker closed its stdin"),
            (Limit::ClosedStdout(half), "no exit within 500ms after the worker closed its stdout"),
            (Limit::NoWorker(half), "no worker could be started for 500ms"),
        ] {
            assert_eq!(limit.to_string(), words);
        }
        assert!(
            Limit::Recycled(half).to_string().starts_with("neither a reply nor an exit for 500ms")
        );
    }
}
