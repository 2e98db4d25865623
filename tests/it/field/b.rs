//! B: wrong without a word.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::wait::{WaitPidFlag, waitpid};
use subfeed::channel::Redirect;
use subfeed::framing::{ReplyFraming, Sentinel};
use subfeed::policy::Halt;
use subfeed::queue::{Feeder, Queue};
use subfeed::source::iterate_in_subprocess;
use subfeed::{Error, ErrorKind, FeedExt, Order, Template};

use super::{Door, doors, ends, open_ended};
use crate::alone;
use crate::common::tools::here;
use crate::common::{Dir, child, eventually, numbers, soon, texts};

// ==================================================================== B0: an exit status that nobody knows

/// Lets the system reap every child of this process by itself.
fn reaped_by_the_system(by: SigHandler, flags: SaFlags) {
    let action = SigAction::new(by, flags, SigSet::empty());
    // SAFETY: no handler runs.
    unsafe { sigaction(Signal::SIGCHLD, &action) }.expect("a signal");
}

/// Reaps every child of this process until it is dropped.
struct Reaper(Arc<AtomicBool>, Option<thread::JoinHandle<()>>);

impl Reaper {
    fn new() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let reaping = thread::spawn(move || {
            while !stopped.load(SeqCst) {
                if waitpid(None, Some(WaitPidFlag::WNOHANG)).is_err() {
                    thread::yield_now();
                }
            }
        });
        Self(stop, Some(reaping))
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
        self.1.take().expect("once").join().expect("a reaper");
    }
}

/// What needs a status to be believed is an error without one, or the status is had in another way.
fn b0_nothing_is_believed() {
    let until_eof = |script: &str| Template::shell(script).replies(ReplyFraming::until_eof());
    for script in ["head -c 3; kill -9 $$", "cat >/dev/null; exit 1", "head -c 3; exit 7"] {
        for order in [Order::Input, Order::Completion] {
            let feed = ["abcdef"].into_iter().feed(until_eof(script)).workers(1).order(order);
            let items: Vec<_> = feed.start().collect();
            assert_eq!(items.len(), 1);
            assert!(items[0].is_err(), "{script}: {items:?}");
        }
        let mut queue = Queue::subprocesses(until_eof(script), 1, 4);
        queue.put("abcdef").unwrap();
        assert!(queue.get().unwrap().is_err(), "{script} in a queue");
        let template = until_eof(script).retries(1);
        let mut feed = ["abcdef"].into_iter().feed_subprocesses_ordered(template, 1, 4);
        assert!(feed.next().unwrap().is_err(), "{script} with retries");
    }
    // A side output that ends with its process.
    let script = "exec 3>{fd:side}; read -r x; echo half >&3; echo half; kill -9 $$";
    let template = until_eof(script).side_output("side", ReplyFraming::until_eof());
    let items: Vec<_> = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 4).collect();
    assert!(items[0].is_err(), "a side output: {items:?}");
    // A source.
    for script in ["seq 3; kill -9 $$", "seq 3; exit 1"] {
        let items: Vec<_> = iterate_in_subprocess(Template::shell(script), 8).iter().collect();
        let error = items.last().and_then(|item| item.as_ref().err());
        let error = error.unwrap_or_else(|| panic!("{script}: {items:?}"));
        is_known_or_said_to_be_unknown(error);
    }
    let items: Vec<_> = iterate_in_subprocess(until_eof("echo a; exit 1"), 8).iter().collect();
    is_known_or_said_to_be_unknown(items[1].as_ref().unwrap_err());
    // What is told in the end.
    for script in ["cat; exit 3", "cat; kill -9 $$"] {
        let mut feed = numbers(3).feed_subprocesses_ordered(Template::shell(script), 1, 8);
        assert_eq!(texts(feed.by_ref()), ["0", "1", "2"]);
        assert!(feed.finish().is_err(), "{script}");
        let template = Template::shell(script).stdout(Redirect::Null);
        let drained = numbers(3).feed(template).workers(1).drain().unwrap();
        assert!(!drained.all_ended_well(), "{script}: {drained:?}");
        let template = Template::shell(script).stdout(Redirect::Null);
        let feeder = Feeder::new(template, 1, 8);
        feeder.feed("a").unwrap();
        assert!(!feeder.finish().unwrap().all_ended_well(), "{script}");
    }
    // A filter that skips and dies is not one that skips.
    let script = "while read -r x; do [ $x = skip ] && kill -9 $$; echo $x; done";
    let feed = ["a", "skip"].into_iter().feed_subprocesses_ordered(Template::shell(script), 1, 8);
    let items: Vec<_> = feed.collect();
    assert_eq!(items[0].as_ref().unwrap(), "a");
    assert!(items[1].is_err(), "{items:?}");
}

