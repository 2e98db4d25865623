//! A worker that misbehaves on request: the first argument names how.
//!
//! No dependencies, and everything happens by events, never by a sleep that must be long enough.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

// What std does not offer; it links the C library anyway.
unsafe extern "C" {
    safe fn _exit(code: i32) -> !;
    safe fn close(fd: i32) -> i32;
    safe fn getpgid(pid: i32) -> i32;
    safe fn getppid() -> i32;
    safe fn pause() -> i32;
    fn poll(fds: *mut PollFd, count: u64, timeout: i32) -> i32;
    fn ptrace(request: u32, ...) -> i64;
    safe fn raise(signal: i32) -> i32;
    safe fn setpgid(pid: i32, group: i32) -> i32;
    safe fn setsid() -> i32;
    safe fn signal(signal: i32, handler: usize) -> usize;
    fn sigtimedwait(set: *const [u64; 16], info: *mut u8, limit: *const [i64; 2]) -> i32;
    fn write(fd: i32, bytes: *const u8, len: usize) -> isize;
}

/// What `poll` takes.
#[repr(C)]
struct PollFd {
    fd: i32,
    events: i16,
    revents: i16,
}

const POLLIN: i16 = 1;

/// Begins to trace a process without stopping it.
const PTRACE_SEIZE: u32 = 0x4206;

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIG_IGN: usize = 1;

/// Where `signals` writes what it is sent.
static LOG: AtomicI32 = AtomicI32::new(-1);
/// Whether it leaves with the first.
static LEAVES: AtomicBool = AtomicBool::new(false);

extern "C" fn written_down(signal: i32) {
    let line: &[u8] = match signal {
        SIGHUP => b"hup\n",
        SIGINT => b"int\n",
        _ => b"term\n",
    };
    // SAFETY: it reads these bytes, and is async-signal-safe.
    unsafe { write(LOG.load(SeqCst), line.as_ptr(), line.len()) };
    if LEAVES.load(SeqCst) {
        _exit(0);
    }
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    behave(&args);
}

