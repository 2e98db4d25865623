//! The relatives of the kinds in `field`: every feature of a template and every way in and out, crossed with every event
//! that goes wrong in a worker, at every moment of the input.
//!
//! A cell is a feature and an event. The worker is one small shell script that reads byte by byte, so that what it has
//! not read is known. The events happen once, so that there is always a right answer, but for the worker that dies of a
//! record each time. What must come out follows from the two: see [`Cell::judge`].

use std::fmt::Write as _;
use std::sync::mpsc;
use std::thread;

use subfeed::framing::{ReplyFraming, RequestFraming, Sentinel};
use subfeed::pipeline::{Pipeline, Stage};
use subfeed::queue::Queue;
use subfeed::source::iterate_in_subprocess;
use subfeed::{Error, ErrorKind, FeedExt, Order, Template, blocks};

use crate::common::{DEADLINE, Dir, within};

/// What a template, or a way in and out, has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Feature {
    Plain,
    Ready,
    Banner,
    Preamble,
    Farewell,
    AtEnd,
    Sentinel,
    Halves,
    Paired,
    SideInput,
    SideOutput,
    UntilEof,
    Recycled,
    AtMostOnce,
    Retries,
    OneInFlight,
    Checked,
    TwoLines,
    Unordered,
    /// Replies come in blocks.
    Lent,
    Blocks,
    Queue,
    Pipeline,
    Drain,
    /// The items come from a command.
    Source,
}

impl Feature {
    fn is_sentinel(self) -> bool {
        matches!(self, Self::Sentinel | Self::Halves | Self::Paired)
    }
}

/// What goes wrong in a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// It dies with the record read, once.
    Dies,
    /// It dies of that record whenever it reads it.
    DiesOfIt,
    /// One session leaves with status 0 before it has read a byte.
    LeavesUnread,
    /// One session dies before it has read a byte.
    DiesUnread,
    /// One session answers the record and leaves with status 0; what lies behind it in the pipe stays there.
    LeavesEarly,
    /// One reply too many behind that record.
    Extra,
    /// The same, and then it leaves.
    ExtraAndLeaves,
    /// One reply too many when the input has ended.
    ExtraAtEnd,
    /// Nothing is answered before the input has ended, as a tool does that buffers.
    Withholds,
    /// That record is passed over, once.
    Skips,
}

const EVENTS: [Event; 10] = [
    Event::Dies,
    Event::DiesOfIt,
    Event::LeavesUnread,
    Event::DiesUnread,
    Event::LeavesEarly,
    Event::Extra,
    Event::ExtraAndLeaves,
    Event::ExtraAtEnd,
    Event::Withholds,
    Event::Skips,
];

/// What is known of the end of the input, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// How many items there are is known.
    Known,
    /// They end, and nobody has said when.
    Unknown,
    /// They end when as many have come out.
    Late,
}

/// Where in the input it happens.
#[derive(Clone, Copy, Debug)]
struct Shape {
    items: usize,
    poison: usize,
    end: End,
    workers: usize,
}

const SHAPES: [Shape; 6] = [
    Shape { items: 11, poison: 5, end: End::Known, workers: 2 },
    Shape { items: 7, poison: 6, end: End::Known, workers: 1 },
    Shape { items: 7, poison: 6, end: End::Unknown, workers: 1 },
    Shape { items: 7, poison: 0, end: End::Unknown, workers: 1 },
    Shape { items: 1, poison: 0, end: End::Late, workers: 1 },
    Shape { items: 9, poison: 4, end: End::Late, workers: 2 },
];

/// Shorter than the input; but without evidence a worker that withholds comes to its end with the input.
const WINDOW: usize = if cfg!(subfeed_portable) { 16 } else { 4 };

#[derive(Clone, Copy, Debug)]
struct Cell {
    feature: Feature,
    event: Event,
    shape: Shape,
}

