//! The four iterators of a feed, what each yields, and their soft end.

use std::io;
use std::rc::Rc;
use std::sync::mpsc;

use subfeed::marker::{Marked, MarkedFeed};
use subfeed::pipeline::{Pipeline, Stage};
use subfeed::queue::{Timed, inlet};
use subfeed::{
    BString, Error, ErrorKind, Feed, FeedExt, FeedThreads, FeedWithInput, InputError, Order,
    Template, TryFeed,
};

use crate::common::{Pulled, child, numbers, within};

#[test]
fn what_a_feed_is_can_be_written_down() {
    within(|| {
        let plain: Feed = numbers(3).feed(Template::new("cat")).start();
        let kept: FeedWithInput<String> =
            numbers(3).feed(Template::new("cat")).keep_input().start();
        let tried: TryFeed<_, io::Error> =
            numbers(3).map(Ok).try_feed(Template::new("cat").text()).start();
        let marked: MarkedFeed<_, u8> =
            numbers(3).map(Marked::Item).feed_marked(Template::new("cat")).start();
        let plain: Vec<Result<BString, Error>> = plain.collect();
        let kept: Vec<Result<(String, BString), InputError<String>>> = kept.collect();
        let tried: Vec<Result<String, io::Error>> = tried.collect();
        let marked: Vec<Marked<Result<BString, Error>, u8>> = marked.collect();
        for (k, (((plain, kept), tried), marked)) in
            plain.into_iter().zip(kept).zip(tried).zip(marked).enumerate()
        {
            let k = k.to_string();
            assert_eq!(plain.unwrap(), k);
            assert_eq!(kept.unwrap(), (k.clone(), k.clone().into()));
            assert_eq!(tried.unwrap(), k);
            assert_eq!(marked.item().unwrap().unwrap(), k);
        }
    });
}

#[test]
fn every_builder_can_be_iterated_and_waited_for_with_a_limit() {
    within(|| {
        let cat = || Template::new("cat");
        for reply in numbers(1).feed(cat()) {
            assert_eq!(reply.unwrap(), "0");
        }
        for pair in numbers(1).feed(cat()).keep_input() {
            assert_eq!(pair.unwrap().0, "0");
        }
        for reply in numbers(1).map(Ok::<_, io::Error>).try_feed(cat()) {
            assert_eq!(reply.unwrap(), "0");
        }
        for entry in [Marked::Item("0"), Marked::Marker(7)].into_iter().feed_marked(cat()) {
            assert!(entry.marker().is_none_or(|marker| marker == 7));
        }
        let (_producer, items) = inlet::<Result<String, io::Error>>(1);
        assert!(items.try_feed(cat()).start().try_next().is_err());
        let (_producer, items) = inlet::<Marked<String, u8>>(1);
        assert!(items.feed_marked(cat()).start().try_next().is_err());
        let (_producer, items) = inlet::<String>(1);
        assert!(items.feed(cat()).keep_input().start().try_next().is_err());
    });
}

#[test]
fn an_input_error_is_an_error_whatever_the_input_is() {
    within(|| {
        let failure = || {
            let source =
                ["poison"].into_iter().map(|text| (text, Vec::<Box<dyn Fn() + Send>>::new()));
            let template =
                child("poison").encode(|(text, _): &(&str, Vec<Box<dyn Fn() + Send>>), request| {
                    request.push(text)
                });
            source.feed(template).keep_input().start().find_map(Result::err).unwrap()
        };
        let boxed: Box<dyn std::error::Error> = Box::new(failure());
        let InputError { input, error, .. } = failure();
        assert_eq!(input.unwrap().0, "poison");
        assert_eq!(error.request().unwrap(), "poison\n");
        // A cause is printed once, whoever prints it.
        let shown = boxed.to_string();
        assert!(shown.contains("packet 0") && boxed.source().is_none(), "{shown}");
        assert!(format!("{boxed:?}").contains("InputError"), "{boxed:?}");
        let _: fn(InputError<Rc<u8>>) -> Error = Error::from;
        let from: fn(InputError<_>) -> io::Error = io::Error::from;
        assert!(from(failure()).to_string().starts_with("packet 0: "));
    });
}

#[test]
fn finish_does_not_swallow_an_error_of_the_source() {
    within(|| {
        let source = [Ok("a"), Err(io::Error::other("the disk is gone")), Ok("b")];
        let feed = source.into_iter().try_feed(Template::new("cat")).start();
        assert_eq!(feed.finish().unwrap_err().to_string(), "the disk is gone");
        let source = [Marked::Item("a"), Marked::Marker(1), Marked::Item("b")];
        let feed = source.into_iter().feed_marked(Template::new("cat")).start();
        assert_eq!(feed.finish().unwrap().yielded, 3);
    });
}

