//! A: hangs and livelocks.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use subfeed::channel::Redirect;
use subfeed::framing::{ReplyFraming, Sentinel};
use subfeed::policy::OnStall;
use subfeed::queue::{Feeder, GetError, Inlet, Queue, Timed, TryPutError, inlet};
use subfeed::source::iterate_in_subprocess;
use subfeed::{BoxError, ErrorKind, Feed, FeedExt, Monitor, Order, Template};

use super::{Door, LIMIT, doors, ending, ends, open_ended, ready};
use crate::alone;
use crate::common::tools::here;
use crate::common::{
    A_MOMENT, Barrier, Belongings, DEADLINE, Dir, Pulled, child, children, eventually, is_running,
    numbers, soon, texts,
};

// ==================================================================== A1: `ready`, and a packet that is sent again

/// Says that it is ready, reads one request, and dies of it.
fn ready_and_dies() -> Template {
    ready("read -r x; exit 1")
}

fn a1_a_packet_that_is_sent_again_to_a_session_that_is_not_ready_yet(door: Door) {
    let told = door.send(ready_and_dies().retries(1), &["a"], 1);
    told.is(&["!Died 0"]);
    told.starts_at_most(3);
}
doors!(a1_a_packet_that_is_sent_again_to_a_session_that_is_not_ready_yet:
    ordered unordered keep_input blocks wrapping queue pipeline results);

/// Answers, and dies of `poison`.
const POISONED: &str = "while read -r x; do [ $x = poison ] && exit 1; echo $x; done";

fn a1_without_retries_a_death_among_others(door: Door) {
    let told = door.send(ready(POISONED), &["a", "b", "poison", "c", "d"], 1);
    told.is(&["a", "b", "!Died 2", "c", "d"]);
    told.starts_at_most(5);
}
doors!(a1_without_retries_a_death_among_others:
    ordered unordered keep_input blocks wrapping queue pipeline results);

#[test]
fn a1_with_a_banner_instead_of_ready() {
    let banner = || Template::shell("sleep 0.1; echo READY; read -r x; exit 1").retries(1);
    for template in [banner().skip_lines(1), banner().skip_until("READY\n")] {
        Door::Ordered.send(template, &["a"], 1).is(&["!Died 0"]);
    }
}

#[test]
fn a1_with_first_and_last_words() {
    let script = "read -r hello; while read -r x; do [ $x = bye ] && exit 0; \
        [ $x = poison ] && exit 1; echo $hello $x; done";
    let template = ready(script).preamble("hello\n").farewell("bye\n").retries(1);
    let told = Door::Ordered.send(template, &["a", "poison", "b"], 1);
    told.is(&["hello a", "!Died 1", "hello b"]);
}

#[test]
fn a1_with_side_channels() {
    ends(|| {
        let script = "exec 3<{fd:side}; while read -r x; do read -r y <&3; \
            [ $x = poison ] && exit 1; echo $x $y; done";
        let template =
            ready(script).side_input("side").retries(1).encode(|item: &&str, request| {
                request.push(item);
                request.side("side").push(item);
            });
        let feed = ["a", "poison", "b"].into_iter().feed_subprocesses_ordered(template, 1, 10);
        let items: Vec<_> = feed.collect();
        assert_eq!(items.len(), 3);
        assert_eq!(items[0].as_ref().unwrap(), "a a");
        assert_eq!(items[1].as_ref().unwrap_err().kind(), ErrorKind::Died);
        assert_eq!(items[2].as_ref().unwrap(), "b b");
    });
}

fn a1_with_a_sentinel_that_is_swallowed(door: Door) {
    let script =
        "while read -r l; do case $l in open) cat >/dev/null; exit 0;; *) echo \"$l\";; esac; done";
    let sentinel = ReplyFraming::sentinel(Sentinel::new("{mark}"));
    let told = door.send(ready(script).replies(sentinel).retries(1), &["a", "open", "b"], 1);
    assert_eq!(told.items.len(), 3);
    assert!(told.items.contains(&"a\n".to_owned()) && told.items.contains(&"b\n".to_owned()));
    assert!(
        told.items.iter().any(|item| item.starts_with('!') && item.ends_with(" 1")),
        "{told:?}"
    );
}
doors!(a1_with_a_sentinel_that_is_swallowed:
    ordered unordered queue);

#[test]
fn a1_with_one_process_for_each_packet() {
    let template = ready("read -r x; [ $x = poison ] && exit 1; echo $x")
        .replies(ReplyFraming::until_eof())
        .retries(1);
    let told = Door::Ordered.send(template, &["a", "poison", "b"], 2);
    told.is(&["a\n", "!Died 1", "b\n"]);
}

#[test]
fn a1_with_sessions_that_are_recycled() {
    let told =
        Door::Ordered.send(ready(POISONED).recycle_after_records(1), &["a", "poison", "b"], 2);
    told.is(&["a", "!Died 1", "b"]);
    told.starts_at_most(8);
}

#[test]
fn a1_at_most_once() {
    let told = Door::Ordered.send(ready(POISONED).at_most_once(), &["a", "b", "poison", "c"], 1);
    assert_eq!(told.items.len(), 4, "{told:?}");
    assert_eq!(told.items[..2], ["a", "b"]);
    assert!(["!Died 2", "!NotRedelivered 2"].contains(&&*told.items[2]), "{told:?}");
    assert!(["c", "!NotRedelivered 3"].contains(&&*told.items[3]), "{told:?}");
}

