//! Daemons for the tests, each started by a script that ends it when the test has gone; and a look at processes.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use subfeed::{Error, ErrorKind, FeedExt, Launcher, Snapshot, Template};

use crate::common::Dir;

/// A script that runs as long as its stdin is open.
#[derive(Debug)]
pub(crate) struct Daemon {
    script: Child,
    stdin: Option<ChildStdin>,
    /// What it said when it was ready.
    pub(crate) ready: Vec<String>,
    pub(crate) dir: Dir,
}

impl Daemon {
    pub(crate) fn start(script: &str, args: &[String]) -> Self {
        let dir = Dir::new();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/launchers").join(script);
        let mut command = Command::new(path);
        command.arg(dir.path("")).args(args).env_remove("SLURM_CONF");
        let mut script =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the script");
        let stdin = script.stdin.take();
        let mut said = BufReader::new(script.stdout.take().expect("its stdout")).lines();
        let ready = said.find_map(|line| {
            let line = line.expect("text");
            Some(line.strip_prefix("ready")?.split_whitespace().map(str::to_owned).collect())
        });
        let ready = ready.expect("the daemon comes up; see what it said on stderr");
        Self { script, stdin, ready, dir }
    }

    /// The pid that it named as the `n`th.
    pub(crate) fn pid(&self, n: usize) -> u32 {
        self.ready[n].parse().expect("a pid")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Its trap ends the daemons.
        drop(self.stdin.take());
        let _ = self.script.wait();
    }
}

/// An sshd.
#[derive(Debug)]
pub(crate) struct Sshd(pub(crate) Daemon);

impl Sshd {
    pub(crate) fn start() -> Self {
        Self(Daemon::start("sshd", &ports(7)))
    }

    /// A launcher to these hosts of its.
    pub(crate) fn launcher(&self, hosts: &[&str]) -> Launcher {
        Launcher::ssh(hosts.iter().copied()).config_file(self.0.dir.path("ssh_config"))
    }

    /// `cat` there.
    pub(crate) fn cat(&self, hosts: &[&str]) -> Template {
        Template::new("cat").via(self.launcher(hosts))
    }
}

/// Feeds without an end until each of these replies has come.
#[track_caller]
pub(crate) fn all_answer(template: Template, workers: usize, replies: &[&str]) {
    let begun = Instant::now();
    let mut missing: Vec<&str> = replies.to_vec();
    let endless = (0u64..).map(|n| n.to_string());
    for reply in endless.feed_subprocesses(template, workers, 64) {
        let reply = reply.expect("a reply");
        missing.retain(|text| reply != *text);
        if missing.is_empty() {
            return;
        }
        assert!(begun.elapsed() < crate::common::DEADLINE, "nobody says {missing:?}");
    }
}

/// Whether there is what an sshd takes.
pub(crate) fn sshd_is_here() -> bool {
    crate::common::tools::here(&["ssh", "sshd", "setpriv", "ps"])
}

/// A test that needs the daemon.
#[macro_export]
macro_rules! with_sshd {
    ($name:ident, $test:expr) => {
        #[test]
        fn $name() {
            if $crate::kit::sshd_is_here() {
                $crate::common::within(|| {
                    let test: fn($crate::kit::Sshd) = $test;
                    test($crate::kit::Sshd::start());
                });
            }
        }
    };
}

/// The one error of a feed that has no other item than halted ones.
#[track_caller]
pub(crate) fn only_error(template: Template) -> Error {
    let mut feed = ["x"].into_iter().feed_subprocesses_ordered(template, 1, 1);
    let error = feed.next().expect("an item").expect_err("an error");
    assert!(feed.next().is_none());
    error
}

/// Whether it is of this kind and says all of this.
#[track_caller]
pub(crate) fn expect(error: &Error, kind: ErrorKind, says: &[&str]) {
    let line = error.to_string();
    assert_eq!(error.kind(), kind, "{line}");
    for word in says {
        assert!(line.contains(word), "no {word:?} in: {line}");
    }
}

// -------------------------------------------------------------------- faults while it streams

/// What is added to a promised bound of time, for a machine with other work on it.
pub(crate) const BUSY: Duration = Duration::from_secs(6);

