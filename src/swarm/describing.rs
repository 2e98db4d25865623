//! What is said about a life in an error: who it was, how it ended, what it said.

use std::process::ExitStatus;

use crate::error::{Error, ErrorKind, excerpt};
use crate::swarm::core::{Core, Slot};
use crate::swarm::life::{Life, Output, Why};
use crate::template::framing::{FramingError, FramingErrorKind};

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

    /// The error of a packet that was alone in a life that failed.
    pub(crate) fn unanswered(&self, life: &Life) -> Error {
        let policy = &self.spec.policy;
        let (kind, mut message) = match life.why {
            Some(Why::Timeout) => {
                let limit = policy.packet_timeout.or(policy.start_timeout).unwrap_or_default();
                (ErrorKind::Timeout, format!("no reply within {limit:?}"))
            }
            Some(Why::ClosedOutput) => {
                let closed = life.outputs.iter().position(|output| output.eof).unwrap_or(0);
                let name =
                    if closed == 0 { "its stdout".to_owned() } else { self.output_name(closed) };
                (ErrorKind::Died, format!("the worker closed {name} before it answered"))
            }
            Some(Why::ClosedInput) => {
                (ErrorKind::Died, "the worker closed its stdin and did not answer".to_owned())
            }
            _ => (ErrorKind::Died, "the worker ended before it answered".to_owned()),
        };
        if life.abandoned {
            message.push_str(", and did not end although it was killed");
        }
        self.push_half(&mut message, life);
        let error = Error::new(kind, message);
        if life.why.is_some_and(Why::is_asked) && self.spec.replies.as_sentinel().is_some() {
            // It went on reading, or it would not have been asked to end.
            return error.hint("it never printed the mark: look in the request for something left open, such as a quote or a bracket, that swallowed the sync command");
        }
        error
    }

    /// Quotes what a life wrote and never ended.
    pub(crate) fn push_half(&self, message: &mut String, life: &Life) {
        let halves =
            life.outputs.iter().enumerate().filter(|(_, output)| !output.unread().is_empty());
        for (channel, output) in halves {
            let said = excerpt(output.unread());
            message.push_str(&match channel {
                0 if life.in_banner => format!(", with {said}, which is not all of its banner"),
                0 => format!(", with half a reply {said}"),
                _ => format!(", with half a reply {said} on {}", self.output_name(channel)),
            });
        }
        let started = life.outputs.iter().any(|output| !output.whole.is_empty());
        let missing = |output: &Output| output.whole.is_empty() && output.unread().is_empty();
        if started && let Some(channel) = life.outputs.iter().position(missing) {
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
