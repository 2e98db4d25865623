//! The child: a state machine, run by its main thread. It has three states that the parent knows of:
//!
//! ```text
//!  Initialization --Succeeded--> Stand-By --START/Started--> Iteration
//!        |                        |    ^                      |  |  |
//!      Failed                   ABORT  +--end/STOP: Finished--+  |  |
//!        |                        |    +--begin, panic: Failed---+  |
//!        v                        v                                 v
//!       exit                     exit          ABORT: exit; START: UnexpectedCommand, exit
//! ```
//!
//! An item that fails is reported in its place, and the iteration goes on. STOP in stand-by is ignored.
//! ABORT is also what the end of the command pipe means: the parent is gone. Before it exits, what the
//! passes hold is dropped, so that feeds in it end their own children.

use std::cell::RefCell;
use std::panic;
use std::sync::Arc;

use crate::source::function::mailbox::Mailbox;
use crate::source::function::orders::{Order, Verdict};
use crate::source::function::passes::{Begin, Step};
use crate::source::function::protocol::{self, Failure, Fault, HEAD, Opening, Status};
use crate::tuning::UNWRITTEN_BYTES;
use crate::window::gate::Gate;
use crate::window::unwind::{self, Payload};

/// Exit statuses of the child.
pub(super) const LEFT: i32 = 0;
pub(super) const FAILED: i32 = 1;
pub(super) const CONFUSED: i32 = 2;

/// Works until it is time to leave. `open` runs the initializers and the function.
pub(super) fn work(
    mailbox: &Mailbox,
    open: impl FnOnce(&Opening) -> Result<Box<dyn Begin>, Failure>,
) -> i32 {
    let session = Arc::new(Gate::new(1, 1));
    let mut worker = Worker::new(open);
    let (mut reports, mut scope) = (Vec::new(), None);
    loop {
        let next = worker.next();
        if scope != Some(worker.scope()) {
            match worker.scope() {
                None => mailbox.enter_session(&session),
                Some(pass) => mailbox.enter_pass(pass, &Arc::new(Gate::new(1, 1))),
            }
            scope = Some(worker.scope());
        }
        match next {
            Next::Order => worker.order(mailbox.next_order(), &mut reports),
            Next::Item { generation, index } => {
                worker.item(mailbox.may_make(generation, index), &mut reports);
            }
            Next::Run => worker.run(&mut reports),
            Next::Exit(status) => return status,
        }
        if !reports.is_empty() {
            mailbox.post(&reports);
            reports.clear();
            // One huge item does not stay in memory for ever.
            reports.shrink_to(4 * UNWRITTEN_BYTES);
        }
    }
}

/// What the worker goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// An order.
    Order,
    /// This item of this pass, if it may be made.
    Item { generation: u64, index: u64 },
    /// Code of the user's, which waits for nothing of the parent's.
    Run,
    /// It has ended, with this status.
    Exit(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Unopened,
    Opens,
    StandsBy,
    Begins {
        generation: u64,
    },
    Iterates {
        generation: u64,
        index: u64,
    },
    /// What the pass holds is still to be dropped.
    Leaves {
        generation: u64,
        exit: Option<i32>,
    },
    /// What the passes hold is still to be dropped.
    Exits(i32),
    Exited(i32),
}

/// The state machine: no thread, no pipe. Each step but [`next`](Worker::next) appends what is to be reported before
/// the next one.
pub(super) struct Worker<O> {
    stage: Stage,
    open: Option<O>,
    opening: Option<Opening>,
    passes: Option<Box<dyn Begin>>,
    /// The last pass that was begun.
    last: u64,
}

impl<O: FnOnce(&Opening) -> Result<Box<dyn Begin>, Failure>> Worker<O> {
    pub(super) fn new(open: O) -> Self {
        Self { stage: Stage::Unopened, open: Some(open), opening: None, passes: None, last: 0 }
    }

    pub(super) fn next(&self) -> Next {
        match self.stage {
            Stage::Unopened | Stage::StandsBy => Next::Order,
            Stage::Iterates { generation, index } => Next::Item { generation, index },
            Stage::Opens | Stage::Begins { .. } | Stage::Leaves { .. } | Stage::Exits(_) => {
                Next::Run
            }
            Stage::Exited(status) => Next::Exit(status),
        }
    }

    /// The pass whose end cancels what is waited in.
    pub(super) fn scope(&self) -> Option<u64> {
        match self.stage {
            Stage::Begins { generation }
            | Stage::Iterates { generation, .. }
            | Stage::Leaves { generation, .. } => {
                self.passes.as_ref()?.may_be_cancelled().then_some(generation)
            }
            _ => None,
        }
    }

    /// At [`Next::Order`]: this one.
    pub(super) fn order(&mut self, order: Order, out: &mut Vec<u8>) {
        self.stage = match (self.stage, order) {
            (_, Order::Leave) => Stage::Exits(LEFT),
            (Stage::Unopened, Order::Open(opening)) => {
                self.opening = Some(opening);
                Stage::Opens
            }
            (Stage::StandsBy, Order::Start(generation)) if generation > self.last => {
                self.last = generation;
                report(out, Status::IterationStarted, generation, &[]);
                // Even of a pass that is stopped already: what a second one gives must not depend on the timing.
                Stage::Begins { generation }
            }
            _ => {
                report(out, Status::UnexpectedCommand, self.last, &[]);
                Stage::Exits(CONFUSED)
            }
        };
    }

