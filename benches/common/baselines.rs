//! What subfeed is compared with: the same work without it, by hand or by another tool.
//!
//! Each of these is written by someone who wants it to win: 64 KiB I/O, no copy that can be saved,
//! clocks that leave start-up noise out where that is fair. What was tried and measured to be
//! slower is said beside what was kept. They are frozen: a change here moves every published
//! ratio, so it needs a reason of its own.
//!
//! | function | what it is | bounded by |
//! |---|---|---|
//! | [`raw_pipe`] | bytes through k `cat`s, one thread, no framing: the physical limit | four copies of each byte on the CPUs there are |
//! | [`ping_pong`] | one line to one `cat` and back, again and again | two pipe wake-ups |
//! | [`lockstep_pariter`], [`lockstep_rayon`] | one `cat` per worker thread, a line and its reply at a time | two wake-ups per record and thread |
//! | [`careful`] | a blocking writer and a blocking reader thread per child, window, reorder ring | one allocation per reply, freed on another thread; switches among 2k + 1 threads |
//! | [`careful_by_record`] | the same with a record at a time over channels | three channel operations per record, as well |
//! | [`gnu_parallel`] | GNU parallel splitting its stdin | one Perl process, and output that passes through files |
//! | [`python_subfeed`] | the Python package of the same name | the interpreter lock, a queue operation and a flush per item |
//! | [`process_per_record`] | `std::process::Command` for every record | spawn and exit of a process |
//! | [`first_reply`] | spawn by hand until the first reply | spawn, exec, dynamic linking of `cat` |
//! | [`list_schedule`] | the makespan of a perfect greedy scheduler | the work itself |
//!
//! Children are always `cat` (GNU's copies in 128 KiB pieces and never holds a line back), except
//! the sleeping ones, which are this binary again: see [`serve_if_asked`].
//!
//! A line of N bytes is N bytes on the wire, line feed included. Rates count the bytes of the
//! requests; as many come back. A clock starts before the children are spawned and stops when the
//! last reply is in the consumer's hands; closing and reaping are after it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ffi::OsString;
use std::hint::black_box;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::iter;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd;
use pariter::IteratorExt as _;
use rayon::prelude::*;

/// One read or write.
pub(super) const IO: usize = 64 * 1024;

/// What a pipe is enlarged to where a baseline gains from it: with the kernel's own 64 KiB both
/// ends take turns, with this much they overlap. More (up to 1 MiB) is no faster.
pub(super) const BIG_PIPE: i32 = 256 * 1024;

/// Records that are all the same: `record` for those who add the line feed themselves, `wire` for
/// those who do not, and whole lines, about 64 KiB of them, for those who only move bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines {
    pub(crate) record: &'static [u8],
    pub(crate) wire: &'static [u8],
    pub(crate) block: &'static [u8],
}

impl Lines {
    /// Lines of `bytes` bytes each, the line feed included. The memory is leaked: it is to be
    /// `'static`, and a bench makes a handful.
    pub(crate) fn of(bytes: usize) -> Self {
        assert!(bytes > 1, "a line of {bytes} bytes");
        let mut wire = vec![b'x'; bytes - 1];
        wire.push(b'\n');
        let wire: &'static [u8] = wire.leak();
        let block: &'static [u8] = wire.repeat((IO / bytes).max(1)).leak();
        Lines { record: &wire[..bytes - 1], wire, block }
    }

    /// Records of `bytes` bytes behind a `u32` big-endian length, `record` being the bare one.
    pub(crate) fn length_prefixed(bytes: u32) -> Self {
        let mut wire = bytes.to_be_bytes().to_vec();
        wire.resize(4 + bytes as usize, b'x');
        let wire: &'static [u8] = wire.leak();
        let block: &'static [u8] = wire.repeat((IO / wire.len()).max(1)).leak();
        Lines { record: &wire[4..], wire, block }
    }

    /// The record `count` times: the source of every figure, unless it says otherwise.
    pub(crate) fn records(
        self,
        count: u64,
    ) -> impl Iterator<Item = &'static [u8]> + Send + 'static {
        iter::repeat_n(self.record, usize::try_from(count).expect("a count of records"))
    }

    /// How many records make this many bytes on the wire, at least one.
    pub(crate) fn count_for(self, bytes: u64) -> u64 {
        (bytes / self.wire.len() as u64).max(1)
    }
}

/// Work done, and how long it took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) wall: Duration,
}

impl Run {
    pub(crate) fn bytes_per_s(self) -> f64 {
        self.bytes as f64 / self.wall.as_secs_f64()
    }

    pub(crate) fn records_per_s(self) -> f64 {
        self.records as f64 / self.wall.as_secs_f64()
    }
}

/// Latencies one by one.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(pub(crate) Vec<Duration>);

