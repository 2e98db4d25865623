//! Readiness of many descriptors, and a way to be woken from another thread.
//!
//! Readiness is told in **edges**: an event says that a descriptor has become ready, and comes once, however
//! long that is left unused. So a pipe that is not wanted is simply not read, and an end that has been
//! closed cannot spin. Who was told goes on until a call has found that there is nothing more, by
//! [`Readiness::read`] or [`Readiness::write`]; from then on the next edge is told.
//!
//! On Linux this is epoll itself, edge-triggered, so that one turn of the event loop costs one system
//! call. Elsewhere it is `poll`, which knows no edges: a descriptor is left out of the poll from the event to
//! the call that has found nothing.

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::time::Duration;

pub(crate) use os::{Readiness, Ready};

/// What became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) key: usize,
    /// The other end is closed.
    pub(crate) hung_up: bool,
}

/// Which way a descriptor is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Readable,
    Writable,
}

/// Longer than any timer: an hour, after which the event loop simply looks again.
const LONGEST: Duration = Duration::from_secs(3_600);

/// In whole milliseconds, rounded up, so that a timer is due when it fires instead of firing twice.
fn millis(timeout: Duration) -> i32 {
    let timeout = timeout.min(LONGEST);
    timeout.as_secs() as i32 * 1_000 + timeout.subsec_nanos().div_ceil(1_000_000) as i32
}

impl Readiness {
    /// Reads from a descriptor that was [`add`](Self::add)ed. A call that gets less than it asked for has
    /// emptied the pipe: the next byte is an edge.
    pub(crate) fn read(&self, mut file: &File, room: &mut [u8]) -> io::Result<usize> {
        let result = file.read(room);
        self.used(file, room.len(), &result);
        result
    }

    /// Writes to a descriptor, whether it was added or not. A call that writes less than it was given has
    /// filled the pipe: the next room is an edge.
    pub(crate) fn write(&self, mut file: &File, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let result = file.write_vectored(slices);
        self.used(file, slices.iter().map(|slice| slice.len()).sum(), &result);
        result
    }

    fn used(&self, file: &File, wanted: usize, result: &io::Result<usize>) {
        let spent = match result {
            // The end of a file stays; it is no edge.
            Ok(n) => (1..wanted).contains(n),
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        if spent {
            self.rearm(file);
        }
    }
}

#[cfg(all(target_os = "linux", not(subfeed_portable)))]
mod os {
    use super::{Duration, Event, File, Interest, io, millis};

    use std::os::fd::AsFd;

    use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
    use nix::sys::eventfd::{EfdFlags, EventFd};

    /// The key of the wake-up. No slot has it.
    const WOKEN: u64 = u64::MAX;
    /// Events taken in one go.
    const AT_ONCE: usize = 256;

    #[derive(Debug)]
    pub(crate) struct Readiness {
        epoll: Epoll,
        /// Each write is a new edge, so it is never read. (It would be full after 2^64 of them.)
        waker: EventFd,
    }

    /// What a wait has found, and the room for it.
    #[derive(Debug)]
    pub(crate) struct Ready {
        events: Vec<EpollEvent>,
        found: usize,
    }

    impl Ready {
        pub(crate) fn new() -> Self {
            Self { events: vec![EpollEvent::empty(); AT_ONCE], found: 0 }
        }

        /// Whether there may be more than there was room for.
        pub(crate) fn is_full(&self) -> bool {
            self.found == self.events.len()
        }

        pub(crate) fn iter(&self) -> impl Iterator<Item = Event> + '_ {
            self.events[..self.found].iter().filter(|event| event.data() != WOKEN).map(|event| {
                let hung_up = event.events().contains(EpollFlags::EPOLLHUP);
                Event { key: event.data() as usize, hung_up }
            })
        }
    }

    impl Readiness {
        pub(crate) fn new() -> io::Result<Self> {
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
            let waker = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
            let edge = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
            epoll.add(&waker, EpollEvent::new(edge, WOKEN))?;
            Ok(Self { epoll, waker })
        }

        /// Watches a descriptor for edges. It is to be [`remove`](Self::remove)d before it is closed:
        /// a copy of it, in a child that was forked meanwhile, would go on being watched.
        pub(crate) fn add(&self, fd: &impl AsFd, key: usize, interest: Interest) -> io::Result<()> {
            let flags = match interest {
                Interest::Readable => EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP,
                Interest::Writable => EpollFlags::EPOLLOUT,
            };
            Ok(self.epoll.add(fd, EpollEvent::new(flags | EpollFlags::EPOLLET, key as u64))?)
        }

        pub(crate) fn remove(&self, fd: &impl AsFd) {
            // Not registered: fine.
            let _ = self.epoll.delete(fd);
        }

        /// The kernel does it.
        #[allow(clippy::unused_self, reason = "as on other systems")]
        pub(super) fn rearm(&self, _: &File) {}

        /// Ends a wait, this one or the next.
        pub(crate) fn wake(&self) {
            let _ = self.waker.write(1);
        }

