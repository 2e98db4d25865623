//! The command line, and the template that it describes.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use subfeed::channel::LineBuffered;
use subfeed::framing::{Prefix, ReplyFraming, RequestFraming, Sentinel};
use subfeed::policy::Halt;
use subfeed::{Host, Launcher, Template};

use crate::files;

/// Feed lines through persistent workers, in order and in bounded memory.
///
/// COMMAND is started once per worker and kept running. The records of standard input (lines) are shared out to the workers,
/// and the answers are written to standard output in the order of the input. What the workers write on standard error is passed
/// on. A record that fails writes nothing to standard output, and one line with its number to standard error.
#[derive(Debug, Parser)]
#[command(
    name = "subfeed",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "\
EXIT STATUS
  0  every record was answered
  1  some records failed
  2  the options are wrong
  3  the run ended early, or a file that it keeps could not be written
A run that is interrupted dies of the signal, and one whose reader has gone (| head) of SIGPIPE.

EXAMPLES
  subfeed -j 8 -- jq -c --unbuffered .name < events.jsonl > names
  subfeed -0 --out nul -- sed -zu 's/^/> /' < names0
  subfeed --header 1 -- mlr --icsv --ojsonl --records-per-batch 1 put '$z = $x . $y' < table.csv
  subfeed --out 'sentinel:print \"{mark1}\", \"{mark2}\", \"\\n\"' -- bc -q < sums
  head sums | subfeed doctor -- bc -q"
)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) what: Option<What>,
    #[command(flatten)]
    pub(crate) run: Run,
}

