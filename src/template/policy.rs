//! What to do when something takes too long, dies, or gives no answer.

use std::time::Duration;

pub(crate) use crate::signal::Signal;
use crate::template::Template;

/// What to do with a worker that keeps its replies in a buffer; see
/// [`Template::on_stall`](crate::Template::on_stall).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnStall {
    /// Closes its stdin, so that it answers and exits, and starts it again: if it certainly waits for input, or, after
    /// several looks, if all that it does besides is sleep. Otherwise the feed waits, and
    /// [`Snapshot::hint`](crate::Snapshot::hint) says so.
    #[default]
    Recycle,
    /// Ends the feed with a fatal error of kind [`ErrorKind::Stalled`](crate::ErrorKind::Stalled) that names the fix. Only
    /// if the worker certainly waits for input.
    Fail,
    /// Waits for as long as it takes. Its stdin is closed when it will get nothing more.
    Wait,
}

/// When failed items end the feed; see [`Template::halt`](crate::Template::halt).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Halt {
    /// Never: failed items do not end the feed. The caller may stop at an error, for example with `?`.
    #[default]
    Never,
    /// After this many failed items: no more input is pulled, everything that was pulled is answered, and then a fatal
    /// error is yielded as one more item, which belongs to no packet.
    Soon(u64),
    /// After this many failed items: the feed ends at once. Packets that were pulled and not yet answered become
    /// [`Halted`](crate::ErrorKind::Halted) errors at their positions, and the first of these carries the cause. Packets
    /// that were answered keep their replies; in input order some may come after the cause. If no packet is unanswered,
    /// the cause is yielded as one more item.
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
    /// Nothing is answered before stdin is closed: a session gets so many packets, and a quiet one is
    /// recycled without evidence.
    pub(crate) eof_batch: Option<u64>,
    /// So many packets may be in one worker at most; never 0 once it is validated.
    pub(crate) in_flight: Option<u64>,
    /// Nothing comes back: a session is judged by its exit alone.
    pub(crate) drains: bool,
    /// A bad exit after every answer is fatal too.
    pub(crate) require_clean_exit: bool,
    /// What was written on stderr goes with each reply. Only where it is known whose it is: one packet
    /// in a worker at a time.
    pub(crate) keep_stderr: bool,
    pub(crate) recycle_age: Option<Duration>,
    pub(crate) packet_timeout: Option<Duration>,
    pub(crate) start_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) run_timeout: Option<Duration>,
    pub(crate) kill_sequence: Vec<(Signal, Duration)>,
    pub(crate) kill_with_parent: bool,
    pub(crate) halt: Halt,
    /// How long a worker may take to exit after its last answer, or `None`: as long as it likes.
    pub(crate) end_timeout: Option<Duration>,
    /// Somebody asked for `end_timeout`; otherwise draining has none.
    pub(crate) end_timeout_is_set: bool,
    pub(crate) reply_limit: usize,
}

/// How long a dropped feed lets its workers exit by themselves before the kill sequence.
pub(crate) const DROP_GRACE: Duration = Duration::from_millis(500);

/// How long a worker may take to end after the last signal of its kill sequence, at least, before it is left to
/// be reaped in the background: it sleeps in the kernel, or may not be killed by us.
pub(crate) const KILL_GRACE: Duration = Duration::from_secs(1);

/// How long the output of an exited worker is awaited while another process holds the pipe.
pub(crate) const DRAIN_GRACE: Duration = Duration::from_millis(100);

impl Policy {
    /// Whether a worker answers only when its input ends.
    pub(crate) fn at_eof(&self) -> bool {
        self.eof_batch.is_some()
    }

    /// How long after the last signal of the kill sequence a worker is no longer waited for.
    pub(crate) fn kill_grace(&self) -> Duration {
        self.kill_sequence.last().map_or(KILL_GRACE, |(_, wait)| KILL_GRACE.max(*wait))
    }
}

/// How long to wait after so many failures in a row: `first`, doubled for each but one, and `longest` at most.
pub(crate) fn backed_off(first: Duration, longest: Duration, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    first.saturating_mul(1 << doublings).min(longest)
}

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
            eof_batch: None,
            in_flight: None,
            drains: false,
            require_clean_exit: false,
            keep_stderr: false,
            recycle_age: None,
            packet_timeout: None,
            start_timeout: None,
            idle_timeout: None,
            run_timeout: None,
            kill_sequence: vec![
                (Signal::Terminate, Duration::from_millis(200)),
                (Signal::Kill, Duration::ZERO),
            ],
            kill_with_parent: false,
            halt: Halt::Never,
            end_timeout: Some(Duration::from_secs(5)),
            end_timeout_is_set: false,
            reply_limit: 64 << 20,
        }
    }
}

