//! What users of queues and feeders rely on.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::alone;
use crate::common::{
    A_MOMENT, Barrier, Belongings, DEADLINE, Dir, child, eventually, numbers, within,
};
use itertools::Itertools;
use rayon::ThreadPoolBuilder;
use subfeed::channel::Redirect;
use subfeed::marker::Marked;
use subfeed::queue::{Feeder, GetError, Inlet, NotYet, Queue, Stopped, Timed, TryPutError, inlet};
use subfeed::{BoxError, ErrorKind, FeedExt, FeedThreads, Template};

/// A queue whose tasks wait at a barrier.
fn held(barrier: &Barrier, buffer: usize) -> Queue<u32, FeedThreads<u32, u32>> {
    let barrier = barrier.clone();
    let task = move |n: u32| {
        barrier.pass();
        n
    };
    Queue::new(buffer, |items| items.in_threads().workers(2).buffer(buffer).map(task))
}

/// Puts until there is room neither in the inlet nor in the window.
fn fill(queue: &Queue<u32, FeedThreads<u32, u32>>, buffer: usize) {
    for n in 0..2 * buffer as u32 {
        queue.put_timeout(n, DEADLINE).unwrap();
    }
    assert_eq!(queue.put_timeout(99, A_MOMENT), Err(TryPutError::Full(99)));
}

#[test]
fn results_come_in_the_order_of_the_puts() {
    within(|| {
        let mut queue = Queue::threads(
            |n: u64| {
                thread::sleep(Duration::from_micros(n % 7 * 50));
                n
            },
            4,
            16,
        );
        let producer = queue.producer();
        let putting = thread::spawn(move || (0..500).for_each(|n| producer.put(n).unwrap()));
        assert!((0..500).all(|n| queue.get() == Some(n)));
        putting.join().unwrap();
        queue.stop();
        assert_eq!(queue.get(), None);
    });
}

#[test]
fn many_producers_lose_and_double_nothing_and_each_keeps_its_order() {
    within(|| {
        let mut queue = Queue::threads(|item: (usize, usize)| item, 3, 5);
        let producers: Vec<_> = (0..4)
            .map(|who| {
                let producer = queue.producer();
                thread::spawn(move || (0..200).for_each(|n| producer.put((who, n)).unwrap()))
            })
            .collect();
        let got: Vec<_> = (0..800).map(|_| queue.get().unwrap()).collect();
        for who in 0..4 {
            assert!(got.iter().filter(|item| item.0 == who).map(|item| item.1).eq(0..200));
        }
        producers.into_iter().for_each(|putting| putting.join().unwrap());
        queue.stop();
        assert_eq!(queue.get(), None);
    });
}

#[test]
fn requests_to_subprocesses_queue_too() {
    within(|| {
        let mut queue = Queue::subprocesses(Template::new("cat"), 2, 10);
        queue.put("a").unwrap();
        queue.put("b").unwrap();
        assert_eq!(queue.get().unwrap().unwrap(), "a");
        assert_eq!(queue.get_timeout(DEADLINE).unwrap().unwrap(), "b");
        assert_eq!(queue.try_get().err(), Some(GetError::NotYet));
        assert_eq!(queue.feed().monitor().snapshot().replies, 2);
        queue.stop();
        assert_eq!(queue.get_timeout(DEADLINE).err(), Some(GetError::Ended));
    });
}

#[test]
fn a_put_waits_for_room_and_a_get_makes_it() {
    within(|| {
        let barrier = Barrier::default();
        let mut queue = held(&barrier, 3);
        fill(&queue, 3);
        assert_eq!(queue.try_put(98), Err(TryPutError::Full(98)));
        let producer = queue.producer();
        let putting = thread::spawn(move || producer.put(6).unwrap());
        assert_eq!(queue.try_get(), Err(GetError::NotYet));
        assert_eq!(queue.get_timeout(A_MOMENT), Err(GetError::NotYet));
        barrier.open();
        assert!((0..7).all(|n| queue.get() == Some(n)));
        putting.join().unwrap();
    });
}

