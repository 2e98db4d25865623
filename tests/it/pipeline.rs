//! Pipelines: stages in a row keep order, markers and failures in their place, and end together.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, SyncSender, sync_channel};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use subfeed::framing::ReplyFraming;
use subfeed::marker::Marked;
use subfeed::pipeline::{OnError, Pipeline, Profile, Run, Stage, StageError};
use subfeed::{BoxError, ErrorKind, Template};

use crate::common::{eventually, within};

const NEVER: Duration = Duration::MAX;

fn items<T>(run: Run<T>) -> Result<Vec<T>, StageError> {
    run.items().collect()
}

/// Counts what is pulled from an endless source, and tells when it is dropped.
struct Endless {
    pulled: Arc<AtomicUsize>,
    dropped: Arc<AtomicBool>,
}

impl Endless {
    fn new() -> (Self, Arc<AtomicUsize>, Arc<AtomicBool>) {
        let (pulled, dropped) = <(Arc<AtomicUsize>, Arc<AtomicBool>)>::default();
        (Self { pulled: Arc::clone(&pulled), dropped: Arc::clone(&dropped) }, pulled, dropped)
    }
}

impl Iterator for Endless {
    type Item = usize;
    fn next(&mut self) -> Option<usize> {
        Some(self.pulled.fetch_add(1, SeqCst))
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.dropped.store(true, SeqCst);
    }
}

/// An item each time that somebody asks for one, until the asker is gone.
fn by_hand<T: Send + 'static>() -> (SyncSender<T>, impl Iterator<Item = T> + Send + 'static) {
    let (give, source) = sync_channel(1_000);
    (give, source.into_iter())
}

#[test]
fn results_keep_the_order_of_the_source_whatever_the_widths() {
    within(|| {
        let run = Pipeline::new(0..2_000u64)
            .map(Stage::new("slow now and then").workers(4).buffer(50), |n| {
                if n % 97 == 0 {
                    std::thread::yield_now();
                }
                n + 1
            })
            .filter_map(Stage::new("no threes").workers(3).buffer(7), |n| (n % 3 != 0).then_some(n))
            .flat_map(Stage::new("twice").workers(2).buffer(1), |n| [n, n])
            .run();
        let expected: Vec<u64> = (1..=2_000).filter(|n| n % 3 != 0).flat_map(|n| [n, n]).collect();
        assert_eq!(items(run).unwrap(), expected);
    });
}

#[test]
fn a_mark_overtakes_nothing_and_is_overtaken_by_nothing_in_any_kind_of_stage() {
    within(|| {
        let source = (0..30u32).flat_map(|n| {
            let marker = (n % 3 == 2).then_some(Marked::Marker(n));
            [Marked::Item(n)].into_iter().chain(marker)
        });
        let seen = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&seen);
        let run = Pipeline::with_markers(source)
            .map(Stage::new("map").workers(3), |n| n)
            .try_map(Stage::new("try").workers(3), |n| Ok(*n))
            .filter_map("filter", Some)
            .flat_map("flat", |n| [n])
            .map("text", |n| n.to_string())
            .feed(Stage::new("cat").workers(2).buffer(5), Template::new("cat"))
            .iterate("iterate", |items| items.map(|line| line.to_string().parse::<u32>().unwrap()))
            .chunk("chunk", 100, NEVER)
            .inspect_markers(move |_| {
                count.fetch_add(1, SeqCst);
            })
            .flatten()
            .run();
        let out: Vec<Marked<u32, u32>> = run.collect::<Result<_, _>>().unwrap();
        let expected: Vec<_> = (0..30u32)
            .flat_map(|n| {
                let marker = (n % 3 == 2).then_some(Marked::Marker(n));
                [Marked::Item(n)].into_iter().chain(marker)
            })
            .collect();
        assert_eq!(out, expected);
        assert_eq!(seen.load(SeqCst), 10);
    });
}