impl Cell {
    /// Whether the event has a meaning for the feature, and can be known there.
    fn exists(self) -> bool {
        let Self { feature, event, shape } = self;
        match (feature, event) {
            // A drain hears nothing of what its workers say.
            (
                Feature::Drain,
                Event::Extra
                | Event::ExtraAndLeaves
                | Event::ExtraAtEnd
                | Event::Withholds
                | Event::Skips,
            ) => false,
            // What a drain's worker reads and does not do is its own affair; it never ends late.
            (Feature::Drain, _) => shape.end != End::Late,
            // The source's own end is an error there, and one more item.
            (
                Feature::Source,
                Event::Extra | Event::ExtraAndLeaves | Event::ExtraAtEnd | Event::Skips,
            ) => shape.end != End::Late,
            // A block is given out when it is there.
            (Feature::Blocks, _) => shape.end == End::Unknown,
            // One whole output is one reply, whatever is in it.
            (
                Feature::UntilEof,
                Event::Extra | Event::ExtraAndLeaves | Event::ExtraAtEnd | Event::Skips,
            ) => false,
            // What stands in front of a mark is the reply, however much that is.
            (feature, Event::Skips) if feature.is_sentinel() => false,
            // Without evidence nobody knows that a worker waits before the input has ended.
            (_, Event::Withholds) => !(cfg!(subfeed_portable) && shape.end == End::Late),
            // That it has skipped is seen when it is asked to end: for what was skipped nobody waits for ever with
            // evidence.
            (_, Event::Skips) => !(cfg!(subfeed_portable) && shape.end == End::Late),
            _ => true,
        }
    }

    fn items(self) -> Vec<String> {
        let item = |k| if k == self.shape.poison { "poison".to_owned() } else { format!("i{k}") };
        (0..self.shape.items).map(item).collect()
    }

    /// The right reply to an item.
    fn answer(self, item: &str) -> String {
        match self.feature {
            Feature::UntilEof => format!("r:{item}\n"),
            feature if feature.is_sentinel() => format!("r:{item}\n"),
            Feature::TwoLines => format!("r:{item}\nsecond"),
            Feature::SideOutput => format!("r:{item}|r:{item}"),
            _ => format!("r:{item}"),
        }
    }

    // ---------------------------------------------------------------- the worker

