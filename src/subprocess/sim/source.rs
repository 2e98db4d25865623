//! The intake, without its thread: pulls a simulated source as far as the real [`Gate`] allows, fills
//! the open batch, and leaves it where the executor can steal it, as `window::intake` does.

use std::collections::VecDeque;

use crate::error::{Error, ErrorKind};
use crate::record::{Batch, Requests};
use crate::subprocess::session::Now;
use crate::window::gate::Gate;
use crate::window::intake::Arrival;
use crate::window::packet::{Outcome, Span};

use super::check::Failure;
use super::mutants::{Mutant, is_on};
use super::rng::Rng;
use super::schedule::Schedule;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the gate, the open batch parked.
    Gate,
    /// Inside the source until then, the open batch parked. `None`: for ever.
    Inside(Option<Now>),
    /// Handing over what is in `sending`.
    Sending,
    Done,
}

#[derive(Debug)]
pub(super) struct Source {
    pub(super) pulled: u64,
    /// Full batches and outcomes on their way to the executor.
    pub(super) queue: VecDeque<Arrival>,
    pub(super) open: Option<Box<Requests>>,
    /// How heavy the heaviest record was.
    pub(super) heaviest: usize,
    sending: VecDeque<Arrival>,
    state: State,
    ended: bool,
    rng: Rng,
}

impl Source {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            pulled: 0,
            queue: VecDeque::new(),
            open: None,
            heaviest: 0,
            sending: VecDeque::new(),
            state: State::Gate,
            ended: false,
            rng,
        }
    }

    /// When it goes on by itself.
    pub(super) fn wake(&self) -> Option<Now> {
        match self.state {
            State::Inside(until) => until,
            _ => None,
        }
    }

    pub(super) fn is_parked(&self) -> bool {
        matches!(self.state, State::Gate | State::Inside(_))
    }

    pub(super) fn is_blocked_for_ever(&self) -> bool {
        self.state == State::Inside(None)
    }

    /// Bytes that were handed over and have not arrived, which the gate counts.
    pub(super) fn weight(&self) -> usize {
        let weigh = |arrival: &Arrival| match arrival {
            Arrival::Batch(batch) => batch.bytes(),
            _ => 0,
        };
        self.queue.iter().chain(&self.sending).map(weigh).sum()
    }

    /// What the executor takes.
    pub(super) fn take(&mut self, gate: &Gate) -> Option<Arrival> {
        if self.ended {
            return None;
        }
        if let Some(arrival) = self.queue.pop_front() {
            self.ended = matches!(arrival, Arrival::End { .. });
            return Some(arrival);
        }
        if !self.is_parked() {
            return None;
        }
        let batch = self.open.take()?;
        gate.hold(batch.bytes());
        Some(Arrival::Batch(batch))
    }

    /// Goes as far as it can without time passing. Says whether the executor has something to take.
    pub(super) fn go(
        &mut self,
        schedule: &Schedule,
        gate: &Gate,
        now: Now,
    ) -> Result<bool, Failure> {
        let mut news = false;
        loop {
            match self.state {
                State::Gate => {
                    let open = self.open.as_ref().map_or(0, |batch| batch.bytes());
                    // A mutant of the gate: one input too many.
                    let pulled =
                        self.pulled - u64::from(is_on(Mutant::WindowOffByOne) && self.pulled > 0);
                    if gate.is_stopped() {
                        self.flush(gate);
                        self.end();
                    } else if gate.may_pull(pulled, open) {
                        self.state = State::Inside(self.next_item(schedule, now));
                    } else {
                        return Ok(news);
                    }
                }
                State::Inside(Some(until)) if until <= now => {
                    self.pull(schedule, gate)?;
                    self.state = State::Sending;
                }
                State::Inside(_) => return Ok(news),
                State::Sending => {
                    while self.queue.len() < schedule.input.waiting
                        && let Some(arrival) = self.sending.pop_front()
                    {
                        self.queue.push_back(arrival);
                        news = true;
                    }
                    if !self.sending.is_empty() {
                        return Ok(news);
                    }
                    if self.queue.iter().any(|arrival| matches!(arrival, Arrival::End { .. })) {
                        self.state = State::Done;
                        return Ok(news);
                    }
                    news |= self.open.is_some();
                    self.state = State::Gate;
                }
                State::Done => return Ok(news),
            }
        }
    }

    fn next_item(&mut self, schedule: &Schedule, now: Now) -> Option<Now> {
        let input = &schedule.input;
        if input.blocks_at == Some(self.pulled) {
            return None;
        }
        let mut at = now + input.pause * self.rng.below(3) as u32;
        if self.rng.one_in(input.rest_every) {
            at += input.rest;
        }
        Some(at)
    }

    fn pull(&mut self, schedule: &Schedule, gate: &Gate) -> Result<(), Failure> {
        if schedule.input.total == Some(self.pulled) {
            self.flush(gate);
            self.end();
            return Ok(());
        }
        let k = self.pulled;
        let ahead = k - gate.total_yielded();
        if ahead >= schedule.window {
            return Err(Failure::new(format!("input {k} was pulled {ahead} ahead")));
        }
        self.pulled += 1;
        let packet = schedule.origin.plus(k);
        if schedule.is_refused(k) {
            self.flush(gate);
            let error = Error::new(ErrorKind::Encode, "refused").at(packet.0);
            self.sending.push_back(Arrival::Settled(Span::one(packet, Outcome::Failed(error))));
            return Ok(());
        }
        let open = self.open.get_or_insert_with(|| {
            let mut batch = Box::new(Requests::new(1));
            batch.first = packet;
            batch
        });
        let out = &mut open.columns[0].bytes;
        let start = out.len();
        let framing = &schedule.spec.requests;
        framing.open(out);
        out.extend_from_slice(&schedule.body(k));
        let framed = framing.close(out, start);
        debug_assert!(framed.is_ok());
        if let Some(sentinel) = schedule.spec.replies.as_sentinel() {
            sentinel.append(packet.0, out);
        }
        let end = out.len();
        self.heaviest = self.heaviest.max(end - start);
        open.columns[0].ends.push(end);
        if open.len() >= schedule.input.batch {
            self.flush(gate);
        }
        Ok(())
    }

    fn flush(&mut self, gate: &Gate) {
        if let Some(batch) = self.open.take() {
            gate.hold(batch.bytes());
            self.sending.push_back(Arrival::Batch(batch));
        }
    }

    fn end(&mut self) {
        self.sending.push_back(Arrival::End { pulled: self.pulled, panic: None });
        self.state = State::Sending;
    }
}
