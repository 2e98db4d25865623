//! What users rely on, one module for each promise, tested from outside.
//!
//! The workers are `tests/children/hostile.rs`, `cat` and `sh`, and where descriptors of two digits or a
//! terminal matter, Perl and Python; a test names on stderr what it skips because a program is missing. No
//! test depends on a sleep being long enough: they wait for events, and a watchdog makes a failure of what
//! hangs. Bounds on time are far above what is promised: they tell an end from none.

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod blocks;
mod buffering;
mod clean_exit;
mod closures;
mod codec;
mod config;
mod conservation;
mod doors;
mod draining;
mod dropping;
mod errors;
mod every_setting;
mod extremes;
mod field;
mod files;
mod framings;
mod honest;
mod kit;
mod laziness;
mod limits;
mod messages;
mod numbers;
mod on_stderr;
mod order;
mod panics;
mod parent;
mod pipeline;
mod protocol;
mod queue;
mod relatives;
mod sentinel;
mod settings;
mod sides;
mod source_command;
mod surroundings;
mod threads;
mod through;
mod unkillable;
mod verdicts;
mod withholding;
mod words;
