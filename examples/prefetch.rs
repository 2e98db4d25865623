//! A loader in a separate process, which works ahead while this one computes.
//!
//! The loader is a pipeline: records are made, transformed by a thread, and sent in batches. It runs in a
//! child that is this program again; the next batch is ready when the consumer asks for it.
//! Two epochs, the same with and without the child, and the time that each way took.
//!
//! ```text
//! cargo run --release --example prefetch --features function-source -- [--batches N] [--load MS] [--train MS]
//! ```

use std::error::Error;
use std::thread::sleep;
use std::time::{Duration, Instant};

use subfeed::FeedExt;
use subfeed::source::{Function, Passes, Registry};

/// Batches that can be ahead of the consumer.
const AHEAD: usize = 4;
const BATCH: u64 = 32;

type Batch = Vec<u64>;

/// How many batches, and how many milliseconds it takes to load one.
const LOADER: Function<(u64, u64), Batch> = Function::new("loader");

fn batches((count, load): (u64, u64)) -> impl Iterator<Item = Batch> {
    let numbered = (0..count).map(move |batch| {
        // Waits, as for a disk or a network.
        sleep(Duration::from_millis(load));
        (batch * BATCH..(batch + 1) * BATCH).collect::<Batch>()
    });
    numbered.feed_threads_ordered(
        |mut batch: Batch| {
            batch.iter_mut().for_each(|record| *record = record.wrapping_mul(0x9e37_79b9));
            batch
        },
        1,
        2,
    )
}

/// The work on a batch, which waits as for a GPU.
fn train(sum: u64, batch: &Batch, time: Duration) -> u64 {
    sleep(time);
    batch.iter().fold(sum, |sum, record| sum.rotate_left(5) ^ record)
}

fn main() -> Result<(), Box<dyn Error>> {
    // The child enters here, and does not come back.
    Registry::new().register(LOADER, |argument| Passes::each(move || batches(argument))).serve();

    let mut options = [("--batches", 40u64), ("--load", 5), ("--train", 5)];
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().ok_or(format!("{flag} needs a number"))?;
        let known = options.iter_mut().find(|(name, _)| *name == flag);
        known.ok_or(format!("unknown flag {flag}"))?.1 = value.parse()?;
    }
    let [(_, count), (_, load), (_, time)] = options;
    let time = Duration::from_millis(time);

    // By hand: load, then train, in turn.
    let start = Instant::now();
    let mut expected = 0;
    for batch in 0..count {
        sleep(Duration::from_millis(load));
        let records = (batch * BATCH..(batch + 1) * BATCH).map(|n| n.wrapping_mul(0x9e37_79b9));
        expected = train(expected, &records.collect(), time);
    }
    let serial = start.elapsed();

    let mut loader = LOADER.iterate_in_subprocess(&(count, load), AHEAD);
    loader.wait_until_ready()?;
    let mut is_wrong = false;
    for epoch in 1..=2 {
        let start = Instant::now();
        let mut waited = Duration::ZERO;
        let (mut sum, mut taken) = (0, 0);
        let mut pass = loader.iter();
        loop {
            let asked = Instant::now();
            let Some(batch) = pass.next().transpose()? else { break };
            waited += asked.elapsed();
            sum = train(sum, &batch, time);
            taken += 1;
        }
        println!("epoch {epoch}: {taken} batches, checksum {sum:016x}");
        let overlapped = start.elapsed();
        eprintln!(
            "  {overlapped:.1?}, {waited:.1?} of it waiting; one after the other {serial:.1?}"
        );
        if (sum, taken) != (expected, count) {
            eprintln!("  but the checksum is {expected:016x}");
            is_wrong = true;
        }
        // Loading and training take the same time, so the child should save nearly half of it. On a busy machine half of that
        // is enough.
        let hidden = Duration::from_millis(load).min(time) * u32::try_from(count)?;
        if count >= 20 && overlapped + hidden / 2 > serial {
            eprintln!("  and nothing overlaps");
            is_wrong = true;
        }
    }
    std::process::exit(i32::from(is_wrong))
}
