//! `subfeed`: the crate of that name as a command. See `subfeed --help`.

mod doctor;
mod header;
mod options;
mod picture;
mod progress;
mod resume;
mod signals;

use std::fs::File;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::error::ErrorKind as Usage;
use clap::{CommandFactory, Parser};
use nix::sys::signal::Signal;
use subfeed::{Error, ErrorKind, Order, blocks};

use options::{Options, Run, What};
use progress::Progress;
use signals::{Signals, die_of};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Good,
    /// Some records failed.
    Failures,
    /// The options make no sense.
    Usage,
    /// It ended before its time.
    Fatal,
    /// To die of this.
    Signal(Signal),
}

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match &options.what {
        Some(What::Doctor(doctor)) => doctor::examine(&doctor.command),
        Some(What::Timeline { trace }) => picture(trace),
        None => run(&options.run),
    };
    let outcome = outcome.unwrap_or_else(|error| {
        eprintln!("subfeed: {error:#}");
        Outcome::Fatal
    });
    match outcome {
        Outcome::Good => ExitCode::SUCCESS,
        Outcome::Failures => ExitCode::from(1),
        Outcome::Usage => ExitCode::from(2),
        Outcome::Fatal => ExitCode::from(3),
        Outcome::Signal(signal) => die_of(signal),
    }
}

/// Draws a trace.
fn picture(trace: &Path) -> anyhow::Result<Outcome> {
    let svg = picture::draw(trace)?;
    match unbuffered(&io::stdout()).write_all(svg.as_bytes()) {
        Ok(()) => Ok(Outcome::Good),
        Err(error) => write_failed(error),
    }
}

/// A standard stream without the buffer of the standard library. It stays open.
fn unbuffered(stream: &impl AsRawFd) -> ManuallyDrop<File> {
    // SAFETY: the descriptor is open for as long as the program runs, and is not closed here.
    ManuallyDrop::new(unsafe { File::from_raw_fd(stream.as_raw_fd()) })
}

fn run(run: &Run) -> anyhow::Result<Outcome> {
    let (Some(mut template), Some(worker)) = (run.template(), run.worker()) else {
        let message = "no command: put it behind `--`, as in `subfeed -- jq -c .name`";
        Options::command().error(Usage::MissingRequiredArgument, message).exit();
    };
    let signals = Signals::catch()?;
    let progress = Progress::new(run);
    let mut input = progress.count(unbuffered(&io::stdin()));
    let mut out = unbuffered(&io::stdout());
    let mut resume = resume::Resume::open(run)?;
    if run.header > 0 {
        if run.null || run.requests.is_some() || run.replies.is_some() {
            let message = "--header is about lines, and goes with no other framing";
            Options::command().error(Usage::ArgumentConflict, message).exit();
        }
        let header = header::take(&mut input, run.header)?;
        let made = header::made_of(&header, worker)?;
        if resume.count() == 0
            && let Err(error) = out.write_all(&made)
        {
            return write_failed(error);
        }
        let lines = made.iter().filter(|&&byte| byte == b'\n').count();
        template = template.preamble(header).skip_lines(lines);
    }
    let input = resume.skip(input, run.delimiter())?;
    let reading = blocks(input).delimiter(run.delimiter()).record_limit(run.record_limit);
    let mut feed = reading.feed(template).max_bytes(run.max_bytes).first_record(resume.count() + 1);
    if let Some(jobs) = run.jobs.or_else(|| run.launcher().map(|launcher| launcher.slots())) {
        feed = feed.workers(jobs);
    }
    if let Some(window) = run.window {
        feed = feed.buffer(window);
    }
    if run.any_order {
        feed = feed.order(Order::Completion);
    }
    if run.timeline.is_some() {
        feed = feed.timeline(EVENTS);
    }
    if let Some(path) = &run.joblog {
        feed = feed.job_log(path);
    }
    let mut feed = feed.start();
    signals.end(feed.stopper())?;
    let monitor = feed.monitor();
    progress.watch(monitor.clone())?;
    let (mut failures, mut fatal) = (0u64, None);
    for item in feed.by_ref() {
        match item {
            Ok(block) => {
                if let Err(error) = block.write_to(&mut *out) {
                    // The workers first: nobody reads what they would say.
                    drop(feed);
                    progress.clear();
                    return write_failed(error);
                }
                resume.done(block.len() as u64)?;
                progress.wrote(block.len() as u64, block.as_bytes().len() as u64);
            }
            Err(error) if error.is_fatal() && error.kind() != ErrorKind::Halted => {
                fatal = Some(error)
            }
            // It only says that the cause came before it.
            Err(error) if error.kind() == ErrorKind::Halted => fatal = fatal.or(Some(error)),
            Err(error) => {
                failures += 1;
                resume.done(1)?;
                progress.say(&told(&error));
            }
        }
    }
    let remark = feed.finish().err();
    resume.settle()?;
    if let Some(path) = &run.timeline {
        let written = File::create(path).and_then(|file| {
            let mut file = io::BufWriter::new(file);
            monitor.timeline().write_to(&mut file)?;
            file.flush()
        });
        written.with_context(|| format!("the timeline `{}` cannot be written", path.display()))?;
    }
    progress.finish(failures);
    if let Some(signal) = signals.first() {
        return Ok(Outcome::Signal(signal));
    }
    if let Some(error) = fatal.or(remark.filter(Error::is_fatal)) {
        eprintln!("subfeed: {}", told(&error));
        let usage = matches!(error.kind(), ErrorKind::Config);
        return Ok(if usage { Outcome::Usage } else { Outcome::Fatal });
    }
    Ok(if failures > 0 { Outcome::Failures } else { Outcome::Good })
}

/// So many events of a timeline are kept, the newest: about 10 MB.
const EVENTS: usize = 100_000;

/// An error by its record, counted from 1.
fn told(error: &Error) -> String {
    let text = error.to_string();
    match error.packet() {
        Some(record) => {
            let text = text.strip_prefix(&format!("packet {record}: ")).unwrap_or(&text);
            format!("record {record}: {text}")
        }
        None => text,
    }
}

fn write_failed(error: io::Error) -> anyhow::Result<Outcome> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(Outcome::Signal(Signal::SIGPIPE));
    }
    Err(error).context("standard output cannot be written")
}
