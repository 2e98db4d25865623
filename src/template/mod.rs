//! What to run and how to talk to it: the template of a worker.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;

use itertools::Itertools;

use crate::error::{BoxError, Error};

pub(crate) mod channel;
pub(crate) mod codec;
pub(crate) mod command;

#[cfg(feature = "json")]
pub(crate) mod json;
pub(crate) mod launcher;
pub(crate) mod policy;
mod validate;
pub(crate) mod words;

use crate::framing::{ReplyFraming, RequestFraming};
use channel::Channels;
use codec::{AsBytes, DecodeFn, EncodeFn, Owned, Reply, Request, Text, TryDecodeFn, TryEncodeFn};
use command::{CommandLine, Word};
use launcher::{Launch, Launcher};
use policy::Policy;
use words::Words;

/// Which exit statuses of a process leave its output a reply; see [`Template::accept_status`].
#[derive(Clone)]
pub(crate) struct AcceptStatus(Arc<dyn Fn(i32) -> bool + Send + Sync>);

#[cfg(test)]
impl AcceptStatus {
    pub(crate) fn new(accept: impl Fn(i32) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(accept))
    }
}

impl fmt::Debug for AcceptStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AcceptStatus")
    }
}

type Check = Arc<dyn Fn(&[u8], &[u8]) -> Result<(), BoxError> + Send + Sync>;

/// Everything about a worker but the two closures.
#[derive(Clone)]
pub(crate) struct Spec {
    pub(crate) command: CommandLine,
    /// By way of which its workers are started, the innermost first.
    pub(crate) launchers: Vec<Launcher>,
    /// Where each worker runs, once a feed has begun, if some launcher leads away from here.
    pub(crate) launch: Option<Arc<Launch>>,
    pub(crate) channels: Channels,
    pub(crate) requests: RequestFraming,
    /// A closure writes them; otherwise an item is the request on stdin.
    pub(crate) is_encoded: bool,
    pub(crate) replies: ReplyFraming,
    pub(crate) words: Words,
    pub(crate) check: Option<Check>,
    /// Only with [`ReplyFraming::until_eof`]; without it, 0 alone is accepted.
    pub(crate) accept_status: Option<AcceptStatus>,
    pub(crate) policy: Policy,
}

impl Spec {
    /// The names of the side inputs that we write, in the order of their columns.
    pub(crate) fn side_input_names(&self) -> Vec<String> {
        self.channels
            .side_inputs
            .iter()
            .filter(|side| side.file.is_none())
            .map(|side| side.name.clone())
            .collect()
    }

    /// Whether a reply, or the part of it on some output, ends with its process.
    pub(crate) fn is_until_eof(&self) -> bool {
        let sides = self.channels.side_outputs.iter().filter_map(|side| side.framing.as_ref());
        std::iter::once(&self.replies).chain(sides).any(ReplyFraming::is_until_eof)
    }

    /// Whether each reply is known to be that of its request: by a mark behind it, or because it is a whole
    /// output.
    pub(crate) fn proves_replies(&self) -> bool {
        self.replies.as_sentinel().is_some() || self.is_until_eof()
    }

    /// Whether what a worker says later can show that an earlier reply was none: one too many, where replies are
    /// counted, or a mark that comes again, because the first was the tool's quotation of it. Where the mark is sent in
    /// halves no quotation has it.
    pub(crate) fn may_disprove_replies(&self) -> bool {
        !self.is_until_eof()
            && self.replies.as_sentinel().is_none_or(|sentinel| !sentinel.is_halved())
    }

    /// How many requests one session is for.
    pub(crate) fn session_records(&self) -> Option<u64> {
        if self.is_until_eof() {
            return Some(1);
        }
        let Policy { recycle_records, eof_batch, in_flight, .. } = &self.policy;
        // One that answers at its end answers nothing before it has all that it may have.
        let batch = eof_batch.map(|batch| in_flight.map_or(batch, |most| batch.min(most)));
        recycle_records.iter().copied().chain(batch).min()
    }

    /// Whether what a process wrote before it ended like this is its answer, where only the end of a
    /// process makes one. Runs the user's closure, which may panic.
    pub(crate) fn accepts_status(&self, status: ExitStatus) -> bool {
        match (&self.accept_status, status.code()) {
            (Some(accept), Some(code)) => (accept.0)(code),
            // Ended by a signal.
            (Some(_), None) => false,
            (None, _) => status.success(),
        }
    }

