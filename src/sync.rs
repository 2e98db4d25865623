//! The few primitives that the window is built from.
//!
//! In one place, so that a model checker can take theirs: `tests/deep/shuttle.rs` compiles `src/window` once more,
//! as it is, with another module in the place of this one.

pub(crate) use crossbeam_channel as channel;
pub(crate) use std::sync::atomic;
pub(crate) use std::sync::{Mutex, MutexGuard, OnceLock};
pub(crate) use std::thread;
pub(crate) use std::thread_local;
pub(crate) use std::time::Instant;

/// Locks whatever state a panicking holder left: every critical section of ours leaves it whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
