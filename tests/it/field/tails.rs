//! What stands at the end of a session's output behind its last answer, and is no whole reply; and an output that
//! cannot be read to its end. (Relatives of B0, B1 and B3.)

use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd;

use subfeed::channel::Redirect;
use subfeed::framing::{Prefix, ReplyFraming, RequestFraming, Sentinel};
use subfeed::source::iterate_in_subprocess;
use subfeed::{Error, ErrorKind, FeedExt, Order, Template};

use super::{Door, doors, ends};
use crate::alone;
use crate::common::{Dir, numbers, texts};

// ==================================================================== half a reply behind the last one

/// Answers each request with `reply`, and says `tail` at its end; both for `printf`.
fn with_tail(reply: &str, tail: &str) -> Template {
    Template::shell(format!("while read -r x; do printf '{reply}'; done; printf '{tail}'"))
}

/// Every framing that counts: one whole reply, and half of one.
fn halves() -> Vec<(ReplyFraming, &'static str, &'static str)> {
    vec![
        (ReplyFraming::line(), r"a\n", "half"),
        (ReplyFraming::delimited(0), r"a\0", "half"),
        (ReplyFraming::lines(2), r"a\nb\n", r"half\n"),
        (ReplyFraming::fields(0, 2), r"a\0b\0", r"half\0"),
        (ReplyFraming::fixed_size(4), "abcd", "abc"),
        (ReplyFraming::block(), r"a\n\n", r"half\n"),
        (ReplyFraming::blocks(2), r"a\n\nb\n\n", r"half\n\n"),
        (ReplyFraming::end_line(["OK"]), r"a\nOK\n", r"half\n"),
        (ReplyFraming::end_marker("."), "a.", "half"),
        (ReplyFraming::end_marker_line("."), r"a\n.\n", r"half\n"),
        (ReplyFraming::record_separator(), r"\036a\n", r"\036half"),
        (ReplyFraming::prefixed(Prefix::u8()), r"\001a", r"\002h"),
        (ReplyFraming::netstring(), "1:a,", "3:ha"),
        (
            ReplyFraming::content_length(),
            r"Content-Length: 1\r\n\r\na",
            r"Content-Length: 3\r\n\r\nha",
        ),
        (ReplyFraming::git_batch(), r"f00 blob 1\na\n", r"f00 blob 3\nha"),
        (ReplyFraming::line().skipping(|line| line == b"#"), r"a\n", r"#\nhalf"),
    ]
}

#[test]
fn half_a_reply_behind_the_last_one_is_never_nothing() {
    ends(|| {
        for (framing, reply, tail) in halves() {
            for order in [Order::Input, Order::Completion] {
                let template = with_tail(reply, tail).replies(framing.clone());
                let feed = numbers(3).feed(template).workers(1).order(order).start();
                let items: Vec<_> = feed.collect();
                assert_eq!(items.len(), 3, "{framing:?}: {items:?}");
                let error = items[2].as_ref().expect_err("it is told");
                let too_many = matches!(error.kind(), ErrorKind::ReplyCount { owed: 3, got: 4 });
                assert!(error.is_fatal() && too_many, "{framing:?}: {error}");
            }
            // Whole, and nothing behind it.
            let template = with_tail(reply, "").replies(framing);
            assert_eq!(
                numbers(3).feed_subprocesses(template, 1, 9).filter(Result::is_ok).count(),
                3
            );
        }
    });
}

fn half_a_line_through_every_door(door: Door) {
    let told = door.send(with_tail(r"a\n", "half"), &["1", "2"], 1);
    let cause = told.items.iter().find(|item| item.starts_with('!')).expect("it is told");
    assert!(cause.starts_with("!!ReplyCount"), "{told:?}");
}
doors!(half_a_line_through_every_door:
    ordered unordered keep_input blocks wrapping queue pipeline results);

#[test]
fn half_a_line_can_be_declared_and_what_is_passed_over_is_no_reply() {
    ends(|| {
        let declared = with_tail(r"a\n", "bye").skip_at_end("bye");
        assert_eq!(texts(numbers(3).feed_subprocesses_ordered(declared, 1, 9)).len(), 3);
        let comments = ReplyFraming::line().skipping(|line| line.starts_with(b"#"));
        let commented = with_tail(r"#b\na\n", r"#c\n#d\n").replies(comments);
        assert_eq!(texts(numbers(3).feed_subprocesses_ordered(commented, 1, 9)), ["a"; 3]);
    });
}

