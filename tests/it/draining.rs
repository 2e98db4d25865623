//! Feeding without collecting.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use subfeed::channel::Redirect;
use subfeed::framing::RequestFraming;
use subfeed::{ErrorKind, FeedExt, Request, Template};

use crate::alone;
use crate::common::{Belongings, Dir, Pulled, child, numbers, with_patience, within};
use crate::sides::{in_step, sh_beside};

fn to_files(template: Template, dir: &Dir) -> Template {
    template.stdout(Redirect::file(dir.path("{id}.out")))
}

/// Every line of the output files, with how often it is there.
fn lines(dir: &Dir, workers: usize) -> BTreeMap<String, u32> {
    let mut lines = BTreeMap::new();
    for id in 0..workers {
        let text = dir.read(&format!("{id}.out"));
        assert!(text.is_empty() || text.ends_with('\n'), "half a line: {text:?}");
        for line in text.lines() {
            *lines.entry(line.to_owned()).or_default() += 1;
        }
    }
    lines
}

fn once_each(n: u64) -> BTreeMap<String, u32> {
    numbers(n).map(|k| (k, 1)).collect()
}

#[test]
fn the_files_are_complete_when_drain_returns() {
    within(|| {
        let dir = Dir::new();
        let drained = numbers(20_000).feed(to_files(Template::new("cat"), &dir)).workers(3).drain();
        let drained = drained.unwrap();
        assert!(drained.all_ended_well(), "{drained:?}");
        assert_eq!(drained.accepted.iter().sum::<u64>(), 20_000);
        assert_eq!(lines(&dir, 3), once_each(20_000));
        for (id, accepted) in drained.accepted.iter().enumerate() {
            let text = dir.read(&format!("{id}.out"));
            assert_eq!(text.lines().count() as u64, *accepted);
        }
    });
}

#[test]
fn a_slow_writer_is_waited_for() {
    within(|| {
        let dir = Dir::new();
        let template = Template::shell("cat >/dev/null; sleep 0.3; echo late");
        let drained = numbers(10).feed(to_files(template, &dir)).workers(2).drain().unwrap();
        assert!(drained.all_ended_well(), "{drained:?}");
        let late = dir.read("0.out") + &dir.read("1.out");
        assert_eq!(late, "late\n".repeat(drained.exits.len()));
    });
}

#[test]
fn later_sessions_append_to_what_the_earlier_ones_wrote() {
    within(|| {
        let dir = Dir::new();
        let template = to_files(Template::new("cat"), &dir).recycle_after_records(50);
        let drained = numbers(1_000).feed(template).workers(2).drain().unwrap();
        assert!(drained.all_ended_well() && drained.exits.len() >= 20, "{drained:?}");
        assert_eq!(lines(&dir, 2), once_each(1_000));
    });
}

#[test]
fn a_second_feed_begins_with_empty_files() {
    within(|| {
        let dir = Dir::new();
        for n in [500, 30] {
            let template = to_files(Template::new("cat"), &dir);
            numbers(n).feed(template).workers(1).drain().unwrap();
            assert_eq!(lines(&dir, 1), once_each(n));
        }
    });
}

#[test]
fn workers_that_share_one_file_lose_nothing_of_each_other() {
    within(|| {
        let dir = Dir::new();
        // One write for each line, so that lines stay whole.
        let script = "while read -r x; do echo \"$x\"; done";
        let template = Template::shell(script).stdout(Redirect::file(dir.path("0.out")));
        // Small batches of sessions: workers start while others have long written.
        let template = template.recycle_after_records(100);
        let drained = numbers(2_000).feed(template).workers(4).drain().unwrap();
        assert!(drained.all_ended_well(), "{drained:?}");
        assert_eq!(lines(&dir, 1), once_each(2_000));
    });
}

