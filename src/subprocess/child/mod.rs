//! The supervisor of one child: its pipes, its stderr, its exit, the graces and the kill sequence. Pure.
//!
//! ```text
//!              kill                       every signal sent, and the grace over
//!   Running ----------> Killing ------------------------------------------------> Reaped (or left)
//!      |                   |
//!      +----- exited ------+
//!      v
//!   Exited ---- outputs at their end, or nothing read for a grace ----> Reaped
//! ```
//!
//! What the child says and is told is not its business. A worker's session, a command as a source and a
//! function as a source each own one.
//!
//! # Invariants
//! 1. The phase only ever goes to the right in the picture above.
//! 2. A phase that waits has a [`deadline`](Child::deadline), which runs on real time: the pauses of the kill
//!    sequence and the bounds of a drop are promises about the clock on the wall.
//! 3. [`Step::Finish`] and [`Step::Abandon`] come once, and nothing comes after them.
//! 4. The grace of a child that has exited does not run while we do not read its outputs: what it has left
//!    there waits for us.

use std::time::Duration;

use crate::error::StderrExcerpt;
use crate::signal::Signal;
use crate::subprocess::protocol::{Now, Time};
use crate::template::policy::{DRAIN_GRACE, Policy};

/// The longest that the output of a child that has exited is read while another process goes on writing to
/// it.
const LONGEST_DRAIN: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// So many signals of the kill sequence were sent; the next one is due then.
    Killing {
        sent: usize,
        next: Now,
    },
    /// It has exited then; when its output was last heard of.
    Exited {
        at: Now,
        heard: Now,
    },
    Reaped,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Nothing,
    /// Send this signal to it and its group.
    Signal(Signal),
    /// It is over: kill what is left of its group, close every pipe and reap it.
    Finish,
    /// Nothing kills it: close every pipe and leave it to the reaper.
    Abandon,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Child {
    phase: Phase,
    /// How many of its outputs have not come to their end, stderr among them.
    open: usize,
    stderr: StderrExcerpt,
    stderr_open: bool,
    /// We do not read its outputs, for want of room.
    paused: bool,
    /// The last signal that we have sent.
    signalled: Option<Signal>,
    abandoned: bool,
}

