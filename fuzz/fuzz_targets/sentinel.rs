#![no_main]

use libfuzzer_sys::fuzz_target;
use subfeed::framing::{ReplyFraming, Sentinel};
use subfeed_fuzz::reads_do_not_matter;

// A mark is more than a fuzzer guesses, so bytes above 0xf0 stand for marks and pieces of them.
fuzz_target!(|data: &[u8]| {
    let Some((&first, data)) = data.split_first() else {
        return;
    };
    let sentinel = match first % 3 {
        0 => Sentinel::new("sync {mark}"),
        1 => Sentinel::new("sync {mark}").alone(),
        _ => Sentinel::new("sync {mark1} {mark2}"),
    };
    let sentinel = sentinel.with_nonce(0);
    let mut stream = Vec::new();
    for (at, &byte) in data.iter().enumerate() {
        match byte {
            // The preamble is not part of the stream.
            _ if at < 3 => stream.push(byte),
            0xf0..=0xf7 => stream.extend_from_slice(sentinel.mark(u64::from(byte & 7)).as_bytes()),
            0xf8..=0xf9 => stream.extend_from_slice(&sentinel.mark(0).as_bytes()[..18]),
            0xfa..=0xfb => stream.extend_from_slice(&sentinel.mark(0).as_bytes()[18..]),
            0xfc => stream.extend_from_slice(b"sync "),
            _ => stream.push(byte),
        }
    }
    reads_do_not_matter(&ReplyFraming::sentinel(sentinel), &stream);
});
