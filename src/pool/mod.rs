//! A pool to call: a request, its reply, from any task or thread.
//!
//! It is a feed whose source is an inlet, and which one thread of the pool's consumes: that hands each answer to the call
//! that waits for it. The feed is started by the first call, ended when nobody has called for a while, and started again.
//!
//! # Invariants
//! 1. A call that has been put is answered once: by the worker, by an error, or, where the feed goes without an answer,
//!    by the drop of its [`Caller`].
//! 2. A call is counted from before it is put until it has been answered; the feed is ended for want of calls only under the
//!    lock under which they are counted, while there are none.
//! 3. What a fatal error says without a call to say it to is told to the next call, or to [`Pool::close`].

mod call;
mod feed;

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use futures_core::Stream;

use self::call::{Call, Caller};
use self::feed::{Answering, Ask, Asks};
use crate::error::{Error, ErrorKind};
use crate::feed::builder::FeedBuilder;
use crate::queue::{Inlet, Producer, Stopped, inlet};
use crate::stats::Monitor;
use crate::stream::{FeedStream, Polled};
use crate::template::Template;
use crate::template::codec::{Decode, Encode};
use crate::window::outlet::Order;
use crate::window::sync::{Mutex, lock};
use crate::window::unwind;

/// Persistent workers that answer single calls: a request in, its reply back, from any task or thread. Clone it for more
/// handles to the same workers.
///
/// It is for programs that have no stream of items but a request now and then, such as a web server that asks a model. If
/// the items are at hand, a feed is faster and keeps their order.
///
/// ```
/// # mod executor { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/block_on.rs")); }
/// # use executor::block_on;
/// use std::time::Duration;
/// use subfeed::{Pool, Template};
/// let sums = Template::new("sh").args(["-c", "while read -r x; do echo $(($x)); done"]);
/// let pool = Pool::new(sums, 2, 100).idle_after(Duration::from_secs(60));
/// # block_on(async {
/// assert_eq!(pool.call("6 * 7").await?, "42");
/// # Ok::<_, subfeed::Error>(())
/// # })?;
/// assert_eq!(pool.call_blocking("6 * 9")?, "54");
/// # Ok::<_, subfeed::Error>(())
/// ```
///
/// # Bounds
/// At most `buffer` requests are with the workers, and as many again wait in front of them. Further calls wait for room in
/// their own futures, in the order of the calls.
///
/// # Start and end
/// Nothing is started before the first call. With [`idle_after`](Pool::idle_after) the workers end after a time without
/// calls. The next call starts them again, as it does after a fatal error. When the last handle is dropped, calls under way
/// are still answered, and then the workers end; [`close`](Pool::close) waits for that. No drop blocks.
///
/// # Errors and panics
/// An item error is the result of its call. A fatal error ends the feed: one of the calls under way gets it, and the others
/// get an `Err` of kind [`ErrorKind::Halted`]. If no call is under way, the next call gets it. A panic of `encode` or `decode`
/// comes out of its call and affects no other; both run on threads of the pool.
///
/// # Dropping a call
/// If a call is dropped (by a timeout, in a `select!`) before its request was put in, it is not made. Otherwise it is
/// answered, and the answer is discarded; until then it counts in the window.
pub struct Pool<T: Send + 'static, O: Send + 'static> {
    shared: Arc<Shared<T, O>>,
    /// The last one ends it.
    _handle: Arc<Handle<T, O>>,
}

impl<T: Send + 'static, O: Send + 'static> Clone for Pool<T, O> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), _handle: Arc::clone(&self._handle) }
    }
}

struct Shared<T: Send + 'static, O: Send + 'static> {
    state: Mutex<State<T, O>>,
    /// Calls that are not answered.
    calls: Arc<AtomicUsize>,
    capacity: usize,
}

struct State<T: Send + 'static, O: Send + 'static> {
    start: Box<Start<T, O>>,
    /// Where calls are put, while there is a feed.
    running: Option<Producer<Ask<T, O>>>,
    monitor: Option<Monitor>,
    closed: bool,
    /// Feeds that have not ended yet.
    alive: usize,
    /// Told to nobody yet.
    owed: Option<Error>,
    idle_after: Option<Duration>,
    health: Option<(Duration, Arc<Request<T>>)>,
    workers: usize,
    /// Those that wait until no feed is alive.
    closers: Vec<Waker>,
}

