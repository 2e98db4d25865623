//! What a test program has started ends with it, however that ends: killed, it can do nothing about its workers, and some
//! of them mind neither the end of their input nor a signal.
//!
//! Everything that a test program starts inherits a word of that program's in its environment. A process beside it waits
//! for the end of a pipe that the program alone holds, and then kills whatever has the word.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Once;

/// The variable that has the program's word.
pub(crate) const RUN: &str = "SUBFEED_TEST_RUN";

/// Ends when its input does, and whatever has the word with it. No signal from a terminal is meant for it. (A shell
/// gives a job in the background another stdin, so its own goes by another number.)
const SCRIPT: &str = r#"exec 3<&0; trap '' HUP INT TERM
( cat > /dev/null
  grep -lzxF "$1" /proc/[0-9]*/environ | while IFS=/ read -r _ _ pid _; do kill -9 "$pid"; done
) <&3 > /dev/null 2>&1 &"#;

/// From now on what this program starts ends with it, also what its own children start.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if std::env::var_os(RUN).is_some() {
            return;
        }
        let word = std::process::id().to_string();
        // Not ours to reap: the shell leaves it to another process, so that no test finds it among its children.
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "sh", &format!("{RUN}={word}")])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        // Open to the end, and close-on-exec.
        std::mem::forget(shell.stdin.take());
        shell.wait().expect("a child");
        // SAFETY: whatever else reads the environment of a test program does so by way of std, which locks.
        unsafe { std::env::set_var(RUN, word) };
    });
}

/// Kills whatever has this word in its environment.
pub(crate) fn end_all(word: &str) {
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environ.split(|&byte| byte == 0).any(|variable| variable == word.as_bytes()) {
            super::kill(pid);
        }
    }
}
