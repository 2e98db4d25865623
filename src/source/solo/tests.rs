//! A child that is a script, and a system in which any call may fail: the loop that ships runs them.

use std::io::{self, IoSlice};
use std::os::unix::process::ExitStatusExt;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::*;
use crate::error::Limit;
use crate::signal::Signal;
use crate::source::limit::TimeLimit;
use crate::source::talk::Heard;
use crate::subprocess::os::{Event, Os, Port};
use crate::subprocess::protocol::Now;
use crate::template::Template;

/// What happens, at a time that the script gives.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// The child, or a process that it left its output to, writes there.
    Say(&'static str),
    Complain(&'static str),
    /// The child closes its output and its stderr.
    Hush,
    Exit(i32),
    /// The child reads so many bytes of its input.
    Listen(usize),
    /// The consumer makes room for so many lines.
    Credit(u64),
    /// What becomes of the child, as the consumer wants it.
    Stand(Stand),
}

/// Who outlives the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heir {
    OfOutput,
    OfStderr,
}

/// What was done to the child, and when, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    ClosedInput(usize),
    ClosedOutput(usize),
    Signalled(Signal),
    Released,
}

use Done::*;

/// What talk and consumer share.
#[derive(Debug)]
struct Shared {
    say: &'static str,
    credit: u64,
    lines: Vec<String>,
    /// When the last of them was heard.
    last_line: u64,
    /// What was left at the end.
    half: Option<String>,
    stand: Stand,
    /// So often credit for one comes just when it was found missing, and before that was said.
    sneaks: u64,
    /// Whether more is wanted was answered with no.
    asked: bool,
    woken: bool,
    limit: Option<Duration>,
    started: Option<Time>,
    reaped: Vec<Exit>,
}

#[derive(Clone, Debug)]
struct Lines(Arc<Mutex<Shared>>);

impl Lines {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap()
    }
}

impl Talk for Lines {
    fn started(&mut self, _: u32, now: Time) {
        self.lock().started = Some(now);
    }

    fn attend(&mut self, _: Time, say: &mut Vec<u8>) {
        say.extend_from_slice(std::mem::take(&mut self.lock().say).as_bytes());
    }

    fn stand(&self) -> Stand {
        self.lock().stand
    }

    fn limits(&self) -> impl Iterator<Item = TimeLimit> {
        let shared = self.lock();
        let start = Moment::Patient(shared.started.unwrap_or_default().patient);
        TimeLimit::since(start, shared.limit, Limit::StartTimeout, "was not done").into_iter()
    }

    fn is_late(&mut self, _: &TimeLimit) {
        self.lock().stand = Stand::Kill;
    }

    fn wants(&mut self, _: Time) -> bool {
        let mut shared = self.lock();
        let wants = shared.stand != Stand::Go || (shared.lines.len() as u64) < shared.credit;
        shared.asked |= !wants;
        wants
    }

    fn hear(&mut self, unread: &[u8], eof: bool, now: Time) -> Heard {
        let mut shared = self.lock();
        if shared.stand != Stand::Go {
            return Heard { taken: unread.len(), held_up: false };
        }
        let mut taken = 0;
        while (shared.lines.len() as u64) < shared.credit {
            let rest = &unread[taken..];
            let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
                if eof {
                    shared.half = Some(String::from_utf8_lossy(rest).into_owned());
                }
                return Heard { taken, held_up: false };
            };
            shared.lines.push(String::from_utf8_lossy(&rest[..end]).into_owned());
            shared.last_line = now.real.as_millis() as u64;
            taken += end + 1;
        }
        if shared.sneaks > 0 {
            shared.sneaks -= 1;
            shared.credit += 1;
        }
        Heard { taken, held_up: true }
    }

    fn is_through(&self) -> bool {
        let shared = self.lock();
        shared.stand != Stand::Go || shared.half.is_some()
    }

    fn reaped(self, exit: Exit) {
        self.lock().reaped.push(exit);
    }
}

