//! Who is slow is not judged to wait, and where it cannot be told nobody is.

use std::time::Duration;

use subfeed::watch::WorkerState;
use subfeed::{FeedExt, Launcher, Snapshot, Template};

use crate::common::tools::here;
use crate::common::{Barrier, Dir, eventually, numbers, texts, within};

/// Takes `seconds` over each record, as `work` says, while another thread sits in a read of stdin.
fn python(work: &str, seconds: f64) -> Template {
    let script = format!(
        "import queue, sys, threading, time
records = queue.Queue()
def read():
    for line in sys.stdin: records.put(line)
    records.put(None)
threading.Thread(target=read, daemon=True).start()
while (record := records.get()) is not None:
    until = time.monotonic() + {seconds}
    {work}
    print(record, end='', flush=True)
"
    );
    Template::new("python3").arg("-c").arg(script)
}

fn is_left_alone(template: Template, n: u64) {
    within(move || {
        let feed = numbers(n).feed_subprocesses_ordered(template, 2, 100);
        let monitor = feed.monitor();
        assert_eq!(texts(feed).len(), n as usize);
        let snapshot = monitor.snapshot();
        assert_eq!((snapshot.recycles, snapshot.deaths, snapshot.signals), (0, 0, 0));
        assert!(snapshot.probes > 0, "nobody has looked: {snapshot:?}");
    });
}

#[test]
fn a_worker_that_computes_for_two_seconds_is_not_recycled() {
    if here(&["python3"]) {
        is_left_alone(python("while time.monotonic() < until: pass", 2.0), 3);
    }
}

#[test]
fn a_worker_that_sleeps_for_two_seconds_is_not_recycled() {
    if here(&["python3"]) {
        is_left_alone(python("time.sleep(until - time.monotonic())", 2.0), 4);
    }
}

#[test]
fn a_worker_whose_child_computes_is_not_recycled() {
    within(|| {
        // The shell waits, the grandchild sleeps.
        let template = Template::shell("while read -r x; do sleep 0.5; echo $x; done");
        is_left_alone(template, 4);
    });
}

#[test]
fn a_worker_that_closes_its_stdin_and_stays_is_replaced() {
    within(|| {
        let dir = Dir::new();
        let flag = dir.at("flag");
        // The first session reads nothing of what lies in its pipe, and there is no next write to tell.
        let script = format!("mkdir {flag} 2>/dev/null && exec sleep 300 <&-; exec cat");
        let feed = numbers(3).feed_subprocesses_ordered(Template::shell(script).retries(1), 1, 100);
        let replies: Vec<_> = feed.map(|reply| reply.expect("a reply").to_string()).collect();
        assert_eq!(replies, ["0", "1", "2"]);
    });
}

/// Gives three records, waits until a hint says what cannot be told, and ends; the replies come then.
fn waits_and_says(template: Template, says: &str) -> Snapshot {
    let go = Barrier::default();
    let passed = go.clone();
    let source = (0..4).map(move |n| {
        if n == 3 {
            passed.pass();
        }
        format!("k{n}")
    });
    let feed = source.feed_subprocesses_ordered(template, 1, 100);
    let monitor = feed.monitor();
    // Others may come first: an interpreter takes its time to start.
    let told = |hint: String| hint.contains(says);
    eventually("there is the hint", || monitor.snapshot().hint.is_some_and(told));
    assert_eq!(monitor.snapshot().replies, 0);
    go.open();
    let replies: Vec<_> = feed.map(|reply| reply.expect("a reply").to_string()).collect();
    assert_eq!(replies, ["K0", "K1", "K2", "K3"]);
    monitor.snapshot()
}

#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence")]
fn a_worker_with_an_event_loop_is_waited_for_and_the_hint_says_so() {
    if !here(&["python3"]) {
        return;
    }
    within(|| {
        let script = "import os, select, sys
poll = select.epoll()
poll.register(0, select.EPOLLIN)
held = b''
while True:
    poll.poll()
    read = os.read(0, 65536)
    if not read: break
    held += read
sys.stdout.write(held.decode().upper())
";
        let template = Template::new("python3").arg("-c").arg(script);
        let snapshot = waits_and_says(template, "it runs an event loop");
        assert_eq!((snapshot.recycles, snapshot.deaths), (0, 0));
    });
}

#[test]
fn a_host_that_says_nothing_is_named_with_the_limit_for_it() {
    within(|| {
        let launcher = Launcher::remote(["sh", "-c", "sleep 1000", "{host}"]).hosts(["a"]);
        let template = Template::new("cat").via(launcher);
        let feed = numbers(3).feed_subprocesses_ordered(template, 1, 8);
        let monitor = feed.monitor();
        let told = |hint: String| {
            hint.contains("is not in touch with the host a yet") && hint.contains("connect_within")
        };
        eventually("there is the hint", || monitor.snapshot().hint.is_some_and(told));
        let worker = &monitor.workers()[0];
        assert_eq!((worker.host.as_deref(), worker.state), (Some("a"), WorkerState::Starting));
    });
}

#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence")]
fn a_launcher_in_between_is_waited_for_and_the_hint_says_so() {
    if !here(&["setsid"]) {
        return;
    }
    within(|| {
        // The reader is in a session of its own: none of our business, as far as anybody can tell.
        let template = Template::new("setsid").args(["-w", "tr", "a-z", "A-Z"]);
        let template = template.end_timeout(Duration::from_secs(30));
        let snapshot = waits_and_says(template, "has left its process group");
        assert_eq!((snapshot.recycles, snapshot.deaths), (0, 0));
    });
}
