//! A function of this program as a source, run in a child that is this program again.
//!
//! ```text
//!  parent                                     child: the same executable, entered at Registry::serve
//!  pass --- board --> event loop --- orders --->  listener \
//!    ^                  |                               mailbox <--> worker: initializers, function, passes
//!    +---- outbox <-----+ <---- reports ----- writer   /
//! ```
//!
//! `board` and `session` are the parent's side, `orders`, `worker` (both pure) and `mailbox` (threads and pipes) are the child's; they
//! speak `protocol`.

mod board;
mod mailbox;
mod orders;
mod pass;
mod passes;
mod protocol;
mod registry;
mod session;
#[cfg(test)]
mod sim;
mod source;
mod wire;
mod worker;
#[cfg(test)]
mod worker_tests;

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::pass::{LastPass, Pass};
pub use self::passes::{IntoPasses, Passes};
pub use self::registry::Registry;
pub use self::source::FunctionSource;
use crate::framing::{ReplyFraming, RequestFraming};
use crate::template::Template;
use crate::template::channel::Redirect;

/// How long a child that is to leave may take, at the default: longer than a feed in it takes to end its
/// own workers, which have to be asked, terminated and killed before the child itself is.
const LEAVE_GRACE: Duration = Duration::from_secs(1);

/// The name of a function that can be run in a child, with the types of its argument and of its items.
///
/// A constant that both sides use: the [`Registry`] at the top of `main`, where the child enters, and the
/// parent, which iterates. So they cannot disagree about the types.
///
/// ```standalone_crate
/// use subfeed::source::{Function, Passes, Registry};
///
/// const SQUARES: Function<u64, u64> = Function::new("squares");
///
/// fn main() -> Result<(), subfeed::Error> {
///     Registry::new()
///         .register(SQUARES, |n| Passes::each(move || (0..n).map(|k| k * k)))
///         .serve(); // the child does not come back from here
///
///     let mut squares = SQUARES.iterate_in_subprocess(&5, 3);
///     for _pass in 0..2 {
///         assert_eq!(squares.iter().collect::<Result<Vec<_>, _>>()?, [0, 1, 4, 9, 16]);
///     }
///     Ok(())
/// }
/// ```
pub struct Function<A, T> {
    name: &'static str,
    types: PhantomData<fn(A) -> T>,
}

impl<A, T> Function<A, T> {
    /// A function with this name. It must be registered too: see [`Registry::register`].
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, types: PhantomData }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<A: Serialize, T: DeserializeOwned> Function<A, T> {
    /// Iterates over the items of the function, which runs in a child process that is this program again.
    ///
    /// Nothing is started here: the child starts at the first [`iter`](FunctionSource::iter), or at
    /// [`start`](FunctionSource::start). It runs the [initializers](Registry::initializer), calls the function once with a
    /// copy of `argument`, and waits. Each `iter` is then one of the function's [`Passes`], in the same process.
    ///
    /// **Look-ahead is exact**: the function's iterator is not asked for item `k + buffer_size` of a pass (or for the end,
    /// if the pass has no such item) before item `k` has been yielded here. So at most `buffer_size` items are made and not
    /// yet yielded. Items are made as soon as the pass is made, not when the first is asked for.
    /// [`max_bytes`](FunctionSource::max_bytes) also bounds the bytes that are held here.
    ///
    /// **A whole pipeline in the child** is a function whose passes are any chain of iterators, including feeds of this
    /// crate, which are built and dropped in the child. Processes that it starts belong to the child. See the example
    /// `prefetch`, and [`Passes::epochs`] for a pipeline that continues through all passes.
    ///
    /// ```standalone_crate
    /// use subfeed::source::{Function, Passes, Registry};
    /// use subfeed::{BoxError, FeedExt, Template};
    ///
    /// const LENGTHS: Function<Vec<String>, usize> = Function::new("lengths");
    ///
    /// fn lengths(words: Vec<String>) -> Passes<usize> {
    ///     Passes::try_each(move || {
    ///         let upper = words.clone().into_iter()
    ///             .feed_subprocesses_ordered(Template::new("sed").args(["-u", "s/^/>/"]), 2, 16);
    ///         Ok::<_, BoxError>(upper.map(|reply| reply.map(|reply| reply.len())))
    ///     })
    /// }
    ///
    /// fn main() -> Result<(), subfeed::Error> {
    ///     Registry::new().register(LENGTHS, lengths).serve();
    ///     let words = ["a", "bb", "ccc"].map(str::to_owned).to_vec();
    ///     let lengths: Vec<_> = LENGTHS.iterate_in_subprocess(&words, 8).iter().collect::<Result<_, _>>()?;
    ///     assert_eq!(lengths, [2, 3, 4]);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # The child
    /// Its stdin is empty. Its stdout is that of this process, so the function may print. What it writes on stderr is kept
    /// for the errors ([`stderr`](FunctionSource::stderr) changes that). Orders and items travel on two other pipes. It
    /// inherits no other descriptor, and leads a process group of its own. It ends when the source is dropped, and when
    /// this process ends, for any reason and whatever the child is doing; it then has
    /// [`end_timeout`](FunctionSource::end_timeout) to drop what it holds.
    ///
    /// # Errors
    /// This method never fails; errors are items of each pass.
    ///
    /// - Not fatal, at their positions: an item that is an `Err` ([`Failed`](crate::ErrorKind::Failed)), that cannot be
    ///   serialized or is larger than [`item_limit`](FunctionSource::item_limit) ([`Encode`](crate::ErrorKind::Encode)), or
    ///   that cannot be read ([`Decode`](crate::ErrorKind::Decode)). The pass goes on.
    /// - Fatal for the pass, while the child continues: a pass that cannot begin; a panic (with its message and location); a
    ///   second pass if there is [only one](Passes::once).
    /// - Fatal for every pass until a [`restart`](FunctionSource::restart): an initializer or the function failed or
    ///   panicked; the child ended ([`Died`](crate::ErrorKind::Died), with its exit status and its stderr) or exceeded a
    ///   time limit; [`Registry::serve`] was not called; `buffer_size` is 0. Items that the child has made and not sent when
    ///   it ends are lost; as long as there is room in the pipe, it sends each item at once.
    ///
    /// Items are sent as [postcard](https://docs.rs/postcard), exactly and without field names: serde's
    /// `skip_serializing_if`, `flatten`, `untagged` and `tag` are errors, of each item that uses them.
    pub fn iterate_in_subprocess(self, argument: &A, buffer_size: usize) -> FunctionSource<T> {
        let template = Template::new(this_program())
            .raw_arg(registry::MARK)
            .raw_arg(self.name)
            .stdin(Redirect::Null)
            .stdout(Redirect::Inherit)
            .side_input_framed(registry::COMMANDS, RequestFraming::raw())
            .side_output(registry::ITEMS, ReplyFraming::until_eof())
            .end_timeout(LEAVE_GRACE);
        FunctionSource::new(self.name, wire::write(argument), template, buffer_size)
    }
}

/// Where this very program can be started from, even if its file has been replaced meanwhile.
fn this_program() -> std::path::PathBuf {
    let link = Path::new("/proc/self/exe");
    if cfg!(target_os = "linux") && link.exists() {
        return link.to_owned();
    }
    // Without a path the command is empty, which is reported as such.
    std::env::current_exe().unwrap_or_default()
}

impl<A, T> Clone for Function<A, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A, T> Copy for Function<A, T> {}

impl<A, T> fmt::Debug for Function<A, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Function").field(&self.name).finish()
    }
}
