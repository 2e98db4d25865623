//! Replies that end where the tool prints a mark that it was told to print.
//!
//! After each request a *sync command* is written that makes the tool print a fresh word, the mark;
//! everything before the mark is the reply, be it nothing, one line or a thousand. The idea is that
//! of `expect` scripts and of Emacs's comint, which wait for a prompt, without the guesswork: a
//! prompt may occur in a reply, a random mark does not. Since the mark carries the packet's id, a
//! worker that has lost its place is found out instead of believed.
//!
//! This file writes the sync commands; `marks` and `pair` find the marks in what comes back.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

use bstr::{BStr, ByteSlice};

use super::Framing;
use super::mark::{Mark, Role};
use super::marks::Marks;
use super::pair::Pair;

/// A sync command that makes a tool print a mark after each reply. Replies may so have any length, or be empty.
///
/// This is the framing for interactive programs, whose answers have no fixed form: SQL shells, solvers, language
/// interpreters. Counting lines is unsound there: a statement that fails prints nothing on stdout, and every later reply
/// is shifted by one. A sentinel is sound, with one exception that [nobody can detect](#what-no-mark-can-tell).
///
/// # The command
///
/// The command is what a user of the tool would type to have a word printed on a line of its own. That word is the mark. If
/// the tool can join two strings, give it the two halves of the mark, `{mark1}` and `{mark2}`, and let *the tool* join
/// them:
///
/// | tool | command |
/// |---|---|
/// | `sqlite3` | `SELECT '{mark1}' \|\| '{mark2}';` |
/// | `psql -X -At` | `\echo {mark1}'{mark2}'` |
/// | `bc -q` | `print "{mark1}", "{mark2}", "\n"` |
/// | `dc` | `[{mark1}]n[{mark2}]pc` |
/// | `sh`, `bash` | `printf '%s%s\n' {mark1} {mark2}` |
/// | `python3 -u -i -q` | `print("{mark1}" "{mark2}")` |
/// | `node -i` | `console.log("{mark1}" + "{mark2}")`, [paired](Self::paired) |
/// | `maxima --very-quiet` | `print(sconcat("{mark1}", "{mark2}"))$` |
/// | `R -s --no-save` | `cat("{mark1}", "{mark2}\n", sep = "")` |
/// | `tclsh` | `puts [join {{mark1} {mark2}} ""]` |
/// | `redis-cli` | `EVAL "return ARGV[1]..ARGV[2]" 0 {mark1} {mark2}` |
/// | `gnuplot` (after `set print "-"`) | `print "{mark1}"."{mark2}"` |
///
/// The reason is that a tool may quote what it was sent in a complaint, such as
/// `incorrect syntax: MARK is not an infix operator`, if the request before left a quote open. If the mark was sent in one
/// piece, that complaint ends a reply. If it was sent in two halves, only the tool's evaluation contains the whole mark. Put
/// something between the halves that only evaluation removes, such as `" "` or `, `: then no quotation of the command
/// contains the mark, not even one that begins inside a string that the request left open.
///
/// If a tool cannot join strings, use `{mark}`, the whole mark:
///
/// | tool | command |
/// |---|---|
/// | `z3 -in` | `(echo "{mark}")`, [alone](Self::alone) on its line |
/// | `cvc5 --incremental` | `(echo "{mark}")` |
///
/// The command is written after each request, followed by a line feed. It may have several lines; if it begins with a
/// line feed, that also ends a line that the request left open.
///
/// # The mark
///
/// A mark is one word of lower-case letters: no shell needs quotes for it, no interpreter takes it for a number, and tools
/// that refuse digits in names accept it. Each half is such a word too. The mark contains a random number, drawn for each
/// feed, and the packet's id, both in full width, so that no mark is the beginning of another.
///
/// # Where the reply ends
///
/// - The reply of a packet ends at its own mark, wherever that stands: a tool whose last line has no line feed prints the
///   mark directly after it. All bytes before the mark are the reply, including the line feed of its last line, and
///   including a prompt or an opening quote that the tool prints before the mark: turn prompts off.
/// - The rest of the mark's line is dropped, with its line feed. The tool must print that line feed at once; the reply waits
///   for it, unless the output ends.
/// - If every reply ends with a line feed, or is empty, promise that the mark is [alone](Self::alone) on its line: a mark
///   that is not alone is then an error.
/// - If a request may leave something open, so that the sync command becomes a part of it, or if the tool prints something
///   of its own after each command, use a [pair](Self::paired) of marks.
///
/// # What a sentinel detects
///
/// Each of these is an error of the packet whose reply was expected. The session ends, because the beginning of its next
/// reply is not known, and the packets after it are sent again.
///
/// - [`MarkSkipped`](super::FramingErrorKind::MarkSkipped): the mark of another packet came before the packet's own. The
///   tool did not execute a sync command, because the request before it contains something that hides it, such as a quote
///   that is not closed. If no other request follows, no mark comes at all, and the packet is simply not answered.
/// - [`MarkEchoed`](super::FramingErrorKind::MarkEchoed): the sync command came back as text. Either its own words precede
///   the mark on its line (such as `.print `), or a first half came without the second. The tool prints what it reads (`R`
///   without `-s`, `psql -a`, a terminal with echo; turn echo off), or quotes it in a complaint, or returns it as part of a
///   string that the request left open.
/// - [`MarkRepeated`](super::FramingErrorKind::MarkRepeated): a mark that had already ended a reply came again. That reply
///   may have been incomplete, so this concerns two packets. The first of them may have been yielded before the second
///   mark came.
/// - [`MarkNotAlone`](super::FramingErrorKind::MarkNotAlone): there is other text on the mark's line, although it was
///   promised to be alone.
/// - [`NoiseChanged`](super::FramingErrorKind::NoiseChanged): with a pair, the text beside a mark is not the usual output of
///   the sync command.
/// # What no mark can tell
///
/// The tool must finish a request *before it reads the sync command*. If it works on the request in the background and
/// reads on, it prints the mark first, and its reply becomes part of another packet's: the replies are wrong, and nothing
/// shows it. UCI engines do that (`go` runs in a thread; `bestmove` ends the reply:
/// [`end_line`](super::ReplyFraming::end_line)), and so does a shell if the request ends with `&` (add `wait`), an editor
/// or a language server with background jobs, and any tool that prints from a timer. If the reply ends with something of
/// its own, use a framing that looks for that. If replies carry ids and come out of order, keep one request in flight per
/// worker ([`in_flight(1)`](crate::Template::in_flight)). If a reply can be compared with its request, add a
/// [`check`](crate::Template::check).
///
/// # Bad input
///
/// A command without `{mark}` or without one of the halves, with both kinds, or with the two halves side by
/// side so that its text holds the whole mark, is a configuration error when the feed starts.
///
/// # Examples
///
/// ```
/// use subfeed::framing::{Position, ReplyFraming, Scan, Sentinel};
///
/// let sentinel = Sentinel::new(r#"print("{mark1}" "{mark2}")"#);
///
/// // Down: the request "6*7" of packet 7, then the sync command.
/// let mut out = b"6*7\n".to_vec();
/// sentinel.append(7, &mut out);
/// let mark = sentinel.mark(7);
/// let (mark1, mark2) = mark.split_at(18);
/// assert_eq!(out, format!("6*7\nprint(\"{mark1}\" \"{mark2}\")\n").as_bytes());
///
/// // Back: the product, then the mark.
/// let framing = ReplyFraming::sentinel(sentinel);
/// let mut scanner = framing.start();
/// let output = format!("42\n{mark}\n");
/// let scan = scanner.scan(output.as_bytes(), Position::new(7, 1024, false))?;
/// assert_eq!(scan, Scan::Complete { body: 0..3, len: output.len() });
/// # Ok::<(), subfeed::framing::FramingError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Sentinel {
    command: Command,
    nonce: u64,
    /// The nonce is one of the user's own.
    fixed: bool,
    alone: bool,
    paired: bool,
}

