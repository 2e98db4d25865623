//! Pools to call, and puts that wait without blocking.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;
use std::time::{Duration, Instant};

use subfeed::queue::{Stopped, inlet};
use subfeed::{BString, ErrorKind, FeedExt, Pool, Request, Template};

use crate::executors::{block_on, on_each, one_thread, two_threads};
use crate::trouble::{children, soon};

fn cat() -> Template {
    Template::new("cat")
}

/// A tool of which the process table shows whose it is.
fn marked(mark: &'static str) -> Template {
    Template::new("sh").args(["-c", "while read -r x; do echo $x; done", mark])
}

#[test]
fn each_call_has_its_own_answer() {
    on_each(|| async {
        let pool = Pool::new(cat(), 3, 20);
        let mut calls = Vec::new();
        for n in 0..500 {
            let pool = pool.clone();
            calls.push(smol::spawn(async move { (n, pool.call(n.to_string()).await) }));
        }
        for call in calls {
            let (n, reply) = call.await;
            assert_eq!(reply.unwrap(), n.to_string());
        }
        pool.close().await.unwrap();
    });
}

#[test]
fn threads_and_tasks_call_side_by_side() {
    let pool = Pool::new(cat(), 2, 4);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let pool = pool.clone();
            scope.spawn(move || {
                for n in 0..100 {
                    let text = format!("{thread} {n}");
                    assert_eq!(pool.call_blocking(text.clone()).unwrap(), text);
                }
            });
        }
        two_threads().block_on(async {
            for n in 0..100 {
                assert_eq!(pool.call(n.to_string()).await.unwrap(), n.to_string());
            }
        });
    });
}

#[test]
fn a_call_that_is_dropped_is_answered_and_forgotten() {
    let runtime = one_thread();
    runtime.block_on(async {
        let slow = Template::shell("while read -r x; do sleep 0.05; echo $x; done");
        let pool = Pool::new(slow, 1, 1);
        for n in 0..10 {
            // Some are with the worker by then, some wait in front of it, some for room.
            let limit = Duration::from_millis(5 * n);
            let _ = tokio::time::timeout(limit, pool.call(format!("dropped {n}"))).await;
            drop(pool.call("never polled".to_owned()));
        }
        assert_eq!(pool.call("kept".to_owned()).await.unwrap(), "kept");
        pool.close().await.unwrap();
    });
}

#[test]
fn calls_wait_for_room_and_no_more_than_the_buffer_are_asked() {
    on_each(|| async {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let silent = Template::shell("read -r x; sleep 1000").encode(
            move |text: &&str, request: &mut Request<'_>| {
                count.fetch_add(1, SeqCst);
                request.push(text);
            },
        );
        let pool = Pool::new(silent, 1, 3);
        let mut calls: Vec<_> = (0..20).map(|_| Box::pin(pool.call("x"))).collect();
        for call in &mut calls {
            assert!(poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await.is_pending());
        }
        soon("three are asked", || asked.load(SeqCst) == 3);
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(asked.load(SeqCst), 3);
    });
}

#[test]
fn nothing_is_started_before_a_call_and_idle_workers_end_and_come_back() {
    on_each(|| async {
        let pool = Pool::new(marked("idle-pool"), 2, 8).idle_after(Duration::from_millis(100));
        assert!(children("idle-pool").is_empty() && pool.monitor().is_none());
        for _ in 0..3 {
            assert_eq!(pool.call("x").await.unwrap(), "x");
            assert!(!children("idle-pool").is_empty());
            soon("idle workers end", || children("idle-pool").is_empty());
        }
        pool.close().await.unwrap();
    });
}

#[test]
fn calls_at_the_moment_of_the_idle_end_are_answered() {
    let pool = Pool::new(cat(), 1, 2).idle_after(Duration::from_millis(2));
    for n in 0..150 {
        assert_eq!(pool.call_blocking(n.to_string()).unwrap(), n.to_string());
        std::thread::sleep(Duration::from_micros(1_800 + n % 5 * 100));
    }
}

