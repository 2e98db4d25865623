//! What is known of a quiet worker: one pure fold over what each of its threads does.
//!
//! No system call, no clock, no `cfg`: on Linux the [looks](Look) come from `/proc`, in the simulation from
//! simulated children; [`judge`] is the same for both.
//!
//! # The fold
//!
//! Each thread alone gives an [`Evidence`], and the worst of them is that of the worker: `Evidence` is ordered
//! from the best, `Waiting`, to the worst, `Stopped`, and the fold is a maximum. What concerns the worker as a
//! whole enters the same maximum: how much of it was seen ([`Coverage`]), whether anybody reads a channel, and
//! how much processor time it has used since an earlier look.
//!
//! # Invariants
//! 1. `judge` does not depend on the order of threads, and no thread but a reader of a channel makes the
//!    evidence better; a reader can do no more than lift `Deaf`.
//! 2. `Waiting` comes only of a look that has proved it ([`Coverage::Still`]), in which every thread waits for
//!    us or for another one, a member of the group reads a channel, and each channel that is read is empty. It needs
//!    no earlier look, and the processor time before it does not matter.
//! 3. `Asleep` comes only of two looks, the stated time apart, that show the same threads, all of them at rest,
//!    with little processor time between them.

use std::time::Duration;

mod sentence;
#[cfg(test)]
mod tests;

/// What is known of a worker that owes replies and is quiet, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Evidence {
    /// Every thread waits for us or for another thread of the same worker: it will not answer by itself
    /// before we write or close. This is certain.
    Waiting,
    /// As `Waiting`, but for threads that a time or a signal wakes; and they have slept for a while.
    Asleep,
    /// At rest as `Asleep`, but it takes another look to show that it stays so.
    Unsettled,
    /// It is at rest and nobody reads what we write.
    Deaf {
        /// Whether a channel is still open; otherwise we have closed them all.
        open: bool,
        /// Whether one of its threads will be woken by a time or a signal.
        timed: bool,
    },
    /// What it does cannot be seen.
    Opaque(Obstacle),
    /// A thread is in `poll`, `select`, `epoll_wait` or `io_uring_enter`: what it waits for is unknown.
    EventLoop,
    /// A thread waits for something that does not come from us.
    Outside(Outside),
    /// It is at work.
    Working(Work),
    /// A thread is stopped, or waits for somebody at the terminal.
    Stopped(Stop),
}

/// Why a worker cannot be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Obstacle {
    /// Only some of the processes were looked for, because these decide already.
    NotWhole,
    /// What reads our channel has left the process group.
    ReaderLeft,
    /// The worker is on another machine, or in a container: we see its launcher.
    Launcher,
    /// `/proc` keeps the answer from us: a set-uid tool, a hardened kernel, a 32-bit program.
    Hidden,
    /// `/proc` belongs to another pid namespace: our numbers mean strangers there.
    OtherNamespace,
    /// This system has no `/proc` that could tell.
    NoProc,
}

/// What a thread waits for that does not come from us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outside {
    /// A system call that is not known here.
    UnknownCall,
    /// A write, perhaps to a pipe that somebody else must drain.
    Writing,
    /// A file.
    File,
    /// A device that is not the user's terminal.
    Device,
    /// A pipe or FIFO into which a stranger could write.
    Pipe,
    /// A message queue.
    Message,
    /// A lock on a file, or a semaphore.
    Lock,
    /// A socket.
    Socket,
}

/// How it is known that a worker is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    /// It sleeps in a read of a channel that is not empty: it is about to wake.
    Unread,
    /// A thread or process woke, began or ended while we looked.
    Changing,
    /// A thread is in an uninterruptible wait (state D).
    Disk,
    /// A thread runs, or the worker has used over 2 % of a processor between two looks.
    Computing,
}

/// What stops a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// A signal; which one, the kernel does not tell.
    Unnamed,
    /// A debugger.
    Tracer,
    /// This signal.
    Signal(i32),
    /// A read of the user's terminal: somebody must type.
    Terminal,
}

/// What one thread does at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ThreadView {
    /// It runs or could (state R), or is between two calls.
    Running,
    /// An uninterruptible wait (state D).
    DiskWait,
    /// State T or t.
    Stopped(Stop),
    /// In a read of the user's terminal.
    ReadOfTerminal,
    /// In a read of our input channel of this number.
    ReadOf(usize),
    /// In a read of a pipe that only the worker's own processes hold.
    ReadOfInnerPipe,
    /// In a wait for a child process.
    WaitForChild,
    /// In a futex wait without a time limit.
    FutexForever,
    /// In a call that a time or a signal ends.
    Timed,
    /// In `poll`, `select`, `epoll_wait` or their like.
    Poll,
    /// In a call that waits for something that does not come from us.
    Outside(Outside),
    /// It sleeps in a call that we are not told.
    Hidden,
}

