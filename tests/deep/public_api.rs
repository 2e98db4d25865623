//! The public interface is the one that is written down, in `public-api.txt` beside this file.
//!
//! It is read out of rustdoc's JSON, whose form differs from one nightly compiler to the next: the one in
//! `.ci/nightly` is asked. After a change that is meant: `SUBFEED_BLESS=1 cargo test -p subfeed-deep --test public_api`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const NIGHTLY: &str = include_str!("../../.ci/nightly");

/// Whether the compiler is there. Where it is not: a failure, if everything has been installed on purpose.
fn is_here(nightly: &str) -> bool {
    let rustc = Command::new("rustc").arg(format!("+{nightly}")).arg("--version").output();
    let here = rustc.is_ok_and(|output| output.status.success());
    if !here {
        eprintln!("skipped: rustup toolchain install {nightly} --profile minimal");
        assert!(std::env::var_os("SUBFEED_ALL_TOOLS").is_none_or(|value| value != "1"));
    }
    here
}

#[test]
fn the_public_interface_is_the_one_that_is_written_down() {
    let nightly = NIGHTLY.trim();
    if !is_here(nightly) {
        return;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("public-api");
    // Cargo asks for the same compiler as it is itself.
    let status = Command::new("rustup")
        .args(["run", nightly, "cargo", "rustdoc", "--quiet", "--offline", "--locked"])
        .args(["--package", "subfeed", "--lib", "--all-features", "--target-dir"])
        .arg(&target)
        .args(["--", "-Zunstable-options", "--output-format", "json", "--cap-lints", "allow"])
        .current_dir(here.join("../.."))
        .env_remove("RUSTC")
        .env_remove("RUSTDOC")
        .env_remove("CARGO")
        .env_remove("RUSTUP_TOOLCHAIN")
        .status()
        .expect("rustup");
    assert!(status.success());
    let json = target.join("doc/subfeed.json");
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .expect("a public interface");
    let seen = api.to_string();
    let page = here.join("public-api.txt");
    if std::env::var_os("SUBFEED_BLESS").is_some() {
        fs::write(&page, &seen).expect("a file");
    }
    let written = fs::read_to_string(&page).expect("public-api.txt");
    let (was, is): (BTreeSet<_>, BTreeSet<_>) = (written.lines().collect(), seen.lines().collect());
    was.difference(&is).for_each(|line| println!("- {line}"));
    is.difference(&was).for_each(|line| println!("+ {line}"));
    assert_eq!(was, is, "see above; SUBFEED_BLESS=1 writes it down");
}