#[test]
fn half_a_line_of_a_session_that_is_recycled_or_was_never_asked() {
    ends(|| {
        let recycled = with_tail(r"a\n", "half").recycle_after_records(2);
        let items: Vec<_> = numbers(9).feed_subprocesses_ordered(recycled, 1, 9).collect();
        assert!(items.iter().any(|item| item.as_ref().is_err_and(Error::is_fatal)), "{items:?}");
        // One of the two is never asked: what it says is no reply.
        let asked = "while read -r x; do echo $x; done; [ {id} = 0 ] || printf half";
        for _ in 0..5 {
            let feed = ["a"].into_iter().feed_subprocesses_ordered(Template::shell(asked), 2, 9);
            for item in feed {
                assert!(item.is_ok() || item.is_err_and(|error| error.worker() == Some(1)));
            }
        }
    });
}

#[test]
fn half_a_part_on_a_side_output() {
    ends(|| {
        let script = r#"while read -r x; do echo $x; echo side >/dev/fd/$log; done; printf half >/dev/fd/$log"#;
        let template = Template::shell(script).side_output("log", ReplyFraming::line());
        let items: Vec<_> = numbers(3).feed_subprocesses_ordered(template, 1, 9).collect();
        let error = items[2].as_ref().expect_err("it is told");
        assert!(error.is_fatal() && error.to_string().contains("log"), "{error}");
    });
}

#[test]
fn half_a_record_of_a_source() {
    ends(|| {
        let source = iterate_in_subprocess(Template::shell("echo a; printf half"), 9);
        let items: Vec<_> = source.iter().collect();
        assert!(items.len() == 2 && items[1].as_ref().is_err_and(Error::is_fatal), "{items:?}");
    });
}

// ==================================================================== a mark that comes again when nothing is owed

/// Echoes; of the request `quote` it complains, and quotes the mark that follows it.
fn complaining() -> Template {
    let script = "while read -r x; do \
                  if [ $x = quote ]; then read -r mark; echo \"near $mark\"; echo $mark; else echo $x; fi; \
                  done";
    Template::shell(script).replies(ReplyFraming::sentinel(Sentinel::new("{mark}")))
}

fn a_mark_repeated_behind_the_last_answer(door: Door) {
    let told = door.send(complaining(), &["a", "quote"], 1);
    let cause = told.items.iter().find(|item| item.starts_with('!')).expect("it is told");
    assert!(cause.starts_with("!!Reply") || cause.starts_with("!Reply"), "{told:?}");
}
doors!(a_mark_repeated_behind_the_last_answer:
    ordered unordered keep_input blocks wrapping queue pipeline results);

#[test]
fn a_mark_repeated_at_the_end_keeps_the_framings_own_error() {
    ends(|| {
        // Long after the answer.
        let script = "while read -r x; do echo $x; last=$x; done; echo $last";
        let template = Template::shell(script);
        let template = template.replies(ReplyFraming::sentinel(Sentinel::new("{mark}")));
        let items: Vec<_> = numbers(3).feed_subprocesses_ordered(template, 1, 9).collect();
        assert_eq!(items.len(), 3);
        let error = items[2].as_ref().expect_err("it is told");
        assert!(error.is_fatal() && error.to_string().contains("came twice"), "{error}");
    });
}

// ==================================================================== an output that cannot be read

/// Puts a file that cannot be read in the place of our end of the worker's output.
fn spoil(output: &str) {
    let null = OpenOptions::new().write(true).open("/dev/null").expect("/dev/null");
    let mut spoiled = false;
    for entry in fs::read_dir("/proc/self/fd").expect("/proc").flatten() {
        let name = entry.file_name();
        let number: i32 = name.to_str().unwrap().parse().unwrap();
        if fs::read_link(entry.path()).is_ok_and(|target| target.to_str() == Some(output)) {
            // SAFETY: both are open, and whoever owns the second goes on owning that number.
            let copied = unsafe { nix::libc::dup2(null.as_raw_fd(), number) };
            assert_eq!(copied, number);
            spoiled = true;
        }
    }
    assert!(spoiled, "no descriptor is {output}");
}

/// What the worker's stdout leads to: the worker says it in the file.
const TELL: &str = "out=$(readlink /proc/$$/fd/1); echo $out";

