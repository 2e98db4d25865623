//! The command, run as people run it.

mod kit;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use kit::{
    Dir, ended, eventually, lines, nobody_is_left, noted, run, sessions, subfeed, text, wait,
};

#[test]
fn what_goes_in_comes_out_in_its_order() {
    let input = lines(100_000);
    for args in [
        &["--", "cat"][..],
        &["-j3", "-k", "--", "cat"],
        &["-j1", "--window", "10", "--max-bytes", "1K", "--", "cat"],
    ] {
        let output = run(args, &input);
        ended(&output, 0);
        assert!(output.stdout == input, "{args:?}");
        assert_eq!(text(&output.stderr), "");
    }
    let output = run(&["-j3", "--any-order", "--", "cat"], &input);
    ended(&output, 0);
    let sorted = |bytes: &[u8]| {
        let mut lines: Vec<_> = bytes.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort();
        lines
    };
    assert!(sorted(&output.stdout) == sorted(&input));
}

#[test]
fn inputs_of_every_shape_come_back() {
    let long = [&vec![b'x'; 3 << 20][..], b"\n"].concat();
    for input in [&b""[..], b"\n", b"one\r\ntwo\r\n", b"a\0b\n\n\nc\n", &long] {
        let output = run(&["-j2", "--", "cat"], input);
        ended(&output, 0);
        assert!(output.stdout == input, "{} bytes", input.len());
    }
    // A last line without its line feed gets one.
    assert_eq!(text(&run(&["--", "cat"], b"one\ntwo").stdout), "one\ntwo\n");
    assert_eq!(run(&["-0", "-j2", "--", "cat"], b"one\ntwo\0three\0").stdout, b"one\ntwo\0three\0");
}

#[test]
fn framings_are_spoken() {
    for (args, input, expected) in [
        (&["--out", "lines:2", "--", "sed", "-u", "p"][..], "1\n2\n", "1\n1\n2\n2\n"),
        (&["--in", "len32", "--out", "len32", "--", "cat"], "1\n2\n", "1\n2\n"),
        (&["--out", "eof", "--in", "raw", "--", "tr", "a-z", "A-Z"], "one\ntwo\n", "ONETWO"),
        (&["--out", "eof", "--", "tr", "a-z", "A-Z"], "one\ntwo\n", "ONE\nTWO\n"),
        (
            &["--out", "sentinel:printf '%s%s\\n' {mark1} {mark2}", "--", "sh"],
            "echo 1; echo 2\n:\necho 3\n",
            "1\n2\n3\n",
        ),
        (
            // The line feed before the mark, which a tool may leave out, is not written twice.
            &["--out", "end:#", "--", "sed", "-u", "s/$/\\n#/"],
            "1\n2\n",
            "1\n2\n",
        ),
        (&["--out", "end:#", "--", "sed", "-u", "s/$/#/"], "1\n2\n", "1\n2\n"),
        (&["--out", "end:#", "--", "sed", "-u", "s/$/# and more/"], "1\n2\n", "1\n2\n"),
        (
            // At the start of a line.
            &["--out", "end:\n.", "--", "sed", "-u", "s/$/.5\\n./"],
            "1\n2\n",
            "1.5\n2.5\n",
        ),
        (
            &["--out", "last:bye", "--", "sed", "-u", "s/$/\\nbye now/"],
            "1\n2\n",
            "1\nbye now\n2\nbye now\n",
        ),
        // What is written beside the answers, as `--help` says it.
        (&["--out", "block", "--", "sed", "-u", "s/$/\\n/"], "1\n2\n", "1\n\n2\n\n"),
        (&["--in", "nul", "--out", "nul", "--", "cat"], "1\n2\n", "1\x002\0"),
        (&["--in", "netstring", "--out", "netstring", "--", "cat"], "1\n2\n", "1\n2\n"),
        (&["-0", "--in", "len32", "--out", "len32", "--", "cat"], "1\x002\0", "1\x002\0"),
        (&["-0", "--in", "line", "--out", "end:#", "--", "sed", "-u", "s/$/#/"], "1\0", "1\0"),
        (&["--in", "raw", "--out", "size:1", "--", "cat"], "1\n2\n", "12"),
        (&["--out", "eof", "--", "tr", "-d", "\\n"], "1\n2\n", "12"),
        (
            &["--out", "sentinel:printf '%s%s\\n' {mark1} {mark2}", "--", "sh"],
            "printf 1\nprintf 2\n",
            "12",
        ),
    ] {
        let output = run(args, input.as_bytes());
        ended(&output, 0);
        assert_eq!(text(&output.stdout), expected, "{args:?}");
    }
}

