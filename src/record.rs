//! The words everyone uses: packet ids, request batches, and the buffers that travel in circles.

use std::ops::Range;
use std::sync::Arc;

use crate::window::sync::{Mutex, lock};

/// A packet's position in the input. Arithmetic wraps: a feed may start near `u64::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PacketId(pub(crate) u64);

impl PacketId {
    pub(crate) fn plus(self, n: u64) -> Self {
        Self(self.0.wrapping_add(n))
    }

    /// How far this id lies behind `origin`, on the circle.
    pub(crate) fn since(self, origin: Self) -> u64 {
        self.0.wrapping_sub(origin.0)
    }
}

/// What one input channel of the workers gets of a batch: the framed requests end to end.
#[derive(Debug, Default)]
pub(crate) struct Column {
    pub(crate) bytes: Vec<u8>,
    /// `ends[i]` is where the request of the batch's packet `i` ends in `bytes`.
    pub(crate) ends: Vec<usize>,
}

impl Column {
    pub(crate) fn start(&self, i: usize) -> usize {
        if i == 0 { 0 } else { self.ends[i - 1] }
    }

    /// Where the last whole request ends.
    #[inline]
    pub(crate) fn end(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    pub(crate) fn range(&self, from: usize, to: usize) -> Range<usize> {
        self.start(from)..self.start(to)
    }
}

/// A batch: consecutive packets that travel together to an executor. Requests for subprocesses, items
/// for threads.
pub(crate) trait Batch: Send {
    /// Says which packet comes first. Asked of an empty batch only.
    fn begin(&mut self, first: PacketId);
    /// The packet that comes first.
    fn first(&self) -> PacketId;
    /// How many packets are in it.
    fn len(&self) -> usize;
    /// How many bytes it counts for at the gate.
    fn bytes(&self) -> usize;
    /// Takes over what is in another one, which continues this one, and empties it.
    fn append(&mut self, next: &mut Self);
    /// Keeps the first `n` packets, and nothing of what was begun after them.
    fn truncate(&mut self, n: usize);
    /// Empties it, to be filled again.
    fn clear(&mut self) {
        self.truncate(0);
    }
}

/// The requests of consecutive packets, one column per input channel (0 is stdin).
#[derive(Debug)]
pub(crate) struct Requests {
    pub(crate) first: PacketId,
    pub(crate) columns: Vec<Column>,
}

impl Requests {
    pub(crate) fn new(channels: usize) -> Self {
        Self { first: PacketId(0), columns: (0..channels).map(|_| Column::default()).collect() }
    }

    /// The stdin bytes of packet `i` of this batch, framing included.
    pub(crate) fn request(&self, i: usize) -> &[u8] {
        &self.columns[0].bytes[self.columns[0].range(i, i + 1)]
    }
}

impl Batch for Requests {
    fn begin(&mut self, first: PacketId) {
        self.first = first;
    }

    fn first(&self) -> PacketId {
        self.first
    }

    #[inline]
    fn len(&self) -> usize {
        self.columns[0].ends.len()
    }

    #[inline]
    fn bytes(&self) -> usize {
        match &self.columns[..] {
            [stdin] => stdin.bytes.len(),
            columns => columns.iter().map(|column| column.bytes.len()).sum(),
        }
    }

    fn append(&mut self, next: &mut Self) {
        debug_assert!(next.len() == 0 || self.first.plus(self.len() as u64) == next.first);
        for (column, more) in self.columns.iter_mut().zip(&mut next.columns) {
            let base = column.bytes.len();
            column.bytes.append(&mut more.bytes);
            column.ends.extend(more.ends.drain(..).map(|end| base + end));
        }
    }

    fn truncate(&mut self, n: usize) {
        for column in &mut self.columns {
            column.ends.truncate(n);
            column.bytes.truncate(column.end());
        }
    }
}

/// Consecutive packets of one batch: the unit of dispatch. A run is never empty.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) batch: Arc<Requests>,
    pub(crate) from: usize,
    pub(crate) to: usize,
}

impl Run {
    pub(crate) fn whole(batch: Arc<Requests>) -> Self {
        let to = batch.len();
        Self { batch, from: 0, to }
    }

    pub(crate) fn len(&self) -> usize {
        self.to - self.from
    }

    pub(crate) fn first(&self) -> PacketId {
        self.batch.first.plus(self.from as u64)
    }

    pub(crate) fn bytes(&self, channel: usize) -> &[u8] {
        let column = &self.batch.columns[channel];
        &column.bytes[column.range(self.from, self.to)]
    }

