//! Every input pulled becomes exactly one item, whatever the workers do.

use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::Duration;

use subfeed::policy::Halt;
use subfeed::{Error, ErrorKind, Feed, FeedExt, Order, Template};

use crate::alone;
use crate::common::{Dir, Pulled, child, eventually, kill, numbers, texts, within};

type Item = Result<bstr::BString, Error>;

/// Checks a feed of which nothing was dropped: an item for each input, in place, and if it ended
/// fatally, one cause and otherwise `Halted` in place.
#[track_caller]
fn conserved(items: &[Item], pulled: u64) {
    let fatal = |error: &&Error| error.is_fatal();
    let errors = || items.iter().filter_map(|item| item.as_ref().err());
    let causes = errors().filter(fatal).filter(|error| error.kind() != ErrorKind::Halted).count();
    let halted = errors().filter(|error| error.kind() == ErrorKind::Halted).count();
    assert!(causes <= 1, "{causes} causes");
    assert!(causes == 1 || halted == 0, "{halted} halted without a cause");
    let bare = errors().filter(|error| error.packet().is_none()).count();
    assert!(bare == 0 || (bare == 1 && halted == 0 && causes == 1), "{bare} without a packet");
    assert_eq!(items.len() as u64, pulled + bare as u64, "an item for each input");
    for (k, item) in items.iter().enumerate() {
        match item {
            Ok(reply) => assert_eq!(reply, &k.to_string(), "reply {k}"),
            Err(error) if bare == 0 => assert_eq!(error.packet(), Some(k as u64), "{error}"),
            Err(_) => {}
        }
    }
}

/// What ends sooner or later, although its source may not.
fn all(feed: Feed) -> Vec<Item> {
    feed.take(100_000).collect()
}

#[test]
fn a_tool_that_ends_by_itself_after_k_replies_costs_nothing() {
    within(|| {
        for (k, code) in [(1, 0), (2, 0), (7, 0), (1, 7), (3, 7)] {
            let template = child(&format!("exit_after {k} {code}"));
            let feed = numbers(100).feed_subprocesses_ordered(template, 3, 20);
            assert_eq!(texts(feed), numbers(100).collect::<Vec<_>>(), "after {k}, code {code}");
        }
    });
}

#[test]
fn a_worker_that_dies_of_a_signal_among_others_costs_nothing() {
    within(|| {
        // Each session dies at its third record, whichever that is: no record is to blame.
        let feed = numbers(60).feed_subprocesses_ordered(child("signal_at 3 11"), 2, 20);
        assert_eq!(texts(feed), numbers(60).collect::<Vec<_>>());
    });
}

#[test]
fn a_worker_that_exits_at_once_ends_the_feed_and_says_why() {
    within(|| {
        for workers in [1, 3] {
            let pulled = Pulled::default();
            let template = child("exit 3").give_up_after(3);
            let feed = pulled.numbers().feed_subprocesses_ordered(template, workers, 10);
            let items = all(feed);
            conserved(&items, pulled.get());
            let errors: Vec<_> = items.iter().map(|item| item.as_ref().unwrap_err()).collect();
            let cause = errors.iter().find(|e| e.is_fatal() && e.kind() != ErrorKind::Halted);
            let cause = cause.expect("a cause");
            assert_eq!(cause.kind(), ErrorKind::Died);
            assert_eq!(cause.exit_status().and_then(|status| status.code()), Some(3));
            assert_eq!(cause.stderr(), "I do not feel like it\n");
            assert!(cause.to_string().contains("I do not feel like it"), "{cause}");
        }
    });
}

#[test]
fn a_poisonous_record_is_the_only_one_to_fail() {
    within(|| {
        for (workers, buffer) in [(1, 1), (1, 50), (3, 10), (3, 1_000)] {
            let source = (0..200).map(|k| match k {
                50 | 51 | 120 => "poison".to_owned(),
                k => k.to_string(),
            });
            let feed = source.feed_subprocesses_ordered(child("poison"), workers, buffer);
            let items: Vec<_> = feed.collect();
            conserved(&items, 200);
            let failed: Vec<_> = (0..200).filter(|&k: &usize| items[k].is_err()).collect();
            assert_eq!(failed, [50, 51, 120], "{workers} workers, buffer {buffer}");
        }
    });
}

