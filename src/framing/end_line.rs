//! Replies of any number of lines through one that ends them and belongs to them: UCI's `bestmove e2e4`,
//! `completed` or `error`, `OK` or `ERR`.
//!
//! The scanner goes from line to line, and asks of each whole line whether it is the last. A line that
//! trickles in is looked at once.

use std::fmt;
use std::sync::Arc;

use memchr::memchr;

use super::parts::{complete, unfinished};
use super::{Framing, FramingError, Position, Scan};

/// Whether a line, without its line feed, ends the reply.
pub(super) type IsEnd = dyn Fn(&[u8]) -> bool + Send + Sync;

/// Which lines end a reply.
#[derive(Clone)]
pub(super) enum Ends {
    /// Those that begin with one of these; there is at least one, and none is empty.
    Begin(Arc<[Box<[u8]>]>),
    /// Those for which this is true.
    Where(Arc<IsEnd>),
}

impl Ends {
    fn with(&self, line: &[u8]) -> bool {
        match self {
            Self::Begin(words) => words.iter().any(|word| line.starts_with(word)),
            Self::Where(is_end) => is_end(line),
        }
    }
}

impl fmt::Debug for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(words) => {
                f.debug_list().entries(words.iter().map(bstr::BStr::new)).finish()
            }
            Self::Where(_) => f.write_str(".."),
        }
    }
}

#[derive(Debug)]
pub(super) struct EndLine {
    ends: Ends,
    state: State,
}

#[derive(Debug, Default)]
struct State {
    /// Where the current line begins.
    line: usize,
    /// Bytes looked at; none of those from `line` on is a line feed.
    seen: usize,
}

impl EndLine {
    pub(super) fn new(ends: Ends) -> Self {
        Self { ends, state: State::default() }
    }
}

impl Framing for EndLine {
    fn scan(&mut self, input: &[u8], position: Position) -> Result<Scan, FramingError> {
        let State { mut line, mut seen } = std::mem::take(&mut self.state);
        while let Some(at) = memchr(b'\n', &input[seen..]) {
            let end = seen + at;
            // Before the line is asked about: what is over the limit is so whatever that says.
            let found = complete(0..end, end + 1, end, position)?;
            if self.ends.with(&input[line..end]) {
                return Ok(found);
            }
            line = end + 1;
            seen = line;
        }
        let partial = unfinished(input.len(), position)?;
        self.state = State { line, seen: input.len() };
        Ok(partial)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::FramingErrorKind;
    use super::super::testing::{scan, trickle};
    use super::*;

    fn through(words: &[&str]) -> EndLine {
        EndLine::new(Ends::Begin(words.iter().map(|word| word.as_bytes().into()).collect()))
    }

    #[test]
    fn the_end_line_is_kept_and_its_line_feed_is_taken_off() {
        let input = b"info depth 1\ninfo depth 2\nbestmove e2e4 ponder e7e5\nnext";
        let found = trickle(&mut through(&["bestmove"]), input, 99);
        assert_eq!(found, Ok(Some((input[..51].to_vec(), 52))));
        let found = trickle(&mut through(&["bestmove"]), b"bestmove (none)\r\n", 99);
        assert_eq!(found, Ok(Some((b"bestmove (none)\r".to_vec(), 17))));
    }

    #[test]
    fn each_of_several_end_lines_ends_a_reply() {
        let framing = &mut through(&["OK", "ERR"]);
        assert_eq!(trickle(framing, b"a\nERR 3\nOK\n", 99), Ok(Some((b"a\nERR 3".to_vec(), 8))));
        assert_eq!(trickle(framing, b"OK\n", 99), Ok(Some((b"OK".to_vec(), 3))));
    }

    #[test]
    fn an_end_within_a_line_is_none() {
        let framing = &mut through(&["OK"]);
        assert_eq!(trickle(framing, b"not OK\n OK\nO\nK\nOK", 99), Ok(None));
        assert_eq!(
            scan(framing, b"not OK\n OK\nO\nK\nOK", 99, true),
            Err(FramingErrorKind::Truncated)
        );
    }

    #[test]
    fn a_line_is_asked_about_once_and_whole() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let framing = &mut EndLine::new(Ends::Where(Arc::new(move |line| {
            counter.fetch_add(1, Ordering::Relaxed);
            line.ends_with(b".")
        })));
        assert_eq!(trickle(framing, b"a.b\nc\nd.\n", 99), Ok(Some((b"a.b\nc\nd.".to_vec(), 9))));
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn the_end_line_counts_against_the_limit() {
        let framing = &mut through(&["OK"]);
        assert_eq!(scan(framing, b"a\nOK\n", 4, false), Ok(Some((b"a\nOK".to_vec(), 5))));
        let too_long = Err(FramingErrorKind::TooLong { size: 4, limit: 3 });
        assert_eq!(scan(framing, b"a\nOK\n", 3, false), too_long);
        assert_eq!(trickle(framing, b"a\nOK\n", 3), too_long);
    }
}
