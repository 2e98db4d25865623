//! What has been read from a child and not been taken yet, and the room for the next read.
//!
//! # Invariants
//! 1. Bytes read and not taken are `bytes[start..end]`, behind them `hidden` bytes that are not to be seen yet, the rest
//!    is room.
//! 2. There is always room for at least one byte; a buffer is taken when the first is needed.
//! 3. One huge record does not stay in memory: a buffer that has grown for it goes with it, or shrinks when it is
//!    empty.

use std::ops::Range;
use std::sync::Arc;

use crate::record::{Buffer, Pool};
use crate::subprocess::remote::deframe::{Deframer, Greeting};
use crate::tuning::READ_BYTES;

/// What a buffer that is empty may keep.
const MOST_KEPT: usize = 16 * READ_BYTES;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Unread {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// What follows may not be the child's own.
    hidden: usize,
}

impl Unread {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// The first `n` of these bytes are taken, or not wanted.
    pub(crate) fn skip(&mut self, n: usize) {
        debug_assert!(n <= self.len(), "{n} of {} bytes", self.len());
        self.start += n;
    }

    /// The last `n` of these bytes are not wanted.
    pub(crate) fn drop_last(&mut self, n: usize) {
        debug_assert!(n <= self.len() && self.hidden == 0, "{n} of {} bytes", self.len());
        self.end -= n;
    }

