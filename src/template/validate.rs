//! What can be known to be wrong with a template before anything is started.
//!
//! The methods of a template store what they are given, good or bad, in any order. Here all of it is judged at once:
//! numbers that make no sense, settings that exclude one another, settings that do not go with the
//! framing, channels with which no packet could be sent or answered. The first thing that is found is the feed's one
//! fatal error.

use std::time::Duration;

use crate::error::Error;
use crate::template::channel::Stream;
use crate::template::policy::{Halt, Policy};
use crate::template::{Spec, command};

impl Spec {
    /// What can be known to be wrong before anything is started.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        self.command.validate()?;
        self.validate_channels()?;
        self.validate_streams()?;
        self.validate_launchers()?;
        self.policy.validate()?;
        self.validate_banner()?;
        self.validate_replies()
    }

    /// The names of the side channels, and who speaks of them.
    fn validate_channels(&self) -> Result<(), Error> {
        let inputs = self.channels.side_inputs.iter().map(|side| &side.name);
        let outputs = self.channels.side_outputs.iter().map(|side| &side.name);
        let names: Vec<&String> = inputs.chain(outputs).collect();
        for (i, name) in names.iter().enumerate() {
            let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let fine =
                !name.is_empty() && name.bytes().all(word) && !name.as_bytes()[0].is_ascii_digit();
            if !fine {
                return Err(Error::config(format!(
                    "the side channel name `{name}` cannot name an environment variable"
                ))
                .hint("use letters, digits and underscores"));
            }
            if names[..i].contains(name) {
                return Err(Error::config(format!("two side channels are named `{name}`")));
            }
        }
        for text in self.command.texts() {
            for name in command::fd_names(text) {
                if !names.iter().any(|declared| *declared == name) {
                    return Err(Error::config(format!(
                        "{{fd:{name}}} names a side channel that was not declared"
                    ))
                    .hint(format!("declare it, or write {{{{fd:{name}}}}} for the literal text")));
                }
            }
        }
        for path in self.channels.paths() {
            if let Some(name) = command::fd_names(path.as_os_str()).next() {
                return Err(Error::config(format!(
                    "the path `{}` has {{fd:{name}}} in it, a number that only the worker knows",
                    path.display()
                )));
            }
        }
        for name in &names {
            if ["stdin", "stdout", "stderr"].contains(&name.as_str()) {
                return Err(Error::config(format!(
                    "a side channel is named `{name}`, like the standard stream"
                )));
            }
            if self.command.envs.iter().any(|(set, _)| set.as_os_str() == name.as_str()) {
                return Err(Error::config(format!(
                    "the side channel `{name}` needs the environment variable of its name, which is set to something else"
                )));
            }
        }
        Ok(())
    }

    /// Combinations of channels with which no packet could be sent or answered.
    fn validate_streams(&self) -> Result<(), Error> {
        let to_us = |stream: &Stream| matches!(stream, Stream::Pipe);
        let channels = &self.channels;
        if channels.pty && !to_us(&channels.stdout) {
            return Err(Error::config(
                "line_buffered(Pty) makes stdout a terminal that the feed reads, and stdout is redirected",
            )
            .hint("leave one of the two out"));
        }
        if !to_us(&channels.stdin) {
            for (what, is_said) in [
                ("a preamble", self.words.preamble.is_some()),
                ("a farewell", self.words.farewell.is_some()),
                ("a sync command", self.replies.as_sentinel().is_some()),
            ] {
                if is_said {
                    return Err(Error::config(format!(
                        "{what} is written to stdin, which is redirected"
                    )));
                }
            }
        }
        for side in &channels.side_outputs {
            if side.framing.as_ref().is_some_and(|framing| framing.as_sentinel().is_some()) {
                return Err(Error::config(format!(
                    "the side output `{}` cannot be cut at a sentinel: the sync command is answered on stdout",
                    side.name
                ))
                .hint("let the worker end its part with something fixed, and use ReplyFraming::end_marker"));
            }
        }
        Ok(())
    }

    fn validate_banner(&self) -> Result<(), Error> {
        let banner = &self.words.banner;
        if banner.has_empty_marker() {
            return Err(Error::config("the marker of skip_until or ready is empty")
                .hint("without a marker there is nothing to wait for: leave the setting out"));
        }
        if banner.ready_limit() == Some(Duration::ZERO) {
            return Err(no_time("ready"));
        }
        if !banner.is_empty() && matches!(self.channels.stdout, Stream::To(_)) {
            return Err(Error::config(if banner.holds_requests() {
                "the ready marker is awaited on stdout, which is redirected"
            } else {
                "skip_lines and skip_until are about stdout, which is redirected"
            }));
        }
        Ok(())
    }

    /// Settings that do not go with the way in which replies are cut, or with one another.
    fn validate_replies(&self) -> Result<(), Error> {
        let sides = self.channels.side_outputs.iter().filter_map(|side| side.framing.as_ref());
        for framing in std::iter::once(&self.replies).chain(sides) {
            if let Some(problem) = framing.problem(self.policy.reply_limit) {
                return Err(Error::config(problem));
            }
        }
        let Policy { eof_batch, in_flight, require_clean_exit, keep_stderr, .. } = self.policy;
        let until_eof = self.is_until_eof();
        if until_eof && eof_batch.is_some_and(|batch| batch > 1) {
            return Err(Error::config(
                "until_eof makes one reply of all that a process prints, and answers_at_eof several",
            )
            .hint("frame the replies by what ends them, or leave answers_at_eof out"));
        }
        if self.accept_status.is_some() && !until_eof && !self.policy.drains {
            return Err(Error::config(
                "accept_status says which exit statuses make a reply, and with this framing the exit makes none",
            )
            .hint("use it with ReplyFraming::until_eof, where each process gives one reply, or in a drain"));
        }
        if self.accept_status.is_some() && require_clean_exit {
            return Err(Error::config(
                "require_clean_exit refuses exit statuses that accept_status is to accept",
            )
            .hint(
                "leave require_clean_exit out: with until_eof each exit status is looked at anyway",
            ));
        }
        if let Some(end) = &self.words.skip_at_end
            && !end.is_empty()
        {
            let refused = if until_eof {
                Some((
                    "until_eof makes a reply of all that a process prints, so skip_at_end has nothing to skip",
                    "take it off in decode",
                ))
            } else if self.replies.as_sentinel().is_some() {
                Some((
                    "a sentinel tells where each reply ends, so skip_at_end has nothing to skip",
                    "what a tool prints behind its last mark does no harm: leave skip_at_end out",
                ))
            } else if matches!(self.channels.stdout, Stream::To(_)) {
                Some(("skip_at_end is about stdout, which is redirected", "leave it out"))
            } else {
                None
            };
            if let Some((message, hint)) = refused {
                return Err(Error::config(message).hint(hint));
            }
        }
        let is_redirected = matches!(self.channels.stderr, Stream::To(_));
        if self.channels.on_stderr.is_some() && is_redirected {
            return Err(Error::config("on_stderr cannot be told of a stderr that is redirected")
                .hint("leave out Template::stderr, or on_stderr"));
        }
        if keep_stderr {
            if !until_eof && in_flight != Some(1) {
                return Err(Error::config(
                    "keep_stderr cannot tell which packet a line on stderr belongs to while several are in a worker",
                )
                .hint("add Template::in_flight(1), or use ReplyFraming::until_eof"));
            }
            if is_redirected {
                return Err(Error::config("keep_stderr cannot keep a stderr that is redirected")
                    .hint("leave out Template::stderr, or keep_stderr"));
            }
        }
        Ok(())
    }
}

