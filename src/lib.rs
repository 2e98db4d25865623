//! Stream any iterator through a swarm of persistent subprocesses.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod error;
mod ext;
mod feed;
mod record;
mod stats;
mod stream;
mod swarm;
mod template;

pub use crate::builder::{Builder, Drained, Exit};
pub use crate::error::{BoxError, Error, ErrorKind};
pub use crate::ext::FeedExt;
pub use crate::feed::{Batch, Batches, Deliver, Feed, KeepInput};
pub use crate::stats::{Monitor, Snapshot};
pub use crate::stream::outlet::Order;
pub use crate::template::Template;
pub use crate::template::channel::{LineBuffered, Redirect};
pub use crate::template::codec::{
    AsBytes, Decode, DecodeFn, Encode, EncodeFn, Owned, Reply, Request, Side,
};
pub use crate::template::framing;
pub use crate::template::policy::{Halt, OnStall, Signal};
