//! `subfeed doctor`: how a tool behaves, found out with a few records, and what to say for it.
//!
//! Nothing is guessed from names. The records that are given (the doctor makes none up) are put to the tool in three ways,
//! all of them feeds: each in a process of its own, whose whole output is looked at; all of them together in one process;
//! and one after the other to a process that stays, where the library's own evidence tells who withholds an answer from
//! who is still at it.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use subfeed::channel::LineBuffered;
use subfeed::framing::{ReplyFraming, RequestFraming};
use subfeed::policy::OnStall;
use subfeed::{BStr, BString, Error, ErrorKind, FeedExt, Template};

use crate::Outcome;
use crate::messages::Messages;
use crate::options::typed;
use crate::streams::Stream;
use crate::words::{for_a_shell, told};

/// So many records are tried, and no more are read.
const RECORDS: usize = 8;
/// No more bytes are read.
const BYTES: u64 = 1 << 20;
/// So long a process is quiet before it is looked at.
const QUIET: Duration = Duration::from_millis(100);
/// Who has not answered by then is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many processes in a row may fail before something else than the time is given up.
const ATTEMPTS: u32 = 8;
/// No more bytes of a line of stderr are quoted.
const LONGEST_QUOTATION: usize = 200;

/// What a process printed, and how it ended.
#[derive(Debug, Default)]
struct Tried {
    output: Vec<u8>,
    /// What it wrote on stderr.
    said: Vec<u8>,
    /// Its exit status.
    status: i32,
}

/// What the tool prints.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shape {
    /// Lines before the first answer, the same in each process.
    banner: usize,
    /// Text behind the last answer, the same in each process.
    farewell: Vec<u8>,
    /// Lines of each answer.
    lines: Vec<usize>,
    /// Together, the records were answered as they were alone.
    stateless: bool,
}

/// When it answers.
#[derive(Debug)]
enum Pace {
    AtOnce,
    /// Only with this.
    With(LineBuffered),
    /// Not before its input ends, whatever is tried.
    AtItsEnd(Error),
    /// Something else went wrong.
    Unclear(Error),
}

/// What is found, on standard output, as it is found.
struct Report {
    out: Stream,
    /// The first write that failed. After that nothing is written.
    failure: Option<io::Error>,
}

impl Report {
    fn line(&mut self, line: impl Display) {
        if self.failure.is_none() {
            self.failure = self.out.write_all(format!("{line}\n").as_bytes()).err();
        }
    }

    fn say(&mut self, what: &str, sentence: &str) {
        self.line(format_args!("  {what:<14} {sentence}"));
    }
}

pub(crate) fn examine(command: &[OsString], messages: &Messages) -> anyhow::Result<Outcome> {
    let mut report = Report { out: Stream::stdout()?, failure: None };
    let records = read(Stream::stdin()?)?;
    if records.is_empty() {
        messages.say("doctor tries the tool with records from standard input, and there are none");
        return Ok(Outcome::Usage);
    }
    let outcome = find_out(command, records, &mut report);
    match report.failure {
        Some(error) => crate::write_failed(error),
        None => Ok(outcome),
    }
}

