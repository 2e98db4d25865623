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
use crate::framing::WrittenEnd;
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

/// Feeds the records of anything that implements [`Read`]: a file, a pipe, standard input.
///
/// An iterator hands over its items one by one, and so does a feed of them. Here each read is cut behind its last
/// delimiter, and whole [blocks](Block) of records travel through the feed. A record then costs no call and no allocation.
/// Everything else is as in any feed: order, bounded memory, errors at their position, redelivery and limits, all counted
/// in records.
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
/// By hand, the same takes a thread that writes to the child and another that reads from it. It works for one child, and
/// does not show which record failed:
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
/// They do if requests end with the same delimiter as the records (lines for a tool that reads lines), and replies are
/// lines, a fixed number of lines, or end with a certain byte. With any other framing, a sentinel, a side input or a
/// [`check`](Template::check), each record is written and each reply is cut separately. Types and results are the same;
/// the speed is that of a feed of single records.
///
/// Blocks use only stdin and stdout. If the template has a side input that the feed writes, or a side output that it reads,
/// the feed's only item is a configuration error.
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
/// A block is what one read returned. It never waits to be filled, so the records of a slow source are sent as soon as
/// they are complete. The window is counted in bytes ([`max_bytes`](BlockFeedBuilder::max_bytes)); the reader may be ahead
/// of it by one read, or by one record that is longer.
pub fn blocks<R: Read + Send + 'static>(reader: R) -> Blocks<R> {
    Blocks { reader, delimiter: b'\n', block_size: 64 << 10, record_limit: 64 << 20 }
}

