//! The intake of bytes: it reads, and hands whole blocks of records over.
//!
//! A reader is not asked for records. What one read gives is cut behind its last delimiter, in the buffer that
//! goes to the pipe: the records before that are counted and travel as they are, and what is left of the last one
//! is copied to the front of the next buffer. So a record costs no call, and only the half record at the end of each
//! read is moved. A block is what one read gave; nothing waits for it to fill.
//!
//! Where requests are written otherwise than the reader's records (another delimiter, a length in front, a sync command
//! behind), each record goes through the [`Scribe`], as if an iterator had given it.
//!
//! # Invariants
//! 1. `work[..filled]` is what has been read and belongs to no record that is whole; the rest is room.
//! 2. Records that are whole and may not be handed over yet are the stock's. It is empty before the next read.
//! 3. Nothing is read after the end or an error.

use std::io::{ErrorKind as Io, Read};
use std::mem;

use memchr::{memchr, memrchr};

use crate::error::{Error, ErrorKind};
use crate::record::{Batch, PacketId, Requests};
use crate::template::codec::AsBytes;
use crate::tuning::{BATCH_BYTES, BATCH_RECORDS, HALF_A_RECORD};
use crate::window::delimiters::nth_end;
use crate::window::gate::Pace;
use crate::window::handover::Arrival;
use crate::window::intake::{End, Intake};
use crate::window::packet::{Outcome, Span};
use crate::window::packing::Scribe;
use crate::window::unwind;

/// How records are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// The byte that ends each record.
    pub(crate) delimiter: u8,
    /// How much is read at a time.
    pub(crate) block: usize,
    /// The longest record, its delimiter not counted.
    pub(crate) limit: usize,
}

/// Whole records that were read, and wait until they may be handed over.
#[derive(Debug, Default)]
struct Stock {
    bytes: Vec<u8>,
    at: usize,
    end: usize,
}

/// Cuts what it reads into blocks. See the [module](self).
#[derive(Debug)]
pub(crate) struct Cutter<R> {
    reader: R,
    reading: Reading,
    work: Vec<u8>,
    filled: usize,
    stock: Stock,
    /// A record that is too long is being passed over: so many bytes of it so far.
    passing: Option<u64>,
    ended: Option<Option<Error>>,
}

/// What a cutter has found.
#[derive(Debug)]
pub(super) enum Piece {
    /// The batch holds whole records.
    Records,
    /// Nothing that is whole; it may be asked again.
    Nothing,
    /// A record that is longer than may be stands here.
    TooLong(Error),
    /// Nothing more, and what the reader failed with.
    End(Option<Error>),
}

impl<R: Read> Cutter<R> {
    pub(crate) fn new(reader: R, reading: Reading) -> Self {
        Self {
            reader,
            reading,
            work: Vec::new(),
            filled: 0,
            stock: Stock::default(),
            passing: None,
            ended: None,
        }
    }

    /// How many bytes it has in hand that are no whole record.
    fn weight(&self) -> usize {
        self.filled
    }

    /// The next piece: up to `most` records into an empty batch. Reads once at most.
    pub(super) fn next(&mut self, batch: &mut Requests, most: u64) -> Piece {
        if self.stock.at < self.stock.end {
            return self.take_from_stock(batch, most);
        }
        if let Some(error) = &mut self.ended {
            return Piece::End(error.take());
        }
        let Reading { delimiter, block, .. } = self.reading;
        let wanted = block + self.filled;
        if self.work.len() - self.filled < (block / 2).max(1) {
            // By doubling, so that a record of many blocks is not copied for each of them.
            let twice = if self.filled > block { self.work.len() * 2 } else { 0 };
            let len = twice.max(wanted + HALF_A_RECORD);
            self.work.resize(len, 0);
        }
        let room = self.work.len().min(wanted);
        let n = match self.reader.read(&mut self.work[self.filled..room]) {
            Ok(0) => return self.end(batch, most),
            Ok(n) => n,
            Err(error) if error.kind() == Io::Interrupted => return Piece::Nothing,
            Err(error) => return self.fail(error),
        };
        let fresh = self.filled..self.filled + n;
        if let Some(passed) = self.passing {
            let Some(at) = memchr(delimiter, &self.work[..n]) else {
                self.passing = Some(passed + n as u64);
                return Piece::Nothing;
            };
            self.passing = None;
            self.stock_whole(at + 1, n);
            return Piece::TooLong(self.too_long(passed + at as u64));
        }
        let Some(last) = memrchr(delimiter, &self.work[fresh.clone()]) else {
            self.filled = fresh.end;
            if self.filled > self.reading.limit {
                self.passing = Some(mem::take(&mut self.filled) as u64);
                self.work = Vec::new();
            }
            return Piece::Nothing;
        };
        self.fill(fresh.start + last + 1, fresh.end, batch, most)
    }

