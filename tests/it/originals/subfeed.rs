//! subfeed 0.1.1 (Python): its one test, made complete, and its weaknesses W1 to W17.
//!
//! W3 (`daemonize=True` raises) has no opposite: there is no such option. The work of a feed is bound to
//! the program that asked for it.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use subfeed::framing::RequestFraming;
use subfeed::{BoxError, ErrorKind, FeedExt, Redirect, Request, Template};

use crate::alone;
use crate::common::{Belongings, Dir, child, numbers, texts, within};

type Item = (String, String);

fn in_step(item: &Item, request: &mut Request<'_>) -> Result<(), BoxError> {
    request.push(&item.0);
    request.side("line_numbers").push(&item.1);
    Ok(())
}

fn side_only(item: &String, request: &mut Request<'_>) -> Result<(), BoxError> {
    request.side("side").push(item);
    Ok(())
}

fn fibonaccis(n: usize) -> Vec<Item> {
    let pairs = std::iter::successors(Some((0u128, 1)), |&(a, b)| Some((b, a + b)));
    pairs.take(n).enumerate().map(|(n, (fib, _))| (fib.to_string(), n.to_string())).collect()
}

/// Every line of the two output files, with how often it is there.
fn lines(dir: &Dir) -> BTreeMap<String, u32> {
    let mut lines = BTreeMap::new();
    for line in (dir.read("0.out") + &dir.read("1.out")).lines() {
        *lines.entry(line.to_owned()).or_default() += 1;
    }
    lines
}

/// The original's own test: 100 Fibonacci numbers on stdin, their line numbers on a side channel that
/// two shell commands find by its environment variable, output in `{id}.out`. There it is only checked
/// that the pairs which arrive are right; here, that all of them do, once each.
#[test]
fn test_line_numbers_fibonaccis() {
    within(|| {
        let dir = Dir::new();
        let items = fibonaccis(100);
        let expected: BTreeMap<String, u32> =
            items.iter().map(|(fib, n)| (format!("{n}\t{fib}"), 1)).collect();
        let template = Template::shell("paste /dev/fd/$line_numbers -")
            .side_input("line_numbers")
            .encode(in_step);
        let to_files = template.clone().stdout(Redirect::file(dir.path("{id}.out")));
        let drained = items.clone().into_iter().feed(to_files).workers(2).drain().unwrap();
        assert!(drained.all_ended_well(), "{drained:?}");
        assert_eq!(drained.accepted.iter().sum::<u64>(), 100);
        assert_eq!(lines(&dir), expected);

        let in_order: Vec<String> = items.iter().map(|(fib, n)| format!("{n}\t{fib}")).collect();
        let feed = items.into_iter().feed_subprocesses_ordered(template, 2, 50);
        assert_eq!(texts(feed), in_order);
    });
}

/// W1: a command given as a list of arguments always raised.
#[test]
fn a_command_is_a_list_of_arguments_and_the_number_goes_into_each() {
    within(|| {
        let template =
            Template::new("awk").args(["-v", "id={id}"]).raw_arg("{ print id; fflush() }");
        let template = template.decode(|reply| {
            let id = std::str::from_utf8(reply.bytes())?.parse::<usize>()?;
            if id == reply.worker() { Ok(()) } else { Err(BoxError::from("another's number")) }
        });
        let feed = numbers(100).feed_subprocesses(template, 3, 10);
        assert_eq!(feed.map(Result::unwrap).count(), 100);
    });
}

/// W1, W17: literal braces had to be doubled.
#[test]
fn braces_are_braces() {
    within(|| {
        let template = Template::new("awk").arg("{ print $1 }");
        let feed = ["a b", "c d"].into_iter().feed_subprocesses_ordered(template, 1, 10);
        assert_eq!(texts(feed), ["a", "c"]);
    });
}

/// W2: a channel's specification with its defaults raised.
#[test]
fn a_channel_needs_nothing_but_its_name() {
    within(|| {
        let template = Template::new("cat").arg("{fd:side}").stdin(Redirect::Null);
        let template = template.side_input("side").encode(side_only);
        let feed = numbers(20).feed_subprocesses_ordered(template, 2, 10);
        assert_eq!(texts(feed), numbers(20).collect::<Vec<_>>());
    });
}

/// W4: a template that leads to an open file could neither be copied nor used.
#[test]
fn an_open_file_can_be_handed_over_and_the_template_copied() {
    within(|| {
        let dir = Dir::new();
        let file = fs::File::create(dir.path("log")).unwrap();
        let open = format!("/proc/self/fd/{}", file.as_raw_fd());
        let template = Template::shell("echo from {id} >&2; cat").stderr(Redirect::file(open));
        for template in [template.clone(), template] {
            let feed = numbers(20).feed_subprocesses_ordered(template, 1, 10);
            assert_eq!(texts(feed), numbers(20).collect::<Vec<_>>());
            assert_eq!(dir.read("log"), "from 0\n");
        }
    });
}

