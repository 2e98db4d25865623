//! What a builder is told of how its feed is to be watched.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Error;
use crate::feed::builder::FeedBuilder;
use crate::stats::Stats;
use crate::template::Spec;
use crate::watch::{JobLog, Numbering};
use crate::window::gate::Gate;

/// What is to be kept of a feed while it runs.
#[derive(Debug, Default)]
pub(super) struct Watch {
    job_log: Option<PathBuf>,
    numbering: Option<Numbering>,
    #[cfg(feature = "timeline")]
    timeline: Option<usize>,
}

impl Watch {
    pub(super) fn keep_job_log(&mut self, path: PathBuf) {
        self.job_log = Some(path);
    }

    pub(super) fn number_job_log(&mut self, number: impl Fn(u64) -> u64 + Send + Sync + 'static) {
        self.numbering = Some(Numbering(Arc::new(number)));
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
        let log = JobLog::open(path, move || gate.wake_executor())?;
        Ok(Some(log.numbered(self.numbering.clone())))
    }
}

impl<I, E, D, F> FeedBuilder<I, E, D, F> {
    /// Writes one line for each packet into this file, when the packet's result is known: a job log with the columns of
    /// GNU parallel's `--joblog`, where they apply.
    ///
    /// | column | |
    /// |---|---|
    /// | `Seq` | the packet id |
    /// | `Host` | the machine, `:` for this one |
    /// | `Starttime` | when its worker began with it, in seconds since 1970 |
    /// | `JobRuntime` | seconds from then until its reply was read |
    /// | `Send`, `Receive` | bytes of its request, with the framing, and of its reply, without |
    /// | `Exitval`, `Signal` | 0 and 0 for a reply; otherwise how its session ended, or -1 and 0 if that is not known |
    /// | `Worker` | the worker's number, `-` if no worker had it |
    /// | `Attempts` | 1, and 1 more for each session before that failed with it alone |
    ///
    /// The columns are separated by tabs, and the first line names them. The lines are in the order in which packets
    /// were completed. A packet that a fatal error or a drop left unanswered has no line. Replies that were read in
    /// one piece share one time.
    ///
    /// An existing file is appended to, so that a run that continues an earlier one also continues its log. The path may also
    /// lead to a terminal, to another character device, or to a pipe that another program has open for reading.
    ///
    /// A separate thread writes the file. Up to 1 MiB may wait to be written; above that, no replies are read until
    /// there is room. At the feed's end everything is written first. A drop waits at most 100 ms for the thread, which
    /// then finishes by itself. A line costs the event loop one to two microseconds, so the log is meant for packets
    /// that take much longer.
    ///
    /// # Errors
    /// If the file cannot be opened, or is a socket or a named pipe that no program reads, the feed's only item is a fatal
    /// `Err` of kind [`ErrorKind::File`](crate::ErrorKind::File). If a write fails, the log ends and the feed goes on: the
    /// failure is a hint of the [`Monitor`](crate::Monitor), and [`finish`](crate::Feed::finish) returns it unless it has
    /// another error to return. Together with [`drain`](FeedBuilder::drain) this is a configuration error.
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

    /// Records what each worker does, how full the window is and which packet the consumer waits for. At most `events`
    /// events of about 100 bytes are kept, the newest ones. [`Monitor::timeline`](crate::Monitor::timeline) returns them.
    ///
    /// It costs some tens of nanoseconds for each read from a worker, however many replies that read contains.
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