        /// Waits for events, at most that long.
        pub(crate) fn wait(&self, ready: &mut Ready, timeout: Option<Duration>) -> io::Result<()> {
            ready.found = 0;
            let timeout = match timeout {
                None => EpollTimeout::NONE,
                Some(timeout) => {
                    EpollTimeout::try_from(millis(timeout)).unwrap_or(EpollTimeout::MAX)
                }
            };
            ready.found = self.epoll.wait(&mut ready.events, timeout)?;
            Ok(())
        }
    }
}

/// # Invariants
/// 1. What is watched is open: it is removed before it is closed.
/// 2. A descriptor is armed from `add`, or from the call that has found nothing, to the event that tells of
///    it. Only what is armed is polled, so nothing is told twice.
/// 3. No edge is lost: what happens to a descriptor that is not armed is seen by the poll that comes after it
///    is armed again, since `poll` looks at the state.
/// 4. One thread waits, and does nothing else meanwhile, so that what is watched changes only between waits.
#[cfg(not(all(target_os = "linux", not(subfeed_portable))))]
mod os {
    use super::{Duration, Event, File, Interest, Read, Write, io, millis};

    use std::io::{PipeReader, PipeWriter};
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    #[derive(Clone, Copy, Debug)]
    struct Watched {
        fd: RawFd,
        key: usize,
        interest: Interest,
        armed: bool,
    }

    #[derive(Debug)]
    pub(crate) struct Readiness {
        watched: Mutex<Vec<Watched>>,
        wakes: PipeWriter,
        woken: PipeReader,
    }

    /// What a wait has found.
    #[derive(Debug)]
    pub(crate) struct Ready(Vec<Event>);

    impl Ready {
        pub(crate) fn new() -> Self {
            Self(Vec::new())
        }

        /// Whether there may be more than there was room for: there always is.
        #[allow(clippy::unused_self, reason = "where there is epoll it depends")]
        pub(crate) fn is_full(&self) -> bool {
            false
        }

