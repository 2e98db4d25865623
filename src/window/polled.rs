//! An intake without a thread: the task that consumes the feed pulls its source too, in the same polls.
//!
//! It is the same [`Intake`], whose open batch lies in the slot between two polls as it would while a source
//! blocks: so the executor has everything that was pulled, and what is pulled in a poll gathers. What it cannot do is wait.
//! So its channel of batches has no bound but the window, it does not linger for credit, and what it waits for is
//! told to the task: the source tells of items, the outlet of outputs and so of credit, the gate of room and of the stop.
//!
//! # Invariants
//! 1. It pulls only what the gate allows, and the task's outlet is asked after it: input `k + W` is not pulled before the
//!    poll that comes after the one with output `k`.
//! 2. Before the task is told to wait it has left word at the gate, and then looked at the gate once more.
//! 3. Before it waits for room the open batch is handed over: what counts as held is the same for it and for the gate.
//!    Otherwise the gate would call a task that finds no room, again and again.
//! 4. In one poll it pulls so much and no more, and says that it would go on.

use std::task::{Poll, Waker};

use crate::record::{Batch, Requests};
use crate::tuning::{BYTES_A_POLL, ITEMS_A_POLL};
use crate::window::gate::{Gate, Pace};
use crate::window::intake::{Intake, Pull};
use crate::window::packet::Replies;
use crate::window::packing::Pack;
use crate::window::waiter::Waiter;

pub(crate) struct PolledIntake<P, B: Batch = Requests, R = Replies> {
    intake: Intake<B, R>,
    packer: P,
    pulled: u64,
    ended: bool,
    /// There was credit the last time, and no room.
    short_of_room: bool,
}

impl<P, B: Batch, R> PolledIntake<P, B, R> {
    pub(crate) fn new(intake: Intake<B, R>, packer: P) -> Self {
        intake.gate().enter_task();
        Self { intake, packer, pulled: 0, ended: false, short_of_room: false }
    }

    /// The input has ended, or the feed has: the source is not asked any more.
    #[cfg(feature = "async")]
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Pulls what may be pulled and is here, by way of `next`, then takes what has come, by way of `take`: in this order,
    /// so that no input is pulled before the output that makes room for it has been handed out. Never blocks but by what
    /// `next` and `encode` do.
    ///
    /// # Panics
    /// As `take`. A panic of the others comes out of the outlet, at its position.
    pub(crate) fn poll<T, A>(
        &mut self,
        waker: &Waker,
        mut next: impl FnMut() -> Poll<Option<T>>,
        mut take: impl FnMut() -> Poll<A>,
    ) -> Poll<A>
    where
        P: Pack<T, Batch = B>,
    {
        loop {
            let goes_on = self.pull(&mut next);
            if let Poll::Ready(taken) = take() {
                return Poll::Ready(taken);
            }
            if self.wait(waker) {
                continue;
            }
            if goes_on {
                waker.wake_by_ref();
            }
            return Poll::Pending;
        }
    }

    /// Pulls. Says whether there may be more, which is for the next poll.
    fn pull<T>(&mut self, next: &mut impl FnMut() -> Poll<Option<T>>) -> bool
    where
        P: Pack<T, Batch = B>,
    {
        if self.ended {
            return false;
        }
        let (mut at, weight) = self.intake.resume(self.pulled);
        let mut source = InPoll { next, items: 0, bytes: 0, weight, short_of_room: false };
        self.ended = self.intake.pull_guarded(&mut source, &mut self.packer, &mut at);
        self.pulled = at.pulled;
        let is_enough = source.is_enough();
        self.short_of_room = source.short_of_room && !self.ended;
        if self.short_of_room {
            self.intake.flush_parked();
        }
        !self.ended && is_enough
    }

    /// The task is about to wait: it is to be woken when there is room again and when the feed is stopped. Says whether
    /// that is so by now, and it is to poll again.
    fn wait(&mut self, waker: &Waker) -> bool {
        if self.ended {
            return false;
        }
        let gate = self.intake.gate();
        gate.wait_as_task(Waiter::Task(waker.clone()));
        gate.is_stopped() || (self.short_of_room && self.intake.has_room(self.pulled))
    }
}

impl<P, B: Batch, R> std::fmt::Debug for PolledIntake<P, B, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolledIntake").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// A source that is asked in one poll.
struct InPoll<'a, F> {
    next: &'a mut F,
    items: usize,
    bytes: usize,
    /// What the open batch had the last time.
    weight: usize,
    short_of_room: bool,
}

impl<F> InPoll<'_, F> {
    fn is_enough(&self) -> bool {
        self.items >= ITEMS_A_POLL || self.bytes >= BYTES_A_POLL
    }
}

impl<T, F: FnMut() -> Poll<Option<T>>> Pull for InPoll<'_, F> {
    type Item = T;

    fn wait(
        &mut self,
        gate: &Gate,
        pace: &mut Pace,
        pulled: u64,
        open: impl Fn() -> usize,
    ) -> bool {
        match gate.poll_room(pace, pulled, open) {
            Some(has_room) => {
                self.short_of_room = !has_room;
                has_room
            }
            None => false,
        }
    }

    fn next(&mut self) -> Poll<Option<T>> {
        if self.is_enough() {
            return Poll::Pending;
        }
        self.items += 1;
        (self.next)()
    }

    fn packed(&mut self, weight: usize) {
        self.bytes += weight.saturating_sub(std::mem::replace(&mut self.weight, weight));
    }
}
