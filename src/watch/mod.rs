//! Watching a feed: what each worker does, where the time goes, and a record of both.
//!
//! Everything starts with the [`Monitor`](crate::Monitor) of a feed, which any thread may call at any time, also
//! after the feed has ended:
//!
//! - [`Monitor::snapshot`](crate::Monitor::snapshot) returns counters;
//! - [`Monitor::workers`](crate::Monitor::workers) returns one [`Worker`] for each worker of the feed;
//! - [`Monitor::bottleneck`](crate::Monitor::bottleneck) returns a [`Bottleneck`], which prints as one line.
//!
//! `docs/watching.md` has recipes.

mod board;
mod bottleneck;
mod job_log;
mod ledger;
#[cfg(feature = "timeline")]
mod timeline;

pub(crate) use board::{Board, Head, View};
pub use board::{Worker, WorkerState};
pub use bottleneck::{Bottleneck, Verdict};
pub(crate) use bottleneck::{Facts, judge};
#[cfg(test)]
pub(crate) use job_log::Writer as LogWriter;
pub(crate) use job_log::{JobLog, Numbering, Row};
pub(crate) use ledger::{Counts, Ledger, Share, Standing, Times};
#[cfg(feature = "timeline")]
pub use timeline::{Event, Timeline, What};
#[cfg(feature = "timeline")]
pub(crate) use timeline::{Recorder, Tolls};
