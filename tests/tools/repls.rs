//! Interactive programs: none, one or many lines for each request, errors on stderr only; a mark after
//! each request tells where its reply ends.

use bstr::{BString, ByteSlice};
use subfeed::ErrorKind;
use subfeed::framing::Sentinel;

use crate::harness::tool;

#[test]
fn bc() {
    let Some(bc) = tool(&["bc", "-q"]) else { return };
    let powers = (0..20).map(|n| format!("{n}^{n}"));
    bc.env("BC_LINE_LENGTH", "0")
        .sentinel("print \"{mark1}\", \"{mark2}\", \"\\n\"")
        .requests(powers)
        // On stderr only; nothing at all; many lines; a line without an end; comments; no UTF-8.
        .requests([
            "1/0",
            "1 +",
            "(",
            "x = 1",
            "",
            "for (i = 0; i < 40; ++i) i",
            "print 7",
            "/* c */ 2",
        ])
        .requests(["2^5000", "sqrt(-1)", "na\u{ef}ve"])
        .requests([b"\xff\xfe"])
        // A string that is not closed swallows the mark.
        .fails("\"never closed", &[ErrorKind::Died, ErrorKind::Reply])
        .run();
}

#[test]
fn dc() {
    let Some(dc) = tool(&["dc"]) else { return };
    dc.sentinel("[{mark1}]n[{mark2}]pc")
        .requests((0..20).map(|n| format!("{n} 2 ^ p")))
        .requests(["0 0 /", "p", "", "1 2 3 f", "[text]p", "99 99 ^ p", "na\u{ef}ve"])
        .run();
}

#[test]
fn sqlite3() {
    let Some(sqlite3) = tool(&["sqlite3", "-batch", ":memory:"]) else { return };
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500) SELECT i FROM n;";
    sqlite3
        .sentinel("SELECT '{mark1}' || '{mark2}';")
        .requests((0..20).map(|n| format!("SELECT {n} * {n}, 'row {n}';")))
        .requests([
            "SELECT 1 WHERE 0;",
            "",
            ";",
            "-- a comment",
            many,
            "SELECT 'two\\nlines', '', NULL;",
        ])
        .requests([
            "SELECT no_such;",
            "SELEC;",
            "SELECT 1; SELECT 2;",
            "SELECT 'na\u{ef}ve';",
            ".no_such",
        ])
        .requests([b"SELECT '\xff\xfe';"])
        // A statement that goes on: what comes next is part of it.
        .fails("SELECT 'never closed", &[ErrorKind::Died, ErrorKind::Reply])
        // After an error its status is 1.
        .ends_badly()
        .run();
}

#[test]
fn z3() {
    let Some(z3) = tool(&["z3", "-in"]) else { return };
    // It joins nothing, but its replies are whole lines.
    z3.marked(Sentinel::new("(echo \"{mark}\")").alone())
        .requests((0..20).map(|n| format!("(simplify (* {n} {n}))")))
        .requests(["(foo)", "", "; a comment", "(simplify 1) (simplify 2)"])
        .requests([
            "(push) (declare-const x Int) (assert (> x 5)) (check-sat) (get-model) (pop)",
            "(push) (declare-const p Bool) (assert (and p (not p))) (check-sat) (pop)",
        ])
        .run();
}

#[test]
fn cvc5() {
    let Some(cvc5) = tool(&["cvc5", "--incremental", "--lang=smt2"]) else { return };
    // It prints the mark as it was written, in quotes: the first is the reply's last byte.
    cvc5.preamble("(set-logic ALL)\n")
        .sentinel("(echo \"{mark}\")")
        .trim(|mut output| {
            output.push(b'"');
            output
        })
        .requests((0..20).map(|n| {
            format!("(push) (declare-const x Int) (assert (= (* x 3) {n})) (check-sat) (pop)")
        }))
        .requests(["", "; a comment", "(check-sat) (check-sat)", "(get-info :name)"])
        // It prints an error and exits; the error is on stdout, but the mark never comes.
        .fails("(foo)", &[ErrorKind::Died])
        .run();
}

