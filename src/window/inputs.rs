//! The items themselves, kept for those who want them back: beside their replies, or instead.

use std::collections::VecDeque;

use crate::record::PacketId;
use crate::window::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::window::sync::{Mutex, lock};
use crate::window::unwind;

/// Lets go of items. A panic of one, which is the user's, keeps none of the others, and goes no further: the drop of a
/// feed never panics.
fn let_go<T>(items: VecDeque<T>) {
    if std::mem::needs_drop::<T>() {
        let mut items = items.into_iter();
        while unwind::catch(|| items.by_ref().for_each(drop)).is_err() {}
    }
}

/// Items by packet id; the intake puts in order, the outlet takes in any order.
///
/// Bounded by the window, like everything between the two.
#[derive(Debug)]
pub(crate) struct Inputs<T> {
    ring: Mutex<Ring<T>>,
}

#[derive(Debug)]
struct Ring<T> {
    first: PacketId,
    items: VecDeque<Option<T>>,
}

impl<T> Inputs<T> {
    pub(crate) fn new(first: PacketId) -> Self {
        Self { ring: Mutex::new(Ring { first, items: VecDeque::new() }) }
    }

    /// Puts the item of the next packet id.
    pub(crate) fn put(&self, item: T) {
        lock(&self.ring).items.push_back(Some(item));
    }

    pub(crate) fn take(&self, packet: PacketId) -> Option<T> {
        let mut ring = lock(&self.ring);
        let at = usize::try_from(packet.since(ring.first)).ok()?;
        let item = ring.items.get_mut(at)?.take();
        while let Some(None) = ring.items.front() {
            ring.items.pop_front();
            ring.first = ring.first.plus(1);
        }
        item
    }
}

impl<T> Drop for Inputs<T> {
    fn drop(&mut self) {
        let_go(std::mem::take(&mut lock(&self.ring).items));
    }
}

/// Items that are no work, on their way past the executor.
///
/// Bounded by the window, like everything between the two ends.
#[derive(Debug)]
pub(crate) struct Passing<P> {
    /// The packet id of the next item. The intake's alone.
    next: AtomicU64,
    items: Mutex<VecDeque<(PacketId, P)>>,
}

impl<P> Passing<P> {
    pub(crate) fn new(first: PacketId) -> Self {
        Self { next: AtomicU64::new(first.0), items: Mutex::new(VecDeque::new()) }
    }

    /// Intake: the next item is work.
    pub(crate) fn skip(&self) {
        self.step();
    }

    /// Intake: the next item is none.
    pub(crate) fn put(&self, item: P) {
        let packet = self.step();
        lock(&self.items).push_back((packet, item));
    }

    fn step(&self) -> PacketId {
        let packet = PacketId(self.next.load(Relaxed));
        self.next.store(packet.plus(1).0, Relaxed);
        packet
    }

    /// Outlet: the item of this packet. They come in the order in which they were put, but for those
    /// that a fatal error has overtaken.
    pub(crate) fn take(&self, packet: PacketId) -> Option<P> {
        let mut items = lock(&self.items);
        let at = items.iter().position(|(id, _)| *id == packet)?;
        items.remove(at).map(|(_, item)| item)
    }
}

impl<P> Drop for Passing<P> {
    fn drop(&mut self) {
        let_go(std::mem::take(&mut *lock(&self.items)));
    }
}
