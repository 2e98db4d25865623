//! From the bytes of a worker to spans of replies.
//!
//! The common case, replies that end at a delimiter, is done in bulk: delimiters are counted, whole
//! buffers change hands, and the consumer's thread finds the single replies. Everything else goes
//! reply by reply through the template's [`Framing`].
//!
//! [`Framing`]: crate::template::framing::Framing

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use memchr::{memchr_iter, memrchr};

use crate::error::{Error, ErrorKind, excerpt};
use crate::record::{Buffer, PacketId, Pool, Run};
use crate::stats::Counters;
use crate::stream::outlet::Order;
use crate::stream::packet::{Cut, Outcome, Replies, Span};
use crate::stream::unwind::{self, Payload};
use crate::swarm::core::{Core, Slot, Stopping};
use crate::swarm::life::{Held, Now, Output, Phase, Why};
use crate::template::framing::{FramingError, FramingErrorKind, Place, Scan};
use crate::template::words::LONGEST_BANNER;

/// The room offered to one read. A pipe holds this much by default.
pub(crate) const READ_BYTES: usize = 64 << 10;

impl Core {
    /// Whether the outputs of this slot may be read now. Over the byte bound only the worker that
    /// holds what the consumer waits for may be.
    pub(crate) fn may_read(&self, slot: usize) -> bool {
        if !self.gate.is_full() || self.stopping.is_some() {
            return true;
        }
        let Slot::Live(life) = &self.slots[slot] else { return true };
        // What a worker has left in its pipe when it exits is little, and lost if it is not read in time.
        if life.owed() == 0 || matches!(life.phase, Phase::Exited { .. }) {
            return true;
        }
        let yielded = self.gate.total_yielded();
        match self.order {
            Order::Completion => yielded >= self.resolved,
            Order::Input => {
                // What was sent again may stand behind later packets: those must come out first.
                let head = |run: &Run| {
                    let first = run.first().since(self.origin);
                    (first..first + run.len() as u64).contains(&yielded)
                };
                life.in_flight.iter().any(head)
                    // The head is in nobody's hands: whoever makes room first will get it.
                    || self.pending.front().is_some_and(|job| head(&job.run))
            }
        }
    }

    /// Room for the next read of an output, at least one byte.
    pub(crate) fn read_room(&mut self, slot: usize, output: usize) -> &mut [u8] {
        let pool = Arc::clone(&self.pool);
        let Slot::Live(life) = &mut self.slots[slot] else { return &mut [] };
        let output = &mut life.outputs[output];
        if output.bytes.is_empty() {
            output.bytes = pool.take().unwrap_or_else(|| vec![0; READ_BYTES]);
            debug_assert!(output.start == 0 && output.end == 0);
        }
        if output.start > 0 && output.start == output.end {
            output.start = 0;
            output.end = 0;
            output.scanned = 0;
        }
        let room = output.bytes.len() - output.end;
        if room < output.bytes.len() / 4 {
            if output.start > output.bytes.len() / 2 {
                output.bytes.copy_within(output.start..output.end, 0);
                output.end -= output.start;
                output.scanned -= output.start;
                output.start = 0;
            } else if room == 0 || output.end - output.start > READ_BYTES / 2 {
                let len = output.bytes.len() * 2;
                output.bytes.resize(len, 0);
            }
        }
        &mut output.bytes[output.end..]
    }

    /// `n` bytes were read into the room.
    pub(crate) fn read(&mut self, slot: usize, output: usize, n: usize, now: Now) {
        Counters::add(&self.counters().read_bytes, n as u64);
        self.heard = now;
        let patience = self.patience();
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        life.moved = now;
        life.patience = patience;
        life.next_probe = now;
        life.outputs[output].end += n;
        self.cut(slot, now);
    }

    /// An output has come to its end.
    pub(crate) fn read_closed(&mut self, slot: usize, output: usize, now: Now) {
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        if std::mem::replace(&mut life.outputs[output].eof, true) {
            return;
        }
        if !self.drain && matches!(life.phase, Phase::Open | Phase::Ending) {
            life.closed_output_at.get_or_insert(now);
        }
        self.cut(slot, now);
        self.watch(slot, now);
        self.check_drained(slot);
    }

