//! Tools with a framing of their own: blocks, end markers, sizes in headers; banners and farewells.

use std::process::Command;

use bstr::{BStr, BString, ByteSlice};
use subfeed::framing::{ReplyFraming, RequestFraming};
use subfeed::{ErrorKind, FeedExt, Template};

use crate::common::Dir;
use crate::harness::{file, here, tool};

const WORDS: [&[u8]; 14] = [
    b"^hello",
    b"^",
    b"",
    b"^teh",
    b"^teh wrold of speling errers",
    "^na\u{ef}ve caf\u{e9}".as_bytes(),
    b"^not UTF-8 \xff",
    b"^one two three four five six seven eight nine ten",
    b"^xyzzyx",
    b"^don't",
    b"^123 456",
    b"^C.U.T.",
    b"^ ",
    b"^^",
];

/// The banner's line and the blank line at the end.
fn block(output: BString) -> BString {
    let rest = output.split_once_str("\n").map_or(&b""[..], |(_, rest)| rest);
    let rest = rest.strip_suffix(b"\n").unwrap_or(rest);
    BString::from(rest.strip_suffix(b"\n").unwrap_or(rest))
}

#[test]
fn hunspell() {
    let Some(hunspell) = tool(&["hunspell", "-d", "en_US", "-i", "utf-8", "-a"]) else { return };
    hunspell
        .template(|template| template.skip_lines(1).replies(ReplyFraming::block()))
        .trim(block)
        .requests(WORDS)
        // Suggestions cost it milliseconds.
        .count(1_000)
        .run();
}

#[test]
fn aspell() {
    let Some(aspell) = tool(&["aspell", "-a", "--lang=en_US", "--encoding=utf-8"]) else { return };
    aspell
        .template(|template| template.skip_lines(1).replies(ReplyFraming::block()))
        .trim(block)
        // It says nothing at all to an empty line.
        .requests(WORDS.into_iter().filter(|word| !word.is_empty()))
        .run();
}

#[test]
fn exiftool() {
    if !here(&["exiftool"]) {
        return;
    }
    let dir = Dir::new();
    let png = |width: u8| {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0".to_vec();
        png.extend([width, 0, 0, 0, 1, 8, 2, 0, 0, 0, 0, 0, 0, 0]);
        png.extend(b"\0\0\0\0IEND\xae\x42\x60\x82");
        png
    };
    let root = dir.path("");
    let mut paths: Vec<String> = (1..8).map(|n| file(&root, &format!("{n}.png"), png(n))).collect();
    paths.push(file(&root, "na\u{ef}ve name.png", png(9)));
    paths.push(file(&root, "text.txt", "a text\n"));
    paths.push(file(&root, "empty", ""));
    paths.push(dir.at("missing: an error on stderr only"));
    let requests = paths
        .iter()
        .map(|path| format!("-s\n-ImageSize\n-FileName\n-MIMEType\n{path}\n-execute\n"));
    let mut tool = tool(&["exiftool", "-stay_open", "True", "-@", "-"]).expect("exiftool");
    tool = tool.template(|template| {
        template
            .requests(RequestFraming::raw())
            .replies(ReplyFraming::end_marker("{ready}\n"))
            .farewell("-stay_open\nFalse\n")
    });
    tool.oracle(|request| {
        let arguments: Vec<&str> = request.to_str().expect("text").lines().collect();
        BString::from(
            Command::new("exiftool").args(&arguments[..5]).output().expect("exiftool").stdout,
        )
    })
    .requests(requests)
    // It opens each file. The missing one makes it exit with status 1.
    .count(1_000)
    .ends_badly()
    .run();
}

/// A repository with blobs of every kind, and the names to ask for.
struct Repository {
    dir: Dir,
    ids: Vec<String>,
    paths: Vec<String>,
}

impl Repository {
    fn new() -> Self {
        let dir = Dir::new();
        let git = |args: &[&str]| {
            let output = Command::new("git").arg("-C").arg(dir.path("")).args(args).output();
            let output = output.expect("git");
            assert!(output.status.success(), "{}", output.stderr.as_bstr());
            output.stdout.to_str().expect("text").trim().to_owned()
        };
        git(&["init", "-q", "."]);
        let contents: Vec<Vec<u8>> = [
            b"".to_vec(),
            b"\n".to_vec(),
            b"no line feed".to_vec(),
            b"a\nb\nc\n".to_vec(),
            b"0123 missing\n".to_vec(),
            (0..=255).collect(),
            "na\u{ef}ve\n".into(),
            vec![b'x'; 300_000],
        ]
        .into_iter()
        .chain((0..30).map(|n| format!("blob {n}\n").repeat(n).into_bytes()))
        .collect();
        let mut paths = Vec::new();
        for (n, content) in contents.iter().enumerate() {
            paths.push(file(&dir.path(""), &format!("file {n}"), content));
        }
        git(&["add", "."]);
        git(&["-c", "user.name=n", "-c", "user.email=e", "commit", "-q", "-m", "all"]);
        let mut ids: Vec<String> =
            (0..contents.len()).map(|n| git(&["rev-parse", &format!("HEAD:file {n}")])).collect();
        ids.extend(["HEAD", "HEAD^{tree}", "HEAD:file 3"].map(str::to_owned));
        Self { dir, ids, paths }
    }

    fn here(&self, template: Template) -> Template {
        template.current_dir(self.dir.path(""))
    }
}

/// Names of nothing: no error for git, a line that says so.
const NOTHING: [&str; 4] = ["no-such", "0123", "", "na\u{ef}ve name"];

