//! Measuring on a noisy machine: interleaved pairs, medians, quartiles.
//!
//! A figure of this crate is a *ratio* of two ways to do the same work. The two are run in turn,
//! A B A B ..., so that whatever else the machine does falls on both, and the ratio is taken
//! within each pair, so that a slow drift cancels. What is printed is the median of those ratios
//! with its interquartile range, and beside it the raw figures of both sides: a ratio that is
//! good because the baseline was weak shows.
//!
//! A bench has `harness = false` and looks like this:
//!
//! ```ignore
//! fn main() {
//!     baselines::serve_if_asked();
//!     let mut bench = Bench::from_args("throughput");
//!     bench.pair(
//!         "feed_over_raw_pipe",
//!         Side::new("subfeed", GB_PER_S, || feed_bytes_per_second()),
//!         Side::new("raw pipe", GB_PER_S, || raw_bytes_per_second()),
//!     );
//!     bench.finish();
//! }
//! ```
//!
//! `cargo bench --bench throughput -- --quick ordered` runs fewer pairs of those figures whose
//! name contains `ordered`. At the end come the lines for machines, `ratio NAME VALUE` and
//! `value NAME VALUE UNIT`, one each.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::Pid;

/// How a raw figure is shown: a closure returns bytes per second, records per second or seconds,
/// and the table shows `figure / scale` with `name` behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    pub(crate) name: &'static str,
    pub(crate) scale: f64,
}

/// Bytes per second, shown in 10^9.
pub(crate) const GB_PER_S: Unit = Unit { name: "GB/s", scale: 1e9 };
/// Records per second, shown in millions.
pub(crate) const M_PER_S: Unit = Unit { name: "M/s", scale: 1e6 };
/// Records per second, shown in thousands.
pub(crate) const K_PER_S: Unit = Unit { name: "k/s", scale: 1e3 };
/// Seconds, shown as microseconds.
pub(crate) const MICROS: Unit = Unit { name: "us", scale: 1e-6 };
/// Seconds, shown as milliseconds.
pub(crate) const MILLIS: Unit = Unit { name: "ms", scale: 1e-3 };
/// Bytes, shown in MiB.
pub(crate) const MIB: Unit = Unit { name: "MiB", scale: 1_048_576.0 };
/// A bare number.
pub(crate) const PLAIN: Unit = Unit { name: "", scale: 1.0 };

/// One side of a pair: what it is called, how its figure is shown, how to get one figure.
pub(crate) struct Side<F> {
    label: &'static str,
    unit: Unit,
    run: F,
}

impl<F: FnMut() -> f64> Side<F> {
    pub(crate) fn new(label: &'static str, unit: Unit, run: F) -> Self {
        Side { label, unit, run }
    }

    fn measure(&mut self) -> f64 {
        (self.run)() / self.unit.scale
    }
}

/// Median and quartiles of some figures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// Quartiles by linear interpolation between order statistics (the usual "type 7").
    ///
    /// # Panics
    /// With no figures, or one that is not a number: both are faults of the bench.
    pub(crate) fn of(figures: &[f64]) -> Self {
        assert!(!figures.is_empty(), "a spread of no figures");
        assert!(figures.iter().all(|f| !f.is_nan()), "a figure is not a number");
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |quantile: f64| {
            let place = quantile * (sorted.len() - 1) as f64;
            let below = place.floor() as usize;
            let above = place.ceil() as usize;
            sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
        };
        Spread { low: at(0.25), median: at(0.5), high: at(0.75) }
    }

    fn show(self, unit: &str) -> String {
        let mut text = short(self.median);
        let _ = write!(text, " [{} {}]", short(self.low), short(self.high));
        if !unit.is_empty() {
            let _ = write!(text, " {unit}");
        }
        text
    }
}

/// Three significant digits or a little more, without exponents.
fn short(x: f64) -> String {
    match x.abs() {
        a if a >= 100.0 => format!("{x:.0}"),
        a if a >= 10.0 => format!("{x:.1}"),
        a if a >= 1.0 => format!("{x:.2}"),
        a if a >= 0.01 || a == 0.0 => format!("{x:.3}"),
        _ => format!("{x:.5}"),
    }
}

/// What a pair came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) first: Spread,
    pub(crate) second: Spread,
    /// First over second, within each pair.
    pub(crate) ratio: Spread,
}

/// One run of a bench binary: its options and what it has measured so far.
#[derive(Debug)]
pub(crate) struct Bench {
    quick: bool,
    pairs: usize,
    filters: Vec<String>,
    /// The `ratio` and `value` lines, kept for the end.
    lines: Vec<String>,
}

