//! The `sh` that says hello and goodbye around an unmodified tool, and those that look at it and kill it.
//!
//! A launcher's own exit status proves nothing: `ssh` ends with 255 for reasons of its own, `srun` with 0 when its node
//! is gone. So the tool runs under a `sh` that prints two lines of its own, each behind a byte that
//! text does not have: the hello, with its pid, before the tool starts, and the goodbye, with the tool's
//! status, when it has ended. What comes before the hello is noise of the login; a stream without a goodbye is
//! truncated.
//!
//! ```text
//! GS mark SP pid LF           hello
//! GS mark SP end SP status LF goodbye
//! ```

use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use crate::template::launcher::words::quoted;

/// The byte (GS) before each mark.
pub(crate) const GS: u8 = 0x1d;

/// A mark that was never used before: letters.
pub(crate) fn fresh_mark() -> Arc<str> {
    let mut text = String::from("subfeed");
    for _ in 0..2 {
        // Each `RandomState` differs from the last.
        let mut random = RandomState::new().build_hasher().finish();
        for _ in 0..10 {
            text.push(char::from(b'a' + (random % 26) as u8));
            random /= 26;
        }
    }
    text.into()
}

/// What the script does between hello and tool.
#[derive(Debug, Default)]
pub(crate) struct Setting<'a> {
    /// Start from an empty environment.
    pub(crate) clear: bool,
    /// Variables to set, or to remove.
    pub(crate) variables: Vec<(&'a OsStr, Option<OsString>)>,
    pub(crate) dir: Option<OsString>,
    /// Hello and goodbye go to stderr, because stdout leads elsewhere.
    pub(crate) on_stderr: bool,
    /// The variables come on stdin, as one line, so that no process list shows them.
    pub(crate) on_stdin: bool,
}

impl Setting<'_> {
    /// The commands that set the variables.
    fn exports(&self) -> Vec<u8> {
        let mut commands = Vec::new();
        for (name, value) in &self.variables {
            if !commands.is_empty() {
                commands.extend_from_slice(b" && ");
            }
            match value {
                Some(value) => {
                    commands.extend_from_slice(b"export ");
                    commands.extend_from_slice(name.as_bytes());
                    commands.push(b'=');
                    commands.extend_from_slice(&quoted(value.as_bytes()));
                }
                None => {
                    commands.extend_from_slice(b"unset ");
                    commands.extend_from_slice(name.as_bytes());
                }
            }
        }
        commands
    }

    /// The line that is to be written to stdin before anything else, if there is one.
    pub(crate) fn line(&self) -> Option<Vec<u8>> {
        let on_stdin = self.on_stdin && !self.variables.is_empty();
        on_stdin.then(|| [&super::words::octal(&self.exports())[..], b"\n"].concat())
    }

    /// The words that run these words under the script.
    pub(crate) fn wrap(&self, mark: &str, tool: Vec<OsString>) -> Vec<OsString> {
        let to = if self.on_stderr { " >&2" } else { "" };
        let mut script =
            format!("m=$1; shift\nprintf '\\035%s %s\\n' \"$m\" \"$$\"{to}\n").into_bytes();
        if self.on_stdin && !self.variables.is_empty() {
            script.extend_from_slice(br#"IFS= read -r s && eval "$(printf %b "$s")" && "#);
        } else if !self.variables.is_empty() {
            script.extend_from_slice(&self.exports());
            script.extend_from_slice(b" && ");
        }
        if let Some(dir) = &self.dir {
            script.extend_from_slice(b"CDPATH= cd ");
            script.extend_from_slice(&quoted(&as_path(dir)));
            script.extend_from_slice(b" && ");
        }
        script.extend_from_slice(b"\"$@\"\n");
        let end = format!("printf '\\035%s end %s\\n' \"$m\" \"$?\"{to}\n");
        script.extend_from_slice(end.as_bytes());
        let mut words: Vec<OsString> = if self.clear {
            ["env", "-i", "sh", "-c"].map(Into::into).into()
        } else {
            ["sh", "-c"].map(Into::into).into()
        };
        words.push(OsString::from_vec(script));
        // In whose name the shell complains, then what is before hello and goodbye.
        words.extend(["sh".into(), mark.into()]);
        words.extend(tool);
        words
    }
}

/// A path that `cd` takes for one, whatever it begins with.
fn as_path(dir: &OsStr) -> Vec<u8> {
    let absolute = Path::new(dir).is_absolute();
    [if absolute { &b""[..] } else { b"./" }, dir.as_bytes()].concat()
}

/// Says whether the process of a hello is still there: only one that has the mark among its words is it.
pub(crate) const LOOK: &str = r#"
{ a=$(tr '\000' ' ' <"/proc/$1/cmdline") || a=$(ps -ww -o args= -p "$1"); } 2>/dev/null
case $a in *"$0"*) s=there;; *) s=gone;; esac
printf '\035%s %s\n' "$0" "$s"
"#;

/// Kills the process of a hello with its group, or with its children where it leads none.
pub(crate) const KILL: &str = r#"
{ a=$(tr '\000' ' ' <"/proc/$1/cmdline") || a=$(ps -ww -o args= -p "$1"); } 2>/dev/null
case $a in *"$0"*) ;; *) printf '\035%s gone\n' "$0"; exit;; esac
k=$(ps -A -o pid= -o ppid= 2>/dev/null | while read -r p q; do [ "$q" = "$1" ] && printf '%s ' "$p"; done)
kill -KILL "-$1" 2>/dev/null || kill -KILL "$1" $k 2>/dev/null
printf '\035%s killed\n' "$0"
"#;