#[test]
fn a_pool_that_is_closed_answers_what_is_under_way_and_refuses_the_rest() {
    on_each(|| async {
        let pool = Pool::new(marked("closed-pool"), 2, 8);
        let mut early = Box::pin(pool.call("early"));
        assert!(poll_fn(|context| Poll::Ready(early.as_mut().poll(context))).await.is_pending());
        let (answered, closed) = smol::future::zip(early, pool.close()).await;
        assert_eq!(answered.unwrap(), "early");
        closed.unwrap();
        assert!(children("closed-pool").is_empty());
        let error = pool.call("late").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Halted);
        assert!(error.to_string().contains("closed"), "{error}");
        assert_eq!(pool.clone().call_blocking("late").unwrap_err().kind(), ErrorKind::Halted);
        pool.close().await.unwrap();
    });
}

#[test]
fn workers_end_with_the_last_handle_and_calls_under_way_are_answered() {
    let pool = Pool::new(marked("dropped-pool"), 2, 8);
    let call = pool.call("x");
    let other = pool.clone();
    assert_eq!(other.call_blocking("y").unwrap(), "y");
    drop((pool, other));
    assert_eq!(block_on(call).unwrap(), "x", "the call is a handle too");
    soon("the children end", || children("dropped-pool").is_empty());
}

#[test]
fn what_is_wrong_is_told_to_the_calls() {
    on_each(|| async {
        for pool in [Pool::new(cat(), 0, 8), Pool::new(cat(), 1, 0)] {
            for _ in 0..3 {
                assert_eq!(pool.call("x").await.unwrap_err().kind(), ErrorKind::Config);
            }
        }
        let pool = Pool::new(Template::new("no-such-program"), 2, 8);
        for _ in 0..3 {
            let error = pool.call("x").await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Spawn | ErrorKind::Halted), "{error}");
        }
        // An item error is one call's.
        let pool = Pool::new(cat(), 1, 8);
        assert_eq!(pool.call("a\nb").await.unwrap_err().kind(), ErrorKind::Encode);
        assert_eq!(pool.call("a").await.unwrap(), "a");
    });
}

#[test]
fn a_worker_that_dies_is_replaced_and_a_timeout_is_its_calls() {
    on_each(|| async {
        let tool = Template::shell(
            "while read -r x; do [ $x = die ] && exit 3; [ $x = hang ] && sleep 1000; echo $x; done",
        )
        .packet_timeout(Duration::from_millis(300))
        .retries(0);
        let pool = Pool::new(tool, 2, 8);
        assert_eq!(pool.call("a").await.unwrap(), "a");
        assert_eq!(pool.call("die").await.unwrap_err().kind(), ErrorKind::Died);
        assert_eq!(pool.call("b").await.unwrap(), "b");
        assert_eq!(pool.call("hang").await.unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(pool.call("c").await.unwrap(), "c");
    });
}

#[test]
fn a_reply_too_many_that_comes_while_nobody_calls_is_told_to_the_next_call() {
    let babbler = Template::shell("read -r x; echo $x; sleep 0.1; echo more; cat");
    let pool = Pool::new(babbler, 1, 8);
    assert_eq!(pool.call_blocking("x").unwrap(), "x");
    let monitor = pool.monitor().unwrap();
    soon("it is noticed", || {
        let _ = monitor.snapshot();
        pool.call_blocking("y").is_err_and(|error| error.is_fatal())
    });
    // And the pool goes on.
    assert_eq!(pool.call_blocking("z").unwrap(), "z");
}

#[test]
fn a_panic_comes_out_of_its_call_alone() {
    on_each(|| async {
        let encode = |text: &&str, request: &mut Request<'_>| {
            assert!(*text != "bad in", "encode panics");
            request.push(text);
        };
        let decode = |reply: subfeed::Reply<'_>| {
            assert!(&*reply != b"bad out", "decode panics");
            BString::from(&*reply)
        };
        let pool = Pool::new(cat().encode(encode).decode(decode), 2, 8);
        for text in ["bad in", "bad out"] {
            let mut call = pin!(pool.call(text));
            let mut good = pin!(pool.call("good"));
            let payload = poll_fn(|context| {
                match std::panic::catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context))) {
                    Ok(Poll::Pending) => Poll::Pending,
                    Ok(Poll::Ready(reply)) => panic!("{reply:?}"),
                    Err(payload) => Poll::Ready(payload),
                }
            })
            .await;
            assert!(payload.downcast_ref::<&str>().unwrap().ends_with("panics"));
            assert_eq!(good.as_mut().await.unwrap(), "good");
        }
        pool.close().await.unwrap();
    });
}