impl Policy {
    /// Numbers that make no sense, and settings that exclude one another.
    fn validate(&self) -> Result<(), Error> {
        for (setting, number) in [
            ("in_flight", self.in_flight),
            ("recycle_after_records", self.recycle_records),
            ("answers_at_eof", self.eof_batch),
            ("give_up_after", Some(u64::from(self.give_up))),
        ] {
            if number == Some(0) {
                return Err(Error::config(format!("{setting} is 0, and the least is 1")));
            }
        }
        if let Halt::Soon(0) | Halt::Now(0) = self.halt {
            return Err(Error::config(
                "halt after 0 failed items would end the feed before anything has failed",
            )
            .hint("the first failure ends it with 1"));
        }
        for (setting, limit) in [
            ("packet_timeout", self.packet_timeout),
            ("start_timeout", self.start_timeout),
            ("idle_timeout", self.idle_timeout),
            ("run_timeout", self.run_timeout),
            ("recycle_after_age", self.recycle_age),
        ] {
            if limit == Some(Duration::ZERO) {
                return Err(no_time(setting));
            }
        }
        if self.stall_delay == Duration::ZERO {
            return Err(Error::config(
                "the delay of on_stall is zero, so every worker would be judged at once",
            )
            .hint("the default is 100 ms"));
        }
        if self.backoff_cap < self.backoff {
            return Err(Error::config(format!(
                "backoff begins with {:?}, which is more than its cap of {:?}",
                self.backoff, self.backoff_cap
            )));
        }
        if self.at_most_once && self.retries > 0 {
            return Err(Error::config("retries sends a packet again, and at_most_once never does")
                .hint("leave one of the two out"));
        }
        Ok(())
    }
}

/// A time limit of nothing.
fn no_time(setting: &str) -> Error {
    Error::config(format!("{setting} is zero, a limit that no worker can keep"))
        .hint("give None where there is to be no limit")
}

