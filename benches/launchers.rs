//! What a launcher costs: `cargo bench --bench launchers [-- --quick] [NAME PART]...`. A real sshd and a real Slurm of four
//! nodes, both on this machine, started and ended by the scripts of the tests.
//!
//! - `ssh_100_over_bare`, `ssh_4096_over_bare`: bytes a second through one worker that is `cat` on the other side of ssh,
//!   over those of the bare `ssh host cat`. `srun_100_over_bare` and `srun_4096_over_bare` with `srun -u cat`.
//! - `ssh_start_16`, `ssh_start_16_unshared`: from the call until all of 16 workers have answered, with shared connections
//!   and without. `srun_start_16`: the same, four on each node.
//! - `ssh_round_trip`, `srun_round_trip`: one record there and back, alone.

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::harness::{Bench, MICROS, MILLIS, Side, Unit};
use subfeed::launcher::Carry;
use subfeed::{FeedExt, Host, Launcher, Order, Template};

const MB_PER_S: Unit = Unit { name: "MB/s", scale: 1e6 };

fn main() {
    let mut bench = Bench::from_args("launchers");
    match Daemon::start("sshd", 7) {
        Some(sshd) => ssh(&mut bench, &sshd),
        None => bench.missing("ssh", "no sshd (Debian package openssh-server)"),
    }
    match Daemon::start("slurm", 5) {
        Some(slurm) => srun(&mut bench, &slurm),
        None => bench
            .missing("srun", "no Slurm (Debian packages slurmctld, slurmd, slurm-client, munge)"),
    }
    bench.finish();
}

/// A script of the tests, which ends its daemons when its stdin is closed.
struct Daemon {
    script: Child,
    ready: Vec<String>,
    dir: PathBuf,
}

