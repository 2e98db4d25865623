//! Starting workers by way of another program: `nice`, `ssh`, `srun`, `podman exec`.
//!
//! What a launcher is has no I/O in it: a prefix of words, and how the words of the tool, its environment and its
//! directory get through. What is run in the end is made here, for one worker at a time, out of the template and
//! the worker's [seat](seats).

mod nodes;
pub(crate) mod script;
pub(crate) mod seats;
pub(crate) mod words;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use itertools::Itertools;

use crate::error::Error;
use crate::template::channel::Stream;
use crate::template::command::{CommandLine, Tokens, Word, quote, replace};
use crate::template::{Spec, Template};

use script::Setting;
use seats::Seat;

/// The word in whose place [`Carry::Flags`] are put.
const FLAGS: &str = "{flags}";

/// How long a launcher may take to say hello before it is given up.
const CONNECT: Duration = Duration::from_secs(30);

/// How long a far worker that owes replies may be silent, at least, before it is looked at.
const SILENCE: Duration = Duration::from_secs(10);

/// How many connections to one host may be under way that are not established yet. The default of sshd is to
/// refuse at random from ten on.
const AT_ONCE: usize = 8;

/// How far apart the starts on one host are.
const APART: Duration = Duration::from_millis(5);

/// How much work waits in a step, in time: more than twice the 44 ms for which Slurm 22.05 holds back what it has, so
/// that from turn to turn more is under way, until nothing is held back.
const SRUN_TURN: Duration = Duration::from_millis(100);

/// Workers that share one connection. The default of sshd is ten sessions.
pub(crate) const WORKERS_A_CONNECTION: usize = 8;

/// How the words of a command reach the place where they are run; for [`Launcher::quoting`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Quoting {
    /// They arrive unchanged, one by one, as with `srun`, `docker exec` and `kubectl exec`.
    Verbatim,
    /// They are joined, and a shell on the other side splits them, as with `ssh`. They are sent as one word, which sh, bash,
    /// zsh, fish and tcsh all understand in the same way.
    Shell,
}

/// How the environment and the directory of a template reach the tool; for [`Launcher::carry`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Carry {
    /// The `sh` that the launcher starts sets them. Variables are sent on the worker's stdin, so that no list of processes
    /// shows them.
    Script,
    /// The launcher process gets them and passes them on.
    Inherited,
    /// As arguments of the launcher: `-e NAME=VALUE`, `-w DIR`. They replace the word `{flags}` of
    /// [`Launcher::remote`], or follow its last word.
    Flags {
        /// The flag before each `NAME=VALUE`.
        environment: OsString,
        /// The flag before the directory.
        directory: OsString,
    },
}

/// A machine on which workers run, and its share of them.
///
/// The name `:` is this machine, as in GNU parallel: its workers run without a launcher.
///
/// ```
/// use subfeed::{Host, Launcher};
/// let launcher = Launcher::ssh([Host::new("node1").weight(8), Host::new("node2").weight(4), Host::local()]);
/// assert_eq!(launcher.slots(), 13);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    name: String,
    weight: u32,
}

impl Host {
    /// A machine with the name that the launcher understands: for ssh an alias of `~/.ssh/config` or `user@address`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), weight: 1 }
    }

    /// This machine, without a launcher.
    #[must_use]
    pub fn local() -> Self {
        Self::new(":")
    }

    /// Its share of the workers relative to the other hosts. Default: 1. Zero is a configuration error.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    fn is_local(&self) -> bool {
        self.name == ":"
    }
}

