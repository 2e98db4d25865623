//! The recipe for a progress bar (docs/watching.md), on a pseudo-terminal: the program is this test again, with its stderr
//! there.

use std::env;
use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};

use nix::pty::{Winsize, openpty};
use subfeed::{Feed, FeedExt, Template};

// recipe
use std::fmt::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressIterator, ProgressState, ProgressStyle};
use subfeed::Monitor;

/// A bar with position, rate, busy workers and restarts; with length and time left, where the length is known.
fn progress_bar(monitor: Monitor, length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => {
            (ProgressBar::new(length), "[{bar:20}] {pos}/{len}, {per_sec}, {eta} left, {workers}")
        }
        None => (ProgressBar::no_length(), "{spinner} {pos}, {per_sec}, {elapsed}, {workers}"),
    };
    let workers = move |_: &ProgressState, out: &mut dyn Write| {
        let workers = monitor.workers();
        let busy = workers.iter().filter(|worker| worker.owed > 0).count();
        let restarts: u64 = workers.iter().map(|worker| worker.restarts).sum();
        let _ = write!(out, "{busy} of {} workers busy, {restarts} restarts", workers.len());
    };
    let style = ProgressStyle::with_template(template).expect("a template");
    bar.set_style(style.with_key("workers", workers));
    // Also while nothing comes: ten times a second.
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
// end of the recipe

const LENGTH: &str = "SUBFEED_TEST_PROGRESS_LENGTH";

/// The program: 60 records through workers of which each serves 20.
#[test]
fn program() {
    let Ok(length) = env::var(LENGTH) else { return };
    let template = Template::shell(
        "for i in 1 2 3 4 5 6 7 8 9 10; do read -r n || exit; sleep 0.02; echo $n; done",
    );
    let numbers = (0..60).map(|n| n.to_string());
    let feed = if length == "known" {
        numbers.feed(template).workers(2).buffer(20).start()
    } else {
        // What filters says nothing of its length.
        let mut left = 60;
        let source = std::iter::from_fn(move || {
            left -= 1;
            (left >= 0).then(|| left.to_string())
        });
        return count(source.feed(template).workers(2).buffer(20).start());
    };
    count(feed);
}

fn count(feed: Feed) {
    // recipe
    let length = feed.size_hint().1.map(|most| most as u64);
    let bar = progress_bar(feed.monitor(), length);
    let mut replies = 0;
    for reply in feed.progress_with(bar) {
        reply.expect("a reply");
        replies += 1;
    }
    // end of the recipe
    assert_eq!(replies, 60);
}

/// Everything that the program draws.
fn drawn(length: &str) -> String {
    let size = Winsize { ws_row: 24, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(&size, None).expect("a pseudo-terminal");
    let mut program = Command::new(env::current_exe().expect("ourselves"))
        .args(["--exact", "program", "--nocapture"])
        .env(LENGTH, length)
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(pty.slave)
        .spawn()
        .expect("a program");
    let mut master = File::from(pty.master);
    let (mut all, mut bytes) = (Vec::new(), [0; 4096]);
    // It ends with an error when nobody has the other end any more.
    while let Ok(n @ 1..) = master.read(&mut bytes) {
        all.extend_from_slice(&bytes[..n]);
    }
    assert!(program.wait().expect("an end").success());
    String::from_utf8_lossy(&all).into_owned()
}

/// The numbers that stand before some words, in the order in which they were drawn.
fn numbers_before(drawn: &str, words: &str) -> Vec<u64> {
    let ends = drawn.match_indices(words).map(|(at, _)| at);
    let digits = |at: usize| {
        let before = &drawn[..at];
        let start = before.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
        before[start..].parse().ok()
    };
    ends.filter_map(digits).collect()
}

#[test]
fn position_length_rate_time_left_workers_and_restarts_are_shown() {
    let drawn = drawn("known");
    let positions = numbers_before(&drawn, "/60, ");
    assert!(positions.is_sorted() && positions.len() > 3, "{drawn:?}");
    assert!(drawn.contains("/s, ") && drawn.contains(" left, "), "{drawn:?}");
    let busy = numbers_before(&drawn, " of 2 workers busy");
    assert!(busy.contains(&2), "{drawn:?}");
    let restarts = numbers_before(&drawn, " restarts");
    // Six sessions of ten records each, of which two are no restarts; a few more that came to nothing at the end.
    assert!(restarts.is_sorted() && restarts.last().is_some_and(|&last| last >= 3), "{drawn:?}");
}

#[test]
fn without_a_length_there_is_no_time_left() {
    let drawn = drawn("unknown");
    let positions = numbers_before(&drawn, ", ");
    assert!(positions.iter().any(|&position| position > 30), "{drawn:?}");
    assert!(
        drawn.contains("/s, ") && !drawn.contains(" left, ") && !drawn.contains("/60"),
        "{drawn:?}"
    );
    assert!(numbers_before(&drawn, " of 2 workers busy").contains(&2), "{drawn:?}");
    assert!(numbers_before(&drawn, " restarts").last().is_some_and(|&last| last >= 3), "{drawn:?}");
}

/// What stands between two marks of a text, without what it is indented by.
fn lines_between<'a>(text: &'a str, from: &str, to: &str) -> Vec<&'a str> {
    let lines = text.lines().map(str::trim);
    lines.skip_while(|line| *line != from).skip(1).take_while(|line| *line != to).collect()
}

#[test]
fn the_recipe_is_the_one_in_the_docs() {
    let (ours, docs) = (include_str!("progress.rs"), include_str!("../../docs/watching.md"));
    let mut rest = ours;
    for _ in 0..2 {
        let recipe = lines_between(rest, "// recipe", "// end of the recipe").join("\n");
        let page: Vec<_> = docs.lines().map(str::trim).collect();
        assert!(
            recipe.len() > 100 && page.join("\n").contains(&recipe),
            "docs/watching.md: {recipe}"
        );
        rest = rest.split_once("// end of the recipe").expect("an end").1;
    }
}
