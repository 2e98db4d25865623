//! A command as a source: what it prints comes back as an iterator, and nothing of it is left behind.

use std::time::Duration;

use crate::alone;
use crate::common::{
    Belongings, DEADLINE, Dir, child, eventually, is_running, soon, texts, with_patience, within,
};
use bstr::BString;
use subfeed::channel::Redirect;
use subfeed::framing::{Prefix, ReplyFraming};

use subfeed::policy::{Halt, Signal};
use subfeed::source::iterate_in_subprocess;
use subfeed::{Error, ErrorKind, FeedExt, Launcher, Template};

fn lines(script: &str) -> Template {
    Template::shell(script)
}

fn collect(template: Template, buffer_size: usize) -> Vec<Result<BString, Error>> {
    iterate_in_subprocess(template, buffer_size).iter().collect()
}

/// The good records, and the error after them.
#[track_caller]
fn split(mut items: Vec<Result<BString, Error>>) -> (Vec<String>, Error) {
    let error = items.pop().expect("an item").expect_err("an error at the end");
    (texts(items), error)
}

#[test]
fn every_record_comes_in_order_whatever_the_buffer() {
    within(|| {
        let expected: Vec<String> = (1..=5000).map(|n| n.to_string()).collect();
        for buffer_size in [1, 2, 3, 64, 4999, usize::MAX] {
            assert_eq!(texts(collect(lines("seq 5000"), buffer_size)), expected, "{buffer_size}");
        }
    });
}

#[test]
fn every_reply_framing_works() {
    within(|| {
        let cut =
            |script: &str, framing: ReplyFraming| texts(collect(lines(script).replies(framing), 2));
        assert_eq!(cut(r"printf 'a\0b\nc\0'", ReplyFraming::delimited(0)), ["a", "b\nc"]);
        assert_eq!(cut("seq 6", ReplyFraming::lines(2)), ["1\n2", "3\n4", "5\n6"]);
        assert_eq!(cut(r"printf 'a\nb\n\nc\n\n'", ReplyFraming::block()), ["a\nb", "c"]);
        assert_eq!(cut("printf 3:abc,0:,", ReplyFraming::netstring()), ["abc", ""]);
        let prefix = ReplyFraming::prefixed(Prefix::u16_be());
        assert_eq!(cut(r"printf '\0\002hi\0\0'", prefix), ["hi", ""]);
        assert_eq!(cut("printf 'no end'", ReplyFraming::until_eof()), ["no end"]);
        assert_eq!(cut("true", ReplyFraming::until_eof()), [""]);
        assert!(cut("true", ReplyFraming::line()).is_empty());
    });
}

#[test]
fn its_stdin_may_be_a_file_or_nothing() {
    within(|| {
        let dir = Dir::new();
        std::fs::write(dir.path("in"), "b\na\n").unwrap();
        let sort = || Template::new("sort");
        let from_file = || sort().stdin(Redirect::file(dir.path("in")));
        assert_eq!(texts(collect(from_file(), 8)), ["a", "b"]);
        assert!(collect(sort().stdin(Redirect::Null), 8).is_empty());
        let absent = sort().stdin(Redirect::file(dir.path("absent")));
        let (none, error) = split(collect(absent, 8));
        assert!(none.is_empty() && error.is_fatal(), "{error}");
        assert!(error.to_string().contains("absent"), "{error}");
        let (_, error) = split(collect(from_file().preamble("c\n"), 8));
        assert!(error.to_string().contains("a preamble is written to stdin"), "{error}");
        let far = from_file().via(Launcher::remote(["sh", "-c"]));
        let (_, error) = split(collect(far, 8));
        assert!(error.to_string().contains("stdin is redirected, and a launcher"), "{error}");
    });
}

#[test]
fn large_records_pass_through_a_small_pipe() {
    within(|| {
        let template =
            lines("for c in a b c; do head -c 3000000 /dev/zero | tr '\\0' $c; echo; done");
        let records = collect(template, 1);
        let sizes: Vec<_> = records.into_iter().map(|record| record.unwrap().len()).collect();
        assert_eq!(sizes, [3_000_000; 3]);
    });
}

