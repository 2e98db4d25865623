//! A credit that somebody waits for is never withheld, wherever the consumer sleeps.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use subfeed::pipeline::{Pipeline, Stage};
use subfeed::queue::{GetError, Inlet, Producer, Queue, inlet};
use subfeed::source::iterate_in_subprocess;
use subfeed::{BoxError, Error, FeedExt, Order, Template};

use crate::common::{Barrier, Dir, Pulled, eventually, numbers, within};

const WINDOWS: [usize; 8] = [1, 2, 7, 16, 64, 100, 1_000, 10_000];

fn cat() -> Template {
    Template::new("cat")
}

/// Puts as much as there is room for, in the inlet and in the window; then gets some and puts as many, on one
/// thread, again and again.
fn put_after_get<F, U>(mut queue: Queue<String, F>, room: usize, bursts: &[usize])
where
    F: Iterator<Item = U>,
    U: Into<Result<String, Error>>,
{
    let mut next = numbers(u64::MAX);
    let mut put = |queue: &Queue<String, F>| queue.put(next.next().unwrap()).unwrap();
    (0..room).for_each(|_| put(&queue));
    let mut expected = numbers(u64::MAX);
    for &burst in bursts {
        for _ in 0..burst.min(room) {
            let got: Result<String, Error> = queue.get().unwrap().into();
            assert_eq!(got.unwrap(), expected.next().unwrap());
        }
        (0..burst.min(room)).for_each(|_| put(&queue));
    }
}

const BURSTS: [usize; 9] = [1, 1, 1, 3, 20, 1, 5_000, 1, 1];

#[test]
fn after_j_gets_j_puts_to_subprocesses_do_not_block() {
    within(|| {
        for window in WINDOWS {
            let queue = Queue::new(window, |items: Inlet<String>| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec());
                let template =
                    cat().try_decode(move |reply| Ok::<_, BoxError>(text(reply.bytes())?));
                items.feed_subprocesses_ordered(template, 2, window)
            });
            put_after_get(queue, 2 * window, &BURSTS);
        }
    });
}

#[test]
fn after_j_gets_j_puts_to_threads_do_not_block() {
    within(|| {
        for window in WINDOWS {
            put_after_get(Queue::threads(Ok, 2, window), 2 * window, &BURSTS);
        }
    });
}

#[test]
fn after_j_gets_j_puts_to_a_pipeline_do_not_block() {
    within(|| {
        for window in [1, 16, 100, 1_000] {
            let stage = |name| Stage::new(name).workers(2).buffer(window);
            let queue = Queue::new(window, |items: Inlet<String>| {
                let stages = Pipeline::new(items).map(stage("same"), |item| item);
                let stages = stages.feed(stage("cat"), cat());
                stages.run().items().map(|reply| Ok(reply.unwrap().to_string()))
            });
            put_after_get(queue, 3 * window, &BURSTS);
        }
    });
}

/// Who waits for room in an inlet may be the consumer: its credit is not made to wait for others. A machine may be too
/// busy to show it once, not always.
#[test]
fn a_put_that_waits_for_room_has_it_at_once() {
    within(|| {
        let quickest = (0..100).map(|_| {
            let mut queue = Queue::threads(|n: u32| n, 2, 100);
            (0..200).for_each(|n| queue.put(n).unwrap());
            assert_eq!(queue.get(), Some(0));
            let start = Instant::now();
            queue.put(200).unwrap();
            start.elapsed()
        });
        assert!(quickest.min().unwrap() < Duration::from_millis(5));
    });
}

/// Follows up each result with two more tasks, until there are enough, on the thread that takes the results.
fn crawl<T>(
    producer: Producer<String>,
    room: usize,
    tasks: usize,
    mut results: impl Iterator<Item = T>,
) {
    (0..room).for_each(|_| producer.put("x".to_owned()).unwrap());
    let (mut put, mut got) = (room, 0);
    while results.next().is_some() {
        got += 1;
        // One takes the room of the result; another is tried, and would wait for results to be taken.
        if put < tasks {
            producer.put("x".to_owned()).unwrap();
            put += 1;
        }
        if put < tasks && producer.try_put("x".to_owned()).is_ok() {
            put += 1;
        }
        if got == tasks {
            producer.stop();
        }
    }
    assert_eq!(got, tasks);
}

#[test]
fn a_crawler_that_puts_follow_up_work_goes_on() {
    within(|| {
        for (window, order) in [(16, Order::Input), (100, Order::Completion), (500, Order::Input)] {
            let room = 10 + window;
            let (producer, items) = inlet(10);
            let feed = items.feed(cat()).workers(2).buffer(window).order(order);
            crawl(producer, room, 3 * room, feed.start());
            let (producer, items) = inlet(10);
            let feed = items.in_threads().workers(2).buffer(window).order(order);
            crawl(producer, room, 3 * room, feed.map(|task| task));
            let (producer, items) = inlet(10);
            let feed = items.feed(cat()).workers(2).buffer(window).order(order).keep_input();
            crawl(producer, room, 3 * room, feed.start());
        }
    });
}

#[test]
fn a_crawler_that_takes_blocks_goes_on() {
    within(|| {
        let (producer, items) = inlet(10);
        let blocks = items.feed(cat()).workers(2).buffer(100).blocks();
        (0..110).for_each(|_| producer.put("x").unwrap());
        let (mut put, mut got) = (110, 0);
        for block in blocks {
            let count = block.unwrap().len();
            got += count;
            for _ in 0..count.min(1_000 - put) {
                producer.put("x").unwrap();
                put += 1;
            }
            if got == 1_000 {
                producer.stop();
            }
        }
        assert_eq!(got, 1_000);
    });
}

