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

impl Talk {
    /// Whether a reply is known by its number alone.
    pub(super) fn counts(self) -> bool {
        !matches!(self, Self::Sentinel | Self::UntilEof)
    }
}

/// What runs beside the tool, or in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Helper {
    None,
    /// A thread or process that sleeps until a time (`timeout 1000 tr`, a JVM).
    Sleeper,
    /// A thread in an event loop (node).
    Poller,
    /// The tool works behind a thread that reads.
    Reader,
    /// The same, and its work is to wait until a time. When its input ends it exits with 0 and drops what it had.
    Dropper,
}

/// Another input beside stdin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SideInput {
    None,
    /// Each request has a part there, which is read.
    Required,
    /// Each request has a part there; some sessions never read it.
    Optional,
    /// Requests come there, and stdin comes from elsewhere.
    Alone,
}

/// The ends of a worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) side_input: SideInput,
    pub(super) side_output: bool,
    /// Stdout, and stderr, lead to us.
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) terminal: bool,
}

impl Ends {
    pub(super) const PLAIN: Self = Self {
        side_input: SideInput::None,
        side_output: false,
        stdout: true,
        stderr: true,
        terminal: false,
    };

    /// The channel on which requests come.
    pub(super) fn main(&self) -> usize {
        usize::from(self.side_input == SideInput::Alone)
    }

    /// The channel on which their second parts come.
    pub(super) fn second(&self) -> Option<usize> {
        matches!(self.side_input, SideInput::Required | SideInput::Optional).then_some(1)
    }
}

/// First and last words.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    /// What is said to it before the first request.
    pub(super) preamble: Vec<u8>,
    pub(super) farewell: Vec<u8>,
    /// What it says before its first reply.
    pub(super) banner: Vec<u8>,
    /// What it says when its input has ended.
    pub(super) bye: Vec<u8>,
}

/// What the workers of one seed have in common.
#[derive(Clone, Debug)]
pub(super) struct Manners {
    pub(super) talk: Talk,
    pub(super) ends: Ends,
    pub(super) words: Words,
    pub(super) family: Family,
    /// The longest start-up and service times.
    pub(super) startup: Duration,
    pub(super) service: Duration,
    /// Replies are flushed when so many bytes have gathered (0: each by itself), or at the end.
    pub(super) out_block: usize,
    /// Requests are looked at when so many bytes have been read, or at the end.
    pub(super) in_block: usize,
    pub(super) read_most: usize,
    pub(super) write_most: usize,
    pub(super) stdin_room: usize,
    pub(super) stdout_room: usize,
    pub(super) leaves: bool,
    pub(super) farewell: Duration,
    pub(super) withholds: bool,
    /// Nobody can tell whether it waits.
    pub(super) opaque: bool,
    pub(super) helper: Helper,
    pub(super) noisy: bool,
    /// One session in so many leaves a process behind that holds its outputs.
    pub(super) leaves_behind: u64,
    /// One session in so many has one of these faults.
    pub(super) faulty: u64,
    pub(super) faults: &'static [Fault],
    /// The fault comes with this request at the earliest.
    pub(super) at: Option<u64>,
    /// Exit codes with which a session may end well.
    pub(super) codes: &'static [i32],
    /// All sessions are alike, and as slow as they may be.
    pub(super) alike: bool,
}

/// Where in its session a worker does what it should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Dies before or amid its banner.
    DieStarting,
    /// Never says its banner.
    HangStarting,
    /// Exits well without having read anything.
    LeaveUnread,
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
    /// Says one reply more before it has read anything, between two requests, or when its input has ended.
    ExtraEarly,
    ExtraIdle,
    ExtraAtEnd,
    /// Says one reply more, and leaves in good order, when it has answered all that it has read a byte of.
    ExtraLeaving,
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
    pub(super) ends: Ends,
    pub(super) words: Words,
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
    pub(super) reads_second: bool,
    pub(super) leaves_behind: bool,
    /// The fault, and the number of records answered before it.
    pub(super) fault: Option<(Fault, u64)>,
    /// A death by signal, not by exit code.
    pub(super) by_signal: bool,
}