#[test]
fn a_put_after_stop_hands_its_item_back() {
    within(|| {
        let mut queue = Queue::threads(|n: u32| n, 2, 4);
        queue.put(1).unwrap();
        assert!(!queue.producer().is_stopped());
        queue.stop();
        assert!(queue.producer().is_stopped());
        assert_eq!(queue.put(2), Err(Stopped(2)));
        assert_eq!(queue.try_put(3), Err(TryPutError::Stopped(3)));
        assert_eq!(queue.producer().put_timeout(4, DEADLINE), Err(TryPutError::Stopped(4)));
        assert_eq!((queue.get(), queue.get()), (Some(1), None));
    });
}

#[test]
fn stop_frees_whoever_waits_for_room_and_never_blocks_itself() {
    within(|| {
        let barrier = Barrier::default();
        let mut queue = held(&barrier, 2);
        fill(&queue, 2);
        let waiting: Vec<_> = (100..103)
            .map(|n| {
                let producer = queue.producer();
                thread::spawn(move || producer.put(n))
            })
            .collect();
        thread::sleep(A_MOMENT); // so that most of them wait by then; it holds whenever they do
        queue.stop();
        queue.stop();
        for (n, put) in (100..).zip(waiting) {
            assert_eq!(put.join().unwrap(), Err(Stopped(n)));
        }
        barrier.open();
        assert!((0..4).all(|n| queue.get() == Some(n)));
        assert_eq!(queue.get(), None);
        queue.stop();
    });
}

#[test]
fn get_after_the_end_is_the_end_again() {
    within(|| {
        let mut queue = Queue::threads(|n: u32| n, 2, 4);
        queue.put(7).unwrap();
        queue.stop();
        assert_eq!(queue.get(), Some(7));
        for _ in 0..3 {
            assert_eq!(queue.get(), None);
            assert_eq!(queue.try_get(), Err(GetError::Ended));
            assert_eq!(queue.get_timeout(DEADLINE), Err(GetError::Ended));
        }
        assert!(!queue.is_alive());
    });
}

#[test]
fn join_before_the_results_are_read_ends_and_keeps_them() {
    within(|| {
        let mut queue = Queue::threads(|n: u32| vec![n; 25_000], 2, 4);
        (0..8).for_each(|n| queue.put(n).unwrap());
        queue.join();
        assert!(!queue.is_alive());
        assert_eq!(queue.put(9), Err(Stopped(9)));
        queue.join();
        assert!((0..8).all(|n| queue.get() == Some(vec![n; 25_000])));
        assert_eq!(queue.get(), None);
    });
}

#[test]
fn join_timeout_says_whether_the_workers_are_gone() {
    within(|| {
        let barrier = Barrier::default();
        let mut queue = held(&barrier, 2);
        (0..3).for_each(|n| queue.put(n).unwrap());
        assert!(!queue.join_timeout(A_MOMENT));
        assert!(queue.is_alive());
        barrier.open();
        assert!(queue.join_timeout(DEADLINE));
        assert!(!queue.is_alive() && queue.join_timeout(Duration::ZERO));
        assert!((0..3).all(|n| queue.get() == Some(n)));
    });
}

#[test]
fn join_keeps_a_panic_for_whoever_gets_to_it() {
    within(|| {
        let task = |n: u32| if n == 2 { panic_any("two") } else { n };
        let mut queue = Queue::threads(task, 2, 8);
        (0..5).for_each(|n| queue.put(n).unwrap());
        queue.join();
        assert_eq!((queue.get(), queue.get()), (Some(0), Some(1)));
        let payload = catch_unwind(AssertUnwindSafe(|| queue.get())).unwrap_err();
        assert_eq!(*payload.downcast_ref::<&str>().unwrap(), "two");
        assert_eq!((queue.get(), queue.is_alive()), (None, false));
    });
}

#[test]
fn failures_are_results_and_obey_the_window() {
    within(|| {
        // The first is slow, and many more fail than the window holds.
        let barrier = Barrier::default();
        let slow = barrier.clone();
        let task = move |n: u32| {
            if n == 0 {
                slow.pass();
                return Ok(n);
            }
            Err(n)
        };
        let mut queue =
            Queue::new(100, |items: Inlet<u32>| items.in_threads().workers(3).buffer(4).map(task));
        (0..50).for_each(|n| queue.put(n).unwrap());
        assert_eq!(queue.get_timeout(A_MOMENT), Err(GetError::NotYet));
        barrier.open();
        assert_eq!(queue.get(), Some(Ok(0)));
        assert!((1..50).all(|n| queue.get() == Some(Err(n))));
    });
}

