//! How the words of a command survive the shells that they pass through on their way to another machine.
//!
//! A POSIX shell takes a word in single quotes as it is. But `ssh` gives the command to the login shell, which is the
//! user's choice, and others differ inside single quotes: fish halves `\\`, tcsh loses line feeds and expands
//! `!`. So the whole command is spelled in octal, of which every shell makes the same, and a `sh` reads it.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use itertools::Itertools;

/// The words as a POSIX shell reads them, one by one, whatever is in them.
pub(crate) fn for_sh(words: &[OsString]) -> Vec<u8> {
    words.iter().map(|word| quoted(word.as_bytes())).join(&b' ')
}

/// One word in single quotes.
pub(crate) fn quoted(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len() + 2);
    out.push(b'\'');
    for &byte in word {
        match byte {
            b'\'' => out.extend_from_slice(br"'\''"),
            byte => out.push(byte),
        }
    }
    out.push(b'\'');
    out
}

/// A command that any login shell (sh, bash, zsh, fish, tcsh) runs as these words.
pub(crate) fn for_any_shell(words: &[OsString]) -> OsString {
    let command = [&b"exec "[..], &for_sh(words)].concat();
    let mut out = br#"exec sh -c 'eval "$(printf %b "$0")"' '"#.to_vec();
    out.extend_from_slice(&octal(&command));
    out.push(b'\'');
    OsString::from_vec(out)
}

/// What `printf %b` makes these bytes of. There are letters, digits and backslashes in it, and nothing else.
pub(crate) fn octal(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(3 * bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("\\0{byte:03o}").as_bytes());
        }
    }
    out
}

/// Slices of bytes, joined.
trait JoinBytes {
    fn join(self, separator: &u8) -> Vec<u8>;
}

impl<I: Iterator<Item = Vec<u8>>> JoinBytes for I {
    fn join(self, separator: &u8) -> Vec<u8> {
        Itertools::intersperse(self, vec![*separator]).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::process::Command;

    fn every_byte() -> OsString {
        OsString::from_vec((1..=255).collect())
    }

    fn nasty() -> Vec<OsString> {
        let mut words = [
            "", " ", "it's", "''", "-n", "--", "a\nb\n", "\\", "\\\\", "a\\\\b", "$HOME", "`id`",
            "$(id)", "!x", "!!", "*", "~", "{a,b}", "#", "%s", "%%", "\t", "a\\c", "\\0101",
            "\u{e9}", "=x",
        ]
        .map(OsString::from)
        .to_vec();
        words.push(every_byte());
        words.push(OsString::from_vec(vec![0xa0, 0xff, 0xc3]));
        words
    }

    /// The words that a shell gives to a program, each ended by a NUL.
    fn through(shell: &str, words: &[OsString]) -> Option<Vec<Vec<u8>>> {
        let printf = ["printf".into(), r"%s\0".into()];
        let words: Vec<OsString> = printf.into_iter().chain(words.iter().cloned()).collect();
        let output = Command::new(shell).arg("-c").arg(for_any_shell(&words)).output().ok()?;
        assert!(output.status.success(), "{shell}: {output:?}");
        let mut words: Vec<_> =
            output.stdout.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
        assert_eq!(words.pop(), Some(Vec::new()));
        Some(words)
    }

    #[test]
    fn every_word_survives_every_shell_that_is_here() {
        let words = nasty();
        let expected: Vec<_> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        for shell in ["sh", "bash", "dash", "zsh", "ksh", "fish", "tcsh"] {
            if let Some(found) = through(shell, &words) {
                assert_eq!(found, expected, "{shell}");
            }
        }
    }

    #[test]
    fn what_is_sent_has_nothing_in_it_that_a_shell_minds() {
        let sent = for_any_shell(&nasty());
        let octal =
            sent.as_bytes().strip_prefix(br#"exec sh -c 'eval "$(printf %b "$0")"' '"#).unwrap();
        let octal = octal.strip_suffix(b"'").unwrap();
        assert!(octal.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'\\'));
    }
}
