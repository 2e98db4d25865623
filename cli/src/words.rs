//! The library speaks of its settings and of packets, this command has options and records: its messages in the words of
//! `--help`.
//!
//! What is quoted in a message, between double quotes or backticks, is somebody else's text and stays as it is. A unit test
//! looks through the library's source, so that no message of it names what cannot be said here.

use std::borrow::Cow;
use std::io;

use subfeed::Error;

/// An error of the feed by its record, counted from 1.
pub(crate) fn told(error: &Error) -> String {
    told_by(error, |record| record)
}

/// The same where a record's packet id is not its number.
pub(crate) fn told_by(error: &Error, number: impl Fn(u64) -> u64) -> String {
    let text = error.to_string();
    let Some(packet) = error.packet() else { return ours(&text) };
    let text = text.strip_prefix(&format!("packet {packet}: ")).unwrap_or(&text);
    format!("record {}: {}", number(packet), ours(text))
}

/// Whole phrases that are said in another way here, also with quotation marks in them. The longer ones come first.
const PHRASES: &[(&str, &str)] = &[
    (", or Template::line_buffered", ", or put `stdbuf -oL` in front of it, or say --pty"),
    (" with Template::shell and `2>&1`", ": `sh -c 'exec TOOL 2>&1'`"),
    (
        "a sentinel framing, or ReplyFraming::until_eof, a process",
        "--out sentinel:CMD, or --out eof, a process",
    ),
    ("ReplyFraming::until_eof, where each process gives one reply, or in a drain", "--out eof"),
    ("ReplyFraming::until_eof", "--out eof"),
    ("ReplyFraming::sentinel", "--out sentinel:CMD"),
    ("give it a Template::farewell, or more time", "give it more time"),
    ("a sentinel framing, or check", "--out sentinel:CMD"),
    ("a sentinel framing", "--out sentinel:CMD"),
    ("(Template::skip_lines, skip_until, ready)", "(--skip-lines)"),
    ("Template::skip_lines, skip_until and ready", "--skip-lines"),
    (
        "do the framings fit what the tool reads and prints?",
        "do --in and --out say how the tool's records and answers end?",
    ),
    ("what its framing expects", "what --out says"),
    ("frame its replies by what ends them", "say with --out what ends an answer"),
    ("raise the limit with Template::reply_limit", "raise --answer-limit"),
    ("the reply limit", "--answer-limit"),
    (": raise it with Template::reply_limit", ""),
    (
        "see record_limit, and whether the delimiter is right",
        "see --record-limit, and whether the records end as they should (-0)",
    ),
    (
        "write it with RequestFraming::raw if the worker knows where it ends, choose another framing, such as a length prefix, or encode the request",
        "use --in raw if the worker knows where it ends, or another --in, such as len32",
    ),
    ("choose a wider one", "use another --in"),
    (
        "needs room for at least one packet, and buffer_size is 0",
        "needs room for at least one record, and --window is 0",
    ),
    ("needs at least one worker, and n is 0", "needs at least one worker, and --jobs is 0"),
    (
        "give arguments with Template::arg, or a whole command line to Template::shell",
        "give its arguments as words of their own, or a whole command line to `sh -c`",
    ),
    ("or use Template::shell", "or use `sh -c`"),
    (", or do without: Launcher::option(\"ControlMaster=no\")", ""),
    (
        "Launcher::slots() is the sum of the weights",
        "leave --jobs out, and there are as many as -S says",
    ),
    (
        "give it a weight: Host::new(name).weight(2)",
        "give it the number of its workers, as in 2/NAME",
    ),
    (" (on_stall)", ""),
    ("take it off in decode", "take it off what comes out"),
    ("its key is another one", "of another command, or with other options for records and answers"),
    ("line_buffered(Pty)", "--pty"),
    ("`accept_status`", "--accept-status"),
    ("drop the feed at its end instead of calling finish", "there is nothing to do"),
    ("give None where there is to be no limit", "leave it out where there is to be no limit"),
    ("the feed goes on without it", "the run goes on without it"),
];

/// What a setting of the library is called here.
const SETTINGS: &[(&str, &str)] = &[
    ("packet_timeout", "--timeout"),
    ("start_timeout", "--start-timeout"),
    ("end_timeout", "--end-timeout"),
    ("connect_within", "the time for a connection"),
    ("reply_limit", "--answer-limit"),
    ("record_limit", "--record-limit"),
    ("accept_status", "--accept-status"),
    ("skip_at_end", "--skip-at-end"),
    ("skip_lines", "--skip-lines"),
    ("until_eof", "--out eof"),
    ("max_bytes", "--max-bytes"),
    ("buffer_size", "--window"),
    ("line_buffered", "--pty"),
];

