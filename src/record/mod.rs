//! The words everyone uses: packet ids, request batches, and the buffers that travel in circles.

mod ends;

use std::ops::Range;
use std::sync::Arc;

use ends::{Counted, Ends};

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
    /// May have more at its end than whole requests: one that was begun, or, of a block, room.
    pub(crate) bytes: Vec<u8>,
    ends: Ends,
}

impl Column {
    /// For whole blocks of records, each of which ends with this byte.
    fn counted(delimiter: u8) -> Self {
        Self { bytes: Vec::new(), ends: Ends::Counted(Counted::new(delimiter)) }
    }

    /// How many requests are in it.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        match &self.ends {
            Ends::Each(ends) => ends.len(),
            Ends::Counted(counted) => counted.len(),
        }
    }

    pub(crate) fn start(&self, i: usize) -> usize {
        match &self.ends {
            Ends::Each(ends) => i.checked_sub(1).map_or(0, |before| ends[before]),
            Ends::Counted(counted) => counted.start(&self.bytes, i),
        }
    }

    /// Where the last whole request ends.
    #[inline]
    pub(crate) fn end(&self) -> usize {
        match &self.ends {
            Ends::Each(ends) => ends.last().copied().unwrap_or(0),
            Ends::Counted(counted) => counted.end(),
        }
    }

    pub(crate) fn range(&self, from: usize, to: usize) -> Range<usize> {
        self.start(from)..self.start(to)
    }

    /// All that was appended is one request.
    #[inline]
    pub(crate) fn push_end(&mut self) {
        match &mut self.ends {
            Ends::Each(ends) => ends.push(self.bytes.len()),
            Ends::Counted(_) => self.count_to(self.bytes.len()),
        }
    }

    /// The bytes up to `end`, where a record of a block ends, are whole records.
    pub(crate) fn count_to(&mut self, end: usize) {
        match &mut self.ends {
            Ends::Each(_) => debug_assert!(false, "a block"),
            Ends::Counted(counted) => counted.count_to(&self.bytes, end),
        }
    }

    /// Of the requests `from..to`, how many end in the first `at` bytes.
    pub(crate) fn ended_by(&self, from: usize, to: usize, at: usize) -> usize {
        match &self.ends {
            Ends::Each(ends) => ends[from..to].partition_point(|&end| end <= at),
            Ends::Counted(counted) => counted.ended_by(&self.bytes, at).clamp(from, to) - from,
        }
    }

    /// Of the requests `from..to`, how many have a byte among the first `at`, or begin before it.
    pub(crate) fn begun_by(&self, from: usize, to: usize, at: usize) -> usize {
        if at <= self.start(from) || from == to {
            return 0;
        }
        // Behind each that ends before the last of these bytes another one begins.
        1 + self.ended_by(from, to - 1, at - 1)
    }

    /// Whether one of the requests `from..to` ends with the byte before `at`.
    pub(crate) fn is_end(&self, from: usize, to: usize, at: usize) -> bool {
        let ended = self.ended_by(from, to, at);
        ended > 0 && self.start(from + ended) == at
    }

    fn append(&mut self, more: &mut Self) {
        let base = self.bytes.len();
        match (&mut self.ends, &mut more.ends) {
            (Ends::Each(ends), Ends::Each(more_ends)) => {
                self.bytes.append(&mut more.bytes);
                ends.extend(more_ends.drain(..).map(|end| base + end));
            }
            (Ends::Counted(counted), more_ends) => {
                let end = match more_ends {
                    Ends::Each(ends) => ends.last().copied().unwrap_or(0),
                    Ends::Counted(more) => more.end(),
                };
                self.bytes.truncate(counted.end());
                self.bytes.extend_from_slice(&more.bytes[..end]);
                counted.count_to(&self.bytes, self.bytes.len());
                more.truncate(0);
            }
            (Ends::Each(_), Ends::Counted(_)) => {
                for i in 0..more.len() {
                    self.bytes.extend_from_slice(&more.bytes[more.range(i, i + 1)]);
                    self.push_end();
                }
                more.truncate(0);
            }
        }
    }

    /// Keeps the first `n` requests. The room of a block stays, so that it need not be cleared again.
    fn truncate(&mut self, n: usize) {
        match &mut self.ends {
            Ends::Each(ends) => {
                ends.truncate(n);
                let end = ends.last().copied().unwrap_or(0);
                self.bytes.truncate(end);
            }
            Ends::Counted(counted) if n == 0 => counted.clear(),
            Ends::Counted(counted) => counted.truncate(&self.bytes, n),
        }
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

    /// For whole blocks of records, each of which ends with this byte, on stdin.
    pub(crate) fn counted(delimiter: u8) -> Self {
        Self { first: PacketId(0), columns: vec![Column::counted(delimiter)] }
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
        self.columns[0].len()
    }

    #[inline]
    fn bytes(&self) -> usize {
        match &self.columns[..] {
            [stdin] => stdin.end(),
            columns => columns.iter().map(Column::end).sum(),
        }
    }

    fn append(&mut self, next: &mut Self) {
        debug_assert!(next.len() == 0 || self.first.plus(self.len() as u64) == next.first);
        for (column, more) in self.columns.iter_mut().zip(&mut next.columns) {
            column.append(more);
        }
    }

    fn truncate(&mut self, n: usize) {
        for column in &mut self.columns {
            column.truncate(n);
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

    /// Whether its requests are a block of records that were only counted: where it is cut must be looked for.
    pub(crate) fn is_block(&self) -> bool {
        self.batch.columns.iter().any(|column| matches!(column.ends, Ends::Counted(_)))
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
            batch.columns[0].push_end();
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
                batch.columns[0].push_end();
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
