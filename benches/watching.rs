//! What it costs to watch a feed: `cargo bench --bench watching [-- --quick] [NAME PART]...`.
//!
//! Lines of 100 bytes through two `cat`s, one by one; the same with a timeline, with somebody who asks for every worker
//! ten times a second, and with a job log. What a line of the job log costs is only printed: it is meant for packets
//! that take far longer.

mod common;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use common::baselines::Lines;
use common::feeds::Records;
use common::harness::{Bench, GB_PER_S, MICROS, Side};
use subfeed::{FeedExt, Monitor, Template};

fn main() {
    let mut bench = Bench::from_args("watching");
    let lines = Lines::of(100);
    let count = lines.count_for(bench.amount(1 << 29, 1 << 27));
    let records = Records { lines, count, prefixed: false };
    bench.pair(
        "timeline_on_over_off",
        Side::new("on", GB_PER_S, || records.watched(Some(100_000), None).bytes_per_s()),
        Side::new("off", GB_PER_S, || records.watched(None, None).bytes_per_s()),
    );
    asked_often(&mut bench);
    job_log(&mut bench);
    bench.finish();
}

/// How long an answer about a thousand workers takes, in a feed that has nothing else to do.
fn asked_often(bench: &mut Bench) {
    let workers = bench.amount(1_000, 200);
    let name = format!("answer_about_{workers}_workers");
    if !bench.wants(&name) {
        return;
    }
    let workers = usize::try_from(workers).expect("a number of workers");
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let source = (0u64..).map(|n| n.to_string());
        let mut feed = source.feed(Template::new("cat")).workers(workers).buffer(10_000).start();
        let monitor = feed.monitor();
        let ended = &ended;
        scope.spawn(move || {
            while !ended.load(SeqCst) && feed.next().is_some() {
                thread::sleep(Duration::from_micros(100));
            }
        });
        while monitor.snapshot().starts < workers as u64 {
            thread::sleep(Duration::from_millis(10));
        }
        bench.alone(&name, MICROS, || answer(&monitor, workers));
        ended.store(true, SeqCst);
    });
}

fn answer(monitor: &Monitor, workers: usize) -> f64 {
    let start = Instant::now();
    assert_eq!(monitor.workers().len(), workers);
    start.elapsed().as_secs_f64()
}

/// What a line costs, by the whole time of a feed with a log less that of one without.
fn job_log(bench: &mut Bench) {
    let path = std::env::temp_dir().join(format!("subfeed-bench-{}.log", std::process::id()));
    let records = Records::of_lines(100, bench.amount(1 << 26, 1 << 24));
    bench.alone("job_log_line", MICROS, || {
        let with = records.watched(None, Some(&path)).wall.as_secs_f64();
        let without = records.watched(None, None).wall.as_secs_f64();
        // It is appended to.
        std::fs::remove_file(&path).expect("a log");
        (with - without) / records.count as f64
    });
}
