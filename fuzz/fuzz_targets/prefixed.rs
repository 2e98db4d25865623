#![no_main]

use libfuzzer_sys::fuzz_target;
use subfeed::framing::{Prefix, ReplyFraming};
use subfeed_fuzz::reads_do_not_matter;

const PREFIXES: [Prefix; 7] = [
    Prefix::u8(),
    Prefix::u16_be(),
    Prefix::u16_le(),
    Prefix::u32_be(),
    Prefix::u32_le(),
    Prefix::u64_be(),
    Prefix::u64_le(),
];

fuzz_target!(|data: &[u8]| {
    if let Some((&first, data)) = data.split_first() {
        let prefix = PREFIXES[usize::from(first) % PREFIXES.len()];
        reads_do_not_matter(&ReplyFraming::prefixed(prefix), data);
    }
});
