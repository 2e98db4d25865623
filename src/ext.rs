//! Methods on every iterator.

use crate::error::Error;
use crate::feed::Feed;
use crate::feed::builder::FeedBuilder;
use crate::feed::through::{MarkedFeed, TryFeed};
use crate::marker::Marked;
use crate::template::Template;
use crate::template::codec::{Decode, Encode};
#[cfg(feature = "threads")]
use crate::threads::{FeedThreads, ThreadsBuilder};
use crate::window::outlet::Order;

/// An iterator that another thread can pull: every `Iterator + Send` is one. It is there for its error message.
#[diagnostic::on_unimplemented(
    message = "this iterator cannot be pulled by a thread of its own, because it is not `Send`",
    label = "a feed pulls its source on a thread of its own",
    note = "`stdin().lines()` holds a lock: feed `BufReader::new(stdin()).split(b'\\n')` with `try_feed`",
    note = "in the place of an `Rc` or a `RefCell`, an `Arc` or a `Mutex` can be shared with another thread"
)]
pub trait SendIterator: Iterator + Send {}

// Otherwise the compiler speaks of what is not `Send` deep inside, and not of what to do.
#[diagnostic::do_not_recommend]
impl<I: Iterator + Send> SendIterator for I {}

/// Adds the feeding methods to every iterator.
///
/// The two three-argument methods are the common case; [`feed`](FeedExt::feed) gives the
/// [`FeedBuilder`] that they are short for.
///
/// # What can be a source
/// The source is pulled by a thread of its own, so it must be `Send` and own what it iterates over. Two
/// that are not so at first sight:
///
/// - The lines of stdin: `stdin().lines()` holds a lock, which stays on its thread. A reader does not. Its
///   lines are `Result`s, which [`try_feed`](FeedExt::try_feed) takes; a line that is not UTF-8 is fed like
///   any other:
///
///   ```no_run
///   use std::io::{BufRead, BufReader, stdin};
///   use subfeed::{FeedExt, Template};
///   let lines = BufReader::new(stdin()).split(b'\n');
///   for reply in lines.try_feed(Template::new("cat")).workers(2).buffer(100).start() {
///       println!("{}", reply?);
///   }
///   # Ok::<_, std::io::Error>(())
///   ```
/// - What borrows, as `words.iter()` does: feed it in a scope, with
///   [`FeedBuilder::start_scoped`](crate::FeedBuilder::start_scoped).
///
/// What becomes of an item is up to the template: without an [`encode`](Template::encode) it must be
/// bytes (`String`, `&str`, `Vec<u8>`, any `AsRef<[u8]>`), without the delimiter that the framing adds.
pub trait FeedExt: Iterator + Sized {
    /// Starts now: streams the items through `n` persistent workers and yields the replies as they complete.
    ///
    /// It returns at once. At most `buffer_size` inputs are pulled and not yet yielded.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let mut replies: Vec<_> = ["b", "a", "c"]
    ///     .into_iter()
    ///     .feed_subprocesses(Template::new("cat"), 3, 10)
    ///     .collect::<Result<_, _>>()?;
    /// replies.sort();
    /// assert_eq!(replies, ["a", "b", "c"]);
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    fn feed_subprocesses<E, D>(
        self,
        template: Template<E, D>,
        n: usize,
        buffer_size: usize,
    ) -> Feed<D>
    where
        Self: SendIterator + 'static,
        E: Encode<Self::Item> + 'static,
        D: Decode,
    {
        self.feed(template).workers(n).buffer(buffer_size).order(Order::Completion).start()
    }

    /// Starts now: streams the items through `n` persistent workers and yields the replies in input order.
    ///
    /// It returns at once. Input `k + buffer_size` is not pulled before output `k`
    /// has been yielded, so this works on infinite inputs, and a paused consumer stops the input.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let squares = (1u64..)
    ///     .map(|n| n.to_string())
    ///     .feed_subprocesses_ordered(Template::shell("while read n; do echo $((n * n)); done"), 4, 1_000)
    ///     .take(5)
    ///     .collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(squares, ["1", "4", "9", "16", "25"]);
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    fn feed_subprocesses_ordered<E, D>(
        self,
        template: Template<E, D>,
        n: usize,
        buffer_size: usize,
    ) -> Feed<D>
    where
        Self: SendIterator + 'static,
        E: Encode<Self::Item> + 'static,
        D: Decode,
    {
        self.feed(template).workers(n).buffer(buffer_size).order(Order::Input).start()
    }

    /// Starts now: maps the items in the threads of rayon's global pool, at most `n` at a time, and yields the
    /// results as they complete.
    ///
    /// It returns at once. At most `buffer_size` inputs are pulled and not yet yielded.
    ///
    /// ```
    /// use subfeed::FeedExt;
    /// let sum: u64 = (1..=100u64).feed_threads(|n| n * n, 4, 10).sum();
    /// assert_eq!(sum, 338_350);
    /// ```
    ///
    /// # Panics
    /// As [`ThreadsBuilder`].
    #[cfg(feature = "threads")]
    #[track_caller]
    fn feed_threads<U, F>(self, f: F, n: usize, buffer_size: usize) -> FeedThreads<Self::Item, U>
    where
        Self: SendIterator + 'static,
        Self::Item: Send + 'static,
        U: Send + 'static,
        F: Fn(Self::Item) -> U + Send + Sync + 'static,
    {
        self.in_threads().workers(n).buffer(buffer_size).order(Order::Completion).map(f)
    }

