//! Helpers of this folder's unit tests.

use super::{Framing, FramingErrorKind, Position, Scan};

/// One scan of `input`, as body and length, or the kind of error.
pub(super) fn scan(
    framing: &mut dyn Framing,
    input: &[u8],
    limit: usize,
    eof: bool,
) -> Result<Option<(Vec<u8>, usize)>, FramingErrorKind> {
    match framing.scan(input, Position::new(0, limit, eof)) {
        Ok(Scan::Partial) => Ok(None),
        Ok(Scan::Complete { body, len }) => Ok(Some((input[body].to_vec(), len))),
        Err(error) => Err(error.kind()),
    }
}

/// The reply at the start of `input` when its bytes come one by one, and how many it took.
pub(super) fn trickle(
    framing: &mut dyn Framing,
    input: &[u8],
    limit: usize,
) -> Result<Option<(Vec<u8>, usize)>, FramingErrorKind> {
    for end in 1..=input.len() {
        let found = scan(framing, &input[..end], limit, false)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