#[test]
fn a_health_request_is_asked_while_nobody_calls() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let pool = Pool::new(marked("healthy-pool"), 2, 8)
        .health_request(Duration::from_millis(20), move || {
            count.fetch_add(1, SeqCst);
            "well?".to_owned()
        })
        .idle_after(Duration::from_millis(400));
    assert_eq!(pool.call_blocking("x".to_owned()).unwrap(), "x");
    soon("it is asked, each worker", || asked.load(SeqCst) >= 6);
    // Which is no call.
    soon("idle workers end", || children("healthy-pool").is_empty());
    assert_eq!(pool.call_blocking("y".to_owned()).unwrap(), "y");
    block_on(pool.close()).unwrap();
}

#[test]
fn a_worker_that_fails_its_health_request_is_replaced_before_a_call() {
    // The first session answers one request and never again.
    let dir = std::env::temp_dir().join(format!("subfeed-health-{}", std::process::id()));
    let tool = "if [ -e \"$F\" ]; then cat; else : >\"$F\"; read -r x; echo $x; sleep 1000; fi";
    let template =
        Template::shell(tool).env("F", &dir).packet_timeout(Duration::from_millis(100)).retries(0);
    let pool =
        Pool::new(template, 1, 8).health_request(Duration::from_millis(20), || "well?".to_owned());
    assert_eq!(pool.call_blocking("x".to_owned()).unwrap(), "x");
    let monitor = pool.monitor().unwrap();
    soon("it is replaced", || monitor.snapshot().restarts > 0);
    assert_eq!(pool.call_blocking("y".to_owned()).unwrap(), "y");
    std::fs::remove_file(&dir).unwrap();
}

#[test]
fn puts_wait_their_turn_and_lose_nothing() {
    on_each(|| async {
        let (producer, items) = inlet(3);
        let mut tasks = Vec::new();
        for task in 0..20u32 {
            let producer = producer.clone();
            tasks.push(smol::spawn(async move {
                for n in 0..50 {
                    producer.put_async(task * 50 + n).await.unwrap();
                }
            }));
        }
        drop(producer);
        let collector = std::thread::spawn(|| items.collect::<Vec<u32>>());
        for task in tasks {
            task.await;
        }
        let all = collector.join().unwrap();
        assert_eq!(all.len(), 1_000);
        assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len(), 1_000);
    });
}

#[test]
fn a_put_that_is_dropped_passes_its_turn_on_and_one_too_late_has_its_item_back() {
    let (producer, mut items) = inlet(1);
    block_on(async {
        producer.put_async(0).await.unwrap();
        let mut second = Box::pin(producer.put_async(1));
        let mut third = Box::pin(producer.put_async(2));
        poll_fn(|context| {
            assert!(second.as_mut().poll(context).is_pending());
            assert!(third.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        assert_eq!(items.next(), Some(0));
        // It has been called, and goes.
        drop(second);
        third.await.unwrap();
        assert_eq!(items.next(), Some(2));
        producer.put_async(3).await.unwrap();
        let mut late = Box::pin(producer.put_async(4));
        assert!(poll_fn(|context| Poll::Ready(late.as_mut().poll(context))).await.is_pending());
        producer.stop();
        assert_eq!(late.await, Err(Stopped(4)));
        assert_eq!(items.next(), Some(3));
        assert_eq!(items.next(), None);
    });
}

#[test]
fn a_task_puts_into_a_feed_and_takes_out_of_it() {
    on_each(|| async {
        let (producer, items) = inlet(2);
        let mut feed = items.feed_subprocesses_ordered(cat(), 2, 4).into_stream();
        let put = async {
            for n in 0..300 {
                producer.put_async(n.to_string()).await.unwrap();
            }
            producer.stop();
        };
        let take = async {
            use smol::stream::StreamExt;
            for n in 0..300 {
                assert_eq!(feed.next().await.unwrap().unwrap(), n.to_string());
            }
            assert!(feed.next().await.is_none());
        };
        smol::future::zip(put, take).await;
    });
}

#[test]
fn no_poll_of_a_call_takes_long() {
    let pool = Pool::new(cat(), 2, 100);
    let begun = Instant::now();
    for n in 0..2_000 {
        assert_eq!(pool.call_blocking(n.to_string()).unwrap(), n.to_string());
    }
    println!("{:?} a call", begun.elapsed() / 2_000);
}
