//! C: who pays.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use subfeed::channel::Redirect;
use subfeed::framing::{ReplyFraming, Sentinel};
use subfeed::policy::OnStall;
use subfeed::queue::Queue;
use subfeed::source::iterate_in_subprocess;
use subfeed::{Error, ErrorKind, FeedExt, Order, Template};

use super::{Door, LIMIT, doors, ending, ends, open_ended, ready};
use crate::alone;
use crate::common::tools::here;
use crate::common::{Belongings, DEADLINE, child, eventually, numbers, soon, texts};

// ==================================================================== C1: a worker that dies unread

/// Worker 0 answers, slowly; the others end before they have read a byte.
fn one_broken(broken: &str) -> Template {
    let slow = "while read -r x; do sleep 0.02; echo $x; done";
    Template::shell(format!("if [ {{id}} = 0 ]; then {slow}; else {broken}; fi"))
}

/// The sessions that two workers may start in so many seconds: the backoff of each slot doubles to a second.
const FEW: u64 = 40;

fn c1_a_broken_worker_takes_nothing_from_a_healthy_one(
    order: Order,
    template: Template,
    workers: usize,
) {
    let until_eof = format!("{template:?}").contains("UntilEof");
    ends(move || {
        let feed = numbers(100).feed(template).workers(workers).buffer(20).order(order).start();
        let monitor = feed.monitor();
        let mut replies: Vec<u32> =
            texts(feed).iter().map(|reply| reply.trim().parse().unwrap()).collect();
        replies.sort_unstable();
        assert!(replies.into_iter().eq(0..100));
        let snapshot = monitor.snapshot();
        // The healthy one has a process for each packet where the framing asks for it.
        let most = FEW * (workers as u64 - 1) + if until_eof { 100 } else { 0 };
        assert!(snapshot.starts <= most, "{} started: {snapshot:?}", snapshot.starts);
    });
}

macro_rules! c1 {
    ($($test:ident: $order:ident, $workers:literal, $template:expr;)*) => {
        $(
            #[test]
            fn $test() {
                c1_a_broken_worker_takes_nothing_from_a_healthy_one(Order::$order, $template, $workers);
            }
        )*
    };
}

c1! {
    c1_one_of_two_is_broken: Input, 2, one_broken("exit 3");
    c1_two_of_three_are_broken: Input, 3, one_broken("exit 3");
    c1_in_completion_order: Completion, 2, one_broken("exit 3");
    c1_broken_with_status_0: Input, 2, one_broken("exit 0");
    c1_broken_by_a_signal: Input, 2, one_broken("kill -9 $$");
    c1_at_most_once: Input, 2, one_broken("exit 3").at_most_once();
    c1_with_retries: Input, 2, one_broken("exit 3").retries(2);
    c1_with_a_recycled_healthy_one: Input, 2, one_broken("exit 3").recycle_after_records(30);
    c1_with_a_limit_for_packets: Input, 2, one_broken("exit 3").packet_timeout(DEADLINE);
    c1_with_a_banner: Input, 2, Template::shell(
        "echo hello; [ {id} = 0 ] || exit 3; while read -r x; do sleep 0.02; echo $x; done",
    ).skip_lines(1);
    c1_with_ready: Input, 2, ready(
        "[ {id} = 0 ] || exit 3; while read -r x; do sleep 0.02; echo $x; done",
    );
    c1_with_a_sentinel: Input, 2, Template::shell(
        "[ {id} = 0 ] || exit 3; while read -r x; do sleep 0.01; echo $x; done",
    ).replies(ReplyFraming::sentinel(Sentinel::new("{mark}")));
    c1_with_one_process_for_each_packet: Input, 2, Template::shell(
        "[ {id} = 0 ] || exit 3; sleep 0.02; exec cat",
    ).replies(ReplyFraming::until_eof());
    c1_with_one_process_for_each_packet_and_status_0: Input, 2, Template::shell(
        "[ {id} = 0 ] || exit 0; sleep 0.02; exec cat",
    ).replies(ReplyFraming::until_eof());
    c1_with_a_side_input: Input, 2, one_broken("exit 3").side_input("side");
}

#[test]
fn c1_a_hint_names_the_broken_worker() {
    ends(|| {
        let feed = numbers(100).feed(one_broken("exit 3")).workers(2).buffer(20).start();
        let monitor = feed.monitor();
        assert_eq!(texts(feed).len(), 100);
        let hint = monitor.snapshot().hint.expect("a hint");
        assert!(hint.contains("worker 1"), "{hint}");
    });
}

