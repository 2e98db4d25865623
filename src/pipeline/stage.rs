//! The options of one stage.

use std::fmt;
use std::sync::Arc;

use super::flow::StageError;
use crate::error::Error;
use crate::window::workers::Workers;

/// The name and the options of one stage of a [`Pipeline`](super::Pipeline).
///
/// | option | default |
/// |---|---|
/// | [`workers`](Stage::workers) | the number of processors |
/// | [`buffer`](Stage::buffer) | 64 items |
/// | [`retries`](Stage::retries) | 0 |
///
/// Every method that takes a stage also takes a `&str`, for a stage with this name and the defaults.
///
/// ```
/// use subfeed::pipeline::Stage;
/// let stage = Stage::new("fetch").workers(8).buffer(100).retries(2);
/// assert_eq!(stage.name(), "fetch");
/// ```
#[must_use = "a stage does nothing by itself: give it to a pipeline"]
pub struct Stage {
    pub(super) name: Arc<str>,
    pub(super) workers: usize,
    pub(super) buffer: usize,
    pub(super) retries: u32,
    pub(super) on_end: Option<Box<dyn FnOnce() + Send>>,
    /// What is wrong with the step itself.
    problem: Option<&'static str>,
}

impl Stage {
    /// A stage with this name, which its errors and its counts carry.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            workers: Workers::default().number(),
            buffer: 64,
            retries: 0,
            on_end: None,
            problem: None,
        }
    }

    /// The number of workers: how many items the stage processes at a time, each in a thread or in a subprocess.
    pub fn workers(mut self, n: usize) -> Self {
        self.workers = n;
        self
    }

    /// The window: how many items the stage may have taken whose results the next stage has not taken. The look-ahead of
    /// a pipeline is the sum of its windows.
    pub fn buffer(mut self, items: usize) -> Self {
        self.buffer = items;
        self
    }

    /// How often an item is tried again after [`try_map`](super::Pipeline::try_map)'s closure has failed. It has
    /// `1 + retries` attempts, one after the other in the same worker, so it keeps its position. A stage in subprocesses
    /// uses the template's [`retries`](crate::Template::retries) instead.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Calls `hook` once when the stage has ended: after its last result, or when the pipeline is dropped.
    ///
    /// It runs on the thread that takes the stage's results. If it panics after the last result, the panic reaches the
    /// consumer; if it panics during a drop, the panic is ignored.
    ///
    /// There is no hook for the start, because the call that adds the stage starts it. For a worker's own start and end,
    /// use its state: see [`map_init`](super::Pipeline::map_init).
    pub fn on_end(mut self, hook: impl FnOnce() + Send + 'static) -> Self {
        self.on_end = Some(Box::new(hook));
        self
    }

    /// Says what is wrong with the step that it is for.
    pub(super) fn refuse(&mut self, problem: &'static str) {
        self.problem = Some(problem);
    }

    /// What is wrong with its numbers.
    pub(super) fn validate(&self) -> Result<(), StageError> {
        let problem = match (self.problem, self.workers, self.buffer) {
            (Some(problem), ..) => problem,
            (_, 0, _) => "a stage needs at least one worker, and has 0",
            (.., 0) => "a stage needs room for at least one item, and its buffer is 0",
            _ => return Ok(()),
        };
        Err(StageError::refused(&self.name, 1, Error::config(problem).into()))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl From<&str> for Stage {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage")
            .field("name", &self.name)
            .field("workers", &self.workers)
            .field("buffer", &self.buffer)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}