#[test]
fn a_record_that_fails_writes_nothing_to_stdout_and_its_number_to_stderr() {
    let script = "while read -r x; do [ \"$x\" != bad ] || exit 5; echo \"$x\"; done";
    let output =
        run(&["-j2", "--attempts", "1", "--", "sh", "-c", script], b"one\nbad\nthree\nbad\nfive\n");
    ended(&output, 1);
    assert_eq!(text(&output.stdout), "one\nthree\nfive\n");
    let said = text(&output.stderr);
    let said: Vec<_> = said.lines().collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].starts_with("subfeed: record 2: ") && said[1].starts_with("subfeed: record 4: "),
        "{said:?}"
    );
    assert!(said[0].contains("exit status: 5"), "{said:?}");
    // One that is too long is another.
    let output = run(&["--record-limit", "3", "--", "cat"], b"one\nlonger\nend\n");
    ended(&output, 1);
    assert_eq!(text(&output.stdout), "one\nend\n");
    assert!(text(&output.stderr).starts_with("subfeed: record 2: "), "{}", text(&output.stderr));
}

#[test]
fn a_time_limit_and_a_halt_are_heeded() {
    let script = "while read -r x; do [ \"$x\" != bad ] || sleep 300; echo \"$x\"; done";
    let args = ["-j1", "--attempts", "1", "--timeout", "200ms", "--", "sh", "-c", script];
    let output = run(&args, b"one\nbad\nthree\n");
    ended(&output, 1);
    assert_eq!(text(&output.stdout), "one\nthree\n");
    assert!(text(&output.stderr).contains("record 2: "), "{}", text(&output.stderr));
    let script = "while read -r x; do [ \"$x\" != bad ] || exit 5; echo \"$x\"; done";
    for halt in ["soon", "now"] {
        let args = ["-j1", "--attempts", "1", "--halt", halt, "--", "sh", "-c", script];
        let output = run(&args, b"one\nbad\nthree\n");
        ended(&output, 3);
        assert!(text(&output.stdout).starts_with("one\n"), "{halt}");
    }
}

#[test]
fn what_cannot_run_says_so_by_its_exit_status() {
    for (args, code, said) in [
        (&["--", "no-such-tool-at-all"][..], 3, "not found"),
        (&[], 2, "no command"),
        (&["cat"], 2, "subfeed -- cat"),
        (&["--no-such-option", "--", "cat"], 2, "--no-such-option"),
        (&["-j", "0", "--", "cat"], 2, "at least one worker"),
        (&["-k", "--any-order", "--", "cat"], 2, "cannot be used with"),
        (&["--attempts", "0", "--", "cat"], 2, "0"),
        (&["--out", "sentinel:echo no mark", "--", "cat"], 2, "mark"),
        (&["--out", "end:a\n", "--", "cat"], 2, "must not end with a line feed"),
        (&["--timeout", "soon", "--", "cat"], 2, "soon"),
        (&["--header", "1", "--out", "eof", "--", "cat"], 2, "--header"),
        (&["--", "sh", "-c", "exit 7"], 3, "exit status: 7"),
    ] {
        let output = run(args, b"one\ntwo\n");
        ended(&output, code);
        assert!(text(&output.stderr).contains(said), "{args:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "", "{args:?}");
    }
}

#[test]
fn a_header_goes_to_each_worker_and_comes_back_once() {
    // Numbers its lines but for the first, as a tool does that knows columns.
    let tool = "read -r h; echo \"n,$h\"; while read -r x; do echo \"7,$x\"; done";
    let input = [&b"a,b\n"[..], &lines(500)].concat();
    let output = run(&["-j3", "--header", "1", "--", "sh", "-c", tool], &input);
    ended(&output, 0);
    let expected: String = std::iter::once("n,a,b\n".to_owned())
        .chain((0..500).map(|k| format!("7,line {k}\n")))
        .collect();
    assert_eq!(text(&output.stdout), expected);
    // One that eats it, and one that makes two lines of it.
    for (tool, made) in
        [("read -r h; exec cat", ""), ("read -r h && { echo 1; echo 2; exec cat; }", "1\n2\n")]
    {
        let output = run(&["-j2", "--header", "1", "--", "sh", "-c", tool], b"head\none\ntwo\n");
        ended(&output, 0);
        assert_eq!(text(&output.stdout), format!("{made}one\ntwo\n"));
    }
}

#[test]
fn a_reader_that_goes_ends_the_workers_and_then_the_program_by_sigpipe() {
    let dir = Dir::new();
    let pids = dir.path("pids");
    let mut child = subfeed().arg("-j3").args(noted(&pids, "exec cat")).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || while stdin.write_all(&lines(1_000)).is_ok() {});
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    assert_eq!(line, "line 0\n");
    drop(stdout);
    assert_eq!(wait(&mut child).signal(), Some(Signal::SIGPIPE as i32));
    nobody_is_left(&dir);
    writer.join().expect("a writer");
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert_eq!(said, "");
}