fn c1_through_every_door(door: Door) {
    let told = door.send(one_broken("exit 3"), &["a", "b", "c", "d"], 2);
    told.is(&["a", "b", "c", "d"]);
}
doors!(c1_through_every_door:
    ordered unordered keep_input blocks wrapping queue pipeline results);

#[test]
fn c1_drained() {
    ends(|| {
        let template =
            Template::shell("[ {id} = 0 ] || exit 3; while read -r x; do sleep 0.01; done");
        let template = template.stdout(Redirect::Null);
        let drained = numbers(200).feed(template).workers(2).drain().unwrap();
        assert!(drained.failed.is_empty(), "{drained:?}");
        assert_eq!(drained.accepted, [200, 0]);
    });
}

#[test]
fn c1_all_broken_is_fatal_and_costs_few_sessions() {
    ends(|| {
        for script in ["exit 3", "exit 0", "kill -9 $$"] {
            let feed = numbers(100).feed_subprocesses_ordered(Template::shell(script), 2, 20);
            let monitor = feed.monitor();
            let errors: Vec<_> = feed.map(Result::unwrap_err).collect();
            assert!(errors.iter().all(Error::is_fatal), "{script}: {errors:?}");
            let causes = errors.iter().filter(|error| error.kind() != ErrorKind::Halted).count();
            assert_eq!(causes, 1, "{script}: {errors:?}");
            let starts = monitor.snapshot().starts;
            assert!(starts <= 2 * (8 + 1), "{script}: {starts} started");
        }
    });
}

fn c1_sessions_that_are_ready_and_leave_without_having_read(door: Door) {
    let told = door.send(ready("exit 0").give_up_after(4), &["a", "b", "c"], 1);
    assert!(told.items.iter().all(|item| item.starts_with("!!")), "{told:?}");
    let halted = told.items.iter().filter(|item| item.starts_with("!!Halted")).count();
    assert_eq!(told.items.len(), halted + 1, "one cause: {told:?}");
    told.starts_at_most(5);
}
doors!(c1_sessions_that_are_ready_and_leave_without_having_read:
    ordered unordered queue pipeline);

// ==================================================================== C2: our own limit, our own signal

#[test]
fn c2_a_tool_that_loads_for_longer_than_a_packet_may_take() {
    ends(|| {
        let template = Template::shell("sleep 4; exec cat")
            .start_timeout(LIMIT)
            .packet_timeout(Duration::from_secs(2));
        let feed = numbers(20).feed_subprocesses_ordered(template, 2, 10);
        let monitor = feed.monitor();
        assert_eq!(texts(feed), numbers(20).collect::<Vec<_>>());
        let snapshot = monitor.snapshot();
        assert_eq!((snapshot.timeouts, snapshot.signals, snapshot.deaths), (0, 0, 0));
    });
}

fn c2_through_every_door(door: Door) {
    let template = Template::shell("sleep 4; exec cat")
        .start_timeout(LIMIT)
        .packet_timeout(Duration::from_secs(1));
    door.send(template, &["a", "b"], 1).is(&["a", "b"]);
}
doors!(c2_through_every_door:
    ordered unordered blocks queue pipeline);

#[test]
fn c2_a_tool_that_loads_before_it_is_ready() {
    ends(|| {
        let template = Template::shell("sleep 3; echo READY; exec cat")
            .ready("READY\n", LIMIT)
            .packet_timeout(Duration::from_secs(2));
        let feed = numbers(20).feed_subprocesses_ordered(template, 2, 10);
        let monitor = feed.monitor();
        assert_eq!(texts(feed), numbers(20).collect::<Vec<_>>());
        assert_eq!(monitor.snapshot().timeouts, 0);
    });
}

#[test]
fn c2_after_ready_the_limit_for_the_start_is_spent() {
    ends(|| {
        // It is ready at once, and takes its time for the first: only the limit for a packet holds then.
        let template = Template::shell("echo READY; read -r x; exec sleep 100")
            .ready("READY\n", LIMIT)
            .start_timeout(2 * LIMIT)
            .packet_timeout(Duration::from_secs(1));
        let mut feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 10);
        let error = soon(|| feed.next().unwrap().unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(error.to_string().contains("packet_timeout"), "{error}");
    });
}

