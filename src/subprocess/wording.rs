//! What is said of sessions, in errors and in hints: the advice that fits what was seen.
//!
//! Pure: values in, words out. Nobody here knows a session; what an advice depends on is an argument, so that
//! each situation has its test.

use bstr::ByteSlice;

use crate::error::StderrExcerpt;
use crate::template::Spec;

/// How a tool that buffers is talked out of it.
const FLAGS: &str = "its unbuffered or line-buffered flag (sed -u, grep --line-buffered, jq --unbuffered, \
                     python3 -u, mawk -W interactive), or Template::line_buffered";

/// What a request can do to the sync command behind it.
const SWALLOWED: &str = "look in the request for something left open, such as a quote or a bracket, that \
                         swallowed the sync command";

/// What is known of how a session answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    /// Its replies end at marks.
    pub(crate) marked: bool,
    /// It has been seen to owe nothing while its stdin was open: it does not buffer.
    pub(crate) prompt: bool,
}

impl Manner {
    /// Of a session that owes replies and waits for more input. A clause whose subject is the worker.
    pub(crate) fn withholds(self) -> String {
        let (marked, prompt) = (self.marked, self.prompt);
        match (marked, prompt) {
            (false, false) => {
                format!("withholds its replies until its buffer is full: use {FLAGS}")
            }
            (false, true) => {
                "waits for more input instead of answering, and does not buffer, because it has answered before: it \
                 has skipped a request, or waits for the rest of one. Template::packet_timeout bounds the wait; \
                 a sentinel framing tells which request it was"
                    .to_owned()
            }
            (true, false) => format!(
                "waits for more input and has not printed the mark: {SWALLOWED}, which Template::packet_timeout \
                 bounds; or it withholds what it prints until its buffer is full: then use {FLAGS}"
            ),
            (true, true) => format!(
                "waits for more input and has not printed the mark, as it did before: {SWALLOWED}. \
                 Template::packet_timeout bounds the wait"
            ),
        }
    }
}

/// Of a packet whose mark never came on stdout.
pub(crate) fn no_mark(on_stderr: bool) -> String {
    if on_stderr {
        "the mark came on stderr: have the sync command print it on stdout (in gnuplot, `set print \"-\"`), or \
         join the two streams with Template::shell and `2>&1`"
            .to_owned()
    } else {
        format!("it never printed the mark: {SWALLOWED}")
    }
}

/// Whether the mark of this packet was written on stderr.
pub(crate) fn mark_is_on_stderr(spec: &Spec, packet: u64, stderr: &StderrExcerpt) -> bool {
    let Some(sentinel) = spec.replies.as_sentinel() else { return false };
    stderr.contains(sentinel.mark(packet).as_bytes())
}

