//! The bench that every tool is put on: a pool of requests, shuffled over a thousand positions, through
//! four persistent workers, each reply compared with what the tool says when it is run for that request
//! alone.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use bstr::{BStr, BString, ByteSlice};
use subfeed::channel::LineBuffered;
use subfeed::framing::{ReplyFraming, RequestFraming, Sentinel};
use subfeed::{ErrorKind, FeedExt, Snapshot, Template};

pub(crate) use crate::common::tools::here;
use crate::common::within;

/// Every tool sees UTF-8 and speaks English.
const LOCALE: (&str, &str) = ("LC_ALL", "C.UTF-8");

/// What a command prints on stdout, given these bytes on stdin, whatever its status.
pub(crate) fn say(argv: &[&str], envs: &BTreeMap<String, String>, stdin: &[u8]) -> BString {
    let mut command = Command::new(argv[0]);
    command.args(&argv[1..]).env(LOCALE.0, LOCALE.1).envs(envs);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("a tool that starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    let bytes = stdin.to_vec();
    let writer = std::thread::spawn(move || {
        // A tool may leave before it has read everything.
        let _ = pipe.write_all(&bytes);
    });
    let output = child.wait_with_output().expect("a tool that ends");
    writer.join().expect("a writer");
    BString::from(output.stdout)
}

/// Takes off one line feed.
pub(crate) fn chomp(mut bytes: BString) -> BString {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    bytes
}

/// What is written for one request and what is read for it, when a tool is run for it alone.
type Oracle = Box<dyn Fn(&BStr) -> BString + Send>;

/// A tool with its requests and an oracle; made by [`tool`].
pub(crate) struct Tool {
    template: Template,
    argv: Vec<String>,
    envs: BTreeMap<String, String>,
    /// What a run for one request gets besides: bytes before and after it.
    around: (BString, BString),
    /// What is left of the output of a run for one request.
    trim: fn(BString) -> BString,
    oracle: Option<Oracle>,
    pool: Vec<BString>,
    failing: Vec<(BString, &'static [ErrorKind])>,
    count: usize,
    recycles: bool,
    ends_badly: bool,
}

/// A tool that reads lines and answers in lines, or `None` if it is not here.
pub(crate) fn tool(argv: &[&str]) -> Option<Tool> {
    here(&argv[..1]).then(|| Tool {
        template: Template::new(argv[0]).args(&argv[1..]).env(LOCALE.0, LOCALE.1),
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        envs: BTreeMap::new(),
        around: (BString::default(), BString::from("\n")),
        trim: chomp,
        oracle: None,
        pool: Vec::new(),
        failing: Vec::new(),
        count: 2_000,
        recycles: false,
        ends_badly: false,
    })
}

impl Tool {
    /// Anything that the template has and this bench has no word for.
    pub(crate) fn template(mut self, change: impl FnOnce(Template) -> Template) -> Self {
        self.template = change(self.template);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.template = self.template.env(name, value);
        self.envs.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Requests and replies end in this byte.
    pub(crate) fn delimited(mut self, delimiter: u8) -> Self {
        self.template = self
            .template
            .requests(RequestFraming::delimited(delimiter))
            .replies(ReplyFraming::delimited(delimiter));
        self.around.1 = BString::from([delimiter]);
        self.trim = |mut output| {
            output.pop();
            output
        };
        self
    }

    /// Requests are lines; each reply is all that comes before a mark that this command prints.
    pub(crate) fn sentinel(self, command: &str) -> Self {
        self.marked(Sentinel::new(command))
    }

    /// The same with a sentinel that has been told more.
    pub(crate) fn marked(mut self, sentinel: Sentinel) -> Self {
        self.template = self.template.replies(ReplyFraming::sentinel(sentinel));
        self.trim = |output| output;
        self
    }

    /// One process for each request: all of stdin, all of stdout.
    pub(crate) fn per_packet(mut self) -> Self {
        self.template =
            self.template.requests(RequestFraming::raw()).replies(ReplyFraming::until_eof());
        self.around.1 = BString::default();
        self.trim = |output| output;
        self
    }

    /// The worker's stdout is talked out of its buffer in this way; the oracle's need not be.
    pub(crate) fn line_buffered(mut self, how: LineBuffered) -> Self {
        self.template = self.template.line_buffered(how);
        self
    }

    /// Bytes that each worker reads first.
    pub(crate) fn preamble(mut self, bytes: &str) -> Self {
        self.template = self.template.preamble(bytes);
        self.around.0 = BString::from(bytes);
        self
    }

    /// The command that is run for each request alone, in place of the worker's own.
    pub(crate) fn alone(mut self, argv: &[&str]) -> Self {
        self.argv = argv.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// What is left of the output of a run for one request, where it is not all but a last line feed.
    pub(crate) fn trim(mut self, trim: fn(BString) -> BString) -> Self {
        self.trim = trim;
        self
    }

    /// Another oracle altogether.
    pub(crate) fn oracle(mut self, oracle: impl Fn(&BStr) -> BString + Send + 'static) -> Self {
        self.oracle = Some(Box::new(oracle));
        self
    }

    /// Adds requests to the pool.
    pub(crate) fn requests<B: AsRef<[u8]>>(
        mut self,
        requests: impl IntoIterator<Item = B>,
    ) -> Self {
        self.pool.extend(requests.into_iter().map(|request| BString::from(request.as_ref())));
        self
    }

    /// A request that is to end in an error of one of these kinds, asked at a few positions.
    pub(crate) fn fails(mut self, request: impl AsRef<[u8]>, kinds: &'static [ErrorKind]) -> Self {
        self.failing.push((BString::from(request.as_ref()), kinds));
        self
    }

    /// How many requests, where a tool is too slow for 2,000.
    pub(crate) fn count(mut self, count: usize) -> Self {
        self.count = count;
        self
    }

    /// The tool withholds its replies, so that it must be recycled.
    pub(crate) fn recycles(mut self) -> Self {
        self.recycles = true;
        self
    }

    /// The tool ends with a status other than 0 although it has answered everything.
    pub(crate) fn ends_badly(mut self) -> Self {
        self.ends_badly = true;
        self
    }

    /// Asks, compares, and says how it went.
    #[track_caller]
    pub(crate) fn run(self) -> Snapshot {
        within(move || self.compare())
    }

    fn compare(self) -> Snapshot {
        let Self { template, argv, envs, around, trim, oracle, pool, failing, .. } = self;
        assert!(pool.len() >= 8, "a pool of {} requests would not show a shift", pool.len());
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let ask = |request: &BStr| match &oracle {
            Some(oracle) => oracle(request),
            None => {
                let stdin = [around.0.as_bytes(), request.as_bytes(), around.1.as_bytes()].concat();
                trim(say(&argv, &envs, &stdin))
            }
        };
        let known: HashMap<&BString, BString> =
            pool.iter().map(|request| (request, ask(request.as_bstr()))).collect();

        let requests = shuffled(&pool, &failing, self.count);
        let mut feed = requests.clone().into_iter().feed_subprocesses_ordered(template, 4, 500);
        for (k, request) in requests.iter().enumerate() {
            let reply = feed.next().unwrap_or_else(|| panic!("the feed ends at {k}"));
            let fails = failing.iter().find(|(failing, _)| failing == request);
            match (fails, reply) {
                (None, Ok(reply)) => assert_eq!(reply, known[request], "{k}: to {request:?}"),
                (Some((_, kinds)), Err(error)) => {
                    // It died, or ended in good order when it was asked to, without this one's reply.
                    let kind = match error.kind() {
                        ErrorKind::ReplyCount { owed: 1, got: 0 } => ErrorKind::Died,
                        kind => kind,
                    };
                    assert!(kinds.contains(&kind), "{k}: {error}");
                    assert_eq!(error.packet(), Some(k as u64));
                    assert!(!error.is_fatal(), "{error}");
                }
                (None, Err(error)) => panic!("{k}: {error}; monitor {:?}", feed.monitor()),
                (Some(_), Ok(reply)) => panic!("{k}: {request:?} has a reply: {reply:?}"),
            }
        }
        assert!(feed.next().is_none());
        let monitor = feed.monitor();
        let finished = feed.finish();
        let snapshot = monitor.snapshot();
        assert_eq!(finished.is_err(), self.ends_badly, "{finished:?}");
        // What swallows a request may be one that waits for more.
        if failing.is_empty() {
            assert_eq!(snapshot.recycles > 0, self.recycles, "{snapshot:?}");
        }
        snapshot
    }
}

/// `count` requests of the pool in an order that never repeats, each once at least, and each failing one
/// at three positions.
fn shuffled(pool: &[BString], failing: &[(BString, &[ErrorKind])], count: usize) -> Vec<BString> {
    assert!(count >= pool.len() + 3 * failing.len());
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut requests: Vec<BString> = pool.to_vec();
    let common = count - 3 * failing.len();
    while requests.len() < common {
        requests.push(pool[random.below(pool.len())].clone());
    }
    for (request, _) in failing {
        requests.extend(std::iter::repeat_n(request.clone(), 3));
    }
    for k in (1..requests.len()).rev() {
        requests.swap(k, random.below(k + 1));
    }
    requests
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % n
    }
}

/// Lines that most filters take: plain, long, blank, spaces, UTF-8, and bytes that are not.
pub(crate) fn lines() -> Vec<BString> {
    let mut lines: Vec<BString> = [
        &b"plain"[..],
        b"",
        b" ",
        b"\t tabs\tand  spaces ",
        b"carriage return\r",
        "na\u{ef}ve caf\u{e9} \u{1f980} \u{65e5}\u{672c}".as_bytes(),
        b"not UTF-8: \xff\xfe\x80 \xc3",
        b"\x01 control \x1b[0m",
        b"\\n \\t \\\\ $HOME `id` %s %d \"quotes' & ; |",
        b"-n -e --help",
    ]
    .map(BString::from)
    .into();
    lines.push(BString::from(b"long ".repeat(3_000)));
    lines.extend((0..40).map(|n| BString::from(format!("line {n} {}", "x".repeat(n)))));
    lines
}

/// Lines that fit into any buffer together.
pub(crate) fn short_lines() -> impl Iterator<Item = String> {
    (0..60).map(|n| format!("line {n}"))
}

/// A file of this name and content under a directory, as text.
pub(crate) fn file(dir: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = dir.join(name);
    std::fs::write(&path, content).expect("a file");
    path.to_str().expect("a path of text").to_owned()
}
