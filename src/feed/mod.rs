//! The returned iterators: replies one by one, or in blocks.

mod answers;
pub(crate) mod blocks;
pub(crate) mod builder;
pub(crate) mod drained;
pub(crate) mod launch;
mod scoped;
pub(crate) mod stopper;
pub(crate) mod through;
mod watched;
pub(crate) mod with_input;

#[cfg(feature = "threads")]
pub(crate) use self::answers::remaining;
pub(crate) use self::answers::{Answers, decoded};
use self::builder::Shape;
pub use self::scoped::Scoped;
pub(crate) use self::scoped::{Running, Stops};
use crate::error::Error;
use crate::record::PacketId;
use crate::template::codec::{Decode, Encode, Owned};
use crate::window::outlet::Outlet;
use crate::window::packing::Store;

/// What a feed is to those who look at its window.
pub(crate) trait HasOutlet {
    fn outlet(&self) -> &Outlet;
}

/// What every running feed can do beside being iterated. `$passed` says what failure an item is that was no work.
macro_rules! running {
    ([$($generic:ident),*] $feed:ty, $name:literal, $failure:ty, {$($bounds:tt)*},
        |$store:pat_param, $packet:pat_param| $passed:expr) => {
        impl<$($generic),*> $feed {
            /// A handle that reports, from any thread and at any time, how the feed is doing.
            pub fn monitor(&self) -> $crate::Monitor {
                self.answers.monitor()
            }

            /// A handle that ends the feed softly, from any thread: no more input is pulled, and every input that was
            /// pulled is answered.
            #[must_use]
            pub fn stopper(&self) -> $crate::policy::Stopper {
                self.answers.stopper.clone()
            }

            /// Discards the remaining items, waits until every child has exited, and returns the counters of the run.
            ///
            /// With an endless source this never returns. Drop such a feed instead, or [stop](Self::stopper) it
            /// first.
            ///
            /// # Errors
            /// The first error among the remaining items; or else an error that belongs to no packet, such as a bad
            /// exit status after the last answer.
            pub fn finish(self) -> Result<$crate::Snapshot, $failure>
            where
                $($bounds)*
            {
                let Self { answers, store } = self;
                answers.finish(|$packet| {
                    let $store = &store;
                    $passed
                })
            }
        }

        impl<$($generic),*> $crate::feed::Stops for $feed {
            fn stopper(&self) -> $crate::policy::Stopper {
                self.stopper()
            }
        }

        impl<$($generic),*> $crate::feed::Running for $feed
        where
            $($bounds)*
        {
            type Failure = $failure;
            fn monitor(&self) -> $crate::Monitor {
                self.monitor()
            }
            fn finish(self) -> Result<$crate::Snapshot, $failure> {
                self.finish()
            }
            fn is_ready_before(&mut self, deadline: std::time::Instant) -> bool {
                self.answers.is_ready_before(deadline)
            }
        }

        impl<$($generic),*> $crate::feed::HasOutlet for $feed {
            fn outlet(&self) -> &$crate::window::outlet::Outlet {
                &self.answers.outlet
            }
        }

        #[cfg(feature = "async")]
        impl<$($generic),*> $feed {
            /// The same feed as a stream, for async programs; see [`FeedStream`](crate::FeedStream).
            ///
            /// The source is still an iterator and is pulled on a thread of the feed, so it may block. If the source is
            /// a stream, use [`StreamFeedExt`](crate::StreamFeedExt) instead.
            pub fn into_stream(self) -> $crate::FeedStream<Self>
            where
                Self: Iterator,
                $($bounds)*
            {
                $crate::FeedStream::new(self)
            }
        }

        #[cfg(feature = "async")]
        impl<$($generic),*> $crate::stream::sealed::PollFeed for $feed
        where
            Self: Iterator,
            $($bounds)*
        {
            $crate::stream::polls_outlet!(|feed| feed.answers.outlet);
        }

        #[cfg(feature = "async")]
        impl<$($generic),*> $crate::stream::sealed::Watched for $feed
        where
            Self: Iterator,
            $($bounds)*
        {
            type Failure = $failure;

            fn take_outcome(&mut self) -> Option<Option<$failure>> {
                use $crate::window::outlet::Given;
                let Self { answers, store } = self;
                let ($packet, given) = answers.outlet.next()?;
                let $store = &*store;
                Some(match given {
                    Given::Failed(error) => Some(error.into()),
                    Given::Passed => $passed,
                    Given::Reply(_) => None,
                })
            }

            fn take_remark(&mut self) -> Option<$failure> {
                self.answers.outlet.take_remarks().into_iter().next().map(Into::into)
            }

            fn monitor(&self) -> $crate::Monitor {
                self.monitor()
            }

            fn stopper(&self) -> $crate::policy::Stopper {
                self.stopper()
            }
        }

        impl<$($generic),*> std::iter::FusedIterator for $feed where Self: Iterator {}

        impl<$($generic),*> std::fmt::Debug for $feed {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.answers.fmt($name, f)
            }
        }
    };
}
pub(crate) use running;

