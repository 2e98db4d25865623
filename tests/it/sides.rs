//! Side inputs and side outputs.

use std::collections::BTreeSet;

use bstr::ByteSlice;
use itertools::Itertools;
use subfeed::channel::Redirect;
use subfeed::framing::{ReplyFraming, RequestFraming};
use subfeed::{BoxError, Error, ErrorKind, FeedExt, Order, Reply, Request, Template};

use crate::common::tools::here;
use crate::common::{Dir, numbers, texts, within};

/// Pairs: the first part goes to stdin, the second to the side input `side`.
pub(crate) fn in_step<A: AsRef<[u8]>, B: AsRef<[u8]>>(pair: &(A, B), request: &mut Request<'_>) {
    request.push(&pair.0);
    request.side("side").push(&pair.1);
}

/// `sh -c script` with the side input `side`, on descriptor 3.
pub(crate) fn sh_beside(script: &str) -> Template {
    Template::shell(format!("exec 3<{{fd:side}}; {script}")).side_input("side")
}

/// `perl -e script`, unbuffered.
fn perl(script: &str) -> Template {
    Template::new("perl").raw_arg("-e").raw_arg(format!("$| = 1; {script}"))
}

fn pairs(n: u64) -> impl ExactSizeIterator<Item = (String, String)> + Send + 'static {
    numbers(n).map(|k| (format!("word{k}"), format!("number{k}")))
}

fn joined(n: u64) -> Vec<String> {
    pairs(n).map(|(a, b)| format!("{a} {b}")).collect()
}

#[test]
fn what_one_item_writes_to_each_channel_stays_together() {
    within(|| {
        let template = sh_beside("while read -r a; do read -r b <&3; echo \"$a $b\"; done");
        let feed = pairs(2_000).feed_subprocesses_ordered(template.encode(in_step), 4, 500);
        assert_eq!(texts(feed), joined(2_000));
    });
}

#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence")]
fn pairing_survives_a_tool_that_buffers_and_is_recycled() {
    within(|| {
        let template = Template::new("paste").args(["-d", " ", "-", "{fd:side}"]);
        let template = template.side_input("side").encode(in_step);
        let feed = pairs(3_000).feed_subprocesses_ordered(template, 3, 400);
        assert_eq!(texts(feed), joined(3_000));
    });
}

#[test]
fn the_number_is_in_the_environment_and_has_two_digits() {
    within(|| {
        let template = Template::shell("while read -r x; do echo \"$first $second $third\"; done")
            .side_input("first")
            .side_output_file("third", "/dev/null")
            .side_input_file("second", "/dev/null")
            .encode(|item: &String, request| {
                request.push(item);
            });
        for reply in texts(numbers(8).feed_subprocesses(template, 4, 8)) {
            let fds: BTreeSet<u32> = reply.split(' ').map(|fd| fd.parse().unwrap()).collect();
            assert_eq!(fds.len(), 3, "{reply}");
            assert!(fds.iter().all(|fd| *fd >= 10), "{reply}");
        }
    });
}

#[test]
fn perl_finds_its_channel_by_the_number_alone() {
    if !here(&["perl"]) {
        return;
    }
    within(|| {
        let script = r#"open(my $side, "<&=", $ENV{side}) or die;
            while (<STDIN>) { chomp; my $b = <$side>; print "$_ $b"; }"#;
        let template = perl(script).side_input("side").encode(in_step);
        let feed = pairs(500).feed_subprocesses_ordered(template, 2, 100);
        assert_eq!(texts(feed), joined(500));
    });
}

#[test]
fn a_child_may_read_the_side_before_stdin() {
    within(|| {
        let template = sh_beside("while read -r b <&3; do read -r a; echo \"$a $b\"; done");
        let feed = pairs(1_000).feed_subprocesses_ordered(template.encode(in_step), 2, 300);
        assert_eq!(texts(feed), joined(1_000));
    });
}

