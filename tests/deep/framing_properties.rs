//! Framing against naive oracles: each scanner finds what a few obvious lines find in the whole
//! stream, however the stream is split into reads, within every limit, and without a panic.

use std::ops::Range;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use subfeed::framing::{
    Framing, FramingError, FramingErrorKind, Position, Prefix, ReplyFraming, RequestFraming, Scan,
    Sentinel,
};

/// The framings under test, with an oracle for each.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Line,
    Nul,
    Lines(usize),
    Fields(usize),
    Blocks(usize),
    FixedSize,
    EndLine,
    EndLineWhere,
    Marker,
    MarkerLine,
    RecordSeparator,
    U8,
    U16Be,
    U32Le,
    U64Be,
    Netstring,
    ContentLength,
    Git,
    Sentinel(Sort),
    Pair,
    UntilEof,
    Comments,
}

/// What a sentinel is told about its one mark.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sort {
    Plain,
    Alone,
    Halved,
}

const KINDS: [Kind; 26] = [
    Kind::Line,
    Kind::Nul,
    Kind::Lines(1),
    Kind::Lines(3),
    Kind::Fields(4),
    Kind::Blocks(1),
    Kind::Blocks(2),
    Kind::FixedSize,
    Kind::EndLine,
    Kind::EndLineWhere,
    Kind::Marker,
    Kind::MarkerLine,
    Kind::RecordSeparator,
    Kind::U8,
    Kind::U16Be,
    Kind::U32Le,
    Kind::U64Be,
    Kind::Netstring,
    Kind::ContentLength,
    Kind::Git,
    Kind::Sentinel(Sort::Plain),
    Kind::Sentinel(Sort::Alone),
    Kind::Sentinel(Sort::Halved),
    Kind::Pair,
    Kind::UntilEof,
    Kind::Comments,
];

/// A marker that overlaps itself, so that a search that resumes too late is found out.
const MARKER: &[u8] = b"--=--";

/// How long the replies of a fixed size are.
const SIZE: usize = 5;

/// What a tool says behind each of its marks; the number changes.
const NOISE: &str = "\n9> ";

fn sentinel() -> Sentinel {
    Sentinel::new("{mark}").with_nonce(0x0123_4567_89ab_cdef)
}

fn sorted(sort: Sort) -> Sentinel {
    let nonce = |sentinel: Sentinel| sentinel.with_nonce(0x0123_4567_89ab_cdef);
    match sort {
        Sort::Plain => sentinel(),
        Sort::Alone => sentinel().alone(),
        Sort::Halved => nonce(Sentinel::new("{mark1} {mark2}")),
    }
}

/// The two marks with which a session begins.
fn opening() -> [Vec<u8>; 2] {
    let mut out = Vec::new();
    sentinel().paired().append_opening(&mut out);
    let mut lines = out.split(|&byte| byte == b'\n').map(<[u8]>::to_vec);
    [lines.next().unwrap(), lines.next().unwrap()]
}

/// What all marks of the sentinel begin with.
fn head() -> Vec<u8> {
    sentinel().mark(0).as_bytes()[..18].to_vec()
}

/// A mark as the oracles see it: the letter of its kind, and the packet.
type Mark = (u8, u64);

/// The mark that begins at `at`.
fn mark_at(input: &[u8], at: usize) -> Option<Mark> {
    let tail = input[at..].strip_prefix(&head()[..])?.get(..17)?;
    let number = tail[1..].iter().try_fold(0u64, |number, byte| {
        (b'a'..=b'p').contains(byte).then(|| number * 16 + u64::from(byte - b'a'))
    });
    b"zyuv".contains(&tail[0]).then_some((tail[0], number?))
}

/// How many bytes cannot be the beginning of a mark that has not come in full.
fn before_any(input: &[u8]) -> usize {
    let cut = |at: &usize| {
        let rest = &input[*at..];
        head().starts_with(&rest[..rest.len().min(18)]) && rest.len() < 35
    };
    let open = (input.len() + 1).saturating_sub(18);
    (0..input.len()).find(|at| *at <= open && cut(at) && input.len() - at >= 18).unwrap_or(open)
}

/// The same bytes with every run of digits made one digit.
fn collapsed(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in bytes {
        match byte.is_ascii_digit() {
            true if out.last() == Some(&b'0') => {}
            true => out.push(b'0'),
            false => out.push(*byte),
        }
    }
    out
}