    /// `work[..whole]` are whole records, and `work[whole..filled]` is the beginning of one.
    fn fill(&mut self, whole: usize, filled: usize, batch: &mut Requests, most: u64) -> Piece {
        if whole > self.reading.limit {
            // One of them may be too long.
            self.stock_whole(0, filled);
            return self.take_from_stock(batch, most);
        }
        // The buffers change hands, and what is left of the last record begins the next one.
        let column = &mut batch.columns[0];
        let mut next = mem::take(&mut column.bytes);
        let rest = filled - whole;
        if next.len() < rest {
            next.resize(rest + self.reading.block + HALF_A_RECORD, 0);
        }
        next[..rest].copy_from_slice(&self.work[whole..filled]);
        self.filled = rest;
        column.bytes = mem::replace(&mut self.work, next);
        column.count_to(whole);
        if column.len() as u64 > most {
            let keep = column.start(most as usize);
            let stock = &mut self.stock;
            stock.bytes.clear();
            stock.bytes.extend_from_slice(&column.bytes[keep..whole]);
            (stock.at, stock.end) = (0, whole - keep);
            batch.truncate(most as usize);
        }
        Piece::Records
    }

    /// Sets the whole records in `work[from..filled]` aside; what stands behind them begins the next one.
    fn stock_whole(&mut self, from: usize, filled: usize) {
        let bytes = &self.work[from..filled];
        let whole = memrchr(self.reading.delimiter, bytes).map_or(0, |at| at + 1);
        self.stock.bytes.clear();
        self.stock.bytes.extend_from_slice(&bytes[..whole]);
        (self.stock.at, self.stock.end) = (0, whole);
        self.work.copy_within(from + whole..filled, 0);
        self.filled = filled - from - whole;
    }

    fn take_from_stock(&mut self, batch: &mut Requests, most: u64) -> Piece {
        let Reading { delimiter, limit, .. } = self.reading;
        let rest = &self.stock.bytes[self.stock.at..self.stock.end];
        let len = if rest.len() <= limit {
            nth_end(rest, delimiter, most)
        } else {
            // Each must be looked at.
            let (mut len, mut count) = (0, 0);
            while len < rest.len() && count < most {
                let record = nth_end(&rest[len..], delimiter, 1);
                if record - 1 > limit {
                    if len == 0 {
                        self.stock.at += record;
                        return Piece::TooLong(self.too_long(record as u64 - 1));
                    }
                    break;
                }
                len += record;
                count += 1;
            }
            len
        };
        let column = &mut batch.columns[0];
        column.bytes.clear();
        column.bytes.extend_from_slice(&rest[..len]);
        self.stock.at += len;
        column.count_to(len);
        Piece::Records
    }

    /// The reader has no more: what it has left without a delimiter is a record too.
    fn end(&mut self, batch: &mut Requests, most: u64) -> Piece {
        self.ended = Some(None);
        if let Some(passed) = self.passing.take() {
            return Piece::TooLong(self.too_long(passed));
        }
        match mem::take(&mut self.filled) {
            0 => Piece::End(None),
            len => {
                // There was room, or nothing could have been read.
                self.work[len] = self.reading.delimiter;
                self.fill(len + 1, len + 1, batch, most)
            }
        }
    }

    #[cold]
    fn fail(&mut self, error: std::io::Error) -> Piece {
        self.ended = Some(None);
        let half = mem::take(&mut self.filled) as u64 + self.passing.take().unwrap_or(0);
        let mut message = "the input cannot be read any further".to_owned();
        if half > 0 {
            message.push_str(&format!("; {half} bytes of a record that is not whole were dropped"));
        }
        Piece::End(Some(Error::new(ErrorKind::Source, message).because(error)))
    }

