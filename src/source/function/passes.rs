//! What a registered function returns: something that can be iterated, once or again and again.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;

use crate::error::BoxError;
use crate::source::function::protocol::{Failure, Fault};

/// What a registered function gives in the child: how each pass over it is made.
///
/// The function is called once; each pass of the parent's then begins one of these. Choose by what a
/// second pass is to be:
///
/// | made by | a pass | a second pass |
/// |---|---|---|
/// | [`each`](Passes::each) | what the closure returns | calls the closure again: the same, or what its state makes of it |
/// | [`once`](Passes::once) | the iterator | an error |
/// | [`epochs`](Passes::epochs) | one iterator's items up to its next mark | goes on behind the mark, with nothing rebuilt |
///
/// Each has a `try_` form for items that are `Result`s: an `Err` is an `Err` at its position on the other
/// side, with its message and those of its causes, and the pass goes on. To carry an error *value* over, let
/// the `Result` be the item: `Passes::each` of `Result<T, MyError>`, both of them serde's.
///
/// The iterators are used by one thread, the main thread of the child: nothing needs to be `Send`. They may
/// be feeds of this crate. When a pass is abandoned, whatever feed its `next` waits in is cancelled.
///
/// ```
/// use subfeed::BoxError;
/// use subfeed::source::Passes;
///
/// fn lines_of(path: String) -> Result<Passes<String>, BoxError> {
///     let text = std::fs::read_to_string(path)?; // once
///     Ok(Passes::each(move || text.lines().map(str::to_owned).collect::<Vec<_>>()))
/// }
/// # let _ = lines_of("no such file".to_owned()).unwrap_err();
/// ```
pub struct Passes<T> {
    pub(super) begin: Box<dyn Begin>,
    items: PhantomData<fn() -> T>,
}

impl<T: Serialize + 'static> Passes<T> {
    /// Passes that the closure begins, one each time it is called: a fresh iterator, or whatever its own
    /// state makes of it. It is called exactly once for each pass, even for one that is left at once.
    ///
    /// A panic of the closure or of an iterator is a fatal error of that pass; the next one calls the
    /// closure again.
    pub fn each<I>(mut begin: impl FnMut() -> I + 'static) -> Self
    where
        I: IntoIterator<Item = T>,
        I::IntoIter: 'static,
    {
        Self::try_each(move || Ok::<_, BoxError>(begin().into_iter().map(Ok::<T, BoxError>)))
    }

    /// [`each`](Passes::each), where the beginning and each item may fail. A pass that cannot begin is one
    /// fatal error, and the next one tries again.
    pub fn try_each<I, R, S>(mut begin: impl FnMut() -> Result<I, R> + 'static) -> Self
    where
        I: IntoIterator<Item = Result<T, S>>,
        I::IntoIter: 'static,
        R: Into<BoxError>,
        S: Into<BoxError>,
    {
        Self::of(Each(move || begin().map(IntoIterator::into_iter).map_err(Into::into)))
    }

    /// One pass, over an iterator that there is only one of: a socket, a generator. A second pass is an
    /// error of kind [`ErrorKind::Config`](crate::ErrorKind::Config), never an empty one.
    pub fn once<I>(items: I) -> Self
    where
        I: IntoIterator<Item = T>,
        I::IntoIter: 'static,
    {
        Self::try_once(items.into_iter().map(Ok::<T, BoxError>))
    }

    /// [`once`](Passes::once), where each item may fail.
    pub fn try_once<I, S>(items: I) -> Self
    where
        I: IntoIterator<Item = Result<T, S>>,
        I::IntoIter: 'static,
        S: Into<BoxError>,
    {
        Self::of(Once(Some(items.into_iter())))
    }

    /// Passes over one iterator that lives on: `None` among its items ends a pass, and the next pass goes
    /// on behind it.
    ///
    /// A pipeline that works ahead is thereby at work on the next epoch while this one is consumed; nothing
    /// is rebuilt in between. Each pass is one epoch: of one that is abandoned, however early, the rest is
    /// skipped at the beginning of the next pass. Two marks in a row are an empty epoch. When the iterator has ended, further passes are
    /// errors, never empty. Unlike elsewhere, stopping a pass does not cancel what `next` waits in, because
    /// that is to live on.
    pub fn epochs<I>(items: I) -> Self
    where
        I: IntoIterator<Item = Option<T>>,
        I::IntoIter: 'static,
    {
        Self::try_epochs(items.into_iter().map(Ok::<Option<T>, BoxError>))
    }

    /// [`epochs`](Passes::epochs), where each item may fail.
    pub fn try_epochs<I, S>(items: I) -> Self
    where
        I: IntoIterator<Item = Result<Option<T>, S>>,
        I::IntoIter: 'static,
        S: Into<BoxError>,
    {
        Self::of(Epochs { items: items.into_iter(), position: Position::Between, abandoned: 0 })
    }

    fn of(begin: impl Begin + 'static) -> Self {
        Self { begin: Box::new(begin), items: PhantomData }
    }
}

impl<T> fmt::Debug for Passes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passes")
    }
}

/// What became of one call for an item.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is appended, serialized.
    Item,
    Failed(Failure),
    End,
}

