//! A function as a source, under schedules from seeds: the source, its session, the registry, the passes and the child's
//! own state machine are those that ship; the two processes, their pipes and their threads are
//! [simulated](crate::source::solo::sim).
//!
//! The child hears its orders in pieces, makes items in its own time, and writes what it reports as far as there is room.
//! As the seed has it, it fails while it is initialized, cannot begin a pass, gives items that fail, that are too large or
//! that panic, is stuck in an item, dies anywhere, also inside a message, freezes, closes its output, or says what is no
//! report, and what is one of another pass. The consumer makes one pass after another, leaves some early, also before they
//! have begun, restarts the source, and drops it anywhere.
//!
//! # What is checked
//! - each item is the next one of its pass, or the error that the function gave; a pass ends where the function's does,
//!   or with a fatal error that the schedule justifies;
//! - what a child has sent before its death has arrived, and every later pass begins with the same error;
//! - no item is asked of the function before the consumer has made room for it, and no more bytes are held than may be;
//! - no order makes no sense to the child;
//! - nothing sleeps for ever but behind a child that does; a drop or a restart ends it within its grace and the kill
//!   sequence, and it is reaped, once.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::Poll;
use std::time::Duration;

use crate::error::{BoxError, Error, ErrorKind};
use crate::feed::decoded;
use crate::signal::Signal;
use crate::source::function::orders::{Orders, Verdict};
use crate::source::function::passes::{Begin, Passes};
use crate::source::function::protocol::{self, Command, Failure, HEAD, Opening, Status};
use crate::source::function::registry::Registry;
use crate::source::function::source::FunctionSource;
use crate::source::function::worker::{CONFUSED, Next, Worker};
use crate::source::function::{Function, LEAVE_GRACE, wire};
use crate::source::solo::sim::world::{
    Bell, Consumer, Found, MS, Nature, Process, Program, World, must,
};
use crate::source::solo::sim::{Report, replay as played, schedules, sweep};
use crate::subprocess::protocol::Now;
use crate::subprocess::sim::{Rng, stir};
use crate::window::outlet::Outlet;

/// Which child made it, in which of its passes, and which one it is; and something that fills.
type Item = (u64, u64, u64, Vec<u8>);

const SIMULATED: Function<u64, Item> = Function::new("simulated");

/// What the function returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Each,
    Once,
    Epochs,
}

/// What goes wrong with a child, beside what its function does.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// After so many bytes it exits with this wait status.
    Dies(usize, i32),
    /// After so many bytes it does nothing more.
    Freezes(usize),
    /// After so many bytes it closes its outputs, and exits later.
    Hushes(usize),
    /// After so many reports it says this.
    Says(usize, Vec<u8>),
    /// Item `k` of a pass takes for ever.
    Sticks(u64),
}

/// What the function gives next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    Item,
    TooLarge,
    Failed,
    Panic,
    End,
    /// There is nothing any more to begin.
    Spent,
    /// The pass cannot begin.
    BeginFailed,
}

impl Made {
    /// The kind of the error that it is, and whether that is fatal.
    fn error(self) -> Option<(ErrorKind, bool)> {
        match self {
            Self::Item | Self::End => None,
            Self::TooLarge => Some((ErrorKind::Encode, false)),
            Self::Failed => Some((ErrorKind::Failed, false)),
            Self::Panic | Self::BeginFailed => Some((ErrorKind::Failed, true)),
            Self::Spent => Some((ErrorKind::Config, true)),
        }
    }
}

#[derive(Clone, Debug)]
struct Schedule {
    seed: u64,
    nature: Nature,
    kind: Kind,
    /// The longest pass; `None`: some do not end.
    longest: Option<u64>,
    filler: u64,
    item_limit: usize,
    /// One item in so many fails, panics; one pass in so many does not begin. 0: none.
    fails: u64,
    panics: u64,
    refuses: u64,
    epochs: u64,
    trailing: bool,
    /// The initializer fails, the function does, or one of them panics.
    opens: u64,
    /// Of each child, in turn.
    faults: Vec<Fault>,
    /// How long the function takes for an item, and for all else.
    item_time: Duration,
    other_time: Duration,
    piece: usize,
    window: usize,
    max_bytes: usize,
    start_timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
    end_timeout: Option<Duration>,
    kill_sequence: Option<Vec<(Signal, Duration)>>,
    /// Passes in all, and how many pass before a restart, on average.
    passes: u64,
    restart_every: u64,
    leave_every: u64,
    consumer_pause: Duration,
    rest_every: u64,
    rest: Duration,
    drop_at: Option<Now>,
}

