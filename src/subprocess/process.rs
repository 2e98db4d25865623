//! Starting, signalling and reaping: the system calls that make a session.
//!
//! Rules kept here: every pipe end is close-on-exec, and a child inherits 0, 1, 2 and its own side
//! channels, nothing else; side channels keep their number (10 or above), so nothing std has open is
//! ever clobbered; without side channels no code of ours runs between fork and exec, and std uses
//! `posix_spawn`; a group is signalled before its leader is reaped, so that its number cannot have
//! been reused.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::{self, Signal as NixSignal};
use nix::sys::termios;
use nix::unistd::Pid;

use crate::error::{Error, ErrorKind, PROCESS_LIMIT};
use crate::files::{self, Pipes};
use crate::subprocess::protocol::StartError;
use crate::subprocess::reaper;
use crate::subprocess::remote::sockets::Sockets;
use crate::template::Spec;
use crate::template::channel::{Redirect, Stream};
use crate::template::command::{INSTALLED, Tokens, UNBUFFERED_PYTHON, quote, replace};
use crate::template::policy::{KILL_GRACE, Signal};
use crate::tuning::PIPE_BYTES;

/// The lowest number a side channel may have: below are the standard streams and what std needs.
const LOWEST_SIDE_FD: RawFd = 10;

/// A running child and our ends of its channels.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Stdin, then the side inputs.
    pub(crate) inputs: Vec<Option<File>>,
    /// Stdout, then the side outputs.
    pub(crate) outputs: Vec<Option<File>>,
    pub(crate) stderr: Option<File>,
}

/// How a far process is killed.
#[derive(Debug)]
pub(crate) struct Kill {
    pub(crate) words: Vec<OsString>,
    /// What the answer begins with, if there is one.
    pub(crate) mark: Option<Arc<str>>,
    pub(crate) host: Arc<str>,
}

/// Starts sessions from one template.
#[derive(Debug)]
pub(crate) struct Starter {
    spec: Arc<Spec>,
    command: Arc<str>,
    /// Where connections that workers share have their sockets; made for the first that needs it.
    sockets: Option<Arc<Sockets>>,
    /// Files that are written to, by path: each is emptied once in a feed, then appended to by all whose output
    /// leads there, later sessions and other workers alike.
    files: HashMap<PathBuf, File>,
}

impl std::fmt::Debug for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spec").field("command", &self.command).finish_non_exhaustive()
    }
}

impl Starter {
    pub(crate) fn new(spec: Arc<Spec>, command: Arc<str>) -> Self {
        Self { spec, command, sockets: None, files: HashMap::new() }
    }

    /// Where the sockets of shared connections are.
    pub(crate) fn sockets(&self) -> Option<Arc<Sockets>> {
        self.sockets.clone()
    }

    fn socket_dir(&self) -> Option<&Path> {
        self.sockets.as_ref().map(|sockets| sockets.dir())
    }

    /// Whether some workers are behind a launcher that leads away from here.
    pub(crate) fn is_remote(&self) -> bool {
        self.spec.launch.is_some()
    }

    /// Whether this one is.
    pub(crate) fn is_far(&self, slot: usize) -> bool {
        self.spec.seat_of(slot).far
    }

    /// The words that look at the far process of a worker, and the mark of the answer.
    pub(crate) fn look_words(&self, slot: usize, pid: u32) -> Option<(Vec<OsString>, Arc<str>)> {
        let mark = Arc::clone(self.spec.launch.as_ref()?.mark());
        let seat = self.spec.seat_of(slot);
        Some((self.spec.look_words(&seat, self.socket_dir(), pid)?, mark))
    }

    /// What kills the far process of a worker, if anything does.
    pub(crate) fn kill_words(&self, slot: usize, pid: Option<u32>) -> Option<Kill> {
        let launch = self.spec.launch.as_ref()?;
        let seat = self.spec.seat_of(slot);
        Some(Kill {
            words: self.spec.kill_words(&seat, self.socket_dir(), pid)?,
            mark: self.spec.kills_by_script().then(|| Arc::clone(launch.mark())),
            host: seat.host_name().into(),
        })
    }

