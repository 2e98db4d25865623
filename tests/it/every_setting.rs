//! Every setting of a template with nothing, with as much as there can be, twice, before and after the framing, and with
//! framings that it does not suit: it works, or the feed's one item is an error that names it.

use std::collections::BTreeSet;
use std::time::Duration;

use subfeed::channel::{LineBuffered, Redirect};
use subfeed::framing::{Prefix, ReplyFraming, RequestFraming, Sentinel};
use subfeed::pipeline::{Pipeline, Stage};
use subfeed::policy::{Halt, OnStall, Signal};
use subfeed::queue::Queue;
use subfeed::source::iterate_in_subprocess;
use subfeed::{Error, ErrorKind, FeedExt, Host, Launcher, Template, blocks};

use crate::common::within;

type Set = fn(Template) -> Template;

/// What a feed of two items is with a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Both are answered.
    Works,
    /// The one item is a fatal error with this word.
    Refused(&'static str),
    /// Both are errors of their own.
    Fails,
}
use What::{Fails, Refused, Works};

/// How requests and replies are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    Line,
    Scanned,
    Prefixed,
    Mark,
    Eof,
}

const FRAMES: [Frame; 5] = [Frame::Line, Frame::Scanned, Frame::Prefixed, Frame::Mark, Frame::Eof];

impl Frame {
    fn worker(self) -> Template {
        match self {
            Self::Mark => Template::shell(
                "while read -r x; do case $x in 'MARK '*) echo ${x#MARK };; *) echo \"$x\";; esac; done",
            ),
            _ => Template::new("cat"),
        }
    }

    fn set(self, template: Template) -> Template {
        let (requests, replies) = match self {
            Self::Line => return template,
            Self::Scanned => (RequestFraming::line(), ReplyFraming::end_marker("\n")),
            Self::Prefixed => {
                (RequestFraming::prefixed(Prefix::u8()), ReplyFraming::prefixed(Prefix::u8()))
            }
            Self::Mark => {
                (RequestFraming::line(), ReplyFraming::sentinel(Sentinel::new("MARK {mark}")))
            }
            Self::Eof => (RequestFraming::raw(), ReplyFraming::until_eof()),
        };
        template.requests(requests).replies(replies)
    }

    fn is_right(self, item: &str, reply: &[u8]) -> bool {
        let end = if self == Self::Mark { "\n" } else { "" };
        reply == format!("{item}{end}").as_bytes()
    }
}

/// A value of a setting, what is right with it, and with which framings something else is.
struct Row {
    setting: &'static str,
    set: Set,
    what: What,
    but: &'static [(Frame, What)],
}

const fn row(setting: &'static str, set: Set, what: What) -> Row {
    Row { setting, set, what, but: &[] }
}

const fn but(row: Row, but: &'static [(Frame, What)]) -> Row {
    Row { but, ..row }
}

const ZERO: Duration = Duration::ZERO;
const END: Duration = Duration::MAX;
const SECOND: Duration = Duration::from_secs(60);

const STATUS: &[(Frame, What)] = &[(Frame::Eof, Works)];
const AT_EOF: &[(Frame, What)] = &[(Frame::Eof, Refused("answers_at_eof"))];
const COUNTS: &[(Frame, What)] =
    &[(Frame::Mark, Refused("skip_at_end")), (Frame::Eof, Refused("skip_at_end"))];