/// Starts a feed of an inlet.
type Start<T, O> = dyn FnMut(Inlet<Ask<T, O>>) -> Feed<T, O> + Send;
type Feed<T, O> = Box<dyn Answers<T, O>>;
/// Makes a health request.
type Request<T> = dyn Fn() -> T + Send + Sync;

impl<T: Send + 'static, O: Send + 'static> Pool<T, O> {
    /// A pool of `n` workers, to which at most `buffer` requests are given at a time. Starts nothing.
    ///
    /// If the template, `n` or `buffer` is wrong, each call returns a fatal `Err` that names the setting.
    pub fn new<E, D>(template: Template<E, D>, n: usize, buffer: usize) -> Self
    where
        E: Encode<T> + Clone + 'static,
        D: Decode<Output = O> + Clone + 'static,
    {
        let start = move |items| -> Feed<T, O> {
            let Template { spec, encode, decode } = template.clone();
            let template = Template { spec, encode: Asks(encode), decode };
            let builder: FeedBuilder<_, _, _, Answering<T, D>> =
                FeedBuilder::new(Polled(Items(items)), template);
            let builder = builder.workers(n).buffer(buffer).order(Order::Completion);
            Box::new(builder.start_polled())
        };
        let state = State {
            start: Box::new(start),
            running: None,
            monitor: None,
            closed: false,
            alive: 0,
            owed: None,
            idle_after: None,
            health: None,
            workers: n,
            closers: Vec::new(),
        };
        let (calls, capacity) = (Arc::default(), buffer.max(1));
        let shared = Arc::new(Shared { state: Mutex::new(state), calls, capacity });
        let handle = Arc::new(Handle(Arc::clone(&shared)));
        Self { shared, _handle: handle }
    }

    /// Ends the workers when there has been no call for this long. Default: `None`, never. It applies to all handles; set
    /// it before the first call.
    ///
    /// They end together: a pool that is called now and then keeps all of its workers, also those that have had nothing to do.
    #[must_use]
    pub fn idle_after(self, limit: impl Into<Option<Duration>>) -> Self {
        lock(&self.shared.state).idle_after = limit.into();
        self
    }

    /// While there are workers and no calls, sends them this request after each pause of `every`, once for each worker.
    ///
    /// The replies are discarded. The purpose is to find a worker that does not answer in time, or not well, as the
    /// template's `packet_timeout` and `check` define it, and to replace it before the next call. Idle workers usually get
    /// one request each; this is not guaranteed. A pause of zero is a configuration error, which each call returns.
    #[must_use]
    pub fn health_request(
        self,
        every: Duration,
        request: impl Fn() -> T + Send + Sync + 'static,
    ) -> Self {
        lock(&self.shared.state).health = Some((every, Arc::new(request)));
        self
    }

    /// Sends a request to a worker and waits for its reply. Starts the workers if there are none.
    ///
    /// The future owns what it needs, and keeps the pool alive. It may be dropped at any time.
    ///
    /// # Errors
    /// What a feed would yield for this item; an error of kind [`ErrorKind::Halted`] if the pool is
    /// [closed](Pool::close), or if a fatal error has ended its feed meanwhile.
    ///
    /// # Panics
    /// If `encode` or `decode` panics for this item, with the same payload.
    pub fn call(&self, item: T) -> impl Future<Output = Result<O, Error>> + Send + use<T, O> {
        let pool = self.clone();
        async move {
            // Whole: it is the handle that keeps the pool.
            let pool = pool;
            let call = Call::new();
            let caller = Caller::new(&call);
            let mut ask = Some(Ask::new(item, caller));
            while let Some(next) = ask.take() {
                if let Some((producer, next)) = pool.shared.enter(next)?
                    && let Err(Stopped(next)) = producer.put_async(next).await
                {
                    // It has ended meanwhile; the next one takes it.
                    ask = Some(next);
                }
            }
            poll_fn(|context| call.poll(context)).await.unwrap_or_else(|why| unwind::resume(why))
        }
    }

    /// [`call`](Pool::call) for code that is not async: blocks this thread until the reply has come.
    ///
    /// # Errors
    /// See there.
    ///
    /// # Panics
    /// See there.
    pub fn call_blocking(&self, item: T) -> Result<O, Error> {
        block_on(self.call(item))
    }

