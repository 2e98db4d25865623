#![no_main]

use libfuzzer_sys::fuzz_target;
use subfeed::framing::ReplyFraming;
use subfeed_fuzz::reads_do_not_matter;

fuzz_target!(|data: &[u8]| {
    reads_do_not_matter(&ReplyFraming::end_line_where(|line| line.ends_with(b".")), data);
});
