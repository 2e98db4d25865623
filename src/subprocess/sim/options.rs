//! What has an effect on the swarm, as it was drawn: each option of a feed with the value that matters, and how often
//! each two of these were drawn together.
//!
//! An option that is added to a template or to a feed does not compile here until it has a line: nothing is
//! passed over with `..` but what the exceptions name.
//!
//! ```text
//! SUBFEED_SCHEDULES=10000000 cargo test --release --lib sim::options -- --nocapture
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::feed::blocks::writing;
use crate::stats::Stats;
use crate::subprocess::scheduler::Plan;
use crate::template::Spec;
use crate::template::channel::{Channels, Stream};
use crate::template::launcher::Link;
use crate::template::policy::{Halt, OnStall, Policy};
use crate::template::words::Words;
use crate::window::gate::Gate;
use crate::window::outlet::Order;
use crate::window::reading::Writing;
use crate::window::seam::Bounds;

use super::disk::Log;
use super::reader::Bytes;
use super::schedule::{Consumer, Input, Schedule};
use super::script::{Helper, SideInput};
use super::{from_env, play};

/// An option and its value.
type Drawn = (&'static str, &'static str);

const LONG: Duration = Duration::from_secs(600);

fn limit(limit: Option<Duration>) -> &'static str {
    match limit {
        None => "none",
        Some(limit) if limit < LONG => "short",
        Some(_) => "long",
    }
}

fn yes(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn some<T>(option: &Option<T>) -> &'static str {
    yes(option.is_some())
}

fn number(option: Option<u64>) -> &'static str {
    match option {
        None => "none",
        Some(1) => "1",
        Some(_) => "more",
    }
}

fn of_policy(policy: &Policy) -> Vec<Drawn> {
    let Policy {
        retries,
        at_most_once,
        on_stall,
        stall_delay,
        backoff,
        backoff_cap: _, // drawn together with backoff
        give_up,
        recycle_records,
        eof_batch,
        in_flight,
        require_clean_exit,
        keep_stderr,
        recycle_age,
        packet_timeout,
        start_timeout,
        idle_timeout,
        run_timeout,
        kill_sequence,
        drains: _,           // drawn as the drain of the feed
        kill_with_parent: _, // a call between fork and exec: nothing that the loop could notice
        halt,
        end_timeout,
        end_timeout_is_set,
        reply_limit,
    } = policy;
    vec![
        ("retries", yes(*retries > 0)),
        ("at_most_once", yes(*at_most_once)),
        (
            "on_stall",
            match on_stall {
                OnStall::Recycle => "recycle",
                OnStall::Fail => "fail",
                OnStall::Wait => "wait",
            },
        ),
        (
            "stall delay",
            match stall_delay.as_millis() {
                0..10 => "short",
                10..1_000 => "default",
                1_000..100_000 => "long",
                _ => "endless",
            },
        ),
        (
            "backoff",
            match backoff.as_millis() {
                0 => "none",
                1..100 => "short",
                _ => "long",
            },
        ),
        ("give_up_after", yes(*give_up < u32::MAX)),
        ("recycle_after_records", some(recycle_records)),
        ("answers_at_eof", some(eof_batch)),
        ("in_flight", number(*in_flight)),
        ("require_clean_exit", yes(*require_clean_exit)),
        ("keep_stderr", yes(*keep_stderr)),
        ("recycle_after_age", some(recycle_age)),
        ("packet_timeout", limit(*packet_timeout)),
        ("start_timeout", limit(*start_timeout)),
        ("idle_timeout", limit(*idle_timeout)),
        ("run_timeout", limit(*run_timeout)),
        (
            "kill_sequence",
            match kill_sequence.len() {
                1 => "one",
                2 => "two",
                _ => "three",
            },
        ),
        (
            "halt",
            match halt {
                Halt::Never => "never",
                Halt::Soon(_) => "soon",
                Halt::Now(_) => "now",
            },
        ),
        (
            "end_timeout",
            match (end_timeout, end_timeout_is_set) {
                (None, _) => "none",
                (Some(_), true) => "set",
                (Some(_), false) => "default",
            },
        ),
        ("reply_limit", yes(*reply_limit < 1 << 20)),
    ]
}