/// What to do when something takes too long, dies, or says nothing.
impl<E, D> Template<E, D> {
    /// How often a packet is sent again after it was alone in a session that ended without answering it, or that
    /// exceeded a time limit. Default: 0. A packet has `1 + retries` attempts in all.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// # let flag = std::env::temp_dir().join(format!("subfeed-retries-{}", std::process::id()));
    /// // Its first attempt fails.
    /// let template = Template::shell(r#"read -r x; [ -e "$FLAG" ] || { >"$FLAG"; exit 1; }; echo "$x""#)
    ///     .env("FLAG", &flag)
    ///     .retries(1);
    /// let mut feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "a");
    /// # std::fs::remove_file(&flag).unwrap();
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.spec.policy.retries = retries;
        self
    }

    /// Never sends a packet again that a worker may have read. Such a packet becomes an `Err` of kind
    /// [`ErrorKind::NotRedelivered`](crate::ErrorKind::NotRedelivered). Without this, a packet may be processed more than
    /// once. Together with [`retries`](Template::retries) it is a configuration error.
    ///
    /// ```
    /// use subfeed::{ErrorKind, FeedExt, Template};
    /// let template = Template::shell("read -r a; read -r b; exit 1").at_most_once();
    /// let feed = ["pay", "pay again"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// for reply in feed {
    ///     assert!(matches!(reply.unwrap_err().kind(), ErrorKind::NotRedelivered | ErrorKind::Died));
    /// }
    /// ```
    #[must_use]
    pub fn at_most_once(mut self) -> Self {
        self.spec.policy.at_most_once = true;
        self
    }

    /// What to do with a worker that keeps its replies in a buffer, and how long it must have been quiet before that is
    /// done. Default: [`OnStall::Recycle`] after 100 ms. A delay of zero is a configuration error.
    ///
    /// Under `Recycle` a fiftieth of the delay is enough for a worker that has not answered yet while more items wait (a new
    /// worker gets one item until it has answered), and for one that will get no more. Once a worker of the feed was
    /// recycled, the delay is an eighth.
    ///
    /// A long delay postpones this alone. After five seconds at most, a worker that will get no more has its stdin closed, and
    /// another one is given more.
    ///
    /// ```
    /// use std::time::Duration;
    /// use subfeed::policy::OnStall;
    /// use subfeed::{FeedExt, Template};
    /// // To start this worker again would be expensive, so its stdin is not closed before the end.
    /// let template = Template::new("tr").args(["a-z", "A-Z"]).on_stall(OnStall::Wait, Duration::from_secs(1));
    /// let replies = ["a", "b"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(replies.collect::<Result<Vec<_>, _>>()?, ["A", "B"]); // At the end of the input.
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn on_stall(mut self, what: OnStall, delay: Duration) -> Self {
        self.spec.policy.on_stall = what;
        self.spec.policy.stall_delay = delay;
        self
    }

    /// After how many failed items the feed ends by itself. Default: never ([`Halt::Never`]). A count of 0 is a
    /// configuration error.
    ///
    /// ```
    /// use subfeed::policy::Halt;
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::new("cat")
    ///     .try_encode(|n: &u32, request| if *n < 3 { Ok(request.push_display(n)) } else { Err("too large".into()) })
    ///     .halt(Halt::Soon(1));
    /// let feed = (0..).feed_subprocesses_ordered(template, 1, 8);
    /// let items: Vec<_> = feed.collect(); // It ends, although the input does not.
    /// assert!(items.last().unwrap().as_ref().is_err_and(|error| error.is_fatal()));
    /// ```
    #[must_use]
    pub fn halt(mut self, halt: Halt) -> Self {
        self.spec.policy.halt = halt;
        self
    }

    /// Ends the feed with a fatal error after this many sessions in a row have ended without a reply. Default: 8. Zero is
    /// a configuration error.
    ///
    /// ```
    /// use subfeed::{ErrorKind, FeedExt, Template};
    /// let template = Template::shell("exit 3").give_up_after(2);
    /// let mut feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// let error = feed.find_map(Result::err).unwrap();
    /// assert_eq!(error.exit_status().unwrap().code(), Some(3));
    /// ```
    #[must_use]
    pub fn give_up_after(mut self, sessions: u32) -> Self {
        self.spec.policy.give_up = sessions;
        self
    }

    /// How long to wait before a worker is started again, if its last session ended without a reply: `first`, then doubled
    /// each time up to `cap`. Default: 10 ms and 1 s. A `cap` below `first` is a configuration error.
    ///
    /// ```
    /// use std::time::Duration;
    /// use subfeed::{FeedExt, Template};
    /// // The tool uses a server, which may need time to come back.
    /// let template = Template::new("cat").backoff(Duration::from_millis(100), Duration::from_secs(30));
    /// let mut feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "a");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn backoff(mut self, first: Duration, cap: Duration) -> Self {
        self.spec.policy.backoff = first;
        self.spec.policy.backoff_cap = cap;
        self
    }

    /// Starts a worker again after this many requests. Default: never. Zero is a configuration error.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::shell("while read -r x; do echo $$; done").recycle_after_records(10);
    /// let mut pids: Vec<_> =
    ///     (0..30).map(|n| n.to_string()).feed_subprocesses_ordered(template, 1, 8).collect::<Result<_, _>>()?;
    /// pids.dedup();
    /// assert_eq!(pids.len(), 3);
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn recycle_after_records(mut self, records: u64) -> Self {
        self.spec.policy.recycle_records = Some(records);
        self
    }

    /// The most packets that one worker may have been given and not yet answered. `1` means that each request waits for
    /// the reply before it. Zero is a configuration error.
    ///
    /// By default a worker gets as many packets as keep it busy, which is faster. Set a limit for tools that answer out of
    /// order, for tools that lose what they have read when they die, and for [`keep_stderr`](Template::keep_stderr).
    ///
    /// A tool that keeps its replies until a buffer is full is started again after each `max` packets.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::new("cat").in_flight(1);
    /// let replies = ["a", "b"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(replies.collect::<Result<Vec<_>, _>>()?, ["a", "b"]);
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn in_flight(mut self, max: u64) -> Self {
        self.spec.policy.in_flight = Some(max);
        self
    }

    /// Makes a bad exit (a status other than 0, or a signal) a fatal error even after the last answer.
    ///
    /// By default only [`Feed::finish`](crate::Feed::finish) reports such an exit, because many tools regularly exit with
    /// other statuses. A [source](crate::source::iterate_in_subprocess) always reports it, with or without this.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::shell("cat; exit 5").require_clean_exit();
    /// let replies = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 8).collect::<Result<Vec<_>, _>>();
    /// assert_eq!(replies.unwrap_err().exit_status().unwrap().code(), Some(5));
    /// ```
    #[must_use]
    pub fn require_clean_exit(mut self) -> Self {
        self.spec.policy.require_clean_exit = true;
        self
    }

    /// Keeps what a worker writes on stderr together with the reply it belongs to, for
    /// [`Reply::stderr`](crate::Reply::stderr).
    ///
    /// This needs one packet at a time in a worker: [`in_flight(1)`](Template::in_flight) or
    /// [`until_eof`](crate::framing::ReplyFraming::until_eof). Otherwise it is a configuration error, because the output
    /// could belong to another packet.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::shell("while read -r x; do echo warning >&2; echo $x; done")
    ///     .in_flight(1)
    ///     .keep_stderr()
    ///     .decode(|reply| reply.stderr().map(ToString::to_string));
    /// let mut feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?.as_deref(), Some("warning\n"));
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn keep_stderr(mut self) -> Self {
        self.spec.policy.keep_stderr = true;
        self
    }

    /// Starts a worker again when it is this old and has answered everything it was given. Default: `None`, never. Zero
    /// is a configuration error.
    ///
    /// ```
    /// use std::time::Duration;
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::new("cat").recycle_after_age(Duration::from_secs(3_600));
    /// let mut feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "a");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn recycle_after_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.spec.policy.recycle_age = age.into();
        self
    }

    /// The time limit for one packet, counted from the moment at which it is the next that its worker must answer.
    /// Default: none. Zero is a configuration error.
    ///
    /// When the limit has passed, a worker that may only keep its replies in a buffer first has its stdin closed, and gets
    /// the limit once more. Then the worker is killed, and the packet has used one attempt; see
    /// [`retries`](Template::retries).
    ///
    /// ```
    /// use std::time::Duration;
    /// use subfeed::{ErrorKind, FeedExt, Template};
    /// let template = Template::shell("while read -r n; do sleep $n; echo $n; done")
    ///     .in_flight(1)
    ///     .packet_timeout(Duration::from_secs(1));
    /// let mut feed = ["0", "600"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "0");
    /// assert_eq!(feed.next().unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn packet_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.spec.policy.packet_timeout = limit.into();
        self
    }

    /// The time limit for the first reply of a session, counted from its start or from its first request, whichever is
    /// later. Default: none. Zero is a configuration error.
    ///
    /// If [`packet_timeout`](Template::packet_timeout) is set too, the first reply has the sum of both.
    ///
    /// ```
    /// use std::time::Duration;
    /// use subfeed::{FeedExt, Template};
    /// // Loads for a moment, and then answers quickly.
    /// let template = Template::shell("sleep 0.1; exec cat")
    ///     .start_timeout(Duration::from_secs(60))
    ///     .packet_timeout(Duration::from_secs(30));
    /// let mut feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "a");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn start_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.spec.policy.start_timeout = limit.into();
        self
    }

    /// The time limit for silence: if replies are owed and no worker writes anything for this long, the feed ends with a
    /// fatal error. Default: none. Zero is a configuration error.
    ///
    /// ```
    /// use std::time::Duration;
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::shell("read -r x; sleep 600").idle_timeout(Duration::from_millis(200));
    /// let mut feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert!(feed.next().unwrap().unwrap_err().is_fatal());
    /// ```
    #[must_use]
    pub fn idle_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.spec.policy.idle_timeout = limit.into();
        self
    }

    /// The time limit for the whole feed: this long after its start it ends with a fatal error. Default: none. Zero is a
    /// configuration error.
    ///
    /// ```
    /// use std::time::Duration;
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::new("cat").run_timeout(Duration::from_millis(200));
    /// let endless = std::iter::repeat("a").feed_subprocesses_ordered(template, 1, 8);
    /// assert!(endless.collect::<Result<Vec<_>, _>>().unwrap_err().is_fatal());
    /// ```
    #[must_use]
    pub fn run_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.spec.policy.run_timeout = limit.into();
        self
    }

    /// How a worker is ended by force: the signals, each sent to its process group and followed by a pause, until it has
    /// exited. Default: SIGTERM, 200 ms, SIGKILL. If the list does not end with SIGKILL, one is added.
    ///
    /// A process does not end even then while it waits inside the kernel (a dead network file system, a frozen cgroup), or
    /// if it runs as another user. The feed waits for the last pause, and at least one second. Then it treats the worker
    /// as dead, and a background thread of this crate reaps it when it ends. With a last pause of
    /// [`Duration::MAX`] the feed, and its drop, wait for it without limit.
    ///
    /// ```
    /// use std::time::Duration;
    /// use subfeed::policy::Signal;
    /// use subfeed::{FeedExt, Template};
    /// // It has half a minute to save its state.
    /// let template = Template::new("cat").kill_sequence([
    ///     (Signal::Interrupt, Duration::from_secs(30)),
    ///     (Signal::Terminate, Duration::from_secs(1)),
    ///     (Signal::Kill, Duration::ZERO),
    /// ]);
    /// let mut feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "a");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn kill_sequence(
        mut self,
        kill_sequence: impl IntoIterator<Item = (Signal, Duration)>,
    ) -> Self {
        self.spec.policy.kill_sequence = kill_sequence.into_iter().collect();
        if !matches!(self.spec.policy.kill_sequence.last(), Some((Signal::Kill, _))) {
            self.spec.policy.kill_sequence.push((Signal::Kill, Duration::ZERO));
        }
        self
    }

    /// Asks the kernel to kill each worker with SIGKILL when this process ends, however it ends. Linux only; no effect
    /// elsewhere.
    ///
    /// Without this, if this process is killed by SIGKILL, its workers see their stdin end and their stdout closed. That
    /// ends nearly every tool, but not one that never reads or writes again. With it such a worker ends too, but:
    ///
    /// - The kernel kills only the worker itself and not its children. A `sh -c` dies at once; its children see the end of
    ///   their input.
    /// - A grandchild may have read only the first part of a request.
    /// - A worker that changes its user (`sudo`, setuid programs) is not killed: the kernel then drops the setting.
    /// - Workers are started with `fork` and `exec` instead of `posix_spawn`, which takes milliseconds if this process
    ///   uses gigabytes of memory.
    ///
    /// For the kernel the parent is the *thread* that started the worker. That is a thread of the feed, which ends only
    /// after its workers, so threads of your program may end at any time.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    ///
    /// let template = Template::new("cat").kill_with_parent();
    /// let replies: Vec<_> = ["a", "b"].into_iter().feed_subprocesses_ordered(template, 2, 8).collect::<Result<_, _>>()?;
    /// assert_eq!(replies, ["a", "b"]);
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn kill_with_parent(mut self) -> Self {
        self.spec.policy.kill_with_parent = true;
        self
    }

    /// How long a worker may take to exit after its last answer and after its stdin was closed. Then the
    /// [kill sequence](Template::kill_sequence) begins. Default: 5 s. `None`: no limit.
    ///
    /// ```
    /// use std::time::Duration;
    /// use subfeed::{FeedExt, Template};
    /// // It closes a database before it exits.
    /// let template = Template::shell("cat; sleep 0.1").end_timeout(Duration::from_secs(60));
    /// let feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.finish()?.yielded, 1);
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn end_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.spec.policy.end_timeout = limit.into();
        self.spec.policy.end_timeout_is_set = true;
        self
    }
}
