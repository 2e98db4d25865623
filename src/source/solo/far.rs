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
    /// When its hello must have come, and since when nothing came that was wanted.
    connects_by: Option<Now>,
    came: Now,
    /// More of it was wanted, so that what came was read.
    was_wanted: bool,
}

impl Far {
    pub(super) fn new(link: Link, now: Time) -> Self {
        let connects_by = link.connect.map(|limit| now.patient.saturating_add(limit));
        Self { greetings: Greetings::new(link), connects_by, came: now.patient, was_wanted: true }
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
    /// heard. As long as nothing more of it is `wanted`, nothing is read, and what has not come may be there.
    pub(super) fn tick(
        &mut self,
        unread: &mut Unread,
        wanted: bool,
        reported: Now,
        now: Time,
    ) -> Result<bool, Error> {
        if !(wanted && std::mem::replace(&mut self.was_wanted, wanted)) {
            (self.came, self.was_wanted) = (now.patient, wanted);
        }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_may_be_a_goodbye_is_not_doubted_while_nobody_reads_what_follows() {
        let ms = |n: u32| {
            let at = Duration::from_millis(1) * n;
            Time { real: at, patient: at }
        };
        let link = Link {
            host: "there".into(),
            mark: Some("subfeedmark".into()),
            on_stderr: false,
            line: None,
            least_in_flight: 1,
            turn: Duration::ZERO,
            silence: None,
            connect: None,
        };
        let (mut far, mut unread) = (Far::new(link, ms(0)), Unread::default());
        let say = |far: &mut Far, unread: &mut Unread, text: &[u8], now| {
            unread.room(usize::MAX, || None)[..text.len()].copy_from_slice(text);
            unread.filled(text.len());
            far.pass(text.len(), unread, now).expect("all is well");
        };
        say(&mut far, &mut unread, b"\x1dsubfeedmark 7\nlast\n\x1dsub", ms(1));
        assert_eq!((unread.bytes(), unread.hidden()), (&b"last\n"[..], 4));
        // The consumer rests: the rest of the goodbye may lie in the pipe.
        for (now, wanted) in [(2, true), (3, false), (9_000, false), (9_001, true), (9_015, true)] {
            let news = far.tick(&mut unread, wanted, ms(now).patient, ms(now));
            assert!(!news.expect("all is well"), "at {now}");
        }
        say(&mut far, &mut unread, b"feedmark end 3\n", ms(9_016));
        assert!(far.has_said_goodbye() && unread.bytes() == b"last\n");
        // One that is read, and is followed by nothing, is the tool's.
        let (mut far, mut unread) =
            (Far::new(far.greetings.link().clone(), ms(0)), Unread::default());
        say(&mut far, &mut unread, b"\x1dsubfeedmark 7\n\x1dsub", ms(1));
        assert!(far.tick(&mut unread, true, ms(30).patient, ms(30)).expect("all is well"));
        assert_eq!(unread.bytes(), b"\x1dsub");
    }
}
