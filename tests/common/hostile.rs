//! Where the hostile child is: a program of ours, and yet no binary of the package, which `cargo install`
//! would put on somebody's `PATH`. So the first test that wants it has it compiled, once for all.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Compiled in as well, so that it is formatted and linted like everything else; never called here.
#[path = "../children/hostile.rs"]
mod program;

const SOURCE: &str = include_str!("../children/hostile.rs");

/// The path of the hostile child.
pub(crate) fn hostile() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let mut hash = DefaultHasher::new();
        SOURCE.hash(&mut hash);
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{:x}", hash.finish()));
        let program = dir.join("hostile-child");
        if !program.exists() {
            compile(&dir, &program);
        }
        program
    })
}

/// Several test programs may do this at a time: each works on a draft of its own and renames it.
fn compile(dir: &Path, program: &Path) {
    fs::create_dir_all(dir).expect("a directory");
    let draft = dir.join(format!("draft-{}", std::process::id()));
    let source = draft.with_extension("rs");
    fs::write(&source, SOURCE).expect("a file");
    let output = Command::new(rustc())
        .args(["--edition", "2024", "--crate-name", "hostile", "-O", "--cap-lints", "allow", "-o"])
        .args([&draft, &source])
        .output()
        .expect("rustc, which has compiled this test");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the hostile child does not compile: {said}");
    fs::rename(&draft, program).expect("a file system that renames");
    let _ = fs::remove_file(&source);
}

/// The compiler beside the cargo that runs the tests, or else the one on `PATH`.
fn rustc() -> OsString {
    if let Some(rustc) = env::var_os("RUSTC") {
        return rustc;
    }
    let beside = env::var_os("CARGO").map(|cargo| Path::new(&cargo).with_file_name("rustc"));
    beside.filter(|path| path.exists()).map_or_else(|| "rustc".into(), Into::into)
}
