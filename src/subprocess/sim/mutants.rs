//! Mistakes that the scheduler is made to make, one at a time: a test of the test.
//!
//! `mutated!(Name)` in the scheduler is `false` in every build but the unit tests', where it asks here.

use std::cell::Cell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The gate lets one input too many through.
    WindowOffByOne,
    /// A session that has answered is not offered to the dispatcher again.
    LostWakeUp,
    /// A session whose pipe was full is not offered again when some of what waits has been written.
    StaysBackedUp,
    /// What a dead session owed is forgotten.
    SkippedRedelivery,
    /// The head of a dead session is sent again twice.
    SentTwice,
    /// The head of a dead session is sent again with the others, and charged with their death.
    BlamedInnocent,
    /// An input is closed before everything is written.
    ClosedEarly,
    /// The bytes of answered requests stay counted.
    LeakedBytes,
    /// A reply too many stays where it is, to be taken for the next packet's.
    ExtraIgnored,
    /// What is sent again goes to the end of the queue.
    OutOfOrder,
    /// The timer of a quiet session is not set.
    ForgottenTimer,
    /// A stdin is closed after half a request when the feed is dropped.
    TornRequest,
    /// Replies of a session that was never proven are believed at once.
    HeldNothing,
    /// Nobody looks again at a worker that was sent the last signal of its kill sequence.
    WaitsForEver,
}

pub(crate) const ALL: [Mutant; 14] = [
    Mutant::WindowOffByOne,
    Mutant::LostWakeUp,
    Mutant::StaysBackedUp,
    Mutant::SkippedRedelivery,
    Mutant::SentTwice,
    Mutant::BlamedInnocent,
    Mutant::ClosedEarly,
    Mutant::LeakedBytes,
    Mutant::ExtraIgnored,
    Mutant::OutOfOrder,
    Mutant::ForgottenTimer,
    Mutant::TornRequest,
    Mutant::HeldNothing,
    Mutant::WaitsForEver,
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
