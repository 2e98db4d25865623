//! Arrows point down: the modules of `src/subprocess` have an order in which each uses only those below it.
//!
//! An arrow is a path (`use crate::subprocess::scheduler::...`, `super::...`, in a `use` or not), or a call of a
//! method that another module has added to a type of somebody else's (`impl Scheduler` in `dispatch.rs`), which
//! needs no path. Files of one folder are one module; what only tests have is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::source::{Source, block, line, without_tests, words};

const FOLDER: &str = "src/subprocess";

/// Folders that only tests have, or that are the tests.
const NOT_SHIPPED: [&str; 2] = ["sim", "tests"];

/// Where a module uses another one, by the two names.
type Arrows = BTreeMap<(String, String), Vec<String>>;

/// A file of the folder, as a path of modules below it: `event_loop::connection` is `["event_loop", "connection"]`,
/// and the folder's own `mod.rs` is `[]`.
fn modules(path: &Path) -> Vec<String> {
    let below = path.strip_prefix(FOLDER).expect("below the folder").with_extension("");
    let mut parts: Vec<_> =
        below.iter().map(|part| part.to_str().expect("a name").to_owned()).collect();
    parts.retain(|part| part != "mod");
    parts
}

/// The module that an arrow counts for.
fn name(path: &[String]) -> String {
    path.first().cloned().unwrap_or_else(|| "mod.rs".to_owned())
}

/// The paths in some code, groups written out: `a::{b, c::D}` gives `a::b` and `a::c::D`. Each with its byte.
fn paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut all = Vec::new();
    let mut covered = 0;
    for (at, word) in words(code) {
        if at < covered || !matches!(word, "crate" | "super" | "self") {
            continue;
        }
        if code[at + word.len()..].starts_with("::") {
            let (end, found) = tree(code, at);
            covered = end;
            all.extend(found.into_iter().map(|path| (at, path)));
        }
    }
    all
}

/// One tree of paths, and where it ends.
fn tree(code: &str, at: usize) -> (usize, Vec<Vec<String>>) {
    let mut path = Vec::new();
    let mut at = at;
    loop {
        let rest = &code[at..];
        if rest.starts_with('{') {
            let end = at + block(rest);
            let mut all = Vec::new();
            let mut inner = at + 1;
            while inner < end {
                let c = code[inner..].chars().next().expect("inside the braces");
                if c.is_alphanumeric() || c == '_' || c == '{' {
                    let (after, found) = tree(&code[..end - 1], inner);
                    all.extend(found.into_iter().map(|tail| [path.clone(), tail].concat()));
                    inner = after.max(inner + 1);
                    // `as other` names nothing new.
                    inner += code[inner..end].find([',', '}']).unwrap_or(end - inner);
                } else {
                    inner += c.len_utf8();
                }
            }
            return (end, all);
        }
        let Some((0, word)) = words(rest).next() else { return (at, vec![path]) };
        path.push(word.to_owned());
        at += word.len();
        match code[at..].strip_prefix("::") {
            Some(_) => at += 2,
            None => return (at, vec![path]),
        }
    }
}

/// A path as one from the folder down, if it leads there.
fn resolve(file: &[String], path: &[String]) -> Option<Vec<String>> {
    let mut from: Vec<String> = [&["subprocess".to_owned()], file].concat();
    let mut words = path.iter().peekable();
    match words.next()?.as_str() {
        "crate" => from.clear(),
        "super" => {
            from.pop();
            while words.next_if(|word| *word == "super").is_some() {
                from.pop()?;
            }
        }
        _ => {}
    }
    from.extend(words.cloned());
    (from.first()? == "subprocess").then(|| from.split_off(1))
}

/// The modules that are written out in a file, each with where its body begins and ends.
fn inline(code: &str) -> Vec<(usize, usize, String)> {
    let mut found = Vec::new();
    for (at, word) in words(code) {
        if word == "mod" {
            let rest = &code[at + 3..];
            let Some((from, name)) = words(rest).next() else { continue };
            let open = at + 3 + from + name.len();
            if code[open..].trim_start().starts_with('{') {
                let open = open + code[open..].find('{').unwrap_or(0);
                found.push((open, open + block(&code[open..]), name.to_owned()));
            }
        }
    }
    found
}

/// The functions that a file adds to types that are not its own.
fn added(code: &str, own: &BTreeSet<&str>) -> Vec<String> {
    let mut all = Vec::new();
    for (at, word) in words(code) {
        // At the start of a line: not in a block, not `impl Trait` as a type.
        if word != "impl" || !(at == 0 || code[..at].ends_with('\n')) {
            continue;
        }
        let Some(open) = code[at..].find('{').map(|open| at + open) else { continue };
        let head = &code[at..open];
        if head.contains(" for ") {
            continue;
        }
        let Some((_, kind)) = words(head).find(|(_, word)| word.starts_with(char::is_uppercase))
        else {
            continue;
        };
        if !own.contains(kind) {
            let body = &code[open..open + block(&code[open..])];
            all.extend(functions(body));
        }
    }
    all
}

fn functions(code: &str) -> impl Iterator<Item = String> {
    let mut all = words(code);
    std::iter::from_fn(move || {
        all.find(|(_, word)| *word == "fn")?;
        all.next().map(|(_, name)| name.to_owned())
    })
}

fn types(code: &str) -> BTreeSet<&str> {
    let mut all = words(code);
    let mut types = BTreeSet::new();
    while let Some((_, word)) = all.next() {
        if matches!(word, "struct" | "enum" | "trait" | "type") {
            types.extend(all.next().map(|(_, name)| name));
        }
    }
    types
}

