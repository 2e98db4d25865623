//! The `timeline` feature: what is recorded agrees with the feed's own counters, and the trace is a trace.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use subfeed::watch::{Event, Timeline, What, WorkerState};
use subfeed::{FeedExt, Monitor, Order, Template};

use common::{Dir, child, numbers, texts, within};

fn count(timeline: &Timeline, is: impl Fn(&What) -> bool) -> u64 {
    timeline.events().iter().filter(|event| is(&event.what)).count() as u64
}

/// Every count that both have.
fn agrees(monitor: &Monitor) -> Timeline {
    let (timeline, counters) = (monitor.timeline(), monitor.snapshot());
    assert_eq!(timeline.left_out(), 0);
    let sessions = count(&timeline, |what| matches!(what, What::Session { .. }));
    assert_eq!(sessions, counters.starts, "sessions");
    assert_eq!(count(&timeline, |what| *what == What::Died), counters.deaths, "deaths");
    assert_eq!(count(&timeline, |what| *what == What::Recycled), counters.recycles, "recycles");
    assert_eq!(count(&timeline, |what| *what == What::Timeout), counters.timeouts, "timeouts");
    assert_eq!(count(&timeline, |what| *what == What::Signalled), counters.signals, "signals");
    let redelivered = timeline.events().iter().map(|event| match event.what {
        What::Redelivered { packets } => packets,
        _ => 0,
    });
    assert_eq!(redelivered.sum::<u64>(), counters.redeliveries, "redeliveries");
    states_follow_one_another(&timeline);
    busy_times_are_the_workers(&timeline, monitor);
    timeline
}

fn of_worker(timeline: &Timeline, worker: usize) -> impl Iterator<Item = &Event> {
    timeline.events().iter().filter(move |event| event.worker == Some(worker))
}

/// Each session is made of states, one behind the other without a gap.
fn states_follow_one_another(timeline: &Timeline) {
    let workers = timeline.events().iter().filter_map(|event| event.worker).max().unwrap_or(0);
    for worker in 0..=workers {
        let states =
            of_worker(timeline, worker).filter(|event| matches!(event.what, What::State(_)));
        let mut states = states.peekable();
        for session in of_worker(timeline, worker) {
            let What::Session { .. } = session.what else { continue };
            let (mut at, end) = (session.at, session.at + session.lasted);
            while let Some(state) = states.next_if(|state| state.at < end || state.at == at) {
                assert_eq!(state.at, at, "{state:?} in {session:?}");
                at += state.lasted;
            }
            assert_eq!(at, end, "the states of {session:?}");
        }
        assert!(states.next().is_none(), "a state outside of every session");
    }
}

/// A worker owes something while it is busy or quiet, and otherwise only on its way to its end.
fn busy_times_are_the_workers(timeline: &Timeline, monitor: &Monitor) {
    for worker in monitor.workers() {
        let time = |is: fn(WorkerState) -> bool| -> Duration {
            let of = of_worker(timeline, worker.id);
            of.filter(|event| matches!(event.what, What::State(state) if is(state)))
                .map(|event| event.lasted)
                .sum()
        };
        let least = time(|state| matches!(state, WorkerState::Busy | WorkerState::Quiet));
        let most = time(|state| state != WorkerState::Idle);
        let busy = worker.busy;
        assert!(least <= busy && busy <= most, "worker {}: {least:?} {busy:?} {most:?}", worker.id);
    }
}

#[test]
fn a_slow_record_and_its_head_are_seen() {
    within(|| {
        let script = "while read -r n; do [ \"$n\" = 40 ] && sleep 0.3; echo \"$n\"; done";
        let feed = numbers(200).feed(Template::shell(script)).workers(3).buffer(40);
        let feed = feed.timeline(100_000).start();
        let monitor = feed.monitor();
        assert_eq!(texts(feed).len(), 200);
        let timeline = agrees(&monitor);
        let long = Duration::from_millis(100);
        let head = timeline
            .events()
            .iter()
            .find(|event| matches!(event.what, What::Head { packet: 40 }) && event.lasted > long);
        let head = head.expect("packet 40 was waited for");
        let mut at_work = of_worker(&timeline, head.worker.expect("a worker")).filter(|event| {
            matches!(event.what, What::State(WorkerState::Busy | WorkerState::Quiet))
        });
        assert!(at_work.any(|event| event.at + event.lasted >= head.at + long));
        let full = |what: &What| matches!(what, What::Window { under_way: 40, .. });
        assert!(count(&timeline, full) > 0, "the window was full behind it");
    });
}