/// The settings, each with the least and the most that can be said, and with what is usual.
const ROWS: &[Row] = &[
    row("in_flight", |t| t.in_flight(0), Refused("in_flight is 0")),
    row("in_flight", |t| t.in_flight(1), Works),
    row("in_flight", |t| t.in_flight(u64::MAX), Works),
    row(
        "recycle_after_records",
        |t| t.recycle_after_records(0),
        Refused("recycle_after_records is 0"),
    ),
    row("recycle_after_records", |t| t.recycle_after_records(1), Works),
    row("recycle_after_records", |t| t.recycle_after_records(u64::MAX), Works),
    row("recycle_after_age", |t| t.recycle_after_age(ZERO), Refused("recycle_after_age is zero")),
    row("recycle_after_age", |t| t.recycle_after_age(None), Works),
    row("recycle_after_age", |t| t.recycle_after_age(END), Works),
    row("answers_at_eof", |t| t.answers_at_eof(0), Refused("answers_at_eof is 0")),
    row("answers_at_eof", |t| t.answers_at_eof(1), Works),
    but(row("answers_at_eof", |t| t.answers_at_eof(2), Works), AT_EOF),
    but(row("answers_at_eof", |t| t.answers_at_eof(u64::MAX), Works), AT_EOF),
    row("give_up_after", |t| t.give_up_after(0), Refused("give_up_after is 0")),
    row("give_up_after", |t| t.give_up_after(1), Works),
    row("give_up_after", |t| t.give_up_after(u32::MAX), Works),
    row("retries", |t| t.retries(0), Works),
    row("retries", |t| t.retries(u32::MAX), Works),
    row("at_most_once", Template::at_most_once, Works),
    row("backoff", |t| t.backoff(ZERO, ZERO), Works),
    row("backoff", |t| t.backoff(SECOND, ZERO), Refused("backoff begins")),
    row("backoff", |t| t.backoff(END, END), Works),
    row("halt", |t| t.halt(Halt::Never), Works),
    row("halt", |t| t.halt(Halt::Soon(0)), Refused("halt after 0")),
    row("halt", |t| t.halt(Halt::Now(0)), Refused("halt after 0")),
    row("halt", |t| t.halt(Halt::Soon(u64::MAX)), Works),
    row("halt", |t| t.halt(Halt::Now(u64::MAX)), Works),
    row("on_stall", |t| t.on_stall(OnStall::Recycle, ZERO), Refused("on_stall is zero")),
    row("on_stall", |t| t.on_stall(OnStall::Fail, SECOND), Works),
    row("on_stall", |t| t.on_stall(OnStall::Wait, END), Works),
    row("require_clean_exit", Template::require_clean_exit, Works),
    but(row("keep_stderr", Template::keep_stderr, Refused("keep_stderr")), STATUS),
    row("keep_stderr", |t| t.keep_stderr().in_flight(1), Works),
    row(
        "keep_stderr",
        |t| t.keep_stderr().in_flight(1).stderr(Redirect::Null),
        Refused("keep_stderr"),
    ),
    but(row("accept_status", |t| t.accept_status(|_| true), Refused("accept_status")), STATUS),
    but(
        row("accept_status", |t| t.accept_status(|_| false), Refused("accept_status")),
        &[(Frame::Eof, Fails)],
    ),
    row("packet_timeout", |t| t.packet_timeout(ZERO), Refused("packet_timeout is zero")),
    row("packet_timeout", |t| t.packet_timeout(None), Works),
    row("packet_timeout", |t| t.packet_timeout(END), Works),
    row("start_timeout", |t| t.start_timeout(ZERO), Refused("start_timeout is zero")),
    row("start_timeout", |t| t.start_timeout(None), Works),
    row("start_timeout", |t| t.start_timeout(END), Works),
    row("start_timeout", |t| t.start_timeout(END).packet_timeout(END), Works),
    row("idle_timeout", |t| t.idle_timeout(ZERO), Refused("idle_timeout is zero")),
    row("idle_timeout", |t| t.idle_timeout(None), Works),
    row("idle_timeout", |t| t.idle_timeout(END), Works),
    row("run_timeout", |t| t.run_timeout(ZERO), Refused("run_timeout is zero")),
    row("run_timeout", |t| t.run_timeout(None), Works),
    row("run_timeout", |t| t.run_timeout(END), Works),
    row("end_timeout", |t| t.end_timeout(None), Works),
    row("end_timeout", |t| t.end_timeout(END), Works),
    row("kill_sequence", |t| t.kill_sequence([]), Works),
    row("kill_sequence", |t| t.kill_sequence([(Signal::Terminate, ZERO); 1_000]), Works),
    row("kill_sequence", |t| t.kill_sequence([(Signal::Kill, END)]), Works),
    row("kill_with_parent", Template::kill_with_parent, Works),
    row("reply_limit", |t| t.reply_limit(0), Fails),
    row("reply_limit", |t| t.reply_limit(usize::MAX), Works),
    row("check", |t| t.check(|_, _| Ok(())), Works),
    row("check", |t| t.check(|_, _| Err("no".into())), Fails),
    row("preamble", |t| t.preamble(""), Works),
    row("farewell", |t| t.farewell(""), Works),
    row("skip_lines", |t| t.skip_lines(0), Works),
    row("skip_lines", |t| t.skip_lines(usize::MAX), Fails),
    row("skip_until", |t| t.skip_until(""), Refused("marker")),
    row("skip_until", |t| t.skip_until(vec![b'x'; 3 << 20]), Fails),
    row("ready", |t| t.ready("", SECOND), Refused("marker")),
    row("ready", |t| t.ready("x", ZERO), Refused("ready is zero")),
    row("skip_at_end", |t| t.skip_at_end(""), Works),
    but(row("skip_at_end", |t| t.skip_at_end("bye\n"), Works), COUNTS),
    but(row("skip_at_end", |t| t.skip_at_end(vec![b'\n'; 3 << 20]), Works), COUNTS),
    row("side_input", |t| t.side_input(""), Refused("``")),
    row("side_input", |t| t.side_input("stdin"), Refused("`stdin`")),
    row("side_input", |t| t.side_input("x".repeat(10_000)), Works),
    row("side_input", |t| t.side_input("a").side_input("a"), Refused("named `a`")),
    row("optional_side_input", |t| t.optional_side_input("a", RequestFraming::line(), 0), Works),
    row(
        "optional_side_input",
        |t| t.optional_side_input("a", RequestFraming::line(), usize::MAX),
        Works,
    ),
    row("side_output", |t| t.side_output("1a", ReplyFraming::line()), Refused("`1a`")),
    row(
        "side_output",
        |t| t.side_output("a", ReplyFraming::sentinel(Sentinel::new("MARK {mark}"))),
        Refused("`a`"),
    ),
    row("stdin", |t| t.stdin(Redirect::Null), Refused("stdin")),
    row("stdout", |t| t.stdout(Redirect::Null), Refused("stdout")),
    row("stderr", |t| t.stderr(Redirect::Null), Works),
    row("stderr", |t| t.stderr(Redirect::file("/dev/null")), Works),
    row("line_buffered", |t| t.line_buffered(LineBuffered::Environment), Works),
    row("via", |t| t.via(Launcher::prefix(["env"])), Works),
    row("via", |t| t.via(Launcher::prefix(Vec::<&str>::new())), Refused("launcher")),
    row("env", |t| t.env("", "x"), Refused("environment")),
    row("env", |t| t.env("LARGE", "x".repeat(100_000)), Works),
    row("env_remove", |t| t.env_remove("NO_SUCH_VARIABLE"), Works),
    row("current_dir", |t| t.current_dir(""), Refused("directory")),
];

