//! Sessions behind a launcher: what is heard of them, and what is done about them by way of the same launcher.
//!
//! [`deframe`] is pure: it tells the tool's bytes from the hello and the goodbye around them. [`errand`] and
//! [`sockets`] make system calls.

pub(crate) mod deframe;
pub(crate) mod errand;
pub(crate) mod sockets;
