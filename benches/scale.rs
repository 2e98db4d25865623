//! How costs grow with the number of workers and the size of the parent: `cargo bench --bench scale
//! [-- --quick] [NAME PART]...`. Every figure comes from processes of its own.
//!
//! - `cpu_per_record_1000_over_8`: processor time of this process per record, 1,000 workers and a window
//!   of 100,000 over 8 workers and a window of 800. The workers sleep 20 ms for each record, so that all
//!   of them are needed; start-up is left out. `least_share_of_1000` is what the worker that did least
//!   did of its even share.
//! - `memory_per_idle_worker`: what 1,000 workers that have answered and wait add to the resident
//!   memory of this process, each.
//! - `start_64_1gib_over_16mib`: from the call until 64 workers run, from a parent with that much
//!   resident memory.

mod common;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::baselines;
use common::fresh;
use common::harness::{Bench, CpuTime, MICROS, MILLIS, PLAIN, Side, Unit, resident_memory};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use subfeed::codec::{AsBytes, Decode};
use subfeed::{FeedExt, Template};

const MANY: u64 = 1_000;
/// Four descriptors each, and a few.
const DESCRIPTORS: u64 = 4 * MANY + 200;
/// Bytes, shown in KiB.
const KIB: Unit = Unit { name: "KiB", scale: 1_024.0 };

fn main() {
    baselines::serve_if_asked();
    fresh::serve_if_asked(&[("cpu", cpu), ("idle", idle), ("start", start)]);
    let mut bench = Bench::from_args("scale");
    let enough = raise_descriptors() >= DESCRIPTORS;
    cpu_per_record(&mut bench, enough);
    idle_workers(&mut bench, enough);
    starting(&mut bench);
    bench.finish();
}

/// As many descriptors as we may have; how many that is.
fn raise_descriptors() -> u64 {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files");
    let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files").0
}

const TOO_FEW: &str = "the hard limit of open files is too low for 1,000 workers (ulimit -Hn)";

// ---------------------------------------------------------------------------------------------
// Processor time

fn cpu_per_record(bench: &mut Bench, enough: bool) {
    let name = "cpu_per_record_1000_over_8";
    if !enough {
        return bench.missing(name, TOO_FEW);
    }
    let records = bench.amount(100_000, 50_000);
    let mut least: f64 = 1.0;
    let few = bench.amount(2_000, 1_000);
    let measured = bench.pair(
        name,
        Side::new("1,000 workers", MICROS, || {
            let found = fresh::run("cpu", &[MANY, records]);
            least = least.min(found.get("least_share"));
            found.get("cpu_per_record")
        }),
        Side::new("8 workers", MICROS, || fresh::run("cpu", &[8, few]).get("cpu_per_record")),
    );
    if measured.is_some() {
        bench.value("least_share_of_1000", least, PLAIN);
    }
}

/// Children that sleep for each record, and the worker's number as the reply.
fn sleepers() -> Template<AsBytes, impl Decode<Output = usize>> {
    let (program, (key, value)) = baselines::sleeper_command();
    Template::new(program).env(key, value).decode(|reply| reply.worker())
}

fn nap() -> &'static [u8] {
    baselines::sleep_request(0, Duration::from_millis(20)).leak()
}

/// Processor time per record with so many workers and a hundred times the window.
fn cpu(numbers: &[u64]) {
    let (workers, records) = (numbers[0] as usize, numbers[1]);
    let source = std::iter::repeat(nap());
    let mut feed = source.feed_subprocesses_ordered(sleepers(), workers, 100 * workers);
    let mut counts = vec![0_u64; workers];
    let mut take = |counts: &mut [u64], n: u64| {
        for _ in 0..n {
            counts[feed.next().expect("the input is endless").expect("an answer")] += 1;
        }
    };
    // Until every worker is there and has found its depth.
    while counts.iter().any(|count| *count < 5) {
        take(&mut counts, workers as u64);
    }
    counts.fill(0);
    let before = CpuTime::of_self();
    take(&mut counts, records);
    let used = CpuTime::of_self().since(before);
    let least = counts.iter().min().copied().unwrap_or(0);
    fresh::tell("cpu_per_record", used.total().as_secs_f64() / records as f64);
    fresh::tell("least_share", (least * workers as u64) as f64 / records as f64);
}

// ---------------------------------------------------------------------------------------------
// Memory

fn idle_workers(bench: &mut Bench, enough: bool) {
    let name = "memory_per_idle_worker";
    if !bench.wants(name) {
        return;
    }
    if !enough {
        return bench.missing(name, TOO_FEW);
    }
    let many = fresh::run("idle", &[MANY]).get("resident");
    let one = fresh::run("idle", &[1]).get("resident");
    bench.value(name, (many - one) / (MANY - 1) as f64, KIB);
}

/// Resident memory with so many workers that have answered and have nothing to do.
fn idle(numbers: &[u64]) {
    let workers = numbers[0] as usize;
    let (give, given) = mpsc::channel();
    let mut feed = given.into_iter().feed_subprocesses_ordered(sleepers(), workers, 100 * workers);
    let mut answered = vec![false; workers];
    let record = nap();
    while answered.iter().any(|answered| !answered) {
        for _ in 0..5 * workers {
            give.send(record).expect("the feed listens");
        }
        for _ in 0..5 * workers {
            answered[feed.next().expect("a reply").expect("an answer")] = true;
        }
    }
    fresh::tell("resident", resident_memory() as f64);
}

// ---------------------------------------------------------------------------------------------
// Starting

fn starting(bench: &mut Bench) {
    let started = |mib: u64| move || fresh::run("start", &[mib, 64]).get("seconds");
    bench.pair(
        "start_64_1gib_over_16mib",
        Side::new("1 GiB", MILLIS, started(1024)),
        Side::new("16 MiB", MILLIS, started(16)),
    );
}

/// From the call until so many workers run, with so many MiB resident.
fn start(numbers: &[u64]) {
    let (mib, workers) = (numbers[0] as usize, numbers[1]);
    let ballast = vec![1_u8; mib << 20];
    let (give, given) = mpsc::channel::<&'static str>();
    let start = Instant::now();
    let feed =
        given.into_iter().feed_subprocesses_ordered(Template::new("cat"), workers as usize, 1_000);
    let monitor = feed.monitor();
    while monitor.snapshot().starts < workers {
        std::thread::sleep(Duration::from_micros(50));
    }
    fresh::tell("seconds", start.elapsed().as_secs_f64());
    drop(give);
    feed.finish().expect("every worker ends well");
    assert!(ballast.iter().step_by(4_096).all(|&byte| byte == 1), "it stayed");
}