fn says(rng: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    let generation = rng.below(4);
    match rng.below(6) {
        // Of a pass that is over, or is not yet: nothing comes of it. Or it is of this one, and not an item.
        0 => protocol::put(&mut out, Status::IteratorSuccess as u8, 1_000 + generation, b"stale"),
        1 => protocol::put(&mut out, Status::IterationFinished as u8, 0, b""),
        2 => protocol::put(&mut out, Status::InitializationSucceeded as u8, 0, b""),
        3 => protocol::put(&mut out, Status::IteratorFailed as u8, generation, b"\x09"),
        4 => protocol::put(&mut out, rng.range(8, 255) as u8, generation, b"?"),
        _ => {
            protocol::put(&mut out, Status::IteratorSuccess as u8, generation, b"");
            out[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        }
    }
    out
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let rng = &mut Rng::new(seed ^ 0xf00d);
        let kind = rng.pick(&[Kind::Each, Kind::Each, Kind::Once, Kind::Epochs]);
        let endless = kind != Kind::Epochs && rng.one_in(4);
        let sometimes = |rng: &mut Rng| if rng.one_in(4) { rng.range(1, 12) } else { 0 };
        let faults = (0..4).map(|_| match rng.below(14) {
            0 => Fault::Dies(rng.skewed(6_000) as usize - 1, rng.pick(&[0, 256, 11, 9])),
            1 => Fault::Freezes(rng.skewed(6_000) as usize - 1),
            2 => Fault::Hushes(rng.skewed(6_000) as usize - 1),
            3 => Fault::Says(rng.skewed(60) as usize - 1, says(rng)),
            4 => Fault::Sticks(rng.below(20)),
            _ => Fault::None,
        });
        let faults: Vec<Fault> = faults.collect();
        let stays = |fault: &Fault| !matches!(fault, Fault::None | Fault::Dies(..));
        let patient = rng.one_in(6) && !faults.iter().any(stays);
        let hard = vec![(Signal::Kill, Duration::ZERO)];
        let soft = [(Signal::Interrupt, 50 * MS), (Signal::Terminate, 50 * MS)];
        Self {
            seed,
            nature: Nature {
                channel: 1,
                room: rng.pick(&[16, 300, 4_096, 65_536]),
                input_room: rng.pick(&[5, 40, 4_096]),
                ignores_term: rng.one_in(3),
                heir: rng.one_in(6).then(|| rng.pick(&[10 * MS, 90_000 * MS])),
                unknown_status: rng.one_in(10),
                late: rng.one_in(8).then(|| MS * rng.pick(&[50, 7_000])),
                is_attentive: true,
            },
            kind,
            longest: (!endless).then(|| rng.skewed(60) - 1),
            filler: rng.pick(&[0, 3, 40, 900]),
            item_limit: rng.pick(&[64 << 20, 64 << 20, 500, 10]),
            fails: sometimes(rng),
            panics: if kind == Kind::Epochs { 0 } else { sometimes(rng) },
            refuses: if kind == Kind::Each { sometimes(rng) } else { 0 },
            epochs: rng.range(1, 5),
            trailing: rng.one_in(2),
            opens: rng.below(24),
            faults,
            item_time: rng.pick(&[Duration::ZERO, Duration::ZERO, MS / 100, 7 * MS, 900 * MS]),
            other_time: rng.pick(&[Duration::ZERO, Duration::ZERO, MS, 90 * MS]),
            piece: rng.pick(&[3, 50, 4_096, 65_536]),
            window: rng.pick(&[1, 2, 16, 1_000]),
            max_bytes: rng.pick(&[1, 100, 5_000, 64 << 20, 64 << 20]),
            start_timeout: rng.one_in(4).then(|| rng.pick(&[20 * MS, 60_000 * MS])),
            idle_timeout: rng.one_in(3).then(|| rng.pick(&[3_000 * MS, 60_000 * MS])),
            end_timeout: match patient {
                true => None,
                false => Some(rng.pick(&[LEAVE_GRACE, LEAVE_GRACE, 5 * MS, 5_000 * MS])),
            },
            kill_sequence: rng.one_in(3).then(|| match rng.one_in(2) {
                true => hard.clone(),
                false => [&soft[..], &hard].concat(),
            }),
            passes: rng.skewed(8),
            restart_every: rng.pick(&[u64::MAX, 3, 1]),
            leave_every: if endless { 1 } else { rng.pick(&[u64::MAX, 2, 4]) },
            consumer_pause: rng.pick(&[Duration::ZERO, MS / 100, MS, 50 * MS]),
            rest_every: rng.pick(&[u64::MAX, u64::MAX, 2, 7]),
            rest: rng.pick(&[10 * MS, 700 * MS, 70_000 * MS]),
            drop_at: rng.one_in(8).then(|| MS * rng.skewed(4_000) as u32),
        }
    }

    fn source(&self) -> FunctionSource<Item> {
        let source = SIMULATED.iterate_in_subprocess(&self.seed, self.window);
        let source = source.max_bytes(self.max_bytes).item_limit(self.item_limit);
        let source = source.start_timeout(self.start_timeout).idle_timeout(self.idle_timeout);
        let source = source.end_timeout(self.end_timeout);
        match &self.kill_sequence {
            Some(sequence) => source.kill_sequence(sequence.clone()),
            None => source,
        }
    }

    fn fault(&self, child: u64) -> &Fault {
        self.faults.get(child as usize).unwrap_or(&Fault::None)
    }

    fn word(&self, child: u64, pass: u64, k: u64) -> u64 {
        stir(self.seed ^ stir(child ^ stir(pass ^ stir(k))))
    }

    fn item(&self, child: u64, pass: u64, k: u64) -> Item {
        let word = self.word(child, pass, k);
        (child, pass, k, vec![word as u8; (word % (self.filler + 1)) as usize])
    }

    /// How many items there are in a pass; where epochs are over, of which one more there is nothing.
    fn len(&self, child: u64, pass: u64) -> u64 {
        let word = self.word(child, pass, u64::MAX);
        match self.longest {
            Some(longest) => word % (longest + 1),
            None if word.is_multiple_of(3) => word % 30,
            None => u64::MAX,
        }
    }

    /// The epochs that the function has: one at the end that has neither an item nor a mark is none.
    fn epochs(&self, child: u64) -> u64 {
        let nothing = !self.trailing && self.len(child, self.epochs - 1) == 0;
        self.epochs - u64::from(nothing)
    }

    fn begins(&self, child: u64, pass: u64) -> Option<Made> {
        let refused =
            self.refuses != 0 && self.word(child, pass, u64::MAX - 1).is_multiple_of(self.refuses);
        match self.kind {
            Kind::Each => refused.then_some(Made::BeginFailed),
            Kind::Once => (pass > 0).then_some(Made::Spent),
            Kind::Epochs => (pass >= self.epochs(child)).then_some(Made::Spent),
        }
    }

    /// What the function's iterator gives as item `k` of a pass that has begun.
    fn gives(&self, child: u64, pass: u64, k: u64) -> Made {
        if k >= self.len(child, pass) {
            return Made::End;
        }
        let word = self.word(child, pass, k) >> 16;
        if self.panics != 0 && word.is_multiple_of(self.panics) {
            Made::Panic
        } else if self.fails != 0 && (word >> 16).is_multiple_of(self.fails) {
            Made::Failed
        } else if wire::write(&self.item(child, pass, k))
            .is_ok_and(|item| item.len() > self.item_limit)
        {
            Made::TooLarge
        } else {
            Made::Item
        }
    }

    /// What the consumer is to see in place `k` of a pass.
    fn expected(&self, child: u64, pass: u64, k: u64) -> Made {
        self.begins(child, pass).unwrap_or_else(|| self.gives(child, pass, k))
    }

    fn does_not_open(&self) -> bool {
        self.opens < 4
    }

    /// Whether some child may be waited for without an end.
    fn may_be_late(&self) -> bool {
        let stays = |fault: &Fault| {
            matches!(fault, Fault::Freezes(_) | Fault::Sticks(_) | Fault::Hushes(_))
        };
        let slow = 2 * (self.item_time + self.other_time) > 1_000 * MS
            || self.start_timeout == Some(20 * MS);
        let limited = self.start_timeout.is_some() || self.idle_timeout.is_some();
        limited && (slow || self.faults.iter().any(stays))
    }
}

