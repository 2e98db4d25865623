//! Word counts over files, by workers on other machines.
//!
//! ```text
//! cargo run --example machines -- node1,node2 [ssh_config] FILE...
//! ```
//!
//! `:` is this machine. Each machine must have the files under the same paths, as on a shared disk.

use std::collections::BTreeMap;
use std::path::PathBuf;

use subfeed::{FeedExt, Launcher, Template};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let hosts = args.next().unwrap_or_else(|| ":".to_owned());
    let hosts: Vec<&str> = hosts.split(',').collect();
    let (configs, mut files): (Vec<_>, Vec<_>) = args.partition(|arg| arg.ends_with("ssh_config"));
    if files.is_empty() {
        files = source_files()?;
    }
    let mut launcher = Launcher::ssh(hosts);
    if let Some(path) = configs.first() {
        launcher = launcher.config_file(path);
    }
    // The request is a path, the reply the number of words and the host that counted them.
    let count = Template::shell("while IFS= read -r f; do echo $(wc -w <\"$f\") {host}; done")
        .current_dir(std::env::current_dir()?)
        .via(launcher)
        .try_decode(|reply| {
            let (count, host) = reply.to_str()?.split_once(' ').ok_or("no host")?;
            Ok((count.parse::<u64>()?, host.to_owned()))
        });
    let (mut sum, mut by_host) = (0, BTreeMap::<String, u64>::new());
    for counted in files.clone().into_iter().feed_subprocesses_ordered(count, 4, 64) {
        let (words, host) = counted?;
        sum += words;
        *by_host.entry(host).or_default() += 1;
    }
    // The same without workers.
    let mut expected = 0;
    for file in &files {
        expected += std::fs::read(file)?
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty())
            .count() as u64;
    }
    assert_eq!(sum, expected, "the workers have counted something else");
    println!("{sum} words in {} files; files by host: {by_host:?}", files.len());
    Ok(())
}

/// This crate's own sources.
fn source_files() -> std::io::Result<Vec<String>> {
    let mut folders = vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.to_string_lossy().into_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}
