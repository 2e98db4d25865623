//! `Monitor::workers` and `Monitor::bottleneck`.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use subfeed::watch::{Verdict, Worker, WorkerState};
use subfeed::{FeedExt, Monitor, Order, Template};

use common::{Dir, child, eventually, numbers, within};

fn endless() -> impl Iterator<Item = String> + Send + 'static {
    (0u64..).map(|n| n.to_string())
}

/// Takes items until the test has seen enough.
fn taken_meanwhile<T>(
    mut feed: impl Iterator<Item = T>,
    monitor: Monitor,
    seen: impl FnOnce(&Monitor) + Send,
) {
    let done = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let other = Arc::clone(&done);
        let watcher = scope.spawn(move || {
            let guard = Guard(other);
            seen(&monitor);
            drop(guard);
        });
        while !done.load(SeqCst) && feed.next().is_some() {}
        watcher.join().expect("what was seen");
    });
}

/// Says that it is gone, also when the test has failed.
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Waits for a verdict that holds for much of the time. Every situation here stays as it is for ever, so a wrong
/// verdict never becomes a right one.
#[track_caller]
fn verdict(monitor: &Monitor, is: impl Fn(Verdict) -> bool) -> String {
    let mut last = monitor.bottleneck();
    eventually("the verdict", || {
        last = monitor.bottleneck();
        is(last.verdict) && last.share > 0.25 && last.within > Duration::from_millis(300)
    });
    let line = last.to_string();
    println!("{line}");
    assert!(!line.contains('\n') && line.len() < 400, "{line}");
    line
}

#[test]
fn a_slow_source_is_named() {
    within(|| {
        let slow = endless().inspect(|_| thread::sleep(Duration::from_millis(5)));
        let feed = slow.feed_subprocesses_ordered(Template::new("cat"), 2, 100);
        let monitor = feed.monitor();
        taken_meanwhile(feed, monitor, |monitor| {
            let line = verdict(monitor, |verdict| verdict == Verdict::Source);
            assert!(line.contains("the source makes"), "{line}");
            assert!(monitor.bottleneck().busy < 0.5);
        });
    });
}

#[test]
fn a_slow_encode_is_the_source_s_part() {
    within(|| {
        let template = Template::new("cat").encode(|item: &String, request| {
            thread::sleep(Duration::from_millis(5));
            request.push(item);
        });
        let feed = endless().feed_subprocesses(template, 2, 100);
        let monitor = feed.monitor();
        taken_meanwhile(feed, monitor, |monitor| {
            let line = verdict(monitor, |verdict| verdict == Verdict::Source);
            assert!(line.contains("`encode`"), "{line}");
        });
    });
}

#[test]
fn slow_workers_are_named() {
    within(|| {
        let feed = endless().feed_subprocesses_ordered(child("slow 20"), 2, 100);
        let monitor = feed.monitor();
        taken_meanwhile(feed, monitor, |monitor| {
            let line = verdict(monitor, |verdict| verdict == Verdict::Workers);
            assert!(line.starts_with("all 2 workers are busy"), "{line}");
            assert!(line.contains("`workers`"), "{line}");
        });
    });
}

#[test]
fn workers_that_withhold_are_named_with_the_fix() {
    within(|| {
        let feed = endless().feed_subprocesses(child("stdio 65536"), 2, 200);
        let monitor = feed.monitor();
        taken_meanwhile(feed, monitor, |monitor| {
            let line = verdict(monitor, |verdict| verdict == Verdict::Workers);
            assert!(line.contains("`line_buffered`"), "{line}");
        });
    });
}

