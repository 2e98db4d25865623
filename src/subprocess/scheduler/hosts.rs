//! The hosts of a feed whose workers run behind a launcher: how many are started on each at once, and what becomes of one
//! that cannot be reached.
//!
//! # Invariants
//! 1. On one host so many sessions at most wait for their hello, and their starts are some time apart. Of those that
//!    share a connection one makes it, and the others wait for it.
//! 2. After a failure one session at a time tries a host again, ever later; failures of sessions that were
//!    under way together count once.
//! 3. A host is out after so many failures in a row, then tried once a minute, and in again when a session has said
//!    hello.
//! 4. A slot that may not start says when to ask again, or waits for an event of a session on the same host.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::subprocess::protocol::Now;
use crate::template::Spec;
use crate::template::launcher::StartGate;
use crate::template::policy::{Policy, backed_off};

/// How long a host that is out is left alone.
const OUT_FOR: Duration = Duration::from_secs(60);

/// How long a host is left alone after its first failure, and after many, at least: a daemon that is restarted
/// takes a while.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Hosts {
    gate: Option<StartGate>,
    hosts: Vec<Host>,
    /// Of each slot: its host, and its number there.
    of: Vec<(usize, usize)>,
}

#[derive(Debug)]
struct Host {
    name: Arc<str>,
    far: bool,
    /// The slots whose sessions have not said hello yet, and those whose have.
    starting: Vec<usize>,
    greeted: Vec<usize>,
    last_start: Option<Now>,
    /// Failures in a row, and when the last one was.
    streak: u32,
    failed_at: Now,
    not_before: Now,
    out: bool,
    /// What its launcher said at last.
    said: String,
}

/// What a failure has led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is tried again.
    Again,
    /// It is out, from now on: the words for it.
    Out(String),
}

impl Hosts {
    /// The hosts of a feed, if a launcher leads away from here.
    pub(super) fn new(spec: &Spec, slots: usize) -> Self {
        let Some(launch) = &spec.launch else { return Self::default() };
        let host = |(name, far): (&Arc<str>, bool)| Host {
            name: Arc::clone(name),
            far,
            starting: Vec::new(),
            greeted: Vec::new(),
            last_start: None,
            streak: 0,
            failed_at: Now::ZERO,
            not_before: Now::ZERO,
            out: false,
            said: String::new(),
        };
        Self {
            gate: Some(spec.start_gate()),
            hosts: launch.hosts().map(host).collect(),
            of: (0..slots).map(|slot| launch.seat(slot)).collect(),
        }
    }

    fn of(&self, slot: usize) -> Option<(usize, usize)> {
        self.of.get(slot).copied()
    }

    fn host(&mut self, slot: usize) -> Option<&mut Host> {
        let (host, _) = self.of(slot)?;
        Some(&mut self.hosts[host])
    }

    /// When a session may be started in a slot: now or before, at a time, or after something has happened to another one.
    pub(super) fn may_start(&self, slot: usize) -> Option<Now> {
        let (Some((number, here)), Some(gate)) = (self.of(slot), &self.gate) else {
            return Some(Now::ZERO);
        };
        let host = &self.hosts[number];
        if !host.far {
            return Some(Now::ZERO);
        }
        let under_way = host.starting.len();
        if under_way >= gate.at_once || (host.streak > 0 && under_way > 0) {
            return None;
        }
        if let Some(shared_by) = gate.shared_by {
            let shares = |other: &usize| self.of[*other].1 / shared_by == here / shared_by;
            if host.starting.iter().any(shares) && !host.greeted.iter().any(shares) {
                return None;
            }
        }
        let apart = host.last_start.map_or(Now::ZERO, |at| at.saturating_add(gate.apart));
        Some(apart.max(host.not_before))
    }

    /// Whether its host has failed, so that it is tried for a reason only.
    pub(super) fn has_failed(&self, slot: usize) -> bool {
        self.of(slot).is_some_and(|(host, _)| self.hosts[host].streak > 0)
    }

    /// A session was started in the slot.
    pub(super) fn started(&mut self, slot: usize, now: Now) {
        if let Some(host) = self.host(slot) {
            host.last_start = Some(now);
            host.starting.push(slot);
        }
    }

    /// The session in the slot has said hello. Its host is named if it was out.
    pub(super) fn greeted(&mut self, slot: usize) -> Option<(usize, Arc<str>)> {
        let (number, _) = self.of(slot)?;
        let host = &mut self.hosts[number];
        host.starting.retain(|&other| other != slot);
        host.greeted.push(slot);
        host.streak = 0;
        host.not_before = Now::ZERO;
        std::mem::take(&mut host.out).then(|| (number, Arc::clone(&host.name)))
    }

    /// The session in the slot is over.
    pub(super) fn ended(&mut self, slot: usize) {
        if let Some(host) = self.host(slot) {
            host.starting.retain(|&other| other != slot);
            host.greeted.retain(|&other| other != slot);
        }
    }

    /// It had said no hello. `started` is when it was started.
    pub(super) fn failed(
        &mut self,
        slot: usize,
        started: Now,
        now: Now,
        policy: &Policy,
        said: String,
    ) -> Verdict {
        let Some(host) = self.host(slot) else { return Verdict::Again };
        host.said = said;
        if host.streak > 0 && started < host.failed_at {
            // It was under way when another one failed.
            return Verdict::Again;
        }
        host.streak += 1;
        host.failed_at = now;
        let first = policy.backoff.max(SHORTEST_WAIT);
        let longest = policy.backoff_cap.max(LONGEST_WAIT);
        let wait = backed_off(first, longest, host.streak);
        let is_out = host.streak >= policy.give_up;
        host.not_before = now.saturating_add(if is_out { OUT_FOR } else { wait });
        if !is_out || std::mem::replace(&mut host.out, true) {
            return Verdict::Again;
        }
        Verdict::Out(format!(
            "the host {} is out: it could not be reached {} times in a row ({}); its packets go to the others, and it is \
             tried again every {OUT_FOR:?}",
            host.name, host.streak, host.said
        ))
    }

