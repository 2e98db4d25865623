//! What has been heard of a session behind a launcher: the noise of a login, its hello, its goodbye. Pure.
//!
//! # Invariants
//! 1. What it says is shown between hello and goodbye alone, and its output ends with the goodbye: what has said hello
//!    or is to say it, and has not said goodbye, has broken off when its output ends.
//! 2. How the launcher ended says nothing about the tool; the goodbye does.
//! 3. A bare one says neither: all of its output is the tool's, and so is its launcher's status.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use memchr::memrchr;

use crate::subprocess::remote::deframe::{Deframer, Greeting, status_of};
use crate::template::launcher::Link;
use crate::template::launcher::script::GS;
use crate::template::words::LONGEST_BANNER;

/// How much of what comes before the hello is kept, to be shown.
const KEPT_NOISE: usize = 200;

/// How long a launcher may stay when its source has said goodbye. A feed gives it as long as any worker that has closed its
/// stdout.
pub(crate) const LAUNCHER_GRACE: Duration = Duration::from_millis(500);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Greetings {
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
}

impl Greetings {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            deframer: link.mark.as_deref().map(Deframer::new),
            link,
            pid: None,
            goodbye: None,
            noise: Vec::new(),
            noise_len: 0,
            unheard: Vec::new(),
        }
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// What is written before anything else.
    pub(crate) fn first_line(&self) -> Option<Arc<[u8]>> {
        self.link.line.clone()
    }

    /// Whether its stdout has more in it than what the tool says.
    pub(crate) fn is_on_stdout(&self) -> bool {
        self.deframer.is_some() && !self.link.on_stderr
    }

    /// Listens to what has been read from stdout and not been shown: `pass` has the layer look at it, and moves the noise to where
    /// it is told. To be called again where there was news, unless that [was the last](Greetings::is_done).
    pub(crate) fn listen(
        &mut self,
        pass: impl FnOnce(&mut Deframer, &mut Vec<u8>) -> Option<Greeting>,
    ) -> Option<Greeting> {
        let deframer = self.deframer.as_mut()?;
        let before = deframer.is_waiting();
        let mut dropped = Vec::new();
        let news = pass(deframer, &mut dropped);
        if before {
            self.noise_len += dropped.len();
            let room = KEPT_NOISE.saturating_sub(self.noise.len());
            self.noise.extend_from_slice(&dropped[..dropped.len().min(room)]);
        }
        self.note(news);
        news
    }

    /// The same of what comes on stderr: these bytes, behind what has come and is not shown yet. What is the tool's, or
    /// its login's, is put behind `shown`; to be called again, with nothing, where there was news.
    pub(crate) fn listen_on_stderr(
        &mut self,
        bytes: &[u8],
        shown: &mut Vec<u8>,
    ) -> Option<Greeting> {
        let deframer = self.deframer.as_mut()?;
        self.unheard.extend_from_slice(bytes);
        let passage = deframer.look(&self.unheard);
        let tool = passage.noise + passage.tool;
        // The noise of a login is worth keeping, the line of the hello is not.
        let noise = &self.unheard[..passage.noise];
        let hello = memrchr(GS, noise).filter(|_| passage.news.is_some());
        shown.extend_from_slice(&noise[..hello.unwrap_or(noise.len())]);
        shown.extend_from_slice(&self.unheard[passage.noise..tool]);
        let gone = if passage.is_last { self.unheard.len() } else { tool };
        self.unheard.drain(..gone);
        self.note(passage.news);
        passage.news
    }

    fn note(&mut self, news: Option<Greeting>) {
        match news {
            Some(Greeting::Hello(pid)) => self.pid = Some(pid),
            Some(Greeting::Goodbye(status)) => self.goodbye = Some(status_of(status)),
            Some(Greeting::Mistaken) | None => {}
        }
    }

    /// Whether its hello has come, or none is to come.
    pub(crate) fn is_greeted(&self) -> bool {
        self.deframer.is_none() || self.pid.is_some()
    }

    /// The process that its hello has told.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Whether its output has come to its end with the last byte of the tool.
    pub(crate) fn has_said_goodbye(&self) -> bool {
        self.goodbye.is_some()
    }

    /// Whether nothing more of it is shown.
    pub(crate) fn is_done(&self) -> bool {
        self.deframer.as_ref().is_some_and(Deframer::is_done)
    }

    /// Whether an output that ends now has broken off.
    pub(crate) fn breaks_off(&self) -> bool {
        self.deframer.is_some() && self.goodbye.is_none()
    }

    /// Whether it is one of those that never come to their hello: a login that prints without an end is no host.
    pub(crate) fn is_noise_alone(&self) -> bool {
        !self.is_greeted() && self.noise_len > LONGEST_BANNER
    }

    /// The beginning of what came before the hello.
    pub(crate) fn noise(&self) -> &[u8] {
        &self.noise
    }

    /// Whether so many bytes that are hidden may be the tool's, so that they must not be hidden for ever.
    pub(crate) fn is_doubtful(&self, hidden: usize) -> bool {
        self.deframer.as_ref().is_some_and(|deframer| deframer.is_doubtful(hidden))
    }

    /// Nothing has followed so many hidden bytes: they are shown.
    pub(crate) fn give(&mut self, hidden: usize) {
        if let Some(deframer) = &mut self.deframer {
            deframer.give(hidden);
        }
    }

    /// How the tool ended, where its launcher ended like this.
    pub(crate) fn true_status(&self, launcher: Option<ExitStatus>) -> Option<ExitStatus> {
        if self.deframer.is_some() { self.goodbye } else { launcher }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::unix::process::ExitStatusExt;

    const MARK: &str = "subfeedmark";

    fn greetings(mark: Option<&str>) -> Greetings {
        Greetings::new(Link {
            host: "there".into(),
            mark: mark.map(Into::into),
            on_stderr: true,
            line: None,
            least_in_flight: 1,
            turn: Duration::ZERO,
            silence: None,
            connect: Some(Duration::from_secs(1)),
        })
    }

    fn listened(greetings: &mut Greetings, bytes: &[u8]) -> Vec<u8> {
        let mut shown = Vec::new();
        let mut news = greetings.listen_on_stderr(bytes, &mut shown);
        while news.is_some() && !greetings.is_done() {
            news = greetings.listen_on_stderr(b"", &mut shown);
        }
        shown
    }

    #[test]
    fn between_hello_and_goodbye_it_has_broken_off_whatever_its_launcher_says() {
        let ended = ExitStatus::from_raw(0);
        let mut far = greetings(Some(MARK));
        assert!(far.breaks_off() && !far.is_greeted() && far.true_status(Some(ended)).is_none());
        assert_eq!(listened(&mut far, b"motd\n\x1dsubfeedmark 77\nnoted\n"), b"motd\nnoted\n");
        assert!(far.breaks_off() && far.is_greeted() && far.pid() == Some(77));
        assert_eq!(listened(&mut far, b"last\x1dsubfeedmark end 42\nlogout\n"), b"last");
        assert!(!far.breaks_off() && far.has_said_goodbye() && far.is_done());
        assert_eq!(far.true_status(Some(ended)).and_then(|status| status.code()), Some(42));
    }

    #[test]
    fn a_bare_one_says_neither_and_has_its_launchers_status() {
        let ended = ExitStatus::from_raw(3 << 8);
        let far = greetings(None);
        assert!(far.is_greeted() && !far.breaks_off() && !far.is_done() && far.pid().is_none());
        assert_eq!(far.true_status(Some(ended)), Some(ended));
    }

    #[test]
    fn noise_without_an_end_is_noticed_and_its_beginning_kept() {
        let mut far = greetings(Some(MARK));
        for round in 0..=LONGEST_BANNER / 1_000 {
            assert!(!far.is_noise_alone(), "round {round}");
            far.listen(|deframer, dropped| {
                dropped.extend_from_slice(&[b'x'; 1_000]);
                deframer.look(b"").news
            });
        }
        assert!(far.is_noise_alone());
        assert_eq!(far.noise(), [b'x'; KEPT_NOISE]);
    }
}