    /// Starts the worker of slot `id`.
    pub(crate) fn start(&mut self, id: usize) -> Result<Process, StartError> {
        let spec = Arc::clone(&self.spec);
        let mut kept: Vec<OwnedFd> = Vec::new();
        let mut numbers: Vec<(&str, RawFd)> = Vec::new();
        let mut inputs = vec![None];
        let mut outputs = vec![None];
        for side in &spec.channels.side_inputs {
            let end = match &side.file {
                Some(path) => self.open(id, path, &side.name, true)?.into(),
                None => {
                    let (theirs, ours) = self.pipe(id)?;
                    inputs.push(Some(ours));
                    theirs
                }
            };
            numbers.push((&side.name, self.keep(id, end, &mut kept)?));
        }
        for side in &spec.channels.side_outputs {
            let end = match &side.file {
                Some(path) => self.open(id, path, &side.name, false)?.into(),
                None => {
                    let (ours, theirs) = io::pipe().map_err(|error| self.start_error(id, error))?;
                    outputs.push(Some(
                        nonblocking(ours.into()).map_err(|error| self.start_error(id, error))?,
                    ));
                    theirs.into()
                }
            };
            numbers.push((&side.name, self.keep(id, end, &mut kept)?));
        }
        let fd = |name: &str| numbers.iter().find(|(known, _)| *known == name).map(|(_, fd)| *fd);
        let line = &spec.command;
        let seat = spec.seat_of(id);
        let tokens = Tokens::of(&seat);
        if seat.host.is_some() && self.sockets.is_none() && spec.shares_connections() {
            let failed = |error: Error| StartError::Never(error.by(id, None, &self.command));
            self.sockets = Some(Arc::new(Sockets::new(&spec).map_err(failed)?));
        }
        let words = spec.launched(&seat, self.socket_dir(), line.tool(&tokens, fd));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let mut dir = None;
        if spec.sets_surroundings(&seat) {
            if line.env_clear {
                command.env_clear();
            }
            for (name, value) in &line.envs {
                match value {
                    Some(value) => command.env(name, value.resolved(&tokens, fd)),
                    None => command.env_remove(name),
                };
            }
            if line.unbuffered_python() {
                command.env(UNBUFFERED_PYTHON, "1");
            }
            dir = line.dir.as_ref().map(|dir| PathBuf::from(replace(dir.as_os_str(), &tokens, fd)));
        }
        for (name, number) in &numbers {
            command.env(name, number.to_string());
        }
        if let Some(dir) = &dir {
            command.current_dir(dir);
        }
        command.stdin(self.stdio(id, &spec.channels.stdin, "stdin")?);
        command.stdout(self.stdio(id, &spec.channels.stdout, "stdout")?);
        let mut terminal = None;
        if spec.channels.pty {
            let (ours, theirs) = raw_terminal().map_err(|error| self.start_error(id, error))?;
            terminal = Some(ours);
            command.stdout(Stdio::from(theirs));
        }
        command.stderr(self.stdio(id, &spec.channels.stderr, "stderr")?);
        command.process_group(0);
        if !kept.is_empty() {
            let kept: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).collect();
            let clear = move || {
                for &fd in &kept {
                    // SAFETY: the descriptors are open in the child, which is a copy of the parent,
                    // where `kept` outlives the call to `spawn`.
                    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
                    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
                }
                Ok(())
            };
            // SAFETY: the closure runs between fork and exec. It only calls fcntl, which is
            // async-signal-safe, and touches memory allocated before.
            unsafe { command.pre_exec(clear) };
        }
        #[cfg(target_os = "linux")]
        if spec.policy.kill_with_parent {
            let parent = Pid::this();
            // SAFETY: the closure runs between fork and exec, only makes system calls that are
            // async-signal-safe, and touches no memory but its own copy of a number.
            unsafe { command.pre_exec(move || die_with(parent)) };
        }
        let mut child = command
            .spawn()
            .map_err(|error| self.spawn_error(id, error, &words[0], dir.as_deref()))?;
        drop(kept);
        let ours = |fd: OwnedFd| nonblocking(fd).map_err(|error| self.start_error(id, error));
        let stdio = (|| {
            if let Some(stdin) = child.stdin.take() {
                inputs[0] = Some(ours(stdin.into())?);
            }
            if let Some(stdout) = child.stdout.take() {
                outputs[0] = Some(ours(stdout.into())?);
            }
            if let Some(terminal) = terminal {
                outputs[0] = Some(ours(terminal)?);
            }
            child.stderr.take().map(|stderr| ours(stderr.into())).transpose()
        })();
        match stdio {
            Ok(stderr) => Ok(Process { child, inputs, outputs, stderr }),
            Err(error) => {
                Process { child, inputs, outputs, stderr: None }.finish();
                Err(error)
            }
        }
    }

    fn pipe(&self, id: usize) -> Result<(OwnedFd, File), StartError> {
        let (theirs, ours) = io::pipe().map_err(|error| self.start_error(id, error))?;
        let ours = nonblocking(ours.into()).map_err(|error| self.start_error(id, error))?;
        Ok((theirs.into(), ours))
    }

    /// Moves the child's end to a number that cannot collide with anything.
    fn keep(&self, id: usize, end: OwnedFd, kept: &mut Vec<OwnedFd>) -> Result<RawFd, StartError> {
        let number = fcntl(end.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(LOWEST_SIDE_FD));
        // It is invalid if the limit of open files is not above it.
        let number = number.map_err(|error| match error {
            Errno::EINVAL => Errno::EMFILE,
            error => error,
        });
        let number = number.map_err(|error| self.start_error(id, error.into()))?;
        // SAFETY: fcntl has just made this descriptor, and nobody else knows it.
        kept.push(unsafe { OwnedFd::from_raw_fd(number) });
        Ok(number)
    }

    fn stdio(&mut self, id: usize, stream: &Stream, name: &str) -> Result<Stdio, StartError> {
        Ok(match stream {
            Stream::Pipe => Stdio::piped(),
            Stream::To(Redirect::Null) => Stdio::null(),
            Stream::To(Redirect::Inherit) => Stdio::inherit(),
            Stream::To(Redirect::File(path)) => self.open(id, path, name, name == "stdin")?.into(),
        })
    }

    fn open(&mut self, id: usize, path: &Path, name: &str, read: bool) -> Result<File, StartError> {
        let seat = self.spec.seat_of(id);
        let path = PathBuf::from(replace(path.as_os_str(), &Tokens::of(&seat), |_| None));
        let failed = |error: io::Error| {
            let message =
                format!("the file `{}` for channel `{name}` cannot be opened", path.display());
            self.classify(id, ErrorKind::Channel, message, error)
        };
        if let Some(file) = self.files.get(&path)
            && !read
        {
            return file.try_clone().map_err(failed);
        }
        let open = |options: &OpenOptions| files::open(&path, options, Pipes::Refused);
        if read {
            return open(OpenOptions::new().read(true)).map_err(failed);
        }
        // Emptied once, then only appended to: whatever other sessions and workers wrote stays.
        open(OpenOptions::new().write(true).create(true).truncate(true)).map_err(failed)?;
        let file = open(OpenOptions::new().append(true)).map_err(failed)?;
        let copy = file.try_clone().map_err(failed)?;
        self.files.insert(path, file);
        Ok(copy)
    }

    fn start_error(&self, id: usize, error: io::Error) -> StartError {
        self.classify(id, ErrorKind::Spawn, "the worker's pipes cannot be made".to_owned(), error)
    }

    fn classify(
        &self,
        id: usize,
        kind: ErrorKind,
        message: String,
        error: io::Error,
    ) -> StartError {
        let errno = error.raw_os_error().map(Errno::from_raw);
        let seat = self.spec.seat_of(id);
        let host = seat.host.map(|(_, name)| name);
        let ours = Error::new(kind, message).because(error);
        let mut ours = ours.by(id, None, &self.command).on(host);
        if errno == Some(Errno::EMFILE) {
            ours = ours.hint("raise the limit of open files (ulimit -n): a worker needs four and two for each side channel");
        }
        if errno == Some(Errno::EAGAIN) {
            ours = ours.hint(PROCESS_LIMIT);
        }
        match errno {
            Some(Errno::EMFILE | Errno::ENFILE | Errno::EAGAIN | Errno::ENOMEM) => {
                StartError::NotNow(ours)
            }
            _ => StartError::Never(ours),
        }
    }

    fn spawn_error(
        &self,
        id: usize,
        error: io::Error,
        program: &OsStr,
        dir: Option<&Path>,
    ) -> StartError {
        if let Some(dir) = dir
            && !dir.is_dir()
        {
            let what = if dir.exists() { "is no directory" } else { "does not exist" };
            let message = format!("the working directory `{}` {what}", dir.display());
            return self.classify(id, ErrorKind::Spawn, message, error);
        }
        let line = &self.spec.command;
        let missing = error.kind() == io::ErrorKind::NotFound;
        // What runs it, where that is not the command itself.
        let runner = (line.stdbuf || !self.spec.launchers.is_empty())
            .then(|| format!("{}, which is to run it,", quote(program)));
        let who = runner.as_deref().unwrap_or("the command");
        let message = match error.kind() {
            io::ErrorKind::NotFound => format!("{who} was not found"),
            io::ErrorKind::PermissionDenied if Path::new(program).is_dir() => {
                format!("{who} is a directory")
            }
            io::ErrorKind::PermissionDenied => format!("{who} is not executable"),
            _ => format!("{who} cannot be started"),
        };
        match self.classify(id, ErrorKind::Spawn, message, error) {
            StartError::Never(error) if missing => {
                let is_missing = if runner.is_some() { INSTALLED } else { line.advice() };
                StartError::Never(error.hint(is_missing))
            }
            other => other,
        }
    }
}

