//! The verdict on what holds a feed up, as one line with the setting that would help.

use std::fmt;
use std::time::Duration;

use crate::watch::{Head, Share, Times};

/// From this share of the time on the event loop is what holds a feed up. Below, it is awake because others have
/// something for it.
const MOSTLY_US: f64 = 0.6;

/// What limits the speed of a feed; from [`Monitor::bottleneck`](crate::Monitor::bottleneck).
///
/// `Display` prints one line with the verdict, its figures and the setting that would help:
///
/// ```text
/// workers are idle 83 % of the time: the source makes 1,200 records a second; ...
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Bottleneck {
    /// What the feed waits for.
    pub verdict: Verdict,
    /// The share of the time for which it did, `0.0..=1.0`.
    pub share: f64,
    /// The period that was examined: about the last five seconds, or less if the feed is younger.
    pub within: Duration,
    /// The share of that period for which the workers owed replies, averaged over all workers, `0.0..=1.0`.
    pub busy: f64,
    /// Inputs pulled from the source per second.
    pub pulled_per_second: f64,
    /// Items taken by the consumer per second.
    pub yielded_per_second: f64,
    line: String,
}

/// What a feed waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The start of the workers: none has answered yet.
    Starting,
    /// The source, or `encode`: workers are idle, and the window has room.
    Source,
    /// The workers: all of them are busy.
    Workers,
    /// One slow packet: the consumer waits for it, and the packets after it fill the window.
    Head {
        /// Its id.
        packet: u64,
        /// The worker that has it. `None` while it waits to be sent again.
        worker: Option<usize>,
        /// How long that worker has been working on the packet that it must answer next.
        since: Duration,
    },
    /// The window: it is full, and the workers could be given more.
    Window,
    /// The consumer, or `decode`: replies wait for it, and fill the window.
    Consumer,
    /// The event loop of this crate, which also runs `check` and the framing.
    Us,
    /// Nothing: the workers have answered everything. The consumer may not have taken all of it yet.
    Nothing,
}

/// What else is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) workers: usize,
    pub(crate) window: u64,
    /// The packet that the consumer takes next, and who has it.
    pub(crate) next: u64,
    pub(crate) head: Option<Head>,
    /// Packets that are answered and not taken.
    pub(crate) ready: u64,
    pub(crate) withholding: bool,
}

/// The share that counts most. Of two that are equal, the one that stands first.
fn largest(times: &Times) -> Share {
    let of = |share: &Share| times.shares[*share as usize];
    let us = of(&Share::Us).as_secs_f64();
    if us > 0.0 && us >= MOSTLY_US * times.total().as_secs_f64() {
        return Share::Us;
    }
    let others = [
        Share::Nothing,
        Share::Workers,
        Share::Source,
        Share::Head,
        Share::Window,
        Share::Consumer,
        Share::Starting,
    ];
    others.into_iter().rev().max_by_key(of).unwrap_or(Share::Nothing)
}

pub(crate) fn judge(times: &Times, facts: &Facts) -> Bottleneck {
    let total = times.total();
    let seconds = total.as_secs_f64();
    let part = |time: Duration| if seconds > 0.0 { time.as_secs_f64() / seconds } else { 0.0 };
    let share = largest(times);
    let verdict = match share {
        Share::Starting => Verdict::Starting,
        Share::Source => Verdict::Source,
        Share::Workers => Verdict::Workers,
        Share::Head => Verdict::Head {
            packet: facts.head.map_or(facts.next, |head| head.packet),
            worker: facts.head.map(|head| head.worker),
            since: facts.head.map_or(Duration::ZERO, |head| head.since),
        },
        Share::Window => Verdict::Window,
        Share::Consumer => Verdict::Consumer,
        Share::Us => Verdict::Us,
        Share::Nothing => Verdict::Nothing,
    };
    let rate = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
    let mut bottleneck = Bottleneck {
        verdict,
        share: part(times.shares[share as usize]),
        within: total,
        busy: (part(times.busy) / facts.workers.max(1) as f64).min(1.0),
        pulled_per_second: rate(times.pulled),
        yielded_per_second: rate(times.yielded),
        line: String::new(),
    };
    bottleneck.line = bottleneck.describe(facts);
    bottleneck
}

