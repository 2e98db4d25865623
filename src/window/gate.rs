//! The gate in front of the source: how far ahead it may be pulled, and whether at all.
//!
//! One side asks, the puller: the intake, or the executor of a source. Two sides give: the outlet
//! says what was yielded, and a thread that releases bytes says how many.
//!
//! # Credit
//! The outlet publishes every single output: a store, and a look at the number with which somebody wants to be
//! woken ([`look_at`](Gate::look_at)). To be woken for each output would cost two system calls and two switches an
//! item. So a puller without credit *lingers* at first: for [`LINGER`] at most, only a quarter of the window wakes
//! it. Then it sleeps, and the first credit does. Where lingering does not pay, as behind a consumer that
//! waits for the very input that one credit would let through, it is left out for a while. The README beside this
//! file has the figures.
//!
//! # Invariants
//! 1. `progress` has one writer, the outlet, and never goes back. Input `pulled` may be pulled if
//!    `pulled - yielded < window`.
//! 2. While the puller sleeps or lingers, `puller` says so; `look_at` and `short_of_bytes` are written under its lock alone.
//!    The one is the first output of use, or a later one while it lingers; [`NEVER`] and `false` while `puller` says nothing.
//! 3. The puller stores `look_at`, then reads `progress`, then sleeps; the outlet stores `progress`, then reads
//!    `look_at`. All are `SeqCst`: of two who do this at the same time, one sees the other. The same holds for
//!    `short_of_bytes` and `held`.
//! 4. An outlet that is about to sleep ends the lingering, if there is a credit. So does any other thread that knows that the
//!    consumer sleeps ([`settle`](Gate::settle)).

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::tuning::{CREDITS_THAT_PAY, LINGER, LINGERS_LEFT_OUT};
use crate::window::chain::Link;
use crate::window::joins::{self, Joining};
use crate::window::seam::Executor;
use crate::window::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use crate::window::sync::thread::{self, Thread};
use crate::window::sync::{Instant, Mutex, OnceLock, lock};
#[cfg(any(test, feature = "async"))]
use crate::window::waiter::{Waiter, Word};

#[derive(Debug)]
pub(crate) struct Gate {
    /// Packets that may be pulled and not yet yielded. Never zero.
    window: u64,
    /// Bytes that may be held before pulling stops.
    max_bytes: usize,
    /// Credits that may gather.
    bulk: u64,
    progress: CachePadded<Progress>,
    /// Bytes counted in and not counted out, [`Progress::spent`] not considered.
    held: CachePadded<AtomicUsize>,
    /// With this output, or a later one, the outlet has a look at who sleeps. [`NEVER`] while nobody does.
    look_at: CachePadded<AtomicU64>,
    /// The puller sleeps for want of room, not of credit.
    short_of_bytes: AtomicBool,
    /// The puller sleeps, or is about to.
    puller: Mutex<Option<Puller>>,
    stop: AtomicBool,
    /// The outlet is gone.
    dropped: AtomicBool,
    /// Where the intake runs. Where there is none, the executor pulls.
    intake: OnceLock<RunsOn>,
    executor: Box<dyn Executor>,
    /// How deep the intake's thread is inside other feeds: in a `next()`, which this gate can wake, or in a drop.
    inside_feed: AtomicUsize,
    /// The feed for whose threads the intake waits.
    joins: Mutex<Option<Arc<Self>>>,
    link: Link,
}

/// Where an intake runs.
#[derive(Debug)]
enum RunsOn {
    /// A thread of its own, or of a scope, which parks.
    Thread(Thread),
    /// The task that is the consumer too: it pulls in its polls.
    #[cfg(any(test, feature = "async"))]
    Task(Word),
}

/// How far the outlet has come.
#[derive(Debug)]
struct Progress {
    /// Packets yielded.
    yielded: AtomicU64,
    /// Bytes held for them.
    spent: AtomicUsize,
}