#[test]
fn a_queue_whose_feed_has_ended_refuses_and_gives_back() {
    within(|| {
        let mut queue = Queue::new(10, |items: Inlet<String>| {
            items.feed_subprocesses_ordered(Template::new("/no/such/program"), 1, 2)
        });
        let mut put = 0;
        while queue.put(put.to_string()).is_ok() {
            put += 1;
            if queue.is_alive() && put > 5 {
                while queue.get().is_some() {}
            }
        }
        assert!(!queue.is_alive());
        // Whatever was not pulled is here, the oldest first.
        let back = queue.producer().take_back();
        let expected: Vec<_> = (put - back.len()..put).map(|n| n.to_string()).collect();
        assert_eq!(back, expected);
    });
}

#[test]
fn dropping_a_queue_or_its_feed_lets_go_of_everybody() {
    within(|| {
        let queue = Queue::threads(|n: u32| n, 2, 2);
        let producer = queue.producer();
        let putting = thread::spawn(move || (0..).find_map(|n| producer.put(n).err()));
        let start = Instant::now();
        drop(queue);
        assert!(putting.join().unwrap().is_some());

        // The intake of this one sleeps in the inlet, and is not left there.
        let (producer, items) = inlet::<u32>(1);
        let feed = items.feed_threads_ordered(|n| n, 2, 2);
        let last = feed.feed_threads_ordered(|n| n, 2, 2);
        drop(last);
        eventually("the inlet is left", || producer.is_stopped());
        assert!(start.elapsed() < DEADLINE);
    });
}

#[test]
fn the_loss_of_every_producer_is_the_end_of_an_inlet() {
    within(|| {
        let (producer, items) = inlet(4);
        let other = producer.clone();
        let mut feed = items.feed_threads_ordered(|n: u32| n, 2, 2);
        producer.put(1).unwrap();
        drop(producer);
        assert_eq!((feed.next(), feed.try_next()), (Some(1), Err(NotYet)));
        other.put(2).unwrap();
        drop(other);
        assert_eq!((feed.next(), feed.next(), feed.try_next()), (Some(2), None, Ok(None)));
    });
}

#[test]
fn an_inlet_is_no_more_than_its_capacity() {
    let (producer, mut items) = inlet(2);
    producer.try_put(1).unwrap();
    producer.try_put(2).unwrap();
    assert_eq!(producer.try_put(3), Err(TryPutError::Full(3)));
    assert_eq!(items.next(), Some(1));
    producer.try_put(3).unwrap();
    assert_eq!(producer.take_back(), [2, 3]);
    drop(items);
    assert_eq!(producer.try_put(4), Err(TryPutError::Stopped(4)));
    assert!(catch_unwind(|| drop(inlet::<u8>(0))).is_err());
    assert!(catch_unwind(|| drop(Queue::threads(|n: u8| n, 0, 1))).is_err());
}

#[test]
fn a_limit_beyond_the_end_of_time_is_none() {
    within(|| {
        let mut queue = Queue::threads(|n: u32| n, 1, 1);
        queue.put_timeout(1, Duration::MAX).unwrap();
        assert_eq!(queue.get_timeout(Duration::MAX), Ok(1));
        assert!(queue.join_timeout(Duration::MAX));
    });
}

#[test]
fn a_get_with_a_limit_on_a_thread_of_the_pool_does_the_work_itself() {
    within(|| {
        let only = Arc::new(ThreadPoolBuilder::new().num_threads(1).build().unwrap());
        let pool = Arc::clone(&only);
        only.install(move || {
            let mut queue = Queue::new(10, |items: Inlet<u32>| {
                items.in_threads().pool(&pool).workers(2).buffer(4).map(|n| n + 1)
            });
            (0..10).for_each(|n| queue.put(n).unwrap());
            assert!((1..11).all(|n| queue.get_timeout(DEADLINE) == Ok(n)));
        });
    });
}

// --------------------------------------------------------------------------------------------- feeders

