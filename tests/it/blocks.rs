//! Blocks: the same results as record by record, whatever is read, however it comes, and whoever dies.

use std::io::{self, Read, Write};
use std::sync::mpsc;

use bstr::BString;
use subfeed::block::BlockFeed;
use subfeed::framing::{Prefix, ReplyFraming, RequestFraming, Sentinel};
use subfeed::policy::Halt;
use subfeed::{Block, Error, ErrorKind, FeedExt, Order, Template, blocks};

use crate::common::{DEADLINE, child, eventually, within};

/// Numbers that have nothing to do with one another, the same at each run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as usize % n
    }
}

/// A reader that gives what it has in pieces: at most so many bytes at a time, now and then an interruption.
struct Pieces {
    bytes: io::Cursor<Vec<u8>>,
    most: usize,
    numbers: Numbers,
}

impl Pieces {
    fn new(bytes: &[u8], most: usize) -> Self {
        Self { bytes: io::Cursor::new(bytes.to_vec()), most, numbers: Numbers(most as u64) }
    }
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.numbers.below(8) == 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let most = into.len().min(1 + self.numbers.below(self.most));
        self.bytes.read(&mut into[..most])
    }
}

/// What came for one record: its reply, or the kind of its error.
type Came = Result<BString, ErrorKind>;

/// What came for each record, in a feed that is ordered, with the number of each.
fn came(feed: BlockFeed) -> Vec<(u64, Came)> {
    let mut all = Vec::new();
    for item in feed {
        match item {
            Ok(block) => {
                assert!(!block.is_empty());
                let replies: Vec<_> = block.records().map(|reply| Ok(reply.to_owned())).collect();
                assert_eq!(replies.len(), block.len(), "a block knows how many it has");
                let numbers = block.first_record()..;
                all.extend(numbers.zip(replies));
            }
            Err(error) => all.push((error.packet().unwrap_or(u64::MAX), Err(error.kind()))),
        }
    }
    all
}

/// The records of some bytes, as everybody would cut them.
fn records(bytes: &[u8], delimiter: u8) -> Vec<Vec<u8>> {
    let mut records: Vec<_> = bytes.split(|&byte| byte == delimiter).map(<[u8]>::to_vec).collect();
    if records.last().is_some_and(Vec::is_empty) {
        records.pop();
    }
    records
}

/// The same record by record.
fn one_by_one(bytes: &[u8], delimiter: u8, template: Template, workers: usize) -> Vec<(u64, Came)> {
    let feed = records(bytes, delimiter).into_iter().feed(template).workers(workers);
    let items = feed.start().map(|item: Result<BString, Error>| match item {
        Ok(reply) => (None, Ok(reply)),
        Err(error) => (error.packet(), Err(error.kind())),
    });
    (0..).zip(items).map(|(k, (packet, came))| (packet.unwrap_or(k), came)).collect()
}

#[track_caller]
fn same(found: &[(u64, Came)], expected: &[(u64, Came)], what: &str) {
    for (found, expected) in found.iter().zip(expected) {
        if found != expected {
            let short = |(k, came): &(u64, Came)| match came {
                Ok(reply) => {
                    format!("{k}: {} bytes, {:?}", reply.len(), &reply[..reply.len().min(60)])
                }
                Err(kind) => format!("{k}: {kind:?}"),
            };
            panic!("{what}: {} instead of {}", short(found), short(expected));
        }
    }
    assert_eq!(found.len(), expected.len(), "{what}");
}

