//! Documents with completion markers: a marker behind each batch passes through every stage, in threads and in subprocesses, and
//! comes out after everything before it, so that the batch can be acknowledged.
//!
//!     cargo run --release --example batch_done

use std::process::ExitCode;

use subfeed::Template;
use subfeed::marker::Marked;
use subfeed::pipeline::{Pipeline, Stage, StageError};

/// A marker: this batch is complete, and has this many documents.
#[derive(Debug)]
struct Done {
    batch: usize,
    documents: usize,
}

fn main() -> Result<ExitCode, StageError> {
    // Batches of different sizes, one of them empty.
    let sizes = [300, 1, 0, 1_000, 42];
    let source = sizes.into_iter().enumerate().flat_map(|(batch, documents)| {
        (0..documents)
            .map(move |n| Marked::Item(format!("batch {batch} document {n}")))
            .chain([Marked::Marker(Done { batch, documents })])
    });

    let run = Pipeline::with_markers(source)
        .map(Stage::new("shout").workers(4), |text: String| text.to_uppercase())
        .feed(
            Stage::new("number").workers(2).buffer(100),
            Template::new("sed").args(["-u", "s/$/!/"]),
        )
        .map("length", |reply| (reply.len(), reply))
        .run();

    let (mut seen, mut batches) = (0, 0);
    for entry in run {
        match entry? {
            Marked::Item((_, reply)) => {
                let of = format!("BATCH {batches} DOCUMENT {seen}!");
                if reply != of {
                    println!("{reply} came where {of} was due");
                    return Ok(ExitCode::FAILURE);
                }
                seen += 1;
            }
            Marked::Marker(Done { batch, documents }) => {
                println!("batch {batch} is done: {seen} of {documents} documents");
                if (batch, documents) != (batches, seen) {
                    return Ok(ExitCode::FAILURE);
                }
                (seen, batches) = (0, batches + 1);
            }
        }
    }
    println!("{batches} batches, each complete when its marker came");
    Ok(if batches == sizes.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
