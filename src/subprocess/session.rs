//! One session: one child process in a worker's slot, seen from the outside.
//!
//! ```text
//!                 close inputs                      grace is over
//!   Open ----------------------------> Ending ---------------------> Killing
//!    |                                   |                              |
//!    +------------- exited --------------+----------- exited -----------+
//!                                        v
//!                                     Exited -- outputs at their end, or grace --> Finished
//! ```
//!
//! One that is killed and does not end within a grace is `Finished` too: it is abandoned.
//!
//! A session is `Finished` when the event loop has been told to kill what is left of its group and to reap
//! it; the status then comes with the last event of the session.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::record::{Buffer, Run};
use crate::subprocess::depth::Depth;
use crate::subprocess::input::Input;
use crate::subprocess::protocol::Now;
use crate::template::framing::{Framing, ReplyFraming};
use crate::window::packet::{Cut, Label};

/// Why a session does not go on. The first reason counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The input has ended: nothing more will be given.
    Done,
    /// It withholds replies, or has served long enough.
    Recycled,
    /// It closed its stdin (or a side input that is not optional).
    ClosedInput,
    /// It closed its stdout and went on running.
    ClosedOutput,
    /// A time limit ran out.
    Timeout,
    /// What it wrote cannot be trusted any more; the packet concerned has its `Err`.
    Distrusted,
    /// The feed has ended before its time: dropped, or a fatal error.
    Stopped,
}

impl Why {
    /// The same for whoever reads a log.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Recycled => "recycled",
            Self::ClosedInput => "closed its stdin",
            Self::ClosedOutput => "closed its stdout",
            Self::Timeout => "timeout",
            Self::Distrusted => "distrusted",
            Self::Stopped => "stopped",
        }
    }

    /// Whether we closed its inputs in good order, so that it owes a reply for every request.
    pub(crate) fn is_asked(self) -> bool {
        matches!(self, Self::Done | Self::Recycled)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    Ending,
    Killing { step: usize, next: Now },
    Exited { drained_by: Now },
    Finished,
}

/// One output channel that replies are cut from: stdout (0) or a side output.
pub(crate) struct Output {
    /// Bytes read and not yet cut are `bytes[start..end]`; the rest is room.
    pub(crate) bytes: Vec<u8>,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Where the scan for the next reply has come to, for the bulk path.
    pub(crate) scanned: usize,
    pub(crate) framing: Box<dyn Framing>,
    /// The scanner has seen every reply before this one.
    pub(crate) framing_is_fresh: bool,
    /// The whole output is one reply.
    pub(crate) until_eof: bool,
    pub(crate) eof: bool,
    /// Whole replies of a side output (or of stdout where there are side outputs), as bytes and ends.
    pub(crate) whole: VecDeque<Vec<u8>>,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output")
            .field("start", &self.start)
            .field("end", &self.end)
            .field("eof", &self.eof)
            .finish_non_exhaustive()
    }
}

impl Output {
    pub(crate) fn new(framing: &ReplyFraming) -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            end: 0,
            scanned: 0,
            framing: framing.start(),
            until_eof: framing.is_until_eof(),
            framing_is_fresh: true,
            eof: false,
            whole: VecDeque::new(),
        }
    }

    pub(crate) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }
}

/// The last bytes of stderr.
#[derive(Debug, Default)]
pub(crate) struct Tail(VecDeque<u8>);

impl Tail {
    const KEEP: usize = 8 << 10;

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(Self::KEEP)..];
        let over = (self.0.len() + bytes.len()).saturating_sub(Self::KEEP);
        self.0.drain(..over);
        self.0.extend(bytes);
    }

    pub(crate) fn to_vec(&self) -> Vec<u8> {
        self.0.iter().copied().collect()
    }
}

/// Replies that wait for their session to be proven.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) buffer: Arc<Buffer>,
    pub(crate) at: std::ops::Range<usize>,
    pub(crate) cut: Cut,
    pub(crate) count: u64,
}

/// A quiet worker is looked at again after so many stall delays at most.
const LONGEST_PATIENCE: u32 = 64;

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) serial: u64,
    pub(crate) label: Arc<Label>,
    pub(crate) phase: Phase,
    pub(crate) why: Option<Why>,
    pub(crate) inputs: Vec<Input>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) stderr: Tail,
    pub(crate) stderr_eof: bool,
    pub(crate) depth: Depth,
    pub(crate) started: Now,
    /// Packets given to it in all, and answered.
    pub(crate) given: u64,
    pub(crate) answered: u64,
    pub(crate) in_flight: VecDeque<Run>,
    /// Packets that were written in full not long ago, so that they may still lie in a pipe; only
    /// where a feed is drained.
    pub(crate) recent: VecDeque<Run>,
    pub(crate) recent_bytes: usize,
    /// Replies that came after its stdin was closed and before it had ever answered.
    pub(crate) held: Vec<Held>,
    pub(crate) held_count: u64,
    /// Its banner is still to come, or to be skipped.
    pub(crate) in_banner: bool,
    /// It answered while its stdin was open.
    pub(crate) proven: bool,
    /// It was seen owing nothing while its stdin was open: it does not buffer.
    pub(crate) prompt: bool,
    pub(crate) stdin_closed: bool,
    /// It holds suspects: nothing else joins them.
    pub(crate) quarantined: bool,
    /// Waits in one of the dispatcher's queues.
    pub(crate) queued: bool,
    /// When the packet it must answer next became that.
    pub(crate) head_since: Now,
    /// When anything last moved in or out.
    pub(crate) moved: Now,
    /// How long after a look at a quiet session there is another, and when that is.
    pub(crate) patience: Duration,
    pub(crate) next_probe: Now,
    /// What `moved` was when the evidence of a stall was last asked for.
    pub(crate) suspected: Now,
    pub(crate) closed_output_at: Option<Now>,
    /// It had answered everything and closed its stdout, but went on running until it was killed.
    pub(crate) lingered: bool,
    /// It was killed and did not end: it is left behind.
    pub(crate) abandoned: bool,
    /// The earliest timer that is set for it.
    pub(crate) timer: Option<Now>,
}

