//! Limits, retries, restarts and the kill sequence; and what is asked of them that makes no sense.

use std::time::{Duration, Instant};

use subfeed::policy::Signal;
use subfeed::{Error, ErrorKind, FeedExt, Template};

use crate::common::{
    Barrier, Dir, child, eventually, is_running, numbers, soon, texts, with_patience, within,
};

const SHORT: Duration = Duration::from_millis(150);

/// What became of items, and the counters.
fn all(
    template: Template,
    items: impl Iterator<Item = String> + Send + 'static,
) -> (Vec<Result<String, Error>>, subfeed::Snapshot) {
    let feed = items.feed_subprocesses_ordered(template, 1, 8);
    let monitor = feed.monitor();
    let items = soon(|| feed.map(|item| item.map(|reply| reply.to_string())).collect());
    (items, monitor.snapshot())
}

/// Sleeps for ever at `stuck`, otherwise answers at once.
fn sticks() -> Template {
    Template::shell("while read -r x; do [ $x = stuck ] && sleep 300; echo $x; done")
}

fn with_stuck(n: u64, at: u64) -> impl Iterator<Item = String> + Send + 'static {
    (0..n).map(move |k| if k == at { "stuck".to_owned() } else { k.to_string() })
}

#[test]
fn a_packet_over_its_time_is_its_own_error_and_costs_the_others_nothing() {
    within(|| {
        with_patience(SHORT, |limit| {
            let (items, snapshot) = all(sticks().packet_timeout(limit), with_stuck(12, 5));
            assert_eq!(items.len(), 12);
            for (k, item) in items.iter().enumerate() {
                match item {
                    Ok(reply) => assert_eq!(*reply, k.to_string()),
                    Err(error) => {
                        assert_eq!((k, error.kind(), error.attempts()), (5, ErrorKind::Timeout, 1));
                        assert!(error.to_string().contains(&format!("{limit:?}")), "{error}");
                        assert!(!error.is_fatal());
                    }
                }
            }
            assert_eq!((snapshot.failed_timeout, snapshot.timeouts), (1, 1));
            assert!(snapshot.signals >= 1);
        });
    });
}

#[test]
fn a_packet_over_its_time_is_tried_as_often_as_was_asked() {
    within(|| {
        with_patience(SHORT, |limit| {
            let template = sticks().packet_timeout(limit).retries(2);
            let (items, snapshot) = all(template, with_stuck(4, 1));
            let error = items[1].as_ref().unwrap_err();
            assert_eq!((error.kind(), error.attempts()), (ErrorKind::Timeout, 3));
            assert_eq!(items.iter().filter(|item| item.is_ok()).count(), 3);
            assert_eq!(snapshot.retries, 2);
        });
    });
}

#[test]
fn at_most_once_sends_a_stuck_packet_once() {
    within(|| {
        let dir = Dir::new();
        let log = dir.at("log");
        let script = format!(
            "while read -r x; do echo $x >> {log}; [ $x = stuck ] && kill -9 $$; echo $x; done"
        );
        let template = Template::shell(script).at_most_once();
        let (items, snapshot) = all(template, with_stuck(6, 2));
        let read = dir.read("log");
        assert_eq!(read.lines().filter(|line| *line == "stuck").count(), 1, "{read}");
        let error = items[2].as_ref().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Died | ErrorKind::NotRedelivered), "{error}");
        for (k, item) in items.iter().enumerate().filter(|(k, _)| *k != 2) {
            let lines = read.lines().filter(|line| *line == k.to_string()).count();
            assert!(lines <= 1, "{k} was sent {lines} times");
            assert!(lines == 1 || item.is_err());
        }
        assert_eq!(snapshot.retries, 0);
    });
}

#[test]
fn a_session_that_gives_no_first_sign_is_replaced_in_time() {
    within(|| {
        with_patience(SHORT, |limit| {
            let dir = Dir::new();
            let flag = dir.at("flag");
            // Only the first session hangs before its first reply.
            let script = format!("mkdir {flag} 2>/dev/null && sleep 300; exec cat");
            let template = Template::shell(script).start_timeout(limit).retries(1);
            let (items, snapshot) = all(template, numbers(20));
            let replies: Vec<_> = items.into_iter().map(|item| item.expect("a reply")).collect();
            assert_eq!(replies, numbers(20).collect::<Vec<_>>());
            assert!(snapshot.restarts >= 1);
            assert_eq!(snapshot.failed, 0);
        });
    });
}

#[test]
fn silence_of_all_workers_ends_the_feed_when_it_was_limited() {
    within(|| {
        let template =
            child("silent").on_stall(subfeed::policy::OnStall::Wait, SHORT).idle_timeout(SHORT);
        let (items, snapshot) = all(template, numbers(5));
        let causes: Vec<_> = items.iter().filter_map(|item| item.as_ref().err()).collect();
        assert_eq!(items.len(), 5);
        assert_eq!(causes.iter().filter(|error| error.kind() == ErrorKind::Timeout).count(), 1);
        assert!(causes[0].is_fatal() && causes[0].to_string().contains("said anything"));
        assert_eq!(snapshot.timeouts, 1);
    });
}

