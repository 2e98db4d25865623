//! The baselines by themselves, so that their figures can be looked at: `cargo bench --bench
//! baselines [-- --quick] [NAME PART]...`. What each is, is in `common/baselines.rs`.

mod common;

use std::time::Duration;

use common::baselines::{self, Careful, Lines, Missing, Parallel, Pipes, Run};
use common::harness::{
    Bench, GB_PER_S, K_PER_S, M_PER_S, MICROS, MILLIS, PLAIN, Side, Unit, pinned,
};

const CHILDREN: usize = 2;
const WINDOW: usize = 10_000;

fn main() {
    baselines::serve_if_asked();
    let mut bench = Bench::from_args("baselines");
    raw_pipe(&mut bench);
    careful(&mut bench);
    lockstep(&mut bench);
    peers(&mut bench);
    latency(&mut bench);
    scheduling(&mut bench);
    bench.finish();
}

fn raw_pipe(bench: &mut Bench) {
    let bytes = bench.amount(1 << 30, 1 << 28);
    for (name, lines) in [
        ("16", Lines::of(16)),
        ("100", Lines::of(100)),
        ("4096", Lines::of(4096)),
        ("64k_prefixed", Lines::length_prefixed(64 * 1024)),
    ] {
        let records = lines.count_for(bytes);
        let run = |pipes| baselines::raw_pipe(lines, records, CHILDREN, pipes).bytes_per_s();
        bench.pair(
            &format!("raw_pipe_{name}_enlarged_over_as_they_come"),
            Side::new("enlarged", GB_PER_S, || run(Pipes::Enlarged)),
            Side::new("as they come", GB_PER_S, || run(Pipes::AsTheyCome)),
        );
    }
}

fn careful(bench: &mut Bench) {
    for size in [16, 100, 4096] {
        let lines = Lines::of(size);
        let records = lines.count_for(bench.amount(1 << 25, 1 << 23));
        bench.alone(&format!("careful_by_record_{size}"), M_PER_S, || {
            baselines::careful_by_record(lines, records, CHILDREN, WINDOW).records_per_s()
        });
        let fits = (64 * 1024 / size).clamp(1, 1024);
        for chunk in [1, fits / 4, fits] {
            let bytes = bench.amount(1 << 28, 1 << 26) / if chunk == 1 { 8 } else { 1 };
            let records = lines.count_for(bytes);
            for (pipes, kind) in [(Pipes::Enlarged, "_enlarged"), (Pipes::AsTheyCome, "")] {
                let how = Careful { children: CHILDREN, chunk, window: WINDOW, pipes };
                bench.alone(&format!("careful_{size}_chunk_{chunk}{kind}"), M_PER_S, || {
                    baselines::careful(lines, records, how).records_per_s()
                });
            }
        }
    }
}

fn lockstep(bench: &mut Bench) {
    for size in [16, 100, 4096] {
        let lines = Lines::of(size);
        let records = bench.amount(100_000, 20_000);
        for threads in [2, 8] {
            for buffer in [2 * threads, 64, WINDOW] {
                bench.alone(
                    &format!("pariter_{size}_threads_{threads}_buffer_{buffer}"),
                    K_PER_S,
                    || baselines::lockstep_pariter(lines, records, threads, buffer).records_per_s(),
                );
            }
            bench.alone(&format!("rayon_{size}_threads_{threads}"), K_PER_S, || {
                baselines::lockstep_rayon(lines, records, threads).records_per_s()
            });
        }
    }
}

fn peers(bench: &mut Bench) {
    let gnu = baselines::find_gnu_parallel().err();
    let python = baselines::find_python_subfeed().err();
    for size in [16, 100, 4096] {
        let lines = Lines::of(size);
        let records = lines.count_for(bench.amount(1 << 29, 1 << 27));
        for (mode, kind) in
            [(Parallel::PipeKeepOrder, "keep_order"), (Parallel::RoundRobin, "round_robin")]
        {
            for block in ["1M", "4M", "16M"] {
                let name = format!("gnu_parallel_{size}_{kind}_{block}");
                peer(bench, &name, GB_PER_S, gnu.as_ref(), || {
                    baselines::gnu_parallel(lines, records, CHILDREN, mode, block)
                        .map(Run::bytes_per_s)
                });
            }
        }
        for (per_item, count) in [
            (1, bench.amount(100_000, 20_000)),
            ((64 * 1024 / size) as u64, lines.count_for(bench.amount(1 << 28, 1 << 27))),
        ] {
            let name = format!("python_subfeed_{size}_lines_per_item_{per_item}");
            peer(bench, &name, K_PER_S, python.as_ref(), || {
                baselines::python_subfeed(lines, count, CHILDREN, per_item).map(Run::records_per_s)
            });
        }
    }
    let records = bench.amount(1_000, 300);
    bench.alone("process_per_record_100", K_PER_S, || {
        baselines::process_per_record(Lines::of(100), records).records_per_s()
    });
}

/// A peer that may not be installed.
fn peer(
    bench: &mut Bench,
    name: &str,
    unit: Unit,
    missing: Option<&Missing>,
    mut run: impl FnMut() -> Result<f64, Missing>,
) {
    match missing {
        Some(Missing(why)) => bench.missing(name, why),
        None => {
            bench.alone(name, unit, || run().expect("it was there a moment ago"));
        }
    }
}

fn latency(bench: &mut Bench) {
    let record = Lines::of(100).record;
    let rounds = bench.amount(20_000, 5_000) as usize;
    let paced = bench.amount(100, 30) as usize;
    let pace = Duration::from_millis(10);
    for (kind, pin) in [("pinned", true), ("unpinned", false)] {
        // Pinning is for a figure, not for all that follow.
        let measured = |f: &dyn Fn() -> f64| if pin { pinned(f) } else { f() };
        bench.alone(&format!("ping_pong_{kind}"), MICROS, || {
            measured(&|| baselines::ping_pong(record, rounds).median())
        });
        bench.alone(&format!("ping_pong_10ms_pace_{kind}"), MICROS, || {
            measured(&|| baselines::ping_pong_paced(record, paced, pace).median())
        });
        for children in [1, 8] {
            bench.alone(&format!("first_reply_{children}_{kind}"), MILLIS, || {
                measured(&|| baselines::first_reply(record, children).as_secs_f64())
            });
        }
    }
}

fn scheduling(bench: &mut Bench) {
    let count = bench.amount(4_000, 1_000) as usize;
    let mean = Duration::from_millis(1);
    let even = baselines::pareto_times(baselines::PARETO_SEED, count, mean);
    let mut one_slow = even.clone();
    one_slow[count / 3] = 100 * mean;
    for (kind, times) in [("pareto", even), ("one_slow", one_slow)] {
        let asked = baselines::list_schedule(&times, 8);
        if bench.wants("ideal_schedule") {
            bench.value(&format!("ideal_schedule_as_asked_{kind}"), asked.as_secs_f64(), MILLIS);
        }
        bench.alone(&format!("sleepers_by_hand_over_ideal_{kind}"), PLAIN, || {
            baselines::sleepers_by_hand(&times, 8).over_ideal(8)
        });
    }
}
