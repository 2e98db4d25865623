//! Settings that are wrong, or that exclude one another: the feed's one item is a fatal error that names them.

use std::time::Duration;

use subfeed::channel::Redirect;
use subfeed::framing::ReplyFraming;
use subfeed::policy::{Halt, OnStall};
use subfeed::source::iterate_in_subprocess;
use subfeed::{ErrorKind, FeedExt, Template};

use crate::common::within;

fn cat() -> Template {
    Template::new("cat")
}

#[test]
fn a_wrong_setting_is_the_one_fatal_error_of_a_feed() {
    within(|| {
        for (template, word) in [
            (cat().in_flight(0), "in_flight"),
            (cat().packet_timeout(Duration::ZERO), "packet_timeout"),
            (cat().give_up_after(0), "give_up_after"),
            (cat().halt(Halt::Soon(0)), "halt"),
            (cat().on_stall(OnStall::Wait, Duration::ZERO), "on_stall"),
            (cat().keep_stderr(), "keep_stderr"),
            (cat().accept_status(|_| true), "accept_status"),
            (cat().skip_at_end("x").replies(ReplyFraming::until_eof()), "skip_at_end"),
            (cat().retries(1).at_most_once(), "at_most_once"),
        ] {
            let mut feed =
                (0u64..).map(|n| n.to_string()).feed_subprocesses(template.clone(), 2, 8);
            assert_eq!(feed.size_hint(), (1, Some(1)));
            let error = feed.next().unwrap().unwrap_err();
            assert!(error.is_fatal() && error.kind() == ErrorKind::Config, "{error}");
            assert!(error.to_string().contains(word), "{error}");
            assert!(feed.next().is_none());
            // `drain` never sends anything again, whatever the template says, and has no replies that a status could
            // make.
            if word != "at_most_once" && word != "accept_status" {
                let error = ["x"].into_iter().feed(template).drain().unwrap_err();
                assert!(error.to_string().contains(word), "{error}");
            }
        }
    });
}

#[test]
fn a_template_with_retries_can_be_drained() {
    within(|| {
        let drained = ["a", "b"].into_iter().feed(cat().retries(3)).workers(1).drain().unwrap();
        assert_eq!(drained.accepted, [2]);
    });
}

#[test]
fn a_status_that_is_accepted_makes_a_reply_and_any_other_does_not() {
    within(|| {
        // What grep does: 0 where it has found something, 1 where it has not, 2 where it failed.
        let grep = Template::shell("x=$(cat); echo \"seen $x\"; exit $x")
            .replies(ReplyFraming::until_eof())
            .accept_status(|code| code <= 1);
        let source = ["0", "1", "2", "1"].into_iter();
        let items: Vec<_> = source.feed_subprocesses_ordered(grep, 2, 8).collect();
        for (at, reply) in [(0, "seen 0\n"), (1, "seen 1\n"), (3, "seen 1\n")] {
            assert_eq!(items[at].as_ref().unwrap(), reply);
        }
        let error = items[2].as_ref().unwrap_err();
        assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::Died, false), "{error}");
        assert_eq!(error.exit_status().unwrap().code(), Some(2));
    });
}

#[test]
fn a_source_of_one_record_accepts_the_same_statuses() {
    within(|| {
        let record = |accept: fn(i32) -> bool| {
            let lint = Template::shell("echo found; exit 1").replies(ReplyFraming::until_eof());
            iterate_in_subprocess(lint.accept_status(accept), 8)
                .iter()
                .collect::<Result<Vec<_>, _>>()
        };
        assert_eq!(record(|code| code == 1).unwrap(), ["found\n"]);
        assert!(record(|code| code == 0).unwrap_err().to_string().contains("exit status: 1"));
    });
}

#[test]
fn ready_and_skip_lines_go_together_in_any_order() {
    within(|| {
        let script =
            "echo Banner 1.0; echo (c) nobody; echo READY; exec cat".replace("(c)", "'(c)'");
        let limit = Duration::from_secs(30);
        for template in [
            Template::shell(&script).ready("READY\n", limit).skip_lines(2),
            Template::shell(&script).skip_lines(2).ready("READY\n", limit),
            Template::shell(&script).skip_until("nobody").ready("READY\n", None).skip_lines(3),
        ] {
            let replies = ["a", "b"].into_iter().feed_subprocesses_ordered(template, 1, 8);
            assert_eq!(replies.collect::<Result<Vec<_>, _>>().unwrap(), ["a", "b"]);
        }
    });
}

#[test]
fn a_file_and_a_terminal_for_the_same_stdout_exclude_one_another() {
    within(|| {
        let pty = cat().line_buffered(subfeed::channel::LineBuffered::Pty);
        let error = ["x"].into_iter().feed(pty.stdout(Redirect::Null)).drain().unwrap_err();
        assert!(error.to_string().contains("line_buffered(Pty)"), "{error}");
    });
}

#[test]
fn unbuffered_python_does_not_depend_on_the_order_of_settings() {
    within(|| {
        let ask = |template: Template| {
            let mut feed = ["x"].into_iter().feed_subprocesses_ordered(template, 1, 8);
            feed.next().unwrap().unwrap().to_string()
        };
        let echo = || Template::shell("read -r x; echo \"${PYTHONUNBUFFERED-unset}\"");
        let how = subfeed::channel::LineBuffered::Environment;
        assert_eq!(ask(echo().env_clear()), "unset");
        assert_eq!(ask(echo().line_buffered(how).env_clear()), "1");
        assert_eq!(ask(echo().env_clear().line_buffered(how)), "1");
        assert_eq!(ask(echo().line_buffered(how).env_remove("PYTHONUNBUFFERED")), "1");
        assert_eq!(ask(echo().env_remove("PYTHONUNBUFFERED").line_buffered(how)), "1");
        assert_eq!(ask(echo().line_buffered(how).env("PYTHONUNBUFFERED", "2")), "2");
        assert_eq!(ask(echo().env("PYTHONUNBUFFERED", "2").line_buffered(how)), "2");
    });
}
