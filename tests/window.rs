//! The window as its users meet it: credit that comes back wherever the consumer sleeps, and feeds that go away on
//! whatever thread.
//!
//! What must not hang runs under a watchdog that a busy machine does not reach.

mod common;
#[path = "window/credits.rs"]
mod credits;
#[path = "window/joins.rs"]
mod joins;
