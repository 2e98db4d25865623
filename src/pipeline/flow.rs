//! What travels through a pipeline: items, markers, and the failures of items on their way out.

use std::any::Any;
use std::error;
use std::fmt;
use std::sync::Arc;

use crate::error::{BoxError, Error, causes};
use crate::window::unwind;

/// Work is `Ok`; what no stage touches is `Err`, which is how the executors let it pass.
pub(super) type Flow<T, M> = Result<T, Pass<M>>;

/// What keeps its place and is no work.
#[derive(Debug)]
pub(super) enum Pass<M> {
    Marker(M),
    Failed(StageError),
}

/// What a stage of subprocesses lets pass, or its own errors, whose stage is still to be named.
#[derive(Debug)]
pub(super) enum Unnamed<M> {
    Pass(Pass<M>),
    Worker(Error),
}

impl<M> From<Error> for Unnamed<M> {
    fn from(error: Error) -> Self {
        Self::Worker(error)
    }
}

/// An item that a stage of a pipeline could not process.
///
/// It comes out at the item's position. `Display` prints the stage and the cause, so `source()` is `None`.
/// [`cause`](StageError::cause) returns the cause as a value: the error of the stage's closure, or the [`Error`] of a
/// worker process.
#[derive(Debug)]
pub struct StageError {
    stage: Arc<str>,
    attempts: u32,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Refused(BoxError),
    Panicked(String),
    Worker(Error),
}

impl StageError {
    pub(super) fn refused(stage: &Arc<str>, attempts: u32, cause: BoxError) -> Self {
        Self { stage: Arc::clone(stage), attempts, cause: Cause::Refused(cause) }
    }

    pub(super) fn panicked(stage: &Arc<str>, payload: &(dyn Any + Send)) -> Self {
        let message = unwind::message(payload);
        Self { stage: Arc::clone(stage), attempts: 1, cause: Cause::Panicked(message) }
    }

    pub(super) fn worker(stage: &Arc<str>, error: Error) -> Self {
        let attempts = error.attempts().max(1);
        Self { stage: Arc::clone(stage), attempts, cause: Cause::Worker(error) }
    }

    /// The name of the stage.
    #[must_use]
    pub fn stage(&self) -> &str {
        &self.stage
    }

    /// How many attempts the stage has made.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether the stage's closure panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        matches!(self.cause, Cause::Panicked(_))
    }

    /// The error of the stage's closure, or the [`Error`] of the worker process; `None` after a panic.
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn error::Error + Send + Sync + 'static)> {
        match &self.cause {
            Cause::Refused(error) => Some(&**error),
            Cause::Panicked(_) => None,
            Cause::Worker(error) => Some(error),
        }
    }

    /// The error of the worker process, if the stage runs in subprocesses.
    #[must_use]
    pub fn as_worker(&self) -> Option<&Error> {
        match &self.cause {
            Cause::Worker(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage `{}`: ", self.stage)?;
        match &self.cause {
            Cause::Refused(error) => f.write_str(&causes(&**error))?,
            Cause::Panicked(message) => write!(f, "panicked: {message}")?,
            Cause::Worker(error) => write!(f, "{error}")?,
        }
        if self.attempts > 1 {
            write!(f, " (after {} attempts)", self.attempts)?;
        }
        Ok(())
    }
}

/// There is no [`source`](error::Error::source), because `Display` prints the cause.
impl error::Error for StageError {}
