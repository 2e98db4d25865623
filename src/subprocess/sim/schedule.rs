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
use crate::template::channel::{Redirect, SideInput, SideOutput, Stream};
use crate::template::launcher::{Host, Launcher};
use crate::template::policy::{Halt, OnStall, Signal};
use crate::template::{AcceptStatus, Spec, Template};
use crate::window::outlet::Order;

use super::disk::Log;
use super::reader::Bytes;
use super::rng::{Rng, stir};
use super::script::{self, Fault, Helper, Manners, Talk};

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
    /// One slot is broken: whatever is started there comes to nothing. The others are sound.
    Slot,
    /// Sound tools that look idle while they work, and drop what they had when their input is closed.
    Harmed,
    /// Workers on hosts that refuse, print before the hello, drop connections at random, and freeze.
    Hosts,
    /// All of it at once.
    Mixed,
}

/// One seed in so many is about hosts.
const HOSTS_EVERY: u64 = 14;

const FAMILIES: [Family; 14] = [
    Family::Clean,
    Family::Clean,
    Family::Clean,
    Family::Poison,
    Family::Poison,
    Family::Deaths,
    Family::Hangs,
    Family::Hangs,
    Family::Starts,
    Family::Garbage,
    Family::Pipes,
    Family::Slot,
    Family::Harmed,
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
    /// After each item it waits, elsewhere than in `next()`, until the source has pulled all that it may.
    pub(super) follows: bool,
    /// Dropped after so many items, or at this time.
    pub(super) take: Option<u64>,
    pub(super) drop_at: Option<Now>,
}

impl Consumer {
    /// One that takes everything at once.
    pub(super) const PLAIN: Self = Self {
        pause: Duration::ZERO,
        rest_every: u64::MAX,
        rest: Duration::ZERO,
        follows: false,
        take: None,
        drop_at: None,
    };
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

/// What is wrong with hosts: one session in so many, 0 for none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HostFaults {
    /// It says no hello.
    pub(super) refuses: u64,
    /// Its connection breaks off after some bytes, and the launcher ends.
    pub(super) breaks: u64,
    /// Nothing more is heard of it after some bytes.
    pub(super) freezes: u64,
    /// The longest noise before a hello.
    pub(super) noise: u64,
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
    pub(super) faults: HostFaults,
    /// Nothing comes back.
    pub(super) drain: bool,
    /// One start in so many fails for now.
    pub(super) start_fails: u64,
    /// One exit status in so many is unknown.
    pub(super) unknown_status: u64,
    /// So long the loop is held up now and then.
    pub(super) late: Option<Duration>,
    /// The input is bytes, which are read, and replies come in blocks.
    pub(super) bytes: Option<Bytes>,
    /// A job log is kept.
    pub(super) log: Option<Log>,
}

/// What is drawn beside the rest, from a source of chance of its own, so that the rest of a seed means what it did.
const BESIDE: u64 = 0x10c5_0b1e_ca5e_d11e;

const MS: Duration = Duration::from_millis(1);

impl Schedule {
    /// Two sound workers that echo lines, twenty lines, and everybody in a hurry.
    pub(super) fn plain(family: Family) -> Self {
        Self {
            seed: 0,
            family,
            workers: 2,
            window: 100,
            max_bytes: 1 << 20,
            order: Order::Input,
            origin: PacketId(0),
            keep_requests: false,
            most: None,
            input: Input {
                total: Some(20),
                pause: Duration::ZERO,
                rest_every: u64::MAX,
                rest: Duration::ZERO,
                refused: 0,
                batch: 1_000,
                waiting: 4,
                blocks_at: None,
                record: 3,
            },
            consumer: Consumer::PLAIN,
            poison: Vec::new(),
            spec: Arc::new(Template::new("simulated").spec),
            backlog: 1 << 20,
            faults: HostFaults::default(),
            drain: false,
            start_fails: u64::MAX,
            unknown_status: u64::MAX,
            late: None,
            bytes: None,
            log: None,
            manners: Manners::plain(family),
        }
    }