/// The limit that ran out is named, and that the signal was ours.
#[test]
fn c2_a_limit_that_ran_out_is_named() {
    ends(|| {
        let limit = Duration::from_secs(1);
        let reads = || Template::shell("read -r x; exec sleep 100");
        for (template, name) in [
            (reads().start_timeout(limit).packet_timeout(limit), "start_timeout"),
            (reads().start_timeout(limit), "start_timeout"),
            (reads().packet_timeout(limit), "packet_timeout"),
            (reads().on_stall(OnStall::Wait, limit).packet_timeout(limit), "packet_timeout"),
        ] {
            let mut feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 10);
            let error = feed.next().unwrap().unwrap_err();
            assert_eq!((error.kind(), error.packet()), (ErrorKind::Timeout, Some(0)), "{error}");
            assert!(error.to_string().contains(name), "{name} is not named: {error}");
        }
    });
}

#[test]
fn c2_given_up_because_of_our_own_limit_says_so() {
    ends(|| {
        // It never reads: nobody can be charged, and after three sessions the feed is given up.
        let template = Template::shell("exec sleep 100")
            .packet_timeout(Duration::from_millis(300))
            .give_up_after(3);
        let items: Vec<_> = numbers(5).feed_subprocesses_ordered(template, 1, 10).collect();
        let errors = items.iter().map(|item| item.as_ref().unwrap_err());
        let causes: Vec<_> = errors.filter(|error| error.kind() != ErrorKind::Halted).collect();
        assert_eq!((items.len(), causes.len()), (5, 1), "{items:?}");
        assert!(
            causes[0].is_fatal() && causes[0].to_string().contains("packet_timeout"),
            "{causes:?}"
        );
    });
}

#[test]
fn c2_every_item_that_is_an_error_counts_as_failed() {
    ends(|| {
        for template in [child("exit 3").give_up_after(2), child("poison"), child("silent")] {
            let source = std::iter::repeat_n("poison", 20);
            let feed = source.feed_subprocesses_ordered(template, 2, ending(20, 10));
            let monitor = feed.monitor();
            let errors = feed.filter_map(Result::err);
            let failed = errors.filter(|error| error.packet().is_some()).count();
            assert!(failed > 0);
            assert_eq!(monitor.snapshot().failed, failed as u64, "{monitor:?}");
        }
    });
}

// ==================================================================== C3: one of two hosts is dead

/// The healthy one is quick once, and takes so many seconds then: the other has its chances in between.
fn one_dead_host(seconds: &str) -> Template {
    let healthy = format!("read -r x; echo $x; while read -r x; do sleep {seconds}; echo $x; done");
    Template::shell(format!(
        "if [ {{id}} = 0 ]; then {healthy}; else echo 'connect: refused' >&2; exit 255; fi"
    ))
}

#[test]
fn c3_a_dead_host_does_not_end_a_feed_whose_other_host_has_answered() {
    ends(|| {
        for order in [Order::Input, Order::Completion] {
            let feed = numbers(4).feed(one_dead_host("4")).workers(2).order(order).start();
            let mut replies = texts(feed);
            replies.sort_unstable();
            assert_eq!(replies, ["0", "1", "2", "3"]);
        }
    });
}

#[test]
fn c3_a_hint_names_the_dead_host() {
    ends(|| {
        // So many that the healthy one is not given all of them before the other has been tried.
        let feed = numbers(100).feed(one_dead_host("0.02")).workers(2).start();
        let monitor = feed.monitor();
        assert_eq!(texts(feed).len(), 100);
        let hint = monitor.snapshot().hint.expect("a hint");
        assert!(hint.contains("worker 1") && hint.contains("255"), "{hint}");
    });
}

// ==================================================================== C4: what a tool says at its end

#[test]
fn c4_the_error_has_the_line_that_declares_it() {
    ends(|| {
        for template in [
            child("trailing"),
            child("trailing").recycle_after_records(2),
            Template::shell("cat; printf '\\n'"),
        ] {
            let items: Vec<_> = numbers(4).feed_subprocesses_ordered(template, 1, 10).collect();
            let error = items.into_iter().find_map(Result::err).expect("one reply too many");
            assert!(error.is_fatal(), "{error}");
            assert!(error.to_string().contains("skip_at_end("), "{error}");
        }
    });
}