#[test]
fn an_output_that_cannot_be_read_is_told_and_is_no_end() {
    alone!(|| {
        for until_eof in [true, false] {
            let dir = Dir::new();
            let script = format!(
                "trap '' PIPE; {TELL} > {0}.draft; mv {0}.draft {0}; read -r x; \
                 until [ -e {1} ]; do sleep 0.01; done; echo abc; exit 0",
                dir.at("output"),
                dir.at("go")
            );
            let mut template = Template::shell(script);
            if until_eof {
                template = template.replies(ReplyFraming::until_eof());
            }
            let mut feed = ["x"].into_iter().feed_subprocesses_ordered(template, 1, 9);
            crate::common::eventually("it tells its output", || dir.path("output").exists());
            spoil(dir.read("output").trim_end());
            dir.touch("go");
            let error = feed.next().expect("an item").expect_err("it cannot be read");
            assert!(error.is_fatal() && error.kind() == ErrorKind::Channel, "{error}");
            assert!(error.to_string().contains("cannot be read"), "{error}");
            assert!(feed.next().is_none());
        }
    });
}

#[test]
fn nor_is_that_of_a_source() {
    alone!(|| {
        let dir = Dir::new();
        let script = format!(
            "trap '' PIPE; {TELL} > {0}.draft; mv {0}.draft {0}; \
             until [ -e {1} ]; do sleep 0.01; done; echo abc; exit 0",
            dir.at("output"),
            dir.at("go")
        );
        let source = iterate_in_subprocess(Template::shell(script), 9);
        let mut records = source.iter();
        crate::common::eventually("it tells its output", || dir.path("output").exists());
        spoil(dir.read("output").trim_end());
        dir.touch("go");
        let error = records.next().expect("an item").expect_err("it cannot be read");
        assert!(error.is_fatal() && error.to_string().contains("cannot be read"), "{error}");
    });
}

// ==================================================================== nothing read, nothing said

#[test]
fn a_process_that_has_read_nothing_and_says_nothing_has_not_answered() {
    ends(|| {
        let until_eof = |script: &str| Template::shell(script).replies(ReplyFraming::until_eof());
        let items: Vec<_> = numbers(3).feed_subprocesses_ordered(until_eof(":"), 2, 9).collect();
        assert_eq!(items.len(), 3);
        assert!(items.iter().all(Result::is_err), "{items:?}");
        assert!(items[0].as_ref().is_err_and(Error::is_fatal), "{items:?}");
        // What it says without reading is the template's own affair, and so is a request without a byte.
        let constant = numbers(3).feed_subprocesses_ordered(until_eof("echo x"), 2, 9);
        assert_eq!(texts(constant), ["x\n"; 3]);
        let read = numbers(3).feed_subprocesses_ordered(until_eof("cat > /dev/null"), 2, 9);
        assert_eq!(texts(read), [""; 3]);
        let raw = until_eof("exec cat").requests(RequestFraming::raw());
        assert_eq!(
            texts(["", "a", ""].into_iter().feed_subprocesses_ordered(raw, 2, 9)),
            ["", "a", ""]
        );
    });
}

// ==================================================================== statuses that a drain accepts

#[test]
fn a_drain_judges_by_the_statuses_that_are_accepted() {
    ends(|| {
        let linter = || Template::shell("cat > /dev/null; exit 1").stdout(Redirect::Null);
        let drained = numbers(5).feed(linter()).workers(1).drain().unwrap();
        assert!(!drained.all_ended_well() && drained.bad_ends.len() == 1, "{drained:?}");
        for framing in [ReplyFraming::line(), ReplyFraming::until_eof()] {
            let template = linter().replies(framing).accept_status(|code| code < 2);
            let drained = numbers(5).feed(template).workers(1).drain().unwrap();
            assert!(drained.all_ended_well() && drained.bad_ends.is_empty(), "{drained:?}");
            assert_eq!(drained.accepted, [5]);
        }
        let killed = Template::shell("cat > /dev/null; kill -9 $$").stdout(Redirect::Null);
        let drained = numbers(5).feed(killed.accept_status(|_| true)).workers(1).drain().unwrap();
        assert!(!drained.all_ended_well(), "{drained:?}");
        // Where replies come back the status of a process with several of them says nothing of one.
        let refused = Template::new("cat").accept_status(|_| true);
        let items: Vec<_> = numbers(1).feed_subprocesses(refused, 1, 1).collect();
        assert!(items[0].as_ref().is_err_and(|error| error.kind() == ErrorKind::Config));
    });
}
