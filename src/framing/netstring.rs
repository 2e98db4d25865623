//! Netstrings (D. J. Bernstein, 1997): `5:hello,`.
//!
//! A length in decimal digits, a colon, the bytes, a comma. The comma says nothing that the length
//! has not said; it is there so that two sides that disagree about the length find out at once.

use super::parts::{announced, decimal, insert, unfinished};
use super::{Framing, FramingError, FramingErrorKind, Position, Scan};

/// Digits of the largest length that 64 bits can hold. A length with more is no length.
const MOST_DIGITS: usize = 20;

/// Ends the request whose body begins at `start`.
pub(super) fn close(out: &mut Vec<u8>, start: usize) {
    let head = format!("{}:", out.len() - start);
    insert(out, start, head.as_bytes());
    out.push(b',');
}

/// The scanner. It has no state: the few digits are read again at every call.
#[derive(Debug)]
pub(super) struct Netstring;

fn bad(cause: &'static str) -> FramingError {
    FramingError::new(FramingErrorKind::BadHeader, cause)
}

impl Framing for Netstring {
    fn scan(&mut self, input: &[u8], position: Position) -> Result<Scan, FramingError> {
        let digits = input.iter().take_while(|byte| byte.is_ascii_digit()).count();
        // The zeros come first, as they do in the input: which error it is must not depend on reads.
        if digits > 1 && input[0] == b'0' {
            return Err(bad("a netstring's length has no leading zeros"));
        }
        if digits > MOST_DIGITS {
            return Err(bad("a netstring's length has at most 20 digits"));
        }
        match input.get(digits) {
            None => unfinished(0, position),
            Some(b':') if digits > 0 => {
                let size = decimal(&input[..digits]).unwrap_or(u64::MAX);
                announced(input, digits + 1, size, b",", position)
            }
            Some(_) => Err(bad("a netstring begins with decimal digits and a colon")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{scan, trickle};
    use super::*;

    #[test]
    fn a_request_gets_its_length_in_front() {
        let mut out = b"0:,hello world!".to_vec();
        close(&mut out, 3);
        assert_eq!(out, b"0:,12:hello world!,");
    }

    #[test]
    fn the_body_may_hold_anything() {
        let found = trickle(&mut Netstring, b"6:1:2,\n,,3:", 6);
        assert_eq!(found, Ok(Some((b"1:2,\n,".to_vec(), 9))));
        assert_eq!(trickle(&mut Netstring, b"0:,", 0), Ok(Some((vec![], 3))));
    }

    #[test]
    fn what_is_no_length_is_refused_at_its_first_wrong_byte() {
        for input in [&b":"[..], b"x", b"-", b"1 ", b"12x", b"00", b"01", b"111111111111111111111"]
        {
            assert_eq!(
                scan(&mut Netstring, input, 9, false),
                Err(FramingErrorKind::BadHeader),
                "{input:?}"
            );
            let before = &input[..input.len() - 1];
            assert_eq!(scan(&mut Netstring, before, 9, false), Ok(None));
        }
    }

    #[test]
    fn the_same_error_is_found_in_one_read_as_in_many() {
        let zeros = b"000000000000000000000000:";
        let message = |input| {
            let position = Position::new(0, 9, false);
            Netstring.scan(input, position).unwrap_err().to_string()
        };
        assert_eq!(message(&zeros[..2]), message(zeros));
    }

    #[test]
    fn a_length_beyond_64_bits_is_too_long() {
        assert_eq!(
            scan(&mut Netstring, b"99999999999999999999:", usize::MAX, false),
            Err(FramingErrorKind::TooLong { size: u64::MAX, limit: usize::MAX as u64 })
        );
    }

    #[test]
    fn a_body_without_its_comma_is_malformed() {
        assert_eq!(trickle(&mut Netstring, b"1:a;", 9), Err(FramingErrorKind::ReplyMalformed));
        assert_eq!(scan(&mut Netstring, b"1:a", 9, true), Err(FramingErrorKind::Truncated));
    }
}