    /// The command line for messages, with what runs it on the same machine.
    pub(crate) fn display(&self) -> String {
        let prefixes = self.launchers.iter().rev().filter_map(Launcher::display);
        prefixes.chain([self.command.display()]).join(" ")
    }

    /// What is drawn anew for each feed of so many workers: the marks, what is said first because of them, and
    /// where each worker runs.
    ///
    /// # Errors
    /// There is no host to run them on.
    pub(crate) fn begin(&mut self, workers: usize) -> Result<(), Error> {
        if let Some(sentinel) = self.replies.as_sentinel_mut() {
            if !sentinel.is_fixed() {
                sentinel.renew();
            }
            let mut opening = Vec::new();
            sentinel.append_opening(&mut opening);
            self.words.add_to_preamble(&opening);
        }
        self.seat(workers)
    }
}

/// How to start one worker and how to talk to it.
///
/// A template is a plain value: clone it, return it from a function, use it for several feeds. Only the command must be
/// given. By default requests and replies are lines, an item is its own bytes, and a reply is a
/// [`BString`](bstr::BString).
///
/// | to | use |
/// |---|---|
/// | choose what to run | [`new`](Template::new), [`shell`](Template::shell), [`arg`](Template::arg), [`args`](Template::args), [`raw_arg`](Template::raw_arg), [`secret_arg`](Template::secret_arg), [`env`](Template::env), [`secret_env`](Template::secret_env), [`env_remove`](Template::env_remove), [`env_clear`](Template::env_clear), [`current_dir`](Template::current_dir) |
/// | make a request of an item | [`encode`](Template::encode), [`try_encode`](Template::try_encode), `encode_json` |
/// | make a value of a reply | [`decode`](Template::decode), [`try_decode`](Template::try_decode), [`text`](Template::text), `decode_json`; `json` for both ways |
/// | define where requests and replies end | [`requests`](Template::requests), [`replies`](Template::replies), [`reply_limit`](Template::reply_limit) |
/// | verify replies | [`check`](Template::check), [`accept_status`](Template::accept_status), [`require_clean_exit`](Template::require_clean_exit) |
/// | skip output that is not a reply | [`skip_lines`](Template::skip_lines), [`skip_until`](Template::skip_until), [`skip_at_end`](Template::skip_at_end) |
/// | write something before and after the requests | [`preamble`](Template::preamble), [`farewell`](Template::farewell) |
/// | handle a tool that buffers | [`line_buffered`](Template::line_buffered), [`answers_at_eof`](Template::answers_at_eof), [`on_stall`](Template::on_stall) |
/// | use more than stdin and stdout | [`side_input`](Template::side_input), [`side_input_framed`](Template::side_input_framed), [`optional_side_input`](Template::optional_side_input), [`side_input_file`](Template::side_input_file), [`side_output`](Template::side_output), [`side_output_file`](Template::side_output_file), [`stdin`](Template::stdin), [`stdout`](Template::stdout), [`stderr`](Template::stderr), [`on_stderr`](Template::on_stderr), [`keep_stderr`](Template::keep_stderr) |
/// | limit times | [`ready`](Template::ready), [`start_timeout`](Template::start_timeout), [`packet_timeout`](Template::packet_timeout), [`idle_timeout`](Template::idle_timeout), [`run_timeout`](Template::run_timeout), [`end_timeout`](Template::end_timeout), [`kill_sequence`](Template::kill_sequence), [`kill_with_parent`](Template::kill_with_parent) |
/// | handle failures | [`retries`](Template::retries), [`at_most_once`](Template::at_most_once), [`halt`](Template::halt), [`give_up_after`](Template::give_up_after), [`backoff`](Template::backoff) |
/// | limit the use of one worker | [`in_flight`](Template::in_flight), [`recycle_after_records`](Template::recycle_after_records), [`recycle_after_age`](Template::recycle_after_age) |
/// | run elsewhere | [`via`](Template::via) |
///
/// The order of the calls does not matter, except for [`env_clear`](Template::env_clear); a method called twice keeps the
/// last value. No method fails: if a setting is wrong, the feed's only item is a fatal `Err` that names it.
///
/// ```
/// use subfeed::{FeedExt, Template};
///
/// let doubled: Result<Vec<i64>, subfeed::Error> = (1..=5)
///     .feed_subprocesses_ordered(
///         Template::new("sed").args(["-u", "s/$/ + 0/"])
///             .encode(|n: &i32, request| request.push(n.to_string()))
///             .try_decode(|reply| {
///                 let text = reply.to_str()?;
///                 let n: i64 = text.split(' ').next().unwrap_or_default().parse()?;
///                 Ok(n * 2)
///             }),
///         2,
///         100,
///     )
///     .collect();
/// assert_eq!(doubled.unwrap(), [2, 4, 6, 8, 10]);
/// ```
#[derive(Clone)]
pub struct Template<E = AsBytes, D = Owned> {
    pub(crate) spec: Spec,
    pub(crate) encode: E,
    pub(crate) decode: D,
}

