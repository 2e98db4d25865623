//! What a seed decides, all of it before the first step: the feed, its policies, its input, its
//! consumer, and how the workers behave. Which failures are just follows from that.
//!
//! Each seed belongs to a [`Family`] with one kind of fault, so that its oracle can be strict; the last
//! family mixes all of them.

use std::sync::Arc;
use std::time::Duration;

use crate::framing::{Prefix, ReplyFraming, RequestFraming, Sentinel};
use crate::record::PacketId;
use crate::subprocess::protocol::Now;
use crate::template::policy::{Halt, OnStall, Signal};
use crate::template::{Spec, Template};
use crate::window::outlet::Order;

use super::rng::{Rng, stir};
use super::script::{Helper, Manners, Talk};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Prompt, slow, bursty, withholding, leaving after k replies: every packet is answered.
    Clean,
    /// Some packets kill the worker that reads them, every time; nothing else goes wrong.
    Poison,
    /// Workers die at any point.
    Deaths,
    /// Workers hang; time limits are set.
    Hangs,
    /// Workers cannot be started, or end without ever answering.
    Starts,
    /// Too many replies, too few, too long, or not what `check` expects.
    Garbage,
    /// Pipes closed early, ends ignored, grandchildren that hold a pipe.
    Pipes,
    /// All of it at once.
    Mixed,
}

const FAMILIES: [Family; 10] = [
    Family::Clean,
    Family::Clean,
    Family::Poison,
    Family::Poison,
    Family::Deaths,
    Family::Hangs,
    Family::Starts,
    Family::Garbage,
    Family::Pipes,
    Family::Mixed,
];

/// What the consumer does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Consumer {
    /// Between two items.
    pub(super) pause: Duration,
    /// One item in so many is followed by a long pause.
    pub(super) rest_every: u64,
    pub(super) rest: Duration,
    /// Whole spans at a time, as `batches` does.
    pub(super) whole_spans: bool,
    /// After each item it waits, elsewhere than in `next()`, until the source has pulled all that it may.
    pub(super) follows: bool,
    /// Dropped after so many items, or at this time.
    pub(super) take: Option<u64>,
    pub(super) drop_at: Option<Now>,
}

/// What the source does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input {
    /// `None`: endless.
    pub(super) total: Option<u64>,
    pub(super) pause: Duration,
    pub(super) rest_every: u64,
    pub(super) rest: Duration,
    /// One item in so many is refused by `encode`; 0: none.
    pub(super) refused: u64,
    /// Records in a batch that is handed over unasked.
    pub(super) batch: usize,
    /// Batches that may wait.
    pub(super) waiting: usize,
    /// At this item the source blocks for ever.
    pub(super) blocks_at: Option<u64>,
    pub(super) record: u64,
}

#[derive(Debug)]
pub(super) struct Schedule {
    pub(super) seed: u64,
    pub(super) family: Family,
    pub(super) workers: usize,
    pub(super) window: u64,
    pub(super) max_bytes: usize,
    /// The upper bound of the source's size hint.
    pub(super) most: Option<u64>,
    pub(super) order: Order,
    pub(super) origin: PacketId,
    pub(super) keep_requests: bool,
    pub(super) input: Input,
    pub(super) consumer: Consumer,
    pub(super) manners: Manners,
    /// Positions in the input that are poison.
    pub(super) poison: Vec<u64>,
    pub(super) spec: Arc<Spec>,
    /// Bytes that may wait to be written to a worker before it gets no more.
    pub(super) backlog: u64,
}

const MS: Duration = Duration::from_millis(1);

