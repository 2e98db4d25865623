//! What the call in which a thread sleeps says about its reasons.

use nix::libc;

use super::proc::Gap;
use crate::subprocess::evidence::{Outside, ThreadView};

/// What `/proc/<pid>/task/<tid>/syscall` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Line {
    /// The thread runs, or sleeps outside of a call (in a page fault).
    NoCall,
    Call(Call),
}

/// The call of a thread that is off the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Call {
    number: i64,
    arguments: [u64; 6],
    stack: u64,
    code: u64,
}

/// What a call waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Wait {
    /// A read of this descriptor.
    Read(i32),
    /// A `splice` from this descriptor: a wait for input where the input is known to be empty
    /// (the kernel takes bytes out of a pipe only when it has placed them).
    Splice(i32),
    /// Something for which the descriptor does not matter.
    Is(ThreadView),
}

impl Line {
    /// Reads a line `<number> <six arguments> <sp> <pc>`.
    pub(in super::super) fn parse(line: &[u8]) -> Result<Self, Gap> {
        let line = line.trim_ascii();
        if line == b"running" || line.starts_with(b"-1 ") {
            return Ok(Self::NoCall);
        }
        let line = str::from_utf8(line).map_err(|_| Gap::Hidden)?;
        let mut words = line.split(' ');
        let number = words.next().and_then(|word| word.parse().ok());
        let mut hex = || {
            let digits = words.next()?.strip_prefix("0x")?;
            u64::from_str_radix(digits, 16).ok()
        };
        let mut call = || {
            Some(Call {
                number: number?,
                arguments: [hex()?, hex()?, hex()?, hex()?, hex()?, hex()?],
                stack: hex()?,
                code: hex()?,
            })
        };
        call().map(Self::Call).ok_or(Gap::Hidden)
    }
}

impl Call {
    /// What this call waits for.
    pub(in super::super) fn wait(&self) -> Wait {
        // A kernel worker of io_uring carries its creator's registers, with these two zeroed.
        if self.stack == 0 || self.code == 0 {
            return Wait::Is(ThreadView::Poll);
        }
        // 32-bit programs number their calls differently. Their stack lies below 4 GiB, that of a
        // 64-bit one does not. (Code may lie there in both.)
        if self.stack <= u64::from(u32::MAX) {
            return Wait::Is(ThreadView::Hidden);
        }
        Wait::Is(match self.number as libc::c_long {
            libc::SYS_read | libc::SYS_readv | libc::SYS_preadv2 => {
                return Wait::Read(self.int(0));
            }
            libc::SYS_splice => return Wait::Splice(self.int(0)),
            libc::SYS_wait4 | libc::SYS_waitid => ThreadView::WaitForChild,
            libc::SYS_futex => self.futex(),

            libc::SYS_nanosleep
            | libc::SYS_clock_nanosleep
            | libc::SYS_restart_syscall // a timed wait after a stop and continue
            | libc::SYS_rt_sigtimedwait
            | libc::SYS_rt_sigsuspend => ThreadView::Timed,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_pause => ThreadView::Timed,

            // Of no descriptors it is a sleep.
            libc::SYS_ppoll if self.int(1) == 0 => ThreadView::Timed,
            libc::SYS_pselect6 if self.int(0) == 0 => ThreadView::Timed,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_poll if self.int(1) == 0 => ThreadView::Timed,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_select if self.int(0) == 0 => ThreadView::Timed,
            libc::SYS_ppoll
            | libc::SYS_pselect6
            | libc::SYS_epoll_pwait
            | libc::SYS_epoll_pwait2
            | libc::SYS_io_uring_enter
            | libc::SYS_io_getevents => ThreadView::Poll,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_poll | libc::SYS_select | libc::SYS_epoll_wait => ThreadView::Poll,

            number => ThreadView::Outside(self.outside(number)),
        })
    }

    /// A call that is none of the known waits for us, for its own kind or for a time.
    fn outside(&self, number: libc::c_long) -> Outside {
        match number {
            libc::SYS_write
            | libc::SYS_writev
            | libc::SYS_pwrite64
            | libc::SYS_pwritev
            | libc::SYS_pwritev2
            | libc::SYS_sendto
            | libc::SYS_sendmsg
            | libc::SYS_sendmmsg
            | libc::SYS_sendfile
            | libc::SYS_copy_file_range
            | libc::SYS_vmsplice
            | libc::SYS_tee => Outside::Writing,

            libc::SYS_recvfrom
            | libc::SYS_recvmsg
            | libc::SYS_recvmmsg
            | libc::SYS_accept
            | libc::SYS_accept4
            | libc::SYS_connect => Outside::Socket,

            libc::SYS_flock | libc::SYS_semop | libc::SYS_semtimedop => Outside::Lock,
            libc::SYS_fcntl if matches!(self.int(1), libc::F_SETLKW | libc::F_OFD_SETLKW) => {
                Outside::Lock
            }

            libc::SYS_mq_timedreceive | libc::SYS_msgrcv => Outside::Message,

            // An `openat` that sleeps is one of a FIFO whose other end nobody has opened.
            libc::SYS_openat
            | libc::SYS_pread64
            | libc::SYS_preadv
            | libc::SYS_fsync
            | libc::SYS_fdatasync => Outside::File,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => Outside::File,

            _ => Outside::UnknownCall,
        }
    }

