use std::cell::Cell;

use super::*;

const D: Duration = Duration::from_millis(100);
const COMPUTES: Evidence = Evidence::Working(Work::Computing);
const READS: ThreadView = ThreadView::ReadOf(0);

fn look_with(views: &[ThreadView], coverage: Coverage) -> Look {
    let threads = (1..).zip(views).map(|(tid, &view)| Thread::new(tid, 7, true, view, D)).collect();
    Look::new(D, vec![0], threads, coverage)
}

/// The same at another time, each thread having used some more processor time.
fn later(look: &Look, at: Duration, used: Duration) -> Look {
    let mut later = look.clone();
    later.at = at;
    later.threads.iter_mut().for_each(|thread| thread.used += used);
    later
}

/// One row of the table: what one thread beside a reader of our channel makes of the worker.
#[test]
fn the_worst_thread_decides() {
    use ThreadView as View;
    for (view, alone) in [
        (View::ReadOfInnerPipe, Evidence::Waiting),
        (View::WaitForChild, Evidence::Waiting),
        (View::FutexForever, Evidence::Waiting),
        (View::Timed, Evidence::Asleep),
        (View::Hidden, Evidence::Opaque(Obstacle::Hidden)),
        (View::Poll, Evidence::EventLoop),
        (View::Outside(Outside::Socket), Evidence::Outside(Outside::Socket)),
        (View::Outside(Outside::Lock), Evidence::Outside(Outside::Lock)),
        (View::Outside(Outside::UnknownCall), Evidence::Outside(Outside::UnknownCall)),
        (View::ReadOf(1), Evidence::Working(Work::Unread)),
        (View::DiskWait, Evidence::Working(Work::Disk)),
        (View::Running, COMPUTES),
        (View::Stopped(Stop::Signal(21)), Evidence::Stopped(Stop::Signal(21))),
        (View::ReadOfTerminal, Evidence::Stopped(Stop::Terminal)),
    ] {
        let mut look = look_with(&[READS, view, READS], Coverage::Still);
        look.unread.push(1);
        assert_eq!(look.alone(), alone, "{view:?}");
    }
    // The order in which they are written down above is that of the table.
    let all = [View::Running, View::Stopped(Stop::Tracer), View::Poll, View::DiskWait, View::Timed];
    let worst = |count| look_with(&all[..count], Coverage::Still).alone();
    assert_eq!([1, 2, 5].map(worst)[1..], [Evidence::Stopped(Stop::Tracer); 2]);
    assert_eq!(look_with(&all[2..4], Coverage::Still).alone(), Evidence::Working(Work::Disk));
    let both = [View::Outside(Outside::Socket), View::Poll];
    assert_eq!(look_with(&both, Coverage::Still).alone(), Evidence::Outside(Outside::Socket));
}

#[test]
fn a_look_that_is_not_whole_is_no_better_than_what_it_may_have_missed() {
    let seen = [READS, ThreadView::FutexForever];
    for (coverage, alone) in [
        (Coverage::Still, Evidence::Waiting),
        (Coverage::Once, Evidence::Asleep),
        (Coverage::Partial(Obstacle::NotWhole), Evidence::Opaque(Obstacle::NotWhole)),
        (Coverage::Moving, Evidence::Working(Work::Changing)),
    ] {
        assert_eq!(look_with(&seen, coverage).alone(), alone);
    }
    for obstacle in [Obstacle::NoProc, Obstacle::OtherNamespace, Obstacle::Launcher] {
        let look = Look::obstructed(D, vec![0], obstacle);
        assert_eq!(judge(None, &look, D), Evidence::Opaque(obstacle));
    }
}

#[test]
fn nobody_reads_our_channel() {
    for (views, timed) in [
        (&[ThreadView::WaitForChild, ThreadView::Timed][..], true),
        (&[ThreadView::FutexForever], false),
    ] {
        let mut look = look_with(views, Coverage::Still);
        assert_eq!(judge(None, &look, D), Evidence::Deaf { open: true, timed });
        // Whatever lies there.
        look.unread[0] = 5;
        assert_eq!(judge(None, &look, D), Evidence::Deaf { open: true, timed });
        look.unread.clear();
        assert_eq!(judge(None, &look, D), Evidence::Deaf { open: false, timed });
    }
}

