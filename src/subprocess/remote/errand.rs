//! Errands: short commands by way of a launcher, which look at a far process or kill it.
//!
//! Each is started at once, so that it is on its way even if this program ends, and a thread of its own hears
//! it out, for no longer than [`LIMIT`].

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bstr::ByteSlice;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::subprocess::protocol::Sighting;
use crate::subprocess::reaper;
use crate::subprocess::remote::sockets::Sockets;
use crate::template::launcher::script::GS;

/// How long an errand may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// More than any errand has to say.
const LONGEST: usize = 64 << 10;

/// Starts an errand; what it has said is told when it is done, or its time is. The sockets stay until then.
pub(crate) fn start(
    words: &[OsString],
    sockets: Option<Arc<Sockets>>,
    done: impl FnOnce(&[u8]) + Send + 'static,
) -> io::Result<()> {
    let mut child = spawn(words)?;
    let Some(stdout) = child.stdout.take() else { return Ok(()) };
    let errand = Errand { child: Some(child), sockets };
    let thread = std::thread::Builder::new().name("subfeed-errand".to_owned());
    // Without a thread it is killed at once, by the drop of what the closure holds.
    thread.stack_size(64 << 10).spawn(move || {
        let said = hear(stdout, LIMIT);
        drop(errand);
        done(&said);
    })?;
    Ok(())
}

/// Runs several and waits for all of them, for this long at most.
pub(super) fn run_all(all: &[Vec<OsString>], limit: Duration) {
    let until = Instant::now() + limit;
    // They run side by side.
    let children: Vec<Child> = all.iter().filter_map(|words| spawn(words).ok()).collect();
    for mut child in children {
        let stdout = child.stdout.take();
        let errand = Errand { child: Some(child), sockets: None };
        if let Some(stdout) = stdout {
            hear(stdout, until.saturating_duration_since(Instant::now()));
        }
        drop(errand);
    }
}

fn spawn(words: &[OsString]) -> io::Result<Child> {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
}

/// One that runs: it is ended when it is dropped, and reaped in the background.
#[derive(Debug)]
struct Errand {
    child: Option<Child>,
    /// The connection that it uses is not to be closed before.
    #[expect(dead_code, reason = "held")]
    sockets: Option<Arc<Sockets>>,
}

impl Drop for Errand {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            // It has closed its stdout, or its time is over. It is not reaped, so that the number is its own.
            let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
            reaper::leave(child);
        }
    }
}

/// Reads to the end, or until time is over.
fn hear(mut stdout: ChildStdout, limit: Duration) -> Vec<u8> {
    let until = Instant::now() + limit;
    let (mut said, mut room) = (Vec::new(), [0; 4096]);
    while said.len() < LONGEST {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => break,
            Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => break,
            Ok(_) => {}
        }
        match stdout.read(&mut room) {
            Ok(n) if n > 0 => said.extend_from_slice(&room[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => break,
        }
    }
    said
}

/// What a look has said, in words.
pub(crate) fn sighting(said: &[u8], mark: &str) -> Sighting {
    let answer = |word: &str| {
        let line = [&[GS], mark.as_bytes(), b" ", word.as_bytes(), b"\n"].concat();
        said.contains_str(line)
    };
    if answer("there") {
        Sighting::There
    } else if answer("gone") {
        Sighting::Gone
    } else {
        Sighting::Unanswered
    }
}

/// Whether the script that kills has come to its end.
pub(crate) fn has_killed(said: &[u8], mark: &str) -> bool {
    said.contains_str([&[GS], mark.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::mpsc::channel;

    fn words(script: &str) -> Vec<OsString> {
        ["sh", "-c", script].map(OsString::from).into()
    }

    #[test]
    fn what_it_said_is_told_and_it_is_reaped() {
        let (tell, told) = channel();
        let words = words(r"printf 'motd\n\035mark gone\n'");
        start(&words, None, move |said| tell.send(said.to_vec()).unwrap()).unwrap();
        let said = told.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(sighting(&said, "mark"), Sighting::Gone);
        assert_eq!(sighting(&said, "other"), Sighting::Unanswered);
        assert_eq!(sighting(b"\x1dmark there\n", "mark"), Sighting::There);
        assert!(has_killed(&said, "mark") && !has_killed(b"mark", "mark"));
        assert!(start(&["/no/such/program".into()], None, |_| ()).is_err());
    }

    #[test]
    fn one_that_takes_too_long_is_ended() {
        let begun = Instant::now();
        run_all(&[words("exec sleep 300"), words(":")], Duration::from_millis(20));
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}