#[test]
fn a_failure_passes_the_later_stages_and_names_its_own() {
    within(|| {
        let run = Pipeline::new(0..10)
            .try_map("odd only", |n| {
                if n % 2 == 1 { Ok(*n) } else { Err(format!("{n} is even").into()) }
            })
            .map("later", |n| n * 10)
            .run();
        let results: Vec<_> = run.items().collect();
        for (n, result) in results.iter().enumerate() {
            match result {
                Ok(ten) => assert_eq!(*ten, n * 10),
                Err(error) => {
                    assert_eq!((error.stage(), error.attempts()), ("odd only", 1));
                    assert_eq!(error.to_string(), format!("stage `odd only`: {n} is even"));
                    let cause = error.cause().expect("what the closure said");
                    assert_eq!(cause.to_string(), format!("{n} is even"));
                    assert!(
                        std::error::Error::source(error).is_none(),
                        "it would be printed twice"
                    );
                }
            }
        }
        assert_eq!(results.iter().filter(|result| result.is_err()).count(), 5);
    });
}

#[test]
fn an_item_is_tried_one_plus_retries_times_in_its_place() {
    within(|| {
        let tries = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&tries);
        let pipeline = Pipeline::new(0..20).try_map(Stage::new("shaky").retries(3), move |&n| {
            if n == 7 {
                // Well at the last attempt.
                return if count.fetch_add(1, SeqCst) < 3 { Err("not yet".into()) } else { Ok(n) };
            }
            if n == 13 { Err("never".into()) } else { Ok(n) }
        });
        let control = pipeline.control();
        let results: Vec<_> = pipeline.run().items().collect();
        let failed: Vec<_> = (0..20).filter(|&n| results[n].is_err()).collect();
        assert_eq!(failed, [13]);
        let error = results[13].as_ref().unwrap_err();
        assert_eq!(error.to_string(), "stage `shaky`: never (after 4 attempts)");
        assert_eq!(tries.load(SeqCst), 4);
        let stage = &control.stages()[0];
        assert_eq!((stage.taken, stage.given, stage.failed, stage.retried), (20, 19, 1, 6));
    });
}

#[test]
fn a_panic_fails_its_item_and_the_worker_is_replaced() {
    within(|| {
        struct Worker(Arc<AtomicUsize>);
        impl Drop for Worker {
            fn drop(&mut self) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        let (begun, ended) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let (begin, end) = (Arc::clone(&begun), Arc::clone(&ended));
        let run = Pipeline::new(0..9)
            .map_init(
                Stage::new("fragile").workers(1),
                move || {
                    begin.fetch_add(1, SeqCst);
                    Worker(Arc::clone(&end))
                },
                |_, n| if n % 3 == 0 { panic!("{n} is a third") } else { n },
            )
            .run();
        let results: Vec<_> = run.items().collect();
        let errors: Vec<_> = results.iter().filter_map(|r| r.as_ref().err()).collect();
        assert_eq!(errors.len(), 3);
        assert!(errors.iter().all(|error| error.is_panic() && error.stage() == "fragile"));
        assert_eq!(errors[1].to_string(), "stage `fragile`: panicked: 3 is a third");
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 6);
        // One for 0, and one after each panic.
        assert_eq!(begun.load(SeqCst), 4);
        eventually("every worker has ended", || ended.load(SeqCst) == 4);
    });
}

#[test]
fn a_worker_that_cannot_begin_fails_its_items_and_nothing_hangs() {
    within(|| {
        let begin = || -> u32 { panic!("no licence") };
        let run = Pipeline::new(0..5).map_init(Stage::new("s").workers(2), begin, |_, n| n).run();
        let results: Vec<_> = run.items().collect();
        assert_eq!(results.len(), 5);
        for result in results {
            assert_eq!(result.unwrap_err().to_string(), "stage `s`: panicked: no licence");
        }
    });
}