/// Echoes, and says something at its end.
fn c4_what_is_declared_is_no_reply(door: Door) {
    let template = || child("trailing").skip_at_end("one too many\n");
    door.send(template(), &["a", "b", "c"], 1).is(&["a", "b", "c"]);
    door.send(template().recycle_after_records(2), &["a", "b", "c"], 2).is(&["a", "b", "c"]);
    // What is declared need not come.
    door.send(Template::new("cat").skip_at_end("\n"), &["a", "b"], 1).is(&["a", "b"]);
}
doors!(c4_what_is_declared_is_no_reply:
    ordered unordered keep_input blocks wrapping queue pipeline results);

#[test]
fn c4_many_sessions_that_say_something_at_their_end_halt_nobody() {
    ends(|| {
        let template = Template::shell("cat; echo").skip_at_end("\n").recycle_after_records(10);
        let mut feed = numbers(500).feed_subprocesses_ordered(template, 3, 40);
        assert_eq!(texts(feed.by_ref()), numbers(500).collect::<Vec<_>>());
        feed.finish().expect("no error");
    });
}

#[test]
fn c4_more_than_what_is_declared_is_too_much() {
    ends(|| {
        for script in ["cat; echo bye; echo and more", "cat; echo by", "cat; echo hello"] {
            let template = Template::shell(script).skip_at_end("bye\n");
            let items: Vec<_> = numbers(3).feed_subprocesses_ordered(template, 1, 10).collect();
            assert_eq!(items.len(), 3, "{script}");
            assert!(items[2].as_ref().is_err_and(Error::is_fatal), "{script}: {items:?}");
        }
    });
}

// ==================================================================== C5: a request that was skipped

/// Skips `skip`, and answers the others with themselves.
fn skips() -> Template {
    child("skip")
}

fn checked() -> Template {
    skips().check(|request, reply| {
        if request.strip_suffix(b"\n") == Some(reply) { Ok(()) } else { Err("not its own".into()) }
    })
}

fn c5_alone_and_unanswered(door: Door) {
    door.send(checked(), &["skip"], 1).is(&["!ReplyCount 0"]);
    door.send(skips(), &["skip"], 1).is(&["!ReplyCount 0"]);
}
doors!(c5_alone_and_unanswered:
    ordered unordered keep_input blocks wrapping queue pipeline results);

fn c5_the_last_of_its_session(door: Door) {
    door.send(checked(), &["a", "skip"], 1).is(&["a", "!ReplyCount 1"]);
}
doors!(c5_the_last_of_its_session:
    ordered unordered keep_input blocks wrapping queue pipeline results);

#[test]
fn c5_in_the_midst_of_others() {
    for _ in 0..20 {
        let told = Door::Ordered.send(checked(), &["a", "skip", "b", "skip", "c"], 2);
        assert_eq!(told.items.len(), 5, "{told:?}");
        assert_eq!((&*told.items[0], &*told.items[2], &*told.items[4]), ("a", "b", "c"));
        for k in [1, 3] {
            let item = &told.items[k];
            assert!(item.starts_with('!') && item.ends_with(&format!(" {k}")), "{told:?}");
            assert!(!item.starts_with("!!"), "{told:?}");
        }
    }
}

#[test]
fn c5_several_of_which_none_is_answered() {
    for template in [skips(), checked(), skips().retries(1)] {
        let told = Door::Ordered.send(template, &["skip", "skip", "skip"], 1);
        told.is(&["!ReplyCount 0", "!ReplyCount 1", "!ReplyCount 2"]);
    }
}

#[test]
fn c5_some_answered_and_nothing_proves_them() {
    // It is not known which one was skipped.
    let told = Door::Ordered.send(skips(), &["a", "b", "skip"], 1);
    told.is(&["a", "b", "!!ReplyCount 2"]);
}

#[test]
fn c5_with_a_session_for_each_record() {
    for template in [checked(), skips()] {
        let told = Door::Ordered.send(template.recycle_after_records(1), &["a", "skip", "b"], 2);
        told.is(&["a", "!ReplyCount 1", "b"]);
    }
}

#[test]
fn c5_with_words_and_side_channels() {
    let skip = "while read -r x; do [ $x = skip ] || echo $x; done";
    for template in [
        ready(skip),
        Template::shell(format!("echo hello; {skip}")).skip_lines(1),
        Template::shell("read -r hello; while read -r x; do [ $x = bye ] && exit 0; [ $x = skip ] || echo $x; done")
            .preamble("hello\n").farewell("bye\n"),
        Template::shell(skip).side_input("side"),
    ] {
        Door::Ordered.send(template, &["skip"], 1).is(&["!ReplyCount 0"]);
    }
}

