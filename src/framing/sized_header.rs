//! Replies that begin with a line that says how much follows, such as those of
//! `git cat-file --batch`.
//!
//! The header line stays in the body, because it says what the rest is, and whether there is any. A
//! function reads the size out of it, once per reply.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bstr::ByteSlice;
use memchr::memchr;

use super::parts::{complete, decimal, unfinished};
use super::{Framing, FramingError, FramingErrorKind, Position, Scan};

/// Reads a header line: the size of what follows, or `None` where nothing does.
pub(super) type ReadSize =
    dyn Fn(&[u8]) -> Result<Option<usize>, Box<dyn Error + Send + Sync>> + Send + Sync;

pub(super) struct SizedHeader {
    read_size: Arc<ReadSize>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No line feed in the first so many bytes.
    Header(usize),
    /// The body, header line included, has so many bytes, and a line feed follows it.
    Content(usize),
}

impl SizedHeader {
    pub(super) fn new(read_size: Arc<ReadSize>) -> Self {
        Self { read_size, state: State::Header(0) }
    }
}

impl fmt::Debug for SizedHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SizedHeader").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Framing for SizedHeader {
    fn scan(&mut self, input: &[u8], position: Position) -> Result<Scan, FramingError> {
        let size = match std::mem::replace(&mut self.state, State::Header(0)) {
            State::Content(size) => size,
            State::Header(seen) => {
                let Some(at) = memchr(b'\n', &input[seen..]) else {
                    let partial = unfinished(input.len(), position)?;
                    self.state = State::Header(input.len());
                    return Ok(partial);
                };
                let end = seen + at;
                let alone = complete(0..end, end + 1, end, position)?;
                let content = (self.read_size)(&input[..end])
                    .map_err(|cause| FramingError::new(FramingErrorKind::BadHeader, cause))?;
                let Some(content) = content else {
                    return Ok(alone);
                };
                let size = (end + 1).saturating_add(content);
                // `usize::MAX` bytes and their line feed cannot be addressed, limit or not.
                if size > position.limit || size == usize::MAX {
                    return Err(FramingError::reply_too_long(size as u64, position.limit));
                }
                size
            }
        };
        match input.get(size) {
            Some(b'\n') => Ok(Scan::Complete { body: 0..size, len: size + 1 }),
            Some(other) => Err(FramingError::new(
                FramingErrorKind::ReplyMalformed,
                format!("the content is followed by byte 0x{other:02x} instead of a line feed"),
            )),
            None => {
                let partial = unfinished(0, position)?;
                self.state = State::Content(size);
                Ok(partial)
            }
        }
    }
}

/// The headers of `git cat-file --batch`, see "BATCH OUTPUT" in git-cat-file(1).
///
/// `<oid> <type> <size>`, and with `--follow-symlinks` also `symlink <size>` and the like: the size
/// is the last word. `<name> missing` and its kin stand alone; the name may hold anything but a line
/// feed, even nothing, so that only the last word counts there too.
pub(super) fn git_batch(line: &[u8]) -> Result<Option<usize>, Box<dyn Error + Send + Sync>> {
    let last = line.rsplit_once_str(" ").map(|(_, last)| last);
    match last {
        Some(b"missing" | b"ambiguous" | b"submodule" | b"excluded") => Ok(None),
        Some(digits) if decimal(digits).is_some() => {
            let size = decimal(digits).unwrap_or(u64::MAX);
            Ok(Some(usize::try_from(size).unwrap_or(usize::MAX)))
        }
        _ => Err(format!(
            "{:?} does not end in a size, as the default format of git cat-file --batch does",
            line[..line.len().min(80)].as_bstr()
        )
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{scan, trickle};
    use super::*;

    fn git() -> SizedHeader {
        SizedHeader::new(Arc::new(git_batch))
    }

    #[test]
    fn the_header_line_is_part_of_the_body() {
        let found = trickle(&mut git(), b"45b9 blob 3\nhi\n\n0000 missing\n", 99);
        assert_eq!(found, Ok(Some((b"45b9 blob 3\nhi\n".to_vec(), 16))));
        let found = trickle(&mut git(), b"e69d blob 0\n\n", 99);
        assert_eq!(found, Ok(Some((b"e69d blob 0\n".to_vec(), 13))));
    }

    #[test]
    fn a_header_of_nothing_stands_alone() {
        for line in [
            &b"no such 12 missing\n"[..],
            b" missing\n",
            b"missing missing\n",
            b"abcd ambiguous\n",
            b"45b9 submodule\n",
        ] {
            let found = trickle(&mut git(), line, 99);
            assert_eq!(found, Ok(Some((line[..line.len() - 1].to_vec(), line.len()))));
        }
    }

    #[test]
    fn symlinks_that_lead_nowhere_have_a_size_of_their_own() {
        let found = trickle(&mut git(), b"dangling 4\nlink\n", 99);
        assert_eq!(found, Ok(Some((b"dangling 4\nlink".to_vec(), 16))));
    }

    #[test]
    fn a_header_without_a_size_is_bad() {
        for line in [&b"\n"[..], b"12\n", b"45b9 blob x\n", b"45b9 blob 3 \n"] {
            assert_eq!(trickle(&mut git(), line, 99), Err(FramingErrorKind::BadHeader));
        }
    }

    #[test]
    fn content_without_its_line_feed_is_malformed() {
        let found = trickle(&mut git(), b"45b9 blob 1\nabc", 99);
        assert_eq!(found, Err(FramingErrorKind::ReplyMalformed));
    }

    #[test]
    fn header_and_content_count_against_the_limit_together() {
        assert!(trickle(&mut git(), b"a blob 1\nx\n", 10).is_ok());
        assert_eq!(
            scan(&mut git(), b"a blob 1\n", 9, false),
            Err(FramingErrorKind::TooLong { size: 10, limit: 9 })
        );
        assert_eq!(
            scan(&mut git(), b"a blob 99999999999999999999999\n", usize::MAX, false),
            Err(FramingErrorKind::TooLong { size: u64::MAX, limit: usize::MAX as u64 })
        );
    }

    #[test]
    fn the_function_is_called_once_per_reply() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let mut framing = SizedHeader::new(Arc::new(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(Some(5))
        }));
        assert!(trickle(&mut framing, b"header\n12345\n", 99).is_ok());
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}