#[test]
fn what_follows_a_failure_is_finished_or_stopped_as_asked() {
    within(|| {
        let failing = |n: &usize| if *n == 100 { Err("a hundred".into()) } else { Ok(*n) };
        let stage = || Stage::new("check").workers(2).buffer(10);

        let run = Pipeline::new(0..1_000usize).try_map(stage(), failing).run();
        assert_eq!(run.items().filter(Result::is_ok).count(), 999);

        let (source, pulled, _) = Endless::new();
        let run = Pipeline::new(source).try_map(stage(), failing).run().on_error(OnError::Stop);
        let results: Vec<_> = run.items().collect();
        // What was pulled when it was yielded is finished, and no more.
        assert_eq!(results.len(), pulled.load(SeqCst));
        assert!((101..=111).contains(&results.len()), "{}", results.len());
        assert!(results[100].is_err() && results.iter().filter(|r| r.is_err()).count() == 1);

        let (source, _, dropped) = Endless::new();
        let run = Pipeline::new(source).try_map(stage(), failing).run().on_error(OnError::Abort);
        let results: Vec<_> = run.items().collect();
        assert_eq!(results.len(), 101);
        eventually("the source is gone", || dropped.load(SeqCst));

        let (source, _, _) = Endless::new();
        let run = Pipeline::new(source).try_map(stage(), failing).run().on_error(OnError::Stop);
        assert_eq!(run.finish().unwrap_err().to_string(), "stage `check`: a hundred");
    });
}

#[test]
fn stopping_ends_an_endless_source_and_finishes_what_was_pulled() {
    within(|| {
        let (source, pulled, dropped) = Endless::new();
        let pipeline = Pipeline::new(source).map("a", |n| n).map("b", |n| n);
        let control = pipeline.control();
        let mut run = pipeline.run().items();
        for n in 0..500 {
            assert_eq!(run.next().unwrap().unwrap(), n);
        }
        control.stop();
        control.stop();
        assert!(control.is_stopped());
        let rest: Vec<_> = run.map(Result::unwrap).collect();
        assert_eq!(rest, (500..pulled.load(SeqCst)).collect::<Vec<_>>());
        eventually("the source is gone", || dropped.load(SeqCst));
    });
}

#[test]
fn the_look_ahead_is_the_sum_of_the_windows() {
    within(|| {
        for (stages, expected) in [(1, 2), (2, 4), (3, 6)] {
            let (source, pulled, dropped) = Endless::new();
            let mut pipeline = Pipeline::new(source);
            for _ in 0..stages {
                pipeline = pipeline.map(Stage::new("stage").buffer(2), |n| n);
            }
            eventually("the windows are full", || pulled.load(SeqCst) == expected);
            let mut run = pipeline.run();
            assert_eq!(run.next().unwrap().unwrap(), Marked::Item(0));
            eventually("one more is pulled", || pulled.load(SeqCst) == expected + 1);
            drop(run);
            assert_eq!(pulled.load(SeqCst), expected + 1);
            eventually("the source is gone", || dropped.load(SeqCst));
        }
    });
}

#[test]
fn an_iterator_over_the_items_keeps_state_and_gives_any_number() {
    within(|| {
        let run = Pipeline::new([3, 1, 2])
            .iterate("sorted, twice", |items| {
                let mut all: Vec<i32> = items.collect();
                all.sort_unstable();
                all.clone().into_iter().chain(all)
            })
            .run();
        assert_eq!(items(run).unwrap(), [1, 2, 3, 1, 2, 3]);

        // One that ends early ends the pipeline, and stops what is before it.
        let (source, _, dropped) = Endless::new();
        let run = Pipeline::new(source)
            .map("before", |n| n)
            .iterate("five", |items| items.take(5))
            .map("behind", |n| n)
            .run();
        assert_eq!(items(run).unwrap(), [0, 1, 2, 3, 4]);
        eventually("the source is gone", || dropped.load(SeqCst));

        // One that takes nothing, too.
        let run = Pipeline::new(0..).iterate("nothing", |_| std::iter::empty::<u8>()).run();
        assert_eq!(items(run).unwrap().len(), 0);
    });
}

#[test]
fn a_panic_of_an_iterator_is_a_failure_and_its_end() {
    within(|| {
        let (source, _, dropped) = Endless::new();
        let run = Pipeline::new(source)
            .map("before", |n| n)
            .iterate("crash", |items| items.inspect(|&n| assert!(n < 500, "item {n} is too much")))
            .map("behind", |n| n)
            .run();
        let results: Vec<_> = run.items().collect();
        assert_eq!(results.len(), 501);
        let error = results[500].as_ref().unwrap_err();
        assert_eq!(error.to_string(), "stage `crash`: panicked: item 500 is too much");
        eventually("the source is gone", || dropped.load(SeqCst));

        let run =
            Pipeline::new(0..).iterate("at once", |_| -> std::iter::Empty<u8> { panic!("no") });
        assert_eq!(
            run.run().items().map(|r| r.unwrap_err().to_string()).collect::<Vec<_>>(),
            ["stage `at once`: panicked: no"]
        );
    });
}