impl From<&str> for Host {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for Host {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

impl From<&String> for Host {
    fn from(name: &String) -> Self {
        Self::new(name.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// Words before the command, on this machine.
    Prefix(Vec<OsString>),
    Ssh,
    Srun,
    Podman(OsString),
    /// Words before the command, which lead to another machine or into a container.
    Remote(Vec<OsString>),
}

/// Another program that starts the workers, here or on other machines; given to [`Template::via`].
///
/// | launcher | for |
/// |---|---|
/// | [`prefix`](Launcher::prefix) | programs on this machine that run another: `nice`, `taskset`, `prlimit`, `bwrap` |
/// | [`ssh`](Launcher::ssh) | other machines |
/// | [`srun`](Launcher::srun) | the nodes of a Slurm allocation |
/// | [`podman_exec`](Launcher::podman_exec) | a running container |
/// | [`remote`](Launcher::remote) | any other program that takes a command: docker, kubectl, sudo |
///
/// All but `prefix` are *remote*: this crate cannot see what the tool is doing. So a `sh` on the other side prints a hello
/// before the tool starts, and a goodbye with the tool's exit status when it has ended. Output of a login before the hello
/// is skipped, and a stream that breaks off is noticed. Nothing is installed on the other side, and this crate opens no
/// port there.
///
/// If a host fails, no packet fails: the host is tried again after a growing pause, and its packets go to other hosts at
/// once, without using an attempt. See the page `docs/machines.md`.
#[derive(Clone)]
pub struct Launcher {
    form: Form,
    hosts: Vec<Host>,
    options: Vec<OsString>,
    config_file: Option<PathBuf>,
    quoting: Quoting,
    carry: Carry,
    kill_with: Option<Vec<OsString>>,
    at_once: usize,
    apart: Duration,
    least_in_flight: u64,
    turn: Duration,
    silence: Option<Duration>,
    connect: Option<Duration>,
    bare: bool,
}

impl Launcher {
    fn new(form: Form) -> Self {
        Self {
            form,
            hosts: Vec::new(),
            options: Vec::new(),
            config_file: None,
            quoting: Quoting::Verbatim,
            carry: Carry::Script,
            kill_with: None,
            at_once: AT_ONCE,
            apart: APART,
            least_in_flight: 1,
            turn: Duration::ZERO,
            silence: Some(SILENCE),
            connect: Some(CONNECT),
            bare: false,
        }
    }

    /// A program on this machine that runs another: these words come before those of the command. Tokens in them are
    /// replaced.
    ///
    /// ```
    /// use subfeed::{FeedExt, Launcher, Template};
    /// let template = Template::new("cat").via(Launcher::prefix(["nice", "-n", "5"]));
    /// let mut feed = ["x"].into_iter().feed_subprocesses_ordered(template, 1, 1);
    /// assert_eq!(feed.next().unwrap().unwrap(), "x");
    /// ```
    #[must_use]
    pub fn prefix<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Self {
        Self::new(Form::Prefix(owned(words)))
    }

    /// Other machines, through the program `ssh`, with its own configuration: keys, agents, jump hosts, `~/.ssh/config`.
    /// It must be able to connect without a question (`BatchMode`).
    ///
    /// Workers share connections, eight to each. [`option`](Launcher::option) adds an option in the form of ssh's
    /// configuration file.
    #[must_use]
    pub fn ssh<H: Into<Host>>(hosts: impl IntoIterator<Item = H>) -> Self {
        Self { quoting: Quoting::Shell, ..Self::new(Form::Ssh) }.hosts(hosts)
    }

    /// The nodes of the Slurm allocation in which this program runs (`salloc`, `sbatch`), each weighted by the number of its
    /// processors. Outside an allocation it is a configuration error.
    ///
    /// Each worker is a separate step: `srun -u --exact --overlap -n1 -N1 -w NODE`. A worker has at least 32 packets at a
    /// time if there are that many, and at least as many as it answers in 100 ms, because Slurm 22.05 delays small
    /// amounts of output by 44 ms.
    #[must_use]
    pub fn srun() -> Self {
        Self { least_in_flight: 32, turn: SRUN_TURN, ..Self::new(Form::Srun) }
    }

    /// A running podman container, by name or id.
    #[must_use]
    pub fn podman_exec(container: impl AsRef<OsStr>) -> Self {
        Self::new(Form::Podman(container.as_ref().to_owned()))
    }

    /// Any other program that runs a command somewhere else: these words come before those of the command. `{host}`,
    /// `{slot}` and `{id}` in them are replaced.
    ///
    /// ```
    /// use subfeed::Launcher;
    /// let docker = Launcher::remote(["docker", "exec", "-i", "{host}"]).hosts(["box1", "box2"]);
    /// # let _ = docker;
    /// ```
    #[must_use]
    pub fn remote<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Self {
        Self::new(Form::Remote(owned(words)))
    }

    /// The hosts that share the workers, by weight. The name of each replaces `{host}`.
    #[must_use]
    pub fn hosts<H: Into<Host>>(mut self, hosts: impl IntoIterator<Item = H>) -> Self {
        self.hosts = hosts.into_iter().map(Into::into).collect();
        self
    }

    /// The configuration file of `ssh`, instead of `~/.ssh/config`. Only for ssh.
    #[must_use]
    pub fn config_file(mut self, path: impl AsRef<Path>) -> Self {
        self.config_file = Some(path.as_ref().to_owned());
        self
    }

    /// One more option for the launcher. For ssh in the form of its configuration file, such as `Port=2222`; it has
    /// precedence over this crate's own options. For `srun` and `podman exec` an argument, such as `--jobid=7`.
    #[must_use]
    pub fn option(mut self, option: impl AsRef<OsStr>) -> Self {
        self.options.push(option.as_ref().to_owned());
        self
    }

    /// How words reach the other side. Default: [`Quoting::Verbatim`]; for ssh [`Quoting::Shell`].
    #[must_use]
    pub fn quoting(mut self, quoting: Quoting) -> Self {
        self.quoting = quoting;
        self
    }

    /// How environment and directory reach the other side. Default: [`Carry::Script`].
    #[must_use]
    pub fn carry(mut self, carry: Carry) -> Self {
        self.carry = carry;
        self
    }

    /// A command, run on this machine, that ends a worker after its launcher had to be killed. `{pid}` is replaced by the
    /// pid of the worker on its machine; `{host}`, `{slot}` and `{id}` are replaced as usual.
    ///
    /// By default a `sh` is run through the same launcher, which kills the process group of that pid if it is still the
    /// worker.
    #[must_use]
    pub fn kill_with<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.kill_with = Some(owned(words));
        self
    }

    /// How many connections to one host may be being established at a time, and the pause between their starts. Default: 8
    /// and 5 ms. Zero connections are a configuration error.
    #[must_use]
    pub fn starts(mut self, at_once: usize, apart: Duration) -> Self {
        self.at_once = at_once;
        self.apart = apart;
        self
    }

    /// The least number of packets that a worker is given at a time once it has answered, for connections that are slow for
    /// small amounts of data. Default: 1. A smaller [`in_flight`](Template::in_flight) of the template has precedence.
    #[must_use]
    pub fn least_in_flight(mut self, packets: u64) -> Self {
        self.least_in_flight = packets;
        self
    }

    /// How long a worker that owes replies may be silent before a second session through the same launcher looks at it.
    /// The limit is this time, or 20 times the feed's median answer time if that is longer. Default: 10 s. `None`: never.
    ///
    /// If the worker has gone, or cannot be looked at within 10 s, it is given up, and its packets go to other workers. If it
    /// still runs, it is left alone; [`packet_timeout`](Template::packet_timeout) limits slow work.
    #[must_use]
    pub fn silence(mut self, least: impl Into<Option<Duration>>) -> Self {
        self.silence = least.into();
        self
    }

    /// How long a host may take from the start of a worker to its hello. Default: 30 s. `None`: no limit. Zero is a
    /// configuration error.
    #[must_use]
    pub fn connect_within(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.connect = limit.into();
        self
    }

    /// Does not use a `sh` on the other side, for machines and containers that have none.
    ///
    /// Then there is no hello and no goodbye. The output of a login is taken for replies. A connection that breaks off
    /// looks like a tool that ends, and uses attempts of packets. The exit status is that of the launcher. A silent worker
    /// is not looked at. A process that survives its launcher is killed only by [`kill_with`](Launcher::kill_with), without
    /// `{pid}`. To set environment or directory, choose another [`carry`](Launcher::carry).
    #[must_use]
    pub fn bare(mut self) -> Self {
        self.bare = true;
        self
    }

    /// The sum of the weights of the hosts, which is a good number of workers. For `srun`, the processors of the allocation.
    /// 0 if no hosts are named.
    ///
    /// ```
    /// use subfeed::Launcher;
    /// assert_eq!(Launcher::ssh(["node1", "node2", ":"]).slots(), 3);
    /// ```
    #[must_use]
    pub fn slots(&self) -> usize {
        let hosts = self.all_hosts().unwrap_or_default();
        hosts.iter().map(|host| host.weight as usize).sum()
    }

    fn is_remote(&self) -> bool {
        !matches!(self.form, Form::Prefix(_))
    }

    /// For messages: the words of a prefix.
    pub(crate) fn display(&self) -> Option<String> {
        match &self.form {
            Form::Prefix(words) => Some(words.iter().map(|word| quote(word)).join(" ")),
            _ => None,
        }
    }

    fn all_hosts(&self) -> Result<Vec<Host>, Error> {
        if self.form == Form::Srun && self.hosts.is_empty() {
            let get = |name: &str| std::env::var(name).ok();
            return nodes_of(get("SLURM_JOB_NODELIST"), get("SLURM_JOB_CPUS_PER_NODE"));
        }
        Ok(self.hosts.clone())
    }

    /// What it is called where no host is named.
    fn name(&self) -> String {
        match &self.form {
            Form::Podman(container) => container.to_string_lossy().into_owned(),
            Form::Prefix(words) | Form::Remote(words) => {
                words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default()
            }
            Form::Ssh => "ssh".to_owned(),
            Form::Srun => "srun".to_owned(),
        }
    }

    fn validate(&self) -> Result<(), Error> {
        let words = match &self.form {
            Form::Prefix(words) | Form::Remote(words) => Some(words),
            Form::Podman(container) if container.is_empty() => {
                return Err(Error::config("podman_exec names no container"));
            }
            _ => None,
        };
        if words.is_some_and(|words| words.first().is_none_or(|word| word.is_empty())) {
            return Err(Error::config("a launcher without a word has nothing to run"));
        }
        let container = match &self.form {
            Form::Podman(container) => Some(container),
            _ => None,
        };
        let kill = self.kill_with.iter().flatten();
        let mut all = words.into_iter().flatten().chain(&self.options).chain(container).chain(kill);
        if all.any(|word| word.as_bytes().contains(&0)) {
            return Err(Error::config("a word of the launcher contains a NUL byte"));
        }
        if self.kill_with.as_ref().is_some_and(|words| words.first().is_none_or(|it| it.is_empty()))
        {
            return Err(Error::config("kill_with names no program"));
        }
        if container.is_some_and(|container| container.as_bytes().starts_with(b"-")) {
            return Err(Error::config(
                "a container whose name begins with `-` is taken for an option",
            ));
        }
        if self.config_file.is_some() && self.form != Form::Ssh {
            return Err(Error::config("config_file is for ssh alone"));
        }
        if !self.options.is_empty() && words.is_some() {
            return Err(Error::config("option is for ssh, srun and podman_exec")
                .hint("where the words are yours, the option is one of them"));
        }
        if self.at_once == 0 {
            return Err(Error::config("0 starts at once would start nothing"));
        }
        if self.least_in_flight == 0 {
            return Err(Error::config("least_in_flight is 0, and the least is 1"));
        }
        for (setting, limit) in [("connect_within", self.connect), ("silence", self.silence)] {
            if limit == Some(Duration::ZERO) {
                return Err(Error::config(format!("Launcher::{setting} is zero"))
                    .hint("give None where there is to be no limit"));
            }
        }
        if !self.is_remote() && (self.bare || !self.hosts.is_empty()) {
            return Err(Error::config(
                "a prefix runs on this machine: it has no hosts, and nothing that bare leaves out",
            )
            .hint("use Launcher::remote for a program that leads somewhere else"));
        }
        if self.form == Form::Ssh && self.hosts.is_empty() {
            return Err(Error::config("Launcher::ssh has no host"));
        }
        let hosts = self.all_hosts()?;
        for (i, Host { name, weight }) in hosts.iter().enumerate() {
            let bad = |byte: &u8| byte.is_ascii_whitespace() || byte.is_ascii_control();
            if name.is_empty() || name.starts_with('-') || name.as_bytes().iter().any(bad) {
                return Err(Error::config(format!("{name:?} cannot be the name of a host"))
                    .hint("a name is not empty, has no white space, and does not begin with `-`"));
            }
            if *weight == 0 {
                return Err(Error::config(format!("the host {name} has weight 0"))
                    .hint("leave out a host that is to have no worker"));
            }
            if hosts[..i].iter().any(|other| other.name == *name) {
                return Err(Error::config(format!("the host {name} is listed twice"))
                    .hint("give it a weight: Host::new(name).weight(2)"));
            }
        }
        Ok(())
    }

    /// The words that run these words by way of it.
    fn wrap(
        &self,
        seat: &Seat,
        sockets: Option<&Path>,
        flags: Vec<OsString>,
        words: Vec<OsString>,
    ) -> Vec<OsString> {
        let tokens = Tokens::of(seat);
        let resolve = |word: &OsString| replace(word, &tokens, |_| None);
        let words = match self.quoting {
            Quoting::Verbatim => words,
            Quoting::Shell => vec![words::for_any_shell(&words)],
        };
        let mut all: Vec<OsString> = Vec::new();
        match &self.form {
            Form::Prefix(prefix) | Form::Remote(prefix) => {
                let at = prefix.iter().position(|word| word == FLAGS).unwrap_or(prefix.len());
                all.extend(prefix[..at].iter().map(resolve));
                all.extend(flags);
                all.extend(prefix[at..].iter().skip(1).map(resolve));
            }
            Form::Podman(container) => {
                all.extend(["podman", "exec", "-i"].map(Into::into));
                all.extend(self.options.iter().map(resolve));
                all.extend(flags);
                all.push(resolve(container));
            }
            Form::Srun => {
                let fixed = ["srun", "-u", "--exact", "--overlap", "-n1", "-N1", "-X"];
                all.extend(fixed.map(Into::into));
                all.extend(self.options.iter().map(resolve));
                all.extend(["-w".into(), seat.host_name().into()]);
                all.extend(flags);
            }
            Form::Ssh => {
                all.extend(self.ssh_words(seat, sockets));
                all.extend(["--".into(), seat.host_name().into()]);
            }
        }
        all.extend(words);
        all
    }

    /// The words of `ssh` up to the host.
    fn ssh_words(&self, seat: &Seat, sockets: Option<&Path>) -> Vec<OsString> {
        let mut all: Vec<OsString> = ["ssh", "-T"].map(Into::into).into();
        if let Some(path) = &self.config_file {
            all.extend(["-F".into(), path.into()]);
        }
        let tokens = Tokens::of(seat);
        for option in &self.options {
            all.extend(["-o".into(), replace(option, &tokens, |_| None)]);
        }
        for option in [
            "EscapeChar=none",
            "BatchMode=yes",
            "ConnectTimeout=10",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=3",
            "RemoteCommand=none",
            "ClearAllForwardings=yes",
            "ForwardX11=no",
        ] {
            all.extend(["-o".into(), option.into()]);
        }
        if let Some(path) = sockets.and_then(|dir| socket(dir, seat)) {
            let mut path_option = OsString::from("ControlPath=");
            // A `%` would be a token of ssh's.
            path_option.push(path.to_string_lossy().replace('%', "%%"));
            let control = ["ControlMaster=auto".into(), path_option, "ControlPersist=10".into()];
            all.extend(control.into_iter().flat_map(|option: OsString| ["-o".into(), option]));
        }
        all
    }
}

fn owned<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Vec<OsString> {
    words.into_iter().map(|word| word.as_ref().to_owned()).collect()
}

/// The socket of the connection that a worker shares.
fn socket(dir: &Path, seat: &Seat) -> Option<PathBuf> {
    let (host, _) = seat.host.as_ref()?;
    Some(dir.join(format!("{host}-{}", seat.slot / WORKERS_A_CONNECTION)))
}

/// The nodes of an allocation as hosts.
fn nodes_of(list: Option<String>, processors: Option<String>) -> Result<Vec<Host>, Error> {
    let Some(list) = list.filter(|list| !list.is_empty()) else {
        return Err(Error::config(
            "Launcher::srun is for inside a Slurm allocation, and there is none (SLURM_JOB_NODELIST is not set)",
        )
        .hint("run the program under salloc, or in a script for sbatch"));
    };
    let Some(names) = nodes::expand(&list) else {
        return Err(Error::config(format!("SLURM_JOB_NODELIST is no list of nodes: {list:?}"))
            .hint("name the nodes with Launcher::hosts"));
    };
    let processors = processors.and_then(|list| nodes::processors(&list)).unwrap_or_default();
    let weight = |i: usize| processors.get(i).copied().unwrap_or(1).max(1);
    let hosts = names.into_iter().enumerate();
    Ok(hosts.map(|(i, name)| Host { weight: weight(i), name }).collect())
}

impl fmt::Debug for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launcher")
            .field("form", &self.form)
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

impl From<&Launcher> for Launcher {
    fn from(launcher: &Launcher) -> Self {
        launcher.clone()
    }
}

/// Where the workers of one feed run.
#[derive(Debug)]
pub(crate) struct Launch {
    hosts: Vec<(Arc<str>, bool)>,
    seats: Vec<(usize, usize)>,
    /// What is said before hello and goodbye is different in each feed.
    mark: Arc<str>,
}

impl Launch {
    /// The hosts, and whether each is another machine than this.
    pub(crate) fn hosts(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, bool)> {
        self.hosts.iter().map(|(name, far)| (name, *far))
    }

