//! Framings as a feed uses them: what cannot work is refused, and what a tool may say beside its replies
//! does not become one.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bstr::BString;
use subfeed::framing::{FramingError, FramingErrorKind, ReplyFraming, RequestFraming, Sentinel};
use subfeed::{Error, ErrorKind, FeedExt, Template};

use crate::common::{numbers, within};

/// What a feed of this template says that cannot start.
fn refusal(replies: ReplyFraming, change: impl FnOnce(Template) -> Template) -> String {
    let template = change(Template::new("cat").replies(replies));
    let mut feed = numbers(3).feed_subprocesses_ordered(template, 2, 10);
    let error = feed.next().unwrap().unwrap_err();
    assert!(error.is_fatal() && error.kind() == ErrorKind::Config, "{error:?}");
    assert!(feed.next().is_none());
    error.to_string()
}

#[test]
fn a_framing_that_cannot_work_is_a_configuration_error_at_the_start() {
    within(|| {
        let nothing: [&str; 0] = [];
        for (framing, reason) in [
            (ReplyFraming::lines(0), "0 lines"),
            (ReplyFraming::fields(0, 0), "0 fields"),
            (ReplyFraming::blocks(0), "0 blocks"),
            (ReplyFraming::fixed_size(0), "0 bytes"),
            (ReplyFraming::lines(usize::MAX), "lines does not fit into the reply limit of 1000"),
            (ReplyFraming::fields(b',', 1_002), "1002 fields does not fit"),
            (ReplyFraming::blocks(usize::MAX), "blocks does not fit"),
            (ReplyFraming::fixed_size(1_001), "1001 bytes does not fit"),
            (ReplyFraming::fixed_size(usize::MAX), "raise it with Template::reply_limit"),
            (ReplyFraming::end_line(nothing), "no line ends a reply"),
            (ReplyFraming::end_line(["OK", ""]), "an empty end line"),
            (ReplyFraming::end_line(["OK\n"]), "has a line feed in it"),
            (ReplyFraming::end_line(["x".repeat(1_001)]), "has 1001 bytes"),
            (ReplyFraming::end_marker(""), "an empty end marker"),
            (ReplyFraming::end_marker_line(""), "an empty end marker"),
            (ReplyFraming::end_marker_line(".\n"), "ends with a line feed"),
            (ReplyFraming::lines(0).skipping(|_| false), "0 lines"),
            (ReplyFraming::until_eof().skipping(|_| false), "nothing can be passed over"),
            (
                ReplyFraming::sentinel(Sentinel::new("{mark}")).skipping(|_| false),
                "nothing can be passed over",
            ),
            (ReplyFraming::sentinel(Sentinel::new("echo END")), "has neither {mark1} and {mark2}"),
            (ReplyFraming::sentinel(Sentinel::new("echo {mark1}")), "one half of the mark"),
            (
                ReplyFraming::sentinel(Sentinel::new("echo {mark1}{mark2}")),
                "nothing stands between",
            ),
            (ReplyFraming::sentinel(Sentinel::new("{mark} {mark1} {mark2}")), "both {mark} and"),
            (ReplyFraming::sentinel(Sentinel::new("{mark}").alone().paired()), "take either"),
        ] {
            let said = refusal(framing, |template| template.reply_limit(1_000));
            assert!(said.contains(reason), "{said}");
        }
        let said = refusal(ReplyFraming::line(), |template| {
            template.side_output("side", ReplyFraming::fixed_size(0))
        });
        assert!(said.contains("0 bytes"), "{said}");
        for framing in [
            ReplyFraming::lines(1_001),
            ReplyFraming::fixed_size(1_000),
            ReplyFraming::end_line(["x".repeat(1_000)]),
        ] {
            let template = Template::new("cat").replies(framing).reply_limit(1_000);
            assert!(numbers(0).feed_subprocesses_ordered(template, 1, 1).next().is_none());
        }
    });
}

/// What becomes of each of these numbers, with several workers and again with one.
fn each(template: &Template, numbers: std::ops::Range<u32>, reply: impl Fn(u32) -> String) {
    for workers in [1, 3] {
        let requests = numbers.clone().map(|n| n.to_string());
        let mut feed = requests.feed_subprocesses_ordered(template.clone(), workers, 50);
        for n in numbers.clone() {
            assert_eq!(feed.next().unwrap().unwrap(), reply(n).as_str());
        }
        assert!(feed.next().is_none());
        feed.finish().unwrap();
    }
}

