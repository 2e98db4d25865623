//! A feed that gives each input back beside its reply.

use std::error;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::error::Error;
use crate::feed::answers::{Answer, Answers, lost};
use crate::feed::builder::Shape;
use crate::feed::running;
use crate::record::PacketId;
use crate::template::codec::{Decode, Encode, Owned};
use crate::window::inputs::Inputs;
use crate::window::packing::Store;

/// A running feed that yields each input beside its reply: `Result<(T, D::Output), InputError<T>>`.
///
/// Made by [`FeedBuilder::keep_input`](crate::FeedBuilder::keep_input). Everything else is as in
/// [`Feed`](crate::Feed).
///
/// ```
/// use subfeed::{FeedExt, Template};
/// let feed = ["one", "three"].into_iter().feed(Template::new("cat")).workers(2).keep_input().start();
/// for pair in feed {
///     let (word, reply) = pair?;
///     assert_eq!(reply, word);
/// }
/// # Ok::<_, subfeed::Error>(())
/// ```
#[must_use = "a feed that is not iterated stops as soon as it is dropped"]
pub struct FeedWithInput<T, D = Owned> {
    answers: Answers<D>,
    store: Kept<T>,
}

impl<T, D: Decode> Iterator for FeedWithInput<T, D> {
    type Item = Result<(T, D::Output), InputError<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        let (packet, answer) = self.answers.next()?;
        let input = self.store.0.take(packet);
        Some(match (answer, input) {
            (Answer::Given(Ok(reply)), Some(input)) => Ok((input, reply)),
            (Answer::Given(Err(error)), input) => Err(InputError { input, error }),
            (Answer::Given(Ok(_)) | Answer::Passed, input) => {
                Err(InputError { input, error: lost(packet) })
            }
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.answers.size_hint()
    }
}

running!([T, D] FeedWithInput<T, D>, "FeedWithInput", Error, {}, |_store, _packet| None);

/// The error of [`FeedWithInput`]: an input, and why there is no reply to it.
///
/// It prints as its [`Error`]; `?` converts it into that or into an [`io::Error`]. It implements [`error::Error`]
/// whatever `T` is, so it can always be boxed and printed.
///
/// ```
/// use subfeed::{FeedExt, InputError, Template};
/// // The tool refuses the second word; what is left of the run is tried with another one.
/// let template = Template::shell("while read -r x; do [ $x = bad ] && exit 3; echo $x; done");
/// let feed = ["good", "bad", "fine"].into_iter().feed(template).workers(1).keep_input().start();
/// let failed: Vec<&str> = feed.filter_map(Result::err).filter_map(|failure| failure.input).collect();
/// assert_eq!(failed, ["bad"]);
/// ```
#[non_exhaustive]
pub struct InputError<T> {
    /// The input. `None` only with a fatal error that concerns no packet.
    pub input: Option<T>,
    /// Why there is no reply.
    pub error: Error,
}

impl<T> fmt::Debug for InputError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The request is in the error; what the input itself looks like may be unknown.
        f.debug_struct("InputError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for InputError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

/// There is no [`source`](error::Error::source), because `Display` prints the cause.
impl<T> error::Error for InputError<T> {}

/// For a fatal error that concerns no packet, so that there is no input.
impl<T> From<Error> for InputError<T> {
    fn from(error: Error) -> Self {
        Self { input: None, error }
    }
}

impl<T> From<InputError<T>> for Error {
    fn from(error: InputError<T>) -> Self {
        error.error
    }
}

impl<T> From<InputError<T>> for io::Error {
    fn from(error: InputError<T>) -> Self {
        error.error.into()
    }
}

/// The inputs of packets that are under way.
#[derive(Debug)]
pub(crate) struct Kept<T>(Arc<Inputs<T>>);

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Store<T> for Kept<T> {
    fn passes(&self, _item: &T) -> bool {
        false
    }
    fn put(&self, item: T) {
        self.0.put(item);
    }
}

impl<T: Send, E: Encode<T>, D: Decode> Shape<T, E, D> for FeedWithInput<T, D> {
    type Encode = E;
    type Store = Kept<T>;
    fn encode(encode: E) -> E {
        encode
    }
    fn store(first: PacketId) -> Kept<T> {
        Kept(Arc::new(Inputs::new(first)))
    }
    fn of(answers: Answers<D>, store: Kept<T>) -> Self {
        Self { answers, store }
    }
}
