//! A framing that can find no reply, because its description makes no sense.
//!
//! A feed refuses such a template before it starts anything. A caller that runs scanners without a feed
//! is told here.

use super::{Framing, FramingError, FramingErrorKind, Position, Scan};

#[derive(Debug)]
pub(super) struct Invalid(pub(super) String);

impl Framing for Invalid {
    fn scan(&mut self, _: &[u8], _: Position) -> Result<Scan, FramingError> {
        Err(FramingError::new(FramingErrorKind::ReplyMalformed, self.0.clone()))
    }
}
