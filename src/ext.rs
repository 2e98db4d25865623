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

/// An iterator that another thread can pull. Every `Iterator + Send` is one; the trait exists for its error message.
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
/// A thread of the feed pulls the source, so the source must be `Send`, and it must own what it iterates over. Two
/// common sources need a small change:
///
/// - Lines of stdin. `stdin().lines()` holds a lock that cannot move to another thread; a `BufReader` around
///   `stdin()` can. Its lines are `Result`s, which [`try_feed`](FeedExt::try_feed) takes. Cut at `b'\n'`, a line
///   need not be UTF-8:
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
/// - Iterators that borrow, such as `words.iter()`. Feed them inside a scope, with
///   [`FeedBuilder::start_scoped`](crate::FeedBuilder::start_scoped).
///
/// The template turns each item into a request. Without [`encode`](Template::encode) an item must be bytes (`String`,
/// `&str`, `Vec<u8>`, any `AsRef<[u8]>`), and must not contain the delimiter that the framing adds.
pub trait FeedExt: Iterator + Sized {
    /// Starts now: streams the items through `n` persistent workers and yields the replies as they complete.
    ///
    /// Returns at once. At most `buffer_size` inputs are pulled and not yet yielded. The item is
    /// `Result<D::Output, Error>`: see [`Feed`].
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
    /// Returns at once. Input `k + buffer_size` is not pulled before output `k` has been yielded. So this works on
    /// infinite inputs, and a consumer that pauses stops the input. The item is `Result<D::Output, Error>`: see [`Feed`].
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
    /// Returns at once. At most `buffer_size` inputs are pulled and not yet yielded.
    ///
    /// ```
    /// use subfeed::FeedExt;
    /// let sum: u64 = (1..=100u64).feed_threads(|n| n * n, 4, 10).sum();
    /// assert_eq!(sum, 338_350);
    /// ```
    ///
    /// # Panics
    /// See [`ThreadsBuilder`].
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
    /// Returns at once. Input `k + buffer_size` is not pulled before output `k` has been yielded. So this works on
    /// infinite inputs, and a consumer that pauses stops the input.
    ///
    /// ```
    /// use subfeed::FeedExt;
    /// let squares: Vec<_> = (1u64..).feed_threads_ordered(|n| n * n, 4, 10).take(5).collect();
    /// assert_eq!(squares, [1, 4, 9, 16, 25]);
    /// ```
    ///
    /// rayon alone needs the whole input and all results in memory, and never returns on an infinite input:
    ///
    /// ```
    /// use rayon::prelude::*;
    /// let squares: Vec<u64> = (1..=5u64).collect::<Vec<_>>().into_par_iter().map(|n| n * n).collect();
    /// assert_eq!(squares, [1, 4, 9, 16, 25]);
    /// ```
    ///
    /// # Panics
    /// See [`ThreadsBuilder`].
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
    /// To map over several inputs, zip them first, with [`Iterator::zip`] or itertools' `izip!`; the closure then takes
    /// a tuple. As always with `zip`, the result ends with the shortest input, and an element that was already taken
    /// from an earlier input is lost.
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

    /// A builder for a feed, with every option at its default. Starts nothing.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let feed = ["a", "b"].into_iter().feed(Template::new("cat")).workers(2).buffer(100).start();
    /// assert_eq!(feed.collect::<Result<Vec<_>, _>>()?, ["a", "b"]);
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    fn feed<E, D>(self, template: Template<E, D>) -> FeedBuilder<Self, E, D> {
        FeedBuilder::new(self, template)
    }

    /// A builder for an iterator of `Result`s: each `Ok` is fed, and each `Err` is yielded at its position, unchanged.
    /// Starts nothing.
    ///
    /// With it a feed can follow anything that may fail, such as a reader or an earlier feed. All errors come out at the
    /// end of the chain, each where its item would have been. An `Err` goes to no worker; it counts in the window like
    /// any item. The feed is a [`TryFeed`], which yields `Result<D::Output, X>`. It converts its own errors into `X`, so
    /// `X` must be `From<Error>`, as `io::Error` and boxed errors are.
    ///
    /// [`FeedBuilder::keep_input`], [`FeedBuilder::drain`] and [`FeedBuilder::blocks`] are not available here, because
    /// an `Err` has no request. For threads see [`ThreadsBuilder::try_map`].
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

    /// A builder for an iterator that contains markers: each item is fed, and each marker is yielded at its position.
    /// Starts nothing.
    ///
    /// The feed is a [`MarkedFeed`], which yields `Marked<Result<D::Output, Error>, M>`. [`FeedBuilder::keep_input`],
    /// [`FeedBuilder::drain`] and [`FeedBuilder::blocks`] are not available here. For threads see
    /// [`ThreadsBuilder::map_marked`].
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
