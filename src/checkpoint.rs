//! Resuming: a file that records how far a run has come, so that the next run can continue from there.
//!
//! A [`Checkpoint`] is a file with one number: how many items of the input have been *acknowledged*. The next run skips
//! that many. It needs an ordered feed, in which item `k` is the answer to input `k`:
//!
//! ```
//! use subfeed::checkpoint::Checkpoint;
//! use subfeed::{FeedExt, Template};
//!
//! # let path = std::env::temp_dir().join(format!("subfeed-{}.done", std::process::id()));
//! # let mut squares = Vec::new();
//! let checkpoint = Checkpoint::open(&path, "squares of 1 to 5, version 1")?;
//! let done = checkpoint.count();
//! let template = Template::shell("while read -r n; do echo $((n * n)); done");
//! let feed = (1..=5)
//!     .map(|n| n.to_string())
//!     .skip(done as usize)
//!     .feed(template)
//!     .workers(2)
//!     .first_packet(done)
//!     .start()
//!     .checkpointed(checkpoint);
//! for square in feed {
//!     // The work on it must be finished, and durable, before the loop asks for the next one.
//!     squares.push(square?);
//! }
//! assert_eq!(squares, ["1", "4", "9", "16", "25"]);
//! assert_eq!(Checkpoint::open(&path, "squares of 1 to 5, version 1")?.count(), 5);
//! # std::fs::remove_file(&path).unwrap();
//! # Ok::<_, subfeed::Error>(())
//! ```
//!
//! # What is acknowledged
//! The next call of `next()`, or [`Checkpointed::ack`], acknowledges the item that was yielded last. So a loop
//! acknowledges an item when its body has run to the end. After `break`, `?` or a panic the item is not acknowledged, and
//! comes again in the next run. An `Err` that the loop continues after is acknowledged like any item, and does not come
//! again. A fatal error, and all items after it, are never acknowledged, because that work was not done.
//!
//! A consumer that counts for itself may leave out what has failed, and try it again in a later run: see
//! [`Checkpoint::acknowledge_range`].
//!
//! # After a crash
//! No item is skipped. Items that were acknowledged but not yet written to the file come again, and so does the item that
//! was being worked on. [`every`](Checkpoint::every) limits their number; by default the count is written once a second.
//! It is written inside `next()` when a limit is reached, at the end of the feed, and when the iterator is dropped. The
//! count goes into a new file, which is synced and renamed over the old one, and then the folder is synced. So a crash
//! leaves either the old count or the new one. One write takes two syncs of the disk, often some milliseconds.
//!
//! The new file has the name of the old one with `.new` behind it; if a file of that name is there that is no checkpoint,
//! this is an error. If the path is a symbolic link, the file that it leads to is replaced.
//!
//! Only one run may use a checkpoint at a time. This is not checked.
//!
//! # Other feeds
//! `checkpointed` is on the ordered feeds that yield `Result`s. Feeds with markers, feeds in a scope, blocks and streams yield
//! something else, or yield it elsewhere; for them the loop counts by itself, with [`Checkpoint::acknowledge`]:
//!
//! ```
//! use subfeed::checkpoint::Checkpoint;
//! use subfeed::marker::Marked;
//! use subfeed::{FeedExt, Template};
//!
//! # let path = std::env::temp_dir().join(format!("subfeed-{}.marked", std::process::id()));
//! let mut checkpoint = Checkpoint::open(&path, "words and the ends of files")?;
//! let done = checkpoint.count();
//! let source = [Marked::Item("one"), Marked::Marker("end of a file"), Marked::Item("two")];
//! let source = source.into_iter().skip(done as usize);
//! for item in source.feed_marked(Template::new("cat")).first_packet(done).start() {
//!     match item {
//!         Marked::Item(reply) => drop(reply?),
//!         Marked::Marker(end) => assert_eq!(end, "end of a file"),
//!     }
//!     checkpoint.acknowledge(1)?;
//! }
//! checkpoint.settle()?;
//! assert_eq!(checkpoint.count(), 3);
//! # std::fs::remove_file(&path).unwrap();
//! # Ok::<_, subfeed::Error>(())
//! ```

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::iter::FusedIterator;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};
use crate::feed::through::TryFeed;
use crate::feed::with_input::FeedWithInput;
use crate::feed::{Feed, HasOutlet, Running};
use crate::files::{self, Pipes};
use crate::stats::{Monitor, Snapshot};
use crate::template::codec::Decode;

