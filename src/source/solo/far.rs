//! A source behind a launcher: its hello and goodbye.
//!
//! # Invariants
//! 1. What it says is a record's only between hello and goodbye, and its output ends for the talk with the goodbye
//!    alone.
//! 2. How the launcher ended says nothing about the tool; the goodbye does.

use std::process::ExitStatus;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Limit};
use crate::subprocess::protocol::{Now, Operation, Time};
use crate::subprocess::remote::deframe::{DOUBTED_FOR, Deframer, Greeting, status_of};
use crate::subprocess::unread::Unread;
use crate::template::launcher::Link;
use crate::template::words::LONGEST_BANNER;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Far {
    link: Link,
    /// `None` if it is bare.
    deframer: Option<Deframer>,
    pid: Option<u32>,
    goodbye: Option<ExitStatus>,
    /// How many bytes have come without a hello.
    noise: usize,
    /// When its hello must have come, and when anything last came.
    connects_by: Now,
    heard: Now,
}

impl Far {
    pub(super) fn new(link: Link, now: Time) -> Self {
        Self {
            deframer: link.mark.as_deref().map(Deframer::new),
            connects_by: now.patient.saturating_add(link.connect),
            link,
            pid: None,
            goodbye: None,
            noise: 0,
            heard: now.patient,
        }
    }

    /// What is written before anything else.
    pub(super) fn line(&self) -> Option<Arc<[u8]>> {
        self.link.line.clone()
    }

    /// Tells the tool's bytes from hello and goodbye in so many that have just been read.
    pub(super) fn pass(
        &mut self,
        read: usize,
        unread: &mut Unread,
        now: Time,
    ) -> Result<(), Error> {
        self.heard = now.patient;
        let Some(deframer) = &mut self.deframer else { return Ok(()) };
        unread.hide(read);
        if deframer.is_waiting() {
            self.noise += read;
        }
        while let Some(greeting) = unread.pass(deframer, &mut Vec::new()) {
            match greeting {
                Greeting::Hello(pid) => self.pid = Some(pid),
                Greeting::Goodbye(status) => self.goodbye = Some(status_of(status)),
                Greeting::Mistaken => {
                    return Err(
                        self.error("the first bytes of its goodbye were taken for a record")
                    );
                }
            }
            if deframer.is_done() {
                break;
            }
        }
        if deframer.is_waiting() && self.noise > LONGEST_BANNER {
            return Err(self.error("it prints without an end before the command starts"));
        }
        Ok(())
    }

    fn error(&self, what: &str) -> Error {
        let error = Error::new(ErrorKind::Transport, format!("{}: {what}", self.link.host));
        error.on(Some(Arc::clone(&self.link.host)))
    }

    /// Whether its output has come to its end with the last byte of the tool.
    pub(super) fn has_said_goodbye(&self) -> bool {
        self.goodbye.is_some()
    }

    /// The error of an output that has come to its end, if it is not the tool's.
    pub(super) fn broke_off(&self) -> Option<Error> {
        self.deframer.as_ref().filter(|deframer| !deframer.is_done())?;
        Some(match self.pid {
            Some(_) => self.error("the connection broke off before the command had ended"),
            None => self.error("it could not be reached"),
        })
    }

    /// When it is to be looked at again: its hello is late, or what may be its goodbye has not gone on.
    pub(super) fn deadline(&self, unread: &Unread) -> Option<Now> {
        let deframer = self.deframer.as_ref()?;
        if deframer.is_waiting() {
            return Some(self.connects_by);
        }
        deframer.is_doubtful(unread.hidden()).then(|| self.heard.saturating_add(DOUBTED_FOR))
    }

    /// What happened until `reported` is known: whether its time has come. Says whether there is something new to be
    /// heard.
    pub(super) fn tick(&mut self, unread: &mut Unread, reported: Now) -> Result<bool, Error> {
        if self.deadline(unread).is_none_or(|at| reported < at) {
            return Ok(false);
        }
        match &mut self.deframer {
            Some(deframer) if !deframer.is_waiting() => {
                deframer.give(unread.hidden());
                unread.show();
                Ok(true)
            }
            _ => {
                let limit = Limit::Connect(self.link.connect);
                Err(self.error("it could not be reached").limited(limit))
            }
        }
    }

    /// How the tool ended, where its launcher ended like this.
    pub(super) fn true_status(&self, launcher: Option<ExitStatus>) -> Option<ExitStatus> {
        if self.deframer.is_some() { self.goodbye } else { launcher }
    }

    /// What must be done about the far process when its launcher is gone.
    pub(super) fn may_survive(&self, slot: usize) -> Option<Operation> {
        let pid = self.pid.filter(|_| self.goodbye.is_none())?;
        Some(Operation::KillFar { slot, pid: Some(pid) })
    }
}