/// A worker that runs this for each line that it reads, in `$n`.
fn for_each_line(body: &str) -> Template {
    Template::shell(format!("while read -r n; do {body}; done"))
}

#[test]
fn lines_through_an_end_line_are_a_reply_with_it() {
    within(|| {
        let body = "i=0; while [ $i -lt $((n % 4)) ]; do echo info $i; i=$((i + 1)); done; echo bestmove $n";
        let template = for_each_line(body).replies(ReplyFraming::end_line(["bestmove"]));
        each(&template, 0..200, |n| {
            let info = (0..n % 4).map(|i| format!("info {i}\n")).collect::<String>();
            format!("{info}bestmove {n}")
        });
        let body = "echo out $n; [ $((n % 3)) = 0 ] && echo ERR $n || echo OK";
        let template = for_each_line(body).replies(ReplyFraming::end_line(["OK", "ERR"]));
        each(&template, 0..200, |n| match n % 3 {
            0 => format!("out {n}\nERR {n}"),
            _ => format!("out {n}\nOK"),
        });
    });
}

#[test]
fn fields_blocks_and_fixed_sizes_are_counted() {
    within(|| {
        let fields = for_each_line("printf '%s\\0\\0a\\nb\\0%s\\0' $n $n");
        each(&fields.replies(ReplyFraming::fields(0, 4)), 0..200, |n| format!("{n}\0\0a\nb\0{n}"));
        let blocks = for_each_line("printf 'head %s\\n\\nbody\\n%s\\n\\n' $n $n");
        each(&blocks.replies(ReplyFraming::blocks(2)), 0..200, |n| {
            format!("head {n}\n\nbody\n{n}")
        });
        let sized = for_each_line("printf '%5s' $n");
        each(&sized.replies(ReplyFraming::fixed_size(5)), 0..200, |n| format!("{n:>5}"));
    });
}

#[test]
fn log_lines_between_the_replies_are_passed_over() {
    within(|| {
        let body =
            "[ $((n % 5)) = 0 ] && echo DEBUG $n; echo $n; [ $((n % 7)) = 0 ] && echo DEBUG after";
        let skipping = ReplyFraming::line().skipping(|line| line.starts_with(b"DEBUG"));
        each(&for_each_line(&format!("{body}; true")).replies(skipping), 0..300, |n| n.to_string());
    });
}

/// The words that a worker of this kind takes for a tool's own language: `say A B` prints `AB`. What is asked
/// comes back in angle brackets, and `!` takes the next command for its operand.
fn repl(prompt: &str) -> Template {
    Template::shell(format!(
        "printf 'Tool 1.0\\n{prompt}'
        open=
        while IFS= read -r line; do
            case $line in
            !) open=true; printf '... '; continue;;
            die) exit 1;;
            'say '*) set -- $line; echo \"$2$3\"; echo \"${{open:-undefined}}\"; open=;;
            *) echo \"<$line>\";;
            esac
            printf '{prompt}'
        done"
    ))
}

fn paired() -> ReplyFraming {
    ReplyFraming::sentinel(Sentinel::new("say {mark1} {mark2}").paired())
}

#[test]
fn a_pair_of_marks_takes_off_what_a_tool_says_of_its_own() {
    within(|| {
        each(&repl("> ").replies(paired()), 0..300, |n| format!("<{n}>\n> "));
        each(&repl("").replies(paired()), 0..300, |n| format!("<{n}>\n"));
        // Behind a preamble, in each session.
        let template = repl("> ").preamble("hello\n").replies(paired()).recycle_after_records(7);
        each(&template, 0..60, |n| format!("<{n}>\n> "));
    });
}

/// How one of several requests fails, and the others do not.
#[track_caller]
fn only_these_fail(
    template: &Template,
    requests: &[&str],
    bad: &str,
    reply: impl Fn(&str) -> String,
) -> Vec<Error> {
    let mut errors = Vec::new();
    for workers in [1, 3] {
        let requests: Vec<String> = requests.iter().map(|request| (*request).to_owned()).collect();
        let asked = requests.clone();
        let template = template.clone();
        let replies: Vec<Result<BString, Error>> =
            asked.into_iter().feed_subprocesses_ordered(template, workers, 100).collect();
        assert_eq!(replies.len(), requests.len());
        for (k, (request, result)) in requests.iter().zip(replies).enumerate() {
            match result {
                Ok(text) if request != bad => assert_eq!(text, reply(request).as_str()),
                Err(error) if request == bad => {
                    assert_eq!(error.packet(), Some(k as u64), "{error}");
                    assert!(!error.is_fatal(), "{error}");
                    errors.push(error);
                }
                other => panic!("{k}: {request}: {other:?}"),
            }
        }
    }
    errors
}