    /// The host of a worker, and its number there.
    pub(crate) fn seat(&self, id: usize) -> (usize, usize) {
        self.seats[id]
    }

    /// What stands before hello and goodbye.
    pub(crate) fn mark(&self) -> &Arc<str> {
        &self.mark
    }

    /// The hosts that got no worker, if there are any.
    pub(crate) fn idle(&self) -> Option<String> {
        let has_none = |host: &usize| self.seats.iter().all(|(used, _)| used != host);
        let mut idle = (0..self.hosts.len()).filter(has_none).peekable();
        idle.peek()?;
        Some(idle.map(|host| &self.hosts[host].0).join(", "))
    }
}

/// How a session behind a launcher is told from its noise, and how long it may be silent.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) host: Arc<str>,
    /// `None` for one that is bare.
    pub(crate) mark: Option<Arc<str>>,
    /// Hello and goodbye come on stderr.
    pub(crate) on_stderr: bool,
    pub(crate) connect: Option<Duration>,
    pub(crate) silence: Option<Duration>,
    pub(crate) least_in_flight: u64,
    /// How much work, in time, hides the delays of the way there.
    pub(crate) turn: Duration,
    /// What is written before the template's own preamble.
    pub(crate) line: Option<Arc<[u8]>>,
}

/// How many workers may be starting on one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StartGate {
    pub(crate) at_once: usize,
    pub(crate) apart: Duration,
    /// Workers that share a connection: the first of them makes it.
    pub(crate) shared_by: Option<usize>,
}

impl Spec {
    /// Whether some launcher leads away from here.
    fn is_remote(&self) -> bool {
        self.launchers.iter().any(Launcher::is_remote)
    }

