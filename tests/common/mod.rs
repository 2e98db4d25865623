//! What every test needs: a watchdog, the hostile child, files to signal with, and a look at `/proc`.
#![allow(dead_code, unused_imports, reason = "each test program uses some of it")]

mod basics;
mod hostile;
pub(crate) mod tools;
pub(crate) mod warden;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bstr::BString;
use subfeed::{Error, InputError, Template};

pub(crate) use basics::{DEADLINE, Dir, eventually};
pub(crate) use hostile::hostile;

/// Runs a test under a watchdog: what hangs fails, and a panic stays a panic.
#[track_caller]
pub(crate) fn within<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    within_limit(3 * DEADLINE, test)
}

/// The same with a limit of the test's own.
#[track_caller]
pub(crate) fn within_limit<T: Send + 'static>(
    limit: Duration,
    test: impl FnOnce() -> T + Send + 'static,
) -> T {
    warden::watch();
    let (done, result) = mpsc::channel();
    let name = thread::current().name().unwrap_or("test").to_owned();
    let runner = thread::Builder::new()
        .name(name)
        .spawn(move || {
            let value = test();
            let _ = done.send(());
            value
        })
        .expect("a thread");
    match result.recv_timeout(limit) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs: no end within {limit:?}"),
        _ => match runner.join() {
            Ok(value) => value,
            Err(payload) => std::panic::resume_unwind(payload),
        },
    }
}

/// Runs what must not wait for a worker that stays: ends far above every stated bound, far below the 300 s
/// that such a worker stays for.
#[track_caller]
pub(crate) fn soon<T>(f: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = f();
    assert!(start.elapsed() < DEADLINE, "it took {:?}", start.elapsed());
    value
}

/// Runs a test in which something must happen within a limit of time: with this one, and where that fails with
/// ten times and a hundred times as much. A machine may be too busy for a short limit; a fault fails with all
/// of them.
#[track_caller]
pub(crate) fn with_patience<T>(limit: Duration, test: impl Fn(Duration) -> T) -> T {
    for limit in [limit, 10 * limit] {
        let run = std::panic::AssertUnwindSafe(|| test(limit));
        if let Ok(value) = std::panic::catch_unwind(run) {
            return value;
        }
    }
    test(100 * limit)
}

/// How long a test looks on where nothing is to happen. Too short a look shows less, and fails nothing.
pub(crate) const A_MOMENT: Duration = Duration::from_millis(20);

/// The hostile child, behaving as the words say: `child("exit_after 3 0")`.
pub(crate) fn child(behaviour: &str) -> Template {
    Template::new(hostile()).args(behaviour.split(' '))
}

/// `0, 1, 2, ...` as text.
pub(crate) fn numbers(n: u64) -> impl ExactSizeIterator<Item = String> + Clone + Send + 'static {
    (0..usize::try_from(n).expect("a size")).map(|n| n.to_string())
}

/// All replies as text, none of them an error.
#[track_caller]
pub(crate) fn texts(replies: impl IntoIterator<Item = Result<BString, Error>>) -> Vec<String> {
    replies.into_iter().map(|reply| reply.expect("a reply").to_string()).collect()
}

/// The two halves of what `keep_input` gives.
pub(crate) fn halves<T, O>(pair: Result<(T, O), InputError<T>>) -> (Option<T>, Result<O, Error>) {
    match pair {
        Ok((input, reply)) => (Some(input), Ok(reply)),
        Err(InputError { input, error, .. }) => (input, Err(error)),
    }
}

// -------------------------------------------------------------------- sources

/// Counts what is pulled from a source, and never minds who asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pulled(Arc<AtomicU64>);

impl Pulled {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(SeqCst)
    }

    /// `0, 1, 2, ...` as text without an end, counted.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = String> + Send + 'static {
        self.count((0u64..).map(|n| n.to_string()))
    }

    pub(crate) fn count<I>(&self, source: I) -> impl Iterator<Item = I::Item> + Send + 'static
    where
        I: Iterator + Send + 'static,
    {
        let count = Arc::clone(&self.0);
        source.inspect(move |_| {
            count.fetch_add(1, SeqCst);
        })
    }
}

