//! Binary records with their length in front.
//!
//! The record may hold any byte, and its end is known from the start. What a tool calls its length
//! differs in width and byte order only; lengths that count themselves, or are variable in width
//! (protobuf's varints), are for [`ReplyFraming::custom`](super::ReplyFraming::custom).

use super::parts::{announced, unfinished};
use super::{Framing, FramingError, FramingErrorKind, Position, Scan};

/// A length prefix: an unsigned integer of a fixed width that gives the size of the record behind it
/// in bytes, itself not counted.
///
/// The byte order is part of the name. Network protocols and most languages' packing functions use
/// big-endian (`struct.pack(">I", n)` in Python is [`u32_be`](Self::u32_be)); Chrome's native
/// messaging and formats that are memory images use the machine's own, which today is little-endian
/// (`struct.pack("<I", n)` is [`u32_le`](Self::u32_le)).
///
/// # Examples
///
/// ```
/// use subfeed::framing::{Prefix, RequestFraming};
///
/// let framing = RequestFraming::prefixed(Prefix::u16_be());
/// let mut out = Vec::new();
/// framing.open(&mut out);
/// out.extend_from_slice(b"any\nbytes");
/// framing.close(&mut out, 0)?;
/// assert_eq!(out, b"\x00\x09any\nbytes");
/// # Ok::<(), subfeed::framing::FramingError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    width: Width,
    order: Order,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Width {
    U8 = 1,
    U16 = 2,
    U32 = 4,
    U64 = 8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Order {
    Big,
    Little,
}

impl Prefix {
    const fn new(width: Width, order: Order) -> Self {
        Self { width, order }
    }

    /// One byte: records up to 255 bytes.
    #[must_use]
    pub const fn u8() -> Self {
        Self::new(Width::U8, Order::Big)
    }

    /// Two bytes, big-endian: records up to 64 KiB - 1.
    #[must_use]
    pub const fn u16_be() -> Self {
        Self::new(Width::U16, Order::Big)
    }

    /// Two bytes, little-endian: records up to 64 KiB - 1.
    #[must_use]
    pub const fn u16_le() -> Self {
        Self::new(Width::U16, Order::Little)
    }

    /// Four bytes, big-endian: records up to 4 GiB - 1.
    #[must_use]
    pub const fn u32_be() -> Self {
        Self::new(Width::U32, Order::Big)
    }

    /// Four bytes, little-endian: records up to 4 GiB - 1.
    #[must_use]
    pub const fn u32_le() -> Self {
        Self::new(Width::U32, Order::Little)
    }

    /// Eight bytes, big-endian.
    #[must_use]
    pub const fn u64_be() -> Self {
        Self::new(Width::U64, Order::Big)
    }

    /// Eight bytes, little-endian.
    #[must_use]
    pub const fn u64_le() -> Self {
        Self::new(Width::U64, Order::Little)
    }

    /// Bytes of the prefix itself.
    const fn width(self) -> usize {
        self.width as usize
    }

    /// The largest record that the prefix can announce.
    const fn most(self) -> u64 {
        u64::MAX >> (64 - 8 * self.width())
    }

    /// Begins a request: room for the length, which is known in [`close`](Self::close) only.
    pub(super) fn open(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[0; 8][..self.width()]);
    }

    /// Ends the request whose prefix begins at `start`.
    pub(super) fn close(self, out: &mut [u8], start: usize) -> Result<(), FramingError> {
        let width = self.width();
        let size = (out.len() - start - width) as u64;
        if size > self.most() {
            return Err(FramingError::new(
                FramingErrorKind::TooLong { size, limit: self.most() },
                "the request does not fit its length prefix: choose a wider one",
            ));
        }
        let prefix = &mut out[start..start + width];
        match self.order {
            Order::Big => prefix.copy_from_slice(&size.to_be_bytes()[8 - width..]),
            Order::Little => prefix.copy_from_slice(&size.to_le_bytes()[..width]),
        }
        Ok(())
    }

    /// The length at the start of `input`, once the prefix is whole.
    fn size(self, input: &[u8]) -> Option<u64> {
        let prefix = input.get(..self.width())?;
        let shift = |size: u64, byte: &u8| size << 8 | u64::from(*byte);
        Some(match self.order {
            Order::Big => prefix.iter().fold(0, shift),
            Order::Little => prefix.iter().rev().fold(0, shift),
        })
    }
}