    /// The number of a slot's host.
    pub(super) fn number(&self, slot: usize) -> Option<usize> {
        Some(self.of(slot)?.0)
    }

    /// What each has said, if all that have a worker are out at once and no session is left.
    pub(super) fn all_out(&self) -> Option<String> {
        let used = |number: &usize| self.of.iter().any(|(host, _)| host == number);
        let mut hosts =
            (0..self.hosts.len()).filter(used).map(|number| &self.hosts[number]).peekable();
        hosts.peek()?;
        let mut all = String::new();
        for host in hosts {
            if !host.out || !host.greeted.is_empty() {
                return None;
            }
            let _ = write!(
                all,
                "{}{}: {}",
                if all.is_empty() { "" } else { "; " },
                host.name,
                host.said
            );
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Template;
    use crate::template::launcher::Launcher;

    const fn ms(n: u64) -> Now {
        Duration::from_millis(n)
    }

    fn hosts(names: &[&str], workers: usize) -> Hosts {
        let mut spec = Template::new("cat").via(Launcher::ssh(names.iter().copied())).spec;
        spec.begin(workers).unwrap();
        Hosts::new(&spec, workers)
    }

    fn policy() -> Policy {
        Policy { give_up: 3, ..Policy::default() }
    }

    #[test]
    fn one_makes_the_connection_and_the_others_wait_for_it() {
        let mut hosts = hosts(&["a"], 17);
        assert_eq!(hosts.may_start(0), Some(Now::ZERO));
        hosts.started(0, ms(1));
        assert_eq!(hosts.may_start(1), None);
        // Another connection.
        assert_eq!(hosts.may_start(8), Some(ms(6)));
        hosts.started(8, ms(6));
        hosts.greeted(0);
        assert_eq!((hosts.may_start(1), hosts.may_start(9)), (Some(ms(11)), None));
    }

    #[test]
    fn so_many_are_under_way_at_once() {
        let mut hosts = hosts(&["a"], 80);
        for slot in 0..8 {
            assert!(hosts.may_start(8 * slot).is_some());
            hosts.started(8 * slot, ms(0));
        }
        assert_eq!(hosts.may_start(64), None);
        hosts.greeted(0);
        assert!(hosts.may_start(64).is_some());
    }

    #[test]
    fn a_host_is_out_after_failures_in_a_row_and_in_again_after_a_hello() {
        let mut hosts = hosts(&["a", "b"], 32);
        let policy = policy();
        let fail = |hosts: &mut Hosts, slot, started, now| {
            hosts.ended(slot);
            hosts.failed(slot, started, now, &policy, "refused".into())
        };
        hosts.started(0, ms(0));
        hosts.started(16, ms(0));
        assert_eq!(fail(&mut hosts, 0, ms(0), ms(10)), Verdict::Again);
        // It was under way at the same time: the host is tried by one, once.
        assert_eq!(fail(&mut hosts, 16, ms(0), ms(12)), Verdict::Again);
        assert_eq!((hosts.may_start(0), hosts.may_start(1)), (Some(ms(60)), Some(Now::ZERO)));
        hosts.started(0, ms(60));
        assert_eq!(hosts.may_start(16), None);
        assert_eq!(fail(&mut hosts, 0, ms(60), ms(70)), Verdict::Again);
        assert_eq!(hosts.may_start(0), Some(ms(170)));
        let Verdict::Out(words) = fail(&mut hosts, 0, ms(170), ms(180)) else { panic!() };
        assert!(words.contains("host a") && words.contains("refused"), "{words}");
        assert_eq!((hosts.may_start(0), hosts.all_out()), (Some(ms(60_180)), None));
        assert_eq!(fail(&mut hosts, 0, ms(60_180), ms(60_190)), Verdict::Again);
        hosts.started(0, ms(120_190));
        assert_eq!(&*hosts.greeted(0).unwrap().1, "a");
        assert_eq!(hosts.greeted(2), None);
        assert!(!hosts.has_failed(0));
    }

    #[test]
    fn it_is_over_when_all_are_out_and_none_runs_any_more() {
        let mut hosts = hosts(&["a", "b"], 2);
        let policy = Policy { give_up: 1, ..policy() };
        hosts.started(0, ms(0));
        hosts.started(1, ms(0));
        hosts.greeted(1);
        hosts.ended(0);
        hosts.failed(0, ms(0), ms(1), &policy, "no".into());
        hosts.failed(1, ms(0), ms(1), &policy, "never".into());
        assert_eq!(hosts.all_out(), None);
        hosts.ended(1);
        assert_eq!(hosts.all_out().unwrap(), "a: no; b: never");
        // One for which there is no worker is not waited for.
        let mut beside = super::tests::hosts(&["a", "b"], 1);
        beside.failed(0, ms(0), ms(1), &policy, "no".into());
        assert_eq!(beside.all_out().unwrap(), "a: no");
        // This machine is never out.
        let mut with_local = super::tests::hosts(&["a", ":"], 2);
        with_local.failed(0, ms(0), ms(1), &policy, "no".into());
        assert_eq!(with_local.all_out(), None);
    }
}