/// The sync command, cut at its tokens.
#[derive(Clone, PartialEq, Eq)]
struct Command {
    text: Vec<u8>,
    /// What stands before each token, and the token.
    pieces: Vec<(Vec<u8>, Token)>,
    tail: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Whole,
    First,
    Second,
}

impl Token {
    const ALL: [(&'static str, Self); 3] =
        [("{mark}", Self::Whole), ("{mark1}", Self::First), ("{mark2}", Self::Second)];
}

impl Command {
    fn new(text: Vec<u8>) -> Self {
        let mut pieces = Vec::new();
        let mut from = 0;
        let mut at = 0;
        while at < text.len() {
            match Token::ALL.into_iter().find(|(name, _)| text[at..].starts_with(name.as_bytes())) {
                Some((name, token)) => {
                    pieces.push((text[from..at].to_vec(), token));
                    at += name.len();
                    from = at;
                }
                None => at += 1,
            }
        }
        let tail = text[from..].to_vec();
        Self { text, pieces, tail }
    }

    fn has(&self, token: Token) -> bool {
        self.pieces.iter().any(|(_, found)| *found == token)
    }

    fn append(&self, word: &[u8], halves: (&[u8], &[u8]), out: &mut Vec<u8>) {
        for (before, token) in &self.pieces {
            out.extend_from_slice(before);
            out.extend_from_slice(match token {
                Token::Whole => word,
                Token::First => halves.0,
                Token::Second => halves.1,
            });
        }
        out.extend_from_slice(&self.tail);
        out.push(b'\n');
    }
}

impl fmt::Debug for Sentinel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sentinel")
            .field("command", &BStr::new(&self.command.text))
            .field("nonce", &format_args!("{:016x}", self.nonce))
            .field("alone", &self.alone)
            .field("paired", &self.paired)
            .finish()
    }
}

