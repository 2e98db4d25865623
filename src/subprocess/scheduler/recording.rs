//! What the timeline is told: what has changed at a session, and how the window stands.
//!
//! Without the feature `timeline` nothing of it is compiled but the names.

#[cfg(not(feature = "timeline"))]
pub(super) use off::Before;
#[cfg(feature = "timeline")]
pub(super) use on::Before;

#[cfg(feature = "timeline")]
mod on {
    use std::process::ExitStatus;

    use crate::subprocess::scheduler::Scheduler;
    use crate::watch::{Standing, Tolls};

    /// What had been counted before an event, if that is to be recorded.
    pub(in crate::subprocess::scheduler) type Before = Option<Tolls>;

    impl Scheduler {
        /// What has been counted before an event, if that is to be recorded.
        #[inline]
        pub(in crate::subprocess::scheduler) fn before(&self) -> Before {
            self.plan.stats.recorder().map(|_| self.tolls())
        }

        fn tolls(&self) -> Tolls {
            self.plan.stats.tolls()
        }

        pub(in crate::subprocess::scheduler) fn record_start(
            &self,
            slot: usize,
            serial: u64,
            pid: u32,
        ) {
            if let Some(recorder) = self.plan.stats.recorder() {
                recorder.started(slot, serial, Some(pid), self.now.real);
            }
        }

        /// Something has happened at the session in a slot.
        #[inline]
        pub(in crate::subprocess::scheduler) fn record(&self, slot: usize, before: Before) {
            let (Some(before), Some(recorder)) = (before, self.plan.stats.recorder()) else {
                return;
            };
            if let Some(session) = self.session(slot) {
                recorder.turned(slot, session.state(), &before, &self.tolls(), self.now.real);
            }
        }

        /// It was reaped.
        pub(in crate::subprocess::scheduler) fn record_end(
            &self,
            slot: usize,
            status: Option<ExitStatus>,
            before: Before,
        ) {
            if let (Some(before), Some(recorder)) = (before, self.plan.stats.recorder()) {
                recorder.ended(slot, status, &before, &self.tolls(), self.now.real);
            }
        }

        /// How the window stands, as the event loop is about to sleep.
        #[inline]
        pub(crate) fn record_window(&self, standing: &Standing) {
            let Some(recorder) = self.plan.stats.recorder() else { return };
            if recorder.wants_look(self.now.real) {
                let head = if standing.consumer_waits { self.head() } else { None };
                recorder.looked(standing, head, self.now.real);
            }
        }
    }
}

#[cfg(not(feature = "timeline"))]
mod off {
    use std::process::ExitStatus;

    use crate::subprocess::scheduler::Scheduler;
    use crate::watch::Standing;

    /// Nothing is counted.
    #[derive(Clone, Copy)]
    pub(in crate::subprocess::scheduler) struct Before;

    impl Scheduler {
        #[inline]
        pub(in crate::subprocess::scheduler) fn before(&self) -> Before {
            Before
        }

        #[inline]
        pub(in crate::subprocess::scheduler) fn record_start(&self, _: usize, _: u64, _: u32) {}

        #[inline]
        pub(in crate::subprocess::scheduler) fn record(&self, _: usize, _: Before) {}

        #[inline]
        pub(in crate::subprocess::scheduler) fn record_end(
            &self,
            _: usize,
            _: Option<ExitStatus>,
            _: Before,
        ) {
        }

        #[inline]
        pub(crate) fn record_window(&self, _: &Standing) {}
    }
}
