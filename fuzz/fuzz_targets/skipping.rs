#![no_main]

use libfuzzer_sys::fuzz_target;
use subfeed::framing::ReplyFraming;
use subfeed_fuzz::reads_do_not_matter;

// Records of several kinds, of which those are passed over that begin with a certain byte.
fuzz_target!(|data: &[u8]| {
    let Some((&first, data)) = data.split_first() else {
        return;
    };
    let records = match first % 4 {
        0 => ReplyFraming::line(),
        1 => ReplyFraming::netstring(),
        2 => ReplyFraming::content_length(),
        _ => ReplyFraming::block(),
    };
    reads_do_not_matter(&records.skipping(|record| record.starts_with(b"#")), data);
});
