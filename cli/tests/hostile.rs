//! What somebody does to the command who means it no good, or who has no idea.

mod kit;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use kit::{Dir, ended, eventually, fed, lines, run, shell, subfeed, text, wait, write};

/// Answers each line with itself; `bad` ends it, as long as there is no file `good`.
fn moody(dir: &Dir) -> String {
    format!(
        "while read -r x; do case $x in bad*) [ -e {} ] || exit 5;; esac; echo \"<$x>\"; done",
        dir.at("good")
    )
}

// ----------------------------------------------------------------- checkpoint

#[test]
fn a_record_that_failed_is_tried_again_by_the_next_run_and_no_other_is() {
    let dir = Dir::new();
    let (done, log) = (dir.at("done"), dir.at("log"));
    let tool = moody(&dir);
    let run = |input: &[u8]| {
        let args = ["-j2", "--attempts", "1", "--joblog", &log, "--checkpoint", &done];
        run(&[&args[..], &["--", "sh", "-c", &tool]].concat(), input)
    };
    let input = b"one\nbad 2\nthree\nbad 4\nbad 5\nsix\nbad 7";
    let first = run(input);
    ended(&first, 1);
    assert_eq!(text(&first.stdout), "<one>\n<three>\n<six>\n");
    assert!(text(&first.stderr).contains("4 records failed; what failed is tried again"));
    // They fail again, under their own numbers.
    let second = run(input);
    ended(&second, 1);
    assert_eq!(text(&second.stdout), "");
    for number in [2, 4, 5, 7] {
        let said = format!("subfeed: record {number}: ");
        assert!(text(&second.stderr).contains(&said), "{}", text(&second.stderr));
    }
    // The cause is gone, and the input has grown.
    dir.touch("good");
    fs::remove_file(dir.path("log")).expect("a log");
    let third = run(&[input, &b"\neight\nnine\n"[..]].concat());
    ended(&third, 0);
    assert_eq!(text(&third.stdout), "<bad 2>\n<bad 4>\n<bad 5>\n<bad 7>\n<eight>\n<nine>\n");
    let mut numbers: Vec<_> = dir.read("log").lines().skip(1).map(|l| l[..1].to_owned()).collect();
    numbers.sort();
    assert_eq!(numbers, ["2", "4", "5", "7", "8", "9"]);
    let fourth = run(&[input, &b"\neight\nnine\n"[..]].concat());
    ended(&fourth, 0);
    assert_eq!((text(&fourth.stdout), text(&fourth.stderr)), (String::new(), String::new()));
}

#[test]
fn with_halt_now_the_next_run_begins_with_what_failed_and_all_is_in_order() {
    let dir = Dir::new();
    let done = dir.at("done");
    let tool = moody(&dir);
    for halt in ["now", "soon"] {
        let _ = (fs::remove_file(&done), fs::remove_file(dir.path("good")));
        let args = ["-j1", "--attempts", "1", "--halt", halt, "--checkpoint", &done];
        let args = [&args[..], &["--", "sh", "-c", &tool]].concat();
        let input = b"one\ntwo\nbad\nfour\nfive\n";
        let first = run(&args, input);
        ended(&first, 3);
        dir.touch("good");
        let second = run(&args, input);
        ended(&second, 0);
        let both = text(&first.stdout) + &text(&second.stdout);
        let mut all: Vec<_> = both.lines().collect();
        if halt == "now" {
            assert_eq!(all, ["<one>", "<two>", "<bad>", "<four>", "<five>"]);
        }
        all.sort_unstable();
        assert_eq!(all, ["<bad>", "<five>", "<four>", "<one>", "<two>"], "{halt}");
    }
}

#[test]
fn a_checkpoint_goes_with_marks_with_any_order_and_with_a_header() {
    let dir = Dir::new();
    // A mark differs from run to run, and is no other option for that reason.
    let done = dir.at("marks");
    let mark = "sentinel:printf '%s%s\\n' {mark1} {mark2}";
    let args = ["--checkpoint", &done, "--out", mark, "--", "sh"];
    assert_eq!(text(&run(&args, b"echo 1\n").stdout), "1\n");
    let second = run(&args, b"echo 1\necho 2\n");
    ended(&second, 0);
    assert_eq!(text(&second.stdout), "2\n");
    // In any order.
    let done = dir.at("any");
    let tool = moody(&dir);
    let args = ["-j3", "--any-order", "--attempts", "1", "--checkpoint", &done];
    let args = [&args[..], &["--", "sh", "-c", &tool]].concat();
    let input = [&lines(500)[..], b"bad\n", &lines(500)].concat();
    let first = run(&args, &input);
    ended(&first, 1);
    assert_eq!(first.stdout.iter().filter(|&&byte| byte == b'\n').count(), 1_000);
    dir.touch("good");
    let second = run(&args, &input);
    ended(&second, 0);
    assert_eq!(text(&second.stdout), "<bad>\n");
    // A header is written once, however often it is begun.
    let done = dir.at("header");
    let tool = format!("read -r h; echo \"H $h\"; {}", moody(&dir));
    let args = ["-j1", "--attempts", "1", "--header", "1", "--checkpoint", &done];
    let args = [&args[..], &["--", "sh", "-c", &tool]].concat();
    fs::remove_file(dir.path("good")).expect("a file");
    let first = run(&args, b"head\nbad\n");
    ended(&first, 1);
    assert_eq!(text(&first.stdout), "H head\n");
    dir.touch("good");
    let second = run(&args, b"head\nbad\nmore\n");
    ended(&second, 0);
    assert_eq!(text(&second.stdout), "<bad>\n<more>\n");
}

