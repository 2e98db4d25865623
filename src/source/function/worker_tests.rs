//! The child without a process: orders by hand, reports looked at one by one.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use crate::error::BoxError;
use crate::source::function::mailbox::Mailbox;
use crate::source::function::passes::{Passes, sealed::IntoPasses};
use crate::source::function::protocol::{
    self, Command, Failure, Fault, HEAD, Opening, Status, Status::*,
};
use crate::source::function::worker::{CONFUSED, FAILED, LEFT, work};

struct Child {
    orders: Option<PipeWriter>,
    reports: PipeReader,
    worker: JoinHandle<i32>,
}

impl Child {
    /// A child whose function is this. The orders are there before it looks for any.
    fn new<P: IntoPasses<T>, T>(
        open: impl FnOnce() -> P + Send + 'static,
        orders: &[(Command, u64, u64)],
    ) -> Self {
        Self::limited(open, orders, 1 << 20)
    }

    fn limited<P: IntoPasses<T>, T>(
        open: impl FnOnce() -> P + Send + 'static,
        orders: &[(Command, u64, u64)],
        item_limit: u64,
    ) -> Self {
        let (theirs, ours) = pipe().unwrap();
        let (reports, output) = pipe().unwrap();
        let mut child_orders = ours;
        let opening =
            Opening { function: "f".to_owned(), argument: Vec::new(), item_limit, leave_ms: 1_000 };
        let mut first = Vec::new();
        protocol::put(&mut first, Command::Open as u8, 0, &opening.encode());
        child_orders.write_all(&first).unwrap();
        let mailbox = Arc::new(
            Mailbox::new(std::fs::File::from(std::os::fd::OwnedFd::from(output))).unwrap(),
        );
        let mut this = Self { orders: Some(child_orders), reports, worker: thread::spawn(|| 0) };
        for &(command, generation, number) in orders {
            this.order(command, generation, number);
        }
        this.worker = thread::spawn(move || {
            let (listener, writer) = (Arc::clone(&mailbox), Arc::clone(&mailbox));
            thread::spawn(move || listener.listen(theirs));
            let writing = thread::spawn(move || writer.write());
            let exit = work(&mailbox, |_| {
                let begun = |error: BoxError| Failure::of(Fault::Begin, &*error);
                open().into_passes().map(|passes| passes.begin).map_err(begun)
            });
            mailbox.leave();
            writing.join().unwrap();
            exit
        });
        this
    }

    fn order(&mut self, command: Command, generation: u64, number: u64) {
        self.say(command as u8, generation, number);
    }

    fn say(&mut self, what: u8, generation: u64, number: u64) {
        let mut message = Vec::new();
        protocol::put(&mut message, what, generation, &number.to_le_bytes());
        self.orders.as_mut().unwrap().write_all(&message).unwrap();
    }

    /// The next report; `None` when the child is gone.
    fn next(&mut self) -> Option<(Status, u64, Vec<u8>)> {
        let mut head = [0; HEAD];
        self.reports.read_exact(&mut head).ok()?;
        let (what, generation, body) = protocol::head(&head);
        let mut bytes = vec![0; body.len()];
        self.reports.read_exact(&mut bytes).unwrap();
        Some((Status::from_byte(what).unwrap(), generation, bytes))
    }

    #[track_caller]
    fn expect(&mut self, expected: impl IntoIterator<Item = (Status, u64)>) {
        for expected in expected {
            let (status, generation, _) = self.next().expect("a report");
            assert_eq!((status, generation), expected);
        }
    }

    /// The numbers of a pass that has been started, and how it ended.
    #[track_caller]
    fn pass(&mut self, generation: u64) -> (Vec<u8>, Result<(), Failure>) {
        self.expect([(IterationStarted, generation)]);
        let mut items = Vec::new();
        loop {
            let (status, of, body) = self.next().expect("a report");
            assert_eq!(of, generation);
            match status {
                IteratorSuccess => items.extend(body),
                IterationFinished => return (items, Ok(())),
                IteratorFailed => return (items, Err(Failure::decode(&body).unwrap())),
                _ => panic!("{status:?}"),
            }
        }
    }

    /// The exit status, after nothing more has been said.
    #[track_caller]
    fn exit(mut self) -> i32 {
        assert_eq!(self.next(), None);
        self.worker.join().unwrap()
    }
}

