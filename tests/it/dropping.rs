//! Dropping at any moment: it returns, and leaves nothing behind.
//!
//! Each test that looks at `/proc` runs in a process of its own.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use subfeed::{FeedExt, Order, Template};

use crate::alone;
use crate::common::{
    Barrier, Belongings, Dir, Pulled, child, children, eventually, is_running, kill, numbers, soon,
    texts, threads, with_patience, within,
};

#[test]
fn an_exhausted_feed_leaves_nothing_behind_even_before_it_is_dropped() {
    alone!(|| {
        let before = Belongings::now();
        let mut feed = numbers(1_000).feed_subprocesses_ordered(Template::new("cat"), 4, 50);
        assert_eq!(feed.by_ref().map(Result::unwrap).count(), 1_000);
        before.restored();
        drop(feed);
        before.restored();
        let feed = numbers(1_000).feed_subprocesses(child("exit_after 5 0"), 4, 50);
        feed.finish().unwrap();
        before.restored();
    });
}

#[test]
fn a_dropped_feed_leaves_nothing_behind() {
    alone!(|| {
        let before = Belongings::now();
        for taken in [0, 1, 10, 500] {
            for order in [Order::Input, Order::Completion] {
                let pulled = Pulled::default();
                let feed = pulled.numbers().feed(Template::new("cat")).workers(4).order(order);
                let mut feed = feed.start();
                assert_eq!(feed.by_ref().take(taken).map(Result::unwrap).count(), taken);
                soon(|| drop(feed));
                before.restored();
                let then = pulled.get();
                thread::sleep(Duration::from_millis(2));
                assert_eq!(pulled.get(), then, "pulled after the drop");
            }
        }
    });
}

#[test]
fn a_feed_dropped_at_any_moment_of_its_start_leaves_nothing_behind() {
    alone!(|| {
        let before = Belongings::now();
        for k in 0..60u64 {
            let feed = numbers(1_000).feed_subprocesses_ordered(Template::new("cat"), 3, 50);
            thread::sleep(Duration::from_micros(k * k));
            soon(|| drop(feed));
        }
        before.restored();
    });
}

#[test]
fn a_feed_that_ended_badly_leaves_nothing_behind() {
    alone!(|| {
        let before = Belongings::now();
        let drained = |feed: subfeed::Feed| assert!(feed.filter(Result::is_err).count() > 0);
        drained(numbers(9).feed_subprocesses_ordered(Template::new("cat"), 0, 9));
        drained(numbers(9).feed_subprocesses_ordered(Template::new("no-such-program"), 3, 9));
        drained(numbers(9).feed_subprocesses_ordered(child("silent"), 3, 9));
        drained(numbers(9).feed_subprocesses_ordered(child("exit 1").give_up_after(2), 3, 9));
        before.restored();
        let source = (0..).map(|k| if k == 20 { panic!("on purpose") } else { k.to_string() });
        let mut feed = source.feed_subprocesses_ordered(Template::new("cat"), 3, 9);
        catch_unwind(AssertUnwindSafe(|| feed.by_ref().count())).unwrap_err();
        drop(feed);
        before.restored();
    });
}

#[test]
fn blocks_and_kept_inputs_leave_nothing_behind() {
    alone!(|| {
        let before = Belongings::now();
        let mut blocks = (0..).map(|k| k.to_string()).feed(Template::new("cat")).blocks();
        drop(blocks.next().unwrap());
        soon(|| drop(blocks));
        let mut kept = (0..).map(|k| k.to_string()).feed(Template::new("cat")).keep_input().start();
        kept.next().unwrap().unwrap();
        soon(|| drop(kept));
        thread::scope(|scope| {
            let text = "x".to_owned();
            let endless = std::iter::repeat_with(move || text.clone());
            let mut feed = endless.feed(Template::new("cat")).start_scoped(scope);
            feed.next().unwrap().unwrap();
        });
        before.restored();
    });
}

#[test]
fn a_drop_during_unwinding_leaves_nothing_behind() {
    alone!(|| {
        let before = Belongings::now();
        catch_unwind(|| {
            let mut feed =
                (0..).map(|k| k.to_string()).feed_subprocesses_ordered(child("echo"), 3, 9);
            feed.next().unwrap().unwrap();
            panic!("on purpose");
        })
        .unwrap_err();
        before.restored();
    });
}