const MS: Duration = Duration::from_millis(1);
pub(super) const AT_THE_END: usize = usize::MAX;

impl Manners {
    /// Lines, each answered at once.
    pub(super) fn plain(family: Family) -> Self {
        Self {
            talk: Talk::Line,
            ends: Ends::PLAIN,
            words: Words::default(),
            family,
            startup: MS,
            service: MS / 100,
            out_block: 0,
            in_block: 0,
            read_most: 4096,
            write_most: 4096,
            stdin_room: 65_536,
            stdout_room: 65_536,
            leaves: false,
            farewell: Duration::ZERO,
            withholds: false,
            opaque: false,
            helper: Helper::None,
            noisy: false,
            leaves_behind: u64::MAX,
            faulty: if faults(family).is_empty() { u64::MAX } else { 1 },
            faults: faults(family),
            at: Some(0),
            codes: &[0],
            alike: true,
        }
    }

    pub(super) fn new(rng: &mut Rng, family: Family, talk: Talk, record: u64) -> Self {
        let hangs = matches!(family, Family::Hangs | Family::Mixed);
        let counts = talk != Talk::UntilEof;
        let out_block = match rng.below(4) {
            0 if counts && !hangs => rng.pick(&[1, 50, 300]),
            0 | 1 if counts => AT_THE_END,
            _ => 0,
        };
        let in_block = if counts && rng.one_in(6) { rng.pick(&[64, 400, AT_THE_END]) } else { 0 };
        let withholds = out_block > 0 || in_block > 0;
        let least = record as usize / 20;
        Self {
            talk,
            ends: Ends::PLAIN,
            words: Words::default(),
            family,
            startup: rng.pick(&[Duration::ZERO, MS, 40 * MS]),
            service: rng.pick(&[Duration::ZERO, MS / 1000, MS / 1000, MS / 10, 4 * MS, 60 * MS]),
            out_block,
            in_block,
            read_most: rng.pick(&[1, 7, 64, 4096, 4096]).max(least),
            write_most: rng.pick(&[1, 9, 100, 4096, 4096]).max(least),
            stdin_room: rng.pick(&[16, 100, 1000, 65_536]),
            stdout_room: rng.pick(&[16, 100, 1000, 65_536]),
            leaves: !withholds && rng.one_in(6),
            farewell: rng.pick(&[Duration::ZERO, MS / 10, 20 * MS]),
            withholds,
            opaque: false,
            helper: Helper::None,
            noisy: rng.one_in(8),
            leaves_behind: rng.pick(&[u64::MAX, u64::MAX, u64::MAX, 2]),
            faulty: match family {
                Family::Clean | Family::Poison | Family::Harmed | Family::Hosts => u64::MAX,
                Family::Slot => 1,
                _ => rng.pick(&[1, 2, 2, 5]),
            },
            faults: faults(family),
            at: matches!(family, Family::Starts | Family::Slot).then_some(0),
            alike: false,
            codes: if family == Family::Mixed { &[0, 0, 0, 1] } else { &[0] },
        }
    }

    /// Whether its last words are said within `limit`.
    pub(super) fn end_is_slow_at_most(&self, limit: Duration) -> bool {
        self.farewell + self.startup <= limit && !self.noisy
    }

    pub(super) fn may(&self, fault: Fault) -> bool {
        self.faulty < u64::MAX && self.faults.contains(&fault)
    }
}

