//! The subprocess executor.
//!
//! [`core`] and what it uses ([`life`], [`reading`], [`dispatch`], [`depth`]) are a pure state machine:
//! events in, actions out, no system call and no clock. [`driver`] performs the actions and reports the
//! events; [`process`], [`readiness`] and [`probe`] hold the system calls.

/// Whether the core is to make this mistake: never, but in the test of the simulation.
macro_rules! mutated {
    ($mistake:ident) => {{
        #[cfg(test)]
        let on = crate::swarm::sim::mutants::is_on(crate::swarm::sim::mutants::Mutant::$mistake);
        #[cfg(not(test))]
        let on = false;
        on
    }};
}

/// Tells whoever listens that the state of a worker has changed: one event of the `tracing` feature.
macro_rules! tell {
    ($level:ident, $life:expr, $state:literal $(, $name:ident = $value:expr)*) => {{
        #[cfg(feature = "tracing")]
        tracing::$level!(
            target: "subfeed",
            worker = $life.label.worker,
            pid = $life.label.pid,
            life = $life.serial,
            state = $state,
            $($name = $value,)*
        );
        #[cfg(not(feature = "tracing"))]
        if false {
            let _ = (&$life, $(&$value,)*);
        }
    }};
}

pub(crate) mod answers;
pub(crate) mod arrivals;
pub(crate) mod blame;
pub(crate) mod core;
pub(crate) mod cutting;
pub(crate) mod depth;
pub(crate) mod describing;
pub(crate) mod dispatch;
pub(crate) mod drain;
pub(crate) mod driver;
pub(crate) mod due;
pub(crate) mod ending;
pub(crate) mod exit;
pub(crate) mod input;
pub(crate) mod ladder;
pub(crate) mod life;
pub(crate) mod parting;
pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod readiness;
pub(crate) mod reading;
pub(crate) mod reaper;
#[cfg(test)]
mod sim;
pub(crate) mod stalls;
pub(crate) mod starting;
pub(crate) mod stopping;
pub(crate) mod timers;
pub(crate) mod together;
