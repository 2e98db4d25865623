//! Feeds in async programs, on tokio (both flavours), smol, and an executor of thirty lines.

mod executors;
mod pools;
mod processor_time;
mod recipe;
mod streams;
mod trouble;
