//! The `tracing` feature: one span for each session, and in it one event for each change of its state.

mod common;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use subfeed::policy::Halt;
use subfeed::{FeedExt, Template};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use common::{child, numbers, within};

/// The fields of one event, as text.
type Fields = BTreeMap<&'static str, String>;

static HEARD: Mutex<Vec<Fields>> = Mutex::new(Vec::new());

/// A span. Its id is its place in the list, counted from 1.
#[derive(Clone, Debug)]
struct Seen {
    name: &'static str,
    fields: Fields,
    closed: bool,
}

static SPANS: Mutex<Vec<Seen>> = Mutex::new(Vec::new());

/// Writes down every event and every span of ours.
struct Listener;

struct Reader<'a>(&'a mut Fields);

impl Visit for Reader<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "subfeed"
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::from([("level", event.metadata().level().to_string())]);
        if let Some(parent) = event.parent() {
            fields.insert("in", parent.into_u64().to_string());
        }
        event.record(&mut Reader(&mut fields));
        HEARD.lock().expect("a lock").push(fields);
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = Fields::new();
        attributes.record(&mut Reader(&mut fields));
        let mut spans = SPANS.lock().expect("a lock");
        spans.push(Seen { name: attributes.metadata().name(), fields, closed: false });
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let mut spans = SPANS.lock().expect("a lock");
        values.record(&mut Reader(&mut spans[id.into_u64() as usize - 1].fields));
    }

    fn try_close(&self, id: Id) -> bool {
        let mut spans = SPANS.lock().expect("a lock");
        let before = std::mem::replace(&mut spans[id.into_u64() as usize - 1].closed, true);
        assert!(!before, "closed twice");
        true
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Runs something while nobody else does, and gives what was heard.
fn events(run: impl FnOnce() + Send + 'static) -> Vec<Fields> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    static LISTENS: OnceLock<()> = OnceLock::new();
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    LISTENS.get_or_init(|| {
        tracing::subscriber::set_global_default(Listener).expect("nobody else listens");
    });
    HEARD.lock().expect("a lock").clear();
    within(run);
    std::mem::take(&mut *HEARD.lock().expect("a lock"))
}

fn states<'a>(events: &'a [Fields], session: &str) -> Vec<&'a str> {
    let these = events.iter().filter(|event| event["session"] == session);
    these.map(|event| &*event["state"]).collect()
}

#[test]
fn a_session_in_good_order_is_told_from_its_start_to_its_end() {
    let events = events(|| {
        let template = child("banner").skip_lines(1);
        assert_eq!(numbers(5).feed_subprocesses(template, 1, 2).count(), 5);
    });
    assert_eq!(
        states(&events, "0"),
        ["started", "ready", "answering", "closing", "exited", "ended"]
    );
    for event in &events {
        assert_eq!((&*event["worker"], &*event["level"]), ("0", "DEBUG"));
        assert_eq!(event["pid"], events[0]["pid"]);
    }
    assert!(events[0]["pid"].parse::<u32>().is_ok());
    assert_eq!(events[0]["restart"], "false");
    assert_eq!(events[3]["why"], "done");
    let last = &events[5];
    assert_eq!((&*last["answered"], &*last["owed"]), ("5", "0"));
    assert_eq!((&*last["status"], &*last["why"]), ("exit status: 0", "done"));
}

#[test]
fn a_worker_that_withholds_is_told_with_the_fix() {
    let events = events(|| {
        assert_eq!(numbers(40).feed_subprocesses(child("stdio 4096"), 1, 10).count(), 40);
    });
    let stalled: Vec<_> = events.iter().filter(|event| event["state"] == "stalled").collect();
    assert!(!stalled.is_empty());
    assert!(stalled.iter().all(|event| event["level"] == "WARN"));
    assert!(stalled[0]["hint"].contains("line_buffered"), "{:?}", stalled[0]);
    let recycled = states(&events, &stalled[0]["session"]);
    assert_eq!(recycled, ["started", "stalled", "closing", "answering", "exited", "ended"]);
    let next = events.iter().find(|event| event["session"] == "1" && event["state"] == "started");
    assert_eq!(next.expect("a second session")["restart"], "true");
}

