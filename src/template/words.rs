//! What is written to a worker before the first request and after the last, and what it prints there.

use std::sync::Arc;
use std::time::Duration;

use bstr::ByteSlice;

use crate::template::Template;

/// How much of an undeclared or endless banner is read before the session is given up.
pub(crate) const LONGEST_BANNER: usize = 1 << 20;

#[derive(Clone, Debug, Default)]
pub(crate) struct Words {
    /// Written to stdin before the first request.
    pub(crate) preamble: Option<Arc<[u8]>>,
    /// Written to stdin before it is closed.
    pub(crate) farewell: Option<Arc<[u8]>>,
    pub(crate) banner: Banner,
    /// What the worker prints behind its last reply: exactly this, or nothing.
    pub(crate) skip_at_end: Option<Arc<[u8]>>,
}

impl Words {
    /// More bytes that are written before the first request, behind those that are there.
    pub(crate) fn add_to_preamble(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let before = self.preamble.as_deref().unwrap_or_default();
            self.preamble = Some([before, bytes].concat().into());
        }
    }
}

/// What a worker prints before its first reply.
///
/// Up to three conditions, given in any order. The banner is over where the last of them is met.
#[derive(Clone, Debug, Default)]
pub(crate) struct Banner {
    /// So many lines have come.
    lines: usize,
    /// This marker has come.
    until: Option<Arc<[u8]>>,
    /// This marker has come, and nothing is asked before it has.
    ready: Option<Ready>,
}

#[derive(Clone, Debug)]
struct Ready {
    marker: Arc<[u8]>,
    limit: Option<Duration>,
}

impl Banner {
    /// How many bytes of `output`, which has been seen from its beginning, are banner, if it is over.
    pub(crate) fn end(&self, output: &[u8]) -> Option<usize> {
        let lines = match self.lines {
            0 => 0,
            lines => memchr::memchr_iter(b'\n', output).nth(lines - 1)? + 1,
        };
        let markers = self.until.iter().chain(self.ready.iter().map(|ready| &ready.marker));
        markers
            .into_iter()
            .try_fold(lines, |end, marker| Some(end.max(output.find(&marker[..])? + marker.len())))
    }

    /// Whether there is none: the first byte belongs to a reply.
    pub(crate) fn is_empty(&self) -> bool {
        self.lines == 0 && self.until.is_none() && self.ready.is_none()
    }

    /// Whether a marker was given that is found everywhere.
    pub(crate) fn has_empty_marker(&self) -> bool {
        let empty = |marker: &Arc<[u8]>| marker.is_empty();
        self.until.as_ref().is_some_and(empty)
            || self.ready.as_ref().is_some_and(|ready| empty(&ready.marker))
    }

    /// Whether the first request must wait until the banner is over.
    pub(crate) fn holds_requests(&self) -> bool {
        self.ready.is_some()
    }

    /// How long after its start a session may take until its banner is over.
    pub(crate) fn ready_limit(&self) -> Option<Duration> {
        self.ready.as_ref()?.limit
    }
}