/// What becomes of two items.
fn what(template: Template, frame: Frame) -> Result<What, String> {
    let items = ["a", "b"];
    let feed = items.into_iter().feed_subprocesses_ordered(template, 1, 8);
    let out: Vec<_> = feed.collect();
    let describe = || format!("{out:?}");
    // What only the start finds out may come when the items were pulled already.
    let wrong = |error: &&Error| matches!(error.kind(), ErrorKind::Config | ErrorKind::Spawn);
    if let Some(error) = out.iter().filter_map(|item| item.as_ref().err()).find(wrong) {
        assert!(error.is_fatal() && out.iter().all(Result::is_err), "{}", describe());
        return Err(error.to_string());
    }
    match &out[..] {
        [Ok(a), Ok(b)] if frame.is_right("a", a) && frame.is_right("b", b) => Ok(Works),
        [Err(_), Err(_)] => Ok(Fails),
        _ => panic!("{}", describe()),
    }
}

#[track_caller]
fn is(template: Template, frame: Frame, expected: What, setting: &str) {
    match (what(template, frame), expected) {
        (Err(said), Refused(word)) => assert!(said.contains(word), "{setting}, {frame:?}: {said}"),
        (Ok(what), expected) => assert_eq!(what, expected, "{setting}, {frame:?}"),
        (Err(said), _) => panic!("{setting}, {frame:?}: it is refused: {said}"),
    }
}

