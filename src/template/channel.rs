//! The ends of a worker: its three standard streams and its named side channels.

use std::path::{Path, PathBuf};

use crate::framing::{ReplyFraming, RequestFraming};
use crate::template::Template;

/// Where one of a worker's standard streams leads.
#[derive(Clone, Debug, Default)]
pub(crate) enum Stream {
    /// To us.
    #[default]
    Pipe,
    To(Redirect),
}

/// Somewhere other than to us; for [`Template::stdout`] and its like.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Redirect {
    /// A file; `{id}` in the path is the worker's number. An output file is emptied when the first session
    /// of a feed that leads there starts, and only appended to from then on, by later sessions as by other
    /// workers: without `{id}` all share one file.
    File(PathBuf),
    /// Nowhere: reads see the end at once, writes vanish.
    Null,
    /// Wherever our own leads.
    Inherit,
}

impl Redirect {
    /// [`Redirect::File`] without the ceremony.
    #[must_use]
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self::File(path.as_ref().to_owned())
    }
}

/// How a tool that block-buffers its output is talked out of it; see [`Template::line_buffered`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LineBuffered {
    /// `PYTHONUNBUFFERED=1` in the environment. Works for Python.
    Environment,
    /// The command is run under `stdbuf -oL`. Works for dynamically linked programs that use C's
    /// stdio and do not choose for themselves: `tr`, `cut`, `sed`, `uniq`, `jq`, `gawk`. Not for
    /// `mawk`, Perl, Python, or what is written in Go.
    Stdbuf,
    /// The worker's stdout is a pseudo-terminal, raw: no echo, line ends unchanged. Works for what
    /// asks `isatty` (Perl, Python, `factor`); some tools then add colours or prompts.
    Pty,
}

/// A named input beside stdin.
#[derive(Clone, Debug)]
pub(crate) struct SideInput {
    pub(crate) name: String,
    pub(crate) framing: RequestFraming,
    /// `Some(cap)`: the worker may close it early, or leave up to `cap` bytes unread.
    pub(crate) optional: Option<usize>,
    /// A file opened for reading in place of the pipe that we write.
    pub(crate) file: Option<PathBuf>,
}

/// A named output beside stdout and stderr.
#[derive(Clone, Debug)]
pub(crate) struct SideOutput {
    pub(crate) name: String,
    /// How its part of each reply is cut out; `None` for a file.
    pub(crate) framing: Option<ReplyFraming>,
    pub(crate) file: Option<PathBuf>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Channels {
    pub(crate) stdin: Stream,
    pub(crate) stdout: Stream,
    pub(crate) stderr: Stream,
    /// Stdout comes to us through a pseudo-terminal: the worker believes that a person reads.
    pub(crate) pty: bool,
    pub(crate) side_inputs: Vec<SideInput>,
    pub(crate) side_outputs: Vec<SideOutput>,
}

impl Channels {
    /// The paths of all channels that are files.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        let streams = [&self.stdin, &self.stdout, &self.stderr].into_iter();
        let streams = streams.filter_map(|stream| match stream {
            Stream::To(Redirect::File(path)) => Some(path),
            _ => None,
        });
        let inputs = self.side_inputs.iter().filter_map(|side| side.file.as_ref());
        let outputs = self.side_outputs.iter().filter_map(|side| side.file.as_ref());
        streams.chain(inputs).chain(outputs).map(PathBuf::as_path)
    }
}

/// Channels.
impl<E, D> Template<E, D> {
    /// Declares a side input: a pipe beside stdin that each worker inherits. Its number is in the
    /// environment variable of the channel's name, and `{fd:NAME}` in arguments is `/dev/fd/N`. The
    /// number is 10 or above. In a shell, `exec 3<{fd:NAME}` makes a descriptor of it that `read <&3`
    /// takes; `dash` has no other way to such numbers.
    ///
    /// Every item writes one record to it, in step with stdin: what `encode` pushes to
    /// [`Request::side`](crate::Request::side), framed as a line.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::shell(r#"paste -d ' ' - {fd:numbers}"#)
    ///     .side_input("numbers")
    ///     .encode(|(word, n): &(&str, u32), request| {
    ///         request.push(word);
    ///         request.side("numbers").push(n.to_string());
    ///     });
    /// let pairs = [("one", 1), ("two", 2)];
    /// let replies: Result<Vec<_>, _> = pairs.into_iter().feed_subprocesses_ordered(template, 1, 8).collect();
    /// assert_eq!(replies.unwrap(), ["one 1", "two 2"]);
    /// ```
    #[must_use]
    pub fn side_input(self, name: impl Into<String>) -> Self {
        self.side_input_framed(name, RequestFraming::line())
    }

    /// [`side_input`](Template::side_input) with a framing of its own.
    #[must_use]
    pub fn side_input_framed(mut self, name: impl Into<String>, framing: RequestFraming) -> Self {
        let side = SideInput { name: name.into(), framing, optional: None, file: None };
        self.spec.channels.side_inputs.push(side);
        self
    }

