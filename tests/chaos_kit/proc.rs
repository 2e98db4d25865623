//! What `/proc` says: of ourselves, of our workers, and of whoever they left behind.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process;

use nix::libc;
use nix::sys::signal::Signal;

/// In the environment of every worker, and of its children: whose they are.
pub(crate) const MARK: &str = "SUBFEED_CHAOS_OF";

pub(crate) fn mark() -> String {
    process::id().to_string()
}

/// What this process has that a feed may leak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Belongings {
    fds: BTreeSet<(i32, PathBuf)>,
    threads: BTreeSet<u32>,
    children: BTreeSet<u32>,
}

impl Belongings {
    pub(crate) fn now() -> Self {
        let threads = fs::read_dir("/proc/self/task").expect("/proc").flatten();
        let threads =
            threads.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        Self { fds: fds(), threads, children: children().into_iter().collect() }
    }
}

fn fds() -> BTreeSet<(i32, PathBuf)> {
    let entries = fs::read_dir("/proc/self/fd").expect("/proc").flatten();
    let fds = entries.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, target))
    });
    // Not the descriptor that lists the directory.
    fds.filter(|(_, target)| !(target.starts_with("/proc") && target.ends_with("fd"))).collect()
}

fn pids() -> impl Iterator<Item = u32> {
    let all = fs::read_dir("/proc").expect("/proc").flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// One process, as `/proc/<pid>/stat` has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    state: char,
    parent: u32,
    // Read by the dump only.
    #[allow(dead_code, reason = "printed by Debug")]
    group: u32,
    session: u32,
}

pub(crate) fn stat(pid: u32) -> Option<Stat> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may contain anything but ends with the last parenthesis.
    let mut words = stat.rsplit_once(") ")?.1.split(' ');
    let state = words.next()?.chars().next()?;
    let mut number = || words.next()?.parse().ok();
    Some(Stat { state, parent: number()?, group: number()?, session: number()? })
}

/// Our children, zombies included.
pub(crate) fn children() -> Vec<u32> {
    let us = process::id();
    pids().filter(|&pid| stat(pid).is_some_and(|stat| stat.parent == us)).collect()
}

/// Everybody who was started by one of our feeds, however indirectly, and is alive.
fn marked() -> Vec<(u32, Stat)> {
    let mark = format!("{MARK}={}", mark());
    let ours = |pid: &u32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|&byte| byte == 0).any(|entry| entry == mark.as_bytes())
    };
    let known = pids().filter(ours).filter_map(|pid| Some((pid, stat(pid)?)));
    known.filter(|(_, stat)| !matches!(stat.state, 'Z' | 'X')).collect()
}

/// The workers' families that are still in their groups: nobody, when a feed has gone.
pub(crate) fn left_behind() -> Vec<(u32, Stat)> {
    let ours = stat(process::id()).map(|stat| stat.session);
    marked().into_iter().filter(|(_, stat)| Some(stat.session) == ours).collect()
}

/// Ends whoever has left his group, which nobody else will.
pub(crate) fn sweep() -> usize {
    let all = marked();
    for (pid, _) in &all {
        send(*pid, Signal::SIGKILL);
    }
    all.len()
}

/// A process, whose number may pass to another one while this one is meant.
struct Pidfd(OwnedFd);

impl Pidfd {
    fn open(pid: u32) -> Option<Self> {
        // SAFETY: the call takes two numbers and touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.cast_signed(), 0) };
        let fd = RawFd::try_from(fd).ok().filter(|&fd| fd >= 0)?;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        Some(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn send(&self, signal: Signal) -> bool {
        let (fd, none) = (self.0.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: the descriptor is open, and without information the call reads no memory of ours.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal as i32, none, 0) == 0 }
    }
}

/// Signals a process that is certainly the one that was meant.
pub(crate) fn send(pid: u32, signal: Signal) -> bool {
    Pidfd::open(pid).is_some_and(|process| process.send(signal))
}

/// Signals a child of ours, and says whether that was one.
pub(crate) fn send_to_child(pid: u32, signal: Signal) -> bool {
    let Some(known) = Pidfd::open(pid) else { return false };
    // With the descriptor in hand the number cannot pass to a stranger unnoticed.
    stat(pid).is_some_and(|stat| stat.parent == process::id() && stat.state != 'Z')
        && known.send(signal)
}

/// Every thread of ours and of our workers, and where it sleeps.
pub(crate) fn dump() -> String {
    let mut text = String::new();
    let mut all = vec![process::id()];
    all.extend(children());
    all.extend(marked().into_iter().map(|(pid, _)| pid));
    all.dedup();
    for pid in all {
        let read = |path: String| fs::read_to_string(path).unwrap_or_default();
        let line = read(format!("/proc/{pid}/cmdline")).replace('\0', " ");
        let _ = writeln!(text, "process {pid} {:?} {line}", stat(pid));
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let at = |name: &str| read(task.path().join(name).display().to_string());
            let state = at("stat").rsplit_once(") ").map(|(_, rest)| rest[..1].to_owned());
            let _ = writeln!(
                text,
                "  thread {} {:16} {} {:24} {}",
                task.file_name().display(),
                at("comm").trim(),
                state.unwrap_or_default(),
                at("wchan").trim(),
                at("syscall").trim()
            );
        }
    }
    text
}
