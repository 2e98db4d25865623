//! What one round does: everything that its seed decides, for the feed, the workers and the tormentor.
//!
//! The workers draw the same plan from the same seed, so nothing but the seed is handed to them.

use std::time::Duration;

use subfeed::Order;
use subfeed::policy::{Halt, OnStall, Signal};

use super::rng::{Rng, mix};

/// What a round is about. What it may do to the packets follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Theme {
    /// No fault but odd timing, sizes and noise on stderr: no packet may fail.
    Calm,
    /// Workers that withhold: no packet may fail.
    Stalls,
    /// Workers stopped and continued from outside: no packet may fail.
    Stops,
    /// Records that kill whoever reads them: these and no others fail.
    Poison,
    /// Workers that die by themselves at random points.
    Deaths,
    /// Workers that are killed from outside.
    Kills,
    /// Deaths, and nothing may be handed to a worker twice.
    Once,
    /// Records that hang, and a time limit.
    Hangs,
    /// Workers that hardly ever answer, low limits, halts: feeds that end before their time.
    Ends,
    /// All of it.
    Everything,
}

/// How one session of a worker behaves on the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Prompt,
    Sleepy,
    Withholding,
    Dying,
    Closing,
}

/// How the consumer leaves the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// Takes everything.
    AtEnd,
    /// Takes so many and calls `finish`.
    Finish(u64),
    /// Takes so many and drops it.
    Drop(u64),
    /// Panics after so many.
    Panic(u64),
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) theme: Theme,
    /// Inputs; `None`: without an end.
    pub(crate) records: Option<u64>,
    pub(crate) workers: usize,
    pub(crate) window: usize,
    pub(crate) max_bytes: usize,
    pub(crate) order: Order,
    pub(crate) keep_input: bool,
    /// Two feeds, the second fed by the first.
    pub(crate) chained: bool,
    pub(crate) leave: Leave,
    /// One pull, or one item, in so many is slow.
    pub(crate) slow_source: Option<u64>,
    pub(crate) slow_consumer: Option<u64>,
    /// The source panics at this input.
    pub(crate) source_panics: Option<u64>,
    /// Requests are up to so long; one in 64 is up to `huge`.
    pub(crate) longest: u64,
    pub(crate) huge: u64,

    pub(crate) retries: u32,
    pub(crate) at_most_once: bool,
    pub(crate) on_stall: OnStall,
    pub(crate) stall_delay: Duration,
    pub(crate) packet_timeout: Option<Duration>,
    pub(crate) run_timeout: Option<Duration>,
    pub(crate) recycle_records: Option<u64>,
    pub(crate) recycle_age: Option<Duration>,
    pub(crate) give_up: u32,
    pub(crate) halt: Halt,
    pub(crate) kill_sequence: Vec<(Signal, Duration)>,

    /// What a session may be like.
    pub(crate) moods: Vec<Mood>,
    /// One record in so many kills, or hangs, every session that reads it.
    pub(crate) poison: Option<u64>,
    pub(crate) poison_hangs: bool,
    /// A dying session dies at one record in so many.
    pub(crate) death: u64,
    /// Sessions may end by themselves with status 0 whatever they owe.
    pub(crate) may_leave: bool,
    /// One record in so many comes with a flood on stderr, or with a grandchild.
    pub(crate) flood: Option<u64>,
    pub(crate) family: Option<u64>,
    /// One session in so many ignores SIGTERM; one in so many closes its stderr.
    pub(crate) stubborn: Option<u64>,
    /// Mean milliseconds between two signals from outside.
    pub(crate) kill_every: Option<u64>,
    pub(crate) stop_every: Option<u64>,
}

