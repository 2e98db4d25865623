//! The threads behind an outlet, and who waits for their end.
//!
//! A drop waits, so that nothing of the feed is left when it returns. But a feed is dropped on any thread, also on
//! one of ours, which run code of the user's: the source and `encode` on an intake, `check` on an executor's thread. The
//! last owner of a feed may go away there, of that very feed or of another one. So there are rules:
//!
//! 1. An executor's thread (an event loop) waits for nobody.
//! 2. An intake waits for the threads of a feed that goes away on it, as one does that its source owned, but never for
//!    those of its own feed, nor of one whose intake waits, by itself or by way of others, for this one.
//! 3. Anybody else waits: nobody here ever waits for them.
//!
//! Who is not waited for is let go. It has been told to end, and ends by itself.
//!
//! # Invariants
//! 1. An intake says for whom it is about to wait ([`Gate::about_to_join`]) before it looks for whom that one waits, and so
//!    on. Of several that would close a circle the last to say so sees all the others, and does not wait. (If two see each
//!    other, neither waits.)
//! 2. Whatever else an intake waits in is ended by its gate's stop, which comes before the wait for it: the gate
//!    itself, the outlet of an earlier feed, an inlet. Only code of the user's is not, and there it is left.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::window::gate::{Gate, Inside};
use crate::window::sync;
use crate::window::sync::channel::{Receiver, RecvTimeoutError, bounded};
use crate::window::sync::thread::{self, JoinHandle};

/// What this thread is to us.
enum Role {
    Other,
    /// It pulls for the feed with this gate.
    Intake(Arc<Gate>),
    Executor,
}

sync::thread_local! {
    static ROLE: RefCell<Role> = const { RefCell::new(Role::Other) };
}

fn set_role(role: Role) {
    ROLE.with(|ours| *ours.borrow_mut() = role);
}

/// From now on this thread pulls for the feed with this gate.
pub(crate) fn become_intake(gate: &Arc<Gate>) {
    set_role(Role::Intake(Arc::clone(gate)));
}

/// The gate of the feed that pulls on this thread, if this is an intake.
///
/// Whatever waits on such a thread ends when that feed is stopped: so dropping the last stage of a chain wakes
/// every stage.
pub(crate) fn puller() -> Option<Arc<Gate>> {
    let ours = ROLE.try_with(|role| match &*role.borrow() {
        Role::Intake(gate) => Some(Arc::clone(gate)),
        _ => None,
    });
    ours.ok().flatten()
}

/// Whether this thread is an intake or an executor's.
pub(crate) fn is_ours() -> bool {
    ROLE.try_with(|role| !matches!(*role.borrow(), Role::Other)).unwrap_or(false)
}

fn is_executor() -> bool {
    ROLE.try_with(|role| matches!(*role.borrow(), Role::Executor)).unwrap_or(false)
}

/// Whatever happens, no thread waits for itself, not even while its thread-locals go away.
fn is_this<T>(handle: &JoinHandle<T>) -> bool {
    handle.thread().id() == thread::current().id()
}

/// The thread of an executor. Dropped, it is let go.
#[derive(Debug)]
pub(crate) struct ExecutorThread(JoinHandle<()>);

impl ExecutorThread {
    pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let run = move || {
            set_role(Role::Executor);
            run();
        };
        thread::Builder::new().name(name.to_owned()).spawn(run).map(Self)
    }

    /// Waits for its end, if this thread may wait for an executor. That waits for nobody.
    pub(crate) fn join(self) {
        if is_executor() || is_this(&self.0) {
            return;
        }
        let puller = puller();
        let _inside = puller.as_ref().map(|gate| gate.inside_feed());
        // A panic in it has been told to the consumer.
        let _ = self.0.join();
    }
}

/// The thread of an intake. Dropped, it is let go.
#[derive(Debug)]
pub(crate) struct IntakeThread {
    handle: JoinHandle<()>,
    /// Disconnected when it is done.
    done: Receiver<()>,
}

/// How long a stopped intake that seems to be inside the user's code is given to come out.
const LEAVE_AFTER: Duration = Duration::from_millis(50);
/// So many times as long, if it does not seem to be: descheduled, it has a few instructions to go.
const ROUNDS: u32 = 9;

impl IntakeThread {
    /// The thread that is to be spawned for one, with its name.
    pub(crate) fn builder() -> thread::Builder {
        thread::Builder::new().name("subfeed-intake".to_owned())
    }

    /// Has `pull` run on the thread that `spawn` makes, which may be one of a scope: then there is nothing to wait
    /// for here.
    pub(crate) fn spawn<'s>(
        pull: impl FnOnce() + Send + 's,
        spawn: impl FnOnce(Box<dyn FnOnce() + Send + 's>) -> io::Result<Option<JoinHandle<()>>>,
    ) -> io::Result<Option<Self>> {
        let (end, done) = bounded(0);
        let run = move || {
            let _end: sync::channel::Sender<()> = end;
            pull();
        };
        Ok(spawn(Box::new(run))?.map(|handle| Self { handle, done }))
    }

