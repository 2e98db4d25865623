//! What a child has written on stderr: its beginning and its end.

use std::collections::VecDeque;

/// The first bytes, and as many of the last ones: the first line is usually the cause, the last one what
/// came of it.
#[derive(Debug, Default)]
pub(crate) struct Stderr {
    tail: VecDeque<u8>,
}

impl Stderr {
    const KEEP: usize = 8 << 10;

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(Self::KEEP)..];
        let over = (self.tail.len() + bytes.len()).saturating_sub(Self::KEEP);
        self.tail.drain(..over);
        self.tail.extend(bytes);
    }

    pub(crate) fn to_vec(&self) -> Vec<u8> {
        self.tail.iter().copied().collect()
    }
}
