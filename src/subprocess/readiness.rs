//! Readiness of many descriptors, and a way to be woken from another thread.
//!
//! On Linux this is epoll itself, edge-triggered, so that one turn of the event loop costs one system
//! call. `polling`, which is used elsewhere, needs five for the same: it re-arms a timer and its own
//! wake-up each time.

use std::io;
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

/// Longer than any timer: an hour, after which whoever waits simply looks again.
const LONGEST: Duration = Duration::from_secs(3_600);

#[cfg(target_os = "linux")]
mod os {
    use super::{Duration, Event, Interest, LONGEST, io};

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

        /// Ends a wait, this one or the next.
        pub(crate) fn wake(&self) {
            let _ = self.waker.write(1);
        }

        /// Waits for events, at most that long.
        pub(crate) fn wait(&self, ready: &mut Ready, timeout: Option<Duration>) -> io::Result<()> {
            ready.found = 0;
            let timeout = match timeout {
                None => EpollTimeout::NONE,
                // Rounded up, so that a timer is due when it fires instead of firing twice.
                Some(timeout) => {
                    let millis = timeout.min(LONGEST).as_nanos().div_ceil(1_000_000);
                    EpollTimeout::try_from(millis as i32).unwrap_or(EpollTimeout::MAX)
                }
            };
            ready.found = self.epoll.wait(&mut ready.events, timeout)?;
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod os {
    use super::{Duration, Event, Interest, LONGEST, io};

    use std::os::fd::{AsFd, AsRawFd};

    use polling::{Event as Polled, Events, PollMode, Poller};

    #[derive(Debug)]
    pub(crate) struct Readiness(Poller);

    /// What a wait has found, and the room for it.
    #[derive(Debug)]
    pub(crate) struct Ready(Events);

    impl Ready {
        pub(crate) fn new() -> Self {
            Self(Events::new())
        }

        pub(crate) fn iter(&self) -> impl Iterator<Item = Event> + '_ {
            self.0.iter().map(|event| Event { key: event.key, hung_up: event.is_interrupt() })
        }
    }

    impl Readiness {
        pub(crate) fn new() -> io::Result<Self> {
            Poller::new().map(Self)
        }

        /// Watches a descriptor for edges. It is to be [`remove`](Self::remove)d before it is closed.
        pub(crate) fn add(&self, fd: &impl AsFd, key: usize, interest: Interest) -> io::Result<()> {
            let event = match interest {
                Interest::Readable => Polled::readable(key),
                Interest::Writable => Polled::writable(key),
            };
            // SAFETY: whatever is added is removed before its descriptor is closed (see above).
            unsafe { self.0.add_with_mode(fd.as_fd().as_raw_fd(), event, PollMode::Edge) }
        }

        pub(crate) fn remove(&self, fd: &impl AsFd) {
            // Not registered: fine.
            let _ = self.0.delete(fd.as_fd());
        }

        /// Ends a wait, this one or the next.
        pub(crate) fn wake(&self) {
            let _ = self.0.notify();
        }

        /// Waits for events, at most that long.
        pub(crate) fn wait(&self, ready: &mut Ready, timeout: Option<Duration>) -> io::Result<()> {
            ready.0.clear();
            // Rounded up, so that a timer is due when it fires instead of firing twice.
            let timeout = timeout.map(|timeout| match timeout {
                Duration::ZERO => timeout,
                timeout => timeout.min(LONGEST) + Duration::from_micros(100),
            });
            self.0.wait(&mut ready.0, timeout).map(|_| ())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn found(readiness: &Readiness, timeout: Option<Duration>) -> Vec<Event> {
        let mut ready = Ready::new();
        readiness.wait(&mut ready, timeout).unwrap();
        ready.iter().collect()
    }

    #[test]
    fn an_edge_is_told_once_and_a_wake_up_is_no_event() {
        let readiness = Readiness::new().unwrap();
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        readiness.add(&reader, 7, Interest::Readable).unwrap();
        writer.write_all(b"x").unwrap();
        let event = Event { key: 7, hung_up: false };
        assert_eq!(found(&readiness, None), [event]);
        assert_eq!(found(&readiness, Some(Duration::ZERO)), []);
        readiness.wake();
        assert_eq!(found(&readiness, None), []);
        assert_eq!(found(&readiness, Some(Duration::from_nanos(1))), []);
        reader.read_exact(&mut [0]).unwrap();
        drop(writer);
        assert_eq!(found(&readiness, None), [Event { key: 7, hung_up: true }]);
        readiness.remove(&reader);
        readiness.remove(&reader);
    }

    #[test]
    fn wake_ups_that_nobody_waited_for_end_the_next_wait() {
        let readiness = Readiness::new().unwrap();
        readiness.wake();
        readiness.wake();
        assert_eq!(found(&readiness, None), []);
        readiness.wake();
        assert_eq!(found(&readiness, None), []);
    }
}
