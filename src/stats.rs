//! What a feed has done so far, for anybody who asks, at any time, from any thread.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::sync::{Mutex, MutexGuard, OnceLock, lock};
use crate::watch::{self, Board, Bottleneck, Counts, Facts, Ledger, Worker};
#[cfg(feature = "timeline")]
use crate::watch::{Recorder, Timeline, Tolls};
use crate::window::gate::Gate;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: AtomicU64,)* }

        /// The counters of a feed at one moment; from [`Monitor::snapshot`].
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Snapshot {
            $($(#[$doc])* pub $name: u64,)*
            /// Bytes of requests and replies that are held now.
            pub held_bytes: u64,
            /// Items yielded so far.
            pub yielded: u64,
            /// What the feed waits for, or which setting would make it faster or safer, if there is something to
            /// say. A hint about a wait is removed when the wait is over.
            pub hint: Option<String>,
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: self.$name.load(Relaxed),)* ..Snapshot::default() }
            }
        }
    };
}

counters! {
    /// Inputs that reached the event loop.
    accepted,
    /// Replies delivered.
    replies,
    /// Items that became an `Err`. Packets that a fatal error left unanswered
    /// ([`ErrorKind::Halted`](crate::ErrorKind::Halted)) are not counted.
    failed,
    /// Items that ended as an `Err` because the packet's worker died.
    failed_died,
    /// Items that ended as an `Err` because a time limit ran out.
    failed_timeout,
    /// Items that ended as an `Err` because a reply was malformed, too long or refused by `check`.
    failed_reply,
    /// Sessions started.
    starts,
    /// Sessions started to replace one that ended, for any reason.
    restarts,
    /// Sessions that ended although the feed had not asked them to.
    deaths,
    /// Sessions whose stdin was closed so that they answer what they had kept in a buffer.
    recycles,
    /// Packets sent again after a session ended without answering them.
    redeliveries,
    /// Second and later attempts of packets that were alone in a session that failed.
    retries,
    /// Time limits that were exceeded.
    timeouts,
    /// Signals sent to process groups.
    signals,
    /// How often a quiet worker was examined.
    probes,
    /// Bytes written to workers.
    written_bytes,
    /// Bytes read from workers, stderr included.
    read_bytes,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        // One writer per counter: a plain add, no locked instruction.
        counter.store(counter.load(Relaxed) + n, Relaxed);
    }

    /// Takes back what was counted too early.
    pub(crate) fn take(counter: &AtomicU64, n: u64) {
        counter.store(counter.load(Relaxed) - n, Relaxed);
    }
}

#[derive(Debug)]
pub(crate) struct Stats {
    pub(crate) counters: Counters,
    pub(crate) gate: Arc<Gate>,
    /// The last hint about each worker and about the feed as a whole, the latest at the end: one that is withdrawn
    /// uncovers the one before it.
    hints: Mutex<Vec<Hint>>,
    workers: usize,
    board: Board,
    ledger: Mutex<Ledger>,
    /// Since when the event loop has been awake, after a sleep that the ledger knows and whose end it does not: in
    /// nanoseconds. So a wake-up costs it a store.
    awake_since: AtomicU64,
    /// When the event loop's clock began.
    began: OnceLock<Instant>,
    #[cfg(feature = "timeline")]
    recorder: Option<Recorder>,
    /// The command that the workers run, as it is shown.
    #[cfg(feature = "timeline")]
    command: String,
}

impl Stats {
    /// Of a feed with so many workers.
    pub(crate) fn new(gate: Arc<Gate>, workers: usize) -> Self {
        Self {
            counters: Counters::default(),
            gate,
            hints: Mutex::default(),
            workers,
            board: Board::new(workers),
            ledger: Mutex::default(),
            awake_since: AtomicU64::new(0),
            began: OnceLock::new(),
            #[cfg(feature = "timeline")]
            recorder: None,
            #[cfg(feature = "timeline")]
            command: String::new(),
        }
    }