/// What the puller sleeps for.
#[derive(Clone, Copy, Debug)]
struct Puller {
    /// The first output of use.
    first: u64,
    /// With this one nothing is under way any more, and an input may be pulled whatever is held.
    last: u64,
}

/// No output has this number.
const NEVER: u64 = u64::MAX;

/// What the puller remembers between two looks at the gate.
#[derive(Debug)]
pub(crate) struct Pace {
    /// How many there is credit for, in all, and how much was spent, as far as it knows. What it reads for every
    /// input is nothing that the consumer writes for every output.
    credited: u64,
    spent: usize,
    wait: Wait,
    /// What it waits for is room.
    for_bytes: bool,
    /// So many times to come it does not linger.
    left_out: u32,
    /// So many after the next time in vain.
    penalty: u32,
}

#[derive(Clone, Copy, Debug)]
enum Wait {
    No,
    /// Until then, on its own clock.
    Lingers(Duration),
    /// Having lingered in vain, or not at all.
    Sleeps {
        in_vain: bool,
    },
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { credited: 0, spent: 0, wait: Wait::No, for_bytes: false, left_out: 0, penalty: 1 }
    }

    /// How many may be pulled after so many of them, as far as it knows; one at least for who may pull.
    pub(super) fn credits_after(&self, pulled: u64) -> u64 {
        self.credited.saturating_sub(pulled).max(1)
    }

    /// When to [ask](Gate::poll_pull) again, whatever happens.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match self.wait {
            Wait::Lingers(until) => Some(until),
            _ => None,
        }
    }

    /// It may pull, with that many credits. Learns of the wait, if there was one, what to do the next time.
    fn go(&mut self, credits: u64, enough: u64) {
        let wait = std::mem::replace(&mut self.wait, Wait::No);
        if !std::mem::take(&mut self.for_bytes) && credits >= enough {
            (self.left_out, self.penalty) = (0, 1);
        } else if let Wait::Sleeps { in_vain: true } = wait {
            self.left_out = self.penalty;
            self.penalty = (self.penalty * 2).min(LINGERS_LEFT_OUT);
        } else if self.left_out > 0 {
            self.left_out -= 1;
        } else {
            self.penalty = (self.penalty - 1).max(1);
        }
    }
}

impl Gate {
    /// A gate that nobody executes behind.
    #[cfg(any(test, feature = "function-source"))]
    pub(crate) fn new(window: u64, max_bytes: usize) -> Self {
        Self::attached(window, max_bytes, || {})
    }

    pub(super) fn attached(
        window: u64,
        max_bytes: usize,
        executor: impl Executor + 'static,
    ) -> Self {
        Self {
            window,
            max_bytes,
            bulk: (window / 4).clamp(1, 4096),
            progress: CachePadded::new(Progress {
                yielded: AtomicU64::new(0),
                spent: AtomicUsize::new(0),
            }),
            held: CachePadded::new(AtomicUsize::new(0)),
            look_at: CachePadded::new(AtomicU64::new(NEVER)),
            short_of_bytes: AtomicBool::new(false),
            puller: Mutex::new(None),
            stop: AtomicBool::new(false),
            dropped: AtomicBool::new(false),
            intake: OnceLock::new(),
            executor: Box::new(executor),
            inside_feed: AtomicUsize::new(0),
            joins: Mutex::new(None),
            link: Link::default(),
        }
    }

    /// Intake: this thread pulls the source from now on.
    pub(crate) fn enter(self: &Arc<Self>) {
        let _ = self.intake.set(RunsOn::Thread(thread::current()));
        joins::become_intake(self);
    }

    /// Intake: it runs in the polls of a task from now on.
    #[cfg(any(test, feature = "async"))]
    pub(super) fn enter_task(&self) {
        let _ = self.intake.set(RunsOn::Task(Word::default()));
    }

    /// The task that pulls: it is to be woken when there is room again, and when the feed is stopped.
    #[cfg(any(test, feature = "async"))]
    pub(super) fn wait_as_task(&self, waiter: Waiter) {
        if let Some(RunsOn::Task(word)) = self.intake.get() {
            word.leave(waiter);
        }
    }

