//! Every file that git tracks here, through persistent `git hash-object` workers, checked against
//! git's own index.
//!
//! ```text
//! cargo run --release --example quickstart -- [--workers N] [--buffer N]
//! ```

use std::error::Error;
use std::process::{Command, ExitCode};
use std::time::Instant;

use bstr::{BString, ByteSlice};
use subfeed::{FeedExt, Template};

/// A file as git's index has it.
struct Marked {
    id: BString,
    path: BString,
}

impl AsRef<[u8]> for Marked {
    fn as_ref(&self) -> &[u8] {
        &self.path
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let (workers, buffer) = flags()?;
    let entries = tracked()?;
    let bytes: u64 = entries.iter().map(|entry| size(&entry.path)).sum::<Result<u64, _>>()?;

    let start = Instant::now();
    let (mut files, mut wrong) = (0u32, 0u32);
    let hashes = entries
        .into_iter()
        .feed(Template::new("git").args(["hash-object", "--stdin-paths"]))
        .workers(workers)
        .buffer(buffer)
        .keep_input()
        .start();
    for hashed in hashes {
        let (entry, id) = hashed?;
        files += 1;
        if entry.id != id {
            wrong += 1;
            eprintln!("{}: the index has {}, hash-object says {id}", entry.path, entry.id);
        }
    }
    let seconds = start.elapsed().as_secs_f64();

    println!(
        "{files} files, {bytes} bytes, {workers} workers, {:.0} records per second",
        f64::from(files) / seconds
    );
    if wrong > 0 || files == 0 {
        println!("{wrong} of {files} differ");
        return Ok(ExitCode::FAILURE);
    }
    println!("all {files} match");
    Ok(ExitCode::SUCCESS)
}

/// The regular files of the index that the work tree has unmodified, paths from the top.
fn tracked() -> Result<Vec<Marked>, Box<dyn Error>> {
    let top = git(&["rev-parse", "--show-toplevel"])?;
    std::env::set_current_dir(top.trim_ascii_end().to_os_str()?)?;
    let modified = git(&["diff-files", "--name-only", "-z"])?;
    let modified: Vec<&[u8]> = modified.split_str("\0").collect();
    let mut entries = Vec::new();
    for line in git(&["ls-files", "-s", "-z"])?.split_str("\0").filter(|line| !line.is_empty()) {
        let (about, path) = line.split_once_str("\t").ok_or("git ls-files has no tab")?;
        let mut words = about.split_str(" ");
        let (mode, id) = (words.next().ok_or("no mode")?, words.next().ok_or("no id")?);
        if mode.starts_with(b"100") && !modified.contains(&path) && !path.contains(&b'\n') {
            entries.push(Marked { id: id.into(), path: path.into() });
        }
    }
    Ok(entries)
}

fn git(args: &[&str]) -> Result<Vec<u8>, Box<dyn Error>> {
    let output = Command::new("git").args(args).output()?;
    if !output.status.success() {
        return Err(format!("git {args:?}: {}", output.stderr.as_bstr()).into());
    }
    Ok(output.stdout)
}

fn size(path: &BString) -> Result<u64, Box<dyn Error>> {
    Ok(std::fs::symlink_metadata(path.to_path()?)?.len())
}

fn flags() -> Result<(usize, usize), Box<dyn Error>> {
    let (mut workers, mut buffer) = (4, 1_000);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().ok_or(format!("{flag} needs a number"))?;
        match flag.as_str() {
            "--workers" => workers = value.parse()?,
            "--buffer" => buffer = value.parse()?,
            _ => {
                return Err(
                    format!("unknown flag {flag}; there are --workers N and --buffer N").into()
                );
            }
        }
    }
    Ok((workers, buffer))
}
