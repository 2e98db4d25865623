//! Items to bytes and bytes to values, odd records, scoped starts.

use std::num::ParseIntError;
use std::thread;

use bstr::ByteSlice;
use subfeed::framing::{Prefix, ReplyFraming, RequestFraming};
use subfeed::{BoxError, Error, ErrorKind, FeedExt, Order, Reply, Template};

use crate::common::{Dir, child, numbers, texts, within};

#[test]
fn anything_that_is_bytes_is_an_item() {
    within(|| {
        let cat = || Template::new("cat");
        assert_eq!(texts(["a"].into_iter().feed_subprocesses_ordered(cat(), 1, 4)), ["a"]);
        assert_eq!(
            texts(vec![b"a".to_vec()].into_iter().feed_subprocesses_ordered(cat(), 1, 4)),
            ["a"]
        );
        assert_eq!(texts([*b"abc"].into_iter().feed_subprocesses_ordered(cat(), 1, 4)), ["abc"]);
        assert_eq!(
            texts([bstr::BString::from("a")].into_iter().feed_subprocesses_ordered(cat(), 1, 4)),
            ["a"]
        );
        let boxed: Box<dyn Iterator<Item = String> + Send> = Box::new(numbers(2));
        assert_eq!(texts(boxed.feed_subprocesses_ordered(cat(), 1, 4)), ["0", "1"]);
    });
}

#[test]
fn bytes_that_are_no_text_come_back_as_they_were() {
    within(|| {
        let record: Vec<u8> = (0..=255).filter(|&byte| byte != b'\n').collect();
        let mut feed =
            std::iter::once(record.clone()).feed_subprocesses_ordered(Template::new("cat"), 1, 4);
        assert_eq!(feed.next().unwrap().unwrap(), record);
    });
}

#[test]
fn a_carriage_return_stays_in_its_reply() {
    within(|| {
        let mut feed =
            ["a\r", "\r"].into_iter().feed_subprocesses_ordered(Template::new("cat"), 1, 4);
        assert_eq!(feed.next().unwrap().unwrap(), "a\r");
        assert_eq!(feed.next().unwrap().unwrap(), "\r");
    });
}

#[test]
fn an_empty_record_has_an_empty_reply() {
    within(|| {
        let records = ["", "a", "", "", "b", ""];
        assert_eq!(
            texts(records.into_iter().feed_subprocesses_ordered(Template::new("cat"), 2, 3)),
            records
        );
        let prefixed = Template::new("cat")
            .requests(RequestFraming::prefixed(Prefix::u32_be()))
            .replies(ReplyFraming::prefixed(Prefix::u32_be()));
        assert_eq!(texts(records.into_iter().feed_subprocesses_ordered(prefixed, 2, 3)), records);
    });
}

#[test]
fn a_request_of_no_bytes_at_all_is_a_request() {
    within(|| {
        // Raw requests: nothing is written for an empty item, and its process must still be started,
        // whether or not anything comes after it.
        for buffer in [1, 4] {
            let template = Template::new("cat")
                .requests(RequestFraming::raw())
                .replies(ReplyFraming::until_eof());
            let (sender, receiver) = std::sync::mpsc::channel::<&str>();
            let mut feed = receiver.into_iter().feed_subprocesses_ordered(template, 2, buffer);
            for record in ["", "", "a", ""] {
                sender.send(record).unwrap();
                assert_eq!(feed.next().unwrap().unwrap(), record);
            }
        }
    });
}

#[test]
fn a_record_with_its_own_delimiter_is_an_error_in_place_and_is_never_written() {
    within(|| {
        for order in [Order::Input, Order::Completion] {
            let dir = Dir::new();
            let template = child("log").arg(dir.path("log"));
            let records = ["a", "b\nc", "\n", "d\n", "e"];
            let feed = records.into_iter().feed(template).workers(1).order(order).start();
            let mut items: Vec<_> = feed.collect();
            items.sort_by_key(|item| item.as_ref().err().and_then(Error::packet));
            let errors: Vec<_> = items.iter().filter_map(|item| item.as_ref().err()).collect();
            assert_eq!(errors.len(), 3);
            for (error, (packet, record)) in errors.iter().zip([(1, "b\nc"), (2, "\n"), (3, "d\n")])
            {
                assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::Encode, false));
                assert_eq!(error.packet(), Some(packet));
                assert_eq!(error.request().unwrap(), record);
                // Those who keep the line feed of what they have read are told so.
                assert_eq!(error.to_string().contains("leave it off"), record.ends_with('\n'));
            }
            assert_eq!(dir.read("log"), "a\ne\n");
        }
    });
}

