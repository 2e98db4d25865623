//! `/proc`, read as doubts instead of errors.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::stat;
use nix::unistd::{Pid, getpgid};

use super::super::{ChannelId, Doubt};
use super::call::Call;

/// How often a thread has left the processor, and how it stands now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Status {
    /// The letter that `ps` shows.
    pub(in super::super) state: u8,
    voluntary: u64,
    involuntary: u64,
}

/// Whether the `/proc` that is mounted counts processes as we do. In a container it may be that of
/// another pid namespace, where our numbers mean strangers.
pub(in super::super) fn is_ours() -> Result<(), Doubt> {
    let own = fs::read_link("/proc/self").map_err(|_| Doubt::Unreadable)?;
    if own.as_os_str() == OsStr::new(&std::process::id().to_string()) {
        Ok(())
    } else {
        Err(Doubt::Unreadable)
    }
}

/// The process group of `pid`.
pub(in super::super) fn group_of(pid: i32) -> Result<i32, Doubt> {
    match getpgid(Some(Pid::from_raw(pid))) {
        Ok(group) => Ok(group.as_raw()),
        Err(Errno::ESRCH) => Err(Doubt::Changed),
        Err(_) => Err(Doubt::Unreadable),
    }
}

/// The members of each of `groups`, wherever in the tree of processes they hang.
///
/// `getpgid` costs a tenth of reading `/proc/<pid>/stat`; listing the directory is the rest.
pub(in super::super) fn census(groups: &HashSet<i32>) -> Result<HashMap<i32, Vec<i32>>, Doubt> {
    let mut members: HashMap<i32, Vec<i32>> = HashMap::new();
    for pid in numbers("/proc")? {
        match group_of(pid) {
            Ok(group) if groups.contains(&group) => members.entry(group).or_default().push(pid),
            // What ended since it was listed does not compute any more.
            Ok(_) | Err(Doubt::Changed) => {}
            Err(doubt) => return Err(doubt),
        }
    }
    Ok(members)
}

/// The threads of `pid`, the first one first.
pub(in super::super) fn threads(pid: i32) -> Result<Vec<i32>, Doubt> {
    numbers(format!("/proc/{pid}/task"))
}

/// State and context-switch counters of a thread.
pub(in super::super) fn status(pid: i32, tid: i32) -> Result<Status, Doubt> {
    parse_status(&text(pid, tid, "status")?).ok_or(Doubt::Unreadable)
}

/// The call in which a thread sleeps.
pub(in super::super) fn call(pid: i32, tid: i32) -> Result<Call, Doubt> {
    Call::parse(&text(pid, tid, "syscall")?)
}

/// The child processes that a thread has started. The kernel warns that the list may be short while
/// children come and go; where it is believed, all of them sleep.
pub(in super::super) fn children(pid: i32, tid: i32) -> Result<Vec<i32>, Doubt> {
    text(pid, tid, "children")?
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .map(|word| number(word).ok_or(Doubt::Unreadable))
        .collect()
}

/// The pipe or FIFO behind the descriptor `fd` of a thread, if it is one. Asked per thread, not per
/// process: `unshare(CLONE_FILES)` exists.
pub(in super::super) fn pipe(pid: i32, tid: i32, fd: i32) -> Result<Option<ChannelId>, Doubt> {
    pipe_at(Path::new(&format!("/proc/{pid}/task/{tid}/fd/{fd}")))
}

/// Whether the pipe behind a descriptor has no name in a file system, so that nobody can open it
/// by one.
pub(in super::super) fn is_anonymous(pid: i32, tid: i32, fd: i32) -> Result<bool, Doubt> {
    let name = fs::read_link(format!("/proc/{pid}/task/{tid}/fd/{fd}"));
    let name = name.map_err(|error| doubt(&error))?;
    Ok(name.as_os_str().as_bytes().starts_with(b"pipe:["))
}

