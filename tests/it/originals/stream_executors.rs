//! stream_executors (Python): its five tests and its examples, and its weaknesses turned round.
//!
//! Deliberately different: an error is a `Result`, so it is an item like any other, and what to do after
//! it is the consumer's choice; a closure that panics ends the feed. There is no limit of time for the
//! whole map: take what has come by a deadline with `Timed`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use itertools::{Itertools, izip};
use rayon::{ThreadPool, ThreadPoolBuilder};
use subfeed::{FeedExt, NotYet, Order, Template, Timed, inlet};

use crate::alone;
use crate::common::{Barrier, Belongings, Pulled, eventually, numbers, within};

fn pool(threads: usize) -> Arc<ThreadPool> {
    Arc::new(ThreadPoolBuilder::new().num_threads(threads).build().unwrap())
}

/// Test 1: a map over an infinite input that nobody looks at, dropped at once, in threads and in
/// processes, with a large buffer and with the smallest.
#[test]
fn test_unused_generator() {
    within(|| {
        for buffer in [10, 10, 1] {
            let slow = (0u64..).inspect(|_| thread::sleep(Duration::from_millis(5)));
            drop(slow.feed_threads_ordered(|n| n, 2, buffer));
            let slow = (0u64..).inspect(|_| thread::sleep(Duration::from_millis(5)));
            let slow = slow.map(|n| n.to_string());
            drop(slow.feed_subprocesses_ordered(Template::new("cat"), 2, buffer));
        }
        thread::scope(|scope| {
            drop((0..).feed_in_threads().workers(2).buffer(1).scoped(scope).map(|n: u64| n));
        });
    });
}

/// Test 2: the source fails at its third element: what came before is yielded, then the failure.
#[test]
fn test_error() {
    within(|| {
        let source = || (0..).map(|n| if n == 2 { Err("third") } else { Ok(n) });
        let feed = source().feed_in_threads().workers(2).buffer(10).try_map(Ok);
        assert_eq!(feed.collect::<Result<Vec<_>, _>>(), Err("third"));
        let source = (0..).map(|n| if n == 2 { panic!("third") } else { n });
        let mut feed = source.feed_threads_ordered(|n| n, 2, 10);
        assert_eq!((feed.next(), feed.next()), (Some(0), Some(1)));
        assert!(catch_unwind(AssertUnwindSafe(|| feed.next())).is_err());
    });
}

/// Test 3: the call returns at once, work goes on while the caller is elsewhere, two tasks run at a time,
/// the order is that of the input. There by the clock; here two tasks meet, which needs two workers.
#[test]
fn test_timing_2_workers() {
    within(|| {
        let two = pool(2);
        let meeting = Arc::new(std::sync::Barrier::new(2));
        let done = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&done);
        let feed = (0..20).feed_in_threads().pool(&two).workers(2).buffer(20).map(move |n: u32| {
            meeting.wait();
            count.fetch_add(1, SeqCst);
            n
        });
        eventually("all is done while nobody looks", || done.load(SeqCst) == 20);
        assert!(feed.eq(0..20));
    });
}

/// Test 4: ten workers on an infinite input; a consumer that stops in the middle and goes on; one that
/// comes when everything is there.
#[test]
fn test_timing_10_workers() {
    within(|| {
        let ten = pool(10);
        let meeting = Arc::new(std::sync::Barrier::new(10));
        let (producer, items) = inlet(100);
        let mut feed = items.feed_in_threads().pool(&ten).workers(10).buffer(30).map(move |n| {
            if n < 10 {
                meeting.wait();
            }
            n
        });
        (0..10).for_each(|n: u32| producer.put(n).unwrap());
        assert!(feed.by_ref().take(10).eq(0..10));
        assert_eq!(feed.try_next(), Err(NotYet));
        (10..30).for_each(|n| producer.put(n).unwrap());
        producer.stop();
        assert!(feed.eq(10..30));
    });
}

/// Test 5, which fails there: a program that ends in the middle of a map over an infinite input must end.
#[test]
fn test_abnormal_termination() {
    alone!(|| {
        let before = Belongings::now();
        let main = || {
            let mut feed = (0u64..).feed_threads_ordered(|n| n, 2, 10);
            feed.next();
            panic!("in main");
        };
        assert!(catch_unwind(main).is_err());
        // The threads of the global pool stay.
        eventually("the intake is gone", || {
            Belongings::now().threads <= before.threads + rayon::current_num_threads()
        });
    });
}