#[test]
fn random_inputs_and_deaths_come_out_as_record_by_record() {
    within(|| {
        for seed in 0..60u64 {
            let mut numbers = Numbers(seed);
            let delimiter = [b'\n', b'\n', 0][numbers.below(3)];
            let count = [0, 1, 7, 60, 300][numbers.below(5)];
            let mut bytes = Vec::new();
            for _ in 0..count {
                match numbers.below(12) {
                    0 => {}
                    1 => bytes.extend_from_slice(b"poison"),
                    2 => bytes.extend_from_slice(b"a carriage return\r"),
                    3 if delimiter == b'\n' => bytes.extend_from_slice(b"a\0NUL"),
                    4 => bytes.resize(bytes.len() + numbers.below(3_000), b'l'),
                    _ => bytes.extend_from_slice(format!("{}", numbers.below(1 << 20)).as_bytes()),
                }
                bytes.push(delimiter);
            }
            if numbers.below(3) == 0 {
                bytes.pop();
            }
            let lines = delimiter == b'\n';
            let template = match numbers.below(if lines { 5 } else { 2 }) {
                0 => Template::new("cat"),
                // Another delimiter on the way than in the file: what has a line feed in it fails.
                1 if !lines => Template::new("cat")
                    .requests(RequestFraming::delimited(0))
                    .replies(ReplyFraming::delimited(0)),
                1 => child("poison").retries(0),
                2 => child("poison").retries(1).halt(Halt::Never),
                3 => child(&format!("exit_after {} {}", 1 + numbers.below(9), numbers.below(2))),
                _ => child(&format!("signal_at {} 9", 2 + numbers.below(9))),
            };
            let workers = 1 + numbers.below(4);
            let pieces = Pieces::new(&bytes, [1, 50, 1 << 20][numbers.below(3)]);
            let reading = blocks(pieces).delimiter(delimiter);
            let reading = reading.block_size([1, 10, 1_000, 64 << 10][numbers.below(4)]);
            let mut feed = reading.feed(template.clone()).workers(workers);
            if numbers.below(2) == 0 {
                feed = feed.buffer(1 + numbers.below(20));
            }
            if numbers.below(2) == 0 {
                feed = feed.max_bytes(1 + numbers.below(5_000));
            }
            let found = came(feed.start());
            let expected = one_by_one(&bytes, delimiter, template, workers);
            same(&found, &expected, &format!("seed {seed}"));
        }
    });
}