impl Bottleneck {
    fn describe(&self, facts: &Facts) -> String {
        let share = percent(self.share);
        let idle = percent(1.0 - self.busy);
        let (pulled, yielded) = (number(self.pulled_per_second), number(self.yielded_per_second));
        let Facts { workers, window, ready, .. } = *facts;
        match self.verdict {
            Verdict::Starting => format!(
                "the workers come up, and none has answered yet, for {share} of the time; `start_timeout` would bound that"
            ),
            Verdict::Source => format!(
                "workers are idle {idle} of the time: the source makes {pulled} records a second; make the source or `encode` faster, or save workers with `workers`"
            ),
            Verdict::Workers if facts.withholding => format!(
                "all {workers} workers owe replies {share} of the time, and withhold them until their stdin is closed: {yielded} records a second; `line_buffered` or the tool's own switch would help"
            ),
            Verdict::Workers => format!(
                "all {workers} workers are busy {share} of the time, and answer {yielded} records a second; more of them, with `workers`, would help while there are processors for them"
            ),
            Verdict::Head { packet, worker: Some(worker), since } => format!(
                "packet {packet} is waited for: worker {worker} has been at it for {}, and {ready} replies wait behind it; a larger `buffer`, or `Order::Completion`, lets the others go on, and `packet_timeout` would bound the wait",
                time(since)
            ),
            Verdict::Head { packet, worker: None, .. } => format!(
                "packet {packet} is waited for: no worker has it, and {ready} replies wait behind it; a larger `buffer`, or `Order::Completion`, lets the others go on"
            ),
            Verdict::Window => format!(
                "workers are idle {idle} of the time: the window of {window} packets is full, with less than {workers} workers could be given; a larger `buffer` (or `max_bytes`) would help"
            ),
            Verdict::Consumer => format!(
                "the consumer takes {yielded} replies a second, and {ready} wait for it {share} of the time; make it or `decode` faster, or save workers with `workers`"
            ),
            Verdict::Us => format!(
                "the event loop is at work {share} of the time, at {yielded} records a second: `check` and the framing run there; a cheaper `check`, larger records or several feeds would help"
            ),
            Verdict::Nothing => {
                "the workers have nothing to do: the input has ended, or the feed".to_owned()
            }
        }
    }
}

impl fmt::Display for Bottleneck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share.clamp(0.0, 1.0))
}

/// With commas where it is large, and with as many digits as say something where it is small.
fn number(rate: f64) -> String {
    if rate < 10.0 {
        return format!("{rate:.1}");
    }
    let digits = format!("{rate:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(shares: &[(Share, u64)], facts: Facts) -> Bottleneck {
        let mut times = Times { pulled: 1_234_567.0, yielded: 40.0, ..Times::default() };
        for &(share, ms) in shares {
            times.shares[share as usize] = Duration::from_millis(ms);
        }
        times.busy = Duration::from_millis(340);
        judge(&times, &facts)
    }

    fn facts() -> Facts {
        let (head, withholding) = (None, false);
        Facts { workers: 2, window: 100, next: 7, head, ready: 3, withholding }
    }

    #[test]
    fn the_line_has_the_figures_and_the_setting() {
        let judged = judged(&[(Share::Source, 900), (Share::Us, 100)], facts());
        assert_eq!(judged.verdict, Verdict::Source);
        assert_eq!((judged.share, judged.within), (0.9, Duration::from_secs(1)));
        let line = judged.to_string();
        assert!(line.starts_with(
            "workers are idle 83 % of the time: the source makes 1,234,567 records a second"
        ));
        assert!(line.contains("`encode`"), "{line}");
    }

    #[test]
    fn we_are_named_only_where_we_are_at_work_most_of_the_time() {
        let of =
            |us, workers| judged(&[(Share::Us, us), (Share::Workers, workers)], facts()).verdict;
        assert_eq!(of(550, 450), Verdict::Workers);
        assert_eq!(of(650, 350), Verdict::Us);
        assert_eq!(of(650, 0), Verdict::Us);
        assert_eq!(of(0, 0), Verdict::Nothing);
        let ended = judged(&[(Share::Nothing, 900), (Share::Us, 1)], facts());
        assert_eq!(ended.verdict, Verdict::Nothing);
    }

    #[test]
    fn the_head_is_named_with_whoever_has_it() {
        let head = Head { packet: 9, worker: 1, since: Duration::from_millis(2_100) };
        let judged = |head| judged(&[(Share::Head, 10)], Facts { head, ..facts() });
        let line = judged(Some(head)).to_string();
        assert!(
            line.starts_with("packet 9 is waited for: worker 1 has been at it for 2.1 s"),
            "{line}"
        );
        let line = judged(None).to_string();
        assert!(line.starts_with("packet 7 is waited for: no worker has it"), "{line}");
    }

    #[test]
    fn numbers_are_readable() {
        let all = [0.25, 9.96, 10.4, 999.6, 1_200.0, 12_345_678.0].map(number);
        assert_eq!(all, ["0.2", "10.0", "10", "1,000", "1,200", "12,345,678"]);
    }
}