fn find_out(command: &[OsString], records: Vec<Vec<u8>>, report: &mut Report) -> Outcome {
    let Some((program, args)) = command.split_first() else { return Outcome::Usage };
    // A signal ends this program at once.
    let template = |attempts: u32| {
        let template = Template::new(program).args(args).packet_timeout(PATIENCE);
        template.give_up_after(attempts).kill_with_parent()
    };
    report.line(format_args!("{}: tried with {} of the records\n", shown(command), records.len()));
    let one = |(number, record): (u64, &Vec<u8>)| {
        patiently(|attempts| {
            tried(template(attempts), RequestFraming::line(), number, record.clone())
        })
    };
    let tried_alone: Vec<Tried> = match (1..).zip(&records).map(one).collect() {
        Ok(found) => found,
        Err(error) => return gave_up(&error, false, report),
    };
    let together = [records.join(&b'\n'), vec![b'\n']].concat();
    let together =
        patiently(|attempts| tried(template(attempts), RequestFraming::raw(), 1, together.clone()));
    let together = match together {
        Ok(together) => together.output,
        Err(error) => return gave_up(&error, true, report),
    };
    let complaint = complaint(&tried_alone);
    if let Some(complaint) = &complaint {
        report.say("may fail", complaint);
    }
    let answers_by_status = complaint.is_none() && tried_alone.iter().any(|one| one.status == 1);
    let whole_process = |report: &mut Report| whole_process(command, answers_by_status, report);
    let alone: Vec<_> = tried_alone.into_iter().map(|one| one.output).collect();
    let shape = shape(&alone, &together);
    let farewell = shape.as_ref().map_or(&[][..], |shape| &shape.farewell);
    if let Some(prompt) = prompt(&alone, &together, farewell) {
        report.say(
            "prompts",
            &format!(
                "it prints {:?} in front of each answer, and once more at its end: this is a prompt",
                BStr::new(&prompt)
            ),
        );
        report.say(
            "so",
            "turn the prompt off, with an option of the tool or by an empty prompt, and run doctor again",
        );
        report.say(
            "",
            "(--out sentinel:CMD would find where each answer ends, but the prompt would stay in the answers)",
        );
        return Outcome::Good;
    }
    let Some(shape) = shape else {
        report.say(
            "answers",
            "not record by record: what it prints for some records together is not what it prints for each of them",
        );
        report.say(
            "so",
            "nothing can tell which answer belongs to which record in a process that stays",
        );
        whole_process(report);
        return Outcome::Good;
    };
    if shape.banner > 0 {
        let banner = lines(shape.banner);
        report.say("at its start", &format!("it prints {banner} before the first answer"));
    }
    if !shape.farewell.is_empty() {
        report.say("at its end", &format!("it says {:?}", BString::from(shape.farewell.clone())));
    }
    let fewest = shape.lines.iter().copied().min().unwrap_or(0);
    let most = shape.lines.iter().copied().max().unwrap_or(0);
    if fewest == most && most > 0 {
        report.say("answers", &format!("{} for each record", lines(most)));
    } else {
        report.say(
            "answers",
            &format!("{fewest} to {} for a record, which no count can tell apart", lines(most)),
        );
        report.say(
            "so",
            "a tool that evaluates what it reads can print a mark behind each answer: --out sentinel:CMD",
        );
        whole_process(report);
        return Outcome::Good;
    }
    if !shape.stateless {
        report.say(
            "remembers",
            "an answer depends on the records before it (it numbers, compares or sums up): with several workers each sees some of them",
        );
    }
    let staying = |attempts| {
        let template =
            template(attempts).replies(ReplyFraming::lines(most)).skip_lines(shape.banner);
        if shape.farewell.is_empty() { template } else { template.skip_at_end(&shape.farewell[..]) }
    };
    match pace(staying, &records) {
        Pace::AtOnce => {
            report.say("is quick", "it answers each record before it waits for the next");
            advise(command, &shape, most, None, report);
        }
        Pace::With(how) => {
            let (what, _) = described(how);
            report.say(
                "buffers",
                &format!(
                    "it withholds answers until its buffer is full; {what} it answers at once"
                ),
            );
            report.say(
                "",
                "(a flag of its own is better where it has one: --line-buffered, -u, --unbuffered)",
            );
            advise(command, &shape, most, Some(how), report);
        }
        Pace::AtItsEnd(error) => {
            report.say(
                "at its end",
                &format!("it answers when its input ends, and not before: {}", said_here(&error)),
            );
            whole_process(report);
        }
        Pace::Unclear(error) => {
            report.say(
                "stays",
                &format!(
                    "a process that is to answer one record after the other does not: {}",
                    said_here(&error)
                ),
            );
            whole_process(report);
        }
    }
    Outcome::Good
}

