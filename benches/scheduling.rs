//! How little time is lost between records: `cargo bench --bench scheduling [-- --quick] [NAME PART]...`.
//!
//! Eight workers are children that sleep: records with service times from a Pareto distribution (1 ms
//! in the mean, fixed seed), and the same with one record of 100 times the mean a third of the way.
//! The ideal is the makespan of greedy list scheduling of the times *really taken*, which each child
//! measures and tells, so that a kernel that wakes late is nobody's fault. The workers are warm when
//! the clock starts.
//!
//! `by_hand` is a thread and a child per worker, each taking the next record when its child has
//! answered: no order, no window, nothing sent ahead. What it loses is the round trip.

mod common;

use std::collections::HashSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::baselines::{self, PARETO_SEED, Slept};
use common::harness::Bench;
use subfeed::{FeedExt, Order, Reply, Template};

const WORKERS: usize = 8;
const WINDOW: usize = 1_000;
const MEAN: Duration = Duration::from_millis(1);

fn main() {
    baselines::serve_if_asked();
    let mut bench = Bench::from_args("scheduling");
    let count = bench.amount(4_000, 2_000) as usize;
    let pareto = baselines::pareto_times(PARETO_SEED, count, MEAN);
    let mut one_slow = pareto.clone();
    one_slow[count / 3] = 100 * MEAN;
    for (kind, times) in [("pareto", &pareto), ("one_slow", &one_slow)] {
        for (order, suffix) in [(Order::Input, ""), (Order::Completion, "_unordered")] {
            over_ideal(&mut bench, &format!("makespan_{kind}{suffix}_over_ideal"), || {
                fed(times, order)
            });
        }
        over_ideal(&mut bench, &format!("makespan_{kind}_by_hand_over_ideal"), || {
            baselines::sleepers_by_hand(times, WORKERS)
        });
    }
    bench.finish();
}

/// A makespan over its own ideal: the median of several runs, with the spread in the table.
fn over_ideal(bench: &mut Bench, name: &str, mut run: impl FnMut() -> Slept) {
    bench.alone_as_ratio(name, || run().over_ideal(WORKERS));
}

/// The records through a feed whose workers have all answered before.
fn fed(times: &[Duration], order: Order) -> Slept {
    let (program, (key, value)) = baselines::sleeper_command();
    let template = Template::new(program)
        .env(key, value)
        .encode(|record: &(usize, Duration), request| {
            request.push(baselines::sleep_request(record.0, record.1));
        })
        .try_decode(|reply: Reply<'_>| {
            let slept = baselines::parse_sleep(&reply).ok_or("not what a sleeping child says")?;
            Ok((reply.worker(), slept))
        });
    let (give, given) = mpsc::channel::<(usize, Duration)>();
    let source = given.into_iter();
    let mut feed = source.feed(template).workers(WORKERS).buffer(WINDOW).order(order).start();
    let mut next = || feed.next().expect("a reply").expect("a sleeping child answers");

    // More at a time than the warm ones may hold, so that those which have not answered yet get theirs.
    let mut warm = HashSet::new();
    while warm.len() < WORKERS {
        for _ in 0..10 * WORKERS {
            give.send((usize::MAX, MEAN)).expect("the feed listens");
        }
        for _ in 0..10 * WORKERS {
            warm.insert(next().0);
        }
    }
    let start = Instant::now();
    for record in times.iter().copied().enumerate() {
        give.send(record).expect("the feed listens");
    }
    drop(give);
    let mut taken = vec![Duration::ZERO; times.len()];
    for _ in times {
        let (_, (id, time)) = next();
        taken[id] = time;
    }
    Slept { wall: start.elapsed(), taken }
}
