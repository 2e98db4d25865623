//! A bounded recording of what the workers of a feed did, to be looked at as a picture.
//!
//! The event loop records what has changed after each event at a session, so a feed has as many entries as its workers
//! change what they do, not as it has records. A stretch of time is recorded when it ends; what still goes on is added
//! when the timeline is read.
//!
//! # Invariants
//! 1. There are never more than `most` events. For each that comes on top the oldest goes, and is counted.
//! 2. The states of a worker follow one another without a gap from the start of a session to its end.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitStatus;
use std::time::Duration;

use crate::sync::{Mutex, lock};
use crate::watch::{Head, Standing, WorkerState};

/// How often the window and the head are looked at, at most.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// One event, or one period, of a recording. From [`Timeline::events`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// When it began, since the feed's start.
    pub at: Duration,
    /// How long it lasted; zero if it has no duration.
    pub lasted: Duration,
    /// The worker that it concerns.
    pub worker: Option<usize>,
    /// What happened.
    pub what: What,
}

/// What is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// A session, from its start until it was reaped.
    Session {
        /// Its number, counted through the whole feed.
        number: u64,
        /// Its process id.
        pid: Option<u32>,
        /// How it ended; `None` while it runs, and if that is not known.
        status: Option<ExitStatus>,
    },
    /// A worker was in this state.
    State(WorkerState),
    /// A session's stdin was closed so that it answers what it had kept in a buffer.
    Recycled,
    /// A session ended although the feed had not asked it to.
    Died,
    /// A time limit was exceeded.
    Timeout,
    /// A signal was sent to a session.
    Signalled,
    /// Packets that a session had left unanswered are sent again.
    Redelivered {
        /// How many packets.
        packets: u64,
    },
    /// How full the window was from this moment on.
    Window {
        /// Packets that were pulled from the source and not yet yielded.
        under_way: u64,
        /// Of these, packets that are answered.
        ready: u64,
        /// Of these, packets that no worker was given yet.
        waiting: u64,
    },
    /// The worker had the packet that the consumer waited for.
    Head {
        /// The first such packet.
        packet: u64,
    },
}

/// What counters were before an event and after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tolls {
    pub(crate) recycles: u64,
    pub(crate) deaths: u64,
    pub(crate) timeouts: u64,
    pub(crate) signals: u64,
    pub(crate) redeliveries: u64,
}

/// The recording as the event loop makes it.
#[derive(Debug)]
pub(crate) struct Recorder(Mutex<Recording>);

#[derive(Debug)]
struct Recording {
    most: usize,
    events: VecDeque<Event>,
    left_out: u64,
    /// What each worker does now.
    workers: Vec<Track>,
    head: Option<(Head, Duration)>,
    window: Option<What>,
    looked: Option<Duration>,
    now: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Track {
    session: Option<(u64, Option<u32>, Duration)>,
    state: Option<(WorkerState, Duration)>,
}

impl Recorder {
    /// A recording of so many events at most, of so many workers.
    pub(crate) fn new(most: usize, workers: usize) -> Self {
        Self(Mutex::new(Recording {
            most: most.max(1),
            events: VecDeque::new(),
            left_out: 0,
            workers: vec![Track::default(); workers],
            head: None,
            window: None,
            looked: None,
            now: Duration::ZERO,
        }))
    }

    /// A session has begun.
    pub(crate) fn started(&self, worker: usize, number: u64, pid: Option<u32>, now: Duration) {
        lock(&self.0).workers[worker].session = Some((number, pid, now));
    }

    /// Something has happened at a worker, which is in this state now.
    pub(crate) fn turned(
        &self,
        worker: usize,
        state: WorkerState,
        before: &Tolls,
        after: &Tolls,
        now: Duration,
    ) {
        let mut recording = lock(&self.0);
        recording.toll(worker, before, after, now);
        recording.change(worker, Some(state), now);
    }

