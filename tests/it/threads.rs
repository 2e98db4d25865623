//! What users of maps in threads rely on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use itertools::Itertools;
use rayon::{ThreadPool, ThreadPoolBuilder};
use subfeed::{FeedExt, Order};

fn pool(threads: usize) -> Arc<ThreadPool> {
    Arc::new(ThreadPoolBuilder::new().num_threads(threads).build().unwrap())
}

/// Counts what is pulled.
fn counted(counter: &Arc<AtomicUsize>) -> impl Iterator<Item = usize> + Send + use<> {
    let counter = Arc::clone(counter);
    (0..).inspect(move |_| {
        counter.fetch_add(1, SeqCst);
    })
}

fn settles_at(counter: &AtomicUsize, wanted: usize) {
    let limit = Instant::now() + Duration::from_secs(10);
    while counter.load(SeqCst) < wanted && Instant::now() < limit {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(30));
    assert_eq!(counter.load(SeqCst), wanted);
}

#[test]
fn values_come_in_input_order_whatever_their_tasks_take() {
    let values: Vec<_> = (0..2_000u64)
        .feed_threads_ordered(
            |n| {
                if n % 97 == 0 {
                    thread::sleep(Duration::from_micros(n % 7 * 100));
                }
                n * 2
            },
            4,
            50,
        )
        .collect();
    assert!(values.iter().copied().eq((0..2_000).map(|n| n * 2)));
}

#[test]
fn every_input_becomes_one_value_in_completion_order_too() {
    for buffer in [1, 2, 7, usize::MAX] {
        let mut values: Vec<_> = (0..5_000u64).feed_threads(|n| n, 3, buffer).collect();
        values.sort_unstable();
        assert!(values.into_iter().eq(0..5_000));
    }
}

#[test]
fn input_k_plus_window_is_not_pulled_before_output_k() {
    let pulled = Arc::new(AtomicUsize::new(0));
    let mut feed = counted(&pulled).feed_threads_ordered(|n| n, 2, 3);
    settles_at(&pulled, 3);
    for k in 0..100 {
        assert_eq!(feed.next(), Some(k));
        assert!(pulled.load(SeqCst) <= k + 4);
    }
}

#[test]
fn three_stages_left_alone_pull_two_four_six() {
    let pulled: Vec<_> = (0..3).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let count = |i: usize| {
        let counter = Arc::clone(&pulled[i]);
        move |n: usize| {
            counter.fetch_add(1, SeqCst);
            n
        }
    };
    let (first, second, third) = (count(0), count(1), count(2));
    let feed = (0..)
        .map(first)
        .feed_threads_ordered(|n| n, 2, 2)
        .map(second)
        .feed_threads_ordered(|n| n, 2, 2)
        .map(third)
        .feed_threads_ordered(|n| n, 2, 2);
    settles_at(&pulled[2], 2);
    settles_at(&pulled[1], 4);
    settles_at(&pulled[0], 6);
    drop(feed);
}

/// Slow enough now and then that whoever waits for it falls asleep.
fn halting(n: u64) -> impl Iterator<Item = u64> + Send {
    (0..n).inspect(|n| {
        if n % 10 == 0 {
            thread::sleep(Duration::from_millis(3));
        }
    })
}

#[test]
fn next_on_the_only_thread_of_the_pool_does_the_work_itself() {
    let only = pool(1);
    let feed = halting(50).feed_in_threads().pool(&only).workers(2).buffer(4).map(|n| n * n);
    assert_eq!(only.install(move || feed.sum::<u64>()), (0..50).map(|n| n * n).sum::<u64>());
}

#[test]
fn next_on_the_only_thread_of_the_pool_does_the_work_of_every_stage() {
    let only = pool(1);
    let squares = halting(50).feed_in_threads().pool(&only).workers(2).buffer(4).map(|n| n * n);
    let feed = squares.feed_in_threads().pool(&only).workers(2).buffer(4).map(|n| n + 1);
    assert_eq!(only.install(move || feed.sum::<u64>()), (0..50).map(|n| n * n + 1).sum::<u64>());
}

#[test]
fn consumers_on_every_thread_of_the_pool_all_come_to_their_end() {
    let two = pool(2);
    let sums = two.broadcast(|_| {
        let feed = (0..3_000u64).feed_in_threads().pool(&two).workers(3).buffer(5).map(|n| n);
        feed.sum::<u64>()
    });
    assert_eq!(sums, [4_498_500; 2]);
}