nix::ioctl_read_bad!(
    /// How many bytes of a pipe are still unread; either end may ask.
    fionread,
    nix::libc::FIONREAD,
    nix::libc::c_int
);

/// Whether nobody can read any more what is written to a pipe.
pub(crate) fn has_no_reader(pipe: &File) -> io::Result<bool> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut pipe = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    poll(&mut pipe, PollTimeout::ZERO)?;
    Ok(pipe[0].revents().is_some_and(|found| found.contains(PollFlags::POLLERR)))
}

/// Has the kernel kill this process when the thread that has started it is gone. Runs in the child, before
/// its program.
#[cfg(target_os = "linux")]
fn die_with(parent: Pid) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(NixSignal::SIGKILL)?;
    if Pid::parent() != parent {
        // It was gone before the kernel knew of the wish, and nobody will signal us any more.
        signal::raise(NixSignal::SIGKILL)?;
    }
    Ok(())
}

/// How many bytes lie in a pipe that we write to, if that can be known.
pub(crate) fn unread(pipe: &File) -> Option<u64> {
    let mut bytes = 0;
    // SAFETY: the descriptor is open, and FIONREAD stores one `int` through a pointer that is valid
    // for the call.
    unsafe { fionread(pipe.as_raw_fd(), &raw mut bytes) }.ok()?;
    u64::try_from(bytes).ok()
}

