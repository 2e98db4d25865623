//! The first replies of an endless input, and how many inputs were pulled for them.
//!
//! ```text
//! cargo run --release --example infinite -- [--take K] [--workers N] [--buffer N]
//! ```

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use subfeed::{FeedExt, Template};

fn main() -> Result<(), Box<dyn Error>> {
    let mut options = [("--take", 10usize), ("--workers", 3), ("--buffer", 8)];
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().ok_or(format!("{flag} needs a number"))?;
        let known = options.iter_mut().find(|(name, _)| *name == flag);
        known.ok_or(format!("unknown flag {flag}"))?.1 = value.parse()?;
    }
    let [(_, take), (_, workers), (_, buffer)] = options;

    let pulled = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&pulled);
    let squares = (1u64..)
        .inspect(move |_| {
            count.fetch_add(1, SeqCst);
        })
        .map(|n| n.to_string())
        .feed_subprocesses_ordered(
            Template::shell("while read -r n; do echo $((n * n)); done"),
            workers,
            buffer,
        );

    let mut yielded = 0;
    for (k, square) in squares.take(take).enumerate() {
        let square = square?;
        yielded += 1;
        // Input `k + buffer` is not pulled before output `k` has been yielded, so after `k + 1`
        // outputs no more than `k + 1 + buffer` inputs can have been.
        let ahead = pulled.load(SeqCst);
        assert!(ahead <= (k + 1 + buffer) as u64, "{ahead} pulled at output {k}");
        println!("{square:>8}   inputs pulled so far: {ahead}");
    }
    let pulled = pulled.load(SeqCst);
    println!(
        "{yielded} replies yielded, {pulled} inputs pulled, at most {} promised",
        take + buffer
    );
    assert!(pulled <= (take + buffer) as u64);
    Ok(())
}
