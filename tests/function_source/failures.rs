//! What goes wrong in the child, and where it shows.

use std::time::{Duration, Instant};

use subfeed::policy::Signal;
use subfeed::source::{FunctionSource, Passes, Registry};
use subfeed::{Error, ErrorKind};

use crate::common::{DEADLINE, Dir, kill, soon, with_patience};
use crate::functions::{
    BYTES, EVIL, MISTAKEN, MIXED, MOOD, PARTIAL, Partial, RANGE, REFUSES, SKIPPING, Skipping,
    TYPED, Trouble, UNKNOWN, UNTIL, WHO,
};
use crate::tests;

tests![
    an_initializer_that_fails_is_every_passes_error,
    a_function_that_fails_is_every_passes_error,
    wrong_arguments_are_said_to_be_wrong,
    a_failure_after_n_items_comes_after_exactly_n,
    a_panic_is_told_with_its_message_and_place_and_the_next_pass_begins_afresh,
    an_item_that_cannot_be_serialized_keeps_its_place,
    an_item_that_is_too_large_keeps_its_place,
    an_item_that_reads_otherwise_than_it_was_written_is_no_wrong_item,
    an_item_that_is_an_error_keeps_its_place_and_its_causes,
    an_error_may_cross_as_a_value,
    a_child_that_sleeps_runs_into_the_limit,
    a_child_that_is_not_ready_runs_into_the_limit,
    the_limit_does_not_run_while_the_consumer_pauses,
    a_child_that_ends_is_told_at_once_with_its_status_and_last_words,
    a_child_that_is_killed_is_told_at_once,
    a_child_that_was_killed_between_passes_is_every_passes_error_until_a_restart,
    garbage_among_the_reports_is_noticed,
    large_items_pass_and_one_larger_than_max_bytes_alone,
    no_room_is_an_error,
    two_functions_of_one_name_are_refused,
];

/// The items of a pass, and the fatal error after them.
#[track_caller]
fn split<T: serde::de::DeserializeOwned>(source: &mut FunctionSource<T>) -> (Vec<T>, Error) {
    let mut pass = source.iter();
    let mut items = Vec::new();
    let error = loop {
        match pass.next().expect("an error at the end") {
            Ok(item) => items.push(item),
            Err(error) => break error,
        }
    };
    assert!(error.is_fatal(), "{error}");
    assert!((0..3).all(|_| pass.next().is_none()), "after {error}");
    (items, error)
}

fn until(n: u64, then: &str) -> FunctionSource<u64> {
    UNTIL.iterate_in_subprocess(&(n, then.to_owned()), 64)
}

fn an_initializer_that_fails_is_every_passes_error() {
    for (mood, message) in [("fail", "no mood for it"), ("panic", "what a mood")] {
        let mut source = RANGE.iterate_in_subprocess(&10, 3).env(MOOD, mood);
        let error = source.wait_until_ready().unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        for _ in 0..2 {
            let (items, error) = split(&mut source);
            assert!(items.is_empty() && error.kind() == ErrorKind::Failed, "{error}");
            assert!(error.to_string().contains(message), "{error}");
        }
    }
}

fn a_function_that_fails_is_every_passes_error() {
    for (why, message) in [("no dinner", "no dinner"), ("panic", "it panics")] {
        let mut source = REFUSES.iterate_in_subprocess(&why.to_owned(), 3);
        let (_, error) = split(&mut source);
        assert!(error.to_string().contains(message), "{error}");
        let again = source.wait_until_ready().unwrap_err();
        assert_eq!(again.to_string(), error.to_string());
    }
}

fn wrong_arguments_are_said_to_be_wrong() {
    let mut source = MISTAKEN.iterate_in_subprocess(&"ten".to_owned(), 3);
    let (_, error) = split(&mut source);
    assert!(error.to_string().contains("cannot be iterated"), "{error}");
    let (_, error) = split(&mut UNKNOWN.iterate_in_subprocess(&(), 3));
    assert!(error.to_string().contains("no function is registered as `unknown`"), "{error}");
    assert!(error.command().is_some_and(|command| command.ends_with(" unknown")), "{error}");
}

fn a_failure_after_n_items_comes_after_exactly_n() {
    for n in [0, 1, 7] {
        for then in ["panic", "exit", "abort", "exit well"] {
            let (items, error) = split(&mut until(n, then));
            assert_eq!(items, (0..n).collect::<Vec<_>>(), "{then}: {error}");
        }
    }
}