#[test]
fn a_stopped_feed_answers_what_was_pulled_and_pulls_no_more() {
    within(|| {
        for order in [Order::Input, Order::Completion] {
            let pulled = Pulled::default();
            let source = pulled.numbers();
            let mut feed =
                source.feed(Template::new("cat")).workers(2).buffer(50).order(order).start();
            let stopper = feed.stopper();
            let mut replies: Vec<_> = feed.by_ref().take(100).map(Result::unwrap).collect();
            assert!(!stopper.is_stopped());
            stopper.clone().stop();
            stopper.stop();
            assert!(stopper.is_stopped());
            assert_eq!(feed.size_hint().0, 0);
            replies.extend(feed.by_ref().map(Result::unwrap));
            assert!(feed.next().is_none());
            // One may have been on its way when the stop came, and all that were pulled are here.
            assert_eq!(replies.len() as u64, pulled.get());
            assert!(replies.len() <= 151, "{}", replies.len());
            replies.sort_by_key(|reply| reply.to_string().parse::<u64>().unwrap());
            assert!(replies.iter().zip(0..).all(|(reply, k)| *reply == k.to_string()));
        }
    });
}

#[test]
fn a_stop_promises_no_items_any_more_and_finish_is_content() {
    within(|| {
        let mut feed = numbers(1_000).feed(Template::new("cat")).buffer(10).start();
        assert_eq!(feed.size_hint(), (1_000, Some(1_000)));
        feed.next().unwrap().unwrap();
        feed.stopper().stop();
        assert_eq!(feed.size_hint(), (0, Some(999)));
        assert!(feed.finish().unwrap().yielded <= 12);
    });
}

#[test]
fn a_source_inside_its_next_is_waited_for_and_its_item_answered() {
    within(|| {
        let (asked, is_asked) = mpsc::channel();
        let (give, given) = mpsc::channel::<&str>();
        let source = std::iter::from_fn(move || {
            asked.send(()).unwrap();
            given.recv().ok()
        });
        let mut feed = source.feed(Template::new("cat")).workers(1).start();
        is_asked.recv().unwrap();
        feed.stopper().stop();
        give.send("the last").unwrap();
        assert_eq!(feed.next().unwrap().unwrap(), "the last");
        assert!(feed.next().is_none());
        assert!(is_asked.try_recv().is_err(), "pulled once more");
    });
}

#[test]
fn threads_and_scopes_and_chains_are_stopped_softly_too() {
    within(|| {
        let mut squares: FeedThreads<u64, u64> = (0..).feed_threads_ordered(|n| n * n, 2, 10);
        assert_eq!(squares.next(), Some(0));
        squares.stopper().stop();
        assert!(squares.count() <= 11);
        let text = "x".to_owned();
        std::thread::scope(|scope| {
            let endless = std::iter::repeat(&text);
            let mut feed = endless.feed(Template::new("cat")).buffer(10).start_scoped(scope);
            feed.next().unwrap().unwrap();
            feed.stopper().stop();
            assert!(feed.finish().unwrap().yielded <= 12);
            let mut lengths = std::iter::repeat(&text)
                .in_threads()
                .buffer(10)
                .scoped(scope)
                .map(|text| text.len());
            assert_eq!(lengths.next(), Some(1));
            lengths.stopper().stop();
            assert!(lengths.count() <= 11);
        });
        let pulled = Pulled::default();
        let first = pulled.numbers().feed(Template::new("cat")).buffer(10).start();
        let stopper = first.stopper();
        let mut second = first.try_feed(Template::new("cat")).buffer(10).start();
        second.next().unwrap().unwrap();
        stopper.stop();
        assert_eq!(second.map(Result::unwrap).count() as u64 + 1, pulled.get());
    });
}

#[test]
fn an_error_of_a_pipelines_source_is_one_of_the_stage_source_in_its_place() {
    within(|| {
        let source = [Ok("1"), Err(io::Error::other("the disk is gone")), Ok("2"), Ok("x")];
        let run = Pipeline::try_new(source)
            .try_map(Stage::new("parse").workers(2).retries(2), |text| Ok(text.parse::<u32>()?))
            .feed("cat", Template::new("cat").encode(|n: &u32, request| request.push_display(n)))
            .run();
        let results: Vec<_> =
            run.items().map(|item| item.map_err(|error| error.to_string())).collect();
        assert_eq!(results[0], Ok("1".into()));
        assert_eq!(results[1], Err("stage `source`: the disk is gone".to_owned()));
        assert_eq!(results[2], Ok("2".into()));
        let said = results[3].as_ref().unwrap_err();
        assert!(said.starts_with("stage `parse`: invalid digit"), "{said}");
    });
}

#[test]
fn what_is_wrong_at_the_start_is_the_only_item_of_each() {
    within(|| {
        let nobody = |error: Error| assert_eq!(error.kind(), ErrorKind::Config);
        let kept = numbers(3).feed(Template::new("cat")).workers(0).keep_input().start();
        let items: Vec<_> = kept.collect();
        let [Err(InputError { input: None, error, .. })] = <[_; 1]>::try_from(items).unwrap()
        else {
            panic!("an input")
        };
        nobody(error);
        let tried =
            numbers(3).map(Ok::<_, Error>).try_feed(Template::new("cat")).workers(0).start();
        let items: Vec<_> = tried.collect();
        assert_eq!(items.len(), 1);
        nobody(items.into_iter().next().unwrap().unwrap_err());
    });
}