/// How many bytes at the beginning of `text` are noise.
fn noise_at_start(noise: &[u8], text: &[u8]) -> Option<usize> {
    (0..=text.len()).find(|&length| collapsed(&text[..length]) == collapsed(noise))
}

impl Kind {
    fn framing(self) -> ReplyFraming {
        match self {
            Kind::Line => ReplyFraming::line(),
            Kind::Nul => ReplyFraming::delimited(0),
            Kind::Lines(count) => ReplyFraming::lines(count),
            Kind::Fields(count) => ReplyFraming::fields(0, count),
            Kind::Blocks(count) => ReplyFraming::blocks(count),
            Kind::FixedSize => ReplyFraming::fixed_size(SIZE),
            Kind::EndLine => ReplyFraming::end_line(["ab", ","]),
            Kind::EndLineWhere => ReplyFraming::end_line_where(|line| line.ends_with(b"1")),
            Kind::Marker => ReplyFraming::end_marker(MARKER),
            Kind::MarkerLine => ReplyFraming::end_marker_line(MARKER),
            Kind::RecordSeparator => ReplyFraming::record_separator(),
            Kind::U8 => ReplyFraming::prefixed(Prefix::u8()),
            Kind::U16Be => ReplyFraming::prefixed(Prefix::u16_be()),
            Kind::U32Le => ReplyFraming::prefixed(Prefix::u32_le()),
            Kind::U64Be => ReplyFraming::prefixed(Prefix::u64_be()),
            Kind::Netstring => ReplyFraming::netstring(),
            Kind::ContentLength => ReplyFraming::content_length(),
            Kind::Git => ReplyFraming::git_batch(),
            Kind::Sentinel(sort) => ReplyFraming::sentinel(sorted(sort)),
            Kind::Pair => ReplyFraming::sentinel(sentinel().paired()),
            Kind::UntilEof => ReplyFraming::until_eof(),
            Kind::Comments => ReplyFraming::line().skipping(|line| line.starts_with(b":")),
        }
    }

    /// A reply as a well-behaved tool prints it.
    fn encode(self, packet: u64, body: &[u8]) -> Vec<u8> {
        let size = body.len();
        let clean =
            |bad: &[u8]| -> Vec<u8> { body.iter().copied().filter(|b| !bad.contains(b)).collect() };
        match self {
            Kind::Line => [&clean(b"\n")[..], b"\n"].concat(),
            Kind::Nul => [&clean(b"\0")[..], b"\0"].concat(),
            Kind::Lines(count) => [&clean(b"\n")[..], b"\n"].concat().repeat(count),
            Kind::Fields(count) => [&clean(b"\0")[..], b"\0"].concat().repeat(count),
            Kind::Blocks(count) => [&clean(b"\n")[..], b"\nx\n\n"].concat().repeat(count),
            Kind::FixedSize => body.iter().copied().chain([b'.'; SIZE]).take(SIZE).collect(),
            Kind::EndLine => [body, [&b"\nab c\n"[..], b"\n,\n"][size % 2]].concat(),
            Kind::EndLineWhere => [body, b"\n01\n"].concat(),
            Kind::Marker => [body, MARKER].concat(),
            Kind::MarkerLine => [body, MARKER, b" 12\r\n"].concat(),
            // More than one separator stands for no more than one.
            Kind::RecordSeparator => {
                [&b"\x1e\x1e\x1e"[size % 3..], &clean(b"\n\x1e")[..], b"\n"].concat()
            }
            Kind::U8 => [&[size as u8], body].concat(),
            Kind::U16Be => [&(size as u16).to_be_bytes(), body].concat(),
            Kind::U32Le => [&(size as u32).to_le_bytes(), body].concat(),
            Kind::U64Be => [&(size as u64).to_be_bytes(), body].concat(),
            Kind::Netstring => [format!("{size}:").as_bytes(), body, b","].concat(),
            Kind::ContentLength => {
                [format!("X: y\r\nContent-length: {size}\r\n\r\n").as_bytes(), body].concat()
            }
            Kind::Git => [format!("abc blob {size}\n").as_bytes(), body, b"\n"].concat(),
            Kind::Sentinel(Sort::Alone) => {
                [body, b"\n", sentinel().mark(packet).as_bytes(), b" \r\n"].concat()
            }
            Kind::Sentinel(_) => [body, sentinel().mark(packet).as_bytes(), b"\n"].concat(),
            Kind::Pair => {
                let noise = NOISE.replace('9', &packet.to_string().repeat(1 + size % 2));
                let [first, second] = opening();
                let start = match packet {
                    0 => [&b"banner"[..], &first, NOISE.as_bytes(), &second].concat(),
                    _ => Vec::new(),
                };
                let pair = (sentinel().first_mark(packet), sentinel().mark(packet));
                let noise = noise.as_bytes();
                [&start, noise, body, pair.0.as_bytes(), noise, pair.1.as_bytes()].concat()
            }
            Kind::UntilEof => body.to_vec(),
            Kind::Comments => {
                [&b":a\n:\n"[..[0, 3, 5][size % 3]], &clean(b"\n:")[..], b"\n"].concat()
            }
        }
    }

