//! Items gathered to chunks, bounded in size and in time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::control::Counts;
use super::flow::{Flow, Pass};
use super::results::Out;
use crate::threads::FeedThreads;

/// Gathers what comes out of a relay, which pulls ahead meanwhile.
///
/// A chunk's deadline is `within` after its first item was taken out of the relay; the wait for the next item
/// ends then. What is not an item is given at once, a marker behind the chunk that it ends.
pub(super) struct Chunks<T: Send, M> {
    items: FeedThreads<T, Flow<T, M>>,
    size: usize,
    within: Option<Duration>,
    chunk: Vec<T>,
    /// When the chunk is to be given; `None` while it is empty, and if it may wait for ever.
    deadline: Option<Instant>,
    /// What goes behind the chunk that was given last.
    behind: Option<Pass<M>>,
    counts: Arc<Counts>,
}

impl<T: Send, M> Chunks<T, M> {
    pub(super) fn new(
        items: FeedThreads<T, Flow<T, M>>,
        size: usize,
        within: Option<Duration>,
        counts: Arc<Counts>,
    ) -> Self {
        Self { items, size, within, chunk: Vec::new(), deadline: None, behind: None, counts }
    }

    fn give(&mut self) -> Option<Flow<Out<Vec<T>>, M>> {
        self.deadline = None;
        Some(Ok(Out::One(std::mem::take(&mut self.chunk))))
    }
}

impl<T: Send, M> Iterator for Chunks<T, M> {
    type Item = Flow<Out<Vec<T>>, M>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(pass) = self.behind.take() {
            return Some(Err(pass));
        }
        loop {
            if let Some(deadline) = self.deadline
                && !self.items.is_ready_before(deadline)
            {
                return self.give();
            }
            match self.items.next() {
                Some(Ok(item)) => {
                    Counts::add(&self.counts.taken, 1);
                    if self.chunk.is_empty() {
                        self.deadline =
                            self.within.and_then(|within| Instant::now().checked_add(within));
                    }
                    self.chunk.push(item);
                    if self.chunk.len() == self.size {
                        return self.give();
                    }
                }
                Some(Err(marker @ Pass::Marker(_))) if !self.chunk.is_empty() => {
                    self.behind = Some(marker);
                    return self.give();
                }
                Some(Err(pass)) => return Some(Err(pass)),
                None if self.chunk.is_empty() => return None,
                None => return self.give(),
            }
        }
    }
}