impl Child {
    /// A child that runs, with so many outputs that lead to us, and perhaps stderr.
    pub(crate) fn new(outputs: usize, stderr: bool) -> Self {
        Self {
            phase: Phase::Running,
            open: outputs + usize::from(stderr),
            stderr: StderrExcerpt::default(),
            stderr_open: stderr,
            paused: false,
            signalled: None,
            abandoned: false,
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    pub(crate) fn has_exited(&self) -> bool {
        matches!(self.phase, Phase::Exited { .. })
    }

    /// Whether its kill sequence has begun.
    pub(crate) fn is_killed(&self) -> bool {
        matches!(self.phase, Phase::Killing { .. })
    }

    /// Whether it was killed and did not end.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned
    }

    /// The last signal that it was sent by us, if any.
    pub(crate) fn signalled(&self) -> Option<Signal> {
        self.signalled
    }

    pub(crate) fn stderr(&self) -> &StderrExcerpt {
        &self.stderr
    }

    /// Begins the kill sequence, at once.
    pub(crate) fn kill(&mut self, now: Time) {
        self.kill_at(now.real);
    }

    /// Begins the kill sequence at this time, if it has not ended before.
    pub(crate) fn kill_at(&mut self, at: Now) {
        if self.is_running() {
            self.phase = Phase::Killing { sent: 0, next: at };
        }
    }

    /// SIGKILL is sent to it, which runs, at once and without the rest of the kill sequence.
    pub(crate) fn kill_outright(&mut self, policy: &Policy, now: Time) {
        debug_assert!(self.is_running(), "it was killed before, or has exited");
        let next = now.real.saturating_add(policy.kill_grace());
        self.phase = Phase::Killing { sent: policy.kill_sequence.len(), next };
        self.signalled = Some(Signal::Kill);
    }

    /// Something was read from one of its outputs.
    pub(crate) fn heard(&mut self, now: Time) {
        if let Phase::Exited { heard, .. } = &mut self.phase {
            *heard = now.real;
        }
    }

    pub(crate) fn heard_stderr(&mut self, bytes: &[u8]) {
        self.stderr.push(bytes);
    }

    /// One of its outputs has come to its end.
    pub(crate) fn output_closed(&mut self) {
        debug_assert!(self.open > 0, "an output has ended twice");
        self.open = self.open.saturating_sub(1);
    }

    pub(crate) fn stderr_closed(&mut self) {
        if std::mem::take(&mut self.stderr_open) {
            self.output_closed();
        }
    }

    /// It has exited. Says whether that is news.
    pub(crate) fn exited(&mut self, now: Time) -> bool {
        if !matches!(self.phase, Phase::Running | Phase::Killing { .. }) {
            return false;
        }
        self.phase = Phase::Exited { at: now.real, heard: now.real };
        true
    }

    /// Whether its outputs are read from now on, or not, for want of room.
    pub(crate) fn is_read(&mut self, read: bool, now: Time) {
        let was_paused = std::mem::replace(&mut self.paused, !read);
        if was_paused
            && read
            && let Phase::Exited { at, heard } = &mut self.phase
        {
            (*at, *heard) = (now.real, now.real);
        }
    }

    /// Nothing that may still come is wanted: a child that has exited is over.
    pub(crate) fn is_not_awaited(&mut self) {
        self.open = 0;
    }

    /// When something is due, in real time.
    pub(crate) fn deadline(&self) -> Option<Now> {
        match self.phase {
            Phase::Killing { next, .. } => Some(next),
            Phase::Exited { at, .. } if self.open == 0 => Some(at),
            Phase::Exited { .. } if self.paused => None,
            Phase::Exited { at, heard } => Some((heard + DRAIN_GRACE).min(at + LONGEST_DRAIN)),
            Phase::Running | Phase::Reaped => None,
        }
    }

    /// What is due now.
    pub(crate) fn step(&mut self, policy: &Policy, now: Time) -> Step {
        if self.deadline().is_none_or(|at| now.real < at) {
            return Step::Nothing;
        }
        match self.phase {
            Phase::Killing { sent, .. } => {
                let Some(&(signal, pause)) = policy.kill_sequence.get(sent) else {
                    self.phase = Phase::Reaped;
                    self.abandoned = true;
                    return Step::Abandon;
                };
                let last = sent + 1 == policy.kill_sequence.len();
                let pause = if last { policy.kill_grace() } else { pause };
                self.phase =
                    Phase::Killing { sent: sent + 1, next: now.real.saturating_add(pause) };
                self.signalled = Some(signal);
                Step::Signal(signal)
            }
            Phase::Exited { .. } => {
                self.phase = Phase::Reaped;
                Step::Finish
            }
            Phase::Running | Phase::Reaped => Step::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::at(Duration::from_millis(ms))
    }

    fn policy() -> Policy {
        let ms = Duration::from_millis;
        Policy {
            kill_sequence: vec![
                (Signal::Interrupt, ms(10)),
                (Signal::Terminate, ms(20)),
                (Signal::Kill, ms(0)),
            ],
            ..Policy::default()
        }
    }

    #[test]
    fn each_signal_is_sent_once_when_the_pause_before_it_is_over_and_then_it_is_left() {
        let policy = policy();
        let mut child = Child::new(1, true);
        child.kill_at(at(5).real);
        assert_eq!(
            (child.step(&policy, at(4)), child.deadline()),
            (Step::Nothing, Some(at(5).real))
        );
        assert_eq!(child.step(&policy, at(5)), Step::Signal(Signal::Interrupt));
        assert_eq!(
            (child.step(&policy, at(14)), child.deadline()),
            (Step::Nothing, Some(at(15).real))
        );
        assert_eq!(child.step(&policy, at(100)), Step::Signal(Signal::Terminate));
        assert_eq!(child.step(&policy, at(120)), Step::Signal(Signal::Kill));
        assert_eq!(
            (child.step(&policy, at(999)), child.signalled()),
            (Step::Nothing, Some(Signal::Kill))
        );
        assert_eq!(child.step(&policy, at(1_120)), Step::Abandon);
        assert_eq!((child.step(&policy, at(9_999)), child.deadline()), (Step::Nothing, None));
        assert!(child.is_abandoned());
    }

    #[test]
    fn one_that_has_exited_is_over_when_its_outputs_have_ended() {
        let policy = policy();
        let mut child = Child::new(1, true);
        assert!(child.exited(at(1)) && !child.exited(at(2)));
        assert_eq!(child.step(&policy, at(50)), Step::Nothing);
        child.output_closed();
        assert_eq!(child.step(&policy, at(50)), Step::Nothing);
        child.stderr_closed();
        child.stderr_closed();
        assert_eq!(child.step(&policy, at(50)), Step::Finish);
        assert_eq!(child.step(&policy, at(50)), Step::Nothing);
    }

    #[test]
    fn or_when_nothing_was_read_for_a_grace_but_not_later_than_the_longest() {
        let policy = policy();
        let mut child = Child::new(1, false);
        child.exited(at(0));
        child.heard(at(80));
        assert_eq!(child.step(&policy, at(150)), Step::Nothing);
        assert_eq!(child.step(&policy, at(180)), Step::Finish);
        let mut child = Child::new(1, false);
        child.exited(at(0));
        child.heard(at(4_990));
        assert_eq!(child.deadline(), Some(LONGEST_DRAIN));
    }

    #[test]
    fn the_grace_does_not_run_while_nobody_reads_what_it_has_left() {
        let policy = policy();
        let mut child = Child::new(1, false);
        child.exited(at(0));
        child.is_read(false, at(50));
        assert_eq!((child.step(&policy, at(9_999)), child.deadline()), (Step::Nothing, None));
        child.is_read(true, at(10_000));
        child.is_read(true, at(10_050));
        assert_eq!(child.deadline(), Some(at(10_100).real));
        child.heard(at(10_080));
        assert_eq!(child.step(&policy, at(10_100)), Step::Nothing);
        child.is_read(false, at(10_150));
        // One that reads no more has nothing to wait for either.
        child.output_closed();
        assert_eq!(child.step(&policy, at(10_150)), Step::Finish);
    }
}
