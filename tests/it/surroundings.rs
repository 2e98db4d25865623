//! What a process shares with its feeds: descriptors, limits, signals, other people's children.

use std::fs::File;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::wait::{WaitPidFlag, waitpid};
use subfeed::policy::OnStall;
use subfeed::source::iterate_in_subprocess;
use subfeed::{ErrorKind, FeedExt, Template};

use crate::alone;
use crate::common::{
    Belongings, DEADLINE, Dir, Pulled, child, children, eventually, hostile, numbers, texts, within,
};

#[test]
fn a_worker_inherits_0_1_and_2_and_nothing_of_its_many_siblings() {
    alone!(|| {
        // What this process has inherited itself, without close-on-exec, is no affair of a feed's.
        let theirs = Command::new(hostile())
            .arg("fds")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .and_then(|mut child| {
                std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"x\n")?;
                child.wait_with_output()
            });
        let bare = String::from_utf8(theirs.unwrap().stdout).unwrap().trim_end().to_owned();
        assert!(bare.starts_with("0 1 2"));
        let _file = File::open("/dev/null").unwrap();
        let other = Pulled::default();
        let mut other = other.numbers().feed_subprocesses_ordered(Template::new("cat"), 3, 9);
        other.next().unwrap().unwrap();
        let feed = numbers(500).feed_subprocesses_ordered(child("fds"), 25, 500);
        for reply in texts(feed) {
            assert_eq!(reply, bare);
        }
        // Those that are started later, in the place of others, as well.
        let feed =
            numbers(50).feed_subprocesses_ordered(child("fds").recycle_after_records(1), 3, 9);
        for reply in texts(feed) {
            assert_eq!(reply, bare);
        }
    });
}

#[test]
fn a_worker_starts_with_a_clean_signal_mask_and_the_usual_sigpipe() {
    within(|| {
        let script =
            "read -r x; grep -E '^(SigBlk|SigIgn):' /proc/self/status | tr -s '\\t\\n' '  '; echo";
        let theirs =
            texts(["a"].into_iter().feed_subprocesses_ordered(Template::shell(script), 1, 1));
        let sigpipe = 1 << (Signal::SIGPIPE as i32 - 1);
        let words: Vec<_> = theirs[0].split_whitespace().collect();
        let mask = |name: &str| {
            let at = words.iter().position(|word| *word == name).unwrap();
            u64::from_str_radix(words[at + 1], 16).unwrap()
        };
        assert_eq!(mask("SigBlk:") & sigpipe, 0);
        assert_eq!(mask("SigIgn:") & sigpipe, 0);
    });
}

/// Leaves this process room for so many more descriptors.
fn allow_fds(more: usize) {
    let open: Vec<_> = Belongings::now().fds.iter().map(|(fd, _)| *fd).collect();
    // The limit is one of numbers, and some above it may be taken.
    let last = (0..).filter(|fd| !open.contains(fd)).nth(more).unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, last as u64, hard).unwrap();
}

#[test]
fn out_of_descriptors_with_workers_alive_the_others_wait() {
    alone!(|| {
        let before = Belongings::now();
        allow_fds(24);
        let feed = numbers(2_000).feed_subprocesses_ordered(Template::new("cat"), 50, 100);
        let monitor = feed.monitor();
        assert_eq!(texts(feed), numbers(2_000).collect::<Vec<_>>());
        let starts = monitor.snapshot().starts;
        assert!((1..50).contains(&starts), "{starts} started");
        let hint = monitor.snapshot().hint.expect("a hint");
        assert!(hint.contains("ulimit -n"), "{hint}");
        before.restored();
    });
}

#[test]
fn out_of_descriptors_without_a_worker_the_feed_ends_whatever_was_the_last_straw() {
    alone!(|| {
        let before = Belongings::now();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        for more in 0..14 {
            allow_fds(more);
            // It is tried again for half a minute, unless something ends the run before.
            let template = Template::new("cat").run_timeout(Duration::from_millis(500));
            let items: Vec<_> = numbers(5).feed_subprocesses_ordered(template, 3, 9).collect();
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
            if items.iter().all(Result::is_ok) {
                assert!(more >= 6 && items.len() == 5, "{more} more");
                continue;
            }
            let causes: Vec<_> = items
                .iter()
                .map(|item| item.as_ref().unwrap_err())
                .filter(|error| error.kind() != ErrorKind::Halted)
                .collect();
            assert_eq!(causes.len(), 1, "{more} more: {items:?}");
            assert!(causes[0].is_fatal());
            assert!(
                matches!(
                    causes[0].kind(),
                    ErrorKind::Spawn | ErrorKind::Thread | ErrorKind::Timeout
                ),
                "{more} more: {items:?}"
            );
            before.restored();
        }
    });
}