    /// The launcher that names the hosts.
    fn host_launcher(&self) -> Option<&Launcher> {
        self.launchers
            .iter()
            .find(|launcher| !launcher.hosts.is_empty() || launcher.form == Form::Srun)
    }

    fn outermost(&self) -> Option<&Launcher> {
        self.launchers.iter().rev().find(|launcher| launcher.is_remote())
    }

    fn is_bare(&self) -> bool {
        self.launchers.iter().any(|launcher| launcher.bare)
    }

    /// Whether hello and goodbye come on stderr.
    fn greets_on_stderr(&self) -> bool {
        !matches!(self.channels.stdout, Stream::Pipe)
    }

    /// Whether workers share connections of ssh's, so that there is a folder for their sockets.
    pub(crate) fn shares_connections(&self) -> bool {
        let asks = |option: &OsString| {
            option.as_bytes().to_ascii_lowercase().starts_with(b"controlmaster=no")
        };
        self.launchers
            .iter()
            .any(|launcher| launcher.form == Form::Ssh && !launcher.options.iter().any(asks))
    }

    /// What can be known to be wrong with the launchers.
    pub(crate) fn validate_launchers(&self) -> Result<(), Error> {
        for launcher in &self.launchers {
            launcher.validate()?;
        }
        let with_hosts =
            |launcher: &&Launcher| !launcher.hosts.is_empty() || launcher.form == Form::Srun;
        if self.launchers.iter().filter(with_hosts).count() > 1 {
            return Err(Error::config("two launchers name hosts, and a worker runs on one")
                .hint("name the hosts with one of them, and have the others use {host}"));
        }
        if !self.is_remote() {
            return Ok(());
        }
        let because = "and a launcher passes stdin, stdout and stderr on, nothing else";
        let refused = if !matches!(self.channels.stdin, Stream::Pipe) {
            Some(
                "stdin is redirected, and a launcher's is the connection that this side ends to end the tool"
                    .to_owned(),
            )
        } else if !self.channels.side_inputs.is_empty() || !self.channels.side_outputs.is_empty() {
            Some(format!("a side channel is a pipe that the worker inherits, {because}"))
        } else if self.channels.pty {
            Some(format!(
                "line_buffered(Pty) makes a terminal of this machine of the launcher's stdout, not of the tool's, {because}"
            ))
        } else if self.policy.kill_with_parent {
            Some(
                "kill_with_parent would have the kernel kill the launcher alone, and leave the tool on its machine"
                    .to_owned(),
            )
        } else {
            None
        };
        if let Some(message) = refused {
            return Err(
                Error::config(message).hint("leave it out, or run the tool on this machine")
            );
        }
        self.validate_greeting()
    }

