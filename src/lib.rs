//! Stream any iterator through a swarm of persistent subprocesses.
//!
//! You have an iterator and a program: `jq`, `bc`, `exiftool`, `git cat-file`, `psql`, a model that takes thirty seconds to
//! load. This crate is the ordered parallel map between the two. The program is started once per worker and stays. It is
//! sent thousands of requests ahead, and the replies come back as a lazy iterator: in input order if you like, in bounded
//! memory, also on endless input.
//!
//! ```
//! use subfeed::{FeedExt, Template};
//!
//! let template = Template::shell("while read -r n; do echo $((n * n)); done");
//! let squares = (1u64..)
//!     .map(|n| n.to_string())
//!     .feed_subprocesses_ordered(template, 4, 1_000)
//!     .take(5)
//!     .collect::<Result<Vec<_>, _>>()?;
//! assert_eq!(squares, ["1", "4", "9", "16", "25"]);
//! # Ok::<_, subfeed::Error>(())
//! ```
//!
//! Without this crate one starts a process per record, or writes one record at a time to a child and waits for its reply, at
//! a fiftieth of the speed. If the program buffers its output, that deadlocks:
//!
//! ```no_run
//! # use std::io::{BufRead, Write};
//! # fn by_hand(child_in: &mut impl Write, child_out: &mut impl BufRead, records: Vec<String>) -> std::io::Result<()> {
//! for record in records {
//!     writeln!(child_in, "{record}")?;
//!     let mut reply = String::new();
//!     child_out.read_line(&mut reply)?; // `tr` prints nothing before it has 4 KiB of replies: both sides wait
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # The parts
//!
//! - [`FeedExt`] adds the methods to every iterator: [`feed_subprocesses`](FeedExt::feed_subprocesses),
//!   [`feed_subprocesses_ordered`](FeedExt::feed_subprocesses_ordered), and [`feed`](FeedExt::feed), which returns the
//!   [`FeedBuilder`] that the first two use.
//! - [`Template`] says what to run and how to talk to it: arguments, [framing], banners, side channels, policies.
//! - [`Feed`] is the iterator that is returned. [`FeedWithInput`] yields each input beside its reply;
//!   [`FeedBuilder::blocks`] yields the replies in [`Block`]s of many.
//! - [`blocks`] feeds the records of anything that implements `Read` (a file, standard input) and yields the replies in
//!   [`Block`]s of many records, at nearly the speed of a bare pipe.
//! - [`feed_threads`](FeedExt::feed_threads) and [`in_threads`](FeedExt::in_threads) do the same with a function, in the
//!   threads of a pool or a scope ([`ThreadsBuilder`], [`FeedThreads`]).
//! - [`try_feed`](FeedExt::try_feed) takes an iterator of `Result`s, and [`feed_marked`](FeedExt::feed_marked) one with
//!   [markers](marker): errors and markers go to no worker and keep their position.
//! - A [`Queue`](queue::Queue) or a [`Feeder`](queue::Feeder) is for code that has items one at a time and no iterator.
//! - A [`pipeline`] is several of these in a row, each stage with a name.
//! - A [`checkpoint`] lets the next run continue where this one ends, however it ends.
//! - An [`Error`] concerns one item, or is fatal and ends the feed.
//! - A [`Monitor`] reports, on any thread, what a feed is doing and what it waits for ([`watch`]); a
//!   [`Stopper`](policy::Stopper) ends it softly.
//!
//! # Which framing?
//!
//! By default each request and each reply is a line. If the tool may answer with no line or with several, or prints its
//! errors only on stderr, use a [sentinel](framing::ReplyFraming::sentinel): a mark after each reply proves which request it
//! belongs to. The tool must then answer a request before it reads the next; a sentinel does not work with tools that work
//! in a thread or in the background ([what it cannot detect](framing::Sentinel#what-no-mark-can-tell)). Feed a tool that
//! answers out of order, with ids, [one request at a time](Template::in_flight). [`framing`] has a table.
//!
//! The [cookbook] has a tested recipe for each kind of tool. `docs/watching.md` shows how to watch a run, and how to
//! continue one that was interrupted. `docs/reliability.md` lists what can go wrong, what you then see, how long it may
//! take, and the test for it.
//!
//! # Features
//!
//! Only `threads` is on by default.
//!
//! - `threads`: functions in the threads of rayon's pools, or of a scope: [`feed_threads`](FeedExt::feed_threads),
//!   [`in_threads`](FeedExt::in_threads), [`Queue::threads`](queue::Queue::threads), and the stages of a [`pipeline`] that
//!   run in threads. Without it four crates fewer are built, rayon among them.
//! - `function-source`: functions of your own program as sources, run in a child process that is this program again
//!   ([`source::Function`]).
//! - `async`: feeds as streams, streams as sources (`FeedStream`, `StreamFeedExt`), and pools of workers to call (`Pool`),
//!   in any runtime. One more crate, `futures-core`. `docs/async.md` says what runs where.
//! - `json`: `Template::json` writes items as JSON texts and reads replies as values.
//! - `tracing`: a span for each session, and in it an event for each change of the session's state, through the `tracing`
//!   crate, with the target `subfeed`. The span is called `session` and has the level `DEBUG`. Its fields are `worker`, `pid`,
//!   `session`, `command` and, at its end, `status`, `why`, `answered`. Its parent is the span in which the feed was started;
//!   it is never entered, because many are open at a time. The fields of an event are `worker`, `pid`, `session` (a number
//!   that is different for each process), `state`, and those in brackets. At `DEBUG`: `started` (`restart`), `ready` (the
//!   banner has ended), `answering` (the first reply has come), `closing` (`why`), `signalled` (`signal`), `exited`, `ended`
//!   (`status`, `why`, `answered`, `owed`), `backed off` (`wait_ms`). At `WARN`: `stalled` (`owed`, `hint`), `abandoned`
//!   (it was killed and did not end), `gave up` (`sessions`).
//! - `timeline`: a bounded recording of what every worker did, written as a Chrome trace:
//!   `FeedBuilder::timeline` and `Monitor::timeline`.
//!
//! # When to use something else
//!
//! For a function instead of a program, rayon's parallel iterators are simpler if the input is finite and the results fit
//! in memory. To run one command on one file, use [`Command`](std::process::Command).
//!
//! # How it works
//!
//! One thread pulls the source, one thread serves all children, and the caller's thread takes the replies. The event loop
//! polls all pipes. A state machine without I/O decides what it does, and is tested by simulation. Records pass from thread
//! to thread in batches: records that have gathered while the other side was busy travel together, and no record waits for a
//! batch to fill.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod checkpoint;
#[cfg(doctest)]
mod compile_fail;
#[cfg(any(doc, doctest))]
pub mod cookbook;
mod error;
mod ext;
mod feed;
mod files;
pub mod framing;
pub mod marker;
#[cfg_attr(not(feature = "threads"), allow(dead_code, reason = "most stages are threads"))]
pub mod pipeline;
#[cfg(feature = "async")]
mod pool;
pub mod queue;
#[cfg(doctest)]
mod readme;
pub mod launcher {
    //! How a [`Launcher`](crate::Launcher) of your own passes on words, environment and directory.

