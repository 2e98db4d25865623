//! What is said of sessions, in errors and in hints: the advice that fits what was seen.
//!
//! Pure: values in, words out. Nobody here knows a session; what an advice depends on is an argument, so that
//! each situation has its test.

use std::fmt;
use std::time::Duration;

use bstr::ByteSlice;
use itertools::Itertools;

use crate::error::StderrExcerpt;
use crate::record::PacketId;
use crate::template::Spec;

/// How a tool that buffers is talked out of it.
const FLAGS: &str = "its unbuffered or line-buffered flag (sed -u, grep --line-buffered, jq --unbuffered, \
                     python3 -u, mawk -W interactive), or Template::line_buffered";

/// What a request can do to the sync command behind it.
const SWALLOWED: &str = "look in the request for something left open, such as a quote or a bracket, that \
                         swallowed the sync command";

/// What ends a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndsAt {
    /// What the framing counts.
    Count,
    /// The packet's mark.
    Mark,
    /// The packet's mark, which has come on stderr.
    MarkOnStderr,
}

/// What is known of how a session answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    pub(crate) ends_at: EndsAt,
    /// It has been seen to owe nothing while its stdin was open: it does not buffer.
    pub(crate) prompt: bool,
}

impl Manner {
    /// Of a session that owes a reply to `packet`, and has been prompt or not.
    pub(crate) fn of(
        spec: &Spec,
        packet: Option<PacketId>,
        stderr: &StderrExcerpt,
        prompt: bool,
    ) -> Self {
        let on_stderr = packet.is_some_and(|packet| mark_is_on_stderr(spec, packet, stderr));
        let ends_at = match spec.replies.as_sentinel() {
            None => EndsAt::Count,
            Some(_) if on_stderr => EndsAt::MarkOnStderr,
            Some(_) => EndsAt::Mark,
        };
        Self { ends_at, prompt }
    }

    /// Of a session that owes replies and waits for more input. A clause whose subject is the worker.
    pub(crate) fn withholds(self) -> String {
        match (self.ends_at, self.prompt) {
            (EndsAt::Count, false) => {
                format!("withholds its replies until its buffer is full: use {FLAGS}")
            }
            (EndsAt::Count, true) => {
                "waits for more input instead of answering, and does not buffer, because it has answered before: it \
                 has skipped a request, or waits for the rest of one. Template::packet_timeout bounds the wait; \
                 a sentinel framing tells which request it was"
                    .to_owned()
            }
            (EndsAt::Mark, false) => format!(
                "waits for more input and has not printed the mark: {SWALLOWED}, which Template::packet_timeout \
                 bounds; or it withholds what it prints until its buffer is full: then use {FLAGS}"
            ),
            (EndsAt::Mark, true) => format!(
                "waits for more input and has not printed the mark, as it did before: {SWALLOWED}. \
                 Template::packet_timeout bounds the wait"
            ),
            (EndsAt::MarkOnStderr, _) => format!("waits for more input, and {ON_STDERR}"),
        }
    }
}

/// Of a mark in the wrong place.
const ON_STDERR: &str = "the mark came on stderr: have the sync command print it on stdout (in gnuplot, `set print \
                         \"-\"`), or join the two streams with Template::shell and `2>&1`";

/// Of a packet whose mark never came on stdout.
pub(crate) fn no_mark(on_stderr: bool) -> String {
    if on_stderr { ON_STDERR.to_owned() } else { format!("it never printed the mark: {SWALLOWED}") }
}

/// Whether the mark of this packet was written on stderr.
pub(crate) fn mark_is_on_stderr(spec: &Spec, packet: PacketId, stderr: &StderrExcerpt) -> bool {
    let Some(sentinel) = spec.replies.as_sentinel() else { return false };
    stderr.contains(sentinel.mark(packet.0).as_bytes())
}

/// Of a process whose output was to be a reply, and whose exit status was refused: by what `is_set` says, or by default.
pub(crate) fn refused_status(code: i32, is_set: bool) -> String {
    if is_set {
        format!("accept_status refuses the exit status {code}")
    } else {
        format!("if the exit status {code} is no failure, accept it with Template::accept_status")
    }
}

/// Of a session that ended well with fewer replies than requests, under a framing that counts. `half`: it wrote
/// something that is no whole reply.
pub(crate) fn too_few(owed: u64, got: u64, half: bool) -> &'static str {
    match (got, owed) {
        (0, _) if half => "do the framings fit what the tool reads and prints?",
        (0, 1) => {
            "a tool that may answer with nothing cannot be counted: use a sentinel framing, or \
             ReplyFraming::until_eof, a process for each request"
        }
        (0 | 1, 2..) => {
            "a tool that answers once, when its input has ended (wc, sha256sum, gzip), needs \
             ReplyFraming::until_eof, a process for each request; one that skips or merges records needs a \
             sentinel framing, or check"
        }
        _ => {
            "a tool that skips or merges records cannot be counted: use a sentinel framing, or check"
        }
    }
}

