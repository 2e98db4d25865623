//! The source as plain text with everything blanked that is no code. Good enough for looking at names.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect(path)
}

/// A file of `src/`.
pub(crate) struct Source {
    /// Below the root: `src/lib.rs`.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl Source {
    /// Every Rust file below a folder of ours, in order.
    pub(crate) fn below(folder: &str) -> Vec<Self> {
        let mut all = Vec::new();
        let mut folders = vec![root().join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = fs::read_to_string(&path).expect("a source file");
                    let path = path.strip_prefix(root()).expect("below the root").to_owned();
                    all.push(Self { path, text });
                }
            }
        }
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all
    }

    /// The text with comments and the contents of strings as blanks, line for line.
    pub(crate) fn code(&self) -> String {
        code(&self.text)
    }
}

/// See [`Source::code`].
pub(crate) fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let blank = |out: &mut String, text: &str| {
        out.extend(text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
    };
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = raw_string(rest).filter(|_| !ends_in_word(&out)) {
            length
        } else if first == '"' {
            quoted(rest)
        } else if first == '\'' && is_character(rest) {
            character(rest)
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        blank(&mut out, &rest[..length]);
        rest = &rest[length..];
    }
    out
}

fn ends_in_word(text: &str) -> bool {
    text.ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// The length of a raw string at the start: `r"..."`, `br#"..."#`.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.trim_start_matches(['b', 'c']).strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(text.len() - body.len() + body.find(&end)? + end.len())
}

/// The length of the string literal at the start.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    text.len()
}

/// The length of the character literal at the start.
fn character(text: &str) -> usize {
    let mut after = text.char_indices().skip(2);
    // What is escaped may be a quote.
    let from = if text[1..].starts_with('\\') { after.nth(1) } else { after.next() };
    let from = from.map_or(text.len(), |(at, _)| at);
    text[from..].find('\'').map_or(text.len(), |end| from + end + 1)
}

/// Whether a quote begins a character and not a lifetime.
fn is_character(text: &str) -> bool {
    let mut after = text.chars().skip(1);
    match after.next() {
        Some('\\') => true,
        Some(_) => after.next() == Some('\''),
        None => false,
    }
}

/// The words of some code, with the byte at which each begins. No numbers.
pub(crate) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let part = |c: char| c.is_alphanumeric() || c == '_';
            let start = at + code[at..].find(part)?;
            let end = code[start..].find(|c| !part(c)).map_or(code.len(), |length| start + length);
            at = end;
            if !code[start..].starts_with(|c: char| c.is_ascii_digit()) {
                return Some((start, &code[start..end]));
            }
        }
    })
}

/// The code without the modules that only tests have.
pub(crate) fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    let mut from = 0;
    while let Some(at) = out[from..].find("#[cfg(").map(|at| from + at) {
        from = at + 1;
        let Some((condition, item)) = out[at..].split_once(']') else { continue };
        if !words(condition).any(|(_, word)| word == "test") {
            continue;
        }
        let item = item.trim_start();
        let item = item.trim_start_matches("pub(crate) ");
        if !item.starts_with("mod ") {
            continue;
        }
        let (Some(open), end) = (out[at..].find('{'), out[at..].find(';')) else { continue };
        if end.is_some_and(|end| end < open) {
            continue;
        }
        let length = open + block(&out[at + open..]);
        let blank: String =
            out[at..at + length].chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
        out.replace_range(at..at + length, &blank);
    }
    out
}

/// The length of the block that begins with a brace.
pub(crate) fn block(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// The line that a byte is in, from 1.
pub(crate) fn line(code: &str, at: usize) -> usize {
    1 + code[..at].matches('\n').count()
}

#[test]
fn what_is_no_code_is_blanked() {
    let text = "let a = \"b \\\" c\"; // d\nlet e = 'f'; let g: &'h str = r#\"i \" j\"#; /* k */ l('\\'', '\\\\', '\\n')";
    let code = code(text);
    assert_eq!(code.len(), text.len());
    let all: Vec<_> = words(&code).map(|(_, word)| word).collect();
    assert_eq!(all, ["let", "a", "let", "e", "let", "g", "h", "str", "l"]);
}