#[test]
fn the_first_record_may_be_the_poison() {
    within(|| {
        for n in [1u64, 2, 30] {
            let source = (0..n).map(|k| if k == 0 { "poison".into() } else { k.to_string() });
            let items: Vec<_> = source.feed_subprocesses_ordered(child("poison"), 2, 8).collect();
            conserved(&items, n);
            assert_eq!(items.iter().filter(|item| item.is_err()).count(), 1);
            assert_eq!(items[0].as_ref().unwrap_err().kind(), ErrorKind::Died);
        }
    });
}

#[test]
fn nothing_but_poison_fails_item_by_item_or_ends_the_feed_but_loses_nothing() {
    within(|| {
        let source = std::iter::repeat_n("poison", 40);
        let items: Vec<_> = source.feed_subprocesses_ordered(child("poison"), 3, 10).collect();
        assert!(items.iter().all(Result::is_err));
        conserved(&items, items.len() as u64);
    });
}

#[test]
fn in_completion_order_a_death_loses_and_doubles_nothing_either() {
    within(|| {
        let source = (0..200).map(|k| if k == 90 { "poison".to_owned() } else { k.to_string() });
        let items: Vec<_> = source.feed_subprocesses(child("poison"), 3, 30).collect();
        let mut seen: Vec<u64> = items
            .iter()
            .map(|item| match item {
                Ok(reply) => reply.to_string().parse().unwrap(),
                Err(error) => error.packet().unwrap(),
            })
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
    });
}

#[test]
fn a_packet_that_dies_alone_is_tried_as_often_as_was_asked() {
    within(|| {
        let source = ["a", "poison", "b"].into_iter();
        let mut feed = source.feed_subprocesses_ordered(child("poison").retries(2), 1, 8);
        assert_eq!(feed.next().unwrap().unwrap(), "a");
        let error = feed.next().unwrap().unwrap_err();
        assert_eq!((error.kind(), error.attempts(), error.is_fatal()), (ErrorKind::Died, 3, false));
        assert!(error.to_string().contains("3 attempts"), "{error}");
        assert_eq!(feed.next().unwrap().unwrap(), "b");
        assert!(feed.next().is_none());
    });
}

#[test]
fn half_a_reply_is_never_a_reply() {
    within(|| {
        // Every session ends in the middle of its third reply.
        let records = || (100..160).map(|k| k.to_string());
        for code in [0, 1] {
            let feed = records().feed_subprocesses_ordered(child(&format!("half 2 {code}")), 2, 10);
            assert_eq!(texts(feed), records().collect::<Vec<_>>());
        }
    });
}