/// W5: a standard stream that leads nowhere raised, and so did a side channel that nobody writes to.
#[test]
fn every_stream_may_lead_nowhere_and_a_side_may_stay_silent() {
    within(|| {
        let template = Template::shell("cat {fd:side} >/dev/null")
            .stdin(Redirect::Null)
            .stdout(Redirect::Null)
            .stderr(Redirect::Null)
            .side_input("side")
            .side_input("silent")
            .encode(side_only);
        let drained = numbers(200).feed(template).workers(2).drain().unwrap();
        assert!(drained.all_ended_well(), "{drained:?}");
        assert_eq!(drained.accepted.iter().sum::<u64>(), 200);
    });
}

/// W6: a child that wrote more than a pipe holds to a stream nobody had redirected hung for ever.
#[test]
fn what_is_not_redirected_is_drained() {
    within(|| {
        let noisy = || Template::shell("while read -r x; do seq 2000; seq 2000 >&2; done");
        let drained = numbers(50).feed(noisy()).workers(2).drain().unwrap();
        assert!(drained.all_ended_well(), "{drained:?}");
        let template = Template::shell("while read -r x; do seq 20000 >&2; echo $x; done");
        let feed = numbers(10).feed_subprocesses_ordered(template, 2, 10);
        assert_eq!(texts(feed), numbers(10).collect::<Vec<_>>());
    });
}

/// W7: when one child died, the whole swarm hung at its end, and what was queued for it was lost.
#[test]
fn a_dead_child_costs_nobody_else_anything() {
    within(|| {
        // Every session answers one record and is gone.
        let feed = numbers(50).feed_subprocesses_ordered(child("exit_after 1 0"), 2, 10);
        assert_eq!(texts(feed), numbers(50).collect::<Vec<_>>());

        // One dies in the middle of a drain: what it had not read goes to the other, and nothing twice.
        let dir = Dir::new();
        let script = format!(
            "if mkdir {} 2>/dev/null; then read -r x; echo \"$x\"; exit 1; fi; exec cat",
            dir.at("flag")
        );
        let template = Template::shell(script).stdout(Redirect::file(dir.path("{id}.out")));
        let drained = numbers(30_000).feed(template).workers(2).drain().unwrap();
        assert!(!drained.all_ended_well() && drained.failed.is_empty(), "{drained:?}");
        assert_eq!(drained.accepted.iter().sum::<u64>(), 30_000);
        let lines = lines(&dir);
        assert!(lines.values().all(|times| *times == 1));
        assert_eq!(lines.len(), 30_000);
    });
}

/// W7: a child that closes its stdin, and a filter that raises, hung it as well.
#[test]
fn a_closed_stdin_and_a_failing_encode_are_errors_of_their_items_at_most() {
    within(|| {
        // Endless, because at the end of the input a worker that stops short is one that skips records.
        let source = (0u64..).map(|n| n.to_string());
        let feed = source.feed_subprocesses_ordered(child("close_stdin 2"), 1, 10);
        assert_eq!(texts(feed.take(20)), numbers(20).collect::<Vec<_>>());

        let template = Template::new("cat").encode(|n: &u32, request| {
            request.push(n.to_string());
            if *n == 5 { Err("not five") } else { Ok(()) }
        });
        let replies: Vec<_> = (0u32..20).feed_subprocesses_ordered(template, 2, 10).collect();
        for (n, reply) in replies.into_iter().enumerate() {
            match reply {
                Ok(reply) => assert_eq!(reply, n.to_string().as_str()),
                Err(error) => assert_eq!((n, error.kind()), (5, ErrorKind::Encode)),
            }
        }
    });
}

/// W8: with `exhaust=False` a channel that was closed early hung the feed two items later.
#[test]
fn an_optional_channel_that_is_closed_early_stops_nothing() {
    within(|| {
        let template = Template::shell("head -n 1 {fd:line_numbers} >/dev/null; exec cat");
        let line = RequestFraming::line();
        let template = template.optional_side_input("line_numbers", line, 1 << 20).encode(in_step);
        let items = numbers(5_000).map(|n| (n.clone(), n));
        let feed = items.feed_subprocesses_ordered(template, 2, 100);
        assert_eq!(texts(feed), numbers(5_000).collect::<Vec<_>>());
    });
}

/// W9: a child that reads one channel to its end before the other hung as soon as the pipes were full.
#[test]
fn one_channel_may_be_read_to_its_end_before_the_other() {
    within(|| {
        let dir = Dir::new();
        let script = format!("cat {{fd:line_numbers}} >{} ; exec cat", dir.at("{id}.side"));
        let template = Template::shell(script).side_input("line_numbers").encode(in_step);
        let items = numbers(2_000).map(|n| (format!("{n:0>500}"), format!("{n:0>500}")));
        let feed = items.clone().feed_subprocesses_ordered(template, 2, 1_000);
        assert_eq!(texts(feed), items.map(|(a, _)| a).collect::<Vec<_>>());
    });
}

