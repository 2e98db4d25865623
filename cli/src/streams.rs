//! Standard input and output as they were given to the program.
//!
//! Nothing is buffered here, and a descriptor that somebody else has made non-blocking is waited for: it is shared with
//! the process that started this.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::bail;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::files::Place;

/// Which of the three was closed when the program was started.
static CLOSED: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

/// Rust opens `/dev/null` in the place of a standard stream that is closed, before `main`: by then `>&-` cannot be told
/// from `> /dev/null`. This runs earlier.
extern "C" fn look() {
    for (fd, closed) in (0..).zip(&CLOSED) {
        // SAFETY: it only asks, of any number.
        let flags = unsafe { nix::libc::fcntl(fd, nix::libc::F_GETFD) };
        closed.store(flags < 0, Relaxed);
    }
}

// SAFETY: the loader calls the functions of this section, once, with arguments that need not be taken. This one
// calls nothing that has to be set up before.
#[used]
#[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
static LOOK: extern "C" fn() = look;

/// One of the standard streams. It stays open.
#[derive(Debug)]
pub(crate) struct Stream(ManuallyDrop<File>);

impl Stream {
    fn of(fd: RawFd) -> Self {
        // SAFETY: the descriptor is open for as long as the program runs, and is not closed here.
        Self(ManuallyDrop::new(unsafe { File::from_raw_fd(fd) }))
    }

    pub(crate) fn stdin() -> anyhow::Result<Self> {
        if CLOSED[0].load(Relaxed) {
            bail!("standard input is closed: for no input say `< /dev/null`");
        }
        Ok(Self::of(0))
    }

    pub(crate) fn stdout() -> anyhow::Result<Self> {
        if CLOSED[1].load(Relaxed) {
            bail!("standard output is closed: for no output say `> /dev/null`");
        }
        Ok(Self::of(1))
    }

    /// Where there is none, what is written is lost.
    pub(crate) fn stderr() -> Self {
        Self::of(2)
    }

    /// Which file it is, if it is a regular one.
    pub(crate) fn place(&self) -> Option<Place> {
        let file = self.0.metadata().ok().filter(std::fs::Metadata::is_file)?;
        Some(Place::of(&file))
    }

    /// The byte in front of what is written next, if this is a regular file that may be read, on Linux.
    pub(crate) fn byte_before(&self) -> Option<u8> {
        if !cfg!(target_os = "linux") {
            return None;
        }
        let size = self.0.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
        let flags = OFlag::from_bits_truncate(fcntl(&*self.0, FcntlArg::F_GETFL).ok()?);
        let next = match flags.contains(OFlag::O_APPEND) {
            true => size,
            false => io::Seek::stream_position(&mut &*self.0).ok()?,
        };
        // The descriptor itself is open for writing only.
        let file = File::open(format!("/proc/self/fd/{}", self.0.as_raw_fd())).ok()?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, next.checked_sub(1)?).ok()?;
        Some(byte[0])
    }

    /// How many bytes are left to be read, if it is a file.
    pub(crate) fn left(&self) -> Option<u64> {
        let file = self.0.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let at = io::Seek::stream_position(&mut &*self.0).ok()?;
        Some(file.len().saturating_sub(at))
    }

    /// Tries until it need not wait for the descriptor.
    fn try_until<T>(
        &self,
        events: PollFlags,
        mut attempt: impl FnMut(&File) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match attempt(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut waited = [PollFd::new(self.0.as_fd(), events)];
                    match poll(&mut waited, PollTimeout::NONE) {
                        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                other => return other,
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.try_until(PollFlags::POLLIN, |mut file| file.read(into))
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.try_until(PollFlags::POLLOUT, |mut file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
