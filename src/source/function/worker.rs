//! The child: a state machine of three states, run by its main thread.
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

use crate::source::function::mailbox::{Mailbox, Order, Verdict};
use crate::source::function::passes::{Begin, Step};
use crate::source::function::protocol::{self, Failure, Fault, Opening, Status};
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
    let opening = match mailbox.next_order() {
        Order::Open(opening) => opening,
        Order::Leave => return LEFT,
        Order::Start(_) | Order::Unexpected => {
            mailbox.report(Status::UnexpectedCommand, 0, &[]);
            return CONFUSED;
        }
    };
    mailbox.enter_session(&session);
    let opened = guarded(|| open(&opening)).unwrap_or_else(Err);
    let mut passes = match opened {
        Ok(passes) => passes,
        Err(failure) => {
            mailbox.report(Status::InitializationFailed, 0, &failure.encode());
            return FAILED;
        }
    };
    mailbox.report(Status::InitializationSucceeded, 0, &[]);
    let mut last = 0;
    let exit = loop {
        match mailbox.next_order() {
            Order::Start(generation) if generation > last => {
                last = generation;
                if let Some(exit) = iterate(mailbox, &mut *passes, generation, &opening, &session) {
                    break exit;
                }
            }
            Order::Leave => break LEFT,
            _ => {
                mailbox.report(Status::UnexpectedCommand, last, &[]);
                break CONFUSED;
            }
        }
    };
    // Its panic is on stderr already, and nobody is left to be told.
    let _ = unwind::catch(move || drop(passes));
    exit
}

/// One pass. The exit status, if it is also the end.
fn iterate(
    mailbox: &Mailbox,
    passes: &mut dyn Begin,
    generation: u64,
    opening: &Opening,
    session: &Arc<Gate>,
) -> Option<i32> {
    mailbox.report(Status::IterationStarted, generation, &[]);
    let finished = || mailbox.report(Status::IterationFinished, generation, &[]);
    let failed = |failure: &Failure| {
        mailbox.report(Status::IteratorFailed, generation, &failure.encode());
    };
    // Even of a pass that is stopped already: what a second one gives must not depend on the timing.
    if passes.may_be_cancelled() {
        mailbox.enter_pass(generation, &Arc::new(Gate::new(1, 1)));
    }
    let exit = 'pass: {
        let mut steps = match guarded(|| passes.begin()).unwrap_or_else(Err) {
            Ok(steps) => steps,
            Err(failure) => {
                failed(&failure);
                break 'pass None;
            }
        };
        let mut message = Vec::new();
        let mut index = 0;
        let exit = loop {
            match mailbox.may_make(generation, index) {
                Verdict::Go => {}
                Verdict::Stopped => {
                    finished();
                    break None;
                }
                Verdict::Leave => break Some(LEFT),
                Verdict::Unexpected => {
                    mailbox.report(Status::UnexpectedCommand, generation, &[]);
                    break Some(CONFUSED);
                }
            }
            message.clear();
            let start = protocol::open(&mut message);
            let failure = match guarded(|| steps.step(&mut message)) {
                Ok(Step::Item) => {
                    let size = (message.len() - start - protocol::HEAD) as u64;
                    let limit = opening.item_limit.min(u64::from(u32::MAX));
                    if size <= limit {
                        let status = Status::IteratorSuccess as u8;
                        protocol::close(&mut message, start, status, generation);
                        mailbox.post(&message);
                        index += 1;
                        continue;
                    }
                    let text = format!("it has {size} bytes, and the limit is {limit}");
                    Failure::new(Fault::Encode, text)
                }
                Ok(Step::Failed(failure)) | Err(failure) => failure,
                Ok(Step::End) => {
                    finished();
                    break None;
                }
            };
            failed(&failure);
            if failure.ends_the_pass() {
                break None;
            }
            index += 1;
        };
        // The consumer has its end already; what this takes, the next pass waits for.
        let _ = unwind::catch(move || drop(steps));
        exit
    };
    mailbox.enter_session(session);
    exit
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