        pub(crate) fn iter(&self) -> impl Iterator<Item = Event> + '_ {
            self.0.iter().copied()
        }
    }

    impl Readiness {
        pub(crate) fn new() -> io::Result<Self> {
            let (woken, wakes) = io::pipe()?;
            fcntl(&woken, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            fcntl(&wakes, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            Ok(Self { watched: Mutex::default(), wakes, woken })
        }

        fn watched(&self) -> MutexGuard<'_, Vec<Watched>> {
            self.watched.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// Watches a descriptor for edges. It is to be [`remove`](Self::remove)d before it is closed.
        // It cannot fail here; the callers are prepared for systems where it can.
        #[allow(clippy::unnecessary_wraps)]
        pub(crate) fn add(&self, fd: &impl AsFd, key: usize, interest: Interest) -> io::Result<()> {
            let fd = fd.as_fd().as_raw_fd();
            self.watched().push(Watched { fd, key, interest, armed: true });
            Ok(())
        }

        pub(crate) fn remove(&self, fd: &impl AsFd) {
            let fd = fd.as_fd().as_raw_fd();
            self.watched().retain(|watched| watched.fd != fd);
        }

        /// The next edge is to be told.
        pub(super) fn rearm(&self, file: &File) {
            let fd = file.as_raw_fd();
            if let Some(watched) = self.watched().iter_mut().find(|watched| watched.fd == fd) {
                watched.armed = true;
            }
        }

        /// Ends a wait, this one or the next.
        pub(crate) fn wake(&self) {
            // A pipe that is full wakes as well.
            let _ = (&self.wakes).write(&[1]);
        }

        /// Waits for events, at most that long.
        pub(crate) fn wait(&self, ready: &mut Ready, timeout: Option<Duration>) -> io::Result<()> {
            ready.0.clear();
            let armed: Vec<Watched> =
                self.watched().iter().filter(|watched| watched.armed).copied().collect();
            let mut polled = vec![PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
            polled.extend(armed.iter().map(|watched| {
                // SAFETY: it is open, and stays so until this call returns (invariants 1 and 4).
                let fd = unsafe { BorrowedFd::borrow_raw(watched.fd) };
                let flags = match watched.interest {
                    Interest::Readable => PollFlags::POLLIN,
                    Interest::Writable => PollFlags::POLLOUT,
                };
                PollFd::new(fd, flags)
            }));
            let timeout = match timeout {
                None => PollTimeout::NONE,
                Some(timeout) => PollTimeout::try_from(millis(timeout)).unwrap_or(PollTimeout::MAX),
            };
            poll(&mut polled, timeout)?;
            let found = |polled: &PollFd<'_>| polled.revents().unwrap_or(PollFlags::empty());
            if !found(&polled[0]).is_empty() {
                let mut bytes = [0; 64];
                while matches!((&self.woken).read(&mut bytes), Ok(n) if n == bytes.len()) {}
            }
            let mut all = self.watched();
            for (watched, polled) in armed.iter().zip(&polled[1..]) {
                let found = found(polled);
                if found.contains(PollFlags::POLLNVAL) {
                    // Some systems do not poll terminals.
                    let what = "this system cannot wait for a file of that kind";
                    return Err(io::Error::new(io::ErrorKind::Unsupported, what));
                }
                if !found.is_empty() {
                    let hung_up = found.contains(PollFlags::POLLHUP);
                    ready.0.push(Event { key: watched.key, hung_up });
                    let told = all.iter_mut().filter(|known| known.fd == watched.fd);
                    told.for_each(|known| known.armed = false);
                }
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::fd::OwnedFd;

    fn found(readiness: &Readiness, timeout: Option<Duration>) -> Vec<Event> {
        let mut ready = Ready::new();
        readiness.wait(&mut ready, timeout).unwrap();
        ready.iter().collect()
    }

    /// A pipe whose ends do not block.
    fn pipe() -> (File, File) {
        let (reader, writer) = io::pipe().unwrap();
        for end in
            [&OwnedFd::from(reader.try_clone().unwrap()), &writer.try_clone().unwrap().into()]
        {
            let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
            nix::fcntl::fcntl(end, flags).unwrap();
        }
        (File::from(OwnedFd::from(reader)), File::from(OwnedFd::from(writer)))
    }

    #[test]
    fn an_edge_is_told_once_and_a_wake_up_is_no_event() {
        let readiness = Readiness::new().unwrap();
        let (reader, mut writer) = pipe();
        readiness.add(&reader, 7, Interest::Readable).unwrap();
        writer.write_all(b"x").unwrap();
        let event = Event { key: 7, hung_up: false };
        assert_eq!(found(&readiness, None), [event]);
        assert_eq!(found(&readiness, Some(Duration::ZERO)), []);
        readiness.wake();
        assert_eq!(found(&readiness, None), []);
        assert_eq!(found(&readiness, Some(Duration::from_nanos(1))), []);
        assert_eq!(readiness.read(&reader, &mut [0; 2]).unwrap(), 1);
        drop(writer);
        assert_eq!(found(&readiness, None), [Event { key: 7, hung_up: true }]);
        assert_eq!(readiness.read(&reader, &mut [0; 2]).unwrap(), 0);
        assert_eq!(found(&readiness, Some(Duration::ZERO)), []);
        readiness.remove(&reader);
        readiness.remove(&reader);
    }

    #[test]
    fn what_came_while_nobody_looked_is_told_once_there_is_nothing_left_of_what_was_told() {
        let readiness = Readiness::new().unwrap();
        let (reader, mut writer) = pipe();
        let event = Event { key: 1, hung_up: false };
        readiness.add(&reader, 1, Interest::Readable).unwrap();
        for byte in [b"x", b"y"] {
            writer.write_all(byte).unwrap();
            assert_eq!(found(&readiness, None), [event]);
            // A full read says nothing of what is left; the one after it does.
            assert_eq!(readiness.read(&reader, &mut [0]).unwrap(), 1);
            let error = readiness.read(&reader, &mut [0]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
        // The same number of bytes again between a read and the wait after it.
        writer.write_all(b"x").unwrap();
        assert_eq!(found(&readiness, None), [event]);
        assert_eq!(readiness.read(&reader, &mut [0; 2]).unwrap(), 1);
        writer.write_all(b"x").unwrap();
        assert_eq!(found(&readiness, None), [event]);
        readiness.remove(&reader);
    }

    #[test]
    fn room_in_a_pipe_that_was_full_is_told_and_so_is_that_nobody_reads_it() {
        let readiness = Readiness::new().unwrap();
        let (reader, writer) = pipe();
        readiness.add(&writer, 3, Interest::Writable).unwrap();
        let event = [Event { key: 3, hung_up: false }];
        assert_eq!(found(&readiness, None), event);
        let block = vec![0; 1 << 20];
        let full = |written: io::Result<usize>| written.is_ok_and(|n| n < block.len());
        assert!(full(readiness.write(&writer, &[IoSlice::new(&block)])));
        assert_eq!(found(&readiness, Some(Duration::ZERO)), []);
        let mut room = vec![0; 1 << 20];
        assert!(readiness.read(&reader, &mut room).unwrap() > 0);
        assert_eq!(found(&readiness, None), event);
        assert!(full(readiness.write(&writer, &[IoSlice::new(&block)])));
        drop(reader);
        assert_eq!(found(&readiness, None).len(), 1);
        let error = readiness.write(&writer, &[IoSlice::new(b"x")]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(found(&readiness, Some(Duration::ZERO)), []);
        readiness.remove(&writer);
    }

    #[test]
    fn wake_ups_that_nobody_waited_for_end_the_next_wait() {
        let readiness = Readiness::new().unwrap();
        for wakes in [2, 100, 100_000] {
            for _ in 0..wakes {
                readiness.wake();
            }
            assert_eq!(found(&readiness, None), []);
        }
        assert_eq!(found(&readiness, Some(Duration::ZERO)), []);
    }
}
