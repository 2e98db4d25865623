//! A session behind a launcher: its hello and goodbye, and the silence between them.
//!
//! # Invariants
//! 1. Nothing is asked of it before its hello.
//! 2. What it says is shown to the framing between hello and goodbye, and its output ends for the framing with the
//!    goodbye alone: what breaks off has no end.
//! 3. How the launcher ended says nothing about the tool; the goodbye does.
//! 4. Whatever was written to it counts as read.
//! 5. A silence leads to a look, and only what the look shows to an end.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Limit, excerpt};
use crate::record::Run;
use crate::subprocess::protocol::{Now, Operation, Sighting};
use crate::subprocess::remote::deframe::{DOUBTED_FOR, Deframer, Greeting, status_of};
use crate::subprocess::session::ended::Ended;
use crate::subprocess::session::{Context, News, Session, Why};
use crate::template::launcher::Link;
use crate::template::words::LONGEST_BANNER;
use crate::window::packet::Label;

/// How much of what comes before the hello is kept, to be shown.
const KEPT_NOISE: usize = 200;

/// How many times the feed's usual time to answer a silence is.
const USUAL_TIMES: u32 = 20;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Far {
    link: Link,
    /// `None` if it is bare.
    deframer: Option<Deframer>,
    /// Of the `sh` on the far side.
    pid: Option<u32>,
    goodbye: Option<ExitStatus>,
    /// What came before the hello: its beginning, and its length.
    noise: Vec<u8>,
    noise_len: usize,
    /// What was read from stderr and is not passed on, where the hello comes there.
    unheard: Vec<u8>,
    /// When it was last asked for a look at it.
    looked_at: Option<Now>,
    /// A look has not been answered yet.
    asked: bool,
    /// The look has shown that it is gone, or has shown nothing.
    lost: Option<Sighting>,
}

impl Far {
    pub(super) fn new(link: Link) -> Self {
        Self {
            deframer: link.mark.as_deref().map(Deframer::new),
            link,
            pid: None,
            goodbye: None,
            noise: Vec::new(),
            noise_len: 0,
            unheard: Vec::new(),
            looked_at: None,
            asked: false,
            lost: None,
        }
    }

    pub(super) fn host(&self) -> &Arc<str> {
        &self.link.host
    }

    /// How many packets may be in flight at least, and how much work in time.
    pub(super) fn depth(&self) -> (u64, Duration) {
        (self.link.least_in_flight, self.link.turn)
    }

    /// Whether its hello has come, or none is to come.
    fn is_greeted(&self) -> bool {
        self.deframer.is_none() || self.pid.is_some()
    }

    fn keep_noise(&mut self, bytes: &[u8]) {
        self.noise_len += bytes.len();
        let room = KEPT_NOISE.saturating_sub(self.noise.len());
        self.noise.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// How the connection to a host was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// It said no hello.
    Unreached,
    /// It said no goodbye.
    BrokenOff,
}

impl Session {
    /// What is written before anything else.
    pub(super) fn first_line(&self) -> Option<Arc<[u8]>> {
        self.far.as_ref()?.link.line.clone()
    }

    /// Whether it is here, or has said hello.
    pub(crate) fn is_greeted(&self) -> bool {
        self.far.as_ref().is_none_or(|far| far.is_greeted())
    }

    /// Until when its hello is awaited, and since when.
    pub(super) fn connect_limit(&self) -> Option<Duration> {
        self.far.as_ref().filter(|far| !far.is_greeted()).map(|far| far.link.connect)
    }

    /// Whether its output broke off: it has come to its end without a goodbye.
    pub(super) fn breaks_off(&self) -> bool {
        self.far.as_ref().is_some_and(|far| far.deframer.is_some() && far.goodbye.is_none())
    }

    /// Whether it has said goodbye.
    pub(super) fn has_said_goodbye(&self) -> bool {
        self.far.as_ref().is_some_and(|far| far.goodbye.is_some())
    }

    /// How it ended, of which its launcher's status, given here, may say nothing.
    pub(super) fn true_status(&self, launcher: Option<ExitStatus>) -> Option<ExitStatus> {
        match &self.far {
            Some(far) if far.deframer.is_some() => far.goodbye,
            _ => launcher,
        }
    }

    /// Tells the tool's bytes from hello and goodbye, in so many that have just been read from an output.
    pub(super) fn pass_output(
        &mut self,
        output: usize,
        read: usize,
        cx: &Context<'_>,
        news: &mut News,
    ) {
        let passes =
            self.far.as_ref().is_some_and(|far| far.deframer.is_some() && !far.link.on_stderr);
        if passes && output == 0 {
            self.outputs[output].unread().hide(read);
        }
        while let Some(far) = self.far.as_mut().filter(|far| !far.link.on_stderr && output == 0)
            && let Some(deframer) = &mut far.deframer
        {
            let before = deframer.is_waiting();
            let mut dropped = Vec::new();
            let found = self.outputs[output].unread().pass(deframer, &mut dropped);
            if before {
                far.keep_noise(&dropped);
            }
            let Some(greeting) = found else { break };
            self.greeted(greeting, cx, news);
            if !matches!(greeting, Greeting::Hello(_)) {
                break;
            }
        }
        self.is_it_noise_alone(cx, news);
    }

