// Programs that may be missing. Included by the recipes of the cookbook too, where `//!` could not stand.

use std::io::Write as _;
use std::path::PathBuf;

/// The packages of the tools, one a line: the package, then its commands.
const PACKAGES: &str = include_str!("../tools/packages.txt");

/// Whether these commands are all here. Where they are not: an error if all tools have been installed on
/// purpose (`SUBFEED_ALL_TOOLS=1`), otherwise a line on stderr that names what to install.
pub(crate) fn here(commands: &[&str]) -> bool {
    let missing: Vec<&str> =
        commands.iter().copied().filter(|name| which(name).is_none()).collect();
    if missing.is_empty() {
        return true;
    }
    let packages: Vec<&str> = missing.iter().map(|command| package_of(command)).collect();
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("{test}: skipped, no {missing:?} (Debian packages {packages:?})\n");
    assert!(std::env::var_os("SUBFEED_ALL_TOOLS").is_none_or(|value| value != "1"), "{line}");
    // Not by way of `eprintln`, which the test runner keeps to itself where a test passes.
    let _ = std::io::stderr().write_all(line.as_bytes());
    false
}

/// Where a command is.
pub(crate) fn which(command: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Debian keeps some of them where the PATH of a service does not lead.
    let games = PathBuf::from("/usr/games");
    let mut dirs = std::env::split_paths(&path).chain([games]).map(|dir| dir.join(command));
    dirs.find(|path| path.is_file())
}

fn package_of(command: &str) -> &'static str {
    let lines = PACKAGES.lines().filter(|line| !line.starts_with('#'));
    let mut words = lines.map(|line| line.split_whitespace());
    words
        .find_map(|mut words| {
            let package = words.next()?;
            words.any(|word| word == command).then_some(package)
        })
        // `tests/tidy.rs` sees to it that there is none of these.
        .unwrap_or("unknown")
}
