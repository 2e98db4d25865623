//! The gate in front of the source: how far ahead it may be pulled, and whether at all.
//!
//! One side asks ([`Gate::may_pull`], the intake), two sides give back: the outlet what was yielded,
//! and whoever drops bytes their number. Giving back is cheap while the intake runs; when it sleeps,
//! the giver wakes it.

use std::cell::RefCell;
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use crate::window::help::Help;
use crate::window::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst};
use crate::window::sync::thread::{self, Thread};
use crate::window::sync::{self, OnceLock};

#[derive(Debug)]
pub(crate) struct Gate {
    /// Packets that may be pulled and not yet yielded. Never zero.
    window: u64,
    /// Bytes that may be held before pulling stops.
    max_bytes: usize,
    yielded: CachePadded<AtomicU64>,
    held: CachePadded<AtomicUsize>,
    stop: AtomicBool,
    /// What the intake sleeps for: one of the three constants below.
    asleep: AtomicU8,
    intake: OnceLock<Waker>,
    /// How deep the intake's thread is inside the `next()` of other feeds, which this gate can wake.
    inside_feed: AtomicUsize,
    /// What a consumer that would otherwise sleep can do for this feed.
    pub(crate) help: Help,
}

/// How whoever pulls is woken: the intake is a thread that parks, a supervisor waits in its poller.
enum Waker {
    Thread(Thread),
    Call(Box<dyn Fn() + Send + Sync>),
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Thread(thread) => f.debug_tuple("Thread").field(thread).finish(),
            Self::Call(_) => f.write_str("Call(..)"),
        }
    }
}

const AWAKE: u8 = 0;
const FOR_CREDIT: u8 = 1;
const FOR_BYTES: u8 = 2;

sync::thread_local! {
    /// The gate of the feed whose intake this thread is.
    static OURS: RefCell<Option<Arc<Gate>>> = const { RefCell::new(None) };
}

impl Gate {
    pub(crate) fn new(window: u64, max_bytes: usize) -> Self {
        Self {
            window,
            max_bytes,
            yielded: CachePadded::new(AtomicU64::new(0)),
            held: CachePadded::new(AtomicUsize::new(0)),
            stop: AtomicBool::new(false),
            asleep: AtomicU8::new(AWAKE),
            intake: OnceLock::new(),
            inside_feed: AtomicUsize::new(0),
            help: Help::default(),
        }
    }

    /// Intake: this thread pulls the source from now on.
    pub(crate) fn enter(self: &Arc<Self>) {
        let _ = self.intake.set(Waker::Thread(thread::current()));
        OURS.with(|ours| *ours.borrow_mut() = Some(Arc::clone(self)));
    }

    /// Who pulls does not park but waits elsewhere, and is woken by this call.
    pub(crate) fn call_when_open(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.intake.set(Waker::Call(Box::new(wake)));
    }

    /// The gate of the feed that pulls on this thread, if this is an intake.
    ///
    /// An outlet that waits on such a thread ends when that feed is stopped: so dropping the last
    /// stage of a chain wakes every stage.
    pub(crate) fn of_this_thread() -> Option<Arc<Self>> {
        OURS.try_with(|ours| ours.borrow().clone()).ok().flatten()
    }

    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// Whether one more input may be pulled after `pulled` of them; `open` bytes are in the open batch.
    ///
    /// An input is always allowed when nothing else is under way: a record larger than `max_bytes`
    /// travels alone rather than never.
    pub(crate) fn may_pull(&self, pulled: u64, open: usize) -> bool {
        let ahead = pulled.saturating_sub(self.total_yielded());
        ahead == 0
            || (ahead < self.window && self.held.load(SeqCst).saturating_add(open) < self.max_bytes)
    }

    /// The same for whoever asks often: `known` is the number of outputs that it knows to have been
    /// yielded, and is brought up to date where that is not enough.
    #[inline]
    pub(crate) fn may_pull_knowing(&self, pulled: u64, open: usize, known: &mut u64) -> bool {
        // A drained feed counts a packet twice that it takes back and writes again.
        let ahead = pulled.saturating_sub(*known);
        if ahead > 0
            && ahead < self.window
            && self.held.load(SeqCst).saturating_add(open) < self.max_bytes
        {
            return true;
        }
        *known = self.total_yielded();
        self.may_pull(pulled, open)
    }

    /// Intake: sleeps until an input may be pulled, or the feed is stopped.
    ///
    /// `open` counts the bytes of the open batch, as long as nobody has taken it and counted them.
    pub(crate) fn wait_to_pull(&self, pulled: u64, open: impl Fn() -> usize) {
        loop {
            let short = pulled.saturating_sub(self.total_yielded()) >= self.window;
            self.asleep.store(if short { FOR_CREDIT } else { FOR_BYTES }, SeqCst);
            if self.may_pull(pulled, open()) || self.is_stopped() {
                self.asleep.store(AWAKE, SeqCst);
                return;
            }
            if short && pulled.saturating_sub(self.total_yielded()) < self.window {
                // A credit came before the flag was up: what is missing now is bytes, and whoever
                // gives those back looks for the other flag.
                continue;
            }
            thread::park();
        }
    }

