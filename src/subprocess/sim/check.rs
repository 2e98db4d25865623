//! The oracle: what must hold after every step, for every item, and at the end.

use std::collections::{HashMap, HashSet};
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::record::PacketId;
use crate::subprocess::scheduler::Audit;
use crate::window::gate::Gate;
use crate::window::outlet::Order;

use super::schedule::{Family, Schedule};
use super::script::{Talk, seen};
use super::sink::Sink;
use super::source::Source;
use super::worker::Child;

/// What was found to be wrong.
#[derive(Debug)]
pub(super) struct Failure(pub(super) String);

impl Failure {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

macro_rules! must {
    ($what:expr, $($message:tt)+) => {
        if !$what {
            return Err(Failure::new(format!($($message)+)));
        }
    };
}
pub(super) use must;

/// The words of a failed start that must not be fatal, because workers are alive.
pub(super) const MUST_WAIT: &str = "simulated: must wait";

/// What the consumer is given.
#[derive(Debug)]
pub(super) enum Item {
    Reply(Answer),
    Failed(Error),
    Passed,
}

/// A reply, what came with it on stderr, and who gave it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    /// Of all its parts.
    pub(super) size: usize,
    pub(super) side: Option<Vec<u8>>,
    pub(super) stderr: Option<Vec<u8>>,
    pub(super) pid: Option<u32>,
    pub(super) host: Option<Arc<str>>,
}

/// What a record became, for a job log to tell of.
#[derive(Debug)]
pub(super) enum Became {
    Answered {
        pid: Option<u32>,
        bytes: usize,
        host: Option<Arc<str>>,
    },
    /// By itself.
    Failed {
        status: Option<i32>,
        worker: Option<usize>,
        attempts: u32,
        host: Option<String>,
    },
    Fatal,
    Halted,
}

impl Became {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Answered { .. } => "answered",
            Self::Failed { .. } => "failed",
            Self::Fatal => "fatal",
            Self::Halted => "halted",
        }
    }

    fn failed(error: &Error) -> Self {
        Self::Failed {
            status: error.exit_status().map(ExitStatusExt::into_raw),
            worker: error.worker(),
            attempts: error.attempts(),
            host: error.host().map(str::to_owned),
        }
    }
}

/// In the message of a packet that a fatal error left unanswered.
const HALTED: &str = "before this packet was answered";

#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// A call of the system has failed: any item may fail for that, and the feed may end.
    pub(super) faulted: bool,
    count: u64,
    seen: HashSet<u64>,
    /// What each record became.
    pub(super) became: HashMap<u64, Became>,
    pub(super) failed: u64,
    pub(super) replies: u64,
    /// The item or the end that carried the fatal error.
    pub(super) fatal: Option<String>,
    pub(super) halted: u64,
    remarks: usize,
    /// How often it was said that the job log cannot be written.
    pub(super) log_failures: usize,
    /// Items that failed because their packet was skipped.
    skipped: u64,
    /// Where nothing comes back: packets that were handed over, and how many workers say that they were.
    handed: HashSet<u64>,
    /// Sessions of which a reply was passed on that is none to the request.
    strange: HashSet<u32>,
    lost: HashSet<u64>,
    accepted: u64,
}

