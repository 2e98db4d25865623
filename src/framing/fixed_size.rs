//! Replies of a fixed number of bytes, such as the frames of a raw video.
//!
//! Nothing marks their end but the count, so that a byte too many shifts every reply after it.

use super::parts::unfinished;
use super::{Framing, FramingError, Position, Scan};

/// The scanner. It has no state, because it never looks at the bytes.
#[derive(Debug)]
pub(super) struct FixedSize(pub(super) usize);

impl Framing for FixedSize {
    fn scan(&mut self, input: &[u8], position: Position) -> Result<Scan, FramingError> {
        let Self(size) = *self;
        if size > position.limit {
            return Err(FramingError::reply_too_long(size as u64, position.limit));
        }
        if input.len() < size {
            return unfinished(0, position);
        }
        Ok(Scan::Complete { body: 0..size, len: size })
    }
}

#[cfg(test)]
mod tests {
    use super::super::FramingErrorKind;
    use super::super::testing::{scan, trickle};
    use super::*;

    #[test]
    fn a_reply_is_whole_with_its_last_byte_and_may_hold_any() {
        let found = trickle(&mut FixedSize(4), b"\n\0\xff\n\n", 4);
        assert_eq!(found, Ok(Some((b"\n\0\xff\n".to_vec(), 4))));
    }

    #[test]
    fn a_byte_short_at_the_end_is_half_a_reply() {
        assert_eq!(scan(&mut FixedSize(4), b"abc", 4, true), Err(FramingErrorKind::Truncated));
        assert_eq!(scan(&mut FixedSize(4), b"", 4, true), Err(FramingErrorKind::Truncated));
    }

    #[test]
    fn a_size_over_the_limit_is_told_from_it_at_once() {
        let too_long = Err(FramingErrorKind::TooLong { size: 5, limit: 4 });
        assert_eq!(scan(&mut FixedSize(5), b"a", 4, false), too_long);
    }
}