/// Does as the words say, of which the first is the behaviour's name.
fn behave(words: &[String]) {
    let (behaviour, args) = words.split_first().expect("a behaviour");
    let args = args.to_vec();
    let number = |i: usize| args[i].parse::<i64>().expect("a number");
    match behaviour.as_str() {
        "echo" => echo(),
        // Replies after so many milliseconds.
        "slow" => each(|record| {
            thread::sleep(Duration::from_millis(number(0).unsigned_abs()));
            reply(record);
        }),
        // Exits at once, with this code, having read nothing.
        "exit" => {
            eprintln!("I do not feel like it");
            exit(number(0));
        }
        // Exits with a code after k replies.
        "exit_after" => {
            for _ in 0..number(0) {
                let Some(record) = read() else { break };
                reply(&record);
            }
            exit(number(1));
        }
        // Reads the k-th record and dies of a signal.
        "signal_at" => {
            for k in 1.. {
                let Some(record) = read() else { break };
                if k == number(0) {
                    raise(number(1) as i32);
                }
                reply(&record);
            }
        }
        // Dies when it reads the record `poison`; writes its last words on stderr.
        "poison" => each(|record| {
            if record == b"poison" {
                eprintln!("that was poison");
                raise(9);
            }
            reply(record);
        }),
        // Answers k records, then half of the next, and exits.
        "half" => {
            for _ in 0..number(0) {
                let Some(record) = read() else { break };
                reply(&record);
            }
            let Some(record) = read() else { return };
            print(&record[..record.len().div_ceil(2)]);
            exit(number(1));
        }
        // One reply too many after the k-th.
        "extra" => {
            for k in 1.. {
                let Some(record) = read() else { break };
                reply(&record);
                if k == number(0) {
                    reply(b"one too many");
                }
            }
        }
        // One reply too many once its stdin has ended.
        "trailing" => {
            echo();
            reply(b"one too many");
        }
        // Drops every record `skip`, as a filter would.
        "skip" => each(|record| {
            if record != b"skip" {
                reply(record);
            }
        }),
        // Reads everything and answers nothing.
        "silent" => while read().is_some() {},
        // Reads k records, closes its stdin, and answers only then.
        "close_stdin" => {
            let records: Vec<_> = (0..number(0)).map_while(|_| read()).collect();
            close(0);
            for record in records {
                thread::sleep(Duration::from_millis(5));
                reply(&record);
            }
        }
        // Answers k records, closes its stdout, and lives on.
        "close_stdout" => {
            for _ in 0..number(0) {
                let Some(record) = read() else { return };
                reply(&record);
            }
            close(1);
            for_ever();
        }
        // So many bytes on stderr before each reply.
        "flood" => each(|record| {
            let line = [b'x'; 1023];
            let mut stderr = io::stderr().lock();
            for _ in 0..number(0) / 1024 {
                let _ = stderr.write_all(&line).and_then(|()| stderr.write_all(b"\n"));
            }
            let _ = stderr.write_all(b"the last line\n");
            reply(record);
        }),
        // Withholds its replies as stdio does: writes when so many bytes have gathered, and at the end.
        "stdio" => {
            let mut held = Vec::new();
            while let Some(record) = read() {
                held.extend_from_slice(&record);
                held.push(b'\n');
                if held.len() as i64 >= number(0) {
                    print(&held);
                    held.clear();
                }
            }
            print(&held);
        }
        // Answers, and stays when its stdin has ended.
        "deaf" => {
            echo();
            for_ever();
        }
        // The same, and ignores SIGTERM.
        "stubborn" => {
            signal(SIGTERM, SIG_IGN);
            echo();
            for_ever();
        }
        // A grandchild in the same group holds stdout and stderr open.
        "grandchild" => {
            grandchild(&args, false);
            echo();
        }
        // A grandchild in a session of its own does.
        "daemon" => {
            grandchild(&args, true);
            echo();
        }
        "hold" => for_ever(),
        // Writes down, in the file `args[0]`, each signal that it is sent, and says when it has begun to: there
        // is a file of that name with `.up` behind it. Leaves with the first signal, or stays; before it says
        // anything, a grandchild in the same group does the same with the file `args[2]`.
        "signals" => {
            let log = OpenOptions::new().append(true).create(true).open(&args[0]).expect("log");
            LOG.store(log.into_raw_fd(), SeqCst);
            LEAVES.store(args[1] == "leaves", SeqCst);
            for number in [SIGHUP, SIGINT, SIGTERM] {
                signal(number, written_down as extern "C" fn(i32) as usize);
            }
            if let Some(inner) = args.get(2) {
                let mut command = Command::new(env::current_exe().expect("this program"));
                command.args(["signals", inner, "stays"]).stdin(Stdio::null());
                #[expect(clippy::zombie_processes, reason = "it is meant to be left behind")]
                let child = command.stdout(Stdio::null()).spawn().expect("a grandchild");
                await_file(Path::new(&format!("{inner}.up")));
                fs::write(format!("{inner}.pid"), child.id().to_string()).expect("the pid file");
            }
            fs::write(format!("{}.up", args[0]), "").expect("a file");
            echo();
            for_ever();
        }
        // Leaves the group that it leads for its parent's, and is deaf to SIGTERM; then as the other words say.
        "regroup" => {
            signal(SIGTERM, SIG_IGN);
            assert_eq!(setpgid(0, getpgid(getppid())), 0, "a process in no other session");
            behave(&args);
        }
        // Has a thread beside its own that waits in one of the calls that a time or a signal ends.
        "beside" => {
            let call = args[0].clone();
            thread::spawn(move || asleep(&call));
            behave(&args[1..]);
        }
        // Waits in `poll`, as event loops do, and answers each record; what comes after the record `open` belongs
        // to it, and it leaves at the end of that.
        "poller" => {
            // SAFETY: nobody else in here reads it.
            let mut stdin = unsafe { File::from_raw_fd(0) };
            let (mut unread, mut is_open) = (Vec::new(), false);
            loop {
                let mut fds = [PollFd { fd: 0, events: POLLIN, revents: 0 }];
                // SAFETY: it is told of one, and that is how many there are.
                unsafe { poll(fds.as_mut_ptr(), 1, -1) };
                let mut room = [0; 4096];
                let n = stdin.read(&mut room).expect("a pipe");
                if n == 0 {
                    exit(0);
                }
                unread.extend_from_slice(&room[..n]);
                while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = unread.drain(..=end).collect();
                    is_open |= line == b"open\n";
                    if !is_open {
                        print(&line);
                    }
                }
            }
        }
        // A line before the first request.
        "banner" => {
            reply(b"Welcome to banner 1.0");
            echo();
        }
        // A reply of as many bytes as the record says.
        "bytes" => each(|record| {
            let n: usize = String::from_utf8_lossy(record).parse().expect("a size");
            let mut bytes = vec![b'b'; n];
            bytes.push(b'\n');
            print(&bytes);
        }),
        // Its own open descriptors, in place of a reply.
        "fds" => each(|_| reply(fds().as_bytes())),
        // Its pid.
        "pid" => each(|_| reply(process::id().to_string().as_bytes())),
        // An environment variable, and its other arguments.
        "about" => each(|record| {
            let name = String::from_utf8_lossy(record);
            let value = env::var(&*name).unwrap_or_else(|_| "(unset)".to_owned());
            let dir = env::current_dir().unwrap_or_default();
            reply(format!("{value}|{}|{}", args.join(","), dir.display()).as_bytes());
        }),
        // Answers a record when there is a file of its name in the directory.
        "when" => each(|record| {
            await_file(&Path::new(&args[0]).join(&*String::from_utf8_lossy(record)));
            reply(record);
        }),
        // Does nothing at all before the file is there.
        "late" => {
            await_file(Path::new(&args[0]));
            echo();
        }
        // Appends what it reads to a file, byte by byte, before it answers.
        "log" => {
            let mut log = OpenOptions::new().append(true).create(true).open(&args[0]).expect("log");
            each(|record| {
                log.write_all(&[record, b"\n"].concat()).expect("log");
                reply(record);
            });
        }
        // Reads nothing until the file is there, and copies whatever it gets, cut or not, to another.
        "swallow" => {
            await_file(Path::new(&args[0]));
            let mut log = OpenOptions::new().append(true).create(true).open(&args[1]).expect("log");
            let _ = io::copy(&mut io::stdin().lock(), &mut log);
        }
        // Traces the process that a record names, and never waits for it: its zombie stays.
        "trace" => each(|record| {
            let pid: i64 = String::from_utf8_lossy(record).parse().expect("a pid");
            // SAFETY: the request takes a pid and two words that are not used, and stores nothing.
            let traced = unsafe { ptrace(PTRACE_SEIZE, pid, 0_usize, 0_usize) };
            reply(if traced == 0 { b"yes" } else { b"no" });
        }),
        other => {
            eprintln!("no behaviour is named {other:?}");
            exit(64);
        }
    }
}

