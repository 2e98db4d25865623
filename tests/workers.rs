//! The workers of `docs/workers.md`, each taken out of the page and run, where its language is there.

#[path = "common/mod.rs"]
mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use subfeed::{FeedExt, Template};

use common::{Dir, texts, tools::which, within_limit};

const PAGE: &str = include_str!("../docs/workers.md");

/// The program below a heading of the page.
#[track_caller]
fn program(language: &str, fence: &str) -> &'static str {
    let heading = format!("\n## {language}\n");
    let section = PAGE.split_once(&heading).expect("a section").1;
    let section = section.split("\n## ").next().expect("a section");
    let open = format!("```{fence}\n");
    section.split_once(&open).expect("a program").1.split_once("```").expect("its end").0
}

/// A worker answers each line, in order, however the lines lie in the pipe.
fn answers(template: Template) {
    within_limit(std::time::Duration::from_secs(240), move || {
        let odd =
            ["", " ", "  two  blanks ", r"a \ back\slash", "caf\u{e9}", "%d %s $HOME `x`", "-n"];
        let plain = (0..2_000).map(|n| format!("line {n}"));
        let lines: Vec<String> =
            odd.into_iter().map(str::to_owned).chain(["x".repeat(100_000)]).chain(plain).collect();
        let expected: Vec<_> = lines.iter().map(|line| format!("{}:{line}", line.len())).collect();
        let mut feed = lines.into_iter().feed_subprocesses_ordered(template, 4, 1_000);
        assert_eq!(texts(feed.by_ref()), expected);
        let done = feed.finish().expect("every worker ends with status 0");
        // It flushes: nobody had to be closed to get at what it held.
        assert_eq!(done.recycles, 0);
    });
}

fn interpreted(language: &str, fence: &str, command: &[&str], file: &str) {
    if which(command[0]).is_none() {
        eprintln!("{language}: skipped, no {}", command[0]);
        return;
    }
    let dir = Dir::new();
    let path = dir.path(file);
    fs::write(&path, program(language, fence)).expect("a file");
    answers(Template::new(command[0]).args(&command[1..]).arg(&path));
}

fn compiled(
    language: &str,
    fence: &str,
    file: &str,
    compile: impl FnOnce(&Path, &Path) -> Command,
) {
    let dir = Dir::new();
    let (source, binary) = (dir.path(file), dir.path("worker"));
    fs::write(&source, program(language, fence)).expect("a file");
    let done = compile(&source, &binary).output().expect("a compiler that starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    answers(Template::new(&binary));
}

#[test]
fn python() {
    interpreted("Python", "python", &["python3"], "worker.py");
}

#[test]
fn node() {
    interpreted("Node", "javascript", &["node"], "worker.js");
}

#[test]
fn ruby() {
    interpreted("Ruby", "ruby", &["ruby"], "worker.rb");
}

#[test]
fn go() {
    if which("go").is_none() {
        eprintln!("Go: skipped, no go");
        return;
    }
    compiled("Go", "go", "worker.go", |source, binary| {
        let mut go = Command::new("go");
        go.arg("build").arg("-o").arg(binary).arg(source);
        go.env("GOCACHE", binary.with_extension("cache")).env("GOFLAGS", "-mod=mod");
        go
    });
}

#[test]
fn rust() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    compiled("Rust", "rust,no_run", "worker.rs", |source, binary| {
        let mut command = Command::new(rustc);
        command.args(["--edition", "2024", "-o"]).arg(binary).arg(source);
        command
    });
}

#[test]
fn r() {
    interpreted("R", "r", &["Rscript"], "worker.R");
}

#[test]
fn shell() {
    interpreted("Shell", "sh", &["sh"], "worker.sh");
}

/// A program on the page that nothing runs would rot.
#[test]
fn every_program_of_the_page_has_its_test() {
    let sections: Vec<_> = PAGE.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(sections, ["Python", "Node", "Ruby", "Go", "Rust", "R", "Shell"]);
}
