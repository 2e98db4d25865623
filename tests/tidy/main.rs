//! What is said about the crate in several places is the same everywhere (after jiff's and xshell's).

mod circles;
mod dependencies;
mod glossary;
mod interface;
mod pages;
mod source;

use std::fs;
use std::path::Path;

use source::{Source, read, root};

/// Looks at every source file under a folder.
fn visit(dir: &Path, check: &mut dyn FnMut(&Path, &str)) {
    for entry in fs::read_dir(dir).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            visit(&path, check);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            check(&path, &fs::read_to_string(&path).expect("a source file"));
        }
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[test]
fn the_changelog_names_the_current_version_first() {
    let changelog = read("CHANGELOG.md");
    let mut headings = changelog.lines().filter_map(|line| line.strip_prefix("## "));
    assert_eq!(headings.next(), Some("[Unreleased]"), "in CHANGELOG.md");
    let released = headings.next().and_then(|heading| heading.split_whitespace().next());
    assert_eq!(released, Some(&*format!("[{VERSION}]")), "in CHANGELOG.md");
}

#[test]
fn wherever_a_dependency_on_us_is_shown_it_is_on_this_version() {
    let mut parts = VERSION.split('.');
    let (major, minor) = (parts.next().unwrap(), parts.next().unwrap());
    for path in ["README.md", "src/lib.rs"] {
        for line in read(path).lines().filter(|line| line.contains("subfeed = ")) {
            assert!(line.contains(&format!("\"{major}.{minor}")), "{path}: {line}");
        }
    }
}

#[test]
fn the_lock_file_is_of_this_version() {
    let lock = read("Cargo.lock");
    let (_, ours) = lock.split_once("name = \"subfeed\"\nversion = \"").expect("ourselves");
    assert!(ours.starts_with(&format!("{VERSION}\"")), "run cargo build");
}

#[test]
fn the_readme_states_the_oldest_compiler_if_any() {
    let oldest = env!("CARGO_PKG_RUST_VERSION");
    assert!(!oldest.is_empty(), "Cargo.toml states a rust-version");
    for line in read("README.md").lines().filter(|line| line.contains("Rust 1.")) {
        assert!(line.contains(&format!("Rust {oldest}")), "README.md: {line}");
    }
}

#[test]
fn every_feature_is_named_where_features_are_listed() {
    let manifest = read("Cargo.toml");
    let features = manifest.split("\n[features]\n").nth(1).expect("features");
    let features = features.lines().take_while(|line| !line.starts_with('['));
    for feature in features.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name) {
        if feature != "default" {
            for (path, list) in [("src/lib.rs", "//! # Features\n"), ("README.md", "## Links\n")] {
                let text = read(path);
                let list = text.split_once(list).expect("a list").1;
                assert!(list.contains(&format!("`{feature}`")), "{path}: {feature}");
            }
        }
    }
}

#[test]
fn nothing_of_ours_is_put_on_anybodys_path() {
    assert!(!read("Cargo.toml").contains("[[bin]]"), "cargo install would install it");
    assert!(!root().join("src/main.rs").exists() && !root().join("src/bin").exists());
}

#[test]
fn the_public_interface_names_no_crate_that_is_an_implementation_detail() {
    let hidden = ["nix::", "libc::", "itertools::", "crossbeam_"];
    // Good enough a look: signatures of public items, in the files that have any.
    let public = ["pub fn ", "pub use ", "pub type ", "pub const ", "pub struct "];
    for Source { path, text } in Source::below("src") {
        for line in text.lines().map(str::trim_start) {
            if public.iter().any(|start| line.starts_with(start)) {
                let named = hidden.iter().find(|name| line.contains(**name));
                assert!(named.is_none(), "{}: {line}", path.display());
            }
        }
    }
}

