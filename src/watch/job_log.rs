//! The job log: one line for each packet, in the columns of GNU parallel's `--joblog` as far as they apply.
//!
//! The event loop makes the lines and puts them into a queue; a thread of the log's own writes them, so that a slow
//! disk holds up no worker that has been given something. While the queue is full the event loop reads no replies.
//!
//! # Invariants
//! 1. `queued` counts the bytes that were put and are not written yet. It has its bound, and one read of one worker
//!    may come on top.
//! 2. After the first failure nothing is written or kept any more; the failure is handed out once.
//! 3. The event loop is woken when there is room again, when a write has failed, and when all is written that was put
//!    before the log was [closed](JobLog::close).

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Error, ErrorKind};
use crate::files::{self, Pipes};
use crate::sync::{Mutex, lock};

/// Bytes that may wait to be written.
const MOST: usize = 1 << 20;

const HEADER: &str =
    "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tWorker\tAttempts\n";

/// What became of one packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) packet: u64,
    pub(crate) host: Option<&'a str>,
    /// When its worker came to it, and how long it took; by the event loop's clock.
    pub(crate) start: Duration,
    pub(crate) lasted: Duration,
    pub(crate) sent: usize,
    pub(crate) received: usize,
    pub(crate) exit: i32,
    pub(crate) signal: i32,
    /// None, where no worker had it.
    pub(crate) worker: Option<usize>,
    pub(crate) attempts: u32,
}

/// By which number a packet is known to who reads the log.
#[derive(Clone)]
pub(crate) struct Numbering(pub(crate) Arc<dyn Fn(u64) -> u64 + Send + Sync>);

impl fmt::Debug for Numbering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Numbering")
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct JobLog {
    shared: Arc<Shared>,
    /// Where it is not the packet id.
    numbering: Option<Numbering>,
    /// Lines of this turn.
    lines: String,
    /// When the event loop's clock began, since 1970.
    began: Option<Duration>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// Bytes that may wait to be written.
    most: usize,
    state: Mutex<State>,
    news: Condvar,
    queued: AtomicUsize,
    failed: AtomicBool,
    /// The thread is done.
    ended: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    queue: Vec<u8>,
    closing: bool,
    failure: Option<io::Error>,
}

fn failed(path: &Path, what: &str, error: io::Error) -> Error {
    Error::new(ErrorKind::File, format!("the job log `{}` cannot be {what}", path.display()))
        .because(error)
}

impl JobLog {
    /// Opens the file, to be appended to, and starts the thread. `wake` wakes the event loop.
    pub(crate) fn open(path: &Path, wake: impl Fn() + Send + 'static) -> Result<Self, Error> {
        let options = OpenOptions::new().append(true).create(true).clone();
        let file = files::open(path, &options, Pipes::WithReader);
        let file = file.map_err(|error| failed(path, "opened", error).fatal())?;
        let is_new = file.metadata().is_ok_and(|metadata| metadata.len() == 0);
        let shared = Shared::new(path, MOST);
        let theirs = Arc::clone(&shared);
        let run = move || theirs.run(file, &wake);
        thread::Builder::new()
            .name("subfeed-log".to_owned())
            .spawn(run)
            .map_err(|error| Error::no_thread("the job log's thread cannot be started", error))?;
        let lines = if is_new { HEADER.to_owned() } else { String::new() };
        Ok(Self { shared, numbering: None, lines, began: None })
    }

    /// The column `Seq` has these numbers.
    pub(crate) fn numbered(mut self, numbering: Option<Numbering>) -> Self {
        self.numbering = numbering;
        self
    }

    /// Event loop: it is so late by its clock.
    pub(crate) fn time_is(&mut self, now: Duration) {
        if self.began.is_none() {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.began = Some(since.saturating_sub(now));
        }
    }

