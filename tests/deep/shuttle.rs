//! The window under a model checker: random schedules of real code. `src/window` is compiled once more, as it is and with
//! the toy executor of its tests, on the checker's primitives. A lost wake-up is a deadlock, which the checker reports
//! with the schedule that leads to it.
#![allow(unused, unexpected_cfgs, unreachable_pub, missing_docs, missing_debug_implementations)]
#![allow(clippy::all)]

#[path = "../../src/template/codec.rs"]
mod codec;
#[path = "../../src/error/mod.rs"]
mod error;
#[path = "../../src/framing/mod.rs"]
mod framing;
#[path = "../../src/record/mod.rs"]
mod record;
#[path = "../../src/signal.rs"]
mod signal;
#[path = "../../src/tuning.rs"]
mod tuning;
#[path = "../../src/window/mod.rs"]
mod window;

mod template {
    pub(crate) use crate::codec;
}

/// In the place of `src/sync.rs`.
mod sync {
    pub use shuttle::sync::{Mutex, MutexGuard, atomic};
    pub use shuttle::thread_local;
    pub use std::sync::OnceLock;

    pub mod channel {
        pub use shuttle::sync::mpsc::{
            Receiver, RecvTimeoutError, SendError, SyncSender as Sender, TryRecvError,
            TrySendError, sync_channel as bounded,
        };

        /// Senders of one type, as crossbeam's are. No check sends as many, and the model makes something for each that
        /// it could hold, in every run.
        pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
            bounded(256)
        }
    }

    pub mod thread {
        use shuttle::rand::Rng;
        use std::time::Duration;

        pub use shuttle::thread::{Builder, JoinHandle, Thread, current, park, spawn, yield_now};

        /// There is no time in a model but that of the waits with a limit: it is over after some others have run, or
        /// the wait ends before it is.
        pub fn park_timeout(limit: Duration) {
            yield_now();
            if shuttle::rand::thread_rng().gen_bool(0.5) {
                super::CLOCK.with(|clock| clock.set(clock.get() + limit));
            }
        }
    }

    std::thread_local! {
        static CLOCK: std::cell::Cell<std::time::Duration> = const { std::cell::Cell::new(std::time::Duration::ZERO) };
    }

    #[derive(Clone, Copy, Debug)]
    pub struct Instant(std::time::Duration);

    impl Instant {
        pub fn now() -> Self {
            Self(CLOCK.with(std::cell::Cell::get))
        }
        pub fn elapsed(&self) -> std::time::Duration {
            Self::now().0 - self.0
        }
    }

    pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

pub use error::{BoxError, Error, ErrorKind};

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Poll, Waker};

use record::{PacketId, Requests};
use sync::atomic::{AtomicU64, Ordering::SeqCst};
use sync::{Mutex, channel, lock, thread};
use window::handover::Supply;
use window::joins::ExecutorThread;
use window::outlet::{Given, Order, Outlet};
use window::packet::{End, Outcome, Span};
use window::seam::{Bounds, Ends, attach};
use window::tests::{came, lengths, lengths_polled, next};
use window::toy::Lengths;
use window::waiter::Waiter;

type Feed = Outlet<Requests, Lengths>;

const ALL: usize = usize::MAX;

fn bounds(packets: usize, max_bytes: usize) -> Bounds {
    Bounds { order: Order::Input, ..Bounds::new(packets, max_bytes) }
}

/// Lines, and how many of them were pulled.
fn source(n: u64, pulled: &Arc<AtomicU64>) -> impl Iterator<Item = String> + Send + 'static {
    let pulled = Arc::clone(pulled);
    (0..n).map(move |n| {
        pulled.fetch_add(1, SeqCst);
        n.to_string()
    })
}

/// The toy answers with the length of the line and its end.
fn length(n: u64) -> usize {
    n.to_string().len() + 1
}

