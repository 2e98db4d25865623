//! Children that outlive their own killing: somebody must reap them, and nobody may wait for it.
//!
//! SIGKILL does nothing to a process in an uninterruptible sleep (a dead network file system, a frozen
//! cgroup) until that is over, and nothing at all to one that runs under another user; and the
//! zombie of a process that is being traced belongs to the tracer first. Such a child is left to the one
//! thread of this module, which reaps it when it can be reaped, if ever. The thread is made when there is
//! something to reap and ends when there is not.
//!
//! # Invariants
//! 1. What is left is in `left` or in the thread's hands; while there is any, `at_work` is set, unless no
//!    thread could be made: then the next [`leave`] tries again.
//! 2. The thread decides that it is over, and clears `at_work`, in one critical section in which `left`
//!    is empty; so nothing is left behind unseen.
//! 3. It sleeps only for what wakes it: each child's exit is watched, `leave` wakes it. A tracer that goes
//!    away is another edge at the pidfd of a zombie.

use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::subprocess::exit::ExitWatch;
use crate::subprocess::readiness::{Interest, Readiness, Ready};

/// A child that is to be reaped, and who would like to know.
#[derive(Debug)]
struct Stray {
    child: Child,
    told: Sender<Option<ExitStatus>>,
}

impl Stray {
    /// Reaps it if that can be done now. Whether it is over.
    fn is_reaped(&mut self) -> bool {
        let status = match self.child.try_wait() {
            Ok(None) => return false,
            Ok(status) => status,
            // Somebody else has reaped it.
            Err(_) => None,
        };
        self.tell(status);
        true
    }

    fn tell(&self, status: Option<ExitStatus>) {
        // The loop that left it may not have waited.
        let _ = self.told.send(status);
    }
}

#[derive(Debug)]
struct Reaper {
    left: Vec<Stray>,
    at_work: bool,
    /// The thread's, while it sleeps there or is about to.
    readiness: Option<Arc<Readiness>>,
}

static REAPER: Mutex<Reaper> =
    Mutex::new(Reaper { left: Vec::new(), at_work: false, readiness: None });

fn reaper() -> MutexGuard<'static, Reaper> {
    REAPER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Leaves a child that was killed to be reaped in the background; its status comes when that is done
/// (`None` if somebody else has reaped it).
pub(crate) fn leave(child: Child) -> Receiver<Option<ExitStatus>> {
    let (told, status) = channel();
    let mut reaper = reaper();
    reaper.left.push(Stray { child, told });
    if let Some(readiness) = &reaper.readiness {
        readiness.wake();
    }
    if !reaper.at_work {
        let thread = std::thread::Builder::new().name("subfeed-reaper".to_owned());
        // Without a thread it stays a zombie until there is one; nothing else waits for it.
        reaper.at_work = thread.stack_size(64 << 10).spawn(reap).is_ok();
    }
    status
}

fn reap() {
    let readiness = Readiness::new().ok().map(Arc::new);
    let mut strays: Vec<(Stray, Option<ExitWatch>)> = Vec::new();
    let mut ready = Ready::new();
    loop {
        let new = {
            let mut reaper = reaper();
            if strays.is_empty() && reaper.left.is_empty() {
                reaper.at_work = false;
                reaper.readiness = None;
                return;
            }
            reaper.readiness.clone_from(&readiness);
            std::mem::take(&mut reaper.left)
        };
        for stray in new {
            let watch = readiness.as_ref().and_then(|readiness| watch(&stray.child, readiness));
            strays.push((stray, watch));
        }
        // What has ended before it was watched is no edge: looked at before every sleep.
        strays.retain_mut(|(stray, watch)| {
            let reaped = stray.is_reaped();
            if reaped && let (Some(ExitWatch::Pidfd(fd)), Some(readiness)) = (watch, &readiness) {
                readiness.remove(fd);
            }
            !reaped
        });
        if strays.is_empty() {
            continue;
        }
        let unwatched = strays.iter().position(|(_, watch)| watch.is_none());
        let asleep = match (&readiness, unwatched) {
            (Some(readiness), None) => readiness.wait(&mut ready, None).is_ok(),
            _ => false,
        };
        if !asleep {
            // Out of descriptors or memory for a watch: one after another, then.
            let mut stray = strays.swap_remove(unwatched.unwrap_or(0)).0;
            let status = stray.child.wait().ok();
            stray.tell(status);
        }
    }
}

fn watch(child: &Child, readiness: &Arc<Readiness>) -> Option<ExitWatch> {
    let watch = ExitWatch::new(child.id(), readiness).ok()?;
    if let ExitWatch::Pidfd(fd) = &watch {
        readiness.add(fd, 0, Interest::Readable).ok()?;
    }
    Some(watch)
}
