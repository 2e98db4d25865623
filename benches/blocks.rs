//! What blocks make of a source of bytes: `cargo bench --bench blocks [-- --quick] [NAME PART]...`.
//!
//! Lines through 2 `cat`s: read by blocks, handed out by blocks, in input order. The consumer looks at each block's
//! length, and no record is touched by either end, as in the raw pipe of `common/baselines.rs`. The source in
//! memory copies the same hot lines into what it is given; the file lies in memory (`/dev/shm`).
//!
//! The figures of the command are of whole processes, from a file to `/dev/null`: `target/release/subfeed`, which
//! `cargo build --release -p subfeed-cli` makes, and GNU parallel with its temporary files in memory and the block
//! size that is best for it here.

mod common;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use common::baselines::{self, Lines, Missing, Pipes, Run};
use common::ceiling::{Shape, counted_pipe};
use common::feeds::{Memory, WORKERS, through};
use common::harness::{Bench, CpuTime, GB_PER_S, MIB, Side, Unit};

fn main() {
    let mut bench = Bench::from_args("blocks");
    over_the_raw_pipe(&mut bench);
    over_the_ceiling(&mut bench);
    processor_time(&mut bench);
    command(&mut bench);
    bench.finish();
}

fn over_the_raw_pipe(bench: &mut Bench) {
    for (suffix, size) in [("", 100), ("_16", 16)] {
        let lines = Lines::of(size);
        let count = lines.count_for(bench.amount(1 << 30, 1 << 28));
        bench.pair(
            &format!("blocks{suffix}_over_raw_pipe"),
            Side::new("blocks", GB_PER_S, || {
                through(lines, count, Memory::of(lines, count)).bytes_per_s()
            }),
            Side::new("raw pipe", GB_PER_S, || {
                baselines::raw_pipe(lines, count, WORKERS, Pipes::Enlarged).bytes_per_s()
            }),
        );
    }
}

/// How much of the raw pipe the shape of a feed leaves, and how much of that a feed of blocks makes.
fn over_the_ceiling(bench: &mut Bench) {
    let lines = Lines::of(100);
    let count = lines.count_for(bench.amount(1 << 30, 1 << 28));
    for (name, shape) in [
        ("alone", Shape::Alone),
        ("with_consumer", Shape::WithConsumer),
        ("with_both", Shape::WithBoth),
    ] {
        bench.pair(
            &format!("counted_pipe_{name}_over_raw_pipe"),
            Side::new("counted", GB_PER_S, || {
                counted_pipe(lines, count, WORKERS, shape).bytes_per_s()
            }),
            Side::new("raw pipe", GB_PER_S, || {
                baselines::raw_pipe(lines, count, WORKERS, Pipes::Enlarged).bytes_per_s()
            }),
        );
    }
    bench.pair(
        "blocks_over_counted_pipe_with_both",
        Side::new("blocks", GB_PER_S, || {
            through(lines, count, Memory::of(lines, count)).bytes_per_s()
        }),
        Side::new("counted", GB_PER_S, || {
            counted_pipe(lines, count, WORKERS, Shape::WithBoth).bytes_per_s()
        }),
    );
}

const SECONDS_PER_GB: Unit = Unit { name: "s/GB", scale: 1e-9 };

/// What this process spends for a byte.
fn spent(run: impl FnOnce() -> Run) -> f64 {
    let before = CpuTime::of_self();
    let run = run();
    let spent: Duration = CpuTime::of_self().since(before).total();
    spent.as_secs_f64() / run.bytes as f64
}

fn processor_time(bench: &mut Bench) {
    let lines = Lines::of(100);
    let count = lines.count_for(bench.amount(1 << 30, 1 << 28));
    let raw = || spent(|| baselines::raw_pipe(lines, count, WORKERS, Pipes::Enlarged));
    bench.pair(
        "blocks_processor_time_over_raw_pipe",
        Side::new("blocks", SECONDS_PER_GB, || {
            spent(|| through(lines, count, Memory::of(lines, count)))
        }),
        Side::new("raw pipe", SECONDS_PER_GB, raw),
    );
    match InMemory::new("lines", Memory::of(lines, count)) {
        Ok(file) => {
            bench.pair(
                "blocks_from_file_processor_time_over_raw_pipe",
                Side::new("blocks", SECONDS_PER_GB, || {
                    let file = File::open(&file.0).expect("the file is there");
                    spent(|| through(lines, count, file))
                }),
                Side::new("raw pipe", SECONDS_PER_GB, raw),
            );
        }
        Err(error) => {
            bench.missing("blocks_from_file_processor_time_over_raw_pipe", &error.to_string());
        }
    }
}

