//! What the call in which a thread sleeps says about its reasons.

use nix::libc;

use super::super::Doubt;

/// One line of `/proc/<pid>/task/<tid>/syscall` of a thread that is off the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Call {
    number: i64,
    arguments: [u64; 6],
    stack: u64,
    code: u64,
}

/// A way to sleep that may be a wait for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Wait {
    /// In a read of this descriptor.
    Read(i32),
    /// In a `splice` from this descriptor: a wait for input where the input is known to be empty
    /// (the kernel takes bytes out of a pipe only when it has placed them).
    Splice(i32),
    /// For a child process, or for another thread, without a time limit.
    Kin,
}

impl Call {
    /// Reads a line `<number> <six arguments> <sp> <pc>`. `Busy` when the thread runs or sleeps
    /// outside of a call (in a page fault); `Unreadable` for anything unknown.
    pub(in super::super) fn parse(line: &[u8]) -> Result<Self, Doubt> {
        let line = line.trim_ascii();
        if line == b"running" || line.starts_with(b"-1 ") {
            return Err(Doubt::Busy);
        }
        let line = str::from_utf8(line).map_err(|_| Doubt::Unreadable)?;
        let mut words = line.split(' ');
        let number = words.next().and_then(|word| word.parse().ok());
        let mut hex = || {
            let digits = words.next()?.strip_prefix("0x")?;
            u64::from_str_radix(digits, 16).ok()
        };
        let mut call = || {
            Some(Self {
                number: number?,
                arguments: [hex()?, hex()?, hex()?, hex()?, hex()?, hex()?],
                stack: hex()?,
                code: hex()?,
            })
        };
        call().ok_or(Doubt::Unreadable)
    }

    /// What this call waits for, or why that is no wait for us.
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // C's `int` arguments
    pub(in super::super) fn wait(&self) -> Result<Wait, Doubt> {
        // A kernel worker of io_uring carries its creator's registers, with these two zeroed.
        if self.stack == 0 || self.code == 0 {
            return Err(Doubt::Busy);
        }
        // 32-bit programs number their calls differently. Their stack lies below 4 GiB, that of a
        // 64-bit one does not. (Code may lie there in both.)
        if self.stack <= u64::from(u32::MAX) {
            return Err(Doubt::Unreadable);
        }
        let descriptor = self.arguments[0] as u32 as i32;
        Err(match self.number as libc::c_long {
            libc::SYS_read | libc::SYS_readv | libc::SYS_preadv2 => {
                return Ok(Wait::Read(descriptor));
            }
            libc::SYS_splice => return Ok(Wait::Splice(descriptor)),
            libc::SYS_wait4 | libc::SYS_waitid => return Ok(Wait::Kin),
            libc::SYS_futex => return self.futex(),

            libc::SYS_nanosleep
            | libc::SYS_clock_nanosleep
            | libc::SYS_restart_syscall // a timed wait after a stop and continue
            | libc::SYS_rt_sigtimedwait
            | libc::SYS_rt_sigsuspend => Doubt::Sleeping,

            libc::SYS_ppoll
            | libc::SYS_pselect6
            | libc::SYS_epoll_pwait
            | libc::SYS_epoll_pwait2
            | libc::SYS_io_uring_enter
            | libc::SYS_io_getevents => Doubt::EventLoop,

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
            | libc::SYS_tee
            | libc::SYS_fsync
            | libc::SYS_fdatasync => Doubt::Writing,

            libc::SYS_pread64
            | libc::SYS_preadv
            | libc::SYS_recvfrom
            | libc::SYS_recvmsg
            | libc::SYS_recvmmsg
            | libc::SYS_accept
            | libc::SYS_accept4
            | libc::SYS_mq_timedreceive
            | libc::SYS_msgrcv => Doubt::OtherRead,

            #[cfg(target_arch = "x86_64")]
            libc::SYS_pause => Doubt::Sleeping,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_poll | libc::SYS_select | libc::SYS_epoll_wait => Doubt::EventLoop,

            _ => Doubt::Busy,
        })
    }

    /// A futex wait is one for a fellow thread, unless a time limit makes it a sleep.
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
    fn futex(&self) -> Result<Wait, Doubt> {
        let flags = libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME;
        let limit = self.arguments[3];
        match self.arguments[1] as u32 as i32 & !flags {
            libc::FUTEX_WAIT
            | libc::FUTEX_WAIT_BITSET
            | libc::FUTEX_LOCK_PI
            | libc::FUTEX_LOCK_PI2
            | libc::FUTEX_WAIT_REQUEUE_PI => {
                if limit == 0 {
                    Ok(Wait::Kin)
                } else {
                    Err(Doubt::Sleeping)
                }
            }
            _ => Err(Doubt::Busy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(line: String) -> Result<Wait, Doubt> {
        Call::parse(line.as_bytes())?.wait()
    }

    fn call(number: libc::c_long, arguments: &str) -> Result<Wait, Doubt> {
        wait(format!("{number} {arguments} 0x7fff6708e858 0x47e2ad\n"))
    }

    #[test]
    fn a_read_names_its_descriptor_and_drops_the_upper_half_of_the_register() {
        let arguments = "0xdeadbeef00000003 0x7f0000000000 0x20000 0x0 0x0 0x0";
        assert_eq!(call(libc::SYS_read, arguments), Ok(Wait::Read(3)));
        assert_eq!(call(libc::SYS_splice, arguments), Ok(Wait::Splice(3)));
    }

    #[test]
    fn a_futex_wait_with_a_time_limit_is_a_sleep() {
        // FUTEX_WAIT_BITSET | PRIVATE | CLOCK_REALTIME, without and with a timespec.
        let forever = "0x7f01 0x189 0x0 0x0 0x0 0xffffffff";
        let limited = "0x7f01 0x189 0x0 0x7ffe00000000 0x0 0xffffffff";
        assert_eq!(call(libc::SYS_futex, forever), Ok(Wait::Kin));
        assert_eq!(call(libc::SYS_futex, limited), Err(Doubt::Sleeping));
        let wake = "0x7f01 0x81 0x1 0x0 0x0 0x0";
        assert_eq!(call(libc::SYS_futex, wake), Err(Doubt::Busy));
    }

    #[test]
    fn what_is_no_call_or_an_unknown_one_is_no_wait() {
        let zeros = "0x0 0x0 0x0 0x0 0x0 0x0";
        assert_eq!(wait("running\n".into()), Err(Doubt::Busy));
        assert_eq!(wait("-1 0x7fff6708e858 0x47e2ad\n".into()), Err(Doubt::Busy));
        assert_eq!(call(libc::SYS_fstat, zeros), Err(Doubt::Busy));
        assert_eq!(call(0x4000_0000, zeros), Err(Doubt::Busy)); // x32
        assert_eq!(wait(String::new()), Err(Doubt::Unreadable));
        assert_eq!(wait("0 0x0 0x0\n".into()), Err(Doubt::Unreadable));
    }

    #[test]
    fn a_32_bit_stack_and_a_kernel_thread_are_not_believed() {
        let zeros = "0x0 0x0 0x0 0x0 0x0 0x0";
        let read = libc::SYS_read;
        let narrow = format!("{read} {zeros} 0xffd1e858 0xf7f0e2ad\n");
        assert_eq!(wait(narrow), Err(Doubt::Unreadable));
        assert_eq!(wait(format!("{read} {zeros} 0x0 0x0\n")), Err(Doubt::Busy));
    }
}
