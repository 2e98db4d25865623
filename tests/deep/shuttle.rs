//! The hand-overs between intake, executor and outlet under a model checker: random schedules of real
//! code (`src/window/*.rs`, compiled once more with the checker's primitives). A lost wake-up is a
//! deadlock, which the checker reports with the schedule that leads to it.
#![allow(unused, unexpected_cfgs, unreachable_pub, missing_docs, missing_debug_implementations)]
#![allow(clippy::all)]

#[path = "../../src/template/codec.rs"]
mod codec;
#[path = "../../src/window/delimiters.rs"]
mod delimiters;
#[path = "../../src/error/mod.rs"]
mod error;
#[path = "../../src/template/framing/mod.rs"]
mod framing;
#[path = "../../src/window/gate.rs"]
mod gate;
#[path = "../../src/window/help.rs"]
mod help;
#[path = "../../src/window/intake.rs"]
mod intake;
#[path = "../../src/window/joins.rs"]
mod joins;
#[path = "../../src/window/outbox.rs"]
mod outbox;
#[path = "../../src/window/packet.rs"]
mod packet;
#[path = "../../src/window/packing.rs"]
mod packing;
#[path = "../../src/record.rs"]
mod record;
#[path = "../../src/signal.rs"]
mod signal;
#[path = "../../src/window/slot.rs"]
mod slot;
#[path = "../../src/window/unwind.rs"]
mod unwind;
#[path = "../../src/window/waiter.rs"]
mod waiter;
mod window {
    pub(crate) use crate::{
        delimiters, gate, help, intake, joins, outbox, packet, packing, slot, unwind, waiter,
    };
    pub mod sync {
        //! In the place of `src/window/sync.rs`.
        pub use shuttle::sync::{Mutex, MutexGuard, atomic};
        pub use shuttle::thread_local;
        pub mod thread {
            pub use shuttle::thread::{
                Builder, JoinHandle, Thread, current, park, spawn, yield_now,
            };
            /// There is no time in a model: any wait with a limit may be over at once.
            pub fn park_timeout(_limit: std::time::Duration) {
                yield_now();
            }
        }
        pub use std::sync::OnceLock;
        pub mod channel {
            pub use shuttle::sync::mpsc::{
                Receiver, RecvTimeoutError, SendError, SyncSender as Sender, TryRecvError,
                sync_channel as bounded,
            };
        }
        pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
            mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }
}
mod template {
    pub(crate) use crate::{codec, framing};
}
pub use error::{Error, ErrorKind};

use std::sync::Arc;

use record::PacketId;
use template::codec::AsBytes;
use template::framing::RequestFraming;
use window::gate::Gate;
use window::intake::{Arrival, Handover, Intake, Supply};
use window::outbox::{Outbox, Taken};
use window::packet::{End, Outcome, Replies, Span};
use window::packing::{Scribe, Store, Writer};
use window::sync::{channel, thread};

struct Keep;
impl Store<String> for Keep {
    fn passes(&self, _: &String) -> bool {
        false
    }
    fn put(&self, _: String) {}
}

/// What happens in one execution.
#[derive(Clone, Copy)]
struct Case {
    items: u64,
    window: u64,
    max_bytes: usize,
    /// The consumer goes away after this many.
    take: u64,
}