#[test]
fn the_first_signal_lets_what_was_read_be_answered() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let dir = Dir::new();
        let pids = dir.path("pids");
        let mut child =
            subfeed().arg("-j2").args(noted(&pids, "exec cat")).spawn().expect("it starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        stdin.write_all(b"one\ntwo\nhalf of").expect("it reads");
        let mut said = String::new();
        stdout.read_line(&mut said).expect("a line");
        stdout.read_line(&mut said).expect("a line");
        // It waits for more, which never comes.
        kill(Pid::from_raw(child.id() as i32), signal).expect("a signal");
        assert_eq!(wait(&mut child).signal(), Some(signal as i32));
        stdout.read_to_string(&mut said).expect("text");
        assert_eq!(said, "one\ntwo\n");
        nobody_is_left(&dir);
        drop(stdin);
    }
}

#[test]
fn the_second_signal_ends_it_at_once_and_leaves_nobody() {
    let dir = Dir::new();
    let pids = dir.path("pids");
    // It never answers, and does not end by itself.
    let mut child = subfeed()
        .arg("-j2")
        .args(noted(&pids, "trap '' TERM INT; exec sleep 300"))
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"one\ntwo\n").expect("it reads");
    eventually("somebody was started", || !sessions(&dir).is_empty());
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("a signal");
    let mut said = String::new();
    while !said.contains("once more") {
        assert!(stderr.read_line(&mut said).expect("a line") > 0, "{said}");
    }
    assert!(child.try_wait().expect("a child").is_none(), "it waits for the answers");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("a signal");
    assert_eq!(wait(&mut child).signal(), Some(Signal::SIGINT as i32));
    nobody_is_left(&dir);
}

