//! parallel-queue 0.5 (Python): its nine tests, and its weaknesses turned round.
//!
//! Deliberately different: `join` stops the queue, since a join of one that goes on never ends; there
//! `join(timeout=1)` on a running queue came back with the queue alive (test 2). What fails is a `Result`;
//! a task that panics ends the queue. What passes says so by its type (`Entry::Mark`), so a mark may be
//! anything, and a task is never taken for one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use itertools::Itertools;
use rayon::ThreadPoolBuilder;
use subfeed::{
    BoxError, Entry, FeedExt, FeedThreads, GetError, Inlet, Queue, Stopped, TryPutError,
};

use crate::common::{A_MOMENT, Barrier, DEADLINE, child, within};

/// Test 1: the four tasks end in each of the 24 possible orders, on three workers, and the queue stops and
/// joins. Three begin at once and the fourth when one of them has ended, so an order in which it comes
/// first is the order in which it is let go first; it still ends as soon as it can.
#[test]
fn every_order_of_completion_of_four_tasks_on_three_workers() {
    within(|| {
        let three = Arc::new(ThreadPoolBuilder::new().num_threads(3).build().unwrap());
        for order in (0..4usize).permutations(4) {
            let (tell, told): (Vec<_>, Vec<_>) = (0..4).map(|_| mpsc::channel::<()>()).unzip();
            let told: Vec<_> = told.into_iter().map(Mutex::new).collect();
            let (say, ended) = mpsc::channel();
            let mut queue = Queue::new(1, |items: Inlet<usize>| {
                items.feed_in_threads().pool(&three).workers(3).buffer(4).map(move |n| {
                    told[n].lock().unwrap().recv().unwrap();
                    say.send(n).unwrap();
                    n
                })
            });
            (0..4).for_each(|n| queue.put(n).unwrap());
            // A task that is let go and has begun ends before the next is let go.
            let mut begun = vec![0, 1, 2];
            let mut let_go = Vec::new();
            for &n in &order {
                tell[n].send(()).unwrap();
                let_go.push(n);
                while let Some(at) = let_go.iter().position(|n| begun.contains(n)) {
                    let n = let_go.remove(at);
                    assert_eq!(ended.recv_timeout(DEADLINE), Ok(n), "{order:?}");
                    begun.retain(|other| *other != n);
                    if n != 3 {
                        begun.push(3);
                    }
                }
            }
            queue.stop();
            assert!(queue.join_timeout(DEADLINE), "{order:?}");
            assert!((0..4).all(|n| queue.get() == Some(n)));
            assert_eq!(queue.get(), None);
        }
    });
}

/// Test 2: a join with a limit says that the queue is still alive.
#[test]
fn join_with_a_limit_while_a_task_is_under_way() {
    within(|| {
        let barrier = Barrier::default();
        let held = barrier.clone();
        let mut queue = Queue::threads(move |()| held.pass(), 2, 4);
        assert!(queue.is_alive());
        queue.put(()).unwrap();
        assert!(!queue.join_timeout(A_MOMENT) && queue.is_alive());
        barrier.open();
        assert!(queue.join_timeout(DEADLINE) && !queue.is_alive());
    });
}

/// Test 3: a task's failure comes out where its result would have been, and says where it happened; the
/// later results follow. A panic keeps its payload.
#[test]
fn a_failure_comes_out_of_get_with_what_it_has_to_say() {
    within(|| {
        let task = |text: &'static str| text.parse::<u32>().map_err(BoxError::from);
        let mut queue = Queue::threads(task, 2, 10);
        ["1", "two", "3"].into_iter().for_each(|text| queue.put(text).unwrap());
        assert_eq!(queue.get().unwrap().unwrap(), 1);
        let error = queue.get().unwrap().unwrap_err();
        assert!(error.is::<std::num::ParseIntError>());
        assert_eq!(queue.get().unwrap().unwrap(), 3);

        let mut queue = Queue::threads(|n: u32| 10 / n, 2, 10);
        [5, 0].into_iter().for_each(|n| queue.put(n).unwrap());
        assert_eq!(queue.get(), Some(2));
        let payload = catch_unwind(AssertUnwindSafe(|| queue.get())).unwrap_err();
        assert!(payload.downcast_ref::<&str>().unwrap().contains("divide by zero"));
        assert_eq!(queue.get(), None);
    });
}