    /// The reply at the start of `input`, behind which no more bytes follow.
    fn naive(self, input: &[u8], packet: u64, limit: usize) -> Result<Found, Failure> {
        // A body that is found at `body`, unless it, or what stands for it, is too large.
        let found = |body: Range<usize>, len| match body.end > limit {
            true => Err(Failure::TooLong),
            false => Ok((body, len)),
        };
        let unfinished = |least: usize| match least > limit {
            true => Err(Failure::TooLong),
            false => Err(Failure::Truncated),
        };
        let find = |from: usize, byte: u8| (from..input.len()).find(|&at| input[at] == byte);
        let sized = |head: usize, size: u64, tail: &[u8]| {
            if size > limit as u64 {
                return Err(Failure::TooLong);
            }
            let end = head + size as usize;
            match input.get(end..end + tail.len()) {
                None => Err(Failure::Truncated),
                Some(found) if found != tail => Err(Failure::Other),
                Some(_) => Ok((head..end, end + tail.len())),
            }
        };
        match self {
            Kind::Line | Kind::Nul => {
                let delimiter = if let Kind::Line = self { b'\n' } else { 0 };
                match find(0, delimiter) {
                    Some(end) => found(0..end, end + 1),
                    None => unfinished(input.len()),
                }
            }
            Kind::Lines(count) | Kind::Fields(count) => {
                let delimiter = if let Kind::Lines(_) = self { b'\n' } else { 0 };
                let mut ends = (0..input.len()).filter(|&at| input[at] == delimiter);
                match ends.nth(count - 1) {
                    Some(end) => found(0..end, end + 1),
                    None => unfinished(input.len()),
                }
            }
            Kind::Blocks(count) => {
                let (mut from, mut ended) = (0, 0);
                loop {
                    let body_end = if from == 0 { 0 } else { from - 1 };
                    let blank = |line: &[u8]| line.is_empty() || line == b"\r";
                    let end = find(from, b'\n');
                    ended += usize::from(blank(&input[from..end.unwrap_or(input.len())]));
                    match end {
                        Some(end) if ended == count => return found(0..body_end, end + 1),
                        Some(end) => from = end + 1,
                        None if ended == count => return unfinished(body_end),
                        None => return unfinished(input.len()),
                    }
                }
            }
            Kind::FixedSize if SIZE > limit => Err(Failure::TooLong),
            Kind::FixedSize if input.len() < SIZE => Err(Failure::Truncated),
            Kind::FixedSize => Ok((0..SIZE, SIZE)),
            Kind::EndLine | Kind::EndLineWhere => {
                let mut from = 0;
                while let Some(end) = find(from, b'\n') {
                    let line = &input[from..end];
                    let ends = match self {
                        Kind::EndLine => line.starts_with(b"ab") || line.starts_with(b","),
                        _ => line.last() == Some(&b'1'),
                    };
                    if ends {
                        return found(0..end, end + 1);
                    }
                    from = end + 1;
                }
                unfinished(input.len())
            }
            Kind::Marker | Kind::MarkerLine => {
                let at = (0..input.len()).find(|&at| input[at..].starts_with(MARKER));
                let Some(at) = at else {
                    return unfinished((input.len() + 1).saturating_sub(MARKER.len()));
                };
                let end = at + MARKER.len();
                match self {
                    Kind::Marker => found(0..at, end),
                    _ => found(0..at, find(end, b'\n').map_or(input.len(), |end| end + 1)),
                }
            }
            Kind::RecordSeparator => {
                let start = input.iter().take_while(|&&byte| byte == 0x1e).count();
                if start == 0 {
                    return Err(Failure::Other);
                }
                let end = (start..input.len()).find(|&at| matches!(input[at], b'\n' | 0x1e));
                match end {
                    Some(end) if end - 1 > limit => Err(Failure::TooLong),
                    Some(end) if input[end] == 0x1e => Err(Failure::Other),
                    Some(end) => Ok((start..end, end + 1)),
                    None => unfinished(input.len() - 1),
                }
            }
            Kind::U8 => match input.first() {
                Some(&size) => sized(1, size.into(), b""),
                None => unfinished(0),
            },
            Kind::U16Be => match input.first_chunk() {
                Some(&size) => sized(2, u16::from_be_bytes(size).into(), b""),
                None => unfinished(0),
            },
            Kind::U32Le => match input.first_chunk() {
                Some(&size) => sized(4, u32::from_le_bytes(size).into(), b""),
                None => unfinished(0),
            },
            Kind::U64Be => match input.first_chunk() {
                Some(&size) => sized(8, u64::from_be_bytes(size), b""),
                None => unfinished(0),
            },
            Kind::Netstring => {
                let digits = input.iter().take_while(|b| b.is_ascii_digit()).count();
                let number = std::str::from_utf8(&input[..digits]).unwrap();
                if digits > 20 || (digits > 1 && number.starts_with('0')) {
                    return Err(Failure::Other);
                }
                match input.get(digits) {
                    None => unfinished(0),
                    Some(b':') if digits > 0 => {
                        sized(digits + 1, number.parse().unwrap_or(u64::MAX), b",")
                    }
                    Some(_) => Err(Failure::Other),
                }
            }
            Kind::ContentLength => {
                let mut size = None;
                let mut from = 0;
                loop {
                    let Some(end) = find(from, b'\n') else {
                        return unfinished(0);
                    };
                    let line = input[from..end].strip_suffix(b"\r");
                    let line = String::from_utf8_lossy(line.unwrap_or(&input[from..end]));
                    from = end + 1;
                    if line.is_empty() {
                        return sized(from, size.ok_or(Failure::Other)?, b"");
                    }
                    let (name, value) = line.split_once(':').ok_or(Failure::Other)?;
                    if name.trim().eq_ignore_ascii_case("content-length") {
                        let value = value.trim_matches([' ', '\t']);
                        if value.is_empty() || !value.chars().all(|c| c.is_ascii_digit()) {
                            return Err(Failure::Other);
                        }
                        let value = value.parse().unwrap_or(u64::MAX);
                        if size.is_some_and(|size| size != value) {
                            return Err(Failure::Other);
                        }
                        size = Some(value);
                    }
                }
            }
            Kind::Git => {
                let Some(end) = find(0, b'\n') else {
                    return unfinished(input.len());
                };
                let alone = found(0..end, end + 1)?;
                let words: Vec<&[u8]> = input[..end].split(|&byte| byte == b' ').collect();
                let last = words[words.len() - 1];
                let digits = !last.is_empty() && last.iter().all(u8::is_ascii_digit);
                if words.len() > 1 && last == b"missing" {
                    Ok(alone)
                } else if words.len() > 1 && digits {
                    let digits = std::str::from_utf8(last).unwrap();
                    let size: u64 = digits.parse().unwrap_or(u64::MAX);
                    let (body, len) = sized(0, size.saturating_add(end as u64 + 1), b"\n")?;
                    Ok((body, len))
                } else {
                    Err(Failure::Other)
                }
            }
            Kind::Sentinel(sort) => {
                let is_head = |at: &usize| input[*at..].starts_with(&head());
                let first = (0..input.len()).filter(is_head).find(|&at| match sort {
                    // Half a mark is as good as a whole one, to be judged.
                    Sort::Halved => input.len() - at >= 35,
                    _ => mark_at(input, at).is_some(),
                });
                let Some(at) = first else { return unfinished(before_any(input)) };
                if at > limit {
                    return Err(Failure::TooLong);
                }
                let Some((_, id)) = mark_at(input, at) else { return Err(Failure::Other) };
                let end = find(at, b'\n').map_or(input.len(), |end| end + 1);
                let rest = &input[at + 35..end];
                let amid = (at > 0 && input[at - 1] != b'\n') || !rest.trim_ascii().is_empty();
                let another = (0..rest.len()).any(|at| match sort {
                    Sort::Halved => rest[at..].starts_with(&head()) && rest.len() - at >= 35,
                    _ => mark_at(rest, at).is_some(),
                });
                match id != packet || another || (sort == Sort::Alone && amid) {
                    true => Err(Failure::Other),
                    false => Ok((0..at, end)),
                }
            }
            Kind::Pair => {
                let all = (0..input.len()).filter_map(|at| Some((at, mark_at(input, at)?)));
                let mut marks = all;
                let mut from = 0;
                if packet == 0 {
                    for kind in *b"uv" {
                        match marks.next() {
                            None => return Err(Failure::Truncated),
                            Some((_, (other, _))) if other != kind => return Err(Failure::Other),
                            Some((at, _)) => from = at + 35,
                        }
                    }
                }
                let next = marks.next();
                let end = next.map_or(before_any(input).max(from), |(at, _)| at);
                let noise = noise_at_start(NOISE.as_bytes(), &input[from..end]);
                if noise.is_some_and(|noise| end - from - noise > limit) {
                    return Err(Failure::TooLong);
                }
                let Some((at, mark)) = next else { return Err(Failure::Truncated) };
                let Some(noise) = noise.filter(|_| mark == (b'y', packet)) else {
                    return Err(Failure::Other);
                };
                let body = from + noise..at;
                let Some((at, mark)) = marks.next() else { return Err(Failure::Truncated) };
                let between = &input[body.end + 35..at];
                let same = noise_at_start(NOISE.as_bytes(), between) == Some(between.len());
                match mark == (b'z', packet) && same {
                    true => Ok((body, at + 35)),
                    false => Err(Failure::Other),
                }
            }
            Kind::Comments => {
                let mut from = 0;
                loop {
                    match find(from, b'\n') {
                        _ if from > 0 && from == input.len() => return Err(Failure::Truncated),
                        Some(end) if end - from > limit => return Err(Failure::TooLong),
                        Some(end) if input[from] == b':' => from = end + 1,
                        Some(end) => return Ok((from..end, end + 1)),
                        None => return unfinished(input.len() - from),
                    }
                }
            }
            Kind::UntilEof => found(0..input.len(), input.len()),
        }
    }
}