    /// Sound tools on hosts of which some are not.
    fn on_hosts(seed: u64, rng: &mut Rng) -> Self {
        let plain = Self::plain(Family::Hosts);
        let workers = rng.skewed(6) as usize;
        let mut spec = Template::new("simulated").spec;
        let names = &[":", "a", "b", "c"][usize::from(!rng.one_in(6))..];
        let names = &names[..rng.range(1, 3) as usize];
        let launcher = Launcher::remote(["launcher"]).hosts(names.iter().copied());
        let launcher = launcher.least_in_flight(rng.pick(&[1, 1, 32]));
        spec.launchers.push(launcher.starts(rng.range(1, 8) as usize, MS * rng.below(6) as u32));
        spec.begin(workers).expect("hosts are named");
        spec.policy.give_up = rng.pick(&[u32::MAX, u32::MAX, 1, 3]);
        spec.policy.at_most_once = rng.one_in(6);
        let mut manners = plain.manners.clone();
        manners.startup = rng.pick(&[Duration::ZERO, MS, 40 * MS]);
        manners.service = rng.pick(&[Duration::ZERO, MS / 10, 4 * MS, 60 * MS]);
        let total = rng.skewed(60);
        Self {
            seed,
            workers,
            window: rng.pick(&[1, 8, 64]),
            order: if rng.one_in(3) { Order::Completion } else { Order::Input },
            origin: PacketId(rng.pick(&[0, u64::MAX - 7])),
            keep_requests: rng.one_in(4),
            most: rng.one_in(2).then_some(total),
            input: Input {
                total: Some(total),
                pause: rng.pick(&[Duration::ZERO, MS, 300 * MS]),
                ..plain.input
            },
            consumer: Consumer {
                take: rng.one_in(12).then(|| rng.below(total + 1)),
                ..Consumer::PLAIN
            },
            manners,
            spec: Arc::new(spec),
            backlog: rng.pick(&[1, 40, 1 << 20]),
            faults: HostFaults {
                refuses: rng.pick(&[0, 0, 3, 10]),
                breaks: rng.pick(&[0, 2, 5]),
                freezes: rng.pick(&[0, 0, 4]),
                noise: rng.pick(&[0, 0, 7, 300]),
            },
            ..plain
        }
    }

    pub(super) fn new(seed: u64) -> Self {
        let mut schedule = Self::of_records(seed);
        let rng = &mut Rng::new(stir(seed ^ BESIDE));
        schedule.log = (!schedule.drain && rng.one_in(3)).then(|| Log::new(rng));
        schedule.may_say_more_and_leave(&mut Rng::new(stir(seed ^ BESIDE ^ 2)));
        if schedule.may_be_read() && rng.one_in(4) {
            schedule.is_read(rng);
        }
        if schedule.family == Family::Hosts && rng.one_in(4) {
            // A hello is waited for while there is no room.
            schedule.max_bytes = rng.pick(&[1, 30, 200]);
            schedule.consumer.rest_every = 3;
            schedule.consumer.rest = 50_000 * MS;
        }
        if schedule.family == Family::Hosts && rng.one_in(2) {
            schedule.is_launched_otherwise(rng);
        }
        schedule
    }

    /// Other settings of its launcher.
    fn is_launched_otherwise(&mut self, rng: &mut Rng) {
        let mut spec = Spec::clone(&self.spec);
        let Some(mut launcher) = spec.launchers.pop() else { return };
        if rng.one_in(3) {
            let names = &["a", ":", "b"][..rng.range(1, 3) as usize];
            let hosts = names.iter().map(|name| Host::new(*name).weight(rng.range(1, 3) as u32));
            launcher = launcher.hosts(hosts);
        }
        launcher = match rng.below(3) {
            0 if self.faults.freezes == 0 => launcher.connect_within(None),
            1 => launcher.connect_within(300 * MS),
            _ => launcher,
        };
        launcher = match rng.below(4) {
            // Nothing else would be noticed of one that freezes.
            0 if self.faults.freezes == 0 => launcher.silence(None),
            1 => launcher.silence(20 * MS),
            2 => launcher.silence(3_000 * MS),
            _ => launcher,
        };
        if rng.one_in(6) {
            launcher = launcher.bare();
        }
        spec.launchers.push(launcher);
        spec.begin(self.workers).expect("hosts are named");
        self.spec = Arc::new(spec);
    }

