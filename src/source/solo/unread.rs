//! What has been read from a child and not been taken yet, and the room for the next read.

use crate::tuning::READ_BYTES;

#[derive(Debug, Default)]
pub(super) struct Unread {
    /// What was not taken is `bytes[from..to]`; what follows is room.
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

impl Unread {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }

    /// The first `n` of these bytes have been taken.
    pub(super) fn take(&mut self, n: usize) {
        self.from += n;
    }

    /// Room for the next read, at least one byte.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
            // One huge record does not stay in memory for ever.
            self.bytes.truncate(16 * READ_BYTES);
            self.bytes.shrink_to(16 * READ_BYTES);
        }
        if self.bytes.len() - self.to < READ_BYTES / 4 {
            if self.from > self.bytes.len() / 2 {
                self.bytes.copy_within(self.from..self.to, 0);
                (self.from, self.to) = (0, self.to - self.from);
            } else {
                let len = (self.bytes.len() * 2).max(READ_BYTES);
                self.bytes.resize(len, 0);
            }
        }
        &mut self.bytes[self.to..]
    }

    /// The first `n` bytes of the room hold what was read.
    pub(super) fn filled(&mut self, n: usize) {
        self.to += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_comes_out_in_order_however_it_is_taken() {
        let mut unread = Unread::default();
        let (mut read, mut taken) = (0u64, 0u64);
        for round in 0..2_000 {
            let room = unread.room();
            assert!(!room.is_empty());
            let n = room.len().min(1 + round * 37 % 100_000);
            for byte in &mut room[..n] {
                *byte = (read % 251) as u8;
                read += 1;
            }
            unread.filled(n);
            let n = unread.bytes().len() * (round % 5) / 4;
            for &byte in &unread.bytes()[..n] {
                assert_eq!(byte, (taken % 251) as u8);
                taken += 1;
            }
            unread.take(n);
        }
        assert!(unread.bytes.len() <= 64 * READ_BYTES, "{}", unread.bytes.len());
        assert_eq!(unread.bytes().len() as u64, read - taken);
    }
}