#[test]
fn a_chunk_is_given_when_it_is_due_though_the_source_is_silent() {
    within(|| {
        let (give, source) = by_hand();
        let mut run =
            Pipeline::new(source).chunk("chunk", 3, Duration::from_millis(20)).run().items();
        give.send(1).unwrap();
        // Nothing else comes: only the clock can give this.
        assert_eq!(run.next().unwrap().unwrap(), [1]);
        for n in 2..=6 {
            give.send(n).unwrap();
        }
        let mut more = Vec::new();
        while more.len() < 5 {
            let chunk = run.next().unwrap().unwrap();
            assert!((1..=3).contains(&chunk.len()));
            more.extend(chunk);
        }
        assert_eq!(more, [2, 3, 4, 5, 6]);
        give.send(7).unwrap();
        drop(give);
        assert_eq!(run.next().unwrap().unwrap(), [7]);
        assert!(run.next().is_none() && run.next().is_none());
    });
}

#[test]
fn a_slow_trickle_does_not_put_a_chunk_off() {
    within(|| {
        // An item each time the consumer has a chunk: the oldest is always due before the chunk is full.
        let (give, source) = by_hand();
        let mut run =
            Pipeline::new(source).chunk("c", 1_000, Duration::from_millis(5)).run().items();
        for n in 0..20 {
            give.send(n).unwrap();
            assert_eq!(run.next().unwrap().unwrap(), [n]);
        }
    });
}

#[test]
fn a_chunk_may_be_larger_than_every_window_and_ends_before_a_mark() {
    within(|| {
        let source = (0..1_000u32)
            .map(Marked::Item)
            .chain([Marked::Marker("end of part")])
            .chain([Marked::Item(1_000)]);
        let run = Pipeline::with_markers(source)
            .map(Stage::new("narrow").buffer(1), |n| n)
            .chunk(Stage::new("chunk").buffer(1), 700, NEVER)
            .map("len", |chunk| chunk.len())
            .run();
        let out: Vec<_> = run.collect::<Result<_, _>>().unwrap();
        assert_eq!(
            out,
            [Marked::Item(700), Marked::Item(300), Marked::Marker("end of part"), Marked::Item(1)]
        );
    });
}

#[test]
fn a_failure_does_not_wait_for_a_chunk() {
    within(|| {
        let (give, source) = by_hand();
        let run = Pipeline::new(source)
            .try_map("check", |n| if *n == 2 { Err("two".into()) } else { Ok(*n) })
            .chunk("chunk", 10, NEVER)
            .run();
        let mut run = run.items();
        for n in [1, 2, 3] {
            give.send(n).unwrap();
        }
        assert_eq!(run.next().unwrap().unwrap_err().to_string(), "stage `check`: two");
        drop(give);
        assert_eq!(run.next().unwrap().unwrap(), [1, 3]);
        assert!(run.next().is_none());
    });
}

