//! Filters: a line in, a line out; flushed by a flag of their own, by `stdbuf`, by a pseudo-terminal, or
//! not at all.

use subfeed::ErrorKind;
use subfeed::channel::LineBuffered;
use subfeed::channel::LineBuffered::{Pty, Stdbuf};
use subfeed::framing::{ReplyFraming, RequestFraming, Sentinel};

use crate::harness::{Tool, chomp, lines, tool};

/// JSON texts on one line each.
const JSON: [&str; 16] = [
    "null",
    "0",
    "-1.5e3",
    "\"\"",
    "\"na\u{ef}ve \\u00e9 \u{1f980}\"",
    "\"\\ud83e\\udd80\"",
    "\"line\\nfeed and nul \\u0000\"",
    "[]",
    "[1,[2,[3,[4]]]]",
    "{}",
    "{\"a\":{\"b\":[1,2,3]},\"c\":null}",
    "{ \"spaced\" :  1 }",
    "  [ 1 , 2 ]  ",
    "{\"b\":1,\"a\":2,\"b\":3}",
    "true",
    "\"\u{2028}\"",
];

fn json() -> Vec<Vec<u8>> {
    let numbered = (0..30).map(|n| format!("{{\"n\":{n},\"text\":\"{}\"}}", "y".repeat(n)));
    let mut texts: Vec<Vec<u8>> = JSON.iter().map(|text| text.as_bytes().to_vec()).collect();
    texts.extend(numbered.map(String::into_bytes));
    texts.push(b"\"not UTF-8: \xff\xc3\"".to_vec());
    texts
}

#[test]
fn jq() {
    let Some(jq) = tool(&["jq", "--unbuffered", "-c", "."]) else { return };
    // Not JSON: jq says so on stderr and exits. Half a JSON text: it waits for the rest.
    jq.requests(json())
        .fails("{not json}", &[ErrorKind::Died])
        .fails("[1,", &[ErrorKind::Died])
        .run();
}

#[test]
fn jq_unflagged_is_recycled() {
    let Some(jq) = tool(&["jq", "-c", "."]) else { return };
    jq.requests(json()).recycles().run();
}

#[test]
fn jq_under_stdbuf() {
    let Some(jq) = tool(&["jq", "-c", "."]) else { return };
    jq.line_buffered(Stdbuf).requests(json()).run();
}

#[test]
fn jq_seq() {
    let Some(jq) = tool(&["jq", "--seq", "--unbuffered", "-c", "."]) else { return };
    jq.template(|template| {
        template
            .requests(RequestFraming::record_separator())
            .replies(ReplyFraming::record_separator())
    })
    .alone(&["jq", "-c", "."])
    .requests(json())
    .requests(["[1,\n 2]", "{\n}"])
    .run();
}

/// None, one or many outputs for each input: an array is joined, so two halves of a mark are one.
#[test]
fn jq_with_any_number_of_outputs() {
    let filter = "if type == \"array\" then add else .items[] end";
    let Some(jq) = tool(&["jq", "--unbuffered", "-r", filter]) else { return };
    let many = (0..20).map(|n| format!("{{\"items\":{:?}}}", (0..n).collect::<Vec<_>>()));
    jq.sentinel("[\"{mark1}\",\"{mark2}\"]")
        .requests(many)
        .requests(["{\"items\":[\"a\\nb\",\"\"]}"])
        .run();
}

#[test]
fn gawk() {
    let Some(gawk) = tool(&["gawk", "{ print NF, $0; fflush() }"]) else { return };
    gawk.requests(lines()).run();
}

#[test]
fn gawk_under_stdbuf() {
    let Some(gawk) = tool(&["gawk", "{ print NF, $0 }"]) else { return };
    gawk.line_buffered(Stdbuf).requests(lines()).run();
}

#[test]
fn mawk_interactive() {
    let Some(mawk) = tool(&["mawk", "-W", "interactive", "{ print NF, $0 }"]) else { return };
    mawk.requests(lines()).run();
}

/// It withholds even its reading: nothing but the end of its input makes it answer.
#[test]
fn mawk_unflagged_is_recycled() {
    let Some(mawk) = tool(&["mawk", "{ print NF, $0; fflush() }"]) else { return };
    mawk.requests(lines()).recycles().run();
}

#[test]
fn sed() {
    let Some(sed) = tool(&["sed", "-u", "-e", "s/x/[&]/g"]) else { return };
    sed.requests(lines()).run();
}

#[test]
fn sed_nul() {
    let Some(sed) = tool(&["sed", "-z", "-u", "-e", "s/x/[&]/g"]) else { return };
    sed.delimited(0).requests(lines()).requests(["two\nlines", "\n", "\n\n\n"]).run();
}

#[test]
fn grep_where_every_line_matches() {
    let Some(grep) = tool(&["grep", "--line-buffered", "-a", ""]) else { return };
    grep.requests(lines()).run();
}

#[test]
fn grep_nul() {
    let Some(grep) = tool(&["grep", "--line-buffered", "-a", "-z", ""]) else { return };
    grep.delimited(0).requests(lines()).requests(["two\nlines", "\n"]).run();
}

#[test]
fn cat() {
    let Some(cat) = tool(&["cat"]) else { return };
    cat.requests(lines()).count(20_000).run();
}

