//! Blocks: bytes in, whole records in blocks out.

use std::fmt;
use std::io::{self, Read, Write};
use std::iter::FusedIterator;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use bstr::{BStr, ByteSlice};

use crate::error::Error;
use crate::feed::answers::take_rest;
use crate::feed::launch::{Launch, Launched, scribe};
use crate::feed::watched::Watch;
use crate::record::{Buffer, PacketId};
use crate::stats::{Monitor, Snapshot, Stats};
use crate::template::channel::Stream;
use crate::template::{Spec, Template};
use crate::tuning::BLOCKS_WAITING;
use crate::window::delimiters::Delimiters;
use crate::window::gate::Gate;
use crate::window::joins::IntakeThread;
use crate::window::outlet::{Given, Order, Outlet};
use crate::window::packet::{Cut, Replies};
use crate::window::reading::{Cutter, Reading, Writing};
use crate::window::seam::Bounds;
use crate::window::workers::Workers;

/// Feeds records out of anything that reads: a file, a pipe, standard input.
///
/// An iterator hands its items over one by one, and so does a feed of them. Bytes need not be touched record by
/// record: here what each read gives is cut behind its last delimiter, and whole [blocks](Block) of records travel, so
/// that a record costs no call, no allocation and next to no time. Everything else is as in any feed: order, bounded
/// memory, errors in their place, redelivery, limits, all counted in records.
///
/// ```
/// use subfeed::{Template, blocks};
///
/// let input = &b"one\ntwo\nthree\n"[..];
/// let mut output = Vec::new();
/// let mut feed = blocks(input).feed(Template::new("cat")).workers(2).start();
/// assert_eq!(feed.copy_to(&mut output)?, 3);
/// assert_eq!(output, input);
/// # std::io::Result::Ok(())
/// ```
///
/// The same by hand is a thread that writes to a child and one that reads from it, for one child and without knowing
/// which record failed:
///
/// ```
/// use std::io::{self, Write};
/// use std::process::{Command, Stdio};
///
/// let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
/// let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
/// let writer = std::thread::spawn(move || stdin.write_all(b"one\ntwo\nthree\n"));
/// let mut output = Vec::new();
/// io::copy(&mut stdout, &mut output)?;
/// writer.join().unwrap()?;
/// assert!(child.wait()?.success() && output == b"one\ntwo\nthree\n");
/// # std::io::Result::Ok(())
/// ```
///
/// # What a record is
/// The bytes before the next [delimiter](Blocks::delimiter), a line feed by default. The last one may lack it.
/// An empty line is an empty record. Nothing is trimmed or converted: a carriage return before a line feed stays.
///
/// # When blocks travel whole
/// Where requests end with the same delimiter as the records (lines to a tool that reads lines), and replies are lines,
/// a fixed number of lines, or end with a byte of their own. With any other framing, or a sentinel, or a
/// [`check`](Template::check), each record is written and each reply cut by itself: the types and the results are
/// the same, the speed is that of a feed of single records.
///
/// Blocks go to stdin and come from stdout: with a side input that is to be written, or a side output that is to be
/// read, the feed has one item, an error of the configuration.
///
/// `encode`, `decode` and `keep_input` are for single records, and do not compile here:
///
/// ```compile_fail
/// use subfeed::{Template, blocks};
/// let lengths = Template::new("cat").decode(|reply| reply.len());
/// let feed = blocks(&b"one\n"[..]).feed(lengths).start();
/// ```
///
/// # Look-ahead
/// A block is what one read gave. It never waits to be filled, so records of a slow source are on their way as soon as
/// they are whole. The window is in bytes ([`max_bytes`](BlockFeedBuilder::max_bytes)); the reader may be ahead of it by one read, or by
/// one record that is longer.
pub fn blocks<R: Read + Send + 'static>(reader: R) -> Blocks<R> {
    Blocks { reader, delimiter: b'\n', block_size: 64 << 10, record_limit: 64 << 20 }
}

/// How records are read: made by [`blocks`], to be [fed](Blocks::feed).
#[derive(Clone)]
#[must_use = "this reads nothing by itself: call feed, and start"]
pub struct Blocks<R> {
    reader: R,
    delimiter: u8,
    block_size: usize,
    record_limit: usize,
}

impl<R> fmt::Debug for Blocks<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocks")
            .field("delimiter", &BStr::new(&[self.delimiter]))
            .field("block_size", &self.block_size)
            .field("record_limit", &self.record_limit)
            .finish_non_exhaustive()
    }
}

