//! One output of a session, stdout (0) or a side output: what was read, and the replies cut from it.
//!
//! # Invariants
//! 1. `start <= scanned <= end`: bytes read and not yet cut are `bytes[start..end]`, the rest is room. Whole
//!    replies are taken off the front as soon as they are seen.
//! 2. There is always room for at least one byte; a buffer is taken when the first is needed.
//! 3. A scanner starts afresh after replies that were cut behind its back.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use memchr::{memchr_iter, memrchr};

use crate::framing::{Framing, FramingError, Position, ReplyFraming, Scan};
use crate::record::{Buffer, Pool};
use crate::tuning::READ_BYTES;
use crate::window::delimiters::nth_end;
use crate::window::packet::Cut;
use crate::window::unwind::{self, Payload};

/// See the [module](self).
pub(super) struct Output {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Where the scan for the next reply has come to, for the bulk path.
    scanned: usize,
    framing: Box<dyn Framing>,
    /// The scanner has seen every reply before this one.
    framing_is_fresh: bool,
    /// The whole output is one reply.
    until_eof: bool,
    eof: bool,
    /// Whole parts of replies, where there are side outputs.
    parts: VecDeque<Vec<u8>>,
}

/// Replies cut off the front of an output.
#[derive(Debug)]
pub(super) struct Cutting {
    pub(super) buffer: Arc<Buffer>,
    pub(super) at: Range<usize>,
    pub(super) cut: Cut,
    pub(super) count: u64,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output")
            .field("unread", &(self.end - self.start))
            .field("eof", &self.eof)
            .finish_non_exhaustive()
    }
}

