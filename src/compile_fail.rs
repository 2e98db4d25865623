//! What must not compile, as doctests (after rayon-core's module of the same name). Each begins with
//! its smallest relative that compiles, so that it fails for the reason it names.

/// A source that borrows needs a scope.
///
/// ```
/// use subfeed::{FeedExt, Template};
/// let words = vec!["a".to_owned()];
/// std::thread::scope(|scope| {
///     words.iter().feed(Template::new("cat")).start_scoped(scope).count();
/// });
/// ```
/// ```compile_fail,E0597
/// use subfeed::{FeedExt, Template};
/// let words = vec!["a".to_owned()];
/// words.iter().feed(Template::new("cat")).start().count();
/// ```
struct BorrowedSource;

/// So does an `encode` that borrows; a `decode` may borrow as it likes, since it runs in `next()`.
///
/// ```
/// use subfeed::{FeedExt, Template};
/// let mut seen = 0;
/// let template = Template::new("cat").decode(|_| seen += 1);
/// ["a"].into_iter().feed_subprocesses(template, 1, 1).count();
/// assert_eq!(seen, 1);
/// ```
/// ```compile_fail,E0597
/// use subfeed::{FeedExt, Template};
/// let suffix = "!".to_owned();
/// let template = Template::new("cat").encode(|_: &&str, request| request.push(&suffix));
/// ["a"].into_iter().feed_subprocesses(template, 1, 1).count();
/// ```
struct BorrowedEncode;

/// A source that stays on its thread cannot be pulled by the intake.
///
/// ```compile_fail,E0277
/// use subfeed::{FeedExt, Template};
/// let text = std::rc::Rc::new("a".to_owned());
/// std::iter::once(0).map(move |_| text.to_string()).feed_subprocesses(Template::new("cat"), 1, 1);
/// ```
struct SourceThatIsNotSend;

/// Items that are no bytes need an `encode`.
///
/// ```compile_fail,E0277
/// use subfeed::{FeedExt, Template};
/// let _feed = (0..3).feed_subprocesses(Template::new("cat"), 1, 1);
/// ```
struct ItemsWithoutBytes;

/// `encode` takes a closure without a result, `try_encode` one with it, and no type is to be named.
///
/// ```
/// use subfeed::{FeedExt, Template};
/// let plain = Template::new("cat").encode(|n: &u32, request| request.push_display(n));
/// (0..3).feed_subprocesses(plain, 1, 1).count();
/// let fallible = Template::new("cat").try_encode(|text: &&str, request| {
///     request.push_display(text.parse::<u32>()?);
///     Ok(())
/// });
/// ["1"].into_iter().feed_subprocesses(fallible, 1, 1).count();
/// ```
/// ```compile_fail,E0308
/// use subfeed::Template;
/// let template = Template::new("cat").encode(|n: &u32, request| {
///     request.push_display(n);
///     Ok(())
/// });
/// ```
struct EncodeWithAResult;

/// So it is with `decode` and `try_decode`.
///
/// ```
/// use subfeed::{FeedExt, Template};
/// ["1"].into_iter().feed_subprocesses(Template::new("cat").decode(|reply| reply.len()), 1, 1).count();
/// let fallible = Template::new("cat").try_decode(|reply| Ok(reply.to_str()?.parse::<u32>()?));
/// ["1"].into_iter().feed_subprocesses(fallible, 1, 1).count();
/// ```
/// ```compile_fail,E0308
/// use subfeed::Template;
/// let template = Template::new("cat").try_decode(|reply| reply.len());
/// ```
struct DecodeWithoutAResult;

/// `stdin().lines()` holds a lock. A reader does not, and its `Result`s go to `try_feed`.
///
/// ```no_run
/// use std::io::{BufRead, BufReader, stdin};
/// use subfeed::{FeedExt, Template};
/// BufReader::new(stdin()).lines().try_feed(Template::new("cat")).start().count();
/// ```
/// ```compile_fail,E0277
/// use subfeed::{FeedExt, Template};
/// std::io::stdin().lines().map_while(Result::ok).feed_subprocesses(Template::new("cat"), 1, 1);
/// ```
/// ```compile_fail,E0277
/// use std::io::{BufRead, BufReader, stdin};
/// use subfeed::{FeedExt, Template};
/// BufReader::new(stdin()).lines().feed_subprocesses(Template::new("cat"), 1, 1);
/// ```
struct LinesOfStdin;

