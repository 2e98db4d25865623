//! What a registered function returns: something that can be iterated, once or again and again.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;

use crate::error::BoxError;
use crate::source::function::protocol::{Failure, Fault};

/// What a registered function returns: how each pass over its items is made.
///
/// The function is called once; each pass of the parent then begins one of these. Choose by what a second pass should be:
///
/// | made by | a pass | a second pass |
/// |---|---|---|
/// | [`each`](Passes::each) | what the closure returns | calls the closure again |
/// | [`once`](Passes::once) | the iterator | an error |
/// | [`epochs`](Passes::epochs) | the items of one iterator up to its next `None` among them | continues after it, and nothing is rebuilt |
///
/// Each has a `try_` form for items that are `Result`s. An `Err` becomes an `Err` at its position in the parent, with its
/// message and those of its causes, and the pass goes on. To send an error as a *value*, make the `Result` the item:
/// `Passes::each` of `Result<T, MyError>`, where both implement serde's traits.
///
/// The iterators are used only by the main thread of the child, so nothing needs to be `Send`. They may be feeds of this
/// crate. When a pass is dropped early, a feed in which its `next` waits is cancelled.
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
    /// Passes that a closure makes. It is called exactly once for each pass, even if the pass is dropped at once.
    ///
    /// A panic of the closure or of an iterator is a fatal error of that pass. The next pass calls the closure again.
    pub fn each<I>(mut begin: impl FnMut() -> I + 'static) -> Self
    where
        I: IntoIterator<Item = T>,
        I::IntoIter: 'static,
    {
        Self::try_each(move || Ok::<_, BoxError>(begin().into_iter().map(Ok::<T, BoxError>)))
    }

    /// [`each`](Passes::each), if a pass and each item may fail. A pass that cannot begin is one fatal error, and the next
    /// one tries again.
    pub fn try_each<I, R, S>(mut begin: impl FnMut() -> Result<I, R> + 'static) -> Self
    where
        I: IntoIterator<Item = Result<T, S>>,
        I::IntoIter: 'static,
        R: Into<BoxError>,
        S: Into<BoxError>,
    {
        Self::of(Each {
            begin: move || begin().map(IntoIterator::into_iter).map_err(Into::into),
            pass: None,
        })
    }

    /// One pass, over an iterator that exists only once, such as a socket or a generator. A second pass is an error of kind
    /// [`ErrorKind::Config`](crate::ErrorKind::Config).
    pub fn once<I>(items: I) -> Self
    where
        I: IntoIterator<Item = T>,
        I::IntoIter: 'static,
    {
        Self::try_once(items.into_iter().map(Ok::<T, BoxError>))
    }

    /// [`once`](Passes::once), if each item may fail.
    pub fn try_once<I, S>(items: I) -> Self
    where
        I: IntoIterator<Item = Result<T, S>>,
        I::IntoIter: 'static,
        S: Into<BoxError>,
    {
        Self::of(Once { unspent: Some(items.into_iter()), pass: None })
    }

    /// Passes over one iterator that continues: a `None` among its items ends a pass, and the next pass begins after it.
    ///
    /// A pipeline that works ahead can so work on the next epoch while this one is consumed, and nothing is rebuilt in
    /// between. Each pass is one epoch. If a pass is dropped early, the rest of its epoch is skipped when the next pass
    /// begins. Two `None`s in a row are an empty epoch. When the iterator has ended, further passes are errors. Unlike
    /// elsewhere, dropping a pass does not cancel a feed in which `next` waits, because that feed must continue.
    pub fn epochs<I>(items: I) -> Self
    where
        I: IntoIterator<Item = Option<T>>,
        I::IntoIter: 'static,
    {
        Self::try_epochs(items.into_iter().map(Ok::<Option<T>, BoxError>))
    }

    /// [`epochs`](Passes::epochs), if each item may fail.
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

/// Passes, one after another; what an item is does not show.
pub(super) trait Begin {
    /// Whether a pass that is stopped may cancel what it waits in.
    fn may_be_cancelled(&self) -> bool {
        true
    }

    fn begin(&mut self) -> Result<(), Failure>;

    /// Appends the next item of the pass that has begun. What is appended when it failed counts for nothing.
    fn step(&mut self, out: &mut Vec<u8>) -> Step;

    /// The pass is over: drops what was made for it.
    fn leave(&mut self);
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

fn step<T: Serialize, S: Into<BoxError>>(
    items: &mut Option<impl Iterator<Item = Result<T, S>>>,
    out: &mut Vec<u8>,
) -> Step {
    let next = items.as_mut().and_then(Iterator::next);
    next.map_or(Step::End, |item| write(item, out))
}

struct Each<F, I> {
    begin: F,
    pass: Option<I>,
}

impl<F, I, T, S> Begin for Each<F, I>
where
    F: FnMut() -> Result<I, BoxError>,
    I: Iterator<Item = Result<T, S>>,
    T: Serialize,
    S: Into<BoxError>,
{
    fn begin(&mut self) -> Result<(), Failure> {
        self.pass = Some((self.begin)().map_err(|error| failure(Fault::Begin, error))?);
        Ok(())
    }

    fn step(&mut self, out: &mut Vec<u8>) -> Step {
        step(&mut self.pass, out)
    }

    fn leave(&mut self) {
        self.pass = None;
    }
}

struct Once<I> {
    unspent: Option<I>,
    pass: Option<I>,
}

impl<I, T, S> Begin for Once<I>
where
    I: Iterator<Item = Result<T, S>>,
    T: Serialize,
    S: Into<BoxError>,
{
    fn begin(&mut self) -> Result<(), Failure> {
        let items = self.unspent.take().ok_or_else(|| {
            let message =
                "it is an iterator that there is only one of; Passes::each makes a new one";
            Failure::new(Fault::Spent, message)
        })?;
        self.pass = Some(items);
        Ok(())
    }

    fn step(&mut self, out: &mut Vec<u8>) -> Step {
        step(&mut self.pass, out)
    }

    fn leave(&mut self) {
        self.pass = None;
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
    I: Iterator<Item = Result<Option<T>, S>>,
    T: Serialize,
    S: Into<BoxError>,
{
    fn may_be_cancelled(&self) -> bool {
        false
    }

    fn begin(&mut self) -> Result<(), Failure> {
        match self.position {
            Position::Between => self.position = Position::Begun,
            Position::Begun | Position::Inside => {
                self.position = Position::Begun;
                self.abandoned += 1;
            }
            Position::Ended => {}
        }
        Ok(())
    }

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

    fn leave(&mut self) {}
}

fn ended() -> Step {
    Step::Failed(Failure::new(Fault::Spent, "its last epoch is over"))
}

/// What a registered function may return: [`Passes`], or a `Result` of them. Sealed.
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
