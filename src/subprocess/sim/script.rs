//! How workers behave: what is common to those of a seed ([`Manners`]), and what one session does
//! ([`Script`]). And what they say: a reply is a function of the bytes that were really received.

use std::time::Duration;

use crate::error::BoxError;

use super::rng::{Rng, stir};
use super::schedule::Family;

/// How requests and replies are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Talk {
    /// Lines, cut in bulk.
    Line,
    /// Lines, cut one by one.
    Scanned,
    TwoLines,
    Prefixed,
    Sentinel,
    UntilEof,
}

/// What runs beside the tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Helper {
    None,
    /// A thread or process that sleeps until a time (`timeout 1000 tr`, a JVM).
    Sleeper,
    /// A thread in an event loop (node).
    Poller,
}

/// What the workers of one seed have in common.
#[derive(Clone, Debug)]
pub(super) struct Manners {
    pub(super) talk: Talk,
    family: Family,
    /// The longest start-up and service times.
    startup: Duration,
    service: Duration,
    /// Replies are flushed when so many bytes have gathered (0: each by itself), or at the end.
    out_block: usize,
    /// Requests are looked at when so many bytes have been read, or at the end.
    in_block: usize,
    read_most: usize,
    write_most: usize,
    pub(super) stdin_room: usize,
    pub(super) stdout_room: usize,
    pub(super) leaves: bool,
    farewell: Duration,
    pub(super) withholds: bool,
    pub(super) hangs: bool,
    pub(super) ignores_end: bool,
    /// Nobody can tell whether it waits.
    pub(super) opaque: bool,
    pub(super) helper: Helper,
    noisy: bool,
    /// One session in so many has a fault of the family's kind.
    faulty: u64,
}

/// Where in its session a worker does what it should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Dies before reading anything more.
    DieUnread,
    /// Dies with the request read.
    DieRead,
    /// Dies in the middle of writing the reply.
    DieHalf,
    /// Dies after the reply is out.
    DieAnswered,
    Hang,
    /// Sleeps in the kernel, where no signal reaches it, for long or for ever.
    Stuck,
    /// Never exits after its stdin has ended.
    IgnoreEnd,
    ExtraReply,
    SkipReply,
    LongReply,
    WrongReply,
    CloseInput,
    /// Closes its stdin and does nothing more, ever.
    Retire,
    CloseOutput,
    /// A grandchild keeps stdout and stderr open after the exit.
    Grandchild,
}

/// What one session does.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) talk: Talk,
    pub(super) startup: Duration,
    pub(super) service: Duration,
    pub(super) out_block: usize,
    pub(super) in_block: usize,
    pub(super) read_most: usize,
    pub(super) write_most: usize,
    /// Exits in good order after so many replies, reading no byte further.
    pub(super) leaves_after: Option<u64>,
    pub(super) farewell: Duration,
    pub(super) exit_code: i32,
    pub(super) noisy: bool,
    pub(super) helper: Helper,
    pub(super) ignores_term: bool,
    /// The fault, and the number of records answered before it.
    pub(super) fault: Option<(Fault, u64)>,
    /// A death by signal, not by exit code.
    pub(super) by_signal: bool,
}

const MS: Duration = Duration::from_millis(1);
const AT_THE_END: usize = usize::MAX;

impl Manners {
    pub(super) fn new(rng: &mut Rng, family: Family, talk: Talk, record: u64) -> Self {
        let hangs = matches!(family, Family::Hangs | Family::Mixed);
        let counts = !matches!(talk, Talk::UntilEof);
        let out_block = match rng.below(4) {
            0 if counts && !hangs => rng.pick(&[1, 50, 300]),
            0 | 1 if counts => AT_THE_END,
            _ => 0,
        };
        let in_block = if counts && rng.one_in(6) { rng.pick(&[64, 400, AT_THE_END]) } else { 0 };
        let withholds = out_block > 0 || in_block > 0;
        Self {
            talk,
            family,
            startup: rng.pick(&[Duration::ZERO, MS, 40 * MS]),
            service: rng.pick(&[Duration::ZERO, MS / 1000, MS / 1000, MS / 10, 4 * MS, 60 * MS]),
            out_block,
            in_block,
            read_most: rng.pick(&[1, 7, 64, 4096, 4096]).max(record as usize / 20),
            write_most: rng.pick(&[1, 9, 100, 4096, 4096]).max(record as usize / 20),
            stdin_room: rng.pick(&[16, 100, 1000, 65_536]),
            stdout_room: rng.pick(&[16, 100, 1000, 65_536]),
            leaves: !withholds && rng.one_in(6),
            farewell: rng.pick(&[Duration::ZERO, MS / 10, 20 * MS]),
            withholds,
            hangs,
            ignores_end: matches!(family, Family::Pipes | Family::Mixed),
            opaque: false,
            helper: Helper::None,
            noisy: rng.one_in(8),
            faulty: match family {
                Family::Clean | Family::Poison => u64::MAX,
                _ => rng.pick(&[1, 2, 2, 5]),
            },
        }
    }

    /// Whether its last words are said within `limit`.
    pub(super) fn end_is_slow_at_most(&self, limit: Duration) -> bool {
        self.farewell + self.startup <= limit && !self.noisy
    }

