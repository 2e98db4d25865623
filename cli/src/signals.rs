//! Signals that end the program: the first one softly, the second one at once.
//!
//! They are blocked in every thread, and one thread waits for them, so that nothing has to be done inside a handler. (A
//! child gets an empty mask: the standard library sees to that.)

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use anyhow::Context;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use subfeed::block::BlockStopper;

/// What has come.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    set: SigSet,
    first: Arc<AtomicI32>,
}

impl Signals {
    /// Blocks them. To be called while there is one thread.
    pub(crate) fn block() -> anyhow::Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGINT);
        set.add(Signal::SIGTERM);
        set.thread_block().context("the signals cannot be blocked")?;
        Ok(Self { set, first: Arc::default() })
    }

    /// Lets them end this feed.
    pub(crate) fn end(&self, stopper: BlockStopper) -> anyhow::Result<()> {
        let Self { set, first } = self.clone();
        let wait = move || {
            let mut count = 0;
            while let Ok(signal) = set.wait() {
                count += 1;
                if count == 1 {
                    first.store(signal as i32, SeqCst);
                    eprintln!(
                        "subfeed: {signal}: what was read is answered; once more ends it at once"
                    );
                    stopper.stop();
                } else {
                    stopper.end();
                }
            }
        };
        std::thread::Builder::new().name("subfeed-signals".to_owned()).spawn(wait)?;
        Ok(())
    }

    /// The first that came.
    pub(crate) fn first(&self) -> Option<Signal> {
        Signal::try_from(self.first.load(SeqCst)).ok()
    }
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
