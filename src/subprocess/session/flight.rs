//! The packets in one session: what was given, what was answered, and the replies that wait for a proof.
//!
//! # Invariants
//! 1. `given - answered` packets are in `runs`, in the order in which they were given.
//! 2. Replies belong to the front of `runs`, in order; `held` are those of its first `held_count` packets.
//! 3. `recent` are packets that were answered before those in `runs` were given, and nobody else's.

use std::collections::VecDeque;

use crate::record::{PacketId, Run};
use crate::subprocess::session::output::Cutting;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Flight {
    runs: VecDeque<Run>,
    given: u64,
    answered: u64,
    /// Replies that came after stdin was closed, from a session that had never answered before.
    held: Vec<Cutting>,
    held_count: u64,
    /// Packets that were written in full not long ago, so that they may still lie in a pipe; only
    /// where a feed is drained.
    recent: VecDeque<Run>,
    recent_bytes: usize,
}

impl Flight {
    pub(super) fn given(&self) -> u64 {
        self.given
    }

    /// Packets that were answered, those with held replies not among them.
    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    /// Replies that have come.
    pub(super) fn replies(&self) -> u64 {
        self.answered + self.held_count
    }

    /// Replies that are still to come.
    pub(super) fn owed(&self) -> u64 {
        self.given - self.replies()
    }

    /// Packets that are not done with.
    pub(super) fn len(&self) -> u64 {
        self.given - self.answered
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter()
    }

    /// All packets that may still lie in a pipe, the newest first: a run and the place in its batch.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = (&Run, usize)> {
        let runs = self.recent.iter().chain(&self.runs).rev();
        runs.flat_map(|run| (run.from..run.to).rev().map(move |at| (run, at)))
    }

    pub(super) fn give(&mut self, run: Run) {
        self.given += run.len() as u64;
        self.runs.push_back(run);
    }

    /// The packet whose reply comes after `n` more.
    pub(super) fn next_after(&self, n: u64) -> Option<PacketId> {
        let (run, at) = self.nth(self.held_count + n)?;
        Some(run.first().plus(at))
    }

    /// Its request, as it was written.
    pub(super) fn request_after(&self, n: u64) -> Option<&[u8]> {
        let (run, at) = self.nth(self.held_count + n)?;
        Some(run.batch.request(run.from + at as usize))
    }

    fn nth(&self, mut n: u64) -> Option<(&Run, u64)> {
        for run in &self.runs {
            if n < run.len() as u64 {
                return Some((run, n));
            }
            n -= run.len() as u64;
        }
        None
    }

    /// Takes up to `n` packets of one run off the front: they are answered.
    pub(super) fn answer(&mut self, n: u64) -> Option<Run> {
        let front = self.runs.front_mut()?;
        let run = if n < front.len() as u64 {
            front.split_front(n as usize)
        } else {
            self.runs.pop_front()?
        };
        self.answered += run.len() as u64;
        Some(run)
    }

    /// Takes the packet that is to be answered next out of the middle: it is answered, by a failure.
    pub(super) fn fail_next(&mut self) -> Option<Run> {
        let mut n = self.held_count;
        for i in 0..self.runs.len() {
            let len = self.runs[i].len() as u64;
            if n >= len {
                n -= len;
                continue;
            }
            self.answered += 1;
            if n > 0 {
                let front = self.runs[i].split_front(n as usize);
                self.runs.insert(i, front);
                let rest = &mut self.runs[i + 1];
                return if rest.len() == 1 {
                    self.runs.remove(i + 1)
                } else {
                    Some(rest.split_front(1))
                };
            }
            return if len == 1 { self.runs.remove(i) } else { Some(self.runs[i].split_front(1)) };
        }
        None
    }

    /// Keeps replies until it is known whether they can be believed.
    pub(super) fn hold(&mut self, cutting: Cutting) {
        self.held_count += cutting.count;
        self.held.push(cutting);
    }

    /// Whether a reply is held for each packet.
    pub(super) fn is_held_in_full(&self) -> bool {
        !self.held.is_empty() && self.replies() == self.given
    }

    /// Lets go of the replies that were held.
    pub(super) fn take_held(&mut self) -> Vec<Cutting> {
        self.held_count = 0;
        std::mem::take(&mut self.held)
    }

    /// How many bytes of replies are held.
    pub(super) fn held_bytes(&self) -> usize {
        self.held.iter().map(|held| held.at.len()).sum()
    }

    /// Takes everything that was not answered.
    pub(super) fn take_all(&mut self) -> VecDeque<Run> {
        std::mem::take(&mut self.runs)
    }

    /// Keeps what was written last and may still lie in a pipe: not much more than `most` bytes.
    pub(super) fn remember(&mut self, run: Run, most: usize) {
        self.recent_bytes += run.weight();
        self.recent.push_back(run);
        while let Some(weight) = self.recent.front().map(Run::weight)
            && self.recent_bytes - weight >= most
        {
            self.recent_bytes -= weight;
            self.recent.pop_front();
        }
    }

    /// Takes back the newest `count` of those that were remembered.
    pub(super) fn take_back(&mut self, mut count: u64) -> Vec<Run> {
        let mut back = Vec::new();
        while count > 0
            && let Some(mut run) = self.recent.pop_back()
        {
            if (run.len() as u64) > count {
                let kept = run.len() - count as usize;
                let front = run.split_front(kept);
                self.recent.push_back(front);
            }
            count -= run.len() as u64;
            back.push(run);
        }
        back
    }
}

/// Takes the first packet off the front run.
pub(super) fn pop_front(runs: &mut VecDeque<Run>) -> Option<Run> {
    let front = runs.front_mut()?;
    if front.len() > 1 { Some(front.split_front(1)) } else { runs.pop_front() }
}
