//! Runs that are interrupted and go on: `subfeed::checkpoint`.

mod common;

use std::collections::HashMap;
use std::env;
use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use subfeed::checkpoint::{Checkpoint, Checkpointed};
use subfeed::{Error, ErrorKind, Feed, FeedExt, Order, Template};

use common::{Dir, child, eventually, numbers, within, within_limit};

const KEY: &str = "a run";

fn count(path: &Path) -> u64 {
    Checkpoint::open(path, KEY).expect("a checkpoint").count()
}

type Run = Checkpointed<Feed>;

/// Goes on with the numbers up to `n`, writing down each.
fn run(path: &Path, n: u64, template: Template) -> Run {
    let checkpoint = Checkpoint::open(path, KEY).expect("a checkpoint").every(1, Duration::ZERO);
    let done = checkpoint.count();
    let rest = numbers(n).skip(usize::try_from(done).expect("a size"));
    let feed = rest.feed(template).workers(2).buffer(20).first_packet(done).start();
    feed.checkpointed(checkpoint)
}

fn cat() -> Template {
    Template::new("cat")
}

#[test]
fn a_run_goes_on_where_another_one_was_interrupted() {
    within(|| {
        let dir = Dir::new();
        let path = dir.path("run.done");
        let mut seen = Vec::new();
        for stop_at in [3, 4, 9, 20] {
            for reply in run(&path, 12, cat()) {
                let n: u64 = reply.expect("a reply").to_string().parse().unwrap();
                if n == stop_at {
                    break;
                }
                seen.push(n);
            }
            assert_eq!(count(&path), stop_at.min(12), "`break` does not acknowledge");
        }
        assert_eq!(seen, (0..12).collect::<Vec<_>>());
        assert_eq!(run(&path, 12, cat()).count(), 0, "all is done");
        assert_eq!(
            fs::read_dir(dir.path("")).expect("a folder").count(),
            1,
            "nothing is left beside"
        );
    });
}

#[test]
fn an_early_return_and_a_panic_do_not_acknowledge_and_ack_does() {
    within(|| {
        let dir = Dir::new();
        let path = dir.path("run.done");
        let fails = |at: u64| -> Result<(), Error> {
            for (n, reply) in (0..).zip(run(&path, 10, child("poison"))) {
                let _ = reply?;
                if n == at {
                    return Err(Checkpoint::open("/nowhere/at/all", KEY).expect_err("an error"));
                }
            }
            Ok(())
        };
        fails(2).expect_err("an error");
        assert_eq!(count(&path), 2);
        let panics = catch_unwind(AssertUnwindSafe(|| {
            for (n, reply) in (0..).zip(run(&path, 10, cat())) {
                assert!(reply.is_ok() && n < 3, "told");
            }
        }));
        assert!(panics.is_err());
        assert_eq!(count(&path), 5);
        let mut feed = run(&path, 10, cat());
        feed.ack().expect("nothing to do");
        assert_eq!(feed.acknowledged(), 5);
        feed.next().expect("an item").expect("a reply");
        feed.ack().expect("written");
        feed.ack().expect("once");
        assert_eq!(feed.acknowledged(), 6);
        drop(feed);
        assert_eq!(count(&path), 6);
    });
}

#[test]
fn an_error_that_is_gone_past_is_done_and_a_fatal_one_is_not() {
    within(|| {
        let dir = Dir::new();
        let path = dir.path("run.done");
        let words = |from: usize| {
            let words = ["a", "poison", "b", "c"].into_iter().map(str::to_owned);
            words.skip(from)
        };
        let checkpoint = Checkpoint::open(&path, KEY).expect("a checkpoint");
        let feed = words(0).feed(child("poison").retries(0)).workers(1).start();
        let replies: Vec<_> = feed.checkpointed(checkpoint).map(|reply| reply.is_ok()).collect();
        assert_eq!(replies, [true, false, true, true]);
        assert_eq!(count(&path), 4);

        let path = dir.path("fatal.done");
        let checkpoint = Checkpoint::open(&path, KEY).expect("a checkpoint");
        let template = child("poison").retries(0).halt(subfeed::policy::Halt::Now(1)).in_flight(1);
        let feed = words(0).feed(template).workers(1).start();
        let replies: Vec<_> = feed.checkpointed(checkpoint).collect();
        assert!(replies.iter().any(|reply| reply.as_ref().is_err_and(Error::is_fatal)));
        let done = replies.iter().take_while(|reply| !reply.as_ref().is_err_and(Error::is_fatal));
        assert_eq!(count(&path), done.count() as u64);
        assert!(count(&path) <= 2, "what was never done comes again");
    });
}

