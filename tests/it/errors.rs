//! Two kinds of errors, what they carry, and what `finish` adds.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use subfeed::framing::{Framing, FramingError, Position, ReplyFraming, Scan};
use subfeed::policy::Halt;
use subfeed::{BoxError, Error, ErrorKind, FeedExt, Order, Template};

use crate::common::{Barrier, Pulled, child, eventually, numbers, texts, within};

#[test]
fn an_item_error_concerns_its_packet_and_iteration_goes_on() {
    within(|| {
        let source = ["a", "poison", "b"].into_iter();
        let mut feed = source.feed_subprocesses_ordered(child("poison"), 2, 8);
        assert_eq!(feed.next().unwrap().unwrap(), "a");
        assert!(!feed.next().unwrap().unwrap_err().is_fatal());
        assert_eq!(feed.next().unwrap().unwrap(), "b");
        assert!(feed.next().is_none());
    });
}

#[test]
fn the_error_of_a_packet_says_everything_about_it() {
    within(|| {
        let source = ["a", "poison"].into_iter();
        let mut feed = source.feed_subprocesses_ordered(child("poison"), 1, 8);
        assert_eq!(feed.next().unwrap().unwrap(), "a");
        let error = feed.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Died);
        assert_eq!(error.packet(), Some(1));
        assert_eq!(error.request().unwrap(), "poison\n");
        assert_eq!(error.worker(), Some(0));
        assert!(error.pid().is_some_and(|pid| pid > 1));
        assert!(error.command().unwrap().ends_with("hostile-child poison"));
        assert_eq!(error.attempts(), 1);
        assert_eq!(error.exit_status().unwrap().signal(), Some(9));
        assert_eq!(error.stderr(), "that was poison\n");
        let line = error.to_string();
        for word in ["packet 1", "signal: 9", "hostile-child poison", "worker 0", "that was poison"]
        {
            assert!(line.contains(word), "no {word:?} in {line}");
        }
        assert!(!line.contains('\n'));
        assert!(format!("{error:?}").contains(&line));
        assert_eq!(error.into_request().unwrap(), "poison\n");
    });
}

#[test]
fn an_error_fits_wherever_errors_go() {
    within(|| {
        fn run() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            let missing = Template::new("no-such-program");
            for reply in ["a"].into_iter().feed_subprocesses_ordered(missing, 1, 8) {
                reply?;
            }
            Ok(())
        }
        let error = run().unwrap_err();
        let ours = error.downcast_ref::<Error>().unwrap();
        let io = ours.cause().unwrap().downcast_ref::<std::io::Error>().unwrap();
        assert_eq!(io.kind(), std::io::ErrorKind::NotFound);
    });
}

/// The items of a feed that ends fatally: what was good, the cause, and how many were halted after or
/// before it.
fn fatal<T: std::fmt::Debug>(
    feed: impl Iterator<Item = Result<T, Error>>,
) -> (usize, Error, Vec<u64>) {
    let (mut good, mut cause, mut halted) = (0, None, Vec::new());
    for item in feed {
        match item {
            Ok(_) => good += 1,
            Err(error) => {
                assert!(error.is_fatal(), "{error:?}");
                if error.kind() == ErrorKind::Halted {
                    halted.push(error.packet().unwrap());
                } else if let Some(first) = &cause {
                    panic!("two causes: {first:?} and {error:?}");
                } else {
                    cause = Some(error);
                }
            }
        }
    }
    (good, cause.expect("a cause"), halted)
}

#[test]
fn a_fatal_error_halts_what_was_pulled_in_place_and_one_item_carries_the_cause() {
    within(|| {
        for order in [Order::Input, Order::Completion] {
            let pulled = Pulled::default();
            let template = child("silent").idle_timeout(Duration::from_millis(200));
            let template =
                template.on_stall(subfeed::policy::OnStall::Wait, Duration::from_millis(100));
            let feed = pulled.numbers().feed(template).workers(2).buffer(9).order(order).start();
            let (good, cause, mut halted) = fatal(feed);
            assert_eq!((good, cause.kind()), (0, ErrorKind::Timeout));
            halted.extend(cause.packet());
            halted.sort_unstable();
            assert_eq!(halted, (0..pulled.get()).collect::<Vec<_>>());
            assert!((1..=9).contains(&pulled.get()));
        }
    });
}

