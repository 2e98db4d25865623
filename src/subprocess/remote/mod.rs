//! Sessions behind a launcher: what is heard of them, and what is done about them by way of the same launcher.
//!
//! [`deframe`] and [`greetings`] are pure: the one tells the tool's bytes from the hello and the goodbye around them, the other
//! keeps what they have told. [`errand`] and [`sockets`] make system calls.

pub(crate) mod deframe;
pub(crate) mod errand;
pub(crate) mod greetings;
pub(crate) mod sockets;
