//! JSON text sequences (RFC 7464): a record separator, the text, a line feed.
//!
//! The separator in front lets a reader find its place again after a broken record; the line feed
//! behind tells a whole text from one that was cut off. The RFC's reader takes everything up to the
//! *next* separator, which does not do for a conversation: it comes with the next reply, and that
//! comes only after the next request. So a reply ends here at its first line feed, which asks for
//! texts on one line (`jq --seq -c`). A request may span lines, as the RFC allows.

use memchr::{memchr, memchr2};

use super::parts::{complete, unfinished};
use super::{Framing, FramingError, FramingErrorKind, Position, Scan};

const SEPARATOR: u8 = 0x1e;

/// Ends the request whose body begins behind the separator at `start`.
pub(super) fn close(out: &mut Vec<u8>, start: usize) -> Result<(), FramingError> {
    if let Some(at) = memchr(SEPARATOR, &out[start + 1..]) {
        return Err(FramingErrorKind::ContainsDelimiter { byte: SEPARATOR, at }.into());
    }
    out.push(b'\n');
    Ok(())
}

/// Begins a request.
pub(super) fn open(out: &mut Vec<u8>) {
    out.push(SEPARATOR);
}

#[derive(Debug, Default)]
pub(super) struct RecordSeparator {
    state: State,
}

#[derive(Debug, Default)]
struct State {
    /// Separators in front. The RFC allows more than one: they stand for nothing.
    separators: usize,
    /// Bytes looked at.
    seen: usize,
}

impl Framing for RecordSeparator {
    fn scan(&mut self, input: &[u8], position: Position) -> Result<Scan, FramingError> {
        let State { mut separators, mut seen } = std::mem::take(&mut self.state);
        if seen == separators {
            let more = input[seen..].iter().take_while(|&&b| b == SEPARATOR);
            separators += more.count();
            seen = separators;
        }
        if separators == 0 && !input.is_empty() {
            return Err(FramingError::new(
                FramingErrorKind::ReplyMalformed,
                "it does not begin with a record separator (0x1e): give the tool the option that \
                 makes it print one (jq: --seq)",
            ));
        }
        if let Some(at) = memchr2(b'\n', SEPARATOR, &input[seen..]) {
            let end = seen + at;
            // Separators beyond the first count against the limit, or they could go on for ever.
            let found = complete(separators..end, end + 1, end - 1, position)?;
            if input[end] == SEPARATOR {
                return Err(FramingError::new(
                    FramingErrorKind::ReplyMalformed,
                    "the next record separator (0x1e) came before its line feed: the text was cut \
                     off",
                ));
            }
            return Ok(found);
        }
        let partial = unfinished(input.len().saturating_sub(1), position)?;
        self.state = State { separators, seen: input.len() };
        Ok(partial)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{scan, trickle};
    use super::*;

    #[test]
    fn separators_in_front_are_taken_off_however_many() {
        let framing = &mut RecordSeparator::default();
        assert_eq!(trickle(framing, b"\x1e{}\n\x1e", 9), Ok(Some((b"{}".to_vec(), 4))));
        assert_eq!(trickle(framing, b"\x1e\x1e\x1e1\r\n", 9), Ok(Some((b"1\r".to_vec(), 6))));
        assert_eq!(trickle(framing, b"\x1e\n", 0), Ok(Some((vec![], 2))));
    }

    #[test]
    fn a_reply_without_its_separator_is_malformed() {
        let found = scan(&mut RecordSeparator::default(), b"{}\n", 9, false);
        assert_eq!(found, Err(FramingErrorKind::ReplyMalformed));
    }

    #[test]
    fn a_text_that_was_cut_off_is_malformed() {
        let found = trickle(&mut RecordSeparator::default(), b"\x1e[1,\x1e2\n", 9);
        assert_eq!(found, Err(FramingErrorKind::ReplyMalformed));
    }

    #[test]
    fn separators_without_end_pass_the_limit() {
        let found = trickle(&mut RecordSeparator::default(), &[SEPARATOR; 9], 3);
        assert_eq!(found, Err(FramingErrorKind::TooLong { size: 4, limit: 3 }));
    }

    #[test]
    fn a_text_without_its_line_feed_is_half_a_reply() {
        let found = scan(&mut RecordSeparator::default(), b"\x1e{}", 9, true);
        assert_eq!(found, Err(FramingErrorKind::Truncated));
    }
}