#[test]
fn half_a_reply_and_nothing_else_is_a_death_that_quotes_it() {
    within(|| {
        let template = child("half 0 5").give_up_after(100);
        let mut feed = ["abcdef"].into_iter().feed_subprocesses_ordered(template, 1, 8);
        let error = feed.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Died);
        assert!(error.to_string().contains(r#"half a reply "abc""#), "{error}");
        assert!(feed.next().is_none());
    });
}

#[test]
fn a_worker_that_kills_itself_on_the_first_record_of_all_is_an_item_error() {
    within(|| {
        let feed = ["poison"].into_iter().feed_subprocesses_ordered(child("poison"), 4, 8);
        let errors: Vec<_> = feed.map(Result::unwrap_err).collect();
        assert_eq!(errors.len(), 1);
        assert!(!errors[0].is_fatal());
        assert_eq!(errors[0].exit_status().and_then(|status| status.signal()), Some(9));
    });
}

#[test]
fn one_reply_too_many_after_the_last_takes_the_place_of_the_last_item() {
    within(|| {
        let mut items = all(numbers(20).feed_subprocesses_ordered(child("trailing"), 1, 8));
        assert_eq!(items.len(), 20);
        let error = items.pop().unwrap().unwrap_err();
        assert_eq!(texts(items.into_iter()), numbers(19).collect::<Vec<_>>());
        assert!(error.is_fatal() && error.packet() == Some(19), "{error:?}");
        assert!(matches!(error.kind(), ErrorKind::ReplyCount { owed: 20, got: 21 }), "{error:?}");
        assert!(error.to_string().contains("one too many"), "{error}");
    });
}

#[test]
fn one_reply_too_many_while_nothing_is_owed_is_fatal_at_once() {
    within(|| {
        let (sender, receiver) = std::sync::mpsc::channel::<String>();
        let feed = receiver.into_iter().feed_subprocesses_ordered(child("extra 1"), 1, 8);
        let monitor = feed.monitor();
        sender.send("0".to_owned()).unwrap();
        eventually("the reply and the extra one are read", || {
            monitor.snapshot().read_bytes == "0\none too many\n".len() as u64
        });
        // The source blocks, and the feed ends all the same.
        let items = all(feed);
        assert_eq!(items.len(), 2);
        assert_eq!(items[0].as_ref().unwrap(), "0");
        let error = items[1].as_ref().unwrap_err();
        assert!(error.is_fatal() && error.packet().is_none());
        assert!(matches!(error.kind(), ErrorKind::ReplyCount { owed: 1, got: 2 }), "{error:?}");
        drop(sender);
    });
}

#[test]
fn one_reply_too_many_in_the_middle_is_found_in_the_end() {
    within(|| {
        // The extra one passes for the next, and so on: only the end can tell, and does.
        let mut feed = numbers(200).feed_subprocesses_ordered(child("extra 10"), 1, 50);
        let fatal = feed.by_ref().filter_map(Result::err).find(Error::is_fatal);
        let error = fatal.or_else(|| feed.finish().err()).expect("an error");
        assert!(matches!(error.kind(), ErrorKind::ReplyCount { .. }), "{error:?}");
    });
}

#[test]
fn a_banner_is_one_reply_too_many() {
    within(|| {
        let mut feed = numbers(50).feed_subprocesses_ordered(child("banner"), 1, 8);
        let fatal = feed.by_ref().filter_map(Result::err).find(Error::is_fatal);
        let error = fatal.or_else(|| feed.finish().err()).expect("an error");
        assert!(matches!(error.kind(), ErrorKind::ReplyCount { .. }), "{error:?}");
    });
}

#[test]
fn a_worker_that_answers_nothing_is_a_wrong_count() {
    within(|| {
        for n in [1, 10] {
            let items = all(numbers(n).feed_subprocesses_ordered(child("silent"), 2, 20));
            conserved(&items, n);
            let kinds: Vec<_> =
                items.iter().map(|item| item.as_ref().unwrap_err().kind()).collect();
            // Each is asked alone, and has been skipped; of a tool that never answers that is enough in time.
            let counted = |kind: &ErrorKind| matches!(kind, ErrorKind::ReplyCount { got: 0, .. });
            let given_up = |kind: &ErrorKind| *kind == ErrorKind::Died;
            assert!(kinds.iter().any(|kind| counted(kind) || given_up(kind)), "{kinds:?}");
            assert!(n > 1 || counted(&kinds[0]), "{kinds:?}");
        }
    });
}

#[test]
fn a_filter_that_skips_is_a_wrong_count_in_the_end() {
    within(|| {
        let source = (0..40).map(|k| if k == 20 { "skip".to_owned() } else { k.to_string() });
        let pulled = Pulled::default();
        let feed = pulled.count(source).feed_subprocesses_ordered(child("skip"), 1, 100);
        let items: Vec<_> = feed.collect();
        assert_eq!(items.len() as u64, pulled.get());
        let last =
            items.iter().filter_map(|item| item.as_ref().err()).find(|error| error.is_fatal());
        let last = last.expect("a fatal error");
        assert!(matches!(last.kind(), ErrorKind::ReplyCount { .. }), "{last:?}");
    });
}

#[test]
fn check_stops_a_filter_that_skips_at_once() {
    within(|| {
        let source = (0..40).map(|k| if k == 20 { "skip".to_owned() } else { k.to_string() });
        let template = child("skip").check(|request, reply| {
            if request.strip_suffix(b"\n") == Some(reply) {
                Ok(())
            } else {
                Err("not its own".into())
            }
        });
        // Every reply is its own or an error; which packets are charged is the tool's doing.
        let pulled = Pulled::default();
        let items: Vec<_> =
            pulled.count(source).feed_subprocesses_ordered(template, 1, 100).collect();
        assert_eq!(items.len() as u64, pulled.get());
        for (k, item) in items.iter().enumerate() {
            match item {
                Ok(reply) => assert_eq!(reply, &k.to_string()),
                Err(error) => assert_eq!(error.packet(), Some(k as u64)),
            }
        }
        assert!(items[20].is_err());
        assert!(items[..20].iter().all(Result::is_ok));
    });
}

#[test]
fn a_worker_may_close_its_stdin_and_go_on_answering() {
    within(|| {
        let feed = numbers(60).feed_subprocesses_ordered(child("close_stdin 1"), 2, 20);
        assert_eq!(texts(feed), numbers(60).collect::<Vec<_>>());
    });
}

#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence")]
fn a_worker_may_read_several_records_close_its_stdin_and_answer_them_then() {
    within(|| {
        // The source stays open: at the end of the input, fewer replies than requests would be a
        // wrong count, whoever closed stdin first.
        let (sender, receiver) = std::sync::mpsc::channel::<String>();
        let mut feed =
            receiver.into_iter().feed_subprocesses_ordered(child("close_stdin 5"), 2, 20);
        numbers(65).for_each(|n| sender.send(n).unwrap());
        assert_eq!(texts(feed.by_ref().take(60)), numbers(60).collect::<Vec<_>>());
    });
}

#[test]
fn a_worker_that_closes_its_stdout_and_sessions_on_is_replaced() {
    within(|| {
        let feed = numbers(12).feed_subprocesses_ordered(child("close_stdout 3"), 2, 12);
        assert_eq!(texts(feed), numbers(12).collect::<Vec<_>>());
    });
}

#[test]
fn workers_that_close_their_stdout_at_once_end_the_feed() {
    within(|| {
        let template = child("close_stdout 0").give_up_after(2);
        let items = all(numbers(6).feed_subprocesses_ordered(template, 2, 12));
        conserved(&items, 6);
        assert!(items.iter().all(Result::is_err));
    });
}

#[test]
fn ten_megabytes_on_stderr_hold_up_nothing() {
    within(|| {
        let feed = numbers(3).feed_subprocesses_ordered(child("flood 10485760"), 2, 4);
        let monitor = feed.monitor();
        assert_eq!(texts(feed), ["0", "1", "2"]);
        assert!(monitor.snapshot().read_bytes >= 30 << 20);
    });
}

#[test]
fn the_error_has_both_ends_of_stderr() {
    within(|| {
        let script =
            "read -r x; yes xxxxxxx | head -c 10000000 >&2; echo the last line >&2; exit 3";
        let template = Template::shell(script);
        let mut feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 4);
        let error = feed.next().unwrap().unwrap_err();
        assert_eq!(error.stderr_head(), "xxxxxxx\n".repeat(512).as_str());
        assert_eq!(error.stderr_tail().len(), 4 << 10);
        assert!(error.stderr_tail().ends_with(b"xxxxxxx\nthe last line\n"));
        assert!(error.stderr().to_string().contains("\n[... 9991822 bytes left out ...]\n"));
        assert!(error.to_string().contains("the last line") && error.to_string().len() < 1_000);
    });
}