impl Template {
    /// A worker that runs `program`, which is looked up in `PATH` if it has no slash. No shell is involved.
    ///
    /// These tokens are replaced in the program, its arguments, environment values and paths: `{id}` (the worker's
    /// number, `0..n`), `{fd:NAME}` (`/dev/fd/N` of a side channel), `{host}` (the machine on which a
    /// [launcher](Template::via) starts it, else `localhost`) and `{slot}` (the worker's number on that machine).
    /// `{{id}}` stands for a literal `{id}`. All other braces are literal.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::new("sed").args(["-u", "s/^/{id}: /"]);
    /// let replies = ["a", "b"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(replies.collect::<Result<Vec<_>, _>>()?, ["0: a", "0: b"]);
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            spec: Spec {
                command: CommandLine::new(program.as_ref()),
                launchers: Vec::new(),
                launch: None,
                channels: Channels::default(),
                requests: RequestFraming::line(),
                is_encoded: false,
                replies: ReplyFraming::line(),
                words: Words::default(),
                check: None,
                accept_status: None,
                policy: Policy::default(),
            },
            encode: AsBytes,
            decode: Owned,
        }
    }

    /// A worker that runs `script` with `/bin/sh -c`, for pipes, redirections and variables.
    ///
    /// The tokens of [`new`](Template::new) are replaced in the script. Pass other values that vary through
    /// [`env`](Template::env) instead of inserting them into the script, so that they need no quoting.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::shell("while read -r n; do echo $((n * n)); done");
    /// let squares: Result<Vec<_>, _> = ["3", "4"].into_iter().feed_subprocesses_ordered(template, 2, 8).collect();
    /// assert_eq!(squares.unwrap(), ["9", "16"]);
    /// ```
    #[must_use]
    pub fn shell(script: impl AsRef<OsStr>) -> Self {
        Self::new("/bin/sh").raw_arg("-c").arg(script)
    }
}

