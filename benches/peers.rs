//! Subfeed and what one would pick instead, at the same work: `cargo bench --bench peers
//! [-- --quick] [NAME PART]...`.
//!
//! Lines of 100 bytes through 2 `cat`s. Each ratio is a rate of subfeed over a rate of the peer, so
//! above 1 subfeed is faster; the two sides need not do the same *amount* of work (a peer that is a
//! thousand times slower gets less of it), only the same work per record. Clocks start before the
//! children are spawned. What each peer is, how it was tuned, and what it is spared, is said in
//! `common/baselines.rs`.
//!
//! `over_careful` is what *two blocking threads per child with a reorder map* means: the design as
//! one writes it by hand, a record at a time over channels. `over_careful_in_chunks` is the same after
//! its author has found out that records must travel together, with the chunk size that is best for
//! this record size and this machine, and no answer to a source that blocks, a child that dies, an
//! early end: the rate that is left to gain by hand.
//!
//! A peer that is not installed is named as missing: GNU parallel (Debian package `parallel`), and
//! the Python package (`python3 -m venv DIR; DIR/bin/pip install subfeed==0.1.1; export
//! SUBFEED_PYTHON=DIR/bin/python`).

mod common;

use common::baselines::{self, Careful, Lines, Missing, Parallel, Pipes, Run};
use common::feeds::{Records, WINDOW, WORKERS};
use common::harness::{Bench, GB_PER_S, K_PER_S, M_PER_S, Side};
use subfeed::Order;

const LINE: usize = 100;

fn main() {
    let mut bench = Bench::from_args("peers");
    raw_pipe(&mut bench);
    careful(&mut bench);
    lockstep(&mut bench);
    gnu_parallel(&mut bench);
    python(&mut bench);
    process_per_record(&mut bench);
    bench.finish();
}

/// What a feed is given in each run.
fn ours(bench: &Bench) -> Records {
    Records::of_lines(LINE, bench.amount(1 << 29, 1 << 27))
}

fn raw_pipe(bench: &mut Bench) {
    let ours = ours(bench);
    bench.pair(
        "over_raw_pipe",
        Side::new("blocks", GB_PER_S, || ours.in_blocks(Order::Input).bytes_per_s()),
        Side::new("raw pipe", GB_PER_S, || ours.raw().bytes_per_s()),
    );
    bench.pair(
        "owned_over_raw_pipe",
        Side::new("owned", GB_PER_S, || ours.owned().bytes_per_s()),
        Side::new("raw pipe", GB_PER_S, || ours.raw().bytes_per_s()),
    );
}

fn careful(bench: &mut Bench) {
    let ours = ours(bench);
    let lines = Lines::of(LINE);
    bench.pair(
        "over_careful",
        Side::new("owned", M_PER_S, || ours.owned().records_per_s()),
        Side::new("a record at a time", M_PER_S, || {
            baselines::careful_by_record(lines, ours.count, WORKERS, WINDOW).records_per_s()
        }),
    );
    let chunk = 64 * 1024 / LINE;
    let how = Careful { children: WORKERS, chunk, window: WINDOW, pipes: Pipes::Enlarged };
    bench.pair(
        "over_careful_in_chunks",
        Side::new("owned", M_PER_S, || ours.owned().records_per_s()),
        Side::new("in chunks", M_PER_S, || {
            baselines::careful(lines, ours.count, how).records_per_s()
        }),
    );
}

fn lockstep(bench: &mut Bench) {
    let ours = ours(bench);
    let lines = Lines::of(LINE);
    let records = bench.amount(100_000, 20_000);
    bench.pair(
        "over_pariter",
        Side::new("owned", K_PER_S, || ours.owned().records_per_s()),
        Side::new("pariter", K_PER_S, || {
            baselines::lockstep_pariter(lines, records, WORKERS, WINDOW).records_per_s()
        }),
    );
    bench.pair(
        "over_rayon",
        Side::new("owned", K_PER_S, || ours.owned().records_per_s()),
        Side::new("par_bridge", K_PER_S, || {
            baselines::lockstep_rayon(lines, records, WORKERS).records_per_s()
        }),
    );
}

fn gnu_parallel(bench: &mut Bench) {
    // Enough that the start of Perl does not count.
    let ours = Records::of_lines(LINE, bench.amount(1 << 30, 1 << 28));
    for (name, order, mode, block) in [
        ("over_gnu_parallel_keep_order", Order::Input, Parallel::PipeKeepOrder, "32M"),
        ("over_gnu_parallel_round_robin", Order::Completion, Parallel::RoundRobin, "1M"),
    ] {
        if let Err(Missing(why)) = baselines::find_gnu_parallel() {
            bench.missing(name, &why);
            continue;
        }
        bench.pair(
            name,
            Side::new("blocks", GB_PER_S, || ours.in_blocks(order).bytes_per_s()),
            Side::new("parallel", GB_PER_S, || {
                installed(baselines::gnu_parallel(ours.lines, ours.count, WORKERS, mode, block))
                    .bytes_per_s()
            }),
        );
    }
}

fn python(bench: &mut Bench) {
    let ours = ours(bench);
    let singles = bench.amount(100_000, 20_000);
    for (name, count, per_item) in [
        ("over_python_subfeed", singles, 1),
        ("over_python_subfeed_64k_items", ours.count, (64 * 1024 / LINE) as u64),
    ] {
        if let Err(Missing(why)) = baselines::find_python_subfeed() {
            bench.missing(name, &why);
            continue;
        }
        bench.pair(
            name,
            Side::new("blocks", GB_PER_S, || ours.in_blocks(Order::Input).bytes_per_s()),
            Side::new("Python, nothing read", GB_PER_S, || {
                installed(baselines::python_subfeed(ours.lines, count, WORKERS, per_item))
                    .bytes_per_s()
            }),
        );
    }
}

fn process_per_record(bench: &mut Bench) {
    let ours = ours(bench);
    let records = bench.amount(1_000, 300);
    bench.pair(
        "over_process_per_record",
        Side::new("owned", K_PER_S, || ours.owned().records_per_s()),
        Side::new("a process each", K_PER_S, || {
            baselines::process_per_record(ours.lines, records).records_per_s()
        }),
    );
}

fn installed(run: Result<Run, Missing>) -> Run {
    run.expect("it was there a moment ago")
}
