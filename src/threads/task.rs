//! What is done with an item, and with what state of the worker's own.

pub(crate) trait Task<T>: Send + Sync {
    type State: Send;
    type Value: Send;
    fn state(&self) -> Self::State;
    fn run(&self, state: &mut Self::State, item: T) -> Self::Value;
}

/// A closure alone.
pub(super) struct Plain<F>(pub(super) F);

impl<T, U: Send, F: Fn(T) -> U + Send + Sync> Task<T> for Plain<F> {
    type State = ();
    type Value = U;
    fn state(&self) {}
    fn run(&self, (): &mut (), item: T) -> U {
        (self.0)(item)
    }
}

/// A closure that makes a worker's state, and one that uses it.
pub(super) struct WithState<N, F>(pub(super) N, pub(super) F);

impl<T, S, U, N, F> Task<T> for WithState<N, F>
where
    S: Send,
    U: Send,
    N: Fn() -> S + Send + Sync,
    F: Fn(&mut S, T) -> U + Send + Sync,
{
    type State = S;
    type Value = U;
    fn state(&self) -> S {
        (self.0)()
    }
    fn run(&self, state: &mut S, item: T) -> U {
        (self.1)(state, item)
    }
}
