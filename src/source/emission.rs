//! The words of a command that emits records: its output is cut, and that is all there is to say.

use std::sync::Arc;

use memchr::memchr_iter;

use crate::error::{Error, ErrorKind, Limit, excerpt};
use crate::framing::{Framing, Position, Scan};
use crate::source::delivery::Delivery;
use crate::source::limit::{Moment, Silence, TimeLimit};
use crate::source::talk::{Exit, Heard, Stand, Talk};
use crate::subprocess::protocol::{Now, Time};
use crate::template::Spec;
use crate::template::policy::Halt;
use crate::template::words::LONGEST_BANNER;
use crate::tuning::READ_BYTES;
use crate::window::packet::{Cut, End};
use crate::window::unwind::{self, Payload};

/// Of a command whose exit status nobody knows.
const REAPED_ELSEWHERE: &str = "SIGCHLD is ignored in this process, or another thread of it waits for any child, and took \
    the status: give SIGCHLD its default action, and wait for children of your own only";

/// Makes spans of what one run of a command prints.
pub(super) struct Emission {
    spec: Arc<Spec>,
    delivery: Delivery,
    framing: Box<dyn Framing>,
    /// How much of the next record has been looked at without finding its end.
    scanned: usize,
    in_banner: bool,
    /// Preamble and farewell are said.
    has_spoken: bool,
    started: Time,
    silence: Silence,
    through: bool,
    /// Records that `check` has refused.
    refused: u64,
    /// What was left at the end and is no record.
    half: String,
    failed: Option<Error>,
    panic: Option<Payload>,
}

impl Emission {
    pub(super) fn new(spec: Arc<Spec>, delivery: Delivery) -> Self {
        Self {
            framing: spec.replies.start(),
            spec,
            delivery,
            scanned: 0,
            in_banner: true,
            has_spoken: false,
            started: Time::default(),
            silence: Silence::new(),
            through: false,
            refused: 0,
            half: String::new(),
            failed: None,
            panic: None,
        }
    }

    /// Records made so far.
    #[cfg(test)]
    pub(super) fn made(&self) -> u64 {
        self.delivery.made()
    }

    /// Whether nobody wants or believes what is still to come.
    fn is_unwanted(&self) -> bool {
        self.failed.is_some() || self.panic.is_some() || self.delivery.is_dropped()
    }

    /// The first failure ends it.
    fn fail(&mut self, error: Error) {
        self.failed.get_or_insert(error);
    }

    fn error(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        self.delivery.describe(Error::new(kind, message.into())).fatal()
    }

    fn skip_banner(&mut self, unread: &[u8], eof: bool) -> Option<usize> {
        let end = self.spec.words.banner.end(unread);
        match end {
            Some(_) => self.in_banner = false,
            None if eof => {
                self.through = true;
                let message = "the command ended before its banner did";
                self.fail(self.error(ErrorKind::Reply, message));
            }
            None if unread.len() > LONGEST_BANNER => {
                let message = format!(
                    "the end of the command's banner has not come; it begins {}",
                    excerpt(unread)
                );
                self.fail(self.error(ErrorKind::Reply, message));
            }
            None => {}
        }
        end
    }

    /// Cuts what records there is room for.
    fn cut(&mut self, unread: &[u8], eof: bool) -> Heard {
        let small = self.spec.policy.reply_limit < READ_BYTES;
        match self.framing.delimiter() {
            Some(delimiter) if !small && self.spec.check.is_none() => {
                self.cut_in_bulk(unread, eof, delimiter)
            }
            _ => self.cut_one_by_one(unread, eof),
        }
    }

    /// Delimiters are counted; the consumer's thread finds the records.
    fn cut_in_bulk(&mut self, unread: &[u8], eof: bool, delimiter: u8) -> Heard {
        let (mut used, mut count) = (0, 0);
        let all = loop {
            let room = self.delivery.room(count, used);
            if room == 0 {
                break false;
            }
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let from = used.max(self.scanned);
            let mut cut = 0;
            for at in memchr_iter(delimiter, &unread[from..]).take(room) {
                cut += 1;
                used = from + at + 1;
            }
            count += cut as u64;
            if cut < room {
                break true;
            }
        };
        self.delivery.put_replies(&unread[..used], Cut::at_each(delimiter, 1), count);
        let rest = &unread[used..];
        // Credit may have come meanwhile: what counts is what was looked at.
        self.scanned = if all { rest.len() } else { self.scanned.saturating_sub(used) };
        if all && rest.len() > self.spec.policy.reply_limit {
            self.too_long(rest);
        } else if all && eof {
            self.end_with(rest);
        }
        Heard { taken: used, held_up: !all }
    }