    pub use crate::template::launcher::{Carry, Quoting};
}
mod record;
mod signal;
pub mod source;
mod stats;
#[cfg(feature = "async")]
mod stream;
mod subprocess;
mod sync;
mod template;
#[cfg(feature = "threads")]
mod threads;
mod tuning;
pub mod watch;
#[cfg_attr(not(feature = "threads"), allow(dead_code, reason = "shelves and help are for threads"))]
mod window;

pub use bstr::{BStr, BString, ByteSlice};

pub use crate::error::{BoxError, Error, ErrorKind};
pub use crate::ext::FeedExt;
pub use crate::feed::Feed;
pub use crate::feed::blocks::{Block, blocks};
pub use crate::feed::builder::FeedBuilder;
pub use crate::feed::through::TryFeed;
pub use crate::feed::with_input::{FeedWithInput, InputError};
#[cfg(feature = "async")]
pub use crate::pool::Pool;
pub use crate::stats::{Monitor, Snapshot};
#[cfg(feature = "async")]
pub use crate::stream::FeedStream;
#[cfg(feature = "async")]
pub use crate::stream::ext::StreamFeedExt;
pub use crate::template::Template;
pub use crate::template::codec::{Reply, Request};
#[cfg(fuzzing)]
#[doc(hidden)]
pub use crate::template::command::replaced;
pub use crate::template::launcher::{Host, Launcher};
#[cfg(feature = "threads")]
pub use crate::threads::{FeedThreads, ThreadsBuilder};
pub use crate::window::outlet::Order;

/// The types of a feed that yields [`Block`]s.
pub mod block {
    pub use crate::feed::blocks::{BlockFeed, BlockFeedBuilder, BlockStopper, Blocks};
}

/// Where the streams of a worker lead, and how a request reaches a side input.
pub mod channel {
    pub use crate::template::channel::{LineBuffered, Redirect};
    pub use crate::template::codec::Side;
}

/// How items become requests and replies become values: the type parameters of a [`Template`].
///
/// Name these types where a template is a parameter or a field. Closures are given with
/// [`Template::encode`], [`Template::decode`] and their fallible forms.
pub mod codec {
    pub use crate::template::codec::{
        AsBytes, Decode, DecodeFn, Encode, EncodeFn, Owned, Text, TryDecodeFn, TryEncodeFn,
    };
    #[cfg(feature = "json")]
    pub use crate::template::json::{FromJson, ToJson};
}

/// The report of a feed whose output goes to files: see [`FeedBuilder::drain`].
pub mod drain {
    pub use crate::feed::drained::{Drained, Exit};
}

/// Policies of a template: what to do at a failure, a stall or a limit.
pub mod policy {
    pub use crate::error::Limit;
    pub use crate::feed::stopper::Stopper;
    pub use crate::signal::Signal;
    pub use crate::template::policy::{Halt, OnStall};
}

/// Feeds inside a [`std::thread::scope`], whose sources and closures may borrow.
pub mod scope {
    pub use crate::feed::Scoped;
    #[cfg(feature = "threads")]
    pub use crate::threads::{InPool, InScope, RunsIn};
}