#[test]
fn descriptors_that_become_free_later_are_used() {
    alone!(|| {
        allow_fds(40);
        let mut hoard: Vec<File> = Vec::new();
        let pulled = Pulled::default();
        let template = Template::new("cat")
            .backoff(std::time::Duration::from_millis(1), std::time::Duration::from_millis(10));
        let mut feed = pulled.numbers().feed_subprocesses_ordered(template, 4, 100);
        let monitor = feed.monitor();
        feed.next().unwrap().unwrap();
        while let Ok(file) = File::open("/dev/null") {
            hoard.push(file);
        }
        drop(hoard);
        eventually("every worker runs", || {
            feed.next().unwrap().unwrap();
            monitor.snapshot().starts >= 4
        });
    });
}

#[test]
fn a_limit_below_the_numbers_of_side_channels_is_one_of_descriptors() {
    alone!(|| {
        let before = Belongings::now();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let limit = |most| setrlimit(Resource::RLIMIT_NOFILE, most, hard).unwrap();
        let aside = |template: Template| template.side_output_file("aside", "/dev/null");
        limit(10);
        let source = iterate_in_subprocess(aside(Template::new("seq").arg("3")), 8);
        let error = source.iter().next().unwrap().unwrap_err().to_string();
        assert!(error.contains("Too many open files") && error.contains("ulimit -n"), "{error}");
        let feed = numbers(5).feed_subprocesses_ordered(aside(Template::new("cat")), 1, 9);
        let monitor = feed.monitor();
        eventually("it is told", || {
            monitor.snapshot().hint.is_some_and(|hint| hint.contains("ulimit -n"))
        });
        limit(soft);
        assert_eq!(texts(feed).len(), 5);
        limit(3);
        let error = source.iter().next().unwrap().unwrap_err().to_string();
        let mut feed = numbers(5).feed_subprocesses_ordered(Template::new("cat"), 1, 9);
        let other = feed.next().unwrap().unwrap_err().to_string();
        limit(soft);
        drop(feed);
        for error in [error, other] {
            assert!(error.contains("poller") && error.contains("ulimit -n"), "{error}");
        }
        before.restored();
    });
}

/// The size of this process in bytes.
fn size() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn a_thread_that_cannot_be_started_is_a_clear_error() {
    alone!(|| {
        let before = Belongings::now();
        let (soft, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
        // A thread's stack is 2 MiB: no room for one, then room for one and not for two. The limit
        // binds root as well, unlike that of processes.
        for room in [1 << 20, 3 << 20] {
            let limit = size() + room;
            setrlimit(Resource::RLIMIT_AS, limit, hard).unwrap();
            let mut feed = numbers(5).feed_subprocesses_ordered(Template::new("cat"), 1, 9);
            let first = feed.next();
            let second = feed.next().is_none();
            setrlimit(Resource::RLIMIT_AS, soft, hard).unwrap();
            let error = first.unwrap().unwrap_err();
            assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::Thread, true), "{error}");
            assert!(error.to_string().contains("thread"), "{error}");
            assert!(second);
            drop(feed);
            before.restored();
        }
        // And when there is room again, it works.
        assert_eq!(
            texts(numbers(5).feed_subprocesses_ordered(Template::new("cat"), 1, 9)).len(),
            5
        );
    });
}

