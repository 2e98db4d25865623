//! The kinds of faults that the field trials of version 0.1 found, one module for each of their letters: hangs,
//! wrong results, who pays for a failure, messages, what could not be done.
//!
//! A test shows the smallest input of its kind or a relative of it, and says what is right; the page
//! `docs/reliability.md` has all of them by kind. One that is ignored, with its kind as the reason, fails until that
//! kind is mended; then the attribute goes.

mod a;
mod b;
mod c;
mod d;
mod e;
mod tails;

use std::time::Duration;

use subfeed::pipeline::{Pipeline, Stage};
use subfeed::queue::Queue;
use subfeed::{BoxError, Error, ErrorKind, FeedExt, Order, Snapshot, Template};

use crate::common::{halves, within_limit};

/// What takes longer has hung. A worker that stays, stays for a little longer than this.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Runs the body under a watchdog that barks after [`LIMIT`].
#[track_caller]
pub(crate) fn ends<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    within_limit(LIMIT, body)
}

/// A way in and out: what holds of a feed holds of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Ordered,
    Unordered,
    KeepInput,
    Blocks,
    /// Ids begin near their end.
    Wrapping,
    /// The source's end is not known before the last item is out.
    Queue,
    /// A stage between two others.
    Pipeline,
    /// Errors of an earlier stage pass.
    Results,
}

impl Door {
    pub(crate) fn of(name: &str) -> Self {
        match name {
            "ordered" => Self::Ordered,
            "unordered" => Self::Unordered,
            "keep_input" => Self::KeepInput,
            "blocks" => Self::Blocks,
            "wrapping" => Self::Wrapping,
            "queue" => Self::Queue,
            "pipeline" => Self::Pipeline,
            "results" => Self::Results,
            _ => panic!("no door is named {name}"),
        }
    }

    /// Sends the items through, and says what became of them.
    #[track_caller]
    pub(crate) fn send(self, template: Template, items: &[&'static str], workers: usize) -> Told {
        let items = items.to_vec();
        ends(move || self.through(template, items, workers))
    }

    fn through(self, template: Template, items: Vec<&'static str>, workers: usize) -> Told {
        let count = items.len();
        let source = items.into_iter();
        let feed = source.clone().feed(template.clone()).workers(workers);
        let text = |reply: Result<bstr::BString, Error>| reply.map(|reply| reply.to_string());
        let mut told = Told { door: self, first: 0, items: Vec::new(), snapshot: None };
        match self {
            Self::Ordered | Self::Unordered | Self::Wrapping => {
                let feed = feed.buffer(100);
                let mut feed = match self {
                    Self::Unordered => feed.order(Order::Completion),
                    Self::Wrapping => {
                        told.first = u64::MAX - 1;
                        feed.first_packet(told.first)
                    }
                    _ => feed,
                }
                .start();
                feed.by_ref().for_each(|item| told.note(text(item)));
                told.snapshot = Some(feed.monitor().snapshot());
            }
            Self::KeepInput => {
                let mut feed = feed.keep_input().start();
                for (input, item) in feed.by_ref().map(halves) {
                    let item = text(item);
                    if let Err(error) = &item
                        && let Some(packet) = error.packet()
                    {
                        assert_eq!(input, source.clone().nth(packet as usize), "beside {error}");
                    }
                    told.note(item);
                }
                told.snapshot = Some(feed.monitor().snapshot());
            }
            Self::Blocks => {
                let mut blocks = feed.blocks();
                for block in &mut blocks {
                    match block {
                        Ok(block) => {
                            block.records().for_each(|reply| told.note(Ok(reply.to_string())))
                        }
                        Err(error) => told.note(Err(error)),
                    }
                }
                told.snapshot = Some(blocks.monitor().snapshot());
            }
            Self::Queue => {
                let mut queue = Queue::subprocesses(template, workers, 100);
                source.for_each(|item| queue.put(item).expect("a queue that takes it"));
                if cfg!(subfeed_portable) {
                    // Without evidence a worker that withholds is waited for as long as more may come.
                    queue.stop();
                }
                for _ in 0..count {
                    match queue.get() {
                        Some(item) => told.note(text(item)),
                        None => break,
                    }
                }
                queue.stop();
                while let Some(item) = queue.get() {
                    told.note(text(item));
                }
                told.snapshot = Some(queue.feed().monitor().snapshot());
            }
            Self::Pipeline => {
                let run = Pipeline::new(source)
                    .map("before", |item| item)
                    .feed(Stage::new("workers").workers(workers), template)
                    .map("behind", |reply| reply.to_string())
                    .run();
                for item in run.items() {
                    told.items.push(match item {
                        Ok(reply) => reply,
                        Err(error) => told.line(error.as_worker().expect("a worker's error")),
                    });
                }
            }
            Self::Results => {
                let feed = source.map(Ok::<_, BoxError>).try_feed(template).workers(workers);
                let mut feed = feed.buffer(100).start();
                for item in feed.by_ref() {
                    told.items.push(match item {
                        Ok(reply) => reply.to_string(),
                        Err(error) => told.line(error.downcast_ref().expect("an error of ours")),
                    });
                }
                told.snapshot = Some(feed.monitor().snapshot());
            }
        }
        told
    }
}

/// What came of the items: a reply as it is, an error as a line.
#[derive(Debug)]
pub(crate) struct Told {
    door: Door,
    first: u64,
    pub(crate) items: Vec<String>,
    /// The counters at the end; a pipeline has none.
    snapshot: Option<Snapshot>,
}

impl Told {
    fn note(&mut self, item: Result<String, Error>) {
        let line = item.unwrap_or_else(|error| self.line(&error));
        self.items.push(line);
    }