#[test]
fn sizes_from_nothing_to_ten_mebibytes_in_one_file_come_back_as_they_were() {
    within(|| {
        let mut bytes = Vec::new();
        for size in [1, 0, 10 << 20, 0, 0, 65_535, 65_536, 3, 131_072, 1, 1 << 20, 7] {
            bytes.resize(bytes.len() + size, b'x');
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(b"no line feed behind this");
        for workers in [1, 3] {
            let mut out = Vec::new();
            let mut feed = blocks(io::Cursor::new(bytes.clone()))
                .feed(Template::new("cat"))
                .workers(workers)
                .start();
            assert_eq!(feed.copy_to(&mut out).unwrap(), 13);
            assert_eq!(out.len(), bytes.len() + 1);
            assert!(out[..bytes.len()] == bytes && out.ends_with(b"this\n"));
            let snapshot = feed.finish().unwrap();
            assert_eq!((snapshot.accepted, snapshot.replies), (13, 13));
        }
    });
}

#[test]
fn an_empty_file_and_one_huge_record_are_files_too() {
    within(|| {
        let feed = blocks(io::empty()).feed(Template::new("cat")).workers(2).start();
        assert_eq!(came(feed), []);
        let huge = vec![b'h'; 9 << 20];
        let feed =
            blocks(io::Cursor::new(huge.clone())).feed(Template::new("cat")).workers(2).start();
        let found = came(feed);
        assert!(found == [(0, Ok(huge.into()))]);
        let feed = blocks(&b"\n"[..]).feed(Template::new("cat")).workers(2).start();
        assert_eq!(came(feed), [(0, Ok("".into()))]);
    });
}

#[test]
fn framings_that_are_no_lines_give_the_same_types_and_results() {
    within(|| {
        let input = b"one\ntwo words\n\nfour\n";
        let shell = |script: &str| Template::shell(script);
        let prefixed = Template::new("cat")
            .requests(RequestFraming::prefixed(Prefix::u32_be()))
            .replies(ReplyFraming::prefixed(Prefix::u32_be()));
        let twice = shell(r#"while IFS= read -r l; do printf '%s\n%s\n' "$l" "$l"; done"#);
        let some = shell(r#"while IFS= read -r l; do eval "$l"; done"#)
            .replies(Sentinel::new("printf '%s%s\\n' {mark1} {mark2}"));
        let whole = Template::new("tr").args(["a-z", "A-Z"]).replies(ReplyFraming::until_eof());
        let checked = Template::new("cat").check(|request: &[u8], reply: &[u8]| {
            if request == [reply, b"\n"].concat() { Ok(()) } else { Err("another one".into()) }
        });
        for (template, expected) in [
            (prefixed, &b"one\ntwo words\n\nfour\n"[..]),
            (
                twice.replies(ReplyFraming::lines(2)),
                b"one\none\ntwo words\ntwo words\n\n\nfour\nfour\n",
            ),
            (whole.requests(RequestFraming::line()), b"ONE\nTWO WORDS\n\nFOUR\n"),
            (checked, b"one\ntwo words\n\nfour\n"),
        ] {
            let mut out = Vec::new();
            let mut feed = blocks(&input[..]).feed(template.clone()).workers(2).start();
            assert_eq!(feed.copy_to(&mut out).unwrap(), 4, "{template:?}");
            assert_eq!(BString::from(out), BString::from(expected), "{template:?}");
            same(
                &came(blocks(&input[..]).feed(template.clone()).workers(2).start()),
                &one_by_one(input, b'\n', template.clone(), 2),
                &format!("{template:?}"),
            );
        }
        let input = b"echo 1; echo 2\n:\necho 3\n";
        let mut out = Vec::new();
        let mut feed = blocks(&input[..]).feed(some).workers(2).start();
        assert_eq!(feed.copy_to(&mut out).unwrap(), 3);
        assert_eq!(BString::from(out), "1\n2\n3\n");
    });
}

#[test]
fn another_delimiter_than_the_tools_is_written_anew_and_what_cannot_be_is_an_error() {
    within(|| {
        let input = b"one\0two\nlines\0three";
        let feed = blocks(&input[..]).delimiter(0).feed(Template::new("cat")).workers(2).start();
        let expected =
            [(0, Ok("one".into())), (1, Err(ErrorKind::Encode)), (2, Ok("three".into()))];
        assert_eq!(came(feed), expected);
    });
}

#[test]
fn a_record_over_the_limit_is_an_error_in_its_place() {
    within(|| {
        let mut bytes = Vec::new();
        for (k, size) in [5, 11, 10, 10_000, 0, 12, 12, 3].into_iter().enumerate() {
            bytes.resize(bytes.len() + size, b'0' + k as u8);
            bytes.push(b'\n');
        }
        // Also where the file ends in such a record.
        bytes.resize(bytes.len() + 500, b'9');
        for block in [1, 4, 16, 64 << 10] {
            for most in [1, 7, 1 << 20] {
                let reading = blocks(Pieces::new(&bytes, most)).block_size(block).record_limit(10);
                let found = came(reading.feed(Template::new("cat")).workers(2).start());
                let lens: Vec<_> =
                    found.iter().map(|(_, came)| came.as_ref().map(|reply| reply.len())).collect();
                let long = Err(&ErrorKind::Encode);
                let expected = [Ok(5), long, Ok(10), long, Ok(0), long, long, Ok(3), long];
                assert_eq!(lens, expected, "blocks of {block}, reads of {most}");
                assert!(found.iter().map(|(k, _)| *k).eq(0..9));
            }
        }
    });
}

/// Gives some bytes, then an error.
struct Torn(Option<&'static [u8]>);

impl Read for Torn {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.take() {
            Some(bytes) => {
                into[..bytes.len()].copy_from_slice(bytes);
                Ok(bytes.len())
            }
            None => Err(io::Error::other("the disk is on fire")),
        }
    }
}

#[test]
fn a_reader_that_errs_is_the_last_item_behind_what_was_read_and_half_a_record_is_none() {
    within(|| {
        for order in [Order::Input, Order::Completion] {
            let reader = Torn(Some(b"one\ntwo\nthr"));
            let mut feed =
                blocks(reader).feed(Template::new("cat")).workers(2).order(order).start();
            let mut out = Vec::new();
            let error = feed.copy_to(&mut out).unwrap_err();
            let error = error.get_ref().and_then(|error| error.downcast_ref::<Error>()).unwrap();
            assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::Source, true));
            let said = error.to_string();
            assert!(
                said.contains("the disk is on fire") && said.contains("3 bytes of a record"),
                "{said}"
            );
            // Two workers may have had one each.
            let swapped = order == Order::Completion && out == b"two\none\n";
            assert!(swapped || out == b"one\ntwo\n", "{:?}", BString::from(out));
            assert!(feed.next().is_none() && feed.next().is_none());
        }
    });
}

#[test]
fn a_record_of_a_slow_source_does_not_wait_for_its_block_to_fill() {
    within(|| {
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut feed = blocks(theirs).feed(Template::new("cat")).workers(2).start();
        for k in 0..20u64 {
            // One record and the half of another: the first must come back with nothing after it.
            write!(ours, "record {k}\nand half of").unwrap();
            let block = feed.next().unwrap().unwrap();
            assert_eq!((block.first_record(), block.len()), (2 * k, 1));
            ours.write_all(b" another\n").unwrap();
            let block = feed.next().unwrap().unwrap();
            assert_eq!(block.as_bytes(), b"and half of another\n");
        }
        drop(ours);
        assert!(feed.next().is_none());
    });
}

#[test]
fn look_ahead_is_bounded_in_records_and_in_bytes() {
    /// Says how many bytes have been read.
    struct Counting(mpsc::Sender<usize>);
    impl Read for Counting {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            into.fill(b'\n');
            let _ = self.0.send(into.len());
            Ok(into.len())
        }
    }
    within(|| {
        let (say, read) = mpsc::channel();
        let max_bytes = 100_000;
        let mut feed = blocks(Counting(say))
            .block_size(10_000)
            .feed(Template::new("cat"))
            .workers(2)
            .max_bytes(max_bytes)
            .start();
        let (mut yielded, mut seen) = (0, 0);
        for _ in 0..300 {
            yielded += feed.next().unwrap().unwrap().as_bytes().len();
            seen += read.try_iter().sum::<usize>();
            assert!(seen <= yielded + max_bytes + 2 * 10_000, "{seen} read, {yielded} yielded");
        }
        drop(feed);
        // A window in records cuts blocks.
        let feed = blocks(io::Cursor::new(b"\n".repeat(1_000)));
        let feed = feed.feed(Template::new("cat")).workers(2).buffer(7).start();
        let blocks: Vec<Block> = feed.map(|block| block.unwrap()).collect();
        assert!(blocks.iter().all(|block| block.len() <= 7));
        assert_eq!(blocks.iter().map(Block::len).sum::<usize>(), 1_000);
    });
}

