//! A panic of the user's is caught where it happens and resumed on the consumer, at its position.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use subfeed::framing::{Framing, FramingError, Position, ReplyFraming, Scan};
use subfeed::{Feed, FeedExt, Order, Template, blocks};

use crate::alone;
use crate::common::{Barrier, Belongings, Dir, Pulled, child, numbers, texts, within};

/// A payload that nobody else throws.
#[derive(Debug, PartialEq)]
struct Own(u64);

fn throw(n: u64) -> ! {
    std::panic::panic_any(Own(n))
}

/// Takes replies until the panic comes; gives them and the payload.
#[track_caller]
fn until_panic<I: Iterator>(feed: &mut I) -> (Vec<I::Item>, Box<dyn Any + Send>) {
    let mut items = Vec::new();
    loop {
        match catch_unwind(AssertUnwindSafe(|| feed.next())) {
            Ok(Some(item)) => items.push(item),
            Ok(None) => panic!("no panic came"),
            Err(payload) => return (items, payload),
        }
    }
}

/// Everything before packet `k`, then the payload, then nothing for ever.
fn panics_at(mut feed: Feed, k: u64) {
    let (items, payload) = until_panic(&mut feed);
    assert_eq!(texts(items), numbers(k).collect::<Vec<_>>());
    assert_eq!(payload.downcast_ref::<Own>(), Some(&Own(k)));
    assert!(feed.next().is_none() && feed.next().is_none());
    assert_eq!(feed.size_hint(), (0, Some(0)));
}

#[test]
fn a_source_that_panics_at_item_k_loses_none_of_the_k_before() {
    within(|| {
        for k in [0, 1, 17, 500] {
            for order in [Order::Input, Order::Completion] {
                let source = (0..).map(move |n| if n == k { throw(k) } else { n.to_string() });
                let mut feed =
                    source.feed(Template::new("cat")).workers(3).buffer(64).order(order).start();
                let (items, payload) = until_panic(&mut feed);
                let mut got: Vec<u64> =
                    texts(items).iter().map(|reply| reply.parse().unwrap()).collect();
                got.sort_unstable();
                assert_eq!(got, (0..k).collect::<Vec<_>>());
                assert_eq!(payload.downcast_ref::<Own>(), Some(&Own(k)));
                assert!(feed.next().is_none() && feed.next().is_none());
            }
        }
    });
}

#[test]
fn a_source_that_has_panicked_is_not_asked_again() {
    within(|| {
        let pulled = Pulled::default();
        let source = pulled.numbers().map(|n| if n == "5" { throw(5) } else { n });
        panics_at(source.feed_subprocesses_ordered(Template::new("cat"), 2, 64), 5);
        assert_eq!(pulled.get(), 6);
    });
}

#[test]
fn a_panic_of_encode_comes_at_its_position() {
    within(|| {
        for k in [0, 1, 40] {
            let template = Template::new("cat").encode(move |n: &u64, request| {
                request.push(n.to_string());
                if *n == k {
                    throw(k);
                }
            });
            panics_at((0..).feed_subprocesses_ordered(template, 2, 16), k);
        }
    });
}

#[test]
fn a_panic_of_decode_comes_at_its_position_and_costs_only_its_item() {
    within(|| {
        let template = Template::new("cat").try_decode(|reply| {
            let n: u64 = reply.to_str()?.parse()?;
            if n == 7 {
                throw(7);
            }
            Ok(n)
        });
        let mut feed = numbers(20).feed_subprocesses_ordered(template, 2, 8);
        let (items, payload) = until_panic(&mut feed);
        assert_eq!(items.len(), 7);
        assert_eq!(payload.downcast_ref::<Own>(), Some(&Own(7)));
        let rest: Vec<u64> = feed.map(Result::unwrap).collect();
        assert_eq!(rest, (8..20).collect::<Vec<_>>());
    });
}

#[test]
fn a_panic_of_check_comes_at_its_position() {
    within(|| {
        for k in [0, 1, 40] {
            let template = Template::new("cat").check(move |_, reply| {
                if reply == k.to_string().as_bytes() {
                    throw(k);
                }
                Ok(())
            });
            panics_at(numbers(100).feed_subprocesses_ordered(template, 3, 16), k);
        }
    });
}