#[test]
fn deaths_and_what_is_sent_again_are_seen() {
    within(|| {
        let feed = numbers(300).feed(child("exit_after 20 3")).workers(3).buffer(50);
        let mut feed = feed.order(Order::Completion).timeline(100_000).start();
        let monitor = feed.monitor();
        assert_eq!(feed.by_ref().filter(Result::is_ok).count(), 300);
        let timeline = agrees(&monitor);
        assert!(count(&timeline, |what| *what == What::Died) >= 10);
        let bad = |what: &What| matches!(what, What::Session { status: Some(status), .. } if status.code() == Some(3));
        assert!(count(&timeline, bad) >= 10);
    });
}

#[test]
fn a_tool_that_withholds_is_seen_to_be_quiet_and_recycled() {
    within(|| {
        let feed = numbers(100).feed(child("stdio 4096")).workers(2).buffer(20);
        let feed = feed.timeline(100_000).start();
        let monitor = feed.monitor();
        assert_eq!(texts(feed).len(), 100);
        let timeline = agrees(&monitor);
        assert!(count(&timeline, |what| *what == What::Recycled) > 0);
        assert!(count(&timeline, |what| *what == What::State(WorkerState::Closing)) > 0);
    });
}

#[test]
fn limits_and_signals_are_seen() {
    within(|| {
        let template = child("hold").packet_timeout(Duration::from_millis(50)).retries(0);
        let feed = numbers(2).feed(template.give_up_after(10)).workers(1).timeline(1_000).start();
        let monitor = feed.monitor();
        assert_eq!(feed.filter(Result::is_err).count(), 2);
        let timeline = agrees(&monitor);
        assert!(count(&timeline, |what| *what == What::Timeout) > 0);
        assert!(count(&timeline, |what| *what == What::Signalled) > 0);
    });
}

#[test]
fn what_is_not_asked_for_is_not_recorded() {
    within(|| {
        let feed = numbers(10).feed(Template::new("cat")).start();
        let monitor = feed.monitor();
        assert_eq!(feed.count(), 10);
        assert!(monitor.timeline().events().is_empty());
    });
}

#[test]
fn a_timeline_that_is_longer_than_its_bound_says_what_it_left_out() {
    within(|| {
        let feed = numbers(500).feed(child("slow 0")).workers(2).buffer(4).timeline(50).start();
        let monitor = feed.monitor();
        assert_eq!(texts(feed).len(), 500);
        let timeline = monitor.timeline();
        assert_eq!(timeline.events().len(), 50);
        assert!(timeline.left_out() > 0);
        let trace = trace(&timeline);
        assert_eq!(trace["otherData"]["left_out"], timeline.left_out());
        let told = format!("{} earlier events are left out", timeline.left_out());
        let events = trace["traceEvents"].as_array().expect("events");
        assert!(events.iter().any(|event| event["name"] == told.as_str()));
    });
}

fn trace(timeline: &Timeline) -> serde_json::Value {
    let mut json = Vec::new();
    timeline.write_to(&mut json).expect("it fits");
    serde_json::from_slice(&json).expect("JSON")
}

#[test]
fn the_trace_is_what_perfetto_reads() {
    within(|| {
        let dir = Dir::new();
        let script = format!(
            "while read -r n; do if [ \"$n\" = 30 ] && [ ! -e '{0}' ]; then : >'{0}'; exit 1; fi; echo \"$n\"; done",
            dir.at("died")
        );
        let feed = numbers(100).feed(Template::shell(script)).workers(2).buffer(20);
        let feed = feed.timeline(10_000).start();
        let monitor = feed.monitor();
        assert_eq!(texts(feed).len(), 100);
        let timeline = agrees(&monitor);
        let trace = trace(&timeline);
        let mut phases = BTreeMap::new();
        // In each row stretches of time contain one another, or do not meet.
        let mut rows: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
        for event in trace["traceEvents"].as_array().expect("events") {
            let phase = event["ph"].as_str().expect("a phase");
            *phases.entry(phase.to_owned()).or_insert(0) += 1;
            assert_eq!(event["pid"], 1);
            assert!(event["name"].is_string() && event["tid"].is_u64());
            if phase == "X" {
                let (at, lasted) = (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap());
                rows.entry(event["tid"].as_u64().unwrap()).or_default().push((at, at + lasted));
            }
        }
        let recorded = phases["X"] + phases["i"] + phases["C"];
        assert_eq!(recorded, timeline.events().len());
        assert_eq!(phases["M"], 2 + 2, "the process, the head, and two workers");
        for (row, spans) in rows {
            let mut open: Vec<(f64, f64)> = Vec::new();
            for (at, end) in spans {
                // A nanosecond is what rounding makes of them.
                while open.last().is_some_and(|(_, open_end)| *open_end <= at + 0.001) {
                    open.pop();
                }
                if let Some((_, open_end)) = open.last() {
                    assert!(end <= open_end + 0.001, "row {row}: {at}..{end} in ..{open_end}");
                }
                open.push((at, end));
            }
        }
    });
}