    fn script(self) -> String {
        let Self { feature, event, .. } = self;
        let mut script = String::from("once() { mkdir \"$DIR/once\" 2>/dev/null; }\n");
        let withholds = event == Event::Withholds;
        let line = match feature {
            Feature::TwoLines => "printf '%s\\nsecond\\n' \"$1\"",
            Feature::SideOutput => "echo \"$1\"; echo \"$1\" >&4",
            Feature::Drain => "echo \"${1#r:}\" >> \"$DIR/log.$$\"",
            _ => "echo \"$1\"",
        };
        if withholds {
            let _ = writeln!(script, "all() {{ {line}; }}\nheld=\nsay() {{ held=\"$held $1\"; }}");
            script.push_str("flush() { for w in $held; do all \"$w\"; done; }\n");
        } else {
            let _ = writeln!(script, "say() {{ {line}; }}\nflush() {{ :; }}");
        }
        let bye = if feature == Feature::AtEnd { "echo bye" } else { ":" };
        let _ = writeln!(script, "bye() {{ {bye}; }}");
        match event {
            Event::LeavesUnread => script.push_str("once && exit 0\n"),
            Event::DiesUnread => script.push_str("once && kill -9 $$\n"),
            _ => {}
        }
        script.push_str(match feature {
            Feature::Ready => "echo loading; echo READY\n",
            Feature::Banner => "echo Banner 1.0; echo '(c) nobody'\n",
            Feature::Preamble => "read -r hello || exit 0; [ \"$hello\" = hello ] || exit 9\n",
            Feature::SideInput => "exec 3<{fd:aux}\n",
            Feature::SideOutput => "exec 4>{fd:log}\n",
            _ => "",
        });
        let poison = match event {
            Event::Dies => "once && kill -9 $$; say r:poison",
            Event::DiesOfIt => "kill -9 $$",
            Event::LeavesEarly => "say r:poison; once && { bye; exit 0; }",
            Event::Extra if !feature.is_sentinel() => "say r:poison; once && say extra",
            Event::ExtraAndLeaves if !feature.is_sentinel() => {
                "say r:poison; once && { say extra; exit 0; }"
            }
            Event::Skips => "once || say r:poison",
            _ => "say r:poison",
        };
        if feature == Feature::UntilEof {
            // Half of it, before it dies.
            let _ = writeln!(
                script,
                "x=$(cat); case $x in poison) printf r:; {};; *) say \"r:$x\";; esac; flush",
                poison.replace("say r:", "say ")
            );
            return script;
        }
        // A mark too many where marks end replies: behind that of the record, or when the input has ended.
        let mark = match event {
            Event::Extra => "its_last && once && mark \"$@\"",
            Event::ExtraAndLeaves => "its_last && once && { mark \"$@\"; exit 0; }",
            Event::LeavesEarly => "its_last && once && exit 0",
            _ => ":",
        };
        let poison = match event {
            // It leaves when that record has its mark.
            Event::LeavesEarly if feature.is_sentinel() => "say r:poison",
            _ => poison,
        };
        // Which is the last mark behind that record.
        let marks = if feature == Feature::Paired { 2 } else { 1 };
        let _ = writeln!(
            script,
            "last=; did=; marks=0\nmark() {{ say \"$2$3\"; marks=$((marks + 1)); }}\n\
             its_last() {{ [ \"$last\" = poison ] && [ $marks = {marks} ]; }}"
        );
        script.push_str("while read -r x; do\n");
        if feature == Feature::SideInput {
            script.push_str("read -r part <&3 || exit 7\n");
        }
        let _ = writeln!(
            script,
            "case $x in\n\
             'JOIN '*) set -- $x; mark \"$@\"; {mark};;\n\
             quit) break;;\n\
             poison) last=$x; did=1; marks=0; {poison};;\n\
             *) last=$x; did=1; marks=0; say \"r:$x\";;\n\
             esac\ndone"
        );
        script.push_str("flush\n");
        if event == Event::ExtraAtEnd {
            let extra = if feature.is_sentinel() { "mark \"$@\"" } else { "say extra" };
            let _ = writeln!(script, "[ -n \"$did\" ] && once && {extra}");
        }
        // A farewell has ended it, or it would have failed.
        script.push_str(match feature {
            Feature::Farewell => "bye; [ \"$x\" = quit ] || exit 9\n",
            _ => "bye\n",
        });
        script
    }

    fn template(self, dir: &Dir) -> Template {
        let template = Template::shell(self.script()).env("DIR", dir.path(""));
        let sentinel = |command: &str| ReplyFraming::sentinel(Sentinel::new(command));
        let template = match self.feature {
            Feature::Ready => template.ready("READY\n", DEADLINE),
            Feature::Banner => template.skip_lines(2),
            Feature::Preamble => template.preamble("hello\n"),
            Feature::Farewell => template.farewell("quit\n"),
            Feature::AtEnd => template.skip_at_end("bye\n"),
            Feature::Sentinel => template.replies(sentinel("JOIN {mark}")),
            Feature::Halves => template.replies(sentinel("JOIN {mark1} {mark2}")),
            Feature::Paired => {
                let sentinel = Sentinel::new("JOIN {mark1} {mark2}").paired();
                template.replies(ReplyFraming::sentinel(sentinel))
            }
            Feature::SideInput => template.side_input("aux"),
            Feature::SideOutput => template.side_output("log", ReplyFraming::line()),
            Feature::UntilEof => {
                template.requests(RequestFraming::raw()).replies(ReplyFraming::until_eof())
            }
            Feature::Recycled => template.recycle_after_records(3),
            Feature::AtMostOnce => template.at_most_once(),
            Feature::Retries => template.retries(2),
            Feature::OneInFlight => template.in_flight(1),
            Feature::Checked => template.check(|request, reply| {
                let request = request.strip_suffix(b"\n").unwrap_or(request);
                let right = reply.strip_prefix(b"r:") == Some(request);
                if right { Ok(()) } else { Err("another's".into()) }
            }),
            Feature::TwoLines => template.replies(ReplyFraming::lines(2)),
            _ => template,
        };
        // No wait that a fault causes is waited for: a limit would hide that it is there.
        template.backoff(std::time::Duration::from_millis(1), std::time::Duration::from_millis(20))
    }

