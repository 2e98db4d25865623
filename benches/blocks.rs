//! What blocks make of a source of bytes: `cargo bench --bench blocks [-- --quick] [NAME PART]...`.
//!
//! Lines through 2 `cat`s: read by blocks, handed out by blocks, in input order. The consumer looks at each block's
//! length, and no record is touched by either end, as in the raw pipe of `common/baselines.rs`. The source in
//! memory copies the same hot lines into what it is given; the file lies in memory (`/dev/shm`).

mod common;

use std::hint::black_box;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use common::baselines::{self, Lines, Pipes, Run};
use common::feeds::WORKERS;
use common::harness::{Bench, CpuTime, GB_PER_S, Side, Unit};
use subfeed::{Template, blocks};

fn main() {
    let mut bench = Bench::from_args("blocks");
    over_the_raw_pipe(&mut bench);
    processor_time(&mut bench);
    bench.finish();
}

/// So many bytes of the same lines, as fast as memory gives them.
#[derive(Clone, Copy, Debug)]
struct Memory {
    lines: Lines,
    at: usize,
    left: u64,
}

impl Memory {
    fn of(lines: Lines, count: u64) -> Self {
        Self { lines, at: 0, left: count * lines.wire.len() as u64 }
    }
}

impl Read for Memory {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let mut n = 0;
        while n < most {
            let piece = &self.lines.block[self.at..];
            let len = piece.len().min(most - n);
            into[n..n + len].copy_from_slice(&piece[..len]);
            self.at = (self.at + len) % self.lines.block.len();
            n += len;
        }
        self.left -= n as u64;
        Ok(n)
    }
}

/// Blocks in, blocks out.
fn through(lines: Lines, count: u64, reader: impl Read + Send + 'static) -> Run {
    let start = Instant::now();
    let (mut records, mut bytes) = (0, 0);
    for block in blocks(reader).feed(Template::new("cat")).workers(WORKERS) {
        let block = block.expect("cat answers");
        records += block.len() as u64;
        bytes += block.as_bytes().len() as u64;
        black_box(block.as_bytes().last());
    }
    let wall = start.elapsed();
    assert_eq!((records, bytes), (count, count * lines.wire.len() as u64), "what came back");
    Run { records, bytes, wall }
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
    let file = std::path::Path::new("/dev/shm").join(format!("subfeed-{}", std::process::id()));
    let written = std::fs::File::create(&file)
        .and_then(|mut file| io::copy(&mut Memory::of(lines, count), &mut file));
    match written {
        Ok(_) => {
            bench.pair(
                "blocks_from_file_processor_time_over_raw_pipe",
                Side::new("blocks", SECONDS_PER_GB, || {
                    let file = std::fs::File::open(&file).expect("the file is there");
                    spent(|| through(lines, count, file))
                }),
                Side::new("raw pipe", SECONDS_PER_GB, raw),
            );
        }
        Err(error) => {
            bench.missing("blocks_from_file_processor_time_over_raw_pipe", &error.to_string());
        }
    }
    let _ = std::fs::remove_file(&file);
}