#[test]
fn one_slow_packet_is_named_with_its_worker_and_how_long_it_takes() {
    within(|| {
        let dir = Dir::new();
        let go = dir.path("go");
        let script = format!(
            "while read -r n; do if [ \"$n\" = 70 ]; then until [ -e '{}' ]; do sleep 0.01; done; fi; echo \"$n\"; done",
            go.display()
        );
        let feed = endless().feed_subprocesses_ordered(Template::shell(script), 3, 50);
        let monitor = feed.monitor();
        taken_meanwhile(feed, monitor, move |monitor| {
            let opens = OnDrop(Some(move || std::fs::write(&go, "").expect("a file")));
            let line = verdict(
                monitor,
                |verdict| matches!(verdict, Verdict::Head { packet: 70, worker: Some(_), since } if since > Duration::from_millis(200)),
            );
            assert!(line.starts_with("packet 70 is waited for: worker "), "{line}");
            let Verdict::Head { worker: Some(worker), .. } = monitor.bottleneck().verdict else {
                panic!("the head has gone")
            };
            let workers = monitor.workers();
            let slow = &workers[worker];
            assert!(matches!(slow.state, WorkerState::Busy | WorkerState::Quiet), "{slow:?}");
            assert!(slow.oldest.expect("an age") > Duration::from_millis(200), "{slow:?}");
            let others = workers.iter().filter(|other| other.id != worker);
            assert!(others.clone().all(|other| other.owed == 0 && other.oldest.is_none()));
            drop(opens);
        });
    });
}

/// Does something when it goes, also when the test has failed.
struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(act) = self.0.take() {
            act();
        }
    }
}

#[test]
fn a_slow_consumer_is_named() {
    within(|| {
        let feed = endless().feed_subprocesses_ordered(Template::new("cat"), 2, 50);
        let monitor = feed.monitor();
        let slow = feed.inspect(|_| thread::sleep(Duration::from_millis(10)));
        taken_meanwhile(slow, monitor, |monitor| {
            let line = verdict(monitor, |verdict| verdict == Verdict::Consumer);
            assert!(line.contains("`decode`"), "{line}");
        });
    });
}

#[test]
fn a_check_that_holds_up_the_event_loop_is_named() {
    within(|| {
        let template = Template::new("cat").check(|_, _| {
            thread::sleep(Duration::from_millis(2));
            Ok(())
        });
        let feed = endless().feed_subprocesses_ordered(template, 4, 100);
        let monitor = feed.monitor();
        taken_meanwhile(feed, monitor, |monitor| {
            let line = verdict(monitor, |verdict| verdict == Verdict::Us);
            assert!(line.contains("`check`"), "{line}");
        });
    });
}

#[test]
fn a_window_that_is_too_small_is_named() {
    within(|| {
        let feed = endless().feed_subprocesses(child("slow 20"), 8, 2);
        let monitor = feed.monitor();
        taken_meanwhile(feed, monitor, |monitor| {
            let line = verdict(monitor, |verdict| verdict == Verdict::Window);
            assert!(line.contains("the window of 2 packets is full"), "{line}");
        });
    });
}

#[test]
fn workers_that_come_up_are_named_and_an_end_is_no_bottleneck() {
    within(|| {
        let dir = Dir::new();
        let go = dir.path("go");
        let template = child(&format!("late {}", go.display()));
        let feed = numbers(20).feed_subprocesses_ordered(template, 2, 10);
        let monitor = feed.monitor();
        taken_meanwhile(feed, monitor.clone(), move |monitor| {
            let opens = OnDrop(Some(move || std::fs::write(&go, "").expect("a file")));
            let line = verdict(monitor, |verdict| verdict == Verdict::Starting);
            assert!(line.contains("`start_timeout`"), "{line}");
            drop(opens);
        });
        verdict(&monitor, |verdict| verdict == Verdict::Nothing);
    });
}

fn sum(workers: &[Worker], of: impl Fn(&Worker) -> u64) -> u64 {
    workers.iter().map(of).sum()
}

