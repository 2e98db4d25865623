//! Watching a feed: what each worker does, where the time goes, and a record of both.
//!
//! Everything starts at the [`Monitor`](crate::Monitor) of a feed, which any thread may ask, at any time, also
//! when the feed has ended:
//!
//! - [`Monitor::snapshot`](crate::Monitor::snapshot): counters;
//! - [`Monitor::workers`](crate::Monitor::workers): one [`Worker`] for each of the feed's workers;
//! - [`Monitor::bottleneck`](crate::Monitor::bottleneck): a [`Bottleneck`], which is one line to read.
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
pub(crate) use job_log::{JobLog, Row};
pub(crate) use ledger::{Counts, Ledger, Share, Standing, Times};
#[cfg(feature = "timeline")]
pub use timeline::{Event, Timeline, What};
#[cfg(feature = "timeline")]
pub(crate) use timeline::{Recorder, Tolls};
