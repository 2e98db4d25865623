//! What became of a feed that collects nothing.

use std::process::ExitStatus;

use crate::error::Error;

/// What [`FeedBuilder::drain`](crate::FeedBuilder::drain) did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Drained {
    /// How many items each worker has accepted: it was handed them in full, and is not known to have left
    /// them unread. One number for each worker.
    pub accepted: Vec<u64>,
    /// How each session ended, in the order in which they ended.
    pub exits: Vec<Exit>,
    /// Items that no worker has accepted, or that one may have read in part before it died: one error for
    /// each.
    pub failed: Vec<Error>,
    /// Sessions that ended badly or too early, one error for each of the first 64, with its stderr.
    pub bad_ends: Vec<Error>,
}

impl Drained {
    /// Whether every item was accepted, and every session read its input to the end and left with a status that
    /// is [accepted](crate::Template::accept_status): 0, unless the template says otherwise.
    #[must_use]
    pub fn all_ended_well(&self) -> bool {
        let well = |exit: &Exit| !exit.early && exit.well;
        self.failed.is_empty() && self.exits.iter().all(well)
    }
}

/// How one session of a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exit {
    /// The worker's number, `0..n`.
    pub worker: usize,
    /// `None` if it could not be learned, because another part of the program has reaped the child.
    pub status: Option<ExitStatus>,
    /// It ended by itself, before it had read its input to the end. What it had read and not finished is lost;
    /// what it had not read was given to another.
    pub early: bool,
    /// It left with a status that is [accepted](crate::Template::accept_status), known and not that of a signal.
    pub well: bool,
}
