//! The functions of a program that can be run in a child, and the door through which the child enters.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use serde::de::DeserializeOwned;

use crate::error::BoxError;
use crate::source::function::mailbox::Mailbox;
use crate::source::function::passes::{Begin, IntoPasses};
use crate::source::function::protocol::{Failure, Fault, Opening};
use crate::source::function::{Function, wire, worker};

/// The side channels of the child: the variables that hold their numbers.
pub(super) const COMMANDS: &str = "SUBFEED_FUNCTION_COMMANDS";
pub(super) const ITEMS: &str = "SUBFEED_FUNCTION_ITEMS";
/// The first argument of the child. A variable is inherited by whatever the child itself starts; an
/// argument is not. The second is the function's name, for a reader of the list of processes.
pub(super) const MARK: &str = "--subfeed-function";

/// The child was told to leave, or its parent is gone, and code of the user's did not come to an end.
const HELD_UP: i32 = 3;

static SERVED: AtomicBool = AtomicBool::new(false);

/// Whether this program would recognize itself in a child.
pub(super) fn is_served() -> bool {
    SERVED.load(SeqCst)
}

type Initializer = Box<dyn FnOnce() -> Result<(), BoxError>>;
type Open = Box<dyn FnOnce(&[u8]) -> Result<Box<dyn Begin>, Failure>>;

/// The functions that can be run in a child that is this program again.
///
/// Build it at the top of `main`, and call [`serve`](Registry::serve) before anything else: before arguments are parsed,
/// threads are started, or anything is printed. See [`Function`] for an example.
#[derive(Default)]
#[must_use = "a registry does nothing until serve is called"]
pub struct Registry {
    initializers: Vec<Initializer>,
    functions: BTreeMap<&'static str, Open>,
}

impl Registry {
    /// A registry without functions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a closure that runs in each child before its function is called, for logging, thread pools or a seed.
    /// Initializers run in the order in which they were added, and only in children.
    ///
    /// If one fails or panics, the function is not called, and every pass is a fatal error that says why.
    ///
    /// ```
    /// use subfeed::source::Registry;
    /// let registry = Registry::new().initializer(|| std::env::set_current_dir("/"));
    /// registry.serve(); // This is the parent, so nothing happens.
    /// assert_ne!(std::env::current_dir()?.as_os_str(), "/");
    /// # Ok::<_, std::io::Error>(())
    /// ```
    pub fn initializer<R: Into<BoxError>>(
        mut self,
        initialize: impl FnOnce() -> Result<(), R> + 'static,
    ) -> Self {
        self.initializers.push(Box::new(|| initialize().map_err(Into::into)));
        self
    }

    /// Adds a function. In a child that is started for it, it is called once, with the argument that the parent gave, and
    /// returns its [`Passes`](crate::source::Passes).
    ///
    /// If it returns an error or panics, every pass is one fatal error with the reason.
    ///
    /// # Panics
    /// If a function with this name is already registered.
    pub fn register<A, T, P>(
        mut self,
        function: Function<A, T>,
        open: impl FnOnce(A) -> P + 'static,
    ) -> Self
    where
        A: DeserializeOwned,
        P: IntoPasses<T>,
    {
        let name = function.name();
        let open = move |argument: &[u8]| {
            let begin = |error: BoxError| Failure::of(Fault::Begin, &*error);
            let argument = wire::read(argument).map_err(|error| begin(error.into()))?;
            open(argument).into_passes().map(|passes| passes.begin).map_err(begin)
        };
        let before = self.functions.insert(name, Box::new(open));
        assert!(before.is_none(), "two functions are registered as `{name}`");
        self
    }

