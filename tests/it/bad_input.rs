//! What is wrong is said: which channel, which worker, which packet.

use std::time::Duration;

use subfeed::channel::Redirect;
use subfeed::framing::{Prefix, ReplyFraming, RequestFraming, Sentinel};
use subfeed::{Error, ErrorKind, FeedExt, Template};

use crate::common::{Dir, numbers, with_patience, within};

/// The one error of a feed that cannot start.
fn refused(template: Template) -> Error {
    let mut feed = numbers(3).feed_subprocesses_ordered(template, 2, 10);
    let error = feed.next().unwrap().unwrap_err();
    assert!(error.is_fatal() && error.kind() == ErrorKind::Config, "{error:?}");
    assert!(feed.next().is_none());
    error
}

#[track_caller]
fn says(error: &Error, parts: &[&str]) {
    let said = error.to_string();
    for part in parts {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
}

#[test]
fn templates_that_cannot_work_are_refused_before_anything_starts() {
    within(|| {
        let cat = || Template::new("cat");
        let line = ReplyFraming::line;
        says(&refused(cat().side_input("a").side_output("a", line())), &["named `a`"]);
        says(&refused(cat().side_input("no-name")), &["`no-name`"]);
        says(&refused(cat().side_input("")), &["``"]);
        says(&refused(cat().side_input("1st")), &["`1st`"]);
        says(&refused(cat().side_input("stdin")), &["`stdin`"]);
        says(&refused(cat().side_input("a").env("a", "1")), &["`a`"]);
        says(&refused(cat().arg("{fd:b}").side_input("a")), &["{fd:b}", "{{fd:b}}"]);
        says(&refused(cat().env("X", "{fd:b}")), &["{fd:b}"]);
        let file = Redirect::file("/tmp/{fd:a}");
        says(&refused(cat().side_input("a").stderr(file)), &["{fd:a}", "/tmp/"]);
        says(&refused(cat().stdin(Redirect::Null)), &["stdin", "side_input"]);
        says(&refused(cat().stdout(Redirect::Null)), &["stdout", "drain"]);
        let fed = || cat().stdin(Redirect::Null).side_input("a");
        says(&refused(fed().preamble("x")), &["preamble"]);
        says(&refused(fed().farewell("x")), &["farewell"]);
        let sentinel = ReplyFraming::sentinel(Sentinel::new("echo {mark}"));
        says(&refused(fed().replies(sentinel.clone())), &["sync command"]);
        says(&refused(cat().side_output("a", sentinel)), &["`a`"]);
    });
}

#[test]
fn a_ready_marker_that_nobody_can_see_is_refused() {
    within(|| {
        let template =
            Template::new("cat").stdout(Redirect::Null).ready("x", Duration::from_secs(1));
        let error = numbers(3).feed(template).drain().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    });
}

/// One bad item between two good ones: an `Err` at its position, and it is never written.
fn one_bad(template: Template, items: [(&'static str, String); 3]) -> Error {
    let template = template.encode(|(channel, text): &(&str, String), request| {
        request.push(text.get(..1).unwrap_or_default());
        if *channel == "stdin" {
            request.push(&text[1..]);
        } else {
            request.side(channel).push(text);
        }
    });
    let mut replies: Vec<_> =
        items.into_iter().feed_subprocesses_ordered(template, 1, 10).collect();
    assert_eq!(replies.len(), 3);
    assert_eq!(replies[0].as_ref().unwrap(), "a");
    assert_eq!(replies[2].as_ref().unwrap(), "c");
    let error = replies.swap_remove(1).unwrap_err();
    assert!(!error.is_fatal());
    assert_eq!(error.packet(), Some(1), "{error}");
    error
}

fn good_and(channel: &'static str, bad: &str) -> [(&'static str, String); 3] {
    [("side", "a".to_owned()), (channel, bad.to_owned()), ("side", "c".to_owned())]
}

#[test]
fn an_encoder_that_writes_to_a_channel_it_does_not_have_is_told_which() {
    within(|| {
        let template = Template::new("cat").side_input("side");
        let error = one_bad(template, good_and("aside", "b"));
        assert_eq!(error.kind(), ErrorKind::Channel);
        says(&error, &["`aside`", "packet 1"]);
        // One that is a file is no better.
        let template = Template::new("cat").side_input("side").side_input_file("file", "/dev/null");
        let error = one_bad(template, good_and("file", "b"));
        says(&error, &["`file`", "packet 1"]);
    });
}

#[test]
fn a_record_with_its_own_delimiter_is_never_written() {
    within(|| {
        let template = Template::new("cat").side_input("side");
        let error = one_bad(template.clone(), good_and("side", "b\nb"));
        assert_eq!(error.kind(), ErrorKind::Encode);
        says(&error, &["`side`", "packet 1", "0x0a"]);
        let error = one_bad(template, good_and("stdin", "b\nb"));
        assert_eq!(error.kind(), ErrorKind::Encode);
        assert_eq!(error.request().unwrap(), "b\nb");
    });
}

#[test]
fn a_record_over_its_length_prefix_is_never_written() {
    within(|| {
        let framing = RequestFraming::prefixed(Prefix::u8());
        let template = Template::new("cat").side_input_framed("side", framing);
        let error = one_bad(template, good_and("side", &"b".repeat(256)));
        assert_eq!(error.kind(), ErrorKind::Encode);
        says(&error, &["`side`", "packet 1", "255"]);
    });
}

/// The first item is answered badly; it is an `Err` that names worker and packet, and the rest comes.
fn first_fails(template: Template) -> Error {
    let mut replies: Vec<_> = numbers(3).feed_subprocesses_ordered(template, 1, 3).collect();
    assert_eq!(replies.len(), 3);
    let error = replies.remove(0).unwrap_err();
    assert_eq!((error.packet(), error.worker()), (Some(0), Some(0)), "{error}");
    assert_eq!(error.request().unwrap(), "0\n");
    assert!(!error.is_fatal(), "{error}");
    for (k, reply) in replies.into_iter().enumerate() {
        assert_eq!(reply.unwrap(), (k + 1).to_string().as_str());
    }
    error
}

/// A shell loop that answers `0` with `bad` and the rest with `good`.
fn answers(bad: &str, good: &str) -> Template {
    let script = format!("while read -r x; do if [ $x = 0 ]; then {bad}; else {good}; fi; done");
    Template::shell(script)
}

#[test]
fn a_length_prefix_over_the_limit_fails_its_packet() {
    within(|| {
        let template = answers("printf '\\377\\377\\377\\377data'", "printf '\\0\\0\\0\\001%s' $x")
            .replies(ReplyFraming::prefixed(Prefix::u32_be()));
        let error = first_fails(template);
        assert_eq!(error.kind(), ErrorKind::Reply);
        says(&error, &["4294967295", "stdout", "packet 0", "worker 0"]);
    });
}

#[test]
fn a_header_that_is_no_header_fails_its_packet() {
    within(|| {
        for (framing, good) in [
            (ReplyFraming::content_length(), "printf 'Content-Length: 1\\r\\n\\r\\n%s' $x"),
            (ReplyFraming::netstring(), "printf '1:%s,' $x"),
        ] {
            let bad = "printf 'Hello there\\r\\n\\r\\nx'; echo oops >&2; cat >/dev/null";
            let error = first_fails(answers(bad, good).replies(framing));
            assert_eq!(error.kind(), ErrorKind::Reply);
            says(&error, &["Hello there", "stdout", "packet 0", "worker 0"]);
        }
        let bad = "echo not a header; cat >/dev/null";
        let good = "echo $x missing";
        let template = answers(bad, good)
            .replies(ReplyFraming::git_batch())
            .decode(|reply| reply.split(|b| *b == b' ').next().unwrap_or_default().to_vec());
        let mut replies: Vec<_> = numbers(3).feed_subprocesses_ordered(template, 1, 3).collect();
        let error = replies.remove(0).unwrap_err();
        assert_eq!((error.kind(), error.packet()), (ErrorKind::Reply, Some(0)), "{error}");
        says(&error, &["not a header", "stdout", "packet 0", "worker 0"]);
        assert!(replies.into_iter().all(|reply| reply.is_ok()));
    });
}

#[test]
fn a_framing_that_does_not_fit_is_suspected_where_no_reply_ever_ended() {
    within(|| {
        for framing in [ReplyFraming::prefixed(Prefix::u32_be()), ReplyFraming::end_marker("END")] {
            let template = Template::new("cat").replies(framing);
            let mut feed = ["x"].into_iter().feed_subprocesses_ordered(template, 1, 3);
            let error = feed.next().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ReplyCount { owed: 1, got: 0 }, "{error}");
            says(&error, &["1 request and", r#"half a reply "x\n""#, "framings fit"]);
        }
    });
}

#[test]
fn a_part_over_the_reply_limit_fails_its_packet_and_names_the_channel() {
    within(|| {
        let script = "exec 3>{fd:side}; while read -r x; do echo $x; if [ $x = 0 ]; then seq 1000 | tr '\\n' ' ' >&3; fi; echo >&3; done";
        let template =
            Template::shell(script).side_output("side", ReplyFraming::line()).reply_limit(1_000);
        let error = first_fails(template);
        assert_eq!(error.kind(), ErrorKind::Reply);
        says(&error, &["side output `side`", "1000", "packet 0", "worker 0"]);
    });
}

fn sentinel() -> ReplyFraming {
    ReplyFraming::sentinel(Sentinel::new("echo {mark}"))
}

#[test]
fn a_sentinel_that_never_comes_runs_into_the_packets_time_limit() {
    within(|| {
        with_patience(Duration::from_millis(300), |limit| {
            // Packet 1 leaves the shell asleep, so that its sync command is never run.
            let items = ["echo fine", "echo 'I will not' >&2; exec sleep 1000", "echo good"];
            let template =
                Template::new("sh").replies(sentinel()).packet_timeout(limit).kill_sequence([]);
            let replies: Vec<_> =
                items.into_iter().feed_subprocesses_ordered(template, 1, 3).collect();
            assert_eq!(replies[0].as_ref().unwrap(), "fine\n");
            assert_eq!(replies[2].as_ref().unwrap(), "good\n");
            let error = replies[1].as_ref().unwrap_err();
            assert_eq!((error.packet(), error.worker()), (Some(1), Some(0)), "{error}");
            assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Died), "{error}");
            assert_eq!(error.stderr(), "I will not\n");
        });
    });
}

#[test]
fn a_sentinel_that_is_swallowed_fails_its_packet_alone() {
    within(|| {
        // An open quote swallows the sync command, its own and those that follow.
        let items = ["echo fine", "echo 'open", "echo good", "echo better"];
        let template = Template::new("sh").replies(sentinel());
        let replies: Vec<_> = items.into_iter().feed_subprocesses_ordered(template, 1, 4).collect();
        let texts: Vec<_> = replies.iter().map(|reply| reply.as_deref().ok()).collect();
        let ok = |text: &'static str| Some(text.as_bytes());
        let expected = [ok("fine\n"), None, ok("good\n"), ok("better\n")];
        assert_eq!(texts.iter().map(|t| t.map(|t| &t[..])).collect::<Vec<_>>(), expected);
        let error = replies[1].as_ref().unwrap_err();
        assert!(!error.is_fatal(), "{error}");
        assert_eq!((error.packet(), error.worker()), (Some(1), Some(0)), "{error}");
    });
}

#[test]
fn a_tool_that_drops_the_sync_command_fails_its_packet_alone() {
    within(|| {
        // It leaves with status 0 at the end of its input, as if nothing had happened.
        let script = "while read -r x; do [ $x = 1 ] && exec cat >/dev/null; read -r sync; echo $x; eval $sync; done";
        let template = Template::shell(script).replies(sentinel());
        let replies: Vec<_> = numbers(4).feed_subprocesses_ordered(template, 1, 4).collect();
        for (k, reply) in replies.iter().enumerate() {
            match reply {
                Ok(reply) => assert_eq!(*reply, format!("{k}\n").as_str()),
                Err(error) => assert_eq!((k, error.packet()), (1, Some(1)), "{error}"),
            }
        }
        assert_eq!(replies.iter().filter(|reply| reply.is_err()).count(), 1);
    });
}

// -------------------------------------------------------------------- files

#[test]
fn a_file_that_cannot_be_opened_is_named_with_its_channel_and_worker() {
    within(|| {
        let dir = Dir::new();
        let fifo = dir.path("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let cases = [
            (Template::new("cat").stderr(Redirect::file("/no/dir/{id}")), "stderr", "/no/dir/0"),
            (Template::new("cat").side_output_file("log", "/proc/{id}/no"), "log", "/proc/0/no"),
            (Template::new("cat").side_input_file("words", "/no/words"), "words", "/no/words"),
            // To open one would block the thread on which every worker depends.
            (Template::new("cat").side_input_file("pipe", &fifo), "pipe", "named pipe"),
            (Template::new("cat").side_output_file("pipe", &fifo), "pipe", "named pipe"),
        ];
        for (template, channel, path) in cases {
            let mut feed = numbers(3).feed_subprocesses_ordered(template, 1, 10);
            let error = feed.next().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Channel, "{error}");
            assert!(error.is_fatal() && error.worker() == Some(0));
            says(&error, &[&format!("`{channel}`"), path, "worker 0"]);
        }
    });
}