fn a_panic_is_told_with_its_message_and_place_and_the_next_pass_begins_afresh() {
    let mut source = until(3, "panic");
    for _ in 0..3 {
        let (items, error) = split(&mut source);
        assert_eq!((items.len(), error.kind()), (3, ErrorKind::Failed));
        let line = error.to_string();
        assert!(line.contains("panicked: at 3") && line.contains("functions.rs:"), "{line}");
    }
}

fn an_item_that_cannot_be_serialized_keeps_its_place() {
    let items: Vec<_> = PARTIAL.iterate_in_subprocess(&4, 2).iter().collect();
    assert_eq!(items.len(), 4);
    for (k, item) in items.into_iter().enumerate() {
        match item {
            Ok(item) => assert!(k % 2 == 0 && item == Partial(k as u64), "{k}: {item:?}"),
            Err(error) => {
                assert!(k % 2 == 1 && !error.is_fatal(), "{k}: {error}");
                assert_eq!((error.kind(), error.packet()), (ErrorKind::Encode, Some(k as u64)));
            }
        }
    }
}

fn an_item_that_is_too_large_keeps_its_place() {
    let mut source = BYTES.iterate_in_subprocess(&vec![10, 2000, 10], 2).item_limit(1000);
    for _ in 0..2 {
        let items: Vec<_> = source.iter().collect();
        let error = items[1].as_ref().unwrap_err();
        assert_eq!((items.len(), error.kind()), (3, ErrorKind::Encode));
        assert!(error.to_string().contains("2002 bytes"), "{error}");
        assert_eq!(items[2].as_ref().unwrap(), &vec![2; 10]);
    }
}

fn an_item_that_reads_otherwise_than_it_was_written_is_no_wrong_item() {
    let items: Vec<_> = SKIPPING.iterate_in_subprocess(&(), 2).iter().collect();
    let good = |first| Skipping { first: Some(first), second: "x".to_owned() };
    assert_eq!(items[0].as_ref().unwrap(), &good(1));
    assert_eq!(items[2].as_ref().unwrap(), &good(2));
    let error = items[1].as_ref().unwrap_err();
    assert!(error.kind() == ErrorKind::Decode && !error.is_fatal(), "{error}");
    assert!(error.to_string().contains("skip_serializing_if"), "{error}");
}

fn an_item_that_is_an_error_keeps_its_place_and_its_causes() {
    let items: Vec<_> = MIXED.iterate_in_subprocess(&6, 2).iter().collect();
    let good: Vec<_> = items.iter().flatten().copied().collect();
    assert_eq!((good, items.len()), (vec![0, 2, 3, 5], 6));
    let error = items[4].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.packet()), (ErrorKind::Failed, Some(4)));
    assert!(error.to_string().contains("no fire: the wood is wet"), "{error}");
    let cause = error.cause().and_then(|fire| fire.source()).expect("a cause");
    assert_eq!(cause.to_string(), "the wood is wet");
}

fn an_error_may_cross_as_a_value() {
    let items: Result<Vec<_>, _> = TYPED.iterate_in_subprocess(&(), 2).iter().collect();
    let expected = [Ok(1), Err(Trouble::Fuel { left: 0.5 }), Err(Trouble::Weather)];
    assert_eq!(items.unwrap(), expected);
}

fn a_child_that_sleeps_runs_into_the_limit() {
    with_patience(Duration::from_millis(200), |limit| {
        let mut source = until(2, "sleep").idle_timeout(limit);
        let (items, error) = split(&mut source);
        assert_eq!((items.len(), error.kind()), (2, ErrorKind::Timeout));
        let said = format!("did not give any item within {limit:?}");
        assert!(error.to_string().contains(&said), "{error}");
        // The child is gone, and that is what the next pass is told.
        assert_eq!(split(&mut source).1.kind(), ErrorKind::Timeout);
    });
}

fn a_child_that_is_not_ready_runs_into_the_limit() {
    let limit = Duration::from_millis(50);
    let sleepy = || RANGE.iterate_in_subprocess(&3, 2).env(MOOD, "sleep");
    for mut source in [sleepy().start_timeout(limit), sleepy().idle_timeout(limit)] {
        assert_eq!(source.wait_until_ready().unwrap_err().kind(), ErrorKind::Timeout);
        assert!(split(&mut source).1.to_string().contains("was not ready within 50ms"));
    }
}