    fn cut_one_by_one(&mut self, unread: &[u8], eof: bool) -> Heard {
        let limit = self.spec.policy.reply_limit;
        let mut ranges = Vec::new();
        // Bytes emitted, and bytes in whole records.
        let (mut sent, mut used) = (0, 0);
        let held_up = loop {
            let others = ranges.len() as u64;
            if self.delivery.room(others, used - sent) == 0 {
                break true;
            }
            let packet = self.delivery.made() + others;
            let rest = &unread[used..];
            // No output at all is one empty record where the whole output is the record.
            let empty =
                rest.is_empty() && !(eof && packet == 0 && self.spec.replies.is_until_eof());
            if empty {
                if eof {
                    self.through = true;
                }
                break false;
            }
            let position = Position::new(packet, limit, eof);
            match unwind::catch(|| self.framing.scan(rest, position)) {
                Ok(Ok(Scan::Complete { body, len })) => {
                    let body = used + body.start..used + body.end;
                    used += len;
                    match self.refusal(&unread[body.clone()], packet) {
                        Ok(None) => ranges.push(body.start - sent..body.end - sent),
                        Ok(Some(error)) => {
                            let before = used - len;
                            self.delivery.put_parts(&unread[sent..before], &mut ranges);
                            self.delivery.put_failure(error);
                            sent = used;
                            if self.is_halted() {
                                break false;
                            }
                        }
                        Err(payload) => {
                            self.panic = Some(payload);
                            break false;
                        }
                    }
                }
                Ok(Ok(Scan::Partial)) if eof => {
                    self.end_with(rest);
                    break false;
                }
                Ok(Ok(Scan::Partial)) => break false,
                Ok(Err(error)) if error.is_truncated() && eof => {
                    self.end_with(rest);
                    break false;
                }
                Ok(Err(error)) => {
                    let message = format!(
                        "no record could be cut out of the command's output, which goes on {}",
                        excerpt(rest)
                    );
                    self.fail(self.error(ErrorKind::Reply, message).because(error).at(packet));
                    break false;
                }
                Err(payload) => {
                    self.panic = Some(payload);
                    break false;
                }
            }
        };
        self.delivery.put_parts(&unread[sent..used], &mut ranges);
        Heard { taken: used, held_up }
    }

    /// What the template's `check` has against a record.
    fn refusal(&self, record: &[u8], packet: u64) -> Result<Option<Error>, Payload> {
        let Some(check) = &self.spec.check else { return Ok(None) };
        let verdict = unwind::catch(|| check(&[], record))?;
        Ok(verdict.err().map(|error| {
            let message = format!("check refused the record {}", excerpt(record));
            let error = Error::new(ErrorKind::Check, message).because(error);
            self.delivery.describe(error).at(packet)
        }))
    }

    /// One more was refused. Whether that is as many as there may be.
    fn is_halted(&mut self) -> bool {
        self.refused += 1;
        let most = match self.spec.policy.halt {
            Halt::Never => return false,
            Halt::Soon(most) | Halt::Now(most) => most,
        };
        if self.refused < most {
            return false;
        }
        let message = match self.refused {
            1 => "the source was halted: one record has failed".to_owned(),
            refused => format!("the source was halted: {refused} records have failed"),
        };
        self.fail(self.error(ErrorKind::Halted, message));
        true
    }

    fn too_long(&mut self, rest: &[u8]) {
        let message = format!(
            "a record is longer than the limit of {} bytes; it begins {}",
            self.spec.policy.reply_limit,
            excerpt(rest)
        );
        let error = self.error(ErrorKind::Reply, message).at(self.delivery.made());
        self.fail(error.hint("raise it with Template::reply_limit"));
    }

    /// The output has ended, and this is left of it.
    fn end_with(&mut self, rest: &[u8]) {
        self.through = true;
        if !rest.is_empty() {
            self.half = excerpt(rest);
        }
    }
}

impl Talk for Emission {
    fn started(&mut self, pid: u32, now: Time) {
        self.delivery.made_by(Some(pid));
        self.started = now;
        self.silence.begins(now);
    }

