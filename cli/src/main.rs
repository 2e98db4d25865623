//! `subfeed`: the crate of that name as a command. See `subfeed --help`.

mod doctor;
mod files;
mod header;
mod messages;
mod options;
mod picture;
mod progress;
mod resume;
mod signals;
mod streams;
mod words;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::error::ErrorKind as Usage;
use clap::{CommandFactory, Parser};
use nix::sys::signal::Signal;
use subfeed::{Error, ErrorKind, Order, blocks};

use messages::Messages;
use options::{Options, Run, What};
use progress::Progress;
use resume::Resume;
use signals::{Signals, die_of};
use streams::Stream;
use words::{no_thread, told, told_by};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Good,
    /// Some records failed.
    Failures,
    /// The options are wrong.
    Usage,
    /// It ended early.
    Fatal,
    /// To die of this.
    Signal(Signal),
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            // What was asked for, such as the help, has to come; a complaint may have nobody who reads it.
            let lost = error.print().is_err() && code == 0;
            if error.kind() == Usage::UnknownArgument && !std::env::args_os().any(|arg| arg == "--")
            {
                let tip = "\n  tip: the command stands behind `--`, as in `subfeed -- cat`\n";
                let _ = Stream::stderr().write_all(tip.as_bytes());
            }
            return ExitCode::from(if lost { 3 } else { code });
        }
    };
    let Some(messages) = Messages::new() else { return ExitCode::from(3) };
    let outcome = match &options.what {
        Some(What::Doctor(doctor)) => doctor::examine(&doctor.command, &messages),
        Some(What::Timeline { trace }) => picture(trace),
        None => run(&options.run, &messages),
    };
    let outcome = outcome.unwrap_or_else(|error| {
        let config = error.downcast_ref::<Error>().filter(|e| e.kind() == ErrorKind::Config);
        messages.say(match error.downcast_ref::<Error>() {
            Some(error) => told(error),
            None => format!("{error:#}"),
        });
        config.map_or(Outcome::Fatal, |_| Outcome::Usage)
    });
    messages.flush();
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
    let mut out = Stream::stdout()?;
    let svg = picture::draw(trace)?;
    match out.write_all(svg.as_bytes()) {
        Ok(()) => Ok(Outcome::Good),
        Err(error) => write_failed(error),
    }
}

/// A file that the run keeps, opened before it begins: what cannot be written is to be known then.
fn created(path: &Path) -> anyhow::Result<File> {
    File::create(path)
        .with_context(|| format!("the timeline `{}` cannot be written", path.display()))
}

fn run(run: &Run, messages: &Messages) -> anyhow::Result<Outcome> {
    let worker = match (run.problem(), run.worker()) {
        (None, Some(worker)) => worker,
        (problem, _) => {
            let error =
                Options::command().error(Usage::ArgumentConflict, problem.unwrap_or_default());
            let _ = error.print();
            return Ok(Outcome::Usage);
        }
    };
    let (stdin, mut out) = (Stream::stdin()?, Stream::stdout()?);
    let timeline = run.timeline.as_deref().map(|path| created(path).map(|file| (path, file)));
    let timeline = timeline.transpose()?;
    let mut resume = Resume::open(run)?;
    let signals = Signals::catch(messages.clone())?;
    let progress = Progress::new(run, &stdin, messages.clone());
    let mut input = progress.count(stdin);
    let worker = worker.on_stderr({
        let messages = messages.clone();
        move |worker, bytes| messages.pass(worker, bytes)
    });
    let mut template = run.talk(worker.clone());
    if run.header > 0 {
        let header = header::take(&mut input, run.header)?;
        if header.is_empty() {
            return Ok(Outcome::Good);
        }
        let Some(made) = header::made_of(&header, worker, run.at_end(), &signals)? else {
            return Ok(signals.first().map_or(Outcome::Fatal, Outcome::Signal));
        };
        if !resume.has_header() {
            let written = resume.end_of_line(&mut out, messages);
            if let Err(error) = written.and_then(|()| out.write_all(&made)) {
                return write_failed(error);
            }
            resume.header_is_written()?;
        }
        let lines = made.iter().filter(|&&byte| byte == b'\n').count();
        template = template.preamble(header).skip_lines(lines);
    }
    let numbers = resume.numbers().clone();
    let input = resume.rest(input, run.delimiter());
    let reading = blocks(input).delimiter(run.delimiter()).record_limit(run.record_limit);
    let mut feed = reading.feed(template).max_bytes(run.max_bytes).first_record(numbers.first());
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
        let numbers = numbers.clone();
        feed = feed.job_log(path).job_log_numbers(move |record| numbers.number(record));
    }
    let (attached, mut feed) = signals.start(|| feed.start());
    let monitor = feed.monitor();
    let watch = progress.watch(monitor.clone());
    watch.map_err(|error| anyhow!(no_thread("the thread that watches the run", &error)))?;
    let (mut failures, mut fatal) = (0u64, None);
    let told = |error: &Error| told_by(error, |record| numbers.number(record));
    for item in feed.by_ref() {
        match item {
            Ok(block) => {
                let written = resume.end_of_line(&mut out, messages);
                if let Err(error) = written.and_then(|()| block.write_to(&mut out)) {
                    // The workers first: nobody reads what they would say.
                    messages.hurry();
                    drop(feed);
                    progress.clear();
                    return write_failed(error);
                }
                resume.done(block.first_record(), block.len())?;
                progress.wrote(block.len() as u64, block.as_bytes().len() as u64);
            }
            Err(error) if error.is_fatal() && error.kind() != ErrorKind::Halted => {
                fatal = Some(error)
            }
            // It only says that the cause came before it.
            Err(error) if error.kind() == ErrorKind::Halted => fatal = fatal.or(Some(error)),
            Err(error) => {
                failures += 1;
                messages.say(told(&error));
            }
        }
    }
    let remark = feed.finish().err();
    drop(attached);
    resume.settle()?;
    if let Some((path, file)) = timeline {
        let mut file = io::BufWriter::new(file);
        let written = monitor.timeline().write_to(&mut file).and_then(|()| file.flush());
        written.with_context(|| format!("the timeline `{}` cannot be written", path.display()))?;
    }
    progress.finish(failures);
    let again = match (failures, resume.is_kept()) {
        (0, _) | (_, false) => "",
        _ => "; what failed is tried again by a run with the same --checkpoint",
    };
    if let Some(signal) = signals.first() {
        let records = progress.records();
        messages.say(format_args!(
            "{signal}: ended with {records} answered and {failures} failed{again}"
        ));
        return Ok(Outcome::Signal(signal));
    }
    // A bad exit behind the last answer says nothing; a log that is not whole does.
    let remark = remark.filter(|remark| remark.is_fatal() || remark.kind() == ErrorKind::File);
    if let Some(error) = fatal.or(remark) {
        messages.say(told(&error));
        let usage = matches!(error.kind(), ErrorKind::Config);
        return Ok(if usage { Outcome::Usage } else { Outcome::Fatal });
    }
    if failures > 0 && resume.is_kept() {
        let count =
            if failures == 1 { "1 record".to_owned() } else { format!("{failures} records") };
        messages.say(format_args!("{count} failed{again}"));
    }
    Ok(if failures > 0 { Outcome::Failures } else { Outcome::Good })
}

/// So many events of a timeline are kept, the newest: about 10 MB.
const EVENTS: usize = 100_000;

fn write_failed(error: io::Error) -> anyhow::Result<Outcome> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(Outcome::Signal(Signal::SIGPIPE));
    }
    Err(error).context("standard output cannot be written")
}
