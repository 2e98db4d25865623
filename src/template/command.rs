//! The command line of a worker, and the tokens that are replaced in it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bstr::ByteSlice;
use itertools::Itertools;

use crate::error::Error;
use crate::template::launcher::seats::Seat;

/// The variable that has Python not buffer its output.
pub(crate) const UNBUFFERED_PYTHON: &str = "PYTHONUNBUFFERED";

/// The advice about a program that was not found, where there is none that is better.
pub(crate) const INSTALLED: &str = "is it installed, and in PATH?";

/// A word of a command line, or the value of an environment variable.
#[derive(Clone)]
pub(crate) enum Word {
    /// Its tokens are replaced.
    Tokens(OsString),
    /// It is passed on as it is.
    Raw(OsString),
    /// It is passed on as it is, and nothing that is printed shows it.
    Secret(OsString),
}

impl Word {
    /// What the worker gets. `fd` gives the number of a side channel.
    pub(crate) fn resolved(
        &self,
        tokens: &Tokens<'_>,
        fd: impl Fn(&str) -> Option<i32>,
    ) -> OsString {
        match self {
            Self::Tokens(text) => replace(text, tokens, fd),
            Self::Raw(text) | Self::Secret(text) => text.clone(),
        }
    }

    /// The text, if tokens are replaced in it.
    fn with_tokens(&self) -> Option<&OsStr> {
        match self {
            Self::Tokens(text) => Some(text),
            Self::Raw(_) | Self::Secret(_) => None,
        }
    }

    fn has_nul(&self) -> bool {
        let (Self::Tokens(text) | Self::Raw(text) | Self::Secret(text)) = self;
        text.as_bytes().contains(&0)
    }

    /// What people may see of it, quoted where that helps reading.
    fn shown(&self) -> String {
        match self {
            Self::Tokens(text) | Self::Raw(text) => quote(text),
            Self::Secret(_) => "***".to_owned(),
        }
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

/// What to run, tokens unreplaced.
#[derive(Clone, Debug)]
pub(crate) struct CommandLine {
    pub(crate) program: OsString,
    pub(crate) args: Vec<Word>,
    /// Run under `stdbuf -oL`.
    pub(crate) stdbuf: bool,
    pub(crate) env_clear: bool,
    /// Python is told not to buffer.
    pub(crate) unbuffered_python: bool,
    /// `None` removes the variable.
    pub(crate) envs: Vec<(OsString, Option<Word>)>,
    pub(crate) dir: Option<PathBuf>,
}

impl CommandLine {
    pub(crate) fn new(program: &OsStr) -> Self {
        Self {
            program: program.to_owned(),
            args: Vec::new(),
            stdbuf: false,
            env_clear: false,
            unbuffered_python: false,
            envs: Vec::new(),
            dir: None,
        }
    }

    /// The words of the tool, `stdbuf` before them if it runs under that.
    pub(crate) fn tool(
        &self,
        tokens: &Tokens<'_>,
        fd: impl Fn(&str) -> Option<i32> + Copy,
    ) -> Vec<OsString> {
        let stdbuf: &[&str] = if self.stdbuf { &["stdbuf", "-oL"] } else { &[] };
        let before = stdbuf.iter().map(OsString::from);
        let program = replace(&self.program, tokens, fd);
        let args = self.args.iter().map(|arg| arg.resolved(tokens, fd));
        before.chain([program]).chain(args).collect()
    }

    /// For messages: the words as one would type them, quoted where that helps reading, and `***` for
    /// what is secret.
    pub(crate) fn display(&self) -> String {
        std::iter::once(quote(&self.program)).chain(self.args.iter().map(Word::shown)).join(" ")
    }

    /// Whether [`UNBUFFERED_PYTHON`] is to be set: it was asked for, and not given a value of its own.
    pub(crate) fn unbuffered_python(&self) -> bool {
        let is_given = |(name, value): &(OsString, Option<Word>)| {
            value.is_some() && name.as_os_str() == UNBUFFERED_PYTHON
        };
        self.unbuffered_python && !self.envs.iter().any(is_given)
    }

    /// What may help where the program was not found.
    pub(crate) fn advice(&self) -> &'static str {
        let program = self.program.as_bytes();
        if program.contains(&b'/') && Path::new(&self.program).exists() {
            "the file is there: is the interpreter that its first line names?"
        } else if program.iter().any(u8::is_ascii_whitespace) {
            "this is looked up as the name of one program: give arguments with Template::arg, or a whole command line to Template::shell"
        } else if program.starts_with(b"~") || program.contains(&b'$') {
            "no shell expands this: give the path itself, or use Template::shell"
        } else if program.contains(&b'/') && self.dir.is_some() && program[0] != b'/' {
            "a relative path is best made absolute where the worker has a directory of its own"
        } else {
            INSTALLED
        }
    }

    /// Every text in which tokens are replaced.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &OsStr> {
        std::iter::once(self.program.as_os_str())
            .chain(self.args.iter().filter_map(Word::with_tokens))
            .chain(self.envs.iter().filter_map(|(_, value)| value.as_ref()?.with_tokens()))
            .chain(self.dir.iter().map(|dir| dir.as_os_str()))
    }

