//! Replies that are the whole output of one process: `sort`, `gzip`, `sha256sum`.
//!
//! Such a tool answers once, when its input has ended, so that each packet takes a process of its
//! own. Nothing frames the reply but its end.

use super::parts::unfinished;
use super::{Framing, FramingError, Position, Scan};

/// The scanner. It never looks at the bytes.
#[derive(Debug)]
pub(super) struct UntilEof;

impl Framing for UntilEof {
    fn scan(&mut self, input: &[u8], position: Position) -> Result<Scan, FramingError> {
        let more = Position { eof: false, ..position };
        match unfinished(input.len(), more)? {
            Scan::Partial if position.eof => {
                Ok(Scan::Complete { body: 0..input.len(), len: input.len() })
            }
            scan => Ok(scan),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::FramingErrorKind;
    use super::super::testing::scan;
    use super::*;

    #[test]
    fn everything_is_the_reply_and_only_at_the_end() {
        assert_eq!(scan(&mut UntilEof, b"a\nb", 3, false), Ok(None));
        assert_eq!(scan(&mut UntilEof, b"a\nb", 3, true), Ok(Some((b"a\nb".to_vec(), 3))));
    }

    #[test]
    fn no_output_at_all_is_an_empty_reply() {
        assert_eq!(scan(&mut UntilEof, b"", 3, false), Ok(None));
        assert_eq!(scan(&mut UntilEof, b"", 3, true), Ok(Some((vec![], 0))));
    }

    #[test]
    fn too_much_is_known_before_the_end() {
        assert_eq!(
            scan(&mut UntilEof, b"abcd", 3, false),
            Err(FramingErrorKind::TooLong { size: 4, limit: 3 })
        );
    }
}