/// The first line of the file.
const MAGIC: &str = "subfeed checkpoint 1";

/// A run that leaves more gaps than this is not worth going on with: the file is written anew each time.
const MOST_GAPS: usize = 1 << 16;

/// A longer key is a mistake: it is read as a whole.
const LONGEST_KEY: usize = 64 << 10;

/// No checkpoint is longer: the key has two digits for each byte, and a gap has two numbers.
const LONGEST_FILE: u64 = 8 << 20;

/// The number of acknowledged items, kept in a file. See the [module](self).
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    /// The file that the path leads to.
    file: PathBuf,
    key: Vec<u8>,
    done: Done,
    /// Items that were acknowledged and are not written down.
    fresh: u64,
    written_at: Instant,
    items: u64,
    time: Duration,
}

/// The positions that were acknowledged: all below `count`, but for those in the gaps.
///
/// # Invariants
/// 1. A gap, the position at which it begins and the one behind its end, is not empty and ends below `count`.
/// 2. Gaps neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Done {
    count: u64,
    gaps: BTreeMap<u64, u64>,
}

impl Done {
    /// Acknowledges these positions. Says of how many of them that is news.
    fn insert(&mut self, Range { start, end }: Range<u64>) -> u64 {
        if start >= end {
            return 0;
        }
        let mut news = end.saturating_sub(start.max(self.count));
        let touched = self.gaps.range(..end).rev().take_while(|&(_, &to)| to > start);
        let touched: Vec<_> = touched.map(|(&from, &to)| (from, to)).collect();
        for (from, to) in touched {
            self.gaps.remove(&from);
            news += to.min(end) - from.max(start);
            if from < start {
                self.gaps.insert(from, start);
            }
            if end < to {
                self.gaps.insert(end, to);
            }
        }
        if self.count < start {
            self.gaps.insert(self.count, start);
        }
        self.count = self.count.max(end);
        news
    }

    /// Whether it makes a gap, or two of one.
    fn has_one_gap_more_with(&self, items: &Range<u64>) -> bool {
        let around = self.gaps.range(..items.start).next_back();
        let splits = around.is_some_and(|(_, &to)| items.end < to);
        !items.is_empty() && (items.start > self.count || splits)
    }

    /// From a count and the gaps below it, as [`text`] writes them.
    fn read(count: u64, gaps: &str) -> Option<Self> {
        let mut done = Self { count, gaps: BTreeMap::new() };
        let mut free = 0;
        for gap in gaps.split_ascii_whitespace() {
            let (from, to) = gap.split_once("..")?;
            let (from, to) = (from.parse().ok()?, to.parse().ok()?);
            if from < free || from >= to || to >= count {
                return None;
            }
            free = to + 1;
            done.gaps.insert(from, to);
        }
        Some(done)
    }
}

impl Checkpoint {
    /// Opens the file, or creates it with a count of 0. What is there must be a regular file: a pipe or a device is an
    /// error.
    ///
    /// `key` identifies the run: any bytes that change when the input or the work changes, such as the name, size and
    /// date of the input file. A file with another key is an error, so that a run cannot continue a different one.
    ///
    /// # Errors
    /// Of kind [`File`](ErrorKind::File): the folder does not exist or cannot be written to; the file has another key, is
    /// empty or truncated, is no regular file, or is not a checkpoint; or what has its name with `.new` is not one. Of kind
    /// [`Config`](ErrorKind::Config): the key is longer than 64 KiB.
    pub fn open(path: impl Into<PathBuf>, key: impl AsRef<[u8]>) -> Result<Self, Error> {
        let (path, key) = (path.into(), key.as_ref().to_vec());
        if key.len() > LONGEST_KEY {
            let message =
                format!("the key of a checkpoint has {} bytes, and may have 64 KiB", key.len());
            return Err(Error::config(message).hint("take a digest of it"));
        }
        let done = match contents(&path)? {
            Some(bytes) => read(&path, &bytes, &key)?,
            None => Done::default(),
        };
        let file = target(&path).map_err(|error| failed(&path, "cannot be read").because(error))?;
        let mut checkpoint = Self {
            path,
            file,
            key,
            done,
            fresh: 0,
            written_at: Instant::now(),
            items: u64::MAX,
            time: Duration::from_secs(1),
        };
        // What cannot be written is to be known now, and not when there is something to lose.
        checkpoint.write()?;
        Ok(checkpoint)
    }

