//! What is kept of what a process writes on stderr: its beginning, its end, and how much was between.
//!
//! The first line is usually the cause, and the last what came of it.

use std::sync::Arc;

use bstr::{BString, ByteSlice};

/// The first and the last bytes of a stream, each at most [`KEPT`](StderrExcerpt::KEPT).
///
/// Clones share what they keep: the errors of a whole window of packets hold one copy.
///
/// # Invariants
/// 1. `head` is full before `tail` holds anything: without a gap, `head` and `tail` together are the stream.
/// 2. `tail` holds at most two times `KEPT`; its last `KEPT` bytes count. So a byte is moved once at most.
#[derive(Clone, Debug, Default)]
pub(crate) struct StderrExcerpt(Arc<Kept>);

#[derive(Clone, Debug, Default)]
struct Kept {
    head: Vec<u8>,
    tail: Vec<u8>,
    /// Bytes that came after the head and have been dropped.
    dropped: u64,
}

impl StderrExcerpt {
    /// The most that each end keeps.
    pub(crate) const KEPT: usize = 4 << 10;

    /// Takes what was read next. Clones that were made before do not change.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let Kept { head, tail, dropped } = Arc::make_mut(&mut self.0);
        let (first, mut rest) = bytes.split_at(bytes.len().min(Self::KEPT - head.len()));
        head.extend_from_slice(first);
        if rest.len() > Self::KEPT {
            let skipped = rest.len() - Self::KEPT;
            rest = &rest[skipped..];
            *dropped += (tail.len() + skipped) as u64;
            tail.clear();
        } else if tail.len() + rest.len() > 2 * Self::KEPT {
            let stays = Self::KEPT - rest.len();
            let goes = tail.len() - stays;
            tail.drain(..goes);
            *dropped += goes as u64;
        }
        tail.extend_from_slice(rest);
    }

    /// The first bytes.
    pub(crate) fn head(&self) -> &[u8] {
        &self.0.head
    }

    /// The last bytes, as far as they came after the [`head`](Self::head).
    pub(crate) fn tail(&self) -> &[u8] {
        let tail = &self.0.tail;
        &tail[tail.len().saturating_sub(Self::KEPT)..]
    }

    /// How many bytes between the two are not kept.
    pub(crate) fn left_out(&self) -> u64 {
        self.0.dropped + (self.0.tail.len() - self.tail().len()) as u64
    }

    /// Whether these bytes stand in what is kept.
    pub(crate) fn contains(&self, bytes: &[u8]) -> bool {
        let (head, tail) = (self.head(), self.tail());
        if self.left_out() > 0 {
            return head.contains_str(bytes) || tail.contains_str(bytes);
        }
        [head, tail].concat().contains_str(bytes)
    }

    /// How many bytes are kept.
    pub(crate) fn len(&self) -> usize {
        self.head().len() + self.tail().len()
    }

    /// Both ends; where something is left out, a line in between says how much.
    pub(crate) fn text(&self) -> BString {
        let mut text = self.head().to_vec();
        if self.left_out() > 0 {
            let gap = format!("\n[... {} bytes left out ...]\n", self.left_out());
            text.extend_from_slice(gap.as_bytes());
        }
        text.extend_from_slice(self.tail());
        text.into()
    }

    /// The first line that is not blank, and the last if that is another one.
    pub(crate) fn lines(&self) -> Option<(&[u8], Option<&[u8]>)> {
        let full = |line: &&[u8]| !line.trim_ascii().is_empty();
        let (head, tail) = (self.head(), self.tail());
        let first = head.lines().find(full).or_else(|| tail.lines().find(full))?;
        let last_of = |part: &'_ [u8]| -> Option<std::ops::Range<usize>> {
            let end = part.trim_ascii_end().len();
            let start = part[..end].rfind_byte(b'\n').map_or(0, |at| at + 1);
            (start < end).then_some(start..end)
        };
        let last = match last_of(tail) {
            // The tail may begin inside the line that the head ends in; then the line is quoted from there.
            Some(range) => &tail[range],
            None => &head[last_of(head)?],
        };
        let differs = last.trim_ascii() != first.trim_ascii();
        Some((first.trim_ascii_end(), differs.then_some(last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: usize = StderrExcerpt::KEPT;

    fn of(bytes: &[u8], step: usize) -> StderrExcerpt {
        let mut excerpt = StderrExcerpt::default();
        for piece in bytes.chunks(step) {
            excerpt.push(piece);
        }
        excerpt
    }

    #[test]
    fn both_ends_are_kept_however_the_bytes_are_split() {
        for len in [0, 1, KEPT - 1, KEPT, KEPT + 1, 2 * KEPT, 2 * KEPT + 1, 3 * KEPT, 10 * KEPT + 7]
        {
            let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            for step in [1, 7, 1_000, KEPT, KEPT + 1, 3 * KEPT, usize::MAX] {
                let excerpt = of(&bytes, step);
                let head = &bytes[..len.min(KEPT)];
                let tail = &bytes[head.len().max(len.saturating_sub(KEPT))..];
                assert_eq!(excerpt.head(), head, "{len} by {step}");
                assert_eq!(excerpt.tail(), tail, "{len} by {step}");
                assert_eq!(excerpt.left_out(), (len - head.len() - tail.len()) as u64);
                assert_eq!(excerpt.len(), head.len() + tail.len());
                assert!(excerpt.0.tail.capacity() <= 4 * KEPT);
            }
        }
    }

    #[test]
    fn a_clone_costs_nothing_and_does_not_change() {
        let mut excerpt = of(b"before\n", 9);
        let clone = excerpt.clone();
        assert!(Arc::ptr_eq(&excerpt.0, &clone.0));
        excerpt.push(b"");
        assert!(Arc::ptr_eq(&excerpt.0, &clone.0));
        excerpt.push(b"after\n");
        assert_eq!((clone.text(), excerpt.text()), ("before\n".into(), "before\nafter\n".into()));
    }

    #[test]
    fn the_text_says_what_is_left_out() {
        let bytes = [&[b'a'; KEPT][..], &[b'b'; 1_000], &[b'c'; KEPT]].concat();
        let text = of(&bytes, 100).text();
        assert_eq!(text.len(), 2 * KEPT + "\n[... 1000 bytes left out ...]\n".len());
        assert!(text.contains_str("a\n[... 1000 bytes left out ...]\nc"));
        assert_eq!(of(&bytes[..2 * KEPT], 100).text(), bytes[..2 * KEPT]);
    }

    #[test]
    fn what_it_contains_is_found_across_its_two_ends_but_not_across_the_gap() {
        let bytes = [&[b'.'; KEPT - 2][..], b"word", &[b'.'; KEPT - 2]].concat();
        assert!(of(&bytes, 100).contains(b"word") && !of(&bytes, 100).contains(b"words"));
        let with_gap =
            [&[b'.'; KEPT - 2][..], b"wo", &[b'.'; 9], b"rd", &[b'.'; KEPT - 2]].concat();
        assert!(!of(&with_gap, 100).contains(b"word") && of(&with_gap, 100).contains(b"rd."));
    }

    #[test]
    fn the_first_and_the_last_line_are_found() {
        let lines = |text: &str| {
            let excerpt = of(text.as_bytes(), 3);
            let (first, last) = excerpt.lines()?;
            Some((BString::from(first), last.map(BString::from)))
        };
        assert_eq!(lines(""), None);
        assert_eq!(lines(" \n\n"), None);
        assert_eq!(lines("one\n"), Some(("one".into(), None)));
        assert_eq!(
            lines("\n\ncause\r\nmore\nhelp \n\n"),
            Some(("cause".into(), Some("help".into())))
        );
        assert_eq!(lines("same\nsame"), Some(("same".into(), None)));
        let blank_head = "\n".repeat(KEPT) + "late\nlast";
        assert_eq!(lines(&blank_head), Some(("late".into(), Some("last".into()))));
        let blank_tail = "early\nsecond".to_owned() + &"\n".repeat(3 * KEPT);
        assert_eq!(lines(&blank_tail), Some(("early".into(), Some("second".into()))));
    }
}