    fn attend(&mut self, now: Time, say: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.has_spoken, true) {
            for words in [&self.spec.words.preamble, &self.spec.words.farewell] {
                say.extend_from_slice(words.as_deref().unwrap_or_default());
            }
        }
        if self.delivery.room(0, 0) > 0 {
            self.silence.has_room(true, now);
        }
    }

    fn stand(&self) -> Stand {
        if self.is_unwanted() { Stand::Kill } else { Stand::Go }
    }

    fn limits(&self) -> impl Iterator<Item = TimeLimit> {
        let policy = &self.spec.policy;
        let ready = self.spec.words.banner.ready_limit().filter(|_| self.in_banner);
        let awaited = self.silence.counts() && !self.through;
        let none_yet = awaited && self.delivery.made() == 0;
        let start = policy.start_timeout.filter(|_| none_yet);
        let idle = policy.idle_timeout.filter(|_| awaited);
        let run = policy.run_timeout;
        let started = Moment::Patient(self.started.patient);
        let started_really = Moment::Real(self.started.real);
        let limits = [
            TimeLimit::since(started, ready, Limit::Ready, "was not ready"),
            TimeLimit::since(started, start, Limit::StartTimeout, "emitted no record"),
            TimeLimit::since(
                self.silence.since(),
                idle,
                Limit::IdleTimeout,
                "emitted nothing more",
            ),
            TimeLimit::since(started_really, run, Limit::RunTimeout, "was not done"),
        ];
        limits.into_iter().flatten()
    }

    fn is_late(&mut self, limit: &TimeLimit) {
        self.fail(self.delivery.describe(limit.error("command")).fatal());
    }

    fn wants(&mut self, now: Time) -> bool {
        let wants = self.is_unwanted() || self.delivery.has_room_or_calls(now.real);
        self.silence.has_room(wants, now);
        wants
    }

    fn hear(&mut self, unread: &[u8], eof: bool, now: Time) -> Heard {
        if self.is_unwanted() {
            self.through |= eof;
            return Heard { taken: unread.len(), held_up: false };
        }
        self.silence.begins(now);
        let mut taken = 0;
        if self.in_banner {
            match self.skip_banner(unread, eof) {
                Some(end) => taken = end,
                None => return Heard { taken: 0, held_up: false },
            }
        }
        let Heard { taken: cut, held_up } = self.cut(&unread[taken..], eof);
        Heard { taken: taken + cut, held_up }
    }

    fn broke_off(&mut self, error: Error) {
        self.through = true;
        self.fail(self.delivery.describe(error).fatal());
    }

    fn asks_again(&self) -> Option<Now> {
        // Nothing is asked once it is unwanted: the time of the last question is past, and would not go by.
        if self.is_unwanted() { None } else { self.delivery.deadline() }
    }

    fn is_through(&self) -> bool {
        self.through || self.is_unwanted()
    }

    fn reaped(mut self, exit: Exit) {
        let limit = self.spec.policy.end_timeout.unwrap_or_default();
        let accepts = |status| unwind::catch(|| self.spec.accepts_status(status));
        let verdict = exit.status.map_or(Ok(true), accepts);
        let ended_badly = matches!(verdict, Ok(false));
        // What a command that was killed has printed looks just like all of it.
        let is_known = exit.status.is_some();
        let whole = self.half.is_empty();
        let panic = self.panic.take().or(exit.panic).or(verdict.err());
        let fatal = if panic.is_some() {
            None
        } else if let Some(error) = exit.error {
            Some(error)
        } else if let Some(error) = self.failed.take() {
            // It was killed for this, so that its status says nothing.
            let sent = error.limit().and(exit.signalled);
            Some(error.exited(None, sent).said(&exit.stderr))
        } else if exit.overstayed {
            let message = format!(
                "the command closed its output and did not exit within {limit:?} (end_timeout)"
            );
            let error = self.error(ErrorKind::Timeout, message).limited(Limit::EndTimeout(limit));
            Some(error.exited(exit.status, exit.signalled).said(&exit.stderr))
        } else if whole && !ended_badly && is_known {
            None
        } else {
            let kind = if ended_badly || whole { ErrorKind::Died } else { ErrorKind::Reply };
            let message = match (whole, ended_badly) {
                (true, true) => "the command ended badly after its last record".to_owned(),
                (true, false) => "the command ended, and its exit status is unknown".to_owned(),
                (false, _) => {
                    format!("the command ended inside a record, which begins {}", self.half)
                }
            };
            let error = self.error(kind, message).exited(exit.status, exit.signalled);
            let error = if is_known { error } else { error.hint(REAPED_ELSEWHERE) };
            Some(error.said(&exit.stderr))
        };
        self.delivery.end(End { fatal, panic, ..End::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Template;
    use crate::window::outlet::Outlet;
    use crate::window::seam::{Bounds, Ends, attach};

    fn emission(window: usize) -> (Emission, Outlet) {
        let spec = Arc::new(Template::new("it").spec);
        let Ends { supply, outbox, outlet, .. } = attach(Bounds::new(window, usize::MAX), || {});
        (Emission::new(spec, Delivery::new(supply, outbox, "it".into())), outlet)
    }

    #[test]
    fn records_are_taken_as_far_as_there_is_room_however_they_come() {
        let text = b"a\nbb\n\nccc\nd\ne\nf\n";
        for piece in 1..=text.len() {
            let (mut emission, _outlet) = emission(5);
            let (mut unread, mut heard) = (Vec::new(), Heard { taken: 0, held_up: false });
            for piece in text.chunks(piece) {
                unread.extend_from_slice(piece);
                heard = emission.hear(&unread, false, Time::default());
                unread.drain(..heard.taken);
            }
            assert_eq!((emission.delivery.made(), &*unread), (5, &b"e\nf\n"[..]));
            assert!(heard.held_up && !emission.is_through());
        }
    }

    #[test]
    fn one_that_nobody_wants_any_more_does_not_ask_again() {
        let (mut emission, outlet) = emission(64);
        emission.hear(&b"x\n".repeat(70), false, Time::default());
        assert!(!emission.wants(Time::default()) && emission.asks_again().is_some());
        drop(outlet);
        assert!(emission.wants(Time::default()) && emission.asks_again().is_none());
    }
}