impl Oracle {
    /// The consumer is given an item, of this packet or of none.
    pub(super) fn item(
        &mut self,
        schedule: &Schedule,
        packet: Option<PacketId>,
        item: Item,
        children: &[Child],
    ) -> Result<(), Failure> {
        let Some(packet) = packet else {
            let Item::Failed(error) = item else {
                return Err(Failure::new(format!("{item:?} of no packet")));
            };
            return self.last_error(schedule, &error);
        };
        let k = packet.since(schedule.origin);
        if schedule.drain {
            return self.drained(schedule, k, packet, item);
        }
        if schedule.order == Order::Input {
            must!(k == self.count, "item {k} came when {} was due", self.count);
        }
        must!(self.seen.insert(k), "item {k} came twice");
        self.count += 1;
        let refused = schedule.is_refused(k);
        match item {
            Item::Reply(Answer { bytes: reply, size, side, stderr, pid, host }) => {
                self.replies += 1;
                self.became.insert(k, Became::Answered { pid, bytes: size, host });
                let Some(child) = pid.and_then(|pid| children.get(pid as usize)) else {
                    return Err(Failure::new(format!("item {k} was answered by nobody")));
                };
                let expected = seen(schedule.manners.talk, &schedule.body(k));
                let right = !refused && reply == expected && child.looked_at.contains(&k);
                must!(
                    right || (child.tainted && !refused && schedule.spec.check.is_none()),
                    "item {k} got the reply {:?} of session {} instead of {:?}",
                    String::from_utf8_lossy(&reply),
                    child.pid,
                    String::from_utf8_lossy(&expected)
                );
                if !right {
                    self.strange.insert(child.pid);
                }
                if !child.tainted {
                    child.said_with(schedule, k, side.as_deref(), stderr.as_deref())?;
                }
            }
            Item::Failed(error)
                if error.kind() == ErrorKind::Halted
                    && error.packet() == Some(packet.0)
                    && error.to_string().contains(HALTED) =>
            {
                must!(self.may_end_early(schedule), "item {k} was halted");
                self.became.insert(k, Became::Halted);
                self.halted += 1;
            }
            Item::Failed(error) => {
                must!(error.packet() == Some(packet.0), "{error:?} at item {k}");
                let became = if error.is_fatal() { Became::Fatal } else { Became::failed(&error) };
                self.became.insert(k, became);
                if error.is_fatal() {
                    must!(self.may_end_early(schedule), "item {k} is fatal: {error:?}");
                    must!(self.fatal.is_none(), "item {k} is the second fatal: {error:?}");
                    self.fatally(schedule, &error)?;
                } else if refused {
                    must!(error.kind() == ErrorKind::Encode, "item {k}: {error:?}");
                } else {
                    self.failed += 1;
                    if matches!(error.kind(), ErrorKind::ReplyCount { .. }) {
                        self.skipped += 1;
                    }
                    if !self.faulted {
                        Self::is_justified(schedule, k, &error)?;
                    }
                }
            }
            Item::Passed => return Err(Failure::new(format!("item {k} has passed"))),
        }
        Ok(())
    }

    /// The same, where nothing comes back. A packet that was taken back is handed over twice.
    fn drained(
        &mut self,
        schedule: &Schedule,
        k: u64,
        packet: PacketId,
        item: Item,
    ) -> Result<(), Failure> {
        must!(!self.lost.contains(&k), "packet {k} was lost, and now {item:?}");
        let error = match item {
            Item::Reply(_) => return Err(Failure::new(format!("a reply to packet {k}"))),
            Item::Passed => {
                self.handed.insert(k);
                return Ok(());
            }
            Item::Failed(error) => error,
        };
        must!(error.packet() == Some(packet.0), "{error:?} of packet {k}");
        self.lost.insert(k);
        self.handed.remove(&k);
        if error.is_fatal() {
            must!(self.may_end_early(schedule), "packet {k} is fatal: {error:?}");
            let halted = error.to_string().contains(HALTED);
            self.halted += u64::from(halted);
            return if halted { Ok(()) } else { self.fatally(schedule, &error) };
        }
        if schedule.is_refused(k) {
            must!(error.kind() == ErrorKind::Encode, "packet {k}: {error:?}");
            return Ok(());
        }
        self.failed += 1;
        must!(self.faulted || schedule.is_drain_lossy(), "packet {k} was lost: {error:?}");
        Ok(())
    }