#[test]
fn a_reader_outside_of_the_group_is_not_believed() {
    let group = look_with(&[ThreadView::WaitForChild], Coverage::Still);
    let mut threads = group.threads;
    threads.push(Thread::new(2, 7, false, READS, D));
    let look = Look::new(D, vec![0], threads.clone(), Coverage::Still);
    assert_eq!(look.alone(), Evidence::Opaque(Obstacle::ReaderLeft));
    threads.push(Thread::new(3, 7, true, READS, D));
    assert_eq!(Look::new(D, vec![0], threads, Coverage::Still).alone(), Evidence::Waiting);
}

#[test]
fn a_reader_waits_only_on_an_empty_channel_whatever_lies_in_another() {
    let mut look = look_with(&[READS], Coverage::Still);
    look.unread = vec![0, 9];
    assert_eq!(look.alone(), Evidence::Waiting);
    assert!(!look.has_all_unread());
    look.unread = vec![1, 0];
    assert_eq!(look.alone(), Evidence::Working(Work::Unread));
    look.unread = vec![1, 1];
    assert!(look.has_all_unread());
}

#[test]
fn asleep_are_the_same_threads_in_two_looks_far_enough_apart_with_little_work_between() {
    let first = look_with(&[READS, ThreadView::Timed, ThreadView::FutexForever], Coverage::Once);
    let sleeps = later(&first, 4 * D, Duration::ZERO);
    assert_eq!(judge(None, &first, 3 * D), Evidence::Unsettled);
    assert_eq!(judge(Some(&first), &sleeps, 3 * D), Evidence::Asleep);
    let early = later(&first, 4 * D - Duration::from_nanos(1), Duration::ZERO);
    assert_eq!(judge(Some(&first), &early, 3 * D), Evidence::Unsettled);

    // Three threads that have used 2 ms each, of 300: exactly 2 % of a processor.
    let busy = Duration::from_millis(2);
    assert_eq!(judge(Some(&first), &later(&first, 4 * D, busy), 3 * D), Evidence::Asleep);
    let busy = busy + Duration::from_nanos(1);
    let worked = later(&first, 4 * D, busy);
    assert_eq!(judge(Some(&first), &worked, 3 * D), COMPUTES);
    // As far as the times are exact.
    let rounded = worked.with_resolution(Duration::from_millis(20));
    assert_eq!(judge(Some(&first), &rounded, 3 * D), Evidence::Asleep);

    // Other calls, but of the same threads, and all of them at rest.
    let mut moved = sleeps.clone();
    moved.threads[2].view = ThreadView::Timed;
    assert_eq!(judge(Some(&first), &moved, 3 * D), Evidence::Asleep);
    // The same number is not the same thread.
    let mut reborn = sleeps.clone();
    reborn.threads[2].id.1 = 8;
    reborn.threads[2].used = Duration::ZERO;
    assert_eq!(judge(Some(&first), &reborn, 3 * D), Evidence::Unsettled);
    let mut fewer = sleeps.clone();
    fewer.threads.pop();
    assert_eq!(judge(Some(&first), &fewer, 3 * D), Evidence::Unsettled);
    // What a new thread has used counts whole.
    reborn.threads[2].used = 4 * busy;
    assert_eq!(judge(Some(&first), &reborn, 3 * D), COMPUTES);
    reborn.threads[2].used = Duration::ZERO;

    // Was it at rest then?
    for view in [ThreadView::Running, ThreadView::Poll, ThreadView::Hidden] {
        let mut awake = first.clone();
        awake.threads[1].view = view;
        assert_eq!(judge(Some(&awake), &sleeps, 3 * D), Evidence::Unsettled, "{view:?}");
    }
    let deaf = look_with(&[ThreadView::Timed; 3], Coverage::Once);
    assert_eq!(judge(Some(&deaf), &sleeps, 3 * D), Evidence::Unsettled);
}

