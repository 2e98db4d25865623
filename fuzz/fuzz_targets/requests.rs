#![no_main]

use libfuzzer_sys::fuzz_target;
use subfeed::framing::{Position, Prefix, ReplyFraming, RequestFraming, Scan};

// What a request framing writes, the reply framing of its kind reads back.
fuzz_target!(|data: &[u8]| {
    let Some((&first, body)) = data.split_first() else {
        return;
    };
    let (requests, replies) = match first % 6 {
        0 => (RequestFraming::line(), ReplyFraming::line()),
        1 => (RequestFraming::delimited(0), ReplyFraming::delimited(0)),
        2 => (RequestFraming::prefixed(Prefix::u8()), ReplyFraming::prefixed(Prefix::u8())),
        3 => (RequestFraming::prefixed(Prefix::u64_le()), ReplyFraming::prefixed(Prefix::u64_le())),
        4 => (RequestFraming::netstring(), ReplyFraming::netstring()),
        _ => (RequestFraming::content_length(), ReplyFraming::content_length()),
    };
    let mut out = b"earlier".to_vec();
    let start = out.len();
    requests.open(&mut out);
    out.extend_from_slice(body);
    if requests.close(&mut out, start).is_err() {
        return;
    }
    let frame = &out[start..];
    match replies.start().scan(frame, Position::new(0, body.len(), true)) {
        Ok(Scan::Complete { body: found, len }) => {
            assert_eq!((&frame[found], len), (body, frame.len()));
        }
        other => panic!("{other:?}"),
    }
});