    // ---------------------------------------------------------------- the way in and out

    fn run(self) {
        let dir = Dir::new();
        let template = self.template(&dir);
        let Shape { workers, end, .. } = self.shape;
        let items = self.items();
        let count = items.len();
        match self.feature {
            Feature::Drain => return self.drain(template, items, &dir),
            Feature::Blocks => return self.blocks(template, &items),
            _ => {}
        }
        let (sender, late) = mpsc::channel();
        for item in &items {
            sender.send(item.clone()).expect("a receiver");
        }
        let mut open = Some(sender);
        // The sender goes with the last item that must come.
        let mut came = 0;
        let mut out = Vec::new();
        let mut note = |item: Result<String, Fail>| {
            came += 1;
            if came >= count {
                open = None;
            }
            out.push(item);
        };
        let source: Box<dyn Iterator<Item = String> + Send> = match end {
            End::Known | End::Unknown => Box::new(items.into_iter()),
            End::Late => Box::new(late.into_iter()),
        };
        let text = |reply: Result<bstr::BString, Error>| {
            reply.map(|reply| reply.to_string()).map_err(|error| Fail::of(&error))
        };
        let unknown = |source: Box<dyn Iterator<Item = String> + Send>| source.filter(|_| true);
        match self.feature {
            Feature::Queue => {
                let mut queue = Queue::subprocesses(template, workers, WINDOW);
                thread::scope(|scope| {
                    let producer = queue.producer();
                    // Where the feed has ended early, nobody ends the items.
                    let items = source.take(count);
                    scope.spawn(move || items.for_each(|item| drop(producer.put(item))));
                    for _ in 0..count {
                        if let Some(item) = queue.get() {
                            note(text(item));
                        }
                    }
                });
                queue.stop();
                while let Some(item) = queue.get() {
                    note(text(item));
                }
            }
            Feature::Pipeline => {
                let run = Pipeline::new(source)
                    .map("before", |item| item)
                    .feed(Stage::new("workers").workers(workers).buffer(WINDOW), template)
                    .map("behind", |reply| reply.to_string())
                    .run();
                for item in run.items() {
                    note(item.map_err(|error| Fail::of(error.as_worker().expect("a worker's"))));
                }
            }
            Feature::Lent => {
                let feed = unknown(source).feed(template).workers(workers).buffer(WINDOW);
                for block in feed.blocks() {
                    match block {
                        Ok(block) => block.records().for_each(|reply| note(Ok(reply.to_string()))),
                        Err(error) => note(Err(Fail::of(&error))),
                    }
                }
            }
            Feature::Source => {
                // A command says the items; where they end late, it dies behind the last.
                let die = if end == End::Late { "kill -9 $$" } else { ":" };
                let words =
                    Template::shell(format!("printf '%s\\n' {}; {die}", self.items().join(" ")));
                let feed = iterate_in_subprocess(words, 4).iter().try_feed(template);
                feed.workers(workers).buffer(WINDOW).start().map(text).for_each(note);
            }
            Feature::SideOutput => {
                let template = template.decode(|reply| {
                    let side = reply.side("log").expect("a side output").to_owned();
                    bstr::BString::from(format!("{}|{side}", reply.to_str().expect("text")))
                });
                match end {
                    End::Known => self
                        .items()
                        .into_iter()
                        .feed_subprocesses_ordered(template, workers, WINDOW)
                        .map(text)
                        .for_each(note),
                    _ => source
                        .feed_subprocesses_ordered(template, workers, WINDOW)
                        .map(text)
                        .for_each(note),
                }
            }
            feature => {
                let order =
                    if feature == Feature::Unordered { Order::Completion } else { Order::Input };
                match end {
                    End::Known => {
                        let feed = self.items().into_iter().feed(template).workers(workers);
                        feed.buffer(WINDOW).order(order).start().map(text).for_each(note);
                    }
                    End::Unknown => {
                        let feed = unknown(source).feed(template).workers(workers);
                        feed.buffer(WINDOW).order(order).start().map(text).for_each(note);
                    }
                    End::Late => {
                        let feed = source.feed(template).workers(workers);
                        feed.buffer(WINDOW).order(order).start().map(text).for_each(note);
                    }
                }
            }
        }
        self.judge(out);
    }