/// Test 4: 50 rounds of four puts and four gets through the smallest queues, while the ids wrap.
#[test]
fn fifty_rounds_while_the_ids_wrap() {
    within(|| {
        for buffer in [1, 2, 3] {
            let mut queue = Queue::new(2, |items: Inlet<u64>| {
                let feed = items.feed_in_threads().workers(2).buffer(buffer);
                feed.first_packet(u64::MAX - 100).map(|n| n)
            });
            let producer = queue.producer();
            let putting = thread::spawn(move || (0..200).for_each(|n| producer.put(n).unwrap()));
            for round in 0..50 {
                assert!((0..4).all(|n| queue.get() == Some(4 * round + n)), "round {round}");
            }
            putting.join().unwrap();
            queue.join();
            assert_eq!(queue.get(), None);
        }
    });
}

/// Tests 5 and 6: ids around the wrap, compared and in order. They are the window's affair and never seen:
/// every start near the end of the numbers gives the same stream.
#[test]
fn every_start_near_the_wrap_gives_the_same_stream() {
    within(|| {
        for before in 0..12 {
            let feed = (0..40u64).feed_in_threads().workers(3).buffer(5);
            let feed = feed.first_packet(u64::MAX - before).map(|n| {
                if n % 5 == 0 {
                    thread::yield_now();
                }
                n
            });
            assert!(feed.eq(0..40));
        }
    });
}

type Task = Box<dyn FnOnce() -> u32 + Send>;

fn tasks(items: Inlet<Entry<Task, u32>>) -> FeedThreads<Task, Entry<u32, u32>> {
    items.feed_in_threads().workers(2).buffer(4).map_items(|task| task())
}

fn task(f: impl FnOnce() -> u32 + Send + 'static) -> Entry<Task, u32> {
    Entry::Item(Box::new(f))
}

/// Test 7: three callables, one with an argument, a mark. (What is neither does not compile.)
#[test]
fn callables_are_called_and_marks_pass_in_order() {
    within(|| {
        let mut queue = Queue::new(10, tasks);
        (1..4).for_each(|n| queue.put(task(move || n)).unwrap());
        queue.put(task(|| u32::from(4u8))).unwrap();
        queue.put(Entry::Mark(5)).unwrap();
        queue.stop();
        let got: Vec<_> = std::iter::from_fn(|| queue.get()).collect();
        let [one, two, three, four] = [1, 2, 3, 4].map(Entry::Item);
        assert_eq!(got, [one, two, three, four, Entry::Mark(5)]);
    });
}

/// Test 8: the limit of a put is no argument of the task. They are different things here.
#[test]
fn the_limit_of_a_put_is_not_the_tasks() {
    within(|| {
        let mut queue = Queue::threads(|(timeout, n): (u32, u32)| timeout + n, 2, 4);
        queue.put_timeout((1, 2), DEADLINE).unwrap();
        assert_eq!(queue.get(), Some(3));
    });
}

/// Test 9: no argument, one, several.
#[test]
fn a_task_takes_what_is_put() {
    within(|| {
        let mut queue = Queue::threads(|()| 7, 2, 4);
        queue.put(()).unwrap();
        assert_eq!(queue.get(), Some(7));
        let mut queue = Queue::threads(|(a, b): (u32, u32)| a - b, 2, 4);
        queue.put((9, 2)).unwrap();
        assert_eq!(queue.get(), Some(7));
    });
}

/// Weakness: failures went past the window, and a slow first task with more of them behind it than the
/// buffer held was the end.
#[test]
fn a_slow_task_and_many_failures_behind_it() {
    within(|| {
        let barrier = Barrier::default();
        let slow = barrier.clone();
        let task = move |n: u32| {
            if n > 0 {
                return Err(n);
            }
            slow.pass();
            Ok(n)
        };
        let mut queue = Queue::threads(task, 3, 4);
        let producer = queue.producer();
        let putting = thread::spawn(move || (0..100).for_each(|n| producer.put(n).unwrap()));
        assert_eq!(queue.get_timeout(A_MOMENT), Err(GetError::NotYet));
        barrier.open();
        assert_eq!(queue.get(), Some(Ok(0)));
        assert!((1..100).all(|n| queue.get() == Some(Err(n))));
        putting.join().unwrap();
    });
}

