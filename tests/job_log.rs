//! `FeedBuilder::job_log`: a line for each packet of which it is known what became.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use subfeed::{ErrorKind, FeedExt, Order, Template};

use common::{Dir, child, eventually, numbers, within};

/// The lines of a log below its header, by the packet id.
fn rows(path: &Path) -> BTreeMap<u64, Vec<String>> {
    let text = fs::read_to_string(path).expect("a log");
    let mut lines = text.lines();
    let header =
        "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tWorker\tAttempts";
    assert_eq!(lines.next(), Some(header));
    let mut rows = BTreeMap::new();
    for line in lines {
        let fields: Vec<_> = line.split('\t').map(str::to_owned).collect();
        assert_eq!(fields.len(), 10, "{line}");
        let seq = fields[0].parse().expect("a number");
        assert!(rows.insert(seq, fields).is_none(), "packet {seq} has two lines");
    }
    rows
}

#[test]
fn every_packet_has_one_line_with_its_bytes_and_its_worker() {
    within(|| {
        let dir = Dir::new();
        let log = dir.path("log");
        let mut feed = numbers(5_000).feed(Template::new("cat")).workers(3).buffer(500);
        feed = feed.order(Order::Completion).job_log(&log).first_packet(100);
        let mut feed = feed.start();
        assert_eq!(feed.by_ref().filter(Result::is_ok).count(), 5_000);
        // The end has come, so everything is written.
        let rows = rows(&log);
        assert_eq!(rows.len(), 5_000);
        let answered = feed.monitor().workers().into_iter().map(|worker| worker.answered);
        let mut lines = vec![0; 3];
        for (n, (seq, row)) in rows.iter().enumerate() {
            assert_eq!(*seq, 100 + n as u64);
            let digits = n.to_string().len();
            assert_eq!(row[4], (digits + 1).to_string(), "with its newline");
            assert_eq!(row[5], digits.to_string(), "without");
            assert_eq!((&*row[1], &*row[6], &*row[7], &*row[9]), (":", "0", "0", "1"));
            lines[row[8].parse::<usize>().expect("a worker")] += 1;
        }
        assert_eq!(lines, answered.collect::<Vec<_>>());
        feed.finish().expect("no remark");
    });
}

#[test]
fn the_times_of_a_workers_packets_are_what_it_was_busy() {
    within(|| {
        let dir = Dir::new();
        let log = dir.path("log");
        let feed = numbers(12).feed(child("slow 20")).workers(2).job_log(&log).start();
        let monitor = feed.monitor();
        assert_eq!(feed.count(), 12);
        let mut times = [0.0; 2];
        for row in rows(&log).values() {
            let (start, lasted): (f64, f64) = (row[2].parse().unwrap(), row[3].parse().unwrap());
            assert!(start > 1.6e9);
            times[row[8].parse::<usize>().unwrap()] += lasted;
        }
        for (worker, time) in monitor.workers().iter().zip(times) {
            let busy = worker.busy.as_secs_f64();
            assert!(time <= busy + 0.001, "{time} of {busy}");
            assert!(time >= 0.019 * worker.answered as f64, "{time} for {}", worker.answered);
        }
    });
}

#[test]
fn failures_have_their_exit_and_signal_and_attempts() {
    within(|| {
        let dir = Dir::new();
        let log = dir.path("log");
        let words = ["a", "poison", "b", "line\nbreak"];
        let template = child("poison").retries(1);
        let feed = words.into_iter().feed(template).workers(2).job_log(&log).start();
        let errors: Vec<_> = feed.map(|reply| reply.err().map(|error| error.kind())).collect();
        assert_eq!(errors[1], Some(ErrorKind::Died));
        assert_eq!(errors[3], Some(ErrorKind::Encode));
        let rows = rows(&log);
        assert_eq!(rows.len(), 4);
        let poison = &rows[&1];
        assert_eq!((&*poison[4], &*poison[5], &*poison[6], &*poison[7]), ("7", "0", "0", "9"));
        assert_eq!(poison[9], "2");
        let refused = &rows[&3];
        assert_eq!((&*refused[6], &*refused[7], &*refused[8]), ("-1", "0", "-"));
        for ok in [0, 2] {
            assert_eq!((&*rows[&ok][6], &*rows[&ok][7]), ("0", "0"));
        }

        let log = dir.path("code");
        let template = Template::shell("read -r line; exit 3").retries(0);
        let feed = numbers(1).feed(template).workers(1).job_log(&log).start();
        assert_eq!(feed.filter(Result::is_err).count(), 1);
        let rows = self::rows(&log);
        assert_eq!((&*rows[&0][6], &*rows[&0][7], &*rows[&0][8]), ("3", "0", "0"));
    });
}

