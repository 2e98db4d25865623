//! Where the time of the last seconds went, kept by the event loop.
//!
//! Each time it is about to sleep, the event loop says whom the feed waits for; the sleep is put down to them, and the
//! time that it was awake to us. That is one entry a sleep, however many records there were.
//!
//! # Invariants
//! 1. Every moment since the start is put down to one [`Share`], once.
//! 2. What is kept is a row of spells of [`SPELL`] each, a last one that is shorter, and no more of them than
//!    [`KEPT`] needs.

use std::collections::VecDeque;
use std::time::Duration;

/// So much of the past counts.
const KEPT: Duration = Duration::from_secs(5);

/// How finely it is kept.
const SPELL: Duration = Duration::from_millis(500);

/// Whom the feed waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// The workers come up; none has answered yet.
    Starting,
    /// Workers are idle, and nothing comes that they could do.
    Source,
    /// Every worker is at work, or work waits for one.
    Workers,
    /// The consumer waits for one packet; what came after it fills the window.
    Head,
    /// Workers are idle, and what is under way fills the window.
    Window,
    /// Replies wait for the consumer and fill the window.
    Consumer,
    /// The event loop is awake.
    Us,
    /// There is nothing to do any more.
    Nothing,
}

pub(crate) const SHARES: usize = 8;

/// How a feed stands, as far as it matters to whom it waits for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) workers: usize,
    /// How many of them owe something.
    pub(crate) busy: usize,
    /// Packets that no worker has been given.
    pub(crate) waiting: u64,
    /// Packets that have come, those of which it is known what became, and those that were taken.
    pub(crate) accepted: u64,
    pub(crate) resolved: u64,
    pub(crate) yielded: u64,
    /// Replies leave in the order of the input.
    pub(crate) ordered: bool,
    /// No more packets will come.
    pub(crate) ended: bool,
    /// The feed ends before its time.
    pub(crate) stopping: bool,
    /// The consumer sleeps until something comes.
    pub(crate) consumer_waits: bool,
    /// The thread that pulls the source sleeps for want of credit or room.
    pub(crate) full: bool,
}

impl Standing {
    /// Whom the feed waits for, if the event loop sleeps now.
    pub(crate) fn share(&self) -> Share {
        // A consumer may have taken what has not been counted here yet.
        let under_way = self.accepted.saturating_sub(self.yielded);
        let ready = self.resolved.saturating_sub(self.yielded);
        let all_busy = self.busy >= self.workers;
        if self.stopping || (self.ended && under_way == 0) {
            Share::Nothing
        } else if ready > 0
            && !self.consumer_waits
            && (self.full || self.ended)
            && (!all_busy || ready >= under_way.div_ceil(2))
        {
            Share::Consumer
        } else if self.resolved == 0 && self.accepted > 0 {
            Share::Starting
        } else if all_busy || self.waiting > 0 {
            Share::Workers
        } else if self.full && self.ordered && ready > 0 {
            Share::Head
        } else if self.full {
            Share::Window
        } else if self.ended {
            if self.busy > 0 { Share::Head } else { Share::Nothing }
        } else {
            Share::Source
        }
    }
}

/// How the feed stands, in numbers that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Inputs that have come from the source.
    pub(crate) pulled: u64,
    /// Items that the consumer has taken.
    pub(crate) yielded: u64,
}

/// What is known of a stretch of time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// By [`Share`].
    pub(crate) shares: [Duration; SHARES],
    /// How much time workers were at work, all of them together.
    pub(crate) busy: Duration,
    pub(crate) pulled: f64,
    pub(crate) yielded: f64,
}

impl Times {
    pub(crate) fn total(&self) -> Duration {
        self.shares.iter().sum()
    }

    fn add(&mut self, other: &Self) {
        for (share, more) in self.shares.iter_mut().zip(other.shares) {
            *share += more;
        }
        self.busy += other.busy;
        self.pulled += other.pulled;
        self.yielded += other.yielded;
    }

    /// The same in a shorter time.
    fn scaled(&self, factor: f64) -> Self {
        Self {
            shares: self.shares.map(|share| share.mul_f64(factor)),
            busy: self.busy.mul_f64(factor),
            pulled: self.pulled * factor,
            yielded: self.yielded * factor,
        }
    }
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    spells: VecDeque<Times>,
    spell: Times,
    /// Up to then everything is put down; to whom what comes after is.
    at: Duration,
    share: Share,
    counts: Counts,
    /// How many workers are at work.
    busy: u32,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            spells: VecDeque::new(),
            spell: Times::default(),
            at: Duration::ZERO,
            share: Share::Us,
            counts: Counts::default(),
            busy: 0,
        }
    }
}

impl Ledger {
    /// About to sleep. Of the time since it woke, so much was spent letting others run, which is put down as the
    /// sleep is.
    pub(crate) fn rests(
        &mut self,
        now: Duration,
        idled: Duration,
        share: Share,
        counts: Counts,
        busy: u32,
    ) {
        let awake = now.saturating_sub(self.at).saturating_sub(idled);
        self.put_down(self.at + awake, counts);
        self.share = share;
        self.busy = busy;
        self.put_down(now, counts);
    }