    /// Takes no more calls, lets those under way be answered, and waits until the workers have ended and been reaped.
    ///
    /// # Errors
    /// A fatal error that no call has returned, or an error of a worker that belongs to no call.
    pub async fn close(&self) -> Result<(), Error> {
        let running = {
            let mut state = lock(&self.shared.state);
            state.closed = true;
            state.running.take()
        };
        if let Some(producer) = running {
            producer.stop();
        }
        poll_fn(|context| {
            let waker = context.waker().clone();
            let mut state = lock(&self.shared.state);
            if state.alive > 0 {
                state.closers.push(waker);
                return Poll::Pending;
            }
            Poll::Ready(state.owed.take().map_or(Ok(()), Err))
        })
        .await
    }

    /// The monitor of the current feed; `None` before the first call.
    #[must_use]
    pub fn monitor(&self) -> Option<Monitor> {
        lock(&self.shared.state).monitor.clone()
    }
}

impl<T: Send + 'static, O: Send + 'static> fmt::Debug for Pool<T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("calls", &self.shared.calls.load(SeqCst))
            .field("monitor", &self.monitor())
            .finish_non_exhaustive()
    }
}

/// What the handles of a pool have in common, and the pool's own thread has not.
struct Handle<T: Send + 'static, O: Send + 'static>(Arc<Shared<T, O>>);

impl<T: Send + 'static, O: Send + 'static> Drop for Handle<T, O> {
    fn drop(&mut self) {
        let running = {
            let mut state = lock(&self.0.state);
            state.closed = true;
            state.running.take()
        };
        if let Some(producer) = running {
            producer.stop();
        }
    }
}

impl<T: Send + 'static, O: Send + 'static> Shared<T, O> {
    /// A call comes. Gives it back if it has to be put, and where.
    fn enter(self: &Arc<Self>, mut ask: Ask<T, O>) -> Result<Option<Entered<T, O>>, Error> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(Error::new(ErrorKind::Halted, "the pool is closed"));
        }
        if state.health.as_ref().is_some_and(|(every, _)| every.is_zero()) {
            return Err(Error::config("health_request is to be sent every zero seconds")
                .hint("leave it out where idle workers are not to be asked"));
        }
        if let Some(error) = state.owed.take() {
            return Err(error);
        }
        ask.caller.is_counted(&self.calls);
        if let Some(producer) = state.running.as_ref().filter(|producer| !producer.is_stopped()) {
            return Ok(Some((producer.clone(), ask)));
        }
        let (producer, items) = inlet(self.capacity);
        // Before there is anybody who could end it.
        let put = producer.try_put(ask);
        debug_assert!(put.is_ok(), "there is room for one");
        let feed = (state.start)(items);
        state.monitor = Some(feed.monitor());
        let (shared, served) = (Arc::clone(self), producer.clone());
        let thread = thread::Builder::new().name("subfeed-pool".to_owned());
        thread.spawn(move || shared.serve(feed, &served)).map_err(|error| {
            Error::new(ErrorKind::Thread, "a thread of the pool cannot be started").because(error)
        })?;
        state.alive += 1;
        state.running = Some(producer);
        Ok(None)
    }

    /// The pool's thread: hands out answers until the feed has ended.
    fn serve(&self, mut feed: Feed<T, O>, producer: &Producer<Ask<T, O>>) {
        let mut quiet_since = Instant::now();
        let mut asked_at = quiet_since;
        let panicked = loop {
            let deadline = self.deadline(producer, quiet_since, &mut asked_at);
            // A panic of `check` or of a framing, which has ended the feed.
            match unwind::catch(|| park_until(deadline, |context| feed.poll_answer(context))) {
                Ok(Some(Some(true))) => quiet_since = Instant::now(),
                Ok(Some(Some(false)) | None) => {}
                Ok(Some(None)) => break None,
                Err(payload) => break Some(payload),
            }
        };
        let mut error = feed.take_error();
        if let Some(payload) = panicked {
            let what = unwind::message(&*payload);
            let what = format!("the pool's workers were ended by a panic: {what}");
            error = Some(Error::new(ErrorKind::Halted, what).fatal());
        }
        {
            let mut state = lock(&self.state);
            if state.is_running(producer) {
                state.running = None;
            }
        }
        producer.stop();
        let mut left = producer.take_back().into_iter();
        if let Some(mut first) = left.next()
            && let Some(error) = error.take()
        {
            first.caller.answer(Ok(Err(error)));
        }
        // Each is told by its drop. What is the user's in them may panic.
        left.for_each(|ask| drop(unwind::catch(move || drop(ask))));
        park_until(None, |context| feed.poll_close(context));
        feed.join();
        drop(feed);
        let closers = {
            let mut state = lock(&self.state);
            state.alive -= 1;
            if error.is_some() && state.owed.is_none() {
                state.owed = error;
            }
            std::mem::take(&mut state.closers)
        };
        closers.into_iter().for_each(|waker| drop(unwind::catch(|| waker.wake())));
    }

    /// Until when to wait for an answer. Does what is to be done while nobody calls.
    fn deadline(
        &self,
        producer: &Producer<Ask<T, O>>,
        quiet_since: Instant,
        asked_at: &mut Instant,
    ) -> Option<Instant> {
        let mut state = lock(&self.state);
        if self.calls.load(SeqCst) > 0 || !state.is_running(producer) {
            return None;
        }
        let now = Instant::now();
        let idle = state.idle_after.and_then(|limit| quiet_since.checked_add(limit));
        if idle.is_some_and(|idle| now >= idle) {
            state.running = None;
            drop(state);
            producer.stop();
            return None;
        }
        let health = state.health.clone().and_then(|(every, request)| {
            let at = quiet_since.max(*asked_at).checked_add(every)?;
            Some((at, every, request))
        });
        let workers = state.workers;
        drop(state);
        let health = health.and_then(|(at, every, request)| {
            if now < at {
                return Some(at);
            }
            *asked_at = now;
            for _ in 0..workers {
                // A request that panics or finds no room is none.
                let put = unwind::catch(|| {
                    producer.try_put(Ask::new(request(), Caller::nobody())).is_ok()
                });
                if !matches!(put, Ok(true)) {
                    break;
                }
            }
            now.checked_add(every)
        });
        idle.into_iter().chain(health).min()
    }
}