    /// Each packet that was handed over has been read by one worker, and no other by any.
    pub(super) fn all_read(&self, schedule: &Schedule, children: &[Child]) -> Result<(), Failure> {
        must!(
            self.accepted == self.handed.len() as u64,
            "{} are said to be accepted, and {} were handed over",
            self.accepted,
            self.handed.len()
        );
        // Where requests have no end it is not known here which lies where.
        if schedule.manners.talk == Talk::UntilEof {
            return Ok(());
        }
        let mut readers: HashMap<u64, u64> = HashMap::new();
        for child in children {
            for k in child.has_read_whole() {
                *readers.entry(k).or_default() += 1;
            }
        }
        for k in &self.handed {
            let readers = readers.get(k).copied().unwrap_or(0);
            // What a child that nothing kills may yet read is not known.
            if readers == 0 && children.iter().any(|child| child.is_stuck() && child.was_sent(*k)) {
                continue;
            }
            must!(
                readers == 1,
                "packet {k} was accepted, and {readers} have read it; it was sent to {:?}",
                children
                    .iter()
                    .filter(|child| child.was_sent(*k))
                    .map(|child| child.pid)
                    .collect::<Vec<_>>()
            );
        }
        Ok(())
    }

    /// The fatal error that belongs to no packet.
    fn last_error(&mut self, schedule: &Schedule, error: &Error) -> Result<(), Failure> {
        must!(error.is_fatal(), "an error of no packet: {error:?}");
        let of_reader = schedule.bytes.is_some_and(|bytes| bytes.fails_at.is_some())
            && error.kind() == ErrorKind::Source;
        must!(of_reader || self.may_end_early(schedule), "the feed ended: {error:?}");
        must!(self.fatal.is_none(), "a second fatal: {error:?}");
        self.fatally(schedule, error)
    }

    fn may_end_early(&self, schedule: &Schedule) -> bool {
        self.faulted || schedule.may_end_early()
    }

    fn fatally(&mut self, schedule: &Schedule, error: &Error) -> Result<(), Failure> {
        let error = format!("{error:?}");
        must!(
            !error.contains(MUST_WAIT) || schedule.start_fails == 1,
            "a start that must wait was fatal: {error}"
        );
        self.fatal = Some(error);
        Ok(())
    }

    fn is_justified(schedule: &Schedule, k: u64, error: &Error) -> Result<(), Failure> {
        let policy = &schedule.spec.policy;
        let culprit = schedule.is_poison(k);
        must!(culprit || schedule.anybody_may_fail(), "item {k} failed: {error:?}");
        let family = schedule.family;
        match error.kind() {
            ErrorKind::Died | ErrorKind::Timeout => {
                let allowed = 1 + policy.retries;
                let fine =
                    error.attempts() == allowed || (policy.at_most_once && error.attempts() > 0);
                must!(fine, "item {k} failed after {} attempts: {error:?}", error.attempts());
                let limited = matches!(
                    family,
                    Family::Hangs | Family::Mixed | Family::Pipes | Family::Harmed
                );
                must!(limited || error.kind() == ErrorKind::Died, "item {k}: {error:?}");
            }
            ErrorKind::Transport => must!(family == Family::Hosts, "item {k}: {error:?}"),
            ErrorKind::NotRedelivered => must!(policy.at_most_once, "item {k}: {error:?}"),
            // A worker that closes its stdout and leaves in good order looks like one that skips.
            ErrorKind::ReplyCount { .. } => {
                let skips = matches!(
                    family,
                    Family::Garbage | Family::Mixed | Family::Pipes | Family::Harmed
                );
                must!(skips, "item {k}: {error:?}");
            }
            ErrorKind::Reply | ErrorKind::Check => {
                // Who closes a pipe early may have given a whole output that is not all of it.
                let half = family == Family::Pipes && schedule.manners.talk == Talk::UntilEof;
                must!(
                    half || matches!(family, Family::Garbage | Family::Mixed),
                    "item {k}: {error:?}"
                );
            }
            _ => return Err(Failure::new(format!("item {k}: {error:?}"))),
        }
        Ok(())
    }