fn the_limit_does_not_run_while_the_consumer_pauses() {
    with_patience(Duration::from_millis(200), |limit| {
        for max_bytes in [1, usize::MAX] {
            let mut source =
                RANGE.iterate_in_subprocess(&2, 1).idle_timeout(limit).max_bytes(max_bytes);
            source.wait_until_ready().unwrap();
            let mut pass = source.iter();
            for k in 0..2 {
                assert_eq!(pass.next().unwrap().unwrap(), k);
                std::thread::sleep(limit * 3 / 2);
            }
            assert!(pass.next().is_none());
        }
    });
}

fn a_child_that_ends_is_told_at_once_with_its_status_and_last_words() {
    let (_, error) = split(&mut until(5, "exit"));
    assert_eq!(error.kind(), ErrorKind::Died);
    assert_eq!(error.exit_status().and_then(|status| status.code()), Some(7));
    assert_eq!(error.stderr(), "its last words\n");
    assert!(error.to_string().contains("in the middle of a pass"), "{error}");
    // An exit that looks like success is no end of the items.
    let (_, error) = split(&mut until(5, "exit well"));
    assert!(error.kind() == ErrorKind::Died && error.exit_status().unwrap().success());
}

fn a_child_that_is_killed_is_told_at_once() {
    // A machine may be too busy once, not always.
    let took = (0..20).map(|_| {
        let mut source = WHO.iterate_in_subprocess(&u64::MAX, 1);
        let mut pass = source.iter();
        let (_, pid) = pass.next().unwrap().unwrap();
        kill(pid);
        let start = Instant::now();
        // At most what was on its way.
        let left: Vec<_> = pass.collect();
        let error = left.last().unwrap().as_ref().unwrap_err();
        assert!(left.len() <= 2 && error.kind() == ErrorKind::Died, "{left:?}");
        assert_eq!(error.pid(), Some(pid));
        start.elapsed()
    });
    // No interval at which anybody looks.
    let slow: Vec<_> = took.take_while(|took| *took > Duration::from_millis(500)).collect();
    assert!(slow.len() < 20, "{slow:?}");
}

fn a_child_that_was_killed_between_passes_is_every_passes_error_until_a_restart() {
    let mut source = WHO.iterate_in_subprocess(&3, 8);
    let (_, pid) = source.iter().last().unwrap().unwrap();
    kill(pid);
    for _ in 0..2 {
        let (items, error) = split(&mut source);
        assert!(items.is_empty() && error.kind() == ErrorKind::Died, "{error}");
    }
    source.restart();
    assert_eq!(source.iter().count(), 3);
}

fn garbage_among_the_reports_is_noticed() {
    let mut source =
        EVIL.iterate_in_subprocess(&(), 4).kill_sequence([(Signal::Kill, 2 * DEADLINE)]);
    let (items, error) = soon(|| split(&mut source));
    assert!(items.is_empty() && !error.to_string().is_empty());
    soon(|| drop(source));
}

fn large_items_pass_and_one_larger_than_max_bytes_alone() {
    let sizes = vec![3_000_000, 0, 70_000, 5_000_000, 1];
    let mut source = BYTES.iterate_in_subprocess(&sizes, 3).max_bytes(1 << 20);
    for _ in 0..2 {
        let items: Result<Vec<_>, _> = source.iter().collect();
        let expected: Vec<_> = sizes.iter().zip(0..).map(|(&size, i)| vec![i; size]).collect();
        assert!(items.unwrap() == expected);
    }
    let _ = source.iter().next();
    // The argument may be larger than a pipe, too.
    let many = vec![1; 300_000];
    assert_eq!(BYTES.iterate_in_subprocess(&many, 3).iter().take(3).count(), 3);
}

fn no_room_is_an_error() {
    let dir = Dir::new();
    let mut source = RANGE.iterate_in_subprocess(&10, 0).env(crate::functions::LOG, dir.at("log"));
    let (_, error) = split(&mut source);
    assert_eq!((error.kind(), dir.read("log").as_str()), (ErrorKind::Config, ""));
}

fn two_functions_of_one_name_are_refused() {
    let twice = || {
        let registry = Registry::new().register(RANGE, |n| Passes::each(move || 0..n));
        registry.register(MISTAKEN, |_| Passes::each(|| 0..0))
    };
    assert!(std::panic::catch_unwind(twice).is_err());
}