    /// Starts now: maps the items in the threads of rayon's global pool, at most `n` at a time, and yields the
    /// results in input order.
    ///
    /// It returns at once. Input `k + buffer_size` is not pulled before output `k`
    /// has been yielded, so this works on infinite inputs, and a paused consumer stops the input.
    ///
    /// ```
    /// use subfeed::FeedExt;
    /// let squares: Vec<_> = (1u64..).feed_threads_ordered(|n| n * n, 4, 10).take(5).collect();
    /// assert_eq!(squares, [1, 4, 9, 16, 25]);
    /// ```
    ///
    /// The same by hand holds everything in memory and does not end on an infinite input:
    ///
    /// ```
    /// use rayon::prelude::*;
    /// let squares: Vec<u64> = (1..=5u64).collect::<Vec<_>>().into_par_iter().map(|n| n * n).collect();
    /// assert_eq!(squares, [1, 4, 9, 16, 25]);
    /// ```
    ///
    /// # Panics
    /// As [`ThreadsBuilder`].
    #[cfg(feature = "threads")]
    #[track_caller]
    fn feed_threads_ordered<U, F>(
        self,
        f: F,
        n: usize,
        buffer_size: usize,
    ) -> FeedThreads<Self::Item, U>
    where
        Self: SendIterator + 'static,
        Self::Item: Send + 'static,
        U: Send + 'static,
        F: Fn(Self::Item) -> U + Send + Sync + 'static,
    {
        self.in_threads().workers(n).buffer(buffer_size).map(f)
    }

    /// A builder for maps in threads, with every option at its default. Starts nothing.
    ///
    /// Several inputs are zipped first, with [`Iterator::zip`] or, for more than two, itertools'
    /// `izip!`; the closure takes a tuple. Like every zip it ends with the shortest, and an element that
    /// was taken from an earlier input by then is lost.
    ///
    /// ```
    /// use itertools::izip;
    /// use subfeed::FeedExt;
    /// let volumes: Vec<u32> = izip!([1, 2, 3], [4, 5, 6], 7..)
    ///     .in_threads()
    ///     .map(|(x, y, z)| x * y * z)
    ///     .collect();
    /// assert_eq!(volumes, [28, 80, 162]);
    /// ```
    #[cfg(feature = "threads")]
    fn in_threads(self) -> ThreadsBuilder<Self> {
        ThreadsBuilder::new(self)
    }

    /// A builder with every option at its default. Starts nothing.
    fn feed<E, D>(self, template: Template<E, D>) -> FeedBuilder<Self, E, D> {
        FeedBuilder::new(self, template)
    }

    /// A builder for an iterator of `Result`s: what is `Ok` is fed, and an `Err` comes out in its place, as it is.
    /// Starts nothing.
    ///
    /// So a feed can stand behind anything that may fail, a reader or an earlier feed, and the errors of all of
    /// them come out at the end, each where its item would have been. An `Err` goes to no worker; it counts in the
    /// window like any item. The feed is a [`TryFeed`], which yields `Result<D::Output, X>`; errors of its own are
    /// converted, so `X` must be `From<Error>`, as `io::Error` and boxed errors are.
    ///
    /// An `Err` has no request, so [`FeedBuilder::keep_input`], [`FeedBuilder::drain`] and
    /// [`FeedBuilder::blocks`] cannot be used with it. For threads see [`ThreadsBuilder::try_map`].
    ///
    /// ```
    /// use subfeed::{BoxError, FeedExt, Template};
    /// fn number(text: &str) -> Result<&str, BoxError> {
    ///     text.parse::<u32>()?;
    ///     Ok(text)
    /// }
    /// let numbers = ["1", "two", "3"].into_iter().map(number);
    /// let mut feed = numbers.try_feed(Template::new("cat")).workers(2).start();
    /// assert_eq!(feed.next().unwrap().unwrap(), "1");
    /// assert!(feed.next().unwrap().unwrap_err().to_string().contains("invalid digit"));
    /// assert_eq!(feed.next().unwrap().unwrap(), "3");
    /// assert!(feed.next().is_none());
    /// ```
    fn try_feed<T, X, E, D>(
        self,
        template: Template<E, D>,
    ) -> FeedBuilder<Self, E, D, TryFeed<D, X>>
    where
        Self: Iterator<Item = Result<T, X>>,
        X: From<Error>,
    {
        FeedBuilder::new(self, template)
    }

    /// A builder for an iterator with markers in it: an item is fed, and a marker comes out in its place. Starts
    /// nothing.
    ///
    /// The feed is a [`MarkedFeed`], which yields `Marked<Result<D::Output, Error>, M>`.
    /// [`FeedBuilder::keep_input`], [`FeedBuilder::drain`] and [`FeedBuilder::blocks`] cannot be used with it. For threads see [`ThreadsBuilder::map_marked`].
    ///
    /// ```
    /// use subfeed::marker::Marked;
    /// use subfeed::{FeedExt, Template};
    /// let documents = ["a", "b"].map(Marked::Item).into_iter().chain([Marked::Marker(2)]);
    /// let mut feed = documents.feed_marked(Template::new("cat")).workers(2).start();
    /// assert_eq!(feed.next().unwrap().item().unwrap().unwrap(), "a");
    /// assert_eq!(feed.next().unwrap().item().unwrap().unwrap(), "b");
    /// assert_eq!(feed.next().unwrap().marker(), Some(2));
    /// ```
    fn feed_marked<T, M, E, D>(
        self,
        template: Template<E, D>,
    ) -> FeedBuilder<Self, E, D, MarkedFeed<D, M>>
    where
        Self: Iterator<Item = Marked<T, M>>,
    {
        FeedBuilder::new(self, template)
    }
}

impl<I: Iterator> FeedExt for I {}