/// What function and oracle share.
#[derive(Debug, Default)]
struct Ledger {
    child: u64,
    /// Items that the consumer has been given of each pass of this child.
    yielded: Vec<u64>,
    window: u64,
    /// What is left of a pass is skipped when the next one begins.
    skips: bool,
    wrong: Option<String>,
}

impl Ledger {
    /// The function is asked for item `k`.
    fn asked(&mut self, pass: u64, k: u64) {
        let yielded = self.yielded.get(pass as usize).copied().unwrap_or(0);
        let skipped = self.skips && self.yielded.len() as u64 > pass + 1;
        if k >= yielded.saturating_add(self.window) && !skipped {
            self.wrong.get_or_insert(format!(
                "item {k} of pass {pass} is asked for, and {yielded} are yielded"
            ));
        }
    }
}

type Shared = Rc<RefCell<Ledger>>;

/// One pass of the function.
fn pass(
    schedule: Arc<Schedule>,
    ledger: Shared,
    child: u64,
    pass: u64,
) -> impl Iterator<Item = Result<Item, BoxError>> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let k = next;
        next += 1;
        ledger.borrow_mut().asked(pass, k);
        match schedule.gives(child, pass, k) {
            Made::End => None,
            // Nothing of it on stderr.
            Made::Panic => std::panic::resume_unwind(Box::new("simulated")),
            Made::Failed => Some(Err("simulated".into())),
            _ => Some(Ok(schedule.item(child, pass, k))),
        }
    })
}

