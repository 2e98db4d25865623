//! Real programs as workers: unmodified, ordered, four of each, every reply compared with what the
//! program says when it is run for that request alone.
//!
//! The programs and their Debian packages are in `packages.txt`, and `.ci/install-tools` installs them. A
//! missing one is named on stderr and its test passes, unless `SUBFEED_ALL_TOOLS=1`.

#[path = "../common/mod.rs"]
mod common;

mod cheats;
mod filters;
mod harness;
#[cfg(feature = "json")]
mod json;
mod languages;
mod per_packet;
mod repls;
mod servers;
mod words;
