//! How many work side by side.

use std::thread;

/// How many workers a feed is to have.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Workers {
    /// As many as there are processors. They are counted when the feed starts, and only then: under a cgroup
    /// that means to read a handful of files, a twentieth of what the start of a small program takes.
    #[default]
    Processors,
    /// So many.
    Exactly(usize),
}

impl Workers {
    pub(crate) fn number(self) -> usize {
        match self {
            Self::Processors => thread::available_parallelism().map_or(1, usize::from),
            Self::Exactly(n) => n,
        }
    }
}
