//! From the bytes of a worker to replies, and from replies to spans.
//!
//! The common case, replies that end at a delimiter, is done in bulk: delimiters are counted, whole
//! buffers change hands, and the consumer's thread finds the single replies. Everything else goes
//! reply by reply through the template's framing.
//!
//! # Invariants
//! 1. No more replies are cut than are owed; the first one too many ends the trust in that session. So does the half of
//!    one that stands behind the last at the end of the output.
//! 2. Replies that are not proven are held.
//! 3. What may be the tool's declared last words is kept until it is known, or for a while; see [`super::last_words`].

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, excerpt};
use crate::framing::{FramingError, Position, Scan};
use crate::record::{Buffer, PacketId, Run};
use crate::subprocess::session::output::Cutting;
use crate::subprocess::session::{Context, News, Output, Session, Why};
use crate::subprocess::wording;
use crate::template::words::LONGEST_BANNER;
use crate::window::packet::{Cut, Outcome, Replies, Span};
use crate::window::unwind::{self, Payload};

/// What is wrong with the reply that is next: an error, or a panic of the user's code.
pub(super) type Problem = Result<Error, Payload>;

impl Session {
    /// Cuts what replies there are.
    pub(super) fn cut(&mut self, cx: &Context<'_>, news: &mut News) {
        if cx.stopping || matches!(self.why, Some(Why::Distrusted | Why::Timeout)) {
            return self.outputs.iter_mut().for_each(Output::ignore);
        }
        if self.in_banner && !self.skip_banner(cx, news) {
            return;
        }
        if cx.drain {
            return self.outputs.iter_mut().for_each(Output::ignore);
        }
        if cx.spec.words.skip_at_end.is_some() {
            self.cut_before_last_words(cx, news);
        } else {
            self.cut_what_is_whole(cx, news);
        }
    }

    /// Cuts all the replies that stand in what is not kept.
    pub(super) fn cut_what_is_whole(&mut self, cx: &Context<'_>, news: &mut News) {
        if self.outputs.len() > 1 {
            return self.cut_together(cx, news);
        }
        let limit = cx.spec.policy.reply_limit;
        match self.outputs[0].counted() {
            // Only where one of the replies could be too long must each be looked at.
            Some(counted) if cx.spec.check.is_none() && self.outputs[0].uncut().len() <= limit => {
                self.cut_in_bulk(counted, cx, news);
            }
            _ => self.cut_one_by_one(cx, news),
        }
    }

    /// Skips what a worker prints before its first reply. Whether that is over.
    #[cold]
    fn skip_banner(&mut self, cx: &Context<'_>, news: &mut News) -> bool {
        let output = &mut self.outputs[0];
        let Some(end) = cx.spec.words.banner.end(output.uncut()) else {
            if output.uncut().len() > LONGEST_BANNER {
                let said = excerpt(output.uncut());
                let message =
                    format!("the end of the worker's banner has not come; it begins {said}");
                let error = self.describe(ErrorKind::Reply, message);
                news.fatal = Some(error.hint("see Template::skip_lines, skip_until and ready"));
            }
            return false;
        };
        output.skip(end);
        self.in_banner = false;
        self.was_ready = cx.spec.words.banner.holds_requests();
        tell!(debug, self, "ready");
        // What it is asked now is answered from now.
        self.head_since = cx.now.patient;
        true
    }

    fn cut_in_bulk(&mut self, counted: (u8, usize), cx: &Context<'_>, news: &mut News) {
        let owed = self.owed();
        let (cutting, behind) = self.outputs[0].cut_in_bulk(counted, owed, cx.pool);
        if let Some(cutting) = cutting {
            self.answered(cutting, cx, news);
        }
        let output = &self.outputs[0];
        // Behind the last answer half of another one is as much too much as a whole.
        let tail = (output.is_closed() && self.owed() == 0).then(|| output.uncut().to_vec());
        if let Some(behind) = behind.or(tail.filter(|tail| !tail.is_empty())) {
            self.too_many(&behind, &excerpt(&behind), None, cx, news);
        }
    }