/// W10: a stdin that nobody wrote to was never closed.
#[test]
fn stdin_ends_even_if_nothing_is_ever_written_to_it() {
    within(|| {
        let template = Template::shell("cat {fd:side}; cat; echo end")
            .requests(RequestFraming::raw())
            .side_input("side")
            .encode(side_only);
        let drained = numbers(20).feed(template).workers(2).drain().unwrap();
        assert!(drained.all_ended_well(), "{drained:?}");
    });
}

/// W11: no time limit, no kill, and an exception in the body left the children behind.
#[test]
fn a_panic_of_the_consumer_leaves_no_child_behind() {
    alone!(|| {
        drop(numbers(3).feed_subprocesses(Template::new("cat"), 2, 2));
        let before = Belongings::now();
        let start = Instant::now();
        let consume = || {
            for reply in (0u64..).map(|n| n.to_string()).feed_subprocesses(child("deaf"), 3, 10) {
                assert_ne!(reply.unwrap(), "7", "enough");
            }
        };
        assert!(catch_unwind(AssertUnwindSafe(consume)).is_err());
        before.restored();
        // The time that a child is given, the kill sequence, and as much again for a slow machine.
        assert!(start.elapsed() < Duration::from_secs(10));
    });
}

/// W12: a child whose start was late was neither fed nor waited for.
#[test]
fn every_child_that_was_started_is_waited_for() {
    alone!(|| {
        let dir = Dir::new();
        drop(numbers(3).feed_subprocesses(Template::new("cat"), 2, 2));
        let before = Belongings::now();
        let script = format!("cat; echo {{id}} >>{}", dir.at("ended"));
        let drained = numbers(1).feed(Template::shell(script)).workers(8).drain().unwrap();
        before.restored();
        assert_eq!(dir.read("ended").lines().count(), drained.exits.len());
        assert!(drained.all_ended_well(), "{drained:?}");
    });
}

/// W13: when every channel was `exhaust=False`, the end waited for all of them.
#[test]
fn the_end_waits_for_no_optional_channel() {
    within(|| {
        let line = RequestFraming::line();
        let template = Template::new("cat")
            .requests(RequestFraming::raw())
            .optional_side_input("side", line, 1 << 30)
            .encode(side_only);
        let items = numbers(100).map(|n| format!("{n:0>5000}"));
        let drained = items.feed(template).workers(2).drain().unwrap();
        assert!(drained.all_ended_well(), "{drained:?}");
    });
}

/// W14: a file as a side input leaked a descriptor for each child, and was emptied by the parent.
#[test]
fn a_file_on_the_side_is_read_by_every_session_and_left_alone() {
    alone!(|| {
        let dir = Dir::new();
        fs::write(dir.path("words"), "one word\n").unwrap();
        drop(numbers(3).feed_subprocesses(Template::new("cat"), 2, 2));
        let before = Belongings::now();
        let template = Template::shell("while read -r x; do cat {fd:words}; done")
            .side_input_file("words", dir.path("words"))
            .recycle_after_records(1);
        let feed = numbers(60).feed_subprocesses_ordered(template, 3, 10);
        assert!(texts(feed).iter().all(|reply| reply == "one word"));
        before.restored();
        assert_eq!(dir.read("words"), "one word\n");
    });
}

/// W15: a command that could not be started leaked its pipes.
#[test]
fn a_command_that_cannot_start_leaves_nothing_open() {
    alone!(|| {
        drop(numbers(3).feed_subprocesses(Template::new("cat"), 2, 2));
        let before = Belongings::now();
        for _ in 0..20 {
            let template = Template::new("/no/such/program").side_input("side").encode(side_only);
            let mut feed = numbers(5).feed_subprocesses_ordered(template, 4, 10);
            assert_eq!(feed.next().unwrap().unwrap_err().kind(), ErrorKind::Spawn);
        }
        before.restored();
    });
}

/// W15: workers that came and went quickly were taken for a failed start.
#[test]
fn a_feed_that_is_over_at_once_has_not_failed() {
    within(|| {
        for _ in 0..30 {
            let feed = ["x"].into_iter().feed_subprocesses_ordered(Template::new("cat"), 4, 4);
            assert_eq!(texts(feed), ["x"]);
        }
    });
}

/// W16: the end took up to a second, because threads polled for it.
#[test]
fn the_end_is_not_polled_for() {
    within(|| {
        let start = Instant::now();
        for _ in 0..20 {
            numbers(10).feed(Template::new("cat")).workers(2).drain().unwrap();
        }
        // Twenty seconds there.
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    });
}

/// W17: everything went through a shell.
#[test]
fn no_shell_looks_at_arguments() {
    within(|| {
        let dir = Dir::new();
        let argument = format!("$(touch {0}) `touch {0}`; touch {0} & *", dir.at("harm"));
        let template = Template::new("awk").args(["-v", &format!("a={argument}")]);
        let template = template.raw_arg("{ print a }");
        let feed = ["x"].into_iter().feed_subprocesses_ordered(template, 1, 1);
        assert_eq!(texts(feed), [argument]);
        assert!(!dir.path("harm").exists());
    });
}