#[test]
fn the_cause_comes_first_of_what_it_left_unanswered() {
    within(|| {
        let template = child("silent").idle_timeout(Duration::from_millis(200));
        let template =
            template.on_stall(subfeed::policy::OnStall::Wait, Duration::from_millis(100));
        let pulled = Pulled::default();
        let mut feed = pulled.numbers().feed_subprocesses_ordered(template, 3, 9);
        let first = feed.next().unwrap().unwrap_err();
        assert_eq!((first.kind(), first.packet()), (ErrorKind::Timeout, Some(0)));
        let others = feed.filter(|item| item.as_ref().unwrap_err().is_fatal()).count();
        assert_eq!(others as u64, pulled.get() - 1);
    });
}

#[test]
fn a_framing_that_breaks_its_contract_fails_its_packets_and_panics_nowhere() {
    struct Wrong(fn(usize) -> (std::ops::Range<usize>, usize));
    impl Framing for Wrong {
        fn scan(&mut self, input: &[u8], _: Position) -> Result<Scan, FramingError> {
            let (body, len) = self.0(input.len());
            Ok(Scan::Complete { body, len })
        }
    }
    /// The body and the length that a wrong framing gives for so many bytes.
    type Cut = fn(usize) -> (std::ops::Range<usize>, usize);
    let wrongs: [Cut; 4] = [|_| (0..0, 0), |n| (0..n, n + 10), |n| (0..n + 5, n), |n| (n..0, n)];
    for wrong in wrongs {
        let items: Vec<_> = within(move || {
            let framing = ReplyFraming::custom(move || Box::new(Wrong(wrong)));
            let template = Template::new("cat").replies(framing);
            numbers(3).feed_subprocesses_ordered(template, 2, 8).collect()
        });
        assert_eq!(items.len(), 3);
        for (k, item) in items.into_iter().enumerate() {
            let error = item.unwrap_err();
            assert_eq!(
                (error.kind(), error.packet()),
                (ErrorKind::Reply, Some(k as u64)),
                "{error}"
            );
            assert!(error.to_string().contains("breaks its contract"), "{error}");
        }
    }
}

#[test]
fn with_nothing_pulled_there_is_one_error_and_then_none() {
    within(|| {
        let gate = Barrier::default();
        let wait = gate.clone();
        let source = std::iter::from_fn(move || -> Option<String> {
            wait.pass();
            None
        });
        let missing = Template::new("no-such-program");
        let mut feed = source.feed_subprocesses_ordered(missing, 2, 8);
        // The source blocks all the time.
        let error = feed.next().unwrap().unwrap_err();
        assert!(error.is_fatal() && error.packet().is_none());
        assert_eq!(error.kind(), ErrorKind::Spawn);
        assert!(feed.next().is_none() && feed.next().is_none());
        drop(feed);
        gate.open();
    });
}

#[test]
fn a_fatal_error_ends_the_feed_while_the_source_blocks() {
    within(|| {
        let gate = Barrier::default();
        let wait = gate.clone();
        let source = numbers(5).inspect(move |n| {
            if n == "3" {
                wait.pass();
            }
        });
        let feed = source.feed_subprocesses_ordered(Template::new("no-such-program"), 2, 8);
        let items: Vec<_> = feed.collect();
        assert!(items.iter().all(|item| item.as_ref().unwrap_err().is_fatal()));
        assert!((1..=3).contains(&items.len()), "{items:?}");
        gate.open();
    });
}

#[test]
fn an_input_that_was_on_its_way_when_the_feed_died_has_its_item() {
    within(|| {
        // A source that takes its time, as files and sockets do: whatever it has counted comes out.
        for _ in 0..30 {
            let pulled = Pulled::default();
            let source = numbers(1_000).inspect(|_| {
                std::thread::sleep(Duration::from_micros(200));
            });
            let feed = pulled.count(source).feed_subprocesses_ordered(
                Template::new("no-such-program"),
                1,
                1_000,
            );
            let items: Vec<_> = feed.collect();
            let bare = items.iter().filter(|i| i.as_ref().unwrap_err().packet().is_none()).count();
            assert_eq!(items.len() - bare, pulled.get() as usize);
        }
    });
}

#[test]
fn errors_of_the_same_packet_under_halt_are_in_place() {
    within(|| {
        let source = (0..60).map(|k| if k == 7 { "poison".to_owned() } else { k.to_string() });
        let template = child("poison").halt(Halt::Now(1));
        let items: Vec<_> = source.feed_subprocesses_ordered(template, 3, 20).collect();
        for (k, item) in items.iter().enumerate() {
            match item {
                Ok(reply) => assert_eq!(reply, &k.to_string()),
                // If all that was pulled had been answered, the cause stands by itself.
                Err(error) if k + 1 == items.len() && error.packet().is_none() => {}
                Err(error) => assert_eq!(error.packet(), Some(k as u64), "{error}"),
            }
        }
        assert!(items[7].is_err() && items.len() < 60);
    });
}