    pub(crate) fn heard_stderr(&mut self, slot: usize, bytes: &[u8], now: Now) {
        Counters::add(&self.counters().read_bytes, bytes.len() as u64);
        self.heard = now;
        if let Slot::Live(life) = &mut self.slots[slot] {
            life.stderr.push(bytes);
            life.moved = now;
        }
    }

    pub(crate) fn stderr_closed(&mut self, slot: usize) {
        if let Slot::Live(life) = &mut self.slots[slot] {
            life.stderr_eof = true;
        }
        self.check_drained(slot);
    }

    /// Cuts what replies there are.
    fn cut(&mut self, slot: usize, now: Now) {
        let limit = self.spec.policy.reply_limit;
        let checked = self.spec.check.is_some();
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        if life.why == Some(Why::Distrusted)
            || life.why == Some(Why::Timeout)
            || self.stopping.is_some()
        {
            return life.ignore_outputs();
        }
        if life.in_banner && !self.skip_banner(slot, now) {
            return;
        }
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        if self.drain {
            return life.ignore_outputs();
        }
        if life.outputs.len() > 1 {
            return self.cut_together(slot, now);
        }
        match life.outputs[0].framing.delimiter() {
            // Only where one of the replies could be too long must each be looked at.
            Some(delimiter) if !checked && life.outputs[0].unread().len() <= limit => {
                self.cut_in_bulk(slot, delimiter, now);
            }
            _ => self.cut_one_by_one(slot, now),
        }
    }

    /// Skips what a worker prints before its first reply. Whether that is over.
    fn skip_banner(&mut self, slot: usize, now: Now) -> bool {
        let Slot::Live(life) = &mut self.slots[slot] else { return false };
        let output = &mut life.outputs[0];
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
        life.in_banner = false;
        // What it is asked now is answered from now.
        life.head_since = now;
        self.offer(slot);
        true
    }

    fn cut_in_bulk(&mut self, slot: usize, delimiter: u8, now: Now) {
        let pool = Arc::clone(&self.pool);
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        let owed = life.owed();
        let output = &mut life.outputs[0];
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
            let Slot::Live(life) = &mut self.slots[slot] else { return };
            let owed = life.owed();
            let done = ranges.len() as u64;
            let packet = nth_packet(&life.in_flight, life.held_count + done);
            let output = &mut life.outputs[0];
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
                        // Half a reply at the end of a life is no reply: the death is judged, not this.
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
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        let output = &mut life.outputs[0];
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
        let Slot::Live(life) = &self.slots[slot] else { return Ok(None) };
        self.ask_check(slot, done, &life.outputs[0].bytes[body.clone()])
    }

