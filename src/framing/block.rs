//! Replies of any number of lines up to a blank one, or of several such blocks.
//!
//! This is the answer of `hunspell -a` and `aspell -a` (the Ispell pipe protocol), and of a
//! paragraph in general. The scanner goes from line to line and remembers where the current one
//! begins, so that a line which trickles in is looked at once.

use memchr::memchr;

use super::parts::{complete, unfinished};
use super::{Framing, FramingError, Position, Scan};

#[derive(Debug)]
pub(super) struct Block {
    count: usize,
    state: State,
}

#[derive(Debug, Default)]
struct State {
    /// Blank lines seen; fewer than `count`.
    ended: usize,
    /// Where the current line begins.
    line: usize,
    /// Bytes looked at; none of those from `line` on is a line feed.
    seen: usize,
}

/// A line that ends a block. The carriage return counts as blank, or a tool with CRLF line ends
/// would never finish one.
fn is_blank(line: &[u8]) -> bool {
    line.is_empty() || line == b"\r"
}

impl Block {
    /// `count` is at least 1.
    pub(super) fn new(count: usize) -> Self {
        Self { count, state: State::default() }
    }
}

/// The block without the line feed that ends its last line. No block is lost by that: an empty one
/// is "", and one of a single empty line cannot exist. Nor are several: put the line feed and a blank
/// line behind, and it is what the tool said.
fn body_end(line: usize) -> usize {
    line.saturating_sub(1)
}

impl Framing for Block {
    fn scan(&mut self, input: &[u8], position: Position) -> Result<Scan, FramingError> {
        let State { mut ended, mut line, mut seen } = std::mem::take(&mut self.state);
        while let Some(at) = memchr(b'\n', &input[seen..]) {
            let end = seen + at;
            ended += usize::from(is_blank(&input[line..end]));
            if ended == self.count {
                let body = 0..body_end(line);
                return complete(body.clone(), end + 1, body.end, position);
            }
            line = end + 1;
            seen = line;
        }
        // What may still turn out to be the last blank line is not counted as body.
        let least = match ended + 1 == self.count && is_blank(&input[line..]) {
            true => body_end(line),
            false => input.len(),
        };
        let partial = unfinished(least, position)?;
        self.state = State { ended, line, seen: input.len() };
        Ok(partial)
    }
}

#[cfg(test)]
mod tests {
    use super::super::FramingErrorKind;
    use super::super::testing::{scan, trickle};
    use super::*;

    #[test]
    fn the_blank_line_and_the_line_feed_before_it_are_taken_off() {
        let found = trickle(&mut Block::new(1), b"* \n& teh 1 0: the\n\n*\n\n", 100);
        assert_eq!(found, Ok(Some((b"* \n& teh 1 0: the".to_vec(), 19))));
    }

    #[test]
    fn a_blank_line_alone_is_an_empty_block() {
        assert_eq!(trickle(&mut Block::new(1), b"\n", 0), Ok(Some((vec![], 1))));
    }

    #[test]
    fn a_blank_line_may_hold_a_carriage_return() {
        let found = trickle(&mut Block::new(1), b"a\r\nb\r\n\r\nc", 100);
        assert_eq!(found, Ok(Some((b"a\r\nb\r".to_vec(), 8))));
    }

    #[test]
    fn of_several_blocks_only_the_last_blank_line_is_taken_off() {
        let found = trickle(&mut Block::new(2), b"a\nb\n\nc\n\nd", 100);
        assert_eq!(found, Ok(Some((b"a\nb\n\nc".to_vec(), 8))));
        let found = trickle(&mut Block::new(2), b"a\n\r\n\n", 100);
        assert_eq!(found, Ok(Some((b"a\n\r".to_vec(), 5))));
        assert_eq!(trickle(&mut Block::new(3), b"\n\n\n", 1), Ok(Some((b"\n".to_vec(), 3))));
    }

    #[test]
    fn the_count_of_blocks_starts_again_with_every_reply() {
        let framing = &mut Block::new(2);
        assert_eq!(scan(framing, b"a\n\nb\n\n", 9, false), Ok(Some((b"a\n\nb".to_vec(), 6))));
        assert_eq!(scan(framing, b"c\n\n", 9, false), Ok(None));
        assert_eq!(scan(framing, b"c\n\n", 9, true), Err(FramingErrorKind::Truncated));
    }

    #[test]
    fn a_line_of_spaces_is_not_blank() {
        let found = trickle(&mut Block::new(1), b"a\n \n\n", 100);
        assert_eq!(found, Ok(Some((b"a\n ".to_vec(), 5))));
    }

    #[test]
    fn the_blank_line_does_not_count_against_the_limit() {
        let framing = &mut Block::new(1);
        assert_eq!(trickle(framing, b"abc\n\r\n", 3), Ok(Some((b"abc".to_vec(), 6))));
        let too_long = Err(FramingErrorKind::TooLong { size: 4, limit: 3 });
        assert_eq!(trickle(framing, b"abc\n\rd", 3), too_long);
        assert_eq!(scan(framing, b"abcd\n\n", 3, false), too_long);
    }

    #[test]
    fn a_block_without_its_blank_line_is_half_a_reply() {
        assert_eq!(scan(&mut Block::new(1), b"a\nb\n", 9, true), Err(FramingErrorKind::Truncated));
    }
}
