//! What to do when something takes too long, dies, or says nothing.

use std::time::Duration;

/// A signal of the kill ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// SIGHUP.
    Hangup,
    /// SIGINT, what Ctrl-C sends.
    Interrupt,
    /// SIGQUIT.
    Quit,
    /// SIGUSR1.
    User1,
    /// SIGUSR2.
    User2,
    /// SIGTERM, the usual polite one.
    Terminate,
    /// SIGKILL, which nothing survives.
    Kill,
}

/// What to do with a worker that withholds its replies; set by
/// [`Template::on_stall`](crate::Template::on_stall).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnStall {
    /// Close its stdin, so that it answers and exits, and start it afresh. Only where the evidence is
    /// certain; otherwise wait, and say so in the snapshot's hint.
    #[default]
    Recycle,
    /// End the feed with an error of kind [`ErrorKind::Stalled`](crate::ErrorKind::Stalled) that names
    /// the fix. Only where the evidence is certain.
    Fail,
    /// Never judge: wait for as long as it takes.
    Wait,
}

/// When the feed stops of its own accord; set by [`Template::halt`](crate::Template::halt).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Halt {
    /// Go on whatever fails: stopping is the caller's `?`.
    #[default]
    Never,
    /// After this many failed items pull no more, finish what is in flight, then end with a fatal error.
    Soon(u64),
    /// After this many failed items end at once with a fatal error.
    Now(u64),
}

#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) retries: u32,
    pub(crate) at_most_once: bool,
    pub(crate) on_stall: OnStall,
    pub(crate) stall_delay: Duration,
    pub(crate) backoff: Duration,
    pub(crate) backoff_cap: Duration,
    pub(crate) give_up: u32,
    pub(crate) recycle_records: Option<u64>,
    pub(crate) recycle_age: Option<Duration>,
    pub(crate) packet_timeout: Option<Duration>,
    pub(crate) start_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) run_timeout: Option<Duration>,
    pub(crate) ladder: Vec<(Signal, Duration)>,
    pub(crate) halt: Halt,
    /// How long a worker may take to exit after its last answer, or `None`: as long as it likes.
    pub(crate) end_timeout: Option<Duration>,
    pub(crate) reply_limit: usize,
}

/// How long a dropped feed lets its workers exit by themselves before the kill ladder.
pub(crate) const DROP_GRACE: Duration = Duration::from_millis(500);

/// How long the output of an exited worker is awaited from whoever else holds the pipe.
pub(crate) const DRAIN_GRACE: Duration = Duration::from_millis(100);

impl Default for Policy {
    fn default() -> Self {
        Self {
            retries: 0,
            at_most_once: false,
            on_stall: OnStall::Recycle,
            stall_delay: Duration::from_millis(100),
            backoff: Duration::from_millis(10),
            backoff_cap: Duration::from_secs(1),
            give_up: 8,
            recycle_records: None,
            recycle_age: None,
            packet_timeout: None,
            start_timeout: None,
            idle_timeout: None,
            run_timeout: None,
            ladder: vec![
                (Signal::Terminate, Duration::from_millis(200)),
                (Signal::Kill, Duration::ZERO),
            ],
            halt: Halt::Never,
            end_timeout: Some(Duration::from_secs(5)),
            reply_limit: 64 << 20,
        }
    }
}