#[test]
fn inputs_that_are_kept_come_with_their_items() {
    within(|| {
        let dir = Dir::new();
        let checkpoint = Checkpoint::open(dir.path("run.done"), KEY).expect("a checkpoint");
        let feed = numbers(5).feed(cat()).workers(1).keep_input().start().checkpointed(checkpoint);
        for (n, pair) in feed.enumerate() {
            let (input, reply) = pair.expect("a reply");
            assert_eq!((input, reply.to_string()), (n.to_string(), n.to_string()));
        }
        assert_eq!(count(&dir.path("run.done")), 5);
    });
}

#[test]
fn what_passes_by_counts_too() {
    within(|| {
        let dir = Dir::new();
        let path = dir.path("run.done");
        let lines = || (0..6).map(|n| if n == 2 { Err(Told::Theirs) } else { Ok(n.to_string()) });
        for stop_at in [4, 9] {
            let checkpoint = Checkpoint::open(&path, KEY).expect("a checkpoint");
            let done = checkpoint.count();
            let rest = lines().skip(usize::try_from(done).expect("a size"));
            let feed = rest.try_feed(cat()).workers(1).first_packet(done).start();
            for (n, item) in (done..).zip(feed.checkpointed(checkpoint)) {
                if n == stop_at {
                    break;
                }
                match item {
                    Ok(reply) => assert_eq!(reply, n.to_string().as_bytes()),
                    Err(told) => assert!(n == 2 && matches!(told, Told::Theirs), "{told:?}"),
                }
            }
            assert_eq!(count(&path), stop_at.min(6));
        }
        let unordered = lines().try_feed(cat()).order(Order::Completion).start();
        let checkpoint = Checkpoint::open(dir.path("other.done"), KEY).expect("a checkpoint");
        let refused = unordered.checkpointed(checkpoint).next().expect("an item");
        assert!(matches!(refused, Err(Told::Ours(ErrorKind::Config))), "{refused:?}");
    });
}

#[derive(Debug)]
enum Told {
    Theirs,
    Ours(ErrorKind),
}

impl From<Error> for Told {
    fn from(error: Error) -> Self {
        Self::Ours(error.kind())
    }
}

/// The only item: a fatal configuration error.
fn refused(mut feed: Run) -> String {
    assert_eq!(feed.size_hint().0, 0);
    let error = feed.next().expect("an item").expect_err("an error");
    assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::Config, true), "{error}");
    assert!(feed.next().is_none() && feed.next().is_none());
    error.to_string()
}

#[test]
fn what_cannot_be_checkpointed_is_refused() {
    within(|| {
        let dir = Dir::new();
        let path = dir.path("run.done");
        let open = || Checkpoint::open(&path, KEY).expect("a checkpoint");
        let unordered = numbers(5).feed(cat()).order(Order::Completion).start();
        let error = refused(unordered.checkpointed(open()));
        assert!(error.contains("Order::Input"), "{error}");
        let error = refused(numbers(5).feed(cat()).first_packet(3).start().checkpointed(open()));
        assert!(error.contains("first_packet(0)"), "{error}");
        assert_eq!(run(&path, 2, cat()).count(), 2);
        let forgotten = numbers(5).feed(cat()).start().checkpointed(open());
        let error = refused(forgotten);
        assert!(error.contains("counts 2 items") && error.contains("first_packet(2)"), "{error}");
        let finished = numbers(5).feed(cat()).start().checkpointed(open()).finish();
        assert_eq!(finished.expect_err("an error").kind(), ErrorKind::Config);
        assert_eq!(count(&path), 2);
    });
}