#[test]
fn in_completion_order_each_record_comes_once() {
    within(|| {
        let input: String = (0..50_000).map(|k| format!("{k}\n")).collect();
        let feed = blocks(io::Cursor::new(input))
            .block_size(1_000)
            .feed(Template::new("cat"))
            .workers(3)
            .order(Order::Completion)
            .start();
        let mut seen = vec![false; 50_000];
        for block in feed {
            let block = block.unwrap();
            for (k, reply) in (block.first_record()..).zip(block.records()) {
                assert_eq!(reply, k.to_string().as_bytes());
                assert!(!std::mem::replace(&mut seen[k as usize], true));
            }
        }
        assert!(seen.into_iter().all(|seen| seen));
    });
}

#[test]
fn a_feed_of_blocks_is_dropped_at_any_time_also_while_its_reader_blocks() {
    within(|| {
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.write_all(b"one\ntwo\n").unwrap();
        let mut feed = blocks(theirs).feed(Template::new("cat")).workers(2).start();
        assert_eq!(feed.next().unwrap().unwrap().first_record(), 0);
        let (done, dropped) = mpsc::channel();
        std::thread::spawn(move || {
            drop(feed);
            let _ = done.send(());
        });
        assert!(dropped.recv_timeout(DEADLINE).is_ok());
        // The block that somebody keeps outlives its feed.
        let mut feed = blocks(io::repeat(b'\n')).feed(Template::new("cat")).workers(2).start();
        let block = feed.next().unwrap().unwrap();
        drop(feed);
        assert!(block.records().all(|reply| reply.is_empty()));
    });
}

