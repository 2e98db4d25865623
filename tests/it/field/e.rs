//! E: what could not be done.

use subfeed::Template;
use subfeed::framing::ReplyFraming;

use super::{Door, doors};
use crate::common::tools::here;

// ==================================================================== E1: a status other than 0 is an answer

/// Says what it has seen, and exits with the number that it was sent.
fn linter() -> Template {
    Template::shell("read -r x; echo seen $x; exit $x")
        .replies(ReplyFraming::until_eof())
        .accept_status(|code| code < 2)
}

fn e1_a_status_that_is_an_answer(door: Door) {
    door.send(linter(), &["0", "1", "1"], 2).is(&["seen 0\n", "seen 1\n", "seen 1\n"]);
    let told = door.send(linter(), &["0", "2", "1"], 1);
    told.is(&["seen 0\n", "!Died 1", "seen 1\n"]);
}
doors!(e1_a_status_that_is_an_answer:
    ordered unordered keep_input blocks wrapping queue pipeline results);

#[test]
fn e1_a_status_that_is_refused_is_named_with_the_setting() {
    let ended = |codes: fn(i32) -> bool, set: bool| {
        let template = Template::shell("cat; exit 3").replies(ReplyFraming::until_eof());
        let template = if set { template.accept_status(codes) } else { template };
        let error = subfeed::FeedExt::feed(["a"].into_iter(), template).workers(1).start().next();
        error.unwrap().unwrap_err().to_string()
    };
    let said = ended(|_| true, false);
    assert!(said.contains("accept it with Template::accept_status"), "{said}");
    let said = ended(|code| code == 0, true);
    assert!(said.contains("accept_status refuses the exit status 3"), "{said}");
}

#[test]
fn e1_a_signal_is_never_one() {
    let killed = Template::shell("cat; kill -9 $$").replies(ReplyFraming::until_eof());
    let told = Door::Ordered.send(killed.accept_status(|_| true), &["a", "b"], 1);
    assert!(told.items.iter().all(|item| item.starts_with('!')), "{told:?}");
}

// ==================================================================== E2: an end line that belongs to the reply

/// Says as much as it is told to before its last word.
fn engine(last: &str) -> Template {
    Template::shell(format!(
        "while read -r n; do i=0; while [ $i -lt $n ]; do echo info $i; i=$((i + 1)); done; echo {last} $n; done"
    ))
}

fn e2_the_end_line_belongs_to_the_reply(door: Door) {
    let template = engine("bestmove").replies(ReplyFraming::end_line(["bestmove"]));
    door.send(template, &["0", "2", "1"], 1).is(&[
        "bestmove 0",
        "info 0\ninfo 1\nbestmove 2",
        "info 0\nbestmove 1",
    ]);
}
doors!(e2_the_end_line_belongs_to_the_reply:
    ordered unordered keep_input blocks wrapping queue pipeline results);

#[test]
fn e2_one_end_line_too_many_and_half_a_reply_at_the_end_are_told() {
    for behind in ["echo bestmove", "echo info"] {
        let script = format!("while read -r x; do echo bestmove $x; done; {behind}");
        let template = Template::shell(script).replies(ReplyFraming::end_line(["bestmove"]));
        let told = Door::Ordered.send(template, &["a", "b"], 1);
        assert!(told.items[1].starts_with("!!ReplyCount"), "{behind}: {told:?}");
    }
}

// ==================================================================== E3: replies of a fixed size

fn e3_replies_of_a_fixed_size(door: Door) {
    let template = Template::shell("while read -r x; do printf '%4s' $x; done");
    let template = template.replies(ReplyFraming::fixed_size(4));
    door.send(template, &["a", "bcd", "efgh"], 1).is(&["   a", " bcd", "efgh"]);
    // Line feeds are bytes like others, and a frame may come in pieces.
    let slowly =
        Template::shell("while read -r x; do printf '\\n'; sleep 0.02; printf 'x\\n'; done");
    let slowly = slowly.replies(ReplyFraming::fixed_size(3));
    door.send(slowly, &["1", "2"], 1).is(&["\nx\n", "\nx\n"]);
}
doors!(e3_replies_of_a_fixed_size:
    ordered unordered keep_input blocks wrapping queue pipeline results);

// ==================================================================== E4: how much is in flight in one worker

/// Says whether there is more to read already when it answers.
fn counting() -> Template {
    let script =
        "while read -r x; do sleep 0.005; if read -t 0; then echo more; else echo alone; fi; done";
    Template::new("bash").arg("-c").arg(script)
}

fn e4_one_at_a_time(door: Door) {
    if !here(&["bash"]) {
        return;
    }
    let alone = |template: Template| {
        let told = door.send(template, &["1", "2", "3", "4", "5", "6"], 1);
        told.is(&["alone"; 6]);
    };
    alone(counting().in_flight(1));
    alone(counting().in_flight(1).recycle_after_records(2));
    alone(counting().in_flight(1).at_most_once());
}
doors!(e4_one_at_a_time:
    ordered unordered keep_input blocks wrapping queue pipeline results);

// ==================================================================== E8: one of several end lines, fields, blocks

fn e8_one_of_several_end_lines(door: Door) {
    let script = "while read -r x; do echo $x; [ $x = bad ] && echo ERR no || echo OK; done";
    let template = Template::shell(script).replies(ReplyFraming::end_line(["OK", "ERR"]));
    door.send(template, &["a", "bad", "b"], 1).is(&["a\nOK", "bad\nERR no", "b\nOK"]);
}
doors!(e8_one_of_several_end_lines:
    ordered unordered keep_input blocks wrapping queue pipeline results);

fn e8_fields_and_blocks(door: Door) {
    let fields = Template::shell("while read -r x; do printf '%s;;%s;' $x $x; done");
    let fields = fields.replies(ReplyFraming::fields(b';', 3));
    door.send(fields, &["a", "b"], 1).is(&["a;;a", "b;;b"]);
    let blocks =
        Template::shell("while read -r x; do printf '%s\\n\\n%s\\n%s\\n\\n' $x $x $x; done");
    let blocks = blocks.replies(ReplyFraming::blocks(2));
    door.send(blocks, &["a", "b"], 1).is(&["a\n\na\na", "b\n\nb\nb"]);
}
doors!(e8_fields_and_blocks: ordered unordered queue pipeline);
