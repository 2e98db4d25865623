//! Items to bytes and bytes to values: the two closures of a template and what they are handed.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, Range};

use bstr::{BStr, BString, ByteSlice};

use crate::error::{BoxError, Error, ErrorKind};
use crate::record::Column;

/// Where `encode` writes the bytes of one item.
///
/// Bytes pushed here go to the worker's stdin; [`side`](Request::side) writes to the named side inputs. The framing (a
/// line feed, a length) is added afterwards; do not write it here.
#[derive(Debug)]
pub struct Request<'a> {
    columns: &'a mut [Column],
    names: &'a [String],
    packet: u64,
    unknown: Option<String>,
}

impl<'a> Request<'a> {
    #[inline]
    pub(crate) fn new(columns: &'a mut [Column], names: &'a [String], packet: u64) -> Self {
        Self { columns, names, packet, unknown: None }
    }

    /// Appends bytes to the request on stdin.
    #[inline]
    pub fn push(&mut self, bytes: impl AsRef<[u8]>) {
        self.columns[0].bytes.extend_from_slice(bytes.as_ref());
    }

    /// Appends a value as its `Display` prints it, without an intermediate string: a number, or
    /// `format_args!("{x:.2}")`.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::new("cat").encode(|n: &f64, request| request.push_display(format_args!("{n:.2}")));
    /// let mut feed = [2.345].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap().unwrap(), "2.35");
    /// ```
    ///
    /// # Panics
    /// If the `Display` implementation of `value` returns an error.
    pub fn push_display(&mut self, value: impl fmt::Display) {
        // Writing to memory does not fail.
        io::Write::write_fmt(self, format_args!("{value}")).expect("a Display that does not fail");
    }

    /// The packet id: the position of this item in the input.
    #[must_use]
    pub fn packet(&self) -> u64 {
        self.packet
    }

    /// The side input with this name, declared with [`Template::side_input`](crate::Template::side_input).
    ///
    /// If no side input with this name was declared, writing to it makes this item an `Err` of kind
    /// [`ErrorKind::Channel`].
    pub fn side(&mut self, name: &str) -> Side<'_> {
        match self.names.iter().position(|declared| declared == name) {
            Some(i) => Side { bytes: Some(&mut self.columns[i + 1].bytes) },
            None => {
                self.unknown.get_or_insert_with(|| name.to_owned());
                Side { bytes: None }
            }
        }
    }

    #[inline]
    pub(crate) fn finish(self) -> Result<(), Error> {
        match self.unknown {
            None => Ok(()),
            Some(name) => Err(Error::new(
                ErrorKind::Channel,
                format!(
                    "encode wrote to the side input `{name}`, which the template does not declare as one that we write"
                ),
            )
            .hint("declare it with Template::side_input")),
        }
    }
}

impl io::Write for Request<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One side input of one request; see [`Request::side`].
#[derive(Debug)]
pub struct Side<'a> {
    bytes: Option<&'a mut Vec<u8>>,
}

impl Side<'_> {
    /// Appends bytes to this item's record on the side input.
    pub fn push(&mut self, more: impl AsRef<[u8]>) {
        if let Some(bytes) = &mut self.bytes {
            bytes.extend_from_slice(more.as_ref());
        }
    }
}

impl io::Write for Side<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One reply, lent to `decode`: the bytes that came back for one item, without their framing.
#[derive(Clone, Copy)]
pub struct Reply<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) packet: u64,
    pub(crate) worker: usize,
    pub(crate) names: &'a [String],
    /// The whole buffer, and where in it the side outputs' parts of this reply are. One more than there
    /// are names is what was written on stderr meanwhile.
    pub(crate) sides: (&'a [u8], &'a [Range<usize>]),
}

impl<'a> Reply<'a> {
    /// The bytes from stdout.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Splits the reply at its first line feed, into header and content, for
    /// [`git_batch`](crate::framing::ReplyFraming::git_batch) and
    /// [`sized_header`](crate::framing::ReplyFraming::sized_header).
    ///
    /// The line feed between the two belongs to neither. The content may hold any bytes. If the reply has only one line,
    /// the content is empty; the header says whether there is no content, or content of zero bytes.
    ///
    /// ```
    /// # mod tools { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/tools.rs")); }
    /// # if !tools::here(&["git"]) { return Ok(()); }
    /// # let dir = std::env::temp_dir().join(format!("subfeed-header-{}", std::process::id()));
    /// # let git = |args: &[&str]| std::process::Command::new("git").arg("-C").arg(&dir).args(args).output();
    /// # std::fs::create_dir_all(&dir)?;
    /// # git(&["init", "-q"])?;
    /// # std::fs::write(dir.join("file"), "two\nlines\n")?;
    /// # git(&["add", "file"])?;
    /// use subfeed::framing::ReplyFraming;
    /// use subfeed::{BString, ByteSlice, FeedExt, Template};
    ///
    /// let git = Template::new("git")
    ///     .args(["cat-file", "--batch"])
    ///     .current_dir(&dir)
    ///     .replies(ReplyFraming::git_batch())
    ///     .decode(|reply| {
    ///         let (header, content) = reply.split_header();
    ///         let found = !header.ends_with_str(" missing");
    ///         found.then(|| content.to_owned())
    ///     });
    /// let objects: Vec<Option<BString>> =
    ///     [":file", "nothing"].into_iter().feed_subprocesses_ordered(git, 2, 100).collect::<Result<_, _>>()?;
    /// assert_eq!(objects, [Some("two\nlines\n".into()), None]);
    /// # std::fs::remove_dir_all(&dir)?;
    /// # Ok::<(), subfeed::BoxError>(())
    /// ```
    #[must_use]
    pub fn split_header(&self) -> (&'a BStr, &'a BStr) {
        let (header, content) = self.bytes.split_once_str("\n").unwrap_or((self.bytes, b""));
        (header.as_bstr(), content.as_bstr())
    }