    /// What can be known to be wrong before anything is started.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        if self.program.is_empty() {
            return Err(Error::config("the command is empty"));
        }
        let no_nul = |what: &str, shown: String| {
            Error::config(format!(
                "{what} contains a NUL byte, which no command line can carry: {shown}"
            ))
        };
        if self.program.as_bytes().contains(&0) {
            return Err(no_nul("the command", quote(&self.program)));
        }
        if let Some((i, arg)) = self.args.iter().find_position(|arg| arg.has_nul()) {
            return Err(no_nul(&format!("argument {}", i + 1), arg.shown()));
        }
        if let Some(dir) = &self.dir
            && dir.as_os_str().as_bytes().contains(&0)
        {
            return Err(Error::config(format!(
                "the working directory contains a NUL byte, which no path can carry: {}",
                quote(dir.as_os_str())
            )));
        }
        for (name, value) in &self.envs {
            let bad = name.is_empty()
                || name.as_bytes().iter().any(|byte| matches!(byte, 0 | b'='))
                || value.as_ref().is_some_and(Word::has_nul);
            if bad {
                return Err(Error::config(format!(
                    "the environment variable {} is empty or contains `=` or a NUL byte",
                    quote(name)
                )));
            }
        }
        Ok(())
    }
}

/// One word as one would type it, quoted where that helps reading.
pub(crate) fn quote(word: &OsStr) -> String {
    let bytes = word.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./=:,+@%^".contains(byte);
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return bytes.to_str_lossy().into_owned();
    }
    let text = bytes.to_str_lossy();
    let visible: String = text
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect();
    format!("'{}'", visible.replace('\'', r"'\''"))
}

/// What the tokens of one worker stand for, but for the numbers of its side channels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tokens<'a> {
    /// `{id}`: the worker's number in the feed.
    pub(crate) id: usize,
    /// `{slot}`: its number on its host.
    pub(crate) slot: usize,
    /// `{host}`: the name of the host.
    pub(crate) host: &'a str,
    /// `{pid}`: the pid on the far side, where there is one to speak of.
    pub(crate) pid: Option<u32>,
}

impl<'a> Tokens<'a> {
    /// Of the worker in this seat.
    pub(crate) fn of(seat: &'a Seat) -> Self {
        Self { id: seat.id, slot: seat.slot, host: seat.host_name(), pid: None }
    }
}

/// One piece of a text with tokens.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a [u8]),
    Id,
    Slot,
    Host,
    Pid,
    Fd(&'a str),
}

/// The tokens that have no name in them.
const PLAIN: [(&[u8], Piece<'static>); 4] = [
    (b"{id}", Piece::Id),
    (b"{slot}", Piece::Slot),
    (b"{host}", Piece::Host),
    (b"{pid}", Piece::Pid),
];

/// Cuts a text at its tokens: `{id}`, `{slot}`, `{host}`, `{pid}` and `{fd:NAME}`. `{{id}}` and its like are the
/// same with the inner braces taken literally; every other brace is just a brace.
fn pieces(text: &[u8]) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut plain = 0;
    let mut at = 0;
    while let Some(found) = text[at..].find_byte(b'{') {
        at += found;
        let escaped = text[at..].starts_with(b"{{");
        let inner = at + usize::from(escaped);
        let Some((piece, len)) = token(&text[inner..]) else {
            at += 1;
            continue;
        };
        if escaped && text.get(inner + len) == Some(&b'}') {
            // The outer braces go, the inner ones stay.
            pieces.push(Piece::Text(&text[plain..at]));
            pieces.push(Piece::Text(&text[inner..inner + len]));
            at = inner + len + 1;
        } else {
            pieces.push(Piece::Text(&text[plain..inner]));
            pieces.push(piece);
            at = inner + len;
        }
        plain = at;
    }
    pieces.push(Piece::Text(&text[plain..]));
    pieces
}

/// The token that `text` begins with, and its length.
fn token(text: &[u8]) -> Option<(Piece<'_>, usize)> {
    for (spelled, piece) in PLAIN {
        if text.starts_with(spelled) {
            return Some((piece, spelled.len()));
        }
    }
    let name = text.strip_prefix(b"{fd:")?;
    let name = &name[..name.find_byte(b'}')?];
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let name = std::str::from_utf8(name)
        .ok()
        .filter(|name| name.bytes().all(|b| word(&b)) && !name.is_empty())?;
    Some((Piece::Fd(name), b"{fd:}".len() + name.len()))
}

/// The names of side channels that a text speaks of.
pub(crate) fn fd_names(text: &OsStr) -> impl Iterator<Item = &str> {
    pieces(text.as_bytes()).into_iter().filter_map(|piece| match piece {
        Piece::Fd(name) => Some(name),
        _ => None,
    })
}

