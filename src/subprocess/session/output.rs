//! One output of a session, stdout (0) or a side output: what was read, and the replies cut from it.
//!
//! # Invariants
//! 1. `scanned <= unread.len()`: so many of the bytes that are read and not cut hold no delimiter. Whole replies
//!    are taken off the front as soon as they are seen.
//! 2. A scanner starts afresh after replies that were cut behind its back.
//! 3. `kept` bytes at the end may be the tool's last words: they are not cut, and nobody sees them before it is known.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use memchr::{memchr_iter, memrchr_iter};

use crate::framing::{Framing, FramingError, Position, ReplyFraming, Scan};
use crate::record::{Buffer, Pool};
use crate::subprocess::unread::Unread;
use crate::window::delimiters::nth_end;
use crate::window::packet::Cut;
use crate::window::unwind::{self, Payload};

/// See the [module](self).
pub(super) struct Output {
    /// What was read and not cut.
    unread: Unread,
    /// How much at its end may be what the tool says at its end.
    kept: usize,
    /// How much of the reply that is next the scanner has seen.
    seen: usize,
    /// How far the bulk path has looked for the end of the next reply.
    scanned: usize,
    framing: Box<dyn Framing>,
    counted: Option<(u8, usize)>,
    /// Delimiters among the first `scanned` bytes, of the bulk path: fewer than a reply has.
    pending: usize,
    /// The scanner has seen every reply before this one.
    framing_is_fresh: bool,
    /// The whole output is one reply.
    until_eof: bool,
    eof: bool,
    /// It has come to its end where it should not: what was read is not all.
    broken_off: bool,
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
            .field("unread", &self.unread.len())
            .field("eof", &self.eof)
            .finish_non_exhaustive()
    }
}

impl Output {
    pub(super) fn new(framing: &ReplyFraming, piped: bool) -> Self {
        Self {
            unread: Unread::default(),
            kept: 0,
            seen: 0,
            scanned: 0,
            counted: framing.counted().or_else(|| Some((framing.start().delimiter()?, 1))),
            framing: framing.start(),
            pending: 0,
            until_eof: framing.is_until_eof(),
            framing_is_fresh: true,
            eof: !piped,
            broken_off: false,
            parts: VecDeque::new(),
        }
    }

    /// What was read and not cut.
    pub(super) fn uncut(&self) -> &[u8] {
        let bytes = self.unread.bytes();
        &bytes[..bytes.len() - self.kept]
    }

    /// Shows everything again.
    pub(super) fn keep_nothing(&mut self) {
        self.kept = 0;
    }

    /// Keeps what was read last if that is this. Not where a scanner has looked at some of it together with what is
    /// before it: it goes on where it was, and never back.
    pub(super) fn keep_last(&mut self, words: &[u8]) -> bool {
        let Some(before) = self.unread.bytes().strip_suffix(words) else { return false };
        let before = before.len();
        if (1..self.seen).contains(&before) {
            return false;
        }
        if before < self.scanned {
            (self.scanned, self.pending) = (0, 0);
        }
        self.kept = words.len();
        true
    }

    /// Whether what stands from there on is not all of these bytes, and may become it.
    pub(super) fn goes_on_as(&self, from: usize, bytes: &[u8]) -> bool {
        let rest = &self.uncut()[from..];
        !self.is_closed() && rest.len() < bytes.len() && bytes.starts_with(rest)
    }

    /// How many bytes are kept.
    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    /// What is kept were the tool's last words.
    pub(super) fn drop_kept(&mut self) {
        self.unread.drop_last(std::mem::take(&mut self.kept));
    }

    pub(super) fn is_closed(&self) -> bool {
        self.eof
    }

    /// Whether its end is the tool's: what was read is all that there is.
    pub(super) fn is_at_end(&self) -> bool {
        self.eof && !self.broken_off
    }

    /// It has come to its end, or will, in the middle of what the tool says.
    pub(super) fn breaks_off(&mut self) {
        self.broken_off = true;
    }

    /// How many bytes of what was read are not shown.
    pub(super) fn hidden(&self) -> usize {
        self.unread.hidden()
    }