impl<E, D> Template<E, D> {
    /// Adds an argument. Tokens in it are replaced; see [`new`](Template::new).
    ///
    /// Arguments are printed: each [`Error`](crate::Error), hint and event, and the `Debug` of a template, shows the command
    /// line. Use [`secret_arg`](Template::secret_arg) for secrets.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::new("sed").arg("-u").arg("s/x/{id}/");
    /// let mut feed = ["x"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "0");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.spec.command.args.push(Word::Tokens(arg.as_ref().to_owned()));
        self
    }

    /// Adds arguments. Tokens in them are replaced, and they are printed, as with [`arg`](Template::arg).
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::new("tr").args(["a-z", "A-Z"]);
    /// let mut feed = ["loud"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "LOUD");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        let args = args.into_iter().map(|arg| Word::Tokens(arg.as_ref().to_owned()));
        self.spec.command.args.extend(args);
        self
    }

    /// Adds an argument in which no token is replaced. It is printed as with [`arg`](Template::arg).
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::new("sed").arg("-u").raw_arg("s/x/{id}/");
    /// let mut feed = ["x"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "{id}");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn raw_arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.spec.command.args.push(Word::Raw(arg.as_ref().to_owned()));
        self
    }

    /// Adds an argument that this crate never prints: a printed command line shows `***` in its place. No token in it is
    /// replaced.
    ///
    /// The system still shows it: every user of the machine can read the arguments of a process (`ps`, `/proc`).
    /// [`secret_env`](Template::secret_env) hides more.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::new("no-such-program").arg("--token").secret_arg("hunter2");
    /// assert!(!format!("{template:?}").contains("hunter2"));
    /// let error = ["x"].into_iter().feed_subprocesses(template, 1, 1).next().unwrap().unwrap_err();
    /// assert_eq!(error.command(), Some("no-such-program --token ***"));
    /// ```
    #[must_use]
    pub fn secret_arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.spec.command.args.push(Word::Secret(arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable. Tokens in the value are replaced; see [`new`](Template::new).
    ///
    /// Values are never printed. If a name is not valid, the error prints the name.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::shell(r#"while read -r x; do echo "$GREETING $x"; done"#).env("GREETING", "hello");
    /// let mut feed = ["world"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "hello world");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn env(self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.set_env(name.as_ref(), Some(Word::Tokens(value.as_ref().to_owned())))
    }

    /// Sets an environment variable for a password or another secret: no token in the value is replaced, and the value is
    /// never printed. Only the same user, and root, can read it in `/proc`.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::shell(r#"while read -r x; do echo "$x ${#TOKEN}"; done"#).secret_env("TOKEN", "{id}!");
    /// let mut feed = ["length"].into_iter().feed_subprocesses_ordered(template, 1, 1);
    /// assert_eq!(feed.next().unwrap().unwrap(), "length 5");
    /// ```
    #[must_use]
    pub fn secret_env(self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.set_env(name.as_ref(), Some(Word::Secret(value.as_ref().to_owned())))
    }

    fn set_env(mut self, name: &OsStr, value: Option<Word>) -> Self {
        self.spec.command.envs.push((name.to_owned(), value));
        self
    }

    /// Removes an inherited environment variable.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::shell(r#"while read -r x; do echo "${HOME-none}"; done"#).env_remove("HOME");
    /// let mut feed = ["x"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "none");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn env_remove(self, name: impl AsRef<OsStr>) -> Self {
        self.set_env(name.as_ref(), None)
    }

    /// Clears the environment: the worker gets only variables that are set after this call. As with
    /// [`Command::env_clear`](std::process::Command::env_clear), variables that were set before are removed too.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let script = r#"while read -r x; do echo "${HOME-none} $KEPT"; done"#;
    /// let template = Template::shell(script).env("LOST", "1").env_clear().env("KEPT", "kept");
    /// let mut feed = ["x"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "none kept");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn env_clear(mut self) -> Self {
        self.spec.command.env_clear = true;
        self.spec.command.envs.clear();
        self
    }

    /// The directory in which the workers run; `{id}` in it gives each worker its own.
    ///
    /// If the program is given as a path, make that path absolute: the directory from which a relative one is looked up
    /// depends on the platform, as with [`Command::current_dir`](std::process::Command::current_dir).
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::shell("while read -r x; do pwd; done").current_dir("/");
    /// let mut feed = ["x"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "/");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn current_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.spec.command.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// How a request is framed. Default: as a line.
    ///
    /// ```
    /// use subfeed::framing::{ReplyFraming, RequestFraming};
    /// use subfeed::{FeedExt, Template};
    /// // Records that may contain line feeds end with a NUL.
    /// let template = Template::new("cat").requests(RequestFraming::delimited(0)).replies(ReplyFraming::delimited(0));
    /// let mut feed = ["two\nlines"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "two\nlines");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn requests(mut self, framing: RequestFraming) -> Self {
        self.spec.requests = framing;
        self
    }

    /// How replies are found in stdout. Default: as lines. A [`Sentinel`](crate::framing::Sentinel) can be given directly.
    ///
    /// ```
    /// use subfeed::framing::Sentinel;
    /// use subfeed::{FeedExt, Template};
    /// let sh = Template::new("sh").replies(Sentinel::new("echo {mark}"));
    /// let replies = ["seq 2", ":"].into_iter().feed_subprocesses_ordered(sh, 1, 8);
    /// assert_eq!(replies.collect::<Result<Vec<_>, _>>().unwrap(), ["1\n2\n", ""]);
    /// ```
    #[must_use]
    pub fn replies(mut self, framing: impl Into<ReplyFraming>) -> Self {
        self.spec.replies = framing.into();
        self
    }

    /// The largest reply, in bytes. Default: 64 MiB. A larger reply is an `Err` of kind
    /// [`ErrorKind::Reply`](crate::ErrorKind::Reply) at its position, and its worker is started again.
    ///
    /// ```
    /// use subfeed::{ErrorKind, FeedExt, Template};
    /// let template = Template::new("cat").reply_limit(8);
    /// let mut feed = ["far too long", "short"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap().unwrap_err().kind(), ErrorKind::Reply);
    /// assert_eq!(feed.next().unwrap()?, "short");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn reply_limit(mut self, bytes: usize) -> Self {
        self.spec.policy.reply_limit = bytes;
        self
    }

    /// Compares each reply with its request before it is delivered, for example to notice at once that a tool skipped a
    /// record.
    ///
    /// The closure gets the request as it was written, framing included, and the reply. If it returns an error, the packet
    /// is an `Err` of kind [`ErrorKind::Check`](crate::ErrorKind::Check), the session is ended, and the packets after it
    /// are sent again. If it panics, `next()` panics.
    ///
    /// It runs on the event loop's thread, so it must be quick. While it runs, the feed reads and writes no worker and
    /// delivers no reply, and a drop waits for it. It must not wait for the consumer of the feed.
    ///
    /// ```
    /// use subfeed::{ErrorKind, FeedExt, Template};
    /// // Each reply must begin with the number in its request.
    /// let template = Template::shell("while read -r n; do [ $n = 2 ] && echo nonsense || echo $n ok; done")
    ///     .check(|request, reply| match reply.starts_with(request.trim_ascii_end()) {
    ///         true => Ok(()),
    ///         false => Err("it is the reply to something else".into()),
    ///     });
    /// let mut feed = ["1", "2", "3"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "1 ok");
    /// assert_eq!(feed.next().unwrap().unwrap_err().kind(), ErrorKind::Check);
    /// assert_eq!(feed.next().unwrap()?, "3 ok");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn check(
        mut self,
        check: impl Fn(&[u8], &[u8]) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.spec.check = Some(Arc::new(check));
        self
    }

    /// Which exit codes make the output of a process a reply, for
    /// [`ReplyFraming::until_eof`](crate::framing::ReplyFraming::until_eof), and which are a good end in a
    /// [drain](crate::FeedBuilder::drain), with any framing. Default: only 0.
    ///
    /// `grep`, `diff` and most linters exit with 1 if they have found something. The closure gets the exit code and runs
    /// on the event loop's thread. A process that was ended by a signal has no code and is never accepted. With other
    /// framings, except in a drain, this is a configuration error.
    ///
    /// ```
    /// use subfeed::framing::{ReplyFraming, RequestFraming};
    /// use subfeed::{FeedExt, Template};
    /// let grep = Template::new("grep")
    ///     .args(["-c", "x"])
    ///     .requests(RequestFraming::raw())
    ///     .replies(ReplyFraming::until_eof())
    ///     .accept_status(|code| code <= 1);
    /// let counts = ["x\nx\n", "y\n"].into_iter().feed_subprocesses_ordered(grep, 2, 8);
    /// assert_eq!(counts.collect::<Result<Vec<_>, _>>()?, ["2\n", "0\n"]);
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn accept_status(mut self, accept: impl Fn(i32) -> bool + Send + Sync + 'static) -> Self {
        self.spec.accept_status = Some(AcceptStatus(Arc::new(accept)));
        self
    }

    /// Turns an item of any type into a request: the closure pushes bytes to the [`Request`].
    ///
    /// It runs on the thread that pulls the source. If it panics, `next()` panics at the position of the item, and the
    /// feed ends. For a closure that may fail, use [`try_encode`](Template::try_encode).
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::new("cat").encode(|n: &u32, request| request.push(n.to_string()));
    /// let back: Result<Vec<_>, _> = (1u32..4).feed_subprocesses_ordered(template, 2, 8).collect();
    /// assert_eq!(back.unwrap(), ["1", "2", "3"]);
    /// ```
    #[must_use]
    pub fn encode<T: ?Sized, F>(self, f: F) -> Template<EncodeFn<T, F>, D>
    where
        F: FnMut(&T, &mut Request<'_>) + Send,
    {
        let spec = Spec { is_encoded: true, ..self.spec };
        Template { spec, encode: EncodeFn::new(f), decode: self.decode }
    }

    /// [`encode`](Template::encode) with a closure that may fail. `?` and `.into()` convert any error, and any text, into
    /// a [`BoxError`].
    ///
    /// If it fails, the item is an `Err` of kind [`ErrorKind::Encode`](crate::ErrorKind::Encode) at its position, with the
    /// returned error as its [cause](crate::Error::cause). Nothing is written for the item, and iteration goes on.
    ///
    /// ```
    /// use subfeed::{ErrorKind, FeedExt, Template};
    /// let template = Template::new("cat").try_encode(|text: &&str, request| {
    ///     let n: u32 = text.trim().parse()?;
    ///     request.push(n.to_string());
    ///     Ok(())
    /// });
    /// let items = [" 1", "two"].into_iter().feed_subprocesses_ordered(template, 2, 8);
    /// let items: Vec<_> = items.collect();
    /// assert_eq!(items[0].as_ref().unwrap(), "1");
    /// assert_eq!(items[1].as_ref().unwrap_err().kind(), ErrorKind::Encode);
    /// ```
    #[must_use]
    pub fn try_encode<T: ?Sized, F>(self, f: F) -> Template<TryEncodeFn<T, F>, D>
    where
        F: FnMut(&T, &mut Request<'_>) -> Result<(), BoxError> + Send,
    {
        let spec = Spec { is_encoded: true, ..self.spec };
        Template { spec, encode: TryEncodeFn::new(f), decode: self.decode }
    }

    /// Turns each reply into a value. The closure runs in `next()`, on the consumer's thread.
    ///
    /// For a closure that may fail, use [`try_decode`](Template::try_decode).
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let lengths = Template::new("cat").decode(|reply| reply.len());
    /// let lengths: Result<Vec<usize>, _> =
    ///     ["one", "three"].into_iter().feed_subprocesses_ordered(lengths, 2, 8).collect();
    /// assert_eq!(lengths.unwrap(), [3, 5]);
    /// ```
    #[must_use]
    pub fn decode<O, F>(self, f: F) -> Template<E, DecodeFn<F>>
    where
        F: FnMut(Reply<'_>) -> O + Send,
    {
        Template { spec: self.spec, encode: self.encode, decode: DecodeFn(f) }
    }

    /// [`decode`](Template::decode) with a closure that may fail. `?` and `.into()` convert any error, and any text, into
    /// a [`BoxError`].
    ///
    /// If it fails, the item is an `Err` of kind [`ErrorKind::Decode`](crate::ErrorKind::Decode) at its position, with the
    /// request, and with the returned error as its [cause](crate::Error::cause). Iteration goes on.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let numbers = Template::new("cat").try_decode(|reply| Ok(reply.to_str()?.parse::<i64>()?));
    /// let mut feed = ["7", "x"].into_iter().feed_subprocesses_ordered(numbers, 2, 8);
    /// assert_eq!(feed.next().unwrap().unwrap(), 7);
    /// let error = feed.next().unwrap().unwrap_err();
    /// assert_eq!(error.request().unwrap(), "x\n");
    /// ```
    #[must_use]
    pub fn try_decode<O, F>(self, f: F) -> Template<E, TryDecodeFn<F>>
    where
        F: FnMut(Reply<'_>) -> Result<O, BoxError> + Send,
    {
        Template { spec: self.spec, encode: self.encode, decode: TryDecodeFn(f) }
    }

    /// Returns each reply as a [`String`]. A reply that is not UTF-8 is an `Err` of kind
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) at its position.
    ///
    /// By default a reply is a [`BString`](crate::BString): any bytes, which print like text and compare with `&str`.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::new("cat").text();
    /// let names: Vec<String> =
    ///     ["Ada", "Zo\u{eb}"].into_iter().feed_subprocesses_ordered(template, 2, 8).collect::<Result<_, _>>()?;
    /// assert_eq!(names.join(" and "), "Ada and Zo\u{eb}");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[doc(alias = "as_str")]
    #[doc(alias = "to_str")]
    #[doc(alias = "utf8")]
    #[doc(alias = "String")]
    #[must_use]
    pub fn text(self) -> Template<E, Text> {
        Template { spec: self.spec, encode: self.encode, decode: Text }
    }
}

impl<E, D> fmt::Debug for Template<E, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template")
            .field("command", &OsString::from(self.spec.command.display()))
            .field("requests", &self.spec.requests)
            .field("replies", &self.spec.replies)
            .finish_non_exhaustive()
    }
}
