//! Every number that was chosen for speed, with what was measured. Limits that are promised to users stand where
//! the promise is kept, not here.
//!
//! Unless another machine is named: two virtual processors (AMD EPYC), Linux 6.18, the benches of `benches/`,
//! interleaved with the build before. `docs/performance.md` has the figures that came of all of them together.

use std::time::Duration;

// The window.

/// A batch of so many bytes is handed over even if the executor does not ask for it.
///
/// 256 KiB made 7 % more at 100-byte records with two workers than the size before it.
pub(crate) const BATCH_BYTES: usize = 256 << 10;

/// The same in records: it bounds what the table of a batch of very short records takes. Not measured.
pub(crate) const BATCH_RECORDS: usize = 8 << 10;

/// A batch that has room for more bytes is not filled again. Otherwise one huge record would stay in memory for ever.
pub(crate) const LARGEST_SPARE_BATCH: usize = 2 * BATCH_BYTES;

/// Emptied batches that are kept to be filled again: 4 MiB at most. An endless feed of 100-byte records allocates
/// 0.0035 times a record with them.
pub(crate) const SPARE_BATCHES: usize = 16;

/// Blocks that were read and may wait for the event loop. Each is a read.
pub(crate) const BLOCKS_WAITING: usize = 4;

/// For so long the intake lets credits gather at most.
///
/// Longer than the tick of the usual kernels (4 ms): a timer that ends before the next tick costs a write to the
/// timer's hardware when it is set and another one when it is not needed any more.
pub(crate) const LINGER: Duration = Duration::from_millis(10);

/// With so many credits, or a quarter of the window, lingering has paid. Not measured.
pub(crate) const CREDITS_THAT_PAY: u64 = 8;

/// So often at most lingering is left out where it has not paid, before it is tried again. Not measured.
pub(crate) const LINGERS_LEFT_OUT: u32 = 1_024;

/// How often the consumer, and the event loop, let others run before they sleep.
///
/// Where all processors are busy, who answers then goes on for a time slice, and the sleeper finds what has gathered
/// meanwhile; asleep, it would be woken for the first record, at the cost of two switches. In the event loop it made 1.8
/// instead of 1.5 GB/s at 100 bytes and 38 instead of 28 M/s at 16 bytes. Where a processor is idle, it costs a microsecond.
pub(crate) const YIELDS: u32 = 4;

/// So many items of a stream are pulled in one poll at most, and so many bytes packed (or one item more): what a poll takes
/// of its thread must be little. Together they take 10 to 30 µs, most of it for the copy.
#[cfg(any(test, feature = "async"))]
pub(crate) const ITEMS_A_POLL: usize = 64;
#[cfg(any(test, feature = "async"))]
pub(crate) const BYTES_A_POLL: usize = 64 << 10;

/// So many spans are put in order in one poll at most. At 0.1 µs each, and ten times as much without optimization; a span is
/// a read's worth of replies, or one packet at worst.
#[cfg(any(test, feature = "async"))]
pub(crate) const SPANS_A_POLL: usize = 256;

// The event loop.

/// How often the event loop lets others run between two starts of workers, as long as the consumer waits for its first
/// item: once for the worker, which may have an answer by then, and once for the consumer.
///
/// With it the first reply of eight workers on one processor comes after 1.16 times what a start by hand takes; without
/// it, after 2.3 times, because the starts of all come first.
pub(crate) const YIELDS_A_START: u32 = 2;

/// Reads of one output in a row before the other sessions have their turn. 64 KiB each: as much as an enlarged pipe holds.
pub(crate) const READS_IN_A_ROW: usize = 4;

/// Slices in one vectored write. Requests of one session usually lie in one or two batches. Not measured.
pub(crate) const SLICES: usize = 16;

/// Batches of which the swarm takes no further one in a turn: what is in line already shares the turn's system calls. Not measured.
pub(crate) const BATCHES_A_TURN: usize = 4;

/// What the pipes of a feed of few workers are enlarged to.
///
/// With the kernel's 64 KiB the two ends take turns; with 256 KiB they overlap. 1 MiB gains nothing.
pub(crate) const PIPE_BYTES: i32 = 256 << 10;

/// The most workers whose pipes are enlarged. What the pipes of a user may hold in all is limited (64 MiB
/// where nobody has changed it), and once that is used up every new pipe of the user's, here and elsewhere,
/// gets two pages: so no feed takes more than an eighth.
pub(crate) const ENLARGED_WORKERS: usize = 16;

/// The room offered to one read, which is what a pipe holds by default. 128 and 256 KiB made no difference at 100 bytes.
pub(crate) const READ_BYTES: usize = 64 << 10;

/// Room in a block for what the read before it has left of a record: with it the next read is a whole one again.
pub(crate) const HALF_A_RECORD: usize = 4 << 10;

// Dispatch.

/// The most requests' bytes that are handed to a session in one go: two reads of the worker's.
pub(crate) const DISPATCH_BYTES: usize = 128 << 10;

/// Bytes that may wait to be written to a worker: what two writes take.
///
/// More would only lie there, and be out of the processor's cache when its turn comes: at 64 KiB a record 64 MiB
/// lay about without the bound, 3 MiB do with it, at 10 % more records a second.
pub(crate) const BACKLOG_BYTES: u64 = 128 << 10;

/// How much work, in time, may wait in a session. With it the makespans of the bench `scheduling` are
/// 1.03 to 1.04 of an ideal list schedule's.
pub(crate) const DEPTH_TIME: Duration = Duration::from_millis(5);

/// By how much a doubling of a session's depth must raise its rate to be worth another. Not measured.
pub(crate) const DEPTH_GAIN: f64 = 1.25;

/// A turn of a session is not judged before it lasted this long: the clock and the scheduler are coarser than that.
pub(crate) const SHORTEST_TURN: Duration = Duration::from_micros(100);

/// The stall delay divided by this is how long a session must have been quiet where what certainly waits is acted on at
/// once: 2 ms of 100. The first reply of a feed of two `jq` came after 40 ms instead of 110.
pub(crate) const FIRST_LOOK: u32 = 50;

// Threads.

/// Items on a worker's deque are to take about this long together. With it items of 1 us
/// make 0.93 of what `par_bridge` makes without an order.
#[cfg(feature = "threads")]
pub(crate) const DEQUE_TIME: Duration = Duration::from_micros(50);

/// The most items on a worker's deque. Not measured.
#[cfg(feature = "threads")]
pub(crate) const DEQUE_ITEMS: usize = 256;

/// After this long a worker in a pool lets the pool's other jobs have a turn. Not measured.
#[cfg(feature = "threads")]
pub(crate) const POOL_TURN: Duration = Duration::from_millis(1);

/// Full batches that may wait for the threads. Not measured.
#[cfg(feature = "threads")]
pub(crate) const BATCHES_WAITING: usize = 4;

// A function as a source.

/// Bytes of results that may wait to be written before the function pauses: what an enlarged pipe holds. A result that
/// is larger goes alone.
#[cfg(feature = "function-source")]
pub(crate) const UNWRITTEN_BYTES: usize = 256 << 10;
