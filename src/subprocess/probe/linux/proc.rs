//! `/proc`, read as gaps instead of errors.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{FileStat, SFlag, major, minor, stat};
use nix::unistd::{Pid, getpgid};

use super::super::ChannelId;
use super::call::Line;
use crate::subprocess::evidence::Obstacle;

/// The unit of times in `stat`: the kernel shows a hundredth of a second here, whatever it counts itself.
const TICK: Duration = Duration::from_millis(10);

/// Why something was not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Gap {
    /// The thread or process has ended meanwhile.
    Gone,
    /// It is kept from us.
    Hidden,
}

/// How often a thread has left the processor, and how it stands now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Status {
    state: State,
    tracer: i32,
    voluntary: u64,
    involuntary: u64,
}

/// What a thread does, as far as the letter that `ps` shows tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum State {
    Sleeping,
    DiskWait,
    Stopped,
    /// Stopped by a debugger.
    Traced,
    /// Dead, and only unburied.
    Dead,
    Running,
}

impl Status {
    pub(in super::super) fn state(&self) -> State {
        self.state
    }

    /// The process that traces it, or 0.
    pub(in super::super) fn tracer(&self) -> i32 {
        self.tracer
    }
}

/// What `/proc/<pid>/task/<tid>/stat` says of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Stat {
    started: u64,
    session: i32,
    /// Its controlling terminal as the kernel counts devices, or 0.
    terminal: i32,
    /// User and system time, in ticks.
    ticks: u64,
}

/// What is behind a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Target {
    Pipe(ChannelId),
    /// Its controlling terminal.
    Terminal,
    Device,
    Socket,
    File,
    /// An eventfd, an inotify instance and the like; or the descriptor was closed during the call.
    Other,
}

/// Why `/proc` cannot be asked at all. In a container it may be that of another pid namespace, where our
/// numbers mean strangers.
pub(in super::super) fn obstacle() -> Option<Obstacle> {
    match fs::read_link("/proc/self") {
        Err(_) => Some(Obstacle::NoProc),
        Ok(own) if own.as_os_str() != OsStr::new(&std::process::id().to_string()) => {
            Some(Obstacle::OtherNamespace)
        }
        // Kernel options.
        Ok(_) => ["syscall", "children"]
            .iter()
            .any(|name| !Path::new("/proc/thread-self").join(name).exists())
            .then_some(Obstacle::NoProc),
    }
}

/// The process group of `pid`.
pub(in super::super) fn group_of(pid: i32) -> Result<i32, Gap> {
    match getpgid(Some(Pid::from_raw(pid))) {
        Ok(group) => Ok(group.as_raw()),
        Err(Errno::ESRCH) => Err(Gap::Gone),
        Err(_) => Err(Gap::Hidden),
    }
}

/// The members of each of `groups`, wherever in the tree of processes they hang.
///
/// `getpgid` costs a tenth of reading `/proc/<pid>/stat`; listing the directory is the rest.
pub(in super::super) fn census(groups: &HashSet<i32>) -> Result<HashMap<i32, Vec<i32>>, Gap> {
    let mut members: HashMap<i32, Vec<i32>> = HashMap::new();
    for pid in numbers("/proc")? {
        match group_of(pid) {
            Ok(group) if groups.contains(&group) => members.entry(group).or_default().push(pid),
            // What ended since it was listed does not compute any more.
            Ok(_) | Err(Gap::Gone) => {}
            Err(Gap::Hidden) => return Err(Gap::Hidden),
        }
    }
    Ok(members)
}

/// The threads of `pid`, the first one first.
pub(in super::super) fn threads(pid: i32) -> Result<Vec<i32>, Gap> {
    numbers(format!("/proc/{pid}/task")).map_err(|gap| match group_of(pid) {
        // It is there, and its directory is not (`hidepid`).
        Ok(_) => Gap::Hidden,
        Err(_) => gap,
    })
}

/// State and context-switch counters of a thread.
pub(in super::super) fn status(pid: i32, tid: i32) -> Result<Status, Gap> {
    parse_status(&text(pid, tid, "status")?).ok_or(Gap::Hidden)
}

/// The call in which a thread sleeps.
pub(in super::super) fn call(pid: i32, tid: i32) -> Result<Line, Gap> {
    Line::parse(&text(pid, tid, "syscall")?)
}

/// What does not change while a thread lives, and what it has used.
pub(in super::super) fn thread_stat(pid: i32, tid: i32) -> Result<Stat, Gap> {
    parse_stat(&text(pid, tid, "stat")?).ok_or(Gap::Hidden)
}

/// The signal that has stopped a process; `None` where the kernel (before 5.17) does not tell.
pub(in super::super) fn stop_signal(pid: i32) -> Option<i32> {
    // Not that of a thread, in which this field is 0. (It is the exit code of a process that has exited.)
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse_exit_code(&text).filter(|&signal| signal > 0)
}