impl<R: Read + Send + 'static> Blocks<R> {
    /// The byte that ends each record: a line feed by default, NUL for `find -print0`.
    pub fn delimiter(mut self, byte: u8) -> Self {
        self.delimiter = byte;
        self
    }

    /// How many bytes are asked for in one read, and so how large a block of requests is at most, but for a record
    /// that is longer: 64 KiB by default, which is what a pipe holds. More was slower wherever it was measured. Zero, and
    /// more than 1 GiB, is an error, yielded by the feed.
    pub fn block_size(mut self, bytes: usize) -> Self {
        self.block_size = bytes;
        self
    }

    /// How long a record may be, its delimiter not counted: 64 MiB by default. A longer one is passed over, and is an `Err` of
    /// kind [`Encode`](crate::ErrorKind::Encode) in its place.
    pub fn record_limit(mut self, bytes: usize) -> Self {
        self.record_limit = bytes;
        self
    }

    /// A builder for the feed of these records, with every option at its default. Starts nothing.
    pub fn feed(self, template: Template) -> BlockFeedBuilder<R> {
        BlockFeedBuilder {
            blocks: self,
            template,
            workers: Workers::default(),
            buffer: usize::MAX,
            max_bytes: 4 << 20,
            order: Order::Input,
            first_record: 0,
            watch: Watch::default(),
        }
    }
}

/// A feed of blocks that is not started yet.
///
/// | option | default |
/// |---|---|
/// | [`workers`](BlockFeedBuilder::workers) | the number of processors |
/// | [`max_bytes`](BlockFeedBuilder::max_bytes) | 4 MiB |
/// | [`buffer`](BlockFeedBuilder::buffer) | no bound in records |
/// | [`order`](BlockFeedBuilder::order) | [`Order::Input`] |
#[must_use = "a builder starts nothing by itself: call start"]
pub struct BlockFeedBuilder<R> {
    blocks: Blocks<R>,
    template: Template,
    workers: Workers,
    buffer: usize,
    max_bytes: usize,
    order: Order,
    first_record: u64,
    watch: Watch,
}

impl<R> fmt::Debug for BlockFeedBuilder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockFeedBuilder")
            .field("blocks", &self.blocks)
            .field("template", &self.template)
            .field("workers", &self.workers)
            .field("buffer", &self.buffer)
            .field("max_bytes", &self.max_bytes)
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