    #[cold]
    fn too_long(&self, len: u64) -> Error {
        let limit = self.reading.limit;
        let message = format!("the record has {len} bytes, and {limit} are allowed");
        Error::new(ErrorKind::Encode, message)
            .hint("see record_limit, and whether the delimiter is right")
    }
}

/// How records become requests.
#[derive(Debug)]
pub(crate) enum Writing {
    /// They are requests as they stand.
    Whole,
    /// Each is written by itself.
    Each(Scribe),
}

/// Where the intake is, for a panic.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Ours,
    Reader,
}

/// A reading intake between two reads.
///
/// The open batch is [set aside](Intake::set_aside) in the slot whenever the intake waits or reads, so that the executor
/// can have it.
pub(crate) struct Progress<R> {
    cutter: Cutter<R>,
    writing: Writing,
    pace: Pace,
    pulled: u64,
    open: Option<Box<Requests>>,
    /// The bytes of the one that was set aside.
    aside: usize,
    fresh: Option<Box<Requests>>,
    within: Within,
    error: Option<Error>,
}

impl<R: Read> Progress<R> {
    pub(crate) fn new(cutter: Cutter<R>, writing: Writing) -> Self {
        Self {
            cutter,
            writing,
            pace: Pace::new(),
            pulled: 0,
            open: None,
            aside: 0,
            fresh: None,
            within: Within::Ours,
            error: None,
        }
    }
}

/// What one read has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Read,
    /// The reader has nothing more.
    Ended,
}

impl Intake {
    /// Reads to the end, or until the gate stops it. Runs on a thread of its own.
    pub(crate) fn read<R: Read>(self, cutter: Cutter<R>, writing: Writing) {
        self.gate().enter();
        let mut progress = Progress::new(cutter, writing);
        let ended = unwind::catch(|| self.pull_blocks(&mut progress)).unwrap_or_else(|payload| {
            if progress.within == Within::Reader {
                // The open batch is parked meanwhile.
                self.flush(self.handover.slot().unpark())?;
            }
            Err(End(Some(payload)))
        });
        let Progress { pulled, error, cutter, .. } = progress;
        let panic = ended.err().and_then(|End(payload)| payload);
        let _ = self.send(Arrival::End { pulled, panic, error });
        self.gate().wake_executor();
        // A panic in the reader's own `Drop` has nowhere to go.
        let _ = unwind::catch(move || drop(cutter));
    }

    fn pull_blocks<R: Read>(&self, progress: &mut Progress<R>) -> Result<(), End> {
        let gate = self.gate();
        loop {
            self.set_aside(progress);
            if !self.may_read_at(progress) {
                let Progress { pace, pulled, aside, cutter, .. } = progress;
                gate.wait_to_pull(pace, *pulled, || self.unread(cutter, *aside));
            }
            if gate.is_stopped() {
                return self.flush(self.handover.slot().unpark());
            }
            if self.read_once(progress)? == Step::Ended {
                return Ok(());
            }
        }
    }

    /// About to wait, or to read: the executor can have the open batch.
    fn set_aside<R>(&self, progress: &mut Progress<R>) {
        let open = progress.open.take();
        progress.aside = open.as_ref().map_or(0, |open| open.bytes());
        let some = open.is_some();
        self.handover.slot().park(open);
        if some {
            self.handover.feed();
        }
    }

    /// Whether it may read, as far as it knows.
    fn may_read_at<R: Read>(&self, progress: &Progress<R>) -> bool {
        let Progress { pace, pulled, aside, cutter, .. } = progress;
        self.gate().may_pull_at(pace, *pulled, aside + cutter.weight())
    }

    /// The bytes that were read and are not counted at the gate.
    fn unread<R: Read>(&self, cutter: &Cutter<R>, aside: usize) -> usize {
        cutter.weight() + if self.handover.slot().has_batch() { aside } else { 0 }
    }

