//! What the three threads of the child share: who listens to the parent, who works, who writes.
//!
//! The main thread works: it alone runs code of the user's. The listener never blocks but in its read, so
//! that an order, or the parent's end, is noticed in the midst of a long `next()`. What is reported is in
//! the pipe before the next item is asked for, as long as there is room in it: so it arrives, even if that
//! next item is the end of the process. For the rest there is the writer, which waits for room; what gathers
//! meanwhile shares its next write. There is one *pen*, the pipe itself: who holds it writes, outside the
//! lock.
//!
//! Invariants, all under one lock:
//! - `next()` for item `k` of pass `g` is called only while `granted` is `(g, limit)` with `k < limit`, so
//!   that the child is never ahead of the consumer by more than the parent allowed;
//! - once `stopped >= g` or `leaving`, it is not called again for pass `g`, and whatever of this crate it
//!   waits in is cancelled (its gate is stopped by the thread that raised the flag);
//! - every change that somebody may wait for is followed by a wake-up under the same lock.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::source::function::protocol::{self, Command, HEAD, Opening, Status};
use crate::tuning::UNWRITTEN_BYTES;
use crate::window::gate::Gate;
use crate::window::sync::lock;

/// What the main thread is to do next, when it is in none of its passes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Order {
    Open(Opening),
    Start(u64),
    Leave,
    /// Not an order at all.
    Unexpected,
}

/// Whether the next item is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Go,
    Stopped,
    Leave,
    Unexpected,
}

#[derive(Debug, Default)]
pub(super) struct Mailbox {
    state: Mutex<State>,
    worker: Condvar,
    writer: Condvar,
    /// Somebody waits for the end of the work.
    left: Condvar,
}

#[derive(Debug, Default)]
struct State {
    orders: VecDeque<Order>,
    /// How many items of which pass may be made.
    granted: (u64, u64),
    /// Passes up to this one are not wanted any more.
    stopped: u64,
    leaving: bool,
    /// What a stop of the pass, or leaving, cancels.
    pass: Option<(u64, Arc<Gate>)>,
    /// What only leaving cancels.
    session: Option<Arc<Gate>>,
    /// Where reports go; with the thread that is writing, otherwise here.
    pen: Option<File>,
    unwritten: Vec<u8>,
    /// Nothing is written after what is there.
    done: bool,
    /// Nobody reads what is written.
    deaf: bool,
}

impl State {
    fn leave(&mut self) {
        self.leaving = true;
        for gate in self.pass.iter().map(|(_, gate)| gate).chain(&self.session) {
            gate.stop();
        }
    }
}

fn wait<'a>(condition: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    condition.wait(state).unwrap_or_else(PoisonError::into_inner)
}

impl Mailbox {
    /// # Errors
    /// If the pipe cannot be made not to block.
    pub(super) fn new(output: File) -> io::Result<Self> {
        // Ours alone: the two ends of a pipe are separate open file descriptions.
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let state = State { pen: Some(output), ..State::default() };
        Ok(Self { state: Mutex::new(state), ..Self::default() })
    }

    // ------------------------------------------------------------------ the listener

    /// Takes orders until there are no more, which is an order to leave.
    pub(super) fn listen(&self, mut input: impl Read) {
        let mut head = [0; HEAD];
        // An error is an end: the parent is gone, or has closed the pipe, which means the same.
        while input.read_exact(&mut head).is_ok() {
            let (what, generation, at) = protocol::head(&head);
            let mut body = Vec::new();
            let whole = input.by_ref().take(at.len() as u64).read_to_end(&mut body);
            if whole.is_ok_and(|read| read == at.len()) {
                self.order(Command::from_byte(what), generation, &body);
            } else {
                break;
            }
        }
        self.order(Some(Command::Abort), 0, &[]);
    }

    fn order(&self, command: Option<Command>, generation: u64, body: &[u8]) {
        let mut state = lock(&self.state);
        match (command, protocol::number(body)) {
            (Some(Command::Abort), _) => state.leave(),
            (Some(Command::Start), Some(limit)) => {
                state.granted = (generation, limit);
                state.orders.push_back(Order::Start(generation));
            }
            (Some(Command::More), Some(limit)) if state.granted.0 == generation => {
                state.granted.1 = state.granted.1.max(limit);
            }
            // Of a pass that is over.
            (Some(Command::More), Some(_)) => {}
            (Some(Command::Stop), _) => {
                state.stopped = state.stopped.max(generation);
                if let Some((_, gate)) = state.pass.as_ref().filter(|pass| pass.0 <= generation) {
                    gate.stop();
                }
            }
            (Some(Command::Open), _) => {
                let order = Opening::decode(body).map_or(Order::Unexpected, Order::Open);
                state.orders.push_back(order);
            }
            _ => state.orders.push_back(Order::Unexpected),
        }
        self.worker.notify_one();
    }