#[cfg(test)]
mod tests {
    use super::*;

    use bstr::ByteSlice;

    use crate::framing::{ReplyFraming, Sentinel};
    use crate::template::Template;
    use crate::template::channel::{LineBuffered, Redirect};
    use crate::template::policy::OnStall;

    const SECOND: Duration = Duration::from_secs(1);

    fn cat() -> Template {
        Template::new("cat")
    }

    /// It is refused, and the error has all these words.
    #[track_caller]
    fn refused(template: Template, says: &[&str]) {
        let error = template.spec.validate().expect_err("it is wrong").to_string();
        for word in says {
            assert!(error.contains(word), "no {word:?} in: {error}");
        }
    }

    #[track_caller]
    fn accepted(template: Template) {
        template.spec.validate().expect("it is good");
    }

    fn sentinel() -> ReplyFraming {
        ReplyFraming::sentinel(Sentinel::new("echo {mark}"))
    }

    #[test]
    fn a_count_of_nothing_is_refused_by_its_name_and_a_huge_one_is_good() {
        refused(cat().in_flight(0), &["in_flight is 0"]);
        refused(cat().recycle_after_records(0), &["recycle_after_records is 0"]);
        refused(cat().answers_at_eof(0), &["answers_at_eof is 0"]);
        refused(cat().give_up_after(0), &["give_up_after is 0"]);
        refused(cat().halt(Halt::Soon(0)), &["halt after 0"]);
        refused(cat().halt(Halt::Now(0)), &["halt after 0"]);
        let huge = cat().in_flight(u64::MAX).recycle_after_records(u64::MAX);
        accepted(huge.give_up_after(u32::MAX).halt(Halt::Soon(u64::MAX)).retries(u32::MAX));
        accepted(cat().answers_at_eof(u64::MAX));
    }

    #[test]
    fn a_limit_of_no_time_is_refused_by_its_name_and_one_without_an_end_is_good() {
        refused(cat().packet_timeout(Duration::ZERO), &["packet_timeout is zero", "give None"]);
        refused(cat().start_timeout(Duration::ZERO), &["start_timeout is zero"]);
        refused(cat().idle_timeout(Duration::ZERO), &["idle_timeout is zero"]);
        refused(cat().run_timeout(Duration::ZERO), &["run_timeout is zero"]);
        refused(cat().recycle_after_age(Duration::ZERO), &["recycle_after_age is zero"]);
        refused(cat().ready("x", Duration::ZERO), &["ready is zero"]);
        refused(cat().on_stall(OnStall::Wait, Duration::ZERO), &["on_stall is zero"]);
        // To end a worker at once is something else.
        accepted(cat().end_timeout(Duration::ZERO));
        for end in [Some(Duration::MAX), None] {
            let template = cat().packet_timeout(end).start_timeout(end).idle_timeout(end);
            accepted(template.run_timeout(end).end_timeout(end).ready("x", end));
        }
        accepted(cat().packet_timeout(Duration::ZERO).packet_timeout(None));
        accepted(cat().ready("x", Duration::ZERO).ready("x", SECOND));
    }

