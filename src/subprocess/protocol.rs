//! What the scheduler and the event loop say to each other: plain values, without any behaviour.

use std::time::Duration;

use crate::error::Error;
use crate::template::policy::Signal;

/// A time since the feed's start.
pub(crate) type Now = Duration;

/// What time it is, by two clocks.
///
/// Limits run on the *patient* clock, which gains in each turn of the loop at most what the loop meant to
/// wait, and a little: time in which this process was stopped, or a closure of the user's held the loop up,
/// is nobody's fault. Promises about the clock on the wall (the bound of a drop, the pauses of the kill
/// sequence, `run_timeout`) run on real time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) real: Now,
    pub(crate) patient: Now,
}

impl Time {
    /// A moment at which both clocks show the same.
    #[cfg(test)]
    pub(crate) fn at(now: Now) -> Self {
        Self { real: now, patient: now }
    }
}

/// What is to be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Close our end of an input channel.
    CloseInput { slot: usize, channel: usize },
    /// Close our end of an output: nothing that comes there is wanted.
    CloseOutput { slot: usize, output: usize },
    /// Send a signal to the process group.
    Signal { slot: usize, signal: Signal },
    /// Look for the evidence of a stall; report `looked`.
    Look { slot: usize },
    /// Look at the far process with this pid, by way of its launcher; report `sighted`.
    LookFar { slot: usize, pid: u32 },
    /// See to it that the far process of a session is killed, by way of its launcher.
    KillFar { slot: usize, pid: Option<u32> },
    /// Kill what is left of the group, close every pipe, reap; report `ended`.
    Finish { slot: usize },
    /// It cannot be killed: close every pipe, leave it to the reaper; report `ended`.
    Abandon { slot: usize },
}

/// What a look at a far process has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sighting {
    /// It is there.
    There,
    /// It is gone, or a zombie.
    Gone,
    /// The look was not answered in time.
    Unanswered,
}

/// A child that has just been started, and which of its channels lead to us.
#[derive(Clone, Debug)]
pub(crate) struct Spawned {
    pub(crate) pid: u32,
    /// Stdin, then the side inputs.
    pub(crate) inputs: Vec<bool>,
    /// Stdout, then the side outputs.
    pub(crate) outputs: Vec<bool>,
    pub(crate) stderr: bool,
    /// Its stdout is a pseudo-terminal, which may give less than was asked for even when there is more.
    pub(crate) terminal: bool,
}

/// Why a child could not be started.
#[derive(Debug)]
pub(crate) enum StartError {
    /// It never will: no such program, no such directory.
    Never(Error),
    /// Not now: out of file descriptors, processes or memory.
    NotNow(Error),
}