#[track_caller]
fn is_known_or_said_to_be_unknown(error: &Error) {
    let told = error.to_string();
    let is_told = told.contains("exit status is unknown") && told.contains("SIGCHLD");
    assert!(error.is_fatal() && (error.exit_status().is_some() || is_told), "{told}");
}

/// What needs none is as it was.
fn b0_the_rest_is_as_it_was() {
    assert_eq!(
        texts(numbers(100).feed_subprocesses_ordered(child("exit_after 3 0"), 3, 9)).len(),
        100
    );
    let sentinel = ReplyFraming::sentinel(Sentinel::new("echo {mark}"));
    let shell = Template::new("sh").replies(sentinel);
    assert_eq!(texts(["echo 1"].into_iter().feed_subprocesses_ordered(shell, 1, 1)), ["1\n"]);
    // The records of a source have all come, and whether it had more may be unknown.
    for _ in 0..30 {
        let mut items: Vec<_> =
            iterate_in_subprocess(Template::new("seq").arg("3"), 8).iter().collect();
        if let Some(Err(error)) = items.pop_if(|item| item.is_err()) {
            assert_eq!(error.exit_status(), None);
            is_known_or_said_to_be_unknown(&error);
        }
        assert_eq!(texts(items), ["1", "2", "3"]);
    }
}

/// It is said at the start, before anything has gone wrong.
#[test]
fn b0_that_statuses_are_lost_is_noticed_at_the_start() {
    alone!(|| {
        let hint = || {
            let mut feed = numbers(1).feed_subprocesses_ordered(Template::new("cat"), 1, 1);
            feed.next().unwrap().unwrap();
            feed.monitor().snapshot().hint
        };
        assert_eq!(hint(), None);
        for (by, flags) in
            [(SigHandler::SigIgn, SaFlags::empty()), (SigHandler::SigDfl, SaFlags::SA_NOCLDWAIT)]
        {
            reaped_by_the_system(by, flags);
            assert!(hint().is_some_and(|hint| hint.contains("SIGCHLD")));
        }
        reaped_by_the_system(SigHandler::SigDfl, SaFlags::empty());
        assert_eq!(hint(), None);
    });
}

#[test]
fn b0_sigchld_is_ignored() {
    alone!(|| {
        reaped_by_the_system(SigHandler::SigIgn, SaFlags::empty());
        b0_nothing_is_believed();
        b0_the_rest_is_as_it_was();
    });
}

#[test]
fn b0_children_are_not_to_become_zombies() {
    alone!(|| {
        reaped_by_the_system(SigHandler::SigDfl, SaFlags::SA_NOCLDWAIT);
        b0_nothing_is_believed();
        b0_the_rest_is_as_it_was();
    });
}

#[test]
fn b0_somebody_else_reaps() {
    alone!(|| {
        let reaper = Reaper::new();
        for _ in 0..10 {
            b0_nothing_is_believed();
        }
        b0_the_rest_is_as_it_was();
        drop(reaper);
    });
}

// ==================================================================== B1: one reply too many

/// Answers each, and says something of its own at the request `at`.
fn debugging(at: &str) -> Template {
    let script = format!("{{ if ($0 == \"{at}\") print \"DEBUG\"; print; fflush() }}");
    Template::new("awk").raw_arg(script)
}

#[test]
fn b1_while_the_last_requests_are_in_flight() {
    ends(|| {
        for _ in 0..5 {
            let feed = numbers(1_000).feed_subprocesses_ordered(debugging("500"), 1, 1_000);
            let items: Vec<_> = feed.collect();
            assert!(items.len() <= 1_000);
            let is_cause = |error: &&Error| matches!(error.kind(), ErrorKind::ReplyCount { .. });
            let causes =
                items.iter().filter_map(|item| item.as_ref().err()).filter(is_cause).count();
            assert_eq!(causes, 1);
            assert!(items.last().unwrap().as_ref().is_err_and(Error::is_fatal));
            let feed = numbers(1_000).feed_subprocesses_ordered(debugging("500"), 1, 1_000);
            assert!(feed.collect::<Result<Vec<_>, _>>().is_err());
        }
    });
}

/// Each item is two replies to the tool: an array of two where an array of one is meant.
fn b1_two_for_one(door: Door) {
    if !here(&["jq"]) {
        return;
    }
    for _ in 0..20 {
        let template = Template::new("jq").args(["--unbuffered", "-c", ".[]"]);
        let told = door.send(template, &["[1]", "[2,3]", "[4]"], 1);
        b1_is_told(door, &told.items, 3);
    }
}
doors!(b1_two_for_one:
    ordered keep_input blocks wrapping queue pipeline results);

