//! By way of a real Slurm of four nodes.
//!
//! `Launcher::srun` reads the environment of its process. So each of these tests runs in a process of its own, with the
//! environment that it would have inside the allocation.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use subfeed::framing::{Prefix, ReplyFraming, RequestFraming};
use subfeed::{ErrorKind, FeedExt, Launcher, Template};

use crate::common::{Dir, again, eventually, kill, numbers, tools, within};
use crate::framings::every_framing_keeps_order_and_values;
use crate::kit::{Slurm, all_answer, below, is_called, stop, survives, wait_gone};

/// Which test runs in a process of its own, and the pids of the nodes' daemons.
const INSIDE: &str = "SUBFEED_TEST_INSIDE";

fn here() -> bool {
    tools::here(&["srun", "slurmctld", "slurmd", "munged", "setpriv", "ps"])
}

/// Runs the test of this name inside an allocation.
#[track_caller]
fn inside(name: &str, test: fn(&Nodes)) {
    if let Some(pids) = std::env::var_os(INSIDE) {
        let pids = pids.into_string().expect("pids");
        let pids = pids.split(' ').map(|pid| pid.parse().expect("a pid")).collect();
        return within(move || test(&Nodes(pids)));
    }
    if !here() {
        return;
    }
    let slurm = Slurm::start();
    let pids = (1..=4).map(|node| slurm.slurmd(node).to_string()).collect::<Vec<_>>().join(" ");
    let passed = again(&format!("slurm::{name}"), |command| {
        command.envs(slurm.environment()).env(INSIDE, pids);
    });
    passed.unwrap_or_else(|said| panic!("{said}"));
}

/// The nodes, as a test inside sees them.
#[derive(Debug)]
struct Nodes(Vec<u32>);

impl Nodes {
    /// The daemons of steps that have a worker of ours on some node: those above a `cat`.
    fn stepds() -> Vec<u32> {
        let all = crate::kit::processes(|words| {
            words.first().is_some_and(|word| word.starts_with("slurmstepd"))
        });
        let job = std::env::var("SLURM_CONF").expect("inside");
        let ours = |pid: &u32| {
            let of = |pid: &u32| std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let has = |pid: &u32| of(pid).windows(job.len()).any(|part| part == job.as_bytes());
            below(*pid).iter().any(has)
        };
        let working = |pid: &u32| below(*pid).into_iter().any(|child| is_called(child, "cat"));
        all.into_iter().filter(ours).filter(working).collect()
    }
}

fn cat() -> Template {
    let quick = Launcher::srun().silence(Duration::from_millis(1_500));
    Template::new("cat").via(quick)
}

/// What the look at a silent worker takes: until it is looked at, and until the look has had no answer.
const LOOK: Duration = Duration::from_millis(11_500);

#[test]
fn replies_come_back_in_order_from_four_nodes() {
    inside("replies_come_back_in_order_from_four_nodes", |_| {
        assert_eq!(Launcher::srun().slots(), 16);
        let feed = numbers(100_000).feed(cat()).workers(8).buffer(10_000).start();
        for (n, reply) in feed.enumerate() {
            assert_eq!(reply.expect("a reply"), n.to_string());
        }
        // Every node has a part of it, and any byte comes through.
        let template = Template::shell("while read -r x; do echo {host} $SLURMD_NODENAME $A; done");
        let template = template.env("A", "{slot}").via(Launcher::srun());
        let seats =
            (1..=4).flat_map(|node| (0..2).map(move |slot| format!("n{node} n{node} {slot}")));
        let seats: Vec<String> = seats.collect();
        all_answer(template, 8, &seats.iter().map(|seat| &**seat).collect::<Vec<_>>());
        let every: Vec<Vec<u8>> =
            (0..64u8).map(|n| (0..=255).map(|b: u8| b ^ n).collect()).collect();
        let template = cat().requests(RequestFraming::prefixed(Prefix::u16_be()));
        let template = template.replies(ReplyFraming::prefixed(Prefix::u16_be()));
        let feed = every.clone().into_iter().feed_subprocesses_ordered(template, 4, 16);
        assert!(feed.zip(&every).all(|(reply, sent)| reply.unwrap() == *sent));
        // Status 0 of a step whose node is gone is not believed, and a tool's own is told.
        let template = Template::shell("read -r x; exit 42").via(Launcher::srun());
        let error =
            ["x"].into_iter().feed_subprocesses(template, 1, 1).next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Died);
        assert_eq!((error.exit_status().unwrap().code(), error.host()), (Some(42), Some("n1")));
    });
}

#[test]
fn every_framing_keeps_order_and_values_over_two_nodes() {
    inside("every_framing_keeps_order_and_values_over_two_nodes", |_| {
        let two = Launcher::srun().hosts(["n1", "n2"]);
        every_framing_keeps_order_and_values(|template| template.via(&two));
    });
}

#[test]
fn a_step_that_is_killed_or_cancelled_costs_nothing_but_time() {
    inside("a_step_that_is_killed_or_cancelled_costs_nothing_but_time", |_| {
        // Its launcher hangs for ever: only the look tells.
        let seen = survives(cat(), 8, 1, LOOK, || kill(Nodes::stepds()[0]));
        assert!(seen.redeliveries > 0, "{seen:?}");
        let seen = survives(cat(), 8, 1, Duration::from_secs(2), || {
            let job = std::env::var("SLURM_JOB_ID").expect("a job");
            let steps =
                Command::new("squeue").args(["-s", "-h", "-o", "%i"]).output().expect("squeue");
            let steps = String::from_utf8(steps.stdout).expect("text");
            // One that is dead is listed as well: the last to be started is one of ours.
            let number = |step: &&str| step.strip_prefix(&format!("{job}."))?.parse::<u32>().ok();
            let step = steps.split_whitespace().max_by_key(number).expect("a step").to_owned();
            let status = Command::new("scancel").arg(step).status().expect("scancel");
            assert!(status.success());
        });
        assert!(seen.redeliveries > 0, "{seen:?}");
    });
}

