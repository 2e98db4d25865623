//! Replies that end in a literal marker, such as exiftool's `{ready}`.
//!
//! The marker counts wherever it stands, not only at the start of a line, because a tool whose last
//! line lacks its line feed prints the marker right behind it. The search is `memmem`, resumed one
//! marker's length before the end of what was already searched.

use memchr::memchr;
use memchr::memmem::Finder;

use super::parts::{complete, unfinished};
use super::{Framing, FramingError, FramingErrorKind, Position, Scan};

/// The longest rest of a line that is dropped behind a marker, in bytes. It belongs to no reply, so
/// that no limit of the user's applies to it, but it must not grow for ever.
const REST_LIMIT: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct Marker {
    finder: Finder<'static>,
    /// The marker takes the rest of its line with it.
    whole_line: bool,
    state: State,
}

#[derive(Debug, Default)]
struct State {
    /// No marker begins in the first so many bytes; or, once it is found, where it begins.
    seen: usize,
    /// How far the rest of the marker's line was searched, once the marker is found.
    rest: Option<usize>,
}

impl Marker {
    /// `marker` is not empty.
    pub(super) fn new(marker: &[u8], whole_line: bool) -> Self {
        Self { finder: Finder::new(marker).into_owned(), whole_line, state: State::default() }
    }
}

impl Framing for Marker {
    fn scan(&mut self, input: &[u8], position: Position) -> Result<Scan, FramingError> {
        let State { seen, rest } = std::mem::take(&mut self.state);
        let length = self.finder.needle().len();
        let at = match rest {
            Some(_) => seen,
            None => match self.finder.find(&input[seen..]) {
                Some(at) => seen + at,
                None => {
                    // The last bytes may be the beginning of the marker.
                    let least = (input.len() + 1).saturating_sub(length);
                    let partial = unfinished(least, position)?;
                    self.state.seen = least;
                    return Ok(partial);
                }
            },
        };
        let end = at + length;
        // Before the line feed is waited for: a reply that is too long will not get shorter.
        let found = complete(0..at, end, at, position)?;
        if !self.whole_line {
            return Ok(found);
        }
        match rest_of_line(input, end, rest.unwrap_or(end), position.eof)? {
            Some(len) => Ok(Scan::Complete { body: 0..at, len }),
            None => {
                self.state = State { seen: at, rest: Some(input.len()) };
                Ok(Scan::Partial)
            }
        }
    }
}

/// Where the line ends, behind its line feed, that goes on at `from` and is searched up to `seen`.
///
/// At the end of the output the line feed may be missing: the marker is whole, so the reply is.
pub(super) fn rest_of_line(
    input: &[u8],
    from: usize,
    seen: usize,
    eof: bool,
) -> Result<Option<usize>, FramingError> {
    let end = memchr(b'\n', &input[seen..]).map(|at| seen + at);
    if end.unwrap_or(input.len()) - from > REST_LIMIT {
        return Err(FramingError::new(
            FramingErrorKind::ReplyMalformed,
            "the marker's line goes on and on: let the tool print a line feed behind the marker",
        ));
    }
    Ok(end.map(|end| end + 1).or(eof.then_some(input.len())))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{scan, trickle};
    use super::*;

    #[test]
    fn the_marker_is_found_inside_a_line_and_what_follows_stays() {
        let found = trickle(&mut Marker::new(b"{ready}\n", false), b"no lf{ready}\nnext", 99);
        assert_eq!(found, Ok(Some((b"no lf".to_vec(), 13))));
    }

    #[test]
    fn a_marker_with_a_changing_end_takes_its_line_with_it() {
        let framing = &mut Marker::new(b"{ready", true);
        let found = trickle(framing, b"File : a.jpg\n{ready12}\r\n{ready13}\n", 99);
        assert_eq!(found, Ok(Some((b"File : a.jpg\n".to_vec(), 24))));
        let found = trickle(framing, b"{ready13}\n", 99);
        assert_eq!(found, Ok(Some((vec![], 10))));
    }

    #[test]
    fn at_the_end_the_markers_line_feed_may_be_missing_but_no_part_of_the_marker() {
        let framing = &mut Marker::new(b"{ready", true);
        assert_eq!(scan(framing, b"a{ready}", 9, false), Ok(None));
        assert_eq!(scan(framing, b"a{ready}", 9, true), Ok(Some((b"a".to_vec(), 8))));
        assert_eq!(scan(framing, b"a{read", 9, true), Err(FramingErrorKind::Truncated));
    }

    #[test]
    fn a_marker_that_overlaps_itself_is_found_where_it_first_begins() {
        let found = trickle(&mut Marker::new(b"aab", false), b"aaaab", 9);
        assert_eq!(found, Ok(Some((b"aa".to_vec(), 5))));
    }

    #[test]
    fn the_limit_counts_what_cannot_be_the_marker() {
        let framing = &mut Marker::new(b"END", false);
        assert_eq!(trickle(framing, b"abcEND", 3), Ok(Some((b"abc".to_vec(), 6))));
        let too_long = Err(FramingErrorKind::TooLong { size: 4, limit: 3 });
        assert_eq!(trickle(framing, b"abcdEN", 3), too_long);
        assert_eq!(scan(framing, b"abcdEND", 3, false), too_long);
        // Six bytes that end in what may begin a marker are still good for a body of four.
        assert_eq!(scan(framing, b"abcdEN", 4, false), Ok(None));
    }

    #[test]
    fn a_line_that_never_ends_behind_the_marker_is_given_up() {
        let framing = &mut Marker::new(b"END", true);
        let mut input = b"END".to_vec();
        input.resize(3 + REST_LIMIT, b'.');
        assert_eq!(scan(framing, &input, 9, false), Ok(None));
        input.push(b'.');
        assert_eq!(scan(framing, &input, 9, false), Err(FramingErrorKind::ReplyMalformed));
    }
}