impl Bench {
    /// Reads the command line: `--quick`, `--pairs N`, and any number of name filters (a figure
    /// is measured if its name contains one of them). Cargo's own `--bench` is accepted.
    ///
    /// A debug build measures nothing worth knowing, so it runs one pair of everything: that is
    /// what `cargo test --benches` wants.
    pub(crate) fn from_args(title: &str) -> Self {
        let mut quick = false;
        let mut pairs = None;
        let mut filters = Vec::new();
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => {}
                "--quick" => quick = true,
                "--pairs" => pairs = args.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0),
                "--help" | "-h" => {
                    println!("usage: {title} [--quick] [--pairs N] [NAME PART]...");
                    std::process::exit(0);
                }
                flag if flag.starts_with('-') => {
                    eprintln!("{title}: unknown option {flag}; known: --quick, --pairs N");
                    std::process::exit(2);
                }
                _ => filters.push(arg),
            }
        }
        let debug = cfg!(debug_assertions);
        let quick = quick || debug;
        let pairs = pairs.unwrap_or(match (debug, quick) {
            (true, _) => 1,
            (false, true) => 3,
            (false, false) => 11,
        });
        println!(
            "# {title}: {pairs} interleaved pairs, median [quartiles]{}{}, {}",
            if quick { ", quick" } else { "" },
            if debug { ", DEBUG BUILD: the figures mean nothing" } else { "" },
            machine(),
        );
        Bench { quick, pairs, filters, lines: Vec::new() }
    }

    /// Whether fewer pairs and less work were asked for.
    pub(crate) fn quick(&self) -> bool {
        self.quick
    }

    /// The amount of work of one run: `full`, or a fraction of it with `--quick`.
    pub(crate) fn amount(&self, full: u64, quick: u64) -> u64 {
        if cfg!(debug_assertions) {
            (quick / 16).max(1)
        } else if self.quick {
            quick
        } else {
            full
        }
    }

    /// Whether the filters on the command line let this name through.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|part| name.contains(part.as_str()))
    }

    /// Measures `first` and `second` in turn, after one unmeasured run of each, prints a row and
    /// keeps the line `ratio NAME first/second` for the end. `None` if filtered out.
    ///
    /// The ratio is that of the figures as shown: with records on one side and bytes on the
    /// other, it is the stated millions per GB/s.
    pub(crate) fn pair<A, B>(
        &mut self,
        name: &str,
        mut first: Side<A>,
        mut second: Side<B>,
    ) -> Option<Outcome>
    where
        A: FnMut() -> f64,
        B: FnMut() -> f64,
    {
        if !self.wants(name) {
            return None;
        }
        first.measure();
        second.measure();
        let mut firsts = Vec::with_capacity(self.pairs);
        let mut seconds = Vec::with_capacity(self.pairs);
        let mut ratios = Vec::with_capacity(self.pairs);
        for _ in 0..self.pairs {
            let a = first.measure();
            let b = second.measure();
            firsts.push(a);
            seconds.push(b);
            ratios.push(a / b);
        }
        let outcome = Outcome {
            first: Spread::of(&firsts),
            second: Spread::of(&seconds),
            ratio: Spread::of(&ratios),
        };
        println!(
            "{name:<44} {:<34} {:<34} ratio {}",
            format!("{} {}", first.label, outcome.first.show(first.unit.name)),
            format!("{} {}", second.label, outcome.second.show(second.unit.name)),
            outcome.ratio.show(""),
        );
        self.lines.push(format!("ratio {name} {:.4}", outcome.ratio.median));
        Some(outcome)
    }

    /// Measures one thing by itself, as often as a pair would be and after one unmeasured run,
    /// prints a row and keeps the line `value NAME median UNIT`. `None` if filtered out.
    pub(crate) fn alone(
        &mut self,
        name: &str,
        unit: Unit,
        mut run: impl FnMut() -> f64,
    ) -> Option<Spread> {
        if !self.wants(name) {
            return None;
        }
        run();
        let figures: Vec<f64> = (0..self.pairs).map(|_| run() / unit.scale).collect();
        let spread = Spread::of(&figures);
        println!("{name:<44} {}", spread.show(unit.name));
        self.lines.push(format!("value {name} {:.4} {}", spread.median, unit.name));
        Some(spread)
    }

    /// The same for a figure that is a ratio by itself, such as a makespan over its ideal: keeps the
    /// line `ratio NAME median`.
    pub(crate) fn alone_as_ratio(
        &mut self,
        name: &str,
        run: impl FnMut() -> f64,
    ) -> Option<Spread> {
        let spread = self.alone(name, PLAIN, run)?;
        self.lines.pop();
        self.lines.push(format!("ratio {name} {:.4}", spread.median));
        Some(spread)
    }

    /// Records a figure that was measured elsewhere, in base units (bytes, seconds).
    pub(crate) fn value(&mut self, name: &str, figure: f64, unit: Unit) {
        let shown = figure / unit.scale;
        println!("{name:<44} {} {}", short(shown), unit.name);
        self.lines.push(format!("value {name} {shown:.4} {}", unit.name));
    }

    /// Records a ratio that was measured elsewhere, such as a makespan over its ideal.
    pub(crate) fn ratio(&mut self, name: &str, ratio: f64) {
        println!("{name:<44} ratio {}", short(ratio));
        self.lines.push(format!("ratio {name} {ratio:.4}"));
    }

    /// Says that something could not be measured: a peer that is not installed is named.
    pub(crate) fn missing(&mut self, name: &str, why: &str) {
        if self.wants(name) {
            println!("{name:<44} missing: {why}");
            self.lines.push(format!("missing {name}"));
        }
    }

    /// Prints the lines for machines.
    pub(crate) fn finish(self) {
        println!();
        for line in self.lines {
            // A bare number has no unit and would leave a blank.
            println!("{}", line.trim_end());
        }
    }
}

