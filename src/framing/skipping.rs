//! Replies among records that are none: notifications, log lines, progress.
//!
//! Another framing cuts the records, a function of the user's says which of them are no reply, and those
//! are taken together with the reply that follows them. What has been passed over stays in front of the
//! buffer until that reply comes, and is not looked at again.

use std::fmt;
use std::sync::Arc;

use super::{Framing, FramingError, FramingErrorKind, Position, Scan};

/// Whether a record is no reply.
pub(super) type IsNoReply = dyn Fn(&[u8]) -> bool + Send + Sync;

/// How many bytes may be passed over in front of one reply, beside as many as a reply may have.
const AROUND: usize = 64 << 10;

pub(super) struct Skipping {
    inner: Box<dyn Framing>,
    is_no_reply: Arc<IsNoReply>,
    /// Bytes passed over so far, in front of the reply that is awaited.
    skipped: usize,
}

impl Skipping {
    pub(super) fn new(inner: Box<dyn Framing>, is_no_reply: Arc<IsNoReply>) -> Self {
        Self { inner, is_no_reply, skipped: 0 }
    }
}

impl fmt::Debug for Skipping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Skipping").field("skipped", &self.skipped).finish_non_exhaustive()
    }
}

impl Framing for Skipping {
    fn scan(&mut self, input: &[u8], position: Position) -> Result<Scan, FramingError> {
        let mut skipped = std::mem::take(&mut self.skipped);
        loop {
            let rest = &input[skipped..];
            // At the end of the output nothing is asked about no bytes, here as elsewhere.
            let scan = match rest.is_empty() && skipped > 0 {
                true if position.eof => return Err(FramingError::nothing_but_skipped()),
                true => Scan::Partial,
                false => self.inner.scan(rest, position)?,
            };
            match scan {
                Scan::Complete { body, len } if (self.is_no_reply)(&rest[body.clone()]) => {
                    debug_assert!(len > 0, "a record takes bytes");
                    skipped += len;
                    if skipped > position.limit.saturating_add(AROUND) {
                        return Err(FramingError::new(
                            FramingErrorKind::TooLong {
                                size: skipped as u64,
                                limit: position.limit.saturating_add(AROUND) as u64,
                            },
                            "so much was passed over in front of one reply: raise the reply limit, or \
                             have the tool say less",
                        ));
                    }
                }
                Scan::Complete { body, len } => {
                    let body = skipped + body.start..skipped + body.end;
                    return Ok(Scan::Complete { body, len: skipped + len });
                }
                Scan::Partial => {
                    self.skipped = skipped;
                    return Ok(Scan::Partial);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ReplyFraming;
    use super::super::testing::{scan, trickle};
    use super::*;

    fn lines_but_for_comments() -> Box<dyn Framing> {
        ReplyFraming::line().skipping(|line| line.starts_with(b"#")).start()
    }

    #[test]
    fn what_is_no_reply_is_taken_with_the_reply_behind_it() {
        let found = trickle(&mut *lines_but_for_comments(), b"#a\n#\n\n#b\n", 9);
        assert_eq!(found, Ok(Some((vec![], 6))));
        let found = trickle(&mut *lines_but_for_comments(), b"reply\n#b\n", 9);
        assert_eq!(found, Ok(Some((b"reply".to_vec(), 6))));
    }

    #[test]
    fn nothing_but_comments_at_the_end_is_no_reply() {
        let framing = &mut *lines_but_for_comments();
        assert_eq!(scan(framing, b"#a\n#b\n", 9, false), Ok(None));
        assert_eq!(scan(framing, b"#a\n#b\n", 9, true), Err(FramingErrorKind::Truncated));
        assert_eq!(scan(framing, b"#a\n", 9, true), Err(FramingErrorKind::Truncated));
        let at_end = |input: &[u8]| {
            lines_but_for_comments().scan(input, Position::new(0, 9, true)).expect_err("no reply")
        };
        assert!(!at_end(b"#a\n").is_half() && at_end(b"#a\nb").is_half());
    }

    #[test]
    fn each_record_is_held_to_the_limit_and_all_that_is_passed_over_to_a_larger_one() {
        let framing = &mut *lines_but_for_comments();
        let too_long = Err(FramingErrorKind::TooLong { size: 4, limit: 3 });
        assert_eq!(scan(framing, b"#ab\nab\n", 3, false), Ok(Some((b"ab".to_vec(), 7))));
        assert_eq!(scan(framing, b"#abc\n", 3, false), too_long);
        let comments = b"#a\n".repeat(AROUND / 3 + 1);
        assert_eq!(scan(framing, &comments, 3, false), Ok(None));
        let comments = b"#a\n".repeat(AROUND / 3 + 2);
        let size = comments.len() as u64;
        let kind = FramingErrorKind::TooLong { size, limit: 3 + AROUND as u64 };
        assert_eq!(scan(framing, &comments, 3, false), Err(kind));
    }

    #[test]
    fn it_is_never_cut_in_bulk() {
        assert_eq!(lines_but_for_comments().delimiter(), None);
    }
}