    /// Waits for its end. It has been stopped, and ends unless it is inside code of the user's, which nothing can
    /// interrupt: the source's `next()` or `encode`, for which it [parks](is_parked), or else the source's `Drop`.
    /// Inside another feed it has been woken, and will be out within that one's bound.
    fn join(self, gate: &Gate, is_parked: impl Fn() -> bool) {
        if is_this(&self.handle) {
            return;
        }
        for round in 0.. {
            match self.done.recv_timeout(LEAVE_AFTER) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                    let _ = self.handle.join();
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {
                    let inside = is_parked() || round >= ROUNDS;
                    if inside && !gate.is_inside_feed() {
                        return;
                    }
                }
            }
        }
    }
}

/// Drops something on a thread of the reaper's, because it takes its time. Without a thread, here.
#[cfg(any(test, feature = "async"))]
pub(crate) fn drop_elsewhere(what: impl Send + 'static) {
    let _ = thread::Builder::new().name(REAPER.to_owned()).spawn(move || drop(what));
}

#[cfg(any(test, feature = "async"))]
const REAPER: &str = "subfeed-reaper";

/// The threads behind an outlet.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    pub(crate) executor: Option<ExecutorThread>,
    /// `None` where a scope waits for it.
    pub(crate) intake: Option<IntakeThread>,
}

impl Behind {
    pub(crate) fn is_empty(&self) -> bool {
        self.executor.is_none() && self.intake.is_none()
    }

    /// They have been told to end: waits for it, as far as this thread may.
    pub(crate) fn join(&mut self, gate: &Arc<Gate>, is_parked: impl Fn() -> bool) {
        let Self { executor, intake } = std::mem::take(self);
        let puller = puller();
        let _joining = match &puller {
            Some(puller) => match puller.about_to_join(gate) {
                Some(joining) => Some(joining),
                None => return,
            },
            None if is_executor() => return,
            None => None,
        };
        if let Some(executor) = executor {
            executor.join();
        }
        if let Some(intake) = intake {
            intake.join(gate, is_parked);
        }
    }

    /// They have been told to end: a thread of the reaper's waits for it, as [`join`](Behind::join) does. `told` is
    /// dropped then.
    #[cfg(feature = "async")]
    pub(crate) fn join_elsewhere(
        mut self,
        gate: Arc<Gate>,
        is_parked: impl Fn() -> bool + Send + 'static,
        told: impl Send + 'static,
    ) {
        if self.is_empty() {
            return;
        }
        let reap = move || {
            self.join(&gate, is_parked);
            drop(told);
        };
        // Without a thread nobody waits for them: they end all the same.
        let _ = thread::Builder::new().name(REAPER.to_owned()).spawn(reap);
    }

    /// They end by themselves, or have been told to, and nobody waits for it.
    #[cfg_attr(
        not(any(test, feature = "async")),
        expect(dead_code, reason = "where a drop may not block")
    )]
    pub(crate) fn let_go(&mut self) {
        *self = Self::default();
    }
}

/// See [`Gate::about_to_join`].
pub(crate) struct Joining<'a> {
    pub(crate) puller: &'a Gate,
    pub(crate) _inside: Inside<'a>,
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        self.puller.has_joined();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gates<const N: usize>() -> [Arc<Gate>; N] {
        std::array::from_fn(|_| Arc::new(Gate::new(1, 1)))
    }

    #[test]
    fn an_intake_waits_for_others_and_not_for_whom_waits_for_it() {
        let [a, b, c, d] = gates();
        assert!(a.about_to_join(&a).is_none(), "itself");
        let ab = a.about_to_join(&b).unwrap();
        let bc = b.about_to_join(&c).unwrap();
        assert!(c.about_to_join(&a).is_none() && c.about_to_join(&b).is_none());
        let dc = d.about_to_join(&a).unwrap();
        drop(bc);
        let ca = c.about_to_join(&a).unwrap();
        assert!(b.about_to_join(&c).is_none() && b.about_to_join(&d).is_none());
        drop((ab, dc, ca));
        assert!(!a.is_inside_feed() && b.about_to_join(&a).is_some());
    }

    #[test]
    fn an_executor_waits_for_nobody_and_an_intake_is_not_itself_waited_for() {
        let [gate, other] = gates();
        let executor = ExecutorThread::spawn("executor", move || {
            let never = ExecutorThread::spawn("never", || {
                loop {
                    thread::park();
                }
            });
            never.unwrap().join();
            let mut behind = Behind::default();
            let ends = || loop {
                thread::park();
            };
            behind.intake =
                IntakeThread::spawn(ends, |run| thread::Builder::new().spawn(run).map(Some))
                    .unwrap();
            behind.join(&gate, || false);
            assert!(behind.is_empty() && is_ours());
        });
        executor.unwrap().join();
        let intake = IntakeThread::spawn(
            move || {
                become_intake(&other);
                assert!(Arc::ptr_eq(&puller().unwrap(), &other));
                let executor = ExecutorThread::spawn("never", || {
                    loop {
                        thread::park();
                    }
                });
                let mut behind = Behind { executor: executor.ok(), intake: None };
                behind.join(&other, || false);
            },
            |run| thread::Builder::new().spawn(run).map(Some),
        );
        let mut behind = Behind { executor: None, intake: intake.unwrap() };
        behind.join(&gates::<1>()[0], || false);
        assert!(puller().is_none() && !is_ours());
    }
}
