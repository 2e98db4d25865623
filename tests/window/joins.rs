//! Feeds that go away on threads of this crate's: no thread waits for itself, nor two for each other, and everything
//! ends.
//!
//! Each test looks at `/proc`, in a process of its own.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use bstr::BString;
use subfeed::block::BlockFeed;
use subfeed::channel::Redirect;
use subfeed::pipeline::{Pipeline, Run, Stage};
use subfeed::queue::{Feeder, Inlet, Queue, inlet};
use subfeed::source::iterate_in_subprocess;
use subfeed::{BoxError, Feed, FeedBuilder, FeedExt, FeedThreads, Template};

use crate::alone;
use crate::common::{Belongings, child, children, eventually, is_running, numbers};

/// Where a feed lies that may be taken away from anywhere.
struct Shelf<F>(Arc<Lies<F>>);

struct Lies<F> {
    feed: Mutex<Option<F>>,
    gone: AtomicBool,
}

impl<F> Shelf<F> {
    fn new() -> Self {
        Self(Arc::new(Lies { feed: Mutex::new(None), gone: AtomicBool::new(false) }))
    }

    fn put(&self, feed: F) {
        *self.0.feed.lock().unwrap() = Some(feed);
    }

    /// Drops what lies there, if anything does, on this thread.
    fn clear(&self) {
        let feed = self.0.feed.lock().unwrap().take();
        let some = feed.is_some();
        drop(feed);
        self.0.gone.fetch_or(some, SeqCst);
    }

    fn is_empty(&self) -> bool {
        self.0.feed.lock().unwrap().is_none()
    }

    /// Waits until what was here has been dropped, and the drop has returned.
    fn goes(&self) {
        eventually("the feed is dropped", || self.0.gone.load(SeqCst));
    }
}

impl<F> Clone for Shelf<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The same, and until nothing is left of it.
fn goes<F>(before: &Belongings, shelf: &Shelf<F>) {
    shelf.goes();
    before.restored();
}

/// With the threads of the global pool, which stay.
fn warm() -> Belongings {
    assert_eq!((0..4).feed_threads_ordered(|n: u32| n, 2, 9).count(), 4);
    Belongings::now()
}

/// Without end; with the given item, the feed on the shelf is dropped.
fn source<F: Send + 'static>(
    shelf: &Shelf<F>,
    at: u64,
) -> impl Iterator<Item = String> + Send + 'static {
    let shelf = shelf.clone();
    (0..).map(move |n: u64| {
        if n == at {
            // Not before it is there.
            eventually("the feed is on the shelf", || !shelf.is_empty());
            shelf.clear();
        }
        n.to_string()
    })
}

#[test]
fn a_feed_that_its_own_source_drops_goes() {
    alone!(|| {
        let before = warm();
        for at in [0, 1, 7] {
            let shelf: Shelf<Feed> = Shelf::new();
            shelf.put(source(&shelf, at).feed_subprocesses_ordered(child("echo"), 2, 9));
            goes(&before, &shelf);
            let shelf: Shelf<Feed> = Shelf::new();
            shelf.put(source(&shelf, at).feed_subprocesses(child("silent"), 2, 9));
            goes(&before, &shelf);
            let shelf: Shelf<BlockFeed> = Shelf::new();
            shelf.put(source(&shelf, at).feed(child("deaf")).workers(2).blocks());
            goes(&before, &shelf);
            let shelf: Shelf<FeedThreads<String, usize>> = Shelf::new();
            shelf.put(source(&shelf, at).feed_threads_ordered(|text: String| text.len(), 2, 9));
            goes(&before, &shelf);
            let shelf: Shelf<Run<BString>> = Shelf::new();
            let stage = |name| Stage::new(name).workers(2);
            let stages = Pipeline::new(source(&shelf, at)).feed(stage("cat"), Template::new("cat"));
            shelf.put(stages.map(stage("same"), |text| text).run());
            goes(&before, &shelf);
        }
    });
}

#[test]
fn a_feed_whose_last_owner_is_its_source_goes() {
    struct App {
        _feed: Mutex<Option<Feed>>,
    }
    alone!(|| {
        let before = Belongings::now();
        for items in [0, 5, 999] {
            let app = Arc::new(App { _feed: Mutex::default() });
            let owner = Arc::clone(&app);
            let (producer, inlet) = inlet(1_000);
            let source = inlet.inspect(move |_: &String| drop(owner._feed.lock()));
            *app._feed.lock().unwrap() =
                Some(source.feed_subprocesses_ordered(child("echo"), 2, 1_000));
            numbers(items).for_each(|item| producer.put(item).unwrap());
            drop(app);
            drop(producer);
            before.restored();
        }
    });
}