impl Session {
    pub(crate) fn owed(&self) -> u64 {
        self.given - self.answered - self.held_count
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether there is a channel on which it has been handed everything, so that it may be waiting
    /// there for more. What it leaves unread on another says nothing: it may read one to its end
    /// before it turns to the next, or never read an optional one.
    pub(crate) fn may_be_waiting(&self) -> bool {
        let mut open = self.inputs.iter().filter(|input| !input.closed).peekable();
        open.peek().is_none() || open.any(Input::is_written)
    }

    /// The side input of which more is left unread than may be.
    pub(crate) fn clogged(&self) -> Option<usize> {
        let sides = self.inputs.iter().enumerate().skip(1);
        let mut over = sides.filter(|(_, input)| input.unwritten() > input.cap as u64);
        over.next().map(|(channel, _)| channel)
    }

    /// Whether so many bytes wait on every input: more would only lie here. While one has less the worker
    /// may be waiting for just that.
    pub(crate) fn is_backed_up(&self, backlog: u64) -> bool {
        let mut open = self.inputs.iter().filter(|input| !input.closed).peekable();
        open.peek().is_some() && open.all(|input| input.unwritten() >= backlog)
    }

    /// Whether a request has been written in part: a piece of a record, or its record on one channel
    /// and not yet on another.
    pub(crate) fn is_torn(&self) -> bool {
        self.inputs.iter().enumerate().any(|(channel, input)| input.is_torn(channel))
            || self.untouched() < self.unfinished()
    }

    /// How many of the newest packets it cannot have read a byte of.
    pub(crate) fn untouched(&self) -> u64 {
        let counts =
            self.inputs.iter().enumerate().map(|(channel, input)| input.untouched(channel));
        counts.min().unwrap_or(0)
    }

    /// Whether it has ended without reading a byte, as far as is known.
    pub(crate) fn has_read_nothing(&self) -> bool {
        let mut ours = self.inputs.iter().filter(|input| !input.absent);
        ours.all(|input| input.read() == Some(0))
    }

    /// How many of the newest packets, recent ones and those in flight, it cannot have read a byte of.
    pub(crate) fn unread(&self) -> u64 {
        let channels = self.inputs.iter().enumerate().filter(|(_, input)| !input.absent);
        let counts = channels.map(|(channel, input)| {
            let Some(read) = input.read() else { return input.untouched(channel) };
            if input.shut_at.is_some() && input.optional {
                // It went on without this channel; what was given since is not in these numbers.
                return input.untouched(channel);
            }
            let (mut start, mut unread) = (input.queued, 0);
            let runs = self.recent.iter().chain(&self.in_flight).rev();
            for (run, packet) in
                runs.flat_map(|run| (run.from..run.to).rev().map(move |at| (run, at)))
            {
                start -= run.batch.columns[channel].range(packet, packet + 1).len() as u64;
                if start < read {
                    break;
                }
                unread += 1;
            }
            unread
        });
        counts.min().unwrap_or(0)
    }

    /// How many of the newest packets it has not been handed in full.
    pub(crate) fn unfinished(&self) -> u64 {
        let required = self.inputs.iter().enumerate().filter(|(_, input)| !input.optional);
        required.map(|(channel, input)| input.unfinished(channel)).max().unwrap_or(0)
    }

    /// This look at it has decided nothing: the next one comes after twice the time.
    pub(crate) fn look_again(&mut self, now: Now, delay: Duration) {
        self.next_probe = now.saturating_add(self.patience);
        self.patience = self.patience.saturating_mul(2).min(delay.saturating_mul(LONGEST_PATIENCE));
    }

    /// Forgets the replies that were held, and says how many bytes they are.
    pub(crate) fn take_held(&mut self) -> usize {
        self.held_count = 0;
        self.held.drain(..).map(|held| held.at.len()).sum()
    }

    /// Drops what was read: nobody believes it, or nobody asks.
    pub(crate) fn ignore_outputs(&mut self) {
        for output in &mut self.outputs {
            output.start = output.end;
            output.scanned = output.end;
        }
    }

    /// Whether every output of it has come to its end.
    pub(crate) fn outputs_ended(&self) -> bool {
        self.stderr_eof && self.outputs.iter().all(|output| output.eof)
    }
}