/// The pipes that a process may write to.
pub(in super::super) fn written_pipes(pid: i32) -> Result<HashSet<ChannelId>, Doubt> {
    let mut found = HashSet::new();
    let directory = format!("/proc/{pid}/fd");
    for fd in numbers(&directory)? {
        let path = format!("{directory}/{fd}");
        // The link's own permissions are the descriptor's access mode.
        let link = fs::symlink_metadata(&path).map_err(|error| doubt(&error))?;
        if link.permissions().mode() & 0o200 != 0 {
            found.extend(pipe_at(Path::new(&path))?);
        }
    }
    Ok(found)
}

/// The pipes that we hold an end of ourselves.
pub(in super::super) fn own_pipes() -> Result<HashSet<ChannelId>, Doubt> {
    let mut found = HashSet::new();
    // By number: a event loop of many workers has thousands, and paths cost ten times as much.
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

fn pipe_at(path: &Path) -> Result<Option<ChannelId>, Doubt> {
    match stat(path) {
        Ok(stat) => Ok(ChannelId::of_pipe(&stat)),
        Err(errno) => Err(doubt(&errno.into())),
    }
}

/// The numeric names in a directory, in ascending order.
fn numbers(directory: impl AsRef<Path>) -> Result<Vec<i32>, Doubt> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| doubt(&error))? {
        let entry = entry.map_err(|error| doubt(&error))?;
        found.extend(number::<i32>(entry.file_name().as_bytes()));
    }
    found.sort_unstable();
    Ok(found)
}

/// The whole of a thread's file.
fn text(pid: i32, tid: i32, name: &str) -> Result<Vec<u8>, Doubt> {
    let read = || {
        let mut file = File::open(format!("/proc/{pid}/task/{tid}/{name}"))?;
        // One read fetches nearly all; `fs::read` would first ask for a size, which is 0 here.
        let mut text = Vec::with_capacity(2048);
        file.read_to_end(&mut text)?;
        Ok(text)
    };
    read().map_err(|error: io::Error| {
        // Gone, or never there: `syscall` and `children` are kernel options.
        let here = || Path::new(&format!("/proc/thread-self/{name}")).exists();
        match doubt(&error) {
            Doubt::Changed if !here() => Doubt::Unreadable,
            doubt => doubt,
        }
    })
}

fn doubt(error: &io::Error) -> Doubt {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ESRCH) => Doubt::Changed,
        _ => Doubt::Unreadable,
    }
}

fn number<N: std::str::FromStr>(digits: &[u8]) -> Option<N> {
    str::from_utf8(digits).ok()?.parse().ok()
}

fn parse_status(text: &[u8]) -> Option<Status> {
    let (mut state, mut voluntary, mut involuntary) = (None, None, None);
    // A line break in a thread's name is printed escaped, so that no name can pose as a field.
    for line in text.split(|&byte| byte == b'\n') {
        if let Some(value) = line.strip_prefix(b"State:") {
            state = value.trim_ascii().first().copied();
        } else if let Some(value) = line.strip_prefix(b"voluntary_ctxt_switches:") {
            voluntary = number(value.trim_ascii());
        } else if let Some(value) = line.strip_prefix(b"nonvoluntary_ctxt_switches:") {
            involuntary = number(value.trim_ascii());
        }
    }
    Some(Status { state: state?, voluntary: voluntary?, involuntary: involuntary? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_without_counters_is_unreadable() {
        let whole = b"Name:\tState: R\nState:\tS (sleeping)\nvoluntary_ctxt_switches:\t12\n\
                      nonvoluntary_ctxt_switches:\t3\n";
        let status = Status { state: b'S', voluntary: 12, involuntary: 3 };
        assert_eq!(parse_status(whole), Some(status));
        assert_eq!(parse_status(b"Name:\tx\nState:\tS (sleeping)\n"), None);
    }

    #[test]
    fn what_is_gone_and_what_never_was_are_told_apart() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert_eq!(text(pid, 0, "status"), Err(Doubt::Changed));
        assert_eq!(text(pid, pid, "no such file"), Err(Doubt::Unreadable));
    }
}
