//! Replies of a fixed number of fields, each ended by the same byte: k lines, or the four NULs with which
//! `git check-ignore -z -v` answers each path.
//!
//! The fields are counted, never copied: the body is the span from the first byte of the first field to
//! the last byte of the last, the delimiters between them included.

use memchr::memchr_iter;

use super::parts::{complete, unfinished};
use super::{Framing, FramingError, Position, Scan};

#[derive(Debug)]
pub(super) struct Fields {
    delimiter: u8,
    count: usize,
    state: State,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes looked at.
    seen: usize,
    /// Delimiters among them; fewer than `count`.
    ended: usize,
}

impl Fields {
    /// `count` is at least 1.
    pub(super) fn new(delimiter: u8, count: usize) -> Self {
        Self { delimiter, count, state: State::default() }
    }
}

impl Framing for Fields {
    fn scan(&mut self, input: &[u8], position: Position) -> Result<Scan, FramingError> {
        let State { seen, mut ended } = std::mem::take(&mut self.state);
        for at in memchr_iter(self.delimiter, &input[seen..]) {
            ended += 1;
            if ended == self.count {
                let end = seen + at;
                return complete(0..end, end + 1, end, position);
            }
        }
        let partial = unfinished(input.len(), position)?;
        self.state = State { seen: input.len(), ended };
        Ok(partial)
    }

    fn delimiter(&self) -> Option<u8> {
        (self.count == 1).then_some(self.delimiter)
    }
}

#[cfg(test)]
mod tests {
    use super::super::FramingErrorKind;
    use super::super::testing::{scan, trickle};
    use super::*;

    #[test]
    fn the_last_line_feed_is_taken_off_and_the_inner_ones_stay() {
        let found = trickle(&mut Fields::new(b'\n', 3), b"a\n\nc\r\nd\n", 100);
        assert_eq!(found, Ok(Some((b"a\n\nc\r".to_vec(), 6))));
    }

    #[test]
    fn fields_may_be_empty_and_hold_line_feeds_where_a_nul_ends_them() {
        let found = trickle(&mut Fields::new(0, 4), b"\0\0\0a\nb\0", 100);
        assert_eq!(found, Ok(Some((b"\0\0\0a\nb".to_vec(), 7))));
    }

    #[test]
    fn the_count_starts_again_with_every_reply() {
        let framing = &mut Fields::new(b'\n', 2);
        assert_eq!(scan(framing, b"a\nb\nc\n", 9, false), Ok(Some((b"a\nb".to_vec(), 4))));
        assert_eq!(scan(framing, b"c\n", 9, false), Ok(None));
        assert_eq!(scan(framing, b"c\nd\n", 9, false), Ok(Some((b"c\nd".to_vec(), 4))));
    }

    #[test]
    fn one_field_of_two_at_the_end_is_half_a_reply() {
        let framing = &mut Fields::new(b'\n', 2);
        assert_eq!(scan(framing, b"a\n", 9, true), Err(FramingErrorKind::Truncated));
    }

    #[test]
    fn only_a_single_field_can_be_cut_by_its_delimiter() {
        assert_eq!(Fields::new(b'\n', 1).delimiter(), Some(b'\n'));
        assert_eq!(Fields::new(0, 2).delimiter(), None);
    }
}