#[test]
fn workers_that_ignore_everything_are_killed_within_the_bound() {
    alone!(|| {
        let before = Belongings::now();
        for behaviour in ["deaf", "stubborn"] {
            let mut feed = numbers(1_000).feed_subprocesses_ordered(child(behaviour), 3, 9);
            feed.next().unwrap().unwrap();
            soon(|| drop(feed));
            before.restored();
        }
    });
}

#[test]
fn a_drop_keeps_to_its_stated_bound() {
    alone!(|| {
        // 500 ms of grace and 200 ms of the kill sequence. A machine may be too busy for it once, not always.
        let quickest = (0..20).map(|_| {
            let mut feed = numbers(1_000).feed_subprocesses_ordered(child("stubborn"), 3, 9);
            feed.next().unwrap().unwrap();
            let start = Instant::now();
            drop(feed);
            start.elapsed()
        });
        let bound = Duration::from_millis(500 + 200);
        let took: Vec<_> = quickest.take_while(|took| *took > bound + bound / 2).collect();
        assert!(took.len() < 20, "{took:?}");
    });
}

#[test]
fn workers_that_owe_replies_and_give_none_are_killed_within_the_bound() {
    alone!(|| {
        let (before, dir) = (Belongings::now(), Dir::new());
        let feed =
            numbers(1_000).feed_subprocesses_ordered(child("late").arg(dir.path("never")), 3, 9);
        let monitor = feed.monitor();
        eventually("requests are written", || monitor.snapshot().written_bytes >= 6);
        soon(|| drop(feed));
        before.restored();
    });
}

#[test]
fn a_stopped_worker_is_killed_within_the_bound() {
    alone!(|| {
        use nix::sys::signal::{Signal, kill};
        let before = Belongings::now();
        let mut feed = numbers(1_000).feed_subprocesses_ordered(child("echo"), 1, 9);
        feed.next().unwrap().unwrap();
        let pid = *children().first().unwrap();
        kill(nix::unistd::Pid::from_raw(pid.cast_signed()), Signal::SIGSTOP).unwrap();
        soon(|| drop(feed));
        before.restored();
    });
}

#[test]
fn a_worker_may_put_its_house_in_order_before_it_goes() {
    alone!(|| {
        // The grace is 500 ms: on a very busy machine one of these shells may not make it, not all.
        for _ in 0..20 {
            let dir = Dir::new();
            let template = Template::shell("cat; : > \"$BYE\"").env("BYE", dir.path("bye"));
            let mut feed = numbers(1_000).feed_subprocesses_ordered(template, 1, 9);
            feed.next().unwrap().unwrap();
            drop(feed);
            if dir.path("bye").exists() {
                return;
            }
        }
        panic!("no worker was left the time");
    });
}

#[test]
fn a_grandchild_in_the_group_goes_with_its_worker() {
    alone!(|| {
        let (before, dir) = (Belongings::now(), Dir::new());
        let template = child("grandchild").arg(dir.path("pid"));
        let mut feed = numbers(1_000).feed_subprocesses_ordered(template, 1, 9);
        feed.next().unwrap().unwrap();
        let pid = dir.read("pid").parse().unwrap();
        assert!(is_running(pid));
        soon(|| drop(feed));
        before.restored();
        eventually("the grandchild has gone", || !is_running(pid));
    });
}

#[test]
fn a_daemon_that_holds_the_pipes_holds_up_neither_the_end_nor_a_drop() {
    alone!(|| {
        let (before, dir) = (Belongings::now(), Dir::new());
        let template = child("daemon").arg(dir.path("pid"));
        let daemon = || dir.read("pid").parse::<u32>().unwrap();
        let feed = numbers(20).feed_subprocesses_ordered(template.clone(), 1, 9);
        soon(|| assert_eq!(texts(feed).len(), 20));
        assert!(is_running(daemon()));
        kill(daemon());
        let mut feed = numbers(1_000).feed_subprocesses_ordered(template, 1, 9);
        feed.next().unwrap().unwrap();
        soon(|| drop(feed));
        assert!(is_running(daemon()));
        kill(daemon());
        before.restored();
    });
}

