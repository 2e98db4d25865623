//! What the three threads of the child share: who listens to the parent, who works, who writes.
//!
//! The main thread works: it alone runs code of the user's. The listener never blocks but in its read, so
//! that an order, or the parent's end, is noticed in the midst of a long `next()`. What is reported is in
//! the pipe before the next item is asked for, as long as there is room in it: so it arrives, even if that
//! next item is the end of the process. For the rest there is the writer, which waits for room; what gathers
//! meanwhile shares its next write. There is one *pen*, the pipe itself: who holds it writes, outside the
//! lock.
//!
//! What is to be done is decided by [`Orders`]; here it is waited for. Invariants, all under one lock:
//! - once a pass is stopped, or it is time to leave, whatever of this crate the worker waits in is cancelled (its gate is
//!   stopped by the thread that heard the order);
//! - every change that somebody may wait for is followed by a wake-up under the same lock.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::source::function::orders::{Order, Orders, Verdict};
use crate::source::function::protocol::{self, Command, HEAD};
use crate::tuning::UNWRITTEN_BYTES;
use crate::window::gate::Gate;
use crate::window::sync::lock;

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
    orders: Orders,
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
    /// Cancels what is not wanted any more.
    fn cancel(&self) {
        let session = self.session.iter().filter(|_| self.orders.is_leaving());
        let pass = self.pass.iter().filter(|pass| self.orders.is_stopped(pass.0));
        session.chain(pass.map(|(_, gate)| gate)).for_each(|gate| gate.stop());
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
        state.orders.hear(command, generation, body);
        state.cancel();
        self.worker.notify_one();
    }

    /// Waits until the work is done, and says whether it was in time.
    pub(super) fn is_left_within(&self, limit: Duration) -> bool {
        let state = lock(&self.state);
        let waited = self.left.wait_timeout_while(state, limit, |state| !state.done);
        waited.unwrap_or_else(PoisonError::into_inner).0.done
    }

    // ------------------------------------------------------------------ the worker

    /// Waits for the next order.
    pub(super) fn next_order(&self) -> Order {
        let mut state = lock(&self.state);
        loop {
            match state.orders.next() {
                Some(order) => return order,
                None => state = wait(&self.worker, state),
            }
        }
    }

    /// Waits until item `index` of the pass may be made and there is room for it, or it must not be made.
    pub(super) fn may_make(&self, generation: u64, index: u64) -> Verdict {
        let mut state = lock(&self.state);
        loop {
            match state.orders.may_make(generation, index) {
                Some(Verdict::Go) if state.unwritten.len() >= UNWRITTEN_BYTES => {}
                Some(verdict) => return verdict,
                None => {}
            }
            state = wait(&self.worker, state);
        }
    }

    /// What the worker waits in from now on is cancelled when it is time to leave.
    pub(super) fn enter_session(&self, gate: &Arc<Gate>) {
        let mut state = lock(&self.state);
        state.pass = None;
        state.session = Some(Arc::clone(gate));
        state.cancel();
        drop(state);
        gate.enter();
    }

    /// The same, also when this pass is stopped.
    pub(super) fn enter_pass(&self, generation: u64, gate: &Arc<Gate>) {
        let mut state = lock(&self.state);
        state.pass = Some((generation, Arc::clone(gate)));
        state.cancel();
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
        state.orders.leave();
        state.cancel();
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