/// All passes of the function.
fn passes(schedule: Arc<Schedule>, ledger: Shared, child: u64) -> Passes<Item> {
    match schedule.kind {
        Kind::Each => {
            let mut begun = 0;
            Passes::try_each(move || {
                let k = begun;
                begun += 1;
                match schedule.begins(child, k) {
                    Some(_) => Err(BoxError::from("simulated")),
                    None => Ok(pass(Arc::clone(&schedule), Rc::clone(&ledger), child, k)),
                }
            })
        }
        Kind::Once => Passes::try_once(pass(schedule, ledger, child, 0)),
        Kind::Epochs => {
            let last = schedule.epochs - 1;
            let epochs = (0..schedule.epochs).flat_map(move |epoch| {
                let ends = epoch < last || schedule.trailing;
                let items = pass(Arc::clone(&schedule), Rc::clone(&ledger), child, epoch);
                items.map(|item| item.map(Some)).chain(ends.then_some(Ok(None)))
            });
            Passes::try_epochs(epochs)
        }
    }
}

fn registry(schedule: &Arc<Schedule>, ledger: &Shared, child: u64) -> Registry {
    let opens = schedule.opens;
    let initializer = move || match opens {
        0 => Err("simulated"),
        1 => std::panic::resume_unwind(Box::new("simulated")),
        _ => Ok(()),
    };
    let (schedule, ledger) = (Arc::clone(schedule), Rc::clone(ledger));
    let function = move |seed: u64| match opens {
        2 => Err("simulated"),
        3 => std::panic::resume_unwind(Box::new("simulated")),
        _ => {
            assert_eq!(seed, schedule.seed);
            Ok(passes(schedule, ledger, child))
        }
    };
    Registry::new().initializer(initializer).register(SIMULATED, function)
}

type Open = Box<dyn FnOnce(&Opening) -> Result<Box<dyn Begin>, Failure>>;

/// The child's process: its listener, its worker and its writer.
struct Child {
    schedule: Arc<Schedule>,
    fault: Fault,
    orders: Orders,
    /// What has been heard and is no whole message.
    heard: Vec<u8>,
    worker: Worker<Open>,
    /// What code of the user's gives, and when.
    given: Vec<u8>,
    busy_until: Option<Now>,
    unwritten: VecDeque<u8>,
    printed: usize,
    reports: usize,
    /// Where what was reported ends, of which pass it is, and whether it takes a place in it.
    ends: Vec<(usize, u64, bool)>,
    leave_by: Option<Now>,
    frozen: bool,
    stuck: bool,
    hushed: bool,
    /// The first generation of this child.
    first: u64,
    opened: bool,
}

impl Child {
    fn new(schedule: &Arc<Schedule>, ledger: &Shared, child: u64, first: u64) -> Self {
        let registry = registry(schedule, ledger, child);
        Self {
            fault: schedule.fault(child).clone(),
            schedule: Arc::clone(schedule),
            orders: Orders::default(),
            heard: Vec::new(),
            worker: Worker::new(Box::new(move |opening: &Opening| registry.open(opening))),
            given: Vec::new(),
            busy_until: None,
            unwritten: VecDeque::new(),
            printed: 0,
            reports: 0,
            ends: Vec::new(),
            leave_by: None,
            frozen: false,
            stuck: false,
            hushed: false,
            first,
            opened: false,
        }
    }