    /// Workers may say a reply too many as the last thing that they do.
    fn may_say_more_and_leave(&mut self, rng: &mut Rng) {
        use Fault::*;
        let faults: &[Fault] = match self.family {
            Family::Garbage => &[ExtraLeaving, ExtraLeaving, ExtraReply, WrongReply],
            Family::Mixed => {
                &[ExtraLeaving, ExtraLeaving, DieUnread, DieRead, ExtraIdle, Grandchild]
            }
            _ => return,
        };
        if !self.manners.faults.is_empty() && rng.one_in(4) {
            self.manners.faults = faults;
        }
    }

    /// Whether its input may as well be bytes, and its replies blocks.
    fn may_be_read(&self) -> bool {
        let ends = &self.manners.ends;
        !self.drain
            && !self.spec.policy.keep_stderr
            && !ends.side_output
            && ends.side_input == script::SideInput::None
    }

    /// Its input becomes bytes, and its replies blocks.
    fn is_read(&mut self, rng: &mut Rng) {
        // What a body may have at most: its number, and padding.
        let longest = self.input.record as usize + 24;
        let fails_at = rng.one_in(5).then(|| {
            let k = rng.below(self.input.total.unwrap_or(30) + 1);
            (k, rng.pick(&[0, 1, 5, usize::MAX]))
        });
        self.bytes = Some(Bytes {
            delimiter: rng.pick(&[b'\n', b'\n', b'\n', 0]),
            block: rng.pick(&[1, 7, 64, 300, 4096, 65_536]),
            limit: longest + rng.below(2) as usize,
            piece: rng.pick(&[3, 40, 4096, 65_536]).max(self.input.record as usize / 10),
            unended: rng.one_in(3),
            fails_at,
            blocks_within: rng.pick(&[0, 0, 4]),
        });
        if let Some((k, _)) = fails_at {
            self.input.total = Some(k);
        }
        (self.most, self.keep_requests) = (None, false);
    }

