//! The intake, without its thread: pulls a simulated source as far as the real [`Gate`] allows, fills
//! the open batch, and hands it over by the real [`Intake`]'s steps. Where the input is bytes, it is the reading intake
//! that ships, on a simulated [`Reader`].

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::TrySendError;

use crate::error::{Error, ErrorKind};
use crate::feed::blocks::writing;
use crate::framing::RequestFraming;
use crate::record::{Batch, Requests};
use crate::subprocess::protocol::Now;
use crate::sync::{Mutex, lock};
use crate::window::gate::{Gate, Pace};
use crate::window::handover::Arrival;
use crate::window::intake::Intake;
use crate::window::packet::{Outcome, Span};
use crate::window::reading::{Cutter, Progress, Reading, Step};

use super::check::Failure;
use super::reader::{Reader, Told};
use super::rng::{Rng, stir};
use super::schedule::Schedule;
use super::script::{SideInput, second_body};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between two items, the open batch in hand.
    Free,
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
    /// How heavy the heaviest record was.
    pub(super) heaviest: usize,
    intake: Option<Intake>,
    open: Option<Box<Requests>>,
    /// The weight of the batch that is parked.
    parked: usize,
    /// Bytes of batches that were handed over so far, which the gate counts from then on.
    given: usize,
    pace: Pace,
    /// It was told to wait at the gate.
    asleep: bool,
    sending: VecDeque<Arrival>,
    state: State,
    ended: bool,
    rng: Rng,
    /// The input is bytes.
    bytes: Option<InBytes>,
}

/// The intake that reads.
struct InBytes {
    progress: Progress<Reader>,
    told: Arc<Mutex<Told>>,
}

impl std::fmt::Debug for InBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.told.fmt(f)
    }
}

impl InBytes {
    fn new(schedule: &Arc<Schedule>) -> Option<Self> {
        let bytes = schedule.bytes?;
        let reader = Reader::new(schedule, bytes, Rng::new(stir(!schedule.seed)));
        let told = reader.told();
        let reading =
            Reading { delimiter: bytes.delimiter, block: bytes.block, limit: bytes.limit };
        let writing = writing(&schedule.spec, bytes.delimiter);
        Some(Self { progress: Progress::new(Cutter::new(reader, reading), writing), told })
    }
}

impl Source {
    pub(super) fn new(schedule: &Arc<Schedule>, intake: Intake, rng: Rng) -> Self {
        Self {
            pulled: 0,
            heaviest: 0,
            intake: Some(intake),
            open: None,
            parked: 0,
            given: 0,
            pace: Pace::new(),
            asleep: false,
            sending: VecDeque::new(),
            state: State::Free,
            ended: false,
            rng,
            bytes: InBytes::new(schedule),
        }
    }