/// One thread at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thread {
    /// Its number, and when it started: numbers are used again.
    id: (i32, u64),
    /// Whether its process belongs to the worker's process group.
    in_group: bool,
    view: ThreadView,
    /// The processor time that it has used since it started.
    used: Duration,
}

impl Thread {
    /// The thread `tid`, which started at `started` (in any unit), as it is seen now.
    pub(crate) fn new(
        tid: i32,
        started: u64,
        in_group: bool,
        view: ThreadView,
        used: Duration,
    ) -> Self {
        Self { id: (tid, started), in_group, view, used }
    }
}

/// How much of a worker a look has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Coverage {
    /// Every thread, twice, and none has left its call in between: there was a moment at which all of this
    /// was true.
    Still,
    /// Every thread, one after the other.
    Once,
    /// Not every thread.
    Partial(Obstacle),
    /// Threads or processes came, went or woke while we looked.
    Moving,
}

impl Coverage {
    /// The best that can be said on a look of this coverage.
    fn evidence(self) -> Evidence {
        match self {
            Self::Still => Evidence::Waiting,
            Self::Once => Evidence::Asleep,
            Self::Partial(obstacle) => Evidence::Opaque(obstacle),
            Self::Moving => Evidence::Working(Work::Changing),
        }
    }
}

/// What one look at a worker has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    at: Duration,
    /// How many bytes lie unread in each input channel that is open.
    unread: Vec<u64>,
    /// Sorted by `id`.
    threads: Vec<Thread>,
    coverage: Coverage,
    /// Processor times that differ by no more than this may be equal.
    resolution: Duration,
}

impl Look {
    /// What was seen at `at`: the unread bytes of each channel that is open, in the order by which
    /// [`ThreadView::ReadOf`] counts, and the living threads, in any order.
    pub(crate) fn new(
        at: Duration,
        unread: Vec<u64>,
        mut threads: Vec<Thread>,
        coverage: Coverage,
    ) -> Self {
        threads.sort_unstable_by_key(|thread| thread.id);
        Self { at, unread, threads, coverage, resolution: Duration::ZERO }
    }

    /// A look that has shown nothing, and why.
    pub(crate) fn obstructed(at: Duration, unread: Vec<u64>, obstacle: Obstacle) -> Self {
        Self::new(at, unread, Vec::new(), Coverage::Partial(obstacle))
    }

    /// With processor times that are no more exact than this.
    pub(crate) fn with_resolution(self, resolution: Duration) -> Self {
        Self { resolution, ..self }
    }

    /// Whether there are open channels and every one holds bytes that the worker has not read.
    #[cfg(test)]
    pub(crate) fn has_all_unread(&self) -> bool {
        !self.unread.is_empty() && self.unread.iter().all(|&bytes| bytes > 0)
    }

    /// What this look alone says. At the best: where it is `Asleep`, an earlier look must agree.
    pub(crate) fn alone(&self) -> Evidence {
        let threads = self.threads.iter().map(|thread| self.says(thread.view));
        threads.fold(self.coverage.evidence(), Evidence::max).max(self.readers())
    }

    /// What a thread says.
    fn says(&self, view: ThreadView) -> Evidence {
        match view {
            ThreadView::ReadOf(channel) if self.unread.get(channel) != Some(&0) => {
                Evidence::Working(Work::Unread)
            }
            ThreadView::ReadOf(_)
            | ThreadView::ReadOfInnerPipe
            | ThreadView::WaitForChild
            | ThreadView::FutexForever => Evidence::Waiting,
            ThreadView::Timed => Evidence::Asleep,
            ThreadView::Hidden => Evidence::Opaque(Obstacle::Hidden),
            ThreadView::Poll => Evidence::EventLoop,
            ThreadView::Outside(what) => Evidence::Outside(what),
            ThreadView::DiskWait => Evidence::Working(Work::Disk),
            ThreadView::Running => Evidence::Working(Work::Computing),
            ThreadView::Stopped(by) => Evidence::Stopped(by),
            ThreadView::ReadOfTerminal => Evidence::Stopped(Stop::Terminal),
        }
    }

