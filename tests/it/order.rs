//! Both orders, the input beside its reply, batches, ids that wrap, and random feeds of `cat`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use subfeed::framing::ReplyFraming;
use subfeed::{FeedExt, Order, Template};

use crate::common::{Dir, child, halves, numbers, texts, within};

#[test]
fn replies_come_in_input_order_whatever_order_they_are_made_in() {
    within(|| {
        let dir = Dir::new();
        let template = child("when").arg(dir.path(""));
        let mut feed = numbers(4).feed_subprocesses_ordered(template, 4, 4);
        for k in [3, 2, 1, 0] {
            dir.touch(&k.to_string());
        }
        for k in 0..4 {
            assert_eq!(feed.next().unwrap().unwrap(), k.to_string());
        }
        assert!(feed.next().is_none());
    });
}

#[test]
fn in_completion_order_whoever_is_ready_comes_first() {
    within(|| {
        let dir = Dir::new();
        let template = child("when").arg(dir.path(""));
        let mut feed = numbers(4).feed_subprocesses(template, 4, 4);
        for k in ["2", "0", "3", "1"] {
            dir.touch(k);
            assert_eq!(feed.next().unwrap().unwrap(), k);
        }
        assert!(feed.next().is_none());
    });
}

#[test]
fn many_workers_share_few_items() {
    within(|| {
        assert_eq!(
            texts(numbers(3).feed_subprocesses_ordered(Template::new("cat"), 20, 100)),
            ["0", "1", "2"]
        );
    });
}

#[test]
fn a_long_feed_is_complete_and_in_order() {
    within(|| {
        let feed = numbers(100_000).feed_subprocesses_ordered(Template::new("cat"), 3, 5_000);
        let mut expected = 0u64;
        for reply in feed {
            assert_eq!(reply.unwrap(), expected.to_string());
            expected += 1;
        }
        assert_eq!(expected, 100_000);
    });
}

#[test]
fn every_worker_takes_part() {
    within(|| {
        // Each of the three workers must answer before any of them can answer twice.
        let dir = Dir::new();
        let template = child("when").arg(dir.path(""));
        let monitor;
        {
            let feed = numbers(3).feed_subprocesses_ordered(template, 3, 3);
            monitor = feed.monitor();
            crate::common::eventually("three sessions", || monitor.snapshot().starts == 3);
            for k in 0..3 {
                dir.touch(&k.to_string());
            }
            assert_eq!(texts(feed).len(), 3);
        }
        assert_eq!(monitor.snapshot().starts, 3);
    });
}

#[test]
fn keep_input_gives_each_reply_its_own_input() {
    within(|| {
        for order in [Order::Input, Order::Completion] {
            let source = (0..500).map(|k| if k % 50 == 7 { -k } else { k });
            let template = Template::new("cat").try_encode(|n: &i32, request| {
                if *n < 0 {
                    return Err("negative".into());
                }
                request.push(n.to_string());
                Ok(())
            });
            let feed =
                source.feed(template).workers(3).buffer(40).order(order).keep_input().start();
            let mut seen = BTreeSet::new();
            for (n, reply) in feed.map(halves) {
                let n = n.unwrap();
                match reply {
                    Ok(reply) => assert_eq!(reply, n.to_string()),
                    Err(error) => assert_eq!(error.packet(), Some((-n) as u64)),
                }
                assert!(seen.insert(n.abs()));
            }
            assert_eq!(seen.len(), 500);
        }
    });
}

#[test]
fn keep_input_gives_back_the_input_of_a_packet_that_failed() {
    within(|| {
        let source = ["a", "poison", "b"].map(String::from).into_iter();
        let feed = source.feed(child("poison")).workers(1).keep_input().start();
        let items: Vec<_> =
            feed.map(halves).map(|(input, reply)| (input.unwrap(), reply.is_ok())).collect();
        assert_eq!(
            items,
            [("a".to_owned(), true), ("poison".to_owned(), false), ("b".to_owned(), true)]
        );
    });
}

#[test]
fn keep_input_gives_every_input_back_when_the_feed_dies() {
    within(|| {
        let source = numbers(10);
        let feed = source.feed(Template::new("no-such-program")).buffer(10).keep_input().start();
        let mut next = 0;
        for (input, reply) in feed.map(halves) {
            assert!(reply.is_err());
            if let Some(input) = input {
                assert_eq!(input, next.to_string());
                next += 1;
            }
        }
    });
}