/// Some records, and no more bytes than are needed to see that one does not end.
fn read(input: impl Read) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut input = BufReader::new(input.take(BYTES));
    let mut records = Vec::new();
    while records.len() < RECORDS {
        let mut record = Vec::new();
        let n = input.read_until(b'\n', &mut record).context("standard input cannot be read")?;
        if n == 0 {
            break;
        }
        if record.last() == Some(&b'\n') {
            record.pop();
        }
        records.push(record);
    }
    Ok(records)
}

/// The whole output of a process for this request.
fn tried(
    template: Template,
    requests: RequestFraming,
    number: u64,
    record: Vec<u8>,
) -> Result<Tried, Error> {
    let (said, status) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicI32::new(0)));
    let (heard, seen) = (Arc::clone(&said), Arc::clone(&status));
    let template = template.requests(requests).replies(ReplyFraming::until_eof()).retries(0);
    let template = template
        .on_stderr(move |_, bytes| {
            heard.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        })
        .accept_status(move |status| {
            seen.store(status, SeqCst);
            // 1 is what filters say that found nothing.
            status <= 1
        });
    let mut feed = [record].into_iter().feed(template).workers(1).first_packet(number).start();
    let output = feed.by_ref().map(|reply| reply.map(Vec::from)).collect::<Result<Vec<_>, _>>()?;
    drop(feed);
    let said = std::mem::take(&mut *said.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Tried { output: output.concat(), said, status: status.load(SeqCst) })
}

/// What is to be known of status 1 where the tool wrote on stderr too: whether it is an answer, or a failure, is not said
/// by the status.
fn complaint(alone: &[Tried]) -> Option<String> {
    let complained: Vec<_> =
        alone.iter().filter(|one| one.status == 1 && !one.said.is_empty()).collect();
    let first = complained.first()?;
    Some(format!(
        "for {} of {} records it ends with status 1 and writes on stderr, such as {}: if that is a failure, its output is no answer, so no --accept-status is proposed",
        complained.len(),
        alone.len(),
        quoted(&first.said)
    ))
}

/// A line, or the first and the last of several.
fn quoted(said: &[u8]) -> String {
    let line = |line: &[u8]| format!("{:?}", BStr::new(&line[..line.len().min(LONGEST_QUOTATION)]));
    let mut lines = said.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let (first, last) = (lines.next().unwrap_or(said), lines.next_back());
    last.map_or_else(|| line(first), |last| format!("{} [...] {}", line(first), line(last)))
}

/// What outputs of single records and that of all of them together have in common.
fn shape(alone: &[Vec<u8>], together: &[u8]) -> Option<Shape> {
    let alone: Vec<Vec<&[u8]>> = alone.iter().map(|output| cut(output)).collect();
    let together = cut(together);
    let sum: usize = alone.iter().map(Vec::len).sum();
    // What each process prints beside its answers is there once where they are together.
    let often = alone.len() - 1;
    let (mut banner, mut farewell) = (0, 0);
    if often > 0 {
        let more = sum.checked_sub(together.len())?;
        if more % often != 0 {
            return None;
        }
        let fixed = more / often;
        let least = alone.iter().map(Vec::len).min().unwrap_or(0);
        let same = |of: &dyn Fn(&[&[u8]]) -> Vec<u8>| {
            alone.iter().all(|output| of(output) == of(&together))
        };
        if fixed > least {
            return None;
        }
        // As much of it as may stand in front stands there.
        banner = (0..=fixed).rev().find(|&n| same(&|output| output[..n].concat()))?;
        farewell = fixed - banner;
        if !same(&|output| output[output.len() - farewell..].concat()) {
            return None;
        }
    }
    let answers = |output: &[&[u8]]| output[banner..output.len() - farewell].concat();
    let expected: Vec<u8> = alone.iter().flat_map(|output| answers(output)).collect();
    Some(Shape {
        banner,
        farewell: together[together.len() - farewell..].concat(),
        lines: alone.iter().map(|output| output.len() - banner - farewell).collect(),
        stateless: expected == answers(&together),
    })
}