#[test]
fn a_worker_that_withholds_its_replies_gives_them_at_the_end() {
    within(|| {
        let feed = numbers(500).feed_subprocesses_ordered(child("stdio 65536"), 3, 1_000);
        assert_eq!(texts(feed), numbers(500).collect::<Vec<_>>());
    });
}

#[test]
fn at_most_once_sends_nothing_twice_and_says_so_of_each() {
    within(|| {
        let dir = Dir::new();
        // Logs, and dies at every fifth record of a session.
        let script = r#"
            k=0
            while read -r line; do
                echo "$line" >> "$LOG"
                k=$((k + 1)); [ $k -eq 5 ] && exit 3
                echo "$line"
            done"#;
        let template = Template::shell(script).env("LOG", dir.path("log")).at_most_once();
        let items = all(numbers(60).feed_subprocesses_ordered(template, 1, 20));
        conserved(&items, 60);
        for error in items.iter().filter_map(|item| item.as_ref().err()) {
            assert!(
                matches!(error.kind(), ErrorKind::NotRedelivered | ErrorKind::Died),
                "{error:?}"
            );
        }
        let log = dir.read("log");
        let mut lines: Vec<_> = log.lines().collect();
        let all = lines.len();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), all, "something was sent twice");
    });
}

#[test]
fn every_input_reaches_a_worker_at_least_once() {
    within(|| {
        let dir = Dir::new();
        let template = child("log").arg(dir.path("log"));
        assert_eq!(texts(numbers(300).feed_subprocesses_ordered(template, 3, 20)).len(), 300);
        let log = dir.read("log");
        let mut lines: Vec<u32> = log.lines().map(|line| line.parse().unwrap()).collect();
        lines.sort_unstable();
        assert_eq!(lines, (0..300).collect::<Vec<_>>());
    });
}

