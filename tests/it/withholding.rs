//! Tools that keep their replies to themselves until a buffer is full: they finish, in order, complete, with
//! windows far smaller than what they withhold.

use std::collections::HashSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use subfeed::policy::OnStall;
use subfeed::{ErrorKind, FeedExt, Monitor, Template};

use crate::common::tools::here;
use crate::common::{numbers, texts, within};

const LOUD: &str = "import sys\nfor line in sys.stdin:\n    print(line.rstrip().upper())";

/// A tool without its flush flag, which turns `k1` into `K1`; `None` if it is not here.
fn tool(name: &str) -> Option<Vec<&'static str>> {
    let argv: &[&str] = match name {
        "mawk" => &["mawk", "{ print toupper($0) }"],
        "tr" => &["tr", "a-z", "A-Z"],
        "sed" => &["sed", "s/k/K/"],
        // Every line matches; what it prints of each is the line.
        "grep" => &["grep", ""],
        // Without what it finds at its start, which takes it long on some machines.
        "python3" => &["python3", "-I", "-S", "-c", LOUD],
        "perl" => &["perl", "-ne", "print uc"],
        "jq" => &["jq", "-cR", "ascii_upcase"],
        _ => unreachable!("{name} is not among them"),
    };
    here(&argv[..1]).then(|| argv.to_vec())
}

fn asked(n: usize) -> Vec<String> {
    (0..n).map(|k| format!("k{k}")).collect()
}

fn due(name: &str, request: &str) -> String {
    match name {
        "grep" => request.to_owned(),
        "jq" => format!("\"{}\"", request.to_uppercase()),
        _ => request.to_uppercase(),
    }
}

/// Everything comes, in order, although no window ever holds what fills the tool's buffer.
fn finishes(name: &'static str, template: &Template) {
    // An interpreter takes its time to start, and is started for every full window.
    let few = if name == "python3" { 2 } else { 1 };
    for (workers, window, n) in [(1, 1, 3), (1, 30, 120 / few), (3, 50, 300 / few)] {
        let feed =
            asked(n).into_iter().feed_subprocesses_ordered(template.clone(), workers, window);
        let monitor = feed.monitor();
        let replies: Vec<_> = feed.map(|reply| reply.expect("a reply").to_string()).collect();
        let expected: Vec<_> = asked(n).iter().map(|request| due(name, request)).collect();
        assert_eq!(replies, expected, "{name}, {workers} workers, window {window}");
        let snapshot = monitor.snapshot();
        assert!(snapshot.recycles > 0, "{name}, window {window}: {snapshot:?}");
        let hint = snapshot.hint.expect("a hint");
        assert!(hint.contains("line-buffered") && hint.contains(name), "{hint}");
        assert_eq!((snapshot.deaths, snapshot.failed, snapshot.redeliveries), (0, 0, 0));
    }
}

fn direct(name: &'static str) {
    let Some(argv) = tool(name) else { return };
    let template = Template::new(argv[0]).args(&argv[1..]).env_remove("PYTHONUNBUFFERED");
    within(move || finishes(name, &template));
}

fn under_a_shell(name: &'static str) {
    let Some(argv) = tool(name) else { return };
    // The shell stays and waits: the reader is a grandchild.
    let quoted = argv.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let template = Template::shell(format!("{quoted}; exit $?")).env_remove("PYTHONUNBUFFERED");
    within(move || finishes(name, &template));
}

