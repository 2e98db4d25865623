//! Is a silent worker waiting for us? The system-call side of stall evidence.
//!
//! A worker that withholds its replies in a stdio buffer and a worker that computes look the same
//! from our end of the pipes. They differ in the kernel's view of them, and only there:
//! `/proc/<pid>/task/<tid>/syscall` names the call in which each thread sleeps.
//!
//! # What is proved
//!
//! The **family** of a worker is every process of its process group, and every descendant of one
//! of these, in the group or not (`set -m` and `setsid` put jobs into groups of their own).
//! [`Evidence::Waiting`] says that there was a moment, during the call, at which
//!
//! - each input channel that any of them reads was empty (what lies unread in another one has to
//!   wait until that reader comes back: so it goes with a worker that reads one channel to its end
//!   before it turns to the next),
//! - each thread of the family slept in a read of one of these channels, in a read of a pipe that
//!   only the family holds, in `wait4`/`waitid`, or in a futex wait without a time limit, and
//! - a member of the *group* slept in a read of one of the channels.
//!
//! Such a family is closed: each member waits for another one or for us, so nothing moves before
//! we write or close. Whatever it has not answered by then, it will not answer by itself.
//!
//! # Why one moment, when the files are read one after the other
//!
//! Every thread is looked at twice: first its context-switch counters, then its call; and, when
//! all have been seen, its call again, then its counters. The kernel prints a call only for a
//! thread that is off the processor, and a thread cannot leave the processor without counting a
//! switch. Equal counters therefore mean that it slept from the first look to the second; the
//! moment between the two rounds lies in all those intervals. A sleeper forks nothing, so the
//! lists of threads and children, which must be equal too, are whole; processes whose parent has
//! died are found by a scan of all of `/proc` for the group, once in each round.
//!
//! # What remains
//!
//! Not seen: a process that has left the group *and* lost its parent (a double-forked daemon); a
//! timer that will interrupt the read by a signal (`alarm`, `setitimer`); memory shared with a
//! stranger who wakes a futex; under `hidepid`, an orphan of another user. Every other doubt is
//! resolved against `Waiting`, which makes some idle workers uncertain for ever: event loops, and
//! runtimes with a housekeeping thread on a timer (Go, the JVM).
//!
//! # Cost
//!
//! A worker that is *not* waiting costs its own few files: 30 to 100 microseconds. Only one that
//! seems to wait costs the two scans, 1 to 2 microseconds per process of the machine each.
//! [`evidence_of_all`] shares them between workers: when one worker of a swarm stalls, all do.

use std::io;
use std::os::fd::BorrowedFd;

use nix::sys::stat::{FileStat, SFlag, fstat};
use nix::unistd::Pid;

// Call numbers and argument places are known for these two only; with 32-bit pointers neither
// our numbers nor those of a 64-bit child could be told apart.
#[cfg(all(
    target_os = "linux",
    not(subfeed_portable),
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod linux {
    //! The only room with system calls in it, and the judgement built on them.

    pub(super) mod call;
    pub(super) mod family;
    pub(super) mod proc;
}

#[cfg(all(test, target_os = "linux", not(subfeed_portable)))]
mod tests;

/// Which pipe an input channel is, however many descriptors lead to it.
///
/// Both ends of a pipe, in every process, are one inode: what [`of`](Self::of) says of our write
/// end is compared with what the child reads. Taken once, at spawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ChannelId {
    /// `st_dev`: the pipe file system, or that of a named FIFO.
    dev: u64,
    /// `st_ino`.
    ino: u64,
}

impl ChannelId {
    /// The identity of the pipe or FIFO behind `fd`.
    ///
    /// # Errors
    ///
    /// What `fstat` reports; `InvalidInput` for anything but a pipe or a FIFO. The two ends of a
    /// socket pair or of a terminal are different inodes, and `FIONREAD` on ours does not tell what
    /// the child has left unread: a worker that is fed through one never gives certain evidence.
    pub(crate) fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Self::of_pipe(&fstat(fd)?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a pipe or FIFO"))
    }

    /// The identity in a `stat` result, if that is one of a pipe or FIFO.
    #[allow(clippy::unnecessary_cast)] // `dev_t` and `ino_t` are narrower elsewhere
    fn of_pipe(stat: &FileStat) -> Option<Self> {
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        (kind == SFlag::S_IFIFO)
            .then_some(Self { dev: stat.st_dev as u64, ino: stat.st_ino as u64 })
    }
}

/// What one look at a worker has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// Every thread of the family sleeps until we write to a channel or close it.
    Waiting,
    /// That could not be shown; the first reason found.
    NotCertain(Doubt),
}

/// Why a worker is not certainly waiting for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// Every channel, or one that is being read, still holds bytes that we have written.
    Unread,
    /// A thread runs, or sleeps in a call that is none of the known waits.
    Busy,
    /// A thread sleeps until a time or a signal; a futex wait with a time limit is one.
    Sleeping,
    /// A thread is in `poll`, `select`, `epoll_wait` or their like: what it waits for is unknown.
    EventLoop,
    /// A thread is writing, perhaps to a pipe that somebody else must drain.
    Writing,
    /// A thread reads something that is no channel of ours and not a pipe inside the family.
    OtherRead,
    /// A thread is stopped by a signal or by a debugger.
    Stopped,
    /// `/proc` is absent, belongs to another pid namespace, or keeps the answer from us (a set-uid
    /// tool, a hardened kernel, a 32-bit program); or this is no Linux.
    Unreadable,
    /// Everything waits, but nobody in the group for us: the reader has left the group, has closed
    /// the channel, or sits behind a launcher.
    NoReader,
    /// A thread or process woke, began or ended while we looked.
    Changed,
}

/// One worker to look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Suspect<'a> {
    /// The worker's pid, which is also its process group. It must not have been reaped: until then
    /// the number cannot pass to a stranger.
    pub(crate) pgid: Pid,
    /// Our write end of each channel that is still open, and its identity.
    pub(crate) inputs: &'a [(BorrowedFd<'a>, ChannelId)],
}

/// Whether the worker `pgid` is certainly waiting for a write to one of `inputs`.
///
/// The event loop asks for several workers at a time; tests ask for one.
///
/// Never blocks on the worker. Replies must be looked for *after* this has said `Waiting`, not only
/// before: one may have been written in between. Nobody may write to a channel meanwhile.
#[cfg(test)]
pub(crate) fn evidence(pgid: Pid, inputs: &[(BorrowedFd<'_>, ChannelId)]) -> Evidence {
    evidence_of_all(&[Suspect { pgid, inputs }])[0]
}

/// [`evidence`] for each of `suspects`, in their order, for the price of one scan of `/proc`.
pub(crate) fn evidence_of_all(suspects: &[Suspect<'_>]) -> Vec<Evidence> {
    judge(suspects)
        .into_iter()
        .map(|verdict| match verdict {
            Ok(()) => Evidence::Waiting,
            Err(doubt) => Evidence::NotCertain(doubt),
        })
        .collect()
}

#[cfg(not(all(
    target_os = "linux",
    not(subfeed_portable),
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
fn judge(suspects: &[Suspect<'_>]) -> Vec<Result<(), Doubt>> {
    vec![Err(Doubt::Unreadable); suspects.len()]
}

#[cfg(all(
    target_os = "linux",
    not(subfeed_portable),
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
use linux::family::judge;
