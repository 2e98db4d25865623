//! A reader of bytes, where the input is read in blocks: it gives arbitrary pieces, is interrupted, errs in the middle,
//! blocks for ever, and ends with or without a delimiter.

use std::io::{self, Read};
use std::sync::Arc;

use crate::sync::{Mutex, MutexGuard, lock};

use super::rng::Rng;
use super::schedule::Schedule;

/// How the input is read, and what is wrong with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes {
    pub(super) delimiter: u8,
    /// How much is asked for at a time.
    pub(super) block: usize,
    /// The longest record that is allowed.
    pub(super) limit: usize,
    /// The most that one read gives.
    pub(super) piece: usize,
    /// The last record has no delimiter.
    pub(super) unended: bool,
    /// At this record, with so many bytes of it given, the reader fails.
    pub(super) fails_at: Option<(u64, usize)>,
    /// So many bytes of the record at which the source blocks are given.
    pub(super) blocks_within: usize,
}

/// What is known of a reader from outside.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Records that were given whole, with their delimiter, and those that the intake says it has pulled.
    whole: u64,
    pub(super) pulled: u64,
    /// Its next read blocks for ever; or begins a record.
    pub(super) blocks: bool,
    pub(super) begins: bool,
    pub(super) failed: bool,
    ended: bool,
    /// What the intake has done that it must not do.
    pub(super) wrong: Option<String>,
}

#[derive(Debug)]
pub(super) struct Reader {
    schedule: Arc<Schedule>,
    bytes: Bytes,
    told: Arc<Mutex<Told>>,
    /// The record of which the next byte is, and its text with as much of it as was given.
    record: u64,
    text: Vec<u8>,
    given: usize,
    rng: Rng,
}

/// What its next byte is.
enum Ahead {
    Bytes(usize),
    Failure,
    Nothing,
    End,
}

impl Reader {
    pub(super) fn new(schedule: &Arc<Schedule>, bytes: Bytes, rng: Rng) -> Self {
        let mut reader = Self {
            schedule: Arc::clone(schedule),
            bytes,
            told: Arc::default(),
            record: 0,
            text: Vec::new(),
            given: 0,
            rng,
        };
        reader.begin();
        drop(reader.look());
        reader
    }

    pub(super) fn told(&self) -> Arc<Mutex<Told>> {
        Arc::clone(&self.told)
    }

    /// Records that it will ever give whole.
    fn is_last(&self) -> bool {
        self.schedule.input.total == Some(self.record + 1) && self.bytes.fails_at.is_none()
    }

    fn has_given_all(&self) -> bool {
        self.schedule.input.total == Some(self.record) && self.bytes.fails_at.is_none()
    }

    /// Where a record begins.
    fn begin(&mut self) {
        (self.text, self.given) = (Vec::new(), 0);
        if !self.has_given_all() {
            self.text = self.schedule.text(self.record);
            if !(self.bytes.unended && self.is_last()) {
                self.text.push(self.bytes.delimiter);
            }
        }
    }

    fn ahead(&self) -> Ahead {
        // The record at which it fails, or blocks, is never given whole.
        let within = |most: usize| most.min(self.text.len().saturating_sub(1));
        let failure = self.bytes.fails_at.filter(|(k, _)| *k == self.record);
        let failure = failure.map(|(_, most)| within(most));
        let block = (self.schedule.input.blocks_at == Some(self.record))
            .then(|| within(self.bytes.blocks_within));
        let stop = failure.into_iter().chain(block).min().unwrap_or(self.text.len());
        if self.given < stop {
            Ahead::Bytes(stop - self.given)
        } else if block == Some(stop) {
            Ahead::Nothing
        } else if failure == Some(stop) {
            Ahead::Failure
        } else {
            Ahead::End
        }
    }

    fn look(&self) -> MutexGuard<'_, Told> {
        let mut told = lock(&self.told);
        told.blocks = matches!(self.ahead(), Ahead::Nothing);
        told.begins = self.given == 0;
        told
    }

    fn check(&self, room: usize) {
        let mut told = lock(&self.told);
        let wrong = if room == 0 {
            "it reads into no room, and would take that for the end".to_owned()
        } else if told.ended {
            "it reads behind the end".to_owned()
        } else if told.blocks {
            "it reads what blocks for ever".to_owned()
        } else if told.whole != told.pulled {
            format!("it reads on, with {} whole records and {} pulled", told.whole, told.pulled)
        } else {
            return;
        };
        told.wrong.get_or_insert(wrong);
    }
}

impl Read for Reader {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.check(room.len());
        if self.rng.one_in(8) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let most = room.len().min(self.rng.range(1, self.bytes.piece as u64) as usize);
        let mut n = 0;
        while n < most {
            match self.ahead() {
                Ahead::Bytes(here) => {
                    let here = here.min(most - n);
                    room[n..n + here].copy_from_slice(&self.text[self.given..self.given + here]);
                    n += here;
                    self.given += here;
                    if self.given == self.text.len() {
                        let whole = self.text.last() == Some(&self.bytes.delimiter);
                        lock(&self.told).whole += u64::from(whole);
                        self.record += 1;
                        self.begin();
                    }
                }
                Ahead::Failure if n == 0 => {
                    let mut told = self.look();
                    (told.failed, told.ended) = (true, true);
                    return Err(io::Error::other("simulated: it cannot be read"));
                }
                _ => break,
            }
        }
        self.look().ended = n == 0;
        Ok(n)
    }
}
