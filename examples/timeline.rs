//! A timeline of a run with one slow record, a worker that dies, and a tool that buffers its replies. It is written as a Chrome
//! trace; open it with <https://ui.perfetto.dev> or `chrome://tracing`.
//!
//!     cargo run --release --example timeline --features timeline [FILE]

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;

use subfeed::watch::{Timeline, What};
use subfeed::{FeedExt, Template};

/// Takes 300 ms for record 40, and dies at record 120.
const SLOW_AND_MORTAL: &str = "while read -r n; do
    case $n in 40) sleep 0.3 ;; 120) [ -e \"$0\" ] || { : >\"$0\"; exit 3; } ;; esac
    sleep 0.005
    echo \"$n\"
done";

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join("subfeed-timeline.json"), PathBuf::from);
    let died = std::env::temp_dir().join(format!("subfeed-died-{}", std::process::id()));

    let template = Template::new("sh").args(["-c", SLOW_AND_MORTAL]).arg(&died).in_flight(4);
    let shell = run(template, 200)?;
    let _ = std::fs::remove_file(&died);
    report("a slow record and a death", &shell);

    // `tr` buffers its output: nothing comes out before its stdin is closed.
    let withheld = run(Template::new("tr").args(["a-z", "A-Z"]), 400)?;
    report("a tool that withholds its replies", &withheld);

    shell.write_to(BufWriter::new(File::create(&path)?))?;
    let beside = path.with_extension("withheld.json");
    withheld.write_to(BufWriter::new(File::create(&beside)?))?;
    println!("{} and {}", path.display(), beside.display());
    Ok(())
}

fn run(template: Template, records: u32) -> Result<Timeline, subfeed::Error> {
    let source = (0..records).map(|n| n.to_string());
    let mut feed = source.feed(template).workers(3).buffer(60).timeline(100_000).start();
    let monitor = feed.monitor();
    for reply in feed.by_ref() {
        reply?;
    }
    Ok(monitor.timeline())
}

fn report(name: &str, timeline: &Timeline) {
    let count =
        |is: fn(&What) -> bool| timeline.events().iter().filter(|event| is(&event.what)).count();
    println!(
        "{name}: {} events, {} sessions, {} deaths, {} recycles, {} spells at the head",
        timeline.events().len(),
        count(|what| matches!(what, What::Session { .. })),
        count(|what| matches!(what, What::Died)),
        count(|what| matches!(what, What::Recycled)),
        count(|what| matches!(what, What::Head { .. })),
    );
}
