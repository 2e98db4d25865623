//! What is no work keeps its place, in both executors: errors of an earlier stage, and markers.

use std::sync::Mutex;
use std::sync::mpsc;

use crate::common::{Pulled, child, eventually, numbers, within};
use itertools::Itertools;
use subfeed::marker::Marked;
use subfeed::{BoxError, Error, ErrorKind, FeedExt, Order, Template};

/// An error of the user's own that an error of ours can become.
#[derive(Debug, PartialEq)]
enum Trouble {
    Source(u32),
    Feed(ErrorKind),
    Task(u32),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Feed(error.kind())
    }
}

fn every_third_fails(n: u32) -> impl Iterator<Item = Result<String, Trouble>> + Send {
    (0..n).map(|n| if n % 3 == 0 { Err(Trouble::Source(n)) } else { Ok(n.to_string()) })
}

#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence")]
fn an_error_of_the_source_comes_out_in_its_place_and_goes_to_no_worker() {
    within(|| {
        for (workers, buffer) in [(1, 1), (3, 7), (2, 10_000)] {
            // Says how many lines it has seen by their numbers.
            let template = Template::new("awk").raw_arg("{ print NR \" \" $0; fflush() }");
            let feed = every_third_fails(500).try_feed(template).workers(workers).buffer(buffer);
            let mut lines = 0;
            for (n, item) in (0..).zip(feed.start()) {
                match item {
                    Ok(reply) => {
                        lines += 1;
                        let reply = reply.to_string();
                        let (_, said) = reply.split_once(' ').unwrap();
                        assert_eq!(said, n.to_string());
                        assert_ne!(n % 3, 0);
                    }
                    Err(error) => assert_eq!((n % 3, error), (0, Trouble::Source(n))),
                }
            }
            assert_eq!(lines, 500 - 167);
        }
    });
}

#[test]
fn errors_of_two_feeds_and_a_source_come_out_of_the_last_in_their_places() {
    within(|| {
        // The first refuses every fifth, the second dies of a certain record.
        let first = Template::new("cat").check(|request, _| {
            let n: u32 = std::str::from_utf8(request.trim_ascii())?.parse()?;
            if n.is_multiple_of(5) { Err(BoxError::from("a fifth")) } else { Ok(()) }
        });
        let poison = child("poison").retries(0).encode(|text: &bstr::BString, request| {
            request.push(if text == "7" { "poison".as_bytes() } else { text });
        });
        let feed = every_third_fails(12).try_feed(first).workers(2).buffer(4).start();
        let feed = feed.try_feed(poison).workers(2).buffer(4).start();
        let items: Vec<_> = feed.map(|item| item.map(|reply| reply.to_string())).collect();
        let expected: Vec<_> = (0..12)
            .map(|n: u32| match n {
                n if n % 3 == 0 => Err(Trouble::Source(n)),
                n if n % 5 == 0 => Err(Trouble::Feed(ErrorKind::Check)),
                7 => Err(Trouble::Feed(ErrorKind::Died)),
                n => Ok(n.to_string()),
            })
            .collect();
        assert_eq!(items, expected);
    });
}

#[test]
fn in_completion_order_what_passes_does_not_wait() {
    within(|| {
        let source = [Ok("x"), Err(Trouble::Source(1)), Err(Trouble::Source(2))].into_iter();
        let feed = source.try_feed(child("silent")).workers(1).buffer(8).order(Order::Completion);
        let mut feed = feed.start();
        assert_eq!(feed.next().unwrap().unwrap_err(), Trouble::Source(1));
        assert_eq!(feed.next().unwrap().unwrap_err(), Trouble::Source(2));
    });
}

#[test]
fn what_passes_counts_in_the_window() {
    within(|| {
        let pulled = Pulled::default();
        let source = pulled.count((0..).map(|n| Err::<String, _>(Trouble::Source(n))));
        let mut feed = source.try_feed(Template::new("cat")).workers(2).buffer(5).start();
        eventually("the window is full", || pulled.get() == 5);
        for n in 0..20 {
            assert_eq!(feed.next().unwrap().unwrap_err(), Trouble::Source(n));
            assert!(pulled.get() <= u64::from(n) + 6);
        }
        drop(feed);

        let pulled = Pulled::default();
        let source = pulled.count((0..).map(Marked::<u8, u32>::Marker));
        let mut feed = source.in_threads().workers(2).buffer(5).map_marked(|n| n);
        eventually("the window is full", || pulled.get() == 5);
        for n in 0..20 {
            assert_eq!(feed.next(), Some(Marked::Marker(n)));
            assert!(pulled.get() <= u64::from(n) + 6);
        }
    });
}