    /// A side input that a worker may close early or leave unread. What it leaves unread is capped:
    /// beyond `cap` bytes that wait for one worker the feed ends with an error of kind
    /// [`ErrorKind::Channel`](crate::ErrorKind::Channel).
    #[must_use]
    pub fn optional_side_input(
        mut self,
        name: impl Into<String>,
        framing: RequestFraming,
        cap: usize,
    ) -> Self {
        let side = SideInput { name: name.into(), framing, optional: Some(cap), file: None };
        self.spec.channels.side_inputs.push(side);
        self
    }

    /// A side input that is a file, opened for reading by each worker's session: a dictionary, a program.
    #[must_use]
    pub fn side_input_file(mut self, name: impl Into<String>, path: impl AsRef<Path>) -> Self {
        let file = Some(path.as_ref().to_owned());
        let framing = RequestFraming::raw();
        self.spec.channels.side_inputs.push(SideInput {
            name: name.into(),
            framing,
            optional: None,
            file,
        });
        self
    }

    /// Declares a side output: a pipe beside stdout whose part belongs to each reply, cut out by
    /// `framing` and read with [`Reply::side`](crate::Reply::side). A reply is complete when every
    /// output has given its part.
    #[must_use]
    pub fn side_output(mut self, name: impl Into<String>, framing: ReplyFraming) -> Self {
        let side = SideOutput { name: name.into(), framing: Some(framing), file: None };
        self.spec.channels.side_outputs.push(side);
        self
    }

    /// A side output that is a file; `{id}` in the path is the worker's number.
    #[must_use]
    pub fn side_output_file(mut self, name: impl Into<String>, path: impl AsRef<Path>) -> Self {
        let file = Some(path.as_ref().to_owned());
        self.spec.channels.side_outputs.push(SideOutput { name: name.into(), framing: None, file });
        self
    }

    /// Sends stdout somewhere else. Nothing comes back then: feed with
    /// [`FeedBuilder::drain`](crate::FeedBuilder::drain).
    #[must_use]
    pub fn stdout(mut self, to: Redirect) -> Self {
        self.spec.channels.stdout = Stream::To(to);
        self
    }

    /// Sends stderr somewhere else. By default it is drained, and its first and last 4 KiB are in the errors.
    #[must_use]
    pub fn stderr(mut self, to: Redirect) -> Self {
        self.spec.channels.stderr = Stream::To(to);
        self
    }

    /// Takes stdin from somewhere else, for tools that are fed through side inputs only. What is
    /// pushed to the request itself goes nowhere then.
    #[must_use]
    pub fn stdin(mut self, from: Redirect) -> Self {
        self.spec.channels.stdin = Stream::To(from);
        self
    }

    /// Talks a tool that block-buffers its output out of it. Where the tool has a flag of its own,
    /// that is better:
    ///
    /// | tool | flag |
    /// |---|---|
    /// | `jq` | `--unbuffered` |
    /// | `sed` | `-u` |
    /// | `grep` | `--line-buffered` |
    /// | `mawk` (Debian's `awk`) | `-W interactive`; nothing else helps |
    /// | `gawk` | `fflush()` after `print`, or [`Stdbuf`](LineBuffered::Stdbuf) |
    /// | `python3` | `-u`, or [`Environment`](LineBuffered::Environment), or `print(..., flush=True)` |
    /// | `perl` | `$|=1`, or [`Pty`](LineBuffered::Pty) |
    /// | `file` | `-n` (with `-f -`) |
    /// | `tr`, `cut`, `rev`, `nl`, `uniq`, `fold`, `expand`, `paste`, `numfmt`, `od`, `xxd` | [`Stdbuf`](LineBuffered::Stdbuf) |
    /// | `iconv`, `base64`, `gzip`, `sort`, `sha256sum`, `wc` | none: one process per packet, or [`answers_at_eof`](Template::answers_at_eof) |
    ///
    /// Without any of this such a tool still works: it is noticed and
    /// [recycled](crate::policy::OnStall::Recycle), which costs a new process each time.
    #[must_use]
    pub fn line_buffered(mut self, how: LineBuffered) -> Self {
        match how {
            LineBuffered::Environment => self.spec.command.unbuffered_python = true,
            LineBuffered::Stdbuf => self.spec.command.stdbuf = true,
            LineBuffered::Pty => self.spec.channels.pty = true,
        }
        self
    }

    /// For tools that answer each record, but only when their input ends (`base64 -w`, `samtools`):
    /// a session gets up to `batch` packets, then its stdin is closed. It is also closed when the window
    /// is full or the input idles, so no reply waits for a batch to fill. Zero is a configuration error.
    #[must_use]
    pub fn answers_at_eof(mut self, batch: u64) -> Self {
        self.spec.policy.eof_batch = Some(batch);
        self
    }
}