#[test]
fn what_waits_for_certain_needs_no_earlier_look_and_may_have_worked_before_it() {
    let first = look_with(&[READS, ThreadView::Running], Coverage::Once);
    let mut now = later(&first, 2 * D, D);
    now.threads[1].view = ThreadView::FutexForever;
    now.coverage = Coverage::Still;
    assert_eq!(judge(Some(&first), &now, 3 * D), Evidence::Waiting);
    now.coverage = Coverage::Once;
    assert_eq!(judge(Some(&first), &now, 3 * D), COMPUTES);
}

#[test]
fn over_two_percent_is_work_whatever_else_is_seen_but_a_stop() {
    for view in [ThreadView::Poll, ThreadView::Outside(Outside::Socket), ThreadView::Timed] {
        let first = look_with(&[view], Coverage::Once);
        assert_eq!(judge(Some(&first), &later(&first, 2 * D, D / 40), D), COMPUTES, "{view:?}");
    }
    let first = look_with(&[ThreadView::Stopped(Stop::Unnamed)], Coverage::Once);
    let stopped = Evidence::Stopped(Stop::Unnamed);
    assert_eq!(judge(Some(&first), &later(&first, 2 * D, D), D), stopped);
}

#[test]
fn the_earlier_look_is_kept_while_the_worker_may_sleep() {
    let rest = look_with(&[READS, ThreadView::Timed], Coverage::Once);
    let mut looks = Looks::default();
    assert_eq!(looks.settled_at(3 * D), None);
    assert_eq!(looks.judge(rest.clone(), 3 * D), Evidence::Unsettled);
    assert_eq!(looks.settled_at(3 * D), Some(4 * D));
    // A timer's thread, caught at its work.
    let mut caught = later(&rest, 3 * D, Duration::ZERO);
    caught.threads[1].view = ThreadView::Running;
    assert_eq!(looks.judge(caught, 3 * D), COMPUTES);
    assert_eq!(looks.judge(later(&rest, 4 * D, Duration::ZERO), 3 * D), Evidence::Asleep);
    assert_eq!(looks.judge(later(&rest, 5 * D, Duration::ZERO), 3 * D), Evidence::Asleep);
    // Work begins the count anew.
    assert_eq!(looks.judge(later(&rest, 6 * D, D), 3 * D), COMPUTES);
    assert_eq!(looks.settled_at(3 * D), Some(9 * D));
    assert_eq!(looks.judge(later(&rest, 8 * D, D), 3 * D), Evidence::Unsettled);
    assert_eq!(looks.judge(later(&rest, 9 * D, D), 3 * D), Evidence::Asleep);
    // So does a wait for others, and a movement of which the session knows.
    let mut polls = later(&rest, 10 * D, D);
    polls.threads[1].view = ThreadView::Poll;
    assert_eq!(looks.judge(polls, 3 * D), Evidence::EventLoop);
    assert_eq!(looks.settled_at(3 * D), None);
    assert_eq!(looks.judge(later(&rest, 20 * D, D), 3 * D), Evidence::Unsettled);
    assert_eq!(looks.judge(later(&rest, 23 * D, D), 3 * D), Evidence::Asleep);
    looks.forget();
    assert_eq!(looks.judge(later(&rest, 30 * D, D), 3 * D), Evidence::Unsettled);
}