#[test]
fn a_feed_that_cannot_start_still_yields_what_passes_in_place() {
    within(|| {
        let source = [Err(Trouble::Source(0)), Ok("x".to_owned()), Err(Trouble::Source(2))];
        let feed = source.into_iter().try_feed(Template::new("/no/such/program")).workers(1);
        let items: Vec<_> = feed.buffer(8).start().map(Result::unwrap_err).collect();
        let causes = items.iter().filter(|item| **item == Trouble::Feed(ErrorKind::Spawn));
        assert_eq!(causes.count(), 1, "{items:?}");
        for (at, item) in (0..).zip(&items) {
            assert!(!matches!(item, Trouble::Source(n) if *n != at), "{items:?}");
        }
    });
}

#[test]
fn ids_may_wrap_while_things_pass() {
    within(|| {
        let source = || every_third_fails(60);
        let feed = source().try_feed(Template::new("cat")).workers(2).buffer(3);
        let feed = feed.first_packet(u64::MAX - 20).start();
        let fed = feed.map(|item| item.map(|reply| reply.to_string()));
        assert!(fed.eq(source()));
        let feed = source().in_threads().workers(2).buffer(3).first_packet(u64::MAX - 20);
        assert!(feed.try_map(Ok).eq(source()));
    });
}

#[test]
fn marks_keep_their_place_between_replies() {
    within(|| {
        let source = || {
            numbers(300).enumerate().flat_map(|(n, text)| {
                let marker = (n % 7 == 0).then_some(Marked::Marker(n));
                marker.into_iter().chain([Marked::Item(text)])
            })
        };
        let feed = source().feed_marked(Template::new("cat")).workers(3).buffer(11).start();
        let fed = feed.map(|entry| match entry {
            Marked::Item(reply) => Marked::Item(reply.unwrap().to_string()),
            Marked::Marker(marker) => Marked::Marker(marker),
        });
        assert!(fed.eq(source()));
        let mapped = source().in_threads().workers(3).buffer(11).map_marked(|text| text);
        assert!(mapped.eq(source()));
    });
}

#[test]
fn in_threads_errors_of_source_and_task_keep_their_places() {
    within(|| {
        let expected = |n: u32| match n {
            n if n % 3 == 0 => Err(Trouble::Source(n)),
            n if n % 4 == 0 => Err(Trouble::Task(n)),
            n => Ok(n),
        };
        let task = |text: String| {
            let n = text.parse().unwrap();
            if n % 4 == 0 { Err(Trouble::Task(n)) } else { Ok(n) }
        };
        for (workers, buffer) in [(1, 1), (4, 9), (2, 10_000)] {
            let feed = every_third_fails(1_000).in_threads().workers(workers).buffer(buffer);
            assert!(feed.try_map(task).eq((0..1_000).map(expected)));
        }
        let feed = every_third_fails(1_000).in_threads().workers(3).order(Order::Completion);
        let mut items = feed.try_map_init(|| (), move |(), text| task(text)).collect_vec();
        items.sort_by_key(|item| match item {
            Ok(n) | Err(Trouble::Source(n) | Trouble::Task(n)) => *n,
            Err(Trouble::Feed(_)) => unreachable!(),
        });
        assert!(items.into_iter().eq((0..1_000).map(expected)));
    });
}

#[test]
fn a_mark_does_not_wait_for_the_item_behind_it() {
    within(|| {
        let (go_on, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let source = [Marked::Item(1), Marked::Marker("between"), Marked::Item(2)].into_iter();
        let mut feed = source.in_threads().workers(1).map_marked(move |n| {
            if n == 2 {
                wait.lock().unwrap().recv().unwrap();
            }
            n
        });
        assert_eq!(feed.next(), Some(Marked::Item(1)));
        assert_eq!(feed.next(), Some(Marked::Marker("between")));
        go_on.send(()).unwrap();
        assert_eq!((feed.next(), feed.next()), (Some(Marked::Item(2)), None));
    });
}

#[test]
fn in_a_scope_what_passes_may_borrow_too() {
    let words = ["a", "bb", "!"].map(str::to_owned);
    let said: Vec<Result<usize, &str>> = std::thread::scope(|scope| {
        let source =
            words.iter().map(|word| if word == "!" { Err(word.as_str()) } else { Ok(word) });
        source.in_threads().workers(2).scoped(scope).try_map(|word| Ok(word.len())).collect()
    });
    assert_eq!(said, [Ok(1), Ok(2), Err("!")]);
}
