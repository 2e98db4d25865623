//! What an error says: one bounded line, its cause once, the limit and the signal that were ours.

use std::io::{self, BufRead, Cursor};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use subfeed::framing::Sentinel;
use subfeed::policy::{Limit, OnStall, Signal};
use subfeed::{BoxError, Error, ErrorKind, FeedExt, Template};

use crate::common::within;

/// The error of the one packet that such a worker is given.
fn failure(template: Template) -> Error {
    let mut feed = ["request"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    feed.next().expect("an item").expect_err("an error")
}

/// As anyhow's `{:#}` prints an error, or whatever else walks along `source()`.
fn walked(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        line += &format!(": {cause}");
        next = cause.source();
    }
    line
}

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(3_600);

#[test]
fn a_packet_that_took_too_long_names_packet_timeout_and_our_signal() {
    within(|| {
        let error = failure(Template::shell("read -r x; exec sleep 1000").packet_timeout(SHORT));
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(error.limit(), Some(Limit::PacketTimeout(SHORT)));
        assert_eq!(error.signal_sent(), Some(Signal::Terminate));
        let line = error.to_string();
        let said = "packet 0: no reply within 300ms (packet_timeout); we sent SIGTERM (signal: 15 (SIGTERM))";
        assert!(line.starts_with(said), "{line}");
    });
}

#[test]
fn a_failed_start_names_the_limit_that_ran_out() {
    within(|| {
        let slow = || Template::shell("read -r x; exec sleep 1000");
        let error = failure(slow().start_timeout(SHORT));
        assert_eq!(error.limit(), Some(Limit::StartTimeout(SHORT)), "{error}");
        assert!(error.to_string().contains("(start_timeout)"), "{error}");
        let error =
            failure(Template::shell("exec sleep 1000").ready("READY", SHORT).give_up_after(1));
        assert_eq!((error.kind(), error.limit()), (ErrorKind::Timeout, Some(Limit::Ready(SHORT))));
        assert_eq!(
            error.to_string().matches("not ready within 300ms (ready)").count(),
            1,
            "{error}"
        );
    });
}

#[test]
fn limits_of_the_whole_feed_are_named() {
    within(|| {
        let deaf = || Template::shell("read -r x; exec sleep 1000");
        let error = failure(deaf().run_timeout(SHORT));
        assert_eq!(error.limit(), Some(Limit::RunTimeout(SHORT)));
        let error = failure(deaf().idle_timeout(SHORT));
        assert_eq!(error.limit(), Some(Limit::IdleTimeout(SHORT)));
        assert!(
            error.to_string().starts_with("packet 0: no worker said anything for 300ms"),
            "{error}"
        );
    });
}

#[test]
fn a_limit_can_be_taken_off_again() {
    within(|| {
        let template = Template::new("cat")
            .packet_timeout(Duration::from_nanos(1))
            .start_timeout(Duration::from_nanos(1))
            .idle_timeout(Duration::from_nanos(1))
            .run_timeout(Duration::from_nanos(1))
            .end_timeout(Duration::from_nanos(1))
            .packet_timeout(None)
            .start_timeout(None)
            .idle_timeout(None)
            .run_timeout(None)
            .end_timeout(None);
        let replies = ["a", "b"].into_iter().feed_subprocesses_ordered(template, 1, 8);
        assert_eq!(replies.collect::<Result<Vec<_>, _>>().unwrap(), ["a", "b"]);
    });
}

#[test]
fn a_kill_that_was_not_ours_is_said_to_come_from_outside() {
    within(|| {
        let error = failure(Template::shell("read -r x; kill -9 $$").packet_timeout(LONG));
        assert_eq!(error.exit_status().unwrap().signal(), Some(9));
        assert_eq!((error.signal_sent(), error.limit()), (None, None));
        let line = error.to_string();
        assert!(line.contains("killed from outside; out of memory?"), "{line}");
        assert!(!line.contains("we sent"), "{line}");
    });
}