/// Both channels hold far more than a pipe does.
fn one_to_its_end_first(first: &str, second: &str) {
    let script = "NR == FNR { a[NR] = $0; next } { print length(a[FNR]), length($0) }";
    let template = Template::new("awk").raw_arg(script).args([first, second]).side_input("side");
    let sizes = |k: usize| (100 + k % 900, 100 + k % 700);
    let items = (0..2_000).map(move |k| ("a".repeat(sizes(k).0), "b".repeat(sizes(k).1)));
    let feed = items.feed_subprocesses_ordered(template.encode(in_step), 2, 1_000);
    let swapped = first == "-";
    let expected: Vec<String> = (0..2_000)
        .map(sizes)
        .map(|(a, b)| if swapped { format!("{a} {b}") } else { format!("{b} {a}") })
        .collect();
    assert_eq!(texts(feed), expected);
}

#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence")]
fn a_child_may_read_the_side_to_its_end_before_stdin() {
    within(|| one_to_its_end_first("{fd:side}", "-"));
}

#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence")]
fn a_child_may_read_stdin_to_its_end_before_the_side() {
    within(|| one_to_its_end_first("-", "{fd:side}"));
}

#[test]
fn a_side_input_has_a_framing_of_its_own() {
    if !here(&["perl"]) {
        return;
    }
    within(|| {
        let script = r#"open(my $side, "<&=", $ENV{side}) or die;
            while (<STDIN>) { chomp; local $/ = "\0"; my $b = <$side>; chomp $b; $b =~ tr/\n/+/; print "$_ $b\n"; }"#;
        let template =
            perl(script).side_input_framed("side", RequestFraming::delimited(0)).encode(in_step);
        let items = (0..100).map(|k| (k.to_string(), format!("two\nlines{k}")));
        let replies = texts(items.feed_subprocesses_ordered(template, 2, 20));
        let expected: Vec<_> = (0..100).map(|k| format!("{k} two+lines{k}")).collect();
        assert_eq!(replies, expected);
    });
}

#[test]
fn a_tool_may_be_fed_through_the_side_alone() {
    within(|| {
        let template =
            Template::new("cat").arg("{fd:side}").stdin(Redirect::Null).side_input("side").encode(
                |item: &String, request| {
                    request.side("side").push(item);
                },
            );
        let feed = numbers(1_000).feed_subprocesses_ordered(template, 3, 100);
        assert_eq!(texts(feed), numbers(1_000).collect::<Vec<_>>());
    });
}

#[test]
fn an_item_that_no_encoding_writes_to_the_side_is_refused_where_stdin_is_redirected() {
    let template = Template::new("cat").arg("{fd:side}").stdin(Redirect::Null).side_input("side");
    let items: Vec<_> = numbers(3).feed_subprocesses_ordered(template, 1, 10).collect();
    let error = items[0].as_ref().unwrap_err();
    assert_eq!((items.len(), error.kind()), (1, ErrorKind::Config), "{error}");
    assert!(error.to_string().contains("Template::encode"), "{error}");
}

#[test]
fn a_tool_on_the_side_that_skips_records_is_found_out_at_the_end() {
    within(|| {
        // It buffers, so that its number of replies is only known when its input has ended.
        let template = Template::new("grep")
            .args(["-v", "3", "{fd:side}"])
            .stdin(Redirect::Null)
            .side_input("side")
            .encode(|item: &String, request| {
                request.side("side").push(item);
            });
        let replies: Vec<_> = numbers(10).feed_subprocesses_ordered(template, 1, 100).collect();
        assert_eq!(replies.len(), 10);
        let good = replies.iter().take_while(|reply| reply.is_ok()).count();
        assert!(good <= 3, "{replies:?}");
        for (k, reply) in replies[..good].iter().enumerate() {
            assert_eq!(*reply.as_ref().unwrap(), k.to_string().as_str());
        }
        match replies[good].as_ref().unwrap_err().kind() {
            ErrorKind::ReplyCount { owed, got } => assert_eq!(owed, got + 1),
            kind => panic!("{kind:?}"),
        }
    });
}

// -------------------------------------------------------------------- optional side inputs