/// The kind of the framing's error beneath an error.
fn framing(error: &Error) -> Option<FramingErrorKind> {
    error.cause()?.downcast_ref::<FramingError>().map(FramingError::kind)
}

#[test]
fn a_request_that_takes_the_sync_command_for_its_operand_fails_alone() {
    within(|| {
        // The request itself stays open, and makes `true` of the `undefined` that the command returns.
        let template = repl("> ").replies(paired());
        let requests = ["a", "!", "b", "c", "!", "!", "d", "e"];
        let errors = only_these_fail(&template, &requests, "!", |asked| format!("<{asked}>\n> "));
        assert_eq!(errors.len(), 6);
        for error in errors {
            assert!(
                matches!(framing(&error), Some(FramingErrorKind::NoiseChanged { .. })),
                "{error}"
            );
            assert!(error.to_string().contains("left open"), "{error}");
        }
    });
}

/// The pair at the start belongs to the session: whoever starts it, however often, and whatever else is said first.
#[test]
fn a_pair_of_marks_goes_with_deaths_banners_and_recycling() {
    within(|| {
        let requests = ["a", "die", "b", "c", "!", "d", "die", "e"];
        let changes: [fn(Template) -> Template; 6] = [
            |template| template,
            |template| template.ready("1.0\n", Duration::from_secs(100)),
            |template| template.skip_lines(1).skip_until("> "),
            |template| template.preamble("hello\nagain\n").farewell("bye\n"),
            |template| template.recycle_after_records(2),
            |template| template.in_flight(1),
        ];
        for change in changes {
            let template = change(repl("> ").replies(paired()));
            let template = template.backoff(Duration::from_millis(1), Duration::from_millis(1));
            let replies: Vec<Result<BString, Error>> =
                requests.into_iter().feed_subprocesses_ordered(template, 2, 100).collect();
            assert_eq!(replies.len(), requests.len());
            for (request, reply) in requests.into_iter().zip(replies) {
                match (request, reply) {
                    ("die", Err(error)) => assert_eq!(error.kind(), ErrorKind::Died, "{error}"),
                    ("!", Err(error)) => assert_eq!(error.kind(), ErrorKind::Reply, "{error}"),
                    (request, reply) => {
                        assert_eq!(reply.unwrap(), format!("<{request}>\n> ").as_str())
                    }
                }
            }
        }
    });
}

/// A tool that quotes what it reads in a complaint, when the request before left something open.
fn complains(quotes: &str) -> Template {
    Template::shell(format!(
        "while IFS= read -r line; do
            case $line in
            open) IFS= read -r line; {quotes};;
            '\"'*) line=${{line#?}}; first=${{line%%'\"'*}}; line=${{line%'\"'}}; echo \"$first${{line##*'\"'}}\";;
            *) echo \"<$line>\";;
            esac
        done"
    ))
}

const COMPLAINT: &str = "echo \"incorrect syntax: $line is not an infix operator\"";

#[test]
fn a_mark_in_a_complaint_is_no_mark_if_the_tool_must_join_it() {
    within(|| {
        let template = complains(COMPLAINT)
            .replies(ReplyFraming::sentinel(Sentinel::new("\"{mark1}\" \"{mark2}\"")));
        let requests = ["a", "open", "b", "c", "open", "d"];
        let errors = only_these_fail(&template, &requests, "open", |asked| format!("<{asked}>\n"));
        for error in errors {
            assert!(
                matches!(framing(&error), Some(FramingErrorKind::MarkEchoed { .. })),
                "{error}"
            );
        }
    });
}

/// What says `"M"` when it is asked `"M"`, without the quotes.
const UNQUOTED: &str = "'\"'*) line=${line#?}; echo \"${line%?}\";;";