    /// Whether the reader has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.bytes.as_ref().is_some_and(|bytes| lock(&bytes.told).failed)
    }

    /// When it goes on by itself.
    pub(super) fn wake(&self) -> Option<Now> {
        match self.state {
            State::Inside(until) => until,
            State::Gate => self.deadline(),
            _ => None,
        }
    }

    /// When it asks the gate again, whatever happens.
    fn deadline(&self) -> Option<Now> {
        match &self.bytes {
            Some(bytes) => bytes.progress.deadline(),
            None => self.pace.deadline(),
        }
    }

    /// What it does, for a trace.
    pub(super) fn describe(&self) -> String {
        format!("{:?}, asleep: {}", self.state, self.asleep)
    }

    /// Whether it has pulled all that it may, or will never pull again.
    pub(super) fn has_caught_up(&self, schedule: &Schedule, gate: &Gate) -> bool {
        let may = gate.total_yielded().saturating_add(schedule.window);
        self.ended
            || self.is_blocked_for_ever()
            || gate.is_stopped()
            || self.pulled >= schedule.input.total.unwrap_or(u64::MAX).min(may)
    }

    pub(super) fn is_blocked_for_ever(&self) -> bool {
        self.state == State::Inside(None)
    }

    /// Bytes of batches that were ever handed over, a stolen one among them.
    pub(super) fn given(&self) -> usize {
        let stolen = self.is_parked() && self.parked > 0 && !self.has_batch();
        self.given + if stolen { self.parked } else { 0 }
    }

    fn is_parked(&self) -> bool {
        matches!(self.state, State::Gate | State::Inside(_))
    }

    fn park(&mut self) {
        if let (Some(bytes), Some(intake)) = (&mut self.bytes, &self.intake) {
            self.parked = intake.before_read(&mut bytes.progress);
            return;
        }
        self.parked = self.open.as_ref().map_or(0, |batch| batch.bytes());
        if let Some(intake) = &self.intake {
            intake.park(self.open.take());
        }
    }

    fn has_batch(&self) -> bool {
        self.intake.as_ref().is_some_and(Intake::has_batch)
    }

    fn unpark(&mut self) {
        self.open = self.intake.as_ref().and_then(Intake::unpark);
        if self.open.is_none() {
            self.given += self.parked;
        }
        self.parked = 0;
    }

    /// Goes as far as it can without time passing.
    pub(super) fn go(&mut self, schedule: &Schedule, gate: &Gate, now: Now) -> Result<(), Failure> {
        loop {
            match self.state {
                State::Free => {
                    self.park();
                    self.state = State::Gate;
                }
                State::Gate => {
                    if gate.is_stopped() {
                        self.stop(gate);
                    } else if self.may_pull(gate, now) {
                        self.state = State::Inside(self.next_item(schedule, now));
                    } else {
                        return Ok(());
                    }
                }
                State::Inside(Some(until)) if until <= now && self.bytes.is_some() => {
                    self.read(schedule, gate)?;
                }
                State::Inside(Some(until)) if until <= now => {
                    self.unpark();
                    self.pull(schedule, gate)?;
                    self.state = State::Sending;
                }
                State::Inside(_) => return Ok(()),
                State::Sending => {
                    while let Some(arrival) = self.sending.pop_front() {
                        let Some(intake) = &self.intake else { break };
                        match intake.try_send(arrival) {
                            Ok(()) => {}
                            Err(TrySendError::Full(arrival)) => {
                                self.sending.push_front(arrival);
                                return Ok(());
                            }
                            Err(TrySendError::Disconnected(_)) => break,
                        }
                    }
                    if self.ended {
                        if let Some(intake) = self.intake.take() {
                            intake.close();
                        }
                        self.state = State::Done;
                        return Ok(());
                    }
                    self.state = State::Free;
                }
                State::Done => return Ok(()),
            }
        }
    }

    /// Whether it may pull, be it that it was called or that its deadline has come.
    fn may_pull(&mut self, gate: &Gate, now: Now) -> bool {
        let late = self.deadline().is_some_and(|at| at <= now);
        if self.asleep && gate.puller_sleeps() && !late {
            return false;
        }
        let Some(intake) = &self.intake else { return false };
        let open = || if intake.has_batch() { self.parked } else { 0 };
        let may = match &mut self.bytes {
            Some(bytes) => intake.poll_read(&mut bytes.progress, now),
            None => intake.poll_pull(&mut self.pace, self.pulled, open, now),
        };
        self.asleep = !may;
        may
    }

    fn next_item(&mut self, schedule: &Schedule, now: Now) -> Option<Now> {
        let input = &schedule.input;
        let (blocks, begins) = match &self.bytes {
            Some(bytes) => {
                let told = lock(&bytes.told);
                (told.blocks, told.begins)
            }
            None => (input.blocks_at == Some(self.pulled), true),
        };
        if blocks {
            return None;
        }
        if !begins {
            return Some(now);
        }
        let mut at = now + input.pause * self.rng.below(3) as u32;
        if self.rng.one_in(input.rest_every) {
            at += input.rest;
        }
        Some(at)
    }

    /// The gate is shut for good.
    fn stop(&mut self, gate: &Gate) {
        if let (Some(_), Some(intake)) = (&self.bytes, &self.intake) {
            self.given += self.parked;
            self.parked = 0;
            intake.stop_reading();
        } else {
            self.unpark();
            self.flush(gate);
        }
        self.end();
    }

    /// Reads once.
    fn read(&mut self, schedule: &Schedule, gate: &Gate) -> Result<(), Failure> {
        let (Some(bytes), Some(intake)) = (&mut self.bytes, &self.intake) else { return Ok(()) };
        let stolen = self.parked > 0 && !intake.has_batch();
        self.given += if stolen { self.parked } else { 0 };
        let had = if stolen { 0 } else { self.parked };
        self.parked = 0;
        let held = gate.held();
        lock(&bytes.told).pulled = self.pulled;
        let step = intake.poll_step(&mut bytes.progress);
        // Nobody else counts meanwhile.
        let counted = gate.held() - held;
        self.given += counted;
        self.heaviest = self.heaviest.max(counted + bytes.progress.open() - had);
        self.pulled = bytes.progress.pulled();
        if let Some(wrong) = lock(&bytes.told).wrong.take() {
            return Err(Failure::new(wrong));
        }
        let ahead = self.pulled.saturating_sub(gate.total_yielded());
        if ahead > schedule.window {
            return Err(Failure::new(format!("{ahead} records are under way")));
        }
        if step == Some(Step::Read) {
            self.state = State::Free;
        } else {
            self.end();
        }
        Ok(())
    }

    fn pull(&mut self, schedule: &Schedule, gate: &Gate) -> Result<(), Failure> {
        if schedule.input.total == Some(self.pulled) {
            self.flush(gate);
            self.end();
            return Ok(());
        }
        let k = self.pulled;
        let ahead = k.saturating_sub(gate.total_yielded());
        if ahead >= schedule.window {
            return Err(Failure::new(format!("input {k} was pulled {ahead} ahead")));
        }
        self.pulled += 1;
        let packet = schedule.origin.plus(k);
        if schedule.is_refused(k) {
            self.flush(gate);
            let error = Error::new(ErrorKind::Encode, "refused").at(packet.0);
            let weight = error.weight();
            gate.hold(weight);
            self.given += weight;
            self.heaviest = self.heaviest.max(weight);
            let span = Span { weight, ..Span::one(packet, Outcome::Failed(error)) };
            self.sending.push_back(Arrival::Settled(span));
            return Ok(());
        }
        let columns = columns(schedule);
        let open = self.open.get_or_insert_with(|| {
            let mut batch = Box::new(Requests::new(columns));
            batch.begin(packet);
            batch
        });
        let weight = open.bytes();
        write_request(schedule, k, open);
        self.heaviest = self.heaviest.max(open.bytes() - weight);
        if open.len() >= schedule.input.batch {
            self.flush(gate);
        }
        Ok(())
    }

    fn flush(&mut self, gate: &Gate) {
        if let Some(batch) = self.open.take() {
            gate.hold(batch.bytes());
            self.given += batch.bytes();
            self.sending.push_back(Arrival::Batch(batch));
        }
    }

    fn end(&mut self) {
        let error = self.bytes.as_mut().and_then(|bytes| bytes.progress.take_error());
        self.sending.push_back(Arrival::End { pulled: self.pulled, panic: None, error });
        self.ended = true;
        self.state = State::Sending;
    }
}

