//! Sources in a subprocess: iterators whose items are made by another process.
//!
//! Here there is no input. A child process makes the items, a limited number ahead of the consumer, and they come back as a
//! lazy iterator. [`iterate_in_subprocess`] yields the records that a command prints.
#![cfg_attr(
    feature = "function-source",
    doc = "
A [`Function`] gives any items that serde knows: the child is this program again, entered at the top of
`main`, and is iterated again and again. What it iterates over may be a whole pipeline."
)]
//!
//! As with a feed, the iterator is fused and `Send`, errors come at their positions, the limits hold, and nothing is left
//! behind when it is dropped.

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
#[cfg(feature = "async")]
#[cfg_attr(docsrs, doc(cfg(feature = "async")))]
pub use crate::stream::Polled;