/// Of a reply too many, which begins like this. `unasked`: what the session had said before it was asked anything, in
/// quotes. `at_end`: the tool's input had ended before.
pub(crate) fn too_many(extra: &[u8], unasked: Option<&str>, at_end: bool) -> String {
    const LONGEST: usize = 80;
    let twice = "if it answers more than once, frame its replies by what ends them";
    if let Some(said) = unasked {
        return format!(
            "it said {said} before it was asked anything: if that is a banner, skip it (Template::skip_lines, \
             skip_until, ready); {twice}"
        );
    }
    // A banner that came behind the first request was taken for the first reply, and only what is left over at the
    // end shows it.
    let banner =
        "if it prints a banner at its start, skip that (Template::skip_lines, skip_until, ready)";
    // Nothing follows the last prompt, not even the end of a line.
    let prompt = (!at_end || !extra.ends_with(b"\n"))
        .then_some("if this is a prompt, turn it off, or use a sentinel framing");
    let at_end = at_end.then(|| match extra.len() {
        ..=LONGEST => format!(
            "if the tool prints this at the end of its input, declare it: .skip_at_end({})",
            literal(extra)
        ),
        _ => "if the tool prints this at the end of its input, declare all of it with Template::skip_at_end"
            .to_owned(),
    });
    at_end.iter().map(String::as_str).chain([banner]).chain(prompt).chain([twice]).join("; ")
}

/// Bytes as they are written in a program.
fn literal(bytes: &[u8]) -> String {
    match bytes.to_str() {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("b\"{}\"", bytes.escape_ascii()),
    }
}

/// Of a reply that `check` has refused.
pub(crate) const REFUSED: &str = "if the tool has answered an earlier request twice, or not at all, the fault \
                                  lies with that one: this is the first reply that does not fit";

/// Of a session that has answered a request of which it has read nothing, under a framing that counts.
pub(crate) const ANSWERED_UNREAD: &str = "if it prints something before or between its replies, skip it \
    (Template::skip_lines, skip_until, ready); if it answers more than once, frame its replies by what ends them; if it \
    needs no request, use ReplyFraming::until_eof, a process for each";

/// Of a process whose children are reaped by the system.
pub(crate) const STATUSES_ARE_LOST: &str = "SIGCHLD is ignored in this process, or SA_NOCLDWAIT is set, so that the \
    system reaps workers by itself and it may not be known how they have ended: what needs an exit status is an error \
    then. Give SIGCHLD its default action before the feed starts";

/// Of a bad exit after the last answer, which belongs to no packet. `ours`: we ended it.
pub(crate) fn bad_exit(ours: bool) -> &'static str {
    if ours {
        "it did not end with its input: give it a Template::farewell, or more time with Template::end_timeout"
    } else {
        "all its replies were delivered, and many tools tell of a bad record by their exit status: if that is no \
         fault, drop the feed at its end instead of calling finish"
    }
}

/// A session for which the feed has waited for a while. `Display` says which one it is, what it was seen to do, and
/// what bounds the wait, or would.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait<'a> {
    pub(crate) worker: usize,
    pub(crate) pid: Option<u32>,
    pub(crate) command: &'a str,
    /// The host that has not said hello.
    pub(crate) unreached: Option<&'a str>,
    /// Replies; none where it is not ready yet.
    pub(crate) owed: u64,
    pub(crate) quiet: Duration,
    /// A sentence with the worker as "it".
    pub(crate) seen: &'a str,
    /// It may be waiting for more input.
    pub(crate) may_be_waiting: bool,
    pub(crate) manner: Manner,
    pub(crate) bound: Bound,
}

impl fmt::Display for Wait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {} of `{}`", self.worker, self.command)?;
        if let Some(pid) = self.pid {
            write!(f, " (pid {pid})")?;
        }
        match (self.unreached, self.owed) {
            (Some(host), _) => write!(f, " is not in touch with the host {host} yet")?,
            (None, 0) => f.write_str(" has not said that it is ready")?,
            (None, 1) => f.write_str(" owes a reply")?,
            (None, owed) => write!(f, " owes {owed} replies")?,
        }
        write!(
            f,
            " and has been quiet for {} s: {}; {}",
            self.quiet.as_secs(),
            self.seen,
            self.bound
        )?;
        if !self.may_be_waiting || self.owed == 0 {
            return Ok(());
        }
        match self.manner {
            Manner { ends_at: EndsAt::Mark, .. } => write!(f, "; {SWALLOWED}"),
            Manner { ends_at: EndsAt::MarkOnStderr, .. } => write!(f, "; {ON_STDERR}"),
            Manner { ends_at: EndsAt::Count, prompt: false } => {
                write!(f, "; if it buffers its output, use {FLAGS}")
            }
            Manner { ends_at: EndsAt::Count, prompt: true } => f.write_str(
                "; it has answered before, so that it does not buffer: it may have skipped a request",
            ),
        }
    }
}

