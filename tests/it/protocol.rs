//! The iterator protocol: fused, `size_hint`, `Send`, and what the bounds let through.

use std::fmt::Debug;
use std::iter::FusedIterator;

use subfeed::block::BlockFeed;
use subfeed::codec::{AsBytes, Owned};
use subfeed::policy::Halt;
use subfeed::{Error, ErrorKind, Feed, FeedBuilder, FeedExt, Monitor, Order, Snapshot, Template};

use crate::common::{Pulled, child, numbers, texts, within};

#[test]
fn public_types_go_where_they_must() {
    fn send<T: Send + 'static>() {}
    fn sync<T: Sync>() {}
    fn debug<T: Debug>() {}
    fn fused<T: FusedIterator>() {}
    send::<Feed>();
    fused::<Feed>();
    debug::<Feed>();
    send::<BlockFeed>();
    fused::<BlockFeed>();
    debug::<BlockFeed>();
    send::<Template>();
    sync::<Template>();
    send::<FeedBuilder<std::vec::IntoIter<String>, AsBytes, Owned>>();
    send::<Error>();
    sync::<Error>();
    send::<Monitor>();
    sync::<Monitor>();
    send::<Snapshot>();
    sync::<Snapshot>();
    fn clone<T: Clone>() {}
    clone::<Template>();
    clone::<Monitor>();
    fn error<T: std::error::Error + 'static>() {}
    error::<Error>();
}

#[test]
fn a_feed_of_items_that_are_send_and_not_sync_is_send() {
    within(|| {
        use std::cell::Cell;
        let template = Template::new("cat").encode(|n: &Cell<u32>, request| {
            request.push(n.get().to_string());
        });
        let feed = (0..3).map(Cell::new).feed(template).keep_input().start();
        let moved = std::thread::spawn(move || feed.map(|pair| pair.unwrap().0.get()).sum::<u32>());
        assert_eq!(moved.join().unwrap(), 3);
    });
}

#[test]
fn none_is_for_ever() {
    within(|| {
        for order in [Order::Input, Order::Completion] {
            let mut feed = numbers(3).feed(Template::new("cat")).order(order).workers(2).start();
            assert_eq!(feed.by_ref().count(), 3);
            for _ in 0..3 {
                assert!(feed.next().is_none());
            }
            assert_eq!(feed.size_hint(), (0, Some(0)));
            let mut blocks = numbers(3).feed(Template::new("cat")).order(order).blocks();
            assert!(blocks.by_ref().all(|block| block.is_ok()));
            assert!(blocks.next().is_none() && blocks.next().is_none());
        }
    });
}

#[test]
fn a_source_that_starts_again_after_its_end_is_not_asked_again() {
    within(|| {
        let mut call = 0;
        let source = std::iter::from_fn(move || {
            call += 1;
            (call != 3).then(|| call.to_string())
        });
        assert_eq!(texts(source.feed_subprocesses_ordered(Template::new("cat"), 2, 9)), ["1", "2"]);
    });
}

#[test]
fn an_empty_input_gives_nothing() {
    within(|| {
        for order in [Order::Input, Order::Completion] {
            let mut feed = numbers(0).feed(Template::new("cat")).order(order).start();
            assert!(feed.next().is_none() && feed.next().is_none());
            assert!(feed.finish().is_ok());
        }
    });
}

#[test]
fn size_hint_is_the_sources_less_what_was_yielded() {
    within(|| {
        let mut feed = numbers(100).feed_subprocesses_ordered(Template::new("cat"), 2, 7);
        for yielded in 0..100 {
            assert_eq!(feed.size_hint(), (100 - yielded, Some(100 - yielded)));
            feed.next().unwrap().unwrap();
        }
        assert_eq!(feed.size_hint(), (0, Some(0)));
        assert!(feed.next().is_none());
    });
}

#[test]
fn size_hint_of_a_filtered_source_keeps_its_bounds_true() {
    within(|| {
        let source = numbers(20).filter(|n| n.len() == 1);
        let mut feed = source.feed_subprocesses(Template::new("cat"), 2, 7);
        for yielded in 0..10 {
            assert_eq!(feed.size_hint(), (0, Some(20 - yielded)));
            feed.next().unwrap().unwrap();
        }
        assert!(feed.next().is_none());
        assert_eq!(feed.size_hint(), (0, Some(0)));
    });
}

#[test]
fn size_hint_of_an_endless_source_promises_neither_an_end_nor_that_there_is_none() {
    within(|| {
        let source = std::iter::repeat("x");
        let mut feed = source.feed_subprocesses_ordered(Template::new("cat"), 1, 4);
        assert_eq!(feed.size_hint(), (0, None));
        feed.next().unwrap().unwrap();
        assert_eq!(feed.size_hint(), (0, None));
    });
}

#[test]
fn an_endless_source_can_be_collected_where_a_fatal_error_ends_the_feed() {
    within(|| {
        // `collect` sets aside what the hint promises, after the first item.
        let missing = Template::new("no-such-program");
        let items: Vec<_> =
            std::iter::repeat("x").feed_subprocesses_ordered(missing, 2, 9).collect();
        assert!(items.iter().all(|item| item.as_ref().is_err_and(Error::is_fatal)));
        let pulled = Pulled::default();
        let source = pulled.numbers().map(|n| if n == "30" { "poison".to_owned() } else { n });
        let template = child("poison").halt(Halt::Now(1));
        let items: Vec<_> = source.feed_subprocesses_ordered(template, 2, 9).collect();
        assert!(items[..30].iter().all(Result::is_ok));
        let error = items[30].as_ref().unwrap_err();
        assert_eq!((error.kind(), error.packet()), (ErrorKind::Died, Some(30)));
        // What was answered by then is a reply in its place; of the others the first carries the cause.
        let errors: Vec<_> = items[31..].iter().filter_map(|item| item.as_ref().err()).collect();
        let is_cause = |error: &&&Error| error.to_string().contains("one item has failed");
        assert!(errors.iter().all(|error| error.is_fatal()), "{errors:?}");
        assert!(errors.first().is_some_and(|first| is_cause(&first)), "{errors:?}");
        assert_eq!(errors.iter().filter(is_cause).count(), 1, "{errors:?}");
        for (at, item) in items.iter().enumerate().skip(31) {
            match item {
                Ok(reply) => assert_eq!(reply, &at.to_string()),
                // The cause by itself, where all that was pulled had been answered.
                Err(error) if at + 1 == items.len() && error.packet().is_none() => {}
                Err(error) => assert_eq!(error.packet(), Some(at as u64)),
            }
        }
    });
}