impl Latencies {
    /// The median in seconds, for a bench's closure.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted[sorted.len() / 2].as_secs_f64()
    }

    /// The mean in seconds: total over count, which is what a loop with one clock would see.
    pub(crate) fn mean(&self) -> f64 {
        self.0.iter().sum::<Duration>().as_secs_f64() / self.0.len() as f64
    }
}

/// A peer that cannot be run here, and why.
#[derive(Clone, Debug)]
pub(crate) struct Missing(pub(crate) String);

// ---------------------------------------------------------------------------------------------
// A child with two pipes

/// A `cat` with both ends piped, closed and reaped when dropped.
struct Cat {
    /// Taken to close it.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    child: Child,
    /// The request with its line feed, so that it goes out in one write.
    request: Vec<u8>,
}

impl Cat {
    fn spawn() -> Self {
        let (child, stdin, stdout) = spawn_piped(&mut Command::new("cat"));
        let stdout = BufReader::with_capacity(IO, stdout);
        Cat { stdin: Some(stdin), stdout, child, request: Vec::new() }
    }

    fn send(&mut self, record: &[u8]) {
        self.request.clear();
        self.request.extend_from_slice(record);
        self.request.push(b'\n');
        let stdin = self.stdin.as_mut().expect("open until dropped");
        stdin.write_all(&self.request).expect("write to cat");
    }

    /// A line and its reply, which the caller owns.
    fn ask(&mut self, record: &[u8]) -> Vec<u8> {
        self.send(record);
        let mut reply = Vec::with_capacity(record.len() + 1);
        self.stdout.read_until(b'\n', &mut reply).expect("read from cat");
        assert_eq!(reply.pop(), Some(b'\n'), "cat ended early");
        reply
    }
}

impl Drop for Cat {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

pub(super) fn spawn_piped(command: &mut Command) -> (Child, ChildStdin, ChildStdout) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    let stdin = child.stdin.take().expect("stdin is piped");
    let stdout = child.stdout.take().expect("stdout is piped");
    (child, stdin, stdout)
}

/// Best effort: a user over the limit for pipe pages is refused, and the pipe stays as it is.
pub(super) fn enlarge(pipe: impl AsFd, bytes: i32) {
    let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(bytes));
}

pub(super) fn set_nonblocking(pipe: impl AsFd) {
    let flags = fcntl(pipe.as_fd(), FcntlArg::F_GETFL).expect("F_GETFL of a pipe");
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(pipe, FcntlArg::F_SETFL(flags)).expect("F_SETFL of a pipe");
}

// ---------------------------------------------------------------------------------------------
// The physical limit

/// Whether a baseline leaves its pipes as the kernel makes them (64 KiB) or enlarges them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pipes {
    AsTheyCome,
    Enlarged,
}

/// The raw pipe: `records` records of `lines`, as nothing but bytes, through `children` `cat`s and
/// back, by one thread with a non-blocking loop. No framing, no record is ever looked at, nothing
/// is copied in user space, whoever has room gets the next bytes: what is left is the kernel's
/// copying, so this is the limit for anything that talks to children through pipes.
///
/// Edge-triggered epoll, and the kernel is asked only when every end has said `EAGAIN`. Measured
/// against it, with enlarged pipes: asking before every turn (level-triggered poll) a third
/// slower, poll instead of epoll the same or 10 % slower, `vmsplice` a quarter slower, 128 KiB
/// buffers 5 % slower, one, three or four children and CPU pinning the same, a blocking thread
/// for each end 10 % slower. With pipes as they come the limit is the taking of turns, not the
/// copying: enlarging them gains 40 to 70 % on a quiet machine, little on a busy one.
pub(crate) fn raw_pipe(lines: Lines, records: u64, children: usize, pipes: Pipes) -> Run {
    struct Cat {
        child: Child,
        stdin: ChildStdin,
        stdout: ChildStdout,
        /// Where in the block this child is.
        at: usize,
        may_write: bool,
        may_read: bool,
    }

    // Not whole lines, but whole pages: a write then fills its pages to the brim.
    let source: Vec<u8> = lines.block.iter().copied().cycle().take(IO).collect();
    let mut replies = vec![0; IO];
    let total = records * lines.wire.len() as u64;
    let (mut to_write, mut to_read) = (total, total);

    let start = Instant::now();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("an epoll instance");
    let mut cats: Vec<Cat> = (0..children as u64)
        .map(|index| {
            let (child, stdin, stdout) = spawn_piped(&mut Command::new("cat"));
            set_nonblocking(&stdin);
            set_nonblocking(&stdout);
            if pipes == Pipes::Enlarged {
                enlarge(&stdin, BIG_PIPE);
                enlarge(&stdout, BIG_PIPE);
            }
            let edge = |flags, key| EpollEvent::new(flags | EpollFlags::EPOLLET, key);
            epoll.add(&stdin, edge(EpollFlags::EPOLLOUT, 2 * index)).expect("watch stdin");
            epoll.add(&stdout, edge(EpollFlags::EPOLLIN, 2 * index + 1)).expect("watch stdout");
            Cat { child, stdin, stdout, at: 0, may_write: true, may_read: true }
        })
        .collect();
    let mut events = vec![EpollEvent::empty(); 2 * children];

    while to_read > 0 {
        let mut idle = true;
        for cat in &mut cats {
            if cat.may_read {
                match unistd::read(&cat.stdout, &mut replies) {
                    Ok(0) => panic!("cat ended early"),
                    Ok(n) => {
                        to_read -= n as u64;
                        idle = false;
                    }
                    Err(Errno::EAGAIN) => cat.may_read = false,
                    Err(Errno::EINTR) => {}
                    Err(error) => panic!("read from cat: {error}"),
                }
            }
            if cat.may_write && to_write > 0 {
                let rest = (IO - cat.at).min(usize::try_from(to_write).unwrap_or(IO));
                match unistd::write(&cat.stdin, &source[cat.at..cat.at + rest]) {
                    Ok(n) => {
                        to_write -= n as u64;
                        cat.at = (cat.at + n) % IO;
                        idle = false;
                    }
                    Err(Errno::EAGAIN) => cat.may_write = false,
                    Err(Errno::EINTR) => {}
                    Err(error) => panic!("write to cat: {error}"),
                }
            }
        }
        if idle && to_read > 0 {
            let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => 0,
                Err(error) => panic!("epoll_wait: {error}"),
            };
            for event in &events[..ready] {
                let cat = &mut cats[(event.data() / 2) as usize];
                if event.data() % 2 == 0 {
                    cat.may_write = true;
                } else {
                    cat.may_read = true;
                }
            }
        }
    }
    let wall = start.elapsed();

    for Cat { mut child, stdin, stdout, .. } in cats {
        drop((stdin, stdout));
        let _ = child.wait();
    }
    Run { records, bytes: total, wall }
}