/// The processor time that a thread has used: how much, and by how much that may be wrong.
pub(in super::super) fn used(pid: i32, tid: i32, stat: &Stat) -> Result<(Duration, Duration), Gap> {
    match text(pid, tid, "schedstat") {
        Ok(text) => {
            let mut words = text.split(u8::is_ascii_whitespace).map(number::<u64>);
            let nanoseconds = words.next().flatten().ok_or(Gap::Hidden)?;
            // All is 0 where nobody counts: that of a thread that has been on a processor is not.
            if nanoseconds > 0 {
                return Ok((Duration::from_nanos(nanoseconds), Duration::ZERO));
            }
        }
        Err(gap) if Path::new("/proc/thread-self/schedstat").exists() => return Err(gap),
        // A kernel option.
        Err(_) => {}
    }
    // User and system time are rounded, each for itself.
    Ok((TICK.saturating_mul(stat.ticks.try_into().unwrap_or(u32::MAX)), 2 * TICK))
}

/// The child processes that a thread has started. The kernel warns that the list may be short while
/// children come and go; where it is believed, all of them sleep.
pub(in super::super) fn children(pid: i32, tid: i32) -> Result<Vec<i32>, Gap> {
    text(pid, tid, "children")?
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .map(|word| number(word).ok_or(Gap::Hidden))
        .collect()
}

/// What is behind the descriptor `fd` of a thread. Asked per thread, not per process:
/// `unshare(CLONE_FILES)` exists.
pub(in super::super) fn target(pid: i32, tid: i32, fd: i32, own: &Stat) -> Result<Target, Gap> {
    let found = match stat(format!("/proc/{pid}/task/{tid}/fd/{fd}").as_str()) {
        Ok(found) => found,
        Err(Errno::ENOENT | Errno::ESRCH) => return Ok(Target::Other),
        Err(_) => return Err(Gap::Hidden),
    };
    if let Some(id) = ChannelId::of_pipe(&found) {
        return Ok(Target::Pipe(id));
    }
    let kind = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
    Ok(match kind {
        SFlag::S_IFSOCK => Target::Socket,
        SFlag::S_IFCHR if own.is_terminal(&found) => Target::Terminal,
        SFlag::S_IFCHR => Target::Device,
        SFlag::S_IFREG | SFlag::S_IFBLK | SFlag::S_IFDIR => Target::File,
        _ => Target::Other,
    })
}

/// Whether the pipe behind a descriptor has no name in a file system, so that nobody can open it
/// by one.
pub(in super::super) fn is_anonymous(pid: i32, tid: i32, fd: i32) -> Result<bool, Gap> {
    let name = fs::read_link(format!("/proc/{pid}/task/{tid}/fd/{fd}"));
    let name = name.map_err(|error| gap(&error))?;
    Ok(name.as_os_str().as_bytes().starts_with(b"pipe:["))
}

/// The pipes that a process may write to.
pub(in super::super) fn written_pipes(pid: i32) -> Result<HashSet<ChannelId>, Gap> {
    let mut found = HashSet::new();
    let directory = format!("/proc/{pid}/fd");
    for fd in numbers(&directory)? {
        let path = format!("{directory}/{fd}");
        // The link's own permissions are the descriptor's access mode.
        let link = fs::symlink_metadata(&path).map_err(|error| gap(&error))?;
        if link.permissions().mode() & 0o200 != 0 {
            let target = stat(path.as_str()).map_err(|errno| gap(&errno.into()))?;
            found.extend(ChannelId::of_pipe(&target));
        }
    }
    Ok(found)
}

/// The pipes that we hold an end of ourselves.
pub(in super::super) fn own_pipes() -> Result<HashSet<ChannelId>, Gap> {
    let mut found = HashSet::new();
    // By number: an event loop of many workers has thousands, and paths cost ten times as much.
    for fd in numbers("/proc/self/fd")? {
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: `fstat` writes nothing but the structure that it is given. Another thread may
        // have closed the number, or opened it anew, since it was listed: the call then fails, or
        // tells of the new file.
        let result = unsafe { libc::fstat(fd, stat.as_mut_ptr()) };
        if result == 0 {
            // SAFETY: `fstat` has succeeded and filled the structure.
            found.extend(ChannelId::of_pipe(unsafe { stat.assume_init_ref() }));
        }
    }
    Ok(found)
}

impl Stat {
    /// When it started, in ticks since the machine did.
    pub(in super::super) fn started(&self) -> u64 {
        self.started
    }

    /// The leader of its session.
    pub(in super::super) fn session(&self) -> i32 {
        self.session
    }

    /// Whether `device` is the terminal that controls the thread's session.
    fn is_terminal(&self, device: &FileStat) -> bool {
        let (major, minor) = (major(device.st_rdev), minor(device.st_rdev));
        // How the kernel prints a device here, and the number of /dev/tty.
        let printed = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
        (major, minor) == (5, 0)
            || (self.terminal != 0 && u64::from(self.terminal.cast_unsigned()) == printed)
    }
}

