//! What the shape of a feed of blocks costs by itself: the raw pipe of [`baselines`](super::baselines), and of what a
//! feed has to do what cannot be left out. The source is copied into a buffer, its records are counted, replies are counted, and
//! each block changes threads as it does in a feed. There is no order, no window, no limit, no error and no record that
//! can be found again: what a feed makes less than this is its own; what this makes less than the raw pipe is not.

use std::hint::black_box;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ChildStdin, ChildStdout, Command};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};
use memchr::memchr_iter;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::baselines::{BIG_PIPE, IO, Lines, Run, enlarge, set_nonblocking, spawn_piped};

/// Which of the three threads of a feed there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One does everything.
    Alone,
    /// The consumer has one of its own.
    WithConsumer,
    /// The consumer and the intake have, as in a feed.
    WithBoth,
}

/// Blocks that wait for the loop, as in a feed.
const WAITING: usize = 4;

type Block = Vec<u8>;

fn count(block: &[u8]) -> u64 {
    memchr_iter(b'\n', block).count() as u64
}

/// Where blocks come from.
struct Source {
    lines: &'static [u8],
    left: u64,
    records: u64,
}

impl Source {
    fn fill(&mut self, block: &mut Block) -> bool {
        let n = usize::try_from(self.left).unwrap_or(IO).min(self.lines.len());
        block.clear();
        block.extend_from_slice(&self.lines[..n]);
        self.records += black_box(count(block));
        self.left -= n as u64;
        n > 0
    }
}

/// How the loop gets them.
enum Supply {
    Here(Source),
    /// From a thread, which is told by the flag that the loop sleeps.
    Thread(Receiver<Block>, Sender<Block>),
}

struct Cat {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    block: Block,
    at: usize,
    may_write: bool,
    may_read: bool,
}

const WAKE: u64 = u64::MAX;

fn watch(epoll: &Epoll, fd: BorrowedFd<'_>, flags: EpollFlags, key: u64) {
    epoll.add(fd, EpollEvent::new(flags | EpollFlags::EPOLLET, key)).expect("watch a descriptor");
}

/// So many records through so many `cat`s and back.
pub(crate) fn counted_pipe(lines: Lines, records: u64, children: usize, shape: Shape) -> Run {
    let total = records * lines.wire.len() as u64;
    let start = Instant::now();
    let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).expect("an eventfd");
    let hungry = AtomicBool::new(false);
    let source = Source { lines: lines.block, left: total, records: 0 };
    let (replies, to_consume) = unbounded::<Block>();
    let (used, spare_replies) = unbounded::<Block>();
    thread::scope(|scope| {
        let supply = if shape == Shape::WithBoth {
            let (give, take) = bounded::<Block>(WAITING);
            let (back, spares) = unbounded::<Block>();
            let (wake, hungry) = (&wake, &hungry);
            let mut source = source;
            scope.spawn(move || {
                let mut block = Block::new();
                while source.fill(&mut block) {
                    if give.send(block).is_err() {
                        return;
                    }
                    if hungry.swap(false, SeqCst) {
                        let _ = wake.write(1);
                    }
                    block = spares.try_recv().unwrap_or_default();
                }
                drop(give);
                let _ = wake.write(1);
            });
            Supply::Thread(take, back)
        } else {
            Supply::Here(source)
        };
        let mut turn = Loop::new(supply, children, total);
        if shape == Shape::Alone {
            turn.run(&wake, &hungry, &spare_replies, |block| {
                black_box(block.last());
                let _ = used.send(block);
            });
        } else {
            let (wake, hungry) = (&wake, &hungry);
            scope.spawn(move || {
                turn.run(wake, hungry, &spare_replies, |block| {
                    let _ = replies.send(block);
                });
                drop(replies);
            });
            for block in to_consume {
                black_box(block.last());
                let _ = used.send(block);
            }
        }
    });
    Run { records, bytes: total, wall: start.elapsed() }
}