    /// The task that pulls, if one does, is not to be woken any more.
    #[cfg(any(test, feature = "async"))]
    pub(super) fn forget_task(&self) {
        if let Some(RunsOn::Task(word)) = self.intake.get() {
            drop(word.take());
        }
    }

    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    // ---------------------------------------------------------------- asking

    /// Whether one more input may be pulled after `pulled` of them; `open` bytes are in the open batch.
    ///
    /// An input is always allowed when nothing else is under way: a record larger than `max_bytes`
    /// travels alone rather than never.
    pub(crate) fn may_pull(&self, pulled: u64, open: usize) -> bool {
        let (yielded, spent) = self.look_at_progress();
        self.allows(pulled, open, yielded, spent)
    }

    /// Whether an intake may pull that remembers this much. If not, it may all the same.
    #[inline]
    pub(super) fn may_pull_at(&self, pace: &Pace, pulled: u64, open: usize) -> bool {
        pulled < pace.credited && self.has_room(open, pace.spent)
    }

    #[inline]
    fn allows(&self, pulled: u64, open: usize, yielded: u64, spent: usize) -> bool {
        // A drained feed counts a packet twice that it takes back and writes again.
        let ahead = pulled.saturating_sub(yielded);
        ahead == 0 || (ahead < self.window && self.has_room(open, spent))
    }

    #[inline]
    fn has_room(&self, open: usize, spent: usize) -> bool {
        let held = self.held.load(SeqCst).wrapping_sub(spent);
        held.saturating_add(open) < self.max_bytes
    }

    /// Packets yielded and bytes spent, to be read before what is held.
    fn look_at_progress(&self) -> (u64, usize) {
        (self.progress.yielded.load(SeqCst), self.progress.spent.load(SeqCst))
    }

    /// The same, to be remembered.
    fn remember(&self, pace: &mut Pace) -> u64 {
        let (yielded, spent) = self.look_at_progress();
        (pace.credited, pace.spent) = (yielded.saturating_add(self.window), spent);
        yielded
    }

    fn credits(&self, pulled: u64, yielded: u64) -> u64 {
        yielded.saturating_add(self.window).saturating_sub(pulled)
    }

    /// Intake: sleeps until an input may be pulled, or the feed is stopped.
    ///
    /// `open` counts the bytes of the open batch, as long as nobody has taken it and counted them.
    pub(crate) fn wait_to_pull(&self, pace: &mut Pace, pulled: u64, open: impl Fn() -> usize) {
        // The clock is read where it has to be: it starts with the first look at it.
        let start = Cell::new(None);
        let now = || match start.get() {
            None => {
                start.set(Some(Instant::now()));
                Duration::ZERO
            }
            Some(start) => start.elapsed(),
        };
        let mut first = true;
        while !self.poll_pull(pace, pulled, &open, now) {
            if self.is_stopped() {
                return;
            }
            match pace.deadline() {
                None => thread::park(),
                Some(until) if std::mem::take(&mut first) => thread::park_timeout(until),
                Some(until) => thread::park_timeout(until.saturating_sub(now())),
            }
        }
    }