    fn validate_greeting(&self) -> Result<(), Error> {
        let line = &self.command;
        let is_set = line.env_clear || !line.envs.is_empty() || line.dir.is_some();
        let by_script = self.launchers.iter().all(|launcher| launcher.carry == Carry::Script);
        if self.is_bare() {
            if is_set && by_script {
                return Err(Error::config(
                    "bare leaves out the sh that sets the environment and the directory on the far side",
                )
                .hint("say how they get there with Launcher::carry"));
            }
            return Ok(());
        }
        if self.greets_on_stderr() && !matches!(self.channels.stderr, Stream::Pipe) {
            return Err(Error::config(
                "stdout and stderr both lead elsewhere, so nothing can tell when the worker has started, and how it ended",
            )
            .hint("leave one of them to us, or do without: Launcher::bare"));
        }
        if !by_script {
            return Ok(());
        }
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        for (name, value) in &line.envs {
            let bytes = name.as_bytes();
            if !bytes.iter().all(word) || bytes[0].is_ascii_digit() {
                return Err(Error::config(format!(
                    "no shell can set the environment variable {name:?} on the far side"
                ))
                .hint("use letters, digits and underscores, or Launcher::carry"));
            }
            let secret = matches!(value, Some(Word::Secret(_)));
            if secret && !matches!(self.channels.stdin, Stream::Pipe) {
                return Err(Error::config(format!(
                    "the secret variable {name:?} would go over the worker's stdin, which comes from elsewhere"
                )));
            }
        }
        Ok(())
    }

