//! Streams that lead elsewhere, directories, and what a child inherits.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsRawFd;

use subfeed::channel::Redirect;
use subfeed::{ErrorKind, FeedExt, Order, Template};

use crate::alone;
use crate::common::{Belongings, Dir, eventually, numbers, texts, within};

#[test]
fn stderr_may_go_to_a_file_of_the_workers_own() {
    within(|| {
        let dir = Dir::new();
        let template =
            Template::shell("while read -r x; do echo \"$x\"; echo \"saw $x\" >&2; done")
                .stderr(Redirect::file(dir.path("{id}.err")));
        let feed = numbers(200).feed_subprocesses_ordered(template, 2, 20);
        assert_eq!(texts(feed), numbers(200).collect::<Vec<_>>());
        let said = dir.read("0.err") + &dir.read("1.err");
        let lines: BTreeSet<&str> = said.lines().collect();
        assert_eq!((lines.len(), said.lines().count()), (200, 200));
    });
}

#[test]
fn streams_lead_where_they_are_told() {
    within(|| {
        let links = || Template::shell("read -r x; readlink /proc/self/fd/2; cat");
        let seen = |template: Template| texts(["x"].into_iter().feed_subprocesses(template, 1, 1));
        assert_eq!(seen(links().stderr(Redirect::Null)), ["/dev/null"]);
        let ours = fs::read_link("/proc/self/fd/2").unwrap();
        assert_eq!(seen(links().stderr(Redirect::Inherit)), [ours.to_str().unwrap()]);
        assert!(seen(links())[0].starts_with("pipe:"));
    });
}

#[test]
fn sides_may_be_files_with_the_workers_number() {
    within(|| {
        let dir = Dir::new();
        for id in 0..2 {
            fs::write(dir.path(&format!("{id}.words")), format!("word of {id}\n")).unwrap();
        }
        let script = "read -r word <{fd:words}; exec 3>{fd:log}; while read -r x; do echo \"$word\"; echo \"$x\" >&3; done";
        let template = Template::shell(script)
            .side_input_file("words", dir.path("{id}.words"))
            .side_output_file("log", dir.path("{id}.log"))
            .decode(|reply| {
                assert_eq!(reply.to_str(), Ok(&*format!("word of {}", reply.worker())))
            });
        let feed = numbers(300).feed_subprocesses(template, 2, 30);
        assert_eq!(feed.map(Result::unwrap).count(), 300);
        let logs = dir.read("0.log") + &dir.read("1.log");
        let mut lines: Vec<u64> = logs.lines().map(|line| line.parse().unwrap()).collect();
        lines.sort_unstable();
        assert_eq!(lines, (0..300).collect::<Vec<_>>());
    });
}

#[test]
fn a_tool_may_read_its_stdin_from_a_file() {
    within(|| {
        let dir = Dir::new();
        fs::write(dir.path("in"), "salt\n").unwrap();
        let template =
            Template::shell("read -r salt; while read -r x; do echo \"$salt $x\"; done <{fd:side}")
                .stdin(Redirect::file(dir.path("in")))
                .side_input("side")
                .recycle_after_records(7)
                .encode(|item: &String, request| {
                    request.side("side").push(item);
                });
        let replies = texts(numbers(50).feed_subprocesses_ordered(template, 2, 20));
        assert_eq!(replies, numbers(50).map(|k| format!("salt {k}")).collect::<Vec<_>>());
    });
}

#[test]
fn each_worker_may_have_a_directory_of_its_own() {
    within(|| {
        let dir = Dir::new();
        for id in 0..3 {
            fs::create_dir(dir.path(&format!("home{id}"))).unwrap();
        }
        let template = Template::shell("while read -r x; do pwd -P; done")
            .current_dir(dir.path("home{id}"))
            .decode(|reply| {
                let home = format!("/home{}", reply.worker());
                assert!(reply.ends_with(home.as_bytes()), "{reply:?}");
            });
        assert_eq!(numbers(60).feed_subprocesses(template, 3, 10).map(Result::unwrap).count(), 60);
    });
}

/// The descriptors that a child has, one reply for each request.
const LISTING: &str = "while read -r x; do ls -m -w 0 /proc/$$/fd; done";

/// Those that it has from us. What we have inherited ourselves and std passes on is not ours to judge:
/// whoever runs the tests may have left something open.
fn listed(reply: &str, foreign: &BTreeSet<i32>) -> BTreeSet<i32> {
    let all = reply.split(", ").map(|fd| fd.parse().unwrap());
    all.filter(|fd| !foreign.contains(fd)).collect()
}