#[test]
fn a_file_that_is_not_ours_or_of_another_run_is_told_and_left_alone() {
    within(|| {
        let dir = Dir::new();
        let path = dir.path("run.done");
        assert_eq!(run(&path, 7, cat()).count(), 7);
        let good = fs::read(&path).expect("a file");
        let open = |key: &str| Checkpoint::open(&path, key).map(|checkpoint| checkpoint.count());
        let told = |key: &str, what: &str| {
            let before = fs::read(&path).expect("a file");
            let error = open(key).expect_err(what);
            assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::File, true), "{error}");
            assert!(error.to_string().contains(what), "{error}");
            assert!(error.to_string().contains("run.done"), "{error}");
            assert_eq!(fs::read(&path).expect("a file"), before, "it is left alone");
        };
        told("another run", "is of another run");
        told("", "is of another run");
        fs::write(&path, "").expect("a file");
        told(KEY, "is an empty file");
        for len in 1..good.len() {
            fs::write(&path, &good[..len]).expect("a file");
            told(KEY, "is cut off, or was changed");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).expect("a file");
            let what = if at < 20 { "is no checkpoint" } else { "is cut off, or was changed" };
            told(KEY, what);
        }
        for text in ["hello\n", "{\"count\": 7}", "\u{0}\u{0}\u{0}\u{0}"] {
            fs::write(&path, text).expect("a file");
            told(KEY, "is no checkpoint");
        }
        let longer = [&good[..], b"count 9\n"].concat();
        fs::write(&path, longer).expect("a file");
        told(KEY, "is cut off, or was changed");
        fs::write(&path, &good).expect("a file");
        assert_eq!(open(KEY).expect("a count"), 7);

        let gone = Checkpoint::open(dir.path("gone").join("run.done"), KEY).expect_err("an error");
        assert_eq!(gone.kind(), ErrorKind::File);
        assert!(gone.to_string().contains("cannot be written"), "{gone}");
        let folder = Checkpoint::open(dir.path(""), KEY).expect_err("an error");
        assert_eq!(folder.kind(), ErrorKind::File);
        let long = Checkpoint::open(&path, vec![0; 1 << 20]).expect_err("an error");
        assert_eq!(long.kind(), ErrorKind::Config);
    });
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    within(|| {
        let dir = Dir::new();
        let told = |path: &Path| {
            let error = Checkpoint::open(path, KEY).expect_err("an error");
            assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::File, true), "{error}");
            assert!(error.to_string().contains("is no regular file"), "{error}");
        };
        let fifo = dir.path("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
        let link = dir.path("link");
        std::os::unix::fs::symlink(&fifo, &link).expect("a link");
        for path in [&fifo, &link, &dir.path(""), Path::new("/dev/zero"), Path::new("/dev/null")] {
            told(path);
        }
    });
}

#[test]
fn a_link_stays_and_the_file_that_it_leads_to_counts() {
    within(|| {
        let dir = Dir::new();
        let (file, folder) = (dir.path("run.done"), dir.path("folder"));
        fs::create_dir(&folder).expect("a folder");
        // One leads to the other, whose end does not exist yet.
        let links = [dir.path("link"), folder.join("link")];
        std::os::unix::fs::symlink("folder/link", &links[0]).expect("a link");
        std::os::unix::fs::symlink("../run.done", &links[1]).expect("a link");
        for done in 1..4 {
            assert_eq!(run(&links[0], done, cat()).count(), 1);
            for path in [&file, &links[0], &links[1]] {
                assert_eq!(count(path), done);
            }
        }
        assert!(links.iter().all(|link| link.is_symlink()) && file.is_file());
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 1, "nothing is left beside");
        fs::remove_file(&file).expect("it goes");
        std::os::unix::fs::symlink("link", &file).expect("a link");
        let error = Checkpoint::open(&links[0], KEY).expect_err("a circle");
        assert!(error.to_string().contains("cannot be read"), "{error}");
    });
}

