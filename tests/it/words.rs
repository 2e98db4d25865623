//! First and last words: preamble, banner, ready marker, farewell.

use std::sync::mpsc;
use std::time::Duration;

use subfeed::channel::Redirect;
use subfeed::framing::ReplyFraming;
use subfeed::{ErrorKind, FeedExt, Template};

use crate::common::{DEADLINE, Dir, eventually, numbers, soon, texts, with_patience, within};

fn expected(n: u64) -> Vec<String> {
    numbers(n).collect()
}

#[test]
fn a_banner_of_so_many_lines_is_skipped_in_every_session() {
    within(|| {
        let template = Template::shell("echo Welcome; echo; cat").skip_lines(2);
        let template = template.recycle_after_records(9);
        assert_eq!(texts(numbers(100).feed_subprocesses_ordered(template, 3, 30)), expected(100));
    });
}

#[test]
fn a_banner_is_skipped_until_its_marker_wherever_that_is() {
    within(|| {
        let template = Template::shell("printf 'loading...\\nversion 1> '; cat").skip_until("> ");
        let template = template.recycle_after_records(9);
        assert_eq!(texts(numbers(100).feed_subprocesses_ordered(template, 3, 30)), expected(100));
    });
}

#[test]
fn a_banner_may_stand_before_replies_with_side_outputs() {
    within(|| {
        let script = "echo Welcome; exec 3>{fd:side}; while read -r x; do echo >&3; echo $x; done";
        let template =
            Template::shell(script).skip_lines(1).side_output("side", ReplyFraming::line());
        assert_eq!(texts(numbers(100).feed_subprocesses_ordered(template, 2, 30)), expected(100));
    });
}

#[test]
fn nothing_is_asked_before_a_worker_is_ready() {
    within(|| {
        let dir = Dir::new();
        let script = format!(
            "until [ -e {go} ]; do sleep 0.01; done; echo warm >&2; echo READY; cat",
            go = dir.at("go")
        );
        let template = Template::shell(script).ready("READY\n", DEADLINE);
        let mut feed = numbers(50).feed_subprocesses_ordered(template, 2, 10);
        let monitor = feed.monitor();
        eventually("both start", || monitor.snapshot().starts == 2);
        eventually("the window fills", || monitor.snapshot().accepted > 0);
        assert_eq!(monitor.snapshot().written_bytes, 0);
        dir.touch("go");
        assert_eq!(texts(feed.by_ref()), expected(50));
    });
}

#[test]
fn a_worker_that_is_not_ready_in_time_ends_the_feed_and_says_what_it_printed() {
    within(|| {
        with_patience(Duration::from_millis(50), |limit| {
            let template = Template::shell("echo loading; echo 'no model' >&2; exec sleep 1000")
                .ready("READY", limit)
                .give_up_after(2)
                .kill_sequence([]);
            let mut feed = numbers(5).feed_subprocesses_ordered(template, 1, 10);
            let error = feed.next().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            assert!(error.is_fatal() && error.packet() == Some(0));
            let (said, limit) = (error.to_string(), format!("{limit:?}"));
            for part in ["2 workers in a row", "ready", &limit, "loading", "no model"] {
                assert!(said.contains(part), "{part}: {said}");
            }
            assert!(feed.all(|rest| rest.is_err_and(|error| error.kind() == ErrorKind::Halted)));
        });
    });
}

#[test]
fn a_drained_worker_is_waited_for_too() {
    within(|| {
        let dir = Dir::new();
        let script = format!("echo READY; exec cat >{}", dir.at("{id}.out"));
        let template = Template::shell(script).ready("READY\n", DEADLINE);
        let drained = numbers(100).feed(template).workers(2).drain().unwrap();
        assert!(drained.all_ended_well(), "{drained:?}");
        assert_eq!((dir.read("0.out") + &dir.read("1.out")).lines().count(), 100);
    });
}