    fn of_records(seed: u64) -> Self {
        let rng = &mut Rng::new(seed);
        if seed % HOSTS_EVERY == HOSTS_EVERY - 1 {
            return Self::on_hosts(seed, rng);
        }
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
            Talk::UntilEof,
        ]);
        let talk = match (family, talk) {
            // A sentinel or a whole process per packet cannot miscount.
            (Family::Garbage | Family::Mixed, Talk::Sentinel | Talk::UntilEof) => Talk::Scanned,
            // What ends with its input is closed behind each request.
            (Family::Harmed, Talk::UntilEof) => Talk::Line,
            _ => talk,
        };
        let drain = family != Family::Harmed && rng.one_in(12);
        let workers = match family {
            Family::Slot => rng.range(2, 5) as usize,
            _ => rng.skewed(5) as usize,
        };
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
        if drain {
            // Whoever drains takes all that comes, and nothing else.
            consumer = Consumer::PLAIN;
        }
        let input = if drain {
            Input { total: Some(input.total.unwrap_or(40)), blocks_at: None, ..input }
        } else {
            input
        };
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
        let spec = Draw { rng, seed, family, talk, manners: &mut manners, roomy, drain }.spec();
        let max_bytes = match rng.below(4) {
            _ if roomy => 1 << 20,
            0 => rng.range(1, 64) as usize,
            1 => rng.range(64, 2048) as usize,
            _ => 1 << 20,
        };
        consumer.follows = !drain && max_bytes == 1 << 20 && rng.one_in(6);
        let mut schedule = Self {
            seed,
            family,
            workers,
            window,
            max_bytes,
            order: if drain || rng.one_in(3) { Order::Completion } else { Order::Input },
            origin: PacketId(match rng.below(3) {
                0 => u64::MAX - rng.below(40),
                1 => rng.next(),
                _ => 0,
            }),
            keep_requests: !drain && rng.one_in(4),
            most: input.total.filter(|_| rng.one_in(2)),
            input,
            consumer,
            poison,
            spec: Arc::new(spec),
            backlog: rng.pick(&[1, 40, 300, 1 << 20]),
            drain,
            start_fails: match family {
                Family::Starts => rng.pick(&[u64::MAX, 4, 1]),
                Family::Mixed => 4,
                _ => rng.pick(&[u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX, 3]),
            },
            unknown_status: rng.pick(&[u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX, 2]),
            faults: HostFaults::default(),
            late: rng.one_in(8).then(|| MS * rng.pick(&[50, 900, 7_000])),
            bytes: None,
            log: None,
            manners,
        };
        if schedule.late.is_some() {
            // Each time that the process is stopped may count for 10 ms, in which no worker has run.
            let policy = &mut Arc::make_mut(&mut schedule.spec).policy;
            policy.end_timeout = policy.end_timeout.map(|limit| limit.max(150 * MS));
        }
        schedule
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
        let pause = rng.pick(&[Duration::ZERO, Duration::ZERO, MS / 100, MS, 50 * MS]);
        let rest_every = rng.pick(&[u64::MAX, u64::MAX, 2, 7]);
        let rest = rng.pick(&[10 * MS, 700 * MS, 6_000 * MS]);
        // What was drawn here is gone; a seed means the same as before.
        rng.below(4);
        Consumer {
            pause,
            rest_every,
            rest,
            follows: false,
            take: (input.total.is_none() || rng.one_in(12)).then(|| rng.below(most + 1)),
            drop_at: rng.one_in(12).then(|| MS * rng.skewed(4_000) as u32 / 4),
        }
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

    /// Record `k`, where the input is bytes: one that is refused is longer than may be, or cannot be framed.
    pub(super) fn text(&self, k: u64) -> Vec<u8> {
        let mut text = self.body(k);
        let Some(bytes) = self.bytes.filter(|_| self.is_refused(k)) else { return text };
        let word = stir(self.seed ^ k.rotate_left(17));
        let lines = self.spec.requests.delimiter() == Some(b'\n') && bytes.delimiter != b'\n';
        if lines && word.is_multiple_of(2) {
            text.push(b'\n');
            return text;
        }
        let more = (word >> 8) as usize % (2 * bytes.block.min(4096));
        text.resize(bytes.limit + 1 + more, b'x');
        text
    }

    pub(super) fn is_refused(&self, k: u64) -> bool {
        self.input.refused != 0 && stir(self.seed ^ !k).is_multiple_of(self.input.refused)
    }

    /// Whether the status of a session is sometimes needed and unknown.
    pub(super) fn lacks_statuses(&self) -> bool {
        self.unknown_status < u64::MAX
    }

    /// Whether packets other than poison may end as an `Err` (and poison as another).
    pub(super) fn anybody_may_fail(&self) -> bool {
        let policy = &self.spec.policy;
        // A whole output is believed only with a good status.
        let half = self.manners.talk == Talk::UntilEof && self.lacks_statuses();
        half || match self.family {
            // Who leaves after it was asked to end may not have been believed.
            Family::Clean => {
                // What it has read on the side alone, it may have read.
                let aside = self.manners.ends.side_input == script::SideInput::Optional;
                policy.at_most_once && (policy.eof_batch.is_some() || aside) && self.manners.leaves
            }
            // Who was there with it may have been read and is not sent again.
            Family::Poison | Family::Slot => policy.at_most_once,
            _ => true,
        }
    }

    /// Whether packets may be lost where nothing comes back: what a worker has read in part when it ends.
    pub(super) fn is_drain_lossy(&self) -> bool {
        self.family != Family::Clean || self.manners.leaves
    }

    /// Whether the feed may end before its time by something else than a drop.
    pub(super) fn may_end_early(&self) -> bool {
        let policy = &self.spec.policy;
        let short = |limit: Option<Duration>| limit.is_some_and(|limit| limit < 600_000 * MS);
        policy.halt != Halt::Never
            || (policy.on_stall == OnStall::Fail && self.manners.withholds)
            || short(policy.run_timeout)
            || short(policy.idle_timeout)
            || (policy.run_timeout.is_some() && self.input.blocks_at.is_some())
            || (policy.require_clean_exit && self.lacks_statuses())
            || match self.family {
                Family::Clean => policy.give_up < u32::MAX && self.anybody_may_fail(),
                Family::Slot | Family::Poison | Family::Deaths | Family::Hangs => {
                    policy.give_up < u32::MAX
                }
                _ => true,
            }
            || (policy.require_clean_exit && !matches!(self.family, Family::Clean | Family::Poison))
    }
}

