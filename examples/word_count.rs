//! A pipeline of three stages: files are read, split into words and counted, each stage with its own
//! number of workers; then the same on one thread, and the counts are compared.
//!
//!     cargo run --release --example word_count

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use subfeed::pipeline::{Pipeline, Profile, Stage};

type Counts = BTreeMap<String, u64>;

/// Every file that git tracks here.
fn files() -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let listed = Command::new("git").args(["ls-files", "-z"]).output()?;
    if !listed.status.success() {
        return Err("this example counts the words of a git repository: run it inside one".into());
    }
    let names = String::from_utf8(listed.stdout)?;
    Ok(names.split_terminator('\0').map(PathBuf::from).filter(|path| path.is_file()).collect())
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

fn count(text: &str) -> Counts {
    let mut counts = Counts::new();
    for word in words(text) {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    counts
}

fn add(mut sum: Counts, counts: Counts) -> Counts {
    for (word, n) in counts {
        *sum.entry(word).or_default() += n;
    }
    sum
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let files = files()?;

    let pipeline = Pipeline::new(files.clone())
        .try_map(Stage::new("read").workers(4).buffer(16).retries(1), |path| {
            Ok(std::fs::read(path)?)
        })
        .map(Stage::new("decode").workers(1), |bytes| String::from_utf8_lossy(&bytes).into_owned())
        .map(Stage::new("count").workers(2).buffer(32), |text| count(&text));
    let control = pipeline.control();
    let counted = pipeline
        .run()
        .items()
        .try_fold(Counts::new(), |sum, counts| counts.map(|counts| add(sum, counts)))?;
    for stage in control.stages() {
        println!(
            "{:>8}: {} in, {} out, busy {:.1?}",
            stage.name, stage.taken, stage.given, stage.busy
        );
    }

    // On one thread iterator adaptors are enough. A profile counts and times the steps.
    let profile = Profile::new();
    let read = profile.step("read", files.iter().map(std::fs::read));
    let decoded = profile.step(
        "decode",
        read.map(|bytes| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())),
    );
    let mut alone = profile.step("count", decoded.map(|text| text.map(|text| count(&text))));
    let alone =
        alone.try_fold(Counts::new(), |sum, counts| counts.map(|counts| add(sum, counts)))?;
    println!("on one thread:\n{profile}");

    let total: u64 = counted.values().sum();
    println!("{} files, {total} words, {} of them different", files.len(), counted.len());
    if counted != alone {
        println!("the two counts differ");
        return Ok(ExitCode::FAILURE);
    }
    println!("both counts are the same");
    Ok(ExitCode::SUCCESS)
}
