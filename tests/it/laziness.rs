//! When the source is pulled, and when not: starting, look-ahead, the bound in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use subfeed::{ErrorKind, FeedExt, Order, Template};

use crate::common::{Barrier, Dir, Pulled, child, eventually, numbers, texts, within};

/// A source in the style of itertools' laziness tests: panics when it is pulled at all.
struct Untouchable;

impl Iterator for Untouchable {
    type Item = String;
    fn next(&mut self) -> Option<String> {
        panic!("pulled too early")
    }
}

/// Panics when an input is pulled that the window does not allow, given how many outputs have been
/// asked for.
fn watched(window: u64, asked: &Arc<AtomicU64>) -> impl Iterator<Item = String> + Send + 'static {
    let asked = Arc::clone(asked);
    (0u64..).map(move |k| {
        let asked = asked.load(SeqCst);
        assert!(k < asked.saturating_add(window), "input {k} was pulled before output {asked}");
        k.to_string()
    })
}

#[test]
fn a_builder_pulls_nothing() {
    within(|| {
        let builder = Untouchable.feed(Template::new("cat")).workers(3).buffer(9);
        let builder = builder.order(Order::Completion).max_bytes(1).keep_input();
        drop(format!("{builder:?}"));
    });
}

#[test]
fn a_feed_that_cannot_run_pulls_nothing() {
    within(|| {
        let mut feed = Untouchable.feed_subprocesses_ordered(Template::new("cat"), 0, 9);
        assert!(feed.next().unwrap().is_err() && feed.next().is_none());
        let mut feed = Untouchable.feed_subprocesses(Template::new("cat"), 9, 0);
        assert!(feed.next().unwrap().is_err() && feed.next().is_none());
    });
}

#[test]
fn pulling_begins_at_the_call_and_not_at_the_first_next() {
    within(|| {
        let pulled = Pulled::default();
        let _feed = pulled.numbers().feed_subprocesses_ordered(Template::new("cat"), 1, 5);
        eventually("five inputs are pulled", || pulled.get() == 5);
    });
}

#[test]
fn the_start_returns_at_once_although_the_source_and_the_workers_block() {
    within(|| {
        let (dir, gate) = (Dir::new(), Barrier::default());
        let wait = gate.clone();
        let source = numbers(3).inspect(move |_| wait.pass());
        let template = child("late").arg(dir.path("go"));
        let feed = source.feed_subprocesses_ordered(template, 2, 5);
        // Here: it has returned. Nothing has been let go yet.
        gate.open();
        dir.touch("go");
        assert_eq!(texts(feed), ["0", "1", "2"]);
    });
}

#[test]
fn input_k_plus_window_is_not_pulled_before_output_k() {
    within(|| {
        for window in [1, 2, 3, 7, 64] {
            for workers in [1, 3] {
                let asked = Arc::new(AtomicU64::new(0));
                let mut feed = watched(window, &asked).feed_subprocesses_ordered(
                    Template::new("cat"),
                    workers,
                    window as usize,
                );
                for k in 0..200 {
                    asked.fetch_add(1, SeqCst);
                    assert_eq!(feed.next().unwrap().unwrap(), k.to_string());
                }
            }
        }
    });
}

#[test]
fn the_window_spans_packet_ids_whatever_has_been_answered_behind_the_head() {
    within(|| {
        let (dir, pulled) = (Dir::new(), Pulled::default());
        for k in 1..8 {
            dir.touch(&k.to_string());
        }
        let template = child("when").arg(dir.path(""));
        let mut feed = pulled.numbers().feed_subprocesses_ordered(template, 4, 8);
        let monitor = feed.monitor();
        // Everything but the head, and what its worker holds behind it, is answered.
        eventually("the others are answered", || monitor.snapshot().replies >= 3);
        eventually("the window is full", || pulled.get() == 8);
        dir.touch("0");
        for k in 0..8 {
            assert_eq!(feed.next().unwrap().unwrap(), k.to_string());
            let pulled = pulled.get();
            assert!(pulled <= k + 1 + 8, "{pulled} pulled at output {k}");
        }
    });
}