#[test]
fn a_mark_in_a_complaint_is_found_out_where_it_is_promised_to_be_alone() {
    within(|| {
        let script = format!(
            "while IFS= read -r line; do
                case $line in
                open) IFS= read -r line; {COMPLAINT};;
                {UNQUOTED}
                *) echo \"<$line>\";;
                esac
            done"
        );
        let template = Template::shell(script)
            .replies(ReplyFraming::sentinel(Sentinel::new("\"{mark}\"").alone()));
        let requests = ["a", "open", "b", "c", "open", "d"];
        let errors = only_these_fail(&template, &requests, "open", |asked| format!("<{asked}>\n"));
        for error in errors {
            assert!(
                matches!(framing(&error), Some(FramingErrorKind::MarkNotAlone { .. })),
                "{error}"
            );
        }
    });
}

/// The first of the two ends a reply that is none. While that has not been handed on, it is its packet's error,
/// and the packet that waited behind it is asked again.
#[test]
fn a_mark_that_comes_twice_fails_its_packet_and_retires_the_session() {
    within(|| {
        let script = format!(
            "while IFS= read -r line; do
                case $line in
                open) IFS= read -r line; printf 'error: %s\\nin line 1: %s\\n' \"$line\" \"$line\";;
                {UNQUOTED}
                *) echo \"<$line>\";;
                esac
            done"
        );
        let template =
            Template::shell(script).replies(ReplyFraming::sentinel(Sentinel::new("\"{mark}\"")));
        for requests in [&["a", "open", "b", "c", "open", "d"][..], &["a", "open"], &["open"]] {
            let errors =
                only_these_fail(&template, requests, "open", |asked| format!("<{asked}>\n"));
            for error in errors {
                let packet = error.packet().unwrap();
                assert_eq!(
                    framing(&error),
                    Some(FramingErrorKind::MarkRepeated { packet }),
                    "{error}"
                );
            }
        }
    });
}

/// When it has been handed on, the packet that waits behind it fails and names it.
#[test]
fn a_mark_that_comes_twice_is_told_of_a_reply_that_was_handed_on() {
    within(|| {
        let script = format!(
            "while IFS= read -r line; do
                case $line in
                open) IFS= read -r line; echo \"error: $line\"; late=\"in line 1: $line\";;
                late) echo \"$late\";;
                {UNQUOTED}
                *) echo \"<$line>\";;
                esac
            done"
        );
        let template =
            Template::shell(script).replies(ReplyFraming::sentinel(Sentinel::new("\"{mark}\"")));
        let requests = ["a", "open", "late", "b"];
        // A window of one: each reply is handed on before the next request is pulled.
        let replies: Vec<_> =
            requests.into_iter().feed_subprocesses_ordered(template, 1, 1).collect();
        assert_eq!(replies[0].as_ref().unwrap(), "<a>\n");
        assert_eq!(replies[1].as_ref().unwrap(), "error: \"");
        let error = replies[2].as_ref().unwrap_err();
        assert_eq!(framing(error), Some(FramingErrorKind::MarkRepeated { packet: 1 }), "{error}");
        assert_eq!(replies[3].as_ref().unwrap(), "<b>\n");
    });
}

#[test]
fn a_reply_of_a_fixed_size_that_ends_too_early_is_half_a_reply() {
    within(|| {
        let template =
            Template::shell("read -r x; printf abc").replies(ReplyFraming::fixed_size(5));
        let error = ["x"].into_iter().feed_subprocesses_ordered(template, 1, 1).next().unwrap();
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Died, "{error}");
        assert!(error.to_string().contains("half a reply \"abc\""), "{error}");
    });
}

#[test]
fn a_tool_that_answers_without_reading_is_given_its_request_before_its_end_is_noticed() {
    within(|| {
        let busy = AtomicBool::new(true);
        std::thread::scope(|scope| {
            // On processors that are taken a short tool runs to its end before we run again.
            for _ in 0..4 {
                scope.spawn(|| {
                    while busy.load(SeqCst) {
                        std::hint::spin_loop();
                    }
                });
            }
            for _ in 0..10 {
                let template = Template::new("printf").arg("x").give_up_after(2);
                let template =
                    template.requests(RequestFraming::raw()).replies(ReplyFraming::until_eof());
                let mut feed = [""].into_iter().feed_subprocesses(template, 1, 1);
                let reply = feed.next().map(|item| item.map_err(|error| error.to_string()));
                if reply != Some(Ok("x".into())) {
                    busy.store(false, SeqCst);
                    panic!("{reply:?}");
                }
            }
            busy.store(false, SeqCst);
        });
    });
}