fn foreign() -> BTreeSet<i32> {
    let inherited = |fd: &i32| {
        use nix::fcntl::{FcntlArg, FdFlag, fcntl};
        // SAFETY: only looked at.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(*fd) };
        let flags = fcntl(fd, FcntlArg::F_GETFD);
        flags.is_ok_and(|flags| !FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC))
    };
    Belongings::now()
        .fds
        .into_iter()
        .map(|(fd, _)| fd)
        .filter(|fd| *fd > 2)
        .filter(inherited)
        .collect()
}

#[test]
fn a_child_inherits_its_three_streams_and_its_own_side_channels_only() {
    alone!(|| {
        let (foreign, dir) = (foreign(), Dir::new());
        // Another feed, and 32 siblings in this one, every one of which runs before any of them looks: it
        // waits for the other end of a named pipe.
        let other = numbers(u64::MAX >> 1).feed_subprocesses(Template::new("cat"), 4, 10);
        let go = dir.path("go");
        nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let template = |script: &str| {
            Template::shell(script)
                .side_input("first")
                .side_output_file("second", "/dev/null")
                .side_input_file("third", "/dev/null")
                .env("GO", &go)
                .try_decode(|reply| {
                    let text = String::from_utf8(reply.bytes().to_vec())?;
                    Ok((reply.worker(), text))
                })
        };
        let own_only = |reply: &str| {
            let fds = listed(reply, &foreign);
            let sides = fds.iter().filter(|fd| **fd >= 10).count();
            assert!(fds.is_superset(&BTreeSet::from([0, 1, 2])), "{reply}");
            assert_eq!((fds.len(), sides), (6, 3), "{reply}");
        };
        let n = 32;
        let after_all_have_started = format!("read -r x <\"$GO\"; {LISTING}");
        let feed = numbers(200).feed(template(&after_all_have_started)).workers(n).buffer(n);
        let feed = feed.order(Order::Completion).start();
        let monitor = feed.monitor();
        eventually("all are running", || monitor.snapshot().starts == n as u64);
        // Each reads the end of it as soon as it has been opened, and whoever comes late opens it again.
        let opener = std::thread::spawn({
            let go = go.clone();
            move || while fs::OpenOptions::new().write(true).open(&go).is_ok() {}
        });
        for (_, reply) in feed.map(Result::unwrap) {
            own_only(&reply);
        }
        assert_eq!(monitor.snapshot().starts, n as u64, "one session each");
        fs::remove_file(&go).unwrap();
        // Sessions that take the place of others inherit nothing else either.
        let feed = template(LISTING).recycle_after_records(1);
        let feed = numbers(60).feed(feed).workers(4).order(Order::Completion).start();
        let mut workers = BTreeSet::new();
        for (worker, reply) in feed.map(Result::unwrap) {
            workers.insert(worker);
            own_only(&reply);
        }
        assert!(workers.len() > 1);
        drop((other, opener));
    });
}

#[test]
fn a_child_finds_its_ends_blocking() {
    within(|| {
        // The flag is one of the open file, and whoever shares that shares the flag: ours is set, theirs
        // is not. A shell that finds its stdin without data in it would take it for ended.
        let script = "exec 3>{fd:out}; while read -r x; do for fd in 0 1 2 $side $out; do \
             grep flags: /proc/$$/fdinfo/$fd | tr -dc 0-9; printf ' '; done; echo; echo >&3; done";
        for pty in [false, true] {
            let template = Template::shell(script)
                .side_input("side")
                .side_output("out", subfeed::framing::ReplyFraming::line());
            let template = if pty {
                template.line_buffered(subfeed::channel::LineBuffered::Pty)
            } else {
                template
            };
            for reply in texts(numbers(4).feed_subprocesses_ordered(template, 2, 4)) {
                let flags: Vec<_> = reply.split_whitespace().collect();
                assert_eq!(flags.len(), 5, "{reply}");
                for octal in flags {
                    let flags =
                        nix::fcntl::OFlag::from_bits_retain(i32::from_str_radix(octal, 8).unwrap());
                    assert!(!flags.contains(nix::fcntl::OFlag::O_NONBLOCK), "{reply}");
                }
            }
        }
    });
}

