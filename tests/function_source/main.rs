//! spdl's `iterate_in_subprocess` and `run_pipeline_in_subprocess`: its tests, and for each of its
//! weaknesses a test of the opposite.
//!
//! No test harness: the children are this program again, and have to enter at the top of `main`. The tests
//! run one after the other, so each may look at what this process has.

#[path = "../common/mod.rs"]
mod common;
mod endings;
mod failures;
mod functions;
mod passes;
mod pipelines;

use std::process::ExitCode;
use std::time::Instant;

/// A test and its name.
type Test = (&'static str, fn());

/// `tests![a, b]`: the tests of a module, for `main`.
#[macro_export]
macro_rules! tests {
    ($($test:ident),* $(,)?) => {
        pub(crate) const TESTS: &[(&str, fn())] = &[$((stringify!($test), $test)),*];
    };
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "--unserved") {
        return endings::unserved();
    }
    functions::registry().serve();
    if let Some(("--scene", scene)) = args.first().map(String::as_str).zip(args.get(1)) {
        return endings::play(scene, &args[2..]);
    }
    let all: Vec<Test> =
        [passes::TESTS, failures::TESTS, endings::TESTS, pipelines::TESTS].concat();
    if args.iter().any(|arg| arg == "--list") {
        all.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let exact = args.iter().any(|arg| arg == "--exact");
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let fits = |name: &str, filter: &str| {
        if exact { name == filter } else { name.contains(filter) }
    };
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|f| fits(name, f));
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, test) in all.into_iter().filter(|(name, _)| wanted(name)) {
        let start = Instant::now();
        let result = std::panic::catch_unwind(|| common::within(test));
        println!(
            "test {name} ... {} ({:.2} s)",
            if result.is_ok() { "ok" } else { "FAILED" },
            start.elapsed().as_secs_f64()
        );
        match result {
            Ok(()) => passed += 1,
            Err(_) => failed.push(name),
        }
    }
    println!("\ntest result: {passed} passed; {} failed {failed:?}", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