#[test]
fn a1_with_a_packet_that_takes_too_long() {
    let script = "while read -r x; do [ $x = stuck ] && exec sleep 100; echo $x; done";
    let template = ready(script).packet_timeout(Duration::from_secs(2)).retries(1);
    Door::Ordered.send(template, &["a", "stuck", "b"], 1).is(&["a", "!Timeout 1", "b"]);
}

#[test]
fn a1_drained() {
    ends(|| {
        // Each session reads one and dies of it, with what it had not read going to the next.
        let drained = numbers(3).feed(ready_and_dies()).workers(1).drain();
        if let Ok(drained) = drained {
            let accepted: u64 = drained.accepted.iter().sum();
            assert_eq!(accepted + drained.failed.len() as u64, 3, "{drained:?}");
            assert!(!drained.all_ended_well());
        }
    });
}

#[test]
fn a1_while_the_input_goes_on() {
    ends(|| {
        let (sender, source) = open_ended(vec!["poison".to_owned(), "a".to_owned()]);
        let mut feed = source.feed_subprocesses_ordered(ready(POISONED).retries(1), 1, 10);
        assert_eq!(feed.next().unwrap().unwrap_err().attempts(), 2);
        assert_eq!(feed.next().unwrap().unwrap(), "a");
        drop(sender);
        assert!(feed.next().is_none());
    });
}

#[test]
fn a1_two_workers_and_many_deaths() {
    ends(|| {
        let source = (0..40).map(|n| if n % 7 == 3 { "poison".into() } else { n.to_string() });
        let feed = source.feed_subprocesses_ordered(ready(POISONED).retries(1), 2, 10);
        let items: Vec<_> = feed.collect();
        assert_eq!(items.len(), 40);
        for (n, item) in items.iter().enumerate() {
            match item {
                Ok(reply) => assert_eq!(*reply, n.to_string()),
                Err(error) => assert_eq!((n % 7, error.attempts()), (3, 2), "{error}"),
            }
        }
    });
}

// ==================================================================== A2: a sleeper beside the tool

/// A tool that withholds its replies until a buffer is full, beside something that sleeps; it turns `a` into `A`.
fn sleeper(which: &str) -> Template {
    match which {
        "timeout" => Template::new("timeout").args(["100", "tr", "a-z", "A-Z"]),
        "a job of the shell" => Template::shell("sleep 100 & tr a-z A-Z; kill $!"),
        // A thread of its own that waits in this call.
        call => child(&format!("beside {call} stdio 4096")),
    }
}

fn requests(n: usize) -> Vec<String> {
    (0..n).map(|k| format!("K{k}")).collect()
}

/// Everything comes, in order, in windows that never fill the tool's buffer.
#[track_caller]
fn a2_complete(template: Template, n: usize, workers: usize, window: usize) -> subfeed::Snapshot {
    let window = ending(n, window);
    ends(move || {
        let feed = requests(n).into_iter().feed_subprocesses_ordered(template, workers, window);
        let monitor = feed.monitor();
        assert_eq!(texts(feed), requests(n));
        monitor.snapshot()
    })
}

macro_rules! a2_tools {
    ($($test:ident: $name:literal;)*) => {
        $(
            #[test]
            fn $test() {
                a2_complete(sleeper($name), 1, 1, 10);
                a2_complete(sleeper($name), 40, 1, 100);
                a2_complete(sleeper($name), 120, 2, 30);
            }
        )*
    };
}

a2_tools! {
    a2_beside_timeout: "timeout";
    a2_beside_a_job_of_the_shell: "a job of the shell";
    a2_beside_a_thread_that_sleeps: "sleep";
    a2_beside_a_thread_in_a_futex_with_a_limit: "futex";
    a2_beside_a_thread_that_waits_for_any_signal: "suspend";
    a2_beside_a_thread_that_waits_for_a_signal: "sigwait";
}

/// Python that buffers, with a thread that sleeps.
fn python() -> Template {
    let script = "import sys, threading, time
threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
for line in sys.stdin: print(line.rstrip().upper())
";
    Template::new("python3").args(["-I", "-S", "-c"]).raw_arg(script)
}

#[test]
fn a2_python_beside_a_thread_that_sleeps() {
    if here(&["python3"]) {
        a2_complete(python(), 40, 1, 100);
        a2_complete(python(), 60, 2, 30);
    }
}

#[test]
fn a2_a_limit_for_a_packet_is_not_a_process_for_each_item() {
    let template = sleeper("timeout").packet_timeout(Duration::from_secs(2));
    let snapshot = a2_complete(template, 40, 1, 100);
    assert!(snapshot.starts <= 10, "{snapshot:?}");
}

fn a2_through_every_door(door: Door) {
    door.send(sleeper("timeout"), &["a", "b", "c"], 1).is(&["A", "B", "C"]);
}
doors!(a2_through_every_door:
    ordered unordered keep_input blocks wrapping queue pipeline results);

#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence: the input has not ended")]
fn a2_one_put_one_get() {
    ends(|| {
        // The next is put when the one before is back: nothing but the evidence can bring it out.
        let mut queue = Queue::subprocesses(sleeper("sleep"), 1, 10);
        for item in ["a", "b", "c"] {
            queue.put(item).unwrap();
            assert_eq!(queue.get().unwrap().unwrap(), item);
        }
    });
}

