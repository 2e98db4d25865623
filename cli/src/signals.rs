//! Signals that end the program: the first one softly, the second one at once.
//!
//! A handler writes the signal's number into a pipe, and a thread reads it there. Nothing is blocked, since a child
//! would inherit that: a handler is its parent's alone.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, IntoRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::time::Duration;

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use nix::unistd::pipe;
use subfeed::block::BlockStopper;

/// The signals that end the program.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// After the second signal the workers are ended within this time. What is left then is a write to a stdout that
/// nobody reads.
const ENDED_WITHIN: Duration = Duration::from_secs(3);

/// The end of the pipe that the handler writes to.
static WRITE_END: AtomicI32 = AtomicI32::new(-1);

extern "C" fn handle(signal: nix::libc::c_int) {
    let errno = Errno::last_raw();
    let byte = signal as u8;
    // SAFETY: `write` may be called in a handler, and the byte lives longer than the call. A full pipe has signals enough.
    unsafe { nix::libc::write(WRITE_END.load(SeqCst), (&raw const byte).cast(), 1) };
    Errno::set_raw(errno);
}

/// What has come.
#[derive(Debug)]
pub(crate) struct Signals {
    come: File,
    first: Arc<AtomicI32>,
}

impl Signals {
    /// Catches them from now on, but for those that were ignored when the program was started.
    pub(crate) fn catch() -> anyhow::Result<Self> {
        let (come, go) = pipe().context("no pipe for signals can be made")?;
        for end in [come.as_fd(), go.as_fd()] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        fcntl(&go, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        WRITE_END.store(go.into_raw_fd(), SeqCst);
        let action =
            SigAction::new(SigHandler::Handler(handle), SaFlags::SA_RESTART, SigSet::empty());
        for signal in ENDING {
            // SAFETY: the handler does nothing that a handler must not.
            let before = unsafe { sigaction(signal, &action) }
                .with_context(|| format!("{signal} cannot be caught"))?;
            if matches!(before.handler(), SigHandler::SigIgn) {
                // SAFETY: it is as it was.
                unsafe { sigaction(signal, &before) }?;
            }
        }
        Ok(Self { come: File::from(come), first: Arc::default() })
    }

    /// Lets them end this feed.
    pub(crate) fn end(&self, stopper: BlockStopper) -> anyhow::Result<()> {
        let mut come = self.come.try_clone()?;
        let first = Arc::clone(&self.first);
        let wait = move || {
            let Ok(signal) = next(&mut come) else { return };
            first.store(signal as i32, SeqCst);
            // Where stderr is gone there is nobody to tell.
            let _ = io::Write::write_fmt(
                &mut io::stderr(),
                format_args!(
                    "subfeed: {signal}: what was read is answered; once more ends it at once\n"
                ),
            );
            stopper.stop();
            let Ok(signal) = next(&mut come) else { return };
            stopper.end();
            let timeout = PollTimeout::try_from(ENDED_WITHIN).unwrap_or(PollTimeout::MAX);
            let _ = poll(&mut [PollFd::new(come.as_fd(), PollFlags::POLLIN)], timeout);
            die_of(signal);
        };
        std::thread::Builder::new().name("subfeed-signals".to_owned()).spawn(wait)?;
        Ok(())
    }

    /// The first that came.
    pub(crate) fn first(&self) -> Option<Signal> {
        Signal::try_from(self.first.load(SeqCst)).ok()
    }
}

/// Waits for the next signal.
fn next(come: &mut File) -> io::Result<Signal> {
    let mut byte = [0];
    come.read_exact(&mut byte)?;
    Signal::try_from(i32::from(byte[0])).map_err(io::Error::from)
}

/// Dies of a signal, as who started this expects it.
pub(crate) fn die_of(signal: Signal) -> ! {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is installed, so none can do what it must not.
    let _ = unsafe { sigaction(signal, &default) };
    let mut set = SigSet::empty();
    set.add(signal);
    let _ = raise(signal);
    let _ = set.thread_unblock();
    // Only if it is ignored by force.
    std::process::exit(128 + signal as i32);
}
