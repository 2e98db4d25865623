//! The worker: this program again. Its fate is drawn from the round's seed and the number of its session.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::os::fd::FromRawFd;
use std::os::unix::process::CommandExt;
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::plan::{Mood, Plan, answer};
use super::rng::Rng;

/// The first argument of a worker, and of a grandchild.
pub(crate) const WORKER: &str = "--chaos-worker";
pub(crate) const GRANDCHILD: &str = "--chaos-grandchild";

unsafe extern "C" {
    safe fn close(fd: i32) -> i32;
    safe fn raise(signal: i32) -> i32;
    safe fn setsid() -> i32;
    safe fn signal(signal: i32, handler: usize) -> usize;
}

const SIGTERM: i32 = 15;
const SIG_IGN: usize = 1;

/// If this process was started as a worker or a grandchild, is one and does not return.
pub(crate) fn take_over() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some(WORKER) => Worker::new(&args[2..]).run(),
        Some(GRANDCHILD) => {
            thread::sleep(Duration::from_millis(args[2].parse().expect("a time")));
            process::exit(0)
        }
        _ => {}
    }
}

struct Worker {
    plan: Plan,
    rng: Rng,
    journal: File,
    mood: Mood,
    withholds: bool,
    input: BufReader<File>,
    /// Replies that are withheld.
    kept: Vec<u8>,
}

impl Worker {
    /// Arguments: the seed, the worker's number, the journal.
    fn new(args: &[String]) -> Self {
        let seed = args[0].parse().expect("a seed");
        let plan = Plan::draw(seed);
        let mut sessions = OpenOptions::new()
            .append(true)
            .create(true)
            .open(format!("{}.sessions", args[2]))
            .expect("sessions");
        sessions.write_all(b".").expect("sessions");
        // The position after an append is the number of this session, whoever else appends.
        let session = sessions.stream_position().expect("sessions");
        let mut rng = Rng::fork(seed, 1_000 + session);
        let mood = rng.pick(&plan.moods);
        let journal =
            OpenOptions::new().append(true).create(true).open(&args[2]).expect("a journal");
        // Some read a byte at a time, some a block.
        let ahead = rng.pick(&[1, 100, 4096, 65536]);
        // SAFETY: nobody else in this process reads or owns the descriptor 0.
        let stdin = unsafe { File::from_raw_fd(0) };
        let withholds =
            mood == Mood::Withholding || (plan.moods.contains(&Mood::Withholding) && rng.one_in(3));
        let input = BufReader::with_capacity(ahead, stdin);
        Self { plan, rng, journal, mood, withholds, input, kept: Vec::new() }
    }

    fn note(&mut self, what: &str) {
        // One write, so that lines do not mix.
        let _ = self.journal.write_all(format!("{what}\n").as_bytes());
    }

    fn run(mut self) -> ! {
        if self.plan.stubborn.is_some_and(|n| self.rng.one_in(n)) {
            self.note("fault ignores SIGTERM");
            signal(SIGTERM, SIG_IGN);
        }
        if self.plan.stubborn.is_some() && self.rng.one_in(8) {
            self.note("fault closes stderr");
            close(2);
        }
        if self.withholds {
            self.note("fault withholds");
        }
        if self.mood == Mood::Dying && self.rng.one_in(self.plan.death) {
            self.note("fault dies before reading");
            self.die();
        }
        let mut record = Vec::new();
        loop {
            record.clear();
            if !matches!(self.input.read_until(b'\n', &mut record), Ok(n) if n > 0) {
                break;
            }
            if record.pop_if(|byte| *byte == b'\n').is_none() {
                // What a shell would do with the half of a line: run it.
                self.note("torn");
                break;
            }
            if self.plan.at_most_once {
                self.note(&format!("read {}", number(&record)));
            }
            self.serve(&record);
        }
        self.flush();
        if self.rng.one_in(8) {
            thread::sleep(Duration::from_millis(self.rng.range(1..=20)));
        }
        process::exit(0)
    }