impl<T: Send + 'static, O: Send + 'static> State<T, O> {
    /// Whether calls are put here.
    fn is_running(&self, producer: &Producer<Ask<T, O>>) -> bool {
        self.running.as_ref().is_some_and(|running| running.is_same(producer))
    }
}

/// Where a call is put, and the call.
type Entered<T, O> = (Producer<Ask<T, O>>, Ask<T, O>);

/// The feed of a pool, whatever its template is.
trait Answers<T, O>: Send {
    /// Hands out an answer, if one is here, and says whether it was that to a call. `Ready(None)` is the end.
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Option<bool>>;
    /// What nobody was told: a fatal error, or what belongs to no packet.
    fn take_error(&mut self) -> Option<Error>;
    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<()>;
    fn join(&mut self);
    fn monitor(&self) -> Monitor;
}

impl<T, D> Answers<T, D::Output> for FeedStream<Answering<T, D>>
where
    T: Send + 'static,
    D: Decode + 'static,
    D::Output: Send + 'static,
{
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Option<bool>> {
        Pin::new(self).poll_next(context)
    }

    fn take_error(&mut self) -> Option<Error> {
        self.take_untold()
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.poll_closed(context)
    }

    fn join(&mut self) {
        self.wait_for_threads();
    }

    fn monitor(&self) -> Monitor {
        Self::monitor(self)
    }
}

/// What is put, as a stream.
struct Items<T>(Inlet<T>);

impl<T> Stream for Items<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        // An inlet is not pinned.
        self.get_mut().0.poll_next(context.waker())
    }
}

impl<T> Unpin for Items<T> {}

/// A thread as the one that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls on this thread until it is ready, or until then.
fn park_until<A>(
    deadline: Option<Instant>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<A>,
) -> Option<A> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(ready) = poll(&mut Context::from_waker(&waker)) {
            return Some(ready);
        }
        match deadline {
            None => thread::park(),
            Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                None | Some(Duration::ZERO) => return None,
                Some(left) => thread::park_timeout(left),
            },
        }
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let output = park_until(None, |context| future.as_mut().poll(context));
    output.expect("without a deadline it waits until it is ready")
}