struct Loop {
    supply: Supply,
    epoll: Epoll,
    cats: Vec<Cat>,
    left: u64,
}

impl Loop {
    fn new(supply: Supply, children: usize, left: u64) -> Self {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("an epoll instance");
        let cats = (0..children as u64).map(|index| {
            let (child, stdin, stdout) = spawn_piped(&mut Command::new("cat"));
            for pipe in [stdin.as_fd(), stdout.as_fd()] {
                set_nonblocking(pipe);
                enlarge(pipe, BIG_PIPE);
            }
            watch(&epoll, stdin.as_fd(), EpollFlags::EPOLLOUT, 2 * index);
            watch(&epoll, stdout.as_fd(), EpollFlags::EPOLLIN, 2 * index + 1);
            let stdin = Some(stdin);
            Cat {
                child,
                stdin,
                stdout,
                block: Block::new(),
                at: 0,
                may_write: true,
                may_read: true,
            }
        });
        Self { supply, cats: cats.collect(), epoll, left }
    }

    /// The next block into an empty buffer, if there is one.
    fn supply(&mut self, index: usize) -> bool {
        let block = &mut self.cats[index].block;
        match &mut self.supply {
            Supply::Here(source) => source.fill(block),
            Supply::Thread(take, back) => match take.try_recv() {
                Ok(full) => {
                    let _ = back.send(std::mem::replace(block, full));
                    true
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => false,
            },
        }
    }

    fn run(
        &mut self,
        wake: &EventFd,
        hungry: &AtomicBool,
        spares: &Receiver<Block>,
        mut consume: impl FnMut(Block),
    ) {
        watch(&self.epoll, wake.as_fd(), EpollFlags::EPOLLIN, WAKE);
        let mut events = vec![EpollEvent::empty(); 2 * self.cats.len() + 1];
        while self.left > 0 {
            if self.turn(spares, &mut consume) {
                continue;
            }
            hungry.store(true, SeqCst);
            if self.turn(spares, &mut consume) {
                hungry.store(false, SeqCst);
                continue;
            }
            let ready = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => 0,
                Err(error) => panic!("epoll_wait: {error}"),
            };
            hungry.store(false, SeqCst);
            for event in &events[..ready] {
                match event.data() {
                    WAKE => drop(wake.read()),
                    key if key % 2 == 0 => self.cats[key as usize / 2].may_write = true,
                    key => self.cats[key as usize / 2].may_read = true,
                }
            }
        }
        for cat in &mut self.cats {
            drop(cat.stdin.take());
            let _ = cat.child.wait();
        }
    }

    /// A read and a write of each. Says whether something moved.
    fn turn(&mut self, spares: &Receiver<Block>, consume: &mut impl FnMut(Block)) -> bool {
        let mut moved = false;
        for index in 0..self.cats.len() {
            if self.cats[index].may_read {
                let mut block = spares.try_recv().unwrap_or_default();
                block.resize(IO, 0);
                match self.cats[index].stdout.read(&mut block) {
                    Ok(0) => panic!("cat ended early"),
                    Ok(n) => {
                        block.truncate(n);
                        black_box(count(&block));
                        self.left -= n as u64;
                        moved = true;
                        consume(block);
                    }
                    Err(_) => self.cats[index].may_read = false,
                }
            }
            let cat = &mut self.cats[index];
            if cat.may_write && cat.at == cat.block.len() {
                // Nothing of the old block is left; of a new one, all.
                cat.at = 0;
                if !self.supply(index) {
                    self.cats[index].block.clear();
                    continue;
                }
            }
            let cat = &mut self.cats[index];
            if cat.may_write {
                let Some(stdin) = &mut cat.stdin else { continue };
                match stdin.write(&cat.block[cat.at..]) {
                    Ok(n) => {
                        cat.at += n;
                        moved = true;
                    }
                    Err(_) => cat.may_write = false,
                }
            }
        }
        moved
    }
}