    /// Reads once, and hands over what is enough.
    fn read_once<R: Read>(&self, progress: &mut Progress<R>) -> Result<Step, End> {
        let Progress { cutter, writing, pace, pulled, open, fresh, within, error, .. } = progress;
        let Reading { delimiter, block, .. } = cutter.reading;
        let empty = || Requests::counted(delimiter);
        let batch = fresh.get_or_insert_with(|| match writing {
            Writing::Whole => self.handover.spare(empty),
            Writing::Each(_) => Box::new(empty()),
        });
        *within = Within::Reader;
        let piece = cutter.next(batch, pace.credits_after(*pulled));
        *within = Within::Ours;
        *open = self.handover.slot().unpark();
        let packet = self.first.plus(*pulled);
        match piece {
            Piece::Nothing => {}
            Piece::End(failure) => {
                *error = failure;
                self.flush(open.take())?;
                return Ok(Step::Ended);
            }
            Piece::TooLong(failure) => {
                *pulled += 1;
                self.flush(open.take())?;
                self.refuse(packet, failure)?;
            }
            Piece::Records => {
                *pulled += batch.len() as u64;
                match writing {
                    Writing::Whole => {
                        let Some(mut batch) = fresh.take() else { return Ok(Step::Read) };
                        batch.begin(packet);
                        match open {
                            // Short reads: as long as nobody takes what they gave, it grows.
                            Some(open) if open.bytes() + batch.bytes() <= block => {
                                open.append(&mut batch);
                                *fresh = Some(batch);
                            }
                            Some(_) => self.flush(open.replace(batch))?,
                            None => *open = Some(batch),
                        }
                    }
                    Writing::Each(scribe) => {
                        self.write_each(scribe, batch, packet, open)?;
                        batch.clear();
                    }
                }
                if open.as_ref().is_some_and(|open| open.bytes() >= block / 2) {
                    self.flush(open.take())?;
                }
            }
        }
        Ok(Step::Read)
    }

    /// Writes each of these records as a request.
    fn write_each(
        &self,
        scribe: &Scribe,
        records: &Requests,
        first: PacketId,
        open: &mut Option<Box<Requests>>,
    ) -> Result<(), End> {
        for i in 0..records.len() {
            let packet = first.plus(i as u64);
            let batch = open.get_or_insert_with(|| {
                self.handover.spare(|| Requests::new(scribe.framings.len()))
            });
            if batch.len() == 0 {
                batch.begin(packet);
            }
            let record = records.request(i);
            let record = &record[..record.len() - 1];
            if let Err(error) = scribe.write(&mut AsBytes, &record, packet, batch) {
                batch.truncate(packet.since(batch.first()) as usize);
                self.flush(open.take())?;
                self.refuse(packet, error)?;
            } else if batch.bytes() >= BATCH_BYTES || batch.len() >= BATCH_RECORDS {
                self.flush(open.take())?;
            }
        }
        Ok(())
    }

    /// The record of this packet becomes no request.
    fn refuse(&self, packet: PacketId, error: Error) -> Result<(), End> {
        let weight = error.weight();
        self.gate().hold(weight);
        let failed = Outcome::Failed(error.at(packet.0));
        self.settle(Span { weight, ..Span::one(packet, failed) })
    }
}

/// The steps of [`read`](Intake::read), for an intake that has no thread and waits for nothing.
#[cfg(test)]
impl Intake {
    /// About to wait, or to read. How many bytes the executor can have.
    pub(crate) fn before_read<R>(&self, progress: &mut Progress<R>) -> usize {
        self.set_aside(progress);
        progress.aside
    }

    /// Whether it may read; if not, it sleeps until the gate calls it or the [deadline](Progress::deadline) has come.
    pub(crate) fn poll_read<R: Read>(
        &self,
        progress: &mut Progress<R>,
        now: std::time::Duration,
    ) -> bool {
        if self.may_read_at(progress) {
            return true;
        }
        let Progress { pace, pulled, aside, cutter, .. } = progress;
        self.gate().poll_pull(pace, *pulled, || self.unread(cutter, *aside), || now)
    }

    /// Reads once.
    pub(crate) fn poll_step<R: Read>(&self, progress: &mut Progress<R>) -> Option<Step> {
        self.read_once(progress).ok()
    }

    /// The gate has stopped it.
    pub(crate) fn stop_reading(&self) {
        let _ = self.flush(self.handover.slot().unpark());
    }
}

#[cfg(test)]
impl<R> Progress<R> {
    pub(crate) fn pulled(&self) -> u64 {
        self.pulled
    }

    /// The bytes of the open batch, which is not set aside.
    pub(crate) fn open(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.bytes())
    }

    pub(crate) fn deadline(&self) -> Option<std::time::Duration> {
        self.pace.deadline()
    }

    pub(crate) fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }
}