    /// A session was reaped.
    pub(crate) fn ended(
        &self,
        worker: usize,
        status: Option<ExitStatus>,
        before: &Tolls,
        after: &Tolls,
        now: Duration,
    ) {
        let mut recording = lock(&self.0);
        recording.change(worker, None, now);
        recording.toll(worker, before, after, now);
        if let Some((number, pid, since)) = recording.workers[worker].session.take() {
            recording.put(since, now, Some(worker), What::Session { number, pid, status });
        }
    }

    /// Whether it is time to look at the window and the head.
    pub(crate) fn wants_look(&self, now: Duration) -> bool {
        let looked = lock(&self.0).looked;
        looked.is_none_or(|looked| now >= looked.saturating_add(LOOK_EVERY))
    }

    /// How the window stands, and who has what the consumer waits for.
    pub(crate) fn looked(&self, standing: &Standing, head: Option<Head>, now: Duration) {
        let mut recording = lock(&self.0);
        recording.looked = Some(now);
        let window = What::Window {
            under_way: standing.accepted.saturating_sub(standing.yielded),
            ready: standing.resolved.saturating_sub(standing.yielded),
            waiting: standing.waiting,
        };
        if recording.window != Some(window) {
            recording.window = Some(window);
            recording.put(now, now, None, window);
        }
        let same = match (&recording.head, &head) {
            (Some((before, _)), Some(head)) => before.worker == head.worker,
            (None, None) => true,
            _ => false,
        };
        if !same {
            if let Some((before, since)) = recording.head.take() {
                let what = What::Head { packet: before.packet };
                recording.put(since, now, Some(before.worker), what);
            }
            recording.head = head.map(|head| (head, now));
        }
    }

    /// What has been recorded until now.
    pub(crate) fn read(&self, command: String) -> Timeline {
        let recording = lock(&self.0);
        let now = recording.now;
        let mut events: Vec<_> = recording.events.iter().cloned().collect();
        let mut open = |since: Duration, worker: usize, what: What| {
            let lasted = now.saturating_sub(since);
            events.push(Event { at: since, lasted, worker: Some(worker), what });
        };
        for (worker, track) in recording.workers.iter().enumerate() {
            if let Some((number, pid, since)) = track.session {
                open(since, worker, What::Session { number, pid, status: None });
            }
            if let Some((state, since)) = track.state {
                open(since, worker, What::State(state));
            }
        }
        if let Some((head, since)) = recording.head {
            open(since, head.worker, What::Head { packet: head.packet });
        }
        // Of two that begin together the longer one comes first, as it contains the other.
        events.sort_by_key(|event| (event.at, std::cmp::Reverse(event.lasted)));
        Timeline { events, left_out: recording.left_out, command }
    }
}

impl Recording {
    fn put(&mut self, since: Duration, now: Duration, worker: Option<usize>, what: What) {
        self.now = self.now.max(now);
        if self.events.len() >= self.most {
            self.events.pop_front();
            self.left_out += 1;
        }
        let lasted = now.saturating_sub(since);
        self.events.push_back(Event { at: since, lasted, worker, what });
    }

    fn change(&mut self, worker: usize, state: Option<WorkerState>, now: Duration) {
        self.now = self.now.max(now);
        let before = self.workers[worker].state;
        if before.map(|(before, _)| before) == state {
            return;
        }
        self.workers[worker].state = state.map(|state| (state, now));
        // What lasted no time at all was not seen by anybody.
        if let Some((before, since)) = before
            && since < now
        {
            self.put(since, now, Some(worker), What::State(before));
        }
    }

