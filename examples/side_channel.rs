//! The example of Python's subfeed: Fibonacci numbers on stdin, their line numbers on a side channel, and two workers that write
//! `{id}.out`. Then the same with the replies collected in order.

use subfeed::channel::Redirect;
use subfeed::{FeedExt, Request, Template};

fn numbered(item: &(usize, u64), request: &mut Request<'_>) {
    request.push(item.1.to_string());
    request.side("line_numbers").push(item.0.to_string());
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let fibonaccis = std::iter::successors(Some((0, 1)), |&(a, b): &(u64, u64)| Some((b, a + b)));
    let lines: Vec<_> = fibonaccis.map(|(fib, _)| fib).take(90).enumerate().collect();
    let expected: Vec<_> = lines.iter().map(|(n, fib)| format!("{n}\t{fib}")).collect();
    let template =
        || Template::shell("paste {fd:line_numbers} -").side_input("line_numbers").encode(numbered);

    let dir = std::env::temp_dir().join(format!("side-channel-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let to_files = template().stdout(Redirect::file(dir.join("{id}.out")));
    let drained = lines.clone().into_iter().feed(to_files).workers(2).drain()?;
    let files =
        ["0.out", "1.out"].map(|name| std::fs::read_to_string(dir.join(name)).unwrap_or_default());
    std::fs::remove_dir_all(&dir)?;
    let mut written: Vec<_> = files.iter().flat_map(|file| file.lines()).collect();
    written.sort_by_key(|line| line.split('\t').next().and_then(|n| n.parse::<u64>().ok()));
    assert!(drained.all_ended_well() && written == expected, "{drained:?}");
    println!("{} lines in two files, every pair intact", written.len());

    let replies = lines.into_iter().feed_subprocesses_ordered(template(), 2, 1_000);
    assert_eq!(replies.collect::<Result<Vec<_>, _>>()?, expected);
    println!("and collected, in order");
    Ok(())
}