    /// Asks the user's `check` about the reply after `done` others.
    fn ask_check(&self, slot: usize, done: u64, reply: &[u8]) -> Result<Option<Error>, Payload> {
        let Some(check) = &self.spec.check else { return Ok(None) };
        let Slot::Live(life) = &self.slots[slot] else { return Ok(None) };
        let mut skip = life.held_count + done;
        for run in &life.in_flight {
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

    /// Side outputs: a reply is complete when every output has given its part.
    fn cut_together(&mut self, slot: usize, now: Now) {
        let owed = match &self.slots[slot] {
            Slot::Live(life) => life.owed(),
            _ => return,
        };
        let problem = self.scan_together(slot, owed);
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        let parts = life.outputs.iter().map(|output| output.whole.len() as u64);
        let complete = parts.min().unwrap_or(0).min(owed);
        let sides = life.outputs.len() - 1;
        let mut bytes = Vec::new();
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for _ in 0..complete {
            for output in &mut life.outputs {
                let start = bytes.len();
                bytes.extend(output.whole.pop_front().unwrap_or_default());
                ranges.push(start..bytes.len());
            }
        }
        let mut refused = None;
        for (done, reply) in ranges.chunks(1 + sides).enumerate() {
            match self.ask_check(slot, done as u64, &bytes[reply[0].clone()]) {
                Ok(None) => {}
                Ok(Some(error)) => refused = Some((done, Ok(error))),
                Err(payload) => refused = Some((done, Err(payload))),
            }
            if refused.is_some() {
                break;
            }
        }
        let good = refused.as_ref().map_or(complete, |(done, _)| *done as u64);
        ranges.truncate(good as usize * (1 + sides));
        if let Some(last) = ranges.last() {
            let at = 0..last.end;
            let cut = Cut::Parts { ranges: ranges.into(), next: 0, sides };
            self.answered(slot, Arc::new(Buffer::new(bytes, None)), at, cut, good, now);
        }
        if let Some((_, refused)) = refused {
            return self.distrust(slot, refused, now);
        }
        // What is wrong with the reply to a later packet is found again when it is that one's turn.
        if let Some(problem) = problem.filter(|problem| problem.before == complete) {
            match problem.what {
                Ok(_) if complete == owed => {
                    let name = self.output_name(problem.channel);
                    self.too_many(slot, &format!("{} on {name}", problem.said), now);
                }
                Ok(error) => {
                    let error = self.not_a_reply(slot, problem.channel, &problem.said, error);
                    self.distrust(slot, Ok(error), now);
                }
                Err(payload) => self.distrust(slot, Err(payload), now),
            }
            return;
        }
        let Slot::Live(life) = &self.slots[slot] else { return };
        let left = owed - complete;
        let extra = life.outputs.iter().position(|output| output.whole.len() as u64 > left);
        if let Some(channel) = extra {
            let reply = life.outputs[channel].whole.get(left as usize);
            let said = reply.map_or(String::new(), |reply| excerpt(reply));
            self.too_many(slot, &format!("{said} on {}", self.output_name(channel)), now);
        }
    }

    /// Cuts the parts of replies out of every output, and returns the problem that concerns the
    /// earliest packet.
    fn scan_together(&mut self, slot: usize, owed: u64) -> Option<Problem> {
        let limit = self.spec.policy.reply_limit;
        let Slot::Live(life) = &mut self.slots[slot] else { return None };
        let mut first: Option<Problem> = None;
        for (channel, output) in life.outputs.iter_mut().enumerate() {
            loop {
                let rest = &output.bytes[output.start..output.end];
                let before = output.whole.len() as u64;
                let at_eof = output.eof && before < owed && output.until_eof;
                if rest.is_empty() && !at_eof {
                    break;
                }
                let packet = nth_packet(&life.in_flight, life.held_count + before);
                let place =
                    Place::new(packet.map_or(u64::MAX, |packet| packet.0), limit, output.eof);
                let what = match unwind::catch(|| output.framing.scan(rest, place)) {
                    Ok(Ok(Scan::Partial)) => break,
                    Ok(Ok(Scan::Complete { body, len })) => {
                        let taken = rest[body].to_vec();
                        output.start += len;
                        output.scanned = output.start;
                        output.whole.push_back(taken);
                        continue;
                    }
                    // Half a reply at the end of a life is no reply: the death is judged, not this.
                    Ok(Err(error)) if error.is_truncated() => break,
                    Ok(Err(error)) => Ok(error),
                    Err(payload) => Err(payload),
                };
                if first.as_ref().is_none_or(|first| before < first.before) {
                    first = Some(Problem { channel, before, said: excerpt(rest), what });
                }
                break;
            }
        }
        first
    }

    fn not_a_reply(&self, slot: usize, channel: usize, said: &str, cause: FramingError) -> Error {
        let name = self.output_name(channel);
        let message = format!("no reply could be cut out of {name}, which goes on {said}");
        let too_long = matches!(cause.kind(), FramingErrorKind::TooLong { .. });
        let error = self.describe(slot, ErrorKind::Reply, message).because(cause);
        if too_long { error.hint("raise the limit with Template::reply_limit") } else { error }
    }

    pub(crate) fn output_name(&self, channel: usize) -> String {
        if channel == 0 {
            return "stdout".to_owned();
        }
        let framed = self.spec.channels.side_outputs.iter().filter(|side| side.framing.is_some());
        framed
            .map(|side| format!("the side output `{}`", side.name))
            .nth(channel - 1)
            .unwrap_or_default()
    }

    /// The packet that is to be answered next fails; nothing more of this life is believed, what it
    /// still owes goes to others, and so does what it has answered without proof.
    fn distrust(&mut self, slot: usize, problem: Result<Error, Payload>, now: Now) {
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        // Replies that were held until now are not believed either: those packets go to others too.
        let Some(packet) = take_nth(&mut life.in_flight, life.held_count) else { return };
        life.answered += 1;
        life.why = Some(Why::Distrusted);
        let held = life.take_held();
        self.gate.release(held);
        match problem {
            Ok(error) => self.emit_failure(packet, error),
            Err(payload) => self.emit_panic(packet, payload),
        }
        self.kill_life(slot, now);
    }

    /// `count` replies came, to the packets at the front.
    pub(crate) fn answered(
        &mut self,
        slot: usize,
        buffer: Arc<Buffer>,
        at: Range<usize>,
        cut: Cut,
        count: u64,
        now: Now,
    ) {
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        life.moved = now;
        life.head_since = now;
        // A whole output proves nothing before it is known how its process ended.
        if (!life.stdin_closed && !self.spec.is_until_eof()) || mutated!(HeldNothing) {
            life.proven = true;
        }
        self.gate.hold(at.len());
        self.ever_answered = true;
        self.streak = 0;
        if !life.proven {
            life.held_count += count;
            life.held.push(Held { buffer, at, cut, count });
            self.watch(slot, now);
            return;
        }
        life.depth.answered(count, life.given - life.answered - count, now);
        self.deliver(slot, buffer, at, cut, count);
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        if life.owed() == 0 {
            life.prompt |= life.is_open();
            life.quarantined = false;
            if self.spec.life_records().is_some_and(|most| life.given >= most) {
                return self.part_from(slot, Why::Recycled, now);
            }
            if let Some(age) = self.spec.policy.recycle_age
                && life.is_open()
                && now.saturating_sub(life.started) >= age
            {
                return self.recycle_life(slot, now);
            }
        }
        if !mutated!(LostWakeUp) {
            self.offer(slot);
        }
        self.watch(slot, now);
    }

    /// Makes spans of replies, cut at the borders of the runs they answer. Their bytes are counted.
    pub(crate) fn deliver(
        &mut self,
        slot: usize,
        buffer: Arc<Buffer>,
        mut at: Range<usize>,
        mut cut: Cut,
        mut count: u64,
    ) {
        Counters::add(&self.counters().replies, count);
        while count > 0 {
            let Slot::Live(life) = &mut self.slots[slot] else { return };
            let Some(front) = life.in_flight.front_mut() else { return };
            let here = count.min(front.len() as u64);
            let run = if here < front.len() as u64 {
                front.split_front(here as usize)
            } else {
                match life.in_flight.pop_front() {
                    Some(run) => run,
                    None => return,
                }
            };
            life.answered += here;
            count -= here;
            let label = Arc::clone(&life.label);
            let (these, these_cut) = if count == 0 {
                (at.clone(), cut.clone())
            } else {
                split_cut(&buffer, &mut at, &mut cut, here)
            };
            let first = run.first();
            let mut weight = these.len();
            if !self.attempts.is_empty() {
                for i in 0..here {
                    self.attempts.remove(&first.plus(i).0);
                }
            }
            let requests = if self.keep_requests {
                weight += run.weight();
                Some(run)
            } else {
                self.spend(run);
                None
            };
            let outcome = Outcome::Replies(Replies {
                buffer: Arc::clone(&buffer),
                at: these,
                cut: these_cut,
                label,
                requests,
            });
            self.emit(Span { first, count: here, weight, outcome });
        }
    }

    /// More replies than requests: from here on nothing of this life can be trusted.
    fn too_many(&mut self, slot: usize, said: &str, now: Now) {
        if mutated!(ExtraIgnored) {
            return;
        }
        let Slot::Live(life) = &self.slots[slot] else { return };
        let unasked = life.given == 0 && !life.is_open();
        if unasked && self.spec.is_until_eof() {
            // What a tool makes of no input at all is nobody's reply (`gzip` has twenty bytes for it).
            return;
        }
        // Nothing can be shifted by what a life says that was never asked.
        let over = (unasked || self.all_resolved()) && self.stopping.is_none();
        let Slot::Live(life) = &mut self.slots[slot] else { return };
        let (owed, got) = (life.given, life.given + 1);
        life.why = Some(Why::Distrusted);
        let message = format!(
            "the worker wrote more replies than it was sent requests ({owed}); the extra one begins {said}"
        );
        let error = self
            .describe(slot, ErrorKind::ReplyCount { owed, got }, message)
            .hint("if this is a banner or a prompt, skip it or use a sentinel framing; if the tool answers more than once, frame its replies by what ends them");
        if over {
            self.end.remarks.push(error);
            self.kill_life(slot, now);
        } else if self.stopping != Some(Stopping::Dropped) {
            self.fail(error);
        }
    }
}

/// Why no reply can be cut out of an output.
struct Problem {
    channel: usize,
    /// How many whole replies are before it in that output.
    before: u64,
    /// What stands there.
    said: String,
    what: Result<FramingError, Payload>,
}

fn output_is_only_torn(slot: &Slot) -> bool {
    matches!(slot, Slot::Live(life) if life.outputs[0].eof)
}

/// Cuts the front `[start..end]` off an output's buffer.
///
/// A well-filled buffer changes hands, and only the beginning of the next reply is copied into a new
/// one; a nearly empty one stays, and what little it holds is copied out.
fn take_front(output: &mut Output, end: usize, pool: &Arc<Pool>) -> (Arc<Buffer>, Range<usize>) {
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
    let full = std::mem::replace(&mut output.bytes, fresh);
    output.start = 0;
    output.end = rest;
    output.scanned = rest;
    (Arc::new(Buffer::new(full, Some(Arc::clone(pool)))), taken)
}

/// The length of the first `n` delimited pieces. Counts in blocks, then looks closely.
fn nth_end(bytes: &[u8], delimiter: u8, n: u64) -> usize {
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

/// Splits the first `n` replies off.
fn split_cut(buffer: &Buffer, at: &mut Range<usize>, cut: &mut Cut, n: u64) -> (Range<usize>, Cut) {
    match cut {
        Cut::Delimiter { delimiter, .. } => {
            let len = nth_end(&buffer[at.clone()], *delimiter, n);
            let front = at.start..at.start + len;
            at.start += len;
            (front, cut.clone())
        }
        Cut::Parts { ranges, next, sides } => {
            let front = Cut::Parts { ranges: Arc::clone(ranges), next: *next, sides: *sides };
            *next += n as usize * (1 + *sides);
            // The bytes are shared; each span is charged with what it really refers to.
            let end = ranges.get(*next).map_or(at.end, |range| range.start).max(at.start);
            let taken = at.start..end;
            at.start = end;
            (taken, front)
        }
    }
}

fn nth_packet(in_flight: &VecDeque<Run>, mut n: u64) -> Option<PacketId> {
    for run in in_flight {
        if n < run.len() as u64 {
            return Some(run.first().plus(n));
        }
        n -= run.len() as u64;
    }
    None
}

/// Takes one packet out of the middle.
fn take_nth(in_flight: &mut VecDeque<Run>, mut n: u64) -> Option<Run> {
    for i in 0..in_flight.len() {
        let len = in_flight[i].len() as u64;
        if n >= len {
            n -= len;
            continue;
        }
        if n > 0 {
            let front = in_flight[i].split_front(n as usize);
            in_flight.insert(i, front);
            return take_nth(in_flight, in_flight.range(..=i).map(|run| run.len() as u64).sum());
        }
        if len == 1 {
            return in_flight.remove(i);
        }
        return Some(in_flight[i].split_front(1));
    }
    None
}

/// Takes the first packet off the front run.
pub(crate) fn pop_front(in_flight: &mut VecDeque<Run>) -> Option<Run> {
    let front = in_flight.front_mut()?;
    if front.len() > 1 { Some(front.split_front(1)) } else { in_flight.pop_front() }
}
