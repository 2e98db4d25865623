//! What workers write on stderr, handed on as it comes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use subfeed::{FeedExt, Template};

use crate::common::{numbers, texts, within};

/// What was written by each of two workers.
type Said = Arc<Mutex<[Vec<u8>; 2]>>;

fn listening(script: &str) -> (Template, Said) {
    let said = Said::default();
    let template = Template::shell(script).on_stderr({
        let said = Arc::clone(&said);
        move |worker, bytes| said.lock().unwrap()[worker].extend_from_slice(bytes)
    });
    (template, said)
}

#[test]
fn all_of_it_is_handed_on_with_the_worker_that_wrote_it() {
    within(|| {
        let script =
            "while read -r x; do echo \"{id} saw $x\" >&2; echo $x; done; echo {id} ends >&2";
        let (template, said) = listening(script);
        let mut feed = numbers(200).feed(template).workers(2).start();
        assert_eq!(texts(feed.by_ref()).len(), 200);
        feed.finish().expect("a good end");
        let mut seen = 0;
        for (worker, said) in said.lock().unwrap().iter().enumerate() {
            let said = String::from_utf8_lossy(said);
            let own = format!("{worker} saw ");
            let end = format!("{worker} ends\n");
            seen += said.lines().filter(|line| line.starts_with(&own)).count();
            let mut others = said.lines().filter(|line| !line.starts_with(&own));
            assert!(others.all(|line| line == end.trim_end()), "{said}");
            assert!(said.ends_with(&end), "{said}");
        }
        assert_eq!(seen, 200);
    });
}

#[test]
fn errors_have_their_part_of_it_all_the_same() {
    within(|| {
        let (template, said) = listening("read -r x; echo I will not >&2; exit 3");
        let error = ["a"].into_iter().feed(template).workers(1).start().find_map(Result::err);
        assert_eq!(error.expect("an error").stderr(), "I will not\n");
        assert!(said.lock().unwrap()[0].starts_with(b"I will not\n"));
    });
}

#[test]
fn a_panic_in_it_is_resumed_in_next() {
    within(|| {
        let template = Template::shell("while read -r x; do echo $x >&2; echo $x; done")
            .on_stderr(|_, bytes| assert!(bytes.is_empty(), "it was told"));
        let mut feed = numbers(5).feed(template).workers(1).start();
        let caught = catch_unwind(AssertUnwindSafe(|| feed.by_ref().count()));
        let payload = caught.expect_err("a panic");
        assert!(message(&*payload).contains("it was told"));
    });
}

fn message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}