    #[inline(never)]
    fn cut_one_by_one(&mut self, cx: &Context<'_>, news: &mut News) {
        let limit = cx.spec.policy.reply_limit;
        let owed = self.owed();
        // Where each reply is proven, what stands behind the last one is noise.
        let tail_counts = self.outputs[0].is_closed() && !cx.spec.proves_replies();
        let mut replies: Vec<(Range<usize>, usize)> = Vec::new();
        let problem = loop {
            let done = replies.len() as u64;
            let from = replies.last().map_or(0, |(_, end)| *end);
            let packet = self.flight.next_after(done);
            let output = &mut self.outputs[0];
            let nothing = output.uncut().len() == from;
            if nothing && !(done < owed && output.may_be_empty()) {
                break None;
            }
            let position = Position::new(
                packet.map_or(u64::MAX, |packet| packet.0),
                limit,
                output.is_at_end(),
            );
            let scanned = output.scan(&cx.spec.replies, from, position);
            let said = |session: &Self| excerpt(&session.outputs[0].uncut()[from..]);
            match scanned {
                // Behind the last answer half of another one is as much too much as a whole.
                Ok(Ok(Scan::Partial)) if done >= owed && tail_counts => {
                    break Some(Extra(None));
                }
                Ok(Ok(Scan::Partial)) => break None,
                // Half of its last words is not too much, nor a reply that is wrong.
                Ok(Ok(Scan::Complete { .. }))
                    if done >= owed && self.begins_last_words(from, cx) =>
                {
                    break None;
                }
                Ok(Err(_)) if self.begins_last_words(from, cx) => break None,
                Ok(Ok(Scan::Complete { .. })) if done >= owed => break Some(Extra(None)),
                Ok(Ok(Scan::Complete { body, len })) => {
                    let body = from + body.start..from + body.end;
                    let reply = &self.outputs[0].uncut()[body.clone()];
                    match self.check_unless_held(done, reply, cx) {
                        Ok(None) => replies.push((body, from + len)),
                        Ok(Some(error)) => break Some(Wrong(Ok(error))),
                        Err(payload) => break Some(Wrong(Err(payload))),
                    }
                }
                Ok(Err(error)) if error.is_half() && done >= owed && tail_counts => {
                    break Some(Extra(None));
                }
                // Half a reply at the end of a session is no reply: the death is judged, not this.
                Ok(Err(error)) if error.is_truncated() => break None,
                Ok(Err(error))
                    if done > 0
                        && error.disproves().map(PacketId) == self.flight.next_after(done - 1) =>
                {
                    // The mark that ended the reply before came again: it is that one's packet that fails.
                    let said = said(self);
                    replies.pop();
                    break Some(Wrong(Ok(self.not_a_reply(0, &said, error, cx))));
                }
                Ok(Err(error)) if done >= owed => break Some(Extra(Some(error))),
                Ok(Err(error)) => {
                    let said = said(self);
                    break Some(Wrong(Ok(self.not_a_reply(0, &said, error, cx))));
                }
                Err(payload) => break Some(Wrong(Err(payload))),
            }
        };
        if let Some(cutting) = self.outputs[0].cut_at(replies, cx.pool) {
            self.answered(cutting, cx, news);
        }
        match problem {
            None => {}
            Some(Extra(error)) => {
                let rest = self.outputs[0].uncut().to_vec();
                self.too_many(&rest, &excerpt(&rest), error, cx, news);
            }
            Some(Wrong(problem)) => self.distrust(problem, cx, news),
        }
    }

    /// The same as [`check`](Self::check), but for a whole output: whether that is a reply is known when it is
    /// known how its process ended, and not before.
    pub(super) fn check_unless_held(
        &self,
        done: u64,
        reply: &[u8],
        cx: &Context<'_>,
    ) -> Result<Option<Error>, Payload> {
        if cx.spec.is_until_eof() { Ok(None) } else { self.check(done, reply, cx) }
    }

    /// Asks the user's `check` about the reply after `done` others.
    pub(super) fn check(
        &self,
        done: u64,
        reply: &[u8],
        cx: &Context<'_>,
    ) -> Result<Option<Error>, Payload> {
        let (Some(check), Some(request)) = (&cx.spec.check, self.flight.request_after(done)) else {
            return Ok(None);
        };
        let verdict = unwind::catch(|| check(request, reply))?;
        Ok(verdict.err().map(|error| {
            let message = format!("check refused the reply {}", excerpt(reply));
            self.describe(ErrorKind::Check, message).because(error).hint(wording::REFUSED)
        }))
    }

    /// Replies came, to the packets that are next.
    pub(super) fn answered(&mut self, cutting: Cutting, cx: &Context<'_>, news: &mut News) {
        let now = cx.now.patient;
        if self.far.is_some() {
            news.answer_took = Some(now.saturating_sub(self.head_since));
        }
        self.moved = now;
        self.head_since = now;
        if self.flight.replies() == 0 {
            tell!(debug, self, "answering");
        }
        // A whole output proves nothing before it is known how its process ended.
        self.proven |= !self.stdin_closed && !cx.spec.is_until_eof();
        news.held += cutting.at.len();
        // Nor is the whole output of a process an answer before that: one that was broken has said nothing.
        news.progress |= !cx.spec.is_until_eof();
        if !self.proven {
            return self.flight.hold(cutting);
        }
        let left = self.flight.len() - cutting.count;
        self.depth.answered(cutting.count, left, now);
        self.deliver(cutting, cx, news);
        if self.owed() == 0 {
            self.prompt |= self.is_open();
            self.quarantined = false;
            if cx.spec.session_records().is_some_and(|most| self.flight.given() >= most) {
                self.part(Why::Recycled, cx, news);
            }
        }
    }