fn a2_the_last_request_is_skipped(door: Door) {
    let template = Template::new("timeout").args(["100", "sed", "-u", "/skip/d"]);
    let told = door.send(template, &["a", "b", "skip"], 1);
    told.is(&["a", "b", "!!ReplyCount 2"]);
}
doors!(a2_the_last_request_is_skipped:
    ordered unordered keep_input blocks wrapping queue pipeline results);

#[test]
fn a2_the_only_request_is_skipped() {
    let template = || Template::new("timeout").args(["100", "sed", "-u", "/skip/d"]);
    Door::Ordered.send(template(), &["skip"], 1).is(&["!ReplyCount 0"]);
    Door::Queue.send(template(), &["skip"], 1).is(&["!ReplyCount 0"]);
}

#[test]
fn a2_with_a_sentinel() {
    let template = Template::new("timeout").args(["100", "tr", "!", "?"]);
    let template = template.replies(ReplyFraming::sentinel(Sentinel::new("{mark}")));
    for door in [Door::Ordered, Door::Queue] {
        door.send(template.clone(), &["a!", "b!", "c!"], 1).is(&["a?\n", "b?\n", "c?\n"]);
    }
}

#[test]
fn a2_at_most_once() {
    a2_complete(sleeper("timeout").at_most_once(), 40, 2, 30);
}

#[test]
fn a2_with_ready() {
    let template = ready("sleep 100 & tr a-z A-Z; kill $!");
    a2_complete(template, 40, 1, 10);
}

#[test]
fn a2_with_a_banner_and_first_and_last_words() {
    let script = "echo welcome; read -r hello; sleep 100 & sed /bye/d; kill $!";
    let template = Template::shell(script).skip_lines(1).preamble("hello\n").farewell("bye\n");
    a2_complete(template, 40, 1, 10);
}

#[test]
fn a2_with_sessions_of_ten_records() {
    a2_complete(sleeper("timeout").recycle_after_records(10), 60, 2, 30);
}

#[test]
fn a2_with_one_process_for_each_packet() {
    let template = sleeper("timeout").replies(ReplyFraming::until_eof());
    Door::Ordered.send(template, &["a", "b"], 2).is(&["A\n", "B\n"]);
}

#[test]
fn a2_with_side_channels() {
    ends(|| {
        let template = Template::new("timeout").args(["100", "paste", "-d", " ", "-", "{fd:side}"]);
        let template = template.side_input("side").encode(crate::sides::in_step);
        let items = numbers(40).map(|n| (n.clone(), n));
        let feed = items.feed_subprocesses_ordered(template, 1, ending(40, 10));
        assert_eq!(texts(feed), numbers(40).map(|n| format!("{n} {n}")).collect::<Vec<_>>());
    });
}

#[test]
fn a2_drained() {
    ends(|| {
        let dir = Dir::new();
        let template = Template::new("timeout").args(["100", "cat"]);
        let template = template.stdout(Redirect::file(dir.path("{id}.out")));
        let drained = numbers(1_000).feed(template).workers(2).drain().unwrap();
        assert!(drained.all_ended_well(), "{drained:?}");
        assert_eq!((dir.read("0.out") + &dir.read("1.out")).lines().count(), 1_000);
    });
}

#[test]
fn a2_as_a_source() {
    ends(|| {
        let source = iterate_in_subprocess(Template::new("timeout").args(["100", "seq", "5"]), 2);
        assert_eq!(texts(source.iter()), ["1", "2", "3", "4", "5"]);
    });
}

#[test]
fn a2_and_a_packet_that_kills_it() {
    if !here(&["python3"]) {
        return;
    }
    // What it had in its buffer dies with it.
    let script = "import os, sys, threading, time
threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
for line in sys.stdin:
    if 'poison' in line: os.kill(os.getpid(), 9)
    print(line.rstrip())
";
    let template = Template::new("python3").args(["-I", "-S", "-c"]).raw_arg(script);
    for door in [Door::Ordered, Door::Queue] {
        let told = door.send(template.clone(), &["a", "b", "poison", "c"], 1);
        told.is(&["a", "b", "!Died 2", "c"]);
    }
}

/// Ten thousand records through a window of a hundred: at most three times what the same tool takes without the
/// sleeper, and one patience (three looks, of 100 ms each) a session.
#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence: the input is longer than the window")]
fn a2_costs_nothing_but_patience() {
    crate::common::within_limit(3 * LIMIT, || {
        let timed = |template: Template| {
            let start = Instant::now();
            let feed = requests(10_000).into_iter().feed_subprocesses_ordered(template, 2, 100);
            let monitor = feed.monitor();
            assert_eq!(texts(feed), requests(10_000));
            (start.elapsed(), monitor.snapshot().starts)
        };
        let (without, _) = timed(child("stdio 4096"));
        let (with, starts) = timed(sleeper("sleep"));
        let patience = Duration::from_millis(300) * u32::try_from(starts).unwrap();
        assert!(
            with <= 3 * without + patience,
            "{with:?} instead of {without:?}, {starts} sessions"
        );
    });
}

// ==================================================================== A3: neither an answer nor an exit

/// Reads to the end, and stays without a word.
const STAYS: &str = "cat >/dev/null; exec sleep 100";

fn a3_the_end_of_the_input_and_a_limit_for_the_end(door: Door) {
    let template = Template::shell(STAYS).end_timeout(Duration::from_secs(1));
    door.send(template, &["a"], 1).is(&["!Timeout 0"]);
}
doors!(a3_the_end_of_the_input_and_a_limit_for_the_end:
    ordered unordered keep_input blocks wrapping pipeline results);