    /// `!Died 3` is an error of packet 3, `!!Died 3` a fatal one there, `!!Died` one that belongs to no packet.
    fn line(&self, error: &Error) -> String {
        let kind = match error.kind() {
            ErrorKind::ReplyCount { .. } => "ReplyCount".to_owned(),
            kind => format!("{kind:?}"),
        };
        let mark = if error.is_fatal() { "!!" } else { "!" };
        let packet = error.packet().map(|packet| packet.wrapping_sub(self.first));
        packet.map_or_else(|| format!("{mark}{kind}"), |packet| format!("{mark}{kind} {packet}"))
    }

    /// Exactly these came, in this order where the door keeps it.
    #[track_caller]
    pub(crate) fn is(&self, expected: &[&str]) {
        let (mut items, mut expected) = (self.items.clone(), expected.to_vec());
        if self.door == Door::Unordered {
            items.sort_unstable();
            expected.sort_unstable();
        }
        assert_eq!(items, expected, "{self:?}");
    }

    /// No more sessions than this were started, where it can be known.
    #[track_caller]
    pub(crate) fn starts_at_most(&self, most: u64) {
        if let Some(snapshot) = &self.snapshot {
            assert!(snapshot.starts <= most, "{} started: {self:?}", snapshot.starts);
        }
    }
}

/// A test for each door.
macro_rules! doors {
    ($body:ident: $($door:ident)*) => {
        mod $body {
            $(#[test] fn $door() { super::$body(crate::field::Door::of(stringify!($door))); })*
        }
    };
}
pub(crate) use doors;

/// The window for so many items: without evidence what withholds comes to its end with the input, and not before.
pub(crate) fn ending(n: usize, window: usize) -> usize {
    if cfg!(subfeed_portable) { window.max(n) } else { window }
}

/// `READY` after a moment, then `script`.
pub(crate) fn ready(script: &str) -> Template {
    Template::shell(format!("sleep 0.1; echo READY; {script}")).ready("READY\n", LIMIT)
}

/// An input that does not end before it is let go of: gives the items, and waits.
pub(crate) fn open_ended(
    items: Vec<String>,
) -> (std::sync::mpsc::Sender<String>, impl Iterator<Item = String> + Send + 'static) {
    let (sender, receiver) = std::sync::mpsc::channel();
    for item in items {
        sender.send(item).expect("a receiver");
    }
    (sender, receiver.into_iter())
}
