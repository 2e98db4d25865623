//! The subprocess executor.
//!
//! [`scheduler`] and what it uses ([`session`], [`reading`], [`dispatch`], [`depth`]) are a pure state machine:
//! events in, actions out, no system call and no clock. [`event_loop`] performs the actions and reports the
//! events; [`process`], [`readiness`] and [`probe`] hold the system calls.

/// Whether the scheduler is to make this mistake: never, but in the test of the simulation.
macro_rules! mutated {
    ($mistake:ident) => {{
        #[cfg(test)]
        let on = crate::subprocess::sim::mutants::is_on(
            crate::subprocess::sim::mutants::Mutant::$mistake,
        );
        #[cfg(not(test))]
        let on = false;
        on
    }};
}

/// Tells whoever listens that the state of a worker has changed: one event of the `tracing` feature.
macro_rules! tell {
    ($level:ident, $session:expr, $state:literal $(, $name:ident = $value:expr)*) => {{
        #[cfg(feature = "tracing")]
        tracing::$level!(
            target: "subfeed",
            worker = $session.label.worker,
            pid = $session.label.pid,
            session = $session.serial,
            state = $state,
            $($name = $value,)*
        );
        #[cfg(not(feature = "tracing"))]
        if false {
            let _ = (&$session, $(&$value,)*);
        }
    }};
}

pub(crate) mod answers;
pub(crate) mod arrivals;
pub(crate) mod closing;
pub(crate) mod cutting;
pub(crate) mod deadlines;
pub(crate) mod depth;
pub(crate) mod describing;
pub(crate) mod dispatch;
pub(crate) mod drain;
pub(crate) mod ending;
pub(crate) mod event_loop;
pub(crate) mod exit;
pub(crate) mod input;
pub(crate) mod kill_sequence;
pub(crate) mod os;
#[cfg_attr(
    any(not(target_os = "linux"), subfeed_portable),
    allow(dead_code, reason = "there is no evidence elsewhere")
)]
pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod protocol;
pub(crate) mod readiness;
pub(crate) mod reading;
pub(crate) mod reaper;
pub(crate) mod redelivery;
pub(crate) mod scheduler;
pub(crate) mod session;
#[cfg(test)]
mod sim;
pub(crate) mod stalls;
pub(crate) mod starting;
pub(crate) mod stopping;
pub(crate) mod swarm;
pub(crate) mod timers;
pub(crate) mod together;
