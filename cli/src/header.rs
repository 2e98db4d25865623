//! `--header N`: lines that every worker must have seen first, and whose answer is wanted once.

use std::io::{self, Read};

use anyhow::{Context, bail};
use subfeed::framing::{ReplyFraming, RequestFraming};
use subfeed::{Template, blocks};

/// Takes the first lines, byte by byte: nothing behind them may be taken away.
pub(crate) fn take(input: &mut impl Read, lines: usize) -> anyhow::Result<Vec<u8>> {
    let (mut header, mut found) = (Vec::new(), 0);
    let mut byte = [0];
    while found < lines {
        match input.read(&mut byte) {
            Ok(0) => bail!("the input has {found} lines, and --header asks for {lines}"),
            Ok(_) => {
                header.push(byte[0]);
                found += usize::from(byte[0] == b'\n');
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("the header cannot be read"),
        }
    }
    Ok(header)
}

/// What the tool makes of the header alone: a process of its own says it.
pub(crate) fn made_of(header: &[u8], worker: Template) -> anyhow::Result<Vec<u8>> {
    let template = worker.requests(RequestFraming::raw()).replies(ReplyFraming::until_eof());
    // One record, which is the whole header: no byte ends it.
    let text = header.strip_suffix(b"\n").unwrap_or(header).to_vec();
    let absent = (0..=u8::MAX).find(|byte| !header.contains(byte));
    let Some(delimiter) = absent else { bail!("the header has every byte there is") };
    let whole = io::Cursor::new([&text[..], b"\n"].concat());
    let mut feed = blocks(whole).delimiter(delimiter).feed(template).workers(1).start();
    let mut made = Vec::new();
    feed.copy_to(&mut made).context("the tool does not take the header")?;
    Ok(made)
}
