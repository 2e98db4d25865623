//! Assistance: what a consumer does instead of sleeping where the work would have to be done.
//!
//! A consumer that waits on a thread of a pool takes that thread from the very feed that it waits for,
//! and from every feed which that one pulls. If all the threads of the pool wait like this, nobody is
//! left. So it works itself, one item at a time, until what it waits for has come.
//!
//! It may do the work of its own feed, and of the feeds that it waits for by way of it (see
//! [`chain`](crate::window::chain)). It never does any other work: a foreign job may wait for something that lies
//! further down on the same stack.

use std::sync::Arc;
use std::thread;

use crate::window::gate::Gate;

/// Does a piece of the work of this feed or of one that it waits for, if this is a thread of a pool. Says whether it
/// did.
pub(super) fn assist(gate: &Arc<Gate>) -> bool {
    if rayon::current_thread_index().is_none() {
        return false;
    }
    let helper = thread::current();
    let mut next = Some(Arc::clone(gate));
    while let Some(gate) = next {
        gate.offer(&helper);
        if gate.assist() {
            return true;
        }
        next = gate.upstream();
    }
    false
}