/// Body and bytes taken.
type Found = (Range<usize>, usize);

/// What an oracle says of a bad reply.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    TooLong,
    Truncated,
    Other,
}

impl Failure {
    fn of(kind: FramingErrorKind) -> Self {
        match kind {
            FramingErrorKind::TooLong { .. } => Self::TooLong,
            FramingErrorKind::Truncated => Self::Truncated,
            _ => Self::Other,
        }
    }
}

/// All replies of a stream, and how it ended. Packets are numbered from 0.
type Replies = (Vec<Vec<u8>>, Result<(), FramingError>);

/// Cuts a stream as a caller would that gets it in reads of these sizes. The last read brings all
/// that is left, and with it the news that no more will follow.
fn cut(framing: &mut dyn Framing, stream: &[u8], reads: &[usize], limit: usize) -> Replies {
    let mut replies = Vec::new();
    let mut taken = 0;
    let mut steps = Vec::new();
    for read in reads {
        let (arrived, _) = steps.last().copied().unwrap_or_default();
        steps.push((stream.len().min(arrived + read), false));
    }
    steps.push((stream.len(), true));
    for (arrived, eof) in steps {
        // Nothing is asked about no bytes, but at the end of a stream that never had any.
        while taken < arrived || (eof && stream.is_empty() && replies.is_empty()) {
            let position = Position::new(replies.len() as u64, limit, eof);
            match framing.scan(&stream[taken..arrived], position) {
                Ok(Scan::Partial) => {
                    assert!(!eof, "nothing more will come");
                    break;
                }
                Ok(Scan::Complete { body, len }) => {
                    assert!(body.end <= len && len <= arrived - taken);
                    assert!(body.len() <= limit);
                    replies.push(stream[taken..][body].to_vec());
                    taken += len;
                }
                Err(error) => return (replies, Err(error)),
            }
        }
    }
    (replies, Ok(()))
}