#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// Find out how a tool behaves, from a few records on standard input, and print the options for it.
    Doctor(Doctor),
    /// Draw a trace that --timeline has written, as an SVG on standard output.
    Timeline {
        /// The trace.
        trace: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// The tool, and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    /// The number of workers [default: the number of processors].
    #[arg(short, long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// Keep the order of the input. This is the default; the option exists because GNU parallel has it.
    #[arg(short, long, conflicts_with = "any_order")]
    pub(crate) keep_order: bool,
    /// Write answers as they come, not in the order of the input.
    #[arg(long)]
    pub(crate) any_order: bool,
    /// Read at most N records ahead of what is written [default: limited by --max-bytes only].
    #[arg(long, value_name = "N")]
    pub(crate) window: Option<usize>,
    /// How many bytes of records and answers are kept in memory at most, such as 64K, 4M, 1G.
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "4M")]
    pub(crate) max_bytes: usize,
    /// A record that is longer than this fails.
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "64M")]
    pub(crate) record_limit: usize,
    /// The records of the input end with a NUL byte instead of a line feed.
    #[arg(short = '0', long)]
    pub(crate) null: bool,
    /// Send the first N lines of the input to each worker first, and write the answer to them once.
    ///
    /// A process that gets only these lines is started to learn that answer. If the tool prints something at its end, declare it
    /// with --skip-at-end.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) header: usize,
    /// How a record is written to a worker [default: as it was read].
    #[arg(long = "in", value_name = "FRAMING")]
    pub(crate) requests: Option<Requests>,
    /// How an answer ends: line, nul, lines:K, block, end:X (the text X ends it, wherever it stands), last:X (a line that begins
    /// with X is the last), size:N, len32, netstring, sentinel:CMD (CMD makes the tool print `{mark}`, or `{mark1}` and `{mark2}`
    /// joined), eof (one process for each record).
    ///
    /// Answers are written to standard output as the tool wrote them, with the line feeds or the NUL that end them, except: `end:X`
    /// leaves out X and the rest of its line; `len32` and `netstring` leave out the length and write a line feed (with -0 a NUL)
    /// after each answer, and so does `end:X` if there was none before X; `sentinel` leaves out the mark. Nothing is added with
    /// `size:N`, `sentinel` and `eof`: an answer without a line feed is followed directly by the next one.
    #[arg(long = "out", value_name = "FRAMING", value_parser = replies)]
    pub(crate) replies: Option<Replies>,
    /// With `--out eof`: the exit statuses of a process whose output is an answer, such as 0,1 for grep
    /// [default: 0].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) accept_status: Vec<u8>,
    /// An answer that is longer than this fails.
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "64M")]
    pub(crate) answer_limit: usize,
    /// Drop the first N lines that each worker prints.
    #[arg(long, value_name = "N", conflicts_with = "header")]
    pub(crate) skip_lines: Option<usize>,
    /// What each worker prints at its end and is not an answer: one line, or several with \n between them.
    ///
    /// \t, \r, \0, \\ and \xHH stand for bytes. The line feed of the last line need not be typed; \c at the end means that there
    /// is none.
    #[arg(long, value_name = "TEXT", value_parser = text_at_end)]
    pub(crate) skip_at_end: Option<AtEnd>,
    /// Give each worker a pseudo-terminal as its standard output, for tools that answer at once only on a terminal.
    #[arg(long)]
    pub(crate) pty: bool,
    /// Workers on these machines, by ssh: `8/node1,4/node2,:` is 8 on node1, 4 on node2, and 1 here.
    #[arg(short = 'S', long, value_name = "LIST", value_parser = hosts)]
    pub(crate) hosts: Option<Hosts>,
    /// How often a record is tried in all, if its worker dies and had no other record [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempts: Option<u32>,
    /// How long an answer may take, such as 500ms, 10s, 2m [default: no limit].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// How much longer the first answer of a worker may take.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) start_timeout: Option<Duration>,
    /// How long a worker may take to exit after its last answer [default: 5s].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) end_timeout: Option<Duration>,
    /// End the run when a record fails: `soon`, after answering what was read, or `now`.
    #[arg(long, value_name = "WHEN")]
    pub(crate) halt: Option<When>,
    /// Write a line for each record into this file, in the format of GNU parallel's job log.
    #[arg(long, value_name = "FILE")]
    pub(crate) joblog: Option<PathBuf>,
    /// Keep in this file which records have been answered and written. If the file exists, do only the others.
    ///
    /// Records that failed are tried again first, so their answers stand at the start of the output, and not at their position. With
    /// `--halt now` a run ends at the first record that fails, and the next run continues there, in order.
    ///
    /// After a crash or a SIGKILL, answers of the last second may be written again, and the last answer of the output may be
    /// incomplete. If standard output is a file (`>> results`), the next run ends an incomplete last line before it goes on (on
    /// Linux), and says so; delete that line. If standard output is a pipe, answers that its reader had not yet read may be lost.
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Write what every worker did into this file, as a Chrome trace (for Perfetto or chrome://tracing).
    #[arg(long, value_name = "FILE")]
    pub(crate) timeline: Option<PathBuf>,
    /// Show a progress bar on standard error, if that is a terminal.
    #[arg(long)]
    pub(crate) bar: bool,
    /// The same, with the remaining time.
    #[arg(long)]
    pub(crate) eta: bool,
    /// Write a summary to standard error at the end.
    #[arg(long)]
    pub(crate) stats: bool,
    /// The tool, and its arguments.
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// Machines, and how many workers each is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hosts(Vec<Host>);

fn hosts(text: &str) -> Result<Hosts, String> {
    let hosts = text.split(',').map(|item| {
        let (weight, name) = item.split_once('/').unwrap_or(("1", item));
        let weight: u32 =
            weight.parse().map_err(|_| format!("`{weight}` is no number of workers"))?;
        if name.is_empty() || weight == 0 {
            return Err(format!("`{item}` is no machine with workers"));
        }
        Ok(Host::new(name).weight(weight))
    });
    hosts.collect::<Result<_, _>>().map(Hosts)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    Soon,
    Now,
}

/// How records are written to a worker.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Requests {
    Line,
    Nul,
    /// A length of 32 bits in front, the highest byte first.
    Len32,
    Netstring,
    /// JSON text sequences (RFC 7464), as `jq --seq` reads them.
    JsonSeq,
    ContentLength,
    /// As it is, with nothing behind it.
    Raw,
}

