//! Replies that end where the tool prints a mark that it was told to print.
//!
//! After each request a *sync command* is written that makes the tool print a fresh word, the mark;
//! everything before the mark is the reply, be it nothing, one line or a thousand. The idea is that
//! of `expect` scripts and of Emacs's comint, which wait for a prompt, without the guesswork: a
//! prompt may occur in a reply, a random mark does not. Since the mark carries the packet's id, a
//! worker that has lost its place is found out instead of believed.
//!
//! This file writes the marks; `marks` finds them again.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write as _;

use bstr::{BStr, ByteSlice};

const TOKEN: &str = "{mark}";

/// A sync command that makes a tool print a mark after each reply, so that replies of any length,
/// and none at all, can be told apart.
///
/// This is the framing for interactive programs, which answer a request with whatever they like:
/// SQL shells, solvers, language interpreters. Counting lines is unsound there (a statement that
/// fails prints nothing on stdout, and every later reply slips by one); a sentinel is not.
///
/// # The command
///
/// The command is what a user of the tool would type to have a word printed on a line of its own,
/// with `{mark}` where the word goes:
///
/// | tool | command |
/// |---|---|
/// | `sqlite3` | `.print {mark}` |
/// | `psql -X -At` | `\echo {mark}` |
/// | `bc -q` | `print "{mark}\n"` |
/// | `z3 -in` | `(echo "{mark}")` |
/// | `sh`, `bash` | `echo {mark}` |
/// | `python3 -u -i -q` | `print("{mark}")` |
///
/// It is written behind each request, with a line feed after it. It may span lines: one that begins
/// with a line feed also ends a last line that the request left open.
///
/// # The mark
///
/// A mark is one word of the characters `a-z0-9` that begins with a letter: it needs no quoting in
/// any shell, and no interpreter takes it for a number. It holds a nonce, drawn at random for each
/// feed, and the packet's id, both at full width, so that no mark is the beginning of another.
///
/// # Where the reply ends
///
/// - The reply of a packet ends at its own mark, wherever that stands: a tool whose last line lacks
///   its line feed prints the mark right behind it. All bytes before the mark are the reply, the line
///   feed of its last line included, and so is anything that the tool prints *around* the mark on its
///   left, such as a prompt or an opening quote: turn prompts off.
/// - What follows the mark in its line is dropped, line feed included. The tool must print that line
///   feed at once; the reply waits for it, unless the output ends.
/// - The mark of another packet in front of the packet's own is an error
///   ([`MarkSkipped`](super::FramingErrorKind::MarkSkipped)): the tool did not execute a sync
///   command. Something in the request before it swallowed it, such as a quote that was never closed.
///   Where no other request follows that would show it, the reply is simply not there, as with any
///   worker that does not answer.
///
/// # Tools that echo
///
/// A tool that prints what it reads (`R` without `-s`, `psql -a`, a terminal with echo) would print
/// the mark twice, and the first time within the sync command itself, in front of the reply or in
/// the middle of it. Nothing that ended there could be trusted. So two things are errors
/// ([`MarkEchoed`](super::FramingErrorKind::MarkEchoed)): a mark that the command's own text precedes
/// on its line (here `.print `), and one that was already taken for the end of a reply. Turn the echo
/// off. The same error meets a tool that quotes the command in a complaint, or returns it as part of
/// a string that the request left open, instead of executing it. A command without a letter or digit
/// before the mark, such as `"{mark}"`, cannot be recognised in an echo; there, only the second mark
/// is.
///
/// # Examples
///
/// ```
/// use subfeed::framing::{Place, ReplyFraming, Scan, Sentinel};
///
/// let sentinel = Sentinel::new(".print {mark}");
///
/// // Down: the request "SELECT 1;" of packet 7, then the sync command.
/// let mut out = b"SELECT 1;\n".to_vec();
/// sentinel.append(7, &mut out);
/// let mark = sentinel.mark(7);
/// assert_eq!(out, format!("SELECT 1;\n.print {mark}\n").as_bytes());
///
/// // Back: the row, then the mark.
/// let framing = ReplyFraming::sentinel(sentinel);
/// let mut scanner = framing.start();
/// let output = format!("1\n{mark}\n");
/// let scan = scanner.scan(output.as_bytes(), Place::new(7, 1024, false))?;
/// assert_eq!(scan, Scan::Complete { body: 0..2, len: output.len() });
/// # Ok::<(), subfeed::framing::FramingError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Sentinel {
    command: Vec<u8>,
    nonce: u64,
    /// The nonce is one of the user's own.
    fixed: bool,
}

impl fmt::Debug for Sentinel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sentinel")
            .field("command", &BStr::new(&self.command))
            .field("nonce", &format_args!("{:016x}", self.nonce))
            .finish()
    }
}

