//! The ends of a worker: its three standard streams and its named side channels.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// What a worker's standard stream is connected to instead of the feed; for [`Template::stdin`], [`Template::stdout`] and
/// [`Template::stderr`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Redirect {
    /// A file; `{id}` in the path is replaced by the worker's number. An output file is emptied when the feed's first
    /// session that writes to it starts. Later sessions, and other workers, append to it. Without `{id}` in the path all
    /// workers share one file.
    File(PathBuf),
    /// `/dev/null`: a read sees the end at once, and written bytes vanish.
    Null,
    /// The same as this process's own stream.
    Inherit,
}

impl Redirect {
    /// A [`Redirect::File`] with this path.
    #[must_use]
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self::File(path.as_ref().to_owned())
    }
}

/// How to make a tool that buffers its output flush it after each line; see [`Template::line_buffered`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LineBuffered {
    /// Sets `PYTHONUNBUFFERED=1` in the environment. For Python.
    Environment,
    /// Runs the command under `stdbuf -oL`. For dynamically linked programs that use C's stdio with its default
    /// buffering: `tr`, `cut`, `sed`, `uniq`, `jq`, `gawk`. Not for `mawk`, Perl, Python or Go programs.
    Stdbuf,
    /// Makes the worker's stdout a pseudo-terminal in raw mode: no echo, line ends unchanged. For programs that call
    /// `isatty` (Perl, Python, `factor`). Some tools then print colours or prompts.
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

/// Who is told what workers write on stderr; see [`Template::on_stderr`].
#[derive(Clone)]
pub(crate) struct OnStderr(Arc<Told>);

type Told = dyn Fn(usize, &[u8]) + Send + Sync;

impl fmt::Debug for OnStderr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnStderr")
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Channels {
    pub(crate) stdin: Stream,
    pub(crate) stdout: Stream,
    pub(crate) stderr: Stream,
    pub(crate) on_stderr: Option<OnStderr>,
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

    /// This worker has written these bytes on stderr. Runs the user's closure, which may panic.
    pub(crate) fn tell_stderr(&self, worker: usize, bytes: &[u8]) {
        if let Some(on_stderr) = &self.on_stderr
            && !bytes.is_empty()
        {
            (on_stderr.0)(worker, bytes);
        }
    }
}

/// Channels.
impl<E, D> Template<E, D> {
    /// Declares a side input: a pipe beside stdin that each worker inherits.
    ///
    /// The environment variable with the channel's name holds the descriptor's number, which is 10 or above. In
    /// arguments, `{fd:NAME}` is replaced by `/dev/fd/N`. In a shell script, `exec 3<{fd:NAME}` gives it a number
    /// that `read <&3` accepts; `dash` cannot use numbers above 9 otherwise.
    ///
    /// For each item one record is written to it, beside the request on stdin: the bytes that `encode` pushes to
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