/// A command line's time, in bytes of its input per second.
fn shell(line: &str, bytes: u64) -> f64 {
    let start = Instant::now();
    let status = Command::new("sh").args(["-c", line]).status().expect("a shell");
    let wall = start.elapsed();
    assert!(status.success(), "{line}: {status}");
    bytes as f64 / wall.as_secs_f64()
}

/// A file in memory, gone with this.
struct InMemory(PathBuf);

impl InMemory {
    fn new(name: &str, mut from: impl Read) -> io::Result<Self> {
        let path = Path::new("/dev/shm").join(format!("subfeed-{}-{name}", std::process::id()));
        let file = Self(path);
        io::copy(&mut from, &mut File::create(&file.0)?)?;
        Ok(file)
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn command(bench: &mut Bench) {
    let this = std::env::current_exe().expect("this program");
    let subfeed = this.ancestors().nth(2).expect("a target directory").join("subfeed");
    if !subfeed.exists() {
        bench.missing("command", "cargo build --release -p subfeed-cli");
        return;
    }
    let subfeed = subfeed.display();
    peak_of_command(bench, &subfeed.to_string());
    if let Err(Missing(why)) = baselines::find_gnu_parallel() {
        bench.missing("command_over_parallel", &why);
        return;
    }
    let parallel = "parallel --will-cite --plain -j2 --tmpdir /dev/shm";
    let lines = Lines::of(100);
    let count = lines.count_for(bench.amount(1 << 30, 1 << 28));
    let bytes = count * lines.wire.len() as u64;
    let file = InMemory::new("lines", Memory::of(lines, count)).expect("a file in memory");
    let file = file.0.display();
    for (name, ours, theirs) in [
        ("keep_order", "", format!("{parallel} --pipe -k --block 30M cat < {file}")),
        ("pipe_part", "", format!("{parallel} --pipe-part -k --block 30M -a {file} cat")),
        (
            "round_robin",
            "--any-order",
            format!("{parallel} --pipe --round-robin --block 1M cat < {file}"),
        ),
    ] {
        bench.pair(
            &format!("command_over_parallel_{name}"),
            Side::new("subfeed", GB_PER_S, || {
                shell(&format!("{subfeed} -j2 {ours} -- cat < {file} > /dev/null"), bytes)
            }),
            Side::new("parallel", GB_PER_S, || shell(&format!("{theirs} > /dev/null"), bytes)),
        );
    }
    let objects = bench.amount(1_000_000, 200_000);
    let text = (0..objects).fold(String::new(), |mut text, k| {
        let _ = writeln!(
            text,
            "{{\"id\":{k},\"name\":\"event {k}\",\"tags\":[\"a\",\"b\"],\"size\":{}}}",
            k * 7
        );
        text
    });
    let bytes = text.len() as u64;
    let file = InMemory::new("objects", text.as_bytes()).expect("a file in memory");
    let file = file.0.display();
    let ours = format!("{subfeed} -j2 -- jq -c .name < {file} > /dev/null");
    for (name, theirs) in [
        ("parallel", format!("{parallel} --pipe -k --block 30M jq -c .name < {file} > /dev/null")),
        ("plain", format!("jq -c .name < {file} > /dev/null")),
    ] {
        bench.pair(
            &format!("command_jq_over_{name}"),
            Side::new("subfeed", GB_PER_S, || shell(&ours, bytes)),
            Side::new("the other", GB_PER_S, || shell(&theirs, bytes)),
        );
    }
}

/// Before anything else is run: the peak is that of all children so far, and the others here are small.
fn peak_of_command(bench: &mut Bench, subfeed: &str) {
    for (name, bytes) in [
        ("command_peak_a_tenth", bench.amount(1_000_000_000, 100_000_000)),
        ("command_peak", bench.amount(10_000_000_000, 1_000_000_000)),
    ] {
        if bench.wants(name) {
            let line =
                format!("yes {:099} | head -c {bytes} | {subfeed} -j2 -- cat > /dev/null", 0);
            shell(&line, bytes);
            let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("a valid argument");
            bench.value(name, usage.max_rss() as f64 * 1024.0, MIB);
        }
    }
}
