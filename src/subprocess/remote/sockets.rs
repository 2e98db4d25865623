//! The folder in which the connections that workers share have their sockets.
//!
//! A user who can write to such a socket can run commands on the other machine. So the folder is ours alone (0700), has a
//! name that nobody can foresee, and must not exist before.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::subprocess::remote::errand;
use crate::template::Spec;
use crate::template::launcher::script::fresh_mark;

/// What a path of a socket may have at most, with the NUL behind it.
const LONGEST: usize = 104;

/// What ssh appends to the path while it makes the socket.
const APPENDED: usize = 17;

/// Room for the name of a socket: `/99999-9999`.
const NAME: usize = 11;

/// How long the connections may take to end. They end by themselves when they have been idle for a while.
const END_WITHIN: Duration = Duration::from_millis(300);

/// See the [module](self). When it is dropped the connections are ended and the folder is removed.
#[derive(Debug)]
pub(crate) struct Sockets {
    dir: PathBuf,
    spec: Arc<Spec>,
}

impl Sockets {
    /// Makes the folder.
    pub(crate) fn new(spec: &Arc<Spec>) -> Result<Self, Error> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let bases = runtime.filter(|dir| dir.is_absolute() && dir.is_dir());
        let mut failed = None;
        for base in bases.into_iter().chain([std::env::temp_dir()]) {
            match make(&base) {
                Ok(dir) => return Ok(Self { dir, spec: Arc::clone(spec) }),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| Error::config("there is no folder for the sockets of ssh")))
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

fn make(base: &Path) -> Result<PathBuf, Error> {
    let name = fresh_mark();
    let dir = base.join(OsString::from(&name[..16]));
    if dir.as_os_str().as_bytes().len() + NAME + APPENDED >= LONGEST {
        return Err(Error::config(format!(
            "the folder for the sockets of ssh would be {}, and a socket's path has {LONGEST} bytes at most",
            dir.display()
        ))
        .hint("set XDG_RUNTIME_DIR or TMPDIR to a shorter one, or do without: Launcher::option(\"ControlMaster=no\")"));
    }
    DirBuilder::new().mode(0o700).create(&dir).map_err(|error| {
        let message = format!("the folder {} for the sockets of ssh cannot be made", dir.display());
        Error::new(ErrorKind::Spawn, message).because(error)
    })?;
    Ok(dir)
}

impl Drop for Sockets {
    fn drop(&mut self) {
        let is_empty = fs::read_dir(&self.dir).is_ok_and(|mut entries| entries.next().is_none());
        if !is_empty {
            errand::run_all(&self.spec.farewells(&self.dir), END_WITHIN);
        }
        // A connection that is still ending removes its socket itself; then only an empty folder stays.
        if let Err(error) = fs::remove_dir_all(&self.dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_ours_alone_new_and_short_enough() {
        use std::os::unix::fs::PermissionsExt;
        let dir = make(&std::env::temp_dir()).unwrap();
        let mode = fs::metadata(&dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_ne!(
            make(&std::env::temp_dir())
                .map(|other| fs::remove_dir(&other).map(|()| other))
                .unwrap()
                .unwrap(),
            dir
        );
        fs::remove_dir(&dir).unwrap();
        let long = make(&Path::new("/tmp").join("x".repeat(80))).unwrap_err().to_string();
        assert!(long.contains("TMPDIR") && long.contains("xxx"), "{long}");
    }
}
