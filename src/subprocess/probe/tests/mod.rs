//! Real children. What must be seen is looked for until it is seen; what must never be seen is
//! looked for while the child is known to be in the state that could be mistaken.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};

use super::*;
use crate::subprocess::evidence::{Evidence, Look, Looks, Obstacle, Outside, Stop, Work, judge};

mod doubts;
mod programs;
mod terminal;
#[path = "../../../../tests/common/tools.rs"]
mod tools;
mod waiting;

const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(2);
/// How far apart two looks must be for `Asleep`.
const APART: Duration = Duration::from_millis(60);

struct Worker {
    child: Child,
    stdin: Option<ChildStdin>,
    channel: ChannelId,
    pgid: Pid,
}

impl Worker {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .process_group(0)
            .env_remove("PYTHONUNBUFFERED")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let channel = ChannelId::of(stdin.as_fd()).unwrap();
        let pgid = Pid::from_raw(child.id().try_into().unwrap());
        Self { child, stdin: Some(stdin), channel, pgid }
    }

    fn run(program: &str, arguments: &[&str]) -> Self {
        Self::start(Command::new(program).args(arguments))
    }

    fn sh(script: &str) -> Self {
        Self::run("sh", &["-c", script])
    }

    fn python(script: &str) -> Self {
        Self::run("python3", &["-c", script])
    }

    fn give(&mut self, request: &str) {
        self.stdin.as_mut().expect("an open stdin").write_all(request.as_bytes()).unwrap();
    }

    fn inputs(&self) -> Vec<(BorrowedFd<'_>, ChannelId)> {
        self.stdin.iter().map(|stdin| (stdin.as_fd(), self.channel)).collect()
    }

    fn signal(&self, signal: Signal) {
        killpg(self.pgid, signal).unwrap();
    }

    fn look(&self) -> Look {
        look(self.pgid, &self.inputs())
    }

    /// What one look alone shows.
    fn evidence(&self) -> Evidence {
        judge(None, &self.look(), Duration::MAX)
    }

    #[track_caller]
    fn comes_to(&self, expected: Evidence) {
        let start = Instant::now();
        loop {
            let seen = self.evidence();
            if seen == expected {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{seen:?} and not {expected:?}");
            sleep(PAUSE);
        }
    }

    #[track_caller]
    fn waits(&self) {
        self.comes_to(Evidence::Waiting);
        // It stays so: nobody else has a reason to move.
        for _ in 0..20 {
            assert_eq!(self.evidence(), Evidence::Waiting);
        }
    }

    /// Until this evidence has been seen 200 times, and before it, there is never a `Waiting`.
    #[track_caller]
    fn never_waits(&self, expected: Evidence) {
        let (start, mut seen) = (Instant::now(), 0);
        while seen < 200 {
            let evidence = self.evidence();
            assert_ne!(evidence, Evidence::Waiting);
            seen += u32::from(evidence == expected);
            assert!(start.elapsed() < PATIENCE, "{evidence:?} and not {expected:?}");
            sleep(PAUSE);
        }
    }

    /// Looked at again and again as a quiet session is, it is found to be `expected`.
    #[track_caller]
    fn settles(&self, expected: Evidence) {
        let (start, mut looks) = (Instant::now(), Looks::default());
        loop {
            let seen = looks.judge(self.look(), APART);
            if seen == expected {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{seen:?} and not {expected:?}");
            sleep(PAUSE);
        }
    }
}

const COMPUTES: Evidence = Evidence::Working(Work::Computing);
const DEAF: Evidence = Evidence::Deaf { open: true, timed: false };
const DEAF_SLEEPER: Evidence = Evidence::Deaf { open: true, timed: true };

fn look(pgid: Pid, inputs: &[(BorrowedFd<'_>, ChannelId)]) -> Look {
    let mut looks = look_at_all(&[Suspect::new(pgid, inputs)], now());
    looks.pop().expect("a look for each suspect")
}

/// The time by any clock that all looks of a test share.
fn now() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = killpg(self.pgid, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

fn unread_replies(worker: &Worker) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let stdout = worker.child.stdout.as_ref().unwrap();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).unwrap() > 0
}

#[test]
fn only_pipes_and_fifos_are_channels() {
    let null = std::fs::File::open("/dev/null").unwrap();
    let error = ChannelId::of(null.as_fd()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    let (left, _right) = std::os::unix::net::UnixStream::pair().unwrap();
    assert!(ChannelId::of(left.as_fd()).is_err());
    let (reader, writer) = std::io::pipe().unwrap();
    let (a, b) = (ChannelId::of(reader.as_fd()), ChannelId::of(writer.as_fd()));
    assert_eq!(a.unwrap(), b.unwrap());
}

#[test]
fn many_are_judged_each_for_itself() {
    let workers =
        [Worker::run("cat", &[]), Worker::run("sleep", &["1000"]), Worker::sh("tr a b | cat")];
    workers[0].waits();
    workers[1].never_waits(DEAF_SLEEPER);
    workers[2].waits();
    let inputs = workers.each_ref().map(Worker::inputs);
    let suspects: Vec<_> = workers
        .iter()
        .zip(&inputs)
        .map(|(worker, inputs)| Suspect::new(worker.pgid, inputs))
        .collect();
    let expected = [Evidence::Waiting, DEAF_SLEEPER, Evidence::Waiting];
    assert_eq!(look_at_all(&suspects, now()).iter().map(Look::alone).collect::<Vec<_>>(), expected);
    assert_eq!(look_at_all(&[], now()), []);
}

/// The promise itself, under races: a worker that flushes each reply and is said to wait has replied.
#[test]
fn a_worker_that_is_said_to_wait_has_written_its_reply() {
    let threads = "import sys, queue, threading\n\
        q, r = queue.SimpleQueue(), queue.SimpleQueue()\n\
        def compute():\n while True: r.put(sum(range(q.get() * 300)))\n\
        def answer():\n while True: print(r.get(), flush=True)\n\
        threading.Thread(target=compute, daemon=True).start()\n\
        threading.Thread(target=answer, daemon=True).start()\n\
        for l in sys.stdin: q.put(int(l))";
    // The second stage computes when the first one reads again. It is looked at before it.
    let stage = |n| format!("import sys\nfor l in sys.stdin: print(sum(range({n})), flush=True)");
    let pipeline = format!("python3 -c '{}' | python3 -c '{}'", stage(9_000), stage(300_000));
    let jobs = "while read x; do { y=$(expr $x + 1); /bin/echo $y; } & wait; done";
    let detached = "while read x; do (sh -c \"expr $x + 1\" &); done";
    for command in [
        &["python3", "-c", threads][..],
        &["sh", "-c", &pipeline],
        &["bash", "-c", jobs],
        &["sh", "-c", detached],
    ] {
        let mut worker = Worker::run(command[0], &command[1..]);
        worker.waits();
        for round in 0..150 {
            worker.give(&format!("{}\n", round % 50));
            let start = Instant::now();
            while worker.evidence() != Evidence::Waiting {
                assert!(start.elapsed() < PATIENCE, "{command:?}");
            }
            assert!(unread_replies(&worker), "{command:?}, round {round}");
            let _ = worker.child.stdout.as_mut().unwrap().read(&mut [0; 4096]).unwrap();
        }
    }
}

/// Not a test: prints what a look costs in processor time. `cargo test --release -- --ignored --nocapture cost`
#[test]
#[ignore = "a measurement"]
fn cost() {
    // Of our own processor time: others may have work, too.
    let used = || {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    };
    let print = |what: &str, look: &dyn Fn() -> Evidence| {
        let (start, mut last) = (used(), look());
        for _ in 0..200 {
            last = look();
        }
        println!("{what:40} {:>9.1?} {last:?}", (used() - start) / 201);
    };
    let cat = Worker::run("cat", &[]);
    cat.waits();
    let pipe = Worker::sh("tr a b | cat");
    pipe.waits();
    let sleeper = Worker::sh("sleep 1000 & cat <&0; true");
    sleeper.settles(Evidence::Asleep);
    let worker = Worker::sh("while :; do :; done");
    worker.settles(Evidence::Working(Work::Computing));
    for others in [0, 2000] {
        let crowd: Vec<_> = (0..others).map(|_| Worker::run("sleep", &["1000"])).collect();
        let processes = std::fs::read_dir("/proc").unwrap().count();
        println!("{processes} entries in /proc");
        print("cat, waiting", &|| cat.evidence());
        print("sh -c 'tr | cat', waiting", &|| pipe.evidence());
        print("sh -c 'sleep & cat', asleep", &|| sleeper.evidence());
        print("a busy loop", &|| worker.evidence());
        drop(crowd);
    }
    let many: Vec<_> = (0..1000).map(|_| Worker::run("cat", &[])).collect();
    many.iter().for_each(|worker| worker.comes_to(Evidence::Waiting));
    let inputs: Vec<_> = many.iter().map(Worker::inputs).collect();
    let suspects: Vec<_> =
        many.iter().zip(&inputs).map(|(w, inputs)| Suspect::new(w.pgid, inputs)).collect();
    print("1000 x cat, in one call", &|| look_at_all(&suspects, now())[999].alone());
}
