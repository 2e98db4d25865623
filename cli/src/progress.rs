//! What is said on standard error: the bar, hints while something is waited for, and what was done at the end.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use subfeed::Monitor;

use crate::messages::Messages;
use crate::options::Run;
use crate::streams::Stream;
use crate::words::ours;

/// How often somebody who watches is told.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug)]
struct State {
    messages: Messages,
    bar: Option<ProgressBar>,
    stats: bool,
    start: Instant,
    /// Bytes read, records and bytes written.
    read: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
    monitor: OnceLock<Monitor>,
    ended: AtomicBool,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Progress(Arc<State>);

impl Progress {
    pub(crate) fn new(run: &Run, input: &Stream, messages: Messages) -> Self {
        let bar = (run.bar || run.eta).then(|| {
            // Of a file it is known how much there is.
            let size = input.left();
            let (bar, shape) = match size {
                Some(size) if run.eta => (
                    ProgressBar::new(size),
                    "{elapsed} [{bar:40}] {bytes}/{total_bytes} {binary_bytes_per_sec} {msg}, {eta} left",
                ),
                Some(size) => (
                    ProgressBar::new(size),
                    "{elapsed} [{bar:40}] {bytes}/{total_bytes} {binary_bytes_per_sec} {msg}",
                ),
                None => (ProgressBar::no_length(), "{elapsed} {bytes} {binary_bytes_per_sec} {msg}"),
            };
            match ProgressStyle::with_template(shape) {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        if let Some(bar) = &bar {
            messages.show(bar.clone());
        }
        Self(Arc::new(State {
            messages,
            bar,
            stats: run.stats,
            start: Instant::now(),
            read: AtomicU64::new(0),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            monitor: OnceLock::new(),
            ended: AtomicBool::new(false),
        }))
    }

    /// The input, with what is read of it counted.
    pub(crate) fn count(&self, input: Stream) -> Counted {
        Counted { input, state: Arc::clone(&self.0) }
    }

    /// Has somebody look at the feed now and then, for the bar and for hints. Nothing depends on it.
    pub(crate) fn watch(&self, monitor: Monitor) -> io::Result<()> {
        let _ = self.0.monitor.set(monitor.clone());
        let state = Arc::clone(&self.0);
        let look = move || {
            let mut told = None;
            while !state.ended.load(SeqCst) {
                thread::park_timeout(LOOK);
                let hint = monitor.snapshot().hint;
                if let Some(hint) = &hint
                    && told.as_ref() != Some(hint)
                    && !state.ended.load(SeqCst)
                {
                    state.messages.say_at_once(format_args!("hint: {}", ours(hint)));
                }
                told = hint.or(told);
                state.draw();
            }
        };
        thread::Builder::new().name("subfeed-watch".to_owned()).spawn(look).map(|_| ())
    }

    /// How many records are answered and written.
    pub(crate) fn records(&self) -> u64 {
        self.0.records.load(Relaxed)
    }

    pub(crate) fn wrote(&self, records: u64, bytes: u64) {
        self.0.records.fetch_add(records, Relaxed);
        self.0.bytes.fetch_add(bytes, Relaxed);
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        self.0.ended.store(true, SeqCst);
        if let Some(bar) = &self.0.bar {
            bar.finish_and_clear();
        }
    }

    /// The run has ended, with so many failures.
    pub(crate) fn finish(&self, failures: u64) {
        let state = &self.0;
        state.ended.store(true, SeqCst);
        if let Some(bar) = &state.bar {
            state.draw();
            bar.abandon();
        }
        if !state.stats {
            return;
        }
        let seconds = state.start.elapsed().as_secs_f64();
        let (records, bytes) = (state.records.load(Relaxed), state.bytes.load(Relaxed));
        let read = state.read.load(Relaxed);
        state.messages.say(format_args!(
            "{} records answered, {} failed; {} read, {} written in {seconds:.2} s ({}/s)",
            HumanCount(records),
            HumanCount(failures),
            HumanBytes(read),
            HumanBytes(bytes),
            HumanBytes((read as f64 / seconds) as u64),
        ));
        if let Some(monitor) = state.monitor.get() {
            let seen = monitor.snapshot();
            state.messages.say(format_args!(
                "{} sessions started, {} died, {} recycled, {} time limits ran out, {} records sent again",
                seen.starts, seen.deaths, seen.recycles, seen.timeouts, seen.redeliveries
            ));
        }
    }
}

impl State {
    fn draw(&self) {
        let Some(bar) = &self.bar else { return };
        bar.set_message(format!("{} records", HumanCount(self.records.load(Relaxed))));
        bar.set_position(self.read.load(Relaxed));
    }
}

/// See [`Progress::count`].
#[derive(Debug)]
pub(crate) struct Counted {
    input: Stream,
    state: Arc<State>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(into)?;
        self.state.read.fetch_add(n as u64, Relaxed);
        Ok(n)
    }
}
