//! A child, over all its passes, as the consumer sees it.

use std::ffi::OsStr;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::source::function::board::{Board, Caller};
use crate::source::function::pass::Pass;
use crate::source::function::protocol::{self, Command, Opening};
use crate::source::function::session::Session;
use crate::source::function::{LEAVE_GRACE, registry, this_program};
use crate::source::solo::{self, Plan};
use crate::subprocess::readiness::Readiness;
use crate::template::channel::Redirect;
use crate::template::policy::Signal;
use crate::template::{Spec, Template};
use crate::window::joins::ExecutorThread;
use crate::window::outlet::Outlet;
use crate::window::seam::Bounds;

/// A function that runs in a child, to be iterated again and again; made by
/// [`Function::iterate_in_subprocess`](crate::source::Function::iterate_in_subprocess).
///
/// The options apply to the next child: set them before the first pass, or before
/// [`restart`](FunctionSource::restart).
///
/// Dropping it ends the child: it is asked to end, and after [`end_timeout`](FunctionSource::end_timeout) gets the
/// [kill sequence](FunctionSource::kill_sequence). By default that takes at most 1.2 s, and usually next to no time.
#[must_use = "a source does nothing before it is iterated"]
pub struct FunctionSource<T> {
    name: &'static str,
    argument: Result<Vec<u8>, postcard::Error>,
    buffer_size: usize,
    max_bytes: usize,
    template: Template,
    running: Option<Running>,
    /// Of the last pass. Never twice the same.
    generation: u64,
    items: PhantomData<fn() -> T>,
}

/// A child, and the thread that keeps it.
struct Running {
    /// `None` only while it is being dropped.
    caller: Option<Caller>,
    /// `None` if it could not be started.
    thread: Option<ExecutorThread>,
}