#[test]
fn what_a_worker_prints_to_us_is_read_and_dropped() {
    within(|| {
        // Far more than a pipe holds, on both.
        let template = Template::shell("while read -r x; do echo \"$x\"; echo \"$x\" >&2; done");
        let items = numbers(3_000).map(|k| format!("{k}{}", "x".repeat(100)));
        let drained = items.feed(template).workers(2).drain().unwrap();
        assert!(drained.all_ended_well(), "{drained:?}");
        assert_eq!(drained.accepted.iter().sum::<u64>(), 3_000);
    });
}

#[test]
fn exits_are_looked_at() {
    within(|| {
        let template = Template::shell("cat >/dev/null; echo 'out of ink' >&2; exit 3");
        let drained = numbers(10).feed(template).workers(2).drain().unwrap();
        assert!(!drained.all_ended_well());
        assert!(!drained.exits.is_empty());
        for exit in &drained.exits {
            assert_eq!(exit.status.and_then(|status| status.code()), Some(3));
        }
        let error = &drained.bad_ends[0];
        assert_eq!(drained.bad_ends.len(), drained.exits.len());
        assert!(error.to_string().contains("out of ink"), "{error}");
        assert!(error.worker().is_some());
    });
}

#[test]
fn nothing_is_written_twice_when_workers_die_in_the_middle() {
    within(|| {
        let dir = Dir::new();
        // Each session takes 100 lines, byte by byte, and dies.
        let script = "for i in $(seq 100); do read -r x || exit 0; echo \"$x\"; done; exit 7";
        let template = to_files(Template::shell(script), &dir).give_up_after(u32::MAX);
        let drained = numbers(2_000).feed(template).workers(2).drain().unwrap();
        assert!(!drained.all_ended_well());
        let lines = lines(&dir, 2);
        assert!(lines.values().all(|times| *times == 1), "{lines:?}");
        let accepted: u64 = drained.accepted.iter().sum();
        assert_eq!(accepted + drained.failed.len() as u64, 2_000);
        for error in &drained.failed {
            let packet = error.packet().unwrap();
            assert!(error.worker().is_some(), "{error}");
            assert!(lines.len() < 2_000 && packet < 2_000, "{error}");
        }
    });
}

#[test]
fn what_a_dead_worker_was_never_handed_goes_to_the_others() {
    within(|| {
        let dir = Dir::new();
        // Worker 0 reads one line and dies; only there is any such worker once.
        let script = format!(
            "if mkdir {flag} 2>/dev/null; then read -r x; exit 1; fi; exec cat",
            flag = dir.at("flag")
        );
        let template = to_files(Template::shell(script), &dir);
        // Records so large that few fit in a pipe: the rest was never written.
        let items = numbers(200).map(|k| format!("{k:0>20000}"));
        let drained = items.feed(template).workers(2).buffer(100).drain().unwrap();
        let accepted: u64 = drained.accepted.iter().sum();
        assert_eq!(accepted + drained.failed.len() as u64, 200);
        assert!(drained.failed.len() <= 1, "{:?}", drained.failed);
        for error in &drained.failed {
            assert!(matches!(error.kind(), ErrorKind::NotRedelivered | ErrorKind::Died), "{error}");
        }
        // What lay unread in the dead one's pipe, and at most that, is lost.
        let there = lines(&dir, 2);
        assert!(there.values().all(|times| *times == 1));
        assert!(there.len() >= 190, "{}", there.len());
    });
}

#[test]
fn a_worker_that_ends_by_itself_has_not_ended_well_if_there_was_more() {
    within(|| {
        let dir = Dir::new();
        let template = to_files(Template::new("head").args(["-n", "5"]), &dir);
        let items = numbers(5_000).map(|k| format!("{k:0>100}"));
        let drained = items.feed(template).workers(2).drain().unwrap();
        assert!(!drained.all_ended_well(), "{drained:?}");
        assert!(lines(&dir, 2).values().all(|times| *times == 1));
    });
}

