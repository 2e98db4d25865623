//! A toy: a whole executor. It answers each request with its length, on a thread of its own.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::record::{Batch, Requests};
use crate::window::packet::{End, Outcome, Span};
use crate::window::seam::{Bounds, Ends, Executor, attach};
use crate::window::sync::atomic::{AtomicBool, Ordering::SeqCst};
use crate::window::sync::{Mutex, lock, thread};
use crate::window::{handover::Arrival, intake::Intake, joins::ExecutorThread, outlet::Outlet};

pub(crate) type Lengths = VecDeque<usize>;

#[derive(Default)]
struct Toy(AtomicBool, Mutex<Option<thread::Thread>>);

impl Executor for Arc<Toy> {
    fn wake(&self) {
        self.0.store(true, SeqCst);
        lock(&self.1).as_ref().inspect(|thread| thread.unpark());
    }
}

pub(crate) fn start(bounds: Bounds) -> (Intake<Requests, Lengths>, Outlet<Requests, Lengths>) {
    let toy: Arc<Toy> = Arc::default();
    let Ends::<Requests, _> { intake, mut supply, outbox, mut outlet } =
        attach(bounds, toy.clone());
    let run = move || {
        *lock(&toy.1) = Some(thread::current());
        let (mut answered, mut pulled, mut end, mut spans) = (0, None, End::default(), Vec::new());
        while !supply.is_dropped() && pulled != Some(answered) {
            supply.ask();
            while let Some(arrival) = supply.take() {
                match arrival {
                    Arrival::Batch(batch) => {
                        let (first, count) = (batch.first(), batch.len());
                        let lengths = (0..count).map(|i| batch.request(i).len());
                        let outcome = Outcome::Replies(lengths.collect());
                        supply.gate().hold(count);
                        supply.gate().release(batch.bytes());
                        spans.push(Span { first, count: count as u64, weight: count, outcome });
                    }
                    Arrival::Settled(span) => spans.push(span),
                    Arrival::End { pulled: n, panic, .. } => (pulled, end.panic) = (Some(n), panic),
                }
            }
            answered += spans.iter().map(|span| span.count).sum::<u64>();
            outbox.put(&mut spans);
            while pulled != Some(answered) && !toy.0.swap(false, SeqCst) {
                thread::park();
            }
        }
        outbox.end(end);
    };
    outlet.keep_executor(ExecutorThread::spawn("toy", run).expect("a thread"));
    (intake, outlet)
}