    /// Awake again.
    pub(crate) fn wakes(&mut self, now: Duration) {
        self.put_down(now, self.counts);
        self.share = Share::Us;
    }

    fn put_down(&mut self, now: Duration, counts: Counts) {
        let elapsed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        let spell = &mut self.spell;
        spell.shares[self.share as usize] += elapsed;
        spell.busy += elapsed * self.busy;
        spell.pulled += counts.pulled.wrapping_sub(self.counts.pulled) as f64;
        spell.yielded += counts.yielded.wrapping_sub(self.counts.yielded) as f64;
        self.counts = counts;
        let total = spell.total();
        if total < SPELL {
            return;
        }
        let mut spell = std::mem::take(spell);
        if total > KEPT {
            // What came before it does not count any more, nor does its beginning.
            spell = spell.scaled(KEPT.as_secs_f64() / total.as_secs_f64());
        }
        self.spells.push_back(spell);
        let mut kept: Duration = self.spells.iter().map(Times::total).sum();
        while let Some(first) = self.spells.front()
            && kept - first.total() >= KEPT
        {
            kept -= first.total();
            self.spells.pop_front();
        }
    }

    /// The last seconds up to `now`.
    pub(crate) fn read(mut self, now: Duration, counts: Counts) -> Times {
        self.put_down(now, counts);
        let mut times = self.spell;
        for spell in &self.spells {
            times.add(spell);
        }
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn counts(pulled: u64) -> Counts {
        Counts { pulled, yielded: 0 }
    }

    #[test]
    fn sleeps_are_put_down_to_whom_they_were_for_and_the_rest_to_us() {
        let mut ledger = Ledger::default();
        ledger.rests(ms(30), ms(10), Share::Source, counts(5), 2);
        ledger.wakes(ms(100));
        ledger.rests(ms(110), ms(0), Share::Workers, counts(9), 4);
        let times = ledger.read(ms(150), counts(10));
        assert_eq!(times.shares[Share::Us as usize], ms(30));
        assert_eq!(times.shares[Share::Source as usize], ms(80));
        assert_eq!(times.shares[Share::Workers as usize], ms(40));
        assert_eq!(times.total(), ms(150));
        assert_eq!(times.pulled, 10.0);
        // While it is awake, as many are taken to be at work as when it last looked.
        assert_eq!(times.busy, 2 * ms(10 + 70 + 10) + 4 * ms(40));
    }

    #[test]
    fn the_feed_waits_for_whoever_keeps_the_others_waiting() {
        let flowing = Standing {
            workers: 4,
            accepted: 1_000,
            resolved: 900,
            yielded: 890,
            ordered: true,
            consumer_waits: true,
            ..Standing::default()
        };
        let share = |standing: Standing| standing.share();
        assert_eq!(share(Standing { busy: 1, ..flowing }), Share::Source);
        assert_eq!(share(Standing { busy: 4, ..flowing }), Share::Workers);
        assert_eq!(share(Standing { busy: 3, waiting: 7, ..flowing }), Share::Workers);
        assert_eq!(share(Standing { busy: 1, full: true, ..flowing }), Share::Head);
        assert_eq!(
            share(Standing { busy: 1, full: true, ordered: false, ..flowing }),
            Share::Window
        );
        assert_eq!(share(Standing { busy: 1, ended: true, ..flowing }), Share::Head);
        let behind = Standing { consumer_waits: false, full: true, resolved: 1_000, ..flowing };
        assert_eq!(share(behind), Share::Consumer);
        assert_eq!(share(Standing { full: false, ..behind }), Share::Source, "there is room");
        let both = Standing { busy: 4, resolved: 900, ..behind };
        assert_eq!(share(both), Share::Workers, "few of what is under way is ready");
        assert_eq!(share(Standing { resolved: 0, yielded: 0, ..flowing }), Share::Starting);
        assert_eq!(share(Standing { ended: true, yielded: 1_000, ..flowing }), Share::Nothing);
        assert_eq!(share(Standing { stopping: true, ..flowing }), Share::Nothing);
        assert_eq!(share(Standing { workers: 4, ..Standing::default() }), Share::Source);
    }

    #[test]
    fn what_is_long_past_does_not_count() {
        let mut ledger = Ledger::default();
        for n in 0..100 {
            ledger.rests(ms(n * 200), ms(0), Share::Source, counts(0), 0);
            ledger.wakes(ms(n * 200 + 200));
        }
        ledger.rests(ms(20_000), ms(0), Share::Head, counts(0), 0);
        let times = ledger.clone().read(ms(21_000), counts(0));
        assert!(times.total() >= KEPT && times.total() <= KEPT + 2 * (SPELL + ms(500)));
        assert_eq!(times.shares[Share::Head as usize], ms(1_000));
        assert!(ledger.spells.len() <= 11);
        // One sleep of an hour is as good as one of five seconds.
        let times = ledger.read(ms(3_600_000), counts(0));
        assert!(times.shares[Share::Head as usize] >= KEPT - ms(1));
        assert!(times.shares[Share::Head as usize] * 10 >= times.total() * 9);
    }
}
