//! By way of a real sshd.

use std::time::{Duration, Instant};

use subfeed::channel::Redirect;
use subfeed::framing::{ReplyFraming, RequestFraming};
use subfeed::policy::Limit;
use subfeed::source::iterate_in_subprocess;
use subfeed::{ErrorKind, FeedExt, Host, Launcher, Template};

use crate::common::{DEADLINE, Dir, eventually, kill, numbers, texts, tools};
use crate::framings::every_framing_keeps_order_and_values;
use crate::kit::{
    BUSY, Sshd, all_answer, below, expect, go_on, is_called, only_error, stop, survives, wait_gone,
};
use crate::with_sshd;

with_sshd!(replies_come_back_in_order_and_none_is_lost_from_two_hosts, |sshd| {
    let count = 100_000;
    let template = sshd.cat(&["node1", "node2"]);
    let mut feed = numbers(count).feed(template).workers(8).buffer(10_000).start();
    for (n, reply) in feed.by_ref().enumerate() {
        assert_eq!(reply.expect("a reply"), n.to_string());
    }
    let seen = feed.monitor().snapshot();
    assert_eq!((seen.replies, seen.redeliveries, seen.deaths), (count, 0, 0));
});

with_sshd!(every_framing_keeps_order_and_values_over_two_hosts, |sshd| {
    // One connection to each host for all of the feeds.
    let socket = format!("ControlPath={}", sshd.0.dir.at("%n"));
    let launcher = sshd.launcher(&["node1", "node2"]).option(socket);
    every_framing_keeps_order_and_values(|template| template.via(&launcher));
});

with_sshd!(what_looks_like_a_goodbye_comes_through_and_so_does_a_status, |sshd| {
    // A fixed size: whatever may begin a goodbye ends a reply here, and is answered one at a time.
    let marks = || [*b"ab\x1d\x1d", *b"\x1d\x1d\x1ds", *b"su\x1ds"].into_iter().cycle().take(30);
    let template = sshd.cat(&["node1"]).requests(RequestFraming::raw()).in_flight(1);
    let template = template.replies(ReplyFraming::fixed_size(4));
    let feed = marks().feed_subprocesses_ordered(template, 1, 4);
    assert!(feed.zip(marks()).all(|(reply, sent)| reply.unwrap() == sent));
    // A process for each request, whose status is the tool's own.
    let grep = Template::new("grep").args(["-c", "x"]).requests(RequestFraming::raw());
    let grep = grep.replies(ReplyFraming::until_eof()).accept_status(|status| status == 1);
    let grep = grep.via(sshd.launcher(&["node1"]));
    let mut feed = ["a\n", "x\n", ""].into_iter().feed_subprocesses_ordered(grep, 2, 8);
    assert_eq!(feed.next().unwrap().unwrap(), "0\n");
    assert_eq!(feed.next().unwrap().unwrap_err().exit_status().unwrap().code(), Some(0));
    assert_eq!(feed.next().unwrap().unwrap(), "0\n");
});

with_sshd!(words_environment_and_directory_survive_every_login_shell, |sshd| {
    let every: Vec<u8> = (1..=255).collect();
    let dir = Dir::new();
    for shell in ["node1", "bash", "dash", "fish", "tcsh"] {
        if !tools::here(&["fish", "tcsh"]) && ["fish", "tcsh"].contains(&shell) {
            continue;
        }
        let words: Vec<Vec<u8>> =
            [&every[..], b"", b"a\\\\b\n!x", b"it's", b"-n", b"{a,b} $HOME `id`"]
                .map(<[u8]>::to_vec)
                .to_vec();
        use std::os::unix::ffi::OsStrExt;
        let os = std::ffi::OsStr::from_bytes;
        let script = r#"read -r x; printf '%s\0' "$@" "$EVERY" "$SLOT" "${GONE-unset}" "$(pwd)"; echo THE END"#;
        let mut template = Template::new("sh").raw_arg("-c").raw_arg(script).raw_arg("x");
        for word in &words {
            template = template.raw_arg(os(word));
        }
        let template = template
            .secret_env("EVERY", os(&every))
            .env("SLOT", "{id}-{slot}-{host}")
            .env("GONE", "x")
            .env_remove("GONE")
            .current_dir(dir.path(""))
            .replies(ReplyFraming::end_marker("THE END\n"))
            .via(sshd.launcher(&[shell]));
        let reply = ["x"].into_iter().feed_subprocesses(template, 1, 1).next().unwrap().unwrap();
        let found: Vec<&[u8]> = reply.split(|&byte| byte == 0).collect();
        let here = dir.at("");
        let slot = format!("0-0-{shell}");
        let mut expected: Vec<&[u8]> = words.iter().map(|word| &word[..]).collect();
        expected.extend([
            &every[..],
            slot.as_bytes(),
            b"unset",
            here.trim_end_matches('/').as_bytes(),
        ]);
        assert_eq!(found[..expected.len()], expected, "{shell}");
    }
});