/// Text that stands in front of each answer and at the end: a line that nothing ends, or the line of a farewell.
fn prompt(alone: &[Vec<u8>], together: &[u8], farewell: &[u8]) -> Option<Vec<u8>> {
    let prompt = match cut(farewell).last() {
        Some(line) if line.ends_with(b"\n") => {
            // Where the input ends, many a tool ends the line of its prompt.
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            line.strip_suffix(b"\r").unwrap_or(line)
        }
        _ => {
            let open =
                |output: &Vec<u8>| output.rsplit(|&byte| byte == b'\n').next().map(<[u8]>::len);
            // A record without an answer leaves two prompts on a line.
            let shortest = alone.iter().filter_map(open).min()?;
            let output = alone.first()?;
            &output[output.len() - shortest..]
        }
    };
    if prompt.trim_ascii().is_empty() {
        return None;
    }
    // How often it begins a line, or follows itself there.
    let often = |output: &[u8]| -> usize {
        let of_line = |mut line: &[u8]| {
            let mut often = 0;
            while let Some(rest) = line.strip_prefix(prompt) {
                (often, line) = (often + 1, rest);
            }
            often
        };
        output.split(|&byte| byte == b'\n').map(of_line).sum()
    };
    let at_end = |output: &[u8]| output.trim_ascii_end().ends_with(prompt.trim_ascii_end());
    let each = alone.iter().all(|output| often(output) > 1 && at_end(output));
    (each && often(together) > alone.len() && at_end(together)).then(|| prompt.to_vec())
}

/// Lines with their line feeds.
fn cut(output: &[u8]) -> Vec<&[u8]> {
    output.split_inclusive(|&byte| byte == b'\n').collect()
}

/// Tries once, and where nothing took too long, as often as the library does by itself: it is then that it knows best what
/// is wrong.
fn patiently<T>(attempt: impl Fn(u32) -> Result<T, Error>) -> Result<T, Error> {
    match attempt(1) {
        Err(error) if error.kind() == ErrorKind::Died => attempt(ATTEMPTS),
        result => result,
    }
}

/// An error, without counts of attempts, and without options that the doctor does not have.
fn said_here(error: &Error) -> String {
    let mut text = told(error);
    let several = format!("{ATTEMPTS} workers in a row ended without one answer");
    for ended in ["a worker ended without one answer", &several] {
        text = text.replace(&format!("{ended}; the last: "), "");
        text = text.replace(ended, "it ended without an answer");
    }
    if let Some(at) = text.find("; --accept-status refuses") {
        text.truncate(at);
    }
    for words in [
        " (--timeout)",
        " (--end-timeout)",
        ": raise --answer-limit, or check that the tool prints what --out says",
        "; raise --answer-limit",
    ] {
        text = text.replace(words, "");
    }
    text
}

/// When a process that stays answers.
fn pace(template: impl Fn(u32) -> Template, records: &[Vec<u8>]) -> Pace {
    let ask = |template: Template| -> Result<(), Error> {
        let template = template.on_stall(OnStall::Fail, QUIET).in_flight(1).retries(0);
        let records = Vec::from(records).into_iter();
        let mut feed = records.feed(template).workers(1).first_packet(1).start();
        feed.try_for_each(|reply| reply.map(|_| ()))
    };
    let error = match patiently(|attempts| ask(template(attempts))) {
        Ok(()) => return Pace::AtOnce,
        Err(error) => error,
    };
    if !matches!(error.kind(), ErrorKind::Stalled | ErrorKind::Timeout) {
        return Pace::Unclear(error);
    }
    for how in [LineBuffered::Stdbuf, LineBuffered::Environment, LineBuffered::Pty] {
        if ask(template(1).line_buffered(how)).is_ok() {
            return Pace::With(how);
        }
    }
    Pace::AtItsEnd(error)
}

/// What it is called in a sentence, and in Rust.
fn described(how: LineBuffered) -> (&'static str, &'static str) {
    match how {
        LineBuffered::Stdbuf => ("under `stdbuf -oL`", "LineBuffered::Stdbuf"),
        LineBuffered::Environment => ("with PYTHONUNBUFFERED=1", "LineBuffered::Environment"),
        _ => ("on a pseudo-terminal", "LineBuffered::Pty"),
    }
}

