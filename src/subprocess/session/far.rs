//! A session behind a launcher: what is [heard](Greetings) of it, and the silence in between.
//!
//! # Invariants
//! 1. Nothing is asked of it before its hello.
//! 2. Its output ends for the framing with the goodbye alone: what breaks off has no end.
//! 3. Whatever was written to it counts as read.
//! 4. A silence leads to a look, and only what the look shows to an end.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Limit, excerpt};
use crate::record::Run;
use crate::subprocess::protocol::{Now, Operation, Sighting};
use crate::subprocess::remote::deframe::{DOUBTED_FOR, Greeting};
use crate::subprocess::remote::greetings::Greetings;
use crate::subprocess::session::ended::Ended;
use crate::subprocess::session::{Context, News, Session, Why};
use crate::template::launcher::Link;
use crate::window::packet::Label;

/// How many times the feed's usual time to answer a silence is.
const USUAL_TIMES: u32 = 20;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Far {
    greetings: Greetings,
    /// When it was last asked for a look at it.
    looked_at: Option<Now>,
    /// A look has not been answered yet.
    asked: bool,
    /// The look has shown that it is gone, or has shown nothing.
    lost: Option<Sighting>,
}

impl Far {
    pub(super) fn new(link: Link) -> Self {
        Self { greetings: Greetings::new(link), looked_at: None, asked: false, lost: None }
    }

    pub(super) fn host(&self) -> &Arc<str> {
        &self.greetings.link().host
    }

    /// How many packets may be in flight at least, and how much work in time.
    pub(super) fn depth(&self) -> (u64, Duration) {
        let link = self.greetings.link();
        (link.least_in_flight, link.turn)
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
    fn greetings(&self) -> Option<&Greetings> {
        self.far.as_ref().map(|far| &far.greetings)
    }

    /// What is written before anything else.
    pub(super) fn first_line(&self) -> Option<Arc<[u8]>> {
        self.greetings()?.first_line()
    }

    /// Whether it is here, or has said hello.
    pub(crate) fn is_greeted(&self) -> bool {
        self.greetings().is_none_or(Greetings::is_greeted)
    }

    /// The host whose hello is awaited.
    pub(super) fn far_host(&self) -> Option<&str> {
        let far = self.far.as_ref().filter(|far| !far.greetings.is_greeted())?;
        Some(far.host())
    }

    /// How long its hello is awaited.
    pub(super) fn connect_limit(&self) -> Option<Duration> {
        self.greetings()
            .filter(|greetings| !greetings.is_greeted())
            .and_then(|greetings| greetings.link().connect)
    }

    /// Whether its output broke off: it has come to its end without a goodbye.
    pub(super) fn breaks_off(&self) -> bool {
        self.greetings().is_some_and(Greetings::breaks_off)
    }

    /// Whether it has said goodbye.
    pub(super) fn has_said_goodbye(&self) -> bool {
        self.greetings().is_some_and(Greetings::has_said_goodbye)
    }

    /// How it ended, of which its launcher's status, given here, may say nothing.
    pub(super) fn true_status(&self, launcher: Option<ExitStatus>) -> Option<ExitStatus> {
        self.greetings().map_or(launcher, |greetings| greetings.true_status(launcher))
    }

    /// Tells the tool's bytes from hello and goodbye, in so many that have just been read from an output.
    pub(super) fn pass_output(
        &mut self,
        output: usize,
        read: usize,
        cx: &Context<'_>,
        news: &mut News,
    ) {
        if output != 0 || !self.greetings().is_some_and(Greetings::is_on_stdout) {
            return;
        }
        self.outputs[0].unread().hide(read);
        while let Some(Far { greetings, .. }) = self.far.as_deref_mut() {
            let unread = self.outputs[0].unread();
            let Some(greeting) = greetings.listen(|layer, dropped| unread.pass(layer, dropped))
            else {
                break;
            };
            let is_last = greetings.is_done();
            self.greeted(greeting, cx, news);
            if is_last {
                break;
            }
        }
        if self.greetings().is_some_and(Greetings::is_noise_alone) && self.child.is_running() {
            self.kill(cx, news);
        }
    }

    /// The same of what was written on stderr. Gives what is the tool's, or its login's; nothing where the hello does not
    /// come there.
    pub(super) fn pass_stderr(
        &mut self,
        bytes: &[u8],
        cx: &Context<'_>,
        news: &mut News,
    ) -> Option<Vec<u8>> {
        self.greetings()
            .filter(|greetings| greetings.link().on_stderr && greetings.link().mark.is_some())?;
        let (mut shown, mut fresh) = (Vec::new(), bytes);
        while let Some(Far { greetings, .. }) = self.far.as_deref_mut()
            && let Some(greeting) =
                greetings.listen_on_stderr(std::mem::take(&mut fresh), &mut shown)
        {
            let is_last = greetings.is_done();
            self.greeted(greeting, cx, news);
            if is_last {
                break;
            }
        }
        Some(shown)
    }

    fn greeted(&mut self, greeting: Greeting, cx: &Context<'_>, news: &mut News) {
        let now = cx.now.patient;
        match greeting {
            Greeting::Hello(pid) => {
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
            Greeting::Goodbye(_) => {
                let on_stdout = self.greetings().is_some_and(Greetings::is_on_stdout);
                if on_stdout && self.outputs[0].close() {
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

    /// Until when bytes are hidden that may be the tool's.
    pub(super) fn doubted_until(&self) -> Option<Now> {
        let is_doubtful = self.greetings()?.is_doubtful(self.outputs[0].hidden());
        is_doubtful.then(|| self.moved.saturating_add(DOUBTED_FOR))
    }

    /// Nothing has followed them: they are shown.
    pub(super) fn show_doubted(&mut self, cx: &Context<'_>, news: &mut News) {
        let Some(far) = &mut self.far else { return };
        far.greetings.give(self.outputs[0].hidden());
        self.outputs[0].keep_nothing();
        self.outputs[0].unread().show();
        self.cut(cx, news);
    }

    // ---------------------------------------------------------------- silence

    /// Until when it may be silent before it is looked at.
    pub(super) fn silent_until(&self, cx: &Context<'_>) -> Option<Now> {
        let far =
            self.far.as_ref().filter(|_| self.owed() > 0 && self.closed_output_at.is_none())?;
        far.greetings.pid()?;
        let least = far.greetings.link().silence?;
        if far.asked || far.greetings.is_done() {
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
        let Some(pid) = far.greetings.pid() else { return };
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
        let Some(far) = self.far.as_mut().filter(|far| far.greetings.pid() == Some(pid)) else {
            return;
        };
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
        let greetings = self
            .greetings()
            .filter(|greetings| !greetings.has_said_goodbye() && greetings.is_greeted())?;
        if greetings.pid().is_none() && self.child.signalled().is_none() {
            // It is bare, and its launcher has ended by itself.
            return None;
        }
        Some(Operation::KillFar { slot: self.slot, pid: greetings.pid() })
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
        if let Some(greetings) =
            session.greetings().filter(|greetings| !greetings.noise().is_empty())
        {
            let said = excerpt(greetings.noise());
            parts.push(if greetings.is_noise_alone() {
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