#[test]
fn c5_factor_says_nothing_of_an_empty_line() {
    if !here(&["factor"]) {
        return;
    }
    let template = || {
        Template::new("factor").check(|request, reply| {
            let number = request.trim_ascii();
            let told = reply.starts_with(number) && reply.get(number.len()) == Some(&b':');
            if told { Ok(()) } else { Err("not its own".into()) }
        })
    };
    Door::Ordered.send(template(), &[""], 1).is(&["!ReplyCount 0"]);
    Door::Ordered.send(template(), &["6", ""], 1).is(&["6: 2 3", "!ReplyCount 1"]);
}

#[test]
fn c5_the_message_is_about_its_own_packet() {
    ends(|| {
        let mut feed = ["a", "skip"].into_iter().feed_subprocesses_ordered(checked(), 1, 10);
        assert_eq!(feed.next().unwrap().unwrap(), "a");
        let error = feed.next().unwrap().unwrap_err();
        assert_eq!((error.packet(), error.is_fatal()), (Some(1), false), "{error}");
        assert_eq!(error.request().unwrap(), "skip\n");
        assert!(error.to_string().contains("packet 1"), "{error}");
        assert!(feed.next().is_none());
    });
}

// ==================================================================== C6: no session ever answers

fn c6_no_session_ever_answers(template: Template) {
    ends(move || {
        for order in [Order::Input, Order::Completion] {
            let source = (0..500).map(|n| n.to_string());
            let feed = source.feed(template.clone()).workers(1).buffer(20).order(order).start();
            let monitor = feed.monitor();
            let errors: Vec<_> = feed.map(Result::unwrap_err).collect();
            let is_cause = |error: &&Error| error.is_fatal() && error.kind() != ErrorKind::Halted;
            let causes: Vec<_> = errors.iter().filter(is_cause).collect();
            assert_eq!(causes.len(), 1, "{} errors", errors.len());
            let starts = monitor.snapshot().starts;
            assert!(starts <= 3 * 8, "{starts} started");
        }
    });
}

/// The tool takes it without a word, so that each session comes to its end with status 0.
#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence: the input is longer than the window")]
fn c6_a_sync_command_that_can_never_work() {
    let sentinel = ReplyFraming::sentinel(Sentinel::new("true {mark}"));
    c6_no_session_ever_answers(Template::new("sh").replies(sentinel));
}

#[test]
fn c6_a_sync_command_that_ends_the_tool() {
    let sentinel = ReplyFraming::sentinel(Sentinel::new("exit 3; {mark}"));
    c6_no_session_ever_answers(Template::new("sh").replies(sentinel));
}

#[test]
fn c6_a_worker_that_dies_of_everything() {
    c6_no_session_ever_answers(Template::shell("read -r x; exit 1"));
    c6_no_session_ever_answers(Template::shell("read -r x; kill -9 $$").retries(1));
    c6_no_session_ever_answers(ready("read -r x; exit 1"));
    c6_no_session_ever_answers(Template::shell("echo hello; read -r x; exit 1").skip_lines(1));
}

#[test]
fn c6_a_worker_that_never_answers_in_time() {
    let template = Template::shell("read -r x; exec sleep 100").kill_sequence([]);
    c6_no_session_ever_answers(template.packet_timeout(Duration::from_millis(100)));
}

#[test]
fn c6_one_answer_is_enough() {
    ends(|| {
        // The first is answered, and each after it kills its session: item errors to the end.
        let script = "while read -r x; do [ $x = good ] || exit 1; echo $x; done";
        let source = std::iter::once("good").chain(std::iter::repeat_n("bad", 30));
        let ms = Duration::from_millis;
        let template = Template::shell(script).backoff(ms(1), ms(5));
        let items: Vec<_> = source.feed_subprocesses_ordered(template, 1, 10).collect();
        assert_eq!(items.len(), 31);
        assert!(items[0].is_ok() && items[1..].iter().all(Result::is_err));
    });
}

// ==================================================================== C7: a request that leaves something open

/// An event loop that swallows whatever comes after `open`.
fn event_loop() -> Template {
    child("poller").replies(ReplyFraming::sentinel(Sentinel::new("{mark}")))
}