    /// At [`Next::Item`]: whether to make it.
    pub(super) fn item(&mut self, verdict: Verdict, out: &mut Vec<u8>) {
        let Stage::Iterates { generation, index } = self.stage else { return };
        let exit = match verdict {
            Verdict::Go => {
                if self.make(generation, out) {
                    self.stage = Stage::Iterates { generation, index: index + 1 };
                    return;
                }
                None
            }
            Verdict::Stopped => {
                report(out, Status::IterationFinished, generation, &[]);
                None
            }
            Verdict::Leave => Some(LEFT),
            Verdict::Unexpected => {
                report(out, Status::UnexpectedCommand, generation, &[]);
                Some(CONFUSED)
            }
        };
        self.stage = Stage::Leaves { generation, exit };
    }

    /// Makes an item, or finds out that there is none. Says whether the pass goes on.
    fn make(&mut self, generation: u64, out: &mut Vec<u8>) -> bool {
        let (Some(passes), Some(opening)) = (&mut self.passes, &self.opening) else { return false };
        let start = protocol::open(out);
        let failure = match guarded(|| passes.step(out)) {
            Ok(Step::Item) => {
                let size = (out.len() - start - HEAD) as u64;
                let limit = opening.item_limit.min(u64::from(u32::MAX));
                if size <= limit {
                    protocol::close(out, start, Status::IteratorSuccess as u8, generation);
                    return true;
                }
                let text = format!("it has {size} bytes, and the limit is {limit}");
                Failure::new(Fault::Encode, text)
            }
            Ok(Step::Failed(failure)) | Err(failure) => failure,
            Ok(Step::End) => {
                out.truncate(start);
                report(out, Status::IterationFinished, generation, &[]);
                return false;
            }
        };
        out.truncate(start);
        report(out, Status::IteratorFailed, generation, &failure.encode());
        !failure.ends_the_pass()
    }

    /// At [`Next::Run`].
    pub(super) fn run(&mut self, out: &mut Vec<u8>) {
        self.stage = match self.stage {
            Stage::Opens => self.initialize(out),
            Stage::Begins { generation } => self.begin(generation, out),
            Stage::Leaves { exit, .. } => {
                // The consumer has its end already; what this takes, the next pass waits for.
                if let Some(passes) = &mut self.passes {
                    let _ = unwind::catch(|| passes.leave());
                }
                exit.map_or(Stage::StandsBy, Stage::Exits)
            }
            Stage::Exits(status) => {
                // Its panic is on stderr already, and nobody is left to be told.
                let passes = self.passes.take();
                let _ = unwind::catch(move || drop(passes));
                Stage::Exited(status)
            }
            stage => stage,
        };
    }

    fn initialize(&mut self, out: &mut Vec<u8>) -> Stage {
        let (Some(open), Some(opening)) = (self.open.take(), &self.opening) else {
            return Stage::Exits(CONFUSED);
        };
        match guarded(|| open(opening)).unwrap_or_else(Err) {
            Ok(passes) => {
                self.passes = Some(passes);
                report(out, Status::InitializationSucceeded, 0, &[]);
                Stage::StandsBy
            }
            Err(failure) => {
                report(out, Status::InitializationFailed, 0, &failure.encode());
                Stage::Exits(FAILED)
            }
        }
    }

    fn begin(&mut self, generation: u64, out: &mut Vec<u8>) -> Stage {
        let Some(passes) = &mut self.passes else { return Stage::Exits(CONFUSED) };
        match guarded(|| passes.begin()).unwrap_or_else(Err) {
            Ok(()) => Stage::Iterates { generation, index: 0 },
            Err(failure) => {
                report(out, Status::IteratorFailed, generation, &failure.encode());
                Stage::StandsBy
            }
        }
    }
}

fn report(out: &mut Vec<u8>, status: Status, generation: u64, body: &[u8]) {
    protocol::put(out, status as u8, generation, body);
}

thread_local! {
    /// Where the last panic of this thread was.
    static PANICKED_AT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Has the place of a panic noted, before whatever else a panic does.
pub(super) fn note_where_panics_occur() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |about| {
        let at = about.location().map(ToString::to_string);
        // Not if it happens while the thread ends.
        let _ = PANICKED_AT.try_with(|noted| *noted.borrow_mut() = at);
        before(about);
    }));
}

/// Runs code of the user's; its panic becomes a failure that says what it said and where.
fn guarded<T>(f: impl FnOnce() -> T) -> Result<T, Failure> {
    unwind::catch(f).map_err(|payload| Failure::new(Fault::Panic, said(&payload)))
}

fn said(payload: &Payload) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("something that is no text");
    match PANICKED_AT.take() {
        Some(at) => format!("{text} (at {at})"),
        None => text.to_owned(),
    }
}
