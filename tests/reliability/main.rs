//! Never stuck, never lost: one module for each kind of fault.
//!
//! What others show already is not shown again; `docs/reliability.md` says for each fault which test does.
//! Bounds on time are far above what is promised: they tell an end from none.

#[path = "../common/mod.rs"]
mod common;

mod honest;
mod limits;
mod parent;
mod unkillable;
mod withholding;

use std::time::{Duration, Instant};

/// Far above every stated bound, far below the 300 s of a worker that stays.
const SOON: Duration = Duration::from_secs(20);

#[track_caller]
fn soon<T>(f: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = f();
    assert!(start.elapsed() < SOON, "it took {:?}", start.elapsed());
    value
}