/// The consumer waits in something that this crate knows nothing of.
#[test]
fn a_consumer_that_waits_in_a_channel_of_its_own_gets_its_credit() {
    fn lockstep<T, F: Iterator<Item = T>>(
        window: usize,
        feed: impl FnOnce(mpsc::IntoIter<String>) -> F,
    ) {
        let (sender, receiver) = mpsc::sync_channel(1);
        let mut feed = feed(receiver.into_iter());
        (0..=window).for_each(|_| sender.send("x".to_owned()).unwrap());
        for _ in 0..300 {
            assert!(feed.next().is_some());
            sender.send("x".to_owned()).unwrap();
        }
    }
    within(|| {
        for window in [1, 16, 100, 1_000] {
            lockstep(window, |items| items.feed_subprocesses_ordered(cat(), 2, window));
            lockstep(window, |items| items.feed_subprocesses(cat(), 2, window));
            lockstep(window, |items| items.feed_threads_ordered(|item| item, 2, window));
            lockstep(window, |items| {
                let first = items.feed_threads_ordered(|item| item, 2, window);
                first.feed_subprocesses_ordered(cat(), 2, 1)
            });
        }
    });
}

#[test]
fn the_window_is_used_in_full_however_few_outputs_have_been_taken() {
    within(|| {
        for window in WINDOWS {
            for taken in [1, 3, 87] {
                let pulled = Pulled::default();
                let mut feed = pulled.numbers().feed_subprocesses_ordered(cat(), 2, window);
                assert_eq!(feed.by_ref().take(taken).map(Result::unwrap).count(), taken);
                eventually("the window is used", || pulled.get() == (taken + window) as u64);
                let pulled = Pulled::default();
                let mut feed = pulled.numbers().feed_threads(|item| item, 2, window);
                assert_eq!(feed.by_ref().take(taken).count(), taken);
                eventually("the window is used", || pulled.get() == (taken + window) as u64);
            }
        }
    });
}

#[test]
fn the_window_of_a_command_is_used_in_full() {
    within(|| {
        let dir = Dir::new();
        // A record is more than a pipe holds, so that what the command has begun is known.
        let script =
            r#"n=0; while :; do n=$((n+1)); echo $n > "$N"; head -c 200000 /dev/zero; echo; done"#;
        let source = iterate_in_subprocess(Template::shell(script).env("N", dir.path("n")), 16);
        let mut records = source.iter();
        // One is in the pipe, and the command is at the next.
        let begun = || dir.read("n").trim().parse::<u64>().unwrap_or(0);
        eventually("the window is full", || begun() > 16);
        for taken in 1..=3 {
            assert_eq!(records.next().unwrap().unwrap().len(), 200_000);
            eventually("there is one more", || begun() > taken + 16);
        }
    });
}

#[test]
fn bytes_that_were_yielded_are_credit_too() {
    within(|| {
        let record = || "r".repeat(1_000);
        let mut queue = Queue::new(4, |items: Inlet<String>| {
            let feed = items.feed(cat()).workers(1).buffer(usize::MAX).max_bytes(10_000);
            feed.order(Order::Completion).start()
        });
        // Ten in the feed, four in the inlet.
        (0..14).for_each(|_| queue.put(record()).unwrap());
        for _ in 0..100 {
            assert_eq!(queue.get().unwrap().unwrap().len(), 1_000);
            queue.put(record()).unwrap();
        }
    });
}

/// A task may wait for a consumer that has seen an earlier value, and that consumer for room.
#[test]
fn a_task_that_does_not_return_withholds_no_credit() {
    within(|| {
        let barrier = Barrier::default();
        let slow = barrier.clone();
        let task = move |n: u64| {
            if n >= 40 {
                slow.pass();
            }
            n
        };
        let mut queue = Queue::threads(task, 2, 64);
        (0..128).for_each(|n| queue.put(n).unwrap());
        for n in 0..20 {
            assert_eq!(queue.get(), Some(n));
            queue.put(128 + n).unwrap();
        }
        barrier.open();
        queue.stop();
        assert!((20..148).all(|n| queue.get() == Some(n)));
        assert_eq!(queue.get(), None);
    });
}

#[test]
fn a_try_put_succeeds_in_the_end() {
    within(|| {
        let mut queue = Queue::subprocesses(cat(), 2, 100);
        let mut n = 0;
        while queue.put_timeout("x", Duration::from_millis(100)).is_ok() {
            n += 1;
        }
        assert_eq!(n, 200);
        assert_eq!(queue.get().unwrap().unwrap(), "x");
        eventually("there is room", || queue.try_put("x").is_ok());
        assert_ne!(queue.try_get().err(), Some(GetError::Ended));
    });
}

#[test]
fn a_block_that_is_kept_or_forgotten_holds_no_credit() {
    within(|| {
        for order in [Order::Input, Order::Completion] {
            let feed = numbers(5_000).feed(cat()).workers(2).buffer(10).max_bytes(100).order(order);
            let (mut count, mut kept) = (0, Vec::new());
            for block in feed.blocks() {
                let block = block.unwrap();
                count += block.len();
                match count % 2 {
                    0 => kept.push(block),
                    _ => std::mem::forget(block),
                }
            }
            assert_eq!(count, 5_000);
        }
    });
}
