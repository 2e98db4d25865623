//! Interpreters that run a loop of the user's: read a line, print a line.

use subfeed::channel::LineBuffered::{Environment, Pty};

use crate::harness::{Tool, lines, short_lines, tool};

/// A Python program that answers each line with its length in bytes and its reverse.
const PYTHON: &str = "import sys
for line in sys.stdin.buffer:
    line = line[:-1]
    sys.stdout.write(f'{len(line)} {line[::-1]!r}\\n')
";

const PERL: &str = "chomp; $_ = length($_) . ' ' . reverse($_) . \"\\n\"";

/// Python that buffers, whatever the environment of the tests says.
fn buffering_python() -> Option<Tool> {
    let python = tool(&["python3", "-c", PYTHON])?;
    Some(python.template(|template| template.env_remove("PYTHONUNBUFFERED")))
}

#[test]
fn python_unbuffered() {
    let Some(python) = tool(&["python3", "-u", "-c", PYTHON]) else { return };
    python.requests(lines()).run();
}

#[test]
fn python_by_environment() {
    let Some(python) = buffering_python() else { return };
    python.line_buffered(Environment).requests(lines()).run();
}

#[test]
fn python_behind_a_terminal() {
    let Some(python) = buffering_python() else { return };
    python.line_buffered(Pty).requests(lines()).run();
}

#[test]
fn python_unflagged_is_recycled() {
    let Some(python) = buffering_python() else { return };
    python.requests(short_lines()).recycles().run();
}

#[test]
fn perl() {
    let Some(perl) = tool(&["perl", "-pe", &format!("BEGIN {{ $| = 1 }} {PERL}")]) else { return };
    perl.requests(lines()).run();
}

#[test]
fn perl_nul() {
    let script = "BEGIN { $| = 1 } s/x/y/g";
    let Some(perl) = tool(&["perl", "-0", "-pe", script]) else { return };
    perl.delimited(0).requests(lines()).requests(["two\nlines", "\n"]).run();
}

#[test]
fn perl_behind_a_terminal() {
    let Some(perl) = tool(&["perl", "-pe", PERL]) else { return };
    perl.line_buffered(Pty).requests(lines()).run();
}

#[test]
fn perl_unflagged_is_recycled() {
    let Some(perl) = tool(&["perl", "-pe", PERL]) else { return };
    perl.requests(short_lines()).recycles().run();
}

#[test]
fn node() {
    let script =
        "require('readline').createInterface({ input: process.stdin, crlfDelay: Infinity })
        .on('line', line => console.log(line.length + ' ' + [...line].reverse().join('')))";
    let Some(node) = tool(&["node", "-e", script]) else { return };
    // Readline ends a line at more than a line feed: at a carriage return, and at U+2028.
    let lines = lines().into_iter().filter(|line| !line.contains(&b'\r'));
    node.requests(lines.take(24)).run();
}

#[test]
fn lua() {
    let script = "for line in io.lines() do print(#line .. ' ' .. line:reverse()) io.flush() end";
    let Some(lua) = tool(&["lua5.4", "-e", script]) else { return };
    lua.requests(lines()).run();
}

#[test]
fn php() {
    let script = "while (($line = fgets(STDIN)) !== false) {
        $line = substr($line, 0, -1); echo strlen($line) . ' ' . strrev($line) . \"\\n\"; }";
    let Some(php) = tool(&["php", "-r", script]) else { return };
    php.requests(lines()).run();
}

#[test]
fn tcl_loop() {
    let dir = crate::common::Dir::new();
    let script = "fconfigure stdin -translation binary -encoding binary
        fconfigure stdout -translation binary -encoding binary -buffering line
        while {[gets stdin line] >= 0} { puts \"[string length $line] [string reverse $line]\" }";
    std::fs::write(dir.path("loop.tcl"), script).expect("a file");
    let Some(tcl) = tool(&["tclsh", &dir.at("loop.tcl")]) else { return };
    tcl.requests(lines()).run();
}

#[test]
fn r() {
    let script = "input <- file('stdin', 'r')
        while (length(line <- readLines(input, 1)) > 0) {
            cat(tryCatch(format(eval(parse(text = line))), error = function(e) 'error'), '\\n', sep = '')
        }";
    let Some(r) = tool(&["Rscript", "-e", script]) else { return };
    let sums = (0..10).map(|n| format!("sum(1:{n})"));
    // The oracle starts R for each.
    r.requests(sums).requests(["stop('no')", "1 +", "'\u{ef}'", "''"]).run();
}

#[test]
fn guile() {
    let script = "(use-modules (ice-9 rdelim)) (let loop ((line (read-line)))
        (unless (eof-object? line)
            (display (string-length line)) (display \" \") (display (string-reverse line))
            (newline) (force-output) (loop (read-line))))";
    let Some(guile) = tool(&["guile", "-q", "--no-auto-compile", "-c", script]) else { return };
    let text = |line: &bstr::BString| std::str::from_utf8(line).is_ok();
    guile.requests(lines().into_iter().filter(text)).run();
}

#[test]
fn prolog() {
    let goal = "current_input(S), repeat, read_line_to_string(S, L), \
        ( L == end_of_file -> true ; string_length(L, N), format('~w ~w~n', [N, L]), \
        flush_output, fail )";
    let Some(prolog) = tool(&["swipl", "-q", "-g", goal, "-t", "halt"]) else { return };
    // It drops a carriage return before the line feed, and spaces where it likes.
    prolog.requests(lines().into_iter().filter(|line| std::str::from_utf8(line).is_ok())).run();
}
