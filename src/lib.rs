//! Stream any iterator through a swarm of persistent subprocesses.
//!
//! You have an iterator and a program: `jq`, `bc`, `exiftool`, `git cat-file`, `psql`, a model that takes
//! thirty seconds to load. This crate is the ordered parallel map between the two. The program is
//! started once per worker and stays; thousands of requests are in its pipe at a time; the replies come
//! back as a lazy iterator, in input order if you like, in bounded memory, on endless input.
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
//! By hand this is a process per record, or a thread per child that writes one record and waits for
//! one reply, at a fiftieth of the speed. With a program that buffers its output, both sides then wait for ever:
//!
//! ```no_run
//! # use std::io::{BufRead, Write};
//! # fn by_hand(child_in: &mut impl Write, child_out: &mut impl BufRead, records: Vec<String>) -> std::io::Result<()> {
//! for record in records {
//!     writeln!(child_in, "{record}")?;
//!     let mut reply = String::new();
//!     child_out.read_line(&mut reply)?; // `tr` prints nothing before the 590th record
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # The parts
//!
//! - [`FeedExt`] puts the methods on every iterator: [`feed_subprocesses`](FeedExt::feed_subprocesses),
//!   [`feed_subprocesses_ordered`](FeedExt::feed_subprocesses_ordered), and
//!   [`feed`](FeedExt::feed), the [`FeedBuilder`] that the two are short for.
//! - [`Template`] says what to run and how to talk to it: arguments, [framing], banners, side channels,
//!   policies.
//! - [`Feed`] is the iterator that comes back; [`FeedWithInput`] yields each input beside its reply, and [`FeedBuilder::blocks`] hands the
//!   replies out in whole [`Block`]s.
//! - [`blocks`] feeds the records of anything that reads (a file, standard input) and hands the replies out in whole
//!   [`Block`]s, at nearly the speed of a bare pipe.
//! - [`feed_threads`](FeedExt::feed_threads) and [`in_threads`](FeedExt::in_threads) do the same
//!   with a function, in the threads of a pool or a scope ([`ThreadsBuilder`], [`FeedThreads`]).
//! - [`try_feed`](FeedExt::try_feed) takes a source of `Result`s, and [`feed_marked`](FeedExt::feed_marked) one with
//!   [markers](marker) in it: errors and markers go to no worker, and keep their place.
//! - A [`Queue`](queue::Queue) or a [`Feeder`](queue::Feeder) is for code that has items one at a time and no iterator of them.
//! - A [`pipeline`] is several of these in a row, each stage with a name.
//! - A [`checkpoint`] lets the next run go on where this one ends, however it ends.
//! - An [`Error`] concerns one item, or is fatal and ends the feed.
//! - A [`Monitor`] says, on any thread, what a feed is doing and what it waits for ([`watch`]); a
//!   [`Stopper`](policy::Stopper) ends it softly.
//!
//! # Which framing?
//!
//! Line in, line out is the default. If the tool may answer with no line or with several, or prints its errors
//! on stderr only, use a [sentinel](framing::ReplyFraming::sentinel): a mark behind each reply proves which request it
//! belongs to. It needs a tool that answers a request before it reads the next, not one that works in a thread or in
//! the background ([what it cannot tell](framing::Sentinel#what-no-mark-can-tell)). Feed a tool that answers out of
//! order, by ids, [one request at a time](Template::in_flight). [`framing`] has a table.
//!
//! The [cookbook] has a tested recipe for each kind of tool.
//!
//! How a run is watched, and how it goes on where another one ended: `docs/watching.md`.
//!
//! What goes wrong, what is seen of it, and how long it may take: `docs/reliability.md`, with the test that
//! shows it for each fault.
//!
//! # Features
//!
//! `threads` alone is on by default.
//!
//! - `threads`: functions in the threads of rayon's pools, or of a scope: [`feed_threads`](FeedExt::feed_threads)
//!   and [`in_threads`](FeedExt::in_threads), [`Queue::threads`](queue::Queue::threads), and the stages of a [`pipeline`] that run
//!   in threads. Without it four crates fewer are built, rayon among them.
//! - `function-source`: functions of your own program as sources, run in a child that is the program again
//!   ([`source::Function`]).
//! - `async`: feeds as streams and of streams (`FeedStream`, `StreamFeedExt`), and pools of workers to call (`Pool`), in
//!   whichever runtime. One crate more, `futures-core`. `docs/async.md` says what runs where.
//! - `json`: `Template::json` writes items as JSON texts and reads replies as values.
//! - `tracing`: one span for each session, and in it one event for each change of its state, by way of the `tracing`
//!   crate. The target is `subfeed`. The span is named `session`, at `DEBUG`; its fields are `worker`, `pid`, `session`,
//!   `command`, and, when it has ended, `status`, `why`, `answered`. It is in the span in which the feed was started, and
//!   is never entered, since many are open at a time. An event's fields are `worker`, `pid`, `session` (a number of its own for each process), `state`
//!   and what belongs to it. At `DEBUG`: `started` (`restart`), `ready` (its banner is over), `answering`
//!   (the first reply), `closing` (`why`), `signalled` (`signal`), `exited`, `ended` (`status`, `why`,
//!   `answered`, `owed`), `backed off` (`wait_ms`). At `WARN`: `stalled` (`owed`, `hint`), `abandoned` (it
//!   was killed and did not end), `gave up` (`sessions`).
//! - `timeline`: a bounded recording of what every worker did, written as a Chrome trace:
//!   `FeedBuilder::timeline` and `Monitor::timeline`.
//!
//! # When to use something else
//!
//! For a function instead of a program, rayon's parallel iterators are simpler if the input is finite
//! and the results fit in memory. For one command over one file, a plain
//! [`Command`](std::process::Command) will do.
//!
//! # How it works
//!
//! One thread pulls the source, one serves all children, and the caller's takes the replies. The event loop
//! is one poller over all pipes; what it does is decided by a state machine without I/O, which is tested
//! by simulation. Records pass from thread to thread in batches: those that have gathered while the other side was
//! busy travel together, and no record waits for a batch to fill.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod checkpoint;
#[cfg(doctest)]
mod compile_fail;
#[cfg(any(doc, doctest))]
pub mod cookbook;
mod error;
mod ext;
mod feed;
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
    //! How a [`Launcher`](crate::Launcher) that is not among the known ones gets a command through.

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

/// The types of a feed of [`blocks`], and of one whose replies are [lent in batches](FeedBuilder::batches).
pub mod block {
    pub use crate::feed::blocks::{BlockFeed, BlockFeedBuilder, BlockStopper, Blocks};
    pub use crate::feed::{Batch, Batches};
}

/// What a template says about a worker's streams, and how a request reaches a side input.
pub mod channel {
    pub use crate::template::channel::{LineBuffered, Redirect};
    pub use crate::template::codec::Side;
}

/// How items become requests and replies become values: the type parameters of a [`Template`].
///
/// These types are named where a template is a parameter or a field; closures are given with
/// [`Template::encode`] and its like.
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

/// Policies of a template: what happens at a failure, a stall, a limit.
pub mod policy {
    pub use crate::error::Limit;
    pub use crate::feed::stopper::Stopper;
    pub use crate::signal::Signal;
    pub use crate::template::policy::{Halt, OnStall};
}

/// Feeds that stay in a [`std::thread::scope`], so that what they are given may borrow.
pub mod scope {
    pub use crate::feed::Scoped;
    #[cfg(feature = "threads")]
    pub use crate::threads::{InPool, InScope, RunsIn};
}
