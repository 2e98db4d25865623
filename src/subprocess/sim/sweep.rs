//! The sweep of faults, as SQLite does it with allocations: in each of some fixed seeds every call of the system
//! fails once, in turn.
//!
//! What a call that fails may lead to: an item may fail and the feed may end early, and it says why. It
//! may not hang, lose or double a packet, answer one wrongly, or leave a child behind.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::play::Play;
use super::{caught, from_env};

/// How many seeds are swept: all of them where `SUBFEED_SWEEP` says so.
const SEEDS: u64 = 200;
const SEEDS_IN_DEBUG: u64 = 6;

/// So many calls of one seed are made to fail at most, evenly chosen: a seed that waits for long makes many
/// that are all alike.
const MOST_CALLS: u64 = 4_000;

/// The calls that fail, one after the other.
fn sweep(seed: u64) -> Result<u64, String> {
    let calls = match caught(|| Play::new(seed, false).run()) {
        Ok(report) => report.calls,
        Err(failure) => return Err(format!("seed {seed}: {}", failure.0)),
    };
    let step = calls.div_ceil(MOST_CALLS).max(1);
    let mut failed = 0;
    for call in (1..=calls).step_by(step as usize) {
        failed += 1;
        caught(|| Play::new(seed, false).failing(call).run())
            .map_err(|failure| format!("seed {seed}, call {call}: {}", failure.0))?;
    }
    Ok(failed)
}

#[test]
fn whatever_call_of_the_system_fails_the_feed_ends_and_says_why() {
    let most = if cfg!(debug_assertions) { SEEDS_IN_DEBUG } else { SEEDS };
    let most = from_env("SUBFEED_SWEEP").unwrap_or(most);
    let next = AtomicU64::new(0);
    let total = AtomicU64::new(0);
    let work = || {
        let mut failures = Vec::new();
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= most {
                return failures;
            }
            match sweep(seed) {
                Ok(calls) => _ = total.fetch_add(calls, Relaxed),
                Err(failure) => failures.push(failure),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("panics are caught")).collect()
    });
    println!("{most} seeds, {} calls that failed", total.into_inner());
    for failure in &failures {
        println!("{}", failure.chars().take(400).collect::<String>());
    }
    assert!(failures.is_empty(), "SUBFEED_SEED= and SUBFEED_CALL= for sim::replay");
}