#[test]
fn a_full_disk_ends_the_worker_and_its_words_are_reported() {
    within(|| {
        let template = Template::new("cat").stdout(Redirect::file("/dev/full")).give_up_after(3);
        let template = template.backoff(Duration::from_millis(1), Duration::from_millis(1));
        match numbers(100).feed(template).workers(2).drain() {
            Ok(drained) => {
                assert!(!drained.all_ended_well());
                let error = drained.bad_ends.first().expect("an error");
                says(error, &["No space left", "worker"]);
            }
            Err(error) => says(&error, &["No space left", "worker"]),
        }
    });
}

#[test]
fn a_full_disk_on_the_side_fails_the_packet() {
    within(|| {
        let script = "while read -r x; do echo $x >{fd:log} || exit 5; echo $x; done";
        let template =
            Template::shell(script).side_output_file("log", "/dev/full").give_up_after(3);
        let template = template.backoff(Duration::from_millis(1), Duration::from_millis(1));
        let mut feed = numbers(5).feed_subprocesses_ordered(template, 1, 10);
        let error = feed.next().unwrap().unwrap_err();
        assert_eq!((error.kind(), error.packet()), (ErrorKind::Died, Some(0)), "{error}");
        assert_eq!(error.exit_status().and_then(|status| status.code()), Some(5));
    });
}