    fn serve(&mut self, record: &[u8]) {
        if self.plan.is_poison(number(record)) {
            if self.plan.poison_hangs {
                self.note("fault hangs");
                thread::sleep(Duration::from_secs(600));
            }
            self.note("fault poison");
            self.die();
        }
        if self.plan.flood.is_some_and(|n| self.rng.one_in(n)) {
            self.note("fault floods stderr");
            let _ = io::stderr().write_all(&vec![0xff; self.rng.range(1..=300_000) as usize]);
        }
        if self.plan.family.is_some_and(|n| self.rng.one_in(n)) {
            self.procreate();
        }
        let mut reply = answer(record);
        reply.push(b'\n');
        match self.mood {
            Mood::Dying if self.rng.one_in(self.plan.death) => self.die_at(&reply),
            Mood::Closing if self.rng.one_in(self.plan.death) => self.close_something(&reply),
            Mood::Sleepy if self.rng.one_in(10) => {
                thread::sleep(Duration::from_micros(self.rng.below(5_000)));
            }
            _ => {}
        }
        self.kept.extend(reply);
        if !self.withholds || self.kept.len() >= 4096 {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let kept = std::mem::take(&mut self.kept);
        print(&kept);
    }

    /// Dies with none, all, or a part of what it has to say said.
    fn die_at(&mut self, reply: &[u8]) -> ! {
        let mut said = std::mem::take(&mut self.kept);
        said.extend_from_slice(reply);
        let cut = match self.rng.below(4) {
            0 => 0,
            1 => said.len(),
            _ => self.rng.below(said.len() as u64) as usize,
        };
        self.note(match cut {
            0 => "fault dies before its reply",
            n if n == said.len() => "fault dies after its reply",
            _ => "fault dies in its reply",
        });
        print(&said[..cut]);
        self.die()
    }

    fn die(&mut self) -> ! {
        if self.plan.may_leave && self.rng.one_in(3) {
            self.note("fault leaves with status 0");
            process::exit(0);
        }
        match self.rng.below(5) {
            0 => process::exit(3),
            n => raise([6, 9, 11, 15][n as usize - 1]),
        };
        // SIGTERM may be ignored.
        process::exit(4)
    }

    /// Closes a pipe and goes on for a while, or stays.
    fn close_something(&mut self, reply: &[u8]) -> ! {
        let rest = self.input.buffer().to_vec();
        if self.rng.one_in(4) {
            self.note("fault closes stdout");
            close(1);
            let stays = self.rng.pick(&[0, 600]);
            // A grandchild may hold the pipe: then nobody can tell it from one that is slow.
            let stays = if self.plan.family.is_some() { 0 } else { stays };
            thread::sleep(Duration::from_secs(stays));
            process::exit(5)
        }
        self.note("fault closes stdin");
        close(0);
        self.flush();
        print(reply);
        // What it has read whole it answers.
        for record in rest.split_inclusive(|&byte| byte == b'\n') {
            if let Some(record) = record.strip_suffix(b"\n") {
                if self.plan.is_poison(number(record)) {
                    break;
                }
                if self.plan.at_most_once {
                    self.note(&format!("read {}", number(record)));
                }
                let mut reply = answer(record);
                reply.push(b'\n');
                print(&reply);
            }
        }
        thread::sleep(Duration::from_millis(self.rng.pick(&[0, 0, 0, 5, 5, 5, 5, 600_000])));
        process::exit(if self.plan.may_leave { 0 } else { 5 })
    }

    /// Leaves a process behind that holds stdout and stderr.
    fn procreate(&mut self) {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        let time = self.rng.pick(&["0", "5", "600000"]);
        command.args([GRANDCHILD, time]).stdin(Stdio::null());
        if self.rng.one_in(3) {
            self.note("fault grandchild leaves the group");
            let leave = || {
                setsid();
                Ok(())
            };
            // SAFETY: setsid is async-signal-safe.
            unsafe { command.pre_exec(leave) };
        } else {
            self.note("fault grandchild");
        }
        let _ = command.spawn();
    }
}

fn number(record: &[u8]) -> u64 {
    let digits = record.split(|&byte| byte == b':').next().unwrap_or_default();
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX)
}

fn print(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    if stdout.write_all(bytes).and_then(|()| stdout.flush()).is_err() {
        process::exit(97);
    }
}