    /// Declares a [`side_input`](Template::side_input) with its own framing.
    ///
    /// ```
    /// use subfeed::framing::RequestFraming;
    /// use subfeed::{FeedExt, Template};
    /// let script = r#"exec 3<{fd:size}; while read -r name; do echo "$name: $(dd bs=4 count=1 <&3 2>/dev/null)"; done"#;
    /// let template = Template::shell(script)
    ///     .side_input_framed("size", RequestFraming::raw())
    ///     .encode(|(name, size): &(&str, u32), request| {
    ///         request.push(name);
    ///         request.side("size").push(format!("{size:04}"));
    ///     });
    /// let mut feed = [("file", 17)].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "file: 0017");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn side_input_framed(mut self, name: impl Into<String>, framing: RequestFraming) -> Self {
        let side = SideInput { name: name.into(), framing, optional: None, file: None };
        self.spec.channels.side_inputs.push(side);
        self
    }

    /// Declares a side input that a worker may close early or leave unread.
    ///
    /// At most `cap` bytes may wait for one worker. If more wait, the feed ends with a fatal error of kind
    /// [`ErrorKind::Channel`](crate::ErrorKind::Channel).
    ///
    /// ```
    /// use subfeed::framing::RequestFraming;
    /// use subfeed::{FeedExt, Template};
    /// // A worker may read the hint or not; `cat` does not.
    /// let template = Template::new("cat")
    ///     .optional_side_input("hint", RequestFraming::line(), 1 << 20)
    ///     .encode(|word: &&str, request| {
    ///         request.push(word);
    ///         request.side("hint").push("take your time");
    ///     });
    /// let mut feed = ["hello"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "hello");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
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

    /// Declares a side input that is a file, such as a dictionary or a script. Each session opens it for reading.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// # let path = std::env::temp_dir().join(format!("subfeed-side-{}", std::process::id()));
    /// # std::fs::write(&path, "s/colour/color/\n").unwrap();
    /// let template = Template::new("sed").args(["-u", "-f", "{fd:script}"]).side_input_file("script", &path);
    /// let mut feed = ["colourful"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "colorful");
    /// # drop(feed);
    /// # std::fs::remove_file(&path).unwrap();
    /// # Ok::<_, subfeed::Error>(())
    /// ```
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

    /// Declares a side output: a pipe beside stdout. Each reply has a part on it, which ends as `framing` says and which
    /// [`Reply::side`](crate::Reply::side) returns. A reply is complete when its part on every output is complete.
    ///
    /// ```
    /// use subfeed::framing::ReplyFraming;
    /// use subfeed::{FeedExt, Template};
    /// let script = r#"while read -r x; do echo "$x" && echo "${#x}" >{fd:length}; done"#;
    /// let template = Template::shell(script).side_output("length", ReplyFraming::line()).decode(|reply| {
    ///     let length = reply.side("length").map(ToString::to_string);
    ///     (reply.bytes().to_vec(), length.unwrap_or_default())
    /// });
    /// let mut feed = ["four"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, (b"four".to_vec(), "4".to_owned()));
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn side_output(mut self, name: impl Into<String>, framing: ReplyFraming) -> Self {
        let side = SideOutput { name: name.into(), framing: Some(framing), file: None };
        self.spec.channels.side_outputs.push(side);
        self
    }

    /// Declares a side output that is a file; `{id}` in the path is replaced by the worker's number.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// # let dir = std::env::temp_dir().join(format!("subfeed-side-out-{}", std::process::id()));
    /// # std::fs::create_dir_all(&dir).unwrap();
    /// let script = r#"while read -r x; do echo "$x" && echo "seen: $x" >>{fd:journal}; done"#;
    /// let template = Template::shell(script).side_output_file("journal", dir.join("{id}.log"));
    /// let feed = ["one"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.finish()?.yielded, 1);
    /// assert_eq!(std::fs::read_to_string(dir.join("0.log")).unwrap(), "seen: one\n");
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn side_output_file(mut self, name: impl Into<String>, path: impl AsRef<Path>) -> Self {
        let file = Some(path.as_ref().to_owned());
        self.spec.channels.side_outputs.push(SideOutput { name: name.into(), framing: None, file });
        self
    }

    /// Redirects stdout. The feed then gets no replies: use [`FeedBuilder::drain`](crate::FeedBuilder::drain).
    ///
    /// ```
    /// use subfeed::channel::Redirect;
    /// use subfeed::{FeedExt, Template};
    /// let done = ["a", "b"].into_iter().feed(Template::new("cat").stdout(Redirect::Null)).workers(1).drain()?;
    /// assert_eq!(done.accepted, [2]);
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn stdout(mut self, to: Redirect) -> Self {
        self.spec.channels.stdout = Stream::To(to);
        self
    }

    /// Redirects stderr. By default the feed reads it, and its first and last 4 KiB are part of the errors.
    ///
    /// ```
    /// use subfeed::channel::Redirect;
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::shell("while read -r x; do echo noise >&2; echo $x; done").stderr(Redirect::Null);
    /// let mut feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "a");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn stderr(mut self, to: Redirect) -> Self {
        self.spec.channels.stderr = Stream::To(to);
        self
    }

    /// Hands on what workers write on stderr, as it comes: the worker's number, and the bytes of one read, which may end
    /// anywhere in a line. The errors have their part of it all the same.
    ///
    /// The closure runs on the event loop's thread. While it runs its feed stands still: a closure that waits
    /// holds up every worker, and must not wait for the feed's own consumer. A panic in it ends the feed, and is resumed
    /// in `next()`. With a stderr that is [redirected](Template::stderr) this is a configuration error. What a launcher
    /// itself prints is not passed on.
    ///
    /// ```
    /// use std::io::Write;
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::shell("while read -r x; do echo noise >&2; echo $x; done")
    ///     .on_stderr(|_worker, bytes| _ = std::io::stderr().write_all(bytes));
    /// let mut feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "a");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn on_stderr(mut self, told: impl Fn(usize, &[u8]) + Send + Sync + 'static) -> Self {
        self.spec.channels.on_stderr = Some(OnStderr(Arc::new(told)));
        self
    }

    /// Redirects stdin, for tools that read only from side inputs, and for commands that are
    /// [sources](crate::source::iterate_in_subprocess).
    ///
    /// A feed needs a side input then, and `encode` to write to it; otherwise its only item is a configuration error.
    /// Bytes that `encode` pushes to the request itself are discarded.
    ///
    /// ```
    /// use subfeed::channel::Redirect;
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::new("cat").arg("{fd:lines}").stdin(Redirect::Null).side_input("lines").encode(
    ///     |line: &&str, request| request.side("lines").push(line),
    /// );
    /// let mut feed = ["by the side"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "by the side");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn stdin(mut self, from: Redirect) -> Self {
        self.spec.channels.stdin = Stream::To(from);
        self
    }

    /// Makes a tool flush its output after each line, if it would otherwise keep it until a buffer is full. The
    /// tool's own flag is better, if there is one:
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
    /// Without this, and without a flag, such a tool still works: it is
    /// [recycled](crate::policy::OnStall::Recycle), which costs a new process each time.
    ///
    /// ```
    /// use subfeed::channel::LineBuffered;
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::new("tr").args(["a-z", "A-Z"]).line_buffered(LineBuffered::Stdbuf);
    /// # if !cfg!(target_os = "linux") { return Ok(()); }
    /// let mut feed = ["loud"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "LOUD");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn line_buffered(mut self, how: LineBuffered) -> Self {
        match how {
            LineBuffered::Environment => self.spec.command.unbuffered_python = true,
            LineBuffered::Stdbuf => self.spec.command.stdbuf = true,
            LineBuffered::Pty => self.spec.channels.pty = true,
        }
        self
    }

    /// For tools that answer each record, but only when their input ends (`base64 -w`, `samtools`): after at most
    /// `batch` packets the session's stdin is closed, and the worker is started again.
    ///
    /// Stdin is closed earlier if the window is full or no more input is available, so no reply waits until a batch is
    /// full. Zero is a configuration error.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::new("tr").args(["a-z", "A-Z"]).answers_at_eof(100);
    /// let replies = (0..500).map(|n| n.to_string()).feed_subprocesses_ordered(template, 2, 1_000);
    /// assert_eq!(replies.filter(Result::is_ok).count(), 500);
    /// ```
    #[must_use]
    pub fn answers_at_eof(mut self, batch: u64) -> Self {
        self.spec.policy.eof_batch = Some(batch);
        self
    }
}