    fn toll(&mut self, worker: usize, before: &Tolls, after: &Tolls, now: Duration) {
        let each = [
            (after.recycles - before.recycles, What::Recycled),
            (after.deaths - before.deaths, What::Died),
            (after.timeouts - before.timeouts, What::Timeout),
            (after.signals - before.signals, What::Signalled),
        ];
        for (n, what) in each {
            for _ in 0..n {
                self.put(now, now, Some(worker), what);
            }
        }
        let packets = after.redeliveries - before.redeliveries;
        if packets > 0 {
            self.put(now, now, Some(worker), What::Redelivered { packets });
        }
    }
}

/// A recording of a feed; from [`Monitor::timeline`](crate::Monitor::timeline).
///
/// [`write_to`](Timeline::write_to) writes it as a Chrome trace, which <https://ui.perfetto.dev> and
/// `chrome://tracing` display: one row for each worker, with its sessions and their states, one row for the worker whose
/// packet the consumer waited for, and a curve for the fill of the window.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    events: Vec<Event>,
    left_out: u64,
    command: String,
}

impl Timeline {
    /// The events in the order of time. A state that has not ended lasts until the last event.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// How many of the oldest events were dropped because the limit was reached.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Writes the recording as a Chrome trace in JSON. If events were dropped, `otherData` and an event at the start say
    /// how many.
    ///
    /// # Errors
    /// The error of the writer.
    pub fn write_to(&self, mut writer: impl Write) -> io::Result<()> {
        let start = self.events.first().map_or(Duration::ZERO, |event| event.at);
        let mut line = String::new();
        let mut write = |json: &str, first: bool| -> io::Result<()> {
            writer.write_all(if first { b"" } else { b",\n" })?;
            writer.write_all(json.as_bytes())
        };
        write("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n", true)?;
        // Rows are named first. Row 0 is the window's and the head's.
        let command = quoted(&self.command);
        write(
            &format!(
                "{{\"ph\":\"M\",\"pid\":1,\"tid\":0,\"name\":\"process_name\",\"args\":{{\"name\":{command}}}}}"
            ),
            true,
        )?;
        write(
            "{\"ph\":\"M\",\"pid\":1,\"tid\":0,\"name\":\"thread_name\",\"args\":{\"name\":\"head\"}}",
            false,
        )?;
        let workers = self.events.iter().filter_map(|event| event.worker).max();
        for worker in 0..workers.map_or(0, |last| last + 1) {
            line.clear();
            let _ = write!(
                line,
                "{{\"ph\":\"M\",\"pid\":1,\"tid\":{},\"name\":\"thread_name\",\"args\":{{\"name\":\"worker {worker}\"}}}}",
                worker + 1
            );
            write(&line, false)?;
        }
        if self.left_out > 0 {
            line.clear();
            let _ = write!(
                line,
                "{{\"ph\":\"i\",\"s\":\"g\",\"pid\":1,\"tid\":0,\"ts\":{},\"name\":\"{} earlier events are left out\"}}",
                micros(start),
                self.left_out
            );
            write(&line, false)?;
        }
        for event in &self.events {
            line.clear();
            event.write(&mut line);
            write(&line, false)?;
        }
        write(&format!("\n],\"otherData\":{{\"left_out\":{}}}}}\n", self.left_out), true)?;
        writer.flush()
    }
}