#[test]
fn the_delimiter_of_another_framing_is_an_ordinary_byte() {
    within(|| {
        let template = Template::new("cat")
            .requests(RequestFraming::delimited(0))
            .replies(ReplyFraming::delimited(0));
        let records = ["a\nb", "\n", "c\0d", "e"];
        let items: Vec<_> = records.into_iter().feed_subprocesses_ordered(template, 2, 8).collect();
        assert_eq!(items[0].as_ref().unwrap(), "a\nb");
        assert_eq!(items[1].as_ref().unwrap(), "\n");
        assert_eq!(items[2].as_ref().unwrap_err().kind(), ErrorKind::Encode);
        assert_eq!(items[3].as_ref().unwrap(), "e");
    });
}

#[test]
fn large_records_come_back_whole() {
    within(|| {
        let records = || (0..6).map(|k| format!("{k}").repeat(700_000));
        let feed = records().feed_subprocesses_ordered(Template::new("cat"), 2, 3);
        for (reply, record) in feed.zip(records()) {
            assert!(reply.unwrap() == record);
        }
    });
}

#[test]
fn an_item_that_encode_refuses_is_an_error_in_place() {
    within(|| {
        let dir = Dir::new();
        let template = child("log").arg(dir.path("log")).try_encode(|text: &&str, request| {
            // Half of it is written before the refusal, and must not go out.
            request.push("n=");
            request.push(text.parse::<u32>()?.to_string());
            Ok(())
        });
        let items: Vec<_> =
            ["1", "two", "3"].into_iter().feed_subprocesses_ordered(template, 1, 8).collect();
        assert_eq!(items[0].as_ref().unwrap(), "n=1");
        let error = items[1].as_ref().unwrap_err();
        assert_eq!(
            (error.kind(), error.packet(), error.is_fatal()),
            (ErrorKind::Encode, Some(1), false)
        );
        assert!(error.cause().unwrap().is::<ParseIntError>());
        assert_eq!(items[2].as_ref().unwrap(), "n=3");
        assert_eq!(dir.read("log"), "n=1\nn=3\n");
    });
}

#[test]
fn a_reply_that_decode_refuses_is_an_error_in_place_that_names_its_request() {
    within(|| {
        let template = child("echo")
            .try_decode(|reply| -> Result<u32, BoxError> { Ok(reply.to_str()?.parse()?) });
        for workers in [1, 3] {
            let feed = ["1", "two", "3"].into_iter().feed_subprocesses_ordered(
                template.clone(),
                workers,
                8,
            );
            let items: Vec<_> = feed.collect();
            assert_eq!((items[0].as_ref().unwrap(), items[2].as_ref().unwrap()), (&1, &3));
            let error = items[1].as_ref().unwrap_err();
            assert_eq!(
                (error.kind(), error.packet(), error.is_fatal()),
                (ErrorKind::Decode, Some(1), false)
            );
            assert_eq!(error.request().unwrap(), "two\n");
            assert!(error.to_string().contains(r#""two""#), "{error}");
            assert!(error.worker().is_some() && error.pid().is_some() && error.command().is_some());
            assert!(error.cause().unwrap().is::<ParseIntError>());
        }
    });
}

#[test]
fn replies_and_requests_know_their_packet() {
    within(|| {
        let template = Template::new("cat")
            .encode(|_: &(), request| {
                let packet = request.packet().to_string();
                request.push(packet);
            })
            .decode(|reply: Reply<'_>| {
                assert!(reply.worker() < 3);
                (reply.packet(), reply.to_str_lossy().into_owned())
            });
        let feed =
            std::iter::repeat_n((), 500).feed(template).workers(3).first_packet(u64::MAX - 9);
        for (k, item) in feed.start().enumerate() {
            let id = (u64::MAX - 9).wrapping_add(k as u64);
            assert_eq!(item.unwrap(), (id, id.to_string()));
        }
    });
}

#[test]
fn closures_may_keep_state() {
    within(|| {
        let (mut written, mut read) = (0, 0);
        let template = Template::new("cat")
            .encode(move |_: &(), request| {
                written += 1;
                request.push(written.to_string());
            })
            .decode(move |_| {
                read += 1;
                read
            });
        let feed = std::iter::repeat_n((), 50).feed_subprocesses_ordered(template, 3, 8);
        assert_eq!(feed.map(Result::unwrap).collect::<Vec<_>>(), (1..=50).collect::<Vec<_>>());
    });
}

#[test]
fn a_request_is_a_writer_and_a_reply_is_a_slice() {
    within(|| {
        use std::io::Write;
        let template = Template::new("cat")
            .try_encode(|n: &f64, request| Ok(write!(request, "{n:.2}")?))
            .decode(|reply| reply.starts_with(b"2") && reply.as_ref().len() == 4);
        let feed = [2.345, 1.0].into_iter().feed_subprocesses_ordered(template, 1, 8);
        assert_eq!(feed.collect::<Result<Vec<_>, _>>().unwrap(), [true, false]);
    });
}

#[test]
fn a_reply_of_the_limit_is_good_and_one_byte_more_is_an_error_in_place() {
    within(|| {
        for limit in [1usize, 100, 65_535, 65_536, 100_000, 300_000] {
            let sizes = [0, limit, limit + 1, limit, limit * 3, 1.min(limit), limit];
            let feed = sizes.map(|size| size.to_string()).into_iter();
            let template = child("bytes").reply_limit(limit);
            let items: Vec<_> = feed.feed_subprocesses_ordered(template, 2, 8).collect();
            assert_eq!(items.len(), sizes.len());
            for (k, (item, size)) in items.iter().zip(sizes).enumerate() {
                match item {
                    Ok(reply) => {
                        assert_eq!(reply.len(), size);
                        assert!(size <= limit, "{size} bytes were let through, over {limit}");
                    }
                    Err(error) => {
                        assert!(size > limit, "{size} bytes were refused, under {limit}: {error}");
                        assert_eq!(
                            (error.kind(), error.packet()),
                            (ErrorKind::Reply, Some(k as u64))
                        );
                        assert!(!error.is_fatal());
                        assert!(error.to_string().contains("limit"), "{error}");
                    }
                }
            }
        }
    });
}

#[test]
fn a_worker_that_never_ends_its_reply_is_stopped_at_the_limit() {
    within(|| {
        let template = Template::shell("read -r x; exec yes | tr -d '\\n'").reply_limit(1 << 20);
        let mut feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 8);
        let error = feed.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Reply);
        assert!(feed.next().is_none());
    });
}