#[test]
fn a_file_beside_it_that_is_not_ours_is_left_alone() {
    within(|| {
        let dir = Dir::new();
        let (path, beside) = (dir.path("run.done"), dir.path("run.done.new"));
        let open = || Checkpoint::open(&path, KEY);
        let refused = || {
            let error = open().expect_err("an error");
            assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::File, true), "{error}");
            assert!(error.to_string().contains("run.done.new"), "{error}");
            assert!(beside.symlink_metadata().is_ok() && !path.exists());
        };
        for text in ["mine\n", "subfeed checkpoint: notes\n"] {
            fs::write(&beside, text).expect("a file");
            refused();
            assert_eq!(fs::read_to_string(&beside).expect("a file"), text);
        }
        fs::remove_file(&beside).expect("it goes");
        nix::unistd::mkfifo(&beside, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
        refused();
        fs::remove_file(&beside).expect("it goes");
        std::os::unix::fs::symlink(dir.path("elsewhere"), &beside).expect("a link");
        refused();
        fs::remove_file(&beside).expect("it goes");
        // What a crash has left.
        open().expect("a checkpoint");
        let ours = fs::read(&path).expect("a file");
        for length in 0..=ours.len() {
            fs::write(&beside, &ours[..length]).expect("a file");
            open().expect("a checkpoint");
            assert!(!beside.exists());
        }
    });
}

#[test]
fn any_bytes_are_a_key() {
    let dir = Dir::new();
    for (i, key) in [&b""[..], b"\n", b"\xff\x00", b"key 00\ncount 9\n"].into_iter().enumerate() {
        let path = dir.path(&i.to_string());
        drop(Checkpoint::open(&path, key).expect("a checkpoint"));
        assert_eq!(Checkpoint::open(&path, key).expect("the same").count(), 0);
        Checkpoint::open(&path, [key, b"x"].concat()).expect_err("another one");
    }
}

#[test]
fn a_count_that_cannot_be_written_is_the_next_item_and_the_last() {
    within(|| {
        let dir = Dir::new();
        let folder = dir.path("folder");
        fs::create_dir(&folder).expect("a folder");
        let mut feed = run(&folder.join("run.done"), 100, cat());
        feed.next().expect("an item").expect("a reply");
        fs::remove_dir_all(&folder).expect("it goes");
        let error = feed.next().expect("an item").expect_err("an error");
        assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::File, true), "{error}");
        assert!(feed.next().is_none());
    });
}

// -------------------------------------------------------------------- killed

const DIR: &str = "SUBFEED_TEST_CHECKPOINT_DIR";
const LAST: &str = "SUBFEED_TEST_CHECKPOINT_LAST";
const EVERY: &str = "SUBFEED_TEST_CHECKPOINT_EVERY";
const INTERVAL: Duration = Duration::from_millis(20);

/// The program that is killed: it writes down each item, and when, in one write.
#[test]
fn program() {
    let Some(dir) = env::var_os(DIR) else { return };
    let dir = Path::new(&dir);
    let number = |name| env::var(name).expect("a setting").parse::<u64>().expect("a number");
    let checkpoint = Checkpoint::open(dir.join("run.done"), KEY).expect("a checkpoint");
    let checkpoint = checkpoint.every(number(EVERY), INTERVAL);
    let done = checkpoint.count();
    let source = (done..number(LAST)).map(|n| n.to_string());
    let feed = source.feed(cat()).workers(2).buffer(64).first_packet(done).start();
    let mut log = fs::OpenOptions::new();
    let mut log = log.append(true).create(true).open(dir.join("log")).expect("a log");
    writeln!(log, "begins {done} {}", number(EVERY)).expect("a line");
    for reply in feed.checkpointed(checkpoint) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_micros();
        let line = format!("{} {now}\n", reply.expect("a reply"));
        log.write_all(line.as_bytes()).expect("a line");
        thread::sleep(Duration::from_micros(100));
    }
}