fn of_spec(spec: &Spec, schedule: &Schedule) -> Vec<Drawn> {
    let Spec {
        command: _,    // what is run is simulated
        is_encoded: _, // how a request is written does not matter to who sends it
        launchers: _, // drawn with the family of hosts, see below; their words have tests of their own
        launch: _,
        channels,
        requests: _, // drawn together with the replies
        replies: _,
        words,
        check,
        accept_status,
        policy,
    } = spec;
    let Channels {
        stdin,
        stdout,
        stderr,
        on_stderr: _, // only tells
        pty,
        side_inputs,
        side_outputs,
    } = channels;
    let Words { preamble, farewell, banner, skip_at_end } = words;
    let elsewhere = |stream: &Stream| yes(matches!(stream, Stream::To(_)));
    let mut drawn = of_policy(policy);
    drawn.extend([
        (
            "framing",
            match schedule.manners.talk {
                super::script::Talk::Line | super::script::Talk::Scanned => "line",
                super::script::Talk::TwoLines => "lines",
                super::script::Talk::Prefixed => "prefixed",
                super::script::Talk::Sentinel => "sentinel",
                super::script::Talk::UntilEof => "until eof",
            },
        ),
        ("stdin elsewhere", elsewhere(stdin)),
        ("stdout elsewhere", elsewhere(stdout)),
        ("stderr elsewhere", elsewhere(stderr)),
        ("pty", yes(*pty)),
        (
            "side_input",
            match (side_inputs.is_empty(), schedule.manners.ends.side_input) {
                (true, _) => "none",
                (false, SideInput::Optional) => "optional",
                (false, _) => "required",
            },
        ),
        ("side_output", yes(!side_outputs.is_empty())),
        ("preamble", some(preamble)),
        ("farewell", some(farewell)),
        (
            "banner",
            match (banner.is_empty(), banner.holds_requests(), banner.ready_limit()) {
                (true, ..) => "none",
                (_, false, _) => "skipped",
                (_, true, None) => "ready",
                (_, true, Some(_)) => "ready, with a limit",
            },
        ),
        ("skip_at_end", some(skip_at_end)),
        ("check", some(check)),
        ("accept_status", some(accept_status)),
    ]);
    drawn
}

/// Options of the builder, by way of what they become.
fn of_feed(schedule: &Schedule, plan: Plan) -> Vec<Drawn> {
    let Plan {
        spec: _, // see above
        workers,
        order,
        origin,
        keep_requests,
        drain,
        backlog,
        most,
        gate: _,
        stats: _, // counters, and the recorder of a timeline
        log: _,   // see below
    } = plan;
    let Bounds {
        packets,
        max_bytes,
        order: _, // the same
        first: _,
        batches,
        shelves: _, // of threads
    } = play::bounds(schedule);
    vec![
        ("workers", if workers == 1 { "one" } else { "more" }),
        (
            "buffer",
            match packets {
                1 => "one",
                2..100 => "small",
                _ => "large",
            },
        ),
        ("max_bytes", yes(max_bytes < 1 << 20)),
        ("order", if order == Order::Input { "input" } else { "completion" }),
        ("first_packet", yes(origin.0 > 0)),
        ("keeps requests", yes(keep_requests)),
        ("drain", yes(drain)),
        ("backlog", yes(backlog < 1_000)),
        ("size hint", some(&most)),
        ("batches", if batches == 1 { "one" } else { "more" }),
        (
            "job_log",
            match schedule.log {
                None => "none",
                Some(Log { full_at: Some(_), .. }) => "fails",
                Some(Log { room: ..1_000, .. }) => "holds up",
                Some(_) => "kept",
            },
        ),
        (
            "blocks",
            match schedule.bytes.map(|bytes| writing(&schedule.spec, bytes.delimiter)) {
                None => "none",
                Some(Writing::Whole) => "whole",
                Some(Writing::Each(_)) => "each",
            },
        ),
    ]
}

