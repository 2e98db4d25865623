//! `--checkpoint FILE`: which records are answered and written, so that another run does the others.
//!
//! A checkpoint's positions are those of the records in the input, and the header's before them. A record that failed is a
//! gap: the next run feeds the records of all gaps first, and then what comes behind the last that was answered. So the
//! packet ids of a run, which go up by one, are a record's number only from there on: [`Numbers`] tells of the others.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::sync::Arc;

use subfeed::checkpoint::Checkpoint;

use crate::messages::Messages;
use crate::options::Run;
use crate::streams::Stream;

/// A checkpoint, if there is to be one.
#[derive(Debug)]
pub(crate) struct Resume {
    checkpoint: Option<Checkpoint>,
    /// Positions before that of the first record.
    before: u64,
    numbers: Numbers,
    /// A run before this one may have been killed while it wrote: the byte that ends each answer, until something is written.
    end: Option<u8>,
}

/// The number of each record, counted from 1, by its packet id.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    /// Records that are tried again: the packet id of the first, and their numbers.
    again: Arc<[(u64, Range<u64>)]>,
    /// From here on a packet id is a number.
    next: u64,
}

impl Numbers {
    /// Of gaps among the numbers below `next`.
    fn of(gaps: Vec<Range<u64>>, next: u64) -> Self {
        let count: u64 = gaps.iter().map(|gap| gap.end - gap.start).sum();
        let mut first = next - count;
        let again = gaps.into_iter().map(|gap| {
            let id = first;
            first += gap.end - gap.start;
            (id, gap)
        });
        Self { again: again.collect(), next }
    }

    pub(crate) fn first(&self) -> u64 {
        self.again.first().map_or(self.next, |(id, _)| *id)
    }

    pub(crate) fn number(&self, id: u64) -> u64 {
        if id >= self.next {
            return id;
        }
        let at = self.again.partition_point(|(first, _)| *first <= id);
        let gap = at.checked_sub(1).and_then(|at| self.again.get(at));
        gap.map_or(id, |(first, gap)| gap.start + (id - first))
    }

    /// The numbers of consecutive packet ids, as ranges.
    fn ranges(&self, ids: Range<u64>) -> Vec<Range<u64>> {
        let mut ranges = Vec::new();
        for (first, gap) in self.again.iter() {
            let start = ids.start.max(*first);
            let end = ids.end.min(first + (gap.end - gap.start));
            if start < end {
                ranges.push(gap.start + (start - first)..gap.start + (end - first));
            }
        }
        let behind = ids.start.max(self.next)..ids.end;
        ranges.extend((!behind.is_empty()).then_some(behind));
        ranges
    }
}

impl Resume {
    pub(crate) fn open(run: &Run) -> anyhow::Result<Self> {
        let before = u64::from(run.header > 0);
        let Some(path) = &run.checkpoint else {
            let numbers = Numbers::of(Vec::new(), 1);
            return Ok(Self { checkpoint: None, before, numbers, end: None });
        };
        // Another command, or another way to read its input and output, is another run.
        let key = format!(
            "{:?} {:?} {:?} {:?} {}",
            run.command,
            run.null,
            run.requests,
            run.replies.as_ref().map(|replies| &replies.text),
            run.header
        );
        let end = run.end_of_answers().filter(|_| path.exists());
        let checkpoint = Checkpoint::open(path, key)?;
        let number = |position: u64| position - before + 1;
        let gaps = checkpoint.gaps().map(|gap| number(gap.start)..number(gap.end)).collect();
        let numbers = Numbers::of(gaps, number(checkpoint.count().max(before)));
        Ok(Self { checkpoint: Some(checkpoint), before, numbers, end })
    }

    /// Before something is written: ends what a run that was killed has not ended, or an answer would be a part of its line.
    pub(crate) fn end_of_line(&mut self, out: &mut Stream, messages: &Messages) -> io::Result<()> {
        let Some(end) = self.end.take() else { return Ok(()) };
        if out.byte_before().is_none_or(|last| last == end) {
            return Ok(());
        }
        out.write_all(&[end])?;
        messages.say(
            "the last line of the output is incomplete: it is ended here, and the answer is written again below",
        );
        Ok(())
    }

    /// The numbers of the records that this run feeds.
    pub(crate) fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// Whether a run before this one has written what came of the header.
    pub(crate) fn has_header(&self) -> bool {
        self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.count() > 0)
    }

    /// It is written.
    pub(crate) fn header_is_written(&mut self) -> anyhow::Result<()> {
        let Some(checkpoint) = &mut self.checkpoint else { return Ok(()) };
        checkpoint.acknowledge_range(0..self.before)?;
        Ok(checkpoint.settle()?)
    }

    /// The records that are to be fed.
    pub(crate) fn rest<R: Read>(&self, input: R, delimiter: u8) -> Rest<R> {
        let Numbers { again, next } = &self.numbers;
        let mut stretches = VecDeque::new();
        let mut number = 1;
        let mut push = |records: u64, wanted: bool| {
            if records > 0 {
                stretches.push_back(Stretch { records, wanted });
            }
        };
        for (_, gap) in again.iter() {
            push(gap.start - number, false);
            push(gap.end - gap.start, true);
            number = gap.end;
        }
        push(next - number, false);
        if stretches.is_empty() {
            return Rest::Whole(input);
        }
        let input = BufReader::with_capacity(64 << 10, input);
        Rest::Picked(Picked { input, delimiter, stretches, seen: 0, open: false, count: next - 1 })
    }

    /// The answers to the records with these packet ids are written.
    pub(crate) fn done(&mut self, first: u64, count: usize) -> anyhow::Result<()> {
        let Some(checkpoint) = &mut self.checkpoint else { return Ok(()) };
        for numbers in self.numbers.ranges(first..first + count as u64) {
            let position = |number: u64| number - 1 + self.before;
            checkpoint.acknowledge_range(position(numbers.start)..position(numbers.end))?;
        }
        Ok(())
    }

    /// Writes down what is not.
    pub(crate) fn settle(&mut self) -> anyhow::Result<()> {
        match &mut self.checkpoint {
            Some(checkpoint) => Ok(checkpoint.settle()?),
            None => Ok(()),
        }
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.checkpoint.is_some()
    }
}

