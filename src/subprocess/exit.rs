//! Knowing that a child has exited: a pidfd among the other descriptors, or, where there is none, a
//! thread that waits without reaping.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use nix::errno::Errno;
use nix::libc;

use crate::subprocess::readiness::Readiness;
use crate::subprocess::wording;

#[derive(Debug)]
pub(crate) enum ExitWatch {
    /// Becomes readable when the process exits.
    #[cfg_attr(
        not(all(target_os = "linux", not(subfeed_portable))),
        allow(dead_code, reason = "Linux alone has them")
    )]
    Pidfd(OwnedFd),
    /// Set when the process exits; the poller is notified.
    Thread(Arc<AtomicBool>),
    /// It had gone before anybody could look: reaped by somebody else.
    #[cfg_attr(
        not(all(target_os = "linux", not(subfeed_portable))),
        allow(dead_code, reason = "elsewhere the thread finds that out")
    )]
    Gone,
}

impl ExitWatch {
    pub(crate) fn new(pid: u32, poller: &Arc<Readiness>) -> io::Result<Self> {
        #[cfg(all(target_os = "linux", not(subfeed_portable)))]
        match pidfd_open(pid) {
            Ok(fd) => return Ok(Self::Pidfd(fd)),
            Err(Errno::ESRCH) => return Ok(Self::Gone),
            // An old kernel, a strict sandbox, or no descriptor left: the other way.
            Err(_) => {}
        }
        let exited = Arc::new(AtomicBool::new(false));
        let (flag, poller) = (Arc::clone(&exited), Arc::clone(poller));
        std::thread::Builder::new().name("subfeed-wait".to_owned()).stack_size(64 << 10).spawn(
            move || {
                wait_for_exit(pid);
                flag.store(true, SeqCst);
                poller.wake();
            },
        )?;
        Ok(Self::Thread(exited))
    }

    /// Whether the exit is known without asking the poller.
    pub(crate) fn is_known(&self) -> bool {
        match self {
            Self::Pidfd(_) => false,
            Self::Thread(exited) => exited.load(SeqCst),
            Self::Gone => true,
        }
    }

    /// How it has ended, also when another process has reaped it, if this kernel tells (Linux 6.15 and later).
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        match self {
            #[cfg(all(target_os = "linux", not(subfeed_portable)))]
            Self::Pidfd(fd) => pidfd_status(fd),
            _ => None,
        }
    }
}

/// Whether the system reaps the children of this process by itself, so that how they have ended may not be known: what
/// is said of that then, after it was said in an event.
pub(crate) fn announce_lost_statuses() -> Option<&'static str> {
    if !statuses_are_lost() {
        return None;
    }
    let hint = wording::STATUSES_ARE_LOST;
    #[cfg(feature = "tracing")]
    tracing::warn!(target: "subfeed", state = "statuses are lost", hint);
    Some(hint)
}

fn statuses_are_lost() -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is changed, and `action` is room for one `sigaction`, which lives until the call returns.
    let asked = unsafe { libc::sigaction(libc::SIGCHLD, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all zeros are a `sigaction`, and so is what the call has made of them.
    let action = unsafe { action.assume_init() };
    let lost = action.sa_sigaction == libc::SIG_IGN || action.sa_flags & libc::SA_NOCLDWAIT != 0;
    asked == 0 && lost
}

/// What the kernel's `struct pidfd_info` was in its first version.
#[cfg(all(target_os = "linux", not(subfeed_portable)))]
#[repr(C)]
#[derive(Debug, Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

#[cfg(all(target_os = "linux", not(subfeed_portable)))]
fn pidfd_status(fd: &OwnedFd) -> Option<ExitStatus> {
    use std::os::fd::AsRawFd;
    use std::os::unix::process::ExitStatusExt;
    const EXIT: u64 = 1 << 3;
    nix::ioctl_readwrite!(pidfd_get_info, 0xff, 11, PidfdInfo);
    let mut info = PidfdInfo { mask: EXIT, ..PidfdInfo::default() };
    // SAFETY: `info` is as large as the request's number says, and the kernel writes no more than that.
    unsafe { pidfd_get_info(fd.as_raw_fd(), &raw mut info) }.ok()?;
    // What is not known is not in the mask; what came after the first version is not asked for.
    (info.mask & EXIT != 0).then(|| ExitStatus::from_raw(info.exit_code))
}

#[cfg(all(test, target_os = "linux", not(subfeed_portable)))]
mod tests {
    use super::*;

    use std::process::Command;

    #[test]
    fn the_status_of_a_child_that_was_reaped_already_is_known_or_not_but_never_wrong() {
        let poller = Arc::new(Readiness::new().unwrap());
        let mut command = Command::new("sh");
        command.args(["-c", "read x; exit 3"]).stdin(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let watch = ExitWatch::new(child.id(), &poller).unwrap();
        assert_eq!(watch.status(), None);
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(3));
        assert!(watch.status().is_none_or(|known| known == status));
    }
}

/// A descriptor of a child, close-on-exec, that becomes readable when the child exits.
#[cfg(all(target_os = "linux", not(subfeed_portable)))]
fn pidfd_open(pid: u32) -> Result<OwnedFd, Errno> {
    use std::os::fd::{FromRawFd, RawFd};
    // SAFETY: the call takes two numbers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.cast_signed(), 0) };
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Whether the child has exited, or is not ours to wait for. It is not reaped.
pub(crate) fn has_exited(pid: u32) -> bool {
    // A `pid` of 0 is left there where it still runs.
    match look(pid, libc::WEXITED | libc::WNOWAIT | libc::WNOHANG) {
        // SAFETY: `waitid` has filled it in, or it is all zeros.
        Ok(about) => unsafe { about.si_pid() != 0 },
        Err(error) => error != Errno::EINTR,
    }
}

/// What `waitid` says of a child.
fn look(pid: u32, flags: libc::c_int) -> Result<libc::siginfo_t, Errno> {
    let mut about = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: `about` is room for one `siginfo_t`, which lives until the call returns. (Not by way of nix, which has
    // this call on some systems only.)
    #[allow(clippy::useless_conversion, reason = "FreeBSD has wider ones")]
    let result = unsafe { libc::waitid(libc::P_PID, pid.into(), about.as_mut_ptr(), flags) };
    Errno::result(result)?;
    // SAFETY: all zeros are a `siginfo_t`, and so is what the call has made of them.
    Ok(unsafe { about.assume_init() })
}

/// Returns when the child has exited, or is not ours to wait for. It stays a zombie, its group signallable,
/// until the event loop reaps it.
fn wait_for_exit(pid: u32) {
    // What it says of the exit is not looked at.
    while let Err(Errno::EINTR) = look(pid, libc::WEXITED | libc::WNOWAIT) {}
}