#[test]
fn tclsh() {
    let Some(tclsh) = tool(&["tclsh"]) else { return };
    tclsh
        .preamble("fconfigure stdout -encoding utf-8\n")
        .sentinel("puts [join {{mark1} {mark2}} \"\"]")
        .requests((0..20).map(|n| format!("puts [expr {{{n} * {n}}}]")))
        .requests([
            "no_such",
            "expr 1",
            "",
            "# comment",
            "puts -nonewline x",
            "puts \"a\\nb\\n\"",
            "puts \u{ef}",
        ])
        .requests(["for {set i 0} {$i < 300} {incr i} { puts $i }"])
        .run();
}

const SHELL: [&str; 12] = [
    "echo one",
    "",
    "true",
    "printf 'no line feed'",
    "printf 'a\\nb\\n\\n'",
    "no_such_command",
    "echo on stderr only >&2",
    "seq 500",
    "(exit 3); echo $?",
    "printf '\\377\\376\\n'",
    "echo na\u{ef}ve",
    "# a comment",
];

#[test]
fn sh() {
    let Some(sh) = tool(&["sh"]) else { return };
    sh.sentinel("printf '%s%s\\n' {mark1} {mark2}")
        .requests(SHELL)
        .requests((0..20).map(|n| format!("echo $(({n} * {n}))")))
        .fails("exec false", &[ErrorKind::Died])
        .run();
}

#[test]
fn bash() {
    let Some(bash) = tool(&["bash", "--norc"]) else { return };
    bash.sentinel("printf '%s%s\\n' {mark1} {mark2}")
        .requests(SHELL)
        .requests(["[[ a < b ]] && echo yes", "(( 0 ))"])
        .run();
}

#[test]
fn python_interactive() {
    let Some(python) = tool(&["python3", "-u", "-i", "-q"]) else { return };
    python
        .alone(&["python3", "-u", "-i", "-q"])
        .sentinel("print(\"{mark1}\" \"{mark2}\")")
        .requests((0..20).map(|n| format!("{n} ** {n}")))
        .requests([
            "1/0",
            "",
            "None",
            "print('a\\nb')",
            "x =",
            "'na\u{ef}ve'",
            "[print(i) for i in range(50)] and None",
        ])
        .run();
}

/// It complains on stdout, and quotes what it complains about.
#[test]
fn maxima() {
    let Some(maxima) = tool(&["maxima", "--very-quiet"]) else { return };
    maxima
        .preamble("display2d: false$\nprint(\"ready\")$\n")
        .sentinel("print(sconcat(\"{mark1}\", \"{mark2}\"))$")
        // What it says first begins with a line feed, as if something had been typed.
        .template(|template| template.skip_until("ready \n"))
        .trim(|output| {
            let ready = output.find("ready \n").expect("what the preamble says");
            BString::from(&output[ready + 7..])
        })
        .requests((0..10).map(|n| format!("diff(x^{n}, x);")))
        .requests([
            "1/0;",
            "1 +;",
            "f(x) := x^2$",
            "print(\"a\")$",
            "2; 3; 4;",
            "factor(1001)$",
            "",
        ])
        // A quote or a bracket that is never closed: the sync command is what it complains of.
        .fails("\"never closed", &[ErrorKind::Reply, ErrorKind::Died])
        .fails("f(", &[ErrorKind::Reply, ErrorKind::Died])
        .count(400)
        .run();
}

/// With prompts, and with what `console.log` returns behind each mark.
#[test]
fn node_interactive() {
    let Some(node) = tool(&["node", "-i"]) else { return };
    let sentinel = Sentinel::new("console.log(\"{mark1}\" + \"{mark2}\")").paired();
    node.marked(sentinel)
        .env("NODE_NO_READLINE", "1")
        // The banner's two lines, a prompt, and at the end of its input a line feed.
        .trim(|output| {
            let from = output.find("\n> ").expect("a prompt") + 3;
            BString::from(output[from..].strip_suffix(b"\n").unwrap_or(&output[from..]))
        })
        .requests((0..10).map(|n| format!("{n} ** {n}")))
        .requests([
            "",
            "undefined",
            "no_such",
            "throw 1",
            "'two\\nlines'",
            "[1, 2, 3].map(n => n * n)",
            "console.log('a\\nb')",
            "process.stdout.write('no line feed'), 1",
            "// a comment",
        ])
        // Each takes the first sync command for a part of itself.
        .fails("!", &[ErrorKind::Reply])
        .fails("typeof", &[ErrorKind::Reply])
        .fails("(", &[ErrorKind::Reply, ErrorKind::Died])
        .count(1_000)
        .run();
}
