//! From replies to spans: whose they are, whether they are believed, and what follows for the session.
//!
//! # Invariants
//! 1. Replies belong to the front of `in_flight`, in order.
//! 2. A session that has not answered while its stdin was open is not proven: its replies are held until it
//!    has ended well with the number it owes.
//! 3. Whoever has answered is offered to the dispatcher again.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::record::{Buffer, PacketId, Run};
use crate::stats::Counters;
use crate::subprocess::cutting::nth_end;
use crate::subprocess::protocol::Now;
use crate::subprocess::scheduler::{Scheduler, Slot, Stopping};
use crate::subprocess::session::{Held, Why};
use crate::window::packet::{Cut, Outcome, Replies, Span};
use crate::window::unwind::Payload;

impl Scheduler {
    /// `count` replies came, to the packets at the front.
    pub(crate) fn answered(
        &mut self,
        slot: usize,
        buffer: Arc<Buffer>,
        at: Range<usize>,
        cut: Cut,
        count: u64,
        now: Now,
    ) {
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        session.moved = now;
        session.head_since = now;
        if session.answered + session.held_count == 0 {
            tell!(debug, session, "answering");
        }
        // A whole output proves nothing before it is known how its process ended.
        if (!session.stdin_closed && !self.spec.is_until_eof()) || mutated!(HeldNothing) {
            session.proven = true;
        }
        self.gate.hold(at.len());
        self.ever_answered = true;
        self.streak = 0;
        if !session.proven {
            session.held_count += count;
            session.held.push(Held { buffer, at, cut, count });
            self.watch(slot, now);
            return;
        }
        session.depth.answered(count, session.given - session.answered - count, now);
        self.deliver(slot, buffer, at, cut, count);
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        if session.owed() == 0 {
            session.prompt |= session.is_open();
            session.quarantined = false;
            if self.spec.session_records().is_some_and(|most| session.given >= most) {
                return self.part_from(slot, Why::Recycled, now);
            }
            if let Some(age) = self.spec.policy.recycle_age
                && session.is_open()
                && now.saturating_sub(session.started) >= age
            {
                return self.recycle_session(slot, now);
            }
        }
        if !mutated!(LostWakeUp) {
            self.offer(slot);
        }
        self.watch(slot, now);
    }

    /// Makes spans of replies, cut at the borders of the runs they answer. Their bytes are counted.
    pub(crate) fn deliver(
        &mut self,
        slot: usize,
        buffer: Arc<Buffer>,
        mut at: Range<usize>,
        mut cut: Cut,
        mut count: u64,
    ) {
        Counters::add(&self.counters().replies, count);
        while count > 0 {
            let Slot::Live(session) = &mut self.slots[slot] else { return };
            let Some(front) = session.in_flight.front_mut() else { return };
            let here = count.min(front.len() as u64);
            let run = if here < front.len() as u64 {
                front.split_front(here as usize)
            } else {
                match session.in_flight.pop_front() {
                    Some(run) => run,
                    None => return,
                }
            };
            session.answered += here;
            count -= here;
            let label = Arc::clone(&session.label);
            let (these, these_cut) = if count == 0 {
                (at.clone(), cut.clone())
            } else {
                split_cut(&buffer, &mut at, &mut cut, here)
            };
            let first = run.first();
            let mut weight = these.len();
            if !self.attempts.is_empty() {
                for i in 0..here {
                    self.attempts.remove(&first.plus(i).0);
                }
            }
            let requests = if self.keep_requests {
                weight += run.weight();
                Some(run)
            } else {
                self.spend(run);
                None
            };
            let outcome = Outcome::Replies(Replies {
                buffer: Arc::clone(&buffer),
                at: these,
                cut: these_cut,
                label,
                requests,
            });
            self.emit(Span { first, count: here, weight, outcome });
        }
    }