#[test]
fn a_stdout_that_nobody_reads_does_not_keep_it() {
    let dir = Dir::new();
    let pids = dir.path("pids");
    let mut child = subfeed().arg("-j1").args(noted(&pids, "exec cat")).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // More than the pipe to us takes. It fails when the child has gone.
    let writer = std::thread::spawn(move || stdin.write_all(&lines(1_000_000)));
    eventually("somebody was started", || !sessions(&dir).is_empty());
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("a signal");
    let mut said = String::new();
    while !said.contains("once more") {
        assert!(stderr.read_line(&mut said).expect("a line") > 0, "{said}");
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("a signal");
    assert_eq!(wait(&mut child).signal(), Some(Signal::SIGTERM as i32));
    nobody_is_left(&dir);
    let _ = writer.join().expect("a writer");
}

#[test]
fn workers_are_not_born_with_signals_blocked() {
    let output =
        run(&["-j1", "--", "sh", "-c", "read -r x; grep SigBlk /proc/self/status"], b"one\n");
    ended(&output, 0);
    assert_eq!(text(&output.stdout), "SigBlk:\t0000000000000000\n");
}

#[test]
fn a_full_disk_is_said_and_ends_it() {
    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    let mut child = subfeed().args(["-j2", "--", "cat"]).stdout(full).spawn().expect("it starts");
    child.stdin.take().expect("a pipe").write_all(b"one\n").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    ended(&output, 3);
    assert!(
        text(&output.stderr).contains("standard output cannot be written"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn figures_come_at_the_end_and_a_bar_only_on_a_terminal() {
    let output = run(&["-j2", "--bar", "--eta", "--stats", "--", "cat"], &lines(1_234));
    ended(&output, 0);
    let said = text(&output.stderr);
    let said: Vec<_> = said.lines().collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("1,234 records answered, 0 failed"), "{said:?}");
    assert!(said[1].contains("sessions started"), "{said:?}");
}

#[test]
fn a_job_log_has_a_line_for_each_record() {
    let dir = Dir::new();
    let log = dir.path("log");
    let output = run(&["--joblog", &log.display().to_string(), "-j2", "--", "cat"], &lines(50));
    ended(&output, 0);
    let log = fs::read_to_string(&log).expect("a log");
    let mut numbers: Vec<u32> = log
        .lines()
        .skip(1)
        .map(|line| line.split('\t').next().expect("a column").parse().expect("a number"))
        .collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=50));
    let output = run(&["--joblog", "/no/such/folder/log", "--", "cat"], b"one\n");
    ended(&output, 3);
}

#[test]
fn the_doctor_says_how_a_tool_behaves_and_what_to_say_for_it() {
    let records = b"alpha\nbeta\ngamma\ndelta\n";
    for (command, said) in [
        (
            &["cat"][..],
            &["1 line for each record", "is quick", "Template::new(\"cat\")", "subfeed -- cat"][..],
        ),
        (
            &["tr", "a-z", "A-Z"],
            &["buffers", "LineBuffered::Stdbuf", "subfeed -- stdbuf -oL tr a-z A-Z"],
        ),
        (
            &["sed", "-u", "p"],
            &["2 lines for each record", "--out lines:2 -- sed -u p", "ReplyFraming::lines(2)"],
        ),
        (
            &["sh", "-c", "echo hello; exec cat"],
            &["1 line before the first answer", "--skip-lines 1 ", ".skip_lines(1)"],
        ),
        (
            &["sh", "-c", "cat; echo bye"],
            &["it says \"bye\\n\"", ".skip_at_end(\"bye\\n\")", "--skip-at-end bye -- sh"],
        ),
        (
            &["bash", "-c", "while printf '> ' && read -r l; do echo $l; done"],
            &["\"> \" in front of each answer", "this is a prompt", "turn the prompt off"],
        ),
        (&["sort"], &["when its input ends, and not before", "--out eof -- sort"]),
        (&["wc", "-l"], &["not record by record", "--out eof"]),
        (&["cat", "-n"], &["remembers"]),
        (&["grep", "--line-buffered", "m"], &["0 to 1 line for a record", "sentinel"]),
    ] {
        let output = run(&[&["doctor", "--"], command].concat(), records);
        ended(&output, 0);
        let text = text(&output.stdout);
        for said in said {
            assert!(text.contains(said), "{command:?}: {said:?} is not in\n{text}");
        }
        assert!(!(text.contains("a prompt") && text.contains("skip")), "{command:?}: {text}");
    }
    let output = run(&["doctor", "--", "cat"], b"");
    ended(&output, 2);
    assert!(text(&output.stderr).contains("there are none"));
    let output = run(&["doctor", "--", "no-such-tool-at-all"], records);
    ended(&output, 3);
    assert!(text(&output.stdout).contains("not found"));
}

#[test]
fn a_run_that_was_interrupted_goes_on_where_it_was() {
    let dir = Dir::new();
    let done = dir.path("done").display().to_string();
    let args = ["-j2", "--window", "20", "--checkpoint", &done, "--", "cat"];
    let mut written = Vec::new();
    // Twice its reader goes after some lines, which it has read to the end of what was written.
    for enough in [100, 5_000] {
        let mut child = subfeed().args(args).spawn().expect("it starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let writer = std::thread::spawn(move || {
            // It may end before it has read everything.
            let _ = stdin.write_all(&lines(10_000));
            stdin
        });
        let mut stdout = child.stdout.take().expect("a pipe");
        let mut read = vec![0; enough];
        stdout.read_exact(&mut read).expect("so much at least");
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("a signal");
        stdout.read_to_end(&mut read).expect("the rest");
        written.extend(read);
        assert_eq!(wait(&mut child).signal(), Some(Signal::SIGTERM as i32));
        drop(writer.join());
    }
    let output = run(&args, &lines(10_000));
    ended(&output, 0);
    written.extend(&output.stdout);
    assert!(written == lines(10_000), "each line once, in order");
    // There is nothing more to do; another command is another run; and so is an input that is shorter.
    let output = run(&args, &lines(10_000));
    ended(&output, 0);
    assert_eq!(text(&output.stdout), "");
    let output = run(&["--checkpoint", &done, "--", "tac"], &lines(10_000));
    ended(&output, 3);
    assert!(text(&output.stderr).contains("another run"), "{}", text(&output.stderr));
    let output = run(&args, &lines(10));
    ended(&output, 3);
    assert!(text(&output.stderr).contains("another input"), "{}", text(&output.stderr));
}