    /// Whether one more may be pulled after `pulled`; if not, the next change for the better is called
    /// out (see [`call_when_open`](Gate::call_when_open)). Never blocks.
    pub(crate) fn may_pull_or_call(&self, pulled: u64) -> bool {
        loop {
            if self.may_pull(pulled, 0) {
                return true;
            }
            let short = pulled.saturating_sub(self.total_yielded()) >= self.window;
            self.asleep.store(if short { FOR_CREDIT } else { FOR_BYTES }, SeqCst);
            let short_now = pulled.saturating_sub(self.total_yielded()) >= self.window;
            if !self.may_pull(pulled, 0) && short == short_now {
                return false;
            }
            self.asleep.store(AWAKE, SeqCst);
        }
    }

    fn wake(&self) {
        if self.asleep.swap(AWAKE, SeqCst) != AWAKE {
            self.unpark();
        }
    }

    fn unpark(&self) {
        match self.intake.get() {
            Some(Waker::Thread(intake)) => intake.unpark(),
            Some(Waker::Call(wake)) => wake(),
            None => {}
        }
    }

    /// Outlet: `total` packets have been yielded since the start.
    pub(crate) fn yielded(&self, total: u64) {
        self.yielded.store(total, SeqCst);
        if self.asleep.load(SeqCst) != AWAKE {
            self.wake();
        }
    }

    pub(crate) fn total_yielded(&self) -> u64 {
        self.yielded.load(SeqCst)
    }

    /// Counts bytes in.
    pub(crate) fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes, SeqCst);
    }

    /// Counts bytes out. Says whether this brought the total under the limit.
    pub(crate) fn release(&self, bytes: usize) -> bool {
        if bytes == 0 {
            return false;
        }
        let before = self.held.fetch_sub(bytes, SeqCst);
        debug_assert!(before >= bytes, "released more than was held");
        if self.asleep.load(SeqCst) == FOR_BYTES {
            self.wake();
        }
        before >= self.max_bytes && before - bytes < self.max_bytes
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(SeqCst)
    }

    /// Whether more is held than may be.
    pub(crate) fn is_full(&self) -> bool {
        self.held() >= self.max_bytes
    }

    /// No input is pulled after this (but one may be on its way out of the source).
    pub(crate) fn stop(&self) {
        self.stop.store(true, SeqCst);
        // Not only when it sleeps at this gate: it may sleep inside the outlet of an earlier feed.
        self.unpark();
    }

    #[inline]
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(SeqCst)
    }

    /// Marks that the intake waits inside another feed, from where [`stop`](Gate::stop) fetches it.
    pub(crate) fn inside_feed(&self) -> Inside<'_> {
        self.inside_feed.fetch_add(1, SeqCst);
        Inside(self)
    }

    /// The same, for something that comes out of that feed's outlet.
    pub(crate) fn inside_outlet(&self, upstream: &Arc<Self>) -> Inside<'_> {
        self.help.enter(upstream);
        self.inside_feed()
    }

    pub(crate) fn is_inside_feed(&self) -> bool {
        self.inside_feed.load(SeqCst) > 0
    }
}

/// See [`Gate::inside_feed`].
#[derive(Debug)]
pub(crate) struct Inside<'a>(&'a Gate);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.help.leave();
        self.0.inside_feed.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_of_w_lets_w_inputs_through_before_the_first_output() {
        let gate = Gate::new(3, usize::MAX);
        assert!(gate.may_pull(0, 0) && gate.may_pull(2, 0) && !gate.may_pull(3, 0));
        gate.yielded(1);
        assert!(gate.may_pull(3, 0) && !gate.may_pull(4, 0));
    }

    #[test]
    fn who_waits_elsewhere_is_called_once_for_each_time_it_asked() {
        let gate = Gate::new(2, 100);
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        gate.call_when_open(move || {
            count.fetch_add(1, SeqCst);
        });
        assert!(gate.may_pull_or_call(1));
        gate.yielded(1);
        assert_eq!(calls.load(SeqCst), 0, "nobody waited");
        assert!(!gate.may_pull_or_call(3));
        gate.yielded(2);
        gate.yielded(3);
        assert_eq!(calls.load(SeqCst), 1);
        gate.hold(150);
        assert!(gate.may_pull_or_call(3) && !gate.may_pull_or_call(4));
        gate.release(100);
        assert_eq!(calls.load(SeqCst), 2);
    }

    #[test]
    fn bytes_close_the_gate_unless_nothing_is_under_way() {
        let gate = Gate::new(u64::MAX, 100);
        assert!(gate.may_pull(0, 1_000));
        assert!(!gate.may_pull(1, 100) && gate.may_pull(1, 99));
        gate.hold(150);
        assert!(!gate.may_pull(1, 0) && gate.is_full());
        assert!(!gate.release(10) && gate.release(60));
        assert!(gate.may_pull(1, 0));
    }
}
