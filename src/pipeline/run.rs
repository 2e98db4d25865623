//! The consumer's end of a pipeline.

use std::convert::Infallible;
use std::fmt;
use std::iter::FusedIterator;

use super::control::{Control, OnError, StageReport};
use super::flow::{Flow, Pass, StageError};
use crate::marker::Marked;

/// The results of a running pipeline, in the order of the source: a lazy, fused iterator.
///
/// Made by [`Pipeline::run`](super::Pipeline::run).
///
/// # Dropping
/// Dropping it stops every stage and ends the worker processes. Items that were pulled and not yielded are discarded.
/// Closures that are running finish first, because nothing can interrupt them.
///
/// # Panics
/// If the source or the `on_end` hook of a stage panics, `next` panics with the same payload. If the closure of a stage
/// panics, the item is an `Err` instead.
#[must_use = "a pipeline that is not iterated stops as soon as it is dropped"]
pub struct Run<T, M = Infallible> {
    /// `None` once it is over.
    flow: Option<Box<dyn Iterator<Item = Flow<T, M>> + Send>>,
    control: Control,
    on_error: OnError,
    done: Done,
}

#[derive(Clone, Copy, Debug, Default)]
struct Done {
    items: u64,
    markers: u64,
    failed: u64,
}

/// What a pipeline has done; see [`Run::finish`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Items that came out.
    pub items: u64,
    /// Markers that came out.
    pub markers: u64,
    /// The counts of each stage, in the order of the stages.
    pub stages: Vec<StageReport>,
}

impl<T, M> Run<T, M> {
    pub(super) fn new(flow: Box<dyn Iterator<Item = Flow<T, M>> + Send>, control: Control) -> Self {
        Self { flow: Some(flow), control, on_error: OnError::GoOn, done: Done::default() }
    }

    /// What to do when an item has failed, from the moment it is yielded. Default: [`OnError::GoOn`].
    pub fn on_error(mut self, what: OnError) -> Self {
        self.on_error = what;
        self
    }

    /// A handle that watches the pipeline and stops it, from any thread.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Runs the pipeline to its end, discards the results, and returns the counts.
    ///
    /// If you want the results, iterate instead. If the pipeline is to run by itself, call this on a thread of its own, and
    /// stop it with its [`control`](Run::control).
    ///
    /// # Errors
    /// The first failure, with its stage. [`on_error`](Run::on_error) decides about the other items. The counts are then in
    /// [`Control::stages`].
    ///
    /// # Panics
    /// As `next` does.
    pub fn finish(mut self) -> Result<Report, StageError> {
        let mut first = None;
        for result in &mut self {
            if let Err(error) = result {
                first.get_or_insert(error);
            }
        }
        match first {
            Some(error) => Err(error),
            None => Ok(Report {
                items: self.done.items,
                markers: self.done.markers,
                stages: self.control.stages(),
            }),
        }
    }
}

impl<T> Run<T> {
    /// The results of a pipeline without markers.
    ///
    /// ```
    /// use subfeed::pipeline::Pipeline;
    /// let squares: Vec<u64> = Pipeline::new(1..=3).map("square", |n| n * n).run().items().collect::<Result<_, _>>()?;
    /// assert_eq!(squares, [1, 4, 9]);
    /// # Ok::<(), subfeed::pipeline::StageError>(())
    /// ```
    pub fn items(self) -> impl FusedIterator<Item = Result<T, StageError>> + Send {
        self.map(|result| {
            result.map(|entry| match entry {
                Marked::Item(item) => item,
                Marked::Marker(never) => match never {},
            })
        })
    }
}

impl<T, M> Iterator for Run<T, M> {
    type Item = Result<Marked<T, M>, StageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(flowing) = self.flow.as_mut()?.next() else {
            self.flow = None;
            return None;
        };
        Some(match flowing {
            Ok(item) => {
                self.done.items += 1;
                Ok(Marked::Item(item))
            }
            Err(Pass::Marker(marker)) => {
                self.done.markers += 1;
                Ok(Marked::Marker(marker))
            }
            Err(Pass::Failed(error)) => {
                self.done.failed += 1;
                match self.on_error {
                    OnError::GoOn => {}
                    OnError::Stop => self.control.stop(),
                    OnError::Abort => self.flow = None,
                }
                Err(error)
            }
        })
    }
}

impl<T, M> FusedIterator for Run<T, M> {}

impl<T, M> fmt::Debug for Run<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("on_error", &self.on_error)
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}