/// What a thing is called here.
const THINGS: &[(&str, &str)] = &[
    ("packet", "record"),
    ("packets", "records"),
    ("request", "record"),
    ("requests", "records"),
    ("item", "record"),
    ("items", "records"),
    ("reply", "answer"),
    ("replies", "answers"),
    ("feed", "run"),
];

/// Why a thread of this command could not be started. Threads count as processes.
pub(crate) fn no_thread(what: &str, error: &io::Error) -> String {
    let limit = match error.kind() {
        io::ErrorKind::WouldBlock => "; raise the limit of processes and threads (ulimit -u)",
        _ => "",
    };
    format!("{what} could not be started: {error}{limit}")
}

/// A message of the library in the words of this command.
pub(crate) fn ours(text: &str) -> String {
    let mut text = pasted(text);
    for (theirs, ours) in PHRASES {
        if text.contains(theirs) {
            text = Cow::Owned(text.replace(theirs, ours));
        }
    }
    let mut said = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some(at) = rest.find(['"', '`']) {
        let (plain, quotation) = rest.split_at(at);
        translate(plain, &mut said);
        let end = quoted(quotation);
        said.push_str(&quotation[..end]);
        rest = &quotation[end..];
    }
    translate(rest, &mut said);
    said
}

/// The length of a quotation, with its marks. One that does not end is the rest.
fn quoted(text: &str) -> usize {
    let mark = text.as_bytes()[0];
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        if byte == mark && !escaped {
            return at + 1;
        }
        escaped = mark == b'"' && byte == b'\\' && !escaped;
    }
    text.len()
}

/// The line that a program would paste for what a tool says at its end, as an option.
fn pasted(text: &str) -> Cow<'_, str> {
    const CALL: &str = ".skip_at_end(";
    let Some(at) = text.find(CALL) else { return Cow::Borrowed(text) };
    let (before, rest) = (&text[..at], &text[at + CALL.len()..]);
    let literal = rest.strip_prefix('b').unwrap_or(rest);
    if !literal.starts_with('"') {
        return Cow::Borrowed(text);
    }
    let (literal, behind) = literal.split_at(quoted(literal));
    let said = literal.trim_matches('"');
    let end = match said.strip_suffix("\\n") {
        Some(line) if line.ends_with("\\n") => said.to_owned(),
        Some(line) => line.to_owned(),
        None => format!("{said}\\c"),
    };
    let option = format!("--skip-at-end {}", for_a_shell(&end));
    Cow::Owned(format!("{before}{option}{}", behind.strip_prefix(')').unwrap_or(behind)))
}

