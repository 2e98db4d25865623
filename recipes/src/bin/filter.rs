//! A Unix filter: lines from stdin through four workers of a tool to stdout, in order, with a progress bar.
//!
//! Ctrl-C ends it softly: nothing more is read, and what was read is answered. A second Ctrl-C ends it at once. Either
//! way no worker is left when the program has ended.
//!
//!     seq 1000000 | cargo run --release -p subfeed-recipes --bin filter -- sed -u 's/$/!/' >out

use std::env;
use std::error::Error;
use std::io::{self, BufRead, BufReader, BufWriter, Write, stdin, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use subfeed::queue::{NotYet, Timed};
use subfeed::{FeedExt, Template};

/// The exit status that a shell reports for a program ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut command = env::args_os().skip(1);
    let tool =
        Template::new(command.next().ok_or("usage: filter TOOL [ARGUMENT ...]")?).args(command);

    // Bytes, so that a line need not be UTF-8. A reader, because `stdin().lines()` holds a lock that cannot move to another
    // thread. Its errors go to no worker and come out at their positions.
    let lines = BufReader::new(stdin()).split(b'\n');
    let mut feed = lines.try_feed(tool).workers(4).buffer(1_000).start();

    let (stopper, presses) = (feed.stopper(), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&presses);
    ctrlc::set_handler(move || {
        seen.fetch_add(1, SeqCst);
        stopper.stop();
    })?;

    // Hidden if stderr is not a terminal. The number of lines is not known.
    let bar = ProgressBar::no_length();
    bar.set_style(ProgressStyle::with_template("{human_pos} lines, {per_sec}, {elapsed}")?);
    let mut out = BufWriter::new(stdout().lock());
    while presses.load(SeqCst) < 2 {
        // The limit lets the loop flush what has come, and notice a second Ctrl-C.
        match feed.next_timeout(Duration::from_millis(100)) {
            Ok(Some(reply)) => {
                let reply: io::Result<_> = reply;
                out.write_all(&reply?)?;
                out.write_all(b"\n")?;
                bar.inc(1);
            }
            Ok(None) => break,
            Err(NotYet) => out.flush()?,
        }
    }
    // Ends the workers at once, before the program exits.
    drop(feed);
    out.flush()?;
    bar.finish();
    Ok(if presses.load(SeqCst) == 0 { ExitCode::SUCCESS } else { ExitCode::from(INTERRUPTED) })
}