#[test]
fn an_optional_side_input_may_be_closed_early() {
    if !here(&["perl"]) {
        return;
    }
    within(|| {
        let script = r#"open(my $side, "<&=", $ENV{side}) or die; my $b = <$side>; close $side;
            while (<STDIN>) { print; }"#;
        // The cap is never reached: nothing is left unread in a closed channel.
        let template =
            perl(script).optional_side_input("side", RequestFraming::line(), 1_000).encode(in_step);
        let items = numbers(2_000).map(|k| (k, "x".repeat(100)));
        let feed = items.feed_subprocesses_ordered(template, 2, 200);
        assert_eq!(texts(feed), numbers(2_000).collect::<Vec<_>>());
    });
}

#[test]
fn an_optional_side_input_may_be_left_unread_up_to_its_cap() {
    within(|| {
        let template = Template::new("cat")
            .optional_side_input("side", RequestFraming::line(), 1 << 20)
            .encode(in_step);
        let items = numbers(2_000).map(|k| (k, "x".repeat(200)));
        let mut feed = items.feed_subprocesses_ordered(template, 1, 200);
        let replies = texts(feed.by_ref());
        assert_eq!(replies, numbers(2_000).collect::<Vec<_>>());
        feed.finish().expect("no error");
    });
}

#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence")]
fn a_tool_that_buffers_and_leaves_an_optional_side_input_unread_is_recycled() {
    within(|| {
        let template = Template::new("tr")
            .args(["a", "b"])
            .optional_side_input("side", RequestFraming::line(), 1 << 20)
            .encode(in_step);
        // The source goes on only when the reply is there: nobody but the evidence can help.
        let (go, gone) = std::sync::mpsc::channel();
        let items =
            std::iter::once(("ab", "unread")).chain(std::iter::from_fn(move || gone.recv().ok()));
        let mut feed = items.feed_subprocesses_ordered(template, 1, 10);
        assert_eq!(feed.next().unwrap().unwrap(), "bb");
        drop(go);
        assert!(feed.next().is_none());
    });
}

fn over_the_cap(template: Template, size: usize) -> Error {
    let items = (0u64..).map(move |k| (k.to_string(), "x".repeat(size)));
    let feed = items.feed_subprocesses_ordered(template.encode(in_step), 1, 50);
    let error = feed.map_while(|reply| Some(reply.err())).flatten().next().unwrap();
    assert!(error.is_fatal());
    assert_eq!(error.kind(), ErrorKind::Channel, "{error}");
    let said = error.to_string();
    assert!(said.contains("`side`") && said.contains("worker 0"), "{said}");
    error
}

#[test]
fn beyond_its_cap_an_unread_optional_side_input_is_an_error_that_names_it() {
    within(|| {
        let template =
            Template::new("cat").optional_side_input("side", RequestFraming::line(), 10_000);
        over_the_cap(template, 1_000);
    });
}

#[test]
fn a_side_input_that_is_not_optional_and_never_read_is_an_error_that_names_the_fix() {
    within(|| {
        let error = over_the_cap(Template::new("cat").side_input("side"), 20_000);
        assert!(error.to_string().contains("optional_side_input"), "{error}");
    });
}

// -------------------------------------------------------------------- side outputs

fn both(reply: Reply<'_>) -> Result<(String, String), BoxError> {
    let side = reply.side("side").ok_or("no such side output")?;
    assert!(reply.side("other").is_none());
    Ok((reply.to_str()?.to_owned(), side.to_str()?.to_owned()))
}

fn sh_with_output(script: &str) -> Template {
    Template::shell(format!("exec 3>{{fd:side}}; {script}"))
        .side_output("side", ReplyFraming::line())
}

