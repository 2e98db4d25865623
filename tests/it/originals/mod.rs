//! The tests of the systems that this crate stands in for, and for each of their known weaknesses a
//! test that shows its opposite here.

mod paipa;
mod parallel_queue;
mod stream_executors;
mod subfeed;