#[test]
fn a_stage_of_subprocesses_names_itself_and_gives_the_workers_error() {
    within(|| {
        let strict = Template::shell("while read -r l; do [ $l = bad ] && exit 3; echo $l; done");
        let run = Pipeline::new(["a", "bad", "b"])
            .feed(Stage::new("strict").workers(2).buffer(8), strict)
            .map("len", |line| line.len())
            .run();
        let results: Vec<_> = run.items().collect();
        assert_eq!(results.len(), 3);
        let error = results[1].as_ref().unwrap_err();
        assert_eq!(error.stage(), "strict");
        assert_eq!(error.as_worker().expect("a worker's").kind(), ErrorKind::Died);
        assert!(error.to_string().starts_with("stage `strict`: "), "{error}");
        assert!(matches!((&results[0], &results[2]), (Ok(1), Ok(1))));

        let (source, _, dropped) = Endless::new();
        let run = Pipeline::new(source)
            .map("text", |n| n.to_string())
            .feed("nowhere", Template::new("/no/such/program"))
            .run();
        let results: Vec<_> = run.items().collect();
        assert!(results.iter().all(Result::is_err));
        let cause = results
            .iter()
            .filter_map(|r| r.as_ref().err())
            .find(|error| error.as_worker().is_some_and(|error| error.kind() != ErrorKind::Halted));
        assert!(cause.expect("a cause").to_string().contains("/no/such/program"));
        eventually("the source is gone", || dropped.load(SeqCst));

        let once = Template::new("wc").arg("-c").replies(ReplyFraming::until_eof());
        let run = Pipeline::new(["abc", ""]).feed("wc", once).run();
        assert_eq!(items(run).unwrap(), ["4\n", "1\n"]);
    });
}

#[test]
fn a_stage_is_as_wide_as_it_says_whatever_the_machine() {
    within(|| {
        let all = Arc::new(Barrier::new(12));
        let run = Pipeline::new(0..24)
            .map(Stage::new("together").workers(12), move |n| {
                // Ends only if twelve are here at a time.
                all.wait();
                n
            })
            .run();
        assert_eq!(items(run).unwrap(), (0..24).collect::<Vec<_>>());
    });
}

#[test]
fn the_hook_at_the_end_runs_once_behind_the_last_result_or_at_the_drop() {
    within(|| {
        let stage = |hook: &Arc<AtomicUsize>| {
            let hook = Arc::clone(hook);
            Stage::new("hooked").on_end(move || {
                hook.fetch_add(1, SeqCst);
            })
        };
        let calls = Arc::new(AtomicUsize::new(0));
        let mut run = Pipeline::new(0..3).map(stage(&calls), |n| n).run();
        for _ in 0..3 {
            run.next().unwrap().unwrap();
            assert_eq!(calls.load(SeqCst), 0);
        }
        assert!(run.next().is_none() && run.next().is_none());
        assert_eq!(calls.load(SeqCst), 1);
        drop(run);
        assert_eq!(calls.load(SeqCst), 1);

        let calls = Arc::new(AtomicUsize::new(0));
        drop(Pipeline::new(0..).map(stage(&calls), |n| n).run());
        assert_eq!(calls.load(SeqCst), 1);
    });
}

#[test]
fn a_hook_that_panics_reaches_the_consumer_but_no_drop() {
    within(|| {
        let hooked = || Stage::new("s").on_end(|| panic!("the hook"));
        let mut run = Pipeline::new(0..2).map(hooked(), |n| n).map("behind", |n| n).run();
        assert!(run.next().unwrap().is_ok() && run.next().unwrap().is_ok());
        let payload = panic::catch_unwind(AssertUnwindSafe(|| run.next())).unwrap_err();
        assert_eq!(*payload.downcast_ref::<&str>().unwrap(), "the hook");
        assert!(run.next().is_none());

        drop(Pipeline::new(0..).map(hooked(), |n| n).run());
    });
}

#[test]
fn a_panic_of_the_source_comes_behind_what_came_before_it() {
    within(|| {
        let source = (0..).inspect(|&n| assert!(n < 10, "the source"));
        let mut run = Pipeline::new(source).map("a", |n| n).map("b", |n| n).run().items();
        for n in 0..10 {
            assert_eq!(run.next().unwrap().unwrap(), n);
        }
        let payload = panic::catch_unwind(AssertUnwindSafe(|| run.next())).unwrap_err();
        assert_eq!(*payload.downcast_ref::<&str>().unwrap(), "the source");
        assert!(run.next().is_none());
    });
}

#[test]
fn finishing_tells_what_was_done() {
    within(|| {
        let source = (0..100).map(Marked::Item).chain([Marked::Marker(())]);
        let run = Pipeline::with_markers(source)
            .filter_map("half", |n| (n % 2 == 0).then_some(n))
            .chunk("tens", 10, NEVER)
            .run();
        let report = run.finish().unwrap();
        assert_eq!((report.items, report.markers), (5, 1));
        let counts: Vec<_> =
            report.stages.iter().map(|stage| (&*stage.name, stage.taken, stage.given)).collect();
        assert_eq!(counts, [("half", 100, 50), ("tens", 50, 5)]);
    });
}

