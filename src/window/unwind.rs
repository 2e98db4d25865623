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

/// What a panic says, if it says anything.
pub(crate) fn message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