#[test]
fn an_idle_input_is_no_silence_of_the_workers() {
    within(|| {
        with_patience(Duration::from_millis(20), |limit| {
            let go = Barrier::default();
            let passed = go.clone();
            let source = (0..2).map(move |n| {
                if n == 1 {
                    passed.pass();
                }
                n.to_string()
            });
            let template = child("echo").idle_timeout(limit);
            let mut feed = source.feed_subprocesses_ordered(template, 1, 8);
            let monitor = feed.monitor();
            let first = feed.next().unwrap();
            // Another feed that takes longer than the limit says that it has passed.
            let template = child(&format!("slow {}", 3 * limit.as_millis()));
            assert_eq!(texts(numbers(1).feed_subprocesses(template, 1, 1)), ["0"]);
            go.open();
            assert_eq!(first.unwrap(), "0");
            assert_eq!(feed.next().unwrap().unwrap(), "1");
            assert!(feed.next().is_none());
            assert_eq!(monitor.snapshot().timeouts, 0);
        });
    });
}

#[test]
fn the_whole_run_ends_in_time_whatever_it_is_doing() {
    within(|| {
        let feed = (0u64..).map(|n| n.to_string());
        let start = Instant::now();
        let mut feed = feed.feed_subprocesses(child("echo").run_timeout(SHORT), 2, 8);
        let error = soon(|| feed.find_map(Result::err)).expect("an end");
        assert!(start.elapsed() >= SHORT);
        // Those before it may be halted in their places; one of them has the cause.
        let rest: Vec<_> = feed.filter_map(Result::err).collect();
        let all: Vec<_> = std::iter::once(error).chain(rest).collect();
        assert_eq!(all.iter().filter(|error| error.kind() == ErrorKind::Timeout).count(), 1);
        assert!(all.iter().any(|error| error.to_string().contains("the whole run")), "{all:?}");
    });
}

#[test]
fn sessions_without_a_reply_come_ever_later_and_are_given_up_with_status_and_stderr() {
    within(|| {
        let ms = Duration::from_millis;
        let template = Template::shell("echo 'no licence' >&2; exit 7")
            .backoff(ms(20), ms(50))
            .give_up_after(5);
        let start = Instant::now();
        let (items, snapshot) = all(template, numbers(30));
        // 20 + 40 + 50 + 50 before the sessions that follow.
        assert!(start.elapsed() >= ms(160), "{:?}", start.elapsed());
        assert_eq!(snapshot.starts, 5, "{snapshot:?}");
        let fatal = items.iter().filter_map(|item| item.as_ref().err());
        let caused = |error: &&Error| error.is_fatal() && error.kind() != ErrorKind::Halted;
        let fatal = fatal.filter(caused).collect::<Vec<_>>();
        assert_eq!(fatal.len(), 1, "{items:?}");
        let text = fatal[0].to_string();
        assert!(text.contains("no licence") && text.contains('7'), "{text}");
        assert_eq!(fatal[0].exit_status().and_then(|status| status.code()), Some(7));
    });
}

#[test]
fn a_worker_that_is_old_enough_is_replaced_and_nothing_is_lost() {
    within(|| {
        let template = child("pid").recycle_after_age(Duration::from_millis(1));
        let (go, gone) = std::sync::mpsc::channel();
        let source = (0..5).map(move |n| {
            gone.recv().expect("the consumer");
            n.to_string()
        });
        let mut feed = source.feed_subprocesses_ordered(template, 1, 8);
        let monitor = feed.monitor();
        eventually("the first one", || monitor.snapshot().starts == 1);
        let mut pids = Vec::new();
        for _ in 0..5 {
            let starts = monitor.snapshot().starts;
            go.send(()).unwrap();
            pids.push(feed.next().unwrap().unwrap());
            if pids.len() < 5 {
                eventually("a fresh one", || monitor.snapshot().starts > starts);
            }
        }
        drop(go);
        assert!(feed.next().is_none());
        pids.dedup();
        assert_eq!(pids.len(), 5);
        assert_eq!(monitor.snapshot().deaths, 0);
    });
}

#[test]
fn the_kill_sequence_is_climbed_in_order_by_the_whole_group_and_ends_in_sigkill() {
    within(|| {
        with_patience(Duration::from_millis(300), |pause| {
            let dir = Dir::new();
            // Worker and grandchild write down what they are sent, and stay. The worker does not answer
            // before the grandchild, too, has its handlers.
            let template =
                child("signals").arg(dir.path("log")).arg("stays").arg(dir.path("inner"));
            let template = template
                .end_timeout(Duration::ZERO)
                .kill_sequence([(Signal::Interrupt, pause), (Signal::Terminate, pause)]);
            let feed = numbers(3).feed_subprocesses_ordered(template, 1, 8);
            let monitor = feed.monitor();
            assert_eq!(texts(feed), ["0", "1", "2"]);
            for log in ["log", "inner"] {
                assert_eq!(
                    dir.read(log),
                    "int
term
",
                    "{log}"
                );
            }
            // The one that was not asked for, and that nobody survives.
            assert_eq!(monitor.snapshot().signals, 3);
            let inner = dir.read("inner.pid").parse().unwrap();
            eventually("the grandchild goes", || !is_running(inner));
        });
    });
}

#[test]
fn stderr_that_is_no_text_is_kept_and_printed_all_the_same() {
    within(|| {
        let template = Template::shell("printf 'caf\\351 \\377\\n' >&2; exit 3").give_up_after(1);
        let (items, _) = all(template, numbers(1));
        let error = items[0].as_ref().unwrap_err();
        assert_eq!(error.stderr(), b"caf\xe9 \xff\n");
        assert!(error.to_string().contains("caf"), "{error}");
    });
}