    /// A worker that miscounted, and was heard to its end, has not gone unnoticed.
    pub(super) fn noticed(&self, schedule: &Schedule, child: &Child) -> Result<(), Failure> {
        if schedule.lacks_statuses() {
            // With an unknown status a reply too few looks like a death.
            return Ok(());
        }
        // What it said without having read a byte of the request was passed on as the answer to it.
        let believed = child.answers_unread && self.strange.contains(&child.pid);
        // One that has left before its stdin ended may just have had enough.
        let heard = child.status == Some(0) && child.eof && child.stdout.bytes.is_empty();
        must!(
            !child.miscounts
                || (child.looked_at.is_empty() && !believed)
                || !(heard || believed)
                || self.fatal.is_some()
                || self.remarks > 0
                || self.skipped > 0,
            "nobody has noticed that session {} of {:?} miscounted",
            child.pid,
            schedule.family
        );
        Ok(())
    }

    pub(super) fn ended(
        &mut self,
        schedule: &Schedule,
        remarks: Vec<Error>,
        accepted: &[u64],
    ) -> Result<(), Failure> {
        self.accepted = accepted.iter().sum();
        let mut remarks = remarks;
        // Where every item that there can be is out already, the fatal error is the first remark.
        if let Some(error) = remarks.first().filter(|error| error.is_fatal()) {
            self.last_error(schedule, error)?;
            remarks.remove(0);
        }
        let all = remarks.len();
        remarks.retain(|remark| remark.kind() != ErrorKind::File);
        self.remarks = remarks.len();
        self.log_failures = all - remarks.len();
        // What the reader failed with after the feed had.
        remarks.retain(|remark| remark.kind() != ErrorKind::Source);
        if matches!(schedule.family, Family::Clean | Family::Poison)
            && !schedule.lacks_statuses()
            && !self.faulted
            && !schedule.drain
        {
            let late = |remark: &Error| remark.to_string().contains("did not close its stdout");
            let fine = remarks.iter().all(late);
            must!(fine, "remarks: {remarks:?}");
        }
        must!(self.halted == 0 || self.fatal.is_some(), "items were halted and nobody says why");
        Ok(())
    }
}

/// What the scheduler and everything around it hold, counted afresh; and that each session with room stands
/// in line for work.
pub(super) fn conserved(
    audit: &Audit,
    gate: &Gate,
    source: &Source,
    sink: &Sink,
    (arrived, bytes): (u64, usize),
    handed: usize,
) -> Result<(), Failure> {
    if audit.dropped {
        return Ok(());
    }
    let mut in_flight = 0;
    for session in &audit.sessions {
        in_flight += session.in_flight;
        must!(
            audit.stopping || session.in_flight == session.given - session.answered,
            "{} in flight, {} given, {} answered",
            session.in_flight,
            session.given,
            session.answered
        );
    }
    must!(
        arrived == audit.accepted && arrived == audit.waiting + in_flight + audit.resolved,
        "{arrived} arrived, {} accepted, {} wait, {in_flight} in flight, {} resolved",
        audit.accepted,
        audit.waiting,
        audit.resolved
    );
    // What was handed over and has not arrived is on its way.
    let weight = source.given() - bytes + audit.weight + handed - sink.spent;
    must!(gate.held() == weight, "{} bytes are held, {weight} counted", gate.held());
    let neglected = audit.neglected.filter(|_| !audit.stopping);
    must!(neglected.is_none(), "slot {neglected:?} has room and is not offered");
    Ok(())
}

/// Whether these bytes, the last written to a child, are a whole number of requests, and perhaps last words.
pub(super) fn is_torn(schedule: &Schedule, tail: &[u8]) -> bool {
    let farewell = &schedule.manners.words.farewell;
    if schedule.manners.talk != Talk::UntilEof || farewell.starts_with(tail) {
        return !farewell.starts_with(tail);
    }
    let number = tail.iter().take_while(|byte| byte.is_ascii_digit());
    let k = number.fold(0, |n: u64, byte| n * 10 + u64::from(byte - b'0'));
    let body = schedule.body(k);
    !tail.is_empty() && !tail.strip_prefix(&body[..]).is_some_and(|rest| farewell.starts_with(rest))
}