    /// A futex wait is one for a fellow thread, unless a time limit makes it a sleep.
    fn futex(&self) -> ThreadView {
        let flags = libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME;
        let limit = self.arguments[3];
        match self.int(1) & !flags {
            libc::FUTEX_WAIT
            | libc::FUTEX_WAIT_BITSET
            | libc::FUTEX_LOCK_PI
            | libc::FUTEX_LOCK_PI2
            | libc::FUTEX_WAIT_REQUEUE_PI => {
                if limit == 0 {
                    ThreadView::FutexForever
                } else {
                    ThreadView::Timed
                }
            }
            _ => ThreadView::Outside(Outside::UnknownCall),
        }
    }

    /// An argument that is an `int` in C: the upper half of its register says nothing.
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
    fn int(&self, argument: usize) -> i32 {
        self.arguments[argument] as u32 as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZEROS: &str = "0x0 0x0 0x0 0x0 0x0 0x0";

    fn wait(line: &str) -> Wait {
        match Line::parse(line.as_bytes()) {
            Ok(Line::Call(call)) => call.wait(),
            other => panic!("{line:?} is no call: {other:?}"),
        }
    }

    fn call(number: libc::c_long, arguments: &str) -> Wait {
        wait(&format!("{number} {arguments} 0x7fff6708e858 0x47e2ad\n"))
    }

    #[test]
    fn a_read_names_its_descriptor_and_drops_the_upper_half_of_the_register() {
        let arguments = "0xdeadbeef00000003 0x7f0000000000 0x20000 0x0 0x0 0x0";
        assert_eq!(call(libc::SYS_read, arguments), Wait::Read(3));
        assert_eq!(call(libc::SYS_splice, arguments), Wait::Splice(3));
    }

    #[test]
    fn a_futex_wait_with_a_time_limit_is_a_sleep() {
        // FUTEX_WAIT_BITSET | PRIVATE | CLOCK_REALTIME, without and with a timespec.
        let forever = "0x7f01 0x189 0x0 0x0 0x0 0xffffffff";
        let limited = "0x7f01 0x189 0x0 0x7ffe00000000 0x0 0xffffffff";
        assert_eq!(call(libc::SYS_futex, forever), Wait::Is(ThreadView::FutexForever));
        assert_eq!(call(libc::SYS_futex, limited), Wait::Is(ThreadView::Timed));
        let wake = "0x7f01 0x81 0x1 0x0 0x0 0x0";
        let unknown = Wait::Is(ThreadView::Outside(Outside::UnknownCall));
        assert_eq!(call(libc::SYS_futex, wake), unknown);
    }

    #[test]
    fn a_poll_of_nothing_is_a_sleep() {
        let none = "0x0 0x0 0x0 0x7ffe00000000 0x0 0x0";
        let some = "0x3 0x3 0x0 0x7ffe00000000 0x0 0x0";
        for number in [libc::SYS_ppoll, libc::SYS_pselect6] {
            assert_eq!(call(number, none), Wait::Is(ThreadView::Timed));
            assert_eq!(call(number, some), Wait::Is(ThreadView::Poll));
        }
        assert_eq!(call(libc::SYS_epoll_pwait, none), Wait::Is(ThreadView::Poll));
    }

    #[test]
    fn a_wait_for_others_is_named_by_its_call() {
        let set_and_wait = "0x3 0x7 0x7f0000000000 0x0 0x0 0x0";
        for (number, arguments, what) in [
            (libc::SYS_recvfrom, ZEROS, Outside::Socket),
            (libc::SYS_accept4, ZEROS, Outside::Socket),
            (libc::SYS_flock, ZEROS, Outside::Lock),
            (libc::SYS_fcntl, set_and_wait, Outside::Lock),
            (libc::SYS_fcntl, ZEROS, Outside::UnknownCall),
            (libc::SYS_msgrcv, ZEROS, Outside::Message),
            (libc::SYS_writev, ZEROS, Outside::Writing),
            (libc::SYS_openat, ZEROS, Outside::File),
            (libc::SYS_fstat, ZEROS, Outside::UnknownCall),
            (0x4000_0000, ZEROS, Outside::UnknownCall), // x32
        ] {
            assert_eq!(call(number, arguments), Wait::Is(ThreadView::Outside(what)), "{number}");
        }
    }

    #[test]
    fn what_is_no_call_is_told_from_what_cannot_be_read() {
        assert_eq!(Line::parse(b"running\n"), Ok(Line::NoCall));
        assert_eq!(Line::parse(b"-1 0x7fff6708e858 0x47e2ad\n"), Ok(Line::NoCall));
        assert_eq!(Line::parse(b""), Err(Gap::Hidden));
        assert_eq!(Line::parse(b"0 0x0 0x0\n"), Err(Gap::Hidden));
    }

    #[test]
    fn a_32_bit_stack_and_a_kernel_thread_are_not_believed() {
        let read = libc::SYS_read;
        let narrow = format!("{read} {ZEROS} 0xffd1e858 0xf7f0e2ad\n");
        assert_eq!(wait(&narrow), Wait::Is(ThreadView::Hidden));
        assert_eq!(wait(&format!("{read} {ZEROS} 0x0 0x0\n")), Wait::Is(ThreadView::Poll));
    }
}
