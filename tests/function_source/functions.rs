//! The functions that the children run.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::process;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use subfeed::source::{Function, Passes, Registry};
use subfeed::{BoxError, FeedExt, Template};

/// Where an initializer leaves its mark.
pub(crate) const LOG: &str = "SPDL_LOG";
/// What the second initializer does instead: `fail` or `panic`.
pub(crate) const MOOD: &str = "SPDL_MOOD";

pub(crate) const RANGE: Function<u64, u64> = Function::new("range");
pub(crate) const ONCE: Function<u64, u64> = Function::new("once");
/// A different idea of the same function.
pub(crate) const MISTAKEN: Function<String, u64> = Function::new("range");
pub(crate) const UNKNOWN: Function<(), ()> = Function::new("unknown");
/// Numbers, each noted in the file before it is given; `end` is noted when the iterator is dropped.
pub(crate) const NOTED: Function<(String, u64), u64> = Function::new("noted");
/// Gives the numbers up to one, then does something else.
pub(crate) const UNTIL: Function<(u64, String), u64> = Function::new("until");
pub(crate) const REFUSES: Function<String, u64> = Function::new("refuses");
pub(crate) const WHO: Function<u64, (u64, u32)> = Function::new("who");
pub(crate) const BYTES: Function<Vec<usize>, Vec<u8>> = Function::new("bytes");
pub(crate) const PARTIAL: Function<u64, Partial> = Function::new("partial");
pub(crate) const SKIPPING: Function<(), Skipping> = Function::new("skipping");
pub(crate) const MIXED: Function<u64, u64> = Function::new("mixed");
pub(crate) const TYPED: Function<(), Result<u64, Trouble>> = Function::new("typed");
pub(crate) const FDS: Function<(), BTreeSet<(i32, String)>> = Function::new("fds");
pub(crate) const PRINTS: Function<u64, u64> = Function::new("prints");
pub(crate) const PIPELINE: Function<u64, (String, u32)> = Function::new("pipeline");
pub(crate) const WAITING: Function<u64, String> = Function::new("waiting");
pub(crate) const NESTED: Function<u64, u64> = Function::new("nested");
/// Epochs of these lengths, in batches of three, made by a pipeline that lives on.
pub(crate) const EPOCHS: Function<Vec<u64>, (u32, Vec<u64>)> = Function::new("epochs");
pub(crate) const EVIL: Function<(), u64> = Function::new("evil");

/// Cannot be serialized if it is odd: a sequence whose length is not said.
#[derive(Debug, Deserialize, PartialEq)]
pub(crate) struct Partial(pub(crate) u64);

impl Serialize for Partial {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0 % 2 == 1 {
            serde::ser::SerializeSeq::end(to.serialize_seq(None)?)
        } else {
            to.serialize_newtype_struct("Partial", &self.0)
        }
    }
}

/// Written otherwise than it is read.
#[derive(Debug, Deserialize, Serialize, PartialEq)]
pub(crate) struct Skipping {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first: Option<u8>,
    pub(crate) second: String,
}

#[derive(Debug, Deserialize, Serialize, PartialEq)]
pub(crate) enum Trouble {
    Fuel { left: f32 },
    Weather,
}

#[derive(Debug)]
struct Caused(&'static str, Option<Box<Caused>>);

impl std::fmt::Display for Caused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Caused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.1.as_deref().map(|cause| cause as _)
    }
}

fn append(path: &str, line: impl std::fmt::Display) {
    let file = OpenOptions::new().append(true).create(true).open(path);
    writeln!(file.expect("a file"), "{line}").expect("a file");
}

fn log(line: &str) {
    if let Ok(path) = std::env::var(LOG) {
        append(&path, line);
    }
}

pub(crate) fn registry() -> Registry {
    Registry::new()
        .initializer(|| -> Result<(), BoxError> {
            log(&format!("first {}", process::id()));
            Ok(())
        })
        .initializer(|| match std::env::var(MOOD).as_deref() {
            Ok("fail") => Err("no mood for it"),
            Ok("panic") => panic!("what a mood"),
            Ok("sleep") => {
                thread::sleep(Duration::from_secs(300));
                Ok(())
            }
            _ => {
                log("second");
                Ok(())
            }
        })
        .register(RANGE, |n| {
            log("function");
            Passes::each(move || 0..n)
        })
        .register(ONCE, |n| Passes::once(0..n))
        .register(NOTED, |(path, n)| {
            Passes::each(move || Noted { path: path.clone(), items: 0..n })
        })
        .register(UNTIL, until)
        .register(REFUSES, |why| -> Result<Passes<u64>, BoxError> {
            assert!(why != "panic", "it panics");
            Err(why.into())
        })
        .register(WHO, who)
        .register(BYTES, |sizes| {
            Passes::each(move || {
                let sizes = sizes.clone().into_iter().enumerate();
                sizes.map(|(i, size)| vec![i as u8; size])
            })
        })
        .register(PARTIAL, |n| Passes::each(move || (0..n).map(Partial)))
        .register(SKIPPING, |()| {
            let items = [Some(1), None, Some(2)];
            Passes::each(move || items.map(|first| Skipping { first, second: "x".to_owned() }))
        })
        .register(MIXED, |n| {
            let item = |k| match k % 3 {
                1 => {
                    let cause = Caused("the wood is wet", None);
                    Err(Caused("no fire", Some(Box::new(cause))))
                }
                _ => Ok(k),
            };
            Passes::try_each(move || Ok::<_, BoxError>((0..n).map(item)))
        })
        .register(TYPED, |()| {
            let items = || [Ok(1), Err(Trouble::Fuel { left: 0.5 }), Err(Trouble::Weather)];
            Passes::each(items)
        })
        .register(FDS, |()| Passes::each(|| [open_files()]))
        .register(PRINTS, |n| {
            println!("begins");
            Passes::each(move || (0..n).inspect(|k| println!("makes {k}")))
        })
        .register(PIPELINE, pipeline)
        .register(WAITING, waiting)
        .register(NESTED, |n| {
            let mut inner = RANGE.iterate_in_subprocess(&n, 2);
            Passes::try_each(move || {
                let doubled: Result<Vec<u64>, _> =
                    inner.iter().map(|k| Ok::<_, subfeed::Error>(k? * 2)).collect();
                doubled.map(|doubled| doubled.into_iter().map(Ok::<u64, BoxError>))
            })
        })
        .register(EPOCHS, epochs)
        .register(EVIL, |()| {
            Passes::each(|| {
                // Says something where only reports are said.
                let number = std::env::var("SUBFEED_FUNCTION_ITEMS").expect("its number");
                let mut file =
                    OpenOptions::new().write(true).open(format!("/proc/self/fd/{number}"));
                file.as_mut().expect("the pipe").write_all(&[0xff; 64]).expect("written");
                std::iter::repeat(1)
            })
        })
}

