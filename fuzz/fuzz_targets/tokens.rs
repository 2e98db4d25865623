#![no_main]

use libfuzzer_sys::fuzz_target;

/// The tokens, and what each becomes: the longest that fits wins, and an escape is longer than its token.
const TOKENS: [(&[u8], &[u8]); 12] = [
    (b"{{fd:side}}", b"{fd:side}"),
    (b"{{fd:none}}", b"{fd:none}"),
    (b"{{id}}", b"{id}"),
    (b"{{host}}", b"{host}"),
    (b"{{slot}}", b"{slot}"),
    // What only the command that kills a far worker has.
    (b"{{pid}}", b"{pid}"),
    (b"{pid}", b"{pid}"),
    (b"{host}", b"localhost"),
    (b"{slot}", b"3"),
    (b"{fd:side}", b"/dev/fd/11"),
    (b"{fd:none}", b"{fd:none}"),
    (b"{id}", b"3"),
];

// Tokens are more than a fuzzer guesses, so the first bytes of the alphabet stand for pieces of them.
fuzz_target!(|data: &[u8]| {
    let pieces: [&[u8]; 11] =
        [b"{", b"}", b"{id}", b"id", b"{fd:", b"side", b"none", b":", b"host", b"slot", b"pid"];
    let text: Vec<u8> = data
        .iter()
        .flat_map(|byte| match pieces.get(usize::from(*byte)) {
            Some(piece) => piece.to_vec(),
            None => vec![*byte],
        })
        .collect();
    // Any other name is looked up like `none`, but the oracle does not know how long it is.
    let mut names = text.split(|&byte| byte == b'{').skip(1);
    if names.any(|rest| {
        rest.strip_prefix(b"fd:").is_some_and(|rest| {
            let name = rest.split(|&byte| byte == b'}').next().unwrap_or_default();
            !matches!(name, b"side" | b"none")
        })
    }) {
        subfeed::replaced(&text);
        return;
    }

    let mut expected = Vec::new();
    let mut rest = &text[..];
    while let Some(&byte) = rest.first() {
        match TOKENS.iter().find(|(token, _)| rest.starts_with(token)) {
            Some((token, meaning)) => {
                expected.extend_from_slice(meaning);
                rest = &rest[token.len()..];
            }
            None => {
                expected.push(byte);
                rest = &rest[1..];
            }
        }
    }
    assert_eq!(subfeed::replaced(&text), expected);
});