#[test]
fn without_side_channels_a_child_has_three_descriptors() {
    alone!(|| {
        let foreign = foreign();
        let feed = numbers(64).feed_subprocesses(Template::shell(LISTING), 32, 64);
        for reply in texts(feed) {
            assert_eq!(listed(&reply, &foreign), BTreeSet::from([0, 1, 2]), "{reply}");
        }
    });
}

#[test]
fn nothing_is_left_open_however_a_start_fails() {
    alone!(|| {
        let dir = Dir::new();
        let busy = || {
            Template::new("cat")
                .side_input("a")
                .side_output("b", subfeed::framing::ReplyFraming::line())
                .side_input_file("c", "/dev/null")
                .side_output_file("d", dir.path("{id}.d"))
                .stderr(Redirect::file(dir.path("{id}.err")))
        };
        // Once, so that what std and the poller keep for ever is there.
        drop(numbers(3).feed_subprocesses(Template::new("cat"), 2, 2));
        let before = Belongings::now();
        let missing = Template::new("/no/such/program")
            .side_input("a")
            .line_buffered(subfeed::channel::LineBuffered::Pty);
        let wrong: [(Template, ErrorKind); 4] = [
            (missing, ErrorKind::Spawn),
            (busy().side_input_file("e", dir.path("absent")), ErrorKind::Channel),
            (busy().side_output_file("e", "/no/such/dir/file"), ErrorKind::Channel),
            (busy().current_dir(dir.path("nowhere")), ErrorKind::Spawn),
        ];
        for (template, kind) in wrong {
            let first = numbers(3).feed_subprocesses_ordered(template, 3, 10).next().unwrap();
            let error = first.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            before.restored();
        }
        let template = busy()
            .stdin(Redirect::file(dir.path("absent")))
            .encode(|item: &String, request| request.side("a").push(item));
        let error =
            numbers(3).feed_subprocesses_ordered(template, 3, 10).next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Channel, "{error}");
        before.restored();
    });
}

#[test]
fn nothing_is_left_open_after_sessions_with_every_kind_of_channel() {
    alone!(|| {
        let dir = Dir::new();
        drop(numbers(3).feed_subprocesses(Template::new("cat"), 2, 2));
        let before = Belongings::now();
        let template =
            Template::shell("exec 3>{fd:b}; while read -r x; do echo $x; echo $x >&3; done")
                .side_input("a")
                .side_output("b", subfeed::framing::ReplyFraming::line())
                .side_input_file("c", "/dev/null")
                .side_output_file("d", dir.path("{id}.d"))
                .stderr(Redirect::file(dir.path("{id}.err")))
                .line_buffered(subfeed::channel::LineBuffered::Pty)
                .recycle_after_records(3);
        let feed = numbers(100).feed_subprocesses_ordered(template.clone(), 3, 10);
        assert_eq!(texts(feed), numbers(100).collect::<Vec<_>>());
        before.restored();
        let mut feed = numbers(100).feed_subprocesses_ordered(template, 3, 10);
        feed.next().unwrap().unwrap();
        drop(feed);
        before.restored();
    });
}

/// In the Python subfeed a template that leads to an open file could neither be copied nor used.
#[test]
fn an_open_file_can_be_handed_over_and_the_template_copied() {
    within(|| {
        let dir = Dir::new();
        let file = fs::File::create(dir.path("log")).unwrap();
        let open = format!("/proc/self/fd/{}", file.as_raw_fd());
        let template = Template::shell("echo from {id} >&2; cat").stderr(Redirect::file(open));
        for template in [template.clone(), template] {
            let feed = numbers(20).feed_subprocesses_ordered(template, 1, 10);
            assert_eq!(texts(feed), numbers(20).collect::<Vec<_>>());
            assert_eq!(dir.read("log"), "from 0\n");
        }
    });
}

/// In the Python subfeed a file as a side input leaked a descriptor for each child, and was emptied by the parent.
#[test]
fn a_file_on_the_side_is_read_by_every_session_and_left_alone() {
    alone!(|| {
        let dir = Dir::new();
        fs::write(dir.path("words"), "one word\n").unwrap();
        drop(numbers(3).feed_subprocesses(Template::new("cat"), 2, 2));
        let before = Belongings::now();
        let template = Template::shell("while read -r x; do cat {fd:words}; done")
            .side_input_file("words", dir.path("words"))
            .recycle_after_records(1);
        let feed = numbers(60).feed_subprocesses_ordered(template, 3, 10);
        assert!(texts(feed).iter().all(|reply| reply == "one word"));
        before.restored();
        assert_eq!(dir.read("words"), "one word\n");
    });
}
