//! Items into batches: requests for processes, as they are for threads.
//!
//! This runs on the intake's thread, for every record, and is written to cost little: a record is searched
//! for its delimiter where it comes from, framed in the buffer that goes to the pipe, and copied once.
//! Panics of the user's code pass through; the intake has one guard for its whole run.

use crate::error::{BoxError, Error, ErrorKind};
use crate::framing::{FramingError, FramingErrorKind, RequestFraming, Sentinel};
use crate::record::{Batch, PacketId, Requests};
use crate::template::codec::{Encode, Request};

/// Puts the words of a template on paper: columns, framing, marks.
#[derive(Debug)]
pub(crate) struct Scribe {
    /// One framing per column, stdin's first.
    pub(crate) framings: Vec<RequestFraming>,
    pub(crate) names: Vec<String>,
    pub(crate) sentinel: Option<Sentinel>,
}

impl Scribe {
    /// Appends the request of one item to the batch. What an error or a panic leaves of it is the
    /// caller's to take out again.
    #[inline]
    pub(super) fn write<T, E: Encode<T>>(
        &self,
        encode: &mut E,
        item: &T,
        packet: PacketId,
        batch: &mut Requests,
    ) -> Result<(), Error> {
        if let ([column], [framing]) = (&mut batch.columns[..], &self.framings[..])
            && let Some(body) = encode.as_request(item)
        {
            framing
                .append(body, &mut column.bytes)
                .map_err(|error| self.unframeable(0, error, body))?;
            if let Some(sentinel) = &self.sentinel {
                sentinel.append(packet.0, &mut column.bytes);
            }
            column.push_end();
            return Ok(());
        }
        self.encode(encode, item, packet, batch)?;
        if let Some(sentinel) = &self.sentinel {
            sentinel.append(packet.0, &mut batch.columns[0].bytes);
        }
        for column in &mut batch.columns {
            column.push_end();
        }
        Ok(())
    }

    fn encode<T, E: Encode<T>>(
        &self,
        encode: &mut E,
        item: &T,
        packet: PacketId,
        batch: &mut Requests,
    ) -> Result<(), Error> {
        for (column, framing) in batch.columns.iter_mut().zip(&self.framings) {
            framing.open(&mut column.bytes);
        }
        let mut request = Request::new(&mut batch.columns, &self.names, packet.0);
        encode.encode(item, &mut request).map_err(refused)?;
        request.finish()?;
        for (i, (column, framing)) in batch.columns.iter_mut().zip(&self.framings).enumerate() {
            let start = column.end();
            if let Err(error) = framing.close(&mut column.bytes, start) {
                return Err(self.unframeable(i, error, &column.bytes[start..]));
            }
        }
        Ok(())
    }

    #[cold]
    fn unframeable(&self, column: usize, error: FramingError, body: &[u8]) -> Error {
        let last = body.len().wrapping_sub(1);
        let closed =
            matches!(error.kind(), FramingErrorKind::ContainsDelimiter { at, .. } if at == last);
        let what = match column {
            0 => "the request cannot be framed".to_owned(),
            i => format!("the record for the side input `{}` cannot be framed", self.names[i - 1]),
        };
        let error = Error::new(ErrorKind::Encode, what).because(error).asked(body.to_vec());
        if closed {
            error.hint("it is the last byte: leave it off, the framing adds it")
        } else {
            error
        }
    }
}

/// Also for an error of another feed: it may have been fatal there, and is one item's here.
#[cold]
fn refused(error: BoxError) -> Error {
    Error::new(ErrorKind::Encode, "encode refused the item").because(error)
}

/// Puts items in batches: what an executor is sent.
pub(crate) trait Pack<T> {
    type Batch: Batch;

    /// Whether packing an item takes no time worth mentioning.
    const QUICK: bool = true;

    /// A new batch, where none comes back to be filled again.
    fn empty(&self) -> Self::Batch;

    /// Whether the item is no work, and only keeps its place.
    fn passes(&self, item: &T) -> bool;

    /// Takes an item that is no work.
    fn pass(&mut self, item: T);

    /// Takes the item and appends it to the batch, or leaves the batch as it was.
    ///
    /// The user's code may panic in here: then the batch may have something of this item at its end, and
    /// the item may still be in its place.
    fn pack(
        &mut self,
        item: &mut Option<T>,
        packet: PacketId,
        batch: &mut Self::Batch,
    ) -> Result<(), Error>;
}

/// Packs requests: the scribe writes what `encode` makes of an item, and the store gets the item.
#[derive(Debug)]
pub(crate) struct Writer<E, S> {
    pub(crate) scribe: Scribe,
    pub(crate) encode: E,
    pub(crate) store: S,
}

impl<T, E: Encode<T>, S: Store<T>> Pack<T> for Writer<E, S> {
    type Batch = Requests;
    const QUICK: bool = E::QUICK;

    fn empty(&self) -> Requests {
        Requests::new(self.scribe.framings.len())
    }

    fn passes(&self, item: &T) -> bool {
        self.store.passes(item)
    }

    fn pass(&mut self, item: T) {
        self.store.put(item);
    }

    #[inline]
    fn pack(
        &mut self,
        item: &mut Option<T>,
        packet: PacketId,
        batch: &mut Requests,
    ) -> Result<(), Error> {
        let written = match item {
            Some(item) => self.scribe.write(&mut self.encode, item, packet, batch),
            None => Ok(()),
        };
        if written.is_err() {
            batch.truncate(packet.since(batch.first) as usize);
        }
        // Where nobody keeps the item this drops it, which runs code of the user's.
        if let Some(item) = item.take() {
            self.store.put(item);
        }
        written.map_err(|error| error.at(packet.0))
    }
}

/// What becomes of an item beside its request.
pub(crate) trait Store<T> {
    /// Whether the item is no work, and only keeps its place.
    fn passes(&self, item: &T) -> bool;
    /// Takes the item, in the order of the packets, before anything can come back for it.
    fn put(&self, item: T);
}