    fn drain(self, template: Template, items: Vec<String>, dir: &Dir) {
        let feed =
            items.clone().into_iter().feed(template).workers(self.shape.workers).buffer(WINDOW);
        let drained = feed.drain().unwrap_or_else(|error| panic!("{self:?}: {error}"));
        let logs = std::fs::read_dir(dir.path("")).expect("a directory").flatten();
        let logs = logs.filter(|entry| entry.file_name().to_string_lossy().starts_with("log."));
        let logs = logs.map(|entry| std::fs::read_to_string(entry.path()).expect("a log"));
        let logged = logs.collect::<String>();
        let accepted: u64 = drained.accepted.iter().sum();
        assert_eq!(accepted as usize + drained.failed.len(), items.len(), "{self:?}: {drained:?}");
        for (k, item) in items.iter().enumerate() {
            let count = logged.lines().filter(|line| line == item).count();
            let died =
                matches!(self.event, Event::Dies | Event::DiesOfIt) && k == self.shape.poison;
            assert_eq!(count, usize::from(!died), "{self:?}: {item} in {logged:?}, {drained:?}");
        }
    }

    fn blocks(self, template: Template, items: &[String]) {
        let bytes = items.join("\n").into_bytes();
        let feed = blocks(std::io::Cursor::new(bytes)).block_size(16).feed(template);
        let mut out = Vec::new();
        for item in feed.workers(self.shape.workers).buffer(WINDOW).start() {
            match item {
                Ok(block) => out.extend(block.records().map(|reply| Ok(reply.to_string()))),
                Err(error) => out.push(Err(Fail::of(&error))),
            }
        }
        self.judge(out);
    }

    // ---------------------------------------------------------------- the oracle

