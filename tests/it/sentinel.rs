//! Marks that do not come.

use std::time::Duration;

use subfeed::framing::{ReplyFraming, Sentinel};
use subfeed::{ErrorKind, FeedExt, Template};

use crate::common::within;

/// A shell that swallows whatever follows the request `open`, as a quote does that is never closed.
fn shell() -> Template {
    Template::shell(
        "while read -r line; do case $line in open) read -r mark;; *) eval \"$line\";; esac; done",
    )
    .replies(ReplyFraming::sentinel(Sentinel::new("echo {mark}")))
    // Nine in a row may end without one reply.
    .give_up_after(20)
    .backoff(Duration::from_millis(1), Duration::from_millis(1))
}

/// A later mark shows it, or the worker goes quiet and ends with status 0, short of a reply: which one
/// is known either way.
#[test]
fn a_swallowed_mark_costs_its_packet_only() {
    let cases: [&[&str]; 5] = [
        &["open"],
        &["echo 1", "open"],
        &["open", "echo 1"],
        &["echo 1", "open", "echo 2", ":", "open", "open", "echo 3"],
        &["open"; 9],
    ];
    for requests in cases {
        for workers in [1, 3] {
            let replies: Vec<_> = within(move || {
                requests.iter().feed_subprocesses_ordered(shell(), workers, 100).collect()
            });
            assert_eq!(replies.len(), requests.len());
            for (request, reply) in requests.iter().zip(replies) {
                match (*request, reply) {
                    ("open", Err(error)) => {
                        let kind = error.kind();
                        // A later mark came, or the session ended with status 0 and none.
                        let known = matches!(
                            kind,
                            ErrorKind::Reply | ErrorKind::ReplyCount { owed: 1, got: 0 }
                        );
                        assert!(known, "{error}");
                        assert!(!error.is_fatal(), "{error}");
                    }
                    ("open", Ok(reply)) => panic!("a reply: {reply:?}"),
                    (":", reply) => assert_eq!(reply.unwrap(), ""),
                    (request, reply) => assert_eq!(reply.unwrap(), request[5..].to_owned() + "\n"),
                }
            }
        }
    }
}