/// The system, with one child.
#[derive(Debug)]
struct Fake {
    now: Now,
    script: VecDeque<(Duration, Act)>,
    shared: Lines,
    /// Which of its channels lead to us.
    inputs: Vec<bool>,
    outputs: Vec<bool>,
    /// Its output's number.
    output: usize,
    in_output: VecDeque<u8>,
    in_stderr: VecDeque<u8>,
    output_closed: bool,
    stderr_closed: bool,
    /// Somebody who outlives it holds its output, or its stderr.
    heir: Option<Heir>,
    /// What another output holds.
    noise: VecDeque<u8>,
    /// What is still in its output whenever the consumer makes room, and when it is released.
    left: Vec<usize>,
    /// All that was ever in its output.
    said: String,
    /// The most that one read or write moves.
    most: usize,
    room: usize,
    written: Vec<u8>,
    survives: &'static [Signal],
    status: Option<i32>,
    runs: bool,
    events: Vec<Event>,
    done: Vec<(u64, Done)>,
    calls: usize,
    /// The call that fails, and whether all later ones do so, too.
    fails: Option<(usize, bool)>,
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

impl Fake {
    fn fails(&mut self) -> bool {
        self.calls += 1;
        self.fails.is_some_and(|(call, from_then_on)| {
            self.calls == call || (from_then_on && self.calls > call)
        })
    }

    fn note(&mut self, done: Done) {
        self.done.push((self.now.as_millis() as u64, done));
    }

    fn event(&mut self, port: Port, hung_up: bool) {
        self.events.push(Event { slot: SLOT, port, hung_up });
    }

    fn hush(&mut self) {
        self.output_closed |= self.heir != Some(Heir::OfOutput);
        self.stderr_closed |= self.heir.is_none();
        self.event(Port::Output(self.output), self.output_closed);
        self.event(Port::Stderr, self.stderr_closed);
    }

    fn exit(&mut self, status: i32) {
        if self.runs && self.status.is_none() {
            self.status = Some(status);
            self.hush();
            self.event(Port::Exit, false);
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Say(text) if !self.output_closed => {
                self.in_output.extend(text.bytes());
                self.said.push_str(text);
                self.event(Port::Output(self.output), false);
            }
            Act::Complain(text) if !self.stderr_closed => {
                self.in_stderr.extend(text.bytes());
                self.event(Port::Stderr, false);
            }
            Act::Say(_) | Act::Complain(_) => {}
            Act::Hush => self.hush(),
            Act::Exit(code) => self.exit(code << 8),
            Act::Listen(n) => {
                self.room += n;
                self.event(Port::Input(0), false);
            }
            Act::Credit(n) => {
                self.left.push(self.in_output.len());
                let mut shared = self.shared.lock();
                shared.credit += n;
                shared.woken |= std::mem::take(&mut shared.asked);
            }
            Act::Stand(stand) => {
                let mut shared = self.shared.lock();
                shared.stand = stand;
                shared.woken = true;
            }
        }
    }
}

impl Os for Fake {
    fn now(&self) -> Now {
        self.now
    }

    fn yield_now(&mut self) {}

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        events.clear();
        if self.fails() {
            // A loop that cannot wait must not stand still.
            self.now += ms(1);
            return Err(io::Error::other("it cannot wait"));
        }
        let woken = std::mem::take(&mut self.shared.lock().woken) || !self.events.is_empty();
        let until = if woken { Some(self.now) } else { timeout.map(|timeout| self.now + timeout) };
        let next = self.script.front().map(|(at, _)| (*at).max(self.now));
        assert!(until.or(next).is_some(), "it sleeps, and nothing will ever wake it");
        if let Some(at) = next
            && until.is_none_or(|until| at <= until)
            && let Some((_, act)) = self.script.pop_front()
        {
            self.now = at;
            self.act(act);
        } else {
            self.now = until.unwrap_or(self.now);
        }
        events.append(&mut self.events);
        Ok(())
    }

    fn spawn(&mut self, _: usize) -> Result<Spawned, StartError> {
        if self.fails() {
            return Err(StartError::NotNow(Error::new(ErrorKind::Spawn, "no process")));
        }
        self.runs = true;
        let ours = self.output;
        for output in (0..self.outputs.len()).filter(|&output| output != ours) {
            self.noise.extend(*b"noise\n");
            self.event(Port::Output(output), false);
        }
        let (inputs, outputs) = (self.inputs.clone(), self.outputs.clone());
        Ok(Spawned { pid: 7, inputs, outputs, stderr: true, terminal: false })
    }