/// Feeds without an end in sight, lets something happen so many times in the middle, and sees to it that nothing is
/// lost, doubled or out of order, that no packet is charged, and that no pause is longer than `bound`.
///
/// Nothing happens before every worker has answered: a connection may take longer than ten thousand records.
#[track_caller]
pub(crate) fn survives(
    template: Template,
    workers: usize,
    times: u32,
    bound: Duration,
    mut fault: impl FnMut(),
) -> Snapshot {
    let endless = (0u64..).map(|n| n.to_string());
    let mut feed = endless.feed(template).workers(workers).buffer(2_000).start();
    let (monitor, stopper) = (feed.monitor(), feed.stopper());
    let all_answer = || monitor.workers().iter().all(|worker| worker.answered > 0);
    let (mut faults, mut since) = (0, 10_000);
    let mut count = 0u64;
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    for reply in feed.by_ref() {
        assert_eq!(reply.expect("a reply"), count.to_string());
        if faults > 0 {
            longest = longest.max(last.elapsed());
        }
        last = Instant::now();
        count += 1;
        since += 1;
        if faults < times && since % 20_000 == 0 && (faults > 0 || all_answer()) {
            fault();
            (faults, since) = (faults + 1, 0);
        } else if faults == times && since == 10_000 {
            stopper.stop();
        }
    }
    assert_eq!(faults, times, "{count} replies");
    drop(feed);
    let seen = monitor.snapshot();
    assert_eq!((seen.failed, seen.retries, seen.replies), (0, 0, count), "{seen:?}");
    println!("the longest pause: {longest:?}");
    assert!(longest < bound + BUSY, "nothing came for {longest:?}, and {bound:?} is the bound");
    seen
}

// -------------------------------------------------------------------- processes

/// A Slurm of four nodes, and an allocation of all of it.
#[derive(Debug)]
pub(crate) struct Slurm(pub(crate) Daemon);

impl Slurm {
    pub(crate) fn start() -> Self {
        Self(Daemon::start("slurm", &ports(5)))
    }

    /// A variable in the environment of whoever is inside the allocation.
    pub(crate) fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("SLURM_CONF", self.0.ready[0].clone()),
            ("SLURM_JOB_ID", self.0.ready[1].clone()),
            ("SLURM_JOB_NODELIST", "n[1-4]".to_owned()),
            ("SLURM_JOB_CPUS_PER_NODE", "4(x4)".to_owned()),
        ]
    }

    /// The daemon of a node, from 1.
    pub(crate) fn slurmd(&self, node: usize) -> u32 {
        self.0.pid(1 + node)
    }
}

/// Ports of 127.0.0.1 that nobody has.
fn ports(n: usize) -> Vec<String> {
    let listeners: Vec<_> =
        (0..n).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    let port = |listener: &TcpListener| listener.local_addr().expect("an address").port();
    listeners.iter().map(|listener| port(listener).to_string()).collect()
}

/// Every process that is no zombie, with its parent.
fn all() -> Vec<(u32, u32)> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut words = stat.rsplit_once(") ")?.1.split(' ');
        let state = words.next()?;
        Some((pid, words.next()?.parse().ok()?)).filter(|_| state != "Z")
    })
    .collect()
}

/// The children of a process, theirs, and so on.
pub(crate) fn below(pid: u32) -> Vec<u32> {
    let all = all();
    let mut found = vec![pid];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found.split_off(1)
}

/// The processes with words of which something is true.
pub(crate) fn processes(are: impl Fn(&[String]) -> bool) -> Vec<u32> {
    let words = |pid: u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = line.split(|&byte| byte == 0).filter(|word| !word.is_empty());
        words.map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>()
    };
    all().into_iter().map(|(pid, _)| pid).filter(|&pid| are(&words(pid))).collect()
}

/// Freezes a process.
pub(crate) fn stop(pid: u32) {
    signal(pid, Signal::SIGSTOP);
}

/// Lets a frozen one go on.
pub(crate) fn go_on(pid: u32) {
    signal(pid, Signal::SIGCONT);
}

fn signal(pid: u32, signal: Signal) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal);
}

/// Whether its program is called so.
pub(crate) fn is_called(pid: u32, name: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
}

/// Waits until these are gone, for as long as is promised: ten seconds.
#[track_caller]
pub(crate) fn wait_gone(pids: &[u32]) {
    let begun = Instant::now();
    while pids.iter().any(|&pid| crate::common::is_running(pid)) {
        assert!(begun.elapsed() < Duration::from_secs(10) + BUSY, "still there: {pids:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