/// How many items there may be: a queue's source, and what comes out of another stage, promise nothing about their
/// end, so that there is room for one more.
fn b1_room(door: Door, count: usize) -> usize {
    count + usize::from(matches!(door, Door::Queue | Door::Pipeline))
}

/// One of at most so many items is the fatal cause, and nothing comes behind it but what was halted.
#[track_caller]
fn b1_is_told(door: Door, items: &[String], count: usize) {
    let first = items.iter().position(|item| item.starts_with('!')).expect("an error");
    assert!(items[first].starts_with("!!ReplyCount"), "{door:?}: {items:?}");
    assert!(items[first + 1..].iter().all(|item| item.starts_with("!!Halted")), "{items:?}");
    let most = b1_room(door, count);
    assert!(items.len() <= most, "{door:?}: {items:?}");
}

/// The same, where it is said behind the last answer.
#[track_caller]
fn b1_is_told_at_the_end(door: Door, items: &[String], count: usize) {
    b1_is_told(door, items, count);
    let count = b1_room(door, count);
    assert_eq!(items.len(), count, "{door:?}: {items:?}");
    assert!(items[..count - 1].iter().all(|item| !item.starts_with('!')), "{items:?}");
}

/// The smallest: what a tool says at its start is taken for the reply to the one request.
fn b1_a_banner_for_the_only_reply(door: Door) {
    let told = door.send(Template::shell("echo Banner 1.0; exec cat"), &["a"], 1);
    b1_is_told(door, &told.items, 1);
}
doors!(b1_a_banner_for_the_only_reply:
    ordered unordered keep_input blocks wrapping queue pipeline results);

/// What a tool says at its end comes after the last reply.
fn b1_something_at_the_end(door: Door) {
    let told = door.send(child("trailing"), &["a", "b", "c"], 1);
    b1_is_told_at_the_end(door, &told.items, 3);
    assert_eq!(told.items[..2], ["a", "b"]);
}
doors!(b1_something_at_the_end:
    ordered unordered keep_input blocks wrapping queue pipeline results);

#[test]
fn b1_where_the_sources_hint_leaves_room_the_error_is_one_more() {
    ends(|| {
        let unknown = || {
            let mut numbers = numbers(10);
            std::iter::from_fn(move || numbers.next())
        };
        let loose = || numbers(20).filter(|n| n.len() == 1);
        for order in [Order::Input, Order::Completion] {
            for items in [
                unknown()
                    .feed(child("trailing"))
                    .workers(1)
                    .order(order)
                    .start()
                    .collect::<Vec<_>>(),
                loose().feed(child("trailing")).workers(1).order(order).start().collect(),
            ] {
                assert_eq!(items.len(), 11, "{items:?}");
                assert!(items[..10].iter().all(Result::is_ok));
                let error = items[10].as_ref().unwrap_err();
                assert!(error.is_fatal() && error.packet().is_none(), "{error}");
                assert!(matches!(error.kind(), ErrorKind::ReplyCount { .. }), "{error}");
            }
        }
    });
}

#[test]
fn b1_the_end_of_the_feed_is_the_end_of_its_sessions() {
    ends(|| {
        // It says one too many when it has been idle for a while: after the source's end was known.
        let script = "cat; sleep 1; echo one too many";
        let unknown = {
            let mut numbers = numbers(3);
            std::iter::from_fn(move || numbers.next())
        };
        let items: Vec<_> =
            unknown.feed_subprocesses_ordered(Template::shell(script), 1, 8).collect();
        assert_eq!(items.len(), 4, "{items:?}");
        assert!(items[3].as_ref().is_err_and(Error::is_fatal));
        let items: Vec<_> =
            numbers(3).feed_subprocesses_ordered(Template::shell(script), 1, 8).collect();
        assert_eq!(items.len(), 3, "{items:?}");
        assert!(items[2].as_ref().is_err_and(Error::is_fatal));
    });
}

#[test]
fn b1_one_of_several_workers() {
    ends(|| {
        // Worker 1 says one too many at its end, if it was ever given anything.
        let script =
            "[ {id} = 0 ] && exec cat; read -r x || exit 0; echo $x; cat; echo one too many";
        for _ in 0..10 {
            let template = Template::shell(script).decode(|reply| reply.worker());
            let feed = numbers(200).feed_subprocesses_ordered(template, 2, 20);
            let items: Vec<_> = feed.collect();
            assert_eq!(items.len(), 200);
            let by_1 = items.iter().any(|item| item.as_ref().is_ok_and(|worker| *worker == 1));
            let told = items[199].as_ref().is_err_and(Error::is_fatal);
            assert!(told || !by_1, "{items:?}");
        }
    });
}