#[test]
fn a_feeder_has_dealt_with_everything_when_it_is_finished() {
    alone!(|| {
        let dir = Dir::new();
        let before = Belongings::now();
        let template = Template::new("cat").stdout(Redirect::file(dir.path("{id}.out")));
        let feeder = Feeder::new(template, 3, 10);
        let others: Vec<_> = (0..3)
            .map(|_| {
                let producer = feeder.producer();
                thread::spawn(move || numbers(100).for_each(|n| producer.put(n).unwrap()))
            })
            .collect();
        numbers(100).for_each(|n| feeder.feed(n).unwrap());
        others.into_iter().for_each(|other| other.join().unwrap());
        let drained = feeder.finish().unwrap();
        before.restored();
        assert!(drained.all_ended_well(), "{drained:?}");
        assert_eq!(drained.accepted.iter().sum::<u64>(), 400);
        let all = (0..3).map(|id| dir.read(&format!("{id}.out"))).join("");
        let counts = all.lines().counts();
        assert!(counts.len() == 100 && counts.values().all(|count| *count == 4));
    });
}

#[test]
fn a_feeder_that_is_only_dropped_has_fed_and_reaped_all_the_same() {
    alone!(|| {
        let dir = Dir::new();
        let before = Belongings::now();
        let template = Template::new("cat").stdout(Redirect::file(dir.path("{id}.out")));
        {
            let feeder = Feeder::new(template, 1, 5);
            numbers(50).for_each(|n| feeder.feed(n).unwrap());
        }
        before.restored();
        assert_eq!(dir.read("0.out").lines().count(), 50);
    });
}

#[test]
fn a_panic_in_the_scope_of_a_feeder_ends_the_workers() {
    alone!(|| {
        let before = Belongings::now();
        let scope = || {
            let feeder = Feeder::new(Template::new("cat").stdout(Redirect::Null), 2, 1_000);
            numbers(10).for_each(|n| feeder.feed(n).unwrap());
            panic!("in the scope");
        };
        assert!(catch_unwind(scope).is_err());
        before.restored();
    });
}

#[test]
fn a_feeder_reports_the_exit_statuses() {
    within(|| {
        let template = Template::shell("cat >/dev/null; exit 3").stdout(Redirect::Null);
        let feeder = Feeder::new(template, 2, 10);
        numbers(10).for_each(|n| feeder.feed(n).unwrap());
        let drained = feeder.finish().unwrap();
        assert!(!drained.all_ended_well());
        assert!(drained.exits.iter().all(|exit| exit.status.unwrap().code() == Some(3)));
        assert_eq!(drained.accepted.iter().sum::<u64>(), 10);
    });
}

#[test]
fn a_feeder_whose_workers_die_does_not_hang_its_scope() {
    within(|| {
        let feeder = Feeder::new(child("exit_after 3 0"), 2, 10);
        let fed = numbers(100).take_while(|n| feeder.feed(n.clone()).is_ok()).count() as u64;
        let drained = feeder.finish().unwrap();
        let accounted = drained.accepted.iter().sum::<u64>() + drained.failed.len() as u64;
        assert_eq!(accounted, fed, "{drained:?}");
    });
}

#[test]
fn a_feeder_that_cannot_start_refuses_and_says_why() {
    within(|| {
        let feeder = Feeder::new(Template::new("/no/such/program"), 2, 3);
        let refused = (0..).find_map(|n: u32| feeder.feed(n.to_string()).err()).unwrap();
        assert!(refused.0.parse::<u32>().is_ok());
        assert_eq!(feeder.finish().unwrap_err().kind(), ErrorKind::Spawn);
        let feeder = Feeder::<String>::new(Template::new("cat"), 0, 3);
        assert_eq!(feeder.finish().unwrap_err().kind(), ErrorKind::Config);
    });
}

#[test]
fn a_feeder_with_options_of_its_own_and_a_panic_in_encode() {
    within(|| {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let template = Template::new("cat").encode(move |n: &u32, request| {
            count.fetch_add(1, SeqCst);
            assert_ne!(*n, 3, "a hook that panics");
            request.push(n.to_string());
        });
        let feeder = Feeder::with(4, |items| items.feed(template).workers(1).buffer(2).drain());
        let refused = (0..).find_map(|n| feeder.feed(n).err());
        assert!(refused.is_some() && calls.load(SeqCst) == 4);
        assert!(catch_unwind(AssertUnwindSafe(|| feeder.finish())).is_err());
    });
}