const START: (Command, u64, u64) = (Command::Start, 1, u64::MAX);
const ABORT: (Command, u64, u64) = (Command::Abort, 0, 0);

fn numbers() -> Passes<u8> {
    Passes::each(|| 0..5u8)
}

fn failure(child: &mut Child, status: Status) -> Failure {
    let (got, _, body) = child.next().expect("a report");
    assert_eq!(got, status);
    Failure::decode(&body).expect("a failure")
}

#[test]
fn what_fails_in_initialization_is_all_that_is_said() {
    let fails = || Err::<Passes<u8>, BoxError>("no dinner".into());
    let mut child = Child::new(fails, &[START]);
    assert_eq!(failure(&mut child, InitializationFailed), Failure::new(Fault::Begin, "no dinner"));
    assert_eq!(child.exit(), FAILED);
    let panics = || -> Passes<u8> { panic!("no {}", "fire") };
    let mut child = Child::new(panics, &[]);
    let said = failure(&mut child, InitializationFailed);
    assert!(said.fault == Fault::Panic && said.chain[0].starts_with("no fire"), "{said:?}");
    assert_eq!(child.exit(), FAILED);
}

#[test]
fn an_abort_that_is_there_before_ends_it_once_it_is_initialized() {
    let mut child = Child::new(numbers, &[START, ABORT]);
    child.expect([(InitializationSucceeded, 0)]);
    assert_eq!(child.exit(), LEFT);
}

#[test]
fn a_pass_gives_its_items_finishes_and_another_one_is_the_same() {
    let mut child = Child::new(numbers, &[START]);
    child.expect([(InitializationSucceeded, 0)]);
    assert_eq!(child.pass(1), (vec![0, 1, 2, 3, 4], Ok(())));
    child.order(Command::Start, 7, u64::MAX);
    assert_eq!(child.pass(7), (vec![0, 1, 2, 3, 4], Ok(())));
    child.order(Command::Abort, 0, 0);
    assert_eq!(child.exit(), LEFT);
}

#[test]
fn a_pass_that_cannot_begin_fails_and_the_next_one_tries_again() {
    let begins = || {
        let mut tries = 0;
        Passes::<u8>::try_each(move || {
            tries += 1;
            assert!(tries != 2, "twice");
            if tries < 3 { Err("once") } else { Ok([Ok::<_, BoxError>(9)]) }
        })
    };
    let mut child = Child::new(begins, &[START]);
    child.expect([(InitializationSucceeded, 0)]);
    assert_eq!(child.pass(1), (vec![], Err(Failure::new(Fault::Begin, "once"))));
    child.order(Command::Start, 2, 1);
    let (items, failed) = child.pass(2);
    assert!(items.is_empty());
    assert_eq!(failed.unwrap_err().fault, Fault::Panic);
    child.order(Command::Start, 3, 2);
    assert_eq!(child.pass(3), (vec![9], Ok(())));
    drop(child.orders.take());
    assert_eq!(child.exit(), LEFT);
}

#[test]
fn items_before_a_panic_are_given_and_the_child_stands_by() {
    let panics = || Passes::each(|| (0..5u8).map(|k| if k == 3 { panic!("three") } else { k }));
    let mut child = Child::new(panics, &[START]);
    child.expect([(InitializationSucceeded, 0)]);
    let (items, failed) = child.pass(1);
    assert_eq!((items, failed.unwrap_err().fault), (vec![0, 1, 2], Fault::Panic));
    child.order(Command::Start, 2, 2);
    child.expect([(IterationStarted, 2), (IteratorSuccess, 2), (IteratorSuccess, 2)]);
    child.order(Command::Stop, 2, 0);
    child.expect([(IterationFinished, 2)]);
    child.order(Command::Abort, 0, 0);
    assert_eq!(child.exit(), LEFT);
}

