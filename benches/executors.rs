//! A function in threads, against others who do that: `cargo bench --bench executors [-- --quick]
//! [NAME PART]...`.
//!
//! The same items through the same function on the same number of threads: an ordered map of this crate
//! against pariter's ordered `parallel_map` and against rayon's `par_bridge`, which keeps no order and
//! bounds nothing. A task computes for a set time without a clock, so that tiny ones are not mostly
//! clock. A ratio is of items per second: above 1 this crate is faster. Every clock starts before the
//! threads are there and stops with the last value.

mod common;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use common::harness::{Bench, K_PER_S, PLAIN, Side, Unit};
use pariter::IteratorExt;
use rayon::iter::{ParallelBridge, ParallelIterator};
use subfeed::FeedExt;

/// Nanoseconds of overhead for each item.
const NANOS: Unit = Unit { name: "ns", scale: 1e-9 };
const WINDOW: usize = 1_000;

fn main() {
    let mut bench = Bench::from_args("executors");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    against_others(&mut bench, threads);
    overhead(&mut bench, threads);
    paused(&mut bench, threads);
    bench.finish();
}

/// A computation of a certain length.
#[derive(Clone, Copy)]
struct Task {
    rounds: u64,
}

impl Task {
    /// About as long as this, on a processor that does nothing else.
    fn of(time: Duration) -> Self {
        const PROBE: u64 = 2_000_000;
        // The fastest of several: the others were interrupted.
        let fastest = (0..5).map(|_| {
            let start = Instant::now();
            black_box(Self { rounds: PROBE }.run(1));
            start.elapsed()
        });
        let fastest = fastest.min().expect("five of them").as_secs_f64();
        Self { rounds: (time.as_secs_f64() / fastest * PROBE as f64) as u64 }
    }

    #[inline]
    fn run(self, seed: u64) -> u64 {
        let mut x = seed | 1;
        for _ in 0..self.rounds {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
        }
        x
    }
}

/// Items per second of something that takes them all.
fn rate(items: u64, run: impl FnOnce() -> u64) -> f64 {
    let start = Instant::now();
    black_box(run());
    items as f64 / start.elapsed().as_secs_f64()
}

fn sum(values: impl Iterator<Item = u64>) -> u64 {
    values.fold(0, u64::wrapping_add)
}

fn by_subfeed(task: Task, items: u64, threads: usize) -> f64 {
    rate(items, || sum((0..items).feed_threads_ordered(move |n| task.run(n), threads, WINDOW)))
}

fn by_pariter(task: Task, items: u64, threads: usize) -> f64 {
    rate(items, || {
        let map = (0..items).parallel_map_custom(
            |options| options.threads(threads).buffer_size(WINDOW),
            move |n| task.run(n),
        );
        sum(map)
    })
}

fn by_par_bridge(task: Task, items: u64) -> f64 {
    rate(items, || (0..items).par_bridge().map(|n| task.run(n)).reduce(|| 0, u64::wrapping_add))
}

fn against_others(bench: &mut Bench, threads: usize) {
    for (name, time, full, quick) in [
        ("1us", Duration::from_micros(1), 400_000, 100_000),
        ("10us", Duration::from_micros(10), 60_000, 20_000),
        ("1ms", Duration::from_millis(1), 600, 200),
    ] {
        let items = bench.amount(full, quick);
        let task = Task::of(time);
        bench.pair(
            &format!("feed_threads_ordered_{name}_over_pariter"),
            Side::new("subfeed", K_PER_S, || by_subfeed(task, items, threads)),
            Side::new("pariter", K_PER_S, || by_pariter(task, items, threads)),
        );
        bench.pair(
            &format!("feed_threads_ordered_{name}_over_par_bridge"),
            Side::new("subfeed", K_PER_S, || by_subfeed(task, items, threads)),
            Side::new("par_bridge", K_PER_S, || by_par_bridge(task, items)),
        );
    }
}

/// What an item costs when its task costs nothing: wall time of the whole stream for each item.
fn overhead(bench: &mut Bench, threads: usize) {
    let items = bench.amount(2_000_000, 500_000);
    bench.alone("feed_threads_ordered_overhead", NANOS, || {
        by_subfeed(Task { rounds: 0 }, items, threads).recip()
    });
    let items = items / 8;
    bench.alone("feed_threads_ordered_overhead_window_16", NANOS, || {
        let feed = (0..items).feed_threads_ordered(|n| n, threads, 16);
        rate(items, || sum(feed)).recip()
    });
}

/// How many inputs are pulled when nobody takes a value, with a window of 1,000.
fn paused(bench: &mut Bench, threads: usize) {
    let pulled = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&pulled);
    let source = (0u64..).inspect(move |_| {
        count.fetch_add(1, SeqCst);
    });
    let feed = source.feed_threads_ordered(|n| n, threads, WINDOW);
    // Nothing tells that no more is pulled but that nothing comes: this is a figure, not a test.
    let mut before = u64::MAX;
    while before != pulled.load(SeqCst) {
        before = pulled.load(SeqCst);
        std::thread::sleep(Duration::from_millis(100));
    }
    bench.value("pulled_while_paused", before as f64, PLAIN);
    drop(feed);
}
