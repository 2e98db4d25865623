//! The parent's side of the conversation with one child, over all its passes.
//!
//! It takes new passes from the [`Board`], stops what was under way, and starts the next one. What the child still sends
//! for an earlier one has an earlier generation, and is dropped.
//!
//! The grant is the window: the child may make item `k` of a pass once item `k - buffer_size` has been
//! yielded. It is raised whenever the gate lets something through, so bytes hold it up, too; and where more
//! bytes are held than may be, nothing is read.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Limit};
use crate::source::delivery::Delivery;
use crate::source::function::board::{Board, Lane};
use crate::source::function::protocol::{self, Command, Failure, HEAD, Status};
use crate::source::limit::{Moment, Silence, TimeLimit};
use crate::source::talk::{Exit, Heard, Stand, Talk};
use crate::subprocess::protocol::{Now, Time};
use crate::template::Spec;
use crate::window::packet::End;

/// The pass that is under way.
struct Current {
    generation: u64,
    delivery: Delivery,
    /// How many items the child may make.
    granted: u64,
}

impl Current {
    fn end(self, fatal: Option<Error>) {
        self.delivery.end(End { fatal, ..End::default() });
    }
}

pub(super) struct Session {
    board: Arc<Board>,
    spec: Arc<Spec>,
    command: Arc<str>,
    opening: Vec<u8>,
    current: Option<Current>,
    ready: bool,
    pid: Option<u32>,
    started: Time,
    silence: Silence,
    /// It is told to leave.
    closing: bool,
    /// What has gone wrong with it, and what is to become of it.
    failed: Option<(Error, Stand)>,
    through: bool,
}

impl Session {
    /// `opening` is the first message, whole.
    pub(super) fn new(
        board: Arc<Board>,
        spec: Arc<Spec>,
        command: Arc<str>,
        opening: Vec<u8>,
    ) -> Self {
        Self {
            board,
            spec,
            command,
            opening,
            current: None,
            ready: false,
            pid: None,
            started: Time::default(),
            silence: Silence::new(),
            closing: false,
            failed: None,
            through: false,
        }
    }

