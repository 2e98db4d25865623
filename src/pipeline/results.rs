//! The end that every stage has.

use std::sync::Arc;

use super::control::Counts;
use super::flow::Flow;
use crate::window::unwind;

/// What a stage makes of one item.
#[derive(Debug)]
pub(super) enum Out<U> {
    None,
    One(U),
    Many(std::vec::IntoIter<U>),
}

/// The results of a stage, one by one, and the hook behind the last.
pub(super) struct Results<I, U> {
    /// `None` once it is over.
    stage: Option<I>,
    many: std::vec::IntoIter<U>,
    counts: Arc<Counts>,
    on_end: Option<Box<dyn FnOnce() + Send>>,
}

impl<I, U> Results<I, U> {
    pub(super) fn new(
        stage: I,
        counts: Arc<Counts>,
        on_end: Option<Box<dyn FnOnce() + Send>>,
    ) -> Self {
        Self { stage: Some(stage), many: Vec::new().into_iter(), counts, on_end }
    }
}

impl<I, U, M> Iterator for Results<I, U>
where
    I: Iterator<Item = Flow<Out<U>, M>>,
{
    type Item = Flow<U, M>;

    fn next(&mut self) -> Option<Flow<U, M>> {
        loop {
            if let Some(item) = self.many.next() {
                Counts::add(&self.counts.given, 1);
                return Some(Ok(item));
            }
            match self.stage.as_mut()?.next() {
                Some(Ok(Out::None)) => {}
                Some(Ok(Out::One(item))) => {
                    Counts::add(&self.counts.given, 1);
                    return Some(Ok(item));
                }
                Some(Ok(Out::Many(many))) => self.many = many,
                Some(Err(pass)) => return Some(Err(pass)),
                None => {
                    // Its threads and their states first: the hook is the last of the stage.
                    self.stage = None;
                    if let Some(hook) = self.on_end.take() {
                        hook();
                    }
                    return None;
                }
            }
        }
    }
}

impl<I, U> Drop for Results<I, U> {
    fn drop(&mut self) {
        self.stage = None;
        if let Some(hook) = self.on_end.take() {
            // Dropping never panics.
            let _ = unwind::catch(hook);
        }
    }
}