fn exit(code: i64) -> ! {
    process::exit(code as i32)
}

/// Long enough for any test, and not for ever should a test fail to end it.
fn for_ever() -> ! {
    thread::sleep(Duration::from_secs(300));
    exit(99)
}

/// Waits in a call that a time or a signal ends, which never comes.
fn asleep(call: &str) {
    match call {
        "sleep" => thread::sleep(Duration::from_secs(100)),
        "futex" => thread::park_timeout(Duration::from_secs(100)),
        "suspend" => drop(pause()),
        "sigwait" => {
            // One that nobody sends: SIGUSR2.
            let (mut set, limit) = ([0; 16], [100, 0]);
            set[0] = 1 << 11;
            // SAFETY: the set and the time are as large as they have to be, and nobody wants the details.
            unsafe { sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const limit) };
        }
        other => panic!("no call is named {other:?}"),
    }
}

fn await_file(path: &Path) {
    for _ in 0..300_000 {
        if path.exists() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    exit(98)
}

/// One line of stdin, byte by byte: nothing is read ahead.
fn read() -> Option<Vec<u8>> {
    let mut stdin = io::stdin().lock();
    let mut record = Vec::new();
    let mut byte = [0];
    // `Stdin` buffers, but only what this process will read anyway, until it exits or closes.
    loop {
        match stdin.read(&mut byte) {
            Ok(0) if record.is_empty() => return None,
            Ok(0) => return Some(record),
            Ok(_) if byte[0] == b'\n' => return Some(record),
            Ok(_) => record.push(byte[0]),
            Err(_) => return None,
        }
    }
}

fn each(mut f: impl FnMut(&[u8])) {
    while let Some(record) = read() {
        f(&record);
    }
}

fn echo() {
    each(reply);
}

fn reply(record: &[u8]) {
    print(&[record, b"\n"].concat());
}

fn print(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    if stdout.write_all(bytes).and_then(|()| stdout.flush()).is_err() {
        exit(97);
    }
}

/// Starts a process that holds stdout and stderr, and leaves its pid in the file `args[0]`.
fn grandchild(args: &[String], own_session: bool) {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.arg("hold").stdin(Stdio::null());
    if own_session {
        let leave = || {
            setsid();
            Ok(())
        };
        // SAFETY: setsid is async-signal-safe.
        unsafe { command.pre_exec(leave) };
    }
    #[expect(clippy::zombie_processes, reason = "it is meant to be left behind")]
    let child = command.spawn().expect("a grandchild");
    // Whole or not at all: the test waits for it.
    let path = PathBuf::from(&args[0]);
    let draft = path.with_extension("draft");
    fs::write(&draft, child.id().to_string()).expect("the pid file");
    fs::rename(&draft, &path).expect("the pid file");
}

fn fds() -> String {
    let mut fds: Vec<i32> = fs::read_dir("/proc/self/fd")
        .expect("/proc")
        .filter_map(|entry| {
            let entry = entry.ok()?;
            // Not the descriptor that lists the directory.
            let target = fs::read_link(entry.path()).ok()?;
            let listing = target.starts_with("/proc") && target.ends_with("fd");
            if listing { None } else { entry.file_name().to_str()?.parse().ok() }
        })
        .collect();
    fds.sort_unstable();
    let words: Vec<String> = fds.iter().map(i32::to_string).collect();
    words.join(" ")
}
