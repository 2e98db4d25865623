//! How the child ends, whoever is to blame, and what it has of its parent's.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use subfeed::ErrorKind;
use subfeed::policy::Signal;
use subfeed::source::LastPass;

use crate::common::{Belongings, DEADLINE, Dir, eventually, is_running, kill, soon};
use crate::functions::{FDS, LOG, NOTED, PRINTS, RANGE, UNTIL, WHO};
use crate::tests;

tests![
    the_end_of_its_parent_ends_the_child_in_the_midst_of_a_pass,
    the_end_of_its_parent_ends_the_child_in_the_midst_of_an_endless_item,
    a_program_ends_well_with_a_pass_in_its_hands,
    what_the_passes_hold_is_dropped_before_the_child_ends,
    dropping_ends_a_child_that_does_not_listen_within_the_bound,
    the_kill_sequence_is_ones_own,
    the_child_has_its_own_two_pipes_and_nothing_else,
    what_the_function_prints_is_printed_and_no_item,
    a_program_that_does_not_serve_starts_nothing,
    a_child_without_its_pipes_does_not_run_the_program,
];

/// Runs this program as another one.
fn scene(name: &str, args: &[&str]) -> Child {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args(["--scene", name]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("this program again")
}

/// Keeps a pass beyond the end of `main`.
static HELD: Mutex<Option<LastPass<(u64, u32)>>> = Mutex::new(None);

/// One of the programs that the tests need.
pub(crate) fn play(scene: &str, args: &[String]) -> ExitCode {
    match scene {
        // Prints the child's number, and waits for the end of its input.
        "hold" => {
            let mut pass = WHO.iterate_in_subprocess(&u64::MAX, 3).into_iter();
            println!("{}", pass.next().unwrap().unwrap().1);
            *HELD.lock().unwrap() = Some(pass);
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
        }
        "hold sleeping" => {
            let mut source = UNTIL.iterate_in_subprocess(&(0, "defy".to_owned()), 3);
            source.wait_until_ready().unwrap();
            let pass = source.iter();
            for child in crate::common::children() {
                println!("{child}");
            }
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            drop(pass);
        }
        "print" => {
            let sum: u64 = PRINTS.iterate_in_subprocess(&3, 1).iter().map(Result::unwrap).sum();
            println!("sum {sum}");
        }
        _ => panic!("{scene} {args:?}"),
    }
    ExitCode::SUCCESS
}

/// The program that has forgotten to serve.
pub(crate) fn unserved() -> ExitCode {
    let items: Vec<_> = RANGE.iterate_in_subprocess(&3, 1).iter().collect();
    let [Err(error)] = &items[..] else { panic!("{items:?}") };
    assert_eq!(error.kind(), ErrorKind::Config);
    println!("{error}");
    ExitCode::SUCCESS
}

fn first_line(scene: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(scene.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn orphan(name: &str) -> u32 {
    let mut parent = scene(name, &[]);
    let child = first_line(&mut parent).parse().expect("a number");
    assert!(is_running(child));
    kill(parent.id());
    parent.wait().unwrap();
    child
}

fn the_end_of_its_parent_ends_the_child_in_the_midst_of_a_pass() {
    let child = orphan("hold");
    eventually("the child ends", || !is_running(child));
}

fn the_end_of_its_parent_ends_the_child_in_the_midst_of_an_endless_item() {
    // It is deaf to SIGTERM, too, which nobody is left to send.
    let child = orphan("hold sleeping");
    eventually("the child ends", || !is_running(child));
}

fn a_program_ends_well_with_a_pass_in_its_hands() {
    let mut parent = scene("hold", &[]);
    let child: u32 = first_line(&mut parent).parse().expect("a number");
    drop(parent.stdin.take());
    assert!(parent.wait().unwrap().success());
    eventually("the child ends", || !is_running(child));
}

fn what_the_passes_hold_is_dropped_before_the_child_ends() {
    let dir = Dir::new();
    let mut source = NOTED.iterate_in_subprocess(&(dir.at("noted"), u64::MAX), 8);
    let mut pass = source.iter();
    assert_eq!(pass.next().unwrap().unwrap(), 0);
    std::mem::forget(pass);
    drop(source);
    assert!(dir.read("noted").ends_with("end\n"));
}

fn dropping_ends_a_child_that_does_not_listen_within_the_bound() {
    let before = Belongings::now();
    let grace = Duration::from_millis(100);
    // It sleeps; it is also deaf to SIGTERM; it does not even run, so that it cannot end itself.
    for (then, is_stopped) in [("sleep", false), ("defy", false), ("defy", true)] {
        let dir = Dir::new();
        let mut source = UNTIL
            .iterate_in_subprocess(&(1, then.to_owned()), 8)
            .end_timeout(grace)
            .kill_sequence([(Signal::Terminate, grace), (Signal::Kill, Duration::ZERO)])
            .env(LOG, dir.at("log"));
        let mut pass = source.iter();
        assert_eq!(pass.next().unwrap().unwrap(), 0);
        eventually("it sleeps", || dir.read("log").ends_with("sleeps\n"));
        if is_stopped {
            let child = *crate::common::children().iter().next().unwrap();
            let child = nix::unistd::Pid::from_raw(child.cast_signed());
            nix::sys::signal::kill(child, nix::sys::signal::SIGSTOP).unwrap();
        }
        let start = Instant::now();
        soon(|| drop(pass));
        soon(|| drop(source));
        assert!(start.elapsed() >= grace, "{then}");
        before.restored();
    }
}

fn the_kill_sequence_is_ones_own() {
    // SIGINT ends it, before SIGTERM, which it ignores, would have.
    let mut source = UNTIL
        .iterate_in_subprocess(&(0, "defy".to_owned()), 8)
        .end_timeout(Duration::from_secs(300))
        .idle_timeout(Duration::from_millis(300))
        .kill_sequence([(Signal::Interrupt, 2 * DEADLINE)]);
    let items: Vec<_> = soon(|| source.iter().collect());
    let error = items[0].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    soon(|| drop(source));
}

fn the_child_has_its_own_two_pipes_and_nothing_else() {
    // Another one has pipes here, too.
    let other = RANGE.iterate_in_subprocess(&u64::MAX, 2).into_iter();
    let mut source = FDS.iterate_in_subprocess(&(), 1);
    let files = source.iter().next().unwrap().unwrap();
    // What was forgotten by whoever started this process is everybody's.
    let inherited = |number: i32| {
        // SAFETY: an open descriptor is only looked at, and one that is not open is an error.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        fcntl(fd, FcntlArg::F_GETFD).is_ok_and(|flags| flags & FdFlag::FD_CLOEXEC.bits() == 0)
    };
    let own: Vec<_> = files.iter().filter(|file| file.0 > 2 && !inherited(file.0)).collect();
    assert!(own.len() == 2 && own.iter().all(|(_, to)| to.starts_with("pipe:")), "{files:?}");
    assert!(files.contains(&(0, "/dev/null".to_owned())), "{files:?}");
    drop(other);
}

fn what_the_function_prints_is_printed_and_no_item() {
    let mut printing = scene("print", &[]);
    let mut said = String::new();
    printing.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(printing.wait().unwrap().success());
    assert_eq!(said, "begins\nmakes 0\nmakes 1\nmakes 2\nsum 3\n");
}

fn a_program_that_does_not_serve_starts_nothing() {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program).arg("--unserved").output().expect("this program again");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("Registry::serve"), "{said}");
}

fn a_child_without_its_pipes_does_not_run_the_program() {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program);
    child.args(["--subfeed-function", "range"]);
    // As if somebody passed on what a child was given.
    child.env("SUBFEED_FUNCTION_COMMANDS", "10").env("SUBFEED_FUNCTION_ITEMS", "2000000");
    let output = child.output().expect("this program again");
    assert!(output.status.code() == Some(2) && output.stdout.is_empty(), "{output:?}");
    // Without the variables they are arguments like others.
    let program = std::env::current_exe().expect("this program");
    let list = Command::new(program).args(["--subfeed-function", "--list"]).output().unwrap();
    assert!(String::from_utf8_lossy(&list.stdout).contains("test"), "{list:?}");
}