#[test]
fn finish_drains_and_returns_what_was_done() {
    within(|| {
        let mut feed = numbers(100).feed_subprocesses_ordered(Template::new("cat"), 3, 8);
        for _ in 0..10 {
            feed.next().unwrap().unwrap();
        }
        let done = feed.finish().unwrap();
        assert_eq!((done.accepted, done.replies, done.failed), (100, 100, 0));
        assert_eq!((done.deaths, done.restarts, done.held_bytes), (0, 0, 0));
        assert_eq!(done.written_bytes, done.read_bytes);
    });
}

#[test]
fn finish_returns_the_first_failure_of_what_was_left() {
    within(|| {
        let source = ["a", "poison", "b", "poison"].into_iter();
        let feed = source.feed_subprocesses_ordered(child("poison"), 2, 8);
        assert_eq!(feed.finish().unwrap_err().packet(), Some(1));
    });
}

#[test]
fn a_bad_exit_after_the_last_answer_is_reported_by_finish_only() {
    within(|| {
        let template = Template::shell("cat; echo farewell >&2; exit 3");
        let mut feed = numbers(10).feed_subprocesses_ordered(template, 1, 8);
        assert_eq!(texts(feed.by_ref()).len(), 10);
        let error = feed.finish().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Died);
        assert_eq!(error.exit_status().and_then(|status| status.code()), Some(3));
        assert_eq!((error.packet(), error.stderr().to_vec()), (None, b"farewell\n".to_vec()));
    });
}

#[test]
fn blocks_are_finished_in_the_same_way() {
    within(|| {
        let blocks = numbers(10).feed(child("trailing")).workers(1).blocks();
        let mut count = 0;
        let mut wrong = None;
        for block in blocks {
            match block {
                Ok(block) => count += block.len(),
                Err(error) => {
                    wrong.get_or_insert(error);
                }
            }
        }
        assert_eq!(count, 9);
        let error = wrong.unwrap();
        assert!(matches!(error.kind(), ErrorKind::ReplyCount { owed: 10, got: 11 }), "{error:?}");
    });
}

#[test]
fn a_monitor_outlives_its_feed() {
    within(|| {
        let feed = numbers(50).feed_subprocesses_ordered(Template::new("cat"), 2, 8);
        let monitor = feed.monitor();
        assert_eq!(std::thread::spawn(move || feed.count()).join().unwrap(), 50);
        eventually("the counters are there", || monitor.snapshot().replies == 50);
        assert_eq!(monitor.snapshot().held_bytes, 0);
        assert!(format!("{monitor:?}").contains("replies: 50"));
    });
}

#[test]
fn the_error_of_an_earlier_stage_keeps_its_story_but_ends_nothing_here() {
    within(|| {
        // A fatal error of the first stage is an item of the second.
        let first = numbers(3).feed_subprocesses_ordered(Template::new("no-such-program"), 1, 8);
        let template =
            Template::new("cat").try_encode(|item: &Result<bstr::BString, BoxError>, request| {
                match item {
                    Ok(bytes) => request.push(bytes),
                    Err(error) => return Err(error.to_string().into()),
                }
                Ok(())
            });
        let second = first
            .map(|reply| reply.map_err(BoxError::from))
            .feed_subprocesses_ordered(template, 1, 8);
        for item in second {
            let error = item.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Encode);
            assert!(!error.is_fatal());
        }
    });
}

#[test]
fn an_error_of_ours_that_encode_returns_is_no_longer_fatal() {
    within(|| {
        let make = || {
            let feed = numbers(1).feed_subprocesses_ordered(Template::new("cat"), 0, 8);
            feed.map(Result::unwrap_err).next().unwrap()
        };
        assert!(make().is_fatal());
        let template = Template::new("cat").try_encode(move |n: &u32, request| {
            if *n == 1 {
                return Err(make().into());
            }
            request.push(n.to_string());
            Ok(())
        });
        let items: Vec<_> = (0..3).feed_subprocesses_ordered(template, 1, 8).collect();
        let error = items[1].as_ref().unwrap_err();
        assert_eq!((error.kind(), error.packet()), (ErrorKind::Encode, Some(1)));
        assert!(!error.is_fatal(), "the feed has gone on: {error:?}");
        assert!(error.cause().unwrap().downcast_ref::<Error>().unwrap().is_fatal());
        assert_eq!(items[2].as_ref().unwrap(), "2");
    });
}
