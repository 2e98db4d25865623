//! The command line, and the template that it describes.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use subfeed::channel::LineBuffered;
use subfeed::framing::{Prefix, ReplyFraming, RequestFraming, Sentinel};
use subfeed::policy::Halt;
use subfeed::{Host, Launcher, Template};

/// Feed lines through persistent workers, in order and in bounded memory.
///
/// COMMAND is started once per worker and kept. The records of standard input (lines) are shared out to the workers
/// and what they answer is written to standard output, in the order of the input.
#[derive(Debug, Parser)]
#[command(
    name = "subfeed",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "\
EXIT STATUS
  0  every record was answered          2  the options make no sense
  1  some records failed                3  the run ended before its time
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
    /// Workers side by side [default: the number of processors].
    #[arg(short, long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// Keep the order of the input. This is what happens anyway: accepted for who is used to it.
    #[arg(short, long, conflicts_with = "any_order")]
    pub(crate) keep_order: bool,
    /// Write answers as they come, in blocks of records that stay together.
    #[arg(long)]
    pub(crate) any_order: bool,
    /// At most N records are read and not yet written [default: no bound in records].
    #[arg(long, value_name = "N")]
    pub(crate) window: Option<usize>,
    /// At most so many bytes of records and answers are held, such as 64K, 4M, 1G.
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "4M")]
    pub(crate) max_bytes: usize,
    /// A record that is longer than this fails.
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "64M")]
    pub(crate) record_limit: usize,
    /// Records of the input end with a NUL byte instead of a line feed.
    #[arg(short = '0', long)]
    pub(crate) null: bool,
    /// The first N lines of the input go to each worker first, and what it makes of them is written once.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) header: usize,
    /// How a record is written to a worker [default: as it was read].
    #[arg(long = "in", value_name = "FRAMING")]
    pub(crate) requests: Option<Requests>,
    /// How an answer ends: line, nul, lines:K, block, end:X (a line X ends it), last:X (a line that begins with X is
    /// the last), size:N, len32, netstring, sentinel:CMD (CMD makes the tool print `{mark}`, or `{mark1}` and `{mark2}` joined),
    /// eof (one process for each record).
    #[arg(long = "out", value_name = "FRAMING", value_parser = replies)]
    pub(crate) replies: Option<ReplyFraming>,
    /// Each worker prints N lines before its first answer, which are dropped.
    #[arg(long, value_name = "N", conflicts_with = "header")]
    pub(crate) skip_lines: Option<usize>,
    /// What each worker prints at its end, and is no answer.
    #[arg(long, value_name = "TEXT")]
    pub(crate) skip_at_end: Option<String>,
    /// The standard output of each worker is a pseudo-terminal: for tools that answer at once only there.
    #[arg(long)]
    pub(crate) pty: bool,
    /// Workers on these machines, by ssh: `8/node1,4/node2,:` is 8 on node1, 4 on node2, and 1 here.
    #[arg(short = 'S', long, value_name = "LIST", value_parser = hosts)]
    pub(crate) hosts: Option<Hosts>,
    /// How often a record is tried in all, if the worker dies that has it alone.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempts: Option<u32>,
    /// How long an answer may take, such as 500ms, 10s, 2m.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// How long the first answer of a worker may take beside that.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) start_timeout: Option<Duration>,
    /// End the run when a record fails: once what was read is answered, or at once.
    #[arg(long, value_name = "WHEN")]
    pub(crate) halt: Option<When>,
    /// Write a line for each record into this file, in the columns of GNU parallel's job log.
    #[arg(long, value_name = "FILE")]
    pub(crate) joblog: Option<PathBuf>,
    /// Count in this file what was written, and go on behind that if it is there. After a crash, what was written within a
    /// second may come again; nothing is left out. A record that failed has been said on stderr and counts as done.
    #[arg(long, value_name = "FILE", conflicts_with = "any_order")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Write into this file what every worker did, as a Chrome trace (for Perfetto or chrome://tracing).
    #[arg(long, value_name = "FILE")]
    pub(crate) timeline: Option<PathBuf>,
    /// Show a progress bar on standard error, if that is a terminal.
    #[arg(long)]
    pub(crate) bar: bool,
    /// The same, with the time that is left.
    #[arg(long)]
    pub(crate) eta: bool,
    /// Say at the end on standard error what was done.
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

fn replies(text: &str) -> Result<ReplyFraming, String> {
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

    /// Where the workers are to be, if that is said.
    pub(crate) fn launcher(&self) -> Option<Launcher> {
        self.hosts.as_ref().map(|Hosts(hosts)| Launcher::ssh(hosts.clone()))
    }

    /// What to run, and where.
    pub(crate) fn worker(&self) -> Option<Template> {
        let (program, args) = self.command.split_first()?;
        let template = Template::new(program).args(args);
        Some(match self.launcher() {
            Some(launcher) => template.via(launcher),
            None => template,
        })
    }

    /// What to run and how to talk to it.
    pub(crate) fn template(&self) -> Option<Template> {
        let mut template = self.worker()?;
        template = template.requests(match self.requests {
            Some(requests) => requests.framing(),
            None => RequestFraming::delimited(self.delimiter()),
        });
        template = template.replies(match &self.replies {
            Some(replies) => replies.clone(),
            None => ReplyFraming::delimited(self.delimiter()),
        });
        if let Some(lines) = self.skip_lines {
            template = template.skip_lines(lines);
        }
        if let Some(text) = &self.skip_at_end {
            template = template.skip_at_end(text.as_bytes());
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
        Some(match self.halt {
            None => template,
            Some(When::Soon) => template.halt(Halt::Soon(1)),
            Some(When::Now) => template.halt(Halt::Now(1)),
        })
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
            "last:bestmove",
            "sentinel:echo {mark1}{mark2}",
            "eof",
            "size:8",
        ] {
            assert!(replies(good).is_ok(), "{good}");
        }
        for bad in ["lines", "lines:x", "line:1", "end:", "end", "sentinel", "tail", ""] {
            assert!(replies(bad).is_err(), "{bad}");
        }
    }
}
