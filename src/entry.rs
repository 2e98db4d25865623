//! What of a source is work, and what only keeps its place.

/// An item of a source that also carries marks: an item is work, a mark passes through, in its place.
///
/// A mark says something about the stream (a batch is complete, a file begins), and comes out exactly
/// where it went in: after the results of everything before it and before those of everything behind it,
/// if the feed is ordered. It goes to no worker, counts in the window like any item, and is never
/// copied.
///
/// ```
/// use subfeed::{Entry, FeedExt};
/// let source = [Entry::Item(1), Entry::Item(2), Entry::Mark("batch done"), Entry::Item(3)];
/// let squares: Vec<_> = source.into_iter().feed_in_threads().workers(2).map_items(|n| n * n).collect();
/// assert_eq!(squares, [Entry::Item(1), Entry::Item(4), Entry::Mark("batch done"), Entry::Item(9)]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry<T, M> {
    /// Work.
    Item(T),
    /// No work.
    Mark(M),
}

impl<T, M> Entry<T, M> {
    /// The item, unless it is a mark.
    pub fn item(self) -> Option<T> {
        match self {
            Self::Item(item) => Some(item),
            Self::Mark(_) => None,
        }
    }

    /// The mark, unless it is an item.
    pub fn mark(self) -> Option<M> {
        match self {
            Self::Item(_) => None,
            Self::Mark(mark) => Some(mark),
        }
    }
}

/// What a source yields where not all of it is work: [`Entry`], and `Result`, whose errors are none.
/// Sealed.
pub trait Route {
    /// What goes to a worker.
    type Work;
    /// What keeps its place.
    type Passed;
    /// The work, if it is work.
    fn work(&self) -> Option<&Self::Work>;
    /// The one or the other.
    fn split(self) -> Entry<Self::Work, Self::Passed>;
}

impl<T, M> Route for Entry<T, M> {
    type Work = T;
    type Passed = M;
    fn work(&self) -> Option<&T> {
        match self {
            Self::Item(item) => Some(item),
            Self::Mark(_) => None,
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
    fn split(self) -> Entry<T, X> {
        match self {
            Ok(item) => Entry::Item(item),
            Err(error) => Entry::Mark(error),
        }
    }
}
