//! The largest and the smallest value of everything that has one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use subfeed::policy::{Halt, OnStall, Signal};
use subfeed::{ErrorKind, FeedExt, Order, Template};

use crate::common::{child, numbers, texts, within};

#[test]
fn more_workers_than_there_can_be_are_an_error_and_no_panic() {
    within(|| {
        for n in [usize::MAX, usize::MAX / 64, 1 << 40] {
            let mut feed = numbers(3).feed_subprocesses_ordered(Template::new("cat"), n, 8);
            let error = feed.next().unwrap().unwrap_err();
            assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::Config, true));
            assert!(feed.next().is_none());
        }
    });
}

#[test]
fn durations_without_an_end_are_no_time_limit() {
    within(|| {
        let end = Duration::MAX;
        let template = |behaviour| {
            child(behaviour)
                .packet_timeout(end)
                .start_timeout(end)
                .idle_timeout(end)
                .run_timeout(end)
                .end_timeout(end)
                .recycle_after_age(end)
                .on_stall(OnStall::Recycle, end)
                .kill_sequence([(Signal::Terminate, end), (Signal::Kill, end)])
        };
        let feed = numbers(50).feed_subprocesses_ordered(template("echo"), 2, 8);
        assert_eq!(texts(feed).len(), 50);
        let source = ["a", "poison", "b"].into_iter();
        let items: Vec<_> = source.feed_subprocesses(template("poison"), 2, 8).collect();
        assert_eq!(items.iter().filter(|item| item.is_ok()).count(), 2);
        // One that needs the first rung of the kill sequence, and is content with it.
        let mut feed = numbers(50).feed_subprocesses_ordered(template("deaf"), 2, 8);
        feed.next().unwrap().unwrap();
        drop(feed);
    });
}

#[test]
fn a_delay_without_an_end_recycles_nothing_and_does_not_hold_up_the_end() {
    within(|| {
        let template =
            Template::new("tr").args(["a-z", "A-Z"]).on_stall(OnStall::Recycle, Duration::MAX);
        let mut feed = ["a", "b"].into_iter().feed_subprocesses_ordered(template, 1, 8);
        // It is given more after five seconds, and its input ends with the feed's after five more.
        let replies: Vec<_> = feed.by_ref().map(Result::unwrap).collect();
        assert_eq!(replies, ["A", "B"]);
        let snapshot = feed.monitor().snapshot();
        assert_eq!((snapshot.recycles, snapshot.starts), (0, 1), "{snapshot:?}");
        assert!(snapshot.probes > 0, "{snapshot:?}");
    });
}

#[test]
fn a_backoff_without_an_end_waits_for_nobody_who_is_well() {
    within(|| {
        let template = child("exit_after 3 0").backoff(Duration::MAX, Duration::MAX);
        assert_eq!(texts(numbers(50).feed_subprocesses_ordered(template, 2, 8)).len(), 50);
    });
}

#[test]
fn next_to_no_time_is_a_time_limit() {
    within(|| {
        let least = Duration::from_nanos(1);
        let template = child("silent").packet_timeout(least).start_timeout(least);
        let items: Vec<_> = numbers(3).feed_subprocesses_ordered(template, 1, 8).collect();
        assert!(items.len() == 3 && items.iter().all(Result::is_err), "{items:?}");
        let template = child("silent").run_timeout(least);
        let items: Vec<_> = numbers(3).feed_subprocesses_ordered(template, 1, 8).collect();
        assert!(items.iter().all(|item| item.as_ref().is_err_and(|error| error.is_fatal())));
    });
}

#[test]
fn a_kill_sequence_may_be_empty() {
    within(|| {
        let template = child("stubborn").kill_sequence([]);
        let mut feed = numbers(50).feed_subprocesses_ordered(template, 2, 8);
        feed.next().unwrap().unwrap();
        drop(feed);
    });
}

#[test]
fn counts_at_their_ends_are_legal() {
    within(|| {
        let most = child("echo")
            .retries(u32::MAX)
            .give_up_after(u32::MAX)
            .recycle_after_records(u64::MAX)
            .reply_limit(usize::MAX)
            .halt(Halt::Now(u64::MAX));
        assert_eq!(texts(numbers(50).feed_subprocesses_ordered(most, 2, 8)).len(), 50);
        let least = child("echo").retries(0).give_up_after(1).recycle_after_records(1);
        assert_eq!(texts(numbers(20).feed_subprocesses_ordered(least, 2, 8)).len(), 20);
        let strict = child("poison").halt(Halt::Now(1));
        let items: Vec<_> =
            ["a", "poison"].into_iter().feed_subprocesses_ordered(strict, 1, 8).collect();
        assert!(items[0].is_ok() && items[1].is_err());
    });
}

#[test]
fn a_reply_limit_of_nothing_lets_empty_replies_through() {
    within(|| {
        let template = Template::new("cat").reply_limit(0);
        let items: Vec<_> =
            ["", "a", ""].into_iter().feed_subprocesses_ordered(template, 1, 8).collect();
        assert!(items[0].as_ref().is_ok_and(|reply| reply.is_empty()));
        assert_eq!(items[1].as_ref().unwrap_err().kind(), ErrorKind::Reply);
        assert!(items[2].as_ref().is_ok_and(|reply| reply.is_empty()));
    });
}

#[test]
fn every_bound_at_its_largest_at_once() {
    within(|| {
        for order in [Order::Input, Order::Completion] {
            let feed = numbers(2_000).feed(Template::new("cat")).workers(2).buffer(usize::MAX);
            let feed = feed.max_bytes(usize::MAX).first_packet(u64::MAX).order(order).start();
            assert_eq!(feed.map(Result::unwrap).count(), 2_000);
        }
    });
}

#[test]
fn arguments_need_not_be_text() {
    within(|| {
        let odd = OsStr::from_bytes(b"\xff\xfe{id}\x80");
        let script = r#"while read -r x; do printf '%s\n' "$1"; done"#;
        let template = Template::shell(script).arg("sh").arg(odd);
        let mut feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 8);
        assert_eq!(feed.next().unwrap().unwrap(), b"\xff\xfe0\x80");
    });
}