#[test]
fn a_side_output_is_part_of_the_reply() {
    within(|| {
        let script = "while read -r x; do echo \"side $x\" >&3; echo \"reply $x\"; done";
        for order in [Order::Input, Order::Completion] {
            let template = sh_with_output(script).try_decode(both);
            let feed = numbers(2_000).feed(template).workers(3).buffer(300).order(order).start();
            let mut replies = feed.collect::<Result<Vec<_>, _>>().unwrap();
            let mut expected: Vec<_> =
                numbers(2_000).map(|k| (format!("reply {k}"), format!("side {k}"))).collect();
            if order == Order::Completion {
                replies.sort();
                expected.sort();
            }
            assert_eq!(replies, expected);
        }
    });
}

#[test]
fn a_part_may_be_empty_and_may_come_first_or_last() {
    within(|| {
        let script = "while read -r x; do echo >&3; echo \"$x\"; read -r x || exit 0; echo; echo \"$x\" >&3; done";
        let template = sh_with_output(script).try_decode(both);
        let feed = numbers(100).feed_subprocesses_ordered(template, 1, 20);
        for (k, reply) in feed.enumerate() {
            let k_th = (k.to_string(), String::new());
            let expected = if k % 2 == 0 { k_th } else { (k_th.1, k_th.0) };
            assert_eq!(reply.unwrap(), expected);
        }
    });
}

#[test]
fn a_part_may_be_larger_than_any_pipe() {
    if !here(&["perl"]) {
        return;
    }
    within(|| {
        let script = r#"open(my $side, ">&=", $ENV{side}) or die; $side->autoflush(1);
            while (<STDIN>) { chomp; print $side "s" x $_, "\n"; print "r" x ($_ / 2), "\n"; }"#;
        let template = Template::new("perl")
            .args(["-MIO::Handle", "-e"])
            .raw_arg(format!("$| = 1; {script}"))
            .side_output("side", ReplyFraming::line())
            .try_decode(|reply| {
                let side = reply.side("side").ok_or("no side")?;
                Ok((reply.len(), side.len()))
            });
        let sizes = [0, 1_000_000, 10, 300_000, 70_000, 4_096];
        let items = sizes.map(|size: usize| size.to_string()).into_iter();
        let feed = items.feed_subprocesses_ordered(template, 2, 10);
        let replies = feed.collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!(replies, sizes.map(|size| (size / 2, size)));
    });
}

#[test]
fn the_end_of_both_outputs_may_be_the_end_of_the_parts() {
    within(|| {
        let script = "exec 3>{fd:side}; wc -c >&3; exec 3>&-; printf done";
        let template = Template::shell(script)
            .requests(RequestFraming::raw())
            .replies(ReplyFraming::until_eof())
            .side_output("side", ReplyFraming::until_eof())
            .try_decode(both);
        let feed = numbers(20).feed_subprocesses_ordered(template, 4, 10);
        for (k, reply) in feed.enumerate() {
            let length = k.to_string().len();
            assert_eq!(reply.unwrap(), ("done".to_owned(), format!("{length}\n")));
        }
    });
}

#[test]
fn one_part_until_the_end_makes_it_one_process_for_each_packet() {
    within(|| {
        let script = "exec 3>{fd:side}; read -r x; echo $x; printf \"all of $x\" >&3";
        let template =
            Template::shell(script).side_output("side", ReplyFraming::until_eof()).try_decode(both);
        let feed = numbers(12).feed_subprocesses_ordered(template, 3, 6);
        for (k, reply) in feed.enumerate() {
            assert_eq!(reply.unwrap(), (k.to_string(), format!("all of {k}")));
        }
    });
}

#[test]
fn check_sees_replies_that_have_side_outputs() {
    within(|| {
        let script = "while read -r x; do echo \"$x\"; echo >&3; done";
        let template = sh_with_output(script).check(|request, reply| {
            let same = request.trim_ascii_end() == reply && reply != b"13";
            if same { Ok(()) } else { Err("an unlucky number".into()) }
        });
        let replies: Vec<_> = numbers(30).feed_subprocesses_ordered(template, 2, 10).collect();
        for (k, reply) in replies.into_iter().enumerate() {
            match reply {
                Ok(reply) => assert_eq!(reply, k.to_string().as_str()),
                Err(error) => {
                    assert_eq!((k, error.packet()), (13, Some(13)), "{error}");
                    assert_eq!(error.kind(), ErrorKind::Check);
                }
            }
        }
    });
}