    /// The bytes from stdout as a `&str`, without a copy.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let numbers = Template::new("cat").try_decode(|reply| Ok(reply.to_str()?.parse::<u32>()?));
    /// let sum: Result<u32, _> = ["1", "2"].into_iter().feed_subprocesses_ordered(numbers, 1, 8).sum();
    /// assert_eq!(sum.unwrap(), 3);
    /// ```
    ///
    /// # Errors
    /// If they are not UTF-8.
    #[doc(alias = "as_str")]
    pub fn to_str(&self) -> Result<&'a str, std::str::Utf8Error> {
        std::str::from_utf8(self.bytes)
    }

    /// The packet id: the position of the item in the input.
    #[must_use]
    pub fn packet(&self) -> u64 {
        self.packet
    }

    /// The number of the worker that answered, `0..n`.
    #[must_use]
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// The part of this reply on the side output with this name; `None` if no such output was declared with
    /// [`Template::side_output`](crate::Template::side_output).
    #[must_use]
    pub fn side(&self, name: &str) -> Option<&'a BStr> {
        let i = self.names.iter().position(|declared| declared == name)?;
        Some(self.sides.0[self.sides.1.get(i)?.clone()].as_bstr())
    }
}

impl<'a> Reply<'a> {
    /// The bytes that the worker wrote on stderr while it worked on this packet. Of more than 8 KiB, only the beginning
    /// and the end are kept. `None` without [`keep_stderr`](crate::Template::keep_stderr).
    #[must_use]
    pub fn stderr(&self) -> Option<&'a BStr> {
        let range = self.sides.1.get(self.names.len())?;
        Some(self.sides.0[range.clone()].as_bstr())
    }
}

impl Deref for Reply<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl AsRef<[u8]> for Reply<'_> {
    fn as_ref(&self) -> &[u8] {
        self.bytes
    }
}

impl fmt::Debug for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("packet", &self.packet)
            .field("worker", &self.worker)
            .field("bytes", &self.bytes.as_bstr())
            .finish()
    }
}

pub(crate) mod sealed {
    /// What only this crate implements.
    pub trait Sealed {}
}
use sealed::Sealed;

/// How an item of type `T` becomes a request: [`AsBytes`], or a closure given to
/// [`Template::encode`](crate::Template::encode) or [`Template::try_encode`](crate::Template::try_encode).
///
/// Sealed. Use it as a bound, as in `fn run<E: Encode<u32>, D: Decode>(template: Template<E, D>)`.
#[diagnostic::on_unimplemented(
    message = "items of type `{T}` cannot be fed with this template",
    label = "makes no request of `{T}`",
    note = "a template without `encode` takes what is bytes: `String`, `&str`, `Vec<u8>`, any `AsRef<[u8]>`",
    note = "map the items to text, as in `.map(|item| item.to_string())`, or give the template an `.encode(|item: &{T}, request| ...)`",
    note = "where the items are the `Result`s of an earlier feed or of a reader, use `try_feed`"
)]
pub trait Encode<T: ?Sized>: Sealed + Send {
    /// Whether encoding takes no time worth mentioning. If not, the requests before stay within the
    /// executor's reach meanwhile.
    #[doc(hidden)]
    const QUICK: bool = false;
    /// Writes the bytes of `item`, without framing.
    #[doc(hidden)]
    fn encode(&mut self, item: &T, request: &mut Request<'_>) -> Result<(), BoxError>;

    /// The item's bytes, where they are the whole request: a way round [`encode`](Encode::encode) that
    /// does the same in less time.
    #[doc(hidden)]
    #[inline]
    fn as_request<'i>(&self, _item: &'i T) -> Option<&'i [u8]> {
        None
    }
}