    /// Whether something that it was to say and that says nothing has been said.
    fn has_babbled(&self) -> bool {
        matches!(&self.fault, Fault::Says(at, _) if self.reports > *at)
    }

    /// How many ends of a pass have come out of it whole.
    fn delivered(&self, pass: u64) -> u64 {
        let whole = |end: &&(usize, u64, bool)| end.0 <= self.printed && end.2;
        self.ends.iter().filter(whole).filter(|end| end.1 == pass + self.first).count() as u64
    }

    fn listen(&mut self, child: &mut Process) {
        let n = child.rng.range(1, self.schedule.piece as u64) as usize;
        self.heard.extend(child.listen(n));
        while let Some((what, generation, body)) =
            self.heard.first_chunk::<HEAD>().map(protocol::head)
            && body.end <= self.heard.len()
        {
            let command = Command::from_byte(what);
            child.say(|| format!("hears {command:?} of {generation}"));
            self.opened |= command == Some(Command::Open);
            self.orders.hear(command, generation, &self.heard[body.clone()]);
            self.heard.drain(..body.end);
        }
        if child.is_told_all() && !self.orders.is_leaving() {
            self.orders.hear(Some(Command::Abort), 0, &[]);
        }
        if self.orders.is_leaving() && self.leave_by.is_none() {
            let patience = self.schedule.end_timeout.unwrap_or(LEAVE_GRACE);
            // Where nothing was opened there is nothing to wait for but our own threads.
            let patience = if self.opened { patience } else { MS };
            self.leave_by = Some(child.now.saturating_add(patience));
        }
    }

    /// Whether it goes on after this.
    fn write(&mut self, child: &mut Process) -> bool {
        if self.unwritten.is_empty() || self.hushed {
            return true;
        }
        if !child.is_heard() {
            self.unwritten.clear();
            self.orders.leave();
            return true;
        }
        let left = match self.fault {
            Fault::Dies(at, _) | Fault::Freezes(at) | Fault::Hushes(at) => {
                at - self.printed.min(at)
            }
            _ => usize::MAX,
        };
        if left == 0 {
            match self.fault {
                Fault::Dies(_, status) => child.exit(status),
                Fault::Freezes(_) => self.frozen = true,
                _ => {
                    self.hushed = true;
                    child.hush();
                    self.unwritten.clear();
                    self.orders.leave();
                    self.busy_until = Some(child.now + 9_000 * MS);
                    return true;
                }
            }
            return false;
        }
        let n = child.rng.range(1, self.schedule.piece as u64) as usize;
        self.printed += child.print(&mut self.unwritten, n.min(left));
        true
    }

    /// What code of the user's has given is reported, each time before anything else happens.
    fn post(&mut self, reports: &[u8]) {
        let mut rest = reports;
        while let Some((what, generation, body)) = rest.first_chunk::<HEAD>().map(protocol::head) {
            if let Fault::Says(at, says) = &self.fault
                && *at == self.reports
            {
                self.unwritten.extend(says);
            }
            self.reports += 1;
            self.unwritten.extend(&rest[..body.end]);
            let status = Status::from_byte(what);
            let failed = Failure::decode(&rest[body.clone()]);
            let is_item = status == Some(Status::IteratorSuccess)
                || (status == Some(Status::IteratorFailed)
                    && failed.is_some_and(|failure| !failure.ends_the_pass()));
            self.ends.push((self.printed + self.unwritten.len(), generation, is_item));
            rest = &rest[body.end..];
        }
    }

    /// One step of the worker. Whether there may be another.
    fn work(&mut self, child: &mut Process) -> bool {
        if self.stuck {
            return false;
        }
        if let Some(at) = self.busy_until {
            if child.now < at {
                return false;
            }
            self.busy_until = None;
            let given = std::mem::take(&mut self.given);
            self.post(&given);
            return true;
        }
        let mut reports = Vec::new();
        let mut time = Duration::ZERO;
        match self.worker.next() {
            Next::Order => match self.orders.next() {
                Some(order) => {
                    child.say(|| format!("{order:?}"));
                    self.worker.order(order, &mut reports);
                }
                None => return false,
            },
            Next::Item { generation, index } => match self.orders.may_make(generation, index) {
                Some(Verdict::Go) if self.unwritten.len() >= 2 * self.schedule.nature.room => {
                    return false;
                }
                Some(verdict) => {
                    if self.fault == Fault::Sticks(index) && verdict == Verdict::Go {
                        self.stuck = true;
                        return false;
                    }
                    time = self.schedule.item_time * child.rng.below(3) as u32;
                    self.worker.item(verdict, &mut reports);
                }
                None => return false,
            },
            Next::Run => {
                time = self.schedule.other_time * child.rng.below(3) as u32;
                self.worker.run(&mut reports);
            }
            Next::Exit(status) => {
                if self.unwritten.is_empty() {
                    child.exit(status << 8);
                }
                return false;
            }
        }
        if time > Duration::ZERO {
            self.given = reports;
            self.busy_until = Some(child.now + time);
        } else {
            self.post(&reports);
        }
        true
    }
}