/// Streams of mostly good replies, with what breaks them in between.
fn stream(kind: Kind) -> impl Strategy<Value = Vec<u8>> {
    let special: Vec<&[u8]> = vec![
        b"\n",
        b"\r\n",
        b"\0",
        b"\x1e",
        b"-",
        b"--=",
        MARKER,
        b"0",
        b"1",
        b"9",
        b":",
        b",",
        b" ",
        b"x missing\n",
        b"Content-Length: 1\r\n",
        b"content-length:2\n\n",
        b"\r\n\r\n",
        b"99999999999999999999:",
        b"a b 99999999999999999999\n",
        b"\0\0\0\0\0\0\0\x02",
        NOISE.as_bytes(),
    ];
    let mut special: Vec<Vec<u8>> = special.into_iter().map(<[u8]>::to_vec).collect();
    let marks = [sentinel().mark(0), sentinel().mark(1), sentinel().first_mark(0)];
    special.extend(marks.map(String::into_bytes));
    special.extend([head(), sentinel().mark(1).as_bytes()[..34].to_vec()]);
    let special = prop::sample::select(special);
    let body = prop_oneof![
        vec(prop::sample::select(b"ab\n\r\0\x1e,:1 -=".to_vec()), 0..12),
        vec(any::<u8>(), 0..12),
        special.clone(),
    ];
    let piece = prop_oneof![
        6 => body.prop_map(|body| (true, body)),
        1 => vec(any::<u8>(), 0..6).prop_map(|bytes| (false, bytes)),
        2 => special.prop_map(|bytes| (false, bytes)),
    ];
    let broken = prop_oneof![2 => Just(false), 1 => Just(true)];
    (vec(piece, 0..8), broken, any::<prop::sample::Index>()).prop_map(
        move |(pieces, broken, end)| {
            let mut stream = Vec::new();
            let mut packet = 0;
            for (good, bytes) in pieces {
                if good {
                    stream.extend(kind.encode(packet, &bytes));
                    packet += 1;
                } else if broken {
                    stream.extend(bytes);
                }
            }
            if broken {
                stream.truncate(end.index(stream.len() + 1));
            }
            stream
        },
    )
}