impl Schedule {
    pub(super) fn new(seed: u64) -> Self {
        let rng = &mut Rng::new(seed);
        let family = rng.pick(&FAMILIES);
        let talk = rng.pick(&[
            Talk::Line,
            Talk::Line,
            Talk::Line,
            Talk::Scanned,
            Talk::Scanned,
            Talk::TwoLines,
            Talk::Prefixed,
            Talk::Sentinel,
            Talk::UntilEof,
        ]);
        // A sentinel or a whole process per packet cannot miscount.
        let talk = match (family, talk) {
            (Family::Garbage | Family::Mixed, Talk::Sentinel | Talk::UntilEof) => Talk::Scanned,
            _ => talk,
        };
        let workers = rng.skewed(5) as usize;
        let window = match rng.below(8) {
            0 => 1,
            1 => u64::MAX,
            2 => 64,
            _ => rng.skewed(32),
        };
        let input = Self::input(rng, talk);
        // An endless source and an endless window are an endless simulation.
        let window = if input.total.is_none() { window.min(64) } else { window };
        let mut consumer = Self::consumer(rng, &input);
        let poison = match family {
            Family::Poison | Family::Mixed => {
                let most = input.total.unwrap_or(30).max(1);
                (0..rng.range(1, 3)).map(|_| rng.below(most)).collect()
            }
            _ => Vec::new(),
        };
        let mut manners = Manners::new(rng, family, talk, input.record);
        // All of the input may be in flight at once, and its end found: a worker that withholds has only to be
        // given that.
        let fits = input.total.is_some_and(|total| total < window) && input.blocks_at.is_none();
        let roomy = fits && rng.one_in(2);
        let spec = Self::spec(rng, family, talk, &mut manners, roomy);
        let max_bytes = match rng.below(4) {
            _ if roomy => 1 << 20,
            0 => rng.range(1, 64) as usize,
            1 => rng.range(64, 2048) as usize,
            _ => 1 << 20,
        };
        consumer.follows = max_bytes == 1 << 20 && rng.one_in(6);
        Self {
            seed,
            family,
            workers,
            window,
            max_bytes,
            order: if rng.one_in(3) { Order::Completion } else { Order::Input },
            origin: PacketId(match rng.below(3) {
                0 => u64::MAX - rng.below(40),
                1 => rng.next(),
                _ => 0,
            }),
            keep_requests: rng.one_in(4),
            most: input.total.filter(|_| rng.one_in(2)),
            input,
            consumer,
            manners,
            poison,
            spec: Arc::new(spec),
            backlog: rng.pick(&[1, 40, 300, 1 << 20]),
        }
    }

    fn input(rng: &mut Rng, talk: Talk) -> Input {
        let endless = rng.one_in(6);
        let most = if talk == Talk::UntilEof { 12 } else { 60 };
        let total = match rng.below(10) {
            _ if endless => None,
            0 => Some(0),
            1 => Some(1),
            _ => Some(rng.skewed(most)),
        };
        Input {
            total,
            pause: rng.pick(&[
                Duration::ZERO,
                Duration::ZERO,
                MS / 1000,
                MS / 20,
                3 * MS,
                300 * MS,
            ]),
            rest_every: rng.pick(&[u64::MAX, 3, 10]),
            rest: rng.pick(&[MS, 200 * MS, 5_000 * MS]),
            refused: rng.pick(&[0, 0, 0, 2, 9]),
            batch: rng.pick(&[1, 4, 1_000, 1_000]),
            waiting: rng.pick(&[1, 4]),
            blocks_at: rng.one_in(12).then(|| rng.below(total.unwrap_or(20) + 1)),
            record: rng.pick(&[0, 3, 20, 200]),
        }
    }

    fn consumer(rng: &mut Rng, input: &Input) -> Consumer {
        let most = input.total.unwrap_or(if input.pause > MS { 10 } else { 40 }).max(1);
        Consumer {
            pause: rng.pick(&[Duration::ZERO, Duration::ZERO, MS / 100, MS, 50 * MS]),
            rest_every: rng.pick(&[u64::MAX, u64::MAX, 2, 7]),
            rest: rng.pick(&[10 * MS, 700 * MS, 6_000 * MS]),
            whole_spans: rng.one_in(4),
            follows: false,
            take: (input.total.is_none() || rng.one_in(12)).then(|| rng.below(most + 1)),
            drop_at: rng.one_in(12).then(|| MS * rng.skewed(4_000) as u32 / 4),
        }
    }

