//! Order, conservation, look-ahead, and how a stream goes.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;
use std::time::Duration;

use smol::stream::{self, Stream, StreamExt};
use subfeed::marker::Marked;
use subfeed::{BoxError, Error, ErrorKind, FeedExt, Order, StreamFeedExt, Template};

use crate::executors::{on_each, one_thread};

fn cat() -> Template {
    Template::new("cat")
}

fn numbers(n: usize) -> impl Iterator<Item = String> + Send + 'static {
    (0..n).map(|n| n.to_string())
}

#[test]
fn every_item_comes_in_order_from_an_iterator_and_from_a_stream() {
    on_each(|| async {
        let mut feed = numbers(3_000).feed_subprocesses_ordered(cat(), 3, 100).into_stream();
        let mut of_stream = stream::iter(numbers(3_000)).feed_subprocesses_ordered(cat(), 3, 100);
        assert_eq!(of_stream.size_hint(), (3_000, Some(3_000)));
        for n in 0..3_000 {
            assert_eq!(feed.next().await.unwrap().unwrap(), n.to_string());
            assert_eq!(of_stream.next().await.unwrap().unwrap(), n.to_string());
        }
        // For ever after, too.
        for _ in 0..3 {
            assert!(feed.next().await.is_none() && of_stream.next().await.is_none());
        }
        assert_eq!((feed.size_hint(), of_stream.size_hint()), ((0, Some(0)), (0, Some(0))));
        assert_eq!(of_stream.monitor().snapshot().yielded, 3_000);
    });
}

#[test]
fn nothing_is_lost_and_nothing_comes_twice_in_completion_order() {
    on_each(|| async {
        let all: Vec<usize> = stream::iter(numbers(2_000))
            .feed_subprocesses(cat(), 3, 64)
            .map(|reply| reply.unwrap().to_string().parse::<usize>().unwrap())
            .collect()
            .await;
        assert_eq!(all.len(), 2_000);
        assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len(), 2_000);
    });
}

#[test]
fn threads_are_a_stream_with_their_marks() {
    on_each(|| async {
        let entries =
            (0..500).map(|n| if n % 100 == 99 { Marked::Marker(n) } else { Marked::Item(n) });
        let squares = entries.in_threads().workers(2).buffer(30).map_marked(|n| n * n);
        let mut squares = squares.into_stream();
        for n in 0..500 {
            let expected = if n % 100 == 99 { Marked::Marker(n) } else { Marked::Item(n * n) };
            assert_eq!(squares.next().await, Some(expected));
        }
        assert_eq!(squares.next().await, None);
        squares.close().await;
    });
}

#[test]
fn inputs_and_marks_and_errors_of_the_source_keep_their_place() {
    on_each(|| async {
        let mut kept =
            stream::iter(numbers(50)).feed(cat()).workers(2).buffer(8).keep_input().start();
        for n in 0..50 {
            let (input, reply) = kept.next().await.unwrap().unwrap();
            assert_eq!((input, reply), (n.to_string(), n.to_string().into()));
        }
        let lines = (0..300).map(|n| match n % 3 {
            2 => Err(BoxError::from(n.to_string())),
            _ => Ok(n.to_string()),
        });
        let mut tried = stream::iter(lines).try_feed(cat()).workers(2).buffer(20).start();
        for n in 0..300 {
            let reply: Result<_, BoxError> = tried.next().await.unwrap();
            match n % 3 {
                2 => assert_eq!(reply.unwrap_err().to_string(), n.to_string()),
                _ => assert_eq!(reply.unwrap(), n.to_string()),
            }
        }
        assert!(tried.next().await.is_none());
        let entries = [Marked::Item("a"), Marked::Marker(1), Marked::Marker(2), Marked::Item("b")];
        let mut marked = stream::iter(entries).feed_marked(cat()).workers(1).buffer(2).start();
        assert_eq!(marked.next().await.unwrap().item().unwrap().unwrap(), "a");
        assert_eq!(marked.next().await.unwrap().marker(), Some(1));
        assert_eq!(marked.next().await.unwrap().marker(), Some(2));
        assert_eq!(marked.next().await.unwrap().item().unwrap().unwrap(), "b");
        assert!(marked.next().await.is_none());
    });
}