#[test]
fn workers_that_read_nothing_end_a_drain_on_an_endless_source() {
    within(|| {
        let pulled = Pulled::default();
        let template = Template::shell("echo 'no licence' >&2; exit 4").give_up_after(3);
        let template = template.backoff(Duration::from_millis(1), Duration::from_millis(1));
        let error = pulled.numbers().feed(template).workers(2).drain().unwrap_err();
        assert!(error.is_fatal());
        assert!(error.to_string().contains("no licence"), "{error}");
    });
}

#[test]
fn a_program_that_is_not_there_is_an_error_of_drain() {
    within(|| {
        let error = numbers(5).feed(Template::new("/no/such/program")).drain().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Spawn);
    });
}

#[test]
fn halting_by_policy_is_an_error_of_drain() {
    within(|| {
        for halt in [subfeed::policy::Halt::Now(2), subfeed::policy::Halt::Soon(2)] {
            let template = Template::new("cat").stdout(Redirect::Null).halt(halt);
            let template = template.try_encode(|k: &u32, request| {
                request.push(k.to_string());
                if k.is_multiple_of(3) { Err("a third".into()) } else { Ok(()) }
            });
            let error = (0u32..).feed(template).workers(2).drain().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Halted, "{error}");
        }
    });
}

#[test]
fn an_item_that_cannot_be_encoded_is_among_the_failed() {
    within(|| {
        let dir = Dir::new();
        let template = to_files(Template::new("cat"), &dir);
        let items = ["0", "two\nlines", "1"].into_iter();
        let drained = items.feed(template).workers(1).drain().unwrap();
        assert_eq!((drained.accepted.clone(), drained.failed.len()), (vec![2], 1));
        assert_eq!(drained.failed[0].packet(), Some(1));
        assert_eq!(lines(&dir, 1), once_each(2));
    });
}

#[test]
fn a_panic_of_encode_is_resumed_by_drain() {
    within(|| {
        let template = Template::new("cat").encode(|_: &u32, _| panic!("here"));
        let drain = || (0u32..10).feed(template).drain();
        let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(drain)).unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"here"));
    });
}

#[test]
fn drain_pulls_no_further_ahead_than_its_window() {
    within(|| {
        let pulled = Pulled::default();
        let (send, receive) = mpsc::channel();
        let dir = Dir::new();
        let go = dir.path("go");
        let count = pulled.clone();
        // The worker reads nothing before it may: all that can be taken is a pipe's worth.
        let template = Template::shell(format!(
            "until [ -e {} ]; do sleep 0.01; done; cat >/dev/null",
            dir.at("go")
        ));
        let source = pulled.numbers().take(2_000).map(|k| format!("{k:0>1000}"));
        let drain = std::thread::spawn(move || {
            let drained = source.feed(template).workers(1).buffer(10).drain();
            send.send(()).unwrap();
            drained
        });
        crate::common::eventually("the pipe is full", || count.get() > 60);
        assert!(receive.try_recv().is_err());
        let most = 64 * 1024 / 1001 + 10 + 1;
        assert!(count.get() <= most, "{} pulled", count.get());
        std::fs::write(go, "").unwrap();
        assert_eq!(drain.join().unwrap().unwrap().accepted, [2_000]);
    });
}

#[test]
fn side_inputs_are_drained_in_step() {
    within(|| {
        let dir = Dir::new();
        let template = sh_beside("while read -r a; do read -r b <&3; echo \"$a-$b\"; done");
        let template = to_files(template, &dir).encode(in_step);
        let items = numbers(2_000).map(|k| (k.clone(), k));
        let drained = items.feed(template).workers(2).drain().unwrap();
        assert!(drained.all_ended_well(), "{drained:?}");
        let expected: BTreeMap<_, _> = numbers(2_000).map(|k| (format!("{k}-{k}"), 1)).collect();
        assert_eq!(lines(&dir, 2), expected);
    });
}