#[test]
fn b1_a_reply_too_many_on_a_side_output() {
    ends(|| {
        let script =
            "exec 3>{fd:side}; while read -r x; do echo $x; echo $x >&3; done; echo more >&3";
        let template = Template::shell(script).side_output("side", ReplyFraming::line());
        let items: Vec<_> = numbers(3).feed_subprocesses_ordered(template, 1, 8).collect();
        assert_eq!(items.len(), 3);
        let error = items[2].as_ref().unwrap_err();
        assert!(error.is_fatal() && error.to_string().contains("side output `side`"), "{error}");
    });
}

#[test]
fn b1_with_words_recycling_and_policies() {
    for template in [
        Template::shell("echo hello; cat; echo one too many").skip_lines(1),
        Template::shell("echo READY; cat; echo one too many")
            .ready("READY\n", Duration::from_secs(60)),
        Template::shell("read -r hello; while read -r x; do [ $x = bye ] && break; echo $x; done; echo one too many")
            .preamble("hello\n")
            .farewell("bye\n"),
        child("trailing").at_most_once(),
        child("trailing").retries(2),
        child("trailing").recycle_after_records(3),
        child("trailing").end_timeout(Duration::from_secs(30)),
        Template::shell("while read -r x; do [ $x = a ] && echo two; echo $x; done"),
    ] {
        let told = Door::Ordered.send(template, &["a", "b", "c"], 1);
        b1_is_told(Door::Ordered, &told.items, 3);
    }
}

#[test]
fn b1_after_a_death() {
    ends(|| {
        // The first session dies of its poison, the second says one too many.
        let script =
            "while read -r x; do [ $x = poison ] && exit 1; echo $x; done; echo one too many";
        let source = ["a", "poison", "b", "c"].into_iter();
        let items: Vec<_> =
            source.feed_subprocesses_ordered(Template::shell(script), 1, 8).collect();
        assert_eq!(items.len(), 4);
        assert_eq!(items[0].as_ref().unwrap(), "a");
        assert_eq!(items[1].as_ref().unwrap_err().kind(), ErrorKind::Died);
        assert_eq!(items[2].as_ref().unwrap(), "b");
        assert!(items[3].as_ref().is_err_and(Error::is_fatal), "{items:?}");
    });
}

#[test]
fn b1_what_proves_its_replies_cannot_say_too_much() {
    let sentinel = ReplyFraming::sentinel(Sentinel::new("echo {mark}"));
    let template = Template::shell("sh; echo one too many").replies(sentinel);
    Door::Ordered.send(template, &["echo 1", "echo 2; echo 3"], 1).is(&["1\n", "2\n3\n"]);
    let template = Template::shell("cat; echo more").replies(ReplyFraming::until_eof());
    Door::Ordered.send(template, &["a"], 1).is(&["a\nmore\n"]);
}

#[test]
fn b1_a_session_that_was_given_nothing_may_say_what_it_likes() {
    ends(|| {
        let (sender, source) = open_ended(vec![]);
        let template = Template::shell("echo I have nothing to do; exec cat");
        let mut feed = source.feed_subprocesses_ordered(template, 1, 8);
        let monitor = feed.monitor();
        eventually("it is heard", || monitor.snapshot().read_bytes > 0);
        drop(sender);
        assert!(feed.next().is_none());
        feed.finish().expect("no error");
    });
}

#[test]
fn b1_a_worker_that_stays_holds_up_the_last_item_for_no_longer_than_its_limit() {
    ends(|| {
        let template = child("deaf").end_timeout(Duration::from_millis(300));
        let mut feed = numbers(3).feed_subprocesses_ordered(template, 1, 8);
        assert_eq!(texts(feed.by_ref()), ["0", "1", "2"]);
        assert!(feed.finish().is_err(), "it had to be killed, and that is a remark");
        // Without a limit, five seconds.
        let template = child("deaf").end_timeout(None);
        let feed = numbers(3).feed_subprocesses_ordered(template, 1, 8);
        soon(|| assert_eq!(texts(feed.take(3)), ["0", "1", "2"]));
    });
}

#[test]
fn b1_an_honest_tool_is_not_accused() {
    ends(|| {
        for n in [1, 2, 3, 100] {
            for workers in [1, 3] {
                let feed = numbers(n).feed_subprocesses_ordered(Template::new("cat"), workers, 8);
                assert_eq!(feed.collect::<Result<Vec<_>, _>>().unwrap().len(), n as usize);
                let feed = numbers(n).feed_subprocesses(child("exit_after 3 0"), workers, 8);
                assert_eq!(feed.collect::<Result<Vec<_>, _>>().unwrap().len(), n as usize);
            }
        }
    });
}

