//! Workers behind launchers, on real daemons: an sshd, a Slurm of four nodes, podman. Each daemon is started and ended by a
//! script of the tests' own, listens on 127.0.0.1 alone, and needs no rights but those of whoever runs the test.
//!
//! Missing programs are named on stderr and their tests pass, unless `SUBFEED_ALL_TOOLS=1`.

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod framings;
mod kit;
mod podman;
mod slurm;
mod ssh;