#[test]
fn tee() {
    let Some(tee) = tool(&["tee", "/dev/null"]) else { return };
    tee.requests(lines()).run();
}

#[test]
fn socat() {
    let Some(socat) = tool(&["socat", "-", "SYSTEM:sed -u s/x/y/g"]) else { return };
    socat.alone(&["sed", "-e", "s/x/y/g"]).requests(lines()).run();
}

#[test]
fn xargs() {
    let Some(xargs) = tool(&["xargs", "-L1", "printf", "<%s>\\n"]) else { return };
    let words = (0..30).map(|n| format!("word{n}"));
    // Two processes for each request.
    xargs
        .requests(words)
        .requests(["'two words'", "\\\\", "na\u{ef}ve"])
        .requests([b"\xff"])
        .count(1_000)
        .run();
}

/// Those of the coreutils and their neighbours that have no flag for it.
macro_rules! under_stdbuf {
    ($($test:ident: $argv:expr, $requests:expr;)*) => {$(
        #[test]
        fn $test() {
            let Some(tool) = tool(&$argv) else { return };
            tool.line_buffered(Stdbuf).requests($requests).run();
        }
    )*};
}

under_stdbuf! {
    tr: ["tr", "a-z", "A-Z"], lines();
    cut: ["cut", "-d", " ", "-f", "2-"], lines();
    rev: ["rev"], text_lines();
    expand: ["expand"], lines();
    paste: ["paste", "-", "/dev/null"], lines();
    envsubst: ["envsubst", "$HOME"], text_lines();
    numfmt: ["numfmt", "--to=si", "--invalid=ignore"], numbers();
    date: ["date", "-u", "-f", "-", "+%s"], (0..60).map(|n| format!("2020-01-01 + {n} hours"));
    sed_unflagged: ["sed", "-e", "s/x/[&]/g"], lines();
}

/// Without bytes that make a tool that reads characters stop.
fn text_lines() -> Vec<bstr::BString> {
    lines()
        .into_iter()
        .filter(|line| line.is_ascii() || std::str::from_utf8(line).is_ok())
        .collect()
}

fn numbers() -> Vec<String> {
    (0..50u64)
        .map(|n| (n * n * 999).to_string())
        .chain(["abc".to_owned(), "-5".to_owned()])
        .collect()
}

/// As many lines as the width asks for: counted with a mark that `fold` passes on.
#[test]
fn fold_of_short_lines() {
    let Some(fold) = tool(&["fold", "-w", "1000"]) else { return };
    fold.line_buffered(Stdbuf)
        .requests(lines().into_iter().filter(|line| line.len() < 1_000))
        .run();
}

#[test]
fn nl_without_its_number() {
    // The number depends on what a worker has had before; its width does not.
    let Some(nl) = tool(&["nl", "-b", "n"]) else { return };
    nl.line_buffered(Stdbuf).requests(lines()).run();
}

#[test]
fn tr_unflagged_is_recycled() {
    let Some(tr) = tool(&["tr", "a-z", "A-Z"]) else { return };
    tr.requests(lines()).count(20_000).recycles().run();
}

/// It keeps a buffer of its own, which only a terminal empties.
#[test]
fn factor_unflagged_is_recycled() {
    let Some(factor) = tool(&["factor"]) else { return };
    factor.requests((0..60u64).map(|n| (n * n * n * 7 + 1).to_string())).recycles().run();
}

#[test]
fn factor_behind_a_terminal() {
    let Some(factor) = tool(&["factor"]) else { return };
    factor.line_buffered(Pty).requests((0..60u64).map(|n| (n * n * n * 7 + 1).to_string())).run();
}

#[test]
fn tr_behind_a_terminal() {
    let Some(tr) = tool(&["tr", "a-z", "A-Z"]) else { return };
    tr.line_buffered(LineBuffered::Pty).requests(lines()).run();
}

#[test]
fn file_types() {
    let Some(file) = tool(&["file", "-n", "-f", "-"]) else { return };
    let paths =
        ["/", "/etc/passwd", "/dev/null", "/bin/sh", "/nonexistent", "/usr", "/proc/self/exe", "."];
    file.requests(paths).requests(["/na\u{ef}ve"]).run();
}

/// It answers each line, but only when its input ends: batches.
#[test]
fn iconv_in_batches() {
    let Some(iconv) = tool(&["iconv", "-f", "latin1", "-t", "utf8"]) else { return };
    let at_eof = |tool: Tool| tool.template(|template| template.answers_at_eof(200));
    let snapshot = at_eof(iconv).requests(lines()).run();
    assert!(snapshot.restarts > 0, "{snapshot:?}");
}

#[test]
fn sentinel_through_a_plain_filter() {
    let Some(sed) = tool(&["sed", "-u", "-n", "-e", "/^sq[a-p]*z[a-p]*$/p", "-e", "s/x/[&]\\n/gp"])
    else {
        return;
    };
    // None, one or many lines; the mark is a request that the script passes on.
    sed.template(|template| template.replies(ReplyFraming::sentinel(Sentinel::new("{mark}"))))
        .trim(|output| output)
        .requests(lines())
        .run();
}

#[test]
fn chomp_takes_one_line_feed() {
    assert_eq!(chomp("a\n\n".into()), "a\n");
}