    /// Makes spans of replies, cut at the borders of the runs they answer. Their bytes are counted.
    pub(super) fn deliver(&mut self, cutting: Cutting, cx: &Context<'_>, news: &mut News) {
        let cutting = if cx.spec.policy.keep_stderr {
            let before = cutting.at.len();
            let cutting = self.with_stderr(cutting);
            news.held += cutting.at.len();
            news.released += before;
            cutting
        } else {
            cutting
        };
        let Cutting { buffer, mut at, mut cut, mut count } = cutting;
        while count > 0
            && let Some(run) = self.flight.answer(count)
        {
            let here = run.len() as u64;
            count -= here;
            if count == 0 {
                self.inputs.iter_mut().for_each(|input| input.answered(&run));
                return self.answer(run, Cutting { buffer, at, cut, count: here }, cx, news);
            }
            let (at, cut) = cut.split_front(&buffer, &mut at, here);
            let buffer = Arc::clone(&buffer);
            self.answer(run, Cutting { buffer, at, cut, count: here }, cx, news);
        }
    }

    /// Makes a span of the replies to one run.
    #[inline(never)]
    fn answer(&self, run: Run, cutting: Cutting, cx: &Context<'_>, news: &mut News) {
        let Cutting { buffer, at, cut, count } = cutting;
        let first = run.first();
        let mut weight = at.len();
        let requests = if cx.keep_requests {
            weight += run.weight();
            Some(run)
        } else {
            news.answered.push(run);
            None
        };
        let label = Arc::clone(&self.label);
        let outcome = Outcome::Replies(Replies { buffer, at, cut, label, requests });
        news.spans.push(Span { first, count, weight, outcome });
    }

    /// A reply, and behind its parts what was written on stderr since the one before. There is one packet at a
    /// time where this is asked for.
    #[cold]
    fn with_stderr(&mut self, cutting: Cutting) -> Cutting {
        let Cutting { buffer, at, cut, count } = cutting;
        let line = at.start..at.end.saturating_sub(1).max(at.start);
        let (parts, sides) = match &cut {
            Cut::Delimiter { .. } => (std::slice::from_ref(&line), 0),
            Cut::Parts { ranges, next, sides } => (&ranges[*next..=*next + *sides], *sides),
        };
        let stderr = std::mem::take(&mut self.stderr_since).text();
        let mut bytes = Vec::new();
        let mut ranges = Vec::new();
        for part in parts.iter().map(|part| &buffer[part.clone()]).chain([&stderr[..]]) {
            let start = bytes.len();
            bytes.extend_from_slice(part);
            ranges.push(start..bytes.len());
        }
        let at = 0..bytes.len();
        let cut = Cut::Parts { ranges: ranges.into(), next: 0, sides: sides + 1 };
        Cutting { buffer: Arc::new(Buffer::new(bytes, None)), at, cut, count }
    }

    /// More replies than requests: from here on nothing of this session can be trusted. `rest` begins with the
    /// first one too many, `said` is how to show it.
    ///
    /// What a session says that was never given a request is no reply, and shifts none.
    #[cold]
    pub(super) fn too_many(
        &mut self,
        rest: &[u8],
        said: &str,
        cause: Option<FramingError>,
        cx: &Context<'_>,
        news: &mut News,
    ) {
        if self.is_fresh() {
            if rest.len() > LONGEST_BANNER {
                let message =
                    format!("a worker that was asked nothing does not stop talking: {said}");
                news.fatal = Some(self.describe(ErrorKind::Reply, message));
            }
            return;
        }
        if self.closing && is_farewell(rest, cx.spec.words.skip_at_end.as_deref()) {
            return;
        }
        let owed = self.flight.given();
        self.why = Some(Why::Distrusted);
        let message = format!(
            "the worker wrote more replies than it was sent requests ({owed}); the extra one begins {said}"
        );
        let error = self.describe(ErrorKind::ReplyCount { owed, got: owed + 1 }, message);
        // An error of the framing names its own fix.
        let error = match cause {
            Some(cause) => error.because(cause),
            None => {
                let unasked = self.said_unasked.as_deref();
                error.hint(wording::too_many(rest, unasked, self.closing))
            }
        };
        news.fatal = Some(error);
    }

    /// The packet that is to be answered next fails; nothing more of this session is believed, what it
    /// still owes goes to others, and so does what it has answered without proof.
    pub(super) fn distrust(&mut self, problem: Problem, cx: &Context<'_>, news: &mut News) {
        // Replies that were held until now are not believed either: those packets go to others too.
        let Some(packet) = self.flight.fail_next() else { return };
        self.why = Some(Why::Distrusted);
        news.released += self.flight.held_bytes();
        self.flight.take_held();
        news.failed = Some((packet, problem));
        self.kill(cx, news);
    }
}

/// Why no more replies are cut.
enum End {
    /// A reply that was not asked for stands there, or what is none, for this reason.
    Extra(Option<FramingError>),
    /// What stands there is no reply, or not the right one.
    Wrong(Problem),
}
use End::{Extra, Wrong};

/// Whether what stands behind the last answer is what the tool was declared to print at its end, or its
/// beginning.
fn is_farewell(rest: &[u8], declared: Option<&[u8]>) -> bool {
    declared.is_some_and(|declared| declared.starts_with(rest))
}