/// What is around the feed: not options, but drawn with them.
fn of_world(schedule: &Schedule) -> Vec<Drawn> {
    let Consumer { pause: _, rest_every, rest: _, follows, take, drop_at } = &schedule.consumer;
    let Input {
        total,
        pause: _,
        rest_every: _,
        rest: _,
        refused,
        batch: _,
        waiting: _,
        blocks_at,
        record: _,
    } = &schedule.input;
    let manners = &schedule.manners;
    let reader: Option<Bytes> = schedule.bytes;
    vec![
        (
            "family",
            match schedule.family {
                super::schedule::Family::Clean => "clean",
                super::schedule::Family::Poison => "poison",
                super::schedule::Family::Deaths => "deaths",
                super::schedule::Family::Hangs => "hangs",
                super::schedule::Family::Starts => "starts",
                super::schedule::Family::Garbage => "garbage",
                super::schedule::Family::Pipes => "pipes",
                super::schedule::Family::Slot => "slot",
                super::schedule::Family::Harmed => "harmed",
                super::schedule::Family::Hosts => "hosts",
                super::schedule::Family::Mixed => "mixed",
            },
        ),
        ("tool withholds", yes(manners.withholds)),
        ("tool leaves", yes(manners.leaves)),
        ("tool cannot be seen", yes(manners.opaque)),
        ("left behind", yes(manners.leaves_behind < u64::MAX)),
        (
            "helper",
            match manners.helper {
                Helper::None => "none",
                Helper::Sleeper => "sleeper",
                Helper::Poller => "poller",
                Helper::Reader => "reader",
                Helper::Dropper => "dropper",
            },
        ),
        ("consumer rests", yes(*rest_every < u64::MAX)),
        ("consumer follows", yes(*follows)),
        ("consumer is dropped", yes(take.is_some() || drop_at.is_some())),
        ("input ends", some(total)),
        ("input is refused", yes(*refused > 0)),
        ("input blocks", some(blocks_at)),
        ("starts fail", yes(schedule.start_fails < u64::MAX)),
        ("statuses unknown", yes(schedule.lacks_statuses())),
        ("loop is late", some(&schedule.late)),
        (
            "launcher",
            match schedule.spec.link(&schedule.spec.seat_of(0)) {
                None => "none, or this machine",
                Some(Link { mark: None, .. }) => "bare",
                Some(Link { silence: None, .. }) => "never looks",
                Some(Link { connect: None, .. }) => "waits for ever",
                Some(Link { connect: Some(limit), .. }) if limit < Duration::from_secs(1) => {
                    "is impatient"
                }
                Some(_) => "with a shell",
            },
        ),
        ("reader fails", yes(reader.is_some_and(|bytes| bytes.fails_at.is_some()))),
        ("last delimiter is missing", yes(reader.is_some_and(|bytes| bytes.unended))),
    ]
}

const AS_DRAIN_SETS_IT: &str = "drain() sets it so";
const REFUSED: &str = "refused when the feed starts";
const WHOLE: &str = "a reply in several whole outputs has tests of its own";
const BYTES: &str = "blocks are bytes alone, and come back";
const NO_LINES: &str = "what is not written as it was read is written one by one";
const HANGS: &str = "one that hangs and owes nothing is waited for for ever";