/// A word as a shell takes it.
pub(crate) fn for_a_shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Text in which nothing is quoted.
fn translate(text: &str, said: &mut String) {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = text;
    while let Some(start) = rest.find(is_of_word) {
        said.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
        let word = &rest[..end];
        rest = &rest[end..];
        if word == "Template" && rest.starts_with("::") {
            rest = &rest[2..];
            continue;
        }
        // Not every feed is a run.
        let line_feed = word == "feed" && said.ends_with("line ");
        let known = SETTINGS.iter().chain(THINGS).find(|(theirs, _)| *theirs == word && !line_feed);
        let word = known.map_or(word, |(_, ours)| ours);
        if word == "answer" && (said.ends_with(" a ") || said == "a ") {
            said.truncate(said.len() - 1);
            said.push_str("n ");
        }
        said.push_str(word);
    }
    said.push_str(rest);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn settings_are_options_and_what_is_quoted_stays() {
        for (theirs, said) in [
            (
                "no reply within 1s (packet_timeout); request \"packet_timeout\\\" reply\"; command `a reply`",
                "no answer within 1s (--timeout); record \"packet_timeout\\\" reply\"; command `a reply`",
            ),
            (
                "worker 0 of `x` owes a reply; Template::packet_timeout would bound the wait",
                "worker 0 of `x` owes an answer; --timeout would bound the wait",
            ),
            (
                "if it does, declare it: .skip_at_end(\"it's\\n\"); if not",
                r"if it does, declare it: --skip-at-end 'it'\''s'; if not",
            ),
            ("declare it: .skip_at_end(\"> \"); if", r"declare it: --skip-at-end '> \c'; if"),
            ("declare it: .skip_at_end(\"a\\n\\n\"); if", r"declare it: --skip-at-end 'a\n\n'; if"),
            (
                "declare it: .skip_at_end(b\"\\xff\\n\"); if",
                r"declare it: --skip-at-end '\xff'; if",
            ),
            (
                "the end line \"x\" has a line feed in it; the feed ends",
                "the end line \"x\" has a line feed in it; the run ends",
            ),
            ("a \"quotation that does not end", "a \"quotation that does not end"),
            ("", ""),
        ] {
            assert_eq!(ours(theirs), said);
        }
    }

    /// The library's source files, but for what no message of this command can come from.
    fn sources() -> Vec<PathBuf> {
        const ELSEWHERE: [&str; 12] = [
            "src/pipeline",
            "src/queue",
            "src/pool",
            "src/threads",
            "src/source",
            "src/stream",
            "src/subprocess/sim",
            "src/cookbook.rs",
            "src/compile_fail.rs",
            "src/readme.rs",
            "src/ext.rs",
            "src/watch/bottleneck.rs",
        ];
        fn visit(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(dir).expect("a folder") {
                let path = entry.expect("an entry").path();
                if ELSEWHERE.iter().any(|elsewhere| path.ends_with(elsewhere)) {
                    continue;
                }
                if path.is_dir() { visit(&path, found) } else { found.push(path) }
            }
        }
        let mut found = Vec::new();
        visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../src"), &mut found);
        found
    }

    /// The texts of a file, without its comments, docs and tests.
    fn texts(code: &str) -> Vec<String> {
        let code = code.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let lines = code.lines().map(str::trim_start);
        let lines = lines.filter(|line| {
            // Names of fields are for `Debug`.
            !["//", "#[", ".field("].iter().any(|start| line.starts_with(start))
        });
        let code: String = lines.collect::<Vec<_>>().join("\n").replace("'\"'", "");
        let mut texts = Vec::new();
        let mut rest = &*code;
        while let Some(at) = rest.find('"') {
            let length = quoted(&rest[at..]);
            let text = &rest[at + 1..(at + length).max(at + 2) - 1];
            texts.push(text.replace("\\\n", "").replace("\\\"", "\""));
            rest = &rest[at + length..];
        }
        texts
    }

    /// Messages that nothing can bring about here: the command has no option for what they are about.
    const UNREACHABLE: &[&str] = &[
        "at_most_once",
        "keep_stderr",
        "side_input",
        "encode",
        "decode",
        "answers_at_eof",
        "require_clean_exit",
        "in_flight",
        "first_packet",
        "acknowledge_range",
        "skip_until",
        "end_marker",
        "on_stderr",
        "on_stall is zero",
        "Sentinel::alone",
        "Order::Input",
        "FeedBuilder::drain",
        "block_size",
        "podman_exec",
        "kill_with",
        "config_file",
        "connect_within is zero",
        "kill_with_parent",
        "Launcher::remote",
        "Launcher::ssh has no host",
        "Launcher::srun",
        "Launcher::hosts",
        "Launcher::carry",
        "Launcher::bare",
        "ReplyFraming::end_marker",
        "try_feed",
        "Order::Completion",
        "is about stdout, which is redirected",
        "idle_timeout",
        "run_timeout",
        "recycle_after_records",
        "recycle_after_age",
        "Launcher::{setting} is zero",
        "give_up_after",
    ];

    #[test]
    fn no_message_of_the_library_names_what_cannot_be_said_here() {
        let sources = sources();
        let code: Vec<_> =
            sources.iter().map(|path| fs::read_to_string(path).expect("text")).collect();
        let mut names = BTreeSet::new();
        for code in &code {
            for item in code.split("pub fn ").skip(1) {
                let name = item
                    .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .next()
                    .unwrap_or_default();
                if name.contains('_') {
                    names.insert(name.to_owned());
                }
            }
        }
        assert!(names.contains("packet_timeout") && names.contains("reply_limit"), "{names:?}");
        let mut seen = 0;
        let mut untold = Vec::new();
        for (path, code) in sources.iter().zip(&code) {
            // A name alone becomes part of a message.
            let texts = texts(code);
            let told = texts.iter().filter(|text| text.contains(' ') || names.contains(*text));
            for text in told {
                let said = ours(text);
                if UNREACHABLE.iter().any(|words| said.contains(words)) {
                    continue;
                }
                seen += usize::from(said != *text);
                let words = said.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let named = words.filter(|word| names.contains(*word)).count();
                let capital = |at: usize| said[..at].ends_with(|c: char| c.is_ascii_alphabetic());
                if named > 0 || said.match_indices("::").any(|(at, _)| capital(at)) {
                    untold.push(format!("{}: {said}", path.display()));
                }
            }
        }
        assert!(untold.is_empty(), "{}", untold.join("\n"));
        assert!(seen > 50, "only {seen} messages are said in another way");
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        let words = ["jq", "-c", ".a b", "it's", ""].map(for_a_shell);
        assert_eq!(words.join(" "), r"jq -c '.a b' 'it'\''s' ''");
    }
}
