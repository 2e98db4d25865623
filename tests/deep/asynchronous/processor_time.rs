//! What a poll, a drop and a start take of their thread's processor time.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use smol::stream::{self, Stream, StreamExt};
use subfeed::codec::Owned;
use subfeed::marker::{Marked, MarkedFeed};
use subfeed::{FeedExt, FeedStream, StreamFeedExt, Template};

use crate::executors::{block_on, one_thread};

/// Not the time that passes, in which others may have the processor.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

fn taken<A>(work: impl FnOnce() -> A) -> (A, Duration) {
    let before = processor_time();
    let result = work();
    (result, processor_time() - before)
}

/// The longest poll of a stream.
struct Measured<S> {
    stream: S,
    polls: u64,
    longest: Duration,
}

impl<S> Measured<S> {
    fn new(stream: S) -> Self {
        Self { stream, polls: 0, longest: Duration::ZERO }
    }
}

impl<S: Stream + Unpin> Stream for Measured<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let (polled, taken) = taken(|| Pin::new(&mut self.stream).poll_next(context));
        self.polls += 1;
        self.longest = self.longest.max(taken);
        polled
    }
}

const MOST: Duration = Duration::from_millis(1);

/// The least of some rounds: on a virtual processor the time of others may be counted as ours, some milliseconds at once
/// and in one round of five. What takes long by itself does so in each.
fn at_least<const N: usize>(mut measure: impl FnMut() -> [Duration; N]) -> [Duration; N] {
    let mut least = [Duration::MAX; N];
    for _ in 0..10 {
        for (least, measured) in least.iter_mut().zip(measure()) {
            *least = measured.min(*least);
        }
        if least.iter().all(|least| *least < MOST) {
            break;
        }
    }
    least
}

fn lines(n: usize, length: usize) -> impl Iterator<Item = String> + Send + 'static {
    (0..n).map(move |n| format!("{n:0>length$}"))
}

#[test]
fn no_poll_takes_a_millisecond() {
    // Windows small and large, records short and long, a consumer that is quick and one that is not.
    for (n, length, window, pause) in [
        (50_000, 8, 1_000, 0),
        (50_000, 8, 100_000, 0),
        (3_000, 10_000, 1_000, 0),
        (2_000, 100, 2_000, 2),
    ] {
        let measured = at_least(|| {
            block_on(async {
                // Made before, so that it is not the source that is measured.
                let source = stream::iter(lines(n, length).collect::<Vec<_>>());
                let cat = || Template::new("cat");
                let of_stream = source.feed_subprocesses_ordered(cat(), 2, window);
                let of_iterator = lines(n, length).feed_subprocesses_ordered(cat(), 2, window);
                let mut a = Measured::new(of_stream);
                let mut b = Measured::new(of_iterator.into_stream());
                for k in 0..n {
                    assert_eq!(a.next().await.unwrap().unwrap().len(), length);
                    assert_eq!(b.next().await.unwrap().unwrap().len(), length);
                    if pause > 0 && k % 500 == 0 {
                        std::thread::sleep(Duration::from_millis(pause));
                    }
                }
                assert!(a.next().await.is_none() && b.next().await.is_none());
                println!("{n} of {length} bytes, window {window}: {:?} {:?}", a.longest, b.longest);
                [a.longest, b.longest]
            })
        });
        assert!(measured.iter().all(|longest| *longest < MOST), "{measured:?}");
    }
}

#[test]
fn no_drop_takes_a_millisecond_whatever_is_under_way() {
    for (n, length, taken_before) in
        [(usize::MAX, 8, 0), (usize::MAX, 8, 10), (usize::MAX, 60_000, 10), (40_000, 1_000, 10)]
    {
        for stuck in [false, true] {
            let measured = at_least(|| block_on(drop_of(n, length, taken_before, stuck)));
            assert!(measured.iter().all(|taken| *taken < MOST), "{measured:?}");
        }
    }
}

