//! JSON texts as requests and replies.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::BoxError;
use crate::template::Template;
use crate::template::codec::sealed::Sealed;
use crate::template::codec::{Decode, Encode, Reply, Request};

/// JSON.
#[cfg_attr(docsrs, doc(cfg(feature = "json")))]
impl<E, D> Template<E, D> {
    /// Exchanges JSON: each item, which must implement serde's `Serialize`, is written as one compact text, and each reply
    /// is read as a value of type `O`. With the default framings each is one line.
    ///
    /// An item that cannot be written as JSON (a map with keys that are not strings) is an `Err` of kind
    /// [`ErrorKind::Encode`](crate::ErrorKind::Encode) at its position. A reply that is not a valid `O` is one of kind
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode). Iteration goes on.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let cat = Template::new("cat").json::<(String, u32)>();
    /// let pairs: Result<Vec<_>, _> =
    ///     [("a", 1), ("two\nlines", 2)].into_iter().feed_subprocesses_ordered(cat, 2, 8).collect();
    /// assert_eq!(pairs.unwrap(), [("a".to_owned(), 1), ("two\nlines".to_owned(), 2)]);
    /// ```
    #[must_use]
    pub fn json<O: DeserializeOwned>(self) -> Template<ToJson, FromJson<O>> {
        self.encode_json().decode_json()
    }

    /// Writes items as JSON, as [`json`](Template::json) does, and leaves the replies as they are.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::new("cat").encode_json();
    /// let mut feed = [vec![1, 2], vec![]].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, "[1,2]");
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn encode_json(self) -> Template<ToJson, D> {
        Template { spec: self.spec, encode: ToJson, decode: self.decode }
    }

    /// Reads replies as JSON, as [`json`](Template::json) does, and leaves the requests as they are.
    ///
    /// ```
    /// use subfeed::{FeedExt, Template};
    /// let template = Template::new("cat").decode_json::<Vec<u32>>();
    /// let mut feed = ["[1, 2]"].into_iter().feed_subprocesses_ordered(template, 1, 8);
    /// assert_eq!(feed.next().unwrap()?, [1, 2]);
    /// # Ok::<_, subfeed::Error>(())
    /// ```
    #[must_use]
    pub fn decode_json<O: DeserializeOwned>(self) -> Template<E, FromJson<O>> {
        Template { spec: self.spec, encode: self.encode, decode: FromJson(PhantomData) }
    }
}

/// The encoding of [`Template::json`]: an item as a compact JSON text.
#[cfg_attr(docsrs, doc(cfg(feature = "json")))]
#[derive(Clone, Copy, Debug, Default)]
pub struct ToJson;

impl Sealed for ToJson {}

impl<T: Serialize + ?Sized> Encode<T> for ToJson {
    fn encode(&mut self, item: &T, request: &mut Request<'_>) -> Result<(), BoxError> {
        serde_json::to_writer(request, item).map_err(Into::into)
    }
}

/// The decoding of [`Template::json`]: a value read from a JSON text.
#[cfg_attr(docsrs, doc(cfg(feature = "json")))]
pub struct FromJson<O>(PhantomData<fn() -> O>);

impl<O> Clone for FromJson<O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<O> Copy for FromJson<O> {}

impl<O> fmt::Debug for FromJson<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FromJson")
    }
}

impl<O> Sealed for FromJson<O> {}

impl<O: DeserializeOwned> Decode for FromJson<O> {
    type Output = O;
    fn decode(&mut self, reply: Reply<'_>) -> Result<O, BoxError> {
        serde_json::from_slice(reply.bytes()).map_err(Into::into)
    }
}
