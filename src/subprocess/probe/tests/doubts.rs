//! Workers that do not wait for us, or not certainly.

use super::*;

#[test]
fn unread_bytes_are_no_stall() {
    let mut worker = Worker::run("sleep", &["1000"]);
    worker.never_waits(DEAF_SLEEPER);
    assert!(!worker.look().has_all_unread());
    worker.give("a\n");
    worker.never_waits(DEAF_SLEEPER);
    assert!(worker.look().has_all_unread());
}

#[test]
fn a_sleeper_is_not_waiting_even_if_a_reader_follows_or_stands_beside_it() {
    Worker::sh("sleep 1000; cat").never_waits(DEAF_SLEEPER);
    Worker::sh("sleep 1000 & cat <&0; true").never_waits(Evidence::Unsettled);
    Worker::python(
        "import threading, sys, time\n\
         threading.Thread(target=sys.stdin.read, daemon=True).start()\n\
         time.sleep(1000)",
    )
    .never_waits(Evidence::Unsettled);
}

#[test]
fn a_wait_with_a_limit_is_a_sleep() {
    Worker::python(
        "import threading, sys\n\
         threading.Thread(target=sys.stdin.read, daemon=True).start()\n\
         threading.Event().wait(1000)",
    )
    .never_waits(Evidence::Unsettled);
}

#[test]
fn a_daemon_thread_in_a_read_is_no_proof_while_another_computes() {
    Worker::python(
        "import threading, sys\n\
         threading.Thread(target=sys.stdin.read, daemon=True).start()\n\
         while True: pass",
    )
    .never_waits(COMPUTES);
}

#[test]
fn an_orphan_that_computes_beside_a_reader_is_found() {
    Worker::sh("(while :; do :; done &); exec cat").never_waits(COMPUTES);
}

#[test]
fn a_job_in_a_group_of_its_own_is_found() {
    // The job ends with the shell; the signal to the group does not reach it.
    let job = "while kill -0 $1 2>/dev/null; do :; done";
    let script = format!("set -m; sh -c '{job}' job $$ & cat <&0; true");
    Worker::run("bash", &["-c", &script]).never_waits(COMPUTES);
}

#[test]
fn event_loops_are_recognised() {
    for wait in [
        "select.select([0], [], [])",
        "select.select([0], [], [], 1000)",
        "p = select.poll(); p.register(0, select.POLLIN); p.poll()",
        "p = select.epoll(); p.register(0, select.EPOLLIN); p.poll()",
    ] {
        Worker::python(&format!("import select\n{wait}")).never_waits(Evidence::EventLoop);
    }
}

#[test]
fn a_writer_is_not_waiting_for_input() {
    Worker::run("yes", &[]).never_waits(Evidence::Outside(Outside::Writing));
    Worker::sh("cat & yes").never_waits(Evidence::Outside(Outside::Writing));
}

#[test]
fn a_read_that_a_stranger_could_answer_is_no_wait_for_us() {
    // Descriptor 2 is a pipe that we could write to.
    let (reader, _writer) = std::io::pipe().unwrap();
    Worker::start(Command::new("sh").args(["-c", "cat <&2 & cat <&0; true"]).stderr(reader))
        .never_waits(Evidence::Outside(Outside::Pipe));
    // The same with a writer in the family, beside us.
    let (reader, _writer) = std::io::pipe().unwrap();
    Worker::start(
        Command::new("sh").args(["-c", "exec 3>/dev/fd/2; cat <&2 & cat <&0; true"]).stderr(reader),
    )
    .never_waits(Evidence::Outside(Outside::Pipe));
    let fifo =
        "d=$(mktemp -d) && mkfifo $d/f && exec 3<>$d/f && rm -r $d && { cat <&3 & cat <&0; }";
    Worker::sh(fifo).never_waits(Evidence::Outside(Outside::Pipe));
    Worker::python(
        "import socket, threading, sys\n\
         threading.Thread(target=sys.stdin.read, daemon=True).start()\n\
         a, b = socket.socketpair()\na.recv(1)",
    )
    .never_waits(Evidence::Outside(Outside::Socket));
}

/// Whichever thread is looked at, it is in its read: only the counters tell that it has moved.
#[test]
fn a_token_that_runs_round_inside_the_family_is_noticed() {
    let worker = Worker::python(
        "import os\n\
         ring = [os.pipe() for _ in range(4)]\n\
         def stage(i):\n \
           while True: x = os.read(ring[i][0], 1); sum(range(3000)); os.write(ring[i - 3][1], x)\n\
         for i in range(4):\n \
           if os.fork() == 0: stage(i)\n\
         os.write(ring[0][1], b'x')\n\
         os.execvp('cat', ['cat'])",
    );
    let (start, mut changes) = (Instant::now(), 0);
    while changes < 40 {
        let evidence = worker.evidence();
        assert_ne!(evidence, Evidence::Waiting, "after {changes} changes");
        changes += u32::from(evidence == Evidence::Working(Work::Changing));
        assert!(start.elapsed() < PATIENCE, "{changes} changes");
    }
}

#[test]
fn a_stopped_worker_is_not_waiting_until_it_is_continued() {
    let worker = Worker::sh("cat; true");
    worker.waits();
    worker.signal(Signal::SIGSTOP);
    worker.never_waits(Evidence::Stopped(Stop::Signal(Signal::SIGSTOP as i32)));
    worker.signal(Signal::SIGCONT);
    worker.waits();
}

#[test]
fn a_reader_that_has_left_the_group_is_none() {
    Worker::sh("setsid cat; true").never_waits(Evidence::Opaque(Obstacle::ReaderLeft));
}

#[test]
fn a_group_without_a_reader_has_none() {
    Worker::python("import threading\nthreading.Event().wait()").never_waits(DEAF);
}

#[test]
fn a_dead_leader_is_a_change() {
    Worker::run("true", &[]).comes_to(Evidence::Working(Work::Changing));
    Worker::sh("cat <&0 & exit").comes_to(Evidence::Working(Work::Changing));
}

#[test]
fn a_process_that_hides_from_us_is_unreadable() {
    if nix::unistd::geteuid().is_root() {
        return; // nothing hides from root
    }
    let hide = "import ctypes, sys\nctypes.CDLL(None).prctl(4, 0)\nsys.stdin.read()";
    Worker::python(hide).never_waits(Evidence::Opaque(Obstacle::Hidden));
}