#[test]
fn a_panic_of_the_reader_comes_out_behind_what_it_gave() {
    struct Panics(bool);
    impl Read for Panics {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if std::mem::replace(&mut self.0, true) {
                std::panic::panic_any("a reader's payload");
            }
            into[..4].copy_from_slice(b"one\n");
            Ok(4)
        }
    }
    within(|| {
        let mut feed = blocks(Panics(false)).feed(Template::new("cat")).workers(1).start();
        assert_eq!(feed.next().unwrap().unwrap().as_bytes(), b"one\n");
        let next = std::panic::AssertUnwindSafe(|| feed.next().is_none());
        let payload = std::panic::catch_unwind(next).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"a reader's payload"));
        assert!(feed.next().is_none());
    });
}

#[test]
fn what_is_wrong_with_the_options_is_the_only_item() {
    within(|| {
        let cat = || Template::new("cat");
        let reading = || blocks(&b"one\n"[..]);
        for (feed, said) in [
            (reading().block_size(0).feed(cat()).start(), "block_size"),
            (reading().block_size(usize::MAX).feed(cat()).start(), "block_size"),
            (reading().feed(cat()).workers(0).start(), "at least one worker"),
            (reading().feed(cat()).buffer(0).start(), "buffer"),
            (reading().feed(cat().side_output("log", ReplyFraming::line())).start(), "log"),
            (reading().feed(cat().keep_stderr().in_flight(1)).start(), "keep_stderr"),
            (reading().feed(cat().side_input("more")).start(), "more"),
            (reading().feed(Template::new("no-such-tool")).start(), "no-such-tool"),
        ] {
            let items: Vec<_> = feed.collect();
            let error = items[0].as_ref().unwrap_err();
            assert!(items.len() == 1 && error.is_fatal(), "{error}");
            assert!(error.to_string().contains(said), "{error}");
        }
    });
}

#[test]
fn a_reply_too_many_or_too_few_is_never_passed_over() {
    within(|| {
        for (behaviour, owed) in [("extra 3", 3), ("trailing", 0)] {
            let input = b"1\n2\n3\n4\n5\n";
            let feed = blocks(&input[..]).feed(child(behaviour)).workers(1).start();
            let items: Vec<_> = feed.collect();
            let error = items.iter().filter_map(|item| item.as_ref().err()).find(|error| {
                error.is_fatal() && matches!(error.kind(), ErrorKind::ReplyCount { .. })
            });
            assert!(error.is_some(), "{behaviour}, {owed}: {items:?}");
        }
        let feed = blocks(&b"1\n2\nskip\n4\n"[..]).feed(child("skip")).workers(1).start();
        assert!(feed.into_iter().any(|item| item.is_err()));
    });
}

#[test]
fn a_feed_that_is_stopped_soon_answers_what_was_read_and_one_stopped_now_ends() {
    within(|| {
        for now in [false, true] {
            let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            ours.write_all(b"one\ntwo\nhalf").unwrap();
            let behaviour = if now { "silent" } else { "echo" };
            let template = child(behaviour);
            let feed = blocks(theirs).feed(template).workers(2).start();
            let (stopper, monitor) = (feed.stopper(), feed.monitor());
            let consumer = std::thread::spawn(move || came(feed));
            eventually("both were read", || monitor.snapshot().accepted == 2);
            // The reader blocks, and so does the consumer.
            if now {
                stopper.end()
            } else {
                stopper.stop()
            }
            let found = consumer.join().unwrap();
            let expected = [(0, Ok("one".into())), (1, Ok("two".into()))];
            assert_eq!(found, if now { vec![] } else { expected.to_vec() }, "{stopper:?}");
        }
    });
}