/// Weakness: a worker that died took its packet along, and everything stood still.
#[test]
fn a_worker_that_is_killed_costs_its_packet_and_nothing_else() {
    within(|| {
        let template = child("poison").retries(0);
        let mut queue = Queue::subprocesses(template, 2, 10);
        ["a", "poison", "b"].into_iter().for_each(|text| queue.put(text).unwrap());
        assert_eq!(queue.get().unwrap().unwrap(), "a");
        assert!(queue.get().unwrap().is_err());
        assert_eq!(queue.get().unwrap().unwrap(), "b");
        assert!(queue.join_timeout(DEADLINE));
    });
}

/// Weakness: lost wake-ups, each of which cost five seconds.
#[test]
fn three_hundred_short_tasks_through_a_tiny_window_lose_no_wake_up() {
    within(|| {
        let start = Instant::now();
        let task = |n: u64| {
            thread::sleep(Duration::from_micros(1_000 + n % 4 * 1_000));
            n
        };
        let mut queue = Queue::threads(task, 4, 2);
        let producer = queue.producer();
        let putting = thread::spawn(move || (0..300).for_each(|n| producer.put(n).unwrap()));
        assert!((0..300).all(|n| queue.get() == Some(n)));
        putting.join().unwrap();
        // 0.75 s of tasks, one after another; two lost wake-ups of theirs.
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    });
}

/// Weakness: stop blocked on a full queue, a put after it was accepted and never run, a get after the end
/// blocked.
#[test]
fn stop_on_a_full_queue_put_after_it_and_get_after_the_end() {
    within(|| {
        let barrier = Barrier::default();
        let held = barrier.clone();
        let mut queue = Queue::threads(
            move |n: u32| {
                held.pass();
                n
            },
            2,
            2,
        );
        (0..4).for_each(|n| queue.put_timeout(n, DEADLINE).unwrap());
        assert_eq!(queue.put_timeout(9, A_MOMENT), Err(TryPutError::Full(9)));
        queue.stop();
        queue.stop();
        assert_eq!(queue.put(5), Err(Stopped(5)));
        barrier.open();
        assert!((0..4).all(|n| queue.get() == Some(n)));
        assert_eq!((queue.get(), queue.get()), (None, None));
    });
}

/// Weakness: a join before the results were read hung as soon as they filled a pipe.
#[test]
fn join_before_large_results_are_read() {
    within(|| {
        let mut queue = Queue::threads(|n: u8| vec![n; 100_000], 2, 2);
        (0..4).for_each(|n| queue.put_timeout(n, DEADLINE).unwrap());
        assert!(queue.join_timeout(DEADLINE));
        assert!((0..4).all(|n| queue.get() == Some(vec![n; 100_000])));
    });
}

/// Weakness: what can be called could not be a mark.
#[test]
fn a_mark_may_be_a_function() {
    within(|| {
        let mut queue = Queue::new(4, |items: Inlet<Entry<u32, fn() -> u32>>| {
            items.feed_in_threads().workers(2).map_items(|n| n + 1)
        });
        queue.put(Entry::Item(1)).unwrap();
        queue.put(Entry::Mark(|| 42)).unwrap();
        assert_eq!(queue.get().unwrap().item(), Some(2));
        assert_eq!(queue.get().unwrap().mark().unwrap()(), 42);
    });
}

/// Weakness: putting and getting were each for one thread only.
#[test]
fn puts_from_many_threads_are_all_dealt_with() {
    within(|| {
        let mut queue = Queue::threads(|n: u32| n, 3, 3);
        let putting: Vec<_> = (0..8)
            .map(|who| {
                let producer = queue.producer();
                thread::spawn(move || (0..50).for_each(|n| producer.put(who * 50 + n).unwrap()))
            })
            .collect();
        let mut got = (0..400).map(|_| queue.get().unwrap()).collect_vec();
        putting.into_iter().for_each(|putting| putting.join().unwrap());
        got.sort_unstable();
        assert!(got.into_iter().eq(0..400));
    });
}