#[test]
fn a_drop_returns_while_the_source_blocks_and_the_thread_ends_after_it() {
    alone!(|| {
        let before = Belongings::now();
        let (gate, dropped) = (Barrier::default(), Barrier::default());
        let (wait, source_is_gone) = (gate.clone(), dropped.clone());
        struct Tell(Barrier);
        impl Drop for Tell {
            fn drop(&mut self) {
                self.0.open();
            }
        }
        let tell = Tell(source_is_gone);
        let pulled = Pulled::default();
        let source = pulled.count(numbers(100)).inspect(move |n| {
            let _ = &tell;
            if n == "2" {
                wait.pass();
            }
        });
        let mut feed = source.feed_subprocesses_ordered(Template::new("cat"), 2, 9);
        assert_eq!(feed.next().unwrap().unwrap(), "0");
        assert_eq!(feed.next().unwrap().unwrap(), "1");
        eventually("the source blocks", || pulled.get() == 3);
        soon(|| drop(feed));
        // Only the thread that is inside the user's own code is left.
        assert_eq!(children(), before.children);
        eventually("one thread is left", || threads() == before.threads + 1);
        gate.open();
        dropped.pass();
        before.restored();
        assert_eq!(pulled.get(), 3);
    });
}

#[test]
fn a_drop_returns_while_encode_blocks() {
    alone!(|| {
        let before = Belongings::now();
        let gate = Barrier::default();
        let wait = gate.clone();
        let template = Template::new("cat").encode(move |n: &u32, request| {
            if *n == 2 {
                wait.pass();
            }
            request.push(n.to_string());
        });
        let mut feed = (0..100).feed_subprocesses_ordered(template, 2, 9);
        assert_eq!(feed.next().unwrap().unwrap(), "0");
        assert_eq!(feed.next().unwrap().unwrap(), "1");
        soon(|| drop(feed));
        gate.open();
        before.restored();
    });
}

#[test]
fn a_drop_returns_while_the_source_takes_its_time_to_be_dropped() {
    struct Slow(std::ops::RangeFrom<u32>, Barrier);
    impl Iterator for Slow {
        type Item = String;
        fn next(&mut self) -> Option<String> {
            self.0.next().map(|n| n.to_string())
        }
    }
    impl Drop for Slow {
        fn drop(&mut self) {
            self.1.pass();
        }
    }
    alone!(|| {
        let (before, gate) = (Belongings::now(), Barrier::default());
        let mut feed =
            Slow(0.., gate.clone()).feed_subprocesses_ordered(Template::new("cat"), 2, 9);
        assert_eq!(feed.next().unwrap().unwrap(), "0");
        soon(|| drop(feed));
        gate.open();
        before.restored();
    });
}

#[test]
fn the_end_comes_although_the_source_takes_its_time_to_be_dropped() {
    struct Slow(u32, Barrier);
    impl Iterator for Slow {
        type Item = String;
        fn next(&mut self) -> Option<String> {
            self.0 += 1;
            (self.0 < 3).then(|| self.0.to_string())
        }
    }
    impl Drop for Slow {
        fn drop(&mut self) {
            self.1.pass();
        }
    }
    within(|| {
        let gate = Barrier::default();
        let mut feed = Slow(0, gate.clone()).feed_subprocesses_ordered(Template::new("cat"), 2, 9);
        assert_eq!(texts(feed.by_ref()), ["1", "2"]);
        assert!(feed.next().is_none());
        drop(feed);
        gate.open();
    });
}

/// Three stages; the source gives the replies of `cat` to `cat` to `cat`.
fn chain(
    source: impl Iterator<Item = String> + Send + 'static,
    template: Template,
) -> subfeed::Feed {
    let cat = || Template::new("cat");
    let first = source.feed_subprocesses_ordered(template, 2, 9);
    let second = first.map(Result::unwrap).feed_subprocesses(cat(), 2, 9);
    second.map(Result::unwrap).feed_subprocesses_ordered(cat(), 2, 9)
}

#[test]
fn what_a_feed_that_ends_early_has_not_taken_from_another_is_there_for_the_next() {
    within(|| {
        // Whether the one waits for the other when it ends is a matter of time.
        for script in ["while read -r x; do sleep 0.02; echo $x; done", "cat"] {
            let mut inner = numbers(50).feed_subprocesses_ordered(Template::shell(script), 1, 4);
            thread::scope(|scope| {
                let outer = inner.by_ref().map(Result::unwrap).feed(Template::new("cat"));
                let outer = outer.workers(1).buffer(5).start_scoped(scope);
                assert_eq!(texts(outer.take(2)), ["0", "1"]);
            });
            let rest = texts(inner.by_ref());
            // Up to seven had been pulled.
            assert!((43..=48).contains(&rest.len()), "{rest:?}");
            assert_eq!(rest, texts_from(50 - rest.len(), 50));
            assert_eq!(inner.finish().unwrap().yielded, 50);
        }
    });
}