/// What bounds a wait, or could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    setting: &'static str,
    /// The type that has the setting.
    of: &'static str,
    limit: Option<Duration>,
}

impl Bound {
    /// This setting does, if there is a limit; otherwise it could.
    pub(crate) fn of(setting: &'static str, limit: Option<Duration>) -> Self {
        Self { setting, of: "Template", limit }
    }

    /// The same of the wait for a host.
    pub(crate) fn of_connection(limit: Option<Duration>) -> Self {
        Self { setting: "connect_within", of: "Launcher", limit }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.limit {
            Some(limit) => write!(f, "{} bounds the wait ({limit:?})", self.setting),
            None => write!(f, "{}::{} would bound the wait", self.of, self.setting),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::framing::Sentinel;
    use crate::template::Template;

    #[track_caller]
    fn says(text: &str, words: &[&str]) {
        for word in words {
            assert!(text.contains(word), "no {word:?} in: {text}");
        }
    }

    #[track_caller]
    fn says_not(text: &str, words: &[&str]) {
        for word in words {
            assert!(!text.contains(word), "{word:?} in: {text}");
        }
    }

    #[test]
    fn a_tool_that_may_buffer_is_told_its_flag_and_one_that_does_not_is_not() {
        let withholds = |ends_at, prompt| Manner { ends_at, prompt }.withholds();
        let flag = &["line-buffered flag", "Template::line_buffered"];
        says(&withholds(EndsAt::Count, false), flag);
        says_not(&withholds(EndsAt::Count, false), &["sync command", "mark"]);
        says(&withholds(EndsAt::Count, true), &["skipped a request", "packet_timeout", "sentinel"]);
        says_not(&withholds(EndsAt::Count, true), flag);
        // In a REPL with a quote left open the buffer is the less likely of two causes, or none.
        says(&withholds(EndsAt::Mark, false), &["left open", "a quote", "packet_timeout"]);
        says(&withholds(EndsAt::Mark, false), flag);
        says(&withholds(EndsAt::Mark, true), &["left open", "packet_timeout"]);
        says_not(&withholds(EndsAt::Mark, true), flag);
        for prompt in [false, true] {
            says(&withholds(EndsAt::MarkOnStderr, prompt), &["the mark came on stderr", "2>&1"]);
            says_not(&withholds(EndsAt::MarkOnStderr, prompt), &["buffer", "left open"]);
        }
    }

    #[test]
    fn a_mark_on_stderr_is_found_and_said_to_be_there() {
        let spec = Template::new("gnuplot").replies(Sentinel::new("print \"{mark}\"")).spec;
        let sentinel = spec.replies.as_sentinel().unwrap();
        let mut stderr = StderrExcerpt::default();
        stderr.push(b"gnuplot> ");
        let ends_at = |spec, packet| Manner::of(spec, packet, &stderr, false).ends_at;
        assert_eq!(ends_at(&spec, Some(PacketId(7))), EndsAt::Mark);
        let mut stderr = stderr.clone();
        stderr.push(sentinel.mark(7).as_bytes());
        let ends_at = |spec, packet| Manner::of(spec, packet, &stderr, false).ends_at;
        assert_eq!(ends_at(&spec, Some(PacketId(7))), EndsAt::MarkOnStderr);
        assert_eq!(ends_at(&spec, Some(PacketId(8))), EndsAt::Mark);
        assert_eq!(ends_at(&spec, None), EndsAt::Mark);
        assert_eq!(ends_at(&Template::new("cat").spec, Some(PacketId(7))), EndsAt::Count);
        says(&no_mark(true), &["came on stderr", "stdout", "2>&1"]);
        says_not(&no_mark(true), &["never printed", "left open"]);
        says(&no_mark(false), &["never printed the mark", "left open"]);
    }

    #[test]
    fn a_tool_that_answers_once_at_its_end_is_told_of_until_eof() {
        says(too_few(100, 1, false), &["ReplyFraming::until_eof", "wc"]);
        says(too_few(100, 0, false), &["ReplyFraming::until_eof"]);
        says(too_few(1, 0, false), &["nothing", "sentinel"]);
        says(too_few(100, 0, true), &["do the framings fit"]);
        says(too_few(1, 0, true), &["do the framings fit"]);
        says(too_few(100, 99, false), &["skips or merges", "sentinel", "check"]);
        says_not(too_few(100, 99, false), &["until_eof"]);
        says(too_few(1, 1, true), &["skips or merges"]);
    }

    #[test]
    fn what_a_tool_says_at_its_end_is_declared_by_a_line_to_paste() {
        says(&too_many(b"\n", None, true), &[r#".skip_at_end("\n")"#, "more than once"]);
        says(&too_many(b"bye \"x\"\0", None, true), &[r#".skip_at_end("bye \"x\"\0")"#]);
        says(&too_many(b"\xff\n", None, true), &[r#".skip_at_end(b"\xff\n")"#]);
        let long = too_many(&[b'x'; 81], None, true);
        says(&long, &["Template::skip_at_end", "all of it"]);
        says_not(&long, &["xxx"]);
        says(&too_many(b"\n", None, false), &["banner", "prompt", "more than once"]);
        says_not(&too_many(b"\n", None, false), &["skip_at_end"]);
        for at_end in [false, true] {
            let banner = too_many(b"\n", Some("\"Hello\""), at_end);
            says(&banner, &["it said \"Hello\" before", "skip_lines"]);
            says_not(&banner, &["skip_at_end"]);
        }
    }

    #[test]
    fn a_bad_exit_says_how_it_can_be_allowed() {
        says(bad_exit(true), &["farewell", "end_timeout"]);
        says(bad_exit(false), &["were delivered", "finish"]);
    }

    #[test]
    fn a_refusal_points_to_the_packets_before() {
        says(REFUSED, &["earlier request twice", "not at all"]);
    }

    #[test]
    fn who_is_awaited_is_said_with_what_bounds_the_wait() {
        let wait = Wait {
            worker: 3,
            pid: Some(77),
            command: "tool -x",
            unreached: None,
            owed: 1,
            quiet: Duration::from_millis(5_400),
            seen: "it computes",
            may_be_waiting: false,
            manner: Manner { ends_at: EndsAt::Count, prompt: false },
            bound: Bound::of("packet_timeout", None),
        };
        assert_eq!(
            wait.to_string(),
            "worker 3 of `tool -x` (pid 77) owes a reply and has been quiet for 5 s: it computes; \
             Template::packet_timeout would bound the wait"
        );
        let bound = Bound::of("packet_timeout", Some(Duration::from_secs(60)));
        says(
            &Wait { bound, owed: 12, ..wait }.to_string(),
            &["12 replies", "packet_timeout bounds the wait (60s)"],
        );
        let unready =
            Wait { owed: 0, bound: Bound::of("ready", None), may_be_waiting: true, ..wait };
        says(&unready.to_string(), &["has not said that it is ready", "Template::ready would"]);
        says_not(&unready.to_string(), &["buffer"]);
        let bound = Bound::of_connection(Some(Duration::from_secs(30)));
        let unreached = Wait { unreached: Some("node1"), bound, ..unready };
        let told = unreached.to_string();
        says(
            &told,
            &["not in touch with the host node1 yet", "connect_within bounds the wait (30s)"],
        );
        let waiting = Wait { may_be_waiting: true, ..wait };
        says(&waiting.to_string(), &["if it buffers", "Template::line_buffered"]);
        let of =
            |ends_at, prompt| Wait { manner: Manner { ends_at, prompt }, ..waiting }.to_string();
        says(&of(EndsAt::Count, true), &["skipped a request"]);
        for prompt in [false, true] {
            says(&of(EndsAt::Mark, prompt), &["left open", "a quote"]);
            says_not(&of(EndsAt::Mark, prompt), &["buffers"]);
            says(&of(EndsAt::MarkOnStderr, prompt), &["the mark came on stderr"]);
        }
    }

    #[test]
    fn every_advice_fits_in_a_message() {
        let ends = [EndsAt::Count, EndsAt::Mark, EndsAt::MarkOnStderr];
        let manners = ends.into_iter().cartesian_product([false, true]);
        let manners = manners.map(|(ends_at, prompt)| Manner { ends_at, prompt }.withholds());
        let extras = [
            too_many(&[0xff; 80], None, true),
            too_many(&[0; 80], None, true),
            too_many(b"x", None, false),
            too_many(b"x", Some(&"x".repeat(250)), false),
        ];
        let marks = [no_mark(true), no_mark(false)];
        let counts = [(1, 0, true), (1, 0, false), (9, 0, false), (9, 1, false), (9, 2, false)];
        let counts = counts.map(|(owed, got, half)| too_few(owed, got, half).to_owned());
        let exits = [bad_exit(true), bad_exit(false), REFUSED, ANSWERED_UNREAD, STATUSES_ARE_LOST];
        let exits = exits.map(str::to_owned);
        for advice in manners.chain(extras).chain(marks).chain(counts).chain(exits) {
            assert!(
                advice.len() <= 640 && !advice.contains('\n') && !advice.contains("  "),
                "{advice}"
            );
        }
    }
}
