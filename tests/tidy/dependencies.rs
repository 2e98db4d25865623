//! What a user of this crate has to build.

use std::collections::BTreeSet;
use std::process::Command;

use crate::source::root;

/// The crates that ours needs, itself not counted.
fn crates(options: &[&str]) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--package", "subfeed", "--edges", "normal", "--prefix", "none"])
        .args(["--format", "{p}", "--locked", "--offline"])
        .args(options)
        .current_dir(root())
        .output()
        .expect("cargo");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).expect("text");
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "subfeed").map(str::to_owned).collect()
}

#[test]
fn few_crates_are_needed() {
    for (what, options, most) in [
        ("by default", &[][..], 14),
        ("without threads", &["--no-default-features"][..], 10),
        ("with async", &["--features", "async"][..], 15),
    ] {
        let crates = crates(options);
        println!("{what}: {} crates: {crates:?}", crates.len());
        assert!(crates.len() <= most, "{what}: {} crates: {crates:?}", crates.len());
    }
}
