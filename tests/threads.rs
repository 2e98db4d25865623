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
#[ignore = "the consumer helps its own stage only, and nobody is left for the first"]
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
