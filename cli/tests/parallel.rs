//! `docs/parallel.md`: both commands of each task print the same.

mod kit;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use kit::Dir;

/// The files that the tasks are about.
fn prepare() -> Dir {
    let dir = Dir::new();
    let write = |name: &str, line: &dyn Fn(usize) -> String, count: usize| {
        let lines: String = (0..count).map(line).collect();
        fs::write(dir.path(name), lines).expect("a file");
    };
    write("events.jsonl", &|k| format!("{{\"id\": {k}, \"name\": \"event {k}\"}}\n"), 500);
    write("words", &|k| format!("word{k}\n"), 60);
    write(
        "people.csv",
        &|k| if k == 0 { "id,name\n".to_owned() } else { format!("{k},person {k}\n") },
        300,
    );
    write("sums", &|k| format!("{k} * {k} + 1\n"), 500);
    write("names0", &|k| format!("name {k}\0"), 300);
    write("paths", &|k| format!("/tmp/dir/file{k}.txt\n"), 20);
    write("few", &|k| format!("w{k}\n"), 5);
    fs::write(dir.path("some-slow"), "a\nslow\nb\n").expect("a file");
    // The program under test is the `subfeed` that the page speaks of.
    let program = Path::new(env!("CARGO_BIN_EXE_subfeed"));
    std::os::unix::fs::symlink(program, dir.path("subfeed")).expect("a link");
    dir
}

/// The tasks of the page: a title, and the two commands.
fn tasks(page: &str) -> Vec<(String, String, String)> {
    let mut tasks = Vec::new();
    for section in page.split("\n## ").skip(1) {
        let title = section.lines().next().unwrap_or_default().to_owned();
        let Some((_, code)) = section.split_once("```sh\n") else { continue };
        let (code, _) = code.split_once("```").expect("the code ends");
        let mut lines = code.lines().map(str::to_owned);
        let (Some(theirs), Some(ours), None) = (lines.next(), lines.next(), lines.next()) else {
            panic!("{title}: two commands");
        };
        assert!(theirs.starts_with("parallel ") && ours.starts_with("subfeed "), "{title}");
        tasks.push((title, theirs, ours));
    }
    tasks
}

/// What a shell prints for this. The directory is the first on the path, and the only one of ours.
fn printed(dir: &Path, command: &str) -> String {
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh")
        .args(["-c", command])
        .current_dir(dir)
        .env("PATH", path)
        .env("HOME", dir)
        .env("PARALLEL_HOME", dir)
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn both_commands_of_each_task_print_the_same() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/parallel.md");
    let tasks = tasks(&fs::read_to_string(page).expect("the page"));
    assert_eq!(tasks.len(), 12);
    let dir = prepare();
    for tool in ["parallel --version", "jq --version", "bc --version"] {
        let found = printed(&dir.path(""), tool);
        if found.is_empty() || (tool.starts_with("parallel") && !found.contains("GNU parallel")) {
            let all = std::env::var_os("SUBFEED_ALL_TOOLS").is_some();
            assert!(!all, "`{tool}` says {found:?}: it is on the list of tools that must be there");
            eprintln!("skipped: `{tool}` is missing");
            return;
        }
    }
    // It asks for a citation once, on a terminal and elsewhere.
    fs::write(dir.path("will-cite"), "").expect("a file");
    let mut different = String::new();
    for (title, theirs, ours) in tasks {
        let (theirs, ours) = (printed(&dir.path(""), &theirs), printed(&dir.path(""), &ours));
        if theirs != ours || theirs.is_empty() {
            let _ = writeln!(
                different,
                "{title}\n--- parallel\n{theirs:.600}\n--- subfeed\n{ours:.600}\n"
            );
        }
    }
    assert!(different.is_empty(), "{different}");
}