#[test]
fn a_pipeline_in_the_background_is_fed_by_many_and_ends_with_the_last() {
    within(|| {
        let (give, source) = by_hand::<u64>();
        let (sums, sum) = mpsc::channel();
        let pipeline = Pipeline::new(source).map(Stage::new("double").workers(2), move |n| {
            sums.send(2 * n).expect("somebody who adds up");
        });
        let background = std::thread::spawn(move || pipeline.run().finish());
        let producers: Vec<_> = (0..4)
            .map(|_| {
                let give = give.clone();
                std::thread::spawn(move || (0..100).for_each(|n| give.send(n).unwrap()))
            })
            .collect();
        drop(give);
        for producer in producers {
            producer.join().unwrap();
        }
        let report = background.join().unwrap().unwrap();
        assert_eq!(report.items, 400);
        assert_eq!(sum.iter().sum::<u64>(), 4 * 9_900);
    });
}

// -------------------------------------------------------------------- from the tests and weaknesses of paipa

#[test]
fn an_iterator_that_fails_after_1000_of_a_million_is_reported_without_a_stall() {
    within(|| {
        let pulled = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&pulled);
        let source = (0..1_000_000u64).inspect(move |_| {
            count.fetch_add(1, SeqCst);
        });
        let run = Pipeline::new(source)
            .map("before", |n| n)
            .iterate("crash", |items| items.inspect(|&n| assert!(n < 1_000, "foo")))
            .map("behind", |n| n)
            .run();
        assert_eq!(run.finish().unwrap_err().stage(), "crash");
        // It has not gone through the rest.
        assert!(pulled.load(SeqCst) < 10_000, "{pulled:?}");
    });
}

fn fails_on_17(n: &u64) -> Result<u64, BoxError> {
    if *n == 17 { Err("17".into()) } else { Ok(*n) }
}

#[test]
fn of_1000_items_999_come_out_of_five_stages_one_of_which_fails_on_one() {
    within(|| {
        let pipeline = Pipeline::new(0..1_000u64)
            .map(Stage::new("ten").workers(10), |n| n)
            .try_map(Stage::new("one").workers(1).retries(1), fails_on_17)
            .chunk("chunk", 10, NEVER)
            .map(Stage::new("two").workers(2), |chunk| chunk)
            .flatten()
            .map(Stage::new("forty").workers(40), |n| n);
        let control = pipeline.control();
        let results: Vec<_> = pipeline.run().items().collect();
        let good: Vec<u64> = results.iter().filter_map(|r| r.as_ref().ok().copied()).collect();
        assert_eq!(good, (0..1_000).filter(|&n| n != 17).collect::<Vec<_>>());
        // The one that failed is not dropped in silence.
        let failed: Vec<_> = results.iter().filter_map(|r| r.as_ref().err()).collect();
        assert_eq!(failed.len(), 1);
        assert_eq!((failed[0].stage(), failed[0].attempts()), ("one", 2));
        let forty = control.stages().pop().expect("five stages");
        assert_eq!((forty.taken, forty.given, forty.failed), (999, 999, 0));
    });
}

#[test]
fn an_application_that_is_told_to_end_finishes_what_it_has() {
    within(|| {
        let (give, source) = sync_channel(100);
        let pipeline = Pipeline::new(source).map("work", |n: u64| n);
        let control = pipeline.control();
        let application = std::thread::spawn(move || pipeline.run().finish());
        for n in 0..50 {
            give.send(n).unwrap();
        }
        eventually("it works", || control.stages()[0].taken == 50);
        control.stop();
        drop(give);
        assert_eq!(application.join().unwrap().unwrap().items, 50);
    });
}

#[test]
fn the_debugger_shows_one_line_for_one_step() {
    let profile = Profile::new();
    assert_eq!(profile.step("identity", 0..10).count(), 10);
    let shown = profile.to_string();
    assert_eq!(shown.lines().count(), 1);
    assert!(shown.starts_with("identity") && shown.contains(" 10 "), "{shown}");
}

