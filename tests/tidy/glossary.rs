//! One word for one thing: the words that this crate does not use have another in their place.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, line, words};

/// What is not said, and what is said instead.
const NOT: [(&str, &str); 17] = [
    ("hand", "worker"),
    ("hands", "workers"),
    ("crew", "workers"),
    ("life", "session"),
    ("lives", "sessions"),
    ("place", "host"),
    ("places", "hosts"),
    ("driver", "event loop"),
    ("core", "scheduler"),
    ("due", "deadline"),
    ("parting", "closing"),
    ("ending", "exited"),
    ("over", "reaped"),
    ("ladder", "kill sequence"),
    ("ladders", "kill sequences"),
    ("blame", "attempt"),
    ("blamed", "attempt"),
];

/// Names of `std` and of other crates.
const THEIRS: [&str; 2] = ["drop_in_place", "futures_core"];

/// `kill_ladder`, `KillLadder` and `KILL_LADDER` have the same segments.
fn segments(word: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut segment = String::new();
    let mut before = '_';
    for c in word.chars() {
        if c == '_' || (c.is_uppercase() && before.is_lowercase()) {
            all.push(std::mem::take(&mut segment));
        }
        if c != '_' {
            segment.extend(c.to_lowercase());
        }
        before = c;
    }
    all.push(segment);
    all.retain(|segment| !segment.is_empty());
    all
}

/// The names that users see: those behind `pub`, and the variants and methods of what is public.
fn public(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let kinds = ["fn", "struct", "enum", "trait", "type", "const", "static", "mod", "use"];
    for (at, _) in code.match_indices("pub ") {
        let item = &code[at + 4..];
        let mut item = words(item).map(|(_, word)| word);
        let names_after: Vec<&str> = match item.next() {
            Some("const" | "unsafe" | "async") => item.take(2).collect(),
            Some(kind) if kinds.contains(&kind) => item.take(1).collect(),
            Some(field) => vec![field],
            None => Vec::new(),
        };
        names.extend(names_after.into_iter().map(str::to_owned));
        if code[at..].starts_with("pub enum ") || code[at..].starts_with("pub trait ") {
            let open = at + code[at..].find('{').unwrap_or(0);
            let body = &code[open..open + crate::source::block(&code[open..])];
            names.extend(words(body).map(|(_, word)| word.to_owned()));
        }
    }
    names
}

/// The names of tests, which are sentences.
fn sentences(code: &str) -> BTreeSet<String> {
    let after = code.match_indices("#[test]").map(|(at, attribute)| &code[at + attribute.len()..]);
    after
        .filter_map(|item| item.split_once("fn ")?.1.split('(').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn no_word_is_used_that_has_another_in_its_place() {
    let sources: Vec<_> = Source::below("src").into_iter().map(|it| (it.code(), it.path)).collect();
    let public =
        sources.iter().flat_map(|(code, _)| public(code).into_iter().chain(sentences(code)));
    let exempt: BTreeSet<String> = public.chain(THEIRS.map(str::to_owned)).collect();
    let mut found: BTreeMap<(String, &str), Vec<String>> = BTreeMap::new();
    for (code, path) in &sources {
        for (at, word) in words(code) {
            // `core::` is std's.
            if exempt.contains(word) || code[at + word.len()..].starts_with("::") && word == "core"
            {
                continue;
            }
            for segment in segments(word) {
                if let Some((_, instead)) = NOT.iter().find(|(not, _)| *not == segment) {
                    let place = format!("{}:{}", path.display(), line(code, at));
                    found.entry((word.to_owned(), instead)).or_default().push(place);
                }
            }
        }
    }
    let uses: usize = found.values().map(Vec::len).sum();
    for ((word, instead), uses) in &found {
        println!("{word} ({instead}): {}", uses.join(" "));
    }
    assert!(found.is_empty(), "{} names in {uses} places, see above", found.len());
}

#[test]
fn a_name_has_the_same_segments_in_every_case() {
    for name in ["kill_ladder", "KillLadder", "KILL_LADDER", "_kill_ladder"] {
        assert_eq!(segments(name), ["kill", "ladder"]);
    }
    assert_eq!(segments("handover"), ["handover"]);
}

#[test]
fn what_is_public_is_known() {
    let names = public(
        "pub fn a(b: C) {} pub(crate) fn d() {} pub enum E { F(G) } pub const fn h() {} pub i: j,",
    );
    for name in ["a", "E", "F", "h", "i"] {
        assert!(names.contains(name), "{name}");
    }
    for name in ["b", "d", "j"] {
        assert!(!names.contains(name), "{name}");
    }
}

/// The table in the page on the architecture and the one above are one table.
#[test]
fn the_page_on_the_architecture_has_every_word_that_is_not_used() {
    let page = std::fs::read_to_string("docs/architecture.md").expect("the page");
    let table: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.rsplit_once('|'))
        .flat_map(|(_, not)| not.split(','))
        .map(str::trim)
        .collect();
    for (word, _) in NOT {
        let singular = match word {
            "lives" => "life",
            "blamed" => "blame",
            word => word
                .strip_suffix('s')
                .filter(|one| NOT.iter().any(|(n, _)| n == one))
                .unwrap_or(word),
        };
        assert!(table.contains(singular), "{word} is not in the table of docs/architecture.md");
    }
}
