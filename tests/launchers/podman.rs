//! By way of podman, in a container whose root is this machine's own.

use std::path::Path;
use std::process::{Command, Stdio};

use subfeed::{FeedExt, Launcher, Template};

use crate::common::{Dir, eventually, numbers, texts, tools, within};
use crate::kit::{processes, wait_gone};

/// A container that sleeps, removed in the end.
#[derive(Debug)]
struct Container {
    name: String,
    root: Dir,
}

impl Container {
    fn start() -> Self {
        let root = Dir::new();
        for dir in ["bin", "proc", "tmp", "etc", "dev", "sys", "run"] {
            std::fs::create_dir(root.path(dir)).expect("a folder");
        }
        let busybox = tools::which("busybox").expect("busybox");
        std::fs::copy(busybox, root.path("bin/busybox")).expect("a copy");
        for applet in ["sh", "cat", "sleep", "env", "tr", "ps"] {
            std::os::unix::fs::symlink("busybox", root.path(&format!("bin/{applet}")))
                .expect("a link");
        }
        let name = format!("subfeed-{}", std::process::id());
        let mut command = Command::new("podman");
        command.args(["--runtime", "runc", "run", "--detach", "--rm", "--name", &name]);
        command.args(["--network", "none", "--log-driver", "none"]);
        command.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--rootfs"]);
        let output =
            command.arg(root.path("")).args(["/bin/sleep", "600"]).output().expect("podman");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { name, root }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let mut command = Command::new("podman");
        command.args(["--runtime", "runc", "rm", "--force", "--time", "0", &self.name]);
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let _ = Path::new(&self.root.path("")).exists();
    }
}

#[test]
fn workers_run_in_a_container_and_none_is_left_there() {
    if !tools::here(&["podman", "runc", "busybox"]) {
        return;
    }
    within(|| {
        let container = Container::start();
        let launcher = || Launcher::podman_exec(&container.name).option("--env=PATH=/bin");
        let feed =
            numbers(2_000).feed_subprocesses_ordered(Template::new("cat").via(launcher()), 2, 100);
        assert_eq!(texts(feed), numbers(2_000).collect::<Vec<_>>());
        let template = Template::shell("read -r x; echo $A; pwd").env("A", "it's");
        let template = template.current_dir("/tmp").via(launcher());
        let template = template.replies(subfeed::framing::ReplyFraming::lines(2));
        let feed = ["x"].into_iter().feed_subprocesses_ordered(template, 1, 1);
        assert_eq!(texts(feed), ["it's\n/tmp"]);
        // The client's end leaves it there; the launcher's own command does not.
        let template = Template::shell("echo here >/tmp/mark; exec sleep 301").via(launcher());
        let feed = ["x"].into_iter().feed_subprocesses(template, 1, 1);
        let sleeps = || processes(|words| words == ["sleep", "301"]);
        eventually("it is started", || !sleeps().is_empty());
        let left = sleeps();
        drop(feed);
        wait_gone(&left);
    });
}