#[test]
fn a_crash_on_17_ends_a_continuous_pipeline_and_nobody_hangs() {
    within(|| {
        let (give, source) = sync_channel(1);
        let run = Pipeline::new(source)
            .chunk("chunk", 1, NEVER)
            .iterate("crash", |chunks| chunks.inspect(|chunk| assert_ne!(*chunk, [17])))
            .run();
        let background = std::thread::spawn(move || run.finish());
        let mut sent = 0;
        // Sooner or later there is nobody who takes anything.
        while give.send(17).is_ok() {
            sent += 1;
            assert!(sent < 1_000_000, "it still takes");
        }
        assert_eq!(background.join().unwrap().unwrap_err().stage(), "crash");
    });
}

#[test]
fn the_lazy_pipeline_on_one_thread_is_iterator_adaptors() {
    fn every_second<T>(items: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        items.step_by(2)
    }
    // A source that is a function of its arguments, and nested steps.
    let pipeline = |n: u64| {
        let nested = |items| every_second(std::iter::Iterator::map(items, |n: u64| n));
        nested(0..n)
    };
    assert_eq!(pipeline(1_000).count(), 500);
    // Chunk, flatten, recursive flatten, consume.
    let chunks: Vec<Vec<u64>> =
        (0..7u64).collect::<Vec<_>>().chunks(3).map(<[_]>::to_vec).collect();
    assert_eq!(chunks, [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
    assert_eq!(chunks.clone().into_iter().flatten().count(), 7);
    assert_eq!(vec![chunks].into_iter().flatten().flatten().count(), 7);
    let mut items = 0..10;
    assert_eq!((items.by_ref().take(4).count(), items.next()), (4, Some(4)));

    // Each step counted and timed, its own time only.
    let profile = Profile::new();
    let source = profile.step("source", 0..1_000u64);
    let half = profile.step("every second", every_second(source));
    assert_eq!(half.count(), 500);
    let counts: Vec<_> = profile.steps().iter().map(|step| step.items).collect();
    assert_eq!(counts, [1_000, 500]);
}

// ---------------------------------------------------------------- its weaknesses, turned round

#[test]
fn a_crash_behind_two_iterators_reaches_the_first_stage() {
    within(|| {
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let run = Pipeline::new(0..)
            .map(Stage::new("a").on_end(move || end.store(true, SeqCst)), |n: u64| n)
            .iterate("b", |items| items)
            .iterate("c", |items| items.inspect(|&n| assert!(n < 100, "c")))
            .run();
        assert_eq!(run.finish().unwrap_err().stage(), "c");
        eventually("the first stage has ended", || ended.load(SeqCst));
    });
}

#[test]
fn what_fails_at_the_end_of_the_input_is_still_tried_again() {
    within(|| {
        let tried = Mutex::new(std::collections::HashSet::new());
        let run = Pipeline::new(0..2)
            .try_map(Stage::new("fails once").workers(2).retries(1), move |n: &u64| {
                if tried.lock().unwrap().insert(*n) { Err("the first time".into()) } else { Ok(*n) }
            })
            .run();
        assert_eq!(run.items().collect::<Result<Vec<_>, _>>().unwrap(), [0, 1]);
    });
}

#[test]
fn hooks_run_once_for_each_worker_and_each_stage() {
    within(|| {
        struct Worker(mpsc::Sender<&'static str>);
        impl Drop for Worker {
            fn drop(&mut self) {
                let _ = self.0.send("worker ends");
            }
        }
        let (say, said) = mpsc::channel();
        let (worker, stage) = (say.clone(), say);
        let one = Stage::new("s").workers(1).on_end(move || {
            let _ = stage.send("stage ends");
        });
        let begin = move || {
            let _ = worker.send("worker begins");
            Worker(worker.clone())
        };
        Pipeline::new(0..100).map_init(one, begin, |_, n| n).run().finish().unwrap();
        let mut said: Vec<_> = said.iter().collect();
        said.sort_unstable();
        assert_eq!(said, ["stage ends", "worker begins", "worker ends"]);
    });
}
