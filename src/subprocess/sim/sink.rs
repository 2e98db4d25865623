//! The consumer, without its thread: it polls the real [`Outlet`], as an async one does, and shows every
//! item to the oracle. Between two items it may sleep elsewhere, where nothing wakes it but its own clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Poll, Wake, Waker};

use crate::feed::blocks::block;
use crate::framing::WrittenEnd;
use crate::record::PacketId;
use crate::subprocess::protocol::Now;
use crate::window::outlet::{Given, Outlet};
use crate::window::packet::Replies;
use crate::window::waiter::Waiter;

use super::check::{Answer, Failure, Item, Oracle, must};
use super::rng::Rng;
use super::schedule::Schedule;
use super::worker::Child;

/// What the outlet wakes.
#[derive(Debug, Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

#[derive(Debug)]
pub(super) struct Sink {
    /// `None` once it is dropped.
    outlet: Option<Outlet>,
    bell: Arc<Bell>,
    waiter: Waiter,
    pub(super) yielded: u64,
    /// Bytes that were held for these.
    pub(super) spent: usize,
    /// When it asks for the next item, or is dropped while it sleeps.
    pub(super) wake: Option<Now>,
    /// It waits for the outlet.
    asleep: bool,
    /// It waits until the source has pulled as much as it may, and does not ask before.
    pub(super) follows: bool,
    pub(super) done: bool,
    rng: Rng,
}

impl Sink {
    pub(super) fn new(outlet: Outlet, rng: Rng) -> Self {
        let bell = Arc::new(Bell::default());
        Self {
            outlet: Some(outlet),
            waiter: Waiter::Task(Waker::from(Arc::clone(&bell))),
            bell,
            yielded: 0,
            spent: 0,
            wake: Some(Now::ZERO),
            asleep: false,
            follows: false,
            done: false,
            rng,
        }
    }

    pub(super) fn is_dropped(&self) -> bool {
        self.outlet.is_none()
    }

    /// Wakes up, if the outlet has called it.
    pub(super) fn hear(&mut self, now: Now) {
        if self.bell.0.swap(false, SeqCst) && self.asleep {
            self.wake = Some(now);
        }
    }

    /// Asks for an item, or drops the outlet.
    pub(super) fn step(
        &mut self,
        schedule: &Schedule,
        oracle: &mut Oracle,
        children: &[Child],
        now: Now,
    ) -> Result<(), Failure> {
        let consumer = &schedule.consumer;
        self.wake = None;
        self.asleep = false;
        self.follows = false;
        let enough = consumer.take.is_some_and(|most| self.yielded >= most);
        if enough || consumer.drop_at.is_some_and(|at| now >= at) {
            self.drop_outlet();
            return Ok(());
        }
        let Some(outlet) = &mut self.outlet else { return Ok(()) };
        if self.done {
            return Ok(());
        }
        let before = self.yielded;
        let outputs = &schedule.spec.channels.side_outputs;
        let names: Vec<String> = outputs.iter().map(|side| side.name.clone()).collect();
        let mut show = |packet: Option<PacketId>, item| {
            self.yielded += u64::from(packet.is_some());
            oracle.item(schedule, packet, item, children)
        };
        let polled = if let Some(bytes) = &schedule.bytes {
            let end = schedule.spec.replies.written_end(bytes.delimiter);
            next_block(outlet, &self.waiter, &end, &mut show)?
        } else if schedule.drain {
            next_drained(outlet, &self.waiter, &mut show)?
        } else {
            match outlet.poll_next(|| self.waiter.clone()) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(None) => Poll::Ready(false),
                Poll::Ready(Some((packet, given))) => {
                    let item = match given {
                        Given::Reply(replies) => Item::Reply(next_reply(replies, packet, &names)),
                        Given::Failed(error) => Item::Failed(error),
                        Given::Passed => Item::Passed,
                    };
                    show(item.is_of_a_packet().then_some(packet), item)?;
                    Poll::Ready(true)
                }
            }
        };
        self.spent = outlet.spent();
        match polled {
            Poll::Pending => {
                self.asleep = true;
                self.wake = consumer.drop_at;
                return Ok(());
            }
            Poll::Ready(false) => {
                self.done = true;
                let (accepted, _) = outlet.take_report();
                return oracle.ended(schedule, outlet.take_remarks(), &accepted);
            }
            Poll::Ready(true) => {}
        }
        self.follows = consumer.follows && self.yielded > before;
        let mut at = now + consumer.pause * self.rng.below(3) as u32;
        if self.rng.one_in(consumer.rest_every) {
            at += consumer.rest;
        }
        let at = consumer.drop_at.map_or(at, |drop_at| at.min(drop_at.max(now)));
        self.wake = if self.follows { consumer.drop_at } else { Some(at) };
        Ok(())
    }

    /// The consumer drops the outlet.
    pub(super) fn drop_outlet(&mut self) {
        self.outlet = None;
        self.wake = None;
    }
}