impl Plan {
    pub(crate) fn draw(seed: u64) -> Self {
        use Theme::*;
        let mut rng = Rng::fork(seed, 1);
        let theme = rng.pick(&[
            Calm, Stalls, Stalls, Stops, Poison, Poison, Deaths, Deaths, Kills, Kills, Once, Hangs,
            Ends, Everything, Everything, Everything,
        ]);
        let all = theme == Everything;
        let sometimes = |rng: &mut Rng, n: u64| (all || rng.one_in(2)) && rng.one_in(n);
        let records = match rng.below(4) {
            0 => rng.range(0..=20),
            1 | 2 => rng.range(20..=400),
            _ => rng.range(400..=3_000),
        };
        let hurts = matches!(theme, Poison | Hangs | Stalls | Ends);
        let hangs = theme == Hangs || (all && rng.one_in(4));
        let window = rng.pick(&[1, 2, 3, 8, 32, 100, 1_000, usize::MAX]);
        // A round must not take minutes: each window costs a stall, each hang a time limit.
        let records = match () {
            () if hangs => records.min(80),
            () if hurts || all => records.min(if window <= 8 { 60 } else { 300 }),
            () => records,
        };
        let leave = match rng.below(10) {
            0..=5 => Leave::AtEnd,
            6 => Leave::Finish(rng.below(records + 1)),
            7 | 8 => Leave::Drop(rng.pick(&[0, 0, 1, 3, rng.clone().below(records + 1)])),
            _ => Leave::Panic(rng.below(records + 1)),
        };
        let endless = matches!(leave, Leave::Drop(_) | Leave::Panic(_)) && rng.one_in(2);
        let window = if endless { window.min(1_000) } else { window };
        let mut moods = vec![Mood::Prompt, Mood::Prompt];
        if rng.one_in(2) {
            moods.push(Mood::Sleepy);
        }
        let withholds = match theme {
            Stalls => true,
            Stops => false,
            _ => hurts || all || (window > 8 && rng.one_in(4)),
        };
        if withholds {
            moods.push(Mood::Withholding);
            if rng.one_in(2) {
                moods = vec![Mood::Withholding];
            }
        }
        let deaths = matches!(theme, Deaths | Once | Ends) || all;
        if deaths {
            moods.push(Mood::Dying);
            if rng.one_in(3) {
                moods.push(Mood::Closing);
            }
            if theme == Ends {
                moods = vec![Mood::Dying];
            }
        }
        let packet_timeout = hangs.then(|| Duration::from_millis(rng.range(100..=300)));
        let on_stall = match theme {
            Ends if rng.one_in(3) => OnStall::Fail,
            // Without a time limit that would be waiting for ever.
            _ if packet_timeout.is_some() && rng.one_in(3) => OnStall::Wait,
            _ => OnStall::Recycle,
        };
        // A grandchild at work is no proof of a stall: a worker that withholds beside one is waited for.
        let family = sometimes(&mut rng, 2) && (!withholds || packet_timeout.is_some());
        let kill_sequence = match rng.below(4) {
            0 => vec![(Signal::Kill, Duration::ZERO)],
            1 => vec![(Signal::Terminate, Duration::from_millis(rng.below(60)))],
            2 => vec![
                (Signal::Interrupt, Duration::from_millis(10)),
                (Signal::Terminate, Duration::from_millis(30)),
                (Signal::Kill, Duration::ZERO),
            ],
            _ => vec![
                (Signal::Terminate, Duration::from_millis(200)),
                (Signal::Kill, Duration::ZERO),
            ],
        };
        let sessions_end_badly = deaths || matches!(theme, Kills | Hangs);
        Self {
            seed,
            theme,
            records: (!endless).then_some(records),
            workers: rng.pick(&[1, 1, 2, 3, 4, 8]),
            window,
            max_bytes: rng.pick(&[1, 1_000, 100_000, 64 << 20]),
            order: if rng.one_in(3) { Order::Completion } else { Order::Input },
            keep_input: rng.one_in(3) && !matches!(leave, Leave::Finish(_)),
            chained: rng.one_in(8),
            leave,
            slow_source: rng.one_in(4).then(|| rng.range(5..=100)),
            slow_consumer: rng.one_in(5).then(|| rng.range(5..=100)),
            source_panics: rng.one_in(16).then(|| rng.below(records + 1)),
            longest: rng.pick(&[0, 10, 10, 200, 2_000]),
            huge: if rng.one_in(6) && !hurts { 300_000 } else { 0 },
            retries: rng.pick(&[0, 0, 1, 3]),
            at_most_once: theme == Once || (all && rng.one_in(5)),
            on_stall,
            stall_delay: Duration::from_millis(rng.pick(&[1, 10, 100])),
            packet_timeout,
            run_timeout: (theme == Ends && rng.one_in(4))
                .then(|| Duration::from_millis(rng.range(1..=300))),
            recycle_records: sometimes(&mut rng, 4).then(|| rng.range(1..=50)),
            recycle_age: sometimes(&mut rng, 4).then(|| Duration::from_millis(1 + rng.below(40))),
            give_up: match theme {
                Ends => rng.range(1..=8) as u32,
                _ if sessions_end_badly || all => 100_000,
                _ => 8,
            },
            halt: match theme {
                Ends if rng.one_in(3) => Halt::Now(rng.range(1..=5)),
                Ends if rng.one_in(3) => Halt::Soon(rng.range(1..=5)),
                _ => Halt::Never,
            },
            kill_sequence,
            moods,
            poison: (theme == Poison || hangs || (all && rng.one_in(3)))
                .then(|| rng.range(10..=150)),
            poison_hangs: hangs,
            death: if theme == Ends { rng.range(1..=3) } else { rng.range(5..=100) },
            may_leave: deaths && rng.one_in(4),
            flood: sometimes(&mut rng, 3).then(|| rng.range(10..=200)),
            family: family.then(|| rng.range(10..=200)),
            stubborn: sometimes(&mut rng, 2).then(|| rng.range(1..=4)),
            kill_every: (theme == Kills || (all && rng.one_in(2))).then(|| rng.range(2..=40)),
            stop_every: (theme == Stops || (all && rng.one_in(2))).then(|| rng.range(2..=30)),
        }
    }

