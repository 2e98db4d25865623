//! Wrong configurations and commands that cannot run: one clear, fatal error, and nothing is started.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use subfeed::{Error, ErrorKind, FeedExt, Template};

use crate::common::{Dir, Pulled, child, numbers, texts, within};

/// The only item of a feed from this template is a fatal error of this kind that says this.
#[track_caller]
fn refused(template: Template, kind: ErrorKind, says: &[&str]) -> Error {
    let pulled = Pulled::default();
    let gate = crate::common::Barrier::default();
    let wait = gate.clone();
    // Nothing is pulled: the source waits until the error has been seen.
    let source = pulled.numbers().inspect(move |_| wait.pass());
    let mut feed = source.feed_subprocesses_ordered(template, 2, 8);
    let error = feed.next().expect("an item").expect_err("an error");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.is_fatal() && error.packet().is_none(), "{error}");
    for word in says {
        assert!(error.to_string().contains(word), "no {word:?} in: {error}");
    }
    assert!(feed.next().is_none() && feed.next().is_none());
    gate.open();
    error
}

#[test]
fn no_workers_is_an_error() {
    within(|| {
        let mut feed = numbers(3).feed_subprocesses_ordered(Template::new("cat"), 0, 8);
        let error = feed.next().unwrap().unwrap_err();
        assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::Config, true));
        assert!(error.to_string().contains("at least one worker"), "{error}");
        assert!(feed.next().is_none());
    });
}

#[test]
fn no_room_is_an_error() {
    within(|| {
        let mut feed = numbers(3).feed_subprocesses(Template::new("cat"), 2, 0);
        let error = feed.next().unwrap().unwrap_err();
        assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::Config, true));
        assert!(error.to_string().contains("buffer_size is 0"), "{error}");
        assert!(feed.next().is_none());
        let mut blocks = numbers(3).feed(Template::new("cat")).buffer(0).blocks();
        assert!(blocks.next().unwrap().is_err());
        assert!(blocks.next().is_none());
    });
}

#[test]
fn a_command_that_is_not_found_is_named() {
    within(|| {
        for name in ["no-such-program", "/no/such/program", "./no-such-program"] {
            let error =
                refused(Template::new(name).arg("-x"), ErrorKind::Spawn, &[name, "not found"]);
            assert_eq!(error.command(), Some(&*format!("{name} -x")));
        }
        refused(Template::new(""), ErrorKind::Config, &["empty"]);
    });
}

#[test]
fn a_command_that_is_not_executable_is_named() {
    within(|| {
        let dir = Dir::new();
        fs::write(dir.path("tool"), "#!/bin/sh\ncat\n").unwrap();
        fs::set_permissions(dir.path("tool"), fs::Permissions::from_mode(0o644)).unwrap();
        refused(
            Template::new(dir.path("tool")),
            ErrorKind::Spawn,
            &[&dir.at("tool"), "not executable"],
        );
    });
}

#[test]
fn a_directory_is_no_command() {
    within(|| {
        let dir = Dir::new();
        refused(Template::new(dir.path("")), ErrorKind::Spawn, &[&dir.at(""), "is a directory"]);
    });
}

#[test]
fn a_script_without_an_interpreter_is_a_clear_error() {
    within(|| {
        let dir = Dir::new();
        fs::write(dir.path("tool"), "#!/no/such/interpreter\n").unwrap();
        fs::set_permissions(dir.path("tool"), fs::Permissions::from_mode(0o755)).unwrap();
        let says = [&*dir.at("tool"), "interpreter"];
        refused(Template::new(dir.path("tool")), ErrorKind::Spawn, &says);
    });
}

#[test]
fn a_command_line_in_the_place_of_a_program_is_told_where_it_belongs() {
    within(|| {
        let not_found =
            |program: &str, fix| refused(Template::new(program), ErrorKind::Spawn, &[fix]);
        for line in ["sort -n", "cat | tr a b", "echo hi"] {
            let error = not_found(line, "Template::shell");
            assert!(error.to_string().contains("Template::arg"), "{error}");
        }
        not_found("~/bin/tool", "no shell expands");
        not_found("$HOME/bin/tool", "no shell expands");
        not_found("no-such-program", "in PATH");
    });
}

#[test]
fn a_nul_byte_is_found_wherever_it_is() {
    within(|| {
        let nul = &["NUL byte"];
        refused(Template::new("c\0at"), ErrorKind::Config, nul);
        refused(Template::new("cat").arg("a\0b"), ErrorKind::Config, &["NUL byte", "argument 1"]);
        refused(Template::new("cat").raw_arg("a\0b"), ErrorKind::Config, nul);
        refused(Template::new("cat").env("A", "a\0b"), ErrorKind::Config, nul);
        refused(Template::new("cat").env("A\0", "b"), ErrorKind::Config, nul);
        refused(Template::new("cat").env("A=B", "b"), ErrorKind::Config, &["A=B"]);
        refused(Template::new("cat").current_dir("a\0b"), ErrorKind::Config, nul);
        refused(Template::shell("cat\0"), ErrorKind::Config, nul);
    });
}