    /// Bytes that are held for the consumer of the pass that is under way.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.current.as_ref().map_or(0, |current| current.delivery.held())
    }

    fn error(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        self.located(Error::new(kind, message.into()))
    }

    fn located(&self, error: Error) -> Error {
        error.running(&self.command).of(self.pid).fatal()
    }

    /// Whether nobody wants or believes what is still to come.
    fn is_unwanted(&self) -> bool {
        self.closing || self.failed.is_some()
    }

    fn grace(&self) -> Duration {
        self.spec.policy.end_timeout.unwrap_or(Duration::MAX)
    }

    /// The first failure counts.
    fn fail(&mut self, error: Error, stand: Stand) {
        self.failed.get_or_insert((error, stand));
    }

    /// Looks at what the consumer wants.
    fn follow(&mut self, now: Time, say: &mut Vec<u8>) {
        let Some(next) = self.board.take() else {
            if !std::mem::replace(&mut self.closing, true) {
                protocol::put(say, Command::Abort as u8, 0, &[]);
            }
            return;
        };
        for lane in next {
            self.leave_current(say);
            let Lane { generation, supply, outbox } = lane;
            let mut delivery = Delivery::new(supply, outbox, Arc::clone(&self.command));
            delivery.made_by(self.pid);
            let granted = delivery.window_end();
            protocol::put(say, Command::Start as u8, generation, &granted.to_le_bytes());
            self.current = Some(Current { generation, delivery, granted });
            self.silence.has_room(true, now);
            self.silence.begins(now);
        }
        if self.current.as_ref().is_some_and(|current| current.delivery.is_dropped()) {
            self.leave_current(say);
        }
        let Some(Current { generation, delivery, granted, .. }) = &mut self.current else { return };
        if delivery.room(0, 0) > 0 {
            self.silence.has_room(true, now);
        }
        if delivery.may_grant(*granted) {
            if delivery.made() == *granted {
                // Until now it was not allowed to give any.
                self.silence.begins(now);
            }
            *granted = delivery.window_end();
            protocol::put(say, Command::More as u8, *generation, &granted.to_le_bytes());
        }
    }

    fn leave_current(&mut self, say: &mut Vec<u8>) {
        if let Some(left) = self.current.take() {
            protocol::put(say, Command::Stop as u8, left.generation, &[]);
            // Only one that was leaked could still hear of it.
            left.end(Some(Error::halted()));
        }
    }

    /// Takes what messages there are.
    fn read(&mut self, unread: &[u8], eof: bool) -> Heard {
        let mut ranges = Vec::new();
        // Bytes delivered, and bytes of whole messages.
        let (mut sent, mut used) = (0, 0);
        let mut held_up = false;
        while !self.is_unwanted() {
            if let Some(current) = &self.current
                && current.delivery.room(ranges.len() as u64, used - sent) == 0
            {
                held_up = true;
                break;
            }
            let rest = &unread[used..];
            let message = rest.first_chunk::<HEAD>().map(protocol::head);
            let longest = self.spec.policy.reply_limit.max(protocol::LONGEST_REPORT);
            if let Some((what, _, body)) = &message
                && (Status::from_byte(*what).is_none() || body.len() > longest)
            {
                // What it announces may never come.
                self.misunderstand();
                break;
            }
            let whole = message.filter(|(_, _, body)| body.end <= rest.len());
            let Some((what, generation, body)) = whole else {
                self.through |= eof;
                break;
            };
            let status = Status::from_byte(what);
            let is_current =
                self.current.as_ref().is_some_and(|current| current.generation == generation);
            let (start, end) = (used + body.start, used + body.end);
            if status == Some(Status::IteratorSuccess) {
                if is_current {
                    ranges.push(start - sent..end - sent);
                }
                used = end;
                continue;
            }
            self.deliver(&unread[sent..used], &mut ranges);
            used = end;
            sent = end;
            self.heed(status, is_current, &unread[start..end]);
        }
        self.deliver(&unread[sent..used], &mut ranges);
        Heard { taken: used, held_up }
    }

    fn deliver(&mut self, bytes: &[u8], ranges: &mut Vec<std::ops::Range<usize>>) {
        if let Some(current) = &mut self.current {
            current.delivery.put_parts(bytes, ranges);
        }
    }

    /// Takes a report that is no item.
    fn heed(&mut self, status: Option<Status>, is_current: bool, body: &[u8]) {
        let leave = Stand::Leave(self.grace());
        let failure = || Failure::decode(body);
        match status {
            Some(Status::InitializationSucceeded) if !self.ready => {
                self.ready = true;
                self.board.is_ready();
            }
            Some(Status::InitializationFailed) if !self.ready => {
                if let Some(failure) = failure() {
                    let error = failure.into_error("the function cannot be iterated");
                    self.fail(self.located(error), leave);
                } else {
                    self.misunderstand();
                }
            }
            Some(Status::IterationStarted) => {}
            Some(Status::IterationFinished) => {
                if let Some(current) = self.current.take_if(|_| is_current) {
                    current.end(None);
                }
            }
            Some(Status::IteratorFailed) => {
                let Some(failure) = failure() else { return self.misunderstand() };
                if !is_current {
                    return;
                }
                let ends = failure.ends_the_pass();
                let error = failure.into_error("the function cannot begin a pass");
                let error = error.running(&self.command).of(self.pid);
                if ends {
                    if let Some(current) = self.current.take() {
                        current.end(Some(error));
                    }
                } else if let Some(current) = &mut self.current {
                    let error = error.at(current.delivery.made());
                    current.delivery.put_failure(error);
                }
            }
            Some(Status::UnexpectedCommand) => {
                let message = "the child was given an order that makes no sense to it";
                self.fail(self.error(ErrorKind::Reply, message), leave);
            }
            _ => self.misunderstand(),
        }
    }

    fn misunderstand(&mut self) {
        let message = "the child says what is no report of a source's: something else writes there";
        self.fail(self.error(ErrorKind::Reply, message), Stand::Kill);
    }
}

