//! The spans of the `tracing` feature as others show them: tracing-chrome and tracing-tree.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use subfeed::{FeedExt, Template};
use tracing_chrome::{ChromeLayerBuilder, TraceStyle};
use tracing_subscriber::layer::SubscriberExt;
use tracing_tree::HierarchicalLayer;

/// What is written by whichever thread.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("a lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("a lock").clone()).expect("text")
    }
}

/// Both at once: there is one subscriber for all threads of a program.
#[test]
fn sessions_are_seen_by_tracing_chrome_and_tracing_tree() {
    let (json, tree) = (Shared::default(), Shared::default());
    let writer = tree.clone();
    // Sessions overlap, on one thread, so they are no stack of calls.
    let (chrome, guard) = ChromeLayerBuilder::new()
        .trace_style(TraceStyle::Async)
        .include_args(true)
        .writer(json.clone())
        .build();
    let tree_layer = HierarchicalLayer::new(2).with_ansi(false).with_writer(move || writer.clone());
    let subscriber = tracing_subscriber::registry().with(chrome).with(tree_layer);
    tracing::subscriber::set_global_default(subscriber).expect("nobody else listens");

    let starts = {
        let _mine = tracing::info_span!("mine").entered();
        let template = Template::shell("for i in 1 2 3; do read -r n || exit; echo $n; done");
        let numbers = (0..30).map(|n| n.to_string());
        let mut feed = numbers.feed(template).workers(2).buffer(10).start();
        let monitor = feed.monitor();
        assert_eq!(feed.by_ref().filter(Result::is_ok).count(), 30);
        monitor.snapshot().starts
    };
    drop(guard);

    let trace: serde_json::Value = serde_json::from_str(&json.text()).expect("JSON");
    let mut phases = BTreeMap::new();
    for event in trace.as_array().expect("events") {
        if event["name"] == "session" {
            *phases.entry(event["ph"].as_str().expect("a phase")).or_insert(0) += 1;
        }
    }
    assert_eq!(phases, BTreeMap::from([("b", starts), ("e", starts)]), "{trace:#}");

    let tree = tree.text();
    let opened: Vec<_> = tree.lines().filter(|line| line.contains("session worker=")).collect();
    assert_eq!(opened.len() as u64, starts, "{tree}");
    // In the span in which the feed was started.
    assert!(opened.iter().all(|line| line.starts_with(" ")), "{opened:?}");
    assert!(tree.contains("mine"), "{tree}");
    let ended = tree.lines().filter(|line| line.contains("state=\"ended\""));
    assert_eq!(ended.count() as u64, starts, "{tree}");
}
