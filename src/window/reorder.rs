//! The reorder window: spans come in any order and leave in the order of their packet ids.
//!
//! Every packet id is put exactly once, and spans never overlap (the executor's conservation law),
//! so the next span is always the one that starts where the ready ones end. Spans are few (a span is a
//! read's worth of replies), so an ordered map costs little beside the replies in it, grows with what is
//! really there, and needs no room set aside for `buffer_size`. What comes in order never sees the map.
//!
//! # Invariants
//! 1. `ready` holds consecutive spans, the head first; `ready_end` is where they end.
//! 2. Whatever waits starts at `ready_end` or behind it.

use std::collections::{BTreeMap, VecDeque};

use crate::record::PacketId;

#[derive(Debug)]
pub(crate) struct Window<T> {
    origin: PacketId,
    ready: VecDeque<T>,
    /// Distance from `origin`. Distances do not wrap in practice; ids do.
    ready_end: u64,
    waiting: BTreeMap<u64, (u64, T)>,
}

impl<T> Window<T> {
    pub(crate) fn new(origin: PacketId) -> Self {
        Self { origin, ready: VecDeque::new(), ready_end: 0, waiting: BTreeMap::new() }
    }

    /// The first packet of all.
    pub(crate) fn origin(&self) -> PacketId {
        self.origin
    }

    /// Puts what became of the `count` packets from `first` on.
    pub(crate) fn put(&mut self, first: PacketId, count: u64, what: T) {
        let at = first.since(self.origin);
        debug_assert!(at >= self.ready_end && count > 0, "packet {first:?} left already");
        if at == self.ready_end {
            self.ready.push_back(what);
            self.ready_end += count;
            return;
        }
        let before = self.waiting.insert(at, (count, what));
        debug_assert!(before.is_none(), "packet {first:?} came twice");
    }

    /// How many spans are in it.
    #[cfg(any(test, feature = "async"))]
    pub(crate) fn len(&self) -> usize {
        self.ready.len() + self.waiting.len()
    }

    /// The packet that is waited for, where [`take`](Window::take) finds none.
    pub(crate) fn head(&self) -> PacketId {
        debug_assert!(self.ready.is_empty(), "the head is here");
        self.origin.plus(self.ready_end)
    }

    /// Takes the span that starts with the next packet, if it is here.
    pub(crate) fn take(&mut self) -> Option<T> {
        if let Some(what) = self.ready.pop_front() {
            return Some(what);
        }
        let entry = self.waiting.first_entry()?;
        if *entry.key() != self.ready_end {
            return None;
        }
        let (count, what) = entry.remove();
        self.ready_end += count;
        Some(what)
    }

    /// Takes the earliest span, whatever is missing before it. For ends that nothing will fill.
    pub(crate) fn take_any(&mut self) -> Option<T> {
        if let Some(what) = self.ready.pop_front() {
            return Some(what);
        }
        let (at, (count, what)) = self.waiting.pop_first()?;
        self.ready_end = at + count;
        Some(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the naive oracle: what was put leaves in the order of the ids. Origins near `u64::MAX` wrap.
    #[test]
    fn spans_leave_in_order_whatever_order_they_come_in() {
        for seed in 0..if cfg!(miri) { 4 } else { 1_000u64 } {
            let mut state = seed;
            // Knuth's MMIX generator; its high bits are the good ones.
            let mut number = move || {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                state >> 33
            };
            let origin = if seed % 2 == 0 { 0 } else { u64::MAX - number() % 60 };
            let mut id = PacketId(origin);
            let mut spans = Vec::new();
            for _ in 0..=number() % 40 {
                let count = 1 + number() % 4;
                spans.push((number(), id, count));
                id = id.plus(count);
            }
            let expected: Vec<_> = spans.iter().map(|&(_, id, _)| id).collect();
            spans.sort_by_key(|span| span.0);
            let mut window = Window::new(PacketId(origin));
            let mut left = Vec::new();
            for (_, id, count) in spans {
                window.put(id, count, id);
                left.extend(std::iter::from_fn(|| window.take()));
            }
            assert_eq!(left, expected, "seed {seed}");
            assert!(window.take_any().is_none(), "seed {seed}");
        }
    }

    #[test]
    fn nothing_leaves_before_the_head() {
        let mut window = Window::new(PacketId(u64::MAX));
        window.put(PacketId(0), 1, "second");
        assert!(window.take().is_none());
        window.put(PacketId(u64::MAX), 1, "first");
        assert_eq!(
            (window.take(), window.take(), window.take()),
            (Some("first"), Some("second"), None)
        );
    }
}
