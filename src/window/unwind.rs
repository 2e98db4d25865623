//! Catch a panic here, carry it, resume it there (after rayon-core's module of the same name).

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};

/// A panic on its way to the consumer's thread.
pub(crate) type Payload = Box<dyn Any + Send + 'static>;

/// Runs a closure of the user's; its panic becomes a value.
///
/// Unwind safety: after a panic the closure is never called again, so no broken state is seen.
pub(crate) fn catch<T>(f: impl FnOnce() -> T) -> Result<T, Payload> {
    panic::catch_unwind(AssertUnwindSafe(f))
}

pub(crate) fn resume(payload: Payload) -> ! {
    panic::resume_unwind(payload)
}
