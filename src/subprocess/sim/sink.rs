//! The outlet and its consumer, without their thread: takes spans out of the real [`Outbox`], puts them in
//! order with the real [`Window`], gives credit back to the real [`Gate`] in bulk and at once before it
//! sleeps, as `window::outlet` does; and shows every item to the oracle.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::subprocess::protocol::Now;
use crate::window::gate::Gate;
use crate::window::outbox::{Outbox, Taken};
use crate::window::outlet::Order;
use crate::window::packet::{End, Outcome, Span};
use crate::window::reorder::Window;

use super::check::{Failure, Oracle};
use super::rng::Rng;
use super::schedule::Schedule;
use super::worker::Child;

#[derive(Debug)]
enum Queue {
    Ordered(Window<Span>),
    Unordered(VecDeque<Span>),
}

#[derive(Debug)]
pub(super) struct Sink {
    outbox: Arc<Outbox>,
    /// What the executor has handed over.
    fresh: Vec<Span>,
    end: Option<End>,
    queue: Queue,
    current: Option<Span>,
    pub(super) yielded: u64,
    published: u64,
    bulk: u64,
    /// When it asks for the next item, or is dropped while it sleeps.
    pub(super) wake: Option<Now>,
    /// It sleeps in `next`.
    asleep: bool,
    pub(super) dropped: bool,
    pub(super) done: bool,
    /// Bytes in spans that it has been given and not released.
    pub(super) weight: usize,
    rng: Rng,
}

impl Sink {
    pub(super) fn new(schedule: &Schedule, outbox: Arc<Outbox>, rng: Rng) -> Self {
        Self {
            outbox,
            fresh: Vec::new(),
            end: None,
            queue: match schedule.order {
                Order::Input => Queue::Ordered(Window::new(schedule.origin)),
                Order::Completion => Queue::Unordered(VecDeque::new()),
            },
            current: None,
            yielded: 0,
            published: 0,
            bulk: (schedule.window / 8).clamp(1, 4096),
            wake: Some(Now::ZERO),
            asleep: false,
            dropped: false,
            done: false,
            weight: 0,
            rng,
        }
    }

    /// Takes what the executor has handed over. The weight of the errors among it, each of which says
    /// what it knows.
    pub(super) fn fetch(&mut self, now: Now) -> usize {
        let mut spans = Vec::new();
        let mut errors = 0;
        match self.outbox.take(&mut spans) {
            Taken::Spans => {}
            Taken::End(end) => self.end = Some(end),
            Taken::Nothing => return 0,
        }
        for span in spans {
            self.weight += span.weight;
            if matches!(span.outcome, Outcome::Failed(_)) {
                errors += span.weight;
            }
            self.fresh.push(span);
        }
        self.rouse(now);
        errors
    }

    fn rouse(&mut self, now: Now) {
        if self.asleep && !self.dropped && !self.done {
            self.wake = Some(now);
        }
    }

    /// One call of `next`, or the drop.
    pub(super) fn step(
        &mut self,
        schedule: &Schedule,
        gate: &Gate,
        oracle: &mut Oracle,
        children: &[Child],
        now: Now,
    ) -> Result<(), Failure> {
        let consumer = &schedule.consumer;
        self.wake = None;
        self.asleep = false;
        if self.dropped || self.done {
            return Ok(());
        }
        let enough = consumer.take.is_some_and(|most| self.yielded >= most);
        if enough || consumer.drop_at.is_some_and(|at| now >= at) {
            self.drop_all(gate);
            return Ok(());
        }
        if self.current.as_ref().is_none_or(|span| span.count == 0) {
            self.release(gate);
            if !self.advance(schedule, gate, oracle)? {
                self.asleep = !self.done;
                self.wake = consumer.drop_at.filter(|_| !self.done);
                return Ok(());
            }
        }
        let Some(span) = &mut self.current else { return Ok(()) };
        let n = if consumer.whole_spans { span.count } else { 1 };
        for _ in 0..n {
            oracle.yielded(schedule, span, children)?;
            span.first = span.first.plus(1);
            span.count -= 1;
        }
        self.yielded += n;
        if consumer.whole_spans {
            self.release(gate);
        }
        if self.yielded - self.published >= self.bulk {
            self.publish(gate);
        }
        let mut at = now + consumer.pause * self.rng.below(3) as u32;
        if self.rng.one_in(consumer.rest_every) {
            at += consumer.rest;
        }
        self.wake = Some(consumer.drop_at.map_or(at, |drop_at| at.min(drop_at.max(now))));
        Ok(())
    }

    /// Makes the next span current, or goes to sleep, or ends.
    fn advance(
        &mut self,
        schedule: &Schedule,
        gate: &Gate,
        oracle: &mut Oracle,
    ) -> Result<bool, Failure> {
        for span in self.fresh.drain(..) {
            match &mut self.queue {
                Queue::Ordered(window) => window.put(span.first, span.count, span),
                Queue::Unordered(queue) => queue.push_back(span),
            }
        }
        self.current = match &mut self.queue {
            Queue::Ordered(window) => window.take(),
            Queue::Unordered(queue) => queue.pop_front(),
        };
        if self.current.is_some() {
            return Ok(true);
        }
        if let Some(end) = self.end.take() {
            if let Queue::Ordered(window) = &mut self.queue
                && let Some(span) = window.take_any()
            {
                return Err(Failure::new(format!("a hole before {:?}", span.first)));
            }
            self.publish(gate);
            self.done = true;
            oracle.ended(schedule, end)?;
            return Ok(false);
        }
        if self.published != self.yielded {
            self.publish(gate);
        }
        if gate.is_full() {
            gate.wake_executor();
        }
        Ok(false)
    }

    fn publish(&mut self, gate: &Gate) {
        self.published = self.yielded;
        gate.yielded(self.yielded);
    }

    fn release(&mut self, gate: &Gate) {
        if let Some(span) = self.current.take() {
            self.weight -= span.weight;
            if gate.release(span.weight) {
                gate.wake_executor();
            }
        }
    }

    /// The consumer drops the outlet.
    pub(super) fn drop_all(&mut self, gate: &Gate) {
        self.dropped = true;
        self.wake = None;
        gate.drop_feed();
    }
}