#[cfg(target_os = "linux")]
#[test]
fn a_line_that_a_killed_run_has_left_incomplete_is_ended_before_the_next_answer() {
    let dir = Dir::new();
    let (out, done) = (dir.at("out"), dir.at("done"));
    // A limit on its size ends the first run within a write.
    let script = format!("subfeed -j2 --checkpoint {done} -- cat >> {out}");
    let killed = shell(&format!("ulimit -c 0; ulimit -f 8; {script}"), &lines(10_000));
    assert!(!killed.status.success(), "{}", killed.status);
    let first = dir.read("out");
    assert!(!first.is_empty() && !first.ends_with('\n'), "{first}");
    let next = shell(&script, &lines(10_000));
    ended(&next, 0);
    let said = text(&next.stderr);
    assert!(said.starts_with("subfeed: the last line of the output is incomplete"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let both = dir.read("out");
    let rest = both.strip_prefix(&format!("{first}\n")).expect("what there was, and its end");
    let mut all: Vec<_> = first.lines().chain(rest.lines()).collect();
    all.sort_unstable();
    all.dedup();
    let whole = text(&lines(10_000));
    assert!(whole.lines().all(|line| all.binary_search(&line).is_ok()), "an answer is lost");
    // Answers with other ends, with none that is known, and an output of which nothing is known.
    for (args, input, before, to, after, mended) in [
        ("-0", &b"a\0b\0"[..], "a", ">>", "a\0b\0", true),
        ("--out lines:1", b"a\nb\n", "a", ">>", "a\nb\n", true),
        ("--in len32 --out len32", b"a\nb\n", "a", ">>", "a\nb\n", true),
        ("--out size:2", b"a\nb\n", "a", ">>", "ab\n", false),
        ("", b"a\nb\n", "a\n", ">>", "a\nb\n", false),
        ("", b"a\nb\n", "", ">>", "b\n", false),
        // Where it writes, and not what is behind that.
        ("", b"a\nb\n", "a\nabc", "1<>", "b\nabc", false),
        ("", b"a\nb\n", "a", "| cat >>", "ab\n", false),
    ] {
        let _ = fs::remove_file(&done);
        let record = input.iter().position(|&byte| byte == 0 || byte == b'\n').expect("an end");
        ended(&shell(&format!("subfeed --checkpoint {done} {args} -- cat"), &input[..=record]), 0);
        write(&dir, "out", before.as_bytes());
        let script = format!("subfeed --checkpoint {done} {args} -- cat {to} {out}");
        let output = shell(&script, input);
        ended(&output, 0);
        assert_eq!(dir.read("out"), after, "{args} {before:?} {to}");
        assert_eq!(text(&output.stderr).is_empty(), !mended, "{args} {before:?} {to}");
    }
    // Nothing is left to do, so nothing is written.
    let _ = (fs::remove_file(&done), fs::remove_file(&out));
    ended(&shell(&script, b"a\n"), 0);
    write(&dir, "out", b"a");
    ended(&shell(&script, b"a\n"), 0);
    assert_eq!(dir.read("out"), "a");
}

// ----------------------------------------------------------------- what is said

#[test]
fn what_a_tool_says_on_stderr_comes_out_and_stands_before_the_failure() {
    let script = "while read -r x; do echo \"warning: $x\" >&2; [ $x != bad ] || exit 5; echo $x; done; \
                  printf 'no end' >&2";
    let args = ["-j1", "--attempts", "1", "--", "sh", "-c", script];
    let output = run(&args, b"one\nbad\nthree\n");
    ended(&output, 1);
    let said = text(&output.stderr);
    let mut said: Vec<_> = said.lines().collect();
    // It is sent again alone before it is said to have failed, and what it says stands in front of that.
    let before = said.iter().position(|line| *line == "warning: bad");
    assert!(before < said.iter().position(|line| line.starts_with("subfeed: record 2: ")));
    said.dedup();
    let failure = said.iter().position(|line| line.starts_with("subfeed: record 2: "));
    let failure = said.remove(failure.expect("it is said to have failed"));
    assert!(
        failure.contains("stderr: \"warning: bad\""),
        "the error has its part of it: {failure}"
    );
    assert_eq!(said, ["warning: one", "warning: bad", "warning: three", "no end"]);
    // Lines of several workers stay whole, and nothing is lost.
    let script =
        "while read -r x; do printf '%s' \"$x\" >&2; echo \" and so on\" >&2; echo $x; done";
    let output = run(&["-j4", "--", "sh", "-c", script], &lines(2_000));
    ended(&output, 0);
    let said = text(&output.stderr);
    let mut said: Vec<_> = said.lines().collect();
    said.sort_unstable();
    let mut expected: Vec<_> = (0..2_000).map(|k| format!("line {k} and so on")).collect();
    expected.sort_unstable();
    assert_eq!(said, expected);
}

#[test]
fn a_stderr_that_nobody_reads_does_not_keep_it_from_ending() {
    let dir = Dir::new();
    let pids = dir.path("pids");
    let script = "while read -r x; do head -c 100000 /dev/zero >&2; echo $x; done";
    let mut child =
        subfeed().arg("-j2").args(kit::noted(&pids, script)).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(&lines(1_000)).expect("it reads");
    let stderr = child.stderr.take().expect("a pipe");
    eventually("somebody was started", || !kit::sessions(&dir).is_empty());
    for _ in 0..2 {
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("a signal");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(wait(&mut child).signal(), Some(Signal::SIGTERM as i32));
    kit::nobody_is_left(&dir);
    drop((stdin, stderr));
}

#[test]
fn a_full_or_closed_stderr_is_no_reason_to_panic() {
    let failing = "while read -r x; do echo warning >&2; [ $x != bad ] || exit 5; echo $x; done";
    for to in ["2> /dev/full", "2>&-"] {
        for (command, code) in [
            (format!("subfeed --stats --bar --attempts 1 -- sh -c '{failing}'"), 1),
            ("subfeed --no-such-option".to_owned(), 2),
            ("subfeed".to_owned(), 2),
            ("subfeed -- no-such-tool-at-all".to_owned(), 3),
            ("subfeed doctor -- cat < /dev/null".to_owned(), 2),
        ] {
            let output = shell(&format!("{command} {to}"), b"one\nbad\nthree\n");
            assert_eq!(output.status.code(), Some(code), "{command} {to}");
        }
    }
}

#[test]
fn a_stdout_that_is_full_or_closed_is_said_and_is_no_success() {
    for (to, said) in [("> /dev/full", "No space left"), (">&-", "standard output is closed")] {
        for command in ["-- cat", "--header 1 -- cat", "doctor -- cat", "timeline trace"] {
            let dir = Dir::new();
            let trace = dir.at("trace");
            ended(&run(&["--timeline", &trace, "--", "cat"], b"one\n"), 0);
            let command = command.replace("trace", &trace);
            let output = shell(&format!("subfeed {command} {to}"), b"one\ntwo\n");
            ended(&output, 3);
            assert!(text(&output.stderr).contains(said), "{command}: {}", text(&output.stderr));
        }
        if to == "> /dev/full" {
            for command in ["--help", "-h", "--version", "doctor --help"] {
                assert_eq!(shell(&format!("subfeed {command} {to}"), b"").status.code(), Some(3));
            }
        }
    }
    // Nothing is what was asked for.
    ended(&shell("subfeed -- cat > /dev/null", b"one\n"), 0);
    let output = shell("subfeed -- cat <&-", b"");
    ended(&output, 3);
    assert!(text(&output.stderr).contains("standard input is closed"));
    ended(&shell("subfeed -- cat < /dev/null", b""), 0);
}

#[test]
fn files_that_cannot_be_kept_are_said_and_change_the_exit_status() {
    let dir = Dir::new();
    let ran = dir.at("ran");
    // A log that is full, also where every session ends badly.
    for tool in ["cat", "cat; exit 1"] {
        let output = run(&["--joblog", "/dev/full", "--", "sh", "-c", tool], &lines(500));
        ended(&output, 3);
        assert!(output.stdout == lines(500), "the answers are there all the same");
        let said = text(&output.stderr);
        assert!(said.contains("job log `/dev/full` cannot be written: No space left"), "{said}");
    }
    // A folder that is not there is found before anything runs.
    let tool = format!("touch {ran}; cat");
    for option in ["--timeline", "--joblog", "--checkpoint"] {
        let output = run(&[option, "/no/such/folder/f", "--", "sh", "-c", &tool], b"one\n");
        ended(&output, 3);
        assert!(text(&output.stderr).contains("/no/such/folder/f"), "{}", text(&output.stderr));
        assert!(!dir.path("ran").exists(), "{option}");
    }
    ended(&run(&["--timeline", "/dev/full", "--", "cat"], &lines(500)), 3);
}

#[test]
fn no_two_options_have_one_file_by_whatever_name() {
    let dir = Dir::new();
    write(&dir, "there", b"");
    fs::hard_link(dir.path("there"), dir.path("hard")).expect("a link");
    std::os::unix::fs::symlink("there", dir.path("soft")).expect("a link");
    std::os::unix::fs::symlink("new", dir.path("dangling")).expect("a link");
    for (first, second) in
        [("new", "new"), ("new", "./new"), ("new", "dangling"), ("there", "hard"), ("soft", "hard")]
    {
        for (one, other) in
            [("joblog", "checkpoint"), ("timeline", "joblog"), ("checkpoint", "timeline")]
        {
            let script =
                format!("cd {} && subfeed --{one} {first} --{other} {second} -- cat", dir.at("."));
            let output = shell(&script, b"one\n");
            ended(&output, 2);
            let said = text(&output.stderr);
            assert!(
                said.contains("is also that of --") && said.contains("each needs its own"),
                "{said}"
            );
            assert!(!dir.path("new").exists() && dir.read("there").is_empty(), "{script}");
        }
    }
    // A standard stream may be that file too. If it is a pipe, nothing is overwritten.
    for (redirection, option, named) in [
        ("< there", "--joblog there", "standard input"),
        ("> there", "--joblog /dev/stdout", "standard output"),
        (">> there", "--timeline soft", "standard output"),
        ("2> there", "--joblog hard", "standard error"),
    ] {
        let script = format!("cd {} && subfeed {option} -- cat {redirection}", dir.at("."));
        let output = shell(&script, b"one\n");
        ended(&output, 2);
        let said = text(&output.stderr) + &dir.read("there");
        assert!(said.contains(&format!("is also that of {named}")), "{script}: {said}");
        write(&dir, "there", b"");
    }
    let output = shell("subfeed --timeline /dev/stderr -- cat", b"one\n");
    ended(&output, 0);
    assert!(text(&output.stderr).starts_with("{\"displayTimeUnit"), "{}", text(&output.stderr));
}

#[cfg(target_os = "linux")]
#[test]
fn a_thread_that_could_not_be_started_is_named_with_the_limit() {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::CommandExt;

    use nix::sys::resource::{Resource, setrlimit};

    // The limit does not hold for root, and counts all that a user runs.
    let root = fs::metadata("/proc/self").expect("a folder").uid() == 0;
    for (most, thread) in [(1, "the thread that writes to standard error"), (2, ""), (3, "")] {
        for args in [&["--", "cat"][..], &["doctor", "--", "cat"]] {
            let mut command = subfeed();
            command.args(args);
            if root {
                command.uid(61_847);
            }
            // SAFETY: it makes a system call, and nothing else.
            unsafe {
                command.pre_exec(move || Ok(setrlimit(Resource::RLIMIT_NPROC, most, most)?));
            }
            let Ok(mut child) = command.spawn() else {
                eprintln!("skipped: another user cannot run this");
                return;
            };
            // It may end before it has read anything.
            let _ = child.stdin.take().expect("a pipe").write_all(b"one\n");
            let output = child.wait_with_output().expect("it ends");
            let said = text(&output.stdout) + &text(&output.stderr);
            assert!(matches!(output.status.code(), Some(1 | 3)), "{}: {said}", output.status);
            assert!(said.contains(thread) && said.contains(" could not be started: "), "{said}");
            assert!(said.contains("limit of processes and threads (ulimit -u)"), "{said}");
        }
    }
}

#[test]
fn a_signal_says_how_much_is_left_and_what_became_of_it() {
    let dir = Dir::new();
    let (go, pids) = (dir.at("go"), dir.path("pids"));
    let script = format!(
        "read -r x; echo $$ >> {}; while ! [ -e {go} ]; do sleep 0.01; done; echo $x; exec cat",
        pids.display()
    );
    let mut child = subfeed().args(["-j1", "--", "sh", "-c", &script]).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"one\ntwo\nthree\n").expect("it reads");
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let pid = Pid::from_raw(child.id() as i32);
    eventually("the worker has the records", || !kit::sessions(&dir).is_empty());
    kill(pid, Signal::SIGINT).expect("a signal");
    let mut said = String::new();
    stderr.read_line(&mut said).expect("a line");
    assert_eq!(
        said,
        "subfeed: SIGINT: nothing more is read, and 3 records are still to be answered; once more ends it at once\n"
    );
    dir.touch("go");
    stderr.read_to_string(&mut said).expect("text");
    assert!(said.ends_with("subfeed: SIGINT: ended with 3 answered and 0 failed\n"), "{said}");
    assert_eq!(wait(&mut child).signal(), Some(Signal::SIGINT as i32));
    drop(stdin);
}

#[test]
fn a_signal_ends_what_has_not_begun_yet() {
    // It waits for its header, or has a tool that waits with it.
    for (tool, input) in [("cat", &b""[..]), ("exec sleep 300", b"head\n")] {
        let dir = Dir::new();
        let pids = dir.path("pids");
        let mut command = subfeed();
        command.args(["--header", "1"]).args(kit::noted(&pids, tool));
        let mut child = command.spawn().expect("it starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input).expect("it reads");
        let caught = |line: &str| line.starts_with("SigCgt") && !line.ends_with("0000000");
        eventually("signals are caught", || {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id()));
            let begun = input.is_empty() || !kit::sessions(&dir).is_empty();
            begun && status.is_ok_and(|status| status.lines().any(caught))
        });
        for _ in 0..2 {
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGINT);
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert_eq!(wait(&mut child).signal(), Some(Signal::SIGINT as i32));
        for pid in kit::sessions(&dir) {
            assert!(kill(Pid::from_raw(pid), None).is_err(), "{pid} is left");
        }
    }
}

#[test]
fn a_signal_ends_a_run_whose_job_log_cannot_be_opened() {
    let dir = Dir::new();
    let log = dir.at("log");
    let made = Command::new("mkfifo").arg(&log).status().expect("mkfifo");
    assert!(made.success(), "{made}");
    let mut child = subfeed().args(["--joblog", &log, "--", "cat"]).spawn().expect("it starts");
    // It may refuse such a file by itself.
    let mut status = None;
    eventually("signals are caught, or it ends", || {
        let caught = |line: &str| line.starts_with("SigCgt") && !line.ends_with("0000000");
        let seen = fs::read_to_string(format!("/proc/{}/status", child.id()));
        status = child.try_wait().expect("a child");
        status.is_some() || seen.is_ok_and(|seen| seen.lines().any(caught))
    });
    let status = status.unwrap_or_else(|| {
        let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGINT);
        wait(&mut child)
    });
    assert!(status.code() == Some(3) || status.signal() == Some(Signal::SIGINT as i32), "{status}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_doctor_who_is_interrupted_leaves_nobody() {
    let dir = Dir::new();
    let pids = dir.path("pids");
    let mut child = subfeed()
        .arg("doctor")
        .args(kit::noted(&pids, "trap '' INT TERM; exec sleep 300"))
        .spawn()
        .expect("it starts");
    child.stdin.take().expect("a pipe").write_all(b"one\n").expect("it reads");
    eventually("somebody was started", || !kit::sessions(&dir).is_empty());
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("a signal");
    assert_eq!(wait(&mut child).signal(), Some(Signal::SIGINT as i32));
    for pid in kit::sessions(&dir) {
        eventually("it ends", || kill(Pid::from_raw(pid), None).is_err());
    }
}

#[test]
fn a_doctor_waits_once_for_a_tool_that_does_not_answer_and_names_no_option_that_it_lacks() {
    let dir = Dir::new();
    let mut command = subfeed();
    command.arg("doctor").args(kit::noted(&dir.path("pids"), "exec sleep 300"));
    let output = fed(&mut command, b"one\ntwo\n");
    ended(&output, 1);
    let said = text(&output.stdout);
    assert!(said.contains("record 1: no answer within 10s; "), "{said}");
    assert!(said.contains("neither answers nor ends"), "{said}");
    assert_eq!(kit::sessions(&dir).len(), 1, "{said}");
    // What goes wrong sooner.
    for (tool, found) in [
        ("exit 7", "record 1: it ended without an answer (exit status: 7)"),
        ("read -r x; [ $x != two ] || exit 7; echo $x", "record 2: "),
        ("read -r x; echo $x; ! read -r x || exit 7", "all records in one process: "),
        ("yes", "too long for an answer"),
    ] {
        let output = run(&["doctor", "--", "sh", "-c", tool], b"one\ntwo\n");
        ended(&output, 1);
        let said = text(&output.stdout);
        assert!(said.contains(found) && !said.contains("in a row"), "{tool}: {said}");
        assert!(!said.contains("--"), "{tool}: {said}");
    }
}

// ----------------------------------------------------------------- talking to tools

#[test]
fn what_the_doctor_proposes_for_a_tool_with_a_status_works() {
    let records = b"axa\nbbb\nxyz\n";
    let output = run(&["doctor", "--", "grep", "x"], records);
    ended(&output, 0);
    let said = text(&output.stdout);
    assert!(said.contains(".accept_status(|status| status <= 1)"), "{said}");
    let proposal = said.lines().rfind(|line| line.contains("subfeed ")).expect("a proposal");
    assert_eq!(proposal.trim(), "subfeed --out eof --accept-status 0,1 -- grep x");
    let output = shell(proposal, records);
    ended(&output, 0);
    assert_eq!(text(&output.stdout), "axa\nxyz\n");
    // Where no status tells anything, none is proposed; and other statuses are failures.
    assert!(!text(&run(&["doctor", "--", "sort"], records).stdout).contains("status"));
    let args =
        ["--out", "eof", "--accept-status", "0,1", "--", "sh", "-c", "read -r x; echo $x; exit $x"];
    let output = run(&args, b"0\n1\n2\n");
    ended(&output, 1);
    assert_eq!(text(&output.stdout), "0\n1\n");
    // Without `--out eof` it says nothing, and the message names the options.
    let output = run(&["--accept-status", "0,1", "--", "cat"], b"one\n");
    ended(&output, 2);
    assert!(text(&output.stderr).contains("use it with --out eof"), "{}", text(&output.stderr));
    ended(&run(&["--out", "eof", "--accept-status", "x", "--", "cat"], b"one\n"), 2);
}

#[test]
fn a_status_that_comes_with_a_complaint_is_not_proposed_as_an_answer() {
    for (command, quoted) in [
        ("iconv -f utf8 -t latin1", "iconv: "),
        ("sh -c 'head -c 3; echo one >&2; echo two >&2; exit 1'", r#""one" [...] "two""#),
        // It answers at once, and fails at one record.
        (
            "sh -c 'while read -r x; do [ ${#x} = 2 ] || { echo broken >&2; exit 1; }; echo $x; done'",
            r#""broken""#,
        ),
    ] {
        let output = shell(&format!("subfeed doctor -- {command}"), b"caf\xe9\nok\n");
        ended(&output, 0);
        let said = text(&output.stdout);
        assert!(said.contains("records it ends with status 1 and writes on stderr"), "{said}");
        assert!(said.contains(quoted) && said.contains("no --accept-status is proposed"), "{said}");
        assert!(
            !said.contains("--accept-status 0,1") && !said.contains(".accept_status"),
            "{said}"
        );
    }
    // A status of success may come with whatever is written on stderr.
    let output = shell("subfeed doctor -- sh -c 'echo note >&2; exec cat'", b"one\ntwo\n");
    ended(&output, 0);
    assert!(!text(&output.stdout).contains("status"), "{}", text(&output.stdout));
}

#[test]
fn what_is_said_at_the_end_is_typed_as_it_is_read() {
    for (says, typed) in
        [("echo bye", "bye"), ("echo a; echo b", r"a\nb"), ("printf '> '", r"> \c")]
    {
        let tool = format!("cat; {says}");
        let output = run(&["-j2", "--skip-at-end", typed, "--", "sh", "-c", &tool], &lines(100));
        ended(&output, 0);
        assert!(output.stdout == lines(100), "{typed}");
        // Without it the message gives the option to be added, as a shell takes it.
        let output = run(&["-j1", "--", "sh", "-c", &tool], b"one\ntwo\n");
        if says.starts_with("echo bye") {
            ended(&output, 3);
            let said = text(&output.stderr);
            assert!(said.contains("declare it: --skip-at-end bye; "), "{said}");
        }
    }
}

#[test]
fn a_header_may_be_all_there_is_and_may_lack_its_end() {
    let tool = "while read -r x; do echo \"<$x>\"; done";
    for (lines, input, expected) in [
        ("1", &b""[..], ""),
        ("3", b"", ""),
        ("1", b"a,b", "<a,b>\n"),
        ("1", b"a,b\n", "<a,b>\n"),
        ("3", b"a\nb\n", "<a>\n<b>\n"),
        ("2", b"a\nb\nc", "<a>\n<b>\n<c>\n"),
        ("1", b"\n\n", "<>\n<>\n"),
    ] {
        let output = run(&["-j2", "--header", lines, "--", "sh", "-c", tool], input);
        ended(&output, 0);
        assert_eq!(text(&output.stdout), expected, "{lines} {:?}", text(input));
        assert_eq!(text(&output.stderr), "");
    }
    // What the tool says at its end is none of it, and must be said.
    let tool = "while read -r x; do echo \"<$x>\"; done; echo bye";
    let output = run(&["-j1", "--header", "1", "--", "sh", "-c", tool], b"a\nb\n");
    ended(&output, 3);
    assert!(text(&output.stderr).contains("say --skip-at-end bye"), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    let summing = "read -r h; while read -r x; do echo \"<$x>\"; done; echo bye";
    ended(&run(&["--header", "1", "--", "sh", "-c", summing], b"a\nb\n"), 3);
    // What it says at its start comes in each worker, and is written once.
    let greets = "echo hello; while read -r x; do echo \"<$x>\"; done";
    let output = run(&["-j2", "--header", "1", "--", "sh", "-c", greets], b"a\nb\nc\n");
    ended(&output, 0);
    assert_eq!(text(&output.stdout), "hello\n<a>\n<b>\n<c>\n");
    // One that does not take an empty input.
    let picky = "read -r h || { echo 'no input' >&2; exit 9; }; echo \"<$h>\"; exec cat";
    let output = run(&["-j2", "--header", "1", "--", "sh", "-c", picky], b"a\nb\n");
    ended(&output, 0);
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("<a>\nb\n".into(), String::new()));
    let output = run(&["--header", "1", "--skip-at-end", "bye", "--", "sh", "-c", tool], b"a\nb\n");
    ended(&output, 0);
    assert_eq!(text(&output.stdout), "<a>\n<b>\n");
}

/// Names of the library that no user of the command has heard of.
const FOREIGN: [&str; 17] = [
    "packet",
    "Template",
    "Framing",
    "Launcher",
    "_timeout",
    "_limit",
    "until_eof",
    "line_buffered",
    "skip_at",
    "skip_lines",
    "buffer_size",
    "max_bytes",
    "accept_status",
    "Order::",
    "on_stall",
    "finish",
    "None",
];

#[test]
fn no_message_names_a_setting_of_the_library() {
    let dir = Dir::new();
    let done = dir.at("done");
    ended(&run(&["--checkpoint", &done, "--", "cat"], b"one\n"), 0);
    let sleep = "read -r x; exec sleep 300";
    // Its banner comes when it has been asked, so it is taken for the answer, and the answer is one too many.
    const LATE: &str =
        "read -r x; echo hello; rest=$(cat); echo \"$x\"; [ -z \"$rest\" ] || echo \"$rest\"";
    for (args, said) in [
        (&["--timeout", "100ms", "--attempts", "1", "--", "sh", "-c", sleep][..], "--timeout"),
        (
            &["--start-timeout", "50ms", "--timeout", "50ms", "--", "sh", "-c", sleep],
            "--start-timeout + --timeout",
        ),
        (&["--start-timeout", "100ms", "--", "sh", "-c", sleep], "(--start-timeout)"),
        (&["--", "sh", "-c", "cat; echo bye"], "--skip-at-end bye"),
        (&["--", "sh", "-c", "echo hello; cat"], "--skip-lines"),
        (&["-j3", "--", "sh", "-c", LATE], "--skip-lines"),
        (&["--", "sh", "-c", "read -r x; exit 7"], "exit status: 7"),
        (&["--", "sh", "-c", "cat > /dev/null"], "--out eof"),
        (&["--", "sh", "-c", "head -n 1; cat > /dev/null"], "--out sentinel:CMD"),
        (&["--timeout", "0", "--", "cat"], "leave it out"),
        (&["-j", "0", "--", "cat"], "--jobs is 0"),
        (&["--window", "0", "--", "cat"], "--window is 0"),
        (&["--out", "size:9000", "--answer-limit", "1K", "--", "cat"], "--answer-limit"),
        (&["--out", "lines:0", "--", "cat"], "--out sentinel:CMD"),
        (&["--out", "last:a\nb", "--", "cat"], "has a line feed in it"),
        (&["--record-limit", "1", "--", "cat"], "--record-limit"),
        (&["--answer-limit", "2", "--", "cat"], "--answer-limit"),
        (&["--out", "len32", "--answer-limit", "2K", "--", "cat"], "--answer-limit"),
        (&["--in", "nul", "--out", "line", "--", "cat"], ""),
        (&["--out", "eof", "--skip-at-end", "x", "--", "cat"], "--skip-at-end"),
        (&["--out", "sentinel:echo {mark}", "--skip-at-end", "x", "--", "sh"], "--skip-at-end"),
        (&["--accept-status", "1", "--", "cat"], "--accept-status"),
        (&["--checkpoint", &done, "--", "tac"], "another command"),
        (&["--halt", "now", "--attempts", "1", "--", "sh", "-c", "read -r x; exit 7"], ""),
        (&["--halt", "soon", "--record-limit", "3", "--", "cat"], ""),
        (&["--", "no-such-tool at-all"], "`sh -c`"),
        (&["--", "~/no-such-tool"], "`sh -c`"),
        (&["--header", "1", "--", "sh", "-c", "exit 3"], "does not take the header"),
        (&["-S", "2/:", "--pty", "-j1", "--", "no-such-tool"], ""),
        (&["--out", "netstring", "--", "sh", "-c", "read -r x; echo nonsense"], ""),
    ] {
        let output = run(args, b"alpha\nbeta\ngamma\n");
        let (code, text) = (output.status.code(), text(&output.stderr));
        assert!(matches!(code, Some(1..=3)), "{args:?}: {code:?} {text}");
        assert!(
            text.contains(said) && text.starts_with("subfeed: "),
            "{args:?}: {said:?} in {text}"
        );
        for name in FOREIGN {
            assert!(!text.contains(name), "{args:?}: {name:?} in {text}");
        }
    }
}

#[test]
fn a_hint_names_the_option_that_bounds_the_wait() {
    let mut child = subfeed()
        .args(["-j1", "--", "sh", "-c", "read -r x; exec sleep 300"])
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"one\ntwo\n").expect("it reads");
    let mut said = String::new();
    BufReader::new(child.stderr.as_mut().expect("a pipe")).read_line(&mut said).expect("a line");
    assert!(said.starts_with("subfeed: hint: worker 0 of "), "{said}");
    assert!(said.contains(" owes ") && said.contains("--timeout would bound"), "{said}");
    assert!(FOREIGN.iter().all(|name| !said.contains(name)), "{said}");
    for _ in 0..2 {
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("a signal");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    wait(&mut child);
}

// ----------------------------------------------------------------- inputs

#[test]
fn records_of_one_byte_to_ten_mebibytes_in_one_input() {
    let mut input = Vec::new();
    for k in 0..400_usize {
        // Mostly short, some long, one huge; with everything in them that may stand in a line.
        let size = match k {
            200 => 10 << 20,
            _ if k % 50 == 7 => 1 << 18,
            _ if k % 3 == 1 => 0,
            _ => k % 97,
        };
        input.extend((0..size).map(|i| match (i * 31 + k) % 256 {
            10 => b'\r',
            byte => byte as u8,
        }));
        input.push(b'\n');
    }
    for args in [&["-j2", "--", "cat"][..], &["-j3", "--window", "5", "--", "cat"]] {
        let output = run(args, &input);
        ended(&output, 0);
        assert!(output.stdout == input, "{args:?}");
        assert_eq!(text(&output.stderr), "");
    }
    // Without the last line feed, of which a tool makes one; and as one record.
    let output = run(&["-j2", "--", "cat"], &input[..input.len() - 1]);
    assert!(output.stdout == input);
    let output = run(&["-0", "-j2", "--", "cat"], &[&[b'x'; 10 << 20][..], b"\0"].concat());
    ended(&output, 0);
    assert_eq!(output.stdout.len(), (10 << 20) + 1);
    // Each in a process of its own.
    let sizes = run(&["--out", "eof", "--", "wc", "-c"], b"a\n\nbcd\0e\r\n");
    assert_eq!(text(&sizes.stdout), "2\n1\n7\n");
}

#[test]
fn an_input_that_fails_in_the_middle_is_an_error_behind_what_was_read() {
    // A folder cannot be read at all.
    let folder = File::open("/").expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_subfeed"))
        .args(["--", "cat"])
        .stdin(folder)
        .output()
        .expect("it ends");
    ended(&output, 3);
    assert!(text(&output.stderr).contains("Is a directory"), "{}", text(&output.stderr));
    // A terminal's other end goes.
    let pty = nix::pty::openpty(None, None).expect("a terminal");
    let set = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
    nix::fcntl::fcntl(&pty.master, set).expect("a flag");
    let mut child =
        subfeed().args(["-j1", "--", "cat"]).stdin(pty.slave).spawn().expect("it starts");
    let mut master = File::from(pty.master);
    master.write_all(b"one\ntwo\n").expect("it reads");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut answers = String::new();
    stdout.read_line(&mut answers).expect("a line");
    stdout.read_line(&mut answers).expect("a line");
    drop(master);
    stdout.read_to_string(&mut answers).expect("text");
    assert_eq!(answers, "one\ntwo\n");
    let output = child.wait_with_output().expect("it ends");
    // Linux says EIO, others that the input ends.
    if cfg!(target_os = "linux") {
        ended(&output, 3);
        assert!(text(&output.stderr).contains("Input/output error"), "{}", text(&output.stderr));
    }
}

#[test]
fn streams_that_somebody_has_made_non_blocking_are_waited_for() {
    let script = "import fcntl, os, subprocess, sys, time\n\
                  for fd in (0, 1, 2):\n    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)\n\
                  sys.exit(subprocess.call(sys.argv[1:]))";
    let found = Command::new("python3").arg("--version").stdout(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("SUBFEED_ALL_TOOLS").is_none(), "python3 is on the list of tools");
        eprintln!("skipped: python3 is missing");
        return;
    }
    let mut command = Command::new("python3");
    command.args(["-c", script, env!("CARGO_BIN_EXE_subfeed"), "-j2", "--", "cat"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // It asks for more before there is any, and has more to say than a pipe holds.
    let output = fed(&mut command, &lines(200_000));
    ended(&output, 0);
    assert!(output.stdout == lines(200_000), "{}", output.stdout.len());
}

#[test]
fn a_file_of_an_option_is_a_file_of_that_option() {
    let dir = Dir::new();
    let file = write(&dir, "precious", b"my only copy\n");
    let output = run(&["--checkpoint", &file, "--", "cat"], b"one\n");
    ended(&output, 3);
    assert!(text(&output.stderr).contains("is no checkpoint"), "{}", text(&output.stderr));
    assert_eq!(dir.read("precious"), "my only copy\n");
    assert_eq!(text(&output.stdout), "");
}