    /// What it says that somebody, or nobody, reads a channel. A reader outside of the group may have parted
    /// from processes that we do not see.
    fn readers(&self) -> Evidence {
        let reads = |thread: &&Thread| matches!(thread.view, ThreadView::ReadOf(_));
        let mut readers = self.threads.iter().filter(reads).peekable();
        if readers.peek().is_none() {
            let timed = self.threads.iter().any(|thread| thread.view == ThreadView::Timed);
            Evidence::Deaf { open: !self.unread.is_empty(), timed }
        } else if readers.any(|reader| reader.in_group) {
            Evidence::Waiting
        } else {
            Evidence::Opaque(Obstacle::ReaderLeft)
        }
    }

    /// Whether nothing in it moves but what a time or a signal wakes.
    fn is_at_rest(&self) -> bool {
        self.alone() <= Evidence::Asleep
    }

    /// Whether it shows the same threads as an `earlier` one, which then are the same in between.
    fn shows_the_same_as(&self, earlier: &Self) -> bool {
        let ids = |look: &Self| look.threads.iter().map(|thread| thread.id).collect::<Vec<_>>();
        ids(self) == ids(earlier)
    }

    /// Whether the worker has used over 2 % of a processor since an `earlier` look, as far as can be seen:
    /// threads that ended in between are not counted.
    fn has_computed_since(&self, earlier: &Self) -> bool {
        let resolution = self.resolution.max(earlier.resolution);
        let whole = earlier.coverage <= Coverage::Once;
        let used: Duration = self
            .threads
            .iter()
            .filter_map(|thread| {
                let before = earlier.threads.binary_search_by_key(&thread.id, |before| before.id);
                let used = match before {
                    Ok(at) => thread.used.saturating_sub(earlier.threads[at].used),
                    // It has begun since, or it was not looked for.
                    Err(_) => thread.used.min(if whole { Duration::MAX } else { Duration::ZERO }),
                };
                (used > resolution).then_some(used)
            })
            .sum();
        used.saturating_mul(50) > self.at.saturating_sub(earlier.at)
    }
}

/// What is known of a worker by the look `now`, and by an `earlier` one in the same time of quiet, if there was
/// one.
///
/// Without an earlier look there is no `Asleep`: it needs two looks that lie `apart` (three stall delays, or three eighths of one once the tool is known to withhold). The caller
/// must not pass a look from before the worker has last moved: nothing may have been written to it or read from it
/// in between.
pub(crate) fn judge(earlier: Option<&Look>, now: &Look, apart: Duration) -> Evidence {
    let alone = now.alone();
    if alone == Evidence::Waiting {
        return alone;
    }
    let evidence = if earlier.is_some_and(|earlier| now.has_computed_since(earlier)) {
        alone.max(Evidence::Working(Work::Computing))
    } else {
        alone
    };
    let has_slept = |earlier: &Look| {
        earlier.is_at_rest()
            && now.shows_the_same_as(earlier)
            && now.at >= earlier.at.saturating_add(apart)
    };
    if evidence == Evidence::Asleep && !earlier.is_some_and(has_slept) {
        Evidence::Unsettled
    } else {
        evidence
    }
}

/// What a session keeps of the looks at it while it is quiet: one earlier look, against which the next is judged.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    earlier: Option<Look>,
}

impl Looks {
    /// What is known by this look and by those before it.
    ///
    /// The earlier look is kept for as long as the worker may have slept since it: a runtime whose timers are short
    /// is sometimes seen running, and sleeps nonetheless.
    pub(crate) fn judge(&mut self, now: Look, apart: Duration) -> Evidence {
        let evidence = judge(self.earlier.as_ref(), &now, apart);
        let may_sleep = evidence <= Evidence::Unsettled
            || matches!(evidence, Evidence::Working(work) if work != Work::Disk);
        let sleeps_on = self.earlier.as_ref().is_some_and(|earlier| {
            may_sleep
                && earlier.is_at_rest()
                && now.shows_the_same_as(earlier)
                && !now.has_computed_since(earlier)
        });
        if !sleeps_on {
            self.earlier = Some(now);
        }
        evidence
    }

    /// When another look can first show that the worker is asleep; `None` where the last look was not of one
    /// at rest.
    #[cfg(test)]
    pub(crate) fn settled_at(&self, apart: Duration) -> Option<Duration> {
        let earlier = self.earlier.as_ref().filter(|earlier| earlier.is_at_rest())?;
        Some(earlier.at.saturating_add(apart))
    }

    /// The worker has moved: it was given something, or has answered. What was seen before says nothing now.
    pub(crate) fn forget(&mut self) {
        self.earlier = None;
    }
}