#[test]
fn a_banner_that_nobody_declared_is_quoted() {
    within(|| {
        // The source gives nothing before the banner must have been read.
        let (go, gone) = mpsc::channel::<String>();
        let source = std::iter::from_fn(move || gone.recv().ok());
        let template = Template::shell("echo 'Welcome to the tool'; cat");
        let mut feed = source.feed_subprocesses_ordered(template, 1, 10);
        let monitor = feed.monitor();
        eventually("the banner is read", || monitor.snapshot().read_bytes > 0);
        let _ = go.send("0".to_owned());
        drop(go);
        // It was taken for the first reply, and then there was one too many: an item of its own where nothing
        // says how many items there are.
        let error = feed.find_map(Result::err).unwrap();
        assert_eq!(error.kind(), ErrorKind::ReplyCount { owed: 1, got: 2 }, "{error}");
        let said = error.to_string();
        for part in ["Welcome to the tool", "worker 0", "skip"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    });
}

#[test]
fn a_banner_that_came_too_late_to_be_told_from_a_reply_is_found_out_at_the_end() {
    within(|| {
        // It prints its banner only when the first request is there.
        let template = Template::shell("read -r x; echo Welcome; echo \"$x\"; cat");
        let mut feed = numbers(20).feed_subprocesses_ordered(template, 1, 5);
        let first_error = feed.by_ref().find_map(Result::err);
        let error = first_error.or_else(|| feed.finish().err()).unwrap();
        assert!(matches!(error.kind(), ErrorKind::ReplyCount { .. }), "{error}");
    });
}

#[test]
fn a_banner_that_is_shorter_than_declared_is_an_error_that_quotes_it() {
    within(|| {
        let template = Template::shell("echo Welcome; cat").skip_lines(3);
        let mut feed = ["one"].into_iter().feed_subprocesses_ordered(template, 1, 5);
        let error = feed.next().unwrap().unwrap_err();
        let said = error.to_string();
        assert!(said.contains("Welcome") && said.contains("banner"), "{said}");
    });
}

#[test]
fn a_banner_without_an_end_is_given_up() {
    within(|| {
        let template = Template::shell("exec yes banner").skip_until("never");
        let mut feed = ["one"].into_iter().feed_subprocesses_ordered(template, 1, 5);
        let error = feed.next().unwrap().unwrap_err();
        assert!(error.is_fatal() && error.to_string().contains("banner\\nbanner"), "{error}");
    });
}

#[test]
fn a_preamble_comes_before_the_first_request_of_every_session() {
    within(|| {
        let template = Template::new("sh").preamble("f() { echo \"got $1\"; }\n");
        let template = template.recycle_after_records(10);
        let feed =
            numbers(100).map(|k| format!("f {k}")).feed_subprocesses_ordered(template, 2, 30);
        assert_eq!(texts(feed), numbers(100).map(|k| format!("got {k}")).collect::<Vec<_>>());
    });
}

#[test]
fn a_preamble_may_be_larger_than_a_pipe() {
    within(|| {
        let preamble = format!("{}\n", "x".repeat(300_000));
        let template =
            Template::shell("read -r settings; while read -r x; do echo ${#settings} $x; done");
        let feed = numbers(20).feed_subprocesses_ordered(template.preamble(preamble), 2, 30);
        assert_eq!(texts(feed), numbers(20).map(|k| format!("300000 {k}")).collect::<Vec<_>>());
    });
}

/// Goes on for ever after the end of its input, unless it is told to quit.
const DEAF: &str = "while :; do read -r x || { sleep 0.01; continue; }; [ \"$x\" = quit ] && exit 0; echo \"$x\"; done";

#[test]
fn a_farewell_ends_a_worker_that_ignores_the_end_of_its_input() {
    within(|| {
        let template = Template::shell(DEAF).farewell("quit\n").end_timeout(None);
        // More sessions than workers: a recycled one is told too.
        let template = template.recycle_after_records(10);
        let mut feed = numbers(60).feed_subprocesses_ordered(template, 2, 30);
        assert_eq!(texts(feed.by_ref()), expected(60));
        let snapshot = feed.finish().expect("they ended well");
        assert_eq!(snapshot.signals, 0, "{snapshot:?}");
    });
}

#[test]
fn without_a_farewell_such_a_worker_is_killed_after_its_time_and_reported() {
    within(|| {
        let template = Template::shell(DEAF).end_timeout(Duration::from_millis(50));
        let mut feed = numbers(20).feed_subprocesses_ordered(template, 1, 30);
        assert_eq!(texts(feed.by_ref()), expected(20));
        let error = feed.finish().unwrap_err();
        assert!(error.exit_status().is_some_and(|status| !status.success()), "{error}");
    });
}

#[test]
fn a_farewell_to_a_drained_worker_is_its_last_line() {
    within(|| {
        let dir = Dir::new();
        let template = Template::new("cat").stdout(Redirect::file(dir.path("{id}.out")));
        let drained = numbers(40).feed(template.farewell("bye\n")).workers(2).drain().unwrap();
        assert!(drained.all_ended_well(), "{drained:?}");
        for (id, accepted) in drained.accepted.iter().enumerate() {
            let said = dir.read(&format!("{id}.out"));
            let ends = said.matches("bye\n").count();
            assert!(ends <= 1 && (*accepted == 0 || said.ends_with("bye\n")), "{said}");
        }
    });
}

#[test]
fn a_half_written_request_is_never_run_even_where_there_is_a_farewell() {
    within(|| {
        let dir = Dir::new();
        // A shell runs the half line that it has when its stdin ends. The second request is far
        // larger than a pipe, and the shell does not read it before the first is over.
        let first = format!("echo started; until [ -e {} ]; do sleep 0.01; done", dir.at("go"));
        let second = format!("echo ran >{} {}", dir.at("ran"), " ".repeat(1 << 20));
        let template = Template::new("sh")
            .farewell("exit\n")
            .on_stall(subfeed::policy::OnStall::Wait, DEADLINE);
        let items = ["echo warm".to_owned(), first, second];
        let mut feed = items.into_iter().feed_subprocesses_ordered(template, 1, 10);
        assert_eq!(feed.next().unwrap().unwrap(), "warm");
        assert_eq!(feed.next().unwrap().unwrap(), "started");
        let monitor = feed.monitor();
        eventually("the pipe is full", || monitor.snapshot().written_bytes > 60_000);
        soon(|| drop(feed));
        dir.touch("go");
        assert!(!dir.path("ran").exists());
    });
}

#[test]
fn a_request_that_one_channel_has_and_the_other_not_counts_as_half_written() {
    within(|| {
        let dir = Dir::new();
        // Whoever sees the end of one channel while the other has a record would pair wrongly.
        let script = format!(
            "exec 3<{{fd:side}}; read -r b <&3; read -r a; echo $a; \
             read -r a; until [ -e {go} ]; do sleep 0.01; done; read -r b <&3; echo \"$a+$b\" >{out}",
            go = dir.at("go"),
            out = dir.at("out"),
        );
        let template = Template::shell(script).side_input("side").encode(crate::sides::in_step);
        let large = "y".repeat(1 << 20);
        let items = [("a1", "b1"), ("a2", large.leak())];
        let mut feed = items.into_iter().feed_subprocesses_ordered(template, 1, 10);
        assert_eq!(feed.next().unwrap().unwrap(), "a1");
        let monitor = feed.monitor();
        eventually("the side pipe is full", || monitor.snapshot().written_bytes > 60_000);
        drop(feed);
        dir.touch("go");
        assert!(!dir.path("out").exists());
    });
}
