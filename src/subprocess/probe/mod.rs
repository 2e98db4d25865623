//! What does a silent worker do? The system-call side of stall evidence.
//!
//! A worker that withholds its replies in a stdio buffer and a worker that computes look the same
//! from our end of the pipes. They differ in the kernel's view of them, and only there:
//! `/proc/<pid>/task/<tid>/syscall` names the call in which each thread sleeps. [`look_at_all`] takes such
//! looks; [`evidence`](crate::subprocess::evidence) says what they mean.
//!
//! # What is looked at
//!
//! The **family** of a worker is every process of its process group, and every descendant of one
//! of these, in the group or not (`set -m` and `setsid` put jobs into groups of their own).
//!
//! # What is proved
//!
//! [`Evidence::Waiting`](crate::subprocess::evidence::Evidence::Waiting) says that there was a moment, during the call, at which
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
//! The other kinds of evidence come of the first round alone. They say what was seen, thread by thread, and
//! nothing about one moment.
//!
//! # What remains
//!
//! Not seen: a process that has left the group *and* lost its parent (a double-forked daemon); a
//! timer that will interrupt the read by a signal (`alarm`, `setitimer`); memory shared with a
//! stranger who wakes a futex; under `hidepid`, an orphan of another user. Every other doubt is
//! resolved against `Waiting`.
//!
//! # Cost
//!
//! Two or three dozen microseconds a thread, and where nothing that the leader and its descendants do decides,
//! one scan, 1 to 2 microseconds per process of the machine; a second round and a second scan where
//! the worker seems to wait. Workers that are looked at together share the scans: when one worker of a swarm
//! stalls, all do.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::sys::stat::{FileStat, SFlag, fstat};
use nix::unistd::Pid;

use crate::subprocess::evidence::Look;

// Call numbers and argument places are known for these two only; with 32-bit pointers neither
// our numbers nor those of a 64-bit child could be told apart.
#[cfg(all(
    target_os = "linux",
    not(subfeed_portable),
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod linux {
    //! The only room with system calls in it.

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

/// One worker to look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Suspect<'a> {
    pgid: Pid,
    inputs: &'a [(BorrowedFd<'a>, ChannelId)],
}

impl<'a> Suspect<'a> {
    /// The worker with the pid `pgid`, which is also its process group: it must not have been reaped, until then
    /// the number cannot pass to a stranger. `inputs` are our write ends of all channels that are still open,
    /// each with its identity.
    pub(crate) fn new(pgid: Pid, inputs: &'a [(BorrowedFd<'a>, ChannelId)]) -> Self {
        Self { pgid, inputs }
    }
}

/// One look at each of `suspects`, in their order, taken at the time `at`.
///
/// Never blocks on a worker. Replies must be looked for *after* the look, not only before: one may have been
/// written in between. Nobody may write to a channel meanwhile.
pub(crate) fn look_at_all(suspects: &[Suspect<'_>], at: Duration) -> Vec<Look> {
    system::look_at_all(suspects, at)
}

#[cfg(all(
    target_os = "linux",
    not(subfeed_portable),
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
use linux::family as system;

#[cfg(not(all(
    target_os = "linux",
    not(subfeed_portable),
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
mod system {
    use std::time::Duration;

    use super::Suspect;
    use crate::subprocess::evidence::{Look, Obstacle};

    pub(super) fn look_at_all(suspects: &[Suspect<'_>], at: Duration) -> Vec<Look> {
        let open = |suspect: &Suspect<'_>| vec![0; suspect.inputs.len()];
        let look = |suspect| Look::obstructed(at, open(suspect), Obstacle::NoProc);
        suspects.iter().map(look).collect()
    }
}