with_sshd!(a_login_that_prints_a_banner_is_heard_out, |sshd| {
    let feed = numbers(100).feed_subprocesses_ordered(sshd.cat(&["chatty"]), 2, 16);
    assert_eq!(texts(feed), numbers(100).collect::<Vec<_>>());
});

with_sshd!(workers_are_shared_out_and_this_machine_needs_no_connection, |sshd| {
    let hosts = [Host::new("node1").weight(2), Host::new("node2"), Host::local()];
    let launcher = Launcher::ssh(hosts).config_file(sshd.0.dir.path("ssh_config"));
    assert_eq!(launcher.slots(), 4);
    let template =
        Template::shell("while read -r x; do echo \"{host} {slot} ${SSH_CONNECTION:+far}\"; done");
    let seats = ["node1 0 far", "node1 1 far", "node2 0 far", "localhost 0 "];
    all_answer(template.via(&launcher), 4, &seats);
    let idle = Template::new("cat").via(&launcher);
    let mut feed = ["x"].into_iter().feed_subprocesses_ordered(idle, 1, 1);
    let hint = feed.monitor().snapshot().hint.expect("a hint");
    assert!(hint.contains("node2, :"), "{hint}");
    assert_eq!(feed.next().unwrap().unwrap(), "x");
});

with_sshd!(sixteen_workers_start_at_the_daemons_defaults, |sshd| {
    // MaxStartups 10:30:100, MaxSessions 10.
    let feed = numbers(5_000).feed(sshd.cat(&["node1"])).workers(16).buffer(2_000);
    let mut feed = feed.start();
    let monitor = feed.monitor();
    for (n, reply) in feed.by_ref().enumerate() {
        assert_eq!(reply.expect("a reply"), n.to_string());
    }
    drop(feed);
    let seen = monitor.snapshot();
    assert_eq!((seen.deaths, seen.redeliveries), (0, 0), "{seen:?}");
});

with_sshd!(the_true_status_and_both_pids_are_told, |sshd| {
    let template =
        Template::shell("read -r x; echo oh >&2; exit 42").via(sshd.launcher(&["node1"]));
    let error = only_error(template);
    expect(&error, ErrorKind::Died, &["exit status: 42", "host node1", "oh"]);
    assert_eq!(error.host(), Some("node1"));
    let template = Template::shell("read -r x; kill -SEGV $$").via(sshd.launcher(&["node1"]));
    expect(&only_error(template), ErrorKind::Died, &["SIGSEGV"]);
});

with_sshd!(half_a_reply_is_no_reply_however_a_session_ends, |sshd| {
    for replies in
        [ReplyFraming::line(), ReplyFraming::until_eof(), ReplyFraming::end_marker("END")]
    {
        let template = Template::shell("read -r x; printf half; kill -KILL 0");
        let template = template.replies(replies).via(sshd.launcher(&["node1"]));
        expect(&only_error(template), ErrorKind::Transport, &["node1", "three times"]);
    }
    let template = Template::shell("read -r x; printf half; kill -KILL 0").at_most_once();
    let error = only_error(template.via(sshd.launcher(&["node1"])));
    expect(&error, ErrorKind::Transport, &["at_most_once"]);
});