// ---------------------------------------------------------------------------------------------
// Latency

/// Write-then-read of one `cat`: the latency of each of `rounds` round trips, after some that are
/// not counted. Blocking pipes, one system call each way, no allocation.
pub(crate) fn ping_pong(record: &[u8], rounds: usize) -> Latencies {
    round_trips(record, rounds, || {})
}

/// The same with a pause before each record, as a slow input would make. The pause is no part of
/// the latency; that everything has gone to sleep in it is.
pub(crate) fn ping_pong_paced(record: &[u8], rounds: usize, pace: Duration) -> Latencies {
    let mut due = Instant::now();
    round_trips(record, rounds, || {
        due += pace;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    })
}

fn round_trips(record: &[u8], rounds: usize, mut before_each: impl FnMut()) -> Latencies {
    let (mut child, mut stdin, mut stdout) = spawn_piped(&mut Command::new("cat"));
    let mut request = record.to_vec();
    request.push(b'\n');
    let mut reply = vec![0; IO];
    let mut round_trip = || {
        let start = Instant::now();
        stdin.write_all(&request).expect("write to cat");
        let mut have = 0;
        while have < request.len() {
            match stdout.read(&mut reply[have..]).expect("read from cat") {
                0 => panic!("cat ended early"),
                n => have += n,
            }
        }
        let took = start.elapsed();
        assert_eq!(reply[have - 1], b'\n', "a reply is one line");
        took
    };
    for _ in 0..(rounds / 10).clamp(3, 1_000) {
        round_trip();
    }
    let latencies = (0..rounds)
        .map(|_| {
            before_each();
            round_trip()
        })
        .collect();
    drop(stdin);
    let _ = child.wait();
    Latencies(latencies)
}

/// From nothing to the first reply, by hand, with `children` `cat`s: each gets its record as soon
/// as it is spawned, so that it starts up beside the spawning of the rest. The clock stops at the first
/// reply of any, which is looked for after each spawn. With one child: spawn and one round trip.
pub(crate) fn first_reply(record: &[u8], children: usize) -> Duration {
    let mut request = record.to_vec();
    request.push(b'\n');
    let mut reply = vec![0; IO];

    let start = Instant::now();
    let mut cats = Vec::with_capacity(children);
    let answered = |cats: &[(Child, ChildStdin, ChildStdout)], timeout| {
        let mut fds: Vec<PollFd<'_>> =
            cats.iter().map(|cat| PollFd::new(cat.2.as_fd(), PollFlags::POLLIN)).collect();
        while let Err(Errno::EINTR) = poll(&mut fds, timeout) {}
        fds.iter().position(|fd| fd.any() == Some(true))
    };
    let first = loop {
        let (child, mut stdin, stdout) = spawn_piped(&mut Command::new("cat"));
        stdin.write_all(&request).expect("write to cat");
        cats.push((child, stdin, stdout));
        if children == 1 {
            // To read is to wait.
            break 0;
        }
        if cats.len() == children {
            break answered(&cats, PollTimeout::NONE).expect("a reply");
        }
        if let Some(first) = answered(&cats, PollTimeout::ZERO) {
            break first;
        }
    };
    let have = cats[first].2.read(&mut reply).expect("read from cat");
    let took = start.elapsed();

    assert_eq!(&reply[..have], request, "cat replies with what it got");
    for (mut child, stdin, stdout) in cats {
        drop((stdin, stdout));
        let _ = child.wait();
    }
    took
}