#[test]
fn iterated_again_the_command_is_run_again_and_passes_are_independent() {
    within(|| {
        let dir = Dir::new();
        let script = format!("echo run >> {}; seq 3", dir.at("runs"));
        let source = iterate_in_subprocess(lines(&script), 8);
        assert_eq!(dir.read("runs"), "", "nothing runs before it is iterated");
        for pass in 1..=3 {
            assert_eq!(texts(source.iter()), ["1", "2", "3"]);
            assert_eq!(dir.read("runs").lines().count(), pass);
        }
        let (mut a, mut b) = (source.iter(), source.iter());
        for n in ["1", "2", "3"] {
            assert_eq!(a.next().unwrap().unwrap(), n);
            assert_eq!(b.next().unwrap().unwrap(), n);
        }
        assert!(a.next().is_none() && b.next().is_none());
    });
}

#[test]
fn a_pass_that_was_left_in_the_middle_does_not_show_in_the_next() {
    within(|| {
        let source = iterate_in_subprocess(lines("seq 100000"), 4);
        for _ in 0..3 {
            assert_eq!(texts(source.iter().take(3)), ["1", "2", "3"]);
        }
        assert_eq!(source.iter().count(), 100_000);
    });
}

#[test]
fn a_paused_consumer_stops_the_command_in_its_own_write() {
    within(|| {
        let dir = Dir::new();
        // Each record is as large as a pipe, and its number is left in a file before it is written.
        let script = format!(
            "i=0; while :; do i=$((i+1)); echo $i > {}; head -c 65535 /dev/zero | tr '\\0' x; echo; done",
            dir.at("made")
        );
        let source = iterate_in_subprocess(lines(&script), 2);
        let mut records = source.iter();
        let made = || dir.read("made").trim().parse::<u64>().unwrap_or(0);
        for yielded in 1..=5 {
            assert_eq!(records.next().unwrap().unwrap().len(), 65_535);
            // Two are held, less than two are in the read buffer, two more in the pipe and on their way.
            assert!(made() <= yielded + 2 + 2 + 2, "{} after {yielded}", made());
        }
        eventually("it runs ahead", || made() >= 5 + 2);
    });
}

#[test]
fn a_bad_exit_is_an_error_after_the_last_record() {
    within(|| {
        let (records, error) = split(collect(lines("seq 3; echo why >&2; exit 7"), 8));
        assert_eq!(records, ["1", "2", "3"]);
        assert_eq!(error.kind(), ErrorKind::Died);
        assert_eq!(error.exit_status().and_then(|status| status.code()), Some(7));
        assert!(error.is_fatal() && error.stderr() == "why\n", "{error}");
        assert!(error.command().is_some() && error.pid().is_some());
        let (records, error) = split(collect(lines("seq 2; kill -9 $$"), 8));
        assert_eq!((records.len(), error.kind()), (2, ErrorKind::Died));
    });
}