with_sshd!(a_source_and_a_drain_take_a_launcher_as_well, |sshd| {
    let source =
        iterate_in_subprocess(Template::new("seq").arg("1000").via(sshd.launcher(&["chatty"])), 16);
    assert_eq!(texts(source.iter()), (1..=1_000).map(|n| n.to_string()).collect::<Vec<_>>());
    let source =
        Template::shell("echo whole; printf half; kill -KILL 0").via(sshd.launcher(&["node1"]));
    let records: Vec<_> = iterate_in_subprocess(source, 4).iter().collect();
    assert_eq!(records[0].as_ref().unwrap(), "whole");
    expect(records[1].as_ref().unwrap_err(), ErrorKind::Transport, &["node1", "broke off"]);
    let source = iterate_in_subprocess(Template::new("cat").via(sshd.launcher(&["closed"])), 4);
    expect(
        &source.iter().next().unwrap().unwrap_err(),
        ErrorKind::Transport,
        &["closed", "refused"],
    );
    // Hello and goodbye go over stderr, and are taken off.
    let dir = Dir::new();
    let template = Template::shell("tee /dev/stderr").stdout(Redirect::file(dir.path("{id}")));
    let template = template.via(sshd.launcher(&["node1", "node2"]));
    let drained = numbers(1_000).feed(template).workers(2).drain().unwrap();
    assert!(drained.all_ended_well(), "{drained:?}");
    let mut all: Vec<u64> = [dir.read("0"), dir.read("1")]
        .iter()
        .flat_map(|text| text.lines())
        .map(|line| line.parse().expect("nothing but numbers"))
        .collect();
    all.sort_unstable();
    assert_eq!(all, (0..1_000).collect::<Vec<_>>());
});

with_sshd!(a_drop_leaves_no_process_there_and_no_folder_here, |sshd| {
    let dir = Dir::new();
    // It neither reads nor writes: only the launcher's own command ends it.
    let template = Template::shell(format!("echo $$ >{}; exec sleep 300", dir.at("pid")));
    let feed = ["x"].into_iter().feed_subprocesses(template.via(sshd.launcher(&["node1"])), 1, 1);
    eventually("it is started", || dir.read("pid").ends_with('\n'));
    let pid = dir.read("pid").trim().parse().unwrap();
    drop(feed);
    wait_gone(&[pid]);
});

with_sshd!(the_example_counts_words_on_two_hosts_as_one_would_here, |sshd| {
    // `cargo test` builds the examples beside the tests.
    let tests = std::env::current_exe().expect("this program");
    let example = tests.parent().and_then(|deps| deps.parent()).expect("a folder");
    let example = example.join("examples/machines");
    if !example.exists() {
        assert!(std::env::var_os("SUBFEED_ALL_TOOLS").is_none(), "no {}", example.display());
        return eprintln!("skipped: {} is not built", example.display());
    }
    let mut command = std::process::Command::new(example);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.arg("node1,node2").arg(sshd.0.dir.path("ssh_config")).output();
    let output = output.expect("the example");
    let said = String::from_utf8_lossy(&output.stdout);
    let complains = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complains}");
    assert!(said.contains("node1") && said.contains("node2"), "{said}");
});

with_sshd!(one_host_that_can_be_reached_does_everything_and_the_other_is_named, |sshd| {
    let feed = numbers(2_000).feed(sshd.cat(&["closed", "node1"]).give_up_after(1)).workers(4);
    let mut feed = feed.start();
    let monitor = feed.monitor();
    assert_eq!(texts(feed.by_ref()), numbers(2_000).collect::<Vec<_>>());
    let seen = monitor.snapshot();
    assert_eq!(seen.failed + seen.retries, 0);
    let hint = seen.hint.expect("a hint");
    assert!(hint.contains("host closed is out") && hint.contains("refused"), "{hint}");
});

with_sshd!(a_host_that_does_not_answer_is_given_up_in_time, |sshd| {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    let launcher = sshd.launcher(&["node1"]).option(format!("Port={port}"));
    let launcher = launcher.connect_within(Duration::from_millis(300));
    let error = only_error(Template::new("cat").give_up_after(1).via(launcher));
    let said = Limit::Connect(Duration::from_millis(300)).to_string();
    expect(&error, ErrorKind::Transport, &["node1", &said]);
});

