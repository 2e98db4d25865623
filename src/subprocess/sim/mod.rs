//! Deterministic simulation of the scheduler: simulated children, a simulated clock, schedules from seeds.
//!
//! # What is simulated
//! The event loop that ships, with its [`Scheduler`](super::scheduler::Scheduler), the gate, the hand-over and the outlet,
//! runs on an operating system ([`world`]) that is simulated:
//! - children ([`worker`], [`script`]) behind pipes of limited room: prompt, slow, bursty, withholding
//!   (replies or even requests) until a block is full or their stdin ends, leaving after k replies or unread,
//!   dying at any point, also while they start, hanging, answering too much, at any point, or too little, closing
//!   pipes early, ignoring the end of their stdin or SIGTERM, leaving a process behind that holds their outputs,
//!   failing to start, now and then or always, broken in one slot only; with a banner, READY, a preamble, last
//!   words on either side; with side channels, or a standard stream that leads elsewhere; with a thread
//!   beside them that sleeps, polls or reads; and sound tools that a close of their stdin harms;
//! - an intake ([`source`]) that trickles, bursts, pauses, refuses items or blocks for ever, and sleeps at the gate until
//!   that calls it; or the one that ships for blocks, on a [`reader`] that gives arbitrary pieces, is interrupted, errs
//!   in the middle and ends without a delimiter;
//! - a consumer ([`sink`]) that is fast, slow, rests, stops early, waits elsewhere than in `next()` or is dropped at
//!   any moment; that takes blocks; or that drains;
//! - a job log on a [`disk`] that is slow or full;
//! - a loop that is held up, exit statuses that nobody knows, looks that show nothing; and in a [`sweep`] every call of
//!   the system fails once.
//!
//! All [`options`] of a template and of the builder that have an effect on the swarm are drawn in combination, and an
//! option that is added does not compile before it is listed there, as drawn or with the reason why not. The faults
//! that were found elsewhere are schedules by [name](`named`).
//!
//! Sources, commands and functions, have schedules of their own, on the same loop (`source/solo/sim`,
//! `source/function/sim.rs`). Not simulated: panics of closures, the hand-overs' atomics (those are under a model checker), and what the kernel does.
//!
//! # What is checked ([`check`])
//! - after every step: each packet that arrived is in exactly one of the queues, sessions and outcomes; the queues are in
//!   order; the bytes that the gate counts are those that are there, and within the bound; nothing is written to
//!   a closed channel; no stdin is closed after half a request unless its reader was killed first;
//! - at every pull: the look-ahead;
//! - at every item: it comes once, in its turn, and is the right function of its request, or an error
//!   that the faults of the seed justify, with the attempts that it may have;
//! - of blocks: each record where it should be, and that the reader is not read on while whole records wait;
//! - in the job log: one line for each packet, with the figures of what became of it;
//! - where nothing comes back: what is accepted was read in full by exactly one child;
//! - liveness: as long as it is not finished something can move, and it ends within bounds;
//! - at the end: nobody is alive, no slot is taken, nothing is held, nothing is missing, and no more sessions were
//!   started than the settings and the packets account for.
//!
//! # By hand
//! ```text
//! SUBFEED_SEED=123 cargo test --lib sim::replay -- --nocapture       # one seed, with a trace
//! SUBFEED_SEED=123 SUBFEED_CALL=45 cargo test --lib sim::replay -- --nocapture       # with that call failing
//! SUBFEED_SCHEDULES=1000000 cargo test --release --lib sim::schedules
//! SUBFEED_SCHEDULES=10000000 cargo test --release --lib sim::options -- --nocapture  # the table of pairs
//! SUBFEED_SWEEP=200 cargo test --release --lib sim::sweep
//! tests/mutants/run                                                                  # whether it finds mistakes
//! .ci/coverage                                                                       # what it reaches
//! ```

mod check;
mod disk;
mod link;
mod named;
mod options;
mod play;
mod reader;
mod report;
mod rng;
mod schedule;
mod script;
mod sink;
mod source;
mod sweep;
mod worker;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use check::Failure;
use play::Play;
use report::Report;
pub(crate) use rng::{Rng, stir};

/// Runs one seed.
fn run(seed: u64, trace: bool) -> Result<Report, Failure> {
    caught(|| Play::new(seed, trace).run())
}

/// A panic is a failure like any other.
fn caught(play: impl FnOnce() -> Result<Report, Failure>) -> Result<Report, Failure> {
    let played = catch_unwind(AssertUnwindSafe(play));
    played.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Failure::new(format!("panic: {}", text.unwrap_or_default())))
    })
}

pub(crate) fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs many seeds on all cores; what failed, sorted, and the sum of all reports.
fn run_all(first: u64, many: u64) -> (Vec<(u64, String)>, Report) {
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    let at_work: Vec<AtomicU64> = (0..threads).map(|_| AtomicU64::new(u64::MAX)).collect();
    let work = |current: &AtomicU64| {
        let mut failures = Vec::new();
        let mut total = Report::default();
        loop {
            let seed = next.fetch_add(1, Relaxed);
            current.store(seed, Relaxed);
            if seed >= first + many || failures.len() > 20 {
                current.store(u64::MAX, Relaxed);
                return (failures, total);
            }
            match run(seed, false) {
                Ok(report) => total.add(report),
                Err(failure) => failures.push((seed, failure.0)),
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = at_work.iter().map(|current| scope.spawn(|| work(current))).collect();
        // A loop inside one step of the scheduler can only be seen from outside.
        let mut before = Vec::new();
        for wait in 1.. {
            std::thread::sleep(Duration::from_millis(50));
            if threads.iter().all(|thread| thread.is_finished()) {
                break;
            }
            if wait % 400 == 0 {
                let now: Vec<u64> = at_work.iter().map(|seed| seed.load(Relaxed)).collect();
                let mut stuck =
                    now.iter().filter(|seed| before.contains(*seed) && **seed != u64::MAX);
                if let Some(seed) = stuck.next() {
                    eprintln!("seed {seed} does not come back");
                    std::process::exit(101);
                }
                before = now;
            }
        }
        let mut failures = Vec::new();
        let mut sum = Report::default();
        for thread in threads {
            let (some, total) = thread.join().expect("panics are caught");
            failures.extend(some);
            sum.add(total);
        }
        failures.sort_unstable();
        (failures, sum)
    })
}

#[test]
fn schedules_end_and_keep_every_promise() {
    let many = from_env("SUBFEED_SCHEDULES").unwrap_or(10_000);
    let first = from_env("SUBFEED_FIRST_SEED").unwrap_or(0);
    let started = std::time::Instant::now();
    let (failures, total) = run_all(first, many);
    println!("{many} schedules in {:.1?}: {total:?}", started.elapsed());
    for (seed, failure) in &failures {
        let family = schedule::Schedule::new(*seed).family;
        println!("seed {seed} ({family:?}): {}", failure.chars().take(400).collect::<String>());
    }
    assert!(
        failures.is_empty(),
        "SUBFEED_SEED={} cargo test --lib sim::replay -- --nocapture",
        failures[0].0
    );
}

#[test]
fn replay() {
    if let Some(seed) = from_env("SUBFEED_SEED") {
        let played = match from_env("SUBFEED_CALL") {
            Some(call) => caught(|| Play::new(seed, true).failing(call).run()),
            None => run(seed, true),
        };
        match played {
            Ok(report) => println!("{report:?}"),
            Err(failure) => panic!("seed {seed}: {}", failure.0),
        }
    }
}
