//! How close a feed comes to the pipe itself: `cargo bench --bench throughput [-- --quick]
//! [NAME PART]...`.
//!
//! The same bytes through the same number of `cat`s, by a feed and by the raw pipe of
//! `common/baselines.rs`, which cuts no record, keeps no order and copies nothing. A feed is given
//! single records and gives single records, each of which is looked at. Every clock starts before
//! the children are spawned and stops with the last reply.

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use common::baselines::{self, Latencies, Lines};
use common::feeds::Records;
use common::harness::{Bench, GB_PER_S, M_PER_S, MICROS, MILLIS, Side, pinned};
use subfeed::{FeedExt, Order, Template};

fn main() {
    let mut bench = Bench::from_args("throughput");
    over_the_raw_pipe(&mut bench);
    orders(&mut bench);
    latency(&mut bench);
    bench.finish();
}

fn over_the_raw_pipe(bench: &mut Bench) {
    for (suffix, lines, prefixed) in [
        ("", Lines::of(100), false),
        ("_16", Lines::of(16), false),
        ("_4096", Lines::of(4096), false),
        ("_64k_prefixed", Lines::length_prefixed(64 * 1024), true),
    ] {
        let count = lines.count_for(bench.amount(1 << 29, 1 << 27));
        let records = Records { lines, count, prefixed };
        bench.pair(
            &format!("feed_ordered{suffix}_over_raw_pipe"),
            Side::new("blocks", GB_PER_S, || records.in_blocks(Order::Input).bytes_per_s()),
            Side::new("raw pipe", GB_PER_S, || records.raw().bytes_per_s()),
        );
        bench.pair(
            &format!("feed_ordered_owned{suffix}_over_raw_pipe"),
            Side::new("owned", GB_PER_S, || records.owned().bytes_per_s()),
            Side::new("raw pipe", GB_PER_S, || records.raw().bytes_per_s()),
        );
    }
    // Small records are bounded by their number, not by their bytes.
    let lines = Lines::of(16);
    let count = lines.count_for(bench.amount(1 << 29, 1 << 27));
    let records = Records { lines, count, prefixed: false };
    bench.pair(
        "feed_ordered_16_million_per_raw_gb",
        Side::new("blocks", M_PER_S, || records.in_blocks(Order::Input).records_per_s()),
        Side::new("raw pipe", GB_PER_S, || records.raw().bytes_per_s()),
    );
    bench.pair(
        "feed_ordered_owned_16_million_per_raw_gb",
        Side::new("owned", M_PER_S, || records.owned().records_per_s()),
        Side::new("raw pipe", GB_PER_S, || records.raw().bytes_per_s()),
    );
}

fn orders(bench: &mut Bench) {
    let lines = Lines::of(100);
    let count = lines.count_for(bench.amount(1 << 29, 1 << 27));
    let records = Records { lines, count, prefixed: false };
    bench.pair(
        "unordered_over_ordered",
        Side::new("unordered", GB_PER_S, || records.in_blocks(Order::Completion).bytes_per_s()),
        Side::new("ordered", GB_PER_S, || records.in_blocks(Order::Input).bytes_per_s()),
    );
}

// ---------------------------------------------------------------------------------------------
// One record at a time

/// Round trips of a feed with a window of one: from the pulling of a record to its reply.
fn lockstep(record: &'static [u8], rounds: usize) -> Latencies {
    let warm_up = (rounds / 10).clamp(3, 1_000);
    let source = std::iter::repeat_n(record, rounds + warm_up);
    let mut feed = source.feed_subprocesses_ordered(Template::new("cat"), 1, 1);
    for _ in 0..warm_up {
        assert_eq!(feed.next().expect("a reply").expect("cat answers"), record);
    }
    let latencies = (0..rounds).map(|_| {
        let start = Instant::now();
        black_box(feed.next().expect("a reply").expect("cat answers"));
        start.elapsed()
    });
    Latencies(latencies.collect())
}

/// A source that gives a record every `pace`, and says when it did: the latency of a reply.
fn paced(record: &'static [u8], rounds: usize, pace: Duration) -> Latencies {
    let (say, given) = std::sync::mpsc::channel();
    let mut due = Instant::now();
    let source = (0..rounds + 3).map(move |_| {
        due += pace;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        say.send(Instant::now()).expect("somebody listens");
        record
    });
    let replies = source.feed_subprocesses_ordered(Template::new("cat"), 1, 100);
    let latencies = replies.map(|reply| {
        black_box(reply.expect("cat answers"));
        given.recv().expect("a reply comes after its record").elapsed()
    });
    Latencies(latencies.skip(3).collect())
}

/// From the call until the first reply.
fn first_reply(record: &'static [u8], workers: usize) -> Duration {
    let start = Instant::now();
    let source = std::iter::repeat_n(record, workers);
    let mut feed = source.feed_subprocesses_ordered(Template::new("cat"), workers, 100);
    black_box(feed.next().expect("a reply").expect("cat answers"));
    start.elapsed()
}

fn latency(bench: &mut Bench) {
    let record = Lines::of(100).record;
    let rounds = bench.amount(20_000, 5_000) as usize;
    let slow_rounds = bench.amount(100, 30) as usize;
    let cold = bench.amount(20, 10) as usize;
    let pace = Duration::from_millis(10);
    for (suffix, pin) in [("", true), ("_unpinned", false)] {
        let measured = |f: &dyn Fn() -> Latencies| if pin { pinned(f) } else { f() };
        bench.pair(
            &format!("lockstep_over_ping_pong{suffix}"),
            Side::new("buffer 1", MICROS, || measured(&|| lockstep(record, rounds)).median()),
            Side::new("ping-pong", MICROS, || {
                measured(&|| baselines::ping_pong(record, rounds)).median()
            }),
        );
        bench.pair(
            &format!("slow_input_over_ping_pong{suffix}"),
            Side::new("slow input", MICROS, || {
                measured(&|| paced(record, slow_rounds, pace)).median()
            }),
            Side::new("ping-pong", MICROS, || {
                measured(&|| baselines::ping_pong_paced(record, slow_rounds, pace)).median()
            }),
        );
        for workers in [1, 8] {
            let often = |f: fn(&'static [u8], usize) -> Duration| {
                Latencies((0..cold).map(|_| f(record, workers)).collect())
            };
            bench.pair(
                &format!("first_reply_{workers}_over_by_hand{suffix}"),
                Side::new("subfeed", MILLIS, || measured(&|| often(first_reply)).median()),
                Side::new("by hand", MILLIS, || {
                    measured(&|| often(baselines::first_reply)).median()
                }),
            );
        }
    }
}