/// Links, and files of ours that a page names in code.
#[test]
fn every_file_that_a_page_leads_to_exists() {
    let mut looked_at = 0;
    let pages =
        fs::read_dir(root().join("docs")).expect("docs").map(|entry| entry.expect("a page").path());
    let others = [
        "README.md",
        "CONTRIBUTING.md",
        "src/window/README.md",
        "src/subprocess/README.md",
        "tests/README.md",
    ];
    for page in pages.chain(others.map(|page| root().join(page))) {
        let text = fs::read_to_string(&page).expect("a page");
        let links =
            text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        for link in links.filter(|link| !link.starts_with("http") && !link.starts_with('#')) {
            let file =
                page.parent().expect("a folder").join(link.split('#').next().expect("a path"));
            assert!(file.exists(), "{}: {link} leads nowhere", page.display());
            looked_at += 1;
        }
        for word in text.split('`').skip(1).step_by(2) {
            let is_ours = ["src/", "tests/", "docs/", "benches/", "examples/"]
                .iter()
                .any(|at| word.starts_with(at));
            if is_ours && word.chars().all(|c| c.is_ascii_alphanumeric() || "/_-.".contains(c)) {
                assert!(root().join(word).exists(), "{}: there is no {word}", page.display());
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 20, "only {looked_at} are found");
}

#[test]
fn every_test_that_a_page_names_exists() {
    for (page, least) in [("docs/reliability.md", 40), ("docs/originals.md", 50)] {
        let text = fs::read_to_string(root().join(page)).expect("the page");
        let named: Vec<_> = text
            .split('`')
            .filter_map(|word| word.strip_prefix("tests/")?.split_once("::"))
            .collect();
        assert!(named.len() > least, "{page} names only {} tests", named.len());
        for (file, name) in named {
            let text = fs::read_to_string(root().join("tests").join(file)).expect(file);
            let is_test = text.split_once(&format!("fn {name}(")).is_some_and(|(before, _)| {
                let item = before.rsplit_once("\n\n").map_or(before, |(_, item)| item);
                // The others are listed for the macro that makes tests of them.
                item.contains("#[test]")
                    || text.contains(&format!("doors!({name}:"))
                    || text.contains(&format!("\n    {name},\n"))
            });
            let is_module = text.contains(&format!("mod {name} {{"));
            assert!(is_test || is_module, "{page}: {file} has no test {name}");
        }
    }
}

#[test]
fn every_tool_that_a_test_asks_for_has_its_package_on_the_list() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = read("tests/tools/packages.txt");
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let known: Vec<&str> = lines.flat_map(|line| line.split_whitespace().skip(1)).collect();
    let mut asked = 0;
    for folder in ["tests", "src"] {
        visit(&root.join(folder), &mut |path, text| {
            for call in ["here", "tool"].map(|name| format!("{name}(&[")) {
                for (at, _) in text.match_indices(&call) {
                    let (names, _) = text[at + call.len()..].split_once(']').expect("an end");
                    let mut names: Vec<&str> = names.split('"').skip(1).step_by(2).collect();
                    // What stands behind the first word of a command line is no command.
                    names.truncate(if call.starts_with("tool") { 1 } else { names.len() });
                    asked += names.len();
                    for name in names {
                        assert!(known.contains(&name), "{}: {name}", path.display());
                    }
                }
            }
        });
    }
    assert!(asked > 50, "only {asked} are found");
}

/// The kinds of the field trials, by their names.
fn kinds() -> Vec<String> {
    let letters = [("A", 1..=9), ("B", 0..=9), ("C", 1..=11), ("D", 0..=10)];
    let kinds = letters.into_iter().flat_map(|(letter, n)| n.map(move |n| format!("{letter}{n}")));
    kinds.chain(["E1", "E2", "E3", "E4", "E8"].map(str::to_owned)).collect()
}

#[test]
fn every_kind_of_the_field_trials_is_on_the_page() {
    let page = read("docs/reliability.md");
    for kind in kinds() {
        let row = page.lines().find(|line| line.starts_with(&format!("| {kind} |")));
        let row = row.unwrap_or_else(|| panic!("docs/reliability.md has no row for {kind}"));
        assert!(row.contains("`tests/"), "no test: {row}");
    }
}

#[test]
fn a_test_that_is_ignored_names_its_kind() {
    let kinds = kinds();
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/field"), &mut |path, text| {
        for (at, _) in text.match_indices("#[ignore") {
            let rest = &text[at..];
            assert!(
                rest.starts_with("#[ignore = \""),
                "{}: ignored without a reason",
                path.display()
            );
            let kind = rest.split('"').nth(1).expect("a reason").to_owned();
            assert!(kinds.contains(&kind), "{}: {kind}", path.display());
            let (_, name) = rest.split_once("fn ").expect("a test");
            let own = format!("{}_", kind.to_lowercase());
            assert!(
                name.starts_with(&own),
                "{}: ignored for {kind}: {}",
                path.display(),
                &name[..40]
            );
        }
    });
}