fn rows_with(frame: Frame) {
    within(move || {
        for (at, row) in ROWS.iter().enumerate() {
            let but = row.but.iter().find(|(other, _)| *other == frame);
            let expected = but.map_or(row.what, |(_, what)| *what);
            let name = format!("{} in row {at}", row.setting);
            is((row.set)(frame.set(frame.worker())), frame, expected, &name);
            is(frame.set((row.set)(frame.worker())), frame, expected, &format!("{name}, first"));
        }
    });
}

#[test]
fn with_lines() {
    rows_with(FRAMES[0]);
}

#[test]
fn with_a_framing_that_scans() {
    rows_with(FRAMES[1]);
}

#[test]
fn with_a_length_in_front() {
    rows_with(FRAMES[2]);
}

#[test]
fn with_a_sentinel() {
    rows_with(FRAMES[3]);
}

#[test]
fn with_a_process_for_each() {
    rows_with(FRAMES[4]);
}

// ==================================================================== twice

/// A setting of which the last counts, so that what was wrong before is mended by what is said then, and the other way
/// round.
fn is_overwritten(setting: &str) -> bool {
    !matches!(
        setting,
        "side_input"
            | "optional_side_input"
            | "side_output"
            | "keep_stderr"
            | "accept_status"
            | "via"
            | "env"
    )
}

#[test]
fn of_a_setting_that_is_given_twice_the_last_counts() {
    within(|| {
        let rows = || ROWS.iter().filter(|row| is_overwritten(row.setting));
        let mut pairs = 0;
        for bad in rows().filter(|row| matches!(row.what, Refused(_))) {
            for good in rows().filter(|row| row.setting == bad.setting && row.what == Works) {
                let worker = || Frame::Line.worker();
                is((good.set)((bad.set)(worker())), Frame::Line, Works, good.setting);
                is((bad.set)((good.set)(worker())), Frame::Line, bad.what, bad.setting);
                pairs += 1;
            }
        }
        assert!(pairs >= 20, "only {pairs} pairs");
        // What says one thing twice says it once.
        for row in rows().filter(|row| row.what == Works) {
            is((row.set)((row.set)(Template::new("cat"))), Frame::Line, Works, row.setting);
        }
    });
}

// ==================================================================== framings

#[test]
fn framings_of_nothing_and_of_too_much_are_refused_by_what_they_are() {
    within(|| {
        let huge = usize::MAX;
        for (replies, word) in [
            (ReplyFraming::lines(0), "0 lines"),
            (ReplyFraming::lines(huge), "lines"),
            (ReplyFraming::fields(0, 0), "0 fields"),
            (ReplyFraming::fields(0, huge), "fields"),
            (ReplyFraming::blocks(0), "0 blocks"),
            (ReplyFraming::blocks(huge), "blocks"),
            (ReplyFraming::fixed_size(0), "0 bytes"),
            (ReplyFraming::fixed_size(huge), "bytes"),
            (ReplyFraming::end_line(Vec::<&str>::new()), "end line"),
            (ReplyFraming::end_line([""]), "end line"),
            (ReplyFraming::end_line(["x".repeat(100 << 20)]), "end line"),
            (ReplyFraming::end_marker(""), "marker"),
            (ReplyFraming::end_marker_line(""), "marker"),
            (ReplyFraming::sentinel(Sentinel::new("")), "mark"),
            (ReplyFraming::sentinel(Sentinel::new("{mark1}")), "mark"),
            (ReplyFraming::sentinel(Sentinel::new("{mark}").alone().paired()), "paired"),
        ] {
            let said = what(Template::new("cat").replies(replies.clone()), Frame::Line);
            assert!(said.as_ref().is_err_and(|said| said.contains(word)), "{replies:?}: {said:?}");
            // The last framing counts.
            let mended = Template::new("cat").replies(replies).replies(ReplyFraming::line());
            is(mended, Frame::Line, Works, word);
        }
    });
}