/// Every item comes through, in order, and no input is pulled before its time.
fn every_item(n: u64, packets: usize, max_bytes: usize) {
    let pulled = Arc::default();
    let mut feed = lengths(source(n, &pulled), bounds(packets, max_bytes));
    for k in 0..n {
        assert!(pulled.load(SeqCst) <= k + packets as u64, "pulled before output {k}");
        assert_eq!(next(&mut feed), Some((k, length(k))));
    }
    assert_eq!(next(&mut feed), None);
    assert_eq!(feed.gate().held(), 0);
}

/// The same for a task of an async runtime, which goes without waiting for anybody.
fn every_item_to_a_task(n: u64, packets: usize) {
    let mut feed = lengths(source(n, &Arc::default()), bounds(packets, ALL));
    shuttle::future::block_on(async move {
        for k in 0..=n {
            let polled = std::future::poll_fn(|context| {
                feed.poll_next(|| Waiter::Task(context.waker().clone())).map(came)
            });
            assert_eq!(polled.await, (k < n).then(|| (k, length(k))));
        }
        feed.detach();
    });
}

/// Lines that come one by one from another thread, as a stream of them would.
#[derive(Default)]
struct Lines {
    state: Mutex<(VecDeque<String>, bool, Option<Waker>)>,
}

impl Lines {
    fn change(&self, change: impl FnOnce(&mut VecDeque<String>, &mut bool)) {
        let waker = {
            let mut state = lock(&self.state);
            let (lines, ended, waker) = &mut *state;
            change(lines, ended);
            waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll_next(&self, waker: &Waker) -> Poll<Option<String>> {
        let mut state = lock(&self.state);
        match state.0.pop_front() {
            Some(line) => Poll::Ready(Some(line)),
            None if state.1 => Poll::Ready(None),
            None => {
                state.2 = Some(waker.clone());
                Poll::Pending
            }
        }
    }
}

/// A feed whose source is pulled by the task that takes what comes.
fn every_item_of_a_stream(n: u64, packets: usize, max_bytes: usize) {
    let lines: Arc<Lines> = Arc::default();
    let to_fill = Arc::clone(&lines);
    let producer = thread::spawn(move || {
        for n in 0..n {
            to_fill.change(|lines, _| lines.push_back(n.to_string()));
        }
        to_fill.change(|_, ended| *ended = true);
    });
    let bounds = Bounds { batches: usize::MAX, ..bounds(packets, max_bytes) };
    let (mut intake, mut feed) = lengths_polled(bounds);
    shuttle::future::block_on(async {
        let mut pulled = 0;
        for k in 0..=n {
            let polled = std::future::poll_fn(|context| {
                let waker = context.waker();
                let next = || {
                    assert!(pulled < k + packets as u64, "pulled before output {k}");
                    let next = lines.poll_next(waker);
                    pulled += u64::from(matches!(next, Poll::Ready(Some(_))));
                    next
                };
                intake
                    .poll(waker, next, || feed.poll_next(|| Waiter::Task(waker.clone())).map(came))
            });
            assert_eq!(polled.await, (k < n).then(|| (k, length(k))));
        }
        assert_eq!(feed.gate().held(), 0);
        feed.detach();
    });
    producer.join().unwrap();
}

/// The task goes after so many, in one way or the other, and everything ends.
fn a_task_goes(taken: u64, closes: bool) {
    let lines: Arc<Lines> = Arc::default();
    lines.change(|lines, _| lines.extend((0..10).map(|n| n.to_string())));
    let bounds = Bounds { batches: usize::MAX, ..bounds(3, ALL) };
    let (mut intake, mut feed) = lengths_polled(bounds);
    shuttle::future::block_on(async {
        for _ in 0..taken {
            std::future::poll_fn(|context| {
                let waker = context.waker();
                intake.poll(
                    waker,
                    || lines.poll_next(waker),
                    || feed.poll_next(|| Waiter::Task(waker.clone())).map(drop),
                )
            })
            .await;
        }
        if closes {
            let closed = std::future::poll_fn(|context| {
                feed.poll_close(&Waiter::Task(context.waker().clone()))
            });
            closed.await;
            let (behind, is_parked) = feed.take_behind();
            let (told, is_told) = channel::bounded::<()>(1);
            behind.join_elsewhere(Arc::clone(feed.gate()), is_parked, told);
            assert!(is_told.recv().is_err(), "the sender goes");
        }
        feed.detach();
    });
}

/// The consumer waits elsewhere for the input that its credit lets through.
fn a_credit_is_never_withheld(outputs: u64, bounds: Bounds, room: usize) {
    let (pulled, seen) = channel::bounded(100);
    let source = (0..).map(move |n: u64| {
        let _ = pulled.send(n);
        "x".to_owned()
    });
    let mut feed = lengths(source, bounds);
    for _ in 0..room {
        seen.recv().unwrap();
    }
    for _ in 0..outputs {
        assert!(next(&mut feed).is_some());
        seen.recv().unwrap();
    }
}

/// The consumer goes away after so many, in one way or the other.
fn nobody_is_left_asleep(packets: usize, taken: u64, detaches: bool) {
    let mut feed = lengths(source(1_000, &Arc::default()), bounds(packets, ALL));
    for k in 0..taken {
        assert_eq!(next(&mut feed), Some((k, length(k))));
    }
    if detaches {
        feed.detach();
    }
}

/// A chain of two, of which the last is dropped after so many.
fn a_chain_goes(taken: usize) {
    let mut first = lengths(source(1_000, &Arc::default()), bounds(2, ALL));
    let between =
        std::iter::from_fn(move || next(&mut first).map(|(_, length)| length.to_string()));
    let mut last = lengths(between, bounds(2, ALL));
    for _ in 0..taken {
        assert!(next(&mut last).is_some());
    }
}

/// Each of the feeds is dropped by the source of the one before it, all at the same time.
fn feeds_that_drop_each_other(n: usize) {
    let shelves: Vec<Arc<Mutex<Option<Feed>>>> = (0..n).map(|_| Arc::default()).collect();
    let together = Arc::new(shuttle::sync::Barrier::new(n + 1));
    let (gone, are_gone) = channel::bounded(n);
    for i in 0..n {
        let (next, together) = (Arc::clone(&shelves[(i + 1) % n]), Arc::clone(&together));
        let gone = gone.clone();
        let source = (0..100u64).map(move |n: u64| {
            if n == 1 {
                together.wait();
                let feed = lock(&next).take();
                drop(feed);
                gone.send(()).unwrap();
            }
            n.to_string()
        });
        let feed = lengths(source, bounds(3, ALL));
        *lock(&shelves[i]) = Some(feed);
    }
    together.wait();
    (0..n).for_each(|_| are_gone.recv().unwrap());
}

/// Several threads answer, each on a shelf of its own, one packet at a time, and only when the one before has been
/// yielded.
fn values_on_shelves(threads: usize, n: usize, order: Order) {
    let bounds = Bounds { order, shelves: threads, ..Bounds::new(ALL, ALL) };
    let Ends::<Requests, Lengths> { outbox, mut outlet, .. } = attach(bounds, || {});
    let left = Arc::new(AtomicU64::new(threads as u64));
    let yielded: Vec<_> = (0..threads)
        .map(|shelf| {
            let (yielded, is_yielded) = channel::bounded(n);
            let (outbox, left) = (Arc::clone(&outbox), Arc::clone(&left));
            thread::spawn(move || {
                for packet in (shelf..n).step_by(threads) {
                    outbox.leave_value(shelf, PacketId(packet as u64), packet);
                    is_yielded.recv().unwrap();
                }
                if left.fetch_sub(1, SeqCst) == 1 {
                    outbox.end(End::default());
                }
            });
            yielded
        })
        .collect();
    // Without the yields of `next`, which let the others run where they could go wrong.
    let waiter = Waiter::this_thread();
    let mut all = Vec::new();
    loop {
        let packet = match outlet.poll_next(|| waiter.clone()) {
            Poll::Pending => {
                thread::park();
                continue;
            }
            Poll::Ready(None) => break,
            Poll::Ready(Some((_, Given::Reply(values)))) => values.pop_front().unwrap(),
            Poll::Ready(Some(other)) => panic!("{other:?}"),
        };
        all.push(packet);
        yielded[packet % threads].send(()).unwrap();
    }
    if order == Order::Completion {
        all.sort_unstable();
    }
    assert!(all.into_iter().eq(0..n));
}

fn check(name: &str, test: impl Fn() + Clone + Send + Sync + 'static) {
    print!("test {name} ... ");
    shuttle::check_random(test.clone(), 1_000);
    // Few preemptions at the worst of places find what many at random places do not.
    shuttle::check_pct(test, 1_000, 3);
    println!("ok");
}

/// Without the usual harness: it would also run the unit tests of the files compiled here, whose
/// primitives work only inside the model checker. A failed check panics.
fn main() {
    check("every_item_comes_through_with_the_smallest_window", || every_item(4, 1, ALL));
    check("every_item_comes_through_with_a_window_of_some", || every_item(9, 3, ALL));
    check("every_item_comes_through_with_a_window_that_lingers", || every_item(20, 8, ALL));
    check("every_item_comes_through_when_bytes_are_what_is_short", || every_item(6, 4, 3));
    check("every_item_comes_through_when_it_is_only_bytes", || every_item(3, 9, 1));
    check("an_empty_input_ends", || every_item(0, 2, ALL));
    check("every_item_comes_to_a_task", || every_item_to_a_task(6, 2));
    check("every_item_comes_to_a_task_with_a_window_that_lingers", || every_item_to_a_task(12, 8));
    check("every_item_of_a_stream_comes", || every_item_of_a_stream(6, 2, ALL));
    check("every_item_of_a_stream_comes_with_the_smallest_window", || {
        every_item_of_a_stream(4, 1, ALL);
    });
    check("every_item_of_a_stream_comes_with_a_window_of_some", || {
        every_item_of_a_stream(10, 5, ALL);
    });
    check("every_item_of_a_stream_comes_when_bytes_are_what_is_short", || {
        every_item_of_a_stream(6, 4, 3);
    });
    check("every_item_of_a_stream_comes_when_it_is_only_bytes", || every_item_of_a_stream(3, 9, 1));
    check("an_empty_stream_ends", || every_item_of_a_stream(0, 2, ALL));
    check("a_task_that_drops_its_feed_leaves_nobody_asleep", || a_task_goes(2, false));
    check("a_task_that_closes_its_feed_finds_it_ended", || a_task_goes(2, true));
    check("a_task_that_closes_its_feed_at_once_finds_it_ended", || a_task_goes(0, true));
    check("a_credit_is_never_withheld", || a_credit_is_never_withheld(6, bounds(8, ALL), 8));
    check("a_credit_is_never_withheld_with_the_smallest_window", || {
        a_credit_is_never_withheld(3, bounds(1, ALL), 1);
    });
    // An answered line counts for one byte.
    check("bytes_are_never_withheld", || a_credit_is_never_withheld(6, bounds(100, 4), 4));
    check("a_consumer_that_goes_away_leaves_nobody_asleep", || {
        nobody_is_left_asleep(3, 2, false);
    });
    check("a_consumer_that_goes_away_at_once_leaves_nobody_asleep", || {
        nobody_is_left_asleep(8, 0, false);
    });
    check("a_consumer_that_waits_for_nobody_leaves_nobody_asleep", || {
        nobody_is_left_asleep(3, 2, true);
    });
    check("a_chain_goes_with_its_last_feed", || a_chain_goes(2));
    check("a_chain_goes_with_its_last_feed_at_once", || a_chain_goes(0));
    check("a_feed_goes_that_its_own_source_drops", || feeds_that_drop_each_other(1));
    check("two_feeds_go_that_drop_each_other", || feeds_that_drop_each_other(2));
    check("three_feeds_go_that_drop_each_other", || feeds_that_drop_each_other(3));
    check("values_on_shelves_come_in_order", || values_on_shelves(2, 6, Order::Input));
    check("values_on_shelves_come", || values_on_shelves(3, 6, Order::Completion));
    println!("test result: ok");
}