/// The end may reach the workers' event loop in the turn in which it writes the last items.
#[test]
fn a_short_input_is_drained_to_its_end_every_time() {
    within(|| {
        for n in 0..150 {
            let template = Template::new("cat").stdout(Redirect::Null);
            let drained = numbers(n % 12).feed(template).workers(2).drain().unwrap();
            assert_eq!(drained.accepted.iter().sum::<u64>(), n % 12);
        }
    });
}

// -------------------------------------------------------------------- from the tests and weaknesses of parallel-queue

/// Four tasks end in each of the 24 possible orders, on three workers, and the queue stops and
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
                items.in_threads().pool(&three).workers(3).buffer(4).map(move |n| {
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

/// A task's failure comes out where its result would have been, and says where it happened; the
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

/// 50 rounds of four puts and four gets through the smallest queues, while the ids wrap.
#[test]
fn fifty_rounds_while_the_ids_wrap() {
    within(|| {
        for buffer in [1, 2, 3] {
            let mut queue = Queue::new(2, |items: Inlet<u64>| {
                let feed = items.in_threads().workers(2).buffer(buffer);
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

type Task = Box<dyn FnOnce() -> u32 + Send>;

fn tasks(items: Inlet<Marked<Task, u32>>) -> FeedThreads<Task, Marked<u32, u32>> {
    items.in_threads().workers(2).buffer(4).map_marked(|task| task())
}

fn task(f: impl FnOnce() -> u32 + Send + 'static) -> Marked<Task, u32> {
    Marked::Item(Box::new(f))
}

/// Three callables, one with an argument, a marker. (What is neither does not compile.)
#[test]
fn callables_are_called_and_markers_pass_in_order() {
    within(|| {
        let mut queue = Queue::new(10, tasks);
        (1..4).for_each(|n| queue.put(task(move || n)).unwrap());
        queue.put(task(|| u32::from(4u8))).unwrap();
        queue.put(Marked::Marker(5)).unwrap();
        queue.stop();
        let got: Vec<_> = std::iter::from_fn(|| queue.get()).collect();
        let [one, two, three, four] = [1, 2, 3, 4].map(Marked::Item);
        assert_eq!(got, [one, two, three, four, Marked::Marker(5)]);
    });
}

/// No argument, one, several; a limit of a put is none of them.
#[test]
fn a_task_takes_what_is_put() {
    within(|| {
        let mut queue = Queue::threads(|()| 7, 2, 4);
        queue.put(()).unwrap();
        assert_eq!(queue.get(), Some(7));
        let mut queue = Queue::threads(|(timeout, n): (u32, u32)| timeout - n, 2, 4);
        queue.put_timeout((9, 2), DEADLINE).unwrap();
        assert_eq!(queue.get(), Some(7));
    });
}

/// In parallel-queue a worker that died took its packet along, and everything stood still.
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

/// There a lost wake-up cost five seconds; here, where nobody looks from time to time, it would hang.
#[test]
fn three_hundred_short_tasks_through_a_tiny_window_lose_no_wake_up() {
    within(|| {
        let task = |n: u64| {
            thread::sleep(Duration::from_micros(1_000 + n % 4 * 1_000));
            n
        };
        let mut queue = Queue::threads(task, 4, 2);
        let producer = queue.producer();
        let putting = thread::spawn(move || (0..300).for_each(|n| producer.put(n).unwrap()));
        assert!((0..300).all(|n| queue.get() == Some(n)));
        putting.join().unwrap();
    });
}

/// In parallel-queue what can be called could not be a marker.
#[test]
fn a_mark_may_be_a_function() {
    within(|| {
        let mut queue = Queue::new(4, |items: Inlet<Marked<u32, fn() -> u32>>| {
            items.in_threads().workers(2).map_marked(|n| n + 1)
        });
        queue.put(Marked::Item(1)).unwrap();
        queue.put(Marked::Marker(|| 42)).unwrap();
        assert_eq!(queue.get().unwrap().item(), Some(2));
        assert_eq!(queue.get().unwrap().marker().unwrap()(), 42);
    });
}