/// Of a session that ended well with fewer replies than requests, under a framing that counts. `half`: it wrote
/// something that is no whole reply.
pub(crate) fn too_few(owed: u64, got: u64, half: bool) -> &'static str {
    match (got, owed) {
        (0, _) if half => "does the reply framing fit what the tool prints?",
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

/// Of a reply too many, which begins like this. `at_end`: the tool's input had ended before.
pub(crate) fn too_many(extra: &[u8], at_end: bool) -> String {
    const LONGEST: usize = 80;
    let twice = "if it answers more than once, frame its replies by what ends them";
    match (at_end, extra.len()) {
        (true, ..=LONGEST) => format!(
            "if the tool prints this at the end of its input, declare it: .skip_at_end({}); {twice}",
            literal(extra)
        ),
        (true, _) => format!(
            "if the tool prints this at the end of its input, declare all of it with Template::skip_at_end; {twice}"
        ),
        (false, _) => format!(
            "if this is a banner, skip it (Template::skip_lines, skip_until); if it is a prompt, turn it off, or use \
             a sentinel framing; {twice}"
        ),
    }
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

/// Of a bad exit after the last answer, which belongs to no packet. `ours`: we ended it.
pub(crate) fn bad_exit(ours: bool) -> &'static str {
    if ours {
        "it did not end with its input: give it a Template::farewell, or more time with Template::end_timeout"
    } else {
        "all its replies were delivered, and many tools tell of a bad record by their exit status: if that is no \
         fault, drop the feed at its end instead of calling finish"
    }
}

/// Of a session that is awaited: what it was seen to do, and what bounds the wait or would bound it. `seen` is a
/// sentence with the worker as "it".
pub(crate) fn awaited(seen: &str, owes: u64, bound: Bound) -> String {
    let replies = if owes == 1 { "a reply".to_owned() } else { format!("{owes} replies") };
    match bound {
        Bound::By(setting) => {
            format!("owes {replies} and is quiet: {seen}; Template::{setting} bounds the wait")
        }
        Bound::Not(setting) => {
            format!("owes {replies} and is quiet: {seen}; Template::{setting} would bound the wait")
        }
    }
}

/// Whether a setting bounds a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// This one does.
    By(&'static str),
    /// None does; this one could.
    Not(&'static str),
}

impl Bound {
    /// What bounds the wait for a reply.
    pub(crate) fn of_a_packet(spec: &Spec) -> Self {
        match spec.policy.packet_timeout {
            Some(_) => Self::By("packet_timeout"),
            None => Self::Not("packet_timeout"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    use crate::template::Template;
    use crate::template::framing::Sentinel;

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
        let withholds = |marked, prompt| Manner { marked, prompt }.withholds();
        let flag = &["line-buffered flag", "Template::line_buffered"];
        says(&withholds(false, false), flag);
        says_not(&withholds(false, false), &["sync command", "mark"]);
        says(&withholds(false, true), &["skipped a request", "packet_timeout", "sentinel"]);
        says_not(&withholds(false, true), flag);
        // In a REPL with a quote left open the buffer is the less likely of two causes, or none.
        says(&withholds(true, false), &["left open", "a quote", "packet_timeout"]);
        says(&withholds(true, false), flag);
        says(&withholds(true, true), &["left open", "packet_timeout"]);
        says_not(&withholds(true, true), flag);
    }

    #[test]
    fn a_mark_on_stderr_is_found_and_said_to_be_there() {
        let spec = Template::new("gnuplot").replies(Sentinel::new("print \"{mark}\"")).spec;
        let sentinel = spec.replies.as_sentinel().unwrap();
        let mut stderr = StderrExcerpt::default();
        stderr.push(b"gnuplot> ");
        assert!(!mark_is_on_stderr(&spec, 7, &stderr));
        stderr.push(sentinel.mark(7).as_bytes());
        assert!(mark_is_on_stderr(&spec, 7, &stderr) && !mark_is_on_stderr(&spec, 8, &stderr));
        assert!(!mark_is_on_stderr(&Template::new("cat").spec, 7, &stderr));
        says(&no_mark(true), &["came on stderr", "stdout", "2>&1"]);
        says_not(&no_mark(true), &["never printed", "left open"]);
        says(&no_mark(false), &["never printed the mark", "left open"]);
    }

    #[test]
    fn a_tool_that_answers_once_at_its_end_is_told_of_until_eof() {
        says(too_few(100, 1, false), &["ReplyFraming::until_eof", "wc"]);
        says(too_few(100, 0, false), &["ReplyFraming::until_eof"]);
        says(too_few(1, 0, false), &["nothing", "sentinel"]);
        says(too_few(100, 0, true), &["does the reply framing fit"]);
        says(too_few(1, 0, true), &["does the reply framing fit"]);
        says(too_few(100, 99, false), &["skips or merges", "sentinel", "check"]);
        says_not(too_few(100, 99, false), &["until_eof"]);
        says(too_few(1, 1, true), &["skips or merges"]);
    }

    #[test]
    fn what_a_tool_says_at_its_end_is_declared_by_a_line_to_paste() {
        says(&too_many(b"\n", true), &[r#".skip_at_end("\n")"#, "more than once"]);
        says(&too_many(b"bye \"x\"\0", true), &[r#".skip_at_end("bye \"x\"\0")"#]);
        says(&too_many(b"\xff\n", true), &[r#".skip_at_end(b"\xff\n")"#]);
        let long = too_many(&[b'x'; 81], true);
        says(&long, &["Template::skip_at_end", "all of it"]);
        says_not(&long, &["xxx"]);
        says(&too_many(b"\n", false), &["banner", "prompt", "more than once"]);
        says_not(&too_many(b"\n", false), &["skip_at_end"]);
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
        let unbounded = Template::new("cat").spec;
        let bounded = Template::new("cat").packet_timeout(Duration::from_secs(1)).spec;
        assert_eq!(
            awaited("it computes", 1, Bound::of_a_packet(&unbounded)),
            "owes a reply and is quiet: it computes; Template::packet_timeout would bound the wait"
        );
        assert_eq!(
            awaited("it waits for a lock", 12, Bound::of_a_packet(&bounded)),
            "owes 12 replies and is quiet: it waits for a lock; Template::packet_timeout bounds the wait"
        );
    }

    #[test]
    fn every_advice_fits_in_a_message() {
        let manners = [(false, false), (false, true), (true, false), (true, true)];
        let manners = manners.map(|(marked, prompt)| Manner { marked, prompt }.withholds());
        let extras = [too_many(&[0xff; 80], true), too_many(&[0; 80], true), too_many(b"x", false)];
        let marks = [no_mark(true), no_mark(false)];
        let counts = [(1, 0, true), (1, 0, false), (9, 0, false), (9, 1, false), (9, 2, false)];
        let counts = counts.map(|(owed, got, half)| too_few(owed, got, half).to_owned());
        let exits = [bad_exit(true).to_owned(), bad_exit(false).to_owned(), REFUSED.to_owned()];
        for advice in manners.into_iter().chain(extras).chain(marks).chain(counts).chain(exits) {
            assert!(
                advice.len() <= 640 && !advice.contains('\n') && !advice.contains("  "),
                "{advice}"
            );
        }
    }
}
