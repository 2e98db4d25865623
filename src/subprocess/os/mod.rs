//! The operating system, as the event loop sees it: one trait, behind which every system call is.
//!
//! There are two implementations: [`Unix`], which ships, and the one of the simulation, in which children,
//! pipes and the clock are simulated and each call can be made to fail. The loop is generic over the
//! trait, so that the loop that is simulated is the loop that ships.

mod unix;

use std::fmt;
use std::io::{self, IoSlice};
use std::process::ExitStatus;
use std::time::Duration;

use crate::subprocess::evidence::Look;
use crate::subprocess::protocol::{Now, Sighting, Spawned, StartError};
use crate::template::policy::Signal;

pub(crate) use unix::{Setup, Unix};

/// One descriptor of one child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// Tells of the exit.
    Exit,
    Stderr,
    /// Stdin (0) or a side input.
    Input(usize),
    /// Stdout (0) or a side output.
    Output(usize),
}

impl Port {
    /// Which output it is; `None` for stderr and whatever is no output.
    pub(crate) fn output(self) -> Option<usize> {
        match self {
            Self::Output(output) => Some(output),
            Self::Exit | Self::Stderr | Self::Input(_) => None,
        }
    }
}

/// Something became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) slot: usize,
    pub(crate) port: Port,
    /// The other end is closed.
    pub(crate) hung_up: bool,
}

/// The system calls of the event loop. A child is named by the slot in which it was started.
///
/// Readiness is edge-triggered: outputs, stderr and the exit are watched from the start, an input from
/// [`watch_input`](Os::watch_input) on; an event tells that something has changed since the last call.
pub(crate) trait Os: fmt::Debug {
    /// Time since the start.
    fn now(&self) -> Now;

    /// Lets other threads run that are ready to.
    fn yield_now(&mut self);

    /// Waits for events, at most that long, or until another thread calls; replaces what is in `events`.
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()>;

    /// Starts a child in this slot, which is empty.
    fn spawn(&mut self, slot: usize) -> Result<Spawned, StartError>;

    /// Reads from an output or from stderr; no bytes are its end. Never blocks.
    fn read(&mut self, slot: usize, port: Port, room: &mut [u8]) -> io::Result<usize>;

    /// Writes to an input. Never blocks.
    fn write(&mut self, slot: usize, channel: usize, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// An input is full for the first time: from now on an event tells when there is room. Says whether
    /// room was made at once.
    fn watch_input(&mut self, slot: usize, channel: usize) -> io::Result<bool>;

    /// Closes our end of a channel.
    fn close(&mut self, slot: usize, port: Port);

    /// Sends a signal to a child and its group.
    fn signal(&mut self, slot: usize, signal: Signal);

    /// How many of the bytes written to an input lie there unread, if that can be known.
    fn unread(&mut self, slot: usize, channel: usize) -> Option<u64>;

    /// Whether nobody can read an input any more.
    ///
    /// # Errors
    /// That cannot be known now.
    fn has_no_reader(&mut self, slot: usize, channel: usize) -> io::Result<bool>;

    /// Looks at what the children in these slots, which all have one, are doing at this time.
    fn look(&mut self, slots: &[usize], at: Now) -> Vec<Look>;

    /// Has somebody look at the far process with this pid, by way of the launcher in this slot. Never blocks: what
    /// the look shows is a [`sighting`](Os::sighting), of which a wait tells by its end.
    fn look_far(&mut self, slot: usize, pid: u32);

    /// What looks have shown since this was last asked.
    fn sighting(&mut self) -> Option<(usize, u32, Sighting)>;

    /// Has the far process of the launcher in this slot killed, in the background.
    fn kill_far(&mut self, slot: usize, pid: Option<u32>);

    /// Kills what is left of a child and its group, closes every channel and reaps it, without waiting: one
    /// that does not end even so is left to the reaper. The slot is empty then. The status is `None` if it
    /// cannot be known.
    fn release(&mut self, slot: usize) -> Option<ExitStatus>;
}
