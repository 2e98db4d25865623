//! Words on their way through a shell that is not ours: whatever bytes are in them, they arrive as they are, and
//! `shlex` reads what is sent as a shell does.

#[path = "../common/tools.rs"]
mod tools;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use proptest::collection::vec;
use proptest::prelude::*;
use subfeed::framing::{ReplyFraming, RequestFraming};
use subfeed::launcher::Quoting;
use subfeed::{BString, FeedExt, Launcher, Template};

/// A word: bytes of any kind, or what some shell minds.
fn word() -> impl Strategy<Value = Vec<u8>> {
    let nasty = prop::sample::select(vec![
        "", "'", "''", "\"", "\\", "\\\\", "\\'", "\n", "\n\n", "!", "!!", "$HOME", "$(id)",
        "`id`", "*", "?", "~", "{a,b}", "#", "%s", "\\0101", "\\n", "&&", ";", "|", "<(x)", "=x",
        "-n", " ", "\t", "\r", "\u{e9}", "\u{a0}", "(", "^", "@",
    ]);
    let piece = prop_oneof![
        3 => nasty.prop_map(|text| text.as_bytes().to_vec()),
        2 => vec(1..=255u8, 0..12),
        1 => vec(prop::sample::select(b"ab'\\\n!\"$ ".to_vec()), 0..12),
    ];
    vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

fn words() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(word(), 0..8)
}

/// Every byte that a word may have, alone, between others, and all of them in one.
fn every_byte() -> Vec<Vec<u8>> {
    let alone = (1..=255u8).map(|byte| vec![byte]);
    let between = (1..=255u8).map(|byte| vec![b'a', byte, byte, b'\\', byte]);
    alone.chain(between).chain([(1..=255).collect(), (1..=255).rev().collect()]).collect()
}

/// The one reply of a tool with these words behind its own.
fn reply(tool: Template, words: &[Vec<u8>], launcher: Launcher) -> BString {
    let tool = words.iter().fold(tool, |tool, word| tool.raw_arg(OsStr::from_bytes(word)));
    let tool = tool.requests(RequestFraming::raw()).replies(ReplyFraming::until_eof());
    let launcher = launcher.hosts(["there"]).quoting(Quoting::Shell);
    let mut feed = [""].into_iter().feed_subprocesses_ordered(tool.via(launcher), 1, 1);
    feed.next().expect("an item").expect("a reply")
}

/// The words as a program gets them that this shell starts, as the login shell of another machine would.
fn through(shell: &str, words: &[Vec<u8>]) -> Vec<Vec<u8>> {
    // It answers when it has been asked, and not before.
    let tool = Template::new("sh").arg("-c").raw_arg(r#"cat; printf '%s\0' "$@""#);
    split(&reply(tool.args(["sh", "first"]), words, Launcher::remote([shell, "-c"])))
}

/// What was printed, without the first.
fn split(printed: &[u8]) -> Vec<Vec<u8>> {
    let mut parts: Vec<_> = printed.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
    assert_eq!(parts.pop().as_deref(), Some(&b""[..]), "each is ended");
    assert_eq!(parts.remove(0), b"first");
    parts
}

/// The command that would be sent: the launcher prints it.
fn sent(words: &[Vec<u8>]) -> BString {
    reply(Template::new("tool"), words, Launcher::remote(["printf", "%s"]).bare())
}

/// What `printf %b` makes of octal numbers.
fn decoded(octal: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = octal;
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'\\' {
            let (digits, after) = after.split_at(4);
            out.push(u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 8).unwrap());
            rest = after;
        } else {
            out.push(byte);
            rest = after;
        }
    }
    out
}

/// The words in a command that is sent, as `shlex` reads it.
fn read_by_shlex(command: &[u8]) -> Vec<Vec<u8>> {
    let outer = shlex::bytes::split(command).expect("a command");
    assert_eq!(outer[..3], [&b"exec"[..], b"sh", b"-c"]);
    assert_eq!(outer.len(), 5);
    let mut inner = shlex::bytes::split(&decoded(&outer[4])).expect("a command");
    assert_eq!(inner.drain(..2).collect::<Vec<_>>(), [&b"exec"[..], b"tool"]);
    inner
}

/// The words that a shell reads out of what `shlex` has quoted.
fn quoted_by_shlex(shell: &str, words: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let words = words.iter().map(Vec::as_slice);
    let quoted = shlex::bytes::try_join(words).expect("no NUL");
    let command = [&b"exec printf '%s\\0' first "[..], &quoted].concat();
    let mut started = std::process::Command::new(shell);
    let output = started.arg("-c").arg(OsStr::from_bytes(&command)).output();
    split(&output.expect("a shell").stdout)
}

const SHELLS: [&str; 4] = ["sh", "bash", "fish", "tcsh"];

#[test]
fn every_byte_survives_every_login_shell() {
    if !tools::here(&SHELLS) {
        return;
    }
    let words = every_byte();
    for shell in SHELLS {
        assert_eq!(through(shell, &words), words, "{shell}");
    }
    assert_eq!(read_by_shlex(&sent(&words)), words);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn any_words_survive_every_login_shell(words in words()) {
        if tools::here(&SHELLS) {
            for shell in SHELLS {
                prop_assert_eq!(&through(shell, &words), &words, "{}", shell);
            }
        }
    }

    #[test]
    fn what_is_sent_is_what_shlex_reads(words in words()) {
        prop_assert_eq!(&read_by_shlex(&sent(&words)), &words);
        for shell in ["sh", "bash"] {
            prop_assert_eq!(&quoted_by_shlex(shell, &words), &words, "{}", shell);
        }
    }
}
