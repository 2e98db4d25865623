//! Order and bounds: what every executor shares.
//!
//! ```text
//! source --> intake --> [slot, batches] --> executor --> [outbox] --> outlet --> consumer
//!              ^                                                        |
//!              +------------------ gate: credits, bytes, stop ----------+
//! ```
//!
//! The README beside this file states the invariants.

pub(crate) mod delimiters;
pub(crate) mod gate;
pub(crate) mod help;
pub(crate) mod inputs;
pub(crate) mod intake;
pub(crate) mod joins;
pub(crate) mod outbox;
pub(crate) mod outlet;
pub(crate) mod packet;
pub(crate) mod packing;
pub(crate) mod reorder;
pub(crate) mod replies;
pub(crate) mod slot;
pub(crate) mod sync;
pub(crate) mod unwind;
pub(crate) mod waiter;
pub(crate) mod workers;