// ---------------------------------------------------------------------------------------------
// The obvious Rust ways

/// A child that is spawned at first use, and whose clone is another that is not spawned yet: what
/// hands each worker thread of a map its own.
#[derive(Default)]
struct OwnCat(Option<Cat>);

impl OwnCat {
    fn ask(&mut self, record: &[u8]) -> Vec<u8> {
        self.0.get_or_insert_with(Cat::spawn).ask(record)
    }
}

impl Clone for OwnCat {
    fn clone(&self) -> Self {
        OwnCat(None)
    }
}

/// pariter's ordered `parallel_map`, `threads` threads, each with a `cat` of its own to which it
/// writes a line and from which it reads one.
///
/// `buffer` is pariter's window. Its default, twice the threads, is half as fast as 10,000, though
/// the next result is found by a linear search: replies come nearly in order. More threads than
/// CPUs gain nothing.
pub(crate) fn lockstep_pariter(lines: Lines, records: u64, threads: usize, buffer: usize) -> Run {
    let start = Instant::now();
    let mut own = OwnCat::default();
    let replies = lines.records(records).parallel_map_custom(
        |options| options.threads(threads).buffer_size(buffer),
        move |record: &'static [u8]| own.ask(record),
    );
    let payload: usize = replies.map(|reply| black_box(reply).len()).sum();
    finish(start, lines, records, payload)
}

/// rayon's `par_bridge` on `threads` threads, each with a `cat` of its own, a line and its reply
/// at a time. Unordered, and the replies never leave their thread: less than pariter does.
pub(crate) fn lockstep_rayon(lines: Lines, records: u64, threads: usize) -> Run {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    let start = Instant::now();
    let payload: usize = pool.install(|| {
        lines
            .records(records)
            .par_bridge()
            .map_init(OwnCat::default, |cat, record| cat.ask(record))
            .map(|reply| black_box(reply).len())
            .sum()
    });
    finish(start, lines, records, payload)
}

/// `std::process::Command` for every record, on rayon's threads.
pub(crate) fn process_per_record(lines: Lines, records: u64) -> Run {
    let start = Instant::now();
    let payload: usize = (0..records)
        .into_par_iter()
        .map(|_| {
            let (child, mut stdin, stdout) = spawn_piped(&mut Command::new("cat"));
            stdin.write_all(lines.wire).expect("write to cat");
            drop(stdin);
            let mut reply = Vec::with_capacity(lines.wire.len());
            { stdout }.read_to_end(&mut reply).expect("read from cat");
            { child }.wait().expect("wait for cat");
            assert_eq!(reply.pop(), Some(b'\n'), "a reply is one line");
            black_box(reply).len()
        })
        .sum();
    finish(start, lines, records, payload)
}

/// Stops the clock and checks that what came back is what should have.
fn finish(start: Instant, lines: Lines, records: u64, payload: usize) -> Run {
    let wall = start.elapsed();
    assert_eq!(payload as u64, records * lines.record.len() as u64, "bytes in the replies");
    Run { records, bytes: records * lines.wire.len() as u64, wall }
}

// ---------------------------------------------------------------------------------------------
// The careful hand-written way

/// What [`careful`] is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Careful {
    pub(crate) children: usize,
    /// Records that a writer takes from the source and that travel together. As many as fit 64 KiB
    /// is best or near it, and two to four times as fast as 1.
    pub(crate) chunk: usize,
    /// Records pulled and not yet yielded, at most.
    pub(crate) window: usize,
    pub(crate) pipes: Pipes,
}

/// Two blocking threads per child and a reorder ring, owned replies in input order: what someone
/// writes by hand who knows why pipes deadlock.
///
/// A writer takes a chunk from the source (behind a mutex), tells its own reader how many replies
/// to expect under which number, and writes the chunk at once. The reader splits what comes back
/// with `memchr`, straight from its 64 KiB buffer into one `Vec` each, and sends the chunk to the
/// consumer, who puts the chunks in order. The window is a counting semaphore of records that the
/// consumer gives back in bulk, and always before it sleeps.
///
/// What it lacks: a child that dies, withholds or answers too much, a source that blocks (a chunk
/// waits until it is full), an early end.
pub(crate) fn careful(lines: Lines, records: u64, how: Careful) -> Run {
    let start = Instant::now();
    let payload = careful_map(lines.records(records), how, |reply| black_box(reply).len());
    finish(start, lines, records, payload)
}