#[test]
fn a_halt_policy_ends_the_feed_and_loses_nothing() {
    within(|| {
        for halt in [Halt::Now(2), Halt::Soon(2)] {
            let pulled = Pulled::default();
            let source =
                (0..).map(|k| if k == 30 || k == 40 { "poison".to_owned() } else { k.to_string() });
            let template = child("poison").halt(halt);
            let feed = pulled.count(source).feed_subprocesses_ordered(template, 2, 10);
            let items = all(feed);
            let errors = || items.iter().filter_map(|item| item.as_ref().err());
            let cause = errors().find(|error| error.is_fatal()).expect("a cause");
            assert!(cause.to_string().contains("2 items have failed"), "{halt:?}: {cause}");
            let bare = usize::from(cause.packet().is_none());
            assert!(bare == 1 || halt == Halt::Now(2), "{halt:?}: {cause}");
            assert_eq!(items.len() - bare, usize::try_from(pulled.get()).unwrap(), "{halt:?}");
            let died: Vec<_> =
                errors().filter(|error| !error.is_fatal()).map(Error::packet).collect();
            assert_eq!(died, [Some(30), Some(40)], "{halt:?}");
        }
    });
}

#[test]
fn workers_that_are_killed_from_outside_lose_nothing() {
    alone!(|| {
        const N: u64 = 3_000;
        let feed = numbers(N)
            .feed(child("echo").retries(100).give_up_after(1_000))
            .workers(4)
            .buffer(64)
            .start();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let killer = thread::spawn(move || {
            let mut state = 1u32;
            let mut killed = 0;
            while stopped.try_recv().is_err() && killed < 60 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let children: Vec<_> = crate::common::children().into_iter().collect();
                if !children.is_empty() {
                    kill(children[state as usize % children.len()]);
                    killed += 1;
                }
                thread::sleep(Duration::from_millis(u64::from(state >> 30)));
            }
        });
        // Slowly, so that the killer has its chances.
        let slow = feed.inspect(|_| thread::sleep(Duration::from_micros(100)));
        assert_eq!(texts(slow), numbers(N).collect::<Vec<_>>());
        let _ = stop.send(());
        killer.join().unwrap();
    });
}

#[test]
fn a_worker_that_is_stopped_and_continued_loses_nothing() {
    alone!(|| {
        use nix::sys::signal::{Signal, kill};
        let mut feed = numbers(200).feed_subprocesses_ordered(child("echo"), 1, 10);
        for k in 0..100 {
            assert_eq!(feed.next().unwrap().unwrap(), k.to_string());
        }
        let child = *crate::common::children().first().unwrap();
        let pid = nix::unistd::Pid::from_raw(child.cast_signed());
        kill(pid, Signal::SIGSTOP).unwrap();
        let go = thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            kill(pid, Signal::SIGCONT).unwrap();
        });
        assert_eq!(feed.by_ref().map(Result::unwrap).count(), 100);
        go.join().unwrap();
        assert_eq!(feed.finish().unwrap().deaths, 0);
    });
}

#[test]
fn failures_obey_the_window_as_successes_do() {
    within(|| {
        for order in [Order::Input, Order::Completion] {
            let pulled = Pulled::default();
            let template = Template::new("cat").try_encode(|_: &String, _| Err("never".into()));
            let mut feed = pulled.numbers().feed(template).buffer(6).order(order).start();
            for k in 0..50 {
                assert!(feed.next().unwrap().is_err());
                assert!(pulled.get() <= k + 1 + 6);
            }
        }
    });
}

#[test]
fn a_slow_worker_holds_up_its_own_packets_only() {
    within(|| {
        let dir = Dir::new();
        let script = r#"if [ {id} -eq 0 ]; then read -r x; until [ -e "$GO" ]; do sleep 0.01; done; echo "$x"; fi; exec cat"#;
        let template = Template::shell(script).env("GO", dir.path("go"));
        let mut feed = numbers(500).feed_subprocesses(template, 2, 50);
        let first: Vec<_> = feed.by_ref().take(400).map(Result::unwrap).collect();
        assert_eq!(first.len(), 400);
        dir.touch("go");
        assert_eq!(feed.map(Result::unwrap).count(), 100);
    });
}
