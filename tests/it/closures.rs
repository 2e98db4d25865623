//! The ways in and out of a template: plain closures, closures that may fail, text.

use std::num::ParseIntError;

use subfeed::codec::{Decode, Encode};
use subfeed::{BStr, BString, ByteSlice, Error, ErrorKind, FeedExt, Template};

use crate::common::{numbers, within};

#[test]
fn a_plain_closure_needs_no_result_on_either_side() {
    within(|| {
        let template = Template::new("cat")
            .encode(|n: &u32, request| request.push_display(n))
            .decode(|reply| reply.len());
        let lengths = [7u32, 1_000].into_iter().feed_subprocesses_ordered(template, 1, 8);
        assert_eq!(lengths.collect::<Result<Vec<usize>, Error>>().unwrap(), [1, 4]);
    });
}

#[test]
fn a_closure_that_may_fail_names_no_type_of_errors() {
    within(|| {
        let template = Template::new("cat")
            .try_encode(|text: &&str, request| {
                if text.is_empty() {
                    return Err("nothing to ask".into());
                }
                request.push_display(text.parse::<u32>()?);
                Ok(())
            })
            .try_decode(|reply| match reply.to_str()?.parse::<u32>()? {
                13 => Err("an unlucky number".into()),
                n => Ok(n),
            });
        let source = ["1", "", "x", "13", "5"].into_iter();
        let items: Vec<_> = source.feed_subprocesses_ordered(template, 1, 8).collect();
        assert_eq!((*items[0].as_ref().unwrap(), *items[4].as_ref().unwrap()), (1, 5));
        let error = |at: usize| items[at].as_ref().unwrap_err();
        assert_eq!(error(1).kind(), ErrorKind::Encode);
        assert_eq!(error(1).cause().unwrap().to_string(), "nothing to ask");
        assert!(error(2).cause().unwrap().is::<ParseIntError>());
        assert_eq!(
            (error(3).kind(), error(3).request().unwrap().to_str()),
            (ErrorKind::Decode, Ok("13\n"))
        );
        assert!(error(3).to_string().contains("an unlucky number"), "{}", error(3));
    });
}

#[test]
fn text_is_a_string_and_what_is_none_says_what_to_do() {
    within(|| {
        let source = [&b"caf\xc3\xa9"[..], b"caf\xe9", b""].into_iter();
        let items: Vec<_> =
            source.feed_subprocesses_ordered(Template::new("cat").text(), 1, 8).collect();
        let text: &String = items[0].as_ref().unwrap();
        assert_eq!((text.as_str(), items[2].as_ref().unwrap().as_str()), ("caf\u{e9}", ""));
        let error = items[1].as_ref().unwrap_err();
        assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::Decode, false));
        assert_eq!(error.request().unwrap(), b"caf\xe9\n".as_bstr());
        for word in ["not UTF-8", "Template::try_decode", "bytes", "index 3"] {
            assert!(error.to_string().contains(word), "no {word:?} in {error}");
        }
    });
}

#[test]
fn replies_are_byte_strings_that_come_with_the_crate() {
    within(|| {
        let mut feed = [b"\xff"].into_iter().feed_subprocesses(Template::new("cat"), 1, 1);
        let reply: BString = feed.next().unwrap().unwrap();
        let borrowed: &BStr = reply.as_bstr();
        assert_eq!((borrowed.to_str_lossy(), borrowed.len()), ("\u{fffd}".into(), 1));
    });
}

#[test]
fn the_traits_are_there_to_be_bounds() {
    fn total<E, D>(template: Template<E, D>) -> Result<usize, Error>
    where
        E: Encode<String> + 'static,
        D: Decode<Output = usize>,
    {
        numbers(11).feed_subprocesses_ordered(template, 2, 8).sum()
    }
    within(|| {
        assert_eq!(total(Template::new("cat").decode(|reply| reply.len())).unwrap(), 12);
        let reversed = Template::new("cat").encode(|item: &String, request| request.push(item));
        assert_eq!(total(reversed.try_decode(|reply| Ok(reply.bytes().len()))).unwrap(), 12);
    });
}

#[test]
fn a_builder_is_iterated_as_it_is() {
    within(|| {
        let mut seen = Vec::new();
        for reply in numbers(3).feed(Template::new("cat").text()).workers(2) {
            seen.push(reply.unwrap());
        }
        assert_eq!(seen, ["0", "1", "2"]);
    });
}