#[test]
fn an_undeclared_side_channel_is_named() {
    within(|| {
        let says = &["{fd:mask}", "not declared"];
        refused(Template::new("cat").arg("{fd:mask}"), ErrorKind::Config, says);
        refused(Template::new("cat").args(["a", "--m={fd:mask}"]), ErrorKind::Config, says);
        refused(Template::new("cat").env("MASK", "{fd:mask}"), ErrorKind::Config, says);
        refused(Template::new("cat").current_dir("/{fd:mask}"), ErrorKind::Config, says);
        refused(Template::new("{fd:mask}"), ErrorKind::Config, says);
        refused(Template::shell("cat {fd:mask}"), ErrorKind::Config, says);
    });
}

#[test]
fn a_missing_working_directory_is_named() {
    within(|| {
        let dir = Dir::new();
        fs::write(dir.path("file"), "").unwrap();
        for (name, what) in [("missing", "does not exist"), ("file", "is no directory")] {
            let template = Template::new("cat").current_dir(dir.path(name));
            refused(template, ErrorKind::Spawn, &[&dir.at(name), "working directory", what]);
        }
    });
}

#[test]
fn items_pulled_meanwhile_are_halted_and_one_has_the_reason() {
    within(|| {
        let feed =
            numbers(1_000).feed_subprocesses_ordered(Template::new("no-such-program"), 3, 50);
        let errors: Vec<_> = feed.map(Result::unwrap_err).collect();
        assert!(errors.iter().all(Error::is_fatal) && errors.len() <= 51);
        let causes = errors.iter().filter(|error| error.kind() == ErrorKind::Spawn).count();
        assert_eq!(causes, 1);
    });
}

#[test]
fn tokens_are_replaced_and_every_other_brace_is_literal() {
    within(|| {
        let args = ["{id}", "{{id}}", "a{id}b", "{print}", "{a: .b}", "{", "}", "{{}}", "{ id }"];
        let template = child("about").args(args).raw_arg("{id}").env("WORKER", "w{id}");
        let reply = &texts(["WORKER"].into_iter().feed_subprocesses_ordered(template, 1, 8))[0];
        let words: Vec<_> = reply.split('|').collect();
        assert_eq!(words[0], "w0");
        assert_eq!(words[1], "0,{id},a0b,{print},{a: .b},{,},{{}},{ id },{id}");
    });
}

#[test]
fn a_program_of_awk_or_jq_needs_no_escapes() {
    within(|| {
        // `fflush` is every awk's way to answer at once.
        let template = Template::new("awk").arg("{print $1 + 1; fflush()}");
        let feed = numbers(5).feed_subprocesses_ordered(template, 1, 100);
        assert_eq!(texts(feed), ["1", "2", "3", "4", "5"]);
    });
}

#[test]
fn no_shell_looks_at_the_arguments() {
    within(|| {
        let args = ["$HOME", "`id`", "*", "a b", "; exit 1", "'", "\"", "\\", "", "-n", "~"];
        let template = child("about").args(args);
        let reply = &texts(["X"].into_iter().feed_subprocesses_ordered(template, 1, 8))[0];
        assert_eq!(reply.split('|').nth(1).unwrap(), args.join(","));
    });
}

#[test]
fn the_environment_is_inherited_set_removed_and_cleared() {
    within(|| {
        let ask = |template: Template, name: &'static str| {
            let reply =
                texts([name].into_iter().feed_subprocesses_ordered(template, 1, 8)).remove(0);
            reply.split('|').next().unwrap().to_owned()
        };
        let path = std::env::var("PATH").unwrap();
        assert_eq!(ask(child("about"), "PATH"), path);
        assert_eq!(ask(child("about").env("PATH", "/nowhere"), "PATH"), "/nowhere");
        assert_eq!(ask(child("about").env_remove("PATH"), "PATH"), "(unset)");
        assert_eq!(ask(child("about").env_clear(), "PATH"), "(unset)");
        assert_eq!(ask(child("about").env_clear().env("A", "1"), "A"), "1");
        assert_eq!(ask(child("about").env("A", "1").env("A", "2"), "A"), "2");
    });
}

#[test]
fn workers_may_have_a_directory_each() {
    within(|| {
        let dir = Dir::new();
        for k in 0..3 {
            fs::create_dir(dir.path(&k.to_string())).unwrap();
        }
        let template = child("about").current_dir(dir.path("{id}"));
        for reply in texts(numbers(9).feed_subprocesses_ordered(template, 3, 9)) {
            let at = reply.split('|').nth(2).unwrap();
            assert!((0..3).any(|k| at == dir.at(&k.to_string())), "{at}");
        }
    });
}
