//! Records that end in one byte: a line feed, a NUL.
//!
//! The framing of nearly every filter, and the fastest one: one `memchr` per record on either side.
//! The price is that a record cannot contain its delimiter. A request that does is refused; a reply
//! that does cannot be told from two.

use memchr::memchr;

use super::parts::{complete, unfinished};
use super::{Framing, FramingError, FramingErrorKind, Position, Scan};

/// Ends the request whose body begins at `start`.
#[inline]
pub(super) fn close(delimiter: u8, out: &mut Vec<u8>, start: usize) -> Result<(), FramingError> {
    if may_contain(delimiter, &out[start..])
        && let Some(at) = memchr(delimiter, &out[start..])
    {
        return Err(contains(delimiter, at));
    }
    out.push(delimiter);
    Ok(())
}

/// Appends a whole request.
///
/// It is searched where it comes from: what has only just been copied is still on its way to the cache,
/// and a read that straddles two such writes waits for both.
#[inline]
pub(super) fn append(delimiter: u8, body: &[u8], out: &mut Vec<u8>) -> Result<(), FramingError> {
    if may_contain(delimiter, body)
        && let Some(at) = memchr(delimiter, body)
    {
        return Err(contains(delimiter, at));
    }
    out.reserve(body.len() + 1);
    out.extend_from_slice(body);
    out.push(delimiter);
    Ok(())
}

/// False if the byte is certainly not among these. In a few short records' worth of bytes that is told
/// in less time than it takes to call `memchr`.
#[inline]
fn may_contain(byte: u8, bytes: &[u8]) -> bool {
    const WORD: usize = size_of::<u64>();
    const SHORT: usize = 48;
    if bytes.len() > SHORT {
        return true;
    }
    let Some(last) = bytes.last_chunk::<WORD>() else { return bytes.contains(&byte) };
    let (words, _) = bytes.as_chunks::<WORD>();
    let pattern = [byte; WORD];
    // A zero byte in the difference borrows from the bit above it.
    let hit = |word: &[u8; WORD]| {
        let difference = u64::from_ne_bytes(*word) ^ u64::from_ne_bytes(pattern);
        difference.wrapping_sub(0x0101_0101_0101_0101) & !difference & 0x8080_8080_8080_8080
    };
    words.iter().chain([last]).fold(0, |hits, word| hits | hit(word)) != 0
}

#[cold]
fn contains(byte: u8, at: usize) -> FramingError {
    FramingErrorKind::ContainsDelimiter { byte, at }.into()
}

#[derive(Debug)]
pub(super) struct Delimited {
    delimiter: u8,
    /// The first so many bytes hold no delimiter.
    seen: usize,
}

impl Delimited {
    pub(super) fn new(delimiter: u8) -> Self {
        Self { delimiter, seen: 0 }
    }
}

impl Framing for Delimited {
    #[inline]
    fn scan(&mut self, input: &[u8], position: Position) -> Result<Scan, FramingError> {
        let seen = std::mem::take(&mut self.seen);
        if let Some(at) = memchr(self.delimiter, &input[seen..]) {
            let end = seen + at;
            return complete(0..end, end + 1, end, position);
        }
        let partial = unfinished(input.len(), position)?;
        self.seen = input.len();
        Ok(partial)
    }

    fn delimiter(&self) -> Option<u8> {
        Some(self.delimiter)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{scan, trickle};
    use super::*;

    const LIMIT: usize = 100;

    #[test]
    fn a_delimiter_is_found_wherever_it_stands_in_a_request() {
        for len in 0..130 {
            let mut body = vec![b'x'; len];
            // Neighbours of the delimiter, which a careless trick takes for it.
            body.iter_mut().step_by(3).for_each(|byte| *byte = b'\n' + 1);
            body.iter_mut().step_by(5).for_each(|byte| *byte = b'\n' ^ 0x80);
            let mut out = [b"\n", &body[..]].concat();
            assert!(close(b'\n', &mut out, 1).is_ok() && out.len() == len + 2);
            let mut appended = b"\n".to_vec();
            assert!(append(b'\n', &body, &mut appended).is_ok() && appended == out);
            for at in 0..len {
                let mut out = [b"\n", &body[..]].concat();
                out[1 + at] = b'\n';
                let contains = Err(FramingErrorKind::ContainsDelimiter { byte: b'\n', at });
                let appended = append(b'\n', &out[1..], &mut Vec::new());
                assert_eq!(appended.map_err(|error| error.kind()), contains);
                assert_eq!(close(b'\n', &mut out, 1).map_err(|error| error.kind()), contains);
            }
        }
    }

    #[test]
    fn a_carriage_return_stays_in_the_reply() {
        let found = trickle(&mut Delimited::new(b'\n'), b"a\r\n", LIMIT);
        assert_eq!(found, Ok(Some((b"a\r".to_vec(), 3))));
    }

    #[test]
    fn an_empty_line_is_an_empty_reply() {
        let found = scan(&mut Delimited::new(b'\n'), b"\n\n", LIMIT, false);
        assert_eq!(found, Ok(Some((vec![], 1))));
    }

    #[test]
    fn a_body_of_exactly_the_limit_is_good_and_one_byte_more_is_not() {
        let too_long = Err(FramingErrorKind::TooLong { size: 4, limit: 3 });
        let framing = &mut Delimited::new(0);
        assert_eq!(scan(framing, b"abc\0", 3, false), Ok(Some((b"abc".to_vec(), 4))));
        assert_eq!(scan(framing, b"abc", 3, false), Ok(None));
        // Known before the delimiter comes, and the same when it has come.
        assert_eq!(scan(framing, b"abcd", 3, false), too_long);
        assert_eq!(scan(framing, b"abcd\0", 3, false), too_long);
    }

    #[test]
    fn a_last_line_without_its_line_feed_is_half_a_reply() {
        let framing = &mut Delimited::new(b'\n');
        assert_eq!(scan(framing, b"abc", LIMIT, false), Ok(None));
        assert_eq!(scan(framing, b"abc", LIMIT, true), Err(FramingErrorKind::Truncated));
    }

    #[test]
    fn after_an_error_the_scanner_is_fresh() {
        let framing = &mut Delimited::new(b'\n');
        assert_eq!(scan(framing, b"ab", 3, false), Ok(None));
        assert!(scan(framing, b"abcd", 3, false).is_err());
        assert_eq!(scan(framing, b"\n", 3, false), Ok(Some((vec![], 1))));
    }
}