#[test]
fn after_a_fatal_error_size_hint_promises_nothing_more() {
    within(|| {
        let missing = Template::new("no-such-program");
        let mut feed = numbers(1_000).feed_subprocesses_ordered(missing, 2, 9);
        assert_eq!(feed.size_hint(), (1_000, Some(1_000)));
        let mut left = 1_000;
        while feed.next().is_some() {
            left -= 1;
            let (least, most) = feed.size_hint();
            assert!(least == 0 && most.unwrap() <= left, "{least}, {most:?} after {left}");
        }
        assert_eq!(feed.size_hint(), (0, Some(0)));
    });
}

/// Walks a feed to its end and checks that no hint on the way was wrong, but for a fatal end.
fn hints_hold<I: Iterator<Item = Result<T, Error>>, T>(mut feed: I) -> Vec<Result<T, Error>> {
    let mut hints = vec![feed.size_hint()];
    let mut items = Vec::new();
    while let Some(item) = feed.next() {
        hints.push(feed.size_hint());
        items.push(item);
    }
    let fatal = items.iter().any(|item| item.as_ref().is_err_and(Error::is_fatal));
    for (yielded, (least, most)) in hints.into_iter().enumerate() {
        let left = items.len() - yielded;
        assert!(fatal || left >= least, "{least} promised, {left} came");
        assert!(most.is_none_or(|most| left <= most), "{most:?} at most, {left} came");
    }
    items
}

#[test]
fn size_hint_holds_when_items_fail() {
    within(|| {
        let source = ["a", "poison", "b", "poison", "c"].into_iter();
        let items = hints_hold(source.feed_subprocesses_ordered(child("poison"), 2, 3));
        assert_eq!(items.iter().filter(|item| item.is_err()).count(), 2);
    });
}

#[test]
fn size_hint_holds_for_a_feed_that_cannot_run_even_if_it_was_given_nothing() {
    within(|| {
        for n in [0, 1, 5] {
            let items = hints_hold(numbers(n).feed_subprocesses(Template::new("cat"), 0, 9));
            assert_eq!(items.len(), 1);
        }
    });
}

#[test]
fn size_hint_holds_when_the_command_is_missing() {
    within(|| {
        for n in [0, 1, 5] {
            let missing = Template::new("no-such-program");
            hints_hold(numbers(n).feed_subprocesses_ordered(missing, 2, 9));
        }
    });
}

#[test]
fn size_hint_holds_when_the_last_reply_is_followed_by_one_too_many() {
    within(|| {
        for _ in 0..20 {
            hints_hold(numbers(3).feed_subprocesses_ordered(child("extra 3"), 1, 9));
        }
    });
}

#[test]
fn size_hint_holds_when_the_feed_halts_at_its_last_item() {
    within(|| {
        for halt in [Halt::Soon(1), Halt::Now(1)] {
            let source = ["a", "poison"].into_iter();
            let template = child("poison").halt(halt);
            let items = hints_hold(source.feed_subprocesses_ordered(template, 1, 9));
            assert!(items.len() <= 2 && items[0].is_ok() && items[1].is_err());
        }
    });
}

#[test]
fn size_hint_is_taken_at_the_call() {
    within(|| {
        let pulled = Pulled::default();
        let source = pulled.count(numbers(10));
        let feed = source.feed_subprocesses_ordered(Template::new("cat"), 2, 10);
        crate::common::eventually("all is pulled", || pulled.get() == 10);
        assert_eq!(feed.size_hint(), (10, Some(10)));
        assert_eq!(feed.collect::<Result<Vec<_>, _>>().unwrap().len(), 10);
    });
}

#[test]
fn adaptors_and_collectors_work_on_a_feed() {
    within(|| {
        let feed = numbers(10).feed_subprocesses_ordered(Template::new("cat"), 2, 4);
        let mut feed = feed.map(Result::unwrap).enumerate().peekable();
        assert_eq!(feed.peek().unwrap().1, "0");
        assert!(feed.by_ref().take(3).all(|(k, reply)| reply == k.to_string()));
        assert_eq!(feed.nth(2).unwrap().1, "5");
        assert_eq!(feed.last().unwrap().1, "9");
        let feed = numbers(10).feed_subprocesses_ordered(Template::new("cat"), 2, 4);
        assert_eq!(feed.zip(numbers(10)).filter(|(a, b)| a.as_ref().unwrap() == b).count(), 10);
    });
}

#[test]
fn collecting_results_stops_at_the_first_error() {
    within(|| {
        let pulled = Pulled::default();
        let source = pulled.numbers().map(|n| if n == "5" { "poison".to_owned() } else { n });
        let feed = source.feed_subprocesses_ordered(child("poison"), 2, 4);
        let error = feed.collect::<Result<Vec<_>, _>>().unwrap_err();
        assert_eq!((error.kind(), error.packet()), (ErrorKind::Died, Some(5)));
        assert!(pulled.get() <= 10);
    });
}
