//! The `tracing` feature: one event for each change of a worker's state.

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

/// Writes down every event of ours.
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
        event.record(&mut Reader(&mut fields));
        HEARD.lock().expect("a lock").push(fields);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        unreachable!("there are no spans")
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
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
    assert_eq!(states(&events, "0"), ["started", "exited", "ended", "backed off"]);
    assert_eq!(states(&events, "2"), ["started", "exited", "ended", "gave up"]);
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