/// A source that panics if it is asked for an item too early, or at all after its end.
#[test]
fn input_k_plus_window_is_not_pulled_before_output_k() {
    for (window, order) in [(1, Order::Input), (7, Order::Input), (7, Order::Completion)] {
        on_each(|| async move {
            let yielded = Arc::new(AtomicUsize::new(0));
            let mut pulled = 0;
            let seen = Arc::clone(&yielded);
            let source = stream::poll_fn(move |_| {
                assert!(pulled <= 500, "polled after its end");
                let yielded = seen.load(SeqCst);
                assert!(pulled < yielded + window, "{pulled} pulled, {yielded} yielded");
                pulled += 1;
                Poll::Ready((pulled <= 500).then(|| pulled.to_string()))
            });
            let feed = source.feed(cat()).workers(2).buffer(window).order(order);
            // The very last look, which finds the end, is for a packet that is not there.
            let mut feed = feed.start();
            let mut all = Vec::new();
            while let Some(reply) = feed.next().await {
                all.push(reply.unwrap().to_string().parse::<usize>().unwrap());
                yielded.fetch_add(1, SeqCst);
            }
            all.sort_unstable();
            assert!(all.into_iter().eq(1..=500));
        });
    }
}

#[test]
fn the_bound_of_bytes_holds_for_a_stream_and_lets_everything_pass() {
    on_each(|| async {
        let lines = (0..40).map(|n| format!("{n:0>20000}"));
        let pulled = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&pulled);
        let lines = stream::iter(lines).inspect(move |_| _ = count.fetch_add(1, SeqCst));
        let mut feed = lines.feed(cat()).workers(2).max_bytes(50_000).start();
        for n in 0..40 {
            let reply = feed.next().await.unwrap().unwrap();
            assert_eq!(reply.to_string().parse::<usize>().unwrap(), n);
            // Three are over the bound, and the one that is yielded may still be held.
            assert!(pulled.load(SeqCst) <= n + 5, "{} at {n}", pulled.load(SeqCst));
        }
        assert!(feed.next().await.is_none());
    });
}

#[test]
fn room_that_comes_without_an_output_is_told_to_the_task() {
    on_each(|| async {
        // The requests are large and the replies are not, and the first comes late.
        let slow = Template::shell(
            "read -r x; sleep 0.3; echo ${#x}; while read -r x; do echo ${#x}; done",
        );
        let lines = (0..30).map(|_| "x".repeat(9_000));
        let mut feed = stream::iter(lines).feed(slow).workers(3).max_bytes(20_000).start();
        let mut n = 0;
        while let Some(reply) = feed.next().await {
            assert_eq!(reply.unwrap(), "9000");
            n += 1;
        }
        assert_eq!(n, 30);
    });
}

#[test]
fn a_source_that_has_nothing_holds_up_no_reply() {
    on_each(|| async {
        let source = stream::iter(numbers(3)).chain(stream::pending());
        let mut feed = source.feed_subprocesses_ordered(cat(), 2, 10);
        for n in 0..3 {
            assert_eq!(feed.next().await.unwrap().unwrap(), n.to_string());
        }
        assert!(poll_fn(|context| Poll::Ready(feed.poll_next(context))).await.is_pending());
        feed.close().await;
    });
}

#[test]
fn items_that_come_later_wake_the_task() {
    on_each(|| async {
        let (send, receive) = smol::channel::bounded(1);
        let producer = std::thread::spawn(move || {
            for n in 0..200 {
                send.send_blocking(n.to_string()).unwrap();
            }
        });
        let mut feed = Box::pin(receive).feed_subprocesses_ordered(cat(), 2, 5);
        for n in 0..200 {
            assert_eq!(feed.next().await.unwrap().unwrap(), n.to_string());
        }
        assert!(feed.next().await.is_none());
        producer.join().unwrap();
    });
}

#[test]
fn streams_can_be_stages_of_one_another() {
    on_each(|| async {
        let first = stream::iter(numbers(500)).feed_subprocesses_ordered(cat(), 2, 50);
        let second = first.try_feed(Template::new("rev")).workers(2).buffer(20).start();
        let all: Result<Vec<_>, Error> = second.collect::<Vec<_>>().await.into_iter().collect();
        let expected = (0..500).map(|n: u32| n.to_string().chars().rev().collect::<String>());
        assert!(all.unwrap().into_iter().map(|it| it.to_string()).eq(expected));
    });
}

#[test]
fn a_next_that_is_dropped_in_the_middle_of_select_loses_nothing() {
    let runtime = one_thread();
    runtime.block_on(async {
        let slow = Template::shell("while read -r x; do sleep 0.003; echo $x; done");
        let mut feed = stream::iter(numbers(100)).feed_subprocesses_ordered(slow, 1, 4);
        let mut left_early = 0;
        for n in 0..100 {
            let reply = loop {
                tokio::select! {
                    biased;
                    reply = feed.next() => break reply,
                    () = tokio::time::sleep(Duration::from_millis(1)) => left_early += 1,
                }
            };
            assert_eq!(reply.unwrap().unwrap(), n.to_string());
        }
        assert!(feed.next().await.is_none());
        assert!(left_early > 50, "only {left_early}");
    });
}