// -------------------------------------------------------------------- faults while it streams

/// What is told at once needs no time but that of another connection.
const AT_ONCE: Duration = Duration::from_secs(2);

/// The sessions of a daemon: what serves them.
fn sessions(sshd: &Sshd) -> Vec<u32> {
    below(sshd.0.pid(0))
}

with_sshd!(sessions_that_are_killed_cost_nothing_but_time, |sshd| {
    let seen = survives(sshd.cat(&["node1", "node2"]), 4, 3, AT_ONCE, || {
        let victims = sessions(&sshd);
        assert!(!victims.is_empty());
        for pid in victims {
            kill(pid);
        }
    });
    assert!(seen.deaths > 0 && seen.redeliveries > 0, "{seen:?}");
});

with_sshd!(tools_that_are_killed_there_cost_nothing_but_time, |sshd| {
    survives(sshd.cat(&["node1", "node2"]), 4, 3, AT_ONCE, || {
        let all = sessions(&sshd);
        let tools: Vec<u32> = all.into_iter().filter(|&pid| is_called(pid, "cat")).collect();
        assert!(!tools.is_empty());
        kill(tools[0]);
    });
});

with_sshd!(a_connection_that_many_share_may_be_killed, |sshd| {
    // A socket of its own tells the connection from those of other tests.
    let socket = sshd.0.dir.at("m");
    let launcher = sshd.launcher(&["node1"]).option(format!("ControlPath={socket}"));
    let mut killed = 0;
    survives(Template::new("cat").via(launcher), 4, 3, AT_ONCE, || {
        // The one after a fault may not be there yet at the next.
        for pid in crate::kit::processes(|words| {
            words.iter().any(|word| word.contains(&socket) && word.contains("[mux]"))
        }) {
            kill(pid);
            killed += 1;
        }
    });
    assert!(killed > 0, "there was no shared connection");
});

with_sshd!(a_daemon_that_is_killed_leaves_what_runs, |sshd| {
    // What it has started runs on.
    survives(sshd.cat(&["node1"]), 2, 1, AT_ONCE, || kill(sshd.0.pid(0)));
});

with_sshd!(a_frozen_connection_is_noticed_and_its_packets_go_elsewhere, |sshd| {
    let launcher = sshd.launcher(&["node1", "node2"]);
    let launcher = launcher.option("ServerAliveInterval=1").option("ServerAliveCountMax=2");
    // The third second is that of the first question.
    let seen = survives(Template::new("cat").via(launcher), 2, 1, Duration::from_secs(3), || {
        stop(sessions(&sshd)[0]);
    });
    assert!(seen.redeliveries > 0, "{seen:?}");
});

with_sshd!(a_frozen_listener_costs_the_sessions_that_are_there_nothing, |sshd| {
    let launcher = sshd.launcher(&["node1", "node2"]).connect_within(Duration::from_secs(1));
    // Nobody shares a connection, so that each worker needs one of its own.
    let launcher = launcher.option("ControlMaster=no").option("ControlPath=none");
    let listener = sshd.0.pid(0);
    let mut seen_hanging = false;
    let template = Template::new("cat").give_up_after(100).via(launcher);
    let mut feed = (0u64..).map(|n| n.to_string()).feed(template).workers(2).buffer(2_000).start();
    let (monitor, stopper) = (feed.monitor(), feed.stopper());
    let answered = || monitor.workers().iter().map(|worker| worker.answered).collect::<Vec<_>>();
    let (mut frozen, mut thawed) = (None, None);
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    for (n, reply) in feed.by_ref().enumerate() {
        assert_eq!(reply.expect("a reply"), n.to_string());
        longest = longest.max(last.elapsed());
        last = Instant::now();
        if n % 5_000 != 0 {
            continue;
        }
        match (frozen, &thawed) {
            (None, _) if answered().iter().all(|answered| *answered > 0) => {
                stop(listener);
                // It is root's own process, or one that has given up root's rights: all of it goes.
                let session = sessions(&sshd).into_iter().find(|&pid| is_called(pid, "sshd"));
                kill(session.expect("a session"));
                (frozen, longest) = (Some(Instant::now()), Duration::ZERO);
            }
            // Two that were made since have not come about in time.
            (Some(_), None) if monitor.snapshot().starts >= 5 => {
                seen_hanging = true;
                go_on(listener);
                thawed = Some(answered());
            }
            (Some(_), Some(before))
                if answered().iter().zip(before).all(|(now, before)| now > before) =>
            {
                stopper.stop();
            }
            _ => {}
        }
        assert!(frozen.is_none_or(|at| at.elapsed() < DEADLINE), "{:?}", monitor.workers());
    }
    assert!(seen_hanging);
    drop(feed);
    let seen = monitor.snapshot();
    assert_eq!((seen.failed, seen.retries), (0, 0), "{seen:?}");
    assert!(longest < AT_ONCE + BUSY, "{longest:?}, {seen:?}");
});

