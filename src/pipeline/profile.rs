//! Counts and times for the steps of a lazy pipeline on one thread, which is a chain of iterators.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Counts and times the steps of a chain of iterators.
///
/// Wrap each step where it stands in the chain. The time of a step does not include that of the steps before it.
///
/// ```
/// use subfeed::pipeline::Profile;
/// let profile = Profile::new();
/// let numbers = profile.step("source", 0..1_000);
/// let even = profile.step("every second", numbers.filter(|n| n % 2 == 0));
/// let chunks = profile.step("chunk", itertools::Itertools::chunks(even, 64).into_iter().map(|c| c.count()).collect::<Vec<_>>().into_iter());
/// assert_eq!(chunks.sum::<usize>(), 500);
/// let counts: Vec<_> = profile.steps().iter().map(|step| (step.name.to_string(), step.items)).collect();
/// assert_eq!(counts, [("source".to_owned(), 1_000), ("every second".to_owned(), 500), ("chunk".to_owned(), 8)]);
/// println!("{profile}"); // name, items, time, items per second; one line each
/// ```
#[derive(Clone, Debug, Default)]
pub struct Profile(Arc<Mutex<Steps>>);

#[derive(Debug, Default)]
struct Steps {
    steps: Vec<Step>,
    /// Time that steps have spent inside the one that is running, and that is not its own.
    inner: Duration,
}

/// The counts of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// Its name.
    pub name: Arc<str>,
    /// Items that it has yielded.
    pub items: u64,
    /// The time that it took, without the steps before it.
    pub time: Duration,
}

impl Profile {
    /// A profile without steps.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Wraps `step` in an iterator that counts and times it.
    pub fn step<I: Iterator>(&self, name: impl Into<Arc<str>>, step: I) -> ProfileStep<I> {
        let mut steps = self.lock();
        let number = steps.steps.len();
        steps.steps.push(Step { name: name.into(), items: 0, time: Duration::ZERO });
        drop(steps);
        ProfileStep { step, number, profile: self.clone() }
    }

    /// The steps with their counts at this moment, in the order in which they were wrapped.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        self.lock().steps.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Steps> {
        // Nobody panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.steps();
        let width = steps.iter().map(|step| step.name.chars().count()).max().unwrap_or(0);
        for (i, step) in steps.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            let rate = step.items as f64 / step.time.as_secs_f64().max(1e-9);
            write!(
                f,
                "{:width$}  {:>10}  {:>10.3?}  {rate:>12.0}/s",
                step.name, step.items, step.time
            )?;
        }
        Ok(())
    }
}

/// A step that is counted and timed; see [`Profile::step`].
#[derive(Debug)]
#[must_use = "iterators are lazy"]
pub struct ProfileStep<I> {
    step: I,
    number: usize,
    profile: Profile,
}

impl<I: Iterator> Iterator for ProfileStep<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        // What ran inside the caller is put aside until this is done.
        let outer = std::mem::take(&mut self.profile.lock().inner);
        let begun = Instant::now();
        let next = self.step.next();
        let took = begun.elapsed();
        let mut steps = self.profile.lock();
        let inner = steps.inner;
        let step = &mut steps.steps[self.number];
        step.items += u64::from(next.is_some());
        step.time += took.saturating_sub(inner);
        steps.inner = outer + took;
        next
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.step.size_hint()
    }
}
