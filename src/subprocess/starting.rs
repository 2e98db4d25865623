//! Starting sessions: which slot, when, and what a new session looks like.
//!
//! # Invariants
//! 1. A slot is `Vacant`, then `Starting` while the event loop is at it, then `Live`; `started` or
//!    `start_failed` answers each `next_start`.
//! 2. No start before the slot's `not_before`; then a timer of the feed's is set, so that it is not forgotten.
//! 3. Nothing is started for nobody: not after the feed has stopped, nor when all there is has been given out.
//! 4. A start that fails for want of something the system may have again is fatal only if nobody is alive.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::stats::Counters;
use crate::subprocess::depth::Depth;
use crate::subprocess::input::Input;
use crate::subprocess::protocol::{Now, StartError};
use crate::subprocess::scheduler::{Scheduler, Slot};
use crate::subprocess::session::{Output, Phase, Session, Tail};
use crate::window::packet::Label;

impl Scheduler {
    /// The next slot to start a session in, if one is wanted now. One at a time: between two starts the
    /// event loop looks after the sessions that are already there.
    pub(crate) fn next_start(&mut self, now: Now) -> Option<usize> {
        if self.stopping.is_some()
            || self.all_resolved()
            || (self.pulled.is_some() && self.pending.is_empty())
        {
            return None;
        }
        let n = self.slots.len();
        for i in 0..n {
            let slot = (self.next_to_start + i) % n;
            let Slot::Vacant { not_before } = self.slots[slot] else { continue };
            if not_before > now {
                self.arm_feed(not_before);
                continue;
            }
            // Once the feed is running, a slot is refilled when there is work for it, or at once
            // while its tool has shown that it answers.
            if self.pending.is_empty() && self.streak > 0 {
                return None;
            }
            self.next_to_start = slot + 1;
            self.slots[slot] = Slot::Starting;
            return Some(slot);
        }
        None
    }

    pub(crate) fn started(&mut self, slot: usize, pid: Option<u32>, now: Now) {
        let spec = Arc::clone(&self.spec);
        let mut inputs = vec![Input::default()];
        for side in spec.channels.side_inputs.iter().filter(|side| side.file.is_none()) {
            inputs.push(Input::side(side.optional));
        }
        let mut outputs = vec![Output::new(&spec.replies)];
        for side in &spec.channels.side_outputs {
            if let Some(framing) = &side.framing {
                outputs.push(Output::new(framing));
            }
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        let counters = self.counters();
        Counters::add(&counters.starts, 1);
        if serial >= self.slots.len() as u64 {
            Counters::add(&counters.restarts, 1);
        }
        let session = Session {
            serial,
            label: Arc::new(Label { worker: slot, pid, command: Arc::clone(&self.command) }),
            phase: Phase::Open,
            why: None,
            inputs,
            outputs,
            stderr: Tail::default(),
            stderr_eof: false,
            depth: if self.withholding || spec.policy.at_eof() {
                Depth::unlimited()
            } else {
                Depth::new()
            },
            started: now,
            given: 0,
            answered: 0,
            in_flight: VecDeque::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            held: Vec::new(),
            held_count: 0,
            in_banner: !spec.words.banner.is_empty(),
            proven: false,
            prompt: false,
            stdin_closed: false,
            quarantined: false,
            queued: false,
            head_since: now,
            moved: now,
            patience: self.patience(),
            next_probe: Now::ZERO,
            suspected: now,
            closed_output_at: None,
            lingered: false,
            abandoned: false,
            timer: None,
        };
        let mut session = Box::new(session);
        tell!(debug, session, "started", restart = serial >= self.slots.len() as u64);
        if let Some(preamble) = &spec.words.preamble {
            session.inputs[0].push_words(Arc::clone(preamble));
            self.to_write.push(slot);
        }
        self.slots[slot] = Slot::Live(session);
        if let Some(limit) = self.spec.words.banner.ready_limit() {
            self.arm(slot, now.saturating_add(limit));
        }
        self.offer(slot);
        if let Some(age) = self.spec.policy.recycle_age {
            self.arm(slot, now.saturating_add(age));
        }
        if self.stopping.is_some() {
            self.stop_sessions();
        }
    }

    /// The worker's stdin does not come from us.
    pub(crate) fn no_stdin(&mut self, slot: usize) {
        if let Slot::Live(session) = &mut self.slots[slot] {
            session.inputs[0].is_elsewhere();
        }
    }

    /// An output of the worker does not lead to us.
    pub(crate) fn not_piped(&mut self, slot: usize, output: usize) {
        if let Slot::Live(session) = &mut self.slots[slot] {
            session.outputs[output].eof = true;
        }
    }

    pub(crate) fn start_failed(&mut self, slot: usize, error: StartError, now: Now) {
        self.slots[slot] = Slot::Vacant { not_before: now };
        let alive = self.slots.iter().any(|slot| matches!(slot, Slot::Live(_)));
        match error {
            StartError::NotNow(error) if alive => {
                self.stats.hint(format!("a worker could not be started and waits: {error}"));
                let wait = self.spec.policy.backoff_cap.max(Duration::from_millis(10));
                self.slots[slot] = Slot::Vacant { not_before: now.saturating_add(wait) };
            }
            StartError::NotNow(error) | StartError::Never(error) => self.fail(error),
        }
    }

    /// After a session that came to nothing the next one waits a while.
    pub(crate) fn back_off(&mut self, session: &Session, now: Now) {
        let policy = &self.spec.policy;
        let doublings = self.streak.saturating_sub(1).min(20);
        let wait = policy.backoff.saturating_mul(1 << doublings).min(policy.backoff_cap);
        tell!(debug, session, "backed off", wait_ms = wait.as_secs_f64() * 1e3);
        let slot = session.label.worker;
        self.slots[slot] = Slot::Vacant { not_before: now.saturating_add(wait) };
    }
}