fn texts_from(first: usize, end: usize) -> Vec<String> {
    (first..end).map(|n| n.to_string()).collect()
}

#[test]
fn dropping_the_last_stage_of_a_chain_ends_every_stage() {
    alone!(|| {
        let before = Belongings::now();
        for taken in [0, 1, 200] {
            let pulled = Pulled::default();
            let mut feed = chain(pulled.numbers(), Template::new("cat"));
            assert_eq!(feed.by_ref().take(taken).map(Result::unwrap).count(), taken);
            soon(|| drop(feed));
            before.restored();
            // Three windows, and what each stage holds in hand.
            assert!(pulled.get() <= taken as u64 + 3 * 9 + 3);
        }
        let feed = chain(numbers(300), Template::new("cat"));
        assert_eq!(feed.map(Result::unwrap).count(), 300);
        before.restored();
    });
}

#[test]
fn dropping_the_last_stage_ends_a_chain_in_which_every_stage_waits_for_a_worker() {
    alone!(|| {
        let (before, dir) = (Belongings::now(), Dir::new());
        let pulled = Pulled::default();
        let feed = chain(pulled.numbers(), child("late").arg(dir.path("never")));
        eventually("the first window is full", || pulled.get() == 9);
        soon(|| drop(feed));
        before.restored();
    });
}

#[test]
fn dropping_the_last_stage_ends_a_chain_in_which_every_stage_is_full() {
    alone!(|| {
        let before = Belongings::now();
        let pulled = Pulled::default();
        let mut feed = chain(pulled.numbers(), Template::new("cat"));
        feed.next().unwrap().unwrap();
        // Nobody takes anything more, so that every intake waits at its gate in the end.
        eventually("every window is full", || pulled.get() >= 3 * 9);
        soon(|| drop(feed));
        before.restored();
    });
}

#[test]
fn dropping_the_last_stage_ends_all_but_the_thread_in_the_source_when_that_blocks() {
    alone!(|| {
        let (before, gate) = (Belongings::now(), Barrier::default());
        let wait = gate.clone();
        let source = numbers(100).inspect(move |n| {
            if n == "3" {
                wait.pass();
            }
        });
        let mut feed = chain(source, Template::new("cat"));
        for _ in 0..3 {
            feed.next().unwrap().unwrap();
        }
        soon(|| drop(feed));
        eventually("every child has gone", || children() == before.children);
        eventually("one thread is left", || threads() == before.threads + 1);
        gate.open();
        before.restored();
    });
}

#[test]
fn a_feed_may_be_dropped_on_another_thread() {
    alone!(|| {
        let before = Belongings::now();
        let mut feed =
            (0..).map(|n: u64| n.to_string()).feed_subprocesses_ordered(child("echo"), 3, 9);
        feed.next().unwrap().unwrap();
        thread::spawn(move || drop(feed)).join().unwrap();
        before.restored();
    });
}

#[test]
fn a_consumer_that_waits_is_no_obstacle_to_the_end() {
    within(|| {
        // The consumer sleeps in `next` when the source ends.
        let (sender, receiver) = mpsc::channel::<String>();
        let feed = receiver.into_iter().feed_subprocesses_ordered(Template::new("cat"), 2, 9);
        let consumer = thread::spawn(move || texts(feed));
        sender.send("a".to_owned()).unwrap();
        thread::sleep(Duration::from_millis(5));
        drop(sender);
        assert_eq!(consumer.join().unwrap(), ["a"]);
    });
}

/// A request that a shell would run: more than a pipe holds, the dangerous part in front.
fn dangerous(file: &str) -> String {
    format!(": > '{file}'; : {}", "x".repeat(300_000))
}

#[test]
fn a_shell_does_run_half_a_line() {
    // What the next test guards against: if this fails, that one shows nothing.
    let dir = Dir::new();
    let line = dangerous(&dir.at("ran"));
    let mut shell = Command::new("/bin/sh").stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut shell.stdin.take().unwrap(), &line.as_bytes()[..5_000]).unwrap();
    shell.wait().unwrap();
    assert!(dir.path("ran").exists());
}