fn start(dir: &Path, every: u64, last: u64) -> std::process::Child {
    Command::new(env::current_exe().expect("ourselves"))
        .args(["--exact", "program", "--test-threads", "1"])
        .env(DIR, dir)
        .env(EVERY, every.to_string())
        .env(LAST, last.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a program")
}

/// 200 kills at random points: every item is processed, none is skipped, and what comes again was acknowledged within
/// the interval, or was in hand.
#[test]
fn a_program_that_is_killed_200_times_skips_nothing_and_repeats_little() {
    if cfg!(miri) {
        return;
    }
    within_limit(Duration::from_secs(600), || {
        let dir = Dir::new();
        let path = dir.path("");
        let log_len = || fs::metadata(path.join("log")).map_or(0, |metadata| metadata.len());
        let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut below = |most: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % most
        };
        for round in 0..200 {
            let every = if round % 2 == 0 { 40 } else { u64::MAX };
            let before = log_len();
            let mut program = start(&path, every, u64::MAX);
            // A quarter of them while it still comes up.
            if round % 4 != 0 {
                eventually("it goes on", || log_len() > before);
            }
            thread::sleep(Duration::from_micros(below(60_000)));
            program.kill().expect("it runs");
            program.wait().expect("it is reaped");
        }
        let last = count(&path.join("run.done")) + 500;
        assert!(start(&path, 40, last).wait().expect("an end").success());
        let text = fs::read_to_string(path.join("log")).expect("a log");
        check(&text, last);
    });
}

fn check(text: &str, last: u64) {
    // When each item was processed last; how far the processing came; where the run that is read stands.
    let mut at: HashMap<u64, u64> = HashMap::new();
    let mut every = u64::MAX;
    let (mut next, mut expected, mut runs, mut repeats, mut most) = (0, 0, 0, 0, 0);
    for line in text.lines() {
        let (first, second) = line.split_once(' ').expect("two words");
        if first == "begins" {
            let (begins, items) = second.split_once(' ').expect("two numbers");
            let begins: u64 = begins.parse().expect("a number");
            assert!(begins <= next, "item {next} is skipped: a run begins with {begins}");
            // What the run before has done, and comes again.
            let again = expected - begins;
            if again > 1 {
                // All but the last were acknowledged after the count was written, and within the interval.
                let spread = at[&(expected - 2)] - at[&begins];
                let bound = INTERVAL + Duration::from_millis(1);
                assert!(u128::from(spread) < bound.as_micros(), "{spread} µs come again");
            }
            assert!(again <= every.saturating_add(1), "{again} items come again");
            every = items.parse().expect("a number");
            (runs, repeats, most) = (runs + 1, repeats + again, most.max(again));
            expected = begins;
            continue;
        }
        let item: u64 = first.parse().expect("a number");
        assert_eq!(item, expected, "in order");
        at.insert(item, second.parse().expect("a time"));
        expected += 1;
        next = next.max(expected);
    }
    assert_eq!(next, last, "every item");
    println!("{runs} runs, {next} items, {repeats} repeats, {most} at most in one go");
    assert!(runs > 150 && repeats > 0, "{runs} runs, {repeats} repeats");
}

#[test]
fn items_that_come_again_are_no_more_than_was_said() {
    within(|| {
        let dir = Dir::new();
        let path = dir.path("run.done");
        let checkpoint = Checkpoint::open(&path, KEY).expect("a checkpoint");
        let start = Instant::now();
        let feed = numbers(100).feed(cat()).workers(1).start();
        let mut feed = feed.checkpointed(checkpoint.every(10, Duration::MAX));
        let written = |path: &Path| -> u64 {
            let text = fs::read_to_string(path).expect("a file");
            let line = text.lines().find_map(|line| line.strip_prefix("count "));
            line.expect("a count").parse().expect("a number")
        };
        for n in 0..100 {
            feed.next().expect("an item").expect("a reply");
            // `n` are acknowledged, and every tenth is written down.
            assert_eq!((feed.acknowledged(), written(&path)), (n, n / 10 * 10));
        }
        assert!(feed.next().is_none());
        assert_eq!(written(&path), 100);
        println!("ten syncs in {:?}", start.elapsed());
    });
}
