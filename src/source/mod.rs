//! Sources in a subprocess: iterators whose items are made by another process.
//!
//! The mirror image of a feed. There is no input; a child process makes the items, ahead of the consumer
//! by a bounded number, and they come back as a lazy iterator: [`iterate_in_subprocess`] gives the
//! records that a command prints.
#![cfg_attr(
    feature = "function-source",
    doc = "
A [`Function`] gives any items that serde knows: the child is this program again, entered at the top of
`main`, and is iterated again and again. What it iterates over may be a whole pipeline."
)]
//!
//! What holds for a feed's returned iterator holds here: fused, `Send`, errors at their position, bounds
//! that are kept, nothing left behind when it is dropped. It is the same outlet, behind the same gate.

mod command;
mod delivery;
mod emission;
#[cfg(feature = "function-source")]
mod function;
mod limit;
mod solo;
mod talk;

pub use self::command::{CommandSource, Records, iterate_in_subprocess};
#[cfg(feature = "function-source")]
#[cfg_attr(docsrs, doc(cfg(feature = "function-source")))]
pub use self::function::{Function, FunctionSource, IntoPasses, LastPass, Pass, Passes, Registry};
