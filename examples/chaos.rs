//! Feeds with workers that misbehave and are killed at random, for as long as you like; an oracle checks the results.
//!
//! ```text
//! cargo run --release --example chaos -- --seconds 3600 --seed 1
//! cargo run --release --example chaos -- --only 123456789    # replays one round
//! ```

#[path = "../tests/chaos_kit/mod.rs"]
mod chaos_kit;

fn main() {
    chaos_kit::take_over();
    let mut options = chaos_kit::Options { seconds: 30, seed: 1, only: None, verbose: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || {
            let value = args.next().and_then(|value| value.parse().ok());
            value.unwrap_or_else(|| {
                eprintln!("{arg} needs a number");
                std::process::exit(64)
            })
        };
        match arg.as_str() {
            "--seconds" => options.seconds = number(),
            "--seed" => options.seed = number(),
            "--only" => options.only = Some(number()),
            "--verbose" => options.verbose = true,
            _ => {
                eprintln!("usage: chaos [--seconds N] [--seed S] [--only ROUND_SEED] [--verbose]");
                std::process::exit(64)
            }
        }
    }
    let tally = chaos_kit::run(&options);
    println!("{tally}");
    if !tally.broken.is_empty() {
        std::process::exit(1);
    }
}