/// How records are read. Made by [`blocks`]; [`feed`](Blocks::feed) turns it into a feed.
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
    /// The byte that ends each record. Default: a line feed. NUL is for `find -print0`.
    pub fn delimiter(mut self, byte: u8) -> Self {
        self.delimiter = byte;
        self
    }

    /// How many bytes are asked for in one read, and so the largest block of requests, unless a record is longer.
    /// Default: 64 KiB, which is what a pipe holds; larger values were slower in every measurement. Zero, or more than
    /// 1 GiB, is a fatal error, which the feed yields.
    pub fn block_size(mut self, bytes: usize) -> Self {
        self.block_size = bytes;
        self
    }

    /// The longest record in bytes, without its delimiter. Default: 64 MiB. A longer record is skipped, and is an `Err` of
    /// kind [`Encode`](crate::ErrorKind::Encode) at its position.
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
    /// The number of workers. Default: the number of processors. Zero, or more than 2^18, is a fatal error, which the feed
    /// yields.
    pub fn workers(mut self, n: usize) -> Self {
        self.workers = Workers::Exactly(n);
        self
    }

    /// The size of the window, in bytes of requests and replies. Default: 4 MiB.
    ///
    /// When the feed holds this much, it reads no more input, and reads only the worker that owes the reply that the
    /// consumer waits for. A longer record is handled alone. A [`Block`] that was yielded belongs to the consumer and is not
    /// counted.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// A window in records, in addition to the one in bytes: at most this many records are given to workers and not yet
    /// yielded. Blocks are cut to fit. Default: no limit. Zero is a fatal error, which the feed yields.
    pub fn buffer(mut self, records: usize) -> Self {
        self.buffer = records;
        self
    }

    /// The order in which blocks are yielded. Default: [`Order::Input`]. Within a block, replies are always in the order of
    /// their records.
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// The number of the first record. Default: 0. Numbers wrap at `u64::MAX`.
    pub fn first_record(mut self, number: u64) -> Self {
        self.first_record = number;
        self
    }

    /// Writes one line for each record into this file: see
    /// [`FeedBuilder::job_log`](crate::FeedBuilder::job_log). A line costs far more time than a short record in a block.
    pub fn job_log(mut self, path: impl Into<PathBuf>) -> Self {
        self.watch.keep_job_log(path.into());
        self
    }

    /// Numbers of the caller's own for the column `Seq` of the [`job_log`](BlockFeedBuilder::job_log), if records have
    /// other numbers than their positions here, as when failed ones are fed again. The closure is given a record's number,
    /// counted from [`first_record`](BlockFeedBuilder::first_record), and runs on the event loop's thread. A panic in it ends
    /// the feed, and is resumed in `next()`.
    ///
    /// ```
    /// use subfeed::{Template, blocks};
    /// # let path = std::env::temp_dir().join(format!("subfeed-numbers-{}.log", std::process::id()));
    /// let known = [3, 8];
    /// let feed = blocks(&b"c\nh\n"[..]).feed(Template::new("cat")).workers(1);
    /// let feed = feed.job_log(&path).job_log_numbers(move |record| known[record as usize]).start();
    /// feed.finish()?;
    /// let log = std::fs::read_to_string(&path).unwrap();
    /// assert!(log.lines().skip(1).map(|line| &line[..2]).eq(["3\t", "8\t"]));
    /// # std::fs::remove_file(&path).unwrap();
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    pub fn job_log_numbers(mut self, number: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Self {
        self.watch.number_job_log(number);
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

    /// Starts now, and returns at once: the reader is read while the workers start.
    ///
    /// Does not panic and returns no error. If the configuration is wrong, the feed's only item is a fatal `Err` that names
    /// the setting.
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
        let end = spec.replies.written_end(delimiter);
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
/// record, between the blocks before and after it. Each record that was read is in exactly one item.
///
/// The number of records in a block depends on timing and means nothing; only the order of the records does.
///
/// If the reader fails, the last item is an `Err` of kind [`Source`](crate::ErrorKind::Source), after the replies to
/// everything that was read before. An incomplete record at that point is dropped; the error says how long it was.
///
/// # Dropping
/// As with [`Feed`](crate::Feed). If the reader blocks in a read, the drop does not wait for it; its thread ends when the
/// read returns.
///
/// # Panics
/// If the reader panics, `next` panics with the same payload, after the replies to what was read before. If `check`,
/// [`accept_status`](Template::accept_status), [`on_stderr`](Template::on_stderr),
/// [`job_log_numbers`](BlockFeedBuilder::job_log_numbers) or a custom framing panics, `next` panics with the same payload, and
/// the feed has ended.
#[must_use = "a feed that is not iterated stops as soon as it is dropped"]
pub struct BlockFeed {
    outlet: Outlet,
    stats: Arc<Stats>,
    /// What stands behind each reply where they are written one after the other.
    end: WrittenEnd,
    /// A [`BlockStopper`] has ended it.
    ended: Arc<AtomicBool>,
}

impl BlockFeed {
    pub(crate) fn new(outlet: Outlet, stats: Arc<Stats>, end: WrittenEnd) -> Self {
        Self { outlet, stats, end, ended: Arc::default() }
    }

    /// Writes the remaining replies to `out`, block by block, and returns the number of records. Does not flush.
    ///
    /// # Errors
    /// The error of a record that failed (an [`Error`] inside an [`io::Error`]: see [`io::Error::get_ref`]), a fatal
    /// error, or an error of the writer. The records before it have been written. After the error of a record, call it
    /// again to continue with the next record.
    ///
    /// # Panics
    /// As `next` does.
    pub fn copy_to<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<u64> {
        let mut records = 0;
        for block in self {
            let block = block?;
            block.write_to(out)?;
            records += block.len() as u64;
        }
        Ok(records)
    }

    /// A handle that ends the feed early, from any thread.
    pub fn stopper(&self) -> BlockStopper {
        BlockStopper { gate: Arc::clone(self.outlet.gate()), ended: Arc::clone(&self.ended) }
    }

    /// A handle that reports, from any thread and at any time, how the feed is doing.
    pub fn monitor(&self) -> Monitor {
        Monitor(Arc::clone(&self.stats))
    }

    /// See [`Feed::finish`](crate::Feed::finish).
    ///
    /// # Errors
    /// See there.
    pub fn finish(mut self) -> Result<Snapshot, Error> {
        take_rest(&mut self.outlet, |_| None::<Error>)?;
        Ok(self.monitor().snapshot())
    }
}

impl Iterator for BlockFeed {
    type Item = Result<Block, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let (packet, count, given) = self.outlet.next_whole()?;
        if self.ended.load(SeqCst) {
            // What still lies here may have a hole in front of it.
            return None;
        }
        Some(block(packet, count, given, &self.end))
    }
}

/// The item that so many records from this one on are.
pub(crate) fn block(
    packet: PacketId,
    count: u64,
    given: Given<Replies>,
    end: &WrittenEnd,
) -> Result<Block, Error> {
    match given {
        Given::Reply(replies) => Ok(Block::new(packet.0, count, replies, end)),
        Given::Failed(error) => Err(error),
        // Nothing passes here.
        Given::Passed => Err(Error::halted().at(packet.0)),
    }
}

impl FusedIterator for BlockFeed {}

impl fmt::Debug for BlockFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockFeed").field("monitor", &self.monitor()).finish_non_exhaustive()
    }
}

