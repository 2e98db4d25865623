//! The line of tasks that wait for room in an inlet.
//!
//! # Invariants
//! 1. Who stands in line has a ticket, and keeps its turn until it leaves: having put its item, told that nobody takes any,
//!    or dropped.
//! 2. For each item that is taken one is called that was not called yet, the first first. One that was called and leaves
//!    without having put passes the call on.

use std::collections::VecDeque;
use std::task::Waker;

#[derive(Debug, Default)]
pub(super) struct Line {
    /// Tickets in order. A waker is there until it is called.
    waiting: VecDeque<(u64, Option<Waker>)>,
    next: u64,
}

impl Line {
    /// How many have their turn before this one, or before one that comes now.
    pub(super) fn ahead_of(&self, ticket: Option<u64>) -> usize {
        let at =
            ticket.and_then(|ticket| self.waiting.binary_search_by_key(&ticket, |it| it.0).ok());
        at.unwrap_or(self.waiting.len())
    }

    /// Stands in line, from now on or still. What comes back is to be dropped when no lock is held.
    pub(super) fn wait(&mut self, ticket: &mut Option<u64>, waker: Waker) -> Option<Waker> {
        match *ticket {
            Some(ticket) => {
                let at = self.ahead_of(Some(ticket));
                self.waiting.get_mut(at)?.1.replace(waker)
            }
            None => {
                *ticket = Some(self.next);
                self.waiting.push_back((self.next, Some(waker)));
                self.next += 1;
                None
            }
        }
    }

    /// Leaves the line. Whether it had been called.
    pub(super) fn leave(&mut self, ticket: u64) -> bool {
        let at = self.ahead_of(Some(ticket));
        self.waiting.remove(at).is_some_and(|(_, waker)| waker.is_none())
    }

    /// The one that is called next, if any.
    pub(super) fn call(&mut self) -> Option<Waker> {
        self.waiting.iter_mut().find_map(|(_, waker)| waker.take())
    }

    pub(super) fn call_all(&mut self) -> Vec<Waker> {
        self.waiting.iter_mut().filter_map(|(_, waker)| waker.take()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn_and_a_call_is_passed_on() {
        let mut line = Line::default();
        let [mut a, mut b, mut c] = [None; 3];
        for ticket in [&mut a, &mut b, &mut c] {
            assert!(line.wait(ticket, Waker::noop().clone()).is_none());
        }
        assert_eq!([a, b, c, None].map(|ticket| line.ahead_of(ticket)), [0, 1, 2, 3]);
        assert!(line.call().is_some() && line.call().is_some());
        // The first was called in vain, and keeps its turn.
        assert!(line.wait(&mut a, Waker::noop().clone()).is_none());
        assert_eq!(line.ahead_of(a), 0);
        assert!(line.leave(b.unwrap()), "it was called");
        assert_eq!((line.ahead_of(a), line.ahead_of(c)), (0, 1));
        assert!(!line.leave(c.unwrap()), "it was not");
        assert_eq!(line.call_all().len(), 1);
        assert!(line.call().is_none());
    }
}