// ==================================================================== the doors

/// The one item of something that cannot start, or what it gives.
fn first<T>(items: impl IntoIterator<Item = Result<T, Error>>) -> Result<usize, String> {
    let mut count = 0;
    for item in items {
        match item {
            Ok(_) => count += 1,
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(count)
}

#[test]
fn the_options_of_a_feed() {
    within(|| {
        let feed = || ["a", "b"].into_iter().feed(Template::new("cat"));
        for (feed, expected) in [
            (feed().workers(usize::MAX), Err("workers")),
            (feed().workers(usize::MAX).workers(1), Ok(2)),
            (feed().buffer(0).buffer(1), Ok(2)),
            (feed().buffer(usize::MAX).max_bytes(usize::MAX), Ok(2)),
            (feed().max_bytes(0), Ok(2)),
            (feed().first_packet(u64::MAX), Ok(2)),
            (feed().job_log("/no/such/directory/log"), Err("/no/such/directory/log")),
            (feed().job_log("/"), Err("/")),
        ] {
            is_said(first(feed.start()), expected);
        }
    });
}

#[track_caller]
fn is_said(found: Result<usize, String>, expected: Result<usize, &str>) {
    match (&found, expected) {
        (Ok(found), Ok(expected)) => assert_eq!(*found, expected),
        (Err(said), Err(word)) => assert!(said.contains(word), "{said}"),
        _ => panic!("{found:?} instead of {expected:?}"),
    }
}

#[test]
fn the_options_of_blocks() {
    within(|| {
        let reading = || blocks(&b"one\n\ntwo\n"[..]);
        let cat = || Template::new("cat");
        for (feed, expected) in [
            (reading().record_limit(usize::MAX).feed(cat()), Ok(3)),
            (reading().record_limit(0).feed(cat()), Err("record_limit")),
            (reading().block_size(1).feed(cat()), Ok(3)),
            (reading().block_size(0).block_size(1).feed(cat()), Ok(3)),
            (reading().feed(cat()).max_bytes(0), Ok(3)),
            (reading().feed(cat()).max_bytes(usize::MAX).buffer(usize::MAX), Ok(3)),
            (reading().feed(cat()).first_record(u64::MAX), Ok(3)),
            (
                reading().feed(cat()).job_log("/no/such/directory/log"),
                Err("/no/such/directory/log"),
            ),
        ] {
            let blocks = feed.workers(1).start();
            let records = blocks.flat_map(|block| match block {
                Ok(block) => vec![Ok(()); block.len()],
                Err(error) => vec![Err(error.to_string())],
            });
            let found = records.collect::<Result<Vec<()>, _>>().map(|records| records.len());
            is_said(found, expected);
        }
        // An empty record fits into no bytes.
        let items: Vec<_> = reading().record_limit(0).feed(cat()).workers(1).start().collect();
        let fine: usize = items.iter().flatten().map(subfeed::Block::len).sum();
        assert_eq!((fine, items.iter().filter(|item| item.is_err()).count()), (1, 2));
    });
}

#[cfg(feature = "timeline")]
#[test]
fn a_timeline_of_no_events_and_of_any_number() {
    within(|| {
        for events in [0, 1, usize::MAX] {
            let feed = ["a", "b"].into_iter().feed(Template::new("cat")).workers(1);
            let mut feed = feed.timeline(events).start();
            let monitor = feed.monitor();
            assert_eq!(first(feed.by_ref()), Ok(2));
            let mut json = Vec::new();
            monitor.timeline().write_to(&mut json).unwrap();
            assert!(json.starts_with(b"{"), "{events}");
        }
    });
}

#[test]
fn the_numbers_of_a_source() {
    within(|| {
        let seq = || Template::new("seq").arg("3");
        for (source, expected) in [
            (iterate_in_subprocess(seq(), usize::MAX), Ok(3)),
            (iterate_in_subprocess(seq(), 1).max_bytes(0), Ok(3)),
            (iterate_in_subprocess(seq(), 1).max_bytes(usize::MAX), Ok(3)),
        ] {
            is_said(first(source.iter()), expected);
        }
    });
}

/// Unless it is set to what it is anyway.
#[test]
fn a_source_refuses_what_is_about_requests() {
    const MEANINGLESS: [&str; 12] = [
        "in_flight",
        "retries",
        "at_most_once",
        "backoff",
        "give_up_after",
        "on_stall",
        "answers_at_eof",
        "recycle_after_records",
        "recycle_after_age",
        "packet_timeout",
        "keep_stderr",
        "skip_at_end",
    ];
    within(|| {
        let refusal = |template| {
            let mut records = iterate_in_subprocess(template, 8).iter();
            let wrong = |error: &Error| error.kind() == ErrorKind::Config;
            let error = records.find_map(|record| record.err().filter(wrong))?;
            assert!(error.is_fatal() && records.next().is_none(), "{error}");
            Some(error.to_string())
        };
        let mut refused = BTreeSet::new();
        for row in ROWS {
            let Some(said) = refusal((row.set)(Template::new("seq").arg("3"))) else { continue };
            if said.contains(&format!("a source gets no requests, so {} has no", row.setting)) {
                refused.insert(row.setting);
            }
        }
        assert_eq!(refused, BTreeSet::from(MEANINGLESS));
        let usual: Set = |t| {
            let ms = Duration::from_millis;
            let t = t.retries(0).backoff(ms(10), SECOND / 60).give_up_after(8);
            let t = t.on_stall(OnStall::Recycle, ms(100));
            t.recycle_after_age(None).packet_timeout(None)
        };
        is_said(
            first(iterate_in_subprocess(usual(Template::new("seq").arg("3")), 8).iter()),
            Ok(3),
        );
    });
}

#[test]
fn the_numbers_of_a_launcher() {
    within(|| {
        let by = || Launcher::remote(["env"]);
        for (launcher, expected) in [
            (by(), Ok(2)),
            (by().starts(usize::MAX, ZERO), Ok(2)),
            (by().starts(1, END), Ok(2)),
            (by().least_in_flight(0), Err("least_in_flight")),
            (by().least_in_flight(u64::MAX), Ok(2)),
            (by().silence(ZERO), Err("silence")),
            (by().silence(END), Ok(2)),
            (by().silence(None), Ok(2)),
            (by().connect_within(END), Ok(2)),
            (by().connect_within(ZERO).connect_within(SECOND), Ok(2)),
            (by().hosts(Vec::<&str>::new()), Ok(2)),
            (by().hosts([""]), Err("host")),
            (by().hosts([Host::new("a").weight(u32::MAX), Host::new("b").weight(u32::MAX)]), Ok(2)),
            (by().option("x"), Err("option")),
            (by().config_file("x"), Err("config_file")),
            (by().kill_with(Vec::<&str>::new()), Err("kill_with")),
        ] {
            let template = Template::new("cat").via(launcher.clone());
            let found = first(["a", "b"].into_iter().feed_subprocesses_ordered(template, 1, 8));
            assert_eq!(found.is_ok(), expected.is_ok(), "{launcher:?}: {found:?}");
            is_said(found, expected);
        }
    });
}

#[test]
fn the_numbers_of_a_queue_and_of_a_pipeline() {
    within(|| {
        let mut queue = Queue::subprocesses(Template::new("cat"), 1, 1 << 40);
        queue.put("a").unwrap();
        assert_eq!(queue.get().unwrap().unwrap(), "a");
        let mut queue = Queue::<&str, _>::subprocesses(Template::new("cat"), 0, 1);
        assert!(queue.get().unwrap().unwrap_err().to_string().contains("at least one worker"));
        for retries in [0, u32::MAX] {
            let stage = Stage::new("cat").workers(1).buffer(1 << 40).retries(retries);
            let run = Pipeline::new(["a", "b"]).try_map(stage, |item| Ok(*item)).run();
            assert_eq!(run.items().filter(Result::is_ok).count(), 2);
        }
    });
}