    /// Decides where so many workers run, and draws what is new in each feed.
    pub(crate) fn seat(&mut self, workers: usize) -> Result<(), Error> {
        let Some(outermost) = self.outermost() else { return Ok(()) };
        let hosts = match self.host_launcher() {
            Some(launcher) => launcher.all_hosts()?,
            None => vec![Host::new(outermost.name())],
        };
        let weights: Vec<u32> = hosts.iter().map(|host| host.weight).collect();
        let launch = Launch {
            seats: seats::deal(&seats::share(workers, &weights)),
            hosts: hosts
                .into_iter()
                .map(|host| (host.name.as_str().into(), !host.is_local()))
                .collect(),
            mark: script::fresh_mark(),
        };
        self.launch = Some(Arc::new(launch));
        Ok(())
    }

    /// Where a worker runs.
    pub(crate) fn seat_of(&self, id: usize) -> Seat {
        let Some(launch) = &self.launch else { return Seat::here(id) };
        let (host, slot) = launch.seats[id];
        let (name, elsewhere) = &launch.hosts[host];
        let far = self.launchers.iter().any(|launcher| self.leads_away(launcher, *elsewhere));
        let host = elsewhere.then(|| (host, Arc::clone(name)));
        Seat { id, slot, host, far }
    }

    /// Whether this launcher leads away from here, for a worker whose host is another one or this.
    fn leads_away(&self, launcher: &Launcher, elsewhere: bool) -> bool {
        let names_hosts = self.host_launcher().is_some_and(|it| std::ptr::eq(it, launcher));
        launcher.is_remote() && (elsewhere || !names_hosts)
    }

    /// How the session of a worker behind a launcher is heard.
    pub(crate) fn link(&self, seat: &Seat) -> Option<Link> {
        let launch = self.launch.as_ref().filter(|_| seat.far)?;
        let outermost = self.outermost()?;
        let least = self.launchers.iter().map(|launcher| launcher.least_in_flight).max();
        Some(Link {
            host: seat.host_name().into(),
            mark: (!self.is_bare()).then(|| Arc::clone(&launch.mark)),
            on_stderr: self.greets_on_stderr(),
            connect: outermost.connect,
            silence: outermost.silence,
            least_in_flight: least.unwrap_or(1),
            turn: self.launchers.iter().map(|launcher| launcher.turn).max().unwrap_or_default(),
            line: self.setting(seat).line().map(Into::into),
        })
    }

    /// How workers are started on each host.
    pub(crate) fn start_gate(&self) -> StartGate {
        let outermost = self.outermost();
        StartGate {
            at_once: outermost.map_or(AT_ONCE, |launcher| launcher.at_once),
            apart: outermost.map_or(APART, |launcher| launcher.apart),
            shared_by: self.shares_connections().then_some(WORKERS_A_CONNECTION),
        }
    }

    /// What the script sets on the far side.
    fn setting(&self, seat: &Seat) -> Setting<'_> {
        if self.launchers.iter().any(|launcher| launcher.carry != Carry::Script) {
            return Setting { on_stderr: self.greets_on_stderr(), ..Setting::default() };
        }
        Setting {
            clear: self.command.env_clear,
            variables: self.command.variables(&Tokens::of(seat)),
            dir: self.command.directory(&Tokens::of(seat)),
            on_stderr: self.greets_on_stderr(),
            on_stdin: matches!(self.channels.stdin, Stream::Pipe),
        }
    }

    /// Whether the program that we start gets the environment and the directory of the template.
    pub(crate) fn sets_surroundings(&self, seat: &Seat) -> bool {
        !seat.far || self.launchers.iter().any(|launcher| launcher.carry == Carry::Inherited)
    }

    /// The words of the program that we start, for the tool with these words.
    pub(crate) fn launched(
        &self,
        seat: &Seat,
        sockets: Option<&Path>,
        tool: Vec<OsString>,
    ) -> Vec<OsString> {
        let mut words = tool;
        let mut inside = true;
        let elsewhere = seat.host.is_some();
        for launcher in &self.launchers {
            if launcher.is_remote() && !self.leads_away(launcher, elsewhere) {
                continue;
            }
            let mut flags = Vec::new();
            if launcher.is_remote() && std::mem::take(&mut inside) {
                if let Carry::Flags { environment, directory } = &launcher.carry {
                    flags = self.flags(seat, environment, directory);
                }
                if let Some(launch) = self.launch.as_ref().filter(|_| !self.is_bare()) {
                    words = self.setting(seat).wrap(&launch.mark, words);
                }
            }
            words = launcher.wrap(seat, sockets, flags, words);
        }
        words
    }

    fn flags(&self, seat: &Seat, environment: &OsStr, directory: &OsStr) -> Vec<OsString> {
        let tokens = Tokens::of(seat);
        let mut flags = Vec::new();
        for (name, value) in self.command.variables(&tokens) {
            let mut pair = name.to_owned();
            pair.push("=");
            // There is no flag that removes a variable: an empty one is nearest.
            pair.push(value.unwrap_or_default());
            flags.extend([environment.to_owned(), pair]);
        }
        if let Some(dir) = self.command.directory(&tokens) {
            flags.extend([directory.to_owned(), dir]);
        }
        flags
    }

    /// The words that look at the far process with this pid, by way of the same launchers.
    pub(crate) fn look_words(
        &self,
        seat: &Seat,
        sockets: Option<&Path>,
        pid: u32,
    ) -> Option<Vec<OsString>> {
        self.errand_words(seat, sockets, script::LOOK, pid)
    }