/// Two that never come together, and why. An empty value stands for all of an option.
const EXCLUDED: &[(Drawn, Drawn, &str)] = &[
    (("blocks", "whole"), ("drain", "yes"), BYTES),
    (("blocks", "whole"), ("stdout elsewhere", "yes"), BYTES),
    (("blocks", "whole"), ("keep_stderr", "yes"), REFUSED),
    (("blocks", "whole"), ("side_output", "yes"), REFUSED),
    (("blocks", "whole"), ("side_input", "optional"), REFUSED),
    (("blocks", "whole"), ("side_input", "required"), REFUSED),
    (("blocks", "whole"), ("stdin elsewhere", "yes"), REFUSED),
    (("blocks", "whole"), ("keeps requests", "yes"), BYTES),
    (("blocks", "whole"), ("size hint", "yes"), BYTES),
    (("blocks", "whole"), ("batches", "one"), BYTES),
    (("blocks", "each"), ("drain", "yes"), BYTES),
    (("blocks", "each"), ("stdout elsewhere", "yes"), BYTES),
    (("blocks", "each"), ("keep_stderr", "yes"), REFUSED),
    (("blocks", "each"), ("side_output", "yes"), REFUSED),
    (("blocks", "each"), ("side_input", "optional"), REFUSED),
    (("blocks", "each"), ("side_input", "required"), REFUSED),
    (("blocks", "each"), ("stdin elsewhere", "yes"), REFUSED),
    (("blocks", "each"), ("keeps requests", "yes"), BYTES),
    (("blocks", "each"), ("size hint", "yes"), BYTES),
    (("blocks", "each"), ("batches", "one"), BYTES),
    (("blocks", "whole"), ("framing", "prefixed"), NO_LINES),
    (("blocks", "whole"), ("framing", "sentinel"), NO_LINES),
    (("blocks", "whole"), ("framing", "until eof"), NO_LINES),
    (("blocks", "whole"), ("accept_status", "yes"), NO_LINES),
    (("job_log", "kept"), ("drain", "yes"), REFUSED),
    (("job_log", "holds up"), ("drain", "yes"), REFUSED),
    (("job_log", "fails"), ("drain", "yes"), REFUSED),
    (("job_log", "kept"), ("stdout elsewhere", "yes"), REFUSED),
    (("job_log", "holds up"), ("stdout elsewhere", "yes"), REFUSED),
    (("job_log", "fails"), ("stdout elsewhere", "yes"), REFUSED),
    (("accept_status", "yes"), ("framing", "line"), REFUSED),
    (("accept_status", "yes"), ("framing", "lines"), REFUSED),
    (("accept_status", "yes"), ("framing", "prefixed"), REFUSED),
    (("accept_status", "yes"), ("framing", "sentinel"), REFUSED),
    (("accept_status", "yes"), ("require_clean_exit", "yes"), REFUSED),
    (("accept_status", "yes"), ("skip_at_end", "yes"), REFUSED),
    (("accept_status", "yes"), ("side_input", "optional"), WHOLE),
    (("accept_status", "yes"), ("side_input", "required"), WHOLE),
    (("accept_status", "yes"), ("side_output", "yes"), WHOLE),
    (("accept_status", "yes"), ("stdin elsewhere", "yes"), WHOLE),
    (("framing", "until eof"), ("side_input", "optional"), WHOLE),
    (("framing", "until eof"), ("side_input", "required"), WHOLE),
    (("framing", "until eof"), ("side_output", "yes"), WHOLE),
    (("framing", "until eof"), ("stdin elsewhere", "yes"), WHOLE),
    (("framing", "until eof"), ("skip_at_end", "yes"), REFUSED),
    (("framing", "sentinel"), ("skip_at_end", "yes"), REFUSED),
    (("framing", "sentinel"), ("stdin elsewhere", "yes"), REFUSED),
    (("at_most_once", "yes"), ("retries", "yes"), REFUSED),
    (("drain", "yes"), ("at_most_once", "no"), AS_DRAIN_SETS_IT),
    (("drain", "yes"), ("retries", "yes"), AS_DRAIN_SETS_IT),
    (("drain", "yes"), ("order", "input"), AS_DRAIN_SETS_IT),
    (("drain", "yes"), ("keeps requests", "yes"), AS_DRAIN_SETS_IT),
    (("stdout elsewhere", "yes"), ("drain", "no"), REFUSED),
    (("stdout elsewhere", "yes"), ("at_most_once", "no"), AS_DRAIN_SETS_IT),
    (("stdout elsewhere", "yes"), ("retries", "yes"), AS_DRAIN_SETS_IT),
    (("stdout elsewhere", "yes"), ("order", "input"), AS_DRAIN_SETS_IT),
    (("stdout elsewhere", "yes"), ("keeps requests", "yes"), AS_DRAIN_SETS_IT),
    (("stdout elsewhere", "yes"), ("banner", "ready"), REFUSED),
    (("stdout elsewhere", "yes"), ("banner", "ready, with a limit"), REFUSED),
    (("stdout elsewhere", "yes"), ("banner", "skipped"), REFUSED),
    (("stdout elsewhere", "yes"), ("skip_at_end", "yes"), REFUSED),
    (("stdout elsewhere", "yes"), ("pty", "yes"), REFUSED),
    (("stderr elsewhere", "yes"), ("keep_stderr", "yes"), REFUSED),
    (("stdin elsewhere", "yes"), ("preamble", "yes"), REFUSED),
    (("stdin elsewhere", "yes"), ("farewell", "yes"), REFUSED),
    (("stdin elsewhere", "yes"), ("side_input", "none"), REFUSED),
    (("stdin elsewhere", "yes"), ("side_input", "optional"), "no request would have to be read"),
    (("end_timeout", "none"), ("packet_timeout", "short"), HANGS),
    (
        ("start_timeout", "long"),
        ("packet_timeout", "short"),
        "the first reply has as long as the start",
    ),
];