    /// What must hold of all that came: nothing lost, nothing twice, nothing out of order, and nothing wrong that is not
    /// told; and what this event must lead to with this feature.
    fn judge(self, mut out: Vec<Result<String, Fail>>) {
        let Self { feature, event, shape } = self;
        let items = self.items();
        let all = format!("{self:?}: {out:?}");
        if feature == Feature::Source && shape.end == End::Late {
            let last = out.pop().and_then(Result::err).unwrap_or_else(|| panic!("its end: {all}"));
            assert!(last.kind == ErrorKind::Died && last.packet.is_none(), "its end: {all}");
        }
        let told = out.iter().any(|item| item.as_ref().is_err_and(|fail| fail.fatal));
        if out.len() == items.len() + 1 {
            let last = out.pop().and_then(Result::err);
            assert!(last.is_some_and(|fail| fail.fatal && fail.packet.is_none()), "last: {all}");
        }
        // What was not pulled when the feed was ended does not come.
        assert!(out.len() == items.len() || (told && out.len() < items.len()), "{all}");
        let answers: Vec<_> = items.iter().map(|item| self.answer(item)).collect();
        let (mut wrong, mut failed, mut seen) = (0, Vec::new(), vec![false; items.len()]);
        for (at, item) in out.iter().enumerate() {
            let k = match item {
                Ok(reply) if feature == Feature::Unordered => {
                    answers.iter().position(|answer| answer == reply)
                }
                Ok(reply) => Some(at).filter(|&k| answers[k] == *reply),
                Err(fail) => {
                    let k = fail.packet.map_or(at, |packet| packet as usize);
                    assert!(feature == Feature::Unordered || k == at, "at {at}: {all}");
                    if !fail.fatal {
                        failed.push(k);
                    }
                    Some(k)
                }
            };
            match k {
                Some(k) if std::mem::replace(&mut seen[k], true) => {
                    // In no order a wrong reply looks like another packet's.
                    assert!(told, "{k} twice: {all}");
                    wrong += 1;
                }
                Some(_) => {}
                None => wrong += 1,
            }
        }
        assert!(wrong == 0 || told, "wrong in silence: {all}");
        let only_poison = failed.iter().all(|&k| k == shape.poison);
        match event {
            Event::Dies => {
                assert!(!told && only_poison, "{all}");
                assert!(feature != Feature::Retries || failed.is_empty(), "{all}");
                assert!(feature != Feature::AtMostOnce || !failed.is_empty(), "{all}");
            }
            Event::DiesOfIt => assert!(!told && failed == [shape.poison], "{all}"),
            Event::LeavesUnread | Event::DiesUnread | Event::LeavesEarly | Event::Withholds => {
                assert!(!told && failed.is_empty(), "{all}");
            }
            Event::Extra | Event::ExtraAndLeaves | Event::ExtraAtEnd => {
                // A check tells by itself, and so does a mark that comes twice. One that is joined is no quotation: what
                // stands behind the last is noise.
                let tells = feature == Feature::Checked || feature.is_sentinel();
                let at_the_end = event == Event::ExtraAtEnd || shape.poison + 1 == shape.items;
                let noise = at_the_end && matches!(feature, Feature::Halves | Feature::Paired);
                assert!(told || noise || (tells && !failed.is_empty()), "not told: {all}");
                assert!(!tells || wrong == 0, "{all}");
            }
            Event::Skips => {
                let once = feature == Feature::AtMostOnce;
                assert!(only_poison || once || feature == Feature::Checked, "{all}");
                assert!(wrong == 0 || feature != Feature::Checked, "{all}");
            }
        }
    }
}

/// What is judged of an error.
#[derive(Debug)]
#[expect(dead_code, reason = "the message is for who reads a failure")]
struct Fail {
    kind: ErrorKind,
    packet: Option<u64>,
    fatal: bool,
    message: String,
}

impl Fail {
    fn of(error: &Error) -> Self {
        Self {
            kind: error.kind(),
            packet: error.packet(),
            fatal: error.is_fatal(),
            message: error.to_string(),
        }
    }
}

/// Every event with a feature, at every moment: the events side by side, each cell under a watchdog.
#[track_caller]
fn all_events_with(feature: Feature) {
    crate::common::warden::watch();
    let events = EVENTS.map(|event| {
        thread::spawn(move || {
            for shape in SHAPES {
                let cell = Cell { feature, event, shape };
                if !cell.exists() {
                    continue;
                }
                let (done, result) = mpsc::channel::<()>();
                let run = thread::spawn(move || {
                    let _done = done;
                    cell.run();
                });
                let end = result.recv_timeout(DEADLINE);
                assert!(end != Err(mpsc::RecvTimeoutError::Timeout), "{cell:?} does not end");
                if let Err(payload) = run.join() {
                    std::panic::resume_unwind(payload);
                }
            }
        })
    });
    let failed = events.into_iter().map(thread::JoinHandle::join).filter(Result::is_err).count();
    assert_eq!(failed, 0, "events with {feature:?} came out wrong");
}