    /// How many items have been acknowledged, in this run and all runs before it: skip this many. If there are
    /// [gaps](Self::gaps), this is the position behind the last item that was acknowledged.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.done.count
    }

    /// The positions below [`count`](Self::count) that were not acknowledged: what
    /// [`acknowledge_range`](Self::acknowledge_range) has left out.
    pub fn gaps(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.done.gaps.iter().map(|(&from, &to)| from..to)
    }

    /// When the count is written to the file: after `items` more acknowledged items, or at the first acknowledgement after
    /// `time` has passed. Default: after one second, whatever the number of items. With 1 item (or 0), or a time of zero,
    /// the count is written before each next item is yielded.
    #[must_use]
    pub fn every(mut self, items: u64, time: Duration) -> Self {
        (self.items, self.time) = (items.max(1), time);
        self
    }

    /// Acknowledges `items` more items. For consumers without a [`Checkpointed`] feed, such as those of a feed of
    /// [`blocks`](crate::blocks), which finish a block at a time. They are written to the file as
    /// [`every`](Self::every) says.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn acknowledge(&mut self, items: u64) -> Result<(), Error> {
        let count = self.done.count;
        self.acknowledge_range(count..count.saturating_add(items))
    }

    /// The items at these positions, counted from 0, are done with, in whatever order that comes: for a run that goes past
    /// what has failed and is to try it again later. What was not acknowledged in front of it is a [gap](Self::gaps),
    /// until it is acknowledged too. It is written down as [`every`](Self::every) says.
    ///
    /// ```
    /// use subfeed::checkpoint::Checkpoint;
    /// # let path = std::env::temp_dir().join(format!("subfeed-gaps-{}", std::process::id()));
    /// let mut checkpoint = Checkpoint::open(&path, "a run")?;
    /// checkpoint.acknowledge_range(0..4)?;
    /// // Items 4 and 5 have failed.
    /// checkpoint.acknowledge_range(6..9)?;
    /// drop(checkpoint);
    /// // The next run tries them again, and goes on with item 9.
    /// let mut checkpoint = Checkpoint::open(&path, "a run")?;
    /// assert_eq!((checkpoint.gaps().collect::<Vec<_>>(), checkpoint.count()), (vec![4..6], 9));
    /// checkpoint.acknowledge_range(4..6)?;
    /// assert_eq!(checkpoint.gaps().count(), 0);
    /// # std::fs::remove_file(&path).unwrap();
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    ///
    /// # Errors
    /// It was to be written down and could not be; or it would be one of more than 65,536 gaps: then it is not
    /// acknowledged.
    pub fn acknowledge_range(&mut self, items: Range<u64>) -> Result<(), Error> {
        if self.done.gaps.len() >= MOST_GAPS && self.done.has_one_gap_more_with(&items) {
            let what = format!("has {MOST_GAPS} gaps, and no room for one more");
            let error = failed(&self.path, &what);
            return Err(error.hint("too much has failed: the run is not worth going on with"));
        }
        self.fresh += self.done.insert(items);
        if self.fresh > 0 && (self.fresh >= self.items || self.written_at.elapsed() >= self.time) {
            return self.settle();
        }
        Ok(())
    }

    /// Writes the count to the file now, if it has changed.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn settle(&mut self) -> Result<(), Error> {
        if self.fresh == 0 { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<(), Error> {
        let text = text(&self.key, &self.done);
        let beside = beside(&self.file);
        replace(&self.file, &beside, text.as_bytes()).map_err(|error| {
            let is_foreign = error.kind() == io::ErrorKind::AlreadyExists;
            let error = failed(&self.path, "cannot be written").because(error);
            if !is_foreign {
                return error;
            }
            let beside = beside.display();
            error.hint(format!(
                "it is written as `{beside}` first, and a file of that name is there that is no checkpoint: move it away"
            ))
        })?;
        self.fresh = 0;
        self.written_at = Instant::now();
        Ok(())
    }
}