/// Who is shown each item, and of which packet it is, if of one.
type Show<'a> = dyn FnMut(Option<PacketId>, Item) -> Result<(), Failure> + 'a;

/// The next item of a feed of blocks, with what ends each reply in it. `Ready(false)` is the end.
fn next_block(
    outlet: &mut Outlet,
    waiter: &Waiter,
    end: &WrittenEnd,
    show: &mut Show<'_>,
) -> Result<Poll<bool>, Failure> {
    if outlet.poll_ready(|| waiter.clone()).is_pending() {
        return Ok(Poll::Pending);
    }
    let Some((packet, count, given)) = outlet.next_whole() else { return Ok(Poll::Ready(false)) };
    let (pid, host) = match &given {
        Given::Reply(replies) => (replies.label.pid, replies.label.host.clone()),
        Given::Failed(_) | Given::Passed => (None, None),
    };
    let block = match block(packet, count, given, end) {
        Ok(block) => block,
        Err(error) => {
            let item = Item::Failed(error);
            show(item.is_of_a_packet().then_some(packet), item)?;
            return Ok(Poll::Ready(true));
        }
    };
    must!(
        block.first_record() == packet.0 && block.len() as u64 == count && count > 0,
        "{block:?} is {count} records from {packet:?} on"
    );
    let mut at = 0;
    let mut left = count;
    for (n, record) in (0..).zip(block.records()) {
        let whole = [record, end.behind(record)].concat();
        must!(
            block.as_bytes()[at..].starts_with(&whole),
            "record {n} of {block:?} is not where it should be"
        );
        at += whole.len();
        left = left.saturating_sub(1);
        let (bytes, host) = (record.to_vec(), host.clone());
        let size = bytes.len();
        let answer = Answer { bytes, size, side: None, stderr: None, pid, host };
        show(Some(packet.plus(n)), Item::Reply(answer))?;
    }
    must!(
        left == 0 && at == block.as_bytes().len(),
        "{block:?} lacks {left} records, which end after {at} bytes of {:?}",
        String::from_utf8_lossy(block.as_bytes())
    );
    Ok(Poll::Ready(true))
}

/// What comes of a feed that is drained. `Ready(false)` is the end.
fn next_drained(
    outlet: &mut Outlet,
    waiter: &Waiter,
    show: &mut Show<'_>,
) -> Result<Poll<bool>, Failure> {
    if outlet.poll_ready(|| waiter.clone()).is_pending() {
        return Ok(Poll::Pending);
    }
    let Some((packet, count, given)) = outlet.next_whole() else { return Ok(Poll::Ready(false)) };
    match given {
        Given::Failed(error) => {
            let item = Item::Failed(error);
            show(item.is_of_a_packet().then_some(packet), item)?;
        }
        Given::Passed => {
            for n in 0..count {
                show(Some(packet.plus(n)), Item::Passed)?;
            }
        }
        Given::Reply(_) => return Err(Failure::new("a reply comes out of a feed that is drained")),
    }
    Ok(Poll::Ready(true))
}

impl Item {
    /// Whether it is about a packet: a last error may be about none.
    fn is_of_a_packet(&self) -> bool {
        !matches!(self, Item::Failed(error) if error.packet().is_none())
    }
}

/// The next reply out of `replies`, with its parts on the side outputs of these names, and who gave it.
fn next_reply(replies: &mut Replies, packet: PacketId, names: &[String]) -> Answer {
    replies.skip();
    let reply = replies.last(packet, names);
    let side = names.first().and_then(|name| reply.side(name));
    Answer {
        bytes: reply.bytes().to_vec(),
        size: reply.bytes().len() + side.map_or(0, |side| side.len()),
        side: side.map(|side| side.to_vec()),
        stderr: reply.stderr().map(|stderr| stderr.to_vec()),
        pid: replies.label.pid,
        host: replies.label.host.clone(),
    }
}
