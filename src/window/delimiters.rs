//! Where the delimiters are: how the consumer finds replies in the bytes that the executor counted.
//!
//! Records are short, and a search that is called anew for each of them spends more on being called than on
//! searching. So 64 bytes are compared at a time, and what was found in them is remembered, one bit for
//! each: the next delimiter is the lowest bit that is left. (Bitmaps of structural characters are
//! the idea of simdjson, Langdale and Lemire, 2019.)

use memchr::memchr_iter;

/// One step of the search.
const BLOCK: usize = 64;

/// A search for one byte that goes on where it was.
#[derive(Clone, Debug)]
pub(crate) struct Delimiters {
    delimiter: u8,
    /// Everything before this has been compared.
    compared: usize,
    /// Where the block begins that was compared last.
    block: usize,
    /// The delimiters in it that were not given yet.
    left: u64,
}

impl Delimiters {
    pub(crate) fn new(delimiter: u8) -> Self {
        Self { delimiter, compared: 0, block: 0, left: 0 }
    }

    pub(crate) fn delimiter(&self) -> u8 {
        self.delimiter
    }

    /// The next one in `bytes[from..end]`. Each call begins behind the one that was given last, so `from`
    /// matters to the first, and `bytes` and `end` are the same for all.
    #[inline]
    pub(crate) fn next(&mut self, bytes: &[u8], from: usize, end: usize) -> Option<usize> {
        while self.left == 0 {
            self.block = self.compared.max(from);
            let rest = bytes.get(self.block..end)?;
            if let Some(block) = rest.first_chunk() {
                self.left = hits(self.delimiter, block);
                self.compared = self.block + BLOCK;
            } else if rest.is_empty() {
                return None;
            } else {
                let mut padded = [!self.delimiter; BLOCK];
                padded[..rest.len()].copy_from_slice(rest);
                self.left = hits(self.delimiter, &padded);
                self.compared = end;
            }
        }
        let at = self.block + self.left.trailing_zeros() as usize;
        self.left &= self.left - 1;
        Some(at)
    }
}

impl Delimiters {
    /// The last of the next `n`, which are one at least.
    #[inline]
    pub(crate) fn nth(&mut self, n: usize, bytes: &[u8], from: usize, end: usize) -> Option<usize> {
        for _ in 1..n {
            self.next(bytes, from, end)?;
        }
        self.next(bytes, from, end)
    }
}

/// One bit for each byte of the block, the first byte's the lowest: whether it is this one.
#[inline]
fn hits(byte: u8, block: &[u8; BLOCK]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 is part of the architecture.
    let hits = unsafe { hits_by_lane(byte, block) };
    #[cfg(not(target_arch = "x86_64"))]
    let hits = hits_by_word(byte, block);
    hits
}

/// Four steps of sixteen bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
#[inline]
fn hits_by_lane(byte: u8, block: &[u8; BLOCK]) -> u64 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};

    let pattern = _mm_set1_epi8(byte.cast_signed());
    let (halves, _) = block.as_chunks();
    let (lanes, _) = halves.as_chunks();
    let mut hits = 0;
    for (i, &[low, high]) in lanes.iter().enumerate() {
        let lane = _mm_set_epi64x(i64::from_le_bytes(high), i64::from_le_bytes(low));
        let equal = _mm_movemask_epi8(_mm_cmpeq_epi8(lane, pattern));
        hits |= u64::from(equal.cast_unsigned()) << (16 * i);
    }
    hits
}

/// Eight steps of eight bytes, for every other processor.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn hits_by_word(byte: u8, block: &[u8; BLOCK]) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (words, _) = block.as_chunks();
    let mut hits = 0;
    for (i, word) in words.iter().enumerate() {
        let difference = u64::from_le_bytes(*word) ^ (ONES * u64::from(byte));
        // The highest bit of each byte: set where the byte is not zero, and no carry leaves it.
        let other = ((difference & LOW) + LOW) | difference;
        let equal = (!other >> 7) & ONES;
        // Brings bit 0 of byte `k` to bit `k` of the highest byte.
        hits |= (equal.wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * i);
    }
    hits
}

/// The length of the first `n` delimited pieces. Counts in blocks, then looks closely.
pub(crate) fn nth_end(bytes: &[u8], delimiter: u8, n: u64) -> usize {
    const BLOCK: usize = 4 << 10;
    let mut left = n;
    let mut at = 0;
    if left == 0 {
        return 0;
    }
    for block in bytes.chunks(BLOCK) {
        let here = memchr_iter(delimiter, block).count() as u64;
        if here >= left {
            let last =
                memchr_iter(delimiter, block).nth(left as usize - 1).unwrap_or(block.len() - 1);
            return at + last + 1;
        }
        left -= here;
        at += block.len();
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that have nothing to do with one another, the same at each run (SplitMix64).
    fn numbers(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }
    }

    #[test]
    fn every_delimiter_is_found_once_and_in_order() {
        for seed in 0..if cfg!(miri) { 8 } else { 1_000 } {
            let mut number = numbers(seed);
            let len = number() as usize % 300;
            // Delimiters, their neighbours, and anything else.
            let bytes: Vec<u8> = (0..len)
                .map(|_| match number() % 4 {
                    0 => b'\n',
                    1 => b'\n' + 1,
                    _ => number() as u8,
                })
                .collect();
            let end = len.saturating_sub(number() as usize % 80);
            let from = (number() as usize % 80).min(end);
            let mut search = Delimiters::new(b'\n');
            let found: Vec<_> = std::iter::from_fn(|| search.next(&bytes, from, end)).collect();
            let expected: Vec<_> = (from..end).filter(|&at| bytes[at] == b'\n').collect();
            assert_eq!(found, expected, "seed {seed}");
            assert_eq!(search.next(&bytes, from, end), None, "seed {seed}");
        }
    }

    #[test]
    fn both_ways_of_comparing_agree() {
        for seed in 0..if cfg!(miri) { 8 } else { 1_000 } {
            let mut number = numbers(seed);
            let byte = number() as u8;
            let bits = number();
            let whole: [u8; BLOCK] = std::array::from_fn(|i| {
                // Half of the others are neighbours of the byte, which a carry would take for it.
                let other = if seed % 2 == 0 { byte.wrapping_add(1) } else { number() as u8 };
                let other = if other == byte { byte ^ 0x80 } else { other };
                if bits >> i & 1 == 1 { byte } else { other }
            });
            assert_eq!(hits(byte, &whole), bits, "seed {seed}");
            assert_eq!(hits_by_word(byte, &whole), bits, "seed {seed}");
        }
    }
}
