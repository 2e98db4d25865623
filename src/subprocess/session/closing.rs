//! From the wish that a session ends to its exit: inputs are closed, in good order or at once.

use std::sync::Arc;

use crate::stats::Counters;
use crate::subprocess::child::Step;
use crate::subprocess::protocol::Operation;
use crate::subprocess::session::{Context, Input, News, Session, Why};
use crate::template::policy::{DROP_GRACE, Signal};

impl Session {
    /// Closes the inputs as soon as everything queued is written: the worker answers and exits.
    pub(super) fn close(&mut self, why: Why, cx: &Context<'_>, news: &mut News) {
        if !self.is_open() {
            return;
        }
        self.closing = true;
        // However long it was idle: its time to exit begins now.
        self.moved = cx.now.patient;
        self.stall.moved();
        let why = *self.why.get_or_insert(why);
        tell!(debug, self, "closing", why = why.word());
        if let Some(farewell) = &cx.spec.words.farewell {
            self.inputs[0].push_words(Arc::clone(farewell));
            news.writes = true;
        }
        for input in &mut self.inputs {
            input.close_when_written();
        }
        self.close_what_is_written(news);
    }

    /// Lets it answer what it owes and exit, so that a fresh one can take its place.
    pub(crate) fn recycle(&mut self, cx: &Context<'_>, news: &mut News) {
        self.close(Why::Recycled, cx, news);
    }

    /// Nothing will be given to it any more, because the input has ended.
    ///
    /// One that still owes is left its stdin while it goes on answering. A tool that ends by itself
    /// after so many records would otherwise look just like one that skips records: both would leave
    /// with status 0 after their stdin was closed, short of a reply. If it goes quiet, it is closed.
    pub(crate) fn finish(&mut self, cx: &Context<'_>, news: &mut News) {
        self.part(Why::Done, cx, news);
    }

    /// Nothing more will be given to it: closes its inputs, now or when it has answered.
    pub(super) fn part(&mut self, why: Why, cx: &Context<'_>, news: &mut News) {
        let only_then = cx.spec.policy.at_eof() || cx.spec.is_until_eof();
        if self.is_open() && (self.owed() == 0 || only_then) {
            self.close(why, cx, news);
        }
    }

    /// Why it will be given nothing more, if so.
    pub(super) fn closing_reason(&self, cx: &Context<'_>) -> Option<Why> {
        // One that holds suspects gets nothing else, and others wait for what becomes of them.
        let has_served = cx.spec.session_records().is_some_and(|most| self.flight.given() >= most);
        if self.quarantined || has_served {
            Some(Why::Recycled)
        } else if cx.nothing_to_come {
            Some(Why::Done)
        } else {
            None
        }
    }

    pub(super) fn close_what_is_written(&mut self, news: &mut News) {
        // A worker whose stdin does not come from us sees the end of its input on the side.
        let absent = self.inputs[0].is_absent();
        for (channel, input) in self.inputs.iter_mut().enumerate() {
            if input.take_close() {
                self.stdin_closed |= channel == 0 || absent;
                news.operations.push(Operation::CloseInput { slot: self.slot, channel });
            }
        }
    }

    /// The worker has closed its end of an input.
    pub(crate) fn write_closed(&mut self, channel: usize, cx: &Context<'_>, news: &mut News) {
        self.inputs[channel].shut();
        news.operations.push(Operation::CloseInput { slot: self.slot, channel });
        if self.inputs[channel].is_optional() || !self.child.is_running() {
            return;
        }
        // It may go on answering what it has read: that is no error by itself. Whatever it was not
        // given in full goes to others when it ends.
        self.moved = cx.now.patient;
        self.why = Some(Why::ClosedInput);
        tell!(debug, self, "closing", why = Why::ClosedInput.word());
        self.closing = true;
        for input in &mut self.inputs {
            input.close_when_written();
        }
        self.close_what_is_written(news);
    }

    /// Starts the kill sequence at once.
    pub(super) fn kill(&mut self, cx: &Context<'_>, news: &mut News) {
        self.child.kill(cx.now);
        self.step(cx, news);
    }

    /// Does what is due of the child's end.
    pub(super) fn step(&mut self, cx: &Context<'_>, news: &mut News) {
        let slot = self.slot;
        match self.child.step(&cx.spec.policy, cx.now) {
            Step::Nothing => {}
            Step::Signal(signal) => {
                Counters::add(&cx.stats.counters.signals, 1);
                tell!(debug, self, "signalled", signal = signal.name());
                news.operations.push(Operation::Signal { slot, signal });
            }
            Step::Finish => {
                self.is_read_out(cx, news);
                news.operations.extend(self.may_survive());
                news.operations.push(Operation::Finish { slot });
            }
            Step::Abandon => {
                news.operations.extend(self.may_survive());
                tell!(warn, self, "abandoned");
                news.operations.push(Operation::Abandon { slot });
                cx.stats.hint(format!(
                    "a worker of `{}` did not end although it was killed, and was left behind",
                    self.label.command
                ));
            }
        }
    }

    /// It has exited, and nothing more is awaited of its outputs: they count as ended, even if another process
    /// still holds a pipe.
    fn is_read_out(&mut self, cx: &Context<'_>, news: &mut News) {
        let mut news_of_it = false;
        let breaks_off = self.breaks_off();
        for output in &mut self.outputs {
            if breaks_off {
                output.breaks_off();
            }
            news_of_it |= output.close();
        }
        if news_of_it {
            self.cut(cx, news);
        }
    }

    /// It must end, now: the outlet was dropped, or the feed has failed.
    pub(crate) fn stop(&mut self, cx: &Context<'_>, news: &mut News) {
        if !self.child.is_running() {
            return;
        }
        self.why = Some(Why::Stopped);
        self.closing = true;
        tell!(debug, self, "closing", why = Why::Stopped.word());
        if self.is_torn() {
            // A shell would run the half of a line that it has when its stdin ends: it must be
            // dead before that.
            tell!(debug, self, "signalled", signal = Signal::Kill.name());
            self.child.kill_outright(&cx.spec.policy, cx.now);
            news.operations.push(Operation::Signal { slot: self.slot, signal: Signal::Kill });
        } else {
            self.stdin_closed = true;
            self.child.kill_at(cx.now.real.saturating_add(DROP_GRACE));
        }
        for (channel, input) in self.inputs.iter_mut().enumerate() {
            if !input.is_closed() {
                input.shut();
                news.operations.push(Operation::CloseInput { slot: self.slot, channel });
            }
        }
    }

    /// Whether a request has been written in part: a piece of a record, or its record on one channel
    /// and not yet on another.
    fn is_torn(&self) -> bool {
        self.inputs.iter().any(Input::is_torn) || self.untouched() < self.unfinished()
    }

    /// How many of the newest packets it cannot have read a byte of, because none was written.
    pub(super) fn untouched(&self) -> u64 {
        self.inputs.iter().map(Input::untouched).min().unwrap_or(0)
    }

    /// How many of the newest packets it has not been handed in full.
    pub(super) fn unfinished(&self) -> u64 {
        let required = self.inputs.iter().filter(|input| !input.is_optional());
        required.map(Input::unfinished).max().unwrap_or(0)
    }
}
