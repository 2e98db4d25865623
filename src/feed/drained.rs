//! What became of a feed that collects nothing.

use std::process::ExitStatus;

use crate::error::Error;

/// What [`FeedBuilder::drain`](crate::FeedBuilder::drain) did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Drained {
    /// How many items each worker accepted, one number for each worker. An accepted item was written to the worker in
    /// full, and the worker is not known to have left it unread.
    pub accepted: Vec<u64>,
    /// How each session ended, in the order of their ends.
    pub exits: Vec<Exit>,
    /// One error for each item that no worker accepted, or of which a worker may have read a part before it died.
    pub failed: Vec<Error>,
    /// One error, with its stderr, for each session that ended badly or too early. Only the first 64 are kept.
    pub bad_ends: Vec<Error>,
}

impl Drained {
    /// Whether every item was accepted, and every session read its input to the end and exited with a status that is
    /// [accepted](crate::Template::accept_status): 0, unless the template accepts others.
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
    /// Its exit status. `None` if it is not known, because another part of the program reaped the child.
    pub status: Option<ExitStatus>,
    /// Whether it ended before it had read its input to the end. Requests that it had read and not finished are lost;
    /// requests that it had not read went to another worker.
    pub early: bool,
    /// Whether its exit status is known and [accepted](crate::Template::accept_status). After a signal it is `false`.
    pub well: bool,
}
