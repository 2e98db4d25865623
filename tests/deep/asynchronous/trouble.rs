//! What may go wrong around a stream: runtimes that go, tasks that are dropped, wakers that panic.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use smol::stream::{self, Stream, StreamExt};
use subfeed::{FeedExt, FeedStream, StreamFeedExt, Template};

use crate::executors::{block_on, on_each, one_thread, two_threads};

fn cat() -> Template {
    Template::new("cat")
}

fn endless() -> impl Stream<Item = String> + Send + Unpin + 'static {
    let mut n = 0u64;
    stream::poll_fn(move |_| {
        n += 1;
        Poll::Ready(Some(n.to_string()))
    })
}

/// Children of this process that are called like this.
pub(crate) fn children(called: &str) -> BTreeSet<u32> {
    let mut all = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((before, after)) = stat.rsplit_once(')') else { continue };
        let parent = after.split_whitespace().nth(1).and_then(|word| word.parse::<u32>().ok());
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let is_called =
            String::from_utf8_lossy(&command).contains(called) || before.ends_with(called);
        if parent == Some(std::process::id()) && is_called {
            all.insert(pid);
        }
    }
    all
}

/// Waits for something that need not be so at once, but soon.
pub(crate) fn soon(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A tool of which the process table shows whose it is.
fn marked(mark: &'static str) -> Template {
    Template::new("sh").args(["-c", "while read -r x; do echo $x; done", mark])
}

#[test]
fn after_close_nothing_is_left_and_after_a_drop_nothing_soon() {
    on_each(|| async {
        let mut closed = endless().feed_subprocesses(marked("closed-one"), 3, 20);
        let mut of_iterator = (0u64..)
            .map(|n| n.to_string())
            .feed_subprocesses(marked("closed-two"), 3, 20)
            .into_stream();
        let mut dropped = endless().feed_subprocesses(marked("dropped-one"), 3, 20);
        for _ in 0..50 {
            assert!(closed.next().await.is_some() && of_iterator.next().await.is_some());
            assert!(dropped.next().await.is_some());
        }
        assert!(!children("closed-one").is_empty() && !children("dropped-one").is_empty());
        closed.close().await;
        assert!(children("closed-one").is_empty());
        of_iterator.close().await;
        assert!(children("closed-two").is_empty());
        drop(dropped);
        soon("the children of a dropped feed end", || children("dropped-one").is_empty());
    });
}

#[test]
fn close_is_bounded_whatever_the_children_do() {
    on_each(|| async {
        let deaf = Template::new("sh").args(["-c", "trap '' TERM; sleep 1000 & wait", "deaf-one"]);
        let mut feed = endless().feed_subprocesses(deaf, 2, 20);
        assert!(poll_fn(|context| Poll::Ready(feed.poll_next(context))).await.is_pending());
        soon("it starts", || !children("deaf-one").is_empty());
        let begun = Instant::now();
        feed.close().await;
        assert!(children("deaf-one").is_empty());
        println!("closed after {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn a_close_that_is_dropped_is_a_drop() {
    let runtime = one_thread();
    runtime.block_on(async {
        let deaf =
            Template::new("sh").args(["-c", "trap '' TERM; sleep 1000 & wait", "half-closed"]);
        let feed = endless().feed_subprocesses(deaf, 2, 20);
        soon("it starts", || !children("half-closed").is_empty());
        let close = tokio::time::timeout(Duration::from_millis(1), feed.close());
        assert!(close.await.is_err());
    });
    soon("the children end", || children("half-closed").is_empty());
}

#[test]
fn a_runtime_that_is_shut_down_ends_the_feeds_of_its_tasks() {
    for flavour in [one_thread, two_threads] {
        let runtime = flavour();
        let (begun, is_begun) = std::sync::mpsc::channel();
        let _task = runtime.spawn(async move {
            let mut feed = endless().feed_subprocesses(marked("shut-down"), 2, 20);
            assert!(feed.next().await.is_some());
            begun.send(()).unwrap();
            while feed.next().await.is_some() {
                tokio::task::yield_now().await;
            }
        });
        runtime.block_on(async {
            while is_begun.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
        });
        assert!(!children("shut-down").is_empty());
        drop(runtime);
        soon("the children end", || children("shut-down").is_empty());
    }
}

#[test]
fn a_feed_outlives_the_runtime_it_was_polled_on_and_moves_to_another() {
    let mut feed = endless().feed_subprocesses_ordered(cat(), 2, 10);
    let mut expected = 0;
    for round in 0..6 {
        // A poll in vain first, so that a waker of a runtime that is gone is left behind.
        let mut take = async |feed: &mut FeedStream<_>| {
            let _ = poll_fn(|context| Poll::Ready(Pin::new(&mut *feed).poll_next(context)))
                .await
                .map(|reply: Option<Result<subfeed::BString, _>>| {
                    expected += 1;
                    assert_eq!(reply.unwrap().unwrap(), expected.to_string());
                });
            for _ in 0..25 {
                expected += 1;
                assert_eq!(feed.next().await.unwrap().unwrap(), expected.to_string());
            }
        };
        match round % 3 {
            0 => one_thread().block_on(take(&mut feed)),
            1 => two_threads().block_on(take(&mut feed)),
            _ => smol::block_on(take(&mut feed)),
        }
    }
    block_on(feed.close());
}

struct Hostile(AtomicUsize);

impl Wake for Hostile {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
        panic!("a waker that panics");
    }
}

#[test]
fn a_waker_that_panics_harms_nobody() {
    let hostile = Arc::new(Hostile(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&hostile));
    let (send, receive) = smol::channel::bounded(1);
    let mut feed = Box::pin(receive).feed_subprocesses_ordered(cat(), 1, 4);
    let mut threads = std::iter::once(7)
        .feed_threads(
            |n| {
                std::thread::sleep(Duration::from_millis(30));
                n
            },
            1,
            1,
        )
        .into_stream();
    assert!(Pin::new(&mut threads).poll_next(&mut Context::from_waker(&waker)).is_pending());
    send.try_send("x".to_owned()).unwrap();
    assert!(Pin::new(&mut feed).poll_next(&mut Context::from_waker(&waker)).is_pending());
    soon("it is woken", || hostile.0.load(SeqCst) >= 2);
    // And nothing is lost by it.
    assert_eq!(block_on(feed.next()).unwrap().unwrap(), "x");
    assert_eq!(block_on(threads.next()), Some(7));
    drop(send);
    assert!(block_on(feed.next()).is_none());
}

/// A task whose last handle is its waker: it goes, with its feed, on whichever thread wakes it or forgets it.
#[test]
fn a_feed_that_goes_with_its_waker_goes_without_a_deadlock() {
    struct Task(
        #[allow(dead_code, reason = "it goes with its waker")]
        std::sync::Mutex<Option<Box<dyn Send>>>,
    );
    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }
    for _ in 0..20 {
        let task = Arc::new(Task(std::sync::Mutex::new(None)));
        let mut feed = (0..)
            .map(|n: u64| n.to_string())
            .feed_subprocesses(marked("with-its-waker"), 1, 10)
            .into_stream();
        let waker = Waker::from(Arc::clone(&task));
        loop {
            if Pin::new(&mut feed).poll_next(&mut Context::from_waker(&waker)).is_pending() {
                break;
            }
        }
        *task.0.lock().unwrap() = Some(Box::new(feed));
        drop((task, waker));
    }
    soon("the children end", || children("with-its-waker").is_empty());
}

#[test]
fn panics_come_out_of_a_poll_in_their_place_and_end_the_stream() {
    on_each(|| async {
        let mut n = 0;
        let source = stream::poll_fn(move |_| {
            n += 1;
            assert!(n < 4, "the fourth");
            Poll::Ready(Some(n.to_string()))
        });
        let mut feed = source.feed_subprocesses_ordered(cat(), 2, 10);
        for n in 1..4 {
            assert_eq!(feed.next().await.unwrap().unwrap(), n.to_string());
        }
        let panic =
            poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| feed.poll_next(context))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(item)) => Poll::Ready(Ok(item)),
                Err(payload) => Poll::Ready(Err(payload)),
            });
        assert!(panic.await.unwrap_err().downcast_ref::<&str>().unwrap().contains("the fourth"));
        assert!(feed.next().await.is_none() && feed.next().await.is_none());

        let encode = |n: &u32, request: &mut subfeed::Request<'_>| {
            assert!(*n != 2, "the second");
            request.push_display(n);
        };
        let mut feed = stream::iter(1..10u32).feed_subprocesses_ordered(cat().encode(encode), 1, 5);
        assert_eq!(feed.next().await.unwrap().unwrap(), "1");
        let panic =
            poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| feed.poll_next(context))) {
                Ok(Poll::Pending) => Poll::Pending,
                other => Poll::Ready(other.map(drop)),
            });
        assert!(panic.await.is_err());
        assert!(feed.next().await.is_none());
    });
}
