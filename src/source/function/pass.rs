//! Passes over a source, as the consumer sees them.

use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::feed::decoded;
use crate::source::function::source::FunctionSource;
use crate::source::function::wire;
use crate::window::outlet::Outlet;

/// One pass over a [`FunctionSource`]: a lazy, fused iterator of `Result<T, Error>`.
///
/// # Panics
/// `next` passes on a panic of the item's `Deserialize`.
#[must_use = "a pass that is not iterated is abandoned as soon as it is dropped"]
pub struct Pass<'a, T> {
    outlet: Outlet,
    decode: wire::Item<T>,
    source: PhantomData<&'a mut ()>,
}

impl<T> Pass<'_, T> {
    pub(super) fn new(outlet: Outlet) -> Self {
        Self { outlet, decode: wire::Item::default(), source: PhantomData }
    }
}

impl<T: DeserializeOwned> Iterator for Pass<'_, T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let (packet, given) = self.outlet.next()?;
        Some(decoded(&mut self.decode, &[], packet, given).of_work(packet))
    }
}

impl<T: DeserializeOwned> FusedIterator for Pass<'_, T> {}

impl<T> fmt::Debug for Pass<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass")
            .field("yielded", &self.outlet.total_yielded())
            .finish_non_exhaustive()
    }
}

impl<'a, T: DeserializeOwned> IntoIterator for &'a mut FunctionSource<T> {
    type Item = Result<T, Error>;
    type IntoIter = Pass<'a, T>;
    fn into_iter(self) -> Pass<'a, T> {
        self.iter()
    }
}

/// A pass that owns its source: dropping it ends the child. Inside another feed it shares that feed's
/// cancellation.
#[must_use = "a pass that is not iterated ends its child as soon as it is dropped"]
pub struct LastPass<T> {
    // Before the source, which waits for nothing of it.
    pass: Pass<'static, T>,
    source: FunctionSource<T>,
}

impl<T: DeserializeOwned> Iterator for LastPass<T> {
    type Item = Result<T, Error>;
    fn next(&mut self) -> Option<Self::Item> {
        self.pass.next()
    }
}

impl<T: DeserializeOwned> FusedIterator for LastPass<T> {}

impl<T> fmt::Debug for LastPass<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastPass").field("pass", &self.pass).field("source", &self.source).finish()
    }
}

impl<T: DeserializeOwned> IntoIterator for FunctionSource<T> {
    type Item = Result<T, Error>;
    type IntoIter = LastPass<T>;
    fn into_iter(mut self) -> LastPass<T> {
        LastPass { pass: Pass::new(self.begin()), source: self }
    }
}
