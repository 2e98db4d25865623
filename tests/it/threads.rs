//! What users of maps in threads rely on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use itertools::{Itertools, izip};
use rayon::{ThreadPool, ThreadPoolBuilder};
use subfeed::queue::{NotYet, Timed, inlet};
use subfeed::{FeedExt, Order, Template};

use crate::alone;
use crate::common::{A_MOMENT, Barrier, Belongings, Pulled, eventually, numbers, soon, within};

fn pool(threads: usize) -> Arc<ThreadPool> {
    Arc::new(ThreadPoolBuilder::new().num_threads(threads).build().unwrap())
}

#[test]
fn values_come_in_input_order_whatever_their_tasks_take() {
    within(|| {
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
    });
}

#[test]
fn every_input_becomes_one_value_in_completion_order_too() {
    within(|| {
        for buffer in [1, 2, 7, usize::MAX] {
            let mut values: Vec<_> = (0..5_000u64).feed_threads(|n| n, 3, buffer).collect();
            values.sort_unstable();
            assert!(values.into_iter().eq(0..5_000));
        }
    });
}

#[test]
fn input_k_plus_window_is_not_pulled_before_output_k() {
    within(|| {
        for window in [1, 3, 20] {
            let pulled = Pulled::default();
            let mut feed = pulled.count(0u64..).feed_threads_ordered(|n| n, 2, window as usize);
            eventually("the window is full", || pulled.get() == window);
            for k in 0..100 {
                assert_eq!(feed.next(), Some(k));
                assert!(pulled.get() <= k + 1 + window);
            }
        }
    });
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
    within(|| {
        let only = pool(1);
        let feed = halting(50).in_threads().pool(&only).workers(2).buffer(4).map(|n| n * n);
        assert_eq!(only.install(move || feed.sum::<u64>()), (0..50).map(|n| n * n).sum::<u64>());
    });
}

#[test]
fn next_on_the_only_thread_of_the_pool_does_the_work_of_every_stage() {
    within(|| {
        let only = pool(1);
        let squares = halting(50).in_threads().pool(&only).workers(2).buffer(4).map(|n| n * n);
        let feed = squares.in_threads().pool(&only).workers(2).buffer(4).map(|n| n + 1);
        assert_eq!(
            only.install(move || feed.sum::<u64>()),
            (0..50).map(|n| n * n + 1).sum::<u64>()
        );
    });
}

#[test]
fn consumers_on_every_thread_of_the_pool_all_come_to_their_end() {
    within(|| {
        let two = pool(2);
        let sums = two.broadcast(|_| {
            let feed = (0..3_000u64).in_threads().pool(&two).workers(3).buffer(5).map(|n| n);
            feed.sum::<u64>()
        });
        assert_eq!(sums, [4_498_500; 2]);
    });
}

#[test]
fn a_value_is_not_withheld_by_the_task_that_comes_after_it() {
    within(|| {
        let one = pool(1);
        let (tell, told) = mpsc::channel::<()>();
        let told = Mutex::new(told);
        let feed = (0..1_000usize).in_threads().pool(&one).workers(1).buffer(1_000);
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
    });
}

#[test]
fn no_item_waits_behind_another_while_a_worker_is_free() {
    within(|| {
        let four = pool(4);
        let all = Arc::new(std::sync::Barrier::new(4));
        // Fast tasks teach the workers to take many at a time; then four must run together.
        let feed = (0..2_004usize).in_threads().pool(&four).workers(4).buffer(4_000);
        let count = feed
            .map(move |n| {
                if n >= 2_000 {
                    all.wait();
                }
            })
            .count();
        assert_eq!(count, 2_004);
    });
}

#[test]
fn a_panic_comes_out_at_its_position_with_its_payload_and_ends_the_feed() {
    within(|| {
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
    });
}

#[test]
fn a_panic_of_the_source_comes_out_after_what_it_gave() {
    within(|| {
        let source = (0..10).map(|n| if n == 5 { panic!("five") } else { n });
        let mut feed = source.feed_threads_ordered(|n| n, 2, 3);
        assert!((0..5).all(|n| feed.next() == Some(n)));
        assert!(catch_unwind(AssertUnwindSafe(|| feed.next())).is_err());
        assert_eq!(feed.next(), None);
    });
}

