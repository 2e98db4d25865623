//! Workers that cannot be killed, or not be reaped, hold up nobody.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use subfeed::source::iterate_in_subprocess;
use subfeed::{ErrorKind, FeedExt, Template};

use crate::alone;
use crate::common::{Barrier, Belongings, child, children, eventually, hostile, is_running, soon};

/// A cgroup whose processes are frozen: no signal reaches them, SIGKILL included.
///
/// Only version 1 of the kernel's freezer does that; a process that version 2 has frozen can be killed.
struct Freezer(PathBuf);

impl Freezer {
    /// `None` where this process may not make one.
    fn new() -> Option<Self> {
        let path = PathBuf::from(format!("/sys/fs/cgroup/freezer/subfeed-{}", std::process::id()));
        if let Err(error) = fs::create_dir(&path) {
            let line = format!("skipped, no {}: {error}\n", path.display());
            let all = std::env::var_os("SUBFEED_ALL_TOOLS").is_some_and(|value| value == "1");
            assert!(!all || error.kind() == std::io::ErrorKind::NotFound, "{line}");
            let _ = std::io::stderr().write_all(line.as_bytes());
            return None;
        }
        Some(Self(path))
    }

    fn freeze(&self, pids: impl IntoIterator<Item = u32>) {
        for pid in pids {
            fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("a process moves");
        }
        self.state("FROZEN");
        eventually("the workers are frozen", || self.reads("freezer.state") == "FROZEN");
    }

    fn state(&self, state: &str) {
        fs::write(self.0.join("freezer.state"), state).expect("a state");
    }

    fn reads(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).expect("a file").trim().to_owned()
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.state("THAWED");
        eventually("the cgroup can be removed", || fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
fn a_worker_that_sleeps_in_the_kernel_holds_up_no_drop_and_is_reaped_when_it_wakes() {
    // Asked here, where it is heard that there is none.
    if Freezer::new().is_none() {
        return;
    }
    alone!(|| {
        let before = Belongings::now();
        let freezer = Freezer::new().expect("as just before");
        let mut feed = (0..).map(|n| n.to_string()).feed_subprocesses(Template::new("cat"), 3, 9);
        feed.next().unwrap().unwrap();
        eventually("all workers run", || children().len() == 3);
        let workers = children();
        freezer.freeze(workers.clone());
        soon(|| drop(feed));
        assert!(workers.iter().all(|&pid| is_running(pid)), "they cannot have gone");
        drop(freezer);
        before.restored();
    });
}

#[test]
fn a_packet_whose_worker_sleeps_in_the_kernel_is_retried_by_another() {
    // Asked here, where it is heard that there is none.
    if Freezer::new().is_none() {
        return;
    }
    alone!(|| {
        let before = Belongings::now();
        let freezer = Freezer::new().expect("as just before");
        for (retries, at_the_end) in [(1, false), (0, false), (1, true)] {
            let go = Barrier::default();
            let passed = go.clone();
            let source = (0..5).map(move |n| {
                if n == 1 {
                    passed.pass();
                }
                n.to_string()
            });
            let template = child("echo").packet_timeout(Duration::from_secs(2)).retries(retries);
            let template = if at_the_end { template.kill_sequence([]) } else { template };
            let mut feed = source.feed_subprocesses_ordered(template, 1, 5);
            let monitor = feed.monitor();
            assert_eq!(feed.next().unwrap().unwrap(), "0");
            freezer.freeze(children());
            go.open();
            let items: Vec<_> = soon(|| feed.collect());
            assert_eq!(items.len(), 4);
            let failed: Vec<_> = items.iter().filter_map(|item| item.as_ref().err()).collect();
            if retries == 0 {
                assert_eq!(failed.len(), 1);
                assert_eq!((failed[0].kind(), failed[0].packet()), (ErrorKind::Timeout, Some(1)));
                assert!(failed[0].to_string().contains("although it was killed"), "{}", failed[0]);
            } else {
                assert!(failed.is_empty(), "{failed:?}");
            }
            let snapshot = monitor.snapshot();
            assert!(snapshot.hint.is_some_and(|hint| hint.contains("left behind")));
            assert_eq!(snapshot.timeouts, 1);
            freezer.state("THAWED");
            eventually("it is reaped", || children().is_empty());
        }
        drop(freezer);
        before.restored();
    });
}

#[test]
fn a_source_that_sleeps_in_the_kernel_holds_up_no_drop_and_is_reaped_when_it_wakes() {
    // Asked here, where it is heard that there is none.
    if Freezer::new().is_none() {
        return;
    }
    alone!(|| {
        let before = Belongings::now();
        let freezer = Freezer::new().expect("as just before");
        let source = iterate_in_subprocess(Template::shell("yes"), 9);
        let mut records = source.iter();
        records.next().unwrap().unwrap();
        let command = children();
        freezer.freeze(command.clone());
        soon(|| drop(records));
        assert!(command.iter().all(|&pid| is_running(pid)), "it cannot have gone");
        drop(freezer);
        before.restored();
    });
}

/// Traces workers, and does not wait for them: their zombies are its own until it goes.
struct Tracer(Child);

impl Tracer {
    fn new() -> Self {
        let child = Command::new(hostile())
            .arg("trace")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Self(child.expect("a tracer"))
    }

    /// Whether it may.
    fn trace(&mut self, pids: impl IntoIterator<Item = u32>) -> bool {
        let mut answers = BufReader::new(self.0.stdout.take().expect("a pipe")).lines();
        let questions = self.0.stdin.as_mut().expect("a pipe");
        pids.into_iter().all(|pid| {
            writeln!(questions, "{pid}").expect("a question");
            answers.next().expect("an answer").expect("an answer") == "yes"
        })
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_worker_that_is_traced_holds_up_neither_the_end_nor_a_drop() {
    alone!(|| {
        let before = Belongings::now();
        for dropped in [true, false] {
            let go = Barrier::default();
            let passed = go.clone();
            let source = (0..3).map(move |n| {
                if n == 2 {
                    passed.pass();
                }
                n.to_string()
            });
            let mut feed = source.feed_subprocesses_ordered(Template::new("cat"), 2, 3);
            feed.next().unwrap().unwrap();
            eventually("all workers run", || children().len() == 2);
            let workers = children();
            let mut tracer = Tracer::new();
            if !tracer.trace(workers.clone()) {
                // Only where not even root may: a sandbox, or Yama.
                let _ = std::io::stderr().write_all(b"skipped, nobody may trace\n");
                return;
            }
            go.open();
            soon(move || if dropped { drop(feed) } else { assert_eq!(feed.count(), 2) });
            let zombies = children();
            assert!(workers.is_subset(&zombies), "the tracer has not waited: {zombies:?}");
            drop(tracer);
            before.restored();
        }
    });
}