fn columns(schedule: &Schedule) -> usize {
    1 + schedule.spec.side_input_names().len()
}

/// Appends request `k`.
fn write_request(schedule: &Schedule, k: u64, open: &mut Requests) {
    let body = schedule.body(k);
    write(&schedule.spec.requests, &mut open.columns[0].bytes, &body);
    if let Some(sentinel) = schedule.spec.replies.as_sentinel() {
        sentinel.append(schedule.origin.plus(k).0, &mut open.columns[0].bytes);
    }
    if let Some(side) = schedule.spec.channels.side_inputs.first() {
        let alone = schedule.manners.ends.side_input == SideInput::Alone;
        let part = if alone { body } else { second_body(k) };
        write(&side.framing, &mut open.columns[1].bytes, &part);
    }
    for column in &mut open.columns {
        column.push_end();
    }
}

/// How many bytes request `k` has, on all inputs.
pub(super) fn request_bytes(schedule: &Schedule, k: u64) -> usize {
    let mut requests = Requests::new(columns(schedule));
    write_request(schedule, k, &mut requests);
    requests.bytes()
}

fn write(framing: &RequestFraming, out: &mut Vec<u8>, body: &[u8]) {
    let start = out.len();
    framing.open(out);
    out.extend_from_slice(body);
    let framed = framing.close(out, start);
    debug_assert!(framed.is_ok());
}