/// One feed: a real intake, an executor that answers at once, a real outbox, a consumer.
fn feed(case: Case) {
    let gate = Arc::new(Gate::new(case.window, case.max_bytes));
    let outbox: Arc<Outbox<Replies>> = Arc::new(Outbox::default());
    let pulled = Arc::new(window::sync::atomic::AtomicU64::new(0));

    // The executor's thread is known only when it runs; until then a wake-up is kept.
    let executor: Arc<window::sync::Mutex<Option<thread::Thread>>> = Arc::default();
    let woken = Arc::new(window::sync::atomic::AtomicBool::new(false));
    let (to_wake, flag) = (Arc::clone(&executor), Arc::clone(&woken));
    let handover = Arc::new(Handover::new(move || {
        flag.store(true, window::sync::atomic::Ordering::SeqCst);
        if let Some(thread) = &*window::sync::lock(&to_wake) {
            thread.unpark();
        }
    }));
    let (send, receive) = channel::bounded(2);
    let mut supply: Supply = Supply::new(Arc::clone(&handover), receive, Arc::clone(&gate));

    let intake = Intake {
        gate: Arc::clone(&gate),
        handover: Arc::clone(&handover),
        batches: send,
        first: PacketId(0),
    };
    let count = Arc::clone(&pulled);
    let intake = thread::spawn(move || {
        let source = (0..case.items).map(move |n| {
            count.fetch_add(1, window::sync::atomic::Ordering::SeqCst);
            n.to_string()
        });
        let scribe =
            Scribe { framings: vec![RequestFraming::line()], names: Vec::new(), sentinel: None };
        intake.run(source, Writer { scribe, encode: AsBytes, store: Keep });
    });

    let (out, gate_there) = (Arc::clone(&outbox), Arc::clone(&gate));
    let event_loop = thread::spawn(move || {
        *window::sync::lock(&executor) = Some(thread::current());
        let mut spans = Vec::new();
        let mut total = None;
        let mut answered = 0;
        let handle =
            |arrival: Arrival, spans: &mut Vec<Span<Replies>>, answered: &mut u64| match arrival {
                Arrival::Batch(batch) => {
                    let bytes = record::Batch::bytes(&*batch);
                    let count = record::Batch::len(&*batch) as u64;
                    *answered += count;
                    gate_there.hold(count as usize);
                    gate_there.release(bytes);
                    let outcome = Outcome::Halted;
                    spans.push(Span { first: batch.first, count, weight: count as usize, outcome });
                    None
                }
                Arrival::Settled(span) => {
                    *answered += span.count;
                    spans.push(span);
                    None
                }
                Arrival::End { pulled, .. } => Some(pulled),
            };
        loop {
            if supply.handover.is_dropped() {
                break;
            }
            while let Some(arrival) = supply.take() {
                total = handle(arrival, &mut spans, &mut answered).or(total);
            }
            out.put(&mut spans);
            if total.is_some_and(|total| total == answered) {
                break;
            }
            supply.ask();
            if let Some(arrival) = supply.take() {
                supply.stop_asking();
                total = handle(arrival, &mut spans, &mut answered).or(total);
                continue;
            }
            while !woken.swap(false, window::sync::atomic::Ordering::SeqCst) {
                thread::park();
            }
            supply.stop_asking();
        }
        out.end(End::default());
    });

    let mut yielded = 0;
    let mut next = PacketId(0);
    let mut spans = Vec::new();
    'consume: loop {
        match outbox.take_or_wait(None, &window::waiter::Waiter::this_thread(), &mut spans) {
            Taken::Nothing => thread::park(),
            Taken::End(_) => break,
            Taken::Spans => {
                for span in spans.drain(..) {
                    assert_eq!(span.first, next, "in order, nothing lost");
                    next = next.plus(span.count);
                    let pulled = pulled.load(window::sync::atomic::Ordering::SeqCst);
                    assert!(pulled <= yielded + case.window, "{pulled} pulled, {yielded} yielded");
                    yielded += span.count;
                    gate.yielded(yielded);
                    gate.release(span.weight);
                    if yielded >= case.take {
                        break 'consume;
                    }
                }
            }
        }
    }
    if case.take >= case.items {
        assert_eq!(yielded, case.items);
    }
    gate.stop();
    handover.drop_all();
    event_loop.join().unwrap();
    intake.join().unwrap();
}

fn check(name: &str, case: Case) {
    print!("test {name} ... ");
    shuttle::check_random(move || feed(case), 1_000);
    // Few preemptions at the worst of places find what many at random places do not.
    shuttle::check_pct(move || feed(case), 1_000, 3);
    println!("ok");
}

/// Without the usual harness: it would also run the unit tests of the files compiled here, whose
/// primitives work only inside the model checker. A failed check panics.
fn main() {
    let all = usize::MAX;
    let ever = u64::MAX;
    let cases = [
        ("every_item_comes_through_with_the_smallest_window", 4, 1, all, ever),
        ("every_item_comes_through_with_a_window_of_some", 9, 3, all, ever),
        ("every_item_comes_through_when_bytes_are_what_is_short", 6, 4, 3, ever),
        ("every_item_comes_through_when_it_is_only_bytes", 3, 9, 1, ever),
        ("an_empty_input_ends", 0, 2, all, ever),
        ("a_consumer_that_goes_away_leaves_nobody_asleep", 1_000, 3, all, 2),
    ];
    for (name, items, window, max_bytes, take) in cases {
        check(name, Case { items, window, max_bytes, take });
    }
    println!("test result: ok. {} passed; 0 failed", cases.len());
}
