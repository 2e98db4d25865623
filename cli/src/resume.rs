//! `--checkpoint FILE`: what was written is counted, and another run goes on behind it.

use std::io::{BufRead, BufReader, Read};

use anyhow::{Context, bail};
use subfeed::checkpoint::Checkpoint;

use crate::options::Run;

/// A checkpoint, if there is to be one.
#[derive(Debug)]
pub(crate) struct Resume(Option<Checkpoint>);

/// The input behind what was done.
pub(crate) enum Rest<R> {
    Whole(R),
    Behind(BufReader<R>),
}

impl Resume {
    pub(crate) fn open(run: &Run) -> anyhow::Result<Self> {
        let Some(path) = &run.checkpoint else { return Ok(Self(None)) };
        // Another command, or another way to read its input and output, is another run.
        let key = format!(
            "{:?} {:?} {:?} {:?} {}",
            run.command, run.null, run.requests, run.replies, run.header
        );
        Ok(Self(Some(Checkpoint::open(path, key)?)))
    }

    /// How many records are done.
    pub(crate) fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, Checkpoint::count)
    }

    /// Passes over the records that are done.
    pub(crate) fn skip<R: Read>(&self, input: R, delimiter: u8) -> anyhow::Result<Rest<R>> {
        let count = self.count();
        if count == 0 {
            return Ok(Rest::Whole(input));
        }
        let mut input = BufReader::with_capacity(64 << 10, input);
        for done in 0..count {
            if input.skip_until(delimiter).context("the input cannot be read")? == 0 {
                bail!(
                    "the checkpoint counts {count} records, and the input has {done}: it is of another input"
                );
            }
        }
        Ok(Rest::Behind(input))
    }

    /// So many more records are written.
    pub(crate) fn done(&mut self, records: u64) -> anyhow::Result<()> {
        match &mut self.0 {
            Some(checkpoint) => Ok(checkpoint.acknowledge(records)?),
            None => Ok(()),
        }
    }

    /// Writes down what is not.
    pub(crate) fn settle(&mut self) -> anyhow::Result<()> {
        match &mut self.0 {
            Some(checkpoint) => Ok(checkpoint.settle()?),
            None => Ok(()),
        }
    }
}

impl<R: Read> Read for Rest<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Whole(input) => input.read(into),
            Self::Behind(input) => input.read(into),
        }
    }
}
