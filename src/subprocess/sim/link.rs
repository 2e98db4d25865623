//! The way to a simulated child on another machine: what its launcher makes of its stdout.

use std::collections::VecDeque;
use std::time::Duration;

use crate::subprocess::protocol::{Now, Sighting};
use crate::template::launcher::Link as Template;
use crate::template::launcher::script::GS;

use super::rng::Rng;
use super::schedule::HostFaults;
use super::worker::Child;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Well,
    /// No hello: the launcher ends.
    Refused,
    /// The connection breaks off after so many bytes.
    Breaks(u64),
    /// Nothing comes after so many bytes, and nobody ends.
    Freezes(u64),
}

/// How long a look takes.
const LOOK: Duration = Duration::from_millis(40);

/// When a look that is not answered is given up.
const NO_ANSWER: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Link {
    fate: Fate,
    mark: Vec<u8>,
    /// Noise and hello, before what the child writes, and the goodbye behind it.
    before: VecDeque<u8>,
    behind: Option<VecDeque<u8>>,
    passed: u64,
    pub(super) broken: bool,
}

impl Link {
    pub(super) fn new(
        link: &Template,
        pid: u32,
        faults: &HostFaults,
        rng: &mut Rng,
    ) -> Option<Self> {
        let mark = [&[GS], link.mark.as_deref()?.as_bytes(), b" "].concat();
        let one_in = |rng: &mut Rng, many: u64| many > 0 && rng.one_in(many);
        let fate = if one_in(rng, faults.refuses) {
            Fate::Refused
        } else if one_in(rng, faults.breaks) {
            Fate::Breaks(rng.skewed(400))
        } else if one_in(rng, faults.freezes) {
            Fate::Freezes(rng.skewed(400))
        } else {
            Fate::Well
        };
        let noise = (0..rng.below(faults.noise + 1)).map(|_| rng.below(256) as u8);
        let before = noise.chain(mark.clone()).chain(format!("{pid}\n").into_bytes());
        let before = before.collect();
        Some(Self { fate, mark, before, behind: None, passed: 0, broken: false })
    }

    /// Whether the launcher ends without a hello.
    pub(super) fn is_refused(&self) -> bool {
        self.fate == Fate::Refused
    }

    fn left(&self) -> usize {
        match self.fate {
            Fate::Well => usize::MAX,
            Fate::Refused => 0,
            Fate::Breaks(most) | Fate::Freezes(most) => (most - self.passed.min(most)) as usize,
        }
    }

    fn is_frozen(&self) -> bool {
        matches!(self.fate, Fate::Freezes(most) if self.passed >= most)
    }

    /// What is read of its stdout; `None` is its end.
    pub(super) fn read(&mut self, child: &mut Child, room: &mut [u8]) -> Option<usize> {
        if self.broken || (self.is_refused() && !child.is_alive()) {
            return None;
        }
        let left = self.left();
        if child.stdout.bytes.is_empty() && !child.stdout.writer && self.behind.is_none() {
            let status = child.status.unwrap_or_default();
            let told = if status & 0x7f == 0 { status >> 8 } else { 128 + (status & 0x7f) };
            let line = [&self.mark[..], format!("end {told}\n").as_bytes()].concat();
            self.behind = Some(line.into());
        }
        let mut n = 0;
        for to in room.iter_mut().take(left) {
            let none = &mut VecDeque::new();
            let behind = self.behind.as_mut().unwrap_or(none);
            let byte = self.before.pop_front().or_else(|| child.stdout.bytes.pop_front());
            let Some(byte) = byte.or_else(|| behind.pop_front()) else { break };
            *to = byte;
            n += 1;
        }
        self.passed += n as u64;
        if matches!(self.fate, Fate::Breaks(most) if self.passed >= most) {
            self.broken = true;
        }
        let through =
            self.behind.as_ref().is_some_and(VecDeque::is_empty) && self.before.is_empty();
        if n == 0 && (self.broken || (through && !self.is_frozen())) { None } else { Some(n) }
    }

    /// What a look at this time shows, and when.
    pub(super) fn look(&self, child: &Child, now: Now) -> (Now, Sighting) {
        if self.is_frozen() {
            return (now + NO_ANSWER, Sighting::Unanswered);
        }
        let there = child.is_alive() && !self.broken;
        (now + LOOK, if there { Sighting::There } else { Sighting::Gone })
    }
}
