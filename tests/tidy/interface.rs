//! What the written interface, `tests/deep/public-api.txt`, must be like.

use std::collections::BTreeSet;

use crate::read;

/// At the root is what nearly every program needs.
const ROOT: &[&str] = &[
    "BStr",
    "BString",
    "Block",
    "BoxError",
    "ByteSlice",
    "Error",
    "ErrorKind",
    "Feed",
    "FeedBuilder",
    "FeedExt",
    "FeedStream",
    "FeedThreads",
    "FeedWithInput",
    "Host",
    "InputError",
    "Launcher",
    "Monitor",
    "Order",
    "Pool",
    "Reply",
    "Request",
    "Snapshot",
    "StreamFeedExt",
    "Template",
    "ThreadsBuilder",
    "TryFeed",
    "blocks",
];

/// Enums that can have no further variant: a marker or an item, a reply or not yet, and why nothing was put or got.
const CLOSED: &[&str] =
    &["framing::Scan", "marker::Marked", "queue::GetError", "queue::TryPutError"];

/// The path of a declaration behind its keyword.
fn declared<'l>(line: &'l str, keywords: &[&str]) -> Option<&'l str> {
    let line = line.strip_prefix("#[non_exhaustive] ").unwrap_or(line);
    let path = keywords.iter().find_map(|keyword| line.strip_prefix(keyword))?;
    let path = path.strip_prefix("subfeed::")?;
    let end = path.find(|byte: char| !byte.is_alphanumeric() && byte != '_' && byte != ':');
    Some(path[..end.unwrap_or(path.len())].trim_end_matches(':'))
}

#[test]
fn the_root_has_the_names_that_nearly_every_program_needs_and_no_other() {
    let page = read("tests/deep/public-api.txt");
    let keywords = [
        "pub use ",
        "pub struct ",
        "pub enum ",
        "pub trait ",
        "pub fn ",
        "pub type ",
        "pub const ",
    ];
    let root: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| declared(line, &keywords))
        .filter(|path| !path.contains("::"))
        .collect();
    assert_eq!(root, ROOT.iter().copied().collect());
}

#[test]
fn every_enum_that_may_grow_is_non_exhaustive() {
    let page = read("tests/deep/public-api.txt");
    let closed: BTreeSet<&str> = page
        .lines()
        .filter(|line| !line.starts_with("#[non_exhaustive]"))
        .filter_map(|line| declared(line, &["pub enum "]))
        .collect();
    assert_eq!(closed, CLOSED.iter().copied().collect());
}

#[test]
fn every_limit_can_be_taken_off() {
    let page = read("tests/deep/public-api.txt");
    let of_settings = [
        "Template<E, D>::",
        "Launcher::",
        "Pool<T, O>::",
        "FunctionSource<T>::",
        "Stage::",
        "Pipeline<T, M>::",
    ];
    let limits: Vec<&str> = page
        .lines()
        .filter(|line| of_settings.iter().any(|of| line.contains(of)) && line.contains("(self"))
        .filter(|line| line.contains("core::time::Duration"))
        .collect();
    assert!(limits.len() > 10, "{limits:#?}");
    for line in limits {
        // Times that are no limits: how long to wait before a look, between attempts, signals and starts.
        let is_none =
            ["::backoff(", "::on_stall(", "::kill_sequence(", "::starts(", "::health_request("];
        let takes_none = line.contains("Into<core::option::Option<core::time::Duration>>");
        assert!(takes_none || is_none.iter().any(|name| line.contains(name)), "{line}");
    }
}
