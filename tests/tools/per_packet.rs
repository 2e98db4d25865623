//! Tools that read all of stdin before they say anything: one process for each request, its whole stdout
//! the reply.

use std::io::Write as _;

use crate::harness::{lines, tool};

/// Requests of any size and any bytes.
fn blobs() -> Vec<Vec<u8>> {
    let mut blobs: Vec<Vec<u8>> = lines().into_iter().take(12).map(Vec::from).collect();
    blobs.extend([b"b\na\nc\n".to_vec(), b"\n\n".to_vec(), (0..=255).collect(), b"\0\0".to_vec()]);
    blobs.push((0..300_000u32).flat_map(u32::to_le_bytes).collect());
    blobs
}

macro_rules! per_packet {
    ($($test:ident: $argv:expr;)*) => {$(
        #[test]
        fn $test() {
            let Some(tool) = tool(&$argv) else { return };
            // A process for each request: 1,000 of them.
            tool.per_packet().requests(blobs()).count(1_000).run();
        }
    )*};
}

per_packet! {
    gzip: ["gzip", "-n", "-1"];
    base64: ["base64"];
    sort: ["sort"];
    sha1sum: ["sha1sum"];
    tac: ["tac"];
    wc: ["wc", "-c"];
    openssl_base64: ["openssl", "base64"];
}

#[test]
fn iconv() {
    let Some(iconv) = tool(&["iconv", "-f", "latin1", "-t", "utf8"]) else { return };
    let utf8 = |bytes: &[u8]| bytes.iter().map(|&byte| char::from(byte)).collect::<String>();
    iconv
        .per_packet()
        .requests(blobs())
        .count(1_000)
        .oracle(move |request| utf8(request).into())
        .run();
}

/// What has been zipped by one feed is unzipped by the next: a chain, compared with nothing but itself.
#[test]
fn gunzip_of_gzip() {
    use subfeed::framing::{ReplyFraming, RequestFraming};
    use subfeed::{FeedExt, Template};

    if !crate::harness::here(&["gzip"]) {
        return;
    }
    let whole = |template: Template| {
        template.requests(RequestFraming::raw()).replies(ReplyFraming::until_eof())
    };
    let zip = whole(Template::new("gzip").arg("-1"));
    let unzip = whole(Template::new("gzip").arg("-d"));
    let requests: Vec<Vec<u8>> = (0..500u32)
        .map(|n| {
            let mut request = Vec::new();
            write!(request, "{n} ").expect("a Vec takes every write");
            request.resize(n as usize * 100 + 8, b'z');
            request
        })
        .collect();
    let replies = crate::common::within({
        let requests = requests.clone();
        move || {
            let zipped = requests.into_iter().feed_subprocesses_ordered(zip, 4, 100);
            let zipped = zipped.map(|reply| reply.expect("a zipped reply"));
            let unzipped = zipped.feed_subprocesses_ordered(unzip, 4, 100);
            unzipped.collect::<Result<Vec<_>, _>>().expect("replies")
        }
    });
    assert!(requests.iter().eq(replies.iter()));
}