    /// Waits until the work is done, and says whether it was in time.
    pub(super) fn is_left_within(&self, limit: Duration) -> bool {
        let state = lock(&self.state);
        let waited = self.left.wait_timeout_while(state, limit, |state| !state.done);
        waited.unwrap_or_else(PoisonError::into_inner).0.done
    }

    // ------------------------------------------------------------------ the worker

    /// Waits for the next order. An opening is taken even if it is time to leave.
    pub(super) fn next_order(&self) -> Order {
        let mut state = lock(&self.state);
        loop {
            match state.orders.pop_front() {
                Some(opening @ Order::Open(_)) => return opening,
                _ if state.leaving => return Order::Leave,
                Some(order) => return order,
                None => state = wait(&self.worker, state),
            }
        }
    }

    /// Waits until item `index` of the pass may be made, or must not be.
    pub(super) fn may_make(&self, generation: u64, index: u64) -> Verdict {
        let mut state = lock(&self.state);
        loop {
            if state.leaving {
                return Verdict::Leave;
            }
            if state.stopped >= generation {
                return Verdict::Stopped;
            }
            if !state.orders.is_empty() {
                return Verdict::Unexpected;
            }
            let granted = state.granted.0 == generation && index < state.granted.1;
            if granted && state.unwritten.len() < UNWRITTEN_BYTES {
                return Verdict::Go;
            }
            state = wait(&self.worker, state);
        }
    }

    /// What the worker waits in from now on is cancelled when it is time to leave.
    pub(super) fn enter_session(&self, gate: &Arc<Gate>) {
        let mut state = lock(&self.state);
        state.pass = None;
        state.session = Some(Arc::clone(gate));
        if state.leaving {
            gate.stop();
        }
        drop(state);
        gate.enter();
    }

    /// The same, also when this pass is stopped.
    pub(super) fn enter_pass(&self, generation: u64, gate: &Arc<Gate>) {
        let mut state = lock(&self.state);
        if state.leaving || state.stopped >= generation {
            gate.stop();
        }
        state.pass = Some((generation, Arc::clone(gate)));
        drop(state);
        gate.enter();
    }

    /// Writes messages that are complete, or has them written if there is no room for them yet.
    pub(super) fn post(&self, messages: &[u8]) {
        let mut state = lock(&self.state);
        if state.deaf {
            return;
        }
        let mut unwritten = messages;
        if state.unwritten.is_empty()
            && let Some(mut pen) = state.pen.take()
        {
            drop(state);
            let written = write_some(&mut pen, messages);
            state = lock(&self.state);
            state.pen = Some(pen);
            match written {
                Ok(n) => unwritten = &messages[n..],
                Err(_) => return self.be_deaf(&mut state),
            }
        }
        state.unwritten.extend_from_slice(unwritten);
        if !state.unwritten.is_empty() {
            self.writer.notify_one();
        }
    }

    pub(super) fn report(&self, status: Status, generation: u64, body: &[u8]) {
        let mut message = Vec::with_capacity(HEAD + body.len());
        protocol::put(&mut message, status as u8, generation, body);
        self.post(&message);
    }

    /// The work is done: the writer writes what is left and ends.
    pub(super) fn leave(&self) {
        lock(&self.state).done = true;
        self.writer.notify_one();
        self.left.notify_all();
    }

    // ------------------------------------------------------------------ the writer

    /// Writes what there was no room for, until the work is done or nobody reads it.
    pub(super) fn write(&self) {
        let mut batch = Vec::new();
        loop {
            let mut state = lock(&self.state);
            while state.pen.is_none() || (state.unwritten.is_empty() && !state.done) {
                state = wait(&self.writer, state);
            }
            let pen = state.pen.take();
            // Dropped at the end, which is what tells the parent.
            let Some(mut pen) = pen.filter(|_| !state.unwritten.is_empty()) else { return };
            std::mem::swap(&mut state.unwritten, &mut batch);
            self.worker.notify_one();
            drop(state);
            let written = write_all(&mut pen, &batch);
            state = lock(&self.state);
            state.pen = Some(pen);
            if written.is_err() {
                self.be_deaf(&mut state);
            }
            drop(state);
            batch.clear();
            // One huge item does not stay in memory for ever.
            batch.shrink_to(4 * UNWRITTEN_BYTES);
        }
    }

    /// Nobody reads what is written, which is also an order to leave.
    fn be_deaf(&self, state: &mut State) {
        state.deaf = true;
        state.unwritten = Vec::new();
        state.leave();
        self.worker.notify_one();
        self.writer.notify_one();
    }
}

/// Writes as much as there is room for.
fn write_some(pen: &mut File, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match pen.write(&bytes[written..]) {
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

fn write_all(pen: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    loop {
        bytes = &bytes[write_some(pen, bytes)?..];
        if bytes.is_empty() {
            return Ok(());
        }
        let mut room = [PollFd::new(pen.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut room, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