#[test]
fn b1_under_halt() {
    ends(|| {
        for halt in [Halt::Soon(1), Halt::Now(1)] {
            let items: Vec<_> = ["a", "b"]
                .into_iter()
                .feed_subprocesses_ordered(child("trailing").halt(halt), 1, 8)
                .collect();
            assert_eq!(items.len(), 2);
            assert!(items[1].as_ref().is_err_and(Error::is_fatal), "{halt:?}: {items:?}");
        }
    });
}

// ==================================================================== B2: drained, and not read

/// Drains so many records into workers that write what they have read, byte by byte, to a log; what was accepted is
/// what is there, and what is not there has failed.
#[track_caller]
fn b2_accepted_is_what_was_read(script: &str, n: u64, workers: usize) {
    let script = script.to_owned();
    ends(move || {
        let dir = Dir::new();
        let template = patient(&script).env("LOG", dir.path("log"));
        let drained =
            numbers(n).map(|n| format!("k{n:0>3}")).feed(template).workers(workers).drain();
        let log = dir.read("log");
        let read: Vec<&str> = log.lines().collect();
        assert_eq!(read.iter().collect::<BTreeSet<_>>().len(), read.len(), "twice: {read:?}");
        let drained = drained.unwrap();
        let accepted = drained.accepted.iter().sum::<u64>();
        assert_eq!(accepted, read.len() as u64, "{script}: {drained:?}");
        assert_eq!(accepted + drained.failed.len() as u64, n, "{script}: {drained:?}");
        assert!(!drained.all_ended_well(), "{script}: {drained:?}");
        for error in &drained.failed {
            let packet = format!("k{:0>3}", error.packet().unwrap());
            assert!(!read.contains(&&*packet), "{packet} was read: {error}");
        }
    });
}

/// A worker that may end as often as it likes.
fn patient(script: &str) -> Template {
    let ms = Duration::from_millis;
    Template::shell(script).give_up_after(u32::MAX).backoff(ms(1), ms(10))
}

#[test]
fn b2_a_worker_that_reads_one_and_leaves() {
    // A shell reads byte by byte, since others may want the rest.
    b2_accepted_is_what_was_read("read -r x && echo \"$x\" >>\"$LOG\"", 20, 1);
    b2_accepted_is_what_was_read("read -r x && echo \"$x\" >>\"$LOG\"", 20, 3);
}

#[test]
fn b2_a_worker_that_reads_two_with_one_call_and_leaves() {
    b2_accepted_is_what_was_read("dd bs=10 count=1 2>/dev/null >>\"$LOG\"", 20, 1);
}

#[test]
fn b2_a_worker_that_reads_some_and_dies() {
    let script =
        "read -r x && echo \"$x\" >>\"$LOG\"; read -r x && echo \"$x\" >>\"$LOG\"; kill -9 $$";
    b2_accepted_is_what_was_read(script, 20, 2);
}

#[test]
fn b2_after_ready() {
    ends(|| {
        let dir = Dir::new();
        let script = "echo READY; read -r x; echo \"$x\" >>\"$LOG\"";
        let template = patient(script).env("LOG", dir.path("log"));
        let template = template.ready("READY\n", Duration::from_secs(60));
        let drained = numbers(10).feed(template).workers(1).drain().unwrap();
        let read = dir.read("log").lines().count() as u64;
        assert_eq!(drained.accepted.iter().sum::<u64>(), read, "{drained:?}");
        assert_eq!(read + drained.failed.len() as u64, 10, "{drained:?}");
    });
}

#[test]
fn b2_a_worker_that_reads_nothing() {
    ends(|| {
        for script in [":", "exit 0", "exec <&-; sleep 0.1"] {
            let template = Template::shell(script).give_up_after(3);
            match numbers(100).feed(template.clone()).workers(1).drain() {
                Ok(drained) => {
                    assert_eq!(drained.accepted.iter().sum::<u64>(), 0, "{script}: {drained:?}");
                    assert_eq!(drained.failed.len(), 100, "{script}: {drained:?}");
                    assert!(!drained.all_ended_well());
                }
                Err(error) => assert!(error.is_fatal(), "{error}"),
            }
            let feeder = Feeder::new(template, 1, 8);
            let fed = numbers(100).take_while(|n| feeder.feed(n.clone()).is_ok()).count();
            match feeder.finish() {
                Ok(drained) => {
                    assert_eq!(drained.accepted.iter().sum::<u64>(), 0, "{script}: {drained:?}");
                    assert_eq!(drained.failed.len(), fed);
                }
                Err(error) => assert!(error.is_fatal(), "{error}"),
            }
        }
    });
}