impl<R: Read + Send + 'static> BlockFeedBuilder<R> {
    /// How many workers. Zero is an error, yielded by the feed, and so is more than 2^18.
    pub fn workers(mut self, n: usize) -> Self {
        self.workers = Workers::Exactly(n);
        self
    }

    /// How many bytes of requests and replies may be held before nothing more is read, and before only the worker that
    /// holds what the consumer waits for is read: 4 MiB by default. A record that is longer travels alone.
    ///
    /// A [`Block`] that has been yielded is the consumer's, and is not counted.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// A window in records, beside the one in bytes: no more records are given to workers and not yet yielded. Blocks are
    /// cut for it. Zero is an error, yielded by the feed; by default there is no such bound.
    pub fn buffer(mut self, records: usize) -> Self {
        self.buffer = records;
        self
    }

    /// In which order blocks are yielded. Within a block, replies are always in the order of their records.
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// The number of the first record, 0 by default; numbers wrap at `u64::MAX`.
    pub fn first_record(mut self, number: u64) -> Self {
        self.first_record = number;
        self
    }

    /// Writes a line for each record into this file as soon as it is known what became of it: see
    /// [`FeedBuilder::job_log`](crate::FeedBuilder::job_log). A line takes far longer than a short record does in a block.
    pub fn job_log(mut self, path: impl Into<PathBuf>) -> Self {
        self.watch.keep_job_log(path.into());
        self
    }

    /// Records what every worker does: see [`FeedBuilder::timeline`](crate::FeedBuilder::timeline).
    #[cfg(feature = "timeline")]
    #[cfg_attr(docsrs, doc(cfg(feature = "timeline")))]
    pub fn timeline(mut self, events: usize) -> Self {
        self.watch.keep_timeline(events);
        self
    }

    /// What of the options excludes what.
    fn problem(&self) -> Option<Error> {
        let Blocks { block_size, .. } = self.blocks;
        if block_size == 0 || block_size > 1 << 30 {
            let message = format!("block_size is {block_size}, and must be 1 to {}", 1 << 30);
            return Some(Error::config(message));
        }
        let Spec { policy, channels, .. } = &self.template.spec;
        if policy.keep_stderr {
            return Some(Error::config(
                "a block has replies alone, so keep_stderr has no meaning for it",
            ));
        }
        if let Some(name) = self.template.spec.side_input_names().first() {
            let message = format!(
                "a block goes to stdin alone, and nothing could be written to the side input `{name}`"
            );
            return Some(Error::config(message).hint("feed an iterator of records, with encode"));
        }
        let side = channels.side_outputs.iter().find(|side| side.framing.is_some())?;
        let message = format!(
            "a block has replies alone, and not what comes on the side output `{}`",
            side.name
        );
        Some(Error::config(message).hint("feed an iterator of records, or send it to a file"))
    }

    /// Starts the feed and returns at once: the reader is read while the workers start.
    ///
    /// Nothing is thrown here. What is wrong with the configuration is the feed's only item, a fatal
    /// `Err`.
    pub fn start(self) -> BlockFeed {
        let problem = self.problem();
        let Self { blocks, template, workers, buffer, max_bytes, order, first_record, watch } =
            self;
        let Blocks { reader, delimiter, block_size, record_limit } = blocks;
        let launch = Launch {
            spec: template.spec,
            workers,
            bounds: Bounds {
                order,
                first: PacketId(first_record),
                batches: BLOCKS_WAITING,
                ..Bounds::new(buffer, max_bytes)
            },
            drain: false,
            watch,
            keep_requests: false,
            most: None,
        };
        let Launched { outlet, stats, spec, .. } = launch.start(problem, |intake, spec| {
            let reading = Reading { delimiter, block: block_size, limit: record_limit };
            let writing = writing(spec, delimiter);
            IntakeThread::spawn(
                move || intake.read(Cutter::new(reader, reading), writing),
                |run| IntakeThread::builder().spawn(run).map(Some),
            )
        });
        let end = spec.replies.written_end(delimiter).into();
        BlockFeed::new(outlet, stats, end)
    }
}

/// Starts the feed, as [`start`](BlockFeedBuilder::start) does.
impl<R: Read + Send + 'static> IntoIterator for BlockFeedBuilder<R> {
    type Item = Result<Block, Error>;
    type IntoIter = BlockFeed;

    fn into_iter(self) -> BlockFeed {
        self.start()
    }
}

/// Whether records are requests as they stand.
pub(crate) fn writing(spec: &Spec, delimiter: u8) -> Writing {
    let scribe = scribe(spec);
    let as_they_stand = scribe.framings.len() == 1
        && scribe.sentinel.is_none()
        && matches!(spec.channels.stdin, Stream::Pipe)
        && spec.requests.delimiter() == Some(delimiter);
    if as_they_stand { Writing::Whole } else { Writing::Each(scribe) }
}

/// The replies of a running feed, in blocks: a lazy, fused iterator.
///
/// Made by [`BlockFeedBuilder::start`]. Each item is a [`Block`] of replies to consecutive records, or the `Err` of one
/// record, which stands between the blocks before and after it. Every record that was read is in exactly one of them.
///
/// How many records a block has is an accident of reads and of who answered first; only the order of the
/// records means anything.
///
/// An error of the reader is the last item, of kind [`Source`](crate::ErrorKind::Source): what was read before it is answered.
/// The half of a record that may stand before it is no record; the error says how long it was.
///
/// # Dropping
/// As a [`Feed`](crate::Feed). A reader that blocks is left behind, and ends when its read does.
///
/// # Panics
/// `next` resumes a panic of the reader, or of a custom framing, behind what was read before it.
#[must_use = "a feed that is not iterated stops as soon as it is dropped"]
pub struct BlockFeed {
    outlet: Outlet,
    stats: Arc<Stats>,
    /// What stands behind each reply where they are written one after the other.
    end: Arc<[u8]>,
    /// A [`BlockStopper`] has ended it.
    ended: Arc<AtomicBool>,
}

impl BlockFeed {
    pub(crate) fn new(outlet: Outlet, stats: Arc<Stats>, end: Arc<[u8]>) -> Self {
        Self { outlet, stats, end, ended: Arc::default() }
    }

