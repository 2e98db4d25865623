//! What the event loop tells of its workers, when it is asked.
//!
//! Nothing is told that nobody asks for: a thread that asks counts up [`asked`](Board::asked), wakes the event loop,
//! and waits for it to answer at the end of its turn. So a feed that nobody watches pays for one load a turn.
//!
//! # Invariants
//! 1. `told` is the number of the last question that was answered, and what stands beside it was true after
//!    that question. The event loop reads `asked` before it looks at its workers.
//! 2. Nobody waits where nobody will answer: before the event loop has begun, after it has ended, and on its own
//!    thread.

use std::sync::Arc;
use std::sync::Condvar;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::sync::{Mutex, lock};

/// How long a thread that asks waits for an event loop that does not come round, because a closure of the user's
/// holds it up. It then gets what was told last.
const WITHIN: Duration = Duration::from_millis(100);

/// One worker of a feed at one moment; from [`Monitor::workers`](crate::Monitor::workers).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Worker {
    /// Its number, `0..n`.
    pub id: usize,
    /// The machine on which its session runs, if a launcher started it there; `None` for this machine.
    pub host: Option<Arc<str>>,
    /// The process id of its session, if it has one.
    pub pid: Option<u32>,
    /// What it is doing.
    pub state: WorkerState,
    /// The number of its current session, or of its last one; `None` if it has had none. Sessions are counted through
    /// the whole feed, from 0.
    pub session: Option<u64>,
    /// Packets that its session was given and has not answered.
    pub owed: u64,
    /// Packets that all its sessions have answered.
    pub answered: u64,
    /// The total time for which it has owed replies.
    pub busy: Duration,
    /// The same as a share of the time since the feed's start, `0.0..=1.0`.
    pub busy_share: f64,
    /// How long it has been working on its oldest packet, which it must answer next. `None` if it owes nothing.
    pub oldest: Option<Duration>,
    /// How many sessions it has had after its first.
    pub restarts: u64,
}

impl Worker {
    /// A worker that has had no session.
    pub(crate) fn new(id: usize) -> Self {
        Self {
            id,
            host: None,
            pid: None,
            state: WorkerState::Vacant,
            session: None,
            owed: 0,
            answered: 0,
            busy: Duration::ZERO,
            busy_share: 0.0,
            oldest: None,
            restarts: 0,
        }
    }
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkerState {
    /// It has no session, because none is needed or it has not been started yet.
    Vacant,
    /// Its last session failed, and the feed waits before it starts the next one.
    BackingOff,
    /// Its session has started and has not yet printed its banner or its ready marker.
    Starting,
    /// It owes nothing and can be given more.
    Idle,
    /// It owes replies.
    Busy,
    /// It owes replies, and was quiet when it was last examined.
    Quiet,
    /// It gets no more requests: its stdin is closed, or will be.
    Closing,
    /// It is being sent the signals of the kill sequence.
    Killing,
    /// It has exited and is not reaped yet.
    Exited,
}

#[cfg(feature = "timeline")]
impl WorkerState {
    /// As it stands in a timeline.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Vacant => "vacant",
            Self::BackingOff => "backing off",
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Quiet => "quiet",
            Self::Closing => "closing",
            Self::Killing => "killing",
            Self::Exited => "exited",
        }
    }
}

/// The packet that the consumer waits for, if a worker has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) packet: u64,
    pub(crate) worker: usize,
    /// How long that worker has been at the packet that it must answer next.
    pub(crate) since: Duration,
}

/// What is told in answer to one question.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) workers: Vec<Worker>,
    pub(crate) head: Option<Head>,
    /// The packet that the consumer takes next, where the order is the input's.
    pub(crate) next: u64,
    /// Packets that are answered and not taken.
    pub(crate) ready: u64,
    /// The tool was seen to withhold its replies.
    pub(crate) withholding: bool,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Board {
    asked: AtomicU64,
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    told: u64,
    /// The event loop's thread, while it runs.
    teller: Option<ThreadId>,
    view: View,
}

impl Board {
    /// A board for so many workers, none of which has a session.
    pub(crate) fn new(workers: usize) -> Self {
        let view = View { workers: (0..workers).map(Worker::new).collect(), ..View::default() };
        Self { state: Mutex::new(State { view, ..State::default() }), ..Self::default() }
    }

    /// Event loop, on its own thread: from now on questions are answered.
    pub(crate) fn open(&self) {
        lock(&self.state).teller = Some(thread::current().id());
    }

    /// Event loop, once a turn: the number of a question that is not answered yet.
    #[inline]
    pub(crate) fn question(&self, told: u64) -> Option<u64> {
        let asked = self.asked.load(SeqCst);
        (asked != told).then_some(asked)
    }

    /// Event loop: answers a question. The last answer is there to be written into.
    pub(crate) fn tell(&self, question: u64, write: impl FnOnce(&mut View)) {
        let mut state = lock(&self.state);
        write(&mut state.view);
        state.told = question;
        drop(state);
        self.news.notify_all();
    }

    /// Event loop: there will be no other answer than this one.
    pub(crate) fn close(&self, write: impl FnOnce(&mut View)) {
        let mut state = lock(&self.state);
        write(&mut state.view);
        state.teller = None;
        drop(state);
        self.news.notify_all();
    }

    /// Asks; `wake` wakes the event loop. Waits for the answer where one is to come.
    pub(crate) fn ask(&self, wake: impl FnOnce()) -> View {
        let here = thread::current().id();
        if lock(&self.state).teller.is_none_or(|teller| teller == here) {
            return lock(&self.state).view.clone();
        }
        let question = self.asked.fetch_add(1, SeqCst) + 1;
        wake();
        let until = Instant::now() + WITHIN;
        let mut state = lock(&self.state);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if state.told >= question || state.teller.is_none() || left.is_zero() {
                return state.view.clone();
            }
            state = match self.news.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_where_nobody_answers() {
        let board = Board::new(2);
        let ids = |view: View| view.workers.iter().map(|worker| worker.id).collect::<Vec<_>>();
        let never = || panic!("nobody is to be woken");
        assert_eq!(ids(board.ask(never)), [0, 1]);
        board.open();
        assert_eq!(ids(board.ask(never)), [0, 1], "on its own thread");
        board.close(|view| view.withholding = true);
        assert!(board.ask(never).withholding);
    }

    #[test]
    fn an_answer_is_of_after_its_question() {
        let board = Arc::new(Board::new(1));
        let (wake, woken) = std::sync::mpsc::channel();
        let teller = {
            let board = Arc::clone(&board);
            thread::spawn(move || {
                board.open();
                let mut told = 0;
                while let Ok(n) = woken.recv() {
                    if let Some(question) = board.question(told) {
                        board.tell(question, |view| view.workers[0].answered = n);
                        told = question;
                    }
                }
                board.close(|_| {});
            })
        };
        while lock(&board.state).teller.is_none() {
            thread::yield_now();
        }
        for n in 1..=1_000 {
            let view = board.ask(|| wake.send(n).unwrap());
            assert_eq!(view.workers[0].answered, n);
        }
        drop(wake);
        teller.join().unwrap();
    }

    #[test]
    fn who_does_not_come_round_is_not_waited_for_for_long() {
        let board = Arc::new(Board::new(1));
        let other = Arc::clone(&board);
        thread::spawn(move || other.open()).join().unwrap();
        let start = Instant::now();
        assert_eq!(board.ask(|| {}).workers.len(), 1);
        assert!(start.elapsed() >= WITHIN);
    }
}
