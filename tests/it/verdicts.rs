//! When a quiet worker is judged.

use std::time::Duration;

use subfeed::policy::OnStall;
use subfeed::{FeedExt, Template};

use crate::common::{numbers, texts, within};

/// Each answer comes about when the worker is to be looked at, and the next requests go out in the same
/// moment: they are not in the pipe yet when the worker is seen to wait for them.
#[test]
fn a_worker_that_has_just_answered_is_not_judged_by_what_it_was_given_since() {
    let slow = Template::shell("while read -r n; do sleep 0.004; echo $n; done")
        .on_stall(OnStall::Fail, Duration::from_millis(5));
    let replies = within(move || texts(numbers(2_000).feed_subprocesses_ordered(slow, 4, 16)));
    assert!(replies.into_iter().eq(numbers(2_000)));
}
