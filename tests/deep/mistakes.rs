//! What the compiler says of the usual mistakes: it names the fix.
//!
//! Each is a program of a package beside this one, which is checked; so the messages are those that a user sees.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A name, a program that does not compile, and what must be said of it.
const MISTAKES: [(&str, &str, &[&str]); 6] = [
    (
        "items_that_are_no_bytes",
        r#"let _ = (0..3).feed_subprocesses(Template::new("cat"), 1, 1);"#,
        &[
            "cannot be fed with this template",
            "map the items to text, as in `.map(|item| item.to_string())`",
        ],
    ),
    (
        "the_lines_of_stdin",
        r#"let _ = std::io::stdin().lines().try_feed(Template::new("cat")).start();"#,
        &[
            "cannot be pulled by a thread of its own, because it is not `Send`",
            "`try_feed`",
            "split(b'",
        ],
    ),
    (
        "results_where_items_are_asked_for",
        r#"use std::io::BufRead;
           let lines = std::io::BufReader::new(std::io::stdin()).lines();
           let _ = lines.feed_subprocesses(Template::new("cat"), 1, 1);"#,
        &["`Result`s of an earlier feed or of a reader, use `try_feed`"],
    ),
    (
        "a_result_from_encode",
        r#"let _ = Template::new("cat").encode(|n: &u32, request| { request.push_display(n); Ok(()) });"#,
        &["expected `()`, found `Result"],
    ),
    (
        "a_plain_value_from_try_decode",
        r#"let _ = Template::new("cat").try_decode(|reply| reply.len());"#,
        &["expected `Result<", "found `usize`"],
    ),
    (
        "an_error_that_takes_no_others",
        r#"let numbers = ["1"].into_iter().map(|text| text.parse::<u8>().map(|n| n.to_string()));
           let _ = numbers.try_feed(Template::new("cat")).start();"#,
        &["`ParseIntError: From<subfeed::Error>` is not satisfied"],
    ),
];

fn package() -> PathBuf {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the root");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mistakes");
    fs::create_dir_all(dir.join("src/bin")).expect("a folder");
    let manifest = format!(
        "[package]\nname = \"mistakes\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [dependencies]\nsubfeed.path = {:?}\n\n[workspace]\n",
        root.display().to_string(),
    );
    fs::write(dir.join("Cargo.toml"), manifest).expect("a file");
    // The same versions as here, so that nothing need be fetched.
    fs::copy(root.join("Cargo.lock"), dir.join("Cargo.lock")).expect("a file");
    dir
}

/// What the compiler says, and whether it has compiled it.
fn checked(dir: &Path, name: &str, code: &str) -> (bool, String) {
    let program = format!(
        "#![allow(unused_imports)]\nuse subfeed::{{FeedExt, Template}};\nfn main() {{\n{code}\n}}\n"
    );
    fs::write(dir.join(format!("src/bin/{name}.rs")), program).expect("a file");
    let output = Command::new(env!("CARGO"))
        .args(["check", "--quiet", "--offline", "--color", "never", "--bin", name])
        .arg("--target-dir")
        .arg(dir.join("target"))
        .current_dir(dir)
        .output()
        .expect("cargo");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn the_compiler_names_the_fix_of_each_usual_mistake() {
    let dir = package();
    let (good, said) = checked(
        &dir,
        "good",
        r#"let _ = ["a"].into_iter().feed_subprocesses(Template::new("cat"), 1, 1);"#,
    );
    assert!(good, "{said}");
    for (name, code, expected) in MISTAKES {
        let (good, said) = checked(&dir, name, code);
        assert!(!good, "{name} has compiled");
        for part in expected {
            assert!(said.contains(part), "{name}: `{part}` is not in\n{said}");
        }
    }
}