#[test]
fn b2_what_one_leaves_goes_to_another() {
    ends(|| {
        // Worker 0 leaves without having read, worker 1 takes everything.
        let dir = Dir::new();
        let script = "[ {id} = 0 ] && exit 0; exec cat";
        let template = patient(script).stdout(Redirect::file(dir.path("{id}.out")));
        let drained = numbers(1_000).feed(template).workers(2).drain().unwrap();
        assert!(drained.failed.is_empty(), "{drained:?}");
        assert_eq!(drained.accepted, [0, 1_000]);
        assert_eq!(dir.read("1.out").lines().count(), 1_000);
    });
}

#[test]
fn b2_who_reads_everything_has_accepted_everything() {
    ends(|| {
        let dir = Dir::new();
        for script in ["exec cat", "while read -r x; do echo \"$x\"; done", "cat; exit 0"] {
            let template = Template::shell(script).stdout(Redirect::file(dir.path("{id}.out")));
            let drained = numbers(1_000).feed(template).workers(3).drain().unwrap();
            assert!(drained.all_ended_well(), "{drained:?}");
            assert_eq!(drained.accepted.iter().sum::<u64>(), 1_000);
        }
    });
}

// ==================================================================== B3: the mark in a complaint

/// Answers with the request; where something was left open, complains about what comes next, and quotes it.
const COMPLAINS: &str = "while read -r l; do case $l in \
    open) read -r next; echo \"incorrect syntax: $next is not an infix operator\";; \
    twice) read -r next; echo \"$next\"; echo \"what is $next?\";; \
    *) echo \"$l\";; esac; done";

/// Each of its replies is a line, so that the mark is promised to be alone on its own.
fn complains() -> Template {
    Template::shell(COMPLAINS).replies(ReplyFraming::sentinel(Sentinel::new("{mark}").alone()))
}

/// A request that left something open is an error, and nobody else's reply is wrong.
#[track_caller]
fn b3_nothing_wrong(items: &[String], requests: &[&str]) {
    assert_eq!(items.len(), requests.len(), "{items:?}");
    for (item, request) in items.iter().zip(requests) {
        let is_error = item.starts_with('!');
        let is_right = *item == format!("{request}\n");
        let is_bad = ["open", "twice"].contains(request);
        assert!(is_error || (is_right && !is_bad), "{request}: {items:?}");
    }
    assert!(items.iter().all(|item| !item.starts_with("!!")), "{items:?}");
}

fn b3_a_complaint_that_quotes_the_mark(door: Door) {
    for requests in [
        &["a", "open", "b", "c"][..],
        &["open", "b"],
        &["a", "open"],
        &["open"],
        &["a", "open", "open", "b"],
    ] {
        let told = door.send(complains(), requests, 1);
        b3_nothing_wrong(&told.items, requests);
        // The ones before it were answered.
        let before = requests.iter().take_while(|request| **request != "open");
        assert!(before.zip(&told.items).all(|(request, item)| *item == format!("{request}\n")));
    }
}
doors!(b3_a_complaint_that_quotes_the_mark:
    ordered keep_input blocks wrapping queue pipeline results);

/// A reply that was yielded before the mark came again cannot be taken back: the error that says so stands in the next
/// item, and the last item is held until there can be none.
#[test]
fn b3_a_mark_that_is_seen_twice() {
    for requests in [&["a", "twice", "b", "c"][..], &["twice", "b"], &["twice"]] {
        for pause in ["", "sleep 0.05; "] {
            let script = COMPLAINS.replace("echo \"what", &format!("{pause}echo \"what"));
            let template = Template::shell(script)
                .replies(ReplyFraming::sentinel(Sentinel::new("{mark}").alone()));
            let told = Door::Ordered.send(template, requests, 1);
            let twice = requests.iter().position(|request| *request == "twice").expect("it is one");
            let said = [twice, twice + 1].map(|k| told.items.get(k).map_or("", |item| item));
            assert!(said.iter().any(|item| item.starts_with('!')), "{:?}", told.items);
            for (request, item) in requests.iter().zip(&told.items) {
                let is_right = *item == format!("{request}\n");
                assert!(
                    *request == "twice" || is_right || item.starts_with('!'),
                    "{:?}",
                    told.items
                );
            }
            assert_eq!(told.items.len(), requests.len(), "{:?}", told.items);
        }
    }
}

#[test]
fn b3_with_policies_and_several_workers() {
    let requests = ["a", "b", "open", "c", "d", "open", "e"];
    for template in
        [complains().retries(1), complains().at_most_once(), complains().recycle_after_records(2)]
    {
        for workers in [1, 3] {
            let told = Door::Ordered.send(template.clone(), &requests, workers);
            b3_nothing_wrong(&told.items, &requests);
        }
    }
}