#[test]
fn a3_the_error_names_the_limit_that_ran_out() {
    ends(|| {
        let template = Template::shell(STAYS).end_timeout(Duration::from_secs(1));
        let mut feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 1);
        let error = feed.next().unwrap().unwrap_err();
        assert_eq!((error.kind(), error.packet()), (ErrorKind::Timeout, Some(0)));
        let said = error.to_string();
        assert!(said.contains("end_timeout") && said.contains("1s"), "{said}");
    });
}

/// Waits for a hint that says all of this.
#[track_caller]
fn hint_says(monitor: &Monitor, words: &[&str]) {
    let start = Instant::now();
    loop {
        let hint = monitor.snapshot().hint;
        if hint.as_ref().is_some_and(|hint| words.iter().all(|word| hint.contains(word))) {
            return;
        }
        assert!(start.elapsed() < DEADLINE / 2, "the hint does not say {words:?}: {hint:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a3_without_a_limit_there_is_a_hint_that_names_it() {
    ends(|| {
        let feed = ["a"].into_iter().feed_subprocesses_ordered(Template::shell(STAYS), 1, 1);
        hint_says(&feed.monitor(), &["worker 0", "end_timeout"]);
        drop(feed);
    });
}

#[test]
fn a3_with_ready_banner_and_last_words() {
    let limit = Duration::from_secs(1);
    let stays = "while read -r x; do :; done; exec sleep 100";
    for template in [
        ready(stays),
        Template::shell(format!("echo welcome; {stays}")).skip_lines(1),
        Template::shell(stays).farewell("bye\n"),
        Template::shell(stays).at_most_once(),
        Template::shell(stays).recycle_after_records(1),
    ] {
        let told = Door::Ordered.send(template.end_timeout(limit), &["a"], 1);
        assert_eq!(told.items.len(), 1);
        let is_its_own = |item: &String| item.starts_with('!') && !item.starts_with("!!");
        assert!(is_its_own(&told.items[0]), "{told:?}");
    }
}

#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence: the input is longer than the window")]
fn a3_one_that_stays_costs_the_others_nothing() {
    ends(|| {
        let script = format!("if [ {{id}} = 0 ]; then {STAYS}; fi; exec cat");
        let template = Template::shell(script).end_timeout(Duration::from_secs(1));
        let items: Vec<_> = numbers(12).feed_subprocesses_ordered(template, 2, 4).collect();
        assert_eq!(items.len(), 12);
        for (n, item) in items.iter().enumerate() {
            match item {
                Ok(reply) => assert_eq!(*reply, n.to_string()),
                Err(error) => assert!(!error.is_fatal() && error.packet() == Some(n as u64)),
            }
        }
        assert!(items.iter().filter(|item| item.is_ok()).count() >= 8, "{items:?}");
    });
}

/// We have closed it on our own judgement, since it waits in a read and owes: five seconds are the bound.
///
/// Without evidence nothing is closed before the input has ended.
#[cfg(not(subfeed_portable))]
fn a3_closed_by_ourselves_before_the_input_has_ended(door: Door) {
    let told = door.send(Template::shell(STAYS), &["a"], 1);
    assert_eq!(told.items.len(), 1, "{told:?}");
    assert!(told.items[0].starts_with('!') && told.items[0].ends_with(" 0"), "{told:?}");
}
#[cfg(not(subfeed_portable))]
doors!(a3_closed_by_ourselves_before_the_input_has_ended: queue);

#[test]
fn a3_a_command_as_a_source() {
    ends(|| {
        let template = Template::shell("seq 2; exec >&-; exec sleep 100");
        let source = iterate_in_subprocess(template.end_timeout(Duration::from_millis(500)), 2);
        let mut items: Vec<_> = source.iter().collect();
        assert_eq!(items.pop().unwrap().unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(texts(items), ["1", "2"]);
    });
}

// ==================================================================== A4: stopped

/// Gives this process a session and a terminal of its own.
fn at_a_terminal() {
    use nix::fcntl::OFlag;
    use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
    nix::unistd::setsid().expect("not the leader of a group");
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY).expect("a terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("a terminal");
    // The first terminal that the leader of a session opens is the session's.
    let name = ptsname_r(&master).expect("its name");
    let terminal = std::fs::File::options().read(true).write(true).open(name).expect("its end");
    // Both ends stay open as long as this process lives: to close one hangs the terminal up.
    std::mem::forget((master, terminal));
}

#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence: nobody knows that it is stopped")]
fn a4_a_worker_that_asks_at_the_terminal() {
    alone!(|| {
        at_a_terminal();
        let script = "read -r x; read -r password </dev/tty; echo \"$x\"";
        let feed = ["a"].into_iter().feed_subprocesses_ordered(Template::shell(script), 1, 1);
        let monitor = feed.monitor();
        hint_says(&monitor, &["worker 0", "SIGTTIN"]);
        drop(feed);
    });
}

#[test]
#[cfg_attr(subfeed_portable, ignore = "needs evidence: nobody knows that it is stopped")]
fn a4_a_worker_that_is_stopped() {
    alone!(|| {
        use nix::sys::signal::{Signal, kill};
        let script = "read -r x; kill -STOP $$; echo \"$x\"; exec cat";
        for order in [Order::Input, Order::Completion] {
            let feed = numbers(3).feed(Template::shell(script)).workers(1).order(order).start();
            let monitor = feed.monitor();
            hint_says(&monitor, &["worker 0", "stopped"]);
            let worker = *children().first().expect("a worker");
            kill(nix::unistd::Pid::from_raw(worker.cast_signed()), Signal::SIGCONT).unwrap();
            assert_eq!(texts(feed), ["0", "1", "2"]);
        }
    });
}

// ==================================================================== A5: never reads

#[test]
fn a5_a_worker_that_never_reads_has_a_hint() {
    ends(|| {
        let deaf = || Template::new("sleep").arg("100");
        let templates = [
            deaf(),
            deaf().on_stall(OnStall::Wait, Duration::from_millis(100)),
            deaf().at_most_once(),
            Template::shell("exec 3<{fd:side}; exec sleep 100").side_input("side"),
            deaf().replies(ReplyFraming::until_eof()),
        ];
        // All at a time: each takes its five seconds.
        let feeds: Vec<_> = templates
            .into_iter()
            .flat_map(|template| [Order::Input, Order::Completion].map(|o| (template.clone(), o)))
            .map(|(template, order)| {
                let (sender, source) = open_ended(vec!["a".to_owned()]);
                (source.feed(template).workers(1).order(order).start(), sender)
            })
            .collect();
        for (feed, _) in &feeds {
            hint_says(&feed.monitor(), &["worker 0", "packet_timeout"]);
        }
    });
}

#[test]
fn a5_a_worker_that_is_never_ready_has_a_hint() {
    ends(|| {
        let template = Template::new("sleep").arg("100").ready("READY\n", 2 * LIMIT);
        let feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 1);
        hint_says(&feed.monitor(), &["worker 0", "ready"]);
        drop(feed);
    });
}

#[test]
fn a5_in_a_queue() {
    ends(|| {
        let queue = Queue::subprocesses(Template::new("sleep").arg("100"), 1, 10);
        queue.put("a").unwrap();
        hint_says(&queue.feed().monitor(), &["worker 0", "packet_timeout"]);
        drop(queue);
    });
}

// ==================================================================== A6: a credit that somebody waits for

/// Puts until there is room neither in the inlet nor in the window; how many that were.
fn filled<F: Iterator>(queue: &Queue<String, F>) -> usize {
    let mut put = 0;
    loop {
        match queue.put_timeout(put.to_string(), A_MOMENT) {
            Ok(()) => put += 1,
            Err(TryPutError::Full(_)) => return put,
            Err(TryPutError::Stopped(_)) => panic!("it has ended"),
        }
    }
}

/// After `j` gets, `j` puts do not block, on one thread and for ever.
fn a6_after_gets_puts_do_not_block<F>(mut queue: Queue<String, F>, window: usize)
where
    F: Iterator + Timed,
{
    let mut put = filled(&queue);
    let most = put;
    let mut got = 0;
    for j in [1, 1, 2, 3, window / 8, window / 2, window].map(|j| j.min(most)) {
        for _ in 0..j {
            assert!(queue.get_timeout(DEADLINE / 2).is_ok(), "window {window}: get {got}");
            got += 1;
        }
        for _ in 0..j {
            let full = queue.put_timeout(put.to_string(), DEADLINE / 2);
            assert!(full.is_ok(), "window {window}: a put after {got} gets, {put} are in");
            put += 1;
        }
    }
}

#[test]
fn a6_after_gets_puts_do_not_block_with_subprocesses() {
    crate::common::within_limit(3 * LIMIT, || {
        for window in [1, 2, 7, 8, 16, 100, 1_000, 10_000] {
            let queue = Queue::subprocesses(Template::new("cat"), 2, window);
            a6_after_gets_puts_do_not_block(queue, window);
            // In completion order the same.
            let queue = Queue::new(window, |items: Inlet<String>| {
                items.feed_subprocesses(Template::new("cat"), 2, window)
            });
            a6_after_gets_puts_do_not_block(queue, window);
        }
    });
}

#[test]
fn a6_after_gets_puts_do_not_block_with_threads() {
    crate::common::within_limit(3 * LIMIT, || {
        for window in [1, 2, 7, 8, 16, 100, 1_000, 10_000] {
            let queue = Queue::threads(|n: String| n, 2, window);
            a6_after_gets_puts_do_not_block(queue, window);
            let queue =
                Queue::new(window, |items: Inlet<String>| items.feed_threads(|n| n, 2, window));
            a6_after_gets_puts_do_not_block(queue, window);
        }
    });
}

#[test]
fn a6_the_smallest_queue_of_all() {
    ends(|| {
        let mut queue = Queue::subprocesses(Template::new("cat"), 2, 100);
        let put = filled(&queue);
        assert_eq!(queue.get().unwrap().unwrap(), "0");
        queue.put(put.to_string()).unwrap();
    });
}

/// A consumer that puts what follows from a reply into its own source.
#[track_caller]
fn a6_crawls<F: Iterator>(feed: impl FnOnce(Inlet<String>) -> F) {
    let (producer, items) = inlet(10);
    let mut feed = feed(items);
    let mut put = 0;
    while producer.put_timeout(put.to_string(), A_MOMENT).is_ok() {
        put += 1;
    }
    for page in 0..2_000 {
        assert!(feed.next().is_some());
        let full = producer.put_timeout("a page behind it".to_owned(), DEADLINE / 2);
        assert!(full.is_ok(), "behind page {page}");
    }
}

#[test]
fn a6_a_crawler() {
    ends(|| a6_crawls(|items| items.feed_subprocesses_ordered(Template::new("cat"), 2, 100)));
}

#[test]
fn a6_a_crawler_in_completion_order() {
    ends(|| a6_crawls(|items| items.feed_subprocesses(Template::new("cat"), 2, 100)));
}

#[test]
fn a6_a_crawler_in_threads() {
    ends(|| a6_crawls(|items| items.feed_threads_ordered(|n| n, 2, 100)));
}

/// The look-ahead is exact wherever the consumer sleeps: it sleeps here in `eventually`.
#[track_caller]
fn a6_look_ahead<F: Iterator>(mut feed: F, pulled: &Pulled, window: u64) {
    eventually("the window is full", || pulled.get() == window);
    let mut yielded = 0;
    for step in [1, 1, 3, 7, 50, 88, 100] {
        for _ in 0..step {
            assert!(feed.next().is_some());
            yielded += 1;
        }
        let start = Instant::now();
        while pulled.get() < yielded + window {
            assert!(start.elapsed() < DEADLINE / 4, "{} pulled at {yielded}", pulled.get());
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(pulled.get(), yielded + window);
    }
}

#[test]
fn a6_the_look_ahead_does_not_lag() {
    crate::common::within_limit(3 * LIMIT, || {
        for window in [1, 3, 16, 700] {
            let pulled = Pulled::default();
            let feed = pulled.numbers().feed(Template::new("cat")).workers(2).buffer(window);
            a6_look_ahead(feed.start(), &pulled, window as u64);
            let pulled = Pulled::default();
            let feed = pulled.numbers().feed(Template::new("cat")).workers(2).buffer(window);
            a6_look_ahead(feed.order(Order::Completion).start(), &pulled, window as u64);
            let pulled = Pulled::default();
            let feed = pulled.numbers().feed(Template::new("cat")).workers(2).buffer(window);
            a6_look_ahead(feed.keep_input().start(), &pulled, window as u64);
            let pulled = Pulled::default();
            let feed = pulled.numbers().feed_threads_ordered(|n| n, 2, window);
            a6_look_ahead(feed, &pulled, window as u64);
            let pulled = Pulled::default();
            let feed = pulled.numbers().feed_threads(|n| n, 2, window);
            a6_look_ahead(feed, &pulled, window as u64);
        }
    });
}

#[test]
fn a6_the_look_ahead_of_marks_and_errors_does_not_lag() {
    ends(|| {
        let window = 64;
        let pulled = Pulled::default();
        let failed = || Err::<String, BoxError>("an error of an earlier stage".into());
        let source = pulled.count(std::iter::repeat_with(failed));
        let feed = source.try_feed(Template::new("cat")).workers(2).buffer(window).start();
        a6_look_ahead(feed, &pulled, window as u64);
    });
}

#[test]
fn a6_the_look_ahead_of_a_pipeline_does_not_lag() {
    ends(|| {
        use subfeed::pipeline::{Pipeline, Stage};
        let pulled = Pulled::default();
        let run = Pipeline::new(pulled.numbers())
            .feed(Stage::new("cat").workers(2).buffer(64), Template::new("cat"))
            .run();
        a6_look_ahead(run, &pulled, 64);
    });
}

#[test]
fn a6_a_block_that_was_forgotten_holds_no_credit() {
    ends(|| {
        let mut blocks =
            (0..).map(|n: u32| n.to_string()).feed(Template::new("cat")).buffer(10).blocks();
        for _ in 0..50 {
            std::mem::forget(blocks.next().expect("a block").unwrap());
        }
    });
}

#[test]
fn a6_a_feeder_takes_as_much_as_its_workers_do() {
    ends(|| {
        let feeder = Feeder::new(Template::new("cat").stdout(Redirect::Null), 2, 16);
        numbers(10_000).for_each(|n| feeder.feed(n).unwrap());
        assert!(feeder.finish().unwrap().all_ended_well());
    });
}

#[test]
fn a6_a_get_that_finds_nothing_says_so() {
    ends(|| {
        let mut queue = Queue::subprocesses(Template::new("cat"), 2, 16);
        queue.put("a").unwrap();
        assert_eq!(queue.get().unwrap().unwrap(), "a");
        assert_eq!(queue.get_timeout(A_MOMENT).err(), Some(GetError::NotYet));
    });
}

// ==================================================================== A7: the last owner on a thread of the feed's

/// A feed whose only owner is inside its own source.
type Owned7 = Arc<Mutex<Option<Box<dyn Send>>>>;

/// Lets go of what it holds when it is told to, and says so.
#[derive(Clone, Default)]
struct Holder {
    feed: Owned7,
    go: Arc<AtomicBool>,
    gone: Arc<OnceLock<()>>,
}

impl Holder {
    fn hold(&self, feed: impl Send + 'static) {
        *self.feed.lock().unwrap() = Some(Box::new(feed));
        self.go.store(true, SeqCst);
    }

    /// To be called on the feed's own threads, again and again.
    fn look(&self) {
        if self.go.load(SeqCst) {
            let feed = self.feed.lock().unwrap().take();
            if let Some(feed) = feed {
                drop(feed);
                let _ = self.gone.set(());
            }
        }
    }

    /// A source without an end that looks when it is asked for its third item and the barrier is open.
    fn looks_at_2(&self, go: &Barrier) -> impl Iterator<Item = String> + Send + 'static {
        let (inside, passed) = (self.clone(), go.clone());
        (0..u64::MAX).map(move |n| {
            if n == 2 {
                passed.pass();
                inside.look();
            }
            n.to_string()
        })
    }

    #[track_caller]
    fn is_gone(&self) {
        eventually("the drop returns", || self.gone.get().is_some());
    }
}

#[test]
fn a7_dropped_inside_the_sources_next() {
    alone!(|| {
        let before = Belongings::now();
        let (holder, go) = (Holder::default(), Barrier::default());
        let source = holder.looks_at_2(&go);
        let mut feed = source.feed_subprocesses_ordered(Template::new("cat"), 2, 10);
        feed.next().unwrap().unwrap();
        holder.hold(feed);
        go.open();
        holder.is_gone();
        before.restored();
    });
}

#[test]
fn a7_dropped_inside_encode() {
    alone!(|| {
        let before = Belongings::now();
        let holder = Holder::default();
        let inside = holder.clone();
        let go = Barrier::default();
        let passed = go.clone();
        let template = Template::new("cat").encode(move |n: &u64, request| {
            if *n == 1 {
                passed.pass();
                inside.look();
            }
            request.push(n.to_string());
        });
        let mut feed = (0..u64::MAX).feed_subprocesses_ordered(template, 2, 10);
        feed.next().unwrap().unwrap();
        holder.hold(feed);
        go.open();
        holder.is_gone();
        before.restored();
    });
}

#[test]
fn a7_dropped_inside_check() {
    alone!(|| {
        let before = Belongings::now();
        let holder = Holder::default();
        let inside = holder.clone();
        let go = Barrier::default();
        let passed = go.clone();
        let template = Template::new("cat").check(move |_, reply| {
            if reply == b"1" {
                passed.pass();
                inside.look();
            }
            Ok(())
        });
        let mut feed =
            (0..u64::MAX).map(|n| n.to_string()).feed_subprocesses_ordered(template, 1, 10);
        assert_eq!(feed.next().unwrap().unwrap(), "0");
        holder.hold(feed);
        go.open();
        holder.is_gone();
        before.restored();
    });
}

/// The source is the last to hold its own feed, and goes when it has come to its end.
#[test]
fn a7_dropped_with_its_source() {
    alone!(|| {
        let before = Belongings::now();
        struct App {
            feed: Mutex<Option<Feed>>,
            gone: Arc<OnceLock<()>>,
        }
        impl Drop for App {
            fn drop(&mut self) {
                drop(self.feed.get_mut().unwrap().take());
                let _ = self.gone.set(());
            }
        }
        let gone = Arc::new(OnceLock::new());
        let app = Arc::new(App { feed: Mutex::new(None), gone: Arc::clone(&gone) });
        let (go, inside) = (Barrier::default(), Arc::clone(&app));
        let passed = go.clone();
        let source = (0..3).map(move |n: u32| {
            let _app = &inside;
            if n == 2 {
                passed.pass();
            }
            n.to_string()
        });
        let mut feed = source.feed_subprocesses_ordered(Template::new("cat"), 2, 10);
        feed.next().unwrap().unwrap();
        *app.feed.lock().unwrap() = Some(feed);
        drop(app);
        go.open();
        eventually("the drop returns", || gone.get().is_some());
        before.restored();
    });
}

#[test]
fn a7_threads_dropped_inside_a_task() {
    alone!(|| {
        let (holder, go) = (Holder::default(), Barrier::default());
        let (inside, passed) = (holder.clone(), go.clone());
        let task = move |n: u64| {
            if n == 1 {
                passed.pass();
                inside.look();
            }
            n
        };
        let mut feed = (0..u64::MAX).feed_threads_ordered(task, 2, 10);
        assert_eq!(feed.next(), Some(0));
        holder.hold(feed);
        go.open();
        holder.is_gone();
    });
}

#[test]
fn a7_threads_dropped_inside_the_sources_next() {
    alone!(|| {
        let (holder, go) = (Holder::default(), Barrier::default());
        let mut feed = holder.looks_at_2(&go).feed_threads_ordered(|n| n, 2, 10);
        feed.next().unwrap();
        holder.hold(feed);
        go.open();
        holder.is_gone();
    });
}

#[test]
fn a7_the_last_stage_of_a_chain_dropped_inside_the_first() {
    alone!(|| {
        let before = Belongings::now();
        let (holder, go) = (Holder::default(), Barrier::default());
        let source = holder.looks_at_2(&go);
        let first = source.feed_subprocesses_ordered(Template::new("cat"), 2, 10);
        let second = first.map(Result::unwrap);
        let mut second = second.feed_subprocesses_ordered(Template::new("cat"), 2, 10);
        second.next().unwrap().unwrap();
        holder.hold(second);
        go.open();
        holder.is_gone();
        before.restored();
    });
}

#[test]
fn a7_a_pipeline_dropped_inside_its_source() {
    alone!(|| {
        use subfeed::pipeline::Pipeline;
        let before = Belongings::now();
        let (holder, go) = (Holder::default(), Barrier::default());
        let mut run = Pipeline::new(holder.looks_at_2(&go))
            .feed("cat", Template::new("cat"))
            .map("behind", |reply| reply)
            .run();
        run.next().unwrap().unwrap();
        holder.hold(run);
        go.open();
        holder.is_gone();
        before.restored();
    });
}

/// While `check` runs nothing of its source moves, nor what it has let through of the same read: so the second record is
/// printed only when the first has been handed on.
#[test]
fn a7_a_command_as_a_source_dropped_inside_its_check() {
    alone!(|| {
        let before = Belongings::now();
        let holder = Holder::default();
        let inside = holder.clone();
        let go = Barrier::default();
        let passed = go.clone();
        let dir = Dir::new();
        let script = format!(
            "echo 1; until [ -e {} ]; do sleep 0.01; done; seq 2 3; exec sleep 100",
            dir.at("go")
        );
        let template = Template::shell(script).check(move |_, record| {
            if record == b"2" {
                passed.pass();
                inside.look();
            }
            Ok(())
        });
        let mut records = iterate_in_subprocess(template, 10).iter();
        assert_eq!(records.next().unwrap().unwrap(), "1");
        dir.touch("go");
        holder.hold(records);
        go.open();
        holder.is_gone();
        before.restored();
    });
}

// ==================================================================== A8: a group of its own

/// Waits until the one child has left the group that it led for ours.
fn regrouped() -> u32 {
    let group = |pid: u32| -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(2)?.parse().ok()
    };
    let own = nix::unistd::getpgrp().as_raw();
    let seen = std::cell::Cell::new(None);
    eventually("it has left its group", || {
        seen.set(children().first().copied().filter(|pid| group(*pid) == Some(own)));
        seen.get().is_some()
    });
    seen.get().expect("it was waited for")
}

#[test]
fn a8_a_worker_in_another_group_goes_with_a_drop() {
    alone!(|| {
        let before = Belongings::now();
        for behaviour in ["regroup stubborn", "regroup deaf", "regroup late /no/such/file"] {
            let (sender, source) = open_ended(vec!["a".to_owned()]);
            let feed = source.feed_subprocesses_ordered(child(behaviour), 1, 3);
            let worker = regrouped();
            soon(|| drop(feed));
            drop(sender);
            eventually("the worker goes", || !is_running(worker));
            before.restored();
        }
    });
}

#[test]
fn a8_a_worker_in_another_group_and_the_limits() {
    alone!(|| {
        let before = Belongings::now();
        let limit = Duration::from_secs(2);
        let late = || child("regroup late /no/such/file").on_stall(OnStall::Wait, limit);
        for template in [
            late().packet_timeout(limit),
            late().start_timeout(limit),
            late().run_timeout(limit),
            late().idle_timeout(limit),
            late().ready("READY\n", limit).give_up_after(1),
            child("regroup deaf").end_timeout(Duration::from_millis(1)),
        ] {
            let feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 3);
            let worker = regrouped();
            soon(|| assert_eq!(feed.count(), 1));
            assert!(!is_running(worker));
            before.restored();
        }
    });
}

