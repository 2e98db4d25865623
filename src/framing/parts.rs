//! What several framings have in common.

use std::ops::Range;

use super::{FramingError, FramingErrorKind, Position, Scan};

/// What a scanner says that has found no end: `least` is the smallest body that is still possible.
///
/// A scanner calls this only after it has looked at every byte, so that the answer depends on what
/// has arrived and not on the reads in which it came.
pub(super) fn unfinished(least: usize, position: Position) -> Result<Scan, FramingError> {
    if least > position.limit {
        Err(FramingError::reply_too_long(position.limit as u64 + 1, position.limit))
    } else if position.eof {
        Err(FramingErrorKind::Truncated.into())
    } else {
        Ok(Scan::Partial)
    }
}

/// The complete reply `body`, which takes `len` bytes, unless it is longer than allowed.
///
/// `size` is what counts against the limit, in most framings the length of the body.
pub(super) fn complete(
    body: Range<usize>,
    len: usize,
    size: usize,
    position: Position,
) -> Result<Scan, FramingError> {
    if size > position.limit {
        // The same words as in `unfinished`: whether the end has come yet is an accident of reads.
        return Err(FramingError::reply_too_long(position.limit as u64 + 1, position.limit));
    }
    Ok(Scan::Complete { body, len })
}

/// A reply whose size was announced: `head` bytes in front, `size` bytes of body, then `tail` bytes.
///
/// Nothing is ever allocated by `size`; it may be any number a worker cares to print.
pub(super) fn announced(
    input: &[u8],
    head: usize,
    size: u64,
    tail: &[u8],
    position: Position,
) -> Result<Scan, FramingError> {
    let fits = usize::try_from(size).ok().filter(|&size| size <= position.limit);
    let ends = fits.and_then(|size| {
        let body_end = head.checked_add(size)?;
        Some((body_end, body_end.checked_add(tail.len())?))
    });
    let Some((body_end, len)) = ends else {
        return Err(FramingError::reply_too_long(size, position.limit));
    };
    match input.get(body_end..len) {
        Some(found) if found == tail => Ok(Scan::Complete { body: head..body_end, len }),
        Some(found) => Err(FramingError::new(
            FramingErrorKind::ReplyMalformed,
            format!(
                "the {size} bytes that were announced are followed by {:?} instead of {:?}",
                bstr::BStr::new(found),
                bstr::BStr::new(tail),
            ),
        )),
        None => unfinished(0, position),
    }
}

/// A decimal number of one digit or more, and nothing else. What does not fit is `u64::MAX`, which
/// passes every limit.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let value = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(value))
    })
}

/// Puts `head` in front of the body that begins at `start`, for framings whose header depends on it.
pub(super) fn insert(out: &mut Vec<u8>, start: usize, head: &[u8]) {
    let end = out.len();
    out.resize(end + head.len(), 0);
    out.copy_within(start..end, start + head.len());
    out[start..start + head.len()].copy_from_slice(head);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_takes_digits_only_and_saturates() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"0042"), Some(42));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(decimal(b"18446744073709551616"), Some(u64::MAX));
        assert_eq!(decimal(b"99999999999999999999999999"), Some(u64::MAX));
        for bad in [&b""[..], b"+5", b"-1", b" 1", b"1 ", b"1_0", b"0x1"] {
            assert_eq!(decimal(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn insert_moves_the_body_up() {
        let mut out = b"before|body".to_vec();
        insert(&mut out, 7, b"4:");
        assert_eq!(out, b"before|4:body");
        insert(&mut out, 13, b"!");
        assert_eq!(out, b"before|4:body!");
    }

    #[test]
    fn an_announced_size_that_overflows_an_address_is_too_long_even_without_a_limit() {
        let error = announced(b"", 8, usize::MAX as u64, b"", Position::new(0, usize::MAX, false));
        assert!(matches!(error.unwrap_err().kind(), FramingErrorKind::TooLong { .. }));
    }
}
