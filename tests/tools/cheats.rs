//! Tools that do not answer each line with a line, framed by lines as if they did. None of them may ever
//! put a reply where it does not belong: either the feed ends in an error that names the numbers, or the
//! results are complete.

use bstr::BString;
use subfeed::{Error, ErrorKind, FeedExt, Template};

use crate::common::within;

type Replies = Vec<Result<BString, Error>>;

/// All that comes of asking a tool these lines, with 4 workers.
fn ask(template: Template, requests: &[String]) -> Replies {
    let requests = requests.to_vec();
    within(move || requests.into_iter().feed_subprocesses_ordered(template, 4, 500).collect())
}

/// Every item is there, each good reply is `right`, and one error says that the numbers are wrong.
#[track_caller]
fn ends_in_a_wrong_count(
    requests: &[String],
    replies: Replies,
    right: impl Fn(&str, &BString) -> bool,
) {
    let mut counted = 0;
    for (k, (request, reply)) in requests.iter().zip(&replies).enumerate() {
        match reply {
            Ok(reply) => assert!(right(request, reply), "{k}: {request:?} got {reply:?}"),
            Err(error) => match error.kind() {
                ErrorKind::ReplyCount { owed, got } => {
                    assert!(error.is_fatal() && got != owed, "{error}");
                    counted += 1;
                }
                ErrorKind::Halted => assert!(error.is_fatal(), "{error}"),
                // Nothing at all came out of a session that had this request alone.
                ErrorKind::Died => assert_eq!(error.packet(), Some(k as u64)),
                kind => panic!("{kind:?}: {error}"),
            },
        }
    }
    assert_eq!(counted, 1, "{:?}", replies.last());
}

fn lines(n: usize) -> Vec<String> {
    (0..n).map(|n| format!("line {n}")).collect()
}

#[test]
fn wc_counts_a_session_not_a_line() {
    // One line each for the first sessions: that many lines they had.
    let requests = lines(1_000);
    let replies = ask(Template::new("wc").arg("-l"), &requests);
    ends_in_a_wrong_count(&requests, replies, |_, reply| reply.trim_ascii() == b"1");
}

#[test]
fn grep_skips_what_does_not_match() {
    let requests = lines(1_000);
    let replies = ask(Template::new("grep").arg("[0-8]$"), &requests);
    ends_in_a_wrong_count(&requests, replies, |request, reply| reply == request);
}

#[test]
fn uniq_merges_what_is_equal() {
    let requests: Vec<String> = (0..1_000).map(|n| format!("line {}", n / 3)).collect();
    let replies = ask(Template::new("uniq"), &requests);
    ends_in_a_wrong_count(&requests, replies, |request, reply| reply == request);
}

#[test]
fn sort_u_drops_what_is_equal() {
    let requests: Vec<String> = (0..1_000).map(|_| "same".to_owned()).collect();
    let replies = ask(Template::new("sort").arg("-u"), &requests);
    ends_in_a_wrong_count(&requests, replies, |request, reply| reply == request);
}

#[test]
fn awk_that_answers_twice() {
    let requests = lines(1_000);
    let replies = ask(Template::new("awk").arg("{ print; print }"), &requests);
    ends_in_a_wrong_count(&requests, replies, |_, _| false);
}

/// The number of replies is right and their order is not: no count can show that, a check does.
#[test]
fn sort_is_found_out_by_a_check() {
    let requests: Vec<String> = (0..300).rev().map(|n| format!("line {n:04}")).collect();
    let sort = Template::new("sort").check(|request, reply| {
        if request.strip_suffix(b"\n") == Some(reply) { Ok(()) } else { Err("out of order".into()) }
    });
    let replies = ask(sort, &requests);
    assert_eq!(replies.len(), requests.len());
    let mut found = 0;
    for (request, reply) in requests.iter().zip(replies) {
        match reply {
            Ok(reply) => assert_eq!(reply, *request),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Check, "{error}");
                found += 1;
            }
        }
    }
    assert!(found > 0);
}

/// A `grep` that flushes shifts what follows, and only a check sees it, at once.
#[test]
fn grep_that_flushes_is_found_out_by_a_check() {
    let requests = lines(500);
    let grep = Template::new("grep").args(["--line-buffered", "[0-8]$"]).check(|request, reply| {
        if request.strip_suffix(b"\n") == Some(reply) { Ok(()) } else { Err("not mine".into()) }
    });
    let replies = ask(grep, &requests);
    let mut found = 0;
    for (request, reply) in requests.iter().zip(replies) {
        match reply {
            Ok(reply) => assert_eq!(reply, *request),
            Err(error) if error.kind() == ErrorKind::Check => {
                assert!(request.ends_with('9'), "{request}: {error}");
                found += 1;
            }
            // The last one of a session has nobody behind it who would answer in its place.
            Err(error) => assert!(
                matches!(
                    error.kind(),
                    ErrorKind::ReplyCount { .. } | ErrorKind::Halted | ErrorKind::Died
                ),
                "{error}"
            ),
        }
    }
    assert!(found > 0);
}

/// It ends by itself after so many lines: what it has not answered goes to the next session.
#[track_caller]
fn is_complete(template: Template, n: usize) {
    let requests = lines(n);
    let replies = ask(template, &requests);
    assert_eq!(replies.len(), n);
    for (request, reply) in requests.iter().zip(replies) {
        assert_eq!(reply.unwrap_or_else(|error| panic!("{request}: {error}")), *request);
    }
}

#[test]
fn head_answers_five_and_leaves() {
    is_complete(Template::new("head").arg("-5"), 500);
}

#[test]
fn sed_answers_a_hundred_and_leaves() {
    is_complete(Template::new("sed").arg("100q"), 5_000);
}

#[test]
fn sed_that_flushes_answers_a_hundred_and_leaves() {
    is_complete(Template::new("sed").args(["-u", "100q"]), 5_000);
}
