//! What is said about a session in an error: who it was, how it ended, what it said.

use std::process::ExitStatus;

use crate::error::{Error, ErrorKind, excerpt};
use crate::subprocess::scheduler::{Scheduler, Slot};
use crate::subprocess::session::{Output, Session, Why};
use crate::template::framing::{FramingError, FramingErrorKind};

impl Scheduler {
    /// An error about a slot's session, with all that is known.
    pub(crate) fn describe(
        &self,
        slot: usize,
        kind: ErrorKind,
        message: impl Into<String>,
    ) -> Error {
        let error = Error::new(kind, message.into());
        match &self.slots[slot] {
            Slot::Live(session) => {
                error.by(slot, session.label.pid, &self.command).said(session.stderr.to_vec())
            }
            _ => error.running(&self.command),
        }
    }

    pub(crate) fn describe_end(
        &self,
        session: &Session,
        status: Option<ExitStatus>,
        error: Error,
    ) -> Error {
        error
            .by(session.label.worker, session.label.pid, &self.command)
            .said(session.stderr.to_vec())
            .exited(status)
    }

    /// The error of a packet that was alone in a session that failed.
    pub(crate) fn unanswered(&self, session: &Session) -> Error {
        let policy = &self.spec.policy;
        let (kind, mut message) = match session.why {
            Some(Why::Timeout) => {
                let limit = policy.packet_timeout.or(policy.start_timeout).unwrap_or_default();
                (ErrorKind::Timeout, format!("no reply within {limit:?}"))
            }
            Some(Why::ClosedOutput) => {
                let closed = session.outputs.iter().position(|output| output.eof).unwrap_or(0);
                let name =
                    if closed == 0 { "its stdout".to_owned() } else { self.output_name(closed) };
                (ErrorKind::Died, format!("the worker closed {name} before it answered"))
            }
            Some(Why::ClosedInput) => {
                (ErrorKind::Died, "the worker closed its stdin and did not answer".to_owned())
            }
            _ => (ErrorKind::Died, "the worker ended before it answered".to_owned()),
        };
        if session.abandoned {
            message.push_str(", and did not end although it was killed");
        }
        self.push_half(&mut message, session);
        let error = Error::new(kind, message);
        if session.why.is_some_and(Why::is_asked) && self.spec.replies.as_sentinel().is_some() {
            // It went on reading, or it would not have been asked to end.
            return error.hint("it never printed the mark: look in the request for something left open, such as a quote or a bracket, that swallowed the sync command");
        }
        error
    }

    /// Quotes what a session wrote and never ended.
    pub(crate) fn push_half(&self, message: &mut String, session: &Session) {
        let halves =
            session.outputs.iter().enumerate().filter(|(_, output)| !output.unread().is_empty());
        for (channel, output) in halves {
            let said = excerpt(output.unread());
            message.push_str(&match channel {
                0 if session.in_banner => format!(", with {said}, which is not all of its banner"),
                0 => format!(", with half a reply {said}"),
                _ => format!(", with half a reply {said} on {}", self.output_name(channel)),
            });
        }
        let started = session.outputs.iter().any(|output| !output.whole.is_empty());
        let missing = |output: &Output| output.whole.is_empty() && output.unread().is_empty();
        if started && let Some(channel) = session.outputs.iter().position(missing) {
            message.push_str(&format!(", with nothing on {}", self.output_name(channel)));
        }
    }

    pub(crate) fn fail_clogged(&mut self, slot: usize, channel: usize) {
        let name = self.spec.side_input_names().swap_remove(channel - 1);
        let message = format!("the worker leaves the side input `{name}` unread");
        let error = self.describe(slot, ErrorKind::Channel, message);
        self.fail(error.hint("if it need not read everything, declare it with Template::optional_side_input and a cap"));
    }

    pub(crate) fn not_a_reply(
        &self,
        slot: usize,
        channel: usize,
        said: &str,
        cause: FramingError,
    ) -> Error {
        let name = self.output_name(channel);
        let message = format!("no reply could be cut out of {name}, which goes on {said}");
        let too_long = matches!(cause.kind(), FramingErrorKind::TooLong { .. });
        let error = self.describe(slot, ErrorKind::Reply, message).because(cause);
        if too_long { error.hint("raise the limit with Template::reply_limit") } else { error }
    }

    pub(crate) fn output_name(&self, channel: usize) -> String {
        if channel == 0 {
            return "stdout".to_owned();
        }
        let framed = self.spec.channels.side_outputs.iter().filter(|side| side.framing.is_some());
        framed
            .map(|side| format!("the side output `{}`", side.name))
            .nth(channel - 1)
            .unwrap_or_default()
    }
}
