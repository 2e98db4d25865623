//! Knowing that a child has exited: a pidfd among the other descriptors, or, where there is none, a
//! thread that waits without reaping.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::subprocess::readiness::Readiness;

#[derive(Debug)]
pub(crate) enum ExitWatch {
    /// Becomes readable when the process exits.
    Pidfd(OwnedFd),
    /// Set when the process exits; the poller is notified.
    Thread(Arc<AtomicBool>),
    /// It had gone before anybody could look: reaped by somebody else.
    Gone,
}

impl ExitWatch {
    pub(crate) fn new(pid: u32, poller: &Arc<Readiness>) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if let Some(id) = rustix::process::Pid::from_raw(pid.cast_signed()) {
            use rustix::io::Errno;
            match rustix::process::pidfd_open(id, rustix::process::PidfdFlags::empty()) {
                Ok(fd) => return Ok(Self::Pidfd(fd)),
                Err(Errno::SRCH) => return Ok(Self::Gone),
                // An old kernel, a strict sandbox, or no descriptor left: the other way.
                Err(_) => {}
            }
        }
        let exited = Arc::new(AtomicBool::new(false));
        let (flag, poller) = (Arc::clone(&exited), Arc::clone(poller));
        std::thread::Builder::new().name("subfeed-wait".to_owned()).stack_size(64 << 10).spawn(
            move || {
                let pid = Pid::from_raw(pid.cast_signed());
                // WNOWAIT: the child stays a zombie, its group signallable, until the event loop reaps it.
                let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
                while let Err(nix::errno::Errno::EINTR) = waitid(Id::Pid(pid), flags) {}
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
