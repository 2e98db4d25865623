//! Workers that want the terminal of the user.

use std::io::BufRead;

use super::*;

/// A worker in a session with a pseudo-terminal: in the background as every worker of a feed, or in the
/// foreground.
struct AtTerminal {
    worker: Pid,
    /// The one who sits at the terminal.
    user: Worker,
}

impl AtTerminal {
    fn start(script: &str, foreground: bool) -> Self {
        let host = format!(
            "import os, pty, signal\n\
             os.dup2(0, 13); os.dup2(1, 14)\n\
             user, terminal = pty.fork()\n\
             if user: os.waitpid(user, 0); os._exit(0)\n\
             worker = os.fork()\n\
             if worker == 0:\n \
               os.setpgid(0, 0)\n \
               signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])\n \
               if {foreground}: os.tcsetpgrp(0, os.getpid())\n \
               signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTTOU])\n \
               os.dup2(13, 0)\n \
               os.execvp('sh', ['sh', '-c', '''{script}'''])\n\
             os.write(14, b'%d\\n' % worker)\n\
             os.waitpid(worker, 0)",
            foreground = if foreground { "True" } else { "False" },
        );
        let mut user = Worker::python(&host);
        let mut pid = String::new();
        let stdout = user.child.stdout.as_mut().unwrap();
        std::io::BufReader::new(stdout).read_line(&mut pid).unwrap();
        let worker = Pid::from_raw(pid.trim().parse().unwrap());
        Self { worker, user }
    }

    #[track_caller]
    fn comes_to(&self, expected: Evidence) {
        let start = Instant::now();
        loop {
            let seen = look(self.worker, &self.user.inputs()).alone();
            if seen == expected {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{seen:?} and not {expected:?}");
            sleep(PAUSE);
        }
    }
}

impl Drop for AtTerminal {
    fn drop(&mut self) {
        let _ = killpg(self.worker, Signal::SIGKILL);
    }
}

#[test]
fn who_reads_the_terminal_in_the_background_is_stopped_and_the_signal_is_named() {
    AtTerminal::start("read password < /dev/tty; cat", false)
        .comes_to(Evidence::Stopped(Stop::Signal(Signal::SIGTTIN as i32)));
    AtTerminal::start("stty -echo < /dev/tty; cat", false)
        .comes_to(Evidence::Stopped(Stop::Signal(Signal::SIGTTOU as i32)));
    // The signal goes to the whole group.
    AtTerminal::start("(read password < /dev/tty) & exec cat <&0", false)
        .comes_to(Evidence::Stopped(Stop::Signal(Signal::SIGTTIN as i32)));
}

#[test]
fn who_reads_the_terminal_in_the_foreground_waits_for_somebody_to_type() {
    AtTerminal::start("read password < /dev/tty; cat", true)
        .comes_to(Evidence::Stopped(Stop::Terminal));
    AtTerminal::start("cat & head -n 1 <&2", true).comes_to(Evidence::Stopped(Stop::Terminal));
}

#[test]
fn who_is_not_at_the_terminal_is_not_said_to_be() {
    AtTerminal::start("cat", false).comes_to(Evidence::Waiting);
    AtTerminal::start("cat", true).comes_to(Evidence::Waiting);
    // One that has made its own terminal, for the tool to read.
    let own = "import pty, os, threading\n\
        pid, terminal = pty.fork()\n\
        if pid == 0: os.execvp('cat', ['cat'])\n\
        os.waitpid(pid, 0)";
    Worker::python(own).settles(Evidence::Outside(Outside::Device));
}