/// A feed of a stream and one of an iterator are dropped when so many have been taken and the window is full.
async fn drop_of(n: usize, length: usize, taken_before: usize, stuck: bool) -> [Duration; 2] {
    let tool = if stuck { "head -n 20; trap '' TERM; sleep 60" } else { "cat" };
    let template = Template::shell(tool);
    let source = stream::iter(lines(n, length));
    let mut of_stream = source.feed_subprocesses(template.clone(), 2, 50_000);
    let mut of_iterator = lines(n, length).feed_subprocesses(template, 2, 50_000).into_stream();
    for _ in 0..taken_before {
        assert!(of_stream.next().await.is_some() && of_iterator.next().await.is_some());
    }
    let held = || of_iterator.monitor().snapshot().held_bytes;
    // Until what is held grows no more.
    let mut before = held();
    let fills = !stuck && taken_before > 0;
    for _ in 0..if fills { 100 } else { 0 } {
        std::thread::sleep(Duration::from_millis(50));
        if std::mem::replace(&mut before, held()) >= held() {
            break;
        }
    }
    let ((), a) = taken(|| drop(of_stream));
    let ((), b) = taken(|| drop(of_iterator));
    println!("{length} bytes, {before} held, stuck {stuck}: {a:?} and {b:?}");
    [a, b]
}

#[test]
fn what_a_start_takes() {
    let runtime = one_thread();
    runtime.block_on(async {
        let longest = Arc::new(AtomicU64::new(0));
        let mut all = Vec::new();
        for _ in 0..50 {
            let source = stream::iter(lines(10, 8));
            let (feed, taken) = taken(|| source.feed_subprocesses(Template::new("cat"), 4, 100));
            longest.fetch_max(u64::try_from(taken.as_micros()).unwrap(), SeqCst);
            all.push(taken);
            assert_eq!(feed.collect::<Vec<_>>().await.len(), 10);
        }
        all.sort();
        println!("start: median {:?}, longest {:?}", all[25], all[49]);
        // A thread is made; no child is started here.
        assert!(all[25] < MOST, "{:?}", all[25]);
    });
}

/// Two hundred thousand spans that do not belong together, all of them behind the packet that is waited for: the worst that a poll can
/// find, and a close or a drop.
#[test]
fn neither_a_poll_nor_a_drop_takes_a_millisecond_where_many_spans_wait() {
    let measured = at_least(|| {
        let (feed, polled) = block_on(polled_with_many_behind(true));
        let (closed, dropped) = (closed(feed), closed(block_on(polled_with_many_behind(false)).0));
        let (feed, _) = block_on(polled_with_many_behind(false));
        let ((), let_go) = taken(|| drop(feed));
        println!("a poll {polled:?}, a close {closed:?} or {dropped:?}, a drop {let_go:?}");
        [polled, closed, dropped, let_go]
    });
    assert!(measured.iter().all(|taken| *taken < MOST), "{measured:?}");
}

/// The longest poll of a close.
fn closed(feed: Many) -> Duration {
    let (mut close, mut longest) = (Box::pin(feed.close()), Duration::ZERO);
    block_on(poll_fn(|context| {
        let (polled, taken) = taken(|| close.as_mut().poll(context));
        longest = longest.max(taken);
        polled
    }));
    longest
}

type Many = FeedStream<MarkedFeed<Owned, usize>>;

/// A feed whose first packet is answered last, with a marker in each of the other places, and the longest poll of it until
/// the first item is here, or until there is nothing more to be taken if that never comes.
async fn polled_with_many_behind(is_answered: bool) -> (Many, Duration) {
    const MANY: usize = 200_000;
    let go = std::env::temp_dir().join(format!("subfeed-many-{}", std::process::id()));
    let wait = format!("until [ -e '{}' ]; do sleep 0.01; done", go.display());
    let tool = format!("while read -r x; do [ $x = last ] || {{ {wait}; }}; echo $x; done");
    let first = std::iter::once(Marked::Item("first"));
    let source = first.chain((1..MANY).map(Marked::Marker)).chain([Marked::Item("last")]);
    let tool = Template::shell(tool).in_flight(1);
    let feed = source.feed_marked(tool).workers(2).buffer(MANY + 1).start();
    let monitor = feed.monitor();
    let mut feed = Measured::new(feed.into_stream());
    // All of it at once, not what comes meanwhile.
    while monitor.snapshot().replies == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    if is_answered {
        std::fs::write(&go, "").unwrap();
        let first = feed.next().await;
        std::fs::remove_file(&go).unwrap();
        assert_eq!(first.unwrap().item().unwrap().unwrap(), "first");
        for n in 1..MANY / 2 {
            assert_eq!(feed.next().await.unwrap().marker(), Some(n));
        }
    } else {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        loop {
            let polled = Pin::new(&mut feed).poll_next(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
            if !woken.0.swap(false, SeqCst) {
                break;
            }
        }
    }
    (feed.stream, feed.longest)
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}