impl Daemon {
    fn start(script: &str, ports: usize) -> Option<Self> {
        let dir =
            std::env::temp_dir().join(format!("subfeed-bench-{script}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).ok()?;
        let listeners: Vec<_> = (0..ports).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
        let ports: Vec<String> = listeners
            .iter()
            .flatten()
            .filter_map(|listener| Some(listener.local_addr().ok()?.port().to_string()))
            .collect();
        drop(listeners);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/launchers").join(script);
        let mut command = Command::new(path);
        command.arg(&dir).args(ports).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = command.stderr(Stdio::null()).spawn().ok()?;
        let said = BufReader::new(script.stdout.take()?).lines();
        let ready = said.map_while(Result::ok).find(|line| line.starts_with("ready"));
        let ready = ready?.split(' ').skip(1).map(str::to_owned).collect();
        Some(Self { script, ready, dir })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let _ = self.script.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Bytes a second through a command that copies its stdin.
fn bare(command: &mut Command, record: usize, bytes: usize) -> f64 {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the command");
    let mut stdin = child.stdin.take().expect("its stdin");
    let mut stdout = child.stdout.take().expect("its stdout");
    let block = line(record).repeat((64 << 10) / record);
    // The connection is made before time is taken.
    stdin.write_all(b"\n").expect("it reads");
    let mut room = vec![0; 256 << 10];
    assert_eq!(stdout.read(&mut room).expect("it answers"), 1);
    let begun = Instant::now();
    let writer = std::thread::spawn(move || {
        let mut left = bytes;
        while left > 0 {
            let n = left.min(block.len());
            stdin.write_all(&block.as_bytes()[..n]).expect("it reads");
            left -= n;
        }
    });
    let mut read = 0;
    while read < bytes {
        read += match stdout.read(&mut room).expect("it writes") {
            0 => panic!("only {read} of {bytes} bytes came back"),
            n => n,
        };
    }
    let took = begun.elapsed();
    writer.join().expect("everything is written");
    child.wait().expect("it ends");
    bytes as f64 / took.as_secs_f64()
}

fn line(record: usize) -> String {
    format!("{}\n", "x".repeat(record - 1))
}

/// The same through a feed with one worker.
fn fed(template: Template, record: usize, bytes: usize) -> f64 {
    let count = bytes / record;
    let text = line(record - 1).trim_end().to_owned();
    let mut feed =
        std::iter::repeat_n(text, count + 1).feed(template).workers(1).buffer(50_000).start();
    feed.next().expect("an item").expect("a reply");
    let begun = Instant::now();
    for reply in feed.by_ref() {
        reply.expect("a reply");
    }
    (count * record) as f64 / begun.elapsed().as_secs_f64()
}

/// Seconds until each of so many workers has answered.
fn start(template: Template, workers: usize) -> f64 {
    let begun = Instant::now();
    let endless = (0u64..).map(|n| n.to_string());
    let feed = endless.feed(template).workers(workers).buffer(4 * workers).order(Order::Completion);
    let mut seen = BTreeSet::new();
    for reply in feed.start() {
        seen.insert(reply.expect("a reply").to_vec());
        if seen.len() == workers {
            break;
        }
    }
    begun.elapsed().as_secs_f64()
}

/// Seconds for one record, alone.
fn round_trip(template: Template, count: u64) -> f64 {
    let (question, questions) = std::sync::mpsc::channel::<&'static str>();
    let mut feed = questions.into_iter().feed_subprocesses_ordered(template, 1, 1);
    let mut ask = || {
        question.send("x").expect("the feed runs");
        feed.next().expect("an item").expect("a reply");
    };
    (0..20).for_each(|_| ask());
    let begun = Instant::now();
    (0..count).for_each(|_| ask());
    begun.elapsed().as_secs_f64() / count as f64
}

fn who() -> Template {
    Template::shell("while read -r x; do echo {id}; done")
}

fn ssh(bench: &mut Bench, sshd: &Daemon) {
    let config = sshd.dir.join("ssh_config");
    let launcher = || Launcher::ssh(["node1"]).config_file(&config);
    let cat = || Template::new("cat").via(launcher());
    let bytes = bench.amount(200_000_000, 30_000_000) as usize;
    for record in [100, 4096] {
        let mut command = Command::new("ssh");
        command.args(["-T", "-o", "EscapeChar=none", "-F"]).arg(&config).args(["node1", "cat"]);
        bench.pair(
            &format!("ssh_{record}_over_bare"),
            Side::new("feed", MB_PER_S, || fed(cat(), record, bytes)),
            Side::new("ssh host cat", MB_PER_S, || bare(&mut command, record, bytes)),
        );
    }
    bench.alone("ssh_start_16", MILLIS, || start(who().via(launcher()), 16));
    bench.alone("ssh_start_16_unshared", MILLIS, || {
        start(who().via(launcher().option("ControlMaster=no")), 16)
    });
    let count = bench.amount(5_000, 1_000);
    bench.alone("ssh_round_trip", MICROS, || round_trip(cat(), count));
    // Their connections last a little longer than they do.
    std::thread::sleep(Duration::from_millis(100));
}

fn srun(bench: &mut Bench, slurm: &Daemon) {
    let (conf, job) = (&slurm.ready[0], format!("--jobid={}", slurm.ready[1]));
    let nodes = |n: usize| (1..=n).map(|node| Host::new(format!("n{node}")));
    // The environment of an allocation, for srun alone.
    let via = |template: Template, n: usize| {
        let launcher = Launcher::srun().hosts(nodes(n)).option(&job).carry(Carry::Inherited);
        template.env("SLURM_CONF", conf).via(launcher)
    };
    let bytes = bench.amount(40_000_000, 10_000_000) as usize;
    for record in [100, 4096] {
        let mut command = Command::new("srun");
        command.args(["-u", "--exact", "--overlap", "-n1", "-N1", "-w", "n1", &job, "cat"]);
        command.env("SLURM_CONF", conf);
        bench.pair(
            &format!("srun_{record}_over_bare"),
            Side::new("feed", MB_PER_S, || fed(via(Template::new("cat"), 1), record, bytes)),
            Side::new("srun -u cat", MB_PER_S, || bare(&mut command, record, bytes)),
        );
    }
    bench.alone("srun_start_16", MILLIS, || start(via(who(), 4), 16));
    let count = bench.amount(2_000, 500);
    bench.alone("srun_round_trip", MICROS, || round_trip(via(Template::new("cat"), 1), count));
}