#[derive(Debug, Default)]
struct Pairs {
    /// Values by option, and how often each two were drawn.
    indices: BTreeMap<Drawn, usize>,
    counts: Vec<Vec<u64>>,
}

impl Pairs {
    fn index(&mut self, drawn: Drawn) -> usize {
        let next = self.indices.len();
        let index = *self.indices.entry(drawn).or_insert(next);
        if index == next {
            for row in &mut self.counts {
                row.push(0);
            }
            self.counts.push(vec![0; next + 1]);
        }
        index
    }

    fn count(&mut self, drawn: &[Drawn]) {
        let indices: Vec<usize> = drawn.iter().map(|&drawn| self.index(drawn)).collect();
        for &one in &indices {
            for &other in &indices {
                self.counts[one][other] += 1;
            }
        }
    }

    /// Each two values of different options, and how often they were drawn, the rarest first.
    fn all(&self) -> Vec<(u64, Drawn, Drawn)> {
        let mut all = Vec::new();
        for (&one, &at) in &self.indices {
            for (&other, &with) in self.indices.range(one..) {
                let excluded = EXCLUDED.iter().any(|(a, b, _)| {
                    (matches(*a, one) && matches(*b, other))
                        || (matches(*a, other) && matches(*b, one))
                });
                if one.0 != other.0 && !excluded {
                    all.push((self.counts[at][with], one, other));
                }
            }
        }
        all.sort_unstable();
        all
    }
}

/// Whether an exception is about this value: an empty one stands for all.
fn matches(exception: Drawn, drawn: Drawn) -> bool {
    exception.0 == drawn.0 && (exception.1.is_empty() || exception.1 == drawn.1)
}

/// What a schedule has drawn: options, and the world around them.
fn drawn(schedule: &Schedule, gate: &Arc<Gate>, stats: &Arc<Stats>) -> (Vec<Drawn>, Vec<Drawn>) {
    let mut options = of_spec(&schedule.spec, schedule);
    options.extend(of_feed(schedule, play::plan(schedule, gate, stats, None)));
    (options, of_world(schedule))
}

#[test]
fn each_two_options_are_drawn_together() {
    let many = from_env("SUBFEED_SCHEDULES").unwrap_or(20_000);
    let mut pairs = Pairs::default();
    let mut world: BTreeMap<Drawn, u64> = BTreeMap::new();
    let gate = Arc::new(Gate::new(1, 1));
    let stats = Arc::new(Stats::new(Arc::clone(&gate), 1));
    for seed in 0..many {
        let (options, around) = drawn(&Schedule::new(seed), &gate, &stats);
        pairs.count(&options);
        for drawn in around {
            *world.entry(drawn).or_default() += 1;
        }
    }
    let all = pairs.all();
    let options: BTreeSet<_> = pairs.indices.keys().map(|drawn| drawn.0).collect();
    println!("{many} schedules, {} options, {} pairs of values", options.len(), all.len());
    println!("the rarest:");
    for (count, one, other) in all.iter().take(20) {
        println!("{count:>10}  {} = {}, {} = {}", one.0, one.1, other.0, other.1);
    }
    println!("around them:");
    for ((what, value), count) in &world {
        println!("{count:>10}  {what} = {value}");
    }
    // A thousand times in ten million; in fewer, what that comes to.
    let enough = (many / 10_000).max(1);
    let enough = if enough < 100 { 1 } else { enough };
    let rare: Vec<_> = all.iter().filter(|(count, ..)| *count < enough).collect();
    assert!(rare.is_empty(), "drawn less than {enough} times: {rare:#?}");
    // An exception that is none any more is to go.
    for (one, other, _) in EXCLUDED {
        let both = |drawn: &Drawn| matches(*one, *drawn) || matches(*other, *drawn);
        assert!(pairs.indices.keys().filter(|drawn| both(drawn)).count() >= 2, "{one:?} {other:?}");
    }
}