/// The map behind [`careful`]: the sum of what `each` makes of the replies.
fn careful_map<I, F>(source: I, how: Careful, mut each: F) -> usize
where
    I: Iterator<Item = &'static [u8]> + Send,
    F: FnMut(Vec<u8>) -> usize,
{
    let Careful { children, chunk, window, pipes } = how;
    assert!(chunk >= 1 && window >= chunk, "a window holds a chunk");
    let source = Mutex::new((source, 0_usize));
    let credit = Credit::of(window);
    let (replies_in, replies_out) = crossbeam_channel::unbounded::<(usize, Vec<Vec<u8>>)>();

    thread::scope(|scope| {
        for _ in 0..children {
            let (mut child, mut stdin, stdout) = spawn_piped(&mut Command::new("cat"));
            if pipes == Pipes::Enlarged {
                enlarge(&stdin, BIG_PIPE);
                enlarge(&stdout, BIG_PIPE);
            }
            let (owed_in, owed_out) = crossbeam_channel::unbounded::<(usize, usize)>();
            let (source, credit) = (&source, &credit);
            scope.spawn(move || {
                let mut out = Vec::with_capacity(2 * IO);
                loop {
                    // Short of credit: what is gathered must be out before this thread sleeps,
                    // for the credit comes back through its replies.
                    if !credit.try_take(chunk) {
                        stdin.write_all(&out).expect("write to cat");
                        out.clear();
                        credit.take(chunk);
                    }
                    let mut count = 0;
                    let number = {
                        let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
                        while count < chunk
                            && let Some(record) = source.0.next()
                        {
                            out.extend_from_slice(record);
                            out.push(b'\n');
                            count += 1;
                        }
                        source.1 += 1;
                        source.1 - 1
                    };
                    if count > 0 {
                        // Before they are written: a reply never comes to a reader who does not
                        // know whose it is.
                        owed_in.send((number, count)).expect("the reader outlives the writer");
                    }
                    if chunk > 1 || out.len() >= IO || count == 0 {
                        stdin.write_all(&out).expect("write to cat");
                        out.clear();
                    }
                    if count < chunk {
                        break;
                    }
                }
            });
            let replies_in = replies_in.clone();
            scope.spawn(move || {
                let mut input = BufReader::with_capacity(IO, stdout);
                for (number, count) in owed_out {
                    let replies = (0..count).map(|_| read_line(&mut input)).collect();
                    if replies_in.send((number, replies)).is_err() {
                        break;
                    }
                }
                let _ = child.wait();
            });
        }
        drop(replies_in);

        // The reorder ring: its front is the chunk that is to be yielded next.
        let mut ring: VecDeque<Option<Vec<Vec<u8>>>> = VecDeque::new();
        let (mut head, mut unreturned, mut sum) = (0_usize, 0_usize, 0_usize);
        loop {
            let arrived = match replies_out.try_recv() {
                Ok(arrived) => arrived,
                Err(_) => {
                    credit.give(std::mem::take(&mut unreturned));
                    match replies_out.recv() {
                        Ok(arrived) => arrived,
                        Err(_) => break,
                    }
                }
            };
            let place = arrived.0 - head;
            if ring.len() <= place {
                ring.resize_with(place + 1, || None);
            }
            ring[place] = Some(arrived.1);
            while let Some(Some(_)) = ring.front() {
                let replies = ring.pop_front().flatten().expect("just seen");
                head += 1;
                unreturned += replies.len();
                for reply in replies {
                    sum += each(reply);
                }
                if unreturned >= window / 8 {
                    credit.give(std::mem::take(&mut unreturned));
                }
            }
        }
        assert!(ring.is_empty(), "a chunk is missing");
        sum
    })
}

