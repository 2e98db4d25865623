//! A framing of the user's, held to [its contract](super::Framing#the-contract).
//!
//! What a scanner gives is used to cut buffers, and how much it may ask for is bounded by nobody else. So
//! this stands between: ranges outside the input, replies that take no bytes and replies without an end are
//! errors of a framing, which fail their packet, and not panics or memory that is gone.

use std::ops::Range;

use super::{Framing, FramingError, FramingErrorKind, Position, Scan};

/// What may come beside a body that is within the limit: headers, marks, delimiters.
const AROUND: usize = 64 << 10;

pub(super) struct Custom(pub(super) Box<dyn Framing>);

impl Framing for Custom {
    fn scan(&mut self, input: &[u8], position: Position) -> Result<Scan, FramingError> {
        let scan = self.0.scan(input, position)?;
        match &scan {
            Scan::Complete { body, len } => fits(body, *len, input.len(), position)?,
            Scan::Partial if input.len() > position.limit.saturating_add(AROUND) => {
                return Err(FramingError::reply_too_long(input.len() as u64, position.limit));
            }
            Scan::Partial => {}
        }
        Ok(scan)
    }

    fn delimiter(&self) -> Option<u8> {
        self.0.delimiter()
    }
}

fn fits(
    body: &Range<usize>,
    len: usize,
    input: usize,
    position: Position,
) -> Result<(), FramingError> {
    let problem = if body.start > body.end || body.end > len || len > input {
        format!("it cuts {body:?} out of {len} of {input} bytes")
    } else if len == 0 && !(position.eof && input == 0) {
        "it takes no bytes, so that the next reply would be the same".to_owned()
    } else if body.len() > position.limit {
        return Err(FramingError::reply_too_long(body.len() as u64, position.limit));
    } else {
        return Ok(());
    };
    let problem = format!("the custom framing breaks its contract: {problem}");
    Err(FramingError::new(FramingErrorKind::ReplyMalformed, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says the same whatever it is asked.
    struct Says(Scan);

    impl Framing for Says {
        fn scan(&mut self, _: &[u8], _: Position) -> Result<Scan, FramingError> {
            Ok(self.0.clone())
        }
    }

    fn asked(scan: Scan, input: &[u8], eof: bool) -> Result<Scan, FramingErrorKind> {
        let scanned = Custom(Box::new(Says(scan))).scan(input, Position::new(0, 4, eof));
        scanned.map_err(|error| error.kind())
    }

    #[test]
    fn what_lies_outside_the_input_is_refused() {
        let malformed = Err(FramingErrorKind::ReplyMalformed);
        let backwards = |end: usize| 2..end;
        for (body, len) in
            [(0..2, 1), (0..1, 4), (3..4, 3), (backwards(1), 3), (0..0, 0), (9..9, 9)]
        {
            assert_eq!(asked(Scan::Complete { body, len }, b"abc", false), malformed);
        }
        for (body, len) in [(0..2, 3), (0..0, 1), (3..3, 3)] {
            let scan = Scan::Complete { body, len };
            assert_eq!(asked(scan.clone(), b"abc", false), Ok(scan));
        }
        let nothing = Scan::Complete { body: 0..0, len: 0 };
        assert_eq!(asked(nothing.clone(), b"", true), Ok(nothing.clone()));
        assert_eq!(asked(nothing, b"", false), malformed);
    }

    #[test]
    fn the_limit_holds_whether_or_not_the_scanner_minds_it() {
        let too_long = |size| Err(FramingErrorKind::TooLong { size, limit: 4 });
        assert_eq!(asked(Scan::Complete { body: 0..5, len: 5 }, b"abcde", false), too_long(5));
        let most = vec![b'x'; 4 + AROUND];
        assert_eq!(asked(Scan::Partial, &most, false), Ok(Scan::Partial));
        let more = vec![b'x'; 5 + AROUND];
        assert_eq!(asked(Scan::Partial, &more, false), too_long(5 + AROUND as u64));
    }
}