#[test]
fn b3_and_a_death_behind_the_complaint() {
    let script = "while read -r l; do case $l in \
        open) read -r next; echo \"incorrect syntax: $next is not an infix operator\"; exit 1;; \
        *) echo \"$l\";; esac; done";
    let template =
        Template::shell(script).replies(ReplyFraming::sentinel(Sentinel::new("{mark}").alone()));
    let requests = ["a", "open", "b"];
    let told = Door::Ordered.send(template, &requests, 1);
    b3_nothing_wrong(&told.items, &requests);
    assert_eq!((&*told.items[0], &*told.items[2]), ("a\n", "b\n"));
}

/// A tool that joins the halves of a mark cannot quote it: the whole exists nowhere but in what it has evaluated.
fn b3_a_complaint_that_quotes_the_halves(door: Door) {
    let script = "while read -r l; do case $l in \
        open) read -r next; printf '%s' \"incorrect syntax: $next is not an infix operator\";; \
        printf*) eval \"$l\";; *) echo \"$l\";; esac; done";
    let sentinel = Sentinel::new("printf '%s%s\\n' {mark1} {mark2}");
    let template = Template::shell(script).replies(ReplyFraming::sentinel(sentinel));
    for requests in [&["a", "open", "b", "c"][..], &["open", "b"], &["open"]] {
        let told = door.send(template.clone(), requests, 1);
        b3_nothing_wrong(&told.items, requests);
    }
}
doors!(b3_a_complaint_that_quotes_the_halves:
    ordered keep_input blocks wrapping queue pipeline results);

// ==================================================================== B4: the recipe for the lines of stdin

