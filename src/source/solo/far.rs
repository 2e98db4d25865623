//! A source behind a launcher: what is [heard](Greetings) of it, as records and errors.

use std::process::ExitStatus;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Limit};
use crate::subprocess::protocol::{Now, Operation, Time};
use crate::subprocess::remote::deframe::{DOUBTED_FOR, Greeting};
use crate::subprocess::remote::greetings::Greetings;
use crate::subprocess::unread::Unread;
use crate::template::launcher::Link;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Far {
    greetings: Greetings,
    /// When its hello must have come, and when anything last came.
    connects_by: Option<Now>,
    came: Now,
}

impl Far {
    pub(super) fn new(link: Link, now: Time) -> Self {
        let connects_by = link.connect.map(|limit| now.patient.saturating_add(limit));
        Self { greetings: Greetings::new(link), connects_by, came: now.patient }
    }

    /// What is written before anything else.
    pub(super) fn first_line(&self) -> Option<Arc<[u8]>> {
        self.greetings.first_line()
    }

    /// Tells the tool's bytes from hello and goodbye in so many that have just been read.
    pub(super) fn pass(
        &mut self,
        read: usize,
        unread: &mut Unread,
        now: Time,
    ) -> Result<(), Error> {
        self.came = now.patient;
        if !self.greetings.is_on_stdout() {
            return Ok(());
        }
        unread.hide(read);
        while let Some(greeting) =
            self.greetings.listen(|layer, dropped| unread.pass(layer, dropped))
        {
            if greeting == Greeting::Mistaken {
                return Err(self.error("the first bytes of its goodbye were taken for a record"));
            }
            if self.greetings.is_done() {
                break;
            }
        }
        if self.greetings.is_noise_alone() {
            return Err(self.error("it prints without an end before the command starts"));
        }
        Ok(())
    }

    fn error(&self, what: &str) -> Error {
        let host = &self.greetings.link().host;
        let error = Error::new(ErrorKind::Transport, format!("{host}: {what}"));
        error.on(Some(Arc::clone(host)))
    }

    /// Whether its output has come to its end with the last byte of the tool.
    pub(super) fn has_said_goodbye(&self) -> bool {
        self.greetings.has_said_goodbye()
    }

    /// The error of an output that has come to its end, if it is not the tool's.
    pub(super) fn broke_off(&self) -> Option<Error> {
        self.greetings.breaks_off().then(|| {
            self.error(match self.greetings.pid() {
                Some(_) => "the connection broke off before the command had ended",
                None => "it could not be reached",
            })
        })
    }

    /// When it is to be looked at again: its hello is late, or what may be its goodbye has not gone on.
    pub(super) fn deadline(&self, unread: &Unread) -> Option<Now> {
        if !self.greetings.is_greeted() {
            return self.connects_by;
        }
        let is_doubtful = self.greetings.is_doubtful(unread.hidden());
        is_doubtful.then(|| self.came.saturating_add(DOUBTED_FOR))
    }

    /// What happened until `reported` is known: whether its time has come. Says whether there is something new to be
    /// heard.
    pub(super) fn tick(&mut self, unread: &mut Unread, reported: Now) -> Result<bool, Error> {
        if self.deadline(unread).is_none_or(|at| reported < at) {
            return Ok(false);
        }
        if !self.greetings.is_greeted() {
            let error = self.error("it could not be reached");
            return Err(match self.greetings.link().connect {
                Some(limit) => error.limited(Limit::Connect(limit)),
                None => error,
            });
        }
        self.greetings.give(unread.hidden());
        unread.show();
        Ok(true)
    }

    /// How the tool ended, where its launcher ended like this.
    pub(super) fn true_status(&self, launcher: Option<ExitStatus>) -> Option<ExitStatus> {
        self.greetings.true_status(launcher)
    }

    /// What must be done about the far process when its launcher is gone.
    pub(super) fn may_survive(&self, slot: usize) -> Option<Operation> {
        let pid = self.greetings.pid().filter(|_| !self.greetings.has_said_goodbye())?;
        Some(Operation::KillFar { slot, pid: Some(pid) })
    }
}
