//! Opening files by paths that a program gives. No open waits for another program: what is opened here is opened by the
//! thread that starts a feed, or by the event loop, on which every worker depends.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Whether a path may lead to a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pipes {
    Refused,
    /// One that somebody reads: `/dev/stderr` is often one, and so is `>(gzip > log.gz)` of a shell.
    WithReader,
}

/// Opens a file. A named pipe would keep a plain `open` waiting for its other end, so the file is opened with `O_NONBLOCK`,
/// which no rename between a look and the open can defeat; it does not stay set.
pub(crate) fn open(path: &Path, options: &OpenOptions, pipes: Pipes) -> io::Result<File> {
    let mut options = options.clone();
    let file = match options.custom_flags(OFlag::O_NONBLOCK.bits()).open(path) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => {
            return Err(refusal(path, pipes).unwrap_or(error));
        }
        Err(error) => return Err(error),
    };
    if pipes == Pipes::Refused && file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::other(NAMED_PIPE));
    }
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(file)
}

const NAMED_PIPE: &str = "it is a named pipe, which is not supported";

/// Why there is nothing behind a path that could be opened.
fn refusal(path: &Path, pipes: Pipes) -> Option<io::Error> {
    let kind = fs::metadata(path).ok()?.file_type();
    let why = match pipes {
        _ if kind.is_socket() => "it is a socket, which is not supported",
        Pipes::Refused if kind.is_fifo() => NAMED_PIPE,
        Pipes::WithReader if kind.is_fifo() => "it is a named pipe that no program reads",
        _ => return None,
    };
    Some(io::Error::other(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;

    fn temporary(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir();
        let path = path.join(format!("subfeed-files-{name}-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    fn is_blocking(file: &File) -> bool {
        let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL).unwrap());
        !flags.contains(OFlag::O_NONBLOCK)
    }

    #[test]
    fn no_open_waits_for_the_other_end_of_a_pipe() {
        let path = temporary("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let open = |options: &OpenOptions, pipes| open(&path, options, pipes);
        let (read, append) =
            (OpenOptions::new().read(true).clone(), OpenOptions::new().append(true).clone());
        for options in [&read, &append] {
            let error = open(options, Pipes::Refused).unwrap_err();
            assert_eq!(error.to_string(), NAMED_PIPE);
        }
        let error = open(&append, Pipes::WithReader).unwrap_err();
        assert!(error.to_string().contains("no program reads"), "{error}");
        let mut reader = open(&read, Pipes::WithReader).unwrap();
        let mut writer = open(&append, Pipes::WithReader).unwrap();
        assert!(is_blocking(&reader) && is_blocking(&writer));
        writer.write_all(b"x").unwrap();
        reader.read_exact(&mut [0]).unwrap();
        assert_eq!(open(&append, Pipes::Refused).unwrap_err().to_string(), NAMED_PIPE);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_is_opened_as_asked_and_what_is_missing_is_the_systems_error() {
        let path = temporary("file");
        let error = open(&path, OpenOptions::new().read(true), Pipes::Refused).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let file = open(&path, OpenOptions::new().append(true).create(true), Pipes::Refused);
        assert!(is_blocking(&file.unwrap()));
        fs::remove_file(&path).unwrap();
        let _socket = UnixListener::bind(&path).unwrap();
        let error = open(&path, OpenOptions::new().append(true), Pipes::WithReader).unwrap_err();
        assert!(error.to_string().contains("socket"), "{error}");
        fs::remove_file(&path).unwrap();
    }
}