#[test]
fn a_half_written_request_is_never_run() {
    alone!(|| {
        let (before, dir) = (Belongings::now(), Dir::new());
        // The shell reads nothing before the file is there; the pipe is full with half of the line.
        let script = r#"until [ -e "$GO" ]; do sleep 0.01; done; exec sh"#;
        let template = Template::shell(script).env("GO", dir.path("go"));
        let source = vec![dangerous(&dir.at("ran"))].into_iter();
        let feed = source.feed_subprocesses_ordered(template, 1, 9);
        let monitor = feed.monitor();
        eventually("the pipe is full", || monitor.snapshot().written_bytes > 4_096);
        assert!(monitor.snapshot().written_bytes < 300_000);
        // From now on the shell would read, and run what it has as soon as its stdin ends.
        dir.touch("go");
        drop(feed);
        before.restored();
        assert!(!dir.path("ran").exists(), "half a line was run");
    });
}

#[test]
fn a_fatal_error_runs_no_half_written_request_either() {
    alone!(|| {
        with_patience(Duration::from_millis(500), |limit| {
            let (before, dir) = (Belongings::now(), Dir::new());
            let script = r#"until [ -e "$GO" ]; do sleep 0.01; done; exec sh"#;
            let template = Template::shell(script).env("GO", dir.path("go")).run_timeout(limit);
            let source = vec![dangerous(&dir.at("ran"))].into_iter();
            let feed = source.feed_subprocesses_ordered(template, 1, 9);
            let monitor = feed.monitor();
            assert!(feed.map(Result::unwrap_err).all(|error| error.is_fatal()));
            dir.touch("go");
            before.restored();
            assert!(!dir.path("ran").exists(), "half a line was run");
            let written = monitor.snapshot().written_bytes;
            assert!(written > 4_096, "the test shows nothing: {written} bytes were written");
        });
    });
}

/// The other half of the next test: feeds, says who its workers are, and is killed by this signal.
fn is_killed(signal: nix::sys::signal::Signal, dir: &str) {
    let template = Template::shell("while read -r x; do echo $$; done");
    let feed = (0u64..).map(|n| n.to_string()).feed_subprocesses(template, 3, 9);
    let mut pids = std::collections::BTreeSet::new();
    for pid in feed.map(Result::unwrap) {
        pids.insert(pid.to_string());
        if pids.len() == 3 {
            let all: Vec<&str> = pids.iter().map(String::as_str).collect();
            fs::write(format!("{dir}/pids"), all.join(" ")).unwrap();
            // What runs in the background of a script has SIGINT ignored.
            // SAFETY: no handler runs.
            let _ =
                unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl) };
            nix::sys::signal::raise(signal).unwrap();
            panic!("{signal} does not end this program");
        }
    }
}

#[test]
fn workers_end_when_the_program_is_interrupted_or_killed() {
    use nix::sys::signal::Signal;
    use std::os::unix::process::ExitStatusExt;
    const MARK: &str = "SUBFEED_TEST_VICTIM";
    if let Some(dir) = std::env::var_os(MARK) {
        let dir = dir.into_string().unwrap();
        let interrupted = dir.ends_with("interrupted");
        return is_killed(if interrupted { Signal::SIGINT } else { Signal::SIGKILL }, &dir);
    }
    let dir = Dir::new();
    for (name, signal) in [("interrupted", Signal::SIGINT), ("killed", Signal::SIGKILL)] {
        fs::create_dir(dir.path(name)).unwrap();
        let me = "dropping::workers_end_when_the_program_is_interrupted_or_killed";
        let mut program = Command::new(std::env::current_exe().unwrap());
        program.args(["--exact", me, "--nocapture"]).env(MARK, dir.path(name));
        let status = program.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
        assert_eq!(status.signal(), Some(signal as i32), "{status}");
        // They read the end of their input: nobody else has the other end of their pipes.
        let pids = dir.read(&format!("{name}/pids"));
        assert_eq!(pids.split(' ').count(), 3);
        for pid in pids.split(' ').map(|pid| pid.parse().unwrap()) {
            eventually("the worker has gone", || !is_running(pid));
        }
    }
}

#[test]
fn workers_lead_process_groups_of_their_own() {
    alone!(|| {
        let mut feed = numbers(100).feed_subprocesses_ordered(child("pid"), 2, 9);
        let pid = feed.next().unwrap().unwrap().to_string();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let group = stat.rsplit_once(") ").unwrap().1.split(' ').nth(2).unwrap().to_owned();
        assert_eq!(group, pid);
    });
}