/// With a record alone, or with all of them together.
fn gave_up(error: &Error, together: bool, report: &mut Report) -> Outcome {
    let text = said_here(error);
    match text.strip_prefix("record 1: ").filter(|_| together) {
        Some(text) => report.say("fails", &format!("all records in one process: {text}")),
        None => report.say("fails", &text),
    }
    let (given, such) =
        if together { ("these records", "records") } else { ("one record", "a record") };
    let so = match error.kind() {
        ErrorKind::Timeout => Some(format!(
            "with {given} and then the end of its input it neither answers nor ends: it may need a terminal, or wait for something else"
        )),
        ErrorKind::Died => Some(format!("it does not take such {such}")),
        ErrorKind::Reply => Some(format!("its output for {given} is too long for an answer")),
        _ => None,
    };
    if let Some(so) = so {
        report.say("so", &so);
    }
    if error.kind() == ErrorKind::Spawn { Outcome::Fatal } else { Outcome::Failures }
}

fn lines(n: usize) -> String {
    if n == 1 { "1 line".to_owned() } else { format!("{n} lines") }
}

/// A process for each record, of which some said something by ending with status 1.
fn whole_process(command: &[OsString], answers_by_status: bool, report: &mut Report) {
    report.say("or", "one process for each record, whose whole output is the answer");
    let mut settings = vec![".replies(ReplyFraming::until_eof())".to_owned()];
    let mut option = "";
    if answers_by_status {
        report.say(
            "",
            "(it says by status 1 that it has found nothing, or something: that is an answer too)",
        );
        settings.push(".accept_status(|status| status <= 1)".to_owned());
        option = "--accept-status 0,1 ";
    }
    rust(command, &settings, report);
    report.line(format_args!(
        "\nWith this command:\n\n    subfeed --out eof {option}-- {}",
        shown(command)
    ));
}

/// The template in Rust, and the options of this command.
fn advise(
    command: &[OsString],
    shape: &Shape,
    most: usize,
    how: Option<LineBuffered>,
    report: &mut Report,
) {
    let mut settings = Vec::new();
    let mut options = Vec::new();
    if most > 1 {
        settings.push(format!(".replies(ReplyFraming::lines({most}))"));
        options.push(format!("--out lines:{most} "));
    }
    if shape.banner > 0 {
        settings.push(format!(".skip_lines({})", shape.banner));
        options.push(format!("--skip-lines {} ", shape.banner));
    }
    if !shape.farewell.is_empty() {
        settings.push(format!(".skip_at_end({:?})", BString::from(shape.farewell.clone())));
        options.push(format!("--skip-at-end {} ", for_a_shell(&typed(&shape.farewell))));
    }
    let mut under = "";
    if let Some(how) = how {
        settings.push(format!(".line_buffered({})", described(how).1));
        match how {
            LineBuffered::Stdbuf => under = "stdbuf -oL ",
            LineBuffered::Environment => under = "env PYTHONUNBUFFERED=1 ",
            _ => options.push("--pty ".to_owned()),
        }
    }
    rust(command, &settings, report);
    report.line(format_args!(
        "\nWith this command:\n\n    subfeed {}-- {under}{}",
        options.concat(),
        shown(command)
    ));
}

fn rust(command: &[OsString], settings: &[String], report: &mut Report) {
    let text = |word: &OsString| format!("{:?}", word.to_string_lossy());
    let Some((program, args)) = command.split_first() else { return };
    report.line(format_args!("\nIn Rust:\n\n    Template::new({})", text(program)));
    if !args.is_empty() {
        let args: Vec<_> = args.iter().map(text).collect();
        report.line(format_args!("        .args([{}])", args.join(", ")));
    }
    for setting in settings {
        report.line(format_args!("        {setting}"));
    }
}