with_sshd!(a_silent_worker_is_looked_at_and_one_that_is_there_is_left_alone, |sshd| {
    let launcher = sshd.launcher(&["node1"]).silence(Duration::from_millis(200));
    // It answers late, and is there all the time.
    let slow = Template::shell("while read -r x; do sleep 1; echo $x; done").via(&launcher);
    let mut feed = ["a", "b"].into_iter().feed_subprocesses_ordered(slow, 1, 2);
    assert_eq!(texts(feed.by_ref()), ["a", "b"]);
    let seen = feed.monitor().snapshot();
    assert_eq!((seen.deaths, seen.redeliveries), (0, 0), "{seen:?}");
    // Its process is gone, and nothing says so: a grandchild holds its stdout, and the shell of the goodbye is gone too.
    let dir = Dir::new();
    let script = format!(
        r#"read -r x; if mkdir {} 2>/dev/null; then p=$(ps -o ppid= -p $$); kill -KILL $p; exec sleep 300; fi; echo $x"#,
        dir.at("first")
    );
    let template = Template::shell(script).replies(ReplyFraming::line()).recycle_after_records(1);
    let mut feed = ["a"].into_iter().feed_subprocesses_ordered(template.via(&launcher), 1, 1);
    assert_eq!(texts(feed.by_ref()), ["a"]);
    assert_eq!(feed.monitor().snapshot().retries, 0);
    for pid in crate::kit::processes(|words| words == ["sleep", "300"]) {
        // It has left the shell whose pid was known, so that nobody else ends it.
        kill(pid);
    }
});

with_sshd!(nothing_stays_there_when_this_side_is_killed, |sshd| {
    let dir = Dir::new();
    let program = std::env::current_exe().expect("this program");
    let mut side = std::process::Command::new(program)
        .args([
            "--exact",
            "ssh::endless_feed_of_a_process_that_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env("SUBFEED_TEST_SSH_CONFIG", sshd.0.dir.path("ssh_config"))
        .env("SUBFEED_TEST_TOUCH", dir.path("streams"))
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("this program again");
    eventually("it streams", || dir.path("streams").exists());
    let far = sessions(&sshd);
    assert!(!far.is_empty());
    side.kill().expect("it is killed");
    side.wait().expect("it is reaped");
    // What reads or writes ends at once. The connection itself stays for ten seconds.
    let tools: Vec<u32> = far.into_iter().filter(|&pid| is_called(pid, "cat")).collect();
    wait_gone(&tools);
});

#[test]
#[ignore = "run by another test, which kills it"]
fn endless_feed_of_a_process_that_is_killed() {
    let Some(config) = std::env::var_os("SUBFEED_TEST_SSH_CONFIG") else { return };
    let launcher = Launcher::ssh(["node1"]).config_file(config);
    let endless = (0u64..).map(|n| n.to_string());
    let mut feed = endless.feed_subprocesses_ordered(Template::new("cat").via(launcher), 2, 100);
    for _ in 0..1_000 {
        feed.next().expect("an item").expect("a reply");
    }
    std::fs::write(std::env::var_os("SUBFEED_TEST_TOUCH").expect("a path"), "").expect("a file");
    feed.for_each(drop);
}
