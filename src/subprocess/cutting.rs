//! From the bytes of a worker to replies.
//!
//! The common case, replies that end at a delimiter, is done in bulk: delimiters are counted, whole
//! buffers change hands, and the consumer's thread finds the single replies. Everything else goes
//! reply by reply through the template's [`Framing`].
//!
//! # Invariants
//! 1. `start <= scanned <= end` in every output, and whole replies are taken off the front as soon as
//!    they are seen: what stays is less than a reply, or nobody's.
//! 2. No more replies are cut than are owed; the first one too many ends the trust in that session.
//! 3. A scanner starts afresh after replies that were cut behind its back.
//!
//! [`Framing`]: crate::template::framing::Framing

use std::ops::Range;
use std::sync::Arc;

use memchr::{memchr_iter, memrchr};

use crate::error::{Error, ErrorKind, excerpt};
use crate::record::{Buffer, Pool};
use crate::subprocess::answers::nth_packet;
use crate::subprocess::protocol::Now;
use crate::subprocess::reading::READ_BYTES;
use crate::subprocess::scheduler::{Scheduler, Slot};
use crate::subprocess::session::{Output, Why};
use crate::template::framing::{Place, Scan};
use crate::template::words::LONGEST_BANNER;
use crate::window::packet::Cut;
use crate::window::unwind::{self, Payload};

impl Scheduler {
    /// Cuts what replies there are.
    pub(crate) fn cut(&mut self, slot: usize, now: Now) {
        let limit = self.spec.policy.reply_limit;
        let checked = self.spec.check.is_some();
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        if session.why == Some(Why::Distrusted)
            || session.why == Some(Why::Timeout)
            || self.stopping.is_some()
        {
            return session.ignore_outputs();
        }
        if session.in_banner && !self.skip_banner(slot, now) {
            return;
        }
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        if self.drain {
            return session.ignore_outputs();
        }
        if session.outputs.len() > 1 {
            return self.cut_together(slot, now);
        }
        match session.outputs[0].framing.delimiter() {
            // Only where one of the replies could be too long must each be looked at.
            Some(delimiter) if !checked && session.outputs[0].unread().len() <= limit => {
                self.cut_in_bulk(slot, delimiter, now);
            }
            _ => self.cut_one_by_one(slot, now),
        }
    }

    /// Skips what a worker prints before its first reply. Whether that is over.
    pub(crate) fn skip_banner(&mut self, slot: usize, now: Now) -> bool {
        let Slot::Live(session) = &mut self.slots[slot] else { return false };
        let output = &mut session.outputs[0];
        let Some(end) = self.spec.words.banner.end(output.unread()) else {
            if output.end - output.start > LONGEST_BANNER {
                let said = excerpt(output.unread());
                let message =
                    format!("the end of the worker's banner has not come; it begins {said}");
                let error = self.describe(slot, ErrorKind::Reply, message);
                self.fail(error.hint("see Template::skip_lines, skip_until and ready"));
            }
            return false;
        };
        output.start += end;
        output.scanned = output.start;
        session.in_banner = false;
        tell!(debug, session, "ready");
        // What it is asked now is answered from now.
        session.head_since = now;
        self.offer(slot);
        true
    }

    fn cut_in_bulk(&mut self, slot: usize, delimiter: u8, now: Now) {
        let pool = Arc::clone(&self.pool);
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        let owed = session.owed();
        let output = &mut session.outputs[0];
        let fresh = &output.bytes[output.scanned..output.end];
        let Some(last) = memrchr(delimiter, fresh) else {
            output.scanned = output.end;
            return;
        };
        output.framing_is_fresh = false;
        let whole_end = output.scanned + last + 1;
        let mut count = memchr_iter(delimiter, &fresh[..=last]).count() as u64;
        let mut end = whole_end;
        let extra = count > owed;
        if extra {
            let whole = &output.bytes[output.start..whole_end];
            end = output.start + nth_end(whole, delimiter, owed);
            count = owed;
        }
        if extra {
            let said = excerpt(&output.bytes[end..output.end]);
            if count > 0 {
                let (buffer, at) = take_front(output, end, &pool);
                self.answered(slot, buffer, at, Cut::at_each(delimiter), count, now);
            }
            return self.too_many(slot, &said, now);
        }
        let (buffer, at) = take_front(output, end, &pool);
        output.scanned = output.end;
        self.answered(slot, buffer, at, Cut::at_each(delimiter), count, now);
    }

