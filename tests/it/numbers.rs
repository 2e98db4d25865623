//! One rule for bad numbers. Where items are `Result`s, a bad number is the one fatal `Err` and nothing fails at the
//! call; where items are plain values, it is a panic at the call. And one rule for limits: `None` takes each of them off.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use subfeed::pipeline::{Pipeline, Stage};
use subfeed::policy::{Halt, OnStall};
use subfeed::queue::{Feeder, Queue, inlet};
use subfeed::source::iterate_in_subprocess;
use subfeed::{Error, ErrorKind, FeedExt, Host, Launcher, Template, blocks};

use crate::common::within;

const ZERO: Duration = Duration::ZERO;

fn cat() -> Template {
    Template::new("cat")
}

/// It is a fatal error of the configuration that has this word.
#[track_caller]
fn is_config(error: &Error, word: &str) {
    assert!(error.is_fatal() && error.kind() == ErrorKind::Config, "{error}");
    assert!(error.to_string().contains(word), "no {word:?} in: {error}");
}

/// The items are one fatal error of the configuration.
#[track_caller]
fn is_the_one_item<O>(items: impl Iterator<Item = Result<O, Error>>, word: &str) {
    let mut items: Vec<_> = items.collect();
    assert_eq!(items.len(), 1, "{word}");
    is_config(&items.pop().unwrap().err().expect("an error"), word);
}

#[test]
fn a_bad_number_is_the_one_item_of_a_feed() {
    within(|| {
        let words = || ["a", "b"].into_iter();
        is_the_one_item(words().feed_subprocesses(cat(), 0, 1), "worker");
        is_the_one_item(words().feed_subprocesses_ordered(cat(), usize::MAX, 1), "workers");
        is_the_one_item(words().feed_subprocesses(cat(), 1, 0), "buffer_size");
        is_the_one_item(words().feed(cat()).workers(0).start(), "worker");
        is_the_one_item(
            words().map(Ok::<_, Error>).try_feed(cat()).buffer(0).start(),
            "buffer_size",
        );
        let pairs = words().feed(cat()).buffer(0).keep_input().start();
        is_the_one_item(pairs.map(|pair| pair.map_err(Error::from)), "buffer_size");
        is_config(&words().feed(cat()).workers(0).drain().unwrap_err(), "worker");
        std::thread::scope(|scope| {
            is_the_one_item(words().feed(cat()).workers(0).start_scoped(scope), "worker");
        });
    });
}

#[test]
fn a_bad_number_is_the_one_item_of_a_feed_of_blocks() {
    within(|| {
        let input = || blocks(&b"a\nb\n"[..]);
        is_the_one_item(input().feed(cat()).workers(0).start(), "worker");
        is_the_one_item(input().feed(cat()).buffer(0).start(), "buffer");
        is_the_one_item(input().block_size(0).feed(cat()).start(), "block_size");
        is_the_one_item(input().block_size(usize::MAX).feed(cat()).start(), "block_size");
    });
}

#[test]
fn a_bad_number_of_a_template_is_the_one_item() {
    within(|| {
        for (template, word) in [
            (cat().in_flight(0), "in_flight"),
            (cat().answers_at_eof(0), "answers_at_eof"),
            (cat().recycle_after_records(0), "recycle_after_records"),
            (cat().recycle_after_age(ZERO), "recycle_after_age"),
            (cat().give_up_after(0), "give_up_after"),
            (cat().halt(Halt::Soon(0)), "halt"),
            (cat().halt(Halt::Now(0)), "halt"),
            (cat().on_stall(OnStall::Recycle, ZERO), "on_stall"),
            (cat().backoff(Duration::from_secs(2), Duration::from_secs(1)), "backoff"),
            (cat().packet_timeout(ZERO), "packet_timeout"),
            (cat().start_timeout(ZERO), "start_timeout"),
            (cat().idle_timeout(ZERO), "idle_timeout"),
            (cat().run_timeout(ZERO), "run_timeout"),
        ] {
            is_the_one_item(["a"].into_iter().feed_subprocesses(template, 1, 1), word);
        }
        for (launcher, word) in [
            (Launcher::ssh(["n"]).starts(0, ZERO), "starts"),
            (Launcher::ssh(["n"]).least_in_flight(0), "least_in_flight"),
            (Launcher::ssh(["n"]).connect_within(ZERO), "connect_within"),
            (Launcher::ssh(["n"]).silence(ZERO), "silence"),
            (Launcher::ssh([Host::new("n").weight(0)]), "weight"),
        ] {
            is_the_one_item(["a"].into_iter().feed_subprocesses(cat().via(launcher), 1, 1), word);
        }
    });
}

#[test]
fn a_bad_number_is_what_the_other_doors_for_subprocesses_give_first() {
    within(|| {
        is_the_one_item(iterate_in_subprocess(cat(), 0).iter(), "buffer_size");
        for (workers, room, word) in [(0, 1, "worker"), (1, 0, "buffer_size")] {
            let mut queue = Queue::subprocesses(cat(), workers, room);
            let _ = queue.put("a");
            is_config(&queue.get().unwrap().unwrap_err(), word);
            queue.stop();
            assert!(queue.get().is_none());
            let feeder = Feeder::<String>::new(cat(), workers, room);
            is_config(&feeder.finish().unwrap_err(), word);
        }
    });
}

