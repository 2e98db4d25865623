//! Tools that buffer: talked out of it, or answered at the end of their input.

use std::sync::mpsc;

use subfeed::channel::LineBuffered;
use subfeed::{FeedExt, Template};

use crate::common::tools::here;
use crate::common::{Dir, numbers, texts, within};

/// Each record must come back before the next is given, and nobody may have been recycled for it.
fn answers_each(template: Template, inputs: &[&str], expected: &[&str]) {
    let (send, receive) = mpsc::channel::<String>();
    let source = std::iter::from_fn(move || receive.recv().ok());
    // An hour until a stall would be looked for: whoever withholds hangs, and the watchdog barks.
    let patience = std::time::Duration::from_secs(3_600);
    let template = template.on_stall(subfeed::policy::OnStall::Recycle, patience);
    let mut feed = source.feed_subprocesses_ordered(template, 1, 1);
    for (input, expected) in inputs.iter().zip(expected) {
        send.send((*input).to_owned()).unwrap();
        assert_eq!(feed.next().unwrap().unwrap(), *expected);
    }
    drop(send);
    assert!(feed.next().is_none());
    assert_eq!(feed.monitor().snapshot().starts, 1);
}

#[test]
fn on_a_terminal_perl_answers_each_record_unchanged() {
    if !here(&["perl"]) {
        return;
    }
    within(|| {
        let template =
            Template::new("perl").args(["-pe", "s/a/b/"]).line_buffered(LineBuffered::Pty);
        // No echo, no CRLF, nothing interpreted: 3 is Ctrl-C, 4 the end of a file, 17 and 19 flow control.
        let inputs = ["a", "", "a\r", "\u{3}\u{4}\u{11}\u{13}\u{16}\u{1a}\u{1c}a", "ä a"];
        let expected = ["b", "", "b\r", "\u{3}\u{4}\u{11}\u{13}\u{16}\u{1a}\u{1c}b", "ä b"];
        answers_each(template, &inputs, &expected);
    });
}

#[test]
fn on_a_terminal_python_answers_each_record() {
    if !here(&["python3"]) {
        return;
    }
    within(|| {
        let script = "import sys\nfor line in sys.stdin: print(line.strip().upper())";
        let template = Template::new("python3").arg("-c").raw_arg(script);
        let template = template.env_remove("PYTHONUNBUFFERED");
        answers_each(template.clone().line_buffered(LineBuffered::Pty), &["a", "b"], &["A", "B"]);
        answers_each(template.line_buffered(LineBuffered::Environment), &["a", "b"], &["A", "B"]);
    });
}

#[test]
fn stdbuf_makes_tools_answer_each_record() {
    if !here(&["stdbuf"]) {
        return;
    }
    within(|| {
        let tr = Template::new("tr").args(["a", "b"]).line_buffered(LineBuffered::Stdbuf);
        answers_each(tr, &["a", "xa"], &["b", "xb"]);
        let cut = Template::new("cut").args(["-c", "1"]).line_buffered(LineBuffered::Stdbuf);
        answers_each(cut, &["abc", "xyz"], &["a", "x"]);
    });
}

#[test]
fn replies_on_a_terminal_may_be_far_larger_than_its_buffer() {
    if !here(&["perl"]) {
        return;
    }
    within(|| {
        let script = "while (<STDIN>) { chomp; print 'x' x $_, \"\\n\"; }";
        let template =
            Template::new("perl").arg("-e").raw_arg(script).line_buffered(LineBuffered::Pty);
        let sizes = [4_095usize, 4_096, 4_097, 1, 0, 100_000, 1_000_000, 7];
        let items = sizes.map(|size| size.to_string()).into_iter().cycle().take(40);
        let replies = texts(items.feed_subprocesses_ordered(template, 2, 16));
        let expected: Vec<usize> = sizes.iter().copied().cycle().take(40).collect();
        assert_eq!(replies.iter().map(String::len).collect::<Vec<_>>(), expected);
    });
}

#[test]
fn what_a_worker_writes_to_its_terminal_before_it_exits_is_not_lost() {
    if !here(&["perl"]) {
        return;
    }
    within(|| {
        // Everything comes at the end, and far more than the terminal holds.
        let script = "my @all = <STDIN>; print for map { chomp; $_ . 'x' x 500 . \"\\n\" } @all;";
        let template =
            Template::new("perl").arg("-e").raw_arg(script).line_buffered(LineBuffered::Pty);
        let template = template.answers_at_eof(100);
        let replies = texts(numbers(400).feed_subprocesses_ordered(template, 2, 200));
        let expected: Vec<_> = numbers(400).map(|k| k + &"x".repeat(500)).collect();
        assert_eq!(replies, expected);
    });
}

#[test]
fn a_terminal_is_used_by_many_workers_at_once() {
    within(|| {
        let template = Template::shell("[ -t 1 ] || exit 9; while read -r x; do echo \"$x\"; done");
        let template = template.line_buffered(LineBuffered::Pty);
        let replies = texts(numbers(2_000).feed_subprocesses_ordered(template, 8, 200));
        assert_eq!(replies, numbers(2_000).collect::<Vec<_>>());
    });
}

// -------------------------------------------------------------------- answers at the end of input

fn at_eof() -> [Template; 3] {
    [
        Template::new("tr").args(["a", "a"]),
        Template::new("sort").args(["-s", "-k", "2,2"]),
        Template::new("awk").raw_arg("{ all = all $0 \"\\n\" } END { printf \"%s\", all }"),
    ]
}

#[test]
fn tools_that_answer_at_the_end_get_batches() {
    within(|| {
        for template in at_eof() {
            let feed =
                numbers(1_000).feed_subprocesses_ordered(template.answers_at_eof(64), 3, 300);
            let monitor = feed.monitor();
            assert_eq!(texts(feed), numbers(1_000).collect::<Vec<_>>());
            let starts = monitor.snapshot().starts;
            assert!(starts >= 1_000 / 64, "{starts}");
        }
    });
}

#[test]
fn a_slow_source_is_answered_without_a_full_batch() {
    within(|| {
        for template in at_eof() {
            let (send, receive) = mpsc::channel::<String>();
            let source = std::iter::from_fn(move || receive.recv().ok());
            let mut feed =
                source.feed_subprocesses_ordered(template.answers_at_eof(1_000), 2, 1_000);
            for k in numbers(5) {
                send.send(k.clone()).unwrap();
                // Nothing more is given before this has come back.
                assert_eq!(feed.next().unwrap().unwrap(), *k);
            }
            drop(send);
            assert!(feed.next().is_none());
        }
    });
}

#[test]
fn a_full_window_is_answered_without_a_full_batch() {
    within(|| {
        for template in at_eof() {
            let feed = numbers(60).feed_subprocesses_ordered(template.answers_at_eof(1_000), 2, 7);
            assert_eq!(texts(feed), numbers(60).collect::<Vec<_>>());
        }
    });
}

/// A worker that reads nothing while it loads has not seen the end of the input either: it is given its share and answers
/// it, whether the input has ended meanwhile or not.
#[test]
fn a_model_that_sleeps_while_it_loads_is_loaded_once_by_each_worker() {
    within(|| {
        let dir = Dir::new();
        let loads = dir.at("loads");
        let script = format!("echo load >>{loads}; sleep 2; exec cat");
        let replies =
            texts(numbers(20).feed_subprocesses_ordered(Template::shell(script), 2, 1_000));
        assert_eq!(replies, numbers(20).collect::<Vec<_>>());
        let loads = std::fs::read_to_string(loads).expect("it was started").lines().count();
        assert_eq!(loads, 2);
    });
}
