//! Each kind of evidence, of real programs. A program that is missing is skipped, and that is said.

use super::tools::here;
use super::*;

fn fed(command: &[&str]) -> Worker {
    let mut worker = Worker::run(command[0], &command[1..]);
    worker.give("{\"a\":\"request\"}\n");
    worker
}

#[test]
fn a_plain_filter_waits() {
    fed(&["cat"]).settles(Evidence::Waiting);
    if here(&["perl"]) {
        fed(&["perl", "-ne", "print uc"]).settles(Evidence::Waiting);
    }
    if here(&["ruby"]) {
        fed(&["ruby", "-ne", "puts $_.upcase"]).settles(Evidence::Waiting);
    }
    // One that traces itself is in nobody else's hands.
    if here(&["strace"]) {
        fed(&["strace", "-o", "/dev/null", "-f", "tr", "a-z", "A-Z"]).settles(Evidence::Waiting);
    }
}

#[test]
fn a_filter_with_a_sleeper_beside_it_is_asleep() {
    fed(&["timeout", "1000", "tr", "a-z", "A-Z"]).settles(Evidence::Asleep);
    fed(&["sh", "-c", "sleep 1000 & tr a-z A-Z; kill $!"]).settles(Evidence::Asleep);
    if here(&["perl"]) {
        // A hundred wake-ups a second are little work.
        let naps = "perl -e 'select undef, undef, undef, 0.01 while 1' & tr a-z A-Z <&3";
        fed(&["sh", "-c", &format!("exec 3<&0; {naps}; true")]).settles(Evidence::Asleep);
    }
    for sleep in [
        "time.sleep(1e6)",
        "threading.Event().wait(1e6)",
        "signal.sigwait([signal.SIGUSR1])", // without a limit, as octave's helper thread
        "select.select([], [], [], 1e6)",
        "ctypes.CDLL(None).pause()",
    ] {
        let script = format!(
            "import ctypes, select, signal, sys, threading, time\n\
             threading.Thread(target=lambda: {sleep}, daemon=True).start()\n\
             for line in sys.stdin: print(line.upper())"
        );
        fed(&["python3", "-c", &script]).settles(Evidence::Asleep);
    }
}

#[test]
fn a_go_program_is_asleep() {
    if here(&["mlr"]) {
        fed(&["mlr", "--ijsonl", "--ojsonl", "cat"]).settles(Evidence::Asleep);
    }
}

