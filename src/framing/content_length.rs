//! `Content-Length` headers, as language servers and debug adapters use them.
//!
//! A section of header lines, each `Name: value` and CRLF, ended by an empty one; then as many bytes
//! as `Content-Length` says. What is written has exactly that header. What is read may have others,
//! which are ignored, any case in the name, and bare line feeds: Python scripts that print `\n` are
//! more common than ones that get this right.

use bstr::{BStr, ByteSlice};
use memchr::memchr;

use super::parts::{announced, decimal, insert, unfinished};
use super::{Framing, FramingError, FramingErrorKind, Position, Scan};

/// The longest header section, in bytes, the empty line included. The user's limit is for bodies.
const HEADER_LIMIT: usize = 16 << 10;

/// Ends the request whose body begins at `start`.
pub(super) fn close(out: &mut Vec<u8>, start: usize) {
    let head = format!("Content-Length: {}\r\n\r\n", out.len() - start);
    insert(out, start, head.as_bytes());
}

#[derive(Debug, Default)]
pub(super) struct ContentLength {
    state: State,
}

#[derive(Debug, Default)]
struct State {
    /// Where the current header line begins, or the body once `whole`.
    line: usize,
    /// Bytes looked at for the end of that line.
    seen: usize,
    /// The size, once its header has been read.
    size: Option<u64>,
    /// The header section has ended.
    whole: bool,
}

fn bad(cause: impl Into<String>) -> FramingError {
    FramingError::new(FramingErrorKind::BadHeader, cause.into())
}

/// A header line as it is shown in an error: enough of it to know it again.
fn excerpt(line: &[u8]) -> &BStr {
    line[..line.len().min(80)].as_bstr()
}

impl State {
    /// Takes in one header line, without its line end.
    fn header(&mut self, line: &[u8]) -> Result<(), FramingError> {
        let Some((name, value)) = line.split_once_str(":") else {
            return Err(bad(format!(
                "{:?} is no header line; is something else printed on stdout?",
                excerpt(line)
            )));
        };
        if !name.trim_ascii().eq_ignore_ascii_case(b"content-length") {
            return Ok(());
        }
        let Some(size) = decimal(value.trim_with(|c| c == ' ' || c == '\t')) else {
            return Err(bad(format!("{:?} gives no decimal size", excerpt(line))));
        };
        match self.size.replace(size) {
            Some(other) if other != size => {
                Err(bad(format!("two sizes are given, {other} and {size}")))
            }
            _ => Ok(()),
        }
    }
}

impl Framing for ContentLength {
    fn scan(&mut self, input: &[u8], position: Position) -> Result<Scan, FramingError> {
        let mut state = std::mem::take(&mut self.state);
        while !state.whole {
            let section = &input[..input.len().min(HEADER_LIMIT)];
            let Some(at) = memchr(b'\n', &section[state.seen..]) else {
                if section.len() == HEADER_LIMIT {
                    return Err(bad("the header section passes 16 KiB"));
                }
                let partial = unfinished(0, position)?;
                state.seen = section.len();
                self.state = state;
                return Ok(partial);
            };
            let end = state.seen + at;
            let line = &input[state.line..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                state.whole = true;
            } else {
                state.header(line)?;
            }
            state.line = end + 1;
            state.seen = end + 1;
        }
        let Some(size) = state.size else {
            return Err(bad("the header section has no Content-Length"));
        };
        let scan = announced(input, state.line, size, b"", position)?;
        if scan == Scan::Partial {
            self.state = state;
        }
        Ok(scan)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{scan, trickle};
    use super::*;

    fn framing() -> ContentLength {
        ContentLength::default()
    }

    #[test]
    fn a_request_gets_exactly_one_header() {
        let mut out = b"{}".to_vec();
        close(&mut out, 0);
        assert_eq!(out, b"Content-Length: 2\r\n\r\n{}");
    }

    #[test]
    fn other_headers_case_and_bare_line_feeds_are_accepted() {
        for input in [
            &b"Content-Length: 2\r\n\r\n{}"[..],
            b"content-length:2\n\n{}",
            b"Content-Type: application/json; charset=utf-8\r\nCONTENT-LENGTH:\t 002 \r\n\r\n{}",
            b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        ] {
            let found = trickle(&mut framing(), input, 2);
            assert_eq!(found, Ok(Some((b"{}".to_vec(), input.len()))));
        }
    }

    #[test]
    fn a_header_section_without_a_usable_size_is_bad() {
        for input in [
            &b"\r\n"[..],
            b"Content-Type: x\r\n\r\n",
            b"Content-Length: 2a\r\n",
            b"Content-Length: -2\r\n",
            b"Content-Length:\r\n",
            b"Content-Length: 2\r\nContent-Length: 3\r\n",
            b"Loading model...\n",
        ] {
            let found = trickle(&mut framing(), input, 9);
            assert_eq!(found, Err(FramingErrorKind::BadHeader), "{input:?}");
        }
    }

    #[test]
    fn a_header_section_without_end_is_given_up() {
        let mut input = b"X: ".to_vec();
        input.resize(HEADER_LIMIT - 1, b'x');
        assert_eq!(scan(&mut framing(), &input, 9, false), Ok(None));
        input.push(b'x');
        assert_eq!(scan(&mut framing(), &input, 9, false), Err(FramingErrorKind::BadHeader));
    }

    #[test]
    fn the_headers_of_one_reply_are_forgotten_by_the_next() {
        let framing = &mut framing();
        let first = b"Content-Length: 1\r\n\r\na";
        assert!(matches!(trickle(framing, first, 9), Ok(Some(_))));
        assert_eq!(trickle(framing, b"X: y\r\n\r\n", 9), Err(FramingErrorKind::BadHeader));
        assert!(matches!(trickle(framing, first, 9), Ok(Some(_))));
    }

    #[test]
    fn a_size_over_the_limit_is_known_with_the_header() {
        assert_eq!(
            scan(&mut framing(), b"Content-Length: 10\n\n", 9, false),
            Err(FramingErrorKind::TooLong { size: 10, limit: 9 })
        );
    }
}