struct Lines {
    line: u64,
    throw_at: Option<u64>,
}

impl Framing for Lines {
    fn scan(&mut self, input: &[u8], _: Position) -> Result<Scan, FramingError> {
        let Some(end) = input.iter().position(|&byte| byte == b'\n') else {
            return Ok(Scan::Partial);
        };
        if self.throw_at == Some(self.line) {
            throw(self.line);
        }
        self.line += 1;
        Ok(Scan::Complete { body: 0..end, len: end + 1 })
    }
}

#[test]
fn a_panic_of_a_framing_comes_at_its_position() {
    within(|| {
        for k in [0, 1, 40] {
            let framing =
                ReplyFraming::custom(move || Box::new(Lines { line: 0, throw_at: Some(k) }));
            let template = Template::new("cat").replies(framing);
            panics_at(numbers(100).feed_subprocesses_ordered(template, 1, 16), k);
        }
    });
}

#[test]
fn a_panic_while_a_framing_is_made_comes_too() {
    within(|| {
        let framing = ReplyFraming::custom(|| throw(0));
        panics_at(
            numbers(10).feed_subprocesses_ordered(Template::new("cat").replies(framing), 1, 4),
            0,
        );
    });
}

#[test]
fn a_panic_while_a_later_framing_is_made_leaves_no_hole_before_it() {
    within(|| {
        use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
        for sessions in 2..8 {
            let made = AtomicU32::new(0);
            let framing = ReplyFraming::custom(move || {
                if made.fetch_add(1, SeqCst) == sessions {
                    throw(0);
                }
                Box::new(Lines { line: 0, throw_at: None })
            });
            let template = child("exit_after 3 0").replies(framing);
            let mut feed = numbers(100).feed_subprocesses_ordered(template, 2, 30);
            let (items, payload) = until_panic(&mut feed);
            assert_eq!(
                texts(items.iter().map(|item| Ok(item.as_ref().unwrap().clone()))),
                numbers(items.len() as u64).collect::<Vec<_>>()
            );
            assert!(payload.is::<Own>());
            assert!(feed.next().is_none());
        }
    });
}

#[test]
fn in_completion_order_a_panic_waits_for_all_that_was_pulled_before_it() {
    within(|| {
        for k in [0, 1, 17, 60] {
            let template = child("echo").encode(move |n: &u64, request| {
                if *n == k {
                    throw(k);
                }
                request.push(n.to_string());
            });
            let mut feed = (0..).feed_subprocesses(template, 3, 30);
            let (items, payload) = until_panic(&mut feed);
            assert_eq!(items.into_iter().map(Result::unwrap).count() as u64, k);
            assert_eq!(payload.downcast_ref::<Own>(), Some(&Own(k)));
            assert!(feed.next().is_none());
        }
    });
}

#[test]
fn a_later_panic_waits_for_the_replies_before_it() {
    within(|| {
        let dir = crate::common::Dir::new();
        let source = (0..).map(|n| if n == 3 { throw(3) } else { n.to_string() });
        let template = child("late").arg(dir.path("go"));
        let mut feed = source.feed_subprocesses_ordered(template, 2, 16);
        // The panic has long happened when the first reply comes.
        let monitor = feed.monitor();
        crate::common::eventually("workers run", || monitor.snapshot().starts > 0);
        dir.touch("go");
        for k in 0..3 {
            assert_eq!(feed.next().unwrap().unwrap(), k.to_string());
        }
        let (items, payload) = until_panic(&mut feed);
        assert!(items.is_empty() && payload.is::<Own>());
    });
}

#[test]
fn a_panic_resumes_among_blocks_too() {
    within(|| {
        let source = (0..).map(|n| if n == 30 { throw(30) } else { n.to_string() });
        let mut blocks = source.feed(Template::new("cat")).workers(2).buffer(8).blocks();
        let mut count = 0;
        let payload = loop {
            match catch_unwind(AssertUnwindSafe(|| blocks.next())) {
                Ok(Some(block)) => count += block.unwrap().len(),
                Ok(None) => panic!("no panic came"),
                Err(payload) => break payload,
            }
        };
        assert_eq!(count, 30);
        assert!(payload.is::<Own>());
        assert!(blocks.next().is_none());
    });
}