#[test]
fn somebody_else_who_reaps_every_child_does_no_harm() {
    alone!(|| {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let reaper = thread::spawn(move || {
            let mut reaped = 0;
            while !stopped.load(SeqCst) {
                match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                    Ok(status) if status.pid().is_some() => reaped += 1,
                    _ => thread::yield_now(),
                }
            }
            reaped
        });
        for _ in 0..5 {
            let feed = numbers(60).feed_subprocesses_ordered(child("exit_after 3 0"), 3, 9);
            assert_eq!(texts(feed).len(), 60);
        }
        let source = ["a", "poison", "b"].into_iter();
        let items: Vec<_> = source.feed_subprocesses_ordered(child("poison"), 1, 9).collect();
        assert!(items[0].is_ok() && items[1].is_err() && items[2].is_ok());
        stop.store(true, SeqCst);
        assert!(reaper.join().unwrap() > 0, "the test shows nothing");
        eventually("every child has gone", || children().is_empty());
    });
}

#[test]
fn a_process_that_ignores_sigchld_has_feeds_like_any_other() {
    alone!(|| {
        // SAFETY: no handler runs.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.unwrap();
        let before = Belongings::now();
        let feed = numbers(100).feed_subprocesses_ordered(child("exit_after 3 0"), 3, 9);
        assert_eq!(texts(feed).len(), 100);
        let mut feed = numbers(100).feed_subprocesses_ordered(Template::new("cat"), 3, 9);
        feed.next().unwrap().unwrap();
        drop(feed);
        before.restored();
    });
}

#[test]
fn a_process_that_dies_of_sigpipe_does_not_die_of_a_worker_that_closed_its_stdin() {
    alone!(|| {
        // As in a C program that embeds us, or with `-Zon-broken-pipe`.
        // SAFETY: no handler runs.
        unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.unwrap();
        let large = "x".repeat(100_000);
        let records = std::iter::repeat_n(large.clone(), 6);
        // Each session reads a little of its second record, which is more than a pipe holds, and goes.
        let template = Template::shell("read -r x; echo \"$x\"; head -c 1 >&2; exit 0");
        // However long it takes over the first, byte by byte: nobody is asked to end before it has answered.
        let template = template.retries(9).on_stall(OnStall::Recycle, DEADLINE);
        let feed = records.feed_subprocesses_ordered(template, 1, 9);
        assert!(texts(feed).iter().all(|reply| *reply == large));
        // The consumer's own pipes are its own affair, as before.
        // SAFETY: no handler runs.
        let now = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.unwrap();
        assert!(matches!(now, SigHandler::SigDfl));
    });
}

#[test]
fn children_of_the_process_itself_are_left_alone() {
    alone!(|| {
        let mut own = Command::new("sleep").arg("100").spawn().unwrap();
        let feed = numbers(60).feed_subprocesses_ordered(child("exit_after 3 0"), 3, 9);
        assert_eq!(texts(feed).len(), 60);
        let mut feed = numbers(60).feed_subprocesses_ordered(child("stubborn"), 3, 9);
        feed.next().unwrap().unwrap();
        drop(feed);
        assert!(own.try_wait().unwrap().is_none());
        own.kill().unwrap();
        own.wait().unwrap();
    });
}

#[test]
fn many_feeds_run_side_by_side() {
    alone!(|| {
        let before = Belongings::now();
        let feeds: Vec<_> = (0..12)
            .map(|_| numbers(500).feed_subprocesses_ordered(Template::new("cat"), 2, 20))
            .collect();
        let consumers: Vec<_> = feeds
            .into_iter()
            .map(|feed| {
                thread::spawn(move || assert_eq!(texts(feed), numbers(500).collect::<Vec<_>>()))
            })
            .collect();
        consumers.into_iter().for_each(|consumer| consumer.join().unwrap());
        before.restored();
    });
}

#[test]
fn a_hundred_workers_are_one_event_loop() {
    alone!(|| {
        let before = Belongings::now();
        let dir = Dir::new();
        let feed =
            numbers(100).feed_subprocesses_ordered(child("late").arg(dir.path("go")), 100, 100);
        let monitor = feed.monitor();
        eventually("every worker runs", || monitor.snapshot().starts == 100);
        // Where there is no pidfd, a thread waits for each worker's exit.
        let waiting = if cfg!(subfeed_portable) { 100 } else { 0 };
        assert_eq!(crate::common::threads(), before.threads + 2 + waiting);
        dir.touch("go");
        assert_eq!(texts(feed).len(), 100);
        before.restored();
    });
}