    fn spec(rng: &mut Rng, family: Family, talk: Talk, manners: &mut Manners, roomy: bool) -> Spec {
        let mut spec = Template::new("simulated").spec;
        match talk {
            Talk::Line | Talk::Scanned => {}
            Talk::TwoLines => spec.replies = ReplyFraming::lines(2),
            Talk::Prefixed => {
                spec.requests = RequestFraming::prefixed(Prefix::u16_be());
                spec.replies = ReplyFraming::prefixed(Prefix::u16_be());
            }
            Talk::Sentinel => {
                spec.replies = ReplyFraming::sentinel(Sentinel::new("SYNC {mark}").with_nonce(7));
            }
            Talk::UntilEof => {
                spec.requests = RequestFraming::raw();
                spec.replies = ReplyFraming::until_eof();
            }
        }
        let policy = &mut spec.policy;
        policy.reply_limit = match talk {
            Talk::Scanned | Talk::TwoLines | Talk::Prefixed => 600,
            _ => 64 << 20,
        };
        if family == Family::Garbage && rng.one_in(3) {
            spec.check = Some(Arc::new(super::script::check));
        }
        policy.retries = rng.below(3) as u32;
        policy.at_most_once = family != Family::Clean && rng.one_in(8);
        policy.give_up = u32::MAX;
        if matches!(family, Family::Starts | Family::Mixed) && rng.one_in(2) {
            policy.give_up = rng.range(1, 8) as u32;
        }
        if family != Family::Clean && rng.one_in(8) {
            let most = rng.range(1, 3);
            policy.halt = if rng.one_in(2) { Halt::Soon(most) } else { Halt::Now(most) };
        }
        policy.recycle_records = rng.one_in(6).then(|| rng.range(1, 6));
        policy.recycle_age = rng.one_in(8).then(|| MS * rng.skewed(300) as u32);
        if family == Family::Hangs || (family == Family::Mixed && rng.one_in(2)) {
            policy.packet_timeout = Some(MS * rng.pick(&[700, 2_000, 20_000]));
            policy.start_timeout = rng.one_in(4).then_some(3_000 * MS);
            policy.idle_timeout = rng.one_in(8).then_some(30_000 * MS);
            policy.run_timeout = rng.one_in(8).then_some(60_000 * MS);
        } else if rng.one_in(4) {
            // Limits that never run out change nothing.
            for limit in [
                &mut policy.packet_timeout,
                &mut policy.start_timeout,
                &mut policy.idle_timeout,
                &mut policy.run_timeout,
            ] {
                *limit = rng.one_in(2).then(|| rng.pick(&[Duration::MAX, 3_600_000 * MS]));
            }
        }
        policy.kill_sequence = match rng.below(4) {
            0 => vec![(Signal::Kill, Duration::ZERO)],
            1 => vec![(Signal::Terminate, Duration::ZERO), (Signal::Kill, Duration::ZERO)],
            2 => vec![
                (Signal::Interrupt, 50 * MS),
                (Signal::Terminate, 50 * MS),
                // For ever, unless there are some for whom that would be too long.
                (Signal::Kill, if family == Family::Hangs { 3_000 * MS } else { Duration::MAX }),
            ],
            _ => policy.kill_sequence.clone(),
        };
        policy.end_timeout = match rng.below(4) {
            0 if !manners.ignores_end && !manners.hangs => None,
            1 => Some(150 * MS),
            2 if manners.end_is_slow_at_most(MS) => Some(10 * MS),
            _ => Some(5_000 * MS),
        };
        let waits = policy.packet_timeout.is_some_and(|limit| limit < Duration::from_secs(60));
        // So does one that swallows a record.
        let swallows = matches!(family, Family::Garbage | Family::Mixed);
        let needs_evidence = ((manners.withholds && !roomy) || swallows) && !waits;
        policy.on_stall = match rng.below(10) {
            0 if !needs_evidence => OnStall::Wait,
            1 => OnStall::Fail,
            _ => OnStall::Recycle,
        };
        // A withholding tool with a sleeper beside it is given what there is, and closed; one that polls is
        // closed when the input has ended, and so is what cannot be seen.
        manners.helper = match rng.below(6) {
            0 | 1 if !(swallows || family == Family::Pipes) || waits || roomy => Helper::Sleeper,
            2 if !needs_evidence && !manners.leaves => Helper::Poller,
            _ => Helper::None,
        };
        if manners.helper == Helper::Sleeper && manners.withholds {
            // Whether it withholds is never certain.
            policy.on_stall = OnStall::Recycle;
        }
        manners.opaque = !needs_evidence && !manners.leaves && rng.one_in(8);
        policy.stall_delay = rng.pick(&[MS, 100 * MS, 100 * MS, 2_000 * MS]);
        spec
    }

    pub(super) fn is_poison(&self, k: u64) -> bool {
        self.poison.contains(&k)
    }

    /// The body of request `k`.
    pub(super) fn body(&self, k: u64) -> Vec<u8> {
        let word = stir(self.seed ^ k.wrapping_mul(0x1000_0001));
        let pad = (word % (self.input.record + 1)) as usize;
        format!("{k}:{:0>pad$}", word % 10).into_bytes()
    }

    pub(super) fn is_refused(&self, k: u64) -> bool {
        self.input.refused != 0 && stir(self.seed ^ !k).is_multiple_of(self.input.refused)
    }

    /// Whether packets other than poison may end as an `Err` (and poison as another).
    pub(super) fn anybody_may_fail(&self) -> bool {
        match self.family {
            Family::Clean => false,
            // Those that travelled with it may have been read and is not sent again.
            Family::Poison => self.spec.policy.at_most_once,
            _ => true,
        }
    }

    /// Whether the feed may end before its time by something else than a drop.
    pub(super) fn may_end_early(&self) -> bool {
        let policy = &self.spec.policy;
        policy.halt != Halt::Never
            || (policy.on_stall == OnStall::Fail && self.manners.withholds)
            || matches!(
                self.family,
                Family::Starts | Family::Garbage | Family::Pipes | Family::Mixed
            )
            || (policy.run_timeout.is_some() && self.input.blocks_at.is_some())
            || (self.family == Family::Hangs
                && (policy.idle_timeout.is_some() || policy.run_timeout.is_some()))
    }
}