impl Sentinel {
    /// A sentinel with this sync command, in which `{mark}` stands for the mark.
    ///
    /// The token is replaced wherever it occurs, but the tool must print the mark only once. Every
    /// other brace is literal.
    ///
    /// # Panics
    ///
    /// When the command does not contain `{mark}`: no reply would ever end.
    ///
    /// # Examples
    ///
    /// ```
    /// use subfeed::framing::Sentinel;
    ///
    /// let z3 = Sentinel::new(r#"(echo "{mark}")"#);
    /// let bc = Sentinel::new(r#"print "{mark}\n""#);
    /// ```
    #[must_use]
    #[track_caller]
    pub fn new(command: impl Into<Vec<u8>>) -> Self {
        let command = command.into();
        assert!(
            command.contains_str(TOKEN),
            "the sync command {:?} must contain the token {{mark}}, for which a fresh word is put",
            command.as_bstr(),
        );
        let nonce = random();
        Self { command, nonce, fixed: false }
    }

    /// The same command with a nonce of one's own, for output that can be reproduced.
    ///
    /// A nonce must be hard to guess where requests or replies come from somebody else: who knows it
    /// can forge the end of a reply.
    #[must_use]
    pub fn with_nonce(mut self, nonce: u64) -> Self {
        self.nonce = nonce;
        self.fixed = true;
        self
    }

    /// Draws a fresh nonce, so that marks of an earlier feed mean nothing in this one.
    ///
    /// A feed does this when it starts, unless the nonce is [one's own](Self::with_nonce).
    pub fn renew(&mut self) {
        self.nonce = random();
        self.fixed = false;
    }

    /// Whether the nonce is one of the user's own.
    pub(crate) fn is_fixed(&self) -> bool {
        self.fixed
    }

    /// The mark of a packet.
    #[must_use]
    pub fn mark(&self, packet: u64) -> String {
        format!("{}{packet:016x}", self.head())
    }

    /// What all marks of this sentinel begin with. Neither `s` nor `p` is a hexadecimal digit, so
    /// that it cannot overlap with itself or with an id.
    pub(super) fn head(&self) -> String {
        format!("sf{:016x}p", self.nonce)
    }

    /// Writes the sync command of a packet, and a line feed, behind its request.
    pub fn append(&self, packet: u64, out: &mut Vec<u8>) {
        let mut pieces = self.command.split_str(TOKEN);
        out.extend_from_slice(pieces.next().unwrap_or_default());
        for piece in pieces {
            // Not by way of `mark`: this runs for every packet.
            let written = write!(out, "sf{:016x}p{packet:016x}", self.nonce);
            debug_assert!(written.is_ok(), "a Vec takes every write");
            out.extend_from_slice(piece);
        }
        out.push(b'\n');
    }

    /// The text that stands before the mark in an echo of the command, if it is telling.
    pub(super) fn echo(&self) -> &[u8] {
        let before = self.command.split_str(TOKEN).next().unwrap_or_default();
        let line = before.rsplit_str("\n").next().unwrap_or_default();
        match line.iter().any(u8::is_ascii_alphanumeric) {
            true => line,
            false => b"",
        }
    }
}

/// A random number. The standard library seeds its hash maps from the system's randomness, and each
/// `RandomState` differs from the last; that is enough for a word that must not occur by chance.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_one_lower_case_word_of_fixed_width() {
        let random = Sentinel::new("{mark}");
        for packet in [0, 1, 16, u64::MAX] {
            let mark = random.mark(packet);
            assert_eq!(mark.len(), 35);
            assert!(mark.starts_with(|c: char| c.is_ascii_lowercase()));
            assert!(mark.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
        }
    }

    #[test]
    fn each_sentinel_has_a_nonce_of_its_own() {
        let mut sentinel = Sentinel::new("{mark}");
        let before = sentinel.clone();
        assert_ne!(before.mark(0), Sentinel::new("{mark}").mark(0));
        sentinel.renew();
        assert_ne!(before.mark(0), sentinel.mark(0));
        assert_eq!(before.with_nonce(1), sentinel.with_nonce(1));
    }

    #[test]
    fn the_token_is_replaced_everywhere_and_other_braces_stay() {
        let sentinel = Sentinel::new("{a} {mark}{{mark}} {}").with_nonce(1);
        let mut out = b"request\n".to_vec();
        sentinel.append(2, &mut out);
        let mark = sentinel.mark(2);
        assert_eq!(out, format!("request\n{{a}} {mark}{{{mark}}} {{}}\n").as_bytes());
    }

    #[test]
    #[should_panic(expected = "must contain the token {mark}")]
    fn a_command_without_the_token_is_a_mistake() {
        let _ = Sentinel::new(".print END");
    }

    #[test]
    fn the_telling_text_is_that_of_the_marks_own_line() {
        for (command, echo) in [
            (".print {mark}", ".print "),
            ("\n(echo \"{mark}\")", "(echo \""),
            ("echo x\n{mark}", ""),
            ("'{mark}'", ""),
            ("{mark} {mark}", ""),
        ] {
            assert_eq!(Sentinel::new(command).echo(), echo.as_bytes(), "{command}");
        }
    }
}