    /// The same of what was written on stderr. Gives what is the tool's, or its login's.
    pub(super) fn pass_stderr(
        &mut self,
        bytes: &[u8],
        cx: &Context<'_>,
        news: &mut News,
    ) -> Option<Vec<u8>> {
        let mut shown = Vec::new();
        {
            let far = self.far.as_mut().filter(|far| far.link.on_stderr)?;
            far.deframer.as_ref()?;
            far.unheard.extend_from_slice(bytes);
        }
        while let Some(far) = &mut self.far
            && let Some(deframer) = &mut far.deframer
        {
            let passage = deframer.look(&far.unheard);
            let to = if passage.news.is_some() { passage.noise } else { 0 };
            // The noise of a login is worth keeping, the line of the hello is not.
            let noise = &far.unheard[..passage.noise];
            let hello = memchr::memrchr(crate::template::launcher::script::GS, noise);
            let noise = &noise[..hello.filter(|_| to > 0).unwrap_or(noise.len())];
            shown.extend_from_slice(noise);
            shown.extend_from_slice(&far.unheard[passage.noise..passage.noise + passage.tool]);
            let gone =
                if passage.is_last { far.unheard.len() } else { passage.noise + passage.tool };
            far.unheard.drain(..gone);
            let Some(greeting) = passage.news else { break };
            self.greeted(greeting, cx, news);
            if passage.is_last {
                break;
            }
        }
        Some(shown)
    }

    fn greeted(&mut self, greeting: Greeting, cx: &Context<'_>, news: &mut News) {
        let now = cx.now.patient;
        let Some(far) = &mut self.far else { return };
        match greeting {
            Greeting::Hello(pid) => {
                far.pid = Some(pid);
                let label = Label { pid: Some(pid), ..Label::clone(&self.label) };
                self.label = Arc::new(label);
                self.head_since = now;
                news.greeted = true;
                tell!(
                    debug,
                    self,
                    "connected",
                    host = self.label.host.as_deref().unwrap_or_default()
                );
            }
            Greeting::Goodbye(status) => {
                far.goodbye = Some(status_of(status));
                if !far.link.on_stderr && self.outputs[0].close() {
                    self.child.output_closed();
                }
                if self.child.is_running() {
                    // The launcher has nothing left to do.
                    self.closed_output_at.get_or_insert(now);
                }
            }
            Greeting::Mistaken => {
                let error = self.describe(
                    ErrorKind::Reply,
                    "the first bytes of the goodbye came alone, and were taken for the end of a reply",
                );
                news.fatal = Some(error);
            }
        }
    }

    /// A login that never comes to an end is no host.
    fn is_it_noise_alone(&mut self, cx: &Context<'_>, news: &mut News) {
        let flooded = self
            .far
            .as_ref()
            .is_some_and(|far| !far.is_greeted() && far.noise_len > LONGEST_BANNER);
        if flooded && self.child.is_running() {
            self.kill(cx, news);
        }
    }

    /// Until when bytes are hidden that may be the tool's.
    pub(super) fn doubted_until(&self) -> Option<Now> {
        let deframer = self.far.as_ref()?.deframer.as_ref()?;
        let hidden = self.outputs[0].hidden();
        deframer.is_doubtful(hidden).then(|| self.moved.saturating_add(DOUBTED_FOR))
    }

    /// Nothing has followed them: they are shown.
    pub(super) fn show_doubted(&mut self, cx: &Context<'_>, news: &mut News) {
        let Some(deframer) = self.far.as_mut().and_then(|far| far.deframer.as_mut()) else {
            return;
        };
        deframer.give(self.outputs[0].hidden());
        self.outputs[0].unread().show();
        self.cut(cx, news);
    }

    // ---------------------------------------------------------------- silence

    /// Until when it may be silent before it is looked at.
    pub(super) fn silent_until(&self, cx: &Context<'_>) -> Option<Now> {
        let far =
            self.far.as_ref().filter(|_| self.owed() > 0 && self.closed_output_at.is_none())?;
        far.pid?;
        let least = far.link.silence?;
        if far.asked || far.deframer.as_ref().is_none_or(Deframer::is_done) {
            return None;
        }
        let usual = cx.usual_answer.unwrap_or_default();
        let limit = least.max(usual.saturating_mul(USUAL_TIMES));
        let since = self.moved.max(self.head_since);
        match far.looked_at.filter(|&at| at >= since) {
            // It was there: the next look comes after as long a time again.
            Some(at) => Some(at.saturating_add((at - since).max(limit))),
            None => Some(since.saturating_add(limit)),
        }
    }

    /// It has been silent for long: asks for a look.
    pub(super) fn look_far(&mut self, cx: &Context<'_>, news: &mut News) {
        let Some(far) = &mut self.far else { return };
        let Some(pid) = far.pid else { return };
        far.looked_at = Some(cx.now.patient);
        far.asked = true;
        tell!(debug, self, "looked at", host = self.label.host.as_deref().unwrap_or_default());
        news.operations.push(Operation::LookFar { slot: self.slot, pid });
    }

