//! The ends of a worker: side inputs and outputs, files, first and last words, buffering, draining.
//!
//! The workers are small programs in `sh`, `awk` and, where descriptors of two digits or a terminal
//! matter, Perl and Python; a test names on stderr what it skips because a program is missing.

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod buffering;
mod draining;
mod files;
mod sides;
mod words;

use std::process::{Command, Stdio};

use subfeed::{BoxError, Request, Template};

/// Whether a program is there; if not, says what is skipped.
fn has(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let there = command.status().is_ok();
    if !there {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        eprintln!("skipped: {test} needs {program}, which is not installed");
    }
    there
}

/// Pairs: the first part goes to stdin, the second to the side input `side`.
#[allow(clippy::unnecessary_wraps, reason = "what encode takes")]
fn in_step<A: AsRef<[u8]>, B: AsRef<[u8]>>(
    pair: &(A, B),
    request: &mut Request<'_>,
) -> Result<(), BoxError> {
    request.push(&pair.0);
    request.side("side").push(&pair.1);
    Ok(())
}

/// `sh -c script` with the side input `side`, on descriptor 3.
fn sh_beside(script: &str) -> Template {
    Template::shell(format!("exec 3<{{fd:side}}; {script}")).side_input("side")
}

/// `perl -e script`, unbuffered.
fn perl(script: &str) -> Template {
    Template::new("perl").raw_arg("-e").raw_arg(format!("$| = 1; {script}"))
}