fn arrows() -> Arrows {
    let sources: Vec<_> = Source::below(FOLDER)
        .into_iter()
        .map(|source| (modules(&source.path), without_tests(&source.code()), source.path))
        .filter(|(file, ..)| !file.iter().any(|part| NOT_SHIPPED.contains(&part.as_str())))
        .collect();
    let known: BTreeSet<String> = sources.iter().map(|(file, ..)| name(file)).collect();
    let mut types_of: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (file, code, _) in &sources {
        types_of.entry(name(file)).or_default().extend(types(code));
    }
    let mut arrows = Arrows::new();
    // Names that only one module defines: what calls one calls that module.
    let mut adders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, code, _) in &sources {
        for function in added(code, &types_of[&name(file)]) {
            adders.entry(function).or_default().insert(name(file));
        }
    }
    for (file, code, _) in &sources {
        for function in functions(code) {
            if let Some(adders) = adders.get_mut(&function) {
                adders.insert(name(file));
            }
        }
    }
    adders.retain(|_, modules| modules.len() == 1);
    for (file, code, path) in &sources {
        let ours = name(file);
        let mut arrow = |to: String, at: usize| {
            if to != ours {
                let place = format!("{}:{}", path.display(), line(code, at));
                arrows.entry((ours.clone(), to)).or_default().push(place);
            }
        };
        let inline = inline(code);
        for (at, used) in paths(code) {
            let around = inline.iter().filter(|(open, end, _)| (*open..*end).contains(&at));
            let here: Vec<_> = file.iter().chain(around.map(|(.., name)| name)).cloned().collect();
            let Some(used) = resolve(&here, &used) else { continue };
            let to = used.first().filter(|first| known.contains(*first));
            arrow(to.cloned().unwrap_or_else(|| "mod.rs".to_owned()), at);
        }
        for (at, word) in words(code) {
            let is_call = (code[..at].ends_with('.') || code[..at].ends_with("Self::"))
                && code[at + word.len()..].starts_with('(');
            if let Some(to) = adders.get(word).filter(|_| is_call).and_then(BTreeSet::first) {
                arrow(to.clone(), at);
            }
        }
    }
    arrows
}

/// The largest sets of modules in which each reaches each other one.
fn circles(arrows: &Arrows) -> Vec<BTreeSet<String>> {
    let reached = |from: &String| {
        let mut all = BTreeSet::new();
        let mut next = vec![from];
        while let Some(module) = next.pop() {
            for (_, to) in arrows.keys().filter(|(from, _)| from == module) {
                if all.insert(to.clone()) {
                    next.push(to);
                }
            }
        }
        all
    };
    let reach: BTreeMap<&String, BTreeSet<String>> =
        arrows.keys().map(|(from, _)| (from, reached(from))).collect();
    let mut all: Vec<BTreeSet<String>> = reach
        .iter()
        .filter(|(from, there)| there.contains(**from))
        .map(|(from, there)| {
            let back = |to: &&String| reach.get(to).is_some_and(|back| back.contains(*from));
            there.iter().filter(back).cloned().collect()
        })
        .collect();
    all.sort();
    all.dedup();
    all
}

#[test]
fn the_modules_of_the_process_executor_use_one_another_in_no_circle() {
    let arrows = arrows();
    let circles = circles(&arrows);
    for circle in &circles {
        println!("a circle of {}: {circle:?}", circle.len());
        for ((from, to), uses) in &arrows {
            if circle.contains(from) && circle.contains(to) {
                println!("  {from} -> {to}: {}", uses.join(" "));
            }
        }
    }
    assert!(circles.is_empty(), "{} circles, see above", circles.len());
    for (from, to) in arrows.keys() {
        println!("{from} -> {to}");
    }
}

#[test]
fn paths_are_read_with_their_groups() {
    let code = "use crate::subprocess::{a::B, c::{self, D as E}, f};\nfn g(x: super::h::I) { self::j(); self.k() }";
    let all: Vec<String> = paths(code).into_iter().map(|(_, path)| path.join("::")).collect();
    let expected =
        ["a::B", "c::self", "c::D", "f"].map(|path| format!("crate::subprocess::{path}"));
    assert_eq!(all[..4], expected);
    assert_eq!(all[4..], ["super::h::I", "self::j"]);
    let file = ["a".to_owned(), "b".to_owned()];
    let at = |path: &str| {
        let path: Vec<String> = path.split("::").map(str::to_owned).collect();
        resolve(&file, &path).map(|path| path.join("::"))
    };
    assert_eq!(at("super::h::I").as_deref(), Some("a::h::I"));
    assert_eq!(at("super::super::h").as_deref(), Some("h"));
    assert_eq!(at("crate::subprocess::h").as_deref(), Some("h"));
    assert_eq!(at("self::j").as_deref(), Some("a::b::j"));
    assert_eq!(at("crate::window::h"), None);
    let code = "mod a { mod b { x } } mod c; y";
    let names: Vec<_> = inline(code).into_iter().map(|(.., name)| name).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn a_circle_is_found_and_a_row_is_none() {
    let arrows = |pairs: &[(&str, &str)]| -> Arrows {
        pairs.iter().map(|(a, b)| (((*a).to_owned(), (*b).to_owned()), Vec::new())).collect()
    };
    assert!(circles(&arrows(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    let found = circles(&arrows(&[("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]));
    assert_eq!(found, [BTreeSet::from(["b".to_owned(), "c".to_owned()])]);
}