/// The example of three stages: left alone they pull 2, 4 and 6 inputs. (There with a buffer of 1, which
/// holds one more than it says.) One pool serves all of them.
#[test]
fn three_stages_on_one_pool_pull_2_4_6() {
    within(|| {
        let one = pool(1);
        let pulled: [Pulled; 3] = std::array::from_fn(|_| Pulled::default());
        let stage = |n: u64| n + 1;
        let first = pulled[0].count(0u64..).feed_in_threads().pool(&one).workers(2).buffer(2);
        let first = pulled[1].count(first.map(stage));
        let second = first.feed_in_threads().pool(&one).workers(2).buffer(2).map(stage);
        let second = pulled[2].count(second);
        let mut third = second.feed_in_threads().pool(&one).workers(2).buffer(2).map(stage);
        let now = || pulled.each_ref().map(Pulled::get);
        eventually("all windows are full", || now() == [6, 4, 2]);
        assert_eq!(third.next(), Some(3));
        eventually("each has pulled one more", || now() == [7, 5, 3]);
    });
}

/// The example of a finite slow input of which a part is taken.
#[test]
fn a_part_of_a_slow_input() {
    within(|| {
        let pulled = Pulled::default();
        let feed = pulled.count(0..1_000).feed_threads_ordered(|n: u32| n * n, 4, 5);
        assert!(feed.take(10).eq((0..10).map(|n| n * n)));
        assert!(pulled.get() <= 15);
    });
}

/// Several iterables: one element of each for each call, until the shortest ends. None at all called the
/// function for ever; here there is always one.
#[test]
fn several_inputs_are_zipped() {
    within(|| {
        let feed = izip!(0.., [10, 20, 30], 100..).feed_in_threads().workers(2);
        let sums: Vec<i32> = feed.map(|(a, b, c)| a + b + c).collect();
        assert_eq!(sums, [110, 122, 134]);
        let none = std::iter::empty::<(i32, i32)>().feed_threads_ordered(|(a, b)| a + b, 2, 2);
        assert_eq!(none.count(), 0);
    });
}

/// Weakness: the look-ahead was one more than it said, and an unbounded one was the default.
#[test]
fn the_buffer_is_what_it_says() {
    within(|| {
        for buffer in [1, 3] {
            let pulled = Pulled::default();
            let mut feed = pulled.count(0u64..).feed_threads_ordered(|n| n, 2, buffer);
            eventually("the window is full", || pulled.get() == buffer as u64);
            feed.next();
            eventually("one more", || pulled.get() == buffer as u64 + 1);
        }
    });
}

/// Weakness: `next()` after the end hung for ever.
#[test]
fn the_end_stays_the_end() {
    within(|| {
        for order in [Order::Input, Order::Completion] {
            let mut feed = (0..3).feed_in_threads().workers(2).order(order).map(|n| n);
            assert_eq!(feed.by_ref().count(), 3);
            assert!((0..5).all(|_| feed.next().is_none()));
        }
    });
}

/// Weakness: after an error iteration went on or hung, depending on the time.
#[test]
fn an_error_swallows_nothing_and_a_panic_ends_the_feed_every_time() {
    within(|| {
        for _ in 0..50 {
            let feed = (0..6).feed_threads_ordered(|n| if n == 1 { Err(n) } else { Ok(n) }, 2, 10);
            assert!(feed.eq([Ok(0), Err(1), Ok(2), Ok(3), Ok(4), Ok(5)]));
            let task = |n| if n == 1 { panic!("one") } else { n };
            let mut feed = (0..6).feed_threads_ordered(task, 2, 10);
            assert_eq!(feed.next(), Some(0));
            assert!(catch_unwind(AssertUnwindSafe(|| feed.next())).is_err());
            assert_eq!((feed.next(), feed.next()), (None, None));
        }
    });
}

/// Weakness: the limit of time did not count while a slow input was waited for.
#[test]
fn a_limit_of_time_holds_while_the_input_is_waited_for() {
    within(|| {
        let barrier = Barrier::default();
        let slow = barrier.clone();
        let source = (0..2).inspect(move |_| slow.pass());
        let mut feed = source.feed_threads_ordered(|n| n, 2, 10);
        assert_eq!(feed.next_timeout(Duration::from_millis(20)), Err(NotYet));
        barrier.open();
        assert!(feed.eq(0..2));
    });
}

/// Weakness: a map made by a thread that has ended hung its consumer.
#[test]
fn a_feed_does_not_care_who_made_it() {
    within(|| {
        let make = || (0..100u64).feed_threads_ordered(|n| n, 2, 1);
        let feed = thread::spawn(make).join().unwrap();
        assert!(feed.eq(0..100));
    });
}

/// Weakness: a function that raised StopIteration ended the stream without a word: nothing that a task
/// returns is taken for the end.
#[test]
fn nothing_that_a_task_returns_is_taken_for_the_end() {
    within(|| {
        let feed = (0..4).feed_threads_ordered(|n| (n % 2 == 0).then_some(n), 2, 4);
        assert_eq!(feed.collect_vec(), [Some(0), None, Some(2), None]);
    });
}