/// The same design as it is usually written, a record at a time: a feeder thread pulls the source
/// and deals the records round robin over bounded channels, a writer per child drains its channel
/// into a `BufWriter` and flushes when the channel is empty, a reader per child sends each reply
/// with its number (the k-th reply of child i is number `i + k * children`, so no ids are passed),
/// and the consumer keeps a reorder ring. Two blocking threads per child, a feeder, and three
/// channel operations per record.
pub(crate) fn careful_by_record(lines: Lines, records: u64, children: usize, window: usize) -> Run {
    let start = Instant::now();
    let credit = Credit::of(window);
    let (replies_in, replies_out) = crossbeam_channel::bounded::<(usize, Vec<u8>)>(window);

    let payload = thread::scope(|scope| {
        let mut feeds = Vec::new();
        for first in 0..children {
            let (feed_in, feed_out) = crossbeam_channel::bounded::<&'static [u8]>(window);
            feeds.push(feed_in);
            let (mut child, stdin, stdout) = spawn_piped(&mut Command::new("cat"));
            enlarge(&stdin, BIG_PIPE);
            enlarge(&stdout, BIG_PIPE);
            scope.spawn(move || {
                let mut output = BufWriter::with_capacity(IO, stdin);
                for record in &feed_out {
                    output.write_all(record).expect("write to cat");
                    output.write_all(b"\n").expect("write to cat");
                    if feed_out.is_empty() {
                        thread::yield_now();
                        if feed_out.is_empty() {
                            output.flush().expect("write to cat");
                        }
                    }
                }
            });
            let replies_in = replies_in.clone();
            scope.spawn(move || {
                let mut input = BufReader::with_capacity(IO, stdout);
                let mut number = first;
                while !input.fill_buf().expect("read from cat").is_empty() {
                    replies_in.send((number, read_line(&mut input))).expect("a consumer");
                    number += children;
                }
                let _ = child.wait();
            });
        }
        drop(replies_in);
        let credit = &credit;
        scope.spawn(move || {
            // In bulk, since a semaphore operation per record costs as much as a channel's.
            let bulk = (window / 16).max(1);
            for (index, record) in lines.records(records).enumerate() {
                if index % bulk == 0 {
                    credit.take(bulk);
                }
                feeds[index % children].send(record).expect("a writer");
            }
        });

        let mut ring: VecDeque<Option<Vec<u8>>> = VecDeque::with_capacity(window);
        let (mut head, mut unreturned, mut sum) = (0_usize, 0_usize, 0_usize);
        while head as u64 != records {
            let (number, reply) = replies_out.recv().expect("a reply to every record");
            let place = number - head;
            if ring.len() <= place {
                ring.resize_with(place + 1, || None);
            }
            ring[place] = Some(reply);
            while let Some(Some(_)) = ring.front() {
                let reply = ring.pop_front().flatten().expect("just seen");
                head += 1;
                unreturned += 1;
                sum += black_box(reply).len();
            }
            if unreturned >= window / 8 {
                credit.give(std::mem::take(&mut unreturned));
            }
        }
        sum
    });
    finish(start, lines, records, payload)
}

/// One line without its line feed, in memory of its own: one allocation of the right size and one
/// copy if the line lies within the buffer, as it nearly always does.
fn read_line(input: &mut impl BufRead) -> Vec<u8> {
    let buffer = input.fill_buf().expect("read from cat");
    if let Some(end) = memchr::memchr(b'\n', buffer) {
        let line = buffer[..end].to_vec();
        input.consume(end + 1);
        return line;
    }
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line).expect("read from cat");
    assert_eq!(line.pop(), Some(b'\n'), "cat ended early");
    line
}

/// A counting semaphore.
struct Credit {
    left: Mutex<usize>,
    more: Condvar,
}

impl Credit {
    fn of(left: usize) -> Self {
        Credit { left: Mutex::new(left), more: Condvar::new() }
    }