    /// The bytes of all channels together.
    pub(crate) fn weight(&self) -> usize {
        self.batch.columns.iter().map(|column| column.range(self.from, self.to).len()).sum()
    }

    /// The bytes of its packet `i` on all channels together, framing included.
    pub(crate) fn sent(&self, i: usize) -> usize {
        let at = self.from + i;
        self.batch.columns.iter().map(|column| column.range(at, at + 1).len()).sum()
    }

    /// Cuts off and returns the first `n` packets (`0 < n < len`).
    pub(crate) fn split_front(&mut self, n: usize) -> Self {
        debug_assert!(0 < n && n < self.len());
        let front = Self { batch: Arc::clone(&self.batch), from: self.from, to: self.from + n };
        self.from += n;
        front
    }

    pub(crate) fn request(&self) -> &[u8] {
        self.batch.request(self.from)
    }
}

/// Spare buffers on their way back to be filled again.
///
/// Holds at most `keep` of them and none larger than `largest`, so that one huge record does not
/// stay in memory for ever.
#[derive(Debug)]
pub(crate) struct Pool {
    spare: Mutex<Vec<Vec<u8>>>,
    keep: usize,
    largest: usize,
}

impl Pool {
    pub(crate) fn new(keep: usize, largest: usize) -> Self {
        Self { spare: Mutex::new(Vec::new()), keep, largest }
    }

    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        lock(&self.spare).pop()
    }

    pub(crate) fn give(&self, buffer: Vec<u8>) {
        if buffer.capacity() == 0 || buffer.capacity() > self.largest {
            return;
        }
        let mut spare = lock(&self.spare);
        if spare.len() < self.keep {
            spare.push(buffer);
        }
    }
}

/// Bytes of replies as they were read, shared by the spans cut from them.
///
/// Goes back to the pool when the last span is done with it.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    home: Option<Arc<Pool>>,
}

impl Buffer {
    pub(crate) fn new(bytes: Vec<u8>, home: Option<Arc<Pool>>) -> Self {
        Self { bytes, home }
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.give(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_wrap() {
        let origin = PacketId(u64::MAX - 1);
        assert_eq!(origin.plus(3), PacketId(1));
        assert_eq!(origin.plus(3).since(origin), 3);
    }

    #[test]
    fn a_run_knows_its_bytes_before_and_after_a_split() {
        let mut batch = Requests::new(1);
        for record in ["a\n", "bb\n", "ccc\n"] {
            batch.columns[0].bytes.extend_from_slice(record.as_bytes());
            let end = batch.columns[0].bytes.len();
            batch.columns[0].ends.push(end);
        }
        let mut run = Run::whole(Arc::new(batch));
        assert_eq!((run.len(), run.weight()), (3, 9));
        let front = run.split_front(1);
        assert_eq!(front.bytes(0), b"a\n");
        assert_eq!(run.bytes(0), b"bb\nccc\n");
        assert_eq!(run.first(), PacketId(1));
        assert_eq!(run.request(), b"bb\n");
    }

    #[test]
    fn a_batch_goes_on_where_the_one_before_ended() {
        let batch = |first: u64, records: &[&str]| {
            let mut batch = Requests::new(1);
            batch.begin(PacketId(first));
            for record in records {
                batch.columns[0].bytes.extend_from_slice(record.as_bytes());
                let end = batch.columns[0].bytes.len();
                batch.columns[0].ends.push(end);
            }
            batch
        };
        let (mut open, mut next) = (batch(u64::MAX, &["a\n"]), batch(0, &["bb\n", ""]));
        open.append(&mut next);
        assert_eq!((open.len(), open.bytes(), next.len(), next.bytes()), (3, 5, 0, 0));
        assert_eq!(
            (open.request(0), open.request(1), open.request(2)),
            (&b"a\n"[..], &b"bb\n"[..], &b""[..])
        );
        open.columns[0].bytes.extend_from_slice(b"half a req");
        open.truncate(2);
        assert_eq!((open.len(), open.bytes()), (2, 5));
        open.clear();
        assert_eq!((open.len(), open.bytes()), (0, 0));
    }

    #[test]
    fn a_buffer_goes_home_once_and_a_huge_one_does_not() {
        let pool = Arc::new(Pool::new(1, 64));
        drop(Buffer::new(vec![0; 16], Some(Arc::clone(&pool))));
        drop(Buffer::new(vec![0; 16], Some(Arc::clone(&pool))));
        assert!(pool.take().is_some() && pool.take().is_none());
        drop(Buffer::new(vec![0; 65], Some(Arc::clone(&pool))));
        assert!(pool.take().is_none());
    }
}