fn case() -> impl Strategy<Value = (Kind, Vec<u8>, Vec<usize>, usize)> {
    prop::sample::select(KINDS.to_vec()).prop_flat_map(|kind| {
        (
            Just(kind),
            stream(kind),
            vec(prop_oneof![3 => 1usize..4, 1 => 4usize..40], 0..200),
            prop_oneof![0usize..16, Just(1 << 20)],
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn reads_do_not_matter((kind, stream, reads, limit) in case()) {
        let framing = kind.framing();
        let whole = cut(&mut *framing.start(), &stream, &[], limit);
        let split = cut(&mut *framing.start(), &stream, &reads, limit);
        let single = cut(&mut *framing.start(), &stream, &vec![1; stream.len()], limit);
        for other in [split, single] {
            prop_assert_eq!(&whole.0, &other.0);
            prop_assert_eq!(
                whole.1.as_ref().map_err(|error| (error.kind(), error.to_string())),
                other.1.as_ref().map_err(|error| (error.kind(), error.to_string()))
            );
        }
    }

    #[test]
    fn every_scanner_agrees_with_its_oracle((kind, stream, reads, limit) in case()) {
        let mut expected = Vec::new();
        let mut rest = &stream[..];
        let mut failure = None;
        while failure.is_none() && !rest.is_empty() {
            match kind.naive(rest, expected.len() as u64, limit) {
                Ok((body, len)) => {
                    expected.push(rest[body].to_vec());
                    rest = &rest[len..];
                }
                Err(other) => failure = Some(other),
            }
        }
        if let (Kind::UntilEof, true) = (kind, stream.is_empty()) {
            expected.push(Vec::new());
        }
        // An empty stream holds no reply, but a caller that asks gets an answer, not a panic.
        let (replies, end) = cut(&mut *kind.framing().start(), &stream, &reads, limit);
        prop_assert_eq!(expected, replies);
        let end = end.err().map(|error| Failure::of(error.kind()));
        match stream.is_empty() {
            true => prop_assert!(
                matches!(end, None | Some(Failure::Truncated))
                    || end == kind.naive(&stream, 0, limit).err()
            ),
            false => prop_assert_eq!(failure, end),
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        kind in prop::sample::select(KINDS.to_vec()),
        stream in vec(any::<u8>(), 0..300),
        reads in vec(1usize..50, 0..50),
        limit in prop_oneof![0usize..400, Just(usize::MAX)],
    ) {
        let (replies, _) = cut(&mut *kind.framing().start(), &stream, &reads, limit);
        prop_assert!(replies.iter().all(|reply| reply.len() <= limit));
    }

    #[test]
    fn a_scanner_is_fresh_after_an_error((kind, stream, reads, limit) in case()) {
        let mut used = kind.framing().start();
        // The pair at a session's start comes once.
        prop_assume!(!matches!(kind, Kind::Pair));
        if cut(&mut *used, &stream, &reads, limit).1.is_err() {
            // But for the sentinel's memory of its last mark, which is that of a session.
            let good = kind.encode(0, b"good");
            let (replies, end) = cut(&mut *used, &good, &[], 1000);
            let (fresh, _) = cut(&mut *kind.framing().start(), &good, &[], 1000);
            prop_assert_eq!(replies, fresh);
            prop_assert!(end.is_ok());
        }
    }

    #[test]
    fn a_delimiter_cuts_as_the_scanner_does((kind, stream, _, _) in case()) {
        let mut framing = kind.framing().start();
        if let Some(delimiter) = framing.delimiter() {
            let (replies, _) = cut(&mut *framing, &stream, &[], usize::MAX);
            let mut bulk: Vec<&[u8]> = stream.split(|&byte| byte == delimiter).collect();
            bulk.pop();
            prop_assert_eq!(replies, bulk);
        }
    }

    #[test]
    fn a_request_comes_back_through_the_reply_framing_of_its_kind(
        bodies in vec(body(), 0..6),
        reads in vec(1usize..50, 0..50),
        pair in 0..PAIRS,
    ) {
        let (requests, replies, excluded) = matching(pair);
        let mut out = Vec::new();
        let mut written = Vec::new();
        for body in bodies {
            let start = out.len();
            requests.open(&mut out);
            out.extend_from_slice(&body);
            let unfit = body.iter().any(|byte| excluded.contains(byte))
                || (pair == U8_PAIR && body.len() > 255);
            match requests.close(&mut out, start) {
                Ok(()) => {
                    prop_assert!(!unfit, "refused what cannot be framed");
                    written.push(body);
                }
                Err(error) => {
                    prop_assert!(unfit, "{}", error);
                    out.truncate(start);
                }
            }
        }
        let (found, end) = cut(&mut *replies.start(), &out, &reads, 300);
        prop_assert!(end.is_ok() || out.is_empty());
        prop_assert_eq!(found, written);
    }
}

/// Bodies with what some framing cannot carry, and at times one that is too long for one byte.
fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..20),
        2 => vec(prop::sample::select(b"ab\n\0".to_vec()), 0..20),
        1 => (250usize..260).prop_map(|size| vec![b'x'; size]),
    ]
}

const PAIRS: usize = 11;
const U8_PAIR: usize = 3;

/// Request framing, the reply framing that undoes it, and the bytes that it refuses.
fn matching(pair: usize) -> (RequestFraming, ReplyFraming, &'static [u8]) {
    let prefixed = |prefix| {
        let none: &[u8] = b"";
        (RequestFraming::prefixed(prefix), ReplyFraming::prefixed(prefix), none)
    };
    match pair {
        0 => (RequestFraming::line(), ReplyFraming::line(), b"\n"),
        1 => (RequestFraming::delimited(0), ReplyFraming::delimited(0), b"\0"),
        2 => (RequestFraming::netstring(), ReplyFraming::netstring(), b""),
        U8_PAIR => prefixed(Prefix::u8()),
        4 => prefixed(Prefix::u16_be()),
        5 => prefixed(Prefix::u16_le()),
        6 => prefixed(Prefix::u32_be()),
        7 => prefixed(Prefix::u32_le()),
        8 => prefixed(Prefix::u64_be()),
        9 => prefixed(Prefix::u64_le()),
        _ => (RequestFraming::content_length(), ReplyFraming::content_length(), b""),
    }
}

proptest! {
    #[test]
    fn a_json_text_on_one_line_comes_back_through_record_separators(
        bodies in vec("[^\n\u{1e}]{0,40}", 0..6),
    ) {
        let framing = RequestFraming::record_separator();
        let mut out = Vec::new();
        for body in &bodies {
            let start = out.len();
            framing.open(&mut out);
            out.extend_from_slice(body.as_bytes());
            prop_assert!(framing.close(&mut out, start).is_ok());
        }
        let (found, _) = cut(&mut *ReplyFraming::record_separator().start(), &out, &[], 1000);
        let bodies: Vec<_> = bodies.into_iter().map(String::into_bytes).collect();
        prop_assert_eq!(found, bodies);
    }

    #[test]
    fn replies_of_any_bytes_are_found_between_their_marks(
        bodies in vec(vec(any::<u8>(), 0..60), 0..6),
        reads in vec(1usize..50, 0..50),
        first in any::<u64>(),
    ) {
        let sentinel = Sentinel::new("{mark}");
        let mut stream = Vec::new();
        for (k, body) in bodies.iter().enumerate() {
            stream.extend_from_slice(body);
            // What a tool prints that executes the command, which here is the command itself.
            sentinel.append(first.wrapping_add(k as u64), &mut stream);
        }
        let mut scanner = ReplyFraming::sentinel(sentinel).start();
        let mut numbered = Numbered { scanner: &mut *scanner, first };
        let (found, end) = cut(&mut numbered, &stream, &reads, 60);
        prop_assert!(end.is_ok() || stream.is_empty());
        prop_assert_eq!(found, bodies);
    }
}

proptest! {
    /// What a tool prints that executes each sync command as it is written, and says something of its own
    /// behind it.
    #[test]
    fn a_pair_of_marks_finds_replies_of_any_bytes_amid_any_noise(
        banner in vec(any::<u8>(), 0..40),
        (head, tail) in ("[ -~\n]{0,12}", "[ -/:-~\n]"),
        bodies in vec(vec(any::<u8>(), 0..60), 1..6),
        numbers in vec(0u64.., 16),
        reads in vec(1usize..50, 0..50),
        first in any::<u64>(),
        silent in any::<bool>(),
    ) {
        let sentinel = Sentinel::new("say {mark1} {mark2}").paired();
        let mut numbers = numbers.into_iter().cycle();
        let mut execute = |commands: &[u8], stream: &mut Vec<u8>| {
            for line in commands.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
                stream.extend(line.iter().skip(4).filter(|&&byte| byte != b' '));
                if !silent {
                    // Every number in the noise is another each time.
                    let number = numbers.next().unwrap().to_string();
                    for byte in collapsed(head.as_bytes()) {
                        match byte {
                            b'0' => stream.extend(number.as_bytes()),
                            byte => stream.push(byte),
                        }
                    }
                    stream.extend(tail.as_bytes());
                }
            }
        };
        let mut stream = banner;
        let mut commands = Vec::new();
        sentinel.append_opening(&mut commands);
        execute(&commands, &mut stream);
        for (k, body) in bodies.iter().enumerate() {
            stream.extend_from_slice(body);
            commands.clear();
            sentinel.append(first.wrapping_add(k as u64), &mut commands);
            execute(&commands, &mut stream);
        }
        let mut scanner = ReplyFraming::sentinel(sentinel).start();
        let mut numbered = Numbered { scanner: &mut *scanner, first };
        let (found, end) = cut(&mut numbered, &stream, &reads, 60);
        prop_assert_eq!(found, bodies);
        // What is left is the noise behind the last mark.
        prop_assert!(end.is_err_and(|error| error.kind() == FramingErrorKind::Truncated) || silent);
    }
}