#[test]
fn deaths_backing_off_and_giving_up_are_told() {
    let events = events(|| {
        let template = child("exit 3").give_up_after(3);
        let items = numbers(5).feed_subprocesses(template, 1, 2);
        assert!(items.filter(Result::is_err).count() > 0);
    });
    // That its stdin is closed may be noticed first, by a request that cannot be written, or its exit.
    let states = |session| {
        let states = states(&events, session).into_iter();
        states.filter(|state| *state != "closing").collect::<Vec<_>>()
    };
    assert_eq!(states("0"), ["started", "exited", "ended", "backed off"]);
    assert_eq!(states("2"), ["started", "exited", "ended", "gave up"]);
    let ended: Vec<_> = events.iter().filter(|event| event["state"] == "ended").collect();
    assert!(ended.iter().all(|event| event["status"] == "exit status: 3"));
    let waits = events.iter().filter_map(|event| event.get("wait_ms")?.parse::<f64>().ok());
    assert_eq!(waits.collect::<Vec<_>>(), [10.0, 20.0]);
    assert_eq!(events.last().expect("an event")["level"], "WARN");
}

#[test]
fn a_kill_sequence_is_told_rung_by_rung() {
    let events = events(|| {
        let template = child("stubborn").end_timeout(Duration::from_millis(1)).halt(Halt::Never);
        assert_eq!(numbers(1).feed_subprocesses(template, 1, 2).count(), 1);
    });
    let signals: Vec<_> = events.iter().filter_map(|event| event.get("signal")).collect();
    assert_eq!(signals, ["SIGTERM", "SIGKILL"]);
    let ended = events.iter().find(|event| event["state"] == "ended").expect("an end");
    assert!(ended["status"].starts_with("signal: 9"), "{ended:?}");
}

#[test]
fn a_dropped_feed_tells_why_its_workers_end() {
    let events = events(|| {
        let mut feed = (0..).map(|n| n.to_string()).feed_subprocesses(Template::new("cat"), 1, 4);
        feed.next().expect("an item").expect("a reply");
    });
    let closing = events.iter().find(|event| event["state"] == "closing").expect("an end");
    assert_eq!(closing["why"], "stopped");
}

/// The session spans that were made while something ran, with their ids.
fn spans(run: impl FnOnce() + Send + 'static) -> (Vec<(u64, Seen)>, Vec<Fields>) {
    // Whatever has been seen before is somebody else's, and nobody else runs.
    let before = std::sync::Arc::new(Mutex::new(0));
    let other = std::sync::Arc::clone(&before);
    let events = events(move || {
        *other.lock().expect("a lock") = SPANS.lock().expect("a lock").len();
        run();
    });
    let before = *before.lock().expect("a lock");
    let all = SPANS.lock().expect("a lock");
    let seen = (1..).zip(all.iter().cloned()).skip(before);
    (seen.filter(|(_, span)| span.name == "session").collect(), events)
}

#[test]
fn each_session_is_a_span_with_the_fields_that_are_documented() {
    let (spans, events) = spans(|| {
        let feed = numbers(40).feed(child("exit_after 10 3")).workers(2).buffer(10).start();
        assert_eq!(feed.filter(Result::is_ok).count(), 40);
    });
    assert!(spans.len() >= 4);
    let mut answered = 0;
    for (number, (id, span)) in spans.iter().enumerate() {
        let fields: Vec<_> = span.fields.keys().copied().collect();
        assert_eq!(fields, ["answered", "command", "pid", "session", "status", "why", "worker"]);
        assert!(span.closed, "{span:?}");
        assert_eq!(span.fields["session"], number.to_string());
        assert!(span.fields["command"].contains("exit_after 10 3"), "{span:?}");
        answered += span.fields["answered"].parse::<u64>().expect("a number");
        let ours: Vec<_> = events.iter().filter(|event| event["in"] == id.to_string()).collect();
        assert!(ours.iter().all(|event| event["session"] == span.fields["session"]));
        let states: Vec<_> = ours.iter().map(|event| &*event["state"]).collect();
        assert_eq!(states.first(), Some(&"started"));
        assert!(states.contains(&"ended"), "{states:?}");
    }
    assert_eq!(answered, 40);
    assert!(events.iter().all(|event| event.contains_key("in")), "every event is in a session");
}