/// Ends a feed of blocks early, softly or at once, from any thread. Made by [`BlockFeed::stopper`].
///
/// ```
/// use subfeed::{Template, blocks};
/// let endless = std::io::repeat(b'\n');
/// let mut feed = blocks(endless).feed(Template::new("cat")).workers(2).start();
/// let stopper = feed.stopper();
/// assert!(feed.next().is_some());
/// stopper.stop();
/// // What had been read is answered; nothing more is read.
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
    /// Ends the feed softly: nothing more is read, and each record that is complete is answered. An incomplete record is
    /// dropped. If the reader blocks in a read, the feed does not wait for it.
    pub fn stop(&self) {
        self.gate.stop();
        self.gate.wake_executor();
    }

    /// Ends the feed at once, as a drop would: its workers are ended, and a thread that waits in `next` gets `None`.
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

/// The replies to consecutive records, in one piece of memory. The feed reuses that memory when the block is dropped.
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
    end: WrittenEnd,
    /// All of them as they are written, once somebody has asked for that.
    written: OnceLock<Box<[u8]>>,
}

impl Parts {
    fn bodies(&self, len: usize) -> impl Iterator<Item = &Range<usize>> {
        self.ranges.iter().skip(self.next).step_by(1 + self.sides).take(len)
    }

    fn written(&self, buffer: &[u8], len: usize) -> &[u8] {
        self.written.get_or_init(|| {
            let pieces = || {
                let bodies = self.bodies(len).map(|body| &buffer[body.clone()]);
                bodies.flat_map(|body| [body, self.end.behind(body)])
            };
            let mut bytes = Vec::with_capacity(pieces().map(<[u8]>::len).sum());
            pieces().for_each(|piece| bytes.extend_from_slice(piece));
            bytes.into()
        })
    }
}

impl Block {
    fn new(first: u64, count: u64, replies: Replies, end: &WrittenEnd) -> Self {
        let Replies { buffer, at, cut, .. } = replies;
        let len = usize::try_from(count).unwrap_or(usize::MAX);
        let pieces = match cut {
            Cut::Delimiter { find, per, .. } => Pieces::Delimited(find, per),
            Cut::Parts { ranges, next, sides } => {
                let (end, written) = (end.clone(), OnceLock::new());
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

    /// The number of records in the block.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Always `false`: there is no empty block.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The replies one by one, without their framing. `for_each` is faster than a `for` loop.
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

    /// All replies in one piece, each as the tool wrote it, with the line feed or delimiter that ends it. A reply that is
    /// framed by something else (a length, a marker) is followed by the delimiter of the records, unless that stood before
    /// the marker already. Nothing follows a reply that a sentinel or the end of the output has ended, or that has a fixed size.
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
    /// The error of the writer.
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