impl Sentinel {
    /// A sentinel with this sync command, in which `{mark1}` and `{mark2}` stand for the halves of the mark,
    /// or `{mark}` for the mark.
    ///
    /// The tokens are replaced wherever they occur, but the tool must print the mark only once. Every
    /// other brace is literal.
    ///
    /// # Errors
    ///
    /// None here: a command that cannot work is a configuration error when the feed starts
    /// ([above](Self#bad-input)).
    ///
    /// # Examples
    ///
    /// ```
    /// use subfeed::framing::Sentinel;
    ///
    /// let sh = Sentinel::new(r"printf '%s%s\n' {mark1} {mark2}");
    /// let bc = Sentinel::new(r#"print "{mark1}", "{mark2}", "\n""#);
    /// let z3 = Sentinel::new(r#"(echo "{mark}")"#).alone();
    /// ```
    #[must_use]
    pub fn new(command: impl Into<Vec<u8>>) -> Self {
        let command = Command::new(command.into());
        Self { command, nonce: random(), fixed: false, alone: false, paired: false }
    }

    /// Promises that the tool prints the mark alone on its line, so that one amid other words is an error.
    ///
    /// The tool must do two things. Every reply is empty or ends with a line feed. And the sync command prints the mark at
    /// the beginning of a line, followed by nothing but spaces, tabs, a carriage return and the line feed: no prompt, no
    /// quotes.
    ///
    /// A mark that is not alone is an error of its packet, and ends the session
    /// ([`MarkNotAlone`](super::FramingErrorKind::MarkNotAlone)). This protects with tools that cannot join two halves, and
    /// does no harm with others.
    ///
    /// # Errors
    ///
    /// Together with [`paired`](Self::paired), which allows for more, it is a configuration error when the
    /// feed starts.
    ///
    /// # Examples
    ///
    /// ```
    /// use subfeed::framing::{FramingErrorKind, Position, ReplyFraming, Sentinel};
    ///
    /// let sentinel = Sentinel::new(r#"(echo "{mark}")"#).alone();
    /// let complaint = format!("syntax error near {} here\n", sentinel.mark(0));
    /// let mut scanner = ReplyFraming::sentinel(sentinel).start();
    /// let error = scanner.scan(complaint.as_bytes(), Position::new(0, 1024, false)).unwrap_err();
    /// assert_eq!(error.kind(), FramingErrorKind::MarkNotAlone { packet: 0 });
    /// ```
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Sends a *pair* of sync commands after each request, and one pair at the start of each session. For tools that print
    /// something of their own after each command, or whose requests may leave something open.
    ///
    /// The *noise* is what a tool prints of its own after the sync command: `undefined` and a prompt (`node -i`),
    /// `- : unit = ()` (`ocaml`), a blank line. The feed learns it from the pair at the start: it is the text between those
    /// two marks. From then on
    ///
    /// - it is expected after the second mark of each pair, and removed there, so that the next reply begins in the right
    ///   place;
    /// - it is expected between the two marks of each pair. If a request has left something open, it differs there: a lone
    ///   `!` in JavaScript turns the `undefined` of the first sync command into `true`;
    /// - digits may differ, in value and in number (`In [9]:`, `In [10]:`), and nothing else may.
    ///
    /// Any other text is an error of the packet ([`NoiseChanged`](super::FramingErrorKind::NoiseChanged)), and ends the
    /// session. All bytes between the noise and the first mark are the reply. Everything before the pair at the start, such
    /// as a banner, is dropped, so [`skip_lines`](crate::Template::skip_lines) is not needed.
    ///
    /// The command must print the mark *before* anything else of its own: a command that makes the tool show the mark as a
    /// value (`val it = "MARK" : string`) does not work. Turn echo and continuation prompts off, because they change
    /// with each request.
    ///
    /// It costs twice the bytes of the sync command, and twice its time in the tool. The pair at the start is written after
    /// the [`preamble`](crate::Template::preamble), which should end with a line feed.
    ///
    /// # Limits
    ///
    /// At most 1 MiB may precede the pair at the start. The noise may have at most 16 KiB, and must not end with a digit,
    /// which could belong to the next reply.
    ///
    /// # Errors
    ///
    /// Together with [`alone`](Self::alone) it is a configuration error when the feed starts.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod tools { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/tools.rs")); }
    /// # if !tools::here(&["node"]) { return Ok(()); }
    /// use subfeed::framing::{ReplyFraming, Sentinel};
    /// use subfeed::{FeedExt, Template};
    ///
    /// let sentinel = Sentinel::new(r#"console.log("{mark1}" + "{mark2}")"#).paired();
    /// let node = Template::new("node").arg("-i").replies(ReplyFraming::sentinel(sentinel));
    /// let requests = ["6*7", "[1,2].map(n => n + 1)"];
    /// let replies: Vec<_> =
    ///     requests.into_iter().feed_subprocesses_ordered(node, 1, 10).collect::<Result<_, _>>()?;
    /// assert_eq!(replies, ["42\n> ", "[ 2, 3 ]\n> "]);
    /// # Ok::<(), subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn paired(mut self) -> Self {
        self.paired = true;
        self
    }

    /// The same command with a number of your own instead of a random one, for output that must be reproducible.
    ///
    /// If requests or replies come from somebody else, the number must be hard to guess: with it, the end of a reply can be
    /// forged.
    #[must_use]
    pub fn with_nonce(mut self, nonce: u64) -> Self {
        self.nonce = nonce;
        self.fixed = true;
        self
    }

    /// Draws a new random number, so that marks of an earlier feed have no meaning in this one.
    ///
    /// A feed does this when it starts, unless the number was [given](Self::with_nonce).
    pub(crate) fn renew(&mut self) {
        self.nonce = random();
        self.fixed = false;
    }

    /// Whether the nonce is one of the user's own.
    pub(crate) fn is_fixed(&self) -> bool {
        self.fixed
    }

    /// The mark that ends the reply of a packet; of a [pair](Self::paired), the second.
    #[must_use]
    pub fn mark(&self, packet: u64) -> String {
        self.spelled(Role::Last, packet)
    }

    /// The first mark of a packet's [pair](Self::paired).
    #[must_use]
    pub fn first_mark(&self, packet: u64) -> String {
        self.spelled(Role::First, packet)
    }

    fn spelled(&self, role: Role, packet: u64) -> String {
        Mark { role, packet }.word(self.nonce).into_iter().map(char::from).collect()
    }

    /// Writes the sync command of a packet, and a line feed, after its request; of a [pair](Self::paired), both commands.
    pub fn append(&self, packet: u64, out: &mut Vec<u8>) {
        if self.paired {
            self.sync(Mark { role: Role::First, packet }, out);
        }
        self.sync(Mark { role: Role::Last, packet }, out);
    }

    /// Writes the [pair](Self::paired) with which a session begins, before its first request; nothing if the sentinel is
    /// not paired.
    pub fn append_opening(&self, out: &mut Vec<u8>) {
        if self.paired {
            self.sync(Mark { role: Role::Opening, packet: 0 }, out);
            self.sync(Mark { role: Role::Opened, packet: 0 }, out);
        }
    }

    fn sync(&self, mark: Mark, out: &mut Vec<u8>) {
        let word = mark.word(self.nonce);
        self.command.append(&word, Mark::halves(&word), out);
    }

    /// What is wrong with it, if it can never work.
    pub(super) fn problem(&self) -> Option<String> {
        let has = |token| self.command.has(token);
        let command = self.command.text.as_bstr();
        let halves = (has(Token::First), has(Token::Second));
        let beside = |pieces: &[(Vec<u8>, Token)]| {
            pieces[0].1 == Token::First && pieces[1].1 == Token::Second && pieces[1].0.is_empty()
        };
        match (has(Token::Whole), halves) {
            (false, (false, false)) => Some(format!(
                "the sync command {command:?} has neither {{mark1}} and {{mark2}} nor {{mark}} in it, for \
                 which the mark is put"
            )),
            (_, (true, false) | (false, true)) => Some(format!(
                "the sync command {command:?} has one half of the mark: {{mark1}} and {{mark2}} belong \
                 together"
            )),
            (true, (true, true)) => Some(format!(
                "the sync command {command:?} has both {{mark}} and the halves {{mark1}} and {{mark2}}: an \
                 echo of it would hold a whole mark"
            )),
            (false, (true, true)) if self.command.pieces.windows(2).any(beside) => Some(format!(
                "nothing stands between {{mark1}} and {{mark2}} in the sync command {command:?}, so that its \
                 text holds the whole mark: let the tool join them, or write {{mark}}"
            )),
            _ if self.alone && self.paired => Some(
                "a pair of marks allows for noise beside them, so that none can be promised to be alone: take \
                 either Sentinel::alone or Sentinel::paired"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// A scanner for one session.
    pub(super) fn start(&self) -> Box<dyn Framing> {
        if self.paired { Box::new(Pair::new(self)) } else { Box::new(Marks::new(self)) }
    }

    pub(super) fn nonce(&self) -> u64 {
        self.nonce
    }

    pub(super) fn is_alone(&self) -> bool {
        self.alone
    }

    /// Whether half a mark in the output shows that the command came back as text.
    pub(crate) fn is_halved(&self) -> bool {
        self.command.has(Token::First)
    }

    /// The text that stands before the mark in an echo of the command, if it is telling.
    pub(super) fn echo(&self) -> &[u8] {
        let before = self.command.pieces.first().map_or(&b""[..], |(before, _)| before);
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
    fn a_mark_is_one_word_of_letters_of_fixed_width() {
        let random = Sentinel::new("{mark}");
        for packet in [0, 1, 16, u64::MAX] {
            let mark = random.mark(packet);
            assert_eq!(mark.len(), 35);
            assert!(mark.bytes().all(|b| b.is_ascii_lowercase()), "{mark}");
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
        let sentinel = Sentinel::new("{a} {mark}{{mark}} {} {mark3} {mark").with_nonce(1);
        let mut out = b"request\n".to_vec();
        sentinel.append(2, &mut out);
        let mark = sentinel.mark(2);
        let expected = format!("request\n{{a}} {mark}{{{mark}}} {{}} {{mark3}} {{mark\n");
        assert_eq!(out, expected.as_bytes());
    }

    #[test]
    fn the_halves_are_words_that_make_up_the_mark() {
        let sentinel = Sentinel::new("{mark1}|{mark2}").with_nonce(1);
        let mut out = Vec::new();
        sentinel.append(2, &mut out);
        let (first, second) = out[..out.len() - 1].split_once_str("|").unwrap();
        assert_eq!([first, second].concat(), sentinel.mark(2).as_bytes());
        assert_eq!((first.len(), second.len()), (18, 17));
    }

    #[test]
    fn a_pair_is_written_behind_each_request_and_at_the_start() {
        let sentinel = Sentinel::new("say {mark}").with_nonce(1);
        let mut out = Vec::new();
        sentinel.append_opening(&mut out);
        assert!(out.is_empty());
        let sentinel = sentinel.paired();
        sentinel.append(2, &mut out);
        let (first, last) = (sentinel.first_mark(2), sentinel.mark(2));
        assert_ne!(first, last);
        assert_eq!(out, format!("say {first}\nsay {last}\n").as_bytes());
        let mut opening = Vec::new();
        sentinel.append_opening(&mut opening);
        assert_eq!(opening.len(), out.len());
        assert_eq!(opening.lines().count(), 2);
        assert!(!opening.contains_str(&first) && !opening.contains_str(&last));
    }

    #[test]
    fn a_command_that_cannot_work_is_a_problem() {
        for (command, problem) in [
            (".print END", "has neither"),
            ("", "has neither"),
            ("{mark1}", "one half"),
            ("{mark2} {mark}", "one half"),
            ("{mark} {mark1} {mark2}", "both {mark} and the halves"),
            ("print {mark1}{mark2}", "nothing stands between"),
        ] {
            let found = Sentinel::new(command).problem().unwrap_or_default();
            assert!(found.contains(problem), "{command}: {found}");
        }
        for command in ["{mark}", "{mark1} {mark2}", "{mark2}{mark1}", "{mark} {mark}"] {
            assert_eq!(Sentinel::new(command).problem(), None, "{command}");
        }
        let both = Sentinel::new("{mark}").alone().paired().problem();
        assert!(both.is_some_and(|problem| problem.contains("either")));
    }

    #[test]
    fn the_telling_text_is_that_of_the_marks_own_line() {
        for (command, echo) in [
            (".print {mark}", ".print "),
            ("print({mark1} {mark2})", "print("),
            ("\n(echo \"{mark}\")", "(echo \""),
            ("echo x\n{mark}", ""),
            ("'{mark}'", ""),
            ("{mark} {mark}", ""),
        ] {
            assert_eq!(Sentinel::new(command).echo(), echo.as_bytes(), "{command}");
        }
    }
}