/// Weakness: with the source stuck in its `next()` the program could not end, nor the map be dropped.
#[test]
fn a_source_that_is_stuck_holds_up_nobody() {
    within(|| {
        let barrier = Barrier::default();
        let stuck = barrier.clone();
        let feed = (0..).inspect(move |_: &u32| stuck.pass()).feed_threads_ordered(|n| n, 2, 10);
        let start = Instant::now();
        drop(feed);
        assert!(start.elapsed() < Duration::from_secs(5));
        barrier.open();
    });
}

/// Weakness: one more task ran after the map was cancelled.
#[test]
fn nothing_is_begun_after_the_drop() {
    within(|| {
        let one = pool(1);
        let begun = Arc::new(Mutex::new(Vec::new()));
        let (barrier, seen) = (Barrier::default(), Arc::clone(&begun));
        let held = barrier.clone();
        let feed = (0..10).feed_in_threads().pool(&one).workers(1).map(move |n| {
            seen.lock().unwrap().push(n);
            held.pass();
        });
        eventually("the first is begun", || !begun.lock().unwrap().is_empty());
        drop(feed);
        barrier.open();
        // Whatever the pool's one thread still had to do for the feed comes before this.
        let (tell, told) = mpsc::channel();
        one.spawn_fifo(move || tell.send(()).unwrap());
        told.recv().unwrap();
        assert_eq!(*begun.lock().unwrap(), [0]);
    });
}

/// Weakness: a chunk larger than the buffer was an obscure error, an error lost its whole chunk, and a
/// chunk was waited for. Chunks are the hands' own affair here: tiny tasks are taken many at a time, and
/// nothing shows but the speed.
#[test]
fn chunks_change_nothing_about_look_ahead_and_errors() {
    within(|| {
        for buffer in [1, 2, 100, 10_000] {
            let pulled = Pulled::default();
            let task = |n: u64| if n % 100 == 50 { Err(n) } else { Ok(n) };
            let mut feed = pulled.count(0u64..20_000).feed_threads_ordered(task, 2, buffer);
            for n in 0..20_000u64 {
                assert_eq!(feed.next(), Some(task(n)));
                assert!(pulled.get() <= n + 1 + buffer as u64);
            }
            assert_eq!(feed.next(), None);
        }
        // One item alone does not wait for company.
        let (producer, items) = inlet(1);
        let mut feed = items.feed_threads_ordered(|n: u32| n, 2, 1_000);
        for n in 0..200 {
            producer.put(n).unwrap();
            assert_eq!(feed.next(), Some(n));
        }
    });
}

/// Weakness: leaving the executor's block cut the stream off. A pool ends when its last feed does.
#[test]
fn a_pool_that_was_let_go_serves_its_feeds_to_the_end() {
    within(|| {
        let feed = (0..50).feed_in_threads().pool(&pool(2)).workers(2).buffer(4).map(|n| n);
        assert!(feed.eq(0..50));
    });
}

/// Bad input: a global pool that cannot be built is reported, not waited for.
#[test]
fn a_global_pool_that_cannot_be_built_is_the_feeds_panic() {
    alone!(|| {
        let refuse = |_| Err(std::io::Error::other("no threads today"));
        let built = ThreadPoolBuilder::new().num_threads(1).spawn_handler(refuse);
        assert!(built.build_global().is_err());
        let mut feed = (0..10).feed_threads_ordered(|n| n, 2, 4);
        assert!(catch_unwind(AssertUnwindSafe(|| feed.next())).is_err());
        assert_eq!(feed.next(), None);
    });
}

/// Bad input: no workers and no buffer are panics at the call, where they can be found.
#[test]
fn zero_width_and_zero_buffer_are_refused_at_the_call() {
    for (workers, buffer) in [(0, 1), (1, 0)] {
        let call = || numbers(3).feed_in_threads().workers(workers).buffer(buffer).map(|n| n);
        let payload = catch_unwind(|| drop(call())).unwrap_err();
        let said = payload.downcast_ref::<&str>().unwrap();
        assert!(said.contains("is 0"), "{said}");
        let scoped = || {
            thread::scope(|scope| {
                let feed = numbers(3).feed_in_threads().workers(workers).buffer(buffer);
                drop(feed.scoped(scope).map(|n| n));
            });
        };
        assert!(catch_unwind(scoped).is_err());
    }
}

/// Bad input: a worker's state whose making panics has a position, and is made again.
#[test]
fn a_hook_that_panics_ends_the_feed_at_its_item() {
    within(|| {
        let feed = (0..10).feed_in_threads().workers(2).buffer(4);
        let mut feed = feed.map_init(|| panic!("hook"), |(): &mut (), n: u32| n);
        assert!(catch_unwind(AssertUnwindSafe(|| feed.next())).is_err());
        assert_eq!(feed.next(), None);
    });
}