    /// What a look at the process with this pid has shown.
    pub(crate) fn sighted(
        &mut self,
        pid: u32,
        sighting: Sighting,
        cx: &Context<'_>,
        news: &mut News,
    ) {
        let Some(far) = self.far.as_mut().filter(|far| far.pid == Some(pid)) else { return };
        far.asked = false;
        let since = self.moved.max(self.head_since);
        // It may have spoken since.
        let is_silent = far.looked_at.is_some_and(|at| since <= at) && self.owed() > 0;
        if !is_silent || !self.child.is_running() {
            return;
        }
        let far = self.far.as_mut().filter(|_| sighting != Sighting::There);
        if let Some(far) = far {
            far.lost = Some(sighting);
            self.kill(cx, news);
        }
    }

    // ---------------------------------------------------------------- the end

    /// How the connection to its host was lost, if it was: not by a limit that it ran into, nor by our own wish.
    pub(super) fn loss(&self) -> Option<Loss> {
        if matches!(self.why, Some(Why::Stopped | Why::Distrusted | Why::Timeout))
            || !self.breaks_off()
        {
            return None;
        }
        Some(if self.is_greeted() { Loss::BrokenOff } else { Loss::Unreached })
    }

    /// What must be done about the far process once its launcher is gone.
    pub(super) fn may_survive(&self) -> Option<Operation> {
        let far = self.far.as_ref().filter(|far| far.goodbye.is_none() && far.is_greeted())?;
        if far.pid.is_none() && self.child.signalled().is_none() {
            // It is bare, and its launcher has ended by itself.
            return None;
        }
        Some(Operation::KillFar { slot: self.slot, pid: far.pid })
    }
}

impl Ended {
    /// See [`Session::loss`].
    pub(crate) fn loss(&self) -> Option<Loss> {
        self.session().loss()
    }

    /// When it was started.
    pub(crate) fn started(&self) -> Now {
        self.session().started
    }

    /// What was heard of a host that said no hello.
    pub(crate) fn describe_loss(&self) -> String {
        let session = self.session();
        let stderr = session.child.stderr();
        let mut parts: Vec<String> = Vec::new();
        if let Some(limit) = session.limit {
            parts.push(limit.to_string());
        }
        let lines = stderr.lines();
        if let Some((first, last)) = lines {
            parts.push(excerpt(last.unwrap_or(first)));
        }
        if let Some(far) = session.far.as_ref().filter(|far| !far.noise.is_empty()) {
            let said = excerpt(&far.noise);
            parts.push(if far.noise_len > LONGEST_BANNER {
                format!("it prints without an end, and begins with {said}")
            } else {
                format!("it printed {said}")
            });
        }
        if parts.is_empty() || stderr.lines().is_none() {
            parts.push(match self.launcher_status() {
                Some(status) => format!("the launcher ended with {status}"),
                None => "how the launcher ended is not known".to_owned(),
            });
        }
        parts.join("; ")
    }

    /// The error of a packet that was in a session whose connection was lost.
    pub(super) fn lost_connection(&self) -> Error {
        let session = self.session();
        let host = session.label.host.as_deref().unwrap_or_default();
        let message = match session.far.as_ref().and_then(|far| far.lost) {
            Some(Sighting::Gone) => {
                format!("the worker fell silent, and its process on {host} is gone")
            }
            Some(_) => format!("the worker fell silent, and {host} could not be asked about it"),
            None => format!("the connection to {host} broke off before the worker answered"),
        };
        let error = session.describe(ErrorKind::Transport, message);
        let error = error.exited(self.launcher_status(), session.child.signalled());
        match session.limit {
            Some(limit @ Limit::Connect(_)) => error.limited(limit),
            _ => error,
        }
    }

    /// The packets of a session whose connection was lost. The one that it was at has been lost once more; the
    /// others are free.
    pub(super) fn broken_off(
        &mut self,
        mut runs: std::collections::VecDeque<Run>,
        unread: u64,
        cx: &Context<'_>,
    ) -> Vec<super::Obligation> {
        use super::Obligation;
        let mut obligations = Vec::new();
        let all: u64 = runs.iter().map(|run| run.len() as u64).sum();
        if cx.spec.policy.at_most_once {
            let mut touched = all.saturating_sub(unread);
            while touched > 0
                && let Some(packet) = super::flight::pop_front(&mut runs)
            {
                touched -= 1;
                let error =
                    self.lost_connection().hint("at_most_once keeps it from being sent again");
                obligations.push(Obligation::Lost(packet, error));
            }
        } else if unread < all
            && let Some(head) = super::flight::pop_front(&mut runs)
        {
            let error = self.lost_connection();
            obligations.push(Obligation::BrokenOff(head, error));
        }
        let free = |run| Obligation::Again(run, super::Care::Free);
        obligations.extend(runs.into_iter().map(free));
        obligations
    }
}