#[test]
fn each_kind_has_a_sentence_of_its_own() {
    use std::collections::HashSet;
    let deaf = [(true, true), (true, false), (false, true), (false, false)];
    let mut all = vec![Evidence::Waiting, Evidence::Asleep, Evidence::Unsettled];
    all.push(Evidence::EventLoop);
    all.extend(deaf.map(|(open, timed)| Evidence::Deaf { open, timed }));
    all.extend(obstacles().map(Evidence::Opaque));
    all.extend(outsides().map(Evidence::Outside));
    all.extend([Work::Unread, Work::Changing, Work::Disk, Work::Computing].map(Evidence::Working));
    all.extend([Stop::Tracer, Stop::Unnamed, Stop::Terminal].map(Evidence::Stopped));
    use nix::sys::signal::Signal::{SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};
    for signal in [SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU] {
        let stopped = Evidence::Stopped(Stop::Signal(signal as i32));
        assert!(stopped.sentence().contains(signal.as_str()));
        all.push(stopped);
    }
    let sentences: HashSet<_> = all.iter().map(|evidence| evidence.sentence()).collect();
    assert_eq!(sentences.len(), all.len());
    for sentence in sentences {
        assert!(sentence.len() < 120 && !sentence.ends_with('.'), "{sentence}");
    }
}

fn obstacles() -> [Obstacle; 6] {
    use Obstacle::*;
    [NotWhole, ReaderLeft, Launcher, Hidden, OtherNamespace, NoProc]
}

fn outsides() -> [Outside; 8] {
    use Outside::*;
    [UnknownCall, Writing, File, Device, Pipe, Message, Lock, Socket]
}

/// How many pairs of looks each property is tried on.
const PAIRS: u64 = 100_000;

/// Chance from a seed: splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % n
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn view(&mut self) -> ThreadView {
        use ThreadView::*;
        if self.one_in(12) {
            let stop = self.pick(&[Stop::Unnamed, Stop::Tracer, Stop::Signal(19), Stop::Terminal]);
            let outside = Outside(self.pick(&outsides()));
            self.pick(&[Hidden, Poll, outside, DiskWait, Running, Stopped(stop), ReadOfTerminal])
        } else {
            let ours = ReadOf(self.below(3));
            self.pick(&[ours, ours, ReadOfInnerPipe, WaitForChild, FutexForever, Timed])
        }
    }

    fn coverage(&mut self) -> Coverage {
        let partial = Coverage::Partial(self.pick(&obstacles()));
        self.pick(&[Coverage::Still, Coverage::Once, Coverage::Once, partial, Coverage::Moving])
    }

    fn thread(&mut self, tid: i32, most: u64) -> Thread {
        let used = Duration::from_millis(self.below(1 + most as usize) as u64);
        Thread::new(tid, 0, !self.one_in(5), self.view(), used)
    }

    /// Two looks at mostly the same threads.
    fn looks(&mut self) -> (Look, Look) {
        let (mut before, mut now) = (Vec::new(), Vec::new());
        let changes = self.one_in(4);
        for tid in 0..self.below(5) as i32 {
            let then = self.thread(tid, 0);
            if !(changes && self.one_in(3)) {
                before.push(then);
            }
            if !(changes && self.one_in(3)) {
                now.push(Thread { in_group: then.in_group, ..self.thread(tid, 4) });
            }
        }
        let unread: Vec<_> = (0..self.below(4)).map(|_| u64::from(self.one_in(5))).collect();
        let first = Look::new(D, unread.clone(), before, self.coverage());
        let apart = self.below(9) as u32;
        (first, Look::new(D + apart * D, unread, now, self.coverage()))
    }
}

/// Tries a property on many pairs of looks.
#[track_caller]
fn always(property: impl Fn(&mut Dice, &Look, &Look)) {
    for seed in 0..PAIRS {
        let mut dice = Dice(seed << 20);
        let (before, now) = dice.looks();
        property(&mut dice, &before, &now);
    }
}

#[test]
fn the_order_of_threads_is_irrelevant() {
    let reversed = |look: &Look| {
        let threads = look.threads.iter().rev().copied().collect();
        Look::new(look.at, look.unread.clone(), threads, look.coverage)
    };
    always(|_, before, now| {
        assert_eq!(reversed(now).alone(), now.alone());
        assert_eq!(
            judge(Some(&reversed(before)), &reversed(now), 3 * D),
            judge(Some(before), now, 3 * D)
        );
    });
}