fn faults(family: Family) -> &'static [Fault] {
    use Fault::*;
    match family {
        Family::Clean | Family::Poison | Family::Harmed | Family::Hosts => &[],
        Family::Slot => &[DieStarting, LeaveUnread, DieUnread],
        Family::Deaths => &[DieStarting, DieUnread, DieRead, DieHalf, DieAnswered],
        Family::Hangs => &[Hang, Hang, Stuck, HangStarting],
        Family::Starts => &[DieStarting, LeaveUnread, DieUnread, DieRead],
        Family::Garbage => {
            &[ExtraReply, SkipReply, LongReply, WrongReply, ExtraEarly, ExtraIdle, ExtraAtEnd]
        }
        Family::Pipes => &[IgnoreEnd, CloseInput, Retire, CloseOutput, Grandchild],
        Family::Mixed => &[
            DieStarting,
            LeaveUnread,
            DieUnread,
            DieRead,
            DieHalf,
            DieAnswered,
            IgnoreEnd,
            ExtraReply,
            ExtraEarly,
            ExtraIdle,
            ExtraAtEnd,
            SkipReply,
            CloseInput,
            CloseOutput,
            Grandchild,
        ],
    }
}

impl Script {
    pub(super) fn new(rng: &mut Rng, manners: &Manners, slot: usize) -> Self {
        let alike = manners.alike;
        let upto = |rng: &mut Rng, most: Duration| {
            most * rng.range(if alike { 4 } else { 0 }, 4) as u32 / 4
        };
        let plain = rng.one_in(4) && !alike;
        let spared = manners.family == Family::Slot && slot > 0;
        let fault = if manners.faults.is_empty() || spared || !rng.one_in(manners.faulty) {
            None
        } else {
            let after = manners.at.unwrap_or_else(|| rng.skewed(9) - 1);
            match (rng.pick(manners.faults), manners.talk) {
                // That would be a process that never answers, for which there are time limits.
                (Fault::IgnoreEnd | Fault::Retire, Talk::UntilEof) => None,
                // With nothing read and nothing said it has given a whole output.
                (Fault::LeaveUnread, Talk::UntilEof) => Some((Fault::DieUnread, after)),
                // Whatever it says is all of its output.
                (Fault::ExtraLeaving, Talk::UntilEof) => Some((Fault::ExtraReply, after)),
                (fault, _) => Some((fault, after)),
            }
        };
        let mut words = manners.words.clone();
        let is_apart = |fault| {
            matches!(
                fault,
                Fault::ExtraReply
                    | Fault::ExtraEarly
                    | Fault::ExtraIdle
                    | Fault::ExtraAtEnd
                    | Fault::ExtraLeaving
                    | Fault::LongReply
            )
        };
        if (rng.one_in(3) && !alike) || fault.is_some_and(|(fault, _)| is_apart(fault)) {
            // Where it says nothing, nothing is to be skipped; and where it says too much, that comes last.
            words.bye.clear();
        }
        Self {
            talk: manners.talk,
            ends: manners.ends,
            words,
            startup: upto(rng, manners.startup),
            service: upto(rng, manners.service),
            out_block: if plain { 0 } else { manners.out_block },
            in_block: if plain { 0 } else { manners.in_block },
            read_most: manners.read_most,
            write_most: manners.write_most,
            leaves_after: manners.leaves.then(|| if alike { 1 } else { rng.range(1, 6) }),
            farewell: upto(rng, manners.farewell),
            exit_code: rng.pick(manners.codes),
            noisy: manners.noisy && manners.ends.stderr,
            helper: manners.helper,
            ignores_term: rng.one_in(3),
            reads_second: manners.ends.side_input == SideInput::Required || rng.one_in(2),
            leaves_behind: rng.one_in(manners.leaves_behind)
                || matches!(fault, Some((Fault::Grandchild, _))),
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

/// The second part of a request, as it should come.
pub(super) fn second_body(k: u64) -> Vec<u8> {
    format!("{k}:side").into_bytes()
}

/// What `Template::check` says.
pub(super) fn check(talk: Talk, request: &[u8], reply: &[u8]) -> Result<(), BoxError> {
    if reply == seen(talk, body(talk, request)) {
        Ok(())
    } else {
        Err("another request's reply".into())
    }
}
