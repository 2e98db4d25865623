//! The family of a worker, looked at twice. The argument is in the [module](super::super)'s docs.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

use super::super::{ChannelId, Doubt, Suspect};
use super::call::{Call, Wait};
use super::proc::{self, Status};

nix::ioctl_read_bad!(
    /// How many bytes of a pipe are still unread; either end may ask.
    fionread,
    libc::FIONREAD,
    libc::c_int
);

/// One look at each of `suspects`: `Ok` where it is certain that the worker waits.
pub(in super::super) fn judge(suspects: &[Suspect<'_>]) -> Vec<Result<(), Doubt>> {
    if let Err(doubt) = proc::is_ours() {
        return vec![Err(doubt); suspects.len()];
    }
    // First round. The scan, which is the dear part, is left to those who pass the walk.
    let mut cases: Vec<_> = suspects.iter().map(Family::meet).collect();
    enlist(&mut cases, Family::join);
    let own_pipes = OwnPipes::default();
    refine(&mut cases, |family| family.is_closed(&own_pipes));

    // Between the rounds lies the moment of which the verdict speaks.

    refine(&mut cases, |family| family.slept_on());
    enlist(&mut cases, |family, pid| match family.members.get(&pid) {
        Some(_) => Ok(()),
        None => Err(Doubt::Changed),
    });
    refine(&mut cases, |family| family.has_read_all());
    cases.into_iter().map(|case| case.map(drop)).collect()
}

type Case<'a> = Result<Family<'a>, Doubt>;

/// Puts a further question to those of whom there is no doubt yet.
fn refine<'a>(cases: &mut [Case<'a>], mut ask: impl FnMut(&mut Family<'a>) -> Result<(), Doubt>) {
    for case in cases {
        if let Ok(family) = case
            && let Err(doubt) = ask(family)
        {
            *case = Err(doubt);
        }
    }
}

/// Shows each family the members of its group, from one scan for all.
fn enlist<'a>(
    cases: &mut [Case<'a>],
    mut show: impl FnMut(&mut Family<'a>, i32) -> Result<(), Doubt>,
) {
    let groups: HashSet<i32> = cases.iter().flatten().map(Family::group).collect();
    if groups.is_empty() {
        return;
    }
    let census = proc::census(&groups);
    refine(cases, |family| {
        let census: &HashMap<_, _> = census.as_ref().map_err(|doubt| *doubt)?;
        let members = census.get(&family.group()).ok_or(Doubt::Changed)?;
        members.iter().try_for_each(|&pid| show(family, pid))
    });
}

/// The processes that may have a part in a worker's replies, as the first round has seen them.
struct Family<'a> {
    suspect: &'a Suspect<'a>,
    members: BTreeMap<i32, Vec<Thread>>,
    /// Whether a member of the group reads one of our channels.
    reads_us: bool,
    /// Which of our channels are being read.
    outer: HashSet<ChannelId>,
    /// The other pipes that are being read.
    inner: HashSet<ChannelId>,
}

/// A thread in the first round.
struct Thread {
    tid: i32,
    status: Status,
    /// The rest, unless the thread is dead and only unburied.
    session: Option<(Call, Vec<i32>)>,
}