impl Talk for Session {
    fn started(&mut self, pid: u32, now: Time) {
        self.pid = Some(pid);
        self.started = now;
        self.silence.begins(now);
    }

    fn attend(&mut self, now: Time, say: &mut Vec<u8>) {
        say.append(&mut self.opening);
        if self.failed.is_none() {
            self.follow(now, say);
        }
    }

    fn stand(&self) -> Stand {
        match &self.failed {
            Some((_, stand)) => *stand,
            None if self.closing => Stand::Leave(self.grace()),
            None => Stand::Go,
        }
    }

    fn limits(&self) -> impl Iterator<Item = TimeLimit> {
        let policy = &self.spec.policy;
        let (start, kind): (_, fn(Duration) -> Limit) = match policy.start_timeout {
            Some(limit) => (Some(limit), Limit::StartTimeout),
            None => (policy.idle_timeout, Limit::IdleTimeout),
        };
        let start = start.filter(|_| !self.ready);
        let may_give =
            |current: &Current| self.silence.counts() && current.delivery.made() < current.granted;
        let awaited = self.ready && self.current.as_ref().is_some_and(may_give);
        let idle = policy.idle_timeout.filter(|_| awaited);
        let started = Moment::Patient(self.started.patient);
        let limits = [
            TimeLimit::since(started, start, kind, "was not ready"),
            TimeLimit::since(
                self.silence.since(),
                idle,
                Limit::IdleTimeout,
                "did not give any item",
            ),
        ];
        limits.into_iter().flatten()
    }

    fn is_late(&mut self, limit: &TimeLimit) {
        self.fail(self.located(limit.error("child")), Stand::Kill);
    }

    fn wants(&mut self, now: Time) -> bool {
        if self.is_unwanted() {
            return true;
        }
        let Some(current) = &mut self.current else { return true };
        let wants = current.delivery.has_room_or_calls(now.real);
        // Asked last, so that it is credit that is called out: if what has come is not wanted for want
        // of credit or room, neither is more, and one call serves both.
        if wants && current.delivery.may_grant_or_calls(current.granted, now.real) {
            current.delivery.wake();
        }
        self.silence.has_room(wants, now);
        wants
    }

    fn hear(&mut self, unread: &[u8], eof: bool, now: Time) -> Heard {
        let heard = self.read(unread, eof);
        if heard.taken > 0 {
            self.silence.begins(now);
        }
        if self.is_unwanted() {
            self.through |= eof;
            return Heard { taken: unread.len(), held_up: false };
        }
        heard
    }

    fn asks_again(&self) -> Option<Now> {
        // Nothing is asked once it is unwanted: the time of the last question is past, and would not go by.
        self.current.as_ref().filter(|_| !self.is_unwanted())?.delivery.deadline()
    }

    fn is_through(&self) -> bool {
        self.through || self.is_unwanted()
    }

    fn reaped(mut self, exit: Exit) {
        let current = self.current.take();
        let fate = if let Some(error) = exit.error {
            error
        } else if let Some((error, _)) = self.failed.take() {
            error.said(&exit.stderr)
        } else {
            let message = match (&current, self.ready) {
                (Some(_), true) => "the child ended in the middle of a pass",
                (None, true) => "the child ended between two passes",
                (_, false) => "the child ended before it was ready",
            };
            let error = self.error(ErrorKind::Died, message).said(&exit.stderr);
            error.exited(exit.status, exit.signalled)
        };
        if let Some(current) = current {
            let (fatal, panic) = match exit.panic {
                Some(payload) => (None, Some(payload)),
                None => (Some(fate.again()), None),
            };
            current.delivery.end(End { fatal, panic, ..End::default() });
        }
        self.board.seal(fate);
    }
}
