//! What is said about a session in an error: who it was, how it ended, what it said.

use std::process::ExitStatus;

use crate::error::{Error, ErrorKind, excerpt};
use crate::framing::{FramingError, FramingErrorKind};
use crate::record::PacketId;
use crate::subprocess::session::together::output_name;
use crate::subprocess::session::{Context, Output, Session, Why};
use crate::subprocess::wording;
use crate::window::unwind;

impl Session {
    /// An error about it, with all that is known.
    pub(super) fn describe(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::new(kind, message.into())
            .by(self.slot, self.label.pid, &self.label.command)
            .on(self.label.host.clone())
            .said(self.child.stderr())
    }

    /// The same, once it has ended.
    pub(super) fn describe_end(
        &self,
        kind: ErrorKind,
        message: impl Into<String>,
        status: Option<ExitStatus>,
    ) -> Error {
        // What its launcher was sent says nothing about a tool that has said goodbye.
        let sent = self.child.signalled().filter(|_| !self.has_said_goodbye());
        let error = self.describe(kind, message).exited(status, sent);
        match self.limit {
            Some(limit) => error.limited(limit),
            None => error,
        }
    }

    /// The error of a packet that was alone in a session that failed.
    pub(super) fn unanswered(
        &self,
        packet: PacketId,
        status: Option<ExitStatus>,
        cx: &Context<'_>,
    ) -> Error {
        let (kind, mut message) = match self.why {
            Some(Why::Timeout) => {
                let limit = self.limit.map(|limit| limit.to_string());
                (ErrorKind::Timeout, limit.unwrap_or_else(|| "no reply in time".to_owned()))
            }
            Some(Why::ClosedOutput) => {
                let closed = self.outputs.iter().position(Output::is_closed).unwrap_or(0);
                let name =
                    if closed == 0 { "its stdout".to_owned() } else { output_name(closed, cx) };
                (ErrorKind::Died, format!("the worker closed {name} before it answered"))
            }
            Some(Why::ClosedInput) => {
                (ErrorKind::Died, "the worker closed its stdin and did not answer".to_owned())
            }
            _ => (ErrorKind::Died, "the worker ended before it answered".to_owned()),
        };
        if self.child.is_abandoned() {
            message.push_str(", and did not end although it was killed");
        }
        self.push_half(&mut message, cx);
        let error = self.describe_end(kind, message, status);
        let on_stderr = self.has_mark_on_stderr(packet, cx);
        // One that ended by itself need not have come to the sync command.
        let had_time = matches!(self.why, Some(Why::Timeout | Why::Done | Why::Recycled));
        let refused = status
            .filter(|_| self.limit.is_none() && cx.spec.is_until_eof())
            // It was asked before; a panic of it was told then.
            .filter(|&status| matches!(unwind::catch(|| cx.spec.accepts_status(status)), Ok(false)))
            .and_then(|status| status.code());
        if let Some(code) = refused {
            return error.hint(wording::refused_status(code, cx.spec.accept_status.is_some()));
        }
        match self.stall.hint() {
            Some(hint) if !on_stderr => error.hint(hint.to_owned()),
            _ if on_stderr || (had_time && cx.spec.replies.as_sentinel().is_some()) => {
                error.hint(wording::no_mark(on_stderr))
            }
            _ => error,
        }
    }

    pub(super) fn has_mark_on_stderr(&self, packet: PacketId, cx: &Context<'_>) -> bool {
        wording::mark_is_on_stderr(cx.spec, packet, self.child.stderr())
    }

    /// Quotes what it wrote and never ended.
    pub(super) fn push_half(&self, message: &mut String, cx: &Context<'_>) {
        let halves =
            self.outputs.iter().enumerate().filter(|(_, output)| !output.uncut().is_empty());
        for (channel, output) in halves {
            let said = excerpt(output.uncut());
            message.push_str(&match channel {
                0 if self.in_banner => format!(", with {said}, which is not all of its banner"),
                0 => format!(", with half a reply {said}"),
                _ => format!(", with half a reply {said} on {}", output_name(channel, cx)),
            });
        }
        let started = self.outputs.iter().any(|output| output.parts() > 0);
        let missing = |output: &Output| output.parts() == 0 && output.uncut().is_empty();
        if started && let Some(channel) = self.outputs.iter().position(missing) {
            message.push_str(&format!(", with nothing on {}", output_name(channel, cx)));
        }
    }

    /// The error of a feed whose worker leaves a side input unread.
    pub(super) fn clogged(&self, channel: usize, cx: &Context<'_>) -> Error {
        let name = cx.spec.side_input_names().swap_remove(channel - 1);
        let message = format!("the worker leaves the side input `{name}` unread");
        self.describe(ErrorKind::Channel, message).hint("if it need not read everything, declare it with Template::optional_side_input and a cap")
    }

    pub(super) fn not_a_reply(
        &self,
        channel: usize,
        said: &str,
        cause: FramingError,
        cx: &Context<'_>,
    ) -> Error {
        let name = output_name(channel, cx);
        let message = format!("no reply could be cut out of {name}, which goes on {said}");
        let too_long = matches!(cause.kind(), FramingErrorKind::TooLong { .. });
        let error = self.describe(ErrorKind::Reply, message).because(cause);
        if too_long { error.hint("raise the limit with Template::reply_limit") } else { error }
    }
}