    pub(crate) fn put(&mut self, row: &Row<'_>) {
        if self.shared.failed.load(SeqCst) {
            return;
        }
        let began = self.began.unwrap_or_default();
        let Row { packet, host, start, lasted, sent, received, exit, signal, worker, attempts } =
            *row;
        let packet = self.numbering.as_ref().map_or(packet, |numbering| (numbering.0)(packet));
        let (host, start) = (host.unwrap_or(":"), (began + start).as_secs_f64());
        let lasted = lasted.as_secs_f64();
        let before = self.lines.len();
        // Writing into a string does not fail.
        let _ = write!(
            self.lines,
            "{packet}\t{host}\t{start:.3}\t{lasted:.6}\t{sent}\t{received}\t{exit}\t{signal}\t"
        );
        let _ = match worker {
            Some(worker) => writeln!(self.lines, "{worker}\t{attempts}"),
            None => writeln!(self.lines, "-\t{attempts}"),
        };
        self.shared.queued.fetch_add(self.lines.len() - before, SeqCst);
    }

    /// Event loop, once a turn: what was put is handed to the thread.
    pub(crate) fn pass_on(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        if !self.shared.failed.load(SeqCst) {
            let mut state = lock(&self.shared.state);
            state.queue.extend_from_slice(self.lines.as_bytes());
            drop(state);
            self.shared.news.notify_one();
        }
        self.lines.clear();
    }

    /// Whether so much waits to be written that nothing is to be put for now.
    pub(crate) fn is_full(&self) -> bool {
        self.shared.queued.load(SeqCst) >= self.shared.most && !self.shared.failed.load(SeqCst)
    }

    /// The failure that has ended it, once.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        if !self.shared.failed.load(SeqCst) {
            return None;
        }
        let failure = lock(&self.shared.state).failure.take()?;
        let error = failed(&self.shared.path, "written", failure);
        Some(error.hint("the feed goes on without it: what came after that is not in it"))
    }

    /// Nothing will be put any more.
    pub(crate) fn close(&mut self) {
        self.pass_on();
        lock(&self.shared.state).closing = true;
        self.shared.news.notify_one();
    }

    /// Whether everything is written, or never will be.
    pub(crate) fn has_ended(&self) -> bool {
        self.shared.ended.load(SeqCst)
    }
}

impl Drop for JobLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn new(path: &Path, most: usize) -> Arc<Self> {
        Arc::new(Self {
            path: path.to_owned(),
            most,
            state: Mutex::default(),
            news: Condvar::new(),
            queued: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        })
    }

    /// Writes what there is until it is closed.
    fn run(&self, mut file: File, wake: &dyn Fn()) {
        let mut batch = Vec::new();
        loop {
            let mut state = lock(&self.state);
            while state.queue.is_empty() && !state.closing {
                state = match self.news.wait(state) {
                    Ok(state) => state,
                    Err(poisoned) => poisoned.into_inner(),
                };
            }
            if state.queue.is_empty() {
                break;
            }
            std::mem::swap(&mut batch, &mut state.queue);
            drop(state);
            if let Err(error) = file.write_all(&batch) {
                self.has_failed(error);
                break;
            }
            if self.has_written(batch.len()) {
                wake();
            }
            batch.clear();
        }
        self.ended.store(true, SeqCst);
        wake();
    }

    /// So many bytes are written. Says whether the event loop may be waiting for that.
    fn has_written(&self, count: usize) -> bool {
        // The header was never counted.
        let before = self.queued.fetch_update(SeqCst, SeqCst, |n| Some(n.saturating_sub(count)));
        before.is_ok_and(|before| before >= self.most)
    }

    /// Nothing more is written.
    fn has_failed(&self, error: io::Error) {
        let mut state = lock(&self.state);
        state.failure = Some(error);
        state.queue = Vec::new();
        self.failed.store(true, SeqCst);
    }
}

/// The steps of the log's thread, for a simulation that has neither thread nor file.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Writer(Arc<Shared>);

#[cfg(test)]
impl JobLog {
    /// A log with room for so many bytes, whose clock begins with the epoch, and the other end of it.
    pub(crate) fn without_thread(most: usize) -> (Self, Writer) {
        let shared = Shared::new(Path::new("simulated"), most);
        let lines = HEADER.to_owned();
        let log = Self {
            shared: Arc::clone(&shared),
            numbering: None,
            lines,
            began: Some(Duration::ZERO),
        };
        (log, Writer(shared))
    }
}

