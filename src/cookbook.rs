//! One recipe for each kind of tool.
//!
//! To find the recipe, answer three questions. How does the tool see that a request is complete? How do you see that its reply
//! is complete? Does it answer at once, or when its buffer is full? Each recipe below runs as a test of this crate, with the
//! real tool.
//!
//! | the tool | is | recipe |
//! |---|---|---|
//! | `jq`, `sed -u`, `grep --line-buffered` | a filter: line in, line out | [jq](#jq-a-filter-with-a-flag-for-its-buffer) |
//! | `tr`, `cut`, `rev` | a filter without such a flag | [tr](#tr-a-filter-without-such-a-flag) |
//! | `bc`, `dc`, `z3` | a calculator that answers nothing if it rejects a request | [bc](#bc-a-calculator-that-keeps-silent-when-it-fails) |
//! | `sqlite3` | an SQL shell: any number of lines | [sqlite3](#sqlite3-any-number-of-lines) |
//! | `psql` | the same with a server | [psql](#psql-the-same-behind-a-connection) |
//! | `node -i`, `ocaml` | a read-eval-print loop with prompts, and requests that may be unfinished | [node](#node--i-prompts-and-unfinished-requests) |
//! | UCI engines, `completed` or `error` | any number of lines, then a known last line | [stockfish](#stockfish-an-end-line-that-belongs-to-the-reply) |
//! | `git check-ignore -z -v` | four fields for each request | [git check-ignore](#git-check-ignore-four-fields-a-reply) |
//! | `exiftool -stay_open` | a tool with an end marker that does not exit when its input ends | [exiftool](#exiftool-an-end-marker-and-a-farewell) |
//! | `git cat-file --batch` | a size in front of the content | [git](#git-cat-file-a-size-in-a-header) |
//! | `hunspell -a`, `aspell -a` | a banner first, then blocks | [hunspell](#hunspell-a-banner-then-blocks) |
//! | a script of your own | anything | [python](#python-a-side-channel), [a model](#a-model-that-takes-long-to-load) |
//! | `gzip`, `sort`, `base64` | one answer per process | [gzip](#gzip-one-process-per-packet) |
//!
//! # jq: a filter with a flag for its buffer
//!
//! Requests and replies are lines, which is the default. `--unbuffered` makes `jq` answer at once. The feed also works without it,
//! but must then close its stdin and start it again for each buffer of replies. If a filter may print no line or several lines for
//! one input (`.[]`, `select`), wrap its result in an array.
//!
//! ```
//! # mod tools { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/tools.rs")); }
//! # if !tools::here(&["jq"]) { return Ok(()); }
//! use subfeed::{FeedExt, Template};
//!
//! let jq = Template::new("jq").args(["--unbuffered", "-c", "[.tags[] | select(. != \"draft\")]"]);
//! let documents = [r#"{"tags":["a","draft","b"]}"#, r#"{"tags":[]}"#];
//! let tags: Vec<_> = documents.into_iter().feed_subprocesses_ordered(jq, 4, 1_000).collect::<Result<_, _>>()?;
//! assert_eq!(tags, [r#"["a","b"]"#, "[]"]);
//! # Ok::<(), subfeed::Error>(())
//! ```
//!
//! With the feature `json`, `Template::json` writes and reads values of your own types instead.
//!
//! # tr: a filter without such a flag
//!
//! [`line_buffered`](crate::Template::line_buffered) has a table of the setting for each tool.
//!
//! ```
//! # mod tools { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/tools.rs")); }
//! # if !tools::here(&["tr", "stdbuf"]) { return Ok(()); }
//! use subfeed::channel::LineBuffered;
//! use subfeed::{FeedExt, Template};
//!
//! let tr = Template::new("tr").args(["a-z", "A-Z"]).line_buffered(LineBuffered::Stdbuf);
//! let loud: Vec<_> = ["tic", "tac"].into_iter().feed_subprocesses_ordered(tr, 2, 100).collect::<Result<_, _>>()?;
//! assert_eq!(loud, ["TIC", "TAC"]);
//! # Ok::<(), subfeed::Error>(())
//! ```
//!
//! # bc: a calculator that keeps silent when it fails
//!
//! If `bc` rejects a request, it prints a message on stderr and nothing on stdout, so its replies cannot be counted. A
//! [sentinel](crate::framing::Sentinel) makes it print a mark after each request, so that a reply may be empty and no other reply
//! is shifted. The mark is sent in two halves, which `bc` prints as one word: if `bc` quotes the command in a complaint, the
//! quotation does not contain the mark. (A sentinel needs a tool that answers a request before it reads the next.
//! [Otherwise](crate::framing::Sentinel#what-no-mark-can-tell) the replies are wrong, and nothing shows it.)
//!
//! ```
//! # mod tools { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/tools.rs")); }
//! # if !tools::here(&["bc"]) { return Ok(()); }
//! use subfeed::framing::{ReplyFraming, Sentinel};
//! use subfeed::{FeedExt, Template};
//!
//! let bc = Template::new("bc")
//!     .arg("-q")
//!     .env("BC_LINE_LENGTH", "0") // or it wraps at 70 columns
//!     .replies(ReplyFraming::sentinel(Sentinel::new(r#"print "{mark1}", "{mark2}", "\n""#)));
//! let sums = ["2^100", "1/0", "6*7"];
//! let replies: Vec<_> = sums.into_iter().feed_subprocesses_ordered(bc, 2, 100).collect::<Result<_, _>>()?;
//! assert_eq!(replies, ["1267650600228229401496703205376\n", "", "42\n"]);
//! # Ok::<(), subfeed::Error>(())
//! ```
//!
//! # sqlite3: any number of lines
//!
//! The same idea; the reply is all rows, each with its line feed. Every worker opens the database separately, so let them only
//! read, or give each its own (`"{id}.db"`).
//!
//! ```
//! # mod tools { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/tools.rs")); }
//! # if !tools::here(&["sqlite3"]) { return Ok(()); }
//! use subfeed::framing::{ReplyFraming, Sentinel};
//! use subfeed::{FeedExt, Template};
//!
//! let sqlite = Template::new("sqlite3")
//!     .args(["-batch", ":memory:"])
//!     .preamble("CREATE TABLE t(n); INSERT INTO t VALUES (1), (2), (3);\n")
//!     .replies(ReplyFraming::sentinel(Sentinel::new("SELECT '{mark1}' || '{mark2}';")));
//! let queries = (1..=3).map(|n| format!("SELECT n * n FROM t WHERE n < {n};"));
//! let rows: Vec<_> = queries.feed_subprocesses_ordered(sqlite, 2, 100).collect::<Result<_, _>>()?;
//! assert_eq!(rows, ["", "1\n", "1\n4\n"]);
//! # Ok::<(), subfeed::Error>(())
//! ```
//!
//! # psql: the same behind a connection
//!
//! `-X` skips the user's settings, `-A -t` prints bare rows. If a statement may take long, set a
//! [`packet_timeout`](crate::Template::packet_timeout). If it must not run twice, set
//! [`at_most_once`](crate::Template::at_most_once). (This recipe is only compiled here; `tests/tools/servers.rs` runs it with a
//! server.)
//!
//! ```no_run
//! use subfeed::framing::{ReplyFraming, Sentinel};
//! use subfeed::{FeedExt, Template};
//!
//! let psql = Template::new("psql")
//!     .args(["-X", "-A", "-t", "service=reports"])
//!     .replies(ReplyFraming::sentinel(Sentinel::new(r"\echo {mark1}'{mark2}'")))
//!     .at_most_once();
//! let statements = (1..100).map(|id| format!("SELECT name FROM users WHERE id = {id};"));
//! for name in statements.feed_subprocesses_ordered(psql, 4, 1_000) {
//!     println!("{}", name?);
//! }
//! # Ok::<(), subfeed::Error>(())
//! ```
//!
//! # node -i: prompts and unfinished requests
//!
//! After each command `node` prints the returned value and a prompt. With a [pair](crate::framing::Sentinel::paired) of marks the
//! feed learns this noise at the start of each session, and removes it from the replies. A request such as a lone `!` takes the
//! sync command as its operand; that shows between the two marks, and is an error of that request only.
//!
//! ```
//! # mod tools { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/tools.rs")); }
//! # if !tools::here(&["node"]) { return Ok(()); }
//! use subfeed::framing::{ReplyFraming, Sentinel};
//! use subfeed::{FeedExt, Template};
//!
//! let sentinel = Sentinel::new(r#"console.log("{mark1}" + "{mark2}")"#).paired();
//! let node = Template::new("node").arg("-i").replies(ReplyFraming::sentinel(sentinel));
//! let requests = ["6 * 7", "!", "[1, 2].map(n => n * n)"];
//! let replies: Vec<_> = requests.into_iter().feed_subprocesses_ordered(node, 2, 100).collect();
//! // The last prompt is part of the reply.
//! assert_eq!(replies[0].as_ref().unwrap(), "42\n> ");
//! assert!(replies[1].as_ref().unwrap_err().to_string().contains("left open"));
//! assert_eq!(replies[2].as_ref().unwrap(), "[ 1, 4 ]\n> ");
//! # Ok::<(), subfeed::Error>(())
//! ```
//!
//! # stockfish: an end line that belongs to the reply
//!
//! An engine that speaks UCI prints `info` lines while it thinks, and `bestmove` when it is done. It thinks in
//! a separate thread and reads on meanwhile, so a mark would come too early: do not use a sentinel. (This recipe is only compiled
//! here; `tests/tools/words.rs` runs it.)
//!
//! ```no_run
//! use subfeed::framing::{ReplyFraming, RequestFraming};
//! use subfeed::{FeedExt, Template};
//!
//! let stockfish = Template::new("stockfish")
//!     .skip_lines(1)
//!     .requests(RequestFraming::raw())
//!     .replies(ReplyFraming::end_line(["bestmove"]))
//!     .encode(|position: &&str, request| {
//!         request.push(format!("ucinewgame\nposition fen {position}\ngo depth 12\n"));
//!     });
//! let positions = ["7k/5QQ1/8/8/8/8/8/K7 b - - 0 1"];
//! for analysis in positions.into_iter().feed_subprocesses_ordered(stockfish, 4, 100) {
//!     println!("{}", analysis?);
//! }
//! # Ok::<(), subfeed::Error>(())
//! ```
//!
//! # git check-ignore: four fields a reply
//!
//! With `-z -v -n` the answer to each path is source, line number, pattern and path, each followed by a NUL.
//!
//! ```
//! # mod tools { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/tools.rs")); }
//! # if !tools::here(&["git"]) { return Ok(()); }
//! # let dir = std::env::temp_dir().join(format!("subfeed-ignore-{}", std::process::id()));
//! # std::fs::create_dir_all(&dir)?;
//! # std::process::Command::new("git").arg("-C").arg(&dir).args(["init", "-q"]).output()?;
//! # std::fs::write(dir.join(".gitignore"), "*.o\n")?;
//! # let repository = &dir;
//! use subfeed::framing::{ReplyFraming, RequestFraming};
//! use subfeed::{FeedExt, Template};
//!
//! let git = Template::new("git")
//!     .args(["check-ignore", "--stdin", "-z", "-v", "-n"])
//!     .current_dir(repository)
//!     .requests(RequestFraming::delimited(0))
//!     .replies(ReplyFraming::fields(0, 4))
//!     .decode(|reply| !reply.starts_with(b"\0"));
//! let paths = ["main.c", "main.o"];
//! let ignored: Vec<bool> = paths.into_iter().feed_subprocesses_ordered(git, 2, 100).collect::<Result<_, _>>()?;
//! assert_eq!(ignored, [false, true]);
//! # std::fs::remove_dir_all(&dir)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # exiftool: an end marker and a farewell
//!
//! With `-stay_open` it reads arguments, one per line, runs them at `-execute`, and ends its output with `{ready}`. It does not exit
//! when its input ends. A [`farewell`](crate::Template::farewell) tells it to exit.
//!
//! ```
//! # mod tools { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/tools.rs")); }
//! # if !tools::here(&["exiftool"]) { return Ok(()); }
//! # let dir = std::env::temp_dir().join(format!("subfeed-exiftool-{}", std::process::id()));
//! # std::fs::create_dir_all(&dir)?;
//! # let path = dir.join("one.gif");
//! # std::fs::write(&path, b"GIF89a\x03\0\x02\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x03\0\x02\0\0\x02\x03D\x02\x05\0;")?;
//! # let photos = [path.to_str().unwrap().to_owned()];
//! use subfeed::framing::{ReplyFraming, RequestFraming};
//! use subfeed::{FeedExt, Template};
//!
//! let exiftool = Template::new("exiftool")
//!     .args(["-stay_open", "True", "-@", "-"])
//!     .requests(RequestFraming::raw())
//!     .replies(ReplyFraming::end_marker("{ready}\n"))
//!     .farewell("-stay_open\nFalse\n");
//! let requests = photos.into_iter().map(|path| format!("-s3\n-ImageSize\n{path}\n-execute\n"));
//! let sizes: Vec<_> = requests.feed_subprocesses_ordered(exiftool, 4, 1_000).collect::<Result<_, _>>()?;
//! assert_eq!(sizes, ["3x2\n"]);
//! # std::fs::remove_dir_all(&dir)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # git cat-file: a size in a header
//!
//! A header with the size, then that many bytes, so the content may be anything. For a name that does not exist there is only a
//! header. [`split_header`](crate::Reply::split_header) separates the two.
//!
//! ```
//! # mod tools { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/tools.rs")); }
//! # if !tools::here(&["git"]) { return Ok(()); }
//! # let dir = std::env::temp_dir().join(format!("subfeed-git-{}", std::process::id()));
//! # let git = |args: &[&str]| std::process::Command::new("git").arg("-C").arg(&dir).args(args).output();
//! # std::fs::create_dir_all(&dir)?;
//! # git(&["init", "-q"])?;
//! # std::fs::write(dir.join("file"), "two\nlines\n")?;
//! # git(&["add", "file"])?;
//! # let repository = &dir;
//! use subfeed::framing::ReplyFraming;
//! use subfeed::{FeedExt, Template};
//!
//! let git = Template::new("git")
//!     .args(["cat-file", "--batch"])
//!     .current_dir(repository)
//!     .replies(ReplyFraming::git_batch())
//!     .decode(|reply| {
//!         let (header, content) = reply.split_header();
//!         let found = !header.ends_with(b" missing");
//!         found.then(|| content.to_vec())
//!     });
//! let objects: Vec<Option<Vec<u8>>> =
//!     [":file", "nothing"].into_iter().feed_subprocesses_ordered(git, 2, 100).collect::<Result<_, _>>()?;
//! assert_eq!(objects, [Some(b"two\nlines\n".to_vec()), None]);
//! # std::fs::remove_dir_all(&dir)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # hunspell: a banner, then blocks
//!
//! Each worker prints one line before the first request. Each answer is a block that ends with a blank line. With the `^` in front
//! no word is taken for a command.
//!
//! ```
//! # mod tools { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/tools.rs")); }
//! # if !tools::here(&["hunspell"]) { return Ok(()); }
//! use subfeed::framing::ReplyFraming;
//! use subfeed::{FeedExt, Template};
//!
//! let hunspell = Template::new("hunspell")
//!     .args(["-d", "en_US", "-a"])
//!     .skip_lines(1)
//!     .replies(ReplyFraming::block())
//!     .encode(|word: &&str, request| {
//!         request.push("^");
//!         request.push(word);
//!     })
//!     .decode(|reply| matches!(reply.first(), Some(b'*' | b'+' | b'-')));
//! let words = ["receive", "recieve", "!"];
//! let known: Vec<bool> = words.into_iter().feed_subprocesses_ordered(hunspell, 2, 100).collect::<Result<_, _>>()?;
//! assert_eq!(known, [true, false, false]);
//! # Ok::<(), subfeed::Error>(())
//! ```
//!
//! # python: a side channel
//!
//! A second input beside stdin, with one record for each request. The environment variable with the channel's name holds the
//! descriptor's number. `-u` turns off the buffer of stdout.
//!
//! ```
//! # mod tools { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/tools.rs")); }
//! # if !tools::here(&["python3"]) { return Ok(()); }
//! use subfeed::{BoxError, FeedExt, Template};
//!
//! let script = "
//! import os, sys
//! weights = os.fdopen(int(os.environ['weights']))
//! for line in sys.stdin:
//!     print(float(line) * float(weights.readline()))
//! ";
//! let python = Template::new("python3")
//!     .args(["-u", "-c"])
//!     .raw_arg(script)
//!     .side_input("weights")
//!     .encode(|(value, weight): &(f64, f64), request| {
//!         request.push(value.to_string());
//!         request.side("weights").push(weight.to_string());
//!     })
//!     .try_decode(|reply| Ok(reply.to_str()?.parse::<f64>()?));
//! let pairs = [(1.5, 2.0), (3.0, 0.5)];
//! let products: Vec<f64> = pairs.into_iter().feed_subprocesses_ordered(python, 2, 100).collect::<Result<_, _>>()?;
//! assert_eq!(products, [3.0, 1.5]);
//! # Ok::<(), subfeed::Error>(())
//! ```
//!
//! # A model that takes long to load
//!
//! With [`ready`](crate::Template::ready) a worker gets no request before it has printed the marker, and has limited time to print
//! it; everything before the marker is skipped. Requests and replies that may contain any bytes are best
//! [prefixed](crate::framing::RequestFraming::prefixed) with their length. While one worker is still loading, the others get the
//! work.
//!
//! [`retries`](crate::Template::retries) sends a text again after a model has died with it, and
//! [`packet_timeout`](crate::Template::packet_timeout) limits the time for one text. The [monitor](crate::Feed::monitor) counts
//! both.
//!
//! ```
//! # mod tools { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/tools.rs")); }
//! # if !tools::here(&["python3"]) { return Ok(()); }
//! use std::time::Duration;
//! use subfeed::framing::{Prefix, ReplyFraming, RequestFraming};
//! use subfeed::{FeedExt, Template};
//!
//! let script = "
//! import struct, sys, time
//! print('loading weights')
//! time.sleep(3)
//! print('READY', flush=True)
//! requests, replies = sys.stdin.buffer, sys.stdout.buffer
//! while prefix := requests.read(4):
//!     text = requests.read(struct.unpack('>I', prefix)[0])
//!     reply = b'%d' % len(text)
//!     replies.write(struct.pack('>I', len(reply)) + reply)
//!     replies.flush()
//! ";
//! let model = Template::new("python3")
//!     .arg("-c")
//!     .raw_arg(script)
//!     .ready("READY\n", Duration::from_secs(60))
//!     .requests(RequestFraming::prefixed(Prefix::u32_be()))
//!     .replies(ReplyFraming::prefixed(Prefix::u32_be()))
//!     .packet_timeout(Duration::from_secs(60))
//!     .retries(2);
//! let texts = ["one\nrecord, two lines", ""];
//! let mut feed = texts.into_iter().feed_subprocesses_ordered(model, 2, 100);
//! let monitor = feed.monitor();
//! let lengths: Vec<_> = feed.by_ref().collect::<Result<_, _>>()?;
//! assert_eq!(lengths, ["21", "0"]);
//! let counts = monitor.snapshot();
//! println!("{} answered, {} tried again", counts.yielded, counts.retries);
//! # Ok::<(), subfeed::Error>(())
//! ```
//!
//! # gzip: one process per packet
//!
//! A tool that answers when its input ends serves one packet: its whole output is the reply. If the tool answers record by record,
//! but only at the end, [`answers_at_eof`](crate::Template::answers_at_eof) lets many small records share a process.
//!
//! ```
//! # mod tools { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/tools.rs")); }
//! # if !tools::here(&["gzip"]) { return Ok(()); }
//! use subfeed::framing::{ReplyFraming, RequestFraming};
//! use subfeed::{FeedExt, Template};
//!
//! let whole = |template: Template| {
//!     template.requests(RequestFraming::raw()).replies(ReplyFraming::until_eof())
//! };
//! let documents = vec!["text\n".repeat(1_000), String::new()];
//! let there_and_back: Vec<_> = documents
//!     .clone()
//!     .into_iter()
//!     .feed_subprocesses_ordered(whole(Template::new("gzip")), 2, 100)
//!     .map(|zipped| zipped.expect("gzip"))
//!     .feed_subprocesses_ordered(whole(Template::new("gzip").arg("-d")), 2, 100)
//!     .collect::<Result<_, _>>()?;
//! assert_eq!(there_and_back, documents);
//! # Ok::<(), subfeed::Error>(())
//! ```
//!
//! # Programs around a feed
//!
//! | task | where |
//! |---|---|
//! | a Unix filter with a progress bar; the first Ctrl-C ends it softly, the second at once | `recipes/src/bin/filter.rs` |
//! | a feed under tokio | `recipes/src/bin/tokio.rs` |
//! | hash every file, checked against git | `examples/quickstart.rs` |
//! | an endless input | `examples/infinite.rs` |
//! | a side channel, and output to files | `examples/side_channel.rs` |
//! | stages with names, markers behind batches | `examples/word_count.rs`, `examples/batch_done.rs` |
//! | functions of the program itself as a source | `examples/prefetch.rs` |
//! | a queue with producers | [below](#a-queue-with-producers) |
//! | a chain, with errors at their positions | [below](#a-chain-with-errors-at-their-positions) |
//! | threads of a pool of your own | [below](#threads-of-a-pool-of-your-own) |
//! | markers in a queue | [`Queue`](crate::queue::Queue) |
//! | an endless command as a source | [below](#an-endless-command-as-a-source) |
//! | `git cat-file` on binary files, `sqlite3` with no row or many, `gzip` for each blob, a model that loads | above |
//!
//! # A queue with producers
//!
//! For code that gets items from clients or other threads, and has no iterator. If the queue is full,
//! [`put`](crate::queue::Producer::put) blocks and so slows the producers down. Each producer may have its own handle.
//!
//! ```
//! use std::thread;
//! use subfeed::Template;
//! use subfeed::queue::Queue;
//!
//! let mut queue = Queue::subprocesses(Template::new("cat"), 4, 100);
//! thread::scope(|scope| {
//!     for client in ["a", "b"] {
//!         let producer = queue.producer();
//!         scope.spawn(move || {
//!             for n in 0..50 {
//!                 producer.put(format!("{client}{n}")).expect("nobody stops the queue");
//!             }
//!         });
//!     }
//!     // Each client's own replies come in the order of its puts.
//!     let replies = (0..100).map(|_| queue.get().expect("not stopped")).collect::<Result<Vec<_>, _>>()?;
//!     let of = |client| replies.iter().filter(move |reply| reply.starts_with(client));
//!     assert!(of(b"a").eq(&(0..50).map(|n| format!("a{n}")).collect::<Vec<_>>()));
//!     assert_eq!(of(b"b").count(), 50);
//!     Ok::<_, subfeed::Error>(())
//! })?;
//! queue.join(); // The workers have exited.
//! # Ok::<(), subfeed::Error>(())
//! ```
//!
//! # A chain, with errors at their positions
//!
//! [`try_feed`](crate::FeedExt::try_feed) takes an iterator of `Result`s, such as the lines of a reader, or an earlier feed. An `Err`
//! goes to no worker and comes out where its item would have been. So the end of the chain gets the errors of all stages.
//!
//! ```
//! use subfeed::{FeedExt, Template};
//!
//! let halves = Template::shell(r#"while read n; do [ $((n % 2)) = 0 ] && echo $((n / 2)) || exit 1; done"#);
//! let squares = Template::shell("while read n; do echo $((n * n)); done");
//! let numbers = (2..=5).map(|n| n.to_string());
//! let out: Vec<Result<_, subfeed::Error>> =
//!     numbers.feed_subprocesses_ordered(halves, 2, 10).try_feed(squares).workers(2).start().collect();
//! assert_eq!(out[0].as_ref().unwrap(), "1");
//! assert_eq!(out[1].as_ref().unwrap_err().request().unwrap(), "3\n");
//! assert_eq!(out[2].as_ref().unwrap(), "4");
//! assert!(out[3].is_err());
//! ```
#![cfg_attr(
    feature = "threads",
    doc = r##"