    /// In a child: runs the function for which the child was started, and never returns. In other processes: returns at
    /// once, and allows sources to be started.
    ///
    /// Call it at the very top of `main`, always, with the same functions. Without this call the child would run the whole
    /// program again. So a source in a program that has not called it yields an error, and starts nothing.
    ///
    /// A process is such a child if its first argument says so *and* it has inherited the two pipes named in its
    /// environment. Processes that the child starts do not inherit the pipes.
    ///
    /// A test program needs a `main` of its own for this: `harness = false` in the manifest.
    ///
    /// The child exits with status 0 when the parent does not need it any more, or has ended.
    pub fn serve(self) {
        SERVED.store(true, SeqCst);
        if std::env::args_os().nth(1).is_none_or(|mark| mark != MARK) {
            return;
        }
        let (Some(commands), Some(items)) = (number(COMMANDS), number(ITEMS)) else { return };
        let pipes = take(commands, OFlag::O_RDONLY)
            .and_then(|commands| Some((commands, take(items, OFlag::O_WRONLY)?)));
        let Some((commands, items)) = pipes else {
            eprintln!("{MARK} is for subfeed's own use, and here are none of its pipes");
            process::exit(worker::CONFUSED);
        };
        process::exit(self.run(commands, items))
    }

    fn run(self, commands: File, items: File) -> i32 {
        worker::note_where_panics_occur();
        let Ok(mailbox) = Mailbox::new(items) else {
            eprintln!("the pipe that a child of subfeed needs is not to be used");
            return worker::FAILED;
        };
        let mailbox = Arc::new(mailbox);
        let (listener, writer) = (Arc::clone(&mailbox), Arc::clone(&mailbox));
        let patience = Arc::new(std::sync::OnceLock::new());
        let limit = Arc::clone(&patience);
        let listening = thread::Builder::new().name("subfeed-orders".to_owned()).spawn(move || {
            listener.listen(commands);
            // Without an opening nothing of the user's runs.
            let limit = limit.get().copied().unwrap_or_default();
            if !listener.is_left_within(limit) {
                // SAFETY: `_exit` has no preconditions. Not `exit`: what the other threads use is not
                // to be torn down under them.
                unsafe { nix::libc::_exit(HELD_UP) }
            }
        });
        let writing =
            thread::Builder::new().name("subfeed-items".to_owned()).spawn(move || writer.write());
        let (Ok(_), Ok(writing)) = (listening, writing) else {
            eprintln!("the threads that a child of subfeed needs cannot be started");
            return worker::FAILED;
        };
        let exit = worker::work(&mailbox, |opening| {
            let _ = patience.set(Duration::from_millis(opening.leave_ms));
            self.open(opening)
        });
        mailbox.leave();
        // If nobody reads, there is nobody to be told.
        let _ = writing.join();
        exit
    }

    pub(super) fn open(mut self, opening: &Opening) -> Result<Box<dyn Begin>, Failure> {
        let Some(open) = self.functions.remove(opening.function.as_str()) else {
            let known: Vec<_> = self.functions.keys().copied().collect();
            let message = format!(
                "no function is registered as `{}`, only {known:?}: is it registered in every process?",
                opening.function
            );
            return Err(Failure::new(Fault::Begin, message));
        };
        for initialize in self.initializers {
            initialize().map_err(|error| Failure::of(Fault::Begin, &*error))?;
        }
        open(&opening.argument)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("functions", &self.functions.keys())
            .finish_non_exhaustive()
    }
}

fn number(variable: &str) -> Option<RawFd> {
    std::env::var(variable).ok()?.parse().ok().filter(|&number| number > 2)
}

/// Takes a pipe that was inherited under this number, so that nobody inherits it from us.
fn take(number: RawFd, way: OFlag) -> Option<File> {
    // SAFETY: whether there is such a descriptor is what is asked; the borrow ends with these calls.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    let mode = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL).ok()?);
    let kind = nix::sys::stat::fstat(fd).ok()?.st_mode & nix::libc::S_IFMT;
    if mode & OFlag::O_ACCMODE != way || kind != nix::libc::S_IFIFO {
        return None;
    }
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    // SAFETY: the parent made this descriptor for us alone, and nothing else has run in this process.
    Some(File::from(unsafe { OwnedFd::from_raw_fd(number) }))
}