    /// Writes what is left to `out`, block by block, and says how many records that were. Does not flush.
    ///
    /// A record that fails ends this with its error ([`Error`] converts into an [`io::Error`], and is found there by
    /// [`io::Error::get_ref`]), and so does a write; the records before it have been written. Call it again to go on behind
    /// a record that failed.
    ///
    /// # Errors
    /// That of a record, a fatal one, or what the write failed with.
    ///
    /// # Panics
    /// As the iterator.
    pub fn copy_to<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<u64> {
        let mut records = 0;
        for block in self {
            let block = block?;
            block.write_to(out)?;
            records += block.len() as u64;
        }
        Ok(records)
    }

    /// A handle that ends the feed before its time, from any thread.
    pub fn stopper(&self) -> BlockStopper {
        BlockStopper { gate: Arc::clone(self.outlet.gate()), ended: Arc::clone(&self.ended) }
    }

    /// A handle that tells, from any thread and at any time, how the feed is doing.
    pub fn monitor(&self) -> Monitor {
        Monitor(Arc::clone(&self.stats))
    }

    /// See [`Feed::finish`](crate::Feed::finish).
    ///
    /// # Errors
    /// As there.
    pub fn finish(mut self) -> Result<Snapshot, Error> {
        take_rest(&mut self.outlet, |_| None::<Error>)?;
        Ok(self.monitor().snapshot())
    }
}

impl Iterator for BlockFeed {
    type Item = Result<Block, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let (packet, given) = self.outlet.next_whole()?;
        if self.ended.load(SeqCst) {
            // What still lies here may have a hole in front of it.
            return None;
        }
        Some(match given {
            Given::Reply((replies, count)) => Ok(Block::new(packet.0, count, replies, &self.end)),
            Given::Failed(error) => Err(error),
            // Nothing passes here.
            Given::Passed => Err(Error::halted().at(packet.0)),
        })
    }
}

impl FusedIterator for BlockFeed {}

impl fmt::Debug for BlockFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockFeed").field("monitor", &self.monitor()).finish_non_exhaustive()
    }
}

/// Ends a feed of blocks before its time, from any thread, softly or at once, as signals do: made by [`BlockFeed::stopper`].
///
/// ```
/// use subfeed::{Template, blocks};
/// let endless = std::io::repeat(b'\n');
/// let mut feed = blocks(endless).feed(Template::new("cat")).workers(2).start();
/// let stopper = feed.stopper();
/// assert!(feed.next().is_some());
/// stopper.stop();
/// // What had been read is answered, and that is all.
/// let records: usize = feed.map(|block| block.unwrap().len()).sum();
/// assert!(records > 0);
/// ```
#[derive(Clone)]
pub struct BlockStopper {
    gate: Arc<Gate>,
    /// The feed gives nothing more.
    ended: Arc<AtomicBool>,
}

impl BlockStopper {
    /// Nothing more is read. Every record that is whole by then is answered, and then the feed ends; half a record
    /// is dropped. A reader that blocks is left behind.
    pub fn stop(&self) {
        self.gate.stop();
        self.gate.wake_executor();
    }

    /// The feed ends as if it were dropped: its workers are ended, and whoever waits in `next` gets `None`.
    pub fn end(&self) {
        self.ended.store(true, SeqCst);
        self.gate.drop_feed();
    }
}

impl fmt::Debug for BlockStopper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockStopper").field("stopped", &self.gate.is_stopped()).finish()
    }
}

/// Replies to consecutive records, in one piece of memory, which goes back to the feed when this is dropped.
///
/// ```
/// use subfeed::{Template, blocks};
/// let feed = blocks(&b"1\n2\n3\n"[..]).feed(Template::new("cat")).workers(1).start();
/// let mut sum = 0;
/// for block in feed {
///     for reply in block?.records() {
///         sum += std::str::from_utf8(reply).unwrap().parse::<u32>().unwrap();
///     }
/// }
/// assert_eq!(sum, 6);
/// # Ok::<_, subfeed::Error>(())
/// ```
pub struct Block {
    first: u64,
    len: usize,
    buffer: Arc<Buffer>,
    at: Range<usize>,
    pieces: Pieces,
}

/// How replies are found in a block.
enum Pieces {
    /// Each ends before a byte like this, or before the last of so many of them.
    Delimited(Delimiters, usize),
    /// One by one.
    Parts(Parts),
}