impl Requests {
    fn framing(self) -> RequestFraming {
        match self {
            Self::Line => RequestFraming::line(),
            Self::Nul => RequestFraming::delimited(0),
            Self::Len32 => RequestFraming::prefixed(Prefix::u32_be()),
            Self::Netstring => RequestFraming::netstring(),
            Self::JsonSeq => RequestFraming::record_separator(),
            Self::ContentLength => RequestFraming::content_length(),
            Self::Raw => RequestFraming::raw(),
        }
    }
}

/// How the end of an answer is told, as it was said.
#[derive(Clone, Debug)]
pub(crate) struct Replies {
    pub(crate) text: String,
    framing: ReplyFraming,
}

fn replies(text: &str) -> Result<Replies, String> {
    let framing = reply_framing(text)?;
    Ok(Replies { text: text.to_owned(), framing })
}

fn reply_framing(text: &str) -> Result<ReplyFraming, String> {
    let (name, argument) =
        text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
    let number = |argument: Option<&str>| {
        let number = argument.and_then(|argument| argument.parse::<usize>().ok());
        number.ok_or_else(|| format!("`{name}` needs a number behind a colon"))
    };
    let words = || {
        argument
            .filter(|words| !words.is_empty())
            .ok_or(format!("`{name}` needs words behind a colon"))
    };
    if argument.is_some() && ["line", "nul", "block", "len32", "netstring", "eof"].contains(&name) {
        return Err(format!("nothing may stand behind `{name}`"));
    }
    Ok(match name {
        "line" => ReplyFraming::line(),
        "nul" => ReplyFraming::delimited(0),
        "lines" => ReplyFraming::lines(number(argument)?),
        "block" => ReplyFraming::block(),
        "end" if argument.is_some_and(|marker| marker.ends_with('\n')) => {
            return Err("X of `end:X` must not end with a line feed: the rest of its line is dropped, and this would be the next line".to_owned());
        }
        "end" => ReplyFraming::end_marker_line(words()?),
        "last" => ReplyFraming::end_line([words()?]),
        "size" => ReplyFraming::fixed_size(number(argument)?),
        "len32" => ReplyFraming::prefixed(Prefix::u32_be()),
        "netstring" => ReplyFraming::netstring(),
        "sentinel" => ReplyFraming::sentinel(Sentinel::new(words()?)),
        "eof" => ReplyFraming::until_eof(),
        _ => {
            return Err("one of line, nul, lines:K, block, end:X, last:X, size:N, len32, netstring, sentinel:CMD, eof"
                .to_owned());
        }
    })
}

/// What a worker says at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AtEnd(Vec<u8>);

fn text_at_end(text: &str) -> Result<AtEnd, String> {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    let mut plain = [0; 4];
    while let Some(c) = chars.next() {
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut plain).as_bytes());
            continue;
        }
        match chars.next() {
            Some('n') => bytes.push(b'\n'),
            Some('r') => bytes.push(b'\r'),
            Some('t') => bytes.push(b'\t'),
            Some('0') => bytes.push(0),
            Some(c @ ('\\' | '\'' | '"')) => bytes.push(c as u8),
            Some('x') => {
                let digits: String = chars.by_ref().take(2).collect();
                let byte = u8::from_str_radix(&digits, 16);
                bytes.push(byte.map_err(|_| "\\x needs two hexadecimal digits".to_owned())?);
            }
            Some('u') => {
                let digits = chars.by_ref().skip(1).take_while(|&c| c != '}').collect::<String>();
                let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                let c = code.ok_or("\\u needs the number of a character, as in \\u{e9}")?;
                bytes.extend_from_slice(c.encode_utf8(&mut plain).as_bytes());
            }
            Some('c') if chars.as_str().is_empty() => return Ok(AtEnd(bytes)),
            Some('c') => return Err("\\c is for the end".to_owned()),
            Some(c) => return Err(format!("\\{c} stands for nothing: say \\\\ for a backslash")),
            None => return Err("a backslash at the end stands for nothing".to_owned()),
        }
    }
    // A user who types a line has no reason to type its end.
    if bytes.last() != Some(&b'\n') {
        bytes.push(b'\n');
    }
    Ok(AtEnd(bytes))
}