#[cfg(feature = "threads")]
#[test]
fn a_bad_number_of_a_stage_is_the_one_item_of_its_pipeline() {
    within(|| {
        let source = || Pipeline::new(["a", "b"]);
        let stage = || Stage::new("x");
        for (pipeline, word) in [
            (source().map(stage().workers(0), str::len), "worker"),
            (source().map(stage().buffer(0), str::len), "buffer"),
            (source().try_map(stage().workers(0), |text| Ok(text.len())), "worker"),
            (source().iterate(stage().buffer(0), |items| items.map(str::len)), "buffer"),
            (source().chunk("x", 0, None).map("y", |chunk| chunk.len()), "size"),
            (source().feed(stage().workers(0), cat().decode(|reply| reply.len())), "worker"),
            (source().feed(stage().buffer(0), cat().decode(|reply| reply.len())), "buffer"),
        ] {
            let mut items: Vec<_> = pipeline.run().items().collect();
            assert_eq!(items.len(), 1, "{word}");
            let error = items.pop().unwrap().unwrap_err();
            assert_eq!(error.stage(), "x");
            is_config(error.cause().unwrap().downcast_ref().expect("an error of ours"), word);
            assert_eq!(error.to_string().matches(word).count(), 1, "{error}");
        }
    });
}

#[test]
fn a_bad_number_is_a_panic_at_the_call_where_items_are_plain_values() {
    fn panics(call: impl FnOnce(), word: &str) {
        let payload = catch_unwind(AssertUnwindSafe(call)).expect_err(word);
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string));
        let text = text.expect("a message");
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
    panics(|| drop(inlet::<u8>(0)), "capacity");
    panics(|| drop(Queue::new(0, |items: subfeed::queue::Inlet<u8>| items)), "capacity");
    #[cfg(feature = "threads")]
    {
        panics(|| drop((0..3).feed_threads(|n| n, 0, 1)), "worker");
        panics(|| drop((0..3).feed_threads_ordered(|n| n, 1, 0)), "buffer");
        panics(|| drop((0..3).in_threads().workers(0).map(|n| n)), "worker");
        panics(|| drop((0..3).in_threads().buffer(0).map_init(|| (), |(), n| n)), "buffer");
        let pool =
            std::sync::Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap());
        panics(
            || std::thread::scope(|scope| drop((0..3).in_threads().pool(&pool).scoped(scope))),
            "both were set",
        );
        panics(|| drop(Queue::threads(|n: u8| n, 0, 1)), "worker");
        panics(|| drop(Queue::threads(|n: u8| n, 1, 0)), "capacity");
    }
}

#[test]
fn nothing_takes_each_limit_off_again() {
    within(|| {
        let tiny = Duration::from_nanos(1);
        let slow =
            Template::shell("sleep 0.1; echo ready; while read -r x; do echo $x; done; sleep 0.1")
                .packet_timeout(tiny)
                .packet_timeout(None)
                .start_timeout(tiny)
                .start_timeout(None)
                .idle_timeout(tiny)
                .idle_timeout(None)
                .run_timeout(tiny)
                .run_timeout(None)
                .end_timeout(tiny)
                .end_timeout(None)
                .recycle_after_age(tiny)
                .recycle_after_age(None)
                .ready("ready\n", tiny)
                .ready("ready\n", None);
        let feed = ["a", "b"].into_iter().feed_subprocesses_ordered(slow, 1, 8);
        let monitor = feed.monitor();
        assert_eq!(feed.collect::<Result<Vec<_>, _>>().unwrap(), ["a", "b"]);
        let done = monitor.snapshot();
        assert_eq!((done.starts, done.timeouts, done.signals), (1, 0, 0));
    });
}

#[test]
fn nothing_takes_the_limits_of_a_launcher_off_again() {
    let tiny = Duration::from_nanos(1);
    within(move || {
        // A `sh` that runs its words, as ssh does on another machine.
        let launcher = Launcher::remote(["sh", "-c", "sleep 0.1; exec \"$@\"", "sh"])
            .connect_within(tiny)
            .connect_within(None)
            .silence(tiny)
            .silence(None);
        let feed = ["a", "b"].into_iter().feed_subprocesses_ordered(cat().via(launcher), 1, 8);
        assert_eq!(feed.collect::<Result<Vec<_>, _>>().unwrap(), ["a", "b"]);
    });
}

#[cfg(feature = "async")]
#[test]
fn a_bad_number_of_a_pool_is_what_its_calls_return() {
    use subfeed::Pool;
    within(|| {
        let words = || "x".to_owned();
        for (pool, word) in [
            (Pool::new(cat(), 0, 1), "worker"),
            (Pool::new(cat(), 1, 0), "buffer_size"),
            (Pool::new(cat(), 1, 1).health_request(ZERO, words), "health_request"),
        ] {
            is_config(&pool.call_blocking(words()).unwrap_err(), word);
        }
        let pool = Pool::new(cat(), 1, 1).idle_after(Duration::from_nanos(1)).idle_after(None);
        assert_eq!(pool.call_blocking(words()).unwrap(), "x");
    });
}