impl Output {
    pub(super) fn new(framing: &ReplyFraming, piped: bool) -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            end: 0,
            scanned: 0,
            framing: framing.start(),
            until_eof: framing.is_until_eof(),
            framing_is_fresh: true,
            eof: !piped,
            parts: VecDeque::new(),
        }
    }

    /// What was read and not cut.
    pub(super) fn uncut(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn is_closed(&self) -> bool {
        self.eof
    }

    /// It has come to its end. Says whether that is news.
    pub(super) fn close(&mut self) -> bool {
        !std::mem::replace(&mut self.eof, true)
    }

    /// The byte that ends each reply, where that is all there is to know.
    pub(super) fn delimiter(&self) -> Option<u8> {
        self.framing.delimiter()
    }

    /// Room for the next read, at least one byte.
    pub(super) fn room(&mut self, limit: usize, pool: &Pool) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.bytes = pool.take().unwrap_or_else(|| vec![0; READ_BYTES]);
            debug_assert!(self.start == 0 && self.end == 0);
        }
        if self.start > 0 && self.start == self.end {
            self.start = 0;
            self.end = 0;
            self.scanned = 0;
        }
        let room = self.bytes.len() - self.end;
        if room < self.bytes.len() / 4 {
            if self.start > self.bytes.len() / 2 {
                self.bytes.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.scanned -= self.start;
                self.start = 0;
            } else if room == 0 || self.end - self.start > READ_BYTES / 2 {
                // By doubling, but for no reply that is longer than may be.
                let len = self.bytes.len();
                let enough = limit.saturating_add(READ_BYTES).max(len + READ_BYTES);
                let len = (len * 2).min(enough);
                // Or the vector would make room for twice as much by itself.
                self.bytes.reserve_exact(len - self.bytes.len());
                self.bytes.resize(len, 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// `n` bytes were read into the room.
    pub(super) fn filled(&mut self, n: usize) {
        self.end += n;
    }

    /// Drops what was read: nobody believes it, or nobody asks.
    pub(super) fn ignore(&mut self) {
        self.start = self.end;
        self.scanned = self.end;
    }

    /// Passes over the first `n` bytes that are not cut.
    pub(super) fn skip(&mut self, n: usize) {
        self.start += n;
        self.scanned = self.start;
    }

    /// Cuts replies that end at a delimiter, up to `owed` of them; what stands behind them if there are
    /// more.
    pub(super) fn cut_in_bulk(
        &mut self,
        delimiter: u8,
        owed: u64,
        pool: &Arc<Pool>,
    ) -> (Option<Cutting>, Option<Vec<u8>>) {
        let fresh = &self.bytes[self.scanned..self.end];
        let Some(last) = memrchr(delimiter, fresh) else {
            self.scanned = self.end;
            return (None, None);
        };
        self.framing_is_fresh = false;
        let mut count = memchr_iter(delimiter, &fresh[..=last]).count() as u64;
        let mut end = self.scanned + last + 1;
        let extra = count > owed;
        let mut behind = None;
        if extra {
            end = self.start + nth_end(&self.bytes[self.start..end], delimiter, owed);
            count = owed;
            behind = Some(self.bytes[end..self.end].to_vec());
            if count == 0 {
                return (None, behind);
            }
        }
        let (buffer, at) = self.take_front(end, pool);
        if !extra {
            self.scanned = self.end;
        }
        (Some(Cutting { buffer, at, cut: Cut::at_each(delimiter), count }), behind)
    }

    /// Looks for the next reply behind the first `from` bytes that are not cut.
    pub(super) fn scan(
        &mut self,
        framing: &ReplyFraming,
        from: usize,
        position: Position,
    ) -> Result<Result<Scan, FramingError>, Payload> {
        if !self.framing_is_fresh {
            // Replies were cut in bulk, behind the scanner's back.
            self.framing = framing.start();
            self.framing_is_fresh = true;
        }
        let rest = &self.bytes[self.start + from..self.end];
        unwind::catch(|| self.framing.scan(rest, position))
    }

    /// Whether an output without a byte is a reply, as the whole output of a process is.
    pub(super) fn may_be_empty(&self) -> bool {
        self.eof && self.until_eof
    }

    /// Cuts replies off the front: where the body of each is, and where it ends with all that frames it,
    /// counted from the first byte that is not cut.
    pub(super) fn cut_at(
        &mut self,
        mut replies: Vec<(Range<usize>, usize)>,
        pool: &Arc<Pool>,
    ) -> Option<Cutting> {
        let end = replies.last()?.1 + self.start;
        let count = replies.len() as u64;
        let (buffer, at) = self.take_front(end, pool);
        self.scanned = self.start;
        let ranges: Vec<_> =
            replies.drain(..).map(|(body, _)| body.start + at.start..body.end + at.start).collect();
        Some(Cutting {
            buffer,
            at,
            cut: Cut::Parts { ranges: ranges.into(), next: 0, sides: 0 },
            count,
        })
    }

    /// Cuts the front up to `end` off the buffer.
    ///
    /// A well-filled buffer changes hands, and only the beginning of the next reply is copied into a new
    /// one; a nearly empty one stays, and what little it holds is copied out.
    fn take_front(&mut self, end: usize, pool: &Arc<Pool>) -> (Arc<Buffer>, Range<usize>) {
        let taken = self.start..end;
        if taken.len() < self.bytes.len() / 4 {
            let small = self.bytes[taken.clone()].to_vec();
            self.start = end;
            if self.start == self.end {
                self.start = 0;
                self.end = 0;
            }
            self.scanned = self.end;
            let at = 0..small.len();
            return (Arc::new(Buffer::new(small, None)), at);
        }
        let rest = self.end - end;
        let mut fresh = pool.take().unwrap_or_else(|| vec![0; READ_BYTES]);
        if fresh.len() < rest {
            fresh.resize(rest.next_power_of_two(), 0);
        }
        fresh[..rest].copy_from_slice(&self.bytes[end..self.end]);
        let mut full = std::mem::replace(&mut self.bytes, fresh);
        if full.len() > 4 * READ_BYTES {
            // Grown for one large reply, it is held until that is yielded, and only the reply is counted.
            full.truncate(end);
            full.shrink_to_fit();
        }
        self.start = 0;
        self.end = rest;
        self.scanned = rest;
        (Arc::new(Buffer::new(full, Some(Arc::clone(pool)))), taken)
    }

    // ---------------------------------------------------------------- parts of replies

    /// How many whole parts have come and were not taken.
    pub(super) fn parts(&self) -> u64 {
        self.parts.len() as u64
    }

    pub(super) fn part(&self, n: u64) -> Option<&[u8]> {
        Some(self.parts.get(usize::try_from(n).ok()?)?)
    }

    pub(super) fn take_part(&mut self) -> Vec<u8> {
        self.parts.pop_front().unwrap_or_default()
    }

    /// A part was found: its body within what is not cut, and its length with all that frames it.
    pub(super) fn keep_part(&mut self, body: Range<usize>, len: usize) {
        let part = self.uncut()[body].to_vec();
        self.skip(len);
        self.parts.push_back(part);
    }
}