impl<'a> Family<'a> {
    /// The leader and its descendants.
    fn meet(suspect: &'a Suspect<'a>) -> Case<'a> {
        some_read(suspect)?;
        let mut family = Self {
            suspect,
            members: BTreeMap::new(),
            reads_us: false,
            outer: HashSet::new(),
            inner: HashSet::new(),
        };
        family.join(family.group())?;
        // A dead leader is news that reaches the event loop by another way.
        let leader = family.members.get(&family.group());
        if leader.is_none_or(|threads| threads.iter().all(|thread| thread.session.is_none())) {
            return Err(Doubt::Changed);
        }
        Ok(family)
    }

    fn group(&self) -> i32 {
        self.suspect.pgid.as_raw()
    }

    /// Takes up `pid` and its descendants. A doubt about one is a doubt about all.
    fn join(&mut self, pid: i32) -> Result<(), Doubt> {
        let mut pending = vec![pid];
        while let Some(pid) = pending.pop() {
            if self.members.contains_key(&pid) {
                continue;
            }
            let in_group = proc::group_of(pid)? == self.group();
            let mut threads = Vec::new();
            for tid in proc::threads(pid)? {
                // The counters before the call: see the module's docs.
                let status = proc::status(pid, tid)?;
                let session = match status.state {
                    b'S' => {
                        let call = proc::call(pid, tid)?;
                        self.weigh(call.wait()?, pid, tid, in_group)?;
                        let children = proc::children(pid, tid)?;
                        pending.extend(&children);
                        Some((call, children))
                    }
                    b'Z' | b'X' => None,
                    b'T' | b't' => return Err(Doubt::Stopped),
                    _ => return Err(Doubt::Busy),
                };
                threads.push(Thread { tid, status, session });
            }
            self.members.insert(pid, threads);
        }
        Ok(())
    }

    fn weigh(&mut self, wait: Wait, pid: i32, tid: i32, in_group: bool) -> Result<(), Doubt> {
        let (fd, may_be_full) = match wait {
            Wait::Kin => return Ok(()),
            Wait::Read(fd) => (fd, false),
            Wait::Splice(fd) => (fd, true),
        };
        match proc::pipe(pid, tid, fd)? {
            Some(id) if self.is_input(id) => {
                self.reads_us |= in_group;
                self.outer.insert(id);
            }
            // Of a pipe that is not ours nobody tells us whether it is empty.
            _ if may_be_full => return Err(Doubt::Writing),
            Some(id) if proc::is_anonymous(pid, tid, fd)? => {
                self.inner.insert(id);
            }
            // Who may yet open a named FIFO, or write to a socket, cannot be known.
            _ => return Err(Doubt::OtherRead),
        }
        Ok(())
    }

    fn is_input(&self, id: ChannelId) -> bool {
        self.suspect.inputs.iter().any(|(_, input)| *input == id)
    }

    /// Whether all these waits lead to us: somebody reads a channel, and whoever reads another pipe
    /// reads one of the family's own. A pipe gets into the family from outside only through us, who
    /// then still hold it (a jobserver's, a process substitution's), and comes with no writer.
    fn is_closed(&self, own_pipes: &OwnPipes) -> Result<(), Doubt> {
        if !self.reads_us {
            return Err(Doubt::NoReader);
        }
        if self.inner.is_empty() {
            return Ok(());
        }
        let mut written = HashSet::new();
        for (pid, threads) in &self.members {
            if threads.iter().any(|thread| thread.session.is_some()) {
                written.extend(proc::written_pipes(*pid)?);
            }
        }
        if self.inner.is_subset(&written) && self.inner.is_disjoint(own_pipes.get()?) {
            Ok(())
        } else {
            Err(Doubt::OtherRead)
        }
    }

    /// Whether each channel that somebody reads is empty. What lies in another one does not matter:
    /// whoever is to read it sleeps in a read elsewhere.
    fn has_read_all(&self) -> Result<(), Doubt> {
        let mut read = self.suspect.inputs.iter().filter(|(_, id)| self.outer.contains(id));
        read.try_for_each(|(fd, _)| is_empty(*fd))
    }

    /// The second round: whether nobody has moved since the first.
    fn slept_on(&self) -> Result<(), Doubt> {
        for (&pid, threads) in &self.members {
            if !threads.iter().map(|thread| thread.tid).eq(proc::threads(pid)?) {
                return Err(Doubt::Changed);
            }
            for thread in threads {
                if !thread.slept_on(pid)? {
                    return Err(Doubt::Changed);
                }
            }
        }
        Ok(())
    }
}

impl Thread {
    fn slept_on(&self, pid: i32) -> Result<bool, Doubt> {
        if let Some((before, children)) = &self.session {
            match proc::call(pid, self.tid) {
                Ok(call) if call == *before => {}
                Ok(_) | Err(Doubt::Busy) => return Ok(false),
                Err(doubt) => return Err(doubt),
            }
            if proc::children(pid, self.tid)? != *children {
                return Ok(false);
            }
        }
        // The counters last.
        Ok(proc::status(pid, self.tid)? == self.status)
    }
}

/// The pipes that we hold ourselves, listed when first asked for.
#[derive(Default)]
struct OwnPipes(OnceCell<Result<HashSet<ChannelId>, Doubt>>);

impl OwnPipes {
    fn get(&self) -> Result<&HashSet<ChannelId>, Doubt> {
        self.0.get_or_init(proc::own_pipes).as_ref().map_err(|doubt| *doubt)
    }
}

/// Whether there is a channel that holds nothing, on which the worker may be waiting. Dear questions
/// are not asked of a worker that has everything still to read.
fn some_read(suspect: &Suspect<'_>) -> Result<(), Doubt> {
    let mut doubt = Ok(());
    for (fd, _) in suspect.inputs {
        doubt = is_empty(*fd);
        if doubt.is_ok() {
            break;
        }
    }
    doubt
}

fn is_empty(channel: BorrowedFd<'_>) -> Result<(), Doubt> {
    match unread(channel) {
        Ok(0) => Ok(()),
        Ok(_) => Err(Doubt::Unread),
        Err(_) => Err(Doubt::Unreadable),
    }
}

fn unread(pipe: BorrowedFd<'_>) -> nix::Result<libc::c_int> {
    let mut bytes = 0;
    // SAFETY: the descriptor is open for the length of the borrow, and FIONREAD stores one `int`
    // through a pointer that is valid for the call.
    unsafe { fionread(pipe.as_raw_fd(), &raw mut bytes) }?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn a_reader_that_is_back_in_the_same_read_has_moved() {
        let mut cat = Command::new("cat")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = cat.stdin.take().unwrap();
        let pgid = Pid::from_raw(cat.id().try_into().unwrap());
        {
            let ours = stdin.as_fd().try_clone_to_owned().unwrap();
            let inputs = [(ours.as_fd(), ChannelId::of(ours.as_fd()).unwrap())];
            let suspect = Suspect { pgid, inputs: &inputs };
            let start = Instant::now();
            let asleep = || loop {
                match Family::meet(&suspect) {
                    Ok(family) if family.reads_us && family.slept_on().is_ok() => return family,
                    _ => assert!(start.elapsed() < Duration::from_secs(60)),
                }
            };
            // The first read comes from elsewhere: unused registers would tell it from the others.
            asleep();
            stdin.write_all(b"moves").unwrap();
            let before = asleep();
            stdin.write_all(b"moves").unwrap();
            let after = asleep();
            assert_eq!(before.slept_on(), Err(Doubt::Changed));
            assert_eq!(after.slept_on(), Ok(()));
        }
        drop(stdin);
        cat.wait().unwrap();
    }
}