#[test]
fn an_item_that_fails_keeps_its_place_and_the_pass_goes_on() {
    let mixed = || {
        Passes::try_each(|| {
            let long = "x".repeat(99);
            let items = ["a", "", &long, "b"].map(str::to_owned);
            let check = |text: String| if text.is_empty() { Err("empty") } else { Ok(text) };
            Ok::<_, BoxError>(items.map(check))
        })
    };
    let mut child = Child::limited(mixed, &[START], 99);
    child.expect([(InitializationSucceeded, 0), (IterationStarted, 1), (IteratorSuccess, 1)]);
    assert_eq!(failure(&mut child, IteratorFailed), Failure::new(Fault::Item, "empty"));
    let too_long = failure(&mut child, IteratorFailed);
    assert_eq!(too_long.fault, Fault::Encode);
    assert!(too_long.chain[0].contains("100 bytes"), "{too_long:?}");
    child.expect([(IteratorSuccess, 1), (IterationFinished, 1)]);
}

#[test]
fn what_has_no_length_cannot_be_serialized_and_is_no_hole() {
    struct Endless(u8);
    impl serde::Serialize for Endless {
        fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            if self.0 == 1 {
                return serde::ser::SerializeSeq::end(to.serialize_seq(None)?);
            }
            to.serialize_u8(self.0)
        }
    }
    let mut child = Child::new(|| Passes::each(|| (0..3).map(Endless)), &[START]);
    child.expect([(InitializationSucceeded, 0), (IterationStarted, 1), (IteratorSuccess, 1)]);
    assert_eq!(failure(&mut child, IteratorFailed).fault, Fault::Encode);
    assert_eq!(child.next(), Some((IteratorSuccess, 1, vec![2])));
    child.expect([(IterationFinished, 1)]);
}

#[test]
fn orders_that_make_no_sense_end_it_and_a_stop_in_stand_by_is_none() {
    // A start in a pass, an old generation, a second opening, and what is no order at all.
    for (what, generation) in [(2, 2), (2, 1), (0, 0), (99, 0)] {
        let mut child = Child::new(numbers, &[(Command::Start, 1, 2)]);
        child.expect([(InitializationSucceeded, 0), (IterationStarted, 1)]);
        child.expect([(IteratorSuccess, 1), (IteratorSuccess, 1)]);
        child.say(what, generation, 5);
        child.expect([(UnexpectedCommand, 1)]);
        assert_eq!(child.exit(), CONFUSED);
    }
    let mut child = Child::new(numbers, &[(Command::Stop, 3, 0)]);
    child.expect([(InitializationSucceeded, 0)]);
    child.order(Command::Start, 4, u64::MAX);
    assert_eq!(child.pass(4).0.len(), 5);
    child.order(Command::Start, 4, u64::MAX);
    child.expect([(UnexpectedCommand, 4)]);
    assert_eq!(child.exit(), CONFUSED);
}

/// Counts what it is asked for, and tells when it is dropped.
struct Counted(Arc<AtomicU64>, Sender<()>, usize);

impl Iterator for Counted {
    type Item = Vec<u8>;
    fn next(&mut self) -> Option<Vec<u8>> {
        self.0.fetch_add(1, SeqCst);
        Some(vec![7; self.2])
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let _ = self.1.send(());
    }
}

fn counted(size: usize) -> (impl FnOnce() -> Passes<Vec<u8>> + Send, Arc<AtomicU64>, Receiver<()>) {
    let count = Arc::new(AtomicU64::new(0));
    let (dropped, drops) = channel();
    let asked = Arc::clone(&count);
    let open = move || Passes::each(move || Counted(Arc::clone(&asked), dropped.clone(), size));
    (open, count, drops)
}

#[test]
fn no_more_is_asked_of_the_function_than_was_granted() {
    let (open, count, drops) = counted(1000);
    let mut child = Child::new(open, &[(Command::Start, 1, 3)]);
    child.expect([(InitializationSucceeded, 0), (IterationStarted, 1)]);
    child.expect([(IteratorSuccess, 1); 3]);
    // Of another pass, and less than before.
    child.order(Command::More, 2, 100);
    child.order(Command::More, 1, 1);
    child.order(Command::More, 1, 5);
    child.expect([(IteratorSuccess, 1); 2]);
    child.order(Command::Stop, 1, 0);
    child.expect([(IterationFinished, 1)]);
    drops.recv().unwrap();
    assert_eq!(count.load(SeqCst), 5);
}