#[test]
fn inputs_that_were_never_yielded_are_dropped_once_each() {
    static ALIVE: AtomicUsize = AtomicUsize::new(0);
    struct Counted(String);
    impl Counted {
        fn new(n: u32) -> Self {
            ALIVE.fetch_add(1, SeqCst);
            Self(n.to_string())
        }
    }
    impl Drop for Counted {
        fn drop(&mut self) {
            ALIVE.fetch_sub(1, SeqCst);
        }
    }
    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            self.0.as_bytes()
        }
    }
    within(|| {
        let feed = (0..).map(Counted::new).feed(Template::new("cat")).buffer(50).keep_input();
        let mut feed = feed.start();
        for _ in 0..10 {
            feed.next().unwrap().unwrap();
        }
        drop(feed);
        assert_eq!(ALIVE.load(SeqCst), 0);
    });
}

#[test]
fn blocks_are_the_same_replies_in_the_same_order() {
    within(|| {
        for framing in [ReplyFraming::line(), ReplyFraming::lines(1)] {
            let template = Template::new("cat").replies(framing);
            let mut expected = 0u64;
            for block in numbers(20_000).feed(template).workers(2).blocks() {
                let block = block.unwrap();
                assert_eq!(block.first_record(), expected);
                assert!(!block.is_empty());
                let (mut replies, mut text) = (block.records(), String::new());
                // The first by hand, the rest in one go.
                let first = replies.next().unwrap().to_string();
                let rest = replies.map(ToString::to_string);
                let all: Vec<_> = std::iter::once(first).chain(rest).collect();
                assert_eq!(all.len(), block.len());
                for reply in all {
                    assert_eq!(reply, expected.to_string());
                    text.push_str(&reply);
                    text.push('\n');
                    expected += 1;
                }
                assert_eq!(block.as_bytes(), text.as_bytes());
            }
            assert_eq!(expected, 20_000);
        }
    });
}

#[test]
fn a_failed_packet_is_one_error_among_blocks() {
    within(|| {
        let source = (0..100).map(|k| if k == 60 { "poison".to_owned() } else { k.to_string() });
        let (mut good, mut bad) = (0, Vec::new());
        for block in source.feed(child("poison")).workers(2).blocks() {
            match block {
                Ok(block) => good += block.len(),
                Err(error) => bad.push(error.packet()),
            }
        }
        assert_eq!((good, bad), (99, vec![Some(60)]));
    });
}

#[test]
fn the_credit_of_a_block_comes_back_when_it_is_taken() {
    within(|| {
        let pulled = crate::common::Pulled::default();
        let mut blocks = pulled.numbers().feed(Template::new("cat")).workers(1).buffer(5).blocks();
        let mut yielded = 0;
        while yielded < 200 {
            yielded += blocks.next().unwrap().unwrap().len() as u64;
            assert!(pulled.get() <= yielded + 5, "pulled beyond the window");
        }
    });
}

#[test]
fn packet_ids_wrap() {
    within(|| {
        for order in [Order::Input, Order::Completion] {
            let feed = numbers(300).feed(Template::new("cat")).workers(3).buffer(7).order(order);
            let mut replies = texts(feed.first_packet(u64::MAX - 3).start());
            if order == Order::Completion {
                replies.sort_by_key(|reply| reply.parse::<u32>().unwrap());
            }
            assert_eq!(replies, numbers(300).collect::<Vec<_>>());
        }
    });
}

#[test]
fn packet_ids_wrap_in_errors_and_beside_inputs_too() {
    within(|| {
        let source = (0..10).map(|k| if k == 5 { "poison".to_owned() } else { k.to_string() });
        let feed = source.feed(child("poison")).workers(2).first_packet(u64::MAX - 3).keep_input();
        let mut ids = Vec::new();
        for (k, (input, reply)) in feed.start().map(halves).enumerate() {
            let input = input.unwrap();
            match reply {
                Ok(reply) => assert_eq!((reply, k.to_string()), (input.clone().into(), input)),
                Err(error) => ids.push((k, error.packet())),
            }
        }
        assert_eq!(ids, [(5, Some(1))]);
    });
}

#[test]
fn packet_ids_wrap_when_workers_die() {
    within(|| {
        let feed = numbers(200).feed(child("signal_at 3 9")).workers(3).buffer(20);
        assert_eq!(
            texts(feed.first_packet(u64::MAX - 50).start()),
            numbers(200).collect::<Vec<_>>()
        );
    });
}