#[test]
fn in_completion_order_at_most_a_window_is_pulled_and_not_yielded() {
    within(|| {
        for window in [1, 2, 3, 7, 64] {
            for workers in [1, 3] {
                let asked = Arc::new(AtomicU64::new(0));
                let mut feed = watched(window, &asked).feed_subprocesses(
                    Template::new("cat"),
                    workers,
                    window as usize,
                );
                for _ in 0..200 {
                    asked.fetch_add(1, SeqCst);
                    feed.next().unwrap().unwrap();
                }
            }
        }
    });
}

#[test]
fn in_completion_order_the_window_is_a_count_that_a_missing_head_does_not_close() {
    within(|| {
        let (dir, pulled) = (Dir::new(), Pulled::default());
        for k in 1..100 {
            dir.touch(&k.to_string());
        }
        let template = child("when").arg(dir.path(""));
        let mut feed = pulled.numbers().feed_subprocesses(template, 2, 4);
        // Packet 0 holds one worker, and the window goes on behind it.
        for _ in 0..40 {
            assert_ne!(feed.next().unwrap().unwrap(), "0");
        }
        assert!(pulled.get() > 40);
        dir.touch("0");
        eventually("the head comes too", || feed.next().unwrap().unwrap() == "0");
    });
}

#[test]
fn a_paused_consumer_stops_an_endless_input_and_a_running_one_uses_the_whole_window() {
    within(|| {
        let pulled = Pulled::default();
        let mut feed = pulled.numbers().feed_subprocesses_ordered(Template::new("cat"), 2, 6);
        for k in 0..20 {
            assert_eq!(feed.next().unwrap().unwrap(), k.to_string());
            eventually("the window is used", || pulled.get() == k + 1 + 6);
        }
        // Whatever comes now is too much; a short look cannot fail by being short.
        thread::sleep(Duration::from_millis(20));
        assert_eq!(pulled.get(), 26);
    });
}

#[test]
fn bytes_gate_the_pulling_too() {
    within(|| {
        let (dir, pulled) = (Dir::new(), Pulled::default());
        let records = std::iter::repeat_with(|| "r".repeat(999));
        let feed = pulled
            .count(records)
            .feed(child("late").arg(dir.path("go")))
            .workers(2)
            .buffer(1_000_000)
            .max_bytes(10_000)
            .start();
        eventually("the bytes are used", || pulled.get() == 10);
        thread::sleep(Duration::from_millis(20));
        assert_eq!(pulled.get(), 10);
        dir.touch("go");
        for reply in feed.take(100) {
            assert_eq!(reply.unwrap().len(), 999);
        }
    });
}

#[test]
fn what_is_held_stays_within_max_bytes_while_the_consumer_sleeps() {
    within(|| {
        const MOST: u64 = 100_000;
        let records = std::iter::repeat_with(|| "r".repeat(99));
        let mut feed = records
            .feed(Template::new("cat"))
            .workers(4)
            .buffer(usize::MAX)
            .max_bytes(MOST as usize)
            .start();
        let monitor = feed.monitor();
        for _ in 0..50 {
            for _ in 0..100 {
                feed.next().unwrap().unwrap();
            }
            thread::sleep(Duration::from_millis(1));
            let held = monitor.snapshot().held_bytes;
            // One read of a worker, and one record on its way in, may come on top.
            assert!(held <= MOST + (5 << 16), "{held} bytes held");
        }
    });
}