#[test]
fn an_announced_size_over_the_limit_is_an_error_before_it_is_read() {
    within(|| {
        let template = Template::shell(r"read -r x; printf '\377\377\377\377abc'; cat")
            .replies(ReplyFraming::prefixed(Prefix::u32_be()));
        let mut feed = ["a"].into_iter().feed_subprocesses_ordered(template, 1, 8);
        let error = feed.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Reply);
        assert!(feed.next().is_none());
    });
}

#[test]
fn a_scoped_start_borrows_its_source_and_its_closures() {
    within(|| {
        let words = vec!["one".to_owned(), "two".to_owned(), "three".to_owned()];
        let suffix = "!".to_owned();
        let mut lengths = Vec::new();
        thread::scope(|scope| {
            let template = Template::new("cat")
                .encode(|word: &&String, request| {
                    request.push(word.as_str());
                    request.push(&suffix);
                })
                .decode(|reply| {
                    lengths.push(reply.len());
                });
            let feed = words.iter().feed(template).workers(2).keep_input().start_scoped(scope);
            for (pair, expected) in feed.zip(&words) {
                assert_eq!(pair.unwrap(), (expected, ()));
            }
        });
        assert_eq!(lengths, [4, 4, 6]);
    });
}

#[test]
fn a_scoped_feed_that_is_dropped_early_lets_its_scope_end() {
    within(|| {
        let text = "x".to_owned();
        thread::scope(|scope| {
            let endless = std::iter::repeat(&text);
            let mut feed = endless.feed(Template::new("cat")).workers(2).start_scoped(scope);
            assert_eq!(feed.next().unwrap().unwrap(), "x");
        });
    });
}

#[test]
fn a_scoped_feed_that_cannot_run_lets_its_scope_end() {
    within(|| {
        let text = "x".to_owned();
        thread::scope(|scope| {
            let endless = std::iter::repeat(&text);
            let mut feed = endless.feed(Template::new("cat")).workers(0).start_scoped(scope);
            assert!(feed.next().unwrap().is_err());
        });
    });
}

#[test]
fn a_template_is_a_value_that_serves_many_feeds() {
    within(|| {
        let template = child("about").args(["{id}"]).env("WHO", "you");
        for _ in 0..2 {
            let feed = ["WHO"].into_iter().feed_subprocesses_ordered(template.clone(), 1, 8);
            assert!(texts(feed)[0].starts_with("you|0|"));
        }
        assert!(format!("{template:?}").contains("about"));
    });
}