    /// The words that kill the far process with this pid; `None` where nothing is known that could.
    pub(crate) fn kill_words(
        &self,
        seat: &Seat,
        sockets: Option<&Path>,
        pid: Option<u32>,
    ) -> Option<Vec<OsString>> {
        let with = self.launchers.iter().rev().find_map(|launcher| launcher.kill_with.as_ref());
        match with {
            Some(words) => {
                let needs_pid = words.iter().any(|word| has_pid(word));
                if needs_pid && pid.is_none() {
                    return None;
                }
                let tokens = Tokens { pid, ..Tokens::of(seat) };
                Some(words.iter().map(|word| replace(word, &tokens, |_| None)).collect())
            }
            None => self.errand_words(seat, sockets, script::KILL, pid?),
        }
    }

    /// Whether it is our script that kills, which answers.
    pub(crate) fn kills_by_script(&self) -> bool {
        self.launchers.iter().all(|launcher| launcher.kill_with.is_none())
    }

    fn errand_words(
        &self,
        seat: &Seat,
        sockets: Option<&Path>,
        script: &str,
        pid: u32,
    ) -> Option<Vec<OsString>> {
        let mark = &self.launch.as_ref().filter(|_| seat.far && !self.is_bare())?.mark;
        let mut words = script::errand(script, mark, pid);
        let elsewhere = seat.host.is_some();
        let mut inside = true;
        for launcher in &self.launchers {
            let away = self.leads_away(launcher, elsewhere);
            inside &= !away;
            // What stands within the sh of the hello is the tool's alone.
            if away || (!launcher.is_remote() && !inside) {
                words = launcher.wrap(seat, sockets, Vec::new(), words);
            }
        }
        Some(words)
    }

    /// The words that end each connection that workers of a feed share.
    pub(crate) fn farewells(&self, sockets: &Path) -> Vec<Vec<OsString>> {
        let Some(launch) = &self.launch else { return Vec::new() };
        let Some(launcher) = self.launchers.iter().find(|launcher| launcher.form == Form::Ssh)
        else {
            return Vec::new();
        };
        let seats = (0..launch.seats.len()).map(|id| self.seat_of(id));
        let mut all: Vec<Vec<OsString>> = Vec::new();
        for seat in
            seats.filter(|seat| seat.host.is_some() && seat.slot % WORKERS_A_CONNECTION == 0)
        {
            let mut words = launcher.ssh_words(&seat, Some(sockets));
            words.extend(["-O".into(), "exit".into(), "--".into(), seat.host_name().into()]);
            all.push(words);
        }
        all
    }
}

fn has_pid(word: &OsStr) -> bool {
    use bstr::ByteSlice;
    word.as_bytes().contains_str("{pid}")
}

impl CommandLine {
    /// The variables that are set, or removed.
    fn variables(&self, tokens: &Tokens<'_>) -> Vec<(&OsStr, Option<OsString>)> {
        let set = self.envs.iter().map(|(name, value)| {
            let value = value.as_ref().map(|value| value.resolved(tokens, |_| None));
            (name.as_os_str(), value)
        });
        let python = self
            .unbuffered_python()
            .then(|| (OsStr::new(crate::template::command::UNBUFFERED_PYTHON), Some("1".into())));
        set.chain(python).collect()
    }

    fn directory(&self, tokens: &Tokens<'_>) -> Option<OsString> {
        self.dir.as_ref().map(|dir| replace(dir.as_os_str(), tokens, |_| None))
    }
}