impl Running {
    fn caller(&self) -> &Caller {
        self.caller.as_ref().expect("it is there until the drop")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.caller = None;
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

impl<T> FunctionSource<T> {
    pub(super) fn new(
        name: &'static str,
        argument: Result<Vec<u8>, postcard::Error>,
        template: Template,
        buffer_size: usize,
    ) -> Self {
        Self {
            name,
            argument,
            buffer_size,
            max_bytes: 64 << 20,
            template,
            running: None,
            generation: 0,
            items: PhantomData,
        }
    }
}

/// Options.
impl<T> FunctionSource<T> {
    /// How many bytes of items may be held for the consumer before no more are read. Default: 64 MiB. A larger item is
    /// handled alone.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// The largest item in bytes, serialized. Default: 64 MiB; always less than 4 GiB. A larger item is an `Err` of kind
    /// [`ErrorKind::Encode`](crate::ErrorKind::Encode) at its position.
    pub fn item_limit(self, bytes: usize) -> Self {
        self.with(|template| template.reply_limit(bytes))
    }

    /// The time limit for the initializers and the function, counted from the start of the child. Default: none; then
    /// [`idle_timeout`](FunctionSource::idle_timeout) applies. `None` removes the limit.
    pub fn start_timeout(self, limit: impl Into<Option<Duration>>) -> Self {
        self.with(|template| template.start_timeout(limit))
    }

    /// The time limit for each item and for the end of a pass: how long the child may send nothing although there is room
    /// for an item. The time in which the consumer takes nothing does not count. Default: none. `None` removes the limit.
    pub fn idle_timeout(self, limit: impl Into<Option<Duration>>) -> Self {
        self.with(|template| template.idle_timeout(limit))
    }

    /// How long a child that is to end may take to drop what it holds, before the kill sequence begins. Default: 1 s.
    /// `None`: no limit. The child keeps this limit by itself if this process has ended.
    pub fn end_timeout(self, limit: impl Into<Option<Duration>>) -> Self {
        self.with(|template| template.end_timeout(limit))
    }

    /// How a child that does not end is killed; see [`Template::kill_sequence`].
    pub fn kill_sequence(
        self,
        kill_sequence: impl IntoIterator<Item = (Signal, Duration)>,
    ) -> Self {
        self.with(|template| template.kill_sequence(kill_sequence))
    }

    /// Sets an environment variable for the child.
    pub fn env(self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.with(|template| template.env(name, value))
    }

    /// Redirects the child's stdout. By default it is that of this process.
    pub fn stdout(self, to: Redirect) -> Self {
        self.with(|template| template.stdout(to))
    }

    /// Redirects the child's stderr; [`Redirect::Inherit`] shows it. By default it is read, and its first and last 4 KiB are
    /// part of the errors.
    pub fn stderr(self, to: Redirect) -> Self {
        self.with(|template| template.stderr(to))
    }

    fn with(mut self, change: impl FnOnce(Template) -> Template) -> Self {
        self.template = change(self.template);
        self
    }
}

impl<T> FunctionSource<T> {
    /// Starts the child, if there is none, and does not wait until it is initialized.
    pub fn start(&mut self) -> &mut Self {
        self.running();
        self
    }

    /// Starts the child, if there is none, and waits until it is initialized.
    ///
    /// # Errors
    /// The error with which every pass would begin: an initializer or the function failed, or took too long.
    pub fn wait_until_ready(&mut self) -> Result<(), Error> {
        self.running().caller().wait_until_ready()
    }

    /// Ends the child. The next pass, or [`start`](FunctionSource::start), starts a new one, with no state of the old one.
    pub fn restart(&mut self) {
        self.running = None;
    }

    fn running(&mut self) -> &Running {
        if self.running.is_none() {
            self.running = Some(self.launch());
        }
        self.running.as_ref().expect("it has just been put there")
    }

    fn launch(&self) -> Running {
        let board = Arc::new(Board::default());
        match self.try_launch(&board) {
            Ok((poller, thread)) => {
                let caller = Caller::new(board, move || poller.wake());
                Running { caller: Some(caller), thread: Some(thread) }
            }
            Err(error) => {
                board.seal(error);
                Running { caller: Some(Caller::new(board, || {})), thread: None }
            }
        }
    }

    fn opening(&self, spec: &Spec) -> Result<Vec<u8>, Error> {
        if !registry::is_served() {
            return Err(Error::config("this program would not recognize itself in a child")
                .hint("call Registry::serve at the top of main"));
        }
        if self.buffer_size == 0 {
            return Err(Error::config(
                "a source needs room for at least one item, and buffer_size is 0",
            ));
        }
        spec.validate()?;
        let argument = self.argument.clone().map_err(|error| {
            Error::config("the function's argument cannot be sent").because(error)
        })?;
        let leave = spec.policy.end_timeout.unwrap_or(LEAVE_GRACE);
        let opening = Opening {
            function: self.name.to_owned(),
            argument,
            item_limit: spec.policy.reply_limit as u64,
            leave_ms: u64::try_from(leave.as_millis()).unwrap_or(u64::MAX),
        };
        let opening = opening.encode();
        if u32::try_from(opening.len()).is_err() {
            return Err(Error::config("the function's argument is larger than 4 GiB"));
        }
        let mut message = Vec::new();
        protocol::put(&mut message, Command::Open as u8, 0, &opening);
        Ok(message)
    }

    fn try_launch(&self, board: &Arc<Board>) -> Result<(Arc<Readiness>, ExecutorThread), Error> {
        let (plan, session) = self.conversation(board)?;
        let poller = solo::poller()?;
        let thread = solo::spawn(plan, session, Arc::clone(&poller))?;
        Ok((poller, thread))
    }

    /// What is to be started, and our side of what is said with it.
    fn conversation(&self, board: &Arc<Board>) -> Result<(Plan, Session), Error> {
        let spec = Arc::new(self.template.spec.clone());
        let opening = self.opening(&spec)?;
        let program = std::env::current_exe().unwrap_or_else(|_| this_program());
        let command: Arc<str> =
            format!("{} {} {}", program.display(), registry::MARK, self.name).into();
        let session =
            Session::new(Arc::clone(board), Arc::clone(&spec), Arc::clone(&command), opening);
        Ok((Plan { spec, command, input: 1, output: 1, closes_input: false }, session))
    }

    pub(super) fn begin(&mut self) -> Outlet {
        self.generation += 1;
        let generation = self.generation;
        let bounds = Bounds::new(self.buffer_size, self.max_bytes);
        self.running().caller().begin(generation, bounds)
    }
}

/// For the simulation, which runs the event loop itself.
#[cfg(test)]
impl<T> FunctionSource<T> {
    /// What the next child is, and our side of what is said with it; `wake` wakes the event loop.
    pub(super) fn launch_elsewhere(
        &mut self,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<(Plan, Session), Error> {
        let board = Arc::new(Board::default());
        let conversation = self.conversation(&board)?;
        self.running = Some(Running { caller: Some(Caller::new(board, wake)), thread: None });
        Ok(conversation)
    }
}

impl<T: DeserializeOwned> FunctionSource<T> {
    /// Starts a pass over the items now.
    ///
    /// There is one pass at a time: it borrows the source until it is dropped. If it is dropped before its end, the child
    /// makes no further item, drops its iterator, and waits for the next pass. The drop does not wait for that. If the child
    /// is inside code of the function, that code finishes first, except that a wait in a feed of this crate is cancelled.
    /// To move a pass into another feed, iterate over the source itself: `source.into_iter()`.
    ///
    /// # Errors
    /// See [`iterate_in_subprocess`](crate::source::Function::iterate_in_subprocess).
    pub fn iter(&mut self) -> Pass<'_, T> {
        Pass::new(self.begin())
    }
}

impl<T> fmt::Debug for FunctionSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionSource")
            .field("function", &self.name)
            .field("buffer_size", &self.buffer_size)
            .field("passes", &self.generation)
            .finish_non_exhaustive()
    }
}
