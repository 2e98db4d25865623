//! The examples of the README and of the pages in `docs`, which must compile like any other.

#[doc = include_str!("../README.md")]
struct Readme;

#[doc = include_str!("../docs/tour.md")]
#[cfg(feature = "threads")]
struct Tour;

#[doc = include_str!("../docs/migrating.md")]
#[cfg(feature = "threads")]
struct Migrating;

#[doc = include_str!("../docs/workers.md")]
struct Workers;

#[doc = include_str!("../docs/machines.md")]
struct Machines;
