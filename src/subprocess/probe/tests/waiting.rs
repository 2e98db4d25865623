//! Workers that wait for us, however they are made up.

use super::*;

#[test]
fn a_reader_waits_alone_under_a_shell_and_at_the_end_of_a_pipeline() {
    Worker::run("cat", &[]).waits();
    Worker::sh("cat").waits();
    Worker::sh("cat; true").waits();
    Worker::sh("tr a b | cat").waits();
    Worker::sh("tr a b | sed s/b/c/ | (cat; true) | cat").waits();
    Worker::sh("while read x; do y=$(echo $x | cat); echo $y; done").waits();
}

#[test]
fn a_filter_that_holds_its_replies_back_waits_once_it_has_read_all() {
    for command in [
        &["tr", "a", "b"][..],
        &["sed", "s/a/b/"],
        &["grep", "a"],
        &["mawk", "{print $1}"],
        &["python3", "-c", "import sys\nfor l in sys.stdin: print(l.strip())"],
        &["sh", "-c", "mawk '{print $1}' | tr a b"],
    ] {
        let mut worker = Worker::run(command[0], &command[1..]);
        worker.give(&"a\n".repeat(100));
        worker.waits();
        assert!(!unread_replies(&worker), "{command:?} answers at once");
    }
}

#[test]
fn a_splice_from_the_channel_is_a_read() {
    let mut worker = Worker::python("import os\nwhile os.splice(0, 1, 65536): pass");
    worker.waits();
    worker.give("a\n");
    worker.waits();
    assert!(unread_replies(&worker));
}

#[test]
fn a_thread_that_waits_for_another_without_a_limit_waits_for_us() {
    Worker::python(
        "import threading, sys\n\
         threading.Thread(target=sys.stdin.read, daemon=True).start()\n\
         threading.Event().wait()",
    )
    .waits();
}

#[test]
fn any_of_several_channels_may_be_the_one_that_is_read() {
    let worker = Worker::run("cat", &[]);
    let (_side_reader, side) = std::io::pipe().unwrap();
    let inputs = [(side.as_fd(), ChannelId::of(side.as_fd()).unwrap()), worker.inputs()[0]];
    worker.waits();
    assert_eq!(look(worker.pgid, &inputs).alone(), Evidence::Waiting);
    // It waits on this one, whatever lies in that one.
    (&side).write_all(b"not read").unwrap();
    assert_eq!(look(worker.pgid, &inputs).alone(), Evidence::Waiting);
    // Where there is nothing but the unread one, it does not wait for us.
    let unread = look(worker.pgid, &inputs[..1]);
    assert!(unread.has_all_unread());
    // Nor does it, as what it reads is no channel of ours there.
    assert_eq!(unread.alone(), Evidence::Outside(Outside::Pipe));
}

#[test]
fn an_orphan_in_the_group_counts() {
    Worker::sh("(cat <&3 &) 3<&0; exec cat").waits();
    // Here only the orphan reads; the leader waits for nothing.
    Worker::python(
        "import os, threading\n\
         if os.fork() == 0:\n if os.fork() == 0: os.execvp('cat', ['cat'])\n os._exit(0)\n\
         os.wait()\nthreading.Event().wait()",
    )
    .waits();
}
