//! Signals that end the program: the first one softly, the second one at once.
//!
//! A handler writes the signal's number into a pipe, and a thread reads it there. Nothing is blocked, since a child
//! would inherit that: a handler is its parent's alone.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, IntoRawFd};
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use nix::unistd::pipe;
use subfeed::Monitor;
use subfeed::block::{BlockFeed, BlockStopper};

use crate::messages::Messages;
use crate::words::no_thread;

/// The signals that end the program.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// After the second signal the workers are ended within this time. What is left then is a write to a stdout that
/// nobody reads. A start that takes longer is at a file that cannot be opened.
const ENDED_WITHIN: Duration = Duration::from_secs(3);

/// What could not be done before a signal was caught.
const NO_PIPE: &str = "the pipe for signals cannot be made";

/// The end of the pipe that the handler writes to.
static WRITE_END: AtomicI32 = AtomicI32::new(-1);

extern "C" fn handle(signal: nix::libc::c_int) {
    let errno = Errno::last_raw();
    let byte = signal as u8;
    // SAFETY: `write` may be called in a handler, and the byte lives longer than the call. A full pipe has signals enough.
    unsafe { nix::libc::write(WRITE_END.load(SeqCst), (&raw const byte).cast(), 1) };
    Errno::set_raw(errno);
}

/// What has come, and what it ends.
#[derive(Debug, Default)]
struct State {
    first: Option<Signal>,
    /// The feeds that run. Where there is none, nothing has to be ended before the program.
    feeds: Vec<(u64, BlockStopper, Monitor)>,
    /// The number of the next one.
    next: u64,
    /// Feeds that are being started, which nothing can stop before they are.
    starting: usize,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// A feed has been started.
    started: Condvar,
}

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals(Arc<Shared>);

/// A feed is ended by signals for as long as this is there.
#[must_use]
#[derive(Debug)]
pub(crate) struct Attached(Signals, u64);

impl Signals {
    /// Catches them from now on, but for those that were ignored when the program was started.
    pub(crate) fn catch(messages: Messages) -> anyhow::Result<Self> {
        let (come, go) = pipe().map_err(|errno| match errno {
            Errno::EMFILE => {
                anyhow!("{NO_PIPE}: {errno}; raise the limit of open files (ulimit -n)")
            }
            errno => anyhow!("{NO_PIPE}: {errno}"),
        })?;
        for end in [come.as_fd(), go.as_fd()] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).context(NO_PIPE)?;
        }
        fcntl(&go, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context(NO_PIPE)?;
        WRITE_END.store(go.into_raw_fd(), SeqCst);
        let action =
            SigAction::new(SigHandler::Handler(handle), SaFlags::SA_RESTART, SigSet::empty());
        for signal in ENDING {
            // SAFETY: the handler does nothing that a handler must not.
            let before = unsafe { sigaction(signal, &action) }
                .with_context(|| format!("{signal} cannot be caught"))?;
            if matches!(before.handler(), SigHandler::SigIgn) {
                // SAFETY: it is as it was.
                unsafe { sigaction(signal, &before) }
                    .with_context(|| format!("{signal} cannot be ignored again"))?;
            }
        }
        let signals = Self::default();
        let heeded = signals.clone();
        let mut come = File::from(come);
        let heed = move || {
            while let Ok(signal) = next(&mut come) {
                heeded.heed(signal, &come, &messages);
            }
        };
        let name = "subfeed-signals".to_owned();
        match std::thread::Builder::new().name(name).spawn(heed) {
            Ok(_) => Ok(signals),
            Err(error) => bail!(no_thread("the thread that waits for signals", &error)),
        }
    }

    /// Starts a feed, and lets signals end it until what is returned here is dropped, so the feed is to be dropped first. A
    /// signal that comes meanwhile waits for the start, so that it does not end the program without the workers; but not for
    /// ever, since the start opens files.
    pub(crate) fn start(&self, start: impl FnOnce() -> BlockFeed) -> (Attached, BlockFeed) {
        self.lock().starting += 1;
        let feed = start();
        let mut state = self.lock();
        state.starting -= 1;
        self.0.started.notify_all();
        let (stopper, monitor) = (feed.stopper(), feed.monitor());
        if state.first.is_some() {
            stopper.stop();
        }
        let number = state.next;
        state.next += 1;
        state.feeds.push((number, stopper, monitor));
        (Attached(self.clone(), number), feed)
    }

    /// The first that came.
    pub(crate) fn first(&self) -> Option<Signal> {
        self.lock().first
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state when no feed is being started, unless that takes too long.
    fn settled(&self, within: Duration) -> Option<MutexGuard<'_, State>> {
        let starting = |state: &mut State| state.starting > 0;
        let waited = self.0.started.wait_timeout_while(self.lock(), within, starting);
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        (!timeout.timed_out()).then_some(state)
    }

    fn heed(&self, signal: Signal, come: &File, messages: &Messages) {
        let Some(mut state) = self.settled(ENDED_WITHIN) else { die_of(signal) };
        if state.feeds.is_empty() {
            die_of(signal);
        }
        if state.first.is_none() {
            state.first = Some(signal);
            let left = state.feeds.iter().map(|(_, stopper, monitor)| {
                stopper.stop();
                let seen = monitor.snapshot();
                seen.accepted.saturating_sub(seen.yielded)
            });
            let left = match left.sum() {
                1 => "1 record is still to be answered".to_owned(),
                left => format!("{left} records are still to be answered"),
            };
            messages.say_at_once(format_args!(
                "{signal}: nothing more is read, and {left}; once more ends it at once"
            ));
            return;
        }
        for (_, stopper, _) in &state.feeds {
            stopper.end();
        }
        drop(state);
        messages.hurry();
        let timeout = PollTimeout::try_from(ENDED_WITHIN).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [PollFd::new(come.as_fd(), PollFlags::POLLIN)], timeout);
        die_of(signal);
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.lock().feeds.retain(|(number, ..)| *number != self.1);
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use subfeed::{Template, blocks};

    use super::*;

    #[test]
    fn a_start_that_hangs_holds_up_no_signal() {
        let signals = Signals::default();
        let (starting, has_begun) = channel();
        let (go, may_go) = channel();
        let begun = signals.clone();
        std::thread::scope(|scope| {
            let start = move || {
                let (attached, feed) = begun.start(|| {
                    starting.send(()).unwrap();
                    may_go.recv().unwrap();
                    blocks(&b""[..]).feed(Template::new("cat")).workers(1).start()
                });
                drop((feed, attached));
            };
            let started = scope.spawn(start);
            has_begun.recv().unwrap();
            assert_eq!(signals.first(), None);
            assert!(signals.settled(Duration::from_millis(1)).is_none());
            signals.lock().first = Some(Signal::SIGINT);
            go.send(()).unwrap();
            assert!(signals.settled(Duration::from_secs(60)).is_some());
            started.join().unwrap();
        });
        assert!(signals.lock().feeds.is_empty());
    }
}