    /// More replies than requests: from here on nothing of this session can be trusted.
    pub(crate) fn too_many(&mut self, slot: usize, said: &str, now: Now) {
        if mutated!(ExtraIgnored) {
            return;
        }
        let Slot::Live(session) = &self.slots[slot] else { return };
        let unasked = session.given == 0 && !session.is_open();
        if unasked && self.spec.is_until_eof() {
            // What a tool makes of no input at all is nobody's reply (`gzip` has twenty bytes for it).
            return;
        }
        // Nothing can be shifted by what a session says that was never asked.
        let over = (unasked || self.all_resolved()) && self.stopping.is_none();
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        let (owed, got) = (session.given, session.given + 1);
        session.why = Some(Why::Distrusted);
        let message = format!(
            "the worker wrote more replies than it was sent requests ({owed}); the extra one begins {said}"
        );
        let error = self
            .describe(slot, ErrorKind::ReplyCount { owed, got }, message)
            .hint("if this is a banner or a prompt, skip it or use a sentinel framing; if the tool answers more than once, frame its replies by what ends them");
        if over {
            self.end.remarks.push(error);
            self.kill_session(slot, now);
        } else if self.stopping != Some(Stopping::Dropped) {
            self.fail(error);
        }
    }

    /// The packet that is to be answered next fails; nothing more of this session is believed, what it
    /// still owes goes to others, and so does what it has answered without proof.
    pub(crate) fn distrust(&mut self, slot: usize, problem: Result<Error, Payload>, now: Now) {
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        // Replies that were held until now are not believed either: those packets go to others too.
        let Some(packet) = take_nth(&mut session.in_flight, session.held_count) else { return };
        session.answered += 1;
        session.why = Some(Why::Distrusted);
        let held = session.take_held();
        self.gate.release(held);
        match problem {
            Ok(error) => self.emit_failure(packet, error),
            Err(payload) => self.emit_panic(packet, payload),
        }
        self.kill_session(slot, now);
    }
}

/// Splits the first `n` replies off.
fn split_cut(buffer: &Buffer, at: &mut Range<usize>, cut: &mut Cut, n: u64) -> (Range<usize>, Cut) {
    match cut {
        Cut::Delimiter { find, .. } => {
            let len = nth_end(&buffer[at.clone()], find.delimiter(), n);
            let front = at.start..at.start + len;
            at.start += len;
            (front, cut.clone())
        }
        Cut::Parts { ranges, next, sides } => {
            let front = Cut::Parts { ranges: Arc::clone(ranges), next: *next, sides: *sides };
            *next += n as usize * (1 + *sides);
            // The bytes are shared; each span is charged with what it really refers to.
            let end = ranges.get(*next).map_or(at.end, |range| range.start).max(at.start);
            let taken = at.start..end;
            at.start = end;
            (taken, front)
        }
    }
}

pub(crate) fn nth_packet(in_flight: &VecDeque<Run>, mut n: u64) -> Option<PacketId> {
    for run in in_flight {
        if n < run.len() as u64 {
            return Some(run.first().plus(n));
        }
        n -= run.len() as u64;
    }
    None
}

/// Takes one packet out of the middle.
pub(crate) fn take_nth(in_flight: &mut VecDeque<Run>, mut n: u64) -> Option<Run> {
    for i in 0..in_flight.len() {
        let len = in_flight[i].len() as u64;
        if n >= len {
            n -= len;
            continue;
        }
        if n > 0 {
            let front = in_flight[i].split_front(n as usize);
            in_flight.insert(i, front);
            return take_nth(in_flight, in_flight.range(..=i).map(|run| run.len() as u64).sum());
        }
        if len == 1 {
            return in_flight.remove(i);
        }
        return Some(in_flight[i].split_front(1));
    }
    None
}

/// Takes the first packet off the front run.
pub(crate) fn pop_front(in_flight: &mut VecDeque<Run>) -> Option<Run> {
    let front = in_flight.front_mut()?;
    if front.len() > 1 { Some(front.split_front(1)) } else { in_flight.pop_front() }
}