/// A worker's first and last words.
impl<E, D> Template<E, D> {
    /// Writes these bytes to each worker's stdin before its first request, for settings, imports or a program to load. They
    /// are written unchanged, and no reply to them is expected.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// // The first line configures the worker.
    /// let script = r#"read -r suffix; while read -r x; do echo "$x$suffix"; done"#;
    /// let template = Template::shell(script).preamble("!\n");
    /// let mut feed = ["hello"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "hello!");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn preamble(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.spec.words.preamble = Some(bytes.into().into());
        self
    }

    /// Writes these bytes to each worker's stdin before it is closed, for tools that do not exit when their input ends
    /// (`exiftool -stay_open` needs `-stay_open\nFalse\n`).
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let script = r#"while read -r x; do [ "$x" = quit ] && exit; echo "$x"; done; exit 9"#;
    /// let template = Template::shell(script).farewell("quit\n");
    /// let feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// feed.finish()?; // Without the farewell it would report the exit status 9.
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn farewell(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.spec.words.farewell = Some(bytes.into().into());
        self
    }

    /// Skips the first `lines` lines that each worker prints, such as a banner (`hunspell -a` prints one line).
    ///
    /// Combined with [`skip_until`](Template::skip_until) and [`ready`](Template::ready), in any order, everything up to
    /// the last of them is skipped.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::shell("echo 'Calculator 1.0'; echo; exec cat").skip_lines(2);
    /// let mut feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "a");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn skip_lines(mut self, lines: usize) -> Self {
        self.spec.words.banner.lines = lines;
        self
    }

    /// Skips everything that each worker prints up to and including this marker, which may stand anywhere in its output.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::shell("printf 'loading ... done. > '; exec cat").skip_until("> ");
    /// let mut feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "a");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn skip_until(mut self, marker: impl AsRef<[u8]>) -> Self {
        self.spec.words.banner.until = Some(marker.as_ref().into());
        self
    }

    /// Sends a worker its first request only after it has printed this marker, for programs that take long to load. The
    /// marker and everything before it are skipped.
    ///
    /// The time limit counts from the start of the session; `None` means no limit. A session that exceeds it is killed and
    /// counts as one that ended without a reply.
    ///
    /// Combined with [`skip_lines`](Template::skip_lines) or [`skip_until`](Template::skip_until), in any order, the first
    /// request waits until all of them are met, and the limit covers all of them.
    ///
    /// ```
    /// use std::time::Duration;
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::shell("sleep 0.1; echo READY; exec cat").ready("READY\n", Duration::from_secs(60));
    /// let mut feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "a");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn ready(mut self, marker: impl AsRef<[u8]>, limit: impl Into<Option<Duration>>) -> Self {
        let ready = Ready { marker: marker.as_ref().into(), limit: limit.into() };
        self.spec.words.banner.ready = Some(ready);
        self
    }

    /// What each worker prints after its last reply, before it exits: if exactly these bytes come there, they are skipped
    /// (`enchant-2 -a` prints a blank line: `skip_at_end("\n")`).
    ///
    /// Any other output beyond the expected replies is a fatal error, because replies may then belong to the wrong
    /// requests.
    ///
    /// A reply may equal these bytes: an empty line is a reply, too. Where an output ends with them they are never a
    /// reply: a tool that exits early, with requests unread, does not answer them in this way, and one that has passed
    /// over a request does not make up for it. Therefore a reply that equals these bytes, with nothing behind it, is kept
    /// back until more comes, and for 100 ms at most; then it is a reply.
    ///
    /// Two cases cannot be told apart from this:
    ///
    /// - A tool prints these bytes while it owes a reply, and closes its stdout more than 100 ms later. They count as that
    ///   reply, unless the tool had read nothing of the request.
    /// - A tool prints these bytes at some of its ends only, and exits within 100 ms after a reply that equals them. That
    ///   request counts as not answered: it is sent again, or is an error.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::shell("cat; echo bye").skip_at_end("bye\n");
    /// let feed = ["a", "b"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.collect::<Result<Vec<_>, _>>()?, ["a", "b"]);
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn skip_at_end(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.spec.words.skip_at_end = Some(bytes.into().into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banner_ends_where_it_says() {
        let banner = |template: Template| template.spec.words.banner;
        let none = banner(Template::new("tool"));
        assert!(none.is_empty());
        assert_eq!(none.end(b"x"), Some(0));
        let lines = banner(Template::new("tool").skip_lines(2));
        assert_eq!(lines.end(b"a\nb"), None);
        assert_eq!(lines.end(b"a\nb\nc"), Some(4));
        let ready = banner(Template::new("tool").ready("READY\n", Duration::MAX));
        assert_eq!(ready.end(b"loading\nREA"), None);
        assert_eq!(ready.end(b"loading\nREADY\nx"), Some(14));
    }

    #[test]
    fn ready_and_skip_are_one_setting_in_any_order() {
        let limit = Duration::from_secs(3);
        let tool = || Template::new("tool");
        for template in [
            tool().ready("READY\n", limit).skip_lines(2).skip_until("#"),
            tool().skip_until("#").skip_lines(2).ready("READY\n", limit),
            tool().skip_lines(2).ready("READY\n", limit).skip_until("#"),
        ] {
            let banner = template.spec.words.banner;
            assert!(banner.holds_requests() && !banner.is_empty());
            assert_eq!(banner.ready_limit(), Some(limit));
            // Whichever comes last ends it.
            assert_eq!(banner.end(b"#\nREADY\nx"), Some(8));
            assert_eq!(banner.end(b"READY\n#x\ny"), Some(9));
            assert_eq!(banner.end(b"READY\n\n#x"), Some(8));
            assert_eq!(banner.end(b"READY\n\n"), None);
            assert_eq!(banner.end(b"READY #"), None);
            assert_eq!(banner.end(b"#\n\n"), None);
        }
    }

    #[test]
    fn what_skips_only_holds_no_request_and_has_no_limit() {
        let banner = Template::new("tool").skip_lines(1).skip_until("x").spec.words.banner;
        assert!(!banner.holds_requests());
        assert_eq!(banner.ready_limit(), None);
        let without_limit = Template::new("tool").ready("x", None).spec.words.banner;
        assert!(without_limit.holds_requests());
        assert_eq!(without_limit.ready_limit(), None);
    }
}