/// Blocks whoever passes until it is opened; stays open.
#[derive(Clone, Debug, Default)]
pub(crate) struct Barrier(Arc<(std::sync::Mutex<bool>, std::sync::Condvar)>);

impl Barrier {
    pub(crate) fn open(&self) {
        *self.0.0.lock().expect("a lock") = true;
        self.0.1.notify_all();
    }

    /// Waits to be let through; for ever, if nobody opens.
    pub(crate) fn pass(&self) {
        let mut open = self.0.0.lock().expect("a lock");
        while !*open {
            open = self.0.1.wait(open).expect("a lock");
        }
    }
}

// -------------------------------------------------------------------- processes

/// What this process has that a feed may leak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Belongings {
    pub fds: BTreeSet<(i32, PathBuf)>,
    pub threads: usize,
    pub children: BTreeSet<u32>,
}

impl Belongings {
    pub(crate) fn now() -> Self {
        Self { fds: fds(), threads: threads(), children: children() }
    }

    /// Waits until this is again all there is. A joined thread is in `/proc` for a moment longer, and may have been
    /// there when this was looked at.
    #[track_caller]
    pub(crate) fn restored(&self) {
        let start = Instant::now();
        loop {
            let now = Self::now();
            if now.fds == self.fds && now.children == self.children && now.threads <= self.threads {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "left behind: {now:?}\nbefore: {self:?}");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn fds() -> BTreeSet<(i32, PathBuf)> {
    let entries = fs::read_dir("/proc/self/fd").expect("/proc").flatten();
    let fds = entries.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, target))
    });
    // Not the descriptor that lists the directory.
    fds.filter(|(_, target)| !target.ends_with("fd")).collect()
}

pub(crate) fn threads() -> usize {
    fs::read_dir("/proc/self/task").expect("/proc").count()
}

/// The children of this process, zombies included.
pub(crate) fn children() -> BTreeSet<u32> {
    let all = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&pid| parent(pid) == Some(std::process::id())).collect()
}

fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may contain anything but ends with the last parenthesis.
    let mut words = stat.rsplit_once(") ")?.1.split(' ');
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

fn parent(pid: u32) -> Option<u32> {
    Some(stat(pid)?.1)
}

/// Whether there is such a process and it is not a zombie.
pub(crate) fn is_running(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// Kills a process that a test has left on purpose.
pub(crate) fn kill(pid: u32) {
    use nix::sys::signal::{Signal, kill};
    let _ = kill(nix::unistd::Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
}

/// Runs a test in a process of its own, where it may look at `/proc` and set limits.
///
/// `name` is the test's own full name; use the macro [`alone`](crate::alone).
#[track_caller]
pub(crate) fn in_own_process(name: &str, test: impl FnOnce() + Send + 'static) {
    const MARK: &str = "SUBFEED_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return within(test);
    }
    warden::watch();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let word = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, SeqCst));
    if let Err(said) = again(name, |command| _ = command.env(MARK, &word)) {
        // It has not come to its own end, and so perhaps not to that of its workers.
        warden::end_all(&format!("{MARK}={word}"));
        panic!("{said}");
    }
}

/// Runs the test of this name once more, alone in this program started again, as `prepare` wants it.
///
/// An error is how it ended and what it said.
pub(crate) fn again(name: &str, prepare: impl FnOnce(&mut Command)) -> Result<(), String> {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", name, "--include-ignored", "--nocapture", "--test-threads=1"])
        .stdin(Stdio::null());
    prepare(&mut command);
    let output = command.output().expect("this program again");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let passed = output.status.success() && said.contains("1 passed");
    if passed { Ok(()) } else { Err(format!("{}: {said}", output.status)) }
}

/// The body of a test that needs a process of its own.
#[macro_export]
macro_rules! alone {
    ($test:expr) => {{
        fn here() {}
        let path = std::any::type_name_of_val(&here);
        let path = path.strip_suffix("::here").expect("the path of a function");
        let (_, name) = path.split_once("::").expect("the path of a function");
        $crate::common::in_own_process(name, $test)
    }};
}
