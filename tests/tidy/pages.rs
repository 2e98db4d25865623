//! What a stranger reads: short, complete, and with an example for everything.

use crate::source::read;

/// The public methods of `Template`, each with its documentation.
fn methods() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for file in ["mod", "channel", "codec", "words", "policy", "json"] {
        let text = read(&format!("src/template/{file}.rs"));
        let mut of_template = false;
        let mut doc = String::new();
        for line in text.lines() {
            if line.starts_with("impl") {
                let head = line.trim_end_matches(" {");
                of_template = head == "impl Template" || head.ends_with("> Template<E, D>");
            } else if line.trim_start().starts_with("///") {
                doc.push_str(line);
                doc.push('\n');
            } else if let Some(method) = line.strip_prefix("    pub fn ").filter(|_| of_template) {
                let name = method.split(['(', '<']).next().expect("a name");
                all.push((name.to_owned(), std::mem::take(&mut doc)));
            } else if !line.trim_start().starts_with("#[") {
                doc.clear();
            }
        }
    }
    assert!(all.len() > 50, "{} methods", all.len());
    all
}

#[test]
fn every_method_of_a_template_has_an_example_of_its_own() {
    let without: Vec<_> =
        methods().into_iter().filter(|(_, doc)| doc.matches("/// ```").count() < 2).collect();
    let names: Vec<_> = without.iter().map(|(name, _)| name).collect();
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn every_method_of_a_template_is_in_the_table_on_top_of_it() {
    let page = read("src/template/mod.rs");
    let table: String = page.lines().filter(|line| line.starts_with("/// | ")).collect();
    for (name, _) in methods() {
        // Those of a feature that may be off are no links.
        let found = table.contains(&format!("[`{name}`](Template::{name})"))
            || (name.contains("json") && table.contains(&format!("`{name}`")));
        assert!(found, "{name} is not in the table");
    }
}

#[test]
fn the_readme_takes_a_minute() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 120, "{lines} lines");
}

#[test]
fn every_page_is_reached_from_the_readme() {
    let readme = read("README.md");
    for page in ["tour", "workers", "migrating", "architecture", "reliability", "performance"] {
        assert!(readme.contains(&format!("(docs/{page}.md)")), "{page}");
    }
}

#[test]
fn an_executor_is_as_short_as_the_pages_say() {
    let lines = read("src/window/toy.rs").lines().count();
    assert!(lines < 60, "src/window/toy.rs has {lines} lines");
    for page in ["docs/architecture.md", "src/window/README.md"] {
        assert!(read(page).contains(&format!("of {lines} lines")), "{page}: {lines} lines");
    }
}
