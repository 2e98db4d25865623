//! A case in a process of its own, which is this binary again: what a process has been through (its
//! heap, its peak, its threads) is part of some figures.

use std::collections::HashMap;
use std::process::{Command, Stdio};

/// Set in the environment of this binary, it names the case to run.
const CASE: &str = "SUBFEED_BENCH_CASE";

/// What a case has found out, by name.
#[derive(Clone, Debug)]
pub(crate) struct Findings(HashMap<String, f64>);

impl Findings {
    /// One of them.
    ///
    /// # Panics
    /// If the case did not say it: a fault of the bench.
    pub(crate) fn get(&self, name: &str) -> f64 {
        *self.0.get(name).unwrap_or_else(|| panic!("the case says nothing of {name}"))
    }
}

/// A name, and what is run in a process of its own under that name, with these numbers.
pub(crate) type Case = (&'static str, fn(&[u64]));

/// Runs a case if this process was started for one, and does not return then. To be the first thing in
/// `main`, with everything that [`run`] may name.
pub(crate) fn serve_if_asked(cases: &[Case]) {
    let Ok(asked) = std::env::var(CASE) else { return };
    let mut words = asked.split(' ');
    let name = words.next().unwrap_or_default();
    let numbers: Vec<u64> = words.map(|word| word.parse().expect("a number")).collect();
    let (_, case) = cases.iter().find(|(known, _)| *known == name).expect("a case of this bench");
    case(&numbers);
    std::process::exit(0);
}

/// In a case: tells one finding.
pub(crate) fn tell(name: &str, figure: f64) {
    println!("{name} {figure}");
}

/// The command that runs a case, perhaps behind another (`strace -o FILE`).
pub(crate) fn command(launcher: &[&str], case: &str, numbers: &[u64]) -> Command {
    let ourselves = std::env::current_exe().expect("the path of this binary");
    let mut command = match launcher.split_first() {
        None => Command::new(ourselves),
        Some((program, args)) => {
            let mut command = Command::new(program);
            command.args(args).arg(ourselves);
            command
        }
    };
    let numbers: String = numbers.iter().map(|number| format!(" {number}")).collect();
    command.env(CASE, format!("{case}{numbers}")).stdin(Stdio::null());
    command
}

/// Runs a case in a process of its own and returns what it told.
///
/// # Panics
/// If it fails.
pub(crate) fn run(case: &str, numbers: &[u64]) -> Findings {
    findings(&mut command(&[], case, numbers))
}

/// What a [`command`] told.
///
/// # Panics
/// If it fails.
pub(crate) fn findings(command: &mut Command) -> Findings {
    let output = command.stderr(Stdio::inherit()).output().expect("start this binary again");
    assert!(output.status.success(), "{command:?}: {}", output.status);
    let told = String::from_utf8_lossy(&output.stdout);
    let one = |line: &str| {
        let (name, figure) = line.split_once(' ')?;
        Some((name.to_owned(), figure.parse().ok()?))
    };
    Findings(told.lines().filter_map(one).collect())
}
