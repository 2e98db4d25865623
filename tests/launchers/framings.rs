//! Every framing, over two hosts with four workers each: order, values, and that nothing is lost or comes twice.
//!
//! Two thousand records of each by default; `SUBFEED_LAUNCHER_RECORDS=100000` is what `.ci/long` asks for.

use subfeed::framing::{
    Framing, FramingError, Position, Prefix, ReplyFraming, RequestFraming, Scan, Sentinel,
};
use subfeed::{Error, FeedExt, Template};

/// How many records each framing has.
const RECORDS: u64 = 2_000;

/// A framing with the process that `until_eof` needs for each record has so much fewer.
const A_PROCESS_EACH: u64 = 250;

fn records() -> u64 {
    std::env::var("SUBFEED_LAUNCHER_RECORDS").map_or(RECORDS, |text| text.parse().expect("a count"))
}

/// How a tool is talked to, what it is sent and what it is to answer.
struct Case {
    name: &'static str,
    template: Template,
    sent: fn(u64) -> Vec<u8>,
    expected: fn(u64) -> Vec<u8>,
    share: u64,
}

/// Any bytes, in number and in value, none of which is a delimiter: those framings have lengths.
fn any(n: u64) -> Vec<u8> {
    (0..n % 97).map(|i| (n.wrapping_mul(31) + i * 7) as u8).collect()
}

/// No record's: a text of one line.
fn text(n: u64) -> Vec<u8> {
    n.to_string().into_bytes()
}

/// A scanner of one's own: a digit, then as many bytes.
struct Counted;

impl Framing for Counted {
    fn scan(&mut self, input: &[u8], _: Position) -> Result<Scan, FramingError> {
        let Some(digit) = input.first() else { return Ok(Scan::Partial) };
        let len = 1 + usize::from(digit - b'0');
        Ok(if input.len() < len { Scan::Partial } else { Scan::Complete { body: 1..len, len } })
    }
}

