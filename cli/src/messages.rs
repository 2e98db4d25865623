//! Everything that goes to standard error, in the order in which it comes: this program's own lines, and what the workers
//! write.
//!
//! A thread writes it. A thread that has something to say waits while [`MOST`] bytes lie here, as it would at a pipe that nobody
//! reads; when the program is to end nobody waits any more. What cannot be written is lost, and is no reason to end.
//!
//! # Invariants
//! 1. What is in `queue` ends with whole lines, or with parts of lines for whose ends [`PATIENCE`] was waited.
//! 2. A part of a line is in `parts` and nowhere else, one for each worker.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use crate::streams::Stream;
use crate::words::no_thread;

/// Bytes that may wait to be written.
const MOST: usize = 256 << 10;
/// A line of a worker is waited for so long, and is written as far as it has come then.
const PATIENCE: Duration = Duration::from_millis(100);
/// What has to end at once waits so long for its last messages.
const HURRIED: Duration = Duration::from_millis(500);
/// A longer line is not waited for.
const LONGEST: usize = 4 << 10;

#[derive(Debug, Default)]
struct State {
    queue: Vec<u8>,
    parts: BTreeMap<usize, Vec<u8>>,
    /// Something that was taken out of the queue is being written.
    writing: bool,
    /// What was put into the queue last is a part of a line.
    open: bool,
    /// Nobody waits for room.
    hurried: bool,
    /// Drawn below what is written.
    bar: Option<ProgressBar>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write.
    news: Condvar,
    /// Something has been written.
    room: Condvar,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct Messages(Arc<Shared>);

impl Messages {
    /// Where it cannot work, it says why.
    pub(crate) fn new() -> Option<Self> {
        let messages = Self(Arc::default());
        let shared = Arc::clone(&messages.0);
        let name = "subfeed-messages".to_owned();
        match thread::Builder::new().name(name).spawn(move || shared.write_all()) {
            Ok(_) => Some(messages),
            Err(error) => {
                let line = no_thread("the thread that writes to standard error", &error);
                let _ = Stream::stderr().write_all(format!("subfeed: {line}\n").as_bytes());
                None
            }
        }
    }

    /// A bar is shown from now on.
    pub(crate) fn show(&self, bar: ProgressBar) {
        self.0.lock().bar = Some(bar);
    }

    /// One line of this program's own.
    pub(crate) fn say(&self, line: impl Display) {
        self.0.put(self.0.with_room(), |state| state.put_line(&line));
    }

    /// The same, without waiting for room.
    pub(crate) fn say_at_once(&self, line: impl Display) {
        self.0.put(self.0.lock(), |state| state.put_line(&line));
    }

    /// What a worker has written.
    pub(crate) fn pass(&self, worker: usize, bytes: &[u8]) {
        self.0.put(self.0.with_room(), |state| {
            let whole =
                bytes.iter().rposition(|byte| b"\n\r".contains(byte)).map_or(0, |at| at + 1);
            let (lines, part) = bytes.split_at(whole);
            let mut kept = state.parts.remove(&worker).unwrap_or_default();
            if !lines.is_empty() {
                state.queue.append(&mut kept);
                state.queue.extend_from_slice(lines);
                state.open = lines.last() != Some(&b'\n');
            }
            kept.extend_from_slice(part);
            if kept.len() > LONGEST {
                state.queue.append(&mut kept);
                state.open = true;
            }
            if !kept.is_empty() {
                state.parts.insert(worker, kept);
            }
        });
    }

    /// Waits until everything is written; where nobody waits any more, no longer than [`HURRIED`].
    pub(crate) fn flush(&self) {
        let mut state = self.0.lock();
        state.give_parts();
        self.0.news.notify_one();
        let mut until = None;
        while state.writing || !state.queue.is_empty() {
            if !state.hurried {
                state = wait(&self.0.room, state);
                continue;
            }
            let until = *until.get_or_insert_with(|| Instant::now() + HURRIED);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.0.room.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Nobody waits for room from now on.
    pub(crate) fn hurry(&self) {
        self.0.lock().hurried = true;
        self.0.room.notify_all();
    }
}

impl State {
    fn put_line(&mut self, line: &dyn Display) {
        let before = if std::mem::take(&mut self.open) { "\n" } else { "" };
        self.queue.extend_from_slice(format!("{before}subfeed: {line}\n").as_bytes());
    }

    fn give_parts(&mut self) {
        for (_, mut part) in std::mem::take(&mut self.parts) {
            self.queue.append(&mut part);
            self.open = true;
        }
    }
}

fn wait<'a>(on: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    on.wait(state).unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_room(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while state.queue.len() >= MOST && !state.hurried {
            state = wait(&self.room, state);
        }
        state
    }

    /// Adds something, where there is not far too much already.
    fn put(&self, mut state: MutexGuard<'_, State>, add: impl FnOnce(&mut State)) {
        if state.queue.len() < 2 * MOST {
            add(&mut state);
        }
        self.news.notify_one();
    }

    fn write_all(&self) {
        let mut batch = Vec::new();
        let mut state = self.lock();
        loop {
            while state.queue.is_empty() {
                if state.parts.is_empty() {
                    state = wait(&self.news, state);
                    continue;
                }
                let waited = self.news.wait_timeout(state, PATIENCE);
                let (after, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                state = after;
                if timeout.timed_out() {
                    state.give_parts();
                }
            }
            std::mem::swap(&mut batch, &mut state.queue);
            state.writing = true;
            let bar = state.bar.clone().filter(|bar| !bar.is_hidden() && !bar.is_finished());
            drop(state);
            self.room.notify_all();
            // Nobody is left who could be told of a failure.
            let write = || _ = Stream::stderr().write_all(&batch);
            match bar {
                Some(bar) => bar.suspend(write),
                None => write(),
            }
            batch.clear();
            state = self.lock();
            state.writing = false;
            self.room.notify_all();
        }
    }
}
