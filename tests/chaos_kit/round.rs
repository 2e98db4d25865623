//! One round: a feed by its plan, a consumer, and what the oracle says of the two.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use subfeed::{Error, Feed, FeedExt, FeedWithInput, InputError, Monitor, Order, Template};

use super::child::WORKER;
use super::oracle::{Item, Oracle};
use super::plan::{Leave, Plan};
use super::proc::{self, Belongings};
use super::rng::Rng;
use super::torment::Tormentor;

/// What a panic of ours says.
const PANIC: &str = "chaos";
/// Beyond the documented bound of a drop: this machine may be busy.
const SLACK: Duration = Duration::from_secs(20);
/// Until when whatever was killed must be gone from `/proc`.
const GONE: Duration = Duration::from_secs(60);

/// What became of a round.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) items: u64,
    pub(crate) replies: u64,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) faults: BTreeMap<String, u64>,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) misordered: u64,
    pub(crate) leaked: u64,
    pub(crate) recycles: u64,
    pub(crate) redeliveries: u64,
    /// How long the drop took, and how long it may take.
    pub(crate) drop: Option<(Duration, Duration)>,
    pub(crate) violations: Vec<String>,
}

/// What the watchdog looks at when a round hangs.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    pub(crate) monitors: Mutex<Vec<Monitor>>,
    pub(crate) stage: Mutex<&'static str>,
    pub(crate) begun: AtomicU64,
    pub(crate) pulled: AtomicU64,
}

impl Watched {
    pub(crate) fn progress(&self) -> (u64, u64, &'static str) {
        (self.begun.load(SeqCst), self.pulled.load(SeqCst), *self.stage.lock().expect("a lock"))
    }

    fn at(&self, stage: &'static str) {
        *self.stage.lock().expect("a lock") = stage;
    }
}

/// The consumer's two ways to hold a feed.
enum Held {
    Plain(Feed),
    Kept(FeedWithInput<String>),
}

impl Held {
    fn next(&mut self) -> Option<Item> {
        match self {
            Self::Plain(feed) => Some((None, feed.next()?)),
            Self::Kept(feed) => Some(match feed.next()? {
                Ok((input, reply)) => (Some(input), Ok(reply)),
                Err(InputError { input, error, .. }) => (input, Err(error)),
            }),
        }
    }

    fn monitor(&self) -> Monitor {
        match self {
            Self::Plain(feed) => feed.monitor(),
            Self::Kept(feed) => feed.monitor(),
        }
    }
}

/// Runs one round. To be called on a thread that a watchdog looks after.
pub(crate) fn run(plan: &Plan, dir: &Path, watched: &Arc<Watched>) -> Report {
    let before = Belongings::now();
    let journals = [dir.join("journal-0"), dir.join("journal-1")];
    let tormentor = Tormentor::start(plan);
    watched.at("consuming");
    let mut oracle = Oracle::new(plan);
    let feed = start(plan, &journals, watched);
    let monitor = feed.monitor();
    watched.monitors.lock().expect("a lock").push(monitor.clone());
    let dropped_at = consume(plan, feed, &mut oracle, watched);
    let mut report = Report::default();
    if let Some(start) = dropped_at {
        let took = start.elapsed();
        report.drop = Some((took, plan.drop_bound()));
        if took > plan.drop_bound() + SLACK {
            oracle.violated(format!("the drop took {took:?}"));
        }
    }
    watched.at("ending the tormentor");
    if let Some(done) = tormentor.map(Tormentor::stop) {
        report.faults.insert("SIGKILL from outside".to_owned(), done.kills);
        report.faults.insert("SIGSTOP and SIGCONT from outside".to_owned(), done.stops);
    }
    watched.at("looking for leaks");
    report.leaked = leaks(&before, &mut oracle);
    proc::sweep();
    for journal in &journals {
        read_journal(journal, &mut report, &mut oracle);
    }
    let snapshot = monitor.snapshot();
    report.recycles = snapshot.recycles;
    report.redeliveries = snapshot.redeliveries;
    report.items = oracle.items;
    report.replies = oracle.replies;
    report.errors = oracle.errors;
    report.lost = oracle.lost;
    report.duplicated = oracle.duplicated;
    report.misordered = oracle.misordered;
    report.violations = oracle.violations;
    report
}