    pub(crate) fn is_poison(&self, record: u64) -> bool {
        self.poison.is_some_and(|n| mix(self.seed ^ mix(record ^ 0x9015)).is_multiple_of(n))
    }

    pub(crate) fn request(&self, record: u64) -> String {
        let draw = mix(self.seed ^ mix(record));
        let longest =
            if draw.is_multiple_of(64) { self.longest.max(self.huge) } else { self.longest };
        let len = (draw >> 8) % (longest + 1);
        let letter = (b'a' + (draw >> 4) as u8 % 26) as char;
        format!("{record}:{}", String::from(letter).repeat(len as usize))
    }

    /// Whether a session may end, or be ended, while it owes replies.
    pub(crate) fn sessions_may_fail(&self) -> bool {
        self.moods.iter().any(|mood| matches!(mood, Mood::Dying | Mood::Closing))
            || self.kill_every.is_some()
            || self.packet_timeout.is_some()
    }

    /// The time within which a dropped feed is gone, as documented.
    pub(crate) fn drop_bound(&self) -> Duration {
        let kill_sequence: Duration = self.kill_sequence.iter().map(|(_, wait)| *wait).sum();
        let stages = if self.chained { 2 } else { 1 };
        (Duration::from_millis(500) + kill_sequence) * stages
    }
}

/// What every worker answers to a request, which begins with its number.
pub(crate) fn answer(request: &[u8]) -> Vec<u8> {
    let number = request.split(|&byte| byte == b':').next().unwrap_or_default();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for &byte in request {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let mut reply = number.to_vec();
    reply.extend(format!(":{hash:016x}").into_bytes());
    reply.resize(reply.len() + (hash >> 32) as usize % (1 + request.len()), b'z');
    reply
}
