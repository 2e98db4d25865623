//! The items themselves, kept for whoever wants them back beside their replies.

use std::collections::VecDeque;

use crate::record::PacketId;
use crate::stream::sync::{Mutex, lock};

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