/// Begins passes; what an item is does not show.
pub(super) trait Begin {
    /// Whether a pass that is stopped may cancel what it waits in.
    fn may_be_cancelled(&self) -> bool {
        true
    }

    fn begin(&mut self) -> Result<Box<dyn Steps + '_>, Failure>;
}

/// One pass.
pub(super) trait Steps {
    /// Appends the next item. What is appended when it failed counts for nothing.
    fn step(&mut self, out: &mut Vec<u8>) -> Step;
}

fn failure(fault: Fault, error: impl Into<BoxError>) -> Failure {
    Failure::of(fault, &*error.into())
}

fn write<T: Serialize, S: Into<BoxError>>(item: Result<T, S>, out: &mut Vec<u8>) -> Step {
    match item {
        Ok(item) => match postcard::to_io(&item, out) {
            Ok(_) => Step::Item,
            Err(error) => Step::Failed(failure(Fault::Encode, error)),
        },
        Err(error) => Step::Failed(failure(Fault::Item, error)),
    }
}

struct Each<F>(F);

impl<F, I, T, S> Begin for Each<F>
where
    F: FnMut() -> Result<I, BoxError>,
    I: Iterator<Item = Result<T, S>> + 'static,
    T: Serialize,
    S: Into<BoxError>,
{
    fn begin(&mut self) -> Result<Box<dyn Steps + '_>, Failure> {
        let items = (self.0)().map_err(|error| failure(Fault::Begin, error))?;
        Ok(Box::new(Items(items)))
    }
}

struct Once<I>(Option<I>);

impl<I, T, S> Begin for Once<I>
where
    I: Iterator<Item = Result<T, S>> + 'static,
    T: Serialize,
    S: Into<BoxError>,
{
    fn begin(&mut self) -> Result<Box<dyn Steps + '_>, Failure> {
        let items = self.0.take().ok_or_else(|| {
            let message =
                "it is an iterator that there is only one of; Passes::each makes a new one";
            Failure::new(Fault::Spent, message)
        })?;
        Ok(Box::new(Items(items)))
    }
}

struct Items<I>(I);

impl<I, T, S> Steps for Items<I>
where
    I: Iterator<Item = Result<T, S>>,
    T: Serialize,
    S: Into<BoxError>,
{
    fn step(&mut self, out: &mut Vec<u8>) -> Step {
        self.0.next().map_or(Step::End, |item| write(item, out))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Between,
    /// A pass has begun, and nothing has been asked for.
    Begun,
    Inside,
    Ended,
}

struct Epochs<I> {
    items: I,
    position: Position,
    /// Epochs, this one first, of which nothing is wanted any more.
    abandoned: u64,
}

impl<I, T, S> Begin for Epochs<I>
where
    I: Iterator<Item = Result<Option<T>, S>> + 'static,
    T: Serialize,
    S: Into<BoxError>,
{
    fn may_be_cancelled(&self) -> bool {
        false
    }

    fn begin(&mut self) -> Result<Box<dyn Steps + '_>, Failure> {
        match self.position {
            Position::Between => self.position = Position::Begun,
            Position::Begun | Position::Inside => {
                self.position = Position::Begun;
                self.abandoned += 1;
            }
            Position::Ended => {}
        }
        Ok(Box::new(self))
    }
}

impl<I, T, S> Steps for &mut Epochs<I>
where
    I: Iterator<Item = Result<Option<T>, S>>,
    T: Serialize,
    S: Into<BoxError>,
{
    fn step(&mut self, out: &mut Vec<u8>) -> Step {
        while self.position != Position::Ended {
            match self.items.next().map(Result::transpose) {
                Some(Some(_)) if self.abandoned > 0 => {}
                Some(None) if self.abandoned > 0 => self.abandoned -= 1,
                Some(Some(item)) => {
                    self.position = Position::Inside;
                    return write(item, out);
                }
                Some(None) => {
                    self.position = Position::Between;
                    return Step::End;
                }
                None if std::mem::replace(&mut self.position, Position::Ended)
                    == Position::Inside =>
                {
                    return Step::End;
                }
                None => {}
            }
        }
        ended()
    }
}

fn ended() -> Step {
    Step::Failed(Failure::new(Fault::Spent, "its last epoch is over"))
}

/// What a registered function may return: [`Passes`], or a `Result` with them.
///
/// Sealed: it is implemented for these two.
pub trait IntoPasses<T>: sealed::IntoPasses<T> {}

impl<T> IntoPasses<T> for Passes<T> {}
impl<T, R: Into<BoxError>> IntoPasses<T> for Result<Passes<T>, R> {}

pub(super) mod sealed {
    use super::{BoxError, Passes};

    pub trait IntoPasses<T> {
        fn into_passes(self) -> Result<Passes<T>, BoxError>;
    }

    impl<T> IntoPasses<T> for Passes<T> {
        fn into_passes(self) -> Result<Passes<T>, BoxError> {
            Ok(self)
        }
    }

    impl<T, R: Into<BoxError>> IntoPasses<T> for Result<Passes<T>, R> {
        fn into_passes(self) -> Result<Passes<T>, BoxError> {
            self.map_err(Into::into)
        }
    }
}