/// Code of the user's did not come to its end in time.
const HELD_UP: i32 = 3;

impl Program for Child {
    fn is_hung(&self) -> bool {
        let limited = self.schedule.idle_timeout.is_some();
        (self.frozen || self.stuck) && !limited
    }

    fn act(&mut self, child: &mut Process) {
        if self.frozen {
            return;
        }
        self.listen(child);
        if self.leave_by.is_some_and(|at| at <= child.now) {
            return child.exit(HELD_UP << 8);
        }
        if !self.write(child) {
            return;
        }
        let again = self.work(child);
        if !child.is_alive() {
            return;
        }
        let writes = !self.unwritten.is_empty() && !self.hushed && child.has_room();
        let listens = child.has_words() || (child.is_told_all() && !self.orders.is_leaving());
        if again || writes || listens {
            return child.goes_on_in(Duration::ZERO);
        }
        let busy = self.busy_until.filter(|_| !self.stuck);
        if let Some(at) = busy.into_iter().chain(self.leave_by).min() {
            child.goes_on_in(at.saturating_sub(child.now));
        }
    }
}

/// The consumer, pass after pass, child after child.
struct Taker {
    schedule: Arc<Schedule>,
    ledger: Shared,
    source: Option<FunctionSource<Item>>,
    /// The source waits for the end of its child.
    restarts: bool,
    outlet: Option<Outlet>,
    decode: wire::Item<Item>,
    bell: Arc<Bell>,
    wake: Option<Now>,
    asleep: bool,
    rng: Rng,
    /// Passes begun on this child, and in all.
    begun: u64,
    passes: u64,
    /// What has come of this pass, and after how many items it is left.
    k: u64,
    leave_at: u64,
    /// It has had its last item.
    ended: bool,
    /// What has become of this child: the kind, in which pass, after how many items.
    fate: Option<(ErrorKind, u64, u64)>,
    /// What only a call that failed could excuse.
    doubts: Vec<String>,
    items: u64,
    fatal: u64,
}

impl Taker {
    fn new(schedule: Arc<Schedule>, ledger: Shared, rng: Rng) -> Self {
        Self {
            source: Some(schedule.source()),
            schedule,
            ledger,
            restarts: false,
            outlet: None,
            decode: wire::Item::default(),
            bell: Arc::default(),
            wake: Some(Now::ZERO),
            asleep: false,
            rng,
            begun: 0,
            passes: 0,
            k: 0,
            leave_at: 0,
            ended: false,
            fate: None,
            doubts: Vec::new(),
            items: 0,
            fatal: 0,
        }
    }

    fn child(&self) -> u64 {
        self.ledger.borrow().child
    }

    /// There is a new child.
    fn is_launched(&mut self, child: u64, now: Now) {
        let mut ledger = self.ledger.borrow_mut();
        (ledger.child, ledger.yielded) = (child, Vec::new());
        (self.restarts, self.begun, self.fate) = (false, 0, None);
        self.wake = Some(now);
    }

    /// Between two passes.
    fn goes_on(&mut self, now: Now) {
        let schedule = Arc::clone(&self.schedule);
        let Some(source) = &mut self.source else { return };
        if self.passes >= schedule.passes {
            return self.leave();
        }
        if self.begun > 0 && self.rng.one_in(schedule.restart_every) {
            source.restart();
            self.restarts = true;
            return;
        }
        self.outlet = Some(source.begin());
        (self.begun, self.passes) = (self.begun + 1, self.passes + 1);
        self.ledger.borrow_mut().yielded.push(0);
        (self.k, self.ended) = (0, false);
        let leaves = self.rng.one_in(schedule.leave_every);
        self.leave_at = if leaves { self.rng.below(40) } else { u64::MAX };
        self.wake = Some(now);
    }