    /// What was read, with what is not shown of it.
    pub(super) fn unread(&mut self) -> &mut Unread {
        &mut self.unread
    }

    /// It has come to its end. Says whether that is news.
    pub(super) fn close(&mut self) -> bool {
        !std::mem::replace(&mut self.eof, true)
    }

    /// The byte that ends each reply, and how many of it a reply has, where that is all there is to know.
    pub(super) fn counted(&self) -> Option<(u8, usize)> {
        self.counted
    }

    /// Room for the next read, at least one byte.
    pub(super) fn room(&mut self, limit: usize, pool: &Pool) -> &mut [u8] {
        self.unread.room(limit, || pool.take())
    }

    /// `n` bytes were read into the room.
    pub(super) fn filled(&mut self, n: usize) {
        self.unread.filled(n);
    }

    /// Drops what was read: nobody believes it, or nobody asks.
    pub(super) fn ignore(&mut self) {
        self.keep_nothing();
        self.skip(self.unread.len());
    }

    /// Passes over the first `n` bytes that are not cut.
    pub(super) fn skip(&mut self, n: usize) {
        self.unread.skip(n);
        (self.scanned, self.pending) = (0, 0);
    }

    /// Cuts replies of `per` delimiters each, up to `owed` of them; what stands behind them if there are
    /// more.
    pub(super) fn cut_in_bulk(
        &mut self,
        (delimiter, per): (u8, usize),
        owed: u64,
        pool: &Arc<Pool>,
    ) -> (Option<Cutting>, Option<Vec<u8>>) {
        let bytes = self.unread.bytes();
        let uncut = &bytes[..bytes.len() - self.kept];
        let fresh = &uncut[self.scanned..];
        let found = memchr_iter(delimiter, fresh).count() + self.pending;
        self.pending = found % per;
        let last =
            (found >= per).then(|| memrchr_iter(delimiter, fresh).nth(self.pending)).flatten();
        let Some(last) = last else {
            self.scanned = uncut.len();
            return (None, None);
        };
        self.framing_is_fresh = false;
        let mut end = self.scanned + last + 1;
        let mut count = (found / per) as u64;
        let mut behind = None;
        let extra = count > owed;
        if extra {
            end = nth_end(&uncut[..end], delimiter, owed * per as u64);
            count = owed;
            behind = Some(uncut[end..].to_vec());
            if count == 0 {
                // All of it stays, and is counted from its beginning the next time.
                (self.scanned, self.pending) = (0, 0);
                return (None, behind);
            }
        }
        let (buffer, at) = self.unread.take(end, pool);
        (self.scanned, self.pending) =
            if extra { (0, 0) } else { (self.uncut().len(), self.pending) };
        (Some(Cutting { buffer, at, cut: Cut::at_each(delimiter, per), count }), behind)
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
        let rest = &self.unread.bytes()[from..self.unread.len() - self.kept];
        let scanned = unwind::catch(|| self.framing.scan(rest, position));
        self.seen = if matches!(scanned, Ok(Ok(Scan::Partial))) { rest.len() } else { 0 };
        scanned
    }

    /// Whether an output without a byte is a reply, as the whole output of a process is.
    pub(super) fn may_be_empty(&self) -> bool {
        self.is_at_end() && self.until_eof
    }

    /// Cuts replies off the front: where the body of each is, and where it ends with all that frames it,
    /// counted from the first byte that is not cut.
    pub(super) fn cut_at(
        &mut self,
        mut replies: Vec<(Range<usize>, usize)>,
        pool: &Arc<Pool>,
    ) -> Option<Cutting> {
        let count = replies.len() as u64;
        let (buffer, at) = self.unread.take(replies.last()?.1, pool);
        (self.scanned, self.pending) = (0, 0);
        let ranges: Vec<_> =
            replies.drain(..).map(|(body, _)| body.start + at.start..body.end + at.start).collect();
        Some(Cutting {
            buffer,
            at,
            cut: Cut::Parts { ranges: ranges.into(), next: 0, sides: 0 },
            count,
        })
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
