//! Feeding without collecting: a packet is done when it has been written in full.
//!
//! Nothing that a worker may have read is sent again, whatever becomes of it: that would write its lines
//! twice. What still lay in its pipe when it died nobody has read, and the kernel says how much that
//! is: these packets are taken back.

use crate::stats::Counters;
use crate::subprocess::session::input::PIPE;
use crate::subprocess::session::{Context, Input, News, Session, Why};
use crate::window::packet::{Outcome, Span};

impl Session {
    /// Counts what it has been handed in full.
    pub(super) fn settle_written(&mut self, cx: &Context<'_>, news: &mut News) {
        let in_flight = self.flight.len();
        let mut written = in_flight - self.unfinished().min(in_flight);
        if written == 0 {
            return;
        }
        let now = cx.now.patient;
        self.head_since = now;
        self.depth.answered(written, in_flight - written, now);
        news.accepted += written;
        news.progress |= self.inputs.iter().any(Input::has_been_read);
        Counters::add(&cx.stats.counters.replies, written);
        while written > 0
            && let Some(run) = self.flight.answer(written)
        {
            let count = run.len() as u64;
            written -= count;
            let span = Span { first: run.first(), count, weight: 0, outcome: Outcome::Passed };
            self.flight.remember(run.clone(), PIPE as usize * self.inputs.len());
            news.answered.push(run);
            news.spans.push(span);
        }
        if self.owed() == 0 {
            self.quarantined = false;
            if cx.spec.session_records().is_some_and(|most| self.flight.given() >= most) {
                self.part(Why::Recycled, cx, news);
            } else if cx.nothing_to_come && !cx.stopping {
                // The end may have come together with what was written just now: then nobody looks for
                // it again, as nothing will come back from here.
                self.part(Why::Done, cx, news);
            }
        }
    }
}
