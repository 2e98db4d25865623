//! A bad exit behind the last answer reaches who collects, if the template says so.

use subfeed::framing::Sentinel;
use subfeed::{ErrorKind, FeedExt, Order, Template};

use crate::common::{numbers, within};

/// Answers everything, and exits with 5.
fn ends_badly() -> Template {
    Template::shell("cat; exit 5")
}

#[test]
fn a_bad_exit_takes_the_last_items_place_where_the_length_is_known() {
    within(|| {
        for order in [Order::Input, Order::Completion] {
            for n in [1, 100] {
                let template = ends_badly().require_clean_exit();
                let feed = numbers(n).feed(template).workers(2).order(order).start();
                let error = feed.collect::<Result<Vec<_>, _>>().unwrap_err();
                assert_eq!(error.exit_status().unwrap().code(), Some(5), "{error}");
                assert!(error.is_fatal());
            }
        }
    });
}

#[test]
fn it_is_one_item_more_where_the_length_is_not_known() {
    within(|| {
        let mut numbers = numbers(3);
        let source = std::iter::from_fn(move || numbers.next());
        let feed = source.feed(ends_badly().require_clean_exit()).workers(1).start();
        let items: Vec<_> = feed.map(|item| item.is_ok()).collect();
        assert_eq!(items, [true, true, true, false]);
    });
}

#[test]
fn proven_replies_and_one_process_a_packet_are_no_exception() {
    within(|| {
        let sh = Template::shell("sh; exit 5").replies(Sentinel::new("echo {mark}"));
        let feed = ["echo 1"].into_iter().feed_subprocesses_ordered(sh.require_clean_exit(), 1, 8);
        let error = feed.collect::<Result<Vec<_>, _>>().unwrap_err();
        assert_eq!(error.exit_status().unwrap().code(), Some(5), "{error}");
    });
}

#[test]
fn otherwise_it_is_a_remark_and_a_good_exit_costs_nothing() {
    within(|| {
        let feed = numbers(3).feed_subprocesses_ordered(ends_badly(), 1, 8);
        assert_eq!(feed.collect::<Result<Vec<_>, _>>().unwrap().len(), 3);
        let feed = numbers(3).feed_subprocesses_ordered(ends_badly(), 1, 8);
        assert!(matches!(feed.finish().unwrap_err().kind(), ErrorKind::Died));
        let good = Template::new("cat").require_clean_exit();
        let feed = numbers(3).feed_subprocesses_ordered(good, 2, 8);
        assert_eq!(feed.collect::<Result<Vec<_>, _>>().unwrap().len(), 3);
    });
}
