#![no_main]

use libfuzzer_sys::fuzz_target;
use subfeed::framing::{ReplyFraming, Sentinel};
use subfeed_fuzz::reads_do_not_matter;

// A mark is more than a fuzzer guesses, so bytes above 0xe0 stand for marks, pieces of them, and noise.
fuzz_target!(|data: &[u8]| {
    let sentinel = Sentinel::new("sync {mark1} {mark2}").with_nonce(0).paired();
    let mut opening = Vec::new();
    sentinel.append_opening(&mut opening);
    let opening: Vec<Vec<u8>> = opening
        .split(|&byte| byte == b'\n')
        .map(|line| line.iter().skip(5).copied().filter(|&byte| byte != b' ').collect())
        .collect();
    let mut stream = Vec::new();
    for (at, &byte) in data.iter().enumerate() {
        let packet = u64::from(byte & 3);
        match byte {
            // The preamble is not part of the stream.
            _ if at < 3 => stream.push(byte),
            0xe0..=0xe3 => stream.extend_from_slice(sentinel.first_mark(packet).as_bytes()),
            0xe4..=0xe7 => stream.extend_from_slice(sentinel.mark(packet).as_bytes()),
            0xe8..=0xeb => {
                for mark in [sentinel.first_mark(packet), "\n1> ".into(), sentinel.mark(packet)] {
                    stream.extend_from_slice(mark.as_bytes());
                }
            }
            0xf0 => stream.extend_from_slice(&opening[0]),
            0xf1 => stream.extend_from_slice(&opening[1]),
            0xf2..=0xf3 => stream.extend([&opening[0], &b"\n1> "[..], &opening[1]].concat()),
            0xf4..=0xf5 => stream.extend_from_slice(b"\n1> "),
            0xf6 => stream.extend_from_slice(b"\n02> "),
            0xf8 => stream.extend_from_slice(&opening[0][..18]),
            0xf9 => stream.extend_from_slice(b"sync "),
            _ => stream.push(byte),
        }
    }
    reads_do_not_matter(&ReplyFraming::sentinel(sentinel), &stream);
});