#[test]
fn workers_are_shown_as_they_are_and_agree_with_the_counters() {
    within(|| {
        let template = child("exit_after 50 0");
        let mut feed = numbers(500).feed(template).workers(3).buffer(20).start();
        let monitor = feed.monitor();
        assert_eq!(feed.by_ref().filter(Result::is_ok).count(), 500);
        let (workers, snapshot) = (monitor.workers(), monitor.snapshot());
        assert_eq!(workers.iter().map(|worker| worker.id).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(sum(&workers, |worker| worker.answered), 500);
        let started = workers.iter().filter(|worker| worker.session.is_some()).count() as u64;
        assert_eq!(sum(&workers, |worker| worker.restarts) + started, snapshot.starts);
        let last = workers.iter().filter_map(|worker| worker.session).max();
        assert_eq!(last, Some(snapshot.starts - 1));
        for worker in &workers {
            assert_eq!((worker.state, worker.pid), (WorkerState::Vacant, None), "{worker:?}");
            assert_eq!((worker.owed, worker.oldest), (0, None));
            assert!((0.0..=1.0).contains(&worker.busy_share), "{worker:?}");
        }
        assert!(workers.iter().any(|worker| worker.busy > Duration::ZERO));
    });
}

#[test]
fn a_running_worker_has_a_pid_and_what_it_owes() {
    within(|| {
        let mut feed = numbers(4).feed(child("pid")).workers(1).start();
        let monitor = feed.monitor();
        let pid: u32 = feed.next().expect("an item").expect("a reply").to_string().parse().unwrap();
        let worker = monitor.workers().remove(0);
        assert!(worker.pid == Some(pid) || worker.state == WorkerState::Vacant, "{worker:?}");
        drop(feed);
        assert_eq!(monitor.workers()[0].state, WorkerState::Vacant, "a dropped feed has ended");
    });
}

#[test]
fn nobody_waits_for_itself_who_asks_inside_check() {
    within(|| {
        let (send, monitor) = std::sync::mpsc::channel::<Monitor>();
        let monitor = std::sync::Mutex::new((monitor, None));
        let start = Instant::now();
        let template = Template::new("cat").check(move |_, _| {
            let mut monitor = monitor.lock().unwrap();
            if monitor.1.is_none() {
                monitor.1 = Some(monitor.0.recv().unwrap());
            }
            let seen = monitor.1.as_ref().map(Monitor::workers).unwrap_or_default();
            assert_eq!(seen.len(), 1);
            Ok(())
        });
        let mut feed = numbers(1_000).feed_subprocesses(template, 1, 10);
        send.send(feed.monitor()).unwrap();
        assert_eq!(feed.by_ref().filter(Result::is_ok).count(), 1_000);
        // Each would have waited 100 ms.
        assert!(start.elapsed() < Duration::from_secs(50));
    });
}

#[test]
fn a_feed_that_could_not_start_can_be_watched() {
    within(|| {
        let mut feed = numbers(3).feed(Template::new("cat")).workers(2).buffer(0).start();
        let monitor = feed.monitor();
        assert_eq!(monitor.workers().len(), 2);
        assert_eq!(monitor.bottleneck().verdict, Verdict::Nothing);
        assert!(feed.next().expect("an item").is_err());
    });
}

/// Ten times a second: an answer must be far below a tenth of a second.
#[test]
fn many_workers_can_be_asked_often() {
    within(|| {
        let mut feed = endless().feed(Template::new("cat")).workers(300).buffer(1_000).start();
        let monitor = feed.monitor();
        assert!(feed.by_ref().take(5_000).all(|reply| reply.is_ok()));
        let mut times: Vec<_> = (0..50)
            .map(|_| {
                let start = Instant::now();
                assert_eq!(monitor.workers().len(), 300);
                start.elapsed()
            })
            .collect();
        times.sort();
        println!("300 workers: {:?} the median, {:?} the longest", times[25], times[49]);
        assert!(times[25] < Duration::from_millis(90), "{times:?}");
        drop(feed);
    });
}

#[test]
fn an_unordered_feed_names_the_slowest_at_the_end() {
    within(|| {
        let dir = Dir::new();
        let go = dir.path("go");
        let script = format!(
            "while read -r n; do if [ \"$n\" = 7 ]; then until [ -e '{}' ]; do sleep 0.01; done; fi; echo \"$n\"; done",
            go.display()
        );
        let template = Template::shell(script).in_flight(1);
        let feed =
            numbers(30).feed(template).workers(3).buffer(50).order(Order::Completion).start();
        let monitor = feed.monitor();
        taken_meanwhile(feed, monitor, move |monitor| {
            let opens = OnDrop(Some(move || std::fs::write(&go, "").expect("a file")));
            let is = |verdict| matches!(verdict, Verdict::Head { packet: 7, worker: Some(_), .. });
            verdict(monitor, is);
            drop(opens);
        });
    });
}
