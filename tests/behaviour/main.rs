//! What users rely on, one module for each promise, tested from outside.
//!
//! The workers are `tests/children/hostile.rs`, `cat` and `sh`. No test depends on a sleep being long
//! enough: they wait for events, and a watchdog makes a failure of what hangs.

#[path = "../common/mod.rs"]
mod common;

mod codec;
mod config;
mod conservation;
mod dropping;
mod errors;
mod extremes;
mod laziness;
mod order;
mod panics;
mod protocol;
mod sentinel;
mod surroundings;
mod verdicts;