#[test]
fn c7_the_hint_names_the_limit_that_heals_it() {
    ends(|| {
        let requests = ["a", "open", "b", "c", "d"].map(str::to_owned);
        let (sender, source) = open_ended(requests.to_vec());
        let mut feed = source.feed_subprocesses_ordered(event_loop(), 1, 4);
        assert_eq!(feed.next().unwrap().unwrap(), "a\n");
        let monitor = feed.monitor();
        let names = |hint: &String| hint.contains("packet_timeout") && !hint.contains("buffer");
        let start = Instant::now();
        while !monitor.snapshot().hint.as_ref().is_some_and(names) {
            assert!(start.elapsed() < DEADLINE / 2, "{:?}", monitor.snapshot().hint);
            thread::sleep(Duration::from_millis(1));
        }
        drop((feed, sender));
    });
}

fn c7_the_limit_heals_it(door: Door) {
    let template = event_loop().packet_timeout(Duration::from_secs(2));
    let told = door.send(template, &["a", "open", "b"], 1);
    assert_eq!(told.items.len(), 3, "{told:?}");
    for reply in ["a\n", "b\n"] {
        assert!(told.items.iter().any(|item| item == reply), "{told:?}");
    }
    assert!(
        told.items.iter().any(|item| item.starts_with('!') && item.ends_with(" 1")),
        "{told:?}"
    );
}
doors!(c7_the_limit_heals_it: ordered unordered keep_input blocks queue pipeline results);

/// A session that has answered is closed five seconds after the input has ended; one that has not, at once.
fn c7_the_end_of_the_input_ends_it(door: Door) {
    let told = door.send(event_loop(), &["a", "open", "b"], 1);
    assert_eq!(told.items.len(), 3, "{told:?}");
    for reply in ["a\n", "b\n"] {
        assert!(told.items.iter().any(|item| item == reply), "{told:?}");
    }
    assert!(
        told.items.iter().any(|item| item.starts_with('!') && item.ends_with(" 1")),
        "{told:?}"
    );
}
doors!(c7_the_end_of_the_input_ends_it: ordered unordered keep_input blocks pipeline results);

#[test]
fn c7_and_with_lines_it_is_a_wrong_count() {
    Door::Ordered.send(child("poller"), &["a", "open", "b"], 1).is(&[
        "a",
        "!!ReplyCount 1",
        "!!Halted 2",
    ]);
    // Nothing was answered, so each is asked again alone.
    let told = Door::Ordered.send(child("poller"), &["open"], 1);
    assert!(told.items.len() == 1 && told.items[0].starts_with('!'), "{told:?}");
}

/// What an open template literal takes is text, whatever it is: nothing that follows ends it.
#[test]
fn c7_node() {
    if !here(&["node"]) {
        return;
    }
    ends(|| {
        let template = Template::new("node")
            .arg("-i")
            .env("NODE_REPL_HISTORY", "")
            .replies(ReplyFraming::sentinel(Sentinel::new("console.log(\"{mark}\")")));
        let requests = ["1 + 1", "`", "2 + 2", "3 + 3", "4 + 4", "5 + 5"].map(str::to_owned);
        let (sender, source) = open_ended(requests.to_vec());
        let feed = source.feed_subprocesses_ordered(template, 1, 4);
        let monitor = feed.monitor();
        eventually("the hint names the limit", || {
            monitor.snapshot().hint.is_some_and(|hint| hint.contains("packet_timeout"))
        });
        drop((feed, sender));
    });
}

// ==================================================================== C8: a Go program

#[test]
fn c8_miller() {
    if !here(&["mlr"]) {
        return;
    }
    let template = || Template::new("mlr").args(["--ijsonl", "--ojsonl", "cat"]);
    Door::Ordered.send(template(), &["{\"a\": 1}"], 1).is(&["{\"a\": 1}"]);
    Door::Queue.send(template(), &["{\"a\": 1}"], 1).is(&["{\"a\": 1}"]);
    ends(move || {
        let source = (0..300).map(|n| format!("{{\"a\": {n}}}"));
        let feed = source.clone().feed_subprocesses_ordered(template(), 2, ending(300, 50));
        assert_eq!(texts(feed), source.collect::<Vec<_>>());
    });
}

/// Its threads by the calls that they sleep in: in a futex with a limit, in one without, for a signal.
#[test]
fn c8_several_threads_that_sleep() {
    ends(|| {
        let template = child("beside futex beside sigwait beside suspend stdio 4096");
        let feed = numbers(100).feed_subprocesses_ordered(template, 2, ending(100, 20));
        assert_eq!(texts(feed), numbers(100).collect::<Vec<_>>());
    });
}