/// Replaces the tokens. `fd` gives the number of a side channel, whose name was checked before.
pub(crate) fn replace(
    text: &OsStr,
    tokens: &Tokens<'_>,
    fd: impl Fn(&str) -> Option<i32>,
) -> OsString {
    let mut out = Vec::with_capacity(text.len());
    for piece in pieces(text.as_bytes()) {
        match piece {
            Piece::Text(plain) => out.extend_from_slice(plain),
            Piece::Id => out.extend_from_slice(tokens.id.to_string().as_bytes()),
            Piece::Slot => out.extend_from_slice(tokens.slot.to_string().as_bytes()),
            Piece::Host => out.extend_from_slice(tokens.host.as_bytes()),
            Piece::Pid => match tokens.pid {
                Some(pid) => out.extend_from_slice(pid.to_string().as_bytes()),
                None => out.extend_from_slice(b"{pid}"),
            },
            Piece::Fd(name) => match fd(name) {
                Some(number) => out.extend_from_slice(format!("/dev/fd/{number}").as_bytes()),
                None => out.extend_from_slice(format!("{{fd:{name}}}").as_bytes()),
            },
        }
    }
    OsString::from_vec(out)
}

/// For fuzz/tokens: [`replace`] on any bytes, for worker 3 with the one side channel `side`, number 11.
#[cfg(fuzzing)]
pub fn replaced(text: &[u8]) -> Vec<u8> {
    let seat = Seat::here(3);
    let fd = |name: &str| (name == "side").then_some(11);
    replace(OsStr::from_bytes(text), &Tokens::of(&seat), fd).into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str) -> String {
        let tokens = Tokens { id: 3, slot: 1, host: "node1", pid: None };
        let fd = |name: &str| (name == "side").then_some(11);
        replace(OsStr::new(text), &tokens, fd).into_string().unwrap()
    }

    #[test]
    fn only_exact_tokens_are_replaced() {
        for (text, expected) in [
            ("{id}", "3"),
            ("out-{id}.{id}", "out-3.3"),
            ("{fd:side}", "/dev/fd/11"),
            ("{host}:{slot}", "node1:1"),
            ("{{host}}", "{host}"),
            ("{pid}", "{pid}"),
            ("{{id}}", "{id}"),
            ("{{fd:side}}", "{fd:side}"),
            ("{{{id}}}", "{{id}}"),
            ("{{id}", "{3"),
            ("awk '{print}'", "awk '{print}'"),
            ("{a: .b}", "{a: .b}"),
            ("{id", "{id"),
            ("{ id }", "{ id }"),
            ("{fd:}", "{fd:}"),
            ("{fd:no such}", "{fd:no such}"),
            ("{{}}", "{{}}"),
            ("", ""),
        ] {
            assert_eq!(replaced(text), expected, "{text}");
        }
    }

    #[test]
    fn names_are_found_but_not_inside_an_escape() {
        let names: Vec<_> = fd_names(OsStr::new("{fd:a} {{fd:b}} {fd:c}")).collect();
        assert_eq!(names, ["a", "c"]);
    }

    #[test]
    fn a_nul_byte_is_found_and_named() {
        let mut line = CommandLine::new(OsStr::new("tool"));
        line.args.push(Word::Tokens(OsString::from("a\0b")));
        assert!(
            line.validate().unwrap_err().to_string().contains("argument 1 contains a NUL byte")
        );
    }

    #[test]
    fn the_command_line_reads_well() {
        let mut line = CommandLine::new(OsStr::new("jq"));
        for text in ["-c", "{a: .b}", "it's"] {
            line.args.push(Word::Tokens(OsString::from(text)));
        }
        assert_eq!(line.display(), r"jq -c '{a: .b}' 'it'\''s'");
    }

    #[test]
    fn what_is_secret_is_never_shown_nor_touched() {
        let mut line = CommandLine::new(OsStr::new("psql"));
        let secret = || Word::Secret(OsString::from("hunter2 {id} {fd:x}"));
        line.args.extend([Word::Raw(OsString::from("-c")), secret()]);
        line.envs.push((OsString::from("PGPASSWORD"), Some(secret())));
        assert_eq!(line.display(), "psql -c ***");
        assert!(!format!("{line:?}").contains("hunter2"), "{line:?}");
        let seat = Seat::here(3);
        let resolved = line.args[1].resolved(&Tokens::of(&seat), |_| Some(11));
        assert_eq!(resolved, "hunter2 {id} {fd:x}");
        assert!(line.texts().all(|text| text == "psql"));
        line.args.push(Word::Secret(OsString::from("hunter2\0")));
        let error = line.validate().unwrap_err().to_string();
        assert!(
            error.contains("argument 3 contains a NUL byte") && !error.contains("hunter2"),
            "{error}"
        );
    }
}