/// The numeric names in a directory, in ascending order.
fn numbers(directory: impl AsRef<Path>) -> Result<Vec<i32>, Gap> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| gap(&error))? {
        let entry = entry.map_err(|error| gap(&error))?;
        found.extend(number::<i32>(entry.file_name().as_bytes()));
    }
    found.sort_unstable();
    Ok(found)
}

/// The whole of a thread's file.
fn text(pid: i32, tid: i32, name: &str) -> Result<Vec<u8>, Gap> {
    let read = || {
        let mut file = File::open(format!("/proc/{pid}/task/{tid}/{name}"))?;
        // One read fetches nearly all; `fs::read` would first ask for a size, which is 0 here.
        let mut text = Vec::with_capacity(2048);
        file.read_to_end(&mut text)?;
        Ok(text)
    };
    read().map_err(|error: io::Error| gap(&error))
}

fn gap(error: &io::Error) -> Gap {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ESRCH) => Gap::Gone,
        _ => Gap::Hidden,
    }
}

fn number<N: std::str::FromStr>(digits: &[u8]) -> Option<N> {
    str::from_utf8(digits).ok()?.parse().ok()
}

fn parse_status(text: &[u8]) -> Option<Status> {
    let (mut state, mut tracer) = (None, None);
    let (mut voluntary, mut involuntary) = (None, None);
    // A line break in a thread's name is printed escaped, so that no name can pose as a field.
    for line in text.split(|&byte| byte == b'\n') {
        if let Some(value) = line.strip_prefix(b"State:") {
            state = value.trim_ascii().first().map(|letter| match letter {
                b'S' => State::Sleeping,
                b'D' => State::DiskWait,
                b'T' => State::Stopped,
                b't' => State::Traced,
                b'Z' | b'X' => State::Dead,
                _ => State::Running,
            });
        } else if let Some(value) = line.strip_prefix(b"TracerPid:") {
            tracer = number(value.trim_ascii());
        } else if let Some(value) = line.strip_prefix(b"voluntary_ctxt_switches:") {
            voluntary = number(value.trim_ascii());
        } else if let Some(value) = line.strip_prefix(b"nonvoluntary_ctxt_switches:") {
            involuntary = number(value.trim_ascii());
        }
    }
    Some(Status {
        state: state?,
        tracer: tracer?,
        voluntary: voluntary?,
        involuntary: involuntary?,
    })
}

fn parse_stat(text: &[u8]) -> Option<Stat> {
    let words = stat_words(text)?;
    let field = |at: usize| words.get(at - FIRST).copied();
    let user: u64 = number(field(14)?)?;
    let system: u64 = number(field(15)?)?;
    Some(Stat {
        started: number(field(22)?)?,
        session: number(field(6)?)?,
        terminal: number(field(7)?)?,
        ticks: user.saturating_add(system),
    })
}

fn parse_exit_code(text: &[u8]) -> Option<i32> {
    number(stat_words(text)?.get(52 - FIRST)?)
}

/// The fields of a `stat` behind the name, which is in brackets and may hold anything.
fn stat_words(text: &[u8]) -> Option<Vec<&[u8]>> {
    let end = text.iter().rposition(|&byte| byte == b')')?;
    Some(text[end + 1..].trim_ascii().split(|&byte| byte == b' ').collect())
}

/// The number that proc(5) gives the first of these, the state.
const FIRST: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_without_counters_is_unreadable() {
        let whole = b"Name:\tState: R\nState:\tS (sleeping)\nTracerPid:\t7\n\
                      voluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        let status = Status { state: State::Sleeping, tracer: 7, voluntary: 12, involuntary: 3 };
        assert_eq!(parse_status(whole), Some(status));
        assert_eq!(parse_status(b"Name:\tx\nState:\tS (sleeping)\n"), None);
    }

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields_of_stat() {
        let numbers = (4..=52).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        for name in ["cat", "a) S 1 (b", ""] {
            let text = format!("12 ({name}) T {numbers}\n");
            let stat = parse_stat(text.as_bytes()).unwrap();
            assert_eq!(parse_exit_code(text.as_bytes()), Some(52), "{name}");
            assert_eq!((stat.started, stat.session, stat.terminal), (22, 6, 7), "{name}");
            assert_eq!(stat.ticks, 14 + 15, "{name}");
        }
        assert_eq!(parse_stat(b"12 (cat) T 1 2"), None);
    }

    #[test]
    fn what_is_gone_and_what_is_hidden_are_told_apart() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert_eq!(text(pid, 0, "status"), Err(Gap::Gone));
        assert_eq!(threads(i32::MAX), Err(Gap::Gone));
        assert_eq!(numbers("/proc/self/status"), Err(Gap::Hidden));
    }
}
