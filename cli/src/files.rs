//! Which file a path leads to: two spellings, a symbolic link and a hard link may all lead to one.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::options::Run;
use crate::streams::Stream;

/// No more symbolic links are followed to a file that does not exist: so many the system follows too.
const LINKS: usize = 40;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A file that exists, by its device and inode.
    There(u64, u64),
    /// The path of a file that does not exist, without symbolic links.
    Absent(PathBuf),
}

impl Place {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self::There(metadata.dev(), metadata.ino())
    }

    /// Where it cannot be found out, opening the file fails too.
    fn at(path: &Path) -> Option<Self> {
        if let Ok(metadata) = fs::metadata(path) {
            return Some(Self::of(&metadata));
        }
        let mut path = path.to_owned();
        for _ in 0..LINKS {
            let folder = match path.parent()? {
                folder if folder.as_os_str().is_empty() => Path::new("."),
                folder => folder,
            };
            match fs::read_link(&path) {
                Ok(target) => path = folder.join(target),
                Err(_) => {
                    return Some(Self::Absent(folder.canonicalize().ok()?.join(path.file_name()?)));
                }
            }
        }
        None
    }
}

/// Two options with one file, or an option with a file that is a standard stream.
pub(crate) fn shared(run: &Run) -> Option<String> {
    let options = [
        ("--joblog", &run.joblog),
        ("--checkpoint", &run.checkpoint),
        ("--timeline", &run.timeline),
    ];
    let mut seen = Vec::new();
    for (name, stream) in [
        ("standard input", Stream::stdin()),
        ("standard output", Stream::stdout()),
        ("standard error", Ok(Stream::stderr())),
    ] {
        // A terminal or a pipe loses nothing by what another one writes to it.
        seen.extend(stream.ok().and_then(|stream| stream.place()).map(|place| (name, place)));
    }
    for (option, path) in options {
        let Some(path) = path else { continue };
        let Some(place) = Place::at(path) else { continue };
        if let Some((other, _)) = seen.iter().find(|(_, other)| *other == place) {
            let path = path.display();
            return Some(format!(
                "the file `{path}` of {option} is also that of {other}: each needs its own"
            ));
        }
        seen.push((option, place));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_known_by_each_of_its_names() {
        let dir = std::env::temp_dir().join(format!("subfeed-files-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("sub")).unwrap();
        let at = |name: &str| Place::at(&dir.join(name)).unwrap();
        symlink(dir.join("sub"), dir.join("folder")).unwrap();
        symlink("sub/new", dir.join("link")).unwrap();
        symlink("link", dir.join("link-to-link")).unwrap();
        symlink("round", dir.join("round")).unwrap();
        for name in ["sub/../sub/new", "./sub/new", "folder/new", "link", "link-to-link"] {
            assert_eq!(at("sub/new"), at(name), "{name}");
        }
        assert_ne!(at("sub/new"), at("new"));
        fs::write(dir.join("sub/new"), "").unwrap();
        fs::hard_link(dir.join("sub/new"), dir.join("hard")).unwrap();
        for name in ["sub/../sub/new", "folder/new", "link", "link-to-link", "hard"] {
            assert_eq!(at("sub/new"), at(name), "{name}");
        }
        assert_eq!(Place::at(&dir.join("round")), None);
        assert_eq!(Place::at(&dir.join("no/such/folder")), None);
        assert_eq!(Place::at(Path::new("x")), Place::at(Path::new("./x")));
        fs::remove_dir_all(&dir).unwrap();
    }
}