/// The same scanner for packets that do not begin at 0.
struct Numbered<'a> {
    scanner: &'a mut dyn Framing,
    first: u64,
}

impl Framing for Numbered<'_> {
    fn scan(&mut self, input: &[u8], mut position: Position) -> Result<Scan, FramingError> {
        position.packet = position.packet.wrapping_add(self.first);
        self.scanner.scan(input, position)
    }
}

/// Every framing whose scanner must search gets a reply in reads of one byte. A scanner that starts
/// over each time would take minutes.
#[test]
fn a_reply_that_trickles_in_takes_linear_time() {
    const SIZE: usize = 1 << 20;
    for kind in KINDS {
        if let Kind::U8 | Kind::U16Be = kind {
            continue;
        }
        let stream = kind.encode(0, &vec![b'-'; SIZE]);
        let begun = Instant::now();
        let mut scanner = kind.framing().start();
        let found = (1..=stream.len()).any(|end| {
            // Asked now and then, so that a quadratic scanner fails instead of seeming to hang.
            if end % 4096 == 0 {
                let took = begun.elapsed();
                assert!(took < Duration::from_secs(10), "{kind:?}: {end} bytes, {took:?}");
            }
            let position = Position::new(0, usize::MAX, end == stream.len());
            scanner.scan(&stream[..end], position).unwrap() != Scan::Partial
        });
        assert!(found, "{kind:?}");
    }
}

#[test]
fn framings_are_descriptions_that_threads_share() {
    fn shared<T: Clone + std::fmt::Debug + Send + Sync + 'static>() {}
    shared::<RequestFraming>();
    shared::<ReplyFraming>();
    shared::<Sentinel>();
}