fn cases() -> Vec<Case> {
    let cat = |requests, replies| Template::new("cat").requests(requests).replies(replies);
    let echoed = |name, requests, replies, body: fn(u64) -> Vec<u8>| Case {
        name,
        template: cat(requests, replies),
        sent: body,
        expected: body,
        share: 1,
    };
    // `cat` prints what was sent, which is a reply with its end.
    let printed = |name, replies, sent, expected| Case {
        name,
        template: cat(RequestFraming::raw(), replies),
        sent,
        expected,
        share: 1,
    };
    let mut cases = vec![
        echoed("line", RequestFraming::line(), ReplyFraming::line(), text),
        echoed("delimited", RequestFraming::delimited(0), ReplyFraming::delimited(0), text),
        echoed(
            "record_separator",
            RequestFraming::record_separator(),
            ReplyFraming::record_separator(),
            text,
        ),
        echoed("netstring", RequestFraming::netstring(), ReplyFraming::netstring(), any),
        echoed(
            "content_length",
            RequestFraming::content_length(),
            ReplyFraming::content_length(),
            any,
        ),
    ];
    let prefixes = [
        ("u8", Prefix::u8()),
        ("u16_be", Prefix::u16_be()),
        ("u16_le", Prefix::u16_le()),
        ("u32_be", Prefix::u32_be()),
        ("u32_le", Prefix::u32_le()),
        ("u64_be", Prefix::u64_be()),
        ("u64_le", Prefix::u64_le()),
    ];
    cases.extend(prefixes.map(|(name, prefix)| {
        echoed(name, RequestFraming::prefixed(prefix), ReplyFraming::prefixed(prefix), any)
    }));
    cases.extend([
        printed(
            "lines",
            ReplyFraming::lines(3),
            |n| format!("{n}\n\n{n}\n").into_bytes(),
            |n| format!("{n}\n\n{n}").into_bytes(),
        ),
        printed(
            "fields",
            ReplyFraming::fields(0, 3),
            |n| format!("{n}\0\n\0{n}\0").into_bytes(),
            |n| format!("{n}\0\n\0{n}").into_bytes(),
        ),
        printed("fixed_size", ReplyFraming::fixed_size(9), fixed, fixed),
        printed(
            "block",
            ReplyFraming::block(),
            |n| format!("{n}\nmore\n\n").into_bytes(),
            |n| format!("{n}\nmore").into_bytes(),
        ),
        printed(
            "blocks",
            ReplyFraming::blocks(2),
            |n| format!("{n}\n\nmore\n\n").into_bytes(),
            |n| format!("{n}\n\nmore").into_bytes(),
        ),
        printed(
            "end_line",
            ReplyFraming::end_line(["best"]),
            |n| format!("info\nbest {n}\n").into_bytes(),
            |n| format!("info\nbest {n}").into_bytes(),
        ),
        printed(
            "end_line_where",
            ReplyFraming::end_line_where(|line| line.ends_with(b"!")),
            |n| format!("info\n{n}!\n").into_bytes(),
            |n| format!("info\n{n}!").into_bytes(),
        ),
        printed(
            "end_marker",
            ReplyFraming::end_marker("<END>"),
            |n| format!("{n}\n<END>").into_bytes(),
            |n| format!("{n}\n").into_bytes(),
        ),
        printed(
            "end_marker_line",
            ReplyFraming::end_marker_line("{ready"),
            |n| format!("{n}\n{{ready{n}}}\n").into_bytes(),
            |n| format!("{n}\n").into_bytes(),
        ),
        printed(
            "sized_header",
            ReplyFraming::sized_header(|line| Ok(Some(std::str::from_utf8(line)?.parse()?))),
            |n| [format!("{}\n", any(n).len()).into_bytes(), any(n), b"\n".to_vec()].concat(),
            |n| [format!("{}\n", any(n).len()).into_bytes(), any(n)].concat(),
        ),
        printed(
            "git_batch",
            ReplyFraming::git_batch(),
            |n| {
                [format!("id blob {}\n", any(n).len()).into_bytes(), any(n), b"\n".to_vec()]
                    .concat()
            },
            |n| [format!("id blob {}\n", any(n).len()).into_bytes(), any(n)].concat(),
        ),
        printed(
            "skipping",
            ReplyFraming::line().skipping(|line| line == b"log"),
            |n| format!("log\n{n}\n").into_bytes(),
            text,
        ),
        printed(
            "custom",
            ReplyFraming::custom(|| Box::new(Counted)),
            |n| [text(text(n).len() as u64), text(n)].concat(),
            text,
        ),
    ]);
    let sh = |name, sentinel: Sentinel| Case {
        name,
        template: Template::new("sh").replies(sentinel),
        sent: |n| format!("echo {n}; printf '\\n'").into_bytes(),
        expected: |n| format!("{n}\n\n").into_bytes(),
        share: 1,
    };
    cases.extend([
        sh("sentinel", Sentinel::new("echo {mark1}\"\"{mark2}")),
        sh("sentinel alone", Sentinel::new("echo {mark}").alone()),
        sh("sentinel paired", Sentinel::new("echo {mark1}\"\"{mark2}").paired()),
        Case {
            name: "until_eof",
            template: cat(RequestFraming::raw(), ReplyFraming::until_eof()),
            sent: any,
            expected: any,
            share: A_PROCESS_EACH,
        },
    ]);
    cases
}

/// Nine bytes.
fn fixed(n: u64) -> Vec<u8> {
    [b"\n", &n.to_be_bytes()[..]].concat()
}

/// Feeds every framing to tools behind a launcher, two hosts with four workers each.
pub(crate) fn every_framing_keeps_order_and_values(via: impl Fn(Template) -> Template) {
    for Case { name, template, sent, expected, share } in cases() {
        let begun = std::time::Instant::now();
        let count = (records() / share).max(4);
        let mut feed = (0..count).map(sent).feed(via(template)).workers(8).buffer(2_000).start();
        let mut next = 0;
        for reply in feed.by_ref() {
            let reply: Result<subfeed::BString, Error> = reply;
            assert_eq!(
                reply.unwrap_or_else(|error| panic!("{name}: {error}")),
                expected(next),
                "{name}: {next}"
            );
            next += 1;
        }
        let seen = feed.finish().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            (next, seen.replies, seen.failed, seen.retries),
            (count, count, 0, 0),
            "{name}: {seen:?}"
        );
        println!("{name}: {count} in {:?}", begun.elapsed());
    }
}
