//! `--header N`: lines that every worker must have seen first, and whose answer is wanted once.

use std::io::{self, Read};

use anyhow::{Context, anyhow, bail};
use subfeed::framing::{ReplyFraming, RequestFraming};
use subfeed::{BStr, Template, blocks};

use crate::options::typed;
use crate::signals::Signals;
use crate::words::{for_a_shell, told};

/// Takes the first lines, byte by byte: nothing behind them may be taken away. Where there are fewer, these are all that
/// there is; the last one gets its line feed.
pub(crate) fn take(input: &mut impl Read, lines: usize) -> anyhow::Result<Vec<u8>> {
    let (mut header, mut found) = (Vec::new(), 0);
    let mut byte = [0];
    while found < lines {
        match input.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => {
                header.push(byte[0]);
                found += usize::from(byte[0] == b'\n');
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("the header cannot be read"),
        }
    }
    if header.last().is_some_and(|&last| last != b'\n') {
        header.push(b'\n');
    }
    Ok(header)
}

/// What the tool makes of the header alone: a process of its own says it. Nothing, if a signal ends this.
///
/// A tool may also say something at its end. Then it says that to an empty input too, which another process gets; in a worker it
/// would come behind the last answer, and would be counted as one.
pub(crate) fn made_of(
    header: &[u8],
    worker: Template,
    at_end: &[u8],
    signals: &Signals,
) -> anyhow::Result<Option<Vec<u8>>> {
    let template = worker.requests(RequestFraming::raw()).replies(ReplyFraming::until_eof());
    let silent = template.clone().on_stderr(|_, _| {}).accept_status(|_| true);
    // One record, which is the whole header: no byte ends it.
    let text = header.strip_suffix(b"\n").unwrap_or(header).to_vec();
    let absent = (0..=u8::MAX).find(|byte| !header.contains(byte));
    let Some(delimiter) = absent else { bail!("the header has every byte there is") };
    let whole = io::Cursor::new([&text[..], b"\n"].concat());
    let feed = blocks(whole).delimiter(delimiter).feed(template).workers(1);
    let (_attached, mut feed) = signals.start(|| feed.start());
    let empty = blocks(&b"\n"[..]).feed(silent).workers(1);
    let (_attached_too, mut empty) = signals.start(|| empty.start());
    let mut made = Vec::new();
    for block in feed.by_ref() {
        match block {
            Ok(block) => made.extend_from_slice(block.as_bytes()),
            Err(error) if signals.first().is_none() => {
                return Err(anyhow!("the tool does not take the header: {}", told(&error)));
            }
            Err(_) => {}
        }
    }
    if made.ends_with(at_end) {
        made.truncate(made.len() - at_end.len());
    }
    // A tool that does not take an empty input has not said anything at its end.
    let said: Vec<u8> = match empty.next() {
        Some(Ok(block)) if !made.is_empty() => block.as_bytes().into(),
        _ => Vec::new(),
    };
    let said = said.strip_suffix(at_end).unwrap_or(&said);
    if signals.first().is_some() {
        return Ok(None);
    }
    // What it says at its start stands in front of what it makes of the header, in each worker too.
    if !said.is_empty() && made.ends_with(said) {
        bail!(
            "the tool prints {:?} also without a header: if it prints this at its end, say --skip-at-end {}",
            BStr::new(said),
            for_a_shell(&typed(said))
        );
    }
    Ok(Some(made))
}