#[test]
fn optional_side_inputs_do_not_hold_a_drain_up() {
    within(|| {
        let dir = Dir::new();
        let large = 1 << 30;
        let template = to_files(Template::new("cat"), &dir)
            .optional_side_input("side", RequestFraming::line(), large)
            .encode(in_step);
        let items = numbers(500).map(|k| (k, "x".repeat(1_000)));
        let drained = items.feed(template).workers(2).buffer(20).drain().unwrap();
        assert!(drained.all_ended_well(), "{drained:?}");
        assert_eq!(lines(&dir, 2), once_each(500));
    });
}

#[test]
fn a_worker_with_optional_inputs_only_is_drained() {
    within(|| {
        let template = Template::shell("cat {fd:side} >/dev/null")
            .stdin(Redirect::Null)
            .optional_side_input("side", RequestFraming::line(), 1 << 20)
            .encode(|item: &String, request| {
                request.side("side").push(item);
            });
        let drained = numbers(500).feed(template).workers(2).buffer(20).drain().unwrap();
        assert!(drained.all_ended_well(), "{drained:?}");
        assert_eq!(drained.accepted.iter().sum::<u64>(), 500);
    });
}

#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence")]
fn a_required_side_that_is_never_read_does_not_hang_a_drain() {
    within(|| {
        let template =
            Template::new("cat").stdout(Redirect::Null).side_input("side").encode(in_step);
        let items = numbers(300).map(|k| (k, "x".repeat(2_000)));
        let drained = items.feed(template).workers(1).buffer(50).drain();
        match drained {
            Ok(drained) => {
                let accepted: u64 = drained.accepted.iter().sum();
                assert_eq!(accepted + drained.failed.len() as u64, 300);
                assert!(!drained.all_ended_well());
            }
            Err(error) => assert!(error.to_string().contains("side"), "{error}"),
        }
    });
}

#[test]
fn a_worker_that_never_ends_is_waited_for_only_as_long_as_asked() {
    within(|| {
        with_patience(Duration::from_millis(50), |limit| {
            let template = child("deaf").end_timeout(limit);
            let drained = numbers(10).feed(template).workers(2).drain().unwrap();
            assert!(!drained.all_ended_well());
            assert_eq!(drained.accepted.iter().sum::<u64>(), 10);
        });
    });
}

fn side_only(item: &String, request: &mut Request<'_>) {
    request.side("side").push(item);
}

/// In the Python subfeed a standard stream that leads nowhere raised, and so did a side channel that nobody writes to.
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

/// In the Python subfeed, when one child died, the whole swarm hung at its end, and what was queued for it was lost.
#[test]
fn what_a_dead_worker_had_not_read_goes_to_the_others_and_nothing_twice() {
    within(|| {
        // One dies in the middle of a drain: what it had not read goes to the other, and nothing twice.
        let dir = Dir::new();
        let script = format!(
            "if mkdir {} 2>/dev/null; then read -r x; echo \"$x\"; exit 1; fi; exec cat",
            dir.at("flag")
        );
        let template = to_files(Template::shell(script), &dir);
        let drained = numbers(30_000).feed(template).workers(2).drain().unwrap();
        assert!(!drained.all_ended_well() && drained.failed.is_empty(), "{drained:?}");
        assert_eq!(drained.accepted.iter().sum::<u64>(), 30_000);
        assert_eq!(lines(&dir, 2), once_each(30_000));
    });
}

/// In the Python subfeed a stdin that nobody wrote to was never closed.
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

/// In the Python subfeed a child whose start was late was neither fed nor waited for.
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

/// In the Python subfeed the end took up to a second, because threads polled for it.
#[test]
fn the_end_is_not_polled_for() {
    within(|| {
        // A second each there. A machine may be too busy once, not always.
        let took = (0..20).map(|_| {
            let start = Instant::now();
            numbers(10).feed(Template::new("cat")).workers(2).drain().unwrap();
            start.elapsed()
        });
        let slow: Vec<_> = took.take_while(|took| *took > Duration::from_millis(400)).collect();
        assert!(slow.len() < 20, "{slow:?}");
    });
}
