//! The evidence in words, for hints and errors. What bounds the wait is for the caller to add.

use nix::sys::signal::Signal;

use super::{Evidence, Obstacle, Outside, Stop, Work};

impl Evidence {
    /// What the worker seems to be doing: a sentence in lower case and without its full stop, in which the worker is
    /// "it".
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::Waiting => "it waits for more input",
            Self::Asleep => "it waits for more input, and the rest of it sleeps",
            Self::Unsettled => "it sleeps, and it is too early to tell what for",
            Self::Deaf { open: true, timed: true } => {
                "it sleeps until a time or a signal, and nobody reads its stdin"
            }
            Self::Deaf { open: true, timed: false } => {
                "its threads and processes wait for one another, and nobody reads its stdin"
            }
            Self::Deaf { open: false, timed: true } => {
                "it sleeps until a time or a signal although its stdin is closed"
            }
            Self::Deaf { open: false, timed: false } => {
                "its threads and processes wait for one another although its stdin is closed"
            }
            Self::Opaque(obstacle) => obstacle.sentence(),
            Self::EventLoop => "it runs an event loop, and what that waits for cannot be seen",
            Self::Outside(what) => what.sentence(),
            Self::Working(work) => work.sentence(),
            Self::Stopped(by) => by.sentence(),
        }
    }
}

impl Obstacle {
    fn sentence(self) -> &'static str {
        match self {
            Self::NotWhole => "not all of its processes have been looked at",
            Self::ReaderLeft => "the process that reads its stdin has left its process group",
            Self::Launcher => {
                "it runs behind a launcher, and what it does cannot be seen from here"
            }
            Self::Hidden => "/proc does not tell what it does",
            Self::OtherNamespace => {
                "/proc belongs to another pid namespace and does not tell what it does"
            }
            Self::NoProc => "this system does not tell what it does",
        }
    }
}

impl Outside {
    fn sentence(self) -> &'static str {
        match self {
            Self::UnknownCall => "it is in a system call that tells nothing about its reason",
            Self::Writing => "it waits until somebody reads what it writes",
            Self::File => "it waits for a file",
            Self::Device => "it waits for a device",
            Self::Pipe => "it reads a pipe or FIFO that does not come from us",
            Self::Message => "it waits for a message queue",
            Self::Lock => "it waits for a lock",
            Self::Socket => "it waits for a socket",
        }
    }
}

impl Work {
    fn sentence(self) -> &'static str {
        match self {
            Self::Unread => "it is about to read what it was given",
            Self::Changing => "its threads or processes begin, end or wake",
            Self::Disk => "it is in an uninterruptible wait, as for a disk",
            Self::Computing => "it computes",
        }
    }
}

impl Stop {
    fn sentence(self) -> &'static str {
        const TTIN: i32 = Signal::SIGTTIN as i32;
        const TTOU: i32 = Signal::SIGTTOU as i32;
        const TSTP: i32 = Signal::SIGTSTP as i32;
        const STOP: i32 = Signal::SIGSTOP as i32;
        match self {
            Self::Signal(TTIN) => "it is stopped by SIGTTIN: it wants to read the terminal",
            Self::Signal(TTOU) => {
                "it is stopped by SIGTTOU: it wants to write to the terminal or to change its settings"
            }
            Self::Signal(TSTP) => "it is stopped by SIGTSTP: only SIGCONT lets it go on",
            Self::Signal(STOP) => "it is stopped by SIGSTOP: only SIGCONT lets it go on",
            Self::Signal(_) | Self::Unnamed => {
                "it is stopped by a signal: only SIGCONT lets it go on"
            }
            Self::Tracer => "it is stopped by a debugger",
            Self::Terminal => "it reads the terminal: somebody must type",
        }
    }
}
