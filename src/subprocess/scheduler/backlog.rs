//! What waits to be given out: runs of packets, each with the care that it needs.
//!
//! # Invariants
//! 1. Runs are in the order of their packet ids, also after a redelivery, so that the earliest packet goes
//!    first.
//! 2. `packets` and `careful` count what is there.

use std::collections::VecDeque;

use crate::record::{PacketId, Run};
use crate::subprocess::session::Care;

#[derive(Debug)]
struct Job {
    run: Run,
    care: Care,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Backlog {
    origin: PacketId,
    jobs: VecDeque<Job>,
    packets: u64,
    /// How many of the jobs need care.
    careful: usize,
}

impl Backlog {
    pub(super) fn new(origin: PacketId) -> Self {
        Self { origin, jobs: VecDeque::new(), packets: 0, careful: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// How many runs there are.
    pub(super) fn runs(&self) -> usize {
        self.jobs.len()
    }

    /// How many packets are in them.
    pub(super) fn packets(&self) -> u64 {
        self.packets
    }

    /// Whether there is a run that needs no care, and whether there is one that does.
    pub(super) fn has_free(&self) -> bool {
        self.jobs.len() > self.careful
    }

    pub(super) fn has_careful(&self) -> bool {
        self.careful > 0
    }

    /// Whether one of the packets must be alone in a fresh session.
    pub(super) fn has_alone(&self) -> bool {
        self.careful > 0 && self.jobs.iter().any(|job| job.care == Care::Alone)
    }

    /// The first packet and the number of packets of the earliest run.
    pub(super) fn head(&self) -> Option<(PacketId, u64)> {
        self.jobs.front().map(|job| (job.run.first(), job.run.len() as u64))
    }

    pub(super) fn put(&mut self, run: Run, care: Care) {
        self.packets += run.len() as u64;
        self.careful += usize::from(care != Care::Free);
        let at = run.first().since(self.origin);
        let before = |job: &Job| job.run.first().since(self.origin) < at;
        let index = match self.jobs.back() {
            None => 0,
            Some(last) if before(last) => self.jobs.len(),
            Some(_) => self.jobs.partition_point(before),
        };
        self.jobs.insert(index, Job { run, care });
    }

    /// Takes the earliest run that needs no care: `share` packets of it, or fewer. Of a block it may be a few more, up to
    /// `most`, and none if there was `something` before: it is not cut for a crumb.
    pub(super) fn take_free(&mut self, share: u64, most: u64, something: bool) -> Option<Run> {
        // Nearly always the front; after a redelivery a few careful ones may stand before it.
        let at = self.jobs.iter().position(|job| job.care == Care::Free)?;
        let run = &mut self.jobs[at].run;
        let len = run.len() as u64;
        if something && run.is_block() && share < len / 4 {
            return None;
        }
        let whole = len <= share || (run.is_block() && len <= most && len - share <= len / 4);
        let run = if !whole {
            run.split_front(usize::try_from(share).unwrap_or(usize::MAX))
        } else {
            self.jobs.remove(at)?.run
        };
        self.packets -= run.len() as u64;
        Some(run)
    }

    /// The care that the run at this place needs.
    pub(super) fn care(&self, at: usize) -> Option<Care> {
        self.jobs.get(at).map(|job| job.care)
    }

    /// Takes the whole run at this place.
    pub(super) fn take(&mut self, at: usize) -> Option<Run> {
        let Job { run, care } = self.jobs.remove(at)?;
        self.packets -= run.len() as u64;
        self.careful -= usize::from(care != Care::Free);
        Some(run)
    }

    /// Takes everything.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Run> {
        self.packets = 0;
        self.careful = 0;
        std::mem::take(&mut self.jobs).into_iter().map(|job| job.run)
    }

    /// The weight of everything that is there, if its counts and its order are right.
    #[cfg(test)]
    pub(super) fn audit(&self) -> Result<usize, String> {
        let mut before = None;
        let (mut packets, mut careful, mut weight) = (0, 0, 0);
        for job in &self.jobs {
            let at = job.run.first().since(self.origin);
            if before >= Some(at) {
                return Err(format!("{at} waits behind {before:?}"));
            }
            before = Some(at + job.run.len() as u64 - 1);
            packets += job.run.len() as u64;
            careful += usize::from(job.care != Care::Free);
            weight += job.run.weight();
        }
        if (packets, careful) != (self.packets, self.careful) {
            return Err(format!("{packets} packets, {careful} careful runs: {self:?}"));
        }
        Ok(weight)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::Requests;

    /// A backlog of one block with so many records.
    fn block(records: u64) -> Backlog {
        let mut batch = Requests::counted(b'\n');
        for _ in 0..records {
            batch.columns[0].bytes.extend_from_slice(b"x\n");
            batch.columns[0].push_end();
        }
        let mut backlog = Backlog::new(PacketId(0));
        backlog.put(Run::whole(Arc::new(batch)), Care::Free);
        backlog
    }

    #[test]
    fn a_block_is_cut_where_both_parts_are_worth_it() {
        let take = |share, most, something| {
            let mut backlog = block(100);
            let taken = backlog.take_free(share, most, something).map(|run| run.len() as u64);
            (taken, backlog.packets())
        };
        assert_eq!(take(50, 100, false), (Some(50), 50));
        // A crumb is left to the next one who has nothing, or taken with the rest.
        assert_eq!(take(24, 100, false), (Some(24), 76));
        assert_eq!(take(24, 100, true), (None, 100));
        assert_eq!(take(25, 100, true), (Some(25), 75));
        assert_eq!(take(74, 100, true), (Some(74), 26));
        assert_eq!(take(75, 100, true), (Some(100), 0));
        // But not more than there is room for.
        assert_eq!(take(75, 99, true), (Some(75), 25));
        assert_eq!(take(100, 100, true), (Some(100), 0));
    }
}