// ==================================================================== C9: something left behind

/// Answers in full, exits with this status, and leaves something behind that holds its stdout.
fn leaves_behind(status: u32) -> Template {
    Template::shell(format!("tr a-z A-Z; sleep 20 & exit {status}"))
        .replies(ReplyFraming::until_eof())
}

fn c9_what_came_is_the_reply(door: Door) {
    door.send(leaves_behind(0), &["a", "b", "c"], 1).is(&["A\n", "B\n", "C\n"]);
}
doors!(c9_what_came_is_the_reply:
    ordered unordered keep_input blocks wrapping queue pipeline results);

#[test]
fn c9_with_policies_and_words() {
    for template in [
        leaves_behind(0).retries(1),
        leaves_behind(0).at_most_once(),
        ready("tr a-z A-Z; sleep 20 &").replies(ReplyFraming::until_eof()),
        Template::shell("echo hello; tr a-z A-Z; sleep 20 &")
            .skip_lines(1)
            .replies(ReplyFraming::until_eof()),
        // In a session of its own, where no signal of ours reaches it.
        Template::shell("tr a-z A-Z; setsid sleep 20 &").replies(ReplyFraming::until_eof()),
        Template::shell("tr a-z A-Z; exec 2>&1; sleep 20 &").replies(ReplyFraming::until_eof()),
    ] {
        Door::Ordered.send(template, &["a", "b"], 2).is(&["A\n", "B\n"]);
    }
}

#[test]
fn c9_nothing_came_and_that_is_the_reply() {
    let template = Template::shell("cat >/dev/null; sleep 20 &").replies(ReplyFraming::until_eof());
    Door::Ordered.send(template, &["a", "b"], 1).is(&["", ""]);
}

#[test]
fn c9_a_side_output_that_is_held() {
    ends(|| {
        let script = "exec 3>{fd:side}; read -r x; echo $x; echo $x >&3; sleep 20 &";
        let template = Template::shell(script)
            .replies(ReplyFraming::until_eof())
            .side_output("side", ReplyFraming::until_eof());
        let feed = ["a", "b"].into_iter().feed_subprocesses_ordered(template, 1, 4);
        assert_eq!(texts(feed), ["a\n", "b\n"]);
    });
}

#[test]
fn c9_a_bad_status_is_an_error_all_the_same() {
    let told = Door::Ordered.send(leaves_behind(3), &["a", "b"], 1);
    told.is(&["!Died 0", "!Died 1"]);
}

#[test]
fn c9_a_command_as_a_source() {
    ends(|| {
        let template = Template::shell("seq 3; sleep 20 &").replies(ReplyFraming::until_eof());
        let source = iterate_in_subprocess(template, 2);
        assert_eq!(soon(|| texts(source.iter())), ["1\n2\n3\n"]);
    });
}

// ==================================================================== C10: read first, then judge

#[test]
fn c10_a_check_that_takes_longer_than_a_limit_kills_no_worker() {
    ends(|| {
        let limit = Duration::from_millis(700);
        for template in [
            Template::new("sh").packet_timeout(limit),
            Template::new("sh").idle_timeout(limit),
            Template::new("sh").start_timeout(limit),
        ] {
            for _ in 0..2 {
                // Worker 0 answers at once, and that takes its time to be checked; the others' replies come
                // in the meantime, and lie in the pipe.
                let script = "while read -r x; do [ {id} = 0 ] || sleep 0.1; echo $x; done";
                let calls = AtomicU32::new(0);
                let template = template.clone().arg("-c").arg(script).check(move |_, _| {
                    if calls.fetch_add(1, SeqCst) == 0 {
                        thread::sleep(2 * limit);
                    }
                    Ok(())
                });
                let feed = numbers(30).feed_subprocesses_ordered(template, 3, 10);
                let monitor = feed.monitor();
                assert_eq!(texts(feed), numbers(30).collect::<Vec<_>>());
                let snapshot = monitor.snapshot();
                assert_eq!((snapshot.timeouts, snapshot.signals), (0, 0), "{snapshot:?}");
            }
        }
    });
}

/// Stops this process for two seconds, after a moment.
fn stopped_for_two_seconds() -> std::process::Child {
    let pid = std::process::id();
    let script = format!("sleep 0.3; kill -STOP {pid}; sleep 2; kill -CONT {pid}");
    Command::new("sh").args(["-c", &script]).spawn().expect("a shell")
}