#[test]
fn a_feed_that_its_own_encode_drops_goes() {
    alone!(|| {
        let before = Belongings::now();
        let shelf: Shelf<Feed> = Shelf::new();
        let drops = shelf.clone();
        let template = child("echo").encode(move |n: &u32, request| {
            if *n == 3 {
                eventually("the feed is on the shelf", || !drops.is_empty());
                drops.clear();
            }
            request.push(n.to_string());
        });
        shelf.put((0..).feed_subprocesses_ordered(template, 2, 9));
        goes(&before, &shelf);
    });
}

/// `check` runs on the event loop.
fn checks<F: Send + 'static>(shelf: &Shelf<F>) -> Template {
    let drops = shelf.clone();
    let first = AtomicBool::new(true);
    child("echo").check(move |_, _| {
        if first.swap(false, SeqCst) {
            eventually("the feed is on the shelf", || !drops.is_empty());
            drops.clear();
        }
        Ok::<_, BoxError>(())
    })
}

#[test]
fn a_feed_that_its_own_check_drops_goes() {
    alone!(|| {
        let before = Belongings::now();
        let shelf: Shelf<Feed> = Shelf::new();
        shelf.put(numbers(1_000_000).feed_subprocesses_ordered(checks(&shelf), 2, 9));
        goes(&before, &shelf);
    });
}

/// A machine may be too busy to show it once, not always.
#[test]
fn a_feed_that_goes_on_the_event_loop_of_another_does_not_hold_it_up() {
    alone!(|| {
        let before = Belongings::now();
        for _ in 0..20 {
            let shelf: Shelf<Feed> = Shelf::new();
            let drops = shelf.clone();
            let template = Template::new("cat").check(move |_, _| {
                drops.clear();
                Ok::<_, BoxError>(())
            });
            // Its children need the kill sequence, which takes its time.
            let mut stubborn =
                numbers(1_000_000).feed_subprocesses_ordered(child("stubborn"), 2, 9);
            stubborn.next().unwrap().unwrap();
            shelf.put(stubborn);
            let stubborn = children();
            let mut feed = numbers(10).feed_subprocesses_ordered(template, 1, 9);
            assert_eq!(feed.next().unwrap().unwrap(), "0");
            assert!(shelf.is_empty());
            let answered_meanwhile = stubborn.iter().all(|pid| is_running(*pid));
            drop(feed);
            before.restored();
            if answered_meanwhile {
                return;
            }
        }
        panic!("the event loop waited for another one's children");
    });
}

#[test]
fn records_that_their_own_check_drops_go() {
    alone!(|| {
        let before = Belongings::now();
        let shelf = Shelf::new();
        let drops = shelf.clone();
        let first = AtomicBool::new(true);
        let template = Template::shell("while :; do echo x; done").check(move |_, _| {
            if first.swap(false, SeqCst) {
                eventually("the records are on the shelf", || !drops.is_empty());
                drops.clear();
            }
            Ok::<_, BoxError>(())
        });
        shelf.put(iterate_in_subprocess(template, 9).iter());
        goes(&before, &shelf);
    });
}

#[test]
fn a_feed_that_its_own_task_drops_goes() {
    alone!(|| {
        let before = warm();
        let shelf: Shelf<FeedThreads<u32, u32>> = Shelf::new();
        let drops = shelf.clone();
        let task = move |n: u32| {
            if n == 5 {
                eventually("the feed is on the shelf", || !drops.is_empty());
                drops.clear();
            }
            n
        };
        shelf.put((0..).feed_threads_ordered(task, 2, 9));
        goes(&before, &shelf);
    });
}

#[test]
fn feeds_whose_sources_drop_each_other_go() {
    alone!(|| {
        let before = Belongings::now();
        for round in 0..20 {
            for feeds in [2, 3] {
                let shelves: Vec<Shelf<Feed>> = (0..feeds).map(|_| Shelf::new()).collect();
                let together = Arc::new(Barrier::new(feeds));
                for i in 0..feeds {
                    let (next, together) =
                        (shelves[(i + 1) % feeds].clone(), Arc::clone(&together));
                    let source = (0..1_000_000).map(move |n: u64| {
                        if n == 3 {
                            eventually("the next feed is on its shelf", || !next.is_empty());
                            together.wait();
                            next.clear();
                        }
                        n.to_string()
                    });
                    let worker = if round % 2 == 0 { "echo" } else { "silent" };
                    shelves[i].put(source.feed_subprocesses_ordered(child(worker), 1, 9));
                }
                shelves.iter().for_each(Shelf::goes);
                if round % 5 == 0 {
                    before.restored();
                }
            }
        }
        before.restored();
    });
}

