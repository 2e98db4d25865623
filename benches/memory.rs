//! What a feed costs beside time: `cargo bench --bench memory [-- --quick] [NAME PART]...`.
//!
//! - Peak memory (`VmHWM`), each case in a process of its own: an endless input of 100-byte lines, by
//!   which 10 GB pass, at a tenth of the way and at the end; and records of 1 MiB before a consumer who
//!   does not look, against the bound that is promised, `max_bytes` + n x reply limit. `heap` is what was
//!   asked of the heap and not given back; what the heap itself keeps comes on top of that.
//! - Heap allocations per record, of all threads, by a counting allocator.
//! - System calls per record, of all threads but no child, by `strace -f -c -b execve`, which lets go of
//!   a child when it becomes one. A traced system call is slow, so that more gathers between two of
//!   them: `read_write_calls` is the kernel's own count of reads and writes of an untraced run
//!   (`/proc/self/io`), without polling and wake-ups.
//!
//! All of it are counts: a busy machine changes them little.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::baselines::{Lines, Run};
use common::feeds::{Memory, Records, WINDOW, WORKERS, through};
use common::fresh;
use common::harness::{Bench, CpuTime, MIB, PLAIN, peak_memory, resident_memory};
use subfeed::framing::{Prefix, ReplyFraming, RequestFraming};
use subfeed::{FeedExt, Order, Template};

/// Counts what asks the heap for memory (allocations and reallocations), and how much is in use.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static IN_USE: AtomicUsize = AtomicUsize::new(0);
static MOST_IN_USE: AtomicUsize = AtomicUsize::new(0);

impl Counting {
    fn asked(bytes: usize) {
        ALLOCATIONS.fetch_add(1, Relaxed);
        let now = IN_USE.fetch_add(bytes, Relaxed) + bytes;
        if now > MOST_IN_USE.load(Relaxed) {
            MOST_IN_USE.fetch_max(now, Relaxed);
        }
    }
}

// SAFETY: everything is left to the system's allocator; counting has no part in it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::asked(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::asked(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size < layout.size() {
            // Cut off where it stands.
            ALLOCATIONS.fetch_add(1, Relaxed);
            IN_USE.fetch_sub(layout.size() - size, Relaxed);
        } else {
            // It may have to move, and there are two of it for that long.
            Self::asked(size);
            IN_USE.fetch_sub(layout.size(), Relaxed);
        }
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

const LINE: usize = 100;
const MAX_BYTES: usize = 16 << 20;
const REPLY_LIMIT: usize = 1 << 20;

fn main() {
    fresh::serve_if_asked(&[
        ("endless", endless),
        ("endless_owned", endless_owned),
        ("large", large),
        ("calls", calls),
        ("calls_owned", calls_owned),
        ("calls_of_blocks", calls_of_blocks),
    ]);
    let mut bench = Bench::from_args("memory");
    peaks(&mut bench);
    allocations(&mut bench);
    system_calls(&mut bench);
    bench.finish();
}

// ---------------------------------------------------------------------------------------------
// Peak memory

fn peaks(bench: &mut Bench) {
    let bytes = bench.amount(10_000_000_000, 500_000_000);
    for case in ["endless", "endless_owned"] {
        let name = format!("peak_{case}_100");
        if bench.wants(&name) {
            let found = fresh::run(case, &[bytes]);
            let (early, end) = (found.get("early"), found.get("end"));
            bench.value(&name, end, MIB);
            bench.value(&format!("{name}_before"), found.get("before"), MIB);
            bench.value(&format!("{name}_grown_after_a_tenth"), end - early, MIB);
        }
    }
    let name = "peak_1mib_records";
    if bench.wants(name) {
        let found = fresh::run("large", &[bench.amount(2_000, 200)]);
        let bound = (MAX_BYTES + WORKERS * REPLY_LIMIT) as f64;
        let more = found.get("end") - found.get("before");
        bench.value(name, found.get("end"), MIB);
        bench.value(&format!("{name}_before"), found.get("before"), MIB);
        bench.value(&format!("{name}_bound"), bound, MIB);
        bench.ratio(&format!("{name}_over_bound"), more / bound);
        bench.ratio(&format!("{name}_heap_over_bound"), found.get("heap") / bound);
    }
}

/// An endless input, until so many bytes have passed.
fn endless_until(bytes: u64, take: impl FnOnce(u64, &mut dyn FnMut())) {
    fresh::tell("before", resident_memory() as f64);
    let records = bytes / LINE as u64;
    let mut early = 0;
    take(records, &mut || early = peak_memory());
    fresh::tell("early", early as f64);
    fresh::tell("end", peak_memory() as f64);
}

fn endless(numbers: &[u64]) {
    endless_until(numbers[0], |records, at_a_tenth| {
        let source = std::iter::repeat(Lines::of(LINE).record);
        let feed = source.feed(Template::new("cat")).workers(WORKERS).buffer(WINDOW);
        let mut blocks = feed.blocks();
        let (mut seen, mut bytes, mut early) = (0, 0, false);
        while seen < records {
            let block = blocks.next().expect("the input is endless").expect("cat answers");
            seen += block.len() as u64;
            block.records().for_each(|reply| bytes += reply.len());
            if !early && seen >= records / 10 {
                early = true;
                at_a_tenth();
            }
        }
        assert_eq!(bytes as u64, seen * (LINE as u64 - 1));
    });
}

fn endless_owned(numbers: &[u64]) {
    endless_until(numbers[0], |records, at_a_tenth| {
        let source = std::iter::repeat(Lines::of(LINE).record);
        let feed = source.feed_subprocesses_ordered(Template::new("cat"), WORKERS, WINDOW);
        for (reply, seen) in feed.take(records as usize).zip(1..) {
            assert_eq!(reply.expect("cat answers").len(), LINE - 1);
            if seen == records / 10 {
                at_a_tenth();
            }
        }
    });
}

