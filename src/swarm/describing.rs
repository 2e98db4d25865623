//! What is said about a life in an error: who it was, how it ended, what it said.

use std::process::ExitStatus;

use crate::error::{Error, ErrorKind};
use crate::swarm::core::{Core, Slot};
use crate::swarm::life::Life;

impl Core {
    /// An error about a slot's life, with all that is known.
    pub(crate) fn describe(
        &self,
        slot: usize,
        kind: ErrorKind,
        message: impl Into<String>,
    ) -> Error {
        let error = Error::new(kind, message.into());
        match &self.slots[slot] {
            Slot::Live(life) => {
                error.by(slot, life.label.pid, &self.command).said(life.stderr.to_vec())
            }
            _ => error.running(&self.command),
        }
    }

    pub(crate) fn describe_end(
        &self,
        life: &Life,
        status: Option<ExitStatus>,
        error: Error,
    ) -> Error {
        error
            .by(life.label.worker, life.label.pid, &self.command)
            .said(life.stderr.to_vec())
            .exited(status)
    }
}