/// An input of which records are passed over.
pub(crate) enum Rest<R> {
    Whole(R),
    Picked(Picked<R>),
}

/// # Invariants
/// 1. No stretch is empty. When none is left, everything is wanted.
#[derive(Debug)]
pub(crate) struct Picked<R> {
    input: BufReader<R>,
    delimiter: u8,
    stretches: VecDeque<Stretch>,
    /// Records that have been read, and whether half of another one has.
    seen: u64,
    open: bool,
    /// Records that the checkpoint tells of.
    count: u64,
}

#[derive(Debug)]
struct Stretch {
    records: u64,
    wanted: bool,
}

impl<R: Read> Read for Rest<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Whole(input) => input.read(into),
            Self::Picked(input) => input.read(into),
        }
    }
}

impl<R: Read> Read for Picked<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        while let Some(stretch) = self.stretches.front_mut() {
            let bytes = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                bytes => bytes?,
            };
            if bytes.is_empty() {
                // The last record may lack its end.
                self.seen += u64::from(std::mem::take(&mut self.open));
                if self.seen < self.count {
                    return Err(io::Error::other(format!(
                        "the checkpoint tells of {} records, and the input has {}: it is of another input",
                        self.count, self.seen
                    )));
                }
                return Ok(0);
            }
            let most = if stretch.wanted { bytes.len().min(into.len()) } else { bytes.len() };
            let mut end = 0;
            while end < most && stretch.records > 0 {
                let found = bytes[end..most].iter().position(|&byte| byte == self.delimiter);
                self.open = found.is_none();
                end = found.map_or(most, |at| end + at + 1);
                stretch.records -= u64::from(!self.open);
                self.seen += u64::from(!self.open);
            }
            let wanted = stretch.wanted;
            if wanted {
                into[..end].copy_from_slice(&bytes[..end]);
            }
            if stretch.records == 0 {
                self.stretches.pop_front();
            }
            self.input.consume(end);
            if wanted {
                return Ok(end);
            }
        }
        self.input.read(into)
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "one gap is meant")]
mod tests {
    use super::*;

    #[test]
    fn packet_ids_are_numbers_behind_the_records_that_are_tried_again() {
        let numbers = Numbers::of(vec![2..4, 7..8], 10);
        assert_eq!(numbers.first(), 7);
        let found: Vec<_> = (7..13).map(|id| numbers.number(id)).collect();
        assert_eq!(found, [2, 3, 7, 10, 11, 12]);
        assert_eq!(numbers.ranges(7..13), [2..4, 7..8, 10..13]);
        assert_eq!(numbers.ranges(8..9), [3..4]);
        assert_eq!(numbers.ranges(8..11), [3..4, 7..8, 10..11]);
        let plain = Numbers::of(Vec::new(), 1);
        assert_eq!((plain.first(), plain.number(5)), (1, 5));
        assert_eq!(plain.ranges(1..4), vec![1..4]);
    }

    #[test]
    fn records_are_picked_wherever_reads_end() {
        let picked = |input: &[u8], step: usize, gaps: Vec<Range<u64>>, next: u64| {
            let numbers = Numbers::of(gaps, next);
            let resume = Resume { checkpoint: None, before: 0, numbers, end: None };
            let mut rest = resume.rest(input, b'\n');
            let (mut found, mut room) = (Vec::new(), vec![0; step]);
            loop {
                match rest.read(&mut room) {
                    Ok(0) => return Ok(String::from_utf8(found).unwrap()),
                    Ok(n) => found.extend_from_slice(&room[..n]),
                    Err(error) => return Err(error.to_string()),
                }
            }
        };
        for step in [1, 2, 3, 7, 100] {
            let input = b"one\ntwo\n\nfour\nfive\nsix";
            let all = |gaps: Vec<Range<u64>>, next| picked(input, step, gaps, next);
            assert_eq!(all(vec![], 1).unwrap(), "one\ntwo\n\nfour\nfive\nsix");
            assert_eq!(all(vec![], 4).unwrap(), "four\nfive\nsix");
            assert_eq!(all(vec![1..2, 3..4], 6).unwrap(), "one\n\nsix");
            assert_eq!(all(vec![6..7], 7).unwrap(), "six");
            assert_eq!(all(vec![2..3], 7).unwrap(), "two\n");
            assert_eq!(all(vec![], 7).unwrap(), "");
            let short = all(vec![1..2], 8).unwrap_err();
            assert!(short.contains("of 7 records, and the input has 6"), "{short}");
        }
    }
}