#[test]
fn whole_outputs_and_checked_replies_are_timed_too() {
    within(|| {
        let dir = Dir::new();
        let log = dir.path("log");
        let template = Template::shell("read -r line; sleep 0.05; echo \"$line\"; echo more")
            .replies(subfeed::framing::ReplyFraming::until_eof());
        let feed = numbers(3).feed(template).workers(1).job_log(&log).start();
        assert_eq!(feed.filter(Result::is_ok).count(), 3);
        for row in rows(&log).values() {
            assert!(row[3].parse::<f64>().expect("a time") > 0.049, "{row:?}");
            assert_eq!(row[5], "7");
        }
    });
}

#[test]
fn a_folder_that_is_gone_is_the_one_fatal_error() {
    within(|| {
        let dir = Dir::new();
        let path = dir.path("gone").join("log");
        let mut feed = numbers(3).feed(Template::new("cat")).job_log(&path).start();
        let error = feed.next().expect("an item").expect_err("an error");
        assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::File, true));
        assert!(error.to_string().contains("gone/log"), "{error}");
        assert!(error.to_string().contains("No such file or directory"), "{error}");
        assert!(feed.next().is_none());
        let error = numbers(3).feed(Template::new("cat")).job_log(dir.path("log")).drain();
        assert_eq!(error.expect_err("an error").kind(), ErrorKind::Config);
    });
}

#[test]
fn a_path_whose_open_would_wait_is_the_one_fatal_error() {
    within(|| {
        let dir = Dir::new();
        let path = dir.path("log");
        let refused = |why: &str| {
            let mut feed = numbers(3).feed(Template::new("cat")).job_log(&path).start();
            let error = feed.next().expect("an item").expect_err("an error");
            assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::File, true));
            assert!(error.to_string().contains(why), "{error}");
            assert!(feed.next().is_none());
            fs::remove_file(&path).expect("it goes");
        };
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
        refused("it is a named pipe that no program reads");
        let _socket = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        refused("it is a socket");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_write_that_fails_ends_the_log_and_not_the_feed() {
    within(|| {
        let feed = numbers(50_000).feed(Template::new("cat")).workers(2).job_log("/dev/full");
        let mut feed = feed.start();
        let monitor = feed.monitor();
        assert_eq!(feed.by_ref().filter(Result::is_ok).count(), 50_000);
        let hint = monitor.snapshot().hint.expect("a hint");
        assert!(hint.contains("/dev/full"), "{hint}");
        let remark = feed.finish().expect_err("a remark");
        assert_eq!(remark.kind(), ErrorKind::File);
        assert!(!remark.is_fatal());
        assert!(remark.to_string().contains("No space left"), "{remark}");
    });
}

#[test]
fn a_log_that_nobody_reads_holds_up_the_feed_and_not_its_drop() {
    within(|| {
        let dir = Dir::new();
        let fifo = dir.path("log");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
        let mut open = fs::OpenOptions::new();
        let mut reader = open.read(true).write(true).open(&fifo).expect("a reader");
        let source = (0u64..).map(|n| n.to_string());
        let mut feed = source.feed(Template::new("cat")).workers(2).job_log(&fifo).start();
        let monitor = feed.monitor();
        let (send, stop) = std::sync::mpsc::channel();
        let consumer = thread::spawn(move || {
            while stop.try_recv().is_err() && feed.next().is_some() {}
            feed
        });
        // Held up: nothing more comes out.
        let mut before = u64::MAX;
        eventually("it is held up", || {
            thread::sleep(Duration::from_millis(300));
            std::mem::replace(&mut before, monitor.snapshot().yielded) == monitor.snapshot().yielded
        });
        assert!(monitor.snapshot().yielded < 200_000);
        // Read, it goes on.
        let mut bytes = vec![0; 1 << 16];
        eventually("it goes on", || {
            let _ = std::io::Read::read(&mut reader, &mut bytes).expect("lines");
            monitor.snapshot().yielded > before
        });
        send.send(()).expect("a consumer");
        // It may sleep in `next`, with the log full again.
        eventually("the consumer has stopped", || {
            if !consumer.is_finished() {
                let _ = std::io::Read::read(&mut reader, &mut bytes).expect("lines");
            }
            consumer.is_finished()
        });
        let feed = consumer.join().expect("a feed");
        let start = std::time::Instant::now();
        drop(feed);
        println!("the drop took {:?}", start.elapsed());
        // The thread is let go of by its reader.
        drop(reader);
    });
}

#[test]
fn a_log_goes_on_where_another_run_ended() {
    within(|| {
        let dir = Dir::new();
        let log = dir.path("log");
        for first in [0, 10] {
            let feed = numbers(10).feed(Template::new("cat")).first_packet(first).job_log(&log);
            assert_eq!(feed.start().count(), 10);
        }
        assert_eq!(rows(&log).into_keys().collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    });
}
