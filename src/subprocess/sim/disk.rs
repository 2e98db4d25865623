//! The job log, with a disk that is slow, or full from some byte on, and what must stand in it: one line for each packet
//! of which it is known what became, as the documentation of `job_log` has it.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use crate::subprocess::protocol::Now;
use crate::watch::LogWriter;

use super::check::{Became, Failure, Oracle, must};
use super::rng::Rng;
use super::schedule::Schedule;
use super::source::request_bytes;
use super::worker::Child;

/// How a log is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Log {
    /// Bytes that may wait to be written.
    pub(super) room: usize,
    /// The longest that a write takes.
    pub(super) slow: Duration,
    /// From this byte on nothing can be written.
    pub(super) full_at: Option<usize>,
}

impl Log {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let ms = Duration::from_millis(1);
        Self {
            room: rng.pick(&[1, 100, 1_000, 1 << 20, 1 << 20]),
            slow: rng.pick(&[Duration::ZERO, ms / 100, 5 * ms, 400 * ms, 9_000 * ms]),
            full_at: rng.one_in(10).then(|| rng.skewed(2_000) as usize),
        }
    }
}

/// The thread of the log, and the file.
#[derive(Debug)]
pub(super) struct Disk {
    log: Log,
    writer: LogWriter,
    /// What it is writing, and until when.
    batch: Vec<u8>,
    until: Option<Now>,
    text: Vec<u8>,
    ended: bool,
    failed: bool,
    rng: Rng,
}

/// One line.
struct Line {
    start: f64,
    lasted: f64,
    worker: Option<usize>,
    answered: bool,
}

const COLUMNS: usize = 10;

/// Times of day are written in milliseconds.
const ROUNDED: f64 = 0.001_1;

impl Disk {
    pub(super) fn new(log: Log, writer: LogWriter, rng: Rng) -> Self {
        let (batch, text) = Default::default();
        Self { log, writer, batch, until: None, text, ended: false, failed: false, rng }
    }

    /// When it has written.
    pub(super) fn wake(&self) -> Option<Now> {
        self.until
    }

    /// Writing has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Does what can be done by now. Says whether the event loop is called.
    pub(super) fn act(&mut self, now: Now) -> bool {
        let mut calls = false;
        while !self.ended {
            match self.until {
                Some(until) if until > now => break,
                Some(_) => {
                    self.until = None;
                    let batch = std::mem::take(&mut self.batch);
                    let room = self.log.full_at.map_or(usize::MAX, |at| at - self.text.len());
                    self.text.extend_from_slice(&batch[..room.min(batch.len())]);
                    if batch.len() > room {
                        self.writer.has_failed(io::Error::from_raw_os_error(28));
                        self.failed = true;
                        self.end();
                        calls = true;
                    } else {
                        calls |= self.writer.has_written(batch.len());
                    }
                }
                None => {
                    self.batch = self.writer.take();
                    if !self.batch.is_empty() {
                        self.until = Some(now + self.log.slow * self.rng.below(5) as u32 / 4);
                    } else if self.writer.is_closed() {
                        self.end();
                        calls = true;
                    } else {
                        break;
                    }
                }
            }
        }
        calls
    }

    fn end(&mut self) {
        self.ended = true;
        self.writer.has_ended();
    }