    fn try_take(&self, count: usize) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let enough = *left >= count;
        if enough {
            *left -= count;
        }
        enough
    }

    fn take(&self, count: usize) {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = self
            .more
            .wait_while(left, |left| *left < count)
            .unwrap_or_else(PoisonError::into_inner);
        *left -= count;
    }

    fn give(&self, count: usize) {
        if count > 0 {
            *self.left.lock().unwrap_or_else(PoisonError::into_inner) += count;
            self.more.notify_all();
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Other tools

/// How GNU parallel is to hand out its stdin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parallel {
    /// `--pipe -k`: a fresh `cat` per block, output in input order.
    PipeKeepOrder,
    /// `--pipe --round-robin`: persistent `cat`s, output of each when it ends, in no order.
    RoundRobin,
}

/// Whether GNU parallel is installed (moreutils has another program of that name).
pub(crate) fn find_gnu_parallel() -> Result<(), Missing> {
    let answer = Command::new("parallel").arg("--version").stderr(Stdio::null()).output();
    match answer {
        Ok(answer) if answer.stdout.starts_with(b"GNU parallel") => Ok(()),
        Ok(_) => Err(Missing("`parallel` is another program than GNU's".into())),
        Err(error) => Err(Missing(format!("GNU parallel (Debian package `parallel`): {error}"))),
    }
}

/// GNU parallel with `jobs` `cat`s: lines in at its stdin, its stdout read and counted, both by
/// us through enlarged pipes. Blocks of 32M are best or near it in input order, of 1M round
/// robin (`benches/baselines.rs` shows it). It keeps output in temporary files, so it gets memory for those. The
/// clock includes its start (about 0.2 s of Perl): give it enough to do.
pub(crate) fn gnu_parallel(
    lines: Lines,
    records: u64,
    jobs: usize,
    mode: Parallel,
    block: &str,
) -> Result<Run, Missing> {
    find_gnu_parallel()?;
    let mut command = Command::new("parallel");
    command.args(["--will-cite", "--plain", "--no-notice", "--pipe", "--block", block]);
    command.arg("-j").arg(jobs.to_string());
    command.arg(match mode {
        Parallel::PipeKeepOrder => "--keep-order",
        Parallel::RoundRobin => "--round-robin",
    });
    command.arg("--tmpdir").arg(temporary_directory()).arg("cat");

    let total = records * lines.wire.len() as u64;
    let start = Instant::now();
    let (mut child, mut stdin, mut stdout) = spawn_piped(&mut command);
    enlarge(&stdin, 1 << 20);
    enlarge(&stdout, 1 << 20);
    let received = thread::scope(|scope| {
        scope.spawn(move || {
            let mut left = total;
            while left > 0 {
                let piece = lines.block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                stdin.write_all(&lines.block[..piece]).expect("write to parallel");
                left -= piece as u64;
            }
        });
        let mut replies = vec![0; IO];
        let mut received = 0;
        while received < total {
            match stdout.read(&mut replies).expect("read from parallel") {
                0 => break,
                n => received += n as u64,
            }
        }
        received
    });
    let wall = start.elapsed();
    let status = child.wait().expect("wait for parallel");
    assert!(status.success() && received == total, "parallel: {status}, {received} of {total}");
    Ok(Run { records, bytes: total, wall })
}

/// Memory if there is a file system in it, else the usual place.
fn temporary_directory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// The Python that has subfeed 0.1.1 (`pip install subfeed==0.1.1`, in a virtual environment
/// outside the tree): named by `SUBFEED_PYTHON`, else `python3`.
pub(crate) fn find_python_subfeed() -> Result<OsString, Missing> {
    let python = std::env::var_os("SUBFEED_PYTHON").unwrap_or_else(|| "python3".into());
    let version = "import subfeed, importlib.metadata as m; print(m.version('subfeed'))";
    let answer = Command::new(&python).args(["-c", version]).stderr(Stdio::null()).output();
    let name = python.to_string_lossy();
    match answer {
        Ok(answer) if answer.stdout.trim_ascii() == b"0.1.1" => Ok(python),
        Ok(answer) if answer.status.success() => Err(Missing(format!(
            "{name} has subfeed {}, not 0.1.1",
            String::from_utf8_lossy(answer.stdout.trim_ascii())
        ))),
        Ok(_) => Err(Missing(format!(
            "{name} has no subfeed; pip install subfeed==0.1.1 and set SUBFEED_PYTHON"
        ))),
        Err(error) => Err(Missing(format!("{name}: {error}"))),
    }
}

/// The Python subfeed 0.1.1 feeding the same lines to `children` `cat`s whose output goes to files
/// in memory, since that release hands nothing back: it is spared reading and ordering. Timed by
/// the script (`feed_python.py`, beside this file) from the first feed until the last line has
/// been written to a child, without the interpreter's start and without its slow closing.
pub(crate) fn python_subfeed(
    lines: Lines,
    records: u64,
    children: usize,
    lines_per_item: u64,
) -> Result<Run, Missing> {
    let python = find_python_subfeed()?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/common/feed_python.py");
    let directory = temporary_directory().join(format!("subfeed-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory for the outputs");
    let numbers = [children as u64, lines.wire.len() as u64, records, lines_per_item];
    let answer = Command::new(python)
        .arg(script)
        .args(numbers.map(|number| number.to_string()))
        .arg(&directory)
        .stderr(Stdio::inherit())
        .output()
        .expect("run the Python script");
    let written: u64 = std::fs::read_dir(&directory)
        .expect("list the outputs")
        .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
        .sum();
    let _ = std::fs::remove_dir_all(&directory);
    let bytes = records * lines.wire.len() as u64;
    assert_eq!(written, bytes, "bytes that the children of the Python script wrote");
    let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
    let seconds = answer
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or_else(|| panic!("what the Python script printed: {answer:?}"));
    Ok(Run { records, bytes, wall: Duration::from_secs_f64(seconds) })
}

// ---------------------------------------------------------------------------------------------
// Scheduling: sleeping children and the ideal

/// Set in the environment of this binary, it makes [`serve_if_asked`] serve.
const SERVE: &str = "SUBFEED_BENCH_SLEEPER";

/// Turns this process into a sleeping child if it was started as one, and does not return then.
/// To be the first thing in `main` of a bench that uses [`sleeper_command`].
///
/// A sleeping child reads lines `ID MICROS`, sleeps that long, and answers `ID MICROS` with the
/// time that it really took: from having read the line to having woken up.
pub(crate) fn serve_if_asked() {
    if std::env::var_os(SERVE).is_none() {
        return;
    }
    let mut input = io::stdin().lock();
    let mut output = BufWriter::new(io::stdout().lock());
    let mut line = String::new();
    let mut serve_one = move || -> io::Result<bool> {
        line.clear();
        if input.read_line(&mut line)? == 0 {
            return Ok(false);
        }
        let start = Instant::now();
        let (id, time) = parse_sleep(line.as_bytes()).ok_or(io::ErrorKind::InvalidData)?;
        thread::sleep(time);
        writeln!(output, "{id} {}", (start.elapsed().as_nanos() + 500) / 1_000)?;
        output.flush()?;
        Ok(true)
    };
    // A parent that has gone away (a broken pipe) is an end like any other.
    while matches!(serve_one(), Ok(true)) {}
    std::process::exit(0);
}

/// The program and the environment variable that start a sleeping child.
pub(crate) fn sleeper_command() -> (PathBuf, (&'static str, &'static str)) {
    (std::env::current_exe().expect("the path of this binary"), (SERVE, "1"))
}

/// The request for one sleep, without its line feed.
pub(crate) fn sleep_request(id: usize, time: Duration) -> Vec<u8> {
    format!("{id} {}", time.as_micros()).into_bytes()
}

/// The id and the time in a request or a reply.
pub(crate) fn parse_sleep(line: &[u8]) -> Option<(usize, Duration)> {
    let line = str::from_utf8(line.trim_ascii_end()).ok()?;
    let (id, micros) = line.split_once(' ')?;
    Some((id.parse().ok()?, Duration::from_micros(micros.parse().ok()?)))
}

/// The seed of every published figure.
pub(crate) const PARETO_SEED: u64 = 3;

/// `count` service times from a Pareto distribution of shape 1.5 (mean finite, variance not),
/// scaled so that their own mean is `mean`. The same seed gives the same times.
///
/// With [`PARETO_SEED`] the largest of 1,000 or 4,000 does not decide the makespan on 8 workers
/// (it is within 2 % of an even split), as it does with many others: no scheduler can help that.
pub(crate) fn pareto_times(seed: u64, count: usize, mean: Duration) -> Vec<Duration> {
    const SHAPE: f64 = 1.5;
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let draws: Vec<f64> = (0..count)
        .map(|_| {
            // xorshift64*, its upper 53 bits as a number in (0, 1].
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let bits = state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
            let uniform = (bits + 1) as f64 / (1_u64 << 53) as f64;
            uniform.powf(-1.0 / SHAPE)
        })
        .collect();
    let scale = mean.as_secs_f64() * count as f64 / draws.iter().sum::<f64>();
    draws.into_iter().map(|draw| Duration::from_secs_f64(draw * scale)).collect()
}

/// The makespan of greedy list scheduling: in the order given, each record starts on the worker
/// that is free first, with no time lost between. Nobody who must start records in this order,
/// without knowing their times, does better.
pub(crate) fn list_schedule(times: &[Duration], workers: usize) -> Duration {
    assert!(workers > 0, "a schedule without workers");
    let mut free: BinaryHeap<_> = iter::repeat_n(Reverse(Duration::ZERO), workers).collect();
    let mut makespan = Duration::ZERO;
    for time in times {
        let Reverse(start) = free.pop().expect("as many as workers");
        makespan = makespan.max(start + *time);
        free.push(Reverse(start + *time));
    }
    makespan
}

/// What sleeping children did: how long all of it took, and each record as it really was.
#[derive(Clone, Debug)]
pub(crate) struct Slept {
    pub(crate) wall: Duration,
    pub(crate) taken: Vec<Duration>,
}

impl Slept {
    /// How far from ideal: the wall time over [`list_schedule`] of the times really taken.
    pub(crate) fn over_ideal(&self, workers: usize) -> f64 {
        self.wall.as_secs_f64() / list_schedule(&self.taken, workers).as_secs_f64()
    }
}

/// The schedule by hand: a thread and a sleeping child per worker, each thread taking the next
/// record when its child has answered. Unordered and without a window, so nothing but the round
/// trip keeps it from the ideal. The children are warm when the clock starts.
pub(crate) fn sleepers_by_hand(times: &[Duration], workers: usize) -> Slept {
    let next = AtomicUsize::new(0);
    let ready = std::sync::Barrier::new(workers + 1);
    let (program, (key, value)) = sleeper_command();
    let mut taken = vec![Duration::ZERO; times.len()];
    let mut start = Instant::now();
    let mut wall = Duration::ZERO;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| {
                    let mut command = Command::new(&program);
                    let (mut child, mut stdin, stdout) = spawn_piped(command.env(key, value));
                    let mut stdout = BufReader::with_capacity(IO, stdout);
                    let mut reply = Vec::new();
                    let mut ask = |id, time| {
                        let mut request = sleep_request(id, time);
                        request.push(b'\n');
                        stdin.write_all(&request).expect("write to a sleeping child");
                        reply.clear();
                        stdout.read_until(b'\n', &mut reply).expect("read from it");
                        parse_sleep(&reply).expect("the reply of a sleeping child")
                    };
                    ask(0, Duration::ZERO);
                    ready.wait();
                    let mut mine = Vec::with_capacity(times.len());
                    loop {
                        let id = next.fetch_add(1, Ordering::Relaxed);
                        let Some(time) = times.get(id) else { break };
                        mine.push(ask(id, *time));
                    }
                    ready.wait();
                    drop(stdin);
                    let _ = child.wait();
                    mine
                })
            })
            .collect();
        ready.wait();
        start = Instant::now();
        ready.wait();
        wall = start.elapsed();
        for (id, time) in threads.into_iter().flat_map(|thread| thread.join().expect("a thread")) {
            taken[id] = time;
        }
    });
    Slept { wall, taken }
}
