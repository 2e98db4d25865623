//! What cannot work, one by one: the error names the host and says what its launcher said.

use std::path::Path;

use subfeed::{Error, ErrorKind, Host, Launcher, Template};

use crate::common::{Dir, again, within};
use crate::kit::{Sshd, expect, only_error};
use crate::with_sshd;

/// A host of the daemon's that is never reached.
#[track_caller]
fn unreachable(sshd: &Sshd, host: &str, says: &str) {
    let error = only_error(sshd.cat(&[host]).give_up_after(2));
    expect(&error, ErrorKind::Transport, &[host, "no host can be reached", says]);
}

with_sshd!(a_host_that_nobody_knows, |sshd| {
    unreachable(&sshd, "nowhere", "does-not-exist.invalid");
});

with_sshd!(a_host_where_nobody_listens, |sshd| {
    unreachable(&sshd, "closed", "Connection refused");
});

with_sshd!(a_key_that_is_not_known_there, |sshd| {
    unreachable(&sshd, "stranger", "Permission denied");
});

with_sshd!(a_host_key_that_has_changed, |sshd| {
    unreachable(&sshd, "changed", "Host key verification failed");
});

with_sshd!(a_login_that_prints_without_an_end, |sshd| {
    let error = only_error(sshd.cat(&["endless"]).give_up_after(2));
    let says = ["endless", "prints without an end", "nothing but a banner"];
    expect(&error, ErrorKind::Transport, &says);
});

with_sshd!(a_tool_that_is_missing_there, |sshd| {
    let template = Template::new("no-such-tool").via(sshd.launcher(&["node1"]));
    expect(&only_error(template), ErrorKind::Died, &["no-such-tool", "not found", "node1"]);
});

with_sshd!(a_disk_that_is_full_there, |sshd| {
    let template = Template::shell("cat >/dev/full; exit 7").via(sshd.launcher(&["node1"]));
    let says = ["exit status: 7", "No space left", "node1"];
    expect(&only_error(template), ErrorKind::Died, &says);
});

#[test]
fn no_sh_there() {
    within(|| {
        let no_sh = Launcher::remote(["env", "-i", "PATH=/nowhere", "/usr/bin/env"]);
        let template = Template::new("cat").give_up_after(2).via(no_sh.hosts(["bare"]));
        expect(&only_error(template), ErrorKind::Transport, &["bare", "No such file"]);
    });
}

#[test]
fn a_launcher_that_is_not_here() {
    within(|| {
        let missing = Launcher::remote(["no-such-launcher", "{host}"]).hosts(["a"]);
        let says = ["no-such-launcher, which is to run it, was not found"];
        expect(&only_error(Template::new("cat").via(missing)), ErrorKind::Spawn, &says);
    });
}

/// Runs a test again where the environment is so. `true` if this is there.
#[track_caller]
fn in_environment(name: &str, environment: &[(&str, &Path)]) -> bool {
    const MARK: &str = "SUBFEED_TEST_ENVIRONMENT";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let passed = again(&format!("bad_input::{name}"), |command| {
        command.env(MARK, "1").envs(environment.iter().copied());
    });
    passed.unwrap_or_else(|said| panic!("{said}"));
    false
}

#[test]
fn no_ssh_here() {
    let empty = Dir::new();
    if in_environment("no_ssh_here", &[("PATH", &empty.path(""))]) {
        within(|| {
            let template = Template::new("cat").via(Launcher::ssh(["node1"]));
            let says = ["ssh, which is to run it, was not found"];
            expect(&only_error(template), ErrorKind::Spawn, &says);
        });
    }
}

#[test]
fn no_srun_here() {
    let empty = Dir::new();
    if in_environment("no_srun_here", &[("PATH", &empty.path(""))]) {
        within(|| {
            let template = Template::new("cat").via(Launcher::srun().hosts(["n1"]));
            let says = ["srun, which is to run it, was not found"];
            expect(&only_error(template), ErrorKind::Spawn, &says);
        });
    }
}

#[test]
fn a_folder_for_sockets_whose_path_is_too_long() {
    let dir = Dir::new();
    let long = dir.path(&"x".repeat(90));
    std::fs::create_dir(&long).expect("a folder");
    let name = "a_folder_for_sockets_whose_path_is_too_long";
    if in_environment(name, &[("TMPDIR", &long), ("XDG_RUNTIME_DIR", &long)]) {
        within(|| {
            let template = Template::new("cat").via(Launcher::ssh(["node1"]));
            let says = ["xxx", "104 bytes at most", "XDG_RUNTIME_DIR", "ControlMaster=no"];
            expect(&only_error(template), ErrorKind::Config, &says);
        });
    }
}

#[track_caller]
fn refused(launcher: Launcher, says: &[&str]) {
    let error: Error = only_error(Template::new("cat").via(launcher));
    assert!(error.is_fatal());
    expect(&error, ErrorKind::Config, says);
}

#[test]
fn a_host_that_is_listed_twice() {
    within(|| {
        refused(Launcher::ssh(["node1", "node2", "node1"]), &["node1 is listed twice", "weight"])
    });
}

#[test]
fn a_host_without_weight() {
    within(|| refused(Launcher::ssh([Host::new("node1").weight(0)]), &["node1 has weight 0"]));
}

#[test]
fn srun_outside_of_an_allocation() {
    within(|| refused(Launcher::srun(), &["salloc", "sbatch"]));
}
