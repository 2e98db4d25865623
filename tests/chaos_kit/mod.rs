//! Chaos with real processes: rounds of feeds whose workers misbehave and are mistreated, each drawn
//! from its seed, each judged by an oracle, each under a watchdog.
//!
//! Shared by `tests/chaos.rs` and `examples/chaos.rs`; the workers are the same program again.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

mod child;
mod oracle;
mod plan;
mod proc;
mod rng;
mod round;
mod torment;

pub(crate) use child::take_over;

use plan::Plan;
use round::{Report, Watched};

/// A round in which nothing is pulled and nothing yielded for so long hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) seconds: u64,
    pub(crate) seed: u64,
    /// One round alone, by its own seed.
    pub(crate) only: Option<u64>,
    pub(crate) verbose: bool,
}

/// What all rounds have done together.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    rounds: u64,
    themes: BTreeMap<String, u64>,
    faults: BTreeMap<String, u64>,
    items: u64,
    replies: u64,
    errors: BTreeMap<String, u64>,
    recycles: u64,
    redeliveries: u64,
    lost: u64,
    duplicated: u64,
    misordered: u64,
    leaked: u64,
    hung: u64,
    drops: u64,
    late_drops: u64,
    slowest_drop: Duration,
    slowest_round: (Duration, u64),
    /// Seeds of rounds that broke a promise.
    pub(crate) broken: Vec<u64>,
}

impl Tally {
    fn add(&mut self, plan: &Plan, report: Report, took: Duration) {
        self.rounds += 1;
        *self.themes.entry(format!("{:?}", plan.theme)).or_default() += 1;
        for (fault, n) in report.faults {
            *self.faults.entry(fault).or_default() += n;
        }
        for (error, n) in report.errors {
            *self.errors.entry(error).or_default() += n;
        }
        self.items += report.items;
        self.replies += report.replies;
        self.recycles += report.recycles;
        self.redeliveries += report.redeliveries;
        self.lost += report.lost;
        self.duplicated += report.duplicated;
        self.misordered += report.misordered;
        self.leaked += report.leaked;
        if let Some((took, bound)) = report.drop {
            self.drops += 1;
            self.late_drops += u64::from(took > bound);
            self.slowest_drop = self.slowest_drop.max(took);
        }
        self.slowest_round = self.slowest_round.max((took, plan.seed));
        if !report.violations.is_empty() {
            self.broken.push(plan.seed);
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = |map: &BTreeMap<String, u64>| {
            let words: Vec<String> = map.iter().map(|(name, n)| format!("{name}: {n}")).collect();
            words.join(", ")
        };
        writeln!(f, "rounds      {} ({})", self.rounds, all(&self.themes))?;
        writeln!(f, "faults      {} ({})", self.faults.values().sum::<u64>(), all(&self.faults))?;
        writeln!(
            f,
            "items       {}: {} replies, errors ({})",
            self.items,
            self.replies,
            all(&self.errors)
        )?;
        writeln!(f, "recycles    {}, redeliveries {}", self.recycles, self.redeliveries)?;
        writeln!(
            f,
            "drops       {}, {} of them over the bound, slowest {:?}",
            self.drops, self.late_drops, self.slowest_drop
        )?;
        writeln!(f, "slowest     {:?} (seed {})", self.slowest_round.0, self.slowest_round.1)?;
        writeln!(
            f,
            "lost {}, duplicated {}, misordered {}, leaked {}, hung {}",
            self.lost, self.duplicated, self.misordered, self.leaked, self.hung
        )?;
        if !self.broken.is_empty() {
            writeln!(f, "BROKEN      {:?}: replay each with --only SEED", self.broken)?;
        }
        Ok(())
    }
}

/// Plans that are drawn and looked at before the first round.
const PLANS: u64 = 5_000;

/// Runs rounds until the time is over.
pub(crate) fn run(options: &Options) -> Tally {
    // A setting that is refused would show once in hundreds of rounds, and then look like a broken promise.
    for seed in 0..PLANS {
        if let Some(error) = round::refused(&Plan::draw(seed)) {
            panic!("the plan of seed {seed} cannot be started: {error}");
        }
    }
    std::panic::set_hook(Box::new(|_| {}));
    let root = std::env::temp_dir().join(format!("subfeed-chaos-{}", process::id()));
    let start = Instant::now();
    let mut tally = Tally::default();
    let mut seeds = rng::Rng::new(options.seed);
    while start.elapsed() < Duration::from_secs(options.seconds) {
        // Short enough to be typed.
        let seed = options.only.unwrap_or_else(|| seeds.below(1_000_000_000));
        let dir = root.join(tally.rounds.to_string());
        fs::create_dir_all(&dir).expect("a directory");
        one(seed, dir.clone(), options, &mut tally);
        let _ = fs::remove_dir_all(&dir);
        if options.only.is_some() || tally.broken.len() >= 20 {
            break;
        }
    }
    let _ = fs::remove_dir_all(&root);
    tally
}

fn one(seed: u64, dir: PathBuf, options: &Options, tally: &mut Tally) {
    let plan = Plan::draw(seed);
    if options.verbose {
        eprintln!("round {}: {plan:?}", tally.rounds);
    }
    let watched = Arc::new(Watched::default());
    let (done, report) = mpsc::channel();
    let start = Instant::now();
    let runner = {
        let (plan, watched) = (plan.clone(), Arc::clone(&watched));
        thread::spawn(move || {
            let _ = done.send(round::run(&plan, &dir, &watched));
        })
    };
    let report = loop {
        let progress = watched.progress();
        match report.recv_timeout(PATIENCE) {
            Err(mpsc::RecvTimeoutError::Timeout) if watched.progress() != progress => {}
            report => break report,
        }
    };
    match report {
        Ok(report) => {
            runner.join().expect("it has sent its report");
            for violation in &report.violations {
                eprintln!("seed {seed}: {violation}");
            }
            if !report.violations.is_empty() {
                eprintln!("seed {seed}: {plan:?}");
            }
            tally.add(&plan, report, start.elapsed());
        }
        Err(mpsc::RecvTimeoutError::Timeout) => hung(&plan, &watched, tally),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            eprintln!("seed {seed}: the round itself panicked: {plan:?}");
            tally.broken.push(seed);
        }
    }
}

/// Says all there is to say; nothing can go on after this.
fn hung(plan: &Plan, watched: &Watched, tally: &mut Tally) -> ! {
    tally.hung += 1;
    tally.broken.push(plan.seed);
    eprintln!("seed {}: HUNG {} with {plan:?}", plan.seed, watched.stage.lock().expect("a lock"));
    eprintln!("{watched:?}");
    eprintln!("{}", proc::dump());
    eprintln!("{tally}");
    proc::sweep();
    process::exit(2)
}