#[test]
fn replies_larger_than_requests_are_bounded_too() {
    within(|| {
        const MOST: u64 = 1 << 20;
        let pulled = Pulled::default();
        let feed = pulled
            .count(std::iter::repeat("100000"))
            .feed(child("bytes"))
            .workers(2)
            .buffer(100_000)
            .max_bytes(MOST as usize)
            .start();
        let monitor = feed.monitor();
        eventually("the bound is reached", || monitor.snapshot().held_bytes >= MOST);
        thread::sleep(Duration::from_millis(50));
        let held = monitor.snapshot().held_bytes;
        assert!(held <= MOST + 4 * 300_000, "{held} bytes held");
        for reply in feed.take(50) {
            assert_eq!(reply.unwrap().len(), 100_000);
        }
    });
}

/// The most memory that this process has had at a time, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn memory_stays_bounded_while_far_more_streams_through() {
    crate::alone!(|| {
        const RECORD: usize = 100_000;
        const N: u64 = 4_000;
        for order in [Order::Input, Order::Completion] {
            let (before, dir, pulled) = (peak(), Dir::new(), Pulled::default());
            // One worker sits on what it has got, so that whatever comes behind has to wait for it.
            let script =
                r#"if [ {id} -eq 0 ]; then until [ -e "$GO" ]; do sleep 0.01; done; fi; exec cat"#;
            let feed = pulled
                .count((0..N).map(|_| "r".repeat(RECORD)))
                .feed(Template::shell(script).env("GO", dir.path("go")))
                .workers(3)
                .buffer(usize::MAX)
                .max_bytes(4 << 20)
                .order(order)
                .start();
            let monitor = feed.monitor();
            eventually("the bound is reached", || monitor.snapshot().held_bytes >= 4 << 20);
            dir.touch("go");
            assert_eq!(
                feed.map(|reply| reply.unwrap().len()).filter(|len| *len == RECORD).count() as u64,
                N
            );
            // Of 400 MB: what is held, a read and a reply for each worker, and what the allocator keeps.
            let grown = peak() - before;
            assert!(grown < 48 << 20, "{order:?}: {grown} bytes for 4 MiB");
        }
    });
}

#[test]
fn what_errors_keep_of_their_packets_is_bounded_too() {
    within(|| {
        // Refused before they are sent, since they contain the delimiter; or refused by `check`.
        let refused = Template::new("cat").check(|_, _| Err("never right".into()));
        let refused = refused.give_up_after(u32::MAX).backoff(Duration::ZERO, Duration::ZERO);
        for (template, record, kind) in [
            (Template::new("cat"), "r\n".repeat(5_000), ErrorKind::Encode),
            (refused, "r".repeat(10_000), ErrorKind::Check),
        ] {
            for order in [Order::Input, Order::Completion] {
                let (pulled, record) = (Pulled::default(), record.clone());
                let mut feed = pulled
                    .count(std::iter::repeat(record))
                    .feed(template.clone())
                    .workers(2)
                    .buffer(1_000_000)
                    .max_bytes(100_000)
                    .order(order)
                    .start();
                let monitor = feed.monitor();
                eventually("the bound is reached", || {
                    monitor.snapshot().held_bytes >= 100_000 && monitor.snapshot().failed > 0
                });
                // A consumer sees every one of them, and makes room for more.
                for k in 0..30 {
                    let error = feed.next().unwrap().unwrap_err();
                    assert_eq!(error.kind(), kind, "{error}");
                    let pulled = pulled.get();
                    assert!(pulled <= k + 1 + 15, "{pulled} pulled at output {k}");
                }
            }
        }
    });
}

#[test]
fn a_record_larger_than_max_bytes_travels_alone() {
    within(|| {
        let pulled = Pulled::default();
        let records = (0..20).map(|k| format!("{k:0>5000}"));
        let mut feed = pulled
            .count(records)
            .feed(Template::new("cat"))
            .workers(3)
            .buffer(100)
            .max_bytes(1_000)
            .start();
        for k in 0..20 {
            assert_eq!(feed.next().unwrap().unwrap(), format!("{k:0>5000}"));
            let pulled = pulled.get();
            assert!(pulled <= k + 2, "{pulled} pulled at output {k}");
        }
        assert!(feed.next().is_none());
    });
}

