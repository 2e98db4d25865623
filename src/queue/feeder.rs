//! Pushing items at workers that answer nothing here, until a scope ends.

use std::fmt;
use std::thread::{self, JoinHandle};

use super::inlet::{Inlet, Producer, Stopped, inlet};
use crate::error::Error;
use crate::ext::FeedExt;
use crate::feed::drained::Drained;
use crate::template::Template;
use crate::template::codec::{Decode, Encode};
use crate::window::{joins, unwind};

/// Feeds workers from code that has items one at a time and no iterator of them. When it is finished or dropped, all
/// items have been processed and every worker has exited.
///
/// It is for workers whose output goes to files, as with [`FeedBuilder::drain`](crate::FeedBuilder::drain). If replies
/// come back, use a [`Queue`](crate::queue::Queue).
///
/// ```
/// use subfeed::channel::Redirect;
/// use subfeed::queue::Feeder;
/// use subfeed::Template;
/// let dir = std::env::temp_dir().join(format!("subfeed-feeder-{}", std::process::id()));
/// std::fs::create_dir_all(&dir).unwrap();
/// let template = Template::new("cat").stdout(Redirect::file(dir.join("{id}.out")));
/// let feeder = Feeder::new(template, 2, 100);
/// for n in 0..10 {
///     feeder.feed(n.to_string()).unwrap();
/// }
/// let drained = feeder.finish().unwrap();
/// assert!(drained.all_ended_well());
/// assert_eq!(drained.accepted.iter().sum::<u64>(), 10);
/// # std::fs::remove_dir_all(&dir).unwrap();
/// ```
///
/// # Dropping
/// [`finish`](Feeder::finish) returns a report. Dropping the feeder does the same without a report; but if a panic unwinds,
/// items that are still in the inlet are not fed. Both wait for the workers without a time limit, unless
/// [`Template::end_timeout`](crate::Template::end_timeout) sets one. A feeder that is dropped inside a feed (by its source,
/// `encode` or `check`) does not wait.
#[must_use = "a feeder that is dropped at once feeds nothing"]
pub struct Feeder<T> {
    producer: Producer<T>,
    drain: Option<Drain>,
}

type Drain = Result<JoinHandle<Result<Drained, Error>>, Error>;

impl<T: Send + 'static> Feeder<T> {
    /// Starts `n` workers and returns at once. Up to `buffer_size` items may have been pulled and not yet processed, and as
    /// many again may wait in the inlet before [`feed`](Feeder::feed) blocks.
    ///
    /// If the template, `n` or `buffer_size` is wrong, [`finish`](Feeder::finish) returns the error.
    pub fn new<E, D>(template: Template<E, D>, n: usize, buffer_size: usize) -> Self
    where
        E: Encode<T> + 'static,
        D: Decode + 'static,
    {
        // No room at all is an error of the feed, so the inlet has room for the item that is to be refused.
        Self::with(buffer_size.max(1), move |items| {
            items.feed(template).workers(n).buffer(buffer_size).drain()
        })
    }

    /// The same with every option of the builder: `drain` gets the items of an inlet, makes a feed of them and drains it.
    /// It runs on a thread of its own.
    ///
    /// # Panics
    /// If `capacity` is 0, as [`inlet`] does.
    #[track_caller]
    pub fn with<F>(capacity: usize, drain: F) -> Self
    where
        F: FnOnce(Inlet<T>) -> Result<Drained, Error> + Send + 'static,
    {
        let (producer, items) = inlet(capacity);
        let thread = thread::Builder::new().name("subfeed-feeder".to_owned());
        let drain = thread
            .spawn(move || drain(items))
            .map_err(|error| Error::no_thread("a thread of the feeder cannot be started", error));
        Self { producer, drain: Some(drain) }
    }
}

impl<T> Feeder<T> {
    /// Feeds an item, and waits for room if there is none.
    ///
    /// # Errors
    /// If the feed has ended early; [`finish`](Feeder::finish) returns the reason. The error holds the item.
    pub fn feed(&self, item: T) -> Result<(), Stopped<T>> {
        self.producer.put(item)
    }

    /// A handle that feeds from another thread. [`finish`](Feeder::finish) does not wait until it is dropped.
    pub fn producer(&self) -> Producer<T> {
        self.producer.clone()
    }

    /// Waits until all items have been fed and every worker has exited, and returns a report. No more items can be fed.
    ///
    /// # Errors
    /// The fatal error that ended the feed.
    ///
    /// # Panics
    /// If `encode`, [`accept_status`](Template::accept_status) or [`on_stderr`](Template::on_stderr) panicked, with the same
    /// payload.
    pub fn finish(mut self) -> Result<Drained, Error> {
        self.producer.stop();
        match self.drain.take().expect("it is taken once") {
            Ok(thread) => thread.join().unwrap_or_else(|payload| unwind::resume(payload)),
            Err(error) => Err(error),
        }
    }
}

impl<T> Drop for Feeder<T> {
    fn drop(&mut self) {
        self.producer.stop();
        if thread::panicking() {
            let _ = unwind::catch(|| drop(self.producer.take_back()));
        }
        // A thread of ours may be what the drain waits for.
        if let Some(Ok(thread)) = self.drain.take()
            && !joins::is_ours()
        {
            let _ = thread.join();
        }
    }
}

impl<T> fmt::Debug for Feeder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feeder").field("producer", &self.producer).finish_non_exhaustive()
    }
}