#[test]
fn whoever_waits_because_nobody_reads_returns_at_a_stop() {
    // Larger than a pipe, and than what may wait to be written.
    let (open, count, drops) = counted(300_000);
    let mut child = Child::new(open, &[START]);
    child.expect([(InitializationSucceeded, 0), (IterationStarted, 1)]);
    // One is being written, or two if the writer came late to the first; the next waits to be, and no other is made.
    while count.load(SeqCst) < 2 {
        thread::yield_now();
    }
    child.order(Command::Stop, 1, 0);
    drops.recv().expect("the iterator is dropped although nothing was read");
    let made = count.load(SeqCst);
    assert!((2..=3).contains(&made), "{made} were made");
    (0..made).for_each(|_| child.expect([(IteratorSuccess, 1)]));
    child.expect([(IterationFinished, 1)]);
}

#[test]
fn the_end_of_the_orders_is_an_order_to_leave_in_the_midst_of_a_pass() {
    let (open, _, drops) = counted(1000);
    let mut child = Child::new(open, &[START]);
    child.expect([(InitializationSucceeded, 0), (IterationStarted, 1), (IteratorSuccess, 1)]);
    drop(child.orders.take());
    while child.next().is_some() {}
    drops.recv().unwrap();
    assert_eq!(child.worker.join().unwrap(), LEFT);
}

#[test]
fn when_nobody_reads_any_more_it_leaves() {
    let (open, _, drops) = counted(1000);
    let mut child = Child::new(open, &[START]);
    child.expect([(InitializationSucceeded, 0)]);
    drop(child.reports);
    drops.recv().unwrap();
    assert_eq!(child.worker.join().unwrap(), LEFT);
}

#[test]
fn a_source_that_there_is_one_of_is_spent_by_its_first_pass_even_if_that_is_stopped() {
    // It need not be `Send`.
    let once = || Passes::once([Rc::new(1u8), Rc::new(2)].map(|number| *number));
    let mut child = Child::new(once, &[(Command::Stop, 1, 0), START]);
    // It was stopped before it began, and has begun nevertheless: what comes next is no matter of luck.
    child.expect([(InitializationSucceeded, 0)]);
    assert_eq!(child.pass(1), (vec![], Ok(())));
    for generation in 3..5 {
        child.order(Command::Start, generation, u64::MAX);
        assert_eq!(child.pass(generation).1.unwrap_err().fault, Fault::Spent);
    }
}

#[test]
fn epochs_end_at_their_marks_and_an_abandoned_one_is_skipped() {
    let items = [Some(1u8), Some(2), None, None, Some(3), Some(4), Some(5), None, Some(6)];
    let mut child = Child::new(move || Passes::epochs(items), &[START]);
    child.expect([(InitializationSucceeded, 0)]);
    assert_eq!(child.pass(1), (vec![1, 2], Ok(())));
    child.order(Command::Start, 2, u64::MAX);
    assert_eq!(child.pass(2), (vec![], Ok(())));
    // The third is left after its first item.
    child.order(Command::Start, 3, 1);
    child.expect([(IterationStarted, 3), (IteratorSuccess, 3)]);
    child.order(Command::Stop, 3, 0);
    child.expect([(IterationFinished, 3)]);
    child.order(Command::Start, 4, u64::MAX);
    assert_eq!(child.pass(4), (vec![6], Ok(())));
    child.order(Command::Start, 5, u64::MAX);
    assert_eq!(child.pass(5).1.unwrap_err().fault, Fault::Spent);
    child.order(Command::Start, 6, u64::MAX);
    assert_eq!(child.pass(6).1.unwrap_err().fault, Fault::Spent);
}

#[test]
fn each_pass_that_is_left_is_one_epoch_however_early_it_is_left() {
    let items = [1u8, 2, 3, 4].into_iter().flat_map(|k| [Some(k), Some(k), None]);
    let mut child = Child::new(|| Passes::epochs(items), &[(Command::Stop, 3, 0), START]);
    child.order(Command::Start, 2, 2);
    child.order(Command::Start, 3, 2);
    child.order(Command::Start, 4, u64::MAX);
    child.expect([(InitializationSucceeded, 0)]);
    for generation in 1..=3 {
        assert_eq!(child.pass(generation), (vec![], Ok(())));
    }
    assert_eq!(child.pass(4), (vec![4, 4], Ok(())));
}