    /// Whether one more may be pulled after `pulled`; if not, the next change for the better is called out. Never
    /// blocks. A caller asks again when it is called, and at the [deadline](Pace::deadline).
    pub(crate) fn poll_pull(
        &self,
        pace: &mut Pace,
        pulled: u64,
        open: impl Fn() -> usize,
        now: impl Fn() -> Duration,
    ) -> bool {
        let mut yielded = self.remember(pace);
        let waited = !matches!(pace.wait, Wait::No);
        match pace.wait {
            Wait::No => {
                let lingers = self.bulk > 1 && pace.left_out == 0;
                let enough = if lingers { self.bulk } else { 1 };
                let credits = self.credits(pulled, yielded);
                if credits >= enough && self.allows(pulled, open(), yielded, pace.spent) {
                    pace.go(credits, self.bulk.min(CREDITS_THAT_PAY));
                    return true;
                }
                pace.wait = if lingers {
                    Wait::Lingers(now().saturating_add(LINGER))
                } else {
                    Wait::Sleeps { in_vain: false }
                };
            }
            Wait::Lingers(until) => {
                if lock(&self.puller).is_none() {
                    // It was woken: there is enough, or somebody knows better than to linger.
                    pace.wait = Wait::Sleeps { in_vain: false };
                } else if now() >= until {
                    pace.wait = Wait::Sleeps { in_vain: true };
                }
            }
            Wait::Sleeps { .. } => {}
        }
        if waited && matches!(pace.wait, Wait::Sleeps { .. }) {
            // It was woken for this, as a rule: there is no need to say again that it sleeps.
            let credits = self.credits(pulled, yielded);
            if credits > 0 && self.allows(pulled, open(), yielded, pace.spent) {
                self.wake_up();
                pace.go(credits, self.bulk.min(CREDITS_THAT_PAY));
                return true;
            }
        }
        let lingers = matches!(pace.wait, Wait::Lingers(_));
        let look_at = self.sleep_for_credit(pulled, lingers);
        yielded = self.remember(pace);
        if yielded < look_at {
            pace.for_bytes = false;
            return false;
        }
        if !self.allows(pulled, open(), yielded, pace.spent) {
            self.sleep_for_bytes(pulled, lingers);
            yielded = self.remember(pace);
            if !self.allows(pulled, open(), yielded, pace.spent) {
                pace.for_bytes = true;
                return false;
            }
        }
        self.wake_up();
        pace.go(self.credits(pulled, yielded), self.bulk.min(CREDITS_THAT_PAY));
        true
    }

    /// The same for a task, which takes what comes in the same polls in which it pulls. So it finds credit by itself, and
    /// is called only for room, and never lingers, having no clock. `None` if it has no credit, or else whether there is
    /// room.
    #[cfg(any(test, feature = "async"))]
    pub(super) fn poll_room(
        &self,
        pace: &mut Pace,
        pulled: u64,
        open: impl Fn() -> usize,
    ) -> Option<bool> {
        let mut yielded = self.remember(pace);
        if self.credits(pulled, yielded) == 0 {
            return None;
        }
        if !self.allows(pulled, open(), yielded, pace.spent) {
            self.sleep_for_bytes(pulled, false);
            yielded = self.remember(pace);
            if !self.allows(pulled, open(), yielded, pace.spent) {
                return Some(false);
            }
        }
        if self.short_of_bytes.load(SeqCst) {
            self.wake_up();
        }
        Some(true)
    }

    /// The puller is about to sleep, or to linger, for want of credit. Says until which output.
    fn sleep_for_credit(&self, pulled: u64, lingers: bool) -> u64 {
        let first = pulled.saturating_add(1).saturating_sub(self.window);
        let more = if lingers && first > 0 { self.bulk - 1 } else { 0 };
        let until = first.saturating_add(more);
        let mut puller = lock(&self.puller);
        *puller = Some(Puller { first, last: pulled });
        if self.short_of_bytes.load(SeqCst) {
            self.short_of_bytes.store(false, SeqCst);
        }
        self.look_at.store(until, SeqCst);
        until
    }

    /// The puller has credit, but no room. Any output may make some; while it lingers, the outlet looks only
    /// when it is done with what it has in hand.
    fn sleep_for_bytes(&self, pulled: u64, lingers: bool) {
        let mut puller = lock(&self.puller);
        *puller = Some(Puller { first: 0, last: pulled });
        self.short_of_bytes.store(true, SeqCst);
        self.look_at.store(if lingers { pulled } else { 0 }, SeqCst);
    }

    /// The puller does not sleep. Says whether it did.
    fn wake_up(&self) -> bool {
        self.takes_off(&mut lock(&self.puller))
    }

