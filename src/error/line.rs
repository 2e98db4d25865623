//! Text of any length as one line of bounded length: what a message quotes of what was read or configured.
//!
//! What is too long loses its middle, because both ends tell something: a command line begins with its
//! program and ends with its operand.

use bstr::ByteSlice;

/// How much of something that was read is quoted in a message, in bytes of the quotation.
const EXCERPT: usize = 200;

/// Some bytes in quotes, readable and on one line. What is not text is escaped; what is too long loses its
/// middle.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    quoted(bytes, EXCERPT)
}

/// Some bytes in quotes, their escapes counted, in `most` bytes of text and some for the quotes and for what is said
/// of the middle.
pub(super) fn quoted(bytes: &[u8], most: usize) -> String {
    let pieces = bytes.char_indices().map(|(start, end, c)| {
        let is_text =
            c != char::REPLACEMENT_CHARACTER || &bytes[start..end] == "\u{fffd}".as_bytes();
        let text = if is_text {
            c.escape_debug().to_string()
        } else {
            bytes[start..end].escape_bytes().to_string()
        };
        (end - start, text)
    });
    match ends(pieces, bytes.len(), most) {
        Ends::Whole(text) => format!("\"{text}\""),
        Ends::Cut(head, cut, tail) => format!("\"{head}\"[... {cut} bytes ...]\"{tail}\""),
    }
}

/// Text on one line, in `most` bytes and some for what is said of the middle.
pub(super) fn one_line(text: &str, most: usize) -> String {
    let pieces = text.chars().map(|c| {
        let breaks = c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        (c.len_utf8(), if breaks { c.escape_default().to_string() } else { c.to_string() })
    });
    match ends(pieces, text.len(), most) {
        Ends::Whole(text) => text,
        Ends::Cut(head, cut, tail) => format!("{head}[... {cut} bytes ...]{tail}"),
    }
}

/// The most that [`quoted`] and [`one_line`] add to what they keep.
#[allow(dead_code, reason = "Rust 1.88 does not see what a constant without a name uses")]
pub(super) const AROUND: usize = "\"\"[... 18446744073709551615 bytes ...]\"\"".len();

enum Ends {
    Whole(String),
    /// The beginning, how many bytes are left out, and the end.
    Cut(String, usize, String),
}

/// The ends of a text of which each piece is given as its length and how it reads. Looks at no more pieces than it
/// keeps.
fn ends(
    mut pieces: impl DoubleEndedIterator<Item = (usize, String)> + Clone,
    len: usize,
    most: usize,
) -> Ends {
    // A piece reads as long as it is, or longer.
    if len <= most {
        let whole: String = pieces.clone().map(|(_, text)| text).collect();
        if whole.len() <= most {
            return Ends::Whole(whole);
        }
    }
    let tail_most = most / 3;
    let (head, taken) = keep(&mut pieces, most - tail_most);
    let (tail, kept) = keep(pieces.rev(), tail_most);
    let tail = tail.into_iter().rev().collect::<String>();
    Ends::Cut(head.concat(), len - taken - kept, tail)
}

/// The first pieces that read as at most `most` bytes, and how many bytes they stand for.
fn keep(pieces: impl Iterator<Item = (usize, String)>, most: usize) -> (Vec<String>, usize) {
    let (mut kept, mut size, mut len) = (Vec::new(), 0, 0);
    for (bytes, text) in pieces {
        if size + text.len() > most {
            break;
        }
        size += text.len();
        len += bytes;
        kept.push(text);
    }
    (kept, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_whole() {
        assert_eq!(excerpt(b""), r#""""#);
        assert_eq!(excerpt("caf\u{e9} \"x\"\n".as_bytes()), r#""café \"x\"\n""#);
        assert_eq!(excerpt(b"\x00\xff\xc3"), r#""\0\xFF\xC3""#);
        assert_eq!(one_line("a 'b' \"c\"\\", 10), "a 'b' \"c\"\\");
        assert_eq!(one_line("a\nb\u{2028}c\t", 99), "a\\nb\\u{2028}c\\t");
    }

    #[test]
    fn what_is_too_long_loses_its_middle_and_says_how_much() {
        let long = [&b"beginning"[..], &[b'x'; 1_000_000], b"end"].concat();
        let said = excerpt(&long);
        assert!(said.starts_with("\"beginningxxx") && said.ends_with("xxxend\""), "{said}");
        assert!(said.contains("\"[... 999812 bytes ...]\""), "{said}");
        assert_eq!(one_line("0123456789", 9), "012345[... 1 bytes ...]789");
        assert_eq!(one_line("\n\n\n\n\n\n", 6), "\\n\\n[... 3 bytes ...]\\n");
    }

    #[test]
    fn a_line_is_never_longer_than_it_may_be_nor_cut_inside_a_character() {
        for text in ["\u{1F600}", "\n", "\u{e9}", "a", "\u{fffd}"] {
            for count in [0, 1, 2, 3, 7, 50, 999] {
                for most in [0, 1, 2, 3, 5, 9, 60] {
                    let text = text.repeat(count);
                    let line = one_line(&text, most);
                    let quotation = quoted(text.as_bytes(), most);
                    for said in [line, quotation] {
                        assert!(said.len() <= most + AROUND, "{most}: {said}");
                        assert!(!said.contains('\n') && !said.contains("\\x"), "{said}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_left_out_and_what_is_kept_are_everything() {
        let bytes: Vec<u8> = (0..=255).cycle().take(5_000).collect();
        for most in [0, 10, 100, 1_000] {
            let said = quoted(&bytes, most);
            let cut = said.split("[... ").nth(1).unwrap().split(' ').next().unwrap();
            assert!(cut.parse::<usize>().unwrap() >= 5_000 - most, "{said}");
        }
    }
}