struct Noted {
    path: String,
    items: std::ops::Range<u64>,
}

impl Iterator for Noted {
    type Item = u64;
    fn next(&mut self) -> Option<u64> {
        append(&self.path, "asked");
        self.items.next()
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        append(&self.path, "end");
    }
}

fn until((n, then): (u64, String)) -> Passes<u64> {
    Passes::each(move || {
        let then = then.clone();
        (0..).map(move |k| {
            if k < n {
                return k;
            }
            match then.as_str() {
                "exit" => {
                    eprintln!("its last words");
                    process::exit(7)
                }
                "exit well" => process::exit(0),
                "abort" => process::abort(),
                "panic" => panic!("at {k}"),
                "sleep" => {
                    log("sleeps");
                    thread::sleep(Duration::from_secs(300));
                    k
                }
                "defy" => {
                    // SAFETY: to ignore a signal runs no code.
                    unsafe {
                        use nix::sys::signal::{SigHandler, Signal, signal};
                        signal(Signal::SIGTERM, SigHandler::SigIgn).expect("ignored");
                    }
                    log("sleeps");
                    thread::sleep(Duration::from_secs(300));
                    k
                }
                _ => k,
            }
        })
    })
}

/// The number of the pass, and the process.
fn who(n: u64) -> Passes<(u64, u32)> {
    let mut pass = 0;
    Passes::each(move || {
        pass += 1;
        (0..n).map(move |_| (pass, process::id()))
    })
}

fn open_files() -> BTreeSet<(i32, String)> {
    let entries = std::fs::read_dir("/proc/self/fd").expect("/proc").flatten();
    let files = entries.filter_map(|entry| {
        let target = std::fs::read_link(entry.path()).ok()?.to_str()?.to_owned();
        Some((entry.file_name().to_str()?.parse().ok()?, target))
    });
    files.filter(|(_, target)| !target.contains("/fd")).collect()
}

/// Numbers, squared by threads, then marked by processes; each with the process that it was made in.
fn pipeline(n: u64) -> Passes<(String, u32)> {
    Passes::try_each(move || {
        let marked = (0..n)
            .feed_threads_ordered(|k| k * k, 2, 4)
            .map(|square| square.to_string())
            .feed_subprocesses_ordered(Template::new("sed").args(["-u", "s/^/#/"]), 2, 4);
        let items =
            marked.map(|reply| Ok::<_, subfeed::Error>((reply?.to_string(), process::id())));
        Ok::<_, BoxError>(items)
    })
}

/// The first pass waits in a feed that does not answer; the later ones do not.
fn waiting(n: u64) -> Passes<String> {
    let mut pass = 0;
    Passes::try_each(move || {
        pass += 1;
        let waits = format!("read -r n; echo $n; exec sleep {n}");
        let script = if pass == 1 { &waits } else { "exec cat" };
        let numbers = (0..n).map(|k| k.to_string());
        let replies = numbers.feed_subprocesses_ordered(Template::shell(script), 1, 2);
        Ok::<_, BoxError>(replies.map(|reply| reply.map(|reply| reply.to_string())))
    })
}

/// One pipeline for all epochs: a thread that works ahead over the marks, and batches that end at them.
fn epochs(lengths: Vec<u64>) -> Passes<(u32, Vec<u64>)> {
    let numbers = lengths.into_iter().flat_map(|n| (0..n).map(Some).chain([None]));
    let mut ahead = numbers.feed_threads_ordered(|number| number, 1, 8);
    let mut batch = Vec::new();
    let mut is_over = false;
    Passes::epochs(std::iter::from_fn(move || {
        if std::mem::take(&mut is_over) {
            return Some(None);
        }
        loop {
            match ahead.next()? {
                Some(number) => batch.push(number),
                None if batch.is_empty() => return Some(None),
                None => is_over = true,
            }
            if is_over || batch.len() == 3 {
                return Some(Some((process::id(), std::mem::take(&mut batch))));
            }
        }
    }))
}