#[test]
fn finish_resumes_a_panic_too() {
    within(|| {
        let source = (0..).map(|n| if n == 30 { throw(30) } else { n.to_string() });
        let feed = source.feed_subprocesses_ordered(Template::new("cat"), 2, 8);
        let payload = catch_unwind(AssertUnwindSafe(|| feed.finish())).unwrap_err();
        assert_eq!(payload.downcast_ref::<Own>(), Some(&Own(30)));
    });
}

#[test]
fn a_drain_and_blocks_panic_with_what_the_event_loop_calls() {
    within(|| {
        let talks = || Template::shell("echo word >&2; cat; exit 1");
        let of_drain = [
            talks().on_stderr(|_, _| throw(1)),
            talks().accept_status(|_| throw(1)),
            // These do not run.
            talks().check(|_, _| throw(2)),
        ];
        let drained = of_drain.map(|template| {
            let feed = numbers(3).feed(template).workers(1);
            catch_unwind(AssertUnwindSafe(move || feed.drain()))
                .map(|drained| drained.unwrap().accepted)
                .map_err(|payload| payload.downcast_ref::<Own>() == Some(&Own(1)))
        });
        assert_eq!(drained, [Err(true), Err(true), Ok(vec![3])]);
        let dir = Dir::new();
        let cat = || blocks(&b"a\nb\n"[..]).feed(Template::new("cat")).workers(1);
        for feed in [
            cat().job_log(dir.path("log")).job_log_numbers(|_| throw(1)),
            blocks(&b"a\nb\n"[..]).feed(talks().on_stderr(|_, _| throw(1))).workers(1),
            blocks(&b"a\nb\n"[..]).feed(talks().check(|_, _| throw(1))).workers(1),
        ] {
            let (_, payload) = until_panic(&mut feed.start());
            assert_eq!(payload.downcast_ref::<Own>(), Some(&Own(1)));
        }
    });
}

/// A source that panics when it is asked how long it is.
struct Unmeasured;

impl Iterator for Unmeasured {
    type Item = String;
    fn next(&mut self) -> Option<String> {
        None
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        throw(4)
    }
}

#[test]
fn a_panic_of_size_hint_comes_at_the_start_and_leaves_nothing() {
    alone!(|| {
        let before = Belongings::now();
        let started = catch_unwind(|| drop(Unmeasured.feed(Template::new("cat")).start()));
        assert_eq!(started.unwrap_err().downcast_ref::<Own>(), Some(&Own(4)));
        let drained = catch_unwind(|| Unmeasured.feed(Template::new("cat")).drain());
        assert_eq!(drained.unwrap_err().downcast_ref::<Own>(), Some(&Own(4)));
        before.restored();
    });
}

#[test]
fn dropping_a_feed_that_owes_a_panic_is_quiet() {
    within(|| {
        let gone = Barrier::default();
        let open = gone.clone();
        let source = (0..).map(move |n| {
            if n == 3 {
                open.open();
                throw(3)
            }
            n.to_string()
        });
        let mut feed = source.feed_subprocesses_ordered(Template::new("cat"), 2, 16);
        feed.next().unwrap().unwrap();
        gone.pass();
        drop(feed);
    });
}

#[test]
fn a_source_that_panics_while_it_is_dropped_takes_nobody_along() {
    struct Spiteful(u64);
    impl Iterator for Spiteful {
        type Item = String;
        fn next(&mut self) -> Option<String> {
            self.0 += 1;
            Some(self.0.to_string())
        }
    }
    impl Drop for Spiteful {
        fn drop(&mut self) {
            throw(self.0);
        }
    }
    within(|| {
        let mut feed = Spiteful(0).feed_subprocesses_ordered(Template::new("cat"), 2, 16);
        assert_eq!(feed.next().unwrap().unwrap(), "1");
        drop(feed);
        let mut feed = Spiteful(0).take(4).feed_subprocesses_ordered(Template::new("cat"), 2, 16);
        assert_eq!(texts(feed.by_ref()).len(), 4);
        assert!(feed.next().is_none());
    });
}

