//! What a builder is told of how its feed is to be watched.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Error;
use crate::feed::builder::FeedBuilder;
use crate::stats::Stats;
use crate::template::Spec;
use crate::watch::JobLog;
use crate::window::gate::Gate;

/// What is to be kept of a feed while it runs.
#[derive(Debug, Default)]
pub(super) struct Watch {
    job_log: Option<PathBuf>,
    #[cfg(feature = "timeline")]
    timeline: Option<usize>,
}

impl Watch {
    pub(super) fn keep_job_log(&mut self, path: PathBuf) {
        self.job_log = Some(path);
    }

    #[cfg(feature = "timeline")]
    pub(super) fn keep_timeline(&mut self, events: usize) {
        self.timeline = Some(events);
    }

    /// Whether a feed of this kind can be watched in this way.
    pub(super) fn validate(&self, drains: bool) -> Result<(), Error> {
        if drains && self.job_log.is_some() {
            let message = "a drained feed has no replies that a job log could tell of";
            return Err(Error::config(message).hint("take the replies, with start"));
        }
        Ok(())
    }

    #[cfg(feature = "timeline")]
    pub(super) fn recording(&self, stats: Stats, spec: &Spec) -> Stats {
        stats.recording(self.timeline, spec.command.display())
    }

    /// Nothing is recorded.
    #[cfg(not(feature = "timeline"))]
    pub(super) fn recording(&self, stats: Stats, _: &Spec) -> Stats {
        stats
    }

    pub(super) fn open_log(&self, gate: &Arc<Gate>) -> Result<Option<JobLog>, Error> {
        let Some(path) = &self.job_log else { return Ok(None) };
        let gate = Arc::clone(gate);
        JobLog::open(path, move || gate.wake_executor()).map(Some)
    }
}

impl<I, E, D, F> FeedBuilder<I, E, D, F> {
    /// Writes a line for each packet into this file as soon as it is known what became of it: a job log in the columns
    /// of GNU parallel's `--joblog`, as far as they apply.
    ///
    /// | column | |
    /// |---|---|
    /// | `Seq` | the packet id |
    /// | `Host` | the machine, `:` for this one |
    /// | `Starttime` | when its worker came to it, in seconds since 1970 |
    /// | `JobRuntime` | how long it took, in seconds: from then until its reply was read |
    /// | `Send`, `Receive` | bytes of its request, with the framing, and of its reply, without |
    /// | `Exitval`, `Signal` | 0 and 0 for a reply; otherwise how its session ended, or -1 and 0 where that says nothing |
    /// | `Worker` | the worker's number, `-` if none had it |
    /// | `Attempts` | how many sessions it took |
    ///
    /// The columns are separated by tabs, and a first line names them. Lines stand in the order in which packets
    /// are done with. What a fatal error, or a drop, has left unanswered has no line. Replies that were read
    /// together have come together: the first of them has the time of all.
    ///
    /// A file that is there is appended to, so that a run that goes on where another one ended goes on in its log too.
    ///
    /// A thread of its own writes it. Up to 1 MiB waits to be written; while there is more, no reply is read.
    /// Before the feed's end everything is written; a drop waits for that 100 ms, and leaves the rest to the
    /// thread. A line takes the event loop one to two microseconds: meant for packets that take far longer.
    ///
    /// # Errors
    /// A file that cannot be opened is the feed's only item, a fatal `Err` of kind
    /// [`ErrorKind::File`](crate::ErrorKind::File). A write that fails ends the log, not the feed: it is a hint of the
    /// [`Monitor`](crate::Monitor), and what [`finish`](crate::Feed::finish) returns if nothing worse has happened.
    /// With [`drain`](FeedBuilder::drain) it is an error of the configuration.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let path = std::env::temp_dir().join(format!("subfeed-{}.log", std::process::id()));
    /// let feed = ["a", "b"].into_iter().feed(Template::new("cat")).workers(1).job_log(&path).start();
    /// assert_eq!(feed.count(), 2);
    /// let log = std::fs::read_to_string(&path).unwrap();
    /// assert_eq!(log.lines().count(), 3);
    /// assert!(log.lines().nth(2).unwrap().starts_with("1\t:\t"));
    /// # std::fs::remove_file(&path).unwrap();
    /// ```
    pub fn job_log(mut self, path: impl Into<PathBuf>) -> Self {
        self.watch.keep_job_log(path.into());
        self
    }

    /// Records what every worker does, how full the window is and who holds up the consumer: no more than so many
    /// events, the newest, of about 100 bytes each. [`Monitor::timeline`](crate::Monitor::timeline) gives them.
    ///
    /// Costs a few dozen nanoseconds for each read of a worker's replies, however many there are in it.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let mut feed = (0..100).map(|n| n.to_string()).feed(Template::new("cat")).timeline(10_000).start();
    /// let monitor = feed.monitor();
    /// assert_eq!(feed.by_ref().count(), 100);
    /// let mut json = Vec::new();
    /// monitor.timeline().write_to(&mut json).unwrap();
    /// assert!(json.starts_with(b"{\"displayTimeUnit\""));
    /// ```
    #[cfg(feature = "timeline")]
    #[cfg_attr(docsrs, doc(cfg(feature = "timeline")))]
    pub fn timeline(mut self, events: usize) -> Self {
        self.watch.keep_timeline(events);
        self
    }
}