#[test]
fn a_timeline_is_a_trace() {
    let dir = Dir::new();
    let file = dir.path("trace").display().to_string();
    ended(&run(&["-j2", "--timeline", &file, "--", "cat"], &lines(500)), 0);
    let trace = fs::read_to_string(&file).expect("a trace");
    assert!(trace.starts_with("{\"displayTimeUnit\"") && trace.contains("cat"), "{trace:.200}");
    ended(&run(&["--timeline", "/no/such/folder/t", "--", "cat"], b"one\n"), 3);
    let drawn = run(&["timeline", &file], b"");
    ended(&drawn, 0);
    let svg = text(&drawn.stdout);
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg:.200}");
    assert!(
        svg.contains(">worker 0<") && svg.contains(">worker 1<") && svg.contains("<title>busy"),
        "{svg}"
    );
    ended(&run(&["timeline", "/no/such/trace"], b""), 3);
    for (content, why) in [("no trace", ": expected "), ("{}", ": it has no `traceEvents`")] {
        fs::write(&file, content).expect("a file");
        let output = run(&["timeline", &file], b"");
        ended(&output, 3);
        let said = text(&output.stderr);
        assert!(said.contains(&format!("`{file}` is no trace of this program{why}")), "{said}");
    }
}

#[test]
fn workers_are_where_they_are_said_to_be() {
    // Here, by the same list; a real ssh is the launchers' own tests'.
    let output = run(&["-S", "2/:", "--header", "1", "--stats", "--", "cat"], &lines(1_000));
    ended(&output, 0);
    assert!(output.stdout == lines(1_000));
    for bad in ["", "0/node", "x/node"] {
        ended(&run(&["-S", bad, "--", "cat"], b"one\n"), 2);
    }
}

#[test]
fn a_browser_draws_a_timeline() {
    let dir = Dir::new();
    let trace = dir.path("trace").display().to_string();
    let tool = "while read -r x; do echo \"<$x>\"; done";
    ended(&run(&["-j2", "--timeline", &trace, "--", "sh", "-c", tool], &lines(2_000)), 0);
    let svg = dir.path("run.svg");
    fs::write(&svg, run(&["timeline", &trace], b"").stdout).expect("a file");
    for picture in
        [svg, PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/timeline.svg"))]
    {
        let drawn = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
            .arg(format!("--user-data-dir={}", dir.path("chromium").display()))
            .arg(format!("file://{}", fs::canonicalize(&picture).expect("a path").display()))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        let Ok(drawn) = drawn else {
            assert!(
                std::env::var_os("SUBFEED_ALL_TOOLS").is_none(),
                "chromium is on the list of tools"
            );
            eprintln!("skipped: chromium is missing");
            return;
        };
        let dom = text(&drawn.stdout);
        assert!(
            dom.contains("<svg") && dom.contains("worker 1") && !dom.contains("parsererror"),
            "{dom:.400}"
        );
    }
}