/// Whether it was there in the earlier look or not. Only a reader of our channel can lift `Deaf`.
#[test]
fn another_thread_never_makes_the_evidence_better() {
    let with = |look: &Look, thread| {
        let mut threads = look.threads.clone();
        threads.push(thread);
        Look::new(look.at, look.unread.clone(), threads, look.coverage)
    };
    let reads = |thread: Thread| matches!(thread.view, ThreadView::ReadOf(_));
    always(|dice, before, now| {
        let (then, added) = (dice.thread(99, 0), dice.thread(99, 4));
        let is_new = dice.one_in(3);
        if reads(added) && is_deaf(now) || reads(then) && is_deaf(before) && !is_new {
            return;
        }
        let more = with(now, added);
        assert!(more.alone() >= now.alone(), "{now:?} with {added:?}");
        let earlier = if is_new { before.clone() } else { with(before, then) };
        let (more, less) = (judge(Some(&earlier), &more, 3 * D), judge(Some(before), now, 3 * D));
        assert!(more >= less, "{more:?}: {before:?} and {now:?} with {then:?} and {added:?}");
    });
}

#[test]
fn a_worse_coverage_or_an_unread_byte_never_makes_the_evidence_better() {
    always(|dice, before, now| {
        let mut worse = now.clone();
        worse.coverage = worse.coverage.max(dice.coverage());
        if let Some(unread) = worse.unread.get_mut(dice.below(3)) {
            *unread += 1;
        }
        assert!(worse.alone() >= now.alone(), "{now:?}, {worse:?}");
        let (worse, better) = (judge(Some(before), &worse, 3 * D), judge(Some(before), now, 3 * D));
        assert!(worse >= better, "{before:?}, {now:?}: {worse:?}");
    });
}

/// What a close of stdin costs depends on these two.
#[test]
fn waiting_and_asleep_are_said_only_of_what_they_are() {
    let (waiting, asleep) = (Cell::new(0), Cell::new(0));
    always(|_, before, now| {
        let all = |allowed: &dyn Fn(&Thread) -> bool| now.threads.iter().all(allowed);
        let reads = |thread: &Thread| matches!(thread.view, ThreadView::ReadOf(at) if now.unread.get(at) == Some(&0));
        let is_read = now.threads.iter().any(|thread| thread.in_group && reads(thread));
        let ours = |thread: &Thread| {
            use ThreadView::{FutexForever, ReadOfInnerPipe, WaitForChild};
            reads(thread) || matches!(thread.view, ReadOfInnerPipe | WaitForChild | FutexForever)
        };
        let timed = |thread: &Thread| ours(thread) || thread.view == ThreadView::Timed;
        let waits = now.coverage == Coverage::Still && is_read && all(&ours);
        let used: Duration = now.threads.iter().map(|thread| thread.used).sum();
        let apart = now.at - before.at;
        let sleeps = now.coverage <= Coverage::Once
            && is_read
            && all(&timed)
            && before.alone() <= Evidence::Asleep
            && now.shows_the_same_as(before)
            && apart >= 3 * D
            && used * 50 <= apart;
        let evidence = judge(Some(before), now, 3 * D);
        assert_eq!(evidence == Evidence::Waiting, waits, "{now:?}");
        assert_eq!(evidence == Evidence::Asleep, sleeps && !waits, "{before:?}, {now:?}");
        waiting.set(waiting.get() + u64::from(evidence == Evidence::Waiting));
        asleep.set(asleep.get() + u64::from(evidence == Evidence::Asleep));
    });
    let seen = (waiting.get(), asleep.get());
    assert!(seen.0 > PAIRS / 100 && seen.1 > PAIRS / 300, "too seldom: {seen:?}");
}

/// Whether no member of the group reads a channel.
fn is_deaf(look: &Look) -> bool {
    let reads = |thread: &Thread| matches!(thread.view, ThreadView::ReadOf(_));
    !look.threads.iter().any(|thread| thread.in_group && reads(thread))
}