/// The scanner. It has no state: the prefix is read again at every call, which takes no time.
#[derive(Debug)]
pub(super) struct Prefixed(pub(super) Prefix);

impl Framing for Prefixed {
    fn scan(&mut self, input: &[u8], position: Position) -> Result<Scan, FramingError> {
        match self.0.size(input) {
            Some(size) => announced(input, self.0.width(), size, b"", position),
            None => unfinished(0, position),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{scan, trickle};
    use super::*;

    fn request(prefix: Prefix, body: &[u8]) -> Result<Vec<u8>, FramingErrorKind> {
        let mut out = b"earlier".to_vec();
        prefix.open(&mut out);
        out.extend_from_slice(body);
        prefix.close(&mut out, 7).map_err(|error| error.kind())?;
        Ok(out.split_off(7))
    }

    #[test]
    fn each_prefix_has_its_width_and_byte_order() {
        for (prefix, expected) in [
            (Prefix::u8(), &b"\x03abc"[..]),
            (Prefix::u16_be(), b"\x00\x03abc"),
            (Prefix::u16_le(), b"\x03\x00abc"),
            (Prefix::u32_be(), b"\x00\x00\x00\x03abc"),
            (Prefix::u32_le(), b"\x03\x00\x00\x00abc"),
            (Prefix::u64_be(), b"\x00\x00\x00\x00\x00\x00\x00\x03abc"),
            (Prefix::u64_le(), b"\x03\x00\x00\x00\x00\x00\x00\x00abc"),
        ] {
            assert_eq!(request(prefix, b"abc"), Ok(expected.to_vec()), "{prefix:?}");
            let found = trickle(&mut Prefixed(prefix), expected, 3);
            assert_eq!(found, Ok(Some((b"abc".to_vec(), expected.len()))));
        }
    }

    #[test]
    fn a_request_that_does_not_fit_is_refused() {
        assert!(request(Prefix::u8(), &[0; 255]).is_ok());
        assert_eq!(
            request(Prefix::u8(), &[0; 256]),
            Err(FramingErrorKind::TooLong { size: 256, limit: 255 })
        );
        assert!(request(Prefix::u16_le(), &[0; 65_535]).is_ok());
        assert!(request(Prefix::u16_le(), &[0; 65_536]).is_err());
    }

    #[test]
    fn an_announced_size_over_the_limit_is_known_before_any_of_the_body() {
        assert_eq!(
            scan(&mut Prefixed(Prefix::u16_be()), b"\x00\x04", 3, false),
            Err(FramingErrorKind::TooLong { size: 4, limit: 3 })
        );
        assert_eq!(
            scan(&mut Prefixed(Prefix::u64_le()), &[0xff; 8], usize::MAX, false),
            Err(FramingErrorKind::TooLong { size: u64::MAX, limit: usize::MAX as u64 })
        );
    }

    #[test]
    fn an_empty_record_is_its_prefix_alone() {
        let found = scan(&mut Prefixed(Prefix::u32_le()), &[0; 4], 0, true);
        assert_eq!(found, Ok(Some((vec![], 4))));
    }

    #[test]
    fn output_that_ends_in_prefix_or_record_is_half_a_reply() {
        for input in [&b"\0"[..], b"\0\x02", b"\0\x02a"] {
            assert_eq!(
                scan(&mut Prefixed(Prefix::u16_be()), input, 9, true),
                Err(FramingErrorKind::Truncated)
            );
        }
    }
}