#[test]
fn a_timeout_around_a_next_leaves_the_item_for_the_next_poll() {
    let runtime = one_thread();
    runtime.block_on(async {
        let slow = Template::shell("read -r x; sleep 0.2; echo $x; cat");
        let mut feed = numbers(2).feed_subprocesses_ordered(slow, 1, 4).into_stream();
        let limit = Duration::from_millis(20);
        assert!(tokio::time::timeout(limit, feed.next()).await.is_err());
        assert_eq!(feed.next().await.unwrap().unwrap(), "0");
        assert_eq!(feed.next().await.unwrap().unwrap(), "1");
        assert!(feed.next().await.is_none());
    });
}

#[test]
fn a_packet_timeout_is_an_item_error_in_its_place() {
    on_each(|| async {
        let stuck = Template::shell("while read -r x; do [ $x = 1 ] && sleep 60; echo $x; done")
            .packet_timeout(Duration::from_millis(200))
            .retries(0);
        let mut feed = stream::iter(numbers(3)).feed_subprocesses_ordered(stuck, 1, 3);
        assert_eq!(feed.next().await.unwrap().unwrap(), "0");
        assert_eq!(feed.next().await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(feed.next().await.unwrap().unwrap(), "2");
        assert!(feed.next().await.is_none());
    });
}

#[test]
fn finish_tells_the_first_failure_of_what_is_left() {
    on_each(|| async {
        let feed = stream::iter(["a", "b\nc", "d"]).feed_subprocesses_ordered(cat(), 1, 8);
        assert_eq!(feed.finish().await.unwrap_err().kind(), ErrorKind::Encode);
        let feed = stream::iter(numbers(300)).feed_subprocesses_ordered(cat(), 1, 8);
        assert_eq!(feed.finish().await.unwrap().yielded, 300);
    });
}

#[test]
fn what_is_wrong_with_the_configuration_is_the_only_item() {
    on_each(|| async {
        let mut feed = stream::iter(numbers(3)).feed_subprocesses(cat(), 0, 8);
        let error = feed.next().await.unwrap().unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.is_fatal());
        assert!(feed.next().await.is_none());
        let none = Template::new("no-such-program");
        let silent = stream::poll_fn(|_| Poll::<Option<String>>::Pending);
        let mut feed = silent.feed_subprocesses(none, 1, 8);
        let error = feed.next().await.unwrap().unwrap_err();
        assert!(error.kind() == ErrorKind::Spawn && error.is_fatal(), "{error}");
        assert!(feed.next().await.is_none());
    });
}

#[test]
fn a_thousand_feeds_at_once_on_one_thread() {
    let runtime = one_thread();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..1_000)
            .map(|i| {
                tokio::spawn(async move {
                    let source = stream::iter((0..20).map(move |n| format!("{i} {n}")));
                    let mut feed = source.feed_subprocesses_ordered(cat(), 1, 5);
                    for n in 0..20 {
                        assert_eq!(feed.next().await.unwrap().unwrap(), format!("{i} {n}"));
                    }
                    assert!(feed.next().await.is_none());
                    feed.close().await;
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn only_the_source_stops_when_nobody_polls() {
    on_each(|| async {
        let dir = std::env::temp_dir();
        let path = dir.join(format!(
            "subfeed-async-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::write(&path, "").unwrap();
        let tool = Template::shell("while read -r x; do echo $x >> \"$LOG\"; echo $x; done")
            .env("LOG", &path);
        let pulled = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&pulled);
        let source = stream::poll_fn(move |_| {
            let n = count.fetch_add(1, SeqCst);
            Poll::Ready(Some(n.to_string()))
        });
        let mut feed = source.feed_subprocesses_ordered(tool, 1, 10);
        assert_eq!(feed.next().await.unwrap().unwrap(), "0");
        let pulled_then = pulled.load(SeqCst);
        // Nobody polls: everything that was pulled is dealt with all the same.
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while std::fs::read_to_string(&path).unwrap().lines().count() < pulled_then {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert_eq!(pulled.load(SeqCst), pulled_then);
        drop(feed);
        std::fs::remove_file(&path).unwrap();
    });
}

#[test]
fn what_is_raced_with_a_stream_that_never_ends_ends() {
    on_each(|| async {
        let never = stream::once(String::from("x")).chain(stream::pending());
        let mut feed = never.feed_subprocesses(cat(), 1, 4);
        assert!(feed.next().await.is_some());
        let race = smol::future::or(async { feed.next().await.is_some() }, async { false });
        assert!(!race.await);
    });
}