/// The command as a shell takes it.
fn shown(command: &[OsString]) -> String {
    let words: Vec<_> = command.iter().map(|word| for_a_shell(&word.to_string_lossy())).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(texts: &[&str]) -> Vec<Vec<u8>> {
        texts.iter().map(|text| text.as_bytes().to_vec()).collect()
    }

    fn found(banner: usize, farewell: &str, lines: &[usize], stateless: bool) -> Option<Shape> {
        Some(Shape { banner, farewell: farewell.into(), lines: lines.to_vec(), stateless })
    }

    #[test]
    fn what_stands_around_answers_is_told_from_answers() {
        let shape = |alone: &[&str], together: &str| shape(&outputs(alone), together.as_bytes());
        assert_eq!(shape(&["1\n", "2\n"], "1\n2\n"), found(0, "", &[1, 1], true));
        assert_eq!(shape(&["hi\n1\n", "hi\n2\n"], "hi\n1\n2\n"), found(1, "", &[1, 1], true));
        assert_eq!(
            shape(&["1\nbye\n", "2\nbye\n"], "1\n2\nbye\n"),
            found(0, "bye\n", &[1, 1], true)
        );
        assert_eq!(
            shape(&["hi\n1\nbye\n", "hi\n2\nbye\n"], "hi\n1\n2\nbye\n"),
            found(1, "bye\n", &[1, 1], true)
        );
        // No answer at times, two at others.
        assert_eq!(shape(&["", "2\n2\n", "3\n"], "2\n2\n3\n"), found(0, "", &[0, 2, 1], true));
        // A tool that numbers, one that counts, one that drops repetitions.
        assert_eq!(shape(&["1 a\n", "1 b\n"], "1 a\n2 b\n"), found(0, "", &[1, 1], false));
        assert_eq!(shape(&["1\n", "1\n", "1\n"], "3\n"), None);
        assert_eq!(shape(&["a\n", "a\n", "b\n"], "a\nb\n"), None);
        assert_eq!(shape(&["x\n"], "x\n"), found(0, "", &[1], true));
    }

    #[test]
    fn a_prompt_is_told_from_a_farewell() {
        let prompt = |alone: &[&str], together: &str| {
            let (alone, together) = (outputs(alone), together.as_bytes());
            let farewell = shape(&alone, together).map_or(Vec::new(), |shape| shape.farewell);
            let found = super::prompt(&alone, together, &farewell);
            found.map(|prompt| String::from_utf8(prompt).unwrap())
        };
        for (alone, together, found) in [
            (&["> 1\n> ", "> 2\n> "][..], "> 1\n> 2\n> ", Some("> ")),
            // With one record; with a line feed at the end; behind a banner; with an answer of two lines, and with none.
            (&["> 1\n> "], "> 1\n> ", Some("> ")),
            (&["> 1\n> \n", "> 2\n> \n"], "> 1\n> 2\n> \n", Some("> ")),
            (&["hi\n> 1\n> ", "hi\n> 2\n> "], "hi\n> 1\n> 2\n> ", Some("> ")),
            (&["> 1\n1\n> ", "> 2\n2\n> "], "> 1\n1\n> 2\n2\n> ", Some("> ")),
            (&["> > ", "> 2\n> "], "> > 2\n> ", Some("> ")),
            // A farewell, a rule above and below, answers that are alike, and answers that nothing ends.
            (&["1\n> ", "2\n> "], "1\n2\n> ", None),
            (&["1\nbye\n", "2\nbye\n"], "1\n2\nbye\n", None),
            (&["--\n1\n--\n", "--\n2\n--\n"], "--\n1\n2\n--\n", None),
            (&["a\na\n", "a\na\n"], "a\na\na\na\n", None),
            (&["a", "a"], "a\na", None),
            (&["a", "a"], "aa", None),
            (&["", "> 2\n> "], "> 2\n> ", None),
            (&["1\n\n", "2\n\n"], "1\n2\n\n", None),
        ] {
            assert_eq!(prompt(alone, together).as_deref(), found, "{alone:?}");
        }
    }
}