#[test]
fn half_a_record_is_no_record() {
    within(|| {
        let (records, error) = split(collect(lines(r"printf 'a\nb'"), 8));
        assert_eq!((records, error.kind()), (vec!["a".to_owned()], ErrorKind::Reply));
        assert!(error.to_string().contains(r#""b""#), "{error}");
        let (records, error) = split(collect(lines(r"printf 'a\nb'; exit 3"), 8));
        assert_eq!((records.len(), error.kind()), (1, ErrorKind::Died));
    });
}

#[test]
fn it_is_fused_after_the_end_and_after_an_error() {
    within(|| {
        for script in ["seq 2", "seq 2; exit 1"] {
            let source = iterate_in_subprocess(lines(script), 8);
            let mut records = source.iter();
            while records.next().is_some() {}
            assert!((0..10).all(|_| records.next().is_none()));
        }
    });
}

#[test]
fn a_record_that_decode_or_check_refuses_is_an_error_at_its_position() {
    within(|| {
        let template = lines("printf '1\\nx\\n3\\n'")
            .try_decode(|record| Ok(record.to_str()?.parse::<u32>()?));
        let items: Vec<_> = iterate_in_subprocess(template, 8).iter().collect();
        assert_eq!((items[0].as_ref().unwrap(), items[2].as_ref().unwrap()), (&1, &3));
        let error = items[1].as_ref().unwrap_err();
        assert_eq!(
            (error.kind(), error.packet(), error.is_fatal()),
            (ErrorKind::Decode, Some(1), false)
        );

        let template = lines("seq 4")
            .check(|_, record| if record == b"3" { Err("not that one".into()) } else { Ok(()) });
        let items = collect(template, 8);
        let error = items[2].as_ref().unwrap_err();
        assert_eq!((error.kind(), error.packet(), items.len()), (ErrorKind::Check, Some(2), 4));
        assert_eq!(items[3].as_ref().unwrap(), "4");
    });
}

#[test]
fn it_is_halted_behind_the_record_at_which_check_has_refused_so_many() {
    within(|| {
        for halt in [Halt::Soon(2), Halt::Now(2)] {
            let template = lines("echo up; yes").halt(halt);
            let template =
                template.check(|_, record| if record == b"y" { Err("no".into()) } else { Ok(()) });
            let items = collect(template, 1);
            assert_eq!(items.len(), 4, "{items:?}");
            assert_eq!(items[0].as_ref().unwrap(), "up");
            let kinds = items[1..].iter().map(|item| item.as_ref().unwrap_err().kind());
            let kinds: Vec<_> = kinds.collect();
            assert_eq!(kinds, [ErrorKind::Check, ErrorKind::Check, ErrorKind::Halted]);
            let error = items[3].as_ref().unwrap_err();
            assert!(error.is_fatal() && error.to_string().contains("2 records"), "{error}");
        }
    });
}

#[test]
fn output_that_breaks_its_framing_ends_the_pass() {
    within(|| {
        let framing = ReplyFraming::netstring();
        let (records, error) = split(collect(lines("printf 1:a,; yes").replies(framing), 8));
        assert_eq!((records, error.kind()), (vec!["a".to_owned()], ErrorKind::Reply));
        let template = lines("echo short; yes | tr -d '\\n'").reply_limit(1 << 20);
        let (records, error) = split(collect(template, 8));
        assert_eq!((records, error.kind()), (vec!["short".to_owned()], ErrorKind::Reply));
    });
}

#[test]
fn what_cannot_run_is_one_error() {
    within(|| {
        let sentinel = subfeed::framing::Sentinel::new("echo {mark}");
        for (template, buffer_size, kind) in [
            (Template::new("no-such-program"), 8, ErrorKind::Spawn),
            (Template::new(""), 8, ErrorKind::Config),
            (Template::new("cat"), 0, ErrorKind::Config),
            (Template::new("cat").stdout(subfeed::channel::Redirect::Null), 8, ErrorKind::Config),
            (Template::new("cat").replies(ReplyFraming::sentinel(sentinel)), 8, ErrorKind::Config),
            (Template::new("cat").side_output("x", ReplyFraming::line()), 8, ErrorKind::Config),
        ] {
            let items = collect(template, buffer_size);
            let [Err(error)] = &items[..] else { panic!("{items:?}") };
            assert!(error.kind() == kind && error.is_fatal(), "{error:?}");
        }
    });
}

#[test]
fn preamble_and_banner_are_the_commands_first_words() {
    within(|| {
        let template =
            Template::new("cat").preamble("welcome\n1\n2\n").farewell("bye\n").skip_lines(1);
        assert_eq!(texts(collect(template, 8)), ["1", "2", "bye"]);
        // Without words its stdin is empty.
        assert!(collect(Template::new("cat"), 8).is_empty());
    });
}

#[test]
fn a_flood_on_stderr_and_a_chatty_end_stop_nothing() {
    within(|| {
        let script = "head -c 1000000 /dev/zero >&2; seq 3; head -c 1000000 /dev/zero >&2";
        assert_eq!(texts(collect(lines(script), 1)), ["1", "2", "3"]);
    });
}

#[test]
fn time_limits_end_the_pass_after_what_came() {
    within(|| {
        with_patience(Duration::from_millis(50), |limit| {
            let silent = || lines("exec sleep 300");
            let hangs = || lines("seq 2; exec sleep 300");
            for (template, records) in [
                (silent().start_timeout(limit), 0),
                (hangs().idle_timeout(limit), 2),
                (hangs().run_timeout(2 * limit), 2),
                (silent().ready("ready", limit), 0),
            ] {
                let (got, error) = split(collect(template, 8));
                assert_eq!((got.len(), error.kind()), (records, ErrorKind::Timeout), "{error}");
            }
            // It stays when it has closed its output.
            let script = "seq 2; exec >&- 2>&-; exec sleep 300";
            let (got, error) = split(collect(lines(script).end_timeout(limit), 8));
            assert_eq!((got.len(), error.kind()), (2, ErrorKind::Timeout), "{error}");
            assert!(error.exit_status().is_some());
        });
    });
}

#[test]
fn the_idle_limit_does_not_run_while_the_consumer_pauses() {
    within(|| {
        with_patience(Duration::from_millis(20), |limit| {
            let dir = Dir::new();
            let script = format!("seq 100; : > {}", dir.at("done"));
            let source = iterate_in_subprocess(lines(&script).idle_timeout(limit), 1);
            let mut records = source.iter();
            let first = records.next().unwrap();
            // Where the limit was too short for the start, it is not waited for.
            if first.is_ok() {
                eventually("the command is done", || dir.path("done").exists());
                std::thread::sleep(3 * limit);
            }
            assert_eq!(first.unwrap(), "1");
            assert_eq!(texts(records).len(), 99);
        });
    });
}

#[test]
fn dropping_ends_and_reaps_the_command_whatever_it_does() {
    alone!(|| {
        let before = Belongings::now();
        for script in [
            "yes",
            "echo $$; exec sleep 300",
            "trap '' TERM; echo $$; while :; do sleep 300; done",
            "trap '' PIPE; yes 2>&-",
            "exec 1>&-; exec sleep 300",
        ] {
            let source = iterate_in_subprocess(lines(script), 4);
            soon(|| drop(source.iter()));
            let mut records = source.iter();
            if script.starts_with("echo") || script.starts_with("trap '' TERM") {
                let pid: u32 = records.next().unwrap().unwrap().to_string().parse().unwrap();
                assert!(is_running(pid));
                soon(|| drop(records));
                assert!(!is_running(pid));
            } else {
                soon(|| drop(records));
            }
            before.restored();
        }
    });
}

#[test]
fn half_a_preamble_is_not_run_when_it_is_dropped() {
    within(|| {
        let dir = Dir::new();
        // The shell reads its program from stdin, which is larger than a pipe.
        let mut program = format!("echo up; sleep 300; : > {}; ", dir.at("ran")).into_bytes();
        program.resize(1 << 20, b'#');
        let source = iterate_in_subprocess(Template::new("sh").preamble(program), 1);
        drop(source.iter());
        assert!(!dir.path("ran").exists());
    });
}

#[test]
fn a_grandchild_that_holds_the_pipe_does_not_hold_up_the_end() {
    within(|| {
        soon(|| assert_eq!(texts(collect(lines("seq 3; sleep 300 &"), 8)), ["1", "2", "3"]));
    });
}

#[test]
fn it_feeds_a_swarm_and_is_cancelled_with_it() {
    alone!(|| {
        let before = Belongings::now();
        let source = iterate_in_subprocess(lines("seq 1000"), 16);
        let doubled = source.iter().map(Result::unwrap).feed_subprocesses_ordered(
            Template::shell("while read -r n; do echo $((n + n)); done"),
            2,
            32,
        );
        let sum: u64 = texts(doubled).iter().map(|n| n.parse::<u64>().unwrap()).sum();
        assert_eq!(sum, 1001 * 1000);

        // The second stage waits inside the source when it is dropped.
        let silent = iterate_in_subprocess(lines("echo 1; exec sleep 300"), 16);
        let mut feed =
            silent.iter().map(Result::unwrap).feed_subprocesses_ordered(Template::new("cat"), 1, 8);
        assert_eq!(feed.next().unwrap().unwrap(), "1");
        drop(feed);
        before.restored();
    });
}

#[test]
fn the_kill_sequence_is_the_templates_own() {
    within(|| {
        let dir = Dir::new();
        // It gives a record, so that its handlers are there.
        let template = child("signals").arg(dir.path("log")).arg("leaves").preamble("up\n");
        let source = iterate_in_subprocess(template.kill_sequence([(Signal::Hangup, DEADLINE)]), 1);
        let mut records = source.iter();
        assert_eq!(records.next().unwrap().unwrap(), "up");
        soon(|| drop(records));
        assert_eq!(dir.read("log"), "hup\n");
    });
}

#[test]
fn a_panic_of_check_is_resumed_in_next() {
    within(|| {
        let template = lines("seq 3").check(|_, record| {
            assert_ne!(record, b"2", "boom");
            Ok(())
        });
        let source = iterate_in_subprocess(template, 8);
        let mut records = source.iter();
        assert_eq!(records.next().unwrap().unwrap(), "1");
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| records.next()));
        assert!(caught.is_err());
        assert!(records.next().is_none());
    });
}

#[test]
fn a_panic_of_accept_status_is_resumed_in_next() {
    within(|| {
        let template = lines("echo a; exit 1").replies(ReplyFraming::until_eof());
        let source = iterate_in_subprocess(template.accept_status(|_| panic!("boom")), 8);
        let mut records = source.iter();
        assert_eq!(records.next().unwrap().unwrap(), "a\n");
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| records.next()));
        assert!(caught.is_err_and(|payload| payload.downcast_ref() == Some(&"boom")));
        assert!(records.next().is_none());
    });
}