/// What `--skip-at-end` takes for these bytes.
pub(crate) fn typed(bytes: &[u8]) -> String {
    let (bytes, end) = match bytes.strip_suffix(b"\n") {
        // A blank line at the end has to be typed.
        Some(line) if line.ends_with(b"\n") => (bytes, ""),
        Some(line) => (line, ""),
        None => (bytes, r"\c"),
    };
    let text = bytes.utf8_chunks().map(|chunk| {
        let plain = chunk.valid().chars().map(|c| match c {
            '\\' | '\0'..' ' => c.escape_default().to_string(),
            c => c.to_string(),
        });
        let odd = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
        plain.chain(odd).collect::<String>()
    });
    text.collect::<String>() + end
}

/// `64K`, `4M`, `1G`, or a number of bytes.
fn size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err("a number of bytes, or one with K, M or G behind it".to_owned()),
    };
    let number: usize = digits.parse().map_err(|_| "a number of bytes, such as 4M".to_owned())?;
    number.checked_mul(1 << shift).filter(|&size| size > 0).ok_or("out of range".to_owned())
}

/// `500ms`, `10s`, `2m`, `1h`, or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("a time, such as 500ms, 10s or 2m".to_owned()),
    };
    let number: f64 = digits.parse().map_err(|_| "a time, such as 10s".to_owned())?;
    Duration::try_from_secs_f64(number * unit).map_err(|_| "out of range".to_owned())
}

impl Run {
    pub(crate) fn delimiter(&self) -> u8 {
        if self.null { 0 } else { b'\n' }
    }

    /// The byte that ends each answer where it is written, if every answer has one.
    pub(crate) fn end_of_answers(&self) -> Option<u8> {
        let Some(Replies { text, .. }) = &self.replies else { return Some(self.delimiter()) };
        match text.split(':').next().unwrap_or_default() {
            "line" | "lines" | "block" | "last" => Some(b'\n'),
            "nul" => Some(0),
            "end" | "len32" | "netstring" => Some(self.delimiter()),
            _ => None,
        }
    }

    /// Where the workers are to be, if that is said.
    pub(crate) fn launcher(&self) -> Option<Launcher> {
        self.hosts.as_ref().map(|Hosts(hosts)| Launcher::ssh(hosts.clone()))
    }

    /// What is not an answer although a worker prints it.
    pub(crate) fn at_end(&self) -> &[u8] {
        self.skip_at_end.as_ref().map_or(&[], |AtEnd(bytes)| bytes)
    }