/// With three digits behind the point: nanoseconds.
fn micros(time: Duration) -> String {
    format!("{}.{:03}", time.as_micros(), time.subsec_nanos() % 1_000)
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

impl Event {
    fn write(&self, line: &mut String) {
        // The head has a row of its own, with the worker as its name.
        let row = match self.what {
            What::Head { .. } => 0,
            _ => self.worker.map_or(0, |worker| worker + 1),
        };
        let (phase, name, args) = self.what.told(self.worker);
        let _ = write!(
            line,
            "{{\"ph\":\"{phase}\",\"pid\":1,\"tid\":{row},\"ts\":{},\"name\":\"{name}\"",
            micros(self.at)
        );
        match phase {
            'X' => _ = write!(line, ",\"dur\":{}", micros(self.lasted)),
            'i' => line.push_str(",\"s\":\"t\""),
            _ => {}
        }
        let _ = write!(line, ",\"args\":{{{args}}}}}");
    }
}

impl What {
    /// The kind of a trace event, its name and its arguments.
    fn told(&self, worker: Option<usize>) -> (char, String, String) {
        match *self {
            Self::Session { number, pid, status } => {
                let pid = pid.map_or_else(|| "null".to_owned(), |pid| pid.to_string());
                let status = status.map_or_else(|| "null".to_owned(), |s| quoted(&s.to_string()));
                ('X', format!("session {number}"), format!("\"pid\":{pid},\"status\":{status}"))
            }
            Self::State(state) => ('X', state.word().to_owned(), String::new()),
            Self::Recycled => ('i', "recycled".to_owned(), String::new()),
            Self::Died => ('i', "died".to_owned(), String::new()),
            Self::Timeout => ('i', "timeout".to_owned(), String::new()),
            Self::Signalled => ('i', "signalled".to_owned(), String::new()),
            Self::Redelivered { packets } => {
                ('i', "redelivered".to_owned(), format!("\"packets\":{packets}"))
            }
            Self::Window { under_way, ready, waiting } => (
                'C',
                "window".to_owned(),
                format!(
                    "\"ready\":{ready},\"with workers\":{},\"waiting\":{waiting}",
                    under_way.saturating_sub(ready).saturating_sub(waiting)
                ),
            ),
            Self::Head { packet } => {
                let worker =
                    worker.map_or_else(|| "nobody".to_owned(), |id| format!("worker {id}"));
                ('X', worker, format!("\"packet\":{packet}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn states_are_stretches_of_time_and_what_goes_on_is_among_them() {
        let recorder = Recorder::new(100, 2);
        let none = Tolls::default();
        recorder.started(1, 4, Some(77), ms(1));
        for (state, at) in [
            (WorkerState::Idle, 1),
            (WorkerState::Busy, 3),
            (WorkerState::Busy, 4),
            (WorkerState::Idle, 9),
        ] {
            recorder.turned(1, state, &none, &none, ms(at));
        }
        let recycled = Tolls { recycles: 1, ..none };
        recorder.turned(1, WorkerState::Closing, &none, &recycled, ms(12));
        let events = recorder.read(String::new()).events;
        let told: Vec<_> =
            events.iter().map(|event| (event.at, event.lasted, event.what)).collect();
        let session = What::Session { number: 4, pid: Some(77), status: None };
        assert_eq!(
            told,
            [
                (ms(1), ms(11), session),
                (ms(1), ms(2), What::State(WorkerState::Idle)),
                (ms(3), ms(6), What::State(WorkerState::Busy)),
                (ms(9), ms(3), What::State(WorkerState::Idle)),
                (ms(12), ms(0), What::Recycled),
                (ms(12), ms(0), What::State(WorkerState::Closing)),
            ]
        );
        assert!(events.iter().all(|event| event.worker == Some(1)));
        recorder.ended(1, None, &recycled, &recycled, ms(20));
        assert_eq!(recorder.read(String::new()).events.len(), 6);
    }

    #[test]
    fn beyond_the_bound_the_oldest_go_and_are_counted() {
        let recorder = Recorder::new(10, 1);
        let none = Tolls::default();
        for n in 0..100 {
            let state = if n % 2 == 0 { WorkerState::Idle } else { WorkerState::Busy };
            recorder.turned(0, state, &none, &none, ms(n));
        }
        let timeline = recorder.read("a \"command\"\n\\".to_owned());
        assert_eq!((timeline.events.len(), timeline.left_out()), (11, 89));
        assert_eq!(timeline.events[0].at, ms(89));
        let mut json = Vec::new();
        timeline.write_to(&mut json).unwrap();
        let json = String::from_utf8(json).unwrap();
        assert!(json.contains("\"89 earlier events are left out\""), "{json}");
        assert!(json.contains("\"otherData\":{\"left_out\":89}"), "{json}");
        assert!(json.contains("\"name\":\"a \\\"command\\\"\\u000a\\\\\""), "{json}");
    }
}
