//! A parent that is killed by SIGKILL: its workers see the end of their input, or die with it.

use std::process::{Child, Command, Stdio};

use subfeed::{FeedExt, Template};

use crate::common::{Dir, child, eventually, is_running, kill, within};

const ROLE: &str = "SUBFEED_TEST_PARENT";

/// A process with one running feed, whose worker has left its pid in the directory.
struct Parent {
    process: Child,
    worker: u32,
}

impl Parent {
    /// Runs this program again, for the test of this name; it comes to [`be`].
    fn start(test: &str, dir: &Dir) -> Self {
        let process = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(ROLE, dir.path(""))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this program again");
        eventually("the worker runs", || dir.path("pid").exists());
        let worker = dir.read("pid").trim().parse().expect("a pid");
        assert!(is_running(worker));
        Self { process, worker }
    }

    fn is_killed(&mut self) {
        self.process.kill().expect("a process");
        self.process.wait().expect("a process");
    }
}

/// In the parent's process: feeds one item to each worker, then waits to be killed.
fn be(template: impl FnOnce(&str) -> Template) {
    let Some(dir) = std::env::var_os(ROLE) else { return };
    let dir = dir.into_string().expect("a path of text");
    let mut feed = (0..).map(|n| n.to_string()).feed_subprocesses(template(&dir), 1, 3);
    feed.next().expect("an item").expect("a reply");
    loop {
        std::thread::park();
    }
}

/// Leaves its pid, and never looks at its stdin again once it has answered.
fn deaf(dir: &str) -> Template {
    let script =
        "read -r x; echo $x; echo $$ > \"$0/draft\"; mv \"$0/draft\" \"$0/pid\"; exec sleep 300";
    Template::new("sh").arg("-c").arg(script).arg(dir)
}

fn is_parent() -> bool {
    std::env::var_os(ROLE).is_some()
}

#[test]
fn workers_of_a_killed_parent_see_the_end_of_their_input() {
    if is_parent() {
        return be(|dir| {
            let script = "echo $$ > \"$0/draft\"; mv \"$0/draft\" \"$0/pid\"; exec cat";
            Template::new("sh").arg("-c").arg(script).arg(dir)
        });
    }
    within(|| {
        let dir = Dir::new();
        let name = "parent::workers_of_a_killed_parent_see_the_end_of_their_input";
        let mut parent = Parent::start(name, &dir);
        parent.is_killed();
        eventually("the worker goes", || !is_running(parent.worker));
    });
}

#[test]
fn a_worker_that_looks_at_nothing_outlives_a_killed_parent() {
    if is_parent() {
        return be(deaf);
    }
    within(|| {
        let dir = Dir::new();
        let name = "parent::a_worker_that_looks_at_nothing_outlives_a_killed_parent";
        let mut parent = Parent::start(name, &dir);
        parent.is_killed();
        // Whoever would kill it would have done so by the time that another worker has come and gone.
        let after = ["x"].into_iter().feed_subprocesses(child("echo"), 1, 1);
        assert_eq!(after.count(), 1);
        assert!(is_running(parent.worker));
        kill(parent.worker);
    });
}

#[test]
#[cfg(target_os = "linux")]
fn with_kill_with_parent_no_worker_outlives_a_killed_parent() {
    if is_parent() {
        return be(|dir| deaf(dir).kill_with_parent());
    }
    within(|| {
        let dir = Dir::new();
        let name = "parent::with_kill_with_parent_no_worker_outlives_a_killed_parent";
        let mut parent = Parent::start(name, &dir);
        parent.is_killed();
        eventually("the worker goes", || !is_running(parent.worker));
    });
}

#[test]
fn with_kill_with_parent_workers_outlive_the_thread_that_made_the_feed() {
    within(|| {
        let mut feed = std::thread::spawn(|| {
            let mut feed = (0..100).map(|n| n.to_string()).feed_subprocesses_ordered(
                child("pid").kill_with_parent(),
                1,
                3,
            );
            let first = feed.next().expect("an item").expect("a reply");
            (first, feed)
        })
        .join()
        .expect("a feed");
        let pids = feed.1.by_ref().map(|pid| pid.expect("a reply"));
        assert_eq!(pids.filter(|pid| *pid == feed.0).count(), 99);
    });
}
