//! One side of the conversation with a child, free of I/O: bytes in, bytes and verdicts out.

use std::process::ExitStatus;
use std::time::Duration;

use crate::error::{Error, StderrExcerpt};
use crate::signal::Signal;
use crate::source::limit::TimeLimit;
use crate::subprocess::protocol::{Now, Time};
use crate::window::unwind::Payload;

/// What a source says to its child and makes of what it hears.
pub(super) trait Talk: Send {
    /// The child runs.
    fn started(&mut self, pid: u32, now: Time);
    /// Looks at what the consumer wants. Appends what is to be written to the child.
    fn attend(&mut self, now: Time, say: &mut Vec<u8>);
    /// What is to become of the child. It never goes back.
    fn stand(&self) -> Stand;
    /// The time limits that run now, the most urgent first. Asked as long as it [goes on](Stand::Go).
    fn limits(&self) -> impl Iterator<Item = TimeLimit>;
    /// This one has run out.
    fn is_late(&mut self, limit: &TimeLimit);
    /// Whether more of the child's output is wanted now. If not, what changes that wakes the loop; and it is
    /// asked [again](Talk::asks_again) at a time.
    fn wants(&mut self, now: Time) -> bool;
    /// When it is to be asked again, in real time.
    fn asks_again(&self) -> Option<Now> {
        None
    }
    /// Takes from the front of what has been read and not been taken.
    fn hear(&mut self, unread: &[u8], eof: bool, now: Time) -> Heard;
    /// The output has ended, and nothing in it is still to be taken; or nothing in it is wanted.
    fn is_through(&self) -> bool;
    /// The output has ended in the middle: it comes from another machine, and the connection was lost. Nothing
    /// of what is unread is to be believed.
    fn broke_off(&mut self, _error: Error) {}
    /// The child is gone and reaped, or never was. Comes last.
    fn reaped(self, exit: Exit);
}

/// How far it has listened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// So many bytes are taken.
    pub(super) taken: usize,
    /// There is more in the rest, for which there was no room. Otherwise the rest is a beginning, and at the
    /// end of the output it is [through](Talk::is_through).
    pub(super) held_up: bool,
}

/// What is to become of the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stand {
    /// It goes on.
    Go,
    /// It has been told to leave, and gets this long before the kill sequence.
    #[cfg_attr(
        not(feature = "function-source"),
        allow(dead_code, reason = "a command is told nothing, and its simulation is")
    )]
    Leave(Duration),
    /// The kill sequence, now.
    Kill,
}

/// How a child exited.
#[derive(Debug, Default)]
pub(super) struct Exit {
    /// `None` if it never ran, or if its status is not known.
    pub(super) status: Option<ExitStatus>,
    pub(super) stderr: StderrExcerpt,
    /// The last signal that we sent it.
    pub(super) signalled: Option<Signal>,
    /// It closed its output and stayed, until its time was up.
    pub(super) overstayed: bool,
    /// Why it could not be started or watched.
    pub(super) error: Option<Error>,
    /// Something in here, or a framing of the user's, panicked.
    pub(super) panic: Option<Payload>,
}