/// Writes the count to the file. If that fails, the error is lost, and the items come again in the next run.
impl Drop for Checkpoint {
    fn drop(&mut self) {
        let _ = self.settle();
    }
}

fn failed(path: &Path, what: &str) -> Error {
    Error::new(ErrorKind::File, format!("the checkpoint `{}` {what}", path.display())).fatal()
}

/// What is in the file, if there is one.
fn contents(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let unreadable = |error| failed(path, "cannot be read").because(error);
    match fs::metadata(path) {
        // A device may have no end, and would be replaced by the first write.
        Ok(about) if !about.is_file() => Err(failed(path, "is no regular file")),
        Ok(_) => {
            let file = files::open(path, OpenOptions::new().read(true), Pipes::Refused);
            let mut bytes = Vec::new();
            let read = file.and_then(|file| file.take(LONGEST_FILE).read_to_end(&mut bytes));
            read.map_err(unreadable)?;
            Ok(Some(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(error)),
    }
}

/// The file at the end of a chain of symbolic links, also if it does not exist yet.
fn target(path: &Path) -> io::Result<PathBuf> {
    let mut path = std::path::absolute(path)?;
    loop {
        match fs::canonicalize(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Links that lead in a circle are an error here.
            found => return found,
        }
        match fs::read_link(&path) {
            Ok(to) => path = path.parent().unwrap_or(&path).join(to),
            Err(_) => return Ok(path),
        }
    }
}

/// Where the next version of a file is written.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(".new");
    path.with_file_name(name)
}

/// Puts bytes in the place of a file, so that after a crash there is the old file or the new one. They are written beside it
/// first; that what is there already is not ours is an error of the kind `AlreadyExists`.
fn replace(path: &Path, beside: &Path, bytes: &[u8]) -> io::Result<()> {
    let create = || File::create_new(beside);
    let mut file = match create() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && was_left_by_us(beside) => {
            fs::remove_file(beside)?;
            create()?
        }
        other => other?,
    };
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(beside, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Whether a file is the beginning of a checkpoint, which a crash has left behind.
fn was_left_by_us(path: &Path) -> bool {
    let is_file = fs::symlink_metadata(path).is_ok_and(|about| about.is_file());
    let mut begins = Vec::new();
    let file = is_file.then(|| files::open(path, OpenOptions::new().read(true), Pipes::Refused));
    let read = file.map(|file| file?.take(MAGIC.len() as u64).read_to_end(&mut begins));
    matches!(read, Some(Ok(_))) && MAGIC.as_bytes().starts_with(&begins)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// FNV-1a, which sees a file that was cut off or changed by mistake.
fn sum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, &byte: &u8| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

fn text(key: &[u8], done: &Done) -> String {
    let mut body = format!("{MAGIC}\nkey {}\ncount {}\n", hexadecimal(key), done.count);
    if !done.gaps.is_empty() {
        body.push_str("gaps");
        for (from, to) in &done.gaps {
            // Writing into a string does not fail.
            let _ = write!(body, " {from}..{to}");
        }
        body.push('\n');
    }
    let sum = sum(body.as_bytes());
    format!("{body}sum {sum:016x}\n")
}

/// What is done, by a file.
fn read(path: &Path, bytes: &[u8], key: &[u8]) -> Result<Done, Error> {
    if bytes.is_empty() {
        let error = failed(path, "is an empty file, and says nothing of how far a run has come");
        return Err(error.hint("remove it to begin anew"));
    }
    let begins = bytes.len().min(MAGIC.len());
    if bytes[..begins] != MAGIC.as_bytes()[..begins] {
        let error = failed(path, "is no checkpoint: it begins with something else");
        return Err(error.hint("it was left as it is; take another path"));
    }
    let cut_off = || {
        let error = failed(path, "is cut off, or was changed");
        error.hint("if it is a copy, copy it again; if not, the run must begin anew: remove it")
    };
    let whole = std::str::from_utf8(bytes).ok().and_then(|text| {
        let (body, sum_line) = text.strip_suffix('\n')?.rsplit_once('\n')?;
        let body = format!("{body}\n");
        let stated = u64::from_str_radix(sum_line.strip_prefix("sum ")?, 16).ok()?;
        (stated == sum(body.as_bytes())).then_some(body)
    });
    let body = whole.ok_or_else(cut_off)?;
    let mut lines = body.lines().skip(1);
    let theirs = lines.next().and_then(|line| line.strip_prefix("key "));
    let count = lines.next().and_then(|line| line.strip_prefix("count ")?.parse().ok());
    let gaps = match lines.next() {
        Some(line) => line.strip_prefix("gaps "),
        None => Some(""),
    };
    let done = count.zip(gaps).and_then(|(count, gaps)| Done::read(count, gaps));
    let (Some(theirs), Some(done)) = (theirs, done) else { return Err(cut_off()) };
    if theirs != hexadecimal(key) {
        let error = failed(path, "is of another run: its key is another one");
        return Err(error.hint("take a path of its own for each run, or remove it to begin anew"));
    }
    Ok(done)
}

/// A feed whose items are acknowledged. Made by [`Feed::checkpointed`]; see the [module](self).
#[must_use = "a feed that is not iterated stops as soon as it is dropped"]
pub struct Checkpointed<F> {
    feed: F,
    checkpoint: Checkpoint,
    /// The item that was yielded last is not acknowledged.
    open: bool,
    /// Why this feed cannot be checkpointed, or why its count could not be written down.
    problem: Option<Error>,
    ended: bool,
}

impl<D: Decode> Feed<D> {
    /// Records in a file how many items the consumer has finished, so that a later run can continue from there; see
    /// [`checkpoint`](crate::checkpoint).
    ///
    /// # Errors
    /// The only item is a fatal `Err` of kind [`Config`](ErrorKind::Config) if the feed is not ordered, because a count
    /// then does not say which packets are finished, if its [first packet](crate::FeedBuilder::first_packet) is not the
    /// count of the checkpoint, or if the checkpoint has [gaps](Checkpoint::gaps). If the file cannot be written, the next
    /// item is a fatal `Err` of kind [`File`](ErrorKind::File).
    pub fn checkpointed(self, checkpoint: Checkpoint) -> Checkpointed<Self> {
        begin(self, checkpoint)
    }
}

impl<T, D: Decode> FeedWithInput<T, D> {
    /// See [`Feed::checkpointed`].
    pub fn checkpointed(self, checkpoint: Checkpoint) -> Checkpointed<Self> {
        begin(self, checkpoint)
    }
}

impl<D: Decode, X: From<Error>> TryFeed<D, X> {
    /// See [`Feed::checkpointed`]. Errors of the source count like other items.
    pub fn checkpointed(self, checkpoint: Checkpoint) -> Checkpointed<Self> {
        begin(self, checkpoint)
    }
}

/// Looks whether a feed and a checkpoint go together.
fn begin<F: HasOutlet>(feed: F, checkpoint: Checkpoint) -> Checkpointed<F> {
    let count = checkpoint.count();
    let problem = match feed.outlet().next_in_order() {
        _ if checkpoint.gaps().next().is_some() => Some(
            Error::config("the checkpoint has gaps, and a feed goes on behind them")
                .hint("feed what Checkpoint::gaps gives first, and acknowledge it by acknowledge_range"),
        ),
        Some(next) if next.0 == count => None,
        Some(next) => Some(
            Error::config(format!(
                "the checkpoint counts {count} items, and packet {} comes next of this feed",
                next.0
            ))
            .hint(format!("skip as many items of the source, and say first_packet({count})")),
        ),
        None => Some(
            Error::config(
                "replies come as they complete, and a checkpoint only counts: which packets are done would not be known",
            )
            .hint("leave the order at Order::Input"),
        ),
    };
    Checkpointed { feed, checkpoint, open: false, problem, ended: false }
}

impl<F> Checkpointed<F> {
    /// Acknowledges the item that was yielded last, before the next one is asked for. A second call has no effect.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn ack(&mut self) -> Result<(), Error> {
        if std::mem::take(&mut self.open) { self.checkpoint.acknowledge(1) } else { Ok(()) }
    }

    /// How many items have been acknowledged, in this run and all runs before it.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.checkpoint.count()
    }

    /// See [`Feed::monitor`].
    pub fn monitor(&self) -> Monitor
    where
        F: Running,
    {
        self.feed.monitor()
    }

    /// Discards the remaining items without acknowledging them, and writes the count to the file. See [`Feed::finish`].
    ///
    /// # Errors
    /// As there; or the file could not be written.
    pub fn finish(self) -> Result<Snapshot, Error>
    where
        F: Running<Failure = Error>,
    {
        let Self { feed, mut checkpoint, problem, .. } = self;
        match problem {
            Some(problem) => Err(problem),
            None => {
                checkpoint.settle()?;
                feed.finish()
            }
        }
    }

    /// The one error of a feed that cannot go on.
    fn fail(&mut self, error: Error) -> Error
    where
        F: HasOutlet,
    {
        self.ended = true;
        self.feed.outlet().gate().drop_feed();
        error
    }
}

impl<F, O, X> Iterator for Checkpointed<F>
where
    F: HasOutlet + Iterator<Item = Result<O, X>>,
    X: From<Error>,
{
    type Item = Result<O, X>;

    fn next(&mut self) -> Option<Result<O, X>> {
        if self.ended {
            return None;
        }
        if let Err(error) = self.ack() {
            self.problem = Some(error);
        }
        if let Some(problem) = self.problem.take() {
            return Some(Err(self.fail(problem).into()));
        }
        match self.feed.next() {
            Some(item) => {
                // What a fatal error has left unanswered comes again.
                self.open = !self.feed.outlet().is_cut_short();
                Some(item)
            }
            None => {
                self.ended = true;
                match self.checkpoint.settle() {
                    Ok(()) => None,
                    Err(error) => Some(Err(self.fail(error).into())),
                }
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        if self.ended {
            return (0, Some(0));
        }
        // One error may come in the place of what is left, or behind it.
        let (_, most) = self.feed.size_hint();
        (0, most.and_then(|most| most.checked_add(1)))
    }
}

impl<F> FusedIterator for Checkpointed<F> where Self: Iterator {}

impl<F: fmt::Debug> fmt::Debug for Checkpointed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpointed")
            .field("feed", &self.feed)
            .field("checkpoint", &self.checkpoint)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn gaps(done: &Done) -> Vec<Range<u64>> {
        done.gaps.iter().map(|(&from, &to)| from..to).collect()
    }

    #[test]
    fn every_position_below_the_count_is_acknowledged_or_in_a_gap_whatever_the_order() {
        let mut seed = 7_u64;
        let mut random = |below: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..300 {
            let (mut done, mut expected) = (Done::default(), BTreeSet::new());
            for _ in 0..random(30) {
                let start = random(40);
                let range = start..start + random(8);
                let (before, gaps_before) = (expected.len(), done.gaps.len());
                expected.extend(range.clone());
                let one_more = done.has_one_gap_more_with(&range);
                assert_eq!(done.insert(range), (expected.len() - before) as u64);
                assert_eq!(one_more, done.gaps.len() > gaps_before);
                let in_gaps: BTreeSet<u64> = gaps(&done).into_iter().flatten().collect();
                let all: BTreeSet<u64> = in_gaps.union(&expected).copied().collect();
                assert!(in_gaps.is_disjoint(&expected) && all.into_iter().eq(0..done.count));
                let ends: Vec<_> = gaps(&done);
                assert!(ends.windows(2).all(|two| two[0].end < two[1].start), "{ends:?}");
                assert!(ends.iter().all(|gap| gap.start < gap.end && gap.end < done.count));
                let path = Path::new("of-a-test");
                assert_eq!(read(path, text(b"k", &done).as_bytes(), b"k").unwrap(), done);
            }
        }
    }

    #[test]
    fn gaps_that_make_no_sense_are_refused() {
        for good in ["", "0..1", "0..1 2..4 8..9"] {
            assert!(Done::read(10, good).is_some(), "{good}");
        }
        for bad in ["x", "1", "1..", "2..2", "3..2", "0..10", "0..2 2..3", "4..5 1..2", "-1..2"] {
            assert!(Done::read(10, bad).is_none(), "{bad}");
        }
    }
}