    fn none(&mut self) -> Found {
        let (child, pass, k) = (self.child(), self.begun - 1, self.k);
        let end = self.schedule.expected(child, pass, k);
        must!(self.ended || end == Made::End, "pass {pass} ends before item {k}, {end:?}");
        must!(
            self.ended || self.fate.is_none(),
            "pass {pass} of a child that is gone ends without an error"
        );
        self.outlet = None;
        Ok(())
    }

    fn item(&mut self, packet: u64, item: Result<Item, Error>) -> Found {
        let (child, pass, k) = (self.child(), self.begun - 1, self.k);
        must!(!self.ended, "{item:?} comes behind a fatal error");
        let expected = self.schedule.expected(child, pass, k);
        match item {
            Ok(item) => {
                must!(
                    packet == k
                        && expected == Made::Item
                        && item == self.schedule.item(child, pass, k),
                    "{item:?} is item {packet}, {k} of pass {pass} was next, {expected:?}"
                );
                must!(self.fate.is_none(), "an item of a child that is gone");
            }
            Err(error) if error.is_fatal() => {
                (self.ended, self.fatal) = (true, self.fatal + 1);
                if expected.error() == Some((error.kind(), true)) && self.fate.is_none() {
                    return Ok(());
                }
                self.is_fatal(&error, pass, k);
                return Ok(());
            }
            Err(error) => {
                must!(
                    packet == k
                        && error.packet() == Some(k)
                        && expected.error() == Some((error.kind(), false)),
                    "{error:?} is item {packet}, {k} of pass {pass} was next, {expected:?}"
                );
            }
        }
        self.k += 1;
        self.items += 1;
        self.ledger.borrow_mut().yielded[pass as usize] = self.k;
        Ok(())
    }

    /// This child is gone.
    fn is_fatal(&mut self, error: &Error, pass: u64, k: u64) {
        let schedule = &self.schedule;
        let kind = error.kind();
        if let Some((before, ..)) = self.fate {
            if (before, 0) != (kind, k) {
                self.doubts.push(format!("{error:?} after {k} items, and {before:?} before"));
            }
            return;
        }
        self.fate = Some((kind, pass, k));
        let fault = schedule.fault(self.child());
        let justified = match kind {
            ErrorKind::Failed => schedule.does_not_open() && k == 0,
            ErrorKind::Timeout => schedule.may_be_late(),
            ErrorKind::Reply => matches!(fault, Fault::Says(..)),
            ErrorKind::Died => matches!(fault, Fault::Dies(..) | Fault::Hushes(_)),
            _ => false,
        };
        if !justified {
            self.doubts.push(format!("{error:?} in pass {pass} after {k} items: {fault:?}"));
        }
    }
}

impl Consumer for Taker {
    fn wake(&self) -> Option<Now> {
        self.wake
    }

    fn hear(&mut self, now: Now) {
        if self.bell.has_rung() && self.asleep {
            self.wake = Some(now);
        }
    }

    fn leave(&mut self) {
        self.outlet = None;
        self.source = None;
        (self.wake, self.asleep) = (None, false);
    }

    fn has_left(&self) -> bool {
        self.source.is_none() || self.restarts
    }

    fn step(&mut self, now: Now) -> Found {
        (self.wake, self.asleep) = (None, false);
        let schedule = Arc::clone(&self.schedule);
        if self.restarts {
            return Ok(());
        }
        if schedule.drop_at.is_some_and(|at| now >= at) {
            self.leave();
            return Ok(());
        }
        let Some(outlet) = &mut self.outlet else {
            self.goes_on(now);
            return Ok(());
        };
        if self.k >= self.leave_at {
            self.outlet = None;
        } else {
            let bell = &self.bell;
            match outlet.poll_next(|| bell.waiter()) {
                Poll::Pending => {
                    self.asleep = true;
                    self.wake = schedule.drop_at;
                    return Ok(());
                }
                Poll::Ready(None) => self.none()?,
                Poll::Ready(Some((packet, given))) => {
                    let item = decoded(&mut self.decode, &[], packet, given).of_work(packet);
                    self.item(packet.0, item)?;
                }
            }
        }
        let mut at = now + schedule.consumer_pause * self.rng.below(3) as u32;
        if self.rng.one_in(schedule.rest_every) {
            at += schedule.rest;
        }
        self.wake = Some(schedule.drop_at.map_or(at, |drop_at| at.min(drop_at.max(now))));
        Ok(())
    }
}