/// Records of 1 MiB; nobody takes a reply before the feed has gathered all that it may.
fn large(numbers: &[u64]) {
    let records = Records {
        lines: Lines::length_prefixed(REPLY_LIMIT as u32),
        count: numbers[0],
        prefixed: true,
    };
    fresh::tell("before", resident_memory() as f64);
    let heap_before = IN_USE.load(Relaxed);
    let framing = Prefix::u32_be();
    let template = Template::new("cat")
        .requests(RequestFraming::prefixed(framing))
        .replies(ReplyFraming::prefixed(framing))
        .reply_limit(REPLY_LIMIT);
    let source = records.lines.records(records.count);
    let feed = source.feed(template).workers(WORKERS).buffer(WINDOW).max_bytes(MAX_BYTES);
    let blocks = feed.blocks();
    let monitor = blocks.monitor();
    let (mut held, mut since) = (0, Instant::now());
    while since.elapsed() < Duration::from_millis(200) {
        let now = monitor.snapshot().read_bytes;
        if now != held {
            (held, since) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut seen = 0;
    for block in blocks {
        let block = block.expect("cat answers");
        seen += block.len() as u64;
        block.records().for_each(|reply| assert_eq!(reply.len(), REPLY_LIMIT));
    }
    assert_eq!(seen, records.count);
    fresh::tell("end", peak_memory() as f64);
    fresh::tell("heap", (MOST_IN_USE.load(Relaxed) - heap_before) as f64);
}

// ---------------------------------------------------------------------------------------------
// Counts

fn allocations(bench: &mut Bench) {
    let records = Records::of_lines(LINE, bench.amount(1 << 30, 1 << 27));
    type Named = (&'static str, fn(Records) -> Run);
    let runs: [Named; 2] = [
        ("allocations_per_record", |records| records.in_blocks(Order::Input)),
        ("allocations_per_record_owned", Records::owned),
    ];
    for (name, run) in runs {
        if bench.wants(name) {
            let before = ALLOCATIONS.load(Relaxed);
            run(records);
            let count = ALLOCATIONS.load(Relaxed) - before;
            bench.value(name, count as f64 / records.count as f64, PLAIN);
        }
    }
}

/// The run whose system calls are counted: so many records, of so many bytes each.
fn calls(numbers: &[u64]) {
    counted(numbers, |records| records.in_blocks(Order::Input));
}

fn calls_owned(numbers: &[u64]) {
    counted(numbers, Records::owned);
}

/// Blocks in, blocks out.
fn calls_of_blocks(numbers: &[u64]) {
    counted(numbers, |Records { lines, count, .. }| {
        through(lines, count, Memory::of(lines, count))
    });
}

fn counted(numbers: &[u64], run: fn(Records) -> Run) {
    let (count, line) = (numbers[0], numbers[1]);
    let records = Records::of_lines(line as usize, count * line);
    let (calls, time) = (read_write_calls(), CpuTime::of_self());
    run(records);
    let used = CpuTime::of_self().since(time);
    fresh::tell("read_write", (read_write_calls() - calls) as f64);
    // For those who run the case by hand.
    fresh::tell("user_ns_per_record", used.user.as_nanos() as f64 / count as f64);
    fresh::tell("system_ns_per_record", used.system.as_nanos() as f64 / count as f64);
}

/// Reads and writes of this process so far, of all its threads.
fn read_write_calls() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").expect("/proc/self/io");
    let number = |line: &str| line.split_once(": ").and_then(|(_, n)| n.trim().parse::<u64>().ok());
    let calls = io.lines().filter(|line| line.starts_with("sysc"));
    calls.map(|line| number(line).expect("a number")).sum()
}

fn system_calls(bench: &mut Bench) {
    let records = bench.amount(10_000_000, 1_000_000);
    for case in ["calls", "calls_owned", "calls_of_blocks"] {
        let name = format!("system_{case}_per_record");
        if !bench.wants(&name) {
            continue;
        }
        let untraced = fresh::run(case, &[records, LINE as u64]).get("read_write") / records as f64;
        bench.value(&format!("read_write_{case}_per_record"), untraced, PLAIN);
        match strace(case, records) {
            Err(why) => bench.missing(&name, &why),
            Ok(table) => {
                for line in table.lines() {
                    println!("    {line}");
                }
                let calls = total_calls(&table).expect("a total in the table of strace");
                bench.value(&name, calls as f64 / records as f64, PLAIN);
            }
        }
    }
}

/// The table of `strace -c`, or why there is none.
fn strace(case: &str, records: u64) -> Result<String, String> {
    if let Err(error) = Command::new("strace").arg("-V").output() {
        return Err(format!("strace (Debian package `strace`): {error}"));
    }
    let file = std::env::temp_dir().join(format!("subfeed-strace-{}", std::process::id()));
    let path = file.to_str().expect("a path of ours").to_owned();
    let launcher = ["strace", "-f", "-c", "-b", "execve", "-o", &path];
    let output =
        fresh::command(&launcher, case, &[records, LINE as u64]).output().expect("run strace");
    let table = std::fs::read_to_string(&file).unwrap_or_default();
    let _ = std::fs::remove_file(&file);
    if !output.status.success() || table.is_empty() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    Ok(table)
}

/// The number in the column `calls` of the line `total`.
fn total_calls(table: &str) -> Option<u64> {
    let total = table.lines().find(|line| line.trim_end().ends_with("total"))?;
    total.split_ascii_whitespace().nth(3)?.parse().ok()
}
