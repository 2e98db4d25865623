//! The programs do what they say.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A tool that says in a file of its own that it lives, and answers every tenth of a second.
const SLOW: &str =
    r#"trap '' INT TERM; : >"$DIR/$$"; while read -r x; do sleep 0.1; echo "$x"; done"#;

fn filter(dir: &Path, tool: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_filter"));
    command.args(tool).env("DIR", dir);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().expect("the filter")
}

/// A folder for the notes of one test's workers.
fn folder(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a folder");
    dir
}

fn interrupt(child: &Child) {
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).expect("it runs");
}

/// The workers that have run, none of which does any more.
fn assert_nobody_is_left(dir: &Path) {
    let mut workers = 0;
    for note in fs::read_dir(dir).expect("a folder").flatten() {
        let pid: i32 = note.file_name().to_str().expect("a number").parse().expect("a number");
        assert!(kill(Pid::from_raw(pid), None).is_err(), "worker {pid} is left behind");
        workers += 1;
    }
    assert!(workers > 0);
    fs::remove_dir_all(dir).expect("it goes");
}

/// Lines without an end, until nobody reads them.
fn endless(child: &mut Child) {
    let mut stdin = child.stdin.take().expect("a pipe");
    thread::spawn(move || (0..).try_for_each(|n: u64| writeln!(stdin, "{n}")));
}

#[test]
fn a_filter_loses_no_line_whatever_is_in_it() {
    let dir = folder("lines");
    let mut child = filter(&dir, &["cat"]);
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"plain\n\xff not text\n\nlast, without an end").expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    assert_eq!(output.stdout, b"plain\n\xff not text\n\nlast, without an end\n");
    fs::remove_dir_all(dir).expect("it goes");
}

#[test]
fn the_first_ctrl_c_answers_what_was_read() {
    let dir = folder("soft");
    let mut child = filter(&dir, &["sh", "-c", SLOW]);
    let mut stdin = child.stdin.take().expect("a pipe");
    (0..40).for_each(|n| writeln!(stdin, "{n}").expect("it reads"));
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut first = String::new();
    out.read_line(&mut first).expect("a line");
    interrupt(&child);
    // The input stays open, and the filter waits for it: the first line that comes after the stop is the last.
    let giving = thread::spawn(move || {
        (40..).try_for_each(|n: u64| {
            thread::sleep(Duration::from_millis(10));
            writeln!(stdin, "{n}")
        })
    });
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(giving.join().expect("a thread").is_err(), "nobody reads any more");
    // Everything that was read is there, in order.
    let text = first + &rest;
    let lines: Vec<u64> = text.lines().map(|line| line.parse().expect("a number")).collect();
    assert!(lines.len() >= 40, "{lines:?}");
    assert!(lines.iter().copied().eq(0..lines.len() as u64), "{lines:?}");
    assert_nobody_is_left(&dir);
}

#[test]
fn the_second_ctrl_c_ends_it_at_once_and_leaves_nobody_behind() {
    let dir = folder("hard");
    let mut child = filter(&dir, &["sh", "-c", SLOW]);
    endless(&mut child);
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    interrupt(&child);
    // Two signals at a time may be one; the first is seen when it has stopped reading, which shows nowhere.
    let start = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        thread::sleep(Duration::from_millis(50));
        let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT);
    }
    // A thousand lines that were read would have taken 25 seconds.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert_nobody_is_left(&dir);
}

#[test]
fn a_feed_in_an_asynchronous_program_ends_when_nobody_wants_it() {
    let output = Command::new(env!("CARGO_BIN_EXE_tokio")).output().expect("the program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