/// Replies that do not stand one right after the other, each as it was written.
struct Parts {
    /// Where the replies are, from `next` on, and under each the ranges of its side outputs.
    ranges: Arc<[Range<usize>]>,
    next: usize,
    sides: usize,
    /// What is written behind each.
    end: Arc<[u8]>,
    /// All of them as they are written, once somebody has asked for that.
    written: OnceLock<Box<[u8]>>,
}

impl Parts {
    fn bodies(&self, len: usize) -> impl Iterator<Item = &Range<usize>> {
        self.ranges.iter().skip(self.next).step_by(1 + self.sides).take(len)
    }

    fn written(&self, buffer: &[u8], len: usize) -> &[u8] {
        self.written.get_or_init(|| {
            let size = self.bodies(len).map(|body| body.len() + self.end.len()).sum();
            let mut bytes = Vec::with_capacity(size);
            for body in self.bodies(len) {
                bytes.extend_from_slice(&buffer[body.clone()]);
                bytes.extend_from_slice(&self.end);
            }
            bytes.into()
        })
    }
}

impl Block {
    pub(crate) fn new(first: u64, count: u64, replies: Replies, end: &Arc<[u8]>) -> Self {
        let Replies { buffer, at, cut, .. } = replies;
        let len = usize::try_from(count).unwrap_or(usize::MAX);
        let pieces = match cut {
            Cut::Delimiter { find, per, .. } => Pieces::Delimited(find, per),
            Cut::Parts { ranges, next, sides } => {
                let (end, written) = (Arc::clone(end), OnceLock::new());
                Pieces::Parts(Parts { ranges, next, sides, end, written })
            }
        };
        Self { first, len, buffer, at, pieces }
    }

    /// The number of its first record, counted from [`first_record`](BlockFeedBuilder::first_record).
    #[must_use]
    pub fn first_record(&self) -> u64 {
        self.first
    }

    /// How many records it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: there is no empty block.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The replies one by one, without what frames them. `for_each` and the like are faster than a loop.
    pub fn records(&self) -> impl Iterator<Item = &BStr> {
        Records {
            bytes: &self.buffer,
            rest: match &self.pieces {
                Pieces::Delimited(find, per) => {
                    Rest::Delimited(find.clone(), *per, self.at.clone())
                }
                Pieces::Parts(parts) => Rest::Parts(parts.bodies(self.len)),
            },
        }
    }

    /// The replies one after the other, each as the tool wrote it, with what ends it: its line feed, or the byte that
    /// delimits it. Behind a reply whose end is no text (a length in front of it, a marker) stands the records' delimiter;
    /// nothing stands behind one that a sentinel or the end of the output has ended, or that has a fixed size.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.pieces {
            Pieces::Delimited(..) => &self.buffer[self.at.clone()],
            Pieces::Parts(parts) => parts.written(&self.buffer, self.len),
        }
    }

    /// Writes [`as_bytes`](Self::as_bytes), in one piece.
    ///
    /// # Errors
    /// What the write fails with.
    pub fn write_to<W: Write + ?Sized>(&self, out: &mut W) -> io::Result<()> {
        out.write_all(self.as_bytes())
    }
}

/// The replies of a block.
struct Records<'a, P> {
    bytes: &'a [u8],
    rest: Rest<P>,
}

/// Where those are that were not taken yet.
enum Rest<P> {
    /// See [`Pieces`].
    Delimited(Delimiters, usize, Range<usize>),
    Parts(P),
}

impl<'a, P: Iterator<Item = &'a Range<usize>>> Iterator for Records<'a, P> {
    type Item = &'a BStr;

    #[inline]
    fn next(&mut self) -> Option<&'a BStr> {
        let range = match &mut self.rest {
            Rest::Delimited(find, per, at) => {
                let end = find.nth(*per, self.bytes, at.start, at.end)?;
                std::mem::replace(&mut at.start, end + 1)..end
            }
            Rest::Parts(bodies) => bodies.next()?.clone(),
        };
        Some(self.bytes[range].as_bstr())
    }

    #[inline]
    fn fold<B, F: FnMut(B, &'a BStr) -> B>(mut self, init: B, mut f: F) -> B {
        let mut sum = init;
        if let Rest::Delimited(find, 1, at) = &mut self.rest {
            while let Some(end) = find.next(self.bytes, at.start, at.end) {
                sum = f(sum, self.bytes[at.start..end].as_bstr());
                at.start = end + 1;
            }
            return sum;
        }
        for reply in self {
            sum = f(sum, reply);
        }
        sum
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("first_record", &self.first)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