    /// What makes no sense, and the parser does not know.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.command.is_empty() {
            return Some(
                "no command: put it behind `--`, as in `subfeed -- jq -c .name`".to_owned(),
            );
        }
        if self.header > 0 && (self.null || self.requests.is_some() || self.replies.is_some()) {
            return Some("--header is about lines, and goes with no other framing".to_owned());
        }
        files::shared(self)
    }

    /// What to run, and where, and what holds of it however it is talked to.
    pub(crate) fn worker(&self) -> Option<Template> {
        let (program, args) = self.command.split_first()?;
        let mut template = Template::new(program).args(args).reply_limit(self.answer_limit);
        if let Some(launcher) = self.launcher() {
            template = template.via(launcher);
        }
        if self.pty {
            template = template.line_buffered(LineBuffered::Pty);
        }
        if let Some(attempts) = self.attempts {
            template = template.retries(attempts - 1);
        }
        if let Some(timeout) = self.timeout {
            template = template.packet_timeout(timeout);
        }
        if let Some(timeout) = self.start_timeout {
            template = template.start_timeout(timeout);
        }
        if let Some(timeout) = self.end_timeout {
            template = template.end_timeout(timeout);
        }
        Some(template)
    }

    /// How to talk to it.
    pub(crate) fn talk(&self, mut template: Template) -> Template {
        template = template.requests(match self.requests {
            Some(requests) => requests.framing(),
            None => RequestFraming::delimited(self.delimiter()),
        });
        template = template.replies(match &self.replies {
            Some(replies) => replies.framing.clone(),
            None => ReplyFraming::delimited(self.delimiter()),
        });
        if !self.accept_status.is_empty() {
            let statuses = self.accept_status.clone();
            template = template.accept_status(move |status| {
                u8::try_from(status).is_ok_and(|status| statuses.contains(&status))
            });
        }
        if let Some(lines) = self.skip_lines {
            template = template.skip_lines(lines);
        }
        if let Some(AtEnd(bytes)) = &self.skip_at_end {
            template = template.skip_at_end(bytes.clone());
        }
        match self.halt {
            None => template,
            Some(When::Soon) => template.halt(Halt::Soon(1)),
            Some(When::Now) => template.halt(Halt::Now(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn what_is_said_at_the_end_is_typed_as_a_line() {
        let bytes = |text: &str| text_at_end(text).map(|AtEnd(bytes)| bytes);
        for (typed, expected) in [
            ("bye", &b"bye\n"[..]),
            ("bye\n", b"bye\n"),
            (r"bye\n", b"bye\n"),
            (r"one\ntwo", b"one\ntwo\n"),
            (r"> \c", b"> "),
            (r"\xff\t\0\\\u{e9}", b"\xff\t\0\\\xc3\xa9\n"),
            ("", b"\n"),
        ] {
            assert_eq!(bytes(typed).as_deref(), Ok(expected), "{typed}");
        }
        for bad in [r"\", r"\q", r"\xg0", r"\cmore", r"\u{}", r"\u{110000}"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_said_at_the_end_is_given_back_as_it_is_typed() {
        for (bytes, text) in [
            (&b"bye\n"[..], "bye"),
            (b"> ", r"> \c"),
            (b"one\ttwo\n\n", r"one\ttwo\n\n"),
            (b"\xff\\\n", r"\xff\\"),
        ] {
            assert_eq!(typed(bytes), text);
            assert_eq!(text_at_end(text), Ok(AtEnd(bytes.to_vec())));
        }
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(
            (size("7"), size("64K"), size("4M"), size("1GiB")),
            (Ok(7), Ok(65_536), Ok(4 << 20), Ok(1 << 30))
        );
        for bad in ["", "K", "-1", "1.5M", "0", "99999999999G", "4X"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(
            (duration("500ms"), duration("2m")),
            (Ok(Duration::from_millis(500)), Ok(Duration::from_secs(120)))
        );
        for bad in ["", "s", "-1s", "1d", "1e400"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn machines_are_counted() {
        let found = hosts("8/node1,node2,2/:").unwrap();
        let expected = [Host::new("node1").weight(8), Host::new("node2"), Host::local().weight(2)];
        assert_eq!(found, Hosts(expected.to_vec()));
        for bad in ["", ",", "x/node", "0/node", "3/"] {
            assert!(hosts(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn framings_are_told_apart_and_what_is_wrong_with_one_is_said() {
        for good in [
            "line",
            "nul",
            "lines:3",
            "block",
            "end:{ready}",
            "end:\n.",
            "last:bestmove",
            "sentinel:echo {mark1}{mark2}",
            "eof",
            "size:8",
        ] {
            assert!(replies(good).is_ok(), "{good}");
        }
        for bad in ["lines", "lines:x", "line:1", "end:", "end:.\n", "end", "sentinel", "tail", ""]
        {
            assert!(replies(bad).is_err(), "{bad}");
        }
    }
}
