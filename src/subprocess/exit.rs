//! Knowing that a child has exited: a pidfd among the other descriptors, or, where there is none, a
//! thread that waits without reaping.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use nix::errno::Errno;
use nix::libc;

use crate::subprocess::readiness::Readiness;

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

/// Returns when the child has exited, or is not ours to wait for. It stays a zombie, its group signallable,
/// until the event loop reaps it.
fn wait_for_exit(pid: u32) {
    let flags = libc::WEXITED | libc::WNOWAIT;
    loop {
        // What it says of the exit is not looked at.
        let mut about = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: `about` is room for one `siginfo_t`, which lives until the call returns. (Not by way of
        // nix, which has this call on some systems only.)
        #[allow(clippy::useless_conversion, reason = "FreeBSD has wider ones")]
        let result = unsafe { libc::waitid(libc::P_PID, pid.into(), about.as_mut_ptr(), flags) };
        if Errno::result(result) != Err(Errno::EINTR) {
            return;
        }
    }
}