#[cfg(test)]
impl Writer {
    /// What is to be written now. Nothing: so far, or, if it is closed, for ever.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut lock(&self.0.state).queue)
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.0.state).closing
    }

    /// So many bytes are written. Says whether the event loop is to be woken.
    pub(crate) fn has_written(&self, count: usize) -> bool {
        self.0.has_written(count)
    }

    pub(crate) fn has_failed(&self, error: io::Error) {
        self.0.has_failed(error);
    }

    /// It is done.
    pub(crate) fn has_ended(&self) {
        self.0.ended.store(true, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn row(packet: u64) -> Row<'static> {
        Row {
            packet,
            host: None,
            start: Duration::from_millis(1_500),
            lasted: Duration::from_micros(250),
            sent: 4,
            received: 7,
            exit: 0,
            signal: 0,
            worker: Some(2),
            attempts: 1,
        }
    }

    fn temporary(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("subfeed-job-log-{name}-{}", std::process::id()))
    }

    fn ended(log: &JobLog, woken: &mpsc::Receiver<()>) {
        while !log.has_ended() {
            woken.recv().unwrap();
        }
    }

    #[test]
    fn every_line_is_written_before_the_end_and_the_header_once() {
        let path = temporary("lines");
        let _ = std::fs::remove_file(&path);
        for round in 0..2 {
            let (wake, woken) = mpsc::channel();
            let mut log = JobLog::open(&path, move || _ = wake.send(())).unwrap();
            log.time_is(Duration::ZERO);
            for packet in 0..1_000 {
                log.put(&row(1_000 * round + packet));
                log.pass_on();
            }
            log.close();
            ended(&log, &woken);
            assert!(log.take_failure().is_none());
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2_001);
        assert_eq!(format!("{}\n", lines[0]), HEADER);
        for (packet, line) in lines[1..].iter().enumerate() {
            let fields: Vec<_> = line.split('\t').collect();
            assert_eq!(fields.len(), HEADER.split('\t').count());
            assert_eq!(fields[0], packet.to_string());
            assert_eq!(fields[3..], ["0.000250", "4", "7", "0", "0", "2", "1"]);
            assert!(fields[2].parse::<f64>().unwrap() > 1.6e9);
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn it_is_full_until_its_reader_reads_and_then_says_so() {
        let path = temporary("fifo");
        let _ = std::fs::remove_file(&path);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Opened for both, so that opening it for writing does not wait.
        let mut reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let (wake, woken) = mpsc::channel();
        let mut log = JobLog::open(&path, move || _ = wake.send(())).unwrap();
        let mut put = 0;
        while !log.is_full() {
            log.put(&row(put));
            log.pass_on();
            put += 1;
        }
        assert!(put < (MOST / 20) as u64);
        let drained = thread::spawn(move || {
            let (mut all, mut lines) = ([0; 4096], 0);
            while lines <= put {
                let n = io::Read::read(&mut reader, &mut all).unwrap();
                lines += all[..n].iter().filter(|&&byte| byte == b'\n').count() as u64;
            }
            reader
        });
        while log.is_full() {
            woken.recv().unwrap();
        }
        log.close();
        ended(&log, &woken);
        drop(drained.join().unwrap());
        std::fs::remove_file(&path).unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_failure_is_told_once_and_ends_it() {
        let (wake, woken) = mpsc::channel();
        let mut log = JobLog::open(Path::new("/dev/full"), move || _ = wake.send(())).unwrap();
        log.put(&row(0));
        log.pass_on();
        ended(&log, &woken);
        let error = log.take_failure().unwrap();
        assert_eq!(error.kind(), ErrorKind::File);
        assert!(error.to_string().contains("/dev/full"), "{error}");
        assert!(log.take_failure().is_none());
        for packet in 0..100_000 {
            log.put(&row(packet));
        }
        assert!(!log.is_full() && log.lines.is_empty());
    }
}
