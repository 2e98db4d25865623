//! Feeding without collecting: a packet is done when it has been written in full.
//!
//! Nothing that a worker may have read is sent again, whatever becomes of it: that would write its lines
//! twice. What still lay in its pipe when it died nobody has read, and the kernel says how much that
//! is: these packets are taken back.

use std::process::ExitStatus;
use std::sync::atomic::Ordering::Relaxed;

use crate::error::{Error, ErrorKind};
use crate::record::Run;
use crate::stats::Counters;
use crate::subprocess::ending::MOST_REMARKS;
use crate::subprocess::input::{Input, PIPE};
use crate::subprocess::protocol::Now;
use crate::subprocess::scheduler::{Care, Scheduler, Slot};
use crate::subprocess::session::{Session, Why};
use crate::window::packet::{Outcome, SessionEnd, Span};

impl Scheduler {
    /// Counts what a session has been handed in full.
    pub(crate) fn settle_written(&mut self, slot: usize, now: Now) {
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        let in_flight: u64 = session.in_flight.iter().map(|run| run.len() as u64).sum();
        let mut written = in_flight - session.unfinished().min(in_flight);
        if written == 0 {
            return;
        }
        session.head_since = now;
        session.depth.answered(written, in_flight - written, now);
        self.end.accepted[slot] += written;
        if session.inputs.iter().any(Input::has_been_read) {
            self.ever_answered = true;
            self.streak = 0;
        }
        Counters::add(&self.stats.counters.replies, written);
        while written > 0 {
            let Slot::Live(session) = &mut self.slots[slot] else { return };
            let Some(front) = session.in_flight.front_mut() else { return };
            let run = if (front.len() as u64) > written {
                front.split_front(written as usize)
            } else {
                match session.in_flight.pop_front() {
                    Some(run) => run,
                    None => return,
                }
            };
            let count = run.len() as u64;
            written -= count;
            session.answered += count;
            let span = Span { first: run.first(), count, weight: 0, outcome: Outcome::Passed };
            session.remember(run.clone());
            self.spend(run);
            self.emit(span);
        }
        if let Slot::Live(session) = &mut self.slots[slot]
            && session.owed() == 0
        {
            session.quarantined = false;
            if self.spec.session_records().is_some_and(|most| session.given >= most) {
                return self.part_from(slot, Why::Recycled, now);
            }
            if self.nothing_to_come() && self.stopping.is_none() {
                // The end may have come together with what was written just now: then nobody looks for
                // it again, as nothing will come back from here.
                return self.part_from(slot, Why::Done, now);
            }
        }
        self.offer(slot);
        self.watch(slot, now);
    }

    /// So many bytes of an input lay in the pipe when nobody could read them any more.
    pub(crate) fn left_unread(&mut self, slot: usize, channel: usize, bytes: u64) {
        if let Slot::Live(session) = &mut self.slots[slot] {
            session.inputs[channel].left.get_or_insert(bytes);
        }
    }

    /// A session is over: what it has not read goes to others, what it may have read in part has failed.
    pub(crate) fn settle_ended(
        &mut self,
        mut session: Session,
        status: Option<ExitStatus>,
        now: Now,
    ) {
        let slot = session.label.worker;
        let early = !session.why.is_some_and(Why::is_asked);
        self.end.exits.push(SessionEnd { worker: slot, status, early });
        let bad = early || status.is_none_or(|status| !status.success());
        if bad && self.end.remarks.len() < MOST_REMARKS {
            let message = match early {
                true => "a worker ended before its input did",
                false => "a worker ended badly",
            };
            let error = self.describe_end(&session, status, Error::new(ErrorKind::Died, message));
            self.end.remarks.push(error);
        }
        let in_flight: u64 = session.in_flight.iter().map(|run| run.len() as u64).sum();
        let unread = session.unread();
        self.take_back(&mut session, unread.saturating_sub(in_flight));
        if early && session.has_read_nothing() {
            self.streak += 1;
            if self.streak >= self.spec.policy.give_up {
                return self.give_up(session, status);
            }
            self.back_off(&session, now);
        }
        let in_flight_runs = std::mem::take(&mut session.in_flight);
        self.resend(in_flight_runs, unread.min(in_flight), &session, status);
    }

    /// Takes the newest `count` of the packets that a session had accepted back from it.
    fn take_back(&mut self, session: &mut Session, mut count: u64) {
        while count > 0
            && let Some(mut run) = session.recent.pop_back()
        {
            if (run.len() as u64) > count {
                let kept = run.len() - count as usize;
                run.split_front(kept);
            }
            let len = run.len() as u64;
            count -= len;
            self.end.accepted[session.label.worker] -= len;
            self.resolved -= len;
            self.gate.hold(run.weight());
            let replies = &self.stats.counters.replies;
            replies.store(replies.load(Relaxed) - len, Relaxed);
            self.send_again(run, Care::Free);
        }
    }
}

impl Session {
    /// Keeps what was written last and may still lie in a pipe.
    fn remember(&mut self, run: Run) {
        self.recent_bytes += run.weight();
        self.recent.push_back(run);
        let most = PIPE as usize * self.inputs.len();
        while let Some(weight) = self.recent.front().map(Run::weight)
            && self.recent_bytes - weight >= most
        {
            self.recent_bytes -= weight;
            self.recent.pop_front();
        }
    }
}