    /// Keeps a recording of so many events at most.
    #[cfg(feature = "timeline")]
    pub(crate) fn recording(self, most: Option<usize>, command: String) -> Self {
        let recorder = most.map(|most| Recorder::new(most, self.workers));
        Self { recorder, command, ..self }
    }

    #[cfg(feature = "timeline")]
    #[inline]
    pub(crate) fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_ref()
    }

    /// What a timeline tells of the counters.
    #[cfg(feature = "timeline")]
    pub(crate) fn tolls(&self) -> Tolls {
        let Counters { recycles, deaths, timeouts, signals, redeliveries, .. } = &self.counters;
        Tolls {
            recycles: recycles.load(Relaxed),
            deaths: deaths.load(Relaxed),
            timeouts: timeouts.load(Relaxed),
            signals: signals.load(Relaxed),
            redeliveries: redeliveries.load(Relaxed),
        }
    }

    /// Event loop: its clock begins now, and from now on it answers questions.
    pub(crate) fn begin(&self) {
        let _ = self.began.set(Instant::now());
        self.board.open();
    }

    /// Event loop: where it answers questions about its workers.
    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    /// Event loop: where it puts down what it spends its time with.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        let mut ledger = lock(&self.ledger);
        // Nothing is stored here between the two: the one that is awake must first have this lock to sleep.
        let woke = self.awake_since.load(Relaxed);
        if woke > 0 {
            ledger.wakes(Duration::from_nanos(woke));
            self.awake_since.store(0, Relaxed);
        }
        ledger
    }

    /// Event loop: awake again, after it has put down that it sleeps.
    pub(crate) fn wakes(&self, now: Duration) {
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.awake_since.store(nanos.max(1), Relaxed);
    }

    /// How many packets have come and gone.
    pub(crate) fn counts(&self) -> Counts {
        let pulled = self.counters.accepted.load(Relaxed);
        Counts { pulled, yielded: self.gate.total_yielded() }
    }

    /// Leaves a hint; the last one counts.
    pub(crate) fn hint(&self, hint: String) {
        self.leave(About::Feed, hint);
    }

    /// Leaves a hint about a worker.
    pub(crate) fn hint_about(&self, worker: usize, hint: String) {
        self.leave(About::Worker(worker), hint);
    }

    /// Leaves a hint about a host, by its number.
    pub(crate) fn hint_about_host(&self, host: usize, hint: String) {
        self.leave(About::Host(host), hint);
    }

    fn leave(&self, about: About, hint: String) {
        let mut hints = lock(&self.hints);
        hints.retain(|(other, _)| *other != about);
        hints.push((about, hint));
    }

    /// The last hint about this worker is disproved.
    pub(crate) fn withdraw_hint(&self, worker: usize) {
        self.withdraw(About::Worker(worker));
    }

    /// The last hint about this host is disproved.
    pub(crate) fn withdraw_hint_about_host(&self, host: usize) {
        self.withdraw(About::Host(host));
    }

    fn withdraw(&self, withdrawn: About) {
        lock(&self.hints).retain(|(about, _)| *about != withdrawn);
    }
}

/// What a hint is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Feed,
    Worker(usize),
    Host(usize),
}

/// What is said, and what it is about.
type Hint = (About, String);

/// Reports how a feed is doing, to any thread. Cheap to clone, and usable after the feed has ended.
///
/// ```
/// use subfeed::{FeedExt, Template};
/// let mut feed = (0..100).map(|n| n.to_string()).feed_subprocesses(Template::new("cat"), 2, 10);
/// let monitor = feed.monitor();
/// assert_eq!(feed.by_ref().count(), 100);
/// assert_eq!(monitor.snapshot().replies, 100);
/// ```
#[derive(Clone)]
pub struct Monitor(pub(crate) Arc<Stats>);