/// How a reply becomes a value: [`Owned`], [`Text`], or a closure given to
/// [`Template::decode`](crate::Template::decode) or [`Template::try_decode`](crate::Template::try_decode).
///
/// Sealed. Use it as a bound, and to name the [`Output`](Decode::Output).
pub trait Decode: Sealed + Send {
    /// What the feed yields.
    type Output;
    /// Whether `decode` can fail: its error then names the request, which is kept until it is yielded.
    #[doc(hidden)]
    const FALLIBLE: bool = true;
    /// Makes a value of a reply.
    #[doc(hidden)]
    fn decode(&mut self, reply: Reply<'_>) -> Result<Self::Output, BoxError>;
}

/// The default encoding: the request is the bytes of the item, `AsRef<[u8]>`.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsBytes;

impl Sealed for AsBytes {}

// Otherwise the compiler speaks of `AsRef` instead of what is said at `Encode`.
#[diagnostic::do_not_recommend]
impl<T: AsRef<[u8]> + ?Sized> Encode<T> for AsBytes {
    const QUICK: bool = true;
    #[inline]
    fn encode(&mut self, item: &T, request: &mut Request<'_>) -> Result<(), BoxError> {
        request.push(item);
        Ok(())
    }

    #[inline]
    fn as_request<'i>(&self, item: &'i T) -> Option<&'i [u8]> {
        Some(item.as_ref())
    }
}

/// The default decoding: the value is a [`BString`] with a copy of the reply.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owned;

impl Decode for Owned {
    type Output = BString;
    const FALLIBLE: bool = false;
    #[inline]
    fn decode(&mut self, reply: Reply<'_>) -> Result<BString, BoxError> {
        Ok(BString::from(reply.bytes))
    }
}

impl Sealed for Owned {}

/// Replies as [`String`]s; made by [`Template::text`](crate::Template::text).
#[derive(Clone, Copy, Debug, Default)]
pub struct Text;

impl Sealed for Text {}

impl Decode for Text {
    type Output = String;
    #[inline]
    fn decode(&mut self, reply: Reply<'_>) -> Result<String, BoxError> {
        Ok(reply.to_str().map_err(NotText)?.to_owned())
    }
}

/// A reply that was to be text.
#[derive(Debug)]
struct NotText(std::str::Utf8Error);

impl fmt::Display for NotText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "it is not UTF-8 (leave Template::text out to get bytes, or decide with Template::try_decode)",
        )
    }
}

impl std::error::Error for NotText {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

macro_rules! closures {
    ($($(#[$doc:meta])* $encode:ident)+ ; $($(#[$doc2:meta])* $decode:ident)+) => {
        $(
            $(#[$doc])*
            pub struct $encode<T: ?Sized, F>(F, PhantomData<fn(&T)>);

            impl<T: ?Sized, F> $encode<T, F> {
                pub(crate) fn new(f: F) -> Self {
                    Self(f, PhantomData)
                }
            }

            impl<T: ?Sized, F> Sealed for $encode<T, F> {}

            impl<T: ?Sized, F: Clone> Clone for $encode<T, F> {
                fn clone(&self) -> Self {
                    Self(self.0.clone(), PhantomData)
                }
            }

            impl<T: ?Sized, F> fmt::Debug for $encode<T, F> {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(stringify!($encode))
                }
            }
        )+
        $(
            $(#[$doc2])*
            #[derive(Clone)]
            pub struct $decode<F>(pub(crate) F);

            impl<F> Sealed for $decode<F> {}

            impl<F> fmt::Debug for $decode<F> {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(stringify!($decode))
                }
            }
        )+
    };
}

closures! {
    /// A closure that makes requests; see [`Template::encode`](crate::Template::encode).
    EncodeFn
    /// A closure that makes requests and may fail; see [`Template::try_encode`](crate::Template::try_encode).
    TryEncodeFn
    ;
    /// A closure that makes values from replies; see [`Template::decode`](crate::Template::decode).
    DecodeFn
    /// A closure that makes values from replies and may fail; see
    /// [`Template::try_decode`](crate::Template::try_decode).
    TryDecodeFn
}

impl<T: ?Sized, F> Encode<T> for EncodeFn<T, F>
where
    F: FnMut(&T, &mut Request<'_>) + Send,
{
    #[inline]
    fn encode(&mut self, item: &T, request: &mut Request<'_>) -> Result<(), BoxError> {
        (self.0)(item, request);
        Ok(())
    }
}

impl<T: ?Sized, F> Encode<T> for TryEncodeFn<T, F>
where
    F: FnMut(&T, &mut Request<'_>) -> Result<(), BoxError> + Send,
{
    #[inline]
    fn encode(&mut self, item: &T, request: &mut Request<'_>) -> Result<(), BoxError> {
        (self.0)(item, request)
    }
}

impl<O, F> Decode for DecodeFn<F>
where
    F: FnMut(Reply<'_>) -> O + Send,
{
    type Output = O;
    const FALLIBLE: bool = false;
    #[inline]
    fn decode(&mut self, reply: Reply<'_>) -> Result<O, BoxError> {
        Ok((self.0)(reply))
    }
}

impl<O, F> Decode for TryDecodeFn<F>
where
    F: FnMut(Reply<'_>) -> Result<O, BoxError> + Send,
{
    type Output = O;
    #[inline]
    fn decode(&mut self, reply: Reply<'_>) -> Result<O, BoxError> {
        (self.0)(reply)
    }
}