/// What is fed with `try_feed` may be iterated like any feed, and its errors are those of the source.
///
/// ```
/// use std::io::{self, BufRead};
/// use subfeed::{FeedExt, Template};
/// fn run(input: &'static [u8]) -> io::Result<()> {
///     for reply in input.lines().try_feed(Template::new("cat")) {
///         println!("{}", reply?);
///     }
///     Ok(())
/// }
/// run(b"a").unwrap();
/// ```
struct TryFeedOfLines;

/// A reply is a `BString`; text is asked for.
///
/// ```
/// use subfeed::{FeedExt, Template};
/// let mut feed = ["a"].into_iter().feed_subprocesses(Template::new("cat").text(), 1, 1);
/// assert_eq!(feed.next().unwrap().unwrap().as_str(), "a");
/// ```
/// ```compile_fail,E0599
/// use subfeed::{FeedExt, Template};
/// let mut feed = ["a"].into_iter().feed_subprocesses(Template::new("cat"), 1, 1);
/// assert_eq!(feed.next().unwrap().unwrap().as_str(), "a");
/// ```
struct ReplyAsText;

/// Nobody else implements what makes requests and values: closures do.
///
/// ```compile_fail,E0277
/// struct Mine;
/// impl subfeed::codec::Decode for Mine {
///     type Output = ();
///     fn decode(&mut self, _: subfeed::Reply<'_>) -> Result<(), subfeed::BoxError> { Ok(()) }
/// }
/// ```
struct DecodeIsSealed;

/// A reply of a block is lent.
///
/// ```compile_fail,E0505
/// use subfeed::{FeedExt, Template};
/// let mut blocks = ["a"].into_iter().feed(Template::new("cat")).blocks();
/// let block = blocks.next().unwrap().unwrap();
/// let reply = block.records().next().unwrap();
/// drop(block);
/// assert_eq!(reply, "a");
/// ```
struct ReplyOutlivesBlock;

/// A feed that nobody takes anything from is a mistake.
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// use subfeed::{FeedExt, Template};
/// ["a"].into_iter().feed_subprocesses(Template::new("cat"), 1, 1);
/// ```
/// ```compile_fail
/// #![deny(unused_must_use)]
/// use subfeed::{FeedExt, Template};
/// ["a"].into_iter().feed(Template::new("cat"));
/// ```
/// ```compile_fail
/// #![deny(unused_must_use)]
/// use subfeed::{FeedExt, Template};
/// ["a"].into_iter().feed(Template::new("cat")).blocks();
/// ```
/// ```compile_fail
/// #![deny(unused_must_use)]
/// use subfeed::Template;
/// Template::new("cat").arg("-u");
/// ```
/// ```
/// #![deny(unused_must_use)]
/// use subfeed::{FeedExt, Template};
/// let _ = ["a"].into_iter().feed_subprocesses(Template::new("cat").arg("-u"), 1, 1);
/// ```
struct UnusedFeed;

/// A source in a subprocess has one pass at a time.
///
/// ```
/// # use subfeed::source::Function;
/// let mut numbers = Function::<u32, u32>::new("numbers").iterate_in_subprocess(&1, 1);
/// let first = numbers.iter();
/// drop(first);
/// let second = numbers.iter();
/// ```
/// ```compile_fail,E0499
/// # use subfeed::source::Function;
/// let mut numbers = Function::<u32, u32>::new("numbers").iterate_in_subprocess(&1, 1);
/// let first = numbers.iter();
/// let second = numbers.iter();
/// drop(first);
/// ```
#[cfg(feature = "function-source")]
struct OnePassAtATime;

/// A map in a scope stays there, whatever its values borrow.
///
/// ```
/// use subfeed::FeedExt;
/// let sum: u32 = std::thread::scope(|scope| (0..9).in_threads().scoped(scope).map(|n| n).sum());
/// assert_eq!(sum, 36);
/// ```
/// ```compile_fail
/// use subfeed::FeedExt;
/// let feed = std::thread::scope(|scope| (0..9).in_threads().scoped(scope).map(|n| n));
/// assert_eq!(feed.sum::<u32>(), 36);
/// ```
struct MapLeavesItsScope;

/// A map in a pool may not borrow; one in a scope may.
///
/// ```
/// use subfeed::FeedExt;
/// let words = vec!["a".to_owned()];
/// std::thread::scope(|scope| {
///     assert_eq!(words.iter().in_threads().scoped(scope).map(|word| word.len()).sum::<usize>(), 1);
/// });
/// ```
/// ```compile_fail,E0597
/// use subfeed::FeedExt;
/// let words = vec!["a".to_owned()];
/// words.iter().in_threads().map(|word| word.len()).sum::<usize>();
/// ```
struct MapInPoolBorrows;
