//! What travels from the intake to the threads: the items themselves.

use std::sync::Arc;

use crate::error::Error;
use crate::marker::{Marked, Route};
use crate::record::{Batch, PacketId};
use crate::window::inputs::Passing;
use crate::window::packing::Pack;

/// A batch for threads.
#[derive(Debug)]
pub(crate) struct Items<T> {
    pub(super) first: PacketId,
    pub(super) items: Vec<T>,
}

impl<T> Items<T> {
    fn none() -> Self {
        Self { first: PacketId(0), items: Vec::new() }
    }
}

impl<T: Send> Batch for Items<T> {
    fn begin(&mut self, first: PacketId) {
        self.first = first;
    }
    fn len(&self) -> usize {
        self.items.len()
    }
    fn bytes(&self) -> usize {
        0
    }
    fn append(&mut self, next: &mut Self) {
        self.items.append(&mut next.items);
    }
    fn first(&self) -> PacketId {
        self.first
    }
    fn truncate(&mut self, n: usize) {
        self.items.truncate(n);
    }
}

/// Packs items as they are.
pub(super) struct AsIs;

impl<T: Send> Pack<T> for AsIs {
    type Batch = Items<T>;

    fn empty(&self) -> Items<T> {
        Items::none()
    }

    fn passes(&self, _item: &T) -> bool {
        false
    }

    fn pass(&mut self, _item: T) {}

    fn pack(
        &mut self,
        item: &mut Option<T>,
        _packet: PacketId,
        batch: &mut Items<T>,
    ) -> Result<(), Error> {
        batch.items.extend(item.take());
        Ok(())
    }
}

/// Packs what is work, and leaves the rest where the outlet finds it, as what is to be yielded.
pub(super) struct Routed<P, U> {
    pub(super) passing: Arc<Passing<U>>,
    pub(super) wrap: fn(P) -> U,
}

impl<R: Route, U> Pack<R> for Routed<R::Passed, U>
where
    R::Work: Send,
{
    type Batch = Items<R::Work>;

    fn empty(&self) -> Items<R::Work> {
        Items::none()
    }

    fn passes(&self, item: &R) -> bool {
        item.work().is_none()
    }

    fn pass(&mut self, item: R) {
        if let Marked::Marker(passed) = item.split() {
            self.passing.put((self.wrap)(passed));
        }
    }

    fn pack(
        &mut self,
        item: &mut Option<R>,
        _packet: PacketId,
        batch: &mut Items<R::Work>,
    ) -> Result<(), Error> {
        self.passing.skip();
        if let Some(Marked::Item(work)) = item.take().map(R::split) {
            batch.items.push(work);
        }
        Ok(())
    }
}