/// Where workers run.
impl<E, D> Template<E, D> {
    /// Starts the workers through another program: under `nice`, in a container, on other machines. If it is called several
    /// times, the last launcher is the outermost.
    ///
    /// ```
    /// use subfeed::{Launcher, Template};
    /// // ssh node1 nice jq -c .
    /// let template = Template::new("jq")
    ///     .args(["-c", "--unbuffered", "."])
    ///     .via(Launcher::prefix(["nice"]))
    ///     .via(Launcher::ssh(["node1", "node2"]));
    /// # let _ = template;
    /// ```
    #[doc(alias = "ssh")]
    #[doc(alias = "remote")]
    #[doc(alias = "nice")]
    #[must_use]
    pub fn via(mut self, launcher: impl Into<Launcher>) -> Self {
        self.spec.launchers.push(launcher.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seated(template: Template, workers: usize) -> Spec {
        let mut spec = template.spec;
        spec.validate().expect("it is good");
        spec.seat(workers).expect("it is good");
        spec
    }

    fn words(spec: &Spec, id: usize) -> Vec<String> {
        let words = spec.launched(
            &spec.seat_of(id),
            Some(Path::new("/run/s")),
            vec!["jq".into(), ".".into()],
        );
        words.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[track_caller]
    fn refused(template: Template, says: &[&str]) {
        let error = template.spec.validate().expect_err("it is wrong").to_string();
        for word in says {
            assert!(error.contains(word), "no {word:?} in: {error}");
        }
    }

    #[test]
    fn the_last_launcher_is_the_outermost() {
        let template = Template::new("jq")
            .via(Launcher::prefix(["nice"]))
            .via(Launcher::prefix(["env", "W={id}"]));
        let spec = seated(template, 2);
        assert_eq!(words(&spec, 1), ["env", "W=1", "nice", "jq", "."]);
        assert!(spec.launch.is_none());
    }

    #[test]
    fn the_script_is_between_the_tool_and_what_leads_away() {
        let nest = Template::new("jq")
            .via(Launcher::prefix(["nice"]))
            .via(Launcher::podman_exec("box"))
            .via(Launcher::ssh(["node1", ":"]))
            .via(Launcher::prefix(["timeout", "9"]));
        let spec = seated(nest, 2);
        let far = words(&spec, 0);
        assert_eq!(far[..3], ["timeout", "9", "ssh"]);
        assert_eq!(far[far.len() - 3..far.len() - 1], ["--", "node1"]);
        assert!(far.iter().any(|word| word == "ControlPath=/run/s/0-0"), "{far:?}");
        let here = words(&spec, 1);
        assert_eq!(here[..7], ["timeout", "9", "podman", "exec", "-i", "box", "sh"]);
        assert_eq!(here[here.len() - 3..], ["nice", "jq", "."]);
        assert_eq!(here.iter().filter(|word| *word == "-c").count(), 1);
    }

    #[test]
    fn hosts_are_shared_out_and_this_machine_needs_no_launcher() {
        let hosts = [Host::new("a").weight(2), Host::local()];
        let spec = seated(Template::new("jq").via(Launcher::ssh(hosts)), 3);
        let seats: Vec<_> = (0..3).map(|id| spec.seat_of(id)).collect();
        assert_eq!(seats.iter().map(|seat| seat.slot).collect::<Vec<_>>(), [0, 0, 1]);
        assert_eq!(seats.iter().map(Seat::host_name).collect::<Vec<_>>(), ["a", "localhost", "a"]);
        assert_eq!(words(&spec, 1), ["jq", "."]);
        assert!(spec.link(&seats[1]).is_none() && spec.link(&seats[0]).is_some());
    }

    #[test]
    fn the_nodes_of_an_allocation_are_hosts_by_their_processors() {
        let hosts = nodes_of(Some("n[1-3]".into()), Some("4(x2),2".into())).unwrap();
        assert_eq!(
            hosts,
            [Host::new("n1").weight(4), Host::new("n2").weight(4), Host::new("n3").weight(2)]
        );
        let error = nodes_of(None, None).unwrap_err().to_string();
        assert!(error.contains("salloc") && error.contains("sbatch"), "{error}");
    }

    #[test]
    fn hosts_that_cannot_be_are_refused_by_name() {
        let ssh = |hosts: Vec<Host>| Template::new("cat").via(Launcher::ssh(hosts));
        refused(ssh(vec![]), &["no host"]);
        refused(ssh(vec!["a".into(), "b".into(), "a".into()]), &["a is listed twice", "weight"]);
        refused(ssh(vec![Host::new("a").weight(0)]), &["a has weight 0"]);
        for bad in ["", "-oProxyCommand=x", "a b", "a\nb"] {
            refused(ssh(vec![bad.into()]), &["name of a host"]);
        }
        refused(
            Template::new("cat").via(Launcher::ssh(["a"])).via(Launcher::ssh(["b"])),
            &["two launchers"],
        );
        refused(Template::new("cat").via(Launcher::prefix([""])), &["nothing to run"]);
        refused(Template::new("cat").via(Launcher::podman_exec("-x")), &["option"]);
        refused(Template::new("cat").via(Launcher::prefix(["nice"]).bare()), &["prefix"]);
    }

    #[test]
    fn what_no_launcher_passes_on_is_refused_and_says_why() {
        use crate::framing::ReplyFraming;
        use crate::template::channel::{LineBuffered, Redirect};
        let far = || Template::new("cat").via(Launcher::ssh(["a"]));
        refused(far().side_input("more"), &["side channel", "stdin, stdout and stderr"]);
        refused(far().side_output("more", ReplyFraming::line()), &["side channel"]);
        refused(far().line_buffered(LineBuffered::Pty), &["terminal"]);
        refused(far().kill_with_parent(), &["kill_with_parent", "launcher alone"]);
        let both = far().stdout(Redirect::Null).stderr(Redirect::Null);
        refused(both, &["Launcher::bare"]);
        refused(far().env("a.b", "x"), &["a.b"]);
        refused(far().secret_env("A", "x").stdin(Redirect::Null), &["stdin is redirected"]);
        let bare = Template::new("cat").env("A", "1").via(Launcher::ssh(["a"]).bare());
        refused(bare, &["bare", "Launcher::carry"]);
        // On this machine all of it works.
        let near = Template::new("cat").via(Launcher::prefix(["nice"])).kill_with_parent();
        near.side_input("more").spec.validate().unwrap();
    }

    #[test]
    fn environment_and_directory_may_be_flags() {
        let flags = Carry::Flags { environment: "-e".into(), directory: "-w".into() };
        let docker =
            Launcher::remote(["docker", "exec", "-i", "{flags}", "box"]).carry(flags).bare();
        let template = Template::new("jq").env("W", "{slot}").current_dir("/data").via(docker);
        let spec = seated(template, 1);
        assert_eq!(
            words(&spec, 0),
            ["docker", "exec", "-i", "-e", "W=0", "-w", "/data", "box", "jq", "."]
        );
    }

    #[test]
    fn an_errand_goes_the_same_way_without_what_is_the_tools() {
        let nest = Template::new("jq")
            .via(Launcher::prefix(["nice"]))
            .via(Launcher::podman_exec("box"))
            .via(Launcher::prefix(["env"]));
        let spec = seated(nest, 1);
        let seat = spec.seat_of(0);
        let words = spec.kill_words(&seat, None, Some(77)).unwrap();
        assert_eq!(words[..7], ["env", "podman", "exec", "-i", "box", "sh", "-c"]);
        assert_eq!(words.last().unwrap(), "77");
        assert_eq!(spec.kill_words(&seat, None, None), None);
        let own = Launcher::remote(["docker", "exec", "{host}"]).kill_with([
            "docker",
            "kill",
            "{host}-{pid}",
        ]);
        let spec = seated(Template::new("jq").via(own.hosts(["c1"])), 1);
        let words = spec.kill_words(&spec.seat_of(0), None, Some(77)).unwrap();
        assert_eq!(words, ["docker", "kill", "c1-77"]);
    }
}
