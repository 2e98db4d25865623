//! A worker's first and last words: what is said before the first request and after the last one.

use std::sync::Arc;
use std::time::Duration;

use bstr::ByteSlice;

use crate::template::Template;

/// How much of an undeclared or endless banner is read before the session is given up.
pub(crate) const LONGEST_BANNER: usize = 1 << 20;

#[derive(Clone, Debug, Default)]
pub(crate) struct Words {
    /// Written to stdin before the first request.
    pub(crate) preamble: Option<Arc<[u8]>>,
    /// Written to stdin before it is closed.
    pub(crate) farewell: Option<Arc<[u8]>>,
    pub(crate) banner: Banner,
}

/// What a worker prints before its first reply.
#[derive(Clone, Debug, Default)]
pub(crate) enum Banner {
    #[default]
    None,
    Lines(usize),
    /// Everything through this marker. With `wait`, nothing is asked before it has come.
    Until {
        marker: Arc<[u8]>,
        wait: bool,
    },
}

impl Banner {
    /// How many bytes of `output`, which has been seen from its beginning, are banner, if it is over.
    pub(crate) fn end(&self, output: &[u8]) -> Option<usize> {
        match self {
            Self::None => Some(0),
            Self::Lines(0) => Some(0),
            Self::Lines(lines) => {
                memchr::memchr_iter(b'\n', output).nth(lines - 1).map(|last| last + 1)
            }
            Self::Until { marker, .. } => {
                output.find(&marker[..]).map(|start| start + marker.len())
            }
        }
    }

    /// Whether the first request must wait until the banner is over.
    pub(crate) fn holds_requests(&self) -> bool {
        matches!(self, Self::Until { wait: true, .. })
    }
}

/// A worker's first and last words.
impl<E, D> Template<E, D> {
    /// Writes these bytes to each worker's stdin before its first request: settings, imports, a
    /// program to load. They are written as they are, and no reply to them is expected.
    #[must_use]
    pub fn preamble(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.spec.words.preamble = Some(bytes.into().into());
        self
    }

    /// Writes these bytes to each worker's stdin before it is closed, for tools that the end of their
    /// input does not end (`exiftool -stay_open` wants `-stay_open\nFalse\n`).
    #[must_use]
    pub fn farewell(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.spec.words.farewell = Some(bytes.into().into());
        self
    }

    /// Skips the first `lines` lines that each worker prints: a banner (`hunspell -a` prints one).
    #[must_use]
    pub fn skip_lines(mut self, lines: usize) -> Self {
        self.spec.words.banner = Banner::Lines(lines);
        self
    }

    /// Skips everything that each worker prints through this marker, found anywhere.
    #[must_use]
    pub fn skip_until(mut self, marker: impl AsRef<[u8]>) -> Self {
        self.spec.words.banner = Banner::Until { marker: marker.as_ref().into(), wait: false };
        self
    }

    /// Asks a worker nothing before it has printed this marker: for programs that take long to load.
    /// The marker and what is before it are skipped. The time limit runs from the start of the session;
    /// a session that misses it is killed and counts as one that ended without a reply.
    #[must_use]
    pub fn ready(mut self, marker: impl AsRef<[u8]>, limit: Duration) -> Self {
        self.spec.words.banner = Banner::Until { marker: marker.as_ref().into(), wait: true };
        self.spec.policy.ready_timeout = Some(limit);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banner_ends_where_it_says() {
        assert_eq!(Banner::None.end(b"x"), Some(0));
        assert_eq!(Banner::Lines(2).end(b"a\nb"), None);
        assert_eq!(Banner::Lines(2).end(b"a\nb\nc"), Some(4));
        let ready = Banner::Until { marker: b"READY\n"[..].into(), wait: true };
        assert_eq!(ready.end(b"loading\nREA"), None);
        assert_eq!(ready.end(b"loading\nREADY\nx"), Some(14));
    }
}