    /// What stands in the file is as it should be. `whole` says that the feed has come to its own end.
    pub(super) fn check(
        &self,
        schedule: &Schedule,
        oracle: &Oracle,
        children: &[Child],
        whole: bool,
        at: Now,
    ) -> Result<(), Failure> {
        let text = String::from_utf8_lossy(&self.text);
        let all = whole && !self.failed;
        must!(self.ended || !whole, "the log is not written to its end");
        must!(!all || text.ends_with('\n'), "the log ends within a line: {text:?}");
        let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
        lines.pop_if(|line| !line.ends_with('\n'));
        let mut workers: HashMap<usize, Line> = HashMap::new();
        let mut seen = HashMap::new();
        for (i, line) in lines.iter().enumerate() {
            let fields: Vec<&str> = line.trim_end_matches('\n').split('\t').collect();
            must!(fields.len() == COLUMNS, "{line:?} has {} columns", fields.len());
            must!((i == 0) == (fields[0] == "Seq"), "the header is not the first line: {line:?}");
            if i == 0 {
                continue;
            }
            let packet: u64 = number(fields[0])?;
            let k = packet.wrapping_sub(schedule.origin.0);
            must!(seen.insert(k, ()).is_none(), "two lines are about record {k}");
            let line = Line {
                start: number(fields[2])?,
                lasted: number(fields[3])?,
                worker: fields[8].parse().ok(),
                answered: fields[6] == "0" && fields[7] == "0",
            };
            let end = line.start + line.lasted;
            must!(
                line.start >= 0.0 && line.lasted >= 0.0 && end <= at.as_secs_f64() + ROUNDED,
                "{fields:?} is not before {at:?}"
            );
            if let Some(worker) = line.worker {
                if let Some(before) = workers.get(&worker).filter(|_| line.answered) {
                    let free = before.start + before.lasted;
                    let overlaps = line.start + ROUNDED < free;
                    must!(!overlaps, "worker {worker} was at {fields:?} before {free}");
                }
                workers.insert(worker, line);
            }
            match oracle.became.get(&k) {
                Some(became) => is_told(schedule, k, became, &fields, children)?,
                // What came behind a drop, or waits for the consumer.
                None => must!(!whole, "there is a line about record {k}, and no item: {fields:?}"),
            }
        }
        if all {
            for (k, became) in &oracle.became {
                let told = seen.contains_key(k);
                let fine = match became {
                    Became::Answered { .. } | Became::Failed { .. } => told,
                    // It may have taken the place of a last reply.
                    Became::Halted | Became::Fatal => !told || schedule.most.is_some(),
                };
                must!(fine, "record {k} became {became:?}, and there is a line: {told}");
            }
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr>(field: &str) -> Result<T, Failure> {
    field.parse().map_err(|_| Failure::new(format!("{field:?} is no number")))
}

/// Whether a line says what became of its record.
fn is_told(
    schedule: &Schedule,
    k: u64,
    became: &Became,
    fields: &[&str],
    children: &[Child],
) -> Result<(), Failure> {
    let (host, sent, received, exit, signal, worker, attempts) = (
        fields[1],
        number::<usize>(fields[4])?,
        number::<usize>(fields[5])?,
        number::<i32>(fields[6])?,
        number::<i32>(fields[7])?,
        fields[8].parse::<usize>().ok(),
        number::<u32>(fields[9])?,
    );
    let refused = schedule.is_refused(k);
    let bytes = if refused { 0 } else { request_bytes(schedule, k) };
    must!(sent == bytes, "{bytes} bytes of record {k} were sent: {fields:?}");
    let fine = match became {
        Became::Answered { pid, bytes, host: from } => {
            let slot = pid.and_then(|pid| children.get(pid as usize)).map(|child| child.slot);
            (exit, signal, received) == (0, 0, *bytes)
                && worker == slot
                && host == from.as_deref().unwrap_or(":")
                && (1..=1 + schedule.spec.policy.retries).contains(&attempts)
        }
        Became::Failed { status, worker: by, attempts: tried, host: on } => {
            (exit, signal) != (0, 0)
                && received == 0
                && (signal == 0 || Some(signal) == status.map(|status| status & 0x7f))
                && (exit <= 0 || Some(exit) == status.map(|status| status >> 8))
                && worker == *by
                && attempts == (*tried).max(1)
                && host == on.as_deref().unwrap_or(":")
        }
        Became::Fatal | Became::Halted => schedule.most.is_some(),
    };
    must!(fine, "record {k} became {became:?}, and its line is {fields:?}");
    Ok(())
}
