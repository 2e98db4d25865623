//! Markers: items that go to no worker and keep their position in the stream.

pub use crate::feed::through::MarkedFeed;

/// An item of a source with markers: either work for a worker, or a marker, which passes through at its position.
///
/// A marker says something about the stream, for example that a batch is complete or that a file begins. In an ordered
/// feed it comes out exactly where it went in: after the results of all items before it, and before those of all items
/// after it. It goes to no worker, counts in the window like any item, and is never copied.
///
/// ```
/// use subfeed::FeedExt;
/// use subfeed::marker::Marked;
/// let source = [Marked::Item(1), Marked::Item(2), Marked::Marker("batch done"), Marked::Item(3)];
/// let squares: Vec<_> = source.into_iter().in_threads().workers(2).map_marked(|n| n * n).collect();
/// assert_eq!(squares, [Marked::Item(1), Marked::Item(4), Marked::Marker("batch done"), Marked::Item(9)]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Marked<T, M> {
    /// An item, which goes to a worker.
    Item(T),
    /// A marker, which does not.
    Marker(M),
}

impl<T, M> Marked<T, M> {
    /// The item, unless it is a marker.
    pub fn item(self) -> Option<T> {
        match self {
            Self::Item(item) => Some(item),
            Self::Marker(_) => None,
        }
    }

    /// The marker, unless it is an item.
    pub fn marker(self) -> Option<M> {
        match self {
            Self::Item(_) => None,
            Self::Marker(marker) => Some(marker),
        }
    }
}

/// What a source yields where not all of it is work: [`Marked`], and `Result`, whose errors are none.
pub(crate) trait Route {
    /// What goes to a worker.
    type Work;
    /// What keeps its place.
    type Passed;
    /// The work, if it is work.
    fn work(&self) -> Option<&Self::Work>;
    /// The one or the other.
    fn split(self) -> Marked<Self::Work, Self::Passed>;
}

impl<T, M> Route for Marked<T, M> {
    type Work = T;
    type Passed = M;
    fn work(&self) -> Option<&T> {
        match self {
            Self::Item(item) => Some(item),
            Self::Marker(_) => None,
        }
    }
    fn split(self) -> Self {
        self
    }
}

impl<T, X> Route for Result<T, X> {
    type Work = T;
    type Passed = X;
    fn work(&self) -> Option<&T> {
        self.as_ref().ok()
    }
    fn split(self) -> Marked<T, X> {
        match self {
            Ok(item) => Marked::Item(item),
            Err(error) => Marked::Marker(error),
        }
    }
}