macro_rules! tools {
    ($($name:ident)*) => {
        #[cfg(not(subfeed_portable))]
        mod directly {
            $(#[test] fn $name() { super::direct(stringify!($name)); })*
        }
        #[cfg(not(subfeed_portable))]
        mod under_sh {
            $(#[test] fn $name() { super::under_a_shell(stringify!($name)); })*
        }
    };
}

tools!(mawk tr sed grep python3 perl jq);

#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence")]
fn what_certainly_waits_is_acted_on_before_the_delay_if_nothing_else_can_come() {
    if !here(&["tr"]) {
        return;
    }
    within(|| {
        // The delay is longer than the test. The first worker has one record and gets no other before it has answered;
        // at the end, each has all that it will ever get.
        let template = Template::new("tr")
            .args(["a-z", "A-Z"])
            .on_stall(OnStall::Recycle, Duration::from_secs(20));
        let begun = Instant::now();
        let feed = asked(50_000).into_iter().feed_subprocesses_ordered(template, 1, 100_000);
        let monitor = feed.monitor();
        let due: Vec<_> = asked(50_000).iter().map(|request| request.to_uppercase()).collect();
        assert_eq!(texts(feed), due);
        let snapshot = monitor.snapshot();
        assert_eq!((snapshot.recycles, snapshot.restarts), (1, 1));
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    });
}

/// Gives the next item when the consumer has the reply to the one before, as a slow source would: no
/// reply may wait for a window to fill, or for a next request.
fn one_at_a_time(template: Template, ordered: bool) -> Monitor {
    let (go, gone) = mpsc::channel();
    let source = (0..6).map(move |n: u64| {
        gone.recv().expect("the consumer");
        format!("k{n}")
    });
    let feed = source.feed(template).workers(2).buffer(1_000);
    let feed = if ordered { feed } else { feed.order(subfeed::Order::Completion) };
    let mut feed = feed.start();
    let monitor = feed.monitor();
    for n in 0..6 {
        go.send(()).expect("the source");
        assert_eq!(feed.next().expect("an item").expect("a reply"), format!("K{n}"));
    }
    monitor
}

#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence")]
fn a_reply_waits_neither_for_the_window_to_fill_nor_for_the_next_request() {
    if !here(&["mawk", "tr"]) {
        return;
    }
    within(|| {
        for ordered in [true, false] {
            one_at_a_time(Template::new("tr").args(["a-z", "A-Z"]), ordered);
            one_at_a_time(Template::new("mawk").arg("{ print toupper($0) }"), ordered);
            let monitor = one_at_a_time(Template::shell("tr a-z A-Z; exit $?"), ordered);
            assert!(monitor.snapshot().recycles > 0);
        }
    });
}

#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence")]
fn in_completion_order_one_that_withholds_delays_its_own_only_and_they_come_too() {
    within(|| {
        // Worker 0 withholds, worker 1 answers at once.
        let script = "if [ {id} = 0 ]; then tr a-z A-Z; else while read -r x; do echo \"$x\"; done; fi; exit $?";
        let template = Template::shell(script);
        let source = (0u64..).map(|n| format!("k{n}"));
        let mut feed = source.feed_subprocesses(template, 2, 20);
        let monitor = feed.monitor();
        let mut seen = HashSet::new();
        let mut late = 0;
        // As long as it takes: the source has no end that would bring the others out.
        while late == 0 || seen.len() < 400 {
            let reply = feed.next().expect("an item").expect("a reply").to_string();
            late += usize::from(reply.starts_with('K'));
            assert!(seen.insert(reply.to_lowercase()), "{reply} came twice");
        }
        assert!(seen.len() > late, "worker 1 has answered");
        assert!(monitor.snapshot().recycles > 0);
    });
}

#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence")]
fn on_stall_fail_ends_the_feed_with_the_fix_by_name() {
    within(|| {
        let template = Template::new("tr")
            .args(["a-z", "A-Z"])
            .on_stall(OnStall::Fail, Duration::from_millis(20));
        let items: Vec<_> =
            asked(100).into_iter().feed_subprocesses_ordered(template, 1, 9).collect();
        let fatal: Vec<_> = items.iter().filter_map(|item| item.as_ref().err()).collect();
        let cause = fatal.iter().find(|error| error.kind() == ErrorKind::Stalled).expect("a cause");
        assert!(cause.is_fatal());
        assert!(cause.to_string().contains("Template::line_buffered"), "{cause}");
        let others = fatal.iter().filter(|error| error.kind() != ErrorKind::Stalled);
        assert!(others.clone().count() + 1 == fatal.len());
        assert!(others.into_iter().all(|error| error.kind() == ErrorKind::Halted));
    });
}

#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence")]
fn a_packet_that_kills_a_buffering_worker_each_time_is_alone_in_its_error() {
    if !here(&["python3"]) {
        return;
    }
    within(|| {
        // Answers nothing before it ends; what it had in its buffer dies with it.
        let script = "import os, sys\nfor line in sys.stdin:\n    if 'poison' in line: os.kill(os.getpid(), 9)\n    print(line.rstrip())";
        let template = Template::new("python3").arg("-c").arg(script).retries(2);
        let template = template.env_remove("PYTHONUNBUFFERED");
        let is_poison = |k: u64| k == 37;
        let source =
            (0..100).map(move |k| if is_poison(k) { "poison".into() } else { k.to_string() });
        let feed = source.feed_subprocesses_ordered(template, 2, 64);
        let monitor = feed.monitor();
        let mut count = 0;
        for (k, item) in (0..).zip(feed) {
            count += 1;
            match item {
                Ok(reply) => assert_eq!(reply, k.to_string()),
                Err(error) => {
                    assert!(is_poison(k), "{k}: {error}");
                    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Died, 3));
                }
            }
        }
        assert_eq!(count, 100);
        let snapshot = monitor.snapshot();
        assert_eq!((snapshot.failed, snapshot.retries), (1, 2));
        assert!(snapshot.deaths >= 3);
    });
}

#[test]
fn a_withholding_worker_is_recycled_before_a_time_limit_kills_it() {
    within(|| {
        // Never judged by evidence: only the limit can find out.
        let template = Template::new("tr")
            .args(["a-z", "A-Z"])
            .on_stall(OnStall::Wait, Duration::from_secs(1))
            .packet_timeout(Duration::from_secs(3));
        let feed = numbers(20).feed_subprocesses_ordered(template, 1, 10);
        let monitor = feed.monitor();
        assert_eq!(texts(feed).len(), 20);
        let snapshot = monitor.snapshot();
        assert!(snapshot.recycles > 0);
        assert_eq!((snapshot.timeouts, snapshot.signals, snapshot.deaths), (0, 0, 0));
    });
}
