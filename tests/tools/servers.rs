//! Clients of servers: a private PostgreSQL and a private Redis, each on a socket in a directory of the
//! test's own.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use subfeed::ErrorKind;

use crate::common::eventually;
use crate::harness::{here, say, tool};

/// A directory that another user may enter, whose name is short enough for a socket's.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("subfeed-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn at(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a path of text").to_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server that ends when this is dropped, and also when this process dies.
struct Server {
    child: Child,
    _place: Place,
}

impl Server {
    fn start(place: Place, argv: &[String]) -> Self {
        // The pipe closes whatever happens to us.
        let script = "\"$@\" & server=$!; read -r _; kill $server; wait $server";
        let child = Command::new("sh")
            .args(["-c", script, "sh"])
            .args(argv)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a server");
        Self { child, _place: place }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.child.stdin.take() {
            let _ = stdin.write_all(b"\n");
        }
        let _ = self.child.wait();
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn redis_cli() {
    if !here(&["redis-server", "redis-cli"]) {
        return;
    }
    let place = Place::new("redis");
    let socket = place.at("s");
    let argv = words(&["redis-server", "--port", "0", "--unixsocket", &socket, "--save", ""]);
    let _server = Server::start(place, &argv);
    eventually("redis answers", || UnixStream::connect(&socket).is_ok());
    let list = (0..50).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
    for setup in [format!("RPUSH list {list}"), "SET empty \"\"".into(), "SET key value".into()] {
        say(&["redis-cli", "-s", &socket], &Default::default(), setup.as_bytes());
    }
    let Some(cli) = tool(&["redis-cli", "-s", &socket]) else { return };
    cli.sentinel("EVAL \"return ARGV[1]..ARGV[2]\" 0 {mark1} {mark2}")
        .requests(["GET key", "GET empty", "GET no_such", "LRANGE list 0 -1", "LRANGE list 5 4"])
        .requests([
            "NO_SUCH",
            "GET",
            "ECHO \"two\\nlines\"",
            "ECHO na\u{ef}ve",
            "ECHO \"\\xff\\xfe\"",
            "PING",
        ])
        .requests((0..20).map(|n| format!("LINDEX list {n}")))
        .run();
}

/// Runs a program as somebody whom PostgreSQL accepts: it refuses root.
fn as_postgres(argv: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    if nix::unistd::geteuid().is_root() {
        all = words(&["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]);
    }
    all.extend(words(argv));
    all
}

#[test]
fn psql() {
    if !here(&["psql"]) {
        return;
    }
    let bin = Command::new("pg_config").arg("--bindir").output();
    let bin = bin.ok().and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    let newest = || {
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
        versions.flatten().map(|entry| entry.path().join("bin")).max()
    };
    let bins = [Some(PathBuf::from(bin.trim())), newest()];
    let Some(bin) = bins.into_iter().flatten().find(|bin| bin.join("initdb").is_file()) else {
        assert!(!here(&["initdb"]), "initdb is in PATH, but pg_config does not know it");
        return;
    };
    let place = Place::new("postgres");
    if nix::unistd::geteuid().is_root() {
        let user =
            nix::unistd::User::from_name("postgres").ok().flatten().expect("a user postgres");
        nix::unistd::chown(&place.0, Some(user.uid), Some(user.gid)).expect("chown");
    }
    let (data, sockets) = (place.at("data"), place.0.to_str().expect("text").to_owned());
    let program = |name: &str| bin.join(name).to_str().expect("text").to_owned();
    let initdb = as_postgres(&[
        &program("initdb"),
        "--no-sync",
        "-A",
        "trust",
        "-U",
        "postgres",
        "-E",
        "UTF8",
        "--locale=C",
        "-D",
        &data,
    ]);
    let made =
        Command::new(&initdb[0]).args(&initdb[1..]).current_dir("/").output().expect("initdb");
    assert!(made.status.success(), "{made:?}");
    let server = as_postgres(&[
        &program("postgres"),
        "-F",
        "-c",
        "listen_addresses=",
        "-k",
        &sockets,
        "-D",
        &data,
    ]);
    let _server = Server::start(place, &server);
    let client = ["psql", "-X", "-A", "-t", "-q", "-h", &sockets, "-U", "postgres"];
    let socket = Path::new(&sockets).join(".s.PGSQL.5432");
    eventually("PostgreSQL answers", || {
        socket.exists() && !say(&client, &Default::default(), b"SELECT 1;\n").is_empty()
    });
    let Some(psql) = tool(&client) else { return };
    psql.sentinel("\\echo {mark1}'{mark2}'")
        .requests((0..12).map(|n| format!("SELECT {n} * {n}, 'row {n}';")))
        .requests([
            "SELECT 1 WHERE false;",
            "",
            "-- comment",
            "SELECT generate_series(1, 300);",
            "SELECT E'two\\nlines', '';",
        ])
        .requests([
            "SELECT no_such;",
            "SELEC;",
            "SELECT 1; SELECT 2;",
            "SELECT 'na\u{ef}ve';",
            "\\no_such",
        ])
        .requests([b"SELECT '\xff\xfe';"])
        .fails("SELECT 'never closed", &[ErrorKind::Died, ErrorKind::Reply])
        .run();
}