#[test]
fn c10_a_host_that_is_stopped_kills_no_worker() {
    alone!(|| {
        let limit = Duration::from_secs(1);
        let slow = || Template::shell("while read -r x; do sleep 0.1; echo $x; done");
        for template in [
            slow().packet_timeout(limit),
            slow().start_timeout(limit),
            slow().idle_timeout(limit),
            slow().packet_timeout(limit).on_stall(OnStall::Wait, limit),
        ] {
            for order in [Order::Input, Order::Completion] {
                let mut stopper = stopped_for_two_seconds();
                let feed = numbers(20).feed(template.clone()).workers(2).order(order).start();
                let monitor = feed.monitor();
                assert_eq!(texts(feed).len(), 20);
                let snapshot = monitor.snapshot();
                assert_eq!((snapshot.timeouts, snapshot.signals), (0, 0), "{snapshot:?}");
                stopper.wait().unwrap();
            }
        }
    });
}

#[test]
fn c10_a_host_that_is_stopped_while_workers_start_and_end() {
    alone!(|| {
        let limit = Duration::from_secs(1);
        // Ready while the host is stopped.
        let template = Template::shell("sleep 0.6; echo READY; exec cat").ready("READY\n", limit);
        let mut stopper = stopped_for_two_seconds();
        let feed = numbers(5).feed_subprocesses_ordered(template, 2, 10);
        assert_eq!(texts(feed).len(), 5);
        stopper.wait().unwrap();
        // Gone while the host is stopped.
        let template = Template::shell("cat; sleep 0.6").end_timeout(limit);
        let mut stopper = stopped_for_two_seconds();
        let mut feed = numbers(5).feed_subprocesses_ordered(template, 2, 10);
        assert_eq!(texts(feed.by_ref()).len(), 5);
        let snapshot = feed.finish().expect("they ended by themselves");
        assert_eq!(snapshot.signals, 0, "{snapshot:?}");
        stopper.wait().unwrap();
        // A source that goes on while the host is stopped.
        let script = "for i in 1 2 3 4 5 6 7 8 9; do echo $i; sleep 0.1; done";
        let source = iterate_in_subprocess(Template::shell(script).idle_timeout(limit), 20);
        let mut stopper = stopped_for_two_seconds();
        assert_eq!(texts(source.iter()).len(), 9);
        stopper.wait().unwrap();
    });
}

// ==================================================================== C11: drops, masks, looks

#[test]
fn c11_a_drop_where_the_host_has_blocked_every_signal() {
    alone!(|| {
        let before = Belongings::now();
        let mut all = SigSet::all();
        all.remove(Signal::SIGKILL);
        all.thread_block().expect("a mask");
        let mut feed = numbers(1_000).feed_subprocesses_ordered(child("deaf"), 2, 9);
        feed.next().unwrap().unwrap();
        soon(|| drop(feed));
        before.restored();
    });
}

#[test]
fn c11_a_worker_that_is_waited_for_is_looked_at_ever_more_rarely() {
    ends(|| {
        for template in [
            child("silent").on_stall(OnStall::Wait, Duration::from_millis(1)),
            child("silent").on_stall(OnStall::Wait, Duration::from_millis(100)),
            child("late /no/such/file").on_stall(OnStall::Recycle, Duration::from_millis(1)),
        ] {
            let (sender, source) = open_ended(vec!["a".to_owned()]);
            let feed = source.feed_subprocesses_ordered(template, 1, 4);
            let monitor = feed.monitor();
            thread::sleep(Duration::from_secs(5));
            // At 1, 2, 4, ... ms it is 13 times in 5 s, and 7 more for what may have moved.
            let probes = monitor.snapshot().probes;
            assert!(probes <= 20, "looked at {probes} times");
            drop((feed, sender));
        }
    });
}

#[test]
fn c11_a_check_that_blocks_holds_up_its_own_feed_only() {
    ends(|| {
        let both = Arc::new(Barrier::new(2));
        let inside = Arc::clone(&both);
        let template = Template::new("cat").check(move |_, reply| {
            if reply == b"0" {
                inside.wait();
            }
            Ok(())
        });
        let feed = numbers(3).feed_subprocesses_ordered(template, 1, 4);
        let mut queue = Queue::subprocesses(Template::new("cat"), 1, 4);
        queue.put("a").unwrap();
        assert_eq!(queue.get().unwrap().unwrap(), "a");
        both.wait();
        assert_eq!(texts(feed), ["0", "1", "2"]);
    });
}
