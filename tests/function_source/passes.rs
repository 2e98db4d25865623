//! Iterating, once and again, whole and abandoned.

use subfeed::FeedExt;
use subfeed::source::FunctionSource;

use crate::common::{Belongings, Dir, eventually};
use crate::functions::{LOG, NOTED, ONCE, RANGE, UNTIL, WHO};
use crate::tests;

tests![
    iteration_gives_what_the_function_gives,
    three_passes_are_the_same,
    a_pass_that_was_left_does_not_show_in_the_next,
    zipped_with_something_shorter_it_is_whole_the_next_time,
    all_passes_are_made_in_one_process_whose_state_is_kept,
    initializers_run_in_order_before_the_first_pass_and_only_there,
    what_the_source_was_made_from_may_be_gone,
    with_room_for_one_the_child_is_in_lockstep,
    with_room_for_all_the_child_is_done_before_anything_is_consumed,
    without_a_bound_it_works_too,
    what_was_left_makes_nothing_more_and_is_dropped_at_once,
    a_pass_that_was_leaked_does_not_mix_with_the_next,
    many_passes_that_are_left_at_any_point,
    a_source_that_there_is_one_of_is_an_error_the_second_time,
    it_starts_at_the_pass_and_not_at_its_first_item,
    a_last_pass_goes_into_a_feed_and_takes_its_child_with_it,
    nothing_is_left_behind,
    it_is_fused,
];

fn numbers(source: &mut FunctionSource<u64>) -> Vec<u64> {
    source.iter().map(|item| item.expect("a number")).collect()
}

fn range(n: u64) -> Vec<u64> {
    (0..n).collect()
}

fn iteration_gives_what_the_function_gives() {
    for buffer_size in [1, 2, 3, 10, 11, 1000] {
        assert_eq!(numbers(&mut RANGE.iterate_in_subprocess(&10, buffer_size)), range(10));
    }
    assert!(numbers(&mut RANGE.iterate_in_subprocess(&0, 3)).is_empty());
    assert_eq!(numbers(&mut RANGE.iterate_in_subprocess(&100_000, 64)), range(100_000));
}

fn three_passes_are_the_same() {
    let mut source = RANGE.iterate_in_subprocess(&10, 3);
    for _ in 0..3 {
        assert_eq!(numbers(&mut source), range(10));
    }
    let mut again = Vec::new();
    for item in &mut source {
        again.push(item.unwrap());
    }
    assert_eq!(again, range(10));
}

fn a_pass_that_was_left_does_not_show_in_the_next() {
    let mut source = RANGE.iterate_in_subprocess(&10, 4);
    for _ in 0..3 {
        let mut taken = Vec::new();
        for item in source.iter() {
            taken.push(item.unwrap());
            if taken.len() == 3 {
                break;
            }
        }
        assert_eq!(taken, range(3));
        assert_eq!(numbers(&mut source), range(10));
    }
}

fn zipped_with_something_shorter_it_is_whole_the_next_time() {
    let mut source = RANGE.iterate_in_subprocess(&10, 2);
    let pairs: Vec<_> = (0..3).zip(&mut source).map(|(a, b)| (a, b.unwrap())).collect();
    assert_eq!(pairs, [(0, 0), (1, 1), (2, 2)]);
    assert_eq!(numbers(&mut source), range(10));
}

fn all_passes_are_made_in_one_process_whose_state_is_kept() {
    let mut source = WHO.iterate_in_subprocess(&3, 2);
    let first = source.iter().next().unwrap().unwrap();
    assert_eq!(first.0, 1);
    assert_ne!(first.1, std::process::id());
    for pass in 2..5 {
        let made: Result<Vec<_>, _> = source.iter().collect();
        assert_eq!(made.unwrap(), [(pass, first.1); 3]);
    }
    source.restart();
    let afresh = source.iter().next().unwrap().unwrap();
    assert!(afresh.0 == 1 && afresh.1 != first.1, "{afresh:?}");
}

fn initializers_run_in_order_before_the_first_pass_and_only_there() {
    let dir = Dir::new();
    let mut source = RANGE.iterate_in_subprocess(&10, 3).env(LOG, dir.at("log"));
    assert_eq!(dir.read("log"), "", "nothing runs before it is asked for");
    source.wait_until_ready().unwrap();
    let log = dir.read("log");
    let lines: Vec<_> = log.lines().collect();
    assert!(lines[0].starts_with("first ") && lines[1..] == ["second", "function"], "{log}");
    assert_ne!(lines[0], format!("first {}", std::process::id()));
    for _ in 0..2 {
        assert_eq!(numbers(&mut source), range(10));
    }
    assert_eq!(dir.read("log"), log, "once");
}

fn what_the_source_was_made_from_may_be_gone() {
    let dir = Dir::new();
    let mut source = RANGE.iterate_in_subprocess(&10, 3).env(LOG, dir.at("log"));
    source.wait_until_ready().unwrap();
    drop(dir);
    assert_eq!(numbers(&mut source), range(10));
}

/// How often the function's iterator has been asked for an item.
fn asked(dir: &Dir) -> usize {
    dir.read("noted").lines().filter(|line| *line == "asked").count()
}

fn with_room_for_one_the_child_is_in_lockstep() {
    for buffer_size in [1, 2, 5] {
        let dir = Dir::new();
        let mut source = NOTED.iterate_in_subprocess(&(dir.at("noted"), 20), buffer_size);
        let mut pass = source.iter();
        for yielded in 0..20 {
            eventually("it works ahead", || asked(&dir) == (yielded + buffer_size).min(21));
            assert_eq!(pass.next().unwrap().unwrap(), yielded as u64);
            // It may have been told that one more was taken.
            assert!(asked(&dir) <= yielded + 1 + buffer_size);
        }
        assert!(pass.next().is_none());
    }
}