#[test]
fn a_step_that_freezes_is_noticed_by_its_silence() {
    inside("a_step_that_freezes_is_noticed_by_its_silence", |_| {
        // The process is there, and the step is not: only a limit tells, and it is the user's.
        let count = 20_000;
        let template = cat().packet_timeout(Duration::from_secs(4)).retries(2);
        let mut feed = numbers(count).feed(template).workers(4).buffer(1_000).start();
        for n in 0..count {
            if n == 5_000 {
                stop(Nodes::stepds()[0]);
            }
            assert_eq!(feed.next().expect("an item").expect("a reply"), n.to_string());
        }
    });
}

#[test]
fn a_node_that_is_lost_costs_nothing_but_time() {
    inside("a_node_that_is_lost_costs_nothing_but_time", |nodes| {
        let seen = survives(cat(), 8, 1, LOOK, || {
            // The daemon alone does no harm; the host as a whole does.
            kill(nodes.0[1]);
            for pid in Nodes::stepds().into_iter().take(2) {
                for child in below(pid).into_iter().chain([pid]) {
                    kill(child);
                }
            }
        });
        assert!(seen.redeliveries > 0, "{seen:?}");
    });
}

#[test]
fn a_node_s_daemon_that_is_killed_and_restarted_is_not_noticed() {
    inside("a_node_s_daemon_that_is_killed_and_restarted_is_not_noticed", |nodes| {
        let mut again = None;
        let seen = survives(cat(), 8, 1, Duration::from_secs(2), || {
            kill(nodes.0[1]);
            // The process that runs this test ends before the daemons' script, and this one with it.
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "slurmd", "-D", "-N", "n2"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            again = Some(command.spawn().expect("slurmd"));
        });
        assert_eq!((seen.deaths, seen.redeliveries), (0, 0), "{seen:?}");
        // And it takes new steps.
        let template = Template::new("cat").via(Launcher::srun().hosts(["n2"]));
        eventually("the node is back", || {
            let mut feed = ["x"].into_iter().feed_subprocesses(template.clone(), 1, 1);
            feed.next().is_some_and(|reply| reply.is_ok())
        });
        let mut again = again.expect("it was started");
        again.kill().expect("it ends");
        again.wait().expect("it is reaped");
    });
}

#[test]
fn a_job_that_is_cancelled_is_one_fatal_error_that_names_the_nodes() {
    inside("a_job_that_is_cancelled_is_one_fatal_error_that_names_the_nodes", |_| {
        let endless = (0u64..).map(|n| n.to_string());
        let template = cat().give_up_after(2);
        let mut feed = endless.feed(template).workers(4).buffer(1_000).start();
        let mut cancelled = None;
        let mut fatal = None;
        for (n, reply) in feed.by_ref().enumerate() {
            if n == 10_000 {
                let job = std::env::var("SLURM_JOB_ID").expect("a job");
                let status = Command::new("scancel").arg(job).status().expect("scancel");
                assert!(status.success());
                cancelled = Some(Instant::now());
            }
            match reply {
                Ok(reply) => assert_eq!(reply, n.to_string()),
                Err(error) if error.kind() == ErrorKind::Halted => {}
                Err(error) => assert!(fatal.replace(error).is_none(), "one only"),
            }
        }
        let (cancelled, fatal) = (cancelled.expect("it was"), fatal.expect("an error"));
        let line = fatal.to_string();
        println!("{:?}: {line}", cancelled.elapsed());
        assert!(fatal.is_fatal() && fatal.kind() == ErrorKind::Transport, "{line}");
        assert!((1..=4).all(|node| line.contains(&format!("n{node}"))), "{line}");
        assert!(cancelled.elapsed() < Duration::from_secs(20), "{:?}", cancelled.elapsed());
    });
}

#[test]
fn nothing_stays_there_when_this_side_is_killed() {
    inside("nothing_stays_there_when_this_side_is_killed", |_| {
        let dir = Dir::new();
        let mut side = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "slurm::endless_feed_of_a_process_that_is_killed"])
            .args(["--ignored", "--nocapture"])
            .env("SUBFEED_TEST_TOUCH", dir.path("streams"))
            .stdout(Stdio::null())
            .spawn()
            .expect("this program again");
        eventually("it streams", || dir.path("streams").exists());
        let tools: Vec<u32> = Nodes::stepds().into_iter().flat_map(below).collect();
        assert!(!tools.is_empty());
        side.kill().expect("it is killed");
        side.wait().expect("it is reaped");
        wait_gone(&tools);
    });
}

#[test]
#[ignore = "run by another test, which kills it"]
fn endless_feed_of_a_process_that_is_killed() {
    let Some(touch) = std::env::var_os("SUBFEED_TEST_TOUCH") else { return };
    let endless = (0u64..).map(|n| n.to_string());
    let mut feed = endless.feed_subprocesses_ordered(cat(), 2, 100);
    for _ in 0..1_000 {
        feed.next().expect("an item").expect("a reply");
    }
    std::fs::write(touch, "").expect("a file");
    feed.for_each(drop);
}