    #[test]
    fn a_backoff_that_begins_above_its_cap_is_refused() {
        refused(cat().backoff(2 * SECOND, SECOND), &["backoff begins with 2s", "cap of 1s"]);
        accepted(cat().backoff(SECOND, SECOND));
        accepted(cat().backoff(Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn settings_that_exclude_one_another_are_refused_in_either_order() {
        let says = &["retries", "at_most_once", "leave one of the two out"];
        refused(cat().retries(1).at_most_once(), says);
        refused(cat().at_most_once().retries(1), says);
        accepted(cat().at_most_once().retries(0));
        let pty = LineBuffered::Pty;
        refused(cat().line_buffered(pty).stdout(Redirect::Null), &["line_buffered(Pty)"]);
        refused(cat().stdout(Redirect::Null).line_buffered(pty), &["line_buffered(Pty)"]);
        let eof = ReplyFraming::until_eof;
        refused(cat().answers_at_eof(2).replies(eof()), &["until_eof", "answers_at_eof"]);
        refused(cat().replies(eof()).answers_at_eof(2), &["until_eof", "answers_at_eof"]);
        let any = |_| true;
        let says = &["require_clean_exit", "accept_status"];
        refused(cat().replies(eof()).accept_status(any).require_clean_exit(), says);
        refused(cat().require_clean_exit().accept_status(any).replies(eof()), says);
    }

    #[test]
    fn settings_that_are_one_do_not_overwrite_one_another() {
        for template in [
            cat().recycle_after_records(9).answers_at_eof(5),
            cat().answers_at_eof(5).recycle_after_records(9),
            cat().answers_at_eof(9).recycle_after_records(5),
            cat().in_flight(5).answers_at_eof(9),
        ] {
            assert_eq!(template.spec.session_records(), Some(5));
            assert!(template.spec.policy.at_eof());
        }
        assert_eq!(cat().in_flight(5).spec.session_records(), None);
        assert_eq!(cat().in_flight(7).in_flight(5).spec.policy.in_flight, Some(5));
    }

    #[test]
    fn accept_status_goes_with_until_eof_or_with_no_replies_at_all() {
        let lint = || cat().accept_status(|code| code < 2);
        refused(lint(), &["accept_status", "ReplyFraming::until_eof"]);
        refused(lint().replies(sentinel()), &["accept_status"]);
        accepted(lint().replies(ReplyFraming::until_eof()));
        accepted(cat().replies(ReplyFraming::until_eof()).accept_status(|_| false));
        let mut drained = lint();
        drained.spec.policy.drains = true;
        accepted(drained);
    }

    #[test]
    fn which_status_makes_a_reply_is_the_closures_to_say_but_a_signal_never_does() {
        use std::os::unix::process::ExitStatusExt;
        use std::process::ExitStatus;
        let exit = |code: i32| ExitStatus::from_raw(code << 8);
        let lint = cat().accept_status(|code| code == 1).spec;
        assert!(lint.accepts_status(exit(1)) && !lint.accepts_status(exit(0)));
        let any = cat().accept_status(|_| true).spec;
        assert!(any.accepts_status(exit(255)) && !any.accepts_status(ExitStatus::from_raw(15)));
        let plain = cat().spec;
        assert!(plain.accepts_status(exit(0)) && !plain.accepts_status(exit(1)));
        let last = cat().accept_status(|_| true).accept_status(|_| false).spec;
        assert!(!last.accepts_status(exit(0)), "the last one counts");
    }

    #[test]
    fn skip_at_end_goes_with_framings_that_count() {
        accepted(cat().skip_at_end("\n"));
        accepted(cat().skip_at_end(vec![b'x'; 3 << 20]).replies(ReplyFraming::block()));
        refused(
            cat().skip_at_end("\n").replies(ReplyFraming::until_eof()),
            &["skip_at_end", "decode"],
        );
        refused(cat().skip_at_end("\n").replies(sentinel()), &["skip_at_end", "sentinel"]);
        refused(cat().skip_at_end("\n").stdout(Redirect::Null), &["skip_at_end", "redirected"]);
        // Nothing to skip is nothing to complain of.
        accepted(cat().skip_at_end("").replies(ReplyFraming::until_eof()));
        let twice = cat().skip_at_end("bye").skip_at_end("\n").spec.words;
        assert_eq!(twice.skip_at_end.unwrap().as_bstr(), "\n");
    }

    #[test]
    fn stderr_is_kept_where_it_is_known_whose_it_is() {
        refused(cat().keep_stderr(), &["keep_stderr", "in_flight(1)", "until_eof"]);
        refused(cat().keep_stderr().in_flight(2), &["keep_stderr", "in_flight(1)"]);
        refused(cat().keep_stderr().replies(sentinel()), &["keep_stderr"]);
        refused(cat().keep_stderr().answers_at_eof(9), &["keep_stderr"]);
        accepted(cat().keep_stderr().in_flight(1));
        accepted(cat().in_flight(1).keep_stderr().keep_stderr().replies(sentinel()));
        accepted(cat().keep_stderr().replies(ReplyFraming::until_eof()));
        let null = cat().keep_stderr().in_flight(1).stderr(Redirect::Null);
        refused(null, &["keep_stderr", "stderr that is redirected"]);
        let null = cat().on_stderr(|_, _| {}).stderr(Redirect::Null);
        refused(null, &["on_stderr", "stderr that is redirected"]);
        accepted(cat().on_stderr(|_, _| {}));
    }

    #[test]
    fn a_banner_without_a_marker_or_without_a_stdout_is_refused() {
        refused(cat().skip_until(""), &["marker", "empty"]);
        refused(cat().ready("", SECOND), &["marker", "empty"]);
        refused(cat().ready("x", SECOND).stdout(Redirect::Null), &["the ready marker"]);
        refused(cat().skip_lines(1).stdout(Redirect::Null), &["skip_lines"]);
        accepted(cat().skip_lines(usize::MAX));
        accepted(cat().skip_lines(0).stdout(Redirect::Null));
    }

    #[test]
    fn a_clean_exit_can_be_required_with_every_framing() {
        for replies in [ReplyFraming::line(), sentinel(), ReplyFraming::until_eof()] {
            accepted(cat().require_clean_exit().require_clean_exit().replies(replies));
        }
    }
}