#[test]
fn a_bound_of_no_bytes_at_all_still_lets_one_record_through_at_a_time() {
    within(|| {
        for order in [Order::Input, Order::Completion] {
            let feed = numbers(50).feed(Template::new("cat")).workers(3).max_bytes(0).order(order);
            assert_eq!(feed.start().map(Result::unwrap).count(), 50);
        }
    });
}

#[test]
fn a_window_of_usize_max_is_legal_and_costs_nothing() {
    within(|| {
        let ordered = numbers(5_000).feed_subprocesses_ordered(Template::new("cat"), 2, usize::MAX);
        assert_eq!(texts(ordered), numbers(5_000).collect::<Vec<_>>());
        let unordered = numbers(5_000).feed_subprocesses(Template::new("cat"), 2, usize::MAX);
        assert_eq!(unordered.map(Result::unwrap).count(), 5_000);
    });
}

#[test]
fn a_window_of_usize_max_over_an_endless_input_is_bounded_by_bytes() {
    within(|| {
        let (dir, pulled) = (Dir::new(), Pulled::default());
        let feed = pulled
            .count(std::iter::repeat("0123456"))
            .feed(child("late").arg(dir.path("go")))
            .workers(1)
            .buffer(usize::MAX)
            .max_bytes(8_000)
            .start();
        eventually("the bytes are used", || pulled.get() == 1_000);
        dir.touch("go");
        assert_eq!(feed.take(5_000).map(Result::unwrap).count(), 5_000);
    });
}

#[test]
fn the_first_reply_needs_one_worker_and_not_all() {
    within(|| {
        let (dir, gate) = (Dir::new(), Barrier::default());
        let wait = gate.clone();
        // The source blocks after its first item, as a terminal would.
        let source = numbers(3).enumerate().map(move |(k, item)| {
            if k > 0 {
                wait.pass();
            }
            item
        });
        let script =
            r#"if [ {id} -ne 0 ]; then until [ -e "$GO" ]; do sleep 0.01; done; fi; exec cat"#;
        let template = Template::shell(script).env("GO", dir.path("go"));
        let mut feed = source.feed_subprocesses_ordered(template, 8, 100);
        assert_eq!(feed.next().unwrap().unwrap(), "0");
        gate.open();
        dir.touch("go");
        assert_eq!(texts(feed), ["1", "2"]);
    });
}

#[test]
fn a_record_does_not_wait_for_company() {
    within(|| {
        // Each input is made only when the reply to the one before has been seen.
        let (sender, receiver) = std::sync::mpsc::channel::<String>();
        let mut feed = receiver.into_iter().feed_subprocesses_ordered(Template::new("cat"), 2, 100);
        for k in 0..50 {
            sender.send(k.to_string()).unwrap();
            assert_eq!(feed.next().unwrap().unwrap(), k.to_string());
        }
        drop(sender);
        assert!(feed.next().is_none());
    });
}

#[test]
fn a_slow_encode_holds_up_its_own_item_and_not_those_before() {
    within(|| {
        // Each item is encoded only when the reply to the one before has been seen.
        let seen = Arc::new(AtomicU64::new(0));
        let replies = Arc::clone(&seen);
        let template = Template::new("cat").encode(move |k: &u64, request| {
            while replies.load(SeqCst) < *k && *k < 200 {
                thread::yield_now();
            }
            request.push(k.to_string());
        });
        let mut feed = (0..).feed_subprocesses_ordered(template, 2, 1_000);
        for k in 0..200 {
            assert_eq!(feed.next().unwrap().unwrap(), k.to_string());
            seen.store(k + 1, SeqCst);
        }
    });
}

#[test]
fn an_endless_input_ends_with_take() {
    within(|| {
        let pulled = Pulled::default();
        let feed = pulled.numbers().feed_subprocesses_ordered(Template::new("cat"), 3, 10);
        assert_eq!(texts(feed.take(1_000)).len(), 1_000);
        assert!(pulled.get() <= 1_010);
    });
}