    fn cut_one_by_one(&mut self, slot: usize, now: Now) {
        let limit = self.spec.policy.reply_limit;
        let pool = Arc::clone(&self.pool);
        let mut ranges = Vec::new();
        loop {
            let Slot::Live(session) = &mut self.slots[slot] else { return };
            let owed = session.owed();
            let done = ranges.len() as u64;
            let packet = nth_packet(&session.in_flight, session.held_count + done);
            let output = &mut session.outputs[0];
            if !output.framing_is_fresh {
                // Replies were cut in bulk, behind the scanner's back.
                output.framing = self.spec.replies.start();
                output.framing_is_fresh = true;
            }
            let at = ranges.last().map_or(output.start, |(_, end): &(Range<usize>, usize)| *end);
            let rest = &output.bytes[at..output.end];
            let over = rest.is_empty() && !(output.eof && done < owed && output.until_eof);
            let scanned = if over {
                Ok(Ok(Scan::Partial))
            } else {
                let place =
                    Place::new(packet.map_or(u64::MAX, |packet| packet.0), limit, output.eof);
                unwind::catch(|| output.framing.scan(rest, place))
            };
            let problem = match scanned {
                Ok(Ok(Scan::Complete { body, len })) => {
                    if done >= owed {
                        let said = excerpt(rest);
                        self.flush_cut(slot, &mut ranges, &pool, now);
                        return self.too_many(slot, &said, now);
                    }
                    let body = at + body.start..at + body.end;
                    match self.checked(slot, done, &body) {
                        Ok(None) => {
                            ranges.push((body, at + len));
                            continue;
                        }
                        Ok(Some(error)) => Ok(error),
                        Err(payload) => Err(payload),
                    }
                }
                Ok(Ok(Scan::Partial)) => {
                    self.flush_cut(slot, &mut ranges, &pool, now);
                    return;
                }
                Ok(Err(error)) => {
                    if done >= owed {
                        let said = excerpt(rest);
                        self.flush_cut(slot, &mut ranges, &pool, now);
                        if output_is_only_torn(&self.slots[slot]) {
                            return;
                        }
                        return self.too_many(slot, &said, now);
                    }
                    let said = excerpt(rest);
                    if error.is_truncated() {
                        // Half a reply at the end of a session is no reply: the death is judged, not this.
                        self.flush_cut(slot, &mut ranges, &pool, now);
                        return;
                    }
                    Ok(self.not_a_reply(slot, 0, &said, error))
                }
                Err(payload) => Err(payload),
            };
            self.flush_cut(slot, &mut ranges, &pool, now);
            return self.distrust(slot, problem, now);
        }
    }

    /// Delivers the replies in `ranges`, all from the front of stdout.
    fn flush_cut(
        &mut self,
        slot: usize,
        ranges: &mut Vec<(Range<usize>, usize)>,
        pool: &Arc<Pool>,
        now: Now,
    ) {
        let Some(&(_, end)) = ranges.last() else { return };
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        let output = &mut session.outputs[0];
        let start = output.start;
        let count = ranges.len() as u64;
        let (buffer, at) = take_front(output, end, pool);
        output.scanned = output.start;
        // The buffer may have been moved to the front of a smaller one.
        let shift = |position: usize| position - start + at.start;
        let cut: Vec<_> =
            ranges.drain(..).map(|(body, _)| shift(body.start)..shift(body.end)).collect();
        self.answered(
            slot,
            buffer,
            at,
            Cut::Parts { ranges: cut.into(), next: 0, sides: 0 },
            count,
            now,
        );
    }

    /// Asks the user's `check` about a reply that is still in the output's buffer.
    fn checked(
        &self,
        slot: usize,
        done: u64,
        body: &Range<usize>,
    ) -> Result<Option<Error>, Payload> {
        let Slot::Live(session) = &self.slots[slot] else { return Ok(None) };
        self.ask_check(slot, done, &session.outputs[0].bytes[body.clone()])
    }

    /// Asks the user's `check` about the reply after `done` others.
    pub(crate) fn ask_check(
        &self,
        slot: usize,
        done: u64,
        reply: &[u8],
    ) -> Result<Option<Error>, Payload> {
        let Some(check) = &self.spec.check else { return Ok(None) };
        let Slot::Live(session) = &self.slots[slot] else { return Ok(None) };
        let mut skip = session.held_count + done;
        for run in &session.in_flight {
            if skip < run.len() as u64 {
                let request = run.batch.request(run.from + skip as usize);
                let verdict = unwind::catch(|| check(request, reply))?;
                return Ok(verdict.err().map(|error| {
                    let message = format!("check refused the reply {}", excerpt(reply));
                    self.describe(slot, ErrorKind::Check, message).because(error)
                }));
            }
            skip -= run.len() as u64;
        }
        Ok(None)
    }
}

fn output_is_only_torn(slot: &Slot) -> bool {
    matches!(slot, Slot::Live(session) if session.outputs[0].eof)
}

/// Cuts the front `[start..end]` off an output's buffer.
///
/// A well-filled buffer changes hands, and only the beginning of the next reply is copied into a new
/// one; a nearly empty one stays, and what little it holds is copied out.
pub(crate) fn take_front(
    output: &mut Output,
    end: usize,
    pool: &Arc<Pool>,
) -> (Arc<Buffer>, Range<usize>) {
    let taken = output.start..end;
    if taken.len() < output.bytes.len() / 4 {
        let small = output.bytes[taken.clone()].to_vec();
        output.start = end;
        if output.start == output.end {
            output.start = 0;
            output.end = 0;
        }
        output.scanned = output.end;
        let at = 0..small.len();
        return (Arc::new(Buffer::new(small, None)), at);
    }
    let rest = output.end - end;
    let mut fresh = pool.take().unwrap_or_else(|| vec![0; READ_BYTES]);
    if fresh.len() < rest {
        fresh.resize(rest.next_power_of_two(), 0);
    }
    fresh[..rest].copy_from_slice(&output.bytes[end..output.end]);
    let mut full = std::mem::replace(&mut output.bytes, fresh);
    if full.len() > 4 * READ_BYTES {
        // Grown for one large reply, it is held until that is yielded, and only the reply is counted.
        full.truncate(end);
        full.shrink_to_fit();
    }
    output.start = 0;
    output.end = rest;
    output.scanned = rest;
    (Arc::new(Buffer::new(full, Some(Arc::clone(pool)))), taken)
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