/// The words of an errand: a script about the process of a hello.
pub(crate) fn errand(script: &str, mark: &str, pid: u32) -> Vec<OsString> {
    ["sh".into(), "-c".into(), script.into(), mark.into(), pid.to_string().into()].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::process::{Command, Output, Stdio};

    use bstr::ByteSlice;

    const MARK: &str = "subfeedmark";

    /// Runs it, and gives its stdout with the pid as `PID`.
    fn run(setting: &Setting<'_>, tool: &[&str], stdin: &[u8]) -> (String, Output) {
        use std::io::Write;
        let words = setting.wrap(MARK, tool.iter().map(Into::into).collect());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env("INHERITED", "yes");
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(&[&setting.line().unwrap_or_default()[..], stdin].concat()).unwrap();
        drop(pipe);
        let pid = child.id().to_string();
        let output = child.wait_with_output().unwrap();
        (output.stdout.to_str().unwrap().replace(&pid, "PID"), output)
    }

    #[test]
    fn the_tool_stands_between_hello_and_goodbye() {
        let (said, _) = run(&Setting::default(), &["cat"], b"half a reply");
        assert_eq!(said, "\u{1d}subfeedmark PID\nhalf a reply\u{1d}subfeedmark end 0\n");
        let (said, _) = run(&Setting::default(), &["sh", "-c", "kill -9 $$"], b"");
        assert!(said.ends_with("\u{1d}subfeedmark end 137\n"), "{said}");
        let (said, output) = run(&Setting::default(), &["no-such-tool"], b"");
        assert!(said.ends_with("end 127\n") && output.stderr.contains_str("no-such-tool"));
        let on_stderr = Setting { on_stderr: true, ..Setting::default() };
        let (said, output) = run(&on_stderr, &["cat"], b"x");
        assert_eq!(said, "x");
        assert_eq!(output.stderr.matches_str("\u{1d}subfeedmark").count(), 2);
    }

    /// What iterators of matches are in `bstr`.
    trait Matches {
        fn matches_str<'a>(&'a self, what: &'a str) -> impl Iterator<Item = usize> + 'a;
    }

    impl Matches for Vec<u8> {
        fn matches_str<'a>(&'a self, what: &'a str) -> impl Iterator<Item = usize> + 'a {
            self.find_iter(what)
        }
    }

    #[test]
    fn the_environment_and_the_directory_are_set_with_every_byte_in_them() {
        let every = OsString::from_vec((1..=255).collect());
        for on_stdin in [false, true] {
            let setting = Setting {
                variables: vec![
                    (OsStr::new("EVERY"), Some(every.clone())),
                    (OsStr::new("INHERITED"), None),
                    (OsStr::new("LAST"), Some("a\n".into())),
                ],
                dir: Some("/tmp".into()),
                on_stdin,
                ..Setting::default()
            };
            let tool =
                ["sh", "-c", r#"printf '%s|%s|%s|' "$EVERY" "$INHERITED" "$LAST"; pwd; cat"#];
            let words = setting.wrap(MARK, tool.iter().map(Into::into).collect());
            assert_eq!(setting.line().is_some(), on_stdin);
            // What comes on stdin is not to be seen among the words.
            let visible = words[2].as_bytes().contains_str("LAST");
            assert_eq!(visible, !on_stdin);
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).env("INHERITED", "yes");
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            use std::io::Write;
            stdin.write_all(&setting.line().unwrap_or_default()).unwrap();
            stdin.write_all(b"rest").unwrap();
            drop(stdin);
            let output = child.wait_with_output().unwrap().stdout;
            let expected = [every.as_bytes(), b"||a\n|/tmp\nrest"].concat();
            assert!(output.contains_str(&expected), "{:?}", output.as_bstr());
        }
    }

    #[test]
    fn a_cleared_environment_has_what_is_set_alone() {
        let setting = Setting {
            clear: true,
            variables: vec![(OsStr::new("ONE"), Some("1".into()))],
            on_stdin: true,
            ..Setting::default()
        };
        let (said, _) = run(&setting, &["sh", "-c", "echo \"$ONE-$INHERITED-$HOME\""], b"");
        assert!(said.contains("\n1--\n"), "{said}");
    }

    #[test]
    fn only_the_process_with_the_mark_is_looked_at_and_killed() {
        use std::os::unix::process::CommandExt;
        let run = |script: &str, pid: u32| {
            let words = errand(script, MARK, pid);
            let output = Command::new(&words[0]).args(&words[1..]).output().unwrap();
            output.stdout.to_str().unwrap().trim().replace("\u{1d}subfeedmark ", "")
        };
        for leads in [true, false] {
            let words = Setting::default().wrap(MARK, ["cat".into()].into());
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
            if leads {
                command.process_group(0);
            }
            let mut child = command.spawn().unwrap();
            // Until it has said hello.
            let mut hello = [0];
            std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut hello).unwrap();
            assert_eq!(run(LOOK, child.id()), "there");
            assert_eq!(run(LOOK, std::process::id()), "gone");
            assert_eq!(run(KILL, std::process::id()), "gone");
            assert_eq!(run(KILL, child.id()), "killed");
            // The tool is gone as well: it would hold the pipe.
            std::io::Read::read_to_end(child.stdout.as_mut().unwrap(), &mut Vec::new()).unwrap();
            // It is a zombie.
            assert_eq!(run(LOOK, child.id()), "gone");
            child.wait().unwrap();
        }
    }
}
