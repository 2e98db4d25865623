//! The window with an executor that is a toy.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use super::joins::IntakeThread;
use super::outlet::{Given, Order, Outlet};
use super::packing::{Scribe, Store, Writer};
use super::polled::PolledIntake;
use super::seam::Bounds;
use super::sync::thread;
use super::toy::{self, Lengths};
use super::unwind;
use super::waiter::Waiter;
use crate::framing::RequestFraming;
use crate::record::{PacketId, Requests};
use crate::template::codec::AsBytes;

/// Nothing is kept of the inputs.
pub(crate) struct Nothing;

impl Store<String> for Nothing {
    fn passes(&self, _item: &String) -> bool {
        false
    }
    fn put(&self, _item: String) {}
}

fn writer() -> Writer<AsBytes, Nothing> {
    let framings = vec![RequestFraming::line()];
    let scribe = Scribe { framings, names: Vec::new(), sentinel: None };
    Writer { scribe, encode: AsBytes, store: Nothing }
}

/// A feed whose replies are the lengths of its lines.
pub(crate) fn lengths<I>(source: I, bounds: Bounds) -> Outlet<Requests, Lengths>
where
    I: Iterator<Item = String> + Send + 'static,
{
    let (intake, mut outlet) = toy::start(bounds);
    let pull = move || intake.run(source, writer());
    let intake = IntakeThread::spawn(pull, |pull| thread::Builder::new().spawn(pull).map(Some));
    outlet.keep_intake(intake.expect("a thread"));
    outlet
}

/// The same for a source that is pulled in polls.
pub(crate) fn lengths_polled(bounds: Bounds) -> (Polled, Outlet<Requests, Lengths>) {
    let (intake, outlet) = toy::start(bounds);
    (PolledIntake::new(intake, writer()), outlet)
}

type Polled = PolledIntake<Writer<AsBytes, Nothing>, Requests, Lengths>;

/// The packet and the length that come next.
pub(crate) fn next(outlet: &mut Outlet<Requests, Lengths>) -> Option<(u64, usize)> {
    came(outlet.next())
}

/// The same, of what an outlet gave.
pub(crate) fn came(item: Option<(PacketId, Given<&mut Lengths>)>) -> Option<(u64, usize)> {
    match item? {
        (packet, Given::Reply(lengths)) => Some((packet.0, lengths.pop_front()?)),
        (packet, given) => panic!("{packet:?}: {given:?}"),
    }
}

fn lines(n: usize) -> impl Iterator<Item = String> + Send + 'static {
    (0..n).map(|n| "x".repeat(n % 10))
}

/// Miri takes a thousand times as long.
const MANY: usize = if cfg!(miri) { 60 } else { 1_000 };

#[test]
fn a_toy_keeps_the_order_and_the_ids() {
    for packets in [1, 3, 100] {
        let bounds = Bounds {
            order: Order::Input,
            first: PacketId(u64::MAX - 1),
            ..Bounds::new(packets, usize::MAX)
        };
        let mut outlet = lengths(lines(MANY), bounds);
        for n in 0..MANY as u64 {
            // The line and its end.
            assert_eq!(next(&mut outlet), Some((n.wrapping_sub(2), n as usize % 10 + 1)));
        }
        assert_eq!((next(&mut outlet), next(&mut outlet)), (None, None));
    }
}

#[test]
fn a_toy_loses_nothing_in_completion_order_and_within_a_bound_of_bytes() {
    let mut outlet = lengths(lines(MANY), Bounds::new(50, 20));
    let packets: BTreeSet<_> = std::iter::from_fn(|| next(&mut outlet)).map(|it| it.0).collect();
    assert!(packets.into_iter().eq(0..MANY as u64));
    assert_eq!(outlet.gate().held(), 0);
}

#[test]
fn a_toy_ends_when_its_outlet_goes_and_tells_of_a_panic() {
    drop(lengths(std::iter::repeat_with(|| "x".to_owned()), Bounds::new(10, usize::MAX)));
    let source = (0..).map(|n| if n < 5 { "x".to_owned() } else { panic!("five") });
    let mut outlet = lengths(source, Bounds::new(10, usize::MAX));
    assert_eq!((0..5).filter_map(|_| next(&mut outlet)).count(), 5);
    let payload = unwind::catch(|| next(&mut outlet)).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"five"));
    assert_eq!(next(&mut outlet), None);
}

#[test]
fn a_toy_is_pulled_in_polls_and_says_when_it_would_go_on() {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    // Bytes are what is short in the second.
    for (packets, max_bytes) in [(1_000, usize::MAX), (100, 30)] {
        let bounds =
            Bounds { order: Order::Input, batches: usize::MAX, ..Bounds::new(packets, max_bytes) };
        let (mut intake, mut outlet) = lengths_polled(bounds);
        let mut source = lines(1_000);
        let mut n = 0;
        while n < 1_000 {
            let next = || Poll::Ready(source.next());
            let taken = intake
                .poll(&waker, next, || outlet.poll_next(|| Waiter::Task(waker.clone())).map(came));
            match taken {
                Poll::Ready(taken) => {
                    assert_eq!(taken, Some((n, n as usize % 10 + 1)));
                    n += 1;
                }
                Poll::Pending => thread::park(),
            }
        }
        drop((intake, outlet));
    }
}

#[test]
fn a_toy_lets_the_window_be_used_in_full_wherever_the_consumer_sleeps() {
    let (pulled, seen) = std::sync::mpsc::channel();
    let source = (0..).map(move |n: usize| {
        let _ = pulled.send(n);
        "x".to_owned()
    });
    let mut outlet = lengths(source, Bounds::new(40, usize::MAX));
    for taken in 0..100 {
        let before = if taken == 0 { 40 } else { 1 };
        for _ in 0..before {
            seen.recv_timeout(Duration::from_secs(60)).expect("one more is pulled");
        }
        assert!(next(&mut outlet).is_some());
    }
}

/// Arrows point down: the window knows nobody who uses it.
#[test]
#[cfg_attr(miri, ignore = "it reads source text, slowly")]
fn the_window_names_no_executor() {
    let names = [["sub", "process"].concat(), ["ra", "yon"].concat()];
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/window");
    for entry in std::fs::read_dir(dir).expect("src/window").flatten() {
        let text = std::fs::read_to_string(entry.path()).expect("a source file");
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for name in &names {
                assert!(!line.contains(name.as_str()), "{}: {line}", entry.path().display());
            }
        }
    }
}