/// The replies of a running feed: a lazy, fused iterator of `Result<D::Output, Error>`.
///
/// Without a `decode` the item is `Result<BString, Error>`.
///
/// Made by [`FeedExt`](crate::FeedExt) and [`FeedBuilder::start`](crate::FeedBuilder::start). It yields exactly
/// one item for each input, `Ok` or `Err`; [`Error`] describes the two kinds of errors.
///
/// # As a source
/// A feed may be the source of another one. When that one is stopped or dropped, a `next()` of this feed that waits on its
/// behalf returns `None`. If it was only borrowed (`by_ref()` and a scope, or a lock), what is left in it can be taken after
/// that, although an iterator that is fused gives nothing after `None` otherwise.
///
/// # Look-ahead
/// `next()` moves the window. In input order, input `k + buffer_size` is not pulled before the call of `next()` that
/// yields output `k`. In completion order, at most `buffer_size` inputs are pulled and not yet yielded, plus one for
/// a `next()` that has found its item and not yet returned. `decode` runs after that, on the caller's thread; the
/// source is meanwhile pulled for the room that was made.
///
/// # Size hint
/// `size_hint` is that of the source at the call, less the number of items yielded. So `collect` reserves what it needs,
/// and a progress bar can show the remaining work (indicatif's `try_progress()`). A fatal error makes the feed yield
/// fewer items, so after the first one only the upper bound holds. For an endless source (a lower bound of
/// `usize::MAX`) the lower bound is 0 from the start, because a fatal error may end any feed. `collect::<Vec<_>>()` on an
/// endless source fills the memory, as with any iterator; `take`, `collect::<Result<Vec<_>, _>>()`, which stops at the
/// first error, or [`Template::halt`](crate::Template::halt) bound it.
///
/// # Dropping
/// Dropping the feed stops the pulling, ends the children and reaps them, whatever they are doing, within 500 ms plus
/// the kill sequence. It never panics. It also joins the thread that pulls the source, unless that thread is inside the
/// source's own `next()` (or `encode`, or the source's `Drop`), which nothing can interrupt: the thread then ends when
/// that call returns.
///
/// A feed may be dropped anywhere, also by its own source, by `encode` or by `check`. Inside its own source, and inside
/// the `check` of any feed, the drop returns at once and the rest happens in the background, within the same time;
/// otherwise the drop would wait for the thread that it runs on.
///
/// # Panics
/// If the source, `encode`, `check`, [`accept_status`](crate::Template::accept_status) or a custom framing panics, `next`
/// panics with the same payload at the position of the item concerned, and the feed has ended. (In completion order, this
/// comes after all other items that were pulled.) A panic of [`on_stderr`](crate::Template::on_stderr) concerns no item: it
/// ends the feed after the items that were answered before.
/// A panic of `decode` passes through `next`; only its item is lost.
#[must_use = "a feed that is not iterated stops as soon as it is dropped"]
pub struct Feed<D = Owned> {
    answers: Answers<D>,
    store: (),
}

impl<D: Decode> Iterator for Feed<D> {
    type Item = Result<D::Output, Error>;

    #[inline]
    fn next(&mut self) -> Option<Result<D::Output, Error>> {
        let (packet, answer) = self.answers.next()?;
        Some(answer.of_work(packet))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.answers.size_hint()
    }
}

running!([D] Feed<D>, "Feed", Error, {}, |_store, _packet| None);

impl<T, E: Encode<T>, D: Decode> Shape<T, E, D> for Feed<D> {
    type Encode = E;
    type Store = ();
    fn encode(encode: E) -> E {
        encode
    }
    fn store(_first: PacketId) {}
    fn of(answers: Answers<D>, (): ()) -> Self {
        Self { answers, store: () }
    }
}

/// Nothing is kept.
impl<T> Store<T> for () {
    #[inline]
    fn passes(&self, _item: &T) -> bool {
        false
    }
    #[inline]
    fn put(&self, _item: T) {}
}
