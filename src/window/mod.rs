//! Order and bounds: what every executor shares.
//!
//! ```text
//! source --> intake --> [slot, batches] --> executor --> [outbox] --> outlet --> consumer
//!              ^                                                        |
//!              +------------------ gate: credits, bytes, stop ----------+
//! ```
//!
//! The README beside this file states the invariants.

pub(crate) mod chain;
pub(crate) mod delimiters;
pub(crate) mod gate;
pub(crate) mod handover;
pub(crate) mod inputs;
pub(crate) mod intake;
pub(crate) mod joins;
pub(crate) mod outbox;
pub(crate) mod outlet;
pub(crate) mod packet;
pub(crate) mod packing;
#[cfg(any(test, feature = "async"))]
pub(crate) mod polled;
pub(crate) mod reading;
pub(crate) mod reorder;
pub(crate) mod replies;
pub(crate) mod seam;
pub(crate) mod slot;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
pub(crate) mod toy;
pub(crate) mod unwind;
pub(crate) mod waiter;
pub(crate) mod workers;

pub(crate) use crate::sync;