#[test]
fn items_that_panic_while_they_are_dropped_are_panics_of_the_feed() {
    struct Item(u64);
    impl AsRef<[u8]> for Item {
        fn as_ref(&self) -> &[u8] {
            b"x"
        }
    }
    impl Drop for Item {
        fn drop(&mut self) {
            if self.0 == 5 {
                throw(5);
            }
        }
    }
    within(|| {
        let mut feed = (0..20).map(Item).feed_subprocesses_ordered(Template::new("cat"), 2, 4);
        let (items, payload) = until_panic(&mut feed);
        assert_eq!(items.into_iter().map(Result::unwrap).count(), 5);
        assert_eq!(payload.downcast_ref::<Own>(), Some(&Own(5)));
        assert!(feed.next().is_none());
    });
}

#[test]
fn kept_inputs_and_markers_that_panic_while_they_are_dropped_do_not_make_the_drop_of_a_feed_panic()
{
    struct Item;
    impl AsRef<[u8]> for Item {
        fn as_ref(&self) -> &[u8] {
            b"x"
        }
    }
    impl Drop for Item {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                throw(5);
            }
        }
    }
    within(|| {
        let feed = std::iter::repeat_with(|| Item).feed(Template::new("cat")).buffer(4);
        let mut feed = feed.keep_input().start();
        std::mem::forget(feed.next().unwrap().unwrap());
        drop(feed);
        let source = std::iter::repeat_with(|| Err::<&str, _>(Thrower(Item)));
        let mut feed = source.try_feed(Template::new("cat")).buffer(4).start();
        std::mem::forget(feed.next());
        drop(feed);
    });
    struct Thrower(Item);
    impl From<subfeed::Error> for Thrower {
        fn from(_: subfeed::Error) -> Self {
            Self(Item)
        }
    }
}

#[test]
fn a_panic_of_the_consumer_unwinds_through_a_running_feed() {
    within(|| {
        let payload = catch_unwind(|| {
            for (k, reply) in std::iter::repeat("x")
                .feed_subprocesses_ordered(Template::new("cat"), 3, 50)
                .enumerate()
            {
                reply.unwrap();
                if k == 20 {
                    throw(20);
                }
            }
        });
        assert_eq!(payload.unwrap_err().downcast_ref::<Own>(), Some(&Own(20)));
    });
}

#[test]
fn a_panic_travels_through_a_chain() {
    within(|| {
        let source = (0..).map(|n| if n == 9 { throw(9) } else { n.to_string() });
        let first = source.feed_subprocesses_ordered(Template::new("cat"), 2, 4);
        let second =
            first.map(Result::unwrap).feed_subprocesses_ordered(Template::new("cat"), 2, 4);
        panics_at(
            second.map(Result::unwrap).feed_subprocesses_ordered(Template::new("cat"), 1, 4),
            9,
        );
    });
}

#[test]
fn closures_run_where_they_must() {
    within(|| {
        use std::sync::{Arc, Mutex};
        use std::thread;
        let seen = Arc::new(Mutex::new([None::<thread::ThreadId>; 4]));
        let note = |i: usize| {
            let seen = Arc::clone(&seen);
            move || {
                let me = thread::current().id();
                let before = seen.lock().unwrap()[i].replace(me);
                assert!(before.is_none_or(|before| before == me), "closure {i} on two threads");
            }
        };
        let (source, encode, check, decode) = (note(0), note(1), note(2), note(3));
        let template = Template::new("cat")
            .encode(move |n: &u64, request| {
                encode();
                request.push(n.to_string());
            })
            .check(move |_, _| {
                check();
                Ok(())
            })
            .decode(move |_| {
                decode();
            });
        let feed = (0..50).inspect(move |_| source()).feed_subprocesses_ordered(template, 3, 8);
        assert_eq!(feed.map(Result::unwrap).count(), 50);
        let [source, encode, check, decode] = seen.lock().unwrap().map(Option::unwrap);
        assert_eq!(source, encode, "the intake's");
        assert_eq!(decode, thread::current().id(), "the consumer's");
        assert!(check != source && check != decode, "the event_loop's");
    });
}