#[test]
fn feeds_whose_checks_drop_each_other_go() {
    alone!(|| {
        let before = Belongings::now();
        let (one, other) = (Shelf::new(), Shelf::new());
        let drops =
            |shelf: &Shelf<Feed>| numbers(1_000_000).feed_subprocesses_ordered(checks(shelf), 2, 9);
        one.put(drops(&other));
        other.put(drops(&one));
        // The first that is dropped may not come to drop the other.
        eventually("one of them is dropped", || one.is_empty() || other.is_empty());
        one.clear();
        other.clear();
        before.restored();
    });
}

/// An intake waits for what its source owned: what is left early in the source is gone before the next is begun.
#[test]
fn feeds_that_a_source_makes_and_leaves_do_not_pile_up() {
    alone!(|| {
        let before = warm();
        let most = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&most);
        let inner = (0..4).flat_map(move |n| {
            seen.fetch_max(children().len(), SeqCst);
            let numbers = (0..1_000).map(move |m| format!("{n} {m}"));
            let feed = numbers.feed_subprocesses_ordered(child("stubborn"), 1, 9);
            feed.take(2).map(Result::unwrap)
        });
        let outer = inner.feed_threads_ordered(|text: BString| text.to_string(), 2, 1);
        assert_eq!(outer.last().unwrap(), "3 1");
        assert_eq!(most.load(SeqCst), 0, "children of one when the next is begun");
        before.restored();
    });
}

#[test]
fn a_chain_goes_that_goes_on_one_of_its_own_intakes() {
    alone!(|| {
        let before = warm();
        let shelf: Shelf<Feed> = Shelf::new();
        let cat = || Template::new("cat");
        let first = source(&shelf, 30).feed_subprocesses_ordered(cat(), 2, 9);
        let second = first.map(Result::unwrap).feed_threads(|text| text, 2, 9);
        let third = second.feed_subprocesses_ordered(cat(), 2, 9);
        // Somebody has to take replies, or the first source never comes to its thirtieth item.
        shelf.put(third);
        while let Some(feed) = &mut *shelf.0.feed.lock().unwrap() {
            if feed.next().is_none() {
                break;
            }
            if feed.monitor().snapshot().yielded > 12 {
                break;
            }
        }
        goes(&before, &shelf);
    });
}

#[test]
fn a_scoped_feed_that_its_own_source_drops_lets_its_scope_end() {
    alone!(|| {
        let before = Belongings::now();
        let text = "x".to_owned();
        thread::scope(|scope| {
            // The scope's end waits for the intake, which is where the feed goes.
            let shelf = Shelf::new();
            let (drops, text) = (shelf.clone(), text.as_str());
            let source = (0..).map(move |n| {
                if n == 3 {
                    eventually("the feed is on the shelf", || !drops.is_empty());
                    drops.clear();
                }
                text
            });
            shelf.put(source.feed(Template::new("cat")).workers(2).start_scoped(scope));
        });
        before.restored();
    });
}

#[test]
fn a_feeder_that_its_own_encode_drops_goes() {
    alone!(|| {
        let before = Belongings::now();
        let shelf: Shelf<Feeder<u32>> = Shelf::new();
        let drops = shelf.clone();
        let template =
            Template::new("cat").stdout(Redirect::Null).encode(move |n: &u32, request| {
                if *n == 3 {
                    eventually("the feeder is on the shelf", || !drops.is_empty());
                    drops.clear();
                }
                request.push(n.to_string());
            });
        let feeder = Feeder::new(template, 2, 100);
        (0..10).for_each(|n| feeder.feed(n).unwrap());
        shelf.put(feeder);
        goes(&before, &shelf);
    });
}

#[test]
fn a_queue_that_its_own_source_drops_goes() {
    alone!(|| {
        let before = Belongings::now();
        let shelf: Shelf<Queue<String, Feed>> = Shelf::new();
        let drops = shelf.clone();
        let queue = Queue::new(10, |items: Inlet<String>| {
            let source = items.inspect(move |_| drops.clear());
            source.feed_subprocesses_ordered(Template::new("cat"), 2, 9)
        });
        let producer = queue.producer();
        shelf.put(queue);
        producer.put("x".to_owned()).unwrap();
        goes(&before, &shelf);
        assert!(producer.is_stopped());
    });
}

/// A builder that is never started holds nothing that could wait.
#[test]
fn a_builder_may_go_anywhere() {
    alone!(|| {
        let before = Belongings::now();
        let builder: FeedBuilder<_, _, _> = numbers(9).feed(Template::new("cat"));
        let source = (0..5).map(move |n: u32| {
            let _ = &builder;
            n.to_string()
        });
        assert_eq!(source.feed_subprocesses_ordered(Template::new("cat"), 1, 9).count(), 5);
        before.restored();
    });
}
