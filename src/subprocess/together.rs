//! Replies in several parts: where a worker has side outputs, a reply is complete when every output
//! has given its part.
//!
//! # Invariants
//! 1. The k-th part on each output belongs to the k-th packet that is owed.
//! 2. A problem with the reply to a later packet waits until it is that one's turn.

use std::ops::Range;
use std::sync::Arc;

use crate::error::excerpt;
use crate::record::Buffer;
use crate::subprocess::answers::nth_packet;
use crate::subprocess::protocol::Now;
use crate::subprocess::scheduler::{Scheduler, Slot};
use crate::template::framing::{FramingError, Place, Scan};
use crate::window::packet::Cut;
use crate::window::unwind::{self, Payload};

impl Scheduler {
    /// Side outputs: a reply is complete when every output has given its part.
    pub(crate) fn cut_together(&mut self, slot: usize, now: Now) {
        let owed = match &self.slots[slot] {
            Slot::Live(session) => session.owed(),
            _ => return,
        };
        let problem = self.scan_together(slot, owed);
        let Slot::Live(session) = &mut self.slots[slot] else { return };
        let parts = session.outputs.iter().map(|output| output.whole.len() as u64);
        let complete = parts.min().unwrap_or(0).min(owed);
        let sides = session.outputs.len() - 1;
        let mut bytes = Vec::new();
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for _ in 0..complete {
            for output in &mut session.outputs {
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
        let Slot::Live(session) = &self.slots[slot] else { return };
        let left = owed - complete;
        let extra = session.outputs.iter().position(|output| output.whole.len() as u64 > left);
        if let Some(channel) = extra {
            let reply = session.outputs[channel].whole.get(left as usize);
            let said = reply.map_or(String::new(), |reply| excerpt(reply));
            self.too_many(slot, &format!("{said} on {}", self.output_name(channel)), now);
        }
    }

    /// Cuts the parts of replies out of every output, and returns the problem that concerns the
    /// earliest packet.
    fn scan_together(&mut self, slot: usize, owed: u64) -> Option<Problem> {
        let limit = self.spec.policy.reply_limit;
        let Slot::Live(session) = &mut self.slots[slot] else { return None };
        let mut first: Option<Problem> = None;
        for (channel, output) in session.outputs.iter_mut().enumerate() {
            loop {
                let rest = &output.bytes[output.start..output.end];
                let before = output.whole.len() as u64;
                let at_eof = output.eof && before < owed && output.until_eof;
                if rest.is_empty() && !at_eof {
                    break;
                }
                let packet = nth_packet(&session.in_flight, session.held_count + before);
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
                    // Half a reply at the end of a session is no reply: the death is judged, not this.
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