fn template(plan: &Plan, journal: &Path) -> Template {
    let mut template = Template::new(std::env::current_exe().expect("this program"))
        .arg(WORKER)
        .arg(plan.seed.to_string())
        .arg("{id}")
        .arg(journal)
        .env(proc::MARK, proc::mark())
        .retries(if plan.at_most_once { 0 } else { plan.retries })
        .on_stall(plan.on_stall, plan.stall_delay)
        .give_up_after(plan.give_up)
        .backoff(Duration::from_millis(1), Duration::from_millis(20))
        .halt(plan.halt)
        .kill_sequence(plan.kill_sequence.iter().copied());
    if plan.at_most_once {
        template = template.at_most_once();
    }
    if let Some(limit) = plan.packet_timeout {
        template = template.packet_timeout(limit);
    }
    if let Some(limit) = plan.run_timeout {
        template = template.run_timeout(limit);
    }
    if let Some(records) = plan.recycle_records {
        template = template.recycle_after_records(records);
    }
    if let Some(age) = plan.recycle_age {
        template = template.recycle_after_age(age);
    }
    template
}

/// The error of a feed with the settings of the plan that is given nothing to do: they are refused or good.
pub(crate) fn refused(plan: &Plan) -> Option<Error> {
    std::iter::empty::<String>()
        .feed(template(plan, Path::new("journal")))
        .workers(plan.workers)
        .buffer(plan.window)
        .max_bytes(plan.max_bytes)
        .order(plan.order)
        .start()
        .find_map(Result::err)
}

fn start(plan: &Plan, journals: &[PathBuf; 2], watched: &Arc<Watched>) -> Held {
    let source = Source { plan: plan.clone(), next: 0, rng: Rng::fork(plan.seed, 3) };
    if plan.chained {
        let first = source
            .feed(template(plan, &journals[1]))
            .workers(plan.workers)
            .buffer(plan.window)
            .max_bytes(plan.max_bytes)
            .start();
        watched.monitors.lock().expect("a lock").push(first.monitor());
        let between = first.enumerate().map(|(k, result)| match result {
            Ok(reply) => reply.to_string(),
            Err(_) => format!("{k}:err"),
        });
        return last(
            plan,
            journals,
            watched,
            Counted { inner: between, plan: plan.clone(), watched: Arc::clone(watched) },
        );
    }
    last(
        plan,
        journals,
        watched,
        Counted { inner: source, plan: plan.clone(), watched: Arc::clone(watched) },
    )
}

fn last(
    plan: &Plan,
    journals: &[PathBuf; 2],
    _watched: &Arc<Watched>,
    source: impl Iterator<Item = String> + Send + 'static,
) -> Held {
    let builder = source
        .feed(template(plan, &journals[0]))
        .workers(plan.workers)
        .buffer(plan.window)
        .max_bytes(plan.max_bytes)
        .order(plan.order);
    if plan.keep_input {
        Held::Kept(builder.keep_input().start())
    } else {
        Held::Plain(builder.start())
    }
}

/// The inputs: slow here and there, and a panic where the plan says so.
struct Source {
    plan: Plan,
    next: u64,
    rng: Rng,
}

impl Iterator for Source {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        if self.plan.records.is_some_and(|records| self.next >= records) {
            return None;
        }
        if self.plan.slow_source.is_some_and(|n| self.rng.one_in(n)) {
            thread::sleep(Duration::from_micros(self.rng.below(10_000)));
        }
        if self.plan.source_panics == Some(self.next) {
            panic::panic_any(PANIC);
        }
        self.next += 1;
        Some(self.plan.request(self.next - 1))
    }
}

/// Counts what the last stage pulls, and holds the promise of look-ahead against it.
struct Counted<I> {
    inner: I,
    plan: Plan,
    watched: Arc<Watched>,
}

impl<I: Iterator> Iterator for Counted<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        let input = self.watched.pulled.load(SeqCst);
        let begun = self.watched.begun.load(SeqCst);
        // `begun` counts calls of the consumer's `next`, each of which yields one.
        assert!(
            input < begun.saturating_add(self.plan.window as u64),
            "input {input} was pulled with {begun} yielded and a window of {}",
            self.plan.window
        );
        let item = self.inner.next()?;
        self.watched.pulled.fetch_add(1, SeqCst);
        Some(item)
    }
}

