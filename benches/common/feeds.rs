//! The feed's side of the pairs: so many records of one kind through `cat`s.

use std::hint::black_box;
use std::io::{self, Read};
use std::path::Path;
use std::time::Instant;

use subfeed::framing::{Prefix, ReplyFraming, RequestFraming};
use subfeed::{FeedExt, Order, Template, blocks};

use super::baselines::{self, Lines, Pipes, Run};

/// As many as the raw pipe has, unless a figure says otherwise.
pub(crate) const WORKERS: usize = 2;
pub(crate) const WINDOW: usize = 10_000;

/// A kind of record and how it is told from the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Records {
    pub(crate) lines: Lines,
    pub(crate) count: u64,
    pub(crate) prefixed: bool,
}

impl Records {
    /// Lines of `bytes` bytes each, as many as make `total`.
    pub(crate) fn of_lines(bytes: usize, total: u64) -> Self {
        let lines = Lines::of(bytes);
        Records { lines, count: lines.count_for(total), prefixed: false }
    }

    fn template(self) -> Template {
        let cat = Template::new("cat");
        if self.prefixed {
            cat.requests(RequestFraming::prefixed(Prefix::u32_be()))
                .replies(ReplyFraming::prefixed(Prefix::u32_be()))
        } else {
            cat
        }
    }

    fn done(self, seen: Seen, start: Instant) -> Run {
        let wall = start.elapsed();
        let expected = Seen {
            records: self.count,
            bytes: self.count * self.lines.record.len() as u64,
            last: self.lines.record.last().copied().unwrap_or_default(),
        };
        assert_eq!(seen, expected, "what came back");
        Run { records: self.count, bytes: self.count * self.lines.wire.len() as u64, wall }
    }

    /// Replies in blocks.
    pub(crate) fn in_blocks(self, order: Order) -> Run {
        let mut seen = Seen::default();
        let start = Instant::now();
        let source = self.lines.records(self.count);
        let feed = source.feed(self.template()).workers(WORKERS).buffer(WINDOW).order(order);
        for block in feed.blocks() {
            block.expect("cat answers").records().for_each(|reply| seen.look(reply));
        }
        self.done(seen, start)
    }

    /// Replies one by one, each the consumer's own, in input order.
    pub(crate) fn owned(self) -> Run {
        let mut seen = Seen::default();
        let start = Instant::now();
        let source = self.lines.records(self.count);
        for reply in source.feed_subprocesses_ordered(self.template(), WORKERS, WINDOW) {
            let reply = reply.expect("cat answers");
            seen.look(&reply);
            black_box(reply);
        }
        self.done(seen, start)
    }

    /// The same, watched: with a timeline of so many events, or a job log.
    pub(crate) fn watched(self, timeline: Option<usize>, job_log: Option<&Path>) -> Run {
        let mut seen = Seen::default();
        let start = Instant::now();
        let source = self.lines.records(self.count);
        let mut feed = source.feed(self.template()).workers(WORKERS).buffer(WINDOW);
        if let Some(events) = timeline {
            feed = feed.timeline(events);
        }
        if let Some(path) = job_log {
            feed = feed.job_log(path);
        }
        for reply in feed {
            let reply = reply.expect("cat answers");
            seen.look(&reply);
            black_box(reply);
        }
        self.done(seen, start)
    }

    /// The same bytes through the raw pipe.
    pub(crate) fn raw(self) -> Run {
        baselines::raw_pipe(self.lines, self.count, WORKERS, Pipes::Enlarged)
    }
}

/// What a consumer who looks at every reply knows at the end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    records: u64,
    bytes: u64,
    last: u8,
}

impl Seen {
    #[inline]
    fn look(&mut self, reply: &[u8]) {
        self.records += 1;
        self.bytes += reply.len() as u64;
        // The byte itself, not only its address.
        self.last = black_box(reply.last().copied().unwrap_or_default());
    }
}

/// So many bytes of the same lines, as fast as memory gives them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    lines: Lines,
    at: usize,
    left: u64,
}

impl Memory {
    pub(crate) fn of(lines: Lines, count: u64) -> Self {
        Self { lines, at: 0, left: count * lines.wire.len() as u64 }
    }
}

impl Read for Memory {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let mut n = 0;
        while n < most {
            let piece = &self.lines.block[self.at..];
            let len = piece.len().min(most - n);
            into[n..n + len].copy_from_slice(&piece[..len]);
            self.at = (self.at + len) % self.lines.block.len();
            n += len;
        }
        self.left -= n as u64;
        Ok(n)
    }
}

/// Blocks in, blocks out.
pub(crate) fn through(lines: Lines, count: u64, reader: impl Read + Send + 'static) -> Run {
    let start = Instant::now();
    let (mut records, mut bytes) = (0, 0);
    for block in blocks(reader).feed(Template::new("cat")).workers(WORKERS) {
        let block = block.expect("cat answers");
        records += block.len() as u64;
        bytes += block.as_bytes().len() as u64;
        black_box(block.as_bytes().last());
    }
    let wall = start.elapsed();
    assert_eq!((records, bytes), (count, count * lines.wire.len() as u64), "what came back");
    Run { records, bytes, wall }
}
