//! D: messages.

use std::collections::BTreeSet;
use std::time::Duration;

use subfeed::framing::{ReplyFraming, Sentinel};
use subfeed::pipeline::Pipeline;
use subfeed::queue::Queue;
use subfeed::source::iterate_in_subprocess;
use subfeed::{Error, ErrorKind, FeedExt, Template};

use super::{LIMIT, ends, open_ended};
use crate::common::{Dir, child, eventually, numbers, texts};

/// The first error of a feed of these items.
fn first_error(template: Template, items: &[&'static str]) -> Error {
    let items = items.to_vec();
    ends(move || {
        let mut feed = items.into_iter().feed_subprocesses_ordered(template, 1, 10);
        feed.find_map(Result::err).or_else(|| feed.finish().err()).expect("an error")
    })
}

#[track_caller]
fn says(error: &Error, words: &[&str]) {
    let said = error.to_string();
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

// ==================================================================== D0: what no message shows

#[test]
fn d0_a_secret_is_in_no_message() {
    ends(|| {
        let secret = "hunter2-hunter2";
        let with =
            |template: Template| template.arg("sh").secret_arg(secret).secret_env("TOKEN", secret);
        let limit = Duration::from_millis(300);
        let templates = [
            with(Template::shell("read -r x; exit 3")),
            with(Template::shell("exit 3").give_up_after(2)),
            // A source obeys the other limit.
            with(
                Template::shell("read -r x; exec sleep 100")
                    .packet_timeout(limit)
                    .start_timeout(limit),
            ),
            with(Template::shell("cat; echo more")),
            with(Template::new("no-such-program")),
        ];
        for template in templates {
            assert!(!format!("{template:?}").contains(secret), "{template:?}");
            let feed = numbers(3).feed_subprocesses_ordered(template.clone(), 1, 10);
            let monitor = feed.monitor();
            let errors: Vec<_> = feed.filter_map(Result::err).collect();
            assert!(!errors.is_empty());
            for error in errors {
                let said = format!("{error} {error:?} {:?}", error.command());
                assert!(!said.contains(secret), "{said}");
            }
            assert!(!format!("{monitor:?}").contains(secret), "{monitor:?}");
            if format!("{template:?}").contains("sleep") {
                // As a source it would sleep: packets have a limit, records have none.
                continue;
            }
            let source = iterate_in_subprocess(template, 2);
            for error in source.iter().filter_map(Result::err) {
                assert!(!format!("{error} {error:?}").contains(secret), "{error}");
            }
        }
    });
}

// ==================================================================== D1: a bounded line

/// The longest line that an error may be.
const LONGEST: usize = 4 << 10;

#[track_caller]
fn is_bounded(error: &(dyn std::error::Error + 'static)) {
    for said in [error.to_string(), format!("{error:?}")] {
        assert!(said.len() <= LONGEST, "{} bytes: {}...", said.len(), &said[..300]);
        assert!(!said.contains('\n'), "{said}");
    }
}

/// A command line of half a megabyte that begins and ends with what one wants to see.
fn endless(script: &str) -> Template {
    let long = "x".repeat(100_000);
    Template::shell(script).arg("the-first").args(vec![long; 5]).arg("the-last")
}

#[test]
fn d1_a_long_command_line_is_an_excerpt_in_every_kind_of_error() {
    let limit = Duration::from_millis(500);
    let long = "x".repeat(100_000);
    for (template, kind) in [
        (endless("read -r x; exit 3"), ErrorKind::Died),
        (endless("read -r x; exec sleep 100").packet_timeout(limit), ErrorKind::Timeout),
        (endless("exec cat").check(|_, _| Err("no".into())), ErrorKind::Check),
        (endless("exit 3").give_up_after(2), ErrorKind::Died),
        (
            Template::new("no-such-program").arg("the-first").args(vec![long; 5]).arg("the-last"),
            ErrorKind::Spawn,
        ),
    ] {
        let error = first_error(template, &["a"]);
        assert_eq!(error.kind(), kind, "{}", &error.to_string()[..200]);
        is_bounded(&error);
        says(&error, &["the-first", "the-last"]);
    }
}

#[test]
fn d1_everywhere_an_error_goes() {
    ends(|| {
        let run = Pipeline::new(["a"]).feed("a stage", endless("read -r x; exit 3")).run();
        let error = run.items().find_map(Result::err).expect("an error");
        is_bounded(&error);
        let mut queue = Queue::subprocesses(endless("read -r x; exit 3"), 1, 1);
        queue.put("a").unwrap();
        is_bounded(&queue.get().unwrap().unwrap_err());
        let source = iterate_in_subprocess(endless("exit 3"), 1);
        is_bounded(&source.iter().find_map(Result::err).expect("an error"));
        let drained = ["a"].into_iter().feed(endless("cat >/dev/null; exit 3")).workers(1).drain();
        is_bounded(&drained.unwrap().bad_ends[0]);
        let blocks = &mut ["a"].into_iter().feed(endless("read -r x; exit 3")).blocks();
        is_bounded(&blocks.next().unwrap().unwrap_err());
    });
}

#[test]
fn d1_long_requests_replies_and_last_words() {
    ends(|| {
        let long = "y".repeat(3_000_000);
        let refused = Template::new("cat").check(|_, reply| Err(format!("no: {reply:?}").into()));
        let undecoded = Template::new("cat").reply_limit(1_000);
        let dies = Template::shell("read -r x; echo \"$x\" >&2; exit 3");
        for template in [refused, undecoded, dies] {
            let source = std::iter::once(long.clone());
            let mut feed = source.feed_subprocesses_ordered(template, 1, 10);
            is_bounded(&feed.next().unwrap().unwrap_err());
        }
    });
}

// ==================================================================== D2, D7: hints that blame a buffer

#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence: the input has not ended")]
fn d2_a_request_that_was_swallowed_is_not_blamed_on_a_buffer() {
    ends(|| {
        for framing in [ReplyFraming::line(), ReplyFraming::lines(1)] {
            let mut queue = Queue::subprocesses(child("skip").replies(framing), 1, 10);
            // It answers at once, so that it does not buffer, and then swallows one.
            for item in ["a", "b"] {
                queue.put(item).unwrap();
                assert_eq!(queue.get().unwrap().unwrap(), item);
            }
            queue.put("skip").unwrap();
            assert!(queue.get().unwrap().is_err());
            let hint = queue.feed().monitor().snapshot().hint;
            let blames =
                |hint: &String| hint.contains("line_buffered") || hint.contains("line-buffered");
            assert!(!hint.as_ref().is_some_and(blames), "{hint:?}");
        }
    });
}

#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence: the input has not ended")]
fn d7_an_open_quote_is_not_blamed_on_a_buffer() {
    ends(|| {
        let sentinel = ReplyFraming::sentinel(Sentinel::new("echo {mark}"));
        let mut queue = Queue::subprocesses(Template::new("sh").replies(sentinel), 1, 10);
        queue.put("echo 1").unwrap();
        assert_eq!(queue.get().unwrap().unwrap(), "1\n");
        queue.put("echo 'open").unwrap();
        let error = queue.get().unwrap().unwrap_err();
        let hint = queue.feed().monitor().snapshot().hint.unwrap_or_default();
        for said in [error.to_string(), hint] {
            assert!(!said.contains("buffer"), "{said}");
        }
    });
}

#[test]
fn d7_nor_where_it_is_the_first_request_of_all() {
    ends(|| {
        let sentinel = ReplyFraming::sentinel(Sentinel::new("echo {mark}"));
        let template = Template::new("sh").replies(sentinel);
        let mut feed = ["echo 'open"].into_iter().feed_subprocesses_ordered(template, 1, 10);
        let error = feed.next().unwrap().unwrap_err();
        assert!(!error.is_fatal() && !error.to_string().contains("buffer"), "{error}");
    });
}

// ==================================================================== D3: the head of stderr

/// Reads its input as `read` says and ends badly, with a cause in the first line of its stderr and the advice in
/// the last. What it says is not in its command line.
fn verbose(read: &str) -> Template {
    let script = format!(
        "{read}; echo \"$CAUSE\" >&2; yes 'usage: tool [-a]' | head -n 2000 >&2; echo \"$ADVICE\" >&2; exit 2"
    );
    Template::shell(script).env("CAUSE", "unknown option -z").env("ADVICE", "see the manual")
}

#[test]
fn d3_the_first_line_of_stderr_is_shown() {
    for template in [
        verbose("read -r x"),
        verbose("read -r x").give_up_after(1),
        verbose("read -r x").replies(ReplyFraming::until_eof()),
    ] {
        let error = first_error(template, &["a"]);
        says(&error, &["unknown option -z", "see the manual"]);
        let stderr = error.stderr().to_string();
        assert!(stderr.starts_with("unknown option -z\n"), "{}...", &stderr[..100]);
        assert!(stderr.ends_with("see the manual\n"));
        // The first and the last 4 KiB, and a word about what is between.
        assert!(stderr.len() <= (8 << 10) + 100, "{} bytes", stderr.len());
    }
}

#[test]
fn d3_of_a_source_and_of_what_is_drained_too() {
    ends(|| {
        let source = iterate_in_subprocess(verbose("cat >/dev/null"), 1);
        let error = source.iter().find_map(Result::err).expect("an error");
        says(&error, &["unknown option -z"]);
        let drained = numbers(3).feed(verbose("cat >/dev/null")).workers(1).drain().unwrap();
        says(&drained.bad_ends[0], &["unknown option -z"]);
    });
}

#[test]
fn d3_what_is_short_is_shown_once() {
    let error = first_error(Template::shell("read -r x; echo oops >&2; exit 2"), &["a"]);
    assert_eq!(error.stderr(), "oops\n");
    // Once in the command line, once as what it said.
    assert_eq!(error.to_string().matches("oops").count(), 2, "{error}");
}

// ==================================================================== D4: `ready` and `skip_*`

#[test]
fn d4_they_are_one_setting_in_any_order_with_their_own_limit() {
    ends(|| {
        let slow = || Template::shell("echo loading; sleep 1; echo READY; exec cat");
        for template in [
            slow().ready("READY\n", LIMIT).skip_lines(1),
            slow().skip_lines(1).ready("READY\n", LIMIT),
            slow().skip_until("loading\n").ready("READY\n", LIMIT),
            // What is said twice holds as it was said last, and so does its limit.
            slow().ready("never", Duration::from_millis(100)).ready("READY\n", LIMIT),
        ] {
            let feed = numbers(3).feed_subprocesses_ordered(template, 1, 10);
            let monitor = feed.monitor();
            eventually("it is started", || monitor.snapshot().starts == 1);
            assert_eq!(monitor.snapshot().written_bytes, 0);
            assert_eq!(texts(feed), ["0", "1", "2"]);
        }
    });
}

#[test]
fn d4_the_limit_is_for_all_of_it() {
    let slow = || Template::shell("echo READY; sleep 100");
    for template in [
        slow().ready("READY\n", Duration::from_millis(500)).skip_lines(7),
        slow().skip_until("never").ready("READY\n", Duration::from_millis(500)),
    ] {
        let error = first_error(template.give_up_after(1), &["a"]);
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        says(&error, &["ready", "500ms"]);
    }
}

// ==================================================================== D6: the mark on stderr

#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence: the input has not ended")]
fn d6_a_mark_that_came_on_stderr_is_told() {
    ends(|| {
        let sentinel = ReplyFraming::sentinel(Sentinel::new("echo {mark} >&2"));
        let template = Template::new("sh").replies(sentinel).give_up_after(2);
        // At the end of the input, and while it goes on.
        let error = ["echo 1"]
            .into_iter()
            .feed_subprocesses_ordered(template.clone(), 1, 10)
            .find_map(Result::err)
            .expect("an error");
        says(&error, &["on stderr"]);
        let (sender, source) = open_ended(vec!["echo 1".to_owned()]);
        let mut feed = source.feed_subprocesses_ordered(template, 1, 10);
        let error = feed.next().unwrap().unwrap_err();
        says(&error, &["on stderr"]);
        let hint = feed.monitor().snapshot().hint.unwrap_or_default();
        assert!(!hint.contains("buffer"), "{hint}");
        drop((feed, sender));
    });
}

// ==================================================================== D8: the fix by name

#[test]
fn d8_a_record_with_its_own_delimiter_is_told_of_raw_requests() {
    let error = first_error(Template::new("cat"), &["a\nb"]);
    assert_eq!(error.kind(), ErrorKind::Encode);
    says(&error, &["RequestFraming::raw"]);
}

#[test]
fn d8_a_tool_that_answers_once_at_its_end_is_told_of_until_eof() {
    for template in [Template::new("wc").arg("-l"), Template::new("cksum")] {
        let error = first_error(template, &["a", "b", "c"]);
        assert!(matches!(error.kind(), ErrorKind::ReplyCount { .. }), "{error}");
        says(&error, &["until_eof"]);
    }
}

// ==================================================================== D9: what `finish` says

#[test]
fn d9_our_own_kill_sequence_is_told_with_its_limit() {
    ends(|| {
        let template = child("deaf").end_timeout(Duration::from_millis(200));
        let mut feed = numbers(3).feed_subprocesses_ordered(template, 1, 10);
        assert_eq!(texts(feed.by_ref()).len(), 3);
        let error = feed.finish().unwrap_err();
        says(&error, &["end_timeout", "200ms"]);
    });
}

// ==================================================================== D10: the mark's letters

#[test]
fn d10_no_mark_ends_in_a_digit() {
    ends(|| {
        let dir = Dir::new();
        let script = "while read -r x; do echo \"$x\" >>\"$LOG\"; echo \"$x\"; done";
        for _ in 0..20 {
            let template = Template::shell(script)
                .env("LOG", dir.path("log"))
                .replies(ReplyFraming::sentinel(Sentinel::new("{mark}")));
            let feed = numbers(3).feed_subprocesses_ordered(template, 1, 10);
            assert_eq!(texts(feed), ["0\n", "1\n", "2\n"]);
        }
        let log = dir.read("log");
        let marks: BTreeSet<&str> = log.lines().filter(|line| line.len() > 1).collect();
        assert_eq!(marks.len(), 60, "a mark of its own for each packet: {log}");
        for mark in marks {
            // GNU units takes a name that ends in a digit for a power.
            let letter = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphabetic());
            assert!(letter(mark.bytes().next()) && letter(mark.bytes().last()), "{mark}");
        }
    });
}