fn page(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

#[test]
fn b4_no_recipe_ends_at_the_first_line_that_is_no_text() {
    for path in ["README.md", "src/ext.rs", "src/lib.rs", "src/cookbook.rs"] {
        assert!(!page(path).contains("map_while(Result::ok)"), "{path}");
    }
    let examples = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"));
    for example in examples.expect("examples").flatten() {
        let text = fs::read_to_string(example.path()).expect("an example");
        assert!(!text.contains("map_while(Result::ok)"), "{:?}", example.path());
    }
}

#[test]
fn b4_lines_that_are_no_text_go_through() {
    use std::io::BufRead;
    ends(|| {
        let input: &[u8] = b"one\ntw\xffo\n\nfour";
        let lines = BufRead::split(input, b'\n').map(Result::unwrap);
        let feed = lines.feed_subprocesses_ordered(Template::new("cat"), 2, 10);
        let replies: Vec<_> = feed.map(Result::unwrap).collect();
        assert_eq!(replies, [&b"one"[..], b"tw\xffo", b"", b"four"]);
    });
}

#[test]
fn b4_lines_that_may_fail_to_be_read_are_fed_as_they_are() {
    use std::io::{self, BufRead};
    ends(|| {
        let input: &[u8] = b"one\ntw\xffo\nthree\nfour";
        let lines = io::BufReader::new(input).lines();
        let feed = lines.try_feed(Template::new("cat")).workers(2).buffer(10).start();
        let items: Vec<io::Result<_>> = feed.collect();
        assert_eq!(items.len(), 4);
        let replies = [0, 2, 3].map(|k| items[k].as_ref().unwrap().to_string());
        assert_eq!(replies, ["one", "three", "four"]);
        assert_eq!(items[1].as_ref().unwrap_err().kind(), io::ErrorKind::InvalidData);
    });
}

// ==================================================================== B5: what is said on stderr beside a reply

/// Answers with nothing to `broken`, and says why on stderr.
const BREAKS: &str = "while read -r x; do case $x in broken) echo \"Parse error near $x\" >&2; echo;; \
    *) echo $x;; esac; done";

#[test]
fn b5_stderr_goes_with_the_reply_that_it_belongs_to() {
    ends(|| {
        let one_at_a_time = Template::shell(BREAKS).in_flight(1).keep_stderr();
        let one_each = Template::shell(BREAKS).replies(ReplyFraming::until_eof()).keep_stderr();
        for template in [one_at_a_time, one_each] {
            for workers in [1, 3] {
                let template = template.clone().try_decode(|reply| {
                    let stderr = reply.stderr().ok_or("it is kept")?;
                    Ok((reply.trim_ascii().to_vec(), stderr.to_string()))
                });
                let source = ["a", "broken", "b", "broken", "c"].into_iter();
                let feed = source.feed_subprocesses_ordered(template, workers, 10);
                let items: Vec<_> = feed.map(Result::unwrap).collect();
                for (k, (reply, stderr)) in items.iter().enumerate() {
                    let broken = k % 2 == 1;
                    let expected = if broken { "Parse error near broken\n" } else { "" };
                    assert_eq!((reply.is_empty(), &**stderr), (broken, expected), "{items:?}");
                }
            }
        }
    });
}

#[test]
fn b5_stderr_goes_with_its_reply_however_much_it_is() {
    ends(|| {
        let floods = "while read -r x; do head -c 60000 /dev/zero | tr '\\0' $x >&2; \
            echo \"end of $x\" >&2; echo $x; done";
        let template = Template::shell(floods).in_flight(1).keep_stderr().try_decode(|reply| {
            let letter = String::from_utf8(reply.to_vec())?;
            Ok((letter, reply.stderr().ok_or("it is kept")?.to_string()))
        });
        let letters = ('a'..='j').map(|letter| letter.to_string());
        for item in letters.feed_subprocesses_ordered(template, 1, 10) {
            let (letter, stderr) = item.unwrap();
            assert!(stderr.starts_with(&letter.repeat(100)), "{letter}: {stderr:.40}");
            assert!(stderr.ends_with(&format!("end of {letter}\n")), "{letter}: no end");
        }
    });
}

#[test]
fn b5_where_it_cannot_be_told_whose_it_is_it_is_not_promised() {
    Door::Ordered.send(Template::shell(BREAKS).keep_stderr(), &["a"], 1).is(&["!!Config"]);
}

// ==================================================================== B6: what a framing does not promise

#[test]
fn b6_content_length_is_no_promise_about_language_servers() {
    // A notification between two replies shifts them: the table must say so.
    let table = page("src/framing/mod.rs");
    assert!(table.to_lowercase().contains("notification"), "it says nothing of notifications");
}

#[test]
fn b6_a_notification_is_at_least_not_taken_for_the_last_reply() {
    ends(|| {
        let script = "while read -r x; do printf 'Content-Length: 2\\r\\n\\r\\n%s\\n' $x; \
            [ $x = 1 ] && printf 'Content-Length: 4\\r\\n\\r\\nnote'; done";
        let template = Template::shell(script).replies(ReplyFraming::content_length());
        let items: Vec<_> = numbers(5).feed_subprocesses_ordered(template, 1, 10).collect();
        assert_eq!(items.len(), 5);
        assert!(items[4].as_ref().is_err_and(Error::is_fatal), "{items:?}");
    });
}

// ==================================================================== B7: an operand that is a sync command

/// Says `true` after each command as node does, and takes the next line for the operand of `!`.
fn b7_what_the_tool_says_of_its_own_is_no_reply(door: Door) {
    let script = "while read -r l; do case $l in !) read -r next; eval \"$next\"; echo true;; \
        printf*) eval \"$l\"; echo undefined;; *) echo \"<$l>\"; echo undefined;; esac; done";
    let sentinel = Sentinel::new("printf '%s%s\\n' {mark1} {mark2}").paired();
    let template = Template::shell(script).replies(ReplyFraming::sentinel(sentinel));
    let told = door.send(template, &["a", "!", "b", "c"], 1);
    assert_eq!(told.items.len(), 4, "{told:?}");
    for (k, reply) in [(0, "<a>\nundefined\n"), (2, "<b>\nundefined\n"), (3, "<c>\nundefined\n")] {
        assert_eq!(told.items[k], reply, "{told:?}");
    }
    assert!(told.items[1].starts_with('!') && !told.items[1].starts_with("!!"), "{told:?}");
}
doors!(b7_what_the_tool_says_of_its_own_is_no_reply:
    ordered keep_input blocks wrapping queue pipeline results);

// ==================================================================== B8, B9: what cannot be detected is said

#[test]
fn b8_where_the_sentinel_is_praised_its_limits_are_told() {
    // A tool that answers the sync command before the request, because the request runs in a thread.
    for path in ["src/lib.rs", "src/framing/mod.rs", "src/framing/sentinel.rs"] {
        let text = page(path).to_lowercase();
        assert!(text.contains("in the background") || text.contains("in a thread"), "{path}");
    }
}

#[test]
fn b9_tools_that_answer_out_of_order_are_told_of() {
    let text = page("src/framing/mod.rs").to_lowercase();
    assert!(text.contains("out of order"), "the table of framings does not say it");
}

/// One packet at a time in a worker cannot be answered out of order, nor shifted by a notification in between.
fn b9_one_in_flight(door: Door) {
    // It keeps the first of two that are there, and answers the second first.
    let script = "while read -r a; do read -r -t 0.05 b && echo \"$b\"; echo \"$a\"; b=; done";
    if !here(&["bash"]) {
        return;
    }
    let template = Template::new("bash").arg("-c").arg(script).in_flight(1);
    door.send(template, &["a", "b", "c", "d"], 2).is(&["a", "b", "c", "d"]);
}
doors!(b9_one_in_flight: ordered unordered keep_input blocks wrapping queue pipeline results);
