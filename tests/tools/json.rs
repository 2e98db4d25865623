//! Values in and out, through `jq` and through `cat`.

use serde::{Deserialize, Serialize};
use subfeed::{Error, ErrorKind, FeedExt, Template};

use crate::common::within;
use crate::harness::here;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Person {
    name: String,
    age: Option<u32>,
    nested: Vec<(i64, f64)>,
}

fn people(n: u32) -> Vec<Person> {
    (0..n)
        .map(|n| Person {
            name: format!("na\u{ef}ve \"{n}\"\n\t\u{1f980}\0"),
            age: (n % 3 > 0).then_some(n),
            nested: (0..n % 5).map(|k| (-i64::from(k), f64::from(k) / 4.0)).collect(),
        })
        .collect()
}

#[test]
fn what_goes_in_comes_out() {
    let people = people(2_000);
    let cat = Template::new("cat").json::<Person>();
    let back: Vec<Person> = within({
        let people = people.clone();
        move || {
            people.into_iter().feed_subprocesses_ordered(cat, 4, 500).map(Result::unwrap).collect()
        }
    });
    assert!(back == people);
}

#[test]
fn jq_makes_another_type_of_it() {
    if !here(&["jq"]) {
        return;
    }
    let people = people(2_000);
    let filter = "{name, adult: (.age != null and .age >= 18)}";
    #[derive(Deserialize)]
    struct Adult {
        name: String,
        adult: bool,
    }
    let jq = Template::new("jq").args(["--unbuffered", "-c", filter]).json::<Adult>();
    let source = people.clone();
    let adults: Vec<Adult> = within(move || {
        source.into_iter().feed_subprocesses_ordered(jq, 4, 500).map(Result::unwrap).collect()
    });
    assert_eq!(adults.len(), people.len());
    for (person, adult) in people.iter().zip(adults) {
        assert_eq!(adult.name, person.name);
        assert_eq!(adult.adult, person.age.is_some_and(|age| age >= 18));
    }
}

/// A map with keys that are no strings is not JSON; neither is a reply in words.
#[test]
fn errors_stay_at_their_position() {
    let bad = std::collections::BTreeMap::from([((1, 2), 3)]);
    let good = std::collections::BTreeMap::new();
    let inputs: Vec<_> =
        (0..100).map(|n| if n % 10 == 3 { bad.clone() } else { good.clone() }).collect();
    let script = "n=0; while read -r line; do n=$((n + 1)); case $n in *7) echo no;; *) echo $n;; esac; done";
    let replies: Vec<Result<u32, Error>> = within(move || {
        inputs
            .into_iter()
            .feed_subprocesses_ordered(Template::shell(script).json(), 1, 50)
            .collect()
    });
    assert_eq!(replies.len(), 100);
    let mut asked = 0;
    for (n, reply) in replies.into_iter().enumerate() {
        if n % 10 == 3 {
            let error = reply.unwrap_err();
            assert_eq!((error.kind(), error.packet()), (ErrorKind::Encode, Some(n as u64)));
            continue;
        }
        asked += 1;
        match reply {
            Ok(number) => assert_eq!(number, asked),
            Err(error) => {
                assert_eq!((error.kind(), asked % 10), (ErrorKind::Decode, 7), "{error}");
                assert_eq!(error.packet(), Some(n as u64));
                assert!(error.to_string().contains("\"no\""), "{error}");
            }
        }
    }
}

/// Each side alone, the other as it was.
#[test]
fn one_side_alone() {
    let wc = Template::shell("while read -r line; do echo ${#line}; done");
    let lengths: Vec<usize> = within({
        let wc = wc.clone();
        move || {
            let texts = ["a", "bcd"].into_iter();
            texts.feed_subprocesses_ordered(wc.decode_json(), 1, 8).map(Result::unwrap).collect()
        }
    });
    assert_eq!(lengths, [1, 3]);
    let lengths: Vec<bstr::BString> = within(move || {
        let texts = ["a", "bcd"].into_iter();
        texts.feed_subprocesses_ordered(wc.encode_json(), 1, 8).map(Result::unwrap).collect()
    });
    assert_eq!(lengths, ["3", "5"]);
}