    /// Room for the next read, at least one byte. No record is longer than `limit`, and the first buffer may be
    /// a `spare` one.
    pub(crate) fn room(
        &mut self,
        limit: usize,
        spare: impl FnOnce() -> Option<Vec<u8>>,
    ) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.bytes = spare().unwrap_or_else(|| vec![0; READ_BYTES]);
            debug_assert!(self.start == 0 && self.end == 0);
        }
        if self.start == self.end && self.hidden == 0 {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > MOST_KEPT {
                self.bytes.truncate(MOST_KEPT);
                self.bytes.shrink_to_fit();
            }
        }
        let len = self.bytes.len();
        let room = len - self.end - self.hidden;
        if room < len / 4 {
            if self.start > len / 2 {
                self.bytes.copy_within(self.start..self.end + self.hidden, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else if room == 0 || self.len() > READ_BYTES / 2 {
                // By doubling, but for no record that is longer than may be.
                let enough = limit.saturating_add(READ_BYTES).max(len + READ_BYTES);
                let longer = (len * 2).min(enough);
                // Or the vector would make room for twice as much by itself.
                self.bytes.reserve_exact(longer - len);
                self.bytes.resize(longer, 0);
            }
        }
        &mut self.bytes[self.end + self.hidden..]
    }

    /// The first `n` bytes of the room hold what was read.
    pub(crate) fn filled(&mut self, n: usize) {
        let room = self.bytes.len() - self.end - self.hidden;
        debug_assert!(n <= room, "more than there was room for");
        self.end += n;
    }

    /// The last `n` bytes that were read are not to be seen yet.
    pub(crate) fn hide(&mut self, n: usize) {
        self.end -= n;
        self.hidden += n;
    }

    /// How many bytes are hidden.
    pub(crate) fn hidden(&self) -> usize {
        self.hidden
    }

    /// Shows what is hidden.
    pub(crate) fn show(&mut self) {
        self.end += std::mem::take(&mut self.hidden);
    }

    /// Passes what is hidden through the layer that tells a tool's bytes from what stands around them, and shows
    /// what is the tool's. The noise before that is moved to `dropped`; says what happened in it.
    pub(crate) fn pass(
        &mut self,
        deframer: &mut Deframer,
        dropped: &mut Vec<u8>,
    ) -> Option<Greeting> {
        let hidden = self.end..self.end + self.hidden;
        let passage = deframer.look(&self.bytes[hidden.clone()]);
        let noise = hidden.start..hidden.start + passage.noise;
        if !noise.is_empty() {
            dropped.extend_from_slice(&self.bytes[noise.clone()]);
            self.bytes.copy_within(noise.end..hidden.end, noise.start);
        }
        self.end += passage.tool;
        self.hidden -= passage.noise + passage.tool;
        if passage.is_last {
            self.hidden = 0;
        }
        passage.news
    }

    /// Takes the first `n` bytes: the buffer that they are in, and where.
    ///
    /// A well-filled buffer changes hands, and only what follows is copied into a new one; of a nearly empty one
    /// what is taken is copied out.
    pub(crate) fn take(&mut self, n: usize, pool: &Arc<Pool>) -> (Arc<Buffer>, Range<usize>) {
        let taken = self.start..self.start + n;
        if n == 0 || n < self.bytes.len() / 4 {
            let small = self.bytes[taken].to_vec();
            self.skip(n);
            return (Arc::new(Buffer::new(small, None)), 0..n);
        }
        let rest = self.end + self.hidden - taken.end;
        let mut fresh = pool.take().unwrap_or_else(|| vec![0; READ_BYTES]);
        if fresh.len() < rest {
            fresh.resize(rest.next_power_of_two(), 0);
        }
        fresh[..rest].copy_from_slice(&self.bytes[taken.end..][..rest]);
        let mut full = std::mem::replace(&mut self.bytes, fresh);
        if full.len() > 4 * READ_BYTES {
            // Grown for one large record, it is held until that is yielded, and only the record is counted.
            full.truncate(taken.end);
            full.shrink_to_fit();
        }
        (self.start, self.end) = (0, rest - self.hidden);
        (Arc::new(Buffer::new(full, Some(Arc::clone(pool)))), taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads and takes pieces of many sizes; what is read is numbered.
    fn trickle(mut take: impl FnMut(&mut Unread, usize) -> Vec<u8>) -> Unread {
        let mut unread = Unread::default();
        let (mut read, mut taken) = (0u64, 0u64);
        for round in 0..2_000 {
            let room = unread.room(usize::MAX, || None);
            assert!(!room.is_empty());
            let n = room.len().min(1 + round * 37 % 100_000);
            for byte in &mut room[..n] {
                *byte = (read % 251) as u8;
                read += 1;
            }
            unread.filled(n);
            let n = unread.len() * (round % 5) / 4;
            for byte in take(&mut unread, n) {
                assert_eq!(byte, (taken % 251) as u8);
                taken += 1;
            }
            assert_eq!(unread.len() as u64, read - taken);
        }
        unread
    }

    #[test]
    fn what_is_read_comes_out_in_order_however_it_is_taken() {
        let unread = trickle(|unread, n| {
            let taken = unread.bytes()[..n].to_vec();
            unread.skip(n);
            taken
        });
        assert!(unread.bytes.len() <= 64 * READ_BYTES, "{}", unread.bytes.len());
        let pool = Arc::new(Pool::new(4, 2 * READ_BYTES));
        trickle(|unread, n| {
            let (buffer, at) = unread.take(n, &pool);
            buffer[at].to_vec()
        });
    }

    #[test]
    fn what_has_grown_for_one_huge_record_shrinks_when_that_is_gone() {
        let mut unread = Unread::default();
        while unread.len() < 64 * READ_BYTES {
            let n = unread.room(usize::MAX, || None).len();
            unread.filled(n);
        }
        unread.skip(unread.len());
        assert_eq!(unread.room(usize::MAX, || None).len(), MOST_KEPT);
    }

    #[test]
    fn there_is_no_room_for_more_than_the_limit_and_one_read_behind_it() {
        let (mut unread, limit) = (Unread::default(), 5 * READ_BYTES);
        while unread.len() <= limit {
            let n = unread.room(limit, || None).len();
            unread.filled(n);
        }
        assert!(unread.bytes.len() <= limit + READ_BYTES, "{}", unread.bytes.len());
    }
}