#[test]
fn git_cat_file_batch() {
    let Some(git) = tool(&["git", "cat-file", "--batch"]) else { return };
    let repository = Repository::new();
    let root = repository.dir.at("");
    git.template(|template| repository.here(template).replies(ReplyFraming::git_batch()))
        .alone(&["git", "-C", &root, "cat-file", "--batch"])
        .requests(&repository.ids)
        .requests(NOTHING)
        .run();
}

#[test]
fn git_cat_file_batch_check() {
    let Some(git) = tool(&["git", "cat-file", "--batch-check"]) else { return };
    let repository = Repository::new();
    let root = repository.dir.at("");
    git.template(|template| repository.here(template))
        .alone(&["git", "-C", &root, "cat-file", "--batch-check"])
        .requests(&repository.ids)
        .requests(NOTHING)
        .requests([b"\xff"])
        .run();
}

/// Contents and headers from one worker: `info` has no content behind its size.
#[test]
fn git_cat_file_batch_command() {
    let Some(git) = tool(&["git", "cat-file", "--batch-command"]) else { return };
    let repository = Repository::new();
    let root = repository.dir.at("");
    let contents = repository.ids.iter().map(|id| format!("contents {id}"));
    git.template(|template| repository.here(template).replies(ReplyFraming::git_batch()))
        .alone(&["git", "-C", &root, "cat-file", "--batch-command"])
        .requests(contents)
        .requests(["contents no-such", "info no-such"])
        .fails("no such command", &[ErrorKind::Died])
        .run();
}

/// Four fields for each path, each ended by a NUL; empty ones for a path that no pattern matches.
#[test]
fn git_check_ignore() {
    let argv = ["git", "check-ignore", "--stdin", "-z", "-v", "-n", "--no-index"];
    let Some(git) = tool(&argv) else { return };
    let repository = Repository::new();
    let root = repository.dir.path("");
    file(&root, ".gitignore", "*.o\n!keep.o\nbuild/\n\\#*\n");
    let mut alone = vec!["git", "-C", root.to_str().expect("text")];
    alone.extend(&argv[1..]);
    git.delimited(0)
        .template(|template| repository.here(template).replies(ReplyFraming::fields(0, 4)))
        .alone(&alone)
        .requests(&repository.paths)
        .requests((0..20).map(|n| format!("dir/{n}.{}", if n % 2 == 0 { "o" } else { "c" })))
        .requests(["keep.o", "build/x", "#hash", "two\nlines.o", "na\u{ef}ve.o"])
        .requests([b"not UTF-8 \xff.o"])
        .run();
}

/// The end line `bestmove` belongs to the reply, and no mark could stand behind it: the engine searches in a
/// thread of its own, and reads on meanwhile.
#[test]
fn stockfish() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::Stdio;

    if !here(&["stockfish"]) {
        return;
    }
    let program = crate::common::tools::which("stockfish").expect("stockfish");
    let last =
        |reply: &BStr| BString::from(ByteSlice::lines(&**reply).next_back().unwrap_or_default());
    // A process for one request; at the end of its input it would stop searching.
    let alone = |request: &BStr| {
        let mut command = Command::new(&program);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("stockfish");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(request).expect("a request");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let best =
            lines.map(|line| line.expect("a line")).find(|line| line.starts_with("bestmove"));
        stdin.write_all(b"quit\n").expect("a command");
        child.wait().expect("an end");
        BString::from(best.expect("a move"))
    };
    let openings =
        ["e2e4", "d2d4", "c2c4", "g1f3", "e2e4 e7e5", "e2e4 c7c5", "d2d4 d7d5", "f2f3 e7e5"];
    let mut requests: Vec<BString> = openings
        .iter()
        // What it has found for others is forgotten.
        .map(|moves| format!("ucinewgame\nposition startpos moves {moves}\ngo depth 6\n").into())
        .collect();
    // Mate: there is no move, and nothing but the end line.
    requests.push("ucinewgame\nposition fen 7k/5QQ1/8/8/8/8/8/K7 b - - 0 1\ngo depth 6\n".into());
    let known: Vec<BString> = requests.iter().map(|request| alone(request.as_bstr())).collect();
    let template = Template::new(&program)
        .skip_lines(1)
        .requests(RequestFraming::raw())
        .replies(ReplyFraming::end_line(["bestmove"]));
    crate::common::within(move || {
        let asked: Vec<BString> = requests.iter().cycle().take(200).cloned().collect();
        let replies = asked.into_iter().feed_subprocesses_ordered(template, 4, 100);
        for (k, reply) in replies.enumerate() {
            let reply = reply.expect("a reply");
            assert_eq!(last(reply.as_bstr()), known[k % known.len()], "{k}: {reply}");
            assert!(reply.starts_with(b"info ") || reply.starts_with(b"bestmove"), "{k}: {reply}");
        }
    });
}

#[test]
fn git_hash_object() {
    let Some(git) = tool(&["git", "hash-object", "--stdin-paths"]) else { return };
    let repository = Repository::new();
    git.template(|template| repository.here(template))
        .requests(&repository.paths)
        .fails("/no/such/file", &[ErrorKind::Died])
        .run();
    assert!(repository.dir.path("file 0").exists());
}

#[test]
fn espeak() {
    let Some(espeak) = tool(&["espeak-ng", "-q", "-x"]) else { return };
    // A line that holds no word is passed over: nothing could be counted then. Half a millisecond each.
    let sentences = (0..20).map(|n| format!("sentence number {n}"));
    espeak.requests(sentences).requests(["na\u{ef}ve", "hello", "don't"]).count(1_000).run();
}
