//! Where the requests of a column end.
//!
//! Requests that are written one by one have their ends written down one by one. Records that were read as whole
//! blocks are only counted: where one of them ends is found when somebody asks, which is seldom, because whole
//! blocks travel. So that this is quick, the count is written down at every [`STEP`].

use memchr::memchr_iter;

use crate::window::delimiters::nth_end;

/// Counts are written down for every so many bytes.
const STEP: usize = 1 << 10;

#[derive(Debug)]
pub(super) enum Ends {
    Each(Vec<usize>),
    Counted(Counted),
}

impl Default for Ends {
    fn default() -> Self {
        Self::Each(Vec::new())
    }
}

/// Records that all end with one byte, which stands nowhere else in them.
///
/// # Invariants
/// 1. `before[j]` delimiters stand in the first `j * STEP` bytes, for each `j * STEP < end`.
/// 2. `len` delimiters stand in the first `end` bytes, and the last of them is the last byte.
#[derive(Debug)]
pub(super) struct Counted {
    delimiter: u8,
    before: Vec<u32>,
    len: usize,
    end: usize,
}

impl Counted {
    pub(super) fn new(delimiter: u8) -> Self {
        Self { delimiter, before: Vec::new(), len: 0, end: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn end(&self) -> usize {
        self.end
    }

    pub(super) fn clear(&mut self) {
        self.before.clear();
        (self.len, self.end) = (0, 0);
    }

    /// Counts on, up to `end`, where a record ends.
    pub(super) fn count_to(&mut self, bytes: &[u8], end: usize) {
        let mut at = self.end;
        while at < end {
            if at.is_multiple_of(STEP) {
                // A batch never has more records than that: it is handed over long before.
                self.before.push(u32::try_from(self.len).unwrap_or(u32::MAX));
            }
            let step = end.min((at / STEP + 1) * STEP);
            self.len += memchr_iter(self.delimiter, &bytes[at..step]).count();
            at = step;
        }
        self.end = end;
    }

    /// Keeps the first `n` records.
    pub(super) fn truncate(&mut self, bytes: &[u8], n: usize) {
        if n < self.len {
            self.end = self.start(bytes, n);
            self.len = n;
            self.before.truncate(self.end.div_ceil(STEP));
        }
    }

    /// Where record `i` begins, which is where the one before it ends.
    pub(super) fn start(&self, bytes: &[u8], i: usize) -> usize {
        if i == 0 {
            return 0;
        }
        if i >= self.len {
            return self.end;
        }
        let step = self.before.partition_point(|&before| (before as usize) < i) - 1;
        let (from, before) = (step * STEP, self.before[step] as usize);
        from + nth_end(&bytes[from..self.end], self.delimiter, (i - before) as u64)
    }

    /// How many records end in the first `at` bytes.
    pub(super) fn ended_by(&self, bytes: &[u8], at: usize) -> usize {
        if at >= self.end {
            return self.len;
        }
        let step = at / STEP;
        let here = memchr_iter(self.delimiter, &bytes[step * STEP..at]).count();
        self.before[step] as usize + here
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_found_where_it_would_have_been_written_down() {
        let mut state = 7u64;
        let mut number = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize
        };
        for round in 0..if cfg!(miri) { 2 } else { 20 } {
            // Records of no byte, of a few, of more than a step.
            let mut bytes = Vec::new();
            let mut ends = Vec::new();
            for _ in 0..number() % if cfg!(miri) { 12 } else { 200 } {
                let len = match number() % 8 {
                    0 => number() % (3 * STEP),
                    1 | 2 => 0,
                    _ => number() % 40,
                };
                bytes.resize(bytes.len() + len, b'x');
                bytes.push(b'\n');
                ends.push(bytes.len());
            }
            let mut counted = Counted::new(b'\n');
            // In two goes, as two reads make them.
            let first = ends.get(number() % ends.len().max(1)).copied().unwrap_or(0);
            counted.count_to(&bytes, first);
            counted.count_to(&bytes, bytes.len());
            bytes.extend_from_slice(b"\nno record any more\n");
            let mut kept = ends.len();
            loop {
                assert_eq!(
                    (counted.len(), counted.end()),
                    (kept, ends[..kept].last().copied().unwrap_or(0))
                );
                for i in 0..=kept {
                    let start = if i == 0 { 0 } else { ends[i - 1] };
                    assert_eq!(
                        counted.start(&bytes, i),
                        start,
                        "round {round}, record {i} of {kept}"
                    );
                }
                for at in (0..=counted.end()).step_by(if cfg!(miri) { 211 } else { 1 }) {
                    let expected = ends[..kept].partition_point(|&end| end <= at);
                    assert_eq!(counted.ended_by(&bytes, at), expected, "round {round}, byte {at}");
                }
                if kept == 0 {
                    break;
                }
                kept = number() % kept;
                counted.truncate(&bytes, kept);
            }
        }
    }
}