    fn read(&mut self, _: usize, port: Port, room: &mut [u8]) -> io::Result<usize> {
        if self.fails() {
            return Err(io::Error::other("it cannot be read"));
        }
        let (pipe, closed) = match port {
            Port::Output(output) if output == self.output => {
                (&mut self.in_output, self.output_closed)
            }
            Port::Output(_) => (&mut self.noise, false),
            _ => (&mut self.in_stderr, self.stderr_closed),
        };
        let n = self.most.min(room.len()).min(pipe.len());
        if n == 0 && !closed {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        pipe.drain(..n).zip(room).for_each(|(byte, room)| *room = byte);
        if n > 0 && closed {
            // A read that gets less than it asked for has not seen the end.
            self.event(port, true);
        }
        Ok(n)
    }

    fn write(&mut self, _: usize, _: usize, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.fails() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let n = slices[0].len().min(self.most).min(self.room);
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= n;
        self.written.extend_from_slice(&slices[0][..n]);
        Ok(n)
    }

    fn watch_input(&mut self, _: usize, _: usize) -> io::Result<bool> {
        if self.fails() {
            return Err(io::Error::other("it cannot be watched"));
        }
        self.event(Port::Input(0), false);
        Ok(false)
    }

    fn close(&mut self, _: usize, port: Port) {
        match port {
            Port::Input(channel) => self.note(ClosedInput(channel)),
            Port::Output(output) if !self.output_closed => self.note(ClosedOutput(output)),
            // At its end, and not worth a word.
            _ => {}
        }
    }

    fn signal(&mut self, _: usize, signal: Signal) {
        if self.status.is_some() {
            // For those who outlive it.
            return;
        }
        self.note(Signalled(signal));
        if !self.survives.contains(&signal) {
            self.exit(if signal == Signal::Kill { 9 } else { 15 });
        }
    }

    fn unread(&mut self, _: usize, _: usize) -> Option<u64> {
        None
    }

    fn has_no_reader(&mut self, _: usize, _: usize) -> io::Result<bool> {
        Ok(false)
    }

    fn look(&mut self, _: &[usize], _: Now) -> Vec<Look> {
        Vec::new()
    }

    fn look_far(&mut self, _: usize, _: u32) {}

    fn sighting(&mut self) -> Option<(usize, u32, Sighting)> {
        None
    }

    fn kill_far(&mut self, _: usize, _: Option<u32>) {}

    fn release(&mut self, _: usize) -> Option<ExitStatus> {
        self.note(Released);
        self.left.push(self.in_output.len());
        self.runs = false;
        if self.fails() { None } else { self.status.map(ExitStatus::from_raw) }
    }
}

/// A conversation that is to be played.
#[derive(Clone, Debug)]
struct Scene {
    script: Vec<(u64, Act)>,
    template: Template,
    say: &'static str,
    stand: Stand,
    credit: u64,
    sneaks: u64,
    limit: Option<Duration>,
    heir: Option<Heir>,
    room: usize,
    survives: &'static [Signal],
    inputs: Vec<bool>,
    outputs: Vec<bool>,
    /// The numbers of its input and of its output, and whether the input is closed.
    channels: (usize, usize, bool),
}

fn scene(script: &[(u64, Act)]) -> Scene {
    Scene {
        script: script.to_vec(),
        template: Template::new("script").kill_sequence([(Signal::Terminate, ms(200))]),
        say: "",
        stand: Stand::Go,
        credit: u64::MAX / 2,
        sneaks: 0,
        limit: None,
        heir: None,
        room: usize::MAX / 2,
        survives: &[],
        inputs: vec![true],
        outputs: vec![true],
        channels: (0, 0, true),
    }
}

/// What came of it.
#[derive(Debug)]
struct Played {
    lines: Vec<String>,
    last_line: u64,
    half: Option<String>,
    exit: Exit,
    done: Vec<(u64, Done)>,
    written: String,
    left: Vec<usize>,
    said: String,
    calls: usize,
    spawned: bool,
}

impl Scene {
    fn play(&self) -> Played {
        self.play_failing(1_000, None)
    }