#[test]
fn a8_a_source_in_another_group() {
    alone!(|| {
        let before = Belongings::now();
        let template = child("regroup stubborn").preamble("a\n");
        let source = iterate_in_subprocess(template, 3);
        let mut records = source.iter();
        assert_eq!(records.next().unwrap().unwrap(), "a");
        let pid = *children().first().expect("a child");
        soon(|| drop(records));
        assert!(!is_running(pid));
        before.restored();
    });
}

// ==================================================================== A9: no more processes

/// Lets this process's user have so many processes, or `None`: as many as it may.
fn allow_processes(most: Option<u64>) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NPROC).unwrap();
    setrlimit(Resource::RLIMIT_NPROC, most.unwrap_or(hard), hard).unwrap();
}

/// Root is bound by no such limit.
fn become_somebody_else() {
    use nix::unistd::{Uid, setresuid};
    if Uid::effective().is_root() {
        let uid = Uid::from_raw(40_000 + std::process::id() % 20_000);
        setresuid(uid, uid, uid).expect("root may");
    }
}

/// The one worker is killed while no other can be started.
fn a9_fork_fails_in_the_middle(order: Order, template: Template) {
    become_somebody_else();
    let (sender, source) = open_ended(vec!["0".to_owned()]);
    let mut feed = source.feed(template).workers(1).order(order).start();
    let monitor = feed.monitor();
    assert_eq!(feed.next().unwrap().unwrap().trim_ascii(), b"0");
    allow_processes(Some(0));
    children().into_iter().for_each(crate::common::kill);
    (1..10).for_each(|n| sender.send(n.to_string()).unwrap());
    drop(sender);
    let start = Instant::now();
    while monitor.snapshot().hint.is_none() && start.elapsed() < Duration::from_secs(2) {
        thread::sleep(Duration::from_millis(1));
    }
    allow_processes(None);
    let mut rest: Vec<_> =
        texts(feed.by_ref()).iter().map(|reply| reply.trim().to_owned()).collect();
    rest.sort_unstable();
    assert_eq!(rest, (1..10).map(|n| n.to_string()).collect::<Vec<_>>());
}

// No worker here is a file of ours: another user may not read the target directory.

#[test]
fn a9_with_no_worker_alive_fork_fails_for_a_while() {
    alone!(|| a9_fork_fails_in_the_middle(Order::Input, Template::new("cat")));
}

#[test]
fn a9_in_completion_order() {
    alone!(|| a9_fork_fails_in_the_middle(Order::Completion, Template::new("cat")));
}

#[test]
fn a9_with_ready() {
    alone!(|| a9_fork_fails_in_the_middle(Order::Input, ready("exec cat")));
}

#[test]
fn a9_with_side_channels_which_are_forked() {
    alone!(|| {
        let template = Template::new("cat").side_input("side");
        a9_fork_fails_in_the_middle(Order::Input, template);
    });
}

#[test]
fn a9_with_one_process_for_each_packet() {
    alone!(|| {
        let template = Template::new("cat").replies(ReplyFraming::until_eof());
        a9_fork_fails_in_the_middle(Order::Input, template);
    });
}
