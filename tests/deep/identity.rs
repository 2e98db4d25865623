//! A feed of `cat` is the identity, whatever its records, width, window, limit in bytes, first packet id,
//! order and framing.

#[path = "../common/mod.rs"]
mod common;

use proptest::prelude::*;
use subfeed::framing::{Prefix, ReplyFraming, RequestFraming};
use subfeed::{Error, FeedExt, Order, Template};

use crate::common::within;

/// A feed of `cat` with everything about it random.
#[derive(Clone, Debug)]
struct Case {
    records: Vec<Vec<u8>>,
    workers: usize,
    buffer: usize,
    max_bytes: usize,
    first: u64,
    order: Order,
    framing: u8,
}

fn cases() -> impl Strategy<Value = Case> {
    let record = prop_oneof![
        8 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 1_000usize..20_000).prop_map(|(byte, len)| vec![byte; len]),
    ];
    (
        proptest::collection::vec(record, 0..200),
        1usize..5,
        prop_oneof![1usize..10, 10usize..1_000, Just(usize::MAX)],
        prop_oneof![0usize..100, 100usize..100_000, Just(usize::MAX)],
        prop_oneof![Just(0), (u64::MAX - 100)..=u64::MAX],
        prop_oneof![Just(Order::Input), Just(Order::Completion)],
        0u8..3,
    )
        .prop_map(|(records, workers, buffer, max_bytes, first, order, framing)| Case {
            records,
            workers,
            buffer,
            max_bytes,
            first,
            order,
            framing,
        })
}

fn cat_is_the_identity(mut case: Case) {
    let mut template = Template::new("cat");
    match case.framing {
        0 => case.records.iter_mut().flatten().for_each(|byte| *byte |= u8::from(*byte == b'\n')),
        1 => {
            template =
                template.requests(RequestFraming::delimited(0)).replies(ReplyFraming::delimited(0));
            case.records.iter_mut().flatten().for_each(|byte| *byte |= u8::from(*byte == 0));
        }
        _ => {
            template = template
                .requests(RequestFraming::prefixed(Prefix::u32_be()))
                .replies(ReplyFraming::prefixed(Prefix::u32_be()));
        }
    }
    let expected = case.records.clone();
    let feed = case.records.into_iter().feed(template).workers(case.workers).buffer(case.buffer);
    let feed = feed.max_bytes(case.max_bytes).first_packet(case.first).order(case.order);
    let got: Result<Vec<_>, Error> = feed
        .keep_input()
        .start()
        .map(|pair| {
            let (input, reply) = pair?;
            assert_eq!(input, reply.to_vec());
            Ok(reply.to_vec())
        })
        .collect();
    let (mut got, mut expected) = (got.unwrap(), expected);
    if case.order == Order::Completion {
        got.sort();
        expected.sort();
    }
    assert_eq!(got, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn whatever_goes_through_cat_comes_back(case in cases()) {
        within(move || cat_is_the_identity(case));
    }
}