/// The reading end of a pipe that we write to, opened once more: what it holds can be asked for after the
/// writing end is closed, and its reader sees the end of its input all the same. Linux only.
pub(crate) fn reading_end(pipe: &File) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).ok()
}

/// Makes a pipe larger. Best effort: where it is refused (a limit, a terminal) everything works as before.
pub(crate) fn enlarge(pipe: &File) {
    #[cfg(target_os = "linux")]
    let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
    #[cfg(not(target_os = "linux"))]
    let _ = (pipe, PIPE_BYTES);
}

/// A pseudo-terminal that changes nothing: no echo, no signals, line ends as they are. Ours first.
fn raw_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    // Not openpty: that leaves the two ends open to whatever another thread starts meanwhile.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let ours = nix::pty::posix_openpt(flags)?;
    nix::pty::grantpt(&ours)?;
    nix::pty::unlockpt(&ours)?;
    let path = terminal_name(&ours)?;
    let theirs = nix::fcntl::open(path.as_c_str(), flags, nix::sys::stat::Mode::empty())?;
    let mut modes = termios::tcgetattr(&theirs)?;
    termios::cfmakeraw(&mut modes);
    termios::tcsetattr(&theirs, termios::SetArg::TCSANOW, &modes)?;
    Ok((ours.into(), theirs))
}

/// The path of the other end of a pseudo-terminal. Not `ptsname`, whose result another thread may overwrite.
#[cfg(target_vendor = "apple")]
fn terminal_name(ours: &nix::pty::PtyMaster) -> io::Result<CString> {
    /// What the system writes at most, the NUL included.
    const LONGEST: usize = 128;
    nix::ioctl_read!(tiocptygname, b't', 83, [u8; LONGEST]);
    let mut name = [0; LONGEST];
    // SAFETY: the descriptor is open, and the call stores at most that many bytes in an array that is valid
    // for the call.
    unsafe { tiocptygname(ours.as_raw_fd(), &raw mut name) }?;
    Ok(CStr::from_bytes_until_nul(&name).map_err(io::Error::other)?.to_owned())
}

/// The path of the other end of a pseudo-terminal. Not `ptsname`, whose result another thread may overwrite.
#[cfg(not(target_vendor = "apple"))]
fn terminal_name(ours: &nix::pty::PtyMaster) -> io::Result<CString> {
    let mut name = [0u8; 128];
    // SAFETY: the descriptor is open, and the call stores at most that many bytes in an array that is valid
    // for the call. (Not by way of nix, which has this call on Linux only.)
    let failed =
        unsafe { nix::libc::ptsname_r(ours.as_raw_fd(), name.as_mut_ptr().cast(), name.len()) };
    if failed != 0 {
        return Err(Errno::from_raw(failed).into());
    }
    Ok(CStr::from_bytes_until_nul(&name).map_err(io::Error::other)?.to_owned())
}

