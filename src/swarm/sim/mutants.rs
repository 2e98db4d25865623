//! Mistakes that the core is made to make, one at a time: a test of the test.
//!
//! `mutated!(Name)` in the core is `false` in every build but the unit tests', where it asks here.

use std::cell::Cell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The gate lets one input too many through.
    WindowOffByOne,
    /// A life that has answered is not offered to the dispatcher again.
    LostWakeUp,
    /// What a dead life owed is forgotten.
    SkippedRedelivery,
    /// A packet that was answered is sent again too.
    AnsweredTwice,
    /// The head of a dead life is sent again with the others, and charged with their death.
    BlamedInnocent,
    /// An input is closed before everything is written.
    ClosedEarly,
    /// The bytes of answered requests stay counted.
    LeakedBytes,
    /// A reply too many is taken for the next packet's.
    ExtraAccepted,
    /// The rest of a batch that was cut in two goes out before its front.
    OutOfOrder,
    /// The timer of a quiet life is not set.
    ForgottenTimer,
    /// The half of a request is left in the pipe when the feed is dropped.
    TornRequest,
    /// Replies of a life that was never proven are believed at once.
    HeldNothing,
}

pub(crate) const ALL: [Mutant; 12] = [
    Mutant::WindowOffByOne,
    Mutant::LostWakeUp,
    Mutant::SkippedRedelivery,
    Mutant::AnsweredTwice,
    Mutant::BlamedInnocent,
    Mutant::ClosedEarly,
    Mutant::LeakedBytes,
    Mutant::ExtraAccepted,
    Mutant::OutOfOrder,
    Mutant::ForgottenTimer,
    Mutant::TornRequest,
    Mutant::HeldNothing,
];

thread_local! {
    static ON: Cell<Option<Mutant>> = const { Cell::new(None) };
}

pub(crate) fn is_on(mutant: Mutant) -> bool {
    ON.get() == Some(mutant)
}

/// From here on this thread's cores make this mistake.
pub(super) fn set(mutant: Option<Mutant>) {
    ON.set(mutant);
}
