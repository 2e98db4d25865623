//! Replies in several parts: where a worker has side outputs, a reply is complete when every output
//! has given its part.
//!
//! # Invariants
//! 1. The k-th part on each output belongs to the k-th packet that is owed.
//! 2. A problem with the reply to a later packet waits until it is that one's turn.

use std::ops::Range;
use std::sync::Arc;

use crate::error::excerpt;
use crate::framing::{FramingError, FramingErrorKind, Position, ReplyFraming, Scan};
use crate::record::Buffer;
use crate::subprocess::session::output::Cutting;
use crate::subprocess::session::{Context, News, Output, Session};
use crate::window::packet::Cut;
use crate::window::unwind::Payload;

impl Session {
    /// Cuts what replies are complete.
    pub(super) fn cut_together(&mut self, cx: &Context<'_>, news: &mut News) {
        let owed = self.owed();
        let problem = self.scan_together(owed, cx);
        let complete = self.outputs.iter().map(Output::parts).min().unwrap_or(0).min(owed);
        let sides = self.outputs.len() - 1;
        let mut bytes = Vec::new();
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for _ in 0..complete {
            for output in &mut self.outputs {
                let start = bytes.len();
                bytes.extend(output.take_part());
                ranges.push(start..bytes.len());
            }
        }
        let mut refused = None;
        for (done, reply) in ranges.chunks(1 + sides).enumerate() {
            match self.check_unless_held(done as u64, &bytes[reply[0].clone()], cx) {
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
            let buffer = Arc::new(Buffer::new(bytes, None));
            self.answered(Cutting { buffer, at, cut, count: good }, cx, news);
        }
        if let Some((_, refused)) = refused {
            return self.distrust(refused, cx, news);
        }
        // What is wrong with the reply to a later packet is found again when it is that one's turn.
        if let Some(problem) = problem.filter(|problem| problem.before == complete) {
            match problem.what {
                Ok(error) if complete == owed => {
                    let name = output_name(problem.channel, cx);
                    let rest = self.outputs[problem.channel].uncut().to_vec();
                    let cause = Some(error).filter(|error| !error.is_truncated());
                    self.too_many(&rest, &format!("{} on {name}", problem.said), cause, cx, news);
                }
                Ok(error) => {
                    let error = self.not_a_reply(problem.channel, &problem.said, error, cx);
                    self.distrust(Ok(error), cx, news);
                }
                Err(payload) => self.distrust(Err(payload), cx, news),
            }
            return;
        }
        let left = owed - complete;
        if let Some(channel) = self.outputs.iter().position(|output| output.parts() > left) {
            let part = self.outputs[channel].part(left).unwrap_or_default().to_vec();
            let name = output_name(channel, cx);
            self.too_many(&part, &format!("{} on {name}", excerpt(&part)), None, cx, news);
        }
    }

    /// Cuts the parts of replies out of every output, and returns the problem that concerns the
    /// earliest packet.
    fn scan_together(&mut self, owed: u64, cx: &Context<'_>) -> Option<PartProblem> {
        let limit = cx.spec.policy.reply_limit;
        let mut first: Option<PartProblem> = None;
        let last_words = cx.spec.words.skip_at_end.as_deref();
        for (channel, output) in self.outputs.iter_mut().enumerate() {
            let Some(framing) = framing(channel, cx) else { continue };
            let proven = framing.is_until_eof() || framing.as_sentinel().is_some();
            loop {
                let before = output.parts();
                let at_eof = before < owed && output.may_be_empty();
                if output.uncut().is_empty() && !at_eof {
                    break;
                }
                let packet = self.flight.next_after(before);
                let packet = packet.map_or(u64::MAX, |packet| packet.0);
                let position = Position::new(packet, limit, output.is_closed());
                // Behind the last answer half of another one is as much too much as a whole.
                let tail_counts = output.is_closed() && before >= owed && !proven;
                let what = match output.scan(framing, 0, position) {
                    Ok(Ok(Scan::Partial)) if tail_counts => Ok(FramingErrorKind::Truncated.into()),
                    Ok(Ok(Scan::Partial)) => break,
                    Ok(Ok(Scan::Complete { body, len })) => {
                        output.keep_part(body, len);
                        continue;
                    }
                    Ok(Err(error)) if error.is_half() && tail_counts => Ok(error),
                    // Half a reply at the end of a session is no reply: the death is judged, not this.
                    Ok(Err(error)) if error.is_truncated() => break,
                    // Nor is half of its last words a reply that is wrong.
                    Ok(Err(_))
                        if channel == 0
                            && last_words.is_some_and(|words| output.goes_on_as(0, words)) =>
                    {
                        break;
                    }
                    Ok(Err(error)) => Ok(error),
                    Err(payload) => Err(payload),
                };
                if first.as_ref().is_none_or(|first| before < first.before) {
                    let said = excerpt(output.uncut());
                    first = Some(PartProblem { channel, before, said, what });
                }
                break;
            }
        }
        first
    }
}

/// How the parts on an output are framed.
fn framing<'a>(channel: usize, cx: &Context<'a>) -> Option<&'a ReplyFraming> {
    if channel == 0 {
        return Some(&cx.spec.replies);
    }
    let sides = cx.spec.channels.side_outputs.iter().filter_map(|side| side.framing.as_ref());
    sides.into_iter().nth(channel - 1)
}

/// What an output is called in messages.
pub(super) fn output_name(channel: usize, cx: &Context<'_>) -> String {
    if channel == 0 {
        return "stdout".to_owned();
    }
    let framed = cx.spec.channels.side_outputs.iter().filter(|side| side.framing.is_some());
    framed
        .map(|side| format!("the side output `{}`", side.name))
        .nth(channel - 1)
        .unwrap_or_default()
}

/// Why no part of a reply can be cut out of an output.
struct PartProblem {
    channel: usize,
    /// How many whole parts are before it in that output.
    before: u64,
    /// What stands there.
    said: String,
    what: Result<FramingError, Payload>,
}