    /// The same, under the lock. Who does not sleep has nothing there.
    fn takes_off(&self, puller: &mut Option<Puller>) -> bool {
        let slept = puller.take().is_some();
        if slept {
            self.look_at.store(NEVER, SeqCst);
            if self.short_of_bytes.load(SeqCst) {
                self.short_of_bytes.store(false, SeqCst);
            }
        }
        slept
    }

    // ---------------------------------------------------------------- giving

    /// Outlet: so many packets have been yielded since the start, and so many bytes were held for them.
    #[inline]
    pub(crate) fn publish(&self, packets: u64, bytes: usize) {
        self.progress.spent.store(bytes, Relaxed);
        self.progress.yielded.store(packets, SeqCst);
        if packets >= self.look_at.load(SeqCst) {
            self.look();
        }
    }

    /// Outlet: done with a span. Says whether this brought what is held under the limit, as much having been
    /// spent [before](Gate::publish) it.
    pub(crate) fn span_is_done(&self, spent_before: usize) -> bool {
        if self.short_of_bytes.load(SeqCst) {
            self.look();
        }
        let spent = self.progress.spent.load(Relaxed);
        let held = self.held.load(SeqCst);
        spent != spent_before
            && held.wrapping_sub(spent_before) >= self.max_bytes
            && held.wrapping_sub(spent) < self.max_bytes
    }

    /// The consumer sleeps, or is about to: the puller does not linger if it has what it sleeps for.
    pub(crate) fn settle(&self) {
        if self.look_at.load(SeqCst) != NEVER {
            self.look();
        }
    }

    /// Wakes the puller, if it sleeps and has what it sleeps for.
    #[cold]
    fn look(&self) {
        let mut puller = lock(&self.puller);
        let Some(Puller { first, last }) = *puller else { return };
        let (yielded, spent) = self.look_at_progress();
        let is_enough = if self.short_of_bytes.load(SeqCst) {
            yielded >= last || self.has_room(0, spent)
        } else {
            yielded >= first
        };
        if is_enough && self.takes_off(&mut puller) {
            drop(puller);
            self.unpark();
        }
    }

    fn rouse(&self) {
        if self.wake_up() {
            self.unpark();
        }
    }

    fn unpark(&self) {
        match self.intake.get() {
            Some(RunsOn::Thread(intake)) => intake.unpark(),
            #[cfg(any(test, feature = "async"))]
            Some(RunsOn::Task(word)) => word.wake(),
            None => self.executor.wake(),
        }
    }

    /// What an intake without a thread does in the place of [`enter`](Gate::enter): it does not park, and asks
    /// whether it [sleeps](Gate::puller_sleeps).
    #[cfg(test)]
    pub(crate) fn is_pulled_without_a_thread(&self) {
        let _ = self.intake.set(RunsOn::Thread(thread::current()));
    }

    /// Whether the one that pulls sleeps, or lingers, and was not called since.
    #[cfg(test)]
    pub(crate) fn puller_sleeps(&self) -> bool {
        lock(&self.puller).is_some()
    }

    /// The same as [`publish`](Gate::publish) where the caller [releases](Gate::release) the bytes.
    #[cfg(test)]
    pub(crate) fn yielded(&self, packets: u64) {
        self.publish(packets, self.progress.spent.load(SeqCst));
    }

    pub(crate) fn total_yielded(&self) -> u64 {
        self.progress.yielded.load(SeqCst)
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
        let spent = self.progress.spent.load(SeqCst);
        let before = self.held.fetch_sub(bytes, SeqCst).wrapping_sub(spent);
        debug_assert!(before >= bytes, "released more than was held");
        if self.short_of_bytes.load(SeqCst) && !self.is_full() {
            self.rouse();
        }
        before >= self.max_bytes && before - bytes < self.max_bytes
    }

