//! Sources in a subprocess: iterators whose items are made by another process.
//!
//! The mirror image of a feed. There is no input; a child process makes the items, ahead of the consumer
//! by a bounded number, and they come back as a lazy iterator: [`iterate_in_subprocess`] gives the
//! records that a command prints.
//!
//! What holds for a feed's returned iterator holds here: fused, `Send`, errors at their position, bounds
//! that are kept, nothing left behind when it is dropped. It is the same outlet, behind the same gate.

mod command;
mod delivery;
mod emission;
mod inbox;
mod keeper;

pub use self::command::{CommandSource, Records, iterate_in_subprocess};
