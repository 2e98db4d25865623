//! The subprocess executor.
//!
//! [`scheduler`], [`session`] and [`child`] are pure state machines: events in, effects out, no system call
//! and no clock. [`event_loop`] performs the effects and reports the events, by way of [`os`]; [`swarm`]
//! puts the scheduler between the two ends of the window.

pub(crate) mod child;
// Elsewhere nothing but the simulation makes looks that show something.
pub(crate) mod event_loop;
#[cfg_attr(
    not(all(
        target_os = "linux",
        not(subfeed_portable),
        target_pointer_width = "64",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )),
    allow(dead_code)
)]
pub(crate) mod evidence;
pub(crate) mod exit;
pub(crate) mod os;
#[cfg_attr(
    any(not(target_os = "linux"), subfeed_portable),
    allow(dead_code, reason = "there is no evidence elsewhere")
)]
pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod protocol;
pub(crate) mod readiness;
pub(crate) mod reaper;
pub(crate) mod remote;
pub(crate) mod scheduler;
pub(crate) mod session;
#[cfg(test)]
pub(crate) mod sim;
pub(crate) mod swarm;
pub(crate) mod unread;
pub(crate) mod wording;