    /// Bytes held. Never less than there are.
    pub(crate) fn held(&self) -> usize {
        // In this order: what was spent had been counted in before.
        let spent = self.progress.spent.load(SeqCst);
        self.held.load(SeqCst).wrapping_sub(spent)
    }

    /// Whether more is held than may be.
    pub(crate) fn is_full(&self) -> bool {
        self.held() >= self.max_bytes
    }

    /// Whether the one that pulls sleeps at this gate, or lingers there.
    pub(crate) fn holds_puller(&self) -> bool {
        self.look_at.load(SeqCst) != NEVER
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
    pub(super) fn inside_outlet(&self, upstream: &Arc<Self>) -> Inside<'_> {
        self.link.enter(upstream);
        self.inside_feed()
    }

    // ---------------------------------------------------------------- the executor

    /// Whatever the executor waits for.
    pub(crate) fn wake_executor(&self) {
        self.executor.wake();
    }

    /// Outlet: nobody wants anything any more.
    pub(crate) fn drop_feed(&self) {
        // In this order: an executor that saw the intake stop first would take it for the input's end.
        self.dropped.store(true, SeqCst);
        self.executor.wake();
        self.stop();
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(SeqCst)
    }

    /// See [`Executor::assist`].
    pub(crate) fn assist(&self) -> bool {
        self.executor.assist()
    }

    /// A thread that assists is to be told of news; see [`chain`](crate::window::chain).
    pub(crate) fn offer(&self, helper: &Thread) {
        self.link.offer(helper);
    }

    /// There is something new to do: for a thread that assists.
    pub(crate) fn call_helper(&self) {
        self.link.call();
    }

    /// The feed that this one waits for.
    pub(crate) fn upstream(&self) -> Option<Arc<Self>> {
        self.link.upstream()
    }

    // ---------------------------------------------------------------- joins

    pub(super) fn is_inside_feed(&self) -> bool {
        self.inside_feed.load(SeqCst) > 0
    }

    /// The intake is about to wait for the threads of another feed. `None` if they wait for it, which they do if it
    /// is its own.
    pub(super) fn about_to_join(self: &Arc<Self>, other: &Arc<Self>) -> Option<Joining<'_>> {
        *lock(&self.joins) = Some(Arc::clone(other));
        let joining = Joining { puller: self, _inside: self.inside_feed() };
        let mut seen: Vec<Arc<Self>> = Vec::new();
        let mut next = Some(Arc::clone(other));
        while let Some(gate) = next {
            if Arc::ptr_eq(&gate, self) || seen.iter().any(|seen| Arc::ptr_eq(seen, &gate)) {
                return None;
            }
            next = lock(&gate.joins).clone();
            seen.push(gate);
        }
        Some(joining)
    }

    pub(super) fn has_joined(&self) {
        let other = lock(&self.joins).take();
        drop(other);
    }
}