    fn faults(&self) -> &'static [Fault] {
        use Fault::*;
        match self.family {
            Family::Clean | Family::Poison => &[],
            Family::Deaths => &[DieUnread, DieRead, DieHalf, DieAnswered],
            Family::Hangs => &[Hang, Hang, Stuck],
            Family::Starts => &[DieUnread, DieRead],
            Family::Garbage => &[ExtraReply, SkipReply, LongReply, WrongReply],
            Family::Pipes => &[IgnoreEnd, CloseInput, Retire, CloseOutput, Grandchild],
            Family::Mixed => &[
                DieUnread,
                DieRead,
                DieHalf,
                DieAnswered,
                IgnoreEnd,
                ExtraReply,
                SkipReply,
                CloseInput,
                CloseOutput,
                Grandchild,
            ],
        }
    }
}

impl Script {
    pub(super) fn new(rng: &mut Rng, manners: &Manners) -> Self {
        let upto = |rng: &mut Rng, most: Duration| most * rng.below(5) as u32 / 4;
        let plain = rng.one_in(4);
        let faults = manners.faults();
        let fault = if faults.is_empty() || !rng.one_in(manners.faulty) {
            None
        } else {
            let after = if manners.family == Family::Starts { 0 } else { rng.skewed(9) - 1 };
            match (rng.pick(faults), manners.talk) {
                // That would be a process that never answers, for which there are time limits.
                (Fault::IgnoreEnd | Fault::Retire, Talk::UntilEof) => None,
                (fault, _) => Some((fault, after)),
            }
        };
        Self {
            talk: manners.talk,
            startup: upto(rng, manners.startup),
            service: upto(rng, manners.service),
            out_block: if plain { 0 } else { manners.out_block },
            in_block: if plain { 0 } else { manners.in_block },
            read_most: manners.read_most,
            write_most: manners.write_most,
            leaves_after: manners.leaves.then(|| rng.range(1, 6)),
            farewell: upto(rng, manners.farewell),
            exit_code: i32::from(manners.family == Family::Mixed && rng.one_in(4)),
            noisy: manners.noisy,
            helper: manners.helper,
            ignores_term: rng.one_in(3),
            fault,
            by_signal: rng.one_in(2),
        }
    }
}

// -------------------------------------------------------------------- what is said

/// The reply to a request, without framing.
pub(super) fn answer(body: &[u8]) -> Vec<u8> {
    let word = body.iter().fold(0xcbf2_9ce4_8422_2325, |h: u64, &byte| {
        (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let word = stir(word);
    let number = body.split(|&byte| byte == b':').next().unwrap_or_default();
    let mut reply = number.to_vec();
    let pad = match word % 16 {
        0 => 400,
        1..4 => 40,
        _ => 4,
    };
    reply.extend(format!("={:x>1$}", word % 1000, (word >> 32) as usize % pad).bytes());
    reply
}

/// The same reply as the consumer should see it.
pub(super) fn seen(talk: Talk, body: &[u8]) -> Vec<u8> {
    let mut reply = answer(body);
    match talk {
        Talk::TwoLines => reply.extend_from_slice(b"\nsecond"),
        Talk::Sentinel => reply.push(b'\n'),
        _ => {}
    }
    reply
}

/// What a worker writes for `reply` to `request` (with what framed it).
pub(super) fn framed(talk: Talk, request: &[u8], reply: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(reply.len() + 8);
    if talk == Talk::Prefixed {
        out.extend_from_slice(&(reply.len() as u16).to_be_bytes());
    }
    out.extend_from_slice(reply);
    match talk {
        Talk::Line | Talk::Scanned => out.push(b'\n'),
        Talk::TwoLines => out.extend_from_slice(b"\nsecond\n"),
        Talk::Sentinel => {
            out.push(b'\n');
            let sync = request.iter().position(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            out.extend_from_slice(request[sync..].strip_prefix(b"SYNC ").unwrap_or_default());
        }
        Talk::Prefixed | Talk::UntilEof => {}
    }
    out
}

/// The length of the first whole request in `bytes`.
pub(super) fn whole(talk: Talk, bytes: &[u8]) -> Option<usize> {
    let line = |from: usize| bytes[from..].iter().position(|&byte| byte == b'\n');
    match talk {
        Talk::Line | Talk::Scanned | Talk::TwoLines => Some(line(0)? + 1),
        Talk::Sentinel => {
            let sync = line(0)? + 1;
            Some(sync + line(sync)? + 1)
        }
        Talk::Prefixed => {
            let len = usize::from(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]));
            (bytes.len() >= 2 + len).then_some(2 + len)
        }
        Talk::UntilEof => None,
    }
}

/// The body of a framed request.
pub(super) fn body(talk: Talk, request: &[u8]) -> &[u8] {
    match talk {
        Talk::Prefixed => request.get(2..).unwrap_or_default(),
        Talk::UntilEof => request,
        _ => request.split(|&byte| byte == b'\n').next().unwrap_or_default(),
    }
}

/// What `Template::check` is given, where it is.
pub(super) fn check(request: &[u8], reply: &[u8]) -> Result<(), BoxError> {
    let talk = match request.first() {
        Some(byte) if byte.is_ascii_digit() => Talk::Line,
        _ => Talk::Prefixed,
    };
    let expected = answer(body(talk, request));
    let expected =
        if reply.ends_with(b"\nsecond") { [&expected[..], b"\nsecond"].concat() } else { expected };
    if reply == expected { Ok(()) } else { Err("another request's reply".into()) }
}