# Threads of a pool of your own

The feed keeps the pool alive until it ends. A closure that waits (for a disk, a server) occupies a thread of the pool; use a
separate pool for such work.

```
use std::sync::Arc;
use subfeed::FeedExt;

let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build()?);
let names = (0..4).in_threads().pool(&pool).map(|_| rayon::current_num_threads());
assert!(names.eq([2; 4]));
# Ok::<(), rayon::ThreadPoolBuildError>(())
```
"##
)]
//!
//! # An endless command as a source
//!
//! With [`iterate_in_subprocess`](crate::source::iterate_in_subprocess) a command makes the items. It is read ahead only as far as the
//! buffer allows. Dropping the iterator ends the command.
//!
//! ```
//! use subfeed::source::iterate_in_subprocess;
//! use subfeed::{FeedExt, Template};
//!
//! let counter = Template::shell("n=0; while :; do n=$((n + 1)); echo $n; done");
//! let squares = Template::shell("while read n; do echo $((n * n)); done");
//! let first: Vec<_> = iterate_in_subprocess(counter, 100)
//!     .into_iter()
//!     .try_feed(squares)
//!     .workers(2)
//!     .start()
//!     .take(3)
//!     .collect::<Result<_, subfeed::Error>>()?;
//! assert_eq!(first, ["1", "4", "9"]);
//! # Ok::<(), subfeed::Error>(())
//! ```