    fn play_failing(&self, most: usize, fails: Option<(usize, bool)>) -> Played {
        let (input, output, closes_input) = self.channels;
        let shared = Lines(Arc::new(Mutex::new(Shared {
            say: self.say,
            credit: self.credit,
            lines: Vec::new(),
            last_line: 0,
            half: None,
            stand: self.stand,
            sneaks: self.sneaks,
            asked: false,
            woken: false,
            limit: self.limit,
            started: None,
            reaped: Vec::new(),
        })));
        let fake = Fake {
            now: Now::ZERO,
            script: self.script.iter().map(|&(at, act)| (ms(at), act)).collect(),
            shared: shared.clone(),
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
            output,
            in_output: VecDeque::new(),
            in_stderr: VecDeque::new(),
            output_closed: false,
            stderr_closed: false,
            heir: self.heir,
            noise: VecDeque::new(),
            left: Vec::new(),
            said: String::new(),
            most,
            room: self.room,
            written: Vec::new(),
            survives: self.survives,
            status: None,
            runs: false,
            events: Vec::new(),
            done: Vec::new(),
            calls: 0,
            fails,
        };
        let spec = Arc::new(self.template.clone().spec);
        let plan = Plan { spec, command: "script".into(), input, output, closes_input };
        let mut event_loop = EventLoop::new(Solo::new(plan, shared.clone()), fake, 1);
        let mut turns = 0;
        while !event_loop.step() {
            turns += 1;
            assert!(turns < 20_000, "it does not come to an end: {event_loop:?}");
        }
        let fake = event_loop.os();
        assert!(!fake.runs, "its child is left behind");
        let written = String::from_utf8_lossy(&fake.written).into_owned();
        let (done, left, calls) = (fake.done.clone(), fake.left.clone(), fake.calls);
        let said = fake.said.clone();
        event_loop.into_machine().reaped(None);
        let mut shared = shared.lock();
        assert_eq!(shared.reaped.len(), 1);
        Played {
            lines: shared.lines.clone(),
            last_line: shared.last_line,
            half: shared.half.clone(),
            exit: shared.reaped.remove(0),
            done,
            written,
            left,
            said,
            calls,
            spawned: shared.started.is_some(),
        }
    }
}

const DROPPED: Act = Act::Stand(Stand::Kill);

#[test]
fn what_it_says_is_heard_and_its_exit_is_told_after_that() {
    let mut scene = scene(&[
        (5, Act::Say("a\nb")),
        (9, Act::Complain("why")),
        (9, Act::Say("c\nd\nrest")),
        (9, Act::Exit(3)),
    ]);
    scene.say = "hello";
    let played = scene.play();
    assert_eq!(played.lines, ["a", "bc", "d"]);
    assert_eq!((played.half.as_deref(), &*played.written), (Some("rest"), "hello"));
    assert_eq!(played.exit.status.and_then(|status| status.code()), Some(3));
    assert_eq!(played.exit.stderr.head(), b"why");
    assert!(played.exit.signalled.is_none() && !played.exit.overstayed);
    assert_eq!(played.done, [(0, ClosedInput(0)), (9, Released)]);
}

#[test]
fn one_that_closes_its_output_and_stays_is_killed_when_its_time_is_up() {
    let mut scene = scene(&[(5, Act::Say("a\n")), (10, Act::Hush)]);
    scene.template = scene.template.end_timeout(ms(50));
    scene.survives = &[Signal::Terminate];
    let played = scene.play();
    assert_eq!(played.lines, ["a"]);
    assert!(played.exit.overstayed && played.exit.status.is_some());
    let ends = [(60, Signalled(Signal::Terminate)), (260, Signalled(Signal::Kill))];
    assert_eq!(played.done[1..], [&ends[..], &[(260, Released)]].concat());
    // Without a limit it has all the time that it takes.
    scene.template = scene.template.end_timeout(None);
    scene.script.push((99_000, Act::Exit(0)));
    let played = scene.play();
    assert!(!played.exit.overstayed);
    assert_eq!(played.done[1..], [(99_000, Released)]);
}

#[test]
fn one_that_no_signal_ends_is_left_after_the_last_grace() {
    let mut scene = scene(&[(10, DROPPED)]);
    scene.survives = &[Signal::Terminate, Signal::Kill];
    let played = scene.play();
    assert!(played.exit.status.is_none());
    assert_eq!(played.exit.signalled, Some(Signal::Kill));
    let done = [
        (0, ClosedInput(0)),
        (10, ClosedOutput(0)),
        (10, Signalled(Signal::Terminate)),
        (210, Signalled(Signal::Kill)),
        (1_210, Released),
    ];
    assert_eq!(played.done, done);
}

#[test]
fn dropped_it_gets_the_first_signal_at_once_and_keeps_its_input_until_it_is_dead() {
    let mut scene = scene(&[(10, Act::Say("a\n")), (15, DROPPED)]);
    scene.say = "half of a program";
    scene.room = 4;
    scene.script.push((20, Act::Listen(99)));
    scene.survives = &[Signal::Terminate];
    let played = scene.play();
    assert_eq!(played.written, "half");
    let done = [
        (15, ClosedOutput(0)),
        (15, Signalled(Signal::Terminate)),
        (215, Signalled(Signal::Kill)),
        (215, Released),
    ];
    assert_eq!(played.done, done);
}

#[test]
fn dropped_before_it_was_started_it_is_not_started() {
    let mut scene = scene(&[]);
    scene.stand = Stand::Kill;
    let played = scene.play();
    assert!(!played.spawned && played.done.is_empty() && played.exit.error.is_none());
}

#[test]
fn whoever_outlives_it_and_holds_its_output_is_heard_for_a_grace() {
    let mut scene = scene(&[
        (5, Act::Say("a\n")),
        (10, Act::Exit(0)),
        (60, Act::Say("b\n")),
        (200, Act::Say("c\n")),
    ]);
    scene.heir = Some(Heir::OfOutput);
    let played = scene.play();
    assert_eq!(played.lines, ["a", "b"]);
    assert_eq!(played.half.as_deref(), Some(""));
    assert_eq!(played.done[1..], [(160, Released)]);
}

#[test]
fn what_it_has_left_waits_for_a_consumer_that_pauses() {
    for heir in [None, Some(Heir::OfOutput)] {
        let mut scene = scene(&[
            (5, Act::Say("a\nb\n")),
            (7, Act::Say("c\nd\n")),
            (10, Act::Exit(0)),
            (60_000, Act::Credit(2)),
            (90_000, Act::Credit(9)),
        ]);
        scene.credit = 1;
        scene.heir = heir;
        let played = scene.play();
        assert_eq!(played.lines, ["a", "b", "c", "d"]);
        // What was read had room for one; what came after that stayed where it was.
        assert_eq!(played.left[0], 4);
        assert!(played.exit.status.is_some_and(|status| status.success()));
        assert!(played.exit.signalled.is_none());
    }
}

#[test]
fn whoever_holds_its_stderr_is_waited_for_no_longer_than_a_grace() {
    let mut scene = scene(&[(5, Act::Say("a\n")), (10, Act::Exit(0))]);
    scene.heir = Some(Heir::OfStderr);
    let played = scene.play();
    assert_eq!((played.lines.len(), played.done.last()), (1, Some(&(110, Released))));
}

#[test]
fn room_that_comes_in_the_moment_in_which_there_was_none_is_seen() {
    // Nothing else happens until long after.
    let mut scene = scene(&[(5, Act::Say("a\nb\nc\nd\ne\nf\ng\n")), (80_000, Act::Exit(0))]);
    scene.credit = 1;
    scene.sneaks = 7;
    let played = scene.play();
    assert_eq!((played.lines.len(), played.last_line), (7, 5));
}

#[test]
fn one_that_is_told_to_leave_has_its_grace_and_the_kill_sequence_then() {
    let leave = Act::Stand(Stand::Leave(ms(100)));
    let mut scene = scene(&[(10, leave), (20, Act::Say("not wanted\n")), (50, Act::Exit(0))]);
    scene.channels = (0, 0, false);
    scene.say = "bye";
    let played = scene.play();
    assert!(played.lines.is_empty());
    assert_eq!((&*played.written, played.exit.signalled), ("bye", None));
    assert_eq!(played.done, [(10, ClosedInput(0)), (50, Released)]);
    scene.script.truncate(1);
    let played = scene.play();
    let done = [(10, ClosedInput(0)), (110, Signalled(Signal::Terminate)), (110, Released)];
    assert_eq!(played.done, done);
    assert!(!played.exit.overstayed);
    // A process that still holds its output is not waited for.
    scene.script = vec![(10, leave), (20, Act::Exit(0))];
    scene.heir = Some(Heir::OfOutput);
    assert_eq!(scene.play().done[1..], [(20, Released)]);
}

#[test]
fn other_channels_are_closed_at_once() {
    let mut scene = scene(&[(5, Act::Say("a\n")), (9, Act::Exit(0))]);
    scene.inputs = vec![true, true];
    scene.outputs = vec![true, true];
    scene.channels = (1, 1, false);
    let played = scene.play();
    assert_eq!(played.lines, ["a"]);
    assert_eq!(played.done, [(0, ClosedInput(0)), (0, ClosedOutput(0)), (9, Released)]);
}

#[test]
fn a_limit_that_runs_out_is_judged_after_what_came_in_time() {
    let mut scene = scene(&[(50, Act::Say("a\n"))]);
    scene.limit = Some(ms(50));
    let played = scene.play();
    assert_eq!(played.lines, ["a"]);
    assert_eq!(played.done[1..3], [(50, ClosedOutput(0)), (50, Signalled(Signal::Terminate))]);
    // Nothing else wakes it.
    scene.script.clear();
    assert_eq!(scene.play().done.last(), Some(&(50, Released)));
}

/// What is played while calls fail.
fn scenes() -> Vec<Scene> {
    let script = [
        (5, Act::Say("a\nb\n")),
        (6, Act::Complain("hm")),
        (7, Act::Listen(3)),
        (8, Act::Say("c\nd\n")),
        (9, Act::Listen(99)),
        (20, Act::Credit(2)),
        (30, Act::Credit(9)),
        (40, Act::Say("e\n")),
        (45, Act::Exit(0)),
        (99, Act::Say("f\n")),
    ];
    let mut paused = scene(&script);
    paused.say = "some words";
    (paused.credit, paused.room) = (1, 4);
    let heir = Scene { heir: Some(Heir::OfOutput), ..paused.clone() };
    let mut stays = scene(&[(5, Act::Say("a\nb\n")), (6, Act::Hush)]);
    stays.survives = &[Signal::Terminate];
    let mut dropped = paused.clone();
    dropped.script.insert(5, (19, DROPPED));
    let hard = Scene { survives: &[Signal::Terminate, Signal::Kill], ..dropped.clone() };
    let mut leaves = paused.clone();
    leaves.script.insert(5, (19, Act::Stand(Stand::Leave(ms(100)))));
    leaves.channels = (0, 0, false);
    vec![paused, heir, stays, dropped, hard, leaves]
}

#[test]
fn whichever_call_fails_it_ends_and_nothing_is_heard_that_was_not_said() {
    let mut played = 0;
    for scene in scenes() {
        for most in [2, 1_000] {
            let good = scene.play_failing(most, None);
            for call in 1..=good.calls {
                for from_then_on in [false, true] {
                    let bad = scene.play_failing(most, Some((call, from_then_on)));
                    let said = ["a", "b", "c", "d", "e", "f"];
                    assert!(said.iter().zip(&bad.lines).all(|(a, b)| a == b), "{bad:?}");
                    assert!("some words".starts_with(&bad.written), "{bad:?}");
                    let released = bad.done.iter().filter(|(_, done)| *done == Released).count();
                    assert_eq!(released, usize::from(bad.spawned), "{bad:?}");
                    // The kill sequence, its graces, and what the script takes.
                    let last = bad.done.last().map_or(0, |(at, _)| *at);
                    assert!(last <= 7_000, "{bad:?}");
                    played += 1;
                }
            }
        }
    }
    assert!(played > 500, "{played} calls that fail are too few");
}

/// Numbers from a seed (splitmix64).
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// A scene of which anything may be expected.
fn any_scene(rng: &mut Rng) -> Scene {
    let words = ["a\n", "bb\ncc\n", "d", "\n", "", "eee\nf\ngggg\n"];
    let mut script = Vec::new();
    let mut at = 0;
    for _ in 0..rng.below(20) {
        at += rng.of(&[0, 0, 1, 3, 50, 400]);
        script.push((
            at,
            match rng.below(12) {
                0 => Act::Complain("oh"),
                1 | 2 => Act::Listen(1 + rng.below(9)),
                3 | 4 => Act::Credit(1 + rng.below(3) as u64),
                5 if rng.one_in(4) => Act::Hush,
                6 if rng.one_in(9) => DROPPED,
                7 if rng.one_in(9) => Act::Stand(Stand::Leave(ms(rng.of(&[0, 30, 600])))),
                _ => Act::Say(rng.of(&words)),
            },
        ));
    }
    // In the end it exits, its consumer wants everything, and a process that outlives it may go on for a while.
    let last = at + rng.of(&[0, 7, 2_000]);
    script.push((last, Act::Exit(rng.of(&[0, 3]))));
    for i in 0..rng.below(4) {
        script.push((last + 60 * i as u64, Act::Say(rng.of(&words))));
    }
    script.push((last + rng.of(&[0, 30_000]), Act::Credit(u64::MAX / 4)));
    script.sort_by_key(|(at, _)| *at);
    let survives: &[&'static [Signal]] =
        &[&[], &[Signal::Terminate], &[Signal::Terminate, Signal::Kill]];
    let mut scene = scene(&script);
    scene.template = scene.template.end_timeout(rng.of(&[None, Some(ms(0)), Some(ms(90))]));
    scene.say = rng.of(&["", "words", "many more words than fit"]);
    scene.credit = rng.of(&[0, 1, 2, 5, u64::MAX / 4]);
    scene.sneaks = rng.of(&[0, 0, 1, 9]);
    scene.heir = rng.of(&[None, None, Some(Heir::OfOutput), Some(Heir::OfStderr)]);
    scene.room = rng.of(&[0, 3, 1_000]);
    scene.survives = rng.of(survives);
    scene.channels.2 = rng.one_in(2);
    scene
}

#[test]
fn any_script_ends_and_of_what_was_said_nothing_is_lost_that_was_wanted() {
    let mut whole = 0;
    for seed in 0..4_000 {
        let mut rng = Rng(seed);
        let scene = any_scene(&mut rng);
        let fails = rng.one_in(2).then(|| (1 + rng.below(40), rng.one_in(5)));
        let most = rng.of(&[1, 4, 1_000]);
        let played = scene.play_failing(most, fails);
        let about = format!("seed {seed}: {scene:?} {fails:?} {played:?}");
        let mut said: Vec<&str> = played.said.split('\n').collect();
        let rest = said.pop();
        assert!(said.iter().zip(&played.lines).all(|(a, b)| a == b), "{about}");
        assert!(played.lines.len() <= said.len(), "{about}");
        assert!(scene.say.starts_with(&played.written), "{about}");
        let released = played.done.iter().filter(|(_, done)| *done == Released).count();
        assert_eq!(released, usize::from(played.spawned), "{about}");
        let unwanted = scene.script.iter().any(|(_, act)| matches!(act, Act::Stand(_)));
        if fails.is_none() && !unwanted {
            assert_eq!(played.lines.len(), said.len(), "{about}");
            assert_eq!(played.half.as_deref(), rest, "{about}");
            assert_eq!(played.left.last(), Some(&0), "{about}");
            assert!(played.exit.status.is_some() || scene.survives.len() == 2, "{about}");
            whole += 1;
        }
    }
    assert!(whole > 1_000, "only {whole} were heard to their end");
}
