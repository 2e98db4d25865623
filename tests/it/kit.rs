//! The kit of the tests: a test program that is killed leaves nothing behind.

use std::process::{Command, Stdio};

use subfeed::FeedExt;

use crate::common::warden::RUN;
use crate::common::{Dir, child, eventually, is_running, within};

/// Where the program that is to be killed says who its worker is.
const DIR: &str = "SUBFEED_TEST_KIT_DIR";

#[test]
fn what_a_test_program_has_started_ends_with_it_when_it_is_killed() {
    if let Some(dir) = std::env::var_os(DIR) {
        // This is the program: its worker minds neither the end of its input nor a signal.
        return within(move || {
            let endless = std::iter::repeat("a");
            let mut feed = endless.feed_subprocesses_ordered(child("stubborn"), 1, 1);
            feed.next().expect("an item").expect("a reply");
            let pid = *crate::common::children().first().expect("a worker");
            let dir = std::path::PathBuf::from(dir);
            std::fs::write(dir.join("draft"), pid.to_string()).expect("a file");
            std::fs::rename(dir.join("draft"), dir.join("pid")).expect("a file");
            loop {
                std::thread::park();
            }
        });
    }
    within(|| {
        let dir = Dir::new();
        let mut program = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "kit::what_a_test_program_has_started_ends_with_it_when_it_is_killed",
            ])
            .env(DIR, dir.path(""))
            .env_remove(RUN)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this program again");
        eventually("it has a worker", || dir.path("pid").exists());
        let worker: u32 = dir.read("pid").parse().expect("a number");
        assert!(is_running(worker));
        program.kill().expect("it runs");
        program.wait().expect("a child");
        eventually("its worker goes", || !is_running(worker));
    });
}
