//! The family of a worker, looked at once or twice. The argument is in the [module](super::super)'s docs.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::libc;

use super::super::{ChannelId, Suspect};
use super::call::{Call, Line, Wait};
use super::proc::{self, Gap, Stat, State, Status, Target};
use crate::subprocess::evidence::{
    Coverage, Evidence, Look, Obstacle, Outside, Stop, Thread, ThreadView,
};

nix::ioctl_read_bad!(
    /// How many bytes of a pipe are still unread; either end may ask.
    fionread,
    libc::FIONREAD,
    libc::c_int
);

/// One look at each of `suspects`, in their order. Every scan of all of `/proc` is shared.
pub(in super::super) fn look_at_all(suspects: &[Suspect<'_>], at: Duration) -> Vec<Look> {
    let mut families: Vec<_> = suspects.iter().map(Family::new).collect();
    if let Some(obstacle) = proc::obstacle() {
        return families
            .into_iter()
            .map(|family| Look::obstructed(at, family.unread, obstacle))
            .collect();
    }
    // First round. The scan, which is the dear part, is left out where the leader and its descendants
    // decide.
    families.iter_mut().for_each(Family::meet);
    enlist(&mut families, |so_far| so_far < Evidence::EventLoop, Family::join);
    let own_pipes = OwnPipes::default();
    families.iter_mut().for_each(|family| family.settle(&own_pipes));

    // Between the rounds lies the moment of which `Waiting` speaks.

    let waits = |so_far| so_far == Evidence::Waiting;
    for family in families.iter_mut().filter(|family| waits(family.so_far())) {
        family.check_that_all_slept_on();
    }
    enlist(&mut families, waits, |family, pid| {
        if !family.members.contains_key(&pid) {
            family.saw_no_more_than(Coverage::Moving);
        }
    });
    for family in families.iter_mut().filter(|family| waits(family.so_far())) {
        family.look_for_unread_again();
        family.looked_twice = true;
    }
    families.into_iter().map(|family| family.look(at)).collect()
}

/// Shows the families of which so much is known so far that it is `wanted` the members of their groups, from one
/// scan for all; to the others it is written down that they were not scanned for.
fn enlist<'a>(
    families: &mut [Family<'a>],
    wanted: impl Fn(Evidence) -> bool,
    mut show: impl FnMut(&mut Family<'a>, i32),
) {
    let wanted: Vec<_> = families.iter_mut().filter(|family| wanted(family.so_far())).collect();
    if wanted.is_empty() {
        return;
    }
    let census = proc::census(&wanted.iter().map(|family| family.group()).collect());
    for family in wanted {
        match census.as_ref().map(|census: &HashMap<_, Vec<_>>| census.get(&family.group())) {
            Ok(Some(members)) => members.iter().for_each(|&pid| show(family, pid)),
            Ok(None) => family.saw_no_more_than(Coverage::Moving),
            Err(&gap) => family.missed(gap),
        }
        family.scanned = true;
    }
}

/// The processes that may have a part in a worker's replies, as the first round has seen them.
struct Family<'a> {
    suspect: &'a Suspect<'a>,
    unread: Vec<u64>,
    members: BTreeMap<i32, Vec<Seen>>,
    /// The best coverage that is still possible.
    coverage: Coverage,
    scanned: bool,
    looked_twice: bool,
}

/// A living or dead thread in the first round.
struct Seen {
    tid: i32,
    status: Status,
    /// The rest, unless the thread is dead and only unburied.
    alive: Option<Alive>,
}

struct Alive {
    stat: Stat,
    used: (Duration, Duration),
    in_group: bool,
    view: ThreadView,
    /// Where it sleeps, if it does.
    call: Option<Call>,
    /// The pipe that it reads, if that is not one of our channels.
    inner: Option<ChannelId>,
    children: Vec<i32>,
}

impl<'a> Family<'a> {
    fn new(suspect: &'a Suspect<'a>) -> Self {
        let mut family = Self {
            suspect,
            unread: Vec::new(),
            members: BTreeMap::new(),
            coverage: Coverage::Still,
            scanned: false,
            looked_twice: false,
        };
        for (channel, _) in suspect.inputs {
            let bytes = family.unread_in(*channel);
            family.unread.push(bytes);
        }
        family
    }

    fn group(&self) -> i32 {
        self.suspect.pgid.as_raw()
    }

    /// What is known by now, if nothing worse comes.
    fn so_far(&self) -> Evidence {
        self.look_of(Duration::ZERO, self.coverage).alone()
    }

    fn look(&self, at: Duration) -> Look {
        let reached = if self.looked_twice {
            Coverage::Still
        } else if self.scanned {
            Coverage::Once
        } else {
            Coverage::Partial(Obstacle::NotWhole)
        };
        self.look_of(at, self.coverage.max(reached))
    }

    fn look_of(&self, at: Duration, coverage: Coverage) -> Look {
        let alive = || {
            let seen = self.members.values().flatten();
            seen.filter_map(|seen| Some((seen.tid, seen.alive.as_ref()?)))
        };
        let threads = alive().map(|(tid, alive)| {
            let Alive { stat, used, in_group, view, .. } = alive;
            Thread::new(tid, stat.started(), *in_group, *view, used.0)
        });
        let resolution = alive().map(|(_, alive)| alive.used.1).max().unwrap_or_default();
        Look::new(at, self.unread.clone(), threads.collect(), coverage).with_resolution(resolution)
    }

    fn saw_no_more_than(&mut self, coverage: Coverage) {
        self.coverage = self.coverage.max(coverage);
    }

    fn missed(&mut self, gap: Gap) {
        self.saw_no_more_than(match gap {
            Gap::Gone => Coverage::Moving,
            Gap::Hidden => Coverage::Partial(Obstacle::Hidden),
        });
    }

    /// The leader and its descendants.
    fn meet(&mut self) {
        self.join(self.group());
        // A dead leader is news that reaches the event loop by another way.
        let leader = self.members.get(&self.group());
        if leader.is_none_or(|threads| threads.iter().all(|seen| seen.alive.is_none())) {
            self.saw_no_more_than(Coverage::Moving);
        }
    }

    /// Takes up `pid` and its descendants.
    fn join(&mut self, pid: i32) {
        let mut pending = vec![pid];
        while let Some(pid) = pending.pop() {
            if self.members.contains_key(&pid) {
                continue;
            }
            match self.see_process(pid) {
                Ok(threads) => {
                    let alive = threads.iter().filter_map(|seen| seen.alive.as_ref());
                    pending.extend(alive.flat_map(|alive| &alive.children));
                    self.members.insert(pid, threads);
                }
                Err(gap) => self.missed(gap),
            }
        }
    }

    fn see_process(&mut self, pid: i32) -> Result<Vec<Seen>, Gap> {
        let in_group = proc::group_of(pid)? == self.group();
        let mut threads = Vec::new();
        for tid in proc::threads(pid)? {
            match self.see(pid, tid, in_group) {
                Ok(seen) => threads.push(seen),
                Err(gap) => self.missed(gap),
            }
        }
        Ok(threads)
    }

    fn see(&self, pid: i32, tid: i32, in_group: bool) -> Result<Seen, Gap> {
        // The counters before the call: see the module's docs.
        let status = proc::status(pid, tid)?;
        if status.state() == State::Dead {
            return Ok(Seen { tid, status, alive: None });
        }
        let (mut call, mut inner) = (None, None);
        let stat = proc::thread_stat(pid, tid)?;
        let view = match status.state() {
            State::Sleeping => match proc::call(pid, tid) {
                Ok(Line::NoCall) => ThreadView::Running,
                Ok(Line::Call(line)) => {
                    call = Some(line);
                    let (view, pipe) = self.weigh(line.wait(), pid, tid, &stat)?;
                    inner = pipe;
                    view
                }
                Err(Gap::Hidden) => ThreadView::Hidden,
                Err(Gap::Gone) => return Err(Gap::Gone),
            },
            State::DiskWait => ThreadView::DiskWait,
            State::Stopped => {
                let signal = proc::stop_signal(pid);
                ThreadView::Stopped(signal.map_or(Stop::Unnamed, Stop::Signal))
            }
            State::Traced => ThreadView::Stopped(Stop::Tracer),
            State::Running | State::Dead => ThreadView::Running,
        };
        let children = proc::children(pid, tid)?;
        let used = proc::used(pid, tid, &stat)?;
        let alive = Alive { stat, used, in_group, view, call, inner, children };
        Ok(Seen { tid, status, alive: Some(alive) })
    }

    /// What a call means, and which pipe it reads if that is not one of our channels.
    fn weigh(
        &self,
        wait: Wait,
        pid: i32,
        tid: i32,
        stat: &Stat,
    ) -> Result<(ThreadView, Option<ChannelId>), Gap> {
        let outside = |what| Ok((ThreadView::Outside(what), None));
        let (fd, may_be_full) = match wait {
            Wait::Is(view) => return Ok((view, None)),
            Wait::Read(fd) => (fd, false),
            Wait::Splice(fd) => (fd, true),
        };
        let target = proc::target(pid, tid, fd, stat)?;
        if let Target::Pipe(id) = target
            && let Some(channel) = self.channel(id)
        {
            return Ok((ThreadView::ReadOf(channel), None));
        }
        if may_be_full {
            // Of a pipe that is not ours nobody tells us whether it is empty.
            return outside(Outside::Writing);
        }
        match target {
            Target::Pipe(id) if proc::is_anonymous(pid, tid, fd)? => {
                Ok((ThreadView::ReadOfInnerPipe, Some(id)))
            }
            // Who may yet open a named FIFO, or write to a socket, cannot be known.
            Target::Pipe(_) => outside(Outside::Pipe),
            Target::Terminal => Ok((ThreadView::ReadOfTerminal, None)),
            Target::Device => outside(Outside::Device),
            Target::Socket => outside(Outside::Socket),
            Target::File => outside(Outside::File),
            Target::Other => outside(Outside::UnknownCall),
        }
    }

    /// Which channel of ours this pipe is.
    fn channel(&self, id: ChannelId) -> Option<usize> {
        self.suspect.inputs.iter().position(|(_, input)| *input == id)
    }

    /// Corrects, when all members are known, the views that depend on others.
    fn settle(&mut self, own_pipes: &OwnPipes) {
        let members: HashSet<i32> = self.members.keys().copied().collect();
        for seen in self.members.values_mut().flatten() {
            let Some(alive) = &mut seen.alive else { continue };
            match alive.view {
                // It has made its terminal itself: nobody sits there.
                ThreadView::ReadOfTerminal if members.contains(&alive.stat.session()) => {
                    alive.view = ThreadView::Outside(Outside::Device);
                }
                // Its own debugger lets it go on.
                ThreadView::Stopped(Stop::Tracer) if members.contains(&seen.status.tracer()) => {
                    alive.view = ThreadView::Running;
                }
                _ => {}
            }
        }
        // Dear, and without effect where something worse is known.
        if self.so_far() < Evidence::Outside(Outside::Pipe)
            && let Err(gap) = self.settle_pipes(own_pipes)
        {
            self.missed(gap);
        }
    }

    /// Whether those who read a pipe that is not ours read one of the family's own. A pipe gets into the family
    /// from outside only through us, who then still hold it (a jobserver's, a process substitution's), and comes with
    /// no writer.
    fn settle_pipes(&mut self, own_pipes: &OwnPipes) -> Result<(), Gap> {
        let alive = self.members.values().flatten().filter_map(|seen| seen.alive.as_ref());
        if alive.filter_map(|alive| alive.inner).next().is_none() {
            return Ok(());
        }
        let mut written = HashSet::new();
        for (pid, threads) in &self.members {
            if threads.iter().any(|seen| seen.alive.is_some()) {
                written.extend(proc::written_pipes(*pid)?);
            }
        }
        let own_pipes = own_pipes.get()?;
        for alive in self.members.values_mut().flatten().filter_map(|seen| seen.alive.as_mut()) {
            if let Some(id) = alive.inner
                && (!written.contains(&id) || own_pipes.contains(&id))
            {
                alive.view = ThreadView::Outside(Outside::Pipe);
            }
        }
        Ok(())
    }

    /// The second round: whether nobody has moved since the first.
    fn check_that_all_slept_on(&mut self) {
        let all = self.members.iter().try_for_each(|(&pid, threads)| {
            if !threads.iter().map(|seen| seen.tid).eq(proc::threads(pid)?) {
                return Err(Gap::Gone);
            }
            threads.iter().try_for_each(|seen| seen.slept_on(pid))
        });
        if let Err(gap) = all {
            self.missed(gap);
        }
    }

    /// Nobody writes meanwhile, so that a channel that was empty before the first round still is.
    fn look_for_unread_again(&mut self) {
        for at in 0..self.unread.len() {
            let bytes = self.unread_in(self.suspect.inputs[at].0);
            self.unread[at] = self.unread[at].max(bytes);
        }
    }

    fn unread_in(&mut self, channel: BorrowedFd<'_>) -> u64 {
        unread(channel).unwrap_or_else(|_| {
            self.missed(Gap::Hidden);
            0
        })
    }
}

impl Seen {
    /// Whether it is still in the call in which the first round has seen it, and has not left it in between;
    /// `Gone` if it has.
    fn slept_on(&self, pid: i32) -> Result<(), Gap> {
        let mut same = true;
        if let Some(alive) = &self.alive {
            same &= match (proc::call(pid, self.tid)?, alive.call) {
                (Line::Call(now), Some(before)) => now == before,
                _ => false,
            };
            same &= proc::children(pid, self.tid)? == alive.children;
        }
        // The counters last.
        same &= proc::status(pid, self.tid)? == self.status;
        if same { Ok(()) } else { Err(Gap::Gone) }
    }
}

/// The pipes that we hold ourselves, listed when first asked for.
#[derive(Default)]
struct OwnPipes(OnceCell<Result<HashSet<ChannelId>, Gap>>);

impl OwnPipes {
    fn get(&self) -> Result<&HashSet<ChannelId>, Gap> {
        self.0.get_or_init(proc::own_pipes).as_ref().map_err(|gap| *gap)
    }
}

fn unread(pipe: BorrowedFd<'_>) -> nix::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for the length of the borrow, and FIONREAD stores one `int`
    // through a pointer that is valid for the call.
    unsafe { fionread(pipe.as_raw_fd(), &raw mut bytes) }?;
    Ok(bytes.try_into().unwrap_or(0))
}