#[test]
fn every_completion_order_of_four_tasks_on_three_workers() {
    let four = pool(4);
    for order in (0..4usize).permutations(4) {
        let (tell, told): (Vec<_>, Vec<_>) = (0..4).map(|_| mpsc::channel::<()>()).unzip();
        let told: Vec<_> = told.into_iter().map(std::sync::Mutex::new).collect();
        let feed = (0..4usize).feed_in_threads().pool(&four).workers(3).buffer(4).map(move |n| {
            told[n].lock().unwrap().recv().unwrap();
            n
        });
        // Three at a time: the fourth begins when one is done.
        for &n in &order {
            tell[n].send(()).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(feed.collect::<Vec<_>>(), [0, 1, 2, 3], "{order:?}");
    }
}

#[test]
fn a_value_is_not_withheld_by_the_task_that_comes_after_it() {
    let one = pool(1);
    let (tell, told) = mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let feed = (0..1_000usize).feed_in_threads().pool(&one).workers(1).buffer(1_000);
    let feed = feed.map(move |n| {
        if n % 100 == 99 {
            told.lock().unwrap().recv().unwrap(); // until the consumer has seen the one before
        }
        n
    });
    for n in feed {
        if n % 100 == 98 {
            tell.send(()).unwrap();
        }
    }
}

#[test]
fn no_item_waits_behind_another_while_a_worker_is_free() {
    let four = pool(4);
    let all = Arc::new(Barrier::new(4));
    // Fast tasks teach the workers to take many at a time; then four must run together.
    let feed = (0..2_004usize).feed_in_threads().pool(&four).workers(4).buffer(4_000);
    let count = feed
        .map(move |n| {
            if n >= 2_000 {
                all.wait();
            }
        })
        .count();
    assert_eq!(count, 2_004);
}

#[test]
fn a_panic_comes_out_at_its_position_with_its_payload_and_ends_the_feed() {
    let mut feed = (0..100).feed_threads_ordered(
        |n| {
            if n == 3 {
                std::panic::panic_any(String::from("three"));
            }
            n
        },
        4,
        10,
    );
    for n in 0..3 {
        assert_eq!(feed.next(), Some(n));
    }
    let payload = catch_unwind(AssertUnwindSafe(|| feed.next())).unwrap_err();
    assert_eq!(payload.downcast_ref::<String>().unwrap(), "three");
    assert_eq!((feed.next(), feed.next()), (None, None));
}

#[test]
fn a_panic_of_the_source_comes_out_after_what_it_gave() {
    let source = (0..10).map(|n| if n == 5 { panic!("five") } else { n });
    let mut feed = source.feed_threads_ordered(|n| n, 2, 3);
    assert!((0..5).all(|n| feed.next() == Some(n)));
    assert!(catch_unwind(AssertUnwindSafe(|| feed.next())).is_err());
    assert_eq!(feed.next(), None);
}

#[test]
fn no_more_than_n_run_at_a_time_and_each_worker_has_one_state() {
    let (running, most, states) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let shared = Arc::new((running, most, states));
    let (in_init, in_map) = (Arc::clone(&shared), Arc::clone(&shared));
    let feed = (0..500).feed_in_threads().pool(&pool(8)).workers(3).buffer(100);
    let feed = feed.order(Order::Completion).map_init(
        move || in_init.2.fetch_add(1, SeqCst),
        move |_, _| {
            in_map.1.fetch_max(in_map.0.fetch_add(1, SeqCst) + 1, SeqCst);
            thread::sleep(Duration::from_micros(100));
            in_map.0.fetch_sub(1, SeqCst);
        },
    );
    assert_eq!(feed.count(), 500);
    assert!(shared.1.load(SeqCst) <= 3 && shared.2.load(SeqCst) <= 3);
}

#[test]
fn dropping_stops_the_source_and_forgets_what_is_not_begun() {
    let (pulled, mapped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let in_map = Arc::clone(&mapped);
    let feed = counted(&pulled).feed_threads_ordered(
        move |_| {
            in_map.fetch_add(1, SeqCst);
            thread::sleep(Duration::from_millis(20));
        },
        2,
        1_000,
    );
    settles_at(&pulled, 1_000);
    let begun = Instant::now();
    drop(feed);
    assert!(begun.elapsed() < Duration::from_millis(500));
    let soon = mapped.load(SeqCst);
    thread::sleep(Duration::from_millis(100));
    assert!(mapped.load(SeqCst) <= soon + 2);
    assert_eq!(pulled.load(SeqCst), 1_000);
}

#[test]
fn the_size_hint_is_the_sources_less_what_was_yielded() {
    let mut feed = (0..10).feed_threads_ordered(|n| n, 2, 4);
    for left in (0..10).rev() {
        assert!(feed.next().is_some());
        assert_eq!(feed.size_hint(), (left, Some(left)));
    }
    assert_eq!((feed.next(), feed.size_hint()), (None, (0, Some(0))));
}

#[test]
fn no_workers_or_no_buffer_is_a_panic_at_the_call() {
    assert!(catch_unwind(|| (0..3).feed_threads(|n| n, 0, 1)).is_err());
    assert!(catch_unwind(|| (0..3).feed_threads(|n| n, 1, 0)).is_err());
}

// ------------------------------------------------------------------------------------------- in scopes

#[test]
fn in_a_scope_everything_may_borrow() {
    let words: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    let lengths = std::sync::Mutex::new(0);
    let seen: Vec<&str> = thread::scope(|scope| {
        let feed = words.iter().feed_in_threads().workers(3).buffer(16).scoped(scope);
        let feed = feed.map(|word| {
            *lengths.lock().unwrap() += word.len();
            word.as_str()
        });
        feed.collect()
    });
    assert_eq!(seen, words);
    assert_eq!(lengths.into_inner().unwrap(), 10 + 90 * 2 + 900 * 3);
}

#[test]
fn stages_in_one_scope_borrow_and_chain() {
    let factor = 3;
    let sum: u64 = thread::scope(|scope| {
        let tripled = (0..500u64).feed_in_threads().workers(2).buffer(4).scoped(scope);
        let tripled = tripled.map(|n| n * factor);
        let feed = tripled.feed_in_threads().workers(2).buffer(4).order(Order::Completion);
        feed.scoped(scope).map(|n| n + factor).sum::<u64>()
    });
    assert_eq!(sum, (0..500).map(|n| n * 3 + 3).sum::<u64>());
}

#[test]
fn a_scope_ends_when_its_feed_is_dropped_early() {
    let pulled = AtomicUsize::new(0);
    thread::scope(|scope| {
        let source = (0..).inspect(|_| {
            pulled.fetch_add(1, SeqCst);
        });
        let feed = source.feed_in_threads().workers(3).buffer(5).scoped(scope).map(|n| n);
        assert!(feed.take(7).eq(0..7));
    });
    assert!(pulled.load(SeqCst) <= 12);
}

#[test]
fn a_panic_in_a_scope_comes_out_of_next_and_not_of_the_scope() {
    thread::scope(|scope| {
        let feed = (0..100).feed_in_threads().workers(4).buffer(10).scoped(scope);
        let mut feed = feed.map(|n| if n == 30 { panic!("thirty") } else { n });
        assert!((0..30).all(|n| feed.next() == Some(n)));
        let payload = catch_unwind(AssertUnwindSafe(|| feed.next())).unwrap_err();
        assert_eq!(*payload.downcast_ref::<&str>().unwrap(), "thirty");
        assert_eq!(feed.next(), None);
    });
}

#[test]
fn a_scope_has_as_many_states_as_workers_at_most() {
    let states = AtomicUsize::new(0);
    let sum: usize = thread::scope(|scope| {
        let feed = (0..300).feed_in_threads().workers(3).buffer(30).scoped(scope);
        feed.map_init(|| states.fetch_add(1, SeqCst), |_, n| n).sum::<usize>()
    });
    assert_eq!(sum, 300 * 299 / 2);
    assert!((1..=3).contains(&states.load(SeqCst)));
}

// --------------------------------------------------------------------------------- on blocked pools

#[test]
fn next_on_the_only_thread_of_the_pool_reaches_up_a_chain_with_a_subprocess_in_it() {
    let only = pool(1);
    let text = halting(50).feed_in_threads().pool(&only).workers(2).buffer(4);
    let cat =
        text.map(|n| n.to_string()).feed_subprocesses_ordered(subfeed::Template::new("cat"), 1, 4);
    let feed = cat.feed_in_threads().pool(&only).workers(2).buffer(4);
    let feed = feed.map(|reply| reply.unwrap().to_string().parse::<u64>().unwrap());
    assert_eq!(only.install(move || feed.sum::<u64>()), (0..50).sum::<u64>());
}

#[test]
fn consumers_on_every_thread_of_the_pool_help_chains_of_three_in_either_order() {
    for order in [Order::Input, Order::Completion] {
        let two = pool(2);
        let sums = two.broadcast(|_| {
            let stage = |n: u64| n + 1;
            let first = (0..300).feed_in_threads().pool(&two).workers(3).buffer(5).order(order);
            let second =
                first.map(stage).feed_in_threads().pool(&two).workers(1).buffer(2).order(order);
            let third =
                second.map(stage).feed_in_threads().pool(&two).workers(3).buffer(3).order(order);
            third.map(stage).sum::<u64>()
        });
        assert_eq!(sums, [(3..303).sum::<u64>(); 2]);
    }
}

#[test]
fn a_consumer_never_does_the_work_of_a_feed_that_it_does_not_wait_for() {
    let only = pool(1);
    let same = Arc::clone(&only);
    let here = Arc::new(std::sync::Mutex::new(Vec::new()));
    let there = Arc::clone(&here);
    // Its one task may only run when the consumer below has come to its end.
    let (done, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let work = halting(20).feed_in_threads().pool(&only).workers(1).buffer(2).map(|n| n);
    let (sum, other) = only.install(move || {
        let other = (0..1).feed_in_threads().workers(1).buffer(1);
        let other = other.pool(&same).map(move |n| {
            wait.lock().unwrap().recv().unwrap();
            there.lock().unwrap().push(n);
        });
        let sum = work.sum::<u64>();
        done.send(()).unwrap();
        (sum, other)
    });
    assert_eq!((sum, other.count()), (190, 1));
    assert_eq!(*here.lock().unwrap(), [0]);
}

#[test]
fn a_feed_outlives_every_other_handle_to_its_pool() {
    let two = pool(2);
    let feed = halting(100).feed_in_threads().pool(&two).workers(2).buffer(4).map(|n| n);
    drop(two);
    assert_eq!(feed.sum::<u64>(), 4_950);
}
