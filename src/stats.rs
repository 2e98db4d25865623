//! What a feed has done so far, for anybody who asks, at any time, from any thread.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
            /// Bytes of requests and replies held right now.
            pub held_bytes: u64,
            /// Items yielded so far.
            pub yielded: u64,
            /// What the feed waits for, or what would make it faster or sounder, if something was noticed: the
            /// fix by name. A wait that is over takes its hint with it.
            pub hint: Option<String>,
        }

        impl Counters {
            fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: self.$name.load(Relaxed),)* ..Snapshot::default() }
            }
        }
    };
}

counters! {
    /// Inputs that reached the executor.
    accepted,
    /// Replies delivered.
    replies,
    /// Items that ended as an `Err` of their own. What a fatal error has left unanswered
    /// ([`ErrorKind::Halted`](crate::ErrorKind::Halted)) is not among them.
    failed,
    /// Items that ended as an `Err` because the packet's worker died.
    failed_died,
    /// Items that ended as an `Err` because a time limit ran out.
    failed_timeout,
    /// Items that ended as an `Err` because a reply was malformed, too long or refused by `check`.
    failed_reply,
    /// Sessions started.
    starts,
    /// Sessions started in the place of one that ended, for whatever reason.
    restarts,
    /// Sessions that ended without being asked to.
    deaths,
    /// Sessions whose stdin was closed so that they answer what they withheld.
    recycles,
    /// Packets sent again after a session ended without answering them.
    redeliveries,
    /// Attempts beyond the first of packets that were alone in a session that failed.
    retries,
    /// Time limits that ran out.
    timeouts,
    /// Signals sent to process groups.
    signals,
    /// Times the evidence of a stall was looked at.
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
    /// The last hint, and the worker that it is about, if it is about one.
    hint: Mutex<Hint>,
}

impl Stats {
    pub(crate) fn new(gate: Arc<Gate>) -> Self {
        Self { counters: Counters::default(), gate, hint: Mutex::new(None) }
    }

    /// Leaves a hint; the last one counts.
    pub(crate) fn hint(&self, hint: String) {
        *lock_hint(&self.hint) = Some((None, hint));
    }

    /// Leaves a hint about a worker.
    pub(crate) fn hint_about(&self, worker: usize, hint: String) {
        *lock_hint(&self.hint) = Some((Some(worker), hint));
    }

    /// The last hint about this worker is disproved.
    pub(crate) fn withdraw_hint(&self, worker: usize) {
        lock_hint(&self.hint).take_if(|(about, _)| *about == Some(worker));
    }
}

type Hint = Option<(Option<usize>, String)>;

fn lock_hint(mutex: &Mutex<Hint>) -> std::sync::MutexGuard<'_, Hint> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// How a feed is doing, for any thread to ask: cheap to clone, and usable when the feed has ended.
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
    /// The counters as they stand.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.0.counters.snapshot();
        snapshot.held_bytes = self.0.gate.held() as u64;
        snapshot.yielded = self.0.gate.total_yielded();
        snapshot.hint = lock_hint(&self.0.hint).as_ref().map(|(_, hint)| hint.clone());
        snapshot
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.snapshot(), f)
    }
}
