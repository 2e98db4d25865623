//! Half a minute of chaos: see `chaos_kit`. Longer with `SUBFEED_CHAOS_SECONDS`, or with
//! `cargo run --release --example chaos -- --seconds 3600`.
//!
//! No test harness: the workers are this program again, and must not say anything of their own.

mod chaos_kit;

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    chaos_kit::take_over();
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        return println!("chaos: test");
    }
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    if !filters.is_empty() && !filters.iter().any(|filter| "chaos".contains(filter.as_str())) {
        return;
    }
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let options = chaos_kit::Options {
        seconds: number("SUBFEED_CHAOS_SECONDS").unwrap_or(30),
        seed: number("SUBFEED_CHAOS_SEED").unwrap_or(clock),
        only: None,
        verbose: false,
    };
    println!("chaos for {} s, seed {}", options.seconds, options.seed);
    let tally = chaos_kit::run(&options);
    println!("{tally}");
    if !tally.broken.is_empty() {
        std::process::exit(1);
    }
}