#[test]
fn a_worker_that_closes_its_side_output_cannot_answer_any_more() {
    within(|| {
        let script = "read -r x; echo $x; echo side >&3; exec 3>&-; exec perl -e 'use POSIX; POSIX::close($ENV{side}); while (<STDIN>) { $| = 1; print }'";
        if !here(&["perl"]) {
            return;
        }
        let template = sh_with_output(script).give_up_after(100);
        let replies = texts(numbers(3).feed_subprocesses_ordered(template, 1, 10));
        assert_eq!(replies, ["0", "1", "2"]);
    });
}

#[test]
fn extra_bytes_on_a_side_output_are_an_error_that_names_it() {
    within(|| {
        let script = "while read -r x; do echo \"$x\"; printf 'one\\ntoo many\\n' >&3; done";
        let mut feed = numbers(3).feed_subprocesses_ordered(sh_with_output(script), 1, 1);
        let first = feed.next().unwrap();
        let error = first.and_then(|_| feed.finish().map(|_| ())).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ReplyCount { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains("side output `side`") && said.contains("worker 0"), "{said}");
        assert!(said.contains("too many"), "{said}");
    });
}

#[test]
fn a_bad_part_fails_the_packet_that_it_belongs_to_and_names_the_channel() {
    within(|| {
        // The parts on the side come first, all those on stdout at the end.
        let script = "exec 3>{fd:side}; all=; while read -r x; do all=\"$all$x\n\"; \
            if [ $x = 2 ]; then printf x >&3; else printf 2:ok, >&3; fi; done; printf \"$all\"";
        let template = Template::shell(script)
            .side_output("side", ReplyFraming::netstring())
            .answers_at_eof(100);
        let replies: Vec<_> = numbers(4).feed_subprocesses_ordered(template, 1, 10).collect();
        for (k, reply) in replies.iter().enumerate().filter(|(k, _)| *k != 2) {
            assert_eq!(*reply.as_ref().unwrap(), k.to_string().as_str());
        }
        let error = replies[2].as_ref().unwrap_err();
        assert_eq!((error.kind(), error.packet()), (ErrorKind::Reply, Some(2)), "{error}");
        let said = error.to_string();
        assert!(said.contains("side output `side`") && said.contains("worker 0"), "{said}");
    });
}

// -------------------------------------------------------------------- the Python subfeed's own test

fn fibonaccis(n: usize) -> Vec<(String, String)> {
    let pairs = std::iter::successors(Some((0u128, 1)), |&(a, b)| Some((b, a + b)));
    pairs.take(n).enumerate().map(|(n, (fib, _))| (fib.to_string(), n.to_string())).collect()
}

/// 100 Fibonacci numbers on stdin, their line numbers on a side channel that
/// two shell commands find by its environment variable, output in `{id}.out`. There it is only checked
/// that the pairs which arrive are right; here, that all of them do, once each.
#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence")]
fn line_numbers_on_the_side_meet_their_lines() {
    within(|| {
        let dir = Dir::new();
        let items = fibonaccis(100);
        let in_order: Vec<String> = items.iter().map(|(fib, n)| format!("{n}\t{fib}")).collect();
        let expected = in_order.iter().map(|line| (&line[..], 1)).collect();
        let template = Template::shell("paste /dev/fd/$side -").side_input("side").encode(in_step);
        let to_files = template.clone().stdout(Redirect::file(dir.path("{id}.out")));
        let drained = items.clone().into_iter().feed(to_files).workers(2).drain().unwrap();
        assert!(drained.all_ended_well(), "{drained:?}");
        assert_eq!(drained.accepted.iter().sum::<u64>(), 100);
        let written = dir.read("0.out") + &dir.read("1.out");
        assert_eq!(written.lines().counts(), expected);

        let feed = items.into_iter().feed_subprocesses_ordered(template, 2, 50);
        assert_eq!(texts(feed), in_order);
    });
}