#[test]
fn no_more_than_n_run_at_a_time_and_each_worker_has_one_state() {
    within(|| {
        let (running, most, states) =
            (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let shared = Arc::new((running, most, states));
        let (in_init, in_map) = (Arc::clone(&shared), Arc::clone(&shared));
        let feed = (0..500).in_threads().pool(&pool(8)).workers(3).buffer(100);
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
    });
}

#[test]
fn the_size_hint_is_the_sources_less_what_was_yielded() {
    within(|| {
        let mut feed = (0..10).feed_threads_ordered(|n| n, 2, 4);
        for left in (0..10).rev() {
            assert!(feed.next().is_some());
            assert_eq!(feed.size_hint(), (left, Some(left)));
        }
        assert_eq!((feed.next(), feed.size_hint()), (None, (0, Some(0))));
    });
}

// ------------------------------------------------------------------------------------------- in scopes

#[test]
fn in_a_scope_everything_may_borrow() {
    within(|| {
        let words: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
        let lengths = Mutex::new(0);
        let seen: Vec<&str> = thread::scope(|scope| {
            let feed = words.iter().in_threads().workers(3).buffer(16).scoped(scope);
            let feed = feed.map(|word| {
                *lengths.lock().unwrap() += word.len();
                word.as_str()
            });
            feed.collect()
        });
        assert_eq!(seen, words);
        assert_eq!(lengths.into_inner().unwrap(), 10 + 90 * 2 + 900 * 3);
    });
}

#[test]
fn stages_in_one_scope_borrow_and_chain() {
    within(|| {
        let factor = 3;
        let sum: u64 = thread::scope(|scope| {
            let tripled = (0..500u64).in_threads().workers(2).buffer(4).scoped(scope);
            let tripled = tripled.map(|n| n * factor);
            let feed = tripled.in_threads().workers(2).buffer(4).order(Order::Completion);
            feed.scoped(scope).map(|n| n + factor).sum::<u64>()
        });
        assert_eq!(sum, (0..500).map(|n| n * 3 + 3).sum::<u64>());
    });
}

#[test]
fn a_scope_ends_when_its_feed_is_dropped_early() {
    within(|| {
        let pulled = AtomicUsize::new(0);
        thread::scope(|scope| {
            let source = (0..).inspect(|_| {
                pulled.fetch_add(1, SeqCst);
            });
            let feed = source.in_threads().workers(3).buffer(5).scoped(scope).map(|n| n);
            assert!(feed.take(7).eq(0..7));
        });
        assert!(pulled.load(SeqCst) <= 12);
    });
}

#[test]
fn a_panic_in_a_scope_comes_out_of_next_and_not_of_the_scope() {
    within(|| {
        thread::scope(|scope| {
            let feed = (0..100).in_threads().workers(4).buffer(10).scoped(scope);
            let mut feed = feed.map(|n| if n == 30 { panic!("thirty") } else { n });
            assert!((0..30).all(|n| feed.next() == Some(n)));
            let payload = catch_unwind(AssertUnwindSafe(|| feed.next())).unwrap_err();
            assert_eq!(*payload.downcast_ref::<&str>().unwrap(), "thirty");
            assert_eq!(feed.next(), None);
        });
    });
}

#[test]
fn a_scope_has_as_many_states_as_workers_at_most() {
    within(|| {
        let states = AtomicUsize::new(0);
        let sum: usize = thread::scope(|scope| {
            let feed = (0..300).in_threads().workers(3).buffer(30).scoped(scope);
            feed.map_init(|| states.fetch_add(1, SeqCst), |_, n| n).sum::<usize>()
        });
        assert_eq!(sum, 300 * 299 / 2);
        assert!((1..=3).contains(&states.load(SeqCst)));
    });
}

// --------------------------------------------------------------------------------- on blocked pools

#[test]
fn next_on_the_only_thread_of_the_pool_reaches_up_a_chain_with_a_subprocess_in_it() {
    within(|| {
        let only = pool(1);
        let text = halting(50).in_threads().pool(&only).workers(2).buffer(4);
        let cat = text.map(|n| n.to_string()).feed_subprocesses_ordered(Template::new("cat"), 1, 4);
        let feed = cat.in_threads().pool(&only).workers(2).buffer(4);
        let feed = feed.map(|reply| reply.unwrap().to_string().parse::<u64>().unwrap());
        assert_eq!(only.install(move || feed.sum::<u64>()), (0..50).sum::<u64>());
    });
}

#[test]
fn consumers_on_every_thread_of_the_pool_help_chains_of_three_in_either_order() {
    within(|| {
        for order in [Order::Input, Order::Completion] {
            let two = pool(2);
            let sums = two.broadcast(|_| {
                let stage = |n: u64| n + 1;
                let first = (0..300).in_threads().pool(&two).workers(3).buffer(5).order(order);
                let second =
                    first.map(stage).in_threads().pool(&two).workers(1).buffer(2).order(order);
                let third =
                    second.map(stage).in_threads().pool(&two).workers(3).buffer(3).order(order);
                third.map(stage).sum::<u64>()
            });
            assert_eq!(sums, [(3..303).sum::<u64>(); 2]);
        }
    });
}

#[test]
fn a_consumer_never_does_the_work_of_a_feed_that_it_does_not_wait_for() {
    within(|| {
        let only = pool(1);
        let same = Arc::clone(&only);
        let here = Arc::new(Mutex::new(Vec::new()));
        let there = Arc::clone(&here);
        // Its one task may only run when the consumer below has come to its end.
        let (done, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let work = halting(20).in_threads().pool(&only).workers(1).buffer(2).map(|n| n);
        let (sum, other) = only.install(move || {
            let other = (0..1).in_threads().workers(1).buffer(1);
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
    });
}

#[test]
fn a_feed_outlives_every_other_handle_to_its_pool() {
    within(|| {
        let two = pool(2);
        let feed = halting(100).in_threads().pool(&two).workers(2).buffer(4).map(|n| n);
        drop(two);
        assert_eq!(feed.sum::<u64>(), 4_950);
    });
}

// -------------------------------------------------------------------- from the tests and weaknesses of stream_executors

/// A map over an infinite input that nobody looks at, dropped at once, in threads and in
/// processes, with a large buffer and with the smallest.
#[test]
fn a_feed_that_nobody_looks_at_can_be_dropped_at_once() {
    within(|| {
        for buffer in [10, 10, 1] {
            let slow = (0u64..).inspect(|_| thread::sleep(Duration::from_millis(5)));
            drop(slow.feed_threads_ordered(|n| n, 2, buffer));
            let slow = (0u64..).inspect(|_| thread::sleep(Duration::from_millis(5)));
            let slow = slow.map(|n| n.to_string());
            drop(slow.feed_subprocesses_ordered(Template::new("cat"), 2, buffer));
        }
        thread::scope(|scope| {
            drop((0..).in_threads().workers(2).buffer(1).scoped(scope).map(|n: u64| n));
        });
    });
}

/// The call returns at once, work goes on while the caller is elsewhere, two tasks run at a time,
/// the order is that of the input. There by the clock; here two tasks meet, which needs two workers.
#[test]
fn work_goes_on_while_nobody_looks_and_two_tasks_run_at_a_time() {
    within(|| {
        let two = pool(2);
        let meeting = Arc::new(std::sync::Barrier::new(2));
        let done = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&done);
        let feed = (0..20).in_threads().pool(&two).workers(2).buffer(20).map(move |n: u32| {
            meeting.wait();
            count.fetch_add(1, SeqCst);
            n
        });
        eventually("all is done while nobody looks", || done.load(SeqCst) == 20);
        assert!(feed.eq(0..20));
    });
}

/// Ten workers on an infinite input; a consumer that stops in the middle and goes on; one that
/// comes when everything is there.
#[test]
fn a_consumer_that_stops_in_the_middle_goes_on_where_it_was() {
    within(|| {
        let ten = pool(10);
        let meeting = Arc::new(std::sync::Barrier::new(10));
        let (producer, items) = inlet(100);
        let mut feed = items.in_threads().pool(&ten).workers(10).buffer(30).map(move |n| {
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

/// A program that ends in the middle of a map over an infinite input must end.
#[test]
fn a_panic_of_the_consumer_ends_the_intake() {
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

/// Left alone they pull 2, 4 and 6 inputs. (There with a buffer of 1, which
/// holds one more than it says.) One pool serves all of them.
#[test]
fn three_stages_on_one_pool_pull_2_4_6() {
    within(|| {
        let one = pool(1);
        let pulled: [Pulled; 3] = std::array::from_fn(|_| Pulled::default());
        let stage = |n: u64| n + 1;
        let first = pulled[0].count(0u64..).in_threads().pool(&one).workers(2).buffer(2);
        let first = pulled[1].count(first.map(stage));
        let second = first.in_threads().pool(&one).workers(2).buffer(2).map(stage);
        let second = pulled[2].count(second);
        let mut third = second.in_threads().pool(&one).workers(2).buffer(2).map(stage);
        let now = || pulled.each_ref().map(Pulled::get);
        eventually("all windows are full", || now() == [6, 4, 2]);
        assert_eq!(third.next(), Some(3));
        eventually("each has pulled one more", || now() == [7, 5, 3]);
    });
}

/// Several iterables: one element of each for each call, until the shortest ends. None at all called the
/// function for ever; here there is always one.
#[test]
fn several_inputs_are_zipped() {
    within(|| {
        let feed = izip!(0.., [10, 20, 30], 100..).in_threads().workers(2);
        let sums: Vec<i32> = feed.map(|(a, b, c)| a + b + c).collect();
        assert_eq!(sums, [110, 122, 134]);
        let none = std::iter::empty::<(i32, i32)>().feed_threads_ordered(|(a, b)| a + b, 2, 2);
        assert_eq!(none.count(), 0);
    });
}

/// In stream_executors `next()` after the end hung for ever.
#[test]
fn the_end_stays_the_end() {
    within(|| {
        for order in [Order::Input, Order::Completion] {
            let mut feed = (0..3).in_threads().workers(2).order(order).map(|n| n);
            assert_eq!(feed.by_ref().count(), 3);
            assert!((0..5).all(|_| feed.next().is_none()));
        }
    });
}

/// In stream_executors after an error iteration went on or hung, depending on the time.
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

/// In stream_executors the limit of time did not count while a slow input was waited for.
#[test]
fn a_limit_of_time_holds_while_the_input_is_waited_for() {
    within(|| {
        let barrier = Barrier::default();
        let slow = barrier.clone();
        let source = (0..2).inspect(move |_| slow.pass());
        let mut feed = source.feed_threads_ordered(|n| n, 2, 10);
        assert_eq!(feed.next_timeout(A_MOMENT), Err(NotYet));
        barrier.open();
        assert!(feed.eq(0..2));
    });
}

/// In stream_executors a map made by a thread that has ended hung its consumer.
#[test]
fn a_feed_does_not_care_who_made_it() {
    within(|| {
        let make = || (0..100u64).feed_threads_ordered(|n| n, 2, 1);
        let feed = thread::spawn(make).join().unwrap();
        assert!(feed.eq(0..100));
    });
}

/// In stream_executors a function that raised StopIteration ended the stream without a word: nothing that a task
/// returns is taken for the end.
#[test]
fn nothing_that_a_task_returns_is_taken_for_the_end() {
    within(|| {
        let feed = (0..4).feed_threads_ordered(|n| (n % 2 == 0).then_some(n), 2, 4);
        assert_eq!(feed.collect_vec(), [Some(0), None, Some(2), None]);
    });
}

/// In stream_executors with the source stuck in its `next()` the program could not end, nor the map be dropped.
#[test]
fn a_source_that_is_stuck_holds_up_nobody() {
    within(|| {
        let barrier = Barrier::default();
        let stuck = barrier.clone();
        let feed = (0..).inspect(move |_: &u32| stuck.pass()).feed_threads_ordered(|n| n, 2, 10);
        soon(|| drop(feed));
        barrier.open();
    });
}

/// In stream_executors one more task ran after the map was cancelled.
#[test]
fn nothing_is_begun_after_the_drop() {
    within(|| {
        let one = pool(1);
        let begun = Arc::new(Mutex::new(Vec::new()));
        let (barrier, seen) = (Barrier::default(), Arc::clone(&begun));
        let held = barrier.clone();
        let pulled = Pulled::default();
        let feed = pulled.count(0..).in_threads().pool(&one).workers(1).map(move |n| {
            seen.lock().unwrap().push(n);
            held.pass();
        });
        eventually("the first is begun", || !begun.lock().unwrap().is_empty());
        drop(feed);
        let then = pulled.get();
        barrier.open();
        // Whatever the pool's one thread still had to do for the feed comes before this.
        let (tell, told) = mpsc::channel();
        one.spawn_fifo(move || tell.send(()).unwrap());
        told.recv().unwrap();
        assert_eq!(*begun.lock().unwrap(), [0]);
        assert_eq!(pulled.get(), then, "pulled after the drop");
    });
}

/// In stream_executors a chunk larger than the buffer was an obscure error, an error lost its whole chunk, and a
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
    within(|| {
        for (workers, buffer) in [(0, 1), (1, 0)] {
            let call = || numbers(3).in_threads().workers(workers).buffer(buffer).map(|n| n);
            let payload = catch_unwind(|| drop(call())).unwrap_err();
            let said = payload.downcast_ref::<&str>().unwrap();
            assert!(said.contains("is 0"), "{said}");
            let scoped = || {
                thread::scope(|scope| {
                    let feed = numbers(3).in_threads().workers(workers).buffer(buffer);
                    drop(feed.scoped(scope).map(|n| n));
                });
            };
            assert!(catch_unwind(scoped).is_err());
        }
    });
}

/// Bad input: a worker's state whose making panics has a position, and is made again.
#[test]
fn a_hook_that_panics_ends_the_feed_at_its_item() {
    within(|| {
        let feed = (0..10).in_threads().workers(2).buffer(4);
        let mut feed = feed.map_init(|| panic!("hook"), |(): &mut (), n: u32| n);
        assert!(catch_unwind(AssertUnwindSafe(|| feed.next())).is_err());
        assert_eq!(feed.next(), None);
    });
}

/// Ids around the wrap are the window's affair and never seen:
/// every start near the end of the numbers gives the same stream.
#[test]
fn every_start_near_the_wrap_gives_the_same_stream() {
    within(|| {
        for before in 0..12 {
            let feed = (0..40u64).in_threads().workers(3).buffer(5);
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
