//! `--header N`: lines that every worker must have seen first, and whose answer is wanted once.

use std::io::{self, Read};

use anyhow::{Context, anyhow, bail};
use subfeed::framing::{ReplyFraming, RequestFraming};
use subfeed::{Template, blocks};

use crate::signals::Signals;
use crate::words::told;

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
pub(crate) fn made_of(
    header: &[u8],
    worker: Template,
    at_end: &[u8],
    signals: &Signals,
) -> anyhow::Result<Option<Vec<u8>>> {
    let template = worker.requests(RequestFraming::raw()).replies(ReplyFraming::until_eof());
    // One record, which is the whole header: no byte ends it.
    let text = header.strip_suffix(b"\n").unwrap_or(header).to_vec();
    let absent = (0..=u8::MAX).find(|byte| !header.contains(byte));
    let Some(delimiter) = absent else { bail!("the header has every byte there is") };
    let whole = io::Cursor::new([&text[..], b"\n"].concat());
    let mut feed = blocks(whole).delimiter(delimiter).feed(template).workers(1).start();
    let _attached = signals.end(feed.stopper(), feed.monitor());
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
    drop(feed);
    // What it says at its end has nothing to do with the header.
    let behind = made.len() - if made.ends_with(at_end) { at_end.len() } else { 0 };
    made.truncate(behind);
    Ok(signals.first().is_none().then_some(made))
}