impl Monitor {
    /// The counters at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.0.counters.snapshot();
        snapshot.held_bytes = self.0.gate.held() as u64;
        snapshot.yielded = self.0.gate.total_yielded();
        snapshot.hint = lock(&self.0.hints).last().map(|(_, hint)| hint.clone());
        snapshot
    }

    /// What each worker is doing, in the order of the workers' numbers.
    ///
    /// The event loop answers at the end of its current turn. That is at once, unless one of your closures (`check`, a
    /// custom framing) keeps it busy; after 100 ms its previous answer is returned instead. The feed does no work for this
    /// unless it is called. For two hundred workers an answer took 5.5 ms on a busy machine; `benches/watching.rs`
    /// measures it.
    ///
    /// Before the feed has begun, and if it could not be started, no worker has a session. After its end the last state
    /// is returned.
    ///
    /// ```
    /// use subfeed::watch::WorkerState;
    /// use subfeed::{FeedExt, Template};
    /// let mut feed = (0..100).map(|n| n.to_string()).feed_subprocesses(Template::new("cat"), 2, 10);
    /// let monitor = feed.monitor();
    /// assert_eq!(feed.by_ref().count(), 100);
    /// let workers = monitor.workers();
    /// assert_eq!(workers.iter().map(|worker| worker.answered).sum::<u64>(), 100);
    /// assert!(workers.iter().all(|worker| worker.state == WorkerState::Vacant));
    /// ```
    #[must_use]
    pub fn workers(&self) -> Vec<Worker> {
        self.view().workers
    }

    /// What limits the speed of the feed: where the time of the last five seconds went, printed as one line.
    ///
    /// It takes as long as [`workers`](Monitor::workers).
    ///
    /// ```
    /// use std::time::Duration;
    /// use subfeed::watch::Verdict;
    /// use subfeed::{FeedExt, Template};
    /// let slow = (0..20).map(|n| {
    ///     std::thread::sleep(Duration::from_millis(10));
    ///     n.to_string()
    /// });
    /// let mut feed = slow.feed_subprocesses(Template::new("cat"), 2, 10);
    /// let monitor = feed.monitor();
    /// assert_eq!(feed.by_ref().take(19).count(), 19);
    /// let bottleneck = monitor.bottleneck();
    /// assert_eq!(bottleneck.verdict, Verdict::Source);
    /// println!("{bottleneck}");
    /// ```
    #[must_use]
    pub fn bottleneck(&self) -> Bottleneck {
        let view = self.view();
        let stats = &*self.0;
        let now = stats.began.get().map(Instant::elapsed).unwrap_or_default();
        let ledger = stats.ledger().clone();
        let times = ledger.read(now, stats.counts());
        let facts = Facts {
            workers: stats.workers,
            window: stats.gate.window(),
            next: view.next,
            head: view.head,
            ready: view.ready,
            withholding: view.withholding,
        };
        watch::judge(&times, &facts)
    }

    /// What has been recorded until now. Empty unless [`FeedBuilder::timeline`](crate::FeedBuilder::timeline) was set.
    #[cfg(feature = "timeline")]
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        let recorder = self.0.recorder();
        recorder.map(|recorder| recorder.read(self.0.command.clone())).unwrap_or_default()
    }

    fn view(&self) -> watch::View {
        self.0.board.ask(|| self.0.gate.wake_executor())
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.snapshot(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Share;

    #[test]
    fn the_time_since_a_wake_up_is_ours_whoever_looks_and_when() {
        const fn ms(n: u64) -> Duration {
            Duration::from_millis(n)
        }
        let stats = Stats::new(Arc::new(Gate::new(1, usize::MAX)), 1);
        let none = Counts::default();
        stats.ledger().rests(ms(10), ms(0), Share::Source, none, 0);
        stats.wakes(ms(30));
        let read = |now| stats.ledger().clone().read(now, none);
        assert_eq!(read(ms(50)).shares[Share::Us as usize], ms(10 + 20));
        stats.ledger().rests(ms(100), ms(0), Share::Workers, none, 0);
        let times = read(ms(101));
        assert_eq!(times.shares[Share::Us as usize], ms(10 + 70));
        assert_eq!(times.shares[Share::Source as usize], ms(20));
        assert_eq!(times.shares[Share::Workers as usize], ms(1));
    }
}
