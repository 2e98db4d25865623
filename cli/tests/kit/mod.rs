//! What the tests of the command share.
#![allow(dead_code, unused_imports, reason = "each test program uses some of it")]

#[path = "../../../tests/common/basics.rs"]
mod basics;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use nix::sys::signal::kill;
use nix::unistd::Pid;

pub(crate) use basics::{Dir, eventually};

pub(crate) fn subfeed() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_subfeed"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it with this input to its end.
#[track_caller]
pub(crate) fn run(args: &[&str], input: &[u8]) -> Output {
    fed(subfeed().args(args), input)
}

/// Runs this with this input to its end.
#[track_caller]
pub(crate) fn fed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // It may end before it has read everything.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("a writer");
    output
}

/// Runs this in a shell in which `subfeed` is the command.
#[track_caller]
pub(crate) fn shell(script: &str, input: &[u8]) -> Output {
    let function = format!("subfeed() {{ '{}' \"$@\"; }}\n{script}", env!("CARGO_BIN_EXE_subfeed"));
    let mut command = Command::new("sh");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    fed(command.args(["-c", &function]), input)
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
pub(crate) fn ended(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}: {}", output.status, text(&output.stderr));
}

/// Answers each line with itself, and leaves its pid in a file, a line for each session.
pub(crate) fn noted(pids: &Path, then: &str) -> Vec<String> {
    let script = format!("echo $$ >> '{}'; {then}", pids.display());
    vec!["--".to_owned(), "sh".to_owned(), "-c".to_owned(), script]
}

/// Every session that was started and noted itself in the file `pids`.
pub(crate) fn sessions(dir: &Dir) -> Vec<i32> {
    dir.read("pids").lines().map(|pid| pid.parse().expect("a pid")).collect()
}

#[track_caller]
pub(crate) fn nobody_is_left(dir: &Dir) {
    let sessions = sessions(dir);
    assert!(!sessions.is_empty(), "nobody was started");
    for pid in sessions {
        assert!(kill(Pid::from_raw(pid), None).is_err(), "{pid} is left");
    }
}

#[track_caller]
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let mut status = None;
    eventually("it ends", || {
        status = child.try_wait().expect("a child");
        status.is_some()
    });
    status.expect("it has ended")
}

pub(crate) fn lines(n: usize) -> Vec<u8> {
    (0..n).flat_map(|k| format!("line {k}\n").into_bytes()).collect()
}

/// Writes a file of the test's own.
pub(crate) fn write(dir: &Dir, name: &str, bytes: &[u8]) -> String {
    fs::write(dir.path(name), bytes).expect("a file");
    dir.at(name)
}