fn play(seed: u64, fails: Option<u64>, trace: bool) -> Result<Report, String> {
    // As at the top of a program's `main`.
    Registry::new().serve();
    let schedule = Arc::new(Schedule::new(seed));
    if trace {
        eprintln!("{schedule:#?}");
    }
    let mut rng = Rng::new(!seed);
    let (window, skips) = (schedule.window as u64, schedule.kind == Kind::Epochs);
    let ledger = Ledger { window, skips, ..Ledger::default() };
    let ledger = Rc::new(RefCell::new(ledger));
    let taker = Taker::new(Arc::clone(&schedule), Rc::clone(&ledger), Rng::new(rng.next()));
    let taker = Rc::new(RefCell::new(taker));
    let (mut now, mut calls, mut faulted) = (Now::ZERO, 0, false);
    let longest = schedule.filler as usize + 40;
    let most = schedule.max_bytes.saturating_add(longest + 2 * schedule.nature.room + 3_000);
    for child in 0.. {
        let woken = Arc::new(AtomicBool::new(false));
        let wakes = Arc::clone(&woken);
        let (plan, session) = {
            let mut taker = taker.borrow_mut();
            taker.is_launched(child, now);
            let Some(source) = &mut taker.source else { break };
            let wake = move || wakes.store(true, SeqCst);
            source.launch_elsewhere(wake).map_err(|error| error.to_string())?
        };
        let first = taker.borrow().passes + 1;
        let program = Child::new(&schedule, &ledger, child, first);
        let nature = schedule.nature.clone();
        let rng = Rng::new(rng.next());
        let world = World::new(program, nature, Rc::clone(&taker), woken, rng, now);
        let grace =
            schedule.end_timeout.unwrap_or(LEAVE_GRACE + schedule.nature.late.unwrap_or_default());
        let check = |session: &super::session::Session, world: &mut World<Child, Taker>| {
            if let Some(wrong) = ledger.borrow_mut().wrong.take() {
                return Err(wrong);
            }
            must!(session.held() <= most || world.left_at.is_some(), "{} held", session.held());
            Ok(())
        };
        let played = world.failing(fails, calls).traced(trace).play(plan, session, grace, check)?;
        (now, calls, faulted) = (played.child.now, played.calls, faulted || played.faulted);
        must!(played.child.status != Some(CONFUSED << 8), "an order made no sense to the child");
        let mut taker = taker.borrow_mut();
        taker.hear(now);
        if !taker.has_left() {
            // It is gone by itself: there is no waiting for it.
            let source = taker.source.as_mut().expect("it has not left");
            must!(source.wait_until_ready().is_err(), "it is ready and gone");
            taker.wake.get_or_insert(now);
        }
        while !taker.has_left() {
            let Some(at) = taker.wake else { return Err("it sleeps after the end".to_owned()) };
            now = now.max(at);
            taker.step(now)?;
            taker.hear(now);
        }
        if let Some((ErrorKind::Died | ErrorKind::Reply, pass, k)) = taker.fate
            && !faulted
        {
            let sent = played.program.delivered(pass);
            let babbled = played.program.has_babbled();
            must!(
                k == sent || (babbled && k <= sent),
                "{sent} were sent of pass {pass}, and {k} came"
            );
        }
        if taker.source.is_none() {
            break;
        }
    }
    let taker = taker.borrow();
    must!(taker.doubts.is_empty() || faulted, "{:?}", taker.doubts);
    Ok(Report {
        records: taker.items,
        passes: taker.passes,
        fatal: taker.fatal,
        dropped: (taker.passes < schedule.passes).into(),
        calls,
    })
}

#[test]
fn schedules_give_each_pass_its_items_and_its_end() {
    let (many, total) = schedules(play, 2_000);
    assert!(total.records > 4 * many && total.passes > 2 * many, "{total:?}");
    assert!(total.fatal > many / 8, "{total:?}");
}

#[test]
fn the_time_in_which_the_consumer_rests_is_no_silence_of_the_child() {
    for seed in [5_873, 17_005] {
        let played = play(seed, None, false);
        assert!(played.is_ok(), "seed {seed}: {played:?}");
    }
}

#[test]
fn whatever_call_fails_what_was_given_before_is_right_and_each_child_is_reaped() {
    sweep(play);
}

#[test]
fn replay() {
    played(play);
}
