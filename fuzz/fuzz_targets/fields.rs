#![no_main]

use libfuzzer_sys::fuzz_target;
use subfeed::framing::ReplyFraming;
use subfeed_fuzz::reads_do_not_matter;

fuzz_target!(|data: &[u8]| reads_do_not_matter(&ReplyFraming::fields(0, 4), data));