fn with_room_for_all_the_child_is_done_before_anything_is_consumed() {
    let dir = Dir::new();
    let mut source = NOTED.iterate_in_subprocess(&(dir.at("noted"), 10), 64);
    let pass = source.iter();
    eventually("it is done", || dir.read("noted").ends_with("end\n"));
    assert_eq!(asked(&dir), 11);
    assert_eq!(pass.count(), 10);
}

fn without_a_bound_it_works_too() {
    let mut source = RANGE.iterate_in_subprocess(&1000, usize::MAX);
    assert_eq!(numbers(&mut source), range(1000));
}

fn what_was_left_makes_nothing_more_and_is_dropped_at_once() {
    let dir = Dir::new();
    let mut source = NOTED.iterate_in_subprocess(&(dir.at("noted"), u64::MAX), 8);
    assert_eq!(source.iter().next().unwrap().unwrap(), 0);
    // Nobody asks for anything, and yet.
    eventually("it is dropped", || dir.read("noted").ends_with("end\n"));
    assert!(asked(&dir) <= 9, "{}", asked(&dir));
    assert_eq!(source.iter().next().unwrap().unwrap(), 0);
}

fn a_pass_that_was_leaked_does_not_mix_with_the_next() {
    // As two live iterators of one source would: the borrow checker knows only of those that are not.
    let mut source = RANGE.iterate_in_subprocess(&10, 3);
    let mut leaked = source.iter();
    assert_eq!((leaked.next().unwrap().unwrap(), leaked.next().unwrap().unwrap()), (0, 1));
    std::mem::forget(leaked);
    assert_eq!(numbers(&mut source), range(10));
}

fn many_passes_that_are_left_at_any_point() {
    let mut source = RANGE.iterate_in_subprocess(&20, 4);
    for round in 0..400 {
        let taken = round % 23;
        let items: Vec<_> = source.iter().take(taken).map(Result::unwrap).collect();
        assert_eq!(items, range(taken.min(20) as u64), "{round}");
    }
    for _ in 0..400 {
        drop(source.iter());
    }
    assert_eq!(numbers(&mut source), range(20));
    // Each of them is one, even if nothing of it was ever seen.
    let mut source = WHO.iterate_in_subprocess(&3, 2);
    for _ in 0..100 {
        drop(source.iter());
    }
    assert_eq!(source.iter().next().unwrap().unwrap().0, 101);
}

fn a_source_that_there_is_one_of_is_an_error_the_second_time() {
    let mut source = ONCE.iterate_in_subprocess(&10, 3);
    assert_eq!(numbers(&mut source), range(10));
    for _ in 0..2 {
        let items: Vec<_> = source.iter().collect();
        let [Err(error)] = &items[..] else { panic!("{items:?}") };
        assert!(error.kind() == subfeed::ErrorKind::Config && error.is_fatal(), "{error}");
        assert!(error.to_string().contains("Passes::each"), "{error}");
    }
    source.restart();
    assert_eq!(numbers(&mut source), range(10));
}

fn it_starts_at_the_pass_and_not_at_its_first_item() {
    let dir = Dir::new();
    let mut source = NOTED.iterate_in_subprocess(&(dir.at("noted"), 10), 3);
    source.start();
    source.wait_until_ready().unwrap();
    assert_eq!(asked(&dir), 0);
    let pass = source.iter();
    eventually("it works ahead", || asked(&dir) == 3);
    drop(pass);
}

fn a_last_pass_goes_into_a_feed_and_takes_its_child_with_it() {
    let before = Belongings::now();
    let source = RANGE.iterate_in_subprocess(&100, 8);
    let doubled = source.into_iter().map(Result::unwrap).feed_threads_ordered(|k| 2 * k, 2, 8);
    assert_eq!(doubled.sum::<u64>(), 9900);
    // Rayon's pool stays.
    let pool = Belongings { threads: Belongings::now().threads, ..before };
    // Dropped while its intake waits in the source.
    let source = UNTIL.iterate_in_subprocess(&(3, "sleep".to_owned()), 8);
    let mut feed = source.into_iter().map(Result::unwrap).feed_threads_ordered(|k| 2 * k, 2, 8);
    assert_eq!(feed.next(), Some(0));
    drop(feed);
    eventually("its child is gone", || Belongings::now().children == pool.children);
    eventually("its pipes are gone", || Belongings::now().fds == pool.fds);
}

fn nothing_is_left_behind() {
    let before = Belongings::now();
    let mut source = RANGE.iterate_in_subprocess(&100, 8);
    assert_eq!(source.iter().take(5).count(), 5);
    assert_eq!(source.iter().count(), 100);
    let _ = source.iter().next();
    drop(source);
    before.restored();
    let mut source = RANGE.iterate_in_subprocess(&100, 8);
    source.start();
    drop(source);
    drop(RANGE.iterate_in_subprocess(&u64::MAX, 8).into_iter());
    drop(RANGE.iterate_in_subprocess(&100, 8));
    before.restored();
}

fn it_is_fused() {
    let mut source = RANGE.iterate_in_subprocess(&3, 8);
    let mut pass = source.iter();
    assert_eq!(pass.by_ref().count(), 3);
    assert!((0..10).all(|_| pass.next().is_none()));
}
