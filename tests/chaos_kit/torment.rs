//! Signals from outside: a thread that stops, continues and kills workers while a round runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::plan::Plan;
use super::proc;
use super::rng::Rng;

pub(crate) struct Tormentor {
    enough: Arc<AtomicBool>,
    thread: JoinHandle<Done>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) kills: u64,
    pub(crate) stops: u64,
}

impl Tormentor {
    pub(crate) fn start(plan: &Plan) -> Option<Self> {
        let (kill_every, stop_every) = (plan.kill_every, plan.stop_every);
        if kill_every.is_none() && stop_every.is_none() {
            return None;
        }
        let enough = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&enough);
        let mut rng = Rng::fork(plan.seed, 2);
        let thread = thread::spawn(move || {
            let mut done = Done::default();
            let mut stopped: Vec<(Instant, u32)> = Vec::new();
            let draw = |rng: &mut Rng, mean: Option<u64>| {
                mean.map(|mean| Instant::now() + Duration::from_micros(rng.below(2_000 * mean)))
            };
            let mut kill_at = draw(&mut rng, kill_every);
            let mut stop_at = draw(&mut rng, stop_every);
            while !flag.load(SeqCst) {
                let now = Instant::now();
                if kill_at.is_some_and(|at| at <= now) {
                    done.kills += u64::from(hit(&mut rng, Signal::SIGKILL).is_some());
                    kill_at = draw(&mut rng, kill_every);
                }
                if stop_at.is_some_and(|at| at <= now) {
                    if let Some(pid) = hit(&mut rng, Signal::SIGSTOP) {
                        done.stops += 1;
                        let long = if rng.one_in(10) { 400 } else { 20 };
                        stopped.push((now + Duration::from_millis(rng.below(long)), pid));
                    }
                    stop_at = draw(&mut rng, stop_every);
                }
                stopped.retain(|&(until, pid)| {
                    let over = until <= now;
                    if over {
                        proc::send_to_child(pid, Signal::SIGCONT);
                    }
                    !over
                });
                thread::sleep(Duration::from_millis(1));
            }
            for (_, pid) in stopped {
                proc::send_to_child(pid, Signal::SIGCONT);
            }
            done
        });
        Some(Self { enough, thread })
    }

    pub(crate) fn stop(self) -> Done {
        self.enough.store(true, SeqCst);
        self.thread.join().expect("the tormentor")
    }
}

/// Signals one of our children.
fn hit(rng: &mut Rng, signal: Signal) -> Option<u32> {
    let children = proc::children();
    if children.is_empty() {
        return None;
    }
    let pid = rng.pick(&children);
    proc::send_to_child(pid, signal).then_some(pid)
}