/// See [`Gate::inside_feed`].
#[derive(Debug)]
pub(crate) struct Inside<'a>(&'a Gate);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.link.leave();
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

    /// The puller, on a clock of its own.
    struct Pulling<'a> {
        gate: &'a Gate,
        pace: Pace,
        now: Duration,
    }

    impl Pulling<'_> {
        fn poll(&mut self, pulled: u64) -> bool {
            let now = self.now;
            self.gate.poll_pull(&mut self.pace, pulled, || 0, || now)
        }

        fn lingers(&self) -> bool {
            self.pace.deadline().is_some()
        }

        /// The time for which it lingers is over.
        fn linger(&mut self) {
            self.now = self.pace.deadline().expect("it lingers");
        }
    }

    /// A gate, and how often the puller there has been called.
    fn called(window: u64, max_bytes: usize) -> (Gate, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let executor = move || {
            count.fetch_add(1, SeqCst);
        };
        (Gate::attached(window, max_bytes, executor), calls)
    }

    #[test]
    fn who_waits_elsewhere_is_called_once_for_each_time_it_asked() {
        let (gate, calls) = called(2, 100);
        let mut pulling = Pulling { gate: &gate, pace: Pace::new(), now: Duration::ZERO };
        assert!(pulling.poll(1));
        gate.yielded(1);
        assert_eq!(calls.load(SeqCst), 0, "nobody waited");
        assert!(!pulling.poll(3));
        gate.yielded(2);
        gate.yielded(3);
        assert_eq!(calls.load(SeqCst), 1);
        gate.hold(150);
        assert!(pulling.poll(3) && !pulling.poll(4));
        gate.release(100);
        assert_eq!(calls.load(SeqCst), 2);
    }

    #[test]
    fn credits_gather_while_whoever_pulls_lingers_and_then_the_first_is_called_out() {
        let (gate, calls) = called(40, usize::MAX);
        let mut pulling = Pulling { gate: &gate, pace: Pace::new(), now: Duration::ZERO };
        assert!(!pulling.poll(40) && pulling.lingers());
        gate.yielded(9);
        assert!(!pulling.poll(40), "called for something else, it goes on lingering");
        assert_eq!(calls.load(SeqCst), 0);
        gate.yielded(10);
        assert!(calls.load(SeqCst) == 1 && pulling.poll(40));
        // The time is over before a quarter of the window has come together.
        assert!(!pulling.poll(50) && pulling.lingers());
        pulling.linger();
        assert!(!pulling.poll(50) && !pulling.lingers());
        gate.yielded(11);
        assert!(calls.load(SeqCst) == 2 && pulling.poll(50));
    }

    #[test]
    fn a_consumer_that_sleeps_ends_the_lingering_if_there_is_a_credit() {
        let (gate, calls) = called(80, usize::MAX);
        let mut pulling = Pulling { gate: &gate, pace: Pace::new(), now: Duration::ZERO };
        assert!(!pulling.poll(80) && pulling.lingers());
        gate.settle();
        assert_eq!(calls.load(SeqCst), 0, "there is none");
        gate.yielded(1);
        gate.settle();
        assert!(calls.load(SeqCst) == 1 && pulling.poll(80));
    }

    #[test]
    fn lingering_that_does_not_pay_is_left_out_more_and_more_often_until_it_would_pay() {
        let (gate, _) = called(800, usize::MAX);
        let mut pulling = Pulling { gate: &gate, pace: Pace::new(), now: Duration::ZERO };
        let mut lingered = Vec::new();
        let mut pulled = 800;
        for k in 0..64 {
            assert!(!pulling.poll(pulled));
            if pulling.lingers() {
                lingered.push(k);
                pulling.linger();
                assert!(!pulling.poll(pulled));
            }
            gate.yielded(pulled - 800 + 1);
            assert!(pulling.poll(pulled));
            pulled += 1;
        }
        assert_eq!(lingered, [0, 2, 5, 10, 19, 36]);
        // Credits come by the dozen.
        assert!(!pulling.poll(pulled) && !pulling.lingers());
        gate.yielded(pulled - 800 + 12);
        assert!(pulling.poll(pulled));
        pulled += 12;
        assert!(!pulling.poll(pulled) && pulling.lingers());
    }

    #[test]
    fn bytes_that_are_spent_make_room_one_output_at_a_time_for_whoever_sleeps() {
        let (gate, calls) = called(80, 100);
        let mut pulling = Pulling { gate: &gate, pace: Pace::new(), now: Duration::ZERO };
        gate.hold(130);
        assert!(!pulling.poll(8) && pulling.lingers());
        gate.publish(1, 10);
        assert!(!gate.span_is_done(0), "there is no room yet");
        pulling.linger();
        assert!(!pulling.poll(8));
        gate.publish(2, 20);
        gate.publish(3, 30);
        assert_eq!((calls.load(SeqCst), gate.held()), (0, 100));
        gate.publish(4, 40);
        assert!(calls.load(SeqCst) == 1 && pulling.poll(8));
        assert!(gate.span_is_done(0) && !gate.span_is_done(40));
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
