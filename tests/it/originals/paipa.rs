//! paipa: every case of its tests and doctests, then each of its weaknesses turned round.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use subfeed::pipeline::{OnError, Pipeline, Profile, Stage};
use subfeed::{BoxError, Entry};

use crate::common::{eventually, within};

const NEVER: Duration = Duration::MAX;

// ---------------------------------------------------------------- its tests

#[test]
fn an_iterator_that_fails_after_500_of_an_endless_source_is_reported() {
    within(|| {
        let run = Pipeline::new(0..)
            .iterate("crash", |items| items.inspect(|&n: &u64| assert!(n < 500, "after 500")))
            .run();
        let error = run.finish().unwrap_err();
        assert_eq!(error.to_string(), "stage `crash`: panicked: after 500");
    });
}

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

#[test]
fn a_step_that_fails_without_retries_fails_the_run() {
    within(|| {
        let run = Pipeline::new(["x"]).try_map("fail", |_| Err::<(), _>("a value error")).run();
        assert_eq!(run.finish().unwrap_err().to_string(), "stage `fail`: a value error");
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
fn of_1000_items_999_come_out_without_chunks() {
    within(|| {
        let run = Pipeline::new((0..1_000u64).collect::<Vec<_>>())
            .map(Stage::new("ten").workers(10), |n| n)
            .try_map(Stage::new("one").workers(1).retries(1), fails_on_17)
            .map(Stage::new("forty").workers(40), |n| n)
            .run();
        assert_eq!(run.items().filter(Result::is_ok).count(), 999);
    });
}

#[test]
fn marks_reach_their_own_method_and_items_theirs() {
    within(|| {
        let (items, marks) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let (item, mark) = (Arc::clone(&items), Arc::clone(&marks));
        let source = (0..3).flat_map(|n| [Entry::Item(n), Entry::Mark(n)]);
        let report = Pipeline::with_marks(source)
            .map(Stage::new("step").workers(3), move |_| item.fetch_add(1, SeqCst))
            .inspect_marks(move |_| {
                mark.fetch_add(1, SeqCst);
            })
            .run()
            .finish()
            .unwrap();
        assert_eq!((items.load(SeqCst), marks.load(SeqCst)), (3, 3));
        assert_eq!(report.items + report.marks, 6);
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

// ---------------------------------------------------------------- its doctests

#[test]
fn chunks_of_five() {
    within(|| {
        let run = Pipeline::new(0..10).chunk("chunk", 5, NEVER).run();
        let chunks: Vec<_> = run.items().collect::<Result<_, _>>().unwrap();
        assert_eq!(chunks, [vec![0, 1, 2, 3, 4], vec![5, 6, 7, 8, 9]]);
    });
}

#[test]
fn in_continuous_use_a_chunk_comes_when_it_is_due_and_the_pipeline_lives_on() {
    within(|| {
        let (give, source) = sync_channel(10);
        let pipeline = Pipeline::new(source).chunk("chunk", 5, Duration::from_millis(10));
        let mut run = pipeline.run().items();
        for n in [1, 2] {
            give.send(n).unwrap();
            // The next is sent only when this is here.
            assert_eq!(run.next().unwrap().unwrap(), [n]);
        }
        drop(give);
        assert!(run.next().is_none());
    });
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
fn every_partial_chunk_arrives() {
    within(|| {
        let run = Pipeline::new(0..100).chunk("chunk", 64, NEVER).flatten().run();
        assert_eq!(run.items().filter(Result::is_ok).count(), 100);
    });
}

#[test]
fn what_fails_at_the_end_of_the_input_is_still_tried_again() {
    within(|| {
        let tried = Mutex::new(std::collections::HashSet::new());
        let run = Pipeline::new(0..2)
            .try_map(Stage::new("fails once").workers(2).retries(1), move |n: &u64| {
                if tried.lock().unwrap().insert(*n) { Err("the first time") } else { Ok(*n) }
            })
            .run();
        assert_eq!(run.items().collect::<Result<Vec<_>, _>>().unwrap(), [0, 1]);
    });
}

#[test]
fn attempts_are_one_plus_retries() {
    within(|| {
        for retries in [0, 1, 3] {
            let attempts = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&attempts);
            let run = Pipeline::new([()])
                .try_map(Stage::new("s").retries(retries), move |()| {
                    count.fetch_add(1, SeqCst);
                    Err::<(), _>("no")
                })
                .run();
            assert_eq!(run.finish().unwrap_err().attempts(), 1 + retries);
            assert_eq!(attempts.load(SeqCst), 1 + retries as usize);
        }
    });
}

#[test]
fn several_sources_are_one_behind_the_other_and_none_is_lost() {
    within(|| {
        let run = Pipeline::new((0..10).chain(10..100).chain(100..120)).map("m", |n| n).run();
        assert_eq!(run.items().filter(Result::is_ok).count(), 120);
    });
}

#[test]
fn an_error_in_the_background_reaches_whoever_joins() {
    within(|| {
        let run =
            Pipeline::new(0..10).try_map("s", |n| if *n == 5 { Err("five") } else { Ok(*n) }).run();
        let background = std::thread::spawn(move || run.on_error(OnError::Stop).finish());
        assert_eq!(background.join().unwrap().unwrap_err().to_string(), "stage `s`: five");
    });
}

#[test]
fn stopping_stops_an_endless_source_and_stopping_twice_is_fine() {
    within(|| {
        let pipeline = Pipeline::new(0u64..).map("s", |n| n);
        let control = pipeline.control();
        let background = std::thread::spawn(move || pipeline.run().finish());
        eventually("it runs", || control.stages()[0].given > 1_000);
        control.stop();
        control.stop();
        assert!(background.join().unwrap().unwrap().items > 1_000);
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

#[test]
fn nothing_is_taken_that_nobody_has_room_for() {
    within(|| {
        let (give, source) = sync_channel(0);
        let run = Pipeline::new(source).map(Stage::new("a").buffer(3), |n: u64| n).run();
        for n in 0..3 {
            give.send(n).unwrap();
        }
        // The window is full, and nobody takes results: whoever puts has to wait.
        assert!(give.try_send(3).is_err());
        drop(run);
        drop(give);
    });
}