#[test]
fn a_jvm_is_asleep() {
    if !here(&["java", "javac"]) {
        return;
    }
    let directory = std::env::temp_dir().join(format!("subfeed-jvm-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let source = directory.join("Filter.java");
    let filter = "import java.io.*;\n\
        public class Filter { public static void main(String[] a) throws IOException {\n\
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));\n\
        PrintWriter out = new PrintWriter(new BufferedWriter(new OutputStreamWriter(System.out)));\n\
        for (String line; (line = in.readLine()) != null;) out.println(line.toUpperCase());\n\
        out.flush(); } }";
    std::fs::write(&source, filter).unwrap();
    fed(&["java", source.to_str().unwrap()]).settles(Evidence::Asleep);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn an_event_loop_is_one_whatever_sleeps_beside_it() {
    if here(&["node"]) {
        let echo = "process.stdin.on('data', data => process.stdout.write(data))";
        fed(&["node", "-e", echo]).settles(Evidence::EventLoop);
    }
    let poll = "import select; select.select([0], [], []); input(); select.select([0], [], [])";
    fed(&["timeout", "1000", "python3", "-c", poll]).settles(Evidence::EventLoop);
}

#[test]
fn who_computes_is_at_work() {
    fed(&["sh", "-c", "while :; do :; done"]).settles(COMPUTES);
    fed(&["timeout", "1000", "sh", "-c", "while :; do :; done"]).settles(COMPUTES);
}

/// Half of a processor, in pieces so short that many a look finds it asleep.
#[test]
fn who_computes_now_and_then_is_never_asleep() {
    let worker = Worker::python(
        "import threading, sys, time\n\
         threading.Thread(target=sys.stdin.read, daemon=True).start()\n\
         while True:\n \
           until = time.thread_time() + 0.005\n \
           while time.thread_time() < until: pass\n \
           time.sleep(0.005)",
    );
    let (start, mut looks) = (Instant::now(), Looks::default());
    let (mut at_rest, mut shown) = (0, 0);
    while at_rest < 50 || shown < 5 {
        let look = worker.look();
        let alone = look.alone();
        let evidence = looks.judge(look, APART);
        assert_ne!(evidence, Evidence::Asleep, "after {at_rest} looks that found it at rest");
        assert_ne!(evidence, Evidence::Waiting);
        at_rest += u32::from(alone == Evidence::Asleep);
        shown += u32::from(alone == Evidence::Asleep && evidence == COMPUTES);
        assert!(start.elapsed() < PATIENCE, "{at_rest} at rest, {shown} shown");
        sleep(PAUSE);
    }
}

#[test]
fn who_starts_processes_all_the_time_is_never_asleep() {
    let worker = Worker::sh("exec 3<&0; cat <&3 & while :; do sleep 0.01; done");
    let (start, mut looks) = (Instant::now(), Looks::default());
    let mut at_rest = 0;
    while at_rest < 50 {
        let look = worker.look();
        at_rest += u32::from(look.alone() == Evidence::Asleep);
        assert_ne!(looks.judge(look, APART), Evidence::Asleep);
        assert!(start.elapsed() < PATIENCE, "{at_rest} at rest");
        sleep(PAUSE);
    }
}

#[test]
fn what_does_not_come_from_us_is_outside() {
    let python = |script: &str| fed(&["python3", "-c", script]);
    python("import socket; a, b = socket.socketpair(); a.recv(1)")
        .settles(Evidence::Outside(Outside::Socket));
    python("import os, socket; a, b = socket.socketpair(); os.read(a.fileno(), 1)")
        .settles(Evidence::Outside(Outside::Socket));
    python("import socket; s = socket.create_server(('127.0.0.1', 0)); s.accept()")
        .settles(Evidence::Outside(Outside::Socket));
    let lock = "import fcntl, tempfile\n\
        a = tempfile.NamedTemporaryFile(); b = open(a.name, 'w')\n\
        fcntl.flock(a, fcntl.LOCK_EX)";
    python(&format!("{lock}; fcntl.flock(b, fcntl.LOCK_EX)"))
        .settles(Evidence::Outside(Outside::Lock));
    let record = "import fcntl, os, tempfile\n\
        a = tempfile.NamedTemporaryFile(); fcntl.lockf(a, fcntl.LOCK_EX)\n\
        if os.fork() == 0: fcntl.lockf(open(a.name, 'w'), fcntl.LOCK_EX)\n\
        os.wait()";
    python(record).settles(Evidence::Outside(Outside::Lock));
    python("import os; os.eventfd_read(os.eventfd(0))")
        .settles(Evidence::Outside(Outside::UnknownCall));
    let fifo = std::env::temp_dir().join(format!("subfeed-fifo-{}", std::process::id()));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fed(&["cat", fifo.to_str().unwrap()]).settles(Evidence::Outside(Outside::File));
    std::fs::remove_file(&fifo).unwrap();
}

#[test]
fn who_never_reads_is_deaf() {
    fed(&["sleep", "1000"]).settles(DEAF_SLEEPER);
    fed(&["python3", "-c", "import threading; threading.Event().wait()"]).settles(DEAF);
}

#[test]
fn a_closed_stdin_is_told_from_one_that_nobody_reads() {
    let mut worker = Worker::sh("cat > /dev/null; exec sleep 1000");
    worker.stdin = None;
    worker.settles(Evidence::Deaf { open: false, timed: true });
}