/// Takes what the plan says, and returns when the drop began if it was one.
fn consume(
    plan: &Plan,
    mut feed: Held,
    oracle: &mut Oracle<'_>,
    watched: &Arc<Watched>,
) -> Option<Instant> {
    let most = match plan.leave {
        Leave::AtEnd => u64::MAX,
        Leave::Finish(n) | Leave::Drop(n) | Leave::Panic(n) => n,
    };
    let mut rng = Rng::fork(plan.seed, 4);
    let monitor = feed.monitor();
    if most == 0 {
        thread::sleep(Duration::from_micros(rng.below(60_000)));
    }
    while oracle.items < most {
        watched.begun.fetch_add(1, SeqCst);
        let next = panic::catch_unwind(AssertUnwindSafe(|| feed.next()));
        match next {
            Ok(Some(item)) => oracle.item(item),
            Ok(None) => {
                for _ in 0..3 {
                    if feed.next().is_some() {
                        oracle.violated("an item after the end".to_owned());
                    }
                }
                oracle.ended(watched.pulled.load(SeqCst), &monitor.snapshot());
                watched.at("dropping at the end");
                let start = Instant::now();
                drop(feed);
                return Some(start);
            }
            Err(payload) => {
                let due =
                    plan.source_panics.filter(|_| payload.downcast_ref::<&str>() == Some(&PANIC));
                match due {
                    None => {
                        let text = payload.downcast_ref::<String>().cloned();
                        oracle.violated(format!("a panic: {text:?}"));
                    }
                    Some(at)
                        if plan.order == Order::Input && !plan.chained && oracle.items != at =>
                    {
                        oracle.violated(format!(
                            "the source's panic at {at} came at {}",
                            oracle.items
                        ));
                    }
                    Some(_) => {}
                }
                if feed.next().is_some() {
                    oracle.violated("an item after a panic".to_owned());
                }
                watched.at("dropping after a panic");
                let start = Instant::now();
                drop(feed);
                return Some(start);
            }
        }
        if plan.slow_consumer.is_some_and(|n| rng.one_in(n)) {
            thread::sleep(Duration::from_micros(rng.below(20_000)));
        }
    }
    match (plan.leave, feed) {
        (Leave::Finish(_), Held::Plain(feed)) => {
            watched.at("in finish");
            watched.begun.store(u64::MAX, SeqCst);
            let result = panic::catch_unwind(AssertUnwindSafe(|| feed.finish()));
            match result {
                Ok(result) => {
                    oracle.finished(result, watched.pulled.load(SeqCst), &monitor.snapshot())
                }
                Err(_) if plan.source_panics.is_some() => {}
                Err(_) => oracle.violated("finish panics".to_owned()),
            }
            None
        }
        (Leave::Panic(_), feed) => {
            watched.at("panicking");
            let start = Instant::now();
            let _ = panic::catch_unwind(AssertUnwindSafe(move || {
                let _feed = feed;
                panic::panic_any(PANIC);
            }));
            Some(start)
        }
        (_, feed) => {
            watched.at("dropping");
            let start = Instant::now();
            drop(feed);
            Some(start)
        }
    }
}

/// Waits until nothing is left of the feed; counts what is.
fn leaks(before: &Belongings, oracle: &mut Oracle<'_>) -> u64 {
    let start = Instant::now();
    loop {
        let (now, left) = (Belongings::now(), proc::left_behind());
        if now == *before && left.is_empty() {
            return 0;
        }
        if start.elapsed() > GONE {
            oracle.violated(format!("left behind: {left:?}; now {now:?}; before {before:?}"));
            return 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn read_journal(path: &Path, report: &mut Report, oracle: &mut Oracle<'_>) {
    let journal = fs::read_to_string(path).unwrap_or_default();
    let mut read = std::collections::HashSet::new();
    for line in journal.lines() {
        if let Some(fault) = line.strip_prefix("fault ") {
            *report.faults.entry(fault.to_owned()).or_default() += 1;
        } else if line == "torn" {
            oracle.violated("the half of a request was run".to_owned());
        } else if let Some(packet) = line.strip_prefix("read ")
            && !read.insert(packet.to_owned())
        {
            oracle.violated(format!("packet {packet} was handed out twice under at_most_once"));
        }
    }
}