macro_rules! features {
    ($(fn $name:ident() = $feature:ident;)*) => {
        $(#[test] fn $name() { all_events_with(Feature::$feature); })*
    };
}
features! {
    fn plain() = Plain;
    fn a_ready_line() = Ready;
    fn a_banner() = Banner;
    fn a_preamble() = Preamble;
    fn a_farewell() = Farewell;
    fn what_is_said_at_the_end() = AtEnd;
    fn a_sentinel() = Sentinel;
    fn a_sentinel_of_halves() = Halves;
    fn a_sentinel_in_pairs() = Paired;
    fn a_side_input() = SideInput;
    fn a_side_output() = SideOutput;
    fn until_eof() = UntilEof;
    fn recycle_after_records() = Recycled;
    fn at_most_once() = AtMostOnce;
    fn retries() = Retries;
    fn one_in_flight() = OneInFlight;
    fn a_check() = Checked;
    fn two_lines_a_reply() = TwoLines;
    fn unordered() = Unordered;
    fn replies_in_blocks() = Lent;
    fn blocks_of_records() = Blocks;
    fn a_queue() = Queue;
    fn a_pipeline() = Pipeline;
    fn a_drain() = Drain;
    fn a_source_in_a_subprocess() = Source;
}

// ==================================================================== by name

#[test]
fn one_reply_too_many_and_then_it_leaves() {
    within(|| {
        // The second request lies unread in the pipe: the extra line is no reply to it.
        for end in ["echo extra; exit 0", "echo extra; exit 3", "echo extra; kill -9 $$"] {
            let template = Template::shell(format!("read -r x; echo $x; {end}"));
            let source = ["a", "b"].into_iter();
            let items: Vec<_> = source.feed_subprocesses_ordered(template, 1, 8).collect();
            let told = items.iter().filter_map(|item| item.as_ref().err()).next();
            let told = told.unwrap_or_else(|| panic!("{end}: {items:?}"));
            assert!(told.is_fatal(), "{end}: {told}");
            assert!(matches!(told.kind(), ErrorKind::ReplyCount { .. }), "{end}: {told}");
        }
        // Without a request it is no reply, however well it ends.
        let template = Template::shell("echo constant");
        let items: Vec<_> = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 8).collect();
        let error = items.iter().find_map(|item| item.as_ref().err()).expect("it is told");
        assert!(error.is_fatal() && error.to_string().contains("until_eof"), "{error}");
    });
}

#[test]
fn a_reply_that_equals_the_last_words_is_a_reply_where_the_tool_stays() {
    within(|| {
        let template = Template::new("cat").skip_at_end("\n");
        let mut queue = Queue::subprocesses(template, 1, 8);
        for item in ["", "a", "", "", "b", ""] {
            queue.put(item).expect("it takes it");
            assert_eq!(queue.get().expect("an item").expect("a reply"), item);
        }
        queue.stop();
        assert!(queue.get().is_none());
        // The last words in pieces, and amid a reply.
        let script = "while read -r x; do printf so; echo \" $x\"; done; echo so; echo long";
        let template = Template::shell(script).skip_at_end("so\nlong\n");
        let source = ["", "long", "so"].into_iter();
        let feed = source.feed_subprocesses_ordered(template, 1, 8);
        assert_eq!(crate::common::texts(feed), ["so ", "so long", "so so"]);
    });
}

#[test]
fn a_limit_that_is_shorter_than_the_doubt_kills_nobody() {
    within(|| {
        let limit = std::time::Duration::from_millis(50);
        let template = Template::new("cat").skip_at_end("\n").packet_timeout(limit);
        let mut queue = Queue::subprocesses(template, 1, 8);
        for _ in 0..3 {
            queue.put("").expect("it takes it");
            assert_eq!(queue.get().expect("an item").expect("a reply"), "");
        }
    });
}