#[test]
fn the_first_and_the_last_line_of_stderr_are_shown() {
    within(|| {
        let script = "read -r x; echo 'unknown option: --frob' >&2; seq 1000 >&2; echo 'see help' >&2; exit 2";
        let line = failure(Template::shell(script)).to_string();
        assert!(line.contains(r#"stderr: "unknown option: --frob" ... "see help""#), "{line}");
    });
}

#[test]
fn an_error_is_one_short_line_whatever_is_in_it() {
    within(|| {
        let template = Template::shell("read -r x; head -c 100000 /dev/zero >&2; exit 1")
            .args((0..30).map(|_| "y".repeat(10_000)));
        let request = "z".repeat(3 << 20);
        let mut feed = [request].into_iter().feed_subprocesses_ordered(template, 1, 8);
        let error = feed.next().unwrap().unwrap_err();
        for line in [error.to_string(), format!("{error:?}"), walked(&error)] {
            assert!(line.len() <= 4 << 10 && !line.contains('\n'), "{}: {line}", line.len());
            assert!(line.contains("/bin/sh -c") && line.contains("yyy`"), "{line}");
            assert!(line.contains("request \"zzz"), "{line}");
        }
        assert!(error.command().unwrap().len() > 300_000);
    });
}

#[test]
fn a_cause_is_printed_once_by_display_and_by_a_walk_along_the_sources() {
    within(|| {
        let missing = failure(Template::new("no-such-program"));
        let decoded = {
            let template = Template::new("cat")
                .try_decode(|reply| -> Result<u32, BoxError> { Ok(reply.to_str()?.parse()?) });
            let mut feed = ["x"].into_iter().feed_subprocesses_ordered(template, 1, 8);
            feed.next().unwrap().unwrap_err()
        };
        for (error, cause) in
            [(missing, "No such file or directory"), (decoded, "invalid digit found in string")]
        {
            assert_eq!(error.to_string().matches(cause).count(), 1, "{error}");
            assert_eq!(walked(&error).matches(cause).count(), 1, "{error}");
            let io = io::Error::from(error);
            assert_eq!(walked(&io).matches(cause).count(), 1, "{io}");
        }
    });
}

#[test]
fn lines_that_may_fail_to_be_read_are_fed_as_they_are() -> io::Result<()> {
    within(|| {
        let lines = Cursor::new("one\ntwo\n").lines();
        let replies: io::Result<Vec<_>> =
            lines.try_feed(Template::new("cat")).workers(1).start().collect();
        assert_eq!(replies?, ["one", "two"]);
        let spoilt = Cursor::new(b"one\n\xff\nthree\n").lines();
        let mut replies = spoilt.try_feed(Template::new("cat")).workers(1).start();
        assert_eq!(replies.next().unwrap()?, "one");
        assert_eq!(replies.next().unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(replies.next().unwrap()?, "three");
        let mut broken =
            Cursor::new("one\n").lines().try_feed(Template::new("no-such-program")).start();
        let error = broken.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let ours = error.get_ref().unwrap().downcast_ref::<Error>().unwrap();
        assert!(ours.is_fatal());
        Ok(())
    })
}

#[test]
fn a_mark_that_came_on_stderr_is_said_to_be_there() {
    within(|| {
        for bounded in [false, true] {
            let mut sh = Template::new("sh").replies(Sentinel::new("echo {mark} >&2"));
            if bounded {
                sh = sh.packet_timeout(SHORT).on_stall(OnStall::Wait, SHORT);
            }
            let mut feed = ["echo 1"].into_iter().feed_subprocesses_ordered(sh, 1, 8);
            let error = feed.next().unwrap().unwrap_err();
            assert!(error.to_string().contains("the mark came on stderr"), "{error}");
            assert!(!error.to_string().contains("left open"), "{error}");
        }
    });
}

#[test]
fn a_request_that_leaves_a_quote_open_is_not_taken_for_a_buffer() {
    within(|| {
        let sh = Template::new("sh").replies(Sentinel::new("echo {mark}")).packet_timeout(SHORT);
        let mut feed = ["echo 'open"].into_iter().feed_subprocesses_ordered(sh, 1, 8);
        let error = feed.next().unwrap().unwrap_err();
        assert!(error.to_string().contains("something left open, such as a quote"), "{error}");
        assert!(!error.to_string().contains("line_buffered"), "{error}");
    });
}

/// What ends a feed of these items.
fn fatal(template: Template, items: &'static [&'static str]) -> Error {
    let feed = items.iter().copied().feed_subprocesses_ordered(template, 1, 8);
    let mut errors = feed.filter_map(Result::err);
    errors.find(|error| error.is_fatal() && error.kind() != ErrorKind::Halted).expect("an end")
}

#[test]
fn a_tool_that_answers_once_at_its_end_is_told_of_until_eof() {
    within(|| {
        let error = fatal(Template::new("wc").arg("-l"), &["a", "b", "c"]);
        // How many of them it was given depends on how fast it is.
        assert!(matches!(error.kind(), ErrorKind::ReplyCount { got: 1, .. }), "{error}");
        assert!(error.to_string().contains("ReplyFraming::until_eof"), "{error}");
    });
}

#[test]
fn what_a_tool_prints_at_its_end_comes_with_the_line_to_paste() {
    within(|| {
        let error = fatal(Template::shell("cat; echo \"bye\""), &["a", "b"]);
        assert!(matches!(error.kind(), ErrorKind::ReplyCount { .. }), "{error}");
        assert!(error.to_string().contains(r#".skip_at_end("bye\n")"#), "{error}");
        let declared = Template::shell("cat; echo bye").skip_at_end("bye\n");
        let feed = ["a", "b"].into_iter().feed_subprocesses_ordered(declared, 1, 8);
        assert_eq!(feed.collect::<Result<Vec<_>, _>>().unwrap(), ["a", "b"]);
    });
}

#[test]
fn a_reply_that_check_refuses_points_to_the_packets_before_it() {
    within(|| {
        let twice = Template::shell("while read -r x; do echo $x; [ $x = b ] && echo $x; done")
            .check(|request, reply| match request.strip_suffix(b"\n") == Some(reply) {
                true => Ok(()),
                false => Err("not its own".into()),
            });
        let feed = ["a", "b", "c"].into_iter().feed_subprocesses_ordered(twice, 1, 8);
        let error = feed.filter_map(Result::err).next().unwrap();
        assert_eq!((error.kind(), error.packet()), (ErrorKind::Check, Some(2)), "{error}");
        assert!(error.to_string().contains("an earlier request twice"), "{error}");
    });
}

#[test]
fn a_bad_exit_after_the_last_answer_says_how_it_can_be_allowed() {
    within(|| {
        let ed = Template::shell("cat; exit 1");
        let feed = ["a"].into_iter().feed_subprocesses_ordered(ed, 1, 8);
        let error = feed.finish().unwrap_err();
        assert!(error.to_string().contains("drop the feed"), "{error}");
        let stays = Template::shell("cat; exec sleep 1000").end_timeout(SHORT);
        // Where the length of the source is known, the last item waits for the worker to close its stdout.
        let mut items = ["a"].into_iter();
        let feed = std::iter::from_fn(move || items.next()).feed_subprocesses_ordered(stays, 1, 8);
        let error = feed.finish().unwrap_err();
        assert_eq!(error.limit(), Some(Limit::EndTimeout(SHORT)), "{error}");
        assert!(error.to_string().contains("we sent SIGTERM"), "{error}");
        assert!(error.to_string().contains("Template::farewell"), "{error}");
    });
}