fn nonblocking(fd: OwnedFd) -> io::Result<File> {
    // Ours alone: the two ends of a pipe are separate open file descriptions.
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(File::from(fd))
}

/// SIGPIPE is ignored in Rust programs, but not where we are embedded in another: this thread does
/// without it, and children, who inherit the mask, must not.
pub(crate) fn block_sigpipe(block: bool) {
    use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
    let mut set = SigSet::empty();
    set.add(NixSignal::SIGPIPE);
    if !block {
        forget_pending(&set);
    }
    let how = if block { SigmaskHow::SIG_BLOCK } else { SigmaskHow::SIG_UNBLOCK };
    let _ = pthread_sigmask(how, Some(&set), None);
}

/// A write to a closed pipe leaves the signal pending while it is blocked; unblocked, it would be
/// delivered after all, and end a process that has its default disposition.
fn forget_pending(set: &signal::SigSet) {
    use nix::libc;
    #[cfg(target_os = "linux")]
    {
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the set and the time are valid, and no information is asked for.
        unsafe { libc::sigtimedwait(set.as_ref(), std::ptr::null_mut(), &at_once) };
    }
    #[cfg(not(target_os = "linux"))]
    {
        let mut pending = *signal::SigSet::empty().as_ref();
        // SAFETY: `pending` is a signal set, and sigpending leaves one in it.
        let pending = unsafe {
            libc::sigpending(&mut pending);
            signal::SigSet::from_sigset_t_unchecked(pending)
        };
        if pending.contains(NixSignal::SIGPIPE) {
            let _ = set.wait();
        }
    }
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the whole process group, and to its leader. The leader is not reaped yet, so the group's number
    /// is still its own.
    pub(crate) fn signal(&self, signal: Signal) {
        let signal = match signal {
            Signal::Hangup => NixSignal::SIGHUP,
            Signal::Interrupt => NixSignal::SIGINT,
            Signal::Quit => NixSignal::SIGQUIT,
            Signal::User1 => NixSignal::SIGUSR1,
            Signal::User2 => NixSignal::SIGUSR2,
            Signal::Terminate => NixSignal::SIGTERM,
            Signal::Kill => NixSignal::SIGKILL,
        };
        self.send(signal);
        if signal != NixSignal::SIGKILL {
            // A stopped process would not notice.
            self.send(NixSignal::SIGCONT);
        }
    }

    /// Sends a signal to the group and to the leader, who may have left the group (`setpgid`).
    fn send(&self, signal: NixSignal) {
        let leader = Pid::from_raw(self.child.id().cast_signed());
        // ESRCH: everybody has gone already.
        let _ = signal::killpg(leader, signal);
        if nix::unistd::getpgid(Some(leader)).is_ok_and(|group| group != leader) {
            let _ = signal::kill(leader, signal);
        }
    }

    /// Kills what is left of the group, reaps the leader and closes every pipe, without waiting.
    ///
    /// To be called when the leader has exited, or will not. The status is `None` if somebody else has
    /// reaped it, or if it cannot be reaped now: then it is left to the [`reaper`].
    pub(crate) fn reap(mut self) -> Option<ExitStatus> {
        self.signal(Signal::Kill);
        match self.child.try_wait() {
            Ok(None) => {
                reaper::leave(self.child);
                None
            }
            status => status.ok().flatten(),
        }
    }

    /// The same where it is not known whether the leader has exited: waits for it, but not longer than
    /// something that can be killed takes to die.
    pub(crate) fn finish(mut self) -> Option<ExitStatus> {
        self.signal(Signal::Kill);
        match self.child.try_wait() {
            Ok(None) => reaper::leave(self.child).recv_timeout(KILL_GRACE).ok().flatten(),
            status => status.ok().flatten(),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn status(parent: Pid) -> ExitStatus {
        let mut command = Command::new("true");
        // SAFETY: see where it is used.
        unsafe { command.pre_exec(move || die_with(parent)) };
        command.status().unwrap()
    }

    #[test]
    fn a_child_whose_parent_went_before_it_could_ask_goes_too() {
        use std::os::unix::process::ExitStatusExt;
        assert!(status(Pid::this()).success());
        assert_eq!(status(Pid::from_raw(1)).signal(), Some(9));
    }
}