/// The processor's name and how many CPUs this process may use, for the head of a table.
fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cpus} x {model}")
}

/// The calling thread, and every thread and child it starts from now on, on one CPU; given back
/// when dropped.
///
/// A latency across two CPUs is mostly the wake-up of the other one, which varies tenfold on a
/// virtual machine. Affinity is a thread's, inherited at its creation: threads that exist already
/// (a global pool) stay where they are, so pin before they are started.
#[derive(Debug)]
#[must_use = "dropping it unpins"]
pub(crate) struct Pinned {
    before: CpuSet,
}

impl Pinned {
    /// Pins to the last CPU that this thread may use: the first one tends to serve interrupts.
    pub(crate) fn to_one_cpu() -> Self {
        let this_thread = Pid::from_raw(0);
        let before = sched_getaffinity(this_thread).expect("read CPU affinity");
        let last = (0..CpuSet::count())
            .rev()
            .find(|cpu| before.is_set(*cpu).unwrap_or(false))
            .expect("a thread may use some CPU");
        let mut one = CpuSet::new();
        one.set(last).expect("the number came from a CpuSet");
        sched_setaffinity(this_thread, &one).expect("pin to one CPU");
        Pinned { before }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Nothing to do about a failure here; the next figures would be pinned ones.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.before);
    }
}

/// Runs `f` pinned to one CPU.
pub(crate) fn pinned<T>(f: impl FnOnce() -> T) -> T {
    let _pinned = Pinned::to_one_cpu();
    f()
}

/// Processor time used so far, user and system.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuTime {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

impl CpuTime {
    /// Of all threads of this process.
    pub(crate) fn of_self() -> Self {
        Self::of(UsageWho::RUSAGE_SELF)
    }

    /// Of those children that have ended and been waited for; a running child is not in it.
    pub(crate) fn of_reaped_children() -> Self {
        Self::of(UsageWho::RUSAGE_CHILDREN)
    }

    fn of(who: UsageWho) -> Self {
        let usage = getrusage(who).expect("getrusage with a valid argument");
        let duration = |time: nix::sys::time::TimeVal| {
            Duration::new(time.tv_sec().unsigned_abs(), 1_000 * time.tv_usec() as u32)
        };
        CpuTime { user: duration(usage.user_time()), system: duration(usage.system_time()) }
    }

    /// User and system together.
    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }

    /// What was used since an earlier reading.
    pub(crate) fn since(self, earlier: Self) -> Self {
        CpuTime {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

/// Peak resident memory of this process in bytes (`VmHWM`), since its start or since
/// [`reset_peak_memory`].
pub(crate) fn peak_memory() -> u64 {
    status_bytes("self", "VmHWM:").expect("VmHWM in /proc/self/status")
}

/// Resident memory of this process in bytes, now (`VmRSS`).
pub(crate) fn resident_memory() -> u64 {
    status_bytes("self", "VmRSS:").expect("VmRSS in /proc/self/status")
}

/// Peak resident memory of another process in bytes, while it sessions.
pub(crate) fn peak_memory_of(pid: u32) -> Option<u64> {
    status_bytes(&pid.to_string(), "VmHWM:")
}

/// Lets [`peak_memory`] start again from what is resident now. False where the kernel refuses,
/// and then a figure needs a process of its own.
pub(crate) fn reset_peak_memory() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// A `kB` line of `/proc/<pid>/status`, in bytes.
fn status_bytes(pid: &str, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rest = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = rest.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}