/// How a template is drawn.
struct Draw<'a> {
    rng: &'a mut Rng,
    /// What is drawn beside the rest comes of it.
    seed: u64,
    family: Family,
    talk: Talk,
    manners: &'a mut Manners,
    /// All of the input may be given out, whatever comes back.
    roomy: bool,
    drain: bool,
}

impl Draw<'_> {
    fn spec(&mut self) -> Spec {
        let mut spec = Template::new("simulated").spec;
        self.framing(&mut spec);
        self.channels(&mut spec);
        self.words(&mut spec);
        self.policy(&mut spec);
        spec
    }

    fn is(&self, families: &[Family]) -> bool {
        families.contains(&self.family)
    }

    fn framing(&mut self, spec: &mut Spec) {
        let rng = &mut *self.rng;
        match self.talk {
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
        spec.policy.reply_limit = match self.talk {
            Talk::Line => 64 << 20,
            Talk::Scanned => 600,
            _ => rng.pick(&[600, 600, 64 << 20]),
        };
        if rng.one_in(if self.family == Family::Garbage { 3 } else { 6 }) {
            let talk = self.talk;
            spec.check = Some(Arc::new(move |request: &[u8], reply: &[u8]| {
                super::script::check(talk, request, reply)
            }));
        }
        if self.talk == Talk::UntilEof && rng.one_in(3) {
            spec.accept_status = Some(AcceptStatus::new(|code| code < 2));
            self.manners.codes = &[0, 1];
        }
    }

    fn channels(&mut self, spec: &mut Spec) {
        let rng = &mut *self.rng;
        let ends = &mut self.manners.ends;
        let elsewhere = Stream::To(Redirect::Null);
        ends.stderr = !rng.one_in(8);
        if !ends.stderr {
            spec.channels.stderr = elsewhere.clone();
        }
        if self.drain && rng.one_in(3) {
            ends.stdout = false;
            spec.channels.stdout = elsewhere.clone();
        }
        ends.terminal = ends.stdout && rng.one_in(8);
        spec.channels.pty = ends.terminal;
        // A half that never comes, or an end that comes twice, has tests of its own.
        if self.talk == Talk::UntilEof || self.family == Family::Harmed {
            return;
        }
        let side =
            |framing, optional| SideInput { name: "side".into(), framing, optional, file: None };
        let line = RequestFraming::line();
        ends.side_input = match rng.below(12) {
            0 => script::SideInput::Required,
            1 => script::SideInput::Optional,
            2 if self.talk != Talk::Sentinel => script::SideInput::Alone,
            _ => script::SideInput::None,
        };
        match ends.side_input {
            script::SideInput::None => {}
            script::SideInput::Required => spec.channels.side_inputs.push(side(line, None)),
            script::SideInput::Optional => {
                spec.channels.side_inputs.push(side(line, Some(1 << 20)));
            }
            script::SideInput::Alone => {
                spec.channels.side_inputs.push(side(spec.requests.clone(), None));
                spec.channels.stdin = elsewhere;
            }
        }
        ends.side_output = rng.one_in(8);
        if ends.side_output {
            spec.channels.side_outputs.push(SideOutput {
                name: "part".into(),
                framing: Some(ReplyFraming::line()),
                file: None,
            });
        }
    }

    fn words(&mut self, spec: &mut Spec) {
        let rng = &mut *self.rng;
        let mut template = Template::new("simulated");
        let ends = self.manners.ends;
        let words = &mut self.manners.words;
        if ends.side_input != script::SideInput::Alone {
            if rng.one_in(6) {
                words.preamble = b"set quiet on\n".to_vec();
                template = template.preamble(words.preamble.clone());
            }
            if rng.one_in(6) {
                words.farewell = b"quit\n".to_vec();
                template = template.farewell(words.farewell.clone());
            }
        }
        if ends.stdout {
            if rng.one_in(8) {
                words.banner.extend(b"Tool 1.0\n(c) somebody\n");
                template = template.skip_lines(2);
            }
            if rng.one_in(8) {
                words.banner.extend(b"loading ... ###");
                template = template.skip_until("###");
            }
            if rng.one_in(5) {
                words.banner.extend(b"READY\n");
                let hangs = self.manners.faults.contains(&Fault::HangStarting);
                let limit = match rng.below(3) {
                    0 if !hangs => None,
                    1 if hangs => Some(700 * MS),
                    _ => Some(60_000 * MS),
                };
                template = template.ready("READY\n", limit);
            }
            if self.talk.counts() && rng.one_in(6) {
                words.bye = b"bye\n".to_vec();
                template = template.skip_at_end("bye\n");
            }
        }
        spec.words = template.spec.words;
    }

    fn policy(&mut self, spec: &mut Spec) {
        let until_eof = self.talk == Talk::UntilEof;
        let hangs = self.is(&[Family::Hangs]) || (self.is(&[Family::Mixed]) && self.rng.one_in(2));
        let holds = spec.words.banner.holds_requests();
        let rng = &mut *self.rng;
        let policy = &mut spec.policy;
        policy.retries = rng.below(3) as u32;
        policy.at_most_once = rng.one_in(7);
        policy.give_up = match rng.below(6) {
            0 | 1 => rng.range(1, 8) as u32,
            _ => u32::MAX,
        };
        let (first, cap) = rng.pick(&[
            (Duration::ZERO, Duration::ZERO),
            (MS, 50 * MS),
            (10 * MS, 1_000 * MS),
            (10 * MS, 1_000 * MS),
            (500 * MS, 20_000 * MS),
        ]);
        // Without any, a broken slot is started for as long as there is work.
        (policy.backoff, policy.backoff_cap) = if self.family == Family::Slot {
            (first.max(MS), cap.max(50 * MS))
        } else {
            (first, cap)
        };
        if rng.one_in(8) {
            let most = rng.range(1, 3);
            policy.halt = if rng.one_in(2) { Halt::Soon(most) } else { Halt::Now(most) };
        }
        policy.recycle_records = rng.one_in(6).then(|| rng.range(1, 6));
        policy.recycle_age = rng.one_in(8).then(|| MS * rng.skewed(300) as u32);
        policy.eof_batch = match rng.below(8) {
            0 if until_eof => Some(1),
            0 => Some(rng.range(1, 8)),
            _ => None,
        };
        policy.in_flight = rng.one_in(5).then(|| rng.pick(&[1, 1, 2, 5]));
        policy.require_clean_exit = spec.accept_status.is_none() && rng.one_in(8);
        policy.keep_stderr =
            self.manners.ends.stderr && (until_eof || policy.in_flight == Some(1)) && rng.one_in(3);
        policy.packet_timeout = match rng.below(4) {
            // A limit that never runs out changes nothing.
            _ if hangs => Some(MS * rng.pick(&[700, 2_000, 20_000])),
            0 => Some(rng.pick(&[Duration::MAX, 3_600_000 * MS])),
            _ => None,
        };
        let ample = if hangs { 3_000 * MS } else { 500_000 * MS };
        for (limit, short) in [
            (&mut policy.start_timeout, ample),
            (&mut policy.idle_timeout, 30_000 * MS),
            (&mut policy.run_timeout, 60_000 * MS),
        ] {
            *limit = match rng.below(16) {
                0 => Some(short),
                1 => Some(Duration::MAX),
                // No feed of so few items takes a day, however many of them hang.
                2 => Some(86_400_000 * MS),
                _ => None,
            };
        }
        if hangs {
            // The first reply may take as long as the start.
            policy.start_timeout = policy.start_timeout.filter(|limit| *limit < 600_000 * MS);
        }
        policy.kill_sequence = match rng.below(4) {
            0 => vec![(Signal::Kill, Duration::ZERO)],
            1 => vec![(Signal::Terminate, Duration::ZERO), (Signal::Kill, Duration::ZERO)],
            2 => vec![
                (Signal::Interrupt, 50 * MS),
                (Signal::Terminate, 50 * MS),
                // For ever, unless there are some for whom that would be too long.
                (
                    Signal::Kill,
                    if self.family == Family::Hangs { 3_000 * MS } else { Duration::MAX },
                ),
            ],
            _ => policy.kill_sequence.clone(),
        };
        let manners = &mut *self.manners;
        let ignores_end = manners.may(Fault::IgnoreEnd);
        policy.end_timeout = match rng.below(4) {
            0 if !ignores_end && !hangs => None,
            1 => Some(150 * MS),
            2 if manners.end_is_slow_at_most(MS) => Some(10 * MS),
            _ => Some(5_000 * MS),
        };
        // Where it was set it is also a limit to what is still answered then.
        policy.end_timeout_is_set =
            rng.one_in(3) && policy.end_timeout.is_none_or(|limit| hangs || limit >= 5_000 * MS);
        if self.drain {
            policy.drains = true;
            policy.at_most_once = true;
            if !policy.end_timeout_is_set && !hangs && !ignores_end {
                policy.end_timeout = None;
            }
        }
        if policy.at_most_once {
            policy.retries = 0;
        }
        let waits = policy.packet_timeout.is_some_and(|limit| limit < Duration::from_secs(60));
        // So does one that swallows a record.
        let swallows = manners.may(Fault::SkipReply);
        // What is batched by a limit of ours is not all given out.
        let bound = policy.in_flight.is_some() || policy.recycle_records.is_some();
        let roomy = self.roomy && !bound;
        let needs_evidence = ((manners.withholds && !roomy) || swallows) && !waits;
        policy.on_stall = match rng.below(10) {
            0 if !needs_evidence => OnStall::Wait,
            1 => OnStall::Fail,
            _ => OnStall::Recycle,
        };
        // A withholding tool with a sleeper beside it is given what there is, and closed; one that polls is
        // closed when the input has ended, and so is what cannot be seen.
        let sleepers = !(swallows || self.family == Family::Pipes) || waits || roomy;
        manners.helper = match rng.below(8) {
            _ if self.family == Family::Harmed => Helper::Dropper,
            0 | 1 if sleepers => Helper::Sleeper,
            2 if !needs_evidence && !manners.leaves => Helper::Poller,
            3 => Helper::Reader,
            _ => Helper::None,
        };
        if manners.helper == Helper::Sleeper && manners.withholds {
            // Whether it withholds is never certain.
            policy.on_stall = OnStall::Recycle;
        }
        if self.family == Family::Harmed {
            manners.service = rng.pick(&[4 * MS, 200 * MS, 3_000 * MS, 12_000 * MS]);
            (manners.in_block, manners.out_block, manners.withholds) = (0, 0, false);
        }
        manners.opaque = !needs_evidence && !manners.leaves && rng.one_in(8);
        policy.stall_delay = rng.pick(&[MS, 100 * MS, 100 * MS, 2_000 * MS]);
        let beside = &mut Rng::new(stir(self.seed ^ BESIDE ^ 3));
        if !needs_evidence && beside.one_in(4) {
            // Nothing is to be recycled: the end of the input is not held up by that.
            policy.stall_delay = beside.pick(&[3_600_000 * MS, Duration::MAX]);
        }
        // Who closes its input just before we do so is hung like any other.
        if policy.eof_batch.is_some() && self.family == Family::Pipes {
            use Fault::*;
            manners.faults = &[IgnoreEnd, CloseInput, CloseOutput, Grandchild];
        }
        // Nothing else bounds the wait for those who never say that they are ready.
        if !holds && manners.faults.contains(&Fault::HangStarting) && !hangs {
            manners.faulty = u64::MAX;
        }
    }
}
