//! Daemons for the tests, each started by a script that ends it when the test has gone; and a look at processes.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use subfeed::{FeedExt, Launcher, Template};

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
    let begun = std::time::Instant::now();
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
    use nix::sys::signal::{Signal, kill};
    let _ = kill(nix::unistd::Pid::from_raw(pid.cast_signed()), Signal::SIGSTOP);
}

/// Waits until these are gone, for as long as is promised.
#[track_caller]
pub(crate) fn wait_gone(pids: &[u32]) {
    let begun = std::time::Instant::now();
    while pids.iter().any(|&pid| crate::common::is_running(pid)) {
        assert!(begun.elapsed() < std::time::Duration::from_secs(15), "still there: {pids:?}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}
