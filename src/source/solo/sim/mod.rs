//! Sources under schedules from seeds: the loop that ships with one child, what is said to it, the gate and the outlet, on
//! a system that is simulated ([`world`]), in which each call fails once.
//!
//! - [`command`]: a command, here or behind a launcher;
//! - `source/function/sim.rs`: a function of this program, with the child's own side of the conversation.
//!
//! ```text
//! SUBFEED_SEED=123 cargo test --all-features --lib solo::sim::command::replay -- --nocapture
//! SUBFEED_SEED=123 SUBFEED_CALL=45 cargo test --all-features --lib function::sim::replay -- --nocapture
//! SUBFEED_SCHEDULES=1000000 cargo test --release --all-features --lib -- --nocapture solo::sim function::sim
//! ```

mod command;
pub(in crate::source) mod world;

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::subprocess::sim::from_env;

/// What came of a seed.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::source) struct Report {
    pub(in crate::source) records: u64,
    /// Passes, and runs of a command.
    pub(in crate::source) passes: u64,
    pub(in crate::source) fatal: u64,
    pub(in crate::source) dropped: u64,
    pub(in crate::source) calls: u64,
}

impl Report {
    fn add(&mut self, other: Self) {
        self.records += other.records;
        self.passes += other.passes;
        self.fatal += other.fatal;
        self.dropped += other.dropped;
        self.calls += other.calls;
    }
}

/// What a seed is played by, which call of the system fails, and whether it is told what happens.
type Play = fn(u64, Option<u64>, bool) -> Result<Report, String>;

/// A panic is a failure like any other.
fn caught(play: Play, seed: u64, fails: Option<u64>, trace: bool) -> Result<Report, String> {
    let played = std::panic::catch_unwind(|| play(seed, fails, trace));
    played.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

/// Plays on all processors what this makes of each seed below `many`. What has failed fails the test.
fn on_all_processors(many: u64, one: impl Fn(u64) -> Result<Report, String> + Sync) -> Report {
    let next = AtomicU64::new(0);
    let work = || {
        let (mut total, mut failures) = (Report::default(), Vec::new());
        loop {
            let seed = next.fetch_add(1, SeqCst);
            if seed >= many {
                return (total, failures);
            }
            match one(seed) {
                Ok(report) => total.add(report),
                Err(failure) => failures.push((seed, failure)),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    let (total, mut failures) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let (mut total, mut failures) = (Report::default(), Vec::new());
        for thread in threads {
            let (some, failed) = thread.join().expect("panics are caught");
            total.add(some);
            failures.extend(failed);
        }
        (total, failures)
    });
    failures.sort_unstable();
    let shown: Vec<_> = failures.iter().take(20).collect();
    assert!(failures.is_empty(), "{} failures: {shown:#?}", failures.len());
    total
}

/// Plays so many seeds, or as many as the environment says.
pub(in crate::source) fn schedules(play: Play, many: u64) -> (u64, Report) {
    let many = from_env("SUBFEED_SCHEDULES").unwrap_or(many);
    let total = on_all_processors(many, |seed| caught(play, seed, None, false));
    println!("{many} schedules: {total:?}");
    (many, total)
}

/// Plays a few seeds again and again, each time with another call of the system failing.
pub(in crate::source) fn sweep(play: Play) {
    let most = from_env("SUBFEED_SWEEP").unwrap_or(if cfg!(debug_assertions) { 20 } else { 200 });
    let total = on_all_processors(most, |seed| {
        let all = caught(play, seed, None, false)?.calls;
        // A seed that waits for long makes many calls that are all alike.
        let step = all.div_ceil(400).max(1) as usize;
        let mut total = Report::default();
        for call in (1..=all).step_by(step) {
            total.calls += 1;
            caught(play, seed, Some(call), false)
                .map_err(|failure| format!("call {call}: {failure}"))?;
        }
        Ok(total)
    });
    println!("{most} seeds, {} calls that failed", total.calls);
}

/// Plays the seed that the environment names, if it does, and tells what happens.
pub(in crate::source) fn replay(play: Play) {
    if let Some(seed) = from_env("SUBFEED_SEED") {
        match caught(play, seed, from_env("SUBFEED_CALL"), true) {
            Ok(report) => println!("{report:?}"),
            Err(failure) => panic!("seed {seed}: {failure}"),
        }
    }
}
